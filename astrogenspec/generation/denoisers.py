"""The two denoising networks: of whitened components (low resolution) and of spectral detail (full resolution)."""

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

_GROUP = 5
_PATCH = 32
_N_PATCHES = REST.size // _PATCH
_CROP_PATCHES = 40
#: Pixels of a crop.
CROP = _CROP_PATCHES * _PATCH
_BINS_PER_PATCH = _PATCH // PER_BIN
_NOISE_FEATURES = 64


class ComponentDenoiser(nn.Module):
    """Denoise vectors of components, a few values to a token, attending to tokens of the conditions.

    Parameters
    ----------
    size : int
        Length of the vectors.
    width, depth, heads : int
        Of the transformer.
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
        """Evaluate for scaled vectors (n, size), noise levels (n,), and the conditions' ``transformer.keys``."""
        size = x.shape[1]
        tokens = nn.functional.pad(x, (0, self.padding)).unflatten(1, (self.n_tokens, _GROUP))
        tokens = self.embed(tokens) + self.place
        vector = self.noise(fourier_features(log_sigma, _NOISE_FEATURES))
        return self.out(self.transformer(tokens, vector, keys)).flatten(1)[:, :size]


class DetailDenoiser(nn.Module):
    """Denoise the detail of crops of a spectrum, given its components.

    The detail is the logarithm of the continuum over the smooth curve through its bins, standardised at each wavelength.

    Parameters
    ----------
    size : int
        Length of the vector of components.
    width, depth, heads : int
        Of the transformer.
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
        """Evaluate for scaled detail (n, CROP) and noise levels (n,)."""
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
    """What the detail of crops is conditioned on.

    Parameters
    ----------
    smooth : Tensor, shape (n, 6400)
        Smooth curve through the bins.
    vector : Tensor, shape (n, size)
        Components.
    noise : Tensor, shape (n,)
        How much noise was added to the components.
    start : Tensor of int64, shape (n,)
        First patch of each crop.

    Attributes
    ----------
    patch : Tensor of int64, shape (n, 40)
        Numbers of the patches.
    bins : Tensor, shape (n, 40, 12)
        Logarithm of the bins of a patch and of its neighbours, relative to their mean.
    vector : Tensor, shape (n, size + 1)
        Components and noise.
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
    """Cut a crop of each spectrum (n, 6400) that starts at patch ``start`` (n,): shape (n, CROP)."""
    pixel = start[:, None] * _PATCH + torch.arange(CROP, device=spectra.device)
    return spectra.gather(1, pixel)


def tiling_starts(device: torch.device) -> Tensor:
    """First patches of crops that tile a spectrum."""
    return torch.arange(0, _N_PATCHES, _CROP_PATCHES, device=device)


def random_starts(n: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """First patches of crops at random, shape (n,)."""
    source = generator.device if generator is not None else device
    high = _N_PATCHES - _CROP_PATCHES + 1
    return torch.randint(high, (n,), generator=generator, device=source).to(device)
