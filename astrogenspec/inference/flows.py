r"""Autoregressive chain of conditional flows for the joint posterior of bounded quantities.

The posterior of :math:`\theta = (\theta_1, \dots, \theta_D)` given a context vector :math:`c` of
the galaxy is factorised as

.. math:: p(\theta \mid c) = \prod_k p(\theta_k \mid \theta_{<k}, c) .

Each quantity is mapped from its support :math:`(l_k, u_k)` to the real line,
:math:`y_k = (\mathrm{logit}\,t_k - m_k) / s_k` with :math:`t_k = (\theta_k - l_k) / (u_k - l_k)`,
where :math:`m_k` and :math:`s_k` are mean and standard deviation of the training set.  All draws
therefore lie inside the support.  The conditional density of :math:`y_k` is a monotonic spline flow
(`astrogenspec.nn.splines`) whose parameters are the output of a small network of the context and
:math:`y_{<k}`.

If only some quantities of a galaxy are known, the factors of these are trained.  An unknown
quantity that conditions a later one is replaced by a draw from its own factor, a single-sample
Monte Carlo estimate.

As in zuko, the network returns a distribution: ``chain(context).log_prob(theta)``,
``chain(context).sample(1000)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nn.chunks import map_chunks
from ..nn.noise import ObjectStreams, standard_normal
from ..nn.splines import n_spline_parameters, spline_log_prob, spline_sample

__all__ = [
    "DRAWS_PER_CHUNK",
    "ChainPosterior",
    "ConditionalFactor",
    "FlowChain",
    "QuantitySupports",
    "SplicedPosterior",
]

#: Number of draws whose hidden features are computed at once; they fit the cache of a processor.
_COLUMNS = 4096
_EARLIER_LIMIT = 6.0
_UNIT_MARGIN = 1e-6
#: Number of draws that one thread computes at once; more are no faster and need more memory.
DRAWS_PER_CHUNK = 65536


class ConditionalFactor(nn.Module):
    """Network of one factor: maps context and previous quantities to spline parameters.

    The context enters through a linear layer, which is evaluated only once for each galaxy.

    Parameters
    ----------
    context_size : int
        Length of the context vector.
    n_earlier : int
        Number of previous quantities.
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
        """Allocate memory for the hidden features of `evaluate_draws`."""
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
            Memory for hidden features, with at least ``draws`` columns; allocating it anew would
            take as long as the arithmetic.

        Returns
        -------
        parameters : Tensor, shape (3 K + 1, n, draws), or (3 K + 1, n, 1) for the first factor
        """
        features = self.of_context(context).T
        hidden, n = features.shape
        draws = 1 if self.of_earlier is None else earlier.shape[-1]
        if workspace is None:
            workspace = self.workspace(draws)
        # A row of ones below the features adds the bias in the matrix product.
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


class ChainPosterior:
    """Posterior of a batch of galaxies, as a distribution.

    Parameters
    ----------
    chain : FlowChain
        Networks, supports and standardisation.
    context : Tensor, shape (n, context_size)
        One context vector for each galaxy.
    """

    def __init__(self, chain: FlowChain, context: Tensor) -> None:
        self.chain = chain
        self.context = context

    @property
    def _factors(self) -> list[tuple[ConditionalFactor, Tensor]]:
        """Factor and context vectors of each quantity."""
        return [(factor, self.context) for factor in self.chain.factors]

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
        """Evaluate the log density of each quantity given the previous ones.

        Parameters
        ----------
        theta : Tensor, shape (n, D)
            Quantities; ignored, and possibly NaN, where `valid` is False.
        valid : Tensor of bool, shape (n, D), optional
            True where a quantity is known; by default where it is finite.
        generator : `torch.Generator`, optional
            Source of the draws that replace unknown quantities.

        Returns
        -------
        log_prob : Tensor, shape (n, D)
            Zero where not valid, minus infinity where a valid quantity is outside its support.  The
            sum over the last axis is the joint log density if all quantities are valid.
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
        """Evaluate `log_prob`, and replace unknown standardised quantities by draws.

        Parameters
        ----------
        theta, valid, generator
            As for `log_prob`.
        q : int, optional
            Number of quantities to evaluate, from the first; by default all.

        Returns
        -------
        log_prob : Tensor, shape (n, q)
        completed : Tensor, shape (n, q)
            Standardised quantities, without gradient.
        """
        chain = self.chain
        finite = torch.isfinite(theta)
        valid = finite if valid is None else valid & finite
        inside = (theta > chain.lower) & (theta < chain.upper)
        known = valid & inside
        y, log_jacobian = chain.standardise(torch.where(known, theta, chain.middle))
        columns: list[Tensor] = []
        parameters = []
        for k, (factor, context) in enumerate(self._factors[:q]):
            earlier = torch.stack(columns, -1) if columns else y[:, :0]
            spline = factor(context, earlier.clamp(-_EARLIER_LIMIT, _EARLIER_LIMIT))
            parameters.append(spline)
            if bool(known[:, k].all()):
                columns.append(y[:, k])
            else:
                noise = standard_normal(known[:, k].shape, generator, theta.device)
                drawn = spline_sample(spline.detach().T, noise)
                columns.append(torch.where(known[:, k], y[:, k], drawn))
        log_prob = _log_densities(parameters, y) + log_jacobian[:, :q]
        log_prob = torch.where(inside[:, :q], log_prob, -torch.inf)
        return torch.where(valid[:, :q], log_prob, 0.0), torch.stack(columns, -1)

    @torch.no_grad()
    def sample(
        self,
        n_draws: int,
        generator: torch.Generator | ObjectStreams | None = None,
        known: Tensor | None = None,
    ) -> Tensor:
        """Draw from the joint posterior.

        Galaxies are processed in chunks, which bounds the memory and does not affect the draws.

        Parameters
        ----------
        n_draws : int
            Number of draws for each galaxy.
        generator : `torch.Generator` or `astrogenspec.nn.noise.ObjectStreams`, optional
            Source of randomness.
        known : Tensor, shape (n, q), optional
            Known values of the first q quantities of the chain (for example a spectroscopic
            redshift, q = 1), NaN where unknown.  The remaining quantities are drawn from their
            conditional posterior.

        Returns
        -------
        theta : Tensor, shape (n, n_draws, D)

        Raises
        ------
        ValueError
            If `n_draws` is not positive, or a known value is outside its support or follows an
            unknown one.
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
        """Transform standard normal numbers to draws from the joint posterior.

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
        y = torch.empty_like(noise)
        fixed = None if known is None else self._standardise_prefix(known)
        earlier = torch.empty_like(y)
        for k, (factor, context) in enumerate(self._factors):
            y[k] = spline_sample(factor.evaluate_draws(context, earlier[:k], workspace), noise[k])
            if known is not None and fixed is not None and k < known.shape[1]:
                y[k] = torch.where(known[:, k, None].isfinite(), fixed[:, k, None], y[k])
            torch.clamp(y[k], -_EARLIER_LIMIT, _EARLIER_LIMIT, out=earlier[k])
        return self.chain.unstandardise(y.permute(1, 2, 0))

    @torch.no_grad()
    def prefix_log_prob(self, known: Tensor) -> Tensor:
        """Evaluate the log density of the first q standardised quantities.

        It differs from that of the quantities by a term that depends on ``known`` and the
        standardisation only.

        Parameters
        ----------
        known : Tensor, shape (n, q)
            NaN where unknown; only known values preceding the first unknown one are allowed.

        Returns
        -------
        log_prob : Tensor, shape (n,)
            Sum over the known quantities.
        """
        y = self._standardise_prefix(known)
        earlier = y.clamp(-_EARLIER_LIMIT, _EARLIER_LIMIT)
        total = y.new_zeros(len(y))
        for k, (factor, context) in enumerate(self._factors[: known.shape[1]]):
            term = spline_log_prob(factor(context, earlier[:, :k]), y[:, k])
            total += torch.where(known[:, k].isfinite(), term, 0.0)
        return total

    def check(self, n_draws: int, known: Tensor | None) -> None:
        """Raise `ValueError` if the arguments of `sample` are invalid."""
        if n_draws < 1:
            raise ValueError(f"n_draws is {n_draws}; it must be at least 1.")
        if known is None:
            return
        q = known.shape[-1]
        if known.ndim != 2 or len(known) != len(self) or q > self.chain.n_quantities:
            raise ValueError(
                f"known has shape {tuple(known.shape)}; expected ({len(self)}, q), the first q "
                "quantities of the chain, with NaN where unknown."
            )
        finite = known.isfinite()
        outside = finite & ~((known > self.chain.lower[:q]) & (known < self.chain.upper[:q]))
        if bool(outside.any()):
            raise ValueError(
                f"known value {known[outside][0].item()} is outside the support of its quantity."
            )
        if bool((finite[:, 1:] & ~finite[:, :-1]).any()):
            raise ValueError("known quantities must be the first ones of the chain, without gaps.")

    def _standardise_prefix(self, known: Tensor) -> Tensor:
        """Standardise the first q quantities (n, D); unknown ones get the middle of the support."""
        middle = self.chain.middle.expand(len(known), -1).clone()
        q = known.shape[1]
        middle[:, :q] = torch.where(known.isfinite(), known, middle[:, :q])
        return self.chain.standardise(middle)[0]


class SplicedPosterior(ChainPosterior):
    """Posterior of the first quantities by one chain, and of the others, given these, by another.

    Parameters
    ----------
    first, second : ChainPosterior
        Posteriors of the same n galaxies, with the same supports and standardisation.
    q : int
        Number of quantities of the first chain.
    """

    def __init__(self, first: ChainPosterior, second: ChainPosterior, q: int) -> None:
        super().__init__(first.chain, first.context)
        self.first, self.second, self.q = first, second, q

    @property
    def _factors(self) -> list[tuple[ConditionalFactor, Tensor]]:
        return self.first._factors[: self.q] + self.second._factors[self.q :]

    def __getitem__(self, rows: slice) -> SplicedPosterior:
        """Select galaxies."""
        return SplicedPosterior(self.first[rows], self.second[rows], self.q)


def _log_densities(parameters: Sequence[Tensor], y: Tensor) -> Tensor:
    """Evaluate q densities at y (n, q); consecutive factors with equal numbers of bins at once."""
    terms: list[Tensor] = []
    for _, group in groupby(parameters, key=lambda spline: spline.shape[-1]):
        splines = torch.stack(tuple(group), dim=1)
        first = sum(term.shape[1] for term in terms)
        terms.append(spline_log_prob(splines, y[:, first : first + splines.shape[1]]))
    return torch.cat(terms, dim=1)


class QuantitySupports(nn.Module):
    """Bounds of quantities, and their map to the real line.

    Parameters
    ----------
    lower, upper : sequence of float
        Support of each quantity.
    """

    def __init__(self, lower: Sequence[float], upper: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("lower", torch.tensor(lower, dtype=torch.float32))
        self.register_buffer("upper", torch.tensor(upper, dtype=torch.float32))
        self.register_buffer("location", torch.zeros(len(lower)))
        self.register_buffer("scale", torch.ones(len(lower)))

    @property
    def n_quantities(self) -> int:
        """Number of quantities."""
        return len(self.lower)

    def check_prefix(self, q: int, argument: str) -> None:
        """Raise `ValueError` if the first q quantities have no density of their own.

        Parameters
        ----------
        q : int
            Number of quantities.
        argument : str
            Name of the argument of the user.
        """

    @property
    def middle(self) -> Tensor:
        """Centre of each support, shape (D,)."""
        return 0.5 * (self.lower + self.upper)

    @torch.no_grad()
    def set_standardisation(self, theta: Tensor, valid: Tensor | None = None) -> None:
        """Set location and scale of each quantity on the real line from a training set.

        Parameters
        ----------
        theta : Tensor, shape (n, D)
            Training labels.
        valid : Tensor of bool, shape (n, D), optional
            True where a label exists; by default where it is finite and inside the support.  A
            quantity with fewer than two labels is not changed.
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
        """Map quantities inside their support to standardised values.

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
        """Map standardised values of the first q quantities, (..., q), into their support."""
        q = y.shape[-1]
        unit = torch.sigmoid(y * self.scale[:q] + self.location[:q])
        unit = unit.clamp(_UNIT_MARGIN, 1 - _UNIT_MARGIN)
        return self.lower[:q] + (self.upper - self.lower)[:q] * unit

    def _unit(self, theta: Tensor) -> Tensor:
        return ((theta - self.lower) / (self.upper - self.lower)).clamp(
            _UNIT_MARGIN, 1 - _UNIT_MARGIN
        )


class FlowChain(QuantitySupports):
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
        Width of the networks of the factors.
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
        n = len(lower)
        bins = [n_bins] * n if isinstance(n_bins, int) else list(n_bins)
        if not len(upper) == len(bins) == n:
            raise ValueError(
                f"lower, upper and n_bins have {n}, {len(upper)} and {len(bins)} quantities; the "
                "numbers must agree."
            )
        super().__init__(lower, upper)
        self.factors = nn.ModuleList(
            ConditionalFactor(context_size, k, hidden=hidden, n_bins=bins[k]) for k in range(n)
        )

    def forward(self, context: Tensor) -> ChainPosterior:
        """Return the posterior for context vectors of shape (n, context_size)."""
        return ChainPosterior(self, context)
