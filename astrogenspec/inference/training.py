"""Training of the property network on simulated shards.

The loss is that of `astrogenspec.inference.network.PosteriorNetwork.loss`: the negative log density
of the true quantities and the weighted evidence lower bound of the images, whose divergence is
switched on during the first steps (KL annealing).  Gas metallicities are labels only where they are
measurable.

With a fixed encoder, images are observed and encoded once (`encode_galaxies`), so that a step costs
no more with images than with photometry only.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from ..inputs.features import ModelInputs
from ..nn.precision import single_precision
from ..nn.records import TensorRecord
from ..quantities import QUANTITIES, quantity_index
from ..training.augmentation import AugmentationConfig
from ..training.filter_sets import FilterBank, FilterObserver
from ..training.loop import BatchStream, History, TrainingConfig
from ..training.recipe import ShardSource, TrainingRecipe, TrainingTask, train
from ..training.shards import Shards, training_folders
from .network import PosteriorNetwork
from .networks import build_network

__all__ = [
    "DEFAULT_TRAINING",
    "EncodedGalaxies",
    "PropertyTask",
    "RecipeConfig",
    "TrainingBatch",
    "encode_galaxies",
    "make_batch",
    "train_properties",
]

#: Default settings of the training loop; change the stopping rule with `dataclasses.replace`.
DEFAULT_TRAINING = TrainingConfig(max_seconds=7200, learning_rate=1.2e-3, validate_every=400)
_METALLICITY = tuple(QUANTITIES).index("gas_metallicity")
#: Largest fraction of galaxies beyond the upper bound of the redshift.
_MAX_OUTSIDE = 0.01
#: Galaxies encoded at once.
_BLOCK = 512
#: Galaxies from which the components of the SEDs are computed, at most.
_N_SEDS = 20_000


@dataclass(frozen=True)
class EncodedGalaxies(TensorRecord):
    """Simulated galaxies whose images are replaced by their latents.

    Attributes
    ----------
    inputs : ModelInputs
        Without images.
    mu, logvar : Tensor, shape (n, latent_size)
        Mean and log variance of the latent; zero without image.
    flux : Tensor, shape (n, 5)
        True fluxes [nmgy].
    theta : Tensor, shape (n, 9)
        True quantities.
    measurable : Tensor, shape (n,)
        1 where the gas metallicity is measurable, else 0.
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
        return self.theta[:, quantity_index("redshift")]

    @property
    def has_images(self) -> bool:
        """True if any galaxy has an image."""
        return bool(self.inputs.has_image.any())

    def catalogue_only(self) -> EncodedGalaxies:
        """Remove the images, and galaxies without catalogue photometry."""
        inputs = self.inputs
        kept = self[(inputs.has_photometry & ~inputs.measured).nonzero()[:, 0]]
        prior = torch.zeros_like(kept.mu)
        return replace(kept, inputs=kept.inputs.without_images(), mu=prior, logvar=prior)


@dataclass(frozen=True)
class TrainingBatch(TensorRecord):
    """Network inputs with their labels.

    Attributes
    ----------
    inputs : ModelInputs
    theta : Tensor, shape (n, 9)
        True quantities.
    measurable : Tensor, shape (n,)
        1 where the gas metallicity is measurable, else 0.
    latent : tuple of Tensor, shape (n, latent_size) each, or None
        Mean and log variance of the latent, if the images are already encoded.
    """

    inputs: ModelInputs
    theta: Tensor
    measurable: Tensor
    latent: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True, kw_only=True)
class RecipeConfig(TrainingRecipe):
    """Settings of `train_properties`.

    Attributes
    ----------
    image_batch, photometry_batch : int
        Batch size of galaxies with images, and of galaxies with photometry only; at most all
        galaxies.
    held_out : float
        Fraction of the galaxies, the last ones of each folder, used for validation.
    validation_size : int
        Maximum number of validation galaxies of each folder.
    image_augmentation, photometry_augmentation : AugmentationConfig
        Noise and missing inputs of galaxies with images, and of galaxies with photometry only.
    network : dict
        Items of the ``config`` of the network (`astrogenspec.inference.networks`); ignored if a
        trained network is given.
    seed : int
        Seed of initial weights, batches and augmentation.
    elbo_weight, kl_weight : float
        Weight of the evidence lower bound relative to the flows, and of the divergence inside it.
    elbo_fraction : float
        Fraction of the images that are decoded at each step.
    warm_kl : float
        Fraction of the training during which the weight of the divergence rises from zero.
    heads_alone : bool
        Train only the heads of a trained network.
    photometry_alone : bool
        Train only a head for galaxies without images, and leave the rest of a trained network
        unchanged.  It starts from the photometry head of the network if it has one, else from a
        copy of its first head.
    vae_alone : bool
        Train only the autoencoder of the images; the heads keep their initial weights.
    views : int
        Number of times each image is observed and encoded before the heads alone are trained.
    """

    image_batch: int = 128
    photometry_batch: int = 768
    validation_size: int = 3000
    image_augmentation: AugmentationConfig = field(
        default_factory=lambda: AugmentationConfig(mode_weights=(0.55, 0.0, 0.2, 0.25))
    )
    photometry_augmentation: AugmentationConfig = field(
        default_factory=lambda: AugmentationConfig(full_bands=0.65, gri_bands=0.15)
    )
    elbo_weight: float = 2e-4
    kl_weight: float = 1.0
    elbo_fraction: float = 0.5
    warm_kl: float = 0.1
    heads_alone: bool = False
    photometry_alone: bool = False
    vae_alone: bool = False
    views: int = 2


@torch.no_grad()
def encode_galaxies(
    network: PosteriorNetwork,
    shards: Shards,
    rows: Tensor,
    config: AugmentationConfig,
    generator: torch.Generator,
    observer: FilterObserver | None = None,
) -> EncodedGalaxies:
    """Observe galaxies once and encode their images.

    Parameters
    ----------
    network : PosteriorNetwork
        Network with the encoder.
    shards : Shards
        Simulated galaxies with labels ``theta`` and ``measurable``.
    rows : Tensor of int, shape (n,)
        Galaxies to encode.
    config : AugmentationConfig
        Noise and missing inputs.
    generator : `torch.Generator`
        Source of randomness.
    observer : FilterObserver, optional
        Catalogue photometry in random sets of filters.

    Returns
    -------
    EncodedGalaxies
    """
    device = network.chain.lower.device
    parts = []
    for chunk in rows.split(_BLOCK):
        inputs = shards.inputs(chunk, config, generator, observer)
        mu, logvar = (part.cpu() for part in network.latent(inputs.to(device)))
        inputs = replace(inputs, image=None, image_weight=None)
        labels = shards.labels(chunk)
        flux = shards.total_flux(chunk)
        parts.append(
            EncodedGalaxies(inputs, mu, logvar, flux, labels["theta"], labels["measurable"].float())
        )
    return EncodedGalaxies.concatenate(parts)


def make_batch(
    shards: Shards,
    indices: Tensor,
    config: AugmentationConfig,
    generator: torch.Generator,
    observer: FilterObserver | None = None,
) -> TrainingBatch:
    """Make augmented inputs of some galaxies, with their labels."""
    inputs = shards.inputs(indices, config, generator, observer)
    labels = shards.labels(indices)
    return TrainingBatch(inputs, labels["theta"], labels["measurable"].float())


class PropertyTask(TrainingTask):
    """Batches and loss of `PosteriorNetwork`.

    Parameters
    ----------
    recipe : RecipeConfig
        Settings.
    encoder : PosteriorNetwork, optional
        Network with a fixed encoder, with which images are encoded before the training.
    observer : FilterObserver, optional
        Photometry in random sets of filters.
    """

    n_validation_batches = 6
    recipe: RecipeConfig

    def __init__(
        self,
        recipe: RecipeConfig,
        encoder: PosteriorNetwork | None = None,
        observer: FilterObserver | None = None,
    ) -> None:
        super().__init__(recipe)
        self.encoder = encoder
        self.observer = observer

    def make_batch(
        self,
        shards: Shards,
        indices: Tensor,
        augmentation: AugmentationConfig,
        generator: torch.Generator,
    ) -> TrainingBatch:
        """Make a batch; see `make_batch`."""
        return make_batch(shards, indices, augmentation, generator, self.observer)

    def make_stream(self, source: ShardSource, seed: int) -> BatchStream:
        """Stream new observations, or with an encoder some stored views of every image."""
        shards = source.training
        if self.encoder is None or not shards.has_images:
            return super().make_stream(source, seed)
        rows = torch.arange(len(shards)).repeat(self.recipe.views)
        generator = torch.Generator().manual_seed(seed)
        pool = encode_galaxies(
            self.encoder, shards, rows, source.augmentation, generator, self.observer
        )

        def batch(indices: Tensor, _: torch.Generator) -> TrainingBatch:
            chosen = pool[indices]
            return TrainingBatch(chosen.inputs, chosen.theta, chosen.measurable, chosen.latent)

        return BatchStream(batch, len(pool), source.batch_size, seed=seed)

    def batch_loss(
        self, network: PosteriorNetwork, batch: TrainingBatch, source: int, progress: float
    ) -> dict[str, Tensor]:
        """Evaluate the loss of a batch; in validation with fixed random numbers."""
        recipe = self.recipe
        valid = torch.isfinite(batch.theta)
        valid[:, _METALLICITY] &= batch.measurable > 0.5
        generator = None
        if not network.training:
            generator = torch.Generator(batch.theta.device).manual_seed(0)
        return network.loss(
            batch.inputs,
            batch.theta,
            valid,
            None if recipe.vae_alone else batch.measurable,
            quantity_weight=torch.zeros_like(batch.theta) if recipe.vae_alone else None,
            latent=batch.latent,
            kl_weight=recipe.kl_weight * min(1.0, progress / recipe.warm_kl),
            elbo_weight=recipe.elbo_weight,
            elbo_fraction=recipe.elbo_fraction if network.training else 1.0,
            generator=generator,
        )


@single_precision()
def train_properties(
    data: Sequence[Path | str],
    out: Path | str,
    *,
    recipe: RecipeConfig | None = None,
    training: TrainingConfig | None = None,
    network: PosteriorNetwork | None = None,
) -> tuple[PosteriorNetwork, History]:
    """Train the property network, or resume its training.

    Parameters
    ----------
    data : sequence of path
        Folders of shards (see `astrogenspec.simulate.write_shards`), with images or with photometry
        only.
    out : path
        Folder of the checkpoint (``checkpoint.pt``), from which an interrupted training resumes,
        and of the history (``history.ecsv``).
    recipe : RecipeConfig, optional
    training : TrainingConfig, optional
        `DEFAULT_TRAINING` by default.
    network : PosteriorNetwork, optional
        Trained network to start from, which is not changed; its standardisation is kept.

    Returns
    -------
    network : PosteriorNetwork
        With the averaged weights of the best validation.
    history : History

    Raises
    ------
    ValueError
        If only a part is to be trained and no trained network is given, or more than 1% of the
        galaxies of a folder are outside the bounds of the redshift of the network.
    """
    recipe = recipe or RecipeConfig()
    training = training or DEFAULT_TRAINING
    for name in ("heads_alone", "photometry_alone"):
        if getattr(recipe, name) and network is None:
            raise ValueError(f"{name} requires a trained network: pass network.")
    torch.manual_seed(recipe.seed)
    built = build_network(recipe.network) if network is None else network
    sources = [_read_source(folder, recipe, built.cutout_size) for folder in data]
    if network is None:
        network = built
        _check_redshifts(network, data, sources)
        _standardise(network, sources[0].training)
        if network.components is not None:
            network.components.fit(_first_seds(sources))
    if recipe.photometry_alone and not network.can_be_fine_tuned:
        raise ValueError("the network has a head for photometry already, and takes no other one.")
    whole = network = copy.deepcopy(network).to(training.device)
    if recipe.photometry_alone:
        network = whole.extract_head(next(iter(whole.photometry_heads), 0))
    if recipe.heads_alone or recipe.photometry_alone:
        network.vae.requires_grad_(False)
        network.latent_of_properties.requires_grad_(False)
    if recipe.vae_alone:
        network.heads.requires_grad_(False)
    observer = None
    if network.components is not None:
        observer = FilterObserver(FilterBank(), network.components)
    task = PropertyTask(recipe, network if recipe.heads_alone else None, observer)
    history = train(task, network, sources, out, training)
    if recipe.photometry_alone:
        heads = [whole.extract_head(k) for k in range(whole.config["members"])]
        network = whole.with_heads(heads, [network])
    return network.requires_grad_(True), history


def _read_source(folder: Path | str, recipe: RecipeConfig, size: int) -> ShardSource:
    training, validation = training_folders(folder)
    shards = Shards.read(training, cutout_size=size)
    if recipe.photometry_alone:
        shards = shards.without_images()
    if validation is None:
        train_set, held_out = shards.split(recipe.held_out)
    else:
        train_set, held_out = shards, Shards.read(validation, cutout_size=size)
        held_out = held_out if shards.has_images else held_out.without_images()
    if shards.has_images:
        augmentation, size = recipe.image_augmentation, recipe.image_batch
    else:
        augmentation, size = recipe.photometry_augmentation, recipe.photometry_batch
    return ShardSource(train_set, held_out, augmentation, min(size, len(train_set)))


def _check_redshifts(
    network: PosteriorNetwork, data: Sequence[Path | str], sources: Sequence[ShardSource]
) -> None:
    """Raise an error if a network cannot learn the redshifts of a folder."""
    info = network.quantities["redshift"]
    for folder, source in zip(data, sources, strict=True):
        redshift = source.training.columns["theta"][:, quantity_index("redshift")]
        outside = int((redshift >= info.upper).sum())
        if outside > _MAX_OUTSIDE * len(redshift):
            raise ValueError(
                f"{outside} of {len(redshift)} galaxies of {folder} are beyond redshift "
                f"{info.upper:g}, the upper bound of the network; give a larger max_redshift."
            )


def _standardise(network: PosteriorNetwork, shards: Shards) -> None:
    theta = shards.columns["theta"]
    valid = torch.isfinite(theta)
    valid[:, _METALLICITY] &= shards.columns["measurable"] > 0.5
    network.set_standardisation(theta, valid)


def _first_seds(sources: Sequence[ShardSource]) -> Tensor:
    """Return spectral energy distributions, each relative to its flux in r."""
    shards = next((each.training for each in sources if each.training.has_seds), None)
    if shards is None:
        raise ValueError(
            "a network for any filters needs spectral energy distributions, which none of the "
            "folders has; add a folder of simulated galaxies that were written with them."
        )
    rows = torch.arange(min(_N_SEDS, len(shards)))
    return shards.seds(rows) / shards.columns["sed_flux"][rows, None]
