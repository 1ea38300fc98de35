"""Columns of simulated shards in memory."""

import torch

from astrogenspec.training.augmentation import AugmentationConfig
from astrogenspec.training.shards import Shards


def make_shards(n=10):
    flux = 10 + torch.arange(5.0 * n).view(n, 5)
    radius = torch.ones(n)
    return Shards(
        {
            "true_flux": flux,
            "error": 0.1 * flux,
            "measured_flux": flux,
            "measured_error": flux,
            "image": torch.ones(n, 5, 64, 64),
            "r50": radius,
            "r90": 2 * radius,
            "axis_ratio": radius,
            "theta": torch.arange(float(n)),
        }
    )


def test_the_last_galaxies_are_split_off():
    train, held_out = make_shards().split(0.2)
    assert train.columns["theta"].tolist() == list(range(8))
    assert held_out.columns["theta"].tolist() == [8, 9]


def test_images_and_their_photometry_are_removed():
    shards = make_shards()
    alone = shards.without_images()
    assert shards.has_images and not alone.has_images
    assert set(shards.columns) - set(alone.columns) == {"image", "measured_flux", "measured_error"}


def test_columns_are_dropped():
    shards = make_shards().drop("r50", "not a column")
    assert "r50" not in shards.columns and not shards.has_morphology


def test_labels_are_the_columns_that_are_no_inputs():
    labels = make_shards().labels(torch.tensor([3, 1]))
    assert list(labels) == ["theta"] and labels["theta"].tolist() == [3, 1]


def test_inputs_have_images_only_if_the_shards_do():
    rows, generator = torch.arange(4), torch.Generator().manual_seed(0)
    config = AugmentationConfig(mode_weights=(1.0, 0.0, 0.0, 0.0))
    shards = make_shards()
    assert shards.inputs(rows, config, generator).image is not None
    photometry = shards.without_images().inputs(rows, config, generator)
    assert photometry.image is None and photometry.morphology is not None
