r"""Joint flows of blocks of quantities, as in "From Images to Physics".

The posterior of the nine quantities is that of Siddiqa, Mahmud & Martinez-Galarza
(arXiv:2511.12737): a coupling flow (`astrogenspec.inference.coupling`) of redshift, stellar mass,
star-formation rate and black-hole mass; a flow of one number for the gas metallicity given these;
and a coupling flow of the four lines,

.. math:: p(\theta \mid c) = p(\phi \mid c)\, p(\mathrm{O/H} \mid \phi, c)\,
          p(\mathrm{lines} \mid \phi, c) , \qquad
          \phi = (z, M_*, \mathrm{SFR}, M_\mathrm{BH}) .

The first and the last factor are joint densities: they can be trained only on galaxies of which all
four quantities are known, and cannot be conditioned on one of them.  Quantities are mapped to the
real line as in `astrogenspec.inference.flows`, so that draws are inside their bounds.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..nn.noise import standard_normal
from ..nn.splines import spline_log_prob, spline_sample
from ..quantities import QUANTITIES, quantity_index
from .coupling import CouplingFlow
from .flows import ChainPosterior, ConditionalFactor, QuantitySupports

__all__ = ["BlockChain", "BlockPosterior"]

#: Columns of the quantities of the three blocks.
_CORE = [quantity_index(n) for n in ("redshift", "stellar_mass", "sfr", "black_hole_mass")]
_METALLICITY = quantity_index("gas_metallicity")
_LINES = [k for k, info in enumerate(QUANTITIES.values()) if info.logarithmic]
#: Numbers of quantities, from the first, whose density is a product of blocks.
_PREFIXES = (len(_CORE) + 1, len(QUANTITIES))
_LIMIT = 6.0


class BlockPosterior(ChainPosterior):
    """Posterior of a batch of galaxies.

    Parameters
    ----------
    chain : BlockChain
        Flows, supports and standardisation.
    context : Tensor, shape (n, context_size)
        One context vector for each galaxy.
    """

    chain: BlockChain

    def __getitem__(self, rows: slice) -> BlockPosterior:
        """Select galaxies."""
        return BlockPosterior(self.chain, self.context[rows])

    def log_prob_and_completed(
        self,
        theta: Tensor,
        valid: Tensor | None = None,
        generator: torch.Generator | None = None,
        *,
        q: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Evaluate log densities, and replace unknown standardised quantities by draws.

        Parameters
        ----------
        theta, valid, generator, q
            As for `ChainPosterior.log_prob_and_completed`.

        Returns
        -------
        log_prob : Tensor, shape (n, q)
            The joint density of a block is in the column of its last quantity, the others are zero.
            A block of which a quantity is not valid has zeros.
        completed : Tensor, shape (n, q)
        """
        chain, context = self.chain, self.context
        finite = torch.isfinite(theta)
        valid = finite if valid is None else valid & finite
        inside = (theta > chain.lower) & (theta < chain.upper)
        known = valid & inside
        y, log_jacobian = chain.standardise(torch.where(known, theta, chain.middle))
        noise = standard_normal(y.shape, generator, theta.device).to(y)
        with torch.no_grad():
            # A block is drawn as a whole, given the earlier ones.
            completed = self._drawn(noise[:, None], y[:, None], known[:, None])[:, 0]
        core = completed[:, None, _CORE].clamp(-_LIMIT, _LIMIT)
        log_prob = torch.zeros_like(y)
        nothing = core[..., :0]
        log_prob[:, _CORE[-1]] = chain.core.log_prob(y[:, None, _CORE], context, nothing)[:, 0]
        spline = chain.metallicity(context, core[:, 0])
        log_prob[:, _METALLICITY] = spline_log_prob(spline, y[:, _METALLICITY])
        log_prob[:, _LINES[-1]] = chain.lines.log_prob(y[:, None, _LINES], context, core)[:, 0]
        for columns in (_CORE, [_METALLICITY], _LINES):
            last = columns[-1]
            log_prob[:, last] += log_jacobian[:, columns].sum(1)
            outside = (valid & ~inside)[:, columns].any(1)
            log_prob[:, last] = torch.where(outside, -torch.inf, log_prob[:, last])
            log_prob[:, columns] = torch.where(
                valid[:, columns].all(1, keepdim=True), log_prob[:, columns], 0.0
            )
        return log_prob[:, :q], completed[:, :q]

    @torch.no_grad()
    def transform_noise(self, noise: Tensor, known: Tensor | None = None) -> Tensor:
        """Transform standard normal numbers to draws from the joint posterior.

        Parameters
        ----------
        noise : Tensor, shape (n, draws, D)
        known : None
            A joint flow cannot be conditioned.

        Returns
        -------
        theta : Tensor, shape (n, draws, D)
        """
        nothing = torch.zeros((), dtype=torch.bool, device=noise.device).expand(noise.shape)
        return self.chain.unstandardise(self._drawn(noise, noise, nothing))

    def _drawn(self, noise: Tensor, y: Tensor, known: Tensor) -> Tensor:
        """Return standardised draws, or the values of the blocks that are known.

        All have the shape (n, draws, D).
        """
        chain, context = self.chain, self.context
        found = torch.empty_like(noise)

        def fill(columns: list[int], drawn: Tensor) -> None:
            whole = known[..., columns].all(-1, keepdim=True)
            found[..., columns] = torch.where(whole, y[..., columns], drawn)

        fill(_CORE, chain.core.transform(noise[..., _CORE], context, noise[..., :0]))
        core = found[..., _CORE].clamp(-_LIMIT, _LIMIT)
        splines = chain.metallicity.evaluate_draws(context, core.permute(2, 0, 1).contiguous())
        fill([_METALLICITY], spline_sample(splines, noise[..., _METALLICITY])[..., None])
        fill(_LINES, chain.lines.transform(noise[..., _LINES], context, core))
        return found

    def check(self, n_draws: int, known: Tensor | None) -> None:
        """Raise `ValueError` if the arguments of `sample` are invalid."""
        super().check(n_draws, known)
        if known is not None:
            self.chain.check_prefix(0, "known")


class BlockChain(QuantitySupports):
    """Coupling flows of blocks of quantities.

    Parameters
    ----------
    context_size : int
        Length of the context vector.
    lower, upper : sequence of float
        Support of each quantity.
    n_layers : int
        Coupling layers of each of the two joint flows.
    hidden : int
        Width of the networks.
    n_bins : int
        Spline bins of the gas metallicity.
    """

    def __init__(
        self,
        context_size: int,
        *,
        lower: Sequence[float],
        upper: Sequence[float],
        n_layers: int,
        hidden: int,
        n_bins: int = 8,
    ) -> None:
        super().__init__(lower, upper)
        size = len(_CORE)
        self.core = CouplingFlow(size, context_size, n_layers=n_layers, hidden=hidden)
        self.metallicity = ConditionalFactor(context_size, size, hidden=hidden, n_bins=n_bins)
        self.lines = CouplingFlow(len(_LINES), context_size, size, n_layers=n_layers, hidden=hidden)

    def forward(self, context: Tensor) -> BlockPosterior:
        """Return the posterior for context vectors of shape (n, context_size)."""
        return BlockPosterior(self, context)

    def check_prefix(self, q: int, argument: str) -> None:
        """Raise `ValueError` if the first q quantities have no density of their own.

        Parameters
        ----------
        q : int
            Number of quantities.
        argument : str
            Name of the argument of the user.
        """
        if q not in _PREFIXES:
            names = list(QUANTITIES)
            raise ValueError(
                f"{argument} has a part of the quantities only, but these weights have a joint "
                f"flow of {', '.join(names[k] for k in _CORE)}, which cannot be evaluated for, or "
                "conditioned on, some of them; use other weights."
            )
