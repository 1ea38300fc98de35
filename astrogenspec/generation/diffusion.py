r"""Diffusion models: preconditioning and training loss of Karras et al. (2022, arXiv:2206.00364, "EDM").

A denoiser :math:`D(x; \sigma)` estimates clean data from data with noise of standard deviation :math:`\sigma`.  Data are
expected to have zero mean and unit variance.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Denoiser", "NoiseLevels", "denoising_loss", "precondition"]

#: ``denoiser(x, sigma)``: clean data from noisy ones; x of shape (n, ...), sigma of shape (n,).
Denoiser = Callable[[Tensor, Tensor], Tensor]
#: ``network(x, log_sigma)``: what a `Denoiser` is made of.
RawNetwork = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class NoiseLevels:
    """Noise levels of training (log-normal) and of sampling.

    Attributes
    ----------
    mean, width : float
        Of ln sigma in training.
    lowest, highest : float
        Sigma of the last and of the first step of sampling.
    exponent : float
        Steps are uniform in the angle arctan(sigma) to the power 1 / exponent.
    """

    mean: float = -0.6
    width: float = 1.4
    lowest: float = 0.0075
    highest: float = 80.0
    exponent: float = 3.0

    def draw(self, n: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
        """Draw levels for training, shape (n,)."""
        source = generator.device if generator is not None else device
        normal = torch.randn(n, generator=generator, device=source).to(device)
        return torch.exp(self.mean + self.width * normal)

    def steps(self, n: int, device: torch.device) -> Tensor:
        """Give the angles arctan(sigma) of ``n`` steps from the highest level down, and zero: shape (n + 1,)."""
        ramp = torch.linspace(0, 1, n, device=device)
        high, low = (math.atan(s) ** (1 / self.exponent) for s in (self.highest, self.lowest))
        angles = (high + ramp * (low - high)) ** self.exponent
        return torch.cat([angles, angles.new_zeros(1)])


def _column(sigma: Tensor, like: Tensor) -> Tensor:
    return sigma.reshape(-1, *(1,) * (like.ndim - 1))


def precondition(network: RawNetwork, x: Tensor, sigma: Tensor) -> Tensor:
    """Evaluate a denoiser through its network, whose input and output then have unit variance (EDM, Table 1).

    Parameters
    ----------
    network : callable
        ``network(scaled_x, log_sigma)``.
    x : Tensor, shape (n, ...)
    sigma : Tensor, shape (n,)

    Returns
    -------
    Tensor, shape (n, ...)
    """
    s = _column(sigma, x)
    total = (s.square() + 1).sqrt()
    return x / total.square() + s / total * network(x / total, sigma.log() / 4)


def denoising_loss(
    network: RawNetwork, data: Tensor, levels: NoiseLevels, generator: torch.Generator | None = None
) -> Tensor:
    """Mean squared error of the preconditioned network at random noise levels, shape (n,).

    Parameters
    ----------
    network : callable
        As for `precondition`.
    data : Tensor, shape (n, ...)
        Zero mean, unit variance.
    levels : NoiseLevels
    generator : `torch.Generator`, optional
    """
    sigma = levels.draw(len(data), generator, data.device)
    source = generator.device if generator is not None else data.device
    noise = torch.randn(data.shape, generator=generator, device=source).to(data)
    s = _column(sigma, data)
    denoised = precondition(network, data + s * noise, sigma)
    weight = (s.square() + 1) / s.square()
    return (weight * (denoised - data).square()).flatten(1).mean(1)
