"""Columns as the SDSS catalogue server (and ``astroquery.sdss``) names them: without units, and with asinh magnitudes.

============================================== ======================================= ==================================
SDSS                                           what                                    becomes
============================================== ======================================= ==================================
``modelFlux_g``, ``modelFluxIvar_g``           flux [nmgy], inverse variance           ``flux_g``, ``flux_ivar_g``
``modelMag_g``, ``modelMagErr_g``              asinh magnitude [1]_                    ``flux_g``, ``flux_err_g``
``petroFlux_g``, ``petroFluxIvar_g``           Petrosian flux [nmgy]                   ``petro_flux_g``, ``petro_flux_ivar_g``
``petroMag_g``, ``petroMagErr_g``              Petrosian asinh magnitude               ``petro_flux_g``, ``petro_flux_err_g``
``petroR50_r``, ``petroR90_r``                 radii [arcsec]                          ``r50``, ``r90``
``objID`` or ``objid``                         number of the object                    ``name``, if there is none
============================================== ======================================= ==================================

``extinction_g`` is called the same.  Where fluxes and magnitudes are there, fluxes are taken.  Axis ratios of model fits
(``expAB_r``) are left alone: they are corrected for seeing, and those that the networks know are not.

References
----------
.. [1] Lupton, R. H., Gunn, J. E. & Szalay, A. S. 1999, AJ, 118, 1406.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import Table

from ..surveys import BANDS, SDSS
from .fluxes import SENTINELS, Values

__all__ = ["translated"]

#: For each kind of magnitude of the survey, the beginning of our names.
_KINDS = {"model": "", "petro": "petro_"}
_RADII = {"petroR50_r": "r50", "petroR90_r": "r90"}
_NUMBERS = ("objID", "objid")
_BAND_COLUMNS = {
    f"{kind}{what}_{band}"
    for kind, what, band in product(_KINDS, ("Flux", "FluxIvar", "Mag", "MagErr"), BANDS)
}


def translated(photometry: Table | Mapping[str, object]) -> Table | Mapping[str, object]:
    """Give columns that have the names of the survey our names, and units.

    Parameters
    ----------
    photometry : Table or mapping
        Not changed.

    Returns
    -------
    Table or mapping
        The same object if there is none.

    Raises
    ------
    TypeError, ValueError
        As for `~astrogenspec.inputs.fluxes.Values.read`.
    astropy.units.UnitsError
        If a column has a unit other than that of the survey.
    """
    keys = list(photometry.keys())
    columns = {
        key: Values.read(key, photometry[key]) for key in keys if key in {*_RADII, *_BAND_COLUMNS}
    }
    new = {
        ours: _numbers(columns[key], u.arcsec) * u.arcsec
        for key, ours in _RADII.items()
        if key in columns
    }
    for kind, band in product(_KINDS, BANDS):
        new |= _fluxes(columns, kind, band)
    if not new:
        return photometry
    twice = [key for key in new if key in keys]
    if twice:
        raise ValueError(
            f"photometry has {twice[0]} twice, by this name and by that of SDSS; keep one of them."
        )
    kept: dict[str, Any] = {key: photometry[key] for key in keys if key not in columns}
    if not isinstance(photometry, Table):
        return kept | new
    # The survey calls model magnitudes by these names too; a band of ours would have a unit.
    for band in BANDS:
        if band in kept and not getattr(kept[band], "unit", None):
            del kept[band]
    for key in _NUMBERS:
        if key in kept:
            kept.setdefault("name", [str(number) for number in kept[key]])
    return type(photometry)(kept | new, copy=False)


def _fluxes(columns: dict[str, Values], kind: str, band: str) -> dict[str, u.Quantity]:
    """Read a band of one kind, from its flux or else from its magnitude; nothing if there is neither."""
    ways = (
        (_from_flux, f"{kind}Flux_{band}", f"{kind}FluxIvar_{band}"),
        (_from_asinh_magnitude, f"{kind}Mag_{band}", f"{kind}MagErr_{band}"),
    )
    given = [way for way in ways if way[1] in columns]
    usable = [way for way in given if way[2] in columns or kind != "model"]
    if not given:
        return {}
    if not usable:
        _, value, error = given[0]
        raise ValueError(f"photometry has no error for {value}; give {error}.")
    read, value, error = usable[0]
    found = read(band, columns[value], columns.get(error))
    return {f"{_KINDS[kind]}{name}_{band}": values for name, values in found.items()}


def _from_flux(band: str, flux: Values, ivar: Values | None) -> dict[str, u.Quantity]:
    found = {"flux": _numbers(flux, u.nmgy) * u.nmgy}
    if ivar is not None:
        found["flux_ivar"] = _numbers(ivar, u.nmgy**-2) * u.nmgy**-2
    return found


def _from_asinh_magnitude(
    band: str, magnitude: Values, error: Values | None
) -> dict[str, u.Quantity]:
    r"""Flux :math:`2 b \sinh[-m \ln(10)/2.5 - \ln b]` in maggies; its error by the derivative."""
    softening = SDSS.asinh_softening[band]
    slope = 0.4 * np.log(10)
    numbers = _numbers(magnitude, u.mag)
    numbers = np.where(np.isin(numbers, SENTINELS), np.nan, numbers)
    scaled = -slope * (numbers - 22.5) - np.log(softening)
    found = {"flux": 2 * softening * np.sinh(scaled) * u.nmgy}
    if error is not None:
        sigma = 2 * softening * slope * np.cosh(scaled) * _numbers(error, u.mag)
        found["flux_err"] = sigma * u.nmgy
    return found


def _numbers(column: Values, unit: u.UnitBase) -> np.ndarray:
    """Numbers in the unit of the survey."""
    allowed = (None, unit, u.ABmag) if unit == u.mag else (None, unit)
    if column.unit not in allowed:
        raise u.UnitConversionError(
            f"{column.key} is in {column.unit}, but SDSS gives it in {unit}; rename the column if it is something else."
        )
    return column.numbers
