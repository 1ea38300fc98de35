"""Point-spread functions: circular Gaussians for core, outer part and wing.

The form is that of the models of the SDSS imaging pipeline.  The seeing of each band is log-normal
around the survey's median, with a scatter common to all bands and one for each band; images of less
than 0.5 arcsec are those of a space telescope, whose width does not scatter.  Values and sources
are in ``priors/structure.ecsv``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import astropy.units as u
import torch
from scipy.optimize import brentq
from torch import Tensor

from ..surveys import Survey
from .priors import Priors

__all__ = ["PointSpread", "draw_point_spread"]

#: Width (arcsec) below which a point-spread function is not that of the atmosphere.
_SPACE = 0.5
_FWHM_PER_SIGMA = 2 * math.sqrt(2 * math.log(2))


@dataclass(frozen=True, eq=False)
class PointSpread:
    """Point-spread functions of n galaxies in b bands: sums of g circular Gaussians.

    Attributes
    ----------
    fwhm : Tensor, shape (n, b)
        Full width at half maximum (arcsec).
    sigma : Tensor, shape (n, b, g)
        Widths of the Gaussians (arcsec).
    weight : Tensor, shape (g,)
        Fluxes of the Gaussians, with sum one.
    """

    fwhm: Tensor
    sigma: Tensor
    weight: Tensor

    def __getitem__(self, index) -> PointSpread:
        """Select galaxies."""
        return PointSpread(self.fwhm[index], self.sigma[index], self.weight)

    def transform(self, wave_y: Tensor, wave_x: Tensor) -> Tensor:
        """Compute the Fourier transform on a grid of frequencies.

        Parameters
        ----------
        wave_y, wave_x : Tensor, shape (ny,) and (nx,)
            Frequencies (1/arcsec).

        Returns
        -------
        Tensor, shape (n, b, ny, nx)
            Transform, one at zero frequency.
        """
        scale = -2 * (math.pi * self.sigma[..., None]) ** 2
        # clipped, because processors are slow on denormal numbers
        down = torch.exp((scale * wave_y**2).clamp(min=-40)) * self.weight[:, None]
        along = torch.exp((scale * wave_x**2).clamp(min=-40))
        return down.transpose(-1, -2) @ along


@cache
def _core_width(weight: tuple[float, ...], ratio: tuple[float, ...]) -> float:
    """Sigma of the core for which the full width at half maximum is one."""

    def excess(sigma: float) -> float:
        width = [r * sigma for r in ratio]
        parts = [(w / s**2, s) for w, s in zip(weight, width, strict=True)]
        half = sum(peak * math.exp(-0.125 / s**2) for peak, s in parts)
        return half - 0.5 * sum(peak for peak, _ in parts)

    return brentq(excess, 0.5 / _FWHM_PER_SIGMA, 1.01 / _FWHM_PER_SIGMA)


def draw_point_spread(
    n: int, survey: Survey, priors: Priors, generator: torch.Generator, device: torch.device | str
) -> PointSpread:
    """Draw the seeing of n images in every band.

    Parameters
    ----------
    n : int
        Number of galaxies.
    survey : Survey
        Bands and their median seeing.
    priors : Priors
        ``load_priors("structure")``: scatter of the seeing, and weights and widths of the
        Gaussians.
    generator : torch.Generator
        Source of randomness.
    device : torch.device or str
        Device of the result.
    """
    median = [float(survey.psf_fwhm[b].to_value(u.arcsec)) for b in survey.bands]
    draw = {"generator": generator, "device": generator.device}
    common = torch.randn(n, 1, **draw).to(device) * priors.seeing_scatter
    single = torch.randn(n, len(median), **draw).to(device) * priors.seeing_scatter_band
    width = torch.tensor(median, device=device)
    fwhm = torch.where(width < _SPACE, width, width * torch.exp(common + single))
    outer, wing = priors.psf_outer_weight, priors.psf_wing_weight
    weight = (1 - outer - wing, outer, wing)
    ratio = (1.0, priors.psf_outer_width, priors.psf_wing_width)
    sigma = _core_width(weight, ratio) * fwhm[..., None] * torch.tensor(ratio, device=device)
    return PointSpread(fwhm, sigma, torch.tensor(weight, device=device))
