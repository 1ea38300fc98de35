"""Sizes and shapes of galaxies from a catalogue: Petrosian fluxes, radii and axis ratios, all of them optional.

Keys of a table or dictionary, beside those of the fluxes (`astrogenspec.inputs.photometry`):

==================== ============================================= ============================================
key                  what                                          error, optional
==================== ============================================= ============================================
``petro_flux_g``     Petrosian flux of a band, flux density        ``petro_flux_err_g`` or ``petro_flux_ivar_g``
``petro_mag_g``      Petrosian AB magnitude of a band              ``petro_mag_err_g``
``r50``, ``r90``     radii with 50% and 90% of the light in r,     none
                     angles
``axis_ratio``       minor over major axis, in (0, 1]              none
==================== ============================================= ============================================

Each galaxy may have any of them.  NaN, masked values and the negative ones of `~astrogenspec.inputs.photometry.SENTINELS` are
missing.  Fluxes are as observed, like those of the bands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

import astropy.units as u
import numpy as np
from astropy.table import Table

from ..surveys import BANDS
from .fluxes import SENTINELS, Values, to_flux

__all__ = ["MORPHOLOGY_KEYS", "Morphology", "morphology_columns", "read_morphology"]

#: For each way to name the columns: the Petrosian flux or magnitude, and the ways to give its error.
_WAYS = {
    "flux": ("petro_flux_{}", ("petro_flux_err_{}", "petro_flux_ivar_{}")),
    "mag": ("petro_mag_{}", ("petro_mag_err_{}",)),
}
_RADII = ("r50", "r90")
#: All keys that mean something here.
MORPHOLOGY_KEYS = (
    *_RADII,
    "axis_ratio",
    *(way.format(band) for way, _ in _WAYS.values() for band in BANDS),
    *(way.format(band) for _, errors in _WAYS.values() for way in errors for band in BANDS),
)


@dataclass(frozen=True, eq=False)
class Morphology:
    """Sizes and shapes of many galaxies; NaN where missing.

    Parameters
    ----------
    petro_flux, petro_error : ndarray, shape (n, 5)
        Petrosian fluxes in the bands and their errors, nmgy, as observed. A flux may be without error.
    r50, r90 : ndarray, shape (n,)
        Radii with half and with 90% of the light in r, arcsec.
    axis_ratio : ndarray, shape (n,)
        Minor over major axis.
    problems : tuple of str, optional
        What was wrong with a galaxy, so that a value of it is missing; empty strings by default.

    Raises
    ------
    ValueError
        If shapes or lengths do not agree.
    """

    petro_flux: np.ndarray
    petro_error: np.ndarray
    r50: np.ndarray
    r90: np.ndarray
    axis_ratio: np.ndarray
    problems: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        n = len(self.r50)
        object.__setattr__(self, "problems", tuple(self.problems) or ("",) * n)
        for name in _ARRAYS:
            wanted = (n, len(BANDS)) if name.startswith("petro") else (n,)
            if np.shape(getattr(self, name)) != wanted:
                raise ValueError(
                    f"{name} has shape {np.shape(getattr(self, name))}, but it must be {wanted}."
                )
        if len(self.problems) != n:
            raise ValueError(f"problems has {len(self.problems)} entries for {n} galaxies.")

    def __len__(self) -> int:
        return len(self.r50)

    def __getitem__(self, item: int | slice | np.ndarray | Sequence[int]) -> Morphology:
        """Select galaxies: an integer, a slice, integers, or an array of bool."""
        if isinstance(item, int | np.integer):
            item = [item]
        index = np.arange(len(self))[item]
        return Morphology(
            **{name: getattr(self, name)[item] for name in _ARRAYS},
            problems=tuple(self.problems[k] for k in index),
        )

    @classmethod
    def missing(cls, n: int) -> Morphology:
        """Make the morphology of galaxies of which nothing is known.

        Parameters
        ----------
        n : int

        Returns
        -------
        Morphology
        """
        bands, one = np.full((n, len(BANDS)), np.nan), np.full(n, np.nan)
        return cls(bands, bands.copy(), one, one.copy(), one.copy())

    @classmethod
    def concatenate(cls, parts: Sequence[Morphology]) -> Morphology:
        """Put galaxies behind one another.

        Parameters
        ----------
        parts : sequence of Morphology
            At least one.

        Returns
        -------
        Morphology
        """
        return cls(
            **{name: np.concatenate([getattr(part, name) for part in parts]) for name in _ARRAYS},
            problems=tuple(problem for part in parts for problem in part.problems),
        )

    def without(self, rows: np.ndarray) -> Morphology:
        """Forget some galaxies.

        Parameters
        ----------
        rows : ndarray of bool, shape (n,)
            Which.

        Returns
        -------
        Morphology
            With NaN for these, and with the problems as they were.
        """
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        blank = {
            name: np.where(rows[:, None] if values.ndim == 2 else rows, np.nan, values)
            for name, values in arrays.items()
        }
        return Morphology(**blank, problems=self.problems)


_ARRAYS = tuple(entry.name for entry in fields(Morphology) if entry.name != "problems")


def morphology_columns(photometry: Table | Mapping[str, object]) -> dict[str, Values]:
    """Read the columns of sizes and shapes.

    Parameters
    ----------
    photometry : Table or mapping
        Other keys are left alone.

    Returns
    -------
    dict of str to Values
        By key; empty if there are none.

    Raises
    ------
    TypeError, ValueError, astropy.units.UnitsError
        As for `~astrogenspec.inputs.fluxes.Values.read`.
    """
    keys = list(photometry.keys())
    return {key: Values.read(key, photometry[key]) for key in MORPHOLOGY_KEYS if key in keys}


def read_morphology(columns: dict[str, Values], n: int) -> Morphology | None:
    """Convert columns of sizes and shapes to one unit each, and check them.

    Parameters
    ----------
    columns : dict of str to Values
        Of `morphology_columns`.
    n : int
        Number of galaxies.

    Returns
    -------
    Morphology or None
        Values that cannot be are missing, with a problem. None without columns.

    Raises
    ------
    ValueError
        If Petrosian fluxes are given in two ways, or two errors of one of them.
    astropy.units.UnitsError
        For units that are missing or do not fit.
    """
    if not columns:
        return None
    found = Morphology.missing(n)
    problems: dict[int, str] = {}
    _read_petrosian(columns, found, problems)
    for key in _RADII:
        if key in columns:
            radius = getattr(found, key)
            radius[:] = _angle(columns[key])
            _drop(radius, radius <= 0, key, " arcsec, but it must be positive.", problems)
    wrong = found.r90 < found.r50
    for index in np.flatnonzero(wrong):
        sentence = (
            f"r90 is {found.r90[index]:g} arcsec but r50 is {found.r50[index]:g} arcsec; r90 cannot be "
            "the smaller one."
        )
        problems.setdefault(int(index), sentence)
    found.r50[wrong] = found.r90[wrong] = np.nan
    if "axis_ratio" in columns:
        ratio = found.axis_ratio
        ratio[:] = _pure_number(columns["axis_ratio"])
        wanted = ", but it must be above 0 and at most 1 (minor over major axis)."
        _drop(ratio, (ratio <= 0) | (ratio > 1), "axis_ratio", wanted, problems)
    return replace(found, problems=tuple(problems.get(k, "") for k in range(n)))


def _read_petrosian(
    columns: dict[str, Values], found: Morphology, problems: dict[int, str]
) -> None:
    """Fill in Petrosian fluxes and errors."""
    given = {
        way: [band for band in BANDS if pattern.format(band) in columns]
        for way, (pattern, _) in _WAYS.items()
    }
    if all(given.values()):
        names = " and ".join(_WAYS[way][0].format(bands[0]) for way, bands in given.items())
        raise ValueError(
            f"photometry has Petrosian fluxes given in two ways, {names}; keep one of them."
        )
    for way, bands in given.items():
        for band in bands:
            value, error = _petrosian_columns(columns, way, band)
            k = BANDS.index(band)
            flux, sigma = to_flux(band, value, error, is_magnitude=way == "mag")
            flux, sigma = (np.where(np.isfinite(a), a, np.nan) for a in (flux, sigma))
            found.petro_flux[:, k], found.petro_error[:, k] = flux, sigma
            bad = ~np.isnan(found.petro_flux[:, k]) & (found.petro_error[:, k] <= 0)
            shown = np.array(np.broadcast_to(error.numbers, len(bad)))
            _drop(shown, bad, error.key, ", but it must be positive.", problems)
            found.petro_flux[bad, k] = np.nan
            found.petro_error[np.isnan(found.petro_flux[:, k]), k] = np.nan


def _petrosian_columns(columns: dict[str, Values], way: str, band: str) -> tuple[Values, Values]:
    pattern, errors = _WAYS[way]
    value = columns[pattern.format(band)]
    given = [columns[key.format(band)] for key in errors if key.format(band) in columns]
    if len(given) > 1:
        wanted = " or ".join(column.key for column in given)
        raise ValueError(f"photometry has two errors for {value.key}; give {wanted}.")
    if given:
        return value, given[0]
    unit = u.mag if way == "mag" or value.has_magnitude_unit else value.unit
    return value, Values(errors[0].format(band), np.array(np.nan), unit)


def _drop(
    values: np.ndarray, bad: np.ndarray, key: str, wanted: str, problems: dict[int, str]
) -> None:
    """Note what is wrong with some values, and make them missing."""
    for index in np.flatnonzero(bad):
        problems.setdefault(int(index), f"{key} is {values[index]:g}{wanted}")
    values[bad] = np.nan


def _angle(column: Values) -> np.ndarray:
    if column.unit is None:
        raise u.UnitTypeError(f"{column.key} has no unit; give it one, such as u.arcsec.")
    if not column.unit.is_equivalent(u.arcsec):
        raise u.UnitConversionError(
            f"{column.key} is in {column.unit}, but a radius must be an angle, such as u.arcsec; convert "
            "it, or rename the column if it is something else."
        )
    return _numbers(column) * column.unit.to(u.arcsec)


def _pure_number(column: Values) -> np.ndarray:
    if column.unit is None:
        return _numbers(column)
    if not column.unit.is_equivalent(u.dimensionless_unscaled):
        raise u.UnitConversionError(
            f"{column.key} is in {column.unit}, but it must be a number without unit; rename the column "
            "if it is something else."
        )
    return _numbers(column) * column.unit.to(u.dimensionless_unscaled)


def _numbers(column: Values) -> np.ndarray:
    negative = [code for code in SENTINELS if code < 0]
    missing = np.isin(column.numbers, negative) | ~np.isfinite(column.numbers)
    return np.where(missing, np.nan, column.numbers)
