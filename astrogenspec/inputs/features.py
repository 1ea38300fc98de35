r"""Observed batches to network inputs: asinh scaling by the noise, inverse variances, photometric features.

A pixel of dereddened flux :math:`f` enters as :math:`\mathrm{asinh}(f / \sigma_b)`, linear in the sky and logarithmic in the
galaxy, with one fixed :math:`\sigma_b` for each band (`PIXEL_SIGMA`). Its inverse variance in that space is

.. math:: w = \frac{f^2 + \sigma_b^2}{1 / \mathrm{ivar} + (0.05 f)^2} ,

where the five per cent is what a decoder cannot be asked to explain. Bad pixels and missing bands have :math:`w = 0`.

Total fluxes become asinh magnitudes [1]_, adjacent colours, signal-to-noise ratios and flags. All constants of this
module belong to the format which trained weights expect; they are fixed here and do not follow the description of a survey.

References
----------
.. [1] Lupton, Gunn & Szalay 1999, AJ 118, 1406
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..nn.records import TensorRecord
from ..surveys import BANDS, SDSS

if TYPE_CHECKING:
    from .cutouts import CutoutBatch
    from .photometry import PhotometryBatch

__all__ = [
    "MAGNITUDE_SCALE",
    "N_MORPHOLOGY_FEATURES",
    "N_PHOTOMETRY_FEATURES",
    "PIXEL_SIGMA",
    "SHAPE_FEATURES",
    "ModelInputs",
    "image_features",
    "make_inputs",
    "morphology_features",
    "photometry_features",
    "to_flux",
]

#: Reference noise of a pixel in u, g, r, i, z [nmgy].
PIXEL_SIGMA = (0.047, 0.017, 0.029, 0.045, 0.18)
#: Length of the photometric feature vector.
N_PHOTOMETRY_FEATURES = 20
#: Length of the vector of sizes and shapes.
N_MORPHOLOGY_FEATURES = 16
#: Those of radii and axis ratio, the flags of presence last.
SHAPE_FEATURES = (5, 6, 7, 13, 14, 15)
_N_BANDS = 5
_MODEL_FLOOR = 0.05
_SOFTENING = tuple(SDSS.asinh_softening[band] for band in BANDS)
_MAGNITUDE_CENTRE = (19.3, 17.9, 17.3, 17.0, 16.8)
#: Magnitudes in a unit of the features.
MAGNITUDE_SCALE = 1.5
_COLOUR_CENTRE = (1.45, 0.75, 0.35, 0.25)
_COLOUR_SCALE = (0.5, 0.3, 0.15, 0.15)
_LOG_SNR_RANGE = (-1.0, 3.0)
_LOG_SNR_CENTRE = 1.5
#: Range of Petrosian minus model magnitude, and of log10 of the half-light radius [arcsec],
#: and of the concentration r90/r50.
_PETROSIAN_RANGE = (-1.0, 2.0)
_LOG_RADIUS_RANGE = (-1.0, 2.0)
_CONCENTRATION_RANGE = (1.0, 6.0)
_LOG_RADIUS_CENTRE, _CONCENTRATION_CENTRE, _AXIS_RATIO_CENTRE = 0.5, 2.5, 0.6
_PETROSIAN_SCALE, _LOG_RADIUS_SCALE, _CONCENTRATION_SCALE, _AXIS_RATIO_SCALE = 0.15, 0.3, 0.5, 0.2
#: The noise of a band is the median over every fourth pixel in each direction.
_NOISE_STRIDE = 4


@dataclass(frozen=True)
class ModelInputs(TensorRecord):
    """What the networks see of a batch of galaxies.

    Attributes
    ----------
    image : Tensor, shape (n, 5, ny, nx), or None
        asinh of dereddened flux over `PIXEL_SIGMA`; 0 where bad. None if no galaxy of the batch has an image.
    image_weight : Tensor, shape (n, 5, ny, nx), or None
        Inverse variance of `image`, with a five per cent model floor; 0 where bad.
    image_bands : Tensor, shape (n, 5)
        1 where the image has the band, else 0.
    image_noise : Tensor, shape (n, 5)
        log10 of the median pixel noise over `PIXEL_SIGMA`; 0 where the band is missing.
    photometry : Tensor, shape (n, 20)
        See `photometry_features`.
    morphology : Tensor, shape (n, 16), or None
        See `morphology_features`. None, the same as zeros, if sizes and shapes were given for no galaxy of the batch.
    """

    image: Tensor | None
    image_weight: Tensor | None
    image_bands: Tensor
    image_noise: Tensor
    photometry: Tensor
    morphology: Tensor | None = None

    @property
    def has_image(self) -> Tensor:
        """Which galaxies have at least one band of image, shape (n,), bool."""
        return self.image_bands.any(-1)

    @property
    def has_photometry(self) -> Tensor:
        """Which galaxies have at least one band of photometry, shape (n,), bool."""
        return self.photometry_bands.any(-1)

    @property
    def photometry_bands(self) -> Tensor:
        """Which bands of the photometry exist, shape (n, 5), bool."""
        return self.photometry[:, 14:19] > 0

    @property
    def measured(self) -> Tensor:
        """Whose photometry was measured on the image, shape (n,), bool."""
        return self.photometry[:, 19] > 0

    def without_images(self) -> ModelInputs:
        """Hide the images; photometry that was measured on them stays."""
        empty = torch.zeros_like(self.image_bands)
        return replace(self, image=None, image_weight=None, image_bands=empty, image_noise=empty)


def make_inputs(
    cutouts: CutoutBatch | None = None,
    photometry: PhotometryBatch | None = None,
    *,
    extinction: np.ndarray | None = None,
) -> ModelInputs:
    """Turn observed batches into network inputs, correcting for Galactic dust.

    Parameters
    ----------
    cutouts : CutoutBatch, optional
        Images as observed.
    photometry : PhotometryBatch, optional
        Total fluxes as observed, for the same galaxies in the same order.
    extinction : ndarray, shape (n, 5), optional
        Galactic extinction in each band [mag], applied to the images. By default that of `photometry`, else none.

    Returns
    -------
    inputs : ModelInputs

    Raises
    ------
    ValueError
        If both are missing, or their lengths differ.
    """
    if cutouts is None and photometry is None:
        raise ValueError("neither cutouts nor photometry were given: pass at least one of them.")
    n = len(photometry) if cutouts is None else len(cutouts)
    if photometry is not None and len(photometry) != n:
        raise ValueError(
            f"there are {n} cutouts but photometry of {len(photometry)} galaxies; give one row each."
        )
    image = weight = None
    bands = noise = torch.zeros(n, _N_BANDS)
    features, morphology = torch.zeros(n, N_PHOTOMETRY_FEATURES), None
    if cutouts is not None:
        if extinction is None:
            extinction = np.zeros((n, _N_BANDS)) if photometry is None else photometry.extinction
        factor = 10 ** (0.4 * np.asarray(extinction, dtype=np.float32))[:, :, None, None]
        ivar = np.where(np.isfinite(cutouts.flux), cutouts.ivar, 0) / factor**2
        image, weight, bands, noise = image_features(
            torch.as_tensor(cutouts.flux * factor), torch.as_tensor(ivar)
        )
    if photometry is not None:
        flux, error = photometry.dereddened()
        features = photometry_features(
            *(torch.as_tensor(np.asarray(a)) for a in (flux, error, photometry.measured))
        )
        if photometry.morphology is not None:
            # What is measured on a stamp is no model flux; Petrosian fluxes are not compared to it.
            model = np.where(photometry.measured[:, None], np.nan, photometry.flux)
            sizes = photometry.morphology
            morphology = morphology_features(
                *(
                    torch.as_tensor(np.asarray(a))
                    for a in (model, sizes.petro_flux, sizes.r50, sizes.r90, sizes.axis_ratio)
                )
            )
    return ModelInputs(image, weight, bands, noise, features, morphology)


def image_features(flux: Tensor, ivar: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scale dereddened images for the networks.

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
    """Turn dereddened total fluxes into the feature vector of the networks.

    Parameters
    ----------
    flux, error : Tensor, shape (n, 5)
        Dereddened flux and its standard error [nmgy]; NaN where missing.
    measured : Tensor, shape (n,), optional
        True where the fluxes were measured on the cutout, False (the default) where they come from a catalogue.

    Returns
    -------
    features : Tensor, shape (n, 20), float32
        Five asinh magnitudes, four adjacent colours, five log10 signal-to-noise ratios (all standardised, 0 where missing),
        five flags of presence, one flag `measured`.
    """
    present = torch.isfinite(flux) & torch.isfinite(error) & (error > 0)
    flux = torch.where(present, flux, 1.0).float()
    error = torch.where(present, error, 1.0).float()
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
    """Turn sizes and shapes into the feature vector of the networks.

    Parameters
    ----------
    flux, petro_flux : Tensor, shape (n, 5)
        Model and Petrosian flux [nmgy], both dereddened or both not; NaN where missing. A flux that is not positive has
        no magnitude and counts as missing.
    r50, r90, axis_ratio : Tensor, shape (n,)
        Radii with half and with 90% of the light in r [arcsec], and minor over major axis; NaN where missing.

    Returns
    -------
    features : Tensor, shape (n, 16), float32
        Petrosian minus model magnitude in five bands, between -1 and 2, over 0.15; log10 of r50, less 0.5, over 0.3; r90/r50,
        less 2.5, over 0.5; axis ratio, less 0.6, over 0.2 (0 where missing); eight flags of presence.
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
