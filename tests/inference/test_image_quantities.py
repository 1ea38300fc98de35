"""Heads for photometry that take part in the inference from image and photometry."""

from dataclasses import replace

import pytest
import torch
from network_cases import make_batch, make_network, seeded

from astrogenspec.inference.flows import SplicedPosterior
from astrogenspec.inference.network import Domain, PropertyNetwork
from astrogenspec.inputs.features import PHOTOMETRY_FEATURES

N = 12


@pytest.fixture(scope="module")
def networks():
    """Return a network with a head for images and two for photometry, and its spliced version."""
    heads = []
    for seed in range(3):
        head = make_network()
        torch.manual_seed(seed)
        for factor in head.chain.factors:
            torch.nn.init.normal_(factor.out.weight, std=0.3)
            torch.nn.init.normal_(factor.out.bias, std=0.3)
        heads.append(head)
    plain = heads[0].with_heads(heads[:1], heads[1:]).eval()
    spliced = PropertyNetwork.from_config(plain.config | {"image_quantities": 1}).eval()
    spliced.load_state_dict(plain.state_dict())
    return plain, spliced


@pytest.fixture
def inputs():
    """Return galaxies with an image, every third of which has no photometry."""
    seen = make_batch(N)[0]
    photometry = seen.photometry.clone()
    photometry[::3] = 0.0
    photometry[:, PHOTOMETRY_FEATURES.index("measured")] = 0.0
    return replace(seen, photometry=photometry)


def test_first_quantity_is_that_of_the_heads_for_images(networks, inputs):
    plain, spliced = networks
    theta = make_batch(N)[1]
    expected = plain.posterior(inputs).log_prob(theta)[:, 0]
    torch.testing.assert_close(spliced.posterior(inputs).log_prob(theta)[:, 0], expected)


def test_half_of_the_mixture_of_later_quantities_is_that_of_the_heads_for_photometry(
    networks, inputs
):
    plain, spliced = networks
    theta = make_batch(N)[1]
    both = inputs.has_image & inputs.has_photometry
    assert 3 < both.sum() < N
    image = plain.posterior(inputs).log_prob(theta)
    joint = image[:, 0] + torch.logsumexp(
        torch.stack(
            [image[:, 1:].sum(1) + torch.log(torch.tensor(0.5))]
            + [
                plain.extract_head(k).posterior(inputs.without_images()).log_prob(theta)[:, 1:]
                .sum(1) + torch.log(torch.tensor(0.25))
                for k in plain.photometry_heads
            ]
        ),
        0,
    )  # fmt: skip
    found = spliced.posterior(inputs).log_prob(theta).sum(1)
    torch.testing.assert_close(found[both], joint[both], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[~both], image.sum(1)[~both], rtol=1e-4, atol=1e-4)


def test_draws_agree_with_the_density(networks, inputs):
    _, spliced = networks
    posterior = spliced.posterior(inputs)
    known = make_batch(N)[1][:, :1]
    draws = posterior.sample(4000, seeded(1), known)
    torch.testing.assert_close(draws[:, :, 0], known.expand(-1, 4000), rtol=1e-4, atol=1e-5)
    means = torch.stack(
        [
            component.sample(4000, seeded(2), known)[..., 1].mean(1)
            for component in posterior.components
        ]
    )
    expected = (posterior.weight * means).sum(0)
    error = draws[..., 1].std(1) / 4000**0.5
    both = inputs.has_image & inputs.has_photometry
    assert ((draws[..., 1].mean(1) - expected).abs() < 6 * error)[both].all()


def test_galaxies_without_images_and_measured_photometry_are_as_before(networks, inputs):
    plain, spliced = networks
    theta = make_batch(N)[1]
    measured = inputs.photometry.clone()
    measured[:, PHOTOMETRY_FEATURES.index("measured")] = 1.0
    for seen in (inputs.without_images(), replace(inputs, photometry=measured)):
        found, expected = (net.posterior(seen).log_prob(theta) for net in (spliced, plain))
        torch.testing.assert_close(found, expected)


def test_contexts_of_the_latent_space_are_as_before(networks, inputs):
    plain, spliced = networks
    torch.testing.assert_close(spliced.contexts(inputs).vectors, plain.contexts(inputs).vectors)
    contexts = spliced.posterior_contexts(inputs)
    assert contexts.later.heads != contexts.heads
    probability = spliced.measurable(contexts)
    assert ((probability > 0) & (probability < 1)).all()


def test_heads_without_others_for_photometry_are_not_spliced(networks):
    _, spliced = networks
    assert "image_quantities" not in spliced.extract_head(0).config
    heads = [spliced.extract_head(k) for k in range(3)]
    assert spliced.with_heads(heads[:1], heads[1:]).config["image_quantities"] == 1


def test_selected_galaxies_of_a_spliced_posterior(networks, inputs):
    plain, _ = networks
    first, second = (plain.extract_head(k).posterior(inputs) for k in (0, 1))
    spliced = SplicedPosterior(first, second, 2)
    theta = make_batch(N)[1]
    torch.testing.assert_close(spliced[2:5].log_prob(theta[2:5]), spliced.log_prob(theta)[2:5])
    torch.testing.assert_close(spliced.log_prob(theta)[:, :2], first.log_prob(theta)[:, :2])
    torch.testing.assert_close(spliced.log_prob(theta)[:, 2:], second.log_prob(theta)[:, 2:])


@pytest.mark.parametrize("number", [0, 10])
def test_invalid_numbers_of_quantities_are_refused(number):
    with pytest.raises(ValueError, match=f"image_quantities is {number}; give a number from 1"):
        Domain(image_quantities=number)
