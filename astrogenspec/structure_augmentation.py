"""Sizes and shapes of simulated galaxies as catalogues have them: with errors, by other pipelines, and some missing.

The features are those of `astrogenspec.preprocessing.structure_features`, drawn anew at each epoch like all else of
`astrogenspec.augmentation`.  Petrosian fluxes are left to real galaxies: against the model flux of a survey they also say which
profile that is the flux of, which simulations do not know, and redshifts of real galaxies became worse with them.
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
STRUCTURE_COLUMNS = ("r50", "r90", "axis_ratio")
_LOWEST_AXIS_RATIO = 0.05


@dataclass(frozen=True)
class StructureAugmentation:
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


def observe_structure(
    true: Mapping[str, Tensor],
    config: StructureAugmentation | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw sizes and shapes of galaxies of which these are known without error.

    Parameters
    ----------
    true : mapping of str to Tensor, shape (n,)
        The `STRUCTURE_COLUMNS`: radii [arcsec] and axis ratio.
    config : StructureAugmentation, optional
    generator : `torch.Generator`, optional

    Returns
    -------
    features : Tensor, shape (n, 16)
        See `astrogenspec.preprocessing.structure_features`; zero of galaxies that have none.
    """
    config = config or StructureAugmentation()
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
    return structure_features(no_flux, no_flux, *shapes)
