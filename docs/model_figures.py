"""Figures of the model pages; functions return path and caption, or None without scores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from model_scores import named

from astrogenspec import QUANTITIES

mpl.use("Agg")

__all__ = ["FIGURES"]

_COLORS = ("#2f5d8a", "#c2452d", "#3f8f6b", "#b8860b", "#6b4c9a", "#444444")


def _axes(n: int, width: float = 8.5, height: float = 3.6, **options: Any) -> tuple[Any, Any]:
    import matplotlib.pyplot as plt

    return plt.subplots(
        1, n, figsize=(width, height), layout="constrained", squeeze=False, **options
    )


def _save(figure: Any, path: Path) -> None:
    import matplotlib.pyplot as plt

    figure.savefig(path, dpi=150)
    plt.close(figure)


def _modes(card: Mapping[str, Any], key: str) -> dict[str, list[dict[str, Any]]]:
    return card.get("metrics", {}).get("simulated", {}).get(key, {})


def _scores_by_input(card: Mapping[str, Any], path: Path) -> tuple[Path, str] | None:
    modes = {name: rows for name, rows in _modes(card, "modes").items() if "," not in name}
    if not modes:
        return None
    figure, axes = _axes(2, 9.5, 3.9)
    names = [row["quantity"] for row in next(iter(modes.values()))]
    at = np.arange(len(names))
    for k, (mode, rows) in enumerate(modes.items()):
        position = at + 0.22 * (k - (len(modes) - 1) / 2)
        label = {"both": "image and photometry", "photometry": "photometry alone"}.get(
            mode, f"{mode} alone"
        )
        axes[0, 0].plot(position, [row["r2"] for row in rows], "o", color=_COLORS[k], label=label)
        for level, mark in ((68, "o"), (95, "s")):
            axes[0, 1].plot(
                position, [row[f"coverage_{level}"] for row in rows], mark, color=_COLORS[k], ms=5
            )
    ceiling = card["metrics"].get("ceiling", {}).get("all of it", {})
    explained = ""
    if ceiling:
        explained = "; the ceiling is a regression on noise-free magnitudes and true properties"
        axes[0, 0].plot(
            at, [ceiling.get(n, np.nan) for n in names], "_", color="k", ms=14, label="ceiling"
        )
    for level in (0.68, 0.95):
        axes[0, 1].axhline(level, color="#7a7a7a", lw=1, ls="--", zorder=0)
    labels = [name.replace("_", " ") for name in names]
    for ax in axes[0]:
        ax.set_xticks(at, labels, rotation=45, ha="right", fontsize=8)
    axes[0, 0].set(ylabel=r"$R^2$ of the median", ylim=(0, 1.02))
    axes[0, 1].set(ylabel="fraction of true values inside", ylim=(0.5, 1))
    axes[0, 0].legend(frameon=False, fontsize=8, loc="lower left")
    _save(figure, path)
    return path, (
        "Simulated held-out galaxies. Left: fraction of the variance of the true values explained "
        f"by the posterior median{explained}. Right: fraction of true values in the 68% (dots) and "
        "95% (squares) intervals."
    )


def _scores_by_bands(card: Mapping[str, Any], path: Path) -> tuple[Path, str] | None:
    bands = dict(sorted(_modes(card, "bands").items(), key=lambda entry: -len(entry[0])))
    if not bands:
        return None
    figure, axes = _axes(1, 6, 3.4)
    lowest = 0.0
    for k, name in enumerate(("redshift", "stellar_mass", "sfr", "gas_metallicity")):
        values = [
            next((r["r2"] for r in rows if r["quantity"] == name), np.nan)
            for rows in bands.values()
        ]
        axes[0, 0].plot(values, "o-", color=_COLORS[k], label=QUANTITIES[name].label)
        lowest = min(lowest, np.nanmin(values))
    axes[0, 0].set_xticks(range(len(bands)), list(bands))
    axes[0, 0].axhline(0, color="#7a7a7a", lw=1, ls="--", zorder=0)
    axes[0, 0].set(
        xlabel="bands of the photometry", ylabel=r"$R^2$ of the median", ylim=(lowest - 0.05, 1)
    )
    axes[0, 0].legend(frameon=False, fontsize=8)
    _save(figure, path)
    return path, (
        "Simulated held-out galaxies, photometry alone: accuracy with fewer bands. Below 0, the "
        "median is worse than a constant."
    )


def _coverage(ax: Any, at: np.ndarray, rows: list[Mapping[str, float]]) -> None:
    """Plot the coverage of the 68% and 95% intervals, next to the names of the rows."""
    for level, mark in ((68, "o"), (95, "s")):
        values = [row.get(f"coverage_{level}", np.nan) for row in rows]
        ax.plot(values, at, mark, color=_COLORS[1])
        ax.axvline(level / 100, color="#7a7a7a", lw=1, ls="--", zorder=0)
    ax.tick_params(left=False, labelleft=False)


def _real_redshifts(card: Mapping[str, Any], path: Path) -> tuple[Path, str] | None:
    metrics = card.get("metrics", {})
    found = {
        f"{kind}, {named(name)}": row
        for kind, group in (
            ("photometry", metrics.get("anchoring_recalibration", {})),
            ("photometry", metrics.get("anchoring_folds", {}).get("redshift", {})),
            ("201 cutouts", metrics.get("images", {})),
            ("201 cutouts", metrics.get("images_folds", {})),
        )
        for name, row in group.items()
        if isinstance(row, Mapping) and "sigma_nmad" in row
    }
    if not found:
        return None
    figure, axes = _axes(2, 9.5, 1 + 0.3 * len(found), sharey=True, width_ratios=(1, 0.8))
    at = np.arange(len(found))[::-1]
    axes[0, 0].barh(at, [row["sigma_nmad"] for row in found.values()], color=_COLORS[0])
    axes[0, 0].set_yticks(at, list(found), fontsize=9)
    axes[0, 0].locator_params(axis="x", nbins=4)
    axes[0, 0].set(xlabel=r"$\sigma_\mathrm{NMAD}$ of $\Delta z / (1 + z)$")
    _coverage(axes[0, 1], at, list(found.values()))
    axes[0, 1].set(xlabel="fraction of true redshifts inside", xlim=(0.5, 1))
    _save(figure, path)
    return path, (
        "Real galaxies: scatter of the redshifts, and fraction of spectroscopic redshifts in the "
        "68% (dots) and 95% (squares) intervals. The tables below describe the held-out samples."
    )


def _learning_curve(card: Mapping[str, Any], path: Path) -> tuple[Path, str] | None:
    few = card.get("metrics", {}).get("anchoring_few", {})
    sizes = sorted((key for key in few if key.isdecimal()), key=int)
    if not sizes:
        return None
    figure, axes = _axes(2, 8.5, 3.2)
    for ax, key, label in (
        (axes[0, 0], "sigma_nmad", r"$\sigma_\mathrm{NMAD}$ of $\Delta z / (1 + z)$"),
        (axes[0, 1], "crps_over_1+z", "CRPS / (1 + z)"),
    ):
        values = np.array([[sample[key] for sample in few[size]] for size in sizes])
        number = [int(size) for size in sizes]
        ax.plot(number, values.mean(axis=1), "-", color=_COLORS[0])
        ax.plot(number, values, "o", color=_COLORS[0], ms=5)
        ax.axhline(few["zero-shot"][key], color="#7a7a7a", lw=1, ls="--", zorder=0)
        ax.set(xscale="log", xlabel="real galaxies in the fine-tuning", ylabel=label)
        ax.set_xticks(number, sizes)
        ax.minorticks_off()
    _save(figure, path)
    return path, (
        f"Redshifts of {few['judged']:,} real galaxies from photometry after fine-tuning on "
        "others: three samples of each size, and their mean. Dashed: before fine-tuning."
    )


def _spectral_residuals(card: Mapping[str, Any], path: Path) -> tuple[Path, str] | None:
    groups = {
        name: row
        for name, row in card.get("metrics", {}).get("simulated", {}).items()
        if isinstance(row, Mapping) and "pixels" in row
    }
    if not groups:
        return None
    figure, axes = _axes(2, 9.5, 3.4, sharey=True)
    at = np.arange(len(groups))[::-1]
    for k, frame in enumerate(("observed frame", "rest frame, scaled")):
        values = [100 * row["best"][frame]["median"] for row in groups.values()]
        label = {"observed frame": "as observed", "rest frame, scaled": "shape alone, at rest"}[
            frame
        ]
        axes[0, 0].barh(at + 0.2 - 0.4 * k, values, 0.4, color=_COLORS[k], label=label)
    axes[0, 0].set_yticks(at, list(groups), fontsize=9)
    axes[0, 0].set(xlabel="median relative residual of the best draw [%]")
    axes[0, 0].legend(frameon=False, fontsize=8)
    _coverage(axes[0, 1], at, [row["pixels"] for row in groups.values()])
    axes[0, 1].set(xlabel="fraction of true pixels inside", xlim=(0.2, 1))
    _save(figure, path)
    return path, (
        "Simulated held-out galaxies, by mode and aperture. Left: residual of the best draw from "
        "the true noise-free spectrum in line-free pixels. Right: fraction of pixels in the 68% "
        "(dots) and 95% (squares) ranges of the draws."
    )


def _spectral_indices(card: Mapping[str, Any], path: Path) -> tuple[Path, str] | None:
    indices = card.get("metrics", {}).get("measured", {}).get("indices", {})
    if not indices:
        return None
    figure, axes = _axes(1, 9.5, 3.4)
    axes[0, 0].bar(
        range(len(indices)), [row["correlation"] for row in indices.values()], color=_COLORS[0]
    )
    axes[0, 0].set_xticks(range(len(indices)), list(indices), rotation=60, ha="right", fontsize=8)
    axes[0, 0].set(ylabel="correlation with the truth", ylim=(0, 1))
    _save(figure, path)
    return (
        path,
        "Simulated held-out galaxies: correlation of indices measured on the best draw and on "
        "the true spectrum.",
    )


def _history(card: Mapping[str, Any], path: Path) -> tuple[Path, str] | None:
    from astrogenspec.plotting import training_history

    log = card.get("log") or {}
    if "valid_total" not in log:
        return None
    ax = training_history(log)
    _save(ax.figure, path)
    return (
        path,
        "Training and validation loss. The weights are those with the lowest validation loss.",
    )


#: Functions by the suffix of the file name.
FIGURES = {
    "redshifts": _real_redshifts,
    "learning": _learning_curve,
    "scores": _scores_by_input,
    "bands": _scores_by_bands,
    "residuals": _spectral_residuals,
    "indices": _spectral_indices,
    "history": _history,
}
