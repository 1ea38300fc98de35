"""The linear part of the line fit: pixels near lines, Gaussians of unit flux, local continua, stellar absorption."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.polynomial import legendre
from scipy.linalg import cho_factor, cho_solve
from scipy.ndimage import uniform_filter1d

from .inputs import LIGHT_SPEED
from .log_grid import LogSpectrum

__all__ = ["Line", "LineModel", "line_coverage", "line_model", "solve_linear"]

#: Half widths (km/s) of the window around each line: with a model of the stars, without one, with broad lines.
_WINDOW, _WIDE_WINDOW, _BROAD_WINDOW = 2000.0, 3000.0, 7000.0
_ABSORPTION = 5.0
_MISMATCH = 0.01
_CORE = 250.0
_CLEAR = 400.0


@dataclass(frozen=True)
class Line:
    """One emission line.

    Attributes
    ----------
    name : str
    wavelength : float
        Rest frame, vacuum, Angstrom.
    group : str
        Lines of one group share velocity and width.
    tied_to : str
        Name of the line whose flux this one shares; empty if none.
    ratio : float
        Flux in units of that line's.
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
    """Pixels near lines, and what is linear whatever the kinematics.

    Attributes
    ----------
    lines : tuple of Line
    components : tuple of tuple of int
        Numbers of the lines that share one flux.
    groups : tuple of str
        Groups that share kinematics.
    redshift : float
    log_wavelength : ndarray, shape (p,)
        Of the pixels fitted.
    data, error : ndarray, shape (p,)
        Flux over error, and error.
    window : ndarray of int, shape (p,)
        Number of the window a pixel is in.
    fixed : ndarray, shape (k, p)
        Local continua and, in the last row if ``absorbed``, stellar absorption, over the error.
    absorbed : bool
    """

    lines: tuple[Line, ...]
    components: tuple[tuple[int, ...], ...]
    groups: tuple[str, ...]
    redshift: float
    log_wavelength: np.ndarray
    data: np.ndarray
    error: np.ndarray
    window: np.ndarray
    fixed: np.ndarray
    absorbed: bool

    def group_of(self, component: int) -> int:
        """Give the number of the group of a component."""
        return self.groups.index(self.lines[self.components[component][0]].group)

    def profiles(self, velocity: np.ndarray, sigma: np.ndarray) -> np.ndarray:
        """Components of unit flux over the error, for kinematics of each group (km/s), shape (n_components, p)."""
        return self.gaussians(self.log_wavelength, velocity, sigma) / self.error

    def gaussians(
        self, log_wavelength: np.ndarray, velocity: np.ndarray, sigma: np.ndarray
    ) -> np.ndarray:
        """Components of unit flux at any wavelengths, shape (n_components, m)."""
        result = np.zeros((len(self.components), len(log_wavelength)))
        for k, members in enumerate(self.components):
            group = self.group_of(k)
            width = sigma[group] / LIGHT_SPEED
            for line in (self.lines[number] for number in members):
                centre = line.wavelength * (1 + self.redshift) * (1 + velocity[group] / LIGHT_SPEED)
                middle, reach = np.log10(centre), 6 * width / np.log(10)
                near = slice(*np.searchsorted(log_wavelength, [middle - reach, middle + reach]))
                x = (log_wavelength[near] - middle) * (np.log(10) / width)
                height = line.ratio / (np.sqrt(2 * np.pi) * width * centre)
                result[k, near] += height * np.exp(-0.5 * x**2)
        return result


def line_coverage(spectrum: LogSpectrum, line: Line, redshift: float) -> str:
    """Say why a line cannot be measured.

    Parameters
    ----------
    spectrum : LogSpectrum
    line : Line
    redshift : float

    Returns
    -------
    str
        Empty if it can.
    """
    velocity = LIGHT_SPEED * (spectrum.wavelength / (line.wavelength * (1 + redshift)) - 1)
    if velocity[0] > -_CLEAR or velocity[-1] < _CLEAR:
        return "outside the wavelength range"
    core = np.abs(velocity) < _CORE
    return "masked" if not np.mean(spectrum.good[core]) > 0.7 else ""


def line_model(
    spectrum: LogSpectrum,
    stars: np.ndarray | None,
    redshift: float,
    lines: tuple[Line, ...],
    *,
    absorption: bool,
) -> LineModel | None:
    """Choose the pixels, subtract the stars, and set up the columns that do not depend on the kinematics.

    Parameters
    ----------
    spectrum : LogSpectrum
    stars : ndarray, shape (m,), optional
        Model of the stars.
    redshift : float
    lines : tuple of Line
        Those that can be measured.
    absorption : bool
        Without a model of the stars, give the Balmer lines absorption of one common strength.

    Returns
    -------
    LineModel or None
        None if there are no lines or no pixels.
    """
    known, wavelength = stars is not None, spectrum.wavelength
    half = _WINDOW if known else _WIDE_WINDOW
    near = np.zeros(len(wavelength), dtype=bool)
    for line in lines:
        reach = (_BROAD_WINDOW if line.group == "broad" else half) / LIGHT_SPEED
        near |= np.abs(wavelength / (line.wavelength * (1 + redshift)) - 1) < reach
    number = np.cumsum(np.diff(near.astype(int), prepend=0) == 1) - 1
    continuum = np.abs(uniform_filter1d(spectrum.flux, 101))
    error = np.sqrt(spectrum.variance + (_MISMATCH * continuum) ** 2)
    use = near & spectrum.good & (error > 0)
    if not use.any():
        return None
    columns = _continua(near, number, np.unique(number[use]), 1 if known else 2)
    absorbed = absorption and not known
    if absorbed:
        columns.append(-continuum * sum(_absorbed(wavelength, line, redshift) for line in lines))
    subtracted = (
        spectrum.flux - np.where(np.isfinite(stars), stars, 0.0) if known else spectrum.flux
    )
    lines, components = _components(lines)
    return LineModel(
        lines=lines,
        components=components,
        groups=tuple(dict.fromkeys(line.group for line in lines)),
        redshift=redshift,
        log_wavelength=spectrum.log_wavelength[use],
        data=subtracted[use] / error[use],
        error=error[use],
        window=number[use],
        fixed=np.array(columns)[:, use] / error[use],
        absorbed=absorbed,
    )


def solve_linear(
    model: LineModel, profiles: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Solve for fluxes, continua and absorption.

    Parameters
    ----------
    model : LineModel
    profiles : ndarray, shape (k, p)
        Components of unit flux over the error.

    Returns
    -------
    coefficients, variances : ndarray, shape (k + n_fixed,)
    residual : ndarray, shape (p,)
        Over the error.
    """
    design = np.concatenate([profiles, model.fixed])
    normal = design @ design.T
    scale = np.sqrt(np.maximum(np.diag(normal), 1e-300))
    normal /= scale * scale[:, None]
    normal[np.diag_indices_from(normal)] += 1e-10
    factor = cho_factor(normal)
    coefficients = cho_solve(factor, design @ model.data / scale) / scale
    variances = np.diag(cho_solve(factor, np.eye(len(scale)))) / scale**2
    return coefficients, variances, model.data - coefficients @ design


def _continua(
    near: np.ndarray, number: np.ndarray, windows: np.ndarray, degree: int
) -> list[np.ndarray]:
    """Legendre polynomials in each window, zero outside of it."""
    columns = []
    for window in windows:
        inside = near & (number == window)
        x = np.interp(np.arange(len(near)), np.flatnonzero(inside)[[0, -1]], [-1, 1])
        columns += [np.where(inside, p, 0.0) for p in legendre.legvander(x, degree).T]
    return columns


def _components(lines: tuple[Line, ...]) -> tuple[tuple[Line, ...], tuple[tuple[int, ...], ...]]:
    """Join lines that share a flux; a line whose partner is not measured counts for itself."""
    names = [line.name for line in lines]
    lines = tuple(
        line if line.tied_to in names else replace(line, tied_to="", ratio=1.0) for line in lines
    )
    members: dict[str, list[int]] = {}
    for k, line in enumerate(lines):
        members.setdefault(line.tied_to or line.name, []).append(k)
    return lines, tuple(tuple(numbers) for numbers in members.values())


def _absorbed(wavelength: np.ndarray, line: Line, redshift: float) -> np.ndarray:
    x = (wavelength / (1 + redshift) - line.wavelength) / _ABSORPTION
    return line.absorption * np.exp(-0.5 * x**2)
