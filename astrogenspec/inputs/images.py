"""Images of one galaxy, calibrated and placed on the grid of the networks by sky coordinates."""

from __future__ import annotations

from collections.abc import Mapping

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.wcs.wcsapi import BaseHighLevelWCS

from ..quantities import plain_values
from ..surveys import CUTOUT_SIZE
from .astrometry import LocalGrid, celestial, local_grid, to_pixel
from .band_images import BandImage, PixelScale, check_size, scale_without_wcs
from .image_calibration import calibrate, find_flux_units, why_unusable
from .image_units import ZeroPoint, read_image_unit
from .resampling import Placement, resampling_step, to_grid

__all__ = ["place_on_grid"]

#: Maximum angle between the axes of two bands (degrees): 0.28 pixels at the edge of a cutout.
MAX_ROTATION = 0.5
#: Bands from which the position of the galaxy is taken, in order of preference.
_REFERENCE_ORDER = ("r", "i", "g", "z", "u")


def _placements(
    images: Mapping[str, BandImage],
    position: SkyCoord | None,
    pixel_scale: PixelScale,
    assumed: set[str],
) -> dict[str, Placement]:
    """Find the placement of each band."""
    for image in images.values():
        check_size(image.values.shape)
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
        step = resampling_step(scale_without_wcs(image.meta, pixel_scale, assumed))
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


def place_on_grid(
    images: Mapping[str, BandImage],
    position: SkyCoord | None,
    pixel_scale: PixelScale,
    assumed: set[str],
    zero_point: ZeroPoint | None = None,
    size: int = CUTOUT_SIZE,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Calibrate the images of one galaxy and place them on the grid of the networks.

    Parameters
    ----------
    images : mapping of str to BandImage
        Images by band.
    position : SkyCoord or None
        Position of the galaxy; None for the centre of the reference image (r if available).
    pixel_scale : PixelScale
        Pixel scale of images without a WCS.
    assumed : set of str
        "noise" is added if the noise is estimated, "scale" and the value if the pixel scale is
        assumed, "zero point" and the keyword if a zero point is read from a header.
    zero_point : float, Quantity or mapping, optional
        AB magnitude of one count, for images in counts.
    size : int
        Pixels on a side of the grid.

    Returns
    -------
    dict of str to (flux, ivar)
        By band, each of shape (size, size).

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
        flux, ivar = to_grid(flux, ivar, placements[band], size)
        cutouts[band] = flux[0], ivar[0]
    if not any(ivar.any() for _, ivar in cutouts.values()):
        why = "; ".join(reasons) or "no pixel lies within the cutout around the galaxy"
        raise ValueError(f"no band has a usable pixel: {why}.")
    return cutouts
