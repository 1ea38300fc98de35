"""Conversion of a `specutils.Spectrum` to plain arrays.

All measurements use `SpectrumArrays`: vacuum wavelengths in Angstrom, flux density per unit
wavelength, a variance that is infinite for unusable pixels, and one redshift for each spectrum.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import astropy.units as u
import numpy as np
from astropy.nddata import InverseVariance, StdDevUncertainty, VarianceUncertainty
from specutils import Spectrum

from ..flags import Flag, FlagLog
from ..quantities import plain_values
from ..results.spectrum_header import register_reader, stored_redshift
from ..synthetic import missing_zeros
from .bad_pixels import gap_pixels, interpolated, spikes
from .flux_units import flux_conversion

__all__ = [
    "LIGHT_SPEED",
    "NO_REDSHIFT",
    "Medium",
    "SpectrumArrays",
    "air_to_vacuum",
    "flag_missing_redshifts",
    "instrument_dispersion",
    "spectrum_arrays",
]

#: Speed of light (km/s).
LIGHT_SPEED = 299792.458
#: Reason for the flag of spectra without redshift.
NO_REDSHIFT = "no redshift"
Medium = Literal["vacuum", "air"]
#: Air wavelengths are defined above this (Angstrom).
_MIN_AIR = 2000.0
#: Range of the typical flux without rescaling; pixels above the maximum are unusable.
_MIN_FLUX, _MAX_FLUX = 1e-60, 1e60
#: Twice the number of pixels in that range that make rescaling unnecessary.
_MIN_USUAL = 10
#: Keywords of headers that name the medium.
_MEDIUM_KEYS = ("AIRORVAC", "AIRVAC", "AIR_VAC", "VACAIR", "WAVEMED", "MEDIUM")
_FWHM = float(2 * np.sqrt(2 * np.log(2)))

register_reader()


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
        Usable pixels.  Pixels cut out of the wavelengths are inserted as unusable.
    redshift : ndarray, shape (n,)
        Redshift of each spectrum; NaN if it is missing.
    unit : `~astropy.units.Unit`
        Unit of the flux.
    noisy : bool
        Whether the input has an uncertainty.
    single : bool
        Whether the input was a single spectrum instead of a stack.
    scale : ndarray, shape (n,)
        Number by which flux was divided; 1 except for extreme values, whose squares would not be
        finite.
    """

    wavelength: np.ndarray
    flux: np.ndarray
    variance: np.ndarray
    good: np.ndarray
    redshift: np.ndarray
    unit: u.UnitBase
    noisy: bool
    single: bool
    scale: np.ndarray

    def __len__(self) -> int:
        return len(self.flux)

    @property
    def edges(self) -> np.ndarray:
        """Edges of the pixels (Angstrom), midway between their centres, shape (m + 1,).

        A single pixel has no width.
        """
        if len(self.wavelength) == 1:
            return self.wavelength[[0, 0]]
        middle = 0.5 * (self.wavelength[1:] + self.wavelength[:-1])
        ends = 2 * self.wavelength[[0, -1]] - middle[[0, -1]]
        return np.concatenate([ends[:1], middle, ends[1:]])

    def spikes(self) -> np.ndarray:
        """Find pixels that no spectrum of this resolution can have (`bad_pixels.spikes`).

        Returns
        -------
        ndarray of bool, shape (n, m)
        """
        rows = zip(self.flux, self.variance, self.good, strict=True)
        return np.array([spikes(*row) for row in rows], dtype=bool).reshape(self.good.shape)

    def without(self, bad: np.ndarray) -> SpectrumArrays:
        """Return the spectra with further unusable pixels.

        Parameters
        ----------
        bad : ndarray of bool, shape (n, m)
            Pixels to exclude.

        Returns
        -------
        SpectrumArrays
        """
        if not bad.any():
            return self
        good = self.good & ~bad
        return replace(
            self,
            flux=interpolated(self.flux, good),
            variance=np.where(good, self.variance, np.inf),
            good=good,
        )


def air_to_vacuum(wavelength: np.ndarray) -> np.ndarray:
    """Convert wavelengths in standard air to vacuum.

    Parameters
    ----------
    wavelength : ndarray
        Air wavelengths (Angstrom).

    Returns
    -------
    ndarray
        Vacuum wavelengths (Angstrom), with the refractive index of Ciddor (1996, Applied Optics 35,
        1566), equation 1; unchanged below 2000 Angstrom, where wavelengths are given in vacuum.
    """
    wavelength = np.asarray(wavelength, dtype=float)
    s2 = (1e4 / np.maximum(wavelength, _MIN_AIR)) ** 2
    index = 1 + 5.792105e-2 / (238.0185 - s2) + 1.67917e-3 / (57.362 - s2)
    return wavelength * np.where(wavelength >= _MIN_AIR, index, 1.0)


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
            f"resolution is {resolution!r}; give the resolving power as a positive number, such "
            "as 1850."
        )
    return LIGHT_SPEED / _FWHM / float(resolution)


def spectrum_arrays(
    spectrum: Spectrum,
    *,
    redshift: float | np.ndarray | None = None,
    medium: Medium | None = None,
) -> SpectrumArrays:
    """Convert a spectrum, or a stack of spectra on one wavelength grid, to plain arrays.

    Parameters
    ----------
    spectrum : `~specutils.Spectrum`
        Flux of shape (m,) or (n, m), or (m, n) with ``spectral_axis_index=0``; observed frame; any
        spectral unit that converts to a wavelength.  Flux densities are converted to flux per unit
        wavelength (`flux_conversion`).
    redshift : float or array_like, shape (n,), optional
        Redshift; that of the spectrum by default.  NaN and masked entries are missing.
    medium : {"vacuum", "air"}, optional
        Medium of the wavelengths; by default that in the header of the spectrum, or vacuum.

    Returns
    -------
    SpectrumArrays

    Raises
    ------
    TypeError
        If spectrum is not a `~specutils.Spectrum`, or the redshift is not a number.
    ValueError
        If the shape, redshift or medium is invalid, or no pixel is usable.
    astropy.units.UnitConversionError
        If the spectral axis cannot be converted to a wavelength, or the flux is not a flux density.

    Notes
    -----
    Unusable are masked pixels, pixels whose flux, uncertainty or wavelength is not valid, runs of
    zeros beside pixels that are not zero, and gaps in the wavelengths, which are filled with
    unusable pixels.
    """
    if not isinstance(spectrum, Spectrum):
        raise TypeError(
            f"spectrum is {type(spectrum).__name__}; give one specutils.Spectrum, not a list or "
            "collection."
        )
    if spectrum.flux.ndim not in (1, 2):
        raise ValueError(
            f"the flux of the spectrum has shape {spectrum.flux.shape}; give shape (m,), or (n, "
            "m) for a stack."
        )
    wavelength = _wavelength(spectrum, medium)
    order = np.argsort(wavelength)
    order = order[np.isfinite(wavelength[order]) & (wavelength[order] > 0)]
    wavelength = wavelength[order]
    axis_unit = spectrum.spectral_axis.unit
    factor, unit = flux_conversion(spectrum.flux.unit, wavelength, axis_unit)
    with np.errstate(over="ignore", under="ignore"):
        flux = _rows(spectrum, spectrum.flux.value)[:, order] * factor
        error, noisy = _error(spectrum, wavelength, order, (factor, unit))
    good = np.isfinite(flux) & np.isfinite(error)
    if spectrum.mask is not None:
        masked = np.broadcast_to(np.asarray(spectrum.mask, dtype=bool), spectrum.flux.shape)
        good &= ~_rows(spectrum, masked)[:, order]
    for row in range(len(flux)):
        good[row] &= ~missing_zeros(flux[row])
    rows = zip(flux, error, good, strict=True)
    scale = np.array([_scale(values[inside], errors[inside]) for values, errors, inside in rows])
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        flux, error = flux / scale[:, None], error / scale[:, None]
        # Products of smaller numbers would not be finite.
        flux[np.abs(flux) < _MIN_FLUX] = 0.0
        good &= (np.abs(flux) < _MAX_FLUX) & (error < _MAX_FLUX)
    if not good.any():
        raise ValueError(
            "the spectrum has no usable pixel: all are masked, not finite or without a valid "
            "uncertainty; check the mask and the uncertainty."
        )
    wavelength, (flux, error, good) = _with_gaps(wavelength, flux, error, good)
    return SpectrumArrays(
        wavelength=wavelength,
        flux=interpolated(flux, good),
        variance=np.where(good, error, np.inf) ** 2,
        good=good,
        redshift=_redshift(spectrum, redshift, len(flux)),
        unit=unit,
        noisy=noisy,
        single=spectrum.flux.ndim == 1,
        scale=scale,
    )


def flag_missing_redshifts(arrays: SpectrumArrays, log: FlagLog) -> np.ndarray:
    """Flag the spectra without redshift and return a mask of the spectra that have one.

    Parameters
    ----------
    arrays : SpectrumArrays
        The stack of spectra.
    log : FlagLog
        Flags of the spectra.

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    known = np.isfinite(arrays.redshift)
    log.add(~known, Flag.NO_REDSHIFT, NO_REDSHIFT)
    return known


def _rows(spectrum: Spectrum, values: np.ndarray) -> np.ndarray:
    """Return an array of the shape of the flux with the spectral axis last, shape (n, m)."""
    values = np.asarray(values)
    return np.atleast_2d(np.moveaxis(values, spectrum.spectral_axis_index or 0, -1))


def _wavelength(spectrum: Spectrum, medium: str | None) -> np.ndarray:
    if medium not in ("vacuum", "air", None):
        raise ValueError(f"medium is {medium!r}; give 'vacuum' or 'air'.")
    axis = u.Quantity(spectrum.spectral_axis.value, spectrum.spectral_axis.unit)
    try:
        with np.errstate(divide="ignore"):
            wavelength = axis.to_value(u.AA, u.spectral()).astype(float)
    except u.UnitConversionError as error:
        raise u.UnitConversionError(
            f"the spectral axis is in {axis.unit}; give a wavelength, frequency or energy, such "
            "as Angstrom."
        ) from error
    in_air = _says_air(spectrum) if medium is None else medium == "air"
    return air_to_vacuum(wavelength) if in_air else wavelength


def _says_air(spectrum: Spectrum) -> bool:
    """Return whether the world coordinates or the header of a spectrum state air wavelengths."""
    header = spectrum.meta.get("header", {})
    entries = {
        str(key).upper(): value
        for source in (spectrum.meta, header if hasattr(header, "items") else {})
        for key, value in source.items()
    }
    for key in _MEDIUM_KEYS:
        value = str(entries.get(key, "")).strip().lower()
        if value.startswith(("air", "vac")):
            return value.startswith("air")
    if str(entries.get("VACUUM", "")).strip().lower() in ("false", "f", "0", "no"):
        return True
    coordinates = [spectrum.wcs, spectrum.meta.get("original_wcs")]
    types = [
        str(name) for wcs in coordinates for name in getattr(getattr(wcs, "wcs", None), "ctype", ())
    ]
    types += [str(value) for key, value in entries.items() if key.startswith("CTYPE")]
    return any(name.upper().startswith("AWAV") for name in types)


def _error(
    spectrum: Spectrum,
    wavelength: np.ndarray,
    order: np.ndarray,
    conversion: tuple[np.ndarray, u.UnitBase],
) -> tuple[np.ndarray, bool]:
    """Return the standard deviation of the converted flux and whether there is one.

    It is NaN where it is invalid, and zeros if it is absent.
    """
    uncertainty = spectrum.uncertainty
    if uncertainty is None:
        return np.zeros_like(_rows(spectrum, spectrum.flux.value)[:, order], dtype=float), False
    powers = {StdDevUncertainty: 1, VarianceUncertainty: 2, InverseVariance: -2}
    power = next((p for cls, p in powers.items() if isinstance(uncertainty, cls)), None)
    if power is None:
        raise TypeError(
            f"the uncertainty of the spectrum is {type(uncertainty).__name__}; give a "
            "StdDevUncertainty, VarianceUncertainty or InverseVariance."
        )
    factor, unit = conversion
    if uncertainty.unit is not None:
        factor, own = flux_conversion(
            uncertainty.unit ** (1 / power), wavelength, spectrum.spectral_axis.unit
        )
        factor = factor * own.to(unit)
    values = np.array(_rows(spectrum, uncertainty.array)[:, order], dtype=float)
    values = np.where(values > 0, values, np.nan)
    with np.errstate(divide="ignore", over="ignore"):
        return values ** (1 / power) * factor, True


def _redshift(spectrum: Spectrum, redshift: float | np.ndarray | None, n: int) -> np.ndarray:
    given = redshift
    if redshift is None:
        stored = stored_redshift(spectrum)
        given = spectrum.redshift if stored is None or spectrum.redshift != 0 else stored
    values = plain_values(given, u.dimensionless_unscaled, name="redshift").astype(float)
    if values.ndim > 1 or values.size not in (1, n):
        raise ValueError(
            f"redshift has shape {values.shape}; give one number, or one for each of the {n} "
            "spectra."
        )
    wrong = values[~np.isnan(values) & ~((values > -1) & np.isfinite(values))]
    if len(np.atleast_1d(wrong)):
        raise ValueError(
            f"redshift is {wrong.flat[0]}; give finite numbers above -1, or NaN where it is "
            "missing."
        )
    return np.broadcast_to(values.reshape(-1), (n,)).copy()


def _scale(flux: np.ndarray, error: np.ndarray) -> float:
    """Return the scale of spectra in which nearly all pixels are extreme, else 1.

    The scale is the median absolute flux, or the median error if that is larger.
    """
    flux = np.abs(flux[flux != 0])
    usual = (flux > _MIN_FLUX) & (flux < _MAX_FLUX)
    if 2 * np.count_nonzero(usual) >= min(len(flux), _MIN_USUAL):
        return 1.0
    value = max(float(np.median(flux)), float(np.median(error)))
    return 1.0 if _MIN_FLUX < value < _MAX_FLUX else value


def _with_gaps(wavelength: np.ndarray, *arrays: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Insert pixels into wavelength gaps; the arrays, shape (n, m), are zero or False there."""
    inserted = gap_pixels(wavelength)
    if not len(inserted):
        return wavelength, list(arrays)
    joined = np.concatenate([wavelength, inserted])
    order = np.argsort(joined, kind="stable")
    extended = [
        np.concatenate([values, np.zeros((len(values), len(inserted)), values.dtype)], axis=1)
        for values in arrays
    ]
    return joined[order], [values[:, order] for values in extended]
