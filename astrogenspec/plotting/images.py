"""Colour images of galaxies, with a scale bar and compass arrows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np

from ..cosmology import default_cosmology
from ..metrics import robust_scatter
from .style import package

if TYPE_CHECKING:
    from astropy.wcs.wcsapi import BaseLowLevelWCS
    from matplotlib.axes import Axes

__all__ = ["annotate_image", "color_image", "display_stretch", "gri_images"]

#: Weights of g, r, i which make the colours of galaxies look natural, chosen by eye for SDSS.
_COLOR_SCALES = (1.4, 1.0, 0.75)
#: Lengths of scale bars in arcsec.
_BAR_LENGTHS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600)
_INK = "white"


def color_image(
    image: np.ndarray, *, stretch: float | None = None, softening: float = 8.0
) -> np.ndarray:
    """Combine g, r, i into a colour image on an asinh scale that preserves colours in bright parts.

    Parameters
    ----------
    image : array_like, shape (3, ny, nx) in g, r, i or (5, ny, nx) in u, g, r, i, z
        Flux in nmgy per pixel; NaN count as 0.  `~astropy.nddata.NDData` is accepted.
    stretch : float, optional
        Flux in nmgy at the linear end of the scale; by default from the brightest part of the
        image.
    softening : float
        Softening Q of Lupton et al. (2004, PASP 116, 133).

    Returns
    -------
    ndarray of uint8, shape (ny, nx, 3)
        Red, green, blue.

    Raises
    ------
    ValueError
        If the image has another shape.
    """
    from astropy.visualization import make_lupton_rgb

    bands = gri_images(image, "image")
    blue, green, red = (np.nan_to_num(b) * s for b, s in zip(bands, _COLOR_SCALES, strict=True))
    if stretch is None:
        stretch = display_stretch(bands)
    return make_lupton_rgb(red, green, blue, minimum=-0.05 * stretch, stretch=stretch, Q=softening)


def annotate_image(
    ax: Axes,
    pixel_scale: u.Quantity | None = None,
    *,
    wcs: BaseLowLevelWCS | None = None,
    redshift: float | None = None,
) -> None:
    """Add a scale bar to an image, and arrows to the north and east if its WCS is given.

    Parameters
    ----------
    ax : `~matplotlib.axes.Axes`
        Axes with an image, one unit of the axes per pixel.
    pixel_scale : Quantity ['angle'], optional
        Angle per pixel; from the WCS by default.
    wcs : `~astropy.wcs.WCS`, optional
        World coordinate system of the image.
    redshift : float, optional
        Redshift of the galaxy; the scale bar is then labelled in kpc too, in the cosmology of
        `~astrogenspec.cosmology.default_cosmology`.

    Raises
    ------
    ValueError
        If neither a pixel scale nor a WCS is given.

    Examples
    --------
    The image of a galaxy at redshift 0.1, from SDSS::

        ax.imshow(plotting.color_image(image), origin="lower")
        plotting.annotate_image(ax, SDSS.pixel_scale, redshift=0.1)
    """
    if wcs is not None:
        from astropy.wcs.utils import proj_plane_pixel_scales

        celestial = wcs.celestial
        if pixel_scale is None:
            pixel_scale = np.mean(proj_plane_pixel_scales(celestial)) * u.deg
    if pixel_scale is None:
        raise ValueError("the scale of the image is unknown; pass pixel_scale or wcs.")
    left, right = ax.get_xlim()
    bottom, top = ax.get_ylim()
    scale = pixel_scale.to_value(u.arcsec)
    third = abs(right - left) * scale / 3
    length = max([bar for bar in _BAR_LENGTHS if bar <= third], default=_BAR_LENGTHS[0])
    label = f"{length:g}″"
    if redshift is not None:
        distance = default_cosmology().angular_diameter_distance(redshift)
        size = (length * u.arcsec).to_value(u.rad) * distance.to_value(u.kpc)
        label += f" = {size:.{1 if size < 10 else 0}f} kpc"
    x, y = left + 0.06 * (right - left), bottom + 0.07 * (top - bottom)
    end = x + np.sign(right - left) * length / scale
    outline = package("matplotlib.patheffects").withStroke(linewidth=2.5, foreground="black")
    style: dict[str, Any] = {"color": _INK, "path_effects": [outline], "zorder": 5}
    ax.plot([x, end], [y, y], lw=1.6, solid_capstyle="butt", **style)
    ax.text(x, y + 0.02 * (top - bottom), label, ha="left", va="bottom", **style)
    if wcs is not None:
        _add_compass(ax, celestial, style)
    ax.set(xlim=(left, right), ylim=(bottom, top))


def _add_compass(ax: Axes, wcs: Any, style: dict[str, Any]) -> None:
    """Draw arrows to the north and east in the lower right corner."""
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    corner = np.array([right - 0.17 * (right - left), bottom + 0.17 * (top - bottom)])
    centre = wcs.pixel_to_world((left + right) / 2, (bottom + top) / 2)
    origin = np.array(wcs.world_to_pixel(centre))
    for name, angle in (("N", 0 * u.deg), ("E", 90 * u.deg)):
        world = centre.directional_offset_by(angle, 1 * u.arcsec)
        direction = np.array(wcs.world_to_pixel(world)) - origin
        direction *= 0.11 * abs(right - left) / np.hypot(*direction)
        tip, label = corner + direction, corner + 1.4 * direction
        arrow = {"arrowstyle": "-|>", "color": _INK, "shrinkA": 0, "shrinkB": 0}
        arrow["path_effects"] = style["path_effects"]
        ax.annotate("", tuple(tip), tuple(corner), arrowprops=arrow, zorder=style["zorder"])
        ax.text(label[0], label[1], name, ha="center", va="center", **style)


def gri_images(image: Any, argument: str) -> np.ndarray:
    """Return the bands g, r, i of an image.

    Parameters
    ----------
    image : array_like or `~astropy.nddata.NDData`
        Image of the bands g, r, i, or u, g, r, i, z.
    argument : str
        Name of the image in error messages.

    Returns
    -------
    ndarray of float, shape (3, ny, nx)

    Raises
    ------
    ValueError
        If the image has another shape.
    """
    from astropy.nddata import NDData

    values = image.data if isinstance(image, NDData) else getattr(image, "value", image)
    values = np.asarray(values, dtype=float)
    if values.ndim != 3 or len(values) not in (3, 5):
        raise ValueError(
            f"{argument} has shape {values.shape}; expected (3, ny, nx) in g, r, i or (5, ny, "
            "nx) in u, g, r, i, z."
        )
    return values[1:4] if len(values) == 5 else values


def display_stretch(bands: np.ndarray) -> float:
    """Choose the flux at the linear end of the colour scale.

    Parameters
    ----------
    bands : ndarray, shape (3, ny, nx)
        Images in g, r, i.

    Returns
    -------
    float
        An eighth of the flux of the brightest pixels, but at least three times the noise.
    """
    mean = np.nan_to_num(bands).mean(axis=0)
    noise = robust_scatter(np.diff(mean, axis=1)) / np.sqrt(2)
    return float(max(np.percentile(mean, 99.7) / 8, 3 * noise, 1e-6))
