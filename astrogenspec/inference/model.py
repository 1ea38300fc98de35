"""The network of lane A: images and photometry to a joint posterior of nine quantities.

Image and photometry become a context vector; the context conditions a chain of flows (`astrogenspec.inference.flows`), a head that
says whether the gas metallicity is measurable, and, through the variational autoencoder, decoded images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nn.layers import ResidualLinear, make_mlp
from ..nn.noise import standard_normal
from ..preprocessing import N_PHOTOMETRY_FEATURES, N_STRUCTURE_FEATURES, ModelInputs
from ..quantities import QUANTITIES
from .flows import ChainPosterior, FlowChain
from .vae import ImageVAE, elbo_terms

__all__ = ["PropertyNetwork"]

_N_BANDS = 5
#: The latent is predicted from redshift, mass, star-formation rate, metallicity and black-hole mass; lines follow from these.
_N_DECODED = 5
_FACTOR_NAMES = tuple(QUANTITIES)


class PropertyNetwork(nn.Module):
    """Joint posterior of galaxy properties given an image, photometry, or both.

    Parameters
    ----------
    latent_size : int, optional
        Length of the image latent.
    context_size : int, optional
        Length of the context vector.
    width : int, optional
        Width of the network that makes the context.
    factor_width : int, optional
        Width of the flows' networks.
    n_bins : sequence of int, optional
        Spline bins of each quantity.
    dropout : float, optional
        Dropout in the context network.
    frozen_vae : bool, optional
        If True, the flows do not train the encoder: it learns from the images alone.
    structure : bool, optional
        If True, the network also sees sizes and shapes of a catalogue, of galaxies without image. It begins by ignoring
        them.

    Attributes
    ----------
    config : dict
        The arguments, for `from_config`.
    """

    def __init__(
        self,
        *,
        latent_size: int = 32,
        context_size: int = 128,
        width: int = 256,
        factor_width: int = 64,
        n_bins: Sequence[int] = (16, 8, 8, 8, 8, 8, 8, 8, 8),
        dropout: float = 0.0,
        frozen_vae: bool = False,
        structure: bool = False,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "latent_size": latent_size,
            "context_size": context_size,
            "width": width,
            "factor_width": factor_width,
            "n_bins": list(n_bins),
            "dropout": dropout,
            "frozen_vae": frozen_vae,
            "structure": structure,
        }
        self.vae = ImageVAE(latent_size)
        self.context_network = nn.Sequential(
            nn.Linear(2 * latent_size + 2 * _N_BANDS + N_PHOTOMETRY_FEATURES + 2, width),
            ResidualLinear(width, dropout=dropout),
            ResidualLinear(width, dropout=dropout),
            nn.SiLU(),
            nn.Linear(width, context_size),
            ResidualLinear(context_size, dropout=dropout),
            nn.LayerNorm(context_size),
        )
        self.structure_layer = None
        if structure:
            self.structure_layer = nn.Linear(N_STRUCTURE_FEATURES, width, bias=False)
            nn.init.zeros_(self.structure_layer.weight)
        self.chain = FlowChain(
            context_size,
            lower=[info.lower for info in QUANTITIES.values()],
            upper=[info.upper for info in QUANTITIES.values()],
            n_bins=n_bins,
            hidden=factor_width,
        )
        self.measurable_head = make_mlp((context_size, 64, 1))
        self.latent_of_properties = make_mlp((_N_DECODED, 64, 64, latent_size))

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> PropertyNetwork:
        """Build an untrained network from the `config` of another."""
        return cls(**config)

    def with_structure(self) -> PropertyNetwork:
        """Copy the network into one that can also learn from sizes and shapes, and says the same until it does."""
        network = type(self).from_config({**self.config, "structure": True})
        network.load_state_dict({**network.state_dict(), **self.state_dict()})
        return network.to(self.chain.lower.device).train(self.training)

    def latent(self, inputs: ModelInputs) -> tuple[Tensor, Tensor]:
        """Encode the images.

        Parameters
        ----------
        inputs : ModelInputs

        Returns
        -------
        mu, logvar : Tensor, shape (n, latent_size)
            Zero, the prior, for galaxies without image.
        """
        has_image = inputs.has_image
        empty = inputs.photometry.new_zeros(len(inputs), self.vae.latent_size)
        if inputs.image is None or not bool(has_image.any()):
            return empty, empty
        if bool(has_image.all()):
            return self._encode(inputs)
        rows = has_image.nonzero()[:, 0]
        mu, logvar = self._encode(inputs[rows])
        return empty.index_copy(0, rows, mu), empty.index_copy(0, rows, logvar)

    def context(self, inputs: ModelInputs) -> Tensor:
        """Summarise all inputs in one vector for each galaxy, shape (n, context_size)."""
        return self.context_of(inputs, self.latent(inputs))

    def context_of(self, inputs: ModelInputs, latent: tuple[Tensor, Tensor]) -> Tensor:
        """Do the same for images that are encoded already: ``latent`` is what `latent` gave for them."""
        return self._context(inputs, *latent)

    def posterior(self, inputs: ModelInputs) -> ChainPosterior:
        """Return the joint posterior of the nine quantities, as a distribution over `theta`."""
        return self.chain(self.context(inputs))

    def measurable(self, context: Tensor) -> Tensor:
        """Return P(gas metallicity is measurable), shape (n,), for context vectors."""
        return torch.sigmoid(self.measurable_head(context)[:, 0])

    def loss(
        self,
        inputs: ModelInputs,
        theta: Tensor,
        valid: Tensor,
        measurable: Tensor | None = None,
        *,
        kl_weight: float = 1.0,
        elbo_weight: float = 1e-3,
        elbo_fraction: float = 1.0,
        quantity_weight: Tensor | None = None,
        latent: tuple[Tensor, Tensor] | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Evaluate every term of the training loss on a batch.

        Parameters
        ----------
        inputs : ModelInputs
        theta : Tensor, shape (n, 9)
            True quantities; NaN is fine where unknown.
        valid : Tensor of bool, shape (n, 9)
            Which are known and to be learnt (gas metallicity only where measurable).
        measurable : Tensor, shape (n,), optional
            1 where the gas metallicity is measurable, 0 where not, NaN where unknown.
        kl_weight : float, optional
            Weight of the divergence inside the evidence lower bound (1 is the bound itself).
        elbo_weight : float, optional
            Weight of the bound relative to the flows; with 0 the decoder is not run.
        elbo_fraction : float, optional
            Fraction of the images, the first ones of the batch, that are decoded; the decoder costs as much as all else.
        quantity_weight : Tensor, shape (n, 9), optional
            Weight of each quantity of each galaxy in the flow term: one of weight 0 is a condition of those after it.
        latent : tuple of Tensor, optional
            What `latent` gives for these inputs, if the images are encoded already.
        generator : `torch.Generator`, optional
            Source of the latent noise and of draws for unknown quantities.

        Returns
        -------
        terms : dict of scalar Tensor
            ``total`` (to be minimised), ``flow`` (negative log density summed over known quantities), ``measurable``,
            and ``nll_<quantity>`` for each; with images also ``reconstruction`` (nats a valid pixel), ``kl``, ``latent_map``.
        """
        weights = torch.ones_like(theta) if quantity_weight is None else quantity_weight
        mu, logvar = self.latent(inputs) if latent is None else latent
        context = self._context(inputs, mu, logvar)
        log_prob, completed = self.chain(context).log_prob_and_completed(theta, valid, generator)
        usable = torch.isfinite(log_prob)
        nll = torch.where(usable, -log_prob, 0.0)
        terms = {"flow": (nll * weights).sum(-1).mean()}
        for k, name in enumerate(_FACTOR_NAMES):
            known = weights[:, k] * (valid[:, k] & usable[:, k] & theta[:, k].isfinite())
            terms[f"nll_{name}"] = _weighted_mean(nll[:, k], known).detach()
        terms["measurable"] = self._measurable_loss(context, measurable)
        if inputs.image is not None and elbo_weight > 0:
            rows = inputs.has_image.nonzero()[:, 0]
            rows = rows[: math.ceil(elbo_fraction * len(rows))]
            terms |= self._image_loss(
                inputs[rows], mu[rows], logvar[rows], completed[rows], kl_weight, generator
            )
        terms["total"] = terms["flow"] + terms["measurable"]
        if "elbo" in terms:
            terms["total"] = terms["total"] + elbo_weight * terms.pop("elbo") + terms["latent_map"]
        return terms

    @torch.no_grad()
    def traverse(self, inputs: ModelInputs, theta: Tensor, quantity: str, values: Tensor) -> Tensor:
        """Decode images while one quantity is moved and the rest of the galaxy is kept.

        Parameters
        ----------
        inputs : ModelInputs
            Galaxies with images.
        theta : Tensor, shape (n, 9)
            Where each galaxy is, for example the posterior median.
        quantity : str
            One of the first five quantities.
        values : Tensor, shape (k,)
            Values of the quantity, in units of theta.

        Returns
        -------
        images : Tensor, shape (n, k, 5, 64, 64)
            Scaled; see `astrogenspec.preprocessing.to_flux`.

        Raises
        ------
        ValueError
            For a quantity which does not steer the decoder.
        """
        names = _FACTOR_NAMES[:_N_DECODED]
        if quantity not in names:
            raise ValueError(
                f"quantity {quantity!r} does not steer the decoder; choose from {', '.join(names)}."
            )
        start = self.latent_of_properties(self.chain.standardise(theta)[0][:, :_N_DECODED])
        moved = theta[:, None].repeat(1, len(values), 1)
        moved[..., names.index(quantity)] = values
        end = self.latent_of_properties(self.chain.standardise(moved)[0][..., :_N_DECODED])
        latent = (self.latent(inputs)[0] - start)[:, None] + end
        return self.vae.decode(latent.flatten(0, 1)).unflatten(0, latent.shape[:2])

    def _encode(self, inputs: ModelInputs) -> tuple[Tensor, Tensor]:
        return self.vae.encode(
            inputs.image, inputs.image_weight, inputs.image_bands, inputs.image_noise
        )

    def _context(self, inputs: ModelInputs, mu: Tensor, logvar: Tensor) -> Tensor:
        if self.config["frozen_vae"]:
            mu, logvar = mu.detach(), logvar.detach()
        flags = torch.stack([inputs.has_image, inputs.has_photometry], -1).to(mu.dtype)
        parts = [mu, logvar, flags, inputs.image_bands, inputs.image_noise, inputs.photometry]
        hidden = self.context_network[0](torch.cat(parts, -1))
        if self.structure_layer is not None and inputs.structure is not None:
            # With an image the network has seen the shape, and was never shown both.
            structure = inputs.structure * ~inputs.has_image[:, None]
            hidden = hidden + self.structure_layer(structure)
        return self.context_network[1:](hidden)

    def _measurable_loss(self, context: Tensor, measurable: Tensor | None) -> Tensor:
        if measurable is None:
            return context.new_zeros(())
        measurable = measurable.to(context.dtype)
        known = measurable.isfinite()
        logit = self.measurable_head(context)[:, 0]
        target = torch.where(known, measurable, 0.5)
        loss = F.binary_cross_entropy_with_logits(logit, target, reduction="none")
        return _weighted_mean(loss, known.to(loss.dtype))

    def _image_loss(
        self,
        inputs: ModelInputs,
        mu: Tensor,
        logvar: Tensor,
        completed: Tensor,
        kl_weight: float,
        generator: torch.Generator | None,
    ) -> dict[str, Tensor]:
        if len(inputs) == 0:
            return {}
        noise = standard_normal(mu.shape, generator, mu.device)
        decoded = self.vae.decode(mu + noise * torch.exp(0.5 * logvar))
        misfit, kl = elbo_terms(inputs.image, inputs.image_weight, decoded, mu, logvar)
        n_pixels = (inputs.image_weight > 0).sum().clamp_min(1)
        predicted = self.latent_of_properties(completed[:, :_N_DECODED].clamp(-6, 6))
        return {
            "reconstruction": (misfit.sum() / n_pixels).detach(),
            "kl": kl.mean().detach(),
            "elbo": (misfit + kl_weight * kl).mean(),
            "latent_map": F.mse_loss(predicted, mu.detach()),
        }


def _weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum() / weights.sum().clamp_min(1e-8)
