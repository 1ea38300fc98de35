"""Velocity and velocity dispersion of the stars; see `astrogenspec.measure.stellar_fit` for the method."""

from __future__ import annotations

import astropy.units as u
import numpy as np
from astropy.table import QTable
from specutils import Spectrum

from .inputs import Medium, spectrum_arrays
from .log_grid import log_spectrum
from .stellar_fit import StellarFit, StellarProblem, fit_stars
from .templates import stellar_templates

__all__ = ["measure_kinematics", "velocity_dispersion"]

_SPEED = u.km / u.s


def measure_kinematics(
    spectrum: Spectrum,
    *,
    redshift: float | np.ndarray | None = None,
    medium: Medium = "vacuum",
    resolution: float = 1850.0,
) -> QTable:
    """Measure velocity and dispersion of the stars by non-negative template fitting.

    Parameters
    ----------
    spectrum : `~specutils.Spectrum`
        One spectrum, or a stack with flux of shape (n, m); observed frame.
    redshift : float or array_like, shape (n,), optional
        By default that of the spectrum, and right to 1000 km/s; 0 means the rest frame.
    medium : {"vacuum", "air"}
        What the wavelengths of the spectrum are measured in.
    resolution : float
        Resolving power, wavelength over FWHM; 1850 is that of the SDSS spectrographs in the blue (York et al. 2000,
        AJ 120, 1579) and of generated spectra.

    Returns
    -------
    `~astropy.table.QTable`
        A row for each spectrum: ``velocity`` relative to the redshift and ``dispersion``, without the spectrograph
        (km/s), each with ``_err``, ``reduced_chi2`` and ``flag``, an empty string if nothing is wrong.

    Raises
    ------
    ImportError
        If the extra ``simulate``, which brings the templates, is not installed.
    TypeError
        If spectrum is not a `~specutils.Spectrum`.
    ValueError
        If the spectrum, redshift or resolution make no sense.

    Notes
    -----
    Errors hold for a chi square of at least 1 a pixel.  Without an uncertainty they rest on the residuals.
    """
    templates = stellar_templates()
    arrays = spectrum_arrays(spectrum, redshift=redshift, medium=medium)
    columns = {name: [] for name in ("velocity", "velocity_err", "dispersion", "dispersion_err")}
    chi2, flags = [], []
    for row in range(len(arrays)):
        problem = StellarProblem.of(
            log_spectrum(arrays, row), templates, float(arrays.redshift[row]), resolution
        )
        fit = None if problem is None else fit_stars(problem)
        for name, values in columns.items():
            values.append(np.nan if fit is None else getattr(fit, name))
        chi2.append(np.nan if fit is None else fit.reduced_chi2)
        flags.append(_flag(fit))
    table = QTable({name: values * _SPEED for name, values in columns.items()})
    table["reduced_chi2"] = chi2
    table["flag"] = flags
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
        km/s; see `measure_kinematics`.
    """
    return measure_kinematics(spectrum)["dispersion"][0]


def _flag(fit: StellarFit | None) -> str:
    if fit is None:
        return "too few pixels between 3750 and 7300 Angstrom"
    unresolved = fit.dispersion < 0.5 * np.sqrt(abs(fit.problem.missing) + 69.0**2)
    return "dispersion not resolved" if unresolved else ""
