"""Conversion of a `specutils.Spectrum` to plain arrays.

All measurements use `SpectrumArrays`: vacuum wavelengths in Angstrom, flux density per unit wavelength, a variance that
is infinite for unusable pixels, and one redshift for each spectrum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import astropy.units as u
import numpy as np
from astropy.nddata import InverseVariance, StdDevUncertainty, VarianceUncertainty
from specutils import Spectrum

__all__ = [
    "LIGHT_SPEED",
    "Medium",
    "SpectrumArrays",
    "air_to_vacuum",
    "instrument_dispersion",
    "spectrum_arrays",
]

#: Speed of light (km/s).
LIGHT_SPEED = 299792.458
Medium = Literal["vacuum", "air"]
_FLAMBDA = u.Unit("1e-17 erg / (s cm2 Angstrom)")
_FWHM = float(2 * np.sqrt(2 * np.log(2)))


@dataclass(frozen=True)
class SpectrumArrays:
    """Spectra as plain arrays.

    Attributes
    ----------
    wavelength : ndarray, shape (m,)
        Observed frame, vacuum, Angstrom, increasing.
    flux : ndarray, shape (n, m)
        Flux density per unit wavelength; unusable pixels are filled by linear interpolation.
    variance : ndarray, shape (n, m)
        Variance of the flux; zero if the input has no uncertainty, infinite for unusable pixels.
    good : ndarray of bool, shape (n, m)
        Usable pixels.
    redshift : ndarray, shape (n,)
        Redshift of each spectrum.
    unit : `~astropy.units.Unit`
        Unit of the flux.
    noisy : bool
        Whether the input has an uncertainty.
    single : bool
        Whether the input was a single spectrum instead of a stack.
    """

    wavelength: np.ndarray
    flux: np.ndarray
    variance: np.ndarray
    good: np.ndarray
    redshift: np.ndarray
    unit: u.UnitBase
    noisy: bool
    single: bool

    def __len__(self) -> int:
        return len(self.flux)

    @property
    def edges(self) -> np.ndarray:
        """Edges of the pixels (Angstrom), midway between their centres, shape (m + 1,)."""
        middle = 0.5 * (self.wavelength[1:] + self.wavelength[:-1])
        ends = 2 * self.wavelength[[0, -1]] - middle[[0, -1]]
        return np.concatenate([ends[:1], middle, ends[1:]])


def air_to_vacuum(wavelength: np.ndarray) -> np.ndarray:
    """Convert wavelengths in standard air to vacuum.

    Parameters
    ----------
    wavelength : ndarray
        Air wavelengths (Angstrom).

    Returns
    -------
    ndarray
        Vacuum wavelengths (Angstrom), with the refractive index of Ciddor (1996, Applied Optics 35, 1566), equation 1.
    """
    s2 = (1e4 / np.asarray(wavelength, dtype=float)) ** 2
    return wavelength * (1 + 5.792105e-2 / (238.0185 - s2) + 1.67917e-3 / (57.362 - s2))


def instrument_dispersion(resolution: float) -> float:
    """Return the dispersion of the line-spread function of a spectrograph.

    Parameters
    ----------
    resolution : float
        Resolving power, wavelength over FWHM.

    Returns
    -------
    float
        Gaussian dispersion (km/s).

    Raises
    ------
    ValueError
        If the resolving power is not a positive number.
    """
    value = np.asarray(resolution)
    if value.ndim or value.dtype.kind not in "iuf" or not np.isfinite(value) or value <= 0:
        raise ValueError(
            f"resolution is {resolution!r}; give the resolving power as a positive number, such as 1850."
        )
    return LIGHT_SPEED / _FWHM / float(resolution)


def spectrum_arrays(
    spectrum: Spectrum, *, redshift: float | np.ndarray | None = None, medium: Medium = "vacuum"
) -> SpectrumArrays:
    """Convert a spectrum, or a stack of spectra on one wavelength grid, to plain arrays.

    Parameters
    ----------
    spectrum : `~specutils.Spectrum`
        Flux of shape (m,) or (n, m), observed frame; any spectral unit that converts to a wavelength, any flux unit.
        A flux density per unit frequency is converted to one per unit wavelength; values in a unit that is not a flux
        density are used unchanged.
    redshift : float or array_like, shape (n,), optional
        Redshift; that of the spectrum by default.
    medium : {"vacuum", "air"}
        Medium of the wavelengths.

    Returns
    -------
    SpectrumArrays

    Raises
    ------
    TypeError
        If spectrum is not a `~specutils.Spectrum`.
    ValueError
        If the shape, redshift or medium is invalid, or no pixel is usable.
    astropy.units.UnitConversionError
        If the spectral axis cannot be converted to a wavelength.
    """
    if not isinstance(spectrum, Spectrum):
        raise TypeError(
            f"spectrum is {type(spectrum).__name__}; give one specutils.Spectrum, not a list or collection."
        )
    if spectrum.flux.ndim not in (1, 2):
        raise ValueError(
            f"the flux of the spectrum has shape {spectrum.flux.shape}; give shape (m,), or (n, m) for a stack."
        )
    wavelength = _wavelength(spectrum, medium)
    flux, unit, factor = _flux_density(spectrum, wavelength)
    variance, noisy = _variance(spectrum, factor)
    good = np.isfinite(flux) & np.isfinite(variance)
    if spectrum.mask is not None:
        good &= ~np.broadcast_to(np.asarray(spectrum.mask, dtype=bool), spectrum.flux.shape)
    order = np.argsort(wavelength)
    flux, variance, good = (np.atleast_2d(a)[:, order] for a in (flux, variance, good))
    if not good.any():
        raise ValueError(
            "the spectrum has no usable pixel: all are masked, not finite or without a valid uncertainty; check the mask "
            "and the uncertainty."
        )
    return SpectrumArrays(
        wavelength=wavelength[order],
        flux=_filled(flux, good),
        variance=np.where(good, variance, np.inf),
        good=good,
        redshift=_redshift(spectrum, redshift, len(flux)),
        unit=unit,
        noisy=noisy,
        single=spectrum.flux.ndim == 1,
    )


def _wavelength(spectrum: Spectrum, medium: str) -> np.ndarray:
    if medium not in ("vacuum", "air"):
        raise ValueError(f"medium is {medium!r}; give 'vacuum' or 'air'.")
    axis = u.Quantity(spectrum.spectral_axis.value, spectrum.spectral_axis.unit)
    try:
        wavelength = axis.to_value(u.AA, u.spectral())
    except u.UnitConversionError as error:
        raise u.UnitConversionError(
            f"the spectral axis is in {axis.unit}; give a wavelength, frequency or energy, such as Angstrom."
        ) from error
    return air_to_vacuum(wavelength) if medium == "air" else wavelength.astype(float)


def _flux_density(
    spectrum: Spectrum, wavelength: np.ndarray
) -> tuple[np.ndarray, u.UnitBase, np.ndarray]:
    """Return the flux per unit wavelength, its unit, and the conversion factor, which also applies to the uncertainty."""
    flux, unit = spectrum.flux, spectrum.flux.unit
    values = np.array(flux.value, dtype=float)
    if unit.is_equivalent(_FLAMBDA) or not unit.is_equivalent(u.Jy):
        return values, unit, np.ones_like(wavelength)
    factor = (1 * unit).to_value(_FLAMBDA, u.spectral_density(wavelength * u.AA))
    return values * factor, _FLAMBDA, factor


def _variance(spectrum: Spectrum, factor: np.ndarray) -> tuple[np.ndarray, bool]:
    """Return the variance in the unit of the flux and whether there is one; NaN where invalid, zeros if absent."""
    uncertainty, unit = spectrum.uncertainty, spectrum.flux.unit
    if uncertainty is None:
        return np.zeros(spectrum.flux.shape), False
    powers = {StdDevUncertainty: 1, VarianceUncertainty: 2, InverseVariance: -2}
    power = next((p for cls, p in powers.items() if isinstance(uncertainty, cls)), None)
    if power is None:
        raise TypeError(
            f"the uncertainty of the spectrum is {type(uncertainty).__name__}; give a StdDevUncertainty, "
            "VarianceUncertainty or InverseVariance."
        )
    values = np.array(uncertainty.array, dtype=float)
    if uncertainty.unit is not None:
        values = values * float((1 * uncertainty.unit).to_value(unit**power))
    values = np.where(values > 0, values, np.nan)
    variance = {1: values**2, 2: values, -2: 1 / values}[power]
    return variance * factor**2, True


def _redshift(spectrum: Spectrum, redshift: float | np.ndarray | None, n: int) -> np.ndarray:
    given = spectrum.redshift if redshift is None else redshift
    values = np.asarray(u.Quantity(given, u.dimensionless_unscaled).value, dtype=float)
    if values.ndim > 1 or values.size not in (1, n):
        raise ValueError(
            f"redshift has shape {values.shape}; give one number, or one for each of the {n} spectra."
        )
    if not np.all(values > -1):
        raise ValueError(f"redshift is {given}; give finite numbers above -1.")
    return np.broadcast_to(values.reshape(-1), (n,)).copy()


def _filled(flux: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Interpolate over unusable pixels."""
    filled = np.where(good, flux, 0.0)
    pixel = np.arange(flux.shape[1])
    for row in np.flatnonzero(good.any(axis=1) & ~good.all(axis=1)):
        filled[row] = np.interp(pixel, pixel[good[row]], flux[row, good[row]])
    return filled
