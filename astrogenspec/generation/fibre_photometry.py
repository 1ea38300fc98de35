r"""Flux in the fibre of the spectrograph, measured on an image.

The image, seen through its own point-spread function P and averaged over square pixels B, is
brought to the seeing of the fibre, a Gaussian G of full width at half maximum `FIBRE_SEEING`, and
summed over the circular aperture A. In Fourier space this is one step: the flux is the sum over all
pixels of the image times the inverse transform of

.. math:: \frac{\hat A\,\hat G}{\hat P\,\hat B} ,

shifted to the centre of the galaxy. The ratio :math:`\hat G / (\hat P\,\hat B)` is limited to
`_MAX_RATIO`, so that the noise of images with bad seeing is not amplified. Light of other objects
in the fibre is included.

If the seeing of an image is not known, that of the survey is assumed. For simulated galaxies, whose
seeing scatters by 15% about the median of the survey as in SDSS, the logarithm of the measured flux
has a scatter of 0.06 about the true one, and of 0.02 with the true seeing (1.48 times the median
absolute deviation of 300 galaxies in r). The root mean square is 0.12 and 0.11: arms, bars and
similar features are in the image, but not in the simulator's true fibre fluxes.
"""

from __future__ import annotations

from functools import cache, lru_cache

import astropy.units as u
import numpy as np
from scipy.optimize import brentq
from scipy.special import j1

from ..inputs.cutouts import CutoutBatch
from ..surveys import BANDS, CUTOUT_SIZE, SDSS

__all__ = ["FIBRE_SEEING", "fibre_fluxes"]

#: Full width at half maximum of the seeing of the fibre (arcsec), as in the simulator.
FIBRE_SEEING = 1.4
#: Weights and relative widths of the three Gaussians of the point-spread function: the double
#: Gaussian of the SDSS imaging pipeline and a wing, as in the simulator.
_PSF_GAUSSIANS = ((0.88, 1.0), (0.10, 2.2), (0.02, 6.0))
_MAX_RATIO = 3.0
_SCALE = SDSS.pixel_scale.to_value(u.arcsec)
_RADIUS = SDSS.fibre_diameter.to_value(u.arcsec) / 2
_MEDIAN_SEEING = np.array([SDSS.psf_fwhm[band].to_value(u.arcsec) for band in BANDS])
_FWHM_PER_SIGMA = 2 * np.sqrt(2 * np.log(2))
_FREQUENCY = np.fft.fftfreq(CUTOUT_SIZE, _SCALE)
_FREQUENCIES = np.hypot(_FREQUENCY[:, None], _FREQUENCY)
_CENTRE_PIXEL = (CUTOUT_SIZE - 1) / 2
_PIXELS = np.arange(CUTOUT_SIZE)
#: Bands in which the centre is measured, in order of preference.
_CENTRE_BANDS = tuple(BANDS.index(band) for band in "rigzu")
#: Width of the weights of the centroid (pixels), maximum shift (pixels), and number of iterations.
_CENTRE_SIGMA, _MAX_SHIFT, _N_ITERATIONS = 1.8, 2.0, 12
#: Maximum fraction of the weights in bad pixels, and minimum signal-to-noise ratio of at least one
#: band.
_MAX_BAD = 0.1
_MIN_SNR = 5.0


def fibre_fluxes(
    cutouts: CutoutBatch, psf_fwhm: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Measure the flux of galaxies in a fibre of 3 arcsec on their centres.

    Parameters
    ----------
    cutouts : CutoutBatch
        Cutouts of n galaxies.
    psf_fwhm : ndarray, shape (n, 5), optional
        Full width at half maximum of the point-spread function of each image (arcsec); where NaN,
        that of the survey.

    Returns
    -------
    flux, error : ndarray, shape (n, 5)
        Observed flux and its error from pixel noise (nmgy). NaN in a band that cannot be measured.
    """
    n = len(cutouts)
    flux, error = np.full((n, len(BANDS)), np.nan), np.full((n, len(BANDS)), np.nan)
    seeing = np.tile(_MEDIAN_SEEING, (n, 1))
    if psf_fwhm is not None:
        seeing = np.where(np.isfinite(psf_fwhm), psf_fwhm, seeing)
    for k in range(n):
        good = cutouts.ivar[k] > 0
        centre = _centre(cutouts.flux[k], good)
        if centre is None:
            continue
        phase = np.exp(
            -2j * np.pi * (_FREQUENCY[:, None] * centre[0] + _FREQUENCY * centre[1]) * _SCALE
        )
        for band in np.flatnonzero(good.any(axis=(1, 2))):
            weight = np.fft.ifft2(_transfer(float(seeing[k, band])) * phase).real / _SCALE**2
            seen = np.where(good[band], weight, 0.0)
            fraction = seen.sum() / weight.sum()
            if np.abs(weight - seen).sum() > _MAX_BAD * np.abs(weight).sum():
                continue
            flux[k, band] = (seen * cutouts.flux[k, band]).sum() / fraction
            variance = np.divide(
                seen**2, cutouts.ivar[k, band], out=np.zeros_like(seen), where=good[band]
            )
            error[k, band] = np.sqrt(variance.sum()) / fraction
    weak = ~(flux > _MIN_SNR * error).any(axis=1)
    flux[weak] = error[weak] = np.nan
    return flux, error


def _centre(flux: np.ndarray, good: np.ndarray) -> tuple[float, float] | None:
    """Return the centroid (y, x) in pixels of the central light; None without good pixels there."""
    near = slice(int(_CENTRE_PIXEL) - 4, int(_CENTRE_PIXEL) + 6)
    usable = [k for k in _CENTRE_BANDS if good[k, near, near].mean() > 0.9]
    if not usable:
        return None
    light = np.where(good[usable[0]], np.maximum(flux[usable[0]], 0), 0.0).astype(float)
    y = x = _CENTRE_PIXEL
    for _ in range(_N_ITERATIONS):
        down, along = (np.exp(-0.5 * ((_PIXELS - c) / _CENTRE_SIGMA) ** 2) for c in (y, x))
        weighted = light * down[:, None] * along
        total = weighted.sum()
        if total <= 0:
            return None
        y, x = (
            float(
                np.clip(
                    (weighted.sum(axis) @ _PIXELS) / total,
                    _CENTRE_PIXEL - _MAX_SHIFT,
                    _CENTRE_PIXEL + _MAX_SHIFT,
                )
            )
            for axis in (1, 0)
        )
    return y, x


@cache
def _core_width() -> float:
    """Return sigma of the first Gaussian of a PSF of unit full width at half maximum."""

    def excess(sigma: float) -> float:
        heights = [(weight / ratio**2, ratio * sigma) for weight, ratio in _PSF_GAUSSIANS]
        half = sum(height * np.exp(-0.125 / width**2) for height, width in heights)
        return half - 0.5 * sum(height for height, _ in heights)

    return brentq(excess, 0.5 / _FWHM_PER_SIGMA, 1.01 / _FWHM_PER_SIGMA)


@cache
def _aperture() -> np.ndarray:
    """Return the Fourier transform of the circular aperture, shape (64, 64)."""
    wave = np.maximum(_FREQUENCIES, 1e-6)
    return _RADIUS * j1(2 * np.pi * _RADIUS * wave) / wave


@lru_cache(maxsize=16)
def _transfer(seeing: float) -> np.ndarray:
    """Return the Fourier transform of the weights of the pixels, shape (64, 64)."""
    blur = sum(
        weight * _gaussian(ratio * _core_width() * seeing) for weight, ratio in _PSF_GAUSSIANS
    )
    pixel = np.sinc(_FREQUENCY[:, None] * _SCALE) * np.sinc(_FREQUENCY * _SCALE)
    fibre = _gaussian(FIBRE_SEEING / _FWHM_PER_SIGMA)
    ratio = np.minimum(fibre / np.maximum(blur * pixel, 1e-9), _MAX_RATIO)
    return _aperture() * ratio


def _gaussian(sigma: float) -> np.ndarray:
    return np.exp(-2 * (np.pi * sigma * _FREQUENCIES) ** 2)
