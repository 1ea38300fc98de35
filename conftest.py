"""Fixtures of all tests and doctests: no display or user settings, seeds, state of torch kept."""

import os
import tempfile
from pathlib import Path

# Set before astropy is imported, so that neither settings nor cache of the user are touched.
_FOLDER = tempfile.TemporaryDirectory(prefix="astrogenspec-tests-")
for _name in (
    "XDG_CONFIG_HOME",
    "XDG_CACHE_HOME",
    "ASTROPY_CONFIG_DIR",
    "ASTROPY_CACHE_DIR",
    "MPLCONFIGDIR",
):
    os.environ[_name] = _FOLDER.name
# Before version 8, astropy uses these folders only if they exist.
(Path(_FOLDER.name) / "astropy").mkdir()
os.environ["MPLBACKEND"] = "Agg"
os.environ.pop("ASTROGENSPEC_WEIGHTS_URL", None)

import numpy as np  # noqa: E402
import pytest  # noqa: E402

collect_ignore = ["docs/conf.py"]


@pytest.fixture(autouse=True)
def _seeds():
    """Seed the global generators; that of torch is restored afterwards."""
    import torch

    np.random.seed(0)  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture(autouse=True)
def _torch_state(_seeds):
    """Fail a test that changes the global state of torch."""
    import torch
    import zuko  # noqa: F401  its import disables the validation of distributions

    def state():
        return {
            "default dtype": torch.get_default_dtype(),
            "gradients enabled": torch.is_grad_enabled(),
            "validation of distributions": torch.distributions.Distribution._validate_args,
            "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
            "number of threads": torch.get_num_threads(),
            "default device": torch.get_default_device(),
        }

    before = state()
    yield
    changed = [name for name, value in state().items() if value != before[name]]
    assert not changed, f"the test changed torch's global state: {', '.join(changed)}"


@pytest.fixture(autouse=True)
def _close_figures():
    """Close figures that a test leaves open."""
    yield
    import sys

    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
