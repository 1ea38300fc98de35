"""Simulated galaxies that are shown again while a network learns from real ones, so that it forgets nothing.

Their images are observed and encoded once, before the training: with an encoder that stays as it is, a step then costs no more
with them than with photometry alone, and thousands of galaxies with images can be rehearsed on a CPU. What is to be said of them
is not their true properties but what the network said before, drawn anew each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from torch import Tensor

from ..preprocessing import ModelInputs
from ..shards import Shards
from .model import PropertyNetwork
from .recipe import RecipeConfig

__all__ = ["EncodedGalaxies", "encode_shards"]

#: Galaxies encoded at once.
_BLOCK = 512
#: Frequency of image and catalogue photometry, photometry only, image only, image and photometry measured on it.
_MODES = (0.45, 0.2, 0.15, 0.2)


@dataclass(frozen=True)
class EncodedGalaxies:
    """Simulated galaxies as a network sees them behind its image encoder.

    Attributes
    ----------
    inputs : ModelInputs
        Without images.
    mu, logvar : Tensor, shape (n, latent_size)
        What the encoder says of the images; zero without image.
    flux : Tensor, shape (n, 5)
        True fluxes [nmgy].
    redshift : Tensor, shape (n,)
        True redshift.
    """

    inputs: ModelInputs
    mu: Tensor
    logvar: Tensor
    flux: Tensor
    redshift: Tensor

    def __len__(self) -> int:
        return len(self.mu)

    @property
    def has_images(self) -> bool:
        """True if any galaxy has an image."""
        return bool(self.inputs.has_image.any())

    def __getitem__(self, rows: Tensor) -> EncodedGalaxies:
        """Select galaxies."""
        return EncodedGalaxies(*(getattr(self, field.name)[rows] for field in fields(self)))

    def to(self, device: torch.device | str) -> EncodedGalaxies:
        """Move every tensor to a device."""
        return EncodedGalaxies(*(getattr(self, field.name).to(device) for field in fields(self)))

    @classmethod
    def concatenate(cls, parts: Sequence[EncodedGalaxies]) -> EncodedGalaxies:
        """Put galaxies behind one another."""
        return cls(
            ModelInputs.concatenate([part.inputs for part in parts]),
            torch.cat([part.mu for part in parts]),
            torch.cat([part.logvar for part in parts]),
            torch.cat([part.flux for part in parts]),
            torch.cat([part.redshift for part in parts]),
        )


@torch.no_grad()
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
    device = network.chain.lower.device
    chosen = torch.randperm(len(shards), generator=generator)[:n_largest]
    parts = []
    for rows in chosen.split(_BLOCK):
        seen = shards.inputs(rows, config, generator)
        mu, logvar = (part.cpu() for part in network.latent(seen.to(device)))
        inputs = ModelInputs(None, None, seen.image_bands, seen.image_noise, seen.photometry)
        flux, redshift = shards.columns["true_flux"][rows], shards.columns["theta"][rows, 0]
        parts.append(EncodedGalaxies(inputs, mu, logvar, flux, redshift))
    return EncodedGalaxies.concatenate(parts)
