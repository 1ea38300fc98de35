"""Draws of a galaxy, wider or narrower about their median; see `astrogenspec.calibration.SpectrumRecalibration`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from ..calibration import SpectrumRecalibration
from ..wavelengths import WIDE
from .assembly import synthetic_nmgy
from .candidates import DrawnSpectra

__all__ = ["recalibrated"]

_LEAST_FLUX = 1e-12


def recalibrated(
    drawn: DrawnSpectra, recalibration: SpectrumRecalibration, modes: np.ndarray, aperture: str
) -> DrawnSpectra:
    """Widen or narrow the ranges of the continua.

    Parameters
    ----------
    drawn : DrawnSpectra
        n galaxies.
    recalibration : SpectrumRecalibration
    modes : ndarray of str, shape (n,)
        What each galaxy was inferred from.
    aperture : str

    Returns
    -------
    DrawnSpectra
        With the median of the continua, redshifts, lines and scores as they were; a single draw does not change.
    """
    factors = recalibration.factors(
        modes, aperture, np.median(drawn.redshift, axis=1), WIDE.wavelength
    )
    continuum = np.log(np.maximum(drawn.flux - drawn.lines, _LEAST_FLUX))
    middle = np.median(continuum, axis=1, keepdims=True)
    continuum = np.exp(middle + factors[:, None].astype(np.float32) * (continuum - middle))
    flux = continuum + drawn.lines
    before, after = (synthetic_nmgy(torch.as_tensor(f)).numpy() for f in (drawn.flux, flux))
    return replace(drawn, flux=flux, residual=drawn.residual - 2.5 * np.log10(after / before))
