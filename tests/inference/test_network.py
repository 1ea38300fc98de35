"""The property network: configuration, gradients, loss terms, decoded traversals."""

import json
from dataclasses import replace

import pytest
import torch
from network_cases import make_batch, make_galaxies, make_network, seeded

from astrogenspec.inference.network import PropertyNetwork
from astrogenspec.inputs.features import N_MORPHOLOGY_FEATURES
from astrogenspec.training.augmentation import AugmentationConfig, augment_photometry


class TestNetwork:
    def test_config_rebuilds_the_network(self):
        network = make_network()
        config = json.loads(json.dumps(network.config))
        other = PropertyNetwork.from_config(config)
        other.load_state_dict(network.state_dict())
        inputs = make_batch()[0]
        found, expected = (net.eval().contexts(inputs).vectors for net in (other, network))
        torch.testing.assert_close(found, expected)

    def test_dropout_acts_in_training_only(self):
        network = make_network()
        inputs = make_batch()[0]
        expected = network.eval().contexts(inputs).vectors
        network.set_dropout(0.3)
        torch.testing.assert_close(network.eval().contexts(inputs).vectors, expected)
        assert not torch.allclose(network.train().contexts(inputs).vectors, expected, atol=1e-3)

    def test_gradients_reach_every_parameter(self):
        network = make_network()
        inputs, *labels = make_batch()
        morphology = torch.randn(len(inputs), N_MORPHOLOGY_FEATURES, generator=seeded())
        inputs = replace(inputs, morphology=morphology)
        network.loss(inputs, *labels, generator=seeded())["total"].backward()
        missing = [
            n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().any()
        ]
        assert missing == []

    def test_frozen_vae_is_not_trained_by_the_flows(self):
        network = make_network(frozen_vae=True)
        network.loss(*make_batch(), elbo_weight=0.0)["total"].backward()
        assert all(p.grad is None or not p.grad.any() for p in network.vae.parameters())
        network.loss(*make_batch(), elbo_weight=1.0)["total"].backward()
        assert all(p.grad is not None and p.grad.any() for p in network.vae.trunk.parameters())

    @pytest.mark.parametrize("mode", range(4))
    def test_every_mode_is_finite(self, mode):
        weights = tuple(float(k == mode) for k in range(4))
        inputs, *labels = make_batch(config=AugmentationConfig(mode_weights=weights))
        network = make_network()
        terms = network.loss(inputs, *labels)
        assert all(torch.isfinite(term) for term in terms.values())
        assert torch.isfinite(network.posterior(inputs).sample(20)).all()
        assert inputs.has_image.all() == (mode != 1) and inputs.has_photometry.all() == (mode != 2)

    def test_photometry_only_batches_skip_the_encoder(self):
        _, flux, error, theta = make_galaxies()
        inputs = augment_photometry(flux, error, generator=seeded())
        network = make_network()
        terms = network.loss(inputs, theta, torch.ones(12, 9, dtype=torch.bool))
        terms["total"].backward()
        assert all(p.grad is None for p in network.vae.parameters())
        assert "reconstruction" not in terms

    def test_only_a_fraction_of_the_images_is_decoded(self):
        network = make_network()
        config = AugmentationConfig(mode_weights=(1.0, 0.0, 0.0, 0.0))
        inputs, *labels = make_batch(config=config)
        one = network.loss(inputs, *labels, elbo_fraction=0.3, generator=seeded())
        inputs.image_weight[4:] = torch.where(inputs.image_weight[4:] > 0, 1e-3, 0.0)
        two = network.loss(inputs, *labels, elbo_fraction=0.3, generator=seeded())
        torch.testing.assert_close(one["reconstruction"], two["reconstruction"])
        torch.testing.assert_close(one["total"], two["total"])

    def test_absent_image_tensor_equals_zero_image(self):
        inputs, *_ = make_batch(config=AugmentationConfig(mode_weights=(0.0, 1.0, 0.0, 0.0)))
        network = make_network().eval()
        with_zeros = network.contexts(inputs).vectors
        inputs = replace(inputs, image=None, image_weight=None)
        torch.testing.assert_close(network.contexts(inputs).vectors, with_zeros)

    def test_contexts_do_not_depend_on_the_rest_of_the_batch(self):
        inputs, *_ = make_batch()
        network = make_network().eval()
        together = network.contexts(inputs).vectors
        alone = torch.cat([network.contexts(inputs[k : k + 1]).vectors for k in range(12)], 1)
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)

    def test_unmeasurable_metallicity_does_not_enter_the_loss(self):
        network = make_network()
        inputs, theta, valid, measurable = make_batch()
        one = network.loss(inputs, theta, valid, measurable, generator=seeded(1))
        theta = theta.clone()
        theta[measurable == 0, 3] = torch.nan
        two = network.loss(inputs, theta, valid, measurable, generator=seeded(1))
        torch.testing.assert_close(one["total"], two["total"])

    def test_unknown_measurability_and_labels(self):
        network = make_network()
        inputs, theta, valid, measurable = make_batch()
        terms = network.loss(
            inputs, theta, torch.zeros_like(valid), torch.full_like(measurable, torch.nan)
        )
        assert terms["flow"] == 0 and terms["measurable"] == 0 and torch.isfinite(terms["total"])

    def test_quantity_weights_select_loss_terms(self):
        network = make_network()
        inputs, theta, valid, measurable = make_batch(
            config=AugmentationConfig(mode_weights=(0.0, 1.0, 0.0, 0.0))
        )
        valid[:] = True
        weight = torch.zeros(12, 9)
        weight[:, 1] = 1.0
        chosen = network.loss(inputs, theta, valid, measurable, quantity_weight=weight)
        whole = network.loss(inputs, theta, valid, measurable)
        torch.testing.assert_close(chosen["flow"], whole["nll_stellar_mass"])
        parts = [value for name, value in whole.items() if name.startswith("nll_")]
        torch.testing.assert_close(whole["flow"].detach(), torch.stack(parts).sum())

    def test_measurable_is_a_probability(self):
        network = make_network()
        p = network.measurable(network.contexts(make_batch()[0]))
        assert p.shape == (12,) and ((p > 0) & (p < 1)).all()

    def test_traverse_starts_at_the_reconstruction_and_moves(self):
        network = make_network().eval()
        inputs, theta, *_ = make_batch(
            4, config=AugmentationConfig(mode_weights=(1.0, 0.0, 0.0, 0.0))
        )
        theta[:, 1] = 10.0
        images = network.traverse(inputs, theta, "stellar_mass", torch.tensor([10.0, 11.5]))
        expected = network.vae.decode(network.latent(inputs)[0])
        torch.testing.assert_close(images[:, 0], expected, rtol=1e-3, atol=1e-4)
        assert not torch.allclose(images[:, 1], images[:, 0], atol=1e-4)
        with pytest.raises(ValueError, match="does not affect the decoded image"):
            network.traverse(inputs, theta, "halpha_flux", torch.tensor([1.0]))

    def test_learns_redshift_from_colour(self):
        """With a colour that determines the redshift, the posterior becomes narrow and accurate."""
        generator = seeded()
        z = 0.05 + 0.3 * torch.rand(2000, generator=generator)
        flux = 100 * torch.ones(2000, 5)
        flux[:, 1] *= 10 ** (-2 * z)
        theta = torch.full((2000, 9), torch.nan)
        theta[:, 0] = z
        valid = theta.isfinite()
        network = make_network()
        network.set_standardisation(theta)
        inputs = augment_photometry(
            flux, 0.02 * flux, AugmentationConfig(full_bands=1.0), generator
        )
        optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
        for _ in range(120):
            rows = torch.randint(2000, (256,), generator=generator)
            loss = network.loss(inputs[rows], theta[rows], valid[rows])["total"]
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        draws = network.eval().posterior(inputs[:400]).sample(100, generator)[..., 0]
        assert (draws.mean(1) - z[:400]).abs().median() < 0.02
        assert draws.std(1).median() < 0.03
