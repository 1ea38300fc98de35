"""Named sizes and published configurations."""

import pytest

from astrogenspec.datasets.configurations import (
    PROPERTY_SIZES,
    SPECTRUM_SIZES,
    property_recipe,
    spectrum_recipe,
)
from astrogenspec.generation.network import SpectrumNetwork
from astrogenspec.generation.training import SpectrumRecipe
from astrogenspec.inference.network import PropertyNetwork
from astrogenspec.inference.training import RecipeConfig


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
    recipe = property_recipe(RecipeConfig(seed=4), "small", "images-to-physics")
    assert recipe.seed == 4 and recipe.network["latent_size"] == 32
    assert recipe.image_augmentation.mode_weights == (1.0, 0.0, 0.0, 0.0)
    assert recipe.image_augmentation.full_bands == 1.0


def test_spectrum_of_the_fibre_from_the_image_alone():
    recipe = spectrum_recipe(SpectrumRecipe(), "base", "galaxy-spectroscopy")
    assert recipe.image_augmentation.mode_weights == (0.0, 0.0, 1.0, 0.0)
    assert recipe.fibre_fraction == recipe.no_properties == 1.0


def test_configuration_of_the_other_network():
    with pytest.raises(ValueError, match="for spectra there is only 'galaxy-spectroscopy'"):
        spectrum_recipe(SpectrumRecipe(), "base", "images-to-physics")
