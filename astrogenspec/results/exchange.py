"""Results for other tools: readers of specutils, spectra and line lists of jdaviz, catalogues.

The readers are in `astrogenspec.results.readers`.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import QTable, Table

from ..atomic import atomic_write
from ..wavelengths import LINES
from .base import GalaxyDraws
from .readers import register_readers
from .spectrum_arrays import SpectrumArrays
from .specutils_views import best_spectra, mean_spectra, percentile_spectra

if TYPE_CHECKING:
    from specutils import Spectrum

__all__ = [
    "SpecvizData",
    "line_list",
    "plain_column",
    "register_readers",
    "specviz_data",
    "write_regions",
    "write_votable",
]

_GREEK = {"alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ"}
#: Sides of the regions of DS9 for galaxies with and without a flag; DS9 knows names of colours.
_COLOURS = {False: "cyan", True: "orange"}


@dataclass(frozen=True)
class SpecvizData:
    """Spectra, line list and redshift of one galaxy for jdaviz.

    Attributes
    ----------
    spectra : dict of str to `~specutils.Spectrum`
        Spectra by the label of their data set: best draw, median, and 16th and 84th percentile.
    lines : `~astropy.table.QTable`
        Columns ``linename`` and ``rest`` (vacuum), as ``load_line_list`` expects them.
    redshift : float
        Redshift of the best draw, at which the lines are shown.
    """

    spectra: dict[str, Spectrum]
    lines: QTable
    redshift: float

    def load(self, app: Any) -> None:
        """Load everything into an application.

        Parameters
        ----------
        app : `jdaviz.App` or `jdaviz.Specviz`
            Application, version 4.3 or newer (``App.load``), or an older Specviz
            (``load_data``).
        """
        for label, spectrum in self.spectra.items():
            if hasattr(app, "load"):
                app.load(spectrum, format="1D Spectrum", data_label=label)
            else:
                app.load_data(spectrum, data_label=label)
        app.load_line_list(self.lines)
        app.set_redshift(self.redshift)


def specviz_data(spectra: SpectrumArrays, galaxy: int | str = 0) -> SpecvizData:
    """Collect what jdaviz shows of one galaxy; see `astrogenspec.SpectrumDraws.to_specviz`.

    Parameters
    ----------
    spectra : SpectrumDraws
        Spectra of any number of galaxies.
    galaxy : int or str
        Number or name of the galaxy.

    Returns
    -------
    SpecvizData

    Raises
    ------
    ValueError
        If the galaxy has no draws.
    """
    chosen = spectra.galaxy(galaxy) if isinstance(galaxy, str) else spectra[galaxy]
    if len(chosen) != 1 or not chosen.usable[0]:
        raise ValueError(f"galaxy {galaxy!r} is not one galaxy with draws; choose another one.")
    best = best_spectra(chosen)
    shown = {"best draw": best}
    if np.count_nonzero(np.isfinite(chosen.redshift)) > 1:
        shown["median"] = mean_spectra(chosen, median=True)
        shown |= {f"percentile {q}": percentile_spectra(chosen, q) for q in (16, 84)}
    name = chosen.names[0]
    labelled = {f"{name}: {label}": spectrum for label, spectrum in shown.items()}
    return SpecvizData(labelled, line_list(), float(best.redshift.value))


def line_list() -> QTable:
    """Return the emission lines of the model as a line list of jdaviz.

    Returns
    -------
    `~astropy.table.QTable`
        Columns ``linename`` and ``rest`` (vacuum wavelength); meta data ``name`` and ``medium``.
    """
    table = QTable()
    table["linename"] = [_line_name(name) for name in LINES]
    table["rest"] = list(LINES.values()) * u.AA
    table.meta.update(name="astrogenspec lines", medium="Vacuum")
    return table


def _line_name(name: str) -> str:
    """Return the usual name of a line, such as [O III] 5008 for OIII5008."""
    if name.startswith("H") and name[1:] in _GREEK:
        return f"H{_GREEK[name[1:]]}"
    element, stage, wavelength = re.fullmatch(r"([A-Z][a-z]?)([IVX]+)(\d+)", name).groups()  # type: ignore[union-attr]  # all other names are like this
    label = f"{element} {stage}"
    return f"{label if element == 'He' else f'[{label}]'} {wavelength}"


def write_votable(
    path: str | os.PathLike[str],
    galaxies: GalaxyDraws,
    table: QTable,
    position: SkyCoord | Mapping[str, Any] | Table,
    *,
    overwrite: bool = False,
) -> None:
    """Write a summary with positions as a VOTable that Aladin and TOPCAT read.

    Parameters
    ----------
    path : path-like
        File to write.
    galaxies : GalaxyDraws
        Galaxies.
    table : `~astropy.table.QTable`
        Summary of the galaxies, one row each.
    position : SkyCoord, or table with columns ra and dec
        Positions of the galaxies.
    overwrite : bool
        Whether an existing file may be replaced.

    Raises
    ------
    TypeError, ValueError
        If the positions are not those of the galaxies.
    OSError
        If the file cannot be written; no partial file is left.
    """
    ra, dec = _positions(galaxies, position)
    plain = Table(meta={"description": "Posterior of galaxy properties (astrogenspec)"})
    for name in table.colnames:
        plain[name] = plain_column(table[name])
    for number, (name, values, what) in enumerate(
        (("ra", ra, "meta.main"), ("dec", dec, "meta.main")), start=1
    ):
        plain.add_column(values, name=name, index=number)
        plain[name].unit = u.deg
        plain[name].meta["ucd"] = f"pos.eq.{name};{what}"
    target = Path(path).expanduser()
    with atomic_write(target, overwrite=overwrite) as temporary:
        plain.write(temporary, format="votable")


def write_regions(
    path: str | os.PathLike[str],
    galaxies: GalaxyDraws,
    position: SkyCoord | Mapping[str, Any] | Table,
    *,
    radius: u.Quantity = 5 * u.arcsec,
    overwrite: bool = False,
) -> None:
    """Write a circle for each galaxy as regions of DS9; flagged galaxies have another colour.

    Parameters
    ----------
    path : path-like
        File to write.
    galaxies : GalaxyDraws
        Galaxies.
    position : SkyCoord, or table with columns ra and dec
        Positions of the galaxies.
    radius : Quantity ['angle']
        Radius of the circles.
    overwrite : bool
        Whether an existing file may be replaced.

    Raises
    ------
    TypeError, ValueError
        If the positions are not those of the galaxies.
    OSError
        If the file cannot be written; no partial file is left.
    """
    ra, dec = _positions(galaxies, position)
    size = radius.to_value(u.arcsec)
    lines = ["# Region file format: DS9 version 4.1", "icrs"]
    for k, name in enumerate(galaxies.names):
        colour = _COLOURS[bool(galaxies.flag_codes[k])]
        # Braces delimit the text, and each region has one line.
        label = "".join("?" if c in "{}" or not c.isprintable() else c for c in name)
        dash = " dash=1" if galaxies.flag_codes[k] else ""
        where = f'circle({ra[k]:.7f},{dec[k]:.7f},{size:g}")'
        lines.append(f"{where} # color={colour}{dash} text={{{label}}}")
    target = Path(path).expanduser()
    with atomic_write(target, overwrite=overwrite) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _positions(
    galaxies: GalaxyDraws, position: SkyCoord | Mapping[str, Any] | Table
) -> tuple[np.ndarray, np.ndarray]:
    """Return right ascension and declination in degrees (ICRS)."""
    if isinstance(position, SkyCoord):
        sky = position.icrs
        ra, dec = np.atleast_1d(sky.ra.deg), np.atleast_1d(sky.dec.deg)
    elif isinstance(position, Mapping | Table):
        missing = [name for name in ("ra", "dec") if name not in position.keys()]  # noqa: SIM118
        if missing:
            raise ValueError(
                f"position has no column {missing[0]!r}; give ra and dec, or a SkyCoord."
            )
        ra, dec = (np.atleast_1d(_degrees(position[name])) for name in ("ra", "dec"))
    else:
        raise TypeError(
            f"position is of type {type(position).__name__}; a SkyCoord, or a table with the "
            "columns ra and dec, is expected."
        )
    if ra.shape != (len(galaxies),) or dec.shape != (len(galaxies),):
        raise ValueError(
            f"position has {len(ra)} positions, but there are {len(galaxies)} galaxies; give one "
            "position per galaxy."
        )
    return ra, dec


def _degrees(values: Any) -> np.ndarray:
    unit = getattr(values, "unit", None)
    return np.asarray(u.Quantity(values, unit or u.deg).to_value(u.deg), float)


def plain_column(column: Any) -> Any:
    """Return a column with a unit of the VO standard, or with its unit in the description.

    Parameters
    ----------
    column : array_like or Quantity, shape (n,)
        Column of a table.

    Returns
    -------
    Column or array
    """
    unit = getattr(column, "unit", None)
    if unit is None:
        return column
    values = column.value
    mask = getattr(values, "mask", None)
    if mask is not None:
        values = np.ma.MaskedArray(values.unmasked, mask)
    made = Table({"x": values})["x"]
    made.description = column.info.description or ""
    physical = getattr(unit, "physical_unit", None)
    if physical is not None and str(physical):
        made.description += f" [log10 of {physical}]"
    elif physical is not None or not _is_standard(unit):
        made.description += f" [{unit}]"
    else:
        made.unit = unit
    return made


def _is_standard(unit: u.UnitBase) -> bool:
    """Return whether the VO standard has a unit, and does not advise against it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", u.UnitsWarning)
        try:
            unit.to_string("vounit")
        except (ValueError, u.UnitsWarning):
            return False
    return True
