"""Posteriors as tables, files and qp ensembles.

A file is one table with a row for each galaxy: the summaries of `astrogenspec.Posterior.to_table`
and, if the draws are written too, a column ``<quantity>_draws`` for each quantity and
``photometry_<column>`` for each column of the photometry.  The meta data of the table hold a JSON
text with units, the layout, a checksum of the draws and the meta data of the posterior.
"""

from __future__ import annotations

import html
import importlib.util
import io
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.table import QTable, Table
from astropy.utils.exceptions import AstropyUserWarning, AstropyWarning
from astropy.utils.masked import Masked

from ..atomic import atomic_write, check_target
from ..fits_files import CREATOR, check_fits
from ..quantities import QUANTITIES, internal_values, plain_values
from ..warnings import filtered_warnings
from .base import GalaxyDraws, html_intervals
from .files import (
    check_layout,
    decoded_texts,
    encoded_document,
    parsed_document,
    read_errors,
)
from .quantity import QuantityPosterior

__all__ = [
    "EFFECTIVE",
    "PREDICTIVE",
    "SUMMARIES",
    "html_column",
    "read_posterior",
    "summary_table",
    "with_columns",
    "write_posterior",
]

#: Suffixes of the summary columns, with their meaning.
SUMMARIES = {
    "median": "Median",
    "p16": "16th percentile",
    "p84": "84th percentile",
    "std": "Standard deviation",
}
#: Column of the photometry, and of the summary, with the posterior predictive p-value.
PREDICTIVE = "predictive_p_value"
#: Column with the effective number of draws.
EFFECTIVE = "effective_draws"
#: Version of the layout of the files.
_LAYOUT = 1
_DOCUMENT = "AGSPEC"
_DRAWS = "_draws"
#: Key of the checksum of the draws in the document.
_CHECKSUM = "draws_crc32"
#: Bins and height (pixels) of the small histograms of HTML tables.
_CHART_BINS, _CHART_HEIGHT = 24, 14
#: Number of galaxies whose draws are summed at once.
_ROWS = 256
_PHOTOMETRY = "photometry_"
_FORMATS = {
    ".fits": "fits",
    ".fits.gz": "fits",
    ".fit": "fits",
    ".ecsv": "ascii.ecsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".hdf5": "hdf5",
    ".h5": "hdf5",
}
_DESCRIBED = {
    "fits": "a FITS file",
    "ascii.ecsv": "an ECSV file",
    "parquet": "a parquet file",
    "hdf5": "an HDF5 file",
}
_PACKAGES = {"parquet": "pyarrow", "hdf5": "h5py"}


def summary_table(
    galaxies: GalaxyDraws,
    quantities: Sequence[QuantityPosterior],
    *,
    information: Mapping[str, u.Quantity],
    measurable: np.ndarray | None,
    predictive: Any = None,
    effective_draws: np.ndarray | None = None,
) -> QTable:
    """Summarise every galaxy in one row.

    Parameters
    ----------
    galaxies : GalaxyDraws
        Names and flags of the galaxies.
    quantities : sequence of QuantityPosterior
        Quantities to summarise.
    information : mapping of str to Quantity ['bit'], each of shape (n_galaxies,)
        Information on those of the quantities for which it is known.
    measurable : ndarray, shape (n_galaxies,), or None
        Probability that the gas metallicity is measurable.
    predictive : column of n_galaxies rows, optional
        Posterior predictive p-values of the photometry.
    effective_draws : ndarray, shape (n_galaxies,), or None
        Effective number of draws of a posterior with another prior.

    Returns
    -------
    `~astropy.table.QTable`, n_galaxies rows
        Columns as in `astrogenspec.Posterior.to_table`.
    """
    table = QTable()
    table["name"] = np.array(galaxies.names, dtype=str)
    for quantity in quantities:
        low, middle, high = quantity.percentiles([16, 50, 84])
        summaries = dict(zip(SUMMARIES, (middle, low, high, quantity.std()), strict=True))
        for suffix, values in summaries.items():
            _add_column(
                table,
                f"{quantity.name}_{suffix}",
                values,
                _number_format(quantity.name, values.unit),
                f"{SUMMARIES[suffix]}. {quantity.description}".strip(),
            )
        if quantity.name in information:
            _add_column(
                table,
                f"{quantity.name}_information",
                information[quantity.name],
                ".2f",
                f"Divergence of the posterior of {quantity.name} from the population; below 0.5: "
                "mostly prior.",
            )
    if measurable is not None:
        text = "Probability that the gas metallicity is measurable."
        _add_column(table, "measurable", measurable.copy(), ".3f", text)
    if predictive is not None:
        table[PREDICTIVE] = predictive
        table[PREDICTIVE].info.format = ".3f"
        text = "Posterior predictive p-value of the photometry; very small if the draws miss it."
        table[PREDICTIVE].info.description = text
    if effective_draws is not None:
        text = "Effective number of draws after the change of the prior."
        _add_column(table, EFFECTIVE, effective_draws.copy(), ".0f", text)
    table["flags"] = galaxies.flag_codes.copy()
    table["flags"].info.description = "Flag code (see astrogenspec.Flag); 0 if nothing was found."
    table["flag"] = np.array(galaxies.flags, dtype=str)
    table["flag"].info.description = "Reason to distrust the galaxy; empty if nothing was found."
    return table


def _add_column(table: QTable, name: str, values: Any, spec: str, description: str) -> None:
    """Add a column of numbers in which NaN are masked."""
    missing = np.isnan(getattr(values, "value", values))
    if missing.any():
        mask = Masked if isinstance(values, u.Quantity) else np.ma.array
        values = mask(values, mask=missing)
    table[name] = values
    table[name].info.format = spec
    table[name].info.description = description


def html_column(quantity: QuantityPosterior) -> tuple[str, list[str]]:
    """Format the medians of a quantity and their 68% intervals for an HTML table.

    Parameters
    ----------
    quantity : QuantityPosterior
        Quantity to show.

    Returns
    -------
    title : str
        Name and unit, as HTML.
    cells : list of str
        One cell for each galaxy.
    """
    unit = str(quantity.unit)
    title = html.escape(quantity.name) + (f"<br>[{html.escape(unit)}]" if unit else "")
    spec = _number_format(quantity.name, quantity.unit)
    low, middle, high = quantity.percentiles([16, 50, 84]).value
    cells = html_intervals(low, middle, high, spec)
    histograms = _small_histograms(quantity)
    return title, [f"{cell}{chart}" for cell, chart in zip(cells, histograms, strict=True)]


def _small_histograms(quantity: QuantityPosterior) -> list[str]:
    """Draw the draws of each galaxy as a line of SVG, on the range of all these galaxies."""
    draws = quantity.draws.value
    info = QUANTITIES.get(quantity.name)
    if info is not None and info.logarithmic:
        draws = internal_values(quantity.name, quantity.draws)
    finite = draws[np.isfinite(draws)]
    if finite.size == 0 or finite.min() == finite.max():
        return [""] * len(draws)
    edges = np.linspace(finite.min(), finite.max(), _CHART_BINS + 1)
    charts = []
    for row in draws:
        counts = np.histogram(row[np.isfinite(row)], edges)[0]
        height = np.rint(_CHART_HEIGHT * (1 - counts / max(counts.max(), 1))).astype(int)
        steps = "".join(f"V{y}h3" for y in height)
        charts.append(
            f"<br><svg width='{3 * _CHART_BINS}' height='{_CHART_HEIGHT}' role='img' "
            "aria-label='histogram of the draws'>"
            f"<path d='M0 {_CHART_HEIGHT}{steps}V{_CHART_HEIGHT}Z' fill='currentColor' "
            "opacity='0.6'/></svg>"
            if counts.any()
            else ""
        )
    return charts


def _number_format(name: str, unit: u.UnitBase) -> str:
    if name == "redshift":
        return ".4f"
    return ".3f" if "dex" in str(unit) else ".4g"


def with_columns(table: QTable, columns: Table | None) -> QTable:
    """Insert further columns after the first one of a table.

    Parameters
    ----------
    table : QTable
        Table of `summary_table`; it is changed.
    columns : Table or None
        Columns to insert, with as many rows.

    Returns
    -------
    QTable
        The same table.

    Raises
    ------
    ValueError
        If the number of rows differs, or the table has a column of that name.
    """
    if columns is None:
        return table
    if len(columns) != len(table):
        raise ValueError(
            f"columns has {len(columns)} rows, but the posterior has {len(table)} galaxies; one "
            "row for each galaxy is expected."
        )
    for position, name in enumerate(columns.colnames, start=1):
        if name in table.colnames:
            raise ValueError(
                f"columns has the column {name!r}, which the table has already; rename it."
            )
        table.add_column(columns[name], index=position, name=name)
    return table


def write_posterior(
    path: str | os.PathLike[str],
    summaries: QTable,
    draws: Mapping[str, u.Quantity],
    *,
    photometry: QTable | None,
    named: np.ndarray,
    meta: Mapping[str, Any],
    with_draws: bool,
    overwrite: bool,
) -> None:
    """Write a posterior; see `astrogenspec.Posterior.write`.

    Parameters
    ----------
    path : path-like
        File to write; the ending selects the format.
    summaries : QTable
        Table of `summary_table`.
    draws : mapping of str to Quantity, each of shape (n_galaxies, n_draws)
        Draws of the posterior.
    photometry : QTable or None
        Photometry of the posterior.
    named : ndarray of bool, shape (n_galaxies,)
        Whether a galaxy has a name, rather than a number.
    meta : mapping
        Meta data of the posterior.
    with_draws : bool
        Whether to write the draws.
    overwrite : bool
        Whether an existing file may be replaced.

    Raises
    ------
    FileExistsError
        If the file exists and ``overwrite`` is False.
    OSError
        If the file cannot be written.
    ValueError
        If the ending is not that of a known format.
    TypeError
        If the meta data or the photometry contain objects that a file cannot hold.
    ImportError
        If the package for the format is not installed.
    """
    path = Path(path).expanduser()
    _, form = _format_of(path)
    check_target(path, overwrite)
    table = _file_table(summaries, draws, photometry, named, meta, with_draws)
    if form in ("fits", "hdf5"):
        _encode_texts(table)
    with atomic_write(path, overwrite=overwrite) as temporary:
        _write_table(table, temporary, form)
        if form == "fits":
            _add_checksums(temporary)


def read_posterior(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a posterior; see `astrogenspec.Posterior.read`.

    Parameters
    ----------
    path : path-like
        File made by `write_posterior`.

    Returns
    -------
    dict
        Arguments of `astrogenspec.Posterior`, and ``effective_draws``.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    OSError
        If the file cannot be read.
    ValueError
        If the file contains no draws, or was not made by `write_posterior`.
    ImportError
        If the package for the format is not installed.
    """
    path = Path(path).expanduser()
    _, form = _format_of(path)
    if not path.is_file():
        raise FileNotFoundError(f"cannot read a posterior: the file {str(path)!r} does not exist.")
    columns, document = _read_columns(path, form)
    if not document.get("draws"):
        raise ValueError(
            f"{str(path)!r} contains summaries but no draws; read the table with QTable.read, or "
            "write the posterior again with draws=True."
        )
    with read_errors(path, _DESCRIBED[form]):
        return _read_arguments(columns, document)


def _read_arguments(columns: dict[str, np.ndarray], document: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of `astrogenspec.Posterior`, and ``effective_draws``."""
    names = decoded_texts(columns["name"])
    _check_document(document, len(names))
    photometry = {
        name: _column(columns[_PHOTOMETRY + name], unit)
        for name, unit in document["photometry"].items()
    }
    shape = (len(names), document["n_draws"])
    draws = {}
    for name, unit in document["draws"].items():
        # An empty table has no columns of draws.
        values = columns[name + _DRAWS] if len(names) else np.empty(shape)
        if values.shape != shape:
            raise ValueError(f"the draws of {name} have shape {values.shape} instead of {shape}")
        draws[name] = u.Quantity(plain_values(values, None), unit, subok=True, copy=False)
    # Files of older versions have no checksum.
    checksum = document.get(_CHECKSUM)
    if checksum is not None and checksum != _draws_checksum(draws):
        raise ValueError("the checksum of the draws is wrong")
    return {
        "draws": draws,
        "names": names,
        "flags": decoded_texts(columns["flag"]),
        # None in files of versions without codes
        "flag_codes": columns.get("flags"),
        "measurable": columns.get("measurable"),
        "photometry": QTable(photometry) if photometry else None,
        "named": _named(document, len(columns["name"])),
        "meta": document["meta"],
        "effective_draws": _numbers_or_none(columns.get(EFFECTIVE)),
    }


def _numbers_or_none(column: np.ndarray | None) -> np.ndarray | None:
    """Return a column of numbers with NaN where it is masked; None if there is no column."""
    return None if column is None else plain_values(column, None)


def _check_document(document: dict[str, Any], n_galaxies: int) -> None:
    """Check the types in the document, and that no galaxies are missing."""
    for key, kind in (("draws", dict), ("photometry", dict), ("meta", dict), ("n_draws", int)):
        if not isinstance(document.get(key), kind):
            raise ValueError(f"the entry {key!r} of its description is missing or invalid")
    for key, kinds in (("draws", str), ("photometry", str | None)):
        for name, unit in document[key].items():
            if not isinstance(unit, kinds):
                raise ValueError(f"the unit of {name} in its description is {str(unit)[:40]!r}")
    # Files of older versions do not have the number of galaxies.
    if document.get("n_galaxies", n_galaxies) != n_galaxies:
        raise ValueError(f"it has {n_galaxies} galaxies instead of {document['n_galaxies']}")


def _file_table(
    summaries: QTable,
    draws: Mapping[str, u.Quantity],
    photometry: QTable | None,
    named: np.ndarray,
    meta: Mapping[str, Any],
    with_draws: bool,
) -> QTable:
    """Join summaries, draws and photometry in one table, with the document that describes them."""
    table = summaries.copy()
    # The ECSV reader of astropy fails on array columns without rows: leave them out of an empty
    # table.
    saved: Any = {} if photometry is None or not len(table) else photometry
    for name, values in draws.items() if with_draws and len(table) else ():
        table[name + _DRAWS] = values
    units = {}
    for name, column in saved.items():
        if not isinstance(column, np.ndarray) or np.asarray(column).dtype.kind not in "biufUS":
            raise TypeError(
                f"photometry column {name!r} is of type {type(column).__name__}, which a file "
                "cannot hold; use columns of numbers, quantities or strings."
            )
        table[_PHOTOMETRY + name] = column
        unit = getattr(column, "unit", None)
        units[name] = None if unit is None else str(unit)
    document = {
        "layout": _LAYOUT,
        "n_galaxies": len(table),
        "n_draws": next(iter(draws.values())).shape[1],
        "draws": {name: str(q.unit) for name, q in draws.items()} if with_draws else {},
        _CHECKSUM: _draws_checksum(draws) if with_draws else None,
        "photometry": units,
        "meta": dict(meta),
    }
    if not named.all():
        document["unnamed"] = np.flatnonzero(~named).tolist() if named.any() else "all"
    table.meta[_DOCUMENT] = encoded_document(document)
    return table


def _draws_checksum(draws: Mapping[str, u.Quantity]) -> int:
    """Return the checksum of the values of the draws, whatever their precision."""
    checksum = 0
    for values in draws.values():
        for start in range(0, len(values), _ROWS):
            block = values.value[start : start + _ROWS]
            # All NaN have the same bytes.
            plain = np.where(np.isnan(block), np.nan, block).astype("<f8")
            checksum = zlib.crc32(plain.tobytes(), checksum)
    return checksum


def _named(document: Mapping[str, Any], n_galaxies: int) -> np.ndarray:
    """Return which galaxies have a name: all, unless the document lists those without."""
    named = np.ones(n_galaxies, bool)
    unnamed = document.get("unnamed", [])
    if unnamed == "all":
        named[:] = False
    elif isinstance(unnamed, list):
        named[[k for k in unnamed if isinstance(k, int) and 0 <= k < n_galaxies]] = False
    return named


def _encode_texts(table: QTable) -> None:
    """Store text as UTF-8 bytes, for formats that know ASCII only."""
    for name in table.colnames:
        column = table[name]
        if column.dtype.kind == "U":
            description = column.info.description
            table[name] = np.char.encode(np.asarray(column), "utf-8")
            table[name].info.description = description


def _format_of(path: Path) -> tuple[str, str]:
    """Return the ending of a file and the name of its format."""
    for ending, form in _FORMATS.items():
        if path.name.lower().endswith(ending):
            package = _PACKAGES.get(form)
            if package is not None and importlib.util.find_spec(package) is None:
                raise ImportError(
                    f"{ending} files need the package {package}; install it with "
                    f"'pip install {package}', or choose .fits or .ecsv."
                )
            return ending, form
    raise ValueError(
        f"{path.name!r} ends in none of {', '.join(_FORMATS)}; the ending selects the format."
    )


def _write_table(table: QTable, path: Path, form: str) -> None:
    # Units of dex are not FITS units; astropy keeps them in comments of the header and reads them
    # from there.
    with filtered_warnings("ignore", AstropyUserWarning, "The unit .* could not be saved"):
        if form == "hdf5":
            _write_hdf5(table, path)
        else:
            table.write(path, format=form)


def _write_hdf5(table: QTable, path: Path) -> None:
    """Write an HDF5 file through memory, because the HDF5 library crashes when a disk is full."""
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as target:
        table.write(target, format="hdf5", path="posterior", serialize_meta=True)
    path.write_bytes(buffer.getbuffer())


def _add_checksums(path: Path) -> None:
    """Add the checksums of the FITS standard (CHECKSUM, DATASUM) to all extensions."""
    copy = path.with_name(f"copy-{path.name}")
    with fits.open(path) as units:
        units[0].header["CREATOR"] = CREATOR
        units[0].header["NEXTEND"] = len(units) - 1
        units.writeto(copy, checksum=True)
    os.replace(copy, path)


def _read_columns(path: Path, form: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read the columns as plain or masked arrays, and the document."""
    with read_errors(path, _DESCRIBED[form]):
        if form == "fits":
            check_fits(path)
        if form == "parquet":
            columns, meta = _read_parquet(path)
        else:
            options = {"path": "posterior"} if form == "hdf5" else {}
            with filtered_warnings("ignore", AstropyWarning):
                table = QTable.read(path, format=form, **options)
            columns = {name: _plain_column(table[name]) for name in table.colnames}
            meta = table.meta
        document = parsed_document(meta.get(_DOCUMENT, ""))
    return columns, check_layout(path, document, _LAYOUT, "Posterior.write")


def _read_parquet(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read a parquet file; the reader of astropy would need pandas."""
    from astropy.table.meta import get_header_from_yaml
    from pyarrow import parquet

    content = parquet.read_table(path)
    text = (content.schema.metadata or {}).get(b"table_meta_yaml", b"").decode()
    meta = get_header_from_yaml(text.split("\n")).get("meta", {}) if text else {}
    columns = {}
    for name in content.column_names:
        column = content[name].combine_chunks()
        if hasattr(column.type, "list_size"):
            values = column.flatten().to_numpy(zero_copy_only=False)
            columns[name] = values.reshape(len(column), column.type.list_size)
        else:
            columns[name] = column.to_numpy(zero_copy_only=False)
    for name in [name for name in columns if name.endswith(".mask")]:
        values = columns.get(name.removesuffix(".mask"))
        if values is not None:
            columns[name.removesuffix(".mask")] = np.ma.array(values, mask=columns[name])
    return columns, meta


def _plain_column(column: Any) -> np.ndarray:
    """Strip the unit, keep the mask."""
    mask = getattr(column, "mask", None)
    values = getattr(column, "unmasked", column)
    values = np.asarray(getattr(values, "value", values))
    return values if mask is None else np.ma.array(values, mask=mask)


def _column(values: np.ndarray, unit: str | None) -> np.ndarray | u.Quantity:
    """Restore a column of photometry; missing numbers become NaN."""
    if values.dtype.kind in "SUO":
        return np.array(decoded_texts(values), dtype=str)
    if unit is not None:
        return u.Quantity(plain_values(values, None), unit, subok=True)
    if values.dtype.kind == "f" or np.ma.is_masked(values):
        return plain_values(values, None)
    return np.asarray(values)
