"""Images of galaxies as they are given, divided into bands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import astropy.units as u
import numpy as np
from astropy.nddata import Cutout2D, NDData, NDUncertainty

from ..surveys import SDSS
from .astrometry import celestial, check_scale, local_grid
from .fluxes import check_bands

__all__ = [
    "MIN_PIXELS",
    "BandImage",
    "ImageStack",
    "PixelScale",
    "check_size",
    "scale_without_wcs",
    "split_array",
    "split_bands",
]

#: Minimum number of pixels on a side of an image.
MIN_PIXELS = 8
#: What to do with images in bands that SDSS does not have.
_OTHER_BANDS = "; leave images in other bands out, and give their photometry as a table"


@dataclass(frozen=True)
class PixelScale:
    """Pixel scale of images without a WCS.

    Attributes
    ----------
    given : float or None
        As given by the user, arcsec; None to use the header.
    default : float
        Used, with a warning, if the header has none.
    """

    given: float | None = None
    default: float = float(SDSS.pixel_scale.value)


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

    def scale(self, pixel_scale: PixelScale, assumed: set[str]) -> tuple[float, float]:
        """Return the pixel scale along y and x (arcsec); and note a default in `assumed`."""
        check_size(self.values.shape[-2:])
        wcs = celestial(self.wcs)
        if wcs is None:
            return scale_without_wcs(self.meta, pixel_scale, assumed)
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
    argument = "bands" if bands is not None else 'meta["bands"]'
    names = check_bands(names, argument, hint=_OTHER_BANDS)
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
        names = check_bands(item, "the cutout's mapping", hint=_OTHER_BANDS)
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


def check_size(shape: tuple[int, ...]) -> None:
    """Raise an error if an image is too small.

    Parameters
    ----------
    shape : tuple of int
        Pixels along y and x.

    Raises
    ------
    ValueError
        If a side has fewer than `MIN_PIXELS`.
    """
    if min(shape) < MIN_PIXELS:
        raise ValueError(
            f"the cutout has {shape[-2]} x {shape[-1]} pixels (y, x), "
            f"but at least {MIN_PIXELS} x {MIN_PIXELS} are needed."
        )


def scale_without_wcs(
    meta: Mapping, pixel_scale: PixelScale, assumed: set[str]
) -> tuple[float, float]:
    """Return the pixel scale of an image without a WCS.

    Parameters
    ----------
    meta : mapping
        Header, whose PIXSCALE is used unless a pixel scale is given.
    pixel_scale : PixelScale
        Pixel scale, and the default.
    assumed : set of str
        "scale" and the default are added if it is used.

    Returns
    -------
    tuple of float
        Arcsec along y and x.

    Raises
    ------
    ValueError
        If the pixel scale cannot be used.
    """
    given = pixel_scale.given
    value = given if given is not None else _look_up(meta, "pixscale")
    if value is None:
        assumed.add(f"scale {pixel_scale.default:g}")
        value = pixel_scale.default
    try:
        value = float(u.Quantity(value, u.arcsec).value)
    except (TypeError, u.UnitsError):
        raise ValueError(
            f"PIXSCALE is {value!r}, but it must be a number: arcsec per pixel."
        ) from None
    check_scale((value, value), "PIXSCALE" if given is None else "pixel_scale")
    return value, value
