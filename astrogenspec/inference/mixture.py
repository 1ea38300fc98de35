r"""The posterior of an ensemble: a mixture of the joint posteriors of its members.

.. math:: p(\theta \mid x) = \sum_m s_m(x) \, p_m(\theta \mid x) .

The shares :math:`s_m` are equal among the members that read a galaxy, and zero of others. A density of the first few quantities
is the same mean of theirs. Given the first quantities of a galaxy, a member counts as much as it expected them: the mixture
conditioned on them has weights :math:`w_m \propto s_m \, p_m(\theta_{\leq q} \mid x)`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..nn.noise import standard_normal
from ..nn.pieces import each_piece
from .flows import DRAWS_PER_PIECE, ChainPosterior

__all__ = ["MixturePosterior"]

#: Fraction of the golden ratio: multiples of it, modulo 1, fill the interval evenly however many there are.
_GOLDEN = (math.sqrt(5) - 1) / 2


class MixturePosterior:
    """The posterior of a batch of galaxies by several members, as a distribution like `ChainPosterior`.

    Parameters
    ----------
    members : sequence of ChainPosterior
        Of the same n galaxies; supports and scales are the same too.
    share : Tensor, shape (members, n), optional
        How much each member counts for each galaxy, with sums over the members of one; the same by default.
    """

    def __init__(self, members: Sequence[ChainPosterior], share: Tensor | None = None) -> None:
        self.members = list(members)
        if share is None:
            like = self.members[0].context
            share = like.new_full((len(self.members), len(like)), 1 / len(self.members))
        self.share = share

    def __len__(self) -> int:
        return len(self.members[0])

    def __repr__(self) -> str:
        return f"MixturePosterior(n_galaxies={len(self)}, n_members={len(self.members)})"

    def log_prob(
        self,
        theta: Tensor,
        valid: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Evaluate the logarithm of each factor's density, in units of theta.

        Parameters
        ----------
        theta, valid, generator
            As for `ChainPosterior.log_prob`.

        Returns
        -------
        log_prob : Tensor, shape (n, D)
            As from `ChainPosterior.log_prob`: cumulative sums over the last axis are log densities of the mixture.
        """
        terms = torch.stack([m.log_prob(theta, valid, generator) for m in self.members])
        inside = terms[0].isfinite()
        joint = torch.where(inside, terms, 0.0).cumsum(-1)
        joint = (joint + self.share.log()[..., None]).logsumexp(0)
        first = torch.zeros_like(joint[:, :1])
        return torch.where(inside, joint.diff(dim=-1, prepend=first), terms[0])

    @torch.no_grad()
    def sample(
        self, n_draws: int, generator: torch.Generator | None = None, known: Tensor | None = None
    ) -> Tensor:
        """Draw from the joint posterior; every member gives its share of the draws, in turns.

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
        first = self.members[0]
        first.check(n_draws, known)
        device, size = first.context.device, first.chain.n_quantities
        # One more number a galaxy says whose turn is first, so that galaxies still come one after another.
        noise = standard_normal((len(self), n_draws * size + 1), generator, device)
        turn = torch.special.ndtr(noise[:, -1:])
        theta = noise[:, :-1].unflatten(1, (n_draws, size))

        def draw(rows: slice) -> None:
            members = [member[rows] for member in self.members]
            part = None if known is None else known[rows]
            turns = (turn[rows] + _GOLDEN * torch.arange(n_draws, device=device)) % 1
            upper = _weights(members, self.share[:, rows], part).cumsum(0)
            # Rounded sums below one would give draws to a last member that has no share.
            upper = upper / upper[-1:]
            owner = (turns[None] >= upper[:-1, :, None]).sum(0)
            theta[rows] = _drawn(members, owner, theta[rows], part)

        each_piece(draw, len(self), max(1, DRAWS_PER_PIECE // n_draws), device)
        return theta


def _weights(members: list[ChainPosterior], share: Tensor, known: Tensor | None) -> Tensor:
    """How much each member counts given what is known, shape (members, n)."""
    if known is None:
        return share
    expected = torch.stack([member.prefix_log_prob(known) for member in members])
    return (share.log() + expected).softmax(0)


def _drawn(
    members: list[ChainPosterior], owner: Tensor, noise: Tensor, known: Tensor | None
) -> Tensor:
    """Let each member make the draws that it owns; ``owner`` has shape (n, draws)."""
    theta = torch.empty_like(noise)
    for k, member in enumerate(members):
        own = owner == k
        most = int(own.sum(1).max())
        if most == 0:
            continue
        # The columns of its draws come first; galaxies with fewer of them make some that nobody asked for.
        columns = own.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :most]
        at = columns[..., None].expand(-1, -1, noise.shape[-1])
        drawn = member.draws_from(noise.gather(1, at), known)
        mine = own.gather(1, columns)[..., None]
        theta.scatter_(1, at, torch.where(mine, drawn, theta.gather(1, at)))
    return theta
