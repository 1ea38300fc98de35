r"""Units of images: spellings in headers, counts with a zero point, and units of uncertainties.

A zero point :math:`z` is the AB magnitude of one count, so that a count is :math:`10^{0.4 (22.5 -
z)}` nmgy.  In headers of the Hubble Space Telescope, ``PHOTFLAM`` (erg s\ :sup:`-1` cm\ :sup:`-2`
Å\ :sup:`-1` for one count per second) and ``PHOTPLAM`` (pivot wavelength :math:`\lambda`, Å) give
the flux density :math:`f_\nu = \mathrm{PHOTFLAM}\, \lambda^2 / c` of one count per second [1]_.

References
----------
.. [1] Bohlin, R. C., Gordon, K. D. & Tremblay, P.-E. 2014, PASP, 126, 711.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TypeAlias

import astropy.units as u
import numpy as np

from ..surveys import BANDS
from .fluxes import flux_factor, read_unit

__all__ = [
    "ZERO_POINT_KEYWORDS",
    "ZERO_POINT_RANGE",
    "ZeroPoint",
    "check_zero_point",
    "flux_unit",
    "is_counts",
    "read_image_unit",
    "uncertainty_ratio",
    "zero_point_note",
]

#: Keywords with the AB magnitude of one count, in the unit of the image.
ZERO_POINT_KEYWORDS = (
    "MAGZERO",
    "MAGZPT",
    "MAGZP",
    "MAG_ZP",
    "MAG0",
    "ZEROPNT",
    "ZEROPOIN",
    "ZEROPT",
    "ZP",
    "ZPT",
    "ZP_AB",
    "ZPAB",
    "PHOTZP",
    "PHOTZPT",
)
#: Range of valid zero points (AB magnitudes).
ZERO_POINT_RANGE = (10.0, 40.0)
#: A zero point in magnitudes for all bands or for each band.
ZeroPoint: TypeAlias = float | u.Quantity | Mapping[str, "float | u.Quantity"]
#: Zero points of one header must agree within this (magnitudes).
_TOLERANCE = 0.02
_SYSTEM_KEYWORDS = ("MAGSYS", "ZPSYS", "MAGZSYS", "PHOTSYS")
_COUNTS = (u.adu, u.electron, u.count, u.DN, u.photon)
_SPELLINGS = (
    (r"\badus?\b", "adu"),
    (r"\bdns?\b", "DN"),
    (r"\b(?:electrons?|els?)\b|\be-(?!\d)|\be\b", "electron"),
    (r"\b(?:counts?|cts?)\b", "ct"),
    (r"\bphotons?\b", "photon"),
    (r"\bcps\b", "ct/s"),
    (r"\b(?:secs?|seconds?|s)\b", "s"),
)


def read_image_unit(text: object) -> u.UnitBase | None:
    """Parse the unit of an image, including counts in the spellings of headers.

    Parameters
    ----------
    text : str, Unit or None
        Value of BUNIT, such as ``"ELECTRONS/S"``, ``"ADU"``, ``"nMgy"`` or ``"1/nanomaggy^2"``.

    Returns
    -------
    Unit or None
        None if there is none.

    Raises
    ------
    astropy.units.UnitsError
        If the name is not a unit.
    """
    try:
        return read_unit(text)
    except u.UnitsError:
        name = str(text).strip().lower()
        for pattern, known in _SPELLINGS:
            name = re.sub(pattern, known, name)
        try:
            unit = read_unit(name)
        except u.UnitsError:
            unit = None
        if unit is None or not is_counts(unit):
            raise
        return unit


def is_counts(unit: u.UnitBase | None) -> bool:
    """Return whether a unit is a number of counts, or there is none.

    Parameters
    ----------
    unit : Unit or None
        Unit of an image.

    Returns
    -------
    bool
    """
    if unit is None:
        return True
    if isinstance(unit, u.function.FunctionUnitBase):
        return False
    return _counts_units(unit)


@lru_cache(maxsize=256)
def _counts_units(unit: u.UnitBase) -> bool:
    """Return whether a unit is a number of counts; comparing units is slow, hence the cache."""
    return unit == u.dimensionless_unscaled or any(count in unit.bases for count in _COUNTS)


def check_zero_point(zero_point: ZeroPoint | None, argument: str = "zero_point") -> None:
    """Raise unless a zero point is valid.

    Parameters
    ----------
    zero_point : float, Quantity, mapping of str to these, or None
        AB magnitude of one count.
    argument : str
        Name of the argument, for the error message.

    Raises
    ------
    TypeError, ValueError
        If it is not a magnitude in `ZERO_POINT_RANGE`, or a band does not exist.
    """
    if zero_point is None:
        return
    if not isinstance(zero_point, Mapping):
        _zero_point_value(zero_point, argument)
        return
    for band, value in zero_point.items():
        if band not in BANDS:
            raise ValueError(
                f"{argument} contains {band!r}, which is no band: the bands are {', '.join(BANDS)}."
            )
        _zero_point_value(value, f"{argument}[{band!r}]")


def _zero_point_value(value: Any, what: str) -> float:
    """Return a zero point as a number."""
    low, high = ZERO_POINT_RANGE
    unit = getattr(value, "unit", None)
    try:
        if unit is not None and unit not in (u.mag, u.ABmag, u.dimensionless_unscaled):
            raise TypeError
        number = float(getattr(value, "value", value))
    except (TypeError, ValueError):
        raise TypeError(
            f"{what} is {str(value)[:60]!r}, but it must be a number: the AB magnitude of one "
            "count."
        ) from None
    if not low <= number <= high:
        raise ValueError(
            f"{what} is {number:g}, but the AB magnitude of one count must be between {low:g} "
            f"and {high:g}."
        )
    return number


def flux_unit(
    unit: u.UnitBase | None, header: Mapping, band: str, zero_point: ZeroPoint | None = None
) -> tuple[u.UnitBase | None, str]:
    """Return the unit of an image as a flux density, by its zero point if it is in counts.

    Parameters
    ----------
    unit : Unit or None
        Unit of the pixel values; None if it is not known.
    header : Mapping
        Header or other metadata.
    band : str
        Band of the image.
    zero_point : float, Quantity or mapping, optional
        AB magnitude of one count, for all bands or by band; overrides the header.

    Returns
    -------
    unit : Unit or None
        ``unit`` itself if it is not in counts, or if there is no zero point.
    keyword : str
        Keyword of the header that was used; empty if none was.

    Raises
    ------
    TypeError, ValueError
        If a zero point is not a valid AB magnitude, or two zero points of a header differ.
    """
    if not is_counts(unit):
        return unit, ""
    if isinstance(zero_point, Mapping):
        zero_point = zero_point.get(band)
    if zero_point is not None:
        return _one_count(_zero_point_value(zero_point, "zero_point")), ""
    found = {
        keyword: _zero_point_value(value, f"the keyword {keyword}")
        for keyword in ZERO_POINT_KEYWORDS
        if (value := _look_up(header, keyword)) is not None
        # In headers of the HST, PHOTZPT is a constant of the ST system.
        and not (keyword == "PHOTZPT" and _look_up(header, "PHOTFLAM") is not None)
    }
    hubble = _hubble_zero_point(unit, header)
    if hubble is not None:
        found["PHOTFLAM"] = hubble
    if not found:
        return unit, ""
    keyword, value = next(iter(found.items()))
    for other, number in found.items():
        if abs(number - value) > _TOLERANCE:
            raise ValueError(
                f"the zero points {keyword} = {value:g} and {other} = {number:.6g} of the header "
                "differ; delete the wrong one, or give zero_point."
            )
    for system in _SYSTEM_KEYWORDS:
        if "VEGA" in str(_look_up(header, system)).upper():
            raise ValueError(
                f"the zero point {keyword} is a Vega magnitude by the keyword {system}; give "
                "zero_point, the AB magnitude of one count."
            )
    return _one_count(value), keyword


def zero_point_note(keyword: str) -> str:
    """Return the warning about a zero point that was read from a header.

    Parameters
    ----------
    keyword : str
        Keyword of the header.

    Returns
    -------
    str
    """
    return (
        f"images in counts are converted to fluxes with the zero point {keyword} of their headers, "
        "taken as the AB magnitude of one count (argument zero_point)."
    )


def _one_count(zero_point: float) -> u.UnitBase:
    return u.CompositeUnit(10 ** (0.4 * (22.5 - zero_point)), [u.nmgy], [1])


def _look_up(header: Mapping, keyword: str) -> Any:
    for spelling in (keyword, keyword.lower()):
        if spelling in header:
            value = header[spelling]
            return None if isinstance(value, str) and not value.strip() else value
    return None


def _hubble_zero_point(unit: u.UnitBase | None, header: Mapping) -> float | None:
    """Return the AB magnitude of one count from PHOTFLAM and PHOTPLAM; None without them."""
    names: tuple[str, ...] = ("PHOTFLAM", "PHOTPLAM")
    if any(_look_up(header, name) is None for name in names):
        return None
    if unit is None or unit == u.dimensionless_unscaled:
        raise u.UnitTypeError(
            "the header has PHOTFLAM but no BUNIT; write one, such as 'electron/s', or give "
            "zero_point."
        )
    if not any(
        base == u.s and power == -1 for base, power in zip(unit.bases, unit.powers, strict=True)
    ):
        names += ("EXPTIME",)
    try:
        flux, pivot, *time = (float(_look_up(header, name)) for name in names)
        seconds = time[0] if time else 1.0
        if not (flux > 0 and pivot > 0 and seconds > 0 and np.isfinite(flux * pivot * seconds)):
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(
            f"the keywords {', '.join(names)} must be positive numbers to convert counts ({unit}) "
            "to fluxes; correct them, or give zero_point."
        ) from None
    density = flux / seconds * u.erg / u.s / u.cm**2 / u.AA
    return float(density.to_value(u.ABmag, u.spectral_density(pivot * u.AA)))


def uncertainty_ratio(
    own: u.UnitBase, power: int, unit: u.UnitBase | None, flux: u.UnitBase | None, band: str
) -> float:
    """Return the factor that converts an uncertainty to the unit of its image.

    Parameters
    ----------
    own : Unit
        Unit of the uncertainty.
    power : {1, 2, -2}
        Exponent of the standard deviation: standard deviation, variance or inverse variance.
    unit : Unit or None
        Unit of the image.
    flux : Unit or None
        The same as a flux density (`flux_unit`).
    band : str
        Band of the image.

    Returns
    -------
    float

    Raises
    ------
    astropy.units.UnitConversionError
        If the unit is not that of such an uncertainty.
    """
    try:
        if unit is None:
            raise u.UnitConversionError
        return float(own.to(unit**power))
    except (u.UnitConversionError, TypeError):
        pass
    try:
        return (flux_factor(own ** (1 / power), band) / flux_factor(flux, band)) ** power
    except (u.UnitsError, TypeError, ValueError, ZeroDivisionError):
        kind = {1: "a standard deviation", 2: "a variance", -2: "an inverse variance"}[power]
        wanted = "" if unit is None else f" ({unit**power} or the like)"
        raise u.UnitConversionError(
            f"the uncertainty has the unit {own}, which is not that of {kind}{wanted} of an image "
            f"in {unit or 'no unit'}; correct the unit, or leave it out if it is that of the image."
        ) from None
