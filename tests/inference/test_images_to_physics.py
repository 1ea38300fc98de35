"""The network of "From Images to Physics": autoencoder, blocks of quantities, missing inputs."""

import json

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.nddata import NDData, StdDevUncertainty
from estimator_cases import make_photometry
from network_cases import make_batch, seeded

from astrogenspec import Flag, PropertyEstimator
from astrogenspec.inference.blocks import BlockChain
from astrogenspec.inference.images_to_physics import ConvolutionalVAE, ImagesToPhysicsNetwork
from astrogenspec.inference.networks import build_network
from astrogenspec.inputs.cutouts import coerce_cutouts
from astrogenspec.inputs.features import make_inputs
from astrogenspec.inputs.observations import InputOptions
from astrogenspec.nn.layers import n_parameters
from astrogenspec.quantities import QUANTITIES
from astrogenspec.training.augmentation import AugmentationConfig

SMALL = {"context_size": 16, "channels": [4, 8, 16], "coupling_width": 8, "latent_size": 6}
LOWER = [info.lower for info in QUANTITIES.values()]
UPPER = [info.upper for info in QUANTITIES.values()]


def make_network(size=160, seed=0):
    torch.manual_seed(seed)
    network = ImagesToPhysicsNetwork(cutout_size=size, **SMALL)
    for head in network.heads:
        for flow in (head.chain.core, head.chain.lines):
            for layer in flow.layers:
                torch.nn.init.normal_(layer.out.weight, std=0.3)
        head.chain.location.normal_(0, 0.5)
    return network.eval()


def make_images(n=3, size=160, bands="ugriz"):
    rng = np.random.default_rng(0)
    noise = 0.03
    flux = rng.normal(0, noise, (n, len(bands), size, size)).astype("f4")
    flux[:, :, size // 2 - 4 : size // 2 + 4, size // 2 - 4 : size // 2 + 4] += 2
    cube = NDData(flux, unit=u.nmgy, uncertainty=StdDevUncertainty(np.full_like(flux, noise)))
    return coerce_cutouts(cube, bands=bands, pixel_scale=0.396 * u.arcsec, size=size)


def test_published_numbers():
    network = ImagesToPhysicsNetwork()
    vae, head = network.vae, network.heads[0]
    first, *_ = (module for module in vae.encoder if isinstance(module, torch.nn.Conv2d))
    assert (first.in_channels, first.kernel_size, first.stride) == (3, (4, 4), (2, 2))
    assert vae.encode(torch.zeros(1, 5, 160, 160), None, None, None)[0].shape == (1, 32)
    assert vae.decode(torch.zeros(2, 32)).shape == (2, 5, 160, 160)
    # Mean and sigma of the latent, four colours and one magnitude.
    assert head.context_network[0].in_features == 69
    assert head.context_network[-1].out_features == 256
    assert len(head.chain.core.layers) == len(head.chain.lines.layers) == 12
    assert head.chain.core.size == head.chain.lines.size == 4
    assert network.heads[1].context_network[0].in_features == 5
    assert n_parameters(vae) == pytest.approx(5.3e6, rel=0.1)


def test_the_autoencoder_reads_g_r_and_i():
    torch.manual_seed(0)
    vae = ConvolutionalVAE(4, cutout_size=64, channels=(4, 8, 8))
    image = torch.randn(2, 5, 64, 64)
    other = image.clone()
    other[:, [0, 4]] = torch.nan
    for one, two in zip(
        vae.encode(image, None, None, None), vae.encode(other, None, None, None), strict=True
    ):
        torch.testing.assert_close(one, two)
    decoded = vae.decode(torch.randn(2, 4))
    assert decoded[:, [0, 4]].isnan().all() and decoded[:, 1:4].isfinite().all()


def test_loss_of_the_images_is_the_squared_error_of_good_pixels():
    vae = ConvolutionalVAE(4, cutout_size=64, channels=(4, 8, 8))
    image, weight = torch.full((1, 5, 64, 64), 3.0), torch.full((1, 5, 64, 64), 7.0)
    weight[:, 2, 0] = 0
    mu, logvar = torch.full((1, 4), 2.0), torch.zeros(1, 4)
    error, divergence = vae.elbo_terms(image, weight, torch.ones(1, 5, 64, 64), mu, logvar)
    assert error.item() == 4 * (3 * 64**2 - 64)
    assert divergence.item() == pytest.approx(0.5 * 4 * 4)


class TestBlocks:
    def theta(self, n=50):
        chain = make_network(64).heads[0].chain
        context = torch.randn(1, 16)
        with torch.no_grad():
            return chain, context, chain(context).sample(n, seeded())[0]

    def test_draws_are_inside_the_bounds(self):
        chain, _, theta = self.theta(2000)
        assert ((theta > chain.lower) & (theta < chain.upper)).all()
        assert theta.std(0).min() > 1e-3

    def test_joint_density_is_the_derivative_of_the_draws(self):
        """In the variables of the flow, the log density is the normal one over the Jacobian."""
        chain = make_network(64).heads[0].chain.double()
        context = torch.randn(1, 16).double()
        noise = torch.randn(1, 1, 9).double()

        def draw(numbers):
            nothing = torch.zeros(1, 1, 9, dtype=torch.bool)
            y = chain(context)._drawn(numbers[None, None], numbers[None, None], nothing)
            return chain.unstandardise(y)[0, 0]

        # evaluate_draws has no gradient: finite differences.
        step = 1e-5
        columns = [
            (draw(noise[0, 0] + step * unit) - draw(noise[0, 0] - step * unit)) / (2 * step)
            for unit in torch.eye(9).double()
        ]
        jacobian = torch.stack(columns, 1)
        normal = -0.5 * (noise.square().sum() + 9 * np.log(2 * np.pi))
        expected = (normal - torch.linalg.slogdet(jacobian)[1]).item()
        found = chain(context).log_prob(draw(noise[0, 0])[None])
        assert found.sum().item() == pytest.approx(expected, abs=1e-4)
        # The joint densities are in the columns of the last quantities of the blocks.
        assert (found[0, [0, 1, 2, 5, 6, 7]] == 0).all() and (found[0, [3, 4, 8]] != 0).all()

    def test_a_block_with_an_unknown_quantity_does_not_count(self):
        chain, context, theta = self.theta(3)
        many = context.expand(3, -1)
        whole = chain(many).log_prob(theta)
        theta[0, 1], theta[1, 3], theta[2, 6] = torch.nan, torch.nan, torch.nan
        found, completed = chain(many).log_prob_and_completed(theta, generator=seeded())
        assert found[0, 4] == 0 and found[1, 3] == 0 and found[2, 8] == 0
        assert found[0, 8] != 0
        torch.testing.assert_close(found[1, [4, 8]], whole[1, [4, 8]])
        torch.testing.assert_close(found[2, [3, 4]], whole[2, [3, 4]])
        assert completed.isfinite().all()
        y = chain.standardise(theta)[0]
        torch.testing.assert_close(completed[1, [0, 1, 2, 4]], y[1, [0, 1, 2, 4]])

    def test_outside_the_bounds_the_density_is_zero(self):
        chain, context, theta = self.theta(1)
        theta[0, 0] = 3.0
        assert chain(context).log_prob(theta)[0, 4] == -torch.inf

    def test_parts_of_a_joint_flow_are_refused(self):
        chain = BlockChain(16, lower=LOWER, upper=UPPER, n_layers=2, hidden=8)
        for q in (5, 9):
            chain.check_prefix(q, "theta")
        with pytest.raises(ValueError, match="joint flow of redshift, stellar_mass, sfr"):
            chain.check_prefix(1, "known")
        known = torch.full((1, 1), 0.1)
        with pytest.raises(ValueError, match="known has a part of the quantities only"):
            chain(torch.zeros(1, 16)).sample(3, known=known)


class TestNetwork:
    def test_config_rebuilds_the_network(self):
        network = make_network(72)
        other = build_network(json.loads(json.dumps(network.config))).eval()
        other.load_state_dict(network.state_dict())
        assert isinstance(other, ImagesToPhysicsNetwork) and other.cutout_size == 72
        inputs = make_inputs(make_images(2, 72))
        torch.testing.assert_close(other.latent(inputs), network.latent(inputs))

    def test_an_unknown_architecture_is_refused(self):
        with pytest.raises(ValueError, match="architecture of the network is 'x'"):
            build_network({"architecture": "x"})

    def test_gradients_reach_every_parameter(self):
        network = make_network(64).train()
        network.config["frozen_vae"] = False
        whole = AugmentationConfig(mode_weights=(0.5, 0.5, 0, 0), full_bands=1.0)
        inputs, theta, valid, measurable = make_batch(24, config=whole)
        valid = torch.ones_like(valid)
        network.loss(inputs, theta, valid, measurable, generator=seeded())["total"].backward()
        missing = [
            n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().any()
        ]
        assert missing == []


class TestEstimator:
    def estimator(self):
        return PropertyEstimator(make_network(), card={"name": "published"})

    def test_saved_and_loaded(self, tmp_path):
        estimator, images = self.estimator(), make_images()
        table = make_photometry(3)
        path = estimator.save(tmp_path / "weights.safetensors")
        loaded = PropertyEstimator.from_pretrained(path)
        one, two = (
            e.predict(images, table, n_draws=7, seed=1)["redshift"].draws
            for e in (estimator, loaded)
        )
        np.testing.assert_array_equal(one, two)
        assert np.isfinite(one).all()

    def test_draws_do_not_depend_on_the_batches(self):
        estimator, images, table = self.estimator(), make_images(5), make_photometry(5)
        whole = estimator.predict(images, table, n_draws=6, seed=1)
        parts = estimator.predict(images, table, n_draws=6, seed=1, batch_size=2)
        np.testing.assert_allclose(
            whole["sfr"].draws.value, parts["sfr"].draws.value, rtol=1e-4, atol=1e-4
        )

    def test_the_whole_image_of_160_pixels_is_read(self):
        estimator, images, table = self.estimator(), make_images(1), make_photometry(1)
        flux = images.flux.copy()
        flux[:, 2, :20, :20] += 5
        other = type(images)(flux, images.ivar)
        assert not np.array_equal(estimator.encode(images)[0], estimator.encode(other)[0])
        # A user passes an image of any size.
        assert estimator._read(images, table, InputOptions()).options.size == 160

    def test_photometry_alone_has_its_own_head(self):
        estimator, table = self.estimator(), make_photometry(2)
        posterior = estimator.predict(photometry=table, n_draws=5, seed=1)
        assert np.isfinite(posterior["redshift"].draws).all()

    def test_galaxies_without_an_input_are_flagged(self):
        estimator, images, table = self.estimator(), make_images(3), make_photometry(3)
        ivar = images.ivar.copy()
        ivar[1, 2] = 0
        table["flux_u"][2] = np.nan * u.nmgy
        posterior = estimator.predict(
            type(images)(images.flux, ivar), table, n_draws=5, seed=1, on_error="flag"
        )
        lost = np.isnan(posterior["redshift"].draws).all(axis=1)
        assert lost.tolist() == [False, True, True]
        assert "these weights need magnitudes in u, g, r, i, z" in posterior.flags[1]
        assert ((posterior.flag_codes & Flag.NO_DRAWS) != 0).tolist() == [False, True, True]

    def test_known_quantities_and_fits_are_refused(self):
        estimator, table = self.estimator(), make_photometry(12)
        with pytest.raises(ValueError, match="known has a part of the quantities only"):
            estimator.predict(photometry=table, known={"redshift": np.full(12, 0.1) * u.one})
        with pytest.raises(ValueError, match="theta has a part of the quantities only"):
            estimator.log_prob({"redshift": np.full(12, 0.1) * u.one}, photometry=table)
        with pytest.raises(ValueError, match="these weights cannot be fine-tuned"):
            estimator.fit(photometry=table, labels={"redshift": np.full(12, 0.1) * u.one})
