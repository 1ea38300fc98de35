r"""Resampling of images to the pixels of the networks.

Every pixel is a square of constant surface brightness.  An output pixel receives from each input
pixel the fraction of its flux that lies inside the output pixel, so that the total flux is
conserved to rounding.  For parallel grids this fraction is a product of two one-dimensional
overlaps, and resampling a stack of images is two matrix products, :math:`F' = W_y F
W_x^\mathsf{T}`.  The variance is distributed in the same way, :math:`V' = W_y V W_x^\mathsf{T}`.
If pixels become smaller, their noise is correlated and a single pixel is less noisy than this
variance; the error of an aperture of many pixels, summed in quadrature without the correlations, is
correct.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from ..surveys import CUTOUT_SIZE, SDSS

__all__ = [
    "MIN_COVERAGE",
    "Placement",
    "crop_or_pad",
    "overlap_weights",
    "resample",
    "resampling_step",
    "to_grid",
]

#: An output pixel is used if at least this fraction of its area is covered by good input pixels.
MIN_COVERAGE = 0.5
#: Pixel scales that differ from that of the networks by less than this fraction are not resampled.
SCALE_TOLERANCE = 0.005
#: Step of the resampling (y, x), None for whole pixels, and pixel (y, x) that becomes the centre of
#: the cutout.
Placement: TypeAlias = tuple[tuple[float, float] | None, tuple[float, float]]


def overlap_weights(n_in: int, n_out: int, *, step: float, start: float) -> np.ndarray:
    """Return the fraction of each input pixel that lies in each output pixel, along one axis.

    Parameters
    ----------
    n_in, n_out : int
        Numbers of pixels.
    step : float
        Width of an output pixel in input pixels.
    start : float
        Lower edge of the first output pixel, where input pixel ``i`` extends from ``i`` to ``i +
        1``.

    Returns
    -------
    ndarray, shape (n_out, n_in)
        Fractions between 0 and 1.

    Raises
    ------
    ValueError
        If ``step`` is not positive.

    Examples
    --------
    >>> from astrogenspec.inputs.resampling import overlap_weights
    >>> overlap_weights(4, 2, step=2.0, start=0.0)
    array([[1., 1., 0., 0.],
           [0., 0., 1., 1.]])
    """
    if not step > 0:
        raise ValueError(f"step is {step}, but the width of an output pixel must be positive.")
    lower = start + step * np.arange(n_out)[:, None]
    pixel = np.arange(n_in)[None, :]
    return np.clip(np.minimum(lower + step, pixel + 1) - np.maximum(lower, pixel), 0.0, 1.0)


def resample(
    flux: np.ndarray,
    ivar: np.ndarray,
    *,
    step: tuple[float, float],
    centre: tuple[float, float],
    size: int = CUTOUT_SIZE,
) -> tuple[np.ndarray, np.ndarray]:
    """Resample images to another pixel scale, conserving flux.

    Parameters
    ----------
    flux : ndarray, shape (..., ny, nx)
        Flux per pixel.
    ivar : ndarray, shape (..., ny, nx)
        Inverse variance; 0 for bad pixels.
    step : tuple of float
        Width of an output pixel in input pixels, along y and x.
    centre : tuple of float
        Position (y, x) in the input, 0 at the centre of the first pixel, that becomes the centre of
        the output.
    size : int
        Pixels on a side of the output.

    Returns
    -------
    flux, ivar : ndarray, shape (..., size, size)
        Both are zero where less than `MIN_COVERAGE` of the output pixel is covered by good input
        pixels; pixels that are partly covered are scaled to their full area.
    """
    good = ivar > 0
    weights = [
        overlap_weights(n, size, step=width, start=middle + 0.5 - width * size / 2)
        for n, width, middle in zip(flux.shape[-2:], step, centre, strict=True)
    ]
    along_y, along_x = (weight.astype(np.result_type(flux, np.float32)) for weight in weights)

    def distribute(values: np.ndarray) -> np.ndarray:
        return along_y @ values @ along_x.T

    area = distribute(good.astype(along_y.dtype)) / (step[0] * step[1])
    usable = area >= MIN_COVERAGE
    # Do not rescale fully covered pixels by rounding errors.
    scale = np.where(usable & (area < 1 - 1e-5), 1 / np.where(usable, area, 1), 1.0)
    variance = np.divide(1.0, ivar, out=np.zeros_like(ivar, dtype=along_y.dtype), where=good)
    new_flux = np.where(usable, distribute(np.where(good, flux, 0)) * scale, 0)
    new_variance = distribute(variance) * scale**2
    usable &= new_variance > 0
    new_ivar = np.divide(1.0, new_variance, out=np.zeros_like(new_variance), where=usable)
    return new_flux.astype(flux.dtype), new_ivar.astype(flux.dtype)


def crop_or_pad(
    flux: np.ndarray,
    ivar: np.ndarray,
    *,
    offset: tuple[int, int],
    size: int = CUTOUT_SIZE,
) -> tuple[np.ndarray, np.ndarray]:
    """Crop or pad images by whole pixels.

    Parameters
    ----------
    flux, ivar : ndarray, shape (..., ny, nx)
        Flux per pixel and inverse variance.
    offset : tuple of int
        Input pixel (y, x) that becomes pixel (0, 0); it may lie outside the input.
    size : int
        Pixels on a side of the output.

    Returns
    -------
    flux, ivar : ndarray, shape (..., size, size)
        Zero outside the input. The input itself, not a copy, if nothing changes.
    """
    if tuple(offset) == (0, 0) and flux.shape[-2:] == (size, size):
        return flux, ivar
    new_flux = np.zeros((*flux.shape[:-2], size, size), flux.dtype)
    new_ivar = np.zeros_like(new_flux)
    source, target = [], []
    for first, n in zip(offset, flux.shape[-2:], strict=True):
        low, high = max(first, 0), min(first + size, n)
        if high <= low:
            return new_flux, new_ivar
        source.append(slice(low, high))
        target.append(slice(low - first, high - first))
    new_flux[..., target[0], target[1]] = flux[..., source[0], source[1]]
    new_ivar[..., target[0], target[1]] = ivar[..., source[0], source[1]]
    return new_flux, new_ivar


def to_grid(
    flux: np.ndarray, ivar: np.ndarray, placement: Placement, size: int = CUTOUT_SIZE
) -> tuple[np.ndarray, np.ndarray]:
    """Crop, pad or resample images to the grid of the networks.

    Parameters
    ----------
    flux, ivar : ndarray, shape (..., ny, nx)
        Flux per pixel and inverse variance.
    placement : tuple
        Step of the resampling along y and x, or None to crop by whole pixels, and the pixel (y, x)
        that becomes the centre.
    size : int
        Pixels on a side of the grid.

    Returns
    -------
    flux, ivar : ndarray, shape (..., size, size)
    """
    step, (y, x) = placement
    if step is not None:
        return resample(flux, ivar, step=step, centre=(y, x), size=size)
    half = (size - 1) / 2
    return crop_or_pad(flux, ivar, offset=(round(y - half), round(x - half)), size=size)


def resampling_step(scale: tuple[float, float]) -> tuple[float, float] | None:
    """Return the width of a network pixel in pixels of an image.

    Parameters
    ----------
    scale : tuple of float
        Pixel scale of the image along y and x, arcsec.

    Returns
    -------
    tuple of float, or None
        Width along y and x; None if the pixel scales agree within `SCALE_TOLERANCE`.
    """
    along_y, along_x = (SDSS.pixel_scale.value / side for side in scale)
    if abs(along_y - 1) < SCALE_TOLERANCE and abs(along_x - 1) < SCALE_TOLERANCE:
        return None
    return along_y, along_x
