"""Images in filters in which a galaxy was not observed."""

import numpy as np
import pytest
import torch

from astrogenspec.inputs.filter_sets import sdss_filters
from astrogenspec.inputs.sed_features import SEDComponents, filter_curve
from astrogenspec.inputs.virtual_images import virtual_images
from astrogenspec.surveys import get_filter
from astrogenspec.wavelengths import SED_GRID

DES = [get_filter(f"decam2014-{band}") for band in "grizY"]
SIGMA = torch.tensor([0.01, 0.004, 0.006, 0.01, 0.04])


def seds(slope, height):
    """Power laws with a break, 1 nmgy at 6200 A."""
    x = torch.tensor(SED_GRID.log_wavelength - np.log10(6200))
    slope, height = torch.as_tensor(slope)[:, None], torch.as_tensor(height)[:, None]
    return (10 ** (slope * x + height / (1 + torch.exp(-x / 0.02)))).float()


def through(sed, filters):
    curves = torch.tensor(np.stack([filter_curve(each) for each in filters])).float()
    return sed @ curves.T


@pytest.fixture(scope="module")
def components():
    generator = torch.Generator().manual_seed(1)
    slope, height = torch.randn((2, 3000), generator=generator, dtype=torch.float64)
    found = SEDComponents(8)
    found.fit(seds(0.8 + 0.6 * slope, 0.3 + 0.1 * height))
    return found


@pytest.fixture(scope="module")
def galaxy(components):
    """A red bulge in a blue disk in ugriz, the spectra of the parts, and that of the whole."""
    y, x = np.indices((24, 24)) - 11.5
    r = torch.tensor(np.hypot(x, y)).float()
    light = torch.stack([50 * torch.exp(-r / 1.0), 3 * torch.exp(-r / 4)])
    parts = seds([1.6, 0.5], [0.4, 0.2])
    images = torch.einsum("pyx,pb->byx", light, through(parts, sdss_filters()))[None]
    total = images.sum((2, 3)).double()
    responses = components.responses_of(sdss_filters())
    inferred = components.infer(total, 0.03 * total, responses, torch.zeros(5))
    return images, light, parts, inferred


def predict(components, images, target, inferred):
    error = SIGMA, torch.full((5,), 0.02)
    return virtual_images(images, error, sdss_filters(), target, inferred, components)


def test_colour_gradients_are_kept(components, galaxy):
    images, light, parts, inferred = galaxy
    found = predict(components, images, DES, inferred)
    assert found.shape == (1, 5, 24, 24)
    true = torch.einsum("pyx,pb->byx", light, through(parts, DES))
    bright = true[1] > 0.5
    ratio = (found[0] / true)[:, bright]
    assert (ratio[:4] - 1).abs().max() < 0.03
    assert (ratio[4] - 1).abs().max() < 0.1
    # The gradient is large: one colour for all pixels would not do.
    colour = (true[0] / true[2])[bright]
    assert colour.max() / colour.min() > 1.5


def test_the_same_filters_return_the_image(components, galaxy):
    images, _, _, inferred = galaxy
    found = predict(components, images, sdss_filters(), inferred)
    assert (found - images).abs().max() < 0.03 * images.max()
    bright = images[0, 2] > 0.5
    torch.testing.assert_close(found[0][1:4, bright], images[0][1:4, bright], rtol=0.02, atol=0)


def test_sky_remains_sky(components, galaxy):
    """The prediction is linear for faint pixels: noise has no bias, and negative pixels occur."""
    *_, inferred = galaxy
    noise = SIGMA[:, None, None] * torch.randn(
        1, 5, 64, 64, generator=torch.Generator().manual_seed(2)
    )
    found = predict(components, noise, DES, inferred)
    assert torch.isfinite(found).all()
    mean, scatter = found.mean((2, 3))[0], found.std((2, 3))[0]
    assert (mean.abs() < 4 * scatter / 64).all()
    assert (found < 0).float().mean() > 0.4
    torch.testing.assert_close(
        predict(components, -noise, DES, inferred)[0, 1].mean(),
        -found[0, 1].mean(),
        rtol=0.1,
        atol=1e-4,
    )
