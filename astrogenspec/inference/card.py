"""Check the entries of the card that `astrogenspec.PropertyEstimator` uses.

All of them are optional: without ``recalibration`` draws are not corrected, without
``training_range``, ``novelty`` and ``predictive`` nothing is flagged, and without ``population`` no
information is computed.  Weights whose ``inputs`` are ``["photometry"]`` were trained without
images and refuse them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..calibration import CoverageGuarantee, Recalibration
from ..cards import check_mapping, check_range
from ..results.information import check_population
from .outliers.detector import check_outlier_statistics
from .outliers.predictive import PhotometryEmulator

__all__ = ["check_property_card"]


def check_property_card(card: Mapping[str, Any]) -> None:
    """Check the entries of a card.

    Parameters
    ----------
    card : mapping
        Card of the weights; an entry that is None counts as missing.

    Raises
    ------
    ValueError
        If an entry is invalid, or was written by a newer version.
    """
    for key, check in _CHECKS.items():
        if card.get(key) is not None:
            check(card[key])


def _check_inputs(values: Any) -> None:
    if not isinstance(values, list | tuple) or not set(values) <= {"images", "photometry"}:
        raise ValueError(f"the entry inputs is {values!r}, not a list of images and photometry.")


def _check_training_range(values: Any) -> None:
    for key, limits in check_mapping(values, "training_range").items():
        check_range(limits, f"training_range.{key}")


def _check_outliers(values: Any) -> None:
    # Cards of networks without statistics have an empty entry.
    if check_mapping(values, "novelty"):
        check_outlier_statistics(values)


def _check_population(values: Any) -> None:
    check_population(values, "population")


def _check_fits(values: Any) -> None:
    if not isinstance(values, list | tuple):
        raise ValueError(f"the entry fits is a {type(values).__name__}, not a list.")
    for k, fit in enumerate(values):
        scores = check_mapping(fit, f"fits[{k}]").get("held_out", {})
        for name, row in check_mapping(scores, f"fits[{k}].held_out").items():
            where = f"fits[{k}].held_out.{name}"
            missing = {"n", "bias", "scatter", "coverage_68"} - set(check_mapping(row, where))
            if missing:
                raise ValueError(f"the entry {where}.{min(missing)} is missing.")


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "guarantee": CoverageGuarantee.from_dict,
    "recalibration": Recalibration.from_dict,
    "inputs": _check_inputs,
    "training_range": _check_training_range,
    "novelty": _check_outliers,
    "predictive": PhotometryEmulator.from_dict,
    "population": _check_population,
    "fits": _check_fits,
}
