r"""Densities of recalibrated posteriors, by the change of variables.

`~astrogenspec.calibration.recalibration.Recalibration` moves the draws :math:`x` of a quantity to
:math:`y = T(x)`, where :math:`T` increases.  The density at :math:`y` is :math:`p(x)\,dx/dy` with
:math:`x = T^{-1}(y)`, and for several quantities, each moved by its own map, the product of the
derivatives.  :math:`T^{-1}` is the monotone cubic interpolation (Fritsch & Butland 1984) between
quantiles of the draws, in the logit of the fraction of the range; beyond them it is linear.  The
density is normalised for any such map; how well the map is known depends on the number of draws.
"""

from __future__ import annotations

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.special import expit, log_expit, logit, ndtr

__all__ = ["before_recalibration"]

#: Normal deviates of the quantiles between which the map is interpolated.
_DEVIATES = np.linspace(-2.2, 2.2, 23)
#: Number of intervals at each end that give the slope beyond it.
_END = 3


def before_recalibration(
    raw: np.ndarray, moved: np.ndarray, values: np.ndarray, lower: float, upper: float
) -> tuple[np.ndarray, np.ndarray]:
    """Move recalibrated values of one quantity of one galaxy back to where they were before.

    Parameters
    ----------
    raw, moved : ndarray, shape (n_draws,)
        Draws before and after the recalibration.
    values : ndarray, shape (k,)
        Recalibrated values.
    lower, upper : float
        Bounds of the quantity.

    Returns
    -------
    before : ndarray, shape (k,)
        Values before the recalibration; those that are not between the bounds are unchanged.
    log_derivative : ndarray, shape (k,)
        Natural logarithm of the derivative of ``before`` with respect to ``values``; 0 outside the
        bounds.
    """
    before, log_derivative = values.astype(float), np.zeros(values.shape)
    width = upper - lower
    probabilities = ndtr(_DEVIATES)
    x, y = (
        logit((np.quantile(draws.astype(float), probabilities) - lower) / width)
        for draws in (raw, moved)
    )
    distinct = np.append(True, (np.diff(x) > 0) & (np.diff(y) > 0))
    x, y = x[distinct], y[distinct]
    inside = (values > lower) & (values < upper)
    if len(x) <= _END or not inside.any():
        return before, log_derivative
    target = logit((before[inside] - lower) / width)
    curve = PchipInterpolator(y, x)
    source, slope = curve(target), curve(target, 1)
    for beyond, end, inner in ((target < y[0], 0, _END), (target > y[-1], -1, -1 - _END)):
        steepness = (x[inner] - x[end]) / (y[inner] - y[end])
        source[beyond] = x[end] + steepness * (target[beyond] - y[end])
        slope[beyond] = steepness
    before[inside] = lower + width * expit(source)
    log_derivative[inside] = np.log(slope) + _log_width(source) - _log_width(target)
    return before, log_derivative


def _log_width(height: np.ndarray) -> np.ndarray:
    """Return the logarithm of the derivative of the logistic function."""
    return log_expit(height) + log_expit(-height)
