"""Training of the property network on small synthetic shards."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from training_cases import NETWORK, RECIPE, TRAINING, make_columns

from astrogenspec.inference.training import (
    PropertyTask,
    make_batch,
    train_properties,
)
from astrogenspec.quantities import QUANTITIES
from astrogenspec.training.shards import Shards


def test_shards_are_read_in_order_and_split_at_the_end(folders):
    shards = Shards.read(folders[0])
    assert len(shards) == 48
    assert shards.has_images
    second = torch.from_numpy(make_columns(24, True, seed=1)["theta"])
    assert torch.equal(shards.columns["theta"][24:], second)
    train, held_out = shards.split(0.25)
    assert (len(train), len(held_out)) == (36, 12)
    assert torch.equal(held_out.columns["theta"], second[12:])


def test_a_folder_without_shards_is_rejected(tmp_path):
    with pytest.raises(FileNotFoundError, match="astrogenspec simulate"):
        Shards.read(tmp_path)


def test_a_missing_column_is_reported(folders):
    with pytest.raises(ValueError, match="have no column continuum; simulate them again"):
        Shards.read(folders[0], labels=("theta", "continuum"))


def test_loss_averages_both_sources(folders):
    from astrogenspec.inference.network import PropertyNetwork

    network = PropertyNetwork.from_config(NETWORK)
    batches = [
        make_batch(Shards.read(folder), torch.arange(12), config, torch.Generator().manual_seed(1))
        for folder, config in zip(
            folders, (RECIPE.image_augmentation, RECIPE.photometry_augmentation), strict=True
        )
    ]
    terms = PropertyTask(RECIPE).loss(network, batches, 0.5)
    terms = {name: float(value.detach()) for name, value in terms.items()}
    assert np.isfinite(terms["total"])
    assert "reconstruction_0" in terms and "reconstruction_1" not in terms
    assert terms["total"] == pytest.approx((terms["total_0"] + terms["total_1"]) / 2, rel=1e-5)


def test_training_writes_its_files_and_resumes(folders, tmp_path):
    whole, history = train_properties(folders, tmp_path / "whole", recipe=RECIPE, training=TRAINING)
    assert (tmp_path / "whole" / "checkpoint.pt").exists()
    assert (tmp_path / "whole" / "history.ecsv").exists()
    assert history.stopped == "steps"
    assert history.rows[-1]["step"] == 4
    again, resumed = train_properties(
        folders, tmp_path / "whole", recipe=RECIPE, training=replace(TRAINING, max_steps=6)
    )
    assert resumed.rows[-1]["step"] == 6
    assert not all(
        torch.equal(a, b)
        for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True)
    )


def test_training_is_reproducible(folders, tmp_path):
    states = [
        train_properties(folders, tmp_path / name, recipe=RECIPE, training=TRAINING)[0].state_dict()
        for name in ("a", "b")
    ]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_labels_are_standardised(folders, tmp_path):
    network, _ = train_properties(folders, tmp_path / "run", recipe=RECIPE, training=TRAINING)
    theta = Shards.read(folders[0]).split(RECIPE.held_out)[0].columns["theta"]
    mass = list(QUANTITIES).index("stellar_mass")
    y, _ = network.chain.standardise(theta)
    assert y[:, mass].mean().abs() < 1e-3
    assert y[:, mass].std() == pytest.approx(1, abs=1e-3)


def test_morphology_is_used_if_shards_contain_it(folders, tmp_path):
    network, _ = train_properties(folders, tmp_path / "sized", recipe=RECIPE, training=TRAINING)
    assert network.heads[0].structure_layer.weight.abs().max() > 0
    for folder in folders:
        for path in folder.glob("*.h5"):
            with h5py.File(path, "a") as file:
                del file["r50"]
    network, _ = train_properties(folders, tmp_path / "without", recipe=RECIPE, training=TRAINING)
    assert not network.heads[0].structure_layer.weight.any()


def test_training_heads_alone_keeps_the_encoder_and_standardisation(folders, tmp_path):
    before, _ = train_properties(folders, tmp_path / "first", recipe=RECIPE, training=TRAINING)
    kept = {name: value.clone() for name, value in before.state_dict().items()}
    after, history = train_properties(
        folders,
        tmp_path / "second",
        recipe=replace(RECIPE, heads_alone=True),
        training=TRAINING,
        network=before,
    )
    changed = {
        name for name, value in after.state_dict().items() if not torch.equal(value, kept[name])
    }
    trained = {name for name, _ in after.named_parameters() if name.startswith("heads.")}
    assert changed and changed <= trained
    assert any("context_network" in name for name in changed)
    assert all(torch.equal(value, kept[name]) for name, value in before.state_dict().items())
    assert all(parameter.requires_grad for parameter in after.parameters())
    assert history.stopped == "steps" and "train_reconstruction_0" not in history.rows[-1]


def test_training_heads_alone_requires_a_trained_network(folders, tmp_path):
    with pytest.raises(ValueError, match="requires a trained network"):
        train_properties(folders, tmp_path, recipe=replace(RECIPE, heads_alone=True))


def test_encoded_batches_give_the_same_contexts(folders):
    from astrogenspec.inference.network import PropertyNetwork
    from astrogenspec.inference.training import encode_galaxies

    network = PropertyNetwork.from_config(NETWORK).eval()
    shards, rows = Shards.read(folders[0]), torch.arange(12)
    config = RECIPE.image_augmentation
    seen = encode_galaxies(network, shards, rows, config, torch.Generator().manual_seed(5))
    batch = make_batch(shards, rows, config, torch.Generator().manual_seed(5))
    with torch.no_grad():
        contexts = network.contexts(batch.inputs).vectors
        encoded = network.contexts(seen.inputs, seen.latent).vectors
    torch.testing.assert_close(encoded, contexts)
    assert torch.equal(seen.theta, batch.theta) and torch.equal(seen.measurable, batch.measurable)
