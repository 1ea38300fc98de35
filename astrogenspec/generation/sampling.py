"""Samplers of diffusion models: the second-order method of Heun, DDIM, and classifier-free guidance.

Both integrate the probability-flow equation dx/dsigma = (x - D(x; sigma)) / sigma from noise to data, so a sample is a
deterministic function of the noise it began with.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .diffusion import Denoiser

__all__ = ["SAMPLERS", "ddim", "guided", "heun"]


def ddim(denoiser: Denoiser, noise: Tensor, levels: Tensor) -> Tensor:
    """Integrate with one evaluation a step (Song et al. 2021, arXiv:2010.02502; Euler's method here).

    Parameters
    ----------
    denoiser : callable
    noise : Tensor, shape (n, ...)
        Standard normal.
    levels : Tensor, shape (steps + 1,)
        Falling noise levels, the last of them zero; see `NoiseLevels.steps`.

    Returns
    -------
    Tensor, shape (n, ...)
    """
    x = noise * levels[0]
    for now, after in zip(levels[:-1], levels[1:], strict=True):
        denoised = denoiser(x, now.expand(len(x)))
        x = denoised + (x - denoised) * (after / now)
    return x


def heun(denoiser: Denoiser, noise: Tensor, levels: Tensor) -> Tensor:
    """Integrate with two evaluations a step (Karras et al. 2022, arXiv:2206.00364, algorithm 1).

    Parameters
    ----------
    denoiser, noise, levels
        As for `ddim`.

    Returns
    -------
    Tensor, shape (n, ...)
    """
    x = noise * levels[0]
    for now, after in zip(levels[:-1], levels[1:], strict=True):
        slope = (x - denoiser(x, now.expand(len(x)))) / now
        moved = x + (after - now) * slope
        if after > 0:
            slope_after = (moved - denoiser(moved, after.expand(len(x)))) / after
            moved = x + (after - now) * 0.5 * (slope + slope_after)
        x = moved
    return x


def guided(conditional: Denoiser, unconditional: Denoiser, strength: float) -> Denoiser:
    """Push samples towards their condition (Ho & Salimans 2022, arXiv:2207.12598).

    Parameters
    ----------
    conditional, unconditional : callable
        Denoisers with and without the condition.
    strength : float
        1 is the conditional model itself; more is sharper than the posterior, less is broader.

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
SAMPLERS = {"heun": heun, "ddim": ddim}
