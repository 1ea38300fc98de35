r"""Quantile functions of posterior draws, and maps that move draws along them and preserve ranks.

With :math:`K` sorted draws, the draw of rank :math:`r = 0, ..., K - 1` has the probability
:math:`(r + 1/2) / K`.  Between the draws the quantile function :math:`Q` is linear in :math:`r`.
Beyond them it is a straight line in the plane of normal deviate
:math:`\Phi^{-1}(p)` and :math:`\mathrm{logit}[(Q - a) / (b - a)]`, with the bounds
:math:`a, b` of the quantity, fitted by
least squares to the outermost 5% of the draws: a Gaussian tail that stays within the bounds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit, ndtr, ndtri

__all__ = ["map_draws", "probit_pit", "rank_deviates"]

#: Fraction and minimum number of the draws to which a tail is fitted.
_TAIL = 0.05
_MIN_DRAWS_IN_TAIL = 3
#: Maximum absolute value of a normal deviate.
_MAX_DEVIATE = 5.0


@dataclass(frozen=True)
class _Tail:
    """Straight lines through the outermost draws of n galaxies.

    Attributes
    ----------
    rank : int
        Rank of the outermost draw.
    slope, start : ndarray, shape (n,)
        Slope of the logit against the normal deviate, and logit of the outermost draw.
    """

    rank: int
    slope: np.ndarray
    start: np.ndarray


def rank_deviates(n_draws: int) -> np.ndarray:
    """Return the normal deviates of the ranks of draws.

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
    """Compute the normal deviate of the probability at which quantile functions have a value.

    Parameters
    ----------
    values : ndarray, shape (n, k)
        Draws, finite and between the bounds.
    truth : ndarray, shape (n,)
        Values, finite.
    lower, upper : float
        Bounds of the quantity.

    Returns
    -------
    ndarray, shape (n,)
        Probit of the PIT, between -5 and 5.
    """
    n_draws = values.shape[1]
    ordered = np.sort(values, axis=1).astype(float)
    below = np.count_nonzero(ordered < truth[:, None], axis=1)
    equal = np.count_nonzero(ordered == truth[:, None], axis=1)
    left, right = np.clip(below - 1, 0, n_draws - 1), np.clip(below + equal, 0, n_draws - 1)
    low, high = (np.take_along_axis(ordered, k[:, None], axis=1)[:, 0] for k in (left, right))
    gap = np.where(high > low, high - low, 1.0)
    fraction = np.where(high > low, (truth - low) / gap, 0.5)
    rank = np.clip(left + np.clip(fraction, 0, 1) * (right - left), 0, n_draws - 1)
    result = ndtri((rank + 0.5) / n_draws)
    height = logit(_fractions(truth, lower, upper))
    for tail in _tails(ordered, lower, upper):
        outside = truth < ordered[:, 0] if tail.rank == 0 else truth > ordered[:, -1]
        rows = np.flatnonzero(outside)
        steps = (height[rows] - tail.start[rows]) / np.maximum(tail.slope[rows], 1e-9)
        result[rows] = rank_deviates(n_draws)[tail.rank] + steps
    return np.clip(result, -_MAX_DEVIATE, _MAX_DEVIATE)


def map_draws(values: np.ndarray, deviates: np.ndarray, lower: float, upper: float) -> np.ndarray:
    """Move the draw of each rank to the quantile of a given normal deviate.

    Parameters
    ----------
    values : ndarray, shape (n, k)
        Draws, finite and between the bounds.
    deviates : ndarray, shape (n, k)
        Normal deviate of the quantile to which the draw of each rank is moved; increasing.
        `rank_deviates` is the identity.
    lower, upper : float
        Bounds of the quantity.

    Returns
    -------
    ndarray of float64, shape (n, k)
        In the order of ``values``, strictly within the bounds.
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
    for tail in _tails(ordered, lower, upper):
        beyond = position < 0 if tail.rank == 0 else position > n_draws - 1
        rows = np.flatnonzero(beyond.any(axis=1))
        height = tail.start[rows, None] + tail.slope[rows, None] * (deviates[rows] - own[tail.rank])
        new[rows] = np.where(beyond[rows], lower + (upper - lower) * expit(height), new[rows])
    result = np.empty_like(new)
    np.put_along_axis(result, order, new, axis=1)
    margin = 1e-7 * (upper - lower)
    return np.clip(result, lower + margin, upper - margin)


def _fractions(values: np.ndarray, lower: float, upper: float) -> np.ndarray:
    return np.clip((values - lower) / (upper - lower), 1e-9, 1 - 1e-9)


def _tails(ordered: np.ndarray, lower: float, upper: float) -> tuple[_Tail, _Tail]:
    """Fit the lower and the upper tail of sorted draws."""
    n_draws = ordered.shape[1]
    n_tail = min(max(int(np.ceil(_TAIL * n_draws)), _MIN_DRAWS_IN_TAIL), n_draws)
    own = rank_deviates(n_draws)

    def fit(ranks: slice, rank: int) -> _Tail:
        height = logit(_fractions(ordered[:, ranks], lower, upper))
        abscissa = own[ranks] - own[ranks].mean()
        slope = height @ abscissa / max(float(abscissa @ abscissa), 1e-12)
        return _Tail(rank, slope, height[:, 0 if rank == 0 else -1])

    return fit(slice(0, n_tail), 0), fit(slice(n_draws - n_tail, n_draws), n_draws - 1)
