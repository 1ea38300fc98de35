r"""Non-negative template fits of the stellar continuum.

The model is :math:`m(\lambda)\,\sum_k w_k\,(T_k * G)(\lambda)` with :math:`w_k \ge 0`: templates
:math:`T_k`, a Gaussian :math:`G` in log wavelength, and a smooth multiplicative term :math:`m`,
either a Legendre polynomial (kinematics, and stellar continuum under emission lines) or the
attenuation by dust (populations).  Weights are found by non-negative least squares on the normal
equations, the mean velocity by Gauss-Newton steps with the best composite template, and the
dispersion by a one-dimensional search with all weights free.  Emission lines and Na D are masked
and outliers clipped.

The approach is that of Cappellari & Emsellem (2004, PASP 116, 138) and Cid Fernandes et al. (2005,
MNRAS 358, 363); this is an independent, simpler implementation.
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

__all__ = [
    "FIT_FAILED",
    "FIT_RANGE",
    "TOO_FEW_PIXELS",
    "StellarFit",
    "StellarProblem",
    "fit_stars",
    "non_negative",
]

#: Rest-frame range of the fits (Angstrom); redward of it the stellar grid of the simulator is
#: spliced.
FIT_RANGE = (3750.0, 7300.0)
#: Reasons for the flags of spectra that cannot be fitted.
FIT_FAILED = "the template fit failed"
TOO_FEW_PIXELS = "too few pixels between 3750 and 7300 Angstrom"

#: Degree of the multiplicative polynomial.
_DEGREE = 8
#: Half width of the mask around emission lines, and around broad lines (km/s).
_LINE_MASK, _BROAD_MASK = 500.0, 5000.0
#: Hgamma, Hbeta and Halpha (Angstrom).
_BROAD_LINES = (4341.69, 4862.69, 6564.61)
#: Range of the interstellar Na D lines (Angstrom).
_SODIUM = (5880.0, 5910.0)
#: Uncertainty of the templates, as a fraction of the continuum.
_MISMATCH = 0.01
#: Threshold of outliers, in standard deviations.
_CLIP = 4.0
#: Number of alternations between weights and polynomial in the first fit.
_N_ALTERNATIONS = 4
_MIN_PIXELS = 200
#: Maximum and initial dispersion (km/s).
_MAX_DISPERSION, _INITIAL_DISPERSION = 600.0, 150.0


@dataclass(frozen=True)
class StellarProblem:
    """Data and fixed parameters of a template fit.

    Attributes
    ----------
    spectrum : LogSpectrum
        Observed spectrum.
    templates : TemplateSet
        Stellar templates.
    redshift : float
        Redshift relative to which velocities are measured.
    use : ndarray of int, shape (p,)
        Indices of the fitted pixels.
    error : ndarray, shape (p,)
        Standard deviation of the flux of the fitted pixels, including 1% of the continuum for
        template mismatch.
    basis : ndarray, shape (degree + 1, m)
        Legendre polynomials on the whole grid.
    missing : float
        Squared dispersion of the spectrograph minus that of the template library (km2/s2); may be
        negative.
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
        """Select pixels and compute their errors.

        Parameters
        ----------
        spectrum : LogSpectrum
            Observed spectrum.
        templates : TemplateSet
            Stellar templates.
        redshift : float
            Redshift of the spectrum.
        resolution : float
            Resolving power of the spectrum.
        broad_lines : bool
            Also mask the broad wings of Halpha, Hbeta and Hgamma.

        Returns
        -------
        StellarProblem or None
            None if there are too few pixels.
        """
        rest = spectrum.wavelength / (1 + redshift)
        inside = (rest > FIT_RANGE[0]) & (rest < FIT_RANGE[1])
        use = np.flatnonzero(inside & spectrum.good & ~_emission(rest, broad_lines))
        if len(use) < _MIN_PIXELS:
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
        """Flux of the fitted pixels, shape (p,)."""
        return self.spectrum.flux[self.use]

    def observed(
        self, velocity: float, sigma: float, weights: np.ndarray | None = None
    ) -> np.ndarray:
        """Return the templates, or their weighted sum, on the grid of the spectrum.

        See `TemplateSet.observed`.
        """
        redshift = (1 + self.redshift) * (1 + velocity / LIGHT_SPEED) - 1
        size = len(self.spectrum.flux)
        return self.templates.observed(self.spectrum.start, size, redshift, sigma, weights)

    def keep(self, kept: np.ndarray) -> StellarProblem:
        """Return a copy with the pixels selected by a mask of shape (p,)."""
        return replace(self, use=self.use[kept], error=self.error[kept])


@dataclass(frozen=True)
class StellarFit:
    """Result of `fit_stars`.

    Attributes
    ----------
    problem : StellarProblem
        Fitted data, without clipped pixels.
    weights : ndarray, shape (n_templates,)
        Light of each template at 5500 A, before the multiplicative term.
    velocity, velocity_err : float
        Velocity relative to the redshift of the problem, and its error (km/s).
    sigma, sigma_err : float
        Dispersion of the kernel with which the templates are convolved, and its error (km/s).
    smooth : ndarray, shape (m,)
        Multiplicative term on the grid of the spectrum.
    model : ndarray, shape (m,)
        Stellar model on the grid of the spectrum; NaN outside the range of the templates.
    reduced_chi2 : float
        Chi square divided by the degrees of freedom.
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
        """Velocity dispersion of the stars (km/s), corrected for the spectrograph.

        It is 0 if it is not resolved.
        """
        return float(np.sqrt(max(self.sigma**2 - self.problem.missing, 0.0)))

    @property
    def dispersion_err(self) -> float:
        """Standard error of the velocity dispersion (km/s)."""
        return self.sigma * self.sigma_err / max(self.dispersion, self.sigma_err, 1e-9)


def non_negative(matrix: np.ndarray, vector: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Minimise :math:`w^T G w - 2 c^T w` subject to w >= 0.

    Parameters
    ----------
    matrix : ndarray, shape (k, k)
        Positive semi-definite matrix G.
    vector : ndarray, shape (k,)
        Vector c.

    Returns
    -------
    weights : ndarray, shape (k,)
        Solution w.
    factor : ndarray, shape (k, k)
        Upper Cholesky factor of G.

    Raises
    ------
    ValueError
        If G cannot be factorised, because the spectrum or its errors are not finite.
    """
    ridge = 1e-10 * np.trace(matrix) / len(matrix)
    try:
        factor = cholesky(matrix + ridge * np.eye(len(matrix)))
    except (LinAlgError, ValueError) as error:
        raise ValueError(
            "the templates cannot be fitted; flux and uncertainty of the spectrum must be finite "
            "and not all zero."
        ) from error
    return nnls(factor, solve_triangular(factor, vector, trans="T"))[0], factor


def fit_stars(problem: StellarProblem, *, quick: bool = False) -> StellarFit:
    """Fit stellar templates with a multiplicative polynomial.

    Parameters
    ----------
    problem : StellarProblem
        Data and fixed parameters.
    quick : bool
        Omit the search for the dispersion with free weights, which the continuum under emission
        lines does not need.

    Returns
    -------
    StellarFit

    Raises
    ------
    ValueError
        If the fit has no solution, as for a spectrum of zeros.
    """
    try:
        return _fit_stars(problem, quick)
    except LinAlgError as error:
        raise ValueError(
            "the templates cannot be fitted; the flux of the spectrum must be positive and cover "
            "a range of wavelengths."
        ) from error


def _fit_stars(problem: StellarProblem, quick: bool) -> StellarFit:
    velocity, sigma = 0.0, float(np.sqrt(max(_INITIAL_DISPERSION**2 + problem.missing, 0.0)))
    templates = problem.observed(velocity, sigma)
    smooth = np.ones(problem.basis.shape[1])
    weights, smooth = _alternated(problem, templates, None, smooth, _N_ALTERNATIONS)
    problem = _clipped(problem, weights @ templates * smooth)
    velocity_err = sigma_err = np.nan
    for _ in range(1 if quick else 2):
        velocity, sigma, (velocity_err, sigma_err) = _fit_kinematics(
            problem, weights, velocity, sigma
        )
        templates = problem.observed(velocity, sigma)
        weights, smooth = _alternated(problem, templates, weights @ templates, smooth)
    if not quick:
        stars = weights @ templates
        sigma, sigma_err = _fit_dispersion(problem, velocity, sigma, smooth, stars, sigma_err)
        templates = problem.observed(velocity, sigma)
        weights, smooth = _alternated(problem, templates, weights @ templates, smooth)
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
        velocity_err=float(velocity_err * scale),
        sigma=sigma,
        sigma_err=float(sigma_err * scale),
        smooth=smooth,
        model=model,
        reduced_chi2=float(reduced),
    )


def _alternated(
    problem: StellarProblem,
    templates: np.ndarray,
    stars: np.ndarray | None,
    smooth: np.ndarray,
    n_alternations: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Fit weights and polynomial alternately.

    Given ``stars``, the polynomial is free to first order in both.
    """
    weights = _weights(problem, templates, smooth, stars)[0]
    stars = weights @ templates
    smooth = _polynomial(problem, stars)
    if n_alternations > 1:
        return _alternated(problem, templates, stars, smooth, n_alternations - 1)
    return weights, smooth


def _emission(rest: np.ndarray, broad_lines: bool) -> np.ndarray:
    """Return a mask of the pixels near emission lines or interstellar sodium."""
    masked = (rest > _SODIUM[0]) & (rest < _SODIUM[1])
    for line in line_definitions()["wavelength"].value:
        masked |= np.abs(rest / line - 1) < _LINE_MASK / LIGHT_SPEED
    for line in _BROAD_LINES if broad_lines else ():
        masked |= np.abs(rest / line - 1) < _BROAD_MASK / LIGHT_SPEED
    return masked


def _weights(
    problem: StellarProblem,
    templates: np.ndarray,
    smooth: np.ndarray,
    stars: np.ndarray | None = None,
) -> tuple[np.ndarray, float]:
    """Return weights and chi square.

    With the previous ``stars`` the polynomial is free to first order.
    """
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
    """Return the best polynomial factor of a composite template, on the grid of the spectrum."""
    design = problem.basis[:, problem.use] * (stars[problem.use] / problem.error)
    normal = design @ design.T
    normal[np.diag_indices_from(normal)] *= 1 + 1e-10
    coefficients = cho_solve(cho_factor(normal), design @ (problem.flux / problem.error))
    smooth = coefficients @ problem.basis
    # Polynomials diverge outside the fitted range.
    ends = problem.use[[0, -1]]
    smooth[: ends[0]], smooth[ends[1] + 1 :] = smooth[ends[0]], smooth[ends[1]]
    return smooth / smooth[problem.use].mean() if smooth[problem.use].mean() > 0 else smooth


def _clipped(problem: StellarProblem, model: np.ndarray) -> StellarProblem:
    residual = (problem.flux - model[problem.use]) / problem.error
    scatter = 1.4826 * np.median(np.abs(residual - np.median(residual)))
    return problem.keep(np.abs(residual) < _CLIP * max(scatter, 1e-12))


def _fit_kinematics(
    problem: StellarProblem, weights: np.ndarray, velocity: float, sigma: float
) -> tuple[float, float, np.ndarray]:
    """Return velocity and dispersion of a composite template, polynomial free, and their errors.

    The errors are for a reduced chi square of 1.
    """

    def residual(parameters: np.ndarray) -> np.ndarray:
        stars = problem.observed(parameters[0], parameters[1], weights)
        model = stars * _polynomial(problem, stars)
        return (problem.flux - model[problem.use]) / problem.error

    limits = ([velocity - 1000.0, 1.0], [velocity + 1000.0, _MAX_DISPERSION])
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


def _fit_dispersion(
    problem: StellarProblem,
    velocity: float,
    sigma: float,
    smooth: np.ndarray,
    stars: np.ndarray,
    error: float,
) -> tuple[float, float]:
    """Return the dispersion with free weights and its error, from the curvature of chi square."""

    def chi2(trial: float) -> float:
        return _weights(problem, problem.observed(velocity, trial), smooth, stars)[1]

    width = max(8 * error, 0.3 * sigma, 25.0)
    limits = (max(sigma - width, 0.0), min(sigma + width, _MAX_DISPERSION))
    found = minimize_scalar(
        chi2, bounds=limits, method="bounded", options={"xatol": 2.0, "maxiter": 9}
    )
    best = float(found.x)
    step = max(error, 5.0)
    curvature = (chi2(best + step) + chi2(max(best - step, 0.0)) - 2 * found.fun) / step**2
    return best, float(np.sqrt(2 / curvature)) if curvature > 0 else error
