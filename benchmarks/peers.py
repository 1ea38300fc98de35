"""Measure other methods on the same galaxies: boosting, perceptrons, flows and others."""

from __future__ import annotations

import _path  # noqa: F401
import numpy as np
from astropy.table import QTable
from real_tables import inputs_of

from astrogenspec import PhotometryBatch, PropertyEstimator
from astrogenspec.inference.network import PropertyNetwork
from astrogenspec.quantities import QUANTITIES

__all__ = [
    "colours_of",
    "density_network_draws",
    "density_network_features",
    "flow_medians",
    "label_medians",
    "neighbour_draws",
    "redshift_medians",
]

#: Number of flows whose medians are combined.
_N_FLOWS = 3
#: Width of the network without simulations; small ones are best for a few thousand galaxies.
_WIDTH = 64
#: Mixture density networks, and Gaussians of each.
_N_NETWORKS, _N_GAUSSIANS = 3, 5


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


def colours_of(photometry: PhotometryBatch, training: PhotometryBatch) -> np.ndarray:
    """Return dereddened colours and one magnitude, standardised with the training galaxies.

    Missing bands have the median colour of the training galaxies.

    Parameters
    ----------
    photometry, training : PhotometryBatch
        Galaxies, and training galaxies in the same filters.

    Returns
    -------
    ndarray, shape (n, m)
    """

    def colours(batch: PhotometryBatch) -> np.ndarray:
        flux, error = batch.dereddened()
        softening = np.nanmedian(training.dereddened()[1], axis=0)
        magnitude = -1.0857 * (np.arcsinh(flux / (2 * softening)) + np.log(softening))
        order = np.argsort([each.pivot.value for each in batch.filters])
        magnitude = np.where(np.isfinite(error), magnitude, np.nan)[:, order]
        middle = magnitude[:, len(order) // 2]
        middle = np.where(np.isfinite(middle), middle, np.nanmedian(magnitude, axis=1))
        return np.column_stack([magnitude[:, :-1] - magnitude[:, 1:], middle])

    reference, found = colours(training), colours(photometry)
    centre = np.nanmedian(reference, axis=0)
    width = 1.4826 * np.nanmedian(np.abs(reference - centre), axis=0)
    return np.clip(np.nan_to_num((found - centre) / width), -8, 8)


def neighbour_draws(x: np.ndarray, y: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return the redshifts of the nearest neighbours, whose number leave-one-out chooses.

    Parameters
    ----------
    x, at : ndarray, shape (n, m)
        Features of the training galaxies and of others.
    y : ndarray, shape (n,)
        Redshifts of the training galaxies.

    Returns
    -------
    ndarray, shape (n, k)
    """
    from sklearn.neighbors import NearestNeighbors

    largest = min(50, len(x) // 4)
    tree = NearestNeighbors(n_neighbors=largest).fit(x)
    others = y[tree.kneighbors(return_distance=False)]

    def error(k: int) -> float:
        deviation = (np.median(others[:, :k], axis=1) - y) / (1 + y)
        return float(np.median(np.abs(deviation - np.median(deviation))))

    best = min((k for k in (5, 8, 12, 18, 25, 35, 50) if k <= largest), key=error)
    return y[tree.kneighbors(at, n_neighbors=best, return_distance=False)]


def density_network_features(
    train: QTable, test: QTable, subset: str, *, petrosian: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return r, colours, errors and optionally Petrosian magnitudes, scaled by the training rows.

    Parameters
    ----------
    train, test : QTable
        Rows of the table of labelled galaxies.
    subset : str
        Bands.
    petrosian : bool
        Add the differences of Petrosian and model magnitudes.
    """

    def features(table: QTable) -> np.ndarray:
        magnitude = _magnitudes(table, subset)
        ratio = [(table[f"flux_err_{b}"] / table[f"flux_{b}"]).value for b in subset]
        noise = [np.log(np.clip(np.abs(r), 1e-4, 3)) for r in ratio]
        extra = []
        if petrosian:
            for b in subset:
                flux = table[f"petro_flux_{b}"].value
                total = -1.0857 * np.arcsinh(flux) - table[f"extinction_{b}"].value
                extra.append(total - magnitude[b])
        return np.column_stack([magnitude["r"], _colours(magnitude), *noise, *extra])

    reference, found = features(train), features(test)
    centre = np.nanmedian(reference, axis=0)
    width = 1.4826 * np.nanmedian(np.abs(reference - centre), axis=0)
    return tuple(
        np.clip(np.nan_to_num((values - centre) / width), -8, 8) for values in (reference, found)
    )


def density_network_draws(
    x: np.ndarray,
    y: np.ndarray,
    at: np.ndarray,
    *,
    n_draws: int,
    seed: int,
    n_networks: int = _N_NETWORKS,
) -> np.ndarray:
    """Draw redshifts from an ensemble of mixture density networks of five Gaussians.

    Each is trained with early stopping on another fifth of the galaxies.

    Parameters
    ----------
    x, at : ndarray, shape (n, m)
        Features of the training galaxies and of others.
    y : ndarray, shape (n,)
        Redshifts of the training galaxies.
    n_draws : int
        Number of draws.
    seed : int
        Seed of the random numbers.
    n_networks : int
        Number of networks.

    Returns
    -------
    ndarray, shape (n, n_draws)
    """
    import torch

    torch.manual_seed(seed)
    centre, width = float(y.mean()), float(y.std())
    features, others = (torch.tensor(values, dtype=torch.float32) for values in (x, at))
    target = torch.tensor((y - centre) / width, dtype=torch.float32)

    def mixture(output: torch.Tensor) -> torch.distributions.MixtureSameFamily:
        logits, means, scales = output.chunk(3, dim=-1)
        components = torch.distributions.Normal(means, scales.clamp(-6, 3).exp())
        weights = torch.distributions.Categorical(logits=logits)
        return torch.distributions.MixtureSameFamily(weights, components)

    draws = []
    fold = torch.randperm(len(y)) % 5
    for k in range(n_networks):
        network = torch.nn.Sequential(
            torch.nn.Linear(x.shape[1], _WIDTH),
            torch.nn.SiLU(),
            torch.nn.Linear(_WIDTH, _WIDTH),
            torch.nn.SiLU(),
            torch.nn.Linear(_WIDTH, 3 * _N_GAUSSIANS),
        )
        optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-3)
        inside, outside = torch.nonzero(fold != k)[:, 0], fold == k
        best, state, waited = np.inf, network.state_dict(), 0
        for _ in range(300):
            for rows in inside[torch.randperm(len(inside))].split(64):
                loss = -mixture(network(features[rows])).log_prob(target[rows]).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            with torch.no_grad():
                held_out = -mixture(network(features[outside])).log_prob(target[outside]).mean()
            waited += 1
            if float(held_out) < best:
                best, waited = float(held_out), 0
                state = {name: value.clone() for name, value in network.state_dict().items()}
            if waited > 20:
                break
        network.load_state_dict(state)
        with torch.no_grad():
            draws.append(mixture(network(others)).sample((-(-n_draws // n_networks),)))
    found = torch.cat(draws).T.numpy()[:, :n_draws]
    return centre + width * found


def _magnitudes(table: QTable, subset: str) -> dict[str, np.ndarray]:
    flux = {b: (table[f"flux_{b}"].value, table[f"extinction_{b}"].value) for b in subset}
    return {b: -1.0857 * np.arcsinh(np.clip(f, -5, None) / 1.0) - e for b, (f, e) in flux.items()}


def _colours(magnitude: dict[str, np.ndarray]) -> np.ndarray:
    bands = list(magnitude)
    pairs = zip(bands, bands[1:], strict=False)
    return np.column_stack([magnitude[a] - magnitude[b] for a, b in pairs])
