"""Catalogue of SDSS: selections, queries, and labels of the MPA-JHU tables.

Queries go to the SkyServer [1]_ in ranges of ``objID``, one for each imaging run: the bits of an
``objID`` are sky version, rerun, run, camera column, field and object, so that a run is a range,
and no field is in two ranges.

The tables of the MPA-JHU group [2]_ differ from the conventions of this package:

- masses and star-formation rates assume a Kroupa (2001) IMF and are converted to Chabrier;
- oxygen abundances are on the scale of Tremonti et al. (2004), exist for star-forming galaxies only
  (``bptclass`` 1), and are converted to O3N2 (`astrogenspec.quantities.o3n2_metallicity`);
- line fluxes were measured on spectra scaled to the r magnitude of the fibre and corrected for
  Galactic extinction, as here; their errors are multiplied by the factors that repeated
  observations require [3]_, and lines with S/N below 3 are not used as labels;
- missing values are -9999, or -1000 or smaller, not NaN; spectra without results have no row.

Black-hole masses are those of the relation with the velocity dispersion of Kormendy & Ho (2013,
ARA&A 51, 511, equation 7), for dispersions of 70 to 420 km/s with an error below 20%: a scaling
relation, not a measurement.

References
----------
.. [1] Tables PhotoObj, SpecObj, Field, galSpecInfo, galSpecExtra and galSpecLine of the data
   release 17; names of columns after the schema in https://github.com/sciserver/sqlloader.
.. [2] Brinchmann et al. 2004, MNRAS, 351, 1151; Kauffmann et al. 2003, MNRAS, 341, 33; Tremonti et
   al. 2004, ApJ, 613, 898; https://www.sdss3.org/dr8/spectro/galspec.php
.. [3] https://wwwmpa.mpa-garching.mpg.de/SDSS/DR7/raw_data.html, for data release 7.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import QTable

from ..inputs.photometry import coerce_photometry
from ..quantities import QUANTITIES, chabrier_mass, chabrier_sfr, o3n2_metallicity
from ..surveys import BANDS
from .galaxies import GalaxyTable

__all__ = [
    "SELECTIONS",
    "Selection",
    "count_query",
    "galaxies_of",
    "parse_answer",
    "run_query",
    "run_range",
]

_RERUN = 301
_SKY_VERSION = 2
#: Factors of the errors of lines (reference 3).
LINE_ERROR_FACTORS = {"h_alpha": 2.473, "h_beta": 1.882, "nii_6584": 2.039, "oiii_5007": 1.566}
_LINE_LABELS = {
    "h_alpha": "halpha_flux",
    "h_beta": "hbeta_flux",
    "nii_6584": "nii6584_flux",
    "oiii_5007": "oiii5007_flux",
}
_MIN_LINE_SNR = 3.0
#: Kormendy & Ho (2013): log10 of the mass at 200 km/s, and slope.
_M_SIGMA = (np.log10(0.310e9), 4.38)
_SIGMA_RANGE, _MAX_SIGMA_ERROR = (70.0, 420.0), 0.2
#: Smaller values are fill values.
_MIN_VALUE = -900.0
_STAR_FORMING = 1


@dataclass(frozen=True)
class Selection:
    """Galaxies of SDSS.

    Attributes
    ----------
    name : str
    description : str
    where : str
        Condition in SQL.
    n_galaxies : int
        Approximate number of galaxies.
    spectra : bool
        Whether spectra are downloaded by default.
    """

    name: str
    description: str
    where: str
    n_galaxies: int
    spectra: bool


#: The selections by name.
SELECTIONS = {
    selection.name: selection
    for selection in (
        Selection(
            "images-to-physics",
            "the main galaxy sample with masses and star-formation rates, as for the method of "
            "Siddiqa et al. (arXiv:2511.12737); their exact cuts are not published",
            "p.mode = 1 AND p.clean = 1 AND s.class = 'GALAXY' AND s.zWarning = 0 "
            # GALAXY, GALAXY_BIG and GALAXY_BRIGHT_CORE.
            "AND (s.legacy_target1 & 448) > 0 AND s.z > 0.005 AND s.z <= 0.3 "
            "AND p.petroMag_r - p.extinction_r > 14.5 AND p.petroMag_r - p.extinction_r < 17.77 "
            "AND i.reliable = 1 AND e.lgm_tot_p50 > 0 AND e.sfr_tot_p50 > -90",
            250_000,
            False,
        ),
        Selection(
            "galaxy-spectroscopy",
            "galaxies at 0.05 < z < 0.15 with spectra, as for the method of Doorenbos et al. "
            "(2024, ApJ 977, 131); spectra whose mean flux between 3891 and 8910 Angstrom is not "
            "positive are left out",
            "p.mode = 1 AND p.clean = 1 AND s.class = 'GALAXY' AND s.zWarning = 0 "
            "AND s.z > 0.05 AND s.z < 0.15",
            400_000,
            True,
        ),
    )
}

_TABLES = """FROM PhotoObj AS p
JOIN SpecObj AS s ON s.bestObjID = p.objID
JOIN Field AS f ON f.fieldID = p.fieldID
LEFT JOIN galSpecInfo AS i ON i.specObjID = s.specObjID
LEFT JOIN galSpecExtra AS e ON e.specObjID = s.specObjID
LEFT JOIN galSpecLine AS l ON l.specObjID = s.specObjID"""
_PHOTO: tuple[str, ...] = ("objID", "ra", "dec", "run", "camcol", "field")
_PHOTO += tuple(
    f"{name}_{band}" for name in ("modelFlux", "modelFluxIvar", "extinction") for band in BANDS
)
_PHOTO += ("petroR50_r", "petroR90_r", "deVAB_r", "expAB_r", "fracDeV_r")
_SPEC = ("specObjID", "plate", "mjd", "fiberID", "run2d", "z", "velDisp", "velDispErr")
_EXTRA = ("bptclass", "oh_p50", "lgm_tot_p50", "sfr_tot_p50")
_LINES = tuple(f"{line}_flux{end}" for line in _LINE_LABELS for end in ("", "_err"))
COLUMNS = (*_PHOTO, *_SPEC, *_EXTRA, *_LINES, "field_ra", "field_dec")
_INTEGERS = ("objID", "specObjID", "run", "camcol", "field", "plate", "mjd", "fiberID")


def run_range(run: int) -> tuple[int, int]:
    """Return the first and the last ``objID`` of an imaging run."""
    first = (_SKY_VERSION << 59) | (_RERUN << 48) | (run << 32)
    return first, first + (1 << 32) - 1


def count_query(selection: Selection) -> str:
    """Return the query for the numbers of galaxies by run."""
    return (
        f"SELECT p.run, COUNT(*) AS n\n{_TABLES}\nWHERE {selection.where}\nGROUP BY p.run\n"
        "ORDER BY p.run"
    )


def run_query(selection: Selection, run: int) -> str:
    """Return the query for the galaxies of a run."""
    columns = [f"p.{name}" for name in _PHOTO] + [f"s.{name}" for name in _SPEC]
    columns += [f"e.{name}" for name in _EXTRA] + [f"l.{name}" for name in _LINES]
    columns += ["f.ra AS field_ra", "f.dec AS field_dec"]
    first, last = run_range(run)
    return (
        f"SELECT {', '.join(columns)}\n{_TABLES}\nWHERE p.objID BETWEEN {first} AND {last} "
        f"AND {selection.where}\nORDER BY p.objID"
    )


def parse_answer(text: str, columns: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Parse the answer of the SkyServer to a query.

    Parameters
    ----------
    text : str
        Comma-separated values, with a line that begins with ``#`` before the names.
    columns : tuple of str
        Expected columns.

    Returns
    -------
    dict of str to ndarray
        Integers of 64 bits for identifiers, text for ``run2d``, floats for all others, NaN where
        empty or ``null``.

    Raises
    ------
    ValueError
        If it is no such answer; the message has its first words.
    """
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    rows = list(csv.reader(io.StringIO("\n".join(lines))))
    if not rows or [name.strip() for name in rows[0]] != list(columns):
        start = " ".join(text.split())[:120]
        raise ValueError(f"the server did not answer with the columns of the query: {start!r}")
    if any(len(row) != len(columns) for row in rows[1:]):
        raise ValueError("the answer of the server is incomplete: a row has too few values")
    found: dict[str, np.ndarray] = {}
    for k, name in enumerate(columns):
        texts = [row[k].strip() for row in rows[1:]]
        if name in (*_INTEGERS, "n"):
            found[name] = np.array([int(text) for text in texts], dtype=np.int64)
        elif name == "run2d":
            found[name] = np.array(texts, dtype="U16")
        else:
            numbers = [text if text not in ("", "null", "NULL") else "nan" for text in texts]
            found[name] = np.array(numbers, dtype=float)
    return found


def galaxies_of(rows: dict[str, np.ndarray]) -> GalaxyTable:
    """Convert rows of the catalogue to the conventions of the package.

    Parameters
    ----------
    rows : dict of str to ndarray, shape (n,)
        The columns of `run_query`.

    Returns
    -------
    GalaxyTable
    """
    from ..inference.finetuning.dataset import stack_labels

    names = tuple(str(name) for name in rows["objID"])
    photometry = QTable({"name": list(names)})
    for band in BANDS:
        for name in (f"modelFlux_{band}", f"modelFluxIvar_{band}", f"extinction_{band}"):
            photometry[name] = rows[name]
    for name in ("petroR50_r", "petroR90_r"):
        photometry[name] = np.where(rows[name] > 0, rows[name], np.nan)
    share = np.clip(rows["fracDeV_r"], 0, 1)
    ratio = share * rows["deVAB_r"] + (1 - share) * rows["expAB_r"]
    photometry["axis_ratio"] = np.where((ratio > 0) & (ratio <= 1), ratio, np.nan)
    labels, measurable = _labels(rows)
    return GalaxyTable(
        names,
        rows["ra"],
        rows["dec"],
        stack_labels(labels, "the catalogue"),
        measurable,
        _dispersion(rows),
        coerce_photometry(photometry, on_error="flag"),
    )


def _known(values: np.ndarray) -> np.ndarray:
    """Return values with NaN instead of fill values."""
    return np.where(values > _MIN_VALUE, values, np.nan)


def _dispersion(rows: dict[str, np.ndarray]) -> np.ndarray:
    sigma, error = rows["velDisp"], rows["velDispErr"]
    low, high = _SIGMA_RANGE
    with np.errstate(invalid="ignore"):
        good = (sigma > low) & (sigma < high) & (error > 0) & (error < _MAX_SIGMA_ERROR * sigma)
    return np.where(good, sigma, np.nan)


def _labels(rows: dict[str, np.ndarray]) -> tuple[dict[str, Any], np.ndarray]:
    """Return labels, and whether the gas metallicity is measurable."""
    mass = np.where(rows["lgm_tot_p50"] > 0, rows["lgm_tot_p50"], np.nan)
    star_forming = rows["bptclass"] == _STAR_FORMING
    abundance = np.where(star_forming & (rows["oh_p50"] > 0), rows["oh_p50"], np.nan)
    zero, slope = _M_SIGMA
    labels: dict[str, Any] = {
        "redshift": rows["z"] * u.one,
        "stellar_mass": chabrier_mass(mass * u.dex(u.Msun), "Kroupa"),
        "sfr": chabrier_sfr(_known(rows["sfr_tot_p50"]) * u.dex(u.Msun / u.yr), "Kroupa"),
        "gas_metallicity": o3n2_metallicity(abundance, "T04"),
        "black_hole_mass": (zero + slope * np.log10(_dispersion(rows) / 200)) * u.dex(u.Msun),
    }
    for line, name in _LINE_LABELS.items():
        flux, error = rows[f"{line}_flux"], rows[f"{line}_flux_err"] * LINE_ERROR_FACTORS[line]
        with np.errstate(invalid="ignore"):
            good = (error > 0) & (flux > _MIN_LINE_SNR * error)
        labels[name] = np.where(good, flux, np.nan) * QUANTITIES[name].unit
    known = np.isfinite(rows["bptclass"])
    measurable = np.isfinite(labels["gas_metallicity"].value).astype(float)
    return labels, np.where(known, measurable, np.nan)
