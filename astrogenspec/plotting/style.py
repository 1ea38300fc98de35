"""Colours and functions shared by all figures."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

import astropy.units as u
import numpy as np

from ..extras import optional_package

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "ACCENT",
    "BAND",
    "MAIN",
    "NEUTRAL",
    "PALETTE",
    "boxed_text",
    "curve",
    "diagonal",
    "first_call",
    "log_label",
    "new_axes",
    "package",
    "with_unit",
]

#: Colour of data and draws.
MAIN = "#2f5d8a"
#: Colour of true values and of highlighted data.
ACCENT = "#c2452d"
#: Colour of guide lines.
NEUTRAL = "#7a7a7a"
#: Colour of bands of expected scatter.
BAND = "#d9dde2"
#: Colours of several curves in one figure.
PALETTE = (
    MAIN,
    ACCENT,
    "#3f8f6b",
    "#b8860b",
    "#6b4c9a",
    "#2aa1b8",
    "#8c564b",
    "#d17ba6",
    "#444444",
)
_CURVE = "astrogenspec curve"


def package(name: str) -> ModuleType:
    """Import a package that is needed for figures only.

    Parameters
    ----------
    name : str
        Dotted name of the module.

    Returns
    -------
    module

    Raises
    ------
    ImportError
        If it is not installed; the message gives the command that installs it.
    """
    return optional_package(name, "plot", "figures")


def new_axes(ax: Axes | None, size: tuple[float, float] = (4.6, 4.4)) -> Axes:
    """Return the axes passed, or new axes.

    Parameters
    ----------
    ax : Axes or None
        Axes to return; None for new ones.
    size : tuple of float
        Width and height of a new figure in inches.

    Returns
    -------
    `~matplotlib.axes.Axes`
    """
    if ax is not None:
        return ax
    return package("matplotlib.pyplot").subplots(figsize=size, layout="constrained")[1]


def diagonal(ax: Axes, zorder: float = 1.0) -> None:
    """Draw the line of equality.

    Parameters
    ----------
    ax : `~matplotlib.axes.Axes`
        Axes to draw on.
    zorder : float
        Drawing order.
    """
    if first_call(ax, "diagonal"):
        ax.axline((0, 0), slope=1, color="#222222", lw=0.9, ls="--", zorder=zorder)


def curve(ax: Axes, x: np.ndarray, y: np.ndarray, *, color: str | None, label: str | None) -> str:
    """Draw a curve, by default in the next colour of the palette.

    Parameters
    ----------
    ax : `~matplotlib.axes.Axes`
        Axes to draw on.
    x, y : ndarray
        Coordinates of the points.
    color, label : str or None
        Colour, and label in the legend.

    Returns
    -------
    str
        Colour of the curve.
    """
    number = sum(line.get_gid() == _CURVE for line in ax.lines)
    color = PALETTE[number % len(PALETTE)] if color is None else color
    ax.plot(x, y, color=color, lw=1.8, label=label, zorder=3, gid=_CURVE)
    return color


def first_call(ax: Axes, element: str) -> bool:
    """Return True at the first call for an element that is drawn only once, such as a guide line.

    Parameters
    ----------
    ax : `~matplotlib.axes.Axes`
        Axes to draw on.
    element : str
        Name of the element.

    Returns
    -------
    bool
    """
    tag = f"astrogenspec {element}"
    if any(artist.get_gid() == tag for artist in ax.lines):
        return False
    ax.plot([], [], gid=tag, color="none")
    return True


def boxed_text(ax: Axes, lines: list[str], *, corner: str = "upper left") -> None:
    """Write lines of text in a corner of the axes.

    Parameters
    ----------
    ax : `~matplotlib.axes.Axes`
        Axes to write on.
    lines : list of str
        Lines of the text.
    corner : str
        "upper left" or "lower right".
    """
    x, y, ha, va = (
        (0.04, 0.96, "left", "top") if corner == "upper left" else (0.96, 0.04, "right", "bottom")
    )
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 2}
    ax.text(
        x,
        y,
        "\n".join(lines),
        transform=ax.transAxes,
        ha=ha,
        va=va,
        fontsize=9,
        bbox=box,
        zorder=10,
    )


def log_label(label: str) -> str:
    """Return the label of the base-10 logarithm of a quantity.

    Parameters
    ----------
    label : str
        Label of the quantity, LaTeX between dollar signs.

    Returns
    -------
    str
    """
    return rf"$\log_{{10}}\,[\,{label.strip('$')}\,]$"


def with_unit(label: str, unit: u.UnitBase | None) -> str:
    """Add the unit to a label, unless the label is LaTeX, which includes its unit.

    Parameters
    ----------
    label : str
        Label of the quantity.
    unit : unit or None
        Unit of the quantity.

    Returns
    -------
    str
    """
    if not label or unit is None or not str(unit) or "$" in label:
        return label
    return f"{label} [{u.Unit(unit):latex_inline}]"
