r"""Broad-band filters, observed photometry, and selection of the spectroscopic sample.

The flux of a source in AB maggies is the ratio of photon rates (with :math:`f_\lambda` in the
observed frame and the response :math:`R` per photon)

.. math::

   \frac{\int \lambda f_\lambda R\, d\lambda}
   {\int \lambda f^\mathrm{AB}_\lambda R\, d\lambda} ,
   \qquad f^\mathrm{AB}_\lambda = 3.631 \times 10^{-20}\, c / \lambda^2 ,

a sum over pixels with weights computed once for each grid and filter.  The logarithm of catalogue
errors is a quadratic function of the magnitude with scatter; a fraction of the measurements are
outliers or contain the light of an unrelated object.  A galaxy is selected by its Petrosian r
magnitude and, optionally, by the detection probability of a 2MASS extended source, a logistic
function of J.  Values and sources are in ``priors/observation.ecsv``.

`observe_in` simulates the catalogue of any other survey from its depth, seeing and calibration.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import astropy.units as u
import numpy as np
import speclite.filters
import torch
from torch import Tensor

from ..inputs.sed_features import filter_curve
from ..nn.records import TensorRecord
from ..surveys import BANDS, SDSS, Survey, get_survey
from ..wavelengths import SED_GRID, LogGrid
from .priors import Priors
from .ssp import COARSE

__all__ = [
    "MAX_SHIFT",
    "Observation",
    "SurveyPhotometry",
    "band_curves",
    "observe",
    "observe_in",
    "observed_filters",
    "selection_probability",
    "shifted_filters",
    "zero_point_curve",
]

#: Largest redshift shift of `shifted_filters` in units of 1e-4 dex (z = 0.4).
MAX_SHIFT = 1462
_SHIFT_STEP = 1e-4
_AB_ZERO = 3.631e-20  # erg/s/cm2/Hz
_LIGHT = 2.99792458e18  # A/s
_NMGY = 1e-8  # 1e9 nmgy per maggy x 1e-17 of the flux unit
_MAG = 1.0857362  # 2.5 / ln 10
_R = BANDS.index("r")
#: Area over which the noise of an optimally weighted Gaussian adds up, over its FWHM squared:
#: 4 pi / (8 ln 2).
_NOISE_AREA = np.pi / (2 * np.log(2))
#: Scatter of the depth from place to place (mag; assumed).
_DEPTH_SCATTER = 0.1
#: 2MASS J Vega to AB, Blanton & Roweis (2007), Table 1.
_J_AB = 0.91
#: Pivot wavelengths (A) of the bands of SDSS, from the curves of Doi et al. (2010).
_PIVOT = (3589.3, 4701.4, 6177.2, 7496.5, 8904.2)
#: Wavelength (A) from which the zero points are those of the stellar spectra.
_NO_OFFSET = 12_500.0
#: Mean and scatter of u-g, g-r, r-i, i-z of unrelated objects at r ~ 18-20 (stars and galaxies
#: together).
_BLEND_COLOURS = ((1.6, 0.6), (0.8, 0.4), (0.35, 0.25), (0.25, 0.2))


@dataclass(frozen=True)
class Observation(TensorRecord):
    """Photometry (nmgy) corrected for Galactic extinction, shape (n, 5) unless stated.

    Attributes
    ----------
    true_flux : Tensor
        Noise-free fluxes on the survey's magnitude system.
    expected_flux : Tensor
        Noise-free fluxes with the light of blended objects: the mean of repeated measurements.
    flux, error : Tensor
        Catalogue values; the true error of an outlier is larger than its ``error``.
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


@cache
def shifted_filters(survey: Survey = SDSS) -> Tensor:
    """Compute the weights of the survey's bands and 2MASS J on the coarse rest-frame grid.

    There is one set of weights for each redshift, in steps of 1e-4 dex.

    Returns
    -------
    Tensor, shape (1463, 890, n_bands + 1)
        nanomaggies per 1e-17 erg/s/cm2/A; the first axis is ``round(1e4 log10(1 + z))``.
    """
    per_bin = round(COARSE.step / _SHIFT_STEP)
    size = COARSE.size * per_bin + MAX_SHIFT
    first = COARSE.start - 0.5 * (per_bin - 1) * _SHIFT_STEP
    log_wavelength = first + _SHIFT_STEP * np.arange(size)
    names = [survey.filter_names[band] for band in survey.bands] + ["twomass-J"]
    fine = np.stack([_response(name, log_wavelength, _SHIFT_STEP) for name in names], axis=1)
    weights = np.stack(
        [
            fine[s : s + COARSE.size * per_bin].reshape(COARSE.size, per_bin, -1).sum(1)
            for s in range(MAX_SHIFT + 1)
        ]
    )
    return torch.tensor(weights, dtype=torch.float32)


def observed_filters(grid: LogGrid, survey: Survey = SDSS) -> Tensor:
    """Compute the weights of the survey's bands on an observed-frame grid.

    Returns
    -------
    Tensor, shape (grid.size, n_bands)
        nanomaggies per 1e-17 erg/s/cm2/A.
    """
    columns = [
        _response(survey.filter_names[band], grid.log_wavelength, grid.step)
        for band in survey.bands
    ]
    return torch.tensor(np.stack(columns, axis=1), dtype=torch.float32)


def zero_point_curve(priors: Priors, wavelength: np.ndarray | None = None) -> np.ndarray:
    """Interpolate the zero-point offsets of SDSS in the logarithm of the wavelength.

    The offsets were fitted together with the correction of the stellar spectra and cannot be told
    from it; fluxes in the filters of other surveys have the same correction, so that the same
    offsets apply to them.  The values at the knots are such that the median offset of galaxies in
    each band of SDSS is the ``zero_point`` of the band.

    Parameters
    ----------
    priors : Priors
        Group ``observation``.
    wavelength : ndarray, shape (m,), optional
        Angstrom, observed frame; the bins of `~astrogenspec.wavelengths.SED_GRID` by default.

    Returns
    -------
    ndarray, shape (m,)
        Magnitudes to add to those of a spectral energy distribution; constant blueward of u, and 0
        redward of 12,500 A, where 2MASS agrees with the stellar spectra to a few 0.01 mag.
    """
    wavelength = SED_GRID.wavelength if wavelength is None else np.asarray(wavelength, float)
    offsets = [priors[f"zero_point_curve_{band}"] for band in BANDS]
    return np.interp(np.log(wavelength), np.log([*_PIVOT, _NO_OFFSET]), [*offsets, 0.0])


def _response(name: str, log_wavelength: np.ndarray, step: float) -> np.ndarray:
    """Weights (m,) that convert f_lambda (1e-17 erg/s/cm2/A) on a log grid to nmgy."""
    curve = speclite.filters.load_filter(name)
    known = np.log10(np.asarray(curve.wavelength, dtype=float))

    def photons(log_lambda: np.ndarray, spacing: float) -> np.ndarray:
        response = np.interp(log_lambda, known, curve.response, left=0, right=0)
        return response * 10 ** (2 * log_lambda) * spacing * np.log(10)

    dense = np.linspace(known[0], known[-1], 4000)
    zero = photons(dense, dense[1] - dense[0]) * _AB_ZERO * _LIGHT / 10 ** (2 * dense)
    return photons(log_wavelength, step) / zero.sum() * _NMGY


def observe(total: Tensor, priors: Priors, generator: torch.Generator) -> Observation:
    """Simulate catalogue photometry from total fluxes.

    Parameters
    ----------
    total : Tensor, shape (n, 6)
        ugriz and J, AB nanomaggies.
    priors : Priors
        Group ``observation``.
    generator : torch.Generator
        Source of randomness.

    Returns
    -------
    Observation
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
        petrosian_r=magnitude[:, _R]
        + priors.petrosian_offset
        + priors.petrosian_scatter * normal(n),
    )


def band_curves(survey: Survey) -> Tensor:
    """Return the curves of the bands of a survey on the grid of spectral energy distributions.

    Parameters
    ----------
    survey : Survey

    Returns
    -------
    Tensor, shape (490, n_bands)
        Columns of `~astrogenspec.inputs.sed_features.filter_curve`.

    Raises
    ------
    ValueError
        If the curves are not available, or the grid does not cover a band.
    """
    curves = [filter_curve(survey.filters[band]) for band in survey.bands]
    return torch.tensor(np.stack(curves, axis=1), dtype=torch.float32)


@dataclass(frozen=True)
class SurveyPhotometry(TensorRecord):
    """Photometry (nmgy) of n galaxies in the b bands of a survey, shape (n, b).

    Attributes
    ----------
    flux, error : Tensor
        Catalogue values, corrected for Galactic extinction; the error does not include that of the
        calibration.
    true_flux : Tensor
        Noise-free fluxes.
    """

    flux: Tensor
    error: Tensor
    true_flux: Tensor


def observe_in(
    survey: Survey | str,
    sed: Tensor,
    sed_flux: Tensor,
    generator: torch.Generator,
    *,
    radius: Tensor | None = None,
) -> SurveyPhotometry:
    r"""Simulate catalogue photometry in the bands of any survey.

    The variance of the flux :math:`f` of a galaxy of half-light radius :math:`r` is

    .. math:: \sigma^2 = \sigma_0^2
              \left[1 + \left(\frac{2 r}{\mathrm{FWHM}}\right)^2\right] + \frac{f}{g} ,

    where :math:`\sigma_0` is the noise of a point source, from ``pixel_sigma`` and the seeing or
    from the depth, which scatters by 0.1 mag, the bracket is the area of a Gaussian of the size of
    galaxy and seeing over that of a point source, and :math:`g` is the number of electrons per
    nanomaggy (the last term is left out where it is unknown).  The zero points of the survey
    scatter from galaxy to galaxy by its ``calibration_error``.

    Parameters
    ----------
    survey : Survey or str
        Survey with filters, depth and seeing, or its name.
    sed : Tensor, shape (n, 490)
        Spectral energy distributions on `~astrogenspec.wavelengths.SED_GRID` and on the zero points
        of the survey, as from `~astrogenspec.simulate.dataset.sed_columns` or shards.
    sed_flux : Tensor, shape (n,)
        Factors of ``sed`` (nmgy), from the same.
    generator : torch.Generator
        Source of randomness.
    radius : Tensor, shape (n,), optional
        Half-light radii (arcsec); point sources by default.

    Returns
    -------
    SurveyPhotometry

    Raises
    ------
    ValueError
        If a shape is wrong, the depth or seeing of a band is unknown, or a band is not covered.

    Examples
    --------
    >>> from astrogenspec.simulate.photometry import observe_in
    >>> flat = torch.ones(2, 490)
    >>> observe_in("lsst", flat, torch.tensor([10.0, 20.0]), torch.Generator()).flux.shape
    torch.Size([2, 6])
    """
    survey = get_survey(survey)
    n = len(sed)
    if sed.shape != (n, SED_GRID.size) or sed_flux.shape != (n,):
        raise ValueError(
            f"sed and sed_flux have shapes {tuple(sed.shape)} and {tuple(sed_flux.shape)}; (n, "
            f"{SED_GRID.size}) and (n,) are expected."
        )
    if radius is not None and radius.shape != (n,):
        raise ValueError(f"radius has shape {tuple(radius.shape)}; {(n,)} is expected.")
    true_flux = (sed.float() @ band_curves(survey).to(sed.device)) * sed_flux[:, None]

    def column(values) -> Tensor:
        return torch.tensor(list(values), dtype=torch.float32, device=true_flux.device)

    def normal() -> Tensor:
        return torch.randn(true_flux.shape, generator=generator, device=true_flux.device)

    seeing = column(q.to_value(u.arcsec) for q in survey.psf_fwhm.values())
    point_source = column(_point_source_noise(survey))
    unknown = ~(seeing * point_source).isfinite()
    if unknown.any():
        raise ValueError(
            f"the depth or psf_fwhm of the band {survey.bands[int(unknown.nonzero()[0])]} of the "
            f"survey {survey.name} is unknown; give it in the file of the survey, or leave the "
            "band out."
        )
    sigma = point_source * 10 ** (-0.4 * _DEPTH_SCATTER * normal())
    size = torch.zeros(n, 1) if radius is None else radius.float()[:, None]
    electrons = column(survey.electrons_per_nmgy.values()).nan_to_num(nan=torch.inf)
    variance = sigma**2 * (1 + (2 * size.to(seeing) / seeing) ** 2)
    error = torch.sqrt(variance + true_flux.clamp(min=0) / electrons)
    calibration = column(survey.calibration_error.values()).nan_to_num() * normal()
    flux = (true_flux + error * normal()) * 10 ** (0.4 * calibration)
    return SurveyPhotometry(flux, error, true_flux)


def _point_source_noise(survey: Survey) -> list[float]:
    """Return the error (nmgy) of the flux of a faint point source in each band."""
    noise = []
    for band in survey.bands:
        of_depth = 10 ** (0.4 * (22.5 - survey.depth[band])) / 5
        if survey.pixel_scale is None or np.isnan(survey.pixel_sigma[band]):
            noise.append(of_depth)
            continue
        pixels = _NOISE_AREA * float(survey.psf_fwhm[band] / survey.pixel_scale) ** 2
        noise.append(survey.pixel_sigma[band] * np.sqrt(pixels))
    return noise


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
    """Priors of the bands, shape (5,)."""
    return torch.tensor([priors[f"{prefix}_{band}"] for band in BANDS]).to(like)


def _blended_light(flux: Tensor, priors: Priors, normal: Tensor, uniform: Tensor) -> Tensor:
    """Light of an unrelated object inside the aperture, for a fraction of the galaxies."""
    low, high = priors.blend_ratio_low, priors.blend_ratio_high
    ratio = 10 ** (low + (high - low) * uniform[:, 1])
    ratio = torch.where(uniform[:, 0] < priors.blend_fraction, ratio, 0.0)
    mean, width = torch.tensor(_BLEND_COLOURS).to(flux).T
    ug, gr, ri, iz = (mean + width * normal).unbind(1)
    relative = torch.stack([ug + gr, gr, torch.zeros_like(gr), -ri, -ri - iz], dim=1)
    return flux[:, _R, None] * ratio[:, None] * 10 ** (-0.4 * relative)


def selection_probability(
    observation: Observation,
    priors: Priors,
    *,
    near_infrared: bool = False,
    magnitude_limit: float | None = None,
) -> Tensor:
    """Compute the probability that a galaxy is in the spectroscopic sample, shape (n,).

    Parameters
    ----------
    observation : Observation
        n galaxies.
    priors : Priors
        Group ``observation``.
    near_infrared : bool
        Also require a 2MASS extended source, as in the sample to which the population was fitted.
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
