r"""Bring labels of other conventions to those of this package: Chabrier IMF, oxygen abundance by O3N2 of Pettini & Pagel (2004).

Tables state theirs in the metadata of a column, ``table["stellar_mass"].info.meta = {"imf": "Salpeter"}`` or
``table["gas_metallicity"].info.meta = {"scale": "T04"}``; `converted_labels`, called by all that reads labels, converts them.

Factors between initial mass functions are those of Madau & Dickinson (2014, ARA&A 52, 415, section 3.1). Metallicities of
Tremonti et al. (2004, ApJ 613, 898) are converted by the polynomial of Kewley & Ellison (2008, ApJ 681, 1183, table 3), those of
Marino et al. (2013, A&A 559, A114, eq. 2) through O3N2 itself (Pettini & Pagel 2004, MNRAS 348, L59, eq. 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import Table

__all__ = ["chabrier_mass", "chabrier_sfr", "converted_labels", "o3n2_metallicity"]

#: Chabrier over other IMFs (Madau & Dickinson 2014).
_MASS_FACTORS = {"chabrier": 1.0, "kroupa": 0.61 / 0.66, "salpeter": 0.61}
_SFR_FACTORS = {"chabrier": 1.0, "kroupa": 0.63 / 0.67, "salpeter": 0.63}
#: Polynomial from Tremonti et al. (2004) to O3N2 of Pettini & Pagel, and where it holds (Kewley & Ellison 2008).
_T04 = (230.7820, -75.79752, 8.526986, -0.3162894)
_T04_RANGE = (8.05, 9.2)
#: 12 + log(O/H) = a - b O3N2 of Pettini & Pagel (2004) and of Marino et al. (2013).
_PP04, _M13 = (8.73, 0.32), (8.533, 0.214)


def chabrier_mass(mass: u.Quantity, imf: str) -> u.Quantity:
    """Convert stellar masses to the Chabrier IMF.

    Parameters
    ----------
    mass : Quantity
        Mass, or dex of it; any shape.
    imf : {"Chabrier", "Kroupa", "Salpeter"}
        That of ``mass``.

    Returns
    -------
    mass : Quantity
        In the unit of the input.

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
    >>> from astrogenspec.conventions import chabrier_mass
    >>> chabrier_mass(10.5 * u.dex(u.Msun), "Salpeter").round(3)
    <Dex 10.285 dex(solMass)>
    """
    return _scaled(mass, _MASS_FACTORS, imf)


def chabrier_sfr(sfr: u.Quantity, imf: str) -> u.Quantity:
    """Convert star-formation rates to the Chabrier IMF.

    Parameters
    ----------
    sfr : Quantity
        Rate, or dex of it; any shape.
    imf : {"Chabrier", "Kroupa", "Salpeter"}
        That of ``sfr``.

    Returns
    -------
    sfr : Quantity
        In the unit of the input.

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
        That of ``metallicity``: Pettini & Pagel (2004), Marino et al. (2013), Tremonti et al. (2004, as in MPA-JHU).

    Returns
    -------
    metallicity : Quantity [dex]
        12 + log10(O/H). NaN where a polynomial does not hold: T04 below 8.05 or above 9.2.

    Raises
    ------
    ValueError
        If the scale is unknown.

    Notes
    -----
    From T04 by the polynomial of Kewley & Ellison (2008, table 3), with a scatter of 0.05 dex; from M13 through O3N2 itself.

    Examples
    --------
    >>> from astrogenspec.conventions import o3n2_metallicity
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
    raise ValueError(f'scale is {scale!r}: it must be "O3N2 PP04", "O3N2 M13" or "T04".')


def converted_labels(labels: Mapping[str, Any] | Table) -> Mapping[str, Any] | Table:
    """Convert labels by what the metadata of their columns states.

    Parameters
    ----------
    labels : mapping or table of Quantity
        Masses and star-formation rates may state an ``imf``, metallicities a ``scale``.

    Returns
    -------
    mapping or table
        The labels themselves where nothing is stated, else a copy.

    Raises
    ------
    ValueError
        If the convention is unknown; the sentence names the column.
    """
    changed = {}
    for name, (key, convert) in _STATED.items():
        meta = (
            getattr(getattr(labels[name], "info", None), "meta", None)
            if name in _names(labels)
            else None
        )
        if meta and key in meta:
            try:
                changed[name] = convert(labels[name], meta[key])
            except ValueError as error:
                raise ValueError(f"in the metadata of column {name!r}, {error}") from error
    if not changed:
        return labels
    if isinstance(labels, Mapping):
        return {**labels, **changed}
    copy = labels.copy()
    for name, values in changed.items():
        copy[name] = values
        copy[name].info.meta = None
    return copy


#: Key of the metadata and conversion of each quantity that has conventions.
_STATED = {
    "stellar_mass": ("imf", chabrier_mass),
    "sfr": ("imf", chabrier_sfr),
    "gas_metallicity": ("scale", o3n2_metallicity),
}


def _names(labels: Mapping[str, Any] | Table) -> list[str]:
    return list(labels.keys()) if isinstance(labels, Mapping | Table) else []


def _scaled(values: u.Quantity, factors: Mapping[str, float], imf: str) -> u.Quantity:
    factor = factors.get(str(imf).lower())
    if factor is None:
        raise ValueError(f'imf is {imf!r}: it must be "Chabrier", "Kroupa" or "Salpeter".')
    if isinstance(values.unit, u.function.FunctionUnitBase):
        return values + np.log10(factor) * u.dex
    return values * factor
