"""Diffusion with discrete steps: schedule, loss, and samples of a known distribution."""

import math

import pytest
import torch

from astrogenspec.generation.ddpm import CosineDiffusion

SIGMA, MEAN = 0.3, 1.2


def exact(diffusion):
    """The best estimate of the noise for Gaussian data."""

    def network(x, time):
        signal = diffusion.signal[(time * diffusion.n_steps).round().long()][:, None]
        variance = signal * SIGMA**2 + 1 - signal
        return (1 - signal).sqrt() * (x - signal.sqrt() * MEAN) / variance

    return network


def test_cosine_schedule():
    diffusion = CosineDiffusion(250)
    assert diffusion.signal[0] == 1 and diffusion.signal[-1] < 1e-4
    assert (diffusion.signal.diff() < 0).all()

    def f(t):
        return math.cos((t / 250 + 0.008) / 1.008 * math.pi / 2) ** 2

    assert diffusion.signal[100].item() == pytest.approx(f(100) / f(0), rel=1e-5)


@pytest.mark.parametrize("n_ddim", [None, 50])
def test_samples_follow_the_data(n_ddim):
    diffusion, generator = CosineDiffusion(250), torch.Generator().manual_seed(0)
    drawn = diffusion.sample(
        exact(diffusion), lambda: torch.randn(4000, 2, generator=generator), n_ddim
    )
    assert drawn.mean().item() == pytest.approx(MEAN, abs=0.02)
    assert drawn.std().item() == pytest.approx(SIGMA, abs=0.02)


def test_noise_is_drawn_at_every_step_of_ancestral_sampling_only():
    diffusion = CosineDiffusion(20)
    for n_ddim, expected in ((None, 20), (5, 1)):
        calls = []

        def draw(calls=calls):
            calls.append(1)
            return torch.zeros(3, 2)

        diffusion.sample(exact(diffusion), draw, n_ddim)
        assert len(calls) == expected


def test_loss_of_the_exact_network_is_the_expected_one():
    diffusion = CosineDiffusion(250)
    generator = torch.Generator().manual_seed(0)
    data = MEAN + SIGMA * torch.randn(20000, 1, generator=generator)
    found = diffusion.loss(exact(diffusion), data, generator).mean().item()
    signal = diffusion.signal[1:]
    # Variance of the noise given the noisy data.
    expected = (signal * SIGMA**2 / (signal * SIGMA**2 + 1 - signal)).mean().item()
    assert found == pytest.approx(expected, rel=0.03)
    useless = diffusion.loss(lambda x, t: torch.zeros_like(x), data, generator).mean().item()
    assert useless == pytest.approx(1, rel=0.03)
