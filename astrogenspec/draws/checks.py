"""Checks of what users pass to a posterior: each returns a private copy or says what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import QTable, Table

from ..derived import DERIVED_QUANTITIES
from ..quantities import QUANTITIES
from .quantity import suggestion
from .statistics import plain_values

__all__ = [
    "checked_draws",
    "checked_flags",
    "checked_index",
    "checked_measurable",
    "checked_names",
    "checked_photometry",
    "index_of_name",
]


def checked_draws(draws: Any) -> dict[str, u.Quantity]:
    """Copy the draws in the units of the quantities, known quantities first, in their order.

    Parameters
    ----------
    draws : mapping of str to Quantity, each of shape (n_galaxies, n_draws)

    Returns
    -------
    dict of str to Quantity

    Raises
    ------
    TypeError, ValueError, astropy.units.UnitConversionError
        If something is wrong with a quantity; the message names it.
    """
    if not isinstance(draws, Mapping):
        raise TypeError(
            f"draws is a {type(draws).__name__}; give a mapping of names to Quantities of shape "
            f"(n_galaxies, n_draws)."
        )
    if not draws:
        raise ValueError("draws is empty; give the draws of at least one quantity.")
    order = [name for name in QUANTITIES if name in draws]
    order += [name for name in draws if name not in QUANTITIES]
    checked = {name: _checked_quantity(name, draws[name]) for name in order}
    shapes = {name: values.shape for name, values in checked.items()}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"the draws have different shapes: {listed}; give all of them one shape.")
    return checked


def checked_names(names: Any, n_galaxies: int) -> np.ndarray:
    """Copy the names of the galaxies, or number them.

    Parameters
    ----------
    names : sequence of str or None
    n_galaxies : int

    Returns
    -------
    ndarray of str objects, shape (n_galaxies,)
    """
    if names is None:
        names = map(str, range(n_galaxies))
    return _checked_strings("names", names, n_galaxies)


def checked_flags(flags: Any, n_galaxies: int) -> np.ndarray:
    """Copy the flags, or make empty ones.

    Parameters
    ----------
    flags : sequence of str or None
    n_galaxies : int

    Returns
    -------
    ndarray of str objects, shape (n_galaxies,)
    """
    return _checked_strings("flags", [""] * n_galaxies if flags is None else flags, n_galaxies)


def checked_measurable(measurable: Any, n_galaxies: int) -> np.ndarray | None:
    """Copy probabilities.

    Parameters
    ----------
    measurable : array_like of shape (n_galaxies,), or None
    n_galaxies : int

    Returns
    -------
    ndarray of float64, shape (n_galaxies,), or None

    Raises
    ------
    ValueError
        If the shape is another, or a value is not between 0 and 1.
    """
    if measurable is None:
        return None
    values = plain_values(measurable, u.dimensionless_unscaled, name="measurable").astype(float)
    if values.shape != (n_galaxies,):
        raise ValueError(
            f"measurable has shape {values.shape}, but the draws are of {n_galaxies} galaxies; "
            f"give one probability a galaxy."
        )
    wrong = (values < 0) | (values > 1)
    if wrong.any():
        raise ValueError(
            f"measurable holds {values[wrong][0]:g}; give probabilities between 0 and 1, or NaN."
        )
    return values


def checked_photometry(photometry: Any, n_galaxies: int) -> QTable | None:
    """Copy the table of photometry.

    Parameters
    ----------
    photometry : `~astropy.table.Table` or None
    n_galaxies : int

    Returns
    -------
    `~astropy.table.QTable` or None

    Raises
    ------
    TypeError
        If it is not a table.
    ValueError
        If it has another number of rows.
    """
    if photometry is None:
        return None
    if not isinstance(photometry, Table):
        raise TypeError(
            f"photometry is a {type(photometry).__name__}; give an astropy Table, a row a galaxy."
        )
    if len(photometry) != n_galaxies:
        raise ValueError(
            f"photometry has {len(photometry)} rows, but the draws are of {n_galaxies} galaxies; "
            f"give one row a galaxy."
        )
    return QTable(photometry, copy=True)


def checked_index(key: Any, n_galaxies: int) -> slice | np.ndarray:
    """Turn a choice of galaxies into an index that keeps the axis of galaxies.

    Parameters
    ----------
    key : int, slice, or array_like of int or bool
    n_galaxies : int

    Returns
    -------
    slice or ndarray

    Raises
    ------
    IndexError
        If a number is out of range, or a mask has another length.
    TypeError
        If the key is of another kind.
    """
    if isinstance(key, slice):
        return key
    rows = np.asarray(key) if not isinstance(key, tuple) else np.empty((0, 0))
    if rows.size == 0 and rows.ndim == 1:
        rows = rows.astype(bool if rows.dtype == bool else int)
    if rows.dtype == bool and rows.ndim == 1:
        if rows.shape != (n_galaxies,):
            raise IndexError(
                f"the mask has {len(rows)} entries, but there are {n_galaxies} galaxies; "
                f"give one entry a galaxy."
            )
        return rows
    if rows.dtype.kind not in "iu" or rows.ndim > 1:
        raise TypeError(
            f"a Posterior is indexed by the name of a quantity, or by galaxies (a number, slice, boolean "
            f"mask or flat list of numbers), not by {key!r}."
        )
    outside = (rows < -n_galaxies) | (rows >= n_galaxies)
    if outside.any():
        raise IndexError(
            f"there is no galaxy {rows[outside].flat[0]}: there are {n_galaxies}, counted from 0."
        )
    if rows.ndim == 0:
        number = int(rows) % n_galaxies
        return slice(number, number + 1)
    return rows


def index_of_name(name: str, names: np.ndarray) -> int:
    """Find the one galaxy of a name.

    Parameters
    ----------
    name : str
    names : ndarray of str objects

    Returns
    -------
    int

    Raises
    ------
    KeyError
        If no galaxy has the name.
    ValueError
        If several have.
    """
    found = np.flatnonzero(names == name)
    if len(found) == 0:
        raise KeyError(f"no galaxy is named {name!r}{suggestion(str(name), names)}.")
    if len(found) > 1:
        listed = ", ".join(map(str, found[:5])) + (", ..." if len(found) > 5 else "")
        raise ValueError(
            f"{len(found)} galaxies are named {name!r} (numbers {listed}); select one by its number."
        )
    return int(found[0])


def _checked_quantity(name: Any, values: Any) -> u.Quantity:
    if not isinstance(name, str) or not name:
        raise TypeError(f"draws has the key {name!r}; name the quantities by non-empty strings.")
    if name in DERIVED_QUANTITIES:
        raise ValueError(
            f"{name!r} is derived from other quantities, and cannot be drawn; give "
            f"{' and '.join(DERIVED_QUANTITIES[name].needs)} instead."
        )
    unit = getattr(values, "unit", None)
    known = u.Unit(QUANTITIES[name].unit) if name in QUANTITIES else None
    if unit is None:
        if known is not None and known != u.dimensionless_unscaled:
            raise TypeError(
                f"draws[{name!r}] has no unit; give a Quantity that converts to {known}."
            )
        known = u.dimensionless_unscaled if known is None else known
    wanted = unit if known is None else known
    numbers = plain_values(values, wanted, name=f"draws[{name!r}]")
    if numbers.ndim != 2 or numbers.shape[1] == 0:
        raise ValueError(
            f"draws[{name!r}] has shape {numbers.shape}; give shape (n_galaxies, n_draws) with at least "
            f"one draw."
        )
    if np.isinf(numbers).any():
        galaxy = int(np.flatnonzero(np.isinf(numbers).any(axis=1))[0])
        raise ValueError(
            f"draws[{name!r}] holds infinite values, the first in galaxy {galaxy}; mark draws that do not "
            f"exist by NaN."
        )
    return u.Quantity(numbers, wanted, subok=True, copy=False)


def _checked_strings(argument: str, values: Any, n_galaxies: int) -> np.ndarray:
    if isinstance(values, str):
        raise TypeError(f"{argument} is one string, {values!r}; give one string a galaxy.")
    mask = np.ma.getmaskarray(values) if isinstance(values, np.ma.MaskedArray) else None
    entries = list(values.data if mask is not None else values)
    if len(entries) != n_galaxies:
        raise ValueError(
            f"{argument} has {len(entries)} entries, but the draws are of {n_galaxies} galaxies; "
            f"give one entry a galaxy."
        )
    # objects, not a fixed width: one long name must not cost its length for every galaxy
    result = np.empty(n_galaxies, dtype=object)
    for number, entry in enumerate(entries):
        if not isinstance(entry, str):
            raise TypeError(
                f"{argument}[{number}] is {entry!r}, of type {type(entry).__name__}; give strings."
            )
        result[number] = "" if mask is not None and mask[number] else str(entry)
    return result
