"""Measure other methods on the folds of `finetuning.py`: boosting, perceptrons, and flows."""

from __future__ import annotations

import _path  # noqa: F401
import numpy as np
from astropy.table import QTable
from real_tables import inputs_of

from astrogenspec import PropertyEstimator
from astrogenspec.inference.network import PropertyNetwork
from astrogenspec.quantities import QUANTITIES

__all__ = ["flow_medians", "label_medians", "redshift_medians"]

#: Number of flows whose medians are combined.
_N_FLOWS = 3
#: Width of the network without simulations; small ones are best for a few thousand galaxies.
_WIDTH = 64


def redshift_medians(train: QTable, test: QTable, inputs: str) -> dict[str, np.ndarray]:
    """Predict redshifts with gradient boosting and with an ensemble of small perceptrons.

    Parameters
    ----------
    train, test : QTable
        Rows of the table of labelled galaxies.
    inputs : str
        Bands, followed by "with structure" to use Petrosian fluxes too.  The features are colours
        and r.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.neural_network import MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    subset = inputs.split()[0]

    def features(table: QTable) -> np.ndarray:
        magnitude = _magnitudes(table, subset)
        extra = []
        if "structure" in inputs:
            ratio = [(table[f"petro_flux_{b}"] / table[f"flux_{b}"]).value for b in subset]
            extra = [
                np.clip(-2.5 * np.log10(np.clip(np.nan_to_num(r, nan=1.0), 0.1, 10)), -1, 2)
                for r in ratio
            ]
        return np.column_stack([_colours(magnitude), magnitude["r"], *extra])

    x, y, at = features(train), train["redshift"].value, features(test)
    boosting = HistGradientBoostingRegressor(
        loss="absolute_error", max_iter=400, learning_rate=0.05, random_state=0
    )
    networks = [
        make_pipeline(
            StandardScaler(),
            MLPRegressor(
                hidden_layer_sizes=(64, 64),
                early_stopping=True,
                max_iter=300,
                alpha=1e-4,
                random_state=k,
            ),
        ).fit(x, y)
        for k in range(5)
    ]
    return {
        "gradient boosting": boosting.fit(x, y).predict(at),
        "perceptrons": np.mean([net.predict(at) for net in networks], axis=0),
    }


def flow_medians(train: QTable, test: QTable) -> np.ndarray:
    """Predict redshifts as the median of three flows of this package, trained on these rows."""
    medians = []
    for k in range(_N_FLOWS):
        fresh = PropertyEstimator(PropertyNetwork(width=_WIDTH, context_size=_WIDTH))
        fitted = fresh.fit(
            photometry=inputs_of(train),
            labels={"redshift": train["redshift"]},
            epochs=25,
            batch_size=128,
            learning_rate=1e-3,
            validation_fraction=0.1,
            seed=k,
            on_error="flag",
            progress=False,
        )
        found = fitted.predict(
            photometry=inputs_of(test),
            n_draws=500,
            seed=0,
            on_error="flag",
            progress=False,
        )
        medians.append(np.median(found["redshift"].draws.value, axis=1))
    return np.median(medians, axis=0)


def label_medians(train: QTable, test: QTable, *, redshift: bool = True) -> dict[str, np.ndarray]:
    """Predict all labels except the redshift (dex) with gradient boosting.

    Parameters
    ----------
    train, test : QTable
        Rows of the table of labelled galaxies.
    redshift : bool
        Use the known redshift in addition to photometry, errors and sizes.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor

    def features(table: QTable) -> np.ndarray:
        magnitude = _magnitudes(table, "ugriz")
        noise = [np.log10((table[f"flux_err_{b}"] / table[f"flux_{b}"]).value) for b in "ugriz"]
        shape = [table[name].value for name in ("r50", "r90", "axis_ratio")]
        given = [table["known_redshift"].value] * redshift
        return np.column_stack([_colours(magnitude), magnitude["r"], *noise, *shape, *given])

    x, at = features(train), features(test)
    given = np.isfinite(x).any(axis=0)
    x, at = x[:, given], at[:, given]
    found = {}
    for name in list(QUANTITIES)[1:]:
        y = train[name].value
        if QUANTITIES[name].logarithmic:
            y = np.log10(y)
        known = np.isfinite(y)
        if known.sum() > 200:
            boosting = HistGradientBoostingRegressor(
                max_iter=200,
                learning_rate=0.05,
                max_leaf_nodes=12,
                l2_regularization=1.0,
                random_state=0,
            )
            found[name] = boosting.fit(x[known], y[known]).predict(at)
    return found


def _magnitudes(table: QTable, subset: str) -> dict[str, np.ndarray]:
    flux = {b: (table[f"flux_{b}"].value, table[f"extinction_{b}"].value) for b in subset}
    return {b: -1.0857 * np.arcsinh(np.clip(f, -5, None) / 1.0) - e for b, (f, e) in flux.items()}


def _colours(magnitude: dict[str, np.ndarray]) -> np.ndarray:
    bands = list(magnitude)
    pairs = zip(bands, bands[1:], strict=False)
    return np.column_stack([magnitude[a] - magnitude[b] for a, b in pairs])
