"""Is a galaxy like those that the network was trained on?

The card of a network may hold ``training_range``, a dictionary of ``[lowest, highest]``: ``r_magnitude`` and likewise for
the other bands, ``g-r`` and other colours (AB magnitudes, corrected for Galactic extinction), and any quantity of the
posterior in its own unit (a line flux as log10).  Inputs are compared with the first two, the median of the posterior with
the last.  A galaxy outside is flagged; its draws are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..photometry import PhotometryBatch
from ..quantities import QUANTITIES
from ..surveys import BANDS

__all__ = ["input_range_flags", "joined_flags", "posterior_range_flags", "training_range_of"]

_MAGNITUDE = "_magnitude"


def input_range_flags(
    limits: Mapping[str, Sequence[float]], photometry: PhotometryBatch
) -> list[str]:
    """Compare magnitudes and colours with the range of training.

    Parameters
    ----------
    limits : mapping of str to (lowest, highest)
        The card's ``training_range``.
    photometry : PhotometryBatch
        What the network sees.

    Returns
    -------
    list of str
        One sentence for each galaxy; empty strings inside of the range or where nothing is known.
    """
    flags = [""] * len(photometry)
    for key, magnitudes in _magnitudes(photometry).items():
        if key in limits:
            what = (
                f"{key.removesuffix(_MAGNITUDE)} magnitude"
                if _MAGNITUDE in key
                else f"colour {key}"
            )
            _note(flags, what, magnitudes, limits[key], digits=2)
    return flags


def posterior_range_flags(limits: Mapping[str, Sequence[float]], theta: np.ndarray) -> list[str]:
    """Compare medians of the posterior with the range of training.

    Parameters
    ----------
    limits : mapping of str to (lowest, highest)
        The card's ``training_range``.
    theta : ndarray, shape (n, n_draws, 9)
        Draws.

    Returns
    -------
    list of str
        One sentence for each galaxy; empty strings inside of the range.
    """
    flags = [""] * len(theta)
    for k, name in enumerate(QUANTITIES):
        if name in limits:
            median = np.median(theta[:, :, k], axis=1)
            _note(flags, f"median {name}", median, limits[name], digits=3)
    return flags


def training_range_of(photometry: PhotometryBatch, theta: np.ndarray) -> dict[str, list[float]]:
    """Give the range that a training set spans.

    Parameters
    ----------
    photometry : PhotometryBatch
        Photometry of the training set.
    theta : ndarray, shape (n, 9)
        Labels, NaN where unknown.

    Returns
    -------
    dict of str to [lowest, highest]
        The r magnitude and the redshift, as far as they are known.
    """
    columns = {f"r{_MAGNITUDE}": _magnitudes(photometry)[f"r{_MAGNITUDE}"], "redshift": theta[:, 0]}
    return {
        key: [float(np.nanmin(values)), float(np.nanmax(values))]
        for key, values in columns.items()
        if np.isfinite(values).any()
    }


def joined_flags(*parts: Sequence[str]) -> tuple[str, ...]:
    """Join several lists of sentences, galaxy by galaxy."""
    return tuple("; ".join(filter(None, flags)) for flags in zip(*parts, strict=True))


def _magnitudes(photometry: PhotometryBatch) -> dict[str, np.ndarray]:
    """Give AB magnitudes and all colours, dereddened; NaN where there is no positive flux."""
    flux = photometry.dereddened()[0]
    magnitude = 22.5 - 2.5 * np.log10(flux, out=np.full(flux.shape, np.nan), where=flux > 0)
    columns: dict[str, Any] = {f"{b}{_MAGNITUDE}": magnitude[:, k] for k, b in enumerate(BANDS)}
    for j, blue in enumerate(BANDS):
        for k in range(j + 1, len(BANDS)):
            columns[f"{blue}-{BANDS[k]}"] = magnitude[:, j] - magnitude[:, k]
    return columns


def _note(
    flags: list[str], what: str, values: np.ndarray, limits: Sequence[float], digits: int
) -> None:
    low, high = limits
    with np.errstate(invalid="ignore"):
        outside = (values < low) | (values > high)
    for k in np.flatnonzero(outside):
        sentence = (
            f"{what} {values[k]:.{digits}f} is outside of the range of training, "
            f"{low:.{digits}f} to {high:.{digits}f}"
        )
        flags[k] = f"{flags[k]}; {sentence}" if flags[k] else sentence
