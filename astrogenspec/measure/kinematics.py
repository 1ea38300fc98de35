r"""Velocity and velocity dispersion of the stars, by fitting templates.

The fit is that of `astrogenspec.measure.stellar_fit`.  The dispersion is corrected for the
difference between the resolution of the spectrum and that of the templates,
:math:`\sigma^2 = \sigma_\mathrm{fit}^2 -
(\sigma_\mathrm{spectrograph}^2 - \sigma_\mathrm{library}^2)`, averaged over the fitted pixels.  All
line-spread functions are assumed to be Gaussian.
"""

from __future__ import annotations

from contextlib import suppress

import astropy.units as u
import numpy as np
from astropy.table import QTable
from specutils import Spectrum

from ..flags import Flag, FlagLog
from .inputs import Medium, flag_missing_redshifts, spectrum_arrays
from .log_grid import log_spectrum
from .stellar_fit import FIT_FAILED, TOO_FEW_PIXELS, StellarFit, StellarProblem, fit_stars
from .templates import stellar_templates

__all__ = ["measure_kinematics", "velocity_dispersion"]

_SPEED = u.km / u.s
_COLUMNS = ("velocity", "velocity_err", "dispersion", "dispersion_err")
#: Velocity of a pixel of the logarithmic grid (km/s).
_PIXEL = 69.0


def measure_kinematics(
    spectrum: Spectrum,
    *,
    redshift: float | np.ndarray | None = None,
    medium: Medium | None = None,
    resolution: float = 1850.0,
) -> QTable:
    """Measure velocity and velocity dispersion of the stars by non-negative template fitting.

    Parameters
    ----------
    spectrum : `~specutils.Spectrum`
        One spectrum, or a stack with flux of shape (n, m); observed frame.
    redshift : float or array_like, shape (n,), optional
        Redshift, accurate to 1000 km/s; that of the spectrum by default.  Give 0 for a spectrum in
        the rest frame; NaN is missing.
    medium : {"vacuum", "air"}, optional
        Medium of the wavelengths; by default that in the header of the spectrum (CTYPE, AIRORVAC),
        or vacuum.
    resolution : float
        Resolving power, wavelength over FWHM; 1850 is that of the SDSS spectrographs in the blue
        (York et al. 2000, AJ 120, 1579) and of generated spectra.

    Returns
    -------
    `~astropy.table.QTable`
        One row for each spectrum: ``velocity`` relative to the redshift and ``dispersion``
        corrected for the spectrograph (km/s), each with an error (suffix ``_err``),
        ``reduced_chi2``, ``flags`` (bit codes, 0 if nothing was found) and ``flag`` (the same as
        text).

    Raises
    ------
    ImportError
        If the extra ``simulate``, which contains the templates, is not installed.
    TypeError
        If spectrum is not a `~specutils.Spectrum`.
    ValueError
        If the spectrum, redshift or resolution is invalid.

    Notes
    -----
    Errors are scaled up if the reduced chi square exceeds 1.  Without an uncertainty of the
    spectrum they are estimated from the residuals.
    """
    templates = stellar_templates()
    arrays = spectrum_arrays(spectrum, redshift=redshift, medium=medium)
    columns: dict[str, list[float]] = {name: [] for name in _COLUMNS}
    chi2, log = [], FlagLog(len(arrays))
    known = flag_missing_redshifts(arrays, log)
    for row in range(len(arrays)):
        problem = None
        if known[row]:
            problem = StellarProblem.of(
                log_spectrum(arrays, row), templates, float(arrays.redshift[row]), resolution
            )
        fit = None
        if problem is not None:
            with suppress(ValueError):
                fit = fit_stars(problem)
        for name, values in columns.items():
            values.append(np.nan if fit is None else getattr(fit, name))
        chi2.append(np.nan if fit is None else fit.reduced_chi2)
        if known[row]:
            _add_flags(log, row, problem, fit)
    table = QTable({name: values * _SPEED for name, values in columns.items()})
    table["reduced_chi2"] = chi2
    table["flags"] = log.codes
    table["flag"] = np.array(log.texts, dtype=str)
    return table


def velocity_dispersion(spectrum: Spectrum) -> u.Quantity:
    """Measure the velocity dispersion of the stars of one spectrum, for `SpectrumDraws.measure`.

    Parameters
    ----------
    spectrum : `~specutils.Spectrum`
        Flux of shape (m,), observed frame, with its redshift.

    Returns
    -------
    Quantity ['speed']
        Velocity dispersion (km/s); see `measure_kinematics`.
    """
    return measure_kinematics(spectrum)["dispersion"][0]


def _add_flags(
    log: FlagLog, row: int, problem: StellarProblem | None, fit: StellarFit | None
) -> None:
    if problem is None:
        log.add(row, Flag.NOT_COVERED, TOO_FEW_PIXELS)
    elif fit is None:
        log.add(row, Flag.FIT_FAILED, FIT_FAILED)
    elif fit.dispersion < 0.5 * np.sqrt(abs(fit.problem.missing) + _PIXEL**2):
        log.add(row, Flag.UNRESOLVED, "dispersion not resolved")
