"""Spectroscopic measurements: lines, indices, redshift, kinematics, populations and classes.

The ``measure_*`` functions take a `specutils.Spectrum`, generated or observed, single or a stack,
and return a `~astropy.table.QTable` with uncertainties, a column ``flags`` (bit codes of
`~astrogenspec.Flag`, 0 if nothing was found) and a column ``flag`` (the same as text).  Values that
cannot be measured are NaN and flagged.  The functions `line_flux`, `equivalent_width`, `index`,
`population`, `line_ratios`, `velocity_dispersion` and `cross_correlation_redshift` measure single
values and are meant for ``SpectrumDraws.measure``.

====================== ==================================================== =================
function               measures                                             stellar templates
====================== ==================================================== =================
`measure_lines`        fluxes, equivalent widths, kinematics of lines       used if installed
`measure_indices`      Lick/IDS indices, Balmer indices, Dn4000, D4000      no
`measure_redshift`     redshift by cross-correlation                        used if installed
`measure_kinematics`   velocity and velocity dispersion of the stars        required
`measure_populations`  age, metallicity, E(B-V) of the stars                required
`classify_bpt`         star formation or active nucleus, from four lines    no
`classify_whan`        the same, also for weak lines                        no
====================== ==================================================== =================

The stellar templates require the extra ``simulate``.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_EXPORTS = {
    "AGN_CLASSES": "diagnostics",
    "BPT_CLASSES": "diagnostics",
    "DEFAULT_LINES": "lines",
    "INDEX_NAMES": "indices",
    "LINE_NAMES": "lines",
    "POPULATION_NAMES": "populations",
    "WHAN_CLASSES": "diagnostics",
    "bpt_class": "diagnostics",
    "classify_bpt": "diagnostics",
    "classify_whan": "diagnostics",
    "cross_correlation_redshift": "redshift",
    "equivalent_width": "lines",
    "index": "indices",
    "index_definitions": "definitions",
    "is_seyfert": "diagnostics",
    "line_definitions": "definitions",
    "line_flux": "lines",
    "line_ratios": "diagnostics",
    "measure_indices": "indices",
    "measure_kinematics": "kinematics",
    "measure_lines": "lines",
    "measure_populations": "populations",
    "measure_redshift": "redshift",
    "population": "populations",
    "velocity_dispersion": "kinematics",
    "whan_class": "diagnostics",
}
__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(import_module(f".{_EXPORTS[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
