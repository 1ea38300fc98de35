r"""Flux through the fibre of the spectrograph, measured on the image.

The fibre sees the galaxy through its own seeing, a Gaussian of `FIBRE_SEEING`; the image was taken through another
point-spread function and has square pixels.  With the transforms A of the aperture, G of the fibre's seeing, P of the
point-spread function and B of the pixel, the flux is the sum over the pixels of the image times the inverse transform of
:math:`A\,G / (P\,B)`, moved to the centre of the galaxy: the image is brought from one seeing to the other and summed over the
aperture in one step.  The ratio is limited to `_SHARPEST`, so that the noise of images with bad seeing is not blown up.
All light that enters the fibre counts, also that of other objects.

The seeing of an image is rarely known to the package; that of the survey is then assumed.  Simulated galaxies, whose seeing
scatters by 15% about the median of the survey as that of SDSS does, show what this costs: the logarithm of the flux scatters by
0.06 about the true one, and by 0.02 with the true seeing (1.48 times the median absolute deviation of 300 galaxies in r).  The
root mean square is 0.12 and 0.11: arms, bars and the like are on the image, but not in the simulator's true fibre fluxes.
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

#: Full width at half maximum of the seeing in front of the fibres (arcsec), as in the simulator.
FIBRE_SEEING = 1.4
#: Weights of three Gaussians that make up the point-spread function, and their widths over that of the first: the double
#: Gaussian of the SDSS imaging pipeline and a wing, as in the simulator.
_PARTS = ((0.88, 1.0), (0.10, 2.2), (0.02, 6.0))
_SHARPEST = 3.0
_SCALE = SDSS.pixel_scale.to_value(u.arcsec)
_RADIUS = SDSS.fibre_diameter.to_value(u.arcsec) / 2
_MEDIAN_SEEING = np.array([SDSS.psf_fwhm[band].to_value(u.arcsec) for band in BANDS])
_PER_SIGMA = 2 * np.sqrt(2 * np.log(2))
_WAVE = np.fft.fftfreq(CUTOUT_SIZE, _SCALE)
_WAVES = np.hypot(_WAVE[:, None], _WAVE)
_MIDDLE = (CUTOUT_SIZE - 1) / 2
_PIXELS = np.arange(CUTOUT_SIZE)
#: Bands in which the centre is looked for, best first.
_CENTRE_BANDS = tuple(BANDS.index(band) for band in "rigzu")
_CENTRE_SIGMA, _FARTHEST, _ROUNDS = 1.8, 2.0, 12  # pixels, pixels, iterations
#: Largest share of the weights that bad pixels may have.
_MOST_BAD = 0.1
_LEAST_SNR = 5.0


def fibre_fluxes(
    cutouts: CutoutBatch, psf_fwhm: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Measure the light of galaxies that enters a fibre of 3 arcsec on their centres.

    Parameters
    ----------
    cutouts : CutoutBatch
        Stamps of n galaxies.
    psf_fwhm : ndarray, shape (n, 5), optional
        Full width at half maximum of the point-spread function of each image (arcsec); that of the survey where it is NaN.

    Returns
    -------
    flux, error : ndarray, shape (n, 5)
        nmgy as observed; the error is that of the noise alone. NaN in a band that cannot be measured.
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
        phase = np.exp(-2j * np.pi * (_WAVE[:, None] * centre[0] + _WAVE * centre[1]) * _SCALE)
        for band in np.flatnonzero(good.any(axis=(1, 2))):
            weight = np.fft.ifft2(_transfer(float(seeing[k, band])) * phase).real / _SCALE**2
            seen = np.where(good[band], weight, 0.0)
            share = seen.sum() / weight.sum()
            if np.abs(weight - seen).sum() > _MOST_BAD * np.abs(weight).sum():
                continue
            flux[k, band] = (seen * cutouts.flux[k, band]).sum() / share
            variance = np.divide(
                seen**2, cutouts.ivar[k, band], out=np.zeros_like(seen), where=good[band]
            )
            error[k, band] = np.sqrt(variance.sum()) / share
    weak = ~(flux > _LEAST_SNR * error).any(axis=1)
    flux[weak] = error[weak] = np.nan
    return flux, error


def _centre(flux: np.ndarray, good: np.ndarray) -> tuple[float, float] | None:
    """Centroid (y, x) of the light near the middle of the stamp, pixels; None without good pixels there."""
    near = slice(int(_MIDDLE) - 4, int(_MIDDLE) + 6)
    usable = [k for k in _CENTRE_BANDS if good[k, near, near].mean() > 0.9]
    if not usable:
        return None
    light = np.where(good[usable[0]], np.maximum(flux[usable[0]], 0), 0.0).astype(float)
    y = x = _MIDDLE
    for _ in range(_ROUNDS):
        down, along = (np.exp(-0.5 * ((_PIXELS - c) / _CENTRE_SIGMA) ** 2) for c in (y, x))
        weighted = light * down[:, None] * along
        total = weighted.sum()
        if total <= 0:
            return None
        y, x = (
            float(
                np.clip(
                    (weighted.sum(axis) @ _PIXELS) / total, _MIDDLE - _FARTHEST, _MIDDLE + _FARTHEST
                )
            )
            for axis in (1, 0)
        )
    return y, x


@cache
def _core_width() -> float:
    """Sigma of the first Gaussian of a point-spread function whose full width at half maximum is one."""

    def excess(sigma: float) -> float:
        heights = [(weight / ratio**2, ratio * sigma) for weight, ratio in _PARTS]
        half = sum(height * np.exp(-0.125 / width**2) for height, width in heights)
        return half - 0.5 * sum(height for height, _ in heights)

    return brentq(excess, 0.5 / _PER_SIGMA, 1.01 / _PER_SIGMA)


@cache
def _aperture() -> np.ndarray:
    """Transform of the circular aperture, shape (64, 64)."""
    wave = np.maximum(_WAVES, 1e-6)
    return _RADIUS * j1(2 * np.pi * _RADIUS * wave) / wave


@lru_cache(maxsize=16)
def _transfer(seeing: float) -> np.ndarray:
    """Transform of the weights of the pixels, shape (64, 64)."""
    blur = sum(weight * _gaussian(ratio * _core_width() * seeing) for weight, ratio in _PARTS)
    pixel = np.sinc(_WAVE[:, None] * _SCALE) * np.sinc(_WAVE * _SCALE)
    fibre = _gaussian(FIBRE_SEEING / _PER_SIGMA)
    ratio = np.minimum(fibre / np.maximum(blur * pixel, 1e-9), _SHARPEST)
    return _aperture() * ratio


def _gaussian(sigma: float) -> np.ndarray:
    return np.exp(-2 * (np.pi * sigma * _WAVES) ** 2)
