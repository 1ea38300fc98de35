"""How fast weights move: the learning rate over a training, and which weights decay."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

__all__ = ["learning_rate_factor", "parameter_groups"]


def learning_rate_factor(progress: float, warmup: float, final_factor: float) -> float:
    """Evaluate the schedule: linear warm-up, then half a cosine.

    Parameters
    ----------
    progress : float
        Fraction of the training that is done, 0 to 1.
    warmup : float
        Fraction of the training in which the factor rises from 0 to 1.
    final_factor : float
        Factor at the end.

    Returns
    -------
    factor : float
    """
    if progress < warmup:
        return max(progress / warmup, 1e-3)
    phase = min((progress - warmup) / (1 - warmup), 1.0)
    return final_factor + (1 - final_factor) * 0.5 * (1 + math.cos(math.pi * phase))


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split parameters into matrices, which decay, and vectors (biases, norms), which do not.

    Parameters
    ----------
    model : `torch.nn.Module`
    weight_decay : float
        Decay of the matrices.

    Returns
    -------
    groups : list of dict
        For a `torch.optim` optimiser.
    """
    decaying: list[Tensor] = []
    others: list[Tensor] = []
    for parameter in model.parameters():
        (decaying if parameter.ndim > 1 else others).append(parameter)
    return [
        {"params": decaying, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
