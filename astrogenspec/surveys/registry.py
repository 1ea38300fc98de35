"""Surveys by name: those of the package, one YAML file each, and those that users register."""

from __future__ import annotations

import difflib
from functools import cache
from pathlib import Path

from .filters import register_filter
from .survey import Survey

__all__ = [
    "BANDS",
    "CUTOUT_SIZE",
    "SDSS",
    "get_survey",
    "register_survey",
    "survey_names",
]

_FOLDER = Path(__file__).parent
_REGISTERED: dict[str, Survey] = {}


@cache
def _shipped(name: str) -> Survey:
    """Read a survey of the package; the curves are read when they are needed."""
    return Survey._read(_FOLDER / f"{name}.yaml")


@cache
def _shipped_names() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.yaml")))


def survey_names() -> tuple[str, ...]:
    """Return the names of the known surveys.

    Returns
    -------
    tuple of str
        Those of the package and those that were registered, sorted.

    Examples
    --------
    >>> from astrogenspec.surveys import survey_names
    >>> "sdss" in survey_names()
    True
    """
    return tuple(sorted({*_shipped_names(), *_REGISTERED}))


def get_survey(name: str | Survey) -> Survey:
    """Return a survey by its name.

    Parameters
    ----------
    name : str or Survey
        Name, in upper or lower case, or the path of a YAML file; a `Survey` is returned as it is.

    Returns
    -------
    Survey

    Raises
    ------
    ValueError
        If no survey has that name.

    Examples
    --------
    >>> from astrogenspec.surveys import get_survey
    >>> get_survey("SDSS").pixel_scale
    <Quantity 0.396 arcsec>
    """
    if isinstance(name, Survey):
        return name
    key = str(name).lower()
    if key in _REGISTERED:
        return _REGISTERED[key]
    if key in _shipped_names():
        return _shipped(key)
    if key.endswith((".yaml", ".yml")):
        return Survey.read(str(name))
    known = survey_names()
    close = difflib.get_close_matches(key, known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(
        f"name is {name!r}, but the known surveys are: {', '.join(known)}; add another one with "
        f"register_survey.{hint}"
    )


def register_survey(survey: Survey, *, overwrite: bool = False) -> None:
    """Make a survey known by its name, in this process.

    Its curves become known to `get_filter` as well.

    Parameters
    ----------
    survey : Survey
        Survey, such as one read with `Survey.read`.
    overwrite : bool
        Whether to replace a registered survey of the same name.

    Raises
    ------
    TypeError
        If it is not a `Survey`.
    ValueError
        If its name is that of a survey of the package that has all curves, or of a registered one.
    """
    if not isinstance(survey, Survey):
        raise TypeError(
            f"survey is of type {type(survey).__name__}, but it must be a Survey; read one with "
            "Survey.read."
        )
    key = survey.name.lower()
    if key in _shipped_names() and not _completes(survey, _shipped(key)):
        raise ValueError(
            f"the survey {survey.name} is part of the package; give yours another name."
        )
    if key in _REGISTERED and _REGISTERED[key] is not survey and not overwrite:
        raise ValueError(
            f"a survey {survey.name} is registered already; pass overwrite=True to replace it."
        )
    for curve in survey.curves.values():
        register_filter(curve)
    _REGISTERED[key] = survey


def _completes(survey: Survey, shipped: Survey) -> bool:
    """Tell whether a survey is one of the package with curves that it lacks there."""
    missing = shipped.bands_without_curves
    return bool(missing) and survey.bands == shipped.bands and not survey.bands_without_curves


#: Imaging of the Sloan Digital Sky Survey, as described by ``sdss.yaml``.
SDSS = _shipped("sdss")
#: Alias of `SDSS.bands`, kept for older code; the bands of other surveys are `Survey.bands`.
BANDS = SDSS.bands
#: Pixels on a side of the cutouts of the networks.
CUTOUT_SIZE = 64
