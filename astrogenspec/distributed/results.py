"""The output folder of a survey run.

* ``manifest.json``: what the result depends on (`astrogenspec.distributed.manifest`);
* ``data/part-000000.parquet``, ...: the result, one file for each partition of the input; for a
  HATS catalogue, ``data`` is one as well, with the files in the folders of their pixels;
* ``bad_rows/part-000000.parquet``, ...: rows without a result, with the reason;
* ``logs/part-000000.json``, ...: number of rows, times and the SHA-256 of each file;
* ``quarantine/part-000000.json``, ...: partitions that could not be read, with the reason;
* ``metrics.json``: summary, once all partitions are finished.

A file of ``data`` is written last, to a temporary folder, synchronised with the disk and renamed:
it is complete and counts as done, or it is absent.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..atomic import temporary_folder, write_errors
from ..weights import file_sha256
from .hats import pixel_folder
from .sources import Partition
from .summaries import arrow_array
from .tables import Inferred

if sys.platform != "win32":
    import fcntl

__all__ = ["OutputFolder"]

_RUN, _PARTITION = b"run", b"partition"
_FOLDERS = ("data", "bad_rows", "logs", "quarantine", ".work")


@dataclass(frozen=True)
class OutputFolder:
    """Files of a run.

    Attributes
    ----------
    path : path
        The folder.
    run : str
        Digest of the manifest.
    hats : bool
        Whether the result is a HATS catalogue.
    """

    path: Path
    run: str
    hats: bool = False

    def prepare(self) -> None:
        """Make the folders."""
        for name in _FOLDERS:
            (self.path / name).mkdir(parents=True, exist_ok=True)

    def data_file(self, partition: Partition) -> Path:
        """Return the path of the result of a partition."""
        folder = self.path / "data"
        if self.hats:
            folder = folder / "dataset" / str(pixel_folder(partition.file.path))
        return folder / f"part-{partition.index:06d}.parquet"

    def bad_rows_file(self, index: int) -> Path:
        """Return the path of the table of bad rows of a partition."""
        return self.path / "bad_rows" / f"part-{index:06d}.parquet"

    def log_file(self, index: int) -> Path:
        """Return the path of the log of a partition."""
        return self.path / "logs" / f"part-{index:06d}.json"

    def quarantine_file(self, index: int) -> Path:
        """Return the path of the reason why a partition could not be read."""
        return self.path / "quarantine" / f"part-{index:06d}.json"

    def is_done(self, partition: Partition) -> bool:
        """Return whether the result of a partition is complete and belongs to this run.

        Parameters
        ----------
        partition : Partition
            The partition.

        Returns
        -------
        bool
            False also for a file that is cut or has another number of rows, which is replaced.
        """
        path = self.data_file(partition)
        if not path.exists() or not self.log_file(partition.index).exists():
            return False
        from pyarrow import ArrowException, parquet

        try:
            found = parquet.read_metadata(path)
        except (ArrowException, OSError):
            return False
        keys = found.metadata or {}
        return (
            found.num_rows == len(partition)
            and keys.get(_RUN) == self.run.encode()
            and keys.get(_PARTITION) == str(partition.index).encode()
        )

    def is_quarantined(self, partition: Partition) -> bool:
        """Return whether a partition could not be read."""
        return self.quarantine_file(partition.index).exists()

    @contextmanager
    def claim(self, partition: Partition) -> Iterator[bool]:
        """Claim a partition for this process.

        The operating system releases the claims of a process that ends. Where there are no locks,
        two processes may compute the same partition, with the same result.

        Parameters
        ----------
        partition : Partition
            The partition.

        Yields
        ------
        bool
            False if another process has claimed it.
        """
        path = self.path / ".work" / f"part-{partition.index:06d}.lock"
        descriptor, mine = None, True
        try:
            if sys.platform != "win32":
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    mine = False
                except OSError:
                    # The file system has no locks.
                    pass
            yield mine
        finally:
            if descriptor is not None:
                if mine:
                    with suppress(OSError):
                        path.unlink()
                os.close(descriptor)

    def write(
        self, partition: Partition, inferred: Inferred, content: Any, times: Mapping[str, float]
    ) -> None:
        """Write the result of a partition.

        Parameters
        ----------
        partition : Partition
            The partition.
        inferred : Inferred
            Its result.
        content : `pyarrow.Table`
            The table of the result.
        times : mapping of str to float
            Times of the log: ``seconds`` and ``cpu_seconds``.

        Raises
        ------
        OSError
            If a file cannot be written; the old files, or none, are there.
        """
        keys = {_RUN: self.run.encode(), _PARTITION: str(partition.index).encode()}
        content = content.replace_schema_metadata({**(content.schema.metadata or {}), **keys})
        target, k = self.data_file(partition), partition.index
        with write_errors(target), temporary_folder(self.path / ".work") as folder:
            data, bad, log = folder / "data", folder / "bad", folder / "log"
            n_bad = _write_bad_rows(bad, inferred, content.column_names[0])
            _write_parquet(data, content)
            record = {
                "partition": k,
                "input": partition.label,
                "rows": len(partition),
                "bad_rows": n_bad,
                "flagged": int(np.count_nonzero(inferred.columns["flags"])),
                **{name: round(value, 3) for name, value in times.items()},
                "bytes": data.stat().st_size,
                "sha256": file_sha256(data),
            }
            _write_text(log, json.dumps(record))
            if n_bad:
                _move(bad, self.bad_rows_file(k))
            else:
                self.bad_rows_file(k).unlink(missing_ok=True)
            _move(log, self.log_file(k))
            target.parent.mkdir(parents=True, exist_ok=True)
            # Last: the partition is done when this file is there.
            _move(data, target)
            self.quarantine_file(k).unlink(missing_ok=True)

    def quarantine(self, partition: Partition, reason: str) -> None:
        """Record why a partition could not be read.

        Parameters
        ----------
        partition : Partition
            The partition.
        reason : str
            The reason.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        record = {"partition": partition.index, "input": partition.label, "reason": reason}
        self.write_json(self.quarantine_file(partition.index), record)

    def write_json(self, path: Path, record: Mapping[str, Any]) -> None:
        """Write a file of JSON atomically; an existing one is replaced."""
        self.write_bytes(path, json.dumps(dict(record), indent=1).encode())

    def write_bytes(self, path: Path, content: bytes) -> None:
        """Write a file atomically; an existing one is replaced."""
        with write_errors(path), temporary_folder(self.path / ".work") as folder:
            (folder / "content").write_bytes(content)
            _synchronise(folder / "content")
            path.parent.mkdir(parents=True, exist_ok=True)
            _move(folder / "content", path)

    def write_table(self, path: Path, content: Any) -> None:
        """Write a parquet file atomically; an existing one is replaced."""
        with write_errors(path), temporary_folder(self.path / ".work") as folder:
            _write_parquet(folder / "content", content)
            path.parent.mkdir(parents=True, exist_ok=True)
            _move(folder / "content", path)

    def logs(self, partitions: list[Partition]) -> Iterator[dict[str, Any]]:
        """Yield the logs of partitions; those that cannot be read are left out."""
        for partition in partitions:
            with suppress(OSError, ValueError):
                yield json.loads(self.log_file(partition.index).read_text())


def _write_bad_rows(path: Path, inferred: Inferred, ids: str) -> int:
    """Write the identifiers and positions of bad rows, with reasons; return their number."""
    import pyarrow as pa

    rows = np.flatnonzero([bool(reason) for reason in inferred.reasons])
    if rows.size:
        columns = {
            ids: arrow_array(inferred.kept[ids][rows]),
            "row": pa.array(rows),
            "reason": pa.array([inferred.reasons[k] for k in rows]),
        }
        _write_parquet(path, pa.table(columns))
    return len(rows)


def _write_parquet(path: Path, content: Any) -> None:
    from pyarrow import parquet

    parquet.write_table(content, path, compression="zstd")
    _synchronise(path)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text)
    _synchronise(path)


def _synchronise(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _move(temporary: Path, path: Path) -> None:
    """Move a file to its place, and the change of the folder to the disk."""
    os.replace(temporary, path)
    if sys.platform != "win32":
        _synchronise(path.parent)
