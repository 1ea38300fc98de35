"""Colours and small helpers that all figures share."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

import astropy.units as u
import numpy as np

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
#: Colour of truths and of what should be seen first.
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
    """Import a package that only figures need.

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
        If it is not installed; the message says how to install it.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(
            f"figures need the package {name.split('.')[0]}, which is not installed; install it with "
            f"'pip install \"astrogenspec[plot]\"'."
        ) from error


def new_axes(ax: Axes | None, size: tuple[float, float] = (4.6, 4.4)) -> Axes:
    """Give the axes passed, or new ones.

    Parameters
    ----------
    ax : Axes or None
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
    zorder : float
    """
    if first_call(ax, "diagonal"):
        ax.axline((0, 0), slope=1, color="#222222", lw=0.9, ls="--", zorder=zorder)


def curve(ax: Axes, x: np.ndarray, y: np.ndarray, *, color: str | None, label: str | None) -> str:
    """Draw a curve in the next colour of the palette, if none is given.

    Parameters
    ----------
    ax : `~matplotlib.axes.Axes`
    x, y : ndarray
    color, label : str or None

    Returns
    -------
    str
        The colour.
    """
    number = sum(line.get_gid() == _CURVE for line in ax.lines)
    color = PALETTE[number % len(PALETTE)] if color is None else color
    ax.plot(x, y, color=color, lw=1.8, label=label, zorder=3, gid=_CURVE)
    return color


def first_call(ax: Axes, what: str) -> bool:
    """Say whether axes still lack a thing they should have once, and note that they get it now.

    Parameters
    ----------
    ax : `~matplotlib.axes.Axes`
    what : str
        Name of the thing.

    Returns
    -------
    bool
    """
    tag = f"astrogenspec {what}"
    if any(artist.get_gid() == tag for artist in ax.lines):
        return False
    ax.plot([], [], gid=tag, color="none")
    return True


def boxed_text(ax: Axes, lines: list[str], *, corner: str = "upper left") -> None:
    """Write lines of text in a corner of the axes.

    Parameters
    ----------
    ax : `~matplotlib.axes.Axes`
    lines : list of str
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
    """Turn the label of a flux into that of its base-10 logarithm.

    Parameters
    ----------
    label : str
        LaTeX between dollar signs.

    Returns
    -------
    str
    """
    return rf"$\log_{{10}}\,[\,{label.strip('$')}\,]$"


def with_unit(label: str, unit: u.UnitBase | None) -> str:
    """Add a unit to a label that does not name one.

    Parameters
    ----------
    label : str
    unit : unit or None

    Returns
    -------
    str
    """
    if not label or unit is None or not str(unit) or "$" in label:
        return label
    return f"{label} [{u.Unit(unit):latex_inline}]"
