"""Random numbers."""

import numpy as np
import pytest
import torch
from scipy import stats

from astrogenspec.nn.noise import ObjectStreams, standard_normal


def test_standard_normal_numbers():
    noise = standard_normal((100000,), torch.Generator().manual_seed(0))
    assert noise.mean().abs() < 0.01 and abs(noise.std() - 1) < 0.01
    assert torch.isfinite(noise).all()


def test_standard_normal_numbers_do_not_depend_on_the_chunks():
    whole = standard_normal((1000, 3), torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    chunks = [standard_normal((500, 3), generator) for _ in range(2)]
    assert torch.equal(torch.cat(chunks), whole)


def keys_of(n, high=0):
    return np.stack([np.arange(n), np.full(n, high)], axis=1).astype(np.uint64)


def test_streams_are_those_of_philox():
    """The numbers follow from the published generator, with the seed as key."""
    streams = ObjectStreams(5, np.array([[7, 9]]), lane=3)
    for stream in range(2):
        bits = np.random.Philox(
            key=np.array([5, 3], np.uint64), counter=np.array([0, stream, 7, 9], np.uint64)
        )
        wanted = np.random.Generator(bits).random(11, dtype=np.float32)
        assert np.array_equal(streams.uniform(11)[0], wanted)


def test_streams_depend_on_the_object_only():
    keys = keys_of(50)
    whole = standard_normal((50, 4, 3), ObjectStreams(1, keys))
    order = np.random.default_rng(0).permutation(50)
    assert torch.equal(standard_normal((50, 4, 3), ObjectStreams(1, keys[order])), whole[order])
    streams = ObjectStreams(1, keys)
    parts = [standard_normal((10, 4, 3), streams[k : k + 10]) for k in range(0, 50, 10)]
    assert torch.equal(torch.cat(parts), whole)


def test_streams_of_seeds_lanes_objects_and_calls_differ():
    keys = keys_of(3)
    streams = ObjectStreams(1, keys)
    drawn = [streams.uniform(500), streams.uniform(500)]
    drawn += [
        ObjectStreams(*seed_keys, lane=lane).uniform(500)
        for seed_keys, lane in (((2, keys), 0), ((1, keys), 1), ((1, keys_of(3, high=1)), 0))
    ]
    correlation = np.corrcoef(np.concatenate(drawn))
    # 15 independent streams of 500 numbers: a correlation of 0.25 is 5.6 standard deviations.
    assert np.abs(correlation - np.eye(15)).max() < 0.25


def test_numbers_of_streams_are_standard_normal():
    noise = standard_normal((2000, 50), ObjectStreams(11, keys_of(2000))).numpy()
    assert stats.kstest(noise[:, 0], "norm").pvalue > 1e-3
    assert stats.kstest(noise.ravel(), "norm").pvalue > 1e-3


def test_streams_of_another_number_of_objects_are_an_error():
    with pytest.raises(ValueError, match=r"3 streams cannot give numbers of shape \(4, 2\)"):
        standard_normal((4, 2), ObjectStreams(1, keys_of(3)))


def test_slices_continue_with_the_next_stream():
    keys = np.arange(12, dtype=np.uint64).reshape(6, 2)
    whole, other = ObjectStreams(3, keys), ObjectStreams(3, keys)
    first = whole.uniform(5)
    np.testing.assert_array_equal(other.uniform(5), first)
    part = whole[2:4].uniform(5)
    np.testing.assert_array_equal(part, other.uniform(5)[2:4])
    assert not (part == first[2:4]).any()
