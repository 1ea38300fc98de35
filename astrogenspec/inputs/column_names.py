"""Names of columns: SDSS catalogues, in any case, translated to the keys of this package.

===================================== =========================== ====================
columns of SDSS                       meaning                     keys
===================================== =========================== ====================
``modelFlux_g``                       flux [nmgy]                 ``flux_g``
``modelFluxIvar_g``                   its inverse variance        ``flux_ivar_g``
``modelMag_g``                        asinh magnitude             ``flux_g``
``modelMagErr_g``                     its error                   ``flux_err_g``
``g``, ``err_g`` (no unit)            the same, of SkyServer      as above
``dered_g``, ``err_g``                dereddened magnitude        as above
``petroFlux_g``                       Petrosian flux [nmgy]       ``petro_flux_g``
``petroFluxIvar_g``                   its inverse variance        ``petro_flux_ivar_g``
``petroMag_g``                        Petrosian asinh magnitude   ``petro_flux_g``
``petroMagErr_g``                     its error                   ``petro_flux_err_g``
``petroR50_r``, ``petroR90_r``        radii [arcsec]              ``r50``, ``r90``
``objID``                             object identifier           ``name``, if absent
===================================== =========================== ====================

Magnitudes of SDSS are asinh magnitudes [1]_.  The case of letters does not matter in a table,
except for the bands themselves: ``U``, ``G``, ``R``, ``I``, ``Z`` are read if all five are there.
Fluxes are preferred to magnitudes, and magnitudes as observed to dereddened ones if the Galactic
extinction is given.  Dereddened magnitudes are restored to those observed if ``extinction_g`` and
so on are given; without these, their extinction is 0.

If SDSS magnitudes have no errors at all, those of SDSS galaxies of the same magnitude are assumed,
at least `ASSUMED_ERRORS`.

References
----------
.. [1] Lupton, R. H., Gunn, J. E. & Szalay, A. S. 1999, AJ, 118, 1406.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import Table

from ..surveys import BANDS, SDSS
from .fluxes import SENTINELS, Values, from_asinh_magnitude, is_fill_value, read_unit
from .morphology import MORPHOLOGY_KEYS
from .screening import MAGNITUDE_LIMITS, typical_error

__all__ = [
    "ASSUMED_ERRORS",
    "DUST_KEYS",
    "MAGNITUDES",
    "SCHEMES",
    "Translation",
    "has_sdss_names",
    "list_columns",
    "select_bands",
    "translated",
    "with_flux_unit",
    "with_names",
]

#: Naming schemes of the columns: flux or magnitude, its error, its inverse variance.
SCHEMES: dict[str, tuple[str, ...]] = {
    "bare": ("{}", "{}_err", "{}_ivar"),
    "flux": ("flux_{}", "flux_err_{}", "flux_ivar_{}"),
    "mag": ("mag_{}", "mag_err_{}"),
    "vizier": ("{}mag", "e_{}mag"),
}
#: Schemes whose columns are magnitudes.
MAGNITUDES = ("mag", "vizier")
#: Keys of the Galactic extinction.
DUST_KEYS = ("ebv", *(f"extinction_{band}" for band in BANDS))
#: Minimum errors that are assumed for SDSS magnitudes without errors, mag.
ASSUMED_ERRORS = {"u": 0.05, "g": 0.02, "r": 0.02, "i": 0.02, "z": 0.03}

#: Prefixes of the keys of a type of magnitude, by its name in SDSS.
_PREFIXES = {"model": "", "petro": "petro_"}
_RADII = {"petroR50_r": "r50", "petroR90_r": "r90"}
_IDENTIFIER = "objID"
_BAND_COLUMNS = [
    f"{kind}{column}_{band}"
    for kind, column, band in product(_PREFIXES, ("Flux", "FluxIvar", "Mag", "MagErr"), BANDS)
]
_SKYSERVER = [f"{column}_{band}" for column, band in product(("err", "dered"), BANDS)]
_OURS = [
    *(key.format(band) for keys in SCHEMES.values() for key in keys for band in BANDS),
    *DUST_KEYS,
    *MORPHOLOGY_KEYS,
    "name",
]
#: Names that are read in any case, by the name in lower case.
_KNOWN = {key.lower(): key for key in (*_OURS, *_BAND_COLUMNS, *_SKYSERVER, *_RADII, _IDENTIFIER)}
_SDSS_PATTERNS = [keys[0] for scheme, keys in SCHEMES.items() if scheme != "bare"]
_SDSS_PATTERNS += ["modelFlux_{}", "modelMag_{}", "dered_{}", *SCHEMES["bare"][1:], "err_{}"]
#: Names of bands of SDSS, except those of the bands alone.
_SDSS_NAMES = {pattern.format(band) for pattern in _SDSS_PATTERNS for band in BANDS}
_SDSS_LOWER_NAMES = {name.lower() for name in _SDSS_NAMES}
#: A column z without unit is a redshift if its median is below this number, and a magnitude if not.
_REDSHIFT_LIMIT = 9.0
_SHOWN = 8


def list_columns(keys: Sequence[Any]) -> str:
    """Return the names of columns for a message, shortened if there are many.

    Parameters
    ----------
    keys : sequence
        Names.

    Returns
    -------
    str
    """
    names = [ascii(str(key))[1:-1] for key in keys[:_SHOWN]]
    names = [name if len(name) <= 30 else f"{name[:30]}..." for name in names]
    rest = len(keys) - len(names)
    return ", ".join(names) + (f" and {rest} more" if rest > 0 else "") or "(none)"


@dataclass(frozen=True)
class Translation:
    """Photometry with the keys of this package.

    Attributes
    ----------
    columns : dict
        Columns by name.
    notices : tuple of str
        Assumptions to warn of.
    dereddened : bool
        Whether the fluxes are corrected for Galactic extinction.
    renamed : bool
        Whether there were names of SDSS.
    """

    columns: dict[Any, Any]
    notices: tuple[str, ...] = ()
    dereddened: bool = False
    renamed: bool = False


def translated(
    photometry: Table | Mapping[Any, Any], *, is_table: bool | None = None
) -> Translation:
    """Translate column names of SDSS, in any case, to the keys of this package, with units.

    Parameters
    ----------
    photometry : Table or mapping
        Photometry; it is not changed.
    is_table : bool, optional
        Whether names are read in any case and other columns are ignored; by default for a table.

    Returns
    -------
    Translation

    Raises
    ------
    TypeError, ValueError
        As for `~astrogenspec.inputs.fluxes.Values.read`.
    astropy.units.UnitsError
        If a column has a unit that differs from that of SDSS.
    """
    is_table = isinstance(photometry, Table) if is_table is None else is_table
    photometry = {key: photometry[key] for key in list(photometry.keys())}
    if is_table:
        photometry = _with_name(_in_known_case(photometry))
    keys = list(photometry.keys())
    wanted = {*_RADII, *_BAND_COLUMNS, *_SKYSERVER}
    columns = {key: Values.read(key, photometry[key]) for key in keys if key in wanted}
    bare = _bare_magnitudes(photometry, columns, is_table)
    read = _SDSSColumns(columns, bare, photometry)
    new: dict[str, Any] = {
        ours: _numbers(columns[key], u.arcsec) * u.arcsec
        for key, ours in _RADII.items()
        if key in columns
    }
    for kind, band in product(_PREFIXES, BANDS):
        new |= read.fluxes(kind, band)
    if not new:
        return Translation(photometry)
    twice = [key for key in new if key in keys]
    if twice:
        raise ValueError(
            f"photometry has {twice[0]} twice, under this name and its SDSS name; keep one of them."
        )
    used = {*columns, *bare}
    kept: dict[str, Any] = {key: photometry[key] for key in keys if key not in used}
    if read.dereddened:
        kept = {key: value for key, value in kept.items() if key not in DUST_KEYS}
    # SDSS also uses these names for model magnitudes, without a unit; bands of this package have
    # one.
    for band in BANDS if is_table else ():
        if band in kept and not getattr(kept[band], "unit", None):
            del kept[band]
    return Translation(kept | new, tuple(read.notices), read.dereddened, renamed=True)


def has_sdss_names(names: Iterable[Any], *, is_table: bool) -> bool:
    """Return whether there are names of bands of this package or of SDSS, for the bands of SDSS.

    Parameters
    ----------
    names : iterable
        Names of columns.
    is_table : bool
        Whether the case of letters does not matter.

    Returns
    -------
    bool
        True also for the names of bands alone, such as "g", if there is an error.
    """
    given = {name.lower() if is_table else name for name in names if isinstance(name, str)}
    return not given.isdisjoint(_SDSS_LOWER_NAMES if is_table else _SDSS_NAMES)


def _in_known_case(columns: dict[Any, Any]) -> dict[Any, Any]:
    """Rename columns whose names differ from known names by the case of letters."""
    upper = {band.upper() for band in BANDS}
    new: dict[str, str] = {}
    for key in columns:
        known = _KNOWN.get(key.lower())
        if known is None or known == key or known in columns or known in new.values():
            continue
        if key not in upper or upper <= columns.keys():
            new[key] = known
    return {new.get(key, key): values for key, values in columns.items()}


def _with_name(columns: dict[Any, Any]) -> dict[Any, Any]:
    if "name" in columns or _IDENTIFIER not in columns:
        return columns
    return columns | {"name": columns[_IDENTIFIER]}


def with_names(table: Table, identifiers: Sequence[str] = ()) -> Table:
    """Return a table with a column ``name``.

    Parameters
    ----------
    table : Table
        Any table; it is not changed.
    identifiers : sequence of str
        Names of columns of identifiers of other surveys, in order of preference.

    Returns
    -------
    Table
        The same table if it has such a column, or no column of identifiers (``NAME``, the given
        ones, or ``objID``, in any case).
    """
    if "name" in table.colnames:
        return table
    found = {name.lower(): name for name in reversed(table.colnames)}
    for key in ("name", *map(str.lower, identifiers), _IDENTIFIER.lower()):
        if key in found:
            table = type(table)(table, copy=False)
            table["name"] = table[found[key]]
            break
    return table


def _bare_magnitudes(
    photometry: Mapping[Any, Any], columns: Mapping[str, Values], is_table: bool
) -> dict[str, Values]:
    """Return the columns u, g, r, i, z if they are SDSS magnitudes by their names."""
    others = {SCHEMES[scheme][0].format(band) for scheme in SCHEMES for band in BANDS} - {*BANDS}
    if others & photometry.keys():
        return {}
    bare = {band: Values.read(band, photometry[band]) for band in BANDS if band in photometry}
    if "z" in bare and _is_redshift(bare["z"]):
        del bare["z"]
    errors = [f"err_{band}" in columns for band in bare]
    ours = [f"{band}_{error}" in photometry for band, error in product(bare, ("err", "ivar"))]
    if any(ours) or any(column.unit is not None for column in bare.values()):
        return {}
    if not all(_is_magnitude(column) for column in bare.values()):
        return {}
    return bare if any(errors) or is_table or len(bare) > 1 else {}


def _is_redshift(column: Values) -> bool:
    """Return whether numbers without unit are too small for magnitudes."""
    given = column.numbers[~is_fill_value(column.numbers, magnitude=True)]
    return column.unit is None and (not given.size or np.median(given) < _REDSHIFT_LIMIT)


def _is_magnitude(column: Values) -> bool:
    """Return whether most numbers are magnitudes of galaxies, or all are missing."""
    fill = is_fill_value(column.numbers, magnitude=False) | np.isin(column.numbers, SENTINELS)
    given = column.numbers[~fill]
    low, high = MAGNITUDE_LIMITS
    return not given.size or bool(np.mean((given > low) & (given < high)) > 0.5)


class _SDSSColumns:
    """Fluxes from columns of SDSS.

    Parameters
    ----------
    columns : mapping of str to Values
        Columns by their names in SDSS.
    bare : mapping of str to Values
        Columns of model magnitudes that are named like the bands.
    photometry : mapping
        All columns.
    """

    def __init__(
        self,
        columns: Mapping[str, Values],
        bare: Mapping[str, Values],
        photometry: Mapping[Any, Any],
    ) -> None:
        self._columns = dict(columns)
        has = {
            kind: any(f"{kind}_{band}" in columns for band in BANDS)
            for kind in ("modelFlux", "modelMag", "dered")
        }
        extinction = [key for key in DUST_KEYS[1:] if key in photometry]
        observed = has["modelFlux"] or has["modelMag"] or bool(bare)
        dust = bool(extinction) or "ebv" in photometry
        use_dered = has["dered"] and not (observed and dust)
        self.dereddened = use_dered and not extinction
        self.used_bare = bool(bare) and not (has["modelFlux"] or has["modelMag"] or use_dered)
        self.notices: list[str] = []
        if use_dered:
            for band in BANDS:
                for key in (f"modelFlux_{band}", f"modelMag_{band}"):
                    self._columns.pop(key, None)
                if f"dered_{band}" in columns:
                    self._columns[f"modelMag_{band}"] = self._observed(band, photometry)
            self._notice("dered_g and so on are read as dereddened asinh magnitudes of SDSS")
        elif self.used_bare:
            self._columns |= {f"modelMag_{band}": column for band, column in bare.items()}
            self._notice(f"{', '.join(bare)} without unit are read as asinh magnitudes of SDSS")
        for band in BANDS:
            if f"err_{band}" in columns:
                self._columns.setdefault(f"modelMagErr_{band}", columns[f"err_{band}"])
        self._assumed = not any(
            f"model{error}_{band}" in self._columns
            for error in ("MagErr", "FluxIvar")
            for band in BANDS
        ) and any(f"modelMag_{band}" in self._columns for band in BANDS)
        if self._assumed:
            sizes = ", ".join(f"{size:g} in {band}" for band, size in ASSUMED_ERRORS.items())
            self._notice(
                "no errors were given: those of SDSS galaxies of the same magnitude are assumed, "
                f"at least (mag) {sizes}"
            )

    def _notice(self, text: str) -> None:
        self.notices.append(f"photometry: {text}.")

    def _observed(self, band: str, photometry: Mapping[Any, Any]) -> Values:
        """Return a dereddened magnitude as observed, if the extinction is given."""
        column = self._columns[f"dered_{band}"]
        key = f"extinction_{band}"
        if key not in photometry:
            return column
        extinction = Values.read(key, photometry[key]).numbers
        observed = column.numbers + extinction
        fill = is_fill_value(column.numbers, magnitude=True)
        return Values(column.key, np.where(fill, np.nan, observed), column.unit)

    def fluxes(self, kind: str, band: str) -> dict[str, Any]:
        """Read one band of a type of magnitude from its flux or magnitude; empty without either."""
        columns_of = (
            (_from_flux, f"{kind}Flux_{band}", f"{kind}FluxIvar_{band}"),
            (_from_asinh_magnitude, f"{kind}Mag_{band}", f"{kind}MagErr_{band}"),
        )
        columns = self._columns
        given = [names for names in columns_of if names[1] in columns]
        usable = [names for names in given if names[2] in columns or kind != "model"]
        if not given:
            return {}
        magnitude = columns.get(f"{kind}Mag_{band}")
        if not usable and self._assumed and magnitude is not None:
            numbers = _numbers(magnitude, u.mag)
            assumed = np.maximum(ASSUMED_ERRORS[band], typical_error(numbers, band))
            found = _from_asinh_magnitude(band, magnitude, Values("", assumed, None))
        elif not usable:
            _, value, error = given[0]
            shown = columns[value].key
            wanted = error if shown == value else f"err_{band}"
            raise ValueError(f"photometry has no error for {shown}; give {wanted}.")
        else:
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
    """Return the flux, and its error if that of the magnitude is given."""
    numbers = _numbers(magnitude, u.mag)
    sigma = None if error is None else _numbers(error, u.mag)
    flux, flux_error = from_asinh_magnitude(numbers, sigma, SDSS.asinh_softening[band])
    found = {"flux": flux * u.nmgy}
    if flux_error is not None:
        found["flux_err"] = flux_error * u.nmgy
    return found


def _numbers(column: Values, unit: u.UnitBase) -> np.ndarray:
    """Return the values of a column, after a check of its unit."""
    allowed = (None, unit, u.ABmag) if unit == u.mag else (None, unit)
    if column.unit not in allowed:
        raise u.UnitConversionError(
            f"{column.key} is in {column.unit}, but SDSS gives it in {unit}; rename the column "
            "if it holds another quantity."
        )
    return column.numbers


def select_bands(table: Table, bands: Sequence[str]) -> Table:
    """Return a table without the photometry of other bands.

    Parameters
    ----------
    table : Table
        Photometry, with any of the names that `translated` reads; it is not changed.
    bands : sequence of str
        Bands to keep.

    Returns
    -------
    Table
    """
    patterns = [key for keys in SCHEMES.values() for key in keys]
    patterns += [f"model{key}_{{}}" for key in ("Flux", "FluxIvar", "Mag", "MagErr")]
    patterns += ["err_{}", "dered_{}"]
    other = {pattern.format(band) for pattern in patterns for band in BANDS if band not in bands}
    other_names = {name.lower() for name in other}
    kept = [name for name in table.colnames if name.lower() not in other_names]
    return table[kept]


def with_flux_unit(table: Table, unit: str, bands: Sequence[str] = BANDS) -> Table:
    """Return a table whose columns of fluxes have a unit.

    Parameters
    ----------
    table : Table
        Photometry; it is not changed.
    unit : str
        Unit of the columns ``flux_g``, ``flux_err_g``, and of ``flux_ivar_g`` to the power -1/2, if
        they have none.
    bands : sequence of str
        Bands of these columns.

    Returns
    -------
    Table

    Raises
    ------
    astropy.units.UnitsError
        If the unit is unknown.
    """
    parsed = read_unit(unit) or u.dimensionless_unscaled
    powers = {"flux_{}": 1, "flux_err_{}": 1, "flux_ivar_{}": -2}
    wanted = {key.format(band).lower(): n for key, n in powers.items() for band in bands}
    new = type(table)(table, copy=False)
    for name in table.colnames:
        power = wanted.get(name.lower())
        if power is not None and getattr(table[name], "unit", None) is None:
            new[name] = u.Quantity(Values.read(name, table[name]).numbers, parsed**power)
    return new
