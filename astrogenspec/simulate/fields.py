"""The periodic square on which images are computed in Fourier space."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["FourierField"]


class FourierField:
    """A periodic field of survey pixels, and the finer grid on which disks are painted.

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
        """Factors (n, ny) and (n, nx) that move light from the origin to y, x (n,) in arcsec, and bin it to pixels."""
        return _phase(y, self.wave_y) * self._response_y, _phase(x, self.wave_x) * self._response_x

    def elliptical_waves(self, position_angle: Tensor, axis_ratio: Tensor, scale: Tensor) -> Tensor:
        """Square of the frequency (n, ny, nx) in units of 1/scale in the frame of ellipses (n,)."""
        cosine = torch.cos(position_angle)[:, None, None]
        sine = torch.sin(position_angle)[:, None, None]
        down, along = self.wave_y[:, None], self.wave_x
        major = along * cosine + down * sine
        minor = (down * cosine - along * sine) * axis_ratio[:, None, None]
        return (major.square() + minor.square()) * scale.square()[:, None, None]

    def transform(self, cells: Tensor) -> Tensor:
        """Transform (n, ny, nx) of painted disks (n, painted, painted), centred on the origin.

        Frequencies beyond those of the survey's pixels are dropped: seeing would remove them.
        """
        half = self.pixels // 2
        rows = torch.fft.rfft(cells, n=self._cells, dim=-1)[..., : half + 1] * self._centre_x
        columns = torch.fft.fft(rows, n=self._cells, dim=-2)
        columns = torch.cat([columns[..., :half, :], columns[..., -half:, :]], dim=-2)
        return columns * self._centre_y[..., None]

    def image(self, spectrum: Tensor, size: int) -> Tensor:
        """Image (..., size, size) around the middle of the field of a transform (..., ny, nx)."""
        edge = (self.pixels - size) // 2
        image = torch.fft.irfft2(spectrum, s=(self.pixels, self.pixels))
        return image[..., edge : edge + size, edge : edge + size]

    def aperture_weights(self, radius: float, fwhm: float) -> Tensor:
        """Weights (ny, nx) whose product with a centred transform sums to the light in a circular aperture.

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
    angle = -2 * math.pi * position[:, None] * wave
    return torch.polar(torch.ones_like(angle), angle)
