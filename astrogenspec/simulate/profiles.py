r"""Radial light profiles of galaxies and their two-dimensional Fourier transforms.

A face-on profile :math:`I(r)` of unit flux has the Fourier transform

.. math:: F(k) = 2\pi \int_0^\infty I(r) J_0(2\pi k r)\, r\, dr ,

and the same profile flattened to an axis ratio :math:`q` has :math:`F\big(\sqrt{k_a^2 + q^2
k_b^2}\big)`, with :math:`k_a, k_b` along the axes of its ellipse.  The transforms of Sersic
profiles, and of the disk of young stars, have no closed form: they are tabulated once with a fast
Hankel transform on a logarithmic grid, and interpolated.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
from scipy.fft import fht
from scipy.special import gammaincinv
from torch import Tensor

__all__ = [
    "EXPONENTIAL_HALF_LIGHT",
    "YOUNG_SCALE",
    "FourierField",
    "exponential_transform",
    "light_of_break",
    "sersic_transform",
    "young_disk_hole",
    "young_disk_profile",
    "young_disk_total",
    "young_disk_transform",
]

#: Half-light radius of an exponential disk in units of its scale length.
EXPONENTIAL_HALF_LIGHT = 1.67835
#: Scale length of the young disk in units of that of the old disk.
YOUNG_SCALE = 1.15
#: Depth and radius (old-disk scale lengths) of the central hole of the young disk.
_YOUNG_HOLE_DEPTH, _YOUNG_HOLE_RADIUS = 0.5, 0.5
#: Sersic indices of the tables.
_SERSIC_NODES = (0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)
#: Half-light radii at which Sersic profiles fade out.
_SERSIC_TRUNCATION = 12.0
_RADII = np.geomspace(1e-9, 1e7, 4096)
_LOG_RADII = np.log(_RADII)
#: Grid of log2 of the spatial frequency times the radius.
_LOG2_K_MIN, _LOG2_K_STEP, _LOG2_K_NODES = -12.0, 0.0625, 321


def exponential_transform(wave_squared: Tensor) -> Tensor:
    r"""Compute the Fourier transform of an exponential disk of unit flux.

    It is :math:`(1 + 4 \pi^2 k^2)^{-3/2}` for frequencies in units of the inverse scale length.

    Parameters
    ----------
    wave_squared : Tensor
        Square of the spatial frequency times the scale length.

    Returns
    -------
    Tensor
        Transform, shape of ``wave_squared``, one at zero frequency.
    """
    inverse = torch.rsqrt(1 + (4 * math.pi**2) * wave_squared)
    return inverse * inverse * inverse


def sersic_transform(wave_squared: Tensor, index: Tensor) -> Tensor:
    """Compute the Fourier transform of Sersic profiles of unit flux.

    The profiles are faded beyond twelve half-light radii.

    Parameters
    ----------
    wave_squared : Tensor, shape (n, ...)
        Square of the spatial frequency times the half-light radius.
    index : Tensor, shape (n,)
        Sersic index, clipped to 0.5 to 8.

    Returns
    -------
    Tensor, shape (n, ...)
        Transform, one at zero frequency.
    """
    nodes = torch.tensor(_SERSIC_NODES, device=index.device)
    index = index.clamp(nodes[0], nodes[-1])
    low = (torch.searchsorted(nodes, index) - 1).clamp(0, len(nodes) - 2)
    weight = ((index - nodes[low]) / (nodes[low + 1] - nodes[low]))[:, None]
    table = _sersic_table().to(index.device)
    return _interpolate(torch.lerp(table[low], table[low + 1], weight), wave_squared)


def young_disk_profile(radius: Tensor) -> Tensor:
    """Compute the surface brightness of a disk of young stars, an exponential with a shallow hole.

    Parameters
    ----------
    radius : Tensor
        Radius in scale lengths of the old disk.

    Returns
    -------
    Tensor
        Surface brightness, shape of ``radius``, with the integral `young_disk_total`.
    """
    return torch.exp(radius / -YOUNG_SCALE) * young_disk_hole(radius)


def young_disk_hole(radius: Tensor) -> Tensor:
    """Return the hole of the young disk, a factor, at radii in scale lengths of the old disk."""
    # clipped, because processors are slow on denormal numbers
    exponent = (radius * (1 / _YOUNG_HOLE_RADIUS)).square().clamp(max=40)
    return 1 - _YOUNG_HOLE_DEPTH * torch.exp(-exponent)


@cache
def young_disk_total() -> float:
    """Return the integral of `young_disk_profile` over the plane."""
    profile = young_disk_profile(torch.from_numpy(_RADII)).numpy()
    return float(2 * math.pi * np.trapezoid(profile * _RADII**2, _LOG_RADII))


def young_disk_transform(wave_squared: Tensor) -> Tensor:
    """Compute the Fourier transform of `young_disk_profile`, scaled to unit flux.

    Parameters
    ----------
    wave_squared : Tensor, shape (n, ...)
        Square of the spatial frequency times the scale length of the old disk.

    Returns
    -------
    Tensor, shape (n, ...)
        Transform, one at zero frequency.
    """
    table = _young_disk_table().to(wave_squared.device)
    return _interpolate(table.expand(len(wave_squared), -1), wave_squared)


def light_of_break(
    radius: Tensor, slope: Tensor, scale: float = 1.0, within: Tensor | None = None
) -> Tensor:
    """Compute the light that a break of the profile adds to an exponential disk.

    It is negative for a steeper outer disk.

    Parameters
    ----------
    radius, slope : Tensor
        Radius of the break in scale lengths of the old disk, and the change of the inverse scale
        length there.
    scale : float
        Scale length of the disk, in scale lengths of the old disk.
    within : Tensor, optional
        Only count the light inside this radius (scale lengths of the old disk).

    Returns
    -------
    Tensor
        Light, in units of the central surface brightness times the squared scale length of the old
        disk.
    """
    rate = 1 / scale + slope

    def beyond(r: Tensor) -> Tensor:
        bent = torch.exp(-rate * (r - radius)) * (r / rate + 1 / rate**2)
        straight = torch.exp(-(r - radius) / scale) * (r * scale + scale**2)
        return bent - straight

    light = beyond(radius)
    if within is not None:
        light = light - beyond(torch.maximum(within, radius))
    return 2 * math.pi * torch.exp(-radius / scale) * light


@cache
def _sersic_table() -> Tensor:
    rows = []
    for index in _SERSIC_NODES:
        shape = gammaincinv(2 * index, 0.5)
        fading = (_RADII / _SERSIC_TRUNCATION) ** 4
        profile = np.exp(-np.minimum(shape * _RADII ** (1 / index) + fading, 700.0))
        profile[profile < 1e-300] = 0.0
        rows.append(_tabulate(profile, _half_light_radius(profile)))
    return torch.tensor(np.array(rows), dtype=torch.float32)


@cache
def _young_disk_table() -> Tensor:
    profile = young_disk_profile(torch.from_numpy(_RADII)).numpy()
    return torch.tensor(_tabulate(profile, 1.0), dtype=torch.float32)


def _tabulate(profile: np.ndarray, unit: float) -> np.ndarray:
    """Transform of a profile given at ``_RADII``, on the grid of log2(frequency * unit)."""
    spectrum = fht(profile * _RADII, _LOG_RADII[1] - _LOG_RADII[0], 0.0)
    wave = 1 / (2 * np.pi * _RADII[::-1])
    total = 2 * np.pi * np.trapezoid(profile * _RADII**2, _LOG_RADII)
    log2_k = _LOG2_K_MIN + _LOG2_K_STEP * np.arange(_LOG2_K_NODES)
    table = np.interp(log2_k, np.log2(wave * unit), spectrum / wave / total)
    table[0] = 1.0
    return table


def _half_light_radius(profile: np.ndarray) -> float:
    """Half-light radius of a profile given at ``_RADII``."""
    integrand = profile * _RADII**2
    growth = np.concatenate([[0.0], np.cumsum(integrand[1:] + integrand[:-1])])
    return float(np.interp(0.5 * growth[-1], growth, _RADII))


def _interpolate(table: Tensor, wave_squared: Tensor) -> Tensor:
    """Linear interpolation of rows of a table (n, nodes) at wave_squared (n, ...)."""
    flat = wave_squared.reshape(len(wave_squared), -1)
    position = (torch.log2(flat) * (0.5 / _LOG2_K_STEP) - _LOG2_K_MIN / _LOG2_K_STEP).clamp_(
        0, _LOG2_K_NODES - 1.001
    )
    low = position.long()
    first = torch.gather(table, 1, low)
    second = torch.gather(table, 1, low + 1)
    return torch.lerp(first, second, position - low).reshape(wave_squared.shape)


class FourierField:
    """Periodic field of survey pixels, and the finer grid on which disks are painted.

    Parameters
    ----------
    pixels : int
        Even number of pixels on a side.
    pixel_scale : float
        Side of a pixel (arcsec).
    fineness : int
        Painted cells per pixel and axis.
    painted : int
        Even number of painted cells on a side, at most ``pixels * fineness``.
    device : torch.device
        Device of the tensors.

    Attributes
    ----------
    wave_y, wave_x : Tensor, shape (pixels,) and (pixels / 2 + 1,)
        Spatial frequencies (1/arcsec).
    """

    def __init__(
        self,
        pixels: int,
        pixel_scale: float,
        *,
        fineness: int,
        painted: int,
        device: torch.device,
    ):
        self.pixels, self.pixel_scale = pixels, pixel_scale
        self.painted, self.step = painted, pixel_scale / fineness
        self._cells = pixels * fineness
        self.wave_y = torch.fft.fftfreq(pixels, pixel_scale, device=device)
        self.wave_x = torch.fft.rfftfreq(pixels, pixel_scale, device=device)
        self._response_y = torch.sinc(self.wave_y * pixel_scale)
        self._response_x = torch.sinc(self.wave_x * pixel_scale)
        middle = torch.tensor([painted // 2 * self.step], device=device)
        self._centre_y = _phase(-middle, self.wave_y)
        self._centre_x = _phase(-middle, self.wave_x)

    def shifts(self, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return factors (n, ny), (n, nx) that shift light by y, x (arcsec) and bin it."""
        return _phase(y, self.wave_y) * self._response_y, _phase(x, self.wave_x) * self._response_x

    def elliptical_waves(self, position_angle: Tensor, axis_ratio: Tensor, scale: Tensor) -> Tensor:
        """Compute squared frequencies (n, ny, nx), in units of 1/scale, for ellipses (n,)."""
        cosine = torch.cos(position_angle)[:, None, None]
        sine = torch.sin(position_angle)[:, None, None]
        down, along = self.wave_y[:, None], self.wave_x
        major = along * cosine + down * sine
        minor = (down * cosine - along * sine) * axis_ratio[:, None, None]
        return (major.square() + minor.square()) * scale.square()[:, None, None]

    def transform(self, cells: Tensor) -> Tensor:
        """Compute the centred transforms (n, ny, nx) of painted disks (n, painted, painted).

        Frequencies beyond the Nyquist frequency of the survey's pixels are dropped: the seeing
        removes them.
        """
        half = self.pixels // 2
        rows = torch.fft.rfft(cells, n=self._cells, dim=-1)[..., : half + 1] * self._centre_x
        columns = torch.fft.fft(rows, n=self._cells, dim=-2)
        columns = torch.cat([columns[..., :half, :], columns[..., -half:, :]], dim=-2)
        return columns * self._centre_y[..., None]

    def image(self, spectrum: Tensor, size: int) -> Tensor:
        """Compute the central image (..., size, size) from a transform (..., ny, nx)."""
        edge = (self.pixels - size) // 2
        image = torch.fft.irfft2(spectrum, s=(self.pixels, self.pixels))
        return image[..., edge : edge + size, edge : edge + size]

    def aperture_weights(self, radius: float, fwhm: float) -> Tensor:
        """Compute weights (ny, nx) of a circular aperture.

        Their product with a centred transform sums to the light in the aperture.

        Parameters
        ----------
        radius : float
            Radius of the aperture (arcsec).
        fwhm : float
            Full width at half maximum of a Gaussian seeing (arcsec).
        """
        sigma = fwhm / (2 * math.sqrt(2 * math.log(2)))
        wave = torch.sqrt(self.wave_y[:, None] ** 2 + self.wave_x**2).clamp(min=1e-6)
        aperture = radius * torch.special.bessel_j1(2 * math.pi * radius * wave) / wave
        seeing = torch.exp(-2 * (math.pi * sigma * wave) ** 2)
        twice = torch.full_like(self.wave_x, 2.0)
        twice[0] = twice[-1] = 1.0
        return aperture * seeing * twice / (self.pixels * self.pixel_scale) ** 2


def _phase(position: Tensor, wave: Tensor) -> Tensor:
    """Phase factors (n, m) of shifts (n,) at frequencies (m,)."""
    angle = -2 * math.pi * position[:, None] * wave
    return torch.polar(torch.ones_like(angle), angle)
