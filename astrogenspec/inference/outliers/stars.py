r"""Whether photometry is more probably that of a star or a quasar than that of a galaxy.

The AB magnitudes :math:`m` of galaxies, and those of stars and quasars, are modelled by two
Gaussian mixtures, fitted to objects with spectra.  The statistic is the logarithm of the ratio of
their densities,

.. math:: \ln \frac{\sum_k w_k N(m \mid \mu_k, C_k + S)}{\sum_j v_j N(m \mid \nu_j, D_j + S)} ,

in the bands that were measured, with the covariance S of the errors: a band with a large error, or
one that is missing, does not change it.  The limit is a quantile of the galaxies, so that a known
fraction of galaxies is flagged by mistake.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...cards import check_number, entry
from .colours import ColourMixture

__all__ = ["StarTest"]

#: Fraction of the galaxies above the limit.
_TAIL = 0.01
#: Galaxies drawn from the weighted sample, and components of the two mixtures.
_N_GALAXIES, _N_COMPONENTS = 40_000, (24, 12)


@dataclass(frozen=True)
class StarTest:
    """Test whether photometry is that of a star or a quasar.

    Attributes
    ----------
    galaxies, others : ColourMixture
        Magnitudes of galaxies, and of stars and quasars.
    least_log_ratio : float
        Limit of the statistic.
    """

    galaxies: ColourMixture
    others: ColourMixture
    least_log_ratio: float

    @classmethod
    def fit(
        cls,
        galaxies: tuple[np.ndarray, np.ndarray],
        others: np.ndarray,
        weight: np.ndarray,
        *,
        seed: int = 0,
    ) -> StarTest:
        """Fit the mixtures and the limit; needs scikit-learn.

        Parameters
        ----------
        galaxies : tuple of ndarray, shape (n, 5) each
            Magnitudes of galaxies, corrected for Galactic extinction, and their errors; rows with
            NaN are ignored.
        others : ndarray, shape (m, 5)
            Magnitudes of stars and quasars; rows with NaN are ignored.
        weight : ndarray, shape (n,)
            Weights of the galaxies.
        seed : int
            Seed of the mixtures and of the selection of galaxies.

        Returns
        -------
        StarTest

        Raises
        ------
        ValueError
            If fewer than 200 objects of a kind have all bands.
        """
        known = np.isfinite(galaxies[0]).all(axis=1)
        magnitudes, errors = (values[known] for values in galaxies)
        chance = weight[known] / weight[known].sum()
        rows = np.random.default_rng(seed).choice(len(magnitudes), _N_GALAXIES, p=chance)
        test = cls(
            ColourMixture.fit(magnitudes[rows], seed=seed, n_components=_N_COMPONENTS[0]),
            ColourMixture.fit(others, seed=seed, n_components=_N_COMPONENTS[1]),
            0.0,
        )
        ratio = test.log_ratio(magnitudes[rows], errors[rows])
        limit = round(float(np.quantile(ratio, 1 - _TAIL)), 3)
        return cls(test.galaxies, test.others, limit)

    def log_ratio(self, magnitudes: np.ndarray, errors: np.ndarray) -> np.ndarray:
        """Compute the statistic.

        Parameters
        ----------
        magnitudes, errors : ndarray, shape (n, 5)
            Corrected for Galactic extinction; NaN where missing.

        Returns
        -------
        ndarray, shape (n,)
            NaN for an object with fewer than three bands.
        """
        return self.others.log_density(magnitudes, errors) - self.galaxies.log_density(
            magnitudes, errors
        )

    def found(self, magnitudes: np.ndarray, errors: np.ndarray) -> np.ndarray:
        """Return which objects are above the limit, bool, shape (n,)."""
        with np.errstate(invalid="ignore"):
            return self.log_ratio(magnitudes, errors) > self.least_log_ratio

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-serialisable dictionary."""
        return {
            "galaxies": self.galaxies.to_dict(),
            "others": self.others.to_dict(),
            "least_log_ratio": self.least_log_ratio,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "stars") -> StarTest:
        """Read the output of `to_dict`; ``where`` is its path in the card, for errors."""
        galaxies, others = (
            ColourMixture.from_dict(entry(values, key, where), f"{where}.{key}")
            for key in ("galaxies", "others")
        )
        limit = entry(values, "least_log_ratio", where)
        check_number(limit, f"{where}.least_log_ratio")
        return cls(galaxies, others, float(limit))
