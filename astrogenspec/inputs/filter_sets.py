"""Filter sets: labels, Galactic extinction and calibration errors of the columns of photometry.

Column k of a flux array is the flux through filter k of a tuple of filters.  The default is the
five filters of SDSS, in the order u, g, r, i, z.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache, lru_cache

import numpy as np

from ..surveys import SDSS, Filter

__all__ = [
    "DEFAULT_CALIBRATION_ERROR",
    "aperture_errors",
    "band_labels",
    "calibration_errors",
    "check_filters",
    "extinction_coefficients",
    "is_sdss",
    "sdss_bands",
    "sdss_filters",
    "sdss_fluxes",
    "union",
]

#: Uncertainty of the zero point of a filter of no survey, mag: the surveys that the package knows
#: state 0.005 to 0.02 mag.
DEFAULT_CALIBRATION_ERROR = 0.02
#: Uncertainties of the magnitudes of SDSS relative to r, mag, at least 0.005: the scatter beyond
#: the errors of the catalogue that reproduces the colours of galaxies
#: (`astrogenspec.training.augmentation`).
_SDSS_ERRORS = {"u": 0.024, "g": 0.015, "r": 0.005, "i": 0.012, "z": 0.005}
#: Scatter (mag) of the light in the apertures of a survey relative to optical model magnitudes, by
#: the first part of the names of its filters.  The 2MASS magnitudes of 7446 galaxies of SDSS
#: scatter by 0.20 to 0.26 mag about those expected from ugriz, and by 0.08 to 0.11 mag in
#: simulations without apertures; with 0.3 mag, J, H and K do not make redshifts less accurate.  The
#: others are assumed.
_APERTURES = {"twomass": 0.3, "wise2010": 0.2, "galex": 0.2}
_SDSS_BANDS = {SDSS.filter_names[band]: band for band in SDSS.bands}


@cache
def sdss_filters() -> tuple[Filter, ...]:
    """Return the filters of SDSS, in the order u, g, r, i, z."""
    return tuple(SDSS.filters[band] for band in SDSS.bands)


def is_sdss(filters: Sequence[Filter]) -> bool:
    """Return whether filters are the five of SDSS, in the order u, g, r, i, z.

    Parameters
    ----------
    filters : sequence of Filter

    Returns
    -------
    bool
    """
    return filters is sdss_filters() or [each.name for each in filters] == list(_SDSS_BANDS)


def sdss_bands(filters: Sequence[Filter]) -> tuple[str | None, ...]:
    """Return the bands of SDSS among filters.

    Parameters
    ----------
    filters : sequence of Filter

    Returns
    -------
    tuple of str or None
        Name of the band; None for a filter of another survey.
    """
    return tuple(_SDSS_BANDS.get(each.name) for each in filters)


def band_labels(filters: Sequence[Filter]) -> tuple[str, ...]:
    """Return one label for each filter, for columns and messages.

    Parameters
    ----------
    filters : sequence of Filter

    Returns
    -------
    tuple of str
        The band, such as "g"; the name, such as "lsst2023-y", where bands differ at most in the
        case of letters.
    """
    count = Counter(each.band.lower() for each in filters)
    return tuple(each.name if count[each.band.lower()] > 1 else each.band for each in filters)


def extinction_coefficients(filters: Sequence[Filter]) -> np.ndarray:
    """Return the ratios of the Galactic extinction in each filter to E(B-V).

    Parameters
    ----------
    filters : sequence of Filter

    Returns
    -------
    ndarray, shape (m,)
        Those of the survey for SDSS, else those of the curve of the filter.
    """
    return np.array(_coefficients(tuple(filters)))


@lru_cache(maxsize=256)
def _coefficients(filters: tuple[Filter, ...]) -> tuple[float, ...]:
    return tuple(
        float(each.extinction_coefficient if band is None else SDSS.extinction_coefficient[band])
        for each, band in zip(filters, sdss_bands(filters), strict=True)
    )


def calibration_errors(filters: Sequence[Filter]) -> np.ndarray:
    """Return the default uncertainties of the zero points.

    Parameters
    ----------
    filters : sequence of Filter

    Returns
    -------
    ndarray, shape (m,)
        Magnitudes; `DEFAULT_CALIBRATION_ERROR` for filters other than those of SDSS.
    """
    return np.array(
        [
            DEFAULT_CALIBRATION_ERROR if band is None else _SDSS_ERRORS[band]
            for band in map(_SDSS_BANDS.get, [each.name for each in filters])
        ]
    )


def aperture_errors(filters: Sequence[Filter]) -> np.ndarray | None:
    """Return the scatter of the apertures of surveys relative to those of the other filters.

    Parameters
    ----------
    filters : sequence of Filter

    Returns
    -------
    ndarray, shape (m, g), or None
        Magnitudes, one column for each of g surveys, 0 for the filters of the others; None if
        there is no such survey, or no filter of another one.
    """
    groups = [each.name.rpartition("-")[0] for each in filters]
    found = [group for group in dict.fromkeys(groups) if group in _APERTURES]
    if not found or len(set(groups)) == 1:
        return None
    columns = [[_APERTURES[name] * (group == name) for name in found] for group in groups]
    return np.array(columns, dtype=float)


def check_filters(filters: object) -> tuple[Filter, ...]:
    """Check a tuple of filters.

    Parameters
    ----------
    filters : sequence of Filter

    Returns
    -------
    tuple of Filter

    Raises
    ------
    TypeError
        If it is not a sequence of filters.
    ValueError
        If it is empty, or a filter is given twice.
    """
    if filters is sdss_filters():
        return sdss_filters()
    found = tuple(filters) if isinstance(filters, Sequence) else ()
    if not isinstance(filters, Sequence) or not all(isinstance(each, Filter) for each in found):
        raise TypeError(
            f"filters is {ascii(filters)[:80]}, but it must be a sequence of Filter objects, such "
            "as those of a survey, or of get_filter."
        )
    if not found:
        raise ValueError("filters is empty; give at least one filter.")
    count = Counter(each.name for each in found)
    twice = next((name for name, n in count.items() if n > 1), None)
    if twice is not None:
        raise ValueError(f"filters holds {twice} more than once; give each filter once.")
    return found


def sdss_fluxes(flux: np.ndarray, filters: Sequence[Filter]) -> np.ndarray:
    """Return fluxes in ugriz if the filters are those of SDSS.

    Parameters
    ----------
    flux : ndarray, shape (n, m)
        Fluxes in the filters.
    filters : sequence of Filter

    Returns
    -------
    ndarray, shape (n, 5)
        ``flux`` for the five filters of SDSS, else NaN.
    """
    if is_sdss(filters):
        return flux
    return np.full((len(flux), len(SDSS.bands)), np.nan)


def union(parts: Sequence[Sequence[Filter]]) -> tuple[Filter, ...]:
    """Return the filters of several sets, each once, in the order of their first appearance.

    Parameters
    ----------
    parts : sequence of sequences of Filter

    Returns
    -------
    tuple of Filter
    """
    if all(part is parts[0] for part in parts):
        return tuple(parts[0])
    return tuple({each.name: each for part in parts for each in part}.values())
