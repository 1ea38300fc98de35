"""Tables and dictionaries of photometry, read into nanomaggies (the keys are those of `astrogenspec.photometry`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import astropy.units as u
import numpy as np
from astropy.table import Column, Row, Table

from ..surveys import BANDS
from .fluxes import flux_factor, read_unit

__all__ = ["SENTINELS", "Catalogue", "dust_values", "join_catalogues", "read_catalogue"]

#: Values that catalogues put in the place of a missing magnitude or its error; a flux is missing if it is one of
#: the negative ones.
SENTINELS = (-9999.0, -999.0, -99.0, 99.0, 99.99, 999.0, 9999.0)

#: For each way to name the columns: the flux or magnitude, its error, its inverse variance.
_WAYS = {
    "bare": ("{}", "{}_err", "{}_ivar"),
    "flux": ("flux_{}", "flux_err_{}", "flux_ivar_{}"),
    "mag": ("mag_{}", "mag_err_{}", None),
}


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Photometry as read.

    Attributes
    ----------
    flux, error : ndarray, shape (n, 5)
        nmgy as observed; NaN where missing.
    ebv : ndarray, shape (n,), or None
        Galactic E(B-V), mag.
    extinction : ndarray, shape (n, 5), or None
        Galactic extinction, mag.
    names : tuple of str or None
        Names of the galaxies.
    problems : dict of int to str
        What is wrong with a galaxy, by its index.
    """

    flux: np.ndarray
    error: np.ndarray
    ebv: np.ndarray | None = None
    extinction: np.ndarray | None = None
    names: tuple[str, ...] | None = None
    problems: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.flux)


@dataclass(frozen=True, eq=False)
class _Values:
    """A column: numbers (NaN where masked) and unit."""

    key: str
    numbers: np.ndarray
    unit: u.UnitBase | None

    @classmethod
    def read(cls, key: str, value: object) -> _Values:
        unit = read_unit(getattr(value, "unit", None))
        mask = getattr(value, "mask", None)
        if isinstance(value, u.Quantity):
            value = (value if mask is None else value.unmasked).value
        try:
            numbers = np.array(np.ma.getdata(value), dtype=float)
        except (TypeError, ValueError):
            raise TypeError(f"{key} holds {value!r}, but it must hold numbers.") from None
        if numbers.ndim > 1:
            raise ValueError(
                f"{key} has shape {numbers.shape}, but it must be one value or one for each galaxy."
            )
        if mask is not None:
            numbers[np.asarray(mask, bool)] = np.nan
        return cls(key, numbers, None if unit == u.dimensionless_unscaled else unit)

    @property
    def is_inverse_variance(self) -> bool:
        return "ivar" in self.key

    @property
    def has_magnitude_unit(self) -> bool:
        return isinstance(self.unit, u.function.FunctionUnitBase)


def read_catalogue(photometry: Table | Row | Mapping[str, object]) -> Catalogue:
    """Read a table, a row or a mapping.

    Parameters
    ----------
    photometry : Table, QTable, Row or mapping
        Photometry of one galaxy or of many.

    Returns
    -------
    Catalogue

    Raises
    ------
    TypeError
        If it is none of these, or a column does not hold numbers.
    ValueError
        For keys or shapes that cannot be used.
    astropy.units.UnitsError
        For units that are missing or do not fit.
    """
    if isinstance(photometry, Row):
        photometry = Table(photometry)
    if not isinstance(photometry, Table | Mapping):
        raise TypeError(
            f"photometry is of type {type(photometry).__name__}, but it must be a table or a mapping with "
            "keys such as 'g' and 'g_err'."
        )
    keys = list(photometry.keys())
    if isinstance(photometry, Mapping):
        _check_keys(keys)
    way, bands = _way_of(photometry, keys)
    columns = {band: _band_columns(photometry, keys, way, band) for band in bands}
    dust = {key: _Values.read(key, photometry[key]) for key in keys if key in _DUST_KEYS}
    values = [item for pair in columns.values() for item in pair]
    n = _common_length([*values, *dust.values()])
    flux, error, problems = np.full((n, len(BANDS)), np.nan), np.full((n, len(BANDS)), np.nan), {}
    for band, pair in columns.items():
        k = BANDS.index(band)
        flux[:, k], error[:, k] = _to_flux(band, way, *pair)
        bad = np.isfinite(flux[:, k]) & np.isfinite(error[:, k]) & ~(error[:, k] > 0)
        given = np.broadcast_to(pair[1].numbers, n)
        for index in np.flatnonzero(bad):
            sentence = f"{pair[1].key} is {given[index]:g}, but it must be positive."
            problems.setdefault(int(index), sentence)
    missing = ~(np.isfinite(flux) & np.isfinite(error))
    flux[missing] = error[missing] = np.nan
    for index in np.flatnonzero(missing.all(axis=1)):
        problems.setdefault(int(index), "no band has both a flux and an error.")
    ebv, extinction = _dust_of(dust, bands, n)
    return Catalogue(flux, error, ebv, extinction, _names_of(photometry, keys, n), problems)


_DUST_KEYS = ("ebv", *(f"extinction_{band}" for band in BANDS))


def _check_keys(keys: list) -> None:
    known = {"name", *_DUST_KEYS}
    known |= {key.format(band) for way in _WAYS.values() for key in way if key for band in BANDS}
    for key in keys:
        if key not in known:
            raise ValueError(
                f"photometry has the key {key!r}, which means nothing here; the bands are "
                f"{', '.join(BANDS)}, with keys such as 'g' and 'g_err', 'flux_g' and 'flux_err_g', "
                "'mag_g' and 'mag_err_g', and 'ebv', 'extinction_g', 'name'."
            )


def _way_of(photometry: Table | Mapping, keys: list) -> tuple[str, list[str]]:
    found = {
        way: [band for band in BANDS if pattern[0].format(band) in keys]
        for way, pattern in _WAYS.items()
    }
    if isinstance(photometry, Table) and _is_redshift(photometry):
        found["bare"].remove("z")
    ways = [way for way, bands in found.items() if bands]
    if len(ways) > 1:
        names = " and ".join(_WAYS[way][0].format(found[way][0]) for way in ways)
        raise ValueError(f"photometry has bands given in two ways, {names}; keep one of them.")
    if not ways:
        raise ValueError(
            f"photometry has no band among its columns {', '.join(map(str, keys)) or '(none)'}; name "
            "them 'g' and 'g_err', 'flux_g' and 'flux_err_g', or 'mag_g' and 'mag_err_g'."
        )
    return ways[0], found[ways[0]]


def _is_redshift(table: Table) -> bool:
    """Tell whether a column z is a redshift: it has neither a unit nor an error in the way of a band."""
    names = table.colnames
    return (
        "z" in names
        and "z_ivar" not in names
        and _Values.read("z", table["z"]).unit is None
        and ("z_err" not in names or _Values.read("z_err", table["z_err"]).unit is None)
    )


def _band_columns(
    photometry: Table | Mapping, keys: list, way: str, band: str
) -> tuple[_Values, _Values]:
    """Read a band and its error, or its inverse variance."""
    names = [pattern and pattern.format(band) for pattern in _WAYS[way]]
    given = [name for name in names[1:] if name in keys]
    wanted = " or ".join(name for name in names[1:] if name)
    if len(given) != 1:
        what = "no error" if not given else "two errors"
        raise ValueError(f"photometry has {what} for {names[0]}; give {wanted}.")
    return _Values.read(names[0], photometry[names[0]]), _Values.read(
        given[0], photometry[given[0]]
    )


def _common_length(values: list[_Values]) -> int:
    lengths = {item.numbers.shape[0]: item.key for item in values if item.numbers.ndim}
    if len(lengths) > 1:
        (n, one), (m, other) = list(lengths.items())[:2]
        raise ValueError(
            f"{one} has {n} values but {other} has {m}; give one value or one for each galaxy."
        )
    n = next(iter(lengths), 1)
    if n == 0:
        raise ValueError("photometry is empty; give at least one galaxy.")
    return n


def _to_flux(band: str, way: str, value: _Values, error: _Values) -> tuple[np.ndarray, np.ndarray]:
    """Convert a column and its error to nanomaggies."""
    if way == "mag" or value.has_magnitude_unit:
        return _from_magnitude(band, way, value, error)
    if value.unit is not None and value.unit.is_equivalent(u.mag):
        raise u.UnitTypeError(
            f"{value.key} is in {value.unit}, which does not say in which magnitude system; use "
            f"u.ABmag, or name it mag_{band} if it is an AB magnitude."
        )
    for column in (value, error):
        if column.unit is None:
            hint = " (if it is a redshift, rename it)" if column.key == "z" else ""
            raise u.UnitTypeError(
                f"{column.key} has no unit{hint}; give it one, such as u.nmgy or u.ABmag for a band."
            )
    negative = [code for code in SENTINELS if code < 0]
    factor = flux_factor(value.unit, band, value.key)
    flux = np.where(np.isin(value.numbers, negative), np.nan, value.numbers * factor)
    numbers = np.where(np.isin(error.numbers, negative), np.nan, error.numbers)
    if not error.is_inverse_variance:
        return flux, numbers * flux_factor(error.unit, band, error.key)
    factor = flux_factor(error.unit**-0.5, band, f"{error.key} to the power -1/2")
    with np.errstate(divide="ignore", invalid="ignore"):
        sigma = np.where(numbers > 0, numbers, np.nan) ** -0.5 * factor
    # Zero is the usual way to say that there is no measurement; less than zero is a mistake.
    return flux, np.where(numbers < 0, numbers, sigma)


def _from_magnitude(
    band: str, way: str, value: _Values, error: _Values
) -> tuple[np.ndarray, np.ndarray]:
    if error.is_inverse_variance:
        raise u.UnitTypeError(f"{value.key} is a magnitude, so give its error as {band}_err.")
    if value.has_magnitude_unit:
        if not isinstance(value.unit, u.MagUnit):
            raise u.UnitTypeError(f"{value.key} is in {value.unit}; use u.ABmag or a flux density.")
        zero = flux_factor(value.unit.physical_unit, band, value.key)
    elif value.unit is None or value.unit.is_equivalent(u.mag):
        zero = 1e9
    else:
        raise u.UnitConversionError(
            f"{value.key} is in {value.unit}, but by its name it is an AB magnitude; use u.ABmag, or "
            f"name it flux_{band}."
        )
    unit = error.unit
    unitless = unit is None and way == "mag"
    if not (unitless or isinstance(unit, u.MagUnit) or (unit is not None and unit == u.mag)):
        raise u.UnitTypeError(
            f"{error.key} is in {unit or 'no unit'}, but {value.key} is a magnitude; use u.mag."
        )
    numbers = np.where(np.isin(value.numbers, SENTINELS), np.nan, value.numbers)
    sigma = np.where(np.isin(error.numbers, SENTINELS), np.nan, error.numbers)
    flux = zero * 10 ** (-0.4 * numbers)
    return flux, flux * sigma * (0.4 * np.log(10))


def dust_values(key: str, value: object) -> np.ndarray:
    """Read Galactic extinction or reddening in magnitudes.

    Parameters
    ----------
    key : str
        What it is called, for the sentence of an error.
    value : float, ndarray, Column or Quantity
        Magnitudes; no unit is taken to be magnitudes.

    Returns
    -------
    ndarray of float, shape () or (n,)

    Raises
    ------
    astropy.units.UnitConversionError
        If the unit is no magnitude.
    """
    column = value if isinstance(value, _Values) else _Values.read(key, value)
    if column.unit is None or column.unit == u.mag:
        return column.numbers
    raise u.UnitConversionError(f"{key} is in {column.unit}, but it must be in u.mag.")


def _dust_of(
    dust: dict[str, _Values], bands: list[str], n: int
) -> tuple[np.ndarray | None, np.ndarray | None]:
    ebv = extinction = None
    if "ebv" in dust:
        ebv = np.array(np.broadcast_to(dust_values("ebv", dust["ebv"]), n))
    given = [band for band in BANDS if f"extinction_{band}" in dust]
    if given:
        absent = [band for band in bands if band not in given]
        if absent:
            raise ValueError(
                f"photometry has extinction_{given[0]} but not extinction_{absent[0]}; give the "
                "extinction of every band, or ebv."
            )
        extinction = np.zeros((n, len(BANDS)))
        for band in given:
            key = f"extinction_{band}"
            extinction[:, BANDS.index(band)] = dust_values(key, dust[key])
    return ebv, extinction


def _names_of(photometry: Table | Mapping, keys: list, n: int) -> tuple[str, ...] | None:
    if "name" not in keys:
        return None
    names = photometry["name"]
    if isinstance(names, str) or np.ndim(names) == 0:
        names = [names] if n == 1 else [f"{names} {k}" for k in range(n)]
    if isinstance(names, Column):
        names = names.tolist()
    if len(names) != n:
        raise ValueError(f"name has {len(names)} values for {n} galaxies; give one for each.")
    return tuple(map(str, names))


def join_catalogues(parts: list[Catalogue]) -> Catalogue:
    """Put galaxies that were read one by one behind one another.

    Parameters
    ----------
    parts : list of Catalogue
        Each of one galaxy.

    Returns
    -------
    Catalogue

    Raises
    ------
    ValueError
        If some have ``ebv`` or extinctions and others not.
    """
    dust = {}
    for what in ("ebv", "extinction"):
        given = [getattr(part, what) is not None for part in parts]
        if any(given) and not all(given):
            raise ValueError(
                f"galaxy {given.index(False)}: photometry has no {what}, but that of galaxy "
                f"{given.index(True)} has; give it for all or for none."
            )
        dust[what] = np.concatenate([getattr(part, what) for part in parts]) if all(given) else None
    names = tuple(part.names[0] if part.names else str(k) for k, part in enumerate(parts))
    problems = {k: part.problems[0] for k, part in enumerate(parts) if part.problems}
    return Catalogue(
        np.concatenate([part.flux for part in parts]),
        np.concatenate([part.error for part in parts]),
        dust["ebv"],
        dust["extinction"],
        names,
        problems,
    )
