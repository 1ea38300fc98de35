"""Statistics along weighted draws of spectra, ignoring pixels that are NaN.

Draws are arrays of shape (n_galaxies, n_draws, n_wavelength) and their weights of shape
(n_galaxies, n_draws).  A draw counts at a pixel if it is not NaN there and its weight is not zero;
the weights of the draws that count are scaled to add up to 1 at that pixel.  Where no draw counts
the result is NaN, without a warning.  Galaxies are worked through one by one, in double precision,
so that temporary arrays stay small.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

__all__ = [
    "best_draws",
    "systematic_choice",
    "weighted_means",
    "weighted_percentiles",
    "weighted_scatters",
]

#: Weights that differ by less than this fraction are taken to be equal.
_EQUAL = 1e-6
#: Largest distance of a draw from the median that counts at a pixel, in units of the scatter.
_FARTHEST = 3.0


def weighted_means(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Average the draws of each galaxy at each pixel.

    Parameters
    ----------
    values : ndarray, shape (n_galaxies, n_draws, n_wavelength)
    weights : ndarray, shape (n_galaxies, n_draws)

    Returns
    -------
    ndarray of float64, shape (n_galaxies, n_wavelength)
    """
    return _by_galaxy(lambda draws, weight: _moments(draws, weight)[0], values, weights)


def weighted_scatters(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    r"""Give the standard deviation of the draws of each galaxy at each pixel.

    Parameters
    ----------
    values : ndarray, shape (n_galaxies, n_draws, n_wavelength)
    weights : ndarray, shape (n_galaxies, n_draws)

    Returns
    -------
    ndarray of float64, shape (n_galaxies, n_wavelength)
        NaN where fewer than two draws count: one draw says nothing of the scatter.

    Notes
    -----
    The variance :math:`\sum w (x - \bar x)^2 / (1 - \sum w^2)` is free of bias, also for few
    draws; with equal weights its divisor is the familiar :math:`n - 1`.
    """
    return _by_galaxy(lambda draws, weight: _moments(draws, weight)[1], values, weights)


def weighted_percentiles(
    values: np.ndarray, weights: np.ndarray, percentiles: np.ndarray
) -> np.ndarray:
    """Give percentiles of the draws of each galaxy at each pixel.

    Parameters
    ----------
    values : ndarray, shape (n_galaxies, n_draws, n_wavelength)
    weights : ndarray, shape (n_galaxies, n_draws)
    percentiles : ndarray, shape (n_percentiles,)
        Between 0 and 100.

    Returns
    -------
    ndarray of float64, shape (n_percentiles, n_galaxies, n_wavelength)

    Notes
    -----
    Between neighbours in order of value the probability grows by the mean of their two weights;
    the smallest draw is the 0th and the largest the 100th percentile, with linear interpolation
    between.  With equal weights this is the default of `numpy.percentile`.
    """
    fractions = np.asarray(percentiles, dtype=float) / 100
    result = np.empty((len(fractions), values.shape[0], values.shape[2]))
    for number, (draws, weight) in enumerate(zip(values, weights, strict=True)):
        result[:, number] = _percentiles(draws, weight, fractions)
    return result


def best_draws(
    values: np.ndarray, weights: np.ndarray, good: np.ndarray | None = None
) -> np.ndarray:
    """Find the draw of largest weight; of several, the most typical one.

    Parameters
    ----------
    values : ndarray, shape (n_galaxies, n_draws, n_wavelength)
    weights : ndarray, shape (n_galaxies, n_draws)
    good : ndarray of bool, shape (n_galaxies, n_wavelength), optional
        Pixels to compare, all by default; all too where none is good.

    Returns
    -------
    ndarray of int, shape (n_galaxies,)
        -1 for a galaxy without draws.

    Notes
    -----
    The most typical draw has the smallest mean distance from the median, in units of half the 68% range at each pixel and
    at most 3 of them.  The root mean square would be ruled by emission lines, and so prefer draws with faint ones.
    """
    best = np.full(len(values), -1)
    for number, (draws, weight) in enumerate(zip(values, weights, strict=True)):
        present = np.isfinite(draws).any(axis=1)
        if not present.any():
            continue
        largest = weight[present].max()
        candidates = np.flatnonzero(present & (weight >= largest * (1 - _EQUAL)))
        best[number] = candidates[0]
        if len(candidates) > 1:
            pixels = slice(None)
            if good is not None and good[number].any():
                pixels = good[number]
            distances = _distances(draws[:, pixels], weight)
            best[number] = candidates[np.argmin(distances[candidates])]
    return best


def systematic_choice(weights: np.ndarray) -> np.ndarray:
    """Choose as many draws as there are, each about as often as its weight says.

    Parameters
    ----------
    weights : ndarray, shape (n_galaxies, n_draws)
        Adding up to 1 along the draws.

    Returns
    -------
    ndarray of int, shape (n_galaxies, n_draws)
        Numbers of the draws, in rising order; with equal weights every draw once.

    Notes
    -----
    Systematic resampling (Kitagawa 1996, J. Comp. Graph. Stat. 5, 1) with the fixed offset 1/2:
    a draw of weight w is taken floor(n w) or ceil(n w) times, and nothing is random.
    """
    n_draws = weights.shape[1]
    positions = (np.arange(n_draws) + 0.5) / n_draws
    cumulative = np.cumsum(weights, axis=1, dtype=float)
    cumulative /= cumulative[:, -1:]
    chosen = [np.searchsorted(edges, positions, side="right") for edges in cumulative]
    return np.array(chosen, dtype=np.intp).reshape(weights.shape)


def _by_galaxy(
    function: Callable[[np.ndarray, np.ndarray], np.ndarray],
    values: np.ndarray,
    weights: np.ndarray,
) -> np.ndarray:
    result = np.empty((values.shape[0], values.shape[2]))
    for number, (draws, weight) in enumerate(zip(values, weights, strict=True)):
        result[number] = function(draws, weight)
    return result


def _moments(draws: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and scatter at each pixel of the draws of one galaxy, shape (n_draws, n_wavelength)."""
    draws = draws.astype(float)
    present = np.isfinite(draws)
    if present.all():
        share = (weight / weight.sum())[:, None]
    else:
        share = present * weight[:, None].astype(float)
        total = share.sum(axis=0)
        share = np.divide(share, total, out=np.full(share.shape, np.nan), where=total > 0)
        draws[~present] = 0.0
    mean = (share * draws).sum(axis=0)
    draws -= mean
    variance = (share * np.square(draws, out=draws)).sum(axis=0)
    freedom = 1 - np.square(share).sum(axis=0)
    # rounding leaves about 1e-16 of one weight alone
    freedom = np.where(freedom > 1e-12, freedom, np.nan)
    return mean, np.sqrt(variance / freedom)


def _percentiles(draws: np.ndarray, weight: np.ndarray, fractions: np.ndarray) -> np.ndarray:
    present = np.isfinite(draws)
    if present.all() and np.ptp(weight) <= _EQUAL * weight.max():
        return np.percentile(draws.astype(float), 100 * fractions, axis=0)
    counts = present & (weight > 0)[:, None]
    n_counting = np.count_nonzero(counts, axis=0)
    order = np.argsort(np.where(counts, draws, np.inf), axis=0)
    ordered = np.take_along_axis(draws, order, axis=0).astype(float)
    shares = np.take_along_axis(np.where(counts, weight[:, None], 0.0), order, axis=0)
    position = np.zeros(draws.shape)
    np.cumsum((shares[1:] + shares[:-1]) / 2, axis=0, out=position[1:])
    last = np.maximum(n_counting - 1, 0)[None]
    total = np.take_along_axis(position, last, axis=0)
    missing = np.arange(len(draws))[:, None] >= n_counting
    ordered[missing] = np.nan
    # where no draw counts, the first one, which is NaN, is taken
    position[1:][missing[1:]] = np.inf
    result = np.empty((len(fractions), draws.shape[1]))
    for number, fraction in enumerate(fractions):
        wanted = fraction * total
        below = np.count_nonzero(position <= wanted, axis=0)[None] - 1
        below = np.clip(below, 0, last)
        above = np.minimum(below + 1, last)
        low, high = (np.take_along_axis(position, index, axis=0) for index in (below, above))
        step = np.divide(wanted - low, high - low, out=np.zeros(low.shape), where=high > low)
        low, high = (np.take_along_axis(ordered, index, axis=0) for index in (below, above))
        result[number] = (low + np.clip(step, 0, 1) * (high - low))[0]
    return result


def _distances(draws: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Mean distance of each draw from the median in units of the scatter, over the pixels it has."""
    low, middle, high = _percentiles(draws, weight, np.array([0.16, 0.5, 0.84]))
    difference = np.abs(draws.astype(float) - middle)
    # Where the draws agree, one that does not is far.
    least = np.finfo(float).tiny
    difference = np.minimum(difference / np.maximum((high - low) / 2, least), _FARTHEST)
    present = np.isfinite(difference)
    number = np.maximum(np.count_nonzero(present, axis=1), 1)
    distance = np.where(present, difference, 0.0).sum(axis=1) / number
    return np.where(present.any(axis=1), distance, np.inf)
