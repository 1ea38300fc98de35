"""Spline densities: normalisation, tails, sampling."""

import math

import pytest
import torch
from zuko.transforms import MonotonicRQSTransform

from astrogenspec.nn.splines import n_spline_parameters, spline_log_prob, spline_sample


def test_density_integrates_to_one():
    torch.manual_seed(0)
    parameters = torch.randn(20, n_spline_parameters(8))
    y = torch.linspace(-40, 40, 40001)
    density = spline_log_prob(parameters[:, None].expand(-1, len(y), -1), y.expand(20, -1)).exp()
    assert torch.trapezoid(density, y).sub(1).abs().max() < 2e-3


def test_gradient_is_bounded_in_the_tails():
    parameters = torch.zeros(2, n_spline_parameters(8), requires_grad=True)
    log_prob = spline_log_prob(parameters, torch.tensor([6.0, 1000.0]))
    (gradient,) = torch.autograd.grad(log_prob.sum(), parameters)
    torch.testing.assert_close(gradient[:, 0], torch.full((2,), 5.0))
    edge = spline_log_prob(
        torch.zeros(2, n_spline_parameters(8)), torch.tensor([5 - 1e-4, 5 + 1e-4])
    )
    assert edge[0] - edge[1] == pytest.approx(1e-3, abs=1e-4)


def test_sampling_inverts_the_zuko_spline():
    torch.manual_seed(1)
    parameters = 2 * torch.randn(n_spline_parameters(8), 50, 1)
    noise = 3 * torch.randn(50, 200)
    y = spline_sample(parameters, noise)
    bound = math.log(1e3)
    log_scale = parameters[1] / (1 + parameters[1].abs() / bound)
    flat = parameters.permute(1, 2, 0).expand(-1, 200, -1)
    spline = MonotonicRQSTransform(flat[..., 2:10], flat[..., 10:18], flat[..., 18:])
    back = spline((y - parameters[0]) * torch.exp(-log_scale))
    assert (back - noise).abs().quantile(0.999) < 2e-3
    assert torch.isfinite(y).all()


@pytest.mark.parametrize("n_bins", [2, 8])
def test_map_is_affine_beyond_the_knots_and_arguments_are_unchanged(n_bins):
    parameters = torch.randn(n_spline_parameters(n_bins), 3, 1)
    noise = torch.tensor([-5.4, -5.0, 0.3, 5.0, 5.3]).expand(3, 5).clone()
    before = parameters.clone(), noise.clone()
    y = spline_sample(parameters, noise)
    shift, log_scale = parameters[0], parameters[1]
    scale = torch.exp(log_scale / (1 + log_scale.abs() / -math.log(1e-3)))
    outer = [0, 1, 3, 4]
    expected = (shift + scale * noise)[:, outer]
    torch.testing.assert_close(y[:, outer], expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(parameters, before[0]) and torch.equal(noise, before[1])


def test_broadcast_and_full_parameters_agree():
    torch.manual_seed(2)
    parameters = torch.randn(n_spline_parameters(8), 5, 1)
    noise = torch.randn(5, 7)
    shared = spline_sample(parameters, noise)
    individual = spline_sample(parameters.repeat(1, 1, 7), noise)
    torch.testing.assert_close(shared, individual)
