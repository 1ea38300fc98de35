"""Pages with tables and figures from the cards of the registered models; called by ``conf.py``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from astrogenspec import QUANTITIES, list_models, load_card

mpl.use("Agg")

__all__ = ["card_page", "write_model_pages"]

_COLORS = ("#2f5d8a", "#c2452d", "#3f8f6b", "#b8860b", "#6b4c9a", "#444444")
_FACTS = ("name", "version", "licence", "commit", "filename", "sha256")
#: Entries of a card that are too long for a page, or have a section of their own.
_NOT_SHOWN = {"each", "rows", "z", "z_inferred", "bands", "pit_ks_fifths"}
_INTRODUCTION = """\
Models
======

What is known of the weights that come with the package: how they were made, and how good they are. The pages are made
from the cards of the models when this documentation is built; ``astrogenspec.load_card(name)`` gives all of it.
Scores on simulated galaxies say how well a network learnt the simulator, not how accurate it is on the sky. Each table
says which galaxies it is about.

.. toctree::
   :maxdepth: 1

"""


def write_model_pages(folder: Path, names: Sequence[str] | None = None) -> list[Path]:
    """Write a page for each model, its figures, and an index.

    Parameters
    ----------
    folder : Path
        Made if it does not exist.
    names : sequence of str, optional
        Models; all that come with the package by default.

    Returns
    -------
    list of Path
        The pages, that of the index first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if names is None:
        models = list_models()
        names = [str(row["name"]) for row in models if row["where"] == "bundled"]
    pages = [folder / "index.rst"]
    index = _INTRODUCTION
    for name in names:
        page = folder / f"{name}.rst"
        _write(page, card_page(load_card(name), folder))
        pages.append(page)
        index += f"   {name}\n"
    _write(pages[0], index)
    return pages


def card_page(card: Mapping[str, Any], folder: Path) -> str:
    """Write the figures of one card and give its page.

    Parameters
    ----------
    card : mapping
        As `astrogenspec.load_card` gives it.
    folder : Path
        Where figures go.

    Returns
    -------
    str
        reStructuredText.
    """
    name = card["name"]
    facts = {key: card[key] for key in _FACTS if key in card}
    parts = [_heading(name, "="), f"{card['description']}.\n"]
    limits = card.get("limitations")
    if limits:
        parts.append(_heading("Limitations", "-"))
        parts.append(_sentences(limits))
    figures = [draw(card, folder / f"{name}-{key}.png") for key, draw in _FIGURES.items()]
    shown = [figure for figure in figures if figure]
    if shown:
        parts.append(_heading("Figures", "-"))
        parts += [
            f".. figure:: {path.name}\n   :alt: {text}\n\n   {text}\n" for path, text in shown
        ]
    parts += [_heading("How it was made", "-"), _rows(facts, "card-facts")]
    for key in ("architecture", "preprocessing"):
        if key in card:
            parts.append(f"**{key.capitalize()}.** {card[key]}.\n")
    if "commands" in card:
        parts.append("**Commands**::\n\n" + "".join(f"    {line}\n" for line in card["commands"]))
    for key in ("training_set", "training_range", "labels"):
        if key in card:
            parts.append(_heading(key.replace("_", " ").capitalize(), "-"))
            parts.append("\n".join(_tables(card[key])))
    parts.append(_heading("All scores", "-"))
    for key, value in card.get("metrics", {}).items():
        parts.append(_heading(key.replace("_", " "), "~"))
        parts.append("\n".join(_tables(value)))
    return "\n".join(parts)


# ---- text


def _write(path: Path, text: str) -> None:
    """Leave a file that is up to date alone, so that Sphinx does not read it again."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def _heading(text: str, mark: str) -> str:
    return f"{text}\n{mark * len(text)}\n"


def _sentences(value: Any) -> str:
    return f"{value}\n" if isinstance(value, str) else "".join(f"- {line}\n" for line in value)


def _shown(value: Any) -> str:
    """Write a value for a table: four digits are more than any score deserves."""
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, float):
        if value == int(value) and abs(value) < 1e15:
            return str(int(value))
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_shown(entry)}" for key, entry in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value))
    return str(value)


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]], name: str = "") -> str:
    """Lay out a table; without names of columns, without a header."""
    options = (["   :header-rows: 1"] if header else []) + ([f"   :class: {name}"] if name else [])
    lines = [".. list-table::", *options, ""]
    for row in (header, *rows) if header else rows:
        for k, cell in enumerate(row):
            # backslashes and stars of a card are no markup
            text = _shown(cell).replace("\\", "\\\\").replace("*", "\\*").replace("_", "\\_")
            lines.append(f"   {'* -' if k == 0 else '  -'} {text or ' '}")
    return "\n".join(lines) + "\n"


def _rows(values: Mapping[str, Any], name: str = "card-rows") -> str:
    rows = [(key.replace("_", " "), value) for key, value in values.items()]
    return _table((), rows, name)


def _is_flat(value: Any) -> bool:
    return isinstance(value, Mapping) and not any(
        isinstance(entry, Mapping | list) for entry in _kept(value).values()
    )


def _kept(value: Mapping[str, Any]) -> dict[str, Any]:
    return {key: entry for key, entry in value.items() if key not in _NOT_SHOWN}


def _joint_table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    keys = list(dict.fromkeys(key for row in rows.values() for key in _kept(row)))
    return _table(
        ("", *(key.replace("_", " ") for key in keys)),
        [(name, *(row.get(key, "") for key in keys)) for name, row in rows.items()],
    )


def _tables(value: Any) -> list[str]:
    """Lay out nested numbers as tables, one for each group of equal things."""
    if isinstance(value, list) and value and all(_is_flat(row) for row in value):
        return [
            _joint_table(
                {str(row.get("quantity", k)): _without(row) for k, row in enumerate(value)}
            )
        ]
    if not isinstance(value, Mapping):
        return [_shown(value) + "\n"]
    value = _kept(value)
    single = {k: v for k, v in value.items() if not isinstance(v, Mapping) and not _is_rows(v)}
    flat = {k: v for k, v in value.items() if _is_flat(v)}
    deep = {k: v for k, v in value.items() if k not in single and k not in flat}
    parts = [_rows(single)] if single else []
    if flat:
        parts.append(_joint_table(flat))
    for key, entry in deep.items():
        parts.append(f"*{key.replace('_', ' ')}*\n")
        parts += _tables(entry)
    return parts


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)


def _without(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: entry for key, entry in row.items() if key != "quantity"}


# ---- figures: each gives its path and a caption, or None if the card lacks what it needs


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
        place = at + 0.22 * (k - (len(modes) - 1) / 2)
        label = {"both": "image and photometry", "photometry": "photometry alone"}.get(
            mode, f"{mode} alone"
        )
        axes[0, 0].plot(place, [row["r2"] for row in rows], "o", color=_COLORS[k], label=label)
        for level, mark in ((68, "o"), (95, "s")):
            axes[0, 1].plot(
                place, [row[f"coverage_{level}"] for row in rows], mark, color=_COLORS[k], ms=5
            )
    ceiling = card["metrics"].get("ceiling", {}).get("all of it", {})
    explained = ""
    if ceiling:
        explained = (
            "; the ceiling is a regression that is told noise-free magnitudes and much of the truth"
        )
        axes[0, 0].plot(
            at, [ceiling.get(n, np.nan) for n in names], "_", color="k", ms=14, label="ceiling"
        )
    for level in (0.68, 0.95):
        axes[0, 1].axhline(level, color="#7a7a7a", lw=1, ls="--", zorder=0)
    labels = [name.replace("_", " ") for name in names]
    for ax in axes[0]:
        ax.set_xticks(at, labels, rotation=45, ha="right", fontsize=8)
    axes[0, 0].set(ylabel=r"$R^2$ of the median", ylim=(0, 1.02))
    axes[0, 1].set(ylabel="share of true values inside", ylim=(0.5, 1))
    axes[0, 0].legend(frameon=False, fontsize=8, loc="lower left")
    _save(figure, path)
    return path, (
        "Simulated galaxies, held out. Left: how much of the scatter of the true values the posterior median explains"
        f"{explained}. Right: the share of the true values in the 68% (dots) and 95% (squares) intervals."
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
        "Simulated galaxies, held out, photometry alone: what fewer bands cost. Below 0, the median is worse than a "
        "constant."
    )


def _real_redshifts(card: Mapping[str, Any], path: Path) -> tuple[Path, str] | None:
    metrics = card.get("metrics", {})
    found = {
        f"{kind}, {name}": row
        for kind, group in (
            ("photometry", metrics.get("anchoring_recalibration", {})),
            ("photometry", metrics.get("anchoring_folds", {}).get("redshift", {})),
            ("201 cutouts", metrics.get("images", {})),
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
    for level, mark in ((68, "o"), (95, "s")):
        values = [row.get(f"coverage_{level}", np.nan) for row in found.values()]
        axes[0, 1].plot(values, at, mark, color=_COLORS[1])
        axes[0, 1].axvline(level / 100, color="#7a7a7a", lw=1, ls="--", zorder=0)
    axes[0, 1].tick_params(left=False, labelleft=False)
    axes[0, 1].set(xlabel="share of true redshifts inside", xlim=(0.5, 1))
    _save(figure, path)
    return path, (
        "Real galaxies: scatter of the redshifts, and the share of spectroscopic redshifts in the 68% (dots) and 95% "
        "(squares) intervals. What was held out, and how, is in the tables below."
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
    for level, mark in ((68, "o"), (95, "s")):
        values = [row["pixels"][f"coverage_{level}"] for row in groups.values()]
        axes[0, 1].plot(values, at, mark, color=_COLORS[1])
        axes[0, 1].axvline(level / 100, color="#7a7a7a", lw=1, ls="--", zorder=0)
    axes[0, 1].tick_params(left=False, labelleft=False)
    axes[0, 1].set(xlabel="share of true pixels inside", xlim=(0.2, 1))
    _save(figure, path)
    return path, (
        "Simulated galaxies, held out, by input and aperture. Left: difference of the best draw from the true noise-free "
        "spectrum, line-free pixels. Right: share of the pixels in the 68% (dots) and 95% (squares) ranges of the draws."
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
        "Simulated galaxies, held out: indices measured on the best draw against those of the true spectrum.",
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
        "Loss in the training, and where it was best on galaxies held out: the weights that were kept.",
    )


_FIGURES = {
    "redshifts": _real_redshifts,
    "scores": _scores_by_input,
    "bands": _scores_by_bands,
    "residuals": _spectral_residuals,
    "indices": _spectral_indices,
    "history": _history,
}
