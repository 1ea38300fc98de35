"""Figures of calibration: PIT histogram, coverage and TARP curves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..calibration.diagnostics import coverage_of_pit
from .style import BAND, MAIN, NEUTRAL, boxed_text, curve, diagonal, first_call, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..calibration.diagnostics import TarpResult

__all__ = ["coverage_curve", "pit_histogram", "tarp_curve"]


def pit_histogram(
    values: np.ndarray,
    *,
    ax: Axes | None = None,
    n_bins: int = 20,
    color: str = MAIN,
    label: str | None = None,
) -> Axes:
    """Plot a histogram of the probability integral transform, which is flat if calibrated.

    A maximum in the middle indicates uncertainties that are too large, a minimum ones that are too
    small, and a slope a bias.  The grey band contains 95% of the heights expected for a calibrated
    posterior with the same number of galaxies.

    Parameters
    ----------
    values : ndarray
        Result of `astrogenspec.calibration.pit`; NaN are ignored.
    ax : `~matplotlib.axes.Axes`, optional
        Axes to draw on.
    n_bins : int
        Number of bins.
    color : str
        Colour of the histogram.
    label : str, optional
        Label in the legend.

    Returns
    -------
    `~matplotlib.axes.Axes`

    Raises
    ------
    ValueError
        If there are no finite values.
    """
    from scipy.stats import binom

    values = _finite(values)
    ax = new_axes(ax, (4.8, 3.4))
    expected = len(values) / n_bins
    first = first_call(ax, "uniform")
    if first:
        low, high = binom.ppf([0.025, 0.975], len(values), 1 / n_bins) / expected
        ax.axhspan(low, high, color=BAND, lw=0, zorder=0)
        ax.axhline(1, color=NEUTRAL, lw=1, ls="--", zorder=1)
    heights, edges = np.histogram(values, n_bins, range=(0, 1))
    ax.stairs(heights / expected, edges, color=color, lw=1.6, zorder=3, label=label)
    ax.stairs(heights / expected, edges, color=color, alpha=0.08, fill=True, zorder=2)
    top = max(1.6, 1.15 * heights.max() / expected, 0 if first else ax.get_ylim()[1])
    ax.set(xlim=(0, 1), ylim=(0, top), xlabel="PIT", ylabel="galaxies / expected")
    if label:
        ax.legend(frameon=False, fontsize=9)
    return ax


def coverage_curve(
    values: np.ndarray,
    *,
    ax: Axes | None = None,
    color: str | None = None,
    label: str | None = None,
) -> Axes:
    """Plot the fraction of true values in central intervals against the nominal probability.

    Uncertainties are too small below the diagonal, and too large above it.  The grey band contains,
    at each level, 95% of the curves of a calibrated posterior with the same number of galaxies.
    Further calls with the same axes add curves of other quantities.

    Parameters
    ----------
    values : ndarray
        Result of `astrogenspec.calibration.pit`; NaN are ignored.
    ax : `~matplotlib.axes.Axes`, optional
        Axes to draw on.
    color : str, optional
        Colour of the curve.
    label : str, optional
        Label in the legend.

    Returns
    -------
    `~matplotlib.axes.Axes`

    Raises
    ------
    ValueError
        If there are no finite values.
    """
    from scipy.stats import binom

    values = _finite(values)
    levels = np.linspace(0, 1, 51)
    ax = new_axes(ax)
    diagonal(ax)
    if first_call(ax, "band"):
        low, high = binom.ppf([[0.025], [0.975]], len(values), levels) / len(values)
        ax.fill_between(levels, low, high, color=BAND, lw=0, zorder=0)
    curve(ax, levels, coverage_of_pit(values, levels), color=color, label=label)
    _finish(ax, "probability of the central interval", "fraction of truths inside", label)
    return ax


def tarp_curve(
    result: TarpResult,
    *,
    ax: Axes | None = None,
    color: str | None = None,
    label: str | None = None,
) -> Axes:
    """Plot the expected coverage of the joint posterior, with its 95% bootstrap band.

    Parameters
    ----------
    result : `~astrogenspec.calibration.TarpResult`
        Result of `astrogenspec.calibration.tarp`.
    ax : `~matplotlib.axes.Axes`, optional
        Axes to draw on.
    color : str, optional
        Colour of the curve.
    label : str, optional
        Label in the legend.

    Returns
    -------
    `~matplotlib.axes.Axes`
    """
    ax = new_axes(ax)
    diagonal(ax, zorder=2)
    deviation = f"largest deviation {result.max_deviation:.3f}"
    name = f"{label} ({deviation})" if label else None
    color = curve(ax, result.levels, result.coverage, color=color, label=name)
    ax.fill_between(
        result.levels, result.lower, result.upper, color=color, alpha=0.2, lw=0, zorder=1
    )
    if not label:
        lines = [f"$N$ = {result.n_galaxies}", deviation, f"$p$ = {result.p_value:.2g}"]
        boxed_text(ax, lines, corner="lower right")
    _finish(ax, "credibility level", "expected coverage", label)
    return ax


def _finite(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=float).ravel()
    values = values[np.isfinite(values)]
    if values.size == 0:
        raise ValueError(
            "values contains no finite number; the PIT of at least one galaxy is needed."
        )
    return values


def _finish(ax: Axes, xlabel: str, ylabel: str, label: str | None) -> None:
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel=xlabel, ylabel=ylabel)
    if label:
        ax.legend(frameon=False, fontsize=9, loc="upper left")
