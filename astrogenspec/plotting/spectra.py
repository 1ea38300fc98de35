"""Figures of generated spectra."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np
from astropy.visualization import quantity_support

from ..quantities import FLUX_UNIT
from ..results.specutils_views import mean_redshifts
from ..results.statistics import weighted_percentiles
from .style import ACCENT, MAIN, NEUTRAL, first_call, new_axes, package

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..results.spectra import SpectrumDraws

__all__ = ["LINE_LABELS", "spectrum"]

#: Vacuum wavelengths (Angstrom) of the features that are labelled, with means of doublets.
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
_LEVELS = ((2.5, 97.5, 0.20, "95% of the draws"), (16.0, 84.0, 0.42, "68% of the draws"))
#: Room for the names of lines above the axes, in points.
_NAMES = 48


def spectrum(
    spectra: SpectrumDraws,
    galaxy: int | str = 0,
    *,
    ax: Axes | None = None,
    truth: Any = None,
    best: bool = True,
    lines: bool = True,
    color: str = MAIN,
) -> Axes:
    """Draw the spectra of one galaxy: median, ranges of 68% and 95% of the draws, and the best draw.

    Pixels that the model does not vouch for are shaded. The flux axis is cut where bright emission
    lines would press the continuum to the ground.

    Parameters
    ----------
    spectra : `~astrogenspec.SpectrumDraws`
        Draws of any number of galaxies.
    galaxy : int or str
        Number or name of the galaxy.
    ax : `~matplotlib.axes.Axes`, optional
        Axes to draw on.
    truth : `specutils.Spectrum` of one dimension, optional
        An observed or true spectrum to compare with, in units that convert.
    best : bool
        Draw the best draw too.
    lines : bool
        Mark and name spectral lines at the redshift of the galaxy.
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
        raise ValueError(f"there are no draws of galaxy {name!r} to show{why}; choose another one.")
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
    redshift = float(mean_redshifts(chosen)[0])
    if lines and first_call(ax, "lines"):
        _name_lines(ax, redshift, scale_x)
    _describe(ax, chosen, redshift, pad=_NAMES if lines else None)
    return ax


def _draw(
    ax: Axes, chosen: SpectrumDraws, color: str, best: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw what is known of the spectrum; return its 2.5th, 50th and 97.5th percentiles."""
    wanted = np.array([50.0, *(end for level in _LEVELS for end in level[:2])])
    percentiles = weighted_percentiles(chosen.flux.value, chosen.weights, wanted)[:, 0]
    several = np.count_nonzero(np.isfinite(chosen.redshift)) > 1
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
    """Let quantities be plotted; axes take offence at a second converter, so use one that is there."""
    present = u.Quantity in package("matplotlib.units").registry
    return nullcontext() if present else quantity_support()


def _coordinates(ax: Axes, wavelength: u.Quantity, flux: u.Quantity) -> tuple[Any, Any]:
    """Give what to plot: numbers in the units of the axes if these have any, else quantities."""
    x, y = ax.xaxis.get_units(), ax.yaxis.get_units()
    return (
        wavelength if x is None else wavelength.to_value(x),
        flux if y is None else flux.to_value(y),
    )


def _scales(ax: Axes) -> tuple[float, float]:
    """Give the factors that turn Angstrom and the unit of the draws into the units of the axes."""
    x, y = ax.xaxis.get_units(), ax.yaxis.get_units()
    return (
        1.0 if x is None else u.AA.to(x),
        1.0 if y is None else FLUX_UNIT.to(y),
    )


def _shade_untrusted(ax: Axes, chosen: SpectrumDraws, scale: float) -> None:
    bad = np.concatenate([[False], ~chosen.trusted[0], [False]])
    starts, stops = np.flatnonzero(np.diff(bad.astype(int))).reshape(-1, 2).T
    wavelength = chosen.wavelength.value * scale
    label = "not trusted"
    for start, stop in zip(starts, stops, strict=True):
        ax.axvspan(
            wavelength[start],
            wavelength[stop - 1],
            facecolor="#eeeeee",
            edgecolor="#c8c8c8",
            hatch="///",
            lw=0,
            zorder=0.5,
            label=label,
        )
        label = None


def _limits(
    low: np.ndarray, middle: np.ndarray, high: np.ndarray, trusted: np.ndarray
) -> tuple[float, float]:
    """Limits of the flux axis that show the continuum, and lines up to a few times as high."""
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
        # above the axes: inside, bright lines would run through their names
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


def _describe(ax: Axes, chosen: SpectrumDraws, redshift: float, pad: float | None) -> None:
    """Label the axes with the units they have, and say which galaxy this is."""
    x = ax.xaxis.get_units() or u.AA
    y = ax.yaxis.get_units() or FLUX_UNIT
    rest = chosen.meta.get("frame") == "rest"
    frame = "rest-frame" if rest else "observed"
    ax.set_xlabel(f"{frame} vacuum wavelength [{_unit_label(x)}]")
    ax.set_ylabel(rf"$F_\lambda$ [{_unit_label(y)}]")
    title = chosen.names[0] if rest else rf"{chosen.names[0]}    $z = {redshift:.4f}$"
    ax.set_title(title, loc="left", fontsize=10, pad=pad)
    if chosen.flags[0]:
        ax.set_title(chosen.flags[0], loc="right", fontsize=9, color=ACCENT, pad=pad)
    handles, labels = ax.get_legend_handles_labels()
    # one row, which leaves the spectrum free, if the axes are wide enough for it
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
    """Write a unit with an Angstrom whose ring can be seen, and without a factor of 1."""
    text = u.Unit(unit).to_string("latex_inline").replace(r"1 \times ", "")
    return text.replace(r"\mathring{A}", "Å")
