r"""Absolute flux calibration of generated spectra.

Each draw is multiplied by a factor and a power law in wavelength, :math:`a\,(\lambda /
\lambda_r)^{b}`, such that its synthetic photometry :math:`s` fits the observed photometry
:math:`m`: it minimises

.. math:: \sum_b \frac{(m_b - a\,s_b\,(\lambda_b / \lambda_r)^{b})^2}{\sigma_b^2}
          + \frac{b^2}{\sigma_\mathrm{slope}^2} .

The generated spectrum is the prior of this fit: its slope has the uncertainty `_SLOPE_SCATTER`, and
its factor is free. In the fibre the network's own fraction of light in the fibre is a further
measurement, of uncertainty `_FRACTION_SCATTER`. Each draw is fitted to photometry perturbed by its
errors, so that the scatter of the fitted draws is that of the posterior (ensemble Kalman filter
with perturbed observations: Burgers, van Leeuwen & Evensen 1998, Mon. Wea. Rev. 126, 1719). The
scatters were measured on simulated galaxies outside the training set.
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
    "TargetPhotometry",
    "fibre_target",
    "fit_scale",
    "fit_slope",
    "perturb",
    "total_target",
]

#: Relative errors of the flux calibration in ugriz (Padmanabhan et al. 2008, ApJ 674, 1217), added
#: in quadrature.
_CALIBRATION = (0.02, 0.01, 0.01, 0.01, 0.01)
#: Relative errors of colours in the fibre, if measured in the fibre on the image and if those of
#: the whole galaxy.
_COLOUR_ON_IMAGE, _COLOUR_OF_WHOLE = 0.015, 0.03
#: Scatter of the logarithm of the network's fraction of light in the fibre.
_FRACTION_SCATTER = 0.085
#: Median and scatter of ln(total / measured) of fluxes measured on the image, whose aperture misses
#: the outskirts; the scatter lies between the robust scatter (0.09) and the root mean square
#: (0.14).
_MISSED, _MISSED_SCATTER = 0.09, 0.11
#: Scatter of the logarithm of the flux in the fibre measured on the image, with assumed and with
#: known seeing. The tails are long; these values, between robust scatter (0.06, 0.02) and root mean
#: square (0.12, 0.11), calibrate the draws.
_FIBRE_SCATTER, _FIBRE_SCATTER_KNOWN = 0.09, 0.05
#: Scatter of the slope d ln flux / d ln wavelength of draws, and its maximum change.
_SLOPE_SCATTER, _MAX_SLOPE = 0.1, 0.5
#: Normal random numbers per draw: one per band and one for the total flux.
N_NOISES = len(BANDS) + 1
_PIVOTS = tuple(float(SDSS.pivot_wavelength[band].to_value("Angstrom")) for band in BANDS)
#: Reference wavelength (Angstrom) of slopes: the pivot wavelength of the r band.
REFERENCE_WAVELENGTH = _PIVOTS[BANDS.index("r")]


@dataclass(frozen=True)
class TargetPhotometry(TensorRecord):
    """AB photometry to which the spectra of n galaxies are scaled.

    Attributes
    ----------
    flux, error : Tensor, shape (n, 5)
        Total flux (nmgy), corrected for Galactic extinction; NaN where missing.
    fibre_flux, fibre_error : Tensor, shape (n, 5)
        Flux in the fibre measured on the image; NaN where missing.
    scatter : Tensor, shape (n,)
        Scatter of the logarithm of `flux` common to all bands, in addition to `error`.
    fibre_scatter : Tensor, shape (n,)
        Scatter of the logarithm of `fibre_flux` common to all bands.
    """

    flux: Tensor
    error: Tensor
    fibre_flux: Tensor
    fibre_error: Tensor
    scatter: Tensor
    fibre_scatter: Tensor

    @classmethod
    def from_survey(
        cls,
        flux: np.ndarray,
        error: np.ndarray,
        zero_points: Tensor,
        *,
        fibre: tuple[np.ndarray, np.ndarray] | None = None,
        measured: np.ndarray | bool = False,
        seeing_known: np.ndarray | bool = False,
    ) -> TargetPhotometry:
        """Convert fluxes of the survey to the AB system.

        Parameters
        ----------
        flux, error : ndarray, shape (n, 5)
            Total flux (nmgy), corrected for Galactic extinction; NaN where missing.
        zero_points : Tensor, shape (5,)
            Magnitude on the survey's system minus that on the AB system.
        fibre : tuple of two ndarray, shape (n, 5), optional
            Flux in the fibre and its error.
        measured : bool or ndarray of bool, shape (n,)
            Whether ``flux`` was measured on the image; it is then corrected for the light outside
            the aperture, as in the median galaxy.
        seeing_known : bool or ndarray of bool, shape (n,)
            Whether the flux in the fibre was measured with the seeing of the image.

        Returns
        -------
        TargetPhotometry
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


def total_target(photometry: TargetPhotometry, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Return the total photometry that draws should have.

    Parameters
    ----------
    photometry : TargetPhotometry
        Photometry of n draws.
    noise : Tensor, shape (n,)
        Standard normal numbers.

    Returns
    -------
    flux, error : Tensor, shape (n, 5)
        nmgy; NaN where missing.
    """
    factor = torch.exp(photometry.scatter * noise)[:, None]
    return photometry.flux * factor, photometry.error * factor


def fibre_target(
    photometry: TargetPhotometry, fraction: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the photometry in the fibre that draws should have.

    The fraction of light in the fibre is the average of the network's and that measured on the
    image, weighted by their variances. Colours are those of the fibre on the image, or of the whole
    galaxy without an image.

    Parameters
    ----------
    photometry : TargetPhotometry
        Photometry of n draws.
    fraction : Tensor, shape (n,)
        The network's fraction of light in the fibre.
    noise : Tensor, shape (n,)
        Standard normal numbers.

    Returns
    -------
    flux, error : Tensor, shape (n, 5)
        nmgy; NaN where missing.
    """
    whole, inside = photometry.flux, photometry.fibre_flux
    both = (whole > 0) & (inside > 0)
    ratio = torch.where(both, inside / whole, 1.0).log()
    errors = photometry.fibre_error / inside, photometry.error / whole
    variance = errors[0].square() + errors[1].square() + _COLOUR_ON_IMAGE**2
    weight = torch.where(both, variance.reciprocal(), 0.0)
    known = weight.sum(1) > 0
    measured = torch.where(known, (weight * ratio).sum(1) / weight.sum(1).clamp_min(1e-30), 0.0)
    prior = photometry.scatter.square() + _FRACTION_SCATTER**2
    scatter = photometry.fibre_scatter
    gain = torch.where(known, prior / (prior + scatter.square()), 0.0)
    log_fraction = fraction.log()
    log_fraction = log_fraction + gain * (measured + scatter * noise - log_fraction)
    here = torch.isfinite(inside) & known[:, None]
    factor = torch.where(
        here, log_fraction[:, None] - measured[:, None], log_fraction[:, None]
    ).exp()
    flux = torch.where(here, inside, whole) * factor
    error = torch.where(here, photometry.fibre_error, photometry.error) * factor
    colour = torch.full_like(flux, _COLOUR_OF_WHOLE).masked_fill(here, _COLOUR_ON_IMAGE)
    return flux, torch.hypot(error, colour * flux)


def perturb(flux: Tensor, error: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Perturb photometry by its errors, including those of the calibration.

    Parameters
    ----------
    flux, error : Tensor, shape (n, 5)
        Photometry; NaN where missing.
    noise : Tensor, shape (n, 5)
        Standard normal numbers.

    Returns
    -------
    target, weight : Tensor, shape (n, 5)
        Perturbed photometry and its inverse variance; both 0 where missing.
    """
    error = torch.hypot(error, error.new_tensor(_CALIBRATION) * flux)
    seen = torch.isfinite(flux) & torch.isfinite(error)
    weight = torch.where(seen, error.square().reciprocal(), 0.0)
    return torch.where(seen, flux + error * noise, 0.0), weight


def fit_scale(free: Tensor, fixed: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Fit factors by least squares.

    Parameters
    ----------
    free, fixed : Tensor, shape (n, 5)
        Synthetic photometry (nmgy) of the components with and without the factor.
    target, weight : Tensor, shape (n, 5)
        See `perturb`.

    Returns
    -------
    Tensor, shape (n,)
        Positive; NaN if there is no photometry.
    """
    factor = (weight * free * (target - fixed)).sum(1) / (weight * free.square()).sum(1)
    # Lines alone may be brighter than faint photometry; the continuum must stay positive.
    floor = 1e-3 * (weight * target).abs().sum(1) / (weight * free).sum(1)
    return torch.maximum(factor, floor)


def fit_slope(free: Tensor, fixed: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Fit slopes d ln flux / d ln wavelength, to first order, together with factors.

    Parameters
    ----------
    free, fixed, target, weight : Tensor, shape (n, 5)
        As for `fit_scale`.

    Returns
    -------
    Tensor, shape (n,)
        Zero where undetermined.
    """
    factor = fit_scale(free, fixed, target, weight)
    x = free.new_tensor(_PIVOTS).div(REFERENCE_WAVELENGTH).log()
    matrix = torch.stack([free, free * x], dim=2).double()
    normal = matrix.mT @ (weight[..., None] * matrix)
    normal[:, 1, 1] += (_SLOPE_SCATTER * factor).double().square().reciprocal()
    right = matrix.mT @ (weight * (target - fixed)).double()[..., None]
    solution = torch.linalg.solve_ex(normal, right)[0][..., 0]
    slope = (solution[:, 1] / solution[:, 0]).to(free)
    return torch.where(torch.isfinite(slope), slope.clamp(-_MAX_SLOPE, _MAX_SLOPE), 0.0)
