"""Rebin spectra on logarithmic grids, conserving flux, to bins of several pixels and back.

Bins are equal in log wavelength; fluxes are per Angstrom, so the flux of a bin is the mean of its pixels weighted by
their width in wavelength.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["conserve", "to_bins", "to_pixels"]

_CORRECTIONS = 3


def _pixel_weights(per_bin: int, step: float, like: Tensor) -> Tensor:
    """Relative widths in wavelength of the pixels of a bin; their sum is 1."""
    width = torch.exp(torch.arange(per_bin, dtype=torch.float64) * step * math.log(10))
    return (width / width.sum()).to(like)


def to_bins(flux: Tensor, per_bin: int, step: float) -> Tensor:
    """Average pixels into bins.

    Parameters
    ----------
    flux : Tensor, shape (..., m)
        Flux per Angstrom; m a multiple of ``per_bin``.
    per_bin : int
        Pixels in a bin.
    step : float
        Width of a pixel (dex).

    Returns
    -------
    Tensor, shape (..., m / per_bin)
    """
    return (flux.unflatten(-1, (-1, per_bin)) * _pixel_weights(per_bin, step, flux)).sum(-1)


def conserve(flux: Tensor, bins: Tensor, per_bin: int, step: float) -> Tensor:
    """Scale the pixels of each bin so that they average to a given flux.

    Parameters
    ----------
    flux : Tensor, shape (..., m)
        Positive.
    bins : Tensor, shape (..., m / per_bin)
        Wanted flux of each bin.
    per_bin : int
    step : float

    Returns
    -------
    Tensor, shape (..., m)
    """
    ratio = bins / to_bins(flux, per_bin, step)
    return flux * ratio.repeat_interleave(per_bin, dim=-1)


def to_pixels(bins: Tensor, per_bin: int, step: float) -> Tensor:
    """Spread bins over pixels as a smooth curve whose bins are the given ones.

    The logarithm is interpolated linearly between the middles of bins, then corrected by the interpolated ratio of
    wanted to achieved bins a few times; what is left of the difference is removed bin by bin.

    Parameters
    ----------
    bins : Tensor, shape (..., k)
        Positive flux per Angstrom.
    per_bin : int
    step : float

    Returns
    -------
    Tensor, shape (..., k per_bin)
    """
    wanted = bins.log()
    curve = _interpolate(wanted, per_bin)
    for _ in range(_CORRECTIONS):
        achieved = to_bins(curve.exp(), per_bin, step).log()
        curve = curve + _interpolate(wanted - achieved, per_bin)
    return conserve(curve.exp(), bins, per_bin, step)


def _interpolate(values: Tensor, per_bin: int) -> Tensor:
    shape = values.shape
    flat = values.reshape(-1, 1, shape[-1])
    spread = F.interpolate(flat, scale_factor=per_bin, mode="linear", align_corners=False)
    return spread.reshape(*shape[:-1], -1)
