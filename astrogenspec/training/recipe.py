"""Training recipe shared by both networks.

Simulated galaxies are read from shards; the last ones are used for validation.  Every step uses one
batch of each source (galaxies with images, galaxies with photometry only), with new noise and new
missing inputs, and minimises the mean of the losses of these batches.  Validation batches are
augmented once.  `astrogenspec.training.loop.fit` provides the optimiser, learning-rate schedule,
averaged weights and checkpoints.

A `TrainingTask` defines the batches and the loss of a network.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .augmentation import AugmentationConfig
from .loop import History, TrainingConfig, fit
from .parallel import Workers
from .shards import Shards
from .streams import BatchStream, ZippedStreams

__all__ = ["ShardSource", "TrainingRecipe", "TrainingTask", "train"]


@dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """Settings common to the recipes of both networks.

    Attributes
    ----------
    image_batch, photometry_batch : int
        Batch size of galaxies with images, and of galaxies with photometry only.
    held_out : float
        Fraction of the galaxies, the last ones of each folder, used for validation.
    validation_size : int
        Maximum number of validation galaxies of each source.
    image_augmentation, photometry_augmentation : AugmentationConfig
        Noise and missing inputs of the two sources.
    network : dict
        Arguments of the network; ignored if a trained network is given.
    seed : int
        Seed of initial weights, batches and augmentation.
    """

    image_batch: int
    photometry_batch: int
    held_out: float = 0.04
    validation_size: int
    image_augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    photometry_augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    network: dict[str, Any] = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True)
class ShardSource:
    """Simulated galaxies that contribute one batch to every training step.

    Attributes
    ----------
    training, validation : Shards
        Galaxies to train on and to validate with.
    augmentation : AugmentationConfig
        Noise and missing inputs.
    batch_size : int
        Galaxies in a batch.
    validation_seed : int
        Seed of the augmentation of the validation batches.
    """

    training: Shards
    validation: Shards
    augmentation: AugmentationConfig
    batch_size: int
    validation_seed: int = 20


class TrainingTask(ABC):
    """Batches and loss of one network.

    Parameters
    ----------
    recipe : TrainingRecipe
        Settings.
    """

    #: Number of validation batches of each source.
    n_validation_batches: ClassVar[int]

    def __init__(self, recipe: TrainingRecipe) -> None:
        self.recipe = recipe

    @abstractmethod
    def make_batch(
        self,
        shards: Shards,
        indices: Tensor,
        augmentation: AugmentationConfig,
        generator: torch.Generator,
    ) -> Any:
        """Make a batch of the galaxies ``indices``, with augmented inputs."""

    @abstractmethod
    def batch_loss(
        self, network: Any, batch: Any, source: int, progress: float
    ) -> dict[str, Tensor]:
        """Evaluate the loss terms of a batch of one source; ``"total"`` is minimised."""

    def make_stream(self, source: ShardSource, seed: int) -> BatchStream:
        """Make the endless stream of training batches of a source."""

        def batch(indices: Tensor, generator: torch.Generator) -> Any:
            return self.make_batch(source.training, indices, source.augmentation, generator)

        return BatchStream(batch, len(source.training), source.batch_size, seed=seed)

    def validation_batches(self, source: ShardSource) -> list[Any]:
        """Make the validation batches of a source, which are the same at each validation."""
        generator = torch.Generator().manual_seed(source.validation_seed)
        rows = torch.arange(min(self.recipe.validation_size, len(source.validation)))
        return [
            self.make_batch(source.validation, chunk, source.augmentation, generator)
            for chunk in rows.chunk(self.n_validation_batches)
        ]

    def loss(
        self, network: nn.Module, batches: Sequence[Any], progress: float
    ) -> dict[str, Tensor]:
        """Evaluate the loss terms of one batch of each source.

        Parameters
        ----------
        network : `torch.nn.Module`
        batches : sequence
            One batch of each source.
        progress : float
            Fraction of the training that is done.

        Returns
        -------
        terms : dict of scalar Tensor
            Every term with the number of its source appended, and the mean ``"total"``.
        """
        parts = [self.batch_loss(network, b, k, progress) for k, b in enumerate(batches)]
        terms = {f"{name}_{k}": v for k, part in enumerate(parts) for name, v in part.items()}
        terms["total"] = torch.stack([part["total"] for part in parts]).mean()
        return terms


def train(
    task: TrainingTask,
    network: nn.Module,
    sources: Sequence[ShardSource],
    out: Path | str,
    config: TrainingConfig,
) -> History:
    """Train a network on galaxies of shards, or resume its training.

    Parameters
    ----------
    task : TrainingTask
        Batches and loss.
    network : `torch.nn.Module`
        Trained in place.
    sources : sequence of ShardSource
        Each contributes one batch to every step.
    out : path
        Folder of the checkpoint (``checkpoint.pt``), from which an interrupted training resumes,
        and of the history (``history.ecsv``).
    config : TrainingConfig
        Settings of the loop; its ``checkpoint`` is replaced.

    Returns
    -------
    history : History
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    seed = task.recipe.seed
    workers = Workers.current()
    parts = workers.number_of_micro_batches(config.micro_batches)
    streams = [
        task.make_stream(replace(source, batch_size=max(source.batch_size // parts, 1)), seed + k)
        for k, source in enumerate(sources)
    ]
    validation = [task.validation_batches(source) for source in sources]
    # Sources with very few galaxies have fewer batches, which are used again.
    most = max(len(batches) for batches in validation)
    history = fit(
        network,
        ZippedStreams(streams),
        [[batches[k % len(batches)] for batches in validation] for k in range(most)],
        replace(config, checkpoint=out / "checkpoint.pt"),
        task.loss,
    )
    if workers.is_first:
        history.write(out / "history.ecsv")
    return history
