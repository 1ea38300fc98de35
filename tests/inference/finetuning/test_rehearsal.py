"""Simulated galaxies that are shown again in a fit."""

import h5py
import pytest
import torch
from estimator_cases import make_estimator
from generation_cases import make_columns

from astrogenspec.inference.finetuning.distillation import encode_shards

N = 300


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    with h5py.File(folder / "shard-00000.h5", "w") as file:
        for name, values in make_columns(N).items():
            file[name] = values
    return encode_shards(make_estimator().network, folder, N, seed=3)


def test_all_kinds_of_input_are_rehearsed(encoded):
    inputs = encoded.inputs
    catalogue = inputs.has_photometry & ~inputs.measured
    shares = {
        "both": inputs.has_image & catalogue,
        "photometry": ~inputs.has_image & catalogue,
        "image": inputs.has_image & ~inputs.has_photometry,
        "image, measured": inputs.has_image & inputs.measured,
    }
    found = {name: rows.float().mean().item() for name, rows in shares.items()}
    assert sum(found.values()) == pytest.approx(1)
    assert found == pytest.approx(
        {"both": 0.45, "photometry": 0.2, "image": 0.15, "image, measured": 0.2}, abs=0.09
    )


def test_what_has_no_image_has_no_latent_vector(encoded):
    shown = encoded.inputs.has_image
    assert not encoded.mu[~shown].any() and not encoded.logvar[~shown].any()
    assert (encoded.mu[shown] != 0).any(dim=1).all()


def test_what_the_first_training_held_out_is_left_out(encoded):
    assert 0.9 * N < len(encoded) < N
    assert torch.isfinite(encoded.flux).all() and (encoded.redshift > 0).all()
