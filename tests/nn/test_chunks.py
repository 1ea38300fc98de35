"""Chunks of a job in threads."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading
from pathlib import Path

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
def test_every_item_is_processed_once(threads, n):
    done = torch.zeros(n)

    def count(rows: slice) -> None:
        done[rows] += 1

    map_chunks(count, n, 3, "cpu")
    assert torch.equal(done, torch.ones(n))


def test_chunks_run_in_parallel_threads(threads):
    seen = set()
    together = threading.Barrier(threads, timeout=10)

    def meet(rows: slice) -> None:
        together.wait()
        seen.add((threading.get_ident(), torch.get_num_threads()))

    map_chunks(meet, threads, 1, "cpu")
    assert len(seen) == threads
    assert {torch_threads for _, torch_threads in seen} == {1}


def test_number_of_torch_threads_is_restored(threads):
    map_chunks(lambda rows: None, 10, 2, "cpu")
    assert torch.get_num_threads() == threads


def test_error_reaches_the_caller(threads):
    def fail(rows: slice) -> None:
        if rows.start == 4:
            raise ValueError("the third chunk")

    with pytest.raises(ValueError, match="the third chunk"):
        map_chunks(fail, 10, 2, "cpu")
    assert torch.get_num_threads() == threads


def test_inference_mode_is_that_of_the_caller(threads):
    seen = []
    with torch.inference_mode():
        map_chunks(lambda rows: seen.append(torch.is_inference_mode_enabled()), 4, 1, "cpu")
    map_chunks(lambda rows: seen.append(torch.is_inference_mode_enabled()), 4, 1, "cpu")
    assert seen == [True] * 4 + [False] * 4


def test_other_devices_use_the_calling_thread(threads):
    seen = set()
    map_chunks(lambda rows: seen.add(threading.get_ident()), 6, 1, "meta")
    assert seen == {threading.get_ident()}


PREDICT_IN_FORKED_PROCESSES = """
import multiprocessing, sys
sys.path.insert(0, sys.argv[1])
import torch
from estimator_cases import draws_of, make_cutouts, make_photometry
from spectrum_estimator_cases import predict
from astrogenspec import PropertyEstimator, SpectrumEstimator
properties, spectra = PropertyEstimator.from_pretrained(), SpectrumEstimator.from_pretrained()
def results(_):
    inputs = make_cutouts(3), make_photometry(3)
    draws = draws_of(properties.predict(*inputs, n_draws=200, seed=1))
    return draws.tobytes(), predict(spectra, *inputs, n_draws=2).flux.value.tobytes()
torch.set_num_threads(1)
expected = results(None)
torch.set_num_threads(2)
results(None)
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map(results, range(2)) == [expected] * 2
assert torch.get_num_threads() == 2
"""


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="the system cannot fork"
)
def test_predictions_in_forked_processes_after_a_prediction():
    tests = Path(__file__).parents[1]
    command = [sys.executable, "-W", "ignore", "-c", PREDICT_IN_FORKED_PROCESSES, str(tests)]
    subprocess.run(command, timeout=240, check=True)
