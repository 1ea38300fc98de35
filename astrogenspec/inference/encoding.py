"""Simulated galaxies behind the image encoder of a network.

Their images are observed and encoded once: with an encoder that stays as it is, a step of the training then costs no more with
them than with photometry alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from ..augmentation import AugmentationConfig
from ..preprocessing import ModelInputs
from ..shards import Shards
from .model import PropertyNetwork

__all__ = ["EncodedGalaxies", "encode_galaxies"]

#: Galaxies encoded at once.
_BLOCK = 512


@dataclass(frozen=True)
class EncodedGalaxies:
    """Simulated galaxies as the heads of a network see them.

    Attributes
    ----------
    inputs : ModelInputs
        Without images.
    mu, logvar : Tensor, shape (n, latent_size)
        What the encoder says of the images; zero without image.
    flux : Tensor, shape (n, 5)
        True fluxes [nmgy].
    theta : Tensor, shape (n, 9)
        True quantities.
    measurable : Tensor, shape (n,)
        1 where the gas metallicity can be measured, else 0.
    """

    inputs: ModelInputs
    mu: Tensor
    logvar: Tensor
    flux: Tensor
    theta: Tensor
    measurable: Tensor

    def __len__(self) -> int:
        return len(self.mu)

    @property
    def latent(self) -> tuple[Tensor, Tensor]:
        """``mu`` and ``logvar``."""
        return self.mu, self.logvar

    @property
    def redshift(self) -> Tensor:
        """True redshifts, shape (n,)."""
        return self.theta[:, 0]

    @property
    def has_images(self) -> bool:
        """True if any galaxy has an image."""
        return bool(self.inputs.has_image.any())

    def __getitem__(self, rows: Tensor) -> EncodedGalaxies:
        """Select galaxies."""
        return EncodedGalaxies(*(getattr(self, field.name)[rows] for field in fields(self)))

    def of_catalogue(self) -> EncodedGalaxies:
        """Hide the images, and leave out galaxies without photometry of a catalogue."""
        inputs = self.inputs
        kept = self[(inputs.has_photometry & ~inputs.measured).nonzero()[:, 0]]
        prior = torch.zeros_like(kept.mu)
        return replace(kept, inputs=kept.inputs.without_images(), mu=prior, logvar=prior)

    def to(self, device: torch.device | str) -> EncodedGalaxies:
        """Move every tensor to a device."""
        return EncodedGalaxies(*(getattr(self, field.name).to(device) for field in fields(self)))

    @classmethod
    def concatenate(cls, parts: Sequence[EncodedGalaxies]) -> EncodedGalaxies:
        """Put galaxies behind one another."""
        inputs = ModelInputs.concatenate([part.inputs for part in parts])
        names = [field.name for field in fields(cls)][1:]
        return cls(inputs, *(torch.cat([getattr(p, name) for p in parts]) for name in names))


@torch.no_grad()
def encode_galaxies(
    network: PropertyNetwork,
    shards: Shards,
    rows: Tensor,
    config: AugmentationConfig,
    generator: torch.Generator,
) -> EncodedGalaxies:
    """Observe galaxies once and encode their images.

    Parameters
    ----------
    network : PropertyNetwork
        Whose encoder will not change.
    shards : Shards
        With labels ``theta`` and ``measurable``.
    rows : Tensor of int, shape (n,)
        Which galaxies.
    config : AugmentationConfig
    generator : `torch.Generator`
        Source of the noise and of what is hidden.

    Returns
    -------
    EncodedGalaxies
    """
    device = network.chain.lower.device
    parts = []
    for some in rows.split(_BLOCK):
        seen = shards.inputs(some, config, generator)
        mu, logvar = (part.cpu() for part in network.latent(seen.to(device)))
        inputs = ModelInputs(
            None, None, seen.image_bands, seen.image_noise, seen.photometry, seen.structure
        )
        labels = shards.labels(some)
        flux = shards.columns["true_flux"][some]
        parts.append(
            EncodedGalaxies(inputs, mu, logvar, flux, labels["theta"], labels["measurable"].float())
        )
    return EncodedGalaxies.concatenate(parts)
