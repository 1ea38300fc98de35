r"""Intervals with guaranteed coverage: local split-conformal prediction.

A central interval of the posterior with median :math:`m` and ends :math:`l, u` at some level is
stretched about the median to

.. math:: [\, m - k\,(m - l),\; m + k\,(u - m) \,] .

For the labelled galaxies of a calibration sample that was not used for training, the stretch that
just reaches the true value :math:`y` is :math:`k_i = \max[(m - y)/(m - l), (y - m)/(u - m)]`.  The
stretch used for another galaxy is the quantile of the :math:`k_i` at the level, computed with one
additional galaxy at infinity.  If the other galaxy and those of the sample are exchangeable, the
stretched interval contains its true value with at least the stated probability, whatever the
quality of the posterior [1]_ [2]_.

The sample is split into cells of equal weight, alternately by the median and width of the
posterior, the r magnitude and the g - r colour, and the quantile is computed in each cell.  The
guarantee therefore holds in each cell (Mondrian conformal prediction [1]_), on average over
calibration samples: with n galaxies, the coverage of a cell at level a scatters by
:math:`\sqrt{a(1-a)/n}`.  With weights, the guarantee is that of the weighted population [3]_.

References
----------
.. [1] Vovk, Gammerman & Shafer 2005, Algorithmic Learning in a Random World
.. [2] Romano, Patterson & Candes 2019, arXiv:1905.03222 (conformalised quantile regression)
.. [3] Tibshirani et al. 2019, arXiv:1904.06019 (covariate shift)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np
from astropy.table import Table
from numpy.typing import ArrayLike

from ..cards import check_layout, check_text, entries, entry
from ..quantities import QUANTITIES, quantities_to_theta
from ..results.quantity import GUARANTEED_LEVELS
from ..results.statistics import row_percentiles
from .features import band_sets, check_modes, correction_features, magnitudes_of
from .recalibration import cross_fitted, fit_if_enough
from .truth import read_truth

if TYPE_CHECKING:
    from ..results.posterior import Posterior

__all__ = ["MIN_PER_CELL", "CoverageGuarantee", "IntervalCells", "guarantee_of"]

#: Minimum number of galaxies of a cell.
MIN_PER_CELL = 300
#: Number of draws from which features are computed.
_N_DRAWS = 100
#: Features by which cells are split in turn: median, r magnitude, g - r, width; indices of
#: `~astrogenspec.calibration.features.correction_features`.
_SPLIT_FEATURES = (0, 4, 2, 1)
_LAYOUT = 1


@dataclass(frozen=True)
class IntervalCells:
    """Cells of galaxies with the same inputs, and the stretch of the intervals in each.

    The cells are the leaves of a binary tree, whose nodes are stored in the order of their level:
    those of node i are nodes 2 i + 1 and 2 i + 2.

    Attributes
    ----------
    feature : ndarray of int, shape (2**depth - 1,)
        Index of the feature at which a node splits.
    threshold : ndarray, shape (2**depth - 1,)
        Galaxies with a smaller value, or none, belong to the first branch.
    stretch : ndarray, shape (2**depth, n_levels)
        Stretch of the central intervals of `GUARANTEED_LEVELS`; infinite where the galaxies are too
        few for the level.
    n_galaxies : ndarray of int, shape (2**depth,)
        Number of labelled galaxies of each cell.
    """

    feature: np.ndarray
    threshold: np.ndarray
    stretch: np.ndarray
    n_galaxies: np.ndarray

    @classmethod
    def fit(cls, features: np.ndarray, needed: np.ndarray, weight: np.ndarray) -> IntervalCells:
        """Split a calibration sample into cells and compute their stretch.

        Parameters
        ----------
        features : ndarray, shape (n, 8)
            Output of `~astrogenspec.calibration.features.correction_features`.
        needed : ndarray, shape (n, n_levels)
            Stretch with which the interval of each level reaches the true value.
        weight : ndarray, shape (n,)
            Weights, positive.

        Returns
        -------
        IntervalCells
        """
        depth = max(0, int(np.log2(len(features) / MIN_PER_CELL)))
        present = [k for k in _SPLIT_FEATURES if np.isfinite(features[:, k]).any()]
        split = np.zeros(2**depth - 1, dtype=int)
        threshold = np.full(2**depth - 1, np.inf)
        node = np.zeros(len(features), dtype=int)
        for k in range(2**depth - 1):
            rows = node == k
            split[k] = present[int(np.log2(k + 1)) % len(present)]
            values = features[rows, split[k]]
            if np.isfinite(values).any():
                threshold[k] = np.nanmedian(values)
            node[rows] = 2 * k + 1 + (values >= threshold[k])
        cell = node - (2**depth - 1)
        stretch = np.stack(
            [_conformal_quantiles(needed[cell == k], weight[cell == k]) for k in range(2**depth)]
        )
        return cls(split, threshold, stretch, np.bincount(cell, minlength=2**depth))

    def of(self, features: np.ndarray) -> np.ndarray:
        """Return the stretch of galaxies, shape (n, n_levels), from their features."""
        node = np.zeros(len(features), dtype=int)
        for _ in range(int(np.log2(len(self.stretch)))):
            values = features[np.arange(len(features)), self.feature[node]]
            node = 2 * node + 1 + (values >= self.threshold[node])
        return self.stretch[node - len(self.feature)]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-serialisable dictionary; infinite numbers become None."""
        return {
            "feature": self.feature.tolist(),
            "threshold": _finite_or_none(self.threshold),
            "stretch": [_finite_or_none(row) for row in self.stretch],
            "n_galaxies": self.n_galaxies.tolist(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "cells") -> IntervalCells:
        """Read the output of `to_dict`; ``where`` is its path in the card, for errors."""
        stretch = _numbers(entry(values, "stretch", where))
        nodes = _numbers(entry(values, "threshold", where))
        feature = np.asarray(entry(values, "feature", where), dtype=int)
        n_galaxies = np.asarray(entry(values, "n_galaxies", where), dtype=int)
        n_cells = len(n_galaxies)
        shapes = (stretch.shape, nodes.shape, feature.shape)
        expected = ((n_cells, len(GUARANTEED_LEVELS)), (n_cells - 1,), (n_cells - 1,))
        if shapes != expected or n_cells & (n_cells - 1) or not np.isin(feature, range(8)).all():
            raise ValueError(
                f"the entry {where} has stretch, threshold and feature of shapes {shapes}; "
                f"{expected}, a power of two cells, and features between 0 and 7 are expected."
            )
        return cls(feature, nodes, stretch, n_galaxies)


class CoverageGuarantee:
    """Stretch of intervals with guaranteed coverage, from a calibration sample.

    Parameters
    ----------
    cells : mapping of (str, str, str) to IntervalCells
        Cells by input mode, quantity and set of bands, such as ``"ugriz"``; the set is empty for
        galaxies without photometry and for other filters than those of SDSS.
    filters : sequence of str, optional
        Names of the filters of the calibration sample, if they are not those of SDSS.

    Examples
    --------
    A posterior that is too narrow by a factor of two:

    >>> import astropy.units as u
    >>> import numpy as np
    >>> from astrogenspec import Posterior
    >>> from astrogenspec.calibration import CoverageGuarantee
    >>> rng = np.random.default_rng(1)
    >>> centre = rng.uniform(0.05, 0.2, (2000, 1))
    >>> posterior = Posterior({"redshift": rng.normal(centre, 0.005, (2000, 300)) * u.one})
    >>> true = rng.normal(centre[:, 0], 0.01) * u.one
    >>> guarantee = CoverageGuarantee.fit(posterior[:1000], {"redshift": true[:1000]})
    >>> guaranteed = guarantee.apply(posterior[1000:])
    >>> for options in ({}, {"guaranteed": True}):
    ...     low, high = guaranteed["redshift"].interval(0.9, **options)
    ...     inside = (low <= true[1000:]) & (true[1000:] <= high)
    ...     print(f"{inside.mean():.1f}")
    0.6
    0.9
    """

    def __init__(
        self, cells: Mapping[tuple[str, str, str], IntervalCells], filters: Sequence[str] = ()
    ) -> None:
        self._cells = dict(cells)
        self._filters = tuple(filters)

    def __repr__(self) -> str:
        listed = ", ".join(dict.fromkeys(f"{name} ({mode})" for mode, name, _ in self._cells))
        return f"<CoverageGuarantee of {listed or 'nothing'}>"

    def __or__(self, other: CoverageGuarantee) -> CoverageGuarantee:
        """Combine two of the same filters; cells of the second replace those of the first."""
        if not isinstance(other, CoverageGuarantee):
            return NotImplemented
        if self._filters != other._filters:
            return other
        return CoverageGuarantee(self._cells | other._cells, self._filters)

    @property
    def guaranteed(self) -> tuple[tuple[str, str], ...]:
        """Pairs of input mode and quantity with guaranteed intervals."""
        return tuple(dict.fromkeys((mode, name) for mode, name, _ in self._cells))

    @classmethod
    def fit(
        cls,
        posterior: Posterior,
        truth: Mapping[str, u.Quantity] | Table,
        *,
        mode: str | Sequence[str] | np.ndarray = "photometry",
        sample_weight: ArrayLike | None = None,
    ) -> CoverageGuarantee:
        """Compute the stretch of intervals from galaxies with known true values.

        Parameters
        ----------
        posterior : Posterior
            Draws, with the recalibration that will be used, of galaxies that were not used for
            training or recalibration.
        truth : mapping of str to Quantity of shape (n_galaxies,), or table with such columns
            True values, read as by `calibration_table`. Only drawn quantities are used.
        mode : {"image", "photometry", "both"}, or a sequence of these, one per galaxy
            Input mode of each galaxy.
        sample_weight : array_like, shape (n_galaxies,), optional
            Weight of each galaxy; equal by default. Galaxies of weight zero are not used.

        Returns
        -------
        CoverageGuarantee
            Without those quantities, modes and sets of bands that have fewer than 300 galaxies.

        Raises
        ------
        ValueError
            If shapes do not match, or a mode is unknown.
        astropy.units.UnitConversionError
            If a unit cannot be converted.
        """
        modes = check_modes(mode, len(posterior))
        weight = np.ones(len(posterior))
        if sample_weight is not None:
            weight = np.asarray(sample_weight, dtype=float)
            if weight.shape != (len(posterior),):
                raise ValueError(
                    f"sample_weight has shape {weight.shape} for {len(posterior)} galaxies; give "
                    "one weight per galaxy."
                )
        magnitudes = magnitudes_of(posterior)
        bands = band_sets(magnitudes)
        known = read_truth(posterior, truth, drawn_only=True).values
        cells = {}
        for name in (name for name in known if name in QUANTITIES):
            draws = _internal_draws(posterior, name)
            true = quantities_to_theta({name: known[name]})[:, list(QUANTITIES).index(name)]
            needed = _needed_stretch(draws, true)
            good = np.isfinite(needed).all(axis=1) & (weight > 0)
            for one_mode in dict.fromkeys(modes.tolist()):
                for band_set in np.unique(bands):
                    rows = np.flatnonzero(good & (modes == one_mode) & (bands == band_set))
                    if len(rows) < MIN_PER_CELL:
                        continue
                    features = _features(draws[rows], magnitudes[rows])
                    cells[one_mode, name, str(band_set)] = IntervalCells.fit(
                        features, needed[rows], weight[rows]
                    )
        return cls(cells, posterior.meta.get("filters", ()))

    def apply(
        self, posterior: Posterior, *, mode: str | Sequence[str] | np.ndarray = "photometry"
    ) -> Posterior:
        """Return the posterior with guaranteed intervals.

        Parameters
        ----------
        posterior : Posterior
        mode : {"image", "photometry", "both"}, or a sequence of these, one per galaxy
            Input mode of each galaxy.

        Returns
        -------
        Posterior
            With the same draws. Its quantities have ``interval(level, guaranteed=True)``, which is
            NaN for galaxies that the calibration sample does not represent: those with other inputs
            or bands.
        """
        modes = check_modes(mode, len(posterior))
        magnitudes = magnitudes_of(posterior)
        draws = {
            name: _internal_draws(posterior, name)
            for name in posterior.quantities
            if name in QUANTITIES
        }
        filters = posterior.meta.get("filters", ())
        return posterior.with_stretch(self.stretch(draws, magnitudes, modes, filters))

    def stretch(
        self,
        draws: Mapping[str, np.ndarray],
        magnitudes: np.ndarray,
        modes: np.ndarray,
        filters: Sequence[str] = (),
    ) -> dict[str, np.ndarray]:
        """Return the stretch of the intervals of galaxies.

        Parameters
        ----------
        draws : mapping of str to ndarray, shape (n, k)
            Draws of each quantity in its internal unit.
        magnitudes : ndarray, shape (n, 5)
            AB magnitudes in u, g, r, i, z, corrected for Galactic extinction; NaN where missing.
        modes : ndarray of str, shape (n,)
            Input mode of each galaxy; those with other values than `INPUT_MODES` have no guarantee.
        filters : sequence of str, optional
            Names of the filters, if they are not those of SDSS.

        Returns
        -------
        dict of str to ndarray, shape (n, n_levels)
            Stretch for `GUARANTEED_LEVELS`, for each quantity with a guarantee; NaN for galaxies
            without.
        """
        result: dict[str, np.ndarray] = {}
        if tuple(filters) != self._filters:
            return result
        bands = band_sets(magnitudes)
        for (mode, name, band_set), cells in self._cells.items():
            if name not in draws:
                continue
            rows = np.flatnonzero(
                (modes == mode) & (bands == band_set) & np.isfinite(draws[name]).all(axis=1)
            )
            if len(rows) == 0:
                continue
            empty = np.full((len(bands), len(GUARANTEED_LEVELS)), np.nan)
            features = _features(draws[name][rows], magnitudes[rows])
            result.setdefault(name, empty)[rows] = cells.of(features)
        return result

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-serialisable dictionary for the card of weights.

        Returns
        -------
        dict
        """
        return {
            "layout": _LAYOUT,
            "filters": list(self._filters),
            "cells": [
                {"mode": mode, "quantity": name, "bands": bands} | cells.to_dict()
                for (mode, name, bands), cells in self._cells.items()
            ],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "guarantee") -> CoverageGuarantee:
        """Read the output of `to_dict`.

        Parameters
        ----------
        values : mapping
        where : str
            Path of the entry in the card, for errors.

        Returns
        -------
        CoverageGuarantee

        Raises
        ------
        ValueError
            If an entry is missing or invalid, or the layout is unknown.
        """
        check_layout(values, _LAYOUT, where)
        cells = {}
        for one, path in entries(values, "cells", where):
            mode, name, bands = (
                check_text(entry(one, item, path), f"{path}.{item}")
                for item in ("mode", "quantity", "bands")
            )
            cells[mode, name, bands] = IntervalCells.from_dict(one, path)
        filters = [check_text(name, path) for name, path in entries(values, "filters", where)]
        return cls(cells, filters)


def guarantee_of(
    posterior: Posterior, truth: Mapping[str, u.Quantity] | Table, modes: np.ndarray, seed: int = 0
) -> CoverageGuarantee | None:
    """Compute the stretch of intervals of draws that will be recalibrated on the same galaxies.

    The correction of each galaxy is fitted to other galaxies (cross-fitting).

    Parameters
    ----------
    posterior : Posterior
        Draws without recalibration.
    truth : mapping of str to Quantity of shape (n_galaxies,), or table with such columns
        True values.
    modes : ndarray of str, shape (n_galaxies,)
        Input mode of each galaxy.
    seed : int
        Seed of the folds.

    Returns
    -------
    CoverageGuarantee or None
        None if no quantity has enough galaxies.
    """
    values = read_truth(posterior, truth, drawn_only=True).values.values()
    if max((np.isfinite(true).sum() for true in values), default=0) < MIN_PER_CELL:
        return None
    corrected = fit_if_enough(cross_fitted, posterior, truth, mode=modes, seed=seed)
    found = CoverageGuarantee.fit(corrected or posterior, truth, mode=modes)
    return found if found.guaranteed else None


def _features(draws: np.ndarray, magnitudes: np.ndarray) -> np.ndarray:
    return correction_features(draws[:, :_N_DRAWS], magnitudes)


def _internal_draws(posterior: Posterior, name: str) -> np.ndarray:
    info = QUANTITIES[name]
    values = np.asarray(posterior[name].draws.to_value(info.unit), dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log10(values) if info.logarithmic else values


def _needed_stretch(draws: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Return the stretch with which the interval of each level reaches the true value."""
    ends = [50 * (1 + sign * level) for level in GUARANTEED_LEVELS for sign in (-1, 1)]
    low_high = row_percentiles(draws, [50, *ends])
    middle, true = low_high[0], np.asarray(true, dtype=float)
    needed = []
    for low, high in zip(low_high[1::2], low_high[2::2], strict=True):
        with np.errstate(divide="ignore", invalid="ignore"):
            below, above = (middle - true) / (middle - low), (true - middle) / (high - middle)
        needed.append(np.where(true < middle, below, above))
    return np.stack(needed, axis=1)


def _conformal_quantiles(needed: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the quantile of each level, shape (n_levels,), with one more galaxy at infinity."""
    if len(needed) == 0:
        return np.full(len(GUARANTEED_LEVELS), np.inf)
    result = []
    for level, values in zip(GUARANTEED_LEVELS, needed.T, strict=True):
        order = np.argsort(values)
        reached = np.cumsum(weight[order]) / (weight.sum() + weight.mean())
        first = int(np.searchsorted(reached, level))
        result.append(values[order[first]] if first < len(order) else np.inf)
    return np.array(result)


def _finite_or_none(values: np.ndarray) -> list[float | None]:
    return [round(float(value), 5) if np.isfinite(value) else None for value in values]


def _numbers(values: Any) -> np.ndarray:
    """Return numbers of a card as an array; None stands for infinity."""
    array = np.asarray(values, dtype=object)
    return np.where(array == None, np.inf, array).astype(float)  # noqa: E711
