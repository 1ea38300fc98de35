"""Fine-tuning of the property network on labelled galaxies.

The image encoder of a trained network is not changed.  Each head of the ensemble is trained
separately, from the weights of one head of the network: the heads for galaxies with images on all
galaxies (or not at all if there is no image, not even an imputed one), and those for galaxies
without images on catalogue photometry.  An untrained network is trained as a whole, on the labels
alone.

Every head holds out another part of the galaxies.  Training stops when the loss on these has not
improved for ``patience`` epochs (early stopping), and the best weights are kept; if the loss is on
average not below that of the initial weights, these are kept.
`astrogenspec.inference.finetuning.distillation` describes the loss, and how forgetting is limited.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from astropy.table import Table
from torch import Tensor

from ...base import make_generator
from ...calibration.truth import listed_names
from ...inputs.features import PhotometryReader
from ...inputs.observations import ObservationBatches
from ...nn.precision import single_precision
from ...quantities import QUANTITIES
from ...training.loop import BatchStream, History, TrainingConfig, ZippedStreams, evaluate, fit
from ...warnings import AstroGenSpecWarning
from ..network import PropertyNetwork
from ..training import EncodedGalaxies
from .dataset import (
    MIN_GALAXIES,
    LabelledGalaxies,
    augment_galaxies,
    read_labelled_galaxies,
    stack_labels,
)
from .distillation import (
    DistillationLoss,
    LabelledBatch,
    SimulatedBatch,
    TeacherSamples,
    encode_shards,
)
from .matching import MatchedGalaxies
from .validation import HeldOutResult

__all__ = ["FineTuningData", "FineTuningSettings", "TrainedHead", "fine_tune", "train_head"]

#: Batch size of simulated galaxies, for each folder.
_SIMULATED_BATCH = 160
#: Number of simulated galaxies of a folder per labelled one, and its bounds.
_PER_LABELLED, _MIN_SIMULATED, _MAX_SIMULATED = 2, 2_000, 24_000
#: Dropout probability of the context network of a trained network.
_DROPOUT = 0.1
#: Batch size of the evaluation on held-out galaxies.
_VALIDATION_BATCH = 256


@dataclass(frozen=True)
class FineTuningSettings:
    """Settings of `fine_tune`; see `PropertyEstimator.fit`.

    Attributes
    ----------
    epochs : int
        Maximum number of epochs.
    batch_size : int
        Number of labelled galaxies in a step.
    learning_rate : float
        Maximum learning rate.
    validation_fraction : float
        Fraction of the galaxies that each head holds out.
    patience : int or None
        Number of epochs without improvement after which training stops; None for no early stopping.
    progress : bool
        Whether a progress bar is shown.
    heads : int or None
        Number of heads to train, of each kind; None for as many as the network has.
    images_alone : bool
        Whether only the weights of the image inputs are trained.
    """

    epochs: int = 50
    batch_size: int = 64
    learning_rate: float = 3e-4
    validation_fraction: float = 0.2
    patience: int | None = 10
    progress: bool = False
    heads: int | None = None
    images_alone: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.validation_fraction < 1:
            raise ValueError(
                f"validation_fraction is {self.validation_fraction}; it must be between 0 and 1."
            )
        for name in ("epochs", "batch_size", "learning_rate", "patience", "heads"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} is {value}; it must be positive.")

    def card_entry(self) -> dict[str, Any]:
        """Return the settings under the keys of the card."""
        entry = asdict(self)
        return {"members" if name == "heads" else name: value for name, value in entry.items()}


@dataclass(frozen=True)
class FineTuningData:
    """Training data of `fine_tune`.

    Attributes
    ----------
    batches : ObservationBatches
        Observations of n galaxies.
    labels : mapping or table of Quantity, each of shape (n,)
        Labels of any quantities; NaN or masked where unknown.
    known : mapping or table of Quantity, each of shape (n,), optional
        Known quantities that are conditions and not learnt; NaN or masked where unknown.
    simulations : sequence of path
        Folders of simulated shards to mix in.
    sample_weight : ndarray, shape (n,), optional
        Weight of each row of the labels in the loss; equal by default.
    """

    batches: ObservationBatches
    labels: Mapping[str, Any] | Table
    known: Mapping[str, Any] | Table | None = None
    simulations: Sequence[str | Path] = ()
    sample_weight: np.ndarray | None = None


@dataclass(frozen=True)
class TrainedHead:
    """Result of training one head.

    Attributes
    ----------
    before, after : PropertyNetwork
        Network of one head before and after training.
    held_out : LabelledGalaxies
        Galaxies used for early stopping only.
    losses : tuple of float
        Loss on the held-out galaxies before and after training.
    epochs_run : int
        Number of epochs until training stopped.
    """

    before: PropertyNetwork
    after: PropertyNetwork
    held_out: LabelledGalaxies
    losses: tuple[float, float]
    epochs_run: int


@dataclass(frozen=True)
class _Setup:
    """Setup of all heads: whether the network is trained, and what all of them are trained with."""

    trained: bool
    pools: Sequence[EncodedGalaxies]
    settings: FineTuningSettings
    seed: int
    reader: PhotometryReader


@single_precision()
def fine_tune(
    network: PropertyNetwork,
    card: Mapping[str, Any] | None,
    data: FineTuningData,
    settings: FineTuningSettings,
    generator: torch.Generator,
    device: torch.device,
) -> tuple[PropertyNetwork, dict[str, Any], HeldOutResult]:
    """Train a copy of a network on labelled galaxies.

    Parameters
    ----------
    network : PropertyNetwork
        Initial network; not changed.
    card : mapping or None
        Its card; None for an untrained network, whose standardisation is then taken from the
        labels.
    data : FineTuningData
    settings : FineTuningSettings
    generator : `torch.Generator`
        Source of randomness.
    device : `torch.device`

    Returns
    -------
    network : PropertyNetwork
        Trained network.
    card : dict
        The old card with an entry in ``fits``.
    held_out : HeldOutResult
        Draws of the trained heads for the galaxies that they held out.

    Raises
    ------
    ValueError
        If there are too few labelled galaxies, or labels and galaxies do not match.
    """
    known, infos = None, network.quantities
    if data.known is not None:
        known = stack_labels(data.known, "known", strict=True, infos=infos)
    galaxies, reader, limits = read_labelled_galaxies(
        data.batches,
        stack_labels(data.labels, infos=infos),
        known,
        names=listed_names(data.labels),
        known_names=None if data.known is None else listed_names(data.known),
        sample_weight=data.sample_weight,
        components=network.components,
    )
    _check_request(network, card is not None, galaxies, data, settings)
    network = network.to(device)
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    n_simulated = min(max(_PER_LABELLED * len(galaxies), _MIN_SIMULATED), _MAX_SIMULATED)
    pools = [
        encode_shards(network, folder, n_simulated, seed + k, reader.filters)
        for k, folder in enumerate(data.simulations, start=1)
    ]
    setup = _Setup(card is not None, pools, settings, seed, reader)
    heads = _train_image_heads(network, galaxies, setup)
    photometry_heads: list[TrainedHead] = []
    if card is None:
        network = heads[0].after
    else:
        photometry_heads = _train_photometry_heads(network, galaxies, setup)
        network = network.with_heads(
            [head.after for head in heads], [head.after for head in photometry_heads]
        )
    held_out = HeldOutResult.draw(
        [
            (h.before, h.after, h.held_out.with_images() if photometry_heads else h.held_out)
            for h in heads
        ]
        + [(h.before, h.after, h.held_out) for h in photometry_heads]
    )
    # The card describes the heads that serve the galaxies of the fit.
    described = photometry_heads if galaxies.inputs.image is None else heads
    described = described or heads
    entry = _fit_entry(described, galaxies, held_out, setup)
    new_card = _new_card(card, entry, limits)
    weights = {"model": new_card["name"], "version": str(new_card.get("version", ""))}
    bounds = {"bounds": network.own_bounds} if network.own_bounds else {}
    return network.eval(), new_card, replace(held_out, weights=weights | bounds)


def _check_request(
    network: PropertyNetwork,
    trained: bool,
    galaxies: LabelledGalaxies,
    data: FineTuningData,
    settings: FineTuningSettings,
) -> None:
    """Refuse settings that need a trained network."""
    pretrained = "start from PropertyEstimator.from_pretrained()"
    if not trained and len(data.simulations):
        raise ValueError(f"simulations needs a trained estimator; {pretrained}, or omit it.")
    n_heads = network.config["members"]
    if not trained and settings.heads not in (None, n_heads):
        raise ValueError(
            f"heads is {settings.heads}, but this untrained estimator has {n_heads}; "
            f"{pretrained}, or omit it."
        )
    if settings.images_alone and (not trained or galaxies.inputs.image is None):
        raise ValueError(
            f"images_alone needs a trained estimator and galaxies with images; {pretrained}, and "
            "pass cutouts."
        )


# ---- heads


def _train_image_heads(
    network: PropertyNetwork, galaxies: LabelledGalaxies, setup: _Setup
) -> list[TrainedHead]:
    """Train the heads for galaxies with images, or all of an untrained network."""
    heads = range(network.config["members"])
    images = galaxies.inputs.image is not None or any(pool.has_images for pool in setup.pools)
    if setup.trained and len(network.photometry_heads) and not images:
        return _unchanged_heads(network, heads, galaxies)
    return _train_heads(network, heads, galaxies, setup)


def _train_photometry_heads(
    network: PropertyNetwork, galaxies: LabelledGalaxies, setup: _Setup
) -> list[TrainedHead]:
    """Train the heads for galaxies without images, if there are any, on catalogue photometry."""
    heads, photometry = network.photometry_heads, galaxies.catalogue_only()
    if len(heads) == 0:
        return []
    if setup.settings.images_alone or len(photometry) < MIN_GALAXIES:
        return _unchanged_heads(network, heads, photometry)
    pools = [pool.catalogue_only() for pool in setup.pools]
    return _train_heads(network, heads, photometry, replace(setup, pools=pools))


def _train_heads(
    network: PropertyNetwork, heads: Sequence[int], galaxies: LabelledGalaxies, setup: _Setup
) -> list[TrainedHead]:
    """Train heads that serve the same galaxies separately; an untrained network as a whole."""
    settings = setup.settings
    initial = [network]
    if setup.trained:
        n_heads = settings.heads or len(heads)
        initial = [network.extract_head(heads[k % len(heads)]) for k in range(n_heads)]
    order = torch.randperm(len(galaxies), generator=make_generator(setup.seed))
    n_held_out = min(max(round(settings.validation_fraction * len(order)), 1), len(order) - 1)
    trained = []
    for k, before in enumerate(initial):
        # Each head holds out other galaxies, as far as possible.
        rolled = order.roll(-k * n_held_out)
        held_out, training = galaxies[rolled[:n_held_out]], galaxies[rolled[n_held_out:]]
        own = replace(setup, seed=setup.seed + 100 * k)
        trained.append(train_head(before, training, held_out, own))
    old, new = _mean_losses(trained)
    if new < old:
        return trained
    warnings.warn(
        f"fit did not improve the loss on the {n_held_out} held-out galaxies ({old:.4g} before, "
        f"{new:.4g} after); the weights "
        "are not changed. Use more galaxies, or a smaller learning_rate.",
        AstroGenSpecWarning,
        stacklevel=6,
    )
    if not setup.trained:
        return [replace(head, after=network) for head in trained]
    networks = [network.extract_head(k) for k in heads]
    return [
        replace(trained[k % len(trained)], before=same, after=same, losses=(old, old))
        for k, same in enumerate(networks)
    ]


def _unchanged_heads(
    network: PropertyNetwork, heads: Sequence[int], galaxies: LabelledGalaxies
) -> list[TrainedHead]:
    """Return heads without training them, with no galaxy held out."""
    empty = galaxies[torch.arange(0)]
    networks = [network.extract_head(k) for k in heads]
    return [TrainedHead(same, same, empty, (math.nan, math.nan), 0) for same in networks]


def train_head(
    before: PropertyNetwork, training: LabelledGalaxies, held_out: LabelledGalaxies, setup: _Setup
) -> TrainedHead:
    """Train a copy of a network with one head; the encoder of a trained network is not changed.

    Parameters
    ----------
    before : PropertyNetwork
        Initial network.
    training, held_out : LabelledGalaxies
        Galaxies to learn from, and for early stopping.
    setup : _Setup

    Returns
    -------
    TrainedHead
    """
    device = before.chain.lower.device
    after = copy.deepcopy(before)
    if setup.trained:
        after.set_dropout(_DROPOUT)
        after.vae.requires_grad_(False)
        after.latent_of_properties.requires_grad_(False)
    else:
        after.set_standardisation(training.theta)
    before = copy.deepcopy(after).eval()
    streams = _streams(before if setup.trained else None, training, setup)
    any_filters = after.components is not None
    loss = DistillationLoss.for_galaxies(training, any_filters=any_filters)
    with _parametrized(after, training, setup):
        history = _run(after, streams, held_out, loss, setup)
    old, new = (
        evaluate(model.to(device), _batches(held_out), loss, device=str(device))["total"]
        for model in (before, after)
    )
    return TrainedHead(before, after.eval(), held_out.to(device), (old, new), len(history))


def _parametrized(
    network: PropertyNetwork, training: LabelledGalaxies, setup: _Setup
) -> AbstractContextManager[None]:
    """Choose the weights of the head that are trained, and their coordinates."""
    (head,) = network.heads
    if setup.settings.images_alone:
        return head.train_image_weights_only()
    if network.components is None or not setup.trained:
        return nullcontext()
    seen = augment_galaxies(training, make_generator(setup.seed), setup.reader)
    pools = [pool.inputs.photometry for pool in setup.pools]
    return head.whitened_photometry(torch.cat([seen.inputs.photometry, *pools]))


def _streams(
    teacher: PropertyNetwork | None, training: LabelledGalaxies, setup: _Setup
) -> list[BatchStream]:
    """Create streams of batches of the labelled galaxies and of the simulated ones by folder."""
    size = min(setup.settings.batch_size, len(training))
    if teacher is None:

        def labels_only(rows: Tensor, generator: torch.Generator) -> LabelledBatch:
            return LabelledBatch(augment_galaxies(training[rows], generator, setup.reader))

        return [BatchStream(labels_only, len(training), size, seed=setup.seed)]
    samples = TeacherSamples(
        teacher, training.inputs, training.theta, generator=make_generator(setup.seed)
    )
    matched = None if training.inputs.image is not None else _matches(training, setup.pools)

    def labelled(rows: Tensor, generator: torch.Generator) -> LabelledBatch:
        seen = augment_galaxies(training[rows], generator, setup.reader)
        targets = samples.pick(rows, generator)
        if matched is None:
            return LabelledBatch(seen, targets)
        inputs, latent, imputed = matched.impute(seen.inputs, rows, generator)
        return LabelledBatch(replace(seen, inputs=inputs), targets, latent, imputed)

    simulated = [
        _simulated_stream(teacher, pool, setup.seed + k)
        for k, pool in enumerate(setup.pools, start=1)
    ]
    return [BatchStream(labelled, len(training), size, seed=setup.seed), *simulated]


def _simulated_stream(teacher: PropertyNetwork, pool: EncodedGalaxies, seed: int) -> BatchStream:
    samples = TeacherSamples(
        teacher, pool.inputs, latent=pool.latent, generator=make_generator(seed)
    )

    def batch(rows: Tensor, generator: torch.Generator) -> SimulatedBatch:
        return SimulatedBatch(pool[rows], samples.pick(rows, generator))

    return BatchStream(batch, len(pool), min(_SIMULATED_BATCH, len(pool)), seed=seed)


def _matches(
    training: LabelledGalaxies, pools: Sequence[EncodedGalaxies]
) -> MatchedGalaxies | None:
    """Match labelled galaxies to the first simulated ones with images, or else to the first."""
    candidates = [pool for pool in pools if pool.has_images] or pools
    return MatchedGalaxies(training, candidates[0]) if candidates else None


def _run(
    network: PropertyNetwork,
    streams: list[BatchStream],
    held_out: LabelledGalaxies,
    loss: DistillationLoss,
    setup: _Setup,
) -> History:
    settings, device = setup.settings, network.chain.lower.device
    steps = streams[0].n_items // streams[0].batch_size
    config = TrainingConfig(
        max_steps=settings.epochs * steps,
        learning_rate=settings.learning_rate,
        # Weight decay would change weights whose gradients are masked.
        weight_decay=0.0 if settings.images_alone else TrainingConfig.weight_decay,
        ema_decay=0.99,
        validate_every=steps,
        patience=settings.patience,
        device=str(device),
        quiet=not settings.progress,
    )
    devices = [device] if device.type == "cuda" else []
    # Dropout and latent noise use the global generator, whose state is restored.
    with torch.random.fork_rng(devices):
        torch.manual_seed(setup.seed)
        return fit(network, ZippedStreams(streams), _batches(held_out), config, loss)


def _batches(galaxies: LabelledGalaxies) -> list[LabelledGalaxies]:
    return [galaxies[rows] for rows in torch.arange(len(galaxies)).split(_VALIDATION_BATCH)]


# ---- card


def _fit_entry(
    heads: Sequence[TrainedHead], galaxies: LabelledGalaxies, held_out: HeldOutResult, setup: _Setup
) -> dict[str, Any]:
    n_held_out = len(heads[0].held_out)
    return setup.settings.card_entry() | {
        "members": len(heads),
        "seed": setup.seed,
        "n_training": len(galaxies) - n_held_out,
        "n_held_out": n_held_out,
        "rehearsal": len(setup.pools) > 0,
        "labels": {
            name: int(n) for name, n in zip(QUANTITIES, galaxies.learnt.sum(0), strict=True)
        },
        "held_out_loss": list(_mean_losses(heads)),
        "held_out": held_out.scores(),
        "epochs_run": [head.epochs_run for head in heads],
    }


def _mean_losses(heads: Sequence[TrainedHead]) -> tuple[float, float]:
    """Return the mean losses on held-out galaxies, before and after training."""
    before, after = zip(*(head.losses for head in heads), strict=True)
    return sum(before) / len(heads), sum(after) / len(heads)


def _new_card(
    card: Mapping[str, Any] | None, entry: dict[str, Any], limits: dict[str, list[float]]
) -> dict[str, Any]:
    new = copy.deepcopy(dict(card or {}))
    new["fits"] = [*(new.get("fits") or []), entry]
    known = new.get("training_range")
    if card is None:
        new["training_range"] = limits
    elif known:
        for key, (low, high) in limits.items():
            if key in known:
                known[key] = [min(low, known[key][0]), max(high, known[key][1])]
    # Metrics, calibration and recalibration belong to the old weights.
    for stale in (
        "sha256",
        "filename",
        "metrics",
        "calibration",
        "recalibration",
        "guarantee",
    ):
        new.pop(stale, None)
    new["name"] = (
        f"{new.get('name') or 'untitled'} (fitted)" if len(new["fits"]) == 1 else new.get("name")
    )
    return new
