"""Small synthetic shards and a short training, shared by several tests."""

from dataclasses import replace

import numpy as np

from astrogenspec.inference.training import (
    DEFAULT_TRAINING,
    RecipeConfig,
)

NETWORK = {"latent_size": 4, "context_size": 8, "width": 16, "factor_width": 8}


RECIPE = RecipeConfig(
    image_batch=8, photometry_batch=16, held_out=0.25, validation_size=12, network=NETWORK, seed=3
)


TRAINING = replace(DEFAULT_TRAINING, max_seconds=None, max_steps=4, validate_every=2, quiet=True)


def make_columns(n, images, seed=0):
    rng = np.random.default_rng(seed)
    middle = [0.1, 10.5, 0.0, 8.7, 8.0, 1.5, 1.0, 1.2, 0.8]
    flux = (10 ** rng.normal(1.8, 0.3, (n, 1)) * [0.2, 0.6, 1.0, 1.3, 1.6]).astype(np.float32)
    columns = {
        "theta": (middle + 0.02 * rng.normal(size=(n, 9))).astype(np.float32),
        "measurable": rng.random(n) < 0.5,
        "true_flux": flux,
        "error": 0.02 * flux,
        "r50": rng.uniform(1, 5, n).astype(np.float32),
        "r90": rng.uniform(8, 12, n).astype(np.float32),
        "axis_ratio": rng.uniform(0.2, 1, n).astype(np.float32),
    }
    if images:
        image = rng.random((n, 5, 64, 64)).astype(np.float16)
        columns |= {"image": image, "measured_flux": flux, "measured_error": 0.02 * flux}
    return columns
