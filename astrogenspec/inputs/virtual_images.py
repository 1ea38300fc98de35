r"""Virtual images: a galaxy in filters in which it was not observed.

The colours of a galaxy change from its centre to its edge, but its parts are more similar to each
other than galaxies are.  The spectrum of a pixel is that of the galaxy, :math:`\hat c` of
`astrogenspec.inputs.sed_features`, plus a deviation of its own.  With :math:`T_b = t_b (1 + A_b
\hat c)`, the flux of the galaxy in filter b per unit amplitude, the flux of a pixel is

.. math:: f_b = a\, T_b + \sum_k t_b A_{bk}\, d_k + \epsilon_b , \qquad
   d \sim N(0, s^2 a^2) ,

where :math:`s` is the spread within galaxies in units of that between galaxies, `SPREAD`.  With a
flat prior for the amplitude :math:`a`, the covariance of the fluxes of two filters is

.. math:: K_{bb'} = V\, T_b T_{b'} + s^2 \hat a^2\, t_b t_{b'} A_b A_{b'}^T ,

with a large :math:`V` and a first estimate :math:`\hat a`, and the expected flux in another filter
is that of kriging,

.. math:: f_t = K_{tb} (K + N)^{-1} f_b .

It is linear in the fluxes, so that sky remains sky, and exact for a galaxy of one colour.  Seeing
and pixels are those of the images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .sed_features import FilterResponses, SEDComponents, SEDInference

if TYPE_CHECKING:
    from ..surveys import Filter

__all__ = ["SPREAD", "virtual_images"]

#: Scatter of the coefficients within galaxies in units of that between galaxies.
SPREAD = 0.5
#: Standard deviation of the amplitude of a pixel, in units of its first estimate.
_AMPLITUDE = 100.0


def virtual_images(
    images: Tensor,
    error: tuple[Tensor, Tensor],
    filters: Sequence[Filter],
    target: Sequence[Filter],
    galaxies: SEDInference,
    components: SEDComponents,
) -> Tensor:
    """Predict images of galaxies in other filters.

    Parameters
    ----------
    images : Tensor, shape (n, b, ny, nx)
        Flux per pixel, corrected for Galactic extinction.
    error : tuple of Tensor, shape (b,) each
        Error of a pixel of the sky, and relative error of a bright pixel.
    filters, target : sequence of Filter
        Filters of the images, and of the m images of the result.
    galaxies : SEDInference
        Coefficients of whole galaxies.
    components : SEDComponents
        Components of the spectra of the population.

    Returns
    -------
    Tensor, shape (n, m, ny, nx)

    Raises
    ------
    ValueError
        If a filter reaches beyond the modelled spectra.
    """
    own, other = (components.responses_of(each) for each in (filters, target))
    pixels = images.flatten(2).transpose(1, 2).double()
    parts = [
        _predict(flux, _variance(flux, *error), own, other, mean)
        for flux, mean in zip(pixels, galaxies.mean.double(), strict=True)
    ]
    return torch.stack(parts).transpose(1, 2).unflatten(2, images.shape[2:]).to(images.dtype)


def _variance(flux: Tensor, sky: Tensor, relative: Tensor) -> Tensor:
    """Return the variance of pixels (p, b)."""
    return sky.double().square() + (relative.double() * flux).square()


def _predict(
    flux: Tensor, variance: Tensor, own: FilterResponses, other: FilterResponses, mean: Tensor
) -> Tensor:
    """Predict the fluxes of the pixels (p, b) of a galaxy in other filters, shape (p, m)."""
    (total, slope), (wanted, wanted_slope) = (_of_galaxy(each, mean) for each in (own, other))
    weight = total / variance
    precision = (weight * total).sum(1)
    amplitude = torch.maximum((weight * flux).sum(1) / precision, precision.rsqrt())
    amplitude = amplitude.square()[:, None, None]
    scale = amplitude * _AMPLITUDE**2
    deviations = amplitude * SPREAD**2
    covariance = scale * torch.outer(total, total) + deviations * (slope @ slope.T)
    covariance = covariance + torch.diag_embed(variance)
    cross = scale * torch.outer(wanted, total) + deviations * (wanted_slope @ slope.T)
    return (cross @ torch.linalg.solve(covariance, flux[..., None]))[..., 0]


def _of_galaxy(responses: FilterResponses, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Return the fluxes of a galaxy of unit amplitude, and their dependence on coefficients."""
    template, matrix = responses.template.double(), responses.matrix.double()
    return template * (1 + matrix @ mean).clamp(min=0.05), template[:, None] * matrix
