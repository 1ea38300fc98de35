r"""Diffusion models with preconditioning and loss of EDM (Karras et al. 2022, arXiv:2206.00364).

A denoiser :math:`D(x; \sigma)` estimates clean data :math:`y` from :math:`x = y + \sigma\,n`, where
:math:`n` is standard normal noise. Data have zero mean and unit variance. The network :math:`F` has
inputs and outputs of unit variance,

.. math:: D(x; \sigma) = \frac{x}{1 + \sigma^2} + \frac{\sigma}{\sqrt{1 + \sigma^2}}\,
          F\!\left(\frac{x}{\sqrt{1 + \sigma^2}}, \frac{\ln \sigma}{4}\right) ,

and is trained with the loss :math:`(1 + \sigma^2)\,\sigma^{-2}\,|D - y|^2` at log-normally
distributed :math:`\sigma`.

Samples are solutions of the probability-flow differential equation from noise to data. The variable
of integration is the angle :math:`\theta = \arctan \sigma`: the state :math:`y \cos\theta + n
\sin\theta` has unit variance at all noise levels, and its path is nearly straight, so that few
steps suffice.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = [
    "SAMPLERS",
    "Denoiser",
    "NoiseLevels",
    "adams",
    "ddim",
    "denoising_loss",
    "guided",
    "heun",
    "precondition",
]

#: ``denoiser(x, sigma)`` returns clean data from noisy data; x has shape (n, ...), sigma (n,).
Denoiser = Callable[[Tensor, Tensor], Tensor]
#: ``network(x, log_sigma)``, the network :math:`F` of a `Denoiser`.
RawNetwork = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class NoiseLevels:
    """Noise levels of training (log-normal) and of sampling.

    Attributes
    ----------
    mean, width : float
        Mean and standard deviation of ln sigma in training.
    lowest, highest : float
        Sigma of the last and of the first sampling step.
    exponent : float
        Sampling steps are uniform in ``arctan(sigma) ** (1 / exponent)``.
    """

    mean: float = -0.6
    width: float = 1.4
    lowest: float = 0.0075
    highest: float = 80.0
    exponent: float = 3.0

    def draw(self, n: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
        """Draw noise levels for training, shape (n,)."""
        source = generator.device if generator is not None else device
        normal = torch.randn(n, generator=generator, device=source, dtype=torch.float32).to(device)
        return torch.exp(self.mean + self.width * normal)

    def steps(self, n: int, device: torch.device) -> Tensor:
        """Return the n descending angles arctan(sigma) of sampling, followed by zero."""
        ramp = torch.linspace(0, 1, n, device=device, dtype=torch.float32)
        high, low = (math.atan(s) ** (1 / self.exponent) for s in (self.highest, self.lowest))
        angles = (high + ramp * (low - high)) ** self.exponent
        return torch.cat([angles, angles.new_zeros(1)])


def _column(sigma: Tensor, like: Tensor) -> Tensor:
    return sigma.reshape(-1, *(1,) * (like.ndim - 1))


def precondition(network: RawNetwork, x: Tensor, sigma: Tensor) -> Tensor:
    """Evaluate the denoiser of a network (EDM, Table 1).

    Parameters
    ----------
    network : callable
        ``network(scaled_x, log_sigma)``.
    x : Tensor, shape (n, ...)
        Noisy data.
    sigma : Tensor, shape (n,)
        Noise levels.

    Returns
    -------
    Tensor, shape (n, ...)
    """
    s = _column(sigma, x)
    total = (s.square() + 1).sqrt()
    return x / total.square() + s / total * network(x / total, sigma.log() / 4)


def denoising_loss(
    network: RawNetwork,
    data: Tensor,
    levels: NoiseLevels,
    generator: torch.Generator | None = None,
    known: Tensor | None = None,
) -> Tensor:
    """Return the weighted mean squared error of the denoiser at random noise levels, shape (n,).

    Parameters
    ----------
    network : callable
        As for `precondition`.
    data : Tensor, shape (n, ...)
        Data of zero mean and unit variance.
    levels : NoiseLevels
        Distribution of the noise levels.
    generator : `torch.Generator`, optional
        Random number generator.
    known : Tensor of bool, shape (n, ...), optional
        Elements that count; all by default.
    """
    sigma = levels.draw(len(data), generator, data.device)
    source = generator.device if generator is not None else data.device
    noise = torch.randn(data.shape, generator=generator, device=source, dtype=torch.float32).to(
        data
    )
    s = _column(sigma, data)
    denoised = precondition(network, data + s * noise, sigma)
    weight = (s.square() + 1) / s.square()
    error = (weight * (denoised - data).square()).flatten(1)
    if known is None:
        return error.mean(1)
    counted = known.flatten(1).to(error)
    return (error * counted).sum(1) / counted.sum(1).clamp_min(1.0)


def _clean_and_noise(denoiser: Denoiser, state: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Estimate data and noise of a state, which is data * cos(angle) + noise * sin(angle)."""
    cosine, sine = torch.cos(angle), torch.sin(angle)
    clean = denoiser(state / cosine, torch.tan(angle).expand(len(state)))
    return clean, (state - cosine * clean) / sine


def ddim(denoiser: Denoiser, noise: Tensor, angles: Tensor) -> Tensor:
    """Sample with one evaluation per step (DDIM, Song et al. 2021, arXiv:2010.02502).

    Parameters
    ----------
    denoiser : callable
        The denoiser.
    noise : Tensor, shape (n, ...)
        Standard normal noise.
    angles : Tensor, shape (steps + 1,)
        Descending angles that end with zero; see `NoiseLevels.steps`.

    Returns
    -------
    Tensor, shape (n, ...)
    """
    state = noise
    for now, after in zip(angles[:-1], angles[1:], strict=True):
        clean, noise = _clean_and_noise(denoiser, state, now)
        state = torch.cos(after) * clean + torch.sin(after) * noise
    return state


def _slope(denoiser: Denoiser, state: Tensor, angle: Tensor) -> Tensor:
    clean, noise = _clean_and_noise(denoiser, state, angle)
    return torch.cos(angle) * noise - torch.sin(angle) * clean


def adams(denoiser: Denoiser, noise: Tensor, angles: Tensor) -> Tensor:
    """Sample with the two-step method of Adams and Bashforth, one evaluation per step.

    The slope of the step before, which is known, takes the place of the second evaluation of
    `heun`; the formula for variable steps is III.5 of Hairer, Norsett & Wanner (1993).

    Parameters
    ----------
    denoiser, noise, angles
        As for `ddim`.

    Returns
    -------
    Tensor, shape (n, ...)
    """
    state = noise
    before: tuple[Tensor, Tensor] | None = None
    for now, after in zip(angles[:-2], angles[1:-1], strict=True):
        slope, step = _slope(denoiser, state, now), after - now
        change = slope
        if before is not None:
            last, last_step = before
            change = slope + step / (2 * last_step) * (slope - last)
        state = state + step * change
        before = slope, step
    return ddim(denoiser, state, angles[-2:])


def heun(denoiser: Denoiser, noise: Tensor, angles: Tensor) -> Tensor:
    """Sample with Heun's method: algorithm 1 of EDM with the angle as variable.

    Parameters
    ----------
    denoiser, noise, angles
        As for `ddim`.

    Returns
    -------
    Tensor, shape (n, ...)
    """
    state = noise
    for now, after in zip(angles[:-2], angles[1:-1], strict=True):
        first = _slope(denoiser, state, now)
        second = _slope(denoiser, state + (after - now) * first, after)
        state = state + (after - now) * 0.5 * (first + second)
    return ddim(denoiser, state, angles[-2:])


def guided(conditional: Denoiser, unconditional: Denoiser, strength: float) -> Denoiser:
    """Apply classifier-free guidance (Ho & Salimans 2022, arXiv:2207.12598).

    Parameters
    ----------
    conditional, unconditional : callable
        Denoisers with and without the condition.
    strength : float
        1 is the conditional model; larger values give narrower distributions than the posterior,
        smaller ones broader.

    Returns
    -------
    callable
    """
    if strength == 1.0:
        return conditional

    def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        free = unconditional(x, sigma)
        return torch.lerp(free, conditional(x, sigma), strength)

    return denoiser


#: Samplers by name.
SAMPLERS = {"adams": adams, "heun": heun, "ddim": ddim}
