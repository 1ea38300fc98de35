r"""How much the data say about a galaxy: the divergence of its posterior from the population prior, in bits.

With :math:`u` the share of the population below a value, the prior of :math:`u` is uniform, and the Kullback-Leibler
divergence of the posterior from the prior is its negative entropy in :math:`u`,

.. math:: D = \int p(u) \log_2 p(u)\, \mathrm{d}u .

It is estimated from the gaps between draws (Vasicek 1976, J. R. Stat. Soc. B 38, 54): around each draw, the gap of
:math:`j` steps in the sorted :math:`u`.  In a region of constant density such a gap follows a beta distribution whose mean
logarithm is :math:`\psi(j) - \psi(n + 1)` plus the logarithm of the size of the region; subtracting it, at the ends too,
where gaps have fewer steps, makes the estimate free of bias for a uniform posterior of any width.

Measures of a Gaussian in a Gaussian population: D is on average the binary logarithm of the ratio of their widths.  One
bit halves the uncertainty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import digamma

from ..quantities import QUANTITIES

__all__ = [
    "GRADES",
    "MINIMUM_DRAWS",
    "divergence",
    "grades",
    "population_of",
    "population_rank",
    "shared_population",
]

#: Words for how much the data say, with the least bits for each.
GRADES = (("mostly prior", -np.inf), ("partly informed", 0.5), ("informed", 1.5))
#: Fewest draws from which information is estimated.
MINIMUM_DRAWS = 4
_N_QUANTILES = 201
_LEAST_SHARE = 1e-12
_BLOCK = 4_000_000


def population_of(
    theta: np.ndarray, weights: np.ndarray | None = None, *, n_quantiles: int = _N_QUANTILES
) -> dict[str, list[float]]:
    """Tabulate the distribution of each quantity over a population, for ``card["population"]``.

    Parameters
    ----------
    theta : ndarray, shape (n, 9)
        Quantities of the galaxies that the network learnt from (`~astrogenspec.quantities.quantities_to_theta`); NaN
        where unknown or not measurable.
    weights : ndarray, shape (n,), optional
        How often the network saw each galaxy; equal by default.
    n_quantiles : int
        Length of each table.

    Returns
    -------
    dict of str to list of float
        Quantile k of n has the share (k + 1/2) / n of the population below it; in the internal unit (dex, or log10 of
        a flux). A quantity known of fewer than ten galaxies is left out.

    Raises
    ------
    ValueError
        If the shapes do not fit.
    """
    theta = np.asarray(theta, dtype=float)
    weights = np.ones(len(theta)) if weights is None else np.asarray(weights, dtype=float)
    if theta.ndim != 2 or theta.shape[1] != len(QUANTITIES) or weights.shape != theta.shape[:1]:
        raise ValueError(
            f"theta has shape {theta.shape} and weights {weights.shape}; give (n, {len(QUANTITIES)}) and (n,)."
        )
    shares = (np.arange(n_quantiles) + 0.5) / n_quantiles
    tables = {}
    for name, column in zip(QUANTITIES, theta.T, strict=True):
        known = np.isfinite(column) & (weights > 0)
        if np.count_nonzero(known) < 10:
            continue
        order = np.argsort(column[known])
        weight = weights[known][order]
        place = (np.cumsum(weight) - weight / 2) / weight.sum()
        tables[name] = [
            float(f"{value:.6g}") for value in np.interp(shares, place, column[known][order])
        ]
    return tables


def population_rank(values: np.ndarray, quantiles: Sequence[float]) -> np.ndarray:
    """Give the share of a population below each value.

    Parameters
    ----------
    values : ndarray
        In the unit of the table.
    quantiles : sequence of float
        Table of `population_of`; beyond its ends the population thins out exponentially.

    Returns
    -------
    ndarray, of the same shape
        Between 0 and 1; NaN where the value is.
    """
    table = np.maximum.accumulate(np.asarray(quantiles, dtype=float))
    n = len(table)
    shares = (np.arange(n) + 0.5) / n
    # Steps that are equal would be a jump of the distribution; spread it over the rounding of the table.
    table = table + np.arange(n) * 1e-9 * max(np.ptp(table), 1e-9)
    values = np.asarray(values, dtype=float)
    rank = np.interp(values, table, shares)
    few = min(4, n - 1)
    for end, inner, outside in ((0, few, values < table[0]), (-1, -1 - few, values > table[-1])):
        length = abs(table[inner] - table[end]) / np.log((few + 0.5) / 0.5)
        distance = np.abs(values[outside] - table[end])
        share = np.maximum(0.5 / n * np.exp(-distance / length), _LEAST_SHARE)
        rank[outside] = share if end == 0 else 1 - share
    return np.where(np.isnan(values), np.nan, rank)


def divergence(values: np.ndarray, quantiles: Sequence[float]) -> np.ndarray:
    """Estimate the Kullback-Leibler divergence of draws from a population.

    Parameters
    ----------
    values : ndarray, shape (n, k)
        Draws of one quantity of each galaxy, at least four.
    quantiles : sequence of float
        The population, as `population_of` tabulates it, in the same unit.

    Returns
    -------
    ndarray, shape (n,)
        Bits; slightly negative values are noise about zero. NaN where a draw is, or where all draws are the same (a
        quantity that is known has no finite divergence).

    Raises
    ------
    ValueError
        If there are fewer than four draws.
    """
    n_draws = values.shape[1]
    if n_draws < MINIMUM_DRAWS:
        raise ValueError(
            f"there are {n_draws} draws; at least {MINIMUM_DRAWS} are needed to estimate information."
        )
    n_rows = max(_BLOCK // n_draws, 1)
    parts = [
        _negative_entropy(population_rank(np.sort(values[k : k + n_rows], axis=1), quantiles))
        for k in range(0, len(values), n_rows)
    ]
    result = np.concatenate(parts) if parts else np.empty(0)
    result[values.max(axis=1, initial=-np.inf) == values.min(axis=1, initial=np.inf)] = np.nan
    return result


def grades(bits: np.ndarray) -> np.ndarray:
    """Say in words how much the data say.

    Parameters
    ----------
    bits : ndarray

    Returns
    -------
    ndarray of str
        The names of `GRADES`; empty where NaN.
    """
    words = np.full(np.shape(bits), "", dtype="<U15")
    for name, least in GRADES:
        words[bits >= least] = name
    return words


def shared_population(population: Any, name: str, draws: Mapping[str, Any]) -> list[float]:
    """Find the table of one quantity.

    Parameters
    ----------
    population : mapping or None
        As `population_of` makes it.
    name : str
        Name of the quantity.
    draws : mapping
        The quantities that are drawn.

    Returns
    -------
    list of float

    Raises
    ------
    ValueError
        If there is no population, or it lacks the quantity.
    KeyError
        If the quantity is not drawn.
    """
    if name not in draws:
        raise KeyError(
            f"{name!r} is not among the quantities drawn, {', '.join(draws)}; information is known of these only."
        )
    if not population:
        raise ValueError(
            "the posterior carries no population to compare with (meta['population']): the weights it was made with "
            "have none in their card."
        )
    if name not in population:
        raise ValueError(
            f"the population in the card of the weights lacks {name!r}; it has {', '.join(population)}."
        )
    return population[name]


def _negative_entropy(ranks: np.ndarray) -> np.ndarray:
    """Estimate from sorted ranks, shape (n, k), in bits."""
    n = ranks.shape[1]
    half = max(int(round(n**0.5 / 2)), 1)
    index = np.arange(n)
    low, high = np.maximum(index - half, 0), np.minimum(index + half, n - 1)
    gaps = np.maximum(ranks[:, high] - ranks[:, low], _LEAST_SHARE)
    expected = digamma(high - low) - digamma(n + 1)
    return -np.mean(np.log(gaps) - expected, axis=1) / np.log(2)
