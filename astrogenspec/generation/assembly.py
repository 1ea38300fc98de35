"""From galaxies at rest, per nanomaggy, to spectra as a telescope sees them: redshift, lines, and absolute flux.

The flux of a draw is fixed by the input photometry: its continuum is scaled and tilted so that its synthetic magnitudes fit the
observed ones, see `astrogenspec.generation.flux_scale`.  Lines whose flux the draw of the properties gives keep that flux.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from astropy import units as u
from torch import Tensor

from ..emission import (
    BROAD_DECREMENT,
    BROAD_LINES,
    BROAD_VELOCITY,
    LINE_NAMES,
    add_lines,
    line_index,
    narrow_line_velocity,
)
from ..surveys import BANDS, SDSS
from ..synthetic import response_weights
from ..wavelengths import REST, WIDE, LogGrid
from .components import Galaxy
from .flux_scale import (
    N_NOISES,
    REFERENCE_WAVELENGTH,
    Photometry,
    fit_factor,
    fit_slope,
    light_in_fibre,
    perturbed,
    whole_light,
)

__all__ = [
    "Assembled",
    "ab_flux",
    "assemble",
    "impose_properties",
    "synthetic_nmgy",
    "to_observed",
]

#: Lines that follow each line whose flux the properties give.
_FOLLOWERS = {
    "Halpha": ("HeI5877", "OI6302", "SII6718", "SII6733", "ArIII7138", "SIII9071"),
    "Hbeta": ("Hgamma", "Hdelta", "OII3727", "OII3730"),
    "NII6585": ("NII6550",),
    "OIII5008": ("OIII4960", "NeIII3870"),
}
#: Columns of theta with the log10 of these lines' fluxes.
_FLUX_COLUMNS = {"Halpha": 5, "Hbeta": 6, "NII6585": 7, "OIII5008": 8}
_MAG = 2.5 / np.log(10)


@dataclass(frozen=True)
class Assembled:
    """Spectra of n draws in the frame of the observer.

    Attributes
    ----------
    flux : Tensor, shape (n, 5880)
        1e-17 erg/s/cm2/A on `astrogenspec.wavelengths.WIDE`.
    scale : Tensor, shape (n,)
        nmgy in r through the aperture; NaN without photometry.
    residual : Tensor, shape (n, 5)
        Synthetic minus input magnitude; NaN for a missing band. In the fibre the input is that of its light, see
        `light_in_fibre`; measured on an image, it is that of all light, see `whole_light`.
    lines : Tensor, shape (n, 5880)
        The part of `flux` in lines whose flux the properties give.
    """

    flux: Tensor
    scale: Tensor
    residual: Tensor
    lines: Tensor


def to_observed(spectra: Tensor, redshift: Tensor, grid: LogGrid = WIDE) -> Tensor:
    """Redshift spectra, by cubic interpolation; flux densities stay what they are.

    Parameters
    ----------
    spectra : Tensor, shape (n, 6400)
        On `astrogenspec.wavelengths.REST`.
    redshift : Tensor, shape (n,)
    grid : LogGrid
        Of the result, with the same step.

    Returns
    -------
    Tensor, shape (n, grid.size)
        Beyond its ends a spectrum goes on with its last value.
    """
    first = (grid.start - REST.start - torch.log10(1 + redshift.double())) / REST.step
    whole = torch.floor(first).long()
    t = (first - whole).to(spectra)[:, None]
    # Catmull-Rom: a cubic through the two nearest pixels with the slopes of their neighbours.
    weights = (
        -0.5 * t + t**2 - 0.5 * t**3,
        1 - 2.5 * t**2 + 1.5 * t**3,
        0.5 * t + 2 * t**2 - 1.5 * t**3,
        -0.5 * t**2 + 0.5 * t**3,
    )
    pixel = whole[:, None] + torch.arange(grid.size, device=spectra.device)
    result = torch.zeros(len(spectra), grid.size, dtype=spectra.dtype, device=spectra.device)
    for offset, weight in zip((-1, 0, 1, 2), weights, strict=True):
        result += weight * spectra.gather(1, (pixel + offset).clamp(0, REST.size - 1))
    return result


@cache
def _filters() -> Tensor:
    """Weights that turn spectra on `WIDE` into nmgy, shape (5880, 5)."""
    weights = response_weights(WIDE.wavelength * u.AA, SDSS, BANDS)
    return torch.as_tensor(weights, dtype=torch.float32)


@cache
def _log_wavelength() -> Tensor:
    """Logarithm of the wavelengths of `WIDE` over the one at which a slope changes nothing."""
    return torch.as_tensor(np.log(WIDE.wavelength / REFERENCE_WAVELENGTH), dtype=torch.float32)


def synthetic_nmgy(flux: Tensor) -> Tensor:
    """AB fluxes in ugriz (nmgy, shape (n, 5)) of spectra (n, 5880) on `WIDE`, 1e-17 erg/s/cm2/A."""
    return flux @ _filters().to(flux)


def ab_flux(galaxies: Galaxy) -> Tensor:
    """Synthetic AB fluxes in ugriz per nmgy in r, shape (n, 5), of galaxies with full-resolution continua."""
    continuum = to_observed(galaxies.continuum, galaxies.redshift)
    return synthetic_nmgy(_with_broad(_with_lines(continuum, galaxies, galaxies.narrow), galaxies))


def impose_properties(galaxies: Galaxy, theta: Tensor, given: Tensor) -> tuple[Galaxy, Tensor]:
    """Give each draw the redshift of its properties; say by how much its lines have to change.

    Parameters
    ----------
    galaxies : Galaxy
        n draws.
    theta : Tensor, shape (n, 9)
        Properties.
    given : Tensor of bool, shape (n, 9)
        Which of them are known.

    Returns
    -------
    galaxies : Galaxy
        With lines whose *ratios* are those wanted, and the redshift.
    anchor : Tensor, shape (n, 17)
        Absolute flux that each line must have (1e-17 erg/s/cm2); NaN where it is free.
    """
    redshift = torch.where(given[:, 0], theta[:, 0], galaxies.redshift)
    anchor = torch.full_like(galaxies.narrow, torch.nan)
    for name, column in _FLUX_COLUMNS.items():
        k = line_index(name)
        flux = torch.where(given[:, column], 10 ** theta[:, column], torch.nan)
        anchor[:, k] = flux
        for follower in _FOLLOWERS[name]:
            j = line_index(follower)
            anchor[:, j] = flux * galaxies.narrow[:, j] / galaxies.narrow[:, k]
    parts = {**vars(galaxies), "redshift": redshift}
    return Galaxy(**parts), anchor


def assemble(
    galaxies: Galaxy,
    anchor: Tensor,
    photometry: Photometry,
    fibre: bool,
    noise: Tensor | None = None,
) -> Assembled:
    """Make spectra in the frame of the observer, in absolute flux.

    Parameters
    ----------
    galaxies : Galaxy
        n draws with full-resolution continua.
    anchor : Tensor, shape (n, 17)
        See `impose_properties`.
    photometry : Photometry
        Of the n draws.
    fibre : bool
        Whether the spectrum is that of the fibre, so that its light is to be had, or that of the aperture of the photometry.
    noise : Tensor, shape (n, 6), optional
        Standard normal; by what the photometry of each draw is perturbed. Nothing by default.

    Returns
    -------
    Assembled
    """
    continuum = to_observed(galaxies.continuum, galaxies.redshift)
    fixed = torch.isfinite(anchor)
    fixed_lines = _with_lines(
        torch.zeros_like(continuum), galaxies, torch.where(fixed, anchor, 0.0)
    )
    free = _with_lines(continuum, galaxies, torch.where(fixed, 0.0, galaxies.narrow))
    free = _with_broad(free, galaxies)
    if noise is None:
        noise = free.new_zeros(len(free), N_NOISES)
    if fibre:
        wanted, error = light_in_fibre(photometry, galaxies.fibre_share, noise[:, -1])
    else:
        wanted, error = whole_light(photometry, noise[:, -1])
    target, weight = perturbed(wanted, error, noise[:, :-1])
    of_lines = synthetic_nmgy(fixed_lines)
    slope = fit_slope(synthetic_nmgy(free), of_lines, target, weight)
    free *= torch.exp(slope[:, None] * _log_wavelength().to(free))
    of_free = synthetic_nmgy(free)
    scale = fit_factor(of_free, of_lines, target, weight)
    flux = free * scale[:, None] + fixed_lines
    synthetic = of_free * scale[:, None] + of_lines
    residual = -_MAG * torch.log(synthetic / wanted.clamp_min(1e-6))
    residual = torch.where(wanted > 0, residual, torch.nan)
    return Assembled(flux, scale, residual, fixed_lines)


def _with_lines(flux: Tensor, galaxies: Galaxy, narrow: Tensor) -> Tensor:
    velocity = narrow_line_velocity(galaxies.dispersion)
    return add_lines(flux, WIDE, LINE_NAMES, narrow, velocity, galaxies.redshift)


def _with_broad(flux: Tensor, galaxies: Galaxy) -> Tensor:
    shown = (galaxies.broad > 0).nonzero()[:, 0]
    if len(shown) == 0:
        return flux
    halpha = galaxies.broad[shown, None]
    velocity = torch.full_like(galaxies.redshift[shown], BROAD_VELOCITY)
    both = torch.cat([halpha / BROAD_DECREMENT, halpha], dim=1)
    wide = add_lines(flux[shown], WIDE, BROAD_LINES, both, velocity, galaxies.redshift[shown])
    return flux.index_copy(0, shown, wide)
