"""Continue the training of a network on galaxies whose properties are known, with any of the labels missing.

What has no label is not forgotten: the network as it was before teaches it, by draws of the unknown quantities given the known
ones (replay).  Simulated galaxies may be mixed in (rehearsal), which also keeps the skill with images.  The image encoder of a
trained network stays as it is: a few thousand galaxies would only spoil it.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from astropy.table import Table
from torch import Tensor

from ..base import make_generator
from ..blocks import ObservationBlocks
from ..quantities import QUANTITIES
from ..training import BatchStream, History, TrainingConfig, ZippedStreams, evaluate, fit
from ..warnings import AstroGenSpecWarning
from .labelled import LabelledGalaxies, augmented, read_labelled, theta_of
from .model import PropertyNetwork
from .rehearsal import EncodedGalaxies, encode_shards
from .scores import held_out_scores

__all__ = ["Examples", "FitSettings", "fine_tune"]

#: Weight of quantities that only the former network teaches.
_REPLAY = 0.3
#: Simulated galaxies of a step, from each folder.
_REHEARSED = 160
#: Simulated galaxies of a folder: this many for each labelled one, and within these bounds.
_PER_LABELLED, _FEWEST_REHEARSED, _MOST_REHEARSED = 2, 2_000, 24_000
#: Galaxies evaluated at once on the held-out part.
_VALIDATION_BATCH = 256


@dataclass(frozen=True)
class Examples:
    """What to learn from.

    Attributes
    ----------
    blocks : ObservationBlocks
        The galaxies.
    labels : mapping or table of Quantity, each of shape (n,)
        Any of the quantities; NaN or masked where unknown.
    known : mapping or table of Quantity, optional
        Quantities that are conditions, not learnt; NaN or masked where unknown.
    rehearsal : sequence of path
        Folders of simulated shards to mix in.
    """

    blocks: ObservationBlocks
    labels: Mapping[str, Any] | Table
    known: Mapping[str, Any] | Table | None = None
    rehearsal: Sequence[str | Path] = ()


@dataclass(frozen=True)
class FitSettings:
    """Settings of `fine_tune`; see `PropertyEstimator.fit`."""

    epochs: int = 50
    batch_size: int = 64
    learning_rate: float = 3e-4
    validation_fraction: float = 0.2
    patience: int | None = 10
    progress: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.validation_fraction < 1:
            raise ValueError(
                f"validation_fraction is {self.validation_fraction}: it must lie between 0 and 1."
            )
        for name in ("epochs", "batch_size", "learning_rate", "patience"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} is {value}: it must be positive.")


def fine_tune(
    network: PropertyNetwork,
    card: Mapping[str, Any] | None,
    examples: Examples,
    settings: FitSettings,
    generator: torch.Generator,
    device: torch.device,
) -> tuple[PropertyNetwork, dict[str, Any]]:
    """Train a copy of a network.

    Parameters
    ----------
    network : PropertyNetwork
        Where to begin; not changed.
    card : mapping or None
        Its card; None if it was never trained, and then takes its scales from the labels.
    examples : Examples
    settings : FitSettings
    generator : `torch.Generator`
        Source of randomness.
    device : `torch.device`

    Returns
    -------
    network : PropertyNetwork
    card : dict
        The old one with an entry in ``fits``.

    Raises
    ------
    ValueError
        If there are too few labelled galaxies, or the labels do not fit them.
    """
    known = None if examples.known is None else theta_of(examples.known, "known")
    galaxies, limits = read_labelled(examples.blocks, theta_of(examples.labels), known)
    if card is None and len(examples.rehearsal):
        raise ValueError(
            "rehearsal is for trained weights, and this estimator was never trained: leave it out, or begin with "
            "PropertyEstimator.from_pretrained()."
        )
    n = len(galaxies)
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    order = torch.randperm(n, generator=make_generator(seed))
    n_held_out = min(max(round(settings.validation_fraction * n), 1), n - 1)
    held_out, training = galaxies[order[:n_held_out]], galaxies[order[n_held_out:]]
    trained = _prepared(network, card, training)
    before = copy.deepcopy(trained).to(device).eval()
    loss = _Loss(None if card is None else before, with_redshifts=bool(galaxies.learnt[:, 0].any()))
    streams = _streams(before, training, examples.rehearsal, settings, seed)
    history = _train(trained, streams, held_out, loss, settings, seed, device)
    judge = _Loss(None)
    old, new = (
        evaluate(model.to(device), _batches(held_out), judge, device=str(device))["total"]
        for model in (before, trained)
    )
    if not new < old:
        warnings.warn(
            f"fit did not improve on the {n_held_out} galaxies held out (loss {old:.4g} before, {new:.4g} after): "
            "the weights stay as they were. Give more galaxies, or a smaller learning_rate.",
            AstroGenSpecWarning,
            stacklevel=3,
        )
        trained = before
    entry = {
        **asdict(settings),
        "seed": seed,
        "n_training": len(training),
        "n_held_out": n_held_out,
        "rehearsal": len(examples.rehearsal) > 0,
        "labels": {
            name: int(k) for name, k in zip(QUANTITIES, galaxies.learnt.sum(0), strict=True)
        },
        "held_out_loss": [old, min(old, new)],
        "held_out": held_out_scores(before, trained, held_out.to(device)),
        "epochs_run": len(history),
    }
    return trained.eval(), _new_card(card, entry, limits)


def _prepared(
    network: PropertyNetwork, card: Mapping[str, Any] | None, training: LabelledGalaxies
) -> PropertyNetwork:
    """Copy the network; what is not to be trained any more asks for no gradient."""
    if training.inputs.structure is not None and not network.config["structure"]:
        network = network.with_structure()
    trained = copy.deepcopy(network)
    if card is None:
        trained.chain.set_standardisation(training.theta)
    else:
        trained.vae.requires_grad_(False)
        trained.latent_of_properties.requires_grad_(False)
    return trained


def _streams(
    network: PropertyNetwork,
    training: LabelledGalaxies,
    rehearsal: Sequence[str | Path],
    settings: FitSettings,
    seed: int,
) -> list[BatchStream]:
    """Make streams of the labelled galaxies, and of simulated ones of each folder."""
    size = min(settings.batch_size, len(training))
    streams = [
        BatchStream(
            lambda rows, generator: augmented(training[rows], generator),
            len(training),
            size,
            seed=seed,
        )
    ]
    most = min(max(_PER_LABELLED * len(training), _FEWEST_REHEARSED), _MOST_REHEARSED)
    for k, folder in enumerate(rehearsal, start=1):
        pool = encode_shards(network, folder, most, seed + k)

        def batch(rows, generator, pool=pool):
            return pool[rows]

        size = min(_REHEARSED, len(pool))
        streams.append(BatchStream(batch, len(pool), size, seed=seed + k))
    return streams


def _train(
    network: PropertyNetwork,
    streams: list[BatchStream],
    held_out: LabelledGalaxies,
    loss: _Loss,
    settings: FitSettings,
    seed: int,
    device: torch.device,
) -> History:
    first = streams[0]
    steps = first.n_items // first.batch_size
    config = TrainingConfig(
        max_steps=settings.epochs * steps,
        learning_rate=settings.learning_rate,
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


class _Loss:
    """Loss of a step: labelled galaxies, with replay of what they lack, and simulated ones.

    Parameters
    ----------
    teacher : PropertyNetwork or None
        The network as it was before; None without replay.
    with_redshifts : bool
        Whether there are redshifts among the labels: then real galaxies alone teach how photometry tells them.
    """

    def __init__(self, teacher: PropertyNetwork | None, *, with_redshifts: bool = False) -> None:
        self.teacher = teacher
        self.with_redshifts = with_redshifts

    def __call__(
        self, network: PropertyNetwork, batches: Any, progress: float
    ) -> dict[str, Tensor]:
        if not network.training:
            return self._held_out(network, batches)
        real, *simulated = batches
        terms = self._real(network, real)
        for k, batch in enumerate(simulated):
            part = self._simulated(network, batch)
            terms |= {f"simulated_{k}": part}
            terms["total"] = terms["total"] + part
        return terms

    def _held_out(self, network: PropertyNetwork, galaxies: LabelledGalaxies) -> dict[str, Tensor]:
        """Judge quantities alone, not the images."""
        generator = torch.Generator(galaxies.theta.device).manual_seed(0)
        valid = torch.isfinite(galaxies.theta)
        terms = network.loss(
            galaxies.inputs,
            galaxies.theta,
            valid,
            quantity_weight=galaxies.learnt.float(),
            elbo_weight=0.0,
            generator=generator,
        )
        return {"total": terms["flow"]}

    def _real(self, network: PropertyNetwork, galaxies: LabelledGalaxies) -> dict[str, Tensor]:
        valid = torch.isfinite(galaxies.theta)
        weight = galaxies.learnt.float()
        if self.teacher is None:
            return network.loss(galaxies.inputs, galaxies.theta, valid, quantity_weight=weight)
        theta, measurable = self._taught(galaxies, valid)
        weight = torch.where(valid, weight, _REPLAY)
        everything = torch.ones_like(valid)
        terms = network.loss(
            galaxies.inputs,
            theta,
            everything,
            measurable,
            quantity_weight=weight,
            elbo_weight=0.0,
        )
        condition = valid & ~galaxies.learnt
        rows = condition.any(1).nonzero()[:, 0]
        if len(rows):
            # What is only a condition is taught too, given the observations alone.
            some, none = galaxies[rows], torch.zeros_like(valid[rows])
            theta, _ = self._taught(some, none)
            weight = _REPLAY * condition[rows].float()
            part = network.loss(some.inputs, theta, ~none, quantity_weight=weight, elbo_weight=0.0)
            terms["total"] = terms["total"] + part["flow"] * len(rows) / len(galaxies)
        return terms

    @torch.no_grad()
    def _taught(self, galaxies: LabelledGalaxies, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Fill in what is not valid from the former network; and its P(metallicity is measurable)."""
        context = self.teacher.context(galaxies.inputs)
        drawn = self.teacher.chain(context).log_prob_and_completed(galaxies.theta, valid)[1]
        theta = torch.where(valid, galaxies.theta, self.teacher.chain.unstandardise(drawn))
        return theta, self.teacher.measurable(context)

    def _simulated(self, network: PropertyNetwork, batch: EncodedGalaxies) -> Tensor:
        theta, measurable = self._recalled(batch)
        weight = torch.ones_like(theta)
        if self.with_redshifts:
            weight[~batch.inputs.has_image, 0] = 0.0
        return network.loss(
            batch.inputs,
            theta,
            torch.isfinite(theta),
            measurable,
            quantity_weight=weight,
            latent=(batch.mu, batch.logvar),
        )["total"]

    @torch.no_grad()
    def _recalled(self, batch: EncodedGalaxies) -> tuple[Tensor, Tensor]:
        """Draw anew what the former network says of simulated galaxies: their true properties would be learnt by heart."""
        context = self.teacher.context_of(batch.inputs, (batch.mu, batch.logvar))
        drawn = self.teacher.chain(context).sample(1)[:, 0]
        return drawn, self.teacher.measurable(context)


def _batches(galaxies: LabelledGalaxies) -> list[LabelledGalaxies]:
    return [galaxies[rows] for rows in torch.arange(len(galaxies)).split(_VALIDATION_BATCH)]


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
