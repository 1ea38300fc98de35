r"""Distillation: samples from the network before fine-tuning supervise what the labels leave open.

Fine-tuning on few labels makes a network forget what it learnt from simulations (catastrophic
forgetting).  Here the network before fine-tuning, the teacher, provides soft targets [1]_ [2]_:
draws from its posterior, made once for each galaxy.  For draws
:math:`\theta \sim p_T(\theta \mid x)` the loss

.. math::

    -\mathrm{E}_{\theta \sim p_T} \log p(\theta \mid x)
    = \mathrm{KL}\left[p_T \,\|\, p\right] + \mathrm{const.}

is minimal where the network agrees with the teacher.  It is applied, factor by factor of the chain
of quantities, to

* quantities of labelled galaxies without a label, given those with one, with weight 0.3;
* quantities of labelled galaxies that are conditions only, given the observations alone, with
  weight 0.3;
* simulated galaxies that are mixed in.  Their true quantities are not used, since they would be
  memorised.

Redshifts of simulated galaxies have zero weight where labelled galaxies with the same bands
determine them: what differs between simulated and real photometry is learnt from the real galaxies.
In networks for any filters, which describe a galaxy by coefficients instead of bands, simulated
galaxies are observed in other sets of filters than the labelled ones, and their redshifts have
weight 0.3.

References
----------
.. [1] Hinton, Vinyals & Dean 2015, arXiv:1503.02531
.. [2] Li & Hoiem 2016, arXiv:1606.09282 (learning without forgetting)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...inputs.features import ModelInputs
from ...nn.records import TensorRecord
from ...quantities import quantity_index
from ...surveys import BANDS
from ...training.filter_sets import FilterBank, FilterObserver, sets_with_other_filters
from ...training.shards import Shards
from ..flows import ChainPosterior
from ..network import Contexts, PropertyNetwork
from ..training import EncodedGalaxies, RecipeConfig, encode_galaxies
from .dataset import LabelledGalaxies, frequent_band_sets

__all__ = [
    "DistillationLoss",
    "LabelledBatch",
    "SimulatedBatch",
    "TeacherSamples",
    "TeacherTargets",
    "encode_shards",
]

_REDSHIFT = quantity_index("redshift")
#: Frequencies of the input modes of simulated galaxies: image and catalogue photometry, photometry
#: only, image only, image with photometry measured on it.
_MODES = (0.45, 0.2, 0.15, 0.2)
#: Weight of quantities that the teacher alone supervises.
_TEACHER_WEIGHT = 0.3
#: Number of draws of the teacher for each galaxy; enough not to be memorised.
_N_DRAWS = 16
#: Galaxies of which the teacher draws at once.
_BATCH = 256


@dataclass(frozen=True)
class TeacherTargets(TensorRecord):
    """One draw of the teacher for each of n galaxies.

    Attributes
    ----------
    theta : Tensor, shape (n, 9)
        All quantities given the known ones; these have their known values.
    free : Tensor, shape (n, 9)
        All quantities given the observations alone.
    measurable : Tensor, shape (n,)
        Probability that the gas metallicity is measurable.
    """

    theta: Tensor
    free: Tensor
    measurable: Tensor


@dataclass(frozen=True)
class LabelledBatch(TensorRecord):
    """Labelled galaxies of one training step.

    Attributes
    ----------
    galaxies : LabelledGalaxies
        n galaxies, augmented.
    targets : TeacherTargets or None
        Draws of the teacher; None to train on the labels alone.
    latent : tuple of Tensor, shape (n, latent_size) each, or None
        Mean and log variance of the image latent, if images are imputed.
    imputed : Tensor of bool, shape (n,), or None
        Galaxies with imputed image or morphology.
    """

    galaxies: LabelledGalaxies
    targets: TeacherTargets | None = None
    latent: tuple[Tensor, Tensor] | None = None
    imputed: Tensor | None = None


@dataclass(frozen=True)
class SimulatedBatch(TensorRecord):
    """Simulated galaxies of one training step, with draws of the teacher.

    Attributes
    ----------
    galaxies : EncodedGalaxies
        n galaxies.
    targets : TeacherTargets
        Draws of the teacher.
    """

    galaxies: EncodedGalaxies
    targets: TeacherTargets


class TeacherSamples:
    """Posterior draws of the teacher for n galaxies, made once.

    Parameters
    ----------
    teacher : PropertyNetwork
        Network with one head.
    inputs : ModelInputs
        Observations of n galaxies, without augmentation.
    theta : Tensor, shape (n, 9), optional
        Known quantities, NaN where unknown; by default all are unknown.
    latent : tuple of Tensor, shape (n, latent_size) each, optional
        Mean and log variance of the image latent, if images are encoded already.
    generator : `torch.Generator`, optional
        Source of randomness.
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
        for rows in torch.arange(len(inputs)).split(_BATCH):
            seen = inputs[rows].to(device)
            mu, logvar = teacher.latent(seen) if latent is None else (part[rows] for part in latent)
            contexts = teacher.contexts(seen, (mu.to(device), logvar.to(device)))
            free = _chain_posterior(teacher, contexts).sample(_N_DRAWS, generator)
            drawn = free
            if theta is not None:
                known = theta[rows].to(device).repeat_interleave(_N_DRAWS, dim=0)
                repeated = contexts.repeat_interleave(_N_DRAWS)
                posterior = _chain_posterior(teacher, repeated)
                completed = posterior.log_prob_and_completed(known, generator=generator)[1]
                values = teacher.chain.unstandardise(completed)
                drawn = torch.where(known.isfinite(), known, values).unflatten(0, (-1, _N_DRAWS))
            parts.append((drawn.cpu(), free.cpu(), teacher.measurable(contexts).cpu()))
        self._theta, self._free, self._measurable = (
            torch.cat(tensors) for tensors in zip(*parts, strict=True)
        )

    def pick(self, rows: Tensor, generator: torch.Generator) -> TeacherTargets:
        """Select one random draw of each of some galaxies.

        Parameters
        ----------
        rows : Tensor of int, shape (m,)
            Galaxies.
        generator : `torch.Generator`
            Source of randomness.

        Returns
        -------
        TeacherTargets
        """
        draw = torch.randint(_N_DRAWS, rows.shape, generator=generator)
        return TeacherTargets(
            self._theta[rows, draw], self._free[rows, draw], self._measurable[rows]
        )


class DistillationLoss:
    """Loss of labelled galaxies and of simulated galaxies that are mixed in.

    In training, a batch is a list of one `LabelledBatch` and any number of `SimulatedBatch`; in
    evaluation, it is `LabelledGalaxies`, of which only the quantities are scored.

    Parameters
    ----------
    band_sets : Tensor of bool, shape (k, 5), optional
        Frequent sets of bands of labelled galaxies whose redshift is learnt, see
        `frequent_band_sets`.  Redshifts of simulated galaxies with these bands have zero weight.
    redshift_weight : float, optional
        Weight of the other redshifts of simulated galaxies.
    """

    def __init__(self, band_sets: Tensor | None = None, redshift_weight: float = 1.0) -> None:
        empty = torch.zeros(0, len(BANDS), dtype=torch.bool)
        self.band_sets = empty if band_sets is None else band_sets
        self.redshift_weight = redshift_weight

    @classmethod
    def for_galaxies(cls, galaxies: LabelledGalaxies, *, any_filters: bool) -> DistillationLoss:
        """Return the loss for labelled galaxies.

        Parameters
        ----------
        galaxies : LabelledGalaxies
            Galaxies to learn from.
        any_filters : bool
            Whether the network reads photometry in any filters.

        Returns
        -------
        DistillationLoss
        """
        if not any_filters:
            return cls(frequent_band_sets(galaxies))
        learnt = bool(galaxies.learnt[:, _REDSHIFT].any())
        return cls(redshift_weight=_TEACHER_WEIGHT if learnt else 1.0)

    def __call__(
        self, network: PropertyNetwork, batches: Any, progress: float
    ) -> dict[str, Tensor]:
        """Evaluate the terms of the loss; ``total`` is minimised."""
        if not network.training:
            return self._evaluation_terms(network, batches)
        labelled, *simulated = batches
        terms = self._labelled_terms(network, labelled)
        for k, batch in enumerate(simulated):
            part = self._simulated_loss(network, batch, matching=labelled.latent is not None)
            terms |= {f"simulated_{k}": part}
            terms["total"] = terms["total"] + part
        return terms

    def _evaluation_terms(
        self, network: PropertyNetwork, galaxies: LabelledGalaxies
    ) -> dict[str, Tensor]:
        generator = torch.Generator(galaxies.theta.device).manual_seed(0)
        terms = network.loss(
            galaxies.inputs,
            galaxies.theta,
            torch.isfinite(galaxies.theta),
            quantity_weight=galaxies.learnt * galaxies.weight[:, None],
            elbo_weight=0.0,
            generator=generator,
        )
        return {"total": terms["flow"]}

    def _labelled_terms(self, network: PropertyNetwork, batch: LabelledBatch) -> dict[str, Tensor]:
        galaxies, targets, latent = batch.galaxies, batch.targets, batch.latent
        valid = torch.isfinite(galaxies.theta)
        weight = galaxies.learnt * galaxies.weight[:, None]
        if targets is None:
            return network.loss(galaxies.inputs, galaxies.theta, valid, quantity_weight=weight)
        weight = torch.where(valid, weight, _TEACHER_WEIGHT * galaxies.weight[:, None])
        if latent is None:
            latent = network.latent(galaxies.inputs)
        if batch.imputed is not None:
            # Matched galaxies have the same redshift, but not the same other quantities.
            weight[batch.imputed, _REDSHIFT + 1 :] = 0.0
        terms = network.loss(
            galaxies.inputs,
            targets.theta,
            torch.ones_like(valid),
            targets.measurable,
            quantity_weight=weight,
            elbo_weight=0.0,
            latent=latent,
        )
        condition = valid & ~galaxies.learnt
        rows = condition.any(1).nonzero()[:, 0]
        if len(rows):
            contexts = network.contexts(galaxies.inputs[rows], (latent[0][rows], latent[1][rows]))
            losses = self._condition_losses(network, contexts, targets.free[rows], condition[rows])
            terms["total"] = terms["total"] + (losses * galaxies.weight[rows]).sum() / len(galaxies)
        return terms

    def _condition_losses(
        self, network: PropertyNetwork, contexts: Contexts, free: Tensor, condition: Tensor
    ) -> Tensor:
        """Return losses of quantities that are conditions only, given the observations alone."""
        q = 1 + int(condition.any(0).nonzero().max())
        posterior = _chain_posterior(network, contexts)
        log_prob = posterior.log_prob_and_completed(free, q=q)[0]
        return -_TEACHER_WEIGHT * (log_prob * condition[:, :q]).sum(-1)

    def _simulated_loss(
        self, network: PropertyNetwork, batch: SimulatedBatch, *, matching: bool
    ) -> Tensor:
        inputs, targets = batch.galaxies.inputs, batch.targets
        weight = torch.ones_like(targets.theta)
        weight[:, _REDSHIFT] = self.redshift_weight
        if len(self.band_sets):
            same_bands = inputs.photometry_bands[:, None] == self.band_sets.to(weight.device)
            labelled = same_bands.all(-1).any(-1) & ~inputs.measured
            weight[labelled & (matching | ~inputs.has_image), _REDSHIFT] = 0.0
        return network.loss(
            inputs,
            targets.theta,
            torch.isfinite(targets.theta),
            targets.measurable,
            quantity_weight=weight,
            latent=batch.galaxies.latent,
        )["total"]


def encode_shards(
    network: PropertyNetwork,
    folder: str | Path,
    n_max: int,
    seed: int,
    labelled_filters: Sequence[str] = (),
) -> EncodedGalaxies:
    """Observe and encode simulated galaxies of a folder of shards.

    Parameters
    ----------
    network : PropertyNetwork
        Network with the encoder, which is not trained.
    folder : path
        Shards of `astrogenspec.simulate.write_shards`, with images or with photometry only. The
        validation part of the first training is left out.
    n_max : int
        Maximum number of galaxies.
    seed : int
        Seed of the selection, the noise and the input modes.
    labelled_filters : sequence of str, optional
        Names of the filters of labelled galaxies.  Networks for any filters are trained on
        simulated galaxies in other sets of filters than these.

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
    chosen = torch.randperm(len(shards), generator=generator)[:n_max]
    observer = None
    if network.components is not None:
        bank = FilterBank(sets_with_other_filters(labelled_filters))
        observer = FilterObserver(bank, network.components)
    return encode_galaxies(network, shards, chosen, config, generator, observer)


def _chain_posterior(network: PropertyNetwork, contexts: Contexts) -> ChainPosterior:
    """Return the posterior of a network with one head."""
    (vectors,) = contexts.vectors
    return network.chain(vectors)
