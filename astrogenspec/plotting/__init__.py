"""Figures of posteriors, of their calibration, and of what the networks do.

Every function takes an ``ax`` and returns the `~matplotlib.axes.Axes` it drew on; those that need
several panels, `corner` and `reconstruction`, take and return a `~matplotlib.figure.Figure`.
Nothing global is changed.  Needs the packages of ``pip install "astrogenspec[plot]"``.
"""

from __future__ import annotations

from .diagnostics import coverage_curve, pit_histogram, tarp_curve
from .networks import color_image, latent_map, reconstruction, training_history
from .posteriors import corner, prediction_vs_truth
from .spectra import spectrum

__all__ = [
    "color_image",
    "corner",
    "coverage_curve",
    "latent_map",
    "pit_histogram",
    "prediction_vs_truth",
    "reconstruction",
    "spectrum",
    "tarp_curve",
    "training_history",
]
