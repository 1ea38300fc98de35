r"""Vector representation of galaxy spectra for the low-resolution diffusion.

The vector of a galaxy has the coefficients of

* principal components of the logarithm of the binned rest-frame continuum,
* principal components of the logarithms of the narrow-line fluxes,
* four scalars: logarithms of the broad Halpha flux, the redshift, the velocity dispersion, and the
  fraction of light in the fibre,

and, in networks of observed spectra, the coefficients of principal components of what remains of
their continua after the projection on those of simulated galaxies; each is standardised,
:math:`(x - \mu) / \sigma`, over a sample. Fluxes are relative to the broad-band
flux in r through the same aperture, so that the vector does not depend on distance. Coefficients
are standardised because a diffusion in pixels would be dominated by the few directions in which
galaxies differ most.

Spectra are rebinned with conservation of flux: a bin is the average of its pixels, weighted by
their width, and the spectrum in pixels that is made of bins (`to_pixels`) has these averages.
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

#: Number of corrections of `to_pixels`.
_N_CORRECTIONS = 3


def _pixel_weights(per_bin: int, step: float, like: Tensor) -> Tensor:
    """Return the widths in wavelength of the pixels of a bin, normalised to 1."""
    width = torch.exp(torch.arange(per_bin, dtype=torch.float64) * step * math.log(10))
    return (width / width.sum()).to(like)


def to_bins(flux: Tensor, per_bin: int, step: float) -> Tensor:
    """Average pixels into bins.

    Parameters
    ----------
    flux : Tensor, shape (..., m)
        Flux per Angstrom; m is a multiple of ``per_bin``.
    per_bin : int
        Number of pixels per bin.
    step : float
        Width of a pixel (dex).

    Returns
    -------
    Tensor, shape (..., m / per_bin)
    """
    return (flux.unflatten(-1, (-1, per_bin)) * _pixel_weights(per_bin, step, flux)).sum(-1)


def conserve(flux: Tensor, bins: Tensor, per_bin: int, step: float) -> Tensor:
    """Scale the pixels of each bin so that their average is a given flux.

    Parameters
    ----------
    flux : Tensor, shape (..., m)
        Positive flux per Angstrom.
    bins : Tensor, shape (..., m / per_bin)
        Flux of each bin.
    per_bin : int
        Number of pixels per bin.
    step : float
        Width of a pixel (dex).

    Returns
    -------
    Tensor, shape (..., m)
    """
    ratio = bins / to_bins(flux, per_bin, step)
    return flux * ratio.repeat_interleave(per_bin, dim=-1)


def to_pixels(bins: Tensor, per_bin: int, step: float) -> Tensor:
    """Interpolate bins to a smooth spectrum in pixels with the same bin averages.

    The logarithm is interpolated linearly between the bin centres, then corrected a few times by
    the interpolated logarithm of the ratio of required to obtained averages; the remaining
    difference is removed bin by bin.

    Parameters
    ----------
    bins : Tensor, shape (..., k)
        Positive flux per Angstrom.
    per_bin : int
        Number of pixels per bin.
    step : float
        Width of a pixel (dex).

    Returns
    -------
    Tensor, shape (..., k per_bin)
    """
    wanted = bins.log()
    curve = _interpolate(wanted, per_bin)
    for _ in range(_N_CORRECTIONS):
        achieved = to_bins(curve.exp(), per_bin, step).log()
        curve = curve + _interpolate(wanted - achieved, per_bin)
    return conserve(curve.exp(), bins, per_bin, step)


def _interpolate(values: Tensor, per_bin: int) -> Tensor:
    shape = values.shape
    flat = values.reshape(-1, 1, shape[-1])
    spread = F.interpolate(flat, scale_factor=per_bin, mode="linear", align_corners=False)
    return spread.reshape(*shape[:-1], -1)


#: Number of pixels per bin of the low-resolution spectrum.
PER_BIN = 8
_N_BINS = REST.size // PER_BIN
_N_LINES = len(LINE_NAMES)
#: Scalars at the end of the vector, in this order.
_SCALARS = ("broad", "redshift", "dispersion", "fibre_fraction")
#: Minimum of binned continua and of narrow lines whose logarithm is taken.
_MIN_CONTINUUM = 1e-4
_MIN_LINE = 1e-3
#: The scalar of broad Halpha is log10(flux + offset); decoded fluxes below the minimum are zero.
_BROAD_OFFSET = 0.5
_MIN_BROAD = 0.3
#: Minimum standard deviation of a component.
_MIN_SCALE = 3e-3


@dataclass(frozen=True)
class Galaxy(TensorRecord):
    """Spectra of n galaxies through one aperture; fluxes per nanomaggy in r.

    Attributes
    ----------
    continuum : Tensor, shape (n, 800) or (n, 6400)
        Rest-frame continuum in bins or pixels, 1e-17 erg/s/cm2/A per nmgy.
    narrow : Tensor, shape (n, 17)
        Fluxes of the narrow lines `~astrogenspec.wavelengths.LINE_NAMES`, 1e-17 erg/s/cm2 per nmgy.
    broad : Tensor, shape (n,)
        Flux of broad Halpha, 1e-17 erg/s/cm2 per nmgy.
    redshift : Tensor, shape (n,)
        Redshift.
    dispersion : Tensor, shape (n,)
        Stellar velocity dispersion (km/s).
    fibre_fraction : Tensor, shape (n,)
        Flux in r in the fibre divided by that of the galaxy.
    """

    continuum: Tensor
    narrow: Tensor
    broad: Tensor
    redshift: Tensor
    dispersion: Tensor
    fibre_fraction: Tensor


class Components(nn.Module):
    """Encode galaxies as standardised vectors, and decode them.

    Parameters
    ----------
    n_continuum : int
        Number of principal components of the continuum.
    n_residual : int
        Number of components of the continuum, after all others, that simulated galaxies lack; see
        `fit_residual`.

    Attributes
    ----------
    size : int
        Length of the vector.
    simulated_size : int
        Length without the components that simulated galaxies lack.
    """

    def __init__(self, n_continuum: int = 24, n_residual: int = 0) -> None:
        super().__init__()
        self.n_continuum = n_continuum
        self.n_residual = n_residual
        self.simulated_size = n_continuum + _N_LINES + len(_SCALARS)
        self.size = self.simulated_size + n_residual
        self.register_buffer("continuum_mean", torch.zeros(_N_BINS))
        self.register_buffer("continuum_basis", torch.eye(n_continuum, _N_BINS))
        self.register_buffer("line_mean", torch.zeros(_N_LINES))
        self.register_buffer("line_basis", torch.eye(_N_LINES))
        self.register_buffer("centre", torch.zeros(self.size))
        self.register_buffer("scale", torch.ones(self.size))
        if n_residual:
            self.register_buffer("residual_basis", torch.zeros(n_residual, _N_BINS))

    @torch.no_grad()
    def fit(self, galaxies: Galaxy) -> None:
        """Compute means, principal components and scales from a sample at full resolution."""
        continuum = self._log_bins(galaxies.continuum)
        self.continuum_mean.copy_(continuum.mean(0))
        _, basis = _principal(continuum - self.continuum_mean)
        self.continuum_basis.copy_(basis[: self.n_continuum])
        lines = galaxies.narrow.clamp_min(_MIN_LINE).log10()
        self.line_mean.copy_(lines.mean(0))
        self.line_basis.copy_(_principal(lines - self.line_mean)[1])
        raw = self._coefficients(galaxies)
        self.centre.copy_(raw.mean(0))
        self.scale.copy_(raw.std(0).clamp_min(_MIN_SCALE))

    @torch.no_grad()
    def fit_residual(self, galaxies: Galaxy, weight: Tensor) -> None:
        """Compute the components that simulated galaxies lack from observed ones.

        They are the principal components of what remains of the logarithm of the continuum after
        the projection on those of simulated galaxies.

        Parameters
        ----------
        galaxies : Galaxy
            Observed galaxies, at full resolution.
        weight : Tensor, shape (n, 800)
            Weights of the bins; 0 where nothing was observed.
        """
        residual = self._residual(self._log_bins(galaxies.continuum))
        weighted = (residual * weight).double()
        # The components are orthogonal to the basis, so that encoding and decoding are linear.
        basis = self.continuum_basis.double()
        _, modes = _principal(weighted - (weighted @ basis.T) @ basis)
        self.residual_basis.copy_(modes[: self.n_residual])
        raw = residual @ self.residual_basis.T
        columns = slice(self.simulated_size, None)
        self.centre[columns] = raw.mean(0)
        self.scale[columns] = raw.std(0).clamp_min(_MIN_SCALE)

    def column(self, scalar: str) -> int:
        """Return the column of a scalar: "broad", "redshift", "dispersion", "fibre_fraction"."""
        return self.n_continuum + _N_LINES + _SCALARS.index(scalar)

    def encode(self, galaxies: Galaxy) -> Tensor:
        """Return standardised vectors, shape (n, size), of galaxies at full resolution."""
        return (self._coefficients(galaxies) - self.centre) / self.scale

    def decode(self, vectors: Tensor) -> Galaxy:
        """Return galaxies with binned continua from standardised vectors of shape (n, size)."""
        raw = vectors * self.scale + self.centre
        k = self.n_continuum
        columns = raw[:, k + _N_LINES : self.simulated_size].unbind(1)
        scalars = {name: 10**column for name, column in zip(_SCALARS, columns, strict=True)}
        broad = scalars["broad"] - _BROAD_OFFSET
        continuum = raw[:, :k] @ self.continuum_basis + self.continuum_mean
        if self.n_residual:
            continuum = continuum + raw[:, self.simulated_size :] @ self.residual_basis
        return Galaxy(
            continuum=torch.exp(continuum),
            narrow=10 ** (raw[:, k : k + _N_LINES] @ self.line_basis + self.line_mean),
            broad=torch.where(broad > _MIN_BROAD, broad, 0.0),
            redshift=scalars["redshift"],
            dispersion=scalars["dispersion"],
            fibre_fraction=scalars["fibre_fraction"].clamp(max=1.0),
        )

    def smooth_continuum(self, vectors: Tensor) -> Tensor:
        """Return the continuum of standardised vectors, interpolated to pixels, shape (n, 6400)."""
        return to_pixels(self.decode(vectors).continuum, PER_BIN, REST.step)

    def _log_bins(self, continuum: Tensor) -> Tensor:
        bins = to_bins(continuum.float(), PER_BIN, REST.step)
        return bins.clamp_min(_MIN_CONTINUUM).log()

    def _coefficients(self, galaxies: Galaxy) -> Tensor:
        continuum = self._log_bins(galaxies.continuum) - self.continuum_mean
        lines = galaxies.narrow.clamp_min(_MIN_LINE).log10() - self.line_mean
        broad = galaxies.broad + _BROAD_OFFSET
        scalars = [broad if name == "broad" else getattr(galaxies, name) for name in _SCALARS]
        logarithms = torch.stack([values.log10() for values in scalars], dim=1)
        parts = [continuum @ self.continuum_basis.T, lines @ self.line_basis.T, logarithms]
        if self.n_residual:
            parts.append(self._residual(continuum + self.continuum_mean) @ self.residual_basis.T)
        return torch.cat(parts, dim=1)

    def _residual(self, log_bins: Tensor) -> Tensor:
        """Subtract the projection on the components of simulated galaxies."""
        centred = log_bins - self.continuum_mean
        return centred - (centred @ self.continuum_basis.T) @ self.continuum_basis


def _principal(centred: Tensor) -> tuple[Tensor, Tensor]:
    """Return variances and principal components (rows) in descending order of variance."""
    covariance = (centred.T.double() @ centred.double()) / len(centred)
    variance, vectors = torch.linalg.eigh(covariance)
    return variance.flip(0).float(), vectors.flip(1).T.float()
