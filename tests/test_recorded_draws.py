"""Bundled weights give the draws that were recorded (``tests/recorded/record.py`` records them)."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parent / "recorded"


def _module():
    spec = importlib.util.spec_from_file_location("record", FOLDER / "record.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def draws():
    record = _module()
    with np.load(FOLDER / "draws.npz") as stored:
        recorded = dict(stored)
    same_machine = str(recorded.pop("fingerprint")) == record.fingerprint()
    return recorded, record.compute(), same_machine


def test_every_mode_is_recorded(draws):
    recorded, computed, _ = draws
    assert set(recorded) == set(computed)
    assert len(recorded) > 40


def test_draws_are_the_recorded_ones(draws):
    """To the last bit on the processor and versions of the record, within rounding elsewhere."""
    recorded, computed, same_machine = draws
    different = []
    for name, expected in recorded.items():
        found = np.asarray(computed[name])
        if same_machine or expected.dtype == bool:
            same = np.array_equal(expected, found, equal_nan=expected.dtype != bool)
        else:
            same = np.allclose(expected, found, rtol=2e-3, atol=1e-4, equal_nan=True)
        if not same:
            different.append(name)
    assert different == []
