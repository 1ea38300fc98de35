"""Transformer blocks modulated by a vector, with optional cross-attention to context tokens."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ModulatedTransformer", "fourier_features"]

_MODULATIONS = 6


def fourier_features(x: Tensor, size: int, *, lowest: float = 1.0, highest: float = 64.0) -> Tensor:
    """Expand numbers in sines and cosines of geometrically spaced frequencies.

    Parameters
    ----------
    x : Tensor, shape (...)
        Numbers to expand.
    size : int
        Number of features; even.
    lowest, highest : float
        Range of the frequencies [radians per unit of ``x``].

    Returns
    -------
    Tensor, shape (..., size)
    """
    half = size // 2
    exponent = torch.linspace(
        math.log(lowest), math.log(highest), half, device=x.device, dtype=torch.float32
    )
    phase = x[..., None] * torch.exp(exponent)
    return torch.cat([torch.sin(phase), torch.cos(phase)], dim=-1)


class _Block(nn.Module):
    """Self-attention, optional cross-attention, and a perceptron."""

    def __init__(self, width: int, heads: int, context: bool) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.first = nn.Linear(width, 4 * width)
        self.second = nn.Linear(4 * width, width)
        self.shift = nn.Parameter(torch.zeros(_MODULATIONS, width))
        if context:
            self.query_norm = nn.LayerNorm(width)
            self.query = nn.Linear(width, width)
            self.key_value = nn.Linear(width, 2 * width)
            self.cross_out = nn.Linear(width, width)
            nn.init.zeros_(self.cross_out.weight)
            nn.init.zeros_(self.cross_out.bias)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(-2, -3)

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        attended = F.scaled_dot_product_attention(*map(self._split, (query, key, value)))
        return attended.transpose(-2, -3).flatten(-2)

    def keys(self, context: Tensor) -> tuple[Tensor, Tensor]:
        key, value = self.key_value(context).chunk(2, dim=-1)
        return key, value

    def forward(self, x: Tensor, modulation: Tensor, keys: tuple[Tensor, Tensor] | None) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = (modulation + self.shift).unbind(-2)
        h = self.norm(x) * (1 + scale1[:, None]) + shift1[:, None]
        x = x + gate1[:, None] * self.out(self.attend(*self.qkv(h).chunk(3, dim=-1)))
        if keys is not None:
            x = x + self.cross_out(self.attend(self.query(self.query_norm(x)), *keys))
        h = self.norm(x) * (1 + scale2[:, None]) + shift2[:, None]
        return x + gate2[:, None] * self.second(F.gelu(self.first(h), approximate="tanh"))


class ModulatedTransformer(nn.Module):
    """Transformer with layer norms modulated by a vector, for example an embedded noise level.

    Shift, scale and gate of each residual branch are linear functions of the vector (Peebles & Xie
    2023, "DiT"), shared between blocks apart from an offset (Chen et al. 2023, "PixArt-alpha").
    Blocks are initialised as the identity.

    Parameters
    ----------
    width : int
        Number of features of a token; a multiple of ``heads``.
    depth : int
        Number of blocks.
    heads : int
        Number of attention heads.
    context : bool
        If True, blocks attend to context tokens.
    """

    def __init__(self, width: int, depth: int, heads: int, *, context: bool = False) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_Block(width, heads, context) for _ in range(depth))
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, _MODULATIONS * width))
        self.norm = nn.LayerNorm(width)
        nn.init.zeros_(self.modulation[1].weight)
        nn.init.zeros_(self.modulation[1].bias)

    def keys(self, context: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Compute keys and values of context tokens (n, m, width) for calls of `forward`."""
        return [block.keys(context) for block in self.blocks]

    def forward(
        self, tokens: Tensor, vector: Tensor, keys: list[tuple[Tensor, Tensor]] | None = None
    ) -> Tensor:
        """Transform tokens (n, k, width), modulated by vectors (n, width); the shape is kept."""
        modulation = self.modulation(vector).unflatten(-1, (_MODULATIONS, -1))
        for k, block in enumerate(self.blocks):
            tokens = block(tokens, modulation, None if keys is None else keys[k])
        return self.norm(tokens)
