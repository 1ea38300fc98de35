r"""Calibration of images: nanomaggies, inverse variances and bad pixels.

If an image has no uncertainty, the noise of its sky is estimated from the image itself. The second
difference along both axes (the kernel [1, -2, 1] times itself) removes everything that varies
slowly from pixel to pixel, so that its median absolute value measures the noise even where a galaxy
fills the image: :math:`\sigma = 1.4826\, \mathrm{median}|L \ast f| / 6` after Immerkaer [1]_, with
a median in place of the mean.  Shot noise of the galaxy, :math:`f \times` (nmgy per electron), is
added for positive pixels, with the nominal calibration and gain of the survey.  Noise that is
correlated between pixels, as in coadded or interpolated images, is underestimated; give an
uncertainty for such images.

References
----------
.. [1] Immerkaer, J. 1996, Computer Vision and Image Understanding, 64, 300.
"""

from __future__ import annotations

from collections.abc import Sequence

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
from .band_images import BandImage
from .fluxes import flux_factor, read_unit
from .image_units import (
    ZeroPoint,
    flux_unit,
    is_counts,
    read_image_unit,
    uncertainty_ratio,
)

__all__ = ["MAX_FLUX", "calibrate", "estimate_inverse_variance", "find_flux_units", "why_unusable"]

#: Pixels that are brighter than this (nmgy; AB magnitude -15) are bad.
MAX_FLUX = 1e15
#: Inverse variances (nmgy**-2) outside the range from this to its inverse are bad; their squares
#: overflow.
_MIN_IVAR = 1e-30
#: Exponents of the standard deviation in the supported kinds of uncertainty.
_POWER = {StdDevUncertainty: 1, VarianceUncertainty: 2, InverseVariance: -2}
_CHUNK = 256


def calibrate(
    values: np.ndarray,
    unit: u.UnitBase | str | None,
    bands: tuple[str, ...],
    *,
    uncertainty: NDUncertainty | None = None,
    mask: np.ndarray | None = None,
    flux_units: Sequence[u.UnitBase | None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Convert images to nanomaggies and inverse variances, with bad pixels set to zero.

    Parameters
    ----------
    values : ndarray, shape (..., n_bands, ny, nx)
        Flux per pixel.
    unit : Unit, str or None
        Unit of ``values``.
    bands : tuple of str
        Names of the bands.
    uncertainty : NDUncertainty, optional
        Uncertainty of ``values``, of the same shape; estimated from the image if absent.
    mask : ndarray of bool, optional
        True where a pixel is bad.
    flux_units : sequence of Unit, optional
        Unit of the values of each band as a flux density (`find_flux_units`); by default ``unit``.

    Returns
    -------
    flux : ndarray of float32, shape (..., n_bands, ny, nx)
        nmgy per pixel; 0 where bad.
    ivar : ndarray of float32, same shape
        nmgy**-2; 0 where the pixel is masked, not finite, brighter than `MAX_FLUX`, or without a
        positive and finite variance.

    Raises
    ------
    TypeError
        If the values are not real numbers, or the uncertainty cannot be converted to a variance.
    ValueError
        If shapes differ.
    astropy.units.UnitsError
        If the unit is not a flux density.
    """
    values = np.asanyarray(values)
    if values.dtype.kind not in "fiu":
        raise TypeError(
            f"the cutout holds values of type {values.dtype}, but pixels must be real numbers."
        )
    unit = read_unit(unit)
    flux_units = (unit,) * len(bands) if flux_units is None else flux_units
    factor = np.array(
        [[[flux_factor(own, band)]] for own, band in zip(flux_units, bands, strict=True)],
        np.float64,
    )
    with np.errstate(over="ignore", invalid="ignore"):
        flux = (values * factor.astype(np.float32)).astype(np.float32, copy=False)
        good = np.abs(flux) < MAX_FLUX
        if mask is not None:
            good &= ~_broadcast(np.asarray(mask, bool), values.shape, "mask")
        if uncertainty is None:
            flux[~good] = 0
            ivar = estimate_inverse_variance(flux, good, bands)
        else:
            ratios = _uncertainty_ratios(uncertainty, unit, bands, flux_units)
            ivar = _inverse_variance(uncertainty, ratios, factor, values.shape)
        good &= (ivar > _MIN_IVAR) & (ivar < 1 / _MIN_IVAR)
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


def find_flux_units(
    image: BandImage, bands: Sequence[str], zero_point: ZeroPoint | None, assumed: set[str]
) -> list[u.UnitBase | None]:
    """Return the unit of an image as a flux density, band by band.

    Parameters
    ----------
    image : BandImage
        Image, or images of several bands.
    bands : sequence of str
        Names of the bands.
    zero_point : float, Quantity, mapping or None
        AB magnitude of one count; None to read it from the header.
    assumed : set of str
        "zero point" and the keyword are added if the header is used.

    Returns
    -------
    list of Unit or None

    Raises
    ------
    TypeError, ValueError
        If a zero point is not valid.
    astropy.units.UnitsError
        If the unit is unknown, or a number of counts without a zero point.
    """
    unit = read_image_unit(image.unit)
    found = []
    for band in bands:
        flux, keyword = flux_unit(unit, image.meta, band, zero_point)
        if flux is not None and flux != u.dimensionless_unscaled and is_counts(flux):
            raise u.UnitConversionError(
                f"the cutout is in counts ({flux}); apply the flux calibration, or give "
                f"coerce_cutouts a zero_point, the AB magnitude of one count in band {band}."
            )
        if keyword:
            assumed.add(f"zero point {keyword}")
        found.append(flux)
    return found


def _uncertainty_power(uncertainty: NDUncertainty) -> int | None:
    return next((power for kind, power in _POWER.items() if isinstance(uncertainty, kind)), None)


def _uncertainty_ratios(
    uncertainty: NDUncertainty,
    unit: u.UnitBase | None,
    bands: tuple[str, ...],
    flux_units: Sequence[u.UnitBase | None],
) -> np.ndarray:
    """Return the factors that convert an uncertainty to the unit of its image, band by band."""
    own, power = uncertainty.unit, _uncertainty_power(uncertainty)
    ratios = np.ones((len(bands), 1, 1))
    if own is not None and power is not None:
        for k, (band, flux) in enumerate(zip(bands, flux_units, strict=True)):
            ratios[k] = uncertainty_ratio(own, power, unit, flux, band)
    return ratios


def _inverse_variance(
    uncertainty: NDUncertainty, ratios: np.ndarray, factor: np.ndarray, shape: tuple[int, ...]
) -> np.ndarray:
    if isinstance(uncertainty, UnknownUncertainty):
        raise TypeError(
            "uncertainty is of unknown type (UnknownUncertainty); wrap its array in "
            "StdDevUncertainty, VarianceUncertainty or InverseVariance."
        )
    power = _uncertainty_power(uncertainty)
    if power is None:
        try:
            uncertainty = uncertainty.represent_as(InverseVariance)
        except (TypeError, ValueError, IncompatibleUncertaintiesException):
            name = type(uncertainty).__name__
            raise TypeError(
                f"uncertainty is of type {name}, which cannot be converted to a variance; give "
                "StdDevUncertainty, VarianceUncertainty or InverseVariance."
            ) from None
        power = -2
    array = np.asarray(uncertainty.array)
    if array.dtype.kind not in "fiu":
        raise TypeError(
            f"the uncertainty holds values of type {array.dtype}, but it must hold real numbers."
        )
    array = _broadcast(array, shape, "uncertainty")
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        # sigma, variance and inverse variance scale with the first, second and inverse second
        # power.
        scaled = array * (ratios * factor**power)
        if power == 1:
            scaled = np.where(scaled > 0, scaled, np.nan) ** -2.0
        elif power == 2:
            scaled = 1 / np.where(scaled > 0, scaled, np.nan)
        return np.array(scaled, np.float32)


def estimate_inverse_variance(
    flux: np.ndarray, good: np.ndarray, bands: tuple[str, ...]
) -> np.ndarray:
    """Estimate the noise of images from their own pixels (see the module docstring).

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
        Inverse variance, nmgy**-2; 0 for an image without measurable noise.
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
    """Return the standard deviation of the sky noise of each image; 0 if it cannot be measured."""
    if min(images.shape[-2:]) < 3:
        return np.zeros(len(images), np.float32)
    along_x = images[..., :-2] - 2 * images[..., 1:-1] + images[..., 2:]
    second = np.abs(along_x[:, :-2] - 2 * along_x[:, 1:-1] + along_x[:, 2:]).reshape(
        len(images), -1
    )
    sigma = np.median(second, axis=-1)
    # Images with bad pixels or blank margins: use the good pixels only.
    for k in np.flatnonzero((sigma == 0) | ~good.all(axis=(1, 2))):
        rows = good[k, :, :-2] & good[k, :, 1:-1] & good[k, :, 2:]
        clean = (rows[:-2] & rows[1:-1] & rows[2:]).ravel()
        values = second[k, clean]
        values = values[values > 0]
        sigma[k] = np.median(values) if len(values) >= 16 else 0
    return sigma * (1.4826 / 6)


def why_unusable(values: np.ndarray, mask: np.ndarray | None, has_uncertainty: bool) -> str:
    """Explain why an image has no usable pixel.

    Parameters
    ----------
    values : ndarray
        Pixel values as given.
    mask : ndarray of bool or None
        True where a pixel is bad.
    has_uncertainty : bool
        True if an uncertainty was given.

    Returns
    -------
    str
        Reason, without a full stop.
    """
    finite = np.isfinite(values)
    if not finite.any():
        return "no pixel is finite"
    if np.all(np.abs(values[finite]) > 1e30):
        return "all pixels are fill values, larger than 1e30"
    if mask is not None and np.all(mask | ~finite):
        return "every pixel is masked or not finite"
    if has_uncertainty:
        return "no good pixel has a positive, finite variance"
    return "it has no uncertainty, and its noise cannot be estimated from its pixels"
