"""The nine quantities of the joint posterior: names, units, ranges, and their order in the chain of flows.

Inside the networks a galaxy is a vector ``theta`` of nine numbers: the redshift, dex values of masses, star-formation
rate and abundance, and the base-10 logarithm of the line fluxes.  Users see `~astropy.units.Quantity` objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import astropy.units as u
import numpy as np

__all__ = [
    "LINE_FLUX_UNIT",
    "QUANTITIES",
    "QuantityInfo",
    "internal_values",
    "quantities_to_theta",
    "theta_to_quantities",
]

#: Unit of emission-line fluxes: 1e-17 erg / (s cm2).
LINE_FLUX_UNIT = u.Unit(1e-17 * u.erg / u.s / u.cm**2)


@dataclass(frozen=True)
class QuantityInfo:
    """What one quantity of the posterior means.

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
        Bounds of the internal value (dex, or log10 of a flux); every draw lies strictly inside.
    logarithmic : bool
        True if the internal value is the base-10 logarithm of what the user sees.
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
        "Gas-phase oxygen abundance 12 + log10(O/H) within the 3 arcsec fibre, O3N2 scale of Pettini & Pagel 2004.",
        7.0,
        9.6,
    ),
    QuantityInfo(
        "black_hole_mass",
        u.dex(u.Msun),
        r"$\log_{10}(M_\mathrm{BH}/\mathrm{M_\odot})$",
        "Black-hole mass implied by the bulge-mass scaling relation and its scatter; not a dynamical measurement.",
        1.0,
        11.0,
    ),
    *(
        QuantityInfo(
            name,
            LINE_FLUX_UNIT,
            rf"$F({label})\,/\,10^{{-17}}\,\mathrm{{erg\,s^{{-1}}\,cm^{{-2}}}}$",
            f"Observed flux of {words} in the 3 arcsec fibre, not corrected for dust inside the galaxy.",
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


def theta_to_quantities(theta: np.ndarray) -> dict[str, u.Quantity]:
    """Give the internal vectors their names and units.

    Parameters
    ----------
    theta : ndarray, shape (..., 9)
        Redshift, dex values, and log10 of the line fluxes.

    Returns
    -------
    dict of Quantity, each of shape (...)
        In the precision of ``theta``.

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
            f"theta has shape {theta.shape}; its last axis must hold the {len(QUANTITIES)} quantities "
            f"{', '.join(QUANTITIES)}."
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
    """Stack named quantities into internal vectors; a quantity that is absent becomes NaN.

    Parameters
    ----------
    values : mapping of str to Quantity
        Any of the names in `QUANTITIES`; all of one shape. Bare numbers are taken to be in the
        quantity's own unit. A line flux that is not positive becomes NaN (it has no logarithm).

    Returns
    -------
    theta : ndarray, shape (..., 9)

    Raises
    ------
    ValueError
        For an unknown name, or shapes that differ.
    astropy.units.UnitConversionError
        For a unit that does not fit.
    """
    if not values:
        raise ValueError("no quantities were given: pass at least one of " + ", ".join(QUANTITIES))
    columns = {name: internal_values(name, value) for name, value in values.items()}
    shapes = {column.shape for column in columns.values()}
    if len(shapes) > 1:
        raise ValueError(f"the quantities have different shapes: {sorted(shapes)}; give one shape.")
    missing = np.full(shapes.pop(), np.nan)
    return np.stack([columns.get(name, missing) for name in QUANTITIES], axis=-1)


def internal_values(name: str, value: u.Quantity) -> np.ndarray:
    """Give one quantity in its internal unit: as it is, dex, or log10 of a line flux.

    Parameters
    ----------
    name : str
        One of `QUANTITIES`.
    value : Quantity
        Bare numbers are taken to be in the quantity's own unit.

    Returns
    -------
    ndarray, of the same shape
        NaN for a flux that is not positive.

    Raises
    ------
    ValueError
        For an unknown name.
    astropy.units.UnitConversionError
        For a unit that does not fit.
    """
    if name not in QUANTITIES:
        raise ValueError(f"unknown quantity {name!r}: the quantities are {', '.join(QUANTITIES)}.")
    numbers = _in_unit(name, value)
    if not QUANTITIES[name].logarithmic:
        return numbers
    return np.log10(numbers, out=np.full(numbers.shape, np.nan), where=numbers > 0)


def _in_unit(name: str, value: u.Quantity) -> np.ndarray:
    """Values of a quantity in its own unit, as a bare array of float."""
    unit = QUANTITIES[name].unit
    try:
        return np.asarray(u.Quantity(value, unit, subok=True).value, dtype=float)
    except u.UnitsError as error:
        raise u.UnitConversionError(
            f"{name} has the unit {getattr(value, 'unit', None)}, which is not convertible to {unit or 'a pure number'}."
        ) from error
