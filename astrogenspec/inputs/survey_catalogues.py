"""Catalogues of any surveys: tables and mappings of photometry, converted to nanomaggies.

The surveys of a table are those that the user names, or that its names leave no doubt about
(`astrogenspec.inputs.survey_names`).  Their columns are found by `survey_columns`, and those of
SDSS by `~astrogenspec.inputs.catalogues.read_catalogue`.  A band without an extinction of its own
takes that of the E(B-V) of the galaxy, which follows from the other bands if it is not given.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.table import Row, Table

from ..surveys import SDSS, Filter, Survey
from .catalogues import (
    Catalogue,
    checked_photometry,
    dust_values,
    read_catalogue,
    read_names,
    without_missing,
)
from .column_names import has_sdss_names, list_columns
from .fluxes import Values, common_length
from .morphology import read_morphology
from .survey_columns import (
    BandColumns,
    Columns,
    filter_columns,
    named_filters,
    sdss_columns,
    survey_columns,
    with_filter_names,
)
from .survey_names import guess_surveys

__all__ = ["read_photometry"]

#: Keys of the morphology that do not depend on the survey.
_SHAPES = ("r50", "r90", "axis_ratio")
#: Groups of filters whose magnitudes are usually on the Vega system.
_USUALLY_VEGA = ("bessell-", "twomass-", "wise2010-")
#: Version or year of the curves in the name of a group of filters, as in ``decamDR1``.
_VERSION = re.compile(r"(?:dr\d|20\d\d)(?:noatm)?$")


def read_photometry(
    photometry: Table | Row | Mapping[Any, object], surveys: Sequence[Survey] | None = None
) -> Catalogue:
    """Read photometry in any filters from a table, a row or a mapping.

    Parameters
    ----------
    photometry : Table, QTable, Row or mapping
        Photometry of one or more galaxies.
    surveys : sequence of Survey, optional
        Surveys of the photometry; by default SDSS if there are its names or those of this package,
        or else those that the names of the columns leave no doubt about.

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
    is_table = isinstance(photometry, Table)
    content, given = with_filter_names({key: photometry[key] for key in list(photometry.keys())})
    columns = Columns(content, is_table)
    filters = (*given, *(each for each in named_filters(columns) if each not in given))
    guessing, notice = surveys is None, ""
    if surveys is None:
        surveys = (SDSS,) if has_sdss_names(content, is_table=is_table) else ()
        if not surveys:
            surveys, notice = guess_surveys(content)
    if not filters and tuple(surveys) in ((), (SDSS,)):
        return read_catalogue(content, is_table=is_table, guessing=guessing)
    return _read_surveys(columns, surveys, filters, (notice,) if notice else ())


@dataclass(frozen=True)
class _Band:
    """Measurements in one filter: flux and error (nmgy) and extinction (mag), shape (n,)."""

    key: str
    filter: Filter
    flux: np.ndarray
    error: np.ndarray
    extinction: np.ndarray | None
    coefficient: float
    calibration_error: float


def _read_surveys(
    columns: Columns,
    surveys: Sequence[Survey],
    filters: Sequence[Filter],
    notices: tuple[str, ...],
) -> Catalogue:
    """Read photometry in the bands of several surveys, or of one other than SDSS."""
    found = [*survey_columns(columns, surveys), *filter_columns(columns, filters)]
    sdss = None
    if SDSS in surveys:
        sdss = read_catalogue(sdss_columns(columns), is_table=columns.is_table)
    elif not found:
        _raise_no_band(columns, surveys)
    dust = _ebv_column(columns, found)
    shape = _shape_columns(columns)
    n = _number_of_galaxies([dust, *shape.values()], found, sdss)
    if sdss is None and not columns.is_table:
        _check_keys(columns)
    bands, limits = _bands(found, sdss, n)
    flux = np.stack([band.flux for band in bands], axis=1)
    error = np.stack([band.error for band in bands], axis=1)
    first = len(bands) - len(found)
    errors = {first + k: each.error for k, each in enumerate(found)}
    rejected = without_missing(flux, error, errors)
    ebv = None if dust is None else np.array(np.broadcast_to(dust_values("ebv", dust), n))
    names, named = (None, None) if sdss is None else (sdss.names, sdss.named)
    if names is None:
        names, named = _names(columns, found, n)
    morphology = read_morphology(shape, n) if sdss is None else sdss.morphology
    return Catalogue(
        flux,
        error,
        ebv,
        _extinction(bands, ebv),
        names,
        rejected,
        morphology,
        named,
        (*notices, *_notices(found, limits), *(() if sdss is None else sdss.notices)),
        tuple(band.filter for band in bands),
        np.array([band.calibration_error for band in bands]),
        np.array([band.coefficient for band in bands]),
    )


def _number_of_galaxies(
    others: Sequence[Values | None], found: Sequence[BandColumns], sdss: Catalogue | None
) -> int:
    columns = [each for band in found for each in (band.value, band.error, band.extinction)]
    given = [each for each in (*columns, *others) if each is not None]
    if sdss is not None and len(sdss) > 1:
        given.append(Values("the photometry of SDSS", np.zeros(len(sdss)), None))
    return common_length(given)


def _bands(
    found: Sequence[BandColumns], sdss: Catalogue | None, n: int
) -> tuple[list[_Band], list[str]]:
    """Return the measurements, those of SDSS first, and the limits that were assumed."""
    bands, limits = [], []
    if sdss is not None:
        measured = np.isfinite(sdss.flux).any(axis=0)
        # Without any measurement all bands stay, so that the galaxies are rejected with a reason.
        for k in np.flatnonzero(measured | (not measured.any() and not found)):
            arrays = [sdss.flux[:, k], sdss.error[:, k]]
            extinction = None if sdss.extinction is None else sdss.extinction[:, k]
            if extinction is not None:
                extinction = np.broadcast_to(extinction, n)
            flux, error = (np.broadcast_to(array, n) for array in arrays)
            numbers = float(sdss.coefficient[k]), float(sdss.calibration_error[k])
            band = sdss.filters[k]
            bands.append(_Band(f"{band.band} of SDSS", band, flux, error, extinction, *numbers))
    for each in found:
        flux, error, limit = each.measurement()
        limits += [limit] if limit else []
        extinction = None
        if each.dereddened:
            extinction = np.zeros(n)
        elif each.extinction is not None:
            values = dust_values(each.extinction.key, each.extinction)
            extinction = np.broadcast_to(values, n)
        flux, error = np.broadcast_to(flux, n), np.broadcast_to(error, n)
        numbers = each.coefficient, each.calibration_error
        bands.append(_Band(each.value.key, each.filter, flux, error, extinction, *numbers))
    _check_repeated(bands)
    return bands, limits


def _check_repeated(bands: Sequence[_Band]) -> None:
    """Raise if two columns are measurements in one filter, or in two versions of its curve."""
    known: dict[tuple[str, str], _Band] = {}
    for band in bands:
        first = known.setdefault(_instrument(band.filter), band)
        if first is band:
            continue
        one, other = first.filter.name, band.filter.name
        if one == other:
            raise ValueError(
                f"photometry has the filter {one} twice, as {first.key} and {band.key}; keep one "
                "of them."
            )
        raise ValueError(
            f"photometry has one filter twice, as {first.key} ({one}) and {band.key} ({other}, "
            "another version of the same curve); keep one of them."
        )


def _instrument(band: Filter) -> tuple[str, str]:
    """Return the camera of a filter, without the version of its curves, and the name in it."""
    group, _, name = band.name.rpartition("-")
    return _VERSION.sub("", group.lower()), name


def _extinction(bands: Sequence[_Band], ebv: np.ndarray | None) -> np.ndarray | None:
    """Return the extinction in each band, mag; None if no band has one that counts."""
    given = [band.extinction for band in bands]
    if all(
        values is None or not band.coefficient for values, band in zip(given, bands, strict=True)
    ):
        everywhere = all(values is not None for values in given)
        return np.stack(given, axis=1) if everywhere else None  # type: ignore[arg-type]
    if ebv is None:
        ratios = [
            np.where(band.extinction >= 0, band.extinction, np.nan) / band.coefficient
            for band in bands
            if band.extinction is not None and band.coefficient
        ]
        valid = np.isfinite(ratios)
        ebv = np.zeros(len(ratios[0]))
        some = valid.any(axis=0)
        ebv[some] = np.nanmedian(np.array(ratios)[:, some], axis=0)
    return np.stack(
        [ebv * band.coefficient if band.extinction is None else band.extinction for band in bands],
        axis=1,
    )


def _ebv_column(columns: Columns, found: Sequence[BandColumns]) -> Values | None:
    """Read the column of E(B-V), which several surveys may share."""
    forms = [form for band in found if band.survey is not None for form in band.survey.catalogue]
    for name in dict.fromkeys(["ebv", *(form.ebv for form in forms if form.ebv is not None)]):
        key = columns.find(name, exact=name == "ebv" and not columns.is_table)
        if key is not None:
            columns.shared.add(key)
            return Values.read(key, columns.content[key])
    return None


def _shape_columns(columns: Columns) -> dict[str, Values]:
    """Read radii and the axis ratio."""
    found = {}
    for name in _SHAPES:
        key = columns.find(name, exact=not columns.is_table)
        if key is not None:
            columns.shared.add(key)
            found[name] = Values.read(key, columns.content[key])
    return found


def _names(
    columns: Columns, found: Sequence[BandColumns], n: int
) -> tuple[tuple[str, ...] | None, np.ndarray | None]:
    """Read names or identifiers."""
    forms = [form for band in found if band.survey is not None for form in band.survey.catalogue]
    for name in dict.fromkeys(["name", *(name for form in forms for name in form.names)]):
        key = columns.find(name, exact=name == "name" and not columns.is_table)
        if key is not None:
            return read_names(columns.content[key], n)
    return None, None


def _notices(found: Sequence[BandColumns], limits: Sequence[str]) -> list[str]:
    """Return the notes of the formats, and the systems and limits that were assumed."""
    notes = dict.fromkeys(
        f"photometry: {band.value.key} and so on: {band.format.note}".rstrip(".") + "."
        for band in found
        if band.format is not None and band.format.note
    )
    by_format: dict[str, str] = {}
    for note in notes:
        by_format.setdefault(note.split(": ", 2)[2], note)
    result = list(by_format.values())
    vega = [
        band.value.key
        for band in found
        if band.survey is None
        and band.is_magnitude
        and not band.value.has_magnitude_unit
        and band.filter.name.startswith(_USUALLY_VEGA)
    ]
    if vega:
        result.append(
            f"photometry: {list_columns(vega)} are read as AB magnitudes, but magnitudes in these "
            "filters are usually on the Vega system; convert them, and give them the unit u.ABmag."
        )
    if limits:
        result.append(
            "photometry: non-detections without a limit in the column of the error are assumed to "
            f"have the depth (5 sigma, mag) of the survey: {', '.join(limits)}."
        )
    return result


def _check_keys(columns: Columns) -> None:
    """Raise if a mapping has keys that were not read."""
    names = {"name"} | columns.shared
    for key in columns.content:
        if key not in columns.used and key not in names:
            raise ValueError(
                f"photometry has the unknown key {ascii(str(key)[:40])} beside "
                f"{list_columns(list(columns.used))}; leave it out, or name its survey."
            )


def _raise_no_band(columns: Columns, surveys: Sequence[Survey]) -> None:
    """Raise because no column is that of a band."""
    if not surveys:
        raise ValueError(
            "photometry has no band among its columns that can be read, "
            f"{list_columns(list(columns.content))}; name the survey, such as survey='des', or "
            "give filters with their errors, such as 'decamDR1-g' and 'decamDR1-g_err'."
        )
    names = " or ".join(survey.name for survey in surveys)
    bands = ", ".join(band for survey in surveys for band in survey.bands)
    first = next((form for survey in surveys for form in survey.catalogue), None)
    example = ""
    if first is not None:
        band = surveys[0].bands[0]
        example = f"'{first.column(first.value, band)}' as in its catalogues, or "
    raise ValueError(
        f"photometry has no band of {names} ({bands}) among its columns "
        f"{list_columns(list(columns.content))}; name them {example}'mag_{surveys[0].bands[0]}' "
        f"and 'mag_err_{surveys[0].bands[0]}'."
    )
