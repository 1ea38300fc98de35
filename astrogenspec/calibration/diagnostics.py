r"""Calibration diagnostics: probability integral transform, ranks, coverage and TARP.

For a galaxy with true value :math:`\theta` and :math:`K` posterior draws, of which :math:`r` are
below :math:`\theta`, the probability integral transform (PIT) is estimated by :math:`(r + 1/2) / (K
+ 1)` or, with a seed, by :math:`(r + U) / (K + 1)` with :math:`U` uniform on [0, 1], which is
exactly uniform for a calibrated posterior with any number of draws.  The central interval of
probability :math:`\alpha` contains the truth if :math:`|2\,\mathrm{PIT} - 1| \leq \alpha`.

TARP (tests of accuracy with random points [1]_) tests the joint posterior: for a reference point
:math:`\theta_r` that does not depend on the truth, the fraction of draws with :math:`|\theta_k -
\theta_r| < |\theta - \theta_r|` is uniform over the galaxies if the posterior is calibrated.
Distances are Euclidean, with each dimension scaled to the range from the 1st to the 99th percentile
of the truths.

Galaxies without truth or draws give NaN.  True values that are masked, infinite or fill values
(-9999, 99.99, ...; see `astrogenspec.quantities.known_numbers`) are missing.

References
----------
.. [1] Lemos et al. 2023, arXiv:2302.03026
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np
from astropy.table import Table

from ..quantities import QUANTITIES, known_numbers
from ..results.statistics import difference_unit, matched_values, row_ranks
from .truth import read_truth

if TYPE_CHECKING:
    from ..results.posterior import Posterior
    from ..results.quantity import QuantityPosterior

__all__ = [
    "TarpResult",
    "central_coverage",
    "coverage_of_pit",
    "pit",
    "sbc_ranks",
    "tarp",
    "uniformity_test",
    "values_in_dex",
]

_Seed = int | np.random.Generator | None


def pit(draws: u.Quantity, truth: u.Quantity, *, seed: _Seed = None) -> np.ndarray:
    """Compute the probability integral transform (PIT) of each galaxy.

    Parameters
    ----------
    draws : `~astrogenspec.QuantityPosterior`, Quantity or ndarray, shape (n_galaxies, n_draws)
        Posterior draws; NaN are ignored.
    truth : Quantity or array_like, shape (n_galaxies,)
        True values, converted to the unit of the draws.
    seed : int or `~numpy.random.Generator`, optional
        If given, ranks are made continuous and ties broken at random.  Recommended for few draws.

    Returns
    -------
    ndarray, shape (n_galaxies,)
        Between 0 and 1; NaN where the truth or all draws are NaN.

    Raises
    ------
    ValueError
        If the shapes do not match.
    astropy.units.UnitConversionError
        If the units cannot be converted.
    """
    values, true, _ = matched_values(draws, truth)
    below, equal, finite = row_ranks(values, true)
    if seed is None:
        rank = below + equal / 2 + 0.5
    else:
        rank = below + np.random.default_rng(seed).random(len(true)) * (equal + 1)
    usable = np.isfinite(true) & (finite > 0)
    return np.where(usable, rank / (finite + 1), np.nan)


def sbc_ranks(draws: u.Quantity, truth: u.Quantity, *, seed: _Seed = None) -> np.ndarray:
    """Compute the rank of the truth among the draws of each galaxy (simulation-based calibration).

    Parameters
    ----------
    draws : `~astrogenspec.QuantityPosterior`, Quantity or ndarray, shape (n_galaxies, n_draws)
    truth : Quantity or array_like, shape (n_galaxies,)
        True values, converted to the unit of the draws.
    seed : int or `~numpy.random.Generator`, optional
        If given, ties are broken at random; otherwise the truth ranks before draws equal to it.

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
    """Test values for uniformity on [0, 1] with the Kolmogorov-Smirnov test.

    Parameters
    ----------
    values : ndarray
        For example from `pit`; NaN are ignored.

    Returns
    -------
    statistic : float
        Maximum distance of the cumulative distribution from the diagonal.
    p_value : float
        Probability of a larger statistic if the values are uniform.  Both are NaN if there are no
        values.
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
    """Compute the fraction of galaxies whose truth lies in central intervals.

    Parameters
    ----------
    draws : `~astrogenspec.QuantityPosterior`, Quantity or ndarray, shape (n_galaxies, n_draws)
    truth : Quantity or array_like, shape (n_galaxies,)
        True values, converted to the unit of the draws.
    levels : sequence of float
        Probabilities of the intervals, between 0 and 1.
    seed : int or `~numpy.random.Generator`, optional
        As in `pit`.

    Returns
    -------
    ndarray, shape (n_levels,)
        NaN if no galaxy has a truth and draws.

    Raises
    ------
    ValueError
        If the shapes do not match, or a level is not between 0 and 1.

    Notes
    -----
    Counts abs(2 PIT - 1) <= level.  Without a seed the result has a discretisation error of
    1 / n_draws; with a seed it is unbiased for any number of draws.
    """
    return coverage_of_pit(pit(draws, truth, seed=seed), levels)


def coverage_of_pit(values: np.ndarray, levels: Sequence[float] | np.ndarray) -> np.ndarray:
    """Compute the coverage of central intervals from the probability integral transform.

    Parameters
    ----------
    values : ndarray
        Output of `pit`; NaN are ignored.
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
        raise ValueError(
            f"levels is {levels.tolist()}; probabilities between 0 and 1 are expected."
        )
    values = np.asarray(values, dtype=float)
    distance = np.sort(np.abs(2 * values[np.isfinite(values)] - 1))
    if distance.size == 0:
        return np.full(levels.shape, np.nan)
    # The tolerance keeps values at the limit inside despite rounding.
    return np.searchsorted(distance, levels + 1e-12, side="right") / distance.size


def values_in_dex(
    quantity: QuantityPosterior, truth: Any
) -> tuple[np.ndarray, np.ndarray, u.UnitBase | None]:
    """Convert draws and truth to numbers with additive errors: fluxes to their base-10 logarithm.

    Parameters
    ----------
    quantity : `~astrogenspec.QuantityPosterior`
    truth : Quantity or array_like, shape (n_galaxies,)
        True values, converted to the unit of the draws.

    Returns
    -------
    draws : ndarray, shape (n_galaxies, n_draws)
    truth : ndarray, shape (n_galaxies,)
        Not finite for a flux that is not positive.
    unit : `~astropy.units.UnitBase` or None
        Unit of differences.
    """
    values, true, unit = matched_values(quantity, truth, name=f"truth[{quantity.name!r}]")
    info = QUANTITIES.get(quantity.name)
    if info is None or not info.logarithmic:
        return values, true, difference_unit(unit)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log10(np.where(values > 0, values, np.nan)), np.log10(true), u.dex


@dataclass(frozen=True)
class TarpResult:
    """Expected coverage of credible regions around random reference points.

    Parameters
    ----------
    levels : ndarray, shape (n_levels,)
        Nominal probabilities, from 0 to 1.
    coverage : ndarray, shape (n_levels,)
        Fraction of galaxies whose truth is inside the region; equal to ``levels`` if calibrated.
    lower, upper : ndarray, shape (n_levels,)
        Limits of the 95% bootstrap band of the coverage.
    max_deviation : float
        Largest absolute difference of coverage and level.
    p_value : float
        Kolmogorov-Smirnov probability of a larger deviation for a calibrated posterior.
    n_galaxies : int
        Number of galaxies used.
    """

    levels: np.ndarray
    coverage: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    max_deviation: float
    p_value: float
    n_galaxies: int


def tarp(
    draws: Posterior | np.ndarray,
    truth: Mapping[str, u.Quantity] | Table | np.ndarray,
    *,
    references: np.ndarray | None = None,
    n_levels: int = 51,
    n_bootstrap: int = 200,
    seed: _Seed = 0,
) -> TarpResult:
    """Compute the expected coverage of a joint posterior around random reference points (TARP).

    Parameters
    ----------
    draws : `~astrogenspec.Posterior`, or ndarray of shape (n_galaxies, n_draws, n_dimensions)
    truth : mapping or table of Quantity, or ndarray of shape (n_galaxies, n_dimensions)
        With a posterior: true values of shape (n_galaxies,) by name of the quantity, for the
        quantities to be tested, read as by `~astrogenspec.calibration.calibration_table`.  Fluxes
        are compared in their logarithm.
    references : ndarray, shape (n_galaxies, n_dimensions), optional
        Reference points in the coordinates of ``draws`` (for a posterior: dex, and log10 of
        fluxes).  They may depend on the data but not on the truth.  By default uniform between the
        1st and 99th percentiles of the truths.
    n_levels : int
        Number of levels from 0 to 1.
    n_bootstrap : int
        Number of bootstrap resamples of the galaxies.
    seed : int or `~numpy.random.Generator`, optional
        Seed of reference points and resampling.

    Returns
    -------
    TarpResult

    Raises
    ------
    ValueError
        If shapes do not match, or no galaxy has a truth and draws.
    KeyError
        If the posterior does not have a quantity.
    """
    samples, true = _stacked(draws, truth)
    usable = np.isfinite(true).all(axis=1) & np.isfinite(samples).all(axis=(1, 2))
    if not usable.any():
        raise ValueError("no galaxy has a true value and draws of every quantity.")
    rng = np.random.default_rng(seed)
    low, high = np.percentile(true[usable], [1, 99], axis=0)
    scale = np.where(high > low, high - low, 1.0)
    if references is None:
        references = low + rng.random(true.shape) * scale
    references = np.asarray(references, dtype=float)
    if references.shape != true.shape:
        raise ValueError(
            f"references has shape {references.shape}; {true.shape}, the shape of the truth, is "
            "expected."
        )
    fractions = _nearer_fractions(samples[usable], true[usable], references[usable], scale, rng)

    levels = np.linspace(0, 1, n_levels)
    # Bootstrap resampling of the galaxies draws the counts between levels from a multinomial
    # distribution.
    counts = np.histogram(fractions, levels)[0]
    resampled = rng.multinomial(len(fractions), counts / len(fractions), size=n_bootstrap)
    curves = np.cumsum(np.vstack([counts, resampled]), axis=1) / len(fractions)
    curves = np.hstack([np.zeros((len(curves), 1)), curves])
    lower, upper = np.percentile(curves[1:], [2.5, 97.5], axis=0)
    return TarpResult(
        levels,
        curves[0],
        lower,
        upper,
        float(np.abs(curves[0] - levels).max()),
        uniformity_test(fractions)[1],
        len(fractions),
    )


def _stacked(draws: Any, truth: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return draws (n_galaxies, n_draws, n_dimensions) and truth (n_galaxies, n_dimensions)."""
    if isinstance(truth, Mapping | Table):
        if not hasattr(draws, "quantities"):
            raise TypeError(
                f"truth has names of quantities, but draws is a {type(draws).__name__}; a "
                "Posterior is expected."
            )
        known = read_truth(draws, truth).values
        if not known:
            raise ValueError("truth has no quantity of the posterior; at least one is needed.")
        pairs = [values_in_dex(draws[name], value)[:2] for name, value in known.items()]
        return np.stack([p[0] for p in pairs], axis=-1), np.stack([p[1] for p in pairs], axis=-1)
    samples = np.asarray(draws, dtype=float)
    true = known_numbers(truth, None, name="truth")[0].astype(float)
    if samples.ndim != 3 or true.shape != (samples.shape[0], samples.shape[2]):
        raise ValueError(
            f"draws has shape {samples.shape} and truth {true.shape}; (n_galaxies, n_draws, "
            "n_dimensions) and (n_galaxies, n_dimensions) are expected."
        )
    return samples, true


def _nearer_fractions(
    samples: np.ndarray,
    true: np.ndarray,
    references: np.ndarray,
    scale: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return the fraction of draws nearer to the reference point than the truth, by galaxy."""
    of_truth = np.sum(((true - references) / scale) ** 2, axis=1)
    of_draws = np.empty(samples.shape[:2])
    for number, reference in enumerate(references):
        of_draws[number] = np.sum(((samples[number] - reference) / scale) ** 2, axis=1)
    return pit(of_draws, of_truth, seed=rng)
