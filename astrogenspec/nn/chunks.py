"""A job cut into pieces that are done at the same time, one thread each."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

__all__ = ["map_chunks"]


def map_chunks(
    function: Callable[[slice], None], n: int, size: int, device: torch.device | str
) -> None:
    """Call a function for every piece of n items.

    The threads of torch wait for one another after each small product of matrices, and that takes most of the time if other
    programs keep a core busy. Pieces wait for nobody, and what a thread computes does not depend on how many there are.

    Parameters
    ----------
    function : callable
        Takes the slice of a piece, and writes to what belongs to that piece alone.
    n : int
        Number of items.
    size : int
        Most items of a piece.
    device : `torch.device` or str
        Where it computes: only on a CPU are there several threads, as many as `torch.get_num_threads` says.
    """
    pieces = [slice(start, start + size) for start in range(0, n, size)]
    threads = torch.get_num_threads()
    if torch.device(device).type != "cpu" or min(threads, len(pieces)) < 2:
        for piece in pieces:
            function(piece)
        return
    inference = torch.is_inference_mode_enabled()

    def in_this_mode(piece: slice) -> None:
        # Modes of torch belong to a thread.
        with torch.inference_mode(inference):
            function(piece)

    workers = min(threads, len(pieces))
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for _ in pool.map(in_this_mode, pieces):
                pass
    finally:
        torch.set_num_threads(threads)
