"""Endless, resumable streams of random batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["BatchStream", "ZippedStreams", "to_device"]


class BatchStream:
    """Endless, resumable stream of random batches.

    The items of a batch come from a permutation seeded by the epoch, its random numbers from a
    generator seeded by the step, so that the step is the complete state.

    Parameters
    ----------
    make_batch : callable
        ``make_batch(indices, generator)`` makes a batch of the items ``indices`` (Tensor of int64).
    n_items : int
        Number of items.
    batch_size : int
        Number of items in a batch; an incomplete last batch of an epoch is omitted.
    seed : int, optional
        Seed of permutations and generators.
    """

    def __init__(
        self,
        make_batch: Callable[[Tensor, torch.Generator], Any],
        n_items: int,
        batch_size: int,
        *,
        seed: int = 0,
    ) -> None:
        if not 0 < batch_size <= n_items:
            raise ValueError(
                f"batch_size is {batch_size}; it must be between 1 and the number of items, "
                f"{n_items}."
            )
        self.make_batch = make_batch
        self.n_items = n_items
        self.batch_size = batch_size
        self.seed = seed
        self.step = 0
        self._epoch = -1
        self._permutation = torch.empty(0, dtype=torch.long)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        epoch, position = divmod(self.step, self.n_items // self.batch_size)
        if epoch != self._epoch:
            self._permutation = torch.randperm(
                self.n_items, generator=_generator(self.seed, 2 * epoch)
            )
            self._epoch = epoch
        indices = self._permutation[position * self.batch_size : (position + 1) * self.batch_size]
        batch = self.make_batch(indices, _generator(self.seed, 2 * self.step + 1))
        self.step += 1
        return batch

    def skip(self) -> None:
        """Pass over the next batch without making it."""
        self.step += 1

    def state_dict(self) -> dict[str, int]:
        """Return the state, for `load_state_dict`."""
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Restore a state."""
        self.step = state["step"]


class ZippedStreams:
    """Combination of resumable streams; each item is a list with one batch of every stream.

    Parameters
    ----------
    streams : sequence of BatchStream
        Streams to combine.
    """

    def __init__(self, streams: Sequence[BatchStream]) -> None:
        self.streams = streams

    def __iter__(self) -> Iterator[list[Any]]:
        return self

    def __next__(self) -> list[Any]:
        return [next(stream) for stream in self.streams]

    def skip(self) -> None:
        """Pass over the next batch of every stream without making it."""
        for stream in self.streams:
            stream.skip()

    def state_dict(self) -> dict[str, Any]:
        """Return the state, for `load_state_dict`."""
        return {str(k): stream.state_dict() for k, stream in enumerate(self.streams)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state."""
        for k, stream in enumerate(self.streams):
            stream.load_state_dict(state[str(k)])


def to_device(batch: Any, device: torch.device | str) -> Any:
    """Move a batch to a device: objects with ``to``, and dicts, tuples and lists of these."""
    if hasattr(batch, "to"):
        return batch.to(device)
    if isinstance(batch, dict):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, (tuple, list)):
        return type(batch)(to_device(value, device) for value in batch)
    return batch


def _generator(seed: int, stream: int) -> torch.Generator:
    """Make a generator seeded by two numbers such that consecutive streams are uncorrelated."""
    mixed = (seed * 0x9E3779B97F4A7C15 + stream * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) % 2**63
    return torch.Generator().manual_seed(mixed)
