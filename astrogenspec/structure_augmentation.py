"""Sizes and shapes of simulated galaxies as catalogues have them: with errors, by other pipelines, and some missing.

The features are those of `astrogenspec.preprocessing.structure_features`, drawn anew at each epoch like all else of
`astrogenspec.augmentation`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .nn.noise import normal, uniform
from .preprocessing import structure_features

__all__ = ["STRUCTURE_COLUMNS", "StructureAugmentation", "observe_structure"]

#: What simulations say of the structure of a galaxy, see `astrogenspec.simulate.apertures.PetrosianMeasures`.
STRUCTURE_COLUMNS = ("petro_flux", "r50", "r90", "axis_ratio")
_MAGNITUDE = 1.0857
_LOWEST_AXIS_RATIO = 0.05


@dataclass(frozen=True)
class StructureAugmentation:
    """How sizes and shapes are drawn.

    Attributes
    ----------
    shown : float
        Fraction of galaxies that have any.
    kept : float
        Fraction of these that have Petrosian fluxes, r50, r90, or an axis ratio, each by chance of its own.
    petrosian_offset : tuple of float
        Petrosian minus model magnitude of SDSS in ugriz beyond what apertures explain [mag], fitted by eye to the medians of
        real galaxies in five intervals of g-r.
    petrosian_scatter : float
        Scatter of that difference common to all bands [mag].
    petrosian_band_scatter : tuple of float
        Its scatter relative to r [mag]; both so that with errors and apertures they give the scatter of real galaxies.
    petrosian_error : float
        Error of a Petrosian flux in units of that of the model flux.
    radius_scatter, concentration_scatter : float
        Errors of r50 and of r90 over r50 [dex].
    axis_ratio_scatter : float
        Error of the axis ratio.
    other_pipeline : float
        Fraction of galaxies without Petrosian fluxes whose radii are those of another pipeline, with larger apertures.
    largest_radius, largest_concentration : float
        Most by which its r50, and its r90 over r50, are larger [dex]: those of the ECO and RESOLVE surveys are larger by 0.16 and
        0.06 dex than Petrosian ones of simulated galaxies of the same mass.
    """

    shown: float = 0.5
    kept: float = 0.7
    petrosian_offset: tuple[float, float, float, float, float] = (-0.08, -0.01, 0.0, 0.015, 0.06)
    petrosian_scatter: float = 0.07
    petrosian_band_scatter: tuple[float, float, float, float, float] = (0.09, 0.03, 0.0, 0.02, 0.04)
    petrosian_error: float = 2.0
    radius_scatter: float = 0.03
    concentration_scatter: float = 0.02
    axis_ratio_scatter: float = 0.05
    other_pipeline: float = 0.5
    largest_radius: float = 0.25
    largest_concentration: float = 0.1


def observe_structure(
    true: Mapping[str, Tensor],
    flux: Tensor,
    error: Tensor,
    config: StructureAugmentation | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw sizes and shapes of galaxies of which these are known without error.

    Parameters
    ----------
    true : mapping of str to Tensor
        The `STRUCTURE_COLUMNS`: Petrosian flux, shape (n, 5) [nmgy], dereddened; radii [arcsec] and axis ratio, shape (n,).
    flux, error : Tensor, shape (n, 5)
        Model flux as observed, dereddened, and its error [nmgy]; NaN where missing.
    config : StructureAugmentation, optional
    generator : `torch.Generator`, optional

    Returns
    -------
    features : Tensor, shape (n, 16)
        See `astrogenspec.preprocessing.structure_features`; zero of galaxies that have none.
    """
    config = config or StructureAugmentation()
    n, device = len(flux), flux.device
    deviates = normal((n, 14), generator, device)
    chances = uniform((n, 8), generator, device)
    shown = chances[:, :1] < config.shown
    with_flux, *with_others = (shown & (chances[:, 1:5] < config.kept)).split(1, dim=1)
    middle, scatter = (
        flux.new_tensor(values)
        for values in (config.petrosian_offset, config.petrosian_band_scatter)
    )
    offset = middle + config.petrosian_scatter * deviates[:, :1] + scatter * deviates[:, 1:6]
    petrosian = true["petro_flux"] * torch.exp(offset / -_MAGNITUDE)
    petrosian = petrosian + config.petrosian_error * error * deviates[:, 6:11]
    other = (chances[:, 5] < config.other_pipeline) & ~with_flux[:, 0]
    larger = torch.where(other, config.largest_radius * chances[:, 6], 0.0)
    rounder = torch.where(other, config.largest_concentration * chances[:, 7], 0.0)
    log_r50 = true["r50"].log10() + larger + config.radius_scatter * deviates[:, 11]
    concentration = (true["r90"] / true["r50"]).log10() + rounder
    log_r90 = log_r50 + concentration + config.concentration_scatter * deviates[:, 12]
    axis_ratio = true["axis_ratio"] + config.axis_ratio_scatter * deviates[:, 13]
    sizes = (10**log_r50, 10**log_r90, axis_ratio.clamp(_LOWEST_AXIS_RATIO, 1.0))
    shapes = (
        torch.where(kept[:, 0], size, torch.nan)
        for size, kept in zip(sizes, with_others, strict=True)
    )
    return structure_features(flux, torch.where(with_flux, petrosian, torch.nan), *shapes)
