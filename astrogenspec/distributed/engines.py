"""Engines that work on partitions: processes of this machine, or a cluster of dask.

An engine is a function that takes tasks and yields their outcomes as they are finished.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from itertools import islice
from multiprocessing import connection
from typing import Any

from .work import Outcome, Task, process_partition

__all__ = ["ENGINES", "available_cores", "run_dask", "run_processes"]

#: Function that is given lines of text.
Report = Callable[[str], None]
#: Number of tasks for each worker that are handed out at once.
_AHEAD = 2


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
    RuntimeError
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
        raise RuntimeError(
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


#: Environment of the workers of dask. By default, their memory allocator returns memory to the
#: system so eagerly that tasks take 1.5 times as long.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
#: How often dask calls a task again whose worker was lost.
_RETRIES = 2


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
    RuntimeError
        If the scheduler or, several times, the worker of a partition was lost.
    Exception
        Any error of a task that does not concern its input.
    """
    import dask
    from distributed import CancelledError, Client, KilledWorker, LocalCluster, as_completed

    settings = {"distributed.nanny.pre-spawn-environ": _ENVIRONMENT}
    with ExitStack() as stack:
        stack.enter_context(dask.config.set(settings))
        if scheduler is None:
            cluster: Any = stack.enter_context(
                LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0")
            )
        else:
            cluster = scheduler
        try:
            client = stack.enter_context(Client(cluster, set_as_default=False))
        except (OSError, TimeoutError) as error:
            raise OSError(
                f"the scheduler {scheduler} cannot be reached ({' '.join(str(error).split())})."
            ) from error
        report(f"dashboard of dask: {client.dashboard_link}")
        waiting = iter(tasks)

        def submit(n: int) -> list[Any]:
            return [
                client.submit(process_partition, task, pure=False, retries=_RETRIES)
                for task in islice(waiting, n)
            ]

        ahead = _AHEAD * max(sum(client.nthreads().values()), workers)
        finished = as_completed(submit(ahead), loop=client.loop)
        try:
            for future in finished:
                yield future.result()
                for new in submit(1):
                    finished.add(new)
        except (KilledWorker, CancelledError) as error:
            raise RuntimeError(
                f"the scheduler or a worker of dask was lost ({type(error).__name__}), perhaps "
                "because the memory was full: run the same command again to continue."
            ) from error


#: Engines by name.
ENGINES: dict[str, Callable[[Sequence[Task], int, str | None, Report], Iterator[Outcome]]] = {
    "none": run_processes,
    "dask": run_dask,
}
