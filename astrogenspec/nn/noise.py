"""Random numbers for any device, drawn on the device of their generator."""

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
    """Draw standard normal numbers that do not depend on the division of a job into chunks.

    `torch.randn` fills large arrays in blocks, so that two halves differ from a whole.  Here,
    uniform numbers, which are drawn one after another, are transformed by the inverse of the normal
    distribution function.

    Parameters
    ----------
    shape : sequence of int
        Shape of the result.
    generator : `torch.Generator`, optional
        Source of randomness; by default the default generator.
    device : `torch.device`, optional
        Device of the result.

    Returns
    -------
    noise : Tensor of float32
    """
    source = generator.device if generator is not None else device
    uniform = torch.rand(tuple(shape), generator=generator, device=source, dtype=torch.float32)
    # Uniform numbers are multiples of 2**-24, so that 2 u - 1 is exact.  `torch.special.ndtri`
    # takes ten times as long.
    noise = uniform.clamp_(2.0**-25, 1 - 2.0**-24).mul_(2).sub_(1).erfinv_().mul_(math.sqrt(2))
    return noise.to(device)


def uniform(
    shape: Sequence[int],
    generator: torch.Generator | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """Draw uniform numbers in [0, 1); arguments as for `standard_normal`."""
    source = generator.device if generator is not None else device
    return torch.rand(tuple(shape), generator=generator, device=source, dtype=torch.float32).to(
        device
    )


def normal(
    shape: Sequence[int],
    generator: torch.Generator | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """Draw standard normal numbers that depend on the chunks; faster than `standard_normal`."""
    source = generator.device if generator is not None else device
    return torch.randn(tuple(shape), generator=generator, device=source, dtype=torch.float32).to(
        device
    )


def integers(
    high: int,
    n: int,
    generator: torch.Generator | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """Draw n integers from 0 to ``high - 1``, shape (n,)."""
    source = generator.device if generator is not None else device
    return torch.randint(high, (n,), generator=generator, device=source).to(device)
