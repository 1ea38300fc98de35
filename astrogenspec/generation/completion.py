r"""Photometry in ugriz of galaxies that were observed in other filters, for `SpectrumEstimator`.

The network of the spectra reads ugriz of SDSS.  For photometry in other filters, the spectral
energy distribution that `astrogenspec.inputs.sed_features` infers from it has the fluxes

.. math:: m_b = a\,t_b \left(1 + \sum_k A_{bk}\,c_k\right), \qquad c \sim N(\hat c, C) ,

in ugriz.  Every candidate spectrum is conditioned on, and scaled to, one draw :math:`c` of this
normal distribution, so that what the photometry leaves open widens the ranges of the spectra, with
the correlations between bands.  As a draw has the errors of the photometry and its calibration, it
is not perturbed again (`astrogenspec.generation.flux_calibration`).  Bands that the photometry does
not constrain, such as u without a filter near it, have a small weight in the scaling: that of the
variance of their fluxes.  Fluxes are drawn from a log-normal distribution of the same mean and
variance, since those of a normal distribution of 25% or more would be negative or far too small for
some draws.

The fluxes of a candidate must agree with its redshift, a draw of the posterior.  In the population
of the training, the redshift is nearly a linear function of the coefficients,
:math:`z = z_0 + h \cdot c + \epsilon`, with :math:`\epsilon` of standard deviation
:math:`\sigma` (0.007, 1.5% of the variance of :math:`z`).  The redshift :math:`z_k` of a candidate
is therefore a further measurement of its coefficients (a Kalman update):

.. math::

   \hat c_k = \hat c + g\,(z_k - z_0 - h \cdot \hat c), \qquad C' = C - g\,h^T C , \qquad
   g = C h / (h^T C h + \sigma^2) .
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..inputs.features import ModelInputs, make_inputs, photometry_features
from ..inputs.filter_sets import sdss_filters
from ..inputs.observations import Observations
from ..inputs.photometry import ANY_FILTER_MODEL, PhotometryBatch
from ..inputs.sed_features import SEDComponents, infer_photometry
from ..inputs.survey_images import colour_terms
from ..inputs.virtual_photometry import virtual_photometry
from ..nn.noise import ObjectStreams, standard_normal
from ..nn.records import TensorRecord
from ..weights import fetch_weights, read_weights
from .flux_calibration import TargetPhotometry

__all__ = ["Completion", "complete_photometry", "draw_completion", "in_ugriz", "sed_components"]

#: Regression of the redshift on the coefficients: constant, slopes and residual scatter, of 6,838
#: simulated galaxies (``recipes/sed_redshifts.py``).
_REDSHIFT = (
    0.11749, -0.00030, -0.02100, -0.03211, -0.00915, -0.03615, -0.00988, 0.00080, 0.00041,
    0.00778, -0.01319, -0.00202, -0.00122, -0.00264, -0.00114, 0.00034, 0.00401,
)  # fmt: skip
_REDSHIFT_SCATTER = 0.0072
#: Relative error of the fluxes of a draw: 16 components describe fluxes to 0.5%, and those of the
#: training have errors of at least 0.5%.
_MODEL_ERROR = 0.01
#: Part of the inferred flux of a band that its mean at the redshift of a draw has at least.
_MIN_FLUX = 0.05


@dataclass(frozen=True)
class Completion(TensorRecord):
    """Photometry in ugriz of each of k candidate spectra of n galaxies.

    Attributes
    ----------
    features : Tensor, shape (n, k, 20)
        See `~astrogenspec.inputs.features.photometry_features`.
    target : TargetPhotometry
        Photometry to which the spectra are scaled, shapes (n, k, 5) and (n, k).
    """

    features: Tensor
    target: TargetPhotometry


@lru_cache(maxsize=1)
def sed_components() -> SEDComponents:
    """Return the components of the spectra of the population of the training.

    They are part of the bundled weights of properties for any filters.

    Returns
    -------
    SEDComponents

    Raises
    ------
    astrogenspec.WeightsError
        If the weights cannot be read.
    """
    state, config = read_weights(fetch_weights(ANY_FILTER_MODEL).path)
    components = SEDComponents(config["sed_components"])
    components.load_state_dict(
        {name: state[f"sed.{name}"].float() for name in components.state_dict()}
    )
    return components.requires_grad_(False)


def complete_photometry(
    photometry: PhotometryBatch,
    components: SEDComponents,
    noise: Tensor,
    redshift: Tensor | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw fluxes in ugriz given photometry in other filters.

    Parameters
    ----------
    photometry : PhotometryBatch
        Photometry of n galaxies in any filters.
    components : SEDComponents
        Components of the spectra of the population.
    noise : Tensor, shape (n, k, K + 1)
        Standard normal numbers, one for each of the K coefficients and one for the redshift.
    redshift : Tensor, shape (n, k), optional
        Redshift of each draw; NaN where unknown.

    Returns
    -------
    flux, error : ndarray, shape (n, k, 5)
        Flux and the standard deviation of its distribution, nmgy, corrected for Galactic
        extinction; NaN for galaxies without photometry.
    """
    inferred = infer_photometry(components, photometry)
    responses = components.responses_of(sdss_filters())
    matrix = responses.matrix.double()
    size = components.n_components
    covariance = inferred.covariance.double()
    root = torch.linalg.cholesky(covariance + 1e-9 * torch.eye(size, dtype=torch.float64))
    centre = inferred.mean.double()[:, None]
    drawn = centre + noise[..., :size].double() @ root.transpose(1, 2)
    if redshift is not None:
        constant, slope = _REDSHIFT[0], covariance.new_tensor(_REDSHIFT[1:])
        projected = covariance @ slope
        variance = projected @ slope + _REDSHIFT_SCATTER**2
        gain = (projected / variance[:, None])[:, None]
        known = torch.isfinite(redshift)[..., None]
        # The update of each draw by a perturbed measurement has the covariance of the update.
        measured = redshift.double() + _REDSHIFT_SCATTER * noise[..., size].double()
        change = measured[..., None] - constant - (drawn @ slope)[..., None]
        drawn = torch.where(known, drawn + change * gain, drawn)
        change = redshift.double()[..., None] - constant - (centre @ slope)[..., None]
        centre = torch.where(known, centre + change * gain, centre)
        update = gain.transpose(1, 2) @ projected[:, None]
        covariance = torch.where(
            known[..., None], (covariance - update)[:, None], covariance[:, None]
        )
    else:
        covariance = covariance[:, None]
    scatter = torch.einsum("bi,nkij,bj->nkb", matrix, covariance, matrix).clamp(min=0).sqrt()
    ratio, relative = _log_normal(
        1 + centre @ matrix.T,
        (drawn - centre) @ matrix.T,
        scatter,
        _MIN_FLUX * (1 + inferred.mean.double()[:, None] @ matrix.T).clamp(min=_MIN_FLUX),
    )
    scale = inferred.amplitude.double()[:, None, None] * responses.template.double()
    missing = (inferred.n_bands == 0)[:, None, None]
    flux = (scale * ratio).masked_fill(missing, torch.nan)
    return flux.numpy(), (flux * relative).numpy()


def _log_normal(
    mean: Tensor, deviation: Tensor, scatter: Tensor, minimum: Tensor
) -> tuple[Tensor, Tensor]:
    """Replace normal draws of fluxes by log-normal ones of the same mean and variance.

    Parameters
    ----------
    mean, deviation, scatter : Tensor
        Mean, draw minus mean, and standard deviation.
    minimum : Tensor
        Minimum of the mean.

    Returns
    -------
    draws, relative : Tensor
        Draws, which are positive, and their relative standard deviation.
    """
    mean = torch.maximum(mean, minimum)
    width = torch.log1p((scatter / mean).square()).sqrt()
    unit = deviation / scatter.clamp(min=1e-12)
    return mean * torch.exp(width * unit - width.square() / 2), scatter / mean


def in_ugriz(
    seen: Observations, components: SEDComponents
) -> tuple[Observations, ModelInputs, np.ndarray]:
    """Replace photometry in any filters by that in ugriz which it implies.

    Parameters
    ----------
    seen : Observations
        Images and photometry of n galaxies in any filters.
    components : SEDComponents
        Components of the spectra of the population.

    Returns
    -------
    seen : Observations
        With the most probable fluxes in ugriz.
    inputs : ModelInputs
        Network inputs.
    extinction : ndarray, shape (n, 5)
        Magnitudes by which the images are corrected: Galactic extinction, and the difference
        between their filters and those of SDSS.
    """
    virtual = virtual_photometry(seen.photometry, sdss_filters(), components)
    extinction = np.asarray(virtual.extinction, dtype=float)
    if seen.cutouts is not None:
        own = seen.photometry.with_filters(seen.cutouts.filters).extinction
        extinction = own + colour_terms(seen.cutouts, seen.photometry, components)
    inputs = make_inputs(seen.cutouts, virtual, extinction=extinction)
    return replace(seen, photometry=virtual), inputs, extinction


def draw_completion(
    photometry: PhotometryBatch,
    target: TargetPhotometry,
    components: SEDComponents,
    generators: list[torch.Generator] | ObjectStreams,
    redshift: Tensor,
    zero_points: Tensor,
) -> Completion:
    """Draw photometry in ugriz for each candidate spectrum.

    Parameters
    ----------
    photometry : PhotometryBatch
        Photometry of n galaxies in any filters.
    target : TargetPhotometry
        That of the most probable fluxes in ugriz.
    components : SEDComponents
        Components of the spectra of the population.
    generators : list of `torch.Generator`, or ObjectStreams
        Random numbers of each galaxy.
    redshift : Tensor, shape (n, k)
        Redshift of each of k candidate spectra; NaN where unknown.
    zero_points : Tensor, shape (5,)
        Magnitude on the system of the survey minus that on the AB system.

    Returns
    -------
    Completion
    """
    shape = (redshift.shape[1], components.n_components + 1)
    if isinstance(generators, ObjectStreams):
        noise = standard_normal((len(generators), *shape), generators)
    else:
        noise = torch.stack([standard_normal(shape, generator) for generator in generators])
    flux, scatter = complete_photometry(photometry, components, noise, redshift)
    error = _MODEL_ERROR * flux
    n, k = flux.shape[:2]
    measured = np.repeat(np.asarray(photometry.measured, bool), k)
    features = photometry_features(
        torch.as_tensor(flux.reshape(n * k, -1)),
        torch.as_tensor(error.reshape(n * k, -1)),
        torch.as_tensor(measured),
    ).unflatten(0, (n, k))
    error = np.hypot(error, scatter)
    drawn = TargetPhotometry.from_survey(
        flux.reshape(n * k, -1), error.reshape(n * k, -1), zero_points, measured=measured
    ).map_tensors(lambda values: values.unflatten(0, (n, k)))
    repeated = target.map_tensors(
        lambda values: values[:, None].expand(-1, k, *values.shape[1:]).contiguous()
    )
    return Completion(features, replace(repeated, flux=drawn.flux, error=drawn.error))
