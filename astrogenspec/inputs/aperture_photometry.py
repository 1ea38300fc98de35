r"""Photometry of cutouts: one elliptical aperture for all bands, determined in the r band.

The galaxy is the source at the centre of the cutout.  Blended sources are separated by raising the
threshold: a component that splits off is another source if it has at least `CONTRAST` of the flux
(the idea of SExtractor [1]_) and a peak of at least `PROMINENCE` times the threshold; each pixel
belongs to the peak that is reached by steepest ascent.  The second moments of the remaining light
define an ellipse; the semi-major axis of the aperture is 2.5 times the first moment :math:`r_1 =
\sum R f / \sum f` of Kron [2]_.  The same aperture is used in every band, so that colours refer to
one region.  Bad pixels and pixels of neighbours are replaced by the mean of the good pixels at the
same elliptical radius, and the error is increased accordingly.  Errors follow from the inverse
variances alone.  Light outside the aperture (about 4% for an exponential disk) and outside the
cutout is not included.

References
----------
.. [1] Bertin, E. & Arnouts, S. 1996, A&AS, 117, 393.
.. [2] Kron, R. G. 1980, ApJS, 43, 305.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from photutils.aperture import EllipticalAperture
from scipy import ndimage

from ..surveys import BANDS, CUTOUT_SIZE

__all__ = ["CONTRAST", "PROMINENCE", "Ellipse", "find_galaxy", "measure_cutout"]

#: Minimum fraction of the flux that a blended neighbour has above the saddle.
CONTRAST = 0.02
#: Minimum ratio of its peak to the saddle; knots in spiral arms have less.
PROMINENCE = 1.5
_SMOOTHING = 1.2  # pixels, standard deviation of the detection filter
_THRESHOLD = 3.0  # standard deviations of the smoothed sky
_LEVELS = 8
_CORE, _SEARCH = 3.0, 8.0  # pixels from the centre
_MIN_RADIUS, _MAX_RADIUS = 3.5, 45.0  # pixels, semi-major axis of the aperture
_ANNULUS = 1.5  # pixels, width of the annuli from which bad pixels are filled
_EVERYWHERE = np.ones((3, 3), bool)
_MIDDLE = (CUTOUT_SIZE - 1) / 2
_PIXELS = np.arange(CUTOUT_SIZE, dtype=float)
_FROM_MIDDLE = np.hypot(_PIXELS - _MIDDLE, (_PIXELS - _MIDDLE)[:, None])
_NEAR = {reach: reach >= _FROM_MIDDLE for reach in (_CORE, _SEARCH)}
_BOX = slice(int(_MIDDLE) - 7, int(_MIDDLE) + 9)
_SUBPIXELS = 5
_MIN_PIXELS = 6  # of a neighbour


@dataclass(frozen=True)
class Ellipse:
    """Ellipse on a cutout.

    Attributes
    ----------
    x, y : float
        Centre, pixels.
    major, minor : float
        Semi-axes, pixels.
    angle : float
        Angle from the x axis to the major axis, radians.
    """

    x: float
    y: float
    major: float
    minor: float
    angle: float

    def radius(self) -> np.ndarray:
        """Return the semi-major axis of the similar ellipse through each pixel, shape (64, 64)."""
        cos, sin, ratio = np.cos(self.angle), np.sin(self.angle), self.major / self.minor
        dx, dy = _PIXELS - self.x, _PIXELS - self.y
        along = (sin * dy)[:, None] + cos * dx
        across = (ratio * cos * dy)[:, None] - ratio * sin * dx
        return np.sqrt(along * along + across * across)

    def scaled(self, major: float) -> Ellipse:
        """Return the similar ellipse with another semi-major axis."""
        return Ellipse(self.x, self.y, major, self.minor * major / self.major, self.angle)


def measure_cutout(flux: np.ndarray, ivar: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
    """Measure one galaxy in all bands.

    Parameters
    ----------
    flux, ivar : ndarray, shape (5, 64, 64)
        nmgy per pixel and nmgy**-2; an inverse variance of 0 marks a bad pixel.

    Returns
    -------
    flux, error : ndarray, shape (5,)
        nmgy; NaN in a band that cannot be measured.
    reason : str
        Why no band could be measured, without a full stop; empty if any could.
    """
    total, error = np.full(len(BANDS), np.nan), np.full(len(BANDS), np.nan)
    good = ivar > 0
    band = _detection_band(flux, ivar, good)
    if band is None:
        return total, error, "the cutout has no usable pixels around its centre"
    found = find_galaxy(flux[band], ivar[band])
    if found is None:
        return total, error, f"no source is detected at the centre of the {BANDS[band]}-band cutout"
    aperture, others = found
    shape = EllipticalAperture(
        (aperture.x, aperture.y), aperture.major, aperture.minor, theta=aperture.angle
    )
    weights = shape.to_mask(method="subpixel", subpixels=_SUBPIXELS).to_image(others.shape)
    inside = np.flatnonzero(weights)
    weight = weights.ravel()[inside]
    ring = (aperture.radius().ravel()[inside] / _ANNULUS).astype(np.intp)
    full = np.bincount(ring, weight)
    clean = ~others.ravel()[inside]
    values, inverse = (array.reshape(len(BANDS), -1)[:, inside] for array in (flux, ivar))
    for k in range(len(BANDS)):
        usable = (inverse[k] > 0) & clean
        filled = weight
        if not usable.all():
            seen = np.bincount(ring, weight * usable, minlength=len(full))
            if full[seen > 0].sum() < 0.8 * full.sum() or seen.sum() < 0.4 * full.sum():
                continue
            ratio = np.divide(full, seen, out=np.zeros_like(full), where=seen > 0)
            filled = (weight * ratio[ring])[usable]
        total[k] = filled @ values[k, usable]
        error[k] = np.sqrt((filled * filled) @ (1 / inverse[k, usable]))
    if np.isnan(total).all():
        return total, error, "too many pixels of the galaxy are bad or covered by neighbours"
    return total, error, ""


def _detection_band(flux: np.ndarray, ivar: np.ndarray, good: np.ndarray) -> int | None:
    """Return the index of r, or of the band of highest central signal-to-noise ratio."""
    red = BANDS.index("r")
    if 2 * np.count_nonzero(good[red, _BOX, _BOX]) > good[red, _BOX, _BOX].size:
        return red
    box = (slice(None), _BOX, _BOX)
    usable = good[box].mean(axis=(1, 2)) > 0.5
    if not usable.any():
        return None
    variance = np.divide(1, ivar[box], out=np.zeros_like(ivar[box]), where=good[box])
    noise = np.sqrt(variance.sum(axis=(1, 2)))
    ratio = np.divide(flux[box].sum(axis=(1, 2)), noise, out=np.zeros_like(noise), where=usable)
    return int(np.argmax(np.where(usable, ratio, -np.inf)))


def find_galaxy(flux: np.ndarray, ivar: np.ndarray) -> tuple[Ellipse, np.ndarray] | None:
    """Find the galaxy at the centre of a cutout in one band, and its aperture.

    Parameters
    ----------
    flux, ivar : ndarray, shape (64, 64)
        nmgy per pixel and nmgy**-2.

    Returns
    -------
    aperture : Ellipse
        Aperture of 2.5 Kron radii.
    others : ndarray of bool, shape (64, 64)
        Pixels that belong to other sources.
    None
        Instead of both, if there is no source at the centre.
    """
    good = ivar > 0
    smooth = ndimage.gaussian_filter(np.where(good, flux, 0), _SMOOTHING, truncate=3.0)
    if not good.all():
        cover = ndimage.gaussian_filter(good.astype(np.float32), _SMOOTHING, truncate=3.0)
        smooth = np.where(cover > 0.3, smooth / np.maximum(cover, 0.3), 0)
    # Noise of uncorrelated pixels after a Gaussian filter of standard deviation s: sigma / (2
    # sqrt(pi) s).
    sigma = 1 / (np.sqrt(np.median(ivar[good])) * 2 * np.sqrt(np.pi) * _SMOOTHING)
    threshold = _THRESHOLD * sigma
    above = smooth > threshold
    peak = _central_peak(smooth, above)
    if peak is None:
        return None
    labels, n = ndimage.label(above, structure=_EVERYWHERE)
    galaxy = labels == labels[peak]
    # Noise peaks are smaller; masking them would remove flux.
    others = (np.bincount(labels.ravel()) >= _MIN_PIXELS)[labels] & above & ~galaxy
    if n > 1:
        others = ndimage.binary_dilation(others, iterations=2) & ~galaxy
    box = ndimage.find_objects(labels)[labels[peak] - 1]
    corner = peak[0] - box[0].start, peak[1] - box[1].start
    blended = _blended_neighbours(smooth[box], galaxy[box], corner, threshold, sigma)
    galaxy[box] &= ~blended
    others[box] |= blended
    ellipse = _moments(smooth, galaxy)
    radius = ellipse.radius()
    light = np.where((radius < 4 * ellipse.major) & good & ~others, flux, 0).astype(float)
    total = light.sum()
    # Bound the first moment by the ellipse: it is dominated by noise for faint sources.
    first = (radius * light).sum() / total if total > 0 else 0.0
    first = min(max(first, ellipse.major), 2.5 * ellipse.major)
    major = min(max(2.5 * first, _MIN_RADIUS), _MAX_RADIUS)
    return ellipse.scaled(major), others


def _central_peak(smooth: np.ndarray, above: np.ndarray) -> tuple[int, int] | None:
    """Find the local maximum that is reached uphill from the brightest pixel near the centre."""
    for disc in _NEAR.values():
        near = above & disc
        if near.any():
            break
    else:
        return None
    y, x = divmod(int(np.argmax(np.where(near, smooth, -np.inf))), CUTOUT_SIZE)
    while True:
        top, left = max(y - 1, 0), max(x - 1, 0)
        window = smooth[top : y + 2, left : x + 2]
        dy, dx = divmod(int(np.argmax(window)), window.shape[1])
        if smooth[top + dy, left + dx] <= smooth[y, x]:
            return y, x
        y, x = top + dy, left + dx


def _blended_neighbours(
    smooth: np.ndarray,
    galaxy: np.ndarray,
    peak: tuple[int, int],
    threshold: float,
    sigma: float,
) -> np.ndarray:
    """Return the pixels of a component that belong to sources with another peak."""
    nothing = np.zeros_like(galaxy)
    light = smooth[galaxy]
    needed, top = CONTRAST * light.sum(dtype=float), float(light.max())
    markers = np.zeros(smooth.shape, np.int16)
    component, count = galaxy, 1
    for step in range(1, _LEVELS):
        level = threshold * (top / threshold) ** (step / _LEVELS)
        labels, n = ndimage.label(component & (smooth > level), structure=_EVERYWHERE)
        if n == 0:
            break
        own = labels[peak]
        if n > 1 or own == 0:
            index = np.arange(1, n + 1)
            pixels = np.bincount(labels.ravel(), minlength=n + 1)[1:]
            excess = (
                np.bincount(labels.ravel(), smooth.ravel(), minlength=n + 1)[1:] - level * pixels
            )
            # The noise of the sum over filtered pixels is about that of the unfiltered pixels.
            noise = 5 * sigma * 2 * np.sqrt(np.pi) * _SMOOTHING * np.sqrt(pixels)
            summit = ndimage.maximum(smooth, labels, index)
            distinct = (excess > np.maximum(needed, noise)) & (summit > PROMINENCE * level)
            for label in index[(index != own) & distinct]:
                count += 1
                markers[labels == label] = count
        if own == 0:
            break
        component = labels == own
    if count == 1:
        return nothing
    return galaxy & (_uphill(np.where(galaxy, smooth, -np.inf), markers) > 0)


def _uphill(surface: np.ndarray, markers: np.ndarray) -> np.ndarray:
    """Assign each pixel the marker that is reached by steepest ascent; 0 if none is."""
    ny, nx = surface.shape
    padded = np.pad(surface, 1, constant_values=-np.inf)
    steps = [(dy, dx) for dy in (0, -1, 1) for dx in (0, -1, 1)]
    around = np.stack([padded[1 + dy : 1 + dy + ny, 1 + dx : 1 + dx + nx] for dy, dx in steps])
    jump = np.array([dy * nx + dx for dy, dx in steps])[np.argmax(around, axis=0)]
    end = np.arange(ny * nx) + np.where((markers > 0) | (surface == -np.inf), 0, jump).ravel()
    # Each iteration doubles the length of the path.
    for _ in range(int(ny * nx).bit_length()):
        further = end[end]
        if np.array_equal(further, end):
            break
        end = further
    return markers.ravel()[end].reshape(ny, nx)


def _moments(smooth: np.ndarray, galaxy: np.ndarray) -> Ellipse:
    """Return the ellipse of the second moments of the light."""
    y, x = np.nonzero(galaxy)
    weight = np.maximum(smooth[y, x], 0).astype(float)
    weight /= weight.sum()
    mean_x, mean_y = weight @ x, weight @ y
    dx, dy = x - mean_x, y - mean_y
    xx, yy, xy = weight @ (dx * dx), weight @ (dy * dy), weight @ (dx * dy)
    middle, half = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    major = max(np.sqrt(middle + half), 1.0)
    minor = max(np.sqrt(max(middle - half, 0.0)), 1.0, 0.15 * major)
    return Ellipse(
        float(mean_x),
        float(mean_y),
        float(major),
        float(minor),
        0.5 * float(np.arctan2(2 * xy, xx - yy)),
    )
