r"""Synthetic broad-band photometry of spectra.

The flux of a source of spectral flux density :math:`f_\lambda` in a band of photon response
:math:`R` is, in maggies (Fukugita et al. 1996, AJ 111, 1748; Hogg et al. 2002, astro-ph/0210394),

.. math:: \int \lambda f_\lambda R\,\mathrm{d}\lambda \Big/
          \int \lambda g_\lambda R\,\mathrm{d}\lambda,
          \qquad g_\lambda = 3631\,\mathrm{Jy}\, c / \lambda^2 .

Both integrals are evaluated over the pixels with a finite flux, which must cover nearly all of the
band.  The response is averaged over each pixel, so that the result does not depend on the pixel
size as long as the spectrum itself is well sampled.  Gaps in the wavelengths, where pixels were cut
out, are not covered, and neither are runs of zeros that stand for missing data (`missing_zeros`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import cache

import astropy.constants as const
import astropy.units as u
import numpy as np

from .quantities import FLUX_UNIT, plain_values
from .surveys import SDSS, Filter, Survey, get_filter, get_survey

__all__ = [
    "MIN_COVERAGE",
    "band_coverage",
    "missing_zeros",
    "pixel_edges",
    "response_weights",
    "sampling_gaps",
    "synthetic_flux",
]

#: Minimum fraction of the response of a band that a spectrum must cover.
MIN_COVERAGE = 0.995
#: nmgy per maggy.
_NMGY = 1e9
_BLOCK = 20_000_000
#: A step is a gap if it exceeds this many local steps and their scatter times the second number.
_GAP_RATIO, _GAP_SCATTER = 1.5, 5.0
#: Minimum number of zeros in a row, and level of a neighbour that is not zero, as a fraction of the
#: typical flux.
_MIN_ZEROS, _ZERO_LEVEL = 3, 1e-6
#: Number of steps on either side of a gap that define the local step, and the fewest in all.
_GAP_WINDOW, _MIN_GAP_STEPS = 7, 4


def synthetic_flux(
    wavelength: u.Quantity,
    flux: u.Quantity,
    survey: str | Survey = SDSS,
    bands: Sequence[str] | None = None,
    *,
    filters: Sequence[str | Filter] | None = None,
) -> u.Quantity:
    """Compute the broad-band fluxes of spectra.

    Parameters
    ----------
    wavelength : Quantity, shape (n_wavelength,)
        Centres of the pixels, increasing, observed frame, vacuum.
    flux : Quantity, shape (..., n_wavelength)
        Flux density per unit wavelength or frequency; NaN for missing pixels.
    survey : str or Survey
        Survey that defines the filters.
    bands : sequence of str, optional
        Bands of the survey; all of them by default.
    filters : sequence of str or Filter, optional
        Filters of any surveys, such as ``["decamDR1-g", "panstarrs-r"]``, in place of the bands of
        one survey.

    Returns
    -------
    Quantity ['nmgy'], shape (..., n_bands)
        AB nanomaggies.  NaN if the pixels with a finite flux cover less than 99.5% of the response
        of the band; otherwise missing pixels and gaps are excluded from both integrals. Three or
        more zeros in a row beside other pixels are missing; where a model is zero, give a small
        number instead.

    Raises
    ------
    TypeError
        If wavelength or flux is not a Quantity.
    ValueError
        If shapes do not match, the wavelength does not increase, a band or filter is unknown, or
        ``bands`` and ``filters`` are both given.
    astropy.units.UnitConversionError
        If a unit cannot be converted.

    Notes
    -----
    SDSS catalogue magnitudes deviate from the AB system: u is about 0.04 mag fainter and z about
    0.02 mag brighter than AB, the other bands agree to 0.01 mag (flux calibration pages of SDSS).
    No such correction is applied here.

    Examples
    --------
    >>> import astropy.units as u
    >>> import numpy as np
    >>> from astrogenspec.synthetic import synthetic_flux
    >>> wavelength = np.geomspace(3600, 9200, 4000) * u.AA
    >>> flux = np.full(4000, 3.631e-6) * u.Jy  # 22.5 mag at every frequency
    >>> synthetic_flux(wavelength, flux).round(3)
    <Quantity [nan,  1.,  1.,  1., nan] nmgy>
    """
    curves = _checked_filters(survey, bands, filters)
    grid = _checked_grid(wavelength)
    values = _checked_flux(flux, grid)
    source, reference = _weights(grid, curves)
    rows = values.reshape(-1, len(grid))
    for row in np.flatnonzero(np.count_nonzero(rows == 0, axis=1) >= _MIN_ZEROS):
        rows[row, missing_zeros(rows[row])] = np.nan
    result = np.empty((len(rows), len(curves)))
    n_rows = max(_BLOCK // len(grid), 1)
    for start in range(0, len(rows), n_rows):
        block = slice(start, start + n_rows)
        result[block] = _integrate(rows[block], source, reference)
    return u.Quantity(result.reshape(*values.shape[:-1], len(curves)), u.nmgy, copy=False)


def band_coverage(
    wavelength: u.Quantity, survey: str | Survey = SDSS, bands: Sequence[str] | None = None
) -> np.ndarray:
    """Return the fraction of the response of each band that a wavelength grid covers.

    Parameters
    ----------
    wavelength : Quantity, shape (n_wavelength,)
        Centres of the pixels, increasing.
    survey : str or Survey
        Survey that defines the filters.
    bands : sequence of str, optional
        Bands of the survey; all of them by default.

    Returns
    -------
    ndarray, shape (n_bands,)
        Between 0 and 1; the response is weighted by the spectrum of a source of constant AB
        magnitude.

    Raises
    ------
    TypeError, ValueError, astropy.units.UnitConversionError
        As in `synthetic_flux`.
    """
    return _weights(_checked_grid(wavelength), _checked_filters(survey, bands))[1].sum(axis=0)


def response_weights(
    wavelength: u.Quantity, survey: str | Survey = SDSS, bands: Sequence[str] | None = None
) -> np.ndarray:
    """Return weights whose matrix product with spectra on a grid gives broad-band fluxes.

    Parameters
    ----------
    wavelength : Quantity, shape (n_wavelength,)
        Centres of the pixels, increasing.
    survey : str or Survey
        Survey that defines the filters.
    bands : sequence of str, optional
        Bands of the survey; all of them by default.

    Returns
    -------
    ndarray, shape (n_wavelength, n_bands)
        AB nanomaggies per 1e-17 erg/s/cm2/Angstrom.

    Raises
    ------
    TypeError, ValueError, astropy.units.UnitConversionError
        As in `synthetic_flux`.
    """
    return _weights(_checked_grid(wavelength), _checked_filters(survey, bands))[0]


def pixel_edges(wavelength: np.ndarray) -> np.ndarray:
    """Return the edges of pixels, midway between neighbouring centres in log wavelength.

    Parameters
    ----------
    wavelength : ndarray, shape (n_wavelength,)
        At least two centres, positive and increasing.

    Returns
    -------
    ndarray, shape (n_wavelength + 1,)
    """
    log = np.log(wavelength)
    middle = (log[1:] + log[:-1]) / 2
    ends = (1.5 * log[0] - 0.5 * log[1], 1.5 * log[-1] - 0.5 * log[-2])
    return np.exp(np.concatenate([ends[:1], middle, ends[1:]]))


def sampling_gaps(wavelength: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find gaps where pixels were cut out of a spectrum.

    A step is a gap if it is much larger than the steps on both sides, whether these are measured in
    wavelength, its logarithm or its inverse, so that a sampling that changes smoothly, or from one
    arm of a spectrograph to the next, has no gap.

    Parameters
    ----------
    wavelength : ndarray, shape (n_wavelength,)
        Centres of the pixels, positive and increasing.

    Returns
    -------
    index : ndarray of int, shape (n_gaps,)
        Last pixel before each gap.
    before, after : ndarray, shape (n_gaps,)
        Local steps on both sides of each gap.
    """
    scales = [wavelength, np.log(wavelength), -1 / wavelength]
    steps = [np.diff(scale) for scale in scales]
    padded = np.pad(steps[1], 1, constant_values=np.inf)
    larger = steps[1] > _GAP_RATIO * np.minimum(padded[:-2], padded[2:])
    found = [k for k in np.flatnonzero(larger).tolist() if all(_is_gap(step, k) for step in steps)]
    sides = np.array([_local_steps(steps[0], k) for k in found]).reshape(-1, 2)
    return np.array(found, dtype=int), sides[:, 0], sides[:, 1]


def missing_zeros(flux: np.ndarray) -> np.ndarray:
    """Find runs of zeros that stand for missing data, next to pixels that are not nearly zero.

    Parameters
    ----------
    flux : ndarray, shape (m,)
        Flux of one spectrum.

    Returns
    -------
    ndarray of bool, shape (m,)
    """
    zero = flux == 0
    result = np.zeros(len(flux), dtype=bool)
    if np.count_nonzero(zero) < _MIN_ZEROS or zero.all():
        return result
    present = flux[~zero & np.isfinite(flux)]
    if not len(present):
        return result
    level = _ZERO_LEVEL * np.percentile(np.abs(present), 90)
    ends = np.flatnonzero(np.diff(zero, prepend=False, append=False)).reshape(-1, 2)
    for first, last in ends:
        beside = flux[[k for k in (first - 1, last) if 0 <= k < len(flux)]]
        if last - first >= _MIN_ZEROS and np.any(~(np.abs(beside) < level)):
            result[first:last] = True
    return result


def _sides(steps: np.ndarray, k: int) -> list[np.ndarray]:
    sides = [steps[max(k - _GAP_WINDOW, 0) : k], steps[k + 1 : k + 1 + _GAP_WINDOW]]
    return [side for side in sides if len(side)]


def _is_gap(steps: np.ndarray, k: int) -> bool:
    sides = _sides(steps, k)
    if sum(len(side) for side in sides) < _MIN_GAP_STEPS:
        return False
    middles = [np.median(side) for side in sides]
    scatter = [np.median(np.abs(side - m)) for side, m in zip(sides, middles, strict=True)]
    return bool(steps[k] > _GAP_RATIO * max(middles) + _GAP_SCATTER * max(scatter))


def _local_steps(steps: np.ndarray, k: int) -> tuple[float, float]:
    sides = [float(np.median(side)) for side in _sides(steps, k)]
    return (sides[0], sides[-1]) if k else (sides[-1], sides[-1])


def _integrate(values: np.ndarray, source: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return the fluxes of spectra in nmgy, shape (n_rows, n_bands)."""
    present = np.isfinite(values)
    if present.all():
        covered = np.broadcast_to(reference.sum(axis=0), (len(values), reference.shape[1]))
        total = values @ source
    else:
        covered = present.astype(reference.dtype) @ reference
        total = np.where(present, values, 0) @ source
    good = covered >= MIN_COVERAGE
    return np.divide(total, covered, out=np.full(covered.shape, np.nan), where=good)


def _weights(grid: np.ndarray, filters: Sequence[Filter]) -> tuple[np.ndarray, np.ndarray]:
    """Return weights of the source and reference integrals, of shape (n_wavelength, n_bands).

    The weights of the source convert 1e-17 erg/s/cm2/AA to nmgy.  The weights of the reference are
    the fractions of the integral in each pixel; their sum is 1 for a fully covered band.
    """
    edges = pixel_edges(grid)
    low, high = edges[:-1].copy(), edges[1:].copy()
    gaps, before, after = sampling_gaps(grid)
    high[gaps], low[gaps + 1] = grid[gaps] + before / 2, grid[gaps + 1] - after / 2
    source, reference = [], []
    for curve in filters:
        grid_of, source_integral, integral = _cumulative_response(curve)
        for parts, cumulative in ((source, source_integral), (reference, integral)):
            inside = np.interp(high, grid_of, cumulative) - np.interp(low, grid_of, cumulative)
            parts.append(inside / integral[-1])
    scale = (3631 * u.Jy * const.c).to_value(FLUX_UNIT * u.AA**2)
    return np.stack(source, axis=1) / scale * _NMGY, np.stack(reference, axis=1)


@cache
def _cumulative_response(curve: Filter) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return wavelengths (AA) and the cumulative integrals of R * wavelength and R / wavelength."""
    known = curve.wavelength
    # A curve of a few points is sampled finely enough for the factor of wavelength.
    at = np.linspace(known[0], known[-1], 20 * max(len(known), 50))
    response = np.interp(at, known, curve.response)

    def integral(values: np.ndarray) -> np.ndarray:
        steps = (values[1:] + values[:-1]) / 2 * np.diff(at)
        return np.concatenate([[0.0], np.cumsum(steps)])

    return at, integral(response * at), integral(response / at)


def _checked_filters(
    survey: str | Survey,
    bands: Sequence[str] | None,
    filters: object = None,
) -> list[Filter]:
    """Return the filters of bands of a survey, or those given."""
    if filters is None:
        survey = get_survey(survey)
        return [survey.filters[band] for band in _checked_bands(survey, bands)]
    if bands is not None:
        raise ValueError("bands and filters were both given; give one of them.")
    if isinstance(filters, str) or not isinstance(filters, Sequence) or not filters:
        raise ValueError(
            f"filters is {ascii(filters)[:60]}; give a list of names or Filter objects, such as "
            "['decamDR1-g', 'panstarrs-r']."
        )
    return [each if isinstance(each, Filter) else get_filter(each) for each in filters]


def _checked_bands(survey: Survey, bands: Sequence[str] | None) -> tuple[str, ...]:
    if bands is None:
        return survey.bands
    bands = tuple(bands)
    unknown = [band for band in bands if band not in survey.bands]
    if unknown or not bands:
        found = f"has the unknown band {unknown[0]!r}" if unknown else "is empty"
        raise ValueError(f"bands {found}; choose from {', '.join(survey.bands)} ({survey.name}).")
    return bands


def _checked_grid(wavelength: u.Quantity) -> np.ndarray:
    if not isinstance(wavelength, u.Quantity):
        raise TypeError(
            f"wavelength is a {type(wavelength).__name__}; give a Quantity with a unit of length."
        )
    grid = plain_values(wavelength, u.AA, name="wavelength").astype(float)
    if grid.ndim != 1 or len(grid) < 2:
        raise ValueError(
            f"wavelength has shape {grid.shape}; give a 1-D array of at least two pixels."
        )
    if not (np.all(np.diff(grid) > 0) and grid[0] > 0 and np.isfinite(grid[-1])):
        raise ValueError("wavelength is not positive and strictly increasing; sort it first.")
    return grid


def _checked_flux(flux: u.Quantity, grid: np.ndarray) -> np.ndarray:
    if not isinstance(flux, u.Quantity):
        raise TypeError(
            f"flux is a {type(flux).__name__}; give a Quantity with a unit of flux density."
        )
    if flux.shape[-1:] != grid.shape:
        raise ValueError(
            f"flux has shape {flux.shape} but wavelength has {len(grid)} pixels; give shape "
            f"(..., {len(grid)})."
        )
    if not flux.unit.is_equivalent(FLUX_UNIT):
        with suppress(u.UnitsError):
            flux = flux.to(FLUX_UNIT, u.spectral_density(grid * u.AA))
    return plain_values(flux, FLUX_UNIT, name="flux")
