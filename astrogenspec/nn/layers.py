"""Residual blocks and multilayer perceptrons."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ResidualConv2d", "ResidualLinear", "make_mlp", "n_parameters", "strided_trunk"]


class ResidualConv2d(nn.Module):
    r"""Add a bottleneck convolution to the input, :math:`x + c_2(\sigma(c_1(\sigma(n(x)))))`.

    Parameters
    ----------
    channels : int
        Number of channels of input and output; a multiple of `groups`.
    bottleneck : int
        Number of channels between the two 3 x 3 convolutions.
    groups : int, optional
        Number of groups of the normalisation.
    """

    def __init__(self, channels: int, bottleneck: int, *, groups: int = 8) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels)
        self.first = nn.Conv2d(channels, bottleneck, 3, padding=1)
        self.second = nn.Conv2d(bottleneck, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map features of shape (n, channels, ny, nx) to the same shape."""
        return x + self.second(F.silu(self.first(F.silu(self.norm(x)))))


class ResidualLinear(nn.Module):
    r"""Add a two-layer perceptron to its input, :math:`x + l_2(\sigma(l_1(\sigma(n(x)))))`.

    Parameters
    ----------
    width : int
        Number of features of input and output.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.first = nn.Linear(width, width)
        # Disabled by default; see `PropertyNetwork.set_dropout`.
        self.dropout = nn.Dropout(0.0)
        self.second = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map features of shape (..., width) to the same shape."""
        return x + self.second(self.dropout(F.silu(self.first(F.silu(self.norm(x))))))


def make_mlp(sizes: Sequence[int]) -> nn.Sequential:
    """Build a perceptron with SiLU activations between its linear layers.

    Parameters
    ----------
    sizes : sequence of int
        Number of features of the input, of each hidden layer, and of the output.

    Returns
    -------
    mlp : `torch.nn.Sequential`
    """
    layers: list[nn.Module] = []
    for n_in, n_out in zip(sizes[:-1], sizes[1:], strict=True):
        layers += [nn.Linear(n_in, n_out), nn.SiLU()]
    return nn.Sequential(*layers[:-1])


def n_parameters(module: nn.Module) -> int:
    """Return the number of trainable parameters of a module."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def strided_trunk(n_in: int, widths: Sequence[int], bottlenecks: Sequence[int]) -> nn.Sequential:
    """Build strided convolutions, each of which halves the size of an image.

    Parameters
    ----------
    n_in : int
        Number of channels of the image.
    widths : sequence of int
        Number of channels after each convolution.
    bottlenecks : sequence of int
        Bottleneck channels of the residual block after each convolution; 0 for no block.

    Returns
    -------
    trunk : `torch.nn.Sequential`
    """
    layers: list[nn.Module] = [nn.Conv2d(n_in, widths[0], 4, stride=2, padding=1), nn.SiLU()]
    for k, width in enumerate(widths):
        if k:
            layers.append(nn.Conv2d(widths[k - 1], width, 3, stride=2, padding=1))
        if bottlenecks[k]:
            layers.append(ResidualConv2d(width, bottlenecks[k]))
    return nn.Sequential(*layers, nn.SiLU())
