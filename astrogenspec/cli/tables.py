"""Tables that the command line reads: catalogues of photometry, and true values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.table import QTable

from ..fits_files import check_fits
from ..inputs.catalogues import translated
from ..inputs.fluxes import read_unit
from ..surveys import BANDS
from .xml_tables import check_xml

__all__ = ["is_table", "prepare_catalogue", "read_table", "rows_by_name"]

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
        If it holds no table that can be read.
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
    """Return whether a file is a FITS file, by its first bytes or, if it is compressed, by its name."""
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


def prepare_catalogue(table: QTable, bands: Sequence[str] | None, flux_unit: str | None) -> QTable:
    """Choose bands, and give flux columns without a unit the one named; columns named by SDSS get our names.

    Parameters
    ----------
    table : `~astropy.table.QTable`
        Photometry; it may be changed.
    bands : sequence of str, optional
        Bands to keep; all by default.
    flux_unit : str, optional
        Unit of flux columns that have none.

    Returns
    -------
    `~astropy.table.QTable`
        The same table, unless SDSS named its columns.

    Raises
    ------
    ValueError
        If it has no rows, or an SDSS column lacks its error.
    astropy.units.UnitsError
        If the unit is no unit of flux.
    """
    table = translated(table)
    if flux_unit is not None:
        unit = read_unit(flux_unit)
        for band in BANDS:
            for name, power in (
                (f"flux_{band}", 1),
                (f"flux_err_{band}", 1),
                (f"flux_ivar_{band}", -2),
            ):
                if name in table.colnames and getattr(table[name], "unit", None) is None:
                    table[name] = u.Quantity(
                        np.ma.filled(table[name].astype(float), np.nan), unit**power
                    )
    for band in () if bands is None else BANDS:
        if band not in bands:
            keys = (
                "{}",
                "{}_err",
                "{}_ivar",
                "flux_{}",
                "flux_err_{}",
                "flux_ivar_{}",
                "mag_{}",
                "mag_err_{}",
                "{}mag",
                "e_{}mag",
            )
            table.remove_columns(
                [k for k in (key.format(band) for key in keys) if k in table.colnames]
            )
    if not len(table):
        raise ValueError("the catalogue has no rows.")
    return table


def _read_parquet(path: Path) -> QTable:
    """Read a parquet file without pandas; units come from the header that astropy writes."""
    from astropy.table.meta import get_header_from_yaml
    from pyarrow import parquet

    content = parquet.read_table(path)
    text = (content.schema.metadata or {}).get(b"table_meta_yaml", b"").decode()
    header = get_header_from_yaml(text.split("\n")).get("datatype", []) if text else []
    units = {column["name"]: column.get("unit") for column in header}
    table = QTable()
    for name in content.column_names:
        values = content[name].to_numpy()
        values = values.astype(str) if values.dtype == object else values
        table[name] = (
            values if units.get(name) is None else u.Quantity(values, units[name], subok=True)
        )
    return table
