"""The property network and the augmentation of its training set."""

import json
import math
from dataclasses import replace

import pytest
import torch
from network_cases import make_batch, make_galaxies, make_network, seeded

from astrogenspec.inference.network import PropertyNetwork
from astrogenspec.inputs.features import N_MORPHOLOGY_FEATURES, PIXEL_SIGMA, image_features
from astrogenspec.training.augmentation import (
    AugmentationConfig,
    add_background,
    add_noise,
    augment,
    augment_photometry,
    draw_band_subsets,
    draw_modes,
    draw_sky_sigma,
    orient_randomly,
    redraw_flux,
    shift_randomly,
)


class TestNetwork:
    def test_config_rebuilds_the_network(self):
        network = make_network()
        config = json.loads(json.dumps(network.config))
        other = PropertyNetwork.from_config(config)
        other.load_state_dict(network.state_dict())
        inputs = make_batch()[0]
        found, expected = (net.eval().contexts(inputs).vectors for net in (other, network))
        torch.testing.assert_close(found, expected)

    def test_dropout_is_for_training_alone(self):
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

    def test_a_fraction_of_the_images_is_decoded(self):
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

    def test_a_galaxy_does_not_depend_on_its_neighbours_in_the_batch(self):
        inputs, *_ = make_batch()
        network = make_network().eval()
        together = network.contexts(inputs).vectors
        alone = torch.cat([network.contexts(inputs[k : k + 1]).vectors for k in range(12)], 1)
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)

    def test_unmeasurable_metallicity_is_not_learnt(self):
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

    def test_quantity_weights_select_what_is_learnt(self):
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
        with pytest.raises(ValueError, match="steer"):
            network.traverse(inputs, theta, "halpha_flux", torch.tensor([1.0]))

    def test_learns_redshift_from_colour(self):
        """With a colour that gives the redshift away, the posterior becomes narrow, and true."""
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


class TestAugmentation:
    def test_orientations_keep_pixels_and_are_all_used(self):
        image = torch.arange(16.0).view(1, 1, 4, 4).repeat(200, 1, 1, 1)
        oriented = orient_randomly(image, seeded())
        assert torch.equal(oriented.flatten(1).sort(-1).values, image.flatten(1))
        assert len({tuple(row.tolist()) for row in oriented.flatten(1)}) == 8

    def test_shift_moves_the_centre(self):
        image = torch.zeros(100, 1, 9, 9)
        image[:, :, 4, 4] = 1
        shifted = shift_randomly(image, 2, seeded())
        assert (shifted.flatten(1).sum(1) == 1).all()
        places = shifted.flatten(1).argmax(1)
        assert places.unique().numel() > 15
        assert ((places // 9 - 4).abs() <= 2).all() and ((places % 9 - 4).abs() <= 2).all()
        assert torch.equal(shift_randomly(image, 0, seeded()), image)

    def test_noise_has_the_stated_variance(self):
        sigma = torch.tensor(PIXEL_SIGMA).expand(4, -1)
        for brightness in (0.0, 5.0):
            truth = torch.full((4, 5, 64, 64), brightness)
            noisy, ivar = add_noise(truth, sigma, seeded())
            normalised = (noisy - truth) * ivar.sqrt()
            assert normalised.mean().abs() < 0.01 and normalised.std().item() == pytest.approx(
                1, abs=0.01
            )
        assert (ivar[0, :, 0, 0] < PIXEL_SIGMA[0] ** 0 / torch.tensor(PIXEL_SIGMA) ** 2).all()

    def test_background_is_constant_in_a_band(self):
        flux = add_background(torch.zeros(200, 5, 8, 8), torch.ones(200, 5), 0.1, seeded())
        assert (flux.std((-2, -1)) < 1e-6).all()
        assert flux[..., 0, 0].std().item() == pytest.approx(0.1, rel=0.1)

    @pytest.mark.parametrize(("spread", "rare"), [(0.0, 0.0), (1.0, 0.0717)])
    def test_large_errors_of_the_background_are_rare(self, spread, rare):
        config = AugmentationConfig(
            mode_weights=(0, 0, 1, 0),
            full_bands=1.0,
            sigma_scatter=0.0,
            deep_fraction=0.0,
            shallow_fraction=0.0,
            background=0.1,
            background_spread=spread,
        )
        dark, flux = torch.zeros(2000, 5, 16, 16), torch.ones(2000, 5)
        inputs = augment(dark, flux, flux, config=config, generator=seeded())
        level = inputs.image.sinh().mean((-2, -1))  # in units of the noise
        assert level.mean().abs() < 0.01
        assert (level.abs() > 0.4).float().mean().item() == pytest.approx(rare, abs=0.015)
        if spread == 0:
            assert level.std().item() == pytest.approx(math.hypot(0.1, 1 / 16), rel=0.05)

    def test_sky_noise_scatters_around_its_nominal_value(self):
        sigma = draw_sky_sigma(4000, AugmentationConfig(), seeded()) / torch.tensor(PIXEL_SIGMA)
        torch.testing.assert_close(sigma.median(0).values, torch.ones(5), rtol=0, atol=0.03)
        assert (sigma > 1.6).float().mean() > 0.07

    def test_band_subsets(self):
        bands = draw_band_subsets(20000, AugmentationConfig(), seeded())
        assert bands.any(-1).all()
        assert bands.all(-1).float().mean().item() == pytest.approx(0.5 + 0.3 / 32, abs=0.01)
        gri = (bands == torch.tensor([False, True, True, True, False])).all(-1)
        assert gri.float().mean().item() == pytest.approx(0.2 + 0.3 / 32, abs=0.01)

    def test_modes_have_their_frequencies(self):
        mode = draw_modes(20000, AugmentationConfig(), seeded())
        frequency = torch.bincount(mode, minlength=4) / 20000
        torch.testing.assert_close(
            frequency, torch.tensor([0.45, 0.25, 0.15, 0.15]), rtol=0, atol=0.01
        )

    def test_redrawn_flux_scatters_by_its_error(self):
        true = torch.full((5000, 5), 50.0)
        config = AugmentationConfig(
            photometry_error_scale=(0.5, 2.0), photometry_scatter=(0.0,) * 5, outlier_fraction=0.0
        )
        flux, error = redraw_flux(true, torch.full_like(true, 2.0), config, seeded())
        assert error.min() >= 1 and error.max() <= 4
        assert ((flux - true) / error).std().item() == pytest.approx(1, abs=0.02)

    def test_redrawn_flux_has_hidden_scatter_and_outliers(self):
        true = torch.full((20000, 5), 50.0)
        config = AugmentationConfig(
            photometry_scatter=(0.1, 0.0, 0.0, 0.0, 0.0), outlier_fraction=0.0
        )
        flux, error = redraw_flux(true, torch.full_like(true, 1e-3), config, seeded())
        scatter = 1.0857 * (flux / true - 1).std(0)
        torch.testing.assert_close(scatter, torch.tensor([0.1, 0, 0, 0, 0]), rtol=0.05, atol=1e-4)
        config = AugmentationConfig(
            photometry_scatter=(0.0,) * 5, outlier_fraction=0.1, outlier_factor=20.0
        )
        flux, error = redraw_flux(true, torch.full_like(true, 1.0), config, seeded())
        far = ((flux - true) / error).abs() > 5
        assert far.float().mean().item() == pytest.approx(0.1 * 0.803, abs=0.01)

    def test_measured_photometry_is_flagged_and_used(self):
        images, flux, error, _ = make_galaxies()
        config = AugmentationConfig(mode_weights=(0.0, 0.0, 0.0, 1.0), full_bands=1.0)
        inputs = augment(
            images,
            flux,
            error,
            measured_flux=2 * flux,
            measured_error=error,
            config=config,
            generator=seeded(),
        )
        assert (inputs.photometry[:, 19] == 1).all()
        magnitude = inputs.photometry[:, 2] * 1.5 + 17.3
        torch.testing.assert_close(
            magnitude, 22.5 - 2.5 * torch.log10(2 * flux[:, 2]), rtol=0, atol=1e-2
        )

    def test_same_seed_same_inputs(self):
        one, two, other = (make_batch(seed=s)[0] for s in (1, 1, 2))
        assert torch.equal(one.image, two.image) and torch.equal(one.photometry, two.photometry)
        assert not torch.equal(one.photometry, other.photometry)

    def test_inputs_are_those_of_the_preprocessing(self):
        images, flux, error, _ = make_galaxies()
        config = AugmentationConfig(
            mode_weights=(1.0, 0.0, 0.0, 0.0), full_bands=1.0, sigma_scatter=0.0
        )
        inputs = augment(images, flux, error, config=config, generator=seeded())
        truth = image_features(images.float(), torch.ones(12, 5, 64, 64))[0]
        difference = (inputs.image - truth)[:, :, :8, :8]
        assert difference.std().item() == pytest.approx(1, abs=0.4)
        assert inputs.image_noise.abs().max() < 0.35
