"""Populations of galaxies and their structure, for several tests."""

import torch

from astrogenspec.simulate.priors import load_priors
from astrogenspec.simulate.structure import draw_structure

PRIORS = load_priors("structure")


def population(n=4000, seed=0, **changes):
    """Galaxies of all types."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low, high):
        return low + (high - low) * torch.rand(n, generator=generator)

    quiescent = uniform(0, 1) < 0.5
    galaxies = {
        "log_mass": uniform(9, 11.5),
        "quiescent": quiescent,
        "green_valley": ~quiescent & (uniform(0, 1) < 0.1),
        "bulge_fraction": torch.where(quiescent, uniform(0.2, 1), uniform(0, 0.4)),
        "cos_inclination": uniform(0, 1),
        "size_deviate": torch.randn(n, generator=generator),
    }
    return galaxies | changes


def drawn(galaxies, seed=1, priors=PRIORS):
    n = len(galaxies["log_mass"])
    generator = torch.Generator().manual_seed(seed)
    return draw_structure(galaxies, priors, generator, torch.full((n,), 1.6))
