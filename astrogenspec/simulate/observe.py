"""The survey's view of total fluxes: zero points, catalogue errors, outliers, blends, and the spectroscopic selection.

Errors follow those of the SDSS catalogue (a quadratic of log error in magnitude, with scatter); zero points and extra
scatter were fitted to the colours of real galaxies (``priors/observation.ecsv``).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..surveys import BANDS
from .priors import Priors

__all__ = ["Observation", "observe", "selection_probability"]

_MAG = 1.0857362
#: 2MASS J Vega to AB, Blanton & Roweis (2007), Table 1.
_J_AB = 0.91
#: Mean and scatter of u-g, g-r, r-i, i-z of unrelated objects at r ~ 18-20 (broad, stars and galaxies together).
_BLEND_COLOURS = ((1.6, 0.6), (0.8, 0.4), (0.35, 0.25), (0.25, 0.2))


@dataclass(frozen=True)
class Observation:
    """Photometry corrected for Galactic extinction, shape (n, 5) each, nanomaggies.

    Attributes
    ----------
    true_flux : Tensor
        Without noise, on the survey's magnitude system.
    expected_flux : Tensor
        The same with the light of blended objects: the mean of repeated measurements.
    flux, error : Tensor
        As in a catalogue; the true error of an outlier is larger than its ``error``.
    j_magnitude : Tensor, shape (n,)
        2MASS J (Vega) of the extended-source catalogue.
    petrosian_r : Tensor, shape (n,)
        Petrosian r magnitude.
    """

    true_flux: Tensor
    expected_flux: Tensor
    flux: Tensor
    error: Tensor
    j_magnitude: Tensor
    petrosian_r: Tensor


def _log_errors(magnitude: Tensor, priors: Priors) -> Tensor:
    """log10 of the catalogue error (mag) for magnitudes of shape (n, 5)."""
    columns = []
    for k, band in enumerate(BANDS):
        bright, faint = priors[f"error_bright_{band}"], priors[f"error_faint_{band}"]
        x = magnitude[:, k].clamp(bright, faint) - 17
        excess = (magnitude[:, k] - faint).clamp(min=0)
        columns.append(
            priors[f"error_quadratic_{band}"] * x**2
            + priors[f"error_linear_{band}"] * x
            + priors[f"error_constant_{band}"]
            + 0.4 * excess
        )
    return torch.stack(columns, dim=1)


def _by_band(priors: Priors, prefix: str, like: Tensor) -> Tensor:
    return torch.tensor([priors[f"{prefix}_{band}"] for band in BANDS]).to(like)


def observe(total: Tensor, priors: Priors, generator: torch.Generator) -> Observation:
    """Observe total fluxes.

    Parameters
    ----------
    total : Tensor, shape (n, 6)
        ugriz and J, AB nanomaggies.
    priors : Priors
        Group ``observation``.
    generator : torch.Generator
    """
    n, bands = len(total), len(BANDS)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=total.device)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device=total.device)

    ab = 22.5 - 2.5 * torch.log10(total.clamp(min=1e-6))
    magnitude = ab[:, :bands] + _by_band(priors, "zero_point", total)
    true_flux = 10 ** (0.4 * (22.5 - magnitude))
    log_error = _log_errors(magnitude, priors)
    scatter = _by_band(priors, "error_scatter", total)
    log_error = log_error + scatter * (0.7 * normal(n, 1) + 0.71 * normal(n, bands))
    error = 10**log_error / _MAG * true_flux
    extra = _by_band(priors, "scatter", total) / _MAG * true_flux
    outlier = torch.where(uniform(n, bands) < priors.tail_fraction, priors.tail_factor, 1.0)
    noise = torch.sqrt(error**2 + extra**2) * outlier * normal(n, bands)
    expected = true_flux + _blended_light(true_flux, priors, normal(n, 4), uniform(n, 2))
    return Observation(
        true_flux=true_flux,
        expected_flux=expected,
        flux=expected + noise,
        error=error,
        j_magnitude=ab[:, bands] - _J_AB + priors.j_offset + 0.05 * normal(n),
        petrosian_r=magnitude[:, 2]
        + priors.petrosian_offset
        + priors.petrosian_scatter * normal(n),
    )


def _blended_light(flux: Tensor, priors: Priors, normal: Tensor, uniform: Tensor) -> Tensor:
    """Light of an unrelated object inside the aperture, for a fraction of the galaxies."""
    low, high = priors.blend_ratio_low, priors.blend_ratio_high
    ratio = 10 ** (low + (high - low) * uniform[:, 1])
    ratio = torch.where(uniform[:, 0] < priors.blend_fraction, ratio, 0.0)
    mean, width = torch.tensor(_BLEND_COLOURS).to(flux).T
    ug, gr, ri, iz = (mean + width * normal).unbind(1)
    relative = torch.stack([ug + gr, gr, torch.zeros_like(gr), -ri, -ri - iz], dim=1)
    return flux[:, 2:3] * ratio[:, None] * 10 ** (-0.4 * relative)


def selection_probability(
    observation: Observation,
    priors: Priors,
    *,
    near_infrared: bool = False,
    magnitude_limit: float | None = None,
) -> Tensor:
    """Probability that a galaxy is in the spectroscopic sample, shape (n,).

    Parameters
    ----------
    observation : Observation
    priors : Priors
        Group ``observation``.
    near_infrared : bool
        Require a 2MASS extended source too, as in the sample the population was fitted to.
    magnitude_limit : float, optional
        Petrosian r limit; by default that of the main galaxy sample.
    """
    limit = priors.magnitude_limit if magnitude_limit is None else magnitude_limit
    chosen = (observation.petrosian_r < limit) & (
        observation.petrosian_r > priors.magnitude_limit_bright
    )
    probability = chosen.float()
    if near_infrared:
        probability = probability * torch.sigmoid(
            (priors.j_limit - observation.j_magnitude) / priors.j_width
        )
    return probability
