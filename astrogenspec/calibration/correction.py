"""What was learnt of one quantity from one kind of input: a regression, and the sets of bands it is for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..draws.mapping import moved_draws, rank_deviates
from ..quantities import QuantityInfo
from .features import band_sets, correction_features
from .regression import ProbitRegression, fit_probit_regression

__all__ = ["MINIMUM_OF_A_SET", "Correction", "of_common_bands"]

#: Fewest galaxies that share a set of bands, for it to be corrected.
MINIMUM_OF_A_SET = 30


@dataclass(frozen=True)
class Correction:
    """How to move the draws of a quantity.

    Attributes
    ----------
    regression : ProbitRegression
        On the features of `~astrogenspec.calibration.features.correction_features`.
    bands : tuple of str
        Sets of bands it was learnt from, such as ``"ugriz"``; ``""`` stands for no photometry. What it says of colours
        does not hold where some of them are missing, so galaxies of other sets stay as they are.
    """

    regression: ProbitRegression
    bands: tuple[str, ...]

    @classmethod
    def fit(
        cls, values: np.ndarray, deviates: np.ndarray, magnitudes: np.ndarray, *, seed: int = 0
    ) -> tuple[Correction | None, float]:
        """Learn it, if that helps.

        Parameters
        ----------
        values : ndarray, shape (n, k)
            Draws in the internal unit.
        deviates : ndarray, shape (n,)
            Probit of the PIT, finite.
        magnitudes : ndarray, shape (n, 5)
            Of the same galaxies; NaN where missing.
        seed : int
            Of the folds.

        Returns
        -------
        correction : Correction or None
            None if galaxies that were held out say that there is nothing to correct.
        gain : float
            Gain in log likelihood, nats a galaxy, of galaxies held out.
        """
        features = correction_features(values, magnitudes)
        regression, gain = fit_probit_regression(features, deviates, seed=seed)
        if regression is None:
            return None, gain
        return cls(regression, tuple(np.unique(band_sets(magnitudes)).tolist())), gain

    def concerns(self, magnitudes: np.ndarray) -> np.ndarray:
        """Say which galaxies it is for, as booleans of shape (n,), from their magnitudes of shape (n, 5)."""
        return np.isin(band_sets(magnitudes), self.bands)

    def moved(self, values: np.ndarray, magnitudes: np.ndarray, info: QuantityInfo) -> np.ndarray:
        """Move draws, shape (n, k), of galaxies that it is for; ``info`` gives the bounds that are kept."""
        shift, scale = self.regression.moments(correction_features(values, magnitudes))
        deviates = self.regression.quantiles(rank_deviates(values.shape[1]))
        new = shift[:, None] + scale[:, None] * deviates
        return moved_draws(values, new, info.lower, info.upper)

    def to_dict(self) -> dict[str, Any]:
        """Give a dictionary that fits JSON."""
        return {"bands": list(self.bands), "regression": self.regression.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Correction:
        """Read what `to_dict` gave."""
        return cls(ProbitRegression.from_dict(values["regression"]), tuple(values["bands"]))


def of_common_bands(magnitudes: np.ndarray) -> np.ndarray:
    """Say which galaxies have a set of bands that enough others have.

    Parameters
    ----------
    magnitudes : ndarray, shape (n, 5)
        NaN where missing.

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    _, member, counts = np.unique(band_sets(magnitudes), return_inverse=True, return_counts=True)
    return counts[member] >= MINIMUM_OF_A_SET
