"""Tables that the command line reads: catalogues of photometry, and true values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from astropy.table import QTable

from ..fits_files import check_fits
from ..inputs.arrow_tables import table_from_arrow
from ..inputs.column_names import select_bands, with_flux_unit, with_names
from ..inputs.survey_columns import select_survey_bands
from ..inputs.survey_names import resolve_surveys
from ..surveys import SDSS, Survey
from .xml_tables import check_xml

__all__ = ["is_table", "named_surveys", "prepare_catalogue", "read_table", "rows_by_name"]

_TABLES = {
    ".ecsv": "ascii.ecsv",
    ".csv": "ascii.csv",
    ".txt": "ascii",
    ".vot": "votable",
    ".xml": "votable",
}
_PARQUET = (".parquet", ".pq")


def is_table(path: Path) -> bool:
    """Tell a table from images, by the ending or, for a FITS file, by what it holds.

    Parameters
    ----------
    path : path
        A file that exists.

    Returns
    -------
    bool
        False for a file that cannot be read.
    """
    ending = path.suffix.lower()
    if ending in _TABLES or ending in _PARQUET or ending in (".hdf5", ".h5"):
        return True
    try:
        found = check_fits(path, verify=False)
    except OSError:
        return False
    has_image = any(extension.is_image for extension in found)
    return not has_image and any(extension.is_table for extension in found)


def read_table(path: Path) -> QTable:
    """Read a table of any format that astropy knows by its ending, or parquet.

    Parameters
    ----------
    path : path

    Returns
    -------
    `~astropy.table.QTable`

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    OSError
        If it holds no table that can be read, or a VOTable has its data at another address or
        declares entities: no address is ever opened.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}.")
    ending = path.suffix.lower()
    if ending not in _TABLES and _is_fits(path):
        check_fits(path)
    elif ending not in _PARQUET:
        check_xml(path)
    try:
        if ending in _PARQUET:
            return _read_parquet(path)
        return QTable.read(path, format=_TABLES.get(ending))
    except ModuleNotFoundError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise OSError(
            f"{path} cannot be read as a table ({type(error).__name__}: {reason})."
        ) from error


def _is_fits(path: Path) -> bool:
    """Return whether a file is FITS, by its first bytes or, if it is compressed, by its name."""
    with path.open("rb") as stream:
        if stream.read(6) == b"SIMPLE":
            return True
    return any(ending.lower() in (".fits", ".fit", ".fts") for ending in path.suffixes)


def rows_by_name(wanted: Sequence[str], names: Sequence[str], path: Path) -> np.ndarray:
    """Find the rows of a table with some names.

    Parameters
    ----------
    wanted : sequence of str
        Names to find.
    names : sequence of str
        Names in the table.
    path : path
        The table, for the sentence of an error.

    Returns
    -------
    ndarray of int

    Raises
    ------
    ValueError
        If a name is missing or repeated.
    """
    for argument, given in ((str(path), names), ("the input", wanted)):
        repeated = next(
            (name for name, count in Counter(map(str, given)).items() if count > 1), None
        )
        if repeated is not None:
            raise ValueError(
                f"{argument} has several galaxies named {repeated!r}, which cannot be matched; "
                "give each galaxy its own name."
            )
    rows = {str(name): k for k, name in enumerate(names)}
    missing = [name for name in wanted if name not in rows]
    if missing:
        raise ValueError(
            f"{path} has no row for {len(missing)} of {len(wanted)} galaxies, such as "
            f"{missing[0]!r}."
        )
    return np.array([rows[name] for name in wanted])


def named_surveys(names: str | None) -> tuple[Survey, ...] | None:
    """Return the surveys named on the command line.

    Parameters
    ----------
    names : str, optional
        Names or YAML files, separated by commas.

    Returns
    -------
    tuple of `~astrogenspec.surveys.Survey`, or None

    Raises
    ------
    ValueError
        If a survey is unknown.
    OSError
        If a file cannot be read.
    """
    if names is None:
        return None
    return resolve_surveys([name.strip() for name in names.split(",") if name.strip()])


def prepare_catalogue(
    table: QTable,
    bands: Sequence[str] | None,
    flux_unit: str | None,
    surveys: Sequence[Survey] | None = None,
) -> QTable:
    """Select bands, set the unit of fluxes that have none, and name the galaxies.

    Parameters
    ----------
    table : `~astropy.table.QTable`
        Photometry; it is not changed.
    bands : sequence of str, optional
        Bands to keep; all by default.
    flux_unit : str, optional
        Unit of flux columns that have none.
    surveys : sequence of `~astrogenspec.surveys.Survey`, optional
        Surveys of the photometry.

    Returns
    -------
    `~astropy.table.QTable`
        Photometry for `~astrogenspec.inputs.photometry.coerce_photometry`, with a column ``name``
        if the galaxies have identifiers.

    Raises
    ------
    ValueError
        If it has no rows.
    astropy.units.UnitsError
        If the unit is unknown.
    """
    if flux_unit is not None:
        known = [band for survey in surveys or (SDSS,) for band in survey.bands]
        table = with_flux_unit(table, flux_unit, known)
    if bands is not None:
        table = select_bands(table, bands)
        table = select_survey_bands(table, bands, surveys or ())
    if not len(table):
        raise ValueError("the catalogue has no rows.")
    forms = [form for survey in surveys or () for form in survey.catalogue]
    return with_names(table, [name for form in forms for name in form.names])


def _read_parquet(path: Path) -> QTable:
    """Read a parquet file without pandas; units come from the header that astropy writes."""
    from pyarrow import parquet

    return table_from_arrow(parquet.read_table(path))
