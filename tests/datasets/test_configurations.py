"""Named sizes and published configurations."""

from dataclasses import replace

import h5py
import pytest
import torch
from astropy.table import QTable
from training_cases import RECIPE, TRAINING, make_columns, make_observed, write_real

from astrogenspec.datasets.configurations import (
    PROPERTY_SIZES,
    SPECTRUM_SIZES,
    property_recipe,
    spectrum_recipe,
    train_frozen_encoder,
)
from astrogenspec.generation.network import SpectrumNetwork
from astrogenspec.generation.training import SpectrumRecipe
from astrogenspec.inference.network import PropertyNetwork
from astrogenspec.inference.training import RecipeConfig
from astrogenspec.training.shards import Shards


def n_parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_sizes_are_ordered_and_base_is_the_default():
    properties = [n_parameters(PropertyNetwork.from_config(c)) for c in PROPERTY_SIZES.values()]
    assert properties == sorted(properties) and len(set(properties)) == 3
    assert properties[1] == n_parameters(PropertyNetwork())
    spectra = [n_parameters(SpectrumNetwork(**c)) for c in SPECTRUM_SIZES.values()]
    assert spectra == sorted(spectra) and len(set(spectra)) == 3
    assert spectra[1] == n_parameters(SpectrumNetwork())


def test_given_items_of_the_network_take_precedence():
    recipe = property_recipe(RecipeConfig(network={"width": 99}), "large", None)
    assert recipe.network == PROPERTY_SIZES["large"] | {"width": 99}
    assert recipe.image_augmentation == RecipeConfig().image_augmentation


def test_image_and_photometry_of_every_galaxy():
    recipe = property_recipe(RecipeConfig(seed=4), "base", "images-to-physics")
    assert recipe.seed == 4 and recipe.elbo_weight == pytest.approx(1 / 76800)
    assert recipe.network == {"architecture": "images-to-physics", "cutout_size": 160}
    assert recipe.image_augmentation.mode_weights == (0.5, 0.5, 0.0, 0.0)
    assert recipe.image_augmentation.gri_bands == 1.0
    assert recipe.image_augmentation.whole_catalogue


def test_images_in_three_bands_and_the_whole_catalogue(tmp_path):
    write_real(tmp_path / "shard-00000.h5", make_observed(6))
    recipe = property_recipe(RecipeConfig(), "small", "images-to-physics")
    generator = torch.Generator().manual_seed(0)
    real = Shards.read(tmp_path)
    with_images = replace(recipe.image_augmentation, mode_weights=(1.0, 0.0, 0.0, 0.0))
    inputs = real.inputs(torch.arange(6), with_images, generator)
    assert inputs.image_bands.tolist() == [[0, 1, 1, 1, 0]] * 6
    # The galaxies of the second half have no z.
    assert inputs.photometry_bands.tolist() == [[1] * 5] * 3 + [[1, 1, 1, 1, 0]] * 3


def test_autoencoder_first_then_frozen(tmp_path):
    (tmp_path / "data").mkdir()
    with h5py.File(tmp_path / "data" / "shard-00000.h5", "w") as file:
        for name, values in make_columns(40, True).items():
            file[name] = values
    config = replace(TRAINING, max_steps=6)
    network, history = train_frozen_encoder(
        [tmp_path / "data"], tmp_path / "out", recipe=RECIPE, training=config
    )
    assert history.rows[-1]["step"] == 3 and "train_reconstruction_0" not in history.rows[-1]
    first = QTable.read(tmp_path / "out" / "autoencoder" / "history.ecsv")
    assert first["step"][-1] == 3
    # Flows do not count in the first training, apart from the map of properties to latents.
    terms = [first[f"train_{name}_0"][-1] for name in ("total", "flow", "measurable")]
    assert terms[1] == 0 and terms[2] == 0 and terms[0] > 0
    stored = torch.load(tmp_path / "out" / "autoencoder" / "checkpoint.pt", weights_only=True)
    state = network.state_dict()
    encoder = {n: v for n, v in stored["best"].items() if n.startswith("vae.")}
    assert encoder and all(torch.equal(state[name], value) for name, value in encoder.items())
    assert any(
        not torch.equal(state[name], value)
        for name, value in stored["best"].items()
        if name.startswith("heads.") and value.is_floating_point()
    )


def test_configuration_of_the_other_network():
    with pytest.raises(ValueError, match="for spectra there is only 'galaxy-spectroscopy'"):
        spectrum_recipe(SpectrumRecipe(), "base", "images-to-physics")
