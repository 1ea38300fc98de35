"""Jobs divided into chunks that run in parallel threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

__all__ = ["map_chunks"]


def _use_one_thread() -> None:
    torch.set_num_threads(1)


# A forked process does not inherit the OpenMP threads of its parent, and would wait for them
# forever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_use_one_thread)


def map_chunks(
    function: Callable[[slice], None], n: int, size: int, device: torch.device | str
) -> None:
    """Call a function for consecutive chunks of n items, on a CPU in parallel threads.

    The threads of torch synchronise after every small matrix product, which dominates the time if
    other programs use some of the cores.  Chunks do not synchronise, and their results do not
    depend on the number of threads.

    Parameters
    ----------
    function : callable
        Processes the items of a slice, and writes only to memory of these items.
    n : int
        Number of items.
    size : int
        Maximum number of items of a chunk.
    device : `torch.device` or str
        Device of the computation.  On a CPU, `torch.get_num_threads` threads are used, which is one
        in forked processes; elsewhere the calling thread.
    """
    chunks = [slice(start, start + size) for start in range(0, n, size)]
    threads = torch.get_num_threads()
    if torch.device(device).type != "cpu" or min(threads, len(chunks)) < 2:
        for chunk in chunks:
            function(chunk)
        return
    inference = torch.is_inference_mode_enabled()

    def in_this_mode(chunk: slice) -> None:
        # The inference mode is local to a thread.
        with torch.inference_mode(inference):
            function(chunk)

    workers = min(threads, len(chunks))
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for _ in pool.map(in_this_mode, chunks):
                pass
    finally:
        torch.set_num_threads(threads)
