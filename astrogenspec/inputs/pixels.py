r"""Pixel values of images: units, uncertainties, masks, and the noise of the sky where no uncertainty is given.

Noise of the sky.  The second difference of an image along both axes (the kernel [1, -2, 1] times itself) removes
everything that varies slowly from pixel to pixel, so that its median absolute value measures the noise even where a
galaxy fills the image: :math:`\sigma = 1.4826\, \mathrm{median}|L \ast f| / 6` after Immerkaer [1]_, with a median in
place of the mean.  Shot noise of the galaxy, :math:`f \times` (nmgy per electron), is added for positive pixels, with
the nominal calibration and gain of the survey.  Noise that is correlated between pixels, as in coadded or interpolated
images, is underestimated: give an uncertainty there.

References
----------
.. [1] Immerkaer, J. 1996, Computer Vision and Image Understanding, 64, 300.
"""

from __future__ import annotations

import astropy.units as u
import numpy as np
from astropy.nddata import (
    IncompatibleUncertaintiesException,
    InverseVariance,
    NDUncertainty,
    StdDevUncertainty,
    UnknownUncertainty,
    VarianceUncertainty,
)

from ..surveys import SDSS
from .fluxes import flux_factor, read_unit

__all__ = ["calibrate", "estimate_inverse_variance", "why_unusable"]

_POWER = {StdDevUncertainty: 1, VarianceUncertainty: 2, InverseVariance: -2}
_CHUNK = 256


def calibrate(
    values: np.ndarray,
    unit: u.UnitBase | str | None,
    bands: tuple[str, ...],
    *,
    uncertainty: NDUncertainty | None = None,
    mask: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Bring images to nanomaggies and inverse variances, and take out the bad pixels.

    Parameters
    ----------
    values : ndarray, shape (..., n_bands, ny, nx)
        Flux per pixel.
    unit : Unit, str or None
        Unit of ``values``.
    bands : tuple of str
        Names of the bands.
    uncertainty : NDUncertainty, optional
        Of the shape of ``values``; estimated from the sky if absent.
    mask : ndarray of bool, optional
        True where a pixel is bad.

    Returns
    -------
    flux : ndarray of float32, shape (..., n_bands, ny, nx)
        nmgy per pixel; 0 where bad.
    ivar : ndarray of float32, same shape
        nmgy**-2; 0 where the pixel is masked, not finite, or without a positive and finite variance.

    Raises
    ------
    TypeError
        If the values are not real numbers, or the uncertainty is of a kind that has no variance.
    ValueError
        If shapes differ.
    astropy.units.UnitsError
        If the unit is no flux density.
    """
    values = np.asanyarray(values)
    if values.dtype.kind not in "fiu":
        raise TypeError(
            f"the cutout holds values of type {values.dtype}, but pixels must be real numbers."
        )
    unit = read_unit(unit)
    factor = np.array([[[flux_factor(unit, band)]] for band in bands], np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        flux = (values * factor.astype(np.float32)).astype(np.float32, copy=False)
        good = np.isfinite(flux)
        if mask is not None:
            good &= ~_broadcast(np.asarray(mask, bool), values.shape, "mask")
        if uncertainty is None:
            flux[~good] = 0
            ivar = estimate_inverse_variance(flux, good, bands)
        else:
            ivar = _inverse_variance(uncertainty, unit, factor, values.shape)
        good &= np.isfinite(ivar) & (ivar > 0)
    flux[~good] = 0
    ivar[~good] = 0
    return flux, ivar


def _broadcast(array: np.ndarray, shape: tuple[int, ...], what: str) -> np.ndarray:
    try:
        return np.broadcast_to(array, shape)
    except ValueError:
        raise ValueError(
            f"the {what} has shape {np.shape(array)} but the cutout has shape {shape}; "
            "give them the same shape."
        ) from None


def _inverse_variance(
    uncertainty: NDUncertainty, unit: u.UnitBase, factor: np.ndarray, shape: tuple[int, ...]
) -> np.ndarray:
    if isinstance(uncertainty, UnknownUncertainty):
        raise TypeError(
            "uncertainty does not say what it is (UnknownUncertainty); wrap its array in "
            "StdDevUncertainty, VarianceUncertainty or InverseVariance."
        )
    kind = next((kind for kind in _POWER if isinstance(uncertainty, kind)), None)
    if kind is None:
        try:
            uncertainty = uncertainty.represent_as(InverseVariance)
        except (TypeError, ValueError, IncompatibleUncertaintiesException):
            name = type(uncertainty).__name__
            raise TypeError(
                f"uncertainty is of the kind {name}, which cannot be converted to a variance; give "
                "StdDevUncertainty, VarianceUncertainty or InverseVariance."
            ) from None
        kind = InverseVariance
    power = _POWER[kind]
    # NDData has checked that the unit, if there is one, can be converted.
    own = uncertainty.unit
    ratio = 1.0 if own is None else own.to(unit**power)
    array = _broadcast(np.asarray(uncertainty.array), shape, "uncertainty")
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        # sigma, variance and inverse variance scale with the first, second and inverse second power.
        scaled = array * (ratio * factor**power)
        if power == 1:
            scaled = np.where(scaled > 0, scaled, np.nan) ** -2.0
        elif power == 2:
            scaled = 1 / np.where(scaled > 0, scaled, np.nan)
        return np.array(scaled, np.float32)


def estimate_inverse_variance(
    flux: np.ndarray, good: np.ndarray, bands: tuple[str, ...]
) -> np.ndarray:
    """Estimate the noise of images from their own pixels (see the notes of this module).

    Parameters
    ----------
    flux : ndarray, shape (..., n_bands, ny, nx)
        nmgy per pixel.
    good : ndarray of bool, same shape
        False where a pixel is bad.
    bands : tuple of str
        Names of the bands.

    Returns
    -------
    ndarray of float32, same shape
        Inverse variance, nmgy**-2; 0 for an image in which no noise can be seen.
    """
    shape = flux.shape
    images, usable = flux.reshape(-1, *shape[-2:]), good.reshape(-1, *shape[-2:])
    sigma = np.zeros(len(images), np.float32)
    for first in range(0, len(images), _CHUNK):
        part = slice(first, first + _CHUNK)
        sigma[part] = _sky_sigma(images[part], usable[part])
    electron = np.array(
        [[[SDSS.nmgy_per_dn[band] / SDSS.gain[band]]] for band in bands], np.float32
    )
    variance = np.maximum(flux, 0) * electron
    sigma = sigma.reshape(*shape[:-2], 1, 1)
    variance += sigma**2
    return np.divide(1, variance, out=np.zeros(shape, np.float32), where=(sigma > 0) & good)


def _sky_sigma(images: np.ndarray, good: np.ndarray) -> np.ndarray:
    if min(images.shape[-2:]) < 3:
        return np.zeros(len(images), np.float32)
    along_x = images[..., :-2] - 2 * images[..., 1:-1] + images[..., 2:]
    second = np.abs(along_x[:, :-2] - 2 * along_x[:, 1:-1] + along_x[:, 2:]).reshape(
        len(images), -1
    )
    sigma = np.median(second, axis=-1)
    # An image with bad pixels, or with blank margins, is measured on the others alone.
    for k in np.flatnonzero((sigma == 0) | ~good.all(axis=(1, 2))):
        rows = good[k, :, :-2] & good[k, :, 1:-1] & good[k, :, 2:]
        clean = (rows[:-2] & rows[1:-1] & rows[2:]).ravel()
        values = second[k, clean]
        values = values[values > 0]
        sigma[k] = np.median(values) if len(values) >= 16 else 0
    return sigma * (1.4826 / 6)


def why_unusable(values: np.ndarray, mask: np.ndarray | None, has_uncertainty: bool) -> str:
    """Say why an image has no usable pixel.

    Parameters
    ----------
    values : ndarray
        The pixels as given.
    mask : ndarray of bool or None
        True where a pixel is bad.
    has_uncertainty : bool
        True if an uncertainty was given.

    Returns
    -------
    str
    """
    finite = np.isfinite(values)
    if not finite.any():
        return "no pixel is finite"
    if mask is not None and np.all(mask | ~finite):
        return "every pixel is masked or not finite"
    if has_uncertainty:
        return "no good pixel has a positive, finite variance"
    return "its pixels show no noise from which to estimate an uncertainty; give one"
