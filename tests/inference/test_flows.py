"""The chain of flows: densities, draws, supports, seeds, missing labels."""

import math

import pytest
import torch
from flow_cases import LOWER, UPPER, make_chain

from astrogenspec.inference import flows
from astrogenspec.inference.flows import FlowChain
from astrogenspec.nn.splines import n_spline_parameters


class TestDensity:
    def test_first_factor_integrates_to_one_in_theta(self):
        chain = make_chain()
        context = torch.randn(4, 6)
        z = torch.linspace(1e-5, 0.5 - 1e-5, 20001)
        theta = torch.stack([z, torch.full_like(z, 9.0), torch.full_like(z, 1.0)], -1)
        for row in context:
            log_prob = chain(row.expand(len(z), -1)).log_prob(theta)
            assert torch.trapezoid(log_prob[:, 0].exp(), z).item() == pytest.approx(1, abs=2e-3)

    def test_last_factor_integrates_to_one_given_the_others(self):
        chain = make_chain()
        x = torch.linspace(-4 + 1e-4, 6 - 1e-4, 20001)
        theta = torch.stack([torch.full_like(x, 0.1), torch.full_like(x, 9.0), x], -1)
        log_prob = chain(torch.randn(1, 6).expand(len(x), -1)).log_prob(theta)
        assert torch.trapezoid(log_prob[:, 2].exp(), x).item() == pytest.approx(1, abs=2e-3)

    def test_jacobian_of_standardisation_matches_autograd(self):
        chain = make_chain()
        theta = torch.tensor([[0.1, 9.0, 1.0], [0.45, 5.5, -3.0]], requires_grad=True)
        y, log_jacobian = chain.standardise(theta)
        (gradient,) = torch.autograd.grad(y.sum(), theta)
        torch.testing.assert_close(log_jacobian, gradient.log(), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(chain.unstandardise(y), theta, rtol=1e-4, atol=1e-4)

    def test_density_is_zero_outside_the_support(self):
        chain = make_chain()
        theta = torch.tensor([[0.6, 9.0, 1.0]])
        log_prob = chain(torch.zeros(1, 6)).log_prob(theta)
        assert log_prob[0, 0] == -math.inf and torch.isfinite(log_prob[0, 1:]).all()

    def test_draws_follow_the_density(self):
        chain = make_chain(seed=3)
        context = torch.randn(1, 6)
        draws = chain(context).sample(40000, torch.Generator().manual_seed(0))[0]
        grid = torch.linspace(-4 + 1e-4, 6 - 1e-4, 2001)
        for k, (low, high) in enumerate(zip(LOWER, UPPER, strict=True)):
            cut = draws[:, k].median()
            grid = torch.linspace(low + 1e-4, high - 1e-4, 401)
            sub = draws[:500].repeat_interleave(len(grid), 0)
            sub[:, k] = grid.repeat(500)
            density = chain(context.expand(len(sub), -1)).log_prob(sub)[:, k].exp().view(500, -1)
            below = torch.trapezoid(density * (grid < cut), grid).mean()
            assert below.item() == pytest.approx(0.5, abs=0.03)


class TestEvaluateDraws:
    @pytest.mark.parametrize(("n", "draws"), [(5, 5), (7, 1), (3, 13), (1, 30)])
    def test_equals_the_differentiable_network(self, monkeypatch, n, draws):
        """Several galaxies fit in the workspace, or one galaxy exceeds its default size."""
        monkeypatch.setattr(flows, "_COLUMNS", 12)
        chain = make_chain()
        context = torch.randn(n, 6)
        for k, factor in enumerate(chain.factors):
            earlier = torch.randn(k, n, draws)
            found = factor.evaluate_draws(context, earlier)
            assert found.shape == (n_spline_parameters((6, 4, 4)[k]), n, draws if k else 1)
            for j in range(found.shape[-1]):
                expected = factor(context, earlier[:, :, j].T)
                torch.testing.assert_close(found[..., j].T, expected, rtol=1e-5, atol=1e-5)

    def test_initial_content_of_the_workspace_is_ignored(self):
        chain = make_chain()
        context, earlier = torch.randn(5, 6), torch.randn(2, 5, 4)
        workspace = torch.full((2, 17, 9), torch.nan)
        found = chain.factors[2].evaluate_draws(context, earlier, workspace)
        torch.testing.assert_close(found, chain.factors[2].evaluate_draws(context, earlier))


class TestDraws:
    def test_shape_and_support(self):
        chain = make_chain(spread=1.5)
        theta = chain(5 * torch.randn(30, 6)).sample(100)
        assert theta.shape == (30, 100, 3)
        assert (theta > chain.lower).all() and (theta < chain.upper).all()

    def test_draws_depend_on_the_seed_but_not_on_the_chunks(self, monkeypatch):
        posterior = make_chain()(torch.randn(13, 6))
        one = posterior.sample(11, torch.Generator().manual_seed(5))
        monkeypatch.setattr(flows, "DRAWS_PER_CHUNK", 30)
        monkeypatch.setattr(flows, "_COLUMNS", 20)
        two = posterior.sample(11, torch.Generator().manual_seed(5))
        other = posterior.sample(11, torch.Generator().manual_seed(6))
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(one, other)

    def test_known_redshift_is_kept_and_conditions_the_rest(self):
        posterior = make_chain()(torch.randn(2, 6))
        known = torch.tensor([[0.03], [torch.nan]])
        free = posterior.sample(500, torch.Generator().manual_seed(0))
        given = posterior.sample(500, torch.Generator().manual_seed(0), known=known)
        assert given[0, :, 0].sub(0.03).abs().max() < 1e-5
        torch.testing.assert_close(given[1], free[1])
        assert not torch.allclose(given[0, :, 1], free[0, :, 1])

    @pytest.mark.parametrize(
        ("known", "message"),
        [
            ([[0.9]], "outside the support"),
            ([[math.nan, 9.0]], "first ones"),
            ([[0.1], [0.1]], "shape"),
        ],
    )
    def test_invalid_known_values_are_rejected(self, known, message):
        with pytest.raises(ValueError, match=message):
            make_chain()(torch.zeros(1, 6)).sample(5, known=torch.tensor(known))

    def test_zero_draws_are_rejected(self):
        with pytest.raises(ValueError, match="n_draws"):
            make_chain()(torch.zeros(1, 6)).sample(0)


class TestPartialLabels:
    def test_missing_labels_do_not_affect_the_density(self):
        chain = make_chain()
        posterior = chain(torch.randn(5, 6))
        theta = torch.tensor([[0.1, 9.0, 1.0]]).repeat(5, 1)
        valid = torch.tensor([[True, False, True]]).repeat(5, 1)
        theta[:, 1] = torch.nan
        one = posterior.log_prob(theta, valid, torch.Generator().manual_seed(0))
        theta[:, 1] = 7.0
        two = posterior.log_prob(theta, valid, torch.Generator().manual_seed(0))
        torch.testing.assert_close(one, two)
        assert (one[:, 1] == 0).all() and torch.isfinite(one).all()

    def test_missing_label_gives_no_gradient_to_its_factor(self):
        chain = make_chain()
        theta = torch.tensor([[0.1, torch.nan, 1.0]])
        chain(torch.randn(1, 6)).log_prob(theta).sum().backward()
        gradients = [
            sum(p.grad.abs().sum() for p in factor.parameters()) for factor in chain.factors
        ]
        assert gradients[0] > 0 and gradients[1] == 0 and gradients[2] > 0

    def test_imputation_draws_from_the_factor(self):
        chain = make_chain()
        context = torch.randn(1, 6)
        theta = torch.tensor([[0.1, torch.nan, 1.0]]).repeat(4000, 1)
        posterior = chain(context.expand(4000, -1))
        completed = posterior.log_prob_and_completed(theta)[1]
        known = theta[:1, :1]
        draws = chain(context).sample(4000, known=known)[0]
        expected = chain.standardise(draws)[0][:, 1]
        assert completed[:, 1].mean().item() == pytest.approx(expected.mean().item(), abs=0.1)
        assert completed[:, 1].std().item() == pytest.approx(expected.std().item(), rel=0.1)


def test_recovers_a_known_conditional_posterior():
    """Draw y1 = c + 0.5 e and y2 = y1**2 + c + 0.3 e, which depends on the square of y1."""
    torch.manual_seed(0)
    chain = FlowChain(1, lower=[-60.0, -60.0], upper=[60.0, 60.0], hidden=32)

    def draw(n):
        c = torch.randn(n, 1)
        y1 = c + 0.5 * torch.randn(n, 1)
        return c, torch.cat([y1, y1**2 + c + 0.3 * torch.randn(n, 1)], -1)

    chain.set_standardisation(draw(5000)[1])
    optimiser = torch.optim.Adam(chain.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, total_steps=400)
    for _ in range(400):
        c, theta = draw(512)
        loss = -chain(c).log_prob(theta).sum(-1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    entropy = math.log(0.5) + math.log(0.3) + math.log(2 * math.pi * math.e)
    c, theta = draw(20000)
    with torch.no_grad():
        assert -chain(c).log_prob(theta).sum(-1).mean().item() == pytest.approx(entropy, abs=0.06)
    context = torch.tensor([[-1.0], [0.0], [1.0]])
    draws = chain(context).sample(5000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(draws[..., 0].mean(1), context[:, 0], rtol=0, atol=0.06)
    torch.testing.assert_close(draws[..., 0].std(1), torch.full((3,), 0.5), rtol=0.1, atol=0)
    residual = draws[..., 1] - draws[..., 0] ** 2 - context
    assert residual.mean().abs() < 0.06
    assert residual.std().item() == pytest.approx(0.3, rel=0.2)


def test_standardisation_uses_valid_labels_only():
    chain = FlowChain(2, lower=LOWER, upper=UPPER)
    theta = torch.tensor([0.1, 9.0, 1.0]) + 0.01 * torch.randn(200, 3)
    theta[::2, 1] = torch.nan
    theta[::2, 2] = 5.9
    valid = torch.ones(200, 3, dtype=torch.bool)
    valid[::2, 2] = False
    chain.set_standardisation(theta, valid)
    y = chain.standardise(theta[1::2])[0]
    assert y[:, 1:].mean(0).abs().max() < 1e-2
    assert y[:, 1:].std(0).sub(1).abs().max() < 1e-2


def test_inconsistent_lengths_are_rejected():
    with pytest.raises(ValueError, match="quantities"):
        FlowChain(2, lower=[0.0], upper=[1.0, 2.0])
