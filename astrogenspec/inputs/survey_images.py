r"""Images of other surveys, as SDSS would have taken them.

The image encoder knows the filters, the seeing and the depth of SDSS.  Images of another survey are

- blurred to the seeing of SDSS, by a Gaussian of variance
  :math:`(q\,\sigma_\mathrm{SDSS})^2 - \sigma^2`, if they are sharper, where q is 1, or the largest
  ratio of the seeing of a band to that of SDSS, so that the colours of a galaxy do not change with
  radius because of the seeing;
- made noisier, with Gaussian noise, if a pixel has less noise than a sky pixel of SDSS;
- multiplied, band by band, by the flux ratio of the galaxy in the filter of SDSS and in their own,
  which follows from its photometry (`colour_terms`).

The last step is exact for a galaxy of one colour, and leaves out only the difference of two similar
filters times the colour gradient.  Bands are matched by their letters: an image in g of any survey
is one in g; other bands are not used.  The added noise depends on the pixels alone, so that the
same image always gives the same result.
"""

from __future__ import annotations

import warnings
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING

import astropy.units as u
import numpy as np
from scipy.ndimage import gaussian_filter

from ..surveys import BANDS, SDSS, Survey
from ..warnings import AstroGenSpecWarning
from .cutouts import CutoutBatch
from .features import PIXEL_SIGMA
from .filter_sets import sdss_filters
from .sed_features import SEDComponents, infer_photometry

if TYPE_CHECKING:
    from .photometry import PhotometryBatch

__all__ = ["as_sdss_images", "colour_terms"]

#: Full width at half maximum of a Gaussian in units of its standard deviation.
_FWHM = 2 * np.sqrt(2 * np.log(2))
#: Ratio of the seeing to that of SDSS from which results are too certain: at a seeing of 2 arcsec
#: in g, 59% of the true redshifts are in the 68% interval, and 61% at 1.7 arcsec.
_MAX_RATIO = 1.3
#: Pixels with less than this part of good pixels under the kernel stay bad.
_MIN_GOOD = 0.5


def as_sdss_images(cutouts: CutoutBatch, survey: Survey) -> CutoutBatch:
    """Bring images of another survey to the seeing and the depth of SDSS.

    Parameters
    ----------
    cutouts : CutoutBatch
        Images, on the pixels of SDSS.
    survey : Survey
        Survey of the images.

    Returns
    -------
    CutoutBatch
        With the filters of the survey; unchanged images for SDSS.

    Warns
    -----
    AstroGenSpecWarning
        If the seeing of a band is unknown, or much worse than that of SDSS.
    """
    if survey is SDSS:
        return cutouts
    filters = list(sdss_filters())
    flux, ivar = cutouts.flux.copy(), cutouts.ivar.copy()
    pixel = SDSS.pixel_scale.to_value(u.arcsec)
    for k, band in enumerate(BANDS):
        if band in survey.bands:
            filters[k] = survey.filter_of(band)
        else:
            flux[:, k] = ivar[:, k] = 0
    present = np.any(ivar > 0, axis=(2, 3))
    own, wanted = (_seeing(each) for each in (survey, SDSS))
    used = present.any(axis=0)
    if used.any():
        _warn_of_seeing(survey, np.where(used, own, wanted), np.where(used, own / wanted, 1.0))
    own = np.where(np.isfinite(own), own, wanted)
    worst = np.where(present, own / wanted, 1.0).max(axis=1, initial=1.0)
    widths = np.sqrt(np.maximum((worst[:, None] * wanted) ** 2 - own**2, 0)) / _FWHM / pixel
    for n, k in zip(*np.nonzero(present), strict=True):
        flux[n, k], ivar[n, k] = _degraded(flux[n, k], ivar[n, k], widths[n, k], PIXEL_SIGMA[k])
    return replace(cutouts, flux=flux, ivar=ivar, filters=tuple(filters))


def _seeing(survey: Survey) -> np.ndarray:
    """Return the seeing (arcsec) in ugriz; NaN where it is unknown."""
    unknown = np.nan * u.arcsec
    values = [survey.psf_fwhm.get(band, unknown).to_value(u.arcsec) for band in BANDS]
    return np.where(np.array(values) > 0, values, np.nan)


def _warn_of_seeing(survey: Survey, own: np.ndarray, ratio: np.ndarray) -> None:
    """Warn of bands of unknown seeing, and of one much worse than that of SDSS."""
    unknown = [band for band, width in zip(BANDS, own, strict=True) if not np.isfinite(width)]
    if unknown:
        warnings.warn(
            f"the survey {survey.name} has no psf_fwhm of {', '.join(unknown)}: images are taken "
            "to have the seeing of SDSS; add psf_fwhm to the survey.",
            AstroGenSpecWarning,
            stacklevel=3,
        )
    worst = int(np.nanargmax(ratio))
    if ratio[worst] > _MAX_RATIO:
        warnings.warn(
            f"the seeing of {own[worst]:g} arcsec in {BANDS[worst]} of the survey {survey.name} "
            "is worse than that of the training: intervals from images are too narrow; leave the "
            "band out of the images.",
            AstroGenSpecWarning,
            stacklevel=3,
        )


def _degraded(
    flux: np.ndarray, ivar: np.ndarray, width: float, noise: float
) -> tuple[np.ndarray, np.ndarray]:
    """Blur an image by a Gaussian (pixels), and raise its noise to a minimum (nmgy)."""
    seed = zlib.crc32(np.ascontiguousarray(flux).tobytes())
    good = ivar > 0
    variance = np.where(good, 1 / np.where(good, ivar, 1), 0)
    if width > 0:
        kernel = np.zeros((65, 65))
        kernel[32, 32] = 1
        share = np.square(gaussian_filter(kernel, width)).sum()
        part = gaussian_filter(good.astype(float), width)
        usable = part > _MIN_GOOD
        safe = np.where(usable, part, 1)
        flux = np.where(usable, gaussian_filter(np.where(good, flux, 0), width) / safe, 0)
        variance = gaussian_filter(variance, width / np.sqrt(2)) * share / safe
        good = usable & (variance > 0)
    extra = np.sqrt(np.maximum(noise**2 - variance, 0))
    deviates = np.random.default_rng(seed).standard_normal(flux.shape)
    flux = np.where(good, flux + extra * deviates, 0)
    total = np.where(good, variance + extra**2, 1)
    return flux.astype(np.float32), np.where(good, 1 / total, 0).astype(np.float32)


def colour_terms(
    cutouts: CutoutBatch, photometry: PhotometryBatch, components: SEDComponents
) -> np.ndarray:
    """Return the difference between the filters of images and those of SDSS for each galaxy.

    Parameters
    ----------
    cutouts : CutoutBatch
        Images of n galaxies.
    photometry : PhotometryBatch
        Photometry of the same galaxies.
    components : SEDComponents
        Components of the spectra of the population.

    Returns
    -------
    ndarray, shape (n, 5)
        Magnitude in the filter of the image minus that in the filter of SDSS; 0 for galaxies
        without photometry.
    """
    filters = cutouts.filters
    if filters == sdss_filters():
        return np.zeros((len(cutouts), len(BANDS)))
    inferred = infer_photometry(components, photometry)
    own, wanted = (
        components.predict(inferred, components.responses_of(each))[0].double().numpy()
        for each in (filters, sdss_filters())
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        terms = -2.5 * np.log10(own / wanted)
    return np.nan_to_num(terms, posinf=0.0, neginf=0.0)
