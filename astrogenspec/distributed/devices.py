"""Devices of workers: with several GPUs, each worker has its own."""

from __future__ import annotations

import multiprocessing
import sys

import torch

__all__ = ["own_device", "worker_number"]


def worker_number() -> int:
    """Return the number of this worker on its machine: 0, 1, and so on.

    Returns
    -------
    int
        The number of a worker of a local cluster of dask, or of a process of a pool; 0 in a process
        of its own.
    """
    if "distributed" in sys.modules:
        from distributed import get_worker

        try:
            return int(get_worker().name)
        except (ValueError, TypeError):
            # No worker, or one with a name of another cluster.
            pass
    identity = multiprocessing.current_process()._identity
    return identity[-1] - 1 if identity else 0


def own_device(device: str) -> str:
    """Return the device of this worker.

    Parameters
    ----------
    device : str
        Device that was asked for.

    Returns
    -------
    str
        With ``"cuda"`` on a machine with n GPUs, that of number k modulo n for worker k; any other
        device unchanged. Schedulers that show each worker one GPU (``CUDA_VISIBLE_DEVICES``) need
        nothing else.
    """
    n = torch.cuda.device_count() if device == "cuda" else 0
    return f"cuda:{worker_number() % n}" if n > 1 else device
