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

from collections.abc import Mapping
from dataclasses import dataclass, replace

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

from ..surveys import CUTOUT_SIZE, SDSS
from .astrometry import LocalGrid, celestial, check_scale, local_grid, to_pixel
from .fluxes import check_bands, flux_factor, read_unit

__all__ = [
    "MINIMUM_COVERAGE",
    "Plane",
    "Stack",
    "calibrate",
    "crop_or_pad",
    "estimate_inverse_variance",
    "overlap_weights",
    "place_on_grid",
    "planes_of",
    "resample",
    "split_array",
    "steps_for",
    "why_unusable",
]

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
    size: int = CUTOUT_SIZE,
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


#: Smallest number of pixels on a side of an image.
MINIMUM_PIXELS = 8
#: A pixel scale that differs by less than this fraction is taken for that of the networks.
SCALE_TOLERANCE = 0.005
#: Bands whose axes differ by more than this angle (degrees) are refused: 0.28 pixels at the edge of a stamp.
MAXIMUM_ROTATION = 0.5
_REFERENCE_ORDER = ("r", "i", "g", "z", "u")


@dataclass(frozen=True, eq=False)
class Plane:
    """An image of one galaxy in one band, as it came.

    Attributes
    ----------
    values : ndarray, shape (ny, nx)
        Pixels.
    unit : Unit or None
        Their unit.
    uncertainty : NDUncertainty or None
        Their uncertainty.
    mask : ndarray of bool or None
        True where bad.
    wcs : WCS or None
        World coordinate system, of any kind that astropy knows.
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
        return str(_look_up(self.meta, "name") or "")


@dataclass(frozen=True, eq=False)
class Stack(Plane):
    """Images of a galaxy or of many, (..., band, y, x), that share unit, pixel scale and bands."""

    bands: tuple[str, ...] = ()

    def scale(self, pixel_scale: float | None, notes: set[str]) -> tuple[float, float]:
        """Find the pixel scale along y and x in arcsec; note it if it had to be assumed."""
        _check_size(self.values.shape[-2:])
        wcs = celestial(self.wcs)
        if wcs is None:
            return _scale_without_wcs(self.meta, pixel_scale, notes)
        ny, nx = self.values.shape[-2:]
        return local_grid(wcs, (nx - 1) / 2, (ny - 1) / 2).scale


def _look_up(meta: Mapping, key: str) -> object:
    for spelling in (key, key.upper()):
        if spelling in meta:
            return meta[spelling]
    return None


def split_array(data: u.Quantity | NDData, bands: object) -> Stack:
    """Take an array of images apart.

    Parameters
    ----------
    data : Quantity or NDData, shape (..., band, y, x)
        Images.
    bands : str or sequence of str or None
        Names of the bands; None to find them in the meta data.

    Returns
    -------
    Stack

    Raises
    ------
    ValueError
        If the bands are not named or not as many as there are.
    """
    if isinstance(data, NDData):
        stored = _look_up(data.meta, "bands")
        values, unit, uncertainty = data.data, data.unit, data.uncertainty
        mask, wcs, meta = data.mask, data.wcs, data.meta
    else:
        stored, unit, uncertainty, wcs, meta = None, data.unit, None, None, {}
        mask = getattr(data, "mask", None)
        values = (data if mask is None else data.unmasked).value
    names = bands if bands is not None else stored
    n = values.shape[-3]
    if names is None:
        raise ValueError(
            f'cutouts has {n} bands but does not say which; name them, for instance bands="gri".'
        )
    names = check_bands(names, "bands" if bands is not None else 'meta["bands"]')
    if len(names) != n:
        raise ValueError(
            f"cutouts has {n} bands (its shape is {values.shape}), "
            f"but {len(names)} are named: {', '.join(names)}."
        )
    return Stack(values, unit, uncertainty, mask, wcs, meta, names)


def planes_of(item: object, bands: object) -> dict[str, Plane]:
    """Take one galaxy's images apart, band by band, without looking at the pixels.

    Parameters
    ----------
    item : NDData, Quantity or mapping
        A cube (band, y, x), an image (y, x) if ``bands`` names one band, or images by band.
    bands : str or sequence of str or None
        Names of the bands of a cube.

    Returns
    -------
    dict of Plane

    Raises
    ------
    TypeError
        For an object that is no image.
    ValueError
        For wrong dimensions or names of bands.
    """
    if isinstance(item, Mapping):
        if not item:
            raise ValueError("the cutout is an empty mapping; give at least one band.")
        if bands is not None and set(check_bands(bands)) != set(item):
            raise ValueError(
                f"bands is {bands!r}, but the cutout is a mapping with {', '.join(map(str, item))}; "
                "leave bands out."
            )
        names = check_bands(item, "the cutout's mapping")
        return {band: _plane(item[band], f"band {band} of the cutout") for band in names}
    if not isinstance(item, NDData | u.Quantity):
        if isinstance(item, np.ndarray):
            raise u.UnitTypeError(
                f"the cutout is an array of shape {item.shape} without a unit; "
                "multiply it by the unit of its pixels, such as u.nmgy."
            )
        raise TypeError(
            f"the cutout is of type {type(item).__name__}, but it must be an NDData cube, a mapping from "
            "bands to CCDData, or a Quantity array."
        )
    shape = np.shape(item.data if isinstance(item, NDData) else item)
    if len(shape) == 2 and bands is not None and len(check_bands(bands)) == 1:
        return {check_bands(bands)[0]: _plane(item, "the cutout")}
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
        parts[band] = Plane(stack.values[k], stack.unit, uncertainty, mask, stack.wcs, stack.meta)
    return parts


def _plane(data: object, what: str) -> Plane:
    if isinstance(data, NDData):
        plane = Plane(data.data, data.unit, data.uncertainty, data.mask, data.wcs, data.meta)
    elif isinstance(data, u.Quantity):
        mask = getattr(data, "mask", None)
        values = (data if mask is None else data.unmasked).value
        plane = Plane(values, data.unit, None, mask, None, {})
    elif isinstance(data, Cutout2D):
        if not isinstance(data.data, u.Quantity):
            raise u.UnitTypeError(
                f"{what} is a Cutout2D without a unit; cut it out of a Quantity: Cutout2D(image * u.nmgy, ...)."
            )
        plane = replace(_plane(data.data, what), wcs=data.wcs)
    else:
        raise TypeError(
            f"{what} is of type {type(data).__name__}, but it must be a CCDData, an NDData, a Cutout2D or a Quantity."
        )
    if np.ndim(plane.values) != 2:
        raise ValueError(f"{what} has shape {np.shape(plane.values)}, but it must be (y, x).")
    return plane


def _check_size(shape: tuple[int, ...]) -> None:
    if min(shape) < MINIMUM_PIXELS:
        raise ValueError(
            f"the cutout has {shape[-2]} x {shape[-1]} pixels (y, x), "
            f"but at least {MINIMUM_PIXELS} x {MINIMUM_PIXELS} are needed."
        )


def _scale_without_wcs(
    meta: Mapping, pixel_scale: float | None, notes: set[str]
) -> tuple[float, float]:
    value = pixel_scale if pixel_scale is not None else _look_up(meta, "pixscale")
    if value is None:
        notes.add("scale")
        value = SDSS.pixel_scale.value
    try:
        value = float(u.Quantity(value, u.arcsec).value)
    except (TypeError, u.UnitsError):
        raise ValueError(
            f"PIXSCALE is {value!r}, but it must be a number: arcsec per pixel."
        ) from None
    check_scale((value, value), "PIXSCALE" if pixel_scale is None else "pixel_scale")
    return value, value


def steps_for(scale: tuple[float, float]) -> tuple[float, float] | None:
    """Find the width of a network pixel in pixels of an image.

    Parameters
    ----------
    scale : tuple of float
        Pixel scale of the image along y and x, arcsec.

    Returns
    -------
    tuple of float, or None
        None if the image need not be resampled.
    """
    step = tuple(SDSS.pixel_scale.value / side for side in scale)
    return None if all(abs(width - 1) < SCALE_TOLERANCE for width in step) else step


def place_on_grid(
    planes: Mapping[str, Plane],
    position: SkyCoord | None,
    pixel_scale: float | None,
    notes: set[str],
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Calibrate one galaxy's images and bring them to the common grid.

    Parameters
    ----------
    planes : mapping of str to Plane
        Images by band.
    position : SkyCoord or None
        The galaxy; None if it is in the middle of the reference image (r if there is one).
    pixel_scale : float or None
        Arcsec per pixel where nothing else says it.
    notes : set of str
        Receives "noise" and "scale" if these had to be assumed.

    Returns
    -------
    dict of (flux, ivar), each of shape (64, 64)

    Raises
    ------
    TypeError, ValueError, astropy.units.UnitsError
        If the galaxy cannot be used.
    """
    placements = _placements(planes, position, pixel_scale, notes)
    stamps, reasons = {}, []
    for band, plane in planes.items():
        if plane.uncertainty is None:
            notes.add("noise")
        flux, ivar = calibrate(
            plane.values[None], plane.unit, (band,), uncertainty=plane.uncertainty, mask=plane.mask
        )
        if not ivar.any():
            mask = None if plane.mask is None else np.asarray(plane.mask, bool)
            why = why_unusable(plane.values, mask, plane.uncertainty is not None)
            reasons.append(f"{band}: {why}")
        step, (y, x) = placements[band]
        if step is None:
            half = (CUTOUT_SIZE - 1) / 2
            flux, ivar = crop_or_pad(flux, ivar, offset=(round(y - half), round(x - half)))
        else:
            flux, ivar = resample(flux, ivar, step=step, centre=(y, x))
        stamps[band] = flux[0], ivar[0]
    if not any(ivar.any() for _, ivar in stamps.values()):
        why = "; ".join(reasons) or "none lies within the stamp around the galaxy"
        raise ValueError(f"no band has a usable pixel: {why}.")
    return stamps


def _placements(
    planes: Mapping[str, Plane],
    position: SkyCoord | None,
    pixel_scale: float | None,
    notes: set[str],
) -> dict[str, tuple[tuple[float, float] | None, tuple[float, float]]]:
    """Find, for each band, the step of the resampling and the pixel (y, x) that goes to the middle."""
    for plane in planes.values():
        _check_size(plane.values.shape)
    systems = {band: celestial(plane.wcs) for band, plane in planes.items()}
    missing = [band for band, wcs in systems.items() if wcs is None]
    if not missing:
        return _placements_by_sky(planes, systems, position)
    if len(missing) < len(systems):
        raise ValueError(
            f"band {missing[0]} has no WCS on the sky, but other bands have one; "
            "give one to each band, or to none."
        )
    if position is not None:
        raise ValueError("position was given, but the cutout has no WCS; give it one.")
    shapes = {plane.values.shape for plane in planes.values()}
    if len(shapes) > 1:
        raise ValueError(
            f"the bands have different shapes {sorted(shapes)} and no WCS that says how they "
            "overlap; give them a WCS, or one shape."
        )
    placements = {}
    for band, plane in planes.items():
        step = steps_for(_scale_without_wcs(plane.meta, pixel_scale, notes))
        placements[band] = step, tuple((n - 1) / 2 for n in plane.values.shape)
    return placements


def _placements_by_sky(
    planes: Mapping[str, Plane], systems: Mapping[str, object], position: SkyCoord | None
) -> dict[str, tuple[tuple[float, float] | None, tuple[float, float]]]:
    reference = next(band for band in _REFERENCE_ORDER if band in planes)
    middle = systems[reference]
    ny, nx = planes[reference].values.shape
    x, y = (nx - 1) / 2, (ny - 1) / 2
    if position is not None:
        x, y = to_pixel(position, np.nan, np.nan, middle)
        _check_inside(planes[reference], reference, x, y, "position")
    grid = local_grid(middle, x, y)
    if steps_for(grid.scale) is None:
        # Whole pixels: the other bands must follow the reference to where it really ends up.
        half = (CUTOUT_SIZE - 1) / 2
        x, y = round(x - half) + half, round(y - half) + half
    placements = {}
    for band, wcs in systems.items():
        own_x, own_y = to_pixel(middle, x, y, wcs)
        if band != reference:
            _check_inside(planes[band], band, own_x, own_y, f"the galaxy's position in {reference}")
        own = grid if wcs is middle else local_grid(wcs, own_x, own_y)
        _check_parallel(grid, own, reference, band)
        placements[band] = steps_for(own.scale), (own_y, own_x)
    return placements


def _check_inside(plane: Plane, band: str, x: float, y: float, what: str) -> None:
    ny, nx = plane.values.shape
    # Written so that NaN, a point that is not on the image's sky at all, is refused too.
    if not (-0.5 <= x <= nx - 0.5 and -0.5 <= y <= ny - 0.5):
        raise ValueError(
            f"{what} lies outside of the image in band {band}: pixel (x, y) = ({x:.1f}, {y:.1f}) of "
            f"{nx} x {ny}; give an image that contains the galaxy."
        )


def _check_parallel(grid: LocalGrid, own: LocalGrid, reference: str, band: str) -> None:
    turn = (own.angle - grid.angle + 180) % 360 - 180
    if own.parity != grid.parity or abs(turn) > MAXIMUM_ROTATION:
        how = "mirrored" if own.parity != grid.parity else f"turned by {turn:.2f} degrees"
        raise ValueError(
            f"band {band} is {how} with respect to band {reference}; reproject it to the same grid."
        )
