"""Spectra on a wavelength grid with equal steps in log10, on which velocities are shifts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .inputs import LIGHT_SPEED, SpectrumArrays

__all__ = ["PIXEL_VELOCITY", "STEP", "LogSpectrum", "log_spectrum"]

#: Step of the grid (dex).
STEP = 1e-4
#: Velocity of a step (km/s).
PIXEL_VELOCITY = LIGHT_SPEED * float(np.log(10)) * STEP


@dataclass(frozen=True)
class LogSpectrum:
    """One spectrum on a grid of `STEP`.

    Attributes
    ----------
    start : float
        log10 of the first wavelength (Angstrom, vacuum, observed frame).
    flux, variance : ndarray, shape (m,)
        The variance is zero if the input has no uncertainty, infinite where a pixel cannot be used.
    good : ndarray of bool, shape (m,)
    """

    start: float
    flux: np.ndarray
    variance: np.ndarray
    good: np.ndarray

    @property
    def log_wavelength(self) -> np.ndarray:
        """log10 of the wavelength (Angstrom), shape (m,)."""
        return self.start + STEP * np.arange(len(self.flux))

    @property
    def wavelength(self) -> np.ndarray:
        """Wavelength (Angstrom), shape (m,)."""
        return 10**self.log_wavelength


def log_spectrum(arrays: SpectrumArrays, row: int = 0) -> LogSpectrum:
    """Rebin one spectrum, conserving flux; a spectrum that is on such a grid already is taken as it is.

    Parameters
    ----------
    arrays : SpectrumArrays
    row : int
        Which spectrum of the stack.

    Returns
    -------
    LogSpectrum
        Variances are scaled such that the information stays the same when pixels are split or joined; the correlation
        of neighbouring pixels is not followed.

    Raises
    ------
    ValueError
        If the spectrum has fewer than 10 pixels.
    """
    log_wavelength = np.log10(arrays.wavelength)
    if len(log_wavelength) < 10:
        raise ValueError(f"the spectrum has {len(log_wavelength)} pixels; give at least 10.")
    flux, variance, good = arrays.flux[row], arrays.variance[row], arrays.good[row]
    if np.allclose(np.diff(log_wavelength), STEP, rtol=0, atol=0.01 * STEP):
        return LogSpectrum(float(log_wavelength[0]), flux, variance, good)
    first, last = log_wavelength[0], log_wavelength[-1]
    centres = first + STEP * np.arange(int((last - first) / STEP) + 1)
    edges = 10 ** np.concatenate([centres - 0.5 * STEP, centres[-1:] + 0.5 * STEP])
    middle = 0.5 * (arrays.wavelength[1:] + arrays.wavelength[:-1])
    ends = 2 * arrays.wavelength[[0, -1]] - middle[[0, -1]]
    native = np.concatenate([ends[:1], middle, ends[1:]])

    def rebinned(values: np.ndarray) -> np.ndarray:
        cumulative = np.concatenate([[0.0], np.cumsum(values * np.diff(native))])
        return np.diff(np.interp(edges, native, cumulative)) / np.diff(edges)

    usable = rebinned(good.astype(float)) > 0.5
    finite = np.where(good, variance, 0.0)
    native_width = np.interp(10**centres, arrays.wavelength, np.diff(native))
    spread = rebinned(finite) * native_width / np.diff(edges)
    return LogSpectrum(float(first), rebinned(flux), np.where(usable, spread, np.inf), usable)
