r"""Test a joint posterior with random points (TARP).

Take a reference point that does not depend on the truth.  If the posterior is calibrated, the
share of its draws nearer to the point than the truth is uniform over the galaxies, in any number
of dimensions.  The expected coverage at level :math:`\alpha` is the fraction of galaxies whose
share is below :math:`\alpha`: the diagonal for a calibrated posterior, an S around it for one too
narrow or too wide, and a curve on one side of it for a biased one.

References
----------
Lemos, Coogan, Hezaveh & Perreault-Levasseur 2023, arXiv:2302.03026.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np
from astropy.table import Table

from ..draws.statistics import plain_values
from .ranks import pit, uniformity_test, values_in_dex

if TYPE_CHECKING:
    from ..posterior import Posterior

__all__ = ["TarpResult", "tarp"]

_Seed = int | np.random.Generator | None


@dataclass(frozen=True)
class TarpResult:
    """Expected coverage of random regions.

    Parameters
    ----------
    levels : ndarray, shape (n_levels,)
        Nominal probabilities, from 0 to 1.
    coverage : ndarray, shape (n_levels,)
        Fraction of galaxies whose truth is inside; equal to ``levels`` if calibrated.
    lower, upper : ndarray, shape (n_levels,)
        Limits of the 95% bootstrap band of the coverage.
    max_deviation : float
        Largest absolute difference of coverage and level.
    p_value : float
        Kolmogorov-Smirnov probability of so large a deviation in a calibrated posterior.
    n_galaxies : int
        Number of galaxies used.
    """

    levels: np.ndarray
    coverage: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    max_deviation: float
    p_value: float
    n_galaxies: int


def tarp(
    draws: Posterior | np.ndarray,
    truth: Mapping[str, u.Quantity] | Table | np.ndarray,
    *,
    references: np.ndarray | None = None,
    n_levels: int = 51,
    n_bootstrap: int = 200,
    seed: _Seed = 0,
) -> TarpResult:
    """Give the expected coverage of a joint posterior around random reference points.

    Parameters
    ----------
    draws : `~astrogenspec.Posterior`, or ndarray of shape (n_galaxies, n_draws, n_dimensions)
    truth : mapping or table of Quantity, or ndarray of shape (n_galaxies, n_dimensions)
        With a posterior: true values of shape (n_galaxies,) by name of the quantity; the names
        choose what is tested (columns of a table that are no quantity are passed over).  Fluxes
        are compared in their logarithm.
    references : ndarray, shape (n_galaxies, n_dimensions), optional
        Reference points, which may depend on the data but not on the truth, in the coordinates of
        ``draws`` (for a posterior: dex, and log10 of fluxes).  Uniform in the box from the 1st to
        the 99th percentile of the truths by default.
    n_levels : int
        Number of levels from 0 to 1.
    n_bootstrap : int
        Number of resamples of the galaxies, for the band.
    seed : int or `~numpy.random.Generator`, optional
        Seed of reference points and resampling.

    Returns
    -------
    TarpResult

    Raises
    ------
    ValueError
        If shapes do not fit, or no galaxy has a truth and draws.
    KeyError
        If the posterior lacks a quantity.
    """
    samples, true = _stacked(draws, truth)
    usable = np.isfinite(true).all(axis=1) & np.isfinite(samples).all(axis=(1, 2))
    if not usable.any():
        raise ValueError("no galaxy has both a true value and draws of every quantity.")
    rng = np.random.default_rng(seed)
    low, high = np.percentile(true[usable], [1, 99], axis=0)
    scale = np.where(high > low, high - low, 1.0)
    if references is None:
        references = low + rng.random(true.shape) * scale
    references = np.asarray(references, dtype=float)
    if references.shape != true.shape:
        raise ValueError(
            f"references has shape {references.shape}; give {true.shape}, as the truth."
        )
    shares = _shares(samples[usable], true[usable], references[usable], scale, rng)

    levels = np.linspace(0, 1, n_levels)
    # resampling galaxies is drawing their numbers per interval between levels from a multinomial
    counts = np.histogram(shares, levels)[0]
    resampled = rng.multinomial(len(shares), counts / len(shares), size=n_bootstrap)
    curves = np.cumsum(np.vstack([counts, resampled]), axis=1) / len(shares)
    curves = np.hstack([np.zeros((len(curves), 1)), curves])
    lower, upper = np.percentile(curves[1:], [2.5, 97.5], axis=0)
    return TarpResult(
        levels,
        curves[0],
        lower,
        upper,
        float(np.abs(curves[0] - levels).max()),
        uniformity_test(shares)[1],
        len(shares),
    )


def _stacked(draws: Any, truth: Any) -> tuple[np.ndarray, np.ndarray]:
    """Give draws (n_galaxies, n_draws, n_dimensions) and truth (n_galaxies, n_dimensions)."""
    if isinstance(truth, Table):
        truth = {name: truth[name] for name in truth.colnames if name in draws}
    if isinstance(truth, Mapping):
        if not hasattr(draws, "quantities"):
            raise TypeError(
                f"truth names quantities, but draws is a {type(draws).__name__}; give a Posterior."
            )
        if not truth:
            raise ValueError("truth names no quantity; give at least one true value, by quantity.")
        pairs = [values_in_dex(draws[name], value)[:2] for name, value in truth.items()]
        return np.stack([p[0] for p in pairs], axis=-1), np.stack([p[1] for p in pairs], axis=-1)
    samples = np.asarray(draws, dtype=float)
    true = plain_values(truth, None, name="truth").astype(float)
    if samples.ndim != 3 or true.shape != (samples.shape[0], samples.shape[2]):
        raise ValueError(
            f"draws has shape {samples.shape}, truth has {true.shape}; give (n_galaxies, n_draws, "
            f"n_dimensions) and (n_galaxies, n_dimensions)."
        )
    return samples, true


def _shares(
    samples: np.ndarray,
    true: np.ndarray,
    references: np.ndarray,
    scale: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Give the share of each galaxy's draws nearer to its reference point than the truth."""
    of_truth = np.sum(((true - references) / scale) ** 2, axis=1)
    of_draws = np.empty(samples.shape[:2])
    for number, reference in enumerate(references):
        of_draws[number] = np.sum(((samples[number] - reference) / scale) ** 2, axis=1)
    return pit(of_draws, of_truth, seed=rng)
