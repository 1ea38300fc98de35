"""The quantile function of the draws of each galaxy, and how to move draws along it so that their ranks stay.

Between the lowest and the highest draw the quantile function interpolates the sorted draws; beyond them it is a straight
line in the plane of normal deviate and logit (the logarithm of the distances from both bounds of the quantity), fitted to
the outermost twentieth of the draws: a Gaussian tail which never leaves the bounds.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.special import expit, logit, ndtr, ndtri

__all__ = ["map_draws", "probit_pit", "rank_deviates"]

_TAIL = 0.05
_FEWEST_IN_TAIL = 3
_LARGEST = 5.0


def rank_deviates(n_draws: int) -> np.ndarray:
    """Give the normal deviates of the ranks of draws.

    Parameters
    ----------
    n_draws : int

    Returns
    -------
    ndarray, shape (n_draws,)
        Probit of (rank + 1/2) / n_draws.
    """
    return ndtri((np.arange(n_draws) + 0.5) / n_draws)


def probit_pit(values: np.ndarray, truth: np.ndarray, lower: float, upper: float) -> np.ndarray:
    """Give the normal deviate at which the quantile function of each galaxy has a given value.

    Parameters
    ----------
    values : ndarray, shape (n, k)
        Draws, finite and between the bounds.
    truth : ndarray, shape (n,)
        Finite.
    lower, upper : float
        Bounds of the quantity.

    Returns
    -------
    ndarray, shape (n,)
        The probit of the PIT; beyond the outermost draws that of the tails, at most 5 in size.
    """
    n_draws = values.shape[1]
    ordered = np.sort(values, axis=1).astype(float)
    below = np.count_nonzero(ordered < truth[:, None], axis=1)
    equal = np.count_nonzero(ordered == truth[:, None], axis=1)
    left, right = np.clip(below - 1, 0, n_draws - 1), np.clip(below + equal, 0, n_draws - 1)
    low, high = (np.take_along_axis(ordered, k[:, None], axis=1)[:, 0] for k in (left, right))
    gap = np.where(high > low, high - low, 1.0)
    share = np.where(high > low, (truth - low) / gap, 0.5)
    place = np.clip(left + np.clip(share, 0, 1) * (right - left), 0, n_draws - 1)
    result = ndtri((place + 0.5) / n_draws)
    height = logit(_shares(truth, lower, upper))
    for outside, end, slope, start in _tails(ordered, lower, upper, truth):
        rows = np.flatnonzero(outside)
        steps = (height[rows] - start[rows]) / np.maximum(slope[rows], 1e-9)
        result[rows] = rank_deviates(n_draws)[end] + steps
    return np.clip(result, -_LARGEST, _LARGEST)


def map_draws(values: np.ndarray, deviates: np.ndarray, lower: float, upper: float) -> np.ndarray:
    """Put the draw of each rank where the galaxy's own quantile function has a given normal deviate.

    Parameters
    ----------
    values : ndarray, shape (n, k)
        Draws, finite and between the bounds.
    deviates : ndarray, shape (n, k)
        For each rank, from the lowest draw to the highest: the normal deviate of the quantile where the draw shall be;
        increasing. `rank_deviates` leaves everything where it is.
    lower, upper : float
        Bounds of the quantity.

    Returns
    -------
    ndarray of float64, shape (n, k)
        In the order of ``values``, strictly inside of the bounds.
    """
    n_draws = values.shape[1]
    order = np.argsort(values, axis=1)
    ordered = np.take_along_axis(values, order, axis=1).astype(float)
    position = ndtr(deviates) * n_draws - 0.5
    below = np.clip(np.floor(position).astype(np.intp), 0, max(n_draws - 2, 0))
    low = np.take_along_axis(ordered, below, axis=1)
    high = np.take_along_axis(ordered, np.minimum(below + 1, n_draws - 1), axis=1)
    new = low + np.clip(position - below, 0, 1) * (high - low)
    own = rank_deviates(n_draws)
    for _, end, slope, start in _tails(ordered, lower, upper):
        beyond = position < 0 if end == 0 else position > n_draws - 1
        rows = np.flatnonzero(beyond.any(axis=1))
        height = start[rows, None] + slope[rows, None] * (deviates[rows] - own[end])
        new[rows] = np.where(beyond[rows], lower + (upper - lower) * expit(height), new[rows])
    result = np.empty_like(new)
    np.put_along_axis(result, order, new, axis=1)
    margin = 1e-7 * (upper - lower)
    return np.clip(result, lower + margin, upper - margin)


def _shares(values: np.ndarray, lower: float, upper: float) -> np.ndarray:
    return np.clip((values - lower) / (upper - lower), 1e-9, 1 - 1e-9)


def _tails(
    ordered: np.ndarray, lower: float, upper: float, truth: np.ndarray | None = None
) -> Iterator[tuple[np.ndarray | None, int, np.ndarray, np.ndarray]]:
    """Fit the lower and the upper tail: where the truth is in it, its end, its slope, and the logit where it starts."""
    n_draws = ordered.shape[1]
    n_tail = min(max(int(np.ceil(_TAIL * n_draws)), _FEWEST_IN_TAIL), n_draws)
    own = rank_deviates(n_draws)
    for tail, end in ((slice(0, n_tail), 0), (slice(n_draws - n_tail, n_draws), n_draws - 1)):
        height = logit(_shares(ordered[:, tail], lower, upper))
        abscissa = own[tail] - own[tail].mean()
        slope = height @ abscissa / max(float(abscissa @ abscissa), 1e-12)
        outside = None
        if truth is not None:
            outside = truth < ordered[:, 0] if end == 0 else truth > ordered[:, -1]
        yield outside, end, slope, height[:, 0 if end == 0 else -1]
