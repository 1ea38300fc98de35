"""Catalogues: tables and mappings of photometry, converted to nanomaggies.

The keys are listed in `astrogenspec.inputs.photometry`.  Columns with the names of the SDSS catalogue server (and of
``astroquery.sdss``), which have no units, are translated first:

============================================== ======================================= ==================================
SDSS                                           meaning                                 becomes
============================================== ======================================= ==================================
``modelFlux_g``, ``modelFluxIvar_g``           flux [nmgy], inverse variance           ``flux_g``, ``flux_ivar_g``
``modelMag_g``, ``modelMagErr_g``              asinh magnitude [1]_                    ``flux_g``, ``flux_err_g``
``petroFlux_g``, ``petroFluxIvar_g``           Petrosian flux [nmgy]                   ``petro_flux_g``, ``petro_flux_ivar_g``
``petroMag_g``, ``petroMagErr_g``              Petrosian asinh magnitude               ``petro_flux_g``, ``petro_flux_err_g``
``petroR50_r``, ``petroR90_r``                 radii [arcsec]                          ``r50``, ``r90``
``objID`` or ``objid``                         object identifier                       ``name``, if there is none
============================================== ======================================= ==================================

``extinction_g`` has the same name in SDSS.  Fluxes are preferred to magnitudes.  Axis ratios of model fits (``expAB_r``)
are not used: they are corrected for seeing, unlike those of the training data.

References
----------
.. [1] Lupton, R. H., Gunn, J. E. & Szalay, A. S. 1999, AJ, 118, 1406.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import Column, Row, Table

from ..surveys import BANDS, SDSS
from .errors import InputLog
from .fluxes import SENTINELS, Values, common_length, to_flux
from .morphology import MORPHOLOGY_KEYS, Morphology, morphology_columns, read_morphology

__all__ = [
    "SENTINELS",
    "Catalogue",
    "dust_values",
    "join_catalogues",
    "read_catalogue",
    "read_names",
    "translated",
]

#: Prefixes of the keys of a type of magnitude, by its name in SDSS.
_PREFIXES = {"model": "", "petro": "petro_"}
_RADII = {"petroR50_r": "r50", "petroR90_r": "r90"}
_IDENTIFIERS = ("objID", "objid")
_BAND_COLUMNS = {
    f"{kind}{column}_{band}"
    for kind, column, band in product(_PREFIXES, ("Flux", "FluxIvar", "Mag", "MagErr"), BANDS)
}


def translated(photometry: Table | Mapping[str, object]) -> Table | Mapping[str, object]:
    """Translate SDSS columns to the keys of this package, with units.

    Parameters
    ----------
    photometry : Table or mapping
        Photometry; it is not changed.

    Returns
    -------
    Table or mapping
        The same object if it has no SDSS columns.

    Raises
    ------
    TypeError, ValueError
        As for `~astrogenspec.inputs.fluxes.Values.read`.
    astropy.units.UnitsError
        If a column has a unit that differs from that of SDSS.
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
    for kind, band in product(_PREFIXES, BANDS):
        new |= _fluxes(columns, kind, band)
    if not new:
        return photometry
    twice = [key for key in new if key in keys]
    if twice:
        raise ValueError(
            f"photometry has {twice[0]} twice, under this name and its SDSS name; keep one of them."
        )
    kept: dict[str, Any] = {key: photometry[key] for key in keys if key not in columns}
    if not isinstance(photometry, Table):
        return kept | new
    # SDSS also uses these names for model magnitudes, without a unit; bands of this package have one.
    for band in BANDS:
        if band in kept and not getattr(kept[band], "unit", None):
            del kept[band]
    for key in _IDENTIFIERS:
        if key in kept:
            kept.setdefault("name", [str(identifier) for identifier in kept[key]])
    return type(photometry)(kept | new, copy=False)


def _fluxes(columns: dict[str, Values], kind: str, band: str) -> dict[str, u.Quantity]:
    """Read one band of a type of magnitude, from its flux or else its magnitude; empty if it has neither."""
    columns_of = (
        (_from_flux, f"{kind}Flux_{band}", f"{kind}FluxIvar_{band}"),
        (_from_asinh_magnitude, f"{kind}Mag_{band}", f"{kind}MagErr_{band}"),
    )
    given = [names for names in columns_of if names[1] in columns]
    usable = [names for names in given if names[2] in columns or kind != "model"]
    if not given:
        return {}
    if not usable:
        _, value, error = given[0]
        raise ValueError(f"photometry has no error for {value}; give {error}.")
    read, value, error = usable[0]
    found = read(band, columns[value], columns.get(error))
    return {f"{_PREFIXES[kind]}{name}_{band}": values for name, values in found.items()}


def _from_flux(band: str, flux: Values, ivar: Values | None) -> dict[str, u.Quantity]:
    found = {"flux": _numbers(flux, u.nmgy) * u.nmgy}
    if ivar is not None:
        found["flux_ivar"] = _numbers(ivar, u.nmgy**-2) * u.nmgy**-2
    return found


def _from_asinh_magnitude(
    band: str, magnitude: Values, error: Values | None
) -> dict[str, u.Quantity]:
    r"""Return the flux :math:`2 b \sinh[-m \ln(10)/2.5 - \ln b]`, and its error from the derivative."""
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
    """Return the values of a column, after a check of its unit."""
    allowed = (None, unit, u.ABmag) if unit == u.mag else (None, unit)
    if column.unit not in allowed:
        raise u.UnitConversionError(
            f"{column.key} is in {column.unit}, but SDSS gives it in {unit}; rename the column if it holds another quantity."
        )
    return column.numbers


#: Naming schemes of the columns: flux or magnitude, its error, its inverse variance.
_SCHEMES: dict[str, tuple[str, ...]] = {
    "bare": ("{}", "{}_err", "{}_ivar"),
    "flux": ("flux_{}", "flux_err_{}", "flux_ivar_{}"),
    "mag": ("mag_{}", "mag_err_{}"),
    "vizier": ("{}mag", "e_{}mag"),
}
_MAGNITUDES = ("mag", "vizier")


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Photometry in nanomaggies, as read from a table or mapping.

    Attributes
    ----------
    flux, error : ndarray, shape (n, 5)
        nmgy as observed; NaN where missing.
    ebv : ndarray, shape (n,), or None
        Galactic E(B-V), mag.
    extinction : ndarray, shape (n, 5), or None
        Galactic extinction, mag.
    names : tuple of str or None
        Names of the galaxies; the number of a galaxy without one.
    rejected : dict of int to str
        Reasons why galaxies cannot be used, by index.
    morphology : Morphology or None
        Morphology, if any was given.
    named : ndarray of bool, shape (n,), or None
        Whether a galaxy has a name; None if no names were given.
    """

    flux: np.ndarray
    error: np.ndarray
    ebv: np.ndarray | None = None
    extinction: np.ndarray | None = None
    names: tuple[str, ...] | None = None
    rejected: dict[int, str] = field(default_factory=dict)
    morphology: Morphology | None = None
    named: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.flux)


def read_catalogue(photometry: Table | Row | Mapping[str, object]) -> Catalogue:
    """Read a table, a row or a mapping.

    Parameters
    ----------
    photometry : Table, QTable, Row or mapping
        Photometry of one or more galaxies.

    Returns
    -------
    Catalogue

    Raises
    ------
    TypeError
        If the argument has another type, or a column does not hold numbers.
    ValueError
        If keys or shapes cannot be used.
    astropy.units.UnitsError
        If units are missing or wrong.
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
    scheme, bands = _naming_scheme(photometry, keys)
    columns = {band: _band_columns(photometry, keys, scheme, band) for band in bands}
    dust = {key: Values.read(key, photometry[key]) for key in keys if key in _DUST_KEYS}
    shape = morphology_columns(photometry)
    values = [item for pair in columns.values() for item in pair]
    n = common_length([*values, *dust.values(), *shape.values()])
    flux, error = np.full((n, len(BANDS)), np.nan), np.full((n, len(BANDS)), np.nan)
    rejected: dict[int, str] = {}
    for band, pair in columns.items():
        k = BANDS.index(band)
        flux[:, k], error[:, k] = to_flux(band, *pair, is_magnitude=scheme in _MAGNITUDES)
        bad = np.isfinite(flux[:, k]) & np.isfinite(error[:, k]) & ~(error[:, k] > 0)
        given = np.broadcast_to(pair[1].numbers, n)
        for index in np.flatnonzero(bad):
            text = f"{pair[1].key} is {given[index]:g}, but it must be positive."
            rejected.setdefault(int(index), text)
    missing = ~(np.isfinite(flux) & np.isfinite(error))
    flux[missing] = error[missing] = np.nan
    for index in np.flatnonzero(missing.all(axis=1)):
        rejected.setdefault(int(index), "no band has both a flux and an error.")
    ebv, extinction = _dust_of(dust, bands, n)
    names, named = read_names(photometry["name"], n) if "name" in keys else (None, None)
    morphology = read_morphology(shape, n)
    return Catalogue(flux, error, ebv, extinction, names, rejected, morphology, named)


_DUST_KEYS = ("ebv", *(f"extinction_{band}" for band in BANDS))


def _check_keys(keys: list) -> None:
    known = {"name", *_DUST_KEYS, *MORPHOLOGY_KEYS}
    known |= {
        key.format(band) for patterns in _SCHEMES.values() for key in patterns for band in BANDS
    }
    for key in keys:
        if key not in known:
            raise ValueError(
                f"photometry has the unknown key {key!r}; the bands are "
                f"{', '.join(BANDS)}, with keys such as 'g' and 'g_err', 'flux_g' and 'flux_err_g', "
                "'mag_g' and 'mag_err_g', and 'ebv', 'extinction_g', 'petro_flux_g', 'petro_mag_g', 'r50', 'r90', "
                "'axis_ratio', 'name'."
            )


def _naming_scheme(photometry: Table | Mapping, keys: list) -> tuple[str, list[str]]:
    found = {
        scheme: [band for band in BANDS if pattern.format(band) in keys]
        for scheme, (pattern, *_) in _SCHEMES.items()
    }
    if isinstance(photometry, Table) and _is_redshift(photometry):
        found["bare"].remove("z")
    schemes = [scheme for scheme, bands in found.items() if bands]
    if len(schemes) > 1:
        names = " and ".join(_SCHEMES[scheme][0].format(found[scheme][0]) for scheme in schemes)
        raise ValueError(f"photometry has bands given in two ways, {names}; keep one of them.")
    if not schemes:
        raise ValueError(
            f"photometry has no band among its columns {', '.join(map(str, keys)) or '(none)'}; name "
            "them 'g' and 'g_err', 'flux_g' and 'flux_err_g', or 'mag_g' and 'mag_err_g', or as SDSS does, 'modelMag_g' "
            "and 'modelMagErr_g'."
        )
    return schemes[0], found[schemes[0]]


def _is_redshift(table: Table) -> bool:
    """Return whether a column z is a redshift: neither it nor its error has a unit."""
    names = table.colnames
    return (
        "z" in names
        and "z_ivar" not in names
        and Values.read("z", table["z"]).unit is None
        and ("z_err" not in names or Values.read("z_err", table["z_err"]).unit is None)
    )


def _band_columns(
    photometry: Table | Mapping, keys: list, scheme: str, band: str
) -> tuple[Values, Values]:
    """Read a band and its error or inverse variance."""
    names = [pattern.format(band) for pattern in _SCHEMES[scheme]]
    given = [name for name in names[1:] if name in keys]
    wanted = " or ".join(names[1:])
    if len(given) != 1:
        what = "no error" if not given else "two errors"
        raise ValueError(f"photometry has {what} for {names[0]}; give {wanted}.")
    return Values.read(names[0], photometry[names[0]]), Values.read(given[0], photometry[given[0]])


def dust_values(key: str, value: object) -> np.ndarray:
    """Read Galactic extinction or reddening, in magnitudes.

    Parameters
    ----------
    key : str
        Name of the value, for the error message.
    value : float, ndarray, Column or Quantity
        Magnitudes, with or without a unit.

    Returns
    -------
    ndarray of float, shape () or (n,)

    Raises
    ------
    astropy.units.UnitConversionError
        If the unit is not a magnitude.
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


def read_names(names: Any, n: int) -> tuple[tuple[str, ...], np.ndarray]:
    """Read the names of galaxies.

    Parameters
    ----------
    names : str, or a column or sequence of n names
        One name is followed by the number of the galaxy if there are several.
    n : int
        Number of galaxies.

    Returns
    -------
    names : tuple of str
        The number of a galaxy whose name is masked or empty.
    named : ndarray of bool, shape (n,)
        Whether a galaxy has a name.

    Raises
    ------
    ValueError
        If the number of names is wrong.
    """
    if isinstance(names, str | bytes) or np.ndim(names) == 0:
        name = _name_text(names if isinstance(names, str | bytes) else np.asanyarray(names)[()])
        names = [name] if n == 1 or not name else [f"{name} {k}" for k in range(n)]
        names *= n if len(names) == 1 else 1
    if isinstance(names, Column | np.ndarray):
        names = names.tolist()
    if len(names) != n:
        raise ValueError(f"name has {len(names)} values for {n} galaxies; give one for each.")
    texts = [_name_text(name) for name in names]
    named = np.array([text != "" for text in texts], dtype=bool)
    return tuple(text or str(k) for k, text in enumerate(texts)), named


def _name_text(name: object) -> str:
    missing = name is None or name is np.ma.masked or isinstance(name, float) and np.isnan(name)
    if missing:
        return ""
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)


def join_catalogues(parts: list[Catalogue]) -> Catalogue:
    """Concatenate galaxies that were read one by one.

    Parameters
    ----------
    parts : list of Catalogue
        One galaxy each.

    Returns
    -------
    Catalogue

    Raises
    ------
    ValueError
        If only some galaxies have ``ebv`` or extinctions; its attribute ``galaxy`` is the first without.
    """
    dust: dict[str, np.ndarray | None] = {}
    for what in ("ebv", "extinction"):
        values = [getattr(part, what) for part in parts]
        absent = [k for k, value in enumerate(values) if value is None]
        if absent and len(absent) < len(parts):
            given = next(k for k, value in enumerate(values) if value is not None)
            raise InputLog(len(parts), "raise").error(
                absent[0],
                f"photometry has no {what}, but that of galaxy {given} has; give it for all or for none.",
            )
        dust[what] = None if absent else np.concatenate(values)
    named = np.array([part.named is not None and bool(part.named[0]) for part in parts], bool)
    names = tuple(
        part.names[0] if part.names and named[k] else str(k) for k, part in enumerate(parts)
    )
    rejected = {k: part.rejected[0] for k, part in enumerate(parts) if part.rejected}
    morphology = None
    if any(part.morphology is not None for part in parts):
        blank = Morphology.missing(1)
        morphology = Morphology.concatenate(
            [blank if part.morphology is None else part.morphology for part in parts]
        )
    return Catalogue(
        np.concatenate([part.flux for part in parts]),
        np.concatenate([part.error for part in parts]),
        dust["ebv"],
        dust["extinction"],
        names,
        rejected,
        morphology,
        named,
    )
