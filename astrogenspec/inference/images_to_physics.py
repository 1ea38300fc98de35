r"""The network of "From Images to Physics" (Siddiqa, Mahmud & Martinez-Galarza, arXiv:2511.12737).

- A convolutional autoencoder of images in g, r and i, 160 x 160 pixels: three convolutions of 4 x 4
  pixels with a stride of 2, 32 latents, trained first with the sum of the squared errors and the
  divergence from the prior, :math:`\sum (x - \hat x)^2 + \mathrm{KL}`, then fixed.
- A context of 256 numbers from the mean and the standard deviation of the latent, four colours and
  one magnitude.
- Coupling flows of 12 layers (`astrogenspec.inference.blocks`), and a classifier of measurable gas
  metallicities.

A second head reads the colours and the magnitude alone, for galaxies without an image.  There are
no inputs that may be missing: a galaxy without one of the five magnitudes, or with an image that
lacks g, r or i, has no posterior.

What is known of the method is described in :doc:`/real_survey`.  Where it says nothing (channels of
the convolutions, widths, scaling of the pixels), the choices are those of this module: pixels are
scaled by asinh as for the other networks, channels are 32, 64 and 128, and hidden layers have the
width of the context.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..inputs.features import PHOTOMETRY_FEATURES, ModelInputs
from ..nn.layers import make_mlp
from ..quantities import QUANTITIES
from ..surveys import BANDS
from .blocks import BlockChain
from .network import Head, PosteriorNetwork

__all__ = ["ConvolutionalVAE", "ImagesToPhysicsHead", "ImagesToPhysicsNetwork"]

#: Pixels on a side of the published images.
CUTOUT_SIZE = 160
_KERNEL = {"kernel_size": 4, "stride": 2, "padding": 1}
_GRI = slice(BANDS.index("g"), BANDS.index("i") + 1)
_LOG_VARIANCE_RANGE = (-12.0, 4.0)
#: Photometric features that are read: u-g, g-r, r-i, i-z, and the magnitude in r.
_FEATURES = [*PHOTOMETRY_FEATURES.columns("colour"), PHOTOMETRY_FEATURES.index("magnitude_r")]


class ConvolutionalVAE(nn.Module):
    """Encode and decode images in g, r and i.

    Parameters
    ----------
    latent_size : int
        Length of the latent vector.
    cutout_size : int
        Pixels on a side; a multiple of 8.
    channels : sequence of int
        Channels after each of the three convolutions.
    """

    #: Bands that are encoded and decoded.
    bands = _GRI

    def __init__(
        self,
        latent_size: int = 32,
        *,
        cutout_size: int = CUTOUT_SIZE,
        channels: Sequence[int] = (32, 64, 128),
    ) -> None:
        super().__init__()
        self.latent_size = latent_size
        self.n_bands = len(BANDS)
        n_bands = _GRI.stop - _GRI.start
        sizes = (n_bands, *channels)
        self.grid = (channels[-1], *[cutout_size // 2 ** len(channels)] * 2)
        n_features = channels[-1] * self.grid[1] ** 2
        encoder: list[nn.Module] = []
        decoder: list[nn.Module] = []
        for n_in, n_out in zip(sizes, sizes[1:], strict=False):
            encoder += [nn.Conv2d(n_in, n_out, **_KERNEL), nn.ReLU()]
            decoder = [nn.ReLU(), nn.ConvTranspose2d(n_out, n_in, **_KERNEL), *decoder]
        self.encoder = nn.Sequential(*encoder)
        self.head = nn.Linear(n_features, 2 * latent_size)
        self.decoder_input = nn.Linear(latent_size, n_features)
        self.decoder = nn.Sequential(*decoder)

    def encode(
        self, image: Tensor, weight: Tensor, bands: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Encode images.

        Parameters
        ----------
        image, weight : Tensor, shape (n, 5, size, size)
            Scaled image, of which g, r and i are used, and inverse variance, which is not.
        bands, noise : Tensor, shape (n, 5)
            Not used.

        Returns
        -------
        mu, logvar : Tensor, shape (n, latent_size)
            Mean and log variance of the latent.
        """
        mu, logvar = self.head(self.encoder(image[:, _GRI]).flatten(1)).chunk(2, -1)
        return mu, logvar.clamp(*_LOG_VARIANCE_RANGE)

    def decode(self, latent: Tensor) -> Tensor:
        """Decode latents of shape (n, latent_size) to scaled images; u and z are NaN."""
        seen = self.decoder(self.decoder_input(latent).unflatten(1, self.grid))
        images = seen.new_full((len(seen), len(BANDS), *seen.shape[2:]), torch.nan)
        images[:, _GRI] = seen
        return images

    def reconstruct(self, image: Tensor, weight: Tensor, bands: Tensor, noise: Tensor) -> Tensor:
        """Decode the latent means of images; arguments as for `encode`."""
        return self.decode(self.encode(image, weight, bands, noise)[0])

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n scaled images from the prior of the latent, shape (n, 5, size, size)."""
        latent = torch.randn(n, self.latent_size, generator=generator, dtype=torch.float32)
        return self.decode(latent.to(self.decoder_input.weight.device))

    def elbo_terms(
        self, image: Tensor, weight: Tensor, decoded: Tensor, mu: Tensor, logvar: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Evaluate the loss of the images.

        Parameters
        ----------
        image, weight, decoded : Tensor, shape (n, 5, size, size)
            Scaled image, its inverse variance, 0 for bad pixels, which do not count, and the
            decoded latent.
        mu, logvar : Tensor, shape (n, latent_size)
            Mean and log variance of the latent.

        Returns
        -------
        squared error, divergence : Tensor, shape (n,)
        """
        error = (image[:, _GRI] - decoded[:, _GRI]).square() * (weight[:, _GRI] > 0)
        divergence = 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum(-1)
        return error.flatten(1).sum(-1), divergence


class ImagesToPhysicsHead(Head):
    """Context network, coupling flows, and classifier of measurable gas metallicities.

    Parameters
    ----------
    config : dict
        The ``config`` of an `ImagesToPhysicsNetwork`.
    reads_image : bool
        Whether the latent of the image is read.
    """

    def __init__(self, config: dict[str, Any], reads_image: bool) -> None:
        super().__init__()
        size = config["context_size"]
        self.reads_image = reads_image
        n_inputs = len(_FEATURES) + 2 * config["latent_size"] * reads_image
        self.context_network = make_mlp((n_inputs, size, size, size))
        self.chain = BlockChain(
            size,
            lower=[info.lower for info in QUANTITIES.values()],
            upper=[info.upper for info in QUANTITIES.values()],
            n_layers=config["n_layers"],
            hidden=config["coupling_width"],
        )
        self.measurable_head = make_mlp((size, 64, 1))

    def context(self, inputs: ModelInputs, mu: Tensor, logvar: Tensor) -> Tensor:
        """Compute context vectors; see `astrogenspec.inference.network.PropertyHead`."""
        parts = [inputs.photometry[:, _FEATURES]]
        if self.reads_image:
            parts = [mu, torch.exp(0.5 * logvar), *parts]
        return self.context_network(torch.cat(parts, -1))


class ImagesToPhysicsNetwork(PosteriorNetwork):
    """Joint posterior of galaxy properties by the published method.

    Parameters
    ----------
    latent_size, context_size : int
        Lengths of the image latent and of the context vector.
    cutout_size : int
        Pixels on a side of the images; a multiple of 8.
    channels : sequence of int
        Channels of the convolutions.
    n_layers, coupling_width : int
        Layers of the coupling flows, and width of their networks.
    """

    def __init__(
        self,
        *,
        latent_size: int = 32,
        context_size: int = 256,
        cutout_size: int = CUTOUT_SIZE,
        channels: Sequence[int] = (32, 64, 128),
        n_layers: int = 12,
        coupling_width: int = 64,
    ) -> None:
        config: dict[str, Any] = {
            "architecture": "images-to-physics",
            "latent_size": latent_size,
            "context_size": context_size,
            "cutout_size": cutout_size,
            "channels": list(channels),
            "n_layers": n_layers,
            "coupling_width": coupling_width,
            "frozen_vae": True,
            "members": 1,
            "photometry_members": 1,
        }
        super().__init__(
            config,
            ConvolutionalVAE(latent_size, cutout_size=cutout_size, channels=channels),
            [ImagesToPhysicsHead(config, reads_image) for reads_image in (True, False)],
        )

    can_be_fine_tuned = False

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ImagesToPhysicsNetwork:
        """Build an untrained network from the ``config`` of another, or from a part of it."""
        fixed = ("architecture", "frozen_vae", "members", "photometry_members")
        return cls(**{name: value for name, value in config.items() if name not in fixed})

    @property
    def cutout_size(self) -> int:
        """Pixels on a side of the images that are read."""
        return self.config["cutout_size"]

    @property
    def needs(self) -> str:
        """Inputs that the network needs, in words."""
        return f"magnitudes in {', '.join(BANDS)}, and g, r and i of an image"

    def lacking(self, inputs: ModelInputs) -> Tensor:
        """Return which galaxies lack an input that the network needs; see `PosteriorNetwork`."""
        image = inputs.has_image & ~(inputs.image_bands[:, _GRI] > 0).all(1)
        return image | ~inputs.photometry_bands.all(1)
