"""Streams of batches."""

import pytest
import torch

from astrogenspec.training.streams import BatchStream


def test_a_stream_visits_every_item_and_resumes():
    stream = BatchStream(lambda i, g: (i, torch.rand(1, generator=g)), 10, 5, seed=3)
    batches = [next(stream) for _ in range(4)]
    for epoch in (batches[:2], batches[2:]):
        assert sorted(torch.cat([i for i, _ in epoch]).tolist()) == list(range(10))
    other = BatchStream(lambda i, g: (i, torch.rand(1, generator=g)), 10, 5, seed=3)
    other.load_state_dict({"step": 3})
    index, number = next(other)
    assert torch.equal(index, batches[3][0]) and torch.equal(number, batches[3][1])
    assert len({number.item() for _, number in batches}) == 4


def test_invalid_batch_size_is_rejected():
    with pytest.raises(ValueError, match="batch_size"):
        BatchStream(lambda i, g: i, 10, 11)
