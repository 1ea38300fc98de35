"""Maps of sums in HEALPix pixels: the whole sky or a part of it, projected on a grid."""

from __future__ import annotations

from typing import Any

import numpy as np
from astropy.wcs import WCS

from .labels import plain_label
from .packing import ArrayPack, quantised
from .survey_sums import SkySums, healpix

__all__ = ["sky_map", "sky_projection"]

#: Width of the grid, and extent (degrees) beyond which the whole sky is shown.
_WIDTH = 720
_PART = 100.0
_POINTS = 200


def sky_projection(ra: np.ndarray, dec: np.ndarray) -> tuple[WCS, tuple[int, int]]:
    """Choose a projection for positions.

    Parameters
    ----------
    ra, dec : ndarray
        Positions in degrees.

    Returns
    -------
    wcs : `~astropy.wcs.WCS`
        Mollweide projection of the whole sky, or the equal-area zenithal projection of the part in
        which the positions are. East is on the left.
    shape : (int, int)
        Height and width of the grid in pixels.
    """
    longitude, latitude = np.radians(ra), np.radians(dec)
    vector = np.array(
        [
            np.cos(latitude) * np.cos(longitude),
            np.cos(latitude) * np.sin(longitude),
            np.sin(latitude),
        ]
    )
    mean = vector.mean(axis=1)
    length = np.linalg.norm(mean)
    centre_ra = float(np.degrees(np.arctan2(mean[1], mean[0]))) % 360
    made = WCS(naxis=2)
    if length > 0.1:
        cosines = np.clip(mean @ vector / length, -1, 1)
        radius = float(np.degrees(np.arccos(np.percentile(cosines, 0.2))))
        if 2 * radius < _PART:
            centre_dec = float(np.degrees(np.arcsin(mean[2] / length)))
            scale = 2.1 * max(radius, 1e-3) / _WIDTH
            height = 2 * _WIDTH // 3
            scale *= _WIDTH / height
            made.wcs.ctype = ["RA---ZEA", "DEC--ZEA"]
            made.wcs.crval = [centre_ra, centre_dec]
            made.wcs.cdelt = [-scale, scale]
            made.wcs.crpix = [(_WIDTH + 1) / 2, (height + 1) / 2]
            return made, (height, _WIDTH)
    made.wcs.ctype = ["RA---MOL", "DEC--MOL"]
    made.wcs.crval = [round(centre_ra / 30) * 30 % 360, 0.0]
    scale = 4 * np.sqrt(2) * np.degrees(1) / (_WIDTH - 2)
    made.wcs.cdelt = [-scale, scale]
    height = _WIDTH // 2
    made.wcs.crpix = [(_WIDTH + 1) / 2, (height + 1) / 2]
    return made, (height, _WIDTH)


def sky_map(
    sky: SkySums, pack: ArrayPack, sample: tuple[np.ndarray, np.ndarray]
) -> dict[str, Any] | None:
    """Project the sums, and add the maps to the arrays of the page.

    Parameters
    ----------
    sky : SkySums
        Sums in pixels.
    pack : ArrayPack
        Arrays of the page.
    sample : tuple of ndarray
        Positions of the sample in degrees, whose places on the grid are added.

    Returns
    -------
    dict or None
        Layers, size, graticule and centre; None without positions.
    """
    if not len(sky.pixels):
        return None
    ra, dec = _centres(sky)
    wcs, shape = sky_projection(ra, dec)
    row, column = np.mgrid[: shape[0], : shape[1]]
    east, north = wcs.all_pix2world(column.ravel(), row.ravel(), 0)
    inside = np.isfinite(east) & np.isfinite(north)
    place = np.full(inside.shape, -1)
    seen = healpix(east[inside], north[inside], sky.order)
    at = np.minimum(np.searchsorted(sky.pixels, seen), len(sky.pixels) - 1)
    place[inside] = np.where(sky.pixels[at] == seen, at, -1)
    layers = []
    for key, title, values, logarithmic in _layers(sky):
        shown = np.where(place >= 0, values[np.maximum(place, 0)], np.nan)
        finite = values[np.isfinite(values)]
        ends = [0.5, 99.5] if len(finite) > 50 else [0, 100]
        low, high = (float(x) for x in np.percentile(finite, ends)) if finite.size else (0.0, 1.0)
        high = high if high > low else low + 1.0
        pack.add(f"sky {key}", quantised(shown.reshape(shape), low, high))
        layers.append(
            {"key": key, "title": title, "low": low, "high": high, "logarithmic": logarithmic}
        )
    pack.add("sky inside", inside.reshape(shape).astype(np.uint8))
    x, y = wcs.all_world2pix(*(np.asarray(angle, float) for angle in sample), 0)
    pack.add("sample sky_x", quantised(x, 0, shape[1] - 1))
    pack.add("sample sky_y", quantised(y, 0, shape[0] - 1))
    return {
        "layers": layers,
        "shape": list(shape),
        "whole": bool(wcs.wcs.ctype[0].endswith("MOL")),
        "graticule": _graticule(wcs, shape),
        "order": sky.order,
        "pixel": round(58.6 / 2**sky.order, 4),
        "missing": sky.missing,
        "projection": {
            "centre": [float(x) for x in wcs.wcs.crval],
            "scale": float(wcs.wcs.cdelt[1]),
        },
    }


def _centres(sky: SkySums) -> tuple[np.ndarray, np.ndarray]:
    from .figures import view_package

    longitude, latitude = view_package("cdshealpix.nested").healpix_to_lonlat(
        sky.pixels.astype(np.uint64), sky.order
    )
    return longitude.deg, latitude.deg


def _layers(sky: SkySums) -> list[tuple[str, str, np.ndarray, bool]]:
    """Return key, title, values in each pixel, and whether they are logarithms."""
    area = 4 * np.pi * np.degrees(1) ** 2 / (12 * 4**sky.order)
    count, flagged = sky.sums[:, 0], sky.sums[:, 1]
    layers = [
        ("density", "Galaxies per square degree", np.log10(count / area), True),
        ("flagged", "Fraction with flags", flagged / count, False),
    ]
    for k, key in enumerate(sky.keys):
        number, total = sky.sums[:, 2 + 2 * k], sky.sums[:, 3 + 2 * k]
        mean = np.divide(total, number, out=np.full(len(total), np.nan), where=number > 0)
        label = plain_label(key)
        layers.append((key, f"Mean {label.axis}", mean, False))
    return layers


def _graticule(wcs: WCS, shape: tuple[int, int]) -> list[dict[str, Any]]:
    """Return meridians and parallels as lines on the grid, with labels."""
    whole = wcs.wcs.ctype[0].endswith("MOL")
    centre = wcs.wcs.crval
    extent = 180.0 if whole else shape[0] * wcs.wcs.cdelt[1]
    steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30]
    step = 30.0 if whole else next((s for s in steps if s >= extent / 5), 30.0)
    lines = []
    low, high = max(-90.0, centre[1] - extent), min(90.0, centre[1] + extent)
    stretch = 1 / max(np.cos(np.radians(min(abs(low), abs(high), abs(centre[1])))), 0.1)
    across = 180.0 if whole else min(180.0, 1.2 * extent * stretch)
    for dec in np.arange(np.ceil(low / step) * step, high + 1e-9, step):
        if abs(dec) < 90:
            ra = np.linspace(centre[0] - across + 1e-3, centre[0] + across - 1e-3, _POINTS)
            lines.append(
                _line(wcs, shape, ra, np.full(_POINTS, dec), f"{dec:+g}°" if dec else "0°")
            )
    step *= 1 if whole else min(10, max(1, round(stretch)))
    offsets = np.arange(-np.floor(across / step), np.floor(across / step) + 1) * step
    start = np.round(centre[0] / step) * step
    for ra in start + offsets:
        if abs(ra - centre[0]) < across:
            dec = np.linspace(low, high, _POINTS)
            lines.append(_line(wcs, shape, np.full(_POINTS, ra), dec, f"{ra % 360:g}°"))
    return [line for line in lines if len(line["points"]) > 1]


def _line(
    wcs: WCS, shape: tuple[int, int], ra: np.ndarray, dec: np.ndarray, label: str
) -> dict[str, Any]:
    x, y = wcs.all_world2pix(ra, dec, 0)
    inside = np.isfinite(x) & (x > -1) & (x < shape[1]) & (y > -1) & (y < shape[0])
    points = [
        [round(float(a), 1), round(float(shape[0] - 1 - b), 1)]
        for a, b in zip(x[inside], y[inside], strict=True)
    ]
    return {"label": label, "parallel": bool(dec[0] == dec[-1]), "points": points}
