"""The one-dimensional U-Net: lengths, conditions, gradients."""

import pytest
import torch

from astrogenspec.nn.unet import UNet1d


def make_unet(n_in=2):
    torch.manual_seed(0)
    return UNet1d(n_in, (8, 16, 16), 6)


@pytest.mark.parametrize("length", [16, 17, 63])
def test_length_is_kept(length):
    found = make_unet()(torch.randn(3, 2, length), torch.rand(3), torch.randn(3, 4, 6))
    assert found.shape == (3, length)


def test_every_input_matters():
    arguments = [torch.randn(1, 2, 32), torch.rand(1), torch.randn(1, 4, 6)]
    for argument in arguments:
        argument.requires_grad_()
    found = make_unet()(*arguments)
    gradients = torch.autograd.grad(found[0, 16], arguments)
    assert all(gradient.abs().max() > 1e-6 for gradient in gradients)
    # Levels below connect distant positions.
    assert gradients[0][0, 0, 2].abs() > 0


def test_gradients_reach_every_parameter():
    unet = make_unet()
    unet(torch.randn(2, 2, 32), torch.rand(2), torch.randn(2, 4, 6)).square().sum().backward()
    missing = [n for n, p in unet.named_parameters() if p.grad is None or not p.grad.abs().any()]
    assert missing == []


def test_galaxies_are_independent():
    unet = make_unet().eval()
    x, time, tokens = torch.randn(3, 2, 20), torch.rand(3), torch.randn(3, 4, 6)
    whole = unet(x, time, tokens)
    torch.testing.assert_close(whole[1:2], unet(x[1:2], time[1:2], tokens[1:2]))
