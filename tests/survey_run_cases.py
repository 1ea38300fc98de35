"""Catalogues and small weights for the tests of survey runs."""

import warnings

import numpy as np
import pyarrow as pa
from astropy.table import QTable
from estimator_cases import make_estimator, make_photometry
from pyarrow import parquet

#: Options of all runs.
SETTINGS = {"ids": "object_id", "seed": 3, "draws": 20, "keep": ("ra", "dec")}


def make_catalogue(n, seed=0, **columns):
    """Return photometry with identifiers beyond 53 bits, in another order than the rows."""
    rng = np.random.default_rng(seed)
    table = make_photometry(n, seed)
    table["object_id"] = rng.permutation(n) + 2**60
    table["ra"], table["dec"] = rng.uniform(0, 360, n), rng.uniform(-90, 90, n)
    for name, values in columns.items():
        table[name] = values
    return table


def make_weights(folder):
    """Write the weights of a small network."""
    return make_estimator().save(folder / "tiny.safetensors")


def plain_columns(table):
    """Return the columns without units."""
    return {name: np.asarray(getattr(table[name], "value", table[name])) for name in table.colnames}


def write_parquet(table, path, group=7):
    """Write a table to parquet, with units in the metadata of the fields."""
    fields, arrays = [], []
    for name, values in plain_columns(table).items():
        unit = str(getattr(table[name], "unit", "") or "")
        arrays.append(pa.array(values))
        fields.append(pa.field(name, arrays[-1].type, metadata={"unit": unit} if unit else None))
    parquet.write_table(
        pa.Table.from_arrays(arrays, schema=pa.schema(fields)), path, row_group_size=group
    )


def read_result(output):
    """Return all rows of a result, in order of the identifiers."""
    content = parquet.read_table(output / "data")
    return content.sort_by("object_id")


def nested(content, name):
    """Return a nested column as (values, probabilities), each of shape (n, k)."""
    column = content[name].combine_chunks()
    n = len(column)
    return tuple(
        np.asarray(column.field(key).flatten()).reshape(n, -1) for key in ("locs", "quants")
    )


def in_other_format(table, path):
    """Write a table to a file whose ending selects the format."""
    if path.suffix == ".csv":
        QTable(plain_columns(table)).write(path, format="ascii.csv")
    elif path.suffix == ".hdf5":
        import h5py

        with h5py.File(path, "w") as file:
            for name, values in plain_columns(table).items():
                file.create_dataset(f"photometry/{name}", data=values)
                unit = getattr(table[name], "unit", None)
                if unit is not None:
                    file[f"photometry/{name}"].attrs["unit"] = str(unit)
    elif path.suffix == ".parquet":
        write_parquet(table, path)
    elif path.suffix == ".vot":
        QTable(plain_columns(table)).write(path, format="votable")
    else:
        with warnings.catch_warnings():
            # Nanomaggies are no unit of FITS; astropy keeps them in comments.
            warnings.simplefilter("ignore")
            table.write(path)
