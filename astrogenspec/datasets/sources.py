"""Sources of real galaxies: what they offer, what it costs, and the loop that makes a data set."""

from __future__ import annotations

import logging
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table
from tqdm.auto import tqdm

from ..downloads import DownloadError
from ..surveys import BANDS, CUTOUT_SIZE, Filter
from .folders import DatasetFolder, FinishedUnit
from .galaxies import GalaxyRecords, make_columns
from .sky_cells import SPLITS

__all__ = [
    "KEPT_SPECTRUM",
    "Cost",
    "Source",
    "Unit",
    "build_dataset",
    "checked_cutout_size",
    "cutout_settings",
    "kept_image",
]

#: Size of a spectrum with its inverse variance in the shards (GB).
KEPT_SPECTRUM = 51e-6
_LOG = logging.getLogger(__name__)
#: Units that may fail in succession before the run stops.
_MAX_FAILURES = 5
#: Largest number of pixels on a side of images.
_MAX_CUTOUT = 512


def kept_image(size: int) -> float:
    """Return the size of an image in five bands with its inverse variance in the shards (GB).

    Parameters
    ----------
    size : int
        Pixels on a side.
    """
    # Half and single precision.
    return 1e-9 * len(BANDS) * size**2 * (2 + 4)


def checked_cutout_size(size: int) -> int:
    """Return the number of pixels on a side of images, if it is possible.

    Parameters
    ----------
    size : int
        Pixels on a side.

    Returns
    -------
    int

    Raises
    ------
    ValueError
        If it is not an even number from 64 to 512.
    """
    if not CUTOUT_SIZE <= size <= _MAX_CUTOUT or size % 2:
        raise ValueError(
            f"--cutout-size is {size}; give an even number from {CUTOUT_SIZE}, which all networks "
            f"read but that of images-to-physics, which reads 160, to {_MAX_CUTOUT}."
        )
    return size


def cutout_settings(size: int) -> dict[str, int]:
    """Return the entry of the settings of a data set whose images are larger than usual."""
    return {} if size == CUTOUT_SIZE else {"cutout_size": size}


@dataclass(frozen=True)
class Cost:
    """What making a data set costs.

    Attributes
    ----------
    n_galaxies : int
        Number of galaxies.
    n_requests : int
        Number of requests to servers.
    gigabytes_through : float
        Data to download (GB).
    gigabytes_kept : float
        Size of the data set (GB).
    hours : float
        Duration.
    basis : str
        What the numbers rest on.
    """

    n_galaxies: int
    n_requests: int
    gigabytes_through: float
    gigabytes_kept: float
    hours: float
    basis: str

    def __str__(self) -> str:
        return (
            f"{self.n_galaxies} galaxies: {self.n_requests} requests, "
            f"{self.gigabytes_through:.3g} GB to download, {self.gigabytes_kept:.3g} GB on disk, "
            f"about {self.hours:.2g} hours ({self.basis})."
        )


@dataclass(frozen=True)
class Unit:
    """Galaxies that are made together; all are on the same side of the split.

    Attributes
    ----------
    key : str
        Name; letters, digits, hyphens and dots.
    split : str
        One of `astrogenspec.datasets.sky_cells.SPLITS`.
    rows : tuple of int
        Rows of the galaxies in the table of the source.
    """

    key: str
    split: str
    rows: tuple[int, ...]


class Source(ABC):
    """A source of real galaxies."""

    #: Filters of the photometry.
    filters: Sequence[Filter]

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Settings that decide what a data set contains, except the number of galaxies."""

    @property
    def details(self) -> dict[str, Any]:
        """Further entries of the manifest."""
        return {}

    @abstractmethod
    def units(self) -> list[Unit]:
        """Return the units of work; the first call may send queries."""

    @abstractmethod
    def cost(self) -> Cost:
        """Estimate the cost of all units."""

    @abstractmethod
    def records(self, unit: Unit) -> GalaxyRecords:
        """Return the galaxies of a unit with their images and spectra."""

    @property
    def rejected(self) -> dict[str, str]:
        """Reason by name for galaxies that are in no unit."""
        return {}

    @property
    def workers(self) -> int:
        """Number of units that are made at the same time."""
        return 1


def build_dataset(source: Source, out: Path | str, *, progress: bool = True) -> dict[str, Any]:
    """Make a data set, or continue one.

    Parameters
    ----------
    source : Source
    out : path
        Folder; see `astrogenspec.datasets.folders`.
    progress : bool
        Show a progress bar.

    Returns
    -------
    dict
        The manifest.

    Raises
    ------
    ValueError
        If no galaxy can be used, or the folder holds another data set.
    OSError
        If the disk is full, or the servers do not answer; a second call continues.
    """
    names = tuple(f.name for f in source.filters)
    folder = DatasetFolder(out, source.settings, names)
    with folder.opened():
        units = source.units()
        todo = [unit for unit in units if unit.key not in folder.done]
        _check_space(folder.path, source.cost().gigabytes_kept * len(todo) / max(len(units), 1))
        missing = _make_units(source, folder, todo, progress)
        folder.failed |= source.rejected
        if not folder.n_galaxies:
            reason = next(iter(folder.failed.values()), "the selection is empty")
            raise ValueError(f"no galaxy can be used; the first reason is: {reason}.")
        return folder.finish(
            {
                **source.details,
                "units": len(units),
                "units_missing": len(missing),
                "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            }
        )


def _check_space(path: Path, gigabytes: float) -> None:
    free = shutil.disk_usage(path).free / 1e9
    if gigabytes > free:
        raise OSError(
            f"the data set needs {gigabytes:.3g} GB, but {path} has {free:.3g} GB left; free some "
            "space, or choose another folder or fewer galaxies."
        )


def _make_units(
    source: Source, folder: DatasetFolder, todo: Sequence[Unit], progress: bool
) -> dict[str, str]:
    """Make units, and return the reasons for those that could not be downloaded."""
    missing: dict[str, str] = {}
    in_succession = 0
    start = time.monotonic()
    with (
        tqdm(total=sum(len(u.rows) for u in todo), unit="galaxy", disable=not progress) as bar,
        ThreadPoolExecutor(max(source.workers, 1)) as pool,
    ):
        waiting: dict[Future, Unit] = {}
        queue = iter(todo)
        try:
            while True:
                while len(waiting) < source.workers and (unit := next(queue, None)) is not None:
                    waiting[pool.submit(_make_unit, source, unit)] = unit
                if not waiting:
                    break
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    unit = waiting.pop(future)
                    try:
                        folder.add(future.result())
                        in_succession = 0
                    except DownloadError as error:
                        missing[unit.key] = str(error)
                        in_succession += 1
                        _LOG.warning("%s: %s", unit.key, error)
                        if in_succession >= _MAX_FAILURES:
                            raise OSError(
                                f"the last {in_succession} downloads failed ({error}); what is "
                                f"finished is in {folder.path}: run the same command again later."
                            ) from error
                    bar.update(len(unit.rows))
        except BaseException:
            for future in waiting:
                future.cancel()
            raise
    _LOG.info("%d units in %.0f s", len(todo), time.monotonic() - start)
    return missing


def _make_unit(source: Source, unit: Unit) -> FinishedUnit:
    columns, failed = make_columns(source.records(unit), source.filters)
    return FinishedUnit(unit.key, unit.split, columns, failed)


def describe(manifest: dict[str, Any]) -> str:
    """Return the summary of a data set in one line."""
    counts = ", ".join(f"{manifest['galaxies'][split]} {split}" for split in SPLITS)
    text = f"{sum(manifest['galaxies'].values())} galaxies ({counts}); {manifest['failed']} listed"
    return f"{text} in failed.ecsv"


def row_blocks(splits: np.ndarray, size: int) -> list[Unit]:
    """Group rows of the same split in blocks, in their order.

    Parameters
    ----------
    splits : ndarray of str, shape (n,)
        Split of each row; empty for rows that are not used.
    size : int
        Maximum number of rows in a block.

    Returns
    -------
    list of Unit
    """
    units = []
    for split in SPLITS:
        rows = np.flatnonzero(splits == split)
        for start in range(0, len(rows), size):
            block = rows[start : start + size]
            units.append(Unit(f"rows-{block[0]:08d}", split, tuple(int(k) for k in block)))
    return units


def find_duplicates(table: Table, radius: float = 1.0) -> dict[int, int]:
    """Find rows at the position of an earlier row.

    Parameters
    ----------
    table : Table
        Columns ``ra`` and ``dec`` (degrees).
    radius : float
        Maximum distance (arcsec).

    Returns
    -------
    dict of int to int
        Row of the first galaxy by the row of its repetition.
    """
    from scipy.spatial import cKDTree

    ra, dec = (np.radians(np.asarray(table[name], dtype=float)) for name in ("ra", "dec"))
    xyz = np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=1)
    pairs = cKDTree(xyz).query_pairs(np.radians(radius / 3600), output_type="ndarray")
    first: dict[int, int] = {}
    for one, other in sorted((min(p), max(p)) for p in pairs.tolist()):
        if one not in first:
            first.setdefault(other, one)
    return first
