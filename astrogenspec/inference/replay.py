"""The loss of a network that learns from real galaxies and forgets nothing.

What a galaxy has no label of is taught by the network as it was before, by draws given what is known (replay); so is all that it
said of simulated galaxies (rehearsal).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .flows import ChainPosterior
from .labelled import LabelledGalaxies
from .model import PropertyNetwork
from .rehearsal import EncodedGalaxies

__all__ = ["ReplayLoss"]

#: Weight of quantities that only the former network teaches.
_REPLAY = 0.3


class ReplayLoss:
    """Loss of a step: labelled galaxies, with replay of what they lack, and simulated ones.

    Parameters
    ----------
    teacher : PropertyNetwork or None
        The network as it was before, of one head; None without replay.
    with_redshifts : bool
        Whether there are redshifts among the labels: then real galaxies alone teach how photometry tells them.
    """

    def __init__(self, teacher: PropertyNetwork | None, *, with_redshifts: bool = False) -> None:
        self.teacher = teacher
        self.with_redshifts = with_redshifts

    def __call__(
        self, network: PropertyNetwork, batches: Any, progress: float
    ) -> dict[str, Tensor]:
        """Evaluate the loss of a step; in evaluation, of galaxies that were held out."""
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
            part = self._conditions(network, galaxies[rows], condition[rows])
            terms["total"] = terms["total"] + part * len(rows) / len(galaxies)
        return terms

    def _conditions(
        self, network: PropertyNetwork, galaxies: LabelledGalaxies, condition: Tensor
    ) -> Tensor:
        """Teach what is only a condition too, given the observations alone."""
        q = 1 + int(condition.any(0).nonzero().max())
        with torch.no_grad():
            former = _chain_posterior(self.teacher, self.teacher.contexts(galaxies.inputs))
            nothing = torch.zeros_like(condition)
            drawn = former.log_prob_and_completed(galaxies.theta, nothing, q=q)[1]
            theta = galaxies.theta.clone()
            theta[:, :q] = self.teacher.chain.unstandardise(drawn)
        posterior = _chain_posterior(network, network.contexts(galaxies.inputs))
        log_prob = posterior.log_prob_and_completed(theta, theta.isfinite(), q=q)[0]
        return -_REPLAY * (log_prob * condition[:, :q]).sum(-1).mean()

    @torch.no_grad()
    def _taught(self, galaxies: LabelledGalaxies, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Fill in what is not valid from the former network; and its P(metallicity is measurable)."""
        contexts = self.teacher.contexts(galaxies.inputs)
        posterior = _chain_posterior(self.teacher, contexts)
        drawn = posterior.log_prob_and_completed(galaxies.theta, valid)[1]
        theta = torch.where(valid, galaxies.theta, self.teacher.chain.unstandardise(drawn))
        return theta, self.teacher.measurable(contexts)

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
        contexts = self.teacher.contexts(batch.inputs, (batch.mu, batch.logvar))
        drawn = self.teacher.posterior_of(contexts).sample(1)[:, 0]
        return drawn, self.teacher.measurable(contexts)


def _chain_posterior(network: PropertyNetwork, contexts: Tensor) -> ChainPosterior:
    """Return the posterior of a network of one head, for what its `contexts` gives."""
    (context,) = contexts
    return network.chain(context)
