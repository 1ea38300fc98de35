"""Scores and tests of every quantity of a posterior, in one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np
from astropy.table import QTable, Table
from scipy.special import ndtri

from ..calibration.diagnostics import coverage_of_pit, pit, uniformity_test, values_in_dex
from ..metrics import crps, point_metrics
from ..results.statistics import row_percentiles

if TYPE_CHECKING:
    from ..results.posterior import Posterior

__all__ = ["MIN_GALAXIES", "TRUST", "Verdict", "calibration_table", "judge"]

_Seed = int | np.random.Generator | None


def calibration_table(
    posterior: Posterior,
    truth: Mapping[str, u.Quantity] | Table,
    *,
    groups: Sequence[Any] | np.ndarray | None = None,
    seed: _Seed = 0,
) -> QTable:
    """Score and test the posterior of each quantity.

    Parameters
    ----------
    posterior : `~astrogenspec.Posterior`
    truth : mapping of str to Quantity of shape (n_galaxies,), or table with such columns
        True values by quantity, drawn or derived; NaN or masked where unknown.  Columns of a
        table that are no quantity of the posterior are passed over.
    groups : sequence, length n_galaxies, optional
        Labels (a bin of magnitude, a type): one row for each quantity and label.
    seed : int or `~numpy.random.Generator`, optional
        Seed of the breaking of ties.

    Returns
    -------
    `~astropy.table.QTable`
        One row a quantity (and group): ``quantity``, ``group`` (if any), ``unit`` of the scores,
        ``n`` galaxies with truth and draws, ``coverage_68``, ``coverage_95``, ``pit_ks``,
        ``pit_p_value``, ``crps``, and of the median: ``bias`` (mean), ``scatter`` (robust),
        ``rmse``, ``r2``.  Fluxes are scored in dex.

    Raises
    ------
    KeyError
        If the truth names a quantity the posterior lacks.
    ValueError
        If a truth or the groups have another length than the posterior.
    astropy.units.UnitConversionError
        If a unit does not fit.
    """
    names = list(truth)
    if isinstance(truth, Table):
        names = [name for name in truth.colnames if name in posterior]
    if not names:
        raise ValueError("truth names no quantity; give at least one true value, by quantity.")
    selections = _selections(groups, len(posterior))
    rng = np.random.default_rng(seed)
    rows = []
    for name in names:
        values, true, unit = values_in_dex(posterior[name], truth[name])
        for label, chosen in selections:
            row = {"quantity": name} | ({} if groups is None else {"group": label})
            rows.append(row | {"unit": str(unit)} | _scores(values[chosen], true[chosen], rng))
    return QTable(rows)


def _selections(
    groups: Sequence[Any] | np.ndarray | None, n_galaxies: int
) -> list[tuple[Any, Any]]:
    """Give the labels in the order of their first galaxy, with the galaxies of each."""
    if groups is None:
        return [(None, slice(None))]
    labels = np.asarray(groups)
    if labels.shape != (n_galaxies,):
        raise ValueError(
            f"groups has shape {labels.shape}, but there are {n_galaxies} galaxies; give one label a galaxy."
        )
    return [(label, labels == label) for label in dict.fromkeys(labels.tolist())]


def _scores(values: np.ndarray, true: np.ndarray, rng: np.random.Generator) -> dict[str, float]:
    usable = np.isfinite(true) & ~np.isnan(values).all(axis=1)
    values, true = values[usable], true[usable]
    ranks = pit(values, true, seed=rng)
    coverage = coverage_of_pit(ranks, (0.68, 0.95))
    statistic, p_value = uniformity_test(ranks)
    sharpness = crps(values, true, fair=values.shape[1] > 1)
    points = point_metrics(row_percentiles(values, [50])[0], true)
    return {
        "n": len(true),
        "coverage_68": float(coverage[0]),
        "coverage_95": float(coverage[1]),
        "pit_ks": statistic,
        "pit_p_value": p_value,
        "crps": float(np.mean(sharpness)) if len(true) else float("nan"),
        **{key: points[key] for key in ("bias", "scatter", "rmse", "r2")},
    }


#: What a verdict may be, from good to bad.
TRUST = ("trust", "trust with care", "do not trust", "cannot tell")
#: Fewer galaxies with a true value tell nothing.
MIN_GALAXIES = 30
_LEVEL = 0.68
#: A deviation counts if it is both larger than chance (standard errors) and large enough to matter.
_SIGNIFICANT = 2.5
_COVERAGE_TOLERANCE, _COVERAGE_LIMIT = 0.04, 0.15
_SHIFT_TOLERANCE, _SHIFT_LIMIT = 0.15, 0.6
_LEAST_SKILL = 0.05


@dataclass(frozen=True)
class Verdict:
    """What a sample says of the posterior of one quantity.

    Attributes
    ----------
    trust : str
        One of `TRUST`.
    reason : str
        A sentence.
    n : int
        Galaxies with a true value and draws.
    width_factor : float
        By what the error bars have to be multiplied; 1 if they are right. NaN if it cannot be told.
    shift : float
        Median error in units of the posterior's own width, positive if the values are too high.
    skill : float
        One minus the ratio of the CRPS to that of a guess from the sample's own distribution: 0 says nothing, 1 is
        perfect.
    """

    trust: str
    reason: str
    n: int
    width_factor: float
    shift: float
    skill: float


def judge(values: np.ndarray, truth: np.ndarray, unit: str = "", *, seed: int = 0) -> Verdict:
    """Judge the posterior of one quantity.

    Parameters
    ----------
    values : ndarray, shape (n_galaxies, n_draws)
        Draws, in a unit in which errors add up (dex for masses and fluxes).
    truth : ndarray, shape (n_galaxies,)
        True values; NaN where unknown.
    unit : str
        Unit of differences, for the sentence.
    seed : int
        Of the breaking of ties.

    Returns
    -------
    Verdict
    """
    usable = np.isfinite(truth) & np.isfinite(values).all(axis=1)
    values, truth = values[usable], truth[usable]
    n = len(truth)
    if n < MIN_GALAXIES:
        reason = f"{n} galaxies with a true value are too few to tell; {MIN_GALAXIES} are needed."
        return Verdict("cannot tell", reason, n, float("nan"), float("nan"), float("nan"))
    ranks = pit(values, truth, seed=seed)
    deviates = ndtri(ranks)
    centre = float(np.median(deviates))
    # The half-width that holds the level, against that of a standard normal variate.
    factor = float(np.quantile(np.abs(deviates - centre), _LEVEL) / ndtri((1 + _LEVEL) / 2))
    coverage = float(coverage_of_pit(ranks, (_LEVEL,))[0])
    bias = float(np.median(row_percentiles(values, [50])[0] - truth))
    skill = _skill(values, truth)
    chance = (_LEVEL * (1 - _LEVEL) / n) ** 0.5
    wrong_width = _excess(coverage - _LEVEL, chance, _COVERAGE_TOLERANCE)
    wrong_place = _excess(centre, 1.2533 / n**0.5, _SHIFT_TOLERANCE)
    very_wrong = abs(coverage - _LEVEL) > _COVERAGE_LIMIT or abs(centre) > _SHIFT_LIMIT
    parts = []
    if wrong_width:
        kind = "narrow" if coverage < _LEVEL else "wide"
        apart = "apart from the bias, " if wrong_place else ""
        parts.append(
            f"the 68% intervals are too {kind}: they hold {coverage:.0%} ({apart}error bars should be {factor:.2f} times as "
            "large)"
        )
    else:
        parts.append(f"the 68% intervals hold {coverage:.0%}")
    if wrong_place:
        where = "high" if centre < 0 else "low"
        parts.append(
            f"the values are too {where} by {abs(bias):.2g}{f' {unit}' if unit else ''}, {abs(centre):.1f} of their error bars"
        )
    else:
        parts.append("there is no bias that matters")
    if skill < _LEAST_SKILL:
        parts.append("the values say hardly more than the average of this sample")
    trust = TRUST[0]
    if wrong_width or wrong_place or skill < _LEAST_SKILL:
        trust = TRUST[2] if very_wrong else TRUST[1]
    sentence = "; ".join(parts)
    return Verdict(
        trust, f"{sentence[0].upper()}{sentence[1:]} ({n} galaxies).", n, factor, -centre, skill
    )


def _excess(deviation: float, chance: float, tolerance: float) -> bool:
    return abs(deviation) > max(_SIGNIFICANT * chance, tolerance)


def _skill(values: np.ndarray, truth: np.ndarray) -> float:
    score = float(np.mean(crps(values, truth, fair=values.shape[1] > 1)))
    ordered = np.sort(truth)
    n = len(ordered)
    # Mean absolute difference of two galaxies of the sample, halved: the CRPS of a guess from its distribution.
    guess = float((2 * np.arange(n) - n + 1) @ ordered) / (n * (n - 1))
    return 1 - score / guess if guess > 0 else float("nan")
