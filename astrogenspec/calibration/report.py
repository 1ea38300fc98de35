"""Put a posterior beside a user's own labelled sample: scores, verdicts in words, and a page with figures."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np
from astropy.table import QTable, Table, vstack

from ..metrics import redshift_metrics
from ..surveys import BANDS
from .features import band_sets, checked_modes, magnitudes_of
from .ranks import values_in_dex
from .recalibration import MINIMUM_ROWS, cross_fitted
from .sample_size import unless_too_few
from .table import calibration_table
from .verdicts import TRUST, Verdict, judge

if TYPE_CHECKING:
    from ..posterior import Posterior

__all__ = ["CalibrationReport", "calibration_report", "checked_page"]

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
        from .page import html_page

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
    modes = checked_modes(mode, len(posterior))
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
        if np.count_nonzero(np.isfinite(true) & posterior.usable) >= 1.5 * MINIMUM_ROWS:
            enough[name] = known[name]
    if not enough:
        return None
    # Kinds of input with few galaxies stay as they are; the table shows no change then.
    new = unless_too_few(cross_fitted, raw, enough, mode=mode, seed=seed)
    if new is None:
        return None
    before = calibration_table(posterior, enough, seed=seed)
    after = calibration_table(new, enough, seed=seed)
    table = QTable({"quantity": before["quantity"], "n": before["n"]})
    for key in ("pit_ks", "coverage_68", "coverage_95", "crps", "bias", "scatter"):
        table[f"{key}_before"], table[f"{key}_after"] = before[key], after[key]
    return table
