"""Tests of jobs that are cut into pieces."""

from __future__ import annotations

import threading

import pytest
import torch

from astrogenspec.nn.chunks import map_chunks


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("n", [0, 1, 7, 12])
def test_every_item_is_done_once(threads, n):
    done = torch.zeros(n)

    def count(rows: slice) -> None:
        done[rows] += 1

    map_chunks(count, n, 3, "cpu")
    assert torch.equal(done, torch.ones(n))


def test_pieces_have_a_thread_each(threads):
    seen = set()
    together = threading.Barrier(threads, timeout=10)

    def meet(rows: slice) -> None:
        together.wait()
        seen.add((threading.get_ident(), torch.get_num_threads()))

    map_chunks(meet, threads, 1, "cpu")
    assert len(seen) == threads
    assert {of_torch for _, of_torch in seen} == {1}


def test_number_of_threads_stays(threads):
    map_chunks(lambda rows: None, 10, 2, "cpu")
    assert torch.get_num_threads() == threads


def test_error_reaches_the_caller(threads):
    def fail(rows: slice) -> None:
        if rows.start == 4:
            raise ValueError("the third piece")

    with pytest.raises(ValueError, match="the third piece"):
        map_chunks(fail, 10, 2, "cpu")
    assert torch.get_num_threads() == threads


def test_modes_of_torch_are_those_of_the_caller(threads):
    seen = []
    with torch.inference_mode():
        map_chunks(lambda rows: seen.append(torch.is_inference_mode_enabled()), 4, 1, "cpu")
    map_chunks(lambda rows: seen.append(torch.is_inference_mode_enabled()), 4, 1, "cpu")
    assert seen == [True] * 4 + [False] * 4


def test_only_a_cpu_has_threads(threads):
    seen = set()
    map_chunks(lambda rows: seen.add(threading.get_ident()), 6, 1, "meta")
    assert seen == {threading.get_ident()}
