"""Observed spectra of real galaxies with their photometry and labels, for training and tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import astropy.units as u
import numpy as np
import torch
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table

from astrogenspec.generation.observed_spectra import ObservedSpectra, to_rest_grid
from astrogenspec.surveys import BANDS
from astrogenspec.surveys.filters import galactic_extinction
from astrogenspec.wavelengths import narrow_line_velocity

#: Extinction in r per E(B-V) of Schlegel, Finkbeiner & Davis (1998), the scale of the tables.
_EXT_R = 2.751
#: Redshifts of the galaxies used.
_MIN_Z, _MAX_Z = 0.003, 0.33
#: Broad lines are fitted if the pipeline has seen them.
_BROAD_SUBCLASS = "BROADLINE"
_MIN_FIT_SIGMA, _MAX_FIT_SIGMA = 30.0, 400.0


def plain(column) -> np.ndarray:
    """Return a column as an array of float, NaN where masked."""
    return np.ma.filled(np.ma.asarray(column, dtype=float), np.nan)


@dataclass
class RealSpectra:
    """Real galaxies with spectra.

    Attributes
    ----------
    table : Table
        One row per galaxy.
    log_wavelength : ndarray, shape (m,)
        log10 of observed vacuum wavelengths (Angstrom).
    flux, ivar : ndarray, shape (n, m)
        Corrected for Galactic extinction; ivar is 0 where missing.
    ebv : ndarray, shape (n,)
        E(B-V) of the correction.
    total : ndarray, shape (n, 5)
        Total fluxes in ugriz (nmgy), corrected for Galactic extinction; NaN where unknown.
    """

    table: Table
    log_wavelength: np.ndarray
    flux: np.ndarray
    ivar: np.ndarray
    ebv: np.ndarray
    total: np.ndarray

    def __len__(self) -> int:
        return len(self.table)

    @property
    def redshift(self) -> np.ndarray:
        """Redshifts."""
        return plain(self.table["z"])

    def at_rest(self) -> ObservedSpectra:
        """Return the spectra at rest-frame wavelengths."""
        flux, ivar = to_rest_grid(self.log_wavelength, self.flux, self.ivar, self.redshift)
        tensor = lambda values: torch.as_tensor(values, dtype=torch.float32)  # noqa: E731
        return ObservedSpectra(
            tensor(flux),
            tensor(ivar),
            tensor(self.redshift),
            tensor(self.line_velocity()),
            torch.as_tensor([_BROAD_SUBCLASS in str(s) for s in self.table["subclass"]]),
        )

    def dispersion(self) -> np.ndarray:
        """Return velocity dispersions of the stars (km/s); NaN where not measured."""
        value = plain(self.table["vdisp"])
        error = plain(self.table["vdisp_err"])
        good = (value > 60) & (value < 420) & (error > 0) & (error < 0.2 * value)
        return np.where(good, value, np.nan)

    def line_velocity(self) -> np.ndarray:
        """Return the dispersion of narrow lines (km/s), corrected for the resolution."""
        stars = np.nan_to_num(self.dispersion(), nan=100.0)
        assumed = narrow_line_velocity(torch.as_tensor(stars)).numpy()
        found = []
        for name, sigma in (("h_alpha", "balmer_sigma"), ("oiii_5007", "forbidden_sigma")):
            flux, error = plain(self.table[f"{name}_flux"]), plain(self.table[f"{name}_flux_err"])
            value = plain(self.table[sigma])
            value = np.sqrt(np.maximum(value**2 - 69.0**2, _MIN_FIT_SIGMA**2))
            strong = (error > 0) & (flux > 10 * error) & (value < _MAX_FIT_SIGMA)
            found.append(np.where(strong, value, np.nan))
        first, second = found
        return np.where(np.isfinite(first), first, np.where(np.isfinite(second), second, assumed))


def read_real_spectra(folder: Path) -> RealSpectra:
    """Read the SDSS spectra of nearby galaxies with inverse variances.

    Galaxies of `sdss_spectra.fits`, which are a further test, quasars, and galaxies with a warning
    of the pipeline are left out.
    """
    with fits.open(folder / "sdss_galaxy_spectra.fits.gz") as hdus:
        table = Table.read(hdus["GALAXIES"])
        log_wavelength = np.array(hdus["LOGLAM"].data, float)
        flux, ivar = (np.array(hdus[name].data, float) for name in ("FLUX", "IVAR"))
    z = plain(table["z"])
    match = np.array([set(str(m).split()) for m in table["real_match"]])
    keep = (z > _MIN_Z) & (z < _MAX_Z) & (np.asarray(table["zwarning"]) == 0)
    keep &= np.array([str(c).strip() == "GALAXY" for c in table["pipe_class"]])
    keep &= np.array(["spectra" not in m for m in match])
    table, flux, ivar = table[keep], flux[keep], ivar[keep]
    ebv = nearest_reddening(table, folder)
    flux, ivar = dereddened(log_wavelength, flux, np.maximum(ivar, 0.0), ebv)
    return RealSpectra(table, log_wavelength, flux, ivar, ebv, total_photometry(table, folder))


def dereddened(
    log_wavelength: np.ndarray, flux: np.ndarray, ivar: np.ndarray, ebv: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Correct spectra, shape (n, m), and their inverse variances for Galactic extinction."""
    factor = 10 ** (0.4 * ebv[:, None] * galactic_extinction(10**log_wavelength))
    return flux * factor, ivar / factor**2


def _positions(table: Table) -> SkyCoord:
    return SkyCoord(plain(table["ra"]), plain(table["dec"]), unit="deg")


def nearest_reddening(table: Table, folder: Path) -> np.ndarray:
    """Return E(B-V) of the nearest galaxy with a known extinction."""
    union = Table.read(folder / "sdss_union_photometry.fits")
    photometry = Table.read(folder / "sdss_photometry.fits")
    known = np.isfinite(plain(union["ext_r_est"])) & np.isfinite(plain(union["ra"]))
    ra = np.concatenate([plain(union["ra"])[known], plain(photometry["ra"])])
    dec = np.concatenate([plain(union["dec"])[known], plain(photometry["dec"])])
    value = np.concatenate([plain(union["ext_r_est"])[known], plain(photometry["ext_r"])]) / _EXT_R
    row, _, _ = _positions(table).match_to_catalog_sky(SkyCoord(ra, dec, unit="deg"))
    return value[row]


def total_photometry(table: Table, folder: Path) -> np.ndarray:
    """Return dereddened total fluxes in ugriz (nmgy) of galaxies in other tables."""
    union = Table.read(folder / "sdss_union_photometry.fits")
    photometry = Table.read(folder / "sdss_photometry.fits")
    total = np.full((len(table), len(BANDS)), np.nan)
    for source, flux_of in (
        (union, lambda row, band: 10 ** (0.4 * (22.5 - plain(union[f"modelmag_{band}"])[row]))),
        (photometry, lambda row, band: plain(photometry[f"modelflux_{band}"])[row]),
    ):
        good = np.flatnonzero(np.isfinite(plain(source["ra"])))
        row, distance, _ = _positions(table).match_to_catalog_sky(_positions(source[good]))
        near = distance < 3 * u.arcsec
        row = good[row]
        ext_r = plain(source["ext_r_est" if source is union else "ext_r"])[row]
        for k, band in enumerate(BANDS):
            ratio = _EXTINCTION[k] / _EXTINCTION[2]
            flux = flux_of(row, band) * 10 ** (0.4 * np.nan_to_num(ext_r) * ratio)
            total[:, k] = np.where(near & np.isfinite(flux) & (flux > 0), flux, total[:, k])
    return total


#: Extinction per E(B-V) in ugriz, Schlegel, Finkbeiner & Davis (1998).
_EXTINCTION = (5.155, 3.793, 2.751, 2.086, 1.479)
