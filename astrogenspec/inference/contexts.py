"""What the heads of a network read in galaxies, and which heads count for which galaxy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

__all__ = ["Contexts"]


@dataclass(frozen=True)
class Contexts:
    """Vectors that summarise n galaxies, one from each head that reads any of them.

    Attributes
    ----------
    heads : sequence of int
        Which heads of the network.
    vectors : Tensor, shape (heads, n, context_size)
    share : Tensor, shape (heads, n)
        How much each head counts for each galaxy; a galaxy's shares sum to one, and are zero of heads that do not read it.
    """

    heads: Sequence[int]
    vectors: Tensor
    share: Tensor

    def repeat_interleave(self, k: int) -> Contexts:
        """Repeat each galaxy k times, as `torch.repeat_interleave` does."""
        return replace(
            self,
            vectors=self.vectors.repeat_interleave(k, dim=1),
            share=self.share.repeat_interleave(k, dim=1),
        )
