"""One-dimensional U-Net with cross-attention to context tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import fourier_features
from .layers import make_mlp

__all__ = ["UNet1d"]

_GROUPS, _HEAD_WIDTH, _TIME_FEATURES = 8, 32, 64


class _Residual(nn.Module):
    """Two convolutions with a residual connection; the time shifts the features between them."""

    def __init__(self, n_in: int, n_out: int, time: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.GroupNorm(_GROUPS, n_in), nn.SiLU(), nn.Conv1d(n_in, n_out, 3, padding=1)
        )
        self.time = nn.Linear(time, n_out)
        self.second = nn.Sequential(
            nn.GroupNorm(_GROUPS, n_out), nn.SiLU(), nn.Conv1d(n_out, n_out, 3, padding=1)
        )
        self.skip = nn.Conv1d(n_in, n_out, 1) if n_in != n_out else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        hidden = self.first(x) + self.time(time)[:, :, None]
        return self.skip(x) + self.second(hidden)


class _CrossAttention(nn.Module):
    """Attention of the positions of a sequence to context tokens, with a residual connection."""

    def __init__(self, channels: int, context: int) -> None:
        super().__init__()
        self.heads = max(channels // _HEAD_WIDTH, 1)
        self.norm = nn.GroupNorm(_GROUPS, channels)
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(context, 2 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        query = self.query(self.norm(x).transpose(1, 2))
        parts = (query, *self.key_value(tokens).chunk(2, -1))
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return x + self.out(seen).transpose(1, 2)


class _Level(nn.Module):
    """Residual block and cross-attention."""

    def __init__(self, n_in: int, n_out: int, time: int, context: int) -> None:
        super().__init__()
        self.residual = _Residual(n_in, n_out, time)
        self.attention = _CrossAttention(n_out, context)

    def forward(self, x: Tensor, time: Tensor, tokens: Tensor) -> Tensor:
        return self.attention(self.residual(x, time), tokens)


class UNet1d(nn.Module):
    """Map a sequence, a time and context tokens to a sequence of the same length.

    The length is halved between levels on the way down and doubled on the way up, where each level
    also sees the features of the way down.

    Parameters
    ----------
    n_in : int
        Number of channels of the input; the output has one.
    widths : sequence of int
        Channels of the levels; multiples of 8.
    context : int
        Width of the context tokens.
    """

    def __init__(self, n_in: int, widths: Sequence[int], context: int) -> None:
        super().__init__()
        time = 4 * widths[0]
        self.multiple = 2 ** (len(widths) - 1)
        self.time = make_mlp((_TIME_FEATURES, time, time))
        self.enter = nn.Conv1d(n_in, widths[0], 3, padding=1)
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        for k, width in enumerate(widths):
            self.down.append(_Level(widths[max(k - 1, 0)], width, time, context))
            if k + 1 < len(widths):
                self.shrink.append(nn.Conv1d(width, width, 4, stride=2, padding=1))
        self.middle = _Level(widths[-1], widths[-1], time, context)
        for k in reversed(range(len(widths))):
            self.up.append(_Level(2 * widths[k], widths[max(k - 1, 0)], time, context))
            if k:
                below = widths[k - 1]
                self.grow.append(nn.ConvTranspose1d(below, below, 4, stride=2, padding=1))
        self.leave = nn.Sequential(
            nn.GroupNorm(_GROUPS, widths[0]), nn.SiLU(), nn.Conv1d(widths[0], 1, 3, padding=1)
        )

    def forward(self, x: Tensor, time: Tensor, tokens: Tensor) -> Tensor:
        """Evaluate the network.

        Parameters
        ----------
        x : Tensor, shape (n, n_in, length)
        time : Tensor, shape (n,)
            Between 0 and 1.
        tokens : Tensor, shape (n, k, context)

        Returns
        -------
        Tensor, shape (n, length)
        """
        length = x.shape[-1]
        x = F.pad(x, (0, -length % self.multiple), mode="replicate")
        vector = self.time(fourier_features(time, _TIME_FEATURES, highest=1000.0))
        x = self.enter(x)
        seen = []
        for k, level in enumerate(self.down):
            x = level(x, vector, tokens)
            seen.append(x)
            if k < len(self.shrink):
                x = self.shrink[k](x)
        x = self.middle(x, vector, tokens)
        for k, level in enumerate(self.up):
            x = level(torch.cat([x, seen.pop()], 1), vector, tokens)
            if k < len(self.grow):
                x = self.grow[k](x)
        return self.leave(x)[:, 0, :length]
