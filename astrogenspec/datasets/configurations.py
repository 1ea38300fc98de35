"""Named sizes of networks, and the configurations of two published methods.

The published methods differ from those of this package, and a configuration brings a training as
close to them as the networks of this package allow:

``images-to-physics``
    Siddiqa et al. (arXiv:2511.12737): image and photometry of every galaxy, a latent of 32 numbers,
    no missing inputs.  Published: cutouts of 160 x 160 pixels in g, r and i, an autoencoder that is
    trained first and then frozen, and affine-coupling flows (RealNVP).  Here: 64 x 64 pixels in all
    bands, trained together, and spline flows quantity by quantity.
``galaxy-spectroscopy``
    Doorenbos et al. (2024, ApJ 977, 131): the spectrum of the fibre from the image alone, without
    photometry or properties.  Published: a U-Net of 24.7 million parameters on spectra without
    flux units, 250 steps of the sampler, the best of 25 candidates.  Here: transformers on
    components and details of the spectrum; sample with
    ``SpectrumOptions(n_candidates=25, select="best")``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..generation.training import SpectrumRecipe
from ..inference.training import RecipeConfig
from ..training.augmentation import AugmentationConfig

__all__ = ["PROPERTY_SIZES", "SPECTRUM_SIZES", "property_recipe", "spectrum_recipe"]

#: Items of the configuration of `astrogenspec.inference.network.PropertyNetwork`.
PROPERTY_SIZES: dict[str, dict[str, Any]] = {
    "small": {"latent_size": 16, "context_size": 64, "width": 128, "factor_width": 32},
    "base": {},
    "large": {"latent_size": 64, "context_size": 256, "width": 512, "factor_width": 128},
}
#: Arguments of `astrogenspec.generation.network.SpectrumNetwork`.
SPECTRUM_SIZES: dict[str, dict[str, Any]] = {
    "small": {"width": 64, "depth": 3, "heads": 4, "detail_width": 64, "detail_depth": 3},
    "base": {},
    "large": {
        "width": 256,
        "depth": 8,
        "heads": 8,
        "detail_width": 256,
        "detail_depth": 6,
        "n_continuum": 40,
    },
}
#: Image and catalogue of every galaxy in all bands.
_COMPLETE = AugmentationConfig(
    mode_weights=(1.0, 0.0, 0.0, 0.0), full_bands=1.0, gri_bands=0.0, same_bands=1.0
)
#: Image of every galaxy in all bands, and nothing else.
_IMAGE_ONLY = AugmentationConfig(mode_weights=(0.0, 0.0, 1.0, 0.0), full_bands=1.0, gri_bands=0.0)


def property_recipe(recipe: RecipeConfig, size: str, configuration: str | None) -> RecipeConfig:
    """Apply a size and a published configuration to the training of the property network.

    Parameters
    ----------
    recipe : RecipeConfig
        Settings to start from; items of its ``network`` take precedence.
    size : {"small", "base", "large"}
        Size of the network.
    configuration : {"images-to-physics"} or None
        Published method.

    Returns
    -------
    RecipeConfig

    Raises
    ------
    ValueError
        If the configuration is that of the other network.
    """
    network = PROPERTY_SIZES[size] | recipe.network
    if configuration is None:
        return replace(recipe, network=network)
    _check(configuration, "images-to-physics", "properties")
    return replace(recipe, network=network | {"latent_size": 32}, image_augmentation=_COMPLETE)


def spectrum_recipe(recipe: SpectrumRecipe, size: str, configuration: str | None) -> SpectrumRecipe:
    """Apply a size and a published configuration to the training of the spectrum network.

    Parameters
    ----------
    recipe : SpectrumRecipe
        Settings to start from; items of its ``network`` take precedence.
    size : {"small", "base", "large"}
        Size of the network.
    configuration : {"galaxy-spectroscopy"} or None
        Published method.

    Returns
    -------
    SpectrumRecipe

    Raises
    ------
    ValueError
        If the configuration is that of the other network.
    """
    recipe = replace(recipe, network=SPECTRUM_SIZES[size] | recipe.network)
    if configuration is None:
        return recipe
    _check(configuration, "galaxy-spectroscopy", "spectra")
    return replace(
        recipe,
        image_augmentation=_IMAGE_ONLY,
        fibre_fraction=1.0,
        no_properties=1.0,
        only_redshift=0.0,
        all_properties=0.0,
    )


def _check(configuration: str, known: str, lane: str) -> None:
    if configuration != known:
        raise ValueError(
            f"the configuration is {configuration!r}, but for {lane} there is only {known!r}."
        )
