"""Unrelated stars and galaxies in the field of a galaxy.

Positions are uniform, magnitudes follow power-law number counts, which continue to the depth of
surveys deeper than SDSS, to 25 mag at most, and colours the main sequence of stars, as a function
of wavelength that is constant beyond the u and z bands of SDSS.
Sources are circular sums of Gaussians, so that the image of all sources is a product of two
matrices.  Values and sources are in ``priors/structure.ecsv``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import astropy.units as u
import numpy as np
import torch
from torch import Tensor

from ..surveys import SDSS, Survey
from .priors import Priors
from .psf import PointSpread

__all__ = ["Neighbours", "contamination", "draw_neighbours", "magnitude_shift", "render_neighbours"]

#: Sources up to this distance outside the image are included (arcsec).
_MARGIN = 2.0
#: Faintest r magnitude of neighbours in deep surveys; 50 per square arcminute are brighter.
_FAINTEST = 25.0
#: Main-sequence colours: u, g, r, i, z minus r per magnitude of g-r, and their constant parts.
_COLOUR_SLOPE, _COLOUR_ZERO = (1.5, 1.0, 0.0, -0.45, -0.7), (0.3, 0.0, 0.0, 0.0, 0.0)
#: An exponential disk as two Gaussians: weights, and widths in half-light radii, fitted between 0.2
#: and 3 radii.
_DISK_WEIGHT, _DISK_SIGMA = (0.37, 0.63), (0.45, 1.2)


@dataclass(frozen=True, eq=False)
class Neighbours:
    """At most k neighbours of each of n galaxies.

    Attributes
    ----------
    flux : Tensor, shape (n, k, b)
        Fluxes (nmgy); 0 for unused entries.
    x, y : Tensor, shape (n, k)
        Position relative to the centre of the cutout (arcsec).
    half_light : Tensor, shape (n, k)
        Half-light radius (arcsec), 0 for stars.
    """

    flux: Tensor
    x: Tensor
    y: Tensor
    half_light: Tensor


def _in_bands(values: tuple[float, ...], survey: Survey, device: torch.device | str) -> Tensor:
    """Interpolate values for ugriz in the logarithm of the wavelength, shape (n_bands,)."""
    known, wanted = (
        np.log([q.to_value(u.AA) for q in s.pivot_wavelength.values()]) for s in (SDSS, survey)
    )
    return torch.tensor(np.interp(wanted, known, values), dtype=torch.float32, device=device)


def draw_neighbours(
    n: int,
    width: float,
    priors: Priors,
    generator: torch.Generator,
    device: torch.device | str,
    survey: Survey = SDSS,
) -> Neighbours:
    """Draw the neighbours of n galaxies in the bands of a survey.

    Parameters
    ----------
    n : int
        Number of galaxies.
    width : float
        Side of the cutouts (arcsec); sources up to two arcseconds outside are included.
    priors : Priors
        ``load_priors("structure")``.
    generator : torch.Generator
        Source of randomness.
    device : torch.device or str
        Device of the result.
    survey : Survey
        Bands.
    """
    half = width / 2 + _MARGIN
    draw = {"generator": generator, "device": generator.device}
    limit = _limit(survey, priors)
    deeper = 10 ** (priors.neighbour_slope * (limit - priors.neighbour_limit))
    expected = deeper * priors.neighbour_density / 3600 * (2 * half) ** 2
    count = torch.poisson(torch.full((n,), expected, device=generator.device), generator=generator)
    k = max(int(count.max()), 1) if n else 1
    uniform = torch.rand(6, n, k, **draw).to(device)
    exists = (torch.arange(k, device=device) < count.to(device)[:, None]).float()
    magnitude = limit + torch.log10(uniform[0]) / priors.neighbour_slope
    magnitude = magnitude.clamp(min=priors.neighbour_bright)
    low, high = priors.neighbour_colour_low, priors.neighbour_colour_high
    colour = low + (high - low) * uniform[1]
    zero = _in_bands(_COLOUR_ZERO, survey, device)
    magnitudes = magnitude[..., None] + magnitude_shift(colour, survey) + zero
    flux = exists[..., None] * 10 ** (0.4 * (22.5 - magnitudes))
    size = torch.lerp(
        torch.full_like(uniform[2], priors.neighbour_size_low),
        torch.full_like(uniform[2], priors.neighbour_size_high),
        uniform[2],
    )
    size = torch.where(uniform[3] < priors.neighbour_star_fraction, 0.0, size)
    return Neighbours(flux, half * (2 * uniform[4] - 1), half * (2 * uniform[5] - 1), size)


def _limit(survey: Survey, priors: Priors) -> float:
    """Faintest r magnitude of the neighbours in images of a survey."""
    depth = survey.depth[survey.reference_band or survey.bands[0]]
    return max(priors.neighbour_limit, min(depth, _FAINTEST))


def magnitude_shift(colour: Tensor, survey: Survey = SDSS) -> Tensor:
    """Return magnitudes in bands relative to r, shape (..., b), for g-r colours, shape (...)."""
    return colour[..., None] * _in_bands(_COLOUR_SLOPE, survey, colour.device)


def render_neighbours(
    neighbours: Neighbours, psf: PointSpread, size: int, pixel_scale: float
) -> Tensor:
    """Render images (n, b, size, size) of the neighbours, nmgy per pixel.

    Parameters
    ----------
    neighbours : Neighbours
        n galaxies.
    psf : PointSpread
        n galaxies, b bands.
    size : int
        Pixels on a side.
    pixel_scale : float
        Side of a pixel (arcsec). Its square response is approximated by a Gaussian of the same
        variance.
    """
    device = neighbours.x.device
    n, k, b = neighbours.flux.shape
    pixels = (torch.arange(size, device=device) - (size - 1) / 2) * pixel_scale
    shape_sigma = torch.tensor(_DISK_SIGMA, device=device)
    shape_weight = torch.tensor(_DISK_WEIGHT, device=device)
    extent = (neighbours.half_light[..., None] * shape_sigma) ** 2 + pixel_scale**2 / 12
    # axes: galaxy, band, neighbour, Gaussian of the point-spread function, Gaussian of the source
    variance = psf.sigma[:, :, None, :, None] ** 2 + extent[:, None, :, None, :]
    flux = neighbours.flux.transpose(1, 2)[:, :, :, None, None]
    peak = flux * psf.weight[:, None] * shape_weight * (pixel_scale**2 / (2 * math.pi)) / variance
    variance = variance.reshape(n, b, k, -1, 1)

    def profile(position: Tensor) -> Tensor:
        offset = (pixels - position[..., None]) ** 2
        # clipped, because processors are slow on denormal numbers
        values = torch.exp((offset[:, None, :, None, :] * (-0.5 / variance)).clamp_(min=-40))
        return values.reshape(n, b, -1, size)

    down = profile(neighbours.y) * peak.reshape(n, b, -1, 1)
    return down.transpose(-1, -2) @ profile(neighbours.x)


def contamination(flux: Tensor, distance: Tensor, fwhm: Tensor) -> Tensor:
    """Compute the flux (n, b) of sources that photometry cannot separate from the galaxy.

    A source at distance d has the weight 1 / (1 + (d / FWHM)^4), one half at the full width of the
    seeing.  The form is assumed: deblenders separate sources that are two widths apart and merge
    those within one.

    Parameters
    ----------
    flux : Tensor, shape (n, k, b)
        Fluxes of the sources (nmgy).
    distance : Tensor, shape (n, k)
        Distances of the sources (arcsec).
    fwhm : Tensor, shape (n,)
        Seeing (arcsec).
    """
    weight = 1 / (1 + (distance / fwhm[:, None]) ** 4)
    return (flux * weight[..., None]).sum(1)
