r"""Network inputs: scaled images with inverse variances, and features of photometry and morphology.

A pixel of dereddened flux :math:`f` is scaled to :math:`x = \mathrm{asinh}(f / \sigma_b)`, linear
in the sky and logarithmic in the galaxy, with a fixed :math:`\sigma_b` for each band
(`PIXEL_SIGMA`). Its inverse variance is

.. math:: w = \frac{f^2 + \sigma_b^2}{1 / \mathrm{ivar} + (0.05 f)^2} ,

where the term of 5% is a floor of the model error, so that bright pixels do not dominate. Bad
pixels and missing bands have :math:`w = 0`.

Total fluxes become asinh magnitudes [1]_, adjacent colours, signal-to-noise ratios and presence
flags (`PHOTOMETRY_FEATURES`). All constants of this module are part of the format of trained
weights; they do not follow the description of a survey.

References
----------
.. [1] Lupton, Gunn & Szalay 1999, AJ 118, 1406
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..nn.records import TensorRecord
from ..surveys import BANDS, SDSS
from .feature_layout import SED_SUMMARY, FeatureLayout
from .filter_sets import is_sdss, sdss_filters
from .sed_features import SEDComponents, infer_fluxes, infer_photometry

if TYPE_CHECKING:
    from .cutouts import CutoutBatch
    from .photometry import PhotometryBatch

__all__ = [
    "MAGNITUDE_SCALE",
    "MORPHOLOGY_FEATURES",
    "N_MORPHOLOGY_FEATURES",
    "N_PHOTOMETRY_FEATURES",
    "PHOTOMETRY_FEATURES",
    "PIXEL_SIGMA",
    "SED_SUMMARY",
    "SHAPE_FEATURES",
    "FeatureLayout",
    "ModelInputs",
    "PhotometryReader",
    "SEDInputs",
    "image_features",
    "make_inputs",
    "morphology_features",
    "photometry_features",
    "to_flux",
]

#: Reference noise of a pixel in u, g, r, i, z [nmgy].
PIXEL_SIGMA = (0.047, 0.017, 0.029, 0.045, 0.18)
#: Columns of the photometric features.
PHOTOMETRY_FEATURES = FeatureLayout(
    magnitude=tuple(f"magnitude_{band}" for band in BANDS),
    colour=tuple(f"colour_{blue}{red}" for blue, red in pairwise(BANDS)),
    log_snr=tuple(f"log_snr_{band}" for band in BANDS),
    present=tuple(f"present_{band}" for band in BANDS),
    measured=("measured",),
)
_SHAPES = ("log_r50", "concentration", "axis_ratio")
#: Columns of the morphological features.
MORPHOLOGY_FEATURES = FeatureLayout(
    petrosian=tuple(f"petrosian_{band}" for band in BANDS),
    shape=_SHAPES,
    petrosian_present=tuple(f"petrosian_present_{band}" for band in BANDS),
    shape_present=tuple(f"{name}_present" for name in _SHAPES),
)
#: Lengths of the feature vectors.
N_PHOTOMETRY_FEATURES = len(PHOTOMETRY_FEATURES)
N_MORPHOLOGY_FEATURES = len(MORPHOLOGY_FEATURES)
#: Columns of radius, concentration and axis ratio, followed by their presence flags.
SHAPE_FEATURES = MORPHOLOGY_FEATURES.columns("shape", "shape_present")
_MODEL_FLOOR = 0.05
_SOFTENING = tuple(SDSS.asinh_softening[band] for band in BANDS)
_MAGNITUDE_CENTRE = (19.3, 17.9, 17.3, 17.0, 16.8)
#: Magnitudes per unit of the magnitude features.
MAGNITUDE_SCALE = 1.5
_COLOUR_CENTRE = (1.45, 0.75, 0.35, 0.25)
_COLOUR_SCALE = (0.5, 0.3, 0.15, 0.15)
_LOG_SNR_RANGE = (-1.0, 3.0)
_LOG_SNR_CENTRE = 1.5
#: Ranges of Petrosian minus model magnitude, of log10 of the half-light radius [arcsec], and of the
#: concentration r90/r50.
_PETROSIAN_RANGE = (-1.0, 2.0)
_LOG_RADIUS_RANGE = (-1.0, 2.0)
_CONCENTRATION_RANGE = (1.0, 6.0)
_LOG_RADIUS_CENTRE, _CONCENTRATION_CENTRE, _AXIS_RATIO_CENTRE = 0.5, 2.5, 0.6
_PETROSIAN_SCALE, _LOG_RADIUS_SCALE, _CONCENTRATION_SCALE, _AXIS_RATIO_SCALE = 0.15, 0.3, 0.5, 0.2
#: The median noise of a band is taken over every fourth pixel in each direction.
_NOISE_STRIDE = 4


@dataclass(frozen=True)
class ModelInputs(TensorRecord):
    """Network inputs of a batch of galaxies.

    Attributes
    ----------
    image : Tensor, shape (n, 5, ny, nx), or None
        asinh of dereddened flux over `PIXEL_SIGMA`; 0 where bad. None if no galaxy of the batch has
        an image.
    image_weight : Tensor, shape (n, 5, ny, nx), or None
        Inverse variance of `image`, with a five per cent model floor; 0 where bad.
    image_bands : Tensor, shape (n, 5)
        1 where the image has the band, else 0.
    image_noise : Tensor, shape (n, 5)
        log10 of the median pixel noise over `PIXEL_SIGMA`; 0 where the band is missing.
    photometry : Tensor, shape (n, 20)
        See `photometry_features`.
    morphology : Tensor, shape (n, 16), or None
        See `morphology_features`. None, equivalent to zeros, if no galaxy of the batch has a
        morphology.
    """

    image: Tensor | None
    image_weight: Tensor | None
    image_bands: Tensor
    image_noise: Tensor
    photometry: Tensor
    morphology: Tensor | None = None

    @property
    def has_image(self) -> Tensor:
        """Whether a galaxy has an image in at least one band, shape (n,), bool."""
        return self.image_bands.any(-1)

    @property
    def has_photometry(self) -> Tensor:
        """Whether a galaxy has photometry in at least one band, shape (n,), bool."""
        return self.photometry_bands.any(-1)

    @property
    def photometry_bands(self) -> Tensor:
        """Whether a band has photometry, shape (n, 5), bool."""
        return self.photometry[:, PHOTOMETRY_FEATURES.slice("present")] > 0

    @property
    def measured(self) -> Tensor:
        """Whether the photometry was measured on the image, shape (n,), bool."""
        return self.photometry[:, PHOTOMETRY_FEATURES.index("measured")] > 0

    def without_images(self) -> ModelInputs:
        """Return a copy without images; photometry measured on the images is kept."""
        empty = torch.zeros_like(self.image_bands)
        return replace(self, image=None, image_weight=None, image_bands=empty, image_noise=empty)


@dataclass(frozen=True)
class SEDInputs(ModelInputs):
    """Network inputs with photometry in any filters.

    The attribute `photometry` has the columns of
    `~astrogenspec.inputs.sed_features.sed_feature_layout`; all other attributes are those of
    `ModelInputs`.
    """

    @property
    def has_photometry(self) -> Tensor:
        """Whether a galaxy has photometry in at least one band, shape (n,), bool."""
        return self.photometry[:, SED_SUMMARY.index("n_bands")] > 0

    @property
    def photometry_bands(self) -> Tensor:
        """Number of bands with photometry, shape (n, 1)."""
        return self.photometry[:, SED_SUMMARY.slice("n_bands")]

    @property
    def measured(self) -> Tensor:
        """Whether the photometry was measured on the image, shape (n,), bool."""
        return self.photometry[:, SED_SUMMARY.index("measured")] > 0


def make_inputs(
    cutouts: CutoutBatch | None = None,
    photometry: PhotometryBatch | None = None,
    *,
    extinction: np.ndarray | None = None,
    components: SEDComponents | None = None,
) -> ModelInputs:
    """Convert observed batches to network inputs, corrected for Galactic extinction.

    Parameters
    ----------
    cutouts : CutoutBatch, optional
        Images as observed.
    photometry : PhotometryBatch, optional
        Total fluxes as observed, for the same galaxies in the same order.
    extinction : ndarray, shape (n, 5), optional
        Galactic extinction in each band [mag], applied to the images. By default that of
        `photometry`, else none.
    components : SEDComponents, optional
        Components of the spectra with which photometry in any filters is described; without them,
        the features are those of SDSS (`photometry_features`).

    Returns
    -------
    inputs : ModelInputs
        With components, `SEDInputs`.

    Raises
    ------
    ValueError
        If both are missing, their lengths differ, or the filters cannot be used.
    """
    if cutouts is None and photometry is None:
        raise ValueError("neither cutouts nor photometry were given: pass at least one of them.")
    n = len(cutouts) if cutouts is not None else 0 if photometry is None else len(photometry)
    if photometry is not None and len(photometry) != n:
        raise ValueError(
            f"there are {n} cutouts but photometry of {len(photometry)} galaxies; give one row "
            "each."
        )
    image = weight = None
    bands = noise = torch.zeros(n, len(BANDS), dtype=torch.float32)
    morphology = None
    if components is not None:
        features = _sed_features(components, photometry, n)
    else:
        features = _sdss_features(photometry, n)
    if cutouts is not None:
        if extinction is None:
            extinction = np.zeros((n, len(BANDS))) if photometry is None else photometry.extinction
        factor = 10 ** (0.4 * np.asarray(extinction, dtype=np.float32))[:, :, None, None]
        ivar = np.where(np.isfinite(cutouts.flux), cutouts.ivar, 0) / factor**2
        image, weight, bands, noise = image_features(
            torch.as_tensor(cutouts.flux * factor), torch.as_tensor(ivar)
        )
    if photometry is not None and photometry.morphology is not None:
        # Fluxes measured on a cutout are not model fluxes and cannot be compared with Petrosian
        # fluxes.
        observed = photometry.with_filters(sdss_filters()).flux
        model = np.where(photometry.measured[:, None], np.nan, observed)
        given = photometry.morphology
        morphology = morphology_features(
            *(
                torch.as_tensor(np.asarray(a))
                for a in (model, given.petro_flux, given.r50, given.r90, given.axis_ratio)
            )
        )
    kind = ModelInputs if components is None else SEDInputs
    return kind(image, weight, bands, noise, features, morphology)


class PhotometryReader:
    """Features of photometry in fixed filters, from fluxes that vary.

    Parameters
    ----------
    photometry : PhotometryBatch
        Photometry in the filters.
    components : SEDComponents, optional
        Components for photometry in any filters; without them, the filters are those of SDSS.
    """

    def __init__(self, photometry: PhotometryBatch, components: SEDComponents | None) -> None:
        self._template = photometry[:0]
        self._components = components

    @property
    def filters(self) -> tuple[str, ...]:
        """Names of the filters."""
        return tuple(band.name for band in self._template.filters)

    @property
    def is_sdss(self) -> bool:
        """Whether the filters are those of SDSS."""
        return is_sdss(self._template.filters)

    def __call__(self, flux: Tensor, error: Tensor, measured: Tensor) -> Tensor:
        """Return features.

        Parameters
        ----------
        flux, error : Tensor, shape (n, m)
            Dereddened flux and its standard error [nmgy]; NaN where missing.
        measured : Tensor of bool, shape (n,)
            Whether the fluxes were measured on the image.

        Returns
        -------
        Tensor, shape (n, n_features)
        """
        if self._components is None:
            return photometry_features(flux, error, measured)
        inferred = infer_fluxes(self._components, flux, error, self._template)
        return self._components.features(inferred, measured)


def _sdss_features(photometry: PhotometryBatch | None, n: int) -> Tensor:
    """Return the features of n galaxies in the bands of SDSS."""
    if photometry is None:
        return torch.zeros(n, N_PHOTOMETRY_FEATURES, dtype=torch.float32)
    flux, error = photometry.dereddened()
    arrays = (flux, error, photometry.measured)
    return photometry_features(*(torch.as_tensor(np.asarray(a)) for a in arrays))


def _sed_features(components: SEDComponents, photometry: PhotometryBatch | None, n: int) -> Tensor:
    """Return the features of n galaxies in any filters."""
    if photometry is None:
        return components.mean.new_zeros(n, len(components.layout))
    inferred = infer_photometry(components, photometry)
    return components.features(inferred, torch.as_tensor(np.asarray(photometry.measured)))


def image_features(flux: Tensor, ivar: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Convert dereddened images to network inputs.

    Parameters
    ----------
    flux : Tensor, shape (n, 5, ny, nx)
        Dereddened flux [nmgy per pixel]; finite where `ivar` is positive.
    ivar : Tensor, shape (n, 5, ny, nx)
        Inverse variance [nmgy**-2]; 0 where the pixel is bad or the band missing.

    Returns
    -------
    image, weight : Tensor, shape (n, 5, ny, nx)
    bands, noise : Tensor, shape (n, 5)
        See `ModelInputs`.
    """
    sigma = flux.new_tensor(PIXEL_SIGMA)[:, None, None]
    scaled = torch.where(ivar > 0, flux / sigma, 0.0)
    scaled_ivar = ivar * sigma.square()
    one_plus_square = torch.addcmul(torch.ones_like(scaled), scaled, scaled)
    image = (scaled.abs() + one_plus_square.sqrt()).log_().copysign_(scaled)
    model_floor = (one_plus_square - 1).mul_(_MODEL_FLOOR**2).mul_(scaled_ivar).add_(1)
    weight = one_plus_square.mul_(scaled_ivar).div_(model_floor)
    bands = scaled_ivar.flatten(2).amax(-1) > 0
    sampled = scaled_ivar[:, :, 1::_NOISE_STRIDE, 1::_NOISE_STRIDE].flatten(2)
    median = torch.where(sampled > 0, sampled, torch.nan).nanmedian(-1).values
    noise = torch.nan_to_num(-0.5 * torch.log10(median))
    return image, weight, bands.to(flux.dtype), noise


def to_flux(image: Tensor) -> Tensor:
    """Invert the scaling of `image_features`.

    Parameters
    ----------
    image : Tensor, shape (..., 5, ny, nx)
        Scaled image.

    Returns
    -------
    flux : Tensor, shape (..., 5, ny, nx)
        Dereddened flux [nmgy per pixel].
    """
    return torch.sinh(image) * image.new_tensor(PIXEL_SIGMA)[:, None, None]


def photometry_features(flux: Tensor, error: Tensor, measured: Tensor | None = None) -> Tensor:
    """Convert dereddened total fluxes to the photometric features of the networks.

    Parameters
    ----------
    flux, error : Tensor, shape (n, 5)
        Dereddened flux and its standard error [nmgy]; NaN where missing.
    measured : Tensor, shape (n,), optional
        True where the fluxes were measured on the cutout, False (the default) where they come from
        a catalogue.

    Returns
    -------
    features : Tensor, shape (n, 20), float32
        Columns `PHOTOMETRY_FEATURES`: five asinh magnitudes, four adjacent colours and five log10
        signal-to-noise ratios (all standardised, 0 where missing), five presence flags, and the
        flag `measured`.
    """
    present = torch.isfinite(flux) & torch.isfinite(error) & (error > 0)
    flux = torch.where(present, flux.float(), 1.0)
    error = torch.where(present, error.float(), 1.0)
    softening, centre = (flux.new_tensor(t) for t in (_SOFTENING, _MAGNITUDE_CENTRE))
    magnitude = 22.5 - 2.5 / math.log(10) * (torch.asinh(flux / (2 * softening)) + softening.log())
    colour = magnitude[:, :-1] - magnitude[:, 1:]
    colour = (colour - flux.new_tensor(_COLOUR_CENTRE)) / flux.new_tensor(_COLOUR_SCALE)
    both = present[:, :-1] & present[:, 1:]
    low, high = _LOG_SNR_RANGE
    snr = torch.log10((flux / error).clamp(10**low, 10**high)) - _LOG_SNR_CENTRE
    if measured is None:
        measured = torch.zeros(len(flux), dtype=torch.bool, device=flux.device)
    columns = [
        torch.where(present, (magnitude - centre) / MAGNITUDE_SCALE, 0.0),
        torch.where(both, colour, 0.0),
        torch.where(present, snr, 0.0),
        present.float(),
        (measured.bool() & present.any(-1)).float()[:, None],
    ]
    return torch.cat(columns, -1)


def morphology_features(
    flux: Tensor, petro_flux: Tensor, r50: Tensor, r90: Tensor, axis_ratio: Tensor
) -> Tensor:
    """Convert the morphology to the morphological features of the networks.

    Parameters
    ----------
    flux, petro_flux : Tensor, shape (n, 5)
        Model and Petrosian flux [nmgy], both dereddened or both not; NaN where missing. Fluxes that
        are not positive are missing.
    r50, r90, axis_ratio : Tensor, shape (n,)
        Radii that enclose 50% and 90% of the light in r [arcsec], and minor over major axis; NaN
        where missing.

    Returns
    -------
    features : Tensor, shape (n, 16), float32
        Columns `MORPHOLOGY_FEATURES`: Petrosian minus model magnitude in five bands, clipped to
        [-1, 2], divided by 0.15; (log10(r50) - 0.5) / 0.3; (r90/r50 - 2.5) / 0.5; (axis ratio -
        0.6) / 0.2; 0 where missing; eight presence flags.
    """
    positive = (flux > 0) & (petro_flux > 0) & torch.isfinite(flux) & torch.isfinite(petro_flux)
    ratio = torch.where(positive, petro_flux, 1.0) / torch.where(positive, flux, 1.0)
    sized, ringed = (torch.isfinite(a) & (a > 0) for a in (r50, r90))
    radius = torch.where(sized, r50, 1.0)
    log_radius = torch.log10(radius).clamp(*_LOG_RADIUS_RANGE)
    concentration = (torch.where(ringed, r90, 1.0) / radius).clamp(*_CONCENTRATION_RANGE)
    shape = torch.stack(
        [
            (log_radius - _LOG_RADIUS_CENTRE) / _LOG_RADIUS_SCALE,
            (concentration - _CONCENTRATION_CENTRE) / _CONCENTRATION_SCALE,
            (torch.nan_to_num(axis_ratio).clamp(0, 1) - _AXIS_RATIO_CENTRE) / _AXIS_RATIO_SCALE,
        ],
        -1,
    )
    petrosian = (-2.5 * torch.log10(ratio)).clamp(*_PETROSIAN_RANGE) / _PETROSIAN_SCALE
    values = torch.cat([petrosian, shape], -1)
    present = torch.cat(
        [positive, torch.stack([sized, sized & ringed, torch.isfinite(axis_ratio)], -1)], -1
    )
    return torch.cat([torch.where(present, values, 0.0), present], -1).float()
