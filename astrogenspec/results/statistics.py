"""Statistics along the draws of many galaxies at once, ignoring draws that are NaN.

Draws are arrays of shape (n_galaxies, n_draws).  A galaxy all of whose draws are NaN (an unusable
input) has NaN statistics; no warning is given for it.  Large arrays are worked through in blocks
of galaxies, so that temporary arrays stay small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import astropy.units as u
import numpy as np
from astropy.units.function import FunctionUnitBase

from ..quantities import plain_values

__all__ = [
    "best_draws",
    "difference_unit",
    "matched_values",
    "row_means",
    "row_modes",
    "row_percentiles",
    "row_ranks",
    "row_standard_deviations",
    "systematic_choice",
    "weighted_means",
    "weighted_percentiles",
    "weighted_scatters",
]

_BLOCK = 4_000_000


def row_means(values: np.ndarray) -> np.ndarray:
    """Average the finite draws of each galaxy.

    Parameters
    ----------
    values : ndarray, shape (n_galaxies, n_draws)

    Returns
    -------
    ndarray of float64, shape (n_galaxies,)
    """
    return _by_blocks(_moments, values)[0]


def row_standard_deviations(values: np.ndarray) -> np.ndarray:
    """Give the standard deviation (divisor: number of draws) of the finite draws of each galaxy.

    Parameters
    ----------
    values : ndarray, shape (n_galaxies, n_draws)

    Returns
    -------
    ndarray of float64, shape (n_galaxies,)
    """
    return _by_blocks(_moments, values)[1]


def row_percentiles(values: np.ndarray, percentiles: Sequence[float] | np.ndarray) -> np.ndarray:
    """Give percentiles of the finite draws of each galaxy, linearly interpolated.

    Parameters
    ----------
    values : ndarray, shape (n_galaxies, n_draws)
    percentiles : ndarray, shape (n_percentiles,)
        Between 0 and 100.

    Returns
    -------
    ndarray of float64, shape (n_percentiles, n_galaxies)
    """
    fractions = np.asarray(percentiles, dtype=float)[:, None] / 100

    def of_block(block: np.ndarray) -> np.ndarray:
        ordered = np.sort(block, axis=1)  # NaN go last
        n_finite = np.count_nonzero(~np.isnan(ordered), axis=1)
        position = fractions * np.maximum(n_finite - 1, 0)
        below = np.floor(position).astype(np.intp)
        above = np.minimum(below + 1, np.maximum(n_finite - 1, 0))
        low = np.take_along_axis(ordered, below.T, axis=1).T.astype(float)
        high = np.take_along_axis(ordered, above.T, axis=1).T
        with np.errstate(invalid="ignore"):
            return low + (position - below) * (high - low)

    return _by_blocks(of_block, values, n_results=len(fractions))


def row_ranks(values: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count the draws below and equal to the true value of each galaxy.

    Parameters
    ----------
    values : ndarray, shape (n_galaxies, n_draws)
    truth : ndarray, shape (n_galaxies,)

    Returns
    -------
    below, equal, finite : ndarrays of int, shape (n_galaxies,)
        Number of draws below the truth, equal to it, and not NaN.  Where the truth is NaN,
        ``below`` and ``equal`` are 0.
    """

    def of_block(block: np.ndarray, true: np.ndarray) -> np.ndarray:
        true = true[:, None]
        counts = (block < true, block == true, ~np.isnan(block))
        return np.stack([np.count_nonzero(count, axis=1) for count in counts])

    return tuple(_by_blocks(of_block, values, truth, n_results=3).astype(np.int64))


def matched_values(
    draws: Any, truth: Any, *, name: str = "truth"
) -> tuple[np.ndarray, np.ndarray, u.UnitBase | None]:
    """Bring draws and true values to plain arrays in the unit of the draws.

    Parameters
    ----------
    draws : `~astrogenspec.QuantityPosterior`, Quantity or ndarray, shape (n_galaxies, n_draws)
    truth : Quantity or array-like, shape (n_galaxies,)
        Bare numbers are taken to be in the unit of the draws.  NaN or masked: unknown.
    name : str
        How error messages name the truth.

    Returns
    -------
    draws : ndarray, shape (n_galaxies, n_draws)
    truth : ndarray, shape (n_galaxies,)
    unit : unit of both, or None

    Raises
    ------
    ValueError
        If the shapes do not fit.
    astropy.units.UnitConversionError
        If the units do not fit.
    """
    draws = getattr(draws, "draws", draws)
    unit = getattr(draws, "unit", None)
    values = np.asarray(draws.value if unit is not None else draws)
    if values.ndim != 2 or values.shape[1] == 0:
        raise ValueError(
            f"draws has shape {values.shape}; give shape (n_galaxies, n_draws), at least one draw."
        )
    true = plain_values(truth, unit, name=name)
    if true.shape != values.shape[:1]:
        raise ValueError(
            f"{name} has shape {true.shape}, but the draws are of {len(values)} galaxies; "
            f"give one true value a galaxy, shape ({len(values)},)."
        )
    return values, true, unit


def difference_unit(unit: u.UnitBase | None) -> u.UnitBase | None:
    """Give the unit of a difference: dex for dex(Msun), otherwise the unit itself.

    Parameters
    ----------
    unit : unit or None

    Returns
    -------
    unit or None
    """
    if isinstance(unit, FunctionUnitBase):
        return unit.function_unit
    return unit


def _moments(block: np.ndarray) -> np.ndarray:
    n_finite = np.count_nonzero(~np.isnan(block), axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.nansum(block, axis=1, dtype=float) / n_finite
        square = np.nansum((block - mean[:, None]) ** 2, axis=1) / n_finite
    return np.stack([mean, np.sqrt(square)])


def _by_blocks(
    function: Callable[..., np.ndarray], values: np.ndarray, *others: np.ndarray, n_results: int = 2
) -> np.ndarray:
    """Apply a function to blocks of rows, and join its results of shape (n_results, n_rows)."""
    results = [function(*block) for block in _blocks(values, *others)]
    return np.concatenate(results, axis=1) if results else np.empty((n_results, 0))


def _blocks(values: np.ndarray, *others: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    n_rows = max(_BLOCK // values.shape[1], 1)
    for start in range(0, len(values), n_rows):
        rows = slice(start, start + n_rows)
        yield (values[rows], *(other[rows] for other in others))


_N_GRID = 256
_BLOCK_modes = 2_000_000


def row_modes(values: np.ndarray) -> np.ndarray:
    """Find where the density of the finite draws of each galaxy is highest.

    Parameters
    ----------
    values : ndarray, shape (n_galaxies, n_draws)

    Returns
    -------
    ndarray of float64, shape (n_galaxies,)
        NaN where there is no draw.

    Notes
    -----
    Gaussian kernel with the width of Silverman (1986, Density Estimation, eq. 3.31), on a grid between the 0.1 and 99.9
    percentiles; a parabola through the highest three points gives the place between them.
    """
    values = np.asarray(values)
    n_rows = max(_BLOCK_modes // max(values.shape[1], _N_GRID), 1)
    parts = [_modes(values[k : k + n_rows]) for k in range(0, len(values), n_rows)]
    return np.concatenate(parts) if parts else np.empty(0)


def _modes(values: np.ndarray) -> np.ndarray:
    low, q1, middle, q3, high = row_percentiles(values, [0.1, 25, 50, 75, 99.9])
    n_finite = np.count_nonzero(~np.isnan(values), axis=1)
    spread = row_standard_deviations(values)
    quartiles = (q3 - q1) / 1.349
    spread = np.where(quartiles > 0, np.minimum(spread, quartiles), spread)
    with np.errstate(invalid="ignore"):
        usable = (spread > 0) & (high > low)
    result = np.array(middle)
    if not usable.any():
        return result
    low, step = low[usable], ((high - low)[usable]) / (_N_GRID - 1)
    width = 0.9 * spread[usable] * n_finite[usable] ** -0.2 / step
    density = _smoothed(_binned(values[usable], low, step), width)
    rows, top = np.arange(len(density)), density.argmax(axis=1)
    inner = np.clip(top, 1, _N_GRID - 2)
    before, here, after = (density[rows, inner + k] for k in (-1, 0, 1))
    curvature = before - 2 * here + after
    offset = np.divide(
        0.5 * (before - after), curvature, out=np.zeros(len(rows)), where=curvature < 0
    )
    place = np.where(inner == top, inner + np.clip(offset, -0.5, 0.5), top)
    result[usable] = low + place * step
    return result


def _binned(values: np.ndarray, low: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Share every draw between the two nearest points of the grid of its galaxy."""
    place = (values.astype(float) - low[:, None]) / step[:, None]
    inside = (place >= 0) & (place <= _N_GRID - 1)
    place = np.where(inside, place, 0.0)
    left = np.minimum(place.astype(np.intp), _N_GRID - 2)
    right_share = np.where(inside, place - left, 0.0)
    left_share = np.where(inside, 1 - (place - left), 0.0)
    cell = left + _N_GRID * np.arange(len(values))[:, None]
    size = len(values) * _N_GRID
    counts = np.bincount(cell.ravel(), left_share.ravel(), size)
    counts += np.bincount(cell.ravel() + 1, right_share.ravel(), size + 1)[:size]
    return counts.reshape(len(values), _N_GRID)


def _smoothed(counts: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Convolve each row with a Gaussian; the grid is padded so that nothing wraps around."""
    frequency = np.fft.rfftfreq(2 * _N_GRID)
    kernel = np.exp(-2 * (np.pi * frequency * width[:, None]) ** 2)
    spectrum = np.fft.rfft(counts, 2 * _N_GRID, axis=1) * kernel
    return np.fft.irfft(spectrum, 2 * _N_GRID, axis=1)[:, :_N_GRID]


#: Weights that differ by less than this fraction are taken to be equal.
_EQUAL = 1e-6
#: Largest distance of a draw from the median that counts at a pixel, in units of the scatter.
_FARTHEST = 3.0


def weighted_means(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Average the draws of each galaxy at each pixel.

    Parameters
    ----------
    values : ndarray, shape (n_galaxies, n_draws, n_wavelength)
    weights : ndarray, shape (n_galaxies, n_draws)

    Returns
    -------
    ndarray of float64, shape (n_galaxies, n_wavelength)
    """
    return _by_galaxy(lambda draws, weight: _moments_weighted(draws, weight)[0], values, weights)


def weighted_scatters(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    r"""Give the standard deviation of the draws of each galaxy at each pixel.

    Parameters
    ----------
    values : ndarray, shape (n_galaxies, n_draws, n_wavelength)
    weights : ndarray, shape (n_galaxies, n_draws)

    Returns
    -------
    ndarray of float64, shape (n_galaxies, n_wavelength)
        NaN where fewer than two draws count: one draw says nothing of the scatter.

    Notes
    -----
    The variance :math:`\sum w (x - \bar x)^2 / (1 - \sum w^2)` is free of bias, also for few
    draws; with equal weights its divisor is the familiar :math:`n - 1`.
    """
    return _by_galaxy(lambda draws, weight: _moments_weighted(draws, weight)[1], values, weights)


def weighted_percentiles(
    values: np.ndarray, weights: np.ndarray, percentiles: np.ndarray
) -> np.ndarray:
    """Give percentiles of the draws of each galaxy at each pixel.

    Parameters
    ----------
    values : ndarray, shape (n_galaxies, n_draws, n_wavelength)
    weights : ndarray, shape (n_galaxies, n_draws)
    percentiles : ndarray, shape (n_percentiles,)
        Between 0 and 100.

    Returns
    -------
    ndarray of float64, shape (n_percentiles, n_galaxies, n_wavelength)

    Notes
    -----
    Between neighbours in order of value the probability grows by the mean of their two weights;
    the smallest draw is the 0th and the largest the 100th percentile, with linear interpolation
    between.  With equal weights this is the default of `numpy.percentile`.
    """
    fractions = np.asarray(percentiles, dtype=float) / 100
    result = np.empty((len(fractions), values.shape[0], values.shape[2]))
    for number, (draws, weight) in enumerate(zip(values, weights, strict=True)):
        result[:, number] = _percentiles(draws, weight, fractions)
    return result


def best_draws(
    values: np.ndarray, weights: np.ndarray, good: np.ndarray | None = None
) -> np.ndarray:
    """Find the draw of largest weight; of several, the most typical one.

    Parameters
    ----------
    values : ndarray, shape (n_galaxies, n_draws, n_wavelength)
    weights : ndarray, shape (n_galaxies, n_draws)
    good : ndarray of bool, shape (n_galaxies, n_wavelength), optional
        Pixels to compare, all by default; all too where none is good.

    Returns
    -------
    ndarray of int, shape (n_galaxies,)
        -1 for a galaxy without draws.

    Notes
    -----
    The most typical draw has the smallest mean distance from the median, in units of half the 68% range at each pixel and
    at most 3 of them.  The root mean square would be ruled by emission lines, and so prefer draws with faint ones.
    """
    best = np.full(len(values), -1)
    for number, (draws, weight) in enumerate(zip(values, weights, strict=True)):
        present = np.isfinite(draws).any(axis=1)
        if not present.any():
            continue
        largest = weight[present].max()
        candidates = np.flatnonzero(present & (weight >= largest * (1 - _EQUAL)))
        best[number] = candidates[0]
        if len(candidates) > 1:
            pixels = slice(None)
            if good is not None and good[number].any():
                pixels = good[number]
            distances = _distances(draws[:, pixels], weight)
            best[number] = candidates[np.argmin(distances[candidates])]
    return best


def systematic_choice(weights: np.ndarray) -> np.ndarray:
    """Choose as many draws as there are, each about as often as its weight says.

    Parameters
    ----------
    weights : ndarray, shape (n_galaxies, n_draws)
        Adding up to 1 along the draws.

    Returns
    -------
    ndarray of int, shape (n_galaxies, n_draws)
        Numbers of the draws, in rising order; with equal weights every draw once.

    Notes
    -----
    Systematic resampling (Kitagawa 1996, J. Comp. Graph. Stat. 5, 1) with the fixed offset 1/2:
    a draw of weight w is taken floor(n w) or ceil(n w) times, and nothing is random.
    """
    n_draws = weights.shape[1]
    positions = (np.arange(n_draws) + 0.5) / n_draws
    cumulative = np.cumsum(weights, axis=1, dtype=float)
    cumulative /= cumulative[:, -1:]
    chosen = [np.searchsorted(edges, positions, side="right") for edges in cumulative]
    return np.array(chosen, dtype=np.intp).reshape(weights.shape)


def _by_galaxy(
    function: Callable[[np.ndarray, np.ndarray], np.ndarray],
    values: np.ndarray,
    weights: np.ndarray,
) -> np.ndarray:
    result = np.empty((values.shape[0], values.shape[2]))
    for number, (draws, weight) in enumerate(zip(values, weights, strict=True)):
        result[number] = function(draws, weight)
    return result


def _moments_weighted(draws: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and scatter at each pixel of the draws of one galaxy, shape (n_draws, n_wavelength)."""
    draws = draws.astype(float)
    present = np.isfinite(draws)
    if present.all():
        share = (weight / weight.sum())[:, None]
    else:
        share = present * weight[:, None].astype(float)
        total = share.sum(axis=0)
        share = np.divide(share, total, out=np.full(share.shape, np.nan), where=total > 0)
        draws[~present] = 0.0
    mean = (share * draws).sum(axis=0)
    draws -= mean
    variance = (share * np.square(draws, out=draws)).sum(axis=0)
    freedom = 1 - np.square(share).sum(axis=0)
    # rounding leaves about 1e-16 of one weight alone
    freedom = np.where(freedom > 1e-12, freedom, np.nan)
    return mean, np.sqrt(variance / freedom)


def _percentiles(draws: np.ndarray, weight: np.ndarray, fractions: np.ndarray) -> np.ndarray:
    present = np.isfinite(draws)
    if present.all() and np.ptp(weight) <= _EQUAL * weight.max():
        return np.percentile(draws.astype(float), 100 * fractions, axis=0)
    counts = present & (weight > 0)[:, None]
    n_counting = np.count_nonzero(counts, axis=0)
    order = np.argsort(np.where(counts, draws, np.inf), axis=0)
    ordered = np.take_along_axis(draws, order, axis=0).astype(float)
    shares = np.take_along_axis(np.where(counts, weight[:, None], 0.0), order, axis=0)
    position = np.zeros(draws.shape)
    np.cumsum((shares[1:] + shares[:-1]) / 2, axis=0, out=position[1:])
    last = np.maximum(n_counting - 1, 0)[None]
    total = np.take_along_axis(position, last, axis=0)
    missing = np.arange(len(draws))[:, None] >= n_counting
    ordered[missing] = np.nan
    # where no draw counts, the first one, which is NaN, is taken
    position[1:][missing[1:]] = np.inf
    result = np.empty((len(fractions), draws.shape[1]))
    for number, fraction in enumerate(fractions):
        wanted = fraction * total
        below = np.count_nonzero(position <= wanted, axis=0)[None] - 1
        below = np.clip(below, 0, last)
        above = np.minimum(below + 1, last)
        low, high = (np.take_along_axis(position, index, axis=0) for index in (below, above))
        step = np.divide(wanted - low, high - low, out=np.zeros(low.shape), where=high > low)
        low, high = (np.take_along_axis(ordered, index, axis=0) for index in (below, above))
        result[number] = (low + np.clip(step, 0, 1) * (high - low))[0]
    return result


def _distances(draws: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Mean distance of each draw from the median in units of the scatter, over the pixels it has."""
    low, middle, high = _percentiles(draws, weight, np.array([0.16, 0.5, 0.84]))
    difference = np.abs(draws.astype(float) - middle)
    # Where the draws agree, one that does not is far.
    least = np.finfo(float).tiny
    difference = np.minimum(difference / np.maximum((high - low) / 2, least), _FARTHEST)
    present = np.isfinite(difference)
    number = np.maximum(np.count_nonzero(present, axis=1), 1)
    distance = np.where(present, difference, 0.0).sum(axis=1) / number
    return np.where(present.any(axis=1), distance, np.inf)
