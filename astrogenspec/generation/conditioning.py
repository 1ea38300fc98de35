"""Conditions of a spectrum as tokens: image, photometry, aperture, and one draw of the properties.

The tokens are the positions of a 4 x 4 grid of image features, one token per band, one of the whole
photometry, one of the aperture, and one per property. Missing inputs and unknown properties are
replaced by learned tokens, so that any subset of the conditions can be used.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..inputs.features import (
    MAGNITUDE_SCALE,
    N_PHOTOMETRY_FEATURES,
    PHOTOMETRY_FEATURES,
    ModelInputs,
)
from ..nn.layers import make_mlp, strided_trunk
from ..quantities import QUANTITIES
from ..surveys import BANDS

__all__ = [
    "APERTURES",
    "Conditions",
    "ObservationEncoder",
    "PropertyEncoder",
    "reference_log_flux",
]

#: Apertures of the spectra: a fibre of 3 arcsec, or the aperture of the input photometry.
APERTURES = ("fibre", "total")
_GRID = 4
_WIDTHS = (16, 32, 64, 128)
_BOTTLENECKS = (0, 16, 32, 64)
#: Number of features per band: asinh magnitude, log S/N, presence.
_BAND_FEATURES = 3
#: Columns of theta with the log10 of line fluxes.
_LINES = [k for k, info in enumerate(QUANTITIES.values()) if info.logarithmic]
#: The gas metallicity is omitted, as it follows from the four lines.
_CONDITIONING = tuple(name for name in QUANTITIES if name != "gas_metallicity")


class ObservationEncoder(nn.Module):
    """Encoder of image, photometry and aperture; missing inputs have learned tokens.

    Parameters
    ----------
    width : int
        Width of the tokens.
    n_domains : int
        Number of populations with their own token of the aperture: 2 if the network distinguishes
        simulated and observed spectra.
    """

    def __init__(self, width: int, n_domains: int = 1) -> None:
        super().__init__()
        self.trunk = strided_trunk(len(BANDS) + 1, _WIDTHS, _BOTTLENECKS)
        self.from_trunk = nn.Linear(_WIDTHS[-1], width)
        self.from_bands = nn.Linear(2 * len(BANDS), width)
        self.place = nn.Parameter(0.02 * torch.randn(_GRID**2, width))
        self.no_image = nn.Parameter(0.02 * torch.randn(_GRID**2, width))
        self.band = nn.Parameter(0.02 * torch.randn(len(BANDS), width))
        self.from_band = nn.Linear(_BAND_FEATURES, width)
        self.from_photometry = make_mlp((N_PHOTOMETRY_FEATURES, width, width))
        self.aperture = nn.Embedding(n_domains * len(APERTURES), width)
        self.to(memory_format=torch.channels_last)

    def forward(self, inputs: ModelInputs, aperture: Tensor) -> Tensor:
        """Return tokens of shape (n, 23, width); ``aperture`` (n,) has indices of `APERTURES`.

        Indices of the second population follow those of the first.
        """
        photometry = inputs.photometry
        columns = [PHOTOMETRY_FEATURES.slice(name) for name in ("magnitude", "log_snr", "present")]
        bands = torch.stack([photometry[:, column] for column in columns], dim=2)
        tokens = [
            self._image_tokens(inputs),
            self.from_band(bands) + self.band,
            self.from_photometry(photometry)[:, None],
            self.aperture(aperture)[:, None],
        ]
        return torch.cat(tokens, dim=1)

    def _image_tokens(self, inputs: ModelInputs) -> Tensor:
        tokens = self.no_image.expand(len(inputs), -1, -1)
        rows = inputs.has_image.nonzero()[:, 0]
        if inputs.image is None or inputs.image_weight is None or len(rows) == 0:
            return tokens
        image, weight = inputs.image[rows], inputs.image_weight[rows]
        valid = (weight > 0).to(image.dtype).mean(1, keepdim=True)
        x = torch.cat([image, valid], dim=1).contiguous(memory_format=torch.channels_last)
        features = self.trunk(x).flatten(2).transpose(1, 2)
        noise = torch.cat([inputs.image_bands[rows], inputs.image_noise[rows]], dim=1)
        seen = self.from_trunk(features) + self.place + self.from_bands(noise)[:, None]
        return tokens.index_copy(0, rows, seen)


class PropertyEncoder(nn.Module):
    """Encode one draw of the properties, one token each; unknown properties have learned tokens.

    Parameters
    ----------
    width : int
        Width of the tokens.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        n = len(_CONDITIONING)
        self.columns = [k for k, name in enumerate(QUANTITIES) if name in _CONDITIONING]
        self.register_buffer("centre", torch.zeros(len(QUANTITIES)))
        self.register_buffer("scale", torch.ones(len(QUANTITIES)))
        self.weight = nn.Parameter(torch.randn(n, 2, width) / 2)
        self.bias = nn.Parameter(0.02 * torch.randn(n, width))
        self.absent = nn.Parameter(0.02 * torch.randn(n, width))
        self.mix = make_mlp((width, width, width))

    @torch.no_grad()
    def fit(self, theta: Tensor) -> None:
        """Compute mean and standard deviation of labels of shape (n, 9)."""
        self.centre.copy_(theta.nanmean(0))
        self.scale.copy_(theta[theta.isfinite().all(1)].std(0))

    def forward(self, theta: Tensor, given: Tensor, log_flux: Tensor) -> Tensor:
        """Return the tokens.

        Parameters
        ----------
        theta : Tensor, shape (n, 9)
            Properties in the order and internal units of `~astrogenspec.quantities.QUANTITIES`.
        given : Tensor of bool, shape (n, 9)
            Which properties are conditions.
        log_flux : Tensor, shape (n,)
            See `reference_log_flux`; line fluxes relative to it are a second feature.

        Returns
        -------
        Tensor, shape (n, 8, width)
        """
        value = (theta - self.centre) / self.scale
        relative = torch.zeros_like(value)
        relative[:, _LINES] = theta[:, _LINES] - log_flux[:, None]
        both = torch.stack([value, relative], dim=2)[:, self.columns]
        both = torch.where(given[:, self.columns, None], both, 0.0)
        tokens = torch.einsum("nkf,kfw->nkw", both, self.weight) + self.bias
        tokens = torch.where(given[:, self.columns, None], tokens, self.absent)
        return tokens + self.mix(tokens)


class Conditions(nn.Module):
    """Encoders of all conditions of a spectrum.

    Parameters
    ----------
    width : int
        Width of the tokens.
    n_domains : int
        Number of populations; see `ObservationEncoder`.
    """

    def __init__(self, width: int, n_domains: int = 1) -> None:
        super().__init__()
        self.observation = ObservationEncoder(width, n_domains)
        self.properties = PropertyEncoder(width)

    def forward(self, observed: Tensor, theta: Tensor, given: Tensor, log_flux: Tensor) -> Tensor:
        """Append the tokens of a draw to tokens (n, k, width) of observations."""
        return torch.cat([observed, self.properties(theta, given, log_flux)], dim=1)


def reference_log_flux(photometry: Tensor) -> Tensor:
    """Return log10 of a broad-band flux, up to a constant, from photometric features (n, 20).

    The band is the first one present in the order r, i, g, z, u; the result is zero without any.
    """
    magnitudes = photometry[:, PHOTOMETRY_FEATURES.slice("magnitude")]
    present = photometry[:, PHOTOMETRY_FEATURES.slice("present")] > 0
    log_flux = torch.zeros_like(magnitudes[:, 0])
    for band in map(BANDS.index, "uzgir"):
        here = -0.4 * MAGNITUDE_SCALE * magnitudes[:, band]
        log_flux = torch.where(present[:, band], here, log_flux)
    return log_flux
