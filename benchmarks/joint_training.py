"""Compare joint training of autoencoder and flows with an encoder trained on the ELBO alone.

    python benchmarks/joint_training.py IMAGES PHOTOMETRY --steps 1000 --out results/benchmarks

IMAGES and PHOTOMETRY are folders of shards (``astrogenspec simulate --training``).  Both networks
are trained on the same batches for the same number of steps and scored on the same simulated
held-out galaxies, from images alone.  An interrupted run is continued in ``--work``.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch

from astrogenspec.inference.training import (
    DEFAULT_TRAINING,
    RecipeConfig,
    make_batch,
    train_properties,
)
from astrogenspec.inference.vae import elbo_terms
from astrogenspec.quantities import QUANTITIES
from astrogenspec.training.augmentation import AugmentationConfig
from astrogenspec.training.shards import Shards

IMAGE_ONLY = AugmentationConfig(mode_weights=(0, 0, 1, 0), full_bands=1.0, gri_bands=0.0)
HELD_OUT = 3000


@torch.no_grad()
def score(network, shards: Shards) -> dict:
    """Return negative log density and R2 of each quantity, and the reconstruction loss."""
    generator = torch.Generator().manual_seed(5)
    medians, thetas, valids, densities, residuals = [], [], [], [], []
    for rows in torch.arange(min(HELD_OUT, len(shards))).split(250):
        batch = make_batch(shards, rows, IMAGE_ONLY, generator)
        valid = torch.isfinite(batch.theta)
        valid[:, 3] &= batch.measurable > 0.5
        posterior = network.posterior(batch.inputs)
        draws = posterior.sample(200, generator)
        medians.append(draws.median(1).values)
        densities.append(posterior.log_prob(batch.theta, valid, generator))
        thetas.append(batch.theta)
        valids.append(valid)
        mu, logvar = network.latent(batch.inputs)
        decoded = network.vae.decode(mu)
        terms = elbo_terms(batch.inputs.image, batch.inputs.image_weight, decoded, mu, logvar)
        residuals.append(terms[0])
    theta, valid, median = torch.cat(thetas), torch.cat(valids), torch.cat(medians)
    density = torch.cat(densities)
    rows = {}
    for k, name in enumerate(QUANTITIES):
        true, found = theta[valid[:, k], k], median[valid[:, k], k]
        rows[name] = {
            "r2": float(1 - (found - true).square().mean() / true.var()),
            "negative_log_density": float(-density[valid[:, k], k].mean()),
        }
    return {"quantities": rows, "reconstruction": float(torch.cat(residuals).mean())}


def main() -> None:
    """Train both networks, score them and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs=2, help="shards with and without images")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--work", type=Path, default=Path("results/joint_training"))
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    arguments = parser.parse_args()
    result = {"kind": "simulated held-out, image only", "steps": arguments.steps}
    for name, frozen in (("joint", False), ("encoder trained by the evidence bound", True)):
        recipe = RecipeConfig(network={"frozen_vae": frozen})
        training = replace(DEFAULT_TRAINING, max_steps=arguments.steps, max_seconds=None)
        work = arguments.work / ("frozen" if frozen else "joint")
        network, _ = train_properties(arguments.data, work, recipe=recipe, training=training)
        held_out = Shards.read(arguments.data[0]).split(recipe.held_out)[1]
        result[name] = score(network.eval(), held_out)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "joint_training.json").write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
