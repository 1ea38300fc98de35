"""The spectroscopic toolbox: lines, indices, redshift, kinematics, populations and classes of any spectrum.

Every function takes a `specutils.Spectrum`, generated or observed, one or a stack of draws, and gives a
`~astropy.table.QTable` with uncertainties and a ``flag`` column.  What cannot be measured is NaN and flagged.  Functions
that give bare numbers are there for ``SpectrumDraws.measure``: `line_flux`, `equivalent_width`, `index`, `population`,
`line_ratios`, `velocity_dispersion`, `cross_correlation_redshift`.

=========================  =======================================================  ==================
function                   measures                                                 stellar grid
=========================  =======================================================  ==================
`measure_lines`            fluxes, equivalent widths, kinematics of emission lines  used if installed
`measure_indices`          Lick/IDS indices, Balmer indices, Dn4000, D4000          no
`measure_redshift`         redshift by cross-correlation                            used if installed
`measure_kinematics`       velocity and dispersion of the stars                     needed
`measure_populations`      age, metallicity, E(B-V) of the stars                    needed
`classify_bpt`             star formation or nucleus, from lines                    no
`classify_whan`            the same, for weak lines                                 no
=========================  =======================================================  ==================

The stellar grid comes with the extra ``simulate``.
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
