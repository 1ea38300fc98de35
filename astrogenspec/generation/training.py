"""Training of the spectrum network on simulated shards.

A batch draws for every galaxy an aperture (fibre or total) and the properties that condition its
spectrum; some galaxies have no condition at all, which trains the unconditional model that
classifier-free guidance needs.  The four networks (low- and full-resolution diffusion, two
contrastive networks) share one loss, `astrogenspec.generation.network.SpectrumNetwork.loss`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from ..inputs.features import ModelInputs
from ..nn.precision import single_precision
from ..nn.records import TensorRecord
from ..quantities import QUANTITIES
from ..training.augmentation import MORPHOLOGY_COLUMNS, AugmentationConfig
from ..training.loop import History, TrainingConfig
from ..training.recipe import ShardSource, TrainingRecipe, TrainingTask, train
from ..training.shards import Shards
from .components import Galaxy
from .conditioning import APERTURES
from .network import SpectrumNetwork
from .pipeline import ab_flux

__all__ = [
    "DEFAULT_TRAINING",
    "LABELS",
    "SpectrumBatch",
    "SpectrumRecipe",
    "SpectrumTask",
    "draw_given",
    "fit_scales",
    "hide_inputs",
    "make_batch",
    "photometry_only",
    "select_aperture",
    "train_spectra",
]

#: Default settings of the training loop; change the stopping rule with `dataclasses.replace`.
DEFAULT_TRAINING = TrainingConfig(max_seconds=7200, learning_rate=8e-4, validate_every=250)
#: Columns of shards that are labels.
LABELS = (
    "theta",
    "continuum",
    "aperture_flux",
    "narrow_flux",
    "broad_flux",
    "velocity_dispersion",
)
_SCALE_SAMPLE = 8000
_ZERO_POINT_SAMPLE = 1000


@dataclass(frozen=True, kw_only=True)
class SpectrumRecipe(TrainingRecipe):
    """Settings of `train_spectra`.

    Attributes
    ----------
    image_batch, photometry_batch : int
        Batch size of galaxies with images, and of galaxies with photometry only; 0 for none of the
        latter.
    held_out : float
        Fraction of the galaxies, the last ones, used for validation.
    validation_size : int
        Maximum number of validation galaxies, with images and with photometry only.
    image_augmentation, photometry_augmentation : AugmentationConfig
        Noise and missing inputs of galaxies with images, and of galaxies with photometry only.
    network : dict
        Arguments of `SpectrumNetwork`; ignored if a trained network is given.
    seed : int
        Seed of initial weights, batches and augmentation.
    detail : int
        Galaxies of each batch that train the full-resolution networks.
    fibre_fraction : float
        Fraction of galaxies with the spectrum of the fibre; the rest have that of the whole galaxy.
    no_properties, only_redshift, all_properties : float
        Fraction of galaxies that are conditioned on no property, on the redshift only, and on all
        properties; the rest are conditioned on a random subset.
    nothing : float
        Fraction of galaxies without any condition, for classifier-free guidance.
    """

    image_batch: int = 64
    photometry_batch: int = 256
    validation_size: int = 1000
    image_augmentation: AugmentationConfig = field(
        default_factory=lambda: AugmentationConfig(mode_weights=(0.6, 0.0, 0.2, 0.2))
    )
    photometry_augmentation: AugmentationConfig = field(
        default_factory=lambda: AugmentationConfig(full_bands=0.6, gri_bands=0.2)
    )
    detail: int = 40
    fibre_fraction: float = 0.6
    no_properties: float = 0.15
    only_redshift: float = 0.15
    all_properties: float = 0.5
    nothing: float = 0.04


@dataclass(frozen=True)
class SpectrumBatch(TensorRecord):
    """Arguments of `SpectrumNetwork.loss`.

    Attributes
    ----------
    inputs : ModelInputs
    aperture : Tensor of int64, shape (n,)
        Index into `astrogenspec.generation.conditioning.APERTURES`.
    galaxies : Galaxy
        True spectra through the aperture.
    theta : Tensor, shape (n, 9)
        True properties.
    given : Tensor of bool, shape (n, 9)
        True where a property is a condition.
    """

    inputs: ModelInputs
    aperture: Tensor
    galaxies: Galaxy
    theta: Tensor
    given: Tensor


def select_aperture(labels: dict[str, Tensor], aperture: Tensor) -> Galaxy:
    """Return the spectra of galaxies through one aperture each.

    Parameters
    ----------
    labels : dict of str to Tensor, shape (n, ...)
        The columns `LABELS`.
    aperture : Tensor of int64, shape (n,)
        Index into `astrogenspec.generation.conditioning.APERTURES`.

    Returns
    -------
    Galaxy
    """
    rows = torch.arange(len(aperture))
    flux = labels["aperture_flux"][rows, aperture]
    return Galaxy(
        continuum=labels["continuum"][rows, aperture].float(),
        narrow=labels["narrow_flux"][rows, aperture] / flux[:, None],
        broad=labels["broad_flux"][rows, aperture, 1] / flux,
        redshift=labels["theta"][:, 0],
        dispersion=labels["velocity_dispersion"],
        fibre_fraction=labels["aperture_flux"][:, 0] / labels["aperture_flux"][:, 1],
    )


def draw_given(n: int, recipe: SpectrumRecipe, generator: torch.Generator) -> Tensor:
    """Draw which properties are conditions, bool, shape (n, 9)."""
    mode = torch.rand(n, 1, generator=generator, dtype=torch.float32)
    given = torch.rand(n, len(QUANTITIES), generator=generator, dtype=torch.float32) < 0.7
    fractions = [recipe.no_properties, recipe.only_redshift, recipe.all_properties]
    edges = torch.tensor(fractions, dtype=torch.float32)
    none, redshift, everything = edges.cumsum(0)
    given = given | ((mode >= redshift) & (mode < everything))
    given[:, 1:] &= mode >= redshift
    given[:, :1] = (given[:, :1] | (mode < redshift)) & (mode >= none)
    return given


def make_batch(
    shards: Shards,
    indices: Tensor,
    config: AugmentationConfig,
    recipe: SpectrumRecipe,
    generator: torch.Generator,
) -> SpectrumBatch:
    """Make augmented inputs of galaxies, and draw their apertures and conditions.

    Parameters
    ----------
    shards : Shards
        Simulated galaxies with the columns `LABELS`.
    indices : Tensor of int64, shape (n,)
        Galaxies of the batch.
    config : AugmentationConfig
        Noise and missing inputs.
    recipe : SpectrumRecipe
        Fractions of apertures and conditions.
    generator : `torch.Generator`
        Source of randomness.

    Returns
    -------
    SpectrumBatch
    """
    n = len(indices)
    inputs = shards.inputs(indices, config, generator)
    labels = shards.labels(indices)
    whole = torch.rand(n, generator=generator, dtype=torch.float32) >= recipe.fibre_fraction
    aperture = torch.where(whole, APERTURES.index("total"), APERTURES.index("fibre"))
    given = draw_given(n, recipe, generator)
    hidden = torch.rand(n, generator=generator, dtype=torch.float32) < recipe.nothing
    given &= ~hidden[:, None]
    return SpectrumBatch(
        hide_inputs(inputs, ~hidden),
        aperture,
        select_aperture(labels, aperture),
        labels["theta"],
        given,
    )


def hide_inputs(inputs: ModelInputs, keep: Tensor) -> ModelInputs:
    """Remove image and photometry of the galaxies for which ``keep`` (n,) is false."""
    keep = keep[:, None].float()
    return replace(
        inputs,
        image_bands=inputs.image_bands * keep,
        image_noise=inputs.image_noise * keep,
        photometry=inputs.photometry * keep,
    )


class SpectrumTask(TrainingTask):
    """Batches and loss of `SpectrumNetwork`.

    Parameters
    ----------
    recipe : SpectrumRecipe
        Settings.
    """

    n_validation_batches = 4
    recipe: SpectrumRecipe

    def make_batch(
        self,
        shards: Shards,
        indices: Tensor,
        augmentation: AugmentationConfig,
        generator: torch.Generator,
    ) -> SpectrumBatch:
        """Make a batch; see `make_batch`."""
        return make_batch(shards, indices, augmentation, self.recipe, generator)

    def batch_loss(
        self, network: SpectrumNetwork, batch: SpectrumBatch, source: int, progress: float
    ) -> dict[str, Tensor]:
        """Evaluate the loss of a batch; in validation with fixed random numbers."""
        return network.loss(
            batch.inputs,
            batch.aperture,
            batch.galaxies,
            batch.theta,
            batch.given,
            n_detail=min(self.recipe.detail, len(batch)),
            generator=None if network.training else torch.Generator().manual_seed(source),
        )


@single_precision()
def train_spectra(
    data: Path | str,
    out: Path | str,
    *,
    recipe: SpectrumRecipe | None = None,
    training: TrainingConfig | None = None,
    network: SpectrumNetwork | None = None,
) -> tuple[SpectrumNetwork, History]:
    """Train the spectrum network, or resume its training.

    Parameters
    ----------
    data : path
        Folder of shards with images and rest-frame spectra (``astrogenspec simulate N
        --training``).
    out : path
        Folder of the checkpoint (``checkpoint.pt``), from which an interrupted training resumes,
        and of the history (``history.ecsv``).
    recipe : SpectrumRecipe, optional
    training : TrainingConfig, optional
        `DEFAULT_TRAINING` by default.
    network : SpectrumNetwork, optional
        Trained network to start from, which is changed in place; its scales and zero points are
        kept.

    Returns
    -------
    network : SpectrumNetwork
        With the averaged weights of the best validation.
    history : History
    """
    recipe = recipe or SpectrumRecipe()
    torch.manual_seed(recipe.seed)
    train_set, held_out = Shards.read(data, LABELS).split(recipe.held_out)
    if network is None:
        network = SpectrumNetwork(**recipe.network)
        fit_scales(network, train_set)
    with_images = ShardSource(train_set, held_out, recipe.image_augmentation, recipe.image_batch)
    sources = [with_images]
    if recipe.photometry_batch:
        without_images = ShardSource(
            photometry_only(train_set),
            photometry_only(held_out),
            recipe.photometry_augmentation,
            recipe.photometry_batch,
            validation_seed=with_images.validation_seed + 1,
        )
        sources.append(without_images)
    history = train(SpectrumTask(recipe), network, sources, out, training or DEFAULT_TRAINING)
    return network, history


def photometry_only(shards: Shards) -> Shards:
    """Remove images and morphology."""
    return shards.without_images().drop(*MORPHOLOGY_COLUMNS)


def fit_scales(network: SpectrumNetwork, shards: Shards) -> None:
    """Set the scales and zero points of a network from the first galaxies of shards.

    Parameters
    ----------
    network : SpectrumNetwork
        Changed in place.
    shards : Shards
        Simulated galaxies with the columns `LABELS`.
    """
    rows = torch.arange(min(_SCALE_SAMPLE, len(shards)))
    labels = shards.labels(rows)
    network.fit_scales(select_aperture(labels, rows % len(APERTURES)), labels["theta"])
    rows = rows[:_ZERO_POINT_SAMPLE]
    total = torch.full_like(rows, APERTURES.index("total"))
    labels = shards.labels(rows)
    magnitude = -2.5 * torch.log10(ab_flux(select_aperture(labels, total)))
    flux = shards.columns["true_flux"][rows] / labels["aperture_flux"][:, 1:]
    network.zero_points.copy_((-2.5 * torch.log10(flux) - magnitude).median(0).values)
