"""The network of the properties: images and photometry to a joint posterior of nine quantities.

The variational autoencoder encodes the images. One head or several (`astrogenspec.inference.head`) turn latent and photometry into
a context vector that conditions a chain of flows (`astrogenspec.inference.flows`); several are a mixture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nn.layers import make_mlp
from ..nn.noise import standard_normal
from ..preprocessing import ModelInputs
from ..quantities import QUANTITIES
from .flows import ChainPosterior, FlowChain
from .head import PropertyHead
from .mixture import MixturePosterior
from .vae import ImageVAE, elbo_terms

__all__ = ["PropertyNetwork"]

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
    frozen_vae : bool, optional
        If True, the flows do not train the encoder: it learns from the images alone.
    structure : bool, optional
        If True, the network also sees sizes and shapes of a catalogue, of galaxies without image. It begins by ignoring
        them.
    members : int, optional
        Number of heads, whose posteriors are mixed.

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
        frozen_vae: bool = False,
        structure: bool = False,
        members: int = 1,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "latent_size": latent_size,
            "context_size": context_size,
            "width": width,
            "factor_width": factor_width,
            "n_bins": list(n_bins),
            "frozen_vae": frozen_vae,
            "structure": structure,
            "members": members,
        }
        self.vae = ImageVAE(latent_size)
        self.heads = nn.ModuleList(PropertyHead(self.config) for _ in range(members))
        self.latent_of_properties = make_mlp((_N_DECODED, 64, 64, latent_size))

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> PropertyNetwork:
        """Build an untrained network from the `config` of another."""
        return cls(**config)

    @property
    def chain(self) -> FlowChain:
        """The chain of the first head; supports and scales of the quantities are those of all."""
        return self.heads[0].chain

    def set_standardisation(self, theta: Tensor, valid: Tensor | None = None) -> None:
        """Take the scales of the quantities from labels; see `FlowChain.set_standardisation`."""
        for head in self.heads:
            head.chain.set_standardisation(theta, valid)

    def with_structure(self) -> PropertyNetwork:
        """Copy the network into one that can also learn from sizes and shapes, and says the same until it does."""
        network = type(self).from_config({**self.config, "structure": True})
        network.load_state_dict({**network.state_dict(), **self.state_dict()})
        return network.to(self.chain.lower.device).train(self.training)

    def set_dropout(self, p: float) -> None:
        """Set the dropout in the context networks, which are made without; it is for training alone."""
        for module in self.heads.modules():
            if isinstance(module, nn.Dropout):
                module.p = p

    def member(self, k: int) -> PropertyNetwork:
        """Copy one head into a network of its own, with the same encoder."""
        return self._copied([self.heads[k]])

    @classmethod
    def joined(cls, networks: Sequence[PropertyNetwork]) -> PropertyNetwork:
        """Copy networks of one head each, which share encoder and scales, into one network."""
        heads = [network.heads[0] for network in networks]
        return networks[0]._copied(heads)

    def _copied(self, heads: Sequence[nn.Module]) -> PropertyNetwork:
        """Copy the network with other heads."""
        network = type(self).from_config({**self.config, "members": len(heads)})
        state = {k: v for k, v in self.state_dict().items() if not k.startswith("heads.")}
        for k, head in enumerate(heads):
            state |= {f"heads.{k}.{name}": value for name, value in head.state_dict().items()}
        network.load_state_dict(state)
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

    def contexts(self, inputs: ModelInputs, latent: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Summarise all inputs in one vector for each head and galaxy.

        Parameters
        ----------
        inputs : ModelInputs
        latent : tuple of Tensor, optional
            What `latent` gives for these inputs, if the images are encoded already.

        Returns
        -------
        contexts : Tensor, shape (members, n, context_size)
        """
        mu, logvar = self.latent(inputs) if latent is None else latent
        if self.config["frozen_vae"]:
            mu, logvar = mu.detach(), logvar.detach()
        return torch.stack([head.context(inputs, mu, logvar) for head in self.heads])

    def posterior_of(self, contexts: Tensor) -> ChainPosterior | MixturePosterior:
        """Return the joint posterior of the nine quantities, for what `contexts` gives."""
        members = [head.chain(context) for head, context in zip(self.heads, contexts, strict=True)]
        return members[0] if len(members) == 1 else MixturePosterior(members)

    def posterior(self, inputs: ModelInputs) -> ChainPosterior | MixturePosterior:
        """Return the joint posterior of the nine quantities, as a distribution over `theta`."""
        return self.posterior_of(self.contexts(inputs))

    def measurable(self, contexts: Tensor) -> Tensor:
        """Return P(gas metallicity is measurable), shape (n,), for what `contexts` gives."""
        parts = [
            head.measurable(context) for head, context in zip(self.heads, contexts, strict=True)
        ]
        return torch.stack(parts).mean(0)

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
        """Evaluate every term of the training loss on a batch; of several heads, each learns for itself.

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
        contexts = self.contexts(inputs, (mu, logvar))
        parts = []
        for head, context in zip(self.heads, contexts, strict=True):
            log_prob, completed = head.chain(context).log_prob_and_completed(
                theta, valid, generator
            )
            usable = torch.isfinite(log_prob)
            nll = torch.where(usable, -log_prob, 0.0)
            part = {"flow": (nll * weights).sum(-1).mean()}
            for k, name in enumerate(_FACTOR_NAMES):
                known = weights[:, k] * (valid[:, k] & usable[:, k] & theta[:, k].isfinite())
                part[f"nll_{name}"] = _weighted_mean(nll[:, k], known).detach()
            part["measurable"] = head.measurable_loss(context, measurable)
            parts.append(part)
        terms = {name: torch.stack([part[name] for part in parts]).mean() for name in parts[0]}
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
