"""Random numbers on any device, drawn where their generator lives."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["integers", "normal", "standard_normal", "uniform"]


def standard_normal(
    shape: Sequence[int],
    generator: torch.Generator | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """Draw standard normal numbers whose values do not depend on how a job is cut into pieces.

    `torch.randn` fills large arrays in blocks, so that two halves differ from a whole. Uniform numbers come one after
    another; they are drawn where the generator lives and sent through the inverse normal distribution.

    Parameters
    ----------
    shape : sequence of int
        Shape of the result.
    generator : `torch.Generator`, optional
        Source of randomness; the default generator if missing.
    device : `torch.device`, optional
        Where the result is wanted.

    Returns
    -------
    noise : Tensor of float32
    """
    source = generator.device if generator is not None else device
    uniform = torch.rand(tuple(shape), generator=generator, device=source)
    # Uniform numbers are multiples of 2**-24, so that 2 u - 1 is exact; `torch.special.ndtri` takes ten times as long.
    noise = uniform.clamp_(2.0**-25, 1 - 2.0**-24).mul_(2).sub_(1).erfinv_().mul_(math.sqrt(2))
    return noise.to(device)


def uniform(
    shape: Sequence[int],
    generator: torch.Generator | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """Draw uniform numbers in [0, 1) of a shape, from the generator or the default one, and put them on a device."""
    source = generator.device if generator is not None else device
    return torch.rand(tuple(shape), generator=generator, device=source).to(device)


def normal(
    shape: Sequence[int],
    generator: torch.Generator | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """Draw standard normal numbers like `uniform`; faster than `standard_normal`, but pieces differ from a whole."""
    source = generator.device if generator is not None else device
    return torch.randn(tuple(shape), generator=generator, device=source).to(device)


def integers(
    high: int,
    n: int,
    generator: torch.Generator | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """Draw n integers from 0 to ``high - 1`` like `uniform`, shape (n,)."""
    source = generator.device if generator is not None else device
    return torch.randint(high, (n,), generator=generator, device=source).to(device)
