"""Engines that work on partitions: processes of this machine, or a cluster of dask.

An engine is a function that takes tasks and yields their outcomes as they are finished.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from functools import partial
from itertools import islice
from multiprocessing import connection
from typing import Any

from ..extras import optional_package
from ..inputs.arrow_tables import table_from_arrow
from .hats import hats_properties, pixel_of
from .work import Outcome, Task, process_partition

__all__ = [
    "ENGINES",
    "WorkerError",
    "available_cores",
    "process_pixel",
    "run_dask",
    "run_lsdb",
    "run_processes",
]

#: Function that is given lines of text.
Report = Callable[[str], None]
#: Number of tasks for each worker that are handed out at once.
_AHEAD = 2


class WorkerError(RuntimeError):
    """A worker or a scheduler was lost; the same command continues the run."""


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_processes(
    tasks: Sequence[Task], workers: int, scheduler: str | None, report: Report
) -> Iterator[Outcome]:
    """Work in processes of this machine, or in this process if one worker is asked for.

    Parameters
    ----------
    tasks : sequence of Task
        The partitions.
    workers : int
        Number of processes, each of one thread.
    scheduler : str or None
        Must be None.
    report : callable
        Not used.

    Yields
    ------
    Outcome

    Raises
    ------
    WorkerError
        If a worker was ended from outside.
    ValueError
        If a scheduler is given.
    Exception
        Any error of a task that does not concern its input.
    """
    if scheduler is not None:
        raise ValueError(f"scheduler is {scheduler!r}, but only the engine dask has one.")
    if workers == 1:
        yield from map(process_partition, tasks)
        return
    # A forked process could not use the threads of torch.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_follow_parent)
    try:
        yield from _as_finished(pool.submit, tasks, workers)
    except BrokenProcessPool as error:
        raise WorkerError(
            "a worker was ended from outside, perhaps because the memory was full: run the same "
            "command again to continue, with fewer --workers or smaller partitions."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _as_finished(
    submit: Callable[..., Future[Outcome]], tasks: Sequence[Task], workers: int
) -> Iterator[Outcome]:
    """Yield outcomes; only a few tasks are handed out at once, so that errors stop the work."""
    waiting = iter(tasks)
    running = {submit(process_partition, task) for task in islice(waiting, _AHEAD * workers)}
    while running:
        finished, running = wait(running, return_when=FIRST_COMPLETED)
        running |= {submit(process_partition, task) for task in islice(waiting, len(finished))}
        for future in finished:
            yield future.result()


def _follow_parent() -> None:
    """End this process with its parent, which may be killed while this one waits for work."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        connection.wait([parent.sentinel] if parent is not None else [])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


#: Configuration of local clusters. By default, the memory allocator of workers returns memory to
#: the system so eagerly that tasks take 1.5 times as long, and the profiles of the last hour are
#: kept in memory, one for each second.
_CONFIGURATION = {
    "distributed.nanny.pre-spawn-environ": {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    },
    "distributed.worker.profile.enabled": False,
}
#: If there are many partitions, dask is given several at once, since it needs several milliseconds
#: for each call: at most this number, and no more than leave each thread this number of calls.
_LARGEST, _CALLS = 20, 100
#: How often dask calls a task again that failed.
_RETRIES = 2
#: Seconds after which the number of workers of a cluster is asked again.
_INTERVAL = 10.0


def run_dask(
    tasks: Sequence[Task], workers: int, scheduler: str | None, report: Report
) -> Iterator[Outcome]:
    """Work on a cluster of dask.

    The folders of the catalogue and of the output must have the same paths on all machines.

    Parameters
    ----------
    tasks : sequence of Task
        The partitions.
    workers : int
        Number of workers of a local cluster, each of one thread.
    scheduler : str or None
        Address of the scheduler of an existing cluster; by default a local cluster is made.
    report : callable
        Function that is given the address of dask's dashboard.

    Yields
    ------
    Outcome

    Raises
    ------
    OSError
        If the scheduler cannot be reached.
    WorkerError
        If the scheduler or, several times, the worker of a partition was lost.
    Exception
        Any error of a task that does not concern its input.
    """
    work = partial(_call_each, process_partition)
    with _Cluster(workers, scheduler, report) as cluster:
        size = min(max(len(tasks) // (_CALLS * cluster.n_threads), 1), _LARGEST)
        waiting = (tasks[start : start + size] for start in range(0, len(tasks), size))

        def submit(n: int) -> list[Any]:
            some = list(islice(waiting, n))
            return cluster.client.map(work, some, pure=False, retries=_RETRIES)

        for outcomes in cluster.as_finished(submit):
            yield from outcomes


def _call_each(function: Callable[[Task], Outcome], tasks: Sequence[Task]) -> list[Outcome]:
    """Call a function for each of several tasks."""
    return [function(task) for task in tasks]


class _Cluster:
    """A client of dask, of an existing cluster or of a local one that is made."""

    def __init__(self, workers: int, scheduler: str | None, report: Report) -> None:
        self._workers, self._scheduler, self._report = workers, scheduler, report
        self._stack = ExitStack()

    def __enter__(self) -> _Cluster:
        optional_package("distributed", "survey", "engines on clusters")
        import dask
        from distributed import Client, LocalCluster

        self._stack.enter_context(dask.config.set(_CONFIGURATION))
        cluster: Any = self._scheduler
        if cluster is None:
            cluster = self._stack.enter_context(
                LocalCluster(n_workers=self._workers, threads_per_worker=1, dashboard_address=":0")
            )
        try:
            self.client: Any = self._stack.enter_context(Client(cluster, set_as_default=False))
        except (OSError, TimeoutError) as error:
            self._stack.close()
            raise OSError(
                f"the scheduler {self._scheduler} cannot be reached "
                f"({' '.join(str(error).split())})."
            ) from error
        self._report(f"dashboard of dask: {self.client.dashboard_link}")
        if not self.client.nthreads():
            self._report("the cluster has no workers yet: waiting for them")
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()

    def as_finished(
        self,
        submit: Callable[[int], list[Any]],
        instead: Callable[[Any], Any] | None = None,
    ) -> Iterator[Any]:
        """Yield results; only a few tasks are handed out at once, so that errors stop the work.

        Parameters
        ----------
        submit : callable
            Function that hands out a number of further tasks and returns their futures.
        instead : callable, optional
            Function of a future with an error that returns another result; by default the error
            is raised.

        Yields
        ------
        object

        Raises
        ------
        WorkerError
            If the scheduler or a worker was lost.
        """
        from distributed import CancelledError, KilledWorker, as_completed
        from distributed.comm import CommClosedError

        def result(future: Any) -> Any:
            if instead is None or future.status != "error":
                return future.result()
            lost = isinstance(future.exception(), KilledWorker)
            return future.result() if lost else instead(future)

        try:
            ahead, asked = _AHEAD * self.n_threads, time.monotonic()
            finished = as_completed(submit(ahead), loop=self.client.loop)
            # The messages for one task take as long as those for all that have ended meanwhile.
            for batch in finished.batches():
                failed = [future for future in batch if future.status != "finished"]
                done = [future for future in batch if future.status == "finished"]
                results = [*self.client.gather(done), *map(result, failed)]
                if time.monotonic() > asked + _INTERVAL:
                    # Workers come and go.
                    ahead, asked = _AHEAD * self.n_threads, time.monotonic()
                finished.update(submit(max(ahead - finished.count(), 0)))
                yield from results
        except (KilledWorker, CancelledError, CommClosedError) as error:
            raise WorkerError(
                f"the scheduler or a worker of dask was lost ({type(error).__name__}), perhaps "
                "because the memory was full: run the same command again to continue."
            ) from error

    @property
    def n_threads(self) -> int:
        """Number of threads of the workers that are there; at least that of a local cluster."""
        return max(sum(self.client.nthreads().values()), self._workers)


def run_lsdb(
    tasks: Sequence[Task], workers: int, scheduler: str | None, report: Report
) -> Iterator[Outcome]:
    """Work on a cluster of dask, with the pixels of a HATS catalogue as LSDB reads them.

    Parameters
    ----------
    tasks, workers, scheduler, report
        As for `run_dask`.

    Yields
    ------
    Outcome

    Raises
    ------
    ValueError
        If the catalogue is not one of HATS.
    OSError, WorkerError, Exception
        As for `run_dask`.
    """
    if not tasks:
        return
    # Some of their imports are slow.
    lsdb = optional_package("lsdb", "survey", "the engine lsdb")
    import dask

    root = tasks[0].root
    if not hats_properties(root):
        raise ValueError(f"{root} is no HATS catalogue, which the engine lsdb reads.")
    # LSDB stops at files that cannot be read; they go to quarantine.
    yield from (process_partition(task) for task in tasks if task.partition.file.error)
    by_pixel = _by_pixel([task for task in tasks if not task.partition.file.error])
    if not by_pixel:
        return
    names = _plain_columns(next(iter(by_pixel.values())))
    catalogue = lsdb.open_catalog(str(root), columns=names).pixel_search(list(by_pixel))
    pixels = catalogue.get_ordered_healpix_pixels()
    parts = zip(pixels, catalogue.to_delayed(), strict=True)
    by_future: dict[str, list[Task]] = {}
    with _Cluster(workers, scheduler, report) as cluster:

        def submit(n: int) -> list[Any]:
            some = list(islice(parts, n))
            works = [
                dask.delayed(process_pixel, pure=False)(part, by_pixel[pixel])
                for pixel, part in some
            ]
            futures = cluster.client.compute(works, retries=_RETRIES)
            for future, (pixel, _) in zip(futures, some, strict=True):
                by_future[future.key] = by_pixel[pixel]
            return futures

        def without_lsdb(future: Any) -> list[Outcome]:
            # Of damaged pages, for example; the partition goes to quarantine.
            return [process_partition(task) for task in by_future[future.key]]

        for outcomes in cluster.as_finished(submit, without_lsdb):
            yield from outcomes


def _by_pixel(tasks: Sequence[Task]) -> dict[Any, list[Task]]:
    """Return the partitions of each pixel."""
    from hats.pixel_math import HealpixPixel

    found: dict[Any, list[Task]] = {}
    for task in tasks:
        found.setdefault(HealpixPixel(*pixel_of(task.partition.file.path)), []).append(task)
    return found


def _plain_columns(tasks: Sequence[Task]) -> list[str]:
    """Return the columns of a catalogue without lists and structures."""
    from pyarrow import parquet, types

    schema = parquet.read_schema(tasks[0].root / tasks[0].partition.file.path)
    return [field.name for field in schema if not types.is_nested(field.type)]


def process_pixel(frame: Any, tasks: Sequence[Task]) -> list[Outcome]:
    """Infer the galaxies of a pixel that LSDB has read.

    Parameters
    ----------
    frame : ``NestedFrame``
        Galaxies of the pixel, in order of the file.
    tasks : sequence of Task
        Its partitions.

    Returns
    -------
    list of Outcome
    """
    import pyarrow as pa
    from pyarrow import parquet

    names = list(frame.columns) if frame.index.name in (None, *frame.columns) else None
    content = pa.Table.from_pandas(frame if names else frame.reset_index(), preserve_index=False)
    outcomes = []
    for task in tasks:
        if len(content) != task.partition.file.rows:
            # A pixel of several files, which LSDB joins.
            outcomes.append(process_partition(task))
            continue
        # Frames have no units.
        schema = parquet.read_schema(task.root / task.partition.file.path)
        part = content.slice(task.partition.start, len(task.partition))
        kept = [schema.field(name) for name in part.column_names]
        plain = part.cast(pa.schema(kept, metadata=schema.metadata))
        outcomes.append(process_partition(task, table_from_arrow(plain)))
    return outcomes


#: Engines by name.
ENGINES: dict[str, Callable[[Sequence[Task], int, str | None, Report], Iterator[Outcome]]] = {
    "none": run_processes,
    "dask": run_dask,
    "lsdb": run_lsdb,
}
