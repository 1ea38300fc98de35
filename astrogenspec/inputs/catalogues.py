"""Tables and dictionaries of photometry, read into nanomaggies (the keys are those of `astrogenspec.inputs.photometry`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import Column, Row, Table

from ..surveys import BANDS, SDSS
from .fluxes import SENTINELS, Values, common_length, to_flux
from .morphology import MORPHOLOGY_KEYS, Morphology, morphology_columns, read_morphology

__all__ = [
    "SENTINELS",
    "Catalogue",
    "dust_values",
    "join_catalogues",
    "read_catalogue",
    "translated",
]

#: For each kind of magnitude of the survey, the beginning of our names.
_KINDS = {"model": "", "petro": "petro_"}
_RADII = {"petroR50_r": "r50", "petroR90_r": "r90"}
_NUMBERS = ("objID", "objid")
_BAND_COLUMNS = {
    f"{kind}{what}_{band}"
    for kind, what, band in product(_KINDS, ("Flux", "FluxIvar", "Mag", "MagErr"), BANDS)
}


def translated(photometry: Table | Mapping[str, object]) -> Table | Mapping[str, object]:
    """Give columns that have the names of the survey our names, and units.

    Parameters
    ----------
    photometry : Table or mapping
        Not changed.

    Returns
    -------
    Table or mapping
        The same object if there is none.

    Raises
    ------
    TypeError, ValueError
        As for `~astrogenspec.inputs.fluxes.Values.read`.
    astropy.units.UnitsError
        If a column has a unit other than that of the survey.
    """
    keys = list(photometry.keys())
    columns = {
        key: Values.read(key, photometry[key]) for key in keys if key in {*_RADII, *_BAND_COLUMNS}
    }
    new = {
        ours: _numbers(columns[key], u.arcsec) * u.arcsec
        for key, ours in _RADII.items()
        if key in columns
    }
    for kind, band in product(_KINDS, BANDS):
        new |= _fluxes(columns, kind, band)
    if not new:
        return photometry
    twice = [key for key in new if key in keys]
    if twice:
        raise ValueError(
            f"photometry has {twice[0]} twice, by this name and by that of SDSS; keep one of them."
        )
    kept: dict[str, Any] = {key: photometry[key] for key in keys if key not in columns}
    if not isinstance(photometry, Table):
        return kept | new
    # The survey calls model magnitudes by these names too; a band of ours would have a unit.
    for band in BANDS:
        if band in kept and not getattr(kept[band], "unit", None):
            del kept[band]
    for key in _NUMBERS:
        if key in kept:
            kept.setdefault("name", [str(number) for number in kept[key]])
    return type(photometry)(kept | new, copy=False)


def _fluxes(columns: dict[str, Values], kind: str, band: str) -> dict[str, u.Quantity]:
    """Read a band of one kind, from its flux or else from its magnitude; nothing if there is neither."""
    ways = (
        (_from_flux, f"{kind}Flux_{band}", f"{kind}FluxIvar_{band}"),
        (_from_asinh_magnitude, f"{kind}Mag_{band}", f"{kind}MagErr_{band}"),
    )
    given = [way for way in ways if way[1] in columns]
    usable = [way for way in given if way[2] in columns or kind != "model"]
    if not given:
        return {}
    if not usable:
        _, value, error = given[0]
        raise ValueError(f"photometry has no error for {value}; give {error}.")
    read, value, error = usable[0]
    found = read(band, columns[value], columns.get(error))
    return {f"{_KINDS[kind]}{name}_{band}": values for name, values in found.items()}


def _from_flux(band: str, flux: Values, ivar: Values | None) -> dict[str, u.Quantity]:
    found = {"flux": _numbers(flux, u.nmgy) * u.nmgy}
    if ivar is not None:
        found["flux_ivar"] = _numbers(ivar, u.nmgy**-2) * u.nmgy**-2
    return found


def _from_asinh_magnitude(
    band: str, magnitude: Values, error: Values | None
) -> dict[str, u.Quantity]:
    r"""Flux :math:`2 b \sinh[-m \ln(10)/2.5 - \ln b]` in maggies; its error by the derivative."""
    softening = SDSS.asinh_softening[band]
    slope = 0.4 * np.log(10)
    numbers = _numbers(magnitude, u.mag)
    numbers = np.where(np.isin(numbers, SENTINELS), np.nan, numbers)
    scaled = -slope * (numbers - 22.5) - np.log(softening)
    found = {"flux": 2 * softening * np.sinh(scaled) * u.nmgy}
    if error is not None:
        sigma = 2 * softening * slope * np.cosh(scaled) * _numbers(error, u.mag)
        found["flux_err"] = sigma * u.nmgy
    return found


def _numbers(column: Values, unit: u.UnitBase) -> np.ndarray:
    """Numbers in the unit of the survey."""
    allowed = (None, unit, u.ABmag) if unit == u.mag else (None, unit)
    if column.unit not in allowed:
        raise u.UnitConversionError(
            f"{column.key} is in {column.unit}, but SDSS gives it in {unit}; rename the column if it is something else."
        )
    return column.numbers


#: For each way to name the columns: the flux or magnitude, its error, its inverse variance.
_WAYS = {
    "bare": ("{}", "{}_err", "{}_ivar"),
    "flux": ("flux_{}", "flux_err_{}", "flux_ivar_{}"),
    "mag": ("mag_{}", "mag_err_{}", None),
    "vizier": ("{}mag", "e_{}mag", None),
}
_MAGNITUDES = ("mag", "vizier")


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
    morphology : Morphology or None
        Sizes and shapes, if any were given.
    """

    flux: np.ndarray
    error: np.ndarray
    ebv: np.ndarray | None = None
    extinction: np.ndarray | None = None
    names: tuple[str, ...] | None = None
    problems: dict[int, str] = field(default_factory=dict)
    morphology: Morphology | None = None

    def __len__(self) -> int:
        return len(self.flux)


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
    photometry = translated(photometry)
    keys = list(photometry.keys())
    if isinstance(photometry, Mapping):
        _check_keys(keys)
    way, bands = _way_of(photometry, keys)
    columns = {band: _band_columns(photometry, keys, way, band) for band in bands}
    dust = {key: Values.read(key, photometry[key]) for key in keys if key in _DUST_KEYS}
    sizes = morphology_columns(photometry)
    values = [item for pair in columns.values() for item in pair]
    n = common_length([*values, *dust.values(), *sizes.values()])
    flux, error, problems = np.full((n, len(BANDS)), np.nan), np.full((n, len(BANDS)), np.nan), {}
    for band, pair in columns.items():
        k = BANDS.index(band)
        flux[:, k], error[:, k] = to_flux(band, *pair, is_magnitude=way in _MAGNITUDES)
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
    names = _names_of(photometry, keys, n)
    return Catalogue(flux, error, ebv, extinction, names, problems, read_morphology(sizes, n))


_DUST_KEYS = ("ebv", *(f"extinction_{band}" for band in BANDS))


def _check_keys(keys: list) -> None:
    known = {"name", *_DUST_KEYS, *MORPHOLOGY_KEYS}
    known |= {key.format(band) for way in _WAYS.values() for key in way if key for band in BANDS}
    for key in keys:
        if key not in known:
            raise ValueError(
                f"photometry has the key {key!r}, which means nothing here; the bands are "
                f"{', '.join(BANDS)}, with keys such as 'g' and 'g_err', 'flux_g' and 'flux_err_g', "
                "'mag_g' and 'mag_err_g', and 'ebv', 'extinction_g', 'petro_flux_g', 'petro_mag_g', 'r50', 'r90', "
                "'axis_ratio', 'name'."
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
            "them 'g' and 'g_err', 'flux_g' and 'flux_err_g', or 'mag_g' and 'mag_err_g', or as SDSS does, 'modelMag_g' "
            "and 'modelMagErr_g'."
        )
    return ways[0], found[ways[0]]


def _is_redshift(table: Table) -> bool:
    """Tell whether a column z is a redshift: it has neither a unit nor an error in the way of a band."""
    names = table.colnames
    return (
        "z" in names
        and "z_ivar" not in names
        and Values.read("z", table["z"]).unit is None
        and ("z_err" not in names or Values.read("z_err", table["z_err"]).unit is None)
    )


def _band_columns(
    photometry: Table | Mapping, keys: list, way: str, band: str
) -> tuple[Values, Values]:
    """Read a band and its error, or its inverse variance."""
    names = [pattern and pattern.format(band) for pattern in _WAYS[way]]
    given = [name for name in names[1:] if name in keys]
    wanted = " or ".join(name for name in names[1:] if name)
    if len(given) != 1:
        what = "no error" if not given else "two errors"
        raise ValueError(f"photometry has {what} for {names[0]}; give {wanted}.")
    return Values.read(names[0], photometry[names[0]]), Values.read(given[0], photometry[given[0]])


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
    column = value if isinstance(value, Values) else Values.read(key, value)
    if column.unit is None or column.unit == u.mag:
        return column.numbers
    raise u.UnitConversionError(f"{key} is in {column.unit}, but it must be in u.mag.")


def _dust_of(
    dust: dict[str, Values], bands: list[str], n: int
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
    morphology = None
    sizes = [part.morphology for part in parts]
    if any(size is not None for size in sizes):
        blank = Morphology.missing(1)
        morphology = Morphology.concatenate([blank if size is None else size for size in sizes])
    return Catalogue(
        np.concatenate([part.flux for part in parts]),
        np.concatenate([part.error for part in parts]),
        dust["ebv"],
        dust["extinction"],
        names,
        problems,
        morphology,
    )
