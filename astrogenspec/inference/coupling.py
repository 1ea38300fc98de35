r"""Affine coupling flows (RealNVP) conditioned on a context vector.

A layer keeps some of the numbers and transforms the others by an affine function of the kept ones
and of the condition,

.. math:: x_b' = x_b\, e^{s(x_a, c)} + t(x_a, c) ,

so that its inverse and its Jacobian are as cheap as the layer itself (Dinh, Sohl-Dickstein & Bengio
2017, arXiv:1605.08803).  Layers alternate between the two halves of the numbers.  The flow maps
standard normal noise :math:`u` to the residual from a mean, which is a function of the condition:
:math:`y = m(c) + f(u, c)`.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nn.layers import make_mlp

__all__ = ["AffineCoupling", "CouplingFlow"]

#: Largest |s| of a layer.
_MAX_LOG_SCALE = 2.0


class AffineCoupling(nn.Module):
    """One coupling layer; it is the identity before training.

    Parameters
    ----------
    kept : Tensor of bool, shape (size,)
        Numbers that are kept.
    context_size, n_conditions : int
        Lengths of the context vector of a galaxy, and of conditions that differ from draw to draw.
    hidden : int
        Width of the two hidden layers.
    """

    def __init__(self, kept: Tensor, context_size: int, n_conditions: int, hidden: int) -> None:
        super().__init__()
        self.register_buffer("kept", kept, persistent=False)
        self.of_context = nn.Linear(context_size, hidden)
        self.of_values = nn.Linear(len(kept) + n_conditions, hidden, bias=False)
        self.hidden = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, 2 * len(kept))
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, context: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate the layer.

        Parameters
        ----------
        x : Tensor, shape (n, draws, size)
        context : Tensor, shape (n, context_size)
        conditions : Tensor, shape (n, draws, n_conditions)

        Returns
        -------
        log_scale, shift : Tensor, shape (n, draws, size)
            Zero for the kept numbers.
        """
        known = torch.cat([x * self.kept, conditions], -1)
        features = self.of_values(known) + self.of_context(context)[:, None]
        raw = self.out(F.silu(self.hidden(F.silu(features))))
        log_scale, shift = torch.where(self.kept.repeat(2), 0.0, raw).chunk(2, -1)
        return _MAX_LOG_SCALE * torch.tanh(log_scale / _MAX_LOG_SCALE), shift


class CouplingFlow(nn.Module):
    """Conditional density of a few numbers: a mean, and coupling layers for the residuals.

    Parameters
    ----------
    size : int
        Number of numbers, at least two.
    context_size, n_conditions : int
        See `AffineCoupling`.
    n_layers : int
        Number of coupling layers.
    hidden : int
        Width of the networks.
    """

    def __init__(
        self,
        size: int,
        context_size: int,
        n_conditions: int = 0,
        *,
        n_layers: int = 12,
        hidden: int = 64,
    ) -> None:
        super().__init__()
        self.size = size
        self.mean = make_mlp((context_size + n_conditions, hidden, hidden, size))
        even = torch.arange(size) % 2 == 0
        self.layers = nn.ModuleList(
            AffineCoupling(even if k % 2 else ~even, context_size, n_conditions, hidden)
            for k in range(n_layers)
        )

    def log_prob(self, y: Tensor, context: Tensor, conditions: Tensor) -> Tensor:
        """Evaluate the log density.

        Parameters
        ----------
        y : Tensor, shape (n, draws, size)
        context : Tensor, shape (n, context_size)
        conditions : Tensor, shape (n, draws, n_conditions)

        Returns
        -------
        log_prob : Tensor, shape (n, draws)
        """
        x = y - self._mean(context, conditions)
        log_jacobian = x.new_zeros(x.shape[:-1])
        for layer in reversed(self.layers):
            log_scale, shift = layer(x, context, conditions)
            x = (x - shift) * torch.exp(-log_scale)
            log_jacobian = log_jacobian - log_scale.sum(-1)
        normal = -0.5 * (x.square() + math.log(2 * math.pi)).sum(-1)
        return normal + log_jacobian

    def transform(self, noise: Tensor, context: Tensor, conditions: Tensor) -> Tensor:
        """Map standard normal noise, shape (n, draws, size), to draws of the same shape."""
        x = noise
        for layer in self.layers:
            log_scale, shift = layer(x, context, conditions)
            x = x * torch.exp(log_scale) + shift
        return x + self._mean(context, conditions)

    def _mean(self, context: Tensor, conditions: Tensor) -> Tensor:
        expanded = context[:, None].expand(-1, conditions.shape[1], -1)
        return self.mean(torch.cat([expanded, conditions], -1))
