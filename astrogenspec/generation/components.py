"""A galaxy's spectrum as a vector of unit variance: what the low-resolution diffusion generates.

The vector holds the principal components of the logarithm of the binned rest-frame continuum, those of the logarithms
of the narrow-line fluxes, broad Halpha, redshift, velocity dispersion, and the share of the light that enters the fibre.
Fluxes are relative to the broad-band flux in r through the same aperture, so the vector knows no distance.  Components are
whitened: in pixels the few directions in which galaxies differ would dwarf all others, and a diffusion would spend its noise
levels on them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nn.records import TensorRecord
from ..wavelengths import LINE_NAMES, REST

__all__ = ["PER_BIN", "Components", "Galaxy", "conserve", "to_bins", "to_pixels"]

_CORRECTIONS = 3


def _pixel_weights(per_bin: int, step: float, like: Tensor) -> Tensor:
    """Relative widths in wavelength of the pixels of a bin; their sum is 1."""
    width = torch.exp(torch.arange(per_bin, dtype=torch.float64) * step * math.log(10))
    return (width / width.sum()).to(like)


def to_bins(flux: Tensor, per_bin: int, step: float) -> Tensor:
    """Average pixels into bins.

    Parameters
    ----------
    flux : Tensor, shape (..., m)
        Flux per Angstrom; m a multiple of ``per_bin``.
    per_bin : int
        Pixels in a bin.
    step : float
        Width of a pixel (dex).

    Returns
    -------
    Tensor, shape (..., m / per_bin)
    """
    return (flux.unflatten(-1, (-1, per_bin)) * _pixel_weights(per_bin, step, flux)).sum(-1)


def conserve(flux: Tensor, bins: Tensor, per_bin: int, step: float) -> Tensor:
    """Scale the pixels of each bin so that they average to a given flux.

    Parameters
    ----------
    flux : Tensor, shape (..., m)
        Positive.
    bins : Tensor, shape (..., m / per_bin)
        Wanted flux of each bin.
    per_bin : int
    step : float

    Returns
    -------
    Tensor, shape (..., m)
    """
    ratio = bins / to_bins(flux, per_bin, step)
    return flux * ratio.repeat_interleave(per_bin, dim=-1)


def to_pixels(bins: Tensor, per_bin: int, step: float) -> Tensor:
    """Spread bins over pixels as a smooth curve whose bins are the given ones.

    The logarithm is interpolated linearly between the middles of bins, then corrected by the interpolated ratio of
    wanted to achieved bins a few times; what is left of the difference is removed bin by bin.

    Parameters
    ----------
    bins : Tensor, shape (..., k)
        Positive flux per Angstrom.
    per_bin : int
    step : float

    Returns
    -------
    Tensor, shape (..., k per_bin)
    """
    wanted = bins.log()
    curve = _interpolate(wanted, per_bin)
    for _ in range(_CORRECTIONS):
        achieved = to_bins(curve.exp(), per_bin, step).log()
        curve = curve + _interpolate(wanted - achieved, per_bin)
    return conserve(curve.exp(), bins, per_bin, step)


def _interpolate(values: Tensor, per_bin: int) -> Tensor:
    shape = values.shape
    flat = values.reshape(-1, 1, shape[-1])
    spread = F.interpolate(flat, scale_factor=per_bin, mode="linear", align_corners=False)
    return spread.reshape(*shape[:-1], -1)


#: Pixels of a bin of the low-resolution spectrum, and bins.
PER_BIN = 8
_N_BINS = REST.size // PER_BIN
_N_LINES = len(LINE_NAMES)
#: Broad Halpha, redshift, velocity dispersion, fibre share.
_N_SCALARS = 4
_CONTINUUM_FLOOR = 1e-4
_LINE_FLOOR = 1e-3
#: Broad lines are log10 of the flux plus this; what samples below counts as none.
_BROAD_OFFSET = 0.5
_BROAD_DETECTED = 0.3
_LEAST_SCALE = 3e-3


@dataclass(frozen=True)
class Galaxy(TensorRecord):
    """A galaxy through one aperture, fluxes per nanomaggy in r; n galaxies.

    Attributes
    ----------
    continuum : Tensor, shape (n, 800) or (n, 6400)
        Binned or full rest-frame continuum, 1e-17 erg/s/cm2/A per nmgy.
    narrow : Tensor, shape (n, 17)
        Narrow lines, 1e-17 erg/s/cm2 per nmgy.
    broad : Tensor, shape (n,)
        Broad Halpha, likewise.
    redshift : Tensor, shape (n,)
    dispersion : Tensor, shape (n,)
        Velocity dispersion of the stars, km/s.
    fibre_fraction : Tensor, shape (n,)
        Flux in r through the fibre over that of the galaxy.
    """

    continuum: Tensor
    narrow: Tensor
    broad: Tensor
    redshift: Tensor
    dispersion: Tensor
    fibre_fraction: Tensor


class Components(nn.Module):
    """Turn galaxies into whitened vectors and back.

    Parameters
    ----------
    n_continuum : int
        Principal components of the continuum.

    Attributes
    ----------
    size : int
        Length of the vector.
    """

    def __init__(self, n_continuum: int = 24) -> None:
        super().__init__()
        self.n_continuum = n_continuum
        self.size = n_continuum + _N_LINES + _N_SCALARS
        self.register_buffer("continuum_mean", torch.zeros(_N_BINS))
        self.register_buffer("continuum_basis", torch.eye(n_continuum, _N_BINS))
        self.register_buffer("line_mean", torch.zeros(_N_LINES))
        self.register_buffer("line_basis", torch.eye(_N_LINES))
        self.register_buffer("centre", torch.zeros(self.size))
        self.register_buffer("scale", torch.ones(self.size))

    @torch.no_grad()
    def fit(self, galaxies: Galaxy) -> None:
        """Take means, principal components and scales from a sample with full-resolution continua."""
        continuum = self._log_bins(galaxies.continuum)
        self.continuum_mean.copy_(continuum.mean(0))
        _, basis = _principal(continuum - self.continuum_mean)
        self.continuum_basis.copy_(basis[: self.n_continuum])
        lines = galaxies.narrow.clamp_min(_LINE_FLOOR).log10()
        self.line_mean.copy_(lines.mean(0))
        self.line_basis.copy_(_principal(lines - self.line_mean)[1])
        raw = self._rotate(galaxies)
        self.centre.copy_(raw.mean(0))
        self.scale.copy_(raw.std(0).clamp_min(_LEAST_SCALE))

    def encode(self, galaxies: Galaxy) -> Tensor:
        """Whitened vectors, shape (n, size), of galaxies with full-resolution continua."""
        return (self._rotate(galaxies) - self.centre) / self.scale

    def decode(self, vectors: Tensor) -> Galaxy:
        """Galaxies with binned continua from whitened vectors of shape (n, size)."""
        raw = vectors * self.scale + self.centre
        k = self.n_continuum
        scalars = raw[:, k + _N_LINES :]
        broad = 10 ** scalars[:, 0] - _BROAD_OFFSET
        return Galaxy(
            continuum=torch.exp(raw[:, :k] @ self.continuum_basis + self.continuum_mean),
            narrow=10 ** (raw[:, k : k + _N_LINES] @ self.line_basis + self.line_mean),
            broad=torch.where(broad > _BROAD_DETECTED, broad, 0.0),
            redshift=10 ** scalars[:, 1],
            dispersion=10 ** scalars[:, 2],
            fibre_fraction=(10 ** scalars[:, 3]).clamp(max=1.0),
        )

    def smooth_continuum(self, vectors: Tensor) -> Tensor:
        """Continuum of whitened vectors spread over pixels, shape (n, 6400)."""
        return to_pixels(self.decode(vectors).continuum, PER_BIN, REST.step)

    def _log_bins(self, continuum: Tensor) -> Tensor:
        bins = to_bins(continuum.float(), PER_BIN, REST.step)
        return bins.clamp_min(_CONTINUUM_FLOOR).log()

    def _rotate(self, galaxies: Galaxy) -> Tensor:
        continuum = self._log_bins(galaxies.continuum) - self.continuum_mean
        lines = galaxies.narrow.clamp_min(_LINE_FLOOR).log10() - self.line_mean
        scalars = torch.stack(
            [
                (galaxies.broad + _BROAD_OFFSET).log10(),
                galaxies.redshift.log10(),
                galaxies.dispersion.log10(),
                galaxies.fibre_fraction.log10(),
            ],
            dim=1,
        )
        return torch.cat(
            [continuum @ self.continuum_basis.T, lines @ self.line_basis.T, scalars], dim=1
        )


def _principal(centred: Tensor) -> tuple[Tensor, Tensor]:
    """Variances and rows of principal components, from the largest down."""
    covariance = (centred.T.double() @ centred.double()) / len(centred)
    variance, vectors = torch.linalg.eigh(covariance)
    return variance.flip(0).float(), vectors.flip(1).T.float()
