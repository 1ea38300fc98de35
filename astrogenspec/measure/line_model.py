"""Linear part of the line fit: windows, Gaussian lines, local continua, stellar absorption.

For given kinematics the spectrum in the windows around lines is a linear combination of
Gaussian profiles of unit flux, Legendre polynomials (one set for each window) and, without a
stellar model, Balmer absorption lines of one common strength.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.polynomial import legendre
from scipy.linalg import cho_factor, cho_solve
from scipy.ndimage import uniform_filter1d

from ..flags import Flag
from .inputs import LIGHT_SPEED
from .log_grid import LogSpectrum

__all__ = ["Line", "LineModel", "column_scale", "line_coverage", "line_model", "solve_linear"]

#: Half widths (km/s) of the window around each line: with a stellar model, without one, and for
#: broad lines.
_WINDOW, _WIDE_WINDOW, _BROAD_WINDOW = 2000.0, 3000.0, 7000.0
#: Dispersion of the stellar absorption lines (Angstrom).
_ABSORPTION_WIDTH = 5.0
#: Uncertainty of the stellar model, as a fraction of the continuum.
_MISMATCH = 0.01
#: Velocities (km/s) about a line: within the first, few pixels may be bad; the second must be
#: covered.
_CORE, _MARGIN = 250.0, 400.0
#: Minimum fraction of good pixels in the core of a line.
_MIN_GOOD = 0.7


@dataclass(frozen=True)
class Line:
    """One emission line.

    Attributes
    ----------
    name : str
        Name in `line_definitions`.
    wavelength : float
        Rest-frame vacuum wavelength (Angstrom).
    group : str
        Lines of one group share velocity and width.
    tied_to : str
        Name of the line to which the flux is tied; empty if it is free.
    ratio : float
        Ratio of the flux to that of the line it is tied to.
    absorption : float
        Equivalent width of stellar absorption relative to that at Hbeta.
    """

    name: str
    wavelength: float
    group: str
    tied_to: str = ""
    ratio: float = 1.0
    absorption: float = 0.0


@dataclass(frozen=True)
class LineModel:
    """Fitted pixels and the terms of the model that do not depend on the kinematics.

    Attributes
    ----------
    lines : tuple of Line
        Fitted lines.
    components : tuple of tuple of int
        Indices of the lines that share one free flux.
    groups : tuple of str
        Groups of lines with common kinematics.
    redshift : float
        Redshift relative to which velocities are measured.
    log_wavelength : ndarray, shape (p,)
        log10 wavelength of the fitted pixels (Angstrom).
    data, error : ndarray, shape (p,)
        Flux divided by its error, and the error.
    window : ndarray of int, shape (p,)
        Index of the window of each pixel.
    continua : ndarray, shape (k, p)
        Local continua, divided by the error.
    absorption : ndarray, shape (1, p) or (0, p)
        Stellar absorption of unit strength, divided by the error, if it is fitted.
    """

    lines: tuple[Line, ...]
    components: tuple[tuple[int, ...], ...]
    groups: tuple[str, ...]
    redshift: float
    log_wavelength: np.ndarray
    data: np.ndarray
    error: np.ndarray
    window: np.ndarray
    continua: np.ndarray
    absorption: np.ndarray

    def group_of(self, component: int) -> int:
        """Return the index of the group of a component."""
        return self.groups.index(self.lines[self.components[component][0]].group)

    def profiles(self, velocity: np.ndarray, sigma: np.ndarray) -> np.ndarray:
        """Return profiles of unit flux divided by the error.

        ``velocity`` and ``sigma`` are those of each group (km/s).
        """
        return self.gaussians(self.log_wavelength, velocity, sigma) / self.error

    def gaussians(
        self, log_wavelength: np.ndarray, velocity: np.ndarray, sigma: np.ndarray
    ) -> np.ndarray:
        """Return profiles of unit flux at any wavelengths, shape (n_components, m)."""
        result = np.zeros((len(self.components), len(log_wavelength)))
        for k, indices in enumerate(self.components):
            group = self.group_of(k)
            width = sigma[group] / LIGHT_SPEED
            for line in (self.lines[index] for index in indices):
                centre = line.wavelength * (1 + self.redshift) * (1 + velocity[group] / LIGHT_SPEED)
                middle, reach = np.log10(centre), 6 * width / np.log(10)
                near = slice(*np.searchsorted(log_wavelength, [middle - reach, middle + reach]))
                x = (log_wavelength[near] - middle) * (np.log(10) / width)
                height = line.ratio / (np.sqrt(2 * np.pi) * width * centre)
                result[k, near] += height * np.exp(-0.5 * x**2)
        return result


def line_coverage(spectrum: LogSpectrum, line: Line, redshift: float) -> tuple[Flag, str]:
    """Return why a line cannot be measured.

    Parameters
    ----------
    spectrum : LogSpectrum
        Observed spectrum.
    line : Line
        Line to check.
    redshift : float
        Redshift of the line.

    Returns
    -------
    flag : Flag
        Bits of the flag; 0 if the line can be measured.
    text : str
        Reason; empty if the line can be measured.
    """
    velocity = LIGHT_SPEED * (spectrum.wavelength / (line.wavelength * (1 + redshift)) - 1)
    if velocity[0] > -_MARGIN or velocity[-1] < _MARGIN:
        return Flag.NOT_COVERED, "outside the wavelength range"
    core = np.abs(velocity) < _CORE
    if not np.mean(spectrum.good[core]) > _MIN_GOOD:
        return Flag.BAD_PIXELS, "masked"
    return Flag(0), ""


def line_model(
    spectrum: LogSpectrum,
    stars: np.ndarray | None,
    redshift: float,
    lines: tuple[Line, ...],
    *,
    absorption: bool,
) -> LineModel | None:
    """Select pixels, subtract the stars, and compute the terms independent of the kinematics.

    Parameters
    ----------
    spectrum : LogSpectrum
        Observed spectrum.
    stars : ndarray, shape (m,), optional
        Stellar model.
    redshift : float
        Redshift of the lines.
    lines : tuple of Line
        Lines that can be measured.
    absorption : bool
        Fit Balmer absorption of one common strength; ignored with a stellar model.

    Returns
    -------
    LineModel or None
        None if there are no lines or no pixels.
    """
    wavelength = spectrum.wavelength
    half_width = _WIDE_WINDOW if stars is None else _WINDOW
    near = np.zeros(len(wavelength), dtype=bool)
    for line in lines:
        limit = (_BROAD_WINDOW if line.group == "broad" else half_width) / LIGHT_SPEED
        near |= np.abs(wavelength / (line.wavelength * (1 + redshift)) - 1) < limit
    window = np.cumsum(np.diff(near.astype(int), prepend=0) == 1) - 1
    continuum = np.abs(uniform_filter1d(spectrum.flux, 101))
    error = np.sqrt(spectrum.variance + (_MISMATCH * continuum) ** 2)
    use = near & spectrum.good & (error > 0)
    if not use.any():
        return None
    continua = _continua(near, window, np.unique(window[use]), 2 if stars is None else 1)
    balmer = np.empty((0, len(wavelength)))
    if stars is None:
        subtracted = spectrum.flux
        if absorption:
            profiles = [_absorption(wavelength, line, redshift) for line in lines]
            balmer = -continuum * np.sum(profiles, axis=0, keepdims=True)
    else:
        subtracted = spectrum.flux - np.where(np.isfinite(stars), stars, 0.0)
    lines, components = _components(lines)
    return LineModel(
        lines=lines,
        components=components,
        groups=tuple(dict.fromkeys(line.group for line in lines)),
        redshift=redshift,
        log_wavelength=spectrum.log_wavelength[use],
        data=subtracted[use] / error[use],
        error=error[use],
        window=window[use],
        continua=continua[:, use] / error[use],
        absorption=balmer[:, use] / error[use],
    )


def column_scale(normal: np.ndarray) -> np.ndarray:
    """Return the norms of the columns of a linear model.

    Parameters
    ----------
    normal : ndarray, shape (k, k)
        Normal matrix.

    Returns
    -------
    ndarray, shape (k,)
        1 for columns of zeros, as the absorption lines of a spectrum without continuum.
    """
    squares = np.diag(normal)
    return np.sqrt(np.where(squares > 1e-300, squares, 1.0))


def solve_linear(
    model: LineModel, profiles: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Solve for fluxes, continua and absorption by linear least squares.

    Parameters
    ----------
    model : LineModel
        Data and terms that do not depend on the kinematics.
    profiles : ndarray, shape (k, p)
        Profiles of unit flux, divided by the error.

    Returns
    -------
    coefficients, variances : ndarray, shape (k + n_fixed,)
        Coefficients in the order of ``profiles``, ``model.continua``, ``model.absorption``, and
        their variances.
    residual : ndarray, shape (p,)
        Residual divided by the error.
    """
    design = np.concatenate([profiles, model.continua, model.absorption])
    normal = design @ design.T
    scale = column_scale(normal)
    normal /= scale * scale[:, None]
    normal[np.diag_indices_from(normal)] += 1e-10
    factor = cho_factor(normal)
    coefficients = cho_solve(factor, design @ model.data / scale) / scale
    variances = np.diag(cho_solve(factor, np.eye(len(scale)))) / scale**2
    return coefficients, variances, model.data - coefficients @ design


def _continua(near: np.ndarray, window: np.ndarray, windows: np.ndarray, degree: int) -> np.ndarray:
    """Return Legendre polynomials in each window, shape (n_windows * (degree + 1), m).

    They are zero outside of their window.
    """
    columns = []
    for index in windows:
        inside = near & (window == index)
        x = np.interp(np.arange(len(near)), np.flatnonzero(inside)[[0, -1]], [-1, 1])
        columns += [np.where(inside, p, 0.0) for p in legendre.legvander(x, degree).T]
    return np.array(columns)


def _components(lines: tuple[Line, ...]) -> tuple[tuple[Line, ...], tuple[tuple[int, ...], ...]]:
    """Group lines that share a flux.

    The flux of a line is free if the line it is tied to is not measured.
    """
    names = [line.name for line in lines]
    lines = tuple(
        line if line.tied_to in names else replace(line, tied_to="", ratio=1.0) for line in lines
    )
    indices: dict[str, list[int]] = {}
    for k, line in enumerate(lines):
        indices.setdefault(line.tied_to or line.name, []).append(k)
    return lines, tuple(tuple(found) for found in indices.values())


def _absorption(wavelength: np.ndarray, line: Line, redshift: float) -> np.ndarray:
    x = (wavelength / (1 + redshift) - line.wavelength) / _ABSORPTION_WIDTH
    return line.absorption * np.exp(-0.5 * x**2)
