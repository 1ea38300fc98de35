"""Tests of `astrogenspec.nn.whitening`."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from astrogenspec.nn.whitening import Whitening, whitened_inputs


def correlated(n, scales, generator):
    """Return inputs with root mean squares ``scales`` along random directions, and a mean."""
    white = torch.randn(n, len(scales), generator=generator)
    rotation = torch.linalg.qr(torch.randn(len(scales), len(scales), generator=generator))[0]
    return (white * torch.tensor(scales)) @ rotation + 0.3


@pytest.fixture
def generator():
    """Return a generator of fixed seed."""
    return torch.Generator().manual_seed(0)


def test_inputs_are_white(generator):
    """Second moments of the whitened inputs are those of white noise, above the smallest scale."""
    inputs = correlated(4000, [2.0, 0.5, 0.05], generator)
    whitened = inputs @ Whitening(inputs, first=0).matrix.T
    assert torch.allclose(whitened.T @ whitened / 4000, torch.eye(3), atol=1e-4)


def test_directions_without_variation_are_not_amplified(generator):
    """A direction below the smallest scale is divided by that scale."""
    inputs = correlated(4000, [1.0, 1e-6], generator) - 0.3
    whitened = inputs @ Whitening(inputs, first=0, min_scale=0.1).matrix.T
    assert whitened.std(0).min() < 2e-5


def test_layer_is_the_same_before_and_after(generator):
    """Without training, the layer and its other columns do not change."""
    layer = nn.Linear(5, 4)
    before = copy.deepcopy(layer)
    features = correlated(100, [1.0, 0.1, 0.02], generator)
    x = torch.randn(7, 5, generator=generator)
    with whitened_inputs(layer, Whitening(features, first=2)):
        assert torch.allclose(layer(x), before(x), atol=1e-5)
    assert isinstance(layer.weight, nn.Parameter)
    assert set(layer.state_dict()) == {"weight", "bias"}
    assert torch.equal(layer.weight[:, :2], before.weight[:, :2])
    assert torch.allclose(layer.weight, before.weight, atol=1e-5)


def test_gradient_descent_learns_from_directions_of_little_variation(generator):
    """A target that depends on the direction of least variation is learnt at once."""
    inputs = correlated(2000, [1.0, 0.02], generator) - 0.3
    direction = torch.linalg.eigh(inputs.T @ inputs)[1][:, 0]
    target = 50 * inputs @ direction
    losses = {}
    for whiten in (True, False):
        torch.manual_seed(1)
        layer = nn.Linear(2, 1)
        whitening = Whitening(inputs, first=0)
        if whiten:
            with whitened_inputs(layer, whitening):
                descend(layer, inputs, target)
        else:
            descend(layer, inputs, target)
        losses[whiten] = float((layer(inputs)[:, 0] - target).square().mean().detach())
    assert losses[True] < 1e-3 < 0.3 < losses[False]


def descend(layer, inputs, target):
    """Minimise the mean squared error by 100 steps of gradient descent."""
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.2)
    for _ in range(100):
        optimiser.zero_grad()
        (layer(inputs)[:, 0] - target).square().mean().backward()
        optimiser.step()


def test_the_layer_is_restored_after_an_error(generator):
    """An exception in training leaves a plain layer."""
    layer = nn.Linear(3, 2)
    whitening = Whitening(correlated(50, [1.0, 1.0, 1.0], generator), first=0)
    with pytest.raises(RuntimeError), whitened_inputs(layer, whitening):
        raise RuntimeError
    assert isinstance(layer.weight, nn.Parameter)
