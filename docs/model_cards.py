"""Pages with tables and figures from the cards of the registered models; called by ``conf.py``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from model_figures import FIGURES
from model_scores import named, section

from astrogenspec import list_models, load_card

__all__ = ["card_page", "write_model_pages"]

_FACTS = ("name", "version", "licence", "commit", "filename", "sha256")
#: Entries of a card that are too long for a page or have their own section.
_NOT_SHOWN = {"each", "rows", "z", "z_inferred", "bands", "every_quantity", "pit_ks_fifths"}
_NOT_SHOWN |= {f"{score}_error" for score in ("n", "bias", "median_bias", "outlier_fraction")}
_INTRODUCTION = """\
Models
======

Training, accuracy and limitations of the bundled weights. The pages are generated from the cards of
the models, which ``astrogenspec.load_card(name)`` returns in full. Scores on simulated galaxies
measure how well a network reproduces the simulator, not its accuracy on real galaxies. Each section
states the galaxies and the command of the measurement; in the commands, FOLDER holds tables of real
galaxies and SHARDS simulated ones. ``recipes/README.rst`` in the repository lists the commands that
make the weights.

.. toctree::
   :maxdepth: 1

"""
_COMMANDS = """\
The commands are those that were run, at the commits given; ``recipes/README.rst`` lists the
present ones.
"""
_TERMS = """
Terms used in the tables
------------------------

==================  ================================================================================
in 68%, in 95%      fraction of true values inside the 68% and 95% intervals of the posterior;
                    ideally 0.68 and 0.95
sigma_NMAD          scatter of the redshifts: 1.4826 times the median absolute deviation of
                    (z - true z) / (1 + true z)
bias                mean difference from the true value; for redshifts, divided by 1 + z
off by > 0.05       fraction of galaxies with a redshift error of more than 0.05 (1 + z)
scatter             robust standard deviation of the differences
rms error           root mean square of the differences
R2                  explained fraction of the variance of the true values; at most 1, and 0 for a
                    constant
CRPS                continuous ranked probability score: distance between posterior and true value,
                    small for a posterior that is both accurate and narrow
PIT                 probability integral transform, the fraction of draws below the true value;
                    uniform if calibrated. KS is the Kolmogorov-Smirnov distance from uniformity
TARP                test of the joint intervals of all quantities (Lemos et al. 2023); ideally 0
both                image and photometry
==================  ================================================================================

Errors and scatter of masses, rates, abundances and fluxes are in dex. The tests are explained in
:doc:`/trust`.
"""


def write_model_pages(folder: Path, names: Sequence[str] | None = None) -> list[Path]:
    """Write a page with figures for each model, and an index.

    Parameters
    ----------
    folder : Path
        Folder; it is created if it does not exist.
    names : sequence of str, optional
        Models; by default, all bundled ones.

    Returns
    -------
    list of Path
        The pages, the index first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if names is None:
        models = list_models()
        names = [str(row["name"]) for row in models if row["where"] == "bundled"]
    pages = [folder / "index.rst"]
    for name in names:
        page = folder / f"{name}.rst"
        _write(page, card_page(load_card(name), folder))
        pages.append(page)
    index = "".join(f"   {name}\n" for name in sorted(names))
    _write(pages[0], _INTRODUCTION + index + _TERMS)
    return pages


def card_page(card: Mapping[str, Any], folder: Path) -> str:
    """Write the figures of a card and return its page.

    Parameters
    ----------
    card : mapping
        From `astrogenspec.load_card`.
    folder : Path
        Folder of the figures.

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
    figures = [draw(card, folder / f"{name}-{key}.png") for key, draw in FIGURES.items()]
    shown = [figure for figure in figures if figure]
    if shown:
        parts.append(_heading("Figures", "-"))
        parts += [
            f".. figure:: {path.name}\n   :alt: {text}\n\n   {text}\n" for path, text in shown
        ]
    parts += [_heading("Training", "-"), _rows(facts, "card-facts")]
    for key in ("architecture", "preprocessing"):
        if key in card:
            parts.append(f"**{key.capitalize()}.** {card[key]}.\n")
    if "commands" in card:
        parts.append(_COMMANDS)
        parts.append(_commands("Commands", card["commands"]))
    for stage in card.get("stages", ()):
        parts.append(_commands(stage["title"], stage["commands"]))
        made = {"commit": stage["commit"]}
        if "training" in stage:
            made = {"steps": stage["training"]["best_step"]} | made
        parts.append(_rows(made, "card-facts"))
    for key in ("training_set", "training_range", "labels"):
        if key in card:
            parts.append(_heading(key.replace("_", " ").capitalize(), "-"))
            parts.append("\n".join(_tables(card[key])))
    parts.append(_heading("All scores", "-"))
    parts.append(":doc:`index` explains the terms used in the tables.\n")
    for key, value in card.get("metrics", {}).items():
        title, explanation = section(card, key)
        parts += [_heading(title, "~"), explanation, "\n".join(_tables(value))]
    return "\n".join(parts)


def _commands(title: str, lines: list[str]) -> str:
    return f"**{title}**::\n\n" + "".join(f"    {line}\n" for line in lines)


# ---- text


def _write(path: Path, text: str) -> None:
    """Write a file if its text changed, so that Sphinx does not read it again otherwise."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def _heading(text: str, mark: str) -> str:
    return f"{text}\n{mark * len(text)}\n"


def _sentences(value: Any) -> str:
    return f"{value}\n" if isinstance(value, str) else "".join(f"- {line}\n" for line in value)


def _shown(value: Any) -> str:
    """Format a value for a table: scores with three digits, counts in full."""
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, float):
        if value == int(value) and abs(value) < 1e15:
            return str(int(value))
        if 1e-6 < abs(value) < 1e-4:
            return f"{value:.6f}"
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_shown(entry)}" for key, entry in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value))
    return str(value)


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]], name: str = "") -> str:
    """Format a table, without header if there are no column names."""
    options = (["   :header-rows: 1"] if header else []) + ([f"   :class: {name}"] if name else [])
    lines = [".. list-table::", *options, ""]
    for row in (header, *rows) if header else rows:
        for k, cell in enumerate(row):
            # the text of a card is not markup
            text = _shown(cell).replace("\\", "\\\\").replace("*", "\\*").replace("_", "\\_")
            lines.append(f"   {'* -' if k == 0 else '  -'} {text or ' '}")
    return "\n".join(lines) + "\n"


def _rows(values: Mapping[str, Any], name: str = "card-rows") -> str:
    rows = [(named(key), value) for key, value in values.items()]
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
        ("", *map(named, keys)),
        [(named(name), *(row.get(key, "") for key in keys)) for name, row in rows.items()],
    )


def _tables(value: Any) -> list[str]:
    """Format nested numbers as tables, one for each group of rows with common columns."""
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
    parts += [_joint_table(group) for group in _alike(flat)]
    for key, entry in deep.items():
        parts.append(f"*{named(key)}*\n")
        parts += _tables(entry)
    return parts


def _alike(rows: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Mapping[str, Any]]]:
    """Group rows that share a column."""
    groups: list[dict[str, Mapping[str, Any]]] = []
    for name, row in rows.items():
        fits = (g for g in groups if any(set(row) & set(other) for other in g.values()))
        group = next(fits, None)
        if group is None:
            groups.append({name: row})
        else:
            group[name] = row
    return groups


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)


def _without(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: entry for key, entry in row.items() if key != "quantity"}
