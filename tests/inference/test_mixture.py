"""Mixtures of posteriors: density, draws, known quantities, seeds."""

import math

import pytest
import torch
from flow_cases import LOWER, UPPER, make_chain

from astrogenspec.inference import mixture
from astrogenspec.inference.mixture import MixturePosterior


def make_mixture(n=8, components=3, spread=0.3):
    torch.manual_seed(0)
    context = torch.randn(n, 6)
    return MixturePosterior([make_chain(seed, spread)(context) for seed in range(components)])


def some_theta(n, seed=1):
    generator = torch.Generator().manual_seed(seed)
    unit = 0.1 + 0.8 * torch.rand(n, 3, generator=generator)
    return torch.tensor(LOWER) + unit * (torch.tensor(UPPER) - torch.tensor(LOWER))


class TestDensity:
    def test_density_is_the_mean_of_the_components(self):
        posterior, theta = make_mixture(), some_theta(8)
        each = torch.stack([m.log_prob(theta).sum(-1) for m in posterior.components])
        expected = each.exp().mean(0).log()
        torch.testing.assert_close(posterior.log_prob(theta).sum(-1), expected)

    def test_first_terms_are_the_marginal_density_of_the_first_quantities(self):
        posterior, theta = make_mixture(), some_theta(8)
        each = torch.stack([m.log_prob(theta)[:, :2].sum(-1) for m in posterior.components])
        found = posterior.log_prob(theta)[:, :2].sum(-1)
        torch.testing.assert_close(found, each.exp().mean(0).log())

    def test_density_outside_the_support_and_of_unknown_quantities(self):
        posterior, theta = make_mixture(), some_theta(8)
        theta[0, 1], theta[1, 1] = 99.0, torch.nan
        log_prob = posterior.log_prob(theta)
        assert log_prob[0, 1] == -math.inf and log_prob[1, 1] == 0
        assert torch.isfinite(log_prob[:, [0, 2]]).all()

    def test_one_component_is_not_changed(self):
        posterior, theta = make_mixture(components=1), some_theta(8)
        torch.testing.assert_close(
            posterior.log_prob(theta), posterior.components[0].log_prob(theta)
        )


class TestDraws:
    def test_they_follow_the_density(self):
        """The fraction of draws below a point is the mean over the components."""
        posterior = make_mixture(4)
        draws = posterior.sample(6000, torch.Generator().manual_seed(2))
        generator = torch.Generator().manual_seed(3)
        each = torch.stack([m.sample(20000, generator) for m in posterior.components])
        middle = torch.tensor([0.2, 9.0, 1.0])
        expected = (each < middle).float().mean((0, 2))
        torch.testing.assert_close((draws < middle).float().mean(1), expected, atol=0.03, rtol=0)
        spread = torch.cat(list(each), 1)
        for rows in range(4):
            torch.testing.assert_close(
                torch.corrcoef(draws[rows].T), torch.corrcoef(spread[rows].T), atol=0.06, rtol=0
            )

    def test_components_are_interleaved_from_the_first_draws_on(self):
        """Components that do not overlap identify the origin of each draw."""
        chains = [make_chain(0, 0.01) for _ in range(3)]
        for k, chain in enumerate(chains):
            chain.location[0], chain.scale[0] = 4.0 * (k - 1), 0.1
        posterior = MixturePosterior([chain(torch.zeros(50, 6)) for chain in chains])
        draws = posterior.sample(30, torch.Generator().manual_seed(1))[..., 0].contiguous()
        owner = torch.bucketize(draws, torch.tensor([0.1, 0.4]))
        for some in (owner, owner[:, :9]):
            fraction = torch.nn.functional.one_hot(some, 3).float().mean(1)
            assert (fraction - 1 / 3).abs().max() < 0.13
        first = torch.nn.functional.one_hot(owner[:, 0], 3).sum(0)
        assert first.min() > 5

    def test_known_quantities_are_kept_and_reweight_the_components(self):
        chains = [make_chain(0, 0.01) for _ in range(2)]
        chains[0].location[:2] = torch.tensor([-2.0, -2.0])
        chains[1].location[:2] = torch.tensor([2.0, 2.0])
        posterior = MixturePosterior([chain(torch.zeros(3, 6)) for chain in chains])
        known = torch.tensor([[0.06], [0.44], [torch.nan]])
        draws = posterior.sample(400, torch.Generator().manual_seed(1), known)
        assert (draws[0, :, 0] == known[0]).all() or torch.allclose(draws[0, :, 0], known[0])
        lower_half = (draws[..., 1] < 9).float().mean(1)
        assert lower_half[0] > 0.9 and lower_half[1] < 0.1
        assert lower_half[2] == pytest.approx(0.5, abs=0.06)

    def test_draws_depend_on_the_seed_but_not_on_the_chunks(self, monkeypatch):
        posterior = make_mixture(13)
        one = posterior.sample(11, torch.Generator().manual_seed(5))
        monkeypatch.setattr(mixture, "DRAWS_PER_CHUNK", 30)
        two = posterior.sample(11, torch.Generator().manual_seed(5))
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)
        other = posterior.sample(11, torch.Generator().manual_seed(6))
        assert not torch.allclose(one, other, atol=1e-2)

    def test_draws_do_not_depend_on_the_threads(self, monkeypatch):
        monkeypatch.setattr(mixture, "DRAWS_PER_CHUNK", 30)
        before, found = torch.get_num_threads(), []
        try:
            for threads in (1, 3):
                torch.set_num_threads(threads)
                found.append(make_mixture(13).sample(11, torch.Generator().manual_seed(5)))
        finally:
            torch.set_num_threads(before)
        assert torch.equal(*found)

    def test_invalid_arguments_are_rejected(self):
        with pytest.raises(ValueError, match="n_draws is 0; it must be at least 1"):
            make_mixture().sample(0)
        with pytest.raises(ValueError, match="outside the support"):
            make_mixture().sample(3, known=torch.full((8, 1), 7.0))

    def test_repr(self):
        assert repr(make_mixture()) == "MixturePosterior(n_galaxies=8, n_components=3)"
