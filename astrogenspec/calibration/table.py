"""Scores and tests of every quantity of a posterior, in one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np
from astropy.table import QTable, Table

from ..draws.statistics import row_percentiles
from ..metrics import crps, point_metrics
from .ranks import coverage_of_pit, pit, uniformity_test, values_in_dex

if TYPE_CHECKING:
    from ..posterior import Posterior

__all__ = ["calibration_table"]

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
