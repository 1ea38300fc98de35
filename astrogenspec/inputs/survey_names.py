"""Surveys of a table: those that the user names, or that the names of columns leave no doubt about.

Names that several surveys share decide nothing.  ``flux_g``, ``flux_r``, ``flux_z`` and
``flux_ivar_g`` are names of this package and of the catalogues of the Legacy Surveys: alone, they
are read as fluxes of SDSS, with a warning; beside columns that SDSS does not have, the survey must
be named.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

from ..surveys import SDSS, Survey, get_survey, survey_names
from .column_names import SCHEMES, list_columns

__all__ = [
    "SurveyLike",
    "check_shared_names",
    "guess_surveys",
    "matching_surveys",
    "resolve_surveys",
]

#: Survey, as users name it: its name, a `Survey`, or a sequence of these.
SurveyLike: TypeAlias = str | Survey | Sequence[str | Survey]
#: Names of columns of the Legacy Surveys that are common words.
_COMMON_WORDS = ("type",)
#: Bands that SDSS does not have and most other surveys have; those of fluxes are less common words.
_OTHER_BANDS = {"flux": ("y", "w1", "w2", "j", "h", "ks", "vis"), "mag": ("y",), "vizier": ("y",)}


def resolve_surveys(survey: Any) -> tuple[Survey, ...] | None:
    """Return the surveys that an argument names.

    Parameters
    ----------
    survey : str, Survey, sequence of these, or None
        Names or descriptions.

    Returns
    -------
    tuple of Survey, or None
        None if none was given.

    Raises
    ------
    TypeError
        If it is of another type.
    ValueError
        If a survey is unknown, or one is given twice.
    """
    if survey is None:
        return None
    given = (survey,) if isinstance(survey, str | Survey) else survey
    if not isinstance(given, Sequence) or not all(isinstance(each, str | Survey) for each in given):
        raise TypeError(
            f"survey is {ascii(survey)[:60]}, but it must be the name of a survey, such as "
            "'legacy-dr10', a Survey, or a sequence of these."
        )
    if not given:
        raise ValueError("survey is empty; name at least one survey, or leave it out.")
    found = []
    for each in given:
        try:
            found.append(get_survey(each))
        except ValueError as error:
            text = str(error)
            raise ValueError(text.replace("name is", "survey is", 1)) from None
    names = [each.name for each in found]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"survey contains {twice!r} more than once; give each survey once.")
    return tuple(found)


def _others() -> list[Survey]:
    """Return all surveys but SDSS."""
    return [get_survey(name) for name in survey_names() if name != SDSS.name]


def guess_surveys(names: Iterable[Any]) -> tuple[tuple[Survey, ...], str]:
    """Recognise the surveys of a table whose columns are not simply called after bands of SDSS.

    Surveys that are part of the names in the schemes of this package, such as ``mag_g_des`` or
    ``flux_lsst-g``, leave no doubt; those of catalogues are told.

    Parameters
    ----------
    names : iterable
        Names of the columns.

    Returns
    -------
    surveys : tuple of Survey
        Empty if none is recognised.
    notice : str
        The assumption, for a warning; empty if there is none.

    Raises
    ------
    ValueError
        If columns could be of several surveys.
    """
    texts = [name for name in names if isinstance(name, str)]
    found: dict[str, tuple[Survey, set[str]]] = {}
    for survey in _others():
        for form in survey.catalogue:
            if form.identifies(texts) and form.matches(texts, survey.bands):
                columns = form.columns(texts, survey.bands).values()
                found.setdefault(survey.name, (survey, {value for value, _ in columns}))
    taken: dict[str, str] = {}
    for name, (_, values) in found.items():
        for value in values:
            if value in taken:
                raise ValueError(
                    f"the column {value} of photometry could be of {taken[value]} or {name}; name "
                    f"the survey, survey={name!r} for instance."
                )
            taken[value] = name
    called = [survey for survey in (SDSS, *_others()) if _is_named(survey, texts)]
    named = tuple(survey for survey in called if survey.name not in found)
    if not found:
        return named, ""
    first = {name: next(value for value in texts if value in found[name][1]) for name in found}
    read = " and ".join(f"{value} and so on as those of {name}" for name, value in first.items())
    notice = f"photometry: {read} are read; give survey to choose another survey."
    return (*named, *(survey for survey, _ in found.values())), notice


def _is_named(survey: Survey, names: Sequence[str]) -> bool:
    """Tell whether a column is called after a band of a survey with the name of the survey."""
    lower = {name.lower() for name in names}
    ending = survey.name.lower()
    if not any(ending in name for name in lower):
        return False
    stems = [stem for band in survey.bands for stem in (f"{ending}-{band}", f"{band}_{ending}")]
    return any(
        scheme[0].format(stem.lower()) in lower for scheme in SCHEMES.values() for stem in stems
    )


def matching_surveys(names: Iterable[Any]) -> list[str]:
    """Return the names of the surveys whose catalogues have some of the columns.

    Parameters
    ----------
    names : iterable
        Names of the columns.

    Returns
    -------
    list of str
    """
    texts = [name for name in names if isinstance(name, str)]
    return [
        survey.name
        for survey in _others()
        if any(form.matches(texts, survey.bands) for form in survey.catalogue)
    ]


def check_shared_names(names: Iterable[Any], scheme: str, bands: Sequence[str]) -> str:
    """Check that names of this package cannot be those of another survey.

    Parameters
    ----------
    names : iterable
        Names of the columns.
    scheme : str
        Naming scheme of the bands, see `~astrogenspec.inputs.column_names.SCHEMES`.
    bands : sequence of str
        Bands of SDSS that have columns.

    Returns
    -------
    str
        The assumption that they are of SDSS, for a warning; empty if there is no doubt.

    Raises
    ------
    ValueError
        If columns that SDSS does not have say that they are of another survey.
    """
    texts = {name.lower(): name for name in names if isinstance(name, str)}
    value, *errors = SCHEMES[scheme]
    marks = [
        texts[value.format(band).lower()]
        for band in _OTHER_BANDS.get(scheme, ())
        if value.format(band).lower() in texts
        and any(error.format(band).lower() in texts for error in errors)
    ]
    tractor = scheme == "flux" and "u" not in bands
    tractor = tractor and any(f"flux_ivar_{band}" in texts for band in bands)
    if tractor:
        patterns = [p for s in _others() for form in s.catalogue for p in form.shared]
        patterns += _COMMON_WORDS
        marks += [
            name
            for lower, name in texts.items()
            if any(fnmatchcase(lower, pattern.lower()) for pattern in patterns)
        ]
    columns = list_columns([texts[value.format(band).lower()] for band in bands])
    if marks:
        known = matching_surveys(texts.values()) or ["legacy-dr10"]
        raise ValueError(
            f"photometry has {columns}, names that several surveys use, beside {marks[0]}, which "
            f"SDSS does not have; name the survey, such as survey={known[0]!r} (or survey='sdss')."
        )
    if tractor and "z" in bands:
        return (
            f"photometry: {columns} are read as fluxes of SDSS, but other surveys use these names "
            "too; give survey, such as survey='legacy-dr10' or survey='sdss'."
        )
    return ""
