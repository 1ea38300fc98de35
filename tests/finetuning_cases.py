"""Labelled galaxies and quick settings of fine-tuning, for several tests."""

import astropy.units as u
import numpy as np
from astropy.table import QTable
from estimator_cases import (
    make_photometry,
)

N_GALAXIES = 80


FIT = {"epochs": 24, "batch_size": 16, "learning_rate": 1e-2, "seed": 1}


def galaxies(n=N_GALAXIES):
    """Return photometry whose g - r gives the redshift, and labels without half of the masses."""
    table = make_photometry(n)
    rng = np.random.default_rng(2)
    redshift = rng.uniform(0.03, 0.25, n)
    table["flux_r"] = table["flux_g"] * (1 + 4 * redshift)
    mass = (9 + 8 * redshift) * u.dex(u.Msun)
    mass[::2] = np.nan * u.dex(u.Msun)
    return table, QTable({"redshift": redshift, "stellar_mass": mass, "comment": np.arange(n)})
