"""Work on one partition: read it, infer its galaxies, write the result.

`process_partition` is a module-level function of a plain record, which engines can send to other
processes and call again after a failure: its result does not depend on when, where or how often it
is called.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from astropy.table import Table

from ..inputs.errors import INPUT_ERRORS
from ..warnings import AstroGenSpecWarning, filtered_warnings
from .images import COLUMN, ImageReader, column_reader
from .results import OutputFolder
from .sources import Partition, read_rows
from .summaries import arrow_table
from .tables import Inference, infer_table

__all__ = ["Outcome", "Task", "process_partition", "reader_of", "single_threaded"]


@dataclass(frozen=True)
class Task:
    """A partition, and what to do with it.

    Attributes
    ----------
    root : path
        Folder of the catalogue.
    output : OutputFolder
        Where the result is written.
    inference : Inference
        What is inferred.
    partition : Partition
        The rows.
    """

    root: Path
    output: OutputFolder
    inference: Inference
    partition: Partition


@dataclass(frozen=True)
class Outcome:
    """What became of a partition.

    Attributes
    ----------
    index : int
        Number of the partition.
    rows : int
        Number of its rows.
    state : {"done", "skipped", "claimed", "quarantined"}
        Computed; finished before; being computed by another process; or not readable.
    bad_rows : int
        Number of rows without a result.
    seconds : float
        Time of the inference.
    reason : str
        Why the partition could not be read.
    """

    index: int
    rows: int
    state: str
    bad_rows: int = 0
    seconds: float = 0.0
    reason: str = ""


class single_threaded:
    """Context in which torch uses one thread, so that processes share the cores evenly."""

    def __enter__(self) -> None:
        self._before = torch.get_num_threads()
        torch.set_num_threads(1)

    def __exit__(self, *_: object) -> None:
        torch.set_num_threads(self._before)


def reader_of(task: Task) -> ImageReader | None:
    """Return the reader of images that are a column of the catalogue itself, if they are.

    Parameters
    ----------
    task : Task
        The partition.

    Returns
    -------
    ImageReader or None

    Raises
    ------
    ValueError
        If the catalogue is not of parquet.
    """
    inference, partition = task.inference, task.partition
    if inference.images is None or not inference.images.startswith(COLUMN):
        return None
    if partition.file.kind != "parquet":
        raise ValueError(f"images is {inference.images!r}, but the catalogue is not of parquet.")
    path = task.root / partition.file.path
    return column_reader(inference.images, inference.image_format, path, partition.start)


def process_partition(task: Task, table: Table | None = None) -> Outcome:
    """Infer the galaxies of a partition and write the result.

    Parameters
    ----------
    task : Task
        The partition.
    table : `~astropy.table.Table`, optional
        Its rows, if an engine has read them; by default they are read.

    Returns
    -------
    Outcome

    Raises
    ------
    OSError
        If the result cannot be written.
    """
    partition, output = task.partition, task.output
    with output.claim(partition) as mine, single_threaded():
        if not mine:
            return Outcome(partition.index, len(partition), "claimed")
        if output.is_done(partition):
            return Outcome(partition.index, len(partition), "skipped")
        begin, cpu = time.perf_counter(), time.process_time()
        try:
            # Warnings about the whole catalogue were shown before the run.
            with filtered_warnings("ignore", AstroGenSpecWarning):
                table = read_rows(task.root, partition) if table is None else table
                inferred = infer_table(table, task.inference, reader_of(task))
        except (OSError, *INPUT_ERRORS) as error:
            reason = " ".join(str(error).split())
            output.quarantine(partition, reason)
            return Outcome(partition.index, len(partition), "quarantined", reason=reason)
        content = arrow_table(inferred.kept, inferred.columns, output.run, inferred.units)
        seconds = time.perf_counter() - begin
        times = {"seconds": seconds, "cpu_seconds": time.process_time() - cpu}
        output.write(partition, inferred, content, times)
        n_bad = sum(map(bool, inferred.reasons))
        return Outcome(partition.index, len(partition), "done", n_bad, seconds)
