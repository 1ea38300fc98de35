"""Averages that run along with a training: of weights, and of loss terms."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

__all__ = ["ExponentialAverage", "RunningMeans"]


class ExponentialAverage:
    """A running average of a model's weights, short at first and longer as training goes on.

    Parameters
    ----------
    model : `torch.nn.Module`
        Whose weights to average; its buffers are copied.
    decay : float
        Largest decay for each update.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.n_updates = 0
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the weights of `model`."""
        self.n_updates += 1
        decay = min(self.decay, self.n_updates / (9 + self.n_updates))
        averages = list(self.model.parameters())
        torch._foreach_lerp_(averages, list(model.parameters()), 1 - decay)
        for average, current in zip(self.model.buffers(), model.buffers(), strict=True):
            average.copy_(current)


class RunningMeans:
    """Means of named scalars, added one dictionary at a time.

    Parameters
    ----------
    sums, counts : dict, optional
        Where to go on from.
    """

    def __init__(
        self, sums: dict[str, float] | None = None, counts: dict[str, int] | None = None
    ) -> None:
        self.sums = sums or {}
        self.counts = counts or {}

    def add(self, terms: dict[str, Tensor]) -> None:
        """Add the values of some names."""
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value.detach())
            self.counts[name] = self.counts.get(name, 0) + 1

    def result(self) -> dict[str, float]:
        """Return the mean of every name."""
        return {name: total / self.counts[name] for name, total in self.sums.items()}
