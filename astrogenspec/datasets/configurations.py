"""Named sizes of networks, and the configurations of two published methods.

A configuration names the network of a published method, its inputs and its training, as far as they
are known; :doc:`/real_survey` lists what is known, and what was chosen here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..generation.training import SpectrumRecipe
from ..inference import images_to_physics
from ..inference.network import PosteriorNetwork
from ..inference.training import RecipeConfig, train_properties
from ..training.augmentation import AugmentationConfig
from ..training.loop import History, TrainingConfig
from ..training.shards import have_images, image_size

__all__ = [
    "PROPERTY_SIZES",
    "SPECTRUM_SIZES",
    "cutout_size_of",
    "property_recipe",
    "published_training",
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
#: Sizes of `astrogenspec.inference.images_to_physics.ImagesToPhysicsNetwork`; the published one is
#: the default.
_IMAGES_TO_PHYSICS_SIZES: dict[str, dict[str, Any]] = {
    "small": {"context_size": 64, "channels": [8, 16, 32], "coupling_width": 16},
    "base": {},
}
#: Sizes of `astrogenspec.generation.galaxy_spectroscopy.GalaxySpectroscopyNetwork`; likewise.
_GALAXY_SPECTROSCOPY_SIZES: dict[str, dict[str, Any]] = {
    "small": {"widths": [16, 16, 32], "image_widths": [16, 16, 32], "n_steps": 20},
    "base": {},
}
#: Images in g, r and i and catalogue, or, in half of the cases, the catalogue alone.
_IMAGE_AND_CATALOGUE = AugmentationConfig(
    mode_weights=(0.5, 0.5, 0.0, 0.0),
    full_bands=0.0,
    gri_bands=1.0,
    same_bands=0.0,
    whole_catalogue=True,
    max_shift=0,
)
#: The whole catalogue of every galaxy.
_CATALOGUE = AugmentationConfig(full_bands=1.0, gri_bands=0.0)
#: Adam with a constant learning rate.
_ADAM = {"learning_rate": 1e-4, "weight_decay": 0.0, "warmup": 0.0, "final_factor": 1.0}
_OPTIMISERS: dict[str, dict[str, Any]] = {
    "images-to-physics": _ADAM,
    "galaxy-spectroscopy": _ADAM | {"ema_decay": 0.9999},
}
#: Image of every galaxy in all bands, and nothing else.
_IMAGE_ONLY = AugmentationConfig(mode_weights=(0.0, 0.0, 1.0, 0.0), full_bands=1.0, gri_bands=0.0)


def property_recipe(
    recipe: RecipeConfig,
    size: str,
    configuration: str | None,
    cutout_size: int = images_to_physics.CUTOUT_SIZE,
) -> RecipeConfig:
    """Apply a size and a published configuration to the training of the property network.

    Parameters
    ----------
    recipe : RecipeConfig
        Settings to start from; items of its ``network`` take precedence.
    size : {"small", "base", "large"}
        Size of the network.
    configuration : {"images-to-physics"} or None
        Published method.
    cutout_size : int
        Pixels on a side of the images of the published method.

    Returns
    -------
    RecipeConfig

    Raises
    ------
    ValueError
        If the configuration is that of the other network, or has no network of this size.
    """
    if configuration is None:
        return replace(recipe, network=PROPERTY_SIZES[size] | recipe.network)
    _check(configuration, "images-to-physics", "properties")
    network = _size_of(_IMAGES_TO_PHYSICS_SIZES, size, configuration)
    network = {"architecture": configuration, "cutout_size": cutout_size, **network}
    return replace(
        recipe,
        network=network | recipe.network,
        image_augmentation=_IMAGE_AND_CATALOGUE,
        photometry_augmentation=_CATALOGUE,
        # The loss of the images is the mean squared error of a pixel.
        elbo_weight=1 / (3 * cutout_size**2),
        elbo_fraction=1.0,
        warm_kl=1e-6,
    )


def published_training(default: TrainingConfig, configuration: str | None) -> TrainingConfig:
    """Apply the optimiser of a published method to the settings of a training.

    Parameters
    ----------
    default : TrainingConfig
        Settings to start from.
    configuration : str or None
        Published method.

    Returns
    -------
    TrainingConfig
    """
    return replace(default, **_OPTIMISERS.get(configuration or "", {}))


def cutout_size_of(data: Sequence[Path | str]) -> int:
    """Return the size of the images of the published method that all folders have.

    Parameters
    ----------
    data : sequence of path
        Folders of shards, or data sets.

    Returns
    -------
    int
        160, or fewer pixels if images are smaller; a multiple of 8.

    Raises
    ------
    ValueError
        If there are no images.
    """
    sizes = [size for size in map(image_size, data) if size is not None]
    if not sizes:
        raise ValueError("the configuration images-to-physics needs images, but --data has none.")
    return min(images_to_physics.CUTOUT_SIZE, *sizes) // 8 * 8


def train_frozen_encoder(
    data: Sequence[Path | str], out: Path | str, *, recipe: RecipeConfig, training: TrainingConfig
) -> tuple[PosteriorNetwork, History]:
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
    network : PosteriorNetwork
    history : History
        That of the second training.
    """
    steps, seconds = training.max_steps, training.max_seconds
    half = replace(
        training,
        max_steps=None if steps is None else max(steps // 2, 1),
        max_seconds=None if seconds is None else seconds / 2,
    )
    with_images = [folder for folder in data if have_images(folder)]
    all_images = replace(recipe.image_augmentation, mode_weights=(1.0, 0.0, 0.0, 0.0))
    network, _ = train_properties(
        with_images,
        Path(out) / "autoencoder",
        recipe=replace(recipe, vae_alone=True, image_augmentation=all_images),
        training=half,
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
        If the configuration is that of the other network, or has no network of this size.
    """
    if configuration is None:
        return replace(recipe, network=SPECTRUM_SIZES[size] | recipe.network)
    _check(configuration, "galaxy-spectroscopy", "spectra")
    network = _size_of(_GALAXY_SPECTROSCOPY_SIZES, size, configuration)
    network = {"architecture": configuration, **network} | recipe.network
    return replace(
        recipe, network=network, image_augmentation=_IMAGE_ONLY, photometry_batch=0, detail=16
    )


def _size_of(sizes: dict[str, dict[str, Any]], size: str, configuration: str) -> dict[str, Any]:
    if size not in sizes:
        raise ValueError(
            f"the size is {size!r}, but the network of the configuration {configuration} has the "
            f"published size; choose from {', '.join(sizes)}."
        )
    return sizes[size]


def _check(configuration: str, known: str, lane: str) -> None:
    if configuration != known:
        raise ValueError(
            f"the configuration is {configuration!r}, but for {lane} there is only {known!r}."
        )
