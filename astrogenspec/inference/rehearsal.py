"""Simulated galaxies that are shown again while a network learns from real ones, so that it forgets nothing.

What is to be said of them is not their true properties but what the network said before, drawn anew each time; see
`astrogenspec.inference.replay`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from ..shards import Shards
from .encoding import EncodedGalaxies, encode_galaxies
from .model import PropertyNetwork
from .recipe import RecipeConfig

__all__ = ["encode_shards"]

#: Frequency of image and catalogue photometry, photometry only, image only, image and photometry measured on it.
_MODES = (0.45, 0.2, 0.15, 0.2)


def encode_shards(
    network: PropertyNetwork, folder: str | Path, n_largest: int, seed: int
) -> EncodedGalaxies:
    """Observe and encode galaxies of a folder of shards, as in the first training; of some, their photometry alone.

    Parameters
    ----------
    network : PropertyNetwork
        Whose encoder will not change.
    folder : path
        Shards of `astrogenspec.simulate.write_shards`, with images or with photometry alone. What the first training
        holds out is left out here too.
    n_largest : int
        Most galaxies to take.
    seed : int
        Of the choice, the noise and what is hidden.

    Returns
    -------
    EncodedGalaxies
    """
    recipe = RecipeConfig()
    shards = Shards.read(folder).split(recipe.held_out)[0]
    config = recipe.photometry_augmentation
    if shards.has_images:
        config = replace(recipe.image_augmentation, mode_weights=_MODES)
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(shards), generator=generator)[:n_largest]
    return encode_galaxies(network, shards, chosen, config, generator)
