"""Mixture of the posteriors of several heads: densities, and stratified sampling."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..nn.chunks import map_chunks
from ..nn.noise import ObjectStreams, standard_normal
from .flows import DRAWS_PER_CHUNK, ChainPosterior

__all__ = ["MixturePosterior"]

#: Multiples of the golden ratio, modulo 1, fill the unit interval evenly, however many there are.
_GOLDEN_RATIO = (math.sqrt(5) - 1) / 2


class MixturePosterior:
    """Mixture of the posteriors of several heads, as a distribution like `ChainPosterior`.

    Parameters
    ----------
    components : sequence of ChainPosterior
        Posteriors of the same n galaxies, with the same supports and standardisation.
    weight : Tensor, shape (components, n), optional
        Mixture weights, which sum to one for each galaxy; equal by default.
    """

    def __init__(self, components: Sequence[ChainPosterior], weight: Tensor | None = None) -> None:
        self.components = list(components)
        if weight is None:
            like = self.components[0].context
            n = len(self.components)
            weight = like.new_full((n, len(like)), 1 / n)
        self.weight = weight

    def __len__(self) -> int:
        return len(self.components[0])

    def __repr__(self) -> str:
        return f"MixturePosterior(n_galaxies={len(self)}, n_components={len(self.components)})"

    def log_prob(
        self,
        theta: Tensor,
        valid: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Evaluate the log density of each quantity given the previous ones.

        Parameters
        ----------
        theta, valid, generator
            As for `ChainPosterior.log_prob`.

        Returns
        -------
        log_prob : Tensor, shape (n, D)
            Conditional log densities; their cumulative sums over the last axis are log densities of
            the mixture.
        """
        terms = torch.stack([m.log_prob(theta, valid, generator) for m in self.components])
        inside = terms[0].isfinite()
        joint = torch.where(inside, terms, 0.0).cumsum(-1)
        joint = (joint + self.weight.log()[..., None]).logsumexp(0)
        first = torch.zeros_like(joint[:, :1])
        return torch.where(inside, joint.diff(dim=-1, prepend=first), terms[0])

    @torch.no_grad()
    def sample(
        self,
        n_draws: int,
        generator: torch.Generator | ObjectStreams | None = None,
        known: Tensor | None = None,
    ) -> Tensor:
        """Draw from the joint posterior by stratified sampling of the components.

        Each component makes a fraction of the draws equal to its weight, interleaved with those of
        the other components, so that the first draws are a representative sample too.

        Parameters
        ----------
        n_draws, generator, known
            As for `ChainPosterior.sample`.

        Returns
        -------
        theta : Tensor, shape (n, n_draws, D)

        Raises
        ------
        ValueError
            As for `ChainPosterior.sample`.
        """
        first = self.components[0]
        first.check(n_draws, known)
        device, size = first.context.device, first.chain.n_quantities
        # One more random number for each galaxy shifts the sequence of components.
        noise = standard_normal((len(self), n_draws * size + 1), generator, device)
        offset = torch.special.ndtr(noise[:, -1:])
        theta = noise[:, :-1].unflatten(1, (n_draws, size))

        def draw(rows: slice) -> None:
            components = [component[rows] for component in self.components]
            part = None if known is None else known[rows]
            position = (
                offset[rows]
                + _GOLDEN_RATIO * torch.arange(n_draws, device=device, dtype=torch.float32)
            ) % 1
            upper = _conditional_weights(components, self.weight[:, rows], part).cumsum(0)
            # Without this, rounding could assign draws to a last component of zero weight.
            upper = upper / upper[-1:]
            owner = (position[None] >= upper[:-1, :, None]).sum(0)
            theta[rows] = _draw_components(components, owner, theta[rows], part)

        map_chunks(draw, len(self), max(1, DRAWS_PER_CHUNK // n_draws), device)
        return theta


def _conditional_weights(
    components: list[ChainPosterior], weight: Tensor, known: Tensor | None
) -> Tensor:
    """Return the mixture weights given the known quantities, shape (components, n)."""
    if known is None:
        return weight
    expected = torch.stack([c.prefix_log_prob(known) for c in components])
    return (weight.log() + expected).softmax(0)


def _draw_components(
    components: list[ChainPosterior], owner: Tensor, noise: Tensor, known: Tensor | None
) -> Tensor:
    """Transform noise to draws, each by the component of index ``owner``, shape (n, draws)."""
    theta = torch.empty_like(noise)
    for k, component in enumerate(components):
        own = owner == k
        n_own = int(own.sum(1).max())
        if n_own == 0:
            continue
        # Columns of its draws first; galaxies with fewer than n_own of them make surplus draws,
        # which are discarded.
        columns = own.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :n_own]
        at = columns[..., None].expand(-1, -1, noise.shape[-1])
        drawn = component.transform_noise(noise.gather(1, at), known)
        used = own.gather(1, columns)[..., None]
        theta.scatter_(1, at, torch.where(used, drawn, theta.gather(1, at)))
    return theta
