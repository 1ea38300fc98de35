r"""A joint fit of Gaussian emission lines with shared kinematics.

Lines of one group share velocity and width; doublets from one upper level share one flux.  For given kinematics the
fluxes, the local continua and any stellar Balmer absorption are linear and are solved for exactly (variable
projection: Golub & Pereyra 1973, SIAM J. Numer. Anal. 10, 413); the kinematics are searched on a coarse grid and then by
least squares.  Fluxes may come out negative, so that those of lines that are absent scatter about zero.

`specutils.fitting.fit_lines` is not underneath, as it makes every flux a parameter of one non-linear fit, and refuses polynomials
in such a sum (2.4), so that continua and absorption cannot be fitted along.  For eight strong lines with the same ties
both agree to 1% and take 0.07 and 0.09 s; for all 15 default lines it took 0.57 s against 0.09 s a spectrum, and left
Halpha 6% off in the mean of six spectra with a noise of 2.5% a pixel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import least_squares

from .inputs import LIGHT_SPEED
from .line_model import Line, LineModel, line_coverage, line_model, solve_linear
from .log_grid import LogSpectrum

__all__ = ["LineFit", "fit_lines"]

_WIDEST = 700.0
_FARTHEST = 600.0
_BROAD_LIMITS = (600.0, 5000.0)
_BROAD_TRIALS = (1000.0, 2000.0, 3500.0)
_SEPARATE = 10.0
_DETECTED = 6.0
_ASSUMED = 100.0
_SIDE_BANDS = (600.0, 3000.0)
_CLEAR = 400.0
_ARRAYS = (
    "flux",
    "flux_err",
    "continuum",
    "continuum_err",
    "velocity",
    "velocity_err",
    "dispersion",
    "dispersion_err",
)


@dataclass(frozen=True)
class LineFit:
    """What `fit_lines` found, arrays in the order of the lines that came; NaN for lines that cannot be measured.

    Attributes
    ----------
    flux, flux_err : ndarray
        In the unit of the spectrum times Angstrom.
    continuum, continuum_err : ndarray
        Level beside the line, without emission.
    velocity, velocity_err, dispersion, dispersion_err : ndarray
        km/s; dispersion without the spectrograph.
    excess : ndarray
        Root of chi square a pixel around the line.
    reason : tuple of str
        What is wrong with each line; empty strings where nothing is.
    """

    flux: np.ndarray
    flux_err: np.ndarray
    continuum: np.ndarray
    continuum_err: np.ndarray
    velocity: np.ndarray
    velocity_err: np.ndarray
    dispersion: np.ndarray
    dispersion_err: np.ndarray
    excess: np.ndarray
    reason: tuple[str, ...]


@dataclass(frozen=True)
class _Kinematics:
    """Velocity and total dispersion of each group (km/s), whether they were measured, and whether at a limit."""

    velocity: np.ndarray
    sigma: np.ndarray
    measured: bool
    at_limit: np.ndarray


def fit_lines(
    spectrum: LogSpectrum,
    stars: np.ndarray | None,
    redshift: float,
    lines: tuple[Line, ...],
    *,
    instrument: float,
    absorption: bool,
    start: float = 0.0,
) -> LineFit:
    """Fit emission lines.

    Parameters
    ----------
    spectrum : LogSpectrum
    stars : ndarray, shape (m,), optional
        Model of the stars, which is subtracted.
    redshift : float
    lines : tuple of Line
        Lines of the group "broad" get dispersions between 600 and 5000 km/s, all others up to 700 km/s.
    instrument : float
        Dispersion of the spectrograph, km/s.
    absorption : bool
        Without a model of the stars, give the Balmer lines absorption lines of 5 Angstrom dispersion and one common
        strength.
    start : float
        First guess of the velocity, km/s.

    Returns
    -------
    LineFit
    """
    reasons = [line_coverage(spectrum, line, redshift) for line in lines]
    covered = tuple(k for k, reason in enumerate(reasons) if not reason)
    arrays = {name: np.full(len(lines), np.nan) for name in (*_ARRAYS, "excess")}
    model = line_model(
        spectrum, stars, redshift, tuple(lines[k] for k in covered), absorption=absorption
    )
    if model is None:
        return LineFit(**arrays, reason=tuple(reason or "masked" for reason in reasons))
    motion = _kinematics(model, instrument, start)
    fluxes, errors, motion_errors, excess = _solution(model, motion)
    emission = fluxes @ model.gaussians(spectrum.log_wavelength, motion.velocity, motion.sigma)
    levels = _levels(spectrum, emission, model)
    intrinsic = np.sqrt(np.maximum(motion.sigma**2 - instrument**2, 0))
    for component, members in enumerate(model.components):
        group = model.group_of(component)
        width_error = motion.sigma[group] * motion_errors[group, 1]
        width_error /= max(intrinsic[group], motion_errors[group, 1], 1e-9)
        for number in members:
            k, ratio = covered[number], model.lines[number].ratio
            of_line = (
                fluxes[component] * ratio,
                errors[component] * ratio,
                *levels[number],
                motion.velocity[group],
                motion_errors[group, 0],
                intrinsic[group],
                width_error,
            )
            for name, value in zip(_ARRAYS, of_line, strict=True):
                arrays[name][k] = value
            arrays["excess"][k] = excess[component]
            reasons[k] = _remark(motion, group, bool(intrinsic[group] == 0))
    return LineFit(**arrays, reason=tuple(reasons))


def _remark(motion: _Kinematics, group: int, unresolved: bool) -> str:
    if not motion.measured:
        return "no line detected, kinematics assumed"
    if motion.at_limit[group]:
        return "kinematics at their limits"
    return "width not resolved" if unresolved else ""


def _significance(
    model: LineModel, velocity: np.ndarray, sigma: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Fluxes of the components, and fluxes over errors."""
    coefficients, variances, _ = solve_linear(model, model.profiles(velocity, sigma))
    fluxes = coefficients[: len(model.components)]
    return fluxes, fluxes / np.sqrt(variances[: len(fluxes)])


def _kinematics(model: LineModel, instrument: float, start: float) -> _Kinematics:
    n = len(model.groups)
    broad = np.array([group == "broad" for group in model.groups])
    best, score = None, -1.0
    for shift in (-300.0, -150.0, 0.0, 150.0, 300.0):
        for width in (60.0, 180.0):
            for wide in _BROAD_TRIALS if broad.any() else (0.0,):
                sigma = np.where(broad, wide, np.hypot(instrument, width))
                velocity = np.full(n, start + shift)
                found = np.sum(np.maximum(_significance(model, velocity, sigma)[1], 0) ** 2)
                if found > score:
                    best, score = (velocity, sigma), found
    if score < _DETECTED**2:
        assumed = np.where(broad, _BROAD_TRIALS[1], np.hypot(instrument, _ASSUMED))
        return _Kinematics(np.full(n, start), assumed, False, np.zeros(n, dtype=bool))
    positive = _significance(model, *best)[0] > 0
    limits = np.array([
        [[start - _FARTHEST, _BROAD_LIMITS[0] if b else 0.7 * instrument] for b in broad],
        [[start + _FARTHEST, _BROAD_LIMITS[1] if b else _WIDEST] for b in broad],
    ])  # fmt: skip
    shared = np.where(broad, 1, 0)
    found = _refined(model, positive, np.stack(best, axis=1), limits, shared)
    strength = np.maximum(_significance(model, *found.T)[1], 0)
    of_group = [
        np.sqrt(sum(strength[k] ** 2 for k in range(len(strength)) if model.group_of(k) == group))
        for group in range(n)
    ]
    if np.count_nonzero(~broad) > 1 and min(of_group) > _SEPARATE:
        found = _refined(model, positive, found, limits, np.arange(n))
    at_limit = np.any(np.abs(found - limits) < [5.0, 5.0], axis=(0, 2)) & (
        found[:, 1] > limits[0, :, 1] + 5.0
    )
    return _Kinematics(found[:, 0], found[:, 1], True, at_limit)


def _refined(
    model: LineModel,
    positive: np.ndarray,
    first: np.ndarray,
    limits: np.ndarray,
    shared: np.ndarray,
) -> np.ndarray:
    """Least-squares kinematics, shape (n_groups, 2); groups of one number in ``shared`` move together."""
    numbers, places = np.unique(shared, return_index=True)
    of_group = np.searchsorted(numbers, shared)

    def residual(parameters: np.ndarray) -> np.ndarray:
        motion = parameters.reshape(-1, 2)[of_group]
        return solve_linear(model, model.profiles(*motion.T)[positive])[2]

    low, high = (limit[places].ravel() for limit in limits)
    start = np.clip(first[places].ravel(), low + 1e-3, high - 1e-3)
    found = least_squares(
        residual,
        start,
        bounds=(low, high),
        x_scale=np.tile([20.0, 20.0], len(places)),
        xtol=1e-5,
        ftol=1e-7,
        max_nfev=20,
    )
    return found.x.reshape(-1, 2)[of_group]


def _solution(
    model: LineModel, motion: _Kinematics
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Fluxes and errors of the components, errors of the kinematics (n_groups, 2), and root of chi square a pixel."""
    profiles = model.profiles(motion.velocity, motion.sigma)
    coefficients, _, residual = solve_linear(model, profiles)
    if model.absorbed and coefficients[-1] < 0:
        model = replace(model, fixed=model.fixed[:-1], absorbed=False)
        coefficients, _, residual = solve_linear(model, profiles)
    n, n_groups = len(model.components), len(model.groups)
    fluxes = coefficients[:n]
    columns = [*profiles, *model.fixed]
    step = 2.0
    if motion.measured:
        for group in range(n_groups):
            for k in range(2):
                moved = [motion.velocity.copy(), motion.sigma.copy()]
                moved[k][group] += step
                columns.append(fluxes @ (model.profiles(*moved) - profiles) / step)
    design = np.array(columns)
    normal = design @ design.T
    scale = np.sqrt(np.maximum(np.diag(normal), 1e-300))
    normal /= scale * scale[:, None]
    variances = np.diag(np.linalg.pinv(normal, rcond=1e-12, hermitian=True)) / scale**2
    excess = _excess(model, residual, profiles)
    factors = np.maximum(excess, 1.0)
    motion_errors = np.full((n_groups, 2), np.nan)
    if motion.measured:
        motion_errors = np.sqrt(variances[-2 * n_groups :].reshape(-1, 2)) * np.median(factors)
    return fluxes, np.sqrt(variances[:n]) * factors, motion_errors, excess


def _excess(model: LineModel, residual: np.ndarray, profiles: np.ndarray) -> np.ndarray:
    """Root of chi square a pixel in the windows of each component."""
    excess = np.empty(len(model.components))
    for k, profile in enumerate(profiles):
        windows = np.unique(model.window[profile > 0])
        inside = np.isin(model.window, windows)
        freedom = max(np.count_nonzero(inside) - 4 * len(windows), 1)
        excess[k] = np.sqrt(np.sum(residual[inside] ** 2) / freedom)
    return excess


def _levels(
    spectrum: LogSpectrum, emission: np.ndarray, model: LineModel
) -> list[tuple[float, float]]:
    """Median level beside each line, and its error."""
    wavelength, flux = spectrum.wavelength, spectrum.flux - emission
    centres = np.array([line.wavelength * (1 + model.redshift) for line in model.lines])
    clear = spectrum.good.copy()
    for centre in centres:
        clear &= np.abs(wavelength / centre - 1) * LIGHT_SPEED > _CLEAR
    levels = []
    for centre in centres:
        velocity = np.abs(wavelength / centre - 1) * LIGHT_SPEED
        values = flux[clear & (velocity > _SIDE_BANDS[0]) & (velocity < _SIDE_BANDS[1])]
        if len(values) < 5:
            levels.append((np.nan, np.nan))
            continue
        error = 1.2533 * np.std(values) / np.sqrt(len(values))
        levels.append((float(np.median(values)), float(error)))
    return levels
