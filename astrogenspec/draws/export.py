"""Hand marginal posteriors to other packages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .quantity import QuantityPosterior

__all__ = ["qp_ensemble"]


def qp_ensemble(quantity: QuantityPosterior, names: Sequence[str], shares: np.ndarray) -> Any:
    """Make an ensemble of the package qp.

    Parameters
    ----------
    quantity : QuantityPosterior
    names : sequence of str
        Names of the galaxies.
    shares : ndarray, shape (m,)
        Fractions of the quantiles, increasing, between 0 and 1.

    Returns
    -------
    ``qp.Ensemble``
        Of piecewise quantile distributions, with ancillary data.

    Raises
    ------
    ImportError
        If qp is not installed.
    ValueError
        If a galaxy has no draws, or all of them are the same.
    """
    try:
        import qp
    except ImportError as error:
        raise ImportError(
            "to_qp needs the package qp, which is not installed; install it with 'pip install qp-prob'."
        ) from error
    places = quantity.percentiles(100 * shares).value.T.astype(float)
    bad = np.flatnonzero(~(places[:, -1] > places[:, 0]))
    if bad.size:
        raise ValueError(
            f"galaxy {names[bad[0]]!r} has no distribution of {quantity.name} (no draws, or all the same); leave it out, "
            "for example with posterior[posterior.usable]."
        )
    # Quantiles of a distribution function have to increase; ties in single precision are a rounding apart.
    step = 1e-9 * (places[:, -1] - places[:, 0])[:, None] * np.arange(len(shares))
    ancillary = {
        "name": np.array(names, dtype=str),
        "mean": quantity.mean().value,
        "median": quantity.median().value,
        "mode": quantity.mode().value,
    }
    ensemble = qp.Ensemble(qp.quant, data={"quants": shares, "locs": places + step})
    ensemble.set_ancil(ancillary)
    return ensemble
