"""Records of tensors: frozen dataclasses that are indexed, moved and concatenated as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor

__all__ = ["TensorRecord"]


@dataclass(frozen=True)
class TensorRecord:
    """Base of frozen dataclasses whose fields have one row for each of n items.

    A field is a tensor, another record, a tuple of these, or None.  Subclasses are frozen
    dataclasses.

    Examples
    --------
    >>> import torch
    >>> from dataclasses import dataclass
    >>> from astrogenspec.nn.records import TensorRecord
    >>> @dataclass(frozen=True)
    ... class Sample(TensorRecord):
    ...     flux: torch.Tensor
    ...     error: torch.Tensor | None = None
    >>> sample = Sample(torch.arange(3.0))
    >>> sample[1:].flux
    tensor([1., 2.])
    >>> len(Sample.concatenate([sample, sample]))
    6
    """

    def __len__(self) -> int:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None:
                return len(value[0] if isinstance(value, tuple) else value)
        return 0

    def __getitem__(self, rows: Any) -> Self:
        """Select rows by slice, indices or mask."""
        return self.map_tensors(lambda tensor: tensor[rows])

    def to(self, device: torch.device | str) -> Self:
        """Move every tensor to a device."""
        return self.map_tensors(lambda tensor: tensor.to(device))

    def repeat_interleave(self, n: int) -> Self:
        """Repeat each row ``n`` times."""
        return self.map_tensors(lambda tensor: tensor.repeat_interleave(n, dim=0))

    def map_tensors(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Apply a function to every tensor.

        Parameters
        ----------
        function : callable
            Maps a tensor to a tensor.

        Returns
        -------
        TensorRecord
            Of the same class; fields that are None stay None.
        """
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: _map(function, value) for name, value in values.items()})

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Concatenate records along the first axis.

        Parameters
        ----------
        parts : sequence of TensorRecord
            At least one, all of this class.  A field that is None in some parts only is filled with
            zeros there.

        Returns
        -------
        TensorRecord
        """
        columns = {}
        for field in fields(cls):
            values = [getattr(part, field.name) for part in parts]
            columns[field.name] = _concatenate(values, [len(part) for part in parts])
        return cls(**columns)


def _map(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, TensorRecord):
        return value.map_tensors(function)
    if isinstance(value, tuple):
        return tuple(_map(function, item) for item in value)
    return function(value)


def _concatenate(values: Sequence[Any], lengths: Sequence[int]) -> Any:
    given = [value for value in values if value is not None]
    if not given:
        return None
    first = given[0]
    if isinstance(first, TensorRecord):
        return type(first).concatenate(values)
    if isinstance(first, tuple):
        return tuple(_concatenate(items, lengths) for items in zip(*values, strict=True))
    shape = first.shape[1:]
    return torch.cat(
        [
            first.new_zeros(n, *shape) if value is None else value
            for value, n in zip(values, lengths, strict=True)
        ]
    )
