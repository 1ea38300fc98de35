"""Lane B as users see it."""

from __future__ import annotations

from typing import Any

from ..base import Estimator
from .cascade import SpectrumNetwork

__all__ = ["SpectrumEstimator"]


class SpectrumEstimator(Estimator):
    """Draw optical spectra."""

    @classmethod
    def build_network(cls, config: dict[str, Any]) -> SpectrumNetwork:
        """Build the untrained network from the ``config`` of another."""
        return SpectrumNetwork.from_config(config)

    def predict(self): ...
    def fit(self): ...
