"""Where the true value falls among the draws: probability integral transform, ranks and coverage.

With K draws the rank r of the truth is one of K + 1 numbers.  All functions use (r + 1/2) / (K +
1), or, with a seed, (r + U) / (K + 1) with U uniform, which is exactly uniform for a calibrated
posterior with any number of draws.  Galaxies without truth or draws give NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np

from ..draws.statistics import difference_unit, matched_values, row_ranks
from ..quantities import QUANTITIES

if TYPE_CHECKING:
    from ..draws.quantity import QuantityPosterior

__all__ = [
    "central_coverage",
    "coverage_of_pit",
    "pit",
    "sbc_ranks",
    "uniformity_test",
    "values_in_dex",
]

_Seed = int | np.random.Generator | None


def pit(draws: u.Quantity, truth: u.Quantity, *, seed: _Seed = None) -> np.ndarray:
    """Give the probability integral transform of each galaxy.

    Parameters
    ----------
    draws : `~astrogenspec.QuantityPosterior`, Quantity or ndarray, shape (n_galaxies, n_draws)
        NaN draws are left out.
    truth : Quantity or array_like, shape (n_galaxies,)
        Converted to the unit of the draws.
    seed : int or `~numpy.random.Generator`, optional
        If given, ranks are made continuous and ties broken at random; see the module's notes.
        Use it for few draws.

    Returns
    -------
    ndarray, shape (n_galaxies,)
        Between 0 and 1; NaN where the truth or all draws are.

    Raises
    ------
    ValueError
        If the shapes do not fit.
    astropy.units.UnitConversionError
        If the units do not fit.
    """
    values, true, _ = matched_values(draws, truth)
    below, equal, finite = row_ranks(values, true)
    if seed is None:
        place = below + equal / 2 + 0.5
    else:
        place = below + np.random.default_rng(seed).random(len(true)) * (equal + 1)
    usable = np.isfinite(true) & (finite > 0)
    return np.where(usable, place / (finite + 1), np.nan)


def sbc_ranks(draws: u.Quantity, truth: u.Quantity, *, seed: _Seed = None) -> np.ndarray:
    """Give the rank of the truth among the draws of each galaxy.

    Parameters
    ----------
    draws : `~astrogenspec.QuantityPosterior`, Quantity or ndarray, shape (n_galaxies, n_draws)
    truth : Quantity or array_like, shape (n_galaxies,)
        Converted to the unit of the draws.
    seed : int or `~numpy.random.Generator`, optional
        Seed of the breaking of ties; without it the truth comes before draws equal to it.

    Returns
    -------
    ndarray of int, shape (n_galaxies,)
        Number of draws below the truth, from 0 to n_draws; -1 where the truth or any draw is NaN.
    """
    values, true, _ = matched_values(draws, truth)
    below, equal, finite = row_ranks(values, true)
    ranks = below if seed is None else below + np.random.default_rng(seed).integers(equal + 1)
    return np.where(np.isfinite(true) & (finite == values.shape[1]), ranks, -1)


def uniformity_test(values: np.ndarray) -> tuple[float, float]:
    """Test values for a uniform distribution on [0, 1], after Kolmogorov and Smirnov.

    Parameters
    ----------
    values : ndarray
        Such as `pit` gives; NaN are left out.

    Returns
    -------
    statistic : float
        Largest distance of the cumulative distribution from the diagonal.
    p_value : float
        Probability of a larger one if the values are uniform.  Both are NaN if there are no values.
    """
    from scipy.stats import kstest

    values = np.asarray(values, dtype=float)
    values = values[np.isfinite(values)]
    if values.size == 0:
        return float("nan"), float("nan")
    result = kstest(values, "uniform")
    return float(result.statistic), float(result.pvalue)


def central_coverage(
    draws: u.Quantity,
    truth: u.Quantity,
    levels: Sequence[float] = (0.5, 0.68, 0.9, 0.95),
    *,
    seed: _Seed = None,
) -> np.ndarray:
    """Give the fraction of galaxies whose truth lies in the central interval of each probability.

    Parameters
    ----------
    draws : `~astrogenspec.QuantityPosterior`, Quantity or ndarray, shape (n_galaxies, n_draws)
    truth : Quantity or array_like, shape (n_galaxies,)
        Converted to the unit of the draws.
    levels : sequence of float
        Probabilities of the intervals, between 0 and 1.
    seed : int or `~numpy.random.Generator`, optional
        As in `pit`.

    Returns
    -------
    ndarray, shape (n_levels,)
        NaN if there is no galaxy.

    Raises
    ------
    ValueError
        If the shapes do not fit, or a level is not between 0 and 1.

    Notes
    -----
    Counts abs(2 PIT - 1) <= level.  With n_draws draws and no seed the result is rough by 1 /
    n_draws; with a seed it has no bias, whatever the number of draws.
    """
    return coverage_of_pit(pit(draws, truth, seed=seed), levels)


def coverage_of_pit(values: np.ndarray, levels: Sequence[float] | np.ndarray) -> np.ndarray:
    """Give the coverage of central intervals from the probability integral transform.

    Parameters
    ----------
    values : ndarray
        As `pit` gives; NaN are left out.
    levels : sequence of float
        Probabilities of the intervals, between 0 and 1.

    Returns
    -------
    ndarray, shape (n_levels,)
        NaN if there are no values.

    Raises
    ------
    ValueError
        If a level is not between 0 and 1.
    """
    levels = np.atleast_1d(np.asarray(levels, dtype=float))
    if levels.ndim != 1 or not np.all((levels >= 0) & (levels <= 1)):
        raise ValueError(f"levels is {levels.tolist()}; give probabilities between 0 and 1.")
    values = np.asarray(values, dtype=float)
    distance = np.sort(np.abs(2 * values[np.isfinite(values)] - 1))
    if distance.size == 0:
        return np.full(levels.shape, np.nan)
    # the tolerance keeps ranks on the limit inside despite rounding
    return np.searchsorted(distance, levels + 1e-12, side="right") / distance.size


def values_in_dex(
    quantity: QuantityPosterior, truth: Any
) -> tuple[np.ndarray, np.ndarray, u.UnitBase | None]:
    """Give draws and truth as numbers with additive errors: fluxes in their base-10 logarithm.

    Parameters
    ----------
    quantity : `~astrogenspec.QuantityPosterior`
    truth : Quantity or array_like, shape (n_galaxies,)
        Converted to the unit of the draws.

    Returns
    -------
    draws : ndarray, shape (n_galaxies, n_draws)
    truth : ndarray, shape (n_galaxies,)
        A flux that is not positive has no logarithm: infinite or NaN.
    unit : unit of differences
    """
    values, true, unit = matched_values(quantity, truth, name=f"truth[{quantity.name!r}]")
    info = QUANTITIES.get(quantity.name)
    if info is None or not info.logarithmic:
        return values, true, difference_unit(unit)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log10(np.where(values > 0, values, np.nan)), np.log10(true), u.dex
