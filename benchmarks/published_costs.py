"""Processor time and memory of the networks of the two published methods.

    python benchmarks/published_costs.py images-to-physics
    python benchmarks/published_costs.py galaxy-spectroscopy

One training step, on one core and random numbers, gives the time of one epoch of 1000 galaxies.
The time of drawing a spectrum is that of one evaluation of each U-Net times the number of steps.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from typing import Any

import torch

from astrogenspec.generation.galaxy_spectroscopy import WAVELENGTH, GalaxySpectroscopyNetwork
from astrogenspec.inference.images_to_physics import ImagesToPhysicsNetwork
from astrogenspec.inputs.features import ModelInputs, image_features, photometry_features

_THETA = [0.1, 10.5, 0.0, 8.7, 8.0, 1.5, 1.0, 1.2, 0.8]


def seconds(function: Callable[[], object], n: int = 2) -> float:
    """Return the processor time of a call, after one that is not counted."""
    function()
    start = time.process_time()
    for _ in range(n):
        function()
    return (time.process_time() - start) / n


def images_to_physics(n: int = 64) -> dict[str, float]:
    """Return times per 1000 galaxies (s)."""
    network = ImagesToPhysicsNetwork()
    size = network.cutout_size
    flux = 0.03 * torch.randn(n, 5, size, size)
    magnitudes = 10 + 50 * torch.rand(n, 5)
    inputs = ModelInputs(
        *image_features(flux, torch.full_like(flux, 1e3)),
        photometry_features(magnitudes, 0.02 * magnitudes),
    )
    theta = torch.tensor(_THETA) + 0.02 * torch.randn(n, 9)
    valid = torch.ones(n, 9, dtype=torch.bool)
    optimiser = torch.optim.Adam(network.parameters(), 1e-4)
    latent = torch.randn(n, 32), torch.zeros(n, 32)

    def step(**options: Any) -> None:
        optimiser.zero_grad()
        network.loss(inputs, theta, valid, torch.ones(n), **options)["total"].backward()
        optimiser.step()

    times = {
        "autoencoder, one epoch": seconds(
            lambda: step(quantity_weight=torch.zeros(n, 9), elbo_weight=1e-5)
        ),
        "flows, one epoch": seconds(lambda: step(latent=latent, elbo_weight=0.0)),
    }
    network.eval()
    with torch.inference_mode():
        times["encoding the images"] = seconds(lambda: network.latent(inputs))
        times["1000 draws"] = seconds(lambda: network.posterior(inputs).sample(1000))
    return {name: 1000 * value / n for name, value in times.items()}


def galaxy_spectroscopy(n: int = 16) -> dict[str, float]:
    """Return the time of an epoch of 1000 galaxies and of the parts of a spectrum (s)."""
    network = GalaxySpectroscopyNetwork()
    image, logs = torch.randn(n, 5, 64, 64), torch.randn(n, len(WAVELENGTH))
    optimiser = torch.optim.Adam(network.parameters(), 1e-4)

    def step() -> None:
        optimiser.zero_grad()
        network.loss(image, logs, n_detail=n // 4)["total"].backward()
        optimiser.step()

    times = {"one epoch of 1000 galaxies": 1000 * seconds(step, 1) / n}
    k, n_steps = network.default_options["n_candidates"], network.diffusion.n_steps
    with torch.inference_mode():
        tokens = network.low.image(image[:1])
        low, high = torch.randn(k, 1, 563), torch.randn(1, 2, len(WAVELENGTH))
        times["candidates of one galaxy"] = n_steps * seconds(
            lambda: network.low.unet(low, torch.rand(k), tokens.expand(k, -1, -1)), 1
        )
        times["one refined spectrum"] = n_steps * seconds(
            lambda: network.high.unet(high, torch.rand(1), tokens), 1
        )
    return times


def main() -> None:
    """Print the times and the memory."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    measures = {"images-to-physics": images_to_physics, "galaxy-spectroscopy": galaxy_spectroscopy}
    parser.add_argument("configuration", choices=measures)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name, value in measures[options.configuration]().items():
        print(f"{name}: {value:.3g} s")
    print(f"memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2g} GB")


if __name__ == "__main__":
    main()
