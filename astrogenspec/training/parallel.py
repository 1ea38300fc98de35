r"""Training of one network by several processes, and on parts of a batch.

A step uses :math:`m` micro-batches, whose mean loss is minimised.  With one process they are
evaluated one after the other, which needs the memory of one (gradient accumulation); with
:math:`w` processes, each evaluates :math:`m / w` of them, and the gradients are averaged by
`torch.nn.parallel.DistributedDataParallel`.  The random numbers of a micro-batch depend on the step
and its index only: both ways give the same losses up to rounding.

Processes are started by ``torchrun``, which sets the variables ``RANK``, ``WORLD_SIZE`` and
``LOCAL_RANK`` of the environment.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ..nn.attention import ModulatedTransformer

__all__ = [
    "PRECISIONS",
    "Workers",
    "autocast",
    "compile_parts",
    "joined_workers",
    "micro_batch_seed",
    "without_synchronisation",
]

#: Precisions of the matrix products in a step.
PRECISIONS = ("float32", "bf16")
#: Number of parameters of the smallest part that is compiled.
_MIN_COMPILED = 50_000


class Workers:
    """The processes that train a network together, as seen from one of them.

    Parameters
    ----------
    rank : int
        Index of this process.
    size : int
        Number of processes.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @classmethod
    def current(cls) -> Workers:
        """Return the processes that have joined, or this one alone."""
        distributed = torch.distributed
        if not (distributed.is_available() and distributed.is_initialized()):
            return cls()
        return cls(distributed.get_rank(), distributed.get_world_size())

    @property
    def is_first(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def number_of_micro_batches(self, wanted: int) -> int:
        """Return the number of micro-batches of a step.

        Parameters
        ----------
        wanted : int
            Setting of the user; with 1, every process has one.

        Returns
        -------
        int

        Raises
        ------
        ValueError
            If the processes cannot share them equally.
        """
        number = self.size if wanted == 1 else wanted
        if number % self.size:
            raise ValueError(
                f"micro_batches is {wanted}, but {self.size} processes must have the same number "
                f"each; give a multiple of {self.size}."
            )
        return number

    def shared(self, value: Any) -> Any:
        """Return the ``value`` of the first process."""
        if self.size == 1:
            return value
        values = [value]
        torch.distributed.broadcast_object_list(values, src=0)
        return values[0]

    def mean_terms(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the means over all processes of named scalars; each may miss some names."""
        if self.size == 1:
            return terms
        own = {name: float(value) for name, value in terms.items()}
        every: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(every, own)
        names = dict.fromkeys(name for part in every for name in part)
        return {
            name: torch.tensor(_mean([part[name] for part in every if name in part]))
            for name in names
        }

    def engine(self, model: nn.Module, loss: Callable[..., dict[str, Tensor]]) -> nn.Module:
        """Return a module that evaluates the loss, with averaged gradients."""
        module = _Loss(model, loss)
        if self.size == 1:
            return module
        return nn.parallel.DistributedDataParallel(module, find_unused_parameters=True)


def compile_parts(model: nn.Module) -> list[nn.Module]:
    """Compile the convolutional, dense and attention parts of a model, in place.

    The rest, such as the selection of galaxies with images, depends on the data and is not
    compiled.

    Parameters
    ----------
    model : `torch.nn.Module`

    Returns
    -------
    list of `torch.nn.Module`
        The parts.
    """
    if isinstance(model, nn.Sequential | ModulatedTransformer):
        if sum(parameter.numel() for parameter in model.parameters()) < _MIN_COMPILED:
            return []
        model.compile(dynamic=True)
        return [model]
    return [part for child in model.children() for part in compile_parts(child)]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


class _Loss(nn.Module):
    """Loss of a model as a module; only the total is differentiable."""

    def __init__(self, model: nn.Module, loss: Callable[..., dict[str, Tensor]]) -> None:
        super().__init__()
        self.model = model
        self._loss = loss

    def forward(self, batch: Any, progress: float) -> dict[str, Tensor]:
        terms = self._loss(self.model, batch, progress)
        return {name: v if name == "total" else v.detach() for name, v in terms.items()}


@contextmanager
def joined_workers(device: str) -> Iterator[str]:
    """Join the processes that ``torchrun`` started, if it did.

    Parameters
    ----------
    device : str
        Device of the training.

    Yields
    ------
    str
        Device of this process.

    Raises
    ------
    RuntimeError
        If the processes cannot be joined.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or torch.distributed.is_initialized():
        yield device
        return
    cuda = device.startswith("cuda")
    if cuda:
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    torch.distributed.init_process_group("nccl" if cuda else "gloo")
    try:
        yield device
    finally:
        torch.distributed.destroy_process_group()


def without_synchronisation(engine: nn.Module, last: bool) -> Any:
    """Return a context in which gradients are summed locally, except for the last micro-batch.

    Parameters
    ----------
    engine : `torch.nn.Module`
        Return value of `Workers.engine`.
    last : bool
        Whether the micro-batch is the last one of this process in a step.

    Returns
    -------
    context manager
    """
    if last or not isinstance(engine, nn.parallel.DistributedDataParallel):
        return nullcontext()
    return engine.no_sync()


def autocast(precision: str, device: str) -> Any:
    """Return a context with the precision of matrix products.

    Parameters
    ----------
    precision : str
        One of `PRECISIONS`.
    device : str
        Device of the training.

    Returns
    -------
    context manager
    """
    if precision == "float32":
        return nullcontext()
    return torch.autocast(torch.device(device).type, torch.bfloat16)


def micro_batch_seed(step: int, index: int) -> int:
    """Return the seed of the random numbers of a micro-batch."""
    return (step * 0x9E3779B97F4A7C15 + index * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) % 2**63
