"""The training recipe that both networks share, with a linear model."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from astrogenspec.training.augmentation import AugmentationConfig
from astrogenspec.training.loop import TrainingConfig
from astrogenspec.training.recipe import ShardSource, TrainingRecipe, TrainingTask, train
from astrogenspec.training.shards import Shards

RECIPE = TrainingRecipe(image_batch=4, photometry_batch=4, validation_size=6, seed=1)
CONFIG = TrainingConfig(max_steps=4, validate_every=2, learning_rate=0.1, quiet=True)


def make_shards(n, slope):
    flux = torch.linspace(1, 2, n)[:, None]
    return Shards({"true_flux": flux, "error": 0.1 * flux, "label": slope * flux})


def make_sources():
    return [
        ShardSource(make_shards(20, slope), make_shards(8, slope), AugmentationConfig(), 4)
        for slope in (2.0, 3.0)
    ]


class LinearTask(TrainingTask):
    n_validation_batches = 2

    def make_batch(self, shards, indices, augmentation, generator):
        flux = shards.columns["true_flux"][indices]
        noise = 0.01 * torch.randn(flux.shape, generator=generator)
        return flux + noise, shards.labels(indices)["label"]

    def batch_loss(self, network, batch, source, progress):
        flux, label = batch
        error = (network(flux) - label).square().mean()
        return {"total": error, "progress": torch.tensor(progress + source)}


def make_network():
    torch.manual_seed(0)
    return nn.Linear(1, 1)


def test_loss_is_the_mean_over_sources():
    batches = [(torch.ones(2, 1), torch.full((2, 1), label)) for label in (1.0, 3.0)]
    terms = LinearTask(RECIPE).loss(make_network(), batches, 0.25)
    assert set(terms) == {"total", "total_0", "total_1", "progress_0", "progress_1"}
    terms = {name: float(value.detach()) for name, value in terms.items()}
    assert terms["total"] == pytest.approx((terms["total_0"] + terms["total_1"]) / 2)
    assert (terms["progress_0"], terms["progress_1"]) == (0.25, 1.25)


def test_validation_batches_are_limited_and_reproducible():
    task, source = LinearTask(RECIPE), make_sources()[0]
    first, again = task.validation_batches(source), task.validation_batches(source)
    assert [len(flux) for flux, _ in first] == [3, 3]
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first, again, strict=True))
    other = task.validation_batches(replace(source, validation_seed=3))
    assert not torch.equal(first[0][0], other[0][0])


def test_training_writes_its_files_and_resumes(tmp_path):
    task, sources = LinearTask(RECIPE), make_sources()
    first = train(task, make_network(), sources, tmp_path, replace(CONFIG, max_steps=2))
    assert first.stopped == "steps" and [row["step"] for row in first.rows] == [2]
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint.pt", "history.ecsv"}
    resumed = train(task, nn.Linear(1, 1), sources, tmp_path, CONFIG)
    assert resumed.rows[:1] == first.rows and resumed.rows[-1]["step"] == 4


def test_the_seed_selects_the_batches(tmp_path):
    weights = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        network = make_network()
        train(
            LinearTask(replace(RECIPE, seed=seed)), network, make_sources(), tmp_path / name, CONFIG
        )
        weights.append(network.weight.item())
    assert weights[0] == weights[1] != weights[2]
