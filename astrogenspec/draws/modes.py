"""Modes of draws, by a kernel density estimate for many galaxies at once."""

from __future__ import annotations

import numpy as np

from .statistics import row_percentiles, row_standard_deviations

__all__ = ["row_modes"]

_N_GRID = 256
_BLOCK = 2_000_000


def row_modes(values: np.ndarray) -> np.ndarray:
    """Find where the density of the finite draws of each galaxy is highest.

    Parameters
    ----------
    values : ndarray, shape (n_galaxies, n_draws)

    Returns
    -------
    ndarray of float64, shape (n_galaxies,)
        NaN where there is no draw.

    Notes
    -----
    Gaussian kernel with the width of Silverman (1986, Density Estimation, eq. 3.31), on a grid between the 0.1 and 99.9
    percentiles; a parabola through the highest three points gives the place between them.
    """
    values = np.asarray(values)
    n_rows = max(_BLOCK // max(values.shape[1], _N_GRID), 1)
    parts = [_modes(values[k : k + n_rows]) for k in range(0, len(values), n_rows)]
    return np.concatenate(parts) if parts else np.empty(0)


def _modes(values: np.ndarray) -> np.ndarray:
    low, q1, middle, q3, high = row_percentiles(values, [0.1, 25, 50, 75, 99.9])
    n_finite = np.count_nonzero(~np.isnan(values), axis=1)
    spread = row_standard_deviations(values)
    quartiles = (q3 - q1) / 1.349
    spread = np.where(quartiles > 0, np.minimum(spread, quartiles), spread)
    with np.errstate(invalid="ignore"):
        usable = (spread > 0) & (high > low)
    result = np.array(middle)
    if not usable.any():
        return result
    low, step = low[usable], ((high - low)[usable]) / (_N_GRID - 1)
    width = 0.9 * spread[usable] * n_finite[usable] ** -0.2 / step
    density = _smoothed(_binned(values[usable], low, step), width)
    rows, top = np.arange(len(density)), density.argmax(axis=1)
    inner = np.clip(top, 1, _N_GRID - 2)
    before, here, after = (density[rows, inner + k] for k in (-1, 0, 1))
    curvature = before - 2 * here + after
    offset = np.divide(
        0.5 * (before - after), curvature, out=np.zeros(len(rows)), where=curvature < 0
    )
    place = np.where(inner == top, inner + np.clip(offset, -0.5, 0.5), top)
    result[usable] = low + place * step
    return result


def _binned(values: np.ndarray, low: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Share every draw between the two nearest points of the grid of its galaxy."""
    place = (values.astype(float) - low[:, None]) / step[:, None]
    inside = (place >= 0) & (place <= _N_GRID - 1)
    place = np.where(inside, place, 0.0)
    left = np.minimum(place.astype(np.intp), _N_GRID - 2)
    right_share = np.where(inside, place - left, 0.0)
    left_share = np.where(inside, 1 - (place - left), 0.0)
    cell = left + _N_GRID * np.arange(len(values))[:, None]
    size = len(values) * _N_GRID
    counts = np.bincount(cell.ravel(), left_share.ravel(), size)
    counts += np.bincount(cell.ravel() + 1, right_share.ravel(), size + 1)[:size]
    return counts.reshape(len(values), _N_GRID)


def _smoothed(counts: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Convolve each row with a Gaussian; the grid is padded so that nothing wraps around."""
    frequency = np.fft.rfftfreq(2 * _N_GRID)
    kernel = np.exp(-2 * (np.pi * frequency * width[:, None]) ** 2)
    spectrum = np.fft.rfft(counts, 2 * _N_GRID, axis=1) * kernel
    return np.fft.irfft(spectrum, 2 * _N_GRID, axis=1)[:, :_N_GRID]
