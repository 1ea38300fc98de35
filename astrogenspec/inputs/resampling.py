r"""Flux-conserving resampling of images between square or rectangular pixel grids that are parallel.

Every pixel is a little square of constant surface brightness.  An output pixel receives from each input pixel the share
of its flux that lies inside the output pixel, so that the total flux is the same to rounding.  For parallel grids the
share is a product of two one-dimensional overlaps, and resampling a stack of images is two matrix products,
:math:`F' = W_y F W_x^\mathsf{T}`.

The variance is shared out like the flux, :math:`V' = W_y V W_x^\mathsf{T}`.  When pixels become smaller their noise is
correlated and a single pixel is quieter than this; but the error of an aperture of many pixels, which is summed in
quadrature by anyone who does not know the correlations, comes out right.
"""

from __future__ import annotations

import numpy as np

from ..surveys import STAMP_SIZE

__all__ = ["MINIMUM_COVERAGE", "crop_or_pad", "overlap_weights", "resample"]

#: An output pixel is used if at least this fraction of its area is covered by good input pixels.
MINIMUM_COVERAGE = 0.5


def overlap_weights(n_in: int, n_out: int, *, step: float, start: float) -> np.ndarray:
    """Find which fraction of each input pixel falls into each output pixel, along one axis.

    Parameters
    ----------
    n_in, n_out : int
        Numbers of pixels.
    step : float
        Width of an output pixel in input pixels.
    start : float
        Lower edge of the first output pixel, where input pixel ``i`` extends from ``i`` to ``i + 1``.

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
    size: int = STAMP_SIZE,
) -> tuple[np.ndarray, np.ndarray]:
    """Bring images to another pixel scale, conserving flux.

    Parameters
    ----------
    flux : ndarray, shape (..., ny, nx)
        Flux per pixel.
    ivar : ndarray, shape (..., ny, nx)
        Inverse variance; 0 marks a pixel that is not to be used.
    step : tuple of float
        Width of an output pixel in input pixels, along y and x.
    centre : tuple of float
        Position (y, x) in the input, counted from 0 at the centre of the first pixel, which becomes the
        centre of the output.
    size : int
        Pixels on a side of the output.

    Returns
    -------
    flux, ivar : ndarray, shape (..., size, size)
        An output pixel with less than `MINIMUM_COVERAGE` of its area on good input pixels has both zero; one that
        is covered in part is scaled to its full area.
    """
    good = ivar > 0
    weights = [
        overlap_weights(n, size, step=width, start=middle + 0.5 - width * size / 2)
        for n, width, middle in zip(flux.shape[-2:], step, centre, strict=True)
    ]
    along_y, along_x = (weight.astype(np.result_type(flux, np.float32)) for weight in weights)

    def share(values: np.ndarray) -> np.ndarray:
        return along_y @ values @ along_x.T

    area = share(good.astype(along_y.dtype)) / (step[0] * step[1])
    usable = area >= MINIMUM_COVERAGE
    # Rounding alone must not change the flux of a pixel that is fully covered.
    scale = np.where(usable & (area < 1 - 1e-5), 1 / np.where(usable, area, 1), 1.0)
    variance = np.divide(1.0, ivar, out=np.zeros_like(ivar, dtype=along_y.dtype), where=good)
    new_flux = np.where(usable, share(np.where(good, flux, 0)) * scale, 0)
    new_variance = share(variance) * scale**2
    usable &= new_variance > 0
    new_ivar = np.divide(1.0, new_variance, out=np.zeros_like(new_variance), where=usable)
    return new_flux.astype(flux.dtype), new_ivar.astype(flux.dtype)


def crop_or_pad(
    flux: np.ndarray,
    ivar: np.ndarray,
    *,
    offset: tuple[int, int],
    size: int = STAMP_SIZE,
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a stamp out of images without touching the pixels.

    Parameters
    ----------
    flux, ivar : ndarray, shape (..., ny, nx)
        Flux per pixel and inverse variance.
    offset : tuple of int
        Input pixel (y, x) that becomes pixel (0, 0); may lie outside of the input.
    size : int
        Pixels on a side of the output.

    Returns
    -------
    flux, ivar : ndarray, shape (..., size, size)
        Zero where the input does not reach. The input itself, not a copy, if nothing has to be done.
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
