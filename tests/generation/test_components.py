"""Tests of the spectrum network: rebinning, diffusion, contrastive scores, components, lines."""

import math

import numpy as np
import pytest
import torch
from generation_cases import make_galaxies
from torch import nn

from astrogenspec.generation.components import PER_BIN, Components, conserve, to_bins, to_pixels
from astrogenspec.generation.contrastive import ComponentEncoder, Matcher, info_nce
from astrogenspec.generation.diffusion import (
    NoiseLevels,
    adams,
    ddim,
    denoising_loss,
    guided,
    heun,
    precondition,
)
from astrogenspec.wavelengths import LINES, REST, LogGrid, add_lines, line_index


def test_bins_conserve_flux():
    grid = LogGrid(3.5, 1e-3, 64)
    flux = torch.rand(3, 64, dtype=torch.float64) + 0.5
    width = torch.tensor(grid.width)
    bins = to_bins(flux, 8, grid.step)
    wide = width.unflatten(0, (8, 8)).sum(1)
    assert torch.allclose((bins * wide).sum(1), (flux * width).sum(1), rtol=1e-12)


def test_interpolated_bins_are_smooth_and_conserve_flux():
    wavelength = torch.tensor(REST.wavelength)
    curve = (wavelength / 5000) ** -1.5 + 0.2 * torch.sin(wavelength / 200)
    bins = to_bins(curve, PER_BIN, REST.step)
    pixels = to_pixels(bins, PER_BIN, REST.step)
    assert torch.allclose(to_bins(pixels, PER_BIN, REST.step), bins, rtol=1e-10)
    inner = slice(PER_BIN, -PER_BIN)
    assert (pixels / curve - 1)[inner].abs().max() < 4e-3


def test_conserve_scales_each_bin():
    flux = torch.rand(2, 32) + 0.5
    wanted = torch.rand(2, 4) + 1
    scaled = conserve(flux, wanted, 8, 1e-4)
    assert torch.allclose(to_bins(scaled, 8, 1e-4), wanted, rtol=1e-5)
    ratio = (scaled / flux).unflatten(1, (4, 8))
    assert torch.allclose(ratio.amax(2), ratio.amin(2), rtol=1e-5)


def gaussian_denoiser(mean, sd):
    """The exact denoiser of normally distributed data."""
    return lambda x, s: (sd**2 * x + s[:, None] ** 2 * mean) / (sd**2 + s[:, None] ** 2)


@pytest.mark.parametrize(
    ("sampler", "steps", "tolerance"), [(adams, 14, 0.02), (heun, 8, 0.02), (ddim, 60, 0.05)]
)
def test_samplers_recover_a_known_distribution(sampler, steps, tolerance):
    mean, sd = torch.tensor([0.7, -0.3]), torch.tensor([0.2, 0.9])
    noise = torch.randn(20000, 2, generator=torch.Generator().manual_seed(1))
    levels = NoiseLevels().steps(steps, noise.device)
    samples = sampler(gaussian_denoiser(mean, sd), noise, levels)
    assert torch.allclose(samples.mean(0), mean, atol=0.02)
    assert torch.allclose(samples.std(0), sd * noise.std(0), rtol=tolerance)


def test_a_trained_denoiser_samples_the_conditional_distribution():
    """y given x is normal with mean sin(3x)/2 and scatter 0.1 + 0.2 x^2."""
    torch.manual_seed(0)
    layers = [nn.Linear(3, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, 1)]
    net = nn.Sequential(*layers)
    optimiser = torch.optim.Adam(net.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 2500)
    levels = NoiseLevels()

    def conditioned(x):
        return lambda y, t: net(torch.cat([y, t[:, None], x], dim=1))

    for _ in range(2500):
        x = 2 * torch.rand(1024, 1) - 1
        y = 0.5 * torch.sin(3 * x) + (0.1 + 0.2 * x**2) * torch.randn_like(x)
        loss = denoising_loss(conditioned(x), 2 * y, levels).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    found = {}
    for where in (-0.8, 0.0, 0.8):
        x = torch.full((4000, 1), where)
        noise = torch.randn(4000, 1)
        with torch.no_grad():
            for name, sampler, steps in (
                ("adams", adams, 24),
                ("heun", heun, 12),
                ("ddim", ddim, 80),
            ):
                y = sampler(
                    lambda v, s, x=x: precondition(conditioned(x), v, s),
                    noise,
                    levels.steps(steps, x.device),
                )
                found[name, where] = y / 2
        y = found["heun", where]
        assert y.mean() == pytest.approx(0.5 * math.sin(3 * where), abs=0.03)
        assert y.std() == pytest.approx(0.1 + 0.2 * where**2, rel=0.2)
        assert (found["ddim", where] - y).abs().mean() < 0.02
        assert (found["adams", where] - y).abs().mean() < 0.01


def test_guidance_extrapolates_the_conditional_model():
    one, other = (lambda x, s: x + 1), (lambda x, s: x)
    x = torch.zeros(2, 3)
    assert guided(one, other, 1.0) is one
    assert torch.equal(guided(one, other, 2.0)(x, x[:, 0]), x + 2)


def test_info_nce_of_true_and_false_pairs():
    vectors = nn.functional.normalize(torch.randn(64, 16), dim=1)
    loss, top1 = info_nce(vectors, vectors, torch.tensor(50.0))
    assert top1 == 1 and loss < 0.1
    loss, top1 = info_nce(vectors, vectors.roll(1, 0), torch.tensor(50.0))
    assert top1 == 0 and loss > 5


def test_matcher_learns_pairs():
    torch.manual_seed(1)
    matcher = Matcher(4, ComponentEncoder(3, 128))
    optimiser = torch.optim.Adam(matcher.parameters(), lr=2e-3)
    for _ in range(60):
        truth = torch.randn(128, 3)
        tokens = torch.cat([truth, truth[:, :1]], 1)[:, None] + 0.05 * torch.randn(128, 2, 4)
        loss, top1 = info_nce(matcher.observation(tokens), matcher.spectrum(truth), matcher.scale)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert top1 > 0.4
    of_spectra = matcher.spectrum(truth)
    scores = matcher.scores(matcher.observation(tokens), of_spectra[None].expand(128, -1, -1))
    assert scores.shape == (128, 128)
    assert (scores.argmax(1) == torch.arange(128)).float().mean() > 0.4


def test_components_round_trip():
    galaxies = make_galaxies(200)
    components = Components(8)
    components.fit(galaxies)
    vectors = components.encode(galaxies)
    assert vectors.shape == (200, components.size)
    assert vectors[:, :3].std(0) == pytest.approx(torch.ones(3), abs=1e-3)
    back = components.decode(vectors)
    bins = to_bins(galaxies.continuum, PER_BIN, REST.step)
    assert (back.continuum / bins - 1).abs().max() < 0.02
    assert torch.allclose(back.narrow, galaxies.narrow, rtol=1e-3)
    assert torch.allclose(back.redshift, galaxies.redshift, rtol=1e-4)
    assert torch.allclose(back.dispersion, galaxies.dispersion, rtol=1e-4)
    assert torch.allclose(back.broad, galaxies.broad, rtol=1e-3)
    assert torch.equal(back.broad == 0, galaxies.broad == 0)


@pytest.mark.parametrize("redshift", [0.0, 0.1234])
@pytest.mark.parametrize("velocity", [10.0, 180.0, 1300.0])
def test_lines_have_the_given_flux_wavelength_and_width(redshift, velocity):
    grid = REST
    spectrum = add_lines(
        torch.zeros(1, grid.size, dtype=torch.float64),
        grid,
        ("Hbeta",),
        torch.tensor([[7.0]], dtype=torch.float64),
        torch.tensor([velocity], dtype=torch.float64),
        torch.tensor([redshift]),
    )[0].numpy()
    weight = spectrum * grid.width
    assert weight.sum() == pytest.approx(7.0, rel=1e-4)
    centre = (weight * grid.wavelength).sum() / weight.sum()
    expected = LINES["Hbeta"] * (1 + redshift)
    assert centre == pytest.approx(expected, rel=3e-5)
    sigma = np.sqrt((weight * (np.log10(grid.wavelength) - np.log10(expected)) ** 2).sum() / 7)
    assert sigma / grid.step == pytest.approx(math.hypot(velocity / 69.0, 1.0), rel=0.01)


def test_lines_off_the_grid_are_omitted():
    flux = torch.ones(1, 1)
    spectrum = add_lines(
        torch.zeros(1, 100), LogGrid(3.6, 1e-4, 100), ("Halpha",), flux, flux[0], torch.zeros(1)
    )
    assert spectrum.abs().max() == 0
    assert line_index("Halpha") == 11
