"""Simulated galaxies behind the image encoder of a network.

Their images are observed and encoded once: with an encoder that stays as it is, a step of the training then costs no more with
them than with photometry alone.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..inputs.features import ModelInputs
from ..nn.records import TensorRecord
from ..quantities import QUANTITIES
from ..training.augmentation import AugmentationConfig
from ..training.loop import BatchStream, History, TrainingConfig, ZippedStreams, fit
from ..training.shards import Shards
from .network import PropertyNetwork

__all__ = [
    "DEFAULT_TRAINING",
    "EncodedGalaxies",
    "RecipeConfig",
    "TrainingBatch",
    "encode_galaxies",
    "make_batch",
    "make_loss",
    "train_properties",
]

#: Galaxies encoded at once.
_BLOCK = 512


@dataclass(frozen=True)
class EncodedGalaxies(TensorRecord):
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

    def catalogue_only(self) -> EncodedGalaxies:
        """Hide the images, and leave out galaxies without photometry of a catalogue."""
        inputs = self.inputs
        kept = self[(inputs.has_photometry & ~inputs.measured).nonzero()[:, 0]]
        prior = torch.zeros_like(kept.mu)
        return replace(kept, inputs=kept.inputs.without_images(), mu=prior, logvar=prior)


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
            None, None, seen.image_bands, seen.image_noise, seen.photometry, seen.morphology
        )
        labels = shards.labels(some)
        flux = shards.columns["true_flux"][some]
        parts.append(
            EncodedGalaxies(inputs, mu, logvar, flux, labels["theta"], labels["measurable"].float())
        )
    return EncodedGalaxies.concatenate(parts)


#: Settings of the training loop; give it an end with `dataclasses.replace`.
DEFAULT_TRAINING = TrainingConfig(max_seconds=7200, learning_rate=1.2e-3, validate_every=400)
_METALLICITY = tuple(QUANTITIES).index("gas_metallicity")
_VALIDATION_BATCHES = 6


@dataclass(frozen=True)
class RecipeConfig:
    """Settings of `train_properties`.

    Attributes
    ----------
    image_batch, photometry_batch : int
        Galaxies of each kind in a step; all of them, if there are fewer.
    held_out : float
        Fraction of the shards, the last ones, that are kept for validation.
    validation_size : int
        Galaxies of each kind in a validation.
    elbo_weight, kl_weight : float
        Weight of the evidence lower bound (per galaxy) against the flows, and of the divergence inside it.
    elbo_fraction : float
        Fraction of the images that are decoded at each step.
    warm_kl : float
        Fraction of the training in which the divergence is turned on.
    image_augmentation, photometry_augmentation : AugmentationConfig
    heads_alone : bool
        Train a network that was trained before, and of it the heads alone.
    photometry_alone : bool
        Train a head for galaxies without images beside those of a network that was trained before, which stay as they are.
        It begins as the one there is, or as a copy of the first head.
    views : int
        How often the images of each galaxy are observed and encoded, before the training of heads alone.
    network : dict
        Arguments of `PropertyNetwork`; not used for a network that was trained before.
    seed : int
    """

    image_batch: int = 128
    photometry_batch: int = 768
    held_out: float = 0.04
    validation_size: int = 3000
    elbo_weight: float = 2e-4
    kl_weight: float = 1.0
    elbo_fraction: float = 0.5
    warm_kl: float = 0.1
    image_augmentation: AugmentationConfig = field(
        default_factory=lambda: AugmentationConfig(mode_weights=(0.55, 0.0, 0.2, 0.25))
    )
    photometry_augmentation: AugmentationConfig = field(
        default_factory=lambda: AugmentationConfig(full_bands=0.65, gri_bands=0.15)
    )
    heads_alone: bool = False
    photometry_alone: bool = False
    views: int = 2
    network: dict[str, Any] = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True)
class TrainingBatch(TensorRecord):
    """Network inputs with their labels.

    Attributes
    ----------
    inputs : ModelInputs
    theta : Tensor, shape (n, 9)
    measurable : Tensor, shape (n,)
        1 where the gas metallicity can be measured, else 0.
    latent : tuple of Tensor, shape (n, latent_size) each, or None
        What the encoder says of the images, if they are encoded already.
    """

    inputs: ModelInputs
    theta: Tensor
    measurable: Tensor
    latent: tuple[Tensor, Tensor] | None = None


def make_batch(
    shards: Shards, indices: Tensor, config: AugmentationConfig, generator: torch.Generator
) -> TrainingBatch:
    """Make augmented inputs of some galaxies, with their labels."""
    inputs = shards.inputs(indices, config, generator)
    labels = shards.labels(indices)
    return TrainingBatch(inputs, labels["theta"], labels["measurable"].float())


def make_loss(config: RecipeConfig):
    """Make the loss function of `astrogenspec.training.loop.fit` for lists of batches."""

    def loss(
        network: PropertyNetwork, batches: Sequence[TrainingBatch], progress: float
    ) -> dict[str, Tensor]:
        kl_weight = config.kl_weight * min(1.0, progress / config.warm_kl)
        parts = [_batch_terms(network, batch, kl_weight, config) for batch in batches]
        terms = {
            f"{name}_{k}": value for k, part in enumerate(parts) for name, value in part.items()
        }
        terms["total"] = torch.stack([part["total"] for part in parts]).mean()
        return terms

    return loss


def _batch_terms(
    network: PropertyNetwork, batch: TrainingBatch, kl_weight: float, config: RecipeConfig
) -> dict[str, Tensor]:
    valid = torch.isfinite(batch.theta)
    valid[:, _METALLICITY] &= batch.measurable > 0.5
    generator = None
    if not network.training:
        generator = torch.Generator(batch.theta.device).manual_seed(0)
    return network.loss(
        batch.inputs,
        batch.theta,
        valid,
        batch.measurable,
        latent=batch.latent,
        kl_weight=kl_weight,
        elbo_weight=config.elbo_weight,
        elbo_fraction=config.elbo_fraction if network.training else 1.0,
        generator=generator,
    )


def train_properties(
    data: Sequence[Path | str],
    out: Path | str,
    *,
    recipe: RecipeConfig | None = None,
    training: TrainingConfig | None = None,
    network: PropertyNetwork | None = None,
) -> tuple[PropertyNetwork, History]:
    """Train the network of the properties.

    Parameters
    ----------
    data : sequence of path
        Folders of shards (see `astrogenspec.simulate.write_shards`), with images or with photometry alone.
    out : path
        Folder for the checkpoint (``checkpoint.pt``), from which an interrupted training goes on, and the history
        (``history.ecsv``).
    recipe : RecipeConfig, optional
    training : TrainingConfig, optional
        `DEFAULT_TRAINING` by default.
    network : PropertyNetwork, optional
        A trained one to go on from, which is not changed; its scales stay.

    Returns
    -------
    network : PropertyNetwork
        With the averaged weights of the best validation.
    history : History

    Raises
    ------
    ValueError
        If a part alone is to be trained, but there is no trained network.
    """
    recipe = recipe or RecipeConfig()
    training = training or DEFAULT_TRAINING
    for name in ("heads_alone", "photometry_alone"):
        if getattr(recipe, name) and network is None:
            raise ValueError(
                f"{name} is for a network that was trained before: give it, or train all of a new one."
            )
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    parts = [_read(folder, recipe).split(recipe.held_out) for folder in data]
    if network is None:
        network = PropertyNetwork(**recipe.network)
        _standardise(network, parts[0][0])
    whole = network = copy.deepcopy(network).to(training.device)
    if recipe.photometry_alone:
        network = whole.extract_head(next(iter(whole.photometry_heads), 0))
    if recipe.heads_alone or recipe.photometry_alone:
        network.vae.requires_grad_(False)
        network.latent_of_properties.requires_grad_(False)
    streams, validation = [], []
    for k, (shards, held_out) in enumerate(parts):
        images = shards.has_images
        config = recipe.image_augmentation if images else recipe.photometry_augmentation
        size = min(recipe.image_batch if images else recipe.photometry_batch, len(shards))
        encoder = network if recipe.heads_alone and images else None
        streams.append(_stream(shards, config, size, recipe.views, recipe.seed + k, encoder))
        validation.append(_fixed_batches(held_out, config, recipe.validation_size))
    history = fit(
        network,
        ZippedStreams(streams),
        [list(batches) for batches in zip(*validation, strict=True)],
        replace(training, checkpoint=out / "checkpoint.pt"),
        make_loss(recipe),
    )
    history.write(out / "history.ecsv")
    if recipe.photometry_alone:
        others = [whole.extract_head(k) for k in range(whole.config["members"])]
        network = whole.with_heads(others, [network])
    return network.requires_grad_(True), history


def _read(folder: Path | str, recipe: RecipeConfig) -> Shards:
    shards = Shards.read(folder)
    return shards.without_images() if recipe.photometry_alone else shards


def _stream(
    shards: Shards,
    config: AugmentationConfig,
    size: int,
    views: int,
    seed: int,
    encoder: PropertyNetwork | None,
) -> BatchStream:
    """Batches of galaxies that are observed anew each time, or of so many views of each that the encoder saw before."""
    if encoder is None:
        return BatchStream(
            lambda rows, generator: make_batch(shards, rows, config, generator),
            len(shards),
            size,
            seed=seed,
        )
    rows = torch.arange(len(shards)).repeat(views)
    pool = encode_galaxies(encoder, shards, rows, config, torch.Generator().manual_seed(seed))
    return BatchStream(lambda rows, generator: _encoded(pool[rows]), len(pool), size, seed=seed)


def _encoded(seen: EncodedGalaxies) -> TrainingBatch:
    return TrainingBatch(seen.inputs, seen.theta, seen.measurable, seen.latent)


def _fixed_batches(shards: Shards, config: AugmentationConfig, n: int) -> list[TrainingBatch]:
    """Batches with frozen augmentation, the same at each validation."""
    generator = torch.Generator().manual_seed(20)
    indices = torch.arange(min(n, len(shards)))
    return [
        make_batch(shards, part, config, generator) for part in indices.chunk(_VALIDATION_BATCHES)
    ]


def _standardise(network: PropertyNetwork, shards: Shards) -> None:
    theta = shards.columns["theta"]
    valid = torch.isfinite(theta)
    valid[:, _METALLICITY] &= shards.columns["measurable"]
    network.set_standardisation(theta, valid)
