"""A small network and a few galaxies for the tests of the estimator and the command line."""

from functools import cache

import astropy.units as u
import numpy as np
import torch
from astropy.nddata import NDData, StdDevUncertainty
from astropy.table import QTable

from astrogenspec.inference.estimator import PropertyEstimator
from astrogenspec.inference.network import PropertyNetwork
from astrogenspec.surveys import BANDS

N = 5
NOISE = 0.05


@cache
def make_network():
    """Return a small network whose random weights make its posterior depend on the input."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = PropertyNetwork(
            latent_size=6, context_size=16, width=32, factor_width=16, n_bins=(4,) * 9
        )
        for factor in network.chain.factors:
            torch.nn.init.normal_(factor.out.weight, std=0.5)
    return network


def make_estimator(**card):
    return PropertyEstimator(make_network(), card={"name": "tiny", **card})


def make_photometry(n=N, seed=0, **columns):
    """Return a catalogue of n galaxies with all bands and ebv."""
    rng = np.random.default_rng(seed)
    table = QTable()
    for k, band in enumerate(BANDS):
        table[f"flux_{band}"] = rng.uniform(50, 90, n) * 1.5**k * u.nmgy
        table[f"flux_err_{band}"] = np.full(n, 1.0) * u.nmgy
    table["ebv"] = np.full(n, 0.02) * u.mag
    for name, values in columns.items():
        table[name] = values
    return table


@cache
def _pixels(n):
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:64, :64] - 31.5
    profile = np.exp(-np.hypot(x, y) / rng.uniform(2.5, 5, (n, 1, 1, 1)))
    colours = np.array([0.4, 1.0, 2.0, 2.6, 3.2])[:, None, None]
    return (2 * profile * colours + rng.normal(0, NOISE, (n, 5, 64, 64))).astype(np.float32)


def make_cutouts(n=N, *, bad=(), names=None):
    """Return a list of cubes; those with an index in ``bad`` have no finite pixel."""
    cutouts = []
    for k, pixels in enumerate(_pixels(n)):
        meta = {"bands": "ugriz", "PIXSCALE": 0.396} | ({} if names is None else {"name": names[k]})
        values = np.full_like(pixels, np.nan) if k in bad else pixels
        sigma = StdDevUncertainty(np.full(pixels.shape, NOISE))
        cutouts.append(NDData(values, unit=u.nmgy, uncertainty=sigma, meta=meta))
    return cutouts


def make_stack(n=N):
    """Return the same galaxies as one array."""
    pixels = _pixels(n)
    sigma = StdDevUncertainty(np.full(pixels.shape, NOISE))
    return NDData(
        pixels, unit=u.nmgy, uncertainty=sigma, meta={"bands": "ugriz", "PIXSCALE": 0.396}
    )


def draws_of(posterior):
    """Return all draws as one array, in dex."""
    values = {name: draws.value.astype(float) for name, draws in posterior.draws.items()}
    return np.stack([np.log10(v) if "flux" in name else v for name, v in values.items()], -1)
