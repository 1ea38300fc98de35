r"""Training of linear layers in coordinates in which their inputs are white.

With the second moments :math:`M = \langle x x^\mathsf{T} \rangle = V \Lambda V^\mathsf{T}` of the
inputs of a layer :math:`W x`, training changes the weights

.. math:: U = W V S , \qquad S = \max(\Lambda^{1/2}, s_\mathrm{min}) ,

of the inputs :math:`S^{-1} V^\mathsf{T} x`, which have unit variance and are not correlated.
Gradient descent then learns from directions in which the inputs vary little as fast as from others
[1]_.  The layer computes the same function: afterwards it is again one with the weights W.

References
----------
.. [1] LeCun, Bottou, Orr & Müller 1998, Efficient BackProp
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

__all__ = ["Whitening", "whitened_inputs"]

#: Smallest root mean square of a direction of the inputs that is scaled to one.
_MIN_SCALE = 0.01


class Whitening(nn.Module):
    """Weights of a linear layer as a function of the weights of whitened inputs.

    Parameters
    ----------
    inputs : Tensor, shape (n, m)
        Values of m successive inputs of the layer.
    first : int
        Index of the first of them.
    min_scale : float, optional
        Smallest root mean square of a direction of the inputs that is scaled to one.
    """

    matrix: Tensor
    inverse: Tensor

    def __init__(self, inputs: Tensor, first: int, min_scale: float = _MIN_SCALE) -> None:
        super().__init__()
        values = inputs.double()
        variance, vectors = torch.linalg.eigh(values.T @ values / len(values))
        scale = variance.clamp_min(0).sqrt().clamp_min(min_scale)
        self.columns = slice(first, first + inputs.shape[1])
        self.register_buffer("matrix", (vectors / scale).T.to(inputs.dtype))
        self.register_buffer("inverse", (vectors * scale).to(inputs.dtype))

    def forward(self, whitened: Tensor) -> Tensor:
        """Return the weights of the inputs, given those of the whitened inputs."""
        return self._transformed(whitened, self.matrix)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the weights of the whitened inputs, given those of the inputs."""
        return self._transformed(weight, self.inverse)

    def _transformed(self, weight: Tensor, matrix: Tensor) -> Tensor:
        new = weight.clone()
        new[:, self.columns] = weight[:, self.columns] @ matrix
        return new


@contextmanager
def whitened_inputs(layer: nn.Linear, whitening: Whitening) -> Iterator[None]:
    """Train a linear layer in the coordinates of whitened inputs.

    Parameters
    ----------
    layer : `torch.nn.Linear`
        Has the same weights, up to rounding, before and after as in training.
    whitening : Whitening
    """
    parametrize.register_parametrization(layer, "weight", whitening)
    try:
        yield
    finally:
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
