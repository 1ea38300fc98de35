"""Surface brightness of disks with arms, bars, rings, star-forming complexes, dust lanes and tidal tails."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .priors import Priors
from .profiles import (
    EXPONENTIAL_HALF_LIGHT,
    YOUNG_SCALE,
    young_disk_profile,
    young_disk_total,
)
from .structure import Structure

__all__ = ["paint_disks"]

_FIELD_CELLS, _FIELD_EXTENT = 64, 4.5


def paint_disks(
    structure: Structure, priors: Priors, generator: torch.Generator, *, cells: int, step: float
) -> tuple[Tensor, Tensor]:
    """Paint the old and the young disk of galaxies, before seeing.

    Parameters
    ----------
    structure : Structure
        n galaxies.
    priors : Priors
        ``load_priors("structure")``: contrasts of arms and complexes.
    generator : torch.Generator
        Source of the random positions of star-forming complexes.
    cells : int
        Even number of grid cells on a side; the centre of the galaxy is at cell ``cells / 2``.
    step : float
        Distance of cells (arcsec).

    Returns
    -------
    old, young : Tensor, shape (n, cells, cells)
        Light in each cell as a fraction of that of the whole disk.
    """
    s = _Columns(structure)
    scale = s.radius_disk / EXPONENTIAL_HALF_LIGHT
    along, across = _disk_plane(s, scale, cells, step)
    squared = along**2 + across**2
    radius = torch.sqrt(squared + 1e-8)
    # softened by a fraction of a cell, so that the cusp's sampled height does not depend on where it falls
    soft = torch.sqrt(squared + (0.25 * step / scale) ** 2)
    bend = torch.exp(-s.disk_break_slope * (soft - s.disk_break).clamp(min=0))
    smooth_old, smooth_young = torch.exp(-soft) * bend, young_disk_profile(soft) * bend
    pattern, envelope = _pattern(s, along, across, radius)
    field = _complexes(structure, generator, along, across)
    waves = s.arm_strength * pattern * envelope
    large = s.irregularity * field[:, 1] + _lopsided(s, along, across, radius)
    small = s.clumpiness * field[:, 0]
    old = smooth_old * torch.exp(priors.arm_contrast_old * waves + priors.clump_old * small + 0.6 * large)
    young = smooth_young * torch.exp(priors.arm_contrast_young * waves + small + large)
    ring = torch.exp(-(((radius - s.ring_radius) / 0.25) ** 2)) * s.ring_strength
    old, young = old * (1 + 0.3 * ring), young * (1 + ring)
    lane = _dust_lane(s, along, across, scale)
    old, young = old * lane, young * lane
    area = (step / scale) ** 2 / s.axis_ratio_disk
    old = old + _bar(s, along, across) * _sum(old) + _tail(s, along, across, radius) * _sum(old)
    extent = 0.5 * cells * step / scale
    total_old = 2 * math.pi + _beyond_break(s, 1.0)
    total_young = young_disk_total() + _beyond_break(s, YOUNG_SCALE)
    old = old * _within(smooth_old, total_old, area, extent) / _sum(old)
    young = young * _within(smooth_young, total_young, area, extent) / _sum(young)
    return old, young


class _Columns:
    """Attributes of a structure with shape (n, 1, 1)."""

    def __init__(self, structure: Structure):
        self._structure = structure

    def __getattr__(self, name: str) -> Tensor:
        return getattr(self._structure, name)[:, None, None]


def _sum(values: Tensor) -> Tensor:
    return values.sum((1, 2), keepdim=True)


def _beyond_break(s: _Columns, scale: float) -> Tensor:
    """Light that the bend adds to a disk, in units of square scale lengths times the central brightness."""
    rate = 1 / scale + s.disk_break_slope
    bent = s.disk_break / rate + 1 / rate**2
    straight = s.disk_break * scale + scale**2
    return 2 * math.pi * torch.exp(-s.disk_break / scale) * (bent - straight)


def _within(smooth: Tensor, total: Tensor, area: Tensor, extent: Tensor) -> Tensor:
    """Fraction of the light of the smooth disk that falls on the grid."""
    return torch.where(extent > 7, 1.0, (_sum(smooth) * area / total).clamp(max=1))


def _disk_plane(s: _Columns, scale: Tensor, cells: int, step: float) -> tuple[Tensor, Tensor]:
    """Coordinates in the plane of the disk, in scale lengths, along and across the line of nodes."""
    grid = (torch.arange(cells, device=scale.device) - cells // 2) * step
    x, y = grid[None, None, :] / scale, grid[None, :, None] / scale
    cosine, sine = torch.cos(s.position_angle), torch.sin(s.position_angle)
    return x * cosine + y * sine, (y * cosine - x * sine) / s.axis_ratio_disk


def _pattern(
    s: _Columns, along: Tensor, across: Tensor, radius: Tensor
) -> tuple[Tensor, Tensor]:
    """Logarithmic spiral (-1 to 1) and the rise of its amplitude with radius."""
    angle = torch.atan2(across, along)
    wound = torch.log(radius + 0.15) / torch.tan(s.arm_pitch)
    pattern = torch.cos(s.arm_number * (angle - wound) + s.arm_phase)
    return pattern, (radius / 0.8).clamp(max=1)


def _lopsided(s: _Columns, along: Tensor, across: Tensor, radius: Tensor) -> Tensor:
    """Logarithm of an m = 1 distortion that grows with radius."""
    direction = along * torch.cos(s.lopsided_angle) + across * torch.sin(s.lopsided_angle)
    return s.lopsidedness * direction / (radius + 1)


def _complexes(
    structure: Structure, generator: torch.Generator, along: Tensor, across: Tensor
) -> Tensor:
    """Two Gaussian random fields of unit scatter in the plane of the disk: small and large scales, (n, 2, cells, cells)."""
    n, cells = len(structure), _FIELD_CELLS
    white = torch.randn(n, cells, cells, generator=generator, device=generator.device)
    white = torch.fft.rfft2(white.to(along.device))
    down = torch.fft.fftfreq(cells, 1 / cells, device=along.device)[:, None]
    wave = torch.sqrt(down**2 + torch.arange(cells // 2 + 1, device=along.device) ** 2)
    small = wave**0.9 / (wave**2 + 36) * torch.exp(-((wave / 28) ** 2))
    large = torch.exp(-((wave / 4) ** 2))
    spectra = torch.stack([small, large]) * (wave > 0)
    fields = torch.fft.irfft2(white[:, None] * spectra, s=(cells, cells))
    fields = fields / fields.std((2, 3), keepdim=True)
    places = torch.stack([along, across], -1) / _FIELD_EXTENT
    return torch.nn.functional.grid_sample(fields, places, align_corners=False)


def _bar(s: _Columns, along: Tensor, across: Tensor) -> Tensor:
    """Light of the bar over that of the disk."""
    cosine, sine = torch.cos(s.bar_angle), torch.sin(s.bar_angle)
    major = (along * cosine + across * sine) / s.bar_length
    minor = (across * cosine - along * sine) / (s.bar_length * s.bar_axis_ratio)
    bar = torch.exp(-2 * torch.sqrt(major**4 + minor**4))
    return bar * (s.bar_light / (1 - s.bar_light)) / _sum(bar).clamp(min=1e-6)


def _tail(s: _Columns, along: Tensor, across: Tensor, radius: Tensor) -> Tensor:
    """Light of a tidal tail, an open arc outside the disk, over that of the disk."""
    angle = torch.atan2(across, along) - s.tail_angle - 0.45 * (radius - 2)
    tail = torch.exp((torch.cos(angle) - 1) * 12 - ((radius - 3.5) / 1.5) ** 2)
    return tail * (s.tail_light / (1 - s.tail_light)) / _sum(tail).clamp(min=1e-6)


def _dust_lane(s: _Columns, along: Tensor, across: Tensor, scale: Tensor) -> Tensor:
    """Transmission of a thin layer of dust in the plane of a disk seen nearly edge-on."""
    height = across * s.axis_ratio_disk
    depth = torch.exp(-((height / 0.1) ** 2) - along.abs() / 2)
    return torch.exp(-s.dust_lane * depth)
