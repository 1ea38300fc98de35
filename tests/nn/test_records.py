"""Records of tensors: rows, devices, concatenation, missing and nested fields."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass

import pytest
import torch
from torch import Tensor

from astrogenspec.nn.records import TensorRecord


@dataclass(frozen=True)
class Inner(TensorRecord):
    flux: Tensor
    image: Tensor | None = None


@dataclass(frozen=True)
class Outer(TensorRecord):
    inner: Inner
    latent: tuple[Tensor, Tensor] | None = None
    label: Tensor | None = None


def make(n, image=False, latent=False):
    number = torch.arange(float(n))
    inner = Inner(number, number[:, None] + torch.ones(2) if image else None)
    return Outer(inner, (number + 1, number + 2) if latent else None, 10 * number)


@pytest.mark.parametrize(
    "rows", [slice(1, 3), torch.tensor([1, 2]), torch.tensor([False, True, True, False])]
)
def test_rows_are_selected_in_every_field(rows):
    record = make(4, image=True, latent=True)
    chosen = record[rows]
    assert isinstance(chosen, Outer) and isinstance(chosen.inner, Inner)
    expected = torch.arange(4.0)[rows]
    assert torch.equal(chosen.inner.flux, expected)
    assert torch.equal(chosen.inner.image[:, 0], expected + 1)
    assert torch.equal(chosen.latent[1], expected + 2)
    assert len(chosen) == len(expected)


def test_missing_fields_stay_missing():
    chosen = make(4)[:2].to("cpu").repeat_interleave(3)
    assert chosen.inner.image is None and chosen.latent is None
    assert chosen.label.tolist() == [0, 0, 0, 10, 10, 10]


def test_every_tensor_is_moved():
    moved = make(3, image=True, latent=True).to("meta")
    tensors = (moved.inner.flux, moved.inner.image, *moved.latent, moved.label)
    assert {tensor.device.type for tensor in tensors} == {"meta"}


def test_concatenation_restores_the_parts():
    record = make(5, image=True, latent=True)
    joined = Outer.concatenate([record[:2], record[2:]])
    assert torch.equal(joined.inner.image, record.inner.image)
    assert torch.equal(joined.latent[0], record.latent[0])
    assert torch.equal(joined.label, record.label)


def test_concatenation_fills_missing_fields_with_zeros():
    joined = Outer.concatenate([make(2), make(3, image=True)])
    assert joined.inner.image.shape == (5, 2)
    assert not joined.inner.image[:2].any() and joined.inner.image[2:].all()
    assert joined.latent is None


def test_records_are_frozen():
    with pytest.raises(FrozenInstanceError):
        make(2).label = None


def test_a_record_without_tensors_is_empty():
    @dataclass(frozen=True)
    class Empty(TensorRecord):
        label: Tensor | None = None

    assert len(Empty()) == 0
