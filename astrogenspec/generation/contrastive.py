r"""Contrastive networks: scores of pairs of observation and spectrum.

Two encoders map observations and spectra to unit vectors :math:`u` and :math:`v`. They are trained
to identify the partner of each vector in a batch (InfoNCE, van den Oord et al. 2018,
arXiv:1807.03748): the loss is the cross-entropy of the softmax of :math:`u_i \cdot v_j / \tau`,
averaged over both directions, with a learned temperature :math:`\tau` (Radford et al. 2021,
arXiv:2103.00020). The optimal score is
:math:`\ln\,[p(\mathrm{spectrum} \mid \mathrm{observation}) / p(\mathrm{spectrum})]` plus a
constant.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nn.layers import ResidualLinear, make_mlp
from ..wavelengths import REST

__all__ = ["ComponentEncoder", "Matcher", "SpectrumEncoder", "info_nce"]

#: Initial temperature, and maximum of the inverse temperature.
_INITIAL_TEMPERATURE = 0.1
_MAX_SCALE = 100.0
_CHANNELS = (16, 32, 64, 96)


class ComponentEncoder(nn.Module):
    """Encoder of low-resolution spectra, given as vectors of components.

    Parameters
    ----------
    size : int
        Length of the vectors.
    embedding : int
        Length of the embedding.
    """

    def __init__(self, size: int, embedding: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(size, 256),
            ResidualLinear(256),
            ResidualLinear(256),
            nn.SiLU(),
            nn.Linear(256, embedding),
        )

    def forward(self, vectors: Tensor) -> Tensor:
        """Map vectors (n, size), clipped to 8 standard deviations, to (n, embedding)."""
        return self.layers(vectors.clamp(-8, 8))


class SpectrumEncoder(nn.Module):
    """Encoder of full-resolution spectra with lines: strided convolutions.

    Parameters
    ----------
    embedding : int
        Length of the embedding.
    """

    def __init__(self, embedding: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for n_in, n_out in zip((1, *_CHANNELS), _CHANNELS, strict=False):
            layers += [nn.Conv1d(n_in, n_out, 8, stride=4, padding=2), nn.SiLU()]
        self.trunk = nn.Sequential(*layers)
        n_out = _CHANNELS[-1] * (REST.size // 4 ** len(_CHANNELS))
        self.head = make_mlp((n_out + 1, 256, embedding))

    def forward(self, spectra: Tensor, redshift: Tensor) -> Tensor:
        """Embed spectra (n, 6400), 1e-17 erg/s/cm2/A per nmgy, at redshifts (n,)."""
        x = spectra.clamp_min(1e-4).log()
        x = (x - math.log(0.25)).clamp(-4, 4)
        features = self.trunk(x[:, None]).flatten(1)
        return self.head(torch.cat([features, 10 * redshift[:, None]], dim=1))


class Matcher(nn.Module):
    """Score pairs of observations and spectra.

    Parameters
    ----------
    width : int
        Width of the tokens of observations.
    encoder : `torch.nn.Module`
        Encoder of spectra.
    embedding : int
        Length of the embeddings.
    """

    def __init__(self, width: int, encoder: nn.Module, embedding: int = 128) -> None:
        super().__init__()
        self.of_observation = make_mlp((width, 256, embedding))
        self.of_spectrum = encoder
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / _INITIAL_TEMPERATURE)))

    @property
    def scale(self) -> Tensor:
        """Inverse temperature."""
        return self.log_scale.exp().clamp(max=_MAX_SCALE)

    def observation(self, tokens: Tensor) -> Tensor:
        """Map tokens of observations (n, k, width) to unit vectors (n, embedding)."""
        return F.normalize(self.of_observation(tokens.mean(1)), dim=-1)

    def spectrum(self, *spectra: Tensor) -> Tensor:
        """Map spectra to unit vectors (n, embedding); the arguments are those of the encoder."""
        return F.normalize(self.of_spectrum(*spectra), dim=-1)

    def scores(self, observations: Tensor, spectra: Tensor) -> Tensor:
        """Return scores (n, k) in nats of embedded spectra, (n, k, size), given (n, size)."""
        return self.scale * torch.einsum("ne,nke->nk", observations, spectra)


def info_nce(observations: Tensor, spectra: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the symmetric InfoNCE loss of a batch.

    Parameters
    ----------
    observations, spectra : Tensor, shape (n, embedding)
        Unit vectors of n pairs.
    scale : Tensor
        Inverse temperature.

    Returns
    -------
    loss : Tensor
        Mean loss (nats).
    top1 : Tensor
        Fraction of observations whose own spectrum has the highest score.
    """
    logits = scale * observations @ spectra.T
    target = torch.arange(len(logits), device=logits.device)
    loss = 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))
    return loss, (logits.argmax(1) == target).float().mean()
