r"""Catalogues: tables and mappings of photometry, converted to nanomaggies.

The keys are listed in `astrogenspec.inputs.photometry`, and the names of SDSS in
`astrogenspec.inputs.column_names`.  Axis ratios of model fits (``expAB_r``) are not used: they are
corrected for seeing, unlike those of the training data.

**Galactic extinction of SDSS.**  The columns ``extinction_g`` of data releases 7 to 12 follow the
coefficients of Schlegel, Finkbeiner & Davis (1998) [1]_, those of release 13 and later the
coefficients of Schlafly & Finkbeiner (2011) [2]_, which are 17% smaller in r and those of this
package.  The former are recognised by their ratios and converted, with

.. math:: E(B-V) = \sum_b A_b c_b / \sum_b c_b^2 ,

where :math:`A_b` is the extinction in the bands and :math:`c_b` are the coefficients of the former.

References
----------
.. [1] Schlegel, D. J., Finkbeiner, D. P. & Davis, M. 1998, ApJ, 500, 525.
.. [2] Schlafly, E. F. & Finkbeiner, D. P. 2011, ApJ, 737, 103.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import Row, Table

from ..surveys import BANDS, SDSS, Filter
from .column_names import DUST_KEYS, MAGNITUDES, SCHEMES, list_columns, translated
from .errors import InputLog
from .filter_sets import calibration_errors, extinction_coefficients, sdss_filters, union
from .fluxes import SENTINELS, Values, common_length, to_flux
from .morphology import MORPHOLOGY_KEYS, Morphology, morphology_columns, read_morphology
from .survey_names import check_shared_names, matching_surveys

__all__ = [
    "SENTINELS",
    "Catalogue",
    "checked_photometry",
    "dust_values",
    "join_catalogues",
    "read_catalogue",
    "read_names",
    "without_missing",
]


_COEFFICIENTS = np.array([SDSS.extinction_coefficient[band] for band in BANDS])
#: Ratios of extinction to E(B-V) of Schlegel, Finkbeiner & Davis (1998, table 6), used by SDSS up
#: to data release 12.
_OLD_COEFFICIENTS = np.array([5.155, 3.793, 2.751, 2.086, 1.479])
#: Maximum relative difference from these ratios; and the maximum in units of that from the ratios
#: of the package.
_RATIO_TOLERANCE, _RATIO_MARGIN = 0.015, 0.5


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Photometry in nanomaggies, as read from a table or mapping.

    Attributes
    ----------
    flux, error : ndarray, shape (n, m)
        nmgy as observed; NaN where missing.
    ebv : ndarray, shape (n,), or None
        Galactic E(B-V), mag.
    extinction : ndarray, shape (n, m), or None
        Galactic extinction, mag.
    names : tuple of str or None
        Names of the galaxies; the number of a galaxy without one.
    rejected : dict of int to str
        Reasons why galaxies cannot be used, by index.
    morphology : Morphology or None
        Morphology, if any was given.
    named : ndarray of bool, shape (n,), or None
        Whether a galaxy has a name; None if no names were given.
    notices : tuple of str
        Assumptions to warn of.
    filters : tuple of Filter
        Filters of the m columns; by default those of SDSS.
    calibration_error : ndarray, shape (m,)
        Uncertainty of the zero points, mag; by default that of the filters.
    coefficient : ndarray, shape (m,)
        Ratio of the Galactic extinction to E(B-V), 0 where fluxes are corrected for it; by default
        that of the filters.
    """

    flux: np.ndarray
    error: np.ndarray
    ebv: np.ndarray | None = None
    extinction: np.ndarray | None = None
    names: tuple[str, ...] | None = None
    rejected: dict[int, str] = field(default_factory=dict)
    morphology: Morphology | None = None
    named: np.ndarray | None = None
    notices: tuple[str, ...] = ()
    filters: tuple[Filter, ...] = field(default_factory=sdss_filters)
    calibration_error: np.ndarray = None  # type: ignore[assignment]  # filled in below
    coefficient: np.ndarray = None  # type: ignore[assignment]  # filled in below

    def __post_init__(self) -> None:
        errors: np.ndarray | None = self.calibration_error
        coefficient: np.ndarray | None = self.coefficient
        if errors is None:
            object.__setattr__(self, "calibration_error", calibration_errors(self.filters))
        if coefficient is None:
            object.__setattr__(self, "coefficient", extinction_coefficients(self.filters))

    def __len__(self) -> int:
        return len(self.flux)

    def with_filters(self, filters: Sequence[Filter]) -> Catalogue:
        """Return a copy with further columns, which are missing.

        Parameters
        ----------
        filters : sequence of Filter
            Filters of the columns of the copy, among them those of this catalogue.

        Returns
        -------
        Catalogue
            The same object if it has these filters.
        """
        if filters is self.filters or tuple(filters) == self.filters:
            return self
        index = [list(filters).index(each) for each in self.filters]
        shape = len(self), len(filters)
        flux, error, extinction = np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape)
        flux[:, index], error[:, index] = self.flux, self.error
        if self.extinction is not None:
            extinction[:, index] = self.extinction
        errors, coefficient = calibration_errors(filters), extinction_coefficients(filters)
        errors[index], coefficient[index] = self.calibration_error, self.coefficient
        return replace(
            self,
            flux=flux,
            error=error,
            extinction=None if self.extinction is None else extinction,
            filters=tuple(filters),
            calibration_error=errors,
            coefficient=coefficient,
        )


def read_catalogue(
    photometry: Table | Row | Mapping[Any, object],
    *,
    is_table: bool | None = None,
    guessing: bool = False,
) -> Catalogue:
    """Read photometry in the bands of SDSS from a table, a row or a mapping.

    Parameters
    ----------
    photometry : Table, QTable, Row or mapping
        Photometry of one or more galaxies.
    is_table : bool, optional
        Whether names are read in any case and other columns are ignored; by default for a table.
    guessing : bool
        Whether SDSS is only the default: names that other surveys use too are then checked.

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
    photometry = checked_photometry(photometry)
    is_table = isinstance(photometry, Table) if is_table is None else is_table
    translation = translated(photometry, is_table=is_table)
    given = translation.columns
    if not is_table:
        _check_keys(list(given))
    scheme, bands = _naming_scheme(given, is_table)
    doubt = "" if translation.renamed or not guessing else check_shared_names(given, scheme, bands)
    columns = {band: _band_columns(given, scheme, band) for band in bands}
    dust = {key: Values.read(key, given[key]) for key in given if key in DUST_KEYS}
    shape = morphology_columns(given)
    values = [item for pair in columns.values() for item in pair]
    n = common_length([*values, *dust.values(), *shape.values()])
    flux, error = np.full((n, len(BANDS)), np.nan), np.full((n, len(BANDS)), np.nan)
    for band, pair in columns.items():
        k = BANDS.index(band)
        flux[:, k], error[:, k] = to_flux(band, *pair, is_magnitude=scheme in MAGNITUDES)
    rejected = without_missing(flux, error, {BANDS.index(b): columns[b][1] for b in columns})
    ebv, extinction, converted = _dust_of(dust, bands, n)
    notices = (doubt, *translation.notices, _CONVERTED if converted else "")
    if translation.dereddened:
        extinction = np.zeros((n, len(BANDS)))
    names, named = read_names(given["name"], n) if "name" in given else (None, None)
    morphology = read_morphology(shape, n)
    shown = tuple(notice for notice in notices if notice)
    return Catalogue(
        flux,
        error,
        ebv,
        extinction,
        names,
        rejected,
        morphology,
        named,
        shown,
        coefficient=np.zeros(len(BANDS)) if translation.dereddened else None,  # type: ignore[arg-type]
    )


def checked_photometry(photometry: object) -> Table | Mapping[Any, Any]:
    """Return photometry as a table or a mapping, or raise.

    Parameters
    ----------
    photometry : Table, Row or mapping
        A row becomes a table.

    Returns
    -------
    Table or mapping

    Raises
    ------
    TypeError
        If it is of another type.
    """
    if isinstance(photometry, Row):
        return Table(photometry)
    if not isinstance(photometry, Table | Mapping):
        raise TypeError(
            f"photometry is of type {type(photometry).__name__}, but it must be a table or a "
            "mapping with keys such as 'g' and 'g_err'."
        )
    return photometry


def without_missing(
    flux: np.ndarray, error: np.ndarray, columns: Mapping[int, Values]
) -> dict[int, str]:
    """Set missing measurements to NaN.

    Parameters
    ----------
    flux, error : ndarray, shape (n, m)
        nmgy; changed in place.
    columns : mapping of int to Values
        Columns of the errors, by the index of the band.

    Returns
    -------
    dict of int to str
        Reasons why galaxies have no photometry, by index.
    """
    missing = ~(np.isfinite(flux) & np.isfinite(error) & (error > 0))
    rejected = {
        int(index): _reason(columns, flux[index], error[index], int(index))
        for index in np.flatnonzero(missing.all(axis=1))
    }
    flux[missing] = error[missing] = np.nan
    return rejected


def _reason(columns: Mapping[int, Values], flux: np.ndarray, error: np.ndarray, index: int) -> str:
    """Return why a galaxy has no photometry."""
    for k, column in columns.items():
        if np.isfinite(flux[k]) and np.isfinite(error[k]):
            numbers = np.ravel(column.numbers)
            value = numbers[index if numbers.size > 1 else 0]
            return f"{column.key} is {value:g}, but it must be positive."
    return "no band has both a flux and an error."


_CONVERTED = (
    "the extinction in the bands has the ratios of Schlegel, Finkbeiner & Davis (1998), as in "
    "SDSS releases 7 to 12; it "
    "was converted to the coefficients of Schlafly & Finkbeiner (2011) at the same E(B-V)."
)


def _check_keys(keys: list) -> None:
    known = {"name", *DUST_KEYS, *MORPHOLOGY_KEYS}
    known |= {
        key.format(band) for patterns in SCHEMES.values() for key in patterns for band in BANDS
    }
    for key in keys:
        if key not in known:
            raise ValueError(
                f"photometry has the unknown key {ascii(str(key)[:40])}; the bands are "
                f"{', '.join(BANDS)}, with keys such as 'g' and 'g_err', 'flux_g' and "
                "'flux_err_g', 'mag_g' and 'mag_err_g', and 'ebv', 'extinction_g', 'petro_flux_g', "
                "'petro_mag_g', 'r50', 'r90', 'axis_ratio', 'name'."
            )


def _naming_scheme(photometry: Mapping[Any, Any], is_table: bool) -> tuple[str, list[str]]:
    found = {
        scheme: [band for band in BANDS if pattern.format(band) in photometry]
        for scheme, (pattern, *_) in SCHEMES.items()
    }
    if is_table and _is_redshift(photometry):
        found["bare"].remove("z")
    schemes = [scheme for scheme, bands in found.items() if bands]
    if len(schemes) > 1:
        names = " and ".join(SCHEMES[scheme][0].format(found[scheme][0]) for scheme in schemes)
        raise ValueError(f"photometry has bands given in two ways, {names}; keep one of them.")
    if not schemes:
        known = matching_surveys(photometry)
        hint = f", or name their survey, such as survey={known[0]!r}" if known else ""
        raise ValueError(
            f"photometry has no band among its columns {list_columns(list(photometry))}; name them "
            "'g' and 'g_err', 'flux_g' and 'flux_err_g', or 'mag_g' and 'mag_err_g', or as SDSS "
            f"does, 'modelMag_g' and 'modelMagErr_g'{hint}."
        )
    return schemes[0], found[schemes[0]]


def _is_redshift(table: Mapping[Any, Any]) -> bool:
    """Return whether a column z is a redshift: neither it nor its error has a unit."""
    return (
        "z" in table
        and "z_ivar" not in table
        and Values.read("z", table["z"]).unit is None
        and ("z_err" not in table or Values.read("z_err", table["z_err"]).unit is None)
    )


def _band_columns(photometry: Mapping[Any, Any], scheme: str, band: str) -> tuple[Values, Values]:
    """Read a band and its error or inverse variance."""
    names = [pattern.format(band) for pattern in SCHEMES[scheme]]
    given = [name for name in names[1:] if name in photometry]
    value = Values.read(names[0], photometry[names[0]])
    if not given and value.scatter is not None:
        unit = u.mag if value.has_magnitude_unit else value.unit
        return value, Values(names[1], value.scatter, unit)
    wanted = " or ".join(names[1:])
    if len(given) != 1:
        what = "no error" if not given else "two errors"
        raise ValueError(f"photometry has {what} for {names[0]}; give {wanted}.")
    return value, Values.read(given[0], photometry[given[0]])


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
) -> tuple[np.ndarray | None, np.ndarray | None, bool]:
    """Return E(B-V), the extinction in the bands, and whether an extinction was converted."""
    ebv = None
    if "ebv" in dust:
        ebv = np.array(np.broadcast_to(dust_values("ebv", dust["ebv"]), n))
    given = [band for band in BANDS if f"extinction_{band}" in dust]
    if not given:
        return ebv, None, False
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
    extinction, converted = _converted_extinction(extinction, [BANDS.index(band) for band in given])
    return ebv, extinction, converted


def _converted_extinction(extinction: np.ndarray, bands: list[int]) -> tuple[np.ndarray, bool]:
    """Convert the extinction of galaxies with the ratios of Schlegel et al. (1998).

    Parameters
    ----------
    extinction : ndarray, shape (n, 5)
        As given, mag.
    bands : list of int
        Bands in which it was given.

    Returns
    -------
    extinction : ndarray, shape (n, 5)
        An extinction that is negative or not finite is kept.
    converted : bool
        Whether an extinction was converted.
    """
    values = extinction[:, bands]
    good = np.isfinite(values) & (values >= 0)
    safe = np.where(good, values, 0.0)

    def fit(coefficients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        weight = np.where(good, coefficients[bands], 0.0)
        total = np.sum(weight**2, axis=1)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            reddening = np.sum(safe * weight, axis=1) / total
            model = reddening[:, None] * weight
            difference = np.sqrt(np.sum((safe - model) ** 2, axis=1) / np.sum(model**2, axis=1))
        return reddening, difference

    old, old_difference = fit(_OLD_COEFFICIENTS)
    _, difference = fit(_COEFFICIENTS)
    with np.errstate(invalid="ignore"):
        rows = (
            (good.sum(axis=1) >= 2)
            & (old_difference < _RATIO_TOLERANCE)
            & (old_difference < _RATIO_MARGIN * difference)
        )
    result = extinction.copy()
    new = old[:, None] * _COEFFICIENTS[bands]
    result[:, bands] = np.where(rows[:, None] & good, new, values)
    return result, bool(rows.any())


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
        If the number of names is wrong, or names are floating-point numbers with too few digits.
    """
    if isinstance(names, str | bytes) or np.ndim(names) == 0:
        name = _name_text(names if isinstance(names, str | bytes) else np.asanyarray(names)[()])
        names = [name] if n == 1 or not name else [f"{name} {k}" for k in range(n)]
        names *= n if len(names) == 1 else 1
    if len(names) != n:
        raise ValueError(f"name has {len(names)} values for {n} galaxies; give one for each.")
    texts = [_name_text(name) for name in _name_values(names)]
    named = np.array([text != "" for text in texts], dtype=bool)
    return tuple(text or str(k) for k, text in enumerate(texts)), named


def _name_values(names: Any) -> list[Any]:
    """Return names as a list; None where masked."""
    if isinstance(names, Sequence):
        return list(names)
    with np.errstate(over="ignore"):  # the fill value of a masked column in half precision
        values = np.asarray(names)
    # In double precision: the limit exceeds the range of half precision.
    numbers = values.astype(float) if values.dtype.kind == "f" else np.zeros(0)
    if np.any(np.abs(numbers[np.isfinite(numbers)]) >= 2**53):
        raise ValueError(
            "name holds floating-point numbers with too few digits for these identifiers; give "
            "integers or strings."
        )
    masked = np.broadcast_to(np.asarray(getattr(names, "mask", False), bool), values.shape)
    return [
        None if hidden else value for value, hidden in zip(values.tolist(), masked, strict=True)
    ]


def _name_text(name: object) -> str:
    missing = name is None or name is np.ma.masked or isinstance(name, float) and np.isnan(name)
    if missing:
        return ""
    if not isinstance(name, bytes):
        return str(name)
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name.decode("latin-1")


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
        If only some galaxies have ``ebv`` or extinctions; its attribute ``galaxy`` is the first
        without.
    """
    filters = union([part.filters for part in parts])
    parts = [part.with_filters(filters) for part in parts]
    dust: dict[str, np.ndarray | None] = {}
    for what in ("ebv", "extinction"):
        values = [getattr(part, what) for part in parts]
        absent = [k for k, value in enumerate(values) if value is None]
        if absent and len(absent) < len(parts):
            given = next(k for k, value in enumerate(values) if value is not None)
            raise InputLog(len(parts), "raise").error(
                absent[0],
                f"photometry has no {what}, but that of galaxy {given} has; give it for all or "
                "for none.",
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
    notices = dict.fromkeys(notice for part in parts for notice in part.notices)
    return Catalogue(
        np.concatenate([part.flux for part in parts]),
        np.concatenate([part.error for part in parts]),
        dust["ebv"],
        dust["extinction"],
        names,
        rejected,
        morphology,
        named,
        tuple(notices),
        filters,
        np.max([part.calibration_error for part in parts], axis=0),
        parts[0].coefficient,
    )
