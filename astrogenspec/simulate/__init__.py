"""Simulator: a population of galaxies with spectra, photometry and images (extra ``simulate``)."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_EXPORTS = {
    "Contents": ".dataset",
    "GalaxyStream": ".dataset",
    "Sample": ".simulator",
    "SimulatedGalaxies": ".simulator",
    "Simulator": ".simulator",
    "TRAINING_SAMPLES": ".dataset",
    "load_priors": ".priors",
    "write_report": "..reports.simulator",
    "write_shards": ".dataset",
}
__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
