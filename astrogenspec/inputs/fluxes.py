r"""Flux units: whatever a user measures in, to nanomaggies.

A maggy is the flux density of an object of AB magnitude zero, 3631 Jy, so that
:math:`m_\mathrm{AB} = 22.5 - 2.5 \log_{10}(f / \mathrm{nmgy})` [1]_.  A flux per unit wavelength is converted at the
pivot wavelength of its band.

References
----------
.. [1] Oke, J. B. & Gunn, J. E. 1983, ApJ, 266, 713.
"""

from __future__ import annotations

import astropy.units as u

from ..surveys import BANDS, SDSS

__all__ = ["check_bands", "flux_factor", "read_unit"]

_ALIASES = {"nanomaggies": u.nmgy, "nanomaggy": u.nmgy, "nmaggy": u.nmgy, "maggies": u.mgy}
_PER_WAVELENGTH = u.erg / u.s / u.cm**2 / u.AA
_COUNTS = (u.adu, u.electron, u.count, u.DN, u.photon)


def check_bands(bands: object, argument: str = "bands") -> tuple[str, ...]:
    """Check names of bands.

    Parameters
    ----------
    bands : str or iterable of str
        For instance ``"gri"`` or ``["g", "r", "i"]``.
    argument : str
        What the caller's user knows the names as, for the sentence of an error.

    Returns
    -------
    tuple of str

    Raises
    ------
    TypeError
        If the names are not strings.
    ValueError
        For a name that is no band, a band given twice, or no band at all.
    """
    if isinstance(bands, str):
        bands = bands.replace(",", " ").split() if set(bands) & set(", ") else list(bands)
    try:
        names = tuple(bands)
    except TypeError:
        raise TypeError(
            f'{argument} is {bands!r}, but it must be names of bands, such as "gri" or ["g", "r"].'
        ) from None
    for name in names:
        if name not in BANDS:
            raise ValueError(
                f"{argument} contains {name!r}, which is no band: the bands are {', '.join(BANDS)}."
            )
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{argument} contains {twice!r} more than once; give each band once.")
    if not names:
        raise ValueError(f"{argument} is empty; name at least one of {', '.join(BANDS)}.")
    return names


def read_unit(unit: object) -> u.UnitBase | None:
    """Read a unit as files spell it.

    Parameters
    ----------
    unit : str, Unit or None
        A unit, or its name; the survey's own "nanomaggies" is known.

    Returns
    -------
    Unit or None
        None if there is none.

    Raises
    ------
    astropy.units.UnitsError
        If the name is no unit.
    """
    if unit is None:
        return None
    name = str(unit).strip()
    if name.lower() in _ALIASES:
        return _ALIASES[name.lower()]
    if not name:
        return None
    try:
        parsed = u.Unit(unit)
    except (ValueError, TypeError):
        parsed = None
    if parsed is None or isinstance(parsed, u.UnrecognizedUnit):
        raise u.UnitTypeError(
            f"the unit {name!r} is unknown to astropy; name a flux density, such as nmgy or uJy."
        )
    return parsed


def _refusal(unit: u.UnitBase, what: str) -> str:
    wanted = "a flux density, such as u.nmgy or u.uJy"
    if isinstance(unit, u.function.FunctionUnitBase) or u.mag in unit.bases:
        return f"{what} is in magnitudes ({unit}), which are no flux density; convert to {wanted}."
    if any(count in unit.bases for count in _COUNTS):
        return f"{what} is in counts ({unit}); apply the flux calibration to have {wanted}."
    if any((unit * u.sr).is_equivalent(flux) for flux in (u.Jy, u.mgy, _PER_WAVELENGTH)):
        return (
            f"{what} is a surface brightness ({unit}); "
            f"multiply it by the solid angle of a pixel to have {wanted}."
        )
    return f"{what} has the unit {unit}, which is no flux density; give {wanted}."


def flux_factor(unit: u.UnitBase | None, band: str, what: str = "the cutout") -> float:
    """Find how many nanomaggies one unit is.

    Parameters
    ----------
    unit : Unit or None
        A flux density per frequency or per wavelength, or maggies; "per pixel" is understood.
    band : str
        The band, whose pivot wavelength converts a flux per wavelength.
    what : str
        What has this unit, for the sentence of an error.

    Returns
    -------
    float

    Raises
    ------
    astropy.units.UnitTypeError
        If there is no unit.
    astropy.units.UnitConversionError
        If it is no flux density.
    """
    unit = None if unit is None else u.Unit(unit)
    if unit is None or unit == u.dimensionless_unscaled:
        raise u.UnitTypeError(
            f"{what} has no unit; multiply it by the unit of its fluxes, such as u.nmgy or u.uJy."
        )
    if isinstance(unit, u.function.FunctionUnitBase):
        raise u.UnitConversionError(_refusal(unit, what))
    for candidate in (unit, unit * u.pix):
        if candidate.is_equivalent(u.mgy):
            return float(candidate.to(u.nmgy))
        if candidate.is_equivalent(u.Jy):
            return float(candidate.to(u.AB)) * 1e9
        if candidate.is_equivalent(_PER_WAVELENGTH):
            pivot = u.spectral_density(SDSS.pivot_wavelength[band])
            return float(candidate.to(u.AB, equivalencies=pivot)) * 1e9
    raise u.UnitConversionError(_refusal(unit, what))
