"""Write posteriors to files and read them back.

Every file holds one table, a row a galaxy, that `astropy.table.QTable.read` opens:

* the summary columns of `astrogenspec.Posterior.to_table`;
* with ``draws=True``, a column ``<quantity>_draws`` of shape (n_galaxies, n_draws) for each
  quantity;
* a column ``photometry_<column>`` for each column of the photometry, if there is any;
* a JSON document under the key ``AGSPEC`` of the table's meta data: version of the layout,
  quantities and their units, and the meta data of the posterior.

The table is written to a temporary file next to the target, which then takes its place in one
step: nobody ever sees half a file, and a file that is replaced stays intact until the new one is
complete.
"""

from __future__ import annotations

import importlib.util
import json
import os
import uuid
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np
from astropy.table import QTable
from astropy.utils.exceptions import AstropyUserWarning

from .statistics import plain_values
from .table import summary_table

if TYPE_CHECKING:
    from ..posterior import Posterior

__all__ = ["read_posterior", "write_posterior"]

_LAYOUT = 1
_DOCUMENT = "AGSPEC"
_DRAWS = "_draws"
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
_PACKAGES = {"parquet": "pyarrow", "hdf5": "h5py"}


def write_posterior(
    posterior: Posterior, path: str | os.PathLike[str], *, draws: bool, overwrite: bool
) -> None:
    """Write a posterior; see `astrogenspec.Posterior.write`.

    Parameters
    ----------
    posterior : Posterior
    path : path-like
        The ending chooses the format.
    draws : bool
        Write the draws too.
    overwrite : bool
        Replace a file that exists.

    Raises
    ------
    FileExistsError
        If the file exists and ``overwrite`` is False.
    OSError
        If the file cannot be written.
    ValueError
        If the ending names no known format.
    TypeError
        If the meta data or the photometry hold something a file cannot.
    ImportError
        If the package for the format is not installed.
    """
    path = Path(path).expanduser()
    kind = _format_of(path)
    _check_target(path, overwrite)
    table = _file_table(posterior, draws)
    if kind in ("fits", "hdf5"):
        _encode_strings(table)
    # through a link: replace the file it points to, not the link
    _replace(path.resolve(), lambda temporary: _write_table(table, temporary, kind))


def read_posterior(made: type[Posterior], path: str | os.PathLike[str]) -> Posterior:
    """Read a posterior; see `astrogenspec.Posterior.read`.

    Parameters
    ----------
    made : type
        Class of the posterior to make.
    path : path-like
        File that `write_posterior` made.

    Returns
    -------
    Posterior

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    OSError
        If the file cannot be read.
    ValueError
        If the file holds no draws, or something else.
    ImportError
        If the package for the format is not installed.
    """
    path = Path(path).expanduser()
    kind = _format_of(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r} to read a posterior from.")
    columns, document = _read_columns(path, kind)
    if not document["draws"]:
        raise ValueError(
            f"{str(path)!r} holds summaries and no draws; read the table with QTable.read, or write the "
            f"posterior again with draws=True."
        )
    photometry = {
        name: _column(columns[_PHOTOMETRY + name], unit)
        for name, unit in document["photometry"].items()
    }
    empty = np.empty((0, document["n_draws"]))
    draws = {
        name: plain_values(columns.get(name + _DRAWS, empty), None) for name in document["draws"]
    }
    return made(
        {
            name: u.Quantity(draws[name], unit, subok=True, copy=False)
            for name, unit in document["draws"].items()
        },
        names=_strings(columns["name"]),
        flags=_strings(columns["flag"]),
        measurable=columns.get("measurable"),
        photometry=QTable(photometry) if photometry else None,
        meta=document["meta"],
    )


# ---- the table


def _file_table(posterior: Posterior, draws: bool) -> QTable:
    """Join summaries, draws and photometry in one table, with the document that describes them."""
    table = summary_table(posterior, None)
    # the ECSV reader of astropy fails on array columns without rows: leave them out of an empty table
    photometry = posterior.photometry if len(posterior) else None
    if draws and len(posterior):
        for name, values in posterior.draws.items():
            table[name + _DRAWS] = values
    for name in photometry.colnames if photometry is not None else ():
        column = photometry[name]
        if not isinstance(column, np.ndarray) or np.asarray(column).dtype.kind not in "biufUS":
            raise TypeError(
                f"photometry column {name!r} is a {type(column).__name__}, which a file cannot hold; give "
                f"columns of numbers, quantities or strings."
            )
        table[_PHOTOMETRY + name] = column
    document = {
        "layout": _LAYOUT,
        "n_draws": posterior.n_draws,
        "draws": {name: str(q.unit) for name, q in posterior.draws.items()} if draws else {},
        "photometry": {
            name: _unit_text(photometry[name])
            for name in (photometry.colnames if photometry is not None else ())
        },
        "meta": dict(posterior.meta),
    }
    table.meta[_DOCUMENT] = _json(document)
    return table


def _unit_text(column: Any) -> str | None:
    unit = getattr(column, "unit", None)
    return None if unit is None else str(unit)


def _json(document: Mapping[str, Any]) -> str:
    for key, value in document["meta"].items():
        try:
            json.dumps({key: value}, default=_json_value)
        except (TypeError, ValueError):
            raise TypeError(
                f"meta[{key!r}] is a {type(value).__name__} which a file cannot hold; give numbers, strings, "
                f"lists and mappings."
            ) from None
    return json.dumps(document, default=_json_value)


def _json_value(value: Any) -> Any:
    """Turn numpy numbers and arrays into what JSON knows."""
    if isinstance(value, np.generic | np.ndarray) and not isinstance(value, u.Quantity):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not known to JSON")


def _encode_strings(table: QTable) -> None:
    """Store text as UTF-8 bytes, where the format knows no other text than ASCII."""
    for name in table.colnames:
        column = table[name]
        if column.dtype.kind == "U":
            description = column.info.description
            table[name] = np.char.encode(np.asarray(column), "utf-8")
            table[name].info.description = description


# ---- writing


def _format_of(path: Path) -> str:
    for ending, kind in _FORMATS.items():
        if path.name.lower().endswith(ending):
            package = _PACKAGES.get(kind)
            if package is not None and importlib.util.find_spec(package) is None:
                raise ImportError(
                    f"{ending} files need the package {package}; install it with "
                    f"'pip install {package}', or choose .fits or .ecsv."
                )
            return kind
    raise ValueError(
        f"{path.name!r} ends in none of {', '.join(_FORMATS)}; choose one, it names the format."
    )


def _check_target(path: Path, overwrite: bool) -> None:
    folder = path.parent
    if not folder.exists():
        raise FileNotFoundError(f"there is no folder {str(folder)!r} to write to; make it first.")
    if not folder.is_dir():
        raise NotADirectoryError(f"{str(folder)!r} is a file; give a path inside a folder.")
    if path.is_dir():
        raise IsADirectoryError(f"{str(path)!r} is a folder; give the path of a file.")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{str(path)!r} exists; pass overwrite=True to replace it.")


def _replace(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` make a temporary file in the folder of ``path``, then rename it."""
    ending = next(ending for ending in _FORMATS if path.name.lower().endswith(ending))
    temporary = path.with_name(f".{uuid.uuid4().hex}{ending}")
    try:
        write(temporary)
        os.replace(temporary, path)
    except OSError as error:
        kind = type(error) if type(error).__module__ == "builtins" else OSError
        raise kind(
            f"cannot write {str(path)!r}: {error.strerror or error}; see that the folder may be written to "
            f"and has space left."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _write_table(table: QTable, path: Path, kind: str) -> None:
    options = {"path": "posterior", "serialize_meta": True} if kind == "hdf5" else {}
    with warnings.catch_warnings():
        # dex units are no FITS units; astropy keeps them in comments of the header, and reads them back
        warnings.filterwarnings("ignore", "The unit .* could not be saved", AstropyUserWarning)
        table.write(path, format=kind, **options)


# ---- reading


def _read_columns(path: Path, kind: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read the columns as plain or masked arrays, and the document."""
    try:
        if kind == "parquet":
            columns, meta = _read_parquet(path)
        else:
            options = {"path": "posterior"} if kind == "hdf5" else {}
            table = QTable.read(path, format=kind, **options)
            columns = {name: _plain_column(table[name]) for name in table.colnames}
            meta = table.meta
    except MemoryError:
        raise
    except Exception as error:
        raise OSError(
            f"cannot read {str(path)!r}: it is damaged or not of the format its ending names "
            f"({type(error).__name__}: {error})."
        ) from error
    try:
        document = json.loads(meta[_DOCUMENT])
        layout = document["layout"]
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{str(path)!r} was not made by Posterior.write.") from None
    if layout > _LAYOUT:
        raise ValueError(
            f"{str(path)!r} was made by a newer version of astrogenspec (layout {layout}, this version "
            f"knows {_LAYOUT}); update the package to read it."
        )
    return columns, document


def _read_parquet(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read a parquet file without pandas, which the reader of astropy asks for."""
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
        return np.array(_strings(values), dtype=str)
    if unit is not None:
        return u.Quantity(plain_values(values, None), unit, subok=True)
    if values.dtype.kind == "f" or np.ma.is_masked(values):
        return plain_values(values, None)
    return np.asarray(values)


def _strings(values: np.ndarray) -> list[str]:
    if isinstance(values, np.ma.MaskedArray):
        values = np.where(values.mask, np.zeros((), values.dtype), values.data)
    return [entry.decode() if isinstance(entry, bytes) else str(entry) for entry in values]
