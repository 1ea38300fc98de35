r"""Joint fit of Gaussian emission lines with shared kinematics.

Lines of one group share velocity and width; doublets with a common upper level have a fixed flux
ratio.  For given kinematics the fluxes, local continua and stellar Balmer absorption are linear
parameters with an exact solution (variable projection: Golub & Pereyra 1973, SIAM J. Numer. Anal.
10, 413); the kinematics are found by a search on a coarse grid followed by non-linear least
squares.  Fluxes may be negative, so that those of absent lines scatter about zero.

`specutils.fitting.fit_lines` is not used, because it treats every flux as a parameter of one
non-linear fit and does not accept polynomials in such a sum (2.4), so that continua and absorption
cannot be fitted jointly.  For eight strong lines with the same ties both agree to 1% and take 0.07
and 0.09 s; for all 15 default lines it took 0.57 s against 0.09 s per spectrum, with an error of 6%
in the mean Halpha flux of six spectra with a noise of 2.5% per pixel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import least_squares

from ..flags import Flag
from .inputs import LIGHT_SPEED
from .line_model import Line, LineModel, column_scale, line_coverage, line_model, solve_linear
from .log_grid import LogSpectrum

__all__ = ["LineFit", "fit_lines", "unmeasured_lines"]

#: Maximum dispersion of narrow lines, maximum velocity, and range of the dispersion of broad lines
#: (km/s).
_MAX_DISPERSION = 700.0
_MAX_VELOCITY = 600.0
_BROAD_LIMITS = (600.0, 5000.0)
#: Trial dispersions of broad lines (km/s); the middle one is assumed if nothing is detected.
_BROAD_TRIALS = (1000.0, 2000.0, 3500.0)
_BROAD_ASSUMED = 2000.0
#: Minimum signal-to-noise ratio of every group for separate kinematics, and of all lines for a
#: detection.
_MIN_SEPARATE = 10.0
_MIN_DETECTION = 6.0
#: Dispersion assumed if no line is detected (km/s).
_ASSUMED_DISPERSION = 100.0
#: Velocity range of the continuum beside a line, and half width excluded around every line (km/s).
_SIDE_BANDS = (600.0, 3000.0)
_EXCLUDED = 400.0
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
    """Result of `fit_lines`: arrays of shape (n_lines,) in the order of the lines.

    Lines that are not measured are NaN.

    Attributes
    ----------
    flux, flux_err : ndarray
        Flux in the unit of the spectrum times Angstrom, and its error.
    continuum, continuum_err : ndarray
        Continuum level beside the line, and its error.
    velocity, velocity_err, dispersion, dispersion_err : ndarray
        Velocity and dispersion, corrected for the spectrograph, and their errors (km/s).
    excess : ndarray
        Square root of the reduced chi square around the line.
    codes : ndarray of int64
        Flag codes.
    texts : tuple of str
        Reasons for the flags; empty strings for lines without flags.
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
    codes: np.ndarray
    texts: tuple[str, ...]


@dataclass(frozen=True)
class _Kinematics:
    """Velocity and total dispersion of each group (km/s), whether measured and at a limit."""

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
        Observed spectrum.
    stars : ndarray, shape (m,), optional
        Stellar model, which is subtracted.
    redshift : float
        Redshift relative to which velocities are measured.
    lines : tuple of Line
        Lines to fit.  Lines of the group "broad" have dispersions between 600 and 5000 km/s, all
        others up to 700 km/s.
    instrument : float
        Dispersion of the spectrograph (km/s).
    absorption : bool
        Without a stellar model, fit Balmer absorption lines of 5 Angstrom dispersion and one common
        strength.
    start : float
        Initial velocity (km/s).

    Returns
    -------
    LineFit
    """
    flags = [line_coverage(spectrum, line, redshift) for line in lines]
    covered = tuple(k for k, (flag, _) in enumerate(flags) if not flag)
    arrays = _blank(len(lines))
    model = line_model(
        spectrum, stars, redshift, tuple(lines[k] for k in covered), absorption=absorption
    )
    if model is None:
        flags = [(flag or Flag.BAD_PIXELS, text or "masked") for flag, text in flags]
        return _line_fit(arrays, flags)
    motion = _kinematics(model, instrument, start)
    fluxes, errors, motion_errors, excess = _solution(model, motion)
    emission = fluxes @ model.gaussians(spectrum.log_wavelength, motion.velocity, motion.sigma)
    levels = _levels(spectrum, emission, model)
    intrinsic = np.sqrt(np.maximum(motion.sigma**2 - instrument**2, 0))
    for component, indices in enumerate(model.components):
        group = model.group_of(component)
        velocity_error, sigma_error = motion_errors[group]
        dispersion_error = motion.sigma[group] * sigma_error
        dispersion_error /= max(intrinsic[group], sigma_error, 1e-9)
        for index in indices:
            k, ratio = covered[index], model.lines[index].ratio
            values = (
                fluxes[component] * ratio,
                errors[component] * ratio,
                *levels[index],
                motion.velocity[group],
                velocity_error,
                intrinsic[group],
                dispersion_error,
            )
            for name, value in zip(_ARRAYS, values, strict=True):
                arrays[name][k] = value
            arrays["excess"][k] = excess[component]
            flags[k] = _kinematic_flag(motion, group, bool(intrinsic[group] == 0))
    return _line_fit(arrays, flags)


def unmeasured_lines(flags: list[tuple[Flag, str]]) -> LineFit:
    """Return NaN for lines that cannot be measured.

    Parameters
    ----------
    flags : list of (Flag, str)
        Flag and reason of each line.

    Returns
    -------
    LineFit
    """
    return _line_fit(_blank(len(flags)), flags)


def _blank(n: int) -> dict[str, np.ndarray]:
    return {name: np.full(n, np.nan) for name in (*_ARRAYS, "excess")}


def _line_fit(arrays: dict[str, np.ndarray], flags: list[tuple[Flag, str]]) -> LineFit:
    codes = np.array([int(flag) for flag, _ in flags], dtype=np.int64)
    return LineFit(**arrays, codes=codes, texts=tuple(text for _, text in flags))


def _kinematic_flag(motion: _Kinematics, group: int, unresolved: bool) -> tuple[Flag, str]:
    if not motion.measured:
        return Flag.WEAK_LINE | Flag.ASSUMPTION, "no line detected, kinematics assumed"
    if motion.at_limit[group]:
        return Flag.AT_LIMIT, "kinematics at their limits"
    return (Flag.UNRESOLVED, "width not resolved") if unresolved else (Flag(0), "")


def _significance(
    model: LineModel, velocity: np.ndarray, sigma: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the fluxes of the components and their signal-to-noise ratios."""
    coefficients, variances, _ = solve_linear(model, model.profiles(velocity, sigma))
    fluxes = coefficients[: len(model.components)]
    return fluxes, fluxes / np.sqrt(variances[: len(fluxes)])


def _kinematics(model: LineModel, instrument: float, start: float) -> _Kinematics:
    n = len(model.groups)
    broad = np.array([group == "broad" for group in model.groups])
    velocity, sigma, score = _grid_search(model, broad, instrument, start)
    if score < _MIN_DETECTION**2:
        assumed = np.where(broad, _BROAD_ASSUMED, np.hypot(instrument, _ASSUMED_DISPERSION))
        return _Kinematics(np.full(n, start), assumed, False, np.zeros(n, dtype=bool))
    positive = _significance(model, velocity, sigma)[0] > 0
    limits = np.array([
        [[start - _MAX_VELOCITY, _BROAD_LIMITS[0] if b else 0.7 * instrument] for b in broad],
        [[start + _MAX_VELOCITY, _BROAD_LIMITS[1] if b else _MAX_DISPERSION] for b in broad],
    ])  # fmt: skip
    shared = np.where(broad, 1, 0)
    found = _refined(model, positive, np.stack([velocity, sigma], axis=1), limits, shared)
    significance = np.maximum(_significance(model, *found.T)[1], 0)
    of_group = [
        np.sqrt(sum(s**2 for k, s in enumerate(significance) if model.group_of(k) == group))
        for group in range(n)
    ]
    if np.count_nonzero(~broad) > 1 and min(of_group) > _MIN_SEPARATE:
        found = _refined(model, positive, found, limits, np.arange(n))
    velocity, sigma = found.T
    lowest_sigma = limits[0, :, 1]
    at_limit = np.any(np.abs(found - limits) < [5.0, 5.0], axis=(0, 2)) & (
        sigma > lowest_sigma + 5.0
    )
    return _Kinematics(velocity, sigma, True, at_limit)


def _grid_search(
    model: LineModel, broad: np.ndarray, instrument: float, start: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the velocities and dispersions of highest summed squared S/N ratios, and the sum."""
    trials = [
        (
            np.full(len(broad), start + shift),
            np.where(broad, wide, np.hypot(instrument, width)),
        )
        for shift in (-300.0, -150.0, 0.0, 150.0, 300.0)
        for width in (60.0, 180.0)
        for wide in (_BROAD_TRIALS if broad.any() else (0.0,))
    ]
    scores = [np.sum(np.maximum(_significance(model, *trial)[1], 0) ** 2) for trial in trials]
    best = int(np.argmax(np.nan_to_num(scores, nan=-1.0)))
    return (*trials[best], float(scores[best]))


def _refined(
    model: LineModel,
    positive: np.ndarray,
    first: np.ndarray,
    limits: np.ndarray,
    shared: np.ndarray,
) -> np.ndarray:
    """Return least-squares kinematics, shape (n_groups, 2).

    Groups with equal ``shared`` have common kinematics.
    """
    numbers, first_index = np.unique(shared, return_index=True)
    of_group = np.searchsorted(numbers, shared)

    def residual(parameters: np.ndarray) -> np.ndarray:
        motion = parameters.reshape(-1, 2)[of_group]
        return solve_linear(model, model.profiles(*motion.T)[positive])[2]

    low, high = (limit[first_index].ravel() for limit in limits)
    start = np.clip(first[first_index].ravel(), low + 1e-3, high - 1e-3)
    found = least_squares(
        residual,
        start,
        bounds=(low, high),
        x_scale=np.tile([20.0, 20.0], len(first_index)),
        xtol=1e-5,
        ftol=1e-7,
        max_nfev=20,
    )
    return found.x.reshape(-1, 2)[of_group]


def _solution(
    model: LineModel, motion: _Kinematics
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return fluxes and errors of the components, errors of the kinematics, and excess.

    The errors of velocity and dispersion have shape (n_groups, 2).
    """
    profiles = model.profiles(motion.velocity, motion.sigma)
    coefficients, _, residual = solve_linear(model, profiles)
    n, n_groups = len(model.components), len(model.groups)
    absorption = coefficients[n + len(model.continua) :]
    if (absorption < 0).any():
        model = replace(model, absorption=model.absorption[:0])
        coefficients, _, residual = solve_linear(model, profiles)
    fluxes = coefficients[:n]
    columns = [*profiles, *model.continua, *model.absorption]
    step = 2.0
    if motion.measured:
        for group in range(n_groups):
            for k in range(2):
                moved = [motion.velocity.copy(), motion.sigma.copy()]
                moved[k][group] += step
                columns.append(fluxes @ (model.profiles(*moved) - profiles) / step)
    design = np.array(columns)
    normal = design @ design.T
    scale = column_scale(normal)
    normal /= scale * scale[:, None]
    variances = np.diag(np.linalg.pinv(normal, rcond=1e-12, hermitian=True)) / scale**2
    excess = _excess(model, residual, profiles)
    factors = np.maximum(excess, 1.0)
    motion_errors = np.full((n_groups, 2), np.nan)
    if motion.measured:
        motion_errors = np.sqrt(variances[-2 * n_groups :].reshape(-1, 2)) * np.median(factors)
    return fluxes, np.sqrt(variances[:n]) * factors, motion_errors, excess


def _excess(model: LineModel, residual: np.ndarray, profiles: np.ndarray) -> np.ndarray:
    """Return the square root of the reduced chi square in the windows of each component."""
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
    """Return the median continuum beside each line, and its error."""
    wavelength, flux = spectrum.wavelength, spectrum.flux - emission
    centres = np.array([line.wavelength * (1 + model.redshift) for line in model.lines])
    usable = spectrum.good.copy()
    for centre in centres:
        usable &= np.abs(wavelength / centre - 1) * LIGHT_SPEED > _EXCLUDED
    levels = []
    for centre in centres:
        velocity = np.abs(wavelength / centre - 1) * LIGHT_SPEED
        values = flux[usable & (velocity > _SIDE_BANDS[0]) & (velocity < _SIDE_BANDS[1])]
        if len(values) < 5:
            levels.append((np.nan, np.nan))
            continue
        error = 1.2533 * np.std(values) / np.sqrt(len(values))
        levels.append((float(np.median(values)), float(error)))
    return levels
