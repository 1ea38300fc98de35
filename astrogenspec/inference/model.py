"""The network of the properties: images and photometry to a joint posterior of nine quantities.

The variational autoencoder encodes the images. One head or several (`astrogenspec.inference.head`) turn latent and photometry into
a context vector that conditions a chain of flows (`astrogenspec.inference.flows`); several are a mixture. Galaxies without images
may have heads of their own, which can learn long from photometry, as it is cheap, without harm to what others read in images.
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
from .contexts import Contexts
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
    members : int, optional
        Number of heads, whose posteriors are mixed.
    photometry_members : int, optional
        Number of further heads, for galaxies without images; with 0 all galaxies have the same heads.

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
        members: int = 1,
        photometry_members: int = 0,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "latent_size": latent_size,
            "context_size": context_size,
            "width": width,
            "factor_width": factor_width,
            "n_bins": list(n_bins),
            "frozen_vae": frozen_vae,
            "members": members,
            "photometry_members": photometry_members,
        }
        self.vae = ImageVAE(latent_size)
        n_heads = members + photometry_members
        self.heads = nn.ModuleList(PropertyHead(self.config) for _ in range(n_heads))
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

    def set_dropout(self, p: float) -> None:
        """Set the dropout in the context networks, which are made without; it is for training alone."""
        for module in self.heads.modules():
            if isinstance(module, nn.Dropout):
                module.p = p

    @property
    def photometry_heads(self) -> range:
        """Numbers of the heads that read galaxies without images and no others."""
        return range(self.config["members"], len(self.heads))

    def member(self, k: int) -> PropertyNetwork:
        """Copy one head into a network of its own, with the same encoder."""
        return self._copied([self.heads[k]], 0)

    def with_heads(
        self, networks: Sequence[PropertyNetwork], for_photometry: Sequence[PropertyNetwork] = ()
    ) -> PropertyNetwork:
        """Copy the network with the heads of others, of one head each, which share its encoder and scales.

        Parameters
        ----------
        networks : sequence of PropertyNetwork
            Whose heads read all galaxies, or those with images.
        for_photometry : sequence of PropertyNetwork, optional
            Whose heads read galaxies without images.

        Returns
        -------
        network : PropertyNetwork
        """
        heads = [network.heads[0] for network in (*networks, *for_photometry)]
        return self._copied(heads, len(for_photometry))

    def _copied(self, heads: Sequence[nn.Module], n_for_photometry: int) -> PropertyNetwork:
        """Copy the network with other heads, the last of which are for galaxies without images."""
        n = len(heads) - n_for_photometry
        config = self.config | {"members": n, "photometry_members": n_for_photometry}
        network = type(self).from_config(config)
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

    def contexts(
        self, inputs: ModelInputs, latent: tuple[Tensor, Tensor] | None = None
    ) -> Contexts:
        """Summarise all inputs in one vector for each galaxy and head that reads it.

        Parameters
        ----------
        inputs : ModelInputs
        latent : tuple of Tensor, optional
            What `latent` gives for these inputs, if the images are encoded already.

        Returns
        -------
        contexts : Contexts
        """
        mu, logvar = self.latent(inputs) if latent is None else latent
        if self.config["frozen_vae"]:
            mu, logvar = mu.detach(), logvar.detach()
        share = self._share(inputs.has_image).to(mu)
        read = share.any(1).nonzero()[:, 0].tolist() or [0]
        vectors = torch.stack([self.heads[k].context(inputs, mu, logvar) for k in read])
        return Contexts(read, vectors, share[read])

    def _share(self, has_image: Tensor) -> Tensor:
        """How much each head counts for each galaxy, shape (heads, n)."""
        n, n_for_photometry = self.config["members"], self.config["photometry_members"]
        if n_for_photometry == 0:
            return torch.full((n, len(has_image)), 1 / n)
        return torch.cat(
            [
                (has_image / n).expand(n, -1),
                (~has_image / n_for_photometry).expand(n_for_photometry, -1),
            ]
        )

    def posterior_of(self, contexts: Contexts) -> ChainPosterior | MixturePosterior:
        """Return the joint posterior of the nine quantities, for what `contexts` gives."""
        pairs = zip(contexts.heads, contexts.vectors, strict=True)
        members = [self.heads[k].chain(vectors) for k, vectors in pairs]
        return members[0] if len(members) == 1 else MixturePosterior(members, contexts.share)

    def posterior(self, inputs: ModelInputs) -> ChainPosterior | MixturePosterior:
        """Return the joint posterior of the nine quantities, as a distribution over `theta`."""
        return self.posterior_of(self.contexts(inputs))

    def measurable(self, contexts: Contexts) -> Tensor:
        """Return P(gas metallicity is measurable), shape (n,), for what `contexts` gives."""
        pairs = zip(contexts.heads, contexts.vectors, strict=True)
        parts = [self.heads[k].measurable(vectors) for k, vectors in pairs]
        return (contexts.share * torch.stack(parts)).sum(0)

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
        """Evaluate every term of the training loss on a batch; of several heads, each learns its galaxies for itself.

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
        nll, unclassified = torch.zeros_like(theta), theta.new_zeros(len(theta))
        completed, usable = torch.zeros_like(theta), torch.zeros_like(valid)
        for k, vectors, share in zip(contexts.heads, contexts.vectors, contexts.share, strict=True):
            rows = share.nonzero()[:, 0]
            posterior = self.heads[k].chain(vectors[rows])
            log_prob, completed[rows] = posterior.log_prob_and_completed(
                theta[rows], valid[rows], generator
            )
            usable[rows] = torch.isfinite(log_prob)
            own = torch.where(usable[rows], -log_prob, 0.0)
            nll = nll.index_add(0, rows, own * share[rows, None])
            if measurable is not None:
                losses = self.heads[k].measurable_losses(vectors[rows], measurable[rows].to(theta))
                unclassified = unclassified.index_add(0, rows, losses * share[rows])
        terms = {"flow": (nll * weights).sum(-1).mean()}
        for k, name in enumerate(_FACTOR_NAMES):
            known = weights[:, k] * (valid[:, k] & usable[:, k] & theta[:, k].isfinite())
            terms[f"nll_{name}"] = _weighted_mean(nll[:, k], known).detach()
        n_classified = 1 if measurable is None else measurable.isfinite().sum().clamp_min(1)
        terms["measurable"] = unclassified.sum() / n_classified
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
