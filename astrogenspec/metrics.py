r"""Metrics of point estimates and posterior draws against true values.

* Redshift: with :math:`\delta = (z_\mathrm{est} - z_\mathrm{true}) / (1 + z_\mathrm{true})`, the
  robust scatter :math:`\sigma_\mathrm{NMAD} = 1.4826\,\mathrm{median}|\delta -
  \mathrm{median}\,\delta|`, the bias :math:`\langle\delta\rangle`, and the fraction of outliers
  :math:`|\delta| > 0.05` (as Pasquet et al. 2019, A&A 621, A26).
* Other quantities: mean and median of estimate minus truth (bias), robust scatter, root mean
  square error, and coefficient of determination :math:`R^2`.
* Draws: the continuous ranked probability score, :math:`\langle|x - y|\rangle - \frac12\langle|x
  - x'|\rangle` for draws :math:`x, x'` and truth :math:`y` (Gneiting & Raftery 2007, JASA 102,
  359), in the unit of the quantity; smaller is better.

Galaxies whose truth or estimate is masked, not finite or a fill value such as -9999
(`astrogenspec.quantities.known_numbers`) are excluded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import astropy.units as u
import numpy as np

from .quantities import known_numbers
from .results.statistics import difference_unit, matched_values

__all__ = [
    "bootstrap_errors",
    "crps",
    "interval_coverage",
    "point_metrics",
    "redshift_metrics",
    "robust_scatter",
]

#: Ratio of the standard deviation to the median absolute deviation of a Gaussian.
_GAUSSIAN_MAD = 1.4826
_Statistic = Callable[..., float | Mapping[str, float]]


def robust_scatter(values: np.ndarray) -> float:
    """Return 1.4826 times the median absolute deviation, the standard deviation for a Gaussian.

    Parameters
    ----------
    values : ndarray
        Values; those that are not finite are excluded.

    Returns
    -------
    float
        NaN if there are no finite values.
    """
    values = np.asarray(values, dtype=float)
    values = values[np.isfinite(values)]
    if values.size == 0:
        return float("nan")
    return float(_GAUSSIAN_MAD * np.median(np.abs(values - np.median(values))))


def redshift_metrics(
    estimate: np.ndarray, truth: np.ndarray, *, outlier: float = 0.05
) -> dict[str, float]:
    """Compute metrics of redshifts.

    Parameters
    ----------
    estimate, truth : array_like, shape (n_galaxies,)
        Redshifts.
    outlier : float
        Deviation, relative to 1 + z, above which a galaxy is an outlier.

    Returns
    -------
    dict of str to float
        ``n`` (number of galaxies used), ``sigma_nmad``, ``bias`` (mean), ``median_bias``,
        ``outlier_fraction``.  All but ``n`` are NaN if no galaxy is used.

    Raises
    ------
    ValueError
        If the shapes differ.
    astropy.units.UnitConversionError
        If a redshift has a unit.
    """
    unit = u.dimensionless_unscaled
    estimate, truth, _ = _paired(estimate, truth, unit, quantity="redshift")
    deviation = (estimate - truth) / (1 + truth)
    return {
        "n": len(deviation),
        "sigma_nmad": robust_scatter(deviation),
        "bias": _mean(deviation),
        "median_bias": _median(deviation),
        "outlier_fraction": _mean(np.abs(deviation) > outlier),
    }


def point_metrics(estimate: u.Quantity, truth: u.Quantity) -> dict[str, float]:
    """Compute metrics of point estimates.

    Parameters
    ----------
    estimate : Quantity or array_like, shape (n_galaxies,)
        Point estimates.
    truth : Quantity or array_like, shape (n_galaxies,)
        True values; converted to the unit of the estimate.

    Returns
    -------
    dict of str to float
        ``n`` (number of galaxies used); ``bias`` (mean of estimate minus truth), ``median_bias``,
        ``scatter`` (robust) and ``rmse`` in the unit of the estimate (dex for a logarithm); ``r2``,
        one minus the ratio of the mean squared error to the variance of the truth.  NaN where
        undefined.

    Raises
    ------
    ValueError
        If the shapes differ.
    astropy.units.UnitConversionError
        If the units cannot be converted.
    """
    estimate, truth, _ = _paired(estimate, truth)
    error = estimate - truth
    variance = float(np.var(truth)) if len(truth) else 0.0
    mean_square = _mean(error**2)
    return {
        "n": len(error),
        "bias": _mean(error),
        "median_bias": _median(error),
        "scatter": robust_scatter(error),
        "rmse": mean_square**0.5,
        "r2": 1 - mean_square / variance if variance > 0 else float("nan"),
    }


def crps(draws: u.Quantity, truth: u.Quantity, *, fair: bool = True) -> u.Quantity | np.ndarray:
    """Compute the continuous ranked probability score of each galaxy.

    Parameters
    ----------
    draws : `~astrogenspec.QuantityPosterior`, Quantity or ndarray, shape (n_galaxies, n_draws)
        Posterior draws; NaN are excluded.
    truth : Quantity or array_like, shape (n_galaxies,)
        True values; converted to the unit of the draws.
    fair : bool
        Correct for the finite number of draws, so that the expected score is that of infinitely
        many draws (Ferro 2014, QJRMS 140, 1917).  Requires at least two draws.

    Returns
    -------
    Quantity or ndarray, shape (n_galaxies,)
        Score in the unit of the draws (dex for a logarithm).  NaN where the truth or all draws are
        NaN.

    Raises
    ------
    ValueError
        If the shapes do not match, or ``fair`` is true and there is only one draw.
    astropy.units.UnitConversionError
        If the units cannot be converted.
    """
    values, true, unit = matched_values(draws, truth)
    n_draws = values.shape[1]
    if fair and n_draws == 1:
        raise ValueError(
            "draws has one draw per galaxy, but a fair CRPS requires at least two draws; pass "
            "fair=False."
        )
    score = np.empty(len(values))
    n_rows = max(2_000_000 // n_draws, 1)
    for start in range(0, len(values), n_rows):
        rows = slice(start, start + n_rows)
        # Subtract the truth first to avoid cancellation in single precision.
        score[rows] = _energy_score(values[rows].astype(float) - true[rows, None], fair)
    return score if unit is None else u.Quantity(score, difference_unit(unit), copy=False)


def interval_coverage(lower: u.Quantity, upper: u.Quantity, truth: u.Quantity) -> float:
    """Return the fraction of galaxies whose true value is inside an interval, limits included.

    Parameters
    ----------
    lower, upper : Quantity or array_like, shape (n_galaxies,)
        Limits, such as ``lower, upper = posterior["sfr"].interval(0.68)``.
    truth : Quantity or array_like, shape (n_galaxies,)
        True values; converted to the unit of the lower limit.

    Returns
    -------
    float
        NaN if no galaxy is used.

    Raises
    ------
    ValueError
        If the shapes differ.
    astropy.units.UnitConversionError
        If the units cannot be converted.
    """
    low, true, usable = _paired(lower, truth, keep=True)
    high = known_numbers(upper, getattr(lower, "unit", None), name="upper")[0].astype(float)
    if high.shape != low.shape:
        raise ValueError(
            f"upper has shape {high.shape} but lower has shape {low.shape}; give equal shapes."
        )
    usable &= np.isfinite(high)
    return _mean(((low <= true) & (true <= high))[usable])


def bootstrap_errors(
    statistic: _Statistic,
    *arrays: np.ndarray,
    n_resamples: int = 200,
    seed: int | np.random.Generator | None = None,
) -> float | dict[str, float]:
    """Estimate the standard error of a statistic by resampling galaxies with replacement.

    Parameters
    ----------
    statistic : callable
        Function of the arrays that returns a number or a mapping of numbers, such as
        `point_metrics`.
    *arrays : array_like, shape (n_galaxies, ...)
        Arguments of the statistic.
    n_resamples : int
        Number of resamples.
    seed : int or `~numpy.random.Generator`, optional
        Seed of the resampling.

    Returns
    -------
    float or dict of str to float
        Standard error; a dict if the statistic returns a mapping.

    Raises
    ------
    ValueError
        If the arrays differ in length, there are none, or ``n_resamples`` is less than 2.
    """
    lengths = {len(array) for array in arrays}
    if len(lengths) != 1:
        raise ValueError(
            f"arrays have lengths {sorted(lengths)}; give at least one array, all of equal length."
        )
    if n_resamples < 2:
        raise ValueError(f"n_resamples is {n_resamples}; give at least 2.")
    n_galaxies = lengths.pop()
    rng = np.random.default_rng(seed)
    results: list[Any] = []
    for _ in range(n_resamples):
        rows = rng.integers(n_galaxies, size=n_galaxies) if n_galaxies else slice(0)
        results.append(statistic(*(array[rows] for array in arrays)))
    if not isinstance(results[0], Mapping):
        return float(np.std(np.array(results, dtype=float), ddof=1))
    return {
        key: float(np.std([float(result[key]) for result in results], ddof=1)) for key in results[0]
    }


def _energy_score(deviation: np.ndarray, fair: bool) -> np.ndarray:
    """Return the CRPS of draws minus truth.

    The sum over |x_i - x_j| is computed as a weighted sum of the sorted draws.
    """
    ordered = np.sort(deviation, axis=1)
    n_draws = np.count_nonzero(~np.isnan(ordered), axis=1)[:, None]
    weight = 2.0 * np.arange(ordered.shape[1]) - n_draws + 1
    with np.errstate(invalid="ignore", divide="ignore"):
        distance = np.nansum(np.abs(ordered), axis=1) / n_draws[:, 0]
        spread = np.nansum(weight * ordered, axis=1)
        return distance - spread / (n_draws * (n_draws - 1 if fair else n_draws))[:, 0]


def _paired(
    estimate: Any,
    truth: Any,
    unit: u.UnitBase | None = None,
    *,
    quantity: str = "",
    keep: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return floats in one unit and a mask of finite pairs, which are selected unless ``keep``."""
    unit = getattr(estimate, "unit", None) if unit is None else unit
    first, second = (
        known_numbers(values, unit, quantity=quantity, name=name)[0].astype(float)
        for name, values in (("estimate", estimate), ("truth", truth))
    )
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(
            f"estimate has shape {first.shape} but truth has shape {second.shape}; give one "
            "value per galaxy."
        )
    usable = np.isfinite(first) & np.isfinite(second)
    return (first, second, usable) if keep else (first[usable], second[usable], usable)


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else float("nan")
