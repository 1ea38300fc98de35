"""Corner plots of joint posteriors, and predictions against true values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..calibration.diagnostics import values_in_dex
from ..metrics import point_metrics, redshift_metrics
from ..quantities import QUANTITIES, plain_values
from ..results.statistics import row_percentiles
from .style import ACCENT, MAIN, boxed_text, diagonal, log_label, new_axes, package, with_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..results.posterior import Posterior
    from ..results.quantity import QuantityPosterior

__all__ = ["corner", "prediction_vs_truth"]


def corner(
    posterior: Posterior,
    *,
    quantities: str | Sequence[str] | None = None,
    truth: Mapping[str, Any] | None = None,
    fig: Figure | None = None,
    color: str = MAIN,
    **kwargs: Any,
) -> Figure:
    """Plot the joint posterior of one galaxy: the marginals of all quantities and pairs.

    Contours contain 68% and 95% of the draws; lines and titles show the median and the central 68%.
    Line fluxes are shown as base-10 logarithms.

    Parameters
    ----------
    posterior : `~astrogenspec.Posterior` of one galaxy
        Posterior to show, such as ``posterior[3]``.
    quantities : str or sequence of str, optional
        Quantities to show, drawn or derived; by default, all that were drawn.
    truth : mapping of str to scalar Quantity, optional
        True values to mark, in any unit that converts; other quantities are ignored.
    fig : `~matplotlib.figure.Figure`, optional
        Figure to draw on, such as an earlier corner plot of the same quantities.
    color : str
        Colour of the draws.
    **kwargs
        Passed to `corner.corner`.

    Returns
    -------
    `~matplotlib.figure.Figure`

    Raises
    ------
    ValueError
        If there is more than one galaxy, or there are too few finite draws.
    ImportError
        If the package ``corner`` is not installed.
    """
    to_rgba = package("matplotlib.colors").to_rgba
    corner_package = package("corner")
    if len(posterior) != 1:
        raise ValueError(
            f"a corner plot shows one galaxy, but the posterior has {len(posterior)}; select one "
            "first, as in posterior[0]."
        )
    if isinstance(quantities, str):
        quantities = [quantities]
    names = list(posterior.quantities if quantities is None else quantities)
    known = {} if truth is None else truth
    columns, marks, labels = [], [], []
    for name in names:
        quantity = posterior[name]
        true = _scalar(name, known[name], quantity) if name in list(known.keys()) else np.nan
        values, mark, label = _shown(quantity, [true])
        columns.append(values[0])
        marks.append(float(mark[0]) if np.isfinite(mark[0]) else None)
        labels.append(label)
    draws = _usable_draws(np.stack(columns, axis=-1).astype(float), posterior)
    low, middle, high = np.percentile(draws, [16, 50, 84], axis=0)
    options: dict[str, Any] = {
        "labels": [_two_lines(label) for label in labels],
        "range": [_range(draws[:, k], mark) for k, mark in enumerate(marks)],
        "truths": marks if any(mark is not None for mark in marks) else None,
        "truth_color": ACCENT,
        "bins": 30,
        "smooth": 1.0,
        "levels": (0.68, 0.95),
        "plot_datapoints": len(draws) < 500,
        "plot_density": False,
        "fill_contours": len(draws) >= 500,
        "contourf_kwargs": {"colors": [(0, 0, 0, 0), to_rgba(color, 0.25), to_rgba(color, 0.6)]},
        "contour_kwargs": {"linewidths": 0.8},
        "label_kwargs": {"fontsize": 12},
        "hist_kwargs": {"lw": 1.4},
    }
    figure = corner_package.corner(draws, fig=fig, color=color, **(options | kwargs))
    axes = np.array(figure.axes[: len(names) ** 2]).reshape(len(names), len(names))
    for k in range(len(names)):
        _mark_interval(axes[k, k], low[k], middle[k], high[k], color)
    _tidy(figure, axes)
    return figure


def prediction_vs_truth(
    posterior: QuantityPosterior,
    truth: Any,
    *,
    ax: Axes | None = None,
    color: str = MAIN,
    max_error_bars: int = 400,
) -> Axes:
    """Plot the posterior median of each galaxy against its true value, with scores.

    Parameters
    ----------
    posterior : `~astrogenspec.QuantityPosterior`
        Posterior of one quantity, such as ``posterior["sfr"]``.
    truth : Quantity or array_like, shape (n_galaxies,)
        True values in any unit that converts; galaxies with NaN or masked values are omitted.
    ax : `~matplotlib.axes.Axes`, optional
        Axes to draw on.
    color : str
        Colour of the points.
    max_error_bars : int
        Maximum number of galaxies shown as points with error bars (central 68%); larger samples are
        shown as a density.

    Returns
    -------
    `~matplotlib.axes.Axes`

    Raises
    ------
    ValueError
        If no galaxy has both a truth and draws, or the shapes differ.
    astropy.units.UnitConversionError
        If the units do not convert.
    """
    values, true, label = _shown(posterior, truth)
    low, middle, high = row_percentiles(values, [16, 50, 84])
    usable = np.isfinite(true) & np.isfinite(middle)
    if not usable.any():
        raise ValueError(f"no galaxy has both a true value and draws of {posterior.name!r}.")
    low, middle, high, true = low[usable], middle[usable], high[usable], true[usable]
    ax = new_axes(ax)
    if len(true) <= max_error_bars:
        bars = [middle - low, high - middle]
        ax.errorbar(true, middle, bars, fmt="none", ecolor=color, alpha=0.35, lw=0.9, zorder=2)
        ax.plot(true, middle, "o", color=color, ms=4, mec="white", mew=0.4, zorder=3)
    limits = _limits(true, middle)
    if len(true) > max_error_bars:
        ax.hexbin(
            true,
            middle,
            gridsize=60,
            extent=(*limits, *limits),
            bins="log",
            mincnt=1,
            lw=0.1,
            cmap=_white_to(color),
            zorder=2,
        )
    diagonal(ax, zorder=4)
    boxed_text(ax, _score_lines(posterior.name, middle, true))
    ticks = package("matplotlib.ticker").MaxNLocator(5).tick_values(*limits)
    ax.set(xticks=ticks, yticks=ticks, xlim=limits, ylim=limits, aspect="equal")
    ax.set(xlabel=f"true {label}", ylabel=f"predicted {label}")
    return ax


def _shown(quantity: QuantityPosterior, truth: Any) -> tuple[np.ndarray, np.ndarray, str]:
    """Return draws and truth, fluxes as logarithms, and the axis label."""
    values, true, _ = values_in_dex(quantity, truth)
    info = QUANTITIES.get(quantity.name)
    label = with_unit(quantity.label, quantity.unit)
    return values, true, log_label(label) if info is not None and info.logarithmic else label


def _scalar(name: str, value: Any, quantity: QuantityPosterior) -> float:
    number = plain_values(value, quantity.unit, name=f"truth[{name!r}]").ravel()
    if number.size != 1:
        raise ValueError(
            f"truth[{name!r}] has {number.size} values, but a corner plot shows one galaxy; give "
            "one value."
        )
    return float(number[0])


def _usable_draws(draws: np.ndarray, posterior: Posterior) -> np.ndarray:
    draws = draws[np.isfinite(draws).all(axis=1)]
    if len(draws) <= draws.shape[1]:
        why = f" (flag: {posterior.flags[0]})" if posterior.flags[0] else ""
        raise ValueError(
            f"galaxy {posterior.names[0]!r} has {len(draws)} finite draws{why}; a corner plot of "
            f"{draws.shape[1]} quantities needs more draws than quantities."
        )
    return draws


def _range(values: np.ndarray, mark: float | None) -> tuple[float, float]:
    """Return a range that contains 99.4% of the draws and the truth."""
    low, high = np.percentile(values, [0.3, 99.7])
    if mark is not None:
        low, high = min(low, mark), max(high, mark)
    pad = 0.08 * (high - low) or 0.05 * abs(high) or 0.05
    return low - pad, high + pad


def _mark_interval(ax: Axes, low: float, middle: float, high: float, color: str) -> None:
    for value, style in ((low, ":"), (middle, "--"), (high, ":")):
        ax.axvline(value, color=color, lw=1, ls=style)
    half = (high - low) / 2
    digits = int(np.clip(1 - np.floor(np.log10(half)), 0, 6)) if half > 0 else 2
    ax.set_title(
        f"${middle:.{digits}f}^{{+{high - middle:.{digits}f}}}_{{-{middle - low:.{digits}f}}}$",
        fontsize=12,
    )


def _tidy(figure: Figure, axes: np.ndarray) -> None:
    """Prevent overlaps of ticks, and keep labels inside the figure."""
    for (row, column), ax in np.ndenumerate(axes):
        if row < column:
            continue
        ax.tick_params(labelsize=10, pad=2)
        ax.set_xticks(_inner_ticks(*ax.get_xlim()))
        ax.xaxis.set_label_coords(0.5, -0.3)
        if row > column:
            ax.set_yticks(_inner_ticks(*ax.get_ylim()))
            ax.yaxis.set_label_coords(-0.3, 0.5)
    width, height = figure.get_size_inches()
    figure.subplots_adjust(left=1.1 / width, bottom=1.1 / height, right=0.985, top=1 - 0.4 / height)


def _inner_ticks(low: float, high: float) -> np.ndarray:
    """Return ticks without those near the ends, which would overlap those of the next panel."""
    ticks = package("matplotlib.ticker").MaxNLocator(5).tick_values(low, high)
    edge = 0.07 * (high - low)
    return ticks[(ticks > low + edge) & (ticks < high - edge)]


def _two_lines(label: str) -> str:
    """Put the unit of a long label on a second line."""
    head, slash, tail = label.partition(r"\,/\,")
    if not slash:
        return label
    return f"{head.replace('[', '').rstrip()}$\n$[{tail.replace(']', '').strip('$')}]$"


def _limits(true: np.ndarray, middle: np.ndarray) -> tuple[float, float]:
    both = np.concatenate([true, middle])
    low, high = np.percentile(both, [0.1, 99.9]) if len(true) > 1000 else (both.min(), both.max())
    pad = 0.05 * (high - low) or 0.1
    return low - pad, high + pad


def _white_to(color: str) -> Any:
    colors = package("matplotlib.colors")
    return colors.LinearSegmentedColormap.from_list("density", ["#e6ebf1", color, "#101c2a"])


def _score_lines(name: str, estimate: np.ndarray, truth: np.ndarray) -> list[str]:
    if name == "redshift":
        scores = redshift_metrics(estimate, truth)
        return [
            f"$N$ = {scores['n']}",
            rf"$\sigma_\mathrm{{NMAD}}$ = {scores['sigma_nmad']:.4f}",
            rf"$\langle\Delta z/(1+z)\rangle$ = {scores['bias']:+.4f}",
            rf"outliers > 0.05: {100 * scores['outlier_fraction']:.1f}%",
        ]
    scores = point_metrics(estimate, truth)
    return [
        f"$N$ = {scores['n']}",
        rf"$\sigma_\mathrm{{NMAD}}$ = {scores['scatter']:.3g}",
        f"bias = {scores['bias']:+.3g}",
        f"RMSE = {scores['rmse']:.3g}",
        f"$R^2$ = {scores['r2']:.3f}",
    ]
