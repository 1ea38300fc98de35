"""What a fit says of galaxies that it held out: scores before and after it, and posteriors to judge it by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import astropy.units as u
import numpy as np
import torch
from astropy.table import QTable

from ...calibration.recalibration import Recalibration, cross_fitted, fit_if_enough
from ...metrics import robust_scatter
from ...quantities import QUANTITIES, theta_to_quantities
from ...reports.calibration import CalibrationReport, calibration_report
from ...results.posterior import Posterior
from ...surveys import BANDS
from ..network import PropertyNetwork
from .dataset import LabelledGalaxies

__all__ = ["HeldOutResult"]

_DRAWS = 200
_LEAST = 5
#: Galaxies of one head that are judged at most: draws of millions would fill the memory.
_MOST = 20_000


@dataclass(frozen=True)
class HeldOutResult:
    """Draws of n galaxies by networks that did not see them, before and after a fit.

    Attributes
    ----------
    before, after : ndarray, shape (n, k, 9)
        Draws, in the internal units.
    theta : ndarray, shape (n, 9)
        What is known; NaN where unknown.
    learnt : ndarray of bool, shape (n, 9)
        Which of it was to be learnt; the rest was given.
    flux : ndarray, shape (n, 5)
        nmgy, without Galactic extinction; NaN where missing.
    modes : ndarray of str, shape (n,)
        What each galaxy was inferred from, see `~astrogenspec.calibration.INPUT_MODES`.
    """

    before: np.ndarray
    after: np.ndarray
    theta: np.ndarray
    learnt: np.ndarray
    flux: np.ndarray
    modes: np.ndarray

    @classmethod
    @torch.no_grad()
    def of(
        cls, parts: Sequence[tuple[PropertyNetwork, PropertyNetwork, LabelledGalaxies]]
    ) -> HeldOutResult:
        """Draw.

        Parameters
        ----------
        parts : sequence of tuple
            Of networks before and after the fit, with the galaxies held out of it, in random order.

        Returns
        -------
        HeldOutResult
        """
        parts = [
            (old, new, galaxies[torch.arange(min(len(galaxies), _MOST))])
            for old, new, galaxies in parts
        ]
        galaxies = [part[2].to("cpu") for part in parts]
        return cls(
            np.concatenate([_draws(old, rows) for old, _, rows in parts]),
            np.concatenate([_draws(new, rows) for _, new, rows in parts]),
            np.concatenate([rows.theta.numpy() for rows in galaxies]),
            np.concatenate([rows.learnt.numpy() for rows in galaxies]),
            np.concatenate([rows.flux.numpy() for rows in galaxies]),
            np.concatenate([rows.modes for rows in galaxies]),
        )

    def scores(self) -> dict[str, dict[str, Any]]:
        """Score medians and intervals before and after the fit.

        Returns
        -------
        dict
            For each quantity with at least five labels: ``n``, and pairs (before, after) of ``bias`` (mean error of the
            median), ``scatter`` (robust) and ``coverage_68`` (of central intervals). Redshift errors are divided by
            1 + z.
        """
        result = {}
        for k, name in enumerate(QUANTITIES):
            rows = self.learnt[:, k]
            if rows.sum() < _LEAST:
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
        """Learn what is left to correct; None if there are too few galaxies, or if nothing is.

        Galaxies of which something is given teach nothing: `predict` does not recalibrate those either.
        """
        free = self._free
        found = fit_if_enough(
            Recalibration.fit, self._posterior(free), self._truth(free), mode=self.modes[free]
        )
        return found if found is not None and found.corrected else None

    def report(self) -> CalibrationReport:
        """Judge the posteriors after the fit, and after a recalibration that helps, by what is known.

        Each galaxy is recalibrated by what the others say.
        """
        free, everyone = self._free, np.ones(len(self.theta), dtype=bool)
        raw, truth = self._posterior(everyone), self._truth(everyone)
        posterior = None
        if self.recalibration() is not None:
            corrected = fit_if_enough(
                cross_fitted, raw[free], self._truth(free), mode=self.modes[free]
            )
            if corrected is not None:
                back = np.argsort(np.concatenate([np.flatnonzero(free), np.flatnonzero(~free)]))
                posterior = Posterior.concatenate([corrected, raw[~free]])[back]
        return calibration_report(
            raw if posterior is None else posterior, truth, mode=self.modes, raw=raw
        )

    @property
    def _free(self) -> np.ndarray:
        return ~(np.isfinite(self.theta) & ~self.learnt).any(axis=1)

    def _posterior(self, rows: np.ndarray) -> Posterior:
        photometry = QTable()
        for k, band in enumerate(BANDS):
            photometry[f"flux_{band}"] = self.flux[rows, k] * u.nmgy
            photometry[f"extinction_{band}"] = np.zeros(rows.sum()) * u.mag
        return Posterior(theta_to_quantities(self.after[rows]), photometry=photometry)

    def _truth(self, rows: np.ndarray) -> dict[str, u.Quantity]:
        """Give what was to be learnt, by name; quantities without any are left out."""
        known = theta_to_quantities(np.where(self.learnt, self.theta, np.nan)[rows])
        return {name: values for name, values in known.items() if np.isfinite(values).any()}


def _draws(network: PropertyNetwork, galaxies: LabelledGalaxies) -> np.ndarray:
    posterior = network.eval().posterior(galaxies.inputs)
    generator = torch.Generator().manual_seed(0)
    return posterior.sample(_DRAWS, generator, _known_prefix(galaxies)).cpu().numpy()


def _scores(draws: np.ndarray, true: np.ndarray, name: str) -> dict[str, float]:
    low, middle, high = np.percentile(draws, [16, 50, 84], axis=1)
    error = (middle - true) / (1 + true if name == "redshift" else 1)
    return {
        "bias": float(error.mean()),
        "scatter": float(robust_scatter(error)),
        "coverage_68": float(((true >= low) & (true <= high)).mean()),
    }


def _known_prefix(galaxies: LabelledGalaxies) -> torch.Tensor | None:
    """Redshifts that are conditions, shape (n, 1), NaN elsewhere; None if there are none."""
    known = torch.isfinite(galaxies.theta[:, :1]) & ~galaxies.learnt[:, :1]
    if not bool(known.any()):
        return None
    return torch.where(known, galaxies.theta[:, :1], torch.nan)
