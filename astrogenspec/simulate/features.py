"""Random features of galaxies: breaks, arms, star-forming complexes, bars, rings, dust lanes, tails and companions.

Every function returns attributes of `~astrogenspec.simulate.structure.Structure`, tensors of shape (n,).  Lengths in the
plane of a disk are in its scale lengths.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from .priors import Priors

__all__ = [
    "Draws",
    "draw_arms_and_clumps",
    "draw_bar_and_ring",
    "draw_breaks",
    "draw_companion_and_tail",
    "draw_dust_lane",
]


class Draws:
    """Random numbers of shape (n,), drawn where the generator lives."""

    def __init__(self, n: int, generator: torch.Generator, device: torch.device):
        self._n, self._generator, self._device = n, generator, device

    def uniform(self, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Draw from a uniform distribution."""
        device = self._generator.device
        values = torch.rand(self._n, generator=self._generator, device=device)
        return (low + (high - low) * values).to(self._device)

    def normal(self, mean: Tensor | float = 0.0, scatter: Tensor | float = 1.0) -> Tensor:
        """Draw from a normal distribution."""
        device = self._generator.device
        values = torch.randn(self._n, generator=self._generator, device=device)
        return mean + scatter * values.to(self._device)

    def chance(self, probability: Tensor | float) -> Tensor:
        """Draw 1 with a probability, else 0."""
        return (self.uniform() < probability).float()


def draw_breaks(forming: Tensor, priors: Priors, draws: Draws) -> dict[str, Tensor]:
    """Draw down-bending (type II), up-bending (type III) and pure exponential disks: Pohlen & Trujillo (2006)."""
    kind = draws.uniform()
    down, up = kind < priors.break_down_fraction, kind > 1 - priors.break_up_fraction
    at = torch.where(up, priors.break_up_radius, priors.break_down_radius)
    slope = torch.where(down, 1 / priors.break_down_scale - 1, 0.0)
    slope = torch.where(up, 1 / priors.break_up_scale - 1, slope)
    return {
        "disk_break": draws.normal(at, priors.break_radius_scatter).clamp(min=1),
        "disk_break_slope": slope * (forming > 0),
    }


def draw_arms_and_clumps(
    log_mass: Tensor, forming: Tensor, priors: Priors, draws: Draws
) -> dict[str, Tensor]:
    """Draw arms, clumps and irregular light; ``forming`` is their amplitude, 0 without star formation."""
    grade = draws.uniform()
    contrast = torch.where(grade < priors.grand_design_fraction, 1.6, 1.0)
    flocculent = grade > 1 - priors.flocculent_fraction
    contrast = torch.where(flocculent, 0.5, contrast)
    few = draws.uniform()
    number = torch.where(few < priors.two_arm_fraction, 2.0, torch.where(few < 0.85, 3.0, 4.0))
    degrade = draws.normal(priors.pitch, priors.pitch_scatter).clamp(8, 40)
    hand = torch.where(draws.uniform() < 0.5, -1.0, 1.0)
    rate = torch.sigmoid((priors.irregular_mass - log_mass) / priors.irregular_width)
    irregular = draws.chance(rate) * (forming > 0)
    arms = priors.arm_strength * torch.exp(draws.normal(0.0, priors.arm_strength_scatter))
    clumps = priors.clumpiness * torch.exp(draws.normal(0.0, priors.clumpiness_scatter))
    clumps = clumps * torch.where(flocculent, 1.2, 1.0)
    large = priors.irregularity * torch.exp(draws.normal(0.0, 0.3))
    return {
        "arm_strength": forming * (1 - irregular) * contrast * arms.clamp(max=1.0),
        "arm_number": number,
        "arm_pitch": hand * degrade * (math.pi / 180),
        "arm_phase": draws.uniform(0, 2 * math.pi),
        "clumpiness": forming * clumps,
        "irregularity": irregular * large,
        "lopsidedness": forming * draws.normal(0.0, priors.lopsidedness).abs().clamp(max=0.6),
        "lopsided_angle": draws.uniform(0, 2 * math.pi),
    }


def draw_bar_and_ring(disk: Tensor, priors: Priors, draws: Draws) -> dict[str, Tensor]:
    """Draw bars and rings; ``disk`` is 1 for galaxies with a disk, else 0."""
    barred = disk * draws.chance(priors.bar_fraction)
    light = priors.bar_light * torch.exp(draws.normal(0.0, priors.bar_light_scatter))
    length = priors.bar_length * torch.exp(draws.normal(0.0, priors.bar_length_scatter))
    axis_ratio = draws.normal(priors.bar_axis_ratio, priors.bar_axis_ratio_scatter)
    ringed = disk * draws.chance(priors.ring_fraction)
    strength = priors.ring_strength * draws.uniform(0.3, 1.7)
    radius = priors.ring_radius * torch.exp(draws.normal(0.0, priors.ring_radius_scatter))
    return {
        "bar_light": barred * light.clamp(max=0.4),
        "bar_length": length,
        "bar_axis_ratio": axis_ratio.clamp(0.15, 0.6),
        "bar_angle": draws.uniform(0, math.pi),
        "ring_strength": ringed * strength,
        "ring_radius": radius,
    }


def draw_companion_and_tail(
    parts: Mapping[str, Tensor], priors: Priors, draws: Draws, kpc_per_arcsec: Tensor
) -> dict[str, Tensor]:
    """Draw close pairs, ongoing mergers and tidal tails, whatever the kind of galaxy."""
    kind = draws.uniform()
    merging = kind < priors.merger_fraction
    paired = (kind > 1 - priors.companion_fraction) | merging
    near = torch.where(merging, priors.merger_distance_minimum, priors.companion_distance_minimum)
    far = torch.where(merging, priors.companion_distance_minimum, priors.companion_distance_maximum)
    ratio = 10 ** draws.uniform(-priors.companion_ratio, priors.companion_ratio)
    rate = torch.where(paired, priors.companion_tails, priors.tail_fraction)
    tailed = draws.chance(torch.where(merging, priors.merger_tails, rate))
    light = priors.tail_light * torch.exp(draws.normal(0.0, 0.4))
    size = torch.minimum(parts["radius_disk"], 1.5 * parts["radius_bulge"])
    return {
        "tail_light": tailed * light,
        "tail_angle": draws.uniform(0, 2 * math.pi),
        "companion_ratio": paired * ratio,
        "companion_distance": torch.lerp(near, far, draws.uniform()) / kpc_per_arcsec,
        "companion_angle": draws.uniform(0, 2 * math.pi),
        "companion_size": size * ratio**0.4 * torch.exp(draws.normal(0.0, 0.3)),
        "companion_axis_ratio": draws.uniform(0.3, 1.0),
        "companion_position_angle": draws.uniform(0, math.pi),
        "companion_colour": draws.normal(0.0, 0.15),
    }


def draw_dust_lane(
    cos_inclination: Tensor, forming: Tensor, priors: Priors, draws: Draws
) -> dict[str, Tensor]:
    """Draw dust lanes of star-forming disks seen nearly edge-on."""
    limit = priors.dust_lane_inclination
    depth = priors.dust_lane_depth * ((limit - cos_inclination) / limit).clamp(0, 1)
    return {"dust_lane": depth * (forming > 0) * draws.chance(priors.dust_lane_fraction)}
