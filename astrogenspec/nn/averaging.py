"""Exponential moving average of a network's weights."""

from __future__ import annotations

import copy

import torch
from torch import nn

__all__ = ["ExponentialAverage"]


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
