r"""The absolute flux of draws: fitted to photometry, and in the fibre to what the image shows of its light.

Every draw gets a factor and a slope in the logarithm of the wavelength, such that its synthetic photometry fits what was
observed.  The draw is a draw of the prior of this fit: its slope is uncertain by `_SLOPE_SCATTER`, its factor is free, except in
the fibre, where the network's own share of the light is one more estimate, uncertain by `_SHARE_SCATTER`.  Each draw is
fitted to data that were perturbed by their errors, so that the scatter of the draws after the fit is that of the posterior
(the ensemble Kalman filter with perturbed observations: Burgers, van Leeuwen & Evensen 1998, Mon. Wea. Rev. 126, 1719).
Scatters were measured on simulated galaxies that were not trained on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..nn.records import TensorRecord
from ..surveys import BANDS, SDSS

__all__ = [
    "N_NOISES",
    "REFERENCE_WAVELENGTH",
    "Photometry",
    "fit_factor",
    "fit_slope",
    "light_in_fibre",
    "perturbed",
    "whole_light",
]

#: Relative errors of flux calibration in ugriz (Padmanabhan et al. 2008, ApJ 674, 1217), added to those of the photometry.
_CALIBRATION = (0.02, 0.01, 0.01, 0.01, 0.01)
#: The same for fluxes in the fibre: of colours that were measured on the image, and of those of the whole galaxy.
_COLOUR_ON_IMAGE, _COLOUR_OF_WHOLE = 0.015, 0.03
#: Scatter of ln share of the network.
_SHARE_SCATTER = 0.085
#: Median of ln(whole / measured) of fluxes that were measured on the image, whose aperture misses the outskirts, and its scatter:
#: between robust scatter (0.09) and root mean square (0.14).
_MISSED, _MISSED_SCATTER = 0.09, 0.11
#: Scatter of ln flux in the fibre on the image, with assumed and with known seeing: between robust scatter (0.06, 0.02) and root
#: mean square (0.12, 0.11), as the tails are long, such that the ranges of the draws hold as much as they say.
_FIBRE_SCATTER, _FIBRE_SCATTER_KNOWN = 0.09, 0.05
#: Scatter of the slope d ln flux / d ln wavelength of draws, and the largest change of it.
_SLOPE_SCATTER, _STEEPEST = 0.1, 0.5
#: Normal random numbers for each draw: one a band, and one for all light in the aperture.
N_NOISES = len(BANDS) + 1
_PIVOTS = tuple(float(SDSS.pivot_wavelength[band].to_value("Angstrom")) for band in BANDS)
#: Wavelength (Angstrom) at which a slope changes nothing.
REFERENCE_WAVELENGTH = _PIVOTS[BANDS.index("r")]


@dataclass(frozen=True)
class Photometry(TensorRecord):
    """What the flux of the spectra of n galaxies is fixed by, on the AB system.

    Attributes
    ----------
    flux, error : Tensor, shape (n, 5)
        nmgy of the whole galaxy, corrected for Galactic extinction; NaN where missing.
    fibre_flux, fibre_error : Tensor, shape (n, 5)
        The same of the light in the fibre, as measured on the image; NaN where it was not.
    scatter : Tensor, shape (n,)
        Scatter of the logarithm of `flux` that is common to all bands, beyond `error`.
    fibre_scatter : Tensor, shape (n,)
        The same of `fibre_flux`.
    """

    flux: Tensor
    error: Tensor
    fibre_flux: Tensor
    fibre_error: Tensor
    scatter: Tensor
    fibre_scatter: Tensor

    @classmethod
    def on_ab(
        cls,
        flux: np.ndarray,
        error: np.ndarray,
        zero_points: Tensor,
        *,
        fibre: tuple[np.ndarray, np.ndarray] | None = None,
        measured: np.ndarray | bool = False,
        seeing_known: np.ndarray | bool = False,
    ) -> Photometry:
        """Bring fluxes of the survey to the AB system.

        Parameters
        ----------
        flux, error : ndarray, shape (n, 5)
            nmgy, corrected for Galactic extinction; NaN where missing.
        zero_points : Tensor, shape (5,)
            Magnitude on the survey's system minus that on the AB system.
        fibre : tuple of two ndarray, shape (n, 5), optional
            Flux in the fibre and its error, likewise.
        measured : bool or ndarray of bool, shape (n,)
            Whether ``flux`` was measured on the image: then what its aperture misses is added, as in the median galaxy.
        seeing_known : bool or ndarray of bool, shape (n,)
            Whether the flux in the fibre was measured with the true seeing.

        Returns
        -------
        Photometry
        """
        factor = 10 ** (0.4 * zero_points.cpu().double().numpy())
        if fibre is None:
            fibre = (np.full_like(flux, np.nan), np.full_like(flux, np.nan))
        n = len(flux)
        whole = np.broadcast_to(np.where(measured, np.exp(_MISSED), 1.0), n)[:, None]
        scatter = np.where(measured, _MISSED_SCATTER, 0.0)
        in_fibre = np.where(seeing_known, _FIBRE_SCATTER_KNOWN, _FIBRE_SCATTER)
        values = [v * factor for v in (flux * whole, error * whole, *fibre)]
        values += [np.broadcast_to(v, n) for v in (scatter, in_fibre)]
        return cls(*(torch.tensor(v, dtype=torch.float32) for v in values))


def whole_light(photometry: Photometry, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Say what photometry of the whole galaxy draws should have.

    Parameters
    ----------
    photometry : Photometry
        Of the n draws.
    noise : Tensor, shape (n,)
        Standard normal.

    Returns
    -------
    flux, error : Tensor, shape (n, 5)
        nmgy, NaN where missing.
    """
    factor = torch.exp(photometry.scatter * noise)[:, None]
    return photometry.flux * factor, photometry.error * factor


def light_in_fibre(photometry: Photometry, share: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Say what photometry of the light in the fibre draws should have.

    Parameters
    ----------
    photometry : Photometry
        Of the n draws.
    share : Tensor, shape (n,)
        The network's share of the light that enters the fibre.
    noise : Tensor, shape (n,)
        Standard normal.

    Returns
    -------
    flux, error : Tensor, shape (n, 5)
        nmgy, NaN where missing. The share of each draw is moved towards that measured on the image, by as much as the two
        scatters say; colours are those of the fibre on the image, or of the whole galaxy where there is none.
    """
    whole, inside = photometry.flux, photometry.fibre_flux
    both = (whole > 0) & (inside > 0)
    ratio = torch.where(both, inside / whole, 1.0).log()
    errors = photometry.fibre_error / inside, photometry.error / whole
    variance = errors[0].square() + errors[1].square() + _COLOUR_ON_IMAGE**2
    weight = torch.where(both, variance.reciprocal(), 0.0)
    known = weight.sum(1) > 0
    measured = torch.where(known, (weight * ratio).sum(1) / weight.sum(1).clamp_min(1e-30), 0.0)
    prior = photometry.scatter.square() + _SHARE_SCATTER**2
    scatter = photometry.fibre_scatter
    gain = torch.where(known, prior / (prior + scatter.square()), 0.0)
    log_share = share.log()
    log_share = log_share + gain * (measured + scatter * noise - log_share)
    here = torch.isfinite(inside) & known[:, None]
    factor = torch.where(here, log_share[:, None] - measured[:, None], log_share[:, None]).exp()
    flux = torch.where(here, inside, whole) * factor
    error = torch.where(here, photometry.fibre_error, photometry.error) * factor
    colour = torch.where(here, _COLOUR_ON_IMAGE, _COLOUR_OF_WHOLE)
    return flux, torch.hypot(error, colour * flux)


def perturbed(wanted: Tensor, error: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Perturb photometry by its errors, those of the calibration included.

    Parameters
    ----------
    wanted, error : Tensor, shape (n, 5)
        Photometry; NaN where missing.
    noise : Tensor, shape (n, 5)
        Standard normal.

    Returns
    -------
    target, weight : Tensor, shape (n, 5)
        Perturbed photometry and its inverse variance; both 0 where missing.
    """
    error = torch.hypot(error, error.new_tensor(_CALIBRATION) * wanted)
    seen = torch.isfinite(wanted) & torch.isfinite(error)
    weight = torch.where(seen, error.square().reciprocal(), 0.0)
    return torch.where(seen, wanted + error * noise, 0.0), weight


def fit_factor(free: Tensor, fixed: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Fit factors by least squares.

    Parameters
    ----------
    free, fixed : Tensor, shape (n, 5)
        Synthetic photometry (nmgy) of what is multiplied by the factor, and of what is not.
    target, weight : Tensor, shape (n, 5)
        From `perturbed`.

    Returns
    -------
    Tensor, shape (n,)
        Positive; NaN if there is no photometry.
    """
    factor = (weight * free * (target - fixed)).sum(1) / (weight * free.square()).sum(1)
    # Lines alone may outshine faint photometry: the continuum stays positive.
    floor = 1e-3 * (weight * target).abs().sum(1) / (weight * free).sum(1)
    return torch.maximum(factor, floor)


def fit_slope(free: Tensor, fixed: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Fit slopes d ln flux / d ln wavelength together with factors, to first order; arguments as for `fit_factor`.

    Parameters
    ----------
    free, fixed, target, weight : Tensor, shape (n, 5)

    Returns
    -------
    Tensor, shape (n,)
        Zero where nothing can be said.
    """
    factor = fit_factor(free, fixed, target, weight)
    x = free.new_tensor(_PIVOTS).div(REFERENCE_WAVELENGTH).log()
    matrix = torch.stack([free, free * x], dim=2).double()
    normal = matrix.mT @ (weight[..., None] * matrix)
    normal[:, 1, 1] += (_SLOPE_SCATTER * factor).double().square().reciprocal()
    right = matrix.mT @ (weight * (target - fixed)).double()[..., None]
    solution = torch.linalg.solve_ex(normal, right)[0][..., 0]
    slope = (solution[:, 1] / solution[:, 0]).to(free)
    return torch.where(torch.isfinite(slope), slope.clamp(-_STEEPEST, _STEEPEST), 0.0)
