"""Galaxies simulated for a benchmark, and statistics of those that a network was trained on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from astrogenspec.inference.outliers.detector import magnitudes_and_errors, outlier_statistics
from astrogenspec.inference.outliers.predictive import PhotometryEmulator
from astrogenspec.inputs.cutouts import CutoutBatch
from astrogenspec.inputs.photometry import PhotometryBatch
from astrogenspec.results.information import population_of
from astrogenspec.simulate import GalaxyStream, Simulator
from astrogenspec.simulate.dataset import TRAINING_SAMPLES, Contents


def photometry_batch(
    flux: np.ndarray, error: np.ndarray, extinction: np.ndarray | None = None
) -> PhotometryBatch:
    """Make a batch of catalogue photometry, nmgy as observed, from arrays of shape (n, 5)."""
    n = len(flux)
    flux, error = np.asarray(flux, float), np.asarray(error, float)
    return PhotometryBatch(flux, error, np.zeros(n), np.zeros(n, bool), extinction=extinction)


def take(
    stream: GalaxyStream, n: int, columns: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """Take the first n galaxies of a stream that never ends: some columns, or all but the spectra."""
    parts, total = [], 0
    for batch in stream:
        parts.append({k: batch[k] for k in columns or batch if k != "spectrum"})
        total += len(batch["theta"])
        if total >= n:
            break
    return {k: torch.cat([p[k] for p in parts])[:n].float().numpy() for k in parts[0]}


def simulate(n: int, seed: int, *, images: bool) -> dict[str, np.ndarray]:
    """Simulate galaxies as in training, with observed images or without."""
    contents = Contents("observed" if images else "none", "none")
    columns = ["theta", "measurable", "flux", "error"] + ["image", "ivar"] * images
    return take(GalaxyStream(Simulator(), seed, TRAINING_SAMPLES, contents), n, columns)


def training_statistics(n: int, seed: int) -> dict:
    """Compute population, novelty and predictive statistics from n galaxies with images and 10 n, of the next seed, without."""
    seen, many = simulate(n, seed, images=True), simulate(10 * n, seed + 1, images=False)
    theta = many["theta"].astype(float)
    theta[many["measurable"] < 0.5, 3] = np.nan
    photometry = photometry_batch(many["flux"], many["error"])
    return {
        "novelty": outlier_statistics(photometry, CutoutBatch(seen["image"], seen["ivar"])),
        "population": population_of(theta),
        "predictive": PhotometryEmulator.fit(
            many["theta"], *magnitudes_and_errors(photometry)
        ).to_dict(),
    }
