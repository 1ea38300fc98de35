"""Training: shared recipe, loop with checkpoints, resumable streams, shards and augmentation."""

from __future__ import annotations

from .loop import History, TrainingConfig, fit

__all__ = ["History", "TrainingConfig", "fit"]
