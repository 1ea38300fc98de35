r"""Flux units and magnitudes, converted to nanomaggies.

A maggy is the flux density of an object of AB magnitude zero, 3631 Jy, so that :math:`m_\mathrm{AB}
= 22.5 - 2.5 \log_{10}(f / \mathrm{nmgy})` [1]_.  A flux per unit wavelength is converted at the
pivot wavelength of its band.

References
----------
.. [1] Oke, J. B. & Gunn, J. E. 1983, ApJ, 266, 713.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import astropy.units as u
import numpy as np
from astropy.uncertainty import Distribution

from ..surveys import BANDS, SDSS, Filter

__all__ = [
    "FILL_LIMITS",
    "SENTINELS",
    "Values",
    "ab_magnitudes",
    "check_bands",
    "common_length",
    "flux_factor",
    "from_asinh_magnitude",
    "is_fill_value",
    "read_unit",
    "to_flux",
]


def ab_magnitudes(flux: np.ndarray) -> np.ndarray:
    """Convert fluxes to AB magnitudes.

    Parameters
    ----------
    flux : ndarray
        nmgy.

    Returns
    -------
    ndarray, of the same shape
        AB magnitudes; NaN where the flux is missing or not positive.
    """
    flux = np.asarray(flux, dtype=float)
    missing = np.full(flux.shape, np.nan)
    with np.errstate(invalid="ignore"):
        return 22.5 - 2.5 * np.log10(flux, out=missing, where=flux > 0)


#: Values that stand for a missing magnitude or its error in catalogues; for fluxes, the negative
#: ones.
SENTINELS = (-9999.0, -999.0, -99.0, 99.0, 99.99, 999.0, 9999.0)
#: Magnitudes outside these limits are fill values: no survey is as deep, and no galaxy as bright.
FILL_LIMITS = (-5.0, 35.0)
#: Spellings of units in files: a regular expression, and the name that astropy knows.
_SPELLINGS = (
    (r"\b(?:nano[ _-]?magg(?:y|ies)|nmagg(?:y|ies)|nmgys?)\b", "nmgy"),
    (r"\b(?:magg(?:y|ies)|mgys?)\b", "mgy"),
    (r"\b(?:micro-?jansky?s?|[uµμ]jy|mujy)\b", "uJy"),
    (r"\b(?:nano-?jansky?s?|njy)\b", "nJy"),
    (r"^(?:ab[ _-]?mags?|mags?[ _-]?ab|mag ?\(ab\))$", "mag(AB)"),
    (r"^mags?$", "mag"),
)
_PER_WAVELENGTH = u.erg / u.s / u.cm**2 / u.AA
_COUNTS = (u.adu, u.electron, u.count, u.DN, u.photon)


def check_bands(
    bands: Any, argument: str = "bands", known: Sequence[str] = BANDS, hint: str = ""
) -> tuple[str, ...]:
    """Check names of bands.

    Parameters
    ----------
    bands : str or iterable of str
        For instance ``"gri"`` or ``["g", "r", "i"]``.
    argument : str
        Name of the argument, for the error message.
    known : sequence of str
        Bands of the survey.
    hint : str
        What to do with other bands, for the error message.

    Returns
    -------
    tuple of str

    Raises
    ------
    TypeError
        If the names are not strings.
    ValueError
        If a name is not a band, a band is given twice, or no band is given.
    """
    if isinstance(bands, str) and bands in known:
        bands = [bands]
    if isinstance(bands, str):
        bands = bands.replace(",", " ").split() if set(bands) & set(", ") else list(bands)
    try:
        names = tuple(bands)
    except TypeError:
        raise TypeError(
            f'{argument} is {bands!r}, but it must be names of bands, such as "gri" or ["g", "r"].'
        ) from None
    for name in names:
        if name not in known:
            raise ValueError(
                f"{argument} contains {name!r}, which is no band: the bands are "
                f"{', '.join(known)}{hint}."
            )
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{argument} contains {twice!r} more than once; give each band once.")
    if not names:
        raise ValueError(f"{argument} is empty; name at least one of {', '.join(known)}.")
    return names


def read_unit(unit: object) -> u.UnitBase | None:
    """Parse a unit, including the spellings of files.

    Parameters
    ----------
    unit : str, Unit or None
        Unit or its name. The spellings of files are accepted in any case: "nanomaggies", "nMgy",
        "1/nanomaggy^2", "mag(AB)", "ABmag", "uJy".

    Returns
    -------
    Unit or None
        None if there is none.

    Raises
    ------
    astropy.units.UnitsError
        If the name is not a unit.
    """
    if unit is None:
        return None
    name = spelling = str(unit).strip()
    for pattern, known in _SPELLINGS:
        spelling = re.sub(pattern, known, spelling, flags=re.IGNORECASE)
    # Some file formats make their own unit of a name such as nmgy, which equals no other unit.
    own = "mgy" in spelling or isinstance(unit, u.UnrecognizedUnit)
    if isinstance(unit, u.UnitBase | u.function.FunctionUnitBase) and not own:
        return unit
    if not spelling:
        return None
    try:
        parsed = u.Unit(spelling)
    except (ValueError, TypeError):
        parsed = None
    if parsed is None or isinstance(parsed, u.UnrecognizedUnit):
        raise u.UnitTypeError(
            f"the unit {name[:60]!r} is unknown to astropy; name a flux density, such as nmgy or "
            "uJy."
        )
    return parsed


def _unit_message(unit: u.UnitBase, what: str) -> str:
    """Return the message for a unit that is not a flux density."""
    wanted = "a flux density, such as u.nmgy or u.uJy"
    if isinstance(unit, u.function.FunctionUnitBase) or u.mag in unit.bases:
        return (
            f"{what} is in magnitudes ({unit}), which are not a flux density; convert to {wanted}."
        )
    if any(count in unit.bases for count in _COUNTS):
        return f"{what} is in counts ({unit}); apply the flux calibration to obtain {wanted}."
    if any((unit * u.sr).is_equivalent(flux) for flux in (u.Jy, u.mgy, _PER_WAVELENGTH)):
        return (
            f"{what} is a surface brightness ({unit}); "
            f"multiply it by the solid angle of a pixel to obtain {wanted}."
        )
    return f"{what} has the unit {unit}, which is not a flux density; give {wanted}."


def flux_factor(unit: u.UnitBase | None, band: str | Filter, what: str = "the cutout") -> float:
    """Return the number of nanomaggies in one unit.

    Parameters
    ----------
    unit : Unit or None
        Flux density per frequency or per wavelength, or maggies; "per pixel" is accepted.
    band : str or Filter
        Band of SDSS or filter, whose pivot wavelength converts a flux per wavelength.
    what : str
        Description of the value, for the error message.

    Returns
    -------
    float

    Raises
    ------
    astropy.units.UnitTypeError
        If there is no unit.
    astropy.units.UnitConversionError
        If it is not a flux density.
    """
    unit = None if unit is None else u.Unit(unit)
    if unit is None or unit == u.dimensionless_unscaled:
        raise u.UnitTypeError(
            f"{what} has no unit; multiply it by the unit of its fluxes, such as u.nmgy or u.uJy."
        )
    if isinstance(unit, u.function.FunctionUnitBase):
        raise u.UnitConversionError(_unit_message(unit, what))
    for candidate in (unit, unit * u.pix):
        if candidate.is_equivalent(u.mgy):
            return float(candidate.to(u.nmgy))
        if candidate.is_equivalent(u.Jy):
            return float(candidate.to(u.AB)) * 1e9
        if candidate.is_equivalent(_PER_WAVELENGTH):
            pivot = SDSS.pivot_wavelength[band] if isinstance(band, str) else band.pivot
            return float(candidate.to(u.AB, equivalencies=u.spectral_density(pivot))) * 1e9
    raise u.UnitConversionError(_unit_message(unit, what))


@dataclass(frozen=True, eq=False)
class Values:
    """Numbers and unit of a column of a table or a value of a mapping.

    Attributes
    ----------
    key : str
        Name of the column.
    numbers : ndarray of float, shape () or (n,)
        NaN where masked; the mean of a `~astropy.uncertainty.Distribution`.
    unit : Unit or None
        Unit; None if there is none or if it is dimensionless.
    scatter : ndarray of float, or None
        Standard deviation of a `~astropy.uncertainty.Distribution`.
    inverse : bool or None
        Whether they are inverse variances; by default if the name contains "ivar".
    """

    key: str
    numbers: np.ndarray
    unit: u.UnitBase | None
    scatter: np.ndarray | None = None
    inverse: bool | None = None

    @classmethod
    def read(cls, key: str, value: Any) -> Values:
        """Read a column or value.

        Parameters
        ----------
        key : str
            Name of the column, for the error message.
        value : float, ndarray, Column or Quantity
            One value for all galaxies or one for each.

        Returns
        -------
        Values

        Raises
        ------
        TypeError
            If it does not hold numbers.
        ValueError
            If it has more than one dimension.
        astropy.units.UnitsError
            If its unit is unknown.
        """
        unit = read_unit(getattr(value, "unit", None))
        mask = getattr(value, "mask", None)
        scatter = None
        if isinstance(value, Distribution):
            with np.errstate(over="ignore", invalid="ignore"):
                spread, value = value.pdf_std(), value.pdf_mean()
            scatter = np.array(getattr(spread, "value", spread), dtype=float)
        if isinstance(value, u.Quantity):
            value = (value if mask is None else value.unmasked).value
        numbers = _numbers(key, np.ma.getdata(value), mask)
        if numbers.ndim > 1:
            raise ValueError(
                f"{key} has shape {numbers.shape}, but it must be one value or one for each galaxy."
            )
        return cls(key, numbers, None if unit == u.dimensionless_unscaled else unit, scatter)

    @property
    def is_inverse_variance(self) -> bool:
        """Whether the numbers are inverse variances."""
        return "ivar" in self.key.lower() if self.inverse is None else self.inverse

    @property
    def has_magnitude_unit(self) -> bool:
        """Whether the unit is a magnitude or another logarithmic unit."""
        return isinstance(self.unit, u.function.FunctionUnitBase)

    def renamed(self, stem: str, band: str) -> str:
        """Return the name of this column in another naming scheme, such as "mag_g" for "flux_g".

        Parameters
        ----------
        stem : str
            ``"flux"`` or ``"mag"``.
        band : str
            Name of the band.

        Returns
        -------
        str
        """
        return f"{'petro_' if self.key.startswith('petro_') else ''}{stem}_{band}"


def _numbers(key: str, value: Any, mask: Any) -> np.ndarray:
    """Return the numbers in a value or column, NaN where masked."""
    given = np.asarray(value)
    masked = np.zeros(given.shape, bool) if mask is None else np.asarray(mask, bool)
    if given.dtype.kind in "fiu":
        numbers = given.astype(float)
    elif given.dtype.kind in "OSU":
        numbers = np.full(given.shape, np.nan)
        for place in np.ndindex(given.shape):
            if not masked[place]:
                numbers[place] = _number(key, given[place], place)
    else:
        raise TypeError(f"{key} has the type {given.dtype}, but it must hold real numbers.")
    return np.where(masked, np.nan, numbers)


def _number(key: str, value: Any, place: tuple[int, ...]) -> float:
    """Return one number of a column that is not numeric, or raise an error that names the row."""
    if value is None or value is np.ma.masked:
        return np.nan
    value = value.item() if isinstance(value, np.generic) else value
    try:
        if isinstance(value, bool | complex):
            raise TypeError
        return float(value)
    except (TypeError, ValueError):
        row = f" in row {place[0]}" if place else ""
        shown = repr(value) if len(repr(value)) <= 60 else f"{repr(value)[:60]}..."
        raise TypeError(
            f"{key} holds {ascii(shown)[1:-1]}{row}, but it must hold numbers; use NaN or a mask "
            "for a missing value."
        ) from None


def is_fill_value(numbers: np.ndarray, *, magnitude: bool) -> np.ndarray:
    """Return where numbers stand for a missing value.

    Parameters
    ----------
    numbers : ndarray
        Values of a catalogue, in its own unit.
    magnitude : bool
        Whether they are magnitudes or errors of magnitudes. For others, only negative values are
        fill values.

    Returns
    -------
    ndarray of bool, of the same shape
        True for the values of `SENTINELS`, in single precision too; for magnitudes, also outside
        `FILL_LIMITS`; and for values that are not finite.
    """
    numbers = np.asarray(numbers, dtype=float)
    codes = [code for code in SENTINELS if magnitude or code < 0]
    fill = ~np.isfinite(numbers) | np.any(
        [np.isclose(numbers, code, rtol=1e-6, atol=0) for code in codes], axis=0
    )
    low, high = FILL_LIMITS
    return fill | ((numbers < low) | (numbers > high) if magnitude else False)


def common_length(values: list[Values]) -> int:
    """Return the number of galaxies for which columns hold values.

    Parameters
    ----------
    values : list of Values
        Columns.

    Returns
    -------
    int

    Raises
    ------
    ValueError
        If lengths differ or are zero.
    """
    lengths = {item.numbers.shape[0]: item.key for item in values if item.numbers.ndim}
    if len(lengths) > 1:
        (n, one), (m, other) = list(lengths.items())[:2]
        raise ValueError(
            f"{one} has {n} values but {other} has {m}; give one value or one for each galaxy."
        )
    n = next(iter(lengths), 1)
    if n == 0:
        raise ValueError("photometry is empty; give at least one galaxy.")
    return n


def to_flux(
    band: str | Filter, value: Values, error: Values, *, is_magnitude: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Convert a column and its error to nanomaggies.

    Parameters
    ----------
    band : str or Filter
        Band of SDSS, or filter.
    value, error : Values
        Column and its error or inverse variance.
    is_magnitude : bool
        Whether the name is that of an AB magnitude.

    Returns
    -------
    flux, error : ndarray, shape () or (n,)
        nmgy; NaN where missing. Errors that are not positive are returned as they are.

    Raises
    ------
    astropy.units.UnitsError
        If units are missing or wrong.
    """
    if is_magnitude or value.has_magnitude_unit:
        return _from_magnitude(band, value, error, is_magnitude)
    if value.unit is not None and value.unit.is_equivalent(u.mag):
        raise u.UnitTypeError(
            f"{value.key} is in {value.unit}, without a magnitude system; use "
            f"u.ABmag, or name it {value.renamed('mag', _label(band))} if it is an AB magnitude."
        )
    if value.unit is None or error.unit is None:
        key = value.key if value.unit is None else error.key
        hint = " (if it is a redshift, rename it)" if key == "z" else ""
        raise u.UnitTypeError(
            f"{key} has no unit{hint}; give it one, such as u.nmgy or u.ABmag for a band."
        )
    factor = flux_factor(value.unit, band, value.key)
    inverse = error.is_inverse_variance
    unit = error.unit**-0.5 if inverse else error.unit
    error_key = f"{error.key} to the power -1/2" if inverse else error.key
    error_factor = flux_factor(unit, band, error_key)
    flux, sigma = (
        np.where(is_fill_value(column.numbers, magnitude=False), np.nan, column.numbers)
        for column in (value, error)
    )
    with np.errstate(over="ignore"):
        flux = flux * factor
        if not inverse:
            return flux, sigma * error_factor
        # An inverse variance of zero means no measurement; a negative one is returned as it is.
        deviation = np.where(sigma > 0, sigma, np.nan) ** -0.5 * error_factor
        return flux, np.where(sigma < 0, sigma, deviation)


def _label(band: str | Filter) -> str:
    return band if isinstance(band, str) else band.band


def _from_magnitude(
    band: str | Filter, value: Values, error: Values, by_name: bool
) -> tuple[np.ndarray, np.ndarray]:
    if error.is_inverse_variance:
        raise u.UnitTypeError(
            f"{value.key} is a magnitude, so give its error as {error.key.replace('ivar', 'err')}."
        )
    if value.has_magnitude_unit:
        if not isinstance(value.unit, u.MagUnit):
            raise u.UnitTypeError(f"{value.key} is in {value.unit}; use u.ABmag or a flux density.")
        zero = flux_factor(value.unit.physical_unit, band, value.key)
    elif value.unit is None or value.unit.is_equivalent(u.mag):
        zero = 1e9
    else:
        raise u.UnitConversionError(
            f"{value.key} is in {value.unit}, but by its name it is an AB magnitude; use u.ABmag, "
            f"or name it {value.renamed('flux', _label(band))}."
        )
    unit = error.unit
    unitless = unit is None and by_name
    if not (unitless or isinstance(unit, u.MagUnit) or (unit is not None and unit == u.mag)):
        raise u.UnitTypeError(
            f"{error.key} is in {unit or 'no unit'}, but {value.key} is a magnitude; use u.mag."
        )
    numbers, sigma = (
        np.where(is_fill_value(column.numbers, magnitude=True), np.nan, column.numbers)
        for column in (value, error)
    )
    flux = zero * 10 ** (-0.4 * numbers)
    return flux, flux * sigma * (0.4 * np.log(10))


def from_asinh_magnitude(
    magnitude: np.ndarray, error: np.ndarray | None, softening: float
) -> tuple[np.ndarray, np.ndarray | None]:
    r"""Convert asinh magnitudes to fluxes.

    Parameters
    ----------
    magnitude, error : ndarray
        Asinh magnitudes and their errors; fill values are missing.
    softening : float
        Softening parameter b, nmgy.

    Returns
    -------
    flux : ndarray, of the same shape
        :math:`2 b \sinh[-m \ln(10)/2.5 - \ln b]`, nmgy; NaN where missing.
    error : ndarray, of the same shape, or None
        From the derivative; None without errors.
    """
    slope = 0.4 * np.log(10)
    numbers = np.where(is_fill_value(magnitude, magnitude=True), np.nan, magnitude)
    scaled = -slope * (numbers - 22.5) - np.log(softening)
    flux = 2 * softening * np.sinh(scaled)
    if error is None:
        return flux, None
    sigma = np.where(is_fill_value(error, magnitude=True), np.nan, error)
    return flux, 2 * softening * slope * np.cosh(scaled) * sigma
