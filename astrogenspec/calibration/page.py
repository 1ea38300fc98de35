"""The calibration report as one self-contained HTML page: words, figures and tables."""

from __future__ import annotations

import base64
import html
import io
from typing import TYPE_CHECKING

import numpy as np
from astropy.table import QTable

from .ranks import pit, values_in_dex

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .report import CalibrationReport

__all__ = ["html_page"]

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2 { font-weight: 600; line-height: 1.2; } h2 { margin-top: 2.2rem; }
table { border-collapse: collapse; font-size: 14px; margin: .8rem 0; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
img { max-width: 100%; } code, pre { background: #f4f5f7; padding: .1rem .3rem; } pre { padding: .7rem; }
.trust { color: #1d6b3c; } .care { color: #8a5a00; } .not { color: #a3271b; } .unknown { color: #666; }
.wide { overflow-x: auto; } .wide td { white-space: nowrap; }
"""
_CLASSES = {
    "trust": "trust",
    "trust with care": "care",
    "do not trust": "not",
    "cannot tell": "unknown",
}
_READING = """
<p>For a calibrated posterior the truth is equally likely to fall anywhere among the draws: the histogram of its rank (PIT) is
flat, inside of the grey band. A hump in the middle means error bars that are too large, a valley too small, a slope a bias.
The 68% intervals should hold 68% of the truths. <i>Skill</i> compares the continuous ranked probability score with that of a
guess from the sample's own distribution: 0 is no better than it, 1 perfect. <i>Shift</i> is the median error in units of the
error bars; error bars times the <i>width factor</i> would be right. A deviation is called one if it exceeds both what chance
allows (2.5 standard errors) and what matters (4 points of coverage, 0.15 error bars).</p>
"""
_ADVICE = """
<p>Each galaxy was corrected by what the others say, so these figures are honest. To keep the correction:</p>
<pre>better = estimator.recalibrated(cutouts, photometry, truth=truth)
better.save("mine.safetensors")</pre>
"""


def html_page(report: CalibrationReport) -> str:
    """Lay out a report.

    Parameters
    ----------
    report : CalibrationReport

    Returns
    -------
    str

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    meta = report.posterior.meta
    model = f" by {html.escape(str(meta['model']))}" if meta.get("model") else ""
    flagged = sum(map(bool, report.posterior.flags))
    parts = [
        "<!DOCTYPE html><html lang='en'><head><meta charset='utf-8'><title>Calibration report</title>",
        f"<style>{_STYLE}</style></head><body><h1>How far can these posteriors be trusted?</h1>",
        f"<p>{len(report.posterior)} galaxies, {report.posterior.n_draws} draws each, inferred{model}"
        f"{', recalibrated' if meta.get('calibrated') else ''}; {flagged} flagged. "
        "Compared with true values of " + ", ".join(map(_code, report.verdicts)) + ".</p>",
        _verdict_table(report),
        "<h2>Where</h2><p>By r magnitude and g - r (without Galactic extinction), by predicted redshift, and by what went in "
        "(image, photometry or both, and which bands), if that differs.</p>",
        _image(_bin_figure(report), "coverage of the 68% interval by bin"),
        f"<div class='wide'>{_bin_table(report)}</div>",
        "<h2>Error bars</h2>",
        _image(_rank_figure(report), "histograms of the probability integral transform"),
        _image(_coverage_figure(report), "coverage of central intervals"),
        "<h2>Values</h2>",
        _image(_value_figure(report), "predicted against true values"),
        "<h2>Recalibration on this sample</h2>",
        _recalibration(report.recalibrated),
        f"<h2>How to read this</h2>{_READING}</body></html>",
    ]
    return "\n".join(parts)


def _verdict_table(report: CalibrationReport) -> str:
    rows = [
        f"<tr><td>{_code(name)}</td><td>{_word(verdict.trust)}</td><td>{html.escape(verdict.reason)}</td></tr>"
        for name, verdict in report.verdicts.items()
    ]
    head = "<tr><th>quantity</th><th>verdict</th><th>why</th></tr>"
    return f"<table>{head}{''.join(rows)}</table>"


def _bin_table(report: CalibrationReport) -> str:
    columns = {
        "quantity": "quantity",
        "by": "by",
        "bin": "bin",
        "n": "galaxies",
        "trust": "verdict",
        "coverage_68": "68% holds",
        "coverage_95": "95% holds",
        "pit_ks": "PIT KS",
        "shift": "shift",
        "width_factor": "width factor",
        "bias": "bias",
        "scatter": "scatter",
        "crps": "CRPS",
        "skill": "skill",
        "unit": "unit",
    }
    return _table(report.scores[list(columns)], list(columns.values()))


def _recalibration(table: QTable | None) -> str:
    if table is None:
        return (
            "<p>Not tried: it needs at least 150 galaxies with a true value and the draws without recalibration "
            "(<code>calibrated=False</code>).</p>"
        )
    heads = [name.replace("_", " ") for name in table.colnames]
    return f"<div class='wide'>{_table(table, heads)}</div>{_ADVICE}"


def _table(table: QTable, heads: list[str]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in heads)
    rows = []
    for row in table:
        cells = []
        for name in table.colnames:
            value = row[name]
            if name == "trust":
                cells.append(f"<td>{_word(str(value))}</td>")
            elif isinstance(value, float | np.floating):
                text = "" if np.isnan(value) else f"{value:.3g}"
                cells.append(f"<td class='number'>{text}</td>")
            else:
                cells.append(f"<td>{html.escape(str(value))}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"


def _code(name: str) -> str:
    return f"<code>{html.escape(name)}</code>"


def _word(trust: str) -> str:
    return f"<b class='{_CLASSES.get(trust, 'unknown')}'>{html.escape(trust)}</b>"


def _ranks(report: CalibrationReport) -> dict[str, np.ndarray]:
    ranks = {}
    for name, true in report.truth.items():
        values, plain, _ = values_in_dex(report.posterior[name], true)
        found = pit(values, plain, seed=0)
        if np.isfinite(found).any():
            ranks[name] = found
    return ranks


def _rank_figure(report: CalibrationReport) -> Figure:
    from ..plotting import pit_histogram

    ranks = _ranks(report)
    figure, axes = _panels(len(ranks), (3.4, 2.6))
    for ax, (name, values) in zip(axes, ranks.items(), strict=True):
        n_bins = int(np.clip(np.isfinite(values).sum() // 20, 5, 20))
        pit_histogram(values, ax=ax, n_bins=n_bins).set_title(name)
    return figure


def _coverage_figure(report: CalibrationReport) -> Figure:
    from ..plotting import coverage_curve

    figure, axes = _panels(1, (5.4, 5.0))
    for name, values in _ranks(report).items():
        coverage_curve(values, ax=axes[0], label=name)
    return figure


def _value_figure(report: CalibrationReport) -> Figure:
    from ..plotting import prediction_vs_truth

    names = list(_ranks(report))
    figure, axes = _panels(len(names), (4.2, 4.0))
    for ax, name in zip(axes, names, strict=True):
        prediction_vs_truth(report.posterior[name], report.truth[name], ax=ax)
    return figure


def _bin_figure(report: CalibrationReport) -> Figure:
    """Plot the coverage of the 68% interval in each bin, with its binomial standard error."""
    from ..plotting.style import NEUTRAL, PALETTE

    scores = report.scores
    kinds = [by for by in dict.fromkeys(scores["by"].tolist()) if by != "all"] or ["all"]
    figure, axes = _panels(len(kinds), (5.2, 3.8))
    for ax, kind in zip(axes, kinds, strict=True):
        ticks: list[str] = []
        for number, name in enumerate(report.verdicts):
            rows = scores[(scores["by"] == kind) & (scores["quantity"] == name)]
            if not len(rows):
                continue
            place = len(ticks) + np.arange(len(rows))
            ticks += rows["bin"].tolist()
            held, n = (np.asarray(rows[key], float) for key in ("coverage_68", "n"))
            error = np.sqrt(np.maximum(held * (1 - held), 0.01) / np.maximum(n, 1))
            color = PALETTE[number % len(PALETTE)]
            ax.errorbar(place, held, error, fmt="o", ms=4, color=color, label=name)
        ax.axhline(0.68, color=NEUTRAL, ls="--", lw=1)
        ax.set_xticks(range(len(ticks)), ticks, rotation=60, ha="right", fontsize=7)
        ax.set(ylim=(0, 1), ylabel="truths inside of the 68% interval", xlabel=kind)
    axes[-1].legend(frameon=False, fontsize=8)
    return figure


def _panels(n: int, size: tuple[float, float]) -> tuple[Figure, list]:
    """Make axes in rows of three, on a figure that no window shows."""
    from ..plotting.style import package

    figure_module = package("matplotlib.figure")
    package("matplotlib.backends.backend_agg")
    n_columns = min(n, 3)
    n_rows = -(-n // n_columns)
    figure = figure_module.Figure((size[0] * n_columns, size[1] * n_rows), layout="constrained")
    axes = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for ax in axes[n:]:
        ax.remove()
    return figure, list(axes[:n])


def _image(figure: Figure, words: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f"<p><img alt='{html.escape(words)}' src='data:image/png;base64,{data}'></p>"
