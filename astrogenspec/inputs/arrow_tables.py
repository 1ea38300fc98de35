"""Tables of Arrow, in which parquet files are read, as tables of astropy."""

from __future__ import annotations

from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import MaskedColumn, QTable

__all__ = ["arrow_units", "table_from_arrow"]

#: Key of the unit in the metadata of a field.
_UNIT = b"unit"


def arrow_units(schema: Any) -> dict[str, str]:
    """Return the units of columns: those of astropy's header, or of the metadata of the fields.

    Parameters
    ----------
    schema : `pyarrow.Schema`
        Schema of a table or file.

    Returns
    -------
    dict of str to str
        Units by name, for columns that have one.
    """
    from astropy.table.meta import get_header_from_yaml

    units = {
        field.name: field.metadata[_UNIT].decode()
        for field in schema
        if field.metadata and _UNIT in field.metadata
    }
    text = (schema.metadata or {}).get(b"table_meta_yaml", b"").decode()
    header = get_header_from_yaml(text.split("\n")).get("datatype", []) if text else []
    return units | {column["name"]: column["unit"] for column in header if column.get("unit")}


def table_from_arrow(content: Any) -> QTable:
    """Convert a table of Arrow; columns of lists and structures are left out.

    Parameters
    ----------
    content : `pyarrow.Table`
        The table.

    Returns
    -------
    `~astropy.table.QTable`
        Nulls are masked, or NaN in columns with a unit.
    """
    import pyarrow as pa

    units = arrow_units(content.schema)
    table = QTable()
    for name in content.column_names:
        column = content[name]
        if pa.types.is_nested(column.type):
            continue
        values = _plain_column(column)
        if name in units:
            numbers = np.ma.filled(values.astype(float), np.nan)
            values = u.Quantity(numbers, units[name], subok=True)
        table[name] = values
    return table


def _plain_column(column: Any) -> np.ndarray | MaskedColumn:
    """Return the values of a column; nulls are masked, so that integers keep all digits."""
    import pyarrow as pa
    from pyarrow import compute

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    if pa.types.is_string_view(column.type):
        column = column.cast(pa.string())
    text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    if not column.null_count or not (text or pa.types.is_integer(column.type)):
        values = column.to_numpy()
        return values.astype(str) if values.dtype == object else values
    mask = compute.is_null(column).to_numpy()
    values = compute.fill_null(column, "" if text else 0).to_numpy()
    return MaskedColumn(values.astype(str) if text else values, mask=mask)
