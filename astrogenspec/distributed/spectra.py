"""Spectra of the galaxies of a survey run: the best one and the range, on two grids.

The full grid has the 3841 pixels of generated spectra, 3800 to 9200 Angstrom; the coarse one the
means of 16 neighbouring pixels. Both are equally spaced in log10 of the vacuum wavelength.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ..results.posterior import Posterior
from ..results.spectra import SpectrumDraws
from ..results.statistics import weighted_percentiles
from ..warnings import AstroGenSpecWarning, filtered_warnings
from ..wavelengths import GENERATED, LogGrid
from .devices import own_device
from .summaries import Columns

__all__ = ["GRIDS", "SpectrumSettings", "infer_spectra", "no_spectra", "spectrum_columns"]

#: Number of pixels of the full grid in one of the coarse grid.
_FACTOR = 16
_COARSE = LogGrid(
    GENERATED.start + GENERATED.step * (_FACTOR - 1) / 2,
    GENERATED.step * _FACTOR,
    GENERATED.size // _FACTOR,
)
#: Grids by the beginning of the names of their columns.
GRIDS = {"spectrum_coarse": _COARSE, "spectrum": GENERATED}
_POINTS = {"best": None, "p16": 16.0, "p84": 84.0}
#: Largest number of galaxies and of spectra that are generated at once.
_MAX_GALAXIES, _MAX_SPECTRA = 64, 256


@dataclass(frozen=True)
class SpectrumSettings:
    """How spectra are generated.

    Attributes
    ----------
    n_draws : int
        Number of spectra of each galaxy.
    seed : int
        Seed of the random numbers.
    weights : str or None
        Registered weights, or path of a ``.safetensors`` file.
    grid : {"full", "coarse"}
        Grid.
    device : str
        Device of the network.
    """

    n_draws: int
    seed: int
    weights: str | None = None
    grid: str = "full"
    device: str = "cpu"


def infer_spectra(
    photometry: Any,
    keys: np.ndarray,
    posterior: Posterior,
    cutouts: list[Any] | None,
    settings: SpectrumSettings,
    **options: Any,
) -> Columns:
    """Generate the spectra of galaxies whose posterior is known.

    Parameters
    ----------
    photometry : QTable or None
        Photometry.
    keys : ndarray, shape (n,)
        Identifiers.
    posterior : Posterior
        Posterior of the galaxies.
    cutouts : list or None
        Images of the galaxies.
    settings : SpectrumSettings
        How they are generated.
    **options
        ``ebv`` and ``survey``, as for `astrogenspec.SpectrumEstimator.predict`.

    Returns
    -------
    dict of str to ndarray
        Columns of `spectrum_columns`.
    """
    estimator = _estimator(settings.weights, settings.device)
    size = max(1, min(_MAX_GALAXIES, _MAX_SPECTRA // settings.n_draws))
    with filtered_warnings("ignore", AstroGenSpecWarning):
        blocks = estimator.predict_iter(
            cutouts,
            photometry,
            posterior,
            n_draws=settings.n_draws,
            on_error="flag",
            seed=settings.seed,
            ids=keys,
            batch_size=size,
            progress=False,
            **options,
        )
        parts = [spectrum_columns(block, settings.grid) for block in blocks]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@lru_cache(maxsize=1)
def _estimator(weights: str | None, device: str) -> Any:
    from ..generation.estimator import SpectrumEstimator

    return SpectrumEstimator.from_pretrained(weights, device=own_device(device))


def spectrum_columns(spectra: SpectrumDraws, grid: str) -> Columns:
    """Summarise the spectra of each galaxy.

    Parameters
    ----------
    spectra : SpectrumDraws
        Spectra of n galaxies.
    grid : {"coarse", "full"}
        Grid; the full one is in addition to the coarse one.

    Returns
    -------
    dict of str to ndarray
        ``spectrum_coarse_best`` (the best draw), ``_p16`` and ``_p84`` (percentiles of each pixel),
        float32, shape (n, n_pixels), NaN without spectra; likewise ``spectrum_best`` and so on;
        ``spectrum_redshift``, that of the best draw; and ``spectrum_flags``.
    """
    flux, best = spectra.flux.value, spectra.best_draw
    rows, known = np.arange(len(best)), best >= 0
    n = _COARSE.size * _FACTOR
    coarse = flux[..., :n].reshape(*flux.shape[:2], _COARSE.size, _FACTOR).mean(axis=-1)
    columns: Columns = {}
    for name, values in (("spectrum_coarse", coarse), ("spectrum", flux)):
        if name == "spectrum" and grid != "full":
            continue
        chosen = np.where(known[:, None], values[rows, np.maximum(best, 0)], np.nan)
        columns[f"{name}_best"] = chosen.astype(np.float32)
        wanted = np.array([q for q in _POINTS.values() if q is not None])
        ranges = weighted_percentiles(values, spectra.weights, wanted)
        for key, each in zip(("p16", "p84"), ranges, strict=True):
            columns[f"{name}_{key}"] = each.astype(np.float32)
    redshift = np.where(known, spectra.redshift[rows, np.maximum(best, 0)], np.nan)
    columns["spectrum_redshift"] = redshift.astype(np.float32)
    columns["spectrum_flags"] = spectra.flag_codes.astype(np.int64)
    return columns


def no_spectra(grid: str) -> Columns:
    """Return the columns of a table without rows."""
    columns: Columns = {
        f"{name}_{key}": np.zeros((0, pixels.size), np.float32)
        for name, pixels in GRIDS.items()
        if grid == "full" or name != "spectrum"
        for key in _POINTS
    }
    columns["spectrum_redshift"] = np.zeros(0, np.float32)
    columns["spectrum_flags"] = np.zeros(0, np.int64)
    return columns
