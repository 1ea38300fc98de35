"""Grids of vacuum wavelengths, equally spaced in log10, of the simulator and of generated spectra."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "BROAD_DECREMENT",
    "BROAD_LINES",
    "BROAD_VELOCITY",
    "GENERATED",
    "LINES",
    "LINE_NAMES",
    "PIXEL_VELOCITY",
    "REST",
    "WIDE",
    "LogGrid",
    "add_lines",
    "line_index",
    "narrow_line_velocity",
]

#: Velocity of a pixel of 1e-4 dex (km/s).
PIXEL_VELOCITY = 69.0


@dataclass(frozen=True)
class LogGrid:
    """A grid of vacuum wavelengths, equally spaced in log10.

    Attributes
    ----------
    start, step : float
        log10 of the first wavelength (Angstrom) and spacing (dex).
    size : int
    """

    start: float
    step: float
    size: int

    @property
    def log_wavelength(self) -> np.ndarray:
        """log10 of the bin centres (Angstrom)."""
        return self.start + self.step * np.arange(self.size)

    @property
    def wavelength(self) -> np.ndarray:
        """Bin centres (Angstrom)."""
        return 10**self.log_wavelength

    @property
    def edges(self) -> np.ndarray:
        """Bin edges (Angstrom), one more than bins."""
        return 10 ** (self.start + self.step * (np.arange(self.size + 1) - 0.5))

    @property
    def width(self) -> np.ndarray:
        """Bin widths (Angstrom)."""
        return np.diff(self.edges)


#: Rest-frame grid on which spectra are generated, 2500-10912 A: it covers ugriz at all redshifts of training.
REST = LogGrid(3.398, 1e-4, 6400)
#: Observed-frame grid that holds the bands ugriz, 2950-11421 A.
WIDE = LogGrid(3.4698, 1e-4, 5880)
#: Observed-frame grid of the spectra handed out, 3800-9200 A; pixels of `WIDE`.
GENERATED = LogGrid(3.5798, 1e-4, 3841)


#: Vacuum wavelengths (Angstrom) of the narrow lines.
LINES = {
    "OII3727": 3727.09, "OII3730": 3729.88, "NeIII3870": 3869.86, "Hdelta": 4102.89,
    "Hgamma": 4341.69, "Hbeta": 4862.69, "OIII4960": 4960.30, "OIII5008": 5008.24,
    "HeI5877": 5877.30, "OI6302": 6302.05, "NII6550": 6549.86, "Halpha": 6564.61,
    "NII6585": 6585.27, "SII6718": 6718.29, "SII6733": 6732.67, "ArIII7138": 7137.80,
    "SIII9071": 9071.10,
}  # fmt: skip
LINE_NAMES = tuple(LINES)
#: Lines that an unobscured nucleus adds, and their dispersion (km/s).
BROAD_LINES = ("Hbeta", "Halpha")
BROAD_VELOCITY = 1300.0
#: Halpha over Hbeta of broad lines.
BROAD_DECREMENT = 3.1
_REACH = 4.5
_LINES_SIGMA = 1.0  # dispersion of the spectrograph, pixels


def line_index(name: str) -> int:
    """Column of a line in arrays of lines."""
    return LINE_NAMES.index(name)


def narrow_line_velocity(dispersion: Tensor) -> Tensor:
    """Velocity dispersion of the gas (km/s) of galaxies with that of the stars, shape (n,).

    Gas in disks moves more slowly than the stars of the bulge; 0.7 of it between 40 and 250 km/s is an assumption.
    """
    return (0.7 * dispersion).clamp(40, 250)


def add_lines(
    spectrum: Tensor,
    grid: LogGrid,
    names: tuple[str, ...],
    flux: Tensor,
    velocity: Tensor,
    redshift: Tensor,
) -> Tensor:
    """Add Gaussian lines to spectra.

    Parameters
    ----------
    spectrum : Tensor, shape (n, grid.size)
        Flux density per Angstrom.
    grid : LogGrid
    names : tuple of str, length k
        Keys of `LINES`.
    flux : Tensor, shape (n, k)
        Integrated fluxes, in the unit of the spectrum times Angstrom.
    velocity : Tensor, shape (n,)
        Velocity dispersion, km/s.
    redshift : Tensor, shape (n,)

    Returns
    -------
    Tensor, shape (n, grid.size)
        A line that is not on the grid, or not wholly, keeps what falls on it.
    """
    rest = torch.tensor(
        [LINES[name] for name in names], dtype=torch.float64, device=spectrum.device
    )
    position = torch.log10(rest * (1 + redshift.double()[:, None])) - grid.start
    position = position / grid.step
    sigma = torch.sqrt((velocity / PIXEL_VELOCITY) ** 2 + _LINES_SIGMA**2)[:, None, None]
    reach = int(np.ceil(_REACH * float(sigma.max()))) if len(spectrum) else 0
    pixel = torch.round(position).long()[..., None] + torch.arange(
        -reach, reach + 1, device=spectrum.device
    )
    profile = torch.exp(-0.5 * ((pixel - position[..., None]).to(sigma) / sigma) ** 2)
    profile = profile / profile.sum(-1, keepdim=True)
    inside = (pixel >= 0) & (pixel < grid.size)
    pixel = pixel.clamp(0, grid.size - 1)
    width = torch.tensor(grid.width, dtype=spectrum.dtype, device=spectrum.device)
    height = profile * flux[..., None] / width[pixel] * inside
    return spectrum.scatter_add(1, pixel.flatten(1), height.flatten(1).to(spectrum))
