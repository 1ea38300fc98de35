"""Coupling flows: inverse, density, conditions, identity at the beginning."""

import math

import pytest
import torch

from astrogenspec.inference.coupling import AffineCoupling, CouplingFlow


def make_flow(size=4, n_conditions=2, seed=0):
    torch.manual_seed(seed)
    flow = CouplingFlow(size, 3, n_conditions, n_layers=6, hidden=8)
    for layer in flow.layers:
        torch.nn.init.normal_(layer.out.weight, std=0.4)
        torch.nn.init.normal_(layer.out.bias, std=0.4)
    return flow.double()


def test_density_is_that_of_the_noise_over_the_jacobian():
    flow = make_flow()
    context, conditions = torch.randn(1, 3).double(), torch.randn(1, 1, 2).double()
    noise = torch.randn(1, 1, 4).double()
    jacobian = torch.autograd.functional.jacobian(
        lambda u: flow.transform(u[None, None], context, conditions)[0, 0], noise[0, 0]
    )
    normal = -0.5 * (noise.square().sum() + 4 * math.log(2 * math.pi))
    expected = normal - torch.linalg.slogdet(jacobian)[1]
    drawn = flow.transform(noise, context, conditions)
    found = flow.log_prob(drawn, context, conditions)
    assert found.shape == (1, 1) and found.item() == pytest.approx(expected.item(), abs=1e-9)
    # The Jacobian is far from that of the identity.
    assert abs(torch.linalg.slogdet(jacobian)[1].item()) > 0.1


def test_density_integrates_to_one():
    flow = make_flow(2, 1, seed=1)
    axis = torch.linspace(-40, 40, 1601).double()
    grid = torch.cartesian_prod(axis, axis)[None]
    context, conditions = torch.randn(1, 3).double(), torch.randn(1, 1, 1).double()
    with torch.no_grad():
        found = flow.log_prob(grid, context, conditions.expand(1, len(grid[0]), 1))
    assert (found.exp().sum() * 0.05**2).item() == pytest.approx(1.0, abs=1e-3)


def test_every_number_depends_on_context_conditions_and_noise():
    flow = make_flow()
    torch.manual_seed(3)
    arguments = [
        torch.randn(shape).double().requires_grad_() for shape in ((1, 1, 4), (1, 3), (1, 1, 2))
    ]
    drawn = flow.transform(*arguments)
    for k in range(4):
        gradients = torch.autograd.grad(drawn[0, 0, k], arguments, retain_graph=True)
        assert all(gradient.abs().min() > 0 for gradient in gradients)


def test_a_new_flow_is_normal_about_its_mean():
    torch.manual_seed(0)
    flow = CouplingFlow(4, 3, n_layers=12, hidden=8)
    assert len(flow.layers) == 12
    context, nothing = torch.randn(2, 3), torch.zeros(2, 5, 0)
    noise = torch.randn(2, 5, 4)
    mean = flow.mean(context)[:, None]
    torch.testing.assert_close(flow.transform(noise, context, nothing), noise + mean)


def test_halves_alternate_and_scales_are_bounded():
    flow = CouplingFlow(4, 3, n_layers=2, hidden=8)
    assert [layer.kept.tolist() for layer in flow.layers] == [
        [False, True, False, True],
        [True, False, True, False],
    ]
    layer = AffineCoupling(torch.tensor([True, False]), 3, 0, 8)
    torch.nn.init.constant_(layer.out.bias, 1e6)
    log_scale, shift = layer(torch.randn(1, 1, 2), torch.randn(1, 3), torch.zeros(1, 1, 0))
    assert log_scale.tolist() == [[[0.0, 2.0]]] and shift[0, 0, 0] == 0
