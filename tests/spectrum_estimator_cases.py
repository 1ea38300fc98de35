"""A spectrum estimator of random weights and its inputs, for several tests."""

import astropy.units as u
import numpy as np
from astropy.table import QTable
from generation_cases import make_galaxies, make_theta

from astrogenspec import Posterior
from astrogenspec.generation.network import SamplerSettings
from astrogenspec.quantities import theta_to_quantities

QUICK = SamplerSettings(low_steps=2, high_steps=1)


def photometry(n=3, seed=0):
    rng = np.random.default_rng(seed)
    r = rng.uniform(16, 17.5, n)
    table = QTable({"name": [f"galaxy {k}" for k in range(n)], "ebv": np.full(n, 0.02) * u.mag})
    for band, colour in zip("ugriz", (2.4, 0.8, 0.0, -0.35, -0.6), strict=True):
        table[f"mag_{band}"] = (r + colour) * u.ABmag
        table[f"mag_err_{band}"] = np.full(n, 0.02) * u.mag
    return table


def posterior(n=3, k=8, seed=0):
    theta = make_theta(make_galaxies(n * k, seed), seed)
    theta[:, 5:] += 0.3
    return Posterior(
        theta_to_quantities(theta.reshape(n, k, 9).numpy()), names=[f"galaxy {i}" for i in range(n)]
    )


def predict(estimator, *arguments, **options):
    settings = {"n_draws": 4, "sampler": QUICK, "seed": 1, "progress": False} | options
    return estimator.predict(*arguments, **settings)
