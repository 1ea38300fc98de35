r"""Data augmentation: noise, orientation, missing bands and missing inputs of simulated galaxies.

Simulations are stored without noise.  Observational effects and missing inputs are drawn anew for
every batch, from an explicit generator, on the device of the tensors.

A noisy image has in each pixel the variance of sky and photon noise,
:math:`\sigma^2 = \sigma_\mathrm{sky}^2 + f / g`, with the noise-free flux :math:`f` and :math:`g`
electrons per unit of flux; the noise is assumed to be Gaussian and independent between pixels.  A
constant error of the sky subtraction is added to each band.

Catalogue fluxes are Gaussian around the true flux, with the stated error, an intrinsic scatter in
each band, and a fraction of outliers, whose error is underestimated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

import torch
from torch import Tensor

from ..inputs.features import (
    PIXEL_SIGMA,
    ModelInputs,
    image_features,
    morphology_features,
    photometry_features,
)
from ..nn.noise import integers, normal, uniform
from ..surveys import BANDS

__all__ = [
    "MORPHOLOGY_COLUMNS",
    "AugmentationConfig",
    "InputMode",
    "MorphologyAugmentation",
    "add_background",
    "add_noise",
    "augment",
    "augment_photometry",
    "draw_band_subsets",
    "draw_modes",
    "draw_sky_sigma",
    "observe_morphology",
    "orient_randomly",
    "redraw_flux",
    "shift_randomly",
]

#: True morphology of simulated galaxies; see `astrogenspec.simulate.apertures.PetrosianMeasures`.
MORPHOLOGY_COLUMNS = ("r50", "r90", "axis_ratio")
_MIN_AXIS_RATIO = 0.05
_N_BANDS = len(BANDS)
#: Magnitudes per unit of natural logarithm.
_MAGNITUDE = 1.0857
#: Electrons per nanomaggy: gain over calibration of the SDSS camera (camera column 3).
_ELECTRONS_PER_NMGY = (171.0, 1012.0, 908.0, 725.0, 144.0)
#: Number of galaxies observed at once on a CPU; their images stay in the cache, which doubles the
#: speed.
_CHUNK = 16


class InputMode(IntEnum):
    """Inputs of a galaxy with an image."""

    #: Image and catalogue photometry.
    IMAGE_AND_CATALOGUE = 0
    #: Photometry only.
    PHOTOMETRY = 1
    #: Image only.
    IMAGE = 2
    #: Image, and photometry measured on it.
    IMAGE_AND_MEASURED = 3


@dataclass(frozen=True)
class MorphologyAugmentation:
    """Errors and missing values of radii and axis ratios.

    Attributes
    ----------
    shown : float
        Fraction of galaxies with morphology.
    kept : float
        Fraction of these with r50, with r90, and with an axis ratio, each drawn independently.
    radius_scatter, concentration_scatter : float
        Standard deviation of the errors of r50, and of r90 over r50 [dex].
    axis_ratio_scatter : float
        Standard deviation of the error of the axis ratio.
    other_pipeline : float
        Fraction of galaxies whose radii come from another pipeline, with larger apertures.
    largest_radius, largest_concentration : float
        Maximum excess of r50, and of r90 over r50, in the other pipeline [dex].  The values
        of the ECO and RESOLVE surveys exceed Petrosian values of simulated galaxies of the same
        mass by 0.16 and 0.06 dex.
    """

    shown: float = 0.5
    kept: float = 0.7
    radius_scatter: float = 0.03
    concentration_scatter: float = 0.02
    axis_ratio_scatter: float = 0.05
    other_pipeline: float = 0.3
    largest_radius: float = 0.25
    largest_concentration: float = 0.1


def observe_morphology(
    true: Mapping[str, Tensor],
    config: MorphologyAugmentation | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Make morphology features with errors and missing values.

    Parameters
    ----------
    true : mapping of str to Tensor, shape (n,)
        True values of the `MORPHOLOGY_COLUMNS`: radii [arcsec] and axis ratio.
    config : MorphologyAugmentation, optional
        Errors and missing values.
    generator : `torch.Generator`, optional
        Source of randomness.

    Returns
    -------
    features : Tensor, shape (n, 16)
        See `astrogenspec.inputs.features.morphology_features`; zero where missing.
    """
    config = config or MorphologyAugmentation()
    n, device = len(true["r50"]), true["r50"].device
    deviates = normal((n, 3), generator, device)
    chances = uniform((n, 7), generator, device)
    kept = (chances[:, :1] < config.shown) & (chances[:, 1:4] < config.kept)
    other = chances[:, 4] < config.other_pipeline
    larger = torch.where(other, config.largest_radius * chances[:, 5], 0.0)
    rounder = torch.where(other, config.largest_concentration * chances[:, 6], 0.0)
    log_r50 = true["r50"].log10() + larger + config.radius_scatter * deviates[:, 0]
    concentration = (true["r90"] / true["r50"]).log10() + rounder
    log_r90 = log_r50 + concentration + config.concentration_scatter * deviates[:, 1]
    axis_ratio = true["axis_ratio"] + config.axis_ratio_scatter * deviates[:, 2]
    observed = (10**log_r50, 10**log_r90, axis_ratio.clamp(_MIN_AXIS_RATIO, 1.0))
    no_flux = true["r50"].new_full((n, _N_BANDS), torch.nan)
    columns = (torch.where(kept[:, k], value, torch.nan) for k, value in enumerate(observed))
    return morphology_features(no_flux, no_flux, *columns)


@dataclass(frozen=True)
class AugmentationConfig:
    """Noise and missing inputs of a training sample.

    Attributes
    ----------
    mode_weights : tuple of float
        Relative frequency of each `InputMode` of galaxies with images.
    full_bands, gri_bands : float
        Fraction of galaxies with all five bands, and with g, r, i; the rest have a random subset.
    same_bands : float
        Fraction of galaxies whose photometry has the bands of the image; for the rest the bands are
        drawn independently.
    whole_catalogue : bool
        If True, the catalogue has all bands whatever the image has.
    sigma_scatter : float
        Log-normal scatter of the sky noise around its nominal value (natural logarithm).
    deep_fraction, shallow_fraction : float
        Fraction of galaxies with half the noise, and with twice the noise.
    background : float
        Standard deviation of the sky-subtraction error of the median galaxy, in units of the noise
        of a pixel.
    background_spread : float
        Log-normal scatter of this standard deviation from galaxy to galaxy (natural logarithm);
        chosen by hand for rare but large errors near the haloes of neighbours.
    max_shift : int
        Maximum shift of the centre [pixel].
    photometry_error_scale : tuple of float
        Range of the factor by which the errors of catalogue photometry are multiplied.
    photometry_scatter : tuple of float
        Intrinsic scatter of each band in addition to the catalogue error, relative to r [mag];
        fitted to observed SDSS colours.
    outlier_fraction, outlier_factor : float
        Fraction of single-band fluxes whose error is underestimated, and the factor.
    structure : MorphologyAugmentation
        Errors and missing values of the morphology of galaxies without image.
    """

    mode_weights: tuple[float, float, float, float] = (0.45, 0.25, 0.15, 0.15)
    full_bands: float = 0.5
    gri_bands: float = 0.2
    same_bands: float = 0.8
    whole_catalogue: bool = False
    sigma_scatter: float = 0.2
    deep_fraction: float = 0.1
    shallow_fraction: float = 0.1
    background: float = 0.03
    background_spread: float = 1.0
    max_shift: int = 1
    photometry_error_scale: tuple[float, float] = (0.8, 1.3)
    photometry_scatter: tuple[float, float, float, float, float] = (0.024, 0.015, 0.0, 0.012, 0.0)
    outlier_fraction: float = 0.03
    outlier_factor: float = 3.0
    structure: MorphologyAugmentation = field(default_factory=MorphologyAugmentation)


def orient_randomly(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Apply a random symmetry of the square, of eight, to each galaxy.

    Parameters
    ----------
    images : Tensor, shape (n, bands, m, m)
        Square images.
    generator : `torch.Generator`, optional
        Source of randomness.

    Returns
    -------
    images : Tensor, shape (n, bands, m, m)
    """
    symmetry = integers(8, len(images), generator, images.device)
    oriented = torch.empty_like(images)
    for k in range(8):
        rows = (symmetry == k).nonzero()[:, 0]
        rotated = torch.rot90(images[rows], k % 4, (-2, -1))
        oriented[rows] = rotated.flip(-1) if k >= 4 else rotated
    return oriented


def shift_randomly(
    images: Tensor, max_shift: int, generator: torch.Generator | None = None
) -> Tensor:
    """Shift each galaxy by a random whole number of pixels, repeating the edge.

    Parameters
    ----------
    images : Tensor, shape (n, bands, ny, nx)
        Images.
    max_shift : int
        Maximum shift along each axis [pixel].
    generator : `torch.Generator`, optional
        Source of randomness.

    Returns
    -------
    images : Tensor, shape (n, bands, ny, nx)
    """
    if max_shift == 0:
        return images
    n, _, ny, nx = images.shape
    shift = integers(2 * max_shift + 1, 2 * n, generator, images.device).view(n, 2) - max_shift
    shifted = torch.empty_like(images)
    y, x = (torch.arange(size, device=images.device) for size in (ny, nx))
    for dy in range(-max_shift, max_shift + 1):
        for dx in range(-max_shift, max_shift + 1):
            rows = ((shift[:, 0] == dy) & (shift[:, 1] == dx)).nonzero()[:, 0]
            moved = images[rows].index_select(2, (y - dy).clamp(0, ny - 1))
            shifted[rows] = moved.index_select(3, (x - dx).clamp(0, nx - 1))
    return shifted


def draw_sky_sigma(
    n: int,
    config: AugmentationConfig,
    generator: torch.Generator | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """Draw the sky noise of each galaxy and band.

    Parameters
    ----------
    n : int
        Number of galaxies.
    config : AugmentationConfig
        Scatter of the noise, and fractions of deeper and shallower images.
    generator : `torch.Generator`, optional
        Source of randomness.
    device : `torch.device`, optional
        Device of the result.

    Returns
    -------
    sigma : Tensor, shape (n, 5)
        Standard deviation of a pixel [nmgy].
    """
    nominal = torch.tensor(PIXEL_SIGMA, device=device, dtype=torch.float32)
    scatter = torch.exp(config.sigma_scatter * normal((n, _N_BANDS), generator, device))
    u = uniform((n, 1), generator, device)
    depth = torch.ones_like(u)
    depth[u < config.deep_fraction] = 0.5
    depth[u > 1 - config.shallow_fraction] = 2.0
    return nominal * scatter * depth


def add_noise(
    flux: Tensor, sky_sigma: Tensor, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Add sky and photon noise.

    Parameters
    ----------
    flux : Tensor, shape (n, 5, ny, nx)
        Noise-free image [nmgy per pixel].
    sky_sigma : Tensor, shape (n, 5)
        Noise of a pixel of empty sky [nmgy].
    generator : `torch.Generator`, optional
        Source of randomness.

    Returns
    -------
    flux : Tensor, shape (n, 5, ny, nx)
        Noisy image [nmgy per pixel].
    ivar : Tensor, shape (n, 5, ny, nx)
        Inverse variance of sky and expected photon noise [nmgy**-2].
    """
    per_electron = 1 / flux.new_tensor(_ELECTRONS_PER_NMGY)[:, None, None]
    variance = sky_sigma.square()[:, :, None, None] + flux.clamp_min(0) * per_electron
    noise = normal(flux.shape, generator, flux.device)
    return torch.addcmul(flux, noise, variance.sqrt()), variance.reciprocal()


def add_background(
    flux: Tensor,
    sky_sigma: Tensor,
    amplitude: float | Tensor,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Add a constant sky-subtraction error to each band.

    Parameters
    ----------
    flux : Tensor, shape (n, 5, ny, nx)
        Images [nmgy per pixel].
    sky_sigma : Tensor, shape (n, 5)
        Noise of a pixel of empty sky [nmgy].
    amplitude : float or Tensor, shape (n, 1)
        Standard deviation of the constant, in units of `sky_sigma`.
    generator : `torch.Generator`, optional
        Source of randomness.

    Returns
    -------
    flux : Tensor, shape (n, 5, ny, nx)
        Images [nmgy per pixel].
    """
    offset = amplitude * sky_sigma * normal(sky_sigma.shape, generator, flux.device)
    return flux + offset[:, :, None, None]


def draw_band_subsets(
    n: int,
    config: AugmentationConfig,
    generator: torch.Generator | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """Draw the existing bands: all five, g, r and i, or a random non-empty subset.

    Parameters
    ----------
    n : int
        Number of galaxies.
    config : AugmentationConfig
        Fractions of the three cases.
    generator : `torch.Generator`, optional
        Source of randomness.
    device : `torch.device`, optional
        Device of the result.

    Returns
    -------
    bands : Tensor of bool, shape (n, 5)
    """
    u = uniform((n,), generator, device)
    bands = uniform((n, _N_BANDS), generator, device) < 0.5
    one = torch.nn.functional.one_hot(integers(_N_BANDS, n, generator, device), _N_BANDS).bool()
    bands = torch.where(bands.any(-1, keepdim=True), bands, one)
    bands[u < config.full_bands] = True
    gri = torch.tensor([band in "gri" for band in BANDS], device=device)
    bands[(u >= config.full_bands) & (u < config.full_bands + config.gri_bands)] = gri
    return bands


def draw_modes(
    n: int,
    config: AugmentationConfig,
    generator: torch.Generator | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """Draw the input mode of each galaxy.

    Parameters
    ----------
    n : int
        Number of galaxies.
    config : AugmentationConfig
        Frequencies of the modes.
    generator : `torch.Generator`, optional
        Source of randomness.
    device : `torch.device`, optional
        Device of the result.

    Returns
    -------
    mode : Tensor of int64, shape (n,)
        Values of `InputMode`.
    """
    weights = torch.tensor(config.mode_weights, device=device, dtype=torch.float32)
    edges = torch.cumsum(weights / weights.sum(), 0)[:-1]
    return torch.bucketize(uniform((n,), generator, device), edges, right=True)


def redraw_flux(
    true_flux: Tensor,
    error: Tensor,
    config: AugmentationConfig,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw observed total fluxes, with scatter and outliers that the stated errors do not include.

    Parameters
    ----------
    true_flux, error : Tensor, shape (n, 5)
        True flux and standard error [nmgy].
    config : AugmentationConfig
        Scatter, outliers and range of the errors.
    generator : `torch.Generator`, optional
        Source of randomness.

    Returns
    -------
    flux, error : Tensor, shape (n, 5)
        Observed flux and stated error [nmgy]; the errors of a galaxy are multiplied by one
        log-uniform factor.
    """
    low, high = (
        torch.tensor(value, dtype=torch.float32).log() for value in config.photometry_error_scale
    )
    factor = torch.exp(low + (high - low) * uniform((len(error), 1), generator, error.device))
    error = error * factor
    scatter = true_flux * error.new_tensor(config.photometry_scatter) / _MAGNITUDE
    outlier = uniform(error.shape, generator, error.device) < config.outlier_fraction
    sigma = torch.hypot(error, scatter) * torch.where(
        outlier, config.outlier_factor, torch.ones_like(error)
    )
    return true_flux + sigma * normal(error.shape, generator, error.device), error


def augment_photometry(
    true_flux: Tensor,
    error: Tensor,
    config: AugmentationConfig | None = None,
    generator: torch.Generator | None = None,
    *,
    morphology: Mapping[str, Tensor] | None = None,
) -> ModelInputs:
    """Make network inputs of galaxies with photometry only.

    Parameters
    ----------
    true_flux, error : Tensor, shape (n, 5)
        True total flux and standard error of its observation, both dereddened [nmgy].
    config : AugmentationConfig, optional
        Noise and missing inputs.
    generator : `torch.Generator`, optional
        Source of randomness.
    morphology : mapping of str to Tensor, optional
        True morphology; see `observe_morphology`.

    Returns
    -------
    inputs : ModelInputs
        Without images.
    """
    config = config or AugmentationConfig()
    n, device = len(true_flux), true_flux.device
    flux, error = redraw_flux(true_flux, error, config, generator)
    bands = draw_band_subsets(n, config, generator, device)
    features = photometry_features(torch.where(bands, flux, torch.nan), error)
    empty = torch.zeros(n, _N_BANDS, device=device, dtype=torch.float32)
    shape = None
    if morphology is not None:
        shape = observe_morphology(morphology, config.structure, generator)
    return ModelInputs(None, None, empty, empty, features, shape)


def augment(
    images: Tensor,
    true_flux: Tensor,
    error: Tensor,
    *,
    measured_flux: Tensor | None = None,
    measured_error: Tensor | None = None,
    morphology: Mapping[str, Tensor] | None = None,
    config: AugmentationConfig | None = None,
    generator: torch.Generator | None = None,
) -> ModelInputs:
    """Make network inputs of galaxies with images.

    Parameters
    ----------
    images : Tensor, shape (n, 5, 64, 64)
        Noise-free images, float16 or float32 [nmgy per pixel].
    true_flux, error : Tensor, shape (n, 5)
        True total flux and its catalogue error [nmgy].
    measured_flux, measured_error : Tensor, shape (n, 5), optional
        Flux and error measured on one noisy realisation of the image [nmgy].  Without them, no
        galaxy has photometry measured on its image.
    morphology : mapping of str to Tensor, optional
        True morphology; see `observe_morphology`.  Networks use it for galaxies without image
        only.
    config : AugmentationConfig, optional
        Noise and missing inputs.
    generator : `torch.Generator`, optional
        Source of randomness.

    Returns
    -------
    inputs : ModelInputs
        The image tensors of galaxies without image are zero.
    """
    config = config or AugmentationConfig()
    n, device = len(images), images.device
    mode = draw_modes(n, config, generator, device)
    image_bands = draw_band_subsets(n, config, generator, device)
    other_bands = draw_band_subsets(n, config, generator, device) | config.whole_catalogue
    has_image, on_image = mode != InputMode.PHOTOMETRY, mode == InputMode.IMAGE_AND_MEASURED
    same = (uniform((n, 1), generator, device) < config.same_bands) | on_image[:, None]
    photometry_bands = torch.where(same, image_bands, other_bands)
    photometry_bands &= (mode != InputMode.IMAGE)[:, None]
    image_bands = image_bands & has_image[:, None]

    flux, error = redraw_flux(true_flux, error, config, generator)
    if measured_flux is not None and measured_error is not None:
        flux = torch.where(on_image[:, None], measured_flux, flux)
        error = torch.where(on_image[:, None], measured_error, error)
    else:
        on_image = torch.zeros_like(on_image)
    features = photometry_features(torch.where(photometry_bands, flux, torch.nan), error, on_image)

    image_shape = (n, _N_BANDS, *images.shape[2:])
    outputs = (
        torch.zeros(image_shape, device=device, dtype=torch.float32),
        torch.zeros(image_shape, device=device, dtype=torch.float32),
        torch.zeros(n, _N_BANDS, device=device, dtype=torch.float32),
        torch.zeros(n, _N_BANDS, device=device, dtype=torch.float32),
    )
    for rows in has_image.nonzero()[:, 0].split(_CHUNK if device.type == "cpu" else n):
        observed = _observe(images[rows], image_bands[rows], config, generator)
        for output, value in zip(outputs, observed, strict=True):
            output[rows] = value
    shape = None
    if morphology is not None:
        shape = observe_morphology(morphology, config.structure, generator)
    return ModelInputs(*outputs, features, shape)


def _observe(
    images: Tensor, bands: Tensor, config: AugmentationConfig, generator: torch.Generator | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Orient and shift images, add noise and background, remove bands, and scale the fluxes."""
    flux = shift_randomly(orient_randomly(images, generator), config.max_shift, generator).float()
    sky_sigma = draw_sky_sigma(len(flux), config, generator, flux.device)
    flux, ivar = add_noise(flux, sky_sigma, generator)
    spread = torch.exp(config.background_spread * normal((len(flux), 1), generator, flux.device))
    flux = add_background(flux, sky_sigma, config.background * spread, generator)
    return image_features(flux, ivar * bands[:, :, None, None])
