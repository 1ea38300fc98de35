r"""Redshift by cross-correlation with templates.

Spectrum and templates are taken to a grid in log wavelength, freed of their continua with a smoothing filter, and
correlated in Fourier space with the inverse variances of the spectrum as weights, so that at each shift the peak is the
drop of chi square which the best multiple of the template brings (Tonry & Davis 1979, AJ 84, 1511, with weights).  Of
the highest peaks of all templates, those that differ are tried again with all templates together, which gives the
redshift and, from the curvature of chi square, its error.  R is the height of the correlation peak of the best single
template over root two times the rms of the antisymmetric part of its correlation function (Tonry & Davis, equation 23).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from astropy.table import QTable
from scipy.linalg import cho_factor, cho_solve
from scipy.ndimage import gaussian_filter1d, uniform_filter1d
from specutils import Spectrum

from .definitions import definition_table
from .inputs import LIGHT_SPEED, Medium, spectrum_arrays
from .log_grid import PIXEL_VELOCITY, STEP, LogSpectrum, log_spectrum
from .templates import stellar_templates, templates_available

__all__ = ["cross_correlation_redshift", "measure_redshift"]

_START, _SIZE = 3.34, 7250
_FFT = 16384
_SMOOTHING = 150.0
_MISMATCH = 0.01
_CANDIDATES = 6
_APART = 15
_REFINE = 12
_BROADENING = 100.0
_GOOD_R = 4.0
_OVERLAP = 500
_EMISSION = ("star_forming", "metal_poor", "nucleus")
#: Ages (log yr) and metallicities (log solar) of the stellar templates, to the nearest of the grid.
_STARS = {
    "old": (10.0, 0.0),
    "intermediate": (9.13, 0.0),
    "a_stars": (8.57, 0.0),
    "young": (7.2, -0.4),
}


@dataclass(frozen=True)
class _Templates:
    """Continuum-free templates on the rest-frame grid, shape (k, 7250), and their names."""

    names: tuple[str, ...]
    flux: np.ndarray


def measure_redshift(
    spectrum: Spectrum,
    *,
    redshift_range: tuple[float, float] = (0.0, 0.6),
    medium: Medium = "vacuum",
) -> QTable:
    """Measure redshifts by cross-correlation with templates of stars and emission lines.

    Parameters
    ----------
    spectrum : `~specutils.Spectrum`
        One spectrum, or a stack with flux of shape (n, m); observed frame. Its own redshift is not looked at.
    redshift_range : (float, float)
        Lowest and highest redshift to try.
    medium : {"vacuum", "air"}
        What the wavelengths of the spectrum are measured in.

    Returns
    -------
    `~astropy.table.QTable`
        A row for each spectrum: ``redshift``, ``redshift_err``, ``r`` (of Tonry & Davis), ``template`` (the best
        single one), ``delta_chi2`` (by how much the next best redshift, beyond 1000 km/s, is worse) and ``flag``, an
        empty string if nothing is wrong.

    Raises
    ------
    TypeError
        If spectrum is not a `~specutils.Spectrum`.
    ValueError
        If the range or the spectrum makes no sense.

    Notes
    -----
    Stellar templates come from the simulator's grid, where the extra ``simulate`` is installed; otherwise a list of
    absorption lines stands for them.  The error does not contain what is wrong with the templates (some km/s), and
    without an uncertainty of the spectrum rests on the residuals.
    """
    low, high = _checked_range(redshift_range)
    arrays = spectrum_arrays(spectrum, medium=medium)
    templates = _templates()
    rows = [
        _measured(log_spectrum(arrays, row), templates, low, high) for row in range(len(arrays))
    ]
    names = ("redshift", "redshift_err", "r", "template", "delta_chi2", "flag")
    return QTable(rows=rows, names=names)


def cross_correlation_redshift(spectrum: Spectrum) -> float:
    """Measure the redshift of one spectrum, for `SpectrumDraws.measure`.

    Parameters
    ----------
    spectrum : `~specutils.Spectrum`
        Flux of shape (m,), observed frame.

    Returns
    -------
    float
        See `measure_redshift`.
    """
    return float(measure_redshift(spectrum)["redshift"][0])


def _checked_range(redshift_range: tuple[float, float]) -> tuple[float, float]:
    values = np.asarray(redshift_range, dtype=float)
    if values.shape != (2,) or not (-0.5 < values[0] < values[1] < 5):
        raise ValueError(
            f"redshift_range is {redshift_range!r}; give the lowest and the highest redshift to try, such as (0, 0.6)."
        )
    return float(values[0]), float(values[1])


def _measured(spectrum: LogSpectrum, templates: _Templates, low: float, high: float) -> tuple:
    data, weight = _prepared(spectrum)
    if np.count_nonzero(weight) < _OVERLAP:
        return np.nan, np.nan, np.nan, "", np.nan, "too few pixels"
    offset = (spectrum.start - _START) / STEP
    shifts = np.arange(int(np.ceil(np.log10(1 + low) / STEP)), int(np.log10(1 + high) / STEP) + 1)
    correlation, drop = _correlated(data, weight, templates.flux, offset, shifts)
    candidates = _peaks(drop.max(axis=0))
    fits = [_joint(data, weight, templates.flux, offset, shifts[k]) for k in candidates]
    order = np.argsort([-fit[1] for fit in fits])
    best = fits[order[0]]
    shift, gain, curvature = best
    residual = np.sum(weight * data**2) - gain
    scale = residual / max(np.count_nonzero(weight) - len(templates.flux), 1)
    if spectrum.variance[np.isfinite(spectrum.variance)].any():
        scale = max(scale, 1.0)
    error = np.sqrt(2 * scale / curvature) if curvature > 0 else np.nan
    redshift = 10 ** (shift * STEP) - 1
    nearest = int(np.argmin(np.abs(shifts - shift)))
    strongest = int(np.argmax(drop[:, nearest]))
    r = _tonry_davis(correlation[strongest], nearest)
    apart = [fits[k][1] for k in order[1:] if abs(fits[k][0] - shift) > 1000 / PIXEL_VELOCITY]
    margin = (gain - max(apart)) / scale if apart else gain / scale
    flags = ["R below 4"] if r < _GOOD_R else []
    flags += ["another redshift fits nearly as well"] if margin < 15 else []
    flags += ["at the end of the range"] if nearest in (0, len(shifts) - 1) else []
    error_z = (1 + redshift) * np.log(10) * STEP * error
    return redshift, error_z, r, templates.names[strongest], margin, "; ".join(flags)


def _prepared(spectrum: LogSpectrum) -> tuple[np.ndarray, np.ndarray]:
    """Flux freed of its continuum, and inverse variance."""
    continuum = np.abs(uniform_filter1d(spectrum.flux, 101))
    variance = spectrum.variance + (_MISMATCH * continuum) ** 2
    weight = np.where(spectrum.good & (variance > 0), 1 / np.where(variance > 0, variance, 1), 0.0)
    # What lies at the ends, where the filter has no neighbours, or hardly any signal, is left out.
    weight[:10] = weight[-10:] = 0.0
    return spectrum.flux - gaussian_filter1d(spectrum.flux, _SMOOTHING), weight


def _correlated(
    data: np.ndarray, weight: np.ndarray, templates: np.ndarray, offset: float, shifts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Correlation coefficient and drop of chi square for each template and shift, shape (k, n_shifts)."""
    transforms = np.fft.rfft([weight * data, weight], n=_FFT)
    of_templates = np.fft.rfft([templates, templates**2], n=_FFT)
    cross = np.fft.irfft(transforms[0] * of_templates[0].conj(), n=_FFT)
    power = np.fft.irfft(transforms[1] * of_templates[1].conj(), n=_FFT)
    lags = (shifts - round(offset)) % _FFT
    cross, power = cross[:, lags], power[:, lags]
    usable = power > 1e-3 * power.max(axis=1, keepdims=True)
    total = np.sum(weight * data**2)
    normalised = np.where(usable, cross / np.sqrt(np.where(usable, power, 1.0) * total), 0.0)
    return normalised, total * np.maximum(normalised, 0) ** 2


def _peaks(height: np.ndarray) -> list[int]:
    """Highest points that are not near one another."""
    chosen: list[int] = []
    remaining = height.copy()
    while len(chosen) < _CANDIDATES and remaining.max() > 0:
        k = int(np.argmax(remaining))
        chosen.append(k)
        remaining[max(k - _APART, 0) : k + _APART + 1] = 0
    return chosen or [int(np.argmax(height))]


def _joint(
    data: np.ndarray, weight: np.ndarray, templates: np.ndarray, offset: float, shift: int
) -> tuple[float, float, float]:
    """Best shift near a given one with all templates, drop of chi square there, and curvature of chi square."""
    trials = np.arange(-_REFINE, _REFINE + 1)
    gains = np.array([_gain(data, weight, templates, offset - shift - dx) for dx in trials])
    k = int(np.clip(np.argmax(gains), 1, len(trials) - 2))
    step = 0.5
    fine = trials[k] + step * np.arange(-2, 3)
    values = np.array([_gain(data, weight, templates, offset - shift - dx) for dx in fine])
    a, b, c = np.polyfit(fine - trials[k], values, 2)
    if a >= 0:
        return float(shift + trials[k]), float(gains[k]), 0.0
    peak = float(np.clip(-b / (2 * a), -1, 1))
    return float(shift + trials[k] + peak), float(c + b * peak + a * peak**2), float(-2 * a)


def _gain(data: np.ndarray, weight: np.ndarray, templates: np.ndarray, position: float) -> float:
    """Drop of chi square by all templates, the first pixel of the data being at a position in the templates."""
    whole = int(np.floor(position))
    part = position - whole
    first, last = max(-whole, 0), min(len(data), templates.shape[1] - 1 - whole)
    if last - first < _OVERLAP:
        return 0.0
    cut = templates[:, first + whole : last + whole + 1]
    model = (1 - part) * cut[:, :-1] + part * cut[:, 1:]
    used = weight[first:last]
    weighted = model * used
    normal = weighted @ model.T
    scale = np.sqrt(np.maximum(np.diag(normal), 1e-300))
    vector = weighted @ data[first:last] / scale
    normal = normal / scale / scale[:, None] + 1e-6 * np.eye(len(scale))
    return float(vector @ cho_solve(cho_factor(normal), vector))


def _tonry_davis(correlation: np.ndarray, peak: int) -> float:
    """R: height over root two times the rms of the antisymmetric part about the peak."""
    reach = min(max(peak, len(correlation) - 1 - peak), 2000)
    lags = np.arange(1, reach + 1)
    padded = np.pad(correlation, reach)
    centre = peak + reach
    odd = padded[centre + lags] - padded[centre - lags]
    inside = (peak + lags < len(correlation)) & (peak - lags >= 0)
    odd = odd[inside] if inside.sum() > 50 else odd
    rms = np.sqrt(np.mean(odd**2) / 2)
    return float(correlation[peak] / (np.sqrt(2) * rms)) if rms > 0 else np.inf


@cache
def _templates() -> _Templates:
    wavelength = 10 ** (_START + STEP * np.arange(_SIZE))
    names, spectra = [], []
    if templates_available():
        stars = stellar_templates()
        observed = stars.observed(_START, _SIZE, 0.0, _BROADENING)
        for name, (age, metallicity) in _STARS.items():
            k = np.nanargmin(np.abs(stars.log_age - age) + np.abs(stars.metallicity - metallicity))
            names.append(name)
            spectra.append(np.nan_to_num(observed[k]))
    else:
        absorption = definition_table("redshift_absorption")
        lines = absorption["wavelength"].value, absorption["equivalent_width"].value
        names.append("absorption_lines")
        spectra.append(-_gaussians(wavelength, *lines, 250.0))
    emission = definition_table("redshift_emission")
    for name in _EMISSION:
        names.append(name)
        fluxes = np.asarray(emission[name])
        spectra.append(_gaussians(wavelength, emission["wavelength"].value, fluxes, 120.0))
    flux = np.array(spectra)
    flux -= gaussian_filter1d(flux, _SMOOTHING, axis=1)
    return _Templates(tuple(names), flux / np.sqrt(np.mean(flux**2, axis=1, keepdims=True)))


def _gaussians(
    wavelength: np.ndarray, centres: np.ndarray, fluxes: np.ndarray, velocity: float
) -> np.ndarray:
    width = centres * velocity / LIGHT_SPEED
    x = (wavelength[:, None] - centres) / width
    return np.exp(-0.5 * x**2) @ (fluxes / width / np.sqrt(2 * np.pi))
