r"""Tail probability of magnitudes under the training distribution, for any set of bands.

The AB magnitudes of the training set are modelled by a Gaussian mixture :math:`\sum_k w_k\,N(\mu_k,
C_k)` in five bands.  A galaxy with magnitudes :math:`m` in :math:`d \geq 2` bands and covariance
:math:`S` of its errors is compared with the marginal of each component in these bands, widened by
the errors:

.. math:: D^2 = \min_k\,(m - \mu_k)^T (C_k + S)^{-1} (m - \mu_k) ,

and the result is the probability that a :math:`\chi^2_d` variate exceeds :math:`D^2`.  Errors are
taken as independent, with a floor of 0.03 mag.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import gammaincc, logsumexp

from ...cards import check_array, check_covariances, entry
from ...surveys import BANDS

__all__ = ["ColourMixture", "near_stellar_locus"]

_N_COMPONENTS = 12
_MIN_WEIGHT = 0.002
#: Systematic error of zero points and blending (mag).
_SYSTEMATIC = 0.03
_MIN_GALAXIES, _MAX_GALAXIES = 200, 40_000
#: Half-width of the stellar locus in g - r (mag).
_LOCUS_WIDTH = 0.07
#: Matrix from magnitudes in u, g, r, i, z to r and four adjacent colours.
_COLOURS = np.array(
    [[0, 0, 1, 0, 0], [1, -1, 0, 0, 0], [0, 1, -1, 0, 0], [0, 0, 1, -1, 0], [0, 0, 0, 1, -1]],
    dtype=float,
)


@dataclass(frozen=True)
class ColourMixture:
    """Gaussian mixture of AB magnitudes in u, g, r, i, z.

    Attributes
    ----------
    means : ndarray, shape (k, 5)
        Mean of each component, mag.
    covariances : ndarray, shape (k, 5, 5)
        Covariance of each component, mag**2.
    weights : ndarray, shape (k,), optional
        Weight of each component; equal by default.
    """

    means: np.ndarray
    covariances: np.ndarray
    weights: np.ndarray | None = None

    @classmethod
    def fit(
        cls, magnitudes: np.ndarray, *, seed: int = 0, n_components: int = _N_COMPONENTS
    ) -> ColourMixture:
        """Fit the mixture; needs scikit-learn.

        Parameters
        ----------
        magnitudes : ndarray, shape (n, 5)
            Magnitudes of the training set, corrected for Galactic extinction; rows with NaN are
            ignored.
        seed : int
            Seed of the initialisation and of the selection of at most 40,000 galaxies.
        n_components : int
            Number of components, of which those with a small weight are left out.

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
        if len(known) < _MIN_GALAXIES:
            raise ValueError(
                f"{len(known)} galaxies have all bands; at least {_MIN_GALAXIES} are needed to "
                "fit the training distribution."
            )
        rng = np.random.default_rng(seed)
        known = known[rng.permutation(len(known))[:_MAX_GALAXIES]]
        # In r and colours the components follow the narrow locus of galaxies.
        model = GaussianMixture(n_components, reg_covar=1e-4, random_state=seed, max_iter=300)
        model.fit(known @ _COLOURS.T)
        chosen = model.weights_ > _MIN_WEIGHT
        back = np.linalg.inv(_COLOURS)
        covariances = back @ model.covariances_[chosen] @ back.T
        weights = model.weights_[chosen] / model.weights_[chosen].sum()
        return cls(model.means_[chosen] @ back.T, covariances, weights)

    def log_tail(self, magnitudes: np.ndarray, errors: np.ndarray) -> np.ndarray:
        """Compute the logarithm of the tail probability of each galaxy.

        Parameters
        ----------
        magnitudes, errors : ndarray, shape (n, 5)
            Corrected for Galactic extinction; NaN where missing.

        Returns
        -------
        ndarray, shape (n,)
            log10 of the probability, at least -300; NaN for a galaxy with fewer than two bands.
        """
        result = np.full(len(magnitudes), np.nan)
        wide = np.hypot(errors, _SYSTEMATIC)
        for rows, distances, _ in self._distances(magnitudes, wide, least_bands=2):
            n_bands = np.isfinite(magnitudes[rows[0]] + errors[rows[0]]).sum()
            tail = gammaincc(n_bands / 2, distances.min(axis=0) / 2)
            result[rows] = np.log10(np.maximum(tail, 1e-300))
        return result

    def log_density(self, magnitudes: np.ndarray, errors: np.ndarray) -> np.ndarray:
        """Compute the logarithm of the density of the mixture at each galaxy.

        Parameters
        ----------
        magnitudes, errors : ndarray, shape (n, 5)
            As for `log_tail`.

        Returns
        -------
        ndarray, shape (n,)
            Natural logarithm of the density per mag**bands, without the factor of 2 pi; NaN for a
            galaxy with fewer than three bands.
        """
        n = len(self.means)
        weights = np.full(n, 1 / n) if self.weights is None else self.weights
        result = np.full(len(magnitudes), np.nan)
        for rows, distances, log_determinants in self._distances(magnitudes, errors, least_bands=3):
            exponents = -0.5 * (distances + log_determinants) + np.log(weights)[:, None]
            result[rows] = logsumexp(exponents, axis=0)
        return result

    def _distances(
        self, magnitudes: np.ndarray, errors: np.ndarray, least_bands: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield the galaxies of each set of bands.

        Yields
        ------
        rows : ndarray of int, shape (m,)
            Galaxies with the same bands, at least ``least_bands``.
        distances : ndarray, shape (k, m)
            Squared distances from the components.
        log_determinants : ndarray, shape (k, m)
            Logarithms of the determinants of the covariances.
        """
        present = np.isfinite(magnitudes) & np.isfinite(errors)
        patterns = np.unique(present[present.sum(axis=1) >= least_bands], axis=0)
        for pattern in patterns:
            rows = np.flatnonzero((present == pattern).all(axis=1))
            values = magnitudes[rows][:, pattern]
            variances = np.square(errors[rows][:, pattern])
            # Axes: component, galaxy, band, band.
            wide = self.covariances[:, None][..., pattern, :][..., pattern] + variances[
                ..., None
            ] * np.eye(pattern.sum())
            apart = values - self.means[:, None, pattern]
            solved = np.linalg.solve(wide, apart[..., None])[..., 0]
            yield rows, (apart * solved).sum(axis=-1), np.linalg.slogdet(wide)[1]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-serialisable dictionary."""
        values = {
            "means": self.means.round(5).tolist(),
            "covariances": self.covariances.round(7).tolist(),
        }
        if self.weights is not None:
            values["weights"] = self.weights.round(5).tolist()
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "mixture") -> ColourMixture:
        """Read the output of `to_dict`; ``where`` is its path in the card, for errors."""
        n = len(BANDS)
        means = check_array(entry(values, "means", where), (None, n), f"{where}.means")
        covariances = check_covariances(
            entry(values, "covariances", where), (len(means), n, n), f"{where}.covariances"
        )
        weights = values.get("weights")
        if weights is not None:
            weights = check_array(weights, (len(means),), f"{where}.weights")
        return cls(means, covariances, weights)


def near_stellar_locus(magnitudes: np.ndarray) -> np.ndarray:
    """Test whether g - r and r - i lie on the stellar locus.

    Galaxies lie there too, so this explains a flag but does not raise one.

    Parameters
    ----------
    magnitudes : ndarray, shape (n, 5)
        Corrected for Galactic extinction; NaN where missing.

    Returns
    -------
    ndarray of bool, shape (n,)
        Within 0.07 mag of g - r = 1.39 (1 - exp(-4.9 c**3 - 2.45 c**2 - 1.68 c - 0.050)) with c = r
        - i (Juric et al. 2008, ApJ 673, 864).
    """
    g, r, i = (magnitudes[:, BANDS.index(band)] for band in "gri")
    colour = np.clip(r - i, -0.2, 2.5)
    locus = 1.39 * (1 - np.exp(-4.9 * colour**3 - 2.45 * colour**2 - 1.68 * colour - 0.050))
    return np.abs(g - r - locus) < _LOCUS_WIDTH
