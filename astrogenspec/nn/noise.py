"""Random numbers for any device, drawn on the device of their generator, or keyed by object.

The numbers of a `torch.Generator` depend on all that were drawn before.  Those of `ObjectStreams`
are a function of the seed, the key of the object and the number of the call only, so that an object
gets the same numbers in any batch, order, subset or process.  They come from the counter-based
generator Philox 4x64-10 (Salmon et al. 2011, SC '11, doi:10.1145/2063384.2063405), whose key is
the seed and whose counter holds the key of the object: distinct objects have disjoint streams.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["ObjectStreams", "integers", "normal", "standard_normal", "uniform"]


class ObjectStreams:
    """Random numbers that are keyed by object.

    Parameters
    ----------
    seed : int
        Seed of all objects, from 0 to 2**64 - 1.
    keys : ndarray of uint64, shape (n, 2)
        Keys of n objects.
    lane : int
        Number that tells apart the uses of one seed, from 0 to 2**64 - 1.

    Notes
    -----
    Each call of `uniform` draws from the next stream of the objects. A slice starts at the stream
    that is next when it is made; the streams that it draws from are not skipped by the whole.
    """

    def __init__(self, seed: int, keys: np.ndarray, *, lane: int = 0) -> None:
        self.seed, self.lane = seed, lane
        self.keys = np.ascontiguousarray(keys, dtype=np.uint64).reshape(-1, 2)
        self._stream = 0

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, rows: slice) -> ObjectStreams:
        """Return the streams of some of the objects, from the next stream on."""
        part = ObjectStreams(self.seed, self.keys[rows], lane=self.lane)
        part._stream = self._stream
        return part

    def uniform(self, n_numbers: int) -> np.ndarray:
        """Draw uniform numbers in [0, 1), which are multiples of 2**-24.

        Parameters
        ----------
        n_numbers : int
            Count for each object.

        Returns
        -------
        ndarray of float32, shape (n, n_numbers)
        """
        numbers = np.empty((len(self), n_numbers), np.float32)
        # To set the state of one generator takes half the time of making a new one.
        bits = np.random.Philox(key=0)
        generator, state = np.random.Generator(bits), bits.state
        state["state"]["key"] = np.array([self.seed, self.lane], np.uint64)
        for row, (low, high) in zip(numbers, self.keys, strict=True):
            state["state"]["counter"] = np.array([0, self._stream, low, high], np.uint64)
            bits.state = state
            generator.random(dtype=np.float32, out=row)
        self._stream += 1
        return numbers


def standard_normal(
    shape: Sequence[int],
    generator: torch.Generator | ObjectStreams | None = None,
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
    generator : `torch.Generator` or ObjectStreams, optional
        Source of randomness; by default the default generator. With streams, the first axis is that
        of the objects.
    device : `torch.device`, optional
        Device of the result.

    Returns
    -------
    noise : Tensor of float32

    Raises
    ------
    ValueError
        If the number of objects of the streams is another one.
    """
    uniform = _uniform(tuple(shape), generator, device)
    # Uniform numbers are multiples of 2**-24, so that 2 u - 1 is exact.  `torch.special.ndtri`
    # takes ten times as long.
    noise = uniform.clamp_(2.0**-25, 1 - 2.0**-24).mul_(2).sub_(1).erfinv_().mul_(math.sqrt(2))
    return noise.to(device)


def _uniform(
    shape: tuple[int, ...],
    generator: torch.Generator | ObjectStreams | None,
    device: torch.device | None,
) -> Tensor:
    """Draw uniform numbers on the device of the generator."""
    if not isinstance(generator, ObjectStreams):
        source = generator.device if generator is not None else device
        return torch.rand(shape, generator=generator, device=source, dtype=torch.float32)
    if shape[0] != len(generator):
        raise ValueError(f"{len(generator)} streams cannot give numbers of shape {shape}.")
    return torch.from_numpy(generator.uniform(math.prod(shape[1:]))).reshape(shape)


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
