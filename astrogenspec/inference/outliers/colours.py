r"""How unusual are the magnitudes of a galaxy, whatever bands it has?

The magnitudes of the training set are described by a mixture of Gaussians in five bands.  A galaxy with some of the
bands is compared with the marginal of the mixture in these, widened by its errors: its distance is the smallest
Mahalanobis distance from a component, expressed as the probability that a Gaussian variate of as many dimensions is
farther away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import gammaincc

from ...surveys import BANDS

__all__ = ["ColourMixture", "near_stellar_locus"]

_N_COMPONENTS = 12
_LEAST_WEIGHT = 0.002
#: Zero points and blending are never better known than this, magnitudes.
_SYSTEMATIC = 0.03
_LEAST_GALAXIES, _MOST_GALAXIES = 200, 40_000
_LOCUS_WIDTH = 0.07


@dataclass(frozen=True)
class ColourMixture:
    """A mixture of Gaussians of AB magnitudes in u, g, r, i, z.

    Attributes
    ----------
    means : ndarray, shape (k, 5)
    covariances : ndarray, shape (k, 5, 5)
    """

    means: np.ndarray
    covariances: np.ndarray

    @classmethod
    def fit(cls, magnitudes: np.ndarray, *, seed: int = 0) -> ColourMixture:
        """Fit the mixture; needs scikit-learn.

        Parameters
        ----------
        magnitudes : ndarray, shape (n, 5)
            Of the training set, without Galactic extinction; rows with a missing band are left out.
        seed : int
            Of the first guess.

        Returns
        -------
        ColourMixture

        Raises
        ------
        ValueError
            If fewer than 200 galaxies have all bands.
        """
        from sklearn.mixture import GaussianMixture

        known = magnitudes[np.isfinite(magnitudes).all(axis=1)]
        if len(known) < _LEAST_GALAXIES:
            raise ValueError(
                f"{len(known)} galaxies have all bands, but at least {_LEAST_GALAXIES} are needed to describe the training set."
            )
        rng = np.random.default_rng(seed)
        known = known[rng.permutation(len(known))[:_MOST_GALAXIES]]
        # One magnitude and colours: the components then follow the narrow locus of galaxies.
        model = GaussianMixture(_N_COMPONENTS, reg_covar=1e-4, random_state=seed, max_iter=300)
        model.fit(known @ _COLOURS.T)
        chosen = model.weights_ > _LEAST_WEIGHT
        back = np.linalg.inv(_COLOURS)
        covariances = back @ model.covariances_[chosen] @ back.T
        return cls(model.means_[chosen] @ back.T, covariances)

    def log_tail(self, magnitudes: np.ndarray, errors: np.ndarray) -> np.ndarray:
        """Give the logarithm of the probability to be farther away.

        Parameters
        ----------
        magnitudes, errors : ndarray, shape (n, 5)
            Without Galactic extinction; NaN where missing.

        Returns
        -------
        ndarray, shape (n,)
            log10, not below -300; NaN for a galaxy with fewer than two bands.
        """
        present = np.isfinite(magnitudes) & np.isfinite(errors)
        result = np.full(len(magnitudes), np.nan)
        patterns = np.unique(present[present.sum(axis=1) > 1], axis=0)
        for pattern in patterns:
            rows = np.flatnonzero((present == pattern).all(axis=1))
            values = magnitudes[rows][:, pattern]
            variances = np.square(errors[rows][:, pattern]) + _SYSTEMATIC**2
            nearest = np.full(len(rows), np.inf)
            for mean, covariance in zip(self.means, self.covariances, strict=True):
                wide = covariance[np.ix_(pattern, pattern)] + variances[:, None] * np.eye(
                    pattern.sum()
                )
                apart = values - mean[pattern]
                solved = np.linalg.solve(wide, apart[..., None])[..., 0]
                nearest = np.minimum(nearest, (apart * solved).sum(axis=1))
            tail = gammaincc(pattern.sum() / 2, nearest / 2)
            result[rows] = np.log10(np.maximum(tail, 1e-300))
        return result

    def to_dict(self) -> dict[str, Any]:
        """Give lists of numbers, which fit JSON."""
        return {
            "means": self.means.round(5).tolist(),
            "covariances": self.covariances.round(7).tolist(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ColourMixture:
        """Read what `to_dict` gave."""
        return cls(np.array(values["means"], float), np.array(values["covariances"], float))


_COLOURS = np.array(
    [[0, 0, 1, 0, 0], [1, -1, 0, 0, 0], [0, 1, -1, 0, 0], [0, 0, 1, -1, 0], [0, 0, 0, 1, -1]],
    dtype=float,
)


def near_stellar_locus(magnitudes: np.ndarray) -> np.ndarray:
    """Say whether g - r and r - i are those of main-sequence stars.

    Galaxies lie there too; it helps to word why a galaxy is unusual, and does not decide that it is.

    Parameters
    ----------
    magnitudes : ndarray, shape (n, 5)
        Without Galactic extinction; NaN where missing.

    Returns
    -------
    ndarray of bool, shape (n,)
        Within 0.07 mag of g - r = 1.39 (1 - exp(-4.9 c**3 - 2.45 c**2 - 1.68 c - 0.050)) with c = r - i (Juric et al. 2008,
        ApJ 673, 864).
    """
    g, r, i = (magnitudes[:, BANDS.index(band)] for band in "gri")
    colour = np.clip(r - i, -0.2, 2.5)
    locus = 1.39 * (1 - np.exp(-4.9 * colour**3 - 2.45 * colour**2 - 1.68 * colour - 0.050))
    return np.abs(g - r - locus) < _LOCUS_WIDTH
