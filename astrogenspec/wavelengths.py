"""Grids of vacuum wavelengths, equally spaced in log10, of the simulator and of generated spectra."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["GENERATED", "PIXEL_VELOCITY", "REST", "WIDE", "LogGrid"]

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
