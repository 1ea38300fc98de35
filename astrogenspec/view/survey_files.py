"""Files of the result of a survey run, read in blocks of rows."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..quantities import QUANTITIES
from .figures import view_package

__all__ = ["SurveyFiles", "is_catalogue"]

#: Rows that are in memory at a time.
_BLOCK = 65_536
#: Rows of a row group that are looked at to set the ranges.
_LOOK = 5_000
#: Names of columns of positions (degrees), in lower case, the most likely first.
_POSITIONS = (
    ("ra", "dec"),
    ("coord_ra", "coord_dec"),
    ("raj2000", "dej2000"),
    ("ra_icrs", "de_icrs"),
    ("alpha_j2000", "delta_j2000"),
    ("right_ascension", "declination"),
)
_IDENTIFIERS = ("object_id", "objectid", "objid", "source_id", "coadd_object_id", "id", "name")


def is_catalogue(path: Path) -> bool:
    """Return whether a path is the result of a survey run: a folder, or parquet with medians."""
    if path.is_dir():
        return True
    if path.suffix.lower() not in (".parquet", ".pq") or not path.is_file():
        return False
    names = view_package("pyarrow.parquet").read_schema(path).names
    # The file of a single posterior has a column of draws, and fewer rows.
    return "run" in names and any(f"{name}_median" in names for name in QUANTITIES)


@dataclass(frozen=True)
class SurveyFiles:
    """Result of a survey run.

    Attributes
    ----------
    source : path
        Output folder of ``astrogenspec survey``, a HATS catalogue, a folder of parquet files, or
        one file.

    Raises
    ------
    FileNotFoundError
        If there are no parquet files.
    ValueError
        If they have no medians of quantities.
    """

    source: Path

    def __post_init__(self) -> None:
        if not self.source.exists():
            raise FileNotFoundError(f"there is no file or folder {self.source}.")
        if not self.paths:
            raise FileNotFoundError(
                f"{self.source} has no parquet files; give the output folder of `astrogenspec "
                "survey`."
            )
        if not self.quantities:
            raise ValueError(
                f"{self.paths[0]} has no column such as redshift_median; give the output folder of "
                "`astrogenspec survey`."
            )

    @cached_property
    def paths(self) -> list[Path]:
        """Files of the result, without those of bad rows and margins."""
        if self.source.is_file():
            return [self.source]
        folder = self.source
        if (folder / "manifest.json").is_file():
            folder = folder / "data"
        elif (folder / "collection.properties").is_file():
            text = (folder / "collection.properties").read_text(encoding="utf-8")
            names = (line.partition("=") for line in text.splitlines())
            primary = {key.strip(): value.strip() for key, _, value in names}
            folder = folder / primary.get("hats_primary_table_url", "")
        found = (path for ending in ("parquet", "pq") for path in folder.rglob(f"*.{ending}"))
        return sorted(
            path
            for path in found
            if path.is_file() and not any(p[0] in "._" for p in path.relative_to(folder).parts)
        )

    @cached_property
    def names(self) -> list[str]:
        """Names of the columns."""
        return list(view_package("pyarrow.parquet").read_schema(self.paths[0]).names)

    @cached_property
    def quantities(self) -> list[str]:
        """Quantities of which there are medians."""
        return [name for name in QUANTITIES if f"{name}_median" in self.names]

    @cached_property
    def positions(self) -> tuple[str, str] | None:
        """Columns of right ascension and declination (degrees); None if there are none."""
        lower = {name.lower(): name for name in self.names}
        for pair in _POSITIONS:
            if set(pair) <= set(lower):
                return lower[pair[0]], lower[pair[1]]
        return None

    @cached_property
    def identifier(self) -> str | None:
        """Column of the identifiers; None if there is none."""
        manifest = self.manifest.get("inference", {}).get("ids")
        lower = {name.lower(): name for name in self.names}
        names = (name for name in (str(manifest).lower(), *_IDENTIFIERS) if name in lower)
        return next((lower[name] for name in names), None)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Manifest of the run; empty without one."""
        for folder in (self.source, *self.source.parents[:1]):
            path = folder / "manifest.json"
            if path.is_file():
                return json.loads(path.read_text(encoding="utf-8"))
        return {}

    @cached_property
    def n_rows(self) -> int:
        """Number of rows of the result."""
        parquet = view_package("pyarrow.parquet")
        return sum(parquet.read_metadata(path).num_rows for path in self.paths)

    @property
    def n_expected(self) -> int | None:
        """Number of rows of the input of the run; None without a manifest."""
        files = self.manifest.get("files")
        return None if files is None else sum(int(file["rows"]) for file in files)

    @property
    def columns(self) -> list[str]:
        """Columns that are read."""
        ends = ("_median", "_p16", "_p84")
        wanted = [f"{name}{end}" for name in self.quantities for end in ends]
        wanted += [*(self.positions or ()), "flags"]
        wanted += [] if self.identifier is None else [self.identifier]
        return [name for name in wanted if name in self.names]

    def blocks(self) -> Iterator[dict[str, Any]]:
        """Yield columns as arrays, block by block.

        Yields
        ------
        dict of str to ndarray
        """
        parquet = view_package("pyarrow.parquet")
        for path in self.paths:
            with parquet.ParquetFile(path) as file:
                yield from map(
                    _arrays, file.iter_batches(_BLOCK, columns=self.columns, use_threads=False)
                )

    def looks(self, n: int) -> Iterator[dict[str, Any]]:
        """Yield the first rows of row groups that are spread evenly over the files.

        Parameters
        ----------
        n : int
            Maximum number of row groups.

        Yields
        ------
        dict of str to ndarray
        """
        parquet = view_package("pyarrow.parquet")
        for path, group in self._some_groups(n):
            with parquet.ParquetFile(path) as file:
                batches = file.iter_batches(
                    _LOOK, row_groups=[group], columns=self.columns, use_threads=False
                )
                for batch in itertools.islice(batches, 1):
                    yield _arrays(batch)

    def _some_groups(self, n: int) -> list[tuple[Path, int]]:
        """Return row groups spread evenly over the files."""
        parquet = view_package("pyarrow.parquet")
        step = max(1, len(self.paths) // n)
        chosen = self.paths[::step][:n]
        counts = [parquet.read_metadata(path).num_row_groups for path in chosen]
        each = max(1, n // len(chosen))
        return [
            (path, int(group))
            for path, count in zip(chosen, counts, strict=True)
            for group in np.unique(np.linspace(0, count - 1, min(each, count)).astype(int))
            if count
        ]


def _arrays(batch: Any) -> dict[str, Any]:
    """Return the columns of a batch; missing numbers are NaN, and missing flags 0."""
    found = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        kind = column.type
        if str(kind) in ("float", "double", "halffloat"):
            found[name] = column.to_numpy(zero_copy_only=False).astype(float)
        elif name == "flags":
            found[name] = column.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
        elif str(kind).startswith(("int", "uint")) and not column.null_count:
            found[name] = column.to_numpy(zero_copy_only=False)
        else:
            found[name] = np.array([str(value) for value in column.to_pylist()], dtype=object)
    return found
