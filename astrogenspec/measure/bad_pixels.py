"""Pixels without data: gaps in the wavelengths, and narrow spikes.

A spike is narrower than the resolution: a run of up to `MAX_SPIKE` pixels that deviates from a
running median, and in which the flux changes from one pixel to the next by more than 80% of its
range there.  A line that is sampled with at least two pixels per FWHM changes by at most 66%.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import median_filter

from ..synthetic import sampling_gaps

__all__ = ["MAX_SPIKE", "gap_pixels", "interpolated", "spikes"]

#: Maximum width of a spike (pixels).
MAX_SPIKE = 8
#: Maximum change from one pixel to the next, as a fraction of the range of a line, and pixels on
#: either side in which the range is measured.
_MAX_CHANGE, _AROUND = 0.8, 3
#: Minimum deviation of a spike, and allowance for noise in its changes, in standard deviations.
_MIN_DEVIATION, _NOISE = 8.0, 3.0
#: Widths of the running medians of the flux and of its changes (pixels).
_BASELINE, _SCATTER = 51, 201
#: Maximum number of pixels that fill a gap.
_MAX_FILL = 5000


def gap_pixels(wavelength: np.ndarray) -> np.ndarray:
    """Return pixels that fill the gaps of a spectrum.

    Parameters
    ----------
    wavelength : ndarray, shape (m,)
        Positive and increasing.

    Returns
    -------
    ndarray
        Wavelengths between the pixels beside each gap, with nearly their sampling.
    """
    filled = [np.empty(0)]
    for k, before, after in zip(*sampling_gaps(wavelength), strict=True):
        low, high = wavelength[k], wavelength[k + 1]
        n = max(int(round((high - low) / max(0.5 * (before + after), 1e-9 * high))), 2)
        if n > _MAX_FILL:
            filled.append(np.array([low + before, high - after]))
        elif after / before > np.sqrt(high / low):
            filled.append(np.geomspace(low, high, n + 1)[1:-1])
        else:
            filled.append(np.linspace(low, high, n + 1)[1:-1])
    return np.concatenate(filled)


def interpolated(flux: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Interpolate linearly over unusable pixels.

    Parameters
    ----------
    flux : ndarray, shape (n, m)
        Flux of spectra.
    good : ndarray of bool, shape (n, m)
        Usable pixels.

    Returns
    -------
    ndarray, shape (n, m)
        Zero for spectra without usable pixels.
    """
    filled = np.where(good, flux, 0.0)
    pixel = np.arange(flux.shape[1])
    for row in np.flatnonzero(good.any(axis=1) & ~good.all(axis=1)):
        filled[row] = np.interp(pixel, pixel[good[row]], flux[row, good[row]])
    return filled


def spikes(flux: np.ndarray, variance: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Find pixels that deviate from their neighbours more abruptly than the resolution allows.

    Parameters
    ----------
    flux : ndarray, shape (m,)
        Flux of one spectrum; bad pixels interpolated.
    variance : ndarray, shape (m,)
        Variance of the flux; zero if it is unknown.
    good : ndarray of bool, shape (m,)
        Usable pixels.

    Returns
    -------
    ndarray of bool, shape (m,)
        Spikes and the pixels beside them.
    """
    result = np.zeros(len(flux), dtype=bool)
    if len(flux) < _BASELINE:
        return result
    deviation = flux - median_filter(flux, _BASELINE, mode="reflect")
    changes = np.abs(np.diff(flux))
    changes = np.concatenate([changes[:1], changes])
    # The median of the change of normal noise is 0.954 standard deviations.
    scatter = median_filter(changes, _SCATTER, mode="reflect") / 0.954
    noise = np.maximum(np.sqrt(np.where(good, variance, 0)), scatter)
    for sign in (1, -1):
        height = sign * deviation
        for first, last in _runs(height > _MIN_DEVIATION * noise):
            low, high = max(first - 1, 0), min(last + 1, len(flux))
            if last - first > MAX_SPIKE:
                continue
            change = np.abs(np.diff(height[low:high])).max(initial=0)
            # The range includes the lines on both sides of a narrow minimum between them.
            around = height[max(low - _AROUND, 0) : high + _AROUND]
            if change - _NOISE * noise[first:last].max() > _MAX_CHANGE * np.ptp(around):
                result[low:high] = True
    return result & good


def _runs(mask: np.ndarray) -> np.ndarray:
    """Return the first pixel, and that after the last, of each run of True, shape (n_runs, 2)."""
    return np.flatnonzero(np.diff(mask, prepend=False, append=False)).reshape(-1, 2)
