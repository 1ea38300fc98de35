"""The variational autoencoder of images."""

import math

import pytest
import torch

from astrogenspec.inference.vae import ImageVAE, elbo_terms
from astrogenspec.nn.layers import n_parameters


def make_images(n=8, seed=0):
    """Make scaled images of exponential galaxies of various sizes and colours."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(64.0) - 31.5, torch.arange(64.0) - 31.5, indexing="ij")
    size = 2 + 6 * torch.rand(n, 1, 1, 1, generator=generator)
    peak = 5 + 100 * torch.rand(n, 5, 1, 1, generator=generator)
    image = torch.asinh(peak * torch.exp(-torch.hypot(x, y) / size))
    return image, torch.ones_like(image), torch.ones(n, 5), torch.zeros(n, 5)


def test_shapes_and_size():
    vae = ImageVAE()
    mu, logvar = vae.encode(*make_images(3))
    assert mu.shape == logvar.shape == (3, 32)
    assert vae.decode(mu).shape == (3, 5, 64, 64)
    assert vae.sample(2, torch.Generator().manual_seed(0)).shape == (2, 5, 64, 64)
    assert n_parameters(vae.trunk) + n_parameters(vae.head) < 1e6
    assert n_parameters(vae.decoder) + n_parameters(vae.decoder_input) < 4e5


def test_fits_a_small_sample():
    torch.manual_seed(0)
    vae = ImageVAE(
        8, encoder_widths=(8, 16, 16, 32), bottlenecks=(0, 0, 8, 0), decoder_widths=(16, 16, 16, 8)
    )
    inputs = make_images(8)
    optimiser = torch.optim.Adam(vae.parameters(), lr=3e-3)
    for _ in range(60):
        mu, logvar = vae.encode(*inputs)
        latent = mu + torch.randn_like(mu) * (0.5 * logvar).exp()
        chi2, kl = elbo_terms(inputs[0], inputs[1], vae.decode(latent), mu, logvar)
        loss = (chi2 + 0.1 * kl).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    image = inputs[0]
    residual = (vae.reconstruct(*inputs) - image).square().mean()
    assert residual < 0.5 * (image - image.mean(0)).square().mean()


def test_loss_terms_equal_their_analytic_values():
    image = torch.zeros(2, 5, 4, 4)
    decoded = torch.ones_like(image)
    weight = torch.full_like(image, 4.0)
    weight[1, 2:] = 0
    mu = torch.tensor([[0.0, 0.0], [1.0, 2.0]])
    logvar = torch.zeros(2, 2)
    chi2, kl = elbo_terms(image, weight, decoded, mu, logvar)
    torch.testing.assert_close(chi2, torch.tensor([160.0, 64.0]) * math.log(1.5) * 4.5 / 2)
    torch.testing.assert_close(kl, torch.tensor([0.0, 2.5]))


def test_pixels_of_zero_weight_do_not_affect_the_loss():
    image, weight, *_ = make_images(2)
    weight[:, 1] = 0
    decoded = torch.zeros_like(image)
    spoiled = image.clone()
    spoiled[:, 1] += 100
    zeros = torch.zeros(2, 4)
    torch.testing.assert_close(
        elbo_terms(image, weight, decoded, zeros, zeros)[0],
        elbo_terms(spoiled, weight, decoded, zeros, zeros)[0],
    )


@pytest.mark.parametrize("changed", ["bands", "noise", "weight"])
def test_encoder_uses_bands_noise_and_mask(changed):
    torch.manual_seed(0)
    vae = ImageVAE()
    image, weight, bands, noise = make_images(1)
    one = vae.encode(image, weight, bands, noise)[0]
    other = {"weight": weight.clone(), "bands": bands.clone(), "noise": noise.clone()}
    if changed == "weight":
        other["weight"][:, 0] = 0
    else:
        other[changed] += 1
    assert not torch.equal(
        one, vae.encode(image, other["weight"], other["bands"], other["noise"])[0]
    )


def test_gradients_reach_every_parameter():
    vae = ImageVAE()
    inputs = make_images(2)
    mu, logvar = vae.encode(*inputs)
    chi2, kl = elbo_terms(*inputs[:2], vae.decode(mu + (0.5 * logvar).exp()), mu, logvar)
    (chi2 + kl).sum().backward()
    missing = [
        name for name, p in vae.named_parameters() if p.grad is None or not p.grad.abs().any()
    ]
    assert missing == []
