r"""Observed spectra on the rest-frame grid of the networks, with inverse variance and gaps.

The spectrum of a galaxy is moved to the rest frame, :math:`\lambda = \lambda_\mathrm{obs} / (1 +
z)`, and rebinned with conservation of flux to `astrogenspec.wavelengths.REST`: the flux density of
an output pixel is the mean of those of the input pixels weighted by the overlaps :math:`w`,

.. math:: f_j = \sum_i w_{ji} f_i, \qquad \sigma_j^2 = \sum_i w_{ji}^2 \sigma_i^2, \qquad
          \sum_i w_{ji} = 1 .

Neighbouring output pixels share input pixels and are correlated, which the inverse variance does
not state: for equal grids with a random offset the sum of the variances is two thirds of that of
the input on average.  An output pixel that overlaps a bad input pixel, or reaches beyond the
spectrum, has an inverse variance of zero.

Flux densities are per unit of observed wavelength, in 1e-17 erg/s/cm2/A, corrected for Galactic
extinction (`astrogenspec.surveys.filters.galactic_extinction`), on vacuum wavelengths.
"""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike

import astropy.units as u
import numpy as np
from astropy.io import fits

from ..fits_files import check_fits
from ..quantities import FLUX_UNIT
from ..surveys.filters import galactic_extinction
from ..wavelengths import REST, LogGrid

__all__ = ["ObservedSpectrum", "read_spectrum", "rebin", "to_rest_frame"]

#: Bits of AND_MASK of SDSS spectra that mark a pixel as bad in all exposures: NOPLUG (0), BADTRACE
#: (1), BADFLAT (2), BADARC (3), NODATA (24), COMBINEREJ (25), BADFLUXFACTOR (26).
_BAD_SDSS = sum(1 << bit for bit in (0, 1, 2, 3, 24, 25, 26))
_MAX_SPECTRUM_BYTES = 200_000_000
#: Largest flux density that is believed (1e-17 erg/s/cm2/A).
_MAX_FLUX = 1e6


@dataclass(frozen=True)
class ObservedSpectrum:
    """Spectrum of one galaxy as observed.

    Attributes
    ----------
    wavelength : ndarray, shape (m,)
        Vacuum wavelengths in the observed frame (Angstrom), increasing.
    flux : ndarray, shape (m,)
        1e-17 erg/s/cm2/A.
    ivar : ndarray, shape (m,)
        Inverse variance; 0 where bad.
    """

    wavelength: np.ndarray
    flux: np.ndarray
    ivar: np.ndarray

    def __post_init__(self) -> None:
        shapes = {np.shape(a) for a in (self.wavelength, self.flux, self.ivar)}
        if len(shapes) != 1 or np.ndim(self.flux) != 1 or len(self.flux) < 2:
            raise ValueError(
                f"the spectrum has arrays of shapes {sorted(shapes)}; one-dimensional wavelength, "
                "flux and ivar of the same length are expected."
            )
        if not (np.diff(self.wavelength) > 0).all() or not self.wavelength[0] > 0:
            raise ValueError("the wavelengths of the spectrum do not increase; sort its pixels.")
        good = np.isfinite(self.flux) & np.isfinite(self.ivar) & (np.asarray(self.ivar) > 0)
        good &= np.abs(np.nan_to_num(self.flux)) < _MAX_FLUX
        if not good.any():
            raise ValueError(
                "the spectrum has no usable pixel: every inverse variance is zero or flux not "
                "finite."
            )
        object.__setattr__(self, "flux", np.where(good, self.flux, 0.0))
        object.__setattr__(self, "ivar", np.where(good, self.ivar, 0.0))


def read_spectrum(path: str | PathLike) -> ObservedSpectrum:
    """Read a spectrum from a FITS file.

    Parameters
    ----------
    path : str or path
        A ``spec`` file of SDSS (``loglam``, ``flux``, ``ivar``, ``and_mask`` in its first
        extension), or a table with columns ``wavelength`` or ``wave`` (vacuum, Angstrom by default)
        and ``flux`` (1e-17 erg/s/cm2/A by default), and ``ivar``, ``error`` or ``uncertainty``.

    Returns
    -------
    ObservedSpectrum

    Raises
    ------
    OSError
        If the file is missing, truncated or damaged.
    ValueError
        If it has no such table, or no usable pixel.
    """
    check_fits(path, max_bytes=_MAX_SPECTRUM_BYTES)
    with fits.open(path, memmap=False) as hdus:
        tables = [hdu for hdu in hdus if isinstance(hdu, fits.BinTableHDU)]
        for hdu in tables:
            columns = {name.lower(): name for name in hdu.columns.names}
            if {"loglam", "flux", "ivar"} <= columns.keys():
                return _sdss_spectrum(hdu, columns)
            if "flux" in columns and columns.keys() & {"wavelength", "wave"}:
                return _table_spectrum(hdu, columns, path)
    raise ValueError(
        f"{path} holds no spectrum: a table with loglam, flux and ivar, or with wavelength, flux "
        "and ivar or error, is expected."
    )


def _sdss_spectrum(hdu: fits.BinTableHDU, columns: dict[str, str]) -> ObservedSpectrum:
    data = hdu.data
    ivar = np.array(data[columns["ivar"]], dtype=float)
    if "and_mask" in columns:
        bad = (np.asarray(data[columns["and_mask"]]).astype(np.int64) & _BAD_SDSS) != 0
        ivar[bad] = 0
    return ObservedSpectrum(
        10.0 ** np.array(data[columns["loglam"]], dtype=float),
        np.array(data[columns["flux"]], dtype=float),
        ivar,
    )


def _table_spectrum(
    hdu: fits.BinTableHDU, columns: dict[str, str], path: str | PathLike
) -> ObservedSpectrum:
    def values(key: str, default: u.UnitBase, wanted: u.UnitBase) -> np.ndarray:
        name = columns[key]
        text = hdu.columns[name].unit
        unit = u.Unit(text) if text else default
        try:
            return (np.array(hdu.data[name], dtype=float) * unit).to_value(wanted)
        except u.UnitConversionError:
            raise ValueError(
                f"the column {name} of {path} has the unit {text}; one of {wanted} is expected."
            ) from None

    wavelength = values("wavelength" if "wavelength" in columns else "wave", u.AA, u.AA)
    flux = values("flux", FLUX_UNIT, FLUX_UNIT)
    if "ivar" in columns:
        ivar = values("ivar", FLUX_UNIT**-2, FLUX_UNIT**-2)
    else:
        error_name = next((n for n in ("error", "uncertainty") if n in columns), None)
        if error_name is None:
            raise ValueError(
                f"the spectrum in {path} has no column ivar, error or uncertainty; noise must be "
                "known to learn from it."
            )
        error = values(error_name, FLUX_UNIT, FLUX_UNIT)
        with np.errstate(divide="ignore", invalid="ignore"):
            ivar = np.where(error > 0, 1 / error**2, 0.0)
    return ObservedSpectrum(wavelength, flux, ivar)


def to_rest_frame(
    spectrum: ObservedSpectrum, redshift: float, ebv: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Correct a spectrum for Galactic extinction and rebin it in the rest frame.

    Parameters
    ----------
    spectrum : ObservedSpectrum
    redshift : float
        Redshift of the galaxy.
    ebv : float
        Galactic E(B-V) (mag, scale of Schlegel, Finkbeiner & Davis 1998).

    Returns
    -------
    flux, ivar : ndarray of float32, shape (REST.size,)
        On `astrogenspec.wavelengths.REST`; both are 0 where there are no data.

    Raises
    ------
    ValueError
        If the redshift is not finite or at most -1, or no pixel lies on the grid.
    """
    if not (np.isfinite(redshift) and redshift > -1):
        what = "not known" if np.isnan(redshift) else f"{redshift}, which is impossible"
        raise ValueError(f"the redshift is {what}.")
    factor = 10 ** (0.4 * ebv * galactic_extinction(spectrum.wavelength))
    flux, ivar = rebin(
        spectrum.wavelength / (1 + redshift), spectrum.flux * factor, spectrum.ivar / factor**2
    )
    if not (ivar > 0).any():
        low, high = REST.wavelength[[0, -1]]
        raise ValueError(
            f"the spectrum has no usable pixel between {low:.0f} and {high:.0f} Angstrom in the "
            "rest frame."
        )
    return flux.astype(np.float32), ivar.astype(np.float32)


def rebin(
    wavelength: np.ndarray, flux: np.ndarray, ivar: np.ndarray, grid: LogGrid = REST
) -> tuple[np.ndarray, np.ndarray]:
    """Rebin a spectrum with conservation of flux.

    Parameters
    ----------
    wavelength : ndarray, shape (m,)
        Centres of the pixels (Angstrom), increasing.
    flux, ivar : ndarray, shape (m,)
        Flux density and its inverse variance, 0 where bad.
    grid : LogGrid
        Wavelengths of the result.

    Returns
    -------
    flux, ivar : ndarray, shape (grid.size,)
        Both are 0 for pixels that overlap a bad pixel or reach beyond the spectrum.
    """
    middle = np.sqrt(wavelength[1:] * wavelength[:-1])
    first, last = wavelength[0] ** 2 / middle[0], wavelength[-1] ** 2 / middle[-1]
    edges = np.concatenate([[first], middle, [last]])
    new = grid.edges
    cuts = np.union1d(edges, new[(new > edges[0]) & (new < edges[-1])])
    centres, width = 0.5 * (cuts[1:] + cuts[:-1]), np.diff(cuts)
    old_pixel = np.searchsorted(edges, centres) - 1
    new_pixel = np.searchsorted(new, centres) - 1
    inside = (new_pixel >= 0) & (new_pixel < grid.size)
    old_pixel, new_pixel, width = old_pixel[inside], new_pixel[inside], width[inside]
    weight = width / grid.width[new_pixel]
    good = ivar[old_pixel] > 0
    variance = np.where(good, 1 / np.where(good, ivar[old_pixel], 1), 0)

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(new_pixel, values, minlength=grid.size)

    covered = total(weight * good) > 1 - 1e-6
    mean, spread = total(weight * flux[old_pixel]), total(weight**2 * variance)
    safe = np.where(covered, spread, 1)
    return np.where(covered, mean, 0), np.where(covered, 1 / safe, 0)
