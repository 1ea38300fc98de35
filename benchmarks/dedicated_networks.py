"""Compare one network for any filters with networks that were trained for a single set of filters.

    python benchmarks/dedicated_networks.py SEDS --steps 3000 --out results/benchmarks

SEDS is a folder of shards with spectral energy distributions (``recipes/training_set.py --seds``).
The joint network sees random filters and surveys; each dedicated network has the same architecture,
features, galaxies and number of steps, but sees one set of filters, always with all bands and with
the depth of the test.  All are scored on the same observations of galaxies that were not used for
training or validation, with paired bootstrap intervals.  Pan-STARRS and Bessell BVRI are not in the
training of the joint network.  An interrupted run is continued in ``--work``; ``--only`` trains and
scores some sets.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scores import paired_difference, redshift_scores
from survey_accuracy import CASES, Case
from torch import Tensor

from astrogenspec.inference.network import PropertyNetwork
from astrogenspec.inference.training import (
    DEFAULT_TRAINING,
    PropertyTask,
    RecipeConfig,
    make_batch,
)
from astrogenspec.inputs.sed_features import N_COMPONENTS, SEDComponents, filter_curve
from astrogenspec.nn.noise import normal, uniform
from astrogenspec.quantities import QUANTITIES
from astrogenspec.surveys import get_filter
from astrogenspec.training.augmentation import AugmentationConfig
from astrogenspec.training.filter_sets import FilterBank, FilterNoise, FilterObserver
from astrogenspec.training.recipe import ShardSource, train
from astrogenspec.training.shards import MORPHOLOGY_COLUMNS, Shards

CHOSEN = (
    "SDSS ugriz",
    "SDSS gri",
    "DECam grz",
    "LSST ugrizy",
    "HSC grizy",
    "LSST + Euclid",
    "Pan-STARRS grizy (held out)",
    "Bessell BVRI (held out)",
)
_MAG = 2.5 / math.log(10)
_SDSS = tuple(f"sdss2010-{band}" for band in "ugriz")
#: Fraction of bands whose errors are too small, and the factor, as in the training.
_OUTLIERS, _FACTOR = 0.03, 4.0
#: Galaxies from which the components are computed, number of draws, and galaxies per batch.
_N_SEDS, _N_DRAWS, _BLOCK = 20_000, 300, 500


class CaseObserver:
    """Features of simulated galaxies observed in one set of filters.

    Parameters
    ----------
    case : Case
        Filters, depths and calibration errors.
    components : SEDComponents
        Components of the network.
    """

    def __init__(self, case: Case, components: SEDComponents) -> None:
        filters = [get_filter(name) for name in case.filters]
        self.curves = torch.tensor(np.stack([filter_curve(each) for each in filters])).float()
        self.components, self.responses = components, components.responses(self.curves)
        depth = torch.tensor(case.depth or (0.0,) * len(filters))
        self.error = 10 ** (0.4 * (22.5 - depth)) / 5
        known = dict(zip(_SDSS, FilterNoise().sdss_calibration, strict=True))
        self.calibration = torch.tensor(
            [known.get(name, case.calibration) for name in case.filters]
        )
        self.sdss = [(k, _SDSS.index(n)) for k, n in enumerate(case.filters) if n in known]

    def __call__(self, sed: Tensor, sdss_error: Tensor, generator: torch.Generator) -> Tensor:
        """Observe galaxies; see `FilterObserver`."""
        flux = sed @ self.curves.T
        error = self.error.expand_as(flux).clone()
        for k, band in self.sdss:
            error[:, k] = sdss_error[:, band]
        sigma = torch.hypot(error, self.calibration / _MAG * flux)
        outlier = uniform(flux.shape, generator) < _OUTLIERS
        sigma = sigma * torch.where(outlier, _FACTOR, 1.0)
        flux = flux + sigma * normal(flux.shape, generator)
        inferred = self.components.infer(flux, error, self.responses, self.calibration)
        return self.components.features(inferred)


def train_network(
    shards: Shards, observer_of, recipe: RecipeConfig, steps: int, work: Path
) -> PropertyNetwork:
    """Train a network with the photometry of an observer, or continue its training."""
    torch.manual_seed(recipe.seed)
    network = PropertyNetwork.from_config(recipe.network)
    train_set, held_out = shards.split(recipe.held_out)
    theta, valid = labels_of(train_set, torch.arange(len(train_set)))
    network.set_standardisation(theta, valid)
    rows = torch.arange(_N_SEDS)
    components = components_of(network)
    components.fit(train_set.seds(rows) / train_set.columns["sed_flux"][rows, None])
    task = PropertyTask(recipe, None, observer_of(components))
    source = ShardSource(
        train_set, held_out, recipe.photometry_augmentation, recipe.photometry_batch
    )
    config = replace(
        DEFAULT_TRAINING,
        max_steps=steps,
        max_seconds=None,
        learning_rate=1.5e-3,
        checkpoint_minutes=1.0,
        quiet=True,
    )
    train(task, network, [source], work, config)
    return network.eval()


def components_of(network: PropertyNetwork) -> SEDComponents:
    """Return the components of a network for any filters."""
    if network.components is None:
        raise ValueError("the network reads photometry of SDSS only; give one for any filters.")
    return network.components


def labels_of(shards: Shards, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return true quantities and where they are known."""
    theta = shards.columns["theta"][rows]
    valid = torch.isfinite(theta)
    valid[:, 3] &= shards.columns["measurable"][rows] > 0.5
    return theta, valid


@torch.no_grad()
def draw(
    network: PropertyNetwork, shards: Shards, rows: Tensor, case: Case, recipe: RecipeConfig
) -> np.ndarray:
    """Draw from the posteriors of test galaxies, shape (n, draws, quantities)."""
    observer: Any = CaseObserver(case, components_of(network))
    generator = torch.Generator().manual_seed(99)
    parts = []
    for chunk in rows.split(_BLOCK):
        batch = make_batch(shards, chunk, recipe.photometry_augmentation, generator, observer)
        parts.append(network.posterior(batch.inputs).sample(_N_DRAWS, generator))
    return torch.cat(parts).numpy()


def scores(draws: np.ndarray, theta: np.ndarray, valid: np.ndarray) -> dict[str, float]:
    """Return the scores of the redshift, and R2 of all quantities."""
    found = redshift_scores(draws[..., 0], theta[:, 0])
    found.pop("pit_ks_fifths")
    median = np.median(draws, axis=1)
    for k, name in enumerate(QUANTITIES):
        true, own = theta[valid[:, k], k], median[valid[:, k], k]
        found[f"r2_{name}"] = 1 - float(np.mean((own - true) ** 2) / true.var())
    return found


def main() -> None:
    """Train and score the networks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder of shards with SEDs")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--n", type=int, default=10_000, help="number of test galaxies")
    parser.add_argument("--only", nargs="+", choices=CHOSEN, default=CHOSEN)
    parser.add_argument("--work", type=Path, default=Path("results/dedicated"))
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    options = parser.parse_args()
    recipe = replace(
        RecipeConfig(network={"sed_components": N_COMPONENTS}),
        photometry_augmentation=AugmentationConfig(full_bands=1.0, gri_bands=0.0),
    )
    shards = Shards.read(options.data).without_images().drop(*MORPHOLOGY_COLUMNS)
    test = shards.split(recipe.held_out)[1]
    rows = torch.arange(recipe.validation_size, len(test))[: options.n]
    theta, valid = (values.numpy() for values in labels_of(test, rows))
    joint = train_network(
        shards,
        lambda components: FilterObserver(FilterBank(), components),
        recipe,
        options.steps,
        options.work / "joint",
    )
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "dedicated_networks.json"
    result = {"kind": "simulated held-out", "steps": options.steps, "n": len(rows), "sets": {}}
    for name in options.only:
        case = CASES[name]
        folder = options.work / "-".join(name.replace("(", "").replace(")", "").split())
        own = train_network(
            shards,
            lambda components, case=case: CaseObserver(case, components),
            recipe,
            options.steps,
            folder,
        )
        draws = {
            kind: draw(network, test, rows, case, recipe)
            for kind, network in (("joint", joint), ("dedicated", own))
        }
        found = {kind: scores(values, theta, valid) for kind, values in draws.items()}
        medians = [np.median(values[..., 0], axis=1) for values in draws.values()]
        found["sigma_nmad, joint minus dedicated"] = paired_difference(
            medians[0], medians[1], theta[:, 0]
        )
        result["sets"][name] = found
        path.write_text(json.dumps(result, indent=1))
        print(name, json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
