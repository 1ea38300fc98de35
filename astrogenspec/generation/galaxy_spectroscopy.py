r"""The networks of "Galaxy spectroscopy without spectra" (Doorenbos et al. 2024, ApJ 977, 131).

1. A diffusion (`astrogenspec.generation.ddpm`) generates low-resolution spectra for an image.
2. A contrastive network ranks the candidates; the best are kept.
3. A second diffusion, given the low-resolution spectrum, generates that of full resolution.
4. A second contrastive network ranks these.

Spectra are :math:`\ln(f / \bar f)` from 4000 to 8500 Angstrom in steps of 1 Angstrom in the
observed frame, where :math:`\bar f` is the mean flux between 6900 and 6950 Angstrom; of low
resolution is every eighth point.  All networks see the image in five bands, 64 x 64 pixels: the
diffusions are U-Nets (`astrogenspec.nn.unet`) with cross-attention to the feature map of a residual
network.

What is known of the method is described in :doc:`/real_survey`.  Where it says nothing (widths and
levels, the residual network, scaling of pixels and spectra), the choices are those of this module.
Absolute fluxes, which the method does not have, come from the light in r in the fibre, and the
redshift of a spectrum is measured on it, by cross-correlation (`astrogenspec.measure.redshift`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..inputs.features import ModelInputs
from ..nn.layers import strided_trunk
from ..nn.unet import UNet1d
from ..surveys import BANDS
from .contrastive import info_nce
from .ddpm import CosineDiffusion
from .network import SamplerSettings

__all__ = ["LOW", "WAVELENGTH", "GalaxySpectroscopyNetwork", "normalised_log"]

#: Observed wavelengths (Angstrom), and the points of low resolution.
WAVELENGTH = np.arange(4000.0, 8501.0)
LOW = slice(None, None, 8)
_NORMAL = slice(*np.searchsorted(WAVELENGTH, [6900.0, 6950.5]))
#: Smallest flux relative to the mean of the range, of which the logarithm is taken.
_MIN_FLUX = 0.02
_MIN_SCALE = 1e-3
#: Temperature of the contrastive networks, and lengths of their vectors.
_TEMPERATURE = 0.05
_EMBEDDINGS = (128, 256)
#: Spectrum encoders: channels of the convolutions, and positions after them.
_CHANNELS, _N_POOLED = (32, 64, 128, 128), 8
#: Residual network of the images: channels at 32, 16 and 8 pixels, and bottlenecks.
_BOTTLENECKS = (0, 64, 128)


def normalised_log(flux: np.ndarray) -> np.ndarray:
    """Return the logarithm of spectra over their mean between 6900 and 6950 Angstrom.

    Parameters
    ----------
    flux : ndarray, shape (n, 4501)
        Flux density at `WAVELENGTH`.

    Returns
    -------
    ndarray, shape (n, 4501)
        NaN for a spectrum whose mean is not positive.
    """
    mean = flux[:, _NORMAL].mean(1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = np.where(mean > 0, flux / mean, np.nan)
    return np.log(np.maximum(relative, _MIN_FLUX))


class _ImageNetwork(nn.Module):
    """Residual network of images; returns its feature map as tokens."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.trunk = strided_trunk(len(BANDS), widths, _BOTTLENECKS)
        self.width = widths[-1]

    def forward(self, image: Tensor) -> Tensor:
        """Map images (n, 5, 64, 64) to tokens (n, 64, width)."""
        return self.trunk(image).flatten(2).transpose(1, 2)


class _ImageUNet(nn.Module):
    """U-Net of a sequence given an image, and possibly another sequence of the same length."""

    def __init__(self, n_in: int, widths: Sequence[int], image: Sequence[int]) -> None:
        super().__init__()
        self.image = _ImageNetwork(image)
        self.unet = UNet1d(n_in, widths, self.image.width)


class _Contrast(nn.Module):
    """Image encoder and spectrum encoder with a common space of unit vectors."""

    def __init__(self, size: int, embedding: int, image: Sequence[int]) -> None:
        super().__init__()
        self.image = _ImageNetwork(image)
        self.of_image = nn.Linear(self.image.width, embedding)
        layers: list[nn.Module] = []
        for n_in, n_out in zip((1, *_CHANNELS), _CHANNELS, strict=False):
            if size >= 2 * _N_POOLED:
                layers += [nn.Conv1d(n_in, n_out, 8, stride=4, padding=2), nn.SiLU()]
                size, n_features = size // 4, n_out
        self.trunk = nn.Sequential(*layers, nn.AdaptiveAvgPool1d(_N_POOLED))
        self.of_spectrum = nn.Linear(n_features * _N_POOLED, embedding)

    def embed_images(self, image: Tensor) -> Tensor:
        """Map images (n, 5, 64, 64) to unit vectors."""
        return F.normalize(self.of_image(self.image(image).mean(1)), dim=-1)

    def embed_spectra(self, spectra: Tensor) -> Tensor:
        """Map spectra (n, size) to unit vectors."""
        return F.normalize(self.of_spectrum(self.trunk(spectra[:, None]).flatten(1)), dim=-1)


class GalaxySpectroscopyNetwork(nn.Module):
    """Two diffusions and two contrastive networks of spectra given images.

    Parameters
    ----------
    widths : sequence of int
        Channels of the levels of the U-Nets.
    image_widths : sequence of int
        Channels of the residual network at 32, 16 and 8 pixels.
    n_steps : int
        Steps of the diffusions.

    Attributes
    ----------
    config : dict
        The arguments.
    bands : Tensor of bool, shape (5,)
        Bands that the images have.
    zero_points : Tensor, shape (5,)
        Magnitude of a galaxy on the survey's system minus that of its spectrum on the AB system.
    """

    #: Options with which spectra are drawn: 25 candidates, ranked.
    default_options: ClassVar[dict[str, Any]] = {"select": "best", "n_candidates": 25}

    def __init__(
        self,
        *,
        widths: Sequence[int] = (192, 320, 512, 640),
        image_widths: Sequence[int] = (64, 128, 256),
        n_steps: int = 250,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "architecture": "galaxy-spectroscopy",
            "widths": list(widths),
            "image_widths": list(image_widths),
            "n_steps": n_steps,
        }
        n, n_low = len(WAVELENGTH), len(WAVELENGTH[LOW])
        self.diffusion = CosineDiffusion(n_steps)
        self.low = _ImageUNet(1, widths, image_widths)
        self.high = _ImageUNet(2, widths, image_widths)
        self.low_contrast = _Contrast(n_low, _EMBEDDINGS[0], image_widths)
        self.high_contrast = _Contrast(n, _EMBEDDINGS[1], image_widths)
        self.register_buffer("centre", torch.zeros(n))
        self.register_buffer("scale", torch.ones(n))
        self.register_buffer("bands", torch.ones(len(BANDS), dtype=torch.bool))
        self.register_buffer("zero_points", torch.zeros(len(BANDS)))

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> GalaxySpectroscopyNetwork:
        """Build an untrained network from the ``config`` of another, or from a part of it."""
        return cls(**{name: value for name, value in config.items() if name != "architecture"})

    @torch.no_grad()
    def fit_scales(self, logs: Tensor) -> None:
        """Compute mean and scale of every point from logarithms of spectra, shape (n, 4501)."""
        self.centre.copy_(logs.mean(0))
        self.scale.copy_(logs.std(0).clamp_min(_MIN_SCALE))

    def lacking(self, inputs: ModelInputs) -> Tensor:
        """Return which galaxies lack a band of the image, bool, shape (n,).

        Parameters
        ----------
        inputs : ModelInputs
            n galaxies.
        """
        return ((inputs.image_bands <= 0) & self.bands).any(1)

    @property
    def needs(self) -> str:
        """Inputs that the network needs, in words."""
        names = [band for band, used in zip(BANDS, self.bands.tolist(), strict=True) if used]
        return f"an image in {', '.join(names)}"

    def loss(
        self,
        image: Tensor,
        logs: Tensor,
        *,
        n_detail: int,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Return the losses of the four networks and their sum ``total``.

        Parameters
        ----------
        image : Tensor, shape (n, 5, 64, 64)
            Scaled images.
        logs : Tensor, shape (n, 4501)
            See `normalised_log`.
        n_detail : int
            Number of galaxies, from the first, that train the diffusion of full resolution.
        generator : `torch.Generator`, optional
            Source of randomness.
        """
        data = (logs - self.centre) / self.scale
        low = data[:, LOW]
        tokens = self.low.image(image)
        coarse = self.diffusion.loss(
            lambda x, t: self.low.unet(x[:, None], t, tokens), low, generator
        )
        some = slice(0, max(n_detail, 1))
        given, seen = self._interpolated(low[some]), self.high.image(image[some])
        fine = self.diffusion.loss(
            lambda x, t: self.high.unet(torch.stack([x, given], 1), t, seen), data[some], generator
        )
        terms = {"low": coarse.mean(), "high": fine.mean()}
        inverse = data.new_tensor(1 / _TEMPERATURE)
        for name, contrast, spectra in (
            ("low", self.low_contrast, low),
            ("high", self.high_contrast, data),
        ):
            terms[f"match_{name}"], terms[f"top1_{name}"] = info_nce(
                contrast.embed_images(image), contrast.embed_spectra(spectra), inverse
            )
        names = ("low", "high", "match_low", "match_high")
        return terms | {"total": torch.stack([terms[name] for name in names]).sum()}

    @torch.no_grad()
    def candidates(
        self, image: Tensor, k: int, draw: Callable[[int], Tensor], sampler: SamplerSettings
    ) -> Tensor:
        """Sample standardised low-resolution spectra.

        Parameters
        ----------
        image : Tensor, shape (n, 5, 64, 64)
        k : int
            Number of candidates for each image.
        draw : callable
            Returns standard normal noise of shape (n * k, m) for a length m.
        sampler : SamplerSettings
            With ``method="ddim"``, ``low_steps`` steps; all steps of ancestral sampling otherwise.

        Returns
        -------
        Tensor, shape (n, k, 563)
        """
        tokens = self.low.image(image).repeat_interleave(k, 0)
        found = self.diffusion.sample(
            lambda x, t: self.low.unet(x[:, None], t, tokens),
            lambda: draw(len(WAVELENGTH[LOW])),
            sampler.low_steps if sampler.method == "ddim" else None,
        )
        return found.unflatten(0, (len(image), k))

    @torch.no_grad()
    def refine(
        self, image: Tensor, low: Tensor, draw: Callable[[int], Tensor], sampler: SamplerSettings
    ) -> Tensor:
        """Sample standardised spectra of full resolution given those of low resolution.

        Parameters
        ----------
        image : Tensor, shape (n, 5, 64, 64)
        low : Tensor, shape (n, k, 563)
        draw, sampler
            As for `candidates`, with ``high_steps``.

        Returns
        -------
        Tensor, shape (n, k, 4501)
        """
        k = low.shape[1]
        tokens = self.high.image(image).repeat_interleave(k, 0)
        given = self._interpolated(low.flatten(0, 1))
        found = self.diffusion.sample(
            lambda x, t: self.high.unet(torch.stack([x, given], 1), t, tokens),
            lambda: draw(len(WAVELENGTH)),
            sampler.high_steps if sampler.method == "ddim" else None,
        )
        return found.unflatten(0, (len(image), k))

    @staticmethod
    def scores(contrast: _Contrast, image: Tensor, spectra: Tensor) -> Tensor:
        """Return the scores (nats) of standardised spectra (n, k, m) given images, shape (n, k)."""
        embedded = contrast.embed_spectra(spectra.flatten(0, 1)).unflatten(0, spectra.shape[:2])
        cosine = torch.einsum("ne,nke->nk", contrast.embed_images(image), embedded)
        return cosine / _TEMPERATURE

    def restore(self, data: Tensor) -> Tensor:
        """Return fluxes relative to their mean from standardised spectra, (..., 4501)."""
        return torch.exp(data * self.scale + self.centre)

    @staticmethod
    def _interpolated(low: Tensor) -> Tensor:
        """Interpolate points of low resolution linearly, shape (n, 4501)."""
        n = len(WAVELENGTH)
        step = len(range(n)[LOW])
        dense = F.interpolate(
            low[:, None], size=8 * (step - 1) + 1, mode="linear", align_corners=True
        )[:, 0]
        return F.pad(dense[:, None], (0, n - dense.shape[1]), mode="replicate")[:, 0]
