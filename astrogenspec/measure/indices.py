r"""Spectral indices: Lick/IDS indices, higher-order Balmer indices, and the 4000 A break.

An atomic index is an equivalent width, :math:`\int (1 - F_I / F_C)\,d\lambda` (Angstrom, positive
for absorption); a molecular index is :math:`-2.5 \log_{10}\langle F_I / F_C\rangle` (mag).  The
pseudo-continuum :math:`F_C` is the straight line through the mean flux densities of the two side
bands at their centres (Worthey et al. 1994, equations 1-3; Trager et al. 1998).  D4000 and Dn4000
are the ratio of the mean :math:`F_\nu` of the red band to that of the blue band (Bruzual 1983;
Balogh et al. 1999).  Bands are defined in air and converted to vacuum; pixels partly inside a band
are weighted by the fraction inside.

Uncertainties are propagated to first order: the derivative of the index with respect to each pixel,
times the uncertainty of the pixel.  They include the side bands and overlaps of bands (equivalent
to first order to Cardiel et al. 1998, A&AS 127, 597).  Pixels are assumed to be uncorrelated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import QTable
from scipy.sparse import csr_array
from specutils import Spectrum

from ..flags import Flag, FlagLog
from .definitions import checked_names, index_definitions
from .inputs import (
    LIGHT_SPEED,
    Medium,
    SpectrumArrays,
    air_to_vacuum,
    flag_missing_redshifts,
    instrument_dispersion,
    spectrum_arrays,
)

__all__ = ["INDEX_NAMES", "IndexFunction", "index", "lick_fwhm", "measure_indices"]

#: Maximum masked fraction of a band.
_MAX_MASKED = 0.2
_FWHM = float(2 * np.sqrt(2 * np.log(2)))
#: Half width of the smoothing kernel, in standard deviations.
_KERNEL_RADIUS = 4.0


@dataclass(frozen=True)
class _Index:
    name: str
    kind: str
    bands: tuple[tuple[float, float], ...]

    @property
    def unit(self) -> u.UnitBase:
        return {"Angstrom": u.AA, "mag": u.mag, "ratio": u.dimensionless_unscaled}[self.kind]


@cache
def _definitions() -> Mapping[str, _Index]:
    """Return the definitions by name; bands in vacuum: central (if any), blue, red."""
    found = {}
    for row in index_definitions():
        kind = str(row["kind"])
        names = ("blue_", "red_") if kind == "ratio" else ("", "blue_", "red_")
        limits = [[row[f"{band}{end}"].to_value(u.AA) for end in ("low", "high")] for band in names]
        bands = tuple(tuple(air_to_vacuum(np.array(band)).tolist()) for band in limits)
        found[str(row["name"])] = _Index(str(row["name"]), kind, bands)
    return found


#: Names of the available indices.
INDEX_NAMES: tuple[str, ...] = tuple(_definitions())


def lick_fwhm(wavelength: np.ndarray) -> np.ndarray:
    """Return the resolution of the Lick/IDS system.

    Parameters
    ----------
    wavelength : ndarray
        Rest-frame wavelengths (Angstrom).

    Returns
    -------
    ndarray
        FWHM (Angstrom): Worthey & Ottaviani (1997), table 8, interpolated linearly and constant
        outside its range.
    """
    return np.interp(
        wavelength, [4000.0, 4400.0, 4900.0, 5400.0, 6000.0], [11.5, 9.2, 8.4, 8.4, 9.8]
    )


def measure_indices(
    spectrum: Spectrum,
    names: str | Sequence[str] | None = None,
    *,
    redshift: float | np.ndarray | None = None,
    medium: Medium | None = None,
    lick_resolution: bool = False,
    resolution: float = 1850.0,
    dispersion: float | u.Quantity = 0.0,
) -> QTable:
    """Measure spectral indices.

    Parameters
    ----------
    spectrum : `~specutils.Spectrum`
        One spectrum, or a stack with flux of shape (n, m); observed frame.
    names : str or sequence of str, optional
        Names from `INDEX_NAMES`; all by default.
    redshift : float or array_like, shape (n,), optional
        Redshift; that of the spectrum by default.  Give 0 for a spectrum in the rest frame; NaN is
        missing.
    medium : {"vacuum", "air"}, optional
        Medium of the wavelengths; by default that in the header of the spectrum (CTYPE, AIRORVAC),
        or vacuum.
    lick_resolution : bool
        Smooth to the resolution of the Lick/IDS system (`lick_fwhm`) before measuring.  D4000 and
        Dn4000 are never smoothed.
    resolution : float
        Resolving power of the spectrum; used only with ``lick_resolution``.
    dispersion : float or Quantity ['speed']
        Velocity dispersion of the stars (km/s), which counts towards the resolution of the Lick/IDS
        system.

    Returns
    -------
    `~astropy.table.QTable`
        One row for each spectrum.  Each index has a column with its name and one with the suffix
        ``_err``, in Angstrom, mag or dimensionless; ``flags`` are bit codes (0 if nothing was
        found) and ``flag`` the same as text.  An index is NaN and flagged if a band is not fully
        covered, more than a fifth of a band is masked, cut out or bad, or the continuum is not
        positive.  Spikes narrower than the resolution, such as hot pixels, are bad, and indices
        whose bands have them are flagged.  Errors are NaN if the spectrum has no uncertainty.

    Raises
    ------
    TypeError
        If spectrum is not a `~specutils.Spectrum`.
    ValueError
        If a name is unknown, or the spectrum, redshift or resolution is invalid.

    Examples
    --------
    >>> import astropy.units as u
    >>> import numpy as np
    >>> from specutils import Spectrum
    >>> from astrogenspec.measure import measure_indices
    >>> wavelength = np.linspace(3700, 5500, 3000) * u.AA
    >>> flux = np.where(wavelength < 4001 * u.AA, 1.0, 1.5) * u.Unit("erg / (s cm2 AA)")
    >>> spectrum = Spectrum(flux=flux, spectral_axis=wavelength)
    >>> table = measure_indices(spectrum, ["Dn4000", "Mgb", "TiO2"])
    >>> print(table["Dn4000"].round(2), table["Mgb"].round(2))
    [1.62] [0.] Angstrom
    >>> print(table["flag"][0])
    TiO2: outside the wavelength range
    """
    chosen = INDEX_NAMES if names is None else checked_names(names, INDEX_NAMES, "index")
    arrays = spectrum_arrays(spectrum, redshift=redshift, medium=medium)
    arrays = arrays.without(arrays.spikes())
    width = u.Quantity(dispersion, u.km / u.s).value
    known = np.hypot(instrument_dispersion(resolution), width) if lick_resolution else None
    table, log = QTable(), FlagLog(len(arrays))
    flag_missing_redshifts(arrays, log)
    for name in chosen:
        definition = _definitions()[name]
        values, errors = _measure(arrays, definition, known, log)
        table[name] = values << definition.unit
        table[f"{name}_err"] = errors << definition.unit
    table["flags"] = log.codes
    table["flag"] = np.array(log.texts, dtype=str)
    return table


@dataclass(frozen=True)
class IndexFunction:
    """Function that measures indices of one spectrum, without uncertainties.

    Parameters
    ----------
    names : tuple of str
        Names from `INDEX_NAMES`.
    options : tuple of (str, object)
        Keyword arguments of `measure_indices`.
    """

    names: tuple[str, ...]
    options: tuple[tuple[str, Any], ...] = ()

    def __call__(self, spectrum: Spectrum) -> u.Quantity | dict[str, u.Quantity]:
        """Measure the indices.

        Parameters
        ----------
        spectrum : `~specutils.Spectrum`
            One spectrum, flux of shape (m,).

        Returns
        -------
        Quantity or dict of str to Quantity
            A dict if there are several names; NaN if an index cannot be measured.
        """
        row = measure_indices(spectrum, self.names, **dict(self.options))[0]
        values = {name: row[name] for name in self.names}
        return values if len(values) > 1 else values[self.names[0]]


def index(*names: str, **options: Any) -> IndexFunction:
    """Return a function that measures indices, for `SpectrumDraws.measure`.

    Parameters
    ----------
    *names : str
        One or more names from `INDEX_NAMES`.
    **options : object
        Keyword arguments of `measure_indices`, such as ``lick_resolution``.

    Returns
    -------
    IndexFunction
        Takes a 1-D `~specutils.Spectrum` and returns a Quantity, or a dict of them for several
        names.

    Raises
    ------
    ValueError
        If a name is unknown.

    Examples
    --------
    >>> from astrogenspec.measure import index
    >>> spectra.measure(index("Dn4000"))        # doctest: +SKIP
    """
    chosen = checked_names(names, INDEX_NAMES, "index")
    return IndexFunction(chosen, tuple(sorted(options.items())))


def _measure(
    arrays: SpectrumArrays, definition: _Index, known: float | None, log: FlagLog
) -> tuple[np.ndarray, np.ndarray]:
    """Return values and errors, shape (n,), and log flags.

    Spectra of one redshift are measured together.
    """
    values, errors = np.full((2, len(arrays)), np.nan)

    def flag(rows: np.ndarray, code: Flag, reason: str) -> None:
        log.add(rows, code, f"{definition.name}: {reason}")

    for redshift in np.unique(arrays.redshift[np.isfinite(arrays.redshift)]):
        rows = np.flatnonzero(arrays.redshift == redshift)
        weights, smoothing, pixels = _weights(arrays, float(redshift), definition, known)
        if weights is None:
            flag(rows, Flag.NOT_COVERED, "outside the wavelength range")
            continue
        good = arrays.good[rows][:, pixels]
        masked = np.max([(~good) @ w / w.sum() for w in weights], axis=0)
        flux = arrays.flux[rows][:, pixels]
        smooth = flux if smoothing is None else flux @ smoothing.T
        with np.errstate(divide="ignore", invalid="ignore"):
            value, slope = _FORMULAE[definition.kind](smooth, weights, arrays.wavelength[pixels])
        value /= 1 + redshift if definition.kind == "Angstrom" else 1
        slope /= 1 + redshift if definition.kind == "Angstrom" else 1
        slope = slope if smoothing is None else slope @ smoothing
        variance = np.where(good, arrays.variance[rows][:, pixels], 0.0)
        # The error is infinite where the continuum is zero within rounding errors.
        with np.errstate(over="ignore", invalid="ignore"):
            error = np.sqrt(np.sum(slope**2 * variance, axis=1))
        covered, finite = masked <= _MAX_MASKED, np.isfinite(value) & np.isfinite(error)
        error = error if arrays.noisy else np.nan
        values[rows] = np.where(covered & finite, value, np.nan)
        errors[rows] = np.where(covered & finite, error, np.nan)
        flag(rows[~covered], Flag.BAD_PIXELS, "masked")
        flag(rows[covered & ~finite], Flag.NO_CONTINUUM, "continuum not positive")
        flag(rows[covered & finite & (masked > 0)], Flag.BAD_PIXELS, "partly masked")
    return values, errors


def _weights(
    arrays: SpectrumArrays, redshift: float, definition: _Index, known: float | None
) -> tuple[list[np.ndarray] | None, csr_array | None, slice]:
    """Return the width of each pixel in each band (Angstrom), the smoothing matrix, and the pixels.

    The pixels are those used.  The widths are None if the spectrum does not cover the bands.
    """
    wavelength, edges = arrays.wavelength, arrays.edges
    bands = [np.array(band) * (1 + redshift) for band in definition.bands]
    low, high = min(b[0] for b in bands), max(b[1] for b in bands)
    if low < edges[0] or high > edges[-1]:
        return None, None, slice(0)
    dispersion = None if definition.kind == "ratio" else known
    margin = 0.0 if dispersion is None else 1.5 * 11.5 * (1 + redshift)
    first = max(int(np.searchsorted(edges, low - margin)) - 1, 0)
    pixels = slice(first, min(int(np.searchsorted(edges, high + margin)), len(wavelength)))
    edges = edges[pixels.start : pixels.stop + 1]
    weights = [np.clip(np.diff(np.clip(edges, *band)), 0, None) for band in bands]
    if dispersion is None:
        return weights, None, pixels
    return weights, _smoothing(wavelength[pixels], redshift, dispersion), pixels


def _smoothing(wavelength: np.ndarray, redshift: float, known: float) -> csr_array:
    """Return the matrix that smooths spectra of known dispersion (km/s) to Lick resolution."""
    rest = wavelength / (1 + redshift)
    missing = (lick_fwhm(rest) / _FWHM) ** 2 - (known / LIGHT_SPEED * rest) ** 2
    sigma = np.sqrt(np.maximum(missing, 1e-4)) * (1 + redshift)
    distance = (wavelength[None] - wavelength[:, None]) / sigma[:, None]
    kernel = np.where(np.abs(distance) < _KERNEL_RADIUS, np.exp(-0.5 * distance**2), 0.0)
    kernel *= np.gradient(wavelength)
    return csr_array(kernel / kernel.sum(axis=1, keepdims=True))


def _pseudo_continuum(
    flux: np.ndarray, weights: list[np.ndarray], wavelength: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the continuum, shape (n, m), and the weights of the two side bands in it, shape (m,).

    The blue band is first.
    """
    _, blue, red = weights
    blue_centre, red_centre = (wavelength @ w / w.sum() for w in (blue, red))
    red_weight = (wavelength - blue_centre) / (red_centre - blue_centre)
    blue_mean, red_mean = (flux @ w / w.sum() for w in (blue, red))
    continuum = blue_mean[:, None] * (1 - red_weight) + red_mean[:, None] * red_weight
    return np.where(continuum > 0, continuum, np.nan), 1 - red_weight, red_weight


def _absorbed(
    flux: np.ndarray, weights: list[np.ndarray], wavelength: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the integral of flux over continuum, shape (n,), and its derivatives, shape (n, m).

    The derivatives are by each pixel.
    """
    central, blue, red = weights
    continuum, blue_weight, red_weight = _pseudo_continuum(flux, weights, wavelength)
    inside = central > 0
    by_flux = np.where(inside, central / continuum, 0.0)
    value = np.sum(by_flux * flux, axis=1)
    by_continuum = np.where(inside, -by_flux * flux / continuum, 0.0)
    slope = (
        by_flux
        + (by_continuum @ blue_weight)[:, None] * (blue / blue.sum())
        + (by_continuum @ red_weight)[:, None] * (red / red.sum())
    )
    undefined = ~np.isfinite(continuum[:, inside]).all(axis=1)
    return np.where(undefined, np.nan, value), slope


def _equivalent_width(
    flux: np.ndarray, weights: list[np.ndarray], wavelength: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    value, slope = _absorbed(flux, weights, wavelength)
    central, _, _ = weights
    return central.sum() - value, -slope


def _magnitude(
    flux: np.ndarray, weights: list[np.ndarray], wavelength: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    value, slope = _absorbed(flux, weights, wavelength)
    central, _, _ = weights
    return -2.5 * np.log10(value / central.sum()), -2.5 / np.log(10) * slope / value[:, None]


def _ratio(
    flux: np.ndarray, weights: list[np.ndarray], wavelength: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ratio of the mean flux densities per unit frequency, and its derivative.

    Per unit frequency the flux density is proportional to wavelength squared times flux.
    """
    blue, red = (w / w.sum() * wavelength**2 for w in weights)
    below, above = flux @ blue, flux @ red
    below = np.where(below > 0, below, np.nan)
    slope = red / below[:, None] - (above / below**2)[:, None] * blue
    return above / below, slope


_FORMULAE = {"Angstrom": _equivalent_width, "mag": _magnitude, "ratio": _ratio}
