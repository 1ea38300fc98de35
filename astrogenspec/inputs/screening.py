r"""Errors outside the training range: bands that are ignored, and errors that are raised.

The networks learned from the errors of SDSS galaxies, and cannot judge an error that no training
galaxy had.

**A band is not used** if its signal-to-noise ratio is below `MIN_SNR`; if its error exceeds
`MAX_ERROR`; or if it is fainter or brighter than any galaxy of a survey (`MAGNITUDE_LIMITS`).  In
u, in which galaxies of the training set may be undetected, a flux of low signal-to-noise ratio is
used if its error is that of SDSS (`UNDETECTED`), unless it is exactly 0.

**An error is raised** to the smallest error of SDSS galaxies of the same magnitude, if it is
smaller.  The error in magnitudes, :math:`\sigma_m`, of SDSS galaxies of magnitude :math:`m` is

.. math:: \log_{10} \sigma_m = a (m - 17)^2 + b (m - 17) + c ,

constant beyond the range of the fit; the coefficients are those of the simulator
(``priors/observation.ecsv``), and the floor is `FLOOR` dex lower.  The errors of SDSS model fluxes
are above it, formal errors of deep surveys are not.  A signal-to-noise ratio above `MAX_SNR`, that
of the brightest galaxies of the training set, is flagged as well.

**Other filters**, and those of SDSS if the weights take any errors, are only screened for values
that no measurement of a galaxy has: brighter or fainter than `MAGNITUDE_LIMITS`, an error larger
than the flux of the brightest galaxy, or negative by more than `MAX_NEGATIVE` standard deviations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from ..flags import Flag, FlagLog
from ..surveys import BANDS
from .filter_sets import sdss_bands
from .fluxes import ab_magnitudes

__all__ = [
    "FLOOR",
    "MAGNITUDE_LIMITS",
    "MAX_ERROR",
    "MAX_NEGATIVE",
    "MAX_SNR",
    "MIN_SNR",
    "UNDETECTED",
    "error_floor",
    "screen",
    "typical_error",
]

#: Minimum signal-to-noise ratio of a band.
MIN_SNR = 1.0
#: Bands in which a galaxy may be undetected: range of its error, nmgy, and minimum signal-to-noise
#: ratio.  Of 7446 galaxies of SDSS, 33 have a signal-to-noise ratio below 1 in u, of at least -1.6,
#: with errors of 0.36 to 1.8 nmgy.
UNDETECTED = {"u": (0.2, 2.0, -3.0)}
#: Maximum error of a band, nmgy; the largest of the training galaxies is 1.8e4 nmgy.
MAX_ERROR = 2e4
#: Signal-to-noise ratios above which a band is flagged; the largest of 13,206 galaxies of SDSS are
#: 231, 660, 699, 702 and 584.
MAX_SNR = {"u": 250.0, "g": 700.0, "r": 750.0, "i": 750.0, "z": 600.0}
#: Maximum significance of a negative flux, in any filter: noise alone exceeds it in one of 3.5
#: million measurements.
MAX_NEGATIVE = 5.0
#: AB magnitudes of galaxies, brightest and faintest.
MAGNITUDE_LIMITS = (3.0, 30.0)
#: Difference between the typical error and the smallest one, dex.
FLOOR = {"u": 0.55, "g": 0.35, "r": 0.36, "i": 0.35, "z": 0.40}
#: Coefficients a, b, c of the typical error, and the range of magnitudes of the fit.
_ERRORS = {
    "u": (0.0212, 0.1896, -1.7605, 15.81, 22.24),
    "g": (0.0179, 0.1942, -2.2714, 14.31, 19.80),
    "r": (0.0129, 0.1920, -2.2333, 13.59, 18.17),
    "i": (0.0105, 0.1986, -2.1454, 13.11, 17.73),
    "z": (0.0013, 0.2192, -1.7141, 12.62, 17.41),
}
_MAG = 2.5 / np.log(10)

#: `~astrogenspec.inputs.photometry.PhotometryBatch`, whose module imports this one.
Batch = TypeVar("Batch", bound=Any)


def typical_error(magnitude: np.ndarray, band: str) -> np.ndarray:
    """Return the typical error of a galaxy of SDSS.

    Parameters
    ----------
    magnitude : ndarray
        AB magnitude; beyond the range of the fit, the error is constant.
    band : str
        Name of the band.

    Returns
    -------
    ndarray, of the same shape
        Magnitudes; NaN where the magnitude is NaN.
    """
    a, b, c, bright, faint = _ERRORS[band]
    x = np.clip(magnitude, bright, faint) - 17
    return 10 ** (a * x**2 + b * x + c)


def error_floor(flux: np.ndarray) -> np.ndarray:
    """Return the smallest errors of SDSS galaxies.

    Parameters
    ----------
    flux : ndarray, shape (n, 5)
        nmgy.

    Returns
    -------
    ndarray, shape (n, 5)
        nmgy; NaN where the flux is missing or not positive.
    """
    return _floors(np.asarray(flux, dtype=float), BANDS)


def screen(batch: Batch, *, sdss: bool = True) -> Batch:
    """Remove bands outside the training range, and raise errors that are too small.

    Fluxes measured on images are not changed.

    Parameters
    ----------
    batch : PhotometryBatch
        Photometry as observed.
    sdss : bool
        Whether to apply the limits of the training galaxies of SDSS to the filters of SDSS. Without
        them, and in other filters, only impossible values are removed.

    Returns
    -------
    PhotometryBatch
        With the flag ``BAND_NOT_USED`` where a band was removed, ``PHOTOMETRY_NOT_USED`` where no
        band is left, and ``HIGH_SIGNAL`` where a signal-to-noise ratio is above `MAX_SNR`. The same
        object if nothing was changed.
    """
    flux, error = batch.flux, batch.error
    given = batch.bands_present & ~np.asarray(batch.measured, bool)[:, None]
    bands = tuple(band if sdss else None for band in sdss_bands(batch.filters))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        reasons = _reasons(flux, error, bands)
        dropped = given & np.any(list(reasons.values()), axis=0)
        floor = _floors(flux, bands)
        small = given & ~dropped & (error < floor * (1 - 1e-9))
        high = given & ~dropped & (flux > error * np.array([_max_snr(band) for band in bands]))
    high &= ((np.asarray(batch.flag_codes) & Flag.HIGH_SIGNAL) == 0)[:, None]
    if not (dropped.any() or small.any() or high.any()):
        return batch
    log = FlagLog(len(batch))
    log.extend(batch.flag_codes, batch.problems)
    labels = batch.bands
    for k, label in enumerate(labels):
        left = dropped[:, k].copy()
        for reason, rows in reasons.items():
            found = left & rows[:, k]
            left &= ~found
            for row in np.flatnonzero(found):
                measured = f"{flux[row, k]:.3g} +- {error[row, k]:.3g} nmgy"
                log.add(int(row), Flag.BAND_NOT_USED, f"{label} not used: {measured}, {reason}")
    for row in np.flatnonzero(high.any(axis=1)):
        shown = ", ".join(label for k, label in enumerate(labels) if high[row, k])
        text = f"the signal-to-noise ratio in {shown} is above the training range"
        log.add(int(row), Flag.HIGH_SIGNAL, text)
    empty = dropped.any(axis=1) & ~(batch.bands_present & ~dropped).any(axis=1)
    log.add(empty, Flag.PHOTOMETRY_NOT_USED, "no band is left")
    return replace(
        batch,
        flux=np.where(dropped, np.nan, flux),
        error=np.where(dropped, np.nan, np.where(small, floor, error)),
        problems=log.texts,
        flag_codes=log.codes,
    )


def _max_snr(band: str | None) -> float:
    return np.inf if band is None else MAX_SNR[band]


def _floors(flux: np.ndarray, bands: Sequence[str | None]) -> np.ndarray:
    """Return the smallest errors of SDSS galaxies, nmgy; 0 in the columns of other filters."""
    floors = np.zeros(flux.shape)
    for k, band in enumerate(bands):
        if band is not None:
            typical = typical_error(ab_magnitudes(flux[:, k]), band)
            floors[:, k] = typical * 10 ** -FLOOR[band] * flux[:, k] / _MAG
    return floors


def _reasons(
    flux: np.ndarray, error: np.ndarray, bands: Sequence[str | None]
) -> dict[str, np.ndarray]:
    """Return where a band cannot be used, by reason; ``bands`` has None for other filters."""
    bright, faint = (10 ** (0.4 * (22.5 - limit)) for limit in MAGNITUDE_LIMITS)
    limited = np.array([band is not None for band in bands])
    low = ~(flux >= MIN_SNR * error)
    weak = low & limited
    for band, (smallest, largest, snr) in UNDETECTED.items():
        if band not in bands:
            continue
        k = bands.index(band)
        usual = (error[:, k] >= smallest) & (error[:, k] <= largest)
        usual &= flux[:, k] > snr * error[:, k]
        weak[:, k] &= ~usual | (flux[:, k] == 0)
    faded = np.where(limited, weak, low)
    reasons = {
        "an error larger than that of any training galaxy": (error > MAX_ERROR) & limited,
        f"a signal-to-noise ratio below {MIN_SNR:g}": weak,
        "brighter than any galaxy": flux > bright,
        "fainter than any galaxy of a survey": (flux > 0) & (flux < faint) & ~faded,
    }
    if limited.all():  # stricter limits
        return reasons
    return reasons | {
        "an error larger than the flux of any galaxy": error > bright,
        f"negative by more than {MAX_NEGATIVE:g} standard deviations": flux < -MAX_NEGATIVE * error,
    }
