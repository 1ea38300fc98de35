"""Images with missing pixels are completed before they are encoded."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from network_cases import make_network

from astrogenspec import PropertyEstimator
from astrogenspec.demo import load_cutouts
from astrogenspec.inference.completion import complete_images
from astrogenspec.inputs.cutouts import coerce_cutouts
from astrogenspec.inputs.features import make_inputs


def inputs_of(cutouts, keep=64):
    """Inputs of cutouts of which only the central pixels are known."""
    edge = (64 - keep) // 2
    ivar = np.zeros_like(cutouts.ivar)
    part = np.s_[:, :, edge : 64 - edge, edge : 64 - edge]
    ivar[part] = cutouts.ivar[part]
    return make_inputs(replace(cutouts, ivar=ivar))


@pytest.fixture(scope="module")
def cutouts():
    return coerce_cutouts(load_cutouts()[0])


def test_observed_pixels_and_missing_bands_do_not_change(cutouts):
    network = make_network()
    flux, ivar = cutouts.flux.copy(), cutouts.ivar.copy()
    flux[:, 1] = ivar[:, 1] = 0
    inputs = inputs_of(replace(cutouts, flux=flux, ivar=ivar), keep=40)
    found = complete_images(network.vae, inputs)
    known = inputs.image_weight > 0
    assert torch.equal(found.image[known], inputs.image[known])
    assert torch.equal(found.image_weight[known], inputs.image_weight[known])
    filled = found.image_weight > 0
    present = inputs.image_bands > 0
    assert filled[present].all() and not filled[~present].any() and not present[:, 1].any()
    assert (found.image[~filled] == 0).all() and torch.isfinite(found.image).all()


def test_complete_images_are_the_same_object(cutouts):
    network = make_network()
    inputs = inputs_of(cutouts)
    assert complete_images(network.vae, inputs) is inputs
    assert complete_images(network.vae, inputs.without_images()).image is None
    few = cutouts.ivar.copy()
    few[:, :, 10:14, 10:14] = 0
    inputs = make_inputs(replace(cutouts, ivar=few))
    assert complete_images(network.vae, inputs) is inputs


def test_each_galaxy_is_completed_by_itself(cutouts):
    network = make_network().eval()
    inputs = inputs_of(cutouts, keep=32)
    with torch.no_grad():
        together = network.latent(inputs)[0]
        alone = network.latent(inputs[torch.tensor([3])])[0]
    torch.testing.assert_close(together[3:4], alone, rtol=1e-4, atol=1e-5)


def test_small_cutouts_have_nearly_the_latent_of_large_ones(cutouts):
    network = PropertyEstimator.from_pretrained().network
    with torch.inference_mode():
        inputs = inputs_of(cutouts, keep=24)
        whole, part = network.latent(inputs_of(cutouts))[0], network.latent(inputs)[0]
        masked = network.vae.encode(
            inputs.image, inputs.image_weight, inputs.image_bands, inputs.image_noise
        )[0]
    spread = whole.std(0)
    error = ((part - whole) / spread).square().mean().sqrt()
    without = ((masked - whole) / spread).square().mean().sqrt()
    assert error < 0.45
    assert error < 0.6 * without
