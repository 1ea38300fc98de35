r"""Scores and verdicts on posteriors of galaxies with known true values.

`calibration_table` computes scores of each quantity: coverage, PIT tests, CRPS and errors of the
median.  `judge` summarises one quantity in a verdict.  With :math:`t_i = \Phi^{-1}(\mathrm{PIT}_i)`
and its median :math:`\tilde t`:

* the bias in units of the posterior width is :math:`-\tilde t`; its standard error is :math:`1.2533
  / \sqrt n`;
* the width factor, by which uncertainties should be multiplied, is the 68% quantile of :math:`|t_i
  - \tilde t|` divided by that of a standard normal variate;
* the skill is one minus the CRPS divided by that of the distribution of the true values of the
  sample (climatology).

A deviation counts if it exceeds both 2.5 standard errors and a tolerance: 0.04 in the coverage of
the 68% intervals, 0.15 posterior widths in the bias.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np
from astropy.table import QTable, Table, vstack
from scipy.special import ndtri

from ..calibration.diagnostics import coverage_of_pit, pit, uniformity_test, values_in_dex
from ..calibration.truth import read_truth
from ..metrics import crps, point_metrics
from ..results.statistics import row_percentiles

if TYPE_CHECKING:
    from ..results.posterior import Posterior

__all__ = ["MIN_GALAXIES", "TRUST", "Verdict", "calibration_table", "grouped_scores", "judge"]

_Seed = int | np.random.Generator | None
#: Verdicts from good to bad, and the one for too few galaxies.
TRUST = ("trust", "trust with care", "do not trust", "cannot tell")
#: Minimum number of galaxies with a true value for a verdict.
MIN_GALAXIES = 30
_LEVEL = 0.68
#: Number of standard errors from which a deviation is significant.
_SIGNIFICANT = 2.5
#: Deviations of the coverage, and bias in posterior widths, above which a posterior is to be
#: trusted with care or not at all.
_COVERAGE_TOLERANCE, _COVERAGE_LIMIT = 0.04, 0.15
_SHIFT_TOLERANCE, _SHIFT_LIMIT = 0.15, 0.6
_MIN_SKILL = 0.05


def calibration_table(
    posterior: Posterior,
    truth: Mapping[str, u.Quantity] | Table,
    *,
    groups: Sequence[Any] | np.ndarray | None = None,
    seed: _Seed = 0,
) -> QTable:
    """Compute scores and calibration tests of each quantity.

    Parameters
    ----------
    posterior : `~astrogenspec.Posterior`
    truth : mapping of str to Quantity of shape (n_galaxies,), or table with such columns
        True values by quantity, drawn or derived; NaN or masked where unknown.  With a column
        ``name``, rows are matched by the names of the galaxies, otherwise by order.  Other columns
        of a table are ignored.  Fill values such as -9999 count as missing, with a warning
        (`~astrogenspec.quantities.known_numbers`).
    groups : sequence, length n_galaxies, optional
        Labels, for example bins of magnitude or types: the table has one row for each quantity and
        label.
    seed : int or `~numpy.random.Generator`, optional
        Seed with which ties are broken.

    Returns
    -------
    `~astropy.table.QTable`
        One row for each quantity (and group): ``quantity``, ``group`` (if any), ``unit`` of the
        scores, ``n`` (galaxies with truth and draws), ``coverage_68``, ``coverage_95``, ``pit_ks``,
        ``pit_p_value``, ``crps``, and errors of the median: ``bias`` (mean), ``scatter`` (robust),
        ``rmse``, ``r2``.  Fluxes are scored in dex.

    Raises
    ------
    KeyError
        If the truth has a quantity that the posterior does not have.
    ValueError
        If the length of a truth or of the groups differs from that of the posterior, or names are
        repeated or missing.
    astropy.units.UnitConversionError
        If a unit cannot be converted.
    """
    known = read_truth(posterior, truth).values
    if not known:
        raise ValueError("truth has no quantity of the posterior; at least one is needed.")
    _selections(groups, len(posterior))
    rng = np.random.default_rng(seed)
    rows = []
    for name, true in known.items():
        values, numbers, unit = values_in_dex(posterior[name], true)
        # One rank per galaxy for all groups, so that scores of groups and of all galaxies agree.
        ranks = pit(values, numbers, seed=rng)
        rows.append(grouped_scores(name, (values, numbers, unit), ranks, groups))
    return vstack(rows, metadata_conflicts="silent")


def grouped_scores(
    name: str,
    compared: tuple[np.ndarray, np.ndarray, u.UnitBase | None],
    ranks: np.ndarray,
    groups: Sequence[Any] | np.ndarray | None = None,
) -> QTable:
    """Compute the rows of `calibration_table` of one quantity.

    Parameters
    ----------
    name : str
        Name of the quantity.
    compared : tuple of (ndarray, ndarray, unit)
        Draws, true values and unit, as from `~astrogenspec.calibration.diagnostics.values_in_dex`.
    ranks : ndarray, shape (n_galaxies,)
        Result of `~astrogenspec.calibration.pit`.
    groups : sequence, length n_galaxies, optional
        Labels of the galaxies.

    Returns
    -------
    `~astropy.table.QTable`
    """
    values, true, unit = compared
    rows = []
    for label, chosen in _selections(groups, len(true)):
        row = {"quantity": name} | ({} if groups is None else {"group": label})
        row |= {"unit": str(unit)}
        rows.append(row | _scores(values[chosen], true[chosen], ranks[chosen]))
    return QTable(rows)


def _selections(
    groups: Sequence[Any] | np.ndarray | None, n_galaxies: int
) -> list[tuple[Any, Any]]:
    """Return labels in order of first appearance, each with the selection of its galaxies."""
    if groups is None:
        return [(None, slice(None))]
    labels = np.asarray(groups)
    if labels.shape != (n_galaxies,):
        raise ValueError(
            f"groups has shape {labels.shape} for {n_galaxies} galaxies; one label per galaxy is "
            "expected."
        )
    return [(label, labels == label) for label in dict.fromkeys(labels.tolist())]


def _scores(values: np.ndarray, true: np.ndarray, ranks: np.ndarray) -> dict[str, float]:
    usable = np.isfinite(ranks)
    values, true, ranks = values[usable], true[usable], ranks[usable]
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


@dataclass(frozen=True)
class Verdict:
    """Verdict on the posterior of one quantity.

    Attributes
    ----------
    trust : str
        One of `TRUST`.
    reason : str
        Explanation in words.
    n : int
        Number of galaxies with a true value and draws.
    width_factor : float
        Factor by which uncertainties should be multiplied; 1 if calibrated, NaN with too few
        galaxies.
    shift : float
        Median error in units of the posterior width, positive if values are too high.
    skill : float
        One minus the CRPS divided by that of the distribution of the true values: 0 is
        uninformative, 1 is perfect.
    """

    trust: str
    reason: str
    n: int
    width_factor: float
    shift: float
    skill: float


def judge(
    values: np.ndarray,
    truth: np.ndarray,
    unit: str = "",
    *,
    seed: int = 0,
    ranks: np.ndarray | None = None,
) -> Verdict:
    """Judge the posterior of one quantity.

    Parameters
    ----------
    values : ndarray, shape (n_galaxies, n_draws)
        Draws, in a unit in which errors are additive (dex for masses and fluxes).
    truth : ndarray, shape (n_galaxies,)
        True values; NaN where unknown.
    unit : str
        Unit of differences, for the text.
    seed : int
        Seed with which ties are broken.
    ranks : ndarray, shape (n_galaxies,), optional
        Result of `~astrogenspec.calibration.pit`, if it is known already.

    Returns
    -------
    Verdict
    """
    if ranks is None:
        ranks = pit(values, truth, seed=seed)
    usable = np.isfinite(ranks)
    values, truth, ranks = values[usable], truth[usable], ranks[usable]
    n = len(truth)
    if n < MIN_GALAXIES:
        only = (
            "No galaxy has"
            if n == 0
            else "Only 1 galaxy has"
            if n == 1
            else f"Only {n} galaxies have"
        )
        reason = f"{only} a true value; at least {MIN_GALAXIES} are needed."
        return Verdict("cannot tell", reason, n, float("nan"), float("nan"), float("nan"))
    deviates = ndtri(ranks)
    centre = float(np.median(deviates))
    # The half-width that contains the level, in units of that of a standard normal variate.
    factor = float(np.quantile(np.abs(deviates - centre), _LEVEL) / ndtri((1 + _LEVEL) / 2))
    coverage = float(coverage_of_pit(ranks, (_LEVEL,))[0])
    bias = float(np.median(row_percentiles(values, [50])[0] - truth))
    skill = _skill(values, truth)
    coverage_error = (_LEVEL * (1 - _LEVEL) / n) ** 0.5
    wrong_width = _exceeds(coverage - _LEVEL, coverage_error, _COVERAGE_TOLERANCE)
    biased = _exceeds(centre, 1.2533 / n**0.5, _SHIFT_TOLERANCE)
    very_wrong = abs(coverage - _LEVEL) > _COVERAGE_LIMIT or abs(centre) > _SHIFT_LIMIT
    trust = TRUST[0]
    if wrong_width or biased or skill < _MIN_SKILL:
        trust = TRUST[2] if very_wrong else TRUST[1]
    findings = [_width_finding(coverage, factor, wrong_width, biased)]
    findings.append(_bias_finding(bias, centre, unit) if biased else "no relevant bias")
    if skill < _MIN_SKILL:
        findings.append("hardly more informative than the distribution of this sample")
    reason = f"{'; '.join(findings)} ({n} galaxies)."
    return Verdict(trust, reason[0].upper() + reason[1:], n, factor, -centre, skill)


def _width_finding(coverage: float, factor: float, wrong: bool, biased: bool) -> str:
    if not wrong:
        return f"the 68% intervals contain {coverage:.0%} of the true values"
    word = "narrow" if coverage < _LEVEL else "wide"
    apart = "apart from the bias, " if biased else ""
    return (
        f"the 68% intervals are too {word}: they contain {coverage:.0%} of the true values "
        f"({apart}uncertainties should be {factor:.2f} times as large)"
    )


def _bias_finding(bias: float, centre: float, unit: str) -> str:
    direction = "high" if centre < 0 else "low"
    amount = f"{abs(bias):.2g} {unit}".strip()
    return (
        f"the medians are too {direction} by {amount}, {abs(centre):.1f} times their uncertainties"
    )


def _exceeds(deviation: float, error: float, tolerance: float) -> bool:
    return abs(deviation) > max(_SIGNIFICANT * error, tolerance)


def _skill(values: np.ndarray, truth: np.ndarray) -> float:
    score = float(np.mean(crps(values, truth, fair=values.shape[1] > 1)))
    ordered = np.sort(truth)
    n = len(ordered)
    # Half the mean absolute difference of two true values is the CRPS of their distribution.
    reference = float((2 * np.arange(n) - n + 1) @ ordered) / (n * (n - 1))
    return 1 - score / reference if reference > 0 else float("nan")
