r"""Non-negative template fits: the stars in a spectrum, with their velocities and a smooth multiplicative continuum.

The model is :math:`m(\lambda)\,\sum_k w_k\,(T_k * G)(\lambda)` with :math:`w_k \ge 0`: templates :math:`T_k`, a Gaussian
:math:`G` in log wavelength, and :math:`m` either a Legendre polynomial (kinematics, and what is subtracted under
emission lines) or the transmission of dust (populations).  Weights come from non-negative least squares on the normal
equations; mean velocity from Gauss-Newton steps with the best composite, dispersion from a one-dimensional search in
which all weights are free.  Emission lines and Na D are masked and outliers clipped.

The approach is that of Cappellari & Emsellem (2004, PASP 116, 138) and Cid Fernandes et al. (2005, MNRAS 358, 363);
the code is this package's own and simpler.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.polynomial import legendre
from scipy.linalg import LinAlgError, cho_factor, cho_solve, cholesky, solve_triangular
from scipy.ndimage import uniform_filter1d
from scipy.optimize import least_squares, minimize_scalar, nnls

from .definitions import line_definitions
from .inputs import LIGHT_SPEED, instrument_dispersion
from .log_grid import LogSpectrum
from .templates import TemplateSet, library_dispersion

__all__ = ["FIT_RANGE", "StellarFit", "StellarProblem", "fit_stars", "non_negative"]

#: Rest-frame range of the fits (Angstrom); redward of it the simulator's stellar grid has a seam.
FIT_RANGE = (3750.0, 7300.0)

_DEGREE = 8
_LINE_MASK = 500.0
_BROAD_MASK = 5000.0
_BROAD_LINES = (4341.69, 4862.69, 6564.61)
_SODIUM = (5880.0, 5910.0)
_MISMATCH = 0.01
_CLIP = 4.0
_ROUNDS = 4
_LEAST_PIXELS = 200
_WIDEST = 600.0
_FIRST_GUESS = 150.0


@dataclass(frozen=True)
class StellarProblem:
    """What is fitted: a spectrum, which pixels of it, and with which errors.

    Attributes
    ----------
    spectrum : LogSpectrum
    templates : TemplateSet
    redshift : float
        About which velocities are measured.
    use : ndarray of int, shape (p,)
        Numbers of the pixels fitted.
    error : ndarray, shape (p,)
        Standard deviation of the flux of each of them, with 1% of the continuum for the mismatch of the templates.
    basis : ndarray, shape (degree + 1, m)
        Legendre polynomials on the whole grid.
    missing : float
        Square of the dispersion by which the spectrograph exceeds the library (km2/s2); may be negative.
    """

    spectrum: LogSpectrum
    templates: TemplateSet
    redshift: float
    use: np.ndarray
    error: np.ndarray
    basis: np.ndarray
    missing: float

    @classmethod
    def of(
        cls,
        spectrum: LogSpectrum,
        templates: TemplateSet,
        redshift: float,
        resolution: float,
        *,
        broad_lines: bool = False,
    ) -> StellarProblem | None:
        """Choose pixels and errors.

        Parameters
        ----------
        spectrum : LogSpectrum
        templates : TemplateSet
        redshift : float
        resolution : float
            Resolving power of the spectrum.
        broad_lines : bool
            Leave out the surroundings of Halpha, Hbeta and Hgamma too.

        Returns
        -------
        StellarProblem or None
            None if too few pixels are left.
        """
        rest = spectrum.wavelength / (1 + redshift)
        inside = (rest > FIT_RANGE[0]) & (rest < FIT_RANGE[1])
        use = np.flatnonzero(inside & spectrum.good & ~_emission(rest, broad_lines))
        if len(use) < _LEAST_PIXELS:
            return None
        continuum = np.abs(uniform_filter1d(spectrum.flux, 101))[use]
        error = np.sqrt(spectrum.variance[use] + (_MISMATCH * continuum) ** 2)
        if not np.all(error > 0):
            return None
        low, high = np.log10(FIT_RANGE) + np.log10(1 + redshift)
        scaled = 2 * (spectrum.log_wavelength - low) / (high - low) - 1
        gap = instrument_dispersion(resolution) ** 2 - library_dispersion(rest[use]) ** 2
        basis = legendre.legvander(scaled, _DEGREE).T
        return cls(spectrum, templates, redshift, use, error, basis, float(gap.mean()))

    @property
    def flux(self) -> np.ndarray:
        """Flux of the pixels fitted, shape (p,)."""
        return self.spectrum.flux[self.use]

    def observed(
        self, velocity: float, sigma: float, weights: np.ndarray | None = None
    ) -> np.ndarray:
        """Templates (or their sum) on the whole grid of the spectrum; see `TemplateSet.observed`."""
        redshift = (1 + self.redshift) * (1 + velocity / LIGHT_SPEED) - 1
        size = len(self.spectrum.flux)
        return self.templates.observed(self.spectrum.start, size, redshift, sigma, weights)

    def keep(self, kept: np.ndarray) -> StellarProblem:
        """Drop pixels; ``kept`` is a mask of shape (p,)."""
        return replace(self, use=self.use[kept], error=self.error[kept])


@dataclass(frozen=True)
class StellarFit:
    """The result of `fit_stars`.

    Attributes
    ----------
    problem : StellarProblem
        With the clipped pixels left out.
    weights : ndarray, shape (n_templates,)
        Light of each template at 5500 A, before the multiplicative term.
    velocity, velocity_err : float
        Relative to the redshift of the problem, km/s.
    sigma, sigma_err : float
        Dispersion of the kernel that was applied to the templates, km/s.
    smooth : ndarray, shape (m,)
        The multiplicative term on the whole grid.
    model : ndarray, shape (m,)
        Stars on the grid of the spectrum; NaN beyond the templates.
    reduced_chi2 : float
    """

    problem: StellarProblem
    weights: np.ndarray
    velocity: float
    velocity_err: float
    sigma: float
    sigma_err: float
    smooth: np.ndarray
    model: np.ndarray
    reduced_chi2: float

    @property
    def dispersion(self) -> float:
        """Velocity dispersion of the stars, without the spectrograph (km/s); 0 if it is not resolved."""
        return float(np.sqrt(max(self.sigma**2 - self.problem.missing, 0.0)))

    @property
    def dispersion_err(self) -> float:
        """Its standard error (km/s)."""
        return self.sigma * self.sigma_err / max(self.dispersion, self.sigma_err, 1e-9)


def non_negative(matrix: np.ndarray, vector: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Minimise w G w - 2 c w with w >= 0.

    Parameters
    ----------
    matrix : ndarray, shape (k, k)
        G, positive semi-definite.
    vector : ndarray, shape (k,)
        c.

    Returns
    -------
    weights : ndarray, shape (k,)
    factor : ndarray, shape (k, k)
        Upper Cholesky factor of G.

    Raises
    ------
    ValueError
        If G cannot be factored: the spectrum or its errors are not finite.
    """
    ridge = 1e-10 * np.trace(matrix) / len(matrix)
    try:
        factor = cholesky(matrix + ridge * np.eye(len(matrix)))
    except (LinAlgError, ValueError) as error:
        raise ValueError(
            "the templates cannot be fitted: flux and uncertainty of the spectrum must be finite, and not all zero."
        ) from error
    return nnls(factor, solve_triangular(factor, vector, trans="T"))[0], factor


def fit_stars(problem: StellarProblem, *, quick: bool = False) -> StellarFit:
    """Fit stars with a multiplicative polynomial.

    Parameters
    ----------
    problem : StellarProblem
    quick : bool
        Stop before the search for the dispersion with free weights: enough for what lies under emission lines.

    Returns
    -------
    StellarFit
    """
    velocity, sigma = 0.0, float(np.sqrt(max(_FIRST_GUESS**2 + problem.missing, 0.0)))
    templates = problem.observed(velocity, sigma)
    weights, smooth = _converged(problem, templates, None, np.ones(problem.basis.shape[1]))
    problem = _clipped(problem, weights @ templates * smooth)
    errors = np.full(2, np.nan)
    for _ in range(1 if quick else 2):
        velocity, sigma, errors = _moved(problem, weights, velocity, sigma)
        templates = problem.observed(velocity, sigma)
        weights, smooth = _converged(problem, templates, weights, smooth)
    if not quick:
        stars = weights @ templates
        sigma, errors[1] = _searched(problem, velocity, sigma, smooth, stars, errors[1])
        templates = problem.observed(velocity, sigma)
        weights, smooth = _converged(problem, templates, weights, smooth)
    model = weights @ templates * smooth
    chi2 = np.sum(((problem.flux - model[problem.use]) / problem.error) ** 2)
    reduced = chi2 / max(len(problem.use) - problem.basis.shape[0] - np.count_nonzero(weights), 1)
    scale = np.sqrt(
        reduced if not problem.spectrum.variance[problem.use].any() else max(reduced, 1.0)
    )
    return StellarFit(
        problem=problem,
        weights=weights,
        velocity=velocity,
        velocity_err=float(errors[0] * scale),
        sigma=sigma,
        sigma_err=float(errors[1] * scale),
        smooth=smooth,
        model=model,
        reduced_chi2=float(reduced),
    )


def _converged(
    problem: StellarProblem, templates: np.ndarray, weights: np.ndarray | None, smooth: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Alternate weights and polynomial, each step with the other free to first order."""
    for _ in range(_ROUNDS if weights is None else 1):
        stars = None if weights is None else weights @ templates
        weights, _ = _solved(problem, templates, smooth, stars)
        smooth = _polynomial(problem, weights @ templates)
    return weights, smooth


def _emission(rest: np.ndarray, broad_lines: bool) -> np.ndarray:
    """Pixels near emission lines or interstellar sodium."""
    masked = (rest > _SODIUM[0]) & (rest < _SODIUM[1])
    for line in line_definitions()["wavelength"].value:
        masked |= np.abs(rest / line - 1) < _LINE_MASK / LIGHT_SPEED
    for line in _BROAD_LINES if broad_lines else ():
        masked |= np.abs(rest / line - 1) < _BROAD_MASK / LIGHT_SPEED
    return masked


def _solved(
    problem: StellarProblem,
    templates: np.ndarray,
    smooth: np.ndarray,
    stars: np.ndarray | None = None,
) -> tuple[np.ndarray, float]:
    """Weights and chi square; given the stars so far, the polynomial is free to first order about them."""
    scaled = templates[:, problem.use] * (smooth[problem.use] / problem.error)
    data = problem.flux / problem.error
    if stars is not None:
        tangent = problem.basis[1:, problem.use] * ((stars * smooth)[problem.use] / problem.error)
        normal = tangent @ tangent.T
        normal[np.diag_indices_from(normal)] *= 1 + 1e-8
        factor = cho_factor(normal)
        scaled = scaled - cho_solve(factor, tangent @ scaled.T).T @ tangent
        data = data - cho_solve(factor, tangent @ data) @ tangent
    weights, _ = non_negative(scaled @ scaled.T, scaled @ data)
    return weights, float(np.sum((data - weights @ scaled) ** 2))


def _polynomial(problem: StellarProblem, stars: np.ndarray) -> np.ndarray:
    """Best multiplicative polynomial of given stars, on the whole grid."""
    design = problem.basis[:, problem.use] * (stars[problem.use] / problem.error)
    normal = design @ design.T
    normal[np.diag_indices_from(normal)] *= 1 + 1e-10
    coefficients = cho_solve(cho_factor(normal), design @ (problem.flux / problem.error))
    smooth = coefficients @ problem.basis
    # Outside of the range that is fitted a polynomial runs away.
    ends = problem.use[[0, -1]]
    smooth[: ends[0]], smooth[ends[1] + 1 :] = smooth[ends[0]], smooth[ends[1]]
    return smooth / smooth[problem.use].mean() if smooth[problem.use].mean() > 0 else smooth


def _clipped(problem: StellarProblem, model: np.ndarray) -> StellarProblem:
    residual = (problem.flux - model[problem.use]) / problem.error
    scatter = 1.4826 * np.median(np.abs(residual - np.median(residual)))
    return problem.keep(np.abs(residual) < _CLIP * max(scatter, 1e-12))


def _moved(
    problem: StellarProblem, weights: np.ndarray, velocity: float, sigma: float
) -> tuple[float, float, np.ndarray]:
    """Velocity and dispersion of one composite, polynomial free, and their errors for a chi square of 1 a pixel."""

    def residual(parameters: np.ndarray) -> np.ndarray:
        stars = problem.observed(parameters[0], parameters[1], weights)
        model = stars * _polynomial(problem, stars)
        return (problem.flux - model[problem.use]) / problem.error

    limits = ([velocity - 1000.0, 1.0], [velocity + 1000.0, _WIDEST])
    found = least_squares(
        residual,
        [velocity, max(sigma, 10.0)],
        bounds=limits,
        x_scale=[20.0, 20.0],
        diff_step=0.01,
        max_nfev=12,
        xtol=1e-3,
        ftol=1e-5,
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = np.sqrt(np.diag(np.linalg.pinv(found.jac.T @ found.jac)))
    return float(found.x[0]), float(found.x[1]), errors


def _searched(
    problem: StellarProblem,
    velocity: float,
    sigma: float,
    smooth: np.ndarray,
    stars: np.ndarray,
    error: float,
) -> tuple[float, float]:
    """Dispersion with free weights and its error, from the curvature of chi square."""
    seen: dict[float, float] = {}

    def chi2(trial: float) -> float:
        seen[trial] = _solved(problem, problem.observed(velocity, trial), smooth, stars)[1]
        return seen[trial]

    reach = max(8 * error, 0.3 * sigma, 25.0)
    limits = (max(sigma - reach, 0.0), min(sigma + reach, _WIDEST))
    found = minimize_scalar(
        chi2, bounds=limits, method="bounded", options={"xatol": 2.0, "maxiter": 9}
    )
    best = float(found.x)
    step = max(error, 5.0)
    curvature = (chi2(best + step) + chi2(max(best - step, 0.0)) - 2 * found.fun) / step**2
    return best, float(np.sqrt(2 / curvature)) if curvature > 0 else error
