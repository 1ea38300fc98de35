"""Validation of the arguments of `Posterior` and `SpectrumDraws`.

Every function ``checked_...`` returns a copy in the internal form, or raises an error that names
the argument.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import QTable, Table

from ..derived import DERIVED_QUANTITIES
from ..flags import Flag
from ..quantities import FLUX_UNIT, LINE_FLUX_UNIT, QUANTITIES, plain_values
from ..surveys import BANDS
from .quantity import suggestion

__all__ = [
    "checked_draws",
    "checked_flag_codes",
    "checked_flags",
    "checked_flux",
    "checked_index",
    "checked_line_flux",
    "checked_measurable",
    "checked_named",
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
    """Copy the draws in the units of the quantities, in their order, followed by other quantities.

    Parameters
    ----------
    draws : mapping of str to Quantity, each of shape (n_galaxies, n_draws)
        Draws by the name of the quantity.

    Returns
    -------
    dict of str to Quantity

    Raises
    ------
    TypeError, ValueError, astropy.units.UnitConversionError
        If the draws of a quantity are invalid; the message names it.
    """
    if not isinstance(draws, Mapping):
        raise TypeError(
            f"draws is of type {type(draws).__name__}; a mapping of names to Quantities of shape "
            f"(n_galaxies, n_draws) is expected."
        )
    if not draws:
        raise ValueError("draws is empty; give the draws of at least one quantity.")
    order = [name for name in QUANTITIES if name in draws]
    order += [name for name in draws if name not in QUANTITIES]
    checked = {name: _checked_quantity(name, draws[name]) for name in order}
    shapes = {name: values.shape for name, values in checked.items()}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(
            f"the draws have different shapes: {listed}; all must have the same shape."
        )
    return checked


def checked_names(names: Any, n_galaxies: int) -> np.ndarray:
    """Copy the names of the galaxies; number them if there are none.

    Parameters
    ----------
    names : sequence of str or None
        Names of the galaxies.
    n_galaxies : int
        Number of galaxies.

    Returns
    -------
    ndarray of str objects, shape (n_galaxies,)
    """
    if names is None:
        names = map(str, range(n_galaxies))
    return _checked_strings("names", names, n_galaxies)


def checked_named(named: Any, names: Any, n_galaxies: int) -> np.ndarray:
    """Copy whether the galaxies have names; by default all or none, depending on ``names``.

    Parameters
    ----------
    named : array_like of bool, shape (n_galaxies,), or None
        Whether a galaxy has a name, rather than a number.
    names : sequence of str or None
        Names of the galaxies.
    n_galaxies : int
        Number of galaxies.

    Returns
    -------
    ndarray of bool, shape (n_galaxies,)

    Raises
    ------
    ValueError
        If the shape is wrong.
    """
    checked = np.full(n_galaxies, names is not None) if named is None else np.array(named, bool)
    if checked.shape != (n_galaxies,):
        raise ValueError(
            f"named has shape {checked.shape}; one entry for each of the {n_galaxies} galaxies "
            "is expected."
        )
    return checked


def checked_flags(flags: Any, n_galaxies: int) -> np.ndarray:
    """Copy the texts of the flags; empty strings if there are none.

    Parameters
    ----------
    flags : sequence of str or None
        Texts of the flags.
    n_galaxies : int
        Number of galaxies.

    Returns
    -------
    ndarray of str objects, shape (n_galaxies,)
    """
    return _checked_strings("flags", [""] * n_galaxies if flags is None else flags, n_galaxies)


def checked_flag_codes(flag_codes: Any, flags: np.ndarray) -> np.ndarray:
    """Copy the flag codes; a flag without a code gets ``Flag.TEXT_ONLY``.

    Parameters
    ----------
    flag_codes : array_like of int, shape (n_galaxies,), or None
        Codes of the flags.
    flags : ndarray of str objects, shape (n_galaxies,)
        Texts of the flags.

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
            f"flag_codes has dtype {codes.dtype}; integers (codes of astrogenspec.Flag) are "
            "expected."
        )
    if codes.shape != flags.shape:
        raise ValueError(
            f"flag_codes has shape {codes.shape}, but there are {len(flags)} galaxies; pass one "
            "code per galaxy."
        )
    codes = codes.astype(np.int64)
    if (codes < 0).any():
        raise ValueError(f"flag_codes contains {codes.min()}; codes must not be negative.")
    return np.where(codes == 0, text_only, codes)


def checked_measurable(measurable: Any, n_galaxies: int) -> np.ndarray | None:
    """Copy the probabilities that the gas metallicity is measurable.

    Parameters
    ----------
    measurable : array_like of shape (n_galaxies,), or None
        Probabilities.
    n_galaxies : int
        Number of galaxies.

    Returns
    -------
    ndarray of float64, shape (n_galaxies,), or None

    Raises
    ------
    ValueError
        If the shape is wrong, or a value is not between 0 and 1.
    """
    if measurable is None:
        return None
    values = plain_values(measurable, u.dimensionless_unscaled, name="measurable").astype(float)
    if values.shape != (n_galaxies,):
        raise ValueError(
            f"measurable has shape {values.shape}, but the draws are of {n_galaxies} galaxies; "
            f"give one probability per galaxy."
        )
    wrong = (values < 0) | (values > 1)
    if wrong.any():
        raise ValueError(
            f"measurable contains {values[wrong][0]:g}; expected probabilities between 0 and 1, "
            "or NaN."
        )
    return values


def checked_photometry(photometry: Any, n_galaxies: int) -> QTable | None:
    """Copy the table of photometry.

    Parameters
    ----------
    photometry : `~astropy.table.Table` or None
        Table of photometry.
    n_galaxies : int
        Number of galaxies.

    Returns
    -------
    `~astropy.table.QTable` or None

    Raises
    ------
    TypeError
        If the photometry is not a table.
    ValueError
        If the number of rows is wrong.
    """
    if photometry is None:
        return None
    if not isinstance(photometry, Table):
        raise TypeError(
            f"photometry is of type {type(photometry).__name__}; an astropy Table is expected."
        )
    if len(photometry) != n_galaxies:
        raise ValueError(
            f"photometry has {len(photometry)} rows, but the draws are of {n_galaxies} galaxies; "
            f"give one row per galaxy."
        )
    return QTable(photometry, copy=True)


def checked_index(key: Any, n_galaxies: int) -> slice | np.ndarray:
    """Convert a selection of galaxies to an index that keeps the axis of galaxies.

    Parameters
    ----------
    key : int, slice, or array_like of int or bool
        Number, slice, list of numbers or mask.
    n_galaxies : int
        Number of galaxies.

    Returns
    -------
    slice or ndarray

    Raises
    ------
    IndexError
        If a number is out of range, or a mask has the wrong length.
    TypeError
        If the key has another type.
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
                f"give one entry per galaxy."
            )
        return rows
    if rows.dtype.kind not in "iu" or rows.ndim > 1:
        raise TypeError(
            f"galaxies cannot be selected by {key!r}; use a number, a slice, a boolean mask or a "
            "flat list of numbers, or galaxy() to select one by its name."
        )
    outside = (rows < -n_galaxies) | (rows >= n_galaxies)
    if outside.any():
        raise IndexError(
            f"galaxy {rows[outside].flat[0]} does not exist: there are {n_galaxies}, counted "
            "from 0."
        )
    if rows.ndim == 0:
        number = int(rows) % n_galaxies
        return slice(number, number + 1)
    return rows


def index_of_name(name: str, names: np.ndarray) -> int:
    """Find the galaxy with a name.

    Parameters
    ----------
    name : str
        Name to look for.
    names : ndarray of str objects
        Names of the galaxies.

    Returns
    -------
    int
        Number of the galaxy.

    Raises
    ------
    KeyError
        If no galaxy has the name.
    ValueError
        If several galaxies have it.
    """
    found = np.flatnonzero(names == name)
    if len(found) == 0:
        raise KeyError(f"no galaxy is named {name!r}{suggestion(str(name), names)}.")
    if len(found) > 1:
        listed = ", ".join(map(str, found[:5])) + (", ..." if len(found) > 5 else "")
        raise ValueError(
            f"{len(found)} galaxies are named {name!r} (numbers {listed}); select one by its "
            "number."
        )
    return int(found[0])


def _checked_quantity(name: Any, values: Any) -> u.Quantity:
    if not isinstance(name, str) or not name:
        raise TypeError(f"draws has the key {name!r}; keys must be non-empty strings.")
    if name in DERIVED_QUANTITIES:
        raise ValueError(
            f"{name!r} is derived from other quantities; give draws of "
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
            f"draws[{name!r}] has shape {numbers.shape}; expected (n_galaxies, n_draws) with at "
            "least one draw."
        )
    if np.isinf(numbers).any():
        galaxy = int(np.flatnonzero(np.isinf(numbers).any(axis=1))[0])
        raise ValueError(
            f"draws[{name!r}] contains infinite values, the first in galaxy {galaxy}; use NaN "
            "for missing draws."
        )
    return u.Quantity(numbers, wanted, subok=True, copy=False)


def _checked_strings(argument: str, values: Any, n_galaxies: int) -> np.ndarray:
    if isinstance(values, str):
        raise TypeError(f"{argument} is a single string, {values!r}; give one string per galaxy.")
    mask = np.ma.getmaskarray(values) if isinstance(values, np.ma.MaskedArray) else None
    entries = list(values.data if mask is not None else values)
    if len(entries) != n_galaxies:
        raise ValueError(
            f"{argument} has {len(entries)} entries, but the draws are of {n_galaxies} galaxies; "
            f"give one entry per galaxy."
        )
    # Objects, because in an array of fixed width one long name costs its length for every galaxy.
    result = np.empty(n_galaxies, dtype=object)
    for number, entry in enumerate(entries):
        if not isinstance(entry, str):
            raise TypeError(
                f"{argument}[{number}] is {entry!r}, of type {type(entry).__name__}; strings are "
                "expected."
            )
        result[number] = "" if mask is not None and mask[number] else str(entry)
    return result


def checked_wavelength(wavelength: Any) -> u.Quantity:
    """Copy the wavelength grid.

    Parameters
    ----------
    wavelength : Quantity, shape (n_wavelength,)
        Wavelengths of the pixels.

    Returns
    -------
    Quantity ['Angstrom'] of float64

    Raises
    ------
    TypeError, ValueError, astropy.units.UnitConversionError
        If it is not a Quantity of length, has the wrong shape, or does not increase.
    """
    _require_quantity("wavelength", wavelength, "in units of length, such as Angstrom")
    grid = plain_values(wavelength, u.AA, name="wavelength").astype(float)
    if grid.ndim != 1 or len(grid) < 2:
        raise ValueError(
            f"wavelength has shape {grid.shape}; expected (n_wavelength,) with at least two pixels."
        )
    if not (np.isfinite(grid).all() and (grid > 0).all()):
        raise ValueError("wavelength contains values that are not positive numbers.")
    falling = np.flatnonzero(np.diff(grid) <= 0)
    if len(falling):
        k = int(falling[0])
        raise ValueError(
            f"wavelength does not increase from pixel {k} ({grid[k]:.6g} AA) to {k + 1} "
            f"({grid[k + 1]:.6g} AA); sort the grid and the flux."
        )
    return u.Quantity(grid, u.AA, copy=False)


def checked_flux(flux: Any, wavelength: u.Quantity) -> u.Quantity:
    """Copy the draws as single precision in `FLUX_UNIT`.

    Parameters
    ----------
    flux : Quantity, shape (n_galaxies, n_draws, n_wavelength)
        Flux per wavelength, or per frequency (converted with the wavelength).
    wavelength : Quantity, shape (n_wavelength,)
        Wavelengths of the pixels.

    Returns
    -------
    Quantity of float32

    Raises
    ------
    TypeError, ValueError, astropy.units.UnitConversionError
        If it is not a spectral flux density, has the wrong shape, or is infinite.
    """
    _require_quantity("flux", flux, f"in units of spectral flux density, such as {FLUX_UNIT}")
    if flux.ndim != 3 or 0 in flux.shape[1:]:
        raise ValueError(
            f"flux has shape {flux.shape}; expected (n_galaxies, n_draws, n_wavelength) with at "
            "least one draw."
        )
    if flux.shape[2] != len(wavelength):
        raise ValueError(
            f"flux has {flux.shape[2]} pixels per spectrum, but there are {len(wavelength)} "
            "wavelengths."
        )
    if not flux.unit.is_equivalent(FLUX_UNIT) and flux.unit.is_equivalent(u.Jy):
        flux = flux.to(FLUX_UNIT, u.spectral_density(wavelength))
    with np.errstate(over="ignore"):
        values = plain_values(flux, FLUX_UNIT, name="flux").astype(np.float32, copy=False)
    infinite = np.isinf(values).any(axis=(1, 2))
    if infinite.any():
        raise ValueError(
            f"flux contains infinite values, the first in galaxy {int(np.argmax(infinite))}; use "
            "NaN for missing draws and pixels."
        )
    return u.Quantity(values, FLUX_UNIT, copy=False)


def checked_redshift(redshift: Any, exists: np.ndarray) -> np.ndarray:
    """Copy the redshifts of the draws.

    Parameters
    ----------
    redshift : array_like, shape (n_galaxies, n_draws)
        Redshifts of the draws.
    exists : ndarray of bool, shape (n_galaxies, n_draws)
        Draws that are not NaN.

    Returns
    -------
    ndarray of float64
        NaN for missing draws.

    Raises
    ------
    ValueError
        If the shape is wrong, or a draw has no redshift above -1.
    """
    values = plain_values(redshift, u.dimensionless_unscaled, name="redshift").astype(float)
    _require_shape("redshift", values, exists.shape, "give one redshift per draw")
    wrong = exists & ~((values > -1) & np.isfinite(values))
    if wrong.any():
        galaxy, draw = (int(k) for k in np.argwhere(wrong)[0])
        raise ValueError(
            f"redshift of galaxy {galaxy}, draw {draw}, is {values[galaxy, draw]:g}; expected a "
            "number above -1 for every draw that is not NaN."
        )
    values[~exists] = np.nan
    return values


def checked_weights(weights: Any, exists: np.ndarray) -> np.ndarray:
    """Copy the weights, scaled to a sum of 1 for each galaxy.

    Parameters
    ----------
    weights : array_like of shape (n_galaxies, n_draws), or None
        Weights of the draws; None for equal weights.
    exists : ndarray of bool, shape (n_galaxies, n_draws)
        Draws that are not NaN; missing draws have no weight.

    Returns
    -------
    ndarray of float64
        Equal for a galaxy without draws.

    Raises
    ------
    ValueError
        If the shape is wrong, a weight is negative or NaN, or all weights of a galaxy are zero.
    """
    if weights is None:
        values = np.ones(exists.shape)
    else:
        values = plain_values(weights, u.dimensionless_unscaled, name="weights").astype(float)
        _require_shape("weights", values, exists.shape, "give one weight per draw")
        wrong = exists & ~((values >= 0) & np.isfinite(values))
        if wrong.any():
            galaxy, draw = (int(k) for k in np.argwhere(wrong)[0])
            raise ValueError(
                f"weights of galaxy {galaxy}, draw {draw}, is {values[galaxy, draw]:g}; weights "
                "must be numbers that are not negative."
            )
    values[~exists] = 0.0
    values[~exists.any(axis=1)] = 1.0
    total = values.sum(axis=1, keepdims=True)
    if (total == 0).any():
        raise ValueError(
            f"the weights of galaxy {int(np.argmin(total[:, 0]))} are all zero; at least one "
            "must be positive."
        )
    # Weights that are scaled already keep their exact values.
    return values / np.where(np.abs(total - 1) < 1e-12, 1.0, total)


def checked_posterior_draw(posterior_draw: Any, exists: np.ndarray) -> np.ndarray:
    """Copy the numbers of the posterior draws.

    Parameters
    ----------
    posterior_draw : array_like of int, shape (n_galaxies, n_draws), or None
        Numbers of the draws; None if they are unknown.
    exists : ndarray of bool, shape (n_galaxies, n_draws)
        Draws that are not NaN.

    Returns
    -------
    ndarray of int64
        -1 where unknown, and for missing draws.

    Raises
    ------
    TypeError
        If the numbers are not integers.
    ValueError
        If the shape is wrong, or a number is below -1.
    """
    if posterior_draw is None:
        return np.full(exists.shape, -1)
    values = np.asarray(posterior_draw)
    if values.dtype.kind not in "iu":
        raise TypeError(
            f"posterior_draw has dtype {values.dtype}; expected integers, -1 where the draw is "
            "unknown."
        )
    _require_shape("posterior_draw", values, exists.shape, "give one number per draw")
    if (values < -1).any():
        raise ValueError(
            f"posterior_draw contains {values.min()}; expected numbers from 0, or -1 where the "
            "draw is unknown."
        )
    return np.where(exists, values, -1).astype(np.int64)


def checked_residual(residual: Any, shape: tuple[int, int]) -> u.Quantity | None:
    """Copy the differences of synthetic and input photometry.

    Parameters
    ----------
    residual : Quantity of shape (n_galaxies, n_draws, 5), or None
        Residuals; plain numbers are magnitudes.
    shape : tuple of int
        Shape (n_galaxies, n_draws).

    Returns
    -------
    Quantity ['mag'] of float32, or None

    Raises
    ------
    ValueError, astropy.units.UnitConversionError
        If the shape is wrong, or the unit is not a magnitude.
    """
    if residual is None:
        return None
    values = plain_values(residual, u.mag, name="photometric_residual").astype(np.float32)
    _require_shape(
        "photometric_residual",
        values,
        (*shape, len(BANDS)),
        f"give one difference for each draw and each of the bands {', '.join(BANDS)}",
    )
    return u.Quantity(values, u.mag, copy=False)


def checked_line_flux(line_flux: Any, exists: np.ndarray) -> dict[str, u.Quantity] | None:
    """Copy the fluxes of the emission lines of the draws; NaN where a draw is missing.

    Parameters
    ----------
    line_flux : mapping of str to Quantity, each of shape (n_galaxies, n_draws), or None
        Fluxes by the name of the line.
    exists : ndarray of bool, shape (n_galaxies, n_draws)
        Whether there is a draw.

    Returns
    -------
    dict of str to Quantity ['1e-17 erg/s/cm2'] of float32, or None

    Raises
    ------
    TypeError, ValueError, astropy.units.UnitConversionError
        If it is no mapping, the fluxes of a line have the wrong shape or unit, or its name cannot
        be that of a column.
    """
    if line_flux is None:
        return None
    if not isinstance(line_flux, Mapping):
        raise TypeError(
            f"line_flux is of type {type(line_flux).__name__}; a mapping of the names of lines to "
            "Quantities of shape (n_galaxies, n_draws) is expected."
        )
    checked = {}
    for name, values in line_flux.items():
        if not (isinstance(name, str) and re.fullmatch(r"[a-z0-9_]{1,40}", name)):
            raise ValueError(
                f"line_flux has the name {name!r}; lower-case letters, digits and underscores are "
                "expected, such as 'halpha'."
            )
        argument = f"line_flux[{name!r}]"
        fluxes = plain_values(values, LINE_FLUX_UNIT, name=argument).astype(np.float32)
        _require_shape(argument, fluxes, exists.shape, "give one flux for each draw")
        fluxes[~exists] = np.nan
        checked[name] = u.Quantity(fluxes, LINE_FLUX_UNIT, copy=False)
    return checked or None


def checked_trusted(trusted: Any, n_galaxies: int, n_wavelength: int) -> np.ndarray:
    """Copy the mask of the pixels that the model covers.

    Parameters
    ----------
    trusted : array_like of bool, shape (n_galaxies, n_wavelength) or (n_wavelength,), or None
        True where the model has coverage; None for all pixels.
    n_galaxies, n_wavelength : int
        Numbers of galaxies and pixels.

    Returns
    -------
    ndarray of bool, shape (n_galaxies, n_wavelength)

    Raises
    ------
    TypeError
        If the mask is not boolean.
    ValueError
        If the shape is wrong.
    """
    shape = (n_galaxies, n_wavelength)
    if trusted is None:
        return np.ones(shape, dtype=bool)
    values = np.asarray(trusted)
    if values.dtype != bool:
        raise TypeError(
            f"trusted has dtype {values.dtype}; expected booleans, False where the model has no "
            "coverage."
        )
    if values.shape == (n_wavelength,):
        values = np.broadcast_to(values, shape)
    _require_shape("trusted", values, shape, "give one boolean for each galaxy and pixel")
    return np.array(values)


def _require_quantity(argument: str, value: Any, wanted: str) -> None:
    if getattr(value, "unit", None) is None:
        raise TypeError(
            f"{argument} is of type {type(value).__name__}, without a unit; give a Quantity "
            f"{wanted}."
        )


def _require_shape(argument: str, values: np.ndarray, shape: tuple[int, ...], advice: str) -> None:
    if values.shape != shape:
        raise ValueError(f"{argument} has shape {values.shape}, but {shape} is expected; {advice}.")
