"""Checks of what users pass to a posterior: each returns a private copy or says what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import QTable, Table

from ..derived import DERIVED_QUANTITIES
from ..flags import Flag
from ..quantities import FLUX_UNIT, QUANTITIES, plain_values
from ..surveys import BANDS
from .quantity import suggestion

__all__ = [
    "checked_draws",
    "checked_flag_codes",
    "checked_flags",
    "checked_flux",
    "checked_index",
    "checked_measurable",
    "checked_names",
    "checked_photometry",
    "checked_posterior_draw",
    "checked_redshift",
    "checked_residual",
    "checked_trusted",
    "checked_wavelength",
    "checked_weights",
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


def checked_flag_codes(flag_codes: Any, flags: np.ndarray) -> np.ndarray:
    """Copy the flag codes; a flag without a code gets `Flag.TEXT_ONLY`.

    Parameters
    ----------
    flag_codes : array_like of int, shape (n_galaxies,), or None
    flags : ndarray of str objects, shape (n_galaxies,)

    Returns
    -------
    ndarray of int64, shape (n_galaxies,)

    Raises
    ------
    TypeError
        If the codes are not integers.
    ValueError
        If the shape is wrong or a code is negative.
    """
    text_only = np.where(flags != "", int(Flag.TEXT_ONLY), 0)
    if flag_codes is None:
        return text_only.astype(np.int64)
    codes = np.asarray(flag_codes)
    if codes.size and codes.dtype.kind not in "iu":
        raise TypeError(
            f"flag_codes has dtype {codes.dtype}; integers (codes of astrogenspec.Flag) are expected."
        )
    if codes.shape != flags.shape:
        raise ValueError(
            f"flag_codes has shape {codes.shape}, but there are {len(flags)} galaxies; pass one code per galaxy."
        )
    codes = codes.astype(np.int64)
    if (codes < 0).any():
        raise ValueError(f"flag_codes contains {codes.min()}; codes must not be negative.")
    return np.where(codes == 0, text_only, codes)


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
            f"galaxies cannot be selected by {key!r}; use a number, a slice, a boolean mask or a flat list of "
            f"numbers, or galaxy() to select one by its name."
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


def checked_wavelength(wavelength: Any) -> u.Quantity:
    """Copy the wavelength grid.

    Parameters
    ----------
    wavelength : Quantity, shape (n_wavelength,)

    Returns
    -------
    Quantity ['Angstrom'] of float64

    Raises
    ------
    TypeError, ValueError, astropy.units.UnitConversionError
        If it is no Quantity of length, has another shape, or does not rise.
    """
    _need_quantity("wavelength", wavelength, "in units of length, such as Angstrom")
    grid = plain_values(wavelength, u.AA, name="wavelength").astype(float)
    if grid.ndim != 1 or len(grid) < 2:
        raise ValueError(
            f"wavelength has shape {grid.shape}; give shape (n_wavelength,), at least two pixels."
        )
    if not (np.isfinite(grid).all() and (grid > 0).all()):
        raise ValueError("wavelength holds values that are not positive numbers; give a full grid.")
    falling = np.flatnonzero(np.diff(grid) <= 0)
    if len(falling):
        k = int(falling[0])
        raise ValueError(
            f"wavelength does not rise from pixel {k} ({grid[k]:.6g} AA) to {k + 1} "
            f"({grid[k + 1]:.6g} AA); sort the grid and the flux with it."
        )
    return u.Quantity(grid, u.AA, copy=False)


def checked_flux(flux: Any, wavelength: u.Quantity) -> u.Quantity:
    """Copy the draws as single precision in `FLUX_UNIT`.

    Parameters
    ----------
    flux : Quantity, shape (n_galaxies, n_draws, n_wavelength)
        Per wavelength, or per frequency (converted with the wavelength).
    wavelength : Quantity, shape (n_wavelength,)

    Returns
    -------
    Quantity of float32

    Raises
    ------
    TypeError, ValueError, astropy.units.UnitConversionError
        If it is no spectral flux density, has another shape, or is infinite.
    """
    _need_quantity("flux", flux, f"in units of spectral flux density, such as {FLUX_UNIT}")
    if flux.ndim != 3 or 0 in flux.shape[1:]:
        raise ValueError(
            f"flux has shape {flux.shape}; give shape (n_galaxies, n_draws, n_wavelength) with at "
            f"least one draw."
        )
    if flux.shape[2] != len(wavelength):
        raise ValueError(
            f"flux has {flux.shape[2]} pixels a spectrum, but there are {len(wavelength)} "
            f"wavelengths; give one flux a wavelength."
        )
    if not flux.unit.is_equivalent(FLUX_UNIT) and flux.unit.is_equivalent(u.Jy):
        flux = flux.to(FLUX_UNIT, u.spectral_density(wavelength))
    with np.errstate(over="ignore"):
        values = plain_values(flux, FLUX_UNIT, name="flux").astype(np.float32, copy=False)
    infinite = np.isinf(values).any(axis=(1, 2))
    if infinite.any():
        raise ValueError(
            f"flux holds infinite values, the first in galaxy {int(np.argmax(infinite))}; mark draws that do "
            f"not exist by NaN."
        )
    return u.Quantity(values, FLUX_UNIT, copy=False)


def checked_redshift(redshift: Any, exists: np.ndarray) -> np.ndarray:
    """Copy the redshifts of the draws.

    Parameters
    ----------
    redshift : array_like, shape (n_galaxies, n_draws)
    exists : ndarray of bool, shape (n_galaxies, n_draws)
        Draws that are not NaN.

    Returns
    -------
    ndarray of float64
        NaN for draws that do not exist.

    Raises
    ------
    ValueError
        If the shape is another, or a draw has no redshift above -1.
    """
    values = plain_values(redshift, u.dimensionless_unscaled, name="redshift").astype(float)
    _need_shape("redshift", values, exists.shape, "give one redshift a draw")
    wrong = exists & ~((values > -1) & np.isfinite(values))
    if wrong.any():
        galaxy, draw = (int(k) for k in np.argwhere(wrong)[0])
        raise ValueError(
            f"redshift of galaxy {galaxy}, draw {draw}, is {values[galaxy, draw]:g}; give a number above -1 "
            f"for every draw that is not NaN."
        )
    values[~exists] = np.nan
    return values


def checked_weights(weights: Any, exists: np.ndarray) -> np.ndarray:
    """Copy the weights, scaled to add up to 1 for each galaxy.

    Parameters
    ----------
    weights : array_like of shape (n_galaxies, n_draws), or None for equal ones
    exists : ndarray of bool, shape (n_galaxies, n_draws)
        Draws that are not NaN; the others get no weight.

    Returns
    -------
    ndarray of float64
        Equal for a galaxy without draws.

    Raises
    ------
    ValueError
        If the shape is another, a weight is negative or NaN, or all weights of a galaxy are zero.
    """
    if weights is None:
        values = np.ones(exists.shape)
    else:
        values = plain_values(weights, u.dimensionless_unscaled, name="weights").astype(float)
        _need_shape("weights", values, exists.shape, "give one weight a draw")
        wrong = exists & ~((values >= 0) & np.isfinite(values))
        if wrong.any():
            galaxy, draw = (int(k) for k in np.argwhere(wrong)[0])
            raise ValueError(
                f"weights of galaxy {galaxy}, draw {draw}, is {values[galaxy, draw]:g}; give numbers that are "
                f"not negative."
            )
    values[~exists] = 0.0
    values[~exists.any(axis=1)] = 1.0
    total = values.sum(axis=1, keepdims=True)
    if (total == 0).any():
        raise ValueError(
            f"the weights of galaxy {int(np.argmin(total[:, 0]))} are all zero; give at least one draw a "
            f"weight."
        )
    # weights that were scaled before stay what they are, to the last bit
    return values / np.where(np.abs(total - 1) < 1e-12, 1.0, total)


def checked_posterior_draw(posterior_draw: Any, exists: np.ndarray) -> np.ndarray:
    """Copy the numbers of the draws of the posterior.

    Parameters
    ----------
    posterior_draw : array_like of int, shape (n_galaxies, n_draws), or None if they are unknown
    exists : ndarray of bool, shape (n_galaxies, n_draws)
        Draws that are not NaN.

    Returns
    -------
    ndarray of int64
        -1 where unknown, and for draws that do not exist.

    Raises
    ------
    TypeError
        If they are no integers.
    ValueError
        If the shape is another, or a number is below -1.
    """
    if posterior_draw is None:
        return np.full(exists.shape, -1)
    values = np.asarray(posterior_draw)
    if values.dtype.kind not in "iu":
        raise TypeError(
            f"posterior_draw has values of type {values.dtype}; give integers, -1 where the draw is not known."
        )
    _need_shape("posterior_draw", values, exists.shape, "give one number a draw")
    if (values < -1).any():
        raise ValueError(
            f"posterior_draw holds {values.min()}; give numbers from 0, or -1 where the draw is not known."
        )
    return np.where(exists, values, -1).astype(np.int64)


def checked_residual(residual: Any, shape: tuple[int, int]) -> u.Quantity | None:
    """Copy the differences of synthetic and input photometry.

    Parameters
    ----------
    residual : Quantity of shape (n_galaxies, n_draws, 5), or None
        Bare numbers are taken to be magnitudes.
    shape : (n_galaxies, n_draws)

    Returns
    -------
    Quantity ['mag'] of float32, or None

    Raises
    ------
    ValueError, astropy.units.UnitConversionError
        If the shape is another, or the unit no magnitude.
    """
    if residual is None:
        return None
    values = plain_values(residual, u.mag, name="photometric_residual").astype(np.float32)
    _need_shape(
        "photometric_residual",
        values,
        (*shape, len(BANDS)),
        f"give one difference for each draw and each of the bands {', '.join(BANDS)}",
    )
    return u.Quantity(values, u.mag, copy=False)


def checked_trusted(trusted: Any, n_galaxies: int, n_wavelength: int) -> np.ndarray:
    """Copy the pixels that the model vouches for.

    Parameters
    ----------
    trusted : array_like of bool, shape (n_galaxies, n_wavelength) or (n_wavelength,), or None
        None: all of them.
    n_galaxies, n_wavelength : int

    Returns
    -------
    ndarray of bool, shape (n_galaxies, n_wavelength)

    Raises
    ------
    TypeError
        If it is not boolean.
    ValueError
        If the shape is another.
    """
    shape = (n_galaxies, n_wavelength)
    if trusted is None:
        return np.ones(shape, dtype=bool)
    values = np.asarray(trusted)
    if values.dtype != bool:
        raise TypeError(
            f"trusted has values of type {values.dtype}; give booleans, False where the model has no coverage."
        )
    if values.shape == (n_wavelength,):
        values = np.broadcast_to(values, shape)
    _need_shape("trusted", values, shape, "give one boolean for each galaxy and pixel")
    return np.array(values)


def _need_quantity(argument: str, value: Any, wanted: str) -> None:
    if getattr(value, "unit", None) is None:
        raise TypeError(
            f"{argument} is a {type(value).__name__} without a unit; give a Quantity {wanted}."
        )


def _need_shape(argument: str, values: np.ndarray, shape: tuple[int, ...], advice: str) -> None:
    if values.shape != shape:
        raise ValueError(
            f"{argument} has shape {values.shape}, but shape {shape} is wanted; {advice}."
        )
