"""Statistics over the draws of many galaxies, ignoring draws that are NaN.

Functions whose names begin with ``row`` take draws of one quantity, shape (n_galaxies, n_draws);
they process large arrays in blocks of galaxies to keep temporary arrays small.  The others take
draws of spectra, shape (n_galaxies, n_draws, n_wavelength), with one weight per draw.  The
statistics of a galaxy without draws are NaN, without a warning.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import astropy.units as u
import numpy as np
from astropy.units.function import FunctionUnitBase

from ..quantities import known_numbers

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

#: Largest number of values in a block of galaxies.
_BLOCK = 4_000_000
#: The same, for the grids on which modes are found.
_BLOCK_OF_GRIDS = 2_000_000
#: Number of points of the grid on which a mode is found.
_N_GRID = 256
#: Weights that differ by less than this fraction are considered equal.
_EQUAL = 1e-6
#: Largest distance of a draw from the median that counts at a pixel, in units of the scatter.
_MAX_DISTANCE = 3.0


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
    """Compute the standard deviation (divisor: number of draws) of the finite draws of each galaxy.

    Parameters
    ----------
    values : ndarray, shape (n_galaxies, n_draws)

    Returns
    -------
    ndarray of float64, shape (n_galaxies,)
    """
    return _by_blocks(_moments, values)[1]


def row_percentiles(values: np.ndarray, percentiles: Sequence[float] | np.ndarray) -> np.ndarray:
    """Compute percentiles of the finite draws of each galaxy, linearly interpolated.

    Parameters
    ----------
    values : ndarray, shape (n_galaxies, n_draws)
    percentiles : ndarray, shape (n_percentiles,)
        Percentiles between 0 and 100.

    Returns
    -------
    ndarray of float64, shape (n_percentiles, n_galaxies)
    """
    fractions = np.asarray(percentiles, dtype=float)[:, None] / 100

    def of_block(block: np.ndarray) -> np.ndarray:
        ordered = np.sort(block, axis=1)  # NaN last
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
    """Convert draws and true values to arrays in the unit of the draws.

    Parameters
    ----------
    draws : `~astrogenspec.QuantityPosterior`, Quantity or ndarray, shape (n_galaxies, n_draws)
    truth : Quantity or array-like, shape (n_galaxies,)
        Bare numbers are taken to be in the unit of the draws.  Values that are masked, not finite
        or fill values (`~astrogenspec.quantities.known_numbers`) become NaN: unknown.
    name : str
        Name of the truth in error messages.

    Returns
    -------
    draws : ndarray, shape (n_galaxies, n_draws)
    truth : ndarray, shape (n_galaxies,)
    unit : unit of both, or None

    Raises
    ------
    ValueError
        If the shapes do not match.
    astropy.units.UnitConversionError
        If the units do not convert.
    """
    quantity = getattr(draws, "name", "")
    draws = getattr(draws, "draws", draws)
    unit = getattr(draws, "unit", None)
    values = np.asarray(draws.value if unit is not None else draws)
    if values.ndim != 2 or values.shape[1] == 0:
        raise ValueError(
            f"draws has shape {values.shape}; expected (n_galaxies, n_draws) with at least one "
            "draw."
        )
    true, _ = known_numbers(truth, unit, quantity=quantity, name=name)
    if true.shape != values.shape[:1]:
        raise ValueError(
            f"{name} has shape {true.shape}, but the draws are of {len(values)} galaxies; "
            f"give one true value per galaxy, shape ({len(values)},)."
        )
    return values, true, unit


def difference_unit(unit: u.UnitBase | None) -> u.UnitBase | None:
    """Return the unit of a difference: dex for dex(Msun), otherwise the unit itself.

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
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        mean = np.nansum(block, axis=1, dtype=float) / n_finite
        square = np.nansum((block - mean[:, None]) ** 2, axis=1) / n_finite
    return np.stack([mean, np.sqrt(square)])


def _by_blocks(
    function: Callable[..., np.ndarray],
    values: np.ndarray,
    *others: np.ndarray,
    n_results: int = 2,
    n_rows: int | None = None,
) -> np.ndarray:
    """Apply a function to blocks of rows, and join its results of shape (n_results, n_rows)."""
    step = max(_BLOCK // values.shape[1], 1) if n_rows is None else n_rows
    blocks = [slice(start, start + step) for start in range(0, len(values), step)]
    results = [function(values[rows], *(other[rows] for other in others)) for rows in blocks]
    return np.concatenate(results, axis=1) if results else np.empty((n_results, 0))


def row_modes(values: np.ndarray) -> np.ndarray:
    """Find the value of highest density of the finite draws of each galaxy.

    Parameters
    ----------
    values : ndarray, shape (n_galaxies, n_draws)

    Returns
    -------
    ndarray of float64, shape (n_galaxies,)
        NaN for a galaxy without draws.

    Notes
    -----
    The density is estimated with a Gaussian kernel of the width of Silverman (1986, Density
    Estimation, eq. 3.31), on a grid between the 0.1 and 99.9 percentiles.  The mode is the maximum
    of the parabola through the highest three points.
    """
    values = np.asarray(values)
    n_rows = max(_BLOCK_OF_GRIDS // max(values.shape[1], _N_GRID), 1)
    return _by_blocks(lambda block: _modes(block)[None], values, n_results=1, n_rows=n_rows)[0]


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
    position = np.where(inner == top, inner + np.clip(offset, -0.5, 0.5), top)
    result[usable] = low + position * step
    return result


def _binned(values: np.ndarray, low: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Distribute every draw over the two nearest points of the grid of its galaxy."""
    position = (values.astype(float) - low[:, None]) / step[:, None]
    inside = (position >= 0) & (position <= _N_GRID - 1)
    position = np.where(inside, position, 0.0)
    left = np.minimum(position.astype(np.intp), _N_GRID - 2)
    right_weight = np.where(inside, position - left, 0.0)
    left_weight = np.where(inside, 1 - (position - left), 0.0)
    cell = left + _N_GRID * np.arange(len(values))[:, None]
    size = len(values) * _N_GRID
    counts = np.bincount(cell.ravel(), left_weight.ravel(), size)
    counts += np.bincount(cell.ravel() + 1, right_weight.ravel(), size + 1)[:size]
    return counts.reshape(len(values), _N_GRID)


def _smoothed(counts: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Convolve each row with a Gaussian; the grid is padded to avoid wrap-around."""
    frequency = np.fft.rfftfreq(2 * _N_GRID)
    kernel = np.exp(-2 * (np.pi * frequency * width[:, None]) ** 2)
    spectrum = np.fft.rfft(counts, 2 * _N_GRID, axis=1) * kernel
    return np.fft.irfft(spectrum, 2 * _N_GRID, axis=1)[:, :_N_GRID]


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
    r"""Compute the standard deviation of the draws of each galaxy at each pixel.

    Parameters
    ----------
    values : ndarray, shape (n_galaxies, n_draws, n_wavelength)
    weights : ndarray, shape (n_galaxies, n_draws)

    Returns
    -------
    ndarray of float64, shape (n_galaxies, n_wavelength)
        NaN where fewer than two draws have weight.

    Notes
    -----
    The estimate :math:`\sum w (x - \bar x)^2 / (1 - \sum w^2)` of the variance is unbiased; with
    equal weights its divisor is :math:`n - 1`.
    """
    return _by_galaxy(lambda draws, weight: _moments_weighted(draws, weight)[1], values, weights)


def weighted_percentiles(
    values: np.ndarray, weights: np.ndarray, percentiles: np.ndarray
) -> np.ndarray:
    """Compute percentiles of the draws of each galaxy at each pixel.

    Parameters
    ----------
    values : ndarray, shape (n_galaxies, n_draws, n_wavelength)
    weights : ndarray, shape (n_galaxies, n_draws)
    percentiles : ndarray, shape (n_percentiles,)
        Percentiles between 0 and 100.

    Returns
    -------
    ndarray of float64, shape (n_percentiles, n_galaxies, n_wavelength)

    Notes
    -----
    From one draw to the next in order of value, the cumulative probability grows by the mean of
    their weights; the smallest draw is the 0th and the largest the 100th percentile, with linear
    interpolation.  With equal weights this is the default method of `numpy.percentile`.
    """
    fractions = np.asarray(percentiles, dtype=float) / 100
    result = np.empty((len(fractions), values.shape[0], values.shape[2]))
    for number, (draws, weight) in enumerate(zip(values, weights, strict=True)):
        result[:, number] = _percentiles(draws, weight, fractions)
    return result


def best_draws(
    values: np.ndarray, weights: np.ndarray, good: np.ndarray | None = None
) -> np.ndarray:
    """Find the draw of largest weight; among several, the most typical one.

    Parameters
    ----------
    values : ndarray, shape (n_galaxies, n_draws, n_wavelength)
    weights : ndarray, shape (n_galaxies, n_draws)
    good : ndarray of bool, shape (n_galaxies, n_wavelength), optional
        Pixels to compare; all by default, and for galaxies without good pixels.

    Returns
    -------
    ndarray of int, shape (n_galaxies,)
        -1 for a galaxy without draws.

    Notes
    -----
    The most typical draw has the smallest mean absolute distance from the median; distances are in
    units of half the 68% range at each pixel, and at most 3.  The root mean square would be
    dominated by emission lines and favour draws with faint lines.
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
    """Resample the draws of each galaxy in proportion to their weights.

    Parameters
    ----------
    weights : ndarray, shape (n_galaxies, n_draws)
        Weights, which sum to 1 for each galaxy.

    Returns
    -------
    ndarray of int, shape (n_galaxies, n_draws)
        Numbers of the draws in increasing order; with equal weights, every draw once.

    Notes
    -----
    Systematic resampling (Kitagawa 1996, J. Comp. Graph. Stat. 5, 1) with the fixed offset 1/2: a
    draw of weight w is taken floor(n w) or ceil(n w) times.  The result is not random.
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
    """Compute mean and scatter at each pixel of draws (n_draws, n_wavelength) of one galaxy."""
    draws = draws.astype(float)
    present = np.isfinite(draws)
    if present.all():
        fraction = (weight / weight.sum())[:, None]
    else:
        fraction = present * weight[:, None].astype(float)
        total = fraction.sum(axis=0)
        fraction = np.divide(fraction, total, out=np.full(fraction.shape, np.nan), where=total > 0)
        draws[~present] = 0.0
    mean = (fraction * draws).sum(axis=0)
    draws -= mean
    variance = (fraction * np.square(draws, out=draws)).sum(axis=0)
    freedom = 1 - np.square(fraction).sum(axis=0)
    # A single draw with weight has about 1e-16 degrees of freedom, by rounding.
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
    ordered_weights = np.take_along_axis(np.where(counts, weight[:, None], 0.0), order, axis=0)
    position = np.zeros(draws.shape)
    np.cumsum((ordered_weights[1:] + ordered_weights[:-1]) / 2, axis=0, out=position[1:])
    last = np.maximum(n_counting - 1, 0)[None]
    total = np.take_along_axis(position, last, axis=0)
    missing = np.arange(len(draws))[:, None] >= n_counting
    ordered[missing] = np.nan
    # Where no draw counts, take the first one, which is NaN.
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
    """Compute the mean distance of each draw from the median, in units of the scatter."""
    low, middle, high = _percentiles(draws, weight, np.array([0.16, 0.5, 0.84]))
    difference = np.abs(draws.astype(float) - middle)
    # A draw that differs where all others agree has the largest distance.
    scatter = np.maximum((high - low) / 2, np.finfo(float).tiny)
    difference = np.minimum(difference / scatter, _MAX_DISTANCE)
    present = np.isfinite(difference)
    number = np.maximum(np.count_nonzero(present, axis=1), 1)
    distance = np.where(present, difference, 0.0).sum(axis=1) / number
    return np.where(present.any(axis=1), distance, np.inf)
