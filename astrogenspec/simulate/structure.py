r"""Structure of galaxies: sizes, shapes and features, without fluxes.

A galaxy consists of a Sersic bulge, an old exponential disk and a disk of young stars with a
shallow hole.  Half-light radii follow Shen et al. (2003): for late types

.. math:: R = \gamma M^{\alpha} (1 + M / M_0)^{\beta - \alpha} ,

for early types a power law, with log-normal scatter, and factors fitted to Petrosian radii.  Disks
of thickness :math:`q_0` seen at inclination :math:`i` have the axis ratio :math:`\sqrt{q_0^2 + (1 -
q_0^2) \cos^2 i}`.  Disks may have spiral arms, a bar, a ring, star-forming complexes, irregular and
lopsided light, a dust lane if seen edge-on, or a tidal tail; a galaxy may have a companion of
similar brightness.  Values and sources are in ``priors/structure.ecsv``; features for which it
gives no dependence on mass or star formation are independent of the physical properties, so that a
network cannot learn from invented correlations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from ..nn.records import TensorRecord
from .priors import Priors

__all__ = ["Structure", "draw_structure"]

_LN10 = math.log(10.0)


@dataclass(frozen=True, eq=False)
class Structure(TensorRecord):
    """Structure of n galaxies; all attributes are tensors of shape (n,).

    Attributes
    ----------
    radius_disk, radius_bulge
        Half-light radii along the major axis (arcsec); the young disk has 1.2 times the radius of
        the old one.
    sersic_bulge
        Sersic index of the bulge.
    axis_ratio_disk, axis_ratio_bulge
        Apparent axis ratios.
    cos_inclination
        Cosine of the inclination of the disk, 1 face-on.
    position_angle
        From the x axis towards the y axis of the image (radians).
    disk_break, disk_break_slope
        Radius (in disk scale lengths) at which the exponential bends, and its steepening there: the
        inner over the outer scale length minus one, negative for an extended outer disk.
    arm_strength, arm_number, arm_pitch, arm_phase
        Amplitude (0: none), number, pitch angle (radians, the sign is the handedness) and phase
        (radians) of arms.
    bar_light, bar_length, bar_axis_ratio, bar_angle
        Fraction of the old disk light in a bar (0: none), semi-major axis in disk scale lengths,
        axis ratio and angle in the plane of the disk (radians).
    ring_strength, ring_radius
        Relative excess of young light on a ring (0: none), radius in disk scale lengths.
    clumpiness, irregularity
        Scatter of the logarithm of the surface brightness on small and on large scales.
    lopsidedness, lopsided_angle
        Amplitude and direction (radians) of an m = 1 distortion.
    dust_lane
        Optical depth of a lane in the plane of the disk.
    tail_light, tail_angle
        Fraction of the old disk light in a tidal tail (0: none), and the direction of its base
        (radians).
    companion_ratio, companion_colour
        Flux of a companion over that of the galaxy (0: none), and its g-r minus that of the galaxy
        (mag).
    companion_distance, companion_angle
        Distance (arcsec) and direction (radians) of the companion.
    companion_size, companion_axis_ratio, companion_position_angle
        Half-light radius (arcsec), axis ratio and position angle (radians) of the companion.
    """

    radius_disk: Tensor
    radius_bulge: Tensor
    sersic_bulge: Tensor
    axis_ratio_disk: Tensor
    axis_ratio_bulge: Tensor
    cos_inclination: Tensor
    position_angle: Tensor
    disk_break: Tensor
    disk_break_slope: Tensor
    arm_strength: Tensor
    arm_number: Tensor
    arm_pitch: Tensor
    arm_phase: Tensor
    bar_light: Tensor
    bar_length: Tensor
    bar_axis_ratio: Tensor
    bar_angle: Tensor
    ring_strength: Tensor
    ring_radius: Tensor
    clumpiness: Tensor
    irregularity: Tensor
    lopsidedness: Tensor
    lopsided_angle: Tensor
    dust_lane: Tensor
    tail_light: Tensor
    tail_angle: Tensor
    companion_ratio: Tensor
    companion_distance: Tensor
    companion_angle: Tensor
    companion_size: Tensor
    companion_axis_ratio: Tensor
    companion_position_angle: Tensor
    companion_colour: Tensor

    def replace(self, **changes: Tensor) -> Structure:
        """Return a copy with some attributes replaced."""
        return replace(self, **changes)

    @property
    def has_features(self) -> Tensor:
        """Whether disks have features, bool, shape (n,)."""
        amplitudes = (
            self.arm_strength, self.bar_light, self.ring_strength, self.clumpiness,
            self.irregularity, self.dust_lane, self.tail_light,
        )  # fmt: skip
        return sum(amplitudes) > 0

    @classmethod
    def smooth(
        cls, radius_disk: Tensor, radius_bulge: Tensor, **attributes: Tensor | float
    ) -> Structure:
        """Return face-on galaxies without features.

        Parameters
        ----------
        radius_disk, radius_bulge : Tensor, shape (n,)
            Half-light radii (arcsec).
        **attributes : Tensor of shape (n,) or float
            Other attributes.
        """
        values = {f.name: torch.zeros_like(radius_disk) for f in fields(cls)}
        for name in ("axis_ratio_disk", "axis_ratio_bulge", "cos_inclination", "arm_pitch"):
            values[name] = torch.ones_like(radius_disk)
        for name in ("disk_break", "bar_length", "bar_axis_ratio", "ring_radius", "companion_size"):
            values[name] = torch.ones_like(radius_disk)
        values |= {"arm_number": 2 * torch.ones_like(radius_disk)}
        values |= {"sersic_bulge": 4 * torch.ones_like(radius_disk)}
        values |= {"companion_axis_ratio": torch.ones_like(radius_disk)}
        values |= {"radius_disk": radius_disk, "radius_bulge": radius_bulge}
        for name, value in attributes.items():
            values[name] = torch.as_tensor(value, dtype=radius_disk.dtype).expand_as(radius_disk)
        return cls(**values)


def draw_structure(
    galaxies: Mapping[str, Tensor],
    priors: Priors,
    generator: torch.Generator,
    kpc_per_arcsec: Tensor,
) -> Structure:
    """Draw the structure of galaxies with given physical properties.

    Parameters
    ----------
    galaxies : mapping of str to Tensor, shape (n,)
        ``log_mass``, ``quiescent``, ``green_valley``, ``bulge_fraction`` (more than 0.9: a pure
        spheroid), ``cos_inclination`` and ``size_deviate`` (standard normal deviate from the
        size-mass relation); optionally ``size_factor`` on the sizes.
    priors : Priors
        ``load_priors("structure")``.
    generator : torch.Generator
        Source of all randomness.
    kpc_per_arcsec : Tensor, shape (n,)
        Angular scale (kpc per arcsec).

    Returns
    -------
    Structure
    """
    device = galaxies["log_mass"].device
    draws = _Draws(len(galaxies["log_mass"]), generator, device)
    quiescent = galaxies["quiescent"].bool()
    pure = galaxies["bulge_fraction"] > 0.9
    disk = (~pure).float()
    cos_i = galaxies["cos_inclination"].float()
    forming = disk * (~quiescent).float()
    forming = forming * torch.where(galaxies["green_valley"].bool(), priors.green_valley_arms, 1.0)
    parts = _sizes(galaxies, priors, draws, kpc_per_arcsec)
    parts |= _shapes(galaxies, priors, draws)
    parts |= _breaks(forming, priors, draws)
    parts |= _arms_and_clumps(galaxies["log_mass"].float(), forming, priors, draws)
    parts |= _bar_and_ring(disk, priors, draws)
    parts |= _dust_lane(cos_i, forming, priors, draws)
    parts |= _companion_and_tail(parts, priors, draws, kpc_per_arcsec)
    return Structure(**{name: value.float() for name, value in parts.items()})


def _sizes(
    galaxies: Mapping[str, Tensor], priors: Priors, draws: _Draws, kpc_per_arcsec: Tensor
) -> dict[str, Tensor]:
    """Half-light radii and Sersic indices."""
    log_mass, bulge = galaxies["log_mass"].float(), galaxies["bulge_fraction"].float()
    quiescent, pure = galaxies["quiescent"].bool(), bulge > 0.9
    mass = 10**log_mass
    bend = 1 + mass / priors.late_size_mass
    slope = priors.late_size_slope_high - priors.late_size_slope_low
    late = priors.late_size * mass**priors.late_size_slope_low * bend**slope
    floor = mass.clamp(min=10**priors.early_size_mass_floor)
    early = priors.early_size * floor**priors.early_size_slope
    low, high = priors.size_scatter_low, priors.size_scatter_high
    scatter = high + (low - high) / (1 + (mass / priors.late_size_mass) ** 2)
    factor_on_scatter = torch.where(quiescent, priors.size_scatter_early, priors.size_scatter_late)
    size = torch.where(quiescent, early, late)
    if "size_factor" in galaxies:
        size = size * galaxies["size_factor"]
    size = size * torch.exp(factor_on_scatter * scatter * galaxies["size_deviate"].float())
    size = size.clamp(priors.size_minimum, priors.size_maximum)

    offset = (log_mass - 10.5).clamp(-1.5, 1.0)

    def factor(normalisation: float, slope: float) -> Tensor:
        return normalisation * torch.exp(_LN10 * slope * offset)

    spheroid = size * factor(priors.spheroid_size, priors.spheroid_size_slope)
    quenched = factor(priors.disk_size_quiescent, priors.disk_size_quiescent_slope)
    star_forming = factor(priors.disk_size_star_forming, priors.disk_size_star_forming_slope)
    disk = size * torch.where(quiescent, quenched, star_forming)
    disk = disk * (1 + priors.disk_size_bulge * bulge)
    ratio = torch.where(quiescent, priors.bulge_size_quiescent, priors.bulge_size_star_forming)
    inner = size * ratio * torch.exp(draws.normal(0.0, priors.bulge_size_scatter))
    late_index = math.log10(priors.sersic_star_forming)
    early_index = math.log10(priors.sersic_quiescent) + priors.sersic_mass_slope * (log_mass - 10.7)
    index = torch.where(quiescent | pure, early_index, late_index)
    return {
        "radius_disk": torch.where(pure, spheroid * priors.envelope_size, disk) / kpc_per_arcsec,
        "radius_bulge": torch.where(pure, spheroid, inner) / kpc_per_arcsec,
        "sersic_bulge": (10 ** draws.normal(index, priors.sersic_scatter)).clamp(0.7, 8.0),
    }


def _shapes(galaxies: Mapping[str, Tensor], priors: Priors, draws: _Draws) -> dict[str, Tensor]:
    """Axis ratios, inclination and position angle."""
    cos_i, log_mass = galaxies["cos_inclination"].float(), galaxies["log_mass"].float()
    pure = galaxies["bulge_fraction"] > 0.9
    thickness = priors.thickness + priors.thickness_slope * (
        priors.thickness_mass - log_mass
    ).clamp(0, 2.5)
    thickness = draws.normal(thickness, priors.thickness_scatter).clamp(0.1, 0.6)
    disk = torch.sqrt(thickness**2 + (1 - thickness**2) * cos_i**2)
    round_bulge = draws.normal(priors.bulge_axis_ratio, priors.bulge_axis_ratio_scatter).clamp(
        0.6, 1
    )
    spheroid = draws.normal(priors.spheroid_axis_ratio, priors.spheroid_axis_ratio_scatter)
    bulge = torch.where(pure, spheroid.clamp(0.4, 1), (0.5 * (round_bulge + disk)).clamp(0.35, 1))
    return {
        "axis_ratio_disk": torch.where(pure, bulge, disk),
        "axis_ratio_bulge": bulge,
        "cos_inclination": cos_i,
        "position_angle": draws.uniform(0, math.pi),
    }


def _breaks(forming: Tensor, priors: Priors, draws: _Draws) -> dict[str, Tensor]:
    """Draw down-bending (type II), up-bending (type III) and pure exponential disks.

    See Pohlen & Trujillo (2006).
    """
    deviate = draws.uniform()
    down, up = deviate < priors.break_down_fraction, deviate > 1 - priors.break_up_fraction
    radius = torch.where(up, priors.break_up_radius, priors.break_down_radius)
    slope = torch.where(down, 1 / priors.break_down_scale - 1, 0.0)
    slope = torch.where(up, 1 / priors.break_up_scale - 1, slope)
    return {
        "disk_break": draws.normal(radius, priors.break_radius_scatter).clamp(min=1),
        "disk_break_slope": slope * (forming > 0),
    }


def _arms_and_clumps(
    log_mass: Tensor, forming: Tensor, priors: Priors, draws: _Draws
) -> dict[str, Tensor]:
    """Draw arms, clumps and irregular light; ``forming``: amplitude, 0 without star formation."""
    grade = draws.uniform()
    contrast = torch.where(grade < priors.grand_design_fraction, 1.6, 1.0)
    flocculent = grade > 1 - priors.flocculent_fraction
    contrast = torch.where(flocculent, 0.5, contrast)
    few = draws.uniform()
    number = torch.where(few < priors.two_arm_fraction, 2.0, torch.where(few < 0.85, 3.0, 4.0))
    pitch = draws.normal(priors.pitch, priors.pitch_scatter).clamp(8, 40)
    handedness = torch.where(draws.uniform() < 0.5, -1.0, 1.0)
    rate = torch.sigmoid((priors.irregular_mass - log_mass) / priors.irregular_width)
    irregular = draws.chance(rate) * (forming > 0)
    arms = priors.arm_strength * torch.exp(draws.normal(0.0, priors.arm_strength_scatter))
    clumps = priors.clumpiness * torch.exp(draws.normal(0.0, priors.clumpiness_scatter))
    clumps = clumps * torch.where(flocculent, 1.2, 1.0)
    large = priors.irregularity * torch.exp(draws.normal(0.0, 0.3))
    return {
        "arm_strength": forming * (1 - irregular) * contrast * arms.clamp(max=1.0),
        "arm_number": number,
        "arm_pitch": handedness * pitch * (math.pi / 180),
        "arm_phase": draws.uniform(0, 2 * math.pi),
        "clumpiness": forming * clumps,
        "irregularity": irregular * large,
        "lopsidedness": forming * draws.normal(0.0, priors.lopsidedness).abs().clamp(max=0.6),
        "lopsided_angle": draws.uniform(0, 2 * math.pi),
    }


def _bar_and_ring(disk: Tensor, priors: Priors, draws: _Draws) -> dict[str, Tensor]:
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


def _dust_lane(
    cos_inclination: Tensor, forming: Tensor, priors: Priors, draws: _Draws
) -> dict[str, Tensor]:
    """Draw dust lanes of star-forming disks seen nearly edge-on."""
    limit = priors.dust_lane_inclination
    depth = priors.dust_lane_depth * ((limit - cos_inclination) / limit).clamp(0, 1)
    return {"dust_lane": depth * (forming > 0) * draws.chance(priors.dust_lane_fraction)}


def _companion_and_tail(
    parts: Mapping[str, Tensor], priors: Priors, draws: _Draws, kpc_per_arcsec: Tensor
) -> dict[str, Tensor]:
    """Draw close pairs, ongoing mergers and tidal tails, for all types of galaxies alike."""
    deviate = draws.uniform()
    merging = deviate < priors.merger_fraction
    paired = (deviate > 1 - priors.companion_fraction) | merging
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


class _Draws:
    """Random numbers of shape (n,), drawn on the device of the generator."""

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
