"""Fixtures of the tests of inference."""

import h5py
import pytest
from training_cases import make_columns


@pytest.fixture
def folders(tmp_path):
    for name, images in (("images", True), ("photometry", False)):
        (tmp_path / name).mkdir()
        for k in range(2):
            with h5py.File(tmp_path / name / f"shard-{k:05d}.h5", "w") as file:
                for key, values in make_columns(24, images, seed=k).items():
                    file[key] = values
    return [tmp_path / "images", tmp_path / "photometry"]
