r"""Photometry in any filters as a vector of fixed length, by linear inference of the SED.

The observed spectral energy distributions (SED) of a population of galaxies, :math:`f_\nu` on the
grid `~astrogenspec.wavelengths.SED_GRID`, are described by their mean :math:`\bar f_\nu` and by the
principal components of :math:`f_\nu / \bar f_\nu`.  A filter b with response per photon
:math:`R_b` averages an SED to the AB flux

.. math:: \langle f_\nu \rangle_b = \frac{\int f_\nu R_b\, d\ln\lambda}{\int R_b\, d\ln\lambda} ,

so that the flux of a galaxy of amplitude :math:`a` is linear in its coefficients :math:`c`:

.. math::

   \frac{f_b}{a\, t_b} = 1 + \sum_k A_{bk} c_k + \epsilon_b , \qquad
   t_b = \langle \bar f_\nu \rangle_b , \qquad c \sim N(0, 1) ,

where :math:`A_{bk}` is the average of component k, multiplied by its standard deviation in the
population and weighted by the mean SED.  A first component, constant with standard deviation
`LEVEL`, absorbs the error of the amplitude.  The variance :math:`N_b` of :math:`\epsilon_b` is that
of the measurement plus that of the calibration of the band, and light that an aperture of one
survey holds and that of another does not is a further unknown, common to the bands of a survey.
Mean and covariance of the coefficients given the fluxes are those of a Wiener filter,

.. math::

   C = (1 + A^T N^{-1} A)^{-1} , \qquad \hat c = C A^T N^{-1} (f / (a t) - 1) .

They summarise photometry in any number of bands, in any order, with the weight that its errors
give it: a band without measurement, or with an infinite error, has no effect.  The relation to
template fits is that of a linear model to its basis: `kcorrect` [1]_ projects fluxes on
non-negative templates without a prior, at a known redshift, while this projection is made in the
observed frame, with the population as the prior, and hands its uncertainty on to the network, which
learns the redshift.

References
----------
.. [1] Blanton, M. R. & Roweis, S. 2007, AJ, 133, 734.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nn.records import TensorRecord
from ..wavelengths import SED_GRID
from .feature_layout import SED_SUMMARY, FeatureLayout
from .filter_sets import aperture_errors

if TYPE_CHECKING:
    from ..surveys import Filter
    from .photometry import PhotometryBatch

__all__ = [
    "LEVEL",
    "N_COMPONENTS",
    "FilterResponses",
    "SEDComponents",
    "SEDInference",
    "filter_curve",
    "infer_fluxes",
    "infer_photometry",
    "sed_feature_layout",
]

#: Number of coefficients, with the level.
N_COMPONENTS = 16
#: Standard deviation of the level, relative to the amplitude.
LEVEL = 0.3
#: Magnitudes per unit of natural logarithm.
_MAG = 2.5 / math.log(10)
#: SEDs are smoothed over this number of bins (7.5%) before the components are computed, so that
#: emission lines, which a broad band dilutes, do not take up components.
_SMOOTHING = 13
#: Relative error of the template in the first estimate of the amplitude.
_TEMPLATE_ERROR = 0.1
#: The calibration error is relative to the observed flux, at least this part of the template's.
_MIN_RATIO = 0.1
#: Minimum part of the response of a filter that is inside the grid.
_MIN_COVERAGE = 0.99
#: Coefficients are clipped to this range, in standard deviations of the population.
_MAX_COEFFICIENT = 8.0
_MAGNITUDE_CENTRE, _MAGNITUDE_SCALE = 17.3, 1.5
_COVARIANCE_SCALE = 3.0


@lru_cache(maxsize=1024)
def filter_curve(band: Filter) -> np.ndarray:
    """Average the response of a filter over the bins of the SED grid.

    Parameters
    ----------
    band : Filter
        Filter with its response per photon.

    Returns
    -------
    ndarray, shape (SED_GRID.size,)
        The AB flux of an SED is the sum over the product with its mean flux density in the bins.

    Raises
    ------
    ValueError
        If the filter reaches beyond the grid.
    """
    curve = SED_GRID.average_weights(band.wavelength, band.response)
    if curve.sum() < _MIN_COVERAGE:
        low, high = SED_GRID.edges[[0, -1]]
        raise ValueError(
            f"the filter {band.name} reaches beyond the modelled spectra, {low:.0f} to "
            f"{high:.0f} Angstrom; leave this band out."
        )
    return curve / curve.sum()


def sed_feature_layout(n_components: int) -> FeatureLayout:
    """Return the names of the columns of the features.

    Parameters
    ----------
    n_components : int
        Number of coefficients.

    Returns
    -------
    FeatureLayout
        The columns of `SED_SUMMARY`, and the groups ``coefficient`` and ``covariance`` (upper
        triangle).
    """
    pairs = [(i, j) for i in range(n_components) for j in range(i, n_components)]
    return FeatureLayout(
        summary=SED_SUMMARY.names,
        coefficient=tuple(f"coefficient_{i}" for i in range(n_components)),
        covariance=tuple(f"covariance_{i}_{j}" for i, j in pairs),
    )


@dataclass(frozen=True)
class FilterResponses(TensorRecord):
    """Response of filters to the mean SED and to the components.

    Attributes
    ----------
    template : Tensor, shape (m,)
        AB flux of the mean SED.
    matrix : Tensor, shape (m, K)
        Response to the components, relative to the mean SED.
    """

    template: Tensor
    matrix: Tensor


@dataclass(frozen=True)
class SEDInference(TensorRecord):
    """Coefficients of the SEDs of n galaxies given their fluxes.

    Attributes
    ----------
    mean : Tensor, shape (n, K)
        Mean of the coefficients.
    covariance : Tensor, shape (n, K, K)
        Their covariance.
    amplitude, amplitude_error : Tensor, shape (n,)
        Flux of the galaxy relative to the mean SED, and its standard error.
    misfit : Tensor, shape (n,)
        Sum of the squared residuals in units of their errors.
    n_bands : Tensor, shape (n,)
        Number of bands.
    """

    mean: Tensor
    covariance: Tensor
    amplitude: Tensor
    amplitude_error: Tensor
    misfit: Tensor
    n_bands: Tensor


class SEDComponents(nn.Module):
    """Mean and principal components of the SEDs of a population, and linear inference with them.

    The components are part of the weights of a network.

    Parameters
    ----------
    n_components : int, optional
        Number of coefficients, with the level.
    """

    mean: Tensor
    components: Tensor

    def __init__(self, n_components: int = N_COMPONENTS) -> None:
        super().__init__()
        self.n_components = n_components
        self.layout = sed_feature_layout(n_components)
        self.register_buffer("mean", torch.ones(SED_GRID.size))
        self.register_buffer("components", torch.zeros(n_components - 1, SED_GRID.size))
        self._triangle = torch.triu_indices(n_components, n_components)

    @torch.no_grad()
    def fit(self, seds: Tensor) -> None:
        """Compute mean and components of a sample of SEDs.

        The components are those of the ratio to the mean, divided by the square root of its
        standard deviation at each wavelength: without that, the ultraviolet, where galaxies differ
        most, would take up most components.  16 components describe the fluxes of simulated
        galaxies from u to H to 0.5%.

        Parameters
        ----------
        seds : Tensor, shape (n, SED_GRID.size)
            Flux density per frequency, each divided by a broad-band flux.
        """
        seds = seds.float()
        limit = 20 * seds.median(dim=0).values
        mean = seds.minimum(limit).mean(0)
        ratio = (seds / mean).clamp(-1, 5)
        smooth = F.avg_pool1d(ratio, _SMOOTHING, 1, _SMOOTHING // 2, count_include_pad=False)
        deviation = smooth - smooth.mean(0)
        width = deviation.std(0).sqrt()
        _, values, vectors = torch.linalg.svd(deviation / width, full_matrices=False)
        scale = values[: self.n_components - 1] / math.sqrt(len(seds))
        self.mean.copy_(mean)
        self.components.copy_(vectors[: self.n_components - 1] * scale[:, None] * width)

    def responses(self, curves: Tensor) -> FilterResponses:
        """Compute the response of filters.

        Parameters
        ----------
        curves : Tensor, shape (m, SED_GRID.size)
            See `filter_curve`.

        Returns
        -------
        FilterResponses
        """
        template = curves @ self.mean
        relative = curves * self.mean / template[:, None]
        level = relative.new_full((len(curves), 1), LEVEL)
        return FilterResponses(template, torch.cat([level, relative @ self.components.T], 1))

    def responses_of(self, filters: Sequence[Filter]) -> FilterResponses:
        """Compute the response of filters.

        Parameters
        ----------
        filters : sequence of Filter

        Returns
        -------
        FilterResponses

        Raises
        ------
        ValueError
            If a filter reaches beyond the grid.
        """
        curves = torch.tensor(np.stack([filter_curve(band) for band in filters]))
        return self.responses(curves.to(self.mean))

    @torch.no_grad()
    def infer(
        self,
        flux: Tensor,
        error: Tensor,
        responses: FilterResponses,
        calibration_error: Tensor,
        aperture_error: Tensor | None = None,
    ) -> SEDInference:
        """Infer the coefficients of SEDs.

        Parameters
        ----------
        flux, error : Tensor, shape (n, m)
            Dereddened flux and its standard error, in any unit; not finite where missing.
        responses : FilterResponses
            Of m filters, or of m filters of each galaxy: shapes (n, m) and (n, m, K).
        calibration_error : Tensor, shape (m,) or (n, m)
            Standard error of the calibration of each band, mag.
        aperture_error : Tensor, shape (m, g) or (n, m, g), optional
            Standard deviation (mag) of the light of g groups of bands relative to the other bands,
            in the rows of the bands of the group; 0 elsewhere.

        Returns
        -------
        SEDInference
        """
        template, matrix = responses.template.double(), responses.matrix.double()
        present = flux.isfinite() & error.isfinite() & (error > 0)
        flux = torch.where(present, flux / template, 0.0)
        error = torch.where(present, error / template, 1.0)
        amplitude, amplitude_error = _amplitude(flux, error, present)
        ratio = flux / amplitude[:, None]
        calibration = (calibration_error.to(matrix) / _MAG) * ratio.clamp(min=_MIN_RATIO)
        variance = (error / amplitude[:, None]).square() + calibration.square()
        weight = present / variance
        design = matrix if matrix.dim() == 3 else matrix.expand(len(flux), -1, -1)
        if aperture_error is not None:
            groups = aperture_error.to(matrix) / _MAG
            groups = groups if groups.dim() == 3 else groups.expand(len(flux), -1, -1)
            design = torch.cat([design, groups], 2)
        weighted = design * weight[..., None]
        precision = weighted.transpose(1, 2) @ design
        precision = precision + torch.eye(design.shape[2]).to(precision)
        covariance = torch.cholesky_inverse(torch.linalg.cholesky(precision))
        deviation = ratio - 1
        mean = (covariance @ (weighted.transpose(1, 2) @ deviation[..., None]))[..., 0]
        residual = deviation - (design @ mean[..., None])[..., 0]
        k = self.n_components
        result = SEDInference(
            mean=mean[:, :k],
            covariance=covariance[:, :k, :k],
            amplitude=amplitude,
            amplitude_error=amplitude_error,
            misfit=(residual.square() * weight).sum(1),
            n_bands=present.sum(1),
        )
        return result.map_tensors(lambda values: values.to(self.mean.dtype))

    def features(self, inferred: SEDInference, measured: Tensor | None = None) -> Tensor:
        """Arrange the result of `infer` as features of the networks.

        Parameters
        ----------
        inferred : SEDInference
            n galaxies.
        measured : Tensor of bool, shape (n,), optional
            True where the fluxes were measured on the image.

        Returns
        -------
        features : Tensor, shape (n, len(layout)), float32
            See `sed_feature_layout`; zero for galaxies without photometry.
        """
        row, column = self._triangle
        if measured is None:
            measured = torch.zeros(len(inferred), dtype=torch.bool, device=inferred.mean.device)
        amplitude = inferred.amplitude
        magnitude = 22.5 - 2.5 * torch.log10(amplitude)
        error = torch.log10(inferred.amplitude_error / amplitude)
        summary = {
            "n_bands": inferred.n_bands / 5,
            "measured": measured.to(amplitude),
            "magnitude": (magnitude - _MAGNITUDE_CENTRE) / _MAGNITUDE_SCALE,
            "magnitude_error": error + 1.5,
            "misfit": torch.log10(inferred.misfit + 0.01),
        }
        features = torch.cat(
            [
                torch.stack([summary[name] for name in SED_SUMMARY.names], 1),
                inferred.mean.clamp(-_MAX_COEFFICIENT, _MAX_COEFFICIENT),
                _COVARIANCE_SCALE * inferred.covariance[:, row, column],
            ],
            1,
        )
        return features * (inferred.n_bands > 0)[:, None]

    def predict(self, inferred: SEDInference, responses: FilterResponses) -> tuple[Tensor, Tensor]:
        """Predict fluxes in other filters.

        Parameters
        ----------
        inferred : SEDInference
            n galaxies.
        responses : FilterResponses
            Of m filters.

        Returns
        -------
        flux, error : Tensor, shape (n, m)
            In the unit of the fluxes; NaN for galaxies without photometry.
        """
        matrix, scale = responses.matrix, inferred.amplitude[:, None] * responses.template
        flux = scale * (1 + inferred.mean @ matrix.T)
        variance = torch.einsum("bk,nkl,bl->nb", matrix, inferred.covariance, matrix)
        missing = (inferred.n_bands == 0)[:, None]
        return flux.masked_fill(missing, torch.nan), (scale * variance.sqrt()).masked_fill(
            missing, torch.nan
        )


def _amplitude(flux: Tensor, error: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Estimate amplitudes from fluxes relative to the template, at least their standard errors."""
    weight = present / error.square()
    first = (flux.clamp(min=0) * weight).sum(1) / weight.sum(1).clamp(min=1e-30)
    floor = weight.sum(1).clamp(min=1e-30).rsqrt()
    scale = _TEMPLATE_ERROR * torch.maximum(first, floor)
    weight = present / (error.square() + scale[:, None].square())
    total = weight.sum(1).clamp(min=1e-30)
    amplitude_error = total.rsqrt()
    amplitude = torch.maximum((flux * weight).sum(1) / total, amplitude_error)
    empty = ~present.any(1)
    return amplitude.masked_fill(empty, 1.0), amplitude_error.masked_fill(empty, 1.0)


def infer_photometry(components: SEDComponents, photometry: PhotometryBatch) -> SEDInference:
    """Infer the coefficients of galaxies from photometry, corrected for Galactic extinction.

    Parameters
    ----------
    components : SEDComponents
        Components of the spectra of the population.
    photometry : PhotometryBatch
        Photometry of n galaxies in any filters.

    Returns
    -------
    SEDInference

    Raises
    ------
    ValueError
        If a filter reaches beyond the modelled spectra.
    """
    flux, error = (torch.as_tensor(np.asarray(a, float)) for a in photometry.dereddened())
    return infer_fluxes(components, flux, error, photometry)


def infer_fluxes(
    components: SEDComponents, flux: Tensor, error: Tensor, photometry: PhotometryBatch
) -> SEDInference:
    """Infer the coefficients of galaxies from fluxes in the filters of some photometry.

    Parameters
    ----------
    components : SEDComponents
        Components of the spectra of the population.
    flux, error : Tensor, shape (n, m)
        Dereddened flux and its standard error [nmgy]; NaN where missing.
    photometry : PhotometryBatch
        Photometry, of any galaxies, with the m filters and their calibration errors.

    Returns
    -------
    SEDInference
    """
    aperture = aperture_errors(photometry.filters)
    return components.infer(
        flux,
        error,
        components.responses_of(photometry.filters),
        torch.as_tensor(np.asarray(photometry.calibration_error, float)),
        None if aperture is None else torch.as_tensor(aperture),
    )
