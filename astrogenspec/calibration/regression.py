r"""Regression of the probit of the PIT on features of a galaxy.

For a calibrated posterior the probit of the PIT, :math:`t = \Phi^{-1}(p)`, is standard normal for
every galaxy.  The model is

.. math:: t = m(x) + s(x)\, H(g), \qquad g \sim N(0, 1),

where the shift :math:`m` and :math:`\ln s` are sums of natural cubic splines [1]_ of the features
:math:`x`, and :math:`H` is a monotone map, the identity unless the residuals require another.
Shift and scale maximise the Gaussian likelihood with ridge penalties on all coefficients but the
constants (Fisher scoring).  The strengths of the penalties, whether there is a map
:math:`H`, and whether there is a correction at all are chosen by five-fold cross-validation.
Features are clipped to the range
of the fit, so nothing is extrapolated.

References
----------
.. [1] Hastie, Tibshirani & Friedman 2009, The Elements of Statistical Learning, section 5.2.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.interpolate import PchipInterpolator

from ..cards import check_array, entries, entry

__all__ = ["ProbitRegression", "SplineBasis", "fit_probit_regression"]

#: Quantiles at which a spline has its knots (Harrell 2015, Regression Modeling Strategies, table
#: 2.3).
_KNOTS = (0.05, 0.275, 0.5, 0.725, 0.95)
#: Quantiles to which features are clipped.
_LIMITS = (0.01, 0.99)
_PENALTIES = (3.0, 10.0, 30.0, 100.0, 300.0, 1e6)
_INITIAL_PENALTY = 100.0
_N_FOLDS = 5
_N_ITERATIONS = 12
_MAX_SHIFT, _MAX_LOG_SCALE = 3.0, 1.5
#: Normal deviates at which the map of residuals is tabulated, and minimum number of galaxies to fit
#: it.
_NODES = np.linspace(-2.5, 2.5, 11)
_MIN_GALAXIES_FOR_MAP = 500
_FINE = np.linspace(-6.0, 6.0, 601)


@dataclass(frozen=True)
class SplineBasis:
    """Natural cubic splines of several features, orthonormal over the galaxies of the fit.

    Attributes
    ----------
    centres : ndarray, shape (d,)
        Values that replace missing features.
    limits : ndarray, shape (d, 2)
        Range to which each feature is clipped.
    knots : tuple of ndarray
        Knots of each feature; empty if it does not vary.
    means, transforms : tuple of ndarray
        Offsets and matrices that make the columns of each feature orthonormal.
    """

    centres: np.ndarray
    limits: np.ndarray
    knots: tuple[np.ndarray, ...]
    means: tuple[np.ndarray, ...]
    transforms: tuple[np.ndarray, ...]

    @classmethod
    def fit(cls, features: np.ndarray) -> SplineBasis:
        """Choose knots and normalisation.

        Parameters
        ----------
        features : ndarray, shape (n, d)
            NaN where missing.

        Returns
        -------
        SplineBasis
        """
        centres, limits, knots, means, transforms = [], [], [], [], []
        for column in features.T:
            known = column[np.isfinite(column)]
            centre = float(np.median(known)) if known.size else 0.0
            limit = np.quantile(known, _LIMITS) if known.size else np.zeros(2)
            values = np.clip(np.where(np.isfinite(column), column, centre), *limit)
            positions = np.unique(np.quantile(values, _KNOTS))
            if values.std() < 1e-9 * (1 + abs(centre)):
                positions = np.zeros(0)
            raw = _natural_spline(values, positions)
            mean = raw.mean(axis=0) if len(raw) else np.zeros(raw.shape[1])
            transform = _orthonormalising(raw - mean)
            for parts, part in zip(
                (centres, limits, knots, means, transforms),
                (centre, limit, positions, mean, transform),
                strict=True,
            ):
                parts.append(part)
        return cls(
            np.array(centres), np.array(limits), tuple(knots), tuple(means), tuple(transforms)
        )

    def design(self, features: np.ndarray) -> np.ndarray:
        """Evaluate the design matrix: a column of ones and the columns of all features.

        Parameters
        ----------
        features : ndarray, shape (n, d)
            NaN where missing.

        Returns
        -------
        ndarray, shape (n, p)
        """
        columns = [np.ones((len(features), 1))]
        for k, column in enumerate(features.T):
            values = np.where(np.isfinite(column), column, self.centres[k])
            raw = _natural_spline(np.clip(values, *self.limits[k]), self.knots[k])
            columns.append((raw - self.means[k]) @ self.transforms[k])
        return np.concatenate(columns, axis=1)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-serialisable dictionary."""
        return {
            "centres": _rounded(self.centres),
            "limits": _rounded(self.limits),
            **{
                name: [_rounded(part) for part in getattr(self, name)]
                for name in ("knots", "means", "transforms")
            },
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "basis") -> SplineBasis:
        """Read the output of `to_dict`; ``where`` is its path in the card, for errors."""
        centres = check_array(entry(values, "centres", where), (None,), f"{where}.centres")
        n = len(centres)
        limits = check_array(entry(values, "limits", where), (n, 2), f"{where}.limits")
        knots, means, transforms = [], [], []
        for part, path in _exactly(n, values, "knots", where):
            knots.append(check_array(part, (None,), path))
            if (np.diff(knots[-1]) <= 0).any():
                raise ValueError(f"the entry {path} does not increase.")
        n_columns = [_natural_spline(np.zeros(1), part).shape[1] for part in knots]
        for (part, path), m in zip(_exactly(n, values, "means", where), n_columns, strict=True):
            means.append(check_array(part, (m,), path))
        for (part, path), m in zip(
            _exactly(n, values, "transforms", where), n_columns, strict=True
        ):
            # A matrix without rows is an empty list.
            transforms.append(
                check_array(part, (m, None), path)
                if m
                else check_array(part, (0,), path).reshape(0, 0)
            )
        return cls(centres, limits, tuple(knots), tuple(means), tuple(transforms))


@dataclass(frozen=True)
class ProbitRegression:
    """Distribution of the probit of the PIT given features.

    Attributes
    ----------
    basis : SplineBasis
        Basis functions of the features.
    shift, log_scale : ndarray, shape (p,)
        Coefficients of the shift and of the logarithm of the scale.
    residual_map : ndarray, shape (11,), or None
        Values of H at normal deviates from -2.5 to 2.5; None for the identity.
    """

    basis: SplineBasis
    shift: np.ndarray
    log_scale: np.ndarray
    residual_map: np.ndarray | None = None

    def moments(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Evaluate shift and scale.

        Parameters
        ----------
        features : ndarray, shape (n, d)

        Returns
        -------
        shift, scale : ndarray, shape (n,)
        """
        return _moments(self.basis.design(features), self.shift, self.log_scale)

    def quantiles(self, deviates: np.ndarray) -> np.ndarray:
        """Apply the map H.

        Parameters
        ----------
        deviates : ndarray

        Returns
        -------
        ndarray, of the same shape
        """
        return deviates if self.residual_map is None else _mapped(self.residual_map, deviates)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-serialisable dictionary."""
        residual = None if self.residual_map is None else _rounded(self.residual_map)
        return {
            "basis": self.basis.to_dict(),
            "shift": _rounded(self.shift),
            "log_scale": _rounded(self.log_scale),
            "residual_map": residual,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "regression") -> ProbitRegression:
        """Read the output of `to_dict`; ``where`` is its path in the card, for errors."""
        basis = SplineBasis.from_dict(entry(values, "basis", where), f"{where}.basis")
        n_columns = 1 + sum(part.shape[1] for part in basis.transforms)
        shift, log_scale = (
            check_array(entry(values, key, where), (n_columns,), f"{where}.{key}")
            for key in ("shift", "log_scale")
        )
        residual = entry(values, "residual_map", where)
        if residual is not None:
            residual = check_array(residual, _NODES.shape, f"{where}.residual_map")
            if (np.diff(residual) < 0).any():
                raise ValueError(f"the entry {where}.residual_map decreases.")
        return cls(basis, shift, log_scale, residual)


def fit_probit_regression(
    features: np.ndarray, deviates: np.ndarray, *, seed: int = 0
) -> tuple[ProbitRegression | None, float]:
    """Fit the regression, if cross-validation shows a gain.

    Parameters
    ----------
    features : ndarray, shape (n, d)
        NaN where missing.
    deviates : ndarray, shape (n,)
        Probit of the PIT, finite.
    seed : int
        Seed of the cross-validation folds.

    Returns
    -------
    regression : ProbitRegression or None
        None if the gain is not significant.
    gain : float
        Cross-validated gain in log likelihood over the standard normal, nats per galaxy.
    """
    folds = np.random.default_rng(seed).permutation(len(deviates)) % _N_FOLDS
    basis = SplineBasis.fit(features)
    design = basis.design(features)
    strengths, (mean, scale) = _chosen_penalties(design, deviates, folds)
    losses, residual = _loss(deviates, mean, scale), (deviates - mean) / scale
    residual_map = None
    if len(deviates) >= _MIN_GALAXIES_FOR_MAP:
        with_map = losses + _held_out_map_loss(residual, folds)
        if _is_better(with_map, losses):
            losses, residual_map = with_map, _fit_map(residual)
    identity = deviates**2 / 2
    gain = float(np.mean(identity - losses))
    if not _is_better(losses, identity):
        return None, gain
    shift, log_scale = _fit_moments(design, deviates, *strengths)
    return ProbitRegression(basis, shift, log_scale, residual_map), gain


def _chosen_penalties(
    design: np.ndarray, deviates: np.ndarray, folds: np.ndarray
) -> tuple[list[float], tuple[np.ndarray, np.ndarray]]:
    """Choose the penalties on the shift, then the scale; return them and the held-out moments."""
    strengths, best = [_INITIAL_PENALTY, _INITIAL_PENALTY], np.inf
    moments = np.zeros(len(deviates)), np.ones(len(deviates))
    for which in (0, 1):
        for strength in _PENALTIES:
            trial = list(strengths)
            trial[which] = strength
            held_out = _held_out_moments(design, deviates, folds, *trial)
            loss = _loss(deviates, *held_out).mean()
            if loss < best:
                strengths, best, moments = trial, loss, held_out
    return strengths, moments


def _exactly(n: int, values: Mapping[str, Any], key: str, where: str) -> list[tuple[Any, str]]:
    """Return the elements of a list with one element for each of n features, and their paths."""
    found = list(entries(values, key, where))
    if len(found) != n:
        raise ValueError(
            f"the entry {where}.{key} has {len(found)} elements, but {n} are expected."
        )
    return found


def _natural_spline(values: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """Evaluate a natural cubic spline basis without the constant, in units of the knot range."""
    if len(knots) == 0:
        return np.zeros((len(values), 0))
    if len(knots) < 3:
        return values[:, None] - knots[0]
    width = knots[-1] - knots[0]
    cubes = np.maximum((values[:, None] - knots) / width, 0) ** 3
    slopes = (cubes[:, :-1] - cubes[:, -1:]) * (width / (knots[-1] - knots[:-1]))
    return np.column_stack([(values - knots[0]) / width, slopes[:, :-1] - slopes[:, -1:]])


def _orthonormalising(columns: np.ndarray) -> np.ndarray:
    """Return the matrix that makes centred columns orthonormal, without dependent columns."""
    n, m = columns.shape
    if m == 0:
        return np.zeros((0, 0))
    lengths = np.maximum(np.linalg.norm(columns, axis=0), 1e-12)
    keep = np.abs(np.diag(np.linalg.qr(columns, mode="r"))) > 1e-6 * lengths
    transform = np.zeros((m, np.count_nonzero(keep)))
    transform[keep] = np.linalg.inv(np.linalg.qr(columns[:, keep], mode="r")) * n**0.5
    return transform


def _moments(
    design: np.ndarray, shift: np.ndarray, log_scale: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    mean = np.clip(design @ shift, -_MAX_SHIFT, _MAX_SHIFT)
    return mean, np.exp(np.clip(design @ log_scale, -_MAX_LOG_SCALE, _MAX_LOG_SCALE))


def _loss(deviates: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return np.log(scale) + ((deviates - mean) / scale) ** 2 / 2


def _fit_moments(
    design: np.ndarray, deviates: np.ndarray, of_shift: float, of_scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """Maximise the Gaussian likelihood with ridge penalties on all but the constants."""
    free = np.ones(design.shape[1])
    free[0] = 1e-6
    log_scale = np.zeros(design.shape[1])
    information = 2 * design.T @ design + np.diag(of_scale * free)
    shift = log_scale
    for _ in range(_N_ITERATIONS):
        spread = _moments(design, shift, log_scale)[1]
        weighted = design / spread[:, None] ** 2
        shift = np.linalg.solve(
            weighted.T @ design + np.diag(of_shift * free), weighted.T @ deviates
        )
        mean, spread = _moments(design, shift, log_scale)
        # Large residuals would make the first steps diverge.
        square = np.minimum(((deviates - mean) / spread) ** 2, 20.0)
        score = design.T @ (square - 1) - of_scale * free * log_scale
        log_scale = log_scale + np.linalg.solve(information, score)
    return shift, log_scale


def _held_out_moments(
    design: np.ndarray, deviates: np.ndarray, folds: np.ndarray, of_shift: float, of_scale: float
) -> tuple[np.ndarray, np.ndarray]:
    mean, scale = np.zeros(len(deviates)), np.ones(len(deviates))
    for fold in range(_N_FOLDS):
        out = folds == fold
        fitted = _fit_moments(design[~out], deviates[~out], of_shift, of_scale)
        mean[out], scale[out] = _moments(design[out], *fitted)
    return mean, scale


def _fit_map(residual: np.ndarray) -> np.ndarray:
    """Return quantiles of the residuals, forced to increase."""
    from scipy.special import ndtr

    values = np.quantile(residual, ndtr(_NODES))
    steps = np.maximum(np.diff(values), 0.05 * np.diff(_NODES))
    return values[0] + np.concatenate([[0.0], np.cumsum(steps)])


def _mapped(values: np.ndarray, deviates: np.ndarray) -> np.ndarray:
    """Evaluate the map: a monotone cubic between the nodes, straight lines beyond."""
    inside = np.clip(deviates, _NODES[0], _NODES[-1])
    low = (values[1] - values[0]) / (_NODES[1] - _NODES[0])
    high = (values[-1] - values[-2]) / (_NODES[-1] - _NODES[-2])
    beyond = deviates - inside
    return PchipInterpolator(_NODES, values)(inside) + np.where(beyond < 0, low, high) * beyond


def _held_out_map_loss(residual: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Return the change of the loss of each galaxy by a map fitted to the other folds."""
    change = np.zeros(len(residual))
    for fold in range(_N_FOLDS):
        out = folds == fold
        curve = _mapped(_fit_map(residual[~out]), _FINE)
        slope = np.gradient(curve, _FINE)
        deviate = np.interp(residual[out], curve, _FINE)
        straight = (residual[out] < curve[0]) | (residual[out] > curve[-1])
        steepness = np.log(np.interp(deviate, _FINE, slope))
        new = deviate**2 / 2 + steepness
        change[out] = np.where(straight, 0.0, new - residual[out] ** 2 / 2)
    return change


def _is_better(losses: np.ndarray, others: np.ndarray) -> bool:
    """Test whether the mean is smaller by more than two standard errors."""
    gain = others - losses
    return bool(gain.mean() > 2 * gain.std() / len(gain) ** 0.5)


def _rounded(values: np.ndarray) -> list:
    """Round to nine digits, more than single precision holds."""
    return np.vectorize(lambda value: float(f"{value:.9g}"), otypes=[float])(values).tolist()
