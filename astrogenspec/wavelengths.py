"""Logarithmic wavelength grids of simulated and generated spectra, and emission lines on them.

Wavelengths are in vacuum.  Lines are Gaussians whose width is the quadratic sum of the velocity
dispersion and the resolution of the spectrograph; they are normalised on the pixels of the grid, so
that their flux is conserved.
"""

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
    "MEASURED_LINES",
    "PIXEL_VELOCITY",
    "REST",
    "SED_GRID",
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
        Number of pixels.
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
        """Bin edges (Angstrom), shape (size + 1,)."""
        return 10 ** (self.start + self.step * (np.arange(self.size + 1) - 0.5))

    @property
    def width(self) -> np.ndarray:
        """Bin widths (Angstrom)."""
        return np.diff(self.edges)

    def average_weights(self, wavelength: np.ndarray, response: np.ndarray) -> np.ndarray:
        r"""Compute the weights of the bins in the average over a filter.

        The AB flux of a spectral energy distribution in a filter is the sum over the bins of its
        mean flux densities per unit of frequency times :math:`\int R\, d\ln\lambda` of each bin,
        in units of that of the whole filter.

        Parameters
        ----------
        wavelength : ndarray, shape (m,)
            Angstrom, increasing.
        response : ndarray, shape (m,)
            Response per photon, on any scale; zero outside.

        Returns
        -------
        ndarray, shape (size,)
            The sum is one if the grid covers the filter.
        """
        known = np.log(np.asarray(wavelength, dtype=float))
        edges = np.log(self.edges)
        dense = np.union1d(known, edges[(edges > known[0]) & (edges < known[-1])])
        values = np.interp(dense, known, np.asarray(response, dtype=float))
        area = 0.5 * (values[1:] + values[:-1]) * np.diff(dense)
        cumulative = np.concatenate([[0], np.cumsum(area)])
        return np.diff(np.interp(edges, dense, cumulative)) / cumulative[-1]


#: Rest-frame grid on which spectra are generated, 2500-10912 A; it covers ugriz at all redshifts of
#: the training set.
REST = LogGrid(3.398, 1e-4, 6400)
#: Observed-frame grid that covers the bands ugriz, 2950-11421 A.
WIDE = LogGrid(3.4698, 1e-4, 5880)
#: Observed-frame grid of generated spectra, 3800-9200 A; a subset of the pixels of `WIDE`.
GENERATED = LogGrid(3.5798, 1e-4, 3841)
#: Observed-frame grid of the spectral energy distributions of whole galaxies, 1496-25,113 A, in
#: bins of 0.0025 dex with the mean flux density per unit of frequency.
SED_GRID = LogGrid(3.17615, 0.0025, 490)


#: Vacuum wavelengths (Angstrom) of the narrow lines.
LINES = {
    "OII3727": 3727.09, "OII3730": 3729.88, "NeIII3870": 3869.86, "Hdelta": 4102.89,
    "Hgamma": 4341.69, "Hbeta": 4862.69, "OIII4960": 4960.30, "OIII5008": 5008.24,
    "HeI5877": 5877.30, "OI6302": 6302.05, "NII6550": 6549.86, "Halpha": 6564.61,
    "NII6585": 6585.27, "SII6718": 6718.29, "SII6733": 6732.67, "ArIII7138": 7137.80,
    "SIII9071": 9071.10,
}  # fmt: skip
LINE_NAMES = tuple(LINES)
#: The same lines by their names in `astrogenspec.measure`.
MEASURED_LINES = (
    "oii3726", "oii3729", "neiii3869", "hdelta", "hgamma", "hbeta", "oiii4959", "oiii5007",
    "hei5876", "oi6300", "nii6548", "halpha", "nii6584", "sii6717", "sii6731", "ariii7136",
    "siii9069",
)  # fmt: skip
#: Broad lines of an unobscured nucleus, and their dispersion (km/s).
BROAD_LINES = ("Hbeta", "Halpha")
BROAD_VELOCITY = 1300.0
#: Flux ratio of Halpha to Hbeta of broad lines.
BROAD_DECREMENT = 3.1
#: Half width of a line profile, in standard deviations.
_PROFILE_RADIUS = 4.5
#: Dispersion of the spectrograph (pixels).
_LINE_SIGMA = 1.0


def line_index(name: str) -> int:
    """Return the column of a line in arrays of `LINES`."""
    return LINE_NAMES.index(name)


def narrow_line_velocity(dispersion: Tensor) -> Tensor:
    """Return the velocity dispersion of the gas for that of the stars (km/s), shape (n,).

    Assumption: 0.7 of the stellar dispersion, limited to 40-250 km/s, because gas in disks has a
    lower dispersion than the stars of the bulge.
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
        Wavelength grid of the spectra.
    names : tuple of str, length k
        Keys of `LINES`.
    flux : Tensor, shape (n, k)
        Integrated fluxes in the unit of the spectrum times Angstrom.
    velocity : Tensor, shape (n,)
        Velocity dispersion (km/s).
    redshift : Tensor, shape (n,)
        Redshift of the lines.

    Returns
    -------
    Tensor, shape (n, grid.size)
        Spectra with lines; only the part of a line inside the grid is added.
    """
    rest = torch.tensor(
        [LINES[name] for name in names], dtype=torch.float64, device=spectrum.device
    )
    position = torch.log10(rest * (1 + redshift.double()[:, None])) - grid.start
    position = position / grid.step
    sigma = torch.sqrt((velocity / PIXEL_VELOCITY) ** 2 + _LINE_SIGMA**2)[:, None, None]
    reach = int(np.ceil(_PROFILE_RADIUS * float(sigma.max()))) if len(spectrum) else 0
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
