"""Linear interpolation and inverse-transform sampling on tensors."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["interpolate", "inverse_cdf"]


def interpolate(x: Tensor, nodes: Tensor, values: Tensor) -> Tensor:
    """Interpolate linearly, constant outside the nodes.

    Parameters
    ----------
    x : Tensor, any shape
        Positions.
    nodes : Tensor, shape (m,)
        Strictly increasing.
    values : Tensor, shape (m,)
        Values at the nodes.

    Returns
    -------
    Tensor, shape of ``x``
    """
    k = torch.searchsorted(nodes, x.contiguous()).clamp(1, len(nodes) - 1)
    left, right = nodes[k - 1], nodes[k]
    weight = ((x - left) / (right - left)).clamp(0, 1)
    return values[k - 1] * (1 - weight) + values[k] * weight


def inverse_cdf(uniform: Tensor, nodes: Tensor, density: Tensor) -> Tensor:
    """Draw from a tabulated density by the inverse of its cumulative distribution.

    Parameters
    ----------
    uniform : Tensor, any shape
        Uniform deviates in (0, 1).
    nodes : Tensor, shape (m,)
        Equally spaced positions.
    density : Tensor, shape (m,)
        Density at the nodes, non-negative; it need not be normalised.
    """
    cumulative = torch.cumsum(density, 0)
    cumulative = cumulative / cumulative[-1] + 1e-7 * torch.arange(len(nodes)).to(nodes)
    return interpolate(uniform, cumulative, nodes)
