r"""Variational autoencoder of galaxy images with a noise-weighted likelihood.

The encoder maps a scaled image (`astrogenspec.inputs.features`) to a diagonal Gaussian
:math:`q(\ell \mid x)` over a latent vector; the decoder maps the latent to a noise-free image
:math:`\hat x(\ell)`.  The prior of the latent is standard normal. With the inverse variances
:math:`w` of the pixels, the negative evidence lower bound of a galaxy [1]_ is, up to a constant,

.. math::

    \tfrac{\nu + 1}{2} \sum_i \ln\left(1 + r_i^2 / \nu\right)
    + \beta\, \mathrm{KL}(q(\ell \mid x) \,\|\, N(0, 1)) ,
    \qquad r_i^2 = w_i (x_i - \hat x_i(\ell))^2 ,

where :math:`\beta` is 1 for the bound itself.  The first term is a Student likelihood with
:math:`\nu = 8` degrees of freedom. It is nearly Gaussian for residuals within the noise, and limits
the influence of neighbours and spiral arms, which a short latent cannot describe and which deviate
by up to a hundred standard deviations.  Pixels are assumed to be independent.

Missing bands and masked pixels have zero weight; the decoder predicts them from the other bands.

References
----------
.. [1] Kingma & Welling 2013, arXiv:1312.6114
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..nn.layers import strided_trunk
from ..surveys import BANDS

__all__ = ["ImageVAE", "elbo_terms"]

_GRID = 4
_DEGREES_OF_FREEDOM = 8.0
_LOG_VARIANCE_RANGE = (-12.0, 4.0)


class ImageVAE(nn.Module):
    """Encode and decode 64 x 64 pixel images in five bands.

    Parameters
    ----------
    latent_size : int, optional
        Length of the latent vector.
    n_bands : int, optional
        Number of bands.
    encoder_widths : sequence of int, optional
        Channels at 32, 16, 8 and 4 pixels.
    bottlenecks : sequence of int, optional
        Bottleneck channels of the residual block at each of these; 0 for none.
    decoder_widths : sequence of int, optional
        Channels at 4, 8, 16 and 32 pixels.
    """

    def __init__(
        self,
        latent_size: int = 32,
        *,
        n_bands: int = len(BANDS),
        encoder_widths: Sequence[int] = (24, 48, 96, 160),
        bottlenecks: Sequence[int] = (0, 32, 64, 96),
        decoder_widths: Sequence[int] = (96, 48, 32, 16),
    ) -> None:
        super().__init__()
        self.latent_size = latent_size
        self.n_bands = n_bands
        self.trunk = strided_trunk(n_bands + 1, encoder_widths, bottlenecks)
        self.head = nn.Sequential(
            nn.Linear(encoder_widths[-1] * _GRID**2 + 2 * n_bands, 128),
            nn.SiLU(),
            nn.Linear(128, 2 * latent_size),
        )
        self.decoder_input = nn.Linear(latent_size, decoder_widths[0] * _GRID**2)
        self.decoder = _decoder(n_bands, decoder_widths)
        self.to(memory_format=torch.channels_last)

    #: Bands that are encoded and decoded.
    bands = slice(None)

    def elbo_terms(
        self, image: Tensor, weight: Tensor, decoded: Tensor, mu: Tensor, logvar: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Evaluate the loss of the images; see `elbo_terms`."""
        return elbo_terms(image, weight, decoded, mu, logvar)

    def encode(
        self, image: Tensor, weight: Tensor, bands: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Encode images.

        Parameters
        ----------
        image, weight : Tensor, shape (n, 5, 64, 64)
            Scaled image and inverse variance.
        bands, noise : Tensor, shape (n, 5)
            1 for each existing band, else 0; log10 of relative noise.

        Returns
        -------
        mu, logvar : Tensor, shape (n, latent_size)
            Mean and log variance of the latent.
        """
        valid = (weight > 0).to(image.dtype).mean(1, keepdim=True)
        x = torch.cat([image, valid], 1).contiguous(memory_format=torch.channels_last)
        features = torch.cat([self.trunk(x).flatten(1), bands, noise], 1)
        mu, logvar = self.head(features).chunk(2, -1)
        return mu, logvar.clamp(*_LOG_VARIANCE_RANGE)

    def decode(self, latent: Tensor) -> Tensor:
        """Decode latents of shape (n, latent_size) to scaled images of shape (n, 5, 64, 64)."""
        x = self.decoder_input(latent).unflatten(1, (-1, _GRID, _GRID))
        return self.decoder(x.contiguous(memory_format=torch.channels_last))

    def reconstruct(self, image: Tensor, weight: Tensor, bands: Tensor, noise: Tensor) -> Tensor:
        """Decode the latent means of images, shape (n, 5, 64, 64); arguments as for `encode`."""
        return self.decode(self.encode(image, weight, bands, noise)[0])

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n scaled images from the prior of the latent, shape (n, 5, 64, 64)."""
        latent = torch.randn(n, self.latent_size, generator=generator, dtype=torch.float32)
        return self.decode(latent.to(self.decoder_input.weight.device))


def elbo_terms(
    image: Tensor, weight: Tensor, decoded: Tensor, mu: Tensor, logvar: Tensor
) -> tuple[Tensor, Tensor]:
    """Evaluate the two terms of the negative evidence lower bound.

    Parameters
    ----------
    image, weight, decoded : Tensor, shape (n, 5, ny, nx)
        Scaled image, its inverse variance, and the decoded latent.
    mu, logvar : Tensor, shape (n, latent_size)
        Mean and log variance of the latent.

    Returns
    -------
    reconstruction, kl : Tensor, shape (n,)
        Negative log likelihood of the image up to a constant, and Kullback-Leibler divergence from
        the prior [nats].
    """
    nu = _DEGREES_OF_FREEDOM
    chi2 = weight * (image - decoded).square()
    reconstruction = 0.5 * (nu + 1) * torch.log(1 + chi2 / nu).flatten(1).sum(-1)
    kl = 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum(-1)
    return reconstruction, kl


def _decoder(n_bands: int, widths: Sequence[int]) -> nn.Sequential:
    """Build a decoder from 4 to 64 pixels: the size is doubled four times by pixel shuffling."""
    layers: list[nn.Module] = []
    for n_in, n_out in zip(widths, (*widths[1:], n_bands), strict=True):
        if n_out != n_bands:
            layers.append(nn.GroupNorm(8, n_in))
        layers += [nn.SiLU(), nn.Conv2d(n_in, 4 * n_out, 3, padding=1), nn.PixelShuffle(2)]
    return nn.Sequential(*layers)
