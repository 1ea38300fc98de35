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
from astropy.utils.masked import Masked

__all__ = [
    "difference_unit",
    "matched_values",
    "plain_values",
    "row_means",
    "row_percentiles",
    "row_ranks",
    "row_standard_deviations",
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


def plain_values(values: Any, unit: u.UnitBase | None, *, name: str = "values") -> np.ndarray:
    """Convert numbers of any kind to a float array in a given unit; masked entries become NaN.

    Parameters
    ----------
    values : array-like
        Quantity, masked Quantity, table column or bare numbers; bare numbers are taken to be in
        ``unit``.
    unit : unit or None
        Unit wanted.  None: the numbers must have no unit either.
    name : str
        How the error message names the values.

    Returns
    -------
    ndarray of float

    Raises
    ------
    astropy.units.UnitConversionError
        If the unit of the values does not fit.
    TypeError
        If the values are not numbers.

    Notes
    -----
    Linear values that are not positive have no logarithm: converted to a dex unit they become
    infinite or NaN.
    """
    mask = getattr(values, "mask", None)
    if isinstance(values, Masked):
        values = values.unmasked
    elif isinstance(values, np.ma.MaskedArray):
        values = values.filled(values.fill_value)
    given = getattr(values, "unit", None)
    try:
        if given is not None:
            wanted = u.dimensionless_unscaled if unit is None else unit
            with np.errstate(divide="ignore", invalid="ignore"):
                values = u.Quantity(values, subok=True).to_value(wanted)
        if np.asarray(values).dtype.kind not in "biuf":
            raise TypeError
        result = np.array(values, dtype=np.result_type(np.asarray(values).dtype, np.float32))
    except u.UnitsError:
        wanted = "no unit" if unit is None else f"the unit {str(unit) or 'one (dimensionless)'!r}"
        raise u.UnitConversionError(
            f"{name} has the unit {str(given) or 'one (dimensionless)'!r}, but {wanted} is wanted; "
            f"give values that convert to it."
        ) from None
    except (TypeError, ValueError):
        raise TypeError(
            f"{name} is {type(values).__name__!r} with entries that are not numbers; "
            f"give a Quantity or an array of numbers."
        ) from None
    if mask is not None:
        result[np.broadcast_to(np.asarray(mask), result.shape)] = np.nan
    return result


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
