r"""Columns of surveys: the photometry of the bands of given surveys, found by its names.

Two kinds of names are read:

* those of the catalogues of the survey (`~astrogenspec.surveys.CatalogueFormat`), in any case.  If
  there are several types of magnitudes, the first in the description of the survey with the most
  bands is used;
* the schemes of this package, ``flux_g`` and ``flux_err_g`` and so on
  (`astrogenspec.inputs.photometry`).  Where two surveys have bands of the same name, the column is
  called after the survey or the filter: ``mag_lsst-g``, ``mag_g_lsst`` or ``mag_lsst2023-g``.

Magnitudes on the Vega system are converted with the offsets of the survey.  A value that stands for
a non-detection becomes a flux of 0, with the error of the limit: if the column of the error holds a
magnitude between `LIMITS`, it is the limit of one standard deviation, as in BPZ [1]_ and RAIL;
otherwise the depth of the survey, of five standard deviations, is assumed.

References
----------
.. [1] Benitez, N. 2000, ApJ, 536, 571.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, TypeAlias

import astropy.units as u
import numpy as np
from astropy.table import Table
from astropy.uncertainty import Distribution

from ..surveys import SDSS, CatalogueFormat, Filter, Survey, get_filter, get_survey, survey_names
from ..surveys.filters import filter_groups
from .column_names import MAGNITUDES, SCHEMES, list_columns
from .filter_sets import calibration_errors, extinction_coefficients
from .fluxes import Values, from_asinh_magnitude, read_unit, to_flux

__all__ = [
    "LIMITS",
    "BandColumns",
    "Columns",
    "filter_columns",
    "named_filters",
    "sdss_columns",
    "select_survey_bands",
    "survey_columns",
    "with_filter_names",
]

#: Magnitudes that the error of a non-detection can be, if it is that of a limit.
LIMITS = (10.0, 35.0)
_EXTINCTION = "extinction_{}"
#: Extinction, mag, below which a transmission is 1 in single precision.
_ROUNDING = 1e-6
#: Names of a column and of its error; None for the standard deviation of a distribution.
Names: TypeAlias = tuple[str, str | None]
_COUNTS = (u.adu, u.electron, u.count, u.DN, u.dimensionless_unscaled)


class Columns:
    """Columns of a table or keys of a mapping, and which of them were read.

    Parameters
    ----------
    content : mapping
        Columns by name.
    is_table : bool
        Whether names of this package are read in any case.

    Attributes
    ----------
    content : dict
        As given.
    used : dict of str to str
        Names of the columns that were read, and of the survey or filter.
    shared : set of str
        Names of columns that concern all surveys, such as E(B-V).
    """

    def __init__(self, content: Mapping[Any, Any], is_table: bool) -> None:
        self.content = dict(content)
        self.is_table = is_table
        self.used: dict[str, str] = {}
        self.shared: set[str] = set()
        self._names: dict[str, list[str]] = {}
        for key in self.content:
            if isinstance(key, str):
                self._names.setdefault(key.lower(), []).append(key)

    def find(self, name: str, *, exact: bool = False) -> str | None:
        """Return the name of a column as it is spelt; None if there is none.

        Parameters
        ----------
        name : str
            Name to look for.
        exact : bool
            Whether the case of letters matters.

        Returns
        -------
        str or None

        Raises
        ------
        ValueError
            If several columns have this name in different case.
        """
        if exact:
            return name if name in self.content else None
        found = self.spellings(name)
        if len(found) > 1:
            raise ValueError(
                f"photometry has the columns {list_columns(found)}, whose names differ in case "
                "only; keep one of them."
            )
        return found[0] if found else None

    def spellings(self, name: str) -> list[str]:
        """Return the names of the columns that are the same but for the case of letters.

        Parameters
        ----------
        name : str
            Name to look for.

        Returns
        -------
        list of str
        """
        return self._names.get(name.lower(), [])

    def read(self, name: str, owner: str) -> Values:
        """Read a column.

        Parameters
        ----------
        name : str
            Name of the column.
        owner : str
            Name of the survey or filter that it belongs to.

        Returns
        -------
        Values

        Raises
        ------
        ValueError
            If it was read for another survey or filter.
        """
        if self.used.setdefault(name, owner) != owner:
            raise ValueError(
                f"the column {name} of photometry belongs to both {self.used[name]} and {owner}; "
                "give one of them."
            )
        return Values.read(name, self.content[name])


@dataclass(frozen=True)
class BandColumns:
    """Columns of one band.

    Attributes
    ----------
    filter : Filter
        Filter of the band.
    value, error : Values
        Fluxes or magnitudes, and their errors.
    is_magnitude : bool
        Whether the name is that of a magnitude.
    band : str
        Band of the survey.
    survey : Survey or None
        Survey; None for a filter of no survey.
    format : CatalogueFormat or None
        Naming scheme of the survey; None for the schemes of this package.
    extinction : Values or None
        Galactic extinction, mag; None if it is not given for the band.
    """

    filter: Filter
    value: Values
    error: Values
    is_magnitude: bool
    band: str
    survey: Survey | None = None
    format: CatalogueFormat | None = None
    extinction: Values | None = None

    @property
    def dereddened(self) -> bool:
        """Whether the values are corrected for Galactic extinction."""
        return self.format is not None and self.format.dereddened

    @property
    def coefficient(self) -> float:
        """Ratio of the Galactic extinction to E(B-V); 0 if the values are corrected for it."""
        if self.dereddened:
            return 0.0
        if self.survey is None:
            return float(extinction_coefficients([self.filter])[0])
        return float(self.survey.extinction_coefficient[self.band])

    @property
    def calibration_error(self) -> float:
        """Uncertainty of the zero point, mag."""
        default = float(calibration_errors([self.filter])[0])
        if self.survey is None or self.survey.name == "sdss":
            return default
        error = float(self.survey.calibration_error[self.band])
        return error if np.isfinite(error) else default

    def measurement(self) -> tuple[np.ndarray, np.ndarray, str]:
        """Convert the columns to nanomaggies.

        Returns
        -------
        flux, error : ndarray, shape () or (n,)
            nmgy; NaN where missing. An error that is not positive is returned as it is.
        notice : str
            An assumption to warn of; empty if there is none.

        Raises
        ------
        astropy.units.UnitsError
            If units are missing or wrong.
        """
        if self.format is None:
            return *self._own(), ""
        value, error = (
            _without_fill(self.value, self.format),
            _without_fill(self.error, self.format),
        )
        if self.format.error_kind == "ivar":
            error = _deviation(error)
        if self.format.kind == "flux":
            scale, value, error = _scaled(value, error, self.format)
            flux, sigma = to_flux(self.filter, value, error, is_magnitude=False)
            flux, sigma = flux * scale, sigma * scale
        elif self.format.kind == "asinh" and self.survey is not None:
            softening = self.survey.asinh_softening[self.band]
            numbers = [_magnitudes(column) for column in (value, error)]
            flux, sigma = from_asinh_magnitude(numbers[0], numbers[1], softening)  # type: ignore[assignment]
        else:
            value = _on_ab(value, self.format, self.band)
            flux, sigma = to_flux(self.filter, value, error, is_magnitude=True)
        return self._with_limits(flux, sigma)

    def _own(self) -> tuple[np.ndarray, np.ndarray]:
        """Convert columns with names of this package."""
        value = self.value
        if self.is_magnitude and not value.has_magnitude_unit and _is_vega(self.survey):
            raise u.UnitTypeError(
                f"{value.key} has no magnitude system, and catalogues of {self.survey.name} have "  # type: ignore[union-attr]
                "Vega magnitudes; give it the unit u.ABmag after a conversion to AB, or use the "
                "names of the catalogue."
            )
        return to_flux(self.filter, value, self.error, is_magnitude=self.is_magnitude)

    def _with_limits(
        self, flux: np.ndarray, sigma: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, str]:
        """Set non-detections to a flux of 0 with the error of the limit."""
        fill = self.format.fill_values if self.format is not None else {}
        codes = [code for code, meaning in fill.items() if meaning == "non-detection"]
        undetected = _equals(self.value.numbers, codes)
        if not undetected.any():
            return flux, sigma, ""
        n = np.broadcast_shapes(flux.shape, self.error.numbers.shape)
        flux, sigma, undetected, given = (
            np.array(np.broadcast_to(a, n)) for a in (flux, sigma, undetected, self.error.numbers)
        )
        with np.errstate(invalid="ignore"):
            is_limit = undetected & (given >= LIMITS[0]) & (given <= LIMITS[1])
        is_limit &= ~_equals(given, codes)
        depth = np.nan if self.survey is None else float(self.survey.depth[self.band])
        flux[undetected] = 0.0
        sigma[undetected] = 10 ** (0.4 * (22.5 - depth)) / 5
        sigma[is_limit] = 10 ** (0.4 * (22.5 - given[is_limit]))
        flux[np.isnan(sigma)] = np.nan
        assumed = (undetected & ~is_limit).any() and np.isfinite(depth)
        notice = f"{self.value.key} ({depth:g})" if assumed else ""
        return flux, sigma, notice


def _equals(numbers: np.ndarray, codes: Sequence[float]) -> np.ndarray:
    """Return where numbers are fill values, in single precision too."""
    found = np.zeros(np.shape(numbers), dtype=bool)
    for code in codes:
        found |= np.isclose(numbers, code, rtol=1e-6, atol=1e-12)
    return found


def _without_fill(column: Values, form: CatalogueFormat) -> Values:
    """Return a column in which the fill values of the survey are NaN."""
    numbers = np.where(_equals(column.numbers, list(form.fill_values)), np.nan, column.numbers)
    return replace(column, numbers=numbers, inverse=False)


def _deviation(ivar: Values) -> Values:
    """Return the standard deviation; NaN for an inverse variance of 0, negative for a negative."""
    numbers = ivar.numbers
    with np.errstate(divide="ignore", over="ignore"):
        sigma = np.where(numbers > 0, numbers, np.nan) ** -0.5
    unit = None if ivar.unit is None else ivar.unit**-0.5
    return replace(ivar, numbers=np.where(numbers < 0, numbers, sigma), unit=unit)


def _scaled(value: Values, error: Values, form: CatalogueFormat) -> tuple[float, Values, Values]:
    """Give fluxes the unit of the catalogue if they have none.

    Returns
    -------
    factor : float
        Factor of the converted fluxes, for data numbers.
    value, error : Values
    """
    given = value.unit, error.unit
    counts = [unit is None or (form.zero_point is not None and unit in _COUNTS) for unit in given]
    if counts[0] != counts[1]:
        units = [unit or "no unit" for unit in given]
        raise u.UnitTypeError(
            f"{value.key} is in {units[0]} but {error.key} in {units[1]}; give both the same unit."
        )
    if not counts[0]:
        return 1.0, value, error
    if form.zero_point is None:
        unit, factor = read_unit(form.unit), 1.0
    else:
        # A data number at zero point m is 10**(0.4 (22.5 - m)) nanomaggies.
        unit, factor = u.nmgy, 10 ** (0.4 * (22.5 - form.zero_point))
    return factor, replace(value, unit=unit), replace(error, unit=unit)


def _magnitudes(column: Values) -> np.ndarray:
    if column.unit is not None and column.unit not in (u.mag, u.ABmag):
        raise u.UnitConversionError(
            f"{column.key} is in {column.unit}, but it must be a magnitude; rename the column if "
            "it holds another quantity."
        )
    return column.numbers


def _on_ab(value: Values, form: CatalogueFormat, band: str) -> Values:
    """Convert Vega magnitudes to the AB system; a column in ``u.ABmag`` is kept."""
    if form.system == "AB" or value.has_magnitude_unit:
        return value
    return replace(value, numbers=value.numbers + form.vega_to_ab[band])


def _is_vega(survey: Survey | None) -> bool:
    return survey is not None and any(form.system == "Vega" for form in survey.catalogue)


def survey_columns(columns: Columns, surveys: Sequence[Survey]) -> list[BandColumns]:
    """Find the columns of the bands of surveys.

    Parameters
    ----------
    columns : Columns
        Columns; those that are read are marked.
    surveys : sequence of Survey
        All surveys of the table.  The columns of SDSS are not read, see `sdss_columns`.

    Returns
    -------
    list of BandColumns
        Of the bands that have columns, survey by survey, blue to red.

    Raises
    ------
    ValueError
        If a band has no error or two errors, is given in two ways, or could be of two surveys.
    TypeError, astropy.units.UnitsError
        If a column does not hold numbers.
    """
    found: list[BandColumns] = []
    for survey in surveys:
        if survey is not SDSS:
            found += _bands_of(columns, survey, surveys)
    _check_shared(columns, surveys)
    return found


def filter_columns(columns: Columns, filters: Sequence[Filter]) -> list[BandColumns]:
    """Find the columns of single filters, which are called after their names.

    Parameters
    ----------
    columns : Columns
        Columns; those that are read are marked.
    filters : sequence of Filter
        Filters, as from `named_filters`.

    Returns
    -------
    list of BandColumns

    Raises
    ------
    ValueError, TypeError, astropy.units.UnitsError
        As for `survey_columns`.
    """
    stems = {each.name: [(each.name, False)] for each in filters}
    scheme, own = _own_columns(columns, stems, "the photometry")
    result = []
    for each in filters:
        if each.name in own:
            value, error = _values(columns, *own[each.name], each.name)
            key = columns.find(f"extinction_{each.name}")
            extinction = None if key is None else columns.read(key, each.name)
            is_magnitude = scheme in MAGNITUDES
            result.append(
                BandColumns(each, value, error, is_magnitude, each.band, extinction=extinction)
            )
    return result


def with_filter_names(content: Mapping[Any, Any]) -> tuple[dict[Any, Any], list[Filter]]:
    """Replace filters among the keys of a mapping by their names.

    Parameters
    ----------
    content : mapping
        Photometry; the value of a `Filter`, or of a ``FilterResponse`` of speclite, is a pair of a
        flux or magnitude and its error.

    Returns
    -------
    content : dict
        With the keys ``decamDR1-g`` and ``decamDR1-g_err`` and so on.
    filters : list of Filter
        Filters that were among the keys.

    Raises
    ------
    TypeError, ValueError
        If a filter cannot be used, or its value is not such a pair.
    """
    new: dict[Any, Any] = {}
    filters = []
    for key, value in content.items():
        if isinstance(key, str) or not (isinstance(key, Filter) or hasattr(key, "response")):
            new[key] = value
            continue
        each = get_filter(key)
        if not isinstance(value, tuple | list) or len(value) != 2:
            raise ValueError(
                f"the value of the filter {each.name} in photometry must be a pair of a flux or "
                "magnitude and its error, each with a unit."
            )
        if each.name in new or each.name in content:
            raise ValueError(f"photometry has the filter {each.name} twice; keep one of them.")
        new[each.name], new[f"{each.name}_err"] = value
        filters.append(each)
    return new, filters


def named_filters(columns: Columns) -> list[Filter]:
    """Return the filters after which columns are named, such as ``decamDR1-g``.

    Parameters
    ----------
    columns : Columns
        Columns.

    Returns
    -------
    list of Filter
        In the order of the columns.

    Raises
    ------
    ValueError
        If a magnitude is called after an unknown filter of a known camera, such as ``decamDR3-g``.
    """
    found: dict[str, Filter] = {}
    for key in columns.content:
        if not isinstance(key, str) or "-" not in key or key in columns.used:
            continue
        name = key.removeprefix("flux_").removeprefix("mag_")
        if name.lower().endswith(".ecsv"):
            continue
        try:
            found[name] = get_filter(name)
        except ValueError:
            if f"mag_err_{name}" in columns.content and _resembles_filter(name):
                raise
    return list(found.values())


def _resembles_filter(name: str) -> bool:
    """Tell whether a name is that of a known camera with an unknown version or band."""
    group, _, band = name.rpartition("-")
    if group in survey_names():
        return band not in get_survey(group).bands
    return bool(get_close_matches(group, filter_groups(), n=1, cutoff=0.75))


def sdss_columns(columns: Columns) -> dict[Any, Any]:
    """Return the columns that no other survey uses, with the names of the bands of SDSS.

    Parameters
    ----------
    columns : Columns
        Columns, after `survey_columns`.

    Returns
    -------
    dict
        ``mag_sdss-g``, ``mag_g_sdss`` and ``mag_sdss2010-g`` become ``mag_g``.

    Raises
    ------
    ValueError
        If several columns are of one band.
    """
    new: dict[str, str] = {}
    for band in SDSS.bands:
        for stem in (f"sdss-{band}", f"{band}_sdss", SDSS.filter_names[band]):
            for pattern in (*(name for names in SCHEMES.values() for name in names), _EXTINCTION):
                key = columns.find(pattern.format(stem), exact=not columns.is_table)
                if key is not None:
                    _check_new(columns, new, key, pattern.format(band))
                    new[key] = pattern.format(band)
    return {
        new.get(key, key): values
        for key, values in columns.content.items()
        if key not in columns.used
    }


def _check_new(columns: Columns, new: Mapping[str, str], key: str, name: str) -> None:
    """Raise if there is a column besides ``key`` that has, or will have, a name."""
    others = [other for other, given in new.items() if given == name]
    others += [other for other in columns.spellings(name) if other not in columns.used]
    if others:
        raise ValueError(
            f"photometry has the columns {others[0]} and {key} of the same band of SDSS; keep one "
            "of them."
        )


def select_survey_bands(table: Table, bands: Sequence[str], surveys: Sequence[Survey]) -> Table:
    """Return a table without the fluxes and magnitudes of other bands of surveys.

    Parameters
    ----------
    table : Table
        Photometry; it is not changed.
    bands : sequence of str
        Bands to keep.
    surveys : sequence of Survey
        Surveys of the table.

    Returns
    -------
    Table
    """
    columns = Columns(dict.fromkeys(table.colnames), is_table=True)
    dropped: set[str | None] = set()
    for survey in surveys:
        for band in survey.bands:
            if band in bands:
                continue
            for form in survey.catalogue:
                patterns = (form.value, form.error) if form.error is not None else (form.value,)
                dropped |= {columns.find(form.column(pattern, band)) for pattern in patterns}
            for stem, exact in _stems(survey, band, surveys):
                for pattern in (each for patterns in SCHEMES.values() for each in patterns):
                    dropped.add(columns.find(pattern.format(stem), exact=exact))
    return table[[name for name in table.colnames if name not in dropped]]


def _bands_of(columns: Columns, survey: Survey, surveys: Sequence[Survey]) -> list[BandColumns]:
    """Find the columns of one survey."""
    form, native = _native_columns(columns, survey)
    stems = {band: _stems(survey, band, surveys) for band in survey.bands}
    scheme, own = _own_columns(columns, stems, survey.name)
    if native and {value for value, _ in own.values()} <= _native_values(columns, survey):
        own = {}
    if native and own:
        first, second = (next(iter(found.values()))[0] for found in (own, native))
        raise ValueError(
            f"photometry has bands given in two ways, {first} and {second}; keep one of them."
        )
    if form is not None and native:
        _check_complete(columns, form, survey, native)
    elif not own:
        for each in survey.catalogue:
            _check_complete(columns, each, survey, {})
    result = []
    for band, names in (native or own).items():
        value, error = _values(columns, *names, survey.name)
        extinction = _extinction(columns, survey, band, stems[band])
        used = form if native else None
        is_magnitude = scheme in MAGNITUDES
        result.append(
            BandColumns(
                survey.filter_of(band), value, error, is_magnitude, band, survey, used, extinction
            )
        )
    return result


def _native_columns(
    columns: Columns, survey: Survey
) -> tuple[CatalogueFormat | None, dict[str, Names]]:
    """Return the format of the catalogue with the most bands, and the names of its columns."""
    best: tuple[CatalogueFormat | None, dict[str, Names]] = (None, {})
    for form in survey.catalogue:
        found: dict[str, Names] = {}
        for band in survey.bands:
            value = columns.find(form.column(form.value, band))
            error = None if form.error is None else columns.find(form.column(form.error, band))
            if value is not None and error is not None:
                found[band] = value, error
        if len(found) > len(best[1]):
            best = form, found
    return best


def _native_values(columns: Columns, survey: Survey) -> set[str | None]:
    """Return the names of all columns of values that a catalogue of the survey has."""
    return {
        columns.find(form.column(form.value, band))
        for form in survey.catalogue
        for band in survey.bands
    }


def _check_complete(
    columns: Columns, form: CatalogueFormat, survey: Survey, found: Mapping[str, Names]
) -> None:
    """Raise if a band has values without errors."""
    for band in survey.bands:
        value = columns.find(form.column(form.value, band))
        if value is not None and band not in found:
            wanted = "an error" if form.error is None else form.column(form.error, band)
            raise ValueError(f"photometry has no error for {value}; give {wanted}.")


def _stems(survey: Survey, band: str, surveys: Sequence[Survey]) -> list[tuple[str, bool]]:
    """Return the names of a band in the schemes of this package, and whether case matters."""
    bands = [each for other in surveys for each in other.bands]
    names = [f"{survey.name}-{band}", f"{band}_{survey.name}", survey.filter_names[band]]
    stems = [(name, False) for name in dict.fromkeys(names)]
    if bands.count(band) == 1:
        stems.append((band, [each.lower() for each in bands].count(band.lower()) > 1))
    return stems


def _own_columns(
    columns: Columns, stems: Mapping[str, Sequence[tuple[str, bool]]], owner: str
) -> tuple[str, dict[str, Names]]:
    """Return the scheme of this package, and the names of its columns."""
    schemes: dict[str, dict[str, Names]] = {}
    for scheme, patterns in SCHEMES.items():
        for band, names in stems.items():
            pairs = [_pair(columns, patterns, stem, exact) for stem, exact in names]
            given = [pair for pair in pairs if pair is not None]
            if len(given) > 1:
                raise ValueError(
                    f"photometry has the {band} band of {owner} twice, as {given[0][0]} and "
                    f"{given[1][0]}; keep one of them."
                )
            if given:
                schemes.setdefault(scheme, {})[band] = given[0]
    if len(schemes) > 1:
        first, second = [next(iter(found.values()))[0] for found in schemes.values()][:2]
        raise ValueError(
            f"photometry has bands given in two ways, {first} and {second}; keep one of them."
        )
    return next(iter(schemes.items()), ("", {}))


def _pair(columns: Columns, patterns: Sequence[str], stem: str, exact: bool) -> Names | None:
    """Return the names of a column and of its error, if the column is there."""
    exact = exact or not columns.is_table
    names = [pattern.format(stem) for pattern in patterns]
    value, *errors = (columns.find(name, exact=exact) for name in names)
    if value is None or value in columns.used:
        return None
    given = [error for error in errors if error is not None]
    if len(given) > 1:
        raise ValueError(f"photometry has two errors for {value}; give {' or '.join(given)}.")
    if given:
        return value, given[0]
    if isinstance(columns.content[value], Distribution):
        return value, None
    if patterns[0] == "{}" and columns.is_table:
        # A column of a short name without an error, such as a redshift z, is something else.
        return None
    raise ValueError(f"photometry has no error for {value}; give {' or '.join(names[1:])}.")


def _values(columns: Columns, value: str, error: str | None, owner: str) -> tuple[Values, Values]:
    """Read a column and its error, which may be the standard deviation of a distribution."""
    read = columns.read(value, owner)
    if error is not None:
        return read, columns.read(error, owner)
    unit = u.mag if read.has_magnitude_unit else read.unit
    scatter = np.array(np.nan) if read.scatter is None else read.scatter
    return read, Values(f"{value} (its standard deviation)", scatter, unit)


def _extinction(
    columns: Columns, survey: Survey, band: str, stems: Sequence[tuple[str, bool]]
) -> Values | None:
    """Read the Galactic extinction in a band, mag."""
    for stem, exact in stems:
        key = columns.find(_EXTINCTION.format(stem), exact=exact or not columns.is_table)
        if key is not None:
            return columns.read(key, survey.name)
    for form in survey.catalogue:
        if form.extinction is not None:
            key = columns.find(form.column(form.extinction, band))
            if key is not None:
                return columns.read(key, survey.name)
        if form.transmission is not None:
            key = columns.find(form.column(form.transmission, band))
            if key is not None:
                given = columns.read(key, survey.name)
                with np.errstate(divide="ignore", invalid="ignore"):
                    magnitudes = -2.5 * np.log10(given.numbers)
                rounded = np.abs(magnitudes) < _ROUNDING
                return Values(key, np.where(rounded, 0.0, magnitudes), None)
    return None


def _check_shared(columns: Columns, surveys: Sequence[Survey]) -> None:
    """Raise if a column is called after a band of several surveys, in any case of letters."""
    owners: dict[str, list[tuple[str, str]]] = {}
    for survey in surveys:
        for band in survey.bands:
            owners.setdefault(band.lower(), []).append((survey.name, band))
    for lower, pairs in owners.items():
        for patterns in SCHEMES.values() if len(pairs) > 1 else ():
            errors = [columns.spellings(each.format(lower)) for each in patterns[1:]]
            for key in columns.spellings(patterns[0].format(lower)) if any(errors) else ():
                if key not in columns.used:
                    name, band = pairs[0]
                    better = patterns[0].format(f"{name}-{band}")
                    raise ValueError(
                        f"the column {key} of photometry could be of "
                        f"{' or '.join(name for name, _ in pairs)}; name the survey, such as "
                        f"{better}, in it and in its error."
                    )
