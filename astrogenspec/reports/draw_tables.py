"""Synthetic photometry and emission lines of all draws of spectra in one table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import astropy.units as u
import numpy as np
from astropy.table import QTable

from ..measure.definitions import checked_names
from ..measure.lines import LINE_NAMES, measure_lines
from ..quantities import LINE_FLUX_UNIT
from ..surveys import Filter, Survey, get_filter, get_survey

if TYPE_CHECKING:
    from ..results.spectra import SpectrumDraws

__all__ = ["draw_table"]

_LINES = ("hbeta", "oiii5007", "halpha", "nii6584")


def draw_table(
    spectra: SpectrumDraws,
    *,
    surveys: str | Survey | Sequence[str | Survey] = "sdss",
    filters: Sequence[str | Filter] = (),
    lines: str | Sequence[str] = _LINES,
    progress: bool = False,
) -> QTable:
    """Compute photometry, line fluxes and equivalent widths of every draw.

    Parameters
    ----------
    spectra : SpectrumDraws
        Spectra of any number of galaxies, in the observed frame.
    surveys : str, Survey, or sequence of these
        Surveys with the filters; an empty sequence for none.
    filters : sequence of str or Filter
        Further filters, such as ``["decamDR1-g", "panstarrs-r"]``.
    lines : str or sequence of str
        Names from `~astrogenspec.measure.LINE_NAMES`; an empty sequence for no lines.
    progress : bool
        Whether to show a progress bar over the galaxies.

    Returns
    -------
    `~astropy.table.QTable`, n_galaxies * n_draws rows
        ``name``, ``draw``, ``posterior_draw`` (-1 where unknown), ``redshift``, ``weight``;
        ``flux_<survey>_<band>`` and ``flux_<filter>`` [nmgy], NaN where the spectrum does not cover
        the band; for each line ``<line>_flux``, ``<line>_equivalent_width`` (rest frame, positive
        in emission) and ``<line>_flags`` (see `~astrogenspec.decode_flags`). The draws of a galaxy
        follow one another. A missing draw is NaN.

    Raises
    ------
    ValueError
        If a survey, filter or line is unknown, or the spectra are in the rest frame.
    """
    from tqdm import tqdm

    if spectra.meta.get("frame") == "rest":
        raise ValueError("spectra is in the rest frame; photometry needs the observed frame.")
    chosen = checked_names(lines, LINE_NAMES, "line") if len(lines) else ()
    n, n_draws = spectra.redshift.shape
    table = QTable()
    table["name"] = np.repeat(np.array(spectra.names, dtype=str), n_draws)
    table["draw"] = np.tile(np.arange(n_draws), n)
    table["posterior_draw"] = spectra.posterior_draw.ravel()
    table["redshift"] = spectra.redshift.ravel()
    table["weight"] = spectra.weights.ravel()
    for survey in [surveys] if isinstance(surveys, str | Survey) else surveys:
        found = get_survey(survey) if isinstance(survey, str) else survey
        fluxes = spectra.photometry(found)
        for k, band in enumerate(found.bands):
            table[f"flux_{found.name}_{band}"] = fluxes[:, :, k].ravel()
    if len(filters):
        single = [get_filter(one) for one in filters]
        fluxes = spectra.photometry(filters=single)
        for k, one in enumerate(single):
            table[f"flux_{one.name}"] = fluxes[:, :, k].ravel()
    if not chosen:
        return table
    columns = _empty_columns(chosen, n * n_draws)
    for number in tqdm(range(n), desc="measuring lines", unit="galaxy", disable=not progress):
        _measure(spectra, number, chosen, columns)
    for name, values in columns.items():
        table[name] = values
    return table


def _empty_columns(lines: Sequence[str], n_rows: int) -> dict[str, u.Quantity | np.ndarray]:
    columns: dict[str, u.Quantity | np.ndarray] = {}
    for line in lines:
        columns[f"{line}_flux"] = np.full(n_rows, np.nan) * LINE_FLUX_UNIT
        columns[f"{line}_equivalent_width"] = np.full(n_rows, np.nan) * u.AA
        columns[f"{line}_flags"] = np.zeros(n_rows, np.int64)
    return columns


def _measure(
    spectra: SpectrumDraws,
    number: int,
    lines: Sequence[str],
    columns: dict[str, u.Quantity | np.ndarray],
) -> None:
    """Measure the lines of all draws of a galaxy and enter them in the columns."""
    present = np.flatnonzero(np.isfinite(spectra.redshift[number]))
    if not present.size:
        return
    stack = spectra[number].draws
    found = measure_lines(
        stack[present] if len(present) < spectra.n_draws else stack,
        lines,
        redshift=spectra.redshift[number, present],
        resolution=spectra.resolving_power,
    )
    rows = number * spectra.n_draws + present
    for line in lines:
        part = found[found["line"] == line]
        for key in ("flux", "equivalent_width", "flags"):
            columns[f"{line}_{key}"][rows] = part[key]
