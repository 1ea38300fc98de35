r"""Redshift and smooth spectra on a logarithmic wavelength grid.

On such a grid a redshift is a shift by a constant number of pixels, and a constant resolving power
is a convolution with one kernel.  Both act on :math:`\lambda f_\lambda`, the flux per logarithmic
wavelength, with kernels of unit sum, so that line fluxes are preserved.
"""

from __future__ import annotations

import numpy as np
from scipy.signal import oaconvolve
from scipy.special import ive

__all__ = [
    "FULL_WIDTH",
    "at_median_redshift",
    "log_step",
    "rest_grid",
    "shifted_to_rest",
    "smoothed",
    "trusted_at_rest",
]

#: Full width at half maximum of a Gaussian in units of its standard deviation.
FULL_WIDTH = 2 * np.sqrt(2 * np.log(2))
#: Half-width in pixels of the kernel that interpolates between pixels.
_HALF_WIDTH = 6


def log_step(wavelength: np.ndarray, operation: str) -> float:
    """Return the spacing of a logarithmic grid, in natural logarithms.

    Parameters
    ----------
    wavelength : ndarray, shape (n_wavelength,)
        Wavelengths of the pixels.
    operation : str
        Operation that needs such a grid, for the error message.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If the spacing changes by more than 1% along the grid.
    """
    steps = np.diff(np.log(wavelength))
    if np.ptp(steps) > 0.01 * steps.mean():
        raise ValueError(
            f"{operation} needs a wavelength grid that is equally spaced in its logarithm; "
            "resample the flux to such a grid first."
        )
    return float(steps.mean())


def rest_grid(
    wavelength: np.ndarray, redshift: np.ndarray, step: float
) -> tuple[np.ndarray, float]:
    """Return the grid that covers all spectra in their rest frames.

    Parameters
    ----------
    wavelength : ndarray, shape (n_wavelength,)
        Observed wavelengths of the pixels.
    redshift : ndarray
        Redshifts of the spectra; NaN are ignored.
    step : float
        Natural-logarithmic spacing of the grid.

    Returns
    -------
    grid : ndarray, shape (n_rest,)
        Rest wavelengths: the grid of ``wavelength``, extended on both sides.
    first : float
        Index of the first pixel on the grid of ``wavelength``.
    """
    shifts = np.log1p(redshift[np.isfinite(redshift)]) / step
    if not len(shifts):
        return wavelength, 0
    # Rounding errors must not add a pixel where a shift is an integer.
    first = int(np.ceil(-shifts.max() - 1e-6))
    last = int(np.floor(len(wavelength) - 1 - shifts.min() + 1e-6))
    if first == 0 and last == len(wavelength) - 1:
        return wavelength, 0
    return wavelength[0] * np.exp(step * np.arange(first, last + 1)), first


def shifted_to_rest(
    flux: np.ndarray, wavelength: np.ndarray, redshift: np.ndarray, step: float
) -> tuple[np.ndarray, np.ndarray]:
    """Shift every spectrum to its rest frame, on one common grid.

    Parameters
    ----------
    flux : ndarray of float32, shape (n_galaxies, n_draws, n_wavelength)
        Flux per Angstrom.
    wavelength : ndarray, shape (n_wavelength,)
        Observed wavelengths of the pixels.
    redshift : ndarray, shape (n_galaxies, n_draws)
        Redshifts of the draws.
    step : float
        Natural-logarithmic spacing of the grid.

    Returns
    -------
    flux : ndarray of float32, shape (n_galaxies, n_draws, n_rest)
        Flux multiplied by 1 + z, which preserves line fluxes; NaN outside the range of a spectrum.
    grid : ndarray, shape (n_rest,)
        Rest wavelengths of the pixels.

    Notes
    -----
    Shifts by a fraction of a pixel interpolate with polynomials through 12 pixels (Laakso et al.
    1996, IEEE Signal Processing Magazine 13, 30), which preserve flux, centre and width of resolved
    lines. Beyond the ends the last value is repeated.
    """
    grid, first = rest_grid(wavelength, redshift, step)
    result = np.full((*flux.shape[:2], len(grid)), np.nan, dtype=np.float32)
    for galaxy, draw in np.argwhere(np.isfinite(redshift)):
        spectrum = flux[galaxy, draw] * wavelength
        shift = np.log1p(redshift[galaxy, draw]) / step
        result[galaxy, draw] = _shifted(spectrum, first + shift, len(grid)) / grid
    return result, grid


def at_median_redshift(
    draws: np.ndarray, redshift: np.ndarray, wavelength: np.ndarray
) -> np.ndarray:
    """Shift all draws of a galaxy to their median redshift, to compare them.

    Parameters
    ----------
    draws : ndarray, shape (n_draws, n_wavelength)
        Spectra.
    redshift : ndarray, shape (n_draws,)
        Redshifts of the draws.
    wavelength : ndarray, shape (n_wavelength,)
        Observed wavelengths of the pixels.

    Returns
    -------
    ndarray, shape (n_draws, n_wavelength)
        Linearly interpolated spectra, NaN outside the range of a draw; the unchanged draws if all
        have one redshift.
    """
    known = redshift[np.isfinite(redshift)]
    if not len(known) or np.ptp(known) == 0:
        return draws
    middle = np.median(known)
    return np.stack(
        [
            np.interp(wavelength * (1 + z) / (1 + middle), wavelength, flux, np.nan, np.nan)
            for z, flux in zip(redshift, draws, strict=True)
        ]
    )


def trusted_at_rest(
    trusted: np.ndarray, redshift: np.ndarray, wavelength: np.ndarray, grid: np.ndarray
) -> np.ndarray:
    """Return the rest-frame pixels that are trusted in every draw that covers them.

    Parameters
    ----------
    trusted : ndarray of bool, shape (n_galaxies, n_wavelength)
        Trusted pixels in the observed frame.
    redshift : ndarray, shape (n_galaxies, n_draws)
        Redshifts of the draws.
    wavelength : ndarray, shape (n_wavelength,)
        Observed wavelengths of the pixels.
    grid : ndarray, shape (n_rest,)
        Rest wavelengths of the pixels.

    Returns
    -------
    ndarray of bool, shape (n_galaxies, n_rest)
    """
    step = log_step(wavelength, "rest_frame")
    # Positions of integer shifts are integers within rounding errors, hence the margins of 1e-6.
    position = np.log(grid / wavelength[0]) / step
    result = np.zeros((len(trusted), len(grid)), dtype=bool)
    for number, (good, shifts) in enumerate(zip(trusted, np.log1p(redshift) / step, strict=True)):
        refused, reached = np.zeros((2, len(grid)), dtype=bool)
        for shift in shifts[np.isfinite(shifts)]:
            lower = np.floor(position + shift + 1e-6).astype(int)
            upper = np.ceil(position + shift - 1e-6).astype(int)
            inside = (lower >= 0) & (upper < len(wavelength))
            both = good[lower[inside]] & good[upper[inside]]
            refused[inside] |= ~both
            reached |= inside
        result[number] = reached & ~refused
    return result


def smoothed(
    flux: np.ndarray, wavelength: np.ndarray, step: float, current: float, wanted: float
) -> np.ndarray:
    """Lower the resolving power of spectra.

    Parameters
    ----------
    flux : ndarray of float32, shape (n_galaxies, n_draws, n_wavelength)
        Flux per Angstrom.
    wavelength : ndarray, shape (n_wavelength,)
        Wavelengths of the pixels.
    step : float
        Natural-logarithmic spacing of the grid.
    current, wanted : float
        Resolving power before and after: wavelength over the full width at half maximum of a line.

    Returns
    -------
    ndarray of float32, of the shape of ``flux``
        NaN where ``flux`` is NaN.

    Notes
    -----
    The kernel is the discrete analogue of the Gaussian (Lindeberg 1990, IEEE PAMI 12, 234), whose
    variance is exact even if it is narrower than a pixel.  Missing pixels, beyond the ends or NaN,
    have no weight.
    """
    variance = (wanted**-2 - current**-2) / (FULL_WIDTH * step) ** 2
    if variance <= 0:
        return flux.copy()
    reach = int(np.ceil(5 * np.sqrt(variance) + 3))
    kernel = ive(np.abs(np.arange(-reach, reach + 1)), variance)[None].astype(np.float32)
    kernel /= kernel.sum()
    full = oaconvolve(np.ones((1, len(wavelength)), np.float32), kernel, mode="same", axes=1)
    result = np.empty_like(flux)
    for number, draws in enumerate(flux):
        present = np.isfinite(draws)
        values = np.where(present, draws, 0) * wavelength.astype(np.float32)
        weight = full
        if not present.all():
            weight = oaconvolve(present.astype(np.float32), kernel, mode="same", axes=1)
        values = oaconvolve(values, kernel, mode="same", axes=1) / np.maximum(weight, 1e-6)
        result[number] = np.where(present, values / wavelength, np.nan)
    return result


def _shifted(spectrum: np.ndarray, position: float, n_pixels: int) -> np.ndarray:
    """Evaluate a spectrum at ``position``, ``position`` + 1, ...; NaN beyond its ends."""
    whole = int(np.floor(position + 1e-6))
    part = max(position - whole, 0.0)
    present = np.flatnonzero(np.isfinite(spectrum))
    result = np.full(n_pixels, np.nan)
    if not len(present):
        return result
    if part < 1e-6:
        shifted = spectrum
    else:
        start, stop = present[0], present[-1] + 1
        padded = np.pad(spectrum[start:stop], _HALF_WIDTH, mode="edge")
        shifted = np.full(len(spectrum), np.nan)
        inner = np.convolve(padded, _lagrange(part)[::-1], mode="valid")
        # The last pixel has no right neighbour.
        shifted[start : stop - 1] = inner[1:-1]
    low, high = max(whole, 0), min(whole + n_pixels, len(shifted))
    if high > low:
        result[low - whole : high - whole] = shifted[low:high]
    return result


def _lagrange(part: float) -> np.ndarray:
    """Return the weights of 12 pixels for interpolation between the sixth and the seventh."""
    pixels = np.arange(1 - _HALF_WIDTH, _HALF_WIDTH + 1)
    ratios = (part - pixels) / (pixels[:, None] - pixels + np.eye(len(pixels)))
    np.fill_diagonal(ratios, 1.0)
    return ratios.prod(axis=1)
