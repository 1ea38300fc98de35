"""Features of the recalibration (median, width, magnitudes, colours, bands), and input modes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import astropy.units as u
import numpy as np

from ..inputs.fluxes import ab_magnitudes
from ..results.statistics import row_percentiles
from ..surveys import BANDS

if TYPE_CHECKING:
    from ..results.posterior import Posterior

__all__ = [
    "INPUT_MODES",
    "N_FEATURES",
    "band_sets",
    "check_modes",
    "correction_features",
    "magnitudes_of",
]

#: Input modes, each with its own corrections.
INPUT_MODES = ("image", "photometry", "both")
#: Number of features.
N_FEATURES = 8


def correction_features(values: np.ndarray, magnitudes: np.ndarray) -> np.ndarray:
    """Compute the features of the recalibration.

    Parameters
    ----------
    values : ndarray, shape (n, k)
        Draws of one quantity in its internal unit.
    magnitudes : ndarray, shape (n, 5)
        Output of `magnitudes_of`.

    Returns
    -------
    ndarray, shape (n, 8)
        Median, log10 of half the 68% interval, r magnitude, four adjacent colours, number of bands;
        NaN where missing.
    """
    low, middle, high = row_percentiles(values, [16, 50, 84])
    width = np.log10(np.maximum((high - low) / 2, 1e-8))
    red, n_bands = magnitudes[:, BANDS.index("r")], np.isfinite(magnitudes).sum(axis=1)
    return np.column_stack([middle, width, red, -np.diff(magnitudes, axis=1), n_bands])


def magnitudes_of(posterior: Posterior) -> np.ndarray:
    """Compute the dereddened magnitudes that a posterior was inferred from.

    Parameters
    ----------
    posterior : Posterior

    Returns
    -------
    ndarray, shape (n_galaxies, 5)
        AB magnitudes in u, g, r, i, z, corrected for Galactic extinction; NaN where missing, and
        for photometry in other filters than those of SDSS.
    """
    table = posterior.photometry
    columns = [f"{prefix}_{band}" for band in BANDS for prefix in ("flux", "extinction")]
    if table is None or "filters" in posterior.meta or not set(columns) <= set(table.colnames):
        return np.full((len(posterior), len(BANDS)), np.nan)
    flux = np.stack([u.Quantity(table[f"flux_{b}"]).to_value(u.nmgy) for b in BANDS], axis=1)
    dust = np.stack([u.Quantity(table[f"extinction_{b}"]).to_value(u.mag) for b in BANDS], axis=1)
    return ab_magnitudes(flux * 10 ** (0.4 * dust))


def band_sets(magnitudes: np.ndarray) -> np.ndarray:
    """Return the set of bands of each galaxy.

    Parameters
    ----------
    magnitudes : ndarray, shape (n, 5)
        NaN where missing.

    Returns
    -------
    ndarray of str, shape (n,)
        Such as ``"gri"``; empty if there is no photometry.
    """
    letters = np.where(np.isfinite(magnitudes), list(BANDS), "")
    return np.array(["".join(row) for row in letters], dtype=f"U{len(BANDS)}")


def check_modes(mode: str | Sequence[str] | np.ndarray, n: int) -> np.ndarray:
    """Validate input modes, one for all galaxies or one per galaxy.

    Parameters
    ----------
    mode : str or sequence of str
    n : int
        Number of galaxies.

    Returns
    -------
    ndarray of str, shape (n,)

    Raises
    ------
    ValueError
        If a mode is unknown, or their number differs from the number of galaxies.
    """
    modes = np.full(n, mode) if isinstance(mode, str) else np.asarray(mode)
    if modes.shape != (n,):
        raise ValueError(
            f"mode has shape {modes.shape} for {n} galaxies; one mode or one per galaxy is "
            "expected."
        )
    for name in dict.fromkeys(modes.tolist()):
        if name not in INPUT_MODES:
            raise ValueError(f"mode is {name!r}; it must be one of {', '.join(INPUT_MODES)}.")
    return modes
