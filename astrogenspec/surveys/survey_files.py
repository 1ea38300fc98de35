"""Reading and writing of the YAML files that describe surveys.

A file is a mapping.  Required are ``name`` and ``bands``, a mapping from the name of each band,
blue to red, to a mapping of its numbers, with its ``filter``; all other keys are optional.  Numbers
are in the units of `BAND_KEYS` and `SURVEY_KEYS`, or texts with another unit, such as ``0.262
arcsec``.  A repeated key is an error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import astropy.units as u

from .catalogue_format import CatalogueFormat

__all__ = ["BAND_KEYS", "SURVEY_KEYS", "dump_survey", "parse_survey", "read_yaml"]

_SURFACE = u.mag(u.AB / u.arcsec**2)
#: Numbers of a band in a file, and their units; None for plain numbers.
BAND_KEYS: dict[str, u.UnitBase | None] = {
    "psf_fwhm": u.arcsec,
    "depth": None,
    "sky_brightness": _SURFACE,
    "exposure_time": u.s,
    "zero_point": None,
    "gain": None,
    "dark_variance": None,
    "nmgy_per_dn": None,
    "pixel_sigma": None,
    "asinh_softening": None,
    "calibration_error": None,
    "extinction_coefficient": None,
    "pivot_wavelength": u.AA,
}
#: Numbers of a survey in a file.
SURVEY_KEYS: dict[str, u.UnitBase] = {"pixel_scale": u.arcsec, "fibre_diameter": u.arcsec}
#: Numbers that can be negative or zero.
_ANY_SIGN = ("depth", "sky_brightness", "zero_point")
_MAY_BE_ZERO = ("dark_variance", "calibration_error", "extinction_coefficient")
_TEXTS = ("name", "title", "reference_band", "curves_note")
_RANGES = ("magnitude_range", "redshift_range")
_LISTS = ("references", "catalogue")
_FILTER = "filter"


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Parameters
    ----------
    path : Path
        File to read.

    Returns
    -------
    dict

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is not YAML, repeats a key, or does not hold a mapping.
    """
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    # A class of its own, which refuses repeated keys.
    loader_class: Any = type("Loader", (base,), {})

    def construct(loader: Any, node: Any) -> dict:
        keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
        for k, key in enumerate(keys):
            if key in keys[:k]:
                line = node.value[k][0].start_mark.line + 1
                raise ValueError(f"line {line} repeats the key {key!r}")
        return {
            key: loader.construct_object(value, deep=True)
            for key, (_, value) in zip(keys, node.value, strict=True)
        }

    loader_class.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, construct)
    if not path.is_file():
        raise FileNotFoundError(f"the survey file {str(path)!r} does not exist.")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=loader_class)
    except (yaml.YAMLError, ValueError, TypeError) as error:
        text = " ".join(str(error).split())
        raise ValueError(f"{str(path)!r} is not a valid YAML file: {text}.") from None
    if not isinstance(content, dict):
        raise ValueError(f"{str(path)!r} must hold a mapping with the keys name and bands.")
    return content


def parse_survey(content: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Check the content of a file and convert it to the arguments of a `Survey`.

    Parameters
    ----------
    content : mapping
        Content of the file.
    source : str
        Name of the file, for errors.

    Returns
    -------
    dict
        Arguments of `Survey`; the item ``filter_names`` may hold names of files of curves.

    Raises
    ------
    ValueError
        If a key is missing or unknown, or a value has a wrong type.
    """
    try:
        return _parse(content)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{source}: {error}") from None


def _parse(content: Mapping[str, Any]) -> dict[str, Any]:
    known = (*_TEXTS, *SURVEY_KEYS, *_RANGES, *_LISTS, "bands")
    _check_keys(content, known, "the file")
    for key in ("name", "bands"):
        if key not in content:
            raise ValueError(f"the key {key!r} is missing.")
    given: dict[str, Any] = {key: _text(key, content[key]) for key in _TEXTS if key in content}
    given |= {
        key: _quantity(key, content[key], unit)
        for key, unit in SURVEY_KEYS.items()
        if key in content
    }
    given |= {key: _range(key, content[key]) for key in _RANGES if key in content}
    for key in _LISTS:
        if not isinstance(content.get(key, []), list):
            raise ValueError(f"{key} must be a list, with a line that starts with '-' for each.")
    given["references"] = tuple(_text("references", text) for text in content.get("references", []))
    given["catalogue"] = tuple(_format(item) for item in content.get("catalogue", []))
    return given | _bands(content["bands"])


def _bands(content: Any) -> dict[str, Any]:
    if not isinstance(content, dict) or not content:
        raise ValueError("bands must be a mapping with a key for each band, blue to red.")
    for band, numbers in content.items():
        if not isinstance(band, str) or not band:
            raise ValueError(f"bands has the key {band!r}; write the name of a band in quotes.")
        if not isinstance(numbers, dict) or _FILTER not in numbers:
            raise ValueError(
                f"band {band} must be a mapping with the key filter, such as "
                f"{band}: {{filter: decamDR1-g}}."
            )
        _check_keys(numbers, (_FILTER, *BAND_KEYS), f"band {band}")
    given: dict[str, Any] = {"bands": tuple(content)}
    given["filter_names"] = {
        band: _text(f"filter of band {band}", numbers[_FILTER]) for band, numbers in content.items()
    }
    for key, unit in BAND_KEYS.items():
        if any(key in numbers for numbers in content.values()):
            given[key] = {
                band: _quantity(key, numbers[key], unit, band)
                if key in numbers
                else u.Quantity(math.nan, unit, subok=True)
                if unit is not None
                else math.nan
                for band, numbers in content.items()
            }
    return given


def _check_keys(content: Mapping[Any, Any], known: tuple[str, ...], where: str) -> None:
    for key in content:
        if key not in known:
            raise ValueError(f"{where} has the unknown key {key!r}; known are {', '.join(known)}.")


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{key} is {value!r}, but it must be a text that is not empty.")
    return " ".join(value.split())


def _range(key: str, value: Any) -> tuple[float, float]:
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError(f"{key} is {value!r}, but it must be a list of two numbers.")
    low, high = (_number(key, item) for item in value)
    if not low < high:
        raise ValueError(f"{key} is [{low:g}, {high:g}], but the first must be the smaller one.")
    return low, high


def _number(key: str, value: Any) -> float:
    # YAML 1.1 reads 1e-5 as a text.
    if isinstance(value, str):
        with suppress(ValueError):
            value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{key} is {value!r}, but it must be a number.")
    return float(value)


def _quantity(key: str, value: Any, unit: u.UnitBase | None, band: str = "") -> Any:
    """Return a number, or a Quantity if there is a unit."""
    where = f"{key} of band {band}" if band else key
    if unit is not None and isinstance(value, str) and unit is not _SURFACE:
        value = _converted(where, value, unit)
    number = _number(where, value)
    zero = key in _MAY_BE_ZERO
    if key not in _ANY_SIGN and (number < 0 or (number == 0 and not zero)):
        raise ValueError(
            f"{where} is {number:g}, but it must be {'at least 0' if zero else 'positive'}."
        )
    return number if unit is None else u.Quantity(number, unit, subok=True)


def _converted(where: str, text: str, unit: u.UnitBase) -> float:
    try:
        given = u.Quantity(text)
        return float(given.value if given.unit.is_unity() else given.to_value(unit))
    except (TypeError, ValueError, u.UnitConversionError):
        raise ValueError(
            f"{where} is {text!r}, but it must be a number, in {unit}, or with a unit of that kind."
        ) from None


def _format(content: Any) -> CatalogueFormat:
    if not isinstance(content, dict):
        raise ValueError("an item of catalogue must be a mapping with the keys name and value.")
    known = {item.name: item for item in fields(CatalogueFormat)}
    _check_keys(content, tuple(known), "an item of catalogue")
    for key, item in known.items():
        required = item.default is MISSING and item.default_factory is MISSING
        if required and key not in content:
            raise ValueError(f"an item of catalogue has no key {key!r}.")
    given: dict[str, Any] = {}
    for key, value in content.items():
        if key in ("names", "identifying", "shared"):
            if not isinstance(value, list):
                raise ValueError(f"{key} in catalogue must be a list of names of columns.")
            given[key] = tuple(_text(key, text) for text in value)
        elif key in ("vega_to_ab", "fill_values", "band_names"):
            given[key] = _format_mapping(key, value)
        elif key in ("dereddened", "total"):
            if not isinstance(value, bool):
                raise ValueError(f"{key} in catalogue is {value!r}, but it must be true or false.")
            given[key] = value
        else:
            given[key] = _number(key, value) if key == "zero_point" else _text(key, value)
    return CatalogueFormat(**given)


def _format_mapping(key: str, value: Any) -> dict:
    if not isinstance(value, dict):
        raise ValueError(f"{key} in catalogue is {value!r}, but it must be a mapping.")
    if key == "fill_values":
        return {_number(key, number): _text(key, meaning) for number, meaning in value.items()}
    convert = _number if key == "vega_to_ab" else _text
    return {_text(key, band): convert(key, item) for band, item in value.items()}


def dump_survey(survey: Any, filter_names: Mapping[str, str]) -> bytes:
    """Return the content of a file that describes a survey.

    Parameters
    ----------
    survey : Survey
        Survey to write.
    filter_names : mapping of str to str
        Name of the filter, or of the file of its curve, by band.

    Returns
    -------
    bytes
        YAML, UTF-8.
    """
    import yaml

    content: dict[str, Any] = {
        key: getattr(survey, key) for key in _TEXTS if getattr(survey, key) is not None
    }
    for key, unit in SURVEY_KEYS.items():
        value = getattr(survey, key)
        if value is not None:
            content[key] = float(value.to_value(unit))
    content |= {
        key: [float(number) for number in getattr(survey, key)]
        for key in _RANGES
        if getattr(survey, key) is not None
    }
    lists: dict[str, Any] = {}
    if survey.catalogue:
        lists["catalogue"] = [_dump_format(item) for item in survey.catalogue]
    if survey.references:
        lists["references"] = list(survey.references)

    def dump(part: Any, *, flow: bool | None = False) -> str:
        return yaml.safe_dump(
            part, sort_keys=False, allow_unicode=True, width=100, default_flow_style=flow
        )

    bands = {band: _dump_band(survey, band, filter_names[band]) for band in survey.bands}
    text = dump(content) + dump({"bands": bands}, flow=None) + (dump(lists) if lists else "")
    return text.encode()


def _dump_band(survey: Any, band: str, name: str) -> dict[str, Any]:
    content: dict[str, Any] = {_FILTER: name}
    for key, unit in BAND_KEYS.items():
        value = getattr(survey, key)[band]
        number = float(value if unit is None else value.to_value(unit))
        if math.isfinite(number):
            content[key] = number
    return content


def _dump_format(item: CatalogueFormat) -> dict[str, Any]:
    content = {}
    for entry in fields(item):
        value = getattr(item, entry.name)
        if value == entry.default or (isinstance(value, Mapping | tuple) and not value):
            continue
        if isinstance(value, tuple):
            value = list(value)
        content[entry.name] = dict(value) if isinstance(value, Mapping) else value
    return content
