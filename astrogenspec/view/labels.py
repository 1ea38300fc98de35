"""Plain-text names of quantities, units and spectral lines, for pages that do not typeset LaTeX."""

from __future__ import annotations

from dataclasses import dataclass

import astropy.units as u

from ..derived import DERIVED_QUANTITIES
from ..quantities import QUANTITIES

__all__ = ["PlainLabel", "column_unit", "line_markers", "plain_label"]


@dataclass(frozen=True)
class PlainLabel:
    """Name of a quantity in plain text.

    Attributes
    ----------
    title : str
        Name in words.
    axis : str
        Label of an axis with the unit; of the base-10 logarithm for a line flux.
    digits : int
        Number of decimals of a value.
    """

    title: str
    axis: str
    digits: int = 2


_LINE_UNIT = "1e-17 erg/s/cm²"
_LABELS = {
    "redshift": PlainLabel("Redshift", "redshift", 3),
    "stellar_mass": PlainLabel("Stellar mass", "log stellar mass [M☉]"),
    "sfr": PlainLabel("Star-formation rate", "log SFR [M☉/yr]"),
    "gas_metallicity": PlainLabel("Gas metallicity", "12 + log(O/H)"),
    "black_hole_mass": PlainLabel("Black-hole mass", "log black-hole mass [M☉]"),
    "halpha_flux": PlainLabel("Hα flux", f"log F(Hα) [{_LINE_UNIT}]"),
    "hbeta_flux": PlainLabel("Hβ flux", f"log F(Hβ) [{_LINE_UNIT}]"),
    "nii6584_flux": PlainLabel("[N II] 6584 flux", f"log F([N II]) [{_LINE_UNIT}]"),
    "oiii5007_flux": PlainLabel("[O III] 5007 flux", f"log F([O III]) [{_LINE_UNIT}]"),
    "ssfr": PlainLabel("Specific SFR", "log sSFR [1/yr]"),
    "nii_halpha": PlainLabel("[N II]/Hα", "log [N II] 6584 / Hα"),
    "oiii_hbeta": PlainLabel("[O III]/Hβ", "log [O III] 5007 / Hβ"),
}
#: Codes of LaTeX in the names of lines.
_CODES = {r"\alpha": "α", r"\beta": "β", r"\gamma": "γ", r"\delta": "δ", r"\,": " ", "$": ""}


def plain_label(name: str) -> PlainLabel:
    """Return the plain-text label of a quantity.

    Parameters
    ----------
    name : str
        Name of the quantity, in `~astrogenspec.quantities.QUANTITIES` or any other.

    Returns
    -------
    PlainLabel
        Made from the name for a quantity that is not known.
    """
    words = name.replace("_", " ")
    return _LABELS.get(name, PlainLabel(words, words))


def column_unit(name: str, unit: u.UnitBase) -> str:
    """Return the unit of the values of a quantity in plain text.

    Parameters
    ----------
    name : str
        Name of the quantity.
    unit : `~astropy.units.Unit`
        Its unit.

    Returns
    -------
    str
        Empty for a pure number.
    """
    info = QUANTITIES.get(name) or DERIVED_QUANTITIES.get(name)
    text = str(info.unit if info is not None else unit)
    return text.replace("solMass", "M☉").replace(" / ", "/").replace("cm2", "cm²")


def line_markers() -> list[tuple[str, float]]:
    """Return the names of the marked lines and their vacuum wavelengths.

    Returns
    -------
    list of (str, float)
        Names in plain text, and wavelengths (Angstrom) of
        `astrogenspec.plotting.spectra.LINE_LABELS`.
    """
    from ..plotting.spectra import LINE_LABELS

    markers = []
    for label, wavelength in LINE_LABELS.items():
        for code, character in _CODES.items():
            label = label.replace(code, character)
        markers.append((label, wavelength))
    return markers
