"""Checks of what users pass as draws of spectra: each returns a private copy or says what is wrong."""

from __future__ import annotations

from typing import Any

import astropy.units as u
import numpy as np

from ..surveys import BANDS
from .statistics import plain_values

__all__ = [
    "FLUX_UNIT",
    "checked_flux",
    "checked_posterior_draw",
    "checked_redshift",
    "checked_residual",
    "checked_trusted",
    "checked_wavelength",
    "checked_weights",
]

#: Unit of spectra: 1e-17 erg / (s cm2 AA).
FLUX_UNIT = u.Unit(1e-17 * u.erg / u.s / u.cm**2 / u.AA)


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
