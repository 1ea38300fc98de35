"""What the heads of a network read in galaxies, and which heads count for which galaxy."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..inputs.features import N_MORPHOLOGY_FEATURES, N_PHOTOMETRY_FEATURES, ModelInputs
from ..nn.chunks import map_chunks
from ..nn.layers import ResidualLinear, make_mlp
from ..nn.noise import standard_normal
from ..quantities import QUANTITIES
from .flows import DRAWS_PER_CHUNK, ChainPosterior, FlowChain
from .vae import ImageVAE, elbo_terms

__all__ = ["Contexts", "MixturePosterior", "PropertyHead", "PropertyNetwork"]


@dataclass(frozen=True)
class Contexts:
    """Vectors that summarise n galaxies, one from each head that reads any of them.

    Attributes
    ----------
    heads : sequence of int
        Which heads of the network.
    vectors : Tensor, shape (heads, n, context_size)
    weight : Tensor, shape (heads, n)
        Mixture weights; they sum to one for each galaxy and are zero for heads that do not use it.
    """

    heads: Sequence[int]
    vectors: Tensor
    weight: Tensor

    def repeat_interleave(self, k: int) -> Contexts:
        """Repeat each galaxy k times, as `torch.repeat_interleave` does."""
        return replace(
            self,
            vectors=self.vectors.repeat_interleave(k, dim=1),
            weight=self.weight.repeat_interleave(k, dim=1),
        )


_N_BANDS = 5


class PropertyHead(nn.Module):
    """Context network, chain of flows, and classifier of measurable metallicities.

    Parameters
    ----------
    config : dict
        The ``config`` of a `~astrogenspec.inference.network.PropertyNetwork`.
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
        self.structure_layer = nn.Linear(N_MORPHOLOGY_FEATURES, width, bias=False)
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
    def train_image_weights_only(self) -> Iterator[None]:
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
        if inputs.morphology is not None:
            # With an image the network has seen the shape, and was never shown both.
            morphology = inputs.morphology * ~inputs.has_image[:, None]
            hidden = hidden + self.structure_layer(morphology)
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


#: Fraction of the golden ratio: multiples of it, modulo 1, fill the interval evenly however many there are.
_GOLDEN = (math.sqrt(5) - 1) / 2


class MixturePosterior:
    """The posterior of a batch of galaxies by several members, as a distribution like `ChainPosterior`.

    Parameters
    ----------
    components : sequence of ChainPosterior
        Of the same n galaxies; supports and scales are the same too.
    weight : Tensor, shape (components, n), optional
        How much each member counts for each galaxy, with sums over the members of one; the same by default.
    """

    def __init__(self, components: Sequence[ChainPosterior], weight: Tensor | None = None) -> None:
        self.components = list(components)
        if weight is None:
            like = self.components[0].context
            weight = like.new_full((len(self.components), len(like)), 1 / len(self.components))
        self.weight = weight

    def __len__(self) -> int:
        return len(self.components[0])

    def __repr__(self) -> str:
        return f"MixturePosterior(n_galaxies={len(self)}, n_components={len(self.components)})"

    def log_prob(
        self,
        theta: Tensor,
        valid: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Evaluate the logarithm of each factor's density, in units of theta.

        Parameters
        ----------
        theta, valid, generator
            As for `ChainPosterior.log_prob`.

        Returns
        -------
        log_prob : Tensor, shape (n, D)
            As from `ChainPosterior.log_prob`: cumulative sums over the last axis are log densities of the mixture.
        """
        terms = torch.stack([m.log_prob(theta, valid, generator) for m in self.components])
        inside = terms[0].isfinite()
        joint = torch.where(inside, terms, 0.0).cumsum(-1)
        joint = (joint + self.weight.log()[..., None]).logsumexp(0)
        first = torch.zeros_like(joint[:, :1])
        return torch.where(inside, joint.diff(dim=-1, prepend=first), terms[0])

    @torch.no_grad()
    def sample(
        self, n_draws: int, generator: torch.Generator | None = None, known: Tensor | None = None
    ) -> Tensor:
        """Draw from the joint posterior; every member gives its share of the draws, in turns.

        Parameters
        ----------
        n_draws, generator, known
            As for `ChainPosterior.sample`.

        Returns
        -------
        theta : Tensor, shape (n, n_draws, D)

        Raises
        ------
        ValueError
            As for `ChainPosterior.sample`.
        """
        first = self.components[0]
        first.check(n_draws, known)
        device, size = first.context.device, first.chain.n_quantities
        # One more number a galaxy says whose turn is first, so that galaxies still come one after another.
        noise = standard_normal((len(self), n_draws * size + 1), generator, device)
        turn = torch.special.ndtr(noise[:, -1:])
        theta = noise[:, :-1].unflatten(1, (n_draws, size))

        def draw(rows: slice) -> None:
            components = [component[rows] for component in self.components]
            part = None if known is None else known[rows]
            turns = (turn[rows] + _GOLDEN * torch.arange(n_draws, device=device)) % 1
            upper = _conditional_weights(components, self.weight[:, rows], part).cumsum(0)
            # Rounded sums below one would give draws to a last member that has no share.
            upper = upper / upper[-1:]
            owner = (turns[None] >= upper[:-1, :, None]).sum(0)
            theta[rows] = _draw_components(components, owner, theta[rows], part)

        map_chunks(draw, len(self), max(1, DRAWS_PER_CHUNK // n_draws), device)
        return theta


def _conditional_weights(
    components: list[ChainPosterior], weight: Tensor, known: Tensor | None
) -> Tensor:
    """How much each member counts given what is known, shape (members, n)."""
    if known is None:
        return weight
    expected = torch.stack([c.prefix_log_prob(known) for c in components])
    return (weight.log() + expected).softmax(0)


def _draw_components(
    components: list[ChainPosterior], owner: Tensor, noise: Tensor, known: Tensor | None
) -> Tensor:
    """Let each member make the draws that it owns; ``owner`` has shape (n, draws)."""
    theta = torch.empty_like(noise)
    for k, component in enumerate(components):
        own = owner == k
        most = int(own.sum(1).max())
        if most == 0:
            continue
        # The columns of its draws come first; galaxies with fewer of them make some that nobody asked for.
        columns = own.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :most]
        at = columns[..., None].expand(-1, -1, noise.shape[-1])
        drawn = component.transform_noise(noise.gather(1, at), known)
        mine = own.gather(1, columns)[..., None]
        theta.scatter_(1, at, torch.where(mine, drawn, theta.gather(1, at)))
    return theta


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

    def extract_head(self, k: int) -> PropertyNetwork:
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
        weight = self._head_weights(inputs.has_image).to(mu)
        read = weight.any(1).nonzero()[:, 0].tolist() or [0]
        vectors = torch.stack([self.heads[k].context(inputs, mu, logvar) for k in read])
        return Contexts(read, vectors, weight[read])

    def _head_weights(self, has_image: Tensor) -> Tensor:
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
        components = [self.heads[k].chain(vectors) for k, vectors in pairs]
        if len(components) == 1:
            return components[0]
        return MixturePosterior(components, contexts.weight)

    def posterior(self, inputs: ModelInputs) -> ChainPosterior | MixturePosterior:
        """Return the joint posterior of the nine quantities, as a distribution over `theta`."""
        return self.posterior_of(self.contexts(inputs))

    def measurable(self, contexts: Contexts) -> Tensor:
        """Return P(gas metallicity is measurable), shape (n,), for what `contexts` gives."""
        pairs = zip(contexts.heads, contexts.vectors, strict=True)
        parts = [self.heads[k].measurable(vectors) for k, vectors in pairs]
        return (contexts.weight * torch.stack(parts)).sum(0)

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
        if quantity_weight is None:
            quantity_weight = torch.ones_like(theta)
        mu, logvar = self.latent(inputs) if latent is None else latent
        contexts = self.contexts(inputs, (mu, logvar))
        nll, unclassified = torch.zeros_like(theta), theta.new_zeros(len(theta))
        completed, usable = torch.zeros_like(theta), torch.zeros_like(valid)
        for k, vectors, weight in zip(
            contexts.heads, contexts.vectors, contexts.weight, strict=True
        ):
            rows = weight.nonzero()[:, 0]
            posterior = self.heads[k].chain(vectors[rows])
            log_prob, completed[rows] = posterior.log_prob_and_completed(
                theta[rows], valid[rows], generator
            )
            usable[rows] = torch.isfinite(log_prob)
            own = torch.where(usable[rows], -log_prob, 0.0)
            nll = nll.index_add(0, rows, own * weight[rows, None])
            if measurable is not None:
                losses = self.heads[k].measurable_losses(vectors[rows], measurable[rows].to(theta))
                unclassified = unclassified.index_add(0, rows, losses * weight[rows])
        terms = {"flow": (nll * quantity_weight).sum(-1).mean()}
        for k, name in enumerate(_FACTOR_NAMES):
            known = quantity_weight[:, k] * (valid[:, k] & usable[:, k] & theta[:, k].isfinite())
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
            Scaled; see `astrogenspec.inputs.features.to_flux`.

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
