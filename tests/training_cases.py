"""Small synthetic shards and a short training, shared by several tests."""

from dataclasses import replace

import h5py
import numpy as np

from astrogenspec.inference.training import (
    DEFAULT_TRAINING,
    RecipeConfig,
)
from astrogenspec.inputs.features import PIXEL_SIGMA
from astrogenspec.inputs.filter_sets import sdss_filters

SDSS_NAMES = tuple(f.name for f in sdss_filters())

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


def make_observed(n=6, seed=0):
    """Real galaxies with images in g, r and i, without z flux in the second half."""
    rng = np.random.default_rng(seed)
    flux = (10 ** rng.normal(1.8, 0.3, (n, 1)) * [0.2, 0.6, 1.0, 1.3, 1.6]).astype("f4")
    flux[n // 2 :, 4] = np.nan
    ivar = np.zeros((n, 5, 64, 64), "f4")
    ivar[:, 1:4] = (np.array(PIXEL_SIGMA[1:4]) ** -2)[:, None, None]
    ivar[:, :, :8, :8] = 0
    theta = np.full((n, 9), np.nan, "f4")
    theta[:, 0] = rng.uniform(0.05, 0.15, n)
    theta[::2, 1] = rng.normal(10.5, 0.2, len(theta[::2]))
    shape = rng.uniform(1, 3, n).astype("f4")
    return {
        "name": np.array([f"G{k}".encode() for k in range(n)], "S64"),
        "theta": theta,
        "measurable": np.full(n, np.nan, "f4"),
        "flux": flux,
        "error": 0.05 * np.abs(flux),
        "measured_flux": np.where(np.isin(np.arange(5), [1, 2, 3]), flux, np.nan).astype("f4"),
        "measured_error": 0.1 * np.abs(flux),
        "image": rng.normal(0, 0.03, (n, 5, 64, 64)).astype("f2") * (ivar > 0),
        "ivar": ivar,
        "r50": shape,
        "r90": 2.5 * shape,
        "axis_ratio": np.full(n, 0.5, "f4"),
    }


def write_real(path, columns, filters=SDSS_NAMES, version="astrogenspec real galaxies 1"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.attrs["format"] = version
        file.attrs["filters"] = list(filters)
        for name, values in columns.items():
            file[name] = values
