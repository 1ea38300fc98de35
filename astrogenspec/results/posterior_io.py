"""Summaries of a posterior as a table and as HTML."""

from __future__ import annotations

import html
import importlib.util
import json
import os
import uuid
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np
from astropy.table import QTable
from astropy.utils.exceptions import AstropyUserWarning
from astropy.utils.masked import Masked

from ..quantities import plain_values
from .information import MINIMUM_DRAWS
from .quantity import QuantityPosterior

if TYPE_CHECKING:
    from .posterior import Posterior
    from .quantity import QuantityPosterior

__all__ = [
    "PREDICTIVE",
    "SUMMARIES",
    "html_summary",
    "qp_ensemble",
    "read_posterior",
    "summary_table",
    "write_posterior",
]

#: Ends of the names of the summary columns, and what they mean.
SUMMARIES = {
    "median": "Median",
    "p16": "16th percentile",
    "p84": "84th percentile",
    "std": "Standard deviation",
}
#: Column of the photometry, and of the summary, with the posterior predictive p-value.
PREDICTIVE = "predictive_p_value"
_HTML_ROWS = 10


def summary_table(posterior: Posterior, quantities: str | Iterable[str] | None) -> QTable:
    """Summarise every galaxy in one row.

    Parameters
    ----------
    posterior : Posterior
    quantities : str, iterable of str, or None
        Quantities to summarise, drawn or derived; None: all those drawn.

    Returns
    -------
    `~astropy.table.QTable`, n_galaxies rows
        Columns as `astrogenspec.Posterior.to_table` describes them.
    """
    table = QTable()
    table["name"] = np.array(posterior.names, dtype=str)
    if isinstance(quantities, str):
        quantities = [quantities]
    for name in posterior.quantities if quantities is None else quantities:
        quantity = posterior[name]
        low, middle, high = quantity.percentiles([16, 50, 84])
        summaries = dict(zip(SUMMARIES, (middle, low, high, quantity.std()), strict=True))
        for ending, values in summaries.items():
            missing = np.isnan(values.value)
            column = f"{name}_{ending}"
            table[column] = Masked(values, mask=missing) if missing.any() else values
            table[column].info.format = _table_format(name, values.unit)
            table[column].info.description = f"{SUMMARIES[ending]}. {quantity.description}".strip()
        if _has_information(posterior, name):
            bits = posterior.information(name)
            unknown = np.isnan(bits.value)
            column = f"{name}_information"
            table[column] = Masked(bits, mask=unknown) if unknown.any() else bits
            table[column].info.format = ".2f"
            table[
                column
            ].info.description = f"Divergence of the posterior of {name} from the population; below 0.5: mostly prior."
    if posterior.measurable is not None:
        unknown = np.isnan(posterior.measurable)
        values = posterior.measurable.copy()
        table["measurable"] = np.ma.array(values, mask=unknown) if unknown.any() else values
        table["measurable"].info.format = ".3f"
        table["measurable"].info.description = "Probability that the gas metallicity is measurable."
    photometry = posterior.photometry
    if photometry is not None and PREDICTIVE in photometry.colnames:
        table[PREDICTIVE] = photometry[PREDICTIVE]
        table[PREDICTIVE].info.format = ".3f"
        table[
            PREDICTIVE
        ].info.description = "Posterior predictive p-value of the photometry; if very small, the draws do not explain it."
    table["flag"] = np.array(posterior.flags, dtype=str)
    table["flag"].info.description = "Why not to trust this galaxy; empty if nothing is wrong."
    return table


def html_summary(posterior: Posterior) -> str:
    """Show the first galaxies as an HTML table of medians with the limits of the 68% interval.

    Parameters
    ----------
    posterior : Posterior

    Returns
    -------
    str
    """
    shown = posterior[:_HTML_ROWS]
    columns = [_html_column(shown[name]) for name in shown.quantities]
    head = "".join(f"<th>{title}</th>" for title, _ in columns)
    rows = []
    for number, (name, flag) in enumerate(zip(shown.names, shown.flags, strict=True)):
        cells = "".join(f"<td>{entries[number]}</td>" for _, entries in columns)
        rows.append(
            f"<tr><th>{html.escape(_shortened(name))}</th>{cells}"
            f"<td>{html.escape(_shortened(flag, 60))}</td></tr>"
        )
    hidden = len(posterior) - len(shown)
    more = f"<p>{hidden} more {'galaxy' if hidden == 1 else 'galaxies'}</p>" if hidden else ""
    return (
        f"<p>{html.escape(repr(posterior))}</p>"
        f"<table><thead><tr><th>name</th>{head}<th>flag</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>{more}"
    )


def _has_information(posterior: Posterior, name: str) -> bool:
    population = posterior.meta.get("population") or {}
    return name in posterior.draws and name in population and posterior.n_draws >= MINIMUM_DRAWS


def _html_column(quantity: QuantityPosterior) -> tuple[str, list[str]]:
    unit = str(quantity.unit)
    title = html.escape(quantity.name) + (f"<br>[{html.escape(unit)}]" if unit else "")
    low, middle, high = quantity.percentiles([16, 50, 84]).value
    spec = _table_format(quantity.name, quantity.unit)
    cells = [
        "&mdash;"
        if np.isnan(mid)
        else f"{mid:{spec}}<sup>+{up - mid:{spec}}</sup><sub>&minus;{mid - down:{spec}}</sub>"
        for down, mid, up in zip(low, middle, high, strict=True)
    ]
    return title, cells


def _table_format(name: str, unit: u.UnitBase) -> str:
    if name == "redshift":
        return ".4f"
    return ".3f" if "dex" in str(unit) else ".4g"


def _shortened(text: str, width: int = 40) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def qp_ensemble(quantity: QuantityPosterior, names: Sequence[str], shares: np.ndarray) -> Any:
    """Make an ensemble of the package qp.

    Parameters
    ----------
    quantity : QuantityPosterior
    names : sequence of str
        Names of the galaxies.
    shares : ndarray, shape (m,)
        Fractions of the quantiles, increasing, between 0 and 1.

    Returns
    -------
    ``qp.Ensemble``
        Of piecewise quantile distributions, with ancillary data.

    Raises
    ------
    ImportError
        If qp is not installed.
    ValueError
        If a galaxy has no draws, or all of them are the same.
    """
    try:
        import qp
    except ImportError as error:
        raise ImportError(
            "to_qp needs the package qp, which is not installed; install it with 'pip install qp-prob'."
        ) from error
    places = quantity.percentiles(100 * shares).value.T.astype(float)
    bad = np.flatnonzero(~(places[:, -1] > places[:, 0]))
    if bad.size:
        raise ValueError(
            f"galaxy {names[bad[0]]!r} has no distribution of {quantity.name} (no draws, or all the same); leave it out, "
            "for example with posterior[posterior.usable]."
        )
    # Quantiles of a distribution function have to increase; ties in single precision are a rounding apart.
    step = 1e-9 * (places[:, -1] - places[:, 0])[:, None] * np.arange(len(shares))
    ancillary = {
        "name": np.array(names, dtype=str),
        "mean": quantity.mean().value,
        "median": quantity.median().value,
        "mode": quantity.mode().value,
    }
    ensemble = qp.Ensemble(qp.quant, data={"quants": shares, "locs": places + step})
    ensemble.set_ancil(ancillary)
    return ensemble


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
