r"""Denoising networks of the two diffusions: transformers of components and of spectral detail.

The low-resolution denoiser (`ComponentDenoiser`) sees a vector of components as a sequence of
tokens and attends to tokens of the conditions (cross-attention). The noise level modulates its
layers, as in Peebles & Xie (2023, arXiv:2212.09748).

The full-resolution denoiser (`DetailDenoiser`) generates the detail
:math:`\ln(\mathrm{continuum} / \mathrm{smooth})`, standardised at each wavelength, where ``smooth``
is the smooth curve through the bins of the low-resolution spectrum
(`~astrogenspec.generation.components.to_pixels`). It is trained on crops, given the components with
some noise and the amount of this noise (conditioning augmentation, Ho et al. 2022,
arXiv:2106.15282), so that errors of generated components have little effect.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..nn.attention import ModulatedTransformer, fourier_features
from ..nn.layers import make_mlp
from ..wavelengths import REST
from .components import PER_BIN, to_bins

__all__ = [
    "CROP",
    "ComponentDenoiser",
    "DetailDenoiser",
    "DetailGuide",
    "extract_crops",
    "random_starts",
    "tiling_starts",
]

#: Number of components per token, and of pixels per patch.
_GROUP = 5
_PATCH = 32
_N_PATCHES = REST.size // _PATCH
_CROP_PATCHES = 40
#: Number of pixels of a crop.
CROP = _CROP_PATCHES * _PATCH
_BINS_PER_PATCH = _PATCH // PER_BIN
_NOISE_FEATURES = 64


class ComponentDenoiser(nn.Module):
    """Transformer of vectors of components, with cross-attention to tokens of the conditions.

    Parameters
    ----------
    size : int
        Length of the vectors.
    width, depth, heads : int
        Width, number of blocks and number of attention heads.
    """

    def __init__(self, size: int, *, width: int = 128, depth: int = 5, heads: int = 4) -> None:
        super().__init__()
        self.n_tokens = -(-size // _GROUP)
        self.padding = self.n_tokens * _GROUP - size
        self.embed = nn.Linear(_GROUP, width)
        self.place = nn.Parameter(0.02 * torch.randn(self.n_tokens, width))
        self.noise = make_mlp((_NOISE_FEATURES, width, width))
        self.transformer = ModulatedTransformer(width, depth, heads, context=True)
        self.out = nn.Linear(width, _GROUP)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, log_sigma: Tensor, keys: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Denoise scaled vectors (n, size) at levels (n,), given keys of the conditions."""
        size = x.shape[1]
        tokens = nn.functional.pad(x, (0, self.padding)).unflatten(1, (self.n_tokens, _GROUP))
        tokens = self.embed(tokens) + self.place
        vector = self.noise(fourier_features(log_sigma, _NOISE_FEATURES))
        return self.out(self.transformer(tokens, vector, keys)).flatten(1)[:, :size]


class DetailDenoiser(nn.Module):
    """Transformer of the detail of crops of a spectrum, given its components.

    Parameters
    ----------
    size : int
        Length of the vector of components.
    width, depth, heads : int
        Width, number of blocks and number of attention heads.
    """

    def __init__(self, size: int, *, width: int = 128, depth: int = 4, heads: int = 4) -> None:
        super().__init__()
        self.embed = nn.Linear(_PATCH + 3 * _BINS_PER_PATCH, width)
        self.place = nn.Parameter(0.02 * torch.randn(_N_PATCHES, width))
        self.components = make_mlp((size + 1, width, width))
        self.noise = make_mlp((_NOISE_FEATURES, width, width))
        self.transformer = ModulatedTransformer(width, depth, heads)
        self.out = nn.Linear(width, _PATCH)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, log_sigma: Tensor, guide: DetailGuide) -> Tensor:
        """Evaluate scaled detail (n, CROP) at noise levels (n,)."""
        patches = x.unflatten(1, (-1, _PATCH))
        wavelength = fourier_features(
            guide.patch.float() / _N_PATCHES, self.place.shape[1], highest=200.0
        )
        tokens = self.embed(torch.cat([patches, guide.bins], dim=2))
        tokens = tokens + self.place[guide.patch] + wavelength
        vector = self.noise(fourier_features(log_sigma, _NOISE_FEATURES))
        vector = vector + self.components(guide.vector)
        return self.out(self.transformer(tokens, vector)).flatten(1)


class DetailGuide:
    """Conditions of the detail of crops.

    Parameters
    ----------
    smooth : Tensor, shape (n, 6400)
        Smooth curve through the bins.
    vector : Tensor, shape (n, size)
        Components.
    noise : Tensor, shape (n,)
        Standard deviation of the noise added to the components.
    start : Tensor of int64, shape (n,)
        Index of the first patch of each crop.

    Attributes
    ----------
    patch : Tensor of int64, shape (n, 40)
        Indices of the patches.
    bins : Tensor, shape (n, 40, 12)
        Logarithms of the bins of each patch and its two neighbours, minus the mean over the
        spectrum.
    vector : Tensor, shape (n, size + 1)
        Components and standard deviation of the noise.
    """

    def __init__(self, smooth: Tensor, vector: Tensor, noise: Tensor, start: Tensor) -> None:
        bins = to_bins(smooth, PER_BIN, REST.step).log()
        bins = (bins - bins.mean(1, keepdim=True)).unflatten(1, (_N_PATCHES, _BINS_PER_PATCH))
        around = torch.cat([bins[:, :1], bins, bins[:, -1:]], dim=1)
        triple = torch.cat([around[:, :-2], bins, around[:, 2:]], dim=2)
        self.patch = start[:, None] + torch.arange(_CROP_PATCHES, device=start.device)
        rows = torch.arange(len(smooth), device=start.device)[:, None]
        self.bins = triple[rows, self.patch]
        self.vector = torch.cat([vector, noise[:, None]], dim=1)


def extract_crops(spectra: Tensor, start: Tensor) -> Tensor:
    """Return the crops, shape (n, CROP), of spectra (n, 6400) that start at patches (n,)."""
    pixel = start[:, None] * _PATCH + torch.arange(CROP, device=spectra.device)
    return spectra.gather(1, pixel)


def tiling_starts(device: torch.device) -> Tensor:
    """Return the first patches of crops that tile a spectrum."""
    return torch.arange(0, _N_PATCHES, _CROP_PATCHES, device=device)


def random_starts(n: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Return random first patches of crops, shape (n,)."""
    source = generator.device if generator is not None else device
    high = _N_PATCHES - _CROP_PATCHES + 1
    return torch.randint(high, (n,), generator=generator, device=source).to(device)
