"""One reader of an encoded galaxy: context vector, flows, and whether the gas metallicity can be measured.

A network has one head or several. Heads that were trained apart disagree where data were few, and the mixture of their
posteriors (`astrogenspec.inference.mixture`) is both more accurate and more honest than each: a deep ensemble
(Lakshminarayanan, Pritzel & Blundell 2017, NeurIPS 30) that shares its image encoder.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nn.layers import ResidualLinear, make_mlp
from ..preprocessing import N_PHOTOMETRY_FEATURES, N_STRUCTURE_FEATURES, ModelInputs
from ..quantities import QUANTITIES
from .flows import FlowChain

__all__ = ["PropertyHead"]

_N_BANDS = 5


class PropertyHead(nn.Module):
    """Context network, chain of flows, and classifier of measurable metallicities.

    Parameters
    ----------
    config : dict
        The ``config`` of a `~astrogenspec.inference.model.PropertyNetwork`.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        width, size = config["width"], config["context_size"]
        self.latent_size = config["latent_size"]
        n_inputs = 2 * self.latent_size + 2 * _N_BANDS + N_PHOTOMETRY_FEATURES + 2
        self.context_network = nn.Sequential(
            nn.Linear(n_inputs, width),
            ResidualLinear(width),
            ResidualLinear(width),
            nn.SiLU(),
            nn.Linear(width, size),
            ResidualLinear(size),
            nn.LayerNorm(size),
        )
        # Sizes and shapes are ignored until they are learnt.
        self.structure_layer = nn.Linear(N_STRUCTURE_FEATURES, width, bias=False)
        nn.init.zeros_(self.structure_layer.weight)
        self.chain = FlowChain(
            size,
            lower=[info.lower for info in QUANTITIES.values()],
            upper=[info.upper for info in QUANTITIES.values()],
            n_bins=config["n_bins"],
            hidden=config["factor_width"],
        )
        self.measurable_head = make_mlp((size, 64, 1))

    @contextmanager
    def image_readers_alone(self) -> Iterator[None]:
        """Let nothing be trained but the weights that are multiplied by zero where there is no image."""
        trained = [p for p in self.parameters() if p.requires_grad]
        reader: Tensor = self.context_network[0].weight
        columns = reader.new_zeros(reader.shape[1])
        columns[: 2 * self.latent_size + 1] = 1.0
        first = 2 * self.latent_size + 2
        columns[first : first + 2 * _N_BANDS] = 1.0
        self.requires_grad_(False)
        reader.requires_grad_(True)
        handle = reader.register_hook(lambda gradient: gradient * columns)
        try:
            yield
        finally:
            handle.remove()
            for parameter in trained:
                parameter.requires_grad_(True)

    def context(self, inputs: ModelInputs, mu: Tensor, logvar: Tensor) -> Tensor:
        """Summarise photometry and encoded image in one vector for each galaxy, shape (n, context_size)."""
        flags = torch.stack([inputs.has_image, inputs.has_photometry], -1).to(mu.dtype)
        parts = [mu, logvar, flags, inputs.image_bands, inputs.image_noise, inputs.photometry]
        hidden = self.context_network[0](torch.cat(parts, -1))
        if inputs.structure is not None:
            # With an image the network has seen the shape, and was never shown both.
            structure = inputs.structure * ~inputs.has_image[:, None]
            hidden = hidden + self.structure_layer(structure)
        return self.context_network[1:](hidden)

    def measurable(self, context: Tensor) -> Tensor:
        """Return P(gas metallicity is measurable), shape (n,), for context vectors."""
        return torch.sigmoid(self.measurable_head(context)[:, 0])

    def measurable_losses(self, context: Tensor, measurable: Tensor) -> Tensor:
        """Cross entropy of `measurable` with what is so, shape (n,); zero where that is NaN, unknown."""
        known = measurable.isfinite()
        logit = self.measurable_head(context)[:, 0]
        target = torch.where(known, measurable, 0.5)
        return F.binary_cross_entropy_with_logits(logit, target, reduction="none") * known
