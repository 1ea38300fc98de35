r"""The property network: image encoder, ensemble of heads, and their mixture posterior.

The image of a galaxy is encoded to a diagonal Gaussian :math:`(\mu, \log\sigma^2)` by a variational
autoencoder (`astrogenspec.inference.vae`).  Each head maps this latent, the photometry and the
morphology of the galaxy to a context vector :math:`c_h`, which conditions a chain of flows
(`astrogenspec.inference.flows`).  The posterior is the mixture

.. math:: p(\theta \mid x) = \sum_h w_h\, p_h(\theta \mid c_h) , \qquad \sum_h w_h = 1 ,

with equal weights :math:`w_h` of the heads that use the galaxy: all heads, or, in a network with
photometry heads, one set of heads for galaxies with images and another for galaxies without.  The
latter can take part in the inference from image and photometry: then each component is one of
:math:`p_h(\theta_{\le q} \mid c_h)\, p_{h'}(\theta_{>q} \mid \theta_{\le q}, c_{h'})`, where
h reads the image, and h' is h in one half of the mixture and a head for photometry in the other.
If the first quantities of the chain, :math:`\theta_{\le q}`, are known, the weights of the
conditional posterior are proportional to :math:`w_h\, p_h(\theta_{\le q} \mid c_h)`.

Training minimises the negative log density of every head, the cross entropy of a classifier of
measurable gas metallicities, and the weighted negative evidence lower bound of the images.  A small
network also maps the first quantities to the mean latent, with which images are decoded for other
values of a quantity.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..inputs.features import N_MORPHOLOGY_FEATURES, N_PHOTOMETRY_FEATURES, ModelInputs
from ..inputs.sed_features import SEDComponents, sed_feature_layout
from ..nn.layers import ResidualLinear, make_mlp
from ..nn.noise import standard_normal
from ..nn.precision import single_precision
from ..nn.whitening import Whitening, whitened_inputs
from ..quantities import QUANTITIES, QuantityInfo
from ..surveys import BANDS, CUTOUT_SIZE
from .completion import complete_images
from .flows import ChainPosterior, FlowChain, SplicedPosterior
from .mixture import MixturePosterior
from .vae import ImageVAE

__all__ = [
    "Contexts",
    "Domain",
    "Head",
    "PosteriorNetwork",
    "PropertyHead",
    "PropertyNetwork",
]

_FACTOR_NAMES = tuple(QUANTITIES)
_REDSHIFT = _FACTOR_NAMES.index("redshift")
#: Number of quantities from which the mean latent is predicted; line fluxes follow from these.
_N_DECODED = _FACTOR_NAMES.index("black_hole_mass") + 1
#: Standardised quantities are clipped here before the mean latent is predicted.
_DECODED_LIMIT = 6.0
#: Weight of the heads for photometry in the posterior of the later quantities of galaxies with an
#: image.
_PHOTOMETRY_WEIGHT = 0.5
#: Largest upper bound of the redshift, beyond any galaxy.
_LARGEST_REDSHIFT = 20.0


@dataclass(frozen=True)
class Domain:
    """Photometry and redshifts for which a network is built.

    Attributes
    ----------
    sed_components : int
        Number of SED coefficients with which photometry in any filters is described
        (`astrogenspec.inputs.sed_features`); with 0, photometry is that of SDSS.
    max_redshift : float
        Upper bound of the redshift; that of `~astrogenspec.quantities.QUANTITIES` by default.
    image_quantities : int
        Number of quantities, from the first, that heads for images infer for galaxies with an image
        and photometry.  The others, given these, are inferred in equal parts by the same heads and
        by those for galaxies without images, which many more labelled galaxies train.  By default
        all.

    Raises
    ------
    ValueError
        If the upper bound of the redshift is not between 0 and 20, or ``image_quantities`` not
        between 1 and the number of quantities.
    """

    sed_components: int = 0
    max_redshift: float = QUANTITIES["redshift"].upper
    image_quantities: int = len(QUANTITIES)

    def __post_init__(self) -> None:
        if not 0 < self.max_redshift <= _LARGEST_REDSHIFT:
            raise ValueError(
                f"max_redshift is {self.max_redshift}; give a number greater than 0 and at most "
                f"{_LARGEST_REDSHIFT:g}."
            )
        if not 1 <= self.image_quantities <= len(QUANTITIES):
            raise ValueError(
                f"image_quantities is {self.image_quantities}; give a number from 1 to "
                f"{len(QUANTITIES)}."
            )

    @property
    def config(self) -> dict[str, Any]:
        """Items of the ``config`` of a network: those that differ from the defaults."""
        default = Domain()
        return {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if getattr(self, field.name) != getattr(default, field.name)
        }


@dataclass(frozen=True)
class Contexts:
    """Context vectors and mixture weights of n galaxies.

    Attributes
    ----------
    heads : sequence of int
        Indices of the heads that use at least one of the galaxies.
    vectors : Tensor, shape (heads, n, context_size)
        Context vectors.
    weight : Tensor, shape (heads, n)
        Mixture weights; they sum to one for each galaxy and are zero for heads that do not use it.
    later : Contexts, optional
        Context vectors of the heads that infer the later quantities, in the same order; by default
        these are the same heads.
    """

    heads: Sequence[int]
    vectors: Tensor
    weight: Tensor
    later: Contexts | None = None

    def repeat_interleave(self, k: int) -> Contexts:
        """Repeat each galaxy k times, as `torch.repeat_interleave` does."""
        return replace(
            self,
            vectors=self.vectors.repeat_interleave(k, dim=1),
            weight=self.weight.repeat_interleave(k, dim=1),
            later=None if self.later is None else self.later.repeat_interleave(k),
        )


def _context_inputs(config: dict[str, Any]) -> dict[str, int]:
    """Return the lengths of the inputs of a context network by name, in order."""
    n_bands, n_components = len(BANDS), config.get("sed_components", 0)
    n_photometry = len(sed_feature_layout(n_components)) if n_components else N_PHOTOMETRY_FEATURES
    return {
        "mu": config["latent_size"],
        "logvar": config["latent_size"],
        "has_image": 1,
        "has_photometry": 1,
        "image_bands": n_bands,
        "image_noise": n_bands,
        "photometry": n_photometry,
    }


_IMAGE_INPUTS = ("mu", "logvar", "has_image", "image_bands", "image_noise")


class Head(nn.Module):
    """Head of a network: context vectors, flows, and classifier of measurable metallicities.

    Subclasses have the method ``context``, and the modules ``chain`` and ``measurable_head``.
    """

    measurable_head: nn.Module

    def measurable(self, context: Tensor) -> Tensor:
        """Return P(gas metallicity is measurable), shape (n,), for context vectors."""
        return torch.sigmoid(self.measurable_head(context)[:, 0])

    def measurable_losses(self, context: Tensor, measurable: Tensor) -> Tensor:
        """Compute the cross entropy of the classifier.

        Parameters
        ----------
        context : Tensor, shape (n, context_size)
            Context vectors.
        measurable : Tensor, shape (n,)
            1 where the gas metallicity is measurable, 0 where not, NaN where unknown.

        Returns
        -------
        losses : Tensor, shape (n,)
            Zero where unknown.
        """
        known = measurable.isfinite()
        logit = self.measurable_head(context)[:, 0]
        target = torch.where(known, measurable, 0.5)
        return F.binary_cross_entropy_with_logits(logit, target, reduction="none") * known


class PropertyHead(Head):
    """Context network, chain of flows, and classifier of measurable gas metallicities.

    Parameters
    ----------
    config : dict
        The ``config`` of a `PropertyNetwork`.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        width, size = config["width"], config["context_size"]
        self._sizes = _context_inputs(config)
        n_inputs = sum(self._sizes.values())
        self.context_network = nn.Sequential(
            nn.Linear(n_inputs, width),
            ResidualLinear(width),
            ResidualLinear(width),
            nn.SiLU(),
            nn.Linear(width, size),
            ResidualLinear(size),
            nn.LayerNorm(size),
        )
        upper = [info.upper for info in QUANTITIES.values()]
        upper[_REDSHIFT] = config.get("max_redshift", upper[_REDSHIFT])
        # With zero weights, morphology has no effect until it is trained on.
        self.structure_layer = nn.Linear(N_MORPHOLOGY_FEATURES, width, bias=False)
        nn.init.zeros_(self.structure_layer.weight)
        self.chain = FlowChain(
            size,
            lower=[info.lower for info in QUANTITIES.values()],
            upper=upper,
            n_bins=config["n_bins"],
            hidden=config["factor_width"],
        )
        self.measurable_head = make_mlp((size, 64, 1))

    @contextmanager
    def train_image_weights_only(self) -> Iterator[None]:
        """Restrict training to weights of the image inputs, unused for galaxies without image."""
        trained = [p for p in self.parameters() if p.requires_grad]
        weight: Tensor = self.context_network[0].weight
        columns = torch.cat(
            [
                weight.new_full((size,), float(name in _IMAGE_INPUTS))
                for name, size in self._sizes.items()
            ]
        )
        self.requires_grad_(False)
        weight.requires_grad_(True)
        handle = weight.register_hook(lambda gradient: gradient * columns)
        try:
            yield
        finally:
            handle.remove()
            for parameter in trained:
                parameter.requires_grad_(True)

    def whitened_photometry(self, features: Tensor) -> AbstractContextManager[None]:
        """Train in coordinates in which the features of the photometry are white.

        Parameters
        ----------
        features : Tensor, shape (n, n_features)
            Features of the photometry of the training sample.

        Returns
        -------
        context manager
        """
        names = list(self._sizes)
        first = sum(self._sizes[name] for name in names[: names.index("photometry")])
        return whitened_inputs(self.context_network[0], Whitening(features, first))

    def context(self, inputs: ModelInputs, mu: Tensor, logvar: Tensor) -> Tensor:
        """Compute context vectors.

        Parameters
        ----------
        inputs : ModelInputs
            n galaxies.
        mu, logvar : Tensor, shape (n, latent_size)
            Mean and log variance of the image latent.

        Returns
        -------
        context : Tensor, shape (n, context_size)
        """
        flags = torch.stack([inputs.has_image, inputs.has_photometry], -1).to(mu.dtype)
        parts = [mu, logvar, flags, inputs.image_bands, inputs.image_noise, inputs.photometry]
        hidden = self.context_network[0](torch.cat(parts, -1))
        if inputs.morphology is not None:
            # Images contain the morphology; training never uses both.
            morphology = inputs.morphology * ~inputs.has_image[:, None]
            hidden = hidden + self.structure_layer(morphology)
        return self.context_network[1:](hidden)


class PosteriorNetwork(nn.Module):
    """Joint posterior of galaxy properties given an image, photometry, or both.

    Parameters
    ----------
    config : dict
        Description of the network: ``latent_size``, ``context_size``, ``members``,
        ``photometry_members``, ``frozen_vae``, and what `from_config` of a subclass needs.
    encoder : `torch.nn.Module`
        Autoencoder of the images, with the methods of `~astrogenspec.inference.vae.ImageVAE`.
    heads : sequence of Head
        The last ``photometry_members`` of them are for galaxies without images.
    sed : SEDComponents, optional
        Components for photometry in any filters.
    """

    def __init__(
        self,
        config: dict[str, Any],
        encoder: nn.Module,
        heads: Sequence[Head],
        sed: SEDComponents | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        if sed is not None:
            self.sed = sed
        self.vae = encoder
        self.heads = nn.ModuleList(heads)
        self.latent_of_properties = make_mlp((_N_DECODED, 64, 64, config["latent_size"]))

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Build an untrained network from the ``config`` of another."""
        raise NotImplementedError

    #: Whether the network can be fine-tuned on labelled galaxies.
    can_be_fine_tuned = True

    @property
    def cutout_size(self) -> int:
        """Pixels on a side of the images that are read."""
        return CUTOUT_SIZE

    def lacking(self, inputs: ModelInputs) -> Tensor | None:
        """Return which galaxies lack an input that the network needs.

        Parameters
        ----------
        inputs : ModelInputs
            n galaxies.

        Returns
        -------
        Tensor of bool, shape (n,), or None
            None if the network needs none of its inputs.
        """
        return None

    @property
    def needs(self) -> str:
        """Inputs that the network needs, in words."""
        return "an image or photometry"

    @property
    def components(self) -> SEDComponents | None:
        """Components for photometry in any filters; None if photometry is that of SDSS."""
        return self.sed if "sed_components" in self.config else None

    @property
    def chain(self) -> FlowChain:
        """Flow chain of the first head; all heads have the same supports and standardisation."""
        return self.heads[0].chain

    @property
    def quantities(self) -> dict[str, QuantityInfo]:
        """The quantities by name, with the bounds of this network."""
        redshift = QUANTITIES["redshift"]
        upper = float(self.chain.upper[_REDSHIFT])
        return QUANTITIES | {"redshift": replace(redshift, upper=upper)}

    @property
    def own_bounds(self) -> dict[str, list[float]]:
        """Bounds by name of the quantities whose bounds differ from those of `QUANTITIES`."""
        return {
            name: [info.lower, info.upper]
            for name, info in self.quantities.items()
            if info != QUANTITIES[name]
        }

    def set_standardisation(self, theta: Tensor, valid: Tensor | None = None) -> None:
        """Standardise the quantities of all heads; see `FlowChain.set_standardisation`."""
        for head in self.heads:
            head.chain.set_standardisation(theta, valid)

    def set_dropout(self, p: float) -> None:
        """Set the dropout probability of the context networks (0 by default) for training."""
        for module in self.heads.modules():
            if isinstance(module, nn.Dropout):
                module.p = p

    @property
    def photometry_heads(self) -> range:
        """Indices of the heads that are used for galaxies without images only."""
        return range(self.config["members"], len(self.heads))

    def extract_head(self, k: int) -> Self:
        """Return a network with one head, copied from head k, and the same encoder."""
        return self._copied([self.heads[k]], 0)

    def with_heads(
        self, networks: Sequence[PosteriorNetwork], for_photometry: Sequence[PosteriorNetwork] = ()
    ) -> Self:
        """Return a copy of the network with the heads of other networks.

        Parameters
        ----------
        networks : sequence of PropertyNetwork
            Networks of one head with the same encoder and standardisation.  Their heads are used
            for all galaxies, or with ``for_photometry`` for galaxies with images.
        for_photometry : sequence of PropertyNetwork, optional
            Networks whose heads are used for galaxies without images.

        Returns
        -------
        network : PropertyNetwork
        """
        heads = [network.heads[0] for network in (*networks, *for_photometry)]
        return self._copied(heads, len(for_photometry))

    @single_precision()
    def _copied(self, heads: Sequence[nn.Module], n_for_photometry: int) -> Self:
        """Return a copy with other heads, the last of which are for galaxies without images."""
        n = len(heads) - n_for_photometry
        config = self.config | {"members": n, "photometry_members": n_for_photometry}
        if n_for_photometry == 0:
            config.pop("image_quantities", None)
        network = type(self).from_config(config)
        state = {k: v for k, v in self.state_dict().items() if not k.startswith("heads.")}
        for k, head in enumerate(heads):
            state |= {f"heads.{k}.{name}": value for name, value in head.state_dict().items()}
        network.load_state_dict(state)
        return network.to(self.chain.lower.device).train(self.training)

    def latent(self, inputs: ModelInputs) -> tuple[Tensor, Tensor]:
        """Encode the images, in evaluation mode with their missing pixels completed.

        Parameters
        ----------
        inputs : ModelInputs

        Returns
        -------
        mu, logvar : Tensor, shape (n, latent_size)
            Mean and log variance; zero, as in the prior, for galaxies without image.
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
        """Compute context vectors and mixture weights.

        Parameters
        ----------
        inputs : ModelInputs
        latent : tuple of Tensor, optional
            Result of `latent`, if the images are already encoded.

        Returns
        -------
        contexts : Contexts
        """
        mu, logvar = self.latent(inputs) if latent is None else latent
        if self.config["frozen_vae"]:
            mu, logvar = mu.detach(), logvar.detach()
        weight = self._head_weights(inputs.has_image).to(mu)
        used = weight.any(1).nonzero()[:, 0].tolist() or [0]
        vectors = torch.stack([self.heads[k].context(inputs, mu, logvar) for k in used])
        return Contexts(used, vectors, weight[used])

    def posterior_contexts(self, inputs: ModelInputs) -> Contexts:
        """Compute the context vectors of the posterior.

        They differ from `contexts` in networks in which heads for galaxies without images take part
        in the inference from image and photometry (``image_quantities``).

        Parameters
        ----------
        inputs : ModelInputs

        Returns
        -------
        contexts : Contexts
        """
        contexts = self.contexts(inputs)
        both = inputs.has_image & inputs.has_photometry & ~inputs.measured
        if "image_quantities" not in self.config or not bool(both.any()):
            return contexts
        return self._spliced(contexts, inputs.without_images(), both)

    def _spliced(self, contexts: Contexts, photometry: ModelInputs, both: Tensor) -> Contexts:
        """Add pairs of heads for galaxies that have an image and photometry."""
        images = [k for k in contexts.heads if k not in self.photometry_heads]
        n_pairs = max(len(images), len(self.photometry_heads))
        empty = torch.zeros_like(contexts.vectors[0][:, :1]).expand(-1, self.vae.latent_size)
        own = torch.stack(
            [self.heads[k].context(photometry, empty, empty) for k in self.photometry_heads]
        )
        first = [contexts.heads.index(images[k % len(images)]) for k in range(n_pairs)]
        second = [k % len(own) for k in range(n_pairs)]
        weight = (_PHOTOMETRY_WEIGHT * both.to(contexts.weight) / n_pairs).expand(n_pairs, -1)
        heads = [*contexts.heads, *(contexts.heads[k] for k in first)]
        later = [*contexts.heads, *(self.photometry_heads[k] for k in second)]
        weights = torch.cat([contexts.weight * (1 - _PHOTOMETRY_WEIGHT * both), weight])
        used = weights.any(1).nonzero()[:, 0].tolist()
        vectors = torch.cat([contexts.vectors, contexts.vectors[first]])
        later_vectors = torch.cat([contexts.vectors, own[second]])
        return Contexts(
            [heads[k] for k in used],
            vectors[used],
            weights[used],
            Contexts([later[k] for k in used], later_vectors[used], weights[used]),
        )

    def _head_weights(self, has_image: Tensor) -> Tensor:
        """Return the mixture weight of each head for each galaxy, shape (heads, n)."""
        n, n_for_photometry = self.config["members"], self.config["photometry_members"]
        if n_for_photometry == 0:
            return torch.full((n, len(has_image)), 1 / n, dtype=torch.float32)
        return torch.cat(
            [
                (has_image.float() / n).expand(n, -1),
                ((~has_image).float() / n_for_photometry).expand(n_for_photometry, -1),
            ]
        )

    def posterior_of(self, contexts: Contexts) -> ChainPosterior | MixturePosterior:
        """Return the joint posterior of the nine quantities given the result of `contexts`."""
        components = self._chain_posteriors(contexts)
        if contexts.later is not None:
            q = self.config["image_quantities"]
            components = [
                SplicedPosterior(first, second, q)
                for first, second in zip(
                    components, self._chain_posteriors(contexts.later), strict=True
                )
            ]
        if len(components) == 1:
            return components[0]
        return MixturePosterior(components, contexts.weight)

    def _chain_posteriors(self, contexts: Contexts) -> list[ChainPosterior]:
        pairs = zip(contexts.heads, contexts.vectors, strict=True)
        return [self.heads[k].chain(vectors) for k, vectors in pairs]

    def posterior(self, inputs: ModelInputs) -> ChainPosterior | MixturePosterior:
        """Return the joint posterior of the nine quantities as a distribution."""
        return self.posterior_of(self.posterior_contexts(inputs))

    def measurable(self, contexts: Contexts) -> Tensor:
        """Return P(gas metallicity is measurable), shape (n,), given the result of `contexts`."""
        contexts = contexts.later or contexts
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
        """Evaluate the terms of the training loss on a batch, with the density of each head.

        Parameters
        ----------
        inputs : ModelInputs
        theta : Tensor, shape (n, 9)
            True quantities; may be NaN where not valid.
        valid : Tensor of bool, shape (n, 9)
            True where a quantity is known and trained on (gas metallicity only where measurable).
        measurable : Tensor, shape (n,), optional
            1 where the gas metallicity is measurable, 0 where not, NaN where unknown.
        kl_weight : float, optional
            Weight of the divergence inside the evidence lower bound; 1 gives the bound itself.
        elbo_weight : float, optional
            Weight of the bound relative to the flows; with 0 the decoder is not run.
        elbo_fraction : float, optional
            Fraction of the images, the first ones of the batch, that are decoded; decoding takes
            half of the time.
        quantity_weight : Tensor, shape (n, 9), optional
            Weight of each quantity in the flow term; a quantity of weight 0 only conditions those
            after it.
        latent : tuple of Tensor, optional
            Result of `latent`, if the images are already encoded.
        generator : `torch.Generator`, optional
            Source of the latent noise and of the draws that replace unknown quantities.

        Returns
        -------
        terms : dict of scalar Tensor
            ``total`` (minimised), ``flow`` (negative log density summed over valid quantities),
            ``measurable`` (cross entropy), and ``nll_<quantity>`` for each quantity; with images
            also ``reconstruction`` (nats per valid pixel), ``kl`` and ``latent_map`` (mean squared
            error of the predicted latent).
        """
        if quantity_weight is None:
            quantity_weight = torch.ones_like(theta)
        lacking = self.lacking(inputs)
        if lacking is not None:
            valid = valid & ~lacking[:, None]
            if measurable is not None:
                measurable = torch.where(lacking, torch.nan, measurable)
        mu, logvar = self.latent(inputs) if latent is None else latent
        contexts = self.contexts(inputs, (mu, logvar))
        nll, cross_entropy = torch.zeros_like(theta), theta.new_zeros(len(theta))
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
                cross_entropy = cross_entropy.index_add(0, rows, losses * weight[rows])
        terms = {"flow": (nll * quantity_weight).sum(-1).mean()}
        for k, name in enumerate(_FACTOR_NAMES):
            known = quantity_weight[:, k] * (valid[:, k] & usable[:, k] & theta[:, k].isfinite())
            terms[f"nll_{name}"] = _weighted_mean(nll[:, k], known).detach()
        n_classified = 1 if measurable is None else measurable.isfinite().sum().clamp_min(1)
        terms["measurable"] = cross_entropy.sum() / n_classified
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
        """Decode images for several values of one quantity.

        The latent of each galaxy is shifted by the change of the mean latent that the network
        predicts from the quantities; the rest of the latent is kept.

        Parameters
        ----------
        inputs : ModelInputs
            Galaxies with images.
        theta : Tensor, shape (n, 9)
            Initial quantities of each galaxy, for example the posterior median.
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
            If the quantity is not one from which the latent is predicted.
        """
        names = _FACTOR_NAMES[:_N_DECODED]
        if quantity not in names:
            raise ValueError(
                f"quantity {quantity!r} does not affect the decoded image; choose from "
                f"{', '.join(names)}."
            )
        start = self.latent_of_properties(self.chain.standardise(theta)[0][:, :_N_DECODED])
        moved = theta[:, None].repeat(1, len(values), 1)
        moved[..., names.index(quantity)] = values
        end = self.latent_of_properties(self.chain.standardise(moved)[0][..., :_N_DECODED])
        latent = (self.latent(inputs)[0] - start)[:, None] + end
        return self.vae.decode(latent.flatten(0, 1)).unflatten(0, latent.shape[:2])

    def _encode(self, inputs: ModelInputs) -> tuple[Tensor, Tensor]:
        if not self.training:
            inputs = complete_images(self.vae, inputs)
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
        """Evaluate the loss terms of images; ``completed`` holds standardised quantities."""
        image, image_weight = inputs.image, inputs.image_weight
        if image is None or image_weight is None or len(inputs) == 0:
            return {}
        noise = standard_normal(mu.shape, generator, mu.device)
        decoded = self.vae.decode(mu + noise * torch.exp(0.5 * logvar))
        misfit, kl = self.vae.elbo_terms(image, image_weight, decoded, mu, logvar)
        n_pixels = (image_weight[:, self.vae.bands] > 0).sum().clamp_min(1)
        predicted = self.latent_of_properties(
            completed[:, :_N_DECODED].clamp(-_DECODED_LIMIT, _DECODED_LIMIT)
        )
        return {
            "reconstruction": (misfit.sum() / n_pixels).detach(),
            "kl": kl.mean().detach(),
            "elbo": (misfit + kl_weight * kl).mean(),
            "latent_map": F.mse_loss(predicted, mu.detach()),
        }


class PropertyNetwork(PosteriorNetwork):
    """Joint posterior of galaxy properties given an image, photometry, or both.

    Parameters
    ----------
    latent_size : int, optional
        Length of the image latent.
    context_size : int, optional
        Length of the context vector.
    width : int, optional
        Width of the context network.
    factor_width : int, optional
        Width of the networks of the flows.
    n_bins : sequence of int, optional
        Spline bins of each quantity.
    frozen_vae : bool, optional
        If True, the loss of the flows does not train the encoder, which then learns from the images
        only.
    heads : tuple of int, optional
        Number of heads, whose posteriors are averaged, and of additional heads for galaxies without
        images; with 0 of the latter, all heads serve all galaxies.
    domain : Domain, optional
        Photometry and redshifts for which the network is built: by default those of SDSS.

    Attributes
    ----------
    config : dict
        The arguments, for `from_config`; the numbers of heads are ``members`` and
        ``photometry_members``, and the items of the domain are included.
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
        heads: tuple[int, int] = (1, 0),
        domain: Domain | None = None,
    ) -> None:
        domain = domain or Domain()
        config: dict[str, Any] = {
            "latent_size": latent_size,
            "context_size": context_size,
            "width": width,
            "factor_width": factor_width,
            "n_bins": list(n_bins),
            "frozen_vae": frozen_vae,
            "members": heads[0],
            "photometry_members": heads[1],
            **domain.config,
        }
        super().__init__(
            config,
            ImageVAE(latent_size),
            [PropertyHead(config) for _ in range(sum(heads))],
            SEDComponents(domain.sed_components) if domain.sed_components else None,
        )

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> PropertyNetwork:
        """Build an untrained network from the ``config`` of another, or from a part of it."""
        arguments = dict(config)
        heads = (arguments.pop("members", 1), arguments.pop("photometry_members", 0))
        names = [field.name for field in fields(Domain)]
        domain = Domain(**{name: arguments.pop(name) for name in names if name in arguments})
        return cls(**arguments, heads=heads, domain=domain)


def _weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum() / weights.sum().clamp_min(1e-8)
