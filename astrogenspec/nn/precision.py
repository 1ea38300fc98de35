"""Single precision in programs that set another default dtype of torch."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["single_precision"]

_lock = threading.Lock()
_n_active = 0
_default_of_user = torch.float32


@contextmanager
def single_precision() -> Iterator[None]:
    """Create modules and tensors in single precision, as a context or as a decorator.

    The default dtype of torch is set to float32 while at least one thread is in such a context, and
    restored afterwards. Networks are built, trained and simulations made in this context;
    predictions specify the dtype of every tensor instead.
    """
    global _n_active, _default_of_user
    with _lock:
        if _n_active == 0:
            _default_of_user = torch.get_default_dtype()
            if _default_of_user != torch.float32:
                torch.set_default_dtype(torch.float32)
        _n_active += 1
    try:
        yield
    finally:
        with _lock:
            _n_active -= 1
            if _n_active == 0 and _default_of_user != torch.float32:
                torch.set_default_dtype(_default_of_user)
