"""Inputs of the spectrum estimator, shared by several tests."""

import astropy.units as u
import numpy as np
from astropy.table import QTable
from generation_cases import make_galaxies, make_theta

from astrogenspec import Posterior, SpectrumOptions
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


def predict(estimator, *arguments, **settings):
    """Predict with few steps; the fields of `SpectrumOptions` are keywords too."""
    settings = {"n_draws": 4, "seed": 1, "progress": False} | settings
    names = SpectrumOptions.__dataclass_fields__.keys() & settings.keys()
    options = {"sampler": QUICK} | {name: settings.pop(name) for name in names}
    return estimator.predict(*arguments, options=SpectrumOptions(**options), **settings)
