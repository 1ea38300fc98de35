"""Held-out results of fine-tuning: scores before and after, recalibration and calibration report.

Each head is evaluated on the galaxies that it held out.  These also determined when its training
stopped, so the scores are slightly optimistic; a separate test set gives unbiased ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import astropy.units as u
import numpy as np
import torch
from astropy.table import QTable

from ...calibration.guarantees import CoverageGuarantee, guarantee_of
from ...calibration.recalibration import Recalibration, cross_fitted, fit_if_enough
from ...metrics import robust_scatter
from ...quantities import QUANTITIES, theta_to_quantities
from ...reports.calibration import CalibrationReport, calibration_report
from ...results.posterior import Posterior
from ...surveys import BANDS
from ..network import PropertyNetwork
from .dataset import LabelledGalaxies

__all__ = ["HeldOutResult", "scores_table"]

_N_DRAWS = 200
#: Minimum number of labels for scores of a quantity.
_MIN_LABELS = 5
#: Maximum number of galaxies per head, which limits the memory for their draws.
_MAX_GALAXIES = 20_000


@dataclass(frozen=True)
class HeldOutResult:
    """Posterior draws of n held-out galaxies before and after fine-tuning.

    Attributes
    ----------
    before, after : ndarray, shape (n, k, 9)
        Draws in internal units.
    theta : ndarray, shape (n, 9)
        Known quantities in internal units; NaN where unknown.
    learnt : ndarray of bool, shape (n, 9)
        Whether a known quantity was to be learnt; otherwise it was a condition.
    flux : ndarray, shape (n, 5)
        Dereddened fluxes [nmgy] in ugriz; NaN where missing, and for other filters.
    modes : ndarray of str, shape (n,)
        Input modes, see `~astrogenspec.calibration.INPUT_MODES`.
    weights : mapping
        Name (``model``) and ``version`` of the fine-tuned weights, for the report, and the bounds
        of their quantities if they differ from those of `QUANTITIES`.
    """

    before: np.ndarray
    after: np.ndarray
    theta: np.ndarray
    learnt: np.ndarray
    flux: np.ndarray
    modes: np.ndarray
    weights: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    @torch.no_grad()
    def draw(
        cls, parts: Sequence[tuple[PropertyNetwork, PropertyNetwork, LabelledGalaxies]]
    ) -> HeldOutResult:
        """Draw from posteriors before and after fine-tuning.

        Parameters
        ----------
        parts : sequence of (PropertyNetwork, PropertyNetwork, LabelledGalaxies)
            Networks before and after fine-tuning, and the galaxies held out of it, in random order.

        Returns
        -------
        HeldOutResult
        """
        parts = [
            (old, new, galaxies[torch.arange(min(len(galaxies), _MAX_GALAXIES))])
            for old, new, galaxies in parts
        ]
        galaxies = [part[2].to("cpu") for part in parts]
        return cls(
            np.concatenate([_draws(old, rows) for old, _, rows in parts]),
            np.concatenate([_draws(new, rows) for _, new, rows in parts]),
            np.concatenate([rows.theta.numpy() for rows in galaxies]),
            np.concatenate([rows.learnt.numpy() for rows in galaxies]),
            np.concatenate([rows.sdss_flux.numpy() for rows in galaxies]),
            np.concatenate([rows.modes for rows in galaxies]),
        )

    def scores(self) -> dict[str, dict[str, Any]]:
        """Compute scores before and after fine-tuning.

        Returns
        -------
        dict
            For each quantity with at least five labels: ``n``, and pairs (before, after) of
            ``bias`` (mean error of the median), ``scatter`` (robust) and ``coverage_68`` (of the
            central 68% interval). Redshift errors are divided by 1 + z.
        """
        result = {}
        for k, name in enumerate(QUANTITIES):
            rows = self.learnt[:, k]
            if rows.sum() < _MIN_LABELS:
                continue
            pairs = [
                _scores(draws[rows, :, k], self.theta[rows, k], name)
                for draws in (self.before, self.after)
            ]
            result[name] = {"n": int(rows.sum())} | {
                key: [pair[key] for pair in pairs] for key in pairs[0]
            }
        return result

    def recalibration(self) -> Recalibration | None:
        """Learn a recalibration from the galaxies that `predict` recalibrates: without conditions.

        Returns
        -------
        Recalibration or None
            None if there are too few galaxies, or nothing to correct.
        """
        free = self._unconditioned
        found = fit_if_enough(
            Recalibration.fit, self._posterior(free), self._truth(free), mode=self.modes[free]
        )
        return found if found is not None and found.corrected else None

    def guarantee(self) -> CoverageGuarantee | None:
        """Compute intervals with guaranteed coverage; None if there are too few galaxies."""
        free = self._unconditioned
        return guarantee_of(self._posterior(free), self._truth(free), self.modes[free])

    def report(self) -> CalibrationReport:
        """Judge the posteriors after fine-tuning, with a cross-fitted recalibration if one helps.

        Returns
        -------
        CalibrationReport
        """
        free, all_rows = self._unconditioned, np.ones(len(self.theta), dtype=bool)
        raw, truth = self._posterior(all_rows), self._truth(all_rows)
        posterior = None
        if self.recalibration() is not None:
            corrected = fit_if_enough(
                cross_fitted, raw[free], self._truth(free), mode=self.modes[free]
            )
            if corrected is not None:
                back = np.argsort(np.concatenate([np.flatnonzero(free), np.flatnonzero(~free)]))
                posterior = Posterior.concatenate([corrected, raw[~free]])[back]
        report = calibration_report(
            raw if posterior is None else posterior, truth, mode=self.modes, raw=raw
        )
        scores = self.scores()
        return replace(report, fitted=scores_table(scores)) if scores else report

    @property
    def _unconditioned(self) -> np.ndarray:
        """Select the galaxies without conditions."""
        return ~(np.isfinite(self.theta) & ~self.learnt).any(axis=1)

    def _posterior(self, rows: np.ndarray) -> Posterior:
        photometry = QTable()
        for k, band in enumerate(BANDS):
            photometry[f"flux_{band}"] = self.flux[rows, k] * u.nmgy
            photometry[f"extinction_{band}"] = np.zeros(rows.sum()) * u.mag
        return Posterior(
            theta_to_quantities(self.after[rows]), photometry=photometry, meta=dict(self.weights)
        )

    def _truth(self, rows: np.ndarray) -> dict[str, u.Quantity]:
        """Return the learnt quantities by name; those without any label are left out."""
        known = theta_to_quantities(np.where(self.learnt, self.theta, np.nan)[rows])
        return {name: values for name, values in known.items() if np.isfinite(values).any()}


def scores_table(scores: Mapping[str, Mapping[str, Any]]) -> QTable:
    """Tabulate scores before and after fine-tuning.

    Parameters
    ----------
    scores : mapping
        Result of `HeldOutResult.scores`.

    Returns
    -------
    `~astropy.table.QTable`
        One row per quantity.
    """
    rows = []
    for name, of_quantity in scores.items():
        row = {"quantity": name, "n": of_quantity["n"]}
        for key in ("bias", "scatter", "coverage_68"):
            row[f"{key}_before"], row[f"{key}_after"] = of_quantity[key]
        rows.append(row)
    return QTable(rows)


def _draws(network: PropertyNetwork, galaxies: LabelledGalaxies) -> np.ndarray:
    posterior = network.eval().posterior(galaxies.inputs)
    generator = torch.Generator().manual_seed(0)
    return posterior.sample(_N_DRAWS, generator, _known_redshifts(galaxies)).cpu().numpy()


def _scores(draws: np.ndarray, true: np.ndarray, name: str) -> dict[str, float]:
    low, middle, high = np.percentile(draws, [16, 50, 84], axis=1)
    error = (middle - true) / (1 + true if name == "redshift" else 1)
    return {
        "bias": float(error.mean()),
        "scatter": float(robust_scatter(error)),
        "coverage_68": float(((true >= low) & (true <= high)).mean()),
    }


def _known_redshifts(galaxies: LabelledGalaxies) -> torch.Tensor | None:
    """Return redshifts that are conditions, shape (n, 1), NaN elsewhere; None if there are none."""
    known = torch.isfinite(galaxies.theta[:, :1]) & ~galaxies.learnt[:, :1]
    if not bool(known.any()):
        return None
    return torch.where(known, galaxies.theta[:, :1], torch.nan)
