"""The nine quantities of the joint posterior: names, units, ranges, order, labels.

Inside the networks a galaxy is a vector ``theta`` of nine numbers: the redshift, dex values of
masses, star-formation rate and abundance, and the base-10 logarithms of the line fluxes
(`quantity_index` gives the position of a quantity). Users see `~astropy.units.Quantity` objects.
Labels that assume another initial mass function or metallicity scale are converted by
`chabrier_mass`, `chabrier_sfr` and `o3n2_metallicity`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import Table
from astropy.utils.masked import Masked

__all__ = [
    "FLUX_UNIT",
    "LINE_FLUX_UNIT",
    "QUANTITIES",
    "QuantityInfo",
    "chabrier_mass",
    "chabrier_sfr",
    "converted_labels",
    "internal_values",
    "known_numbers",
    "o3n2_metallicity",
    "plain_values",
    "quantities_to_theta",
    "quantity_index",
    "theta_to_quantities",
]

#: Unit of spectra: 1e-17 erg / (s cm2 AA).
FLUX_UNIT = u.Unit(1e-17 * u.erg / u.s / u.cm**2 / u.AA)
#: Unit of emission-line fluxes: 1e-17 erg / (s cm2).
LINE_FLUX_UNIT = u.Unit(1e-17 * u.erg / u.s / u.cm**2)


@dataclass(frozen=True)
class QuantityInfo:
    """Definition of a quantity of the posterior.

    Attributes
    ----------
    name : str
        Key in `~astrogenspec.Posterior`.
    unit : `~astropy.units.Unit`
        Unit of the draws.
    label : str
        Axis label (LaTeX).
    description : str
        Definition, aperture and scale.
    lower, upper : float
        Bounds of the internal value (dex, or log10 of a flux); every draw is strictly inside.
    logarithmic : bool
        Whether the internal value is the base-10 logarithm of the public value.
    """

    name: str
    unit: u.UnitBase
    label: str
    description: str
    lower: float
    upper: float
    logarithmic: bool = False


_INFOS = (
    QuantityInfo("redshift", u.dimensionless_unscaled, r"$z$", "Heliocentric redshift.", 0.0, 0.5),
    QuantityInfo(
        "stellar_mass",
        u.dex(u.Msun),
        r"$\log_{10}(M_\ast/\mathrm{M_\odot})$",
        "Total surviving stellar mass, Chabrier IMF, flat cosmology with H0 = 70 km/s/Mpc.",
        5.0,
        13.0,
    ),
    QuantityInfo(
        "sfr",
        u.dex(u.Msun / u.yr),
        r"$\log_{10}(\mathrm{SFR}/\mathrm{M_\odot\,yr^{-1}})$",
        "Total star-formation rate over the last 100 Myr, Chabrier IMF.",
        -6.0,
        3.5,
    ),
    QuantityInfo(
        "gas_metallicity",
        u.dex,
        r"$12+\log_{10}(\mathrm{O/H})$",
        "Gas-phase oxygen abundance 12 + log10(O/H) within the 3 arcsec fibre, O3N2 scale of "
        "Pettini & Pagel 2004.",
        7.0,
        9.6,
    ),
    QuantityInfo(
        "black_hole_mass",
        u.dex(u.Msun),
        r"$\log_{10}(M_\mathrm{BH}/\mathrm{M_\odot})$",
        "Black-hole mass implied by the bulge-mass scaling relation and its scatter; not a "
        "dynamical measurement.",
        1.0,
        11.0,
    ),
    *(
        QuantityInfo(
            name,
            LINE_FLUX_UNIT,
            rf"$F({label})\,/\,10^{{-17}}\,\mathrm{{erg\,s^{{-1}}\,cm^{{-2}}}}$",
            f"Observed flux of {words} in the 3 arcsec fibre, not corrected for dust inside the "
            "galaxy.",
            -4.0,
            6.0,
            logarithmic=True,
        )
        for name, label, words in (
            ("halpha_flux", r"\mathrm{H\alpha}", "H alpha 6564.6 (vacuum Angstrom)"),
            ("hbeta_flux", r"\mathrm{H\beta}", "H beta 4862.7 (vacuum Angstrom)"),
            ("nii6584_flux", r"\mathrm{[N\,II]}", "[N II] 6585.3 (vacuum Angstrom)"),
            ("oiii5007_flux", r"\mathrm{[O\,III]}", "[O III] 5008.2 (vacuum Angstrom)"),
        )
    ),
)
#: The nine quantities by name, in the order of the chain of flows.
QUANTITIES: dict[str, QuantityInfo] = {info.name: info for info in _INFOS}


def quantity_index(name: str) -> int:
    """Return the position of a quantity in the internal vectors.

    Parameters
    ----------
    name : str
        Name in `QUANTITIES`.

    Returns
    -------
    int

    Raises
    ------
    ValueError
        If the name is unknown.
    """
    if name not in QUANTITIES:
        raise ValueError(f"unknown quantity {name!r}; choose from {', '.join(QUANTITIES)}.")
    return list(QUANTITIES).index(name)


def theta_to_quantities(theta: np.ndarray) -> dict[str, u.Quantity]:
    """Convert internal vectors to named quantities with units.

    Parameters
    ----------
    theta : ndarray, shape (..., 9)
        Redshift, dex values, and log10 of the line fluxes.

    Returns
    -------
    dict of Quantity, each of shape (...)
        Values in the precision of ``theta``.

    Raises
    ------
    ValueError
        If the last axis does not have nine entries.
    """
    theta = np.asarray(theta)
    if not np.issubdtype(theta.dtype, np.floating):
        theta = theta.astype(float)
    if theta.shape[-1:] != (len(QUANTITIES),):
        raise ValueError(
            f"theta has shape {theta.shape}; its last axis must have the {len(QUANTITIES)} "
            f"quantities {', '.join(QUANTITIES)}."
        )
    return {
        name: u.Quantity(
            10 ** theta[..., k] if info.logarithmic else theta[..., k],
            info.unit,
            dtype=theta.dtype,
            subok=True,
        )
        for k, (name, info) in enumerate(QUANTITIES.items())
    }


def quantities_to_theta(values: Mapping[str, u.Quantity]) -> np.ndarray:
    """Stack named quantities into internal vectors; missing quantities become NaN.

    Parameters
    ----------
    values : mapping of str to Quantity
        Values by names in `QUANTITIES`, all of one shape. Bare numbers are assumed to be in the
        unit of the quantity. Masked values, and line fluxes that are not positive, become NaN.

    Returns
    -------
    theta : ndarray, shape (..., 9)

    Raises
    ------
    ValueError
        If a name is unknown, or the shapes differ.
    astropy.units.UnitConversionError
        If a unit cannot be converted.
    """
    if not values:
        raise ValueError("values is empty; give at least one of " + ", ".join(QUANTITIES))
    columns = {name: internal_values(name, value) for name, value in values.items()}
    shapes = {column.shape for column in columns.values()}
    if len(shapes) > 1:
        raise ValueError(
            f"the quantities have different shapes {sorted(shapes)}; give equal shapes."
        )
    missing = np.full(shapes.pop(), np.nan)
    return np.stack([columns.get(name, missing) for name in QUANTITIES], axis=-1)


def internal_values(name: str, value: u.Quantity) -> np.ndarray:
    """Convert a quantity to its internal values: dex, log10 of a line flux, or the redshift itself.

    Parameters
    ----------
    name : str
        Name in `QUANTITIES`.
    value : Quantity
        Values; bare numbers are assumed to be in the unit of the quantity.

    Returns
    -------
    ndarray, of the same shape
        Internal values; NaN for masked values, and for a line flux that is not positive.

    Raises
    ------
    ValueError
        If the name is unknown.
    astropy.units.UnitConversionError
        If the unit cannot be converted.
    """
    if name not in QUANTITIES:
        raise ValueError(f"unknown quantity {name!r}; choose from {', '.join(QUANTITIES)}.")
    numbers = _in_unit(name, value)
    if not QUANTITIES[name].logarithmic:
        return numbers
    return np.log10(numbers, out=np.full(numbers.shape, np.nan), where=numbers > 0)


def _in_unit(name: str, value: u.Quantity) -> np.ndarray:
    """Return the values of a quantity in its own unit as an array of float."""
    if isinstance(value, list | tuple) and any(isinstance(part, u.Quantity) for part in value):
        try:
            value = u.Quantity(value, subok=True)
        except (u.UnitsError, TypeError, ValueError):
            raise u.UnitConversionError(
                f"{name} is a list of numbers with different units; give one Quantity."
            ) from None
    if np.asanyarray(value).dtype.kind == "b":
        raise TypeError(f"{name} holds booleans; give a Quantity or an array of numbers.")
    return plain_values(value, QUANTITIES[name].unit, name=name).astype(float)


#: Ratios of Chabrier to other IMFs (Madau & Dickinson 2014).
_MASS_FACTORS = {"chabrier": 1.0, "kroupa": 0.61 / 0.66, "salpeter": 0.61}
_SFR_FACTORS = {"chabrier": 1.0, "kroupa": 0.63 / 0.67, "salpeter": 0.63}
#: Polynomial from Tremonti et al. (2004) to O3N2 of Pettini & Pagel, and its range (Kewley &
#: Ellison 2008).
_T04 = (230.7820, -75.79752, 8.526986, -0.3162894)
_T04_RANGE = (8.05, 9.2)
#: 12 + log(O/H) = a - b O3N2 of Pettini & Pagel (2004) and of Marino et al. (2013).
_PP04, _M13 = (8.73, 0.32), (8.533, 0.214)


def chabrier_mass(mass: u.Quantity, imf: str) -> u.Quantity:
    """Convert stellar masses to the Chabrier IMF.

    Parameters
    ----------
    mass : Quantity
        Masses or dex of masses; any shape.
    imf : {"Chabrier", "Kroupa", "Salpeter"}
        Initial mass function of ``mass``.

    Returns
    -------
    mass : Quantity
        Masses in the unit of the input.

    Raises
    ------
    ValueError
        If the IMF is unknown.

    Notes
    -----
    Factors of Madau & Dickinson (2014): 0.61 from Salpeter, 0.61/0.66 from Kroupa.

    Examples
    --------
    >>> import astropy.units as u
    >>> from astrogenspec.quantities import chabrier_mass
    >>> chabrier_mass(10.5 * u.dex(u.Msun), "Salpeter").round(3)
    <Dex 10.285 dex(solMass)>
    """
    return _scaled(mass, _MASS_FACTORS, imf)


def chabrier_sfr(sfr: u.Quantity, imf: str) -> u.Quantity:
    """Convert star-formation rates to the Chabrier IMF.

    Parameters
    ----------
    sfr : Quantity
        Rates or dex of rates; any shape.
    imf : {"Chabrier", "Kroupa", "Salpeter"}
        Initial mass function of ``sfr``.

    Returns
    -------
    sfr : Quantity
        Rates in the unit of the input.

    Raises
    ------
    ValueError
        If the IMF is unknown.

    Notes
    -----
    Factors of Madau & Dickinson (2014): 0.63 from Salpeter, 0.63/0.67 from Kroupa.
    """
    return _scaled(sfr, _SFR_FACTORS, imf)


def o3n2_metallicity(metallicity: Any, scale: str) -> u.Quantity:
    """Convert oxygen abundances to the O3N2 scale of Pettini & Pagel (2004).

    Parameters
    ----------
    metallicity : array_like or Quantity [dex]
        12 + log10(O/H); any shape.
    scale : {"O3N2 PP04", "O3N2 M13", "T04"}
        Scale of ``metallicity``: Pettini & Pagel (2004), Marino et al. (2013), Tremonti et al.
        (2004, as in MPA-JHU).

    Returns
    -------
    metallicity : Quantity [dex]
        12 + log10(O/H). NaN outside the range of the polynomial: T04 below 8.05 or above 9.2.

    Raises
    ------
    ValueError
        If the scale is unknown.

    Notes
    -----
    T04 is converted by the polynomial of Kewley & Ellison (2008, table 3), with a scatter of
    0.05 dex; M13 by its relation
    to O3N2.

    Examples
    --------
    >>> from astrogenspec.quantities import o3n2_metallicity
    >>> o3n2_metallicity([8.6, 9.0], "T04").round(2)
    <Quantity [8.4 , 8.72] dex>
    """
    given = np.asarray(u.Quantity(metallicity, u.dex).value, dtype=float)
    if scale == "O3N2 PP04":
        return given * u.dex
    if scale == "O3N2 M13":
        ratio = (_M13[0] - given) / _M13[1]
        return (_PP04[0] - _PP04[1] * ratio) * u.dex
    if scale == "T04":
        inside = (given >= _T04_RANGE[0]) & (given <= _T04_RANGE[1])
        return np.where(inside, np.polynomial.polynomial.polyval(given, _T04), np.nan) * u.dex
    raise ValueError(f'scale is {scale!r}; give "O3N2 PP04", "O3N2 M13" or "T04".')


def converted_labels(labels: Mapping[str, Any] | Table) -> Mapping[str, Any] | Table:
    """Convert labels according to the metadata of their columns.

    Masked values and fill values (see `known_numbers`) of converted columns become NaN.

    Parameters
    ----------
    labels : mapping or table of Quantity
        Labels; the metadata of masses and star-formation rates may have an ``imf``, that of
        metallicities a ``scale``.

    Returns
    -------
    mapping or table
        The labels themselves if no column has such metadata, otherwise a copy.

    Raises
    ------
    ValueError
        If the convention of a column is unknown.
    """
    changed = {}
    for name, (key, convert) in _CONVENTIONS.items():
        if name not in _names(labels):
            continue
        meta = getattr(getattr(labels[name], "info", None), "meta", None)
        if not meta or key not in meta:
            continue
        unit = getattr(labels[name], "unit", None) or QUANTITIES[name].unit
        numbers, _ = known_numbers(labels[name], unit, quantity=name, name=f"column {name!r}")
        known = u.Quantity(numbers, unit, dtype=float, subok=True)
        try:
            changed[name] = convert(known, meta[key])
        except ValueError as error:
            raise ValueError(f"in the metadata of column {name!r}, {error}") from error
    if not changed:
        return labels
    if isinstance(labels, Mapping):
        return {**labels, **changed}
    copy = labels.copy()
    for name, converted in changed.items():
        copy[name] = converted
        copy[name].info.meta = None
    return copy


#: Key of the metadata, and conversion, of each quantity with several conventions.
_CONVENTIONS = {
    "stellar_mass": ("imf", chabrier_mass),
    "sfr": ("imf", chabrier_sfr),
    "gas_metallicity": ("scale", o3n2_metallicity),
}


def plain_values(values: Any, unit: u.UnitBase | None, *, name: str = "values") -> np.ndarray:
    """Convert values to an array of floats in a given unit; masked entries become NaN.

    Parameters
    ----------
    values : array-like
        Quantity, masked Quantity, table column or plain numbers; plain numbers are assumed to be in
        ``unit``.
    unit : unit or None
        Unit of the result; None for values that must not have a unit.
    name : str
        Name of the values in error messages.

    Returns
    -------
    ndarray of float

    Raises
    ------
    astropy.units.UnitConversionError
        If the unit of the values does not convert.
    TypeError
        If the values are not numbers.

    Notes
    -----
    Linear values that are not positive become infinite or NaN in a dex unit, and logarithmic values
    too large for a number become infinite in a linear unit.
    """
    mask = getattr(values, "mask", None)
    if isinstance(values, Masked):
        values = values.unmasked
    elif isinstance(values, np.ma.MaskedArray):
        with np.errstate(over="ignore"):
            values = values.filled(values.fill_value)
    given = getattr(values, "unit", None)
    try:
        if given is not None:
            if np.asarray(values).dtype.kind not in "biuf":
                raise TypeError
            wanted = u.dimensionless_unscaled if unit is None else unit
            with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
                values = u.Quantity(values, subok=True).to_value(wanted)
        if np.asarray(values).dtype.kind not in "biuf":
            raise TypeError
        result = np.array(values, dtype=np.result_type(np.asarray(values).dtype, np.float32))
    except u.UnitsError:
        wanted = "no unit" if unit is None else f"the unit {str(unit) or 'one (dimensionless)'!r}"
        raise u.UnitConversionError(
            f"{name} has the unit {str(given) or 'one (dimensionless)'!r}, but {wanted} is "
            "expected; give values that convert to it."
        ) from None
    except (TypeError, ValueError):
        raise TypeError(
            f"{name} is of type {type(values).__name__} with entries that are not numbers; "
            f"give a Quantity or an array of numbers."
        ) from None
    if mask is not None:
        result[np.broadcast_to(np.asarray(mask), result.shape)] = np.nan
    return result


#: Physical limits of labels: redshift, dex, or log10 of a flux in the unit of the quantity.  They
#: are wider than the bounds of the networks; what is outside is no measurement.
_PHYSICAL_LIMITS = {
    "redshift": (-0.5, 9.9),
    "stellar_mass": (2.0, 15.0),
    "sfr": (-9.0, 6.0),
    "gas_metallicity": (5.0, 11.0),
    "black_hole_mass": (0.5, 13.0),
    "halpha_flux": (-8.0, 9.0),
    "hbeta_flux": (-8.0, 9.0),
    "nii6584_flux": (-8.0, 9.0),
    "oiii5007_flux": (-8.0, 9.0),
    "ssfr": (-20.0, -3.0),
    "halpha_luminosity": (25.0, 50.0),
    "balmer_decrement": (0.0, 90.0),
    "nii_halpha": (-9.0, 9.0),
    "oiii_hbeta": (-9.0, 9.0),
}
#: Numbers that tables have in place of missing values: only nines, such as -99, -9999, 99.99.
_FILL_VALUES = np.array(
    [
        sign * float(f"{'9' * before}.{'9' * after}")
        for sign, min_digits in ((1, 3), (-1, 2))
        for before in range(2, 7)
        for after in range(5)
        if min_digits <= before + after <= 6 and (sign < 0 or (before, after) != (2, 1))
    ]
)
#: Absolute value from which a number is a fill value of any quantity.
_HUGE = 1e30


def known_numbers(
    values: Any, unit: u.UnitBase | None, *, quantity: str = "", name: str = "values"
) -> tuple[np.ndarray, np.ndarray]:
    """Convert labels or true values to plain numbers, with NaN where the value is not known.

    Parameters
    ----------
    values : array-like
        Quantity, masked Quantity, table column or plain numbers; plain numbers are assumed to be in
        ``unit``.
    unit : unit or None
        Unit of the result; None for values that must not have a unit.
    quantity : str
        Name of the quantity, which sets the physical limits.
    name : str
        Name of the values in error messages.

    Returns
    -------
    numbers : ndarray of float
        NaN for values that are masked or not finite, and for fill values.
    fill : ndarray of bool, of the same shape
        Fill values: numbers of nines only (-99, -999, -9999, 999, 9999, 99.99, ...), and values
        outside the physical limits of the quantity, such as a redshift of -1 or a mass of 0 dex.

    Raises
    ------
    astropy.units.UnitConversionError
        If the unit of the values does not convert.
    TypeError
        If the values are not numbers.
    """
    numbers = plain_values(values, unit, name=name)
    given = plain_values(values, getattr(values, "unit", None), name=name)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        near = np.isclose(given[..., None].astype(float), _FILL_VALUES, rtol=1e-7, atol=0)
        fill = near.any(axis=-1) | (np.abs(given) >= _HUGE)
        if quantity in _PHYSICAL_LIMITS:
            lower, upper = _PHYSICAL_LIMITS[quantity]
            internal, info = numbers, QUANTITIES.get(quantity)
            if info is not None and unit is not None and unit != info.unit:
                internal = plain_values(u.Quantity(numbers, unit, subok=True), info.unit)
            if info is not None and info.logarithmic:
                internal = np.log10(internal)
            fill |= np.isfinite(internal) & ((internal <= lower) | (internal >= upper))
    fill &= np.isfinite(given)
    numbers[fill | ~np.isfinite(numbers)] = np.nan
    return numbers, fill


def _names(labels: Mapping[str, Any] | Table) -> list[str]:
    return list(labels.keys()) if isinstance(labels, Mapping | Table) else []


def _scaled(values: u.Quantity, factors: Mapping[str, float], imf: str) -> u.Quantity:
    factor = factors.get(str(imf).lower())
    if factor is None:
        raise ValueError(f'imf is {imf!r}; give "Chabrier", "Kroupa" or "Salpeter".')
    if isinstance(values.unit, u.function.FunctionUnitBase):
        return values + np.log10(factor) * u.dex
    return values * factor
