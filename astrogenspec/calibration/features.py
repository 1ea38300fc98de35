"""What corrections of a posterior depend on: its own median and width, magnitudes and colours, the kind of input."""

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

__all__ = ["INPUT_MODES", "band_sets", "check_modes", "correction_features", "magnitudes_of"]

#: Kinds of input, each of which has corrections of its own.
INPUT_MODES = ("image", "photometry", "both")


def correction_features(values: np.ndarray, magnitudes: np.ndarray) -> np.ndarray:
    """Collect what corrections depend on.

    Parameters
    ----------
    values : ndarray, shape (n, k)
        Draws of one quantity in its internal unit.
    magnitudes : ndarray, shape (n, 5)
        As `magnitudes_of` gives them.

    Returns
    -------
    ndarray, shape (n, 8)
        Median, log10 of half the 68% interval, r, four colours, number of bands; NaN where missing.
    """
    low, middle, high = row_percentiles(values, [16, 50, 84])
    width = np.log10(np.maximum((high - low) / 2, 1e-8))
    red, n_bands = magnitudes[:, BANDS.index("r")], np.isfinite(magnitudes).sum(axis=1)
    return np.column_stack([middle, width, red, -np.diff(magnitudes, axis=1), n_bands])


def magnitudes_of(posterior: Posterior) -> np.ndarray:
    """Give the magnitudes that a posterior was inferred from.

    Parameters
    ----------
    posterior : Posterior

    Returns
    -------
    ndarray, shape (n_galaxies, 5)
        AB, u, g, r, i, z, corrected for Galactic extinction; NaN where missing, everywhere if there is no photometry.
    """
    table = posterior.photometry
    columns = [f"{kind}_{band}" for band in BANDS for kind in ("flux", "extinction")]
    if table is None or not set(columns) <= set(table.colnames):
        return np.full((len(posterior), len(BANDS)), np.nan)
    flux = np.stack([u.Quantity(table[f"flux_{b}"]).to_value(u.nmgy) for b in BANDS], axis=1)
    dust = np.stack([u.Quantity(table[f"extinction_{b}"]).to_value(u.mag) for b in BANDS], axis=1)
    return ab_magnitudes(flux * 10 ** (0.4 * dust))


def band_sets(magnitudes: np.ndarray) -> np.ndarray:
    """Name the bands that each galaxy has.

    Parameters
    ----------
    magnitudes : ndarray, shape (n, 5)
        NaN where missing.

    Returns
    -------
    ndarray of str, shape (n,)
        Such as ``"gri"``; empty if it has none.
    """
    letters = np.where(np.isfinite(magnitudes), list(BANDS), "")
    return np.array(["".join(row) for row in letters], dtype=f"U{len(BANDS)}")


def check_modes(mode: str | Sequence[str] | np.ndarray, n: int) -> np.ndarray:
    """Check kinds of input, one for all galaxies or one for each.

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
        If a kind is unknown, or there is another number of them.
    """
    modes = np.full(n, mode) if isinstance(mode, str) else np.asarray(mode)
    if modes.shape != (n,):
        raise ValueError(
            f"mode has shape {modes.shape} for {n} galaxies; give one, or one a galaxy."
        )
    for kind in dict.fromkeys(modes.tolist()):
        if kind not in INPUT_MODES:
            raise ValueError(f"mode is {kind!r}; give one of {', '.join(INPUT_MODES)}.")
    return modes
