"""Training of one head of a network on labelled galaxies, beside simulated ones.

`astrogenspec.inference.finetune` says which galaxies each head of a network learns from.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..base import make_generator
from ..training import BatchStream, History, TrainingConfig, ZippedStreams, evaluate, fit
from .encoding import EncodedGalaxies
from .labelled import LabelledGalaxies, augmented, bands_shown
from .lending import Lenders
from .model import PropertyNetwork
from .replay import Lessons, ReplayLoss, Taught

__all__ = ["FitSettings", "Member", "train_member"]

#: Simulated galaxies of a step, from each folder.
_REHEARSED = 160
#: Dropout in the context network of trained weights that go on.
_DROPOUT = 0.1
#: Galaxies evaluated at once on the held-out part.
_VALIDATION_BATCH = 256


@dataclass(frozen=True)
class FitSettings:
    """Settings of `fine_tune`; see `PropertyEstimator.fit`."""

    epochs: int = 50
    batch_size: int = 64
    learning_rate: float = 3e-4
    validation_fraction: float = 0.2
    patience: int | None = 10
    progress: bool = False
    members: int | None = None
    images_alone: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.validation_fraction < 1:
            raise ValueError(
                f"validation_fraction is {self.validation_fraction}: it must lie between 0 and 1."
            )
        for name in ("epochs", "batch_size", "learning_rate", "patience", "members"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} is {value}: it must be positive.")


@dataclass(frozen=True)
class Member:
    """A network before and after its training, and how it did on what it did not see."""

    before: PropertyNetwork
    after: PropertyNetwork
    held_out: LabelledGalaxies
    losses: tuple[float, float]
    epochs_run: int


def train_member(
    before: PropertyNetwork,
    card: Mapping[str, Any] | None,
    training: LabelledGalaxies,
    held_out: LabelledGalaxies,
    pools: Sequence[EncodedGalaxies],
    settings: FitSettings,
    seed: int,
) -> Member:
    """Train a copy of a network; of a trained one the encoder stays as it is."""
    device = before.chain.lower.device
    after = copy.deepcopy(before)
    if card is None:
        after.set_standardisation(training.theta)
    else:
        after.set_dropout(_DROPOUT)
        after.vae.requires_grad_(False)
        after.latent_of_properties.requires_grad_(False)
    before = copy.deepcopy(after).eval()
    teacher = None if card is None else before
    streams = _streams(teacher, training, pools, settings, seed)
    loss = ReplayLoss(bands_shown(training))
    # A trained network is here with one head.
    with after.heads[0].image_readers_alone() if settings.images_alone else nullcontext():
        history = _run(after, streams, held_out, loss, settings, seed, device)
    losses = tuple(
        evaluate(model.to(device), _batches(held_out), loss, device=str(device))["total"]
        for model in (before, after)
    )
    return Member(before, after.eval(), held_out.to(device), losses, len(history))


def _streams(
    teacher: PropertyNetwork | None,
    training: LabelledGalaxies,
    pools: Sequence[EncodedGalaxies],
    settings: FitSettings,
    seed: int,
) -> list[BatchStream]:
    """Make streams of the labelled galaxies, and of simulated ones of each folder, with what the teacher says of them."""
    if teacher is None:
        lessons, lenders = None, []
    else:
        generator = make_generator(seed)
        lessons = Lessons(teacher, training.inputs, training.theta, generator=generator)
        photographed = training.inputs.image is not None
        lenders = [] if photographed else _lenders(training, pools)

    def labelled(rows: Tensor, generator: torch.Generator) -> Taught:
        seen = augmented(training[rows], generator)
        lesson = None if lessons is None else lessons.pick(rows, generator)
        if not lenders:
            return Taught(seen, lesson)
        inputs, latent, borrowed = lenders[0].lend(seen.inputs, rows, generator)
        return Taught(replace(seen, inputs=inputs), lesson, latent, borrowed)

    size = min(settings.batch_size, len(training))
    streams = [BatchStream(labelled, len(training), size, seed=seed)]
    for k, pool in enumerate(pools, start=1):
        said = Lessons(teacher, pool.inputs, latent=pool.latent, generator=make_generator(seed + k))

        def simulated(rows, generator, pool=pool, said=said) -> Taught:
            seen = pool[rows]
            return Taught(seen, said.pick(rows, generator), seen.latent)

        size = min(_REHEARSED, len(pool))
        streams.append(BatchStream(simulated, len(pool), size, seed=seed + k))
    return streams


def _lenders(training: LabelledGalaxies, pools: Sequence[EncodedGalaxies]) -> list[Lenders]:
    """Let simulated galaxies of one folder lend what labelled ones lack: of one with images, if there is one."""
    first = [pool for pool in pools if pool.has_images] or pools
    return [Lenders(training, pool) for pool in first[:1]]


def _run(
    network: PropertyNetwork,
    streams: list[BatchStream],
    held_out: LabelledGalaxies,
    loss: ReplayLoss,
    settings: FitSettings,
    seed: int,
    device: torch.device,
) -> History:
    first = streams[0]
    steps = first.n_items // first.batch_size
    config = TrainingConfig(
        max_steps=settings.epochs * steps,
        learning_rate=settings.learning_rate,
        # Decay would change weights that are not trained.
        weight_decay=0.0 if settings.images_alone else TrainingConfig.weight_decay,
        ema_decay=0.99,
        validate_every=steps,
        patience=settings.patience,
        device=str(device),
        quiet=not settings.progress,
    )
    devices = [device] if device.type == "cuda" else []
    # Dropout and the noise of the latent come from the global generator, which must be as it was afterwards.
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        return fit(network, ZippedStreams(streams), _batches(held_out), config, loss)


def _batches(galaxies: LabelledGalaxies) -> list[LabelledGalaxies]:
    return [galaxies[rows] for rows in torch.arange(len(galaxies)).split(_VALIDATION_BATCH)]
