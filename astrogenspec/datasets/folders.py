"""A data set on disk: parts that survive interruption, shards, the table of failures, a manifest.

A data set is made unit by unit (a field of SDSS, a block of a table).  A finished unit is one file
in ``parts``, written atomically; parts of one side of the split are joined to shards of about
`SHARD_SIZE` galaxies.  A run that is killed at any moment repeats the unit that it was working on,
and no other.  While a process writes, the folder is locked.

::

    train/shard-00000.h5 ...      galaxies (columns: astrogenspec.datasets.galaxies)
    validation/, test/            likewise
    parts/                        finished units that are not in a shard yet
    failed.ecsv                   galaxies without image, spectrum or both, with the reason
    manifest.json                 source, settings, versions, numbers
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table

from .. import __version__
from ..atomic import atomic_write, write_bytes, write_errors
from ..quantities import QUANTITIES
from ..surveys import BANDS
from ..wavelengths import REST
from .sky_cells import SPLIT_FRACTIONS, SPLITS

if sys.platform != "win32":
    import fcntl

__all__ = [
    "FORMAT",
    "SHARD_SIZE",
    "DatasetFolder",
    "FinishedUnit",
    "read_columns",
    "read_manifest",
    "read_shard",
]

#: Version of the layout of shards of real galaxies.
FORMAT = "astrogenspec real galaxies 1"
#: Galaxies in a shard, approximately.
SHARD_SIZE = 1000
_MANIFEST = "manifest.json"


@dataclass(frozen=True, eq=False)
class FinishedUnit:
    """Result of one unit of work.

    Attributes
    ----------
    key : str
        Name of the unit; letters, digits, hyphens and dots.
    split : str
        Part of the data set, one of `astrogenspec.datasets.sky_cells.SPLITS`.
    columns : dict of str to ndarray
        Columns of its galaxies; may be empty.
    failed : dict of str to str
        Reason by the name of the galaxy.
    """

    key: str
    split: str
    columns: dict[str, np.ndarray]
    failed: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.columns["name"]) if self.columns else 0


def read_manifest(folder: Path | str) -> dict[str, Any]:
    """Read the manifest of a data set.

    Parameters
    ----------
    folder : path
        Folder of a data set.

    Returns
    -------
    dict

    Raises
    ------
    FileNotFoundError
        If the folder holds no data set.
    """
    path = Path(folder) / _MANIFEST
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} has no {_MANIFEST}: it holds no data set; make one with `astrogenspec "
            "dataset`."
        )
    return json.loads(path.read_text(encoding="utf-8"))


def read_columns(
    folder: Path | str, n: int | None = None, names: Sequence[str] | None = None
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Read the columns of the first galaxies of a folder of shards.

    Parameters
    ----------
    folder : path
        Folder of shards of real galaxies.
    n : int, optional
        Maximum number of galaxies; all by default.
    names : sequence of str, optional
        Columns to read, of those that exist; all by default.

    Returns
    -------
    columns : dict of str to ndarray
        See `astrogenspec.datasets.galaxies`.
    filters : tuple of str
        Names of the filters of the photometry.

    Raises
    ------
    FileNotFoundError
        If there are no shards.
    ValueError
        If they are not of real galaxies.
    """
    paths = sorted(Path(folder).glob("shard-*.h5"))
    if not paths:
        raise FileNotFoundError(
            f"{folder} has no files shard-*.h5; make them with `astrogenspec dataset`."
        )
    parts: list[dict[str, np.ndarray]] = []
    filters: tuple[str, ...] = ()
    left = n
    for path in paths:
        part, filters = read_shard(path, left, names)
        parts.append(part)
        if left is not None:
            left -= len(next(iter(part.values())))
            if left <= 0:
                break
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, filters


def read_shard(
    path: Path, n: int | None = None, names: Sequence[str] | None = None
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Read the columns of the first galaxies of one shard; see `read_columns`."""
    import h5py

    with h5py.File(path, "r") as file:
        if file.attrs.get("format", "") != FORMAT:
            raise ValueError(
                f"{path} does not hold real galaxies in the format of this version; make the "
                "data set with `astrogenspec dataset`."
            )
        filters = tuple(str(name) for name in file.attrs["filters"])
        chosen = [name for name in file if file[name].shape and (names is None or name in names)]
        return {name: file[name][:n] for name in chosen}, filters


class DatasetFolder:
    """Folder of a data set that is being made.

    Parameters
    ----------
    path : path
        Folder; it is created if it does not exist.
    settings : mapping
        Source and settings, which must be those of an existing data set in the folder.
    filters : sequence of str
        Names of the filters of the photometry.

    Raises
    ------
    ValueError
        If the folder holds a data set with other settings, or other files.
    """

    def __init__(self, path: Path | str, settings: Mapping[str, Any], filters: tuple[str, ...]):
        self.path = Path(path)
        self.settings = json.loads(json.dumps(settings))
        self.filters = filters
        self.done: set[str] = set()
        self.failed: dict[str, str] = {}
        self.counts = dict.fromkeys(SPLITS, 0)
        self._waiting: dict[str, list[tuple[Path, int]]] = {split: [] for split in SPLITS}

    @property
    def n_galaxies(self) -> int:
        """Number of galaxies, in shards and in parts."""
        return sum(self.counts.values())

    @contextmanager
    def opened(self) -> Iterator[DatasetFolder]:
        """Lock the folder and read what it holds; at the end, release it.

        Yields
        ------
        DatasetFolder

        Raises
        ------
        BlockingIOError
            If another process writes to the folder.
        """
        self._check_folder()
        with write_errors(self.path):
            (self.path / "parts").mkdir(parents=True, exist_ok=True)
            for split in SPLITS:
                (self.path / split).mkdir(exist_ok=True)
            lock = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT)
        try:
            if sys.platform != "win32":
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise BlockingIOError(
                        f"another process is writing to {self.path}; wait for it, or choose "
                        "another folder."
                    ) from None
            self._read_shards()
            self._read_parts()
            self._write_manifest(complete=False, more={})
            yield self
        finally:
            os.close(lock)

    def _check_folder(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise NotADirectoryError(f"{self.path} is a file; give a folder.")
        manifest = self.path / _MANIFEST
        if manifest.is_file():
            found = read_manifest(self.path)["settings"]
            wrong = [k for k in {**found, **self.settings} if found.get(k) != self.settings.get(k)]
            if wrong:
                key = sorted(wrong)[0]
                raise ValueError(
                    f"{self.path} holds a data set with other settings ({key} is "
                    f"{found.get(key)!r} there, and {self.settings.get(key)!r} now); choose "
                    "another folder."
                )
        elif self.path.is_dir() and any(not p.name.startswith(".") for p in self.path.iterdir()):
            raise ValueError(
                f"{self.path} is not empty and holds no data set; choose another folder."
            )

    def _read_shards(self) -> None:
        import h5py

        for split in SPLITS:
            for path in sorted((self.path / split).glob("shard-*.h5")):
                with h5py.File(path, "r") as file:
                    self.done.update(json.loads(file["units"][()]))
                    self.failed |= json.loads(file["failed"][()])
                    self.counts[split] += len(file["name"])

    def _read_parts(self) -> None:
        for path in sorted((self.path / "parts").glob("*.npz")):
            split, key = path.stem.split("--", 1)
            if key in self.done:
                # Its shard was written, but the process was killed before the part was removed.
                path.unlink()
                continue
            unit = _read_part(path)
            self._register(unit, path)

    def _register(self, unit: FinishedUnit, path: Path) -> None:
        self.done.add(unit.key)
        self.failed |= unit.failed
        self.counts[unit.split] += len(unit)
        self._waiting[unit.split].append((path, len(unit)))

    def add(self, unit: FinishedUnit) -> None:
        """Store a finished unit.

        Parameters
        ----------
        unit : FinishedUnit

        Raises
        ------
        OSError
            If it cannot be written; nothing is lost but this unit.
        """
        path = self.path / "parts" / f"{unit.split}--{unit.key}.npz"
        text = json.dumps(unit.failed)
        with atomic_write(path, overwrite=True) as temporary:
            arrays: dict[str, Any] = {"failed": np.array(text), **unit.columns}
            np.savez(temporary, **arrays)
        self._register(unit, path)
        if sum(n for _, n in self._waiting[unit.split]) >= SHARD_SIZE:
            self._join(unit.split)

    def finish(self, more: Mapping[str, Any]) -> dict[str, Any]:
        """Join all parts to shards, and write the table of failures and the manifest.

        Parameters
        ----------
        more : mapping
            Further entries of the manifest.

        Returns
        -------
        dict
            The manifest.
        """
        for split in SPLITS:
            self._join(split)
        names = sorted(self.failed)
        table = Table({"name": names, "reason": [self.failed[name] for name in names]}, dtype="UU")
        with atomic_write(self.path / "failed.ecsv", overwrite=True) as temporary:
            table.write(temporary, format="ascii.ecsv")
        return self._write_manifest(complete=True, more=more)

    def _join(self, split: str) -> None:
        """Join the waiting parts of a split to one shard, then remove them."""
        import h5py

        waiting = self._waiting[split]
        if not waiting:
            return
        units = [_read_part(path) for path, _ in waiting]
        full = [unit.columns for unit in units if len(unit)]
        if not full and not any(unit.failed for unit in units):
            return
        number = 1 + max(
            (int(p.stem.split("-")[1]) for p in (self.path / split).glob("shard-*.h5")), default=-1
        )
        if not full:
            # Units without any usable galaxy wait for the next galaxies of this split.
            return
        path = self.path / split / f"shard-{number:05d}.h5"
        failed: dict[str, str] = {}
        for unit in units:
            failed |= unit.failed
        with atomic_write(path, overwrite=False) as temporary, h5py.File(temporary, "w") as file:
            for key, value in self._attributes(split).items():
                file.attrs[key] = value
            file["units"] = json.dumps([unit.key for unit in units])
            file["failed"] = json.dumps(failed)
            for name in full[0]:
                file.create_dataset(name, data=np.concatenate([part[name] for part in full]))
        for part, _ in waiting:
            part.unlink(missing_ok=True)
        self._waiting[split] = []

    def _attributes(self, split: str) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "settings": json.dumps(self.settings, sort_keys=True),
            "split": split,
            "quantities": list(QUANTITIES),
            "bands": list(BANDS),
            "filters": list(self.filters),
            "spectrum_frame": "rest",
            "wavelength_log10_start": REST.start,
            "wavelength_log10_step": REST.step,
            "astrogenspec_version": __version__,
        }

    def _write_manifest(self, *, complete: bool, more: Mapping[str, Any]) -> dict[str, Any]:
        path = self.path / _MANIFEST
        old = read_manifest(self.path) if path.is_file() else {}
        content = old | {
            "format": FORMAT,
            "version": __version__,
            "settings": self.settings,
            "filters": list(self.filters),
            "complete": complete,
            "galaxies": self.counts,
            "failed": len(self.failed),
            "split": dict(zip(SPLITS, SPLIT_FRACTIONS, strict=True)),
            **more,
        }
        write_bytes(path, (json.dumps(content, indent=2) + "\n").encode())
        return content


def _read_part(path: Path) -> FinishedUnit:
    split, key = path.stem.split("--", 1)
    with np.load(path, allow_pickle=False) as data:
        columns = {name: data[name] for name in data.files if name != "failed"}
        failed = json.loads(str(data["failed"]))
    return FinishedUnit(key, split, columns, failed)
