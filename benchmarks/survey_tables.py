"""Tables of real galaxies with photometry of several surveys and spectroscopic redshifts.

Each function reads one table of a folder and returns a `Sample`: the photometry as observed, in
filters of this package or in those of CFHT and Subaru, and the redshifts.  What the tables do not
state is assumed, and said in ``note``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import Table

from astrogenspec import PhotometryBatch
from astrogenspec.inputs.fluxes import from_asinh_magnitude
from astrogenspec.surveys import SDSS, Filter, Survey, get_filter, get_survey

__all__ = ["SAMPLES", "Sample"]

_MAG = 2.5 / np.log(10)
#: Extinction in r per E(B-V) on the scale of Schlegel, Finkbeiner & Davis (1998), with which the
#: tables were made; the package has the coefficients of Schlafly & Finkbeiner (2011).
_SFD_R = 2.751
#: E(B-V) of tables without positions: the median of the galaxies of SDSS.
_TYPICAL_EBV = 0.026
#: Maximum distance (deg) of a galaxy of known E(B-V) whose value is taken.
_MAX_DISTANCE = 3.0
#: Vega to AB for 2MASS (Blanton & Roweis 2007, table 1).
_VEGA = {"J": 0.91, "H": 1.39, "Ks": 1.85}
#: AB magnitude of one count per second in NUV (Morrissey et al. 2007).
_NUV_ZERO_POINT = 20.08
#: Errors (mag) assumed for the apertures of the hosts of PTF, whose table has none: half of the
#: scatter squared of PS1 minus SDSS, 0.056 mag in g, r and i, and the depth of the survey, less 1
#: mag for extended sources.
_PTF_ERROR, _PTF_LOSS = 0.04, 1.0
#: Magnitudes of point sources at 95% completeness in SDSS, about 5 sigma (Stoughton et al. 2002).
_SDSS_DEPTH = {"u": 22.0, "g": 22.2, "r": 22.2, "i": 21.3, "z": 20.5}
#: Filters of the tables of CFHT and Subaru: name of the curve by column.
_COSMOS = {
    "u_cfht": "u_megacam",
    "B_subaru": "B_subaru",
    "g_subaru": "g_subaru",
    "V_subaru": "V_subaru",
    "r_subaru": "r_subaru",
    "i_cfht": "i_megacam",
    "z_subaru": "z_subaru",
    "J_ukirt": "J_wfcam",
    "K_cfht": "Ks_wircam",
}
_DEEP = {f"{band}_cfht": f"{band}_megacam" for band in "ugriz"}
_MINIMUM_REDSHIFT = 0.01

Magnitudes = Mapping[Filter, tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Sample:
    """Photometry and redshifts of n galaxies.

    Attributes
    ----------
    photometry : PhotometryBatch
        As observed, with the Galactic extinction.
    redshift : ndarray, shape (n,)
        Spectroscopic redshifts.
    note : str
        Assumptions.
    labels : dict of str to ndarray, shape (n,)
        Mass (dex Msun) and star-formation rate (dex Msun/yr) of the table, NaN where unknown.
    """

    photometry: PhotometryBatch
    redshift: np.ndarray
    note: str = ""
    labels: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.redshift)

    def __getitem__(self, rows: np.ndarray) -> Sample:
        return replace(
            self,
            photometry=self.photometry[rows],
            redshift=self.redshift[rows],
            labels={name: values[rows] for name, values in self.labels.items()},
        )

    def in_filters(self, wanted: Callable[[str], bool], minimum: int = 3) -> Sample:
        """Keep some filters by name, and the galaxies with at least ``minimum`` bands in them."""
        filters = tuple(each for each in self.photometry.filters if wanted(each.name))
        photometry = self.photometry.with_filters(filters)
        columns = [self.photometry.filters.index(each) for each in filters]
        photometry = replace(photometry, extinction=self.photometry.extinction[:, columns])
        enough = photometry.bands_present.sum(axis=1) >= minimum
        return replace(self, photometry=photometry)[enough]


def _column(table: Table, name: str) -> np.ndarray:
    return np.ma.filled(np.ma.asarray(table[name], dtype=float), np.nan)


@cache
def _curves(folder: Path) -> dict[str, Filter]:
    """Read the curves of CFHT, Subaru and UKIRT; percent and fractions are both relative."""
    found = {}
    with np.load(folder / "filters_cfht_subaru_galex.npz") as curves:
        for name in curves:
            band, _, camera = name.partition("_")
            wavelength, response = np.asarray(curves[name], dtype=float)
            limits = np.flatnonzero(response > 1e-3 * response.max())[[0, -1]] + [-1, 2]
            part = slice(max(limits[0], 0), limits[1])
            response = response[part].clip(min=0)
            found[name] = Filter(f"{camera}-{band}", band, wavelength[part], response)
    return found


def _ebv_at(folder: Path, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Take E(B-V) from the nearest galaxy of SDSS, or a typical value if there is none near."""
    positions, values = [], []
    for name, extinction in (("sdss_photometry", "ext_r"), ("sdss_union_photometry", "ext_r_est")):
        table = Table.read(folder / f"{name}.fits")
        arrays = [_column(table, key) for key in ("ra", "dec", extinction)]
        good = np.isfinite(arrays).all(axis=0)
        positions.append(np.array(arrays[:2])[:, good])
        values.append(arrays[2][good] / _SFD_R)
    catalogue = SkyCoord(*np.concatenate(positions, axis=1), unit="deg")
    known = np.isfinite(ra) & np.isfinite(dec)
    found = np.full(len(ra), _TYPICAL_EBV)
    index, distance, _ = SkyCoord(ra[known], dec[known], unit="deg").match_to_catalog_sky(catalogue)
    nearest = np.concatenate(values)[index]
    found[known] = np.where(distance.deg < _MAX_DISTANCE, nearest, _TYPICAL_EBV)
    return found


def _batch(
    magnitudes: Magnitudes, ebv: np.ndarray | float, *, asinh: Survey | None = None
) -> PhotometryBatch:
    """Convert AB magnitudes and their errors to photometry; ``ebv`` is 0 if it is corrected."""
    filters = tuple(magnitudes)
    flux, error = [], []
    for each, (magnitude, sigma) in magnitudes.items():
        value = 10 ** (0.4 * (22.5 - magnitude))
        deviation = value * sigma / _MAG
        if asinh is not None:
            softening = asinh.asinh_softening[each.band]
            value, deviation = from_asinh_magnitude(magnitude, sigma, softening)
        missing = ~(np.isfinite(value) & np.isfinite(deviation) & (deviation > 0))
        flux.append(np.where(missing, np.nan, value))
        error.append(np.where(missing, np.nan, deviation))
    n = len(flux[0])
    return PhotometryBatch(
        np.stack(flux, axis=1),
        np.stack(error, axis=1),
        np.array(np.broadcast_to(ebv, n), dtype=float),
        np.zeros(n, dtype=bool),
        filters=filters,
    )


def _given(table: Table, columns: Mapping[str, Filter]) -> Magnitudes:
    """Read ``mag_`` and ``mag_err_`` columns."""
    return {
        each: (_column(table, f"mag_{name}"), _column(table, f"mag_err_{name}"))
        for name, each in columns.items()
    }


def _sdss_filters() -> dict[str, Filter]:
    return dict(SDSS.filters)


# ---- tables


def ptf_hosts(folder: Path) -> Sample:
    """Read hosts of supernovae of PTF: matched apertures in SDSS, PS1, GALEX and 2MASS."""
    table = Table.read(folder / "ptf_ccsn_hosts_ps1_sdss.fits")
    method = np.char.strip(np.asarray(table["zmethod"], dtype=str))
    redshift = _column(table, "z")
    good = np.isin(method, ["GAL.LINES", "SDSS", "NED"]) & (redshift > _MINIMUM_REDSHIFT)
    table, redshift = table[good], redshift[good]
    magnitudes = {}
    surveys = {"sdss": "sdss", "ps1": "panstarrs", "galex": "galex", "2mass": "2mass"}
    for prefix, name in surveys.items():
        survey = get_survey(name)
        for band in survey.bands:
            if band == "FUV":
                continue
            magnitude = _column(table, f"mag_{prefix}_{band.lower()}")
            depth = _SDSS_DEPTH[band] if survey is SDSS else survey.depth[band]
            background = 10 ** (0.4 * (magnitude - depth + _PTF_LOSS)) / 5 * _MAG
            magnitudes[survey.filters[band]] = magnitude, np.hypot(_PTF_ERROR, background)
    ebv = _ebv_at(folder, _column(table, "ra"), _column(table, "dec"))
    note = (
        f"magnitudes not dereddened, E(B-V) of the nearest galaxy of SDSS; errors not given: "
        f"{_PTF_ERROR} mag and the depths of the surveys assumed"
    )
    labels = {"stellar_mass": _column(table, "logMstar"), "sfr": _column(table, "logSFR")}
    return Sample(_batch(magnitudes, ebv), redshift, note, labels)


def zcosmos(folder: Path) -> Sample:
    """Read the bright sample of zCOSMOS: apertures of 3 arcsec, scaled to the total I magnitude."""
    table = Table.read(folder / "zcosmos_bright_multiband.fits")
    redshift = _column(table, "z")
    good = (_column(table, "secure") == 1) & (_column(table, "flag_mask") == 0)
    good &= redshift > _MINIMUM_REDSHIFT
    table, redshift = table[good], redshift[good]
    curves = _curves(folder)
    given = _given(table, {column: curves[name] for column, name in _COSMOS.items()})
    shift = _column(table, "mag_sel_I") - _column(table, "mag_i_cfht")
    magnitudes = {each: (value + shift, sigma) for each, (value, sigma) in given.items()}
    ebv = _ebv_at(folder, _column(table, "ra"), _column(table, "dec"))
    note = "magnitudes not dereddened (assumed), scaled by the total I minus the aperture i"
    return Sample(_batch(magnitudes, ebv), redshift, note)


def deep(folder: Path) -> Sample:
    """Read galaxies of DEEP2 and DEEP3 in the CFHT Legacy Survey."""
    table = Table.read(folder / "deep23_3dhst_cfht.fits")
    redshift = _column(table, "z")
    source = np.char.strip(np.asarray(table["source"], dtype=str))
    good = (source == "DEEP2/3") & (redshift > _MINIMUM_REDSHIFT)
    table, redshift = table[good], redshift[good]
    curves = _curves(folder)
    columns = {column: curves[name] for column, name in _DEEP.items()}
    columns["y_subaru"] = curves["y_subaru"]
    note = "no positions: E(B-V) of 0.01 assumed; magnitudes not dereddened (assumed)"
    return Sample(_batch(_given(table, columns), 0.01), redshift, note)


def vvds_deep(folder: Path) -> Sample:
    """Read the deep sample of VVDS in the CFHT Legacy Survey."""
    columns = {f"{band}_cfhtls": f"{band}_megacam" for band in "ugriz"}
    return _vvds(folder, "vvds_deep_cfhtls", columns)


def vvds_wide(folder: Path) -> Sample:
    """Read the wide sample of VVDS with B, V, R and I of the CFH12K camera."""
    columns = {f"{band}_cfh12k": f"{band}_cfh12k" for band in "BVRI"}
    return _vvds(folder, "vvds_wide_cfh12k", columns)


def _vvds(folder: Path, name: str, columns: Mapping[str, str]) -> Sample:
    table = Table.read(folder / f"{name}.fits")
    redshift = _column(table, "z")
    secure = np.isin(_column(table, "zflag"), [3, 4, 23, 24])
    table, redshift = (
        values[secure & (redshift > _MINIMUM_REDSHIFT)] for values in (table, redshift)
    )
    curves = _curves(folder)
    magnitudes = _given(table, {column: curves[curve] for column, curve in columns.items()})
    ebv = _ebv_at(folder, _column(table, "ra"), _column(table, "dec"))
    return Sample(_batch(magnitudes, ebv), redshift, "magnitudes not dereddened (assumed)")


def _sdss_errors(folder: Path, band: str, magnitude: np.ndarray) -> np.ndarray:
    """Median error of galaxies of the main sample and of BOSS at the same magnitude."""
    bright = Table.read(folder / "sdss_mgs_mlz.fits")
    faint = Table.read(folder / "boss_dr10_annz.fits")
    value = np.concatenate([_column(bright, f"dered_{band}"), _column(faint, f"mag_{band}")])
    error = np.concatenate([_column(bright, f"err_{band}"), _column(faint, f"err_{band}")])
    order = np.argsort(value)
    parts = np.array_split(order, 60)
    centres = [np.median(value[part]) for part in parts]
    return 10 ** np.interp(magnitude, centres, [np.median(np.log10(error[part])) for part in parts])


def stripe82_hosts(folder: Path) -> Sample:
    """Read hosts of supernovae in Stripe 82: dereddened model magnitudes of SDSS."""
    table = Table.read(folder / "sdss2_sn_hosts_ugriz.fits")
    redshift = _column(table, "z")
    good = (redshift > _MINIMUM_REDSHIFT) & (_column(table, "snsep") < 4)
    table, redshift = table[good], redshift[good]
    magnitudes = {}
    for band, each in _sdss_filters().items():
        value = _column(table, f"mag_{band}")
        magnitudes[each] = value, _sdss_errors(folder, band, value)
    note = "dereddened; errors not given: those of SDSS galaxies of the same magnitude"
    return Sample(_batch(magnitudes, 0.0, asinh=SDSS), redshift, note)


def sdss_main(folder: Path) -> Sample:
    """Read the main sample of SDSS, dereddened model magnitudes."""
    table = Table.read(folder / "sdss_mgs_mlz.fits")
    redshift = _column(table, "z")
    good = redshift > _MINIMUM_REDSHIFT
    table, redshift = table[good], redshift[good]
    magnitudes = {
        each: (_column(table, f"dered_{band}"), _column(table, f"err_{band}"))
        for band, each in _sdss_filters().items()
    }
    return Sample(_batch(magnitudes, 0.0, asinh=SDSS), redshift, "dereddened, SFD98 (assumed)")


def sdss(folder: Path) -> Sample:
    """Read SDSS galaxies with 2MASS and GALEX photometry."""
    table = Table.read(folder / "sdss_photometry.fits")
    parts = {}
    for band, each in _sdss_filters().items():
        flux = _column(table, f"modelflux_{band}")
        parts[each] = flux, _column(table, f"modelflux_ivar_{band}") ** -0.5
    for band, column in (("J", "J"), ("H", "H"), ("Ks", "K")):
        magnitude = _column(table, f"tmass_{column}") + _VEGA[band]
        flux = 10 ** (0.4 * (22.5 - magnitude))
        sigma = _column(table, f"tmass_{column}_err")
        parts[get_filter(f"twomass-{band}")] = flux, flux * sigma / _MAG
    scale = 10 ** (0.4 * (22.5 - _NUV_ZERO_POINT))
    nuv = [_column(table, f"galex_nuv_flux{part}") * scale for part in ("", "_err")]
    parts[get_filter("galex-nuv")] = nuv[0], nuv[1]
    photometry = PhotometryBatch(
        np.stack([flux for flux, _ in parts.values()], axis=1),
        np.stack([error for _, error in parts.values()], axis=1),
        _column(table, "ext_r") / _SFD_R,
        np.zeros(len(table), dtype=bool),
        filters=tuple(parts),
    )
    labels = {
        "stellar_mass": _column(table, "logMstar_gswlc"),
        "sfr": _column(table, "logSFR_gswlc"),
    }
    note = "E(B-V) = ext_r / 2.751; NUV in counts per second (assumed)"
    return Sample(photometry, _column(table, "z"), note, labels)


def boss(folder: Path, ebv: float = 0.0) -> Sample:
    """Read faint galaxies of BOSS in ugriz; their extinction is not documented."""
    table = Table.read(folder / "boss_dr10_annz.fits")
    redshift = _column(table, "z")
    good = redshift > _MINIMUM_REDSHIFT
    table, redshift = table[good], redshift[good]
    magnitudes = {
        each: (_column(table, f"mag_{band}"), _column(table, f"err_{band}"))
        for band, each in _sdss_filters().items()
    }
    note = "dereddened (assumed)" if ebv == 0 else f"not dereddened, E(B-V) {ebv} (assumed)"
    return Sample(_batch(magnitudes, ebv), redshift, note)


def _optical(name: str) -> bool:
    return name.startswith("sdss2010")


#: Samples by the name of the row.
SAMPLES: dict[str, Callable[[Path], Sample]] = {
    "ptf-ps1": lambda f: ptf_hosts(f).in_filters(
        lambda name: name in {f"panstarrs-{band}" for band in "griz"}
    ),
    "ptf-ps1y": lambda f: ptf_hosts(f).in_filters(lambda name: name.startswith("panstarrs")),
    "ptf-sdss": lambda f: ptf_hosts(f).in_filters(_optical),
    "ptf-both": lambda f: ptf_hosts(f).in_filters(
        lambda name: name.startswith(("sdss2010", "panstarrs"))
    ),
    "ptf-galex": lambda f: ptf_hosts(f).in_filters(
        lambda name: name.startswith(("sdss2010", "panstarrs", "galex"))
    ),
    "ptf-2mass": lambda f: ptf_hosts(f).in_filters(
        lambda name: name.startswith(("sdss2010", "panstarrs", "twomass"))
    ),
    "ptf-all": lambda f: ptf_hosts(f).in_filters(lambda name: True),
    "zcosmos": lambda f: zcosmos(f).in_filters(lambda name: True),
    "zcosmos-optical": lambda f: zcosmos(f).in_filters(
        lambda name: not name.startswith(("wfcam", "wircam"))
    ),
    "deep": lambda f: deep(f).in_filters(lambda name: True),
    "deep-ugriz": lambda f: deep(f).in_filters(lambda name: name.startswith("megacam")),
    "vvds-deep": lambda f: vvds_deep(f).in_filters(lambda name: True),
    "vvds-wide": lambda f: vvds_wide(f).in_filters(lambda name: True),
    "stripe82": lambda f: stripe82_hosts(f).in_filters(lambda name: True),
    "sdss-main": lambda f: sdss_main(f).in_filters(lambda name: True),
    "sdss": lambda f: sdss(f).in_filters(_optical),
    "sdss-2mass": lambda f: sdss(f).in_filters(lambda name: not name.startswith("galex")),
    "sdss-galex": lambda f: sdss(f).in_filters(lambda name: not name.startswith("twomass")),
    "boss": lambda f: boss(f).in_filters(_optical),
    # Only positive fluxes are in the table, which makes the faint u band too bright.
    "boss-griz": lambda f: boss(f).in_filters(lambda name: name != "sdss2010-u"),
    "boss-reddened": lambda f: boss(f, _TYPICAL_EBV).in_filters(_optical),
}
