"""Scores of redshifts and other labels of real galaxies; shared by several benchmarks."""

from __future__ import annotations

from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import QTable

from astrogenspec import Posterior
from astrogenspec.calibration import central_coverage, pit, uniformity_test
from astrogenspec.metrics import bootstrap_errors, crps, redshift_metrics
from astrogenspec.quantities import QUANTITIES


def redshift_scores(draws: np.ndarray, true: np.ndarray) -> dict:
    """Return scores of the median, CRPS, coverage, and PIT overall and by fifths of the median."""
    median = np.median(draws, axis=1)
    ranks = pit(draws * u.one, true * u.one, seed=0)
    edges = np.quantile(median, [0.2, 0.4, 0.6, 0.8])
    fifth = np.digitize(median, edges)
    coverage = central_coverage(draws * u.one, true * u.one, levels=(0.68, 0.95))
    return {
        **{k: float(v) for k, v in redshift_metrics(median, true).items()},
        "crps_over_1+z": float(np.mean(np.asarray(crps(draws, true)) / (1 + true))),
        "coverage_68": float(coverage[0]),
        "coverage_95": float(coverage[1]),
        "pit_ks": float(uniformity_test(ranks)[0]),
        "pit_ks_fifths": [float(uniformity_test(ranks[fifth == k])[0]) for k in range(5)],
    }


def redshift_scores_with_errors(draws: np.ndarray, truth: np.ndarray, chosen: np.ndarray) -> dict:
    """Return point scores of the posterior median with bootstrap errors, coverage and mean CRPS."""
    draws, true = draws[chosen], truth[chosen]
    median = np.median(draws, axis=1)
    values = redshift_metrics(median, true)
    errors: Any = bootstrap_errors(redshift_metrics, median, true, seed=0)
    coverage = central_coverage(draws * u.one, true * u.one, levels=(0.68, 0.95))
    sharpness = np.mean(crps(draws, true) / (1 + true))
    return {
        "n": int(chosen.sum()),
        **{k: float(v) for k, v in values.items()},
        **{f"{k}_error": float(v) for k, v in errors.items()},
        "coverage_68": float(coverage[0]),
        "coverage_95": float(coverage[1]),
        "crps_over_1+z": float(sharpness),
    }


def label_scores(posterior: Posterior, table: QTable) -> dict:
    """Return RMSE, bias and coverage of all labelled quantities except the redshift, in dex."""
    scores = {}
    for name in list(QUANTITIES)[1:]:
        true, draws = table[name].value, posterior[name].draws.value
        if QUANTITIES[name].logarithmic:
            true, draws = np.log10(true), np.log10(draws)
        rows = np.isfinite(true) & np.isfinite(draws).all(axis=1)
        if rows.sum() < 50:
            continue
        true, draws = true[rows], draws[rows]
        error = np.median(draws, axis=1) - true
        low, high = np.percentile(draws, [16, 84], axis=1)
        lower, upper = np.percentile(draws, [2.5, 97.5], axis=1)
        scores[name] = {
            "n": int(rows.sum()),
            "rmse": float(np.sqrt(np.mean(error**2))),
            "rmse_without_bias": float(error.std()),
            "bias": float(error.mean()),
            "coverage_68": float(np.mean((true > low) & (true < high))),
            "coverage_95": float(np.mean((true > lower) & (true < upper))),
        }
    return scores


def known_label_scores(draws: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Return median offset, scatter and coverage of the galaxies with a known value, in dex."""
    known = np.isfinite(true)
    draws, true = draws[known], true[known]
    error = np.median(draws, axis=1) - true
    low, high = np.percentile(draws, [16, 84], axis=1)
    return {
        "n": int(known.sum()),
        "bias": float(np.median(error)),
        "rmse": float(np.sqrt(np.mean(error**2))),
        "coverage_68": float(np.mean((true > low) & (true < high))),
    }


def label_rmse(
    medians: dict[str, np.ndarray], table: QTable, chosen: np.ndarray | slice = slice(None)
) -> dict:
    """Return the root mean square errors of point predictions, in dex."""
    scores = {}
    for name, values in medians.items():
        true = table[name].value
        error = (values - (np.log10(true) if QUANTITIES[name].logarithmic else true))[chosen]
        error = error[np.isfinite(error)]
        if len(error) >= 50:
            scores[name] = {"n": len(error), "rmse": float(np.sqrt(np.mean(error**2)))}
    return scores


def paired_difference(ours: np.ndarray, theirs: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Return sigma_NMAD of the first minus the second, with a 95% interval (paired bootstrap)."""
    rng = np.random.default_rng(0)
    errors = [(z - true) / (1 + true) for z in (ours, theirs)]

    def nmad(e: np.ndarray) -> float:
        return 1.4826 * np.median(np.abs(e - np.median(e)))

    differences = []
    for _ in range(500):
        rows = rng.integers(len(true), size=len(true))
        differences.append(nmad(errors[0][rows]) - nmad(errors[1][rows]))
    low, high = np.percentile(differences, [2.5, 97.5])
    difference = float(nmad(errors[0]) - nmad(errors[1]))
    return {"difference": difference, "low": float(low), "high": float(high)}


def paired_draws_difference(
    ours: np.ndarray, theirs: np.ndarray, true: np.ndarray
) -> dict[str, dict[str, float]]:
    """Return sigma_NMAD and relative CRPS of the first minus the second, with 95% intervals.

    Both are those of redshifts divided by 1 + z; the intervals are those of a paired bootstrap.
    """
    score = [np.asarray(crps(draws, true)) / (1 + true) for draws in (ours, theirs)]
    rng, changes = np.random.default_rng(0), []
    for _ in range(500):
        rows = rng.integers(len(true), size=len(true))
        changes.append(score[0][rows].mean() / score[1][rows].mean() - 1)
    low, high = np.percentile(changes, [2.5, 97.5])
    return {
        "sigma_nmad": paired_difference(np.median(ours, axis=1), np.median(theirs, axis=1), true),
        "relative_crps": {
            "difference": float(score[0].mean() / score[1].mean() - 1),
            "low": float(low),
            "high": float(high),
        },
    }
