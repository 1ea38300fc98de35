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
from itertools import islice
from multiprocessing import connection
from typing import Any

from .work import Outcome, Task, process_partition

__all__ = ["ENGINES", "available_cores", "run_processes"]

#: Number of tasks for each worker that are handed out at once.
_AHEAD = 2


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_processes(tasks: Sequence[Task], workers: int, _: str | None = None) -> Iterator[Outcome]:
    """Work in processes of this machine, or in this process if one worker is asked for.

    Parameters
    ----------
    tasks : sequence of Task
        The partitions.
    workers : int
        Number of processes, each of one thread.

    Yields
    ------
    Outcome

    Raises
    ------
    RuntimeError
        If a worker was ended from outside.
    Exception
        Any error of a task that does not concern its input.
    """
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


#: Engines by name: functions of tasks, number of workers and address of a scheduler.
ENGINES: dict[str, Callable[[Sequence[Task], int, str | None], Iterator[Any]]] = {
    "none": run_processes,
}
