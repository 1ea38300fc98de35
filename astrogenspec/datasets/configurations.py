r"""Named sizes of networks, and the configurations of two published methods.

The published methods differ from those of this package, and a configuration brings a training as
close to them as the networks of this package allow.  What is said of the methods rests on the
papers' abstracts and on published notes and code, not on all details of the papers.

``images-to-physics`` (Siddiqa et al., arXiv:2511.12737):

========================  ======================================  ==================================
\                         published                               here
========================  ======================================  ==================================
images                    g, r, i; 160 x 160 pixels               g, r, i; 64 x 64 (25 arcsec)
autoencoder               3 convolutions, 32 latents              4 convolutions, 32 latents
its loss                  mean squared error and divergence       noise-weighted likelihood and
                                                                  divergence
order of training         autoencoder, then frozen                the same: half of the time each
photometry                4 colours and one magnitude             magnitudes in ugriz with errors
context                   256 numbers                             256 numbers
mass, star formation,     mean, and 12 affine couplings           spline flows, quantity by quantity
redshift, black hole      (RealNVP) of 4 numbers
gas metallicity           flow of one number                      spline flow of one number
measurable metallicity    sigmoid                                 sigmoid
lines                     RealNVP of log(1 + flux)                spline flows of log flux, detected
                                                                  lines only
optimiser                 Adam, 1e-4                              AdamW with a schedule
missing inputs            none                                    none
========================  ======================================  ==================================

``galaxy-spectroscopy`` (Doorenbos et al. 2024, ApJ 977, 131):

========================  ======================================  ==================================
\                         published                               here
========================  ======================================  ==================================
inputs                    images in ugriz, 64 x 64 pixels         the same, and nothing else
spectra                   observed frame, 4000 to 8500 Angstrom,  rest frame, 2500 to 10900 A,
                          shape only                              with fluxes
noise                     observed spectra as they are            draws of noise-free spectra
network                   U-Net, 24.7 million parameters          transformers, 4.0 (``base``) or 16
                                                                  million (``large``) parameters
low resolution            every 8th point, diffusion              principal components, diffusion
super-resolution          diffusion of the whole spectrum         diffusion of the detail
sampler                   250 steps                               10 and 4 steps of second order;
                                                                  ``low_steps`` and ``high_steps``
                                                                  of `SamplerSettings`
candidates                25, two contrastive networks            ``SpectrumOptions(n_candidates=25,
                                                                  select="best")``
========================  ======================================  ==================================
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
