"""Simulated galaxies to training inputs: noise, orientation, missing bands and missing modes, new at each epoch.

Simulations are stored without noise. Everything a survey adds, and everything a user may lack, is drawn here on the fly, from an
explicit generator, on whatever device the tensors are on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

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

__all__ = [
    "MORPHOLOGY_COLUMNS",
    "AugmentationConfig",
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

#: What simulations say of the morphology of a galaxy, see `astrogenspec.simulate.apertures.PetrosianMeasures`.
MORPHOLOGY_COLUMNS = ("r50", "r90", "axis_ratio")
_LOWEST_AXIS_RATIO = 0.05


@dataclass(frozen=True)
class MorphologyAugmentation:
    """How sizes and shapes are drawn.

    Attributes
    ----------
    shown : float
        Fraction of galaxies that have any.
    kept : float
        Fraction of these that have r50, r90, or an axis ratio, each by chance of its own.
    radius_scatter, concentration_scatter : float
        Errors of r50 and of r90 over r50 [dex].
    axis_ratio_scatter : float
        Error of the axis ratio.
    other_pipeline : float
        Fraction of galaxies whose radii are those of another pipeline, with larger apertures.
    largest_radius, largest_concentration : float
        Most by which its r50, and its r90 over r50, are larger [dex]: those of the ECO and RESOLVE surveys are larger by 0.16 and
        0.06 dex than Petrosian ones of simulated galaxies of the same mass.
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
    """Draw sizes and shapes of galaxies of which these are known without error.

    Parameters
    ----------
    true : mapping of str to Tensor, shape (n,)
        The `MORPHOLOGY_COLUMNS`: radii [arcsec] and axis ratio.
    config : MorphologyAugmentation, optional
    generator : `torch.Generator`, optional

    Returns
    -------
    features : Tensor, shape (n, 16)
        See `astrogenspec.inputs.features.morphology_features`; zero of galaxies that have none.
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
    sizes = (10**log_r50, 10**log_r90, axis_ratio.clamp(_LOWEST_AXIS_RATIO, 1.0))
    no_flux = true["r50"].new_full((n, 5), torch.nan)
    shapes = (torch.where(kept[:, k], size, torch.nan) for k, size in enumerate(sizes))
    return morphology_features(no_flux, no_flux, *shapes)


_N_BANDS = 5
#: Magnitudes per unit of natural logarithm.
_MAGNITUDE = 1.0857
#: Electrons per nanomaggy: gain over calibration of the SDSS camera (camera column 3).
_ELECTRONS_PER_NMGY = (171.0, 1012.0, 908.0, 725.0, 144.0)
#: Galaxies observed at a time on a CPU: their images stay in the cache, which doubles the speed.
_PIECE = 16


@dataclass(frozen=True)
class AugmentationConfig:
    """How training inputs are drawn.

    Attributes
    ----------
    mode_weights : tuple of float
        Relative frequency of: image and catalogue photometry; photometry only; image only; image and photometry measured on it.
    full_bands, gri_bands : float
        Fraction of galaxies with all five bands, and with g, r, i; the others have a random subset.
    same_bands : float
        Fraction of galaxies whose photometry has the same bands as the image; else it is drawn anew.
    sigma_scatter : float
        Log-normal scatter of the sky noise around its nominal value (natural logarithm).
    deep_fraction, shallow_fraction : float
        Fraction of galaxies with half and with twice the noise.
    background, background_spread : float
        Standard deviation of the sky-subtraction error, in units of the noise of a pixel, of the median galaxy, and its
        log-normal scatter from galaxy to galaxy (natural logarithm), chosen by hand: haloes of neighbours are rare, but
        large.
    max_shift : int
        Largest shift of the centre [pixel].
    photometry_error_scale : tuple of float
        Range of the factor by which the errors of catalogue photometry are changed.
    photometry_scatter : tuple of float
        Scatter of each band beyond the catalogue error, relative to r [mag]; fitted to real SDSS colours.
    outlier_fraction, outlier_factor : float
        Fraction of single-band fluxes whose true error is larger than stated, and by how much.
    structure : MorphologyAugmentation
        Sizes and shapes of galaxies without image.
    """

    mode_weights: tuple[float, float, float, float] = (0.45, 0.25, 0.15, 0.15)
    full_bands: float = 0.5
    gri_bands: float = 0.2
    same_bands: float = 0.8
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
    """Flip and turn each galaxy by one of the eight symmetries of the square.

    Parameters
    ----------
    images : Tensor, shape (n, bands, m, m)
    generator : `torch.Generator`, optional

    Returns
    -------
    images : Tensor, shape (n, bands, m, m)
    """
    kind = integers(8, len(images), generator, images.device)
    oriented = torch.empty_like(images)
    for k in range(8):
        rows = (kind == k).nonzero()[:, 0]
        turned = torch.rot90(images[rows], k % 4, (-2, -1))
        oriented[rows] = turned.flip(-1) if k >= 4 else turned
    return oriented


def shift_randomly(
    images: Tensor, max_shift: int, generator: torch.Generator | None = None
) -> Tensor:
    """Move each galaxy by whole pixels, repeating the edge.

    Parameters
    ----------
    images : Tensor, shape (n, bands, ny, nx)
    max_shift : int
        Largest shift along each axis [pixel].
    generator : `torch.Generator`, optional

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
            piece = images[rows].index_select(2, (y - dy).clamp(0, ny - 1))
            shifted[rows] = piece.index_select(3, (x - dx).clamp(0, nx - 1))
    return shifted


def draw_sky_sigma(
    n: int,
    config: AugmentationConfig,
    generator: torch.Generator | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """Draw the noise of a sky pixel of each galaxy and band.

    Returns
    -------
    sigma : Tensor, shape (n, 5)
        [nmgy]; log-normal around the nominal value, some galaxies as a whole half or twice as noisy.
    """
    nominal = torch.tensor(PIXEL_SIGMA, device=device)
    scatter = torch.exp(config.sigma_scatter * normal((n, _N_BANDS), generator, device))
    kind = uniform((n, 1), generator, device)
    depth = torch.ones_like(kind)
    depth[kind < config.deep_fraction] = 0.5
    depth[kind > 1 - config.shallow_fraction] = 2.0
    return nominal * scatter * depth


def add_noise(
    flux: Tensor, sky_sigma: Tensor, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Add sky and shot noise.

    Parameters
    ----------
    flux : Tensor, shape (n, 5, ny, nx)
        Noise-free image [nmgy per pixel].
    sky_sigma : Tensor, shape (n, 5)
        Noise of a pixel of empty sky [nmgy].
    generator : `torch.Generator`, optional

    Returns
    -------
    flux : Tensor, shape (n, 5, ny, nx)
    ivar : Tensor, shape (n, 5, ny, nx)
        Inverse of sky variance plus expected photon noise.
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
    """Add a constant error of sky subtraction to each band.

    Parameters
    ----------
    flux : Tensor, shape (n, 5, ny, nx)
    sky_sigma : Tensor, shape (n, 5)
        Noise of a pixel of empty sky [nmgy].
    amplitude : float or Tensor, shape (n, 1)
        Standard deviation of the constant, in units of `sky_sigma`.
    generator : `torch.Generator`, optional

    Returns
    -------
    flux : Tensor, shape (n, 5, ny, nx)
    """
    offset = amplitude * sky_sigma * normal(sky_sigma.shape, generator, flux.device)
    return flux + offset[:, :, None, None]


def draw_band_subsets(
    n: int,
    config: AugmentationConfig,
    generator: torch.Generator | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """Draw which bands exist: all five, g r i, or a random subset that is not empty.

    Returns
    -------
    bands : Tensor of bool, shape (n, 5)
    """
    kind = uniform((n,), generator, device)
    bands = uniform((n, _N_BANDS), generator, device) < 0.5
    one = torch.nn.functional.one_hot(integers(_N_BANDS, n, generator, device), _N_BANDS).bool()
    bands = torch.where(bands.any(-1, keepdim=True), bands, one)
    bands[kind < config.full_bands] = True
    gri = torch.tensor([False, True, True, True, False], device=device)
    bands[(kind >= config.full_bands) & (kind < config.full_bands + config.gri_bands)] = gri
    return bands


def draw_modes(
    n: int,
    config: AugmentationConfig,
    generator: torch.Generator | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """Draw what each galaxy comes with.

    Returns
    -------
    mode : Tensor of int64, shape (n,)
        0 image and catalogue photometry, 1 photometry only, 2 image only, 3 image and photometry measured on it.
    """
    weights = torch.tensor(config.mode_weights, device=device)
    edges = torch.cumsum(weights / weights.sum(), 0)[:-1]
    return torch.bucketize(uniform((n,), generator, device), edges, right=True)


def redraw_flux(
    true_flux: Tensor,
    error: Tensor,
    config: AugmentationConfig,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Observe true total fluxes anew, with scatter and outliers that the stated errors do not know of.

    Parameters
    ----------
    true_flux, error : Tensor, shape (n, 5)
        True flux and standard error [nmgy].
    config : AugmentationConfig
    generator : `torch.Generator`, optional

    Returns
    -------
    flux, error : Tensor, shape (n, 5)
        The factor by which the errors are changed is log-uniform and one for each galaxy.
    """
    low, high = (torch.tensor(value).log() for value in config.photometry_error_scale)
    factor = torch.exp(low + (high - low) * uniform((len(error), 1), generator, error.device))
    error = error * factor
    scatter = true_flux * error.new_tensor(config.photometry_scatter) / _MAGNITUDE
    outlier = uniform(error.shape, generator, error.device) < config.outlier_fraction
    sigma = torch.hypot(error, scatter) * torch.where(outlier, config.outlier_factor, 1.0)
    return true_flux + sigma * normal(error.shape, generator, error.device), error


def augment_photometry(
    true_flux: Tensor,
    error: Tensor,
    config: AugmentationConfig | None = None,
    generator: torch.Generator | None = None,
    *,
    morphology: Mapping[str, Tensor] | None = None,
) -> ModelInputs:
    """Make inputs of galaxies that have photometry only.

    Parameters
    ----------
    true_flux, error : Tensor, shape (n, 5)
        True total flux and the standard error with which it is observed, both dereddened [nmgy].
    config : AugmentationConfig, optional
    generator : `torch.Generator`, optional
    morphology : mapping of str to Tensor, optional
        True sizes and shapes, see `~astrogenspec.training.augmentation.observe_morphology`.

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
    empty = torch.zeros(n, _N_BANDS, device=device)
    sizes = None
    if morphology is not None:
        sizes = observe_morphology(morphology, config.structure, generator)
    return ModelInputs(None, None, empty, empty, features, sizes)


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
    """Make inputs of galaxies that have images.

    Parameters
    ----------
    images : Tensor, shape (n, 5, 64, 64)
        Noise-free images, float16 or float32 [nmgy per pixel].
    true_flux, error : Tensor, shape (n, 5)
        True total flux and its error in a catalogue [nmgy].
    measured_flux, measured_error : Tensor, shape (n, 5), optional
        Flux and error measured on one noisy realisation of the image [nmgy]. Without them no galaxy is given
        photometry measured on its image.
    morphology : mapping of str to Tensor, optional
        True sizes and shapes, see `~astrogenspec.training.augmentation.observe_morphology`: networks see those of galaxies
        without image alone.
    config : AugmentationConfig, optional
    generator : `torch.Generator`, optional

    Returns
    -------
    inputs : ModelInputs
        Galaxies without image keep zeros in the image tensors.
    """
    config = config or AugmentationConfig()
    n, device = len(images), images.device
    mode = draw_modes(n, config, generator, device)
    image_bands = draw_band_subsets(n, config, generator, device)
    other_bands = draw_band_subsets(n, config, generator, device)
    same = (uniform((n, 1), generator, device) < config.same_bands) | (mode == 3)[:, None]
    photometry_bands = torch.where(same, image_bands, other_bands) & (mode != 2)[:, None]
    image_bands = image_bands & (mode != 1)[:, None]

    flux, error = redraw_flux(true_flux, error, config, generator)
    on_image = mode == 3
    if measured_flux is not None and measured_error is not None:
        flux = torch.where(on_image[:, None], measured_flux, flux)
        error = torch.where(on_image[:, None], measured_error, error)
    else:
        on_image = torch.zeros_like(on_image)
    features = photometry_features(torch.where(photometry_bands, flux, torch.nan), error, on_image)

    shape = (n, _N_BANDS, *images.shape[2:])
    outputs = (
        torch.zeros(shape, device=device),
        torch.zeros(shape, device=device),
        torch.zeros(n, _N_BANDS, device=device),
        torch.zeros(n, _N_BANDS, device=device),
    )
    for rows in (mode != 1).nonzero()[:, 0].split(_PIECE if device.type == "cpu" else n):
        observed = _observe(images[rows], image_bands[rows], config, generator)
        for output, value in zip(outputs, observed, strict=True):
            output[rows] = value
    sizes = None
    if morphology is not None:
        sizes = observe_morphology(morphology, config.structure, generator)
    return ModelInputs(*outputs, features, sizes)


def _observe(
    images: Tensor, bands: Tensor, config: AugmentationConfig, generator: torch.Generator | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Orient, shift, add noise and background, drop bands, scale."""
    flux = shift_randomly(orient_randomly(images, generator), config.max_shift, generator).float()
    sky_sigma = draw_sky_sigma(len(flux), config, generator, flux.device)
    flux, ivar = add_noise(flux, sky_sigma, generator)
    spread = torch.exp(config.background_spread * normal((len(flux), 1), generator, flux.device))
    flux = add_background(flux, sky_sigma, config.background * spread, generator)
    return image_features(flux, ivar * bands[:, :, None, None])
