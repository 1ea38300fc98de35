"""Training of the spectra network from simulated shards: one loop for its four networks."""

from __future__ import annotations

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
from ..training.shards import OBSERVED_COLUMNS, Shards
from .components import Galaxy
from .conditioning import APERTURES
from .network import SpectrumNetwork
from .pipeline import ab_flux

__all__ = [
    "DEFAULT_TRAINING",
    "LABELS",
    "SpectrumBatch",
    "SpectrumRecipe",
    "fit_scales",
    "make_batch",
    "make_loss",
    "select_aperture",
    "train_spectra",
]

#: Settings of the training loop; give it an end with `dataclasses.replace`.
DEFAULT_TRAINING = TrainingConfig(max_seconds=7200, learning_rate=8e-4, validate_every=250)
#: Columns of shards beside those of the inputs.
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


@dataclass(frozen=True)
class SpectrumRecipe:
    """Settings of `train_spectra`.

    Attributes
    ----------
    image_batch, photometry_batch : int
        Galaxies of a step with their images, and with photometry alone.
    detail : int
        Galaxies of each kind that train the full-resolution networks.
    held_out : float
        Fraction of the galaxies, the last ones, kept for validation.
    validation_size : int
        Galaxies of each kind in a validation.
    fibre_fraction : float
        Fraction of galaxies whose spectrum is that of the fibre; the others' is that of the whole galaxy.
    no_properties, only_redshift, all_properties : float
        Fraction of galaxies with no property as a condition, with the redshift alone, with all; the others have some.
    nothing : float
        Fraction without any condition, for guidance.
    image_augmentation, photometry_augmentation : AugmentationConfig
    network : dict
        Arguments of `SpectrumNetwork`.
    seed : int
    """

    image_batch: int = 64
    photometry_batch: int = 256
    detail: int = 40
    held_out: float = 0.04
    validation_size: int = 1000
    fibre_fraction: float = 0.6
    no_properties: float = 0.15
    only_redshift: float = 0.15
    all_properties: float = 0.5
    nothing: float = 0.04
    image_augmentation: AugmentationConfig = field(
        default_factory=lambda: AugmentationConfig(mode_weights=(0.6, 0.0, 0.2, 0.2))
    )
    photometry_augmentation: AugmentationConfig = field(
        default_factory=lambda: AugmentationConfig(full_bands=0.6, gri_bands=0.2)
    )
    network: dict[str, Any] = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True)
class SpectrumBatch(TensorRecord):
    """Galaxies for `SpectrumNetwork.loss`; see there.

    Attributes
    ----------
    inputs : ModelInputs
    aperture : Tensor of int64, shape (n,)
    galaxies : Galaxy
    theta : Tensor, shape (n, 9)
    given : Tensor of bool, shape (n, 9)
    """

    inputs: ModelInputs
    aperture: Tensor
    galaxies: Galaxy
    theta: Tensor
    given: Tensor


def select_aperture(labels: dict[str, Tensor], aperture: Tensor) -> Galaxy:
    """Spectra of some galaxies through one aperture each, from columns of shards."""
    rows = torch.arange(len(aperture))
    flux = labels["aperture_flux"][rows, aperture]
    return Galaxy(
        continuum=labels["continuum"][rows, aperture].float(),
        narrow=labels["narrow_flux"][rows, aperture] / flux[:, None],
        broad=labels["broad_flux"][rows, aperture, 1] / flux,
        redshift=labels["theta"][:, 0],
        dispersion=labels["velocity_dispersion"],
        fibre_share=labels["aperture_flux"][:, 0] / labels["aperture_flux"][:, 1],
    )


def draw_given(n: int, recipe: SpectrumRecipe, generator: torch.Generator) -> Tensor:
    """Draw which properties are conditions, shape (n, 9)."""
    kind = torch.rand(n, 1, generator=generator)
    given = torch.rand(n, len(QUANTITIES), generator=generator) < 0.7
    edges = torch.tensor([recipe.no_properties, recipe.only_redshift, recipe.all_properties])
    none, redshift, everything = edges.cumsum(0)
    given = given | ((kind >= redshift) & (kind < everything))
    given[:, 1:] &= kind >= redshift
    given[:, :1] = (given[:, :1] | (kind < redshift)) & (kind >= none)
    return given


def make_batch(
    shards: Shards,
    indices: Tensor,
    config: AugmentationConfig,
    recipe: SpectrumRecipe,
    generator: torch.Generator,
) -> SpectrumBatch:
    """Observe some galaxies anew, choose an aperture and which properties are conditions."""
    n = len(indices)
    inputs = shards.inputs(indices, config, generator)
    labels = shards.labels(indices)
    whole = torch.rand(n, generator=generator) >= recipe.fibre_fraction
    aperture = torch.where(whole, APERTURES.index("total"), APERTURES.index("fibre"))
    given = draw_given(n, recipe, generator)
    blank = torch.rand(n, generator=generator) < recipe.nothing
    given &= ~blank[:, None]
    return SpectrumBatch(
        _blanked(inputs, ~blank),
        aperture,
        select_aperture(labels, aperture),
        labels["theta"],
        given,
    )


def _blanked(inputs: ModelInputs, keep: Tensor) -> ModelInputs:
    keep = keep[:, None].float()
    return replace(
        inputs,
        image_bands=inputs.image_bands * keep,
        image_noise=inputs.image_noise * keep,
        photometry=inputs.photometry * keep,
    )


def make_loss(recipe: SpectrumRecipe):
    """Make the loss function of `astrogenspec.training.loop.fit` for lists of batches."""

    def loss(
        network: SpectrumNetwork, batches: Sequence[SpectrumBatch], progress: float
    ) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = {}
        parts = []
        for k, batch in enumerate(batches):
            generator = None if network.training else torch.Generator().manual_seed(k)
            part = network.loss(
                batch.inputs,
                batch.aperture,
                batch.galaxies,
                batch.theta,
                batch.given,
                n_detail=min(recipe.detail, len(batch.theta)),
                generator=generator,
            )
            terms |= {f"{name}_{k}": value for name, value in part.items()}
            parts.append(part["total"])
        terms["total"] = torch.stack(parts).mean()
        return terms

    return loss


def train_spectra(
    data: Path | str,
    out: Path | str,
    *,
    recipe: SpectrumRecipe | None = None,
    training: TrainingConfig | None = None,
    network: SpectrumNetwork | None = None,
) -> tuple[SpectrumNetwork, History]:
    """Train the network of the spectra.

    Parameters
    ----------
    data : path
        Folder of shards with images and rest-frame spectra (``astrogenspec simulate N --training``).
    out : path
        Folder for the checkpoint (``checkpoint.pt``), from which an interrupted training goes on, and the history
        (``history.ecsv``).
    recipe : SpectrumRecipe, optional
    training : TrainingConfig, optional
        `DEFAULT_TRAINING` by default.
    network : SpectrumNetwork, optional
        A trained one to go on from, changed in place; its scales and zero points stay. ``recipe.network`` is not used then.

    Returns
    -------
    network : SpectrumNetwork
        With the averaged weights of the best validation.
    history : History
    """
    recipe = recipe or SpectrumRecipe()
    training = training or DEFAULT_TRAINING
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    with_images, held_out = Shards.read(data, LABELS).split(recipe.held_out)
    if network is None:
        network = SpectrumNetwork(**recipe.network)
        fit_scales(network, with_images)
    kinds = (
        (recipe.image_augmentation, recipe.image_batch, lambda shards: shards),
        (recipe.photometry_augmentation, recipe.photometry_batch, _without_images),
    )
    streams, validation = [], []
    for k, (config, size, of) in enumerate(kinds):
        shards, judges = of(with_images), of(held_out)

        def batch(indices, generator, shards=shards, config=config):
            return make_batch(shards, indices, config, recipe, generator)

        streams.append(BatchStream(batch, len(shards), size, seed=recipe.seed + k))
        generator = torch.Generator().manual_seed(20 + k)
        rows = torch.arange(min(recipe.validation_size, len(judges)))
        validation.append(
            [make_batch(judges, part, config, recipe, generator) for part in rows.chunk(4)]
        )
    history = fit(
        network,
        ZippedStreams(streams),
        [list(batches) for batches in zip(*validation, strict=True)],
        replace(training, checkpoint=out / "checkpoint.pt"),
        make_loss(recipe),
    )
    history.write(out / "history.ecsv")
    return network, history


def _without_images(shards: Shards) -> Shards:
    images = OBSERVED_COLUMNS[2:]
    return Shards({k: v for k, v in shards.columns.items() if k not in images})


def fit_scales(network: SpectrumNetwork, shards: Shards) -> None:
    """Take scales and zero points from the first galaxies of some shards.

    Parameters
    ----------
    network : SpectrumNetwork
        Changed in place.
    shards : Shards
        With the columns `LABELS`.
    """
    rows = torch.arange(min(_SCALE_SAMPLE, len(shards)))
    labels = shards.labels(rows)
    network.fit_scales(select_aperture(labels, rows % len(APERTURES)), labels["theta"])
    some = rows[:_ZERO_POINT_SAMPLE]
    total = torch.full_like(some, APERTURES.index("total"))
    labels = shards.labels(some)
    magnitude = -2.5 * torch.log10(ab_flux(select_aperture(labels, total)))
    flux = shards.columns["true_flux"][some] / labels["aperture_flux"][:, 1:]
    network.zero_points.copy_((-2.5 * torch.log10(flux) - magnitude).median(0).values)
