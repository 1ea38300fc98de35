"""Tables of labelled real galaxies for fine-tuning: photometry, morphology and labels.

Every row has a ``source``, a ``fold`` of the cross-validation, which is the same for all
observations of a galaxy, and a ``sample_weight``.  The weights of samples that do not represent the
main galaxy sample of SDSS are density ratios to a random subset of it.
"""

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
#: Width of the cells of redshift that determine the fold of a galaxy.  Different observations of a
#: galaxy have the same spectroscopic redshift, also where positions are not known.
_CELL = 5e-4
#: Faint limit in r of the galaxies of the main sample, and of all others.
_MAIN_LIMIT, _FAINT_LIMIT = 17.77, 20.0
#: Bounds of the density ratios.
_RATIOS = (0.05, 4.0)
#: Fraction of the galaxies of the union and of the stripe brighter than the main limit whose
#: redshift is learnt. Their magnitudes are of other reductions of the survey, which differ by 0.01
#: to 0.02 mag in the colours of a galaxy; with all of them, redshifts of the main sample are worse.
_BRIGHT_FRACTION = 0.15
#: Weight of black-hole masses.
_BLACK_HOLE_WEIGHT = 4.0
#: Offsets of masses from those of GSWLC (dex), from common galaxies.
_MASS_OFFSETS = {
    "logMstar_gswlc": 0.0,
    "logMstar_sdss_efeds": 0.0,
    "logMstar_manga_phot": 0.07,
    "logMstar_gama": 0.09,
    "logMstar_taylor": 0.16,
}
#: Extinction in r for E(B-V) = 1 on the scale of Schlegel, Finkbeiner & Davis 1998, and in ugriz
#: relative to r; Stoughton et al. 2002, AJ 123, 485, table 22.
_SFD_R, _SFD_RATIOS = 2.751, (1.874, 1.379, 1.0, 0.758, 0.538)
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
    table["spectroscopic_redshift"] = table["redshift"]
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
    table["spectroscopic_redshift"] = table["known_redshift"]
    return table


def resolve_rows(folder: Path) -> QTable:
    """Return the galaxies of RESOLVE that are not in `lines_rows`: most of them are passive."""
    source = Table.read(folder / "resolve_full.fits")
    source = source[np.asarray(source["in_sdss_lines"]) == 0]
    table = _blank(len(source))
    z = _plain(source["z"])
    table["known_redshift"] = np.where(z > 0.003, z, np.nan) * u.one
    table["stellar_mass"] = _plain(source["logmstar"]) * u.dex(u.Msun)
    sfr = _plain(source["sfr_nuv"])
    with np.errstate(invalid="ignore", divide="ignore"):
        table["sfr"] = np.where(sfr > 0, np.log10(sfr), np.nan) * u.dex(u.Msun / u.yr)
    for name, column in _LINES.items():
        flux = _plain(source[column])
        flux[~(flux > 2 * _plain(source[f"{column}_err"]))] = np.nan
        table[name] = flux * QUANTITIES[name].unit
    _from_magnitudes(
        table,
        {band: _plain(source[f"{band}mag"]) for band in BANDS},
        {band: _plain(source[f"e_{band}mag"]) for band in BANDS},
        {band: _plain(source[f"ext{band}"]) for band in BANDS},
    )
    for name, column in (("r50", "r50"), ("r90", "r90"), ("axis_ratio", "b_a")):
        table[name] = _plain(source[column]) * MORPHOLOGY[name]
    table["source"] = "resolve"
    table["spectroscopic_redshift"] = z * u.one
    return table[z > 0.003]


def black_hole_rows(table: QTable) -> QTable:
    """Return the galaxies with a black-hole mass, with this label alone, at known redshift.

    Masses of broad-line galaxies lie about 0.4 dex below those of the relation of inactive
    galaxies, which the network has learnt from simulations. With their weight, the posterior of
    such galaxies is a mixture of both relations in about equal parts.
    """
    rows = table[np.isfinite(table["black_hole_mass"].value)]
    for name in QUANTITIES:
        if name != "black_hole_mass":
            rows[name][:] = np.nan * rows[name].unit
    rows["known_redshift"] = rows["spectroscopic_redshift"]
    rows["source"] = "blackholes"
    rows["sample_weight"] = _BLACK_HOLE_WEIGHT
    return rows


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
    table["spectroscopic_redshift"] = z * u.one
    return table[z > 0.003]


def main_sample_rows(folder: Path) -> QTable:
    """Return random galaxies of the main galaxy sample, with dereddened magnitudes."""
    source = Table.read(folder / "sdss_mgs_mlz.fits")
    table = _blank(len(source))
    table["redshift"] = _plain(source["z"]) * u.one
    for band in BANDS:
        _set_band(
            table,
            band,
            _plain(source[f"dered_{band}"]),
            _plain(source[f"err_{band}"]),
        )
    table["source"] = "main"
    table["spectroscopic_redshift"] = table["redshift"]
    return table[table["redshift"] > 0.003]


def union_rows(folder: Path, errors: QTable) -> QTable:
    """Return the merged SDSS sets: model magnitudes, redshifts and labels.

    Parameters
    ----------
    folder : Path
        Folder of the real tables.
    errors : QTable
        Galaxies with errors, from which those of the magnitudes are modelled.
    """
    source = Table.read(folder / "sdss_union_photometry.fits")
    z, r = _plain(source["z"]), _plain(source["modelmag_r"])
    # Source 4 is limited in redshift and has two bands.
    use = (z > 0.003) & (z < 0.5) & (r < _FAINT_LIMIT) & (np.asarray(source["src"]) != 4)
    labelled = np.isfinite(_plain(source["logMBH_broadline"]))
    for name in ("logMstar_gama", "logMstar_gswlc", "logMstar_sdss_efeds"):
        labelled |= np.isfinite(_plain(source[name]))
    source = source[use | (labelled & (z > 0.003) & (z < 0.5))]
    source = source[~_near(source, load_galaxies())]
    source = source[~_near(source, Table.read(folder / "sdss_images.fits"))]
    table = _blank(len(source))
    table["redshift"] = _plain(source["z"]) * u.one
    reliable = _plain(source["ext_r_est_dist"]) < 3
    extinction = np.where(reliable, _plain(source["ext_r_est"]), 0.09)
    for band, ratio in zip(BANDS, _SFD_RATIOS, strict=True):
        magnitude = _plain(source[f"modelmag_{band}"])
        error = _typical_error(errors, band, magnitude)
        error = error if reliable.all() else np.where(reliable, error, np.hypot(error, 0.05))
        _set_band(table, band, magnitude, error, ratio * extinction)
    mass = np.full(len(source), np.nan)
    for name, offset in reversed(_MASS_OFFSETS.items()):
        values = _plain(source[name]) + offset
        mass = np.where(np.isfinite(values), values, mass)
    table["stellar_mass"] = mass * u.dex(u.Msun)
    table["sfr"] = _plain(source["logSFR_gswlc"]) * u.dex(u.Msun / u.yr)
    table["black_hole_mass"] = _plain(source["logMBH_broadline"]) * u.dex(u.Msun)
    table["source"] = np.where(np.asarray(source["src"]) == 3, "stripe", "union")
    table["spectroscopic_redshift"] = table["redshift"]
    # Galaxies of very low redshift were selected by it: only their other labels are used.
    selected = (np.asarray(source["src"]) == 2) | (np.asarray(source["src"]) == 4)
    table["known_redshift"][selected] = table["redshift"][selected]
    table["redshift"][selected] = np.nan
    return table


def _set_band(
    table: QTable,
    band: str,
    magnitude: np.ndarray,
    error: np.ndarray,
    extinction: np.ndarray | float = 0.0,
) -> None:
    flux = 10 ** (0.4 * (22.5 - magnitude))
    table[f"flux_{band}"] = flux * u.nmgy
    table[f"flux_err_{band}"] = flux * error / 1.0857 * u.nmgy
    table[f"extinction_{band}"] = np.broadcast_to(extinction, magnitude.shape) * u.mag


def _typical_error(errors: QTable, band: str, magnitude: np.ndarray) -> np.ndarray:
    """Return the median error (mag) of galaxies with a magnitude, by interpolation of log error."""
    flux, sigma = errors[f"flux_{band}"].value, errors[f"flux_err_{band}"].value
    with np.errstate(invalid="ignore", divide="ignore"):
        known, log_error = 22.5 - 2.5 * np.log10(flux), np.log(1.0857 * sigma / flux)
    good = np.isfinite(known) & np.isfinite(log_error)
    edges = np.quantile(known[good], np.linspace(0.002, 0.998, 25))
    cell = np.digitize(known, edges)
    cells = [good & (cell == k) for k in range(1, len(edges))]
    x, y = (np.array([np.median(v[c]) for c in cells]) for v in (known, log_error))
    slope = (y[-1] - y[-4]) / (x[-1] - x[-4])
    beyond = np.clip(magnitude - x[-1], 0, None) * slope
    return np.exp(np.interp(magnitude, x, y) + beyond)


def _set_weights(table: QTable) -> None:
    """Set the weights of galaxies brighter than the limit of the main sample to density ratios."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import cross_val_predict

    table["sample_weight"] = 1.0
    features, r = _selection_features(table)
    bright = (r < _MAIN_LIMIT) & np.isfinite(table["redshift"].value)
    rows = np.flatnonzero(bright & np.isin(table["source"], ("main", "union")))
    target = table["source"][rows] == "main"
    model = HistGradientBoostingClassifier(max_iter=150, learning_rate=0.06, random_state=0)
    chance = cross_val_predict(model, features[rows], target, cv=5, method="predict_proba")[:, 1]
    ratio = chance / (1 - chance) * (~target).sum() / target.sum()
    table["sample_weight"][rows] = np.where(target, 1.0, np.clip(ratio, *_RATIOS))


def _thinned(table: QTable) -> QTable:
    """Select bright galaxies of the union and the stripe; others keep their other labels."""
    labels = [np.isfinite(table[name].value) for name in QUANTITIES if name != "redshift"]
    _, r = _selection_features(table)
    bright = (r < _MAIN_LIMIT) & np.isfinite(table["redshift"].value)
    bright &= np.isin(table["source"], ("union", "stripe"))
    chance = np.where(bright, _BRIGHT_FRACTION * table["sample_weight"], 1.0)
    dropped = np.random.default_rng(1).random(len(table)) >= chance
    table["sample_weight"][bright] = 1.0
    table["known_redshift"][dropped] = table["redshift"][dropped]
    table["redshift"][dropped] = np.nan
    return table[~dropped | np.any(labels, axis=0)]


def _selection_features(table: QTable) -> tuple[np.ndarray, np.ndarray]:
    """Return redshifts, magnitudes and colours, shape (n, 6), and dereddened r, shape (n,)."""
    magnitudes = []
    for band in BANDS:
        with np.errstate(invalid="ignore", divide="ignore"):
            magnitude = 22.5 - 2.5 * np.log10(table[f"flux_{band}"].value)
        magnitudes.append(magnitude - table[f"extinction_{band}"].value)
    colours = [a - b for a, b in zip(magnitudes, magnitudes[1:], strict=False)]
    r = magnitudes[BANDS.index("r")]
    return np.column_stack([table["spectroscopic_redshift"].value, r, *colours]), r


def fold_numbers(table: QTable, n_folds: int = 5) -> np.ndarray:
    """Return the fold in which each row is held out, the same for all rows of a galaxy."""
    cell = np.floor(table["spectroscopic_redshift"].value / _CELL).astype(int)
    return np.random.default_rng(5).integers(0, n_folds, cell.max() + 1)[cell]


def finetuning_table(folder: Path) -> QTable:
    """Return all labelled galaxies, with ECO and RESOLVE masses shifted by `mass_offset`."""
    lines = lines_rows(folder)
    lines["stellar_mass"] += mass_offset(folder) * u.dex
    photometry, main = photometry_rows(folder), main_sample_rows(folder)
    parts = [photometry, main, union_rows(folder, photometry)]
    resolve = resolve_rows(folder)
    resolve["stellar_mass"] += mass_offset(folder) * u.dex
    table = vstack([*parts, lines, resolve, masses_rows(folder)])
    _set_weights(table)
    table = vstack([_thinned(table), black_hole_rows(table)])
    table["fold"] = fold_numbers(table)
    return table


def magnitudes_of(table: QTable) -> tuple[np.ndarray, np.ndarray]:
    """Return dereddened magnitudes and their errors, shape (n, 5) each."""
    magnitudes, errors = np.full((2, len(table), len(BANDS)), np.nan)
    for k, band in enumerate(BANDS):
        flux, error = table[f"flux_{band}"].value, table[f"flux_err_{band}"].value
        with np.errstate(invalid="ignore", divide="ignore"):
            magnitudes[:, k] = 22.5 - 2.5 * np.log10(flux)
            errors[:, k] = 2.5 / np.log(10) * error / flux
        magnitudes[:, k] -= table[f"extinction_{band}"].value
    return magnitudes, errors


def stars_and_quasars(folder: Path) -> np.ndarray:
    """Return magnitudes of stars and of quasars at z > 1 with r < 20.5, shape (n, 5)."""
    source = Table.read(folder / "sdss_mixed_stars_gal_qso_5k.fits")
    magnitudes = np.stack([_plain(source[f"mag_{band}"]) for band in BANDS], axis=1)
    redshift = _plain(source["z"])
    chosen = (np.abs(redshift) < 0.0015) | (redshift > 1.0)
    return magnitudes[chosen & (magnitudes[:, BANDS.index("r")] < 20.5)]


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
