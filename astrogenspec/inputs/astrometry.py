"""Sky coordinates of cutouts: pixel scale, orientation, and transformations between bands.

A world coordinate system is linearised around the galaxy by finite differences.  This works for
every system that astropy can evaluate, including sliced and distorted ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS, NoConvergence, WcsError
from astropy.wcs.wcsapi import BaseHighLevelWCS, BaseLowLevelWCS, HighLevelWCSWrapper

__all__ = [
    "SCALE_RANGE",
    "LocalGrid",
    "celestial",
    "check_scale",
    "local_grid",
    "to_pixel",
    "wcs_errors",
]

#: Range of valid pixel scales (arcsec).
SCALE_RANGE = (0.01, 2.5)
#: Maximum deviation of the pixel axes from a right angle, as its sine.
MAX_SKEW = 0.02


@dataclass(frozen=True)
class LocalGrid:
    """Pixel scale and orientation at one point of an image.

    Attributes
    ----------
    scale : tuple of float
        Arcsec per pixel along y and x.
    angle : float
        Position angle of the x axis, degrees from east towards north.
    parity : int
        Handedness of the pixel axes, 1 or -1.
    """

    scale: tuple[float, float]
    angle: float
    parity: int


@contextmanager
def wcs_errors(what: str = "the WCS") -> Iterator[None]:
    """Convert the errors of the WCS library to one sentence.

    Parameters
    ----------
    what : str
        Description of the WCS, for the error message.

    Yields
    ------
    None

    Raises
    ------
    ValueError
        If the WCS is singular or inconsistent.
    """
    try:
        with np.errstate(all="ignore"):
            yield
    except (WcsError, MemoryError) as error:
        lines = [line for line in str(error).splitlines() if not line.startswith("ERROR")]
        reason = " ".join(" ".join(lines).split())[:200].rstrip(".:") or type(error).__name__
        raise ValueError(f"{what} cannot be used ({reason}); correct its keywords.") from error


def celestial(wcs: object) -> BaseHighLevelWCS | None:
    """Reduce a world coordinate system to its two axes on the sky.

    Parameters
    ----------
    wcs : WCS, any astropy low-level or high-level WCS, or None
        World coordinate system of an NDData.

    Returns
    -------
    high-level WCS with two pixel axes, or None
        None without a world coordinate system, or if it has no sky coordinates.

    Raises
    ------
    TypeError
        If the argument is not a world coordinate system.
    ValueError
        If the system cannot be reduced to two axes.
    """
    if wcs is None:
        return None
    if isinstance(wcs, WCS):
        with wcs_errors():
            return wcs.celestial if wcs.has_celestial else None
    if isinstance(wcs, BaseLowLevelWCS) and not isinstance(wcs, BaseHighLevelWCS):
        wcs = HighLevelWCSWrapper(wcs)
    if not isinstance(wcs, BaseHighLevelWCS):
        raise TypeError(
            f"wcs is of type {type(wcs).__name__}, which is not a world coordinate system; "
            "give an astropy.wcs.WCS."
        )
    low = wcs.low_level_wcs
    types = [str(kind) for kind in low.world_axis_physical_types]
    if sum(kind.startswith("pos.") for kind in types) < 2:
        return None
    if low.pixel_n_dim != 2 or low.world_n_dim != 2:
        raise ValueError(
            f"wcs has {low.pixel_n_dim} pixel axes and the world axes {', '.join(types)}; "
            "give one with two axes on the sky only."
        )
    return wcs


def check_scale(scale: tuple[float, float], what: str) -> None:
    """Raise unless pixel scales are valid.

    Parameters
    ----------
    scale : tuple of float
        Arcsec per pixel along y and x.
    what : str
        Source of the values, for the error message.

    Raises
    ------
    ValueError
        If a scale is outside `SCALE_RANGE`.
    """
    low, high = SCALE_RANGE
    if not all(low <= side <= high for side in scale):
        raise ValueError(
            f"{what} is {scale[1]:.4g} x {scale[0]:.4g} arcsec (x, y), "
            f"but it must be between {low} and {high} arcsec; correct it."
        )


def _unit_vectors(wcs: BaseHighLevelWCS, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    low = wcs.low_level_wcs
    lon, lat = (
        u.Quantity(value, unit).to_value(u.rad)
        for value, unit in zip(low.pixel_to_world_values(x, y), low.world_axis_units, strict=True)
    )
    if "lat" in str(low.world_axis_physical_types[0]) or str(
        low.world_axis_physical_types[0]
    ).endswith(".dec"):
        lon, lat = lat, lon
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)


def local_grid(wcs: BaseHighLevelWCS, x: float, y: float) -> LocalGrid:
    """Return the pixel scale and orientation at one pixel.

    Parameters
    ----------
    wcs : high-level WCS
        From `celestial`.
    x, y : float
        Pixel coordinates, 0 at the centre of the first pixel.

    Returns
    -------
    LocalGrid

    Raises
    ------
    ValueError
        If the pixel scale is outside `SCALE_RANGE`, or the axes are not perpendicular.
    """
    # Five points, for central differences.
    with wcs_errors():
        points = _unit_vectors(
            wcs, x + np.array([0, 0.5, -0.5, 0, 0]), y + np.array([0, 0, 0, 0.5, -0.5])
        )
    if not np.isfinite(points).all():
        raise ValueError(
            f"wcs gives no position on the sky for pixel (x, y) = ({x:g}, {y:g}); check its "
            "keywords."
        )
    axis = points[0]
    east = np.cross([0.0, 0.0, 1.0], axis)
    norm = np.linalg.norm(east)
    east = east / norm if norm > 1e-12 else np.array([0.0, 1.0, 0.0])
    basis = np.stack([east, np.cross(axis, east)])
    along_x, along_y = basis @ (points[1] - points[2]), basis @ (points[3] - points[4])
    scale_x, scale_y = (float(np.rad2deg(np.hypot(*step)) * 3600) for step in (along_x, along_y))
    check_scale((scale_y, scale_x), "the pixel scale of the WCS")
    arcsec = np.deg2rad(1 / 3600)
    skew = float(along_x @ along_y) / (scale_x * scale_y * arcsec**2)
    if abs(skew) > MAX_SKEW:
        angle = np.rad2deg(np.arccos(np.clip(skew, -1, 1)))
        raise ValueError(
            f"the pixel axes are {angle:.1f} degrees apart, not 90; "
            "reproject the cutout to a grid without shear."
        )
    parity = 1 if along_x[0] * along_y[1] - along_x[1] * along_y[0] > 0 else -1
    return LocalGrid(
        (scale_y, scale_x), float(np.rad2deg(np.arctan2(along_x[1], along_x[0]))), parity
    )


def to_pixel(
    source: BaseHighLevelWCS | SkyCoord, x: float, y: float, target: BaseHighLevelWCS
) -> tuple[float, float]:
    """Transform a point of one image, or a sky position, to pixel coordinates of another image.

    Parameters
    ----------
    source : high-level WCS or SkyCoord
        System of x and y, or a sky position, for which x and y are ignored.
    x, y : float
        Pixel coordinates, from 0.
    target : high-level WCS
        System of the other image.

    Returns
    -------
    x, y : float
        Pixel coordinates in the target; NaN if the point is outside its domain.
    """
    if source is target:
        return x, y
    try:
        with wcs_errors():
            if isinstance(source, SkyCoord):
                found = target.world_to_pixel(source)
            elif _same_frame(source, target):
                world = source.low_level_wcs.pixel_to_world_values(x, y)
                found = target.low_level_wcs.world_to_pixel_values(*world)
            else:
                found = target.world_to_pixel(source.pixel_to_world(x, y))
    except NoConvergence:
        return np.nan, np.nan
    return float(found[0]), float(found[1])


def _same_frame(one: BaseHighLevelWCS, other: BaseHighLevelWCS) -> bool:
    """Return whether two systems have the same sky frame."""
    return (
        isinstance(one, WCS)
        and isinstance(other, WCS)
        and list(one.wcs.ctype) == list(other.wcs.ctype)
        and one.wcs.radesys == other.wcs.radesys
        and np.array_equal(one.wcs.equinox, other.wcs.equinox, equal_nan=True)
    )
