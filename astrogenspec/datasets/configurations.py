"""Named sizes of networks, and the configurations of two published methods.

The published methods differ from those of this package, and a configuration brings a training as
close to them as the networks of this package allow; :doc:`real_survey` lists what differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..generation.training import SpectrumRecipe
from ..inference.network import PropertyNetwork
from ..inference.training import RecipeConfig, train_properties
from ..training.augmentation import AugmentationConfig
from ..training.loop import History, TrainingConfig

__all__ = [
    "PROPERTY_SIZES",
    "SPECTRUM_SIZES",
    "property_recipe",
    "spectrum_recipe",
    "train_frozen_encoder",
]

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
#: Image in g, r and i and catalogue of every galaxy.
_IMAGE_AND_CATALOGUE = AugmentationConfig(
    mode_weights=(1.0, 0.0, 0.0, 0.0),
    full_bands=0.0,
    gri_bands=1.0,
    same_bands=0.0,
    whole_catalogue=True,
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
    network |= {"latent_size": 32, "context_size": 256}
    return replace(recipe, network=network, image_augmentation=_IMAGE_AND_CATALOGUE)


def train_frozen_encoder(
    data: Sequence[Path | str], out: Path | str, *, recipe: RecipeConfig, training: TrainingConfig
) -> tuple[PropertyNetwork, History]:
    """Train the autoencoder of the images, then, with it fixed, the rest; or resume.

    Parameters
    ----------
    data : sequence of path
        Folders of shards.
    out : path
        Folder of the checkpoint and of the history; those of the autoencoder are in ``autoencoder``
        in it.
    recipe : RecipeConfig
    training : TrainingConfig
        Each of the two trainings takes half of its steps and of its time.

    Returns
    -------
    network : PropertyNetwork
    history : History
        That of the second training.
    """
    steps, seconds = training.max_steps, training.max_seconds
    half = replace(
        training,
        max_steps=None if steps is None else max(steps // 2, 1),
        max_seconds=None if seconds is None else seconds / 2,
    )
    network, _ = train_properties(
        data, Path(out) / "autoencoder", recipe=replace(recipe, vae_alone=True), training=half
    )
    recipe = replace(recipe, heads_alone=True)
    return train_properties(data, out, recipe=recipe, training=half, network=network)


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
        photometry_batch=0,
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
