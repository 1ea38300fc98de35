r"""Calibration: diagnostics of posterior draws against true values, and recalibration.

If the draws of every galaxy come from a calibrated posterior, then

* the probability integral transform, the fraction of draws below the truth, is uniform on [0, 1]
  over the galaxies (`pit`), and so is the rank of the truth among the draws (`sbc_ranks`:
  simulation-based calibration; Talts et al. 2018, arXiv:1804.06788);
* the central interval of probability :math:`\alpha` holds the truth of a fraction :math:`\alpha`
  of the galaxies (`central_coverage`);
* for any reference point that does not depend on the truth, the fraction of draws nearer to it than
  the truth is uniform, also in several dimensions (`tarp`: tests of accuracy with random points;
  Lemos et al. 2023, arXiv:2302.03026).

Calibration does not imply informative posteriors: the prior is calibrated too.
`astrogenspec.metrics.crps` also measures sharpness.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .diagnostics import (
    TarpResult,
    central_coverage,
    coverage_of_pit,
    pit,
    sbc_ranks,
    tarp,
    uniformity_test,
)
from .features import INPUT_MODES
from .guarantees import CoverageGuarantee
from .recalibration import Recalibration, cross_fitted
from .spectra import SpectrumCorrection, SpectrumRecalibration

__all__ = [
    "INPUT_MODES",
    "CalibrationReport",
    "CoverageGuarantee",
    "Recalibration",
    "SpectrumCorrection",
    "SpectrumRecalibration",
    "TarpResult",
    "calibration_report",
    "calibration_table",
    "central_coverage",
    "coverage_of_pit",
    "cross_fitted",
    "pit",
    "sbc_ranks",
    "tarp",
    "uniformity_test",
]


#: Public names defined in modules of `astrogenspec.reports`, loaded on first use.
_REPORTS = {
    "CalibrationReport": "calibration",
    "calibration_report": "calibration",
    "calibration_table": "scores",
}


def __getattr__(name: str) -> Any:
    if name in _REPORTS:
        return getattr(import_module(f"..reports.{_REPORTS[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
