"""A small property network and its inputs, shared by several tests."""

import torch

from astrogenspec.inference.network import PropertyNetwork
from astrogenspec.quantities import QUANTITIES
from astrogenspec.training.augmentation import (
    augment,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def make_network(**config):
    torch.manual_seed(0)
    return PropertyNetwork.from_config(
        {"latent_size": 6, "context_size": 16, "width": 32, "factor_width": 16} | config
    )


def make_galaxies(n=12, seed=0):
    """Make noise-free exponential galaxies with labels inside their supports."""
    generator = seeded(seed)
    y, x = torch.meshgrid(torch.arange(64.0) - 31.5, torch.arange(64.0) - 31.5, indexing="ij")
    profile = torch.exp(-torch.hypot(x, y) / 4)
    flux = 100 * 10 ** (0.3 * torch.randn(n, 5, generator=generator))
    images = flux[..., None, None] * profile / profile.sum()
    lower = torch.tensor([info.lower for info in QUANTITIES.values()])
    upper = torch.tensor([info.upper for info in QUANTITIES.values()])
    theta = lower + (upper - lower) * (0.3 + 0.4 * torch.rand(n, 9, generator=generator))
    return images.half(), flux, 0.02 * flux, theta


def make_batch(n=12, seed=0, config=None):
    images, flux, error, theta = make_galaxies(n, seed)
    inputs = augment(
        images,
        flux,
        error,
        measured_flux=flux,
        measured_error=error,
        config=config,
        generator=seeded(seed),
    )
    measurable = (torch.arange(n) % 3 > 0).float()
    valid = torch.ones(n, 9, dtype=torch.bool)
    valid[:, list(QUANTITIES).index("gas_metallicity")] = measurable > 0
    return inputs, theta, valid, measurable
