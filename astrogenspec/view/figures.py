"""Linked Bokeh figures of all galaxies: brushing one selects the same galaxies in the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..derived import kauffmann_curve, kewley_curve
from ..extras import optional_package
from .labels import plain_label

if TYPE_CHECKING:
    from bokeh.models import ColumnDataSource
    from bokeh.plotting import figure as Figure

__all__ = ["FLAGGED", "SOURCE", "UNFLAGGED", "overview_figures", "view_package"]

#: Colours that people with any colour vision can tell apart, on white and on black; flagged
#: galaxies are also triangles.
UNFLAGGED, FLAGGED = "#2f86c9", "#d9660d"
#: Name of the data source in the document.
SOURCE = "galaxies"
#: Below this number of galaxies, each has its error bars.
_MANY = 60
#: Information (bits) below which a value is mostly that of the prior.
_MOSTLY_PRIOR = 0.5
_HEIGHT = 300


@dataclass(frozen=True)
class _View:
    """Axes of one figure."""

    key: str
    title: str
    x: str
    y: str
    x_label: str
    y_label: str


def view_package(name: str) -> ModuleType:
    """Import a package that is needed for pages only.

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
    return optional_package(name, "view", "pages")


def overview_figures(content: Mapping[str, Any]) -> dict[str, Figure]:
    """Make the figures of all galaxies.

    Parameters
    ----------
    content : mapping
        Result of `astrogenspec.view.content.page_content`.

    Returns
    -------
    dict of str to `~bokeh.plotting.figure`
        Figures by the identifier of their place in the page. They share one data source, without
        the names, which the page adds.
    """
    galaxies = content["galaxies"]
    source = _source(galaxies, content)
    figures = {view.key: _scatter(view, source) for view in _views(galaxies)}
    if "bpt" in figures:
        _add_bpt_curves(figures["bpt"])
    if "truth" in content:
        figures["truth"] = _truth_figure(source, content)
    return figures


def _views(galaxies: Mapping[str, Any]) -> list[_View]:
    """Return the views of which there are data."""
    width = "redshift_width"
    labels = {width: "half of the 68% interval"}
    wanted = [
        _View(
            key, title, x, y, labels.get(x, plain_label(x).axis), labels.get(y, plain_label(y).axis)
        )
        for key, title, x, y in (
            ("redshift", "How well is the redshift known?", "redshift", width),
            ("mass", "Stellar mass", "redshift", "stellar_mass"),
            ("sfr", "Star formation", "stellar_mass", "sfr"),
            ("metallicity", "Mass and metallicity", "stellar_mass", "gas_metallicity"),
            ("bpt", "Emission lines (BPT)", "nii_halpha", "oiii_hbeta"),
        )
    ]
    known = set(galaxies) | ({width} if "redshift" in galaxies else set())
    views = [view for view in wanted if {view.x, view.y} <= known]
    if "colours" in galaxies:
        x, y = galaxies["colours"]
        views.append(_View("colours", "Observed colours", "colour_x", "colour_y", x, y))
    return views


def _source(galaxies: Mapping[str, Any], content: Mapping[str, Any]) -> ColumnDataSource:
    flagged = np.array([len(codes) > 0 for codes in galaxies["codes"]])
    data: dict[str, Any] = {
        "index": np.arange(len(flagged), dtype=np.int32),
        "color": np.where(flagged, FLAGGED, UNFLAGGED),
        "marker": np.where(flagged, "triangle", "circle"),
    }
    for name, values in galaxies.items():
        if name.startswith("colour_") or name in ("nii_halpha", "oiii_hbeta"):
            data[name] = np.array(values, float)
    for described in content["quantities"]:
        name = described["key"]
        for key in (name, f"{name}_low", f"{name}_high"):
            data[key] = np.array(galaxies[key], float)
        bits = np.array(galaxies.get(f"{name}_bits", np.full(len(flagged), np.inf)), float)
        data[f"{name}_alpha"] = np.where(bits < _MOSTLY_PRIOR, 0.0, 0.75)
    if "redshift" in data:
        data["redshift_width"] = (data["redshift_high"] - data["redshift_low"]) / 2
    for name, values in content.get("truth", {}).get("values", {}).items():
        data[f"{name}_true"] = np.array(values, float)
    return view_package("bokeh.models").ColumnDataSource(data=data, name=SOURCE)


def _limits(values: np.ndarray) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    pad = 0.06 * (high - low) or 0.5
    return float(low - pad), float(high + pad)


def _empty_figure(title: str, x_label: str, y_label: str, **ranges: Any) -> Figure:
    plotting = view_package("bokeh.plotting")
    made = plotting.figure(
        height=_HEIGHT,
        sizing_mode="stretch_width",
        min_width=240,
        tools="box_select,lasso_select,tap,pan,wheel_zoom,reset,save",
        active_drag="box_select",
        toolbar_location="above",
        title=title,
        x_axis_label=x_label,
        y_axis_label=y_label,
        **ranges,
    )
    made.toolbar.logo = None
    made.toolbar.autohide = False
    made.title.text_font_size = "14px"
    return made


def _scatter(view: _View, source: ColumnDataSource) -> Figure:
    x, y = (np.asarray(source.data[key], float) for key in (view.x, view.y))
    made = _empty_figure(
        view.title, view.x_label, view.y_label, x_range=_limits(x), y_range=_limits(y)
    )
    _add_error_bars(made, view, source)
    alpha = f"{view.y}_alpha" if f"{view.y}_alpha" in source.data else 0.75
    _add_points(made, view.x, view.y, source, alpha)
    return made


def _add_points(made: Figure, x: str, y: str, source: ColumnDataSource, alpha: str | float) -> None:
    n = len(source.data["index"])
    many = n > _MANY
    points = made.scatter(
        x,
        y,
        source=source,
        size=9 if n <= _MANY else 6 if n <= 500 else 4.5,
        marker="marker",
        color="color",
        fill_alpha=alpha,
        line_alpha=0.9,
        line_width=1.2,
        # Without edges, many points are drawn in half of the time.
        nonselection_fill_alpha=0.12 if many else 0.04,
        nonselection_line_alpha=0.0 if many else 0.12,
        name="points",
    )
    hover = view_package("bokeh.models").HoverTool(
        renderers=[points],
        tooltips=[
            ("", "@name"),
            (made.xaxis.axis_label, f"@{x}{{0.000}}"),
            (made.yaxis.axis_label, f"@{y}{{0.000}}"),
            ("flags", "@flag_words"),
        ],
    )
    made.add_tools(hover)


def _add_error_bars(made: Figure, view: _View, source: ColumnDataSource) -> None:
    """Draw the 68% intervals of each galaxy, or a cross with the median ones if there are many."""
    ends = [key for key in (view.x, view.y) if f"{key}_low" in source.data]
    if len(source.data["index"]) <= _MANY:
        style: dict[str, Any] = {
            "source": source,
            "color": "color",
            "line_alpha": 0.35,
            "nonselection_line_alpha": 0.05,
        }
        if view.x in ends:
            made.segment(f"{view.x}_low", view.y, f"{view.x}_high", view.y, **style)
        if view.y in ends:
            made.segment(view.x, f"{view.y}_low", view.x, f"{view.y}_high", **style)
        return
    axes: tuple[tuple[Any, float], ...] = ((made.x_range, 0.87), (made.y_range, 0.12))
    x, y = (axis.start + at * (axis.end - axis.start) for axis, at in axes)
    for key in ends:
        half = _median_half_width(source, key)
        line = ([x - half, x + half], [y, y]) if key == view.x else ([x, x], [y - half, y + half])
        made.line(*line, line_width=2, color="#888888", name="typical")


def _median_half_width(source: ColumnDataSource, key: str) -> float:
    widths = np.asarray(source.data[f"{key}_high"]) - np.asarray(source.data[f"{key}_low"])
    finite = widths[np.isfinite(widths)]
    return float(np.median(finite) / 2) if finite.size else 0.0


def _add_bpt_curves(made: Figure) -> None:
    """Draw the curves of Kauffmann et al. (2003) and Kewley et al. (2001) left of their poles."""
    for curve, end, dash in ((kauffmann_curve, 0.0, "dashed"), (kewley_curve, 0.42, "solid")):
        x = np.linspace(-2.0, end, 200)
        y = curve(x)
        seen = y > -2.5
        made.line(x[seen], y[seen], color="#888888", line_dash=dash, line_width=1.5, name="curve")


def _truth_figure(source: ColumnDataSource, content: Mapping[str, Any]) -> Figure:
    """Plot medians against true values of the first quantity; the page changes the quantity."""
    name = next(iter(content["truth"]["values"]))
    both = np.concatenate([source.data[name], source.data[f"{name}_true"]])
    label = plain_label(name).axis
    made = _empty_figure(
        "Predicted against true",
        f"true {label}",
        f"predicted {label}",
        x_range=_limits(both),
        y_range=_limits(both),
    )
    ends = [-1e4, 1e4]
    made.line(ends, ends, color="#888888", line_dash="dashed", name="curve")
    if len(source.data["index"]) <= _MANY:
        made.segment(
            f"{name}_true",
            f"{name}_low",
            f"{name}_true",
            f"{name}_high",
            source=source,
            color="color",
            line_alpha=0.35,
            name="truth bars",
        )
    _add_points(made, f"{name}_true", name, source, 0.75)
    return made
