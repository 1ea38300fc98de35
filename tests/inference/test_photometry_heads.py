"""Separate heads for galaxies without images: weights, training, fine-tuning, files."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from estimator_cases import make_cutouts, make_photometry
from finetuning_cases import FIT, galaxies
from network_cases import make_batch, make_network, seeded
from photometry_heads_cases import estimator_with_heads
from training_cases import RECIPE, TRAINING

from astrogenspec import PropertyEstimator
from astrogenspec.inference.mixture import MixturePosterior
from astrogenspec.inference.training import train_properties

N = 12


def make_different_heads(members=2, photometry_members=3):
    """Make a network whose heads all differ."""
    network = make_network(members=members, photometry_members=photometry_members)
    for k, head in enumerate(network.heads):
        for factor in head.chain.factors:
            torch.nn.init.normal_(factor.out.weight, std=0.3, generator=seeded(k))
    return network.eval()


def mixed_inputs():
    """Make galaxies with and without images."""
    inputs = make_batch(N)[0]
    assert 0 < int(inputs.has_image.sum()) < N
    return inputs


class TestWeights:
    def test_galaxies_with_and_without_images_use_their_own_heads(self):
        network, inputs = make_different_heads(), mixed_inputs()
        contexts = network.contexts(inputs)
        own = contexts.weight > 0
        assert list(contexts.heads) == [0, 1, 2, 3, 4]
        assert torch.equal(own[:2], inputs.has_image.expand(2, -1))
        assert torch.equal(own[2:], ~inputs.has_image.expand(3, -1))
        torch.testing.assert_close(contexts.weight.sum(0), torch.ones(N))

    @pytest.mark.parametrize(("images", "heads"), [(True, [0, 1]), (False, [2, 3, 4])])
    def test_unused_heads_are_not_evaluated(self, images, heads):
        network, inputs = make_different_heads(), mixed_inputs()
        contexts = network.contexts(inputs[inputs.has_image == images])
        assert list(contexts.heads) == heads and len(contexts.vectors) == len(heads)

    def test_posteriors_do_not_depend_on_the_rest_of_the_batch(self):
        """Neither densities nor metallicity flags change in a batch with and without images."""
        network, (inputs, theta, *_) = make_different_heads(), make_batch(N)
        whole = network.contexts(inputs)
        log_prob = network.posterior_of(whole).log_prob(theta)
        for images in (True, False):
            rows = inputs.has_image == images
            part = network.contexts(inputs[rows])
            alone = network.posterior_of(part).log_prob(theta[rows])
            torch.testing.assert_close(log_prob[rows], alone, rtol=1e-3, atol=1e-3)
            torch.testing.assert_close(
                network.measurable(whole)[rows], network.measurable(part), rtol=1e-3, atol=1e-4
            )

    def test_draws_come_from_the_heads_of_the_galaxy(self):
        network, inputs = make_different_heads(1, 1), mixed_inputs()
        draws = network.posterior(inputs).sample(3000, seeded())
        for k, images in enumerate((True, False)):
            rows = inputs.has_image == images
            posterior = network.extract_head(k).posterior(inputs[rows])
            expected = posterior.sample(3000, seeded(1))
            other = network.extract_head(1 - k).posterior(inputs[rows]).sample(3000, seeded(1))
            mean = draws[rows].mean(1)
            sigma = expected.std(1)
            assert ((mean - expected.mean(1)) / sigma).abs().max() < 0.12
            assert ((mean - other.mean(1)) / sigma).abs().max() > 0.3

    def test_known_redshifts_keep_zero_weights_at_zero(self):
        network, (inputs, theta, *_) = make_different_heads(), make_batch(N)
        known = theta[:, :1]
        draws = network.posterior(inputs).sample(4000, seeded(), known)
        assert torch.equal(draws[..., 0], known.expand(-1, 4000)) or torch.allclose(
            draws[..., 0], known.expand(-1, 4000), atol=1e-4
        )
        rows = ~inputs.has_image
        alone = network.posterior(inputs[rows]).sample(4000, seeded(1), known[rows])
        shift = (draws[rows].mean(1) - alone.mean(1))[:, 1:] / alone.std(1)[:, 1:]
        assert shift.abs().max() < 0.12

    def test_a_component_of_zero_weight_makes_no_draws(self):
        network, inputs = make_different_heads(3, 1), mixed_inputs()
        contexts = network.contexts(inputs[inputs.has_image])
        components = [
            network.heads[k].chain(v) for k, v in zip(contexts.heads, contexts.vectors, strict=True)
        ]
        components.append(network.heads[3].chain(contexts.vectors[0]))
        weight = torch.cat([contexts.weight, torch.zeros(1, contexts.weight.shape[1])])
        with_idle = MixturePosterior(components, weight).sample(5000, seeded())
        torch.testing.assert_close(
            with_idle, MixturePosterior(components[:3]).sample(5000, seeded())
        )


class TestTraining:
    def test_loss_is_averaged_over_galaxies_and_their_heads(self):
        network, (inputs, theta, valid, measurable) = make_different_heads(), make_batch(N)
        terms = network.loss(inputs, theta, torch.ones_like(valid), measurable, elbo_weight=0.0)
        flow, classified = 0.0, 0.0
        for k in range(5):
            rows = inputs.has_image == (k < 2)
            alone = network.extract_head(k).loss(
                inputs[rows],
                theta[rows],
                torch.ones_like(valid[rows]),
                measurable[rows],
                elbo_weight=0.0,
            )
            fraction = int(rows.sum()) / N / (2 if k < 2 else 3)
            flow += alone["flow"] * fraction
            classified += alone["measurable"] * fraction
        torch.testing.assert_close(terms["flow"], flow, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(terms["measurable"], classified, rtol=1e-4, atol=1e-4)

    def test_images_give_no_gradient_to_photometry_heads(self):
        network, (inputs, *labels) = make_different_heads(), make_batch(N)
        rows = inputs.has_image
        network.loss(inputs[rows], *(label[rows] for label in labels))["total"].backward()
        touched = [any(p.grad is not None for p in head.parameters()) for head in network.heads]
        assert touched == [True, True, False, False, False]

    def test_photometry_head_is_trained_without_changing_the_rest(self, folders, tmp_path):
        before, _ = train_properties(folders, tmp_path / "a", recipe=RECIPE, training=TRAINING)
        recipe = replace(RECIPE, photometry_alone=True)
        after, history = train_properties(
            folders, tmp_path / "b", recipe=recipe, training=TRAINING, network=before
        )
        assert after.config["members"] == after.config["photometry_members"] == 1
        kept, state = before.state_dict(), after.state_dict()
        assert all(torch.equal(state[name], value) for name, value in kept.items())
        changed = [
            name
            for name, value in kept.items()
            if name.startswith("heads.0.")
            and not torch.equal(value, state[name.replace("heads.0.", "heads.1.")])
        ]
        assert any("context_network" in name for name in changed)
        assert not any("reconstruction" in name for name in history.rows[-1])
        again, _ = train_properties(
            folders[1:], tmp_path / "c", recipe=recipe, training=TRAINING, network=after
        )
        assert again.config == after.config
        with pytest.raises(ValueError, match="photometry_alone requires a trained network"):
            train_properties(folders, tmp_path / "d", recipe=recipe)


class TestFineTuning:
    def test_photometry_trains_the_photometry_heads(self, tmp_path):
        table, labels = galaxies()
        before = estimator_with_heads()
        after = before.fit(photometry=table, labels=labels, heads=2, **FIT)
        config = after.network.config
        assert (config["members"], config["photometry_members"]) == (1, 2)
        error = (
            after.predict(photometry=table, seed=0, n_draws=100)["redshift"].median()
            - labels["redshift"]
        )
        assert np.std(error.value) < 0.6 * np.std(labels["redshift"])
        first = before.network.heads[0].state_dict()
        for k, changed in enumerate((False, True, True)):
            own = after.network.extract_head(k).heads[0].state_dict()
            assert any(not torch.equal(own[name], first[name]) for name in own) == changed
        after.save(tmp_path / "w.safetensors")
        opened = PropertyEstimator.load(tmp_path / "w.safetensors")
        assert opened.network.config == config
        found = [e.predict(photometry=table[:4], seed=0, n_draws=20) for e in (opened, after)]
        np.testing.assert_allclose(*(p["sfr"].draws.value for p in found), rtol=1e-2)

    def test_imputed_images_let_photometry_train_all_heads(self, folders):
        table, labels = galaxies(40)
        before = estimator_with_heads()
        after = before.fit(
            photometry=table, labels=labels, simulations=folders[:1], **FIT | {"epochs": 2}
        )
        for k in range(2):
            old, new = (e.network.heads[k].context_network[0].weight for e in (before, after))
            assert not torch.equal(old, new)

    def test_images_alone_leave_the_photometry_heads_unchanged(self):
        table, labels = galaxies(40)
        before = estimator_with_heads()
        after = before.fit(
            make_cutouts(40), table, labels=labels, images_alone=True, **FIT | {"epochs": 3}
        )
        for name, value in before.network.heads[1].state_dict().items():
            assert torch.equal(after.network.heads[1].state_dict()[name], value)
        first = before.network.heads[0].context_network[0].weight
        assert not torch.equal(after.network.heads[0].context_network[0].weight, first)

    def test_galaxies_with_images_also_train_the_photometry_heads(self):
        table, labels = galaxies(40)
        before = estimator_with_heads()
        after = before.fit(make_cutouts(40), table, labels=labels, **FIT | {"epochs": 6})
        error = (
            after.predict(photometry=table, seed=0, n_draws=100)["redshift"].median()
            - labels["redshift"]
        )
        old = (
            before.predict(photometry=table, seed=0, n_draws=100)["redshift"].median()
            - labels["redshift"]
        )
        assert np.std(error.value) < np.std(old.value)

    def test_images_without_photometry_leave_the_photometry_heads_unchanged(self):
        _, labels = galaxies(40)
        before = estimator_with_heads()
        after = before.fit(make_cutouts(40), labels=labels, measure=False, **FIT | {"epochs": 2})
        for name, value in before.network.heads[1].state_dict().items():
            assert torch.equal(after.network.heads[1].state_dict()[name], value)


def test_embedding_uses_the_heads_for_images():
    estimator = estimator_with_heads()
    table = make_photometry(4)
    found = estimator.embed(make_cutouts(4, bad=(1,)), table, on_error="flag")
    assert found["context"].shape == (4, 16)
    assert np.isnan(found["context"][1]).all() and np.isfinite(found["context"][[0, 2, 3]]).all()
