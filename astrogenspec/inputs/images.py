r"""Images of galaxies: calibration, band images, sky coordinates, grid of the networks.

Noise.  If an image has no uncertainty, the noise of its sky is estimated from the image itself. The
second difference along both axes (the kernel [1, -2, 1] times itself) removes everything that
varies slowly from pixel to pixel, so that its median absolute value measures the noise even where a
galaxy fills the image: :math:`\sigma = 1.4826\, \mathrm{median}|L \ast f| / 6` after Immerkaer
[1]_, with a median in place of the mean.  Shot noise of the galaxy, :math:`f \times` (nmgy per
electron), is added for positive pixels, with the nominal calibration and gain of the survey.  Noise
that is correlated between pixels, as in coadded or interpolated images, is underestimated; give an
uncertainty for such images.

Resampling.  Every pixel is a square of constant surface brightness.  An output pixel receives from
each input pixel the fraction of its flux that lies inside the output pixel, so that the total flux
is conserved to rounding.  For parallel grids this fraction is a product of two one-dimensional
overlaps, and resampling a stack of images is two matrix products, :math:`F' = W_y F
W_x^\mathsf{T}`.  The variance is distributed in the same way, :math:`V' = W_y V W_x^\mathsf{T}`.
If pixels become smaller, their noise is correlated and a single pixel is less noisy than this
variance; the error of an aperture of many pixels, summed in quadrature without the correlations, is
correct.

References
----------
.. [1] Immerkaer, J. 1996, Computer Vision and Image Understanding, 64, 300.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.nddata import (
    Cutout2D,
    IncompatibleUncertaintiesException,
    InverseVariance,
    NDData,
    NDUncertainty,
    StdDevUncertainty,
    UnknownUncertainty,
    VarianceUncertainty,
)
from astropy.wcs.wcsapi import BaseHighLevelWCS

from ..quantities import plain_values
from ..surveys import CUTOUT_SIZE, SDSS
from .astrometry import LocalGrid, celestial, check_scale, local_grid, to_pixel
from .fluxes import check_bands, flux_factor, read_unit
from .image_units import (
    ZeroPoint,
    flux_unit,
    is_counts,
    read_image_unit,
    uncertainty_ratio,
)

__all__ = [
    "MAX_FLUX",
    "MIN_COVERAGE",
    "BandImage",
    "ImageStack",
    "calibrate",
    "crop_or_pad",
    "estimate_inverse_variance",
    "find_flux_units",
    "overlap_weights",
    "place_on_grid",
    "resample",
    "resampling_step",
    "split_array",
    "split_bands",
    "to_grid",
    "why_unusable",
]

#: An output pixel is used if at least this fraction of its area is covered by good input pixels.
MIN_COVERAGE = 0.5
#: Pixels that are brighter than this (nmgy; AB magnitude -15) are bad.
MAX_FLUX = 1e15
#: Inverse variances (nmgy**-2) outside the range from this to its inverse are bad; their squares
#: overflow.
_MIN_IVAR = 1e-30
#: Minimum number of pixels on a side of an image.
MIN_PIXELS = 8
#: Pixel scales that differ from that of the networks by less than this fraction are not resampled.
SCALE_TOLERANCE = 0.005
#: Maximum angle between the axes of two bands (degrees): 0.28 pixels at the edge of a cutout.
MAX_ROTATION = 0.5
#: Bands from which the position of the galaxy is taken, in order of preference.
_REFERENCE_ORDER = ("r", "i", "g", "z", "u")
#: Exponents of the standard deviation in the supported kinds of uncertainty.
_POWER = {StdDevUncertainty: 1, VarianceUncertainty: 2, InverseVariance: -2}
_CHUNK = 256

#: Step of the resampling (y, x), None for whole pixels, and pixel (y, x) that becomes the centre of
#: the cutout.
Placement: TypeAlias = tuple[tuple[float, float] | None, tuple[float, float]]


# ---- Units, uncertainties and bad pixels


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


# ---- Band images


@dataclass(frozen=True, eq=False)
class BandImage:
    """Image of one galaxy in one band, as given.

    Attributes
    ----------
    values : ndarray, shape (ny, nx)
        Pixel values.
    unit : Unit or None
        Unit of the pixel values.
    uncertainty : NDUncertainty or None
        Uncertainty of the pixel values.
    mask : ndarray of bool or None
        True where a pixel is bad.
    wcs : WCS or None
        Any world coordinate system of astropy.
    meta : Mapping
        Header.
    """

    values: np.ndarray
    unit: u.UnitBase | None
    uncertainty: NDUncertainty | None
    mask: np.ndarray | None
    wcs: object
    meta: Mapping

    @property
    def name(self) -> str:
        """Name of the galaxy, from ``meta["name"]`` or the header keyword NAME."""
        name = _look_up(self.meta, "name")
        return "" if name is None else str(name)


@dataclass(frozen=True, eq=False)
class ImageStack(BandImage):
    """Images (..., band, y, x) of galaxies with a common unit, pixel scale and list of bands."""

    bands: tuple[str, ...] = ()

    def scale(self, pixel_scale: float | None, assumed: set[str]) -> tuple[float, float]:
        """Return the pixel scale along y and x (arcsec); add "scale" to `assumed` if assumed."""
        _check_size(self.values.shape[-2:])
        wcs = celestial(self.wcs)
        if wcs is None:
            return _scale_without_wcs(self.meta, pixel_scale, assumed)
        ny, nx = self.values.shape[-2:]
        return local_grid(wcs, (nx - 1) / 2, (ny - 1) / 2).scale


def _look_up(meta: Mapping, key: str) -> object:
    for spelling in (key, key.upper()):
        if spelling in meta:
            return meta[spelling]
    return None


def _with_metadata(data: u.Quantity | NDData) -> BandImage:
    if isinstance(data, NDData):
        return BandImage(data.data, data.unit, data.uncertainty, data.mask, data.wcs, data.meta)
    mask = getattr(data, "mask", None)
    values = (data if mask is None else data.unmasked).value
    return BandImage(values, data.unit, None, mask, None, {})


def split_array(data: u.Quantity | NDData, bands: object) -> ImageStack:
    """Return an array of images with its metadata.

    Parameters
    ----------
    data : Quantity or NDData, shape (..., band, y, x)
        Images.
    bands : str or sequence of str or None
        Names of the bands; None to read them from the metadata.

    Returns
    -------
    ImageStack

    Raises
    ------
    ValueError
        If the bands are not named, or their number is wrong.
    """
    image = _with_metadata(data)
    names = bands if bands is not None else _look_up(image.meta, "bands")
    n = image.values.shape[-3]
    if names is None:
        raise ValueError(
            f'cutouts has {n} bands without names; name them, for instance bands="gri".'
        )
    names = check_bands(names, "bands" if bands is not None else 'meta["bands"]')
    if len(names) != n:
        raise ValueError(
            f"cutouts has {n} bands (its shape is {image.values.shape}), "
            f"but {len(names)} are named: {', '.join(names)}."
        )
    return ImageStack(**vars(image), bands=names)


def split_bands(item: object, bands: object) -> dict[str, BandImage]:
    """Split the images of one galaxy into bands.

    Parameters
    ----------
    item : NDData, Quantity or mapping
        Cube (band, y, x), image (y, x) if ``bands`` names one band, or mapping from bands to
        images.
    bands : str or sequence of str or None
        Names of the bands of a cube.

    Returns
    -------
    dict of str to BandImage

    Raises
    ------
    TypeError
        If an object is not an image.
    ValueError
        If dimensions or names of bands are wrong.
    """
    if isinstance(item, Mapping):
        if not item:
            raise ValueError("the cutout is an empty mapping; give at least one band.")
        if bands is not None and set(check_bands(bands)) != set(item):
            raise ValueError(
                f"bands is {bands!r}, but the cutout is a mapping with "
                f"{', '.join(map(str, item))}; leave bands out."
            )
        names = check_bands(item, "the cutout's mapping")
        return {band: _band_image(item[band], f"band {band} of the cutout") for band in names}
    if not isinstance(item, NDData | u.Quantity):
        if isinstance(item, np.ndarray):
            raise u.UnitTypeError(
                f"the cutout is an array of shape {item.shape} without a unit; "
                "multiply it by the unit of its pixels, such as u.nmgy."
            )
        raise TypeError(
            f"the cutout is of type {type(item).__name__}, but it must be an NDData cube, a "
            "mapping from bands to CCDData, or a Quantity array."
        )
    shape = np.shape(item.data if isinstance(item, NDData) else item)
    if len(shape) == 2 and bands is not None and len(check_bands(bands)) == 1:
        return {check_bands(bands)[0]: _band_image(item, "the cutout")}
    if len(shape) != 3:
        raise ValueError(
            f"the cutout has shape {shape}, but a cube must be (band, y, x); "
            'give a single image as {"r": image}.'
        )
    stack = split_array(item, bands)
    parts = {}
    for k, band in enumerate(stack.bands):
        uncertainty, mask = stack.uncertainty, stack.mask
        if uncertainty is not None and np.ndim(uncertainty.array) == 3:
            uncertainty = type(uncertainty)(uncertainty.array[k], unit=uncertainty.unit, copy=False)
        if mask is not None and np.ndim(mask) == 3:
            mask = mask[k]
        parts[band] = BandImage(
            stack.values[k], stack.unit, uncertainty, mask, stack.wcs, stack.meta
        )
    return parts


def _band_image(data: object, what: str) -> BandImage:
    if isinstance(data, NDData | u.Quantity):
        image = _with_metadata(data)
    elif isinstance(data, Cutout2D):
        if not isinstance(data.data, u.Quantity):
            raise u.UnitTypeError(
                f"{what} is a Cutout2D without a unit; cut it out of a Quantity: Cutout2D(image "
                "* u.nmgy, ...)."
            )
        image = replace(_with_metadata(data.data), wcs=data.wcs)
    else:
        raise TypeError(
            f"{what} is of type {type(data).__name__}, but it must be a CCDData, an NDData, a "
            "Cutout2D or a Quantity."
        )
    if np.ndim(image.values) != 2:
        raise ValueError(f"{what} has shape {np.shape(image.values)}, but it must be (y, x).")
    return image


# ---- Resampling


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
    >>> from astrogenspec.inputs.images import overlap_weights
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
    flux: np.ndarray, ivar: np.ndarray, placement: Placement
) -> tuple[np.ndarray, np.ndarray]:
    """Crop, pad or resample images to the grid of the networks.

    Parameters
    ----------
    flux, ivar : ndarray, shape (..., ny, nx)
        Flux per pixel and inverse variance.
    placement : tuple
        Step of the resampling along y and x, or None to crop by whole pixels, and the pixel (y, x)
        that becomes the centre.

    Returns
    -------
    flux, ivar : ndarray, shape (..., 64, 64)
    """
    step, (y, x) = placement
    if step is not None:
        return resample(flux, ivar, step=step, centre=(y, x))
    half = (CUTOUT_SIZE - 1) / 2
    return crop_or_pad(flux, ivar, offset=(round(y - half), round(x - half)))


# ---- Pixel scale and position


def _check_size(shape: tuple[int, ...]) -> None:
    if min(shape) < MIN_PIXELS:
        raise ValueError(
            f"the cutout has {shape[-2]} x {shape[-1]} pixels (y, x), "
            f"but at least {MIN_PIXELS} x {MIN_PIXELS} are needed."
        )


def _scale_without_wcs(
    meta: Mapping, pixel_scale: float | None, assumed: set[str]
) -> tuple[float, float]:
    value = pixel_scale if pixel_scale is not None else _look_up(meta, "pixscale")
    if value is None:
        assumed.add("scale")
        value = SDSS.pixel_scale.value
    try:
        value = float(u.Quantity(value, u.arcsec).value)
    except (TypeError, u.UnitsError):
        raise ValueError(
            f"PIXSCALE is {value!r}, but it must be a number: arcsec per pixel."
        ) from None
    check_scale((value, value), "PIXSCALE" if pixel_scale is None else "pixel_scale")
    return value, value


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


def _placements(
    images: Mapping[str, BandImage],
    position: SkyCoord | None,
    pixel_scale: float | None,
    assumed: set[str],
) -> dict[str, Placement]:
    """Find the placement of each band."""
    for image in images.values():
        _check_size(image.values.shape)
    found = {band: celestial(image.wcs) for band, image in images.items()}
    systems = {band: wcs for band, wcs in found.items() if wcs is not None}
    missing = [band for band in images if band not in systems]
    if not missing:
        return _placements_by_sky(images, systems, position)
    if systems:
        raise ValueError(
            f"band {missing[0]} has no WCS on the sky, but other bands have one; "
            "give one to each band, or to none."
        )
    if position is not None:
        raise ValueError("position was given, but the cutout has no WCS; give it one.")
    shapes = {image.values.shape for image in images.values()}
    if len(shapes) > 1:
        raise ValueError(
            f"the bands have different shapes {sorted(shapes)} and no WCS to align them; "
            "give them a WCS, or images of one shape."
        )
    placements: dict[str, Placement] = {}
    for band, image in images.items():
        step = resampling_step(_scale_without_wcs(image.meta, pixel_scale, assumed))
        ny, nx = image.values.shape
        placements[band] = step, ((ny - 1) / 2, (nx - 1) / 2)
    return placements


def _placements_by_sky(
    images: Mapping[str, BandImage],
    systems: Mapping[str, BaseHighLevelWCS],
    position: SkyCoord | None,
) -> dict[str, Placement]:
    reference = next(band for band in _REFERENCE_ORDER if band in images)
    middle = systems[reference]
    ny, nx = images[reference].values.shape
    x, y = (nx - 1) / 2, (ny - 1) / 2
    if position is not None:
        sphere = position.spherical
        angles = [plain_values(angle, u.deg) for angle in (sphere.lon, sphere.lat)]
        if not np.isfinite(angles).all():
            raise ValueError(
                "position is not finite; give the position of the galaxy on the sky, or omit "
                "position to use the image centre."
            )
        x, y = to_pixel(position, np.nan, np.nan, middle)
        _check_inside(images[reference], reference, x, y, "position")
    grid = local_grid(middle, x, y)
    if resampling_step(grid.scale) is None:
        # Whole pixels: align the other bands with the reference as it is cropped.
        half = (CUTOUT_SIZE - 1) / 2
        x, y = round(x - half) + half, round(y - half) + half
    placements: dict[str, Placement] = {}
    for band, wcs in systems.items():
        own_x, own_y = to_pixel(middle, x, y, wcs)
        if band != reference:
            _check_inside(images[band], band, own_x, own_y, f"the galaxy's position in {reference}")
        own = grid if wcs is middle else local_grid(wcs, own_x, own_y)
        _check_parallel(grid, own, reference, band)
        placements[band] = resampling_step(own.scale), (own_y, own_x)
    return placements


def _check_inside(image: BandImage, band: str, x: float, y: float, what: str) -> None:
    ny, nx = image.values.shape
    # This form also rejects NaN: a point outside the domain of the WCS.
    if not (-0.5 <= x <= nx - 0.5 and -0.5 <= y <= ny - 0.5):
        raise ValueError(
            f"{what} lies outside the image in band {band}: pixel (x, y) = ({x:.1f}, {y:.1f}) of "
            f"{nx} x {ny}; give an image that contains the galaxy."
        )


def _check_parallel(grid: LocalGrid, own: LocalGrid, reference: str, band: str) -> None:
    turn = (own.angle - grid.angle + 180) % 360 - 180
    if own.parity != grid.parity or abs(turn) > MAX_ROTATION:
        how = "mirrored" if own.parity != grid.parity else f"turned by {turn:.2f} degrees"
        raise ValueError(
            f"band {band} is {how} with respect to band {reference}; reproject it to the same grid."
        )


# ---- Assembly


def place_on_grid(
    images: Mapping[str, BandImage],
    position: SkyCoord | None,
    pixel_scale: float | None,
    assumed: set[str],
    zero_point: ZeroPoint | None = None,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Calibrate the images of one galaxy and place them on the grid of the networks.

    Parameters
    ----------
    images : mapping of str to BandImage
        Images by band.
    position : SkyCoord or None
        Position of the galaxy; None for the centre of the reference image (r if available).
    pixel_scale : float or None
        Arcsec per pixel of images without a WCS or ``PIXSCALE``.
    assumed : set of str
        "noise" and "scale" are added if the noise is estimated or the pixel scale is assumed, "zero
        point" and the keyword if a zero point is read from a header.
    zero_point : float, Quantity or mapping, optional
        AB magnitude of one count, for images in counts.

    Returns
    -------
    dict of str to (flux, ivar)
        By band, each of shape (64, 64).

    Raises
    ------
    TypeError, ValueError, astropy.units.UnitsError
        If the galaxy cannot be used.
    """
    placements = _placements(images, position, pixel_scale, assumed)
    cutouts, reasons = {}, []
    for band, image in images.items():
        if image.uncertainty is None:
            assumed.add("noise")
        flux, ivar = calibrate(
            image.values[None],
            read_image_unit(image.unit),
            (band,),
            uncertainty=image.uncertainty,
            mask=image.mask,
            flux_units=find_flux_units(image, (band,), zero_point, assumed),
        )
        if not ivar.any():
            mask = None if image.mask is None else np.asarray(image.mask, bool)
            why = why_unusable(image.values, mask, image.uncertainty is not None)
            reasons.append(f"{band}: {why}")
        flux, ivar = to_grid(flux, ivar, placements[band])
        cutouts[band] = flux[0], ivar[0]
    if not any(ivar.any() for _, ivar in cutouts.values()):
        why = "; ".join(reasons) or "no pixel lies within the cutout around the galaxy"
        raise ValueError(f"no band has a usable pixel: {why}.")
    return cutouts
