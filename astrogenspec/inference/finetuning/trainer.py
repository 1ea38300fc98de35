"""Training of one head of a network on labelled galaxies, beside simulated ones.

`astrogenspec.inference.finetuning.trainer` says which galaxies each head of a network learns from.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from astropy.table import Table
from torch import Tensor

from ...base import make_generator
from ...inputs.observations import ObservationBatches
from ...quantities import QUANTITIES
from ...training.loop import BatchStream, History, TrainingConfig, ZippedStreams, evaluate, fit
from ...warnings import AstroGenSpecWarning
from ..network import PropertyNetwork
from ..training import EncodedGalaxies
from .dataset import (
    MIN_GALAXIES,
    LabelledGalaxies,
    augmented,
    frequent_band_sets,
    read_labelled_galaxies,
    stack_labels,
)
from .distillation import DistillationBatch, DistillationLoss, TeacherSamples, encode_shards
from .matching import MatchedGalaxies
from .validation import HeldOutResult

__all__ = ["FineTuningData", "FineTuningSettings", "TrainedHead", "fine_tune", "train_head"]

#: Simulated galaxies of a step, from each folder.
_REHEARSED = 160
#: Dropout in the context network of trained weights that go on.
_DROPOUT = 0.1
#: Galaxies evaluated at once on the held-out part.
_VALIDATION_BATCH = 256


@dataclass(frozen=True)
class FineTuningSettings:
    """Settings of `fine_tune`; see `PropertyEstimator.fit`."""

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
                f"validation_fraction is {self.validation_fraction}: it must lie between 0 and 1."
            )
        for name in ("epochs", "batch_size", "learning_rate", "patience", "heads"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} is {value}: it must be positive.")


@dataclass(frozen=True)
class TrainedHead:
    """A network before and after its training, and how it did on what it did not see."""

    before: PropertyNetwork
    after: PropertyNetwork
    held_out: LabelledGalaxies
    losses: tuple[float, float]
    epochs_run: int


def train_head(
    before: PropertyNetwork,
    card: Mapping[str, Any] | None,
    training: LabelledGalaxies,
    held_out: LabelledGalaxies,
    pools: Sequence[EncodedGalaxies],
    settings: FineTuningSettings,
    seed: int,
) -> TrainedHead:
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
    loss = DistillationLoss(frequent_band_sets(training))
    # A trained network is here with one head.
    with after.heads[0].train_image_weights_only() if settings.images_alone else nullcontext():
        history = _run(after, streams, held_out, loss, settings, seed, device)
    losses = tuple(
        evaluate(model.to(device), _batches(held_out), loss, device=str(device))["total"]
        for model in (before, after)
    )
    return TrainedHead(before, after.eval(), held_out.to(device), losses, len(history))


def _streams(
    teacher: PropertyNetwork | None,
    training: LabelledGalaxies,
    pools: Sequence[EncodedGalaxies],
    settings: FineTuningSettings,
    seed: int,
) -> list[BatchStream]:
    """Make streams of the labelled galaxies, and of simulated ones of each folder, with what the teacher says of them."""
    if teacher is None:
        lessons, lenders = None, []
    else:
        generator = make_generator(seed)
        lessons = TeacherSamples(teacher, training.inputs, training.theta, generator=generator)
        photographed = training.inputs.image is not None
        lenders = [] if photographed else _lenders(training, pools)

    def labelled(rows: Tensor, generator: torch.Generator) -> DistillationBatch:
        seen = augmented(training[rows], generator)
        lesson = None if lessons is None else lessons.pick(rows, generator)
        if not lenders:
            return DistillationBatch(seen, lesson)
        inputs, latent, borrowed = lenders[0].lend(seen.inputs, rows, generator)
        return DistillationBatch(replace(seen, inputs=inputs), lesson, latent, borrowed)

    size = min(settings.batch_size, len(training))
    streams = [BatchStream(labelled, len(training), size, seed=seed)]
    for k, pool in enumerate(pools, start=1):
        said = TeacherSamples(
            teacher, pool.inputs, latent=pool.latent, generator=make_generator(seed + k)
        )

        def simulated(rows, generator, pool=pool, said=said) -> DistillationBatch:
            seen = pool[rows]
            return DistillationBatch(seen, said.pick(rows, generator), seen.latent)

        size = min(_REHEARSED, len(pool))
        streams.append(BatchStream(simulated, len(pool), size, seed=seed + k))
    return streams


def _lenders(training: LabelledGalaxies, pools: Sequence[EncodedGalaxies]) -> list[MatchedGalaxies]:
    """Let simulated galaxies of one folder lend what labelled ones lack: of one with images, if there is one."""
    first = [pool for pool in pools if pool.has_images] or pools
    return [MatchedGalaxies(training, pool) for pool in first[:1]]


def _run(
    network: PropertyNetwork,
    streams: list[BatchStream],
    held_out: LabelledGalaxies,
    loss: DistillationLoss,
    settings: FineTuningSettings,
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


#: Simulated galaxies of a folder: this many for each labelled one, and within these bounds.
_PER_LABELLED, _FEWEST_REHEARSED, _MOST_REHEARSED = 2, 2_000, 24_000


@dataclass(frozen=True)
class FineTuningData:
    """What to learn from.

    Attributes
    ----------
    blocks : ObservationBatches
        The galaxies.
    labels : mapping or table of Quantity, each of shape (n,)
        Any of the quantities; NaN or masked where unknown.
    known : mapping or table of Quantity, optional
        Quantities that are conditions, not learnt; NaN or masked where unknown.
    simulations : sequence of path
        Folders of simulated shards to mix in.
    """

    blocks: ObservationBatches
    labels: Mapping[str, Any] | Table
    known: Mapping[str, Any] | Table | None = None
    simulations: Sequence[str | Path] = ()


def fine_tune(
    network: PropertyNetwork,
    card: Mapping[str, Any] | None,
    examples: FineTuningData,
    settings: FineTuningSettings,
    generator: torch.Generator,
    device: torch.device,
) -> tuple[PropertyNetwork, dict[str, Any], HeldOutResult]:
    """Train a copy of a network.

    Parameters
    ----------
    network : PropertyNetwork
        Where to begin; not changed.
    card : mapping or None
        Its card; None if it was never trained, and then takes its scales from the labels.
    examples : FineTuningData
    settings : FineTuningSettings
    generator : `torch.Generator`
        Source of randomness.
    device : `torch.device`

    Returns
    -------
    network : PropertyNetwork
    card : dict
        The old one with an entry in ``fits``.
    held_out : HeldOutResult
        What heads that were trained say of galaxies that they did not see.

    Raises
    ------
    ValueError
        If there are too few labelled galaxies, or the labels do not fit them.
    """
    known = None if examples.known is None else stack_labels(examples.known, "known")
    galaxies, limits = read_labelled_galaxies(examples.blocks, stack_labels(examples.labels), known)
    _check_trained(network, card, galaxies, examples, settings)
    network = network.to(device)
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    most = min(max(_PER_LABELLED * len(galaxies), _FEWEST_REHEARSED), _MOST_REHEARSED)
    pools = [
        encode_shards(network, folder, most, seed + k)
        for k, folder in enumerate(examples.simulations, start=1)
    ]
    members = _of_images(network, card, galaxies, pools, settings, seed)
    if card is None:
        network, of_catalogue = members[0].after, []
    else:
        of_catalogue = _of_catalogue(network, card, galaxies, pools, settings, seed)
        network = network.with_heads([m.after for m in members], [m.after for m in of_catalogue])
    held_out = HeldOutResult.of(
        [
            (m.before, m.after, m.held_out.with_images() if of_catalogue else m.held_out)
            for m in members
        ]
        + [(m.before, m.after, m.held_out) for m in of_catalogue]
    )
    if of_catalogue and galaxies.inputs.image is None:
        # These are the heads that read such galaxies.
        members = of_catalogue
    n_held_out = len(members[0].held_out)
    entry = {
        **asdict(settings),
        "members": len(members),
        "seed": seed,
        "n_training": len(galaxies) - n_held_out,
        "n_held_out": n_held_out,
        "rehearsal": len(pools) > 0,
        "labels": {
            name: int(k) for name, k in zip(QUANTITIES, galaxies.learnt.sum(0), strict=True)
        },
        "held_out_loss": list(_mean_losses(members)),
        "held_out": held_out.scores(),
        "epochs_run": [member.epochs_run for member in members],
    }
    return network.eval(), _new_card(card, entry, limits), held_out


def _check_trained(
    network: PropertyNetwork,
    card: Mapping[str, Any] | None,
    galaxies: LabelledGalaxies,
    examples: FineTuningData,
    settings: FineTuningSettings,
) -> None:
    """Refuse what only trained weights can do."""
    if card is None and len(examples.simulations):
        raise ValueError(
            "simulations is for trained weights, and this estimator was never trained: leave it out, or begin with "
            "PropertyEstimator.from_pretrained()."
        )
    n_heads = network.config["members"]
    if card is None and settings.heads not in (None, n_heads):
        raise ValueError(
            f"heads is {settings.heads}, but this estimator was never trained and has {n_heads}: leave heads out, or "
            "begin with PropertyEstimator.from_pretrained()."
        )
    if settings.images_alone and (card is None or galaxies.inputs.image is None):
        raise ValueError(
            "images_alone is for trained weights and galaxies with images: leave it out, or give cutouts to "
            "PropertyEstimator.from_pretrained()."
        )


def _of_images(
    network: PropertyNetwork,
    card: Mapping[str, Any] | None,
    galaxies: LabelledGalaxies,
    pools: Sequence[EncodedGalaxies],
    settings: FineTuningSettings,
    seed: int,
) -> list[TrainedHead]:
    """Train the heads that read images, or everything; without any image, not even a lent one, there is nothing to learn."""
    heads = range(network.config["members"])
    images = galaxies.inputs.image is not None or any(pool.has_images for pool in pools)
    if card is not None and len(network.photometry_heads) and not images:
        return _left_alone(network, heads, galaxies)
    return _group(network, heads, card, galaxies, pools, settings, seed)


def _of_catalogue(
    network: PropertyNetwork,
    card: Mapping[str, Any],
    galaxies: LabelledGalaxies,
    pools: Sequence[EncodedGalaxies],
    settings: FineTuningSettings,
    seed: int,
) -> list[TrainedHead]:
    """Train the heads for galaxies without images, if there are such, on photometry."""
    heads, photometry = network.photometry_heads, galaxies.catalogue_only()
    if len(heads) == 0:
        return []
    if settings.images_alone or len(photometry) < MIN_GALAXIES:
        return _left_alone(network, heads, photometry)
    pools = [pool.catalogue_only() for pool in pools]
    return _group(network, heads, card, photometry, pools, settings, seed)


def _group(
    network: PropertyNetwork,
    heads: Sequence[int],
    card: Mapping[str, Any] | None,
    galaxies: LabelledGalaxies,
    pools: Sequence[EncodedGalaxies],
    settings: FineTuningSettings,
    seed: int,
) -> list[TrainedHead]:
    """Train heads that read the same galaxies, each alone and as often as wanted; an untrained network as a whole."""
    beginnings = [network]
    if card is not None:
        n_members = settings.heads or len(heads)
        beginnings = [network.extract_head(heads[k % len(heads)]) for k in range(n_members)]
    order = torch.randperm(len(galaxies), generator=make_generator(seed))
    n_held_out = min(max(round(settings.validation_fraction * len(order)), 1), len(order) - 1)
    members = []
    for k, before in enumerate(beginnings):
        # Each member holds out other galaxies, as long as there are any.
        turned = order.roll(-k * n_held_out)
        held_out, training = galaxies[turned[:n_held_out]], galaxies[turned[n_held_out:]]
        members.append(
            train_head(before, card, training, held_out, pools, settings, seed + 100 * k)
        )
    old, new = _mean_losses(members)
    if new < old:
        return members
    warnings.warn(
        f"fit did not improve on the {n_held_out} galaxies held out (loss {old:.4g} before, {new:.4g} after): "
        "the weights stay as they were. Give more galaxies, or a smaller learning_rate.",
        AstroGenSpecWarning,
        stacklevel=5,
    )
    if card is None:
        return [replace(member, after=network) for member in members]
    nets = [network.extract_head(k) for k in heads]
    return [
        replace(members[k % len(members)], before=net, after=net, losses=(old, old))
        for k, net in enumerate(nets)
    ]


def _left_alone(
    network: PropertyNetwork, heads: Sequence[int], galaxies: LabelledGalaxies
) -> list[TrainedHead]:
    """Give heads that are not trained as they are, with no galaxy held out."""
    nobody = galaxies[torch.arange(0)]
    nets = [network.extract_head(k) for k in heads]
    return [TrainedHead(net, net, nobody, (math.nan, math.nan), 0) for net in nets]


def _mean_losses(members: Sequence[TrainedHead]) -> tuple[float, float]:
    """Mean losses on what was held out, before and after the training."""
    before, after = zip(*(member.losses for member in members), strict=True)
    return sum(before) / len(members), sum(after) / len(members)


def _new_card(
    card: Mapping[str, Any] | None, entry: dict[str, Any], limits: dict[str, list[float]]
) -> dict[str, Any]:
    new = copy.deepcopy(dict(card or {}))
    new["fits"] = [*new.get("fits", []), entry]
    known = new.get("training_range")
    if card is None:
        new["training_range"] = limits
    elif known:
        for key, (low, high) in limits.items():
            if key in known:
                known[key] = [min(low, known[key][0]), max(high, known[key][1])]
    # Metrics and calibration were measured with other weights, and a recalibration learnt with them.
    for stale in ("sha256", "filename", "metrics", "calibration", "recalibration"):
        new.pop(stale, None)
    new["name"] = (
        f"{new.get('name') or 'untitled'} (fitted)" if len(new["fits"]) == 1 else new["name"]
    )
    return new
