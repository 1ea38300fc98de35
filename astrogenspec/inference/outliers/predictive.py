r"""Posterior predictive check: does the observed photometry agree with the inferred properties?

The simulated magnitudes :math:`m` given the nine quantities :math:`\theta` are modelled as
:math:`N(f(\theta), C)`: a polynomial :math:`f` of second degree, fitted by ridge regression, and a
covariance :math:`C` for what the quantities do not determine (dust, age, inclination).  With the
observed magnitudes :math:`m` and the covariance :math:`S` of their errors, the discrepancy of a
posterior draw :math:`\theta_k` is

.. math:: D_k = (m - f(\theta_k))^T (C + S)^{-1} (m - f(\theta_k)) ,

and its reference distribution is that of simulated galaxies at their true quantities.  The
posterior predictive p-value [1]_ is the fraction of the reference that exceeds :math:`D_k`,
averaged over the draws.

The check is coarse: the polynomial predicts colours to 0.04-0.1 mag and brightness to 0.4 mag.
Because the draws were inferred from the same photometry, p-values of galaxies like those simulated
cluster around one half rather than being uniform; only small values are informative: the posterior
does not explain its own input.

References
----------
.. [1] Gelman, Meng & Stern 1996, Statistica Sinica 6, 733
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from ...cards import check_array, check_covariances, entry
from ...quantities import QUANTITIES
from ...surveys import BANDS

__all__ = ["PhotometryEmulator"]

_MIN_GALAXIES = 1000
#: Key of the card.
_ENTRY = "predictive"
#: Standardised quantities are clipped to this absolute value.
_CLIP = 4.0
_RIDGE = 1.0
#: Systematic error of magnitudes (mag).
_SYSTEMATIC = 0.03
#: Probabilities at which the reference distribution is tabulated.
_LEVELS = np.array([0.0, *np.linspace(0.05, 0.9, 18), 0.95, 0.98, 0.99, 0.995, 0.998, 1.0])
_MAX_DRAWS = 50
#: Fraction of the galaxies that gives the reference distribution and is left out of the fit.
_HELD_OUT = 0.3


@dataclass(frozen=True)
class PhotometryEmulator:
    """Probability distribution of magnitudes given the quantities.

    Attributes
    ----------
    centre, scale : ndarray, shape (9,)
        Location and scale of the quantities, in internal units.
    coefficients : ndarray, shape (55, 5)
        Coefficients of the polynomial, mag.
    covariance : ndarray, shape (5, 5)
        Covariance of the residuals, mag**2.
    reference : dict of str to ndarray, shape (25,)
        Quantiles of the discrepancy of simulated galaxies for each set of bands, such as ``"gri"``.
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
        """Fit simulated galaxies; the result goes into the card key ``predictive``.

        Parameters
        ----------
        theta : ndarray, shape (n, 9)
            True quantities in internal units, including gas metallicities that cannot be measured.
        magnitudes, errors : ndarray, shape (n, 5)
            AB, corrected for Galactic extinction; rows with NaN are ignored.
        seed : int
            Seed of the selection of galaxies for the reference distribution.

        Returns
        -------
        PhotometryEmulator

        Raises
        ------
        ValueError
            If fewer than 1000 galaxies are complete.
        """
        complete = np.isfinite(np.concatenate([theta, magnitudes, errors], axis=1)).all(axis=1)
        if np.count_nonzero(complete) < _MIN_GALAXIES:
            raise ValueError(
                f"{np.count_nonzero(complete)} galaxies are complete; at least {_MIN_GALAXIES} "
                "are needed to fit the emulator."
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
                new.reference[_name(pattern)] = np.quantile(distance, _LEVELS)
        return new

    def p_values(self, theta: np.ndarray, magnitudes: np.ndarray, errors: np.ndarray) -> np.ndarray:
        """Compute the posterior predictive p-value of each galaxy.

        Parameters
        ----------
        theta : ndarray, shape (n, k, 9)
            Draws in internal units; the first 50 are used.
        magnitudes, errors : ndarray, shape (n, 5)
            Observed, corrected for Galactic extinction; NaN where missing.

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
            draws = theta[rows, :_MAX_DRAWS].astype(float)
            expected = _polynomial((draws - self.centre) / self.scale) @ self.coefficients
            residual = magnitudes[rows, None] - expected
            distance = self._distance(residual, errors[rows], pattern)
            below = np.interp(distance, self.reference[_name(pattern)], _LEVELS)
            result[rows] = 1 - below.mean(axis=1)
        return result

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-serialisable dictionary."""
        return {
            "centre": _rounded(self.centre),
            "scale": _rounded(self.scale),
            "coefficients": _rounded(self.coefficients),
            "covariance": _rounded(self.covariance),
            "reference": {name: _rounded(values) for name, values in self.reference.items()},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PhotometryEmulator:
        """Read the output of `to_dict`.

        Raises
        ------
        ValueError
            If an entry is missing or invalid.
        """
        n, m = len(QUANTITIES), len(BANDS)
        shapes = {"centre": (n,), "scale": (n,), "coefficients": ((n + 1) * (n + 2) // 2, m)}
        centre, scale, coefficients = (
            check_array(entry(values, name, _ENTRY), shape, f"{_ENTRY}.{name}")
            for name, shape in shapes.items()
        )
        if not (scale > 0).all():
            raise ValueError(f"the entry {_ENTRY}.scale is not positive.")
        covariance = check_covariances(
            entry(values, "covariance", _ENTRY), (m, m), f"{_ENTRY}.covariance"
        )
        stored, reference = entry(values, "reference", _ENTRY), {}
        for pattern in product((False, True), repeat=m):
            # At least two bands are compared.
            if sum(pattern) > 1:
                name, where = _name(np.array(pattern)), f"{_ENTRY}.reference"
                table = check_array(entry(stored, name, where), _LEVELS.shape, f"{where}.{name}")
                if (np.diff(table) < 0).any():
                    raise ValueError(f"the entry {where}.{name} decreases.")
                reference[name] = table
        return cls(centre, scale, coefficients, covariance, reference)

    def _distance(
        self, residual: np.ndarray, errors: np.ndarray, pattern: np.ndarray
    ) -> np.ndarray:
        """Return squared Mahalanobis distances (n, k) of residuals (n, k, 5) in some bands.

        The errors have shape (n, 5).
        """
        variances = np.square(errors[:, pattern]) + _SYSTEMATIC**2
        wide = self.covariance[np.ix_(pattern, pattern)] + variances[..., None] * np.eye(
            pattern.sum()
        )
        apart = residual[..., pattern]
        return ((apart @ np.linalg.inv(wide)) * apart).sum(axis=-1)


def _polynomial(values: np.ndarray) -> np.ndarray:
    """Evaluate all monomials up to the second degree, shape (..., 55)."""
    values = np.clip(values, -_CLIP, _CLIP)
    i, j = np.triu_indices(len(QUANTITIES))
    return np.concatenate(
        [np.ones((*values.shape[:-1], 1)), values, values[..., i] * values[..., j]], axis=-1
    )


def _name(pattern: np.ndarray) -> str:
    return "".join(band for band, chosen in zip(BANDS, pattern, strict=True) if chosen)


def _rounded(values: np.ndarray) -> list:
    return np.vectorize(lambda value: float(f"{value:.7g}"), otypes=[float])(values).tolist()
