"""The calibration report as one self-contained HTML page: words, figures and tables."""

from __future__ import annotations

import base64
import html
import io
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np
from astropy.table import QTable, Table, vstack

from ..calibration.diagnostics import fit_if_enough, pit, values_in_dex
from ..calibration.features import band_sets, check_modes, magnitudes_of
from ..calibration.recalibration import MIN_GALAXIES, cross_fitted
from ..metrics import redshift_metrics
from ..surveys import BANDS
from .scores import TRUST, Verdict, calibration_table, judge

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..results.posterior import Posterior

__all__ = ["CalibrationReport", "calibration_report", "checked_page", "html_page"]

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


_IN_A_BIN = 60
_OF_A_KIND = 30
_MOST_BINS = 5
_EVERYTHING = "all"
_OF_VERDICT = ("trust", "reason", "width_factor", "shift", "skill")


@dataclass(frozen=True, eq=False)
class CalibrationReport:
    """How far a posterior may be trusted on a sample.

    Attributes
    ----------
    scores : `~astropy.table.QTable`
        One row for each quantity and each bin (columns ``by`` and ``bin``): the scores of
        `astrogenspec.calibration.calibration_table`, ``trust``, ``reason``, ``width_factor``, ``shift``, ``skill``, and for
        redshifts ``sigma_nmad`` and ``outlier_fraction``.
    verdicts : dict of str to Verdict
        Of each quantity, over all galaxies.
    recalibrated : `~astropy.table.QTable` or None
        Scores of each quantity before and after a recalibration on this sample, each galaxy corrected by what the others
        say; None if the sample is too small.
    posterior : Posterior
        What was judged.
    truth : dict of str to array
        Against what.
    """

    scores: QTable
    verdicts: dict[str, Verdict]
    recalibrated: QTable | None
    posterior: Posterior
    truth: dict[str, Any]

    def __str__(self) -> str:
        width = max(map(len, self.verdicts))
        return "\n".join(
            f"{name:{width}}  {verdict.trust}: {verdict.reason}"
            for name, verdict in self.verdicts.items()
        )

    def write(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> tuple[Path, Path]:
        """Write the page, and the table of scores beside it.

        Parameters
        ----------
        path : path-like
            Name of the page, ending in ``.html``; the table has the same name with ``.ecsv``.
        overwrite : bool
            Replace files that exist.

        Returns
        -------
        page, table : `~pathlib.Path`

        Raises
        ------
        ValueError
            If the name ends otherwise.
        FileExistsError
            If one of the files exists and ``overwrite`` is False.
        OSError
            If they cannot be written.
        ImportError
            If matplotlib is not installed.
        """
        page = checked_page(path, overwrite)
        table = page.with_suffix(".ecsv")
        text = html_page(self)
        waiting = {target: target.with_name(f".{uuid.uuid4().hex}") for target in (page, table)}
        try:
            waiting[page].write_text(text, encoding="utf-8")
            self.scores.write(waiting[table], format="ascii.ecsv")
            for target, written in waiting.items():
                os.replace(written, target)
        finally:
            for written in waiting.values():
                written.unlink(missing_ok=True)
        return page, table


def calibration_report(
    posterior: Posterior,
    truth: Mapping[str, u.Quantity] | Table,
    *,
    mode: str | Sequence[str] | np.ndarray = "photometry",
    raw: Posterior | None = None,
    seed: int = 0,
) -> CalibrationReport:
    """Judge a posterior by a sample with known truth.

    Parameters
    ----------
    posterior : Posterior
        Of galaxies which the network was not fitted to.
    truth : mapping of str to Quantity of shape (n_galaxies,), or table with such columns
        True values by quantity, drawn or derived; NaN or masked where unknown. Other columns of a table are passed over.
    mode : {"image", "photometry", "both"}, or a sequence of these, one a galaxy
        What the posterior of a galaxy was inferred from: each kind is judged apart, and recalibrated apart.
    raw : Posterior, optional
        The same without the recalibration of the weights (``calibrated=False``), from which another is tried; by default
        ``posterior`` itself, if it is not recalibrated.
    seed : int
        Of the breaking of ties, and of the folds of the recalibration.

    Returns
    -------
    CalibrationReport

    Raises
    ------
    KeyError
        If a mapping names a quantity the posterior lacks.
    ValueError
        If there is no quantity, or a shape does not fit.
    astropy.units.UnitConversionError
        If a unit does not fit.
    """
    known = _known(posterior, truth)
    modes = check_modes(mode, len(posterior))
    parts, verdicts = [], {}
    for name, true in known.items():
        table = _scores(posterior, name, true, modes, seed)
        whole = table[0]
        verdicts[name] = Verdict(
            *(
                whole[key].item()
                for key in ("trust", "reason", "n", "width_factor", "shift", "skill")
            )
        )
        verdicts[name] = replace(
            verdicts[name], reason=verdicts[name].reason + _exceptions(table, verdicts[name].trust)
        )
        parts.append(table)
    scores = vstack(parts, metadata_conflicts="silent")
    if raw is None and not posterior.meta.get("calibrated"):
        raw = posterior
    recalibrated = None if raw is None else _tried(posterior, raw, known, modes, seed)
    return CalibrationReport(scores, verdicts, recalibrated, posterior, known)


def checked_page(path: str | os.PathLike[str], overwrite: bool) -> Path:
    """Check the name of a page and of the table beside it before any work is done.

    Parameters
    ----------
    path : path-like
    overwrite : bool

    Returns
    -------
    `~pathlib.Path`

    Raises
    ------
    ValueError
        If the name does not end in ``.html``.
    FileExistsError
        If one of the files exists and ``overwrite`` is False.
    FileNotFoundError
        If the folder does not exist.
    ImportError
        If matplotlib is not installed.
    """
    from ..plotting.style import package

    package("matplotlib.figure")
    page = Path(path).expanduser()
    if page.suffix != ".html":
        raise ValueError(f"out is {str(page)!r}; give the name of a page, ending in .html.")
    if not page.parent.is_dir():
        raise FileNotFoundError(
            f"there is no folder {str(page.parent)!r} to write to; make it first."
        )
    for target in (page, page.with_suffix(".ecsv")):
        if target.exists() and not overwrite:
            raise FileExistsError(f"{str(target)!r} exists; pass overwrite=True to replace it.")
    return page


def _known(posterior: Posterior, truth: Mapping[str, Any] | Table) -> dict[str, Any]:
    """Choose the quantities with at least one true value."""
    if isinstance(truth, Table):
        names = [name for name in truth.colnames if name in posterior]
    else:
        names = list(truth)
    known = {}
    for name in names:
        values = values_in_dex(posterior[name], truth[name])[1]
        if np.isfinite(values).any():
            known[name] = truth[name]
    if not known:
        raise ValueError(
            "truth names no quantity of the posterior with a true value; give columns named as its quantities, "
            f"{', '.join(posterior.quantities)}."
        )
    return known


def _groupings(
    posterior: Posterior, counted: np.ndarray, modes: np.ndarray
) -> dict[str, np.ndarray]:
    """Label galaxies: all alike, by magnitude, colour, predicted redshift and input; empty labels count nowhere."""
    groupings = {_EVERYTHING: np.where(counted, _EVERYTHING, "")}
    magnitudes = magnitudes_of(posterior)
    green, red = (magnitudes[:, BANDS.index(band)] for band in "gr")
    groupings["r magnitude"] = _binned(np.where(counted, red, np.nan), ".1f")
    groupings["g - r"] = _binned(np.where(counted, green - red, np.nan), ".2f")
    if "redshift" in posterior.draws:
        predicted = np.asarray(posterior["redshift"].median().value, float)
        groupings["predicted redshift"] = _binned(np.where(counted, predicted, np.nan), ".3f")
    groupings["input"] = _kinds(np.where(counted, modes, ""))
    groupings["bands"] = _kinds(np.where(counted, band_sets(magnitudes), ""))
    return {by: labels for by, labels in groupings.items() if (labels != "").any()}


def _kinds(labels: np.ndarray) -> np.ndarray:
    """Keep labels that enough galaxies have, if there are several."""
    names, counts = np.unique(labels[labels != ""], return_counts=True)
    enough = names[counts >= _OF_A_KIND]
    return np.where(np.isin(labels, enough) & (len(enough) > 1), labels, "")


def _binned(values: np.ndarray, spec: str) -> np.ndarray:
    """Cut into bins of about equally many galaxies, with readable limits."""
    known = np.isfinite(values)
    n_bins = min(int(known.sum()) // _IN_A_BIN, _MOST_BINS)
    labels = np.full(len(values), "", dtype="<U20")
    if n_bins < 2:
        return labels
    digits = int(spec[1])
    edges = np.unique(np.quantile(values[known], np.linspace(0, 1, n_bins + 1)[1:-1]).round(digits))
    bins = np.searchsorted(edges, values[known], side="right")
    limits = [f"{edge:{spec}}" for edge in edges]
    names = [f"below {limits[0]}"]
    names += [f"{low} to {high}" for low, high in zip(limits[:-1], limits[1:], strict=True)]
    names.append(f"above {limits[-1]}")
    labels[known] = np.array(names)[bins]
    return labels


def _scores(posterior: Posterior, name: str, truth: Any, modes: np.ndarray, seed: int) -> QTable:
    """Scores and verdicts of one quantity: over all galaxies, then in bins from low to high."""
    values, true, unit = values_in_dex(posterior[name], truth)
    rows, parts = [], []
    for by, labels in _groupings(posterior, np.isfinite(true) & posterior.usable, modes).items():
        table = calibration_table(posterior, {name: truth}, groups=labels, seed=seed)
        table = table[table["group"] != ""]
        table = table[np.argsort([_lower_limit(label) for label in table["group"]], kind="stable")]
        table.rename_column("group", "bin")
        table.add_column(np.full(len(table), by, dtype="<U20"), index=1, name="by")
        parts.append(table)
        for label in table["bin"]:
            chosen = labels == label
            verdict = judge(values[chosen], true[chosen], str(unit or ""), seed=seed)
            row = {key: getattr(verdict, key) for key in _OF_VERDICT}
            row |= {"sigma_nmad": np.nan, "outlier_fraction": np.nan}
            if name == "redshift":
                found = redshift_metrics(posterior[name].median().value[chosen], true[chosen])
                row |= {key: found[key] for key in ("sigma_nmad", "outlier_fraction")}
            rows.append(row)
    table = vstack(parts, metadata_conflicts="silent")
    for key in rows[0]:
        table[key] = [row[key] for row in rows]
    return table


def _lower_limit(label: str) -> float:
    """Sort bins from low to high; words stay in their order."""
    first = label.split()[0]
    if first.isalpha() and first != "above":
        return -np.inf
    return float(label.split()[1] if first == "above" else first)


def _exceptions(table: QTable, trust: str) -> str:
    """Name the bins where it is worse than on the whole."""
    words = []
    for by in dict.fromkeys(table["by"].tolist()):
        part = table[table["by"] == by]
        for worse in (kind for kind in TRUST[1:3] if TRUST.index(kind) > TRUST.index(trust)):
            labels = part["bin"][part["trust"] == worse].tolist()
            if labels:
                words.append(f"{worse} at {by} {', '.join(labels)}")
    return f" But {'; '.join(words)}." if words else ""


def _tried(
    posterior: Posterior, raw: Posterior, known: dict[str, Any], mode: Any, seed: int
) -> QTable | None:
    """Scores before and after a recalibration on this sample."""
    enough = {}
    for name in (name for name in known if name in posterior.draws):
        true = values_in_dex(posterior[name], known[name])[1]
        # Each fold is fitted to four fifths.
        if np.count_nonzero(np.isfinite(true) & posterior.usable) >= 1.5 * MIN_GALAXIES:
            enough[name] = known[name]
    if not enough:
        return None
    # Kinds of input with few galaxies stay as they are; the table shows no change then.
    new = fit_if_enough(cross_fitted, raw, enough, mode=mode, seed=seed)
    if new is None:
        return None
    before = calibration_table(posterior, enough, seed=seed)
    after = calibration_table(new, enough, seed=seed)
    table = QTable({"quantity": before["quantity"], "n": before["n"]})
    for key in ("pit_ks", "coverage_68", "coverage_95", "crps", "bias", "scatter"):
        table[f"{key}_before"], table[f"{key}_after"] = before[key], after[key]
    return table
