"""Simulated galaxies that are shown again while a network learns from real ones, so that it forgets nothing.

What is to be said of them is not their true properties but what the network said before, drawn anew each time; see
`astrogenspec.inference.finetuning.distillation`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from ...inputs.features import ModelInputs
from ...nn.records import TensorRecord
from ...surveys import BANDS
from ...training.shards import Shards
from ..flows import ChainPosterior
from ..network import Contexts, PropertyNetwork
from ..training import EncodedGalaxies, RecipeConfig, encode_galaxies
from .dataset import LabelledGalaxies

__all__ = [
    "DistillationBatch",
    "DistillationLoss",
    "TeacherSamples",
    "TeacherTargets",
    "encode_shards",
]

#: Frequency of image and catalogue photometry, photometry only, image only, image and photometry measured on it.
_MODES = (0.45, 0.2, 0.15, 0.2)


def encode_shards(
    network: PropertyNetwork, folder: str | Path, n_largest: int, seed: int
) -> EncodedGalaxies:
    """Observe and encode galaxies of a folder of shards, as in the first training; of some, their photometry alone.

    Parameters
    ----------
    network : PropertyNetwork
        Whose encoder will not change.
    folder : path
        Shards of `astrogenspec.simulate.write_shards`, with images or with photometry alone. What the first training
        holds out is left out here too.
    n_largest : int
        Most galaxies to take.
    seed : int
        Of the choice, the noise and what is hidden.

    Returns
    -------
    EncodedGalaxies
    """
    recipe = RecipeConfig()
    shards = Shards.read(folder).split(recipe.held_out)[0]
    config = recipe.photometry_augmentation
    if shards.has_images:
        config = replace(recipe.image_augmentation, mode_weights=_MODES)
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(shards), generator=generator)[:n_largest]
    return encode_galaxies(network, shards, chosen, config, generator)


#: Weight of quantities that only the former network teaches.
_REPLAY = 0.3
#: Draws of the former network kept of each galaxy: so many that they are not learnt by heart.
_DRAWS = 16
#: Galaxies that it is asked about at once.
_BLOCK = 256


@dataclass(frozen=True)
class TeacherTargets(TensorRecord):
    """One draw of what a network says of each of n galaxies.

    Attributes
    ----------
    theta : Tensor, shape (n, 9)
        All quantities given those that are known, which are as they are.
    free : Tensor, shape (n, 9)
        All quantities given the observations alone.
    measurable : Tensor, shape (n,)
        P(gas metallicity is measurable).
    """

    theta: Tensor
    free: Tensor
    measurable: Tensor


Galaxies = TypeVar("Galaxies", LabelledGalaxies, EncodedGalaxies)


@dataclass(frozen=True)
class DistillationBatch(TensorRecord, Generic[Galaxies]):
    """Galaxies of a step, and what there is to learn of them.

    Attributes
    ----------
    galaxies : LabelledGalaxies or EncodedGalaxies
        n galaxies.
    lesson : TeacherTargets or None
        What the former network says; without it only labels teach.
    latent : tuple of Tensor or None
        What the encoder says of the images, if they are encoded already or lent.
    borrowed : Tensor of bool, shape (n,), or None
        Who has an image, or sizes, of another galaxy.
    """

    galaxies: Galaxies
    lesson: TeacherTargets | None = None
    latent: tuple[Tensor, Tensor] | None = None
    borrowed: Tensor | None = None


class TeacherSamples:
    """Draws of a network, made once and kept to teach another.

    Parameters
    ----------
    teacher : PropertyNetwork
        Of one head.
    inputs : ModelInputs
        n galaxies, with all that was observed of them.
    theta : Tensor, shape (n, 9), optional
        What is known of them, NaN where unknown; nothing by default.
    latent : tuple of Tensor, optional
        What the encoder says of their images, if they are encoded already.
    generator : `torch.Generator`, optional
        Source of the draws.
    """

    @torch.no_grad()
    def __init__(
        self,
        teacher: PropertyNetwork,
        inputs: ModelInputs,
        theta: Tensor | None = None,
        latent: tuple[Tensor, Tensor] | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        device = teacher.chain.lower.device
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        for rows in torch.arange(len(inputs)).split(_BLOCK):
            seen = inputs[rows].to(device)
            mu, logvar = teacher.latent(seen) if latent is None else (part[rows] for part in latent)
            contexts = teacher.contexts(seen, (mu.to(device), logvar.to(device)))
            free = _chain_posterior(teacher, contexts).sample(_DRAWS, generator)
            taught = free
            if theta is not None:
                known = theta[rows].to(device).repeat_interleave(_DRAWS, dim=0)
                repeated = contexts.repeat_interleave(_DRAWS)
                posterior = _chain_posterior(teacher, repeated)
                completed = posterior.log_prob_and_completed(known, generator=generator)[1]
                drawn = teacher.chain.unstandardise(completed)
                taught = torch.where(known.isfinite(), known, drawn).unflatten(0, (-1, _DRAWS))
            parts.append((taught.cpu(), free.cpu(), teacher.measurable(contexts).cpu()))
        self._theta, self._free, self._measurable = (
            torch.cat(tensors) for tensors in zip(*parts, strict=True)
        )

    def pick(self, rows: Tensor, generator: torch.Generator) -> TeacherTargets:
        """Pick one draw of each of some galaxies."""
        draw = torch.randint(_DRAWS, rows.shape, generator=generator)
        return TeacherTargets(
            self._theta[rows, draw], self._free[rows, draw], self._measurable[rows]
        )


class DistillationLoss:
    """Loss of a step: labelled galaxies, with replay of what they lack, and simulated ones.

    A batch is a list of `DistillationBatch`, the labelled galaxies first.

    Parameters
    ----------
    shown : Tensor of bool, shape (k, 5), optional
        Band sets of labelled galaxies with redshifts, see `frequent_band_sets`. How it tells redshifts they
        alone teach. What other bands tell, the former network teaches with simulated galaxies too.
    """

    def __init__(self, shown: Tensor | None = None) -> None:
        self.shown = torch.zeros(0, len(BANDS), dtype=torch.bool) if shown is None else shown

    def __call__(
        self, network: PropertyNetwork, batches: Any, progress: float
    ) -> dict[str, Tensor]:
        """Evaluate the loss of a step; in evaluation, of galaxies that were held out."""
        if not network.training:
            return self._held_out(network, batches)
        real, *simulated = batches
        terms = self._real(network, real)
        for k, taught in enumerate(simulated):
            part = self._simulated(network, taught, lending=real.latent is not None)
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

    def _real(
        self, network: PropertyNetwork, taught: DistillationBatch[LabelledGalaxies]
    ) -> dict[str, Tensor]:
        galaxies, lesson, latent = taught.galaxies, taught.lesson, taught.latent
        valid = torch.isfinite(galaxies.theta)
        weight = galaxies.learnt.float()
        if lesson is None:
            return network.loss(galaxies.inputs, galaxies.theta, valid, quantity_weight=weight)
        weight = torch.where(valid, weight, _REPLAY)
        if latent is None:
            latent = network.latent(galaxies.inputs)
        if taught.borrowed is not None:
            # What is lent goes with the redshift; of the rest it may say something else.
            weight[taught.borrowed, 1:] = 0.0
        terms = network.loss(
            galaxies.inputs,
            lesson.theta,
            torch.ones_like(valid),
            lesson.measurable,
            quantity_weight=weight,
            elbo_weight=0.0,
            latent=latent,
        )
        condition = valid & ~galaxies.learnt
        rows = condition.any(1).nonzero()[:, 0]
        if len(rows):
            contexts = network.contexts(galaxies.inputs[rows], (latent[0][rows], latent[1][rows]))
            part = self._conditions(network, contexts, lesson.free[rows], condition[rows])
            terms["total"] = terms["total"] + part * len(rows) / len(galaxies)
        return terms

    def _conditions(
        self, network: PropertyNetwork, contexts: Contexts, free: Tensor, condition: Tensor
    ) -> Tensor:
        """Teach what is only a condition too, given the observations alone."""
        q = 1 + int(condition.any(0).nonzero().max())
        posterior = _chain_posterior(network, contexts)
        log_prob = posterior.log_prob_and_completed(free, q=q)[0]
        return -_REPLAY * (log_prob * condition[:, :q]).sum(-1).mean()

    def _simulated(
        self, network: PropertyNetwork, taught: DistillationBatch[EncodedGalaxies], *, lending: bool
    ) -> Tensor:
        """Teach what the former network said of simulated galaxies: their true properties would be learnt by heart."""
        inputs, lesson = taught.galaxies.inputs, taught.lesson
        weight = torch.ones_like(lesson.theta)
        # What labelled galaxies show, with lent images too, they alone teach.
        bands = inputs.photometry_bands[:, None] == self.shown.to(weight.device)
        labelled = bands.all(-1).any(-1) & ~inputs.measured
        weight[labelled & (lending | ~inputs.has_image), 0] = 0.0
        return network.loss(
            inputs,
            lesson.theta,
            torch.isfinite(lesson.theta),
            lesson.measurable,
            quantity_weight=weight,
            latent=taught.latent,
        )["total"]


def _chain_posterior(network: PropertyNetwork, contexts: Contexts) -> ChainPosterior:
    """Return the posterior of a network of one head, for what its `contexts` gives."""
    (vectors,) = contexts.vectors
    return network.chain(vectors)
