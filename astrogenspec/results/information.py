r"""Information gained about a galaxy: divergence of the posterior from the prior, in bits.

Let :math:`u` be the fraction of the population below a value.  The prior of :math:`u` is uniform,
so the Kullback-Leibler divergence of the posterior from the prior is the negative entropy of the
posterior in :math:`u`,

.. math:: D = \int p(u) \log_2 p(u)\, \mathrm{d}u .

It is estimated from the spacings of the sorted draws (Vasicek 1976, J. R. Stat. Soc. B 38, 54):
around each draw, the distance in :math:`u` over :math:`j` steps.  In a region of constant density
such a spacing follows a beta distribution whose mean logarithm is :math:`\psi(j) - \psi(n + 1)`
plus the logarithm of the size of the region.  Subtracting :math:`\psi(j) - \psi(n + 1)`, also at
the ends, where spacings have fewer steps, makes the estimate unbiased for a uniform posterior of
any width.

For a Gaussian posterior in a Gaussian population, D is on average the binary logarithm of the ratio
of their widths: one bit corresponds to half the uncertainty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import digamma

from ..cards import check_array, check_mapping
from ..quantities import QUANTITIES

__all__ = [
    "GRADES",
    "MINIMUM_DRAWS",
    "beyond_population",
    "check_population",
    "divergence",
    "grades",
    "population_log_density",
    "population_of",
    "population_rank",
    "shared_population",
]

#: Grades of information, with the minimum number of bits of each.
GRADES = (("mostly prior", -np.inf), ("partly informed", 0.5), ("informed", 1.5))
#: Minimum number of draws for an estimate.
MINIMUM_DRAWS = 4
_N_QUANTILES = 201
_MIN_FRACTION = 1e-12
#: Densities are those between quantiles at this number of steps on both sides.
_HALF_WINDOW = 4
_BLOCK = 4_000_000


def population_of(
    theta: np.ndarray, weights: np.ndarray | None = None, *, n_quantiles: int = _N_QUANTILES
) -> dict[str, list[float]]:
    """Tabulate the distribution of each quantity over a population, for ``card["population"]``.

    Parameters
    ----------
    theta : ndarray, shape (n, 9)
        Quantities of the training galaxies (`~astrogenspec.quantities.quantities_to_theta`); NaN
        where unknown or not measurable.
    weights : ndarray, shape (n,), optional
        Sampling weights of the galaxies in training; equal by default.
    n_quantiles : int
        Length of each table.

    Returns
    -------
    dict of str to list of float
        Quantile k of n has a fraction (k + 1/2) / n of the population below it, in the internal
        unit (dex, or log10 of a flux). Quantities known for fewer than ten galaxies are omitted.

    Raises
    ------
    ValueError
        If the shapes do not match.
    """
    theta = np.asarray(theta, dtype=float)
    weights = np.ones(len(theta)) if weights is None else np.asarray(weights, dtype=float)
    if theta.ndim != 2 or theta.shape[1] != len(QUANTITIES) or weights.shape != theta.shape[:1]:
        raise ValueError(
            f"theta has shape {theta.shape} and weights has {weights.shape}; expected (n, "
            f"{len(QUANTITIES)}) and (n,)."
        )
    fractions = (np.arange(n_quantiles) + 0.5) / n_quantiles
    tables = {}
    for name, column in zip(QUANTITIES, theta.T, strict=True):
        known = np.isfinite(column) & (weights > 0)
        if np.count_nonzero(known) < 10:
            continue
        order = np.argsort(column[known])
        weight = weights[known][order]
        below = (np.cumsum(weight) - weight / 2) / weight.sum()
        tables[name] = [
            float(f"{value:.6g}") for value in np.interp(fractions, below, column[known][order])
        ]
    return tables


def check_population(population: Any, where: str) -> None:
    """Check the tables of a population.

    Parameters
    ----------
    population : mapping
        Result of `population_of`.
    where : str
        Path of the entry, for errors.

    Raises
    ------
    ValueError
        If it is no mapping of tables of at least two finite numbers.
    """
    for name, quantiles in check_mapping(population, where).items():
        if len(check_array(quantiles, (None,), f"{where}.{name}")) < 2:
            raise ValueError(f"the entry {where}.{name} has fewer than two quantiles.")


def population_rank(values: np.ndarray, quantiles: Sequence[float]) -> np.ndarray:
    """Compute the fraction of a population below each value.

    Parameters
    ----------
    values : ndarray
        Values in the unit of the table.
    quantiles : sequence of float
        Table of `population_of`; beyond its ends the density of the population is assumed to
        decrease exponentially.

    Returns
    -------
    ndarray, of the same shape
        Fractions between 0 and 1; NaN where a value is NaN.
    """
    table = _increasing(quantiles)
    n = len(table)
    values = np.asarray(values, dtype=float)
    rank = np.interp(values, table, (np.arange(n) + 0.5) / n)
    for end, outside in ((0, values < table[0]), (-1, values > table[-1])):
        distance = np.abs(values[outside] - table[end])
        tail = np.maximum(0.5 / n * np.exp(-distance / _tail_length(table, end)), _MIN_FRACTION)
        rank[outside] = tail if end == 0 else 1 - tail
    return np.where(np.isnan(values), np.nan, rank)


def population_log_density(values: np.ndarray, quantiles: Sequence[float]) -> np.ndarray:
    """Compute the logarithm of the density of a population.

    Parameters
    ----------
    values : ndarray
        Values in the unit of the table.
    quantiles : sequence of float
        Table of `population_of`.

    Returns
    -------
    ndarray, of the same shape
        Natural logarithm of the density per unit of the values, from the distances of quantiles;
        beyond the ends of the table the density is assumed to decrease exponentially. NaN where a
        value is NaN.
    """
    table = _increasing(quantiles)
    n = len(table)
    # Over up to eight steps, which reduces the sampling noise, but two in the tails.
    middle = np.arange(1, n - 1)
    half = np.minimum(1 + np.minimum(middle, n - 1 - middle) // 8, _HALF_WINDOW)
    low, high = (middle - half, middle + half) if n > 2 else (np.array([0]), np.array([1]))
    centre = (table[low] + table[high]) / 2
    height = np.log((high - low) / n / (table[high] - table[low]))
    values = np.asarray(values, dtype=float)
    density = np.interp(values, centre, height)
    for end, outside in ((0, values < table[0]), (-1, values > table[-1])):
        length = _tail_length(table, end)
        distance = np.abs(values[outside] - table[end])
        density[outside] = np.log(0.5 / n / length) - distance / length
    return np.where(np.isnan(values), np.nan, density)


def beyond_population(values: np.ndarray, quantiles: Sequence[float]) -> np.ndarray:
    """Return which values are outside the tabulated population.

    Parameters
    ----------
    values : ndarray
        Values in the unit of the table.
    quantiles : sequence of float
        Table of `population_of`.

    Returns
    -------
    ndarray of bool, of the same shape
        False where a value is NaN.
    """
    return (values < min(quantiles)) | (values > max(quantiles))


def _increasing(quantiles: Sequence[float]) -> np.ndarray:
    """Return the table with equal quantiles, which result from its rounding, separated slightly."""
    table = np.maximum.accumulate(np.asarray(quantiles, dtype=float))
    return table + np.arange(len(table)) * 1e-9 * max(np.ptp(table), 1e-9)


def _tail_length(table: np.ndarray, end: int) -> float:
    """Return the scale of the exponential decrease beyond an end (0 or -1) of the table."""
    few = min(4, len(table) - 1)
    inner = few if end == 0 else -1 - few
    return float(abs(table[inner] - table[end]) / np.log((few + 0.5) / 0.5))


def divergence(values: np.ndarray, quantiles: Sequence[float]) -> np.ndarray:
    """Estimate the Kullback-Leibler divergence of draws from a population.

    Parameters
    ----------
    values : ndarray, shape (n, k)
        Draws of one quantity of each galaxy, at least four.
    quantiles : sequence of float
        Table of `population_of`, in the same unit.

    Returns
    -------
    ndarray, shape (n,)
        Bits; slightly negative values are noise about zero. NaN if a draw is NaN, or if all draws
        are equal (the divergence of a known quantity is infinite).

    Raises
    ------
    ValueError
        If there are fewer than four draws.
    """
    n_draws = values.shape[1]
    if n_draws < MINIMUM_DRAWS:
        raise ValueError(
            f"there are {n_draws} draws, but at least {MINIMUM_DRAWS} are needed to estimate "
            "information."
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
    """Classify information.

    Parameters
    ----------
    bits : ndarray
        Information in bits.

    Returns
    -------
    ndarray of str
        Names of `GRADES`; empty where NaN.
    """
    words = np.full(np.shape(bits), "", dtype="<U15")
    for name, minimum in GRADES:
        words[bits >= minimum] = name
    return words


def shared_population(population: Any, name: str, draws: Mapping[str, Any]) -> list[float]:
    """Return the quantiles of one quantity.

    Parameters
    ----------
    population : mapping or None
        Result of `population_of`.
    name : str
        Name of the quantity.
    draws : mapping
        Draws by the name of the quantity.

    Returns
    -------
    list of float

    Raises
    ------
    ValueError
        If there is no population, or the quantity is missing from it.
    KeyError
        If the quantity is not among the draws.
    """
    if name not in draws:
        raise KeyError(
            f"{name!r} is not among the quantities drawn; information is defined for "
            f"{', '.join(draws)}."
        )
    if not population:
        raise ValueError(
            "the posterior has no population to compare with (meta['population']), because the "
            "card of the weights has none, or because the posterior was reweighted."
        )
    check_population(population, "meta.population")
    if name not in population:
        raise ValueError(
            f"the population in the card of the weights has no {name!r}; it has "
            f"{', '.join(population)}."
        )
    return population[name]


def _negative_entropy(ranks: np.ndarray) -> np.ndarray:
    """Estimate the negative entropy of sorted ranks, shape (n, k), in bits."""
    n = ranks.shape[1]
    half = max(int(round(n**0.5 / 2)), 1)
    index = np.arange(n)
    low, high = np.maximum(index - half, 0), np.minimum(index + half, n - 1)
    spacings = np.maximum(ranks[:, high] - ranks[:, low], _MIN_FRACTION)
    expected = digamma(high - low) - digamma(n + 1)
    return -np.mean(np.log(spacings) - expected, axis=1) / np.log(2)
