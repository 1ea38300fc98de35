"""Summaries of posteriors as columns of a catalogue, and their conversion to tables.

Names follow the catalogues of the Rubin Observatory: ``<quantity>_median``, ``<quantity>_p16`` and
``<quantity>_p84``, and a nested column ``<quantity>_20`` with the fields ``locs`` (values) and
``quants`` (cumulative probabilities), the parametrisation of quantiles of the package qp.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import QTable

from ..quantities import QUANTITIES
from ..results.posterior import Posterior
from ..results.posterior_io import PREDICTIVE
from ..results.statistics import row_percentiles

__all__ = [
    "QUANTILES",
    "SPECTRUM_UNIT",
    "arrow_array",
    "arrow_table",
    "astropy_table",
    "join_columns",
    "summary_columns",
]

#: Cumulative probabilities of the nested quantiles, by their number.
QUANTILES: dict[int, np.ndarray] = {
    0: np.array([]),
    5: np.array([0.025, 0.16, 0.5, 0.84, 0.975]),
    20: np.linspace(0.01, 0.99, 20),
    99: np.arange(1, 100) / 100,
}
#: Unit of spectra.
SPECTRUM_UNIT = "1e-17 erg / (Angstrom s cm2)"
_POINTS = {"median": 50.0, "p16": 16.0, "p84": 84.0}
#: Columns by name: shape (n,), or (n, k) for quantiles and draws.
Columns = dict[str, np.ndarray]


def summary_columns(posterior: Posterior, quantiles: int, draws: str | None) -> Columns:
    """Summarise the posterior of each galaxy.

    Parameters
    ----------
    posterior : Posterior
        Posterior of n galaxies.
    quantiles : int
        Number of quantiles of each quantity, a key of `QUANTILES`.
    draws : {"float16", "float32"} or None
        Type of the draws to keep. In half precision, draws of line fluxes are logarithms, in
        columns ``<quantity>_log10_draws``.

    Returns
    -------
    dict of str to ndarray
        Single-precision summaries, shape (n,) or (n, quantiles), NaN for a galaxy without draws;
        ``measurable``, ``predictive_p_value`` (if known) and ``flags``.
    """
    wanted = [*_POINTS.values(), *(100 * QUANTILES[quantiles])]
    columns: Columns = {}
    for name in posterior.quantities:
        values = posterior.draws[name].value
        found = row_percentiles(values, wanted).astype(np.float32)
        columns |= {f"{name}_{key}": found[k] for k, key in enumerate(_POINTS)}
        if quantiles:
            columns[f"{name}_{quantiles}"] = np.ascontiguousarray(found[len(_POINTS) :].T)
        if draws is not None:
            columns |= _kept_draws(name, values, draws)
    n = len(posterior)
    blank = np.full(n, np.nan)
    measurable = blank if posterior.measurable is None else posterior.measurable
    columns["measurable"] = measurable.astype(np.float32)
    photometry = posterior.photometry
    if photometry is not None and PREDICTIVE in photometry.colnames:
        columns[PREDICTIVE] = np.asarray(photometry[PREDICTIVE], dtype=np.float32)
    columns["flags"] = posterior.flag_codes.astype(np.int64)
    return columns


def _kept_draws(name: str, values: np.ndarray, kind: str) -> Columns:
    """Return the draws as a column; line fluxes in half precision would overflow at 65504."""
    if kind == "float16" and QUANTITIES[name].logarithmic:
        return {f"{name}_log10_draws": np.log10(values).astype(kind)}
    return {f"{name}_draws": values.astype(kind)}


def join_columns(parts: Sequence[Columns]) -> Columns:
    """Join the columns of several batches.

    Parameters
    ----------
    parts : sequence of dict, at least one
        Columns with the same names.

    Returns
    -------
    dict of str to ndarray
    """
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def arrow_table(
    kept: Mapping[str, Any], columns: Columns, run: str, units: Mapping[str, str] | None = None
) -> Any:
    """Make an Arrow table, with nested quantiles.

    Parameters
    ----------
    kept : mapping of str to array
        Columns of the catalogue to keep, first in the table.
    columns : dict of str to ndarray
        Columns of `summary_columns`.
    run : str
        Digest of the run, repeated in the column ``run``.
    units : mapping of str to str, optional
        Units of the kept columns.

    Returns
    -------
    `pyarrow.Table`
        Units are in the metadata of the fields, key ``unit``.
    """
    import pyarrow as pa

    arrays, fields = [], []

    def add(name: str, array: Any, unit: str) -> None:
        arrays.append(array)
        fields.append(pa.field(name, array.type, metadata={"unit": unit} if unit else None))

    for name, values in kept.items():
        add(name, arrow_array(values), (units or {}).get(name, ""))
    for name, values in columns.items():
        quantity, _, kind = name.rpartition("_")
        unit = str(QUANTITIES[quantity].unit) if quantity in QUANTITIES else ""
        if name.startswith("spectrum_") and values.ndim == 2:
            kind, unit = "draws", SPECTRUM_UNIT
        if values.ndim == 1:
            add(name, pa.array(values), unit)
        elif kind == "draws":
            flat = pa.array(np.ascontiguousarray(values).ravel())
            add(name, pa.FixedSizeListArray.from_arrays(flat, values.shape[1]), unit)
        else:
            add(name, _nested(values), unit)
    n = len(columns["flags"])
    runs = pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int8)), pa.array([run]))
    add("run", runs, "")
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def arrow_array(values: Any) -> Any:
    """Convert a column of a table; masked values become nulls.

    Parameters
    ----------
    values : array_like, shape (n,)
        Column of a table of astropy.

    Returns
    -------
    `pyarrow.Array`
    """
    import pyarrow as pa

    plain = getattr(values, "value", values)
    mask = np.ma.getmaskarray(plain)
    plain = np.ma.getdata(plain)
    if plain.dtype.kind == "S":
        plain = np.char.decode(plain, "utf-8")
    if plain.dtype.kind == "U":
        plain = plain.astype(object)
    # Arrow reads numbers in the byte order of the machine only.
    if plain.dtype.byteorder not in "=|":
        plain = plain.astype(plain.dtype.newbyteorder("="))
    return pa.array(np.asarray(plain), mask=np.asarray(mask) if mask.any() else None)


def _nested(locs: np.ndarray) -> Any:
    """Return a structure of two lists for each galaxy: locs and quants."""
    import pyarrow as pa

    n, k = locs.shape
    offsets = pa.array(np.arange(0, n * k + 1, k, dtype=np.int32))
    quants = np.tile(QUANTILES[k].astype(np.float32), n)
    lists = [
        pa.ListArray.from_arrays(offsets, pa.array(np.ascontiguousarray(values).ravel()))
        for values in (locs, quants)
    ]
    return pa.StructArray.from_arrays(lists, ["locs", "quants"])


def astropy_table(kept: Mapping[str, Any], columns: Columns, run: str, quantiles: int) -> QTable:
    """Make a table of astropy, with quantiles as columns of shape (n, k).

    Parameters
    ----------
    kept, columns, run
        As for `arrow_table`.
    quantiles : int
        Number of quantiles.

    Returns
    -------
    `~astropy.table.QTable`
        ``meta["quants"]`` has the cumulative probabilities of the quantiles.
    """
    table = QTable()
    for name, values in kept.items():
        table[name] = values
    for name, values in columns.items():
        quantity = QUANTITIES.get(name.rpartition("_")[0])
        table[name] = values if quantity is None else u.Quantity(values, quantity.unit, subok=True)
    table["run"] = np.full(len(columns["flags"]), run)
    if quantiles:
        table.meta["quants"] = QUANTILES[quantiles].tolist()
    return table
