r"""Conversion of flux densities of any form to flux per unit wavelength.

With :math:`x` the frequency, wavenumber or energy per unit of which a flux density is given,
:math:`f_\lambda = f_x\,|\mathrm{d}x / \mathrm{d}\lambda|`; photon fluxes are multiplied by the
energy :math:`h c / \lambda` of a photon.  An AB maggy is 3631 Jy.  Solid angles and pixels in a
unit, as in a surface brightness, are kept, and luminosities are converted like fluxes.
"""

from __future__ import annotations

from collections.abc import Iterator

import astropy.constants as const
import astropy.units as u
import numpy as np

__all__ = ["flux_conversion"]

_HC = (const.h * const.c).to_value(u.erg * u.AA)
#: Electronvolts per erg.
_ERG = float(u.erg.to(u.eV))
_ENERGY, _PHOTONS = u.erg / u.s, u.photon / u.s
#: Angles and pixels, which a conversion keeps.
_KEPT = (u.sr, u.rad, u.pix, u.beam)
_KEPT_NAMES = ("spaxel", "spax", "fiber", "fibre")
_SHORT_LENGTHS = (u.AA, u.nm, u.um)


def flux_conversion(
    unit: u.UnitBase, wavelength: np.ndarray, axis_unit: u.UnitBase = u.AA
) -> tuple[np.ndarray, u.UnitBase]:
    """Return the factor that converts a flux to one per unit wavelength, and its unit.

    Parameters
    ----------
    unit : `~astropy.units.Unit`
        Unit of the flux.
    wavelength : ndarray, shape (m,)
        Wavelengths (Angstrom).
    axis_unit : `~astropy.units.Unit`
        Unit of the spectral axis.  Power per length is a flux per wavenumber if the axis is one of
        wavenumbers, and a luminosity per wavelength if the length is in Angstrom, nm or micron.

    Returns
    -------
    factor : ndarray, shape (m,)
        Ones for a unit per wavelength and for a dimensionless unit.
    unit : `~astropy.units.Unit`
        Unit of the values times the factor.

    Raises
    ------
    astropy.units.UnitConversionError
        If the unit is not that of a flux density.
    """
    if unit.is_equivalent(u.one):
        return np.ones_like(wavelength), unit
    for form in (unit, unit.decompose()) if isinstance(unit, u.UnitBase) else ():
        core = form / _kept(form)
        if core.is_equivalent(u.mgy):
            core = u.Unit(core.to(u.mgy) * 3631 * u.Jy)
        for reference, result, constant, power in _densities(core, axis_unit):
            if power == 0 and core.is_equivalent(result):
                return np.ones_like(wavelength), unit
            if core.is_equivalent(reference):
                factor = core.to(reference) * constant * wavelength**power
                return factor / 1e-17, u.Unit(1e-17 * result * _kept(form))
    raise u.UnitConversionError(
        f"the flux of the spectrum is in {str(unit)!r}, which is not a flux density; give one per "
        "wavelength or frequency, such as erg / (s cm2 Angstrom) or Jy, or without a unit if it is "
        "proportional to one per wavelength."
    )


def _kept(unit: u.UnitBase) -> u.UnitBase:
    """Return the angles and pixels of a unit."""
    kept = u.dimensionless_unscaled
    for base, power in zip(unit.bases, unit.powers, strict=True):
        if base.name.lower() in _KEPT_NAMES or any(base.is_equivalent(one) for one in _KEPT):
            kept = kept * base**power
    return kept


def _densities(
    core: u.UnitBase, axis_unit: u.UnitBase
) -> Iterator[tuple[u.UnitBase, u.UnitBase, float, float]]:
    """Yield units, those per unit wavelength, and the factor between them.

    The factor is given as a constant and a power of the wavelength.
    """
    short = any(base.is_equivalent(u.AA) and base in _SHORT_LENGTHS for base in core.bases)
    wavenumbers = axis_unit.is_equivalent(u.AA**-1)
    for area in (u.cm**2, u.dimensionless_unscaled):
        result = _ENERGY / area / u.AA
        if area is not u.dimensionless_unscaled or (short and not wavenumbers):
            yield result, result, 1.0, 0
        for source, energy, power in ((_ENERGY, 1.0, 0), (_PHOTONS, _HC, -1)):
            flux = source / area
            if power:
                yield flux / u.AA, result, energy, power
            yield flux / u.Hz, result, energy * const.c.to_value(u.AA * u.Hz), power - 2
            yield flux, result, energy, power - 1
            if wavenumbers:
                yield flux * u.AA, result, energy, power - 2
            if any(base.is_equivalent(u.eV) and base is not u.erg for base in core.bases):
                yield flux / u.eV, result, energy * _HC * _ERG, power - 2
