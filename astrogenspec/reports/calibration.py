"""Calibration report as one self-contained HTML page: verdicts, scores in bins, figures.

`calibration_report` scores each quantity over the whole sample and in bins of r magnitude, g - r,
predicted redshift, input mode and set of bands.  The recalibration is tested by cross-fitting: each
galaxy is corrected with what was learnt from the others.
"""

from __future__ import annotations

import base64
import html
import io
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np
from astropy.table import QTable, Table, vstack

from .. import __version__
from ..atomic import move_into_place, temporary_folder, write_errors
from ..calibration.diagnostics import pit, values_in_dex
from ..calibration.features import band_sets, check_modes, magnitudes_of
from ..calibration.recalibration import MIN_GALAXIES, cross_fitted, fit_if_enough
from ..calibration.truth import TrueValues, read_truth
from ..flags import decode_flags
from ..metrics import point_metrics, redshift_metrics
from ..results.statistics import row_percentiles
from ..surveys import BANDS
from .scores import TRUST, Verdict, calibration_table, grouped_scores, judge

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..results.posterior import Posterior

__all__ = ["CalibrationReport", "calibration_report", "checked_page", "html_page"]

#: Number of galaxies per bin of a number, maximum number of bins, and minimum number of galaxies
#: with the same input or bands.
_GALAXIES_PER_BIN = 60
_MAX_BINS = 5
_MIN_GALAXIES_PER_LABEL = 30
_EVERYTHING = "all"
_VERDICT_COLUMNS = ("trust", "reason", "width_factor", "shift", "skill")


@dataclass(frozen=True, eq=False)
class CalibrationReport:
    """Calibration of a posterior on a sample with known true values.

    Attributes
    ----------
    scores : `~astropy.table.QTable`
        One row for each quantity and bin (columns ``by`` and ``bin``): the scores of
        `astrogenspec.calibration.calibration_table`, ``trust``, ``reason``, ``width_factor``,
        ``shift``, ``skill``, and for redshifts ``sigma_nmad`` and ``outlier_fraction``.
    verdicts : dict of str to Verdict
        Verdict on each quantity over all galaxies.
    recalibrated : `~astropy.table.QTable` or None
        Scores of each quantity before and after a cross-fitted recalibration; None if the sample is
        too small.
    posterior : Posterior
        Posterior that was judged.
    truth : dict of str to array
        True values by quantity, in the order of the galaxies; NaN where unknown.
    sample : `~astropy.table.QTable`
        For each quantity the number of ``galaxies``, of those ``used``, and of those that are not:
        ``fill_value`` (such as -9999, or outside the physical limits), ``no_true_value`` (missing,
        or a flux that is not positive) and ``no_draws``.
    ranks : dict of str to ndarray
        Probability integral transform of each galaxy by quantity, from which scores and figures
        are computed.
    date : str
        When the report was made.
    fitted : `~astropy.table.QTable` or None
        Errors of each quantity before and after fine-tuning, for the report of a fit.
    """

    scores: QTable
    verdicts: dict[str, Verdict]
    recalibrated: QTable | None
    posterior: Posterior
    truth: dict[str, Any]
    sample: QTable
    ranks: dict[str, np.ndarray]
    date: str
    fitted: QTable | None = None

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
            Replace existing files.

        Returns
        -------
        page, table : `~pathlib.Path`

        Raises
        ------
        ValueError
            If the name does not end in ``.html``.
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
        with write_errors(page), temporary_folder(page.resolve().parent) as folder:
            written = {target: folder / target.name for target in (page, table)}
            written[page].write_text(text, encoding="utf-8")
            self.scores.write(written[table], format="ascii.ecsv")
            for target, complete in written.items():
                move_into_place(complete, target, overwrite=overwrite)
        return page, table


def calibration_report(
    posterior: Posterior,
    truth: Mapping[str, u.Quantity] | Table,
    *,
    mode: str | Sequence[str] | np.ndarray = "photometry",
    raw: Posterior | None = None,
    seed: int = 0,
) -> CalibrationReport:
    """Judge a posterior by galaxies with known true values.

    Parameters
    ----------
    posterior : Posterior
        Draws of galaxies that were not used to train the network.
    truth : mapping of str to Quantity of shape (n_galaxies,), or table with such columns
        True values by quantity, drawn or derived; NaN or masked where unknown. Other columns of a
        table are ignored.
    mode : {"image", "photometry", "both"}, or a sequence of these, one per galaxy
        Input mode of each galaxy. Modes are judged and recalibrated separately.
    raw : Posterior, optional
        The same draws without recalibration (``calibrated=False``), on which a new recalibration is
        tested; by default ``posterior`` itself, if it is not recalibrated.
    seed : int
        Seed with which ties are broken and folds are drawn.

    Returns
    -------
    CalibrationReport

    Raises
    ------
    KeyError
        If a mapping has a quantity that the posterior does not have.
    ValueError
        If there is no quantity, or a shape does not match.
    astropy.units.UnitConversionError
        If a unit cannot be converted.
    """
    matched = read_truth(posterior, truth)
    sample = _sample_table(posterior, matched) if matched.values else QTable({"used": []})
    known = {
        name: true
        for (name, true), row in zip(matched.values.items(), sample, strict=True)
        if row["used"] + row["no_draws"]
    }
    if not known:
        raise ValueError(
            "truth has no true value of a quantity of the posterior; name its columns as the "
            f"quantities ({', '.join(posterior.quantities)})."
        )
    modes = check_modes(mode, len(posterior))
    ranks = {name: _ranks(posterior, name, true, seed) for name, true in known.items()}
    tables, verdicts = [], {}
    for name, true in known.items():
        table = _scores(posterior, name, true, modes, ranks[name])
        values = {key: table[0][key].item() for key in (*_VERDICT_COLUMNS, "n")}
        verdict = Verdict(**values)
        verdicts[name] = replace(verdict, reason=verdict.reason + _exceptions(table, verdict.trust))
        tables.append(table)
    scores = vstack(tables, metadata_conflicts="silent")
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    weights = {key: str(posterior.meta.get(key) or "") for key in ("model", "version")}
    scores.meta = weights | {"date": date, "n_galaxies": len(posterior)}
    if raw is None and not posterior.meta.get("calibrated"):
        raw = posterior
    recalibrated = None if raw is None else _recalibrated_scores(posterior, raw, known, modes, seed)
    return CalibrationReport(scores, verdicts, recalibrated, posterior, known, sample, ranks, date)


def checked_page(path: str | os.PathLike[str], overwrite: bool) -> Path:
    """Check that a page and the table beside it can be written, before any computation.

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
        raise ValueError(f"the name of the report is {str(page)!r}; it must end in .html.")
    if not page.parent.is_dir():
        raise FileNotFoundError(
            f"the folder {str(page.parent)!r} of the report does not exist; create it first."
        )
    for target in (page, page.with_suffix(".ecsv")):
        if target.exists() and not overwrite:
            raise FileExistsError(f"{str(target)!r} exists; pass overwrite=True to replace it.")
    return page


# ---- scores


@dataclass(frozen=True)
class _Grouping:
    """Assignment of galaxies to bins.

    Attributes
    ----------
    labels : ndarray of str, shape (n,)
        Bin of each galaxy; empty if it is in none.
    bins : tuple of str
        Labels in the order in which they are listed.
    """

    labels: np.ndarray
    bins: tuple[str, ...]


def _sample_table(posterior: Posterior, truth: TrueValues) -> QTable:
    """Count, for each quantity, the galaxies that are used, and those that are not by reason."""
    rows = []
    for name, true in truth.values.items():
        values, plain, _ = values_in_dex(posterior[name], true)
        drawn, fill = ~np.isnan(values).all(axis=1), truth.fill[name]
        known = np.isfinite(plain)
        counts = {
            "used": known & drawn,
            "fill_value": fill,
            "no_true_value": ~known & ~fill,
            "no_draws": known & ~drawn,
        }
        row = {"quantity": name, "galaxies": len(posterior)}
        rows.append(row | {key: np.count_nonzero(chosen) for key, chosen in counts.items()})
    return QTable(rows)


def _ranks(posterior: Posterior, name: str, truth: Any, seed: int) -> np.ndarray:
    values, true, _ = values_in_dex(posterior[name], truth)
    return pit(values, true, seed=seed)


def _scores(
    posterior: Posterior, name: str, truth: Any, modes: np.ndarray, ranks: np.ndarray
) -> QTable:
    """Return scores and verdicts of one quantity: over all galaxies, then in bins."""
    values, true, unit = values_in_dex(posterior[name], truth)
    middle = row_percentiles(values, [50])[0]
    tables, rows = [], []
    groupings = _groupings(posterior, np.isfinite(ranks), modes)
    for by, grouping in groupings.items():
        table = grouped_scores(name, (values, true, unit), ranks, grouping.labels)
        table = table[table["group"] != ""]
        table = table[np.argsort([grouping.bins.index(label) for label in table["group"]])]
        table.rename_column("group", "bin")
        table.add_column(np.full(len(table), by, dtype="<U20"), index=1, name="by")
        tables.append(table)
        for label in table["bin"]:
            chosen = grouping.labels == label
            verdict = judge(values[chosen], true[chosen], str(unit or ""), ranks=ranks[chosen])
            row = {key: getattr(verdict, key) for key in _VERDICT_COLUMNS}
            row |= {"sigma_nmad": np.nan, "outlier_fraction": np.nan, "relative_bias": np.nan}
            if name == "redshift":
                found = redshift_metrics(middle[chosen], true[chosen])
                row |= {key: found[key] for key in ("sigma_nmad", "outlier_fraction")}
                row["relative_bias"] = found["bias"]
            row["median_bias"] = point_metrics(middle[chosen], true[chosen])["median_bias"]
            rows.append(row)
    table = vstack(tables, metadata_conflicts="silent")
    for key in rows[0]:
        table[key] = [row[key] for row in rows]
    return table


def _groupings(
    posterior: Posterior, counted: np.ndarray, modes: np.ndarray
) -> dict[str, _Grouping]:
    """Group galaxies by magnitude, colour, predicted redshift, input mode and set of bands."""
    groupings = {_EVERYTHING: _by_label(np.where(counted, _EVERYTHING, ""), minimum=1)}
    magnitudes = magnitudes_of(posterior)
    green, red = (magnitudes[:, BANDS.index(band)] for band in "gr")
    groupings["r magnitude"] = _by_value(np.where(counted, red, np.nan), digits=1)
    groupings["g - r"] = _by_value(np.where(counted, green - red, np.nan), digits=2)
    if "redshift" in posterior.draws:
        predicted = np.asarray(posterior["redshift"].median().value, float)
        groupings["predicted redshift"] = _by_value(np.where(counted, predicted, np.nan), digits=3)
    for by, labels in (("input", modes), ("bands", band_sets(magnitudes))):
        grouping = _by_label(np.where(counted, labels, ""), minimum=_MIN_GALAXIES_PER_LABEL)
        if len(grouping.bins) > 1:
            groupings[by] = grouping
    return {by: grouping for by, grouping in groupings.items() if grouping.bins}


def _by_label(labels: np.ndarray, minimum: int) -> _Grouping:
    """Group galaxies by a label that at least a minimum number of galaxies have."""
    names, counts = np.unique(labels[labels != ""], return_counts=True)
    labels = np.where(np.isin(labels, names[counts >= minimum]), labels, "")
    return _Grouping(labels, tuple(dict.fromkeys(labels[labels != ""].tolist())))


def _by_value(values: np.ndarray, digits: int) -> _Grouping:
    """Group galaxies by a number, in bins of about equal counts with rounded limits."""
    known = np.isfinite(values)
    n_bins = min(int(known.sum()) // _GALAXIES_PER_BIN, _MAX_BINS)
    labels = np.full(len(values), "", dtype="<U20")
    if n_bins < 2:
        return _Grouping(labels, ())
    edges = np.unique(np.quantile(values[known], np.linspace(0, 1, n_bins + 1)[1:-1]).round(digits))
    limits = [f"{edge:.{digits}f}" for edge in edges]
    bins = [f"below {limits[0]}"]
    bins += [f"{low} to {high}" for low, high in zip(limits[:-1], limits[1:], strict=True)]
    bins.append(f"above {limits[-1]}")
    labels[known] = np.array(bins)[np.searchsorted(edges, values[known], side="right")]
    return _Grouping(labels, tuple(bins))


def _exceptions(table: QTable, trust: str) -> str:
    """List the bins with a worse verdict than the whole sample."""
    found = []
    worse = [word for word in TRUST[1:3] if TRUST.index(word) > TRUST.index(trust)]
    for by in dict.fromkeys(table["by"].tolist()):
        part = table[table["by"] == by]
        for word in worse:
            bins = part["bin"][part["trust"] == word].tolist()
            if bins:
                found.append(f"{word} at {by} {', '.join(bins)}")
    return f" Exceptions: {'; '.join(found)}." if found else ""


def _recalibrated_scores(
    posterior: Posterior, raw: Posterior, known: dict[str, Any], modes: np.ndarray, seed: int
) -> QTable | None:
    """Return scores before and after a cross-fitted recalibration; None with too few galaxies."""
    enough = {}
    for name in (name for name in known if name in posterior.draws):
        true = values_in_dex(posterior[name], known[name])[1]
        # Each fold is corrected from four fifths of the galaxies.
        if np.count_nonzero(np.isfinite(true) & posterior.usable) >= 1.5 * MIN_GALAXIES:
            enough[name] = known[name]
    if not enough:
        return None
    new = fit_if_enough(cross_fitted, raw, enough, mode=modes, seed=seed)
    if new is None:
        return None
    # One call for each quantity: the seed then gives the ranks of the scores above.
    before, after = (
        vstack([calibration_table(draws, {name: true}, seed=seed) for name, true in enough.items()])
        for draws in (posterior, new)
    )
    table = QTable({"quantity": before["quantity"], "n": before["n"]})
    for key in ("pit_ks", "coverage_68", "coverage_95", "crps", "bias", "scatter"):
        table[f"{key}_before"], table[f"{key}_after"] = before[key], after[key]
    return table


# ---- page


_STYLE = """
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 2rem auto;
  padding: 0 1rem; overflow-wrap: break-word; }
h1, h2 { font-weight: 600; line-height: 1.2; } h2 { margin-top: 2.2rem; }
table { border-collapse: collapse; font-size: 14px; margin: .8rem 0; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: left;
  vertical-align: top; }
th.number, td.number { text-align: right; font-variant-numeric: tabular-nums; }
code, pre { background: #f4f5f7; padding: .1rem .3rem; }
pre { padding: .7rem; overflow-x: auto; }
img { max-width: 100%; height: auto; }
.panels { display: flex; flex-wrap: wrap; gap: .5rem; }
.panels img { flex: 0 1 19.5rem; min-width: 0; width: 19.5rem; }
.panels.large img { flex-basis: 29.5rem; width: 29.5rem; }
.trust { color: #1d6b3c; } .care { color: #8a5a00; } .not { color: #a3271b; }
.unknown { color: #666; }
.wide { overflow-x: auto; max-width: 100%; } .wide td, .wide th { white-space: nowrap; }
"""
_CLASSES = {
    "trust": "trust",
    "trust with care": "care",
    "do not trust": "not",
    "cannot tell": "unknown",
}
_EXPLANATION = """
<p>The <b>PIT</b> (probability integral transform) of a galaxy is the fraction of its draws below
the true value. For a calibrated posterior its histogram is flat, within the grey band. A peak in
the middle means that uncertainties are too large, peaks at both ends that they are too small, and
a slope that values are biased. <b>PIT KS</b> is the Kolmogorov-Smirnov distance from flat.</p>
<p><b>Coverage</b> is the fraction of true values inside the 68% and 95% intervals; <b>shift</b>
is the median error in units of the uncertainty; multiplied by the <b>width factor</b>,
uncertainties would be right. The continuous ranked probability score (<b>CRPS</b>) measures
errors and uncertainties together, and <b>skill</b> compares it with that of the distribution of
the true values: 0 is uninformative, 1 is perfect. <b>Bias</b> is the mean and <b>scatter</b> the
robust standard deviation of the errors of the median.</p>
<p>A deviation counts if it exceeds both 2.5 standard errors and a tolerance (0.04 in coverage,
0.15 uncertainties in shift).</p>
"""
_SAMPLE = """
<p>Number of galaxies, of those used for the scores, and of those that are not: with a fill value
(such as -9999, or outside the physical limits of the quantity), without a true value (missing, or
a flux that is not positive), and without draws.</p>
"""
_BINS = """
<p>Bins of r magnitude and g - r (corrected for Galactic extinction), predicted redshift, and, if
they vary, input (image, photometry or both) and bands. Symbols: fraction of true values inside
the 68% interval, with its standard error. Sigma NMAD, bias and outliers of redshifts are relative
to 1 + z.</p>
"""
_FIT = """
<p>Held-out galaxies: mean error of the median (bias), robust scatter, and coverage of the 68%
intervals, before recalibration. Errors are in dex, and dz / (1 + z) for redshifts.</p>
"""
_ADVICE = """
<p>Each galaxy was corrected with what was learnt from other galaxies, so these scores are not
biased by the fit. To apply the recalibration to new galaxies:</p>

<pre>better = estimator.recalibrated(cutouts, photometry, truth=truth)
better.save("mine.safetensors")</pre>
"""


def html_page(report: CalibrationReport) -> str:
    """Lay out a report as a page.

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
    panels = {
        "histogram of the probability integral transform": _rank_figures(report),
        "predicted against true values": _value_figures(report),
    }
    ranks, values = (
        f"<div class='panels'>{''.join(_image(figure, text) for figure in figures)}</div>"
        for text, figures in panels.items()
    )
    bins = "".join(
        _image(figure, "coverage of the 68% interval in each bin")
        for figure in _bin_figures(report)
    )
    parts = [
        "<!DOCTYPE html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<title>Calibration report</title><style>{_STYLE}</style></head><body>",
        f"<h1>Calibration report</h1>{_summary(report)}",
        "<h2>Verdicts</h2>",
        _verdict_table(report),
        f"<h2>Galaxies</h2>{_SAMPLE}",
        _wide(report.sample),
        *_fit_section(report),
        f"<h2>Scores in bins</h2>{_BINS}<div class='panels large'>{bins}</div>",
        f"<div class='wide'>{_bin_table(report)}</div>",
        "<h2>Calibration of the uncertainties</h2>",
        ranks,
        f"<p>{_image(_coverage_figure(report), 'coverage of central intervals')}</p>",
        "<h2>Predicted and true values</h2>",
        values,
        "<h2>Effect of a recalibration</h2>",
        _recalibration(report.recalibrated),
        f"<h2>Explanation of the scores</h2>{_EXPLANATION}</body></html>",
    ]
    return "\n".join(parts)


def _summary(report: CalibrationReport) -> str:
    """Describe weights, date and sample in a paragraph."""
    posterior, meta = report.posterior, report.posterior.meta
    model = html.escape(str(meta.get("model") or "not recorded"))
    version = html.escape(str(meta.get("version") or "not recorded"))
    state = "recalibrated" if meta.get("calibrated") else "without recalibration"
    flagged = np.count_nonzero(posterior.flag_codes)
    counts = Counter(
        name.replace("_", " ") for names in decode_flags(posterior.flag_codes) for name in names
    )
    listed = ", ".join(f"{name} {count}" for name, count in counts.most_common())
    return (
        f"<p>Weights: <b>{model}</b>, version {version}. Made on {html.escape(report.date)} with "
        f"astrogenspec {html.escape(__version__)}.</p>"
        f"<p>{len(posterior)} galaxies with {posterior.n_draws} draws each, {state}. "
        f"Flagged galaxies: {flagged}{f' ({html.escape(listed)})' if listed else ''}; those with "
        "draws are used. Quantities with true values: "
        + ", ".join(map(_code, report.verdicts))
        + ".</p>"
    )


def _fit_section(report: CalibrationReport) -> list[str]:
    """Show the errors before and after fine-tuning, if the report is that of a fit."""
    if report.fitted is None:
        return []
    return [f"<h2>Before and after the fit</h2>{_FIT}", _wide(report.fitted)]


def _wide(table: QTable) -> str:
    heads = [name.replace("_", " ") for name in table.colnames]
    return f"<div class='wide'>{_table(table, heads)}</div>"


def _verdict_table(report: CalibrationReport) -> str:
    rows = [
        f"<tr><td>{_code(name)}</td><td>{_colour(verdict.trust)}</td><td>{html.escape(verdict.reason)}</td></tr>"
        for name, verdict in report.verdicts.items()
    ]
    head = "<tr><th>quantity</th><th>verdict</th><th>reason</th></tr>"
    return f"<table>{head}{''.join(rows)}</table>"


def _bin_table(report: CalibrationReport) -> str:
    columns = {
        "quantity": "quantity",
        "by": "binned by",
        "bin": "bin",
        "n": "galaxies",
        "trust": "verdict",
        "coverage_68": "68% coverage",
        "coverage_95": "95% coverage",
        "pit_ks": "PIT KS",
        "shift": "shift",
        "width_factor": "width factor",
        "unit": "unit",
        "bias": "bias",
        "median_bias": "median error",
        "scatter": "scatter",
        "rmse": "RMSE",
        "r2": "R2",
        "crps": "CRPS",
        "skill": "skill",
        "sigma_nmad": "sigma NMAD (z)",
        "relative_bias": "bias / (1 + z)",
        "outlier_fraction": "outliers (z)",
    }
    return _table(report.scores[list(columns)], list(columns.values()))


def _recalibration(table: QTable | None) -> str:
    if table is None:
        return (
            "<p>Not available: it needs at least 150 galaxies with a true value, and draws "
            "without recalibration (<code>calibrated=False</code>).</p>"
        )
    return f"{_wide(table)}{_ADVICE}"


def _table(table: QTable, heads: list[str]) -> str:
    kinds = ["number" if table[name].dtype.kind in "fiu" else "text" for name in table.colnames]
    head = "".join(
        f"<th class='{kind}'>{html.escape(name)}</th>"
        for kind, name in zip(kinds, heads, strict=True)
    )
    rows = []
    for row in table:
        cells = []
        for name in table.colnames:
            value = row[name]
            if name == "trust":
                cells.append(f"<td>{_colour(str(value))}</td>")
            elif isinstance(value, float | np.floating):
                text = "" if np.isnan(value) else f"{value:.3g}"
                cells.append(f"<td class='number'>{text}</td>")
            elif isinstance(value, int | np.integer):
                cells.append(f"<td class='number'>{value}</td>")
            else:
                cells.append(f"<td>{html.escape(str(value))}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"


def _code(name: str) -> str:
    return f"<code>{html.escape(name)}</code>"


def _colour(trust: str) -> str:
    return f"<b class='{_CLASSES.get(trust, 'unknown')}'>{html.escape(trust)}</b>"


def _drawn_ranks(report: CalibrationReport) -> dict[str, np.ndarray]:
    """Return the ranks of the quantities for which a galaxy has draws."""
    return {name: ranks for name, ranks in report.ranks.items() if np.isfinite(ranks).any()}


def _rank_figures(report: CalibrationReport) -> Iterator[Figure]:
    from ..plotting import pit_histogram

    for name, values in _drawn_ranks(report).items():
        figure, ax = _panel((3.4, 2.6))
        n_bins = int(np.clip(np.isfinite(values).sum() // 20, 5, 20))
        pit_histogram(values, ax=ax, n_bins=n_bins).set_title(name)
        yield figure


def _coverage_figure(report: CalibrationReport) -> Figure:
    from ..plotting import coverage_curve

    figure, ax = _panel((5.4, 5.0))
    for name, values in _drawn_ranks(report).items():
        coverage_curve(values, ax=ax, label=name)
    return figure


def _value_figures(report: CalibrationReport) -> Iterator[Figure]:
    from ..plotting import prediction_vs_truth

    for name in _drawn_ranks(report):
        figure, ax = _panel((4.2, 4.0))
        prediction_vs_truth(report.posterior[name], report.truth[name], ax=ax)
        yield figure


def _bin_figures(report: CalibrationReport) -> Iterator[Figure]:
    """Plot the coverage of the 68% interval in each bin with its binomial standard error."""
    from ..plotting.style import NEUTRAL, PALETTE

    scores = report.scores
    groupings = [by for by in dict.fromkeys(scores["by"].tolist()) if by != _EVERYTHING]
    for by in groupings or [_EVERYTHING]:
        figure, ax = _panel((5.2, 3.8))
        ticks: list[str] = []
        for number, name in enumerate(report.verdicts):
            rows = scores[(scores["by"] == by) & (scores["quantity"] == name)]
            if not len(rows):
                continue
            position = len(ticks) + np.arange(len(rows))
            ticks += rows["bin"].tolist()
            coverage, n = (np.asarray(rows[key], float) for key in ("coverage_68", "n"))
            error = np.sqrt(np.maximum(coverage * (1 - coverage), 0.01) / np.maximum(n, 1))
            color = PALETTE[number % len(PALETTE)]
            ax.errorbar(position, coverage, error, fmt="o", ms=4, color=color, label=name)
        ax.axhline(0.68, color=NEUTRAL, ls="--", lw=1)
        ax.set_xticks(range(len(ticks)), ticks, rotation=60, ha="right", fontsize=7)
        ax.set(ylim=(0, 1), ylabel="coverage of the 68% interval", xlabel=by)
        ax.legend(frameon=False, fontsize=8)
        yield figure


def _panel(size: tuple[float, float]) -> tuple[Figure, Axes]:
    """Create axes on a figure without a window."""
    from ..plotting.style import package

    package("matplotlib.backends.backend_agg")
    figure = package("matplotlib.figure").Figure(size, layout="constrained")
    return figure, figure.subplots()


def _image(figure: Figure, description: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f"<img alt='{html.escape(description)}' src='data:image/png;base64,{data}'>"
