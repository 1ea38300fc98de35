"""Tables of labelled real galaxies for fine-tuning: photometry, morphology and labels."""

from __future__ import annotations

from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import QTable, Table, vstack

from astrogenspec.demo import load_galaxies
from astrogenspec.quantities import QUANTITIES
from astrogenspec.surveys import BANDS

#: Relative error added in quadrature to the photometry of tables from other pipelines than that of
#: SDSS.
_FLOOR = 0.03
#: Columns of morphology and their units.
MORPHOLOGY = {f"petro_flux_{band}": u.nmgy for band in BANDS} | {
    "r50": u.arcsec,
    "r90": u.arcsec,
    "axis_ratio": u.one,
}
_LINES = {
    "halpha_flux": "h_alpha_flux",
    "hbeta_flux": "h_beta_flux",
    "nii6584_flux": "nii_6584_flux",
    "oiii5007_flux": "oiii_5007_flux",
}


def _plain(column) -> np.ndarray:
    return np.ma.filled(np.ma.asarray(column, dtype=float), np.nan)


def _blank(n: int) -> QTable:
    table = QTable()
    for name, info in QUANTITIES.items():
        table[name] = np.full(n, np.nan) * info.unit
    table["known_redshift"] = np.full(n, np.nan) * u.one
    for name, unit in MORPHOLOGY.items():
        table[name] = np.full(n, np.nan) * unit
    return table


def _near(source: Table, others: Table) -> np.ndarray:
    """Rows within 3 arcsec of any position in another table (degrees)."""
    positions = [SkyCoord(_plain(t["ra"]), _plain(t["dec"]), unit="deg") for t in (source, others)]
    return positions[0].match_to_catalog_sky(positions[1])[1] < 3 * u.arcsec


def photometry_rows(folder: Path) -> QTable:
    """Return SDSS photometry with redshifts and, where available, GSWLC masses and SFRs."""
    source = Table.read(folder / "sdss_photometry.fits")
    images = Table.read(folder / "sdss_images.fits")
    source = source[~_near(source, load_galaxies()) & ~_near(source, images)]
    table = _blank(len(source))
    table["redshift"] = _plain(source["z"]) * u.one
    table["stellar_mass"] = _plain(source["logMstar_gswlc"]) * u.dex(u.Msun)
    table["sfr"] = _plain(source["logSFR_gswlc"]) * u.dex(u.Msun / u.yr)
    for band in BANDS:
        table[f"flux_{band}"] = _plain(source[f"modelflux_{band}"]) * u.nmgy
        table[f"flux_err_{band}"] = _plain(source[f"modelflux_ivar_{band}"]) ** -0.5 * u.nmgy
        table[f"extinction_{band}"] = _plain(source[f"ext_{band}"]) * u.mag
        table[f"petro_flux_{band}"] = _plain(source[f"petroflux_{band}"]) * u.nmgy
    table["source"] = "photometry"
    return table


def _from_magnitudes(table: QTable, magnitude: dict, error: dict, extinction: dict) -> None:
    for band in BANDS:
        flux = 10 ** (0.4 * (22.5 - magnitude[band]))
        table[f"flux_{band}"] = flux * u.nmgy
        table[f"flux_err_{band}"] = flux * np.hypot(_FLOOR, error[band] / 1.0857) * u.nmgy
        table[f"extinction_{band}"] = np.nan_to_num(extinction[band]) * u.mag


def lines_rows(folder: Path) -> QTable:
    """Return ECO and RESOLVE masses, SFRs, metallicities and line fluxes, at known redshift."""
    source = Table.read(folder / "sdss_lines.fits")
    table = _blank(len(source))
    table["known_redshift"] = _plain(source["z"]) * u.one
    table["stellar_mass"] = _plain(source["logmstar"]) * u.dex(u.Msun)
    table["sfr"] = _plain(source["logSFR_nuv"]) * u.dex(u.Msun / u.yr)
    table["gas_metallicity"] = _plain(source["oh_o3n2_pp04"]) * u.dex
    for name, column in _LINES.items():
        flux = _plain(source[column])
        flux[flux < 2 * _plain(source[f"{column}_err"])] = np.nan
        table[name] = flux * QUANTITIES[name].unit
    _from_magnitudes(
        table,
        {band: _plain(source[f"{band}mag"]) for band in BANDS},
        {band: _plain(source[f"e_{band}mag"]) for band in BANDS},
        {band: _plain(source[f"ext{band}"]) for band in BANDS},
    )
    for name, column in (("r50", "r50"), ("r90", "r90"), ("axis_ratio", "b_a")):
        table[name] = _plain(source[column]) * MORPHOLOGY[name]
    table["source"] = "lines"
    return table


def masses_rows(folder: Path) -> QTable:
    """Return masses and SFRs of ALFALFA-SDSS galaxies with g and r, at known redshift."""
    source = Table.read(folder / "sdss_masses.fits")
    source = source[
        np.isfinite(_plain(source["modelmag_g"])) & np.isfinite(_plain(source["modelmag_r"]))
    ]
    table = _blank(len(source))
    z = _plain(source["z"])
    table["known_redshift"] = np.where(z > 0.003, z, np.nan) * u.one
    table["stellar_mass"] = _plain(source["logMstar_gswlc"]) * u.dex(u.Msun)
    table["sfr"] = _plain(source["logSFR_gswlc"]) * u.dex(u.Msun / u.yr)
    _from_magnitudes(
        table,
        {band: _plain(source[f"modelmag_{band}"]) for band in BANDS},
        dict.fromkeys(BANDS, 0.02),
        {band: _plain(source[f"ext_{band}"]) for band in BANDS},
    )
    table["source"] = "masses"
    return table[z > 0.003]


def finetuning_table(folder: Path) -> QTable:
    """Return all labelled galaxies, with ECO and RESOLVE masses shifted by `mass_offset`."""
    lines = lines_rows(folder)
    lines["stellar_mass"] += mass_offset(folder) * u.dex
    return vstack([photometry_rows(folder), lines, masses_rows(folder)])


def mass_offset(folder: Path) -> float:
    """Return the median difference of GSWLC and ECO/RESOLVE masses of common galaxies (dex)."""
    lines, masses = (Table.read(folder / f"sdss_{name}.fits") for name in ("lines", "masses"))
    masses = masses[np.isfinite(_plain(masses["logMstar_gswlc"]))]
    positions = [SkyCoord(_plain(t["ra"]), _plain(t["dec"]), unit="deg") for t in (lines, masses)]
    nearest, distance, _ = positions[0].match_to_catalog_sky(positions[1])
    both = distance < 3 * u.arcsec
    offsets = _plain(masses["logMstar_gswlc"])[nearest[both]] - _plain(lines["logmstar"])[both]
    return float(np.nanmedian(offsets))


def inputs_of(table: QTable, subset: str = "ugriz", *, morphology: bool = True) -> QTable:
    """Return the photometry in some bands, with or without morphology."""
    names = [f"{kind}_{band}" for band in BANDS for kind in ("flux", "flux_err", "extinction")]
    photometry = table[[*names, *(MORPHOLOGY if morphology else ())]]
    for band in set(BANDS) - set(subset):
        photometry[f"flux_{band}"][:] = np.nan * u.nmgy
    return photometry
