"""AB magnitudes of fluxes in nanomaggies."""

from __future__ import annotations

import numpy as np

__all__ = ["ab_magnitudes"]


def ab_magnitudes(flux: np.ndarray) -> np.ndarray:
    """Turn fluxes into magnitudes.

    Parameters
    ----------
    flux : ndarray
        nmgy.

    Returns
    -------
    ndarray, of the same shape
        AB magnitudes; NaN where the flux is not positive, or missing.
    """
    flux = np.asarray(flux, dtype=float)
    missing = np.full(flux.shape, np.nan)
    with np.errstate(invalid="ignore"):
        return 22.5 - 2.5 * np.log10(flux, out=missing, where=flux > 0)
