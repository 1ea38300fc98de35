r"""Image statistics that reveal blank fields, stars, artefacts, neighbours, wrong noise or sky.

All statistics are computed about the middle of the cutout, without source detection, so that a
thousand galaxies take about a second.  The reference band is r, or else the first one present of i,
g, z, u.  Moments are taken under a Gaussian window of standard deviation :math:`w`.  For a Gaussian
source of standard deviation :math:`\sigma`, the second moment (sum over x and y) is :math:`2 /
(\sigma^{-2} + w^{-2})`, and a displacement :math:`d` of the source appears as
:math:`d\,w^2 / (\sigma^2 + w^2)`, which a factor of 1.7 corrects approximately.
"""

from __future__ import annotations

import numpy as np

from ...inputs.fluxes import ab_magnitudes
from ...surveys import BANDS, CUTOUT_SIZE

__all__ = ["aperture_magnitudes", "image_statistics"]

#: Bands in the order in which they are preferred as reference.
_PREFERRED = tuple(BANDS.index(band) for band in "rigzu")
_PIXELS = np.arange(CUTOUT_SIZE, dtype=np.float32)
_MIDDLE = (CUTOUT_SIZE - 1) / 2
_RADIUS = np.hypot(_PIXELS - _MIDDLE, (_PIXELS - _MIDDLE)[:, None])
#: Standard deviations of the Gaussian windows (pixels), and correction of centroids for the window.
_WINDOW, _WIDE_WINDOW = 3.0, 6.0
_CENTROID_FACTOR = 1.7
_APERTURE = _RADIUS < 4.5
_CORE = _RADIUS < 6.0
#: Maximum distance of the centroid from the middle along each axis (pixels).
_MAX_OFFSET = 8.0
#: Width of a block (pixels), and mean distance of each block from the middle.
_BLOCK = 4
_BLOCK_RADIUS = _RADIUS.reshape(16, _BLOCK, 16, _BLOCK).mean(axis=(1, 3))
#: Blocks along the edges of the cutout, and pairs of these that are at least half a cutout apart.
_EDGE = np.ones((16, 16), bool)
_EDGE[1:-1, 1:-1] = False
_EDGE_BLOCKS = np.argwhere(_EDGE)
_OPPOSITE = np.linalg.norm(_EDGE_BLOCKS[:, None] - _EDGE_BLOCKS, axis=2) >= 8
#: Aperture signal-to-noise ratio from which the centroids of bands are compared.
_MIN_SIGNAL_FOR_CENTROID = 30.0
#: Signal-to-noise ratio of a pixel from which its sharpness is computed.
_MIN_SIGNAL_FOR_SHARPNESS = 20.0
#: Fraction of the highest pixel from which a pixel belongs to the plateau.
_PLATEAU = 0.97
_BATCH = 512


def image_statistics(flux: np.ndarray, ivar: np.ndarray) -> dict[str, np.ndarray]:
    """Compute statistics of images.

    Parameters
    ----------
    flux, ivar : ndarray, shape (n, 5, 64, 64)
        Flux [nmgy per pixel] and inverse variance [nmgy**-2]; an inverse variance of 0 marks a bad
        pixel.

    Returns
    -------
    dict of str to ndarray of float, shape (n,)
        NaN where a statistic is undefined:

        ``signal``
            log10 of the highest signal-to-noise ratio of a band within 4.5 pixels of the middle (0
            if less than 1).
        ``size``
            Second moment under a Gaussian window of 3 pixels, pixels**2: about 3.4 for a point
            source in average seeing.
        ``wings``
            log10 of the ratio of the Gaussian variances implied by the second moments under windows
            of 6 and 3 pixels: near 0 for a point source.
        ``offset``
            Distance of the centroid from the middle, pixels.
        ``misregistration``
            Largest distance of the centroid of a band from that of the reference band, pixels.
        ``plateau``
            Largest number of pixels of a band within 3% of the highest value, in the central 24 x
            24 pixels.
        ``sharpness``
            Largest fraction of the flux of 3 x 3 pixels that is in their central pixel, for bright
            pixels.
        ``neighbour``
            log10 of the flux of the brightest block farther than 14 pixels from the middle over
            that of the brightest central block.  Blocks are 4 x 4 pixels.
        ``edge``
            The same for the third brightest block along the edges.
        ``opposite``
            The same for the brightest edge block at least half a cutout away from the brightest
            one: a trail has both ends.
        ``background``
            Median flux of the outermost four pixels, in units of the pixel noise, of the band where
            it deviates most.
        ``noise``
            log10 of the ratio of the scatter of the outermost four pixels to their stated
            uncertainty, of the band where it deviates most.
        ``masked``, ``masked_core``
            Largest fraction of bad pixels of a band: in the cutout, and within 6 pixels of the
            middle.
    """
    parts = [
        _batch_statistics(np.asarray(flux[k : k + _BATCH], np.float32), ivar[k : k + _BATCH])
        for k in range(0, len(flux), _BATCH)
    ]
    if not parts:
        empty = np.zeros((1, *flux.shape[1:]), np.float32)
        parts = [_batch_statistics(empty, np.zeros((1, *flux.shape[1:])))]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return {name: np.asarray(values[: len(flux)], float) for name, values in joined.items()}


def aperture_magnitudes(flux: np.ndarray, ivar: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Measure magnitudes within 4.5 pixels of the middle.

    Parameters
    ----------
    flux, ivar : ndarray, shape (n, 5, 64, 64)
        As for `image_statistics`.

    Returns
    -------
    magnitudes, errors : ndarray, shape (n, 5)
        AB, as observed; NaN where the signal-to-noise ratio is below 5 or a pixel is bad.
    """
    good = np.all(ivar[:, :, _APERTURE] > 0, axis=2)
    inside = np.where(good[..., None], ivar[:, :, _APERTURE], 1.0)
    light = np.where(good[..., None], flux[:, :, _APERTURE], 0.0).sum(axis=2, dtype=float)
    noise = np.sqrt((1 / inside).sum(axis=2, dtype=float))
    usable = good & (light > 5 * noise)
    errors = np.divide(1.0857 * noise, light, out=np.full(light.shape, np.nan), where=usable)
    return np.where(usable, ab_magnitudes(light), np.nan), errors


def _batch_statistics(flux: np.ndarray, ivar: np.ndarray) -> dict[str, np.ndarray]:
    valid = ivar > 0
    flux = np.where(valid, flux, np.float32(0))
    present = np.any(valid, axis=(2, 3))
    rows, reference = np.arange(len(flux)), _reference_band(present)
    variance = np.divide(1, ivar, out=np.zeros(ivar.shape, np.float32), where=valid)
    sigma = _pixel_noise(ivar, valid)
    light, noise = _aperture(flux, variance)
    ratio = np.divide(light, noise, out=np.zeros(light.shape), where=noise > 0)
    own, size, shifts = _centroids(flux, reference)
    wide = _moments(flux[rows, reference][:, None], own, _WIDE_WINDOW)[1][:, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        wings = np.log10(_gaussian_variance(wide, _WIDE_WINDOW) / _gaussian_variance(size, _WINDOW))
        apart = np.where(
            ratio > _MIN_SIGNAL_FOR_CENTROID, np.hypot(shifts[..., 0], shifts[..., 1]), np.nan
        )
    seen = ratio[rows, reference] > 5
    found = {
        "signal": np.log10(np.clip(ratio.max(axis=1), 1, None)),
        "size": np.where(seen, size, np.nan),
        "wings": np.where(seen, wings, np.nan),
        "offset": np.where(seen, np.hypot(*(own - _MIDDLE).T), np.nan),
        "misregistration": _largest(apart, minimum=2),
        "plateau": _plateau(flux, sigma),
        "sharpness": _sharpness(flux, sigma),
        "masked": _fraction(~valid, present),
        "masked_core": _fraction(~valid[:, :, _CORE], present),
    }
    return (
        found
        | _neighbour_statistics(flux[rows, reference], seen)
        | _edge_statistics(flux, variance, sigma)
    )


def _aperture(flux: np.ndarray, variance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum flux and noise within 4.5 pixels of the middle, shape (n, 5) each."""
    light = flux[:, :, _APERTURE].sum(axis=2, dtype=float)
    return light, np.sqrt(variance[:, :, _APERTURE].sum(axis=2, dtype=float))


def _reference_band(present: np.ndarray) -> np.ndarray:
    ordered = present[:, _PREFERRED]
    return np.array(_PREFERRED)[ordered.argmax(axis=1)]


def _pixel_noise(ivar: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Return the median noise of every fourth pixel in each band; NaN for a missing band."""
    sampled = np.where(valid, ivar, np.nan)[:, :, 1::4, 1::4].reshape(*ivar.shape[:2], -1)
    ordered = np.sort(sampled, axis=2)
    n_good = np.count_nonzero(np.isfinite(ordered), axis=2)
    middle = np.take_along_axis(
        ordered, np.maximum(n_good // 2, 0)[..., None].clip(max=255), axis=2
    )
    return np.where(n_good > 0, middle[..., 0], np.nan) ** -0.5


def _centroids(
    flux: np.ndarray, reference: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return centroid and second moment in the reference band, and displacements of the bands.

    Their shapes are (n, 2), (n,) and (n, 5, 2).
    """
    light = flux[np.arange(len(flux)), reference][:, None]
    centre = np.full((len(flux), 2), _MIDDLE)
    for width in (5.0, _WINDOW, _WINDOW, _WINDOW):
        moved = _moments(light, centre, width)[0][:, 0]
        # The window hides part of the displacement.
        centre = centre + _CENTROID_FACTOR * np.nan_to_num(moved)
        centre = np.clip(centre, _MIDDLE - _MAX_OFFSET, _MIDDLE + _MAX_OFFSET)
    first, second = _moments(flux, centre, _WINDOW)
    rows = np.arange(len(flux))
    shifts = _CENTROID_FACTOR * (first - first[rows, reference][:, None])
    return centre, second[rows, reference], shifts


def _moments(flux: np.ndarray, centre: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Return moments about a centre (n, 2) under a Gaussian window.

    The first moments (x and y) have shape (n, b, 2), the second moments (n, b).
    """
    along = _PIXELS - centre[..., None]
    window = np.exp(-0.5 * np.square(along / width)).astype(np.float32)
    over_x = np.einsum("nbyx,nx->nby", flux, window[:, 0])
    over_y = np.einsum("nbyx,ny->nbx", flux, window[:, 1])
    x, y = (along[:, k] * window[:, k] for k in (0, 1))
    total = np.einsum("nby,ny->nb", over_x, window[:, 1])
    first = np.stack(
        [np.einsum("nbx,nx->nb", over_y, x), np.einsum("nby,ny->nb", over_x, y)], axis=-1
    )
    second = np.einsum("nbx,nx->nb", over_y, x * along[:, 0])
    second = second + np.einsum("nby,ny->nb", over_x, y * along[:, 1])
    with np.errstate(divide="ignore", invalid="ignore"):
        return first / total[..., None], second / total


def _gaussian_variance(moment: np.ndarray, width: float) -> np.ndarray:
    """Return the variance of the Gaussian with this second moment under a window, or NaN."""
    inverse = 2 / moment - 1 / width**2
    return np.divide(1, inverse, out=np.full(inverse.shape, np.nan), where=inverse > 1e-3)


def _largest(values: np.ndarray, minimum: int) -> np.ndarray:
    """Return the largest value of each row with at least ``minimum`` finite values, else NaN."""
    finite = np.isfinite(values)
    largest = np.where(finite, values, -np.inf).max(axis=1)
    return np.where(finite.sum(axis=1) >= minimum, largest, np.nan)


def _plateau(flux: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    box = flux[:, :, 20:44, 20:44]
    top = box.max(axis=(2, 3))
    count = np.count_nonzero(box >= _PLATEAU * top[..., None, None], axis=(2, 3))
    with np.errstate(invalid="ignore"):
        # If the noise exceeds the margin, its peaks would be counted.
        return np.where(top * (1 - _PLATEAU) > sigma, count, 0).max(axis=1).astype(float)


def _sharpness(flux: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    inner = flux[:, :, 1:-1, 1:-1]
    with np.errstate(invalid="ignore"):
        # Bands without a bright pixel are skipped.
        galaxy, band = np.nonzero(inner.max(axis=(2, 3)) > _MIN_SIGNAL_FOR_SHARPNESS * sigma)
    chosen, inner = flux[galaxy, band], inner[galaxy, band]
    rows = chosen[:, :-2] + chosen[:, 1:-1] + chosen[:, 2:]
    around = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    bright = inner > _MIN_SIGNAL_FOR_SHARPNESS * sigma[galaxy, band][:, None, None]
    fraction = np.divide(
        inner, around, out=np.zeros(inner.shape, np.float32), where=bright & (around > 0)
    )
    largest = np.zeros(len(flux), np.float32)
    np.maximum.at(largest, galaxy, fraction.max(axis=(1, 2)))
    return largest


def _fraction(bad: np.ndarray, present: np.ndarray) -> np.ndarray:
    by_band = bad.reshape(*present.shape, -1).mean(axis=2)
    return np.where(present, by_band, 0).max(axis=1)


def _neighbour_statistics(flux: np.ndarray, seen: np.ndarray) -> dict[str, np.ndarray]:
    """Compare the flux of blocks far from the middle with that in the middle."""
    blocks = flux.reshape(len(flux), 16, _BLOCK, 16, _BLOCK).sum(axis=(2, 4))
    centre = blocks[:, 6:10, 6:10].max(axis=(1, 2))
    far = blocks[:, _BLOCK_RADIUS > 14].max(axis=1)
    edge = blocks[:, _EDGE]
    third = np.partition(edge, -3, axis=1)[:, -3]
    apart = _OPPOSITE[edge.argmax(axis=1)]
    opposite = np.where(apart, edge, -np.inf).max(axis=1)
    usable = seen & (centre > 0)
    centre = np.where(usable, centre, 1.0)
    return {
        name: np.where(usable, np.log10(np.clip(values / centre, 1e-4, 1e4)), np.nan)
        for name, values in (("neighbour", far), ("edge", third), ("opposite", opposite))
    }


def _edge_statistics(
    flux: np.ndarray, variance: np.ndarray, sigma: np.ndarray
) -> dict[str, np.ndarray]:
    """Return level and noise of the outermost four pixels, in the band where they deviate most."""
    strips = [(slice(0, 4), slice(None)), (slice(-4, None), slice(None))]
    strips += [(slice(4, -4), slice(0, 4)), (slice(4, -4), slice(-4, None))]
    level, differences = [], []
    for y, x in strips:
        values, error = flux[:, :, y, x], variance[:, :, y, x]
        level.append(np.where(error > 0, values, np.nan).reshape(*sigma.shape, -1))
        total = error[..., 1:] + error[..., :-1]
        usable = (error[..., 1:] > 0) & (error[..., :-1] > 0)
        step = np.full(total.shape, np.nan, np.float32)
        np.divide(values[..., 1:] - values[..., :-1], np.sqrt(total), out=step, where=usable)
        differences.append(step.reshape(*sigma.shape, -1))
    background = _row_median(np.concatenate(level, axis=2)) / sigma
    scatter = 1.4826 * _row_median(np.abs(np.concatenate(differences, axis=2)))
    with np.errstate(divide="ignore", invalid="ignore"):
        noise = np.log10(np.clip(scatter, 1e-3, 1e3))
    return {"background": _largest_deviation(background), "noise": _largest_deviation(noise)}


def _row_median(values: np.ndarray) -> np.ndarray:
    """Return the median of at least 50 finite entries along the last axis, otherwise NaN."""
    ordered = np.sort(values, axis=2)
    n_good = np.count_nonzero(np.isfinite(ordered), axis=2)
    middle = np.take_along_axis(
        ordered, np.minimum(n_good // 2, values.shape[2] - 1)[..., None], axis=2
    )
    return np.where(n_good >= 50, middle[..., 0], np.nan)


def _largest_deviation(values: np.ndarray) -> np.ndarray:
    """Return the entry of each row with the largest absolute value."""
    size = np.where(np.isfinite(values), np.abs(values), -1)
    largest = np.take_along_axis(values, size.argmax(axis=1)[:, None], axis=1)[:, 0]
    return np.where(size.max(axis=1) >= 0, largest, np.nan)
