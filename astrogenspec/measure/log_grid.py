"""Spectra on a grid with equal steps in log10 wavelength.

On this grid a velocity is a shift by a number of pixels.
"""

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
    """One spectrum on a grid with steps of `STEP`.

    Attributes
    ----------
    start : float
        log10 of the first wavelength (Angstrom, vacuum, observed frame).
    flux : ndarray, shape (m,)
        Flux density per unit wavelength.
    variance : ndarray, shape (m,)
        Variance of the flux; zero if the input has no uncertainty, infinite for unusable pixels.
    good : ndarray of bool, shape (m,)
        Usable pixels.
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
    """Rebin one spectrum, conserving flux; a spectrum already on such a grid is returned unchanged.

    Parameters
    ----------
    arrays : SpectrumArrays
        The stack of spectra.
    row : int
        Index of the spectrum in the stack.

    Returns
    -------
    LogSpectrum
        Variances are scaled to preserve the signal-to-noise ratio when pixels are split or merged;
        correlations between neighbouring pixels are neglected.

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
    native = arrays.edges

    def rebinned(values: np.ndarray) -> np.ndarray:
        cumulative = np.concatenate([[0.0], np.cumsum(values * np.diff(native))])
        return np.diff(np.interp(edges, native, cumulative)) / np.diff(edges)

    usable = rebinned(good.astype(float)) > 0.5
    finite = np.where(good, variance, 0.0)
    native_width = np.interp(10**centres, arrays.wavelength, np.diff(native))
    spread = rebinned(finite) * native_width / np.diff(edges)
    return LogSpectrum(float(first), rebinned(flux), np.where(usable, spread, np.inf), usable)
