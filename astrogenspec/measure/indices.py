r"""Spectral indices: Lick/IDS, the higher-order Balmer lines, and the break at 4000 A.

An atomic index is an equivalent width, :math:`\int (1 - F_I / F_C)\,d\lambda` (Angstrom, positive for absorption); a
molecular one is :math:`-2.5 \log_{10}\langle F_I / F_C\rangle` (mag).  The pseudo-continuum :math:`F_C` is the straight
line through the mean flux densities of the two side bands at their centres (Worthey et al. 1994, equations 1-3; Trager
et al. 1998).  D4000 and Dn4000 are the ratio of the mean :math:`F_\nu` of the red band to that of the blue one (Bruzual
1983; Balogh et al. 1999).  Bands are defined in air and are taken to vacuum; pixels that a band cuts count in part.

Uncertainties are the derivatives of the index with respect to every pixel, times the uncertainties of the pixels: what
the side bands add, and any overlap of bands, is included (Cardiel et al. 1998, A&AS 127, 597, give the same to first
order).  Correlations between pixels of the input are not known and are taken to be none.
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

from .definitions import checked_names, index_definitions
from .inputs import Medium, SpectrumArrays, air_to_vacuum, instrument_dispersion, spectrum_arrays

__all__ = ["INDEX_NAMES", "IndexFunction", "index", "lick_fwhm", "measure_indices"]

_TOLERATED = 0.2
_FWHM = float(2 * np.sqrt(2 * np.log(2)))
_REACH = 4.0


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
    """Definitions by name; bands in vacuum, the central one first unless there is none."""
    found = {}
    for row in index_definitions():
        kind = str(row["kind"])
        names = ("blue_", "red_") if kind == "ratio" else ("", "blue_", "red_")
        limits = [[row[f"{band}{end}"].to_value(u.AA) for end in ("low", "high")] for band in names]
        bands = tuple(tuple(air_to_vacuum(np.array(band)).tolist()) for band in limits)
        found[str(row["name"])] = _Index(str(row["name"]), kind, bands)
    return found


#: Names of the indices that can be measured.
INDEX_NAMES: tuple[str, ...] = tuple(_definitions())


def lick_fwhm(wavelength: np.ndarray) -> np.ndarray:
    """Give the resolution of the Lick/IDS system.

    Parameters
    ----------
    wavelength : ndarray
        Rest frame, Angstrom.

    Returns
    -------
    ndarray
        FWHM, Angstrom; Worthey & Ottaviani (1997), table 8, linear between the points and constant outside.
    """
    return np.interp(
        wavelength, [4000.0, 4400.0, 4900.0, 5400.0, 6000.0], [11.5, 9.2, 8.4, 8.4, 9.8]
    )


def measure_indices(
    spectrum: Spectrum,
    names: str | Sequence[str] | None = None,
    *,
    redshift: float | np.ndarray | None = None,
    medium: Medium = "vacuum",
    lick_resolution: bool = False,
    resolution: float = 1850.0,
    dispersion: float | u.Quantity = 0.0,
) -> QTable:
    """Measure spectral indices, all draws of a stack at once.

    Parameters
    ----------
    spectrum : `~specutils.Spectrum`
        One spectrum, or a stack with flux of shape (n, m); observed frame.
    names : str or sequence of str, optional
        Some of `INDEX_NAMES`; all by default.
    redshift : float or array_like, shape (n,), optional
        By default that of the spectrum; 0 means the rest frame.
    medium : {"vacuum", "air"}
        What the wavelengths of the spectrum are measured in.
    lick_resolution : bool
        Smooth to the resolution of the Lick/IDS system (`lick_fwhm`) before measuring.  D4000 and Dn4000 are never
        smoothed.
    resolution : float
        Resolving power of the spectrum; counts only with ``lick_resolution``.
    dispersion : float or Quantity ['speed']
        Velocity dispersion of the stars (km/s), which is part of the width that the smoothing completes.

    Returns
    -------
    `~astropy.table.QTable`
        A row for each spectrum; for each index a column with its name and one with ``_err`` added, in Angstrom, mag or
        without unit, and ``flag``, an empty string if nothing is wrong.  An index is NaN, and named in the flag, where
        a band is not wholly inside the wavelength range, more than a fifth of a band is masked, or the continuum is
        not positive.  Errors are NaN if the spectrum has no uncertainty.

    Raises
    ------
    TypeError
        If spectrum is not a `~specutils.Spectrum`.
    ValueError
        If a name is unknown, or the spectrum, redshift or resolution make no sense.

    Examples
    --------
    >>> import astropy.units as u
    >>> import numpy as np
    >>> from specutils import Spectrum
    >>> from astrogenspec.measure import measure_indices
    >>> wavelength = np.linspace(3700, 5500, 3000) * u.AA
    >>> flux = np.where(wavelength < 4001 * u.AA, 1.0, 1.5) * u.Unit("erg / (s cm2 AA)")
    >>> table = measure_indices(Spectrum(flux=flux, spectral_axis=wavelength), ["Dn4000", "Mgb", "TiO2"])
    >>> print(table["Dn4000"].round(2), table["Mgb"].round(2))
    [1.62] [0.] Angstrom
    >>> print(table["flag"][0])
    TiO2: outside the wavelength range
    """
    chosen = INDEX_NAMES if names is None else checked_names(names, INDEX_NAMES, "index")
    arrays = spectrum_arrays(spectrum, redshift=redshift, medium=medium)
    width = u.Quantity(dispersion, u.km / u.s).value
    known = np.hypot(instrument_dispersion(resolution), width) if lick_resolution else None
    table, problems = QTable(), [[] for _ in range(len(arrays))]
    for name in chosen:
        definition = _definitions()[name]
        values, errors, reasons = _measure(arrays, definition, known)
        table[name] = values << definition.unit
        table[f"{name}_err"] = errors << definition.unit
        for row, reason in reasons.items():
            problems[row].append(f"{name}: {reason}")
    table["flag"] = np.array(["; ".join(found) for found in problems], dtype=str)
    return table


@dataclass(frozen=True)
class IndexFunction:
    """Measure some indices of one spectrum, without uncertainties.

    Parameters
    ----------
    names : tuple of str
        Some of `INDEX_NAMES`.
    options : tuple of (str, object)
        Keyword arguments of `measure_indices`.
    """

    names: tuple[str, ...]
    options: tuple[tuple[str, Any], ...] = ()

    def __call__(self, spectrum: Spectrum) -> u.Quantity | dict[str, u.Quantity]:
        """Measure.

        Parameters
        ----------
        spectrum : `~specutils.Spectrum`
            One spectrum, flux of shape (m,).

        Returns
        -------
        Quantity or dict of str to Quantity
            NaN where an index cannot be measured; a dict if there are several.
        """
        row = measure_indices(spectrum, self.names, **dict(self.options))[0]
        values = {name: row[name] for name in self.names}
        return values if len(values) > 1 else values[self.names[0]]


def index(*names: str, **options: Any) -> IndexFunction:
    """Make a function that measures indices, for `SpectrumDraws.measure`.

    Parameters
    ----------
    *names : str
        One or more of `INDEX_NAMES`.
    **options : object
        Keyword arguments of `measure_indices`, such as ``lick_resolution``.

    Returns
    -------
    IndexFunction
        Takes a 1-D `~specutils.Spectrum`, gives a Quantity, or a dict of them if there are several names.

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
    arrays: SpectrumArrays, definition: _Index, known: float | None
) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
    """Values and errors, shape (n,), and what is wrong by row; rows of one redshift are measured together."""
    values, errors = np.full((2, len(arrays)), np.nan)
    reasons: dict[int, str] = {}
    for redshift in np.unique(arrays.redshift):
        rows = np.flatnonzero(arrays.redshift == redshift)
        weights, smoothing, reach = _weights(arrays.wavelength, float(redshift), definition, known)
        if weights is None:
            reasons |= dict.fromkeys(rows.tolist(), "outside the wavelength range")
            continue
        masked = np.max([(~arrays.good[rows][:, reach]) @ w / w.sum() for w in weights], axis=0)
        flux = arrays.flux[rows][:, reach]
        smooth = flux if smoothing is None else flux @ smoothing.T
        with np.errstate(divide="ignore", invalid="ignore"):
            value, slope = _FORMULAE[definition.kind](smooth, weights, arrays.wavelength[reach])
        value /= 1 + redshift if definition.kind == "Angstrom" else 1
        slope /= 1 + redshift if definition.kind == "Angstrom" else 1
        slope = slope if smoothing is None else slope @ smoothing
        variance = np.where(arrays.good[rows][:, reach], arrays.variance[rows][:, reach], 0.0)
        error = np.sqrt(np.sum(slope**2 * variance, axis=1)) if arrays.noisy else np.nan
        usable = (masked <= _TOLERATED) & np.isfinite(value)
        values[rows] = np.where(usable, value, np.nan)
        errors[rows] = np.where(usable, error, np.nan)
        for row, share in zip(rows.tolist(), masked, strict=True):
            if share > _TOLERATED:
                reasons[row] = "masked"
            elif not np.isfinite(values[row]):
                reasons[row] = "continuum not positive"
            elif share > 0:
                reasons[row] = "partly masked"
    return values, errors, reasons


def _weights(
    wavelength: np.ndarray, redshift: float, definition: _Index, known: float | None
) -> tuple[list[np.ndarray] | None, csr_array | None, slice]:
    """Width of each pixel inside each band (Angstrom), the smoothing, and the pixels that count."""
    edges = _edges(wavelength)
    bands = [np.array(band) * (1 + redshift) for band in definition.bands]
    low, high = min(b[0] for b in bands), max(b[1] for b in bands)
    if low < edges[0] or high > edges[-1]:
        return None, None, slice(0)
    smooth = known is not None and definition.kind != "ratio"
    margin = 1.5 * 11.5 * (1 + redshift) if smooth else 0.0
    first = max(int(np.searchsorted(edges, low - margin)) - 1, 0)
    reach = slice(first, min(int(np.searchsorted(edges, high + margin)), len(wavelength)))
    edges = edges[reach.start : reach.stop + 1]
    weights = [np.clip(np.diff(np.clip(edges, *band)), 0, None) for band in bands]
    return weights, _smoothing(wavelength[reach], redshift, known) if smooth else None, reach


def _edges(wavelength: np.ndarray) -> np.ndarray:
    middle = 0.5 * (wavelength[1:] + wavelength[:-1])
    ends = 2 * wavelength[[0, -1]] - middle[[0, -1]]
    return np.concatenate([ends[:1], middle, ends[1:]])


def _smoothing(wavelength: np.ndarray, redshift: float, known: float) -> csr_array:
    """Matrix that takes a spectrum of known dispersion (km/s) to the Lick resolution."""
    rest = wavelength / (1 + redshift)
    missing = (lick_fwhm(rest) / _FWHM) ** 2 - (known / 299792.458 * rest) ** 2
    sigma = np.sqrt(np.maximum(missing, 1e-4)) * (1 + redshift)
    distance = (wavelength[None] - wavelength[:, None]) / sigma[:, None]
    kernel = np.where(np.abs(distance) < _REACH, np.exp(-0.5 * distance**2), 0.0)
    kernel *= np.gradient(wavelength)
    return csr_array(kernel / kernel.sum(axis=1, keepdims=True))


def _pseudo_continuum(
    flux: np.ndarray, weights: list[np.ndarray], wavelength: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Continuum in the central band, (n, m), and the share of the blue and the red side band in it, (m,)."""
    _, blue, red = weights
    centres = [wavelength @ w / w.sum() for w in (blue, red)]
    of_red = (wavelength - centres[0]) / (centres[1] - centres[0])
    means = [flux @ w / w.sum() for w in (blue, red)]
    continuum = means[0][:, None] * (1 - of_red) + means[1][:, None] * of_red
    return np.where(continuum > 0, continuum, np.nan), 1 - of_red, of_red


def _absorbed(
    flux: np.ndarray, weights: list[np.ndarray], wavelength: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Integral of flux over continuum in the central band, (n,), and its derivative by each pixel, (n, m)."""
    central, blue, red = weights
    continuum, of_blue, of_red = _pseudo_continuum(flux, weights, wavelength)
    inside = central > 0
    share = np.where(inside, central / continuum, 0.0)
    value = np.sum(share * flux, axis=1)
    by_continuum = np.where(inside, -share * flux / continuum, 0.0)
    slope = (
        share
        + (by_continuum @ of_blue)[:, None] * (blue / blue.sum())
        + (by_continuum @ of_red)[:, None] * (red / red.sum())
    )
    broken = ~np.isfinite(continuum[:, inside]).all(axis=1)
    return np.where(broken, np.nan, value), slope


def _equivalent_width(
    flux: np.ndarray, weights: list[np.ndarray], wavelength: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    value, slope = _absorbed(flux, weights, wavelength)
    return weights[0].sum() - value, -slope


def _magnitude(
    flux: np.ndarray, weights: list[np.ndarray], wavelength: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    value, slope = _absorbed(flux, weights, wavelength)
    return -2.5 * np.log10(value / weights[0].sum()), -2.5 / np.log(10) * slope / value[:, None]


def _ratio(
    flux: np.ndarray, weights: list[np.ndarray], wavelength: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Ratio of mean flux densities per unit frequency, which goes as wavelength squared times flux."""
    blue, red = (w / w.sum() * wavelength**2 for w in weights)
    below, above = flux @ blue, flux @ red
    below = np.where(below > 0, below, np.nan)
    slope = red / below[:, None] - (above / below**2)[:, None] * blue
    return above / below, slope


_FORMULAE = {"Angstrom": _equivalent_width, "mag": _magnitude, "ratio": _ratio}
