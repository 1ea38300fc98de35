"""Marginal distributions as ensembles of the package qp, in three parametrisations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..extras import optional_package
from .quantity import QuantityPosterior

__all__ = ["KINDS", "grid_densities", "qp_ensemble"]

#: Parametrisations.
KINDS = ("quantiles", "interp", "histogram")
#: Cumulative probabilities of the quantiles.
_QUANTILES = np.concatenate([[1e-4, 0.002], np.arange(0.005, 0.9975, 0.005), [0.998, 0.9999]])
#: Number of points of the default grid.
_N_POINTS = 301
#: Width of the interval with the central quarter of a Gaussian, in standard deviations.
_CENTRAL_QUARTER = 0.63728
#: Number of draws that are binned at once.
_BLOCK = 2_000_000


def qp_ensemble(
    quantity: QuantityPosterior,
    names: Sequence[str],
    kind: str = "quantiles",
    grid: ArrayLike | None = None,
) -> Any:
    """Convert the marginal distributions of a quantity to an ensemble of the package qp.

    Parameters
    ----------
    quantity : QuantityPosterior
        Quantity to convert.
    names : sequence of str
        Names of the galaxies.
    kind : {"quantiles", "interp", "histogram"}
        Parametrisation.
    grid : array_like, shape (n_points,), optional
        Points of ``"interp"``, or edges of the bins of ``"histogram"``.

    Returns
    -------
    ``qp.Ensemble``
        One distribution for each galaxy, with ancillary data.

    Raises
    ------
    ImportError
        If qp is not installed.
    ValueError
        If an argument is invalid, or a galaxy has no draws, none on the grid, or only equal ones.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; it must be one of {', '.join(KINDS)}.")
    if kind == "quantiles" and grid is not None:
        raise ValueError("grid is given, but quantiles have none; use kind='interp', or omit it.")
    qp = optional_package("qp", "rail", "to_qp")
    ancillary = {
        "name": np.array(names, dtype=str),
        "mean": quantity.mean().value,
        "median": quantity.median().value,
        "mode": quantity.mode().value,
    }
    if kind == "quantiles":
        locs = _increasing_quantiles(quantity, names)
        ensemble = qp.Ensemble(qp.quant, data={"quants": _QUANTILES, "locs": locs})
    else:
        values = quantity.draws.value
        points = _default_grid(values) if grid is None else np.asarray(grid, dtype=float)
        equal = kind == "interp"
        _check_grid(points, equal)
        densities, ancillary["outside"] = grid_densities(values, points, smooth=equal)
        bad = np.flatnonzero(~(ancillary["outside"] < 1))
        if bad.size:
            raise ValueError(
                f"galaxy {names[bad[0]]!r} has no distribution of {quantity.name} on the grid "
                f"from {points[0]:g} to {points[-1]:g} (no draws there); leave it out, for example "
                "with posterior[posterior.usable], or give a wider grid."
            )
        if equal:
            ensemble = qp.Ensemble(qp.interp, data={"xvals": points, "yvals": densities})
        else:
            ensemble = qp.Ensemble(qp.hist, data={"bins": points, "pdfs": densities})
    ensemble.set_ancil(ancillary)
    return ensemble


def _increasing_quantiles(quantity: QuantityPosterior, names: Sequence[str]) -> np.ndarray:
    values = quantity.percentiles(100 * _QUANTILES).value.T.astype(float)
    bad = np.flatnonzero(~(values[:, -1] > values[:, 0]))
    if bad.size:
        raise ValueError(
            f"galaxy {names[bad[0]]!r} has no distribution of {quantity.name} (no draws, or all "
            "equal); leave it out, for example with posterior[posterior.usable]."
        )
    # Quantiles must increase; draws that are equal in single precision are separated by a rounding
    # error.
    return values + 1e-9 * (values[:, -1:] - values[:, :1]) * np.arange(len(_QUANTILES))


def _default_grid(values: np.ndarray) -> np.ndarray:
    """Return a grid from the smallest draw of all galaxies to the largest."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise ValueError("there are no draws.")
    low, high = float(finite.min()), float(finite.max())
    margin = 0.01 * (high - low) or 0.01 * (abs(high) or 1.0)
    return np.linspace(low - margin, high + margin, _N_POINTS)


def _check_grid(grid: np.ndarray, equal: bool) -> None:
    if grid.ndim != 1 or len(grid) < 3 or not np.all(np.diff(grid) > 0):
        raise ValueError("grid must be a flat array of at least 3 increasing numbers.")
    steps = np.diff(grid)
    if equal and not np.allclose(steps, steps[0], rtol=1e-3):
        raise ValueError("grid has points at unequal distances; kind='interp' needs equal ones.")


def grid_densities(
    values: np.ndarray, grid: np.ndarray, *, smooth: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Estimate the density of the draws of each galaxy on a grid.

    Parameters
    ----------
    values : ndarray, shape (n_galaxies, n_draws)
        Draws.
    grid : ndarray, shape (n_points,)
        Points at equal distances, or edges of bins if ``smooth`` is false.
    smooth : bool
        Return the density at the points, from a kernel estimate; otherwise the density in the bins.

    Returns
    -------
    densities : ndarray, shape (n_galaxies, n_points) or (n_galaxies, n_points - 1)
        The integral over the grid is 1; zero without draws on the grid.
    outside : ndarray, shape (n_galaxies,)
        Fraction of the draws beyond the grid; NaN for a galaxy without draws.

    Notes
    -----
    The kernel is a Gaussian whose width is 0.9 s n**-0.2 for n draws (Silverman 1986, Density
    Estimation, eq. 3.31). The scale s is that of a Gaussian whose central quarter is as wide as the
    shortest interval with a quarter of the draws, so that narrow peaks that are far apart are not
    smoothed over. A draw counts for its two neighbouring points in proportion to its nearness, so
    that a distribution that is narrower than the steps of the grid keeps its mean.
    """
    n_points = len(grid) if smooth else len(grid) - 1
    densities, outside = np.zeros((len(values), n_points)), np.full(len(values), np.nan)
    step = max(_BLOCK // max(values.shape[1], 4 * len(grid)), 1)
    for start in range(0, len(values), step):
        rows = slice(start, start + step)
        block = values[rows].astype(float)
        finite = np.isfinite(block)
        inside = finite & (block >= grid[0]) & (block <= grid[-1])
        counts = _counts(np.where(inside, block, grid[0]), inside, grid, between=smooth)
        if smooth:
            scale = _scales(np.where(inside, block, np.nan), inside.sum(axis=1))
            counts = _convolved(counts, scale / (grid[1] - grid[0]))
            norm = np.trapezoid(counts, grid, axis=1)
        else:
            norm = counts.sum(axis=1)
            counts = counts / np.diff(grid)
        np.divide(counts, norm[:, None], out=densities[rows], where=norm[:, None] > 0)
        n_finite = finite.sum(axis=1)
        fraction = 1 - inside.sum(axis=1) / np.maximum(n_finite, 1)
        outside[rows] = np.where(n_finite > 0, fraction, np.nan)
    return densities, outside


def _counts(
    values: np.ndarray, inside: np.ndarray, grid: np.ndarray, *, between: bool
) -> np.ndarray:
    """Count the draws in each bin, or distribute them over the nearest points."""
    n_bins = len(grid) - 1
    left = np.clip(np.searchsorted(grid, values, side="right") - 1, 0, n_bins - 1)
    n_points = n_bins + between
    cell = left + n_points * np.arange(len(values))[:, None]
    size = len(values) * n_points
    weight = inside.astype(float)
    right = weight * (values - grid[left]) / np.diff(grid)[left] if between else 0.0 * weight
    counts = np.bincount(cell.ravel(), (weight - right).ravel(), size)
    if between:
        counts += np.bincount(cell.ravel() + 1, right.ravel(), size)
    return counts.reshape(len(values), n_points)


def _scales(values: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Return the width of the kernel of each row with n values; the others are NaN."""
    ordered = np.sort(values, axis=1)
    quarter = max(values.shape[1] // 4, 1)
    widths = ordered[:, quarter:] - ordered[:, :-quarter]
    shortest = np.min(np.nan_to_num(widths, nan=np.inf), axis=1, initial=np.inf)
    # Rows with fewer values than a quarter of the draws are not smoothed.
    shortest[~np.isfinite(shortest)] = 0.0
    return 0.9 * shortest / _CENTRAL_QUARTER * np.maximum(n, 1) ** -0.2


def _convolved(counts: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Convolve each row with a Gaussian; the grid is padded to avoid wrap-around."""
    n = counts.shape[1]
    frequency = np.fft.rfftfreq(2 * n)
    kernel = np.exp(-2 * (np.pi * frequency * width[:, None]) ** 2)
    smooth = np.fft.irfft(np.fft.rfft(counts, 2 * n, axis=1) * kernel, 2 * n, axis=1)[:, :n]
    return np.maximum(smooth, 0.0)
