r"""A chain of conditional one-dimensional flows: the joint posterior of several bounded quantities.

The posterior of :math:`\theta = (\theta_1, \dots, \theta_D)` given a context vector :math:`c` of the galaxy is

.. math:: p(\theta \mid c) = \prod_k p(\theta_k \mid \theta_{<k}, c) .

Each quantity is first mapped from its support to the real line, :math:`y_k = (\mathrm{logit}\,t_k - m_k) / s_k` with
:math:`t_k = (\theta_k - l_k) / (u_k - l_k)`, where :math:`m_k, s_k` standardise the training set. The density of :math:`y_k` is
an affine map and a monotonic spline (`astrogenspec.nn.splines`) whose numbers come from a small network that sees the context and
the earlier :math:`y`. So every draw lies inside the support, and a galaxy of which only some quantities are known trains the
factors of those: an unknown earlier quantity is replaced by a draw from its own factor.

The network, in the taste of zuko, returns a distribution: ``chain(context).log_prob(theta)``, ``chain(context).sample(1000)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nn.chunks import map_chunks
from ..nn.noise import standard_normal
from ..nn.splines import n_spline_parameters, spline_log_prob, spline_sample

__all__ = ["DRAWS_PER_CHUNK", "ChainPosterior", "ConditionalFactor", "FlowChain"]

#: Draws whose hidden features are made at a time: as many as fit the cache.
_COLUMNS = 4096


class ConditionalFactor(nn.Module):
    """The network of one factor: context and earlier quantities to the numbers of a density.

    The context enters through one linear map that is evaluated once for each galaxy, whatever the number of draws.

    Parameters
    ----------
    context_size : int
        Length of the context vector.
    n_earlier : int
        Number of earlier quantities.
    hidden : int
        Width of the two hidden layers.
    n_bins : int
        Number of spline bins.
    """

    def __init__(self, context_size: int, n_earlier: int, *, hidden: int, n_bins: int) -> None:
        super().__init__()
        self.of_context = nn.Linear(context_size, hidden)
        self.of_earlier = nn.Linear(n_earlier, hidden, bias=False) if n_earlier else None
        self.hidden = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, n_spline_parameters(n_bins))
        nn.init.normal_(self.out.weight, std=0.01)
        nn.init.zeros_(self.out.bias)

    def forward(self, context: Tensor, earlier: Tensor) -> Tensor:
        """Map (n, context_size) and (n, n_earlier) to parameters of shape (n, 3 K + 1)."""
        features = self.of_context(context)
        if self.of_earlier is not None:
            features = features + self.of_earlier(earlier)
        return self.out(F.silu(self.hidden(F.silu(features))))

    def workspace(self, draws: int) -> Tensor:
        """Make memory for the hidden features of `evaluate_draws`."""
        size = self.hidden.out_features + 1
        return self.hidden.weight.new_empty(2, size, max(_COLUMNS, draws))

    @torch.no_grad()
    def evaluate_draws(
        self, context: Tensor, earlier: Tensor, workspace: Tensor | None = None
    ) -> Tensor:
        """Evaluate the network for many draws of each galaxy, without gradient.

        Parameters
        ----------
        context : Tensor, shape (n, context_size)
        earlier : Tensor, shape (n_earlier, n, draws)
        workspace : Tensor, shape (2, hidden + 1, columns), optional
            Memory for hidden features of some galaxies, at least ``draws`` columns; fresh memory costs as much as the
            arithmetic.

        Returns
        -------
        parameters : Tensor, shape (3 K + 1, n, draws), or (3 K + 1, n, 1) for the first factor
        """
        features = self.of_context(context).T
        hidden, n = features.shape
        draws = 1 if self.of_earlier is None else earlier.shape[-1]
        if workspace is None:
            workspace = self.workspace(draws)
        # A row of ones below the features adds the bias within the product of the matrices.
        workspace[:, -1] = 1
        second, third = (
            torch.cat([layer.weight, layer.bias[:, None]], 1) for layer in (self.hidden, self.out)
        )
        parameters = features.new_empty(len(third), n * draws)
        step = workspace.shape[-1] // draws
        for start in range(0, n, step):
            rows = slice(start, min(start + step, n))
            columns = slice(rows.start * draws, rows.stop * draws)
            one, two = workspace[..., : columns.stop - columns.start]
            if self.of_earlier is None:
                one[:-1] = features[:, rows]
            else:
                known = earlier[:, rows].reshape(len(earlier), -1)
                torch.mm(self.of_earlier.weight, known, out=one[:-1])
                one[:-1].unflatten(1, (-1, draws)).add_(features[:, rows, None])
            F.silu(one[:-1], inplace=True)
            torch.mm(second, one, out=two[:-1])
            F.silu(two[:-1], inplace=True)
            torch.mm(third, two, out=parameters[:, columns])
        return parameters.view(-1, n, draws)


_EARLIER_LIMIT = 6.0
_UNIT_MARGIN = 1e-6
#: Draws of a piece, which one thread makes: more are no faster and take more memory.
DRAWS_PER_CHUNK = 65536


class ChainPosterior:
    """The posterior of a batch of galaxies, as a distribution.

    Parameters
    ----------
    chain : FlowChain
        The networks and the supports.
    context : Tensor, shape (n, context_size)
        One context vector a galaxy.
    """

    def __init__(self, chain: FlowChain, context: Tensor) -> None:
        self.chain = chain
        self.context = context

    def __len__(self) -> int:
        return len(self.context)

    def __getitem__(self, rows: slice) -> ChainPosterior:
        """Select galaxies."""
        return ChainPosterior(self.chain, self.context[rows])

    def __repr__(self) -> str:
        return f"ChainPosterior(n_galaxies={len(self)}, n_quantities={self.chain.n_quantities})"

    def log_prob(
        self,
        theta: Tensor,
        valid: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Evaluate the logarithm of each factor's density, in units of theta.

        Parameters
        ----------
        theta : Tensor, shape (n, D)
            Quantities; any number (NaN too) where `valid` is False.
        valid : Tensor of bool, shape (n, D), optional
            Which are known; those that are finite if missing.
        generator : `torch.Generator`, optional
            Source of the draws which replace unknown earlier quantities.

        Returns
        -------
        log_prob : Tensor, shape (n, D)
            Zero where not valid, minus infinity where a valid quantity lies outside its support. The sum over the
            last axis is the joint log density where everything is valid.
        """
        return self.log_prob_and_completed(theta, valid, generator)[0]

    def log_prob_and_completed(
        self,
        theta: Tensor,
        valid: Tensor | None = None,
        generator: torch.Generator | None = None,
        *,
        q: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Evaluate `log_prob` and also return the standardised quantities with the unknown ones drawn.

        Parameters
        ----------
        theta, valid, generator
            As for `log_prob`.
        q : int, optional
            Stop after the first q quantities; by default all of them count.

        Returns
        -------
        log_prob : Tensor, shape (n, q)
        completed : Tensor, shape (n, q)
            Standardised, without gradient.
        """
        chain = self.chain
        finite = torch.isfinite(theta)
        valid = finite if valid is None else valid & finite
        inside = (theta > chain.lower) & (theta < chain.upper)
        known = valid & inside
        y, log_jacobian = chain.standardise(torch.where(known, theta, chain.middle))
        columns: list[Tensor] = []
        parameters = []
        for k, factor in enumerate(chain.factors[:q]):
            earlier = torch.stack(columns, -1) if columns else y[:, :0]
            numbers = factor(self.context, earlier.clamp(-_EARLIER_LIMIT, _EARLIER_LIMIT))
            parameters.append(numbers)
            if bool(known[:, k].all()):
                columns.append(y[:, k])
            else:
                noise = standard_normal(known[:, k].shape, generator, theta.device)
                drawn = spline_sample(numbers.detach().T, noise)
                columns.append(torch.where(known[:, k], y[:, k], drawn))
        log_prob = _log_densities(parameters, y) + log_jacobian[:, :q]
        log_prob = torch.where(inside[:, :q], log_prob, -torch.inf)
        return torch.where(valid[:, :q], log_prob, 0.0), torch.stack(columns, -1)

    @torch.no_grad()
    def sample(
        self, n_draws: int, generator: torch.Generator | None = None, known: Tensor | None = None
    ) -> Tensor:
        """Draw from the joint posterior.

        Galaxies are treated in pieces, so memory stays bounded; the draws do not depend on the pieces.

        Parameters
        ----------
        n_draws : int
            Number of draws for each galaxy.
        generator : `torch.Generator`, optional
            Source of randomness.
        known : Tensor, shape (n, q), optional
            The first q quantities of the chain where they are known (for example a spectroscopic redshift, q = 1): the others
            are then drawn from their conditional posterior. NaN where a galaxy's value is unknown.

        Returns
        -------
        theta : Tensor, shape (n, n_draws, D)

        Raises
        ------
        ValueError
            If `n_draws` is not positive, or a known value lies outside its support, or follows an unknown one.
        """
        self.check(n_draws, known)
        device = self.context.device
        theta = standard_normal((len(self), n_draws, self.chain.n_quantities), generator, device)

        def draw(rows: slice) -> None:
            theta[rows] = self[rows].transform_noise(
                theta[rows], None if known is None else known[rows]
            )

        map_chunks(draw, len(self), max(1, DRAWS_PER_CHUNK // n_draws), device)
        return theta

    @torch.no_grad()
    def transform_noise(self, noise: Tensor, known: Tensor | None = None) -> Tensor:
        """Map standard normal numbers to draws of the joint posterior.

        Parameters
        ----------
        noise : Tensor, shape (n, draws, D)
        known : Tensor, shape (n, q), optional
            As for `sample`.

        Returns
        -------
        theta : Tensor, shape (n, draws, D)
        """
        workspace = self.chain.factors[0].workspace(noise.shape[1])
        noise = noise.permute(2, 0, 1).contiguous()
        y = torch.empty(noise.shape, device=noise.device)
        n_known = 0 if known is None else known.shape[1]
        if n_known:
            fixed = self._standardised(known)
        earlier = torch.empty_like(y)
        for k, factor in enumerate(self.chain.factors):
            y[k] = spline_sample(
                factor.evaluate_draws(self.context, earlier[:k], workspace), noise[k]
            )
            if k < n_known:
                y[k] = torch.where(known[:, k, None].isfinite(), fixed[:, k, None], y[k])
            torch.clamp(y[k], -_EARLIER_LIMIT, _EARLIER_LIMIT, out=earlier[k])
        return self.chain.unstandardise(y.permute(1, 2, 0))

    @torch.no_grad()
    def prefix_log_prob(self, known: Tensor) -> Tensor:
        """Evaluate the log density of the first q quantities, up to a constant that all networks of one scale share.

        Parameters
        ----------
        known : Tensor, shape (n, q)
            NaN where unknown: such a quantity counts nothing, nor does any after it.

        Returns
        -------
        log_prob : Tensor, shape (n,)
        """
        y = self._standardised(known)
        earlier = y.clamp(-_EARLIER_LIMIT, _EARLIER_LIMIT)
        total = y.new_zeros(len(y))
        for k, factor in enumerate(self.chain.factors[: known.shape[1]]):
            term = spline_log_prob(factor(self.context, earlier[:, :k]), y[:, k])
            total += torch.where(known[:, k].isfinite(), term, 0.0)
        return total

    def check(self, n_draws: int, known: Tensor | None) -> None:
        """Raise `ValueError` for arguments that `sample` cannot use."""
        if n_draws < 1:
            raise ValueError(f"n_draws must be at least 1, not {n_draws}.")
        if known is None:
            return
        q = known.shape[-1]
        if known.ndim != 2 or len(known) != len(self) or q > self.chain.n_quantities:
            raise ValueError(
                f"known has shape {tuple(known.shape)}; give ({len(self)}, q), the first q quantities "
                "of the chain, with NaN where unknown."
            )
        finite = known.isfinite()
        outside = finite & ~((known > self.chain.lower[:q]) & (known < self.chain.upper[:q]))
        if bool(outside.any()):
            raise ValueError(
                f"known value {known[outside][0].item()} lies outside the support of its quantity."
            )
        if bool((finite[:, 1:] & ~finite[:, :-1]).any()):
            raise ValueError("known quantities must be the first ones of the chain, without gaps.")

    def _standardised(self, known: Tensor) -> Tensor:
        """Standardise the first q quantities, shape (n, D); the middle of the support where unknown."""
        middle = self.chain.middle.expand(len(known), -1).clone()
        q = known.shape[1]
        middle[:, :q] = torch.where(known.isfinite(), known, middle[:, :q])
        return self.chain.standardise(middle)[0]


def _log_densities(parameters: Sequence[Tensor], y: Tensor) -> Tensor:
    """Evaluate the densities of q factors at y, shape (n, q); those with as many bins at once, as calls cost more than numbers."""
    terms: list[Tensor] = []
    for _, alike in groupby(parameters, key=lambda numbers: numbers.shape[-1]):
        some = torch.stack(tuple(alike), dim=1)
        first = sum(term.shape[1] for term in terms)
        terms.append(spline_log_prob(some, y[:, first : first + some.shape[1]]))
    return torch.cat(terms, dim=1)


class FlowChain(nn.Module):
    """An autoregressive chain of conditional flows over bounded quantities.

    Parameters
    ----------
    context_size : int
        Length of the context vector.
    lower, upper : sequence of float
        Support of each quantity, in chain order.
    n_bins : int or sequence of int, optional
        Spline bins of each factor.
    hidden : int, optional
        Width of the factors' networks.
    """

    def __init__(
        self,
        context_size: int,
        *,
        lower: Sequence[float],
        upper: Sequence[float],
        n_bins: int | Sequence[int] = 8,
        hidden: int = 64,
    ) -> None:
        super().__init__()
        n = len(lower)
        bins = [n_bins] * n if isinstance(n_bins, int) else list(n_bins)
        if not len(upper) == len(bins) == n:
            raise ValueError(
                f"lower, upper and n_bins name {n}, {len(upper)} and {len(bins)} quantities."
            )
        self.register_buffer("lower", torch.tensor(lower, dtype=torch.float32))
        self.register_buffer("upper", torch.tensor(upper, dtype=torch.float32))
        self.register_buffer("location", torch.zeros(n))
        self.register_buffer("scale", torch.ones(n))
        self.factors = nn.ModuleList(
            ConditionalFactor(context_size, k, hidden=hidden, n_bins=bins[k]) for k in range(n)
        )

    @property
    def n_quantities(self) -> int:
        """Number of quantities."""
        return len(self.factors)

    @property
    def middle(self) -> Tensor:
        """Centre of each support, shape (D,)."""
        return 0.5 * (self.lower + self.upper)

    def forward(self, context: Tensor) -> ChainPosterior:
        """Return the posterior for context vectors of shape (n, context_size)."""
        return ChainPosterior(self, context)

    @torch.no_grad()
    def set_standardisation(self, theta: Tensor, valid: Tensor | None = None) -> None:
        """Take location and scale of each quantity on the real line from a training set.

        Parameters
        ----------
        theta : Tensor, shape (n, D)
            Training labels.
        valid : Tensor of bool, shape (n, D), optional
            Which labels exist; those that are finite and inside the support if missing. A quantity with fewer
            than two labels keeps what it has.
        """
        inside = torch.isfinite(theta) & (theta > self.lower) & (theta < self.upper)
        valid = inside if valid is None else valid & inside
        logit = torch.logit(self._unit(torch.where(valid, theta, self.middle)))
        for k in range(self.n_quantities):
            values = logit[valid[:, k], k]
            if len(values) > 1:
                self.location[k] = values.mean()
                self.scale[k] = values.std().clamp_min(1e-3)

    def standardise(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Map quantities inside their support to standardised numbers.

        Parameters
        ----------
        theta : Tensor, shape (..., D)

        Returns
        -------
        y : Tensor, shape (..., D)
        log_jacobian : Tensor, shape (..., D)
            Logarithm of dy / dtheta.
        """
        unit = self._unit(theta)
        y = (torch.logit(unit) - self.location) / self.scale
        log_jacobian = -torch.log(unit * (1 - unit)) - torch.log(
            (self.upper - self.lower) * self.scale
        )
        return y, log_jacobian

    def unstandardise(self, y: Tensor) -> Tensor:
        """Map standardised numbers of the first q quantities, shape (..., q), to ones strictly inside their support."""
        q = y.shape[-1]
        unit = torch.sigmoid(y * self.scale[:q] + self.location[:q])
        unit = unit.clamp(_UNIT_MARGIN, 1 - _UNIT_MARGIN)
        return self.lower[:q] + (self.upper - self.lower)[:q] * unit

    def _unit(self, theta: Tensor) -> Tensor:
        return ((theta - self.lower) / (self.upper - self.lower)).clamp(
            _UNIT_MARGIN, 1 - _UNIT_MARGIN
        )
