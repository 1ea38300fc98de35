"""Network inputs of real galaxies, with their own noise, masks and missing bands.

Nothing is added to real images and fluxes: their noise is in them.  What is varied at every step is
the orientation and the centre of the image, and which of image, photometry, bands and morphology
are shown, as for simulated galaxies (`astrogenspec.training.augmentation`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..inputs.features import (
    ModelInputs,
    SEDInputs,
    image_features,
    morphology_features,
    photometry_features,
)
from ..inputs.filter_sets import aperture_errors, calibration_errors, is_sdss, sdss_filters
from ..inputs.sed_features import SEDComponents
from ..nn.noise import uniform
from ..surveys import BANDS, get_filter
from .augmentation import (
    AugmentationConfig,
    InputMode,
    draw_band_subsets,
    draw_modes,
    orient_randomly,
    shift_randomly,
)

__all__ = ["observed_inputs"]

#: Probability that a band of photometry in other filters is shown, where not all are.
_KEPT_BAND = 0.7
_N_BANDS = len(BANDS)


def observed_inputs(
    observed: Mapping[str, Tensor],
    filters: Sequence[str],
    config: AugmentationConfig,
    generator: torch.Generator,
    components: SEDComponents | None = None,
) -> ModelInputs:
    """Make network inputs of real galaxies.

    Parameters
    ----------
    observed : mapping of str to Tensor, shape (n, ...)
        Columns of shards of real galaxies (`astrogenspec.datasets.galaxies`): ``flux``, ``error``,
        the morphology, and with images ``image``, ``ivar``, ``measured_flux`` and
        ``measured_error``.
    filters : sequence of str
        Names of the filters of the photometry.
    config : AugmentationConfig
        Fractions of missing inputs; the settings of the noise are not used.
    generator : `torch.Generator`
        Source of randomness.
    components : SEDComponents, optional
        Components of a network that reads photometry in any filters.

    Returns
    -------
    ModelInputs

    Raises
    ------
    ValueError
        If the photometry is in other filters than those of SDSS and there are no components.
    """
    curves = [get_filter(name) for name in filters]
    sdss = is_sdss(curves)
    if not sdss and components is None:
        raise ValueError(
            f"the photometry of the data set is in {', '.join(filters)}, but the network reads "
            "that of SDSS only; train with --any-filters, or continue from weights for any filters."
        )
    n = len(observed["flux"])
    present = torch.isfinite(observed["flux"]) & (observed["error"] > 0)
    image_present = torch.zeros(n, _N_BANDS, dtype=torch.bool)
    if "image" in observed:
        image_present = (observed["ivar"] > 0).flatten(2).any(-1)
    mode = draw_modes(n, config, generator)
    image_bands = draw_band_subsets(n, config, generator)
    same = uniform((n, 1), generator, None) < config.same_bands
    bands = _catalogue_bands(present.shape, sdss, config, generator)
    if sdss:
        bands = torch.where(same, image_bands, bands)
    has_catalogue, has_image = present.any(1), image_present.any(1)
    show_image = has_image & ((mode != InputMode.PHOTOMETRY) | ~has_catalogue)
    image_bands = _some(image_bands, image_present) & show_image[:, None]
    on_image = torch.zeros(n, dtype=torch.bool)
    if "image" in observed:
        measured_present = torch.isfinite(observed["measured_flux"]) & image_bands
        on_image = show_image & measured_present.any(1)
        on_image &= (mode == InputMode.IMAGE_AND_MEASURED) | (
            ~has_catalogue & (mode != InputMode.IMAGE)
        )
    show_flux = has_catalogue & ~on_image & ((mode != InputMode.IMAGE) | ~show_image)
    flux = torch.where(_some(bands, present) & show_flux[:, None], observed["flux"], torch.nan)
    features = _features(flux, observed["error"], curves, components)
    if on_image.any():
        rows = on_image.nonzero()[:, 0]
        seen = torch.where(measured_present[rows], observed["measured_flux"][rows], torch.nan)
        features[rows] = _measured_features(seen, observed["measured_error"][rows], components)
    shape = _morphology(observed, config, generator)
    kind = ModelInputs if components is None else SEDInputs
    if "image" not in observed:
        empty = torch.zeros(n, _N_BANDS, dtype=torch.float32)
        return kind(None, None, empty, empty, features, shape)
    return kind(*_images(observed, image_bands, config, generator), features, shape)


def _some(bands: Tensor, present: Tensor) -> Tensor:
    """Return the drawn bands that exist; all that exist where none of the drawn ones does."""
    kept = bands & present
    return torch.where(kept.any(1, keepdim=True), kept, present)


def _catalogue_bands(
    shape: torch.Size, sdss: bool, config: AugmentationConfig, generator: torch.Generator
) -> Tensor:
    """Draw the bands of the catalogue, shape (n, m)."""
    n, m = shape
    if sdss:
        return draw_band_subsets(n, config, generator) | config.whole_catalogue
    every = uniform((n, 1), generator, None) < config.full_bands
    return every | (uniform((n, m), generator, None) < _KEPT_BAND)


def _features(
    flux: Tensor, error: Tensor, curves: Sequence, components: SEDComponents | None
) -> Tensor:
    if components is None:
        return photometry_features(flux, error)
    aperture = aperture_errors(curves)
    inferred = components.infer(
        flux,
        error,
        components.responses_of(curves),
        torch.as_tensor(calibration_errors(curves)),
        None if aperture is None else torch.as_tensor(aperture),
    )
    return components.features(inferred, torch.zeros(len(flux), dtype=torch.bool))


def _measured_features(flux: Tensor, error: Tensor, components: SEDComponents | None) -> Tensor:
    """Return the features of fluxes that were measured on images, in the bands of SDSS."""
    everywhere = torch.ones(len(flux), dtype=torch.bool)
    if components is None:
        return photometry_features(flux, error, everywhere)
    curves = sdss_filters()
    calibration = torch.as_tensor(calibration_errors(curves))
    inferred = components.infer(flux, error, components.responses_of(curves), calibration)
    return components.features(inferred, everywhere)


def _morphology(
    observed: Mapping[str, Tensor], config: AugmentationConfig, generator: torch.Generator
) -> Tensor:
    """Return the features of a part of the known radii and axis ratios."""
    n = len(observed["flux"])
    chances = uniform((n, 4), generator, None)
    structure = config.structure
    kept = (chances[:, :1] < structure.shown) & (chances[:, 1:] < structure.kept)
    no_flux = torch.full((n, _N_BANDS), torch.nan)
    columns = (
        torch.where(kept[:, k], observed[name], torch.nan)
        for k, name in enumerate(("r50", "r90", "axis_ratio"))
    )
    return morphology_features(no_flux, no_flux, *columns)


def _images(
    observed: Mapping[str, Tensor],
    bands: Tensor,
    config: AugmentationConfig,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Orient and shift images with their inverse variance, and scale them."""
    ivar = observed["ivar"].float() * bands[:, :, None, None]
    both = torch.cat([observed["image"].float(), ivar], dim=1)
    both = shift_randomly(orient_randomly(both, generator), config.max_shift, generator)
    flux, ivar = both.chunk(2, dim=1)
    return image_features(flux.contiguous(), ivar.contiguous())
