"""Morphology of galaxies from a catalogue: Petrosian fluxes, radii and axis ratios.

Keys of a table or dictionary, in addition to those of the fluxes
(`astrogenspec.inputs.photometry`):

================== =========================================== ========================
key                meaning                                     error, optional
================== =========================================== ========================
``petro_flux_g``   Petrosian flux of a band, flux density      ``petro_flux_err_g`` or
                                                               ``petro_flux_ivar_g``
``petro_mag_g``    Petrosian AB magnitude of a band            ``petro_mag_err_g``
``r50``, ``r90``   radii that enclose 50% and 90% of the       none
                   light in r, angles
``axis_ratio``     minor over major axis, in (0, 1]            none
================== =========================================== ========================

All keys are optional.  NaN, masked values and the negative values of
`~astrogenspec.inputs.photometry.SENTINELS` are missing.  Fluxes are as observed, like those of the
bands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import Table

from ..flags import Flag, FlagLog
from ..surveys import BANDS
from .errors import resolve_flag_codes, select_galaxies
from .fluxes import Values, is_fill_value, to_flux

__all__ = ["MORPHOLOGY_KEYS", "Morphology", "morphology_columns", "read_morphology"]

#: Naming schemes of the columns: Petrosian flux or magnitude, and its possible errors.
_SCHEMES = {
    "flux": ("petro_flux_{}", ("petro_flux_err_{}", "petro_flux_ivar_{}")),
    "mag": ("petro_mag_{}", ("petro_mag_err_{}",)),
}
_RADII = ("r50", "r90")
#: All keys of the morphology.
MORPHOLOGY_KEYS = (
    *_RADII,
    "axis_ratio",
    *(key.format(band) for key, _ in _SCHEMES.values() for band in BANDS),
    *(key.format(band) for _, errors in _SCHEMES.values() for key in errors for band in BANDS),
)


@dataclass(frozen=True, eq=False)
class Morphology:
    """Morphology of many galaxies; NaN where missing.

    Parameters
    ----------
    petro_flux, petro_error : ndarray, shape (n, 5)
        Petrosian fluxes in the bands and their errors, nmgy, as observed. Errors are optional.
    r50, r90 : ndarray, shape (n,)
        Radii that enclose 50% and 90% of the light in r, arcsec.
    axis_ratio : ndarray, shape (n,)
        Minor over major axis.
    problems : tuple of str, optional
        Reasons why values were rejected; empty strings by default.
    flag_codes : ndarray of int64, shape (n,), optional
        Flag codes, see `~astrogenspec.decode_flags`; by default ``MORPHOLOGY_NOT_USED`` where there
        is a problem.

    Raises
    ------
    ValueError
        If shapes or lengths differ.
    """

    petro_flux: np.ndarray
    petro_error: np.ndarray
    r50: np.ndarray
    r90: np.ndarray
    axis_ratio: np.ndarray
    problems: tuple[str, ...] = ()
    flag_codes: np.ndarray = None  # type: ignore[assignment]  # filled in below

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
        codes = resolve_flag_codes(self.flag_codes, self.problems, Flag.MORPHOLOGY_NOT_USED)
        object.__setattr__(self, "flag_codes", codes)

    def __len__(self) -> int:
        return len(self.r50)

    def __getitem__(self, item: int | slice | np.ndarray | Sequence[int]) -> Morphology:
        """Select galaxies: an integer, a slice, integers, or an array of bool."""
        return select_galaxies(self, item)

    @classmethod
    def missing(cls, n: int) -> Morphology:
        """Return a record without any values.

        Parameters
        ----------
        n : int
            Number of galaxies.

        Returns
        -------
        Morphology
        """
        bands, one = np.full((n, len(BANDS)), np.nan), np.full(n, np.nan)
        return cls(bands, bands.copy(), one, one.copy(), one.copy())

    @classmethod
    def concatenate(cls, parts: Sequence[Morphology]) -> Morphology:
        """Concatenate galaxies.

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
            flag_codes=np.concatenate([part.flag_codes for part in parts]),
        )

    def without(self, rows: np.ndarray) -> Morphology:
        """Return a copy without the values of some galaxies.

        Parameters
        ----------
        rows : ndarray of bool, shape (n,)
            Galaxies whose values become NaN.

        Returns
        -------
        Morphology
            Flags are unchanged.
        """
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        blank: dict[str, Any] = {
            name: np.where(rows[:, None] if values.ndim == 2 else rows, np.nan, values)
            for name, values in arrays.items()
        }
        return replace(self, **blank)


_ARRAYS = ("petro_flux", "petro_error", "r50", "r90", "axis_ratio")


def morphology_columns(photometry: Table | Mapping[str, object]) -> dict[str, Values]:
    """Read the columns of the morphology.

    Parameters
    ----------
    photometry : Table or mapping
        Other keys are ignored.

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
    """Convert the columns of the morphology to common units, and check them.

    Parameters
    ----------
    columns : dict of str to Values
        Columns, from `morphology_columns`.
    n : int
        Number of galaxies.

    Returns
    -------
    Morphology or None
        Impossible values are missing, with a flag. None without columns.

    Raises
    ------
    ValueError
        If Petrosian fluxes are given in two ways, or one of them has two errors.
    astropy.units.UnitsError
        If units are missing or wrong.
    """
    if not columns:
        return None
    found = Morphology.missing(n)
    log = FlagLog(n)
    _read_petrosian(columns, found, log)
    for key in _RADII:
        if key in columns:
            radius = getattr(found, key)
            radius[:] = _angle(columns[key])
            _drop(radius, radius <= 0, key, " arcsec, but it must be positive", log)
    wrong = found.r90 < found.r50
    _flag(
        log,
        wrong,
        lambda k: (
            f"r90 is {found.r90[k]:g} arcsec but r50 is {found.r50[k]:g} arcsec; r90 cannot be "
            "the smaller one"
        ),
    )
    found.r50[wrong] = found.r90[wrong] = np.nan
    if "axis_ratio" in columns:
        ratio = found.axis_ratio
        ratio[:] = _pure_number(columns["axis_ratio"])
        wanted = ", but it must be above 0 and at most 1 (minor over major axis)"
        _drop(ratio, (ratio <= 0) | (ratio > 1), "axis_ratio", wanted, log)
    return replace(found, problems=log.texts, flag_codes=log.codes)


def _read_petrosian(columns: dict[str, Values], found: Morphology, log: FlagLog) -> None:
    """Fill in Petrosian fluxes and errors."""
    given = {
        scheme: [band for band in BANDS if pattern.format(band) in columns]
        for scheme, (pattern, _) in _SCHEMES.items()
    }
    if all(given.values()):
        names = " and ".join(
            _SCHEMES[scheme][0].format(bands[0]) for scheme, bands in given.items()
        )
        raise ValueError(
            f"photometry has Petrosian fluxes given in two ways, {names}; keep one of them."
        )
    for scheme, bands in given.items():
        for band in bands:
            value, error = _petrosian_columns(columns, scheme, band)
            k = BANDS.index(band)
            flux, sigma = to_flux(band, value, error, is_magnitude=scheme == "mag")
            flux, sigma = (np.where(np.isfinite(a), a, np.nan) for a in (flux, sigma))
            found.petro_flux[:, k], found.petro_error[:, k] = flux, sigma
            bad = ~np.isnan(found.petro_flux[:, k]) & (found.petro_error[:, k] <= 0)
            shown = np.array(np.broadcast_to(error.numbers, len(bad)))
            _drop(shown, bad, error.key, ", but it must be positive", log)
            found.petro_flux[bad, k] = np.nan
            found.petro_error[np.isnan(found.petro_flux[:, k]), k] = np.nan


def _petrosian_columns(columns: dict[str, Values], scheme: str, band: str) -> tuple[Values, Values]:
    pattern, errors = _SCHEMES[scheme]
    value = columns[pattern.format(band)]
    given = [columns[key.format(band)] for key in errors if key.format(band) in columns]
    if len(given) > 1:
        wanted = " or ".join(column.key for column in given)
        raise ValueError(f"photometry has two errors for {value.key}; give {wanted}.")
    if given:
        return value, given[0]
    if value.scatter is not None:
        return value, Values(errors[0].format(band), value.scatter, value.unit)
    unit = u.mag if scheme == "mag" or value.has_magnitude_unit else value.unit
    return value, Values(errors[0].format(band), np.array(np.nan), unit)


def _drop(values: np.ndarray, bad: np.ndarray, key: str, wanted: str, log: FlagLog) -> None:
    """Flag galaxies with bad values, and set these to NaN."""
    _flag(log, bad, lambda k: f"{key} is {values[k]:g}{wanted}")
    values[bad] = np.nan


def _flag(log: FlagLog, rows: np.ndarray, text: Callable[[int], str]) -> None:
    """Flag the galaxies that have no flag yet."""
    log.add(rows & (log.codes == 0), Flag.MORPHOLOGY_NOT_USED, text)


def _angle(column: Values) -> np.ndarray:
    if column.unit is None:
        raise u.UnitTypeError(f"{column.key} has no unit; give it one, such as u.arcsec.")
    if not column.unit.is_equivalent(u.arcsec):
        raise u.UnitConversionError(
            f"{column.key} is in {column.unit}, but a radius must be an angle, such as u.arcsec; "
            "convert it, or rename the column if it is something else."
        )
    return _numbers(column) * column.unit.to(u.arcsec)


def _pure_number(column: Values) -> np.ndarray:
    if column.unit is None:
        return _numbers(column)
    if not column.unit.is_equivalent(u.dimensionless_unscaled):
        raise u.UnitConversionError(
            f"{column.key} is in {column.unit}, but it must be a number without unit; rename the "
            "column if it is something else."
        )
    return _numbers(column) * column.unit.to(u.dimensionless_unscaled)


def _numbers(column: Values) -> np.ndarray:
    return np.where(is_fill_value(column.numbers, magnitude=False), np.nan, column.numbers)
