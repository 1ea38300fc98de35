"""Random numbers."""

import torch

from astrogenspec.nn.noise import standard_normal


def test_standard_normal_numbers():
    noise = standard_normal((100000,), torch.Generator().manual_seed(0))
    assert noise.mean().abs() < 0.01 and abs(noise.std() - 1) < 0.01
    assert torch.isfinite(noise).all()


def test_standard_normal_numbers_do_not_depend_on_the_chunks():
    whole = standard_normal((1000, 3), torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    chunks = [standard_normal((500, 3), generator) for _ in range(2)]
    assert torch.equal(torch.cat(chunks), whole)
