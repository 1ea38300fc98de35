"""Colour pictures of galaxies for a page: small files, scale and directions on the sky."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import astropy.units as u
import numpy as np
from astropy.nddata import NDData

from ..inputs.cutouts import coerce_cutouts
from ..surveys import BANDS, SDSS
from ..warnings import AstroGenSpecWarning, filtered_warnings

__all__ = [
    "Picture",
    "encoded_picture",
    "picture_of",
    "reconstruction_picture",
    "reconstruction_strip",
]

#: Lossy compression that is not visible in the pictures.
_QUALITY = 82
_LARGEST = 192


@dataclass(frozen=True)
class Picture:
    """A colour picture of a galaxy.

    Attributes
    ----------
    data : str
        Picture as a ``data:`` address.
    size : (int, int)
        Width and height in pixels.
    scale : float or None
        Arcseconds per pixel; None if unknown.
    north, east : (float, float) or None
        Directions on the picture (right, down), of length one; None without a WCS.
    """

    data: str
    size: tuple[int, int]
    scale: float | None = None
    north: tuple[float, float] | None = None
    east: tuple[float, float] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the entries for JSON.

        Returns
        -------
        dict
        """
        return {
            "data": self.data,
            "size": self.size,
            "scale": self.scale,
            "north": self.north,
            "east": self.east,
        }


def picture_of(cutout: Any, *, largest: int = _LARGEST) -> Picture | None:
    """Make the colour picture of one galaxy.

    Parameters
    ----------
    cutout : cutout of one galaxy, or None
        As for `~astrogenspec.PropertyEstimator.predict`.
    largest : int
        Largest side of the picture in pixels; larger images are reduced.

    Returns
    -------
    Picture or None
        The image on its own pixels if it is a mapping of bands of equal shapes, otherwise on those
        of the networks. None without an image.

    Raises
    ------
    ImportError
        If Pillow is not installed.
    """
    if cutout is None:
        return None
    if isinstance(cutout, Mapping) and _same_pixels(cutout):
        names = [band for band in BANDS if band in cutout] or list(cutout)
        planes = [_values(cutout[band]) for band in names]
        scale, north, east = _directions(cutout[names[len(names) // 2]])
    else:
        with filtered_warnings("ignore", AstroGenSpecWarning):
            batch = coerce_cutouts(cutout, on_error="flag")
        names = [band for band, seen in zip(BANDS, batch.bands_present[0], strict=True) if seen]
        planes = [batch.flux[0, BANDS.index(band)] for band in names]
        scale, north, east = SDSS.pixel_scale.to_value(u.arcsec), None, None
    if not planes:
        return None
    data, size, reduction = encoded_picture(_coloured(names, planes), largest=largest)
    return Picture(data, size, None if scale is None else scale * reduction, north, east)


def reconstruction_picture(image: np.ndarray, *, largest: int = _LARGEST) -> Picture:
    """Make the picture of a reconstruction by the network.

    Parameters
    ----------
    image : ndarray, shape (5, ny, nx)
        Flux in the bands ugriz.
    largest : int
        Largest side of the picture in pixels.

    Returns
    -------
    Picture
    """
    rgb = _coloured(list(BANDS), list(np.asarray(image, float)))
    data, size, reduction = encoded_picture(rgb, largest=largest)
    return Picture(data, size, SDSS.pixel_scale.to_value(u.arcsec) * reduction)


def reconstruction_strip(images: np.ndarray, *, largest: int = _LARGEST) -> list[Picture]:
    """Make pictures of several reconstructions on one scale of brightness.

    Parameters
    ----------
    images : ndarray, shape (n, 5, ny, nx)
        Flux in the bands ugriz.
    largest : int
        Largest side of the pictures in pixels.

    Returns
    -------
    list of Picture
    """
    from ..plotting.images import color_image, display_stretch

    stretch = display_stretch(np.nanmedian(images, axis=0)[1:4])
    made = []
    for image in images:
        data, size, reduction = encoded_picture(
            color_image(image, stretch=stretch), largest=largest
        )
        made.append(Picture(data, size, SDSS.pixel_scale.to_value(u.arcsec) * reduction))
    return made


def encoded_picture(rgb: np.ndarray, *, largest: int) -> tuple[str, tuple[int, int], float]:
    """Compress a picture.

    Parameters
    ----------
    rgb : ndarray of uint8, shape (ny, nx, 3)
        Picture with its first row at the bottom.
    largest : int
        Largest side in pixels.

    Returns
    -------
    data : str
        The picture as a ``data:`` address.
    size : (int, int)
        Width and height.
    reduction : float
        Pixels of the input per pixel of the picture.
    """
    from ..plotting.style import package

    image = package("PIL.Image").fromarray(rgb[::-1])
    reduction = max(1.0, max(image.size) / largest)
    if reduction > 1:
        image = image.resize(tuple(max(1, round(side / reduction)) for side in image.size))
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=_QUALITY, method=4)
    text = base64.b64encode(buffer.getvalue()).decode()
    return f"data:image/webp;base64,{text}", image.size, reduction


def _values(image: Any) -> np.ndarray:
    values = image.data if isinstance(image, NDData) else getattr(image, "value", image)
    array = np.array(values, dtype=float)
    mask = getattr(image, "mask", None)
    if mask is not None:
        array[np.broadcast_to(np.asarray(mask, bool), array.shape)] = np.nan
    return array


def _same_pixels(cutout: Mapping[str, Any]) -> bool:
    images = list(cutout.values())
    if any(isinstance(image, str | bytes) or not hasattr(image, "shape") for image in images):
        return False
    return len({image.shape for image in images}) == 1 and len(images[0].shape) == 2


def _coloured(names: Sequence[str], planes: Sequence[np.ndarray]) -> np.ndarray:
    """Combine the bands g, r, i, or the first, middle and last of others; grey for one band."""
    from ..plotting.images import color_image

    if {"g", "r", "i"} <= set(names):
        chosen = [planes[list(names).index(band)] for band in "gri"]
    else:
        chosen = [planes[0], planes[len(planes) // 2], planes[-1]]
        if len(planes) == 2:
            chosen[1] = (planes[0] + planes[1]) / 2
    return color_image(np.array(chosen))


def _directions(
    image: Any,
) -> tuple[float | None, tuple[float, float] | None, tuple[float, float] | None]:
    """Return the scale (arcsec per pixel) and the directions to the north and east."""
    wcs = getattr(image, "wcs", None)
    if wcs is None:
        stated = getattr(image, "meta", {}).get("PIXSCALE")
        return (float(stated) if stated is not None else None), None, None
    from astropy.wcs.utils import proj_plane_pixel_scales

    celestial = wcs.celestial
    scale = float(np.mean(proj_plane_pixel_scales(celestial)) * 3600)
    ny, nx = image.shape
    x, y = (nx - 1) / 2, (ny - 1) / 2
    longitude, latitude = (float(value) for value in celestial.all_pix2world(x, y, 0))
    step = scale / 3600
    found = []
    for east, north in ((0.0, step), (step / np.cos(np.radians(latitude)), 0.0)):
        ahead = celestial.all_world2pix(longitude + east, latitude + north, 0)
        right, up = float(ahead[0]) - x, float(ahead[1]) - y
        length = np.hypot(right, up)
        # The rows of the picture run downwards.
        found.append((round(right / length, 4), round(-up / length, 4)))
    return scale, found[0], found[1]
