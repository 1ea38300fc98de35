r"""Change of the prior of a posterior by importance weights.

Draws :math:`\theta_k` of a posterior with the prior :math:`p(\theta)` represent the posterior with
another prior :math:`p'(\theta)` and the same likelihood if they have the weights

.. math:: w_k \propto \frac{p'(\theta_k)}{p(\theta_k)} .

Draws of equal weight follow by systematic resampling [1]_: a draw of the share :math:`w_k` of the
weights of its galaxy is repeated :math:`n w_k` times, rounded up or down at random.  The
uncertainty of an average is that of

.. math:: n_\mathrm{eff} = \frac{(\sum_k w_k)^2}{\sum_k w_k^2}

independent draws [2]_.  It is small where the new prior prefers values that the old posterior
hardly has, and then the result depends on few draws.

References
----------
.. [1] Douc, R., Cappe, O. & Moulines, E. 2005, Proc. 4th ISPA, 64 (arXiv:cs/0507025).
.. [2] Kong, A., Liu, J. S. & Wong, W. H. 1994, J. Am. Stat. Assoc., 89, 278.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import astropy.units as u
import numpy as np

from ..flags import Flag, FlagLog
from ..quantities import QUANTITIES, internal_values
from ..warnings import AstroGenSpecWarning
from .base import counted
from .information import beyond_population, population_log_density, shared_population

__all__ = [
    "MIN_EFFECTIVE_DRAWS",
    "Prior",
    "effective_draws",
    "flag_reweighted",
    "log_weights",
    "random_generator",
    "resampled_indices",
]

#: New prior: a function of the draws, or densities of quantities.
Prior: TypeAlias = (
    Callable[[Mapping[str, u.Quantity]], Any] | Mapping[str, Callable[[Any], Any] | tuple[Any, Any]]
)
#: Galaxies with fewer effective draws are flagged: percentiles of 50 draws at 16% and 84% are
#: uncertain by a fifth of the standard deviation.
MIN_EFFECTIVE_DRAWS = 50
#: Part of the weight on draws outside the population from which a galaxy is flagged.
_MAX_OUTSIDE = 0.05
#: Part of a new prior outside the population from which there is a warning.
_MAX_PRIOR_OUTSIDE = 0.2


def log_weights(
    prior: Prior, draws: Mapping[str, u.Quantity], population: Any
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Compute the logarithm of the ratio of the new prior to the old one for every draw.

    Parameters
    ----------
    prior : callable or mapping
        New prior, see `astrogenspec.Posterior.reweighted`.
    draws : mapping of str to Quantity, each of shape (n, k)
        Draws of n galaxies.
    population : mapping or None
        Prior of the weights, the result of `~astrogenspec.results.information.population_of`.

    Returns
    -------
    weights : ndarray, shape (n, k)
        Natural logarithm; minus infinity where the new prior is zero or a draw is missing.
    outside : dict of str to ndarray of bool, shape (n, k)
        Draws outside the tabulated population, by the name of the quantity.

    Raises
    ------
    TypeError
        If the prior is neither a function nor a mapping.
    ValueError
        If a density or ratio is not usable, or the population of a quantity is not known.
    """
    shape = next(iter(draws.values())).shape
    missing = np.any([np.isnan(values.value) for values in draws.values()], axis=0)
    if callable(prior):
        ratio = np.zeros(shape)
        if ratio.size:
            ratio = _checked(prior(draws), shape, missing, "prior, the ratio of two densities,")
        return _log(ratio), {}
    given: Any = prior
    if not isinstance(given, Mapping) or not given:
        raise TypeError(
            f"prior is {ascii(prior)[:60]}, but it must be a function of the draws, which returns "
            "the ratio of the new prior to the old one, or a mapping from quantities to densities, "
            "such as {'redshift': (grid, density)}."
        )
    weights, outside = np.zeros(shape), {}
    for name, density in given.items():
        if name in draws and name not in QUANTITIES:
            raise ValueError(
                f"prior has {name!r}, which is not a quantity of the networks; give a function of "
                "the draws that returns the ratio of the new prior to the old one."
            )
        quantiles = _population(population, name, draws)
        values = internal_values(name, draws[name])
        new = _new_density(name, density, values)
        if not callable(density):
            _warn_outside(name, density[0], density[1], quantiles)
        weights += _log(new) - population_log_density(values, quantiles)
        outside[name] = beyond_population(values, quantiles)
    return np.where(np.isnan(weights), -np.inf, weights), outside


def _population(population: Any, name: str, draws: Mapping[str, u.Quantity]) -> list[float]:
    try:
        return shared_population(population, name, draws)
    except KeyError:
        raise ValueError(
            f"prior has {name!r}, which is not among the quantities drawn ({', '.join(draws)}); "
            "give a function of the draws for others."
        ) from None
    except ValueError as error:
        raise ValueError(
            f"prior gives a density of {name}, but {str(error).rstrip('.')}; give a function of "
            "the draws that returns the ratio of the new prior to the old one."
        ) from None


def _new_density(name: str, density: Any, values: np.ndarray) -> np.ndarray:
    """Evaluate the new prior of a quantity at internal values, which may be NaN."""
    missing = np.isnan(values)
    if callable(density):
        return _checked(density(values), values.shape, missing, f"the density of {name} in prior")
    if not isinstance(density, tuple | list) or len(density) != 2:
        raise ValueError(
            f"prior[{name!r}] is {ascii(density)[:60]}, but it must be a function, or a pair "
            "(grid, density) of two arrays of equal length."
        )
    grid = internal_values(name, density[0])
    height = _plain(density[1], f"the density of {name} in prior")
    if grid.ndim != 1 or grid.shape != height.shape or len(grid) < 2:
        raise ValueError(
            f"prior[{name!r}] has a grid of shape {grid.shape} and a density of shape "
            f"{height.shape}; two arrays of equal length are expected."
        )
    if not np.isfinite(grid).all() or not (np.diff(grid) > 0).all():
        raise ValueError(
            f"the grid of prior[{name!r}] must be finite and increase; sort it, without duplicates."
        )
    if not np.isfinite(height).all() or (height < 0).any() or not height.any():
        raise ValueError(
            f"the density of prior[{name!r}] must be finite and not negative, and not zero "
            "everywhere."
        )
    return np.interp(values, grid, height, left=0.0, right=0.0)


def _warn_outside(name: str, grid: Any, height: Any, quantiles: Sequence[float]) -> None:
    """Warn if much of a new prior, given on a grid, is outside the population."""
    low, high = min(quantiles), max(quantiles)
    # A fine grid, in which the ends of the population do not matter.
    grid = internal_values(name, grid)
    fine = np.linspace(grid[0], grid[-1], 10_001)
    density = np.interp(fine, grid, _plain(height, name))
    part = density[(fine < low) | (fine > high)].sum() / max(density.sum(), np.finfo(float).tiny)
    if part > _MAX_PRIOR_OUTSIDE:
        warnings.warn(
            f"{part:.0%} of the new prior of {name} is outside the population of the weights "
            f"({low:.3g} to {high:.3g}), where they find no galaxies: the posteriors are those of "
            "the part inside.",
            AstroGenSpecWarning,
            stacklevel=4,
        )


def _plain(values: Any, what: str) -> np.ndarray:
    """Return numbers without a unit as an array of float."""
    unit = getattr(values, "unit", None)
    if unit is not None and unit != u.dimensionless_unscaled:
        raise ValueError(
            f"{what} has the unit {unit}; give plain numbers, per dex, or per unit of redshift "
            "(only ratios matter)."
        )
    try:
        return np.asarray(getattr(values, "value", values)).astype(float)
    except (TypeError, ValueError):
        raise ValueError(f"{what} is no array of numbers.") from None


def _checked(values: Any, shape: tuple[int, ...], missing: np.ndarray, what: str) -> np.ndarray:
    """Check what a function of the user returned; NaN for a missing draw becomes 0."""
    numbers = _plain(values, what)
    if numbers.shape != shape:
        raise ValueError(
            f"{what} has shape {numbers.shape}; {shape} is expected, one value for each draw of "
            "each galaxy."
        )
    numbers = np.where(missing & np.isnan(numbers), 0.0, numbers)
    bad = ~(np.isfinite(numbers) & (numbers >= 0))
    if bad.any():
        galaxy, draw = np.argwhere(bad)[0]
        raise ValueError(
            f"{what} is {numbers[galaxy, draw]} for draw {draw} of galaxy {galaxy}; it must be "
            "finite and not negative, and 0 where the new prior excludes a draw."
        )
    return numbers


def _log(values: np.ndarray) -> np.ndarray:
    return np.log(values, out=np.full(values.shape, -np.inf), where=values > 0)


def random_generator(seed: Any) -> np.random.Generator:
    """Return a generator of random numbers.

    Parameters
    ----------
    seed : int, `numpy.random.Generator` or None
        Seed.

    Returns
    -------
    `numpy.random.Generator`

    Raises
    ------
    ValueError
        If it is of another type, or negative.
    """
    is_integer = isinstance(seed, int | np.integer) and not isinstance(seed, bool) and seed >= 0
    if not (seed is None or is_integer or isinstance(seed, np.random.Generator)):
        raise ValueError(
            f"seed is {ascii(seed)[:40]}; give an integer that is not negative, a "
            "numpy.random.Generator, or None."
        )
    return np.random.default_rng(seed)


def _normalised(weights: np.ndarray) -> np.ndarray:
    """Return weights that sum to 1 in each row, from their logarithms; 0 if all are zero."""
    top = weights.max(axis=1, keepdims=True, initial=-np.inf)
    linear = np.exp(weights - np.where(np.isfinite(top), top, 0.0))
    return linear / np.maximum(linear.sum(axis=1, keepdims=True), np.finfo(float).tiny)


def effective_draws(weights: np.ndarray) -> np.ndarray:
    """Compute the effective number of draws.

    Parameters
    ----------
    weights : ndarray, shape (n, k)
        Logarithms of the weights.

    Returns
    -------
    ndarray, shape (n,)
        0 for galaxies without weight.
    """
    squares = np.square(_normalised(weights)).sum(axis=1)
    return np.divide(1.0, squares, out=np.zeros(len(squares)), where=squares > 0)


def resampled_indices(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw from the draws with given weights, by systematic resampling.

    Parameters
    ----------
    weights : ndarray, shape (n, k)
        Logarithms of the weights.
    rng : `numpy.random.Generator`
        Source of randomness.

    Returns
    -------
    ndarray of int, shape (n, k)
        Indices of the draws, in random order; 0 to k - 1 where all weights are equal or zero.
    """
    n, k = weights.shape
    index = np.tile(np.arange(k), (n, 1))
    start = np.atleast_1d(rng.random(n))
    shares = _normalised(weights)
    for row in np.flatnonzero(np.ptp(shares, axis=1) > 0) if k else ():
        below = np.cumsum(shares[row])
        points = (np.arange(k) + start[row]) / k * below[-1]
        found = np.searchsorted(below, points, side="right")
        # Rounding could place the last point beyond the last draw that has a weight.
        last = np.flatnonzero(shares[row])[-1]
        index[row] = rng.permutation(np.minimum(found, last))
    return index


def flag_reweighted(
    weights: np.ndarray,
    effective: np.ndarray,
    usable: np.ndarray,
    outside: Mapping[str, np.ndarray],
) -> FlagLog:
    """Flag galaxies whose posterior with the new prior is uncertain.

    Parameters
    ----------
    weights : ndarray, shape (n, k)
        Logarithms of the weights.
    effective : ndarray, shape (n,)
        Effective number of draws.
    usable : ndarray of bool, shape (n,)
        Galaxies that had draws.
    outside : mapping of str to ndarray of bool, shape (n, k)
        Draws outside the population.

    Returns
    -------
    FlagLog
    """
    n, k = weights.shape
    log = FlagLog(n)
    none = usable & (effective == 0)
    few = (effective > 0) & (effective < MIN_EFFECTIVE_DRAWS) & (effective < 0.9 * k)
    log.add(
        none,
        Flag.LOW_EFFECTIVE_SAMPLE | Flag.NO_DRAWS,
        "the new prior excludes all draws, or they lack the quantity",
    )
    log.add(
        few,
        Flag.LOW_EFFECTIVE_SAMPLE,
        lambda row: (
            f"with the new prior, the {k} draws are worth only "
            f"{counted(round(effective[row]), 'draw', 'draws')}"
        ),
    )
    shares = _normalised(weights)
    for name, beyond in outside.items():
        part = (shares * beyond).sum(axis=1)
        for row in np.flatnonzero(part > _MAX_OUTSIDE):
            text = (
                f"{part[row]:.0%} of the draws of {name} are outside the population of the "
                "weights, whose density is extrapolated there"
            )
            log.add(row, Flag.ASSUMPTION, text)
    return log
