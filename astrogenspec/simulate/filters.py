"""Broad-band filters as weights on the simulator's grids: nanomaggies per unit of flux density."""

from __future__ import annotations

from functools import cache

import numpy as np
import speclite.filters
import torch
from torch import Tensor

from ..surveys import SDSS, Survey
from ..wavelengths import LogGrid
from .ssp import COARSE

__all__ = ["MAX_SHIFT", "observed_filters", "shifted_filters"]

#: Largest redshift shift of `shifted_filters` in units of 1e-4 dex (z = 0.4).
MAX_SHIFT = 1462
_SHIFT_STEP = 1e-4
_AB_ZERO = 3.631e-20  # erg/s/cm2/Hz
_LIGHT = 2.99792458e18  # A/s
_NMGY = 1e-8  # 1e9 nmgy per maggy x 1e-17 of the flux unit


def _response(name: str, log_wavelength: np.ndarray, step: float) -> np.ndarray:
    """Weights that turn f_lambda (1e-17 erg/s/cm2/A) on a log grid into nanomaggies, shape (m,)."""
    curve = speclite.filters.load_filter(name)
    known = np.log10(np.asarray(curve.wavelength, dtype=float))

    def photons(log_lambda: np.ndarray, spacing: float) -> np.ndarray:
        response = np.interp(log_lambda, known, curve.response, left=0, right=0)
        return response * 10 ** (2 * log_lambda) * spacing * np.log(10)

    dense = np.linspace(known[0], known[-1], 4000)
    zero = photons(dense, dense[1] - dense[0]) * _AB_ZERO * _LIGHT / 10 ** (2 * dense)
    return photons(log_wavelength, step) / zero.sum() * _NMGY


@cache
def shifted_filters(survey: Survey = SDSS) -> Tensor:
    """Weights of the survey's bands and 2MASS J on the coarse rest-frame grid, for every redshift shift.

    Returns
    -------
    Tensor, shape (1463, 890, n_bands + 1)
        nanomaggies per 1e-17 erg/s/cm2/A; the first axis is ``round(1e4 log10(1 + z))``.
    """
    per_bin = round(COARSE.step / _SHIFT_STEP)
    size = COARSE.size * per_bin + MAX_SHIFT
    first = COARSE.start - 0.5 * (per_bin - 1) * _SHIFT_STEP
    log_wavelength = first + _SHIFT_STEP * np.arange(size)
    names = [survey.filter_names[band] for band in survey.bands] + ["twomass-J"]
    fine = np.stack([_response(name, log_wavelength, _SHIFT_STEP) for name in names], axis=1)
    weights = np.stack(
        [
            fine[s : s + COARSE.size * per_bin].reshape(COARSE.size, per_bin, -1).sum(1)
            for s in range(MAX_SHIFT + 1)
        ]
    )
    return torch.tensor(weights, dtype=torch.float32)


def observed_filters(grid: LogGrid, survey: Survey = SDSS) -> Tensor:
    """Weights of the survey's bands on an observed-frame grid.

    Returns
    -------
    Tensor, shape (grid.size, n_bands)
        nanomaggies per 1e-17 erg/s/cm2/A.
    """
    columns = [
        _response(survey.filter_names[band], grid.log_wavelength, grid.step)
        for band in survey.bands
    ]
    return torch.tensor(np.stack(columns, axis=1), dtype=torch.float32)
