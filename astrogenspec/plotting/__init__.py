"""Figures of posteriors, spectra, images, calibration and training.

Functions that draw one panel take an ``ax`` and return the `~matplotlib.axes.Axes`; those that draw
several panels, `corner` and `reconstruction`, take and return a `~matplotlib.figure.Figure`.  No
global setting of matplotlib is changed.  The packages needed are installed by ``pip install
"astrogenspec[plot]"``.
"""

from __future__ import annotations

from .diagnostics import coverage_curve, pit_histogram, tarp_curve
from .images import annotate_image, color_image
from .networks import latent_map, reconstruction, training_history
from .posteriors import corner, prediction_vs_truth
from .spectra import spectrum

__all__ = [
    "annotate_image",
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
