"""Surface brightness of disks with arms, bars, rings, complexes, dust lanes and tidal tails.

The logarithm of the surface brightness is that of an exponential disk plus logarithmic spirals,
Gaussian random fields (complexes on small scales, irregular light on large ones) and a lopsided m =
1 term; rings and dust lanes are factors, bars and tails are added.  The flux of each disk is that
of the smooth profile on the grid.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .priors import Priors
from .profiles import (
    EXPONENTIAL_HALF_LIGHT,
    YOUNG_SCALE,
    light_of_break,
    young_disk_hole,
    young_disk_total,
)
from .structure import Structure

__all__ = ["paint_disks"]

#: Cells and extent of the random fields; lengths are in disk scale lengths.
_FIELD_CELLS, _FIELD_EXTENT = 64, 4.5
_ARM_RISE, _RING_WIDTH, _LANE_HEIGHT = 0.8, 0.25, 0.12
#: Excess of old light on a ring relative to that of young light.
_RING_OLD = 0.3
#: A disk is complete if its grid ends beyond this radius.
_CONTAINED = 7.0


def paint_disks(
    structure: Structure, priors: Priors, generator: torch.Generator, *, cells: int, step: float
) -> tuple[Tensor, Tensor]:
    """Paint the old and the young disk of galaxies, before seeing.

    Parameters
    ----------
    structure : Structure
        n galaxies.
    priors : Priors
        ``load_priors("structure")``: amplitudes of arms and complexes.
    generator : torch.Generator
        Source of the random fields.
    cells : int
        Even number of grid cells on a side; the centre of the galaxy is at cell ``cells / 2``.
    step : float
        Size of a cell (arcsec).

    Returns
    -------
    old, young : Tensor, shape (n, cells, cells)
        Light in each cell as a fraction of that of the whole disk.
    """
    s = _Columns(structure)
    scale = s.radius_disk / EXPONENTIAL_HALF_LIGHT
    along, across = _disk_plane(s, scale, cells, step)
    squared = along.square() + across.square()
    radius = torch.sqrt(squared + 1e-8)
    # softened by a fraction of a cell, so that the cusp's sampled height does not depend on where
    # it falls
    soft = torch.sqrt(squared + (0.25 * step / scale) ** 2)
    bend = (soft - s.disk_break).clamp_(min=0) * s.disk_break_slope
    waves = _waves(s, along, across, radius)
    small, large = _complexes(structure, generator, along, across).unbind(1)
    small, large = small * s.clumpiness, large * s.irregularity
    large += _lopsided(s, along, across, radius)
    light_old = priors.arm_contrast_old * waves + priors.clump_old * small + 0.6 * large
    light_young = priors.arm_contrast_young * waves + small + large
    old = _exp(light_old - soft - bend)
    young = _exp(light_young - soft / YOUNG_SCALE - bend) * young_disk_hole(soft)
    _add_features(structure, scale, along, across, radius, old, young)
    area = (step / scale) ** 2 / s.axis_ratio_disk
    old *= _within(structure, soft, bend, area, 1.0) / _sum(old)
    young *= _within(structure, soft, bend, area, YOUNG_SCALE) / _sum(young)
    return old, young


def _add_features(
    structure: Structure,
    scale: Tensor,
    along: Tensor,
    across: Tensor,
    radius: Tensor,
    old: Tensor,
    young: Tensor,
) -> None:
    """Add rings, dust lanes, bars and tails, in place, to the galaxies that have them."""

    def select(strength: Tensor) -> tuple[Tensor, _Columns]:
        which = torch.nonzero(strength > 0)[:, 0]
        return which, _Columns(structure[which])

    which, s = select(structure.ring_strength)
    ring = s.ring_strength * _exp(-(((radius[which] - s.ring_radius) / _RING_WIDTH) ** 2))
    old[which] *= 1 + _RING_OLD * ring
    young[which] *= 1 + ring
    which, s = select(structure.dust_lane)
    lane = _dust_lane(s, along[which], across[which])
    old[which] *= lane
    young[which] *= lane
    which, s = select(structure.bar_light)
    old[which] += _bar(s, along[which], across[which]) * _sum(old[which])
    which, s = select(structure.tail_light)
    old[which] += _tail(s, along[which], across[which], radius[which]) * _sum(old[which])


class _Columns:
    """Attributes of a structure as tensors of shape (n, 1, 1)."""

    def __init__(self, structure: Structure):
        self._structure = structure

    def __getattr__(self, name: str) -> Tensor:
        return getattr(self._structure, name)[:, None, None]


def _sum(values: Tensor) -> Tensor:
    return values.sum((1, 2), keepdim=True)


def _exp(exponent: Tensor) -> Tensor:
    """Exponential, in place, clipped above denormal numbers, on which processors are slow."""
    return exponent.clamp_(min=-40).exp_()


def _within(structure: Structure, soft: Tensor, bend: Tensor, area: Tensor, ratio: float) -> Tensor:
    """Fraction of a smooth disk on the grid; ``ratio``: scale length over that of the old disk."""
    fraction = torch.ones_like(area)
    edge = torch.minimum(soft[:, 0, :].amin(1), soft[:, :, 0].amin(1))
    which = torch.nonzero(edge < _CONTAINED)[:, 0]
    if not len(which):
        return fraction
    s, soft = _Columns(structure[which]), soft[which]
    light = _exp(soft / -ratio - bend[which])
    total = 2 * math.pi
    if ratio != 1:
        light, total = light * young_disk_hole(soft), young_disk_total()
    total = total + light_of_break(s.disk_break, s.disk_break_slope, ratio)
    fraction[which] = (_sum(light) * area[which] / total).clamp(max=1)
    return fraction


def _disk_plane(s: _Columns, scale: Tensor, cells: int, step: float) -> tuple[Tensor, Tensor]:
    """Coordinates along and across the line of nodes in the plane of the disk, in scale lengths."""
    grid = (torch.arange(cells, device=scale.device) - cells // 2) * step
    x, y = grid[None, None, :] / scale, grid[None, :, None] / scale
    cosine, sine = torch.cos(s.position_angle), torch.sin(s.position_angle)
    return x * cosine + y * sine, (y * cosine - x * sine) / s.axis_ratio_disk


def _waves(s: _Columns, along: Tensor, across: Tensor, radius: Tensor) -> Tensor:
    """Logarithmic spirals whose amplitude rises with radius."""
    angle = torch.atan2(across, along) - torch.log(radius + 0.15) / torch.tan(s.arm_pitch)
    pattern = torch.cos(angle * s.arm_number + s.arm_phase)
    return pattern * (radius / _ARM_RISE).clamp(max=1) * s.arm_strength


def _lopsided(s: _Columns, along: Tensor, across: Tensor, radius: Tensor) -> Tensor:
    """Logarithm of an m = 1 distortion that grows with radius."""
    direction = along * torch.cos(s.lopsided_angle) + across * torch.sin(s.lopsided_angle)
    return s.lopsidedness * direction / (radius + 1)


def _complexes(
    structure: Structure, generator: torch.Generator, along: Tensor, across: Tensor
) -> Tensor:
    """Gaussian random fields (n, 2, cells, cells) of unit scatter, on small and large scales."""
    n, cells = len(structure), _FIELD_CELLS
    white = torch.randn(n, cells, cells, generator=generator, device=generator.device)
    white = torch.fft.rfft2(white.to(along.device))
    down = torch.fft.fftfreq(cells, 1 / cells, device=along.device)[:, None]
    wave = torch.sqrt(down**2 + torch.arange(cells // 2 + 1, device=along.device) ** 2)
    small = wave**0.9 / (wave**2 + 12) * torch.exp(-((wave / 28) ** 2))
    large = torch.exp(-((wave / 4) ** 2))
    spectra = torch.stack([small, large]) * (wave > 0)
    fields = torch.fft.irfft2(white[:, None] * spectra, s=(cells, cells))
    fields = fields / fields.std((2, 3), keepdim=True)
    positions = torch.stack([along, across], -1) / _FIELD_EXTENT
    return torch.nn.functional.grid_sample(fields, positions, align_corners=False)


def _bar(s: _Columns, along: Tensor, across: Tensor) -> Tensor:
    """Light of the bar relative to that of the disk."""
    cosine, sine = torch.cos(s.bar_angle), torch.sin(s.bar_angle)
    major = (along * cosine + across * sine) / s.bar_length
    minor = (across * cosine - along * sine) / (s.bar_length * s.bar_axis_ratio)
    bar = _exp(-2 * torch.hypot(major.square(), minor.square()))
    return bar * (s.bar_light / (1 - s.bar_light)) / _sum(bar).clamp(min=1e-6)


def _tail(s: _Columns, along: Tensor, across: Tensor, radius: Tensor) -> Tensor:
    """Light of a tidal tail, an open arc outside the disk, relative to that of the disk."""
    angle = torch.atan2(across, along) - s.tail_angle - 0.45 * (radius - 2)
    tail = _exp((torch.cos(angle) - 1) * 12 - ((radius - 3.5) / 1.5) ** 2)
    return tail * (s.tail_light / (1 - s.tail_light)) / _sum(tail).clamp(min=1e-6)


def _dust_lane(s: _Columns, along: Tensor, across: Tensor) -> Tensor:
    """Transmission of a thin layer of dust in the plane of a disk seen nearly edge-on."""
    height = across * s.axis_ratio_disk
    depth = _exp(-((height / _LANE_HEIGHT) ** 2) - along.abs() / 2)
    return torch.exp(-s.dust_lane * depth)
