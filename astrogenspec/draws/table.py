"""Summaries of a posterior as a table and as HTML."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import TYPE_CHECKING

import astropy.units as u
import numpy as np
from astropy.table import QTable
from astropy.utils.masked import Masked

from .information import MINIMUM_DRAWS
from .quantity import QuantityPosterior

if TYPE_CHECKING:
    from ..posterior import Posterior

__all__ = ["PREDICTIVE", "SUMMARIES", "html_summary", "summary_table"]

#: Ends of the names of the summary columns, and what they mean.
SUMMARIES = {
    "median": "Median",
    "p16": "16th percentile",
    "p84": "84th percentile",
    "std": "Standard deviation",
}

#: Column of the photometry, and of the summary, with the posterior predictive p-value.
PREDICTIVE = "predictive_p_value"

_HTML_ROWS = 10


def summary_table(posterior: Posterior, quantities: str | Iterable[str] | None) -> QTable:
    """Summarise every galaxy in one row.

    Parameters
    ----------
    posterior : Posterior
    quantities : str, iterable of str, or None
        Quantities to summarise, drawn or derived; None: all those drawn.

    Returns
    -------
    `~astropy.table.QTable`, n_galaxies rows
        Columns as `astrogenspec.Posterior.to_table` describes them.
    """
    table = QTable()
    table["name"] = np.array(posterior.names, dtype=str)
    if isinstance(quantities, str):
        quantities = [quantities]
    for name in posterior.quantities if quantities is None else quantities:
        quantity = posterior[name]
        low, middle, high = quantity.percentiles([16, 50, 84])
        summaries = dict(zip(SUMMARIES, (middle, low, high, quantity.std()), strict=True))
        for ending, values in summaries.items():
            missing = np.isnan(values.value)
            column = f"{name}_{ending}"
            table[column] = Masked(values, mask=missing) if missing.any() else values
            table[column].info.format = _table_format(name, values.unit)
            table[column].info.description = f"{SUMMARIES[ending]}. {quantity.description}".strip()
        if _has_information(posterior, name):
            bits = posterior.information(name)
            unknown = np.isnan(bits.value)
            column = f"{name}_information"
            table[column] = Masked(bits, mask=unknown) if unknown.any() else bits
            table[column].info.format = ".2f"
            table[
                column
            ].info.description = f"Divergence of the posterior of {name} from the population; below 0.5: mostly prior."
    if posterior.measurable is not None:
        unknown = np.isnan(posterior.measurable)
        values = posterior.measurable.copy()
        table["measurable"] = np.ma.array(values, mask=unknown) if unknown.any() else values
        table["measurable"].info.format = ".3f"
        table["measurable"].info.description = "Probability that the gas metallicity is measurable."
    photometry = posterior.photometry
    if photometry is not None and PREDICTIVE in photometry.colnames:
        table[PREDICTIVE] = photometry[PREDICTIVE]
        table[PREDICTIVE].info.format = ".3f"
        table[
            PREDICTIVE
        ].info.description = "Posterior predictive p-value of the photometry; if very small, the draws do not explain it."
    table["flag"] = np.array(posterior.flags, dtype=str)
    table["flag"].info.description = "Why not to trust this galaxy; empty if nothing is wrong."
    return table


def html_summary(posterior: Posterior) -> str:
    """Show the first galaxies as an HTML table of medians with the limits of the 68% interval.

    Parameters
    ----------
    posterior : Posterior

    Returns
    -------
    str
    """
    shown = posterior[:_HTML_ROWS]
    columns = [_html_column(shown[name]) for name in shown.quantities]
    head = "".join(f"<th>{title}</th>" for title, _ in columns)
    rows = []
    for number, (name, flag) in enumerate(zip(shown.names, shown.flags, strict=True)):
        cells = "".join(f"<td>{entries[number]}</td>" for _, entries in columns)
        rows.append(
            f"<tr><th>{html.escape(_shortened(name))}</th>{cells}"
            f"<td>{html.escape(_shortened(flag, 60))}</td></tr>"
        )
    hidden = len(posterior) - len(shown)
    more = f"<p>{hidden} more {'galaxy' if hidden == 1 else 'galaxies'}</p>" if hidden else ""
    return (
        f"<p>{html.escape(repr(posterior))}</p>"
        f"<table><thead><tr><th>name</th>{head}<th>flag</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>{more}"
    )


def _has_information(posterior: Posterior, name: str) -> bool:
    population = posterior.meta.get("population") or {}
    return name in posterior.draws and name in population and posterior.n_draws >= MINIMUM_DRAWS


def _html_column(quantity: QuantityPosterior) -> tuple[str, list[str]]:
    unit = str(quantity.unit)
    title = html.escape(quantity.name) + (f"<br>[{html.escape(unit)}]" if unit else "")
    low, middle, high = quantity.percentiles([16, 50, 84]).value
    spec = _table_format(quantity.name, quantity.unit)
    cells = [
        "&mdash;"
        if np.isnan(mid)
        else f"{mid:{spec}}<sup>+{up - mid:{spec}}</sup><sub>&minus;{mid - down:{spec}}</sub>"
        for down, mid, up in zip(low, middle, high, strict=True)
    ]
    return title, cells


def _table_format(name: str, unit: u.UnitBase) -> str:
    if name == "redshift":
        return ".4f"
    return ".3f" if "dex" in str(unit) else ".4g"


def _shortened(text: str, width: int = 40) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
