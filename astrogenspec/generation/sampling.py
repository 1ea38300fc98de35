"""Samplers of diffusion models: the second-order method of Heun, DDIM, and classifier-free guidance.

Both integrate the probability-flow equation from noise to data, so a sample is a deterministic function of the noise it
began with.  The variable is the angle t with tan t = sigma, and the state is kept at unit variance, x cos t: for data of unit
variance, as ours are, the path is then nearly straight.  In the usual variable sigma the method of Heun makes normally
distributed samples 10% too broad with 12 steps; in the angle, 0.5% with 8 steps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .diffusion import Denoiser

__all__ = ["SAMPLERS", "ddim", "guided", "heun"]


def _clean_and_noise(denoiser: Denoiser, state: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Estimate data and noise of a state, data times cos t plus noise times sin t."""
    cosine, sine = torch.cos(angle), torch.sin(angle)
    clean = denoiser(state / cosine, torch.tan(angle).expand(len(state)))
    return clean, (state - cosine * clean) / sine


def ddim(denoiser: Denoiser, noise: Tensor, angles: Tensor) -> Tensor:
    """Integrate with one evaluation a step (Song et al. 2021, arXiv:2010.02502).

    Parameters
    ----------
    denoiser : callable
    noise : Tensor, shape (n, ...)
        Standard normal.
    angles : Tensor, shape (steps + 1,)
        Falling, the last of them zero; see `NoiseLevels.steps`.

    Returns
    -------
    Tensor, shape (n, ...)
    """
    state = noise
    for now, after in zip(angles[:-1], angles[1:], strict=True):
        clean, noise = _clean_and_noise(denoiser, state, now)
        state = torch.cos(after) * clean + torch.sin(after) * noise
    return state


def heun(denoiser: Denoiser, noise: Tensor, angles: Tensor) -> Tensor:
    """Integrate with two evaluations a step (as Karras et al. 2022, arXiv:2206.00364, algorithm 1, in another variable).

    Parameters
    ----------
    denoiser, noise, angles
        As for `ddim`.

    Returns
    -------
    Tensor, shape (n, ...)
    """

    def slope(state: Tensor, angle: Tensor) -> Tensor:
        clean, noise = _clean_and_noise(denoiser, state, angle)
        return torch.cos(angle) * noise - torch.sin(angle) * clean

    state = noise
    for now, after in zip(angles[:-2], angles[1:-1], strict=True):
        first = slope(state, now)
        second = slope(state + (after - now) * first, after)
        state = state + (after - now) * 0.5 * (first + second)
    return ddim(denoiser, state, angles[-2:])


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
