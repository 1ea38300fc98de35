"""Figures of generated spectra."""

from __future__ import annotations

import textwrap
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np
from astropy.visualization import quantity_support

from ..quantities import FLUX_UNIT
from ..results.statistics import weighted_percentiles
from .style import ACCENT, MAIN, NEUTRAL, first_call, new_axes, package

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..results.spectrum_arrays import SpectrumArrays

__all__ = ["LINE_LABELS", "spectrum"]

#: Vacuum wavelengths (Angstrom) of the labelled features; means of doublets.
LINE_LABELS = {
    r"[O$\,$II]": 3728.5,
    r"Ca$\,$H+K": 3952.2,
    r"H$\delta$": 4102.9,
    r"H$\gamma$": 4341.7,
    r"H$\beta$": 4862.7,
    r"[O$\,$III]": 5008.2,
    r"Mg$\,b$": 5176.6,
    r"Na$\,$D": 5894.6,
    r"[O$\,$I]": 6302.1,
    r"H$\alpha$+[N$\,$II]": 6564.6,
    r"[S$\,$II]": 6725.5,
    r"[Ar$\,$III]": 7137.8,
    r"Ca$\,$II": 8544.4,
    r"[S$\,$III]": 9071.1,
}
_MEDIAN = np.array([50.0])
_LEVELS = ((2.5, 97.5, 0.20, "95% of the draws"), (16.0, 84.0, 0.42, "68% of the draws"))
#: Space for the names of lines above the axes, in points.
_NAMES_HEIGHT = 48


def spectrum(
    spectra: SpectrumArrays,
    galaxy: int | str = 0,
    *,
    ax: Axes | None = None,
    truth: Any = None,
    best: bool = True,
    lines: bool = True,
    color: str = MAIN,
) -> Axes:
    """Plot the spectra of one galaxy: median, 68% and 95% ranges of the draws, and best draw.

    Pixels that the model does not cover are shaded. The flux axis ends at 2.5 times the continuum,
    so that bright emission lines do not compress it.

    Parameters
    ----------
    spectra : `~astrogenspec.SpectrumDraws`
        Spectra of any number of galaxies.
    galaxy : int or str
        Index or name of the galaxy.
    ax : `~matplotlib.axes.Axes`, optional
        Axes to draw on.
    truth : `specutils.Spectrum` of one dimension, optional
        Observed or true spectrum to compare with, in any units of spectral flux density.
    best : bool
        Whether to draw the best draw.
    lines : bool
        Whether to mark and name spectral lines, at the redshift of the best draw, or at the median
        redshift if the best draw is not shown. The title gives both redshifts.
    color : str
        Colour of the median and the ranges.

    Returns
    -------
    `~matplotlib.axes.Axes`

    Raises
    ------
    ValueError
        If the galaxy has no draws.
    ImportError
        If matplotlib is not installed.
    """
    chosen = spectra.galaxy(galaxy) if isinstance(galaxy, str) else spectra[galaxy]
    if len(chosen) != 1 or not chosen.usable[0]:
        name = chosen.names[0] if len(chosen) == 1 else galaxy
        why = f" (flag: {chosen.flags[0]})" if len(chosen) == 1 and chosen.flags[0] else ""
        raise ValueError(f"galaxy {name!r} has no draws to show{why}; choose another galaxy.")
    ax = new_axes(ax, size=(9.5, 4.2))
    with _unit_support():
        low, middle, high = _draw(ax, chosen, color, best)
        if truth is not None:
            flux = truth.flux.to(FLUX_UNIT, u.spectral_density(truth.wavelength))
            x, y = _coordinates(ax, truth.wavelength, flux)
            ax.plot(x, y, color="#222222", lw=0.6, alpha=0.8, label="truth", zorder=5)
    scale_x, scale_y = _scales(ax)
    _shade_untrusted(ax, chosen, scale_x)
    present = np.flatnonzero(np.isfinite(middle))
    first, last = chosen.wavelength.value[present[[0, -1]]] * scale_x
    ax.set_xlim(first, last)
    ax.set_ylim(*(scale_y * limit for limit in _limits(low, middle, high, chosen.trusted[0])))
    median = float(
        weighted_percentiles(chosen.redshift[:, :, None], chosen.weights, _MEDIAN)[0, 0, 0]
    )
    at_best = float(chosen.redshift[0, chosen.best_draw[0]])
    drawn = at_best if best or not _several(chosen) else median
    marked = lines and first_call(ax, "lines")
    if marked:
        _name_lines(ax, drawn, scale_x)
    title = chosen.names[0]
    if chosen.meta.get("frame") != "rest":
        title += "    " + _redshift_text(drawn, median, best and _several(chosen), marked)
    _describe(ax, chosen, title, pad=_NAMES_HEIGHT if lines else None)
    return ax


def _several(chosen: SpectrumArrays) -> bool:
    """Return whether a galaxy has more than one draw."""
    return bool(np.count_nonzero(np.isfinite(chosen.redshift)) > 1)


def _redshift_text(drawn: float, median: float, best: bool, marked: bool) -> str:
    """Return a text with the redshifts of a galaxy and that of the marked lines."""
    if not best:
        return f"$z = {median:.4f}$"
    if not marked:
        return f"best draw $z = {drawn:.4f}$, median $z = {median:.4f}$"
    return f"lines at $z = {drawn:.4f}$ (best draw); median $z = {median:.4f}$"


def _draw(
    ax: Axes, chosen: SpectrumArrays, color: str, best: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw percentiles and the best draw; return the 2.5th, 50th and 97.5th percentiles."""
    wanted = np.array([50.0, *(end for level in _LEVELS for end in level[:2])])
    percentiles = weighted_percentiles(chosen.flux.value, chosen.weights, wanted)[:, 0]
    several = _several(chosen)
    for number, (_, _, alpha, label) in enumerate(_LEVELS if several else ()):
        ends = percentiles[1 + 2 * number : 3 + 2 * number] * FLUX_UNIT
        wavelength, ends = _coordinates(ax, chosen.wavelength, ends)
        ax.fill_between(wavelength, *ends, color=color, alpha=alpha, lw=0, label=label)
    if several:
        wavelength, flux = _coordinates(ax, chosen.wavelength, percentiles[0] * FLUX_UNIT)
        ax.plot(wavelength, flux, color=color, lw=0.9, label="median")
    if best or not several:
        wavelength, flux = _coordinates(ax, chosen.wavelength, chosen.flux[0, chosen.best_draw[0]])
        label = "best draw" if several else "the only draw"
        ax.plot(wavelength, flux, color=ACCENT, lw=0.6, label=label, zorder=4)
    return percentiles[1], percentiles[0], percentiles[2]


def _unit_support() -> AbstractContextManager:
    """Enable plots of quantities, unless a converter is registered: axes refuse a second one."""
    present = u.Quantity in package("matplotlib.units").registry
    return nullcontext() if present else quantity_support()


def _coordinates(ax: Axes, wavelength: u.Quantity, flux: u.Quantity) -> tuple[Any, Any]:
    """Return numbers in the units of the axes if these have units, else quantities."""
    x, y = ax.xaxis.get_units(), ax.yaxis.get_units()
    return (
        wavelength if x is None else wavelength.to_value(x),
        flux if y is None else flux.to_value(y),
    )


def _scales(ax: Axes) -> tuple[float, float]:
    """Return the factors from Angstrom and the unit of the draws to the units of the axes."""
    x, y = ax.xaxis.get_units(), ax.yaxis.get_units()
    return (
        1.0 if x is None else u.AA.to(x),
        1.0 if y is None else FLUX_UNIT.to(y),
    )


def _shade_untrusted(ax: Axes, chosen: SpectrumArrays, scale: float) -> None:
    bad = np.concatenate([[False], ~chosen.trusted[0], [False]])
    starts, stops = np.flatnonzero(np.diff(bad.astype(int))).reshape(-1, 2).T
    wavelength = chosen.wavelength.value * scale
    for number, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        ax.axvspan(
            wavelength[start],
            wavelength[stop - 1],
            facecolor="#eeeeee",
            edgecolor="#c8c8c8",
            hatch="///",
            lw=0,
            zorder=0.5,
            label=None if number else "not trusted",
        )


def _limits(
    low: np.ndarray, middle: np.ndarray, high: np.ndarray, trusted: np.ndarray
) -> tuple[float, float]:
    """Return limits of the flux axis that show the continuum, and lines up to 2.5 times as high."""
    if trusted.any() and np.isfinite(middle[trusted]).any():
        low, middle, high = low[trusted], middle[trusted], high[trusted]
    continuum = np.nanpercentile(middle, 95)
    top = min(np.nanmax(np.maximum(high, middle)), 2.5 * abs(continuum))
    top = max(top, np.nanpercentile(high, 95))
    bottom = min(0.0, 1.1 * np.nanpercentile(low, 1))
    if not top > bottom:
        top = bottom + (abs(bottom) or 1.0)
    return bottom, bottom + 1.06 * (top - bottom)


def _name_lines(ax: Axes, redshift: float, scale: float) -> None:
    first, last = ax.get_xlim()
    margin = 0.008 * (last - first)
    for label, rest in LINE_LABELS.items():
        at = rest * (1 + redshift) * scale
        if not first + margin < at < last - margin:
            continue
        ax.axvline(at, color=NEUTRAL, lw=0.5, ls=":", zorder=1)
        # Names stand above the axes, because bright lines would run through them inside.
        ax.text(
            at,
            1.015,
            label,
            transform=ax.get_xaxis_transform(),
            rotation=90,
            ha="center",
            va="bottom",
            fontsize=8,
            color="#444444",
        )


def _describe(ax: Axes, chosen: SpectrumArrays, title: str, pad: float | None) -> None:
    """Label the axes with their units, and add the title and legend."""
    x = ax.xaxis.get_units() or u.AA
    y = ax.yaxis.get_units() or FLUX_UNIT
    frame = "rest-frame" if chosen.meta.get("frame") == "rest" else "observed"
    ax.set_xlabel(f"{frame} vacuum wavelength [{_unit_label(x)}]")
    ax.set_ylabel(rf"$F_\lambda$ [{_unit_label(y)}]")
    ax.set_title(title, loc="left", fontsize=10, pad=pad)
    if chosen.flags[0]:
        # The line break puts the flag above the title, which it could overlap.
        flag = textwrap.shorten(chosen.flags[0], 110, placeholder=" …") + "\n"
        ax.set_title(flag, loc="right", fontsize=9, color=ACCENT, pad=pad)
    handles, labels = ax.get_legend_handles_labels()
    # A legend of one row, if the axes are wide enough, hides least of the spectrum.
    inches = ax.bbox.width / ax.figure.dpi
    columns = len(labels) if inches > 1.4 * len(labels) else 3
    legend = ax.legend(
        handles,
        labels,
        fontsize=8,
        ncols=columns,
        loc="lower right",
        edgecolor="none",
        framealpha=0.8,
    )
    legend.set_zorder(10)


def _unit_label(unit: Any) -> str:
    """Format a unit in LaTeX, without a factor of 1 and with the plain letter for the Angstrom."""
    text = u.Unit(unit).to_string("latex_inline").replace(r"1 \times ", "")
    return text.replace(r"\mathring{A}", "Å")
