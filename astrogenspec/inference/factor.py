"""The network of one factor of the chain: numbers of a one-dimensional density from context and earlier quantities."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nn.splines import n_spline_parameters

__all__ = ["ConditionalFactor"]

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
        """Make memory for the hidden features of `per_draw`."""
        size = self.hidden.out_features + 1
        return self.hidden.weight.new_empty(2, size, max(_COLUMNS, draws))

    @torch.no_grad()
    def per_draw(self, context: Tensor, earlier: Tensor, workspace: Tensor | None = None) -> Tensor:
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
