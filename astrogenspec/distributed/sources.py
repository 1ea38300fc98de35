"""Catalogues as partitions: ranges of rows of parquet, FITS, CSV, HDF5 or ECSV files.

A file is read in ranges of rows, so that the memory does not grow with its size. The partitions
follow from the files and the number of rows of a partition only.

* Parquet: the row groups of the range are read. A folder may be a HATS catalogue.
* FITS: the first table is memory-mapped (a compressed file is read whole).
* CSV: the bytes of the range are read, with the types of the columns that the first rows have.
* HDF5: a group of one-dimensional data sets, or one data set of records.
* ECSV and VOTable files are read whole, and kept for the next partition.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.table import QTable, Table
from astropy.utils.exceptions import AstropyWarning

from ..fits_files import check_fits
from ..inputs.arrow_tables import table_from_arrow
from ..warnings import filtered_warnings
from .hats import catalogue_root

__all__ = ["CatalogueFile", "Partition", "find_files", "partitions_of", "read_rows", "scan_files"]

_KINDS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".fits": "fits",
    ".fit": "fits",
    ".fits.gz": "fits",
    ".csv": "csv",
    ".hdf5": "hdf5",
    ".h5": "hdf5",
    ".ecsv": "ecsv",
    ".vot": "votable",
}
#: Files of a HATS catalogue, or of a folder written by dask, that hold no galaxies.
_NO_DATA = ("_metadata", "_common_metadata", "data_thumbnail.parquet")
#: Number of bytes of a CSV file from which the types of its columns are inferred.
_CSV_BLOCK = 1 << 22
#: Number of threads that hash files.
_HASHING_THREADS = 4


@dataclass(frozen=True)
class CatalogueFile:
    """A file of a catalogue.

    Attributes
    ----------
    path : str
        Path, relative to the folder of the catalogue.
    kind : str
        Format.
    size : int
        Bytes.
    sha256 : str
        SHA-256 of the contents.
    rows : int
        Number of rows; 0 if the file cannot be read.
    error : str
        Why the file cannot be read.
    offsets : list of int
        Of a CSV file: the first byte of each partition.
    types : dict of str to str
        Of a CSV file: types of the columns.
    """

    path: str
    kind: str
    size: int
    sha256: str
    rows: int
    error: str = ""
    offsets: list[int] = field(default_factory=list)
    types: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes that are not empty."""
        return {name: value for name, value in asdict(self).items() if value or name == "rows"}


@dataclass(frozen=True)
class Partition:
    """A range of rows of a file.

    Attributes
    ----------
    index : int
        Number of the partition.
    file : CatalogueFile
        The file.
    start, stop : int
        First row, and the one after the last.
    number : int
        Number of the partition within the file.
    """

    index: int
    file: CatalogueFile
    start: int
    stop: int
    number: int

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def label(self) -> str:
        """File and rows, for messages."""
        rows = f", rows {self.start} to {self.stop - 1}" if len(self) else ""
        return f"{self.file.path}{rows}"

    def alone(self) -> Partition:
        """Return the partition without what its file knows of others, to be sent to a worker."""
        offsets = self.file.offsets[self.number : self.number + 2]
        if not offsets:
            return self
        if len(offsets) == 1:
            offsets = [*offsets, self.file.size]
        return replace(self, file=replace(self.file, offsets=offsets), number=0)


def find_files(source: Path) -> tuple[Path, list[Path]]:
    """List the files of a catalogue.

    Parameters
    ----------
    source : path
        A file, or a folder, with files in it or in its folders; also that of a HATS catalogue or
        collection.

    Returns
    -------
    root : path
        The folder.
    files : list of path
        The files, in order of their names.

    Raises
    ------
    FileNotFoundError
        If there is no such file or folder, or no file of a known format in it.
    ValueError
        If the format of a file is unknown, or a folder has files of several formats.
    """
    if source.is_file():
        if _kind_of(source) is None:
            raise ValueError(f"{source} ends in none of {', '.join(_KINDS)}.")
        return source.parent, [source]
    if not source.is_dir():
        raise FileNotFoundError(f"the catalogue {source} does not exist.")
    source = catalogue_root(source)
    inner = source / "dataset" if (source / "dataset").is_dir() else source
    found = [
        path
        for path in sorted(inner.rglob("*"))
        if path.is_file() and _kind_of(path) and path.name not in _NO_DATA and path.name[0] != "."
    ]
    kinds = sorted({str(_kind_of(path)) for path in found})
    if len(kinds) > 1:
        raise ValueError(
            f"the folder {source} has files of several formats ({', '.join(kinds)}); give a folder "
            "with files of one format."
        )
    if not found:
        raise FileNotFoundError(
            f"the folder {source} has no catalogue; files that end in {', '.join(_KINDS)} are read."
        )
    return source, found


def _kind_of(path: Path) -> str | None:
    name = path.name.lower()
    return next((kind for ending, kind in _KINDS.items() if name.endswith(ending)), None)


def scan_files(
    root: Path, files: Sequence[Path], rows: int, exact: Sequence[str] = ()
) -> list[CatalogueFile]:
    """Hash files and count their rows.

    Parameters
    ----------
    root : path
        Folder of the catalogue.
    files : sequence of path
        Its files.
    rows : int
        Number of rows of a partition.
    exact : sequence of str
        Columns of CSV files whose integers are read as such; other numbers may have fractions.

    Returns
    -------
    list of CatalogueFile
        A file that cannot be read has an ``error`` and no rows.
    """

    def scan(path: Path) -> CatalogueFile:
        kind, name = str(_kind_of(path)), path.relative_to(root).as_posix()
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        common = (name, kind, path.stat().st_size, digest)
        try:
            if kind == "csv":
                return CatalogueFile(*common, *_scan_csv(path, rows, exact))
            return CatalogueFile(*common, _count_rows(path, kind))
        except ModuleNotFoundError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            return CatalogueFile(*common, 0, f"{type(error).__name__}: {reason}")

    with ThreadPoolExecutor(_HASHING_THREADS) as pool:
        return list(pool.map(scan, files))


def partitions_of(files: Sequence[CatalogueFile], rows: int) -> list[Partition]:
    """Divide files into partitions.

    Parameters
    ----------
    files : sequence of CatalogueFile
        The files.
    rows : int
        Largest number of rows of a partition.

    Returns
    -------
    list of Partition
        A file without rows is one partition.
    """
    found: list[Partition] = []
    for file in files:
        for number, start in enumerate(range(0, max(file.rows, 1), rows)):
            stop = min(start + rows, file.rows)
            found.append(Partition(len(found), file, start, stop, number))
    return found


def _count_rows(path: Path, kind: str) -> int:
    if kind == "parquet":
        from pyarrow import parquet

        return parquet.read_metadata(path).num_rows
    if kind == "fits":
        check_fits(path, verify=False)
        with fits.open(path, memmap=True) as extensions:
            return len(_fits_table(extensions).data)
    if kind == "hdf5":
        import h5py

        with h5py.File(path) as file:
            columns = _hdf5_columns(file)
            lengths = {len(column) for column in columns.values()}
            if len(lengths) != 1:
                raise ValueError(f"its data sets have different lengths: {sorted(lengths)}")
            return lengths.pop()
    return len(_whole_table(str(path), path.stat().st_mtime_ns))


def _fits_table(extensions: fits.HDUList) -> fits.BinTableHDU:
    for extension in extensions:
        if isinstance(extension, fits.BinTableHDU | fits.TableHDU):
            return extension
    raise ValueError("it has no table")


def _hdf5_columns(file: Any) -> dict[str, Any]:
    """Return the data sets of the first group that has some; records are one data set."""
    import h5py

    waiting = [file]
    while waiting:
        group = waiting.pop(0)
        members = [group[name] for name in group if not name.endswith("__table_column_meta__")]
        sets = {
            each.name.rpartition("/")[2]: each
            for each in members
            if isinstance(each, h5py.Dataset) and each.shape
        }
        if sets:
            return sets
        waiting += [each for each in members if isinstance(each, h5py.Group)]
    raise ValueError("it has no data sets")


@lru_cache(maxsize=1)
def _whole_table(path: str, _: int) -> QTable:
    """Read a file of text; the time of its last change tells versions apart."""
    form = "ascii.ecsv" if path.lower().endswith(".ecsv") else "votable"
    return QTable.read(path, format=form)


def read_rows(root: Path, partition: Partition) -> Table:
    """Read the rows of a partition.

    Parameters
    ----------
    root : path
        Folder of the catalogue.
    partition : Partition
        The rows.

    Returns
    -------
    `~astropy.table.QTable`

    Raises
    ------
    OSError, ValueError
        If the file cannot be read, or has fewer rows.
    """
    file, path = partition.file, root / partition.file.path
    if file.error:
        raise OSError(f"{file.path} cannot be read ({file.error}).")
    try:
        table = _READERS[file.kind](path, partition)
    except (ModuleNotFoundError, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise OSError(f"{file.path} cannot be read ({type(error).__name__}: {reason}).") from error
    if len(table) != len(partition):
        raise OSError(f"{partition.label}: {len(table)} rows were read instead.")
    return table


def _read_parquet(path: Path, partition: Partition) -> QTable:
    from pyarrow import parquet, types

    with parquet.ParquetFile(path) as file:
        plain = [field.name for field in file.schema_arrow if not types.is_nested(field.type)]
        first, groups, start = None, [], 0
        for k in range(file.num_row_groups):
            stop = start + file.metadata.row_group(k).num_rows
            if start < partition.stop and stop > partition.start:
                groups.append(k)
                first = start if first is None else first
            start = stop
        content = file.read_row_groups(groups, columns=plain, use_threads=False)
    return table_from_arrow(content.slice(partition.start - (first or 0), len(partition)))


def _read_fits(path: Path, partition: Partition) -> QTable:
    with fits.open(path, memmap=True) as extensions:
        whole = _fits_table(extensions)
        part = type(whole)(np.array(whole.data[partition.start : partition.stop]), whole.header)
        with filtered_warnings("ignore", AstropyWarning):
            return QTable.read(part)


def _read_hdf5(path: Path, partition: Partition) -> QTable:
    import h5py

    table = QTable()
    with h5py.File(path) as file:
        for name, column in _hdf5_columns(file).items():
            values = column[partition.start : partition.stop]
            if values.dtype.names:
                return QTable(values)
            unit = column.attrs.get("unit", column.attrs.get("units"))
            table[name] = values.astype(str) if values.dtype.kind in "SO" else values
            if unit is not None:
                table[name].unit = unit.decode() if isinstance(unit, bytes) else str(unit)
    return QTable(table)


def _read_text(path: Path, partition: Partition) -> QTable:
    table = _whole_table(str(path), path.stat().st_mtime_ns)
    return table[partition.start : partition.stop]


def _read_csv(path: Path, partition: Partition) -> QTable:
    import pyarrow as pa
    from pyarrow import csv

    file = partition.file
    begin = file.offsets[partition.number]
    after = [*file.offsets, file.size][partition.number + 1]
    with path.open("rb") as stream:
        header = stream.readline()
        stream.seek(begin)
        rows = stream.read(after - begin)
    types = {name: pa.type_for_alias(alias) for name, alias in file.types.items()}
    options = csv.ConvertOptions(column_types=types, strings_can_be_null=True)
    content = csv.read_csv(io.BytesIO(header + rows), convert_options=options)
    return table_from_arrow(content.slice(0, len(partition)))


def _scan_csv(
    path: Path, rows: int, exact: Sequence[str]
) -> tuple[int, str, list[int], dict[str, str]]:
    """Return the number of rows, no error, the offsets of partitions, and the types of columns."""
    n, offsets, position, quotes = 0, [], 0, 0
    with path.open("rb") as stream:
        header = stream.readline()
        position = len(header)
        for line in stream:
            quotes += line.count(b'"')
            if quotes % 2:
                raise ValueError(f"line {n + 2} has a line break within quotes")
            if line.strip():
                if n % rows == 0:
                    offsets.append(position)
                n += 1
            position += len(line)
    return n, "", offsets, _csv_types(path, exact)


def _csv_types(path: Path, exact: Sequence[str]) -> dict[str, str]:
    """Return the types of columns, as the first rows have them."""
    import pyarrow as pa
    from pyarrow import csv

    with path.open("rb") as stream:
        block = stream.read(_CSV_BLOCK)
        block += stream.readline()
    options = csv.ConvertOptions(strings_can_be_null=True)
    schema = csv.read_csv(
        io.BytesIO(block),
        read_options=csv.ReadOptions(block_size=2 * len(block) + 1),
        convert_options=options,
    ).schema
    types = {}
    for column in schema:
        kind = column.type
        if pa.types.is_integer(kind) and column.name in exact:
            types[column.name] = "int64"
        elif pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind):
            types[column.name] = "float64"
        else:
            types[column.name] = "string"
    return types


_READERS = {
    "parquet": _read_parquet,
    "fits": _read_fits,
    "hdf5": _read_hdf5,
    "csv": _read_csv,
    "ecsv": _read_text,
    "votable": _read_text,
}
