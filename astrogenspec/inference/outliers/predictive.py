r"""Posterior predictive check: could a galaxy with the properties drawn have the photometry observed?

The simulator's photometry as a function of the nine quantities is described by a polynomial of second degree, with a
covariance for what they do not determine (dust, age, inclination).  For each draw, the discrepancy is the Mahalanobis
distance of the observed magnitudes from the polynomial, its reference the same distance of simulated galaxies at their
true quantities.  The p-value is the mean over the draws of the fraction of these with a larger one (Gelman, Meng & Stern
1996, Statistica Sinica 6, 733).

It is a coarse check, since a polynomial is coarse: colours are predicted to 0.04-0.1 mag, brightness to 0.4 mag.  And since
the draws were made from the photometry itself, p-values of galaxies like those simulated crowd around one half; only small
ones say something: the posterior does not explain its own input.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from ...quantities import QUANTITIES
from ...surveys import BANDS

__all__ = ["PhotometryEmulator"]

_LEAST = 1000
_CLIP = 4.0
_RIDGE = 1.0
_SYSTEMATIC = 0.03
_SHARES = np.array([0.0, *np.linspace(0.05, 0.9, 18), 0.95, 0.98, 0.99, 0.995, 0.998, 1.0])
_MOST_DRAWS = 50
_HELD_OUT = 0.3


@dataclass(frozen=True)
class PhotometryEmulator:
    """Magnitudes as a function of the quantities, and what the quantities leave open.

    Attributes
    ----------
    centre, scale : ndarray, shape (9,)
        Of the quantities, in internal units.
    coefficients : ndarray, shape (55, 5)
        Of the polynomial.
    covariance : ndarray, shape (5, 5)
        Of the residuals, mag**2.
    reference : dict of str to ndarray, shape (25,)
        For each set of bands, such as ``"gri"``: quantiles of the distance of simulated galaxies.
    """

    centre: np.ndarray
    scale: np.ndarray
    coefficients: np.ndarray
    covariance: np.ndarray
    reference: dict[str, np.ndarray]

    @classmethod
    def fit(
        cls, theta: np.ndarray, magnitudes: np.ndarray, errors: np.ndarray, *, seed: int = 0
    ) -> PhotometryEmulator:
        """Fit simulated galaxies, for ``card["predictive"]``.

        Parameters
        ----------
        theta : ndarray, shape (n, 9)
            Their quantities, in internal units; gas metallicities that cannot be measured too.
        magnitudes, errors : ndarray, shape (n, 5)
            AB, without Galactic extinction; rows with something missing are left out.
        seed : int
            Of the choice of galaxies for the reference.

        Returns
        -------
        PhotometryEmulator

        Raises
        ------
        ValueError
            If fewer than 1000 galaxies are complete.
        """
        complete = np.isfinite(np.concatenate([theta, magnitudes, errors], axis=1)).all(axis=1)
        if np.count_nonzero(complete) < _LEAST:
            raise ValueError(
                f"{np.count_nonzero(complete)} galaxies are complete, but at least {_LEAST} are needed."
            )
        theta, magnitudes, errors = (
            np.asarray(a, float)[complete] for a in (theta, magnitudes, errors)
        )
        held_out = np.random.default_rng(seed).random(len(theta)) < _HELD_OUT
        centre, scale = np.median(theta, axis=0), theta.std(axis=0) + 1e-9
        columns = _polynomial((theta - centre) / scale)
        fitted = columns[~held_out]
        normal = fitted.T @ fitted + _RIDGE * np.eye(columns.shape[1])
        coefficients = np.linalg.solve(normal, fitted.T @ magnitudes[~held_out])
        residual = magnitudes - columns @ coefficients
        new = cls(centre, scale, coefficients, np.cov(residual[~held_out].T), {})
        for chosen in product((False, True), repeat=len(BANDS)):
            pattern = np.array(chosen)
            if pattern.any():
                distance = new._distance(residual[held_out, None], errors[held_out], pattern)
                new.reference[_name(pattern)] = np.quantile(distance, _SHARES)
        return new

    def p_values(self, theta: np.ndarray, magnitudes: np.ndarray, errors: np.ndarray) -> np.ndarray:
        """Give the posterior predictive p-value of each galaxy.

        Parameters
        ----------
        theta : ndarray, shape (n, k, 9)
            Draws; the first fifty are used.
        magnitudes, errors : ndarray, shape (n, 5)
            Observed, without Galactic extinction; NaN where missing.

        Returns
        -------
        ndarray, shape (n,)
            NaN for a galaxy without draws or with fewer than two bands.
        """
        result = np.full(len(theta), np.nan)
        present = np.isfinite(magnitudes) & np.isfinite(errors)
        usable = np.isfinite(theta).all(axis=(1, 2)) & (present.sum(axis=1) > 1)
        for pattern in np.unique(present[usable], axis=0):
            rows = np.flatnonzero(usable & (present == pattern).all(axis=1))
            draws = theta[rows, :_MOST_DRAWS].astype(float)
            expected = _polynomial((draws - self.centre) / self.scale) @ self.coefficients
            residual = magnitudes[rows, None] - expected
            distance = self._distance(residual, errors[rows], pattern)
            below = np.interp(distance, self.reference[_name(pattern)], _SHARES)
            result[rows] = 1 - below.mean(axis=1)
        return result

    def to_dict(self) -> dict[str, Any]:
        """Give lists of numbers, which fit JSON."""
        return {
            "centre": _rounded(self.centre),
            "scale": _rounded(self.scale),
            "coefficients": _rounded(self.coefficients),
            "covariance": _rounded(self.covariance),
            "reference": {name: _rounded(values) for name, values in self.reference.items()},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PhotometryEmulator:
        """Read what `to_dict` gave."""
        centre, scale, coefficients, covariance = (
            np.array(values[name], float)
            for name in ("centre", "scale", "coefficients", "covariance")
        )
        reference = {name: np.array(table, float) for name, table in values["reference"].items()}
        return cls(centre, scale, coefficients, covariance, reference)

    def _distance(
        self, residual: np.ndarray, errors: np.ndarray, pattern: np.ndarray
    ) -> np.ndarray:
        """Square of the Mahalanobis distance in some bands, of residuals (n, k, 5) with errors (n, 5); shape (n, k)."""
        variances = np.square(errors[:, pattern]) + _SYSTEMATIC**2
        wide = self.covariance[np.ix_(pattern, pattern)] + variances[..., None] * np.eye(
            pattern.sum()
        )
        apart = residual[..., pattern]
        return ((apart @ np.linalg.inv(wide)) * apart).sum(axis=-1)


def _polynomial(values: np.ndarray) -> np.ndarray:
    """Evaluate all terms up to the second degree; shape (..., 55)."""
    values = np.clip(values, -_CLIP, _CLIP)
    i, j = np.triu_indices(len(QUANTITIES))
    return np.concatenate(
        [np.ones((*values.shape[:-1], 1)), values, values[..., i] * values[..., j]], axis=-1
    )


def _name(pattern: np.ndarray) -> str:
    return "".join(band for band, chosen in zip(BANDS, pattern, strict=True) if chosen)


def _rounded(values: np.ndarray) -> list:
    return np.vectorize(lambda value: float(f"{value:.7g}"), otypes=[float])(values).tolist()
