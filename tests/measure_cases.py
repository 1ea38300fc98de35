"""Simple spectra for the tests of `astrogenspec.measure`."""

import astropy.units as u
import numpy as np
from astropy.nddata import StdDevUncertainty
from specutils import Spectrum

from astrogenspec.measure import line_definitions

UNIT = u.Unit("1e-17 erg / (s cm2 Angstrom)")
#: 3800-9200 Angstrom in steps of 1e-4 dex.
WAVELENGTH = 10 ** (3.5798 + 1e-4 * np.arange(3841))
REST = {str(row["name"]): row["wavelength"].value for row in line_definitions()}


def gaussian(centre, flux, sigma, wavelength=WAVELENGTH):
    """Return a Gaussian line of a given flux; sigma in km/s."""
    width = centre * sigma / 299792.458
    return flux * np.exp(-0.5 * ((wavelength - centre) / width) ** 2) / (np.sqrt(2 * np.pi) * width)


def emission(fluxes, redshift, sigma, velocity=0.0, wavelength=WAVELENGTH):
    """Return the sum of lines given by name; sigma (km/s) includes the spectrograph."""
    z = (1 + redshift) * (1 + velocity / 299792.458) - 1
    lines = (gaussian(REST[name] * (1 + z), f, sigma, wavelength) for name, f in fluxes.items())
    return sum(lines)


def spectrum(flux, redshift=0.0, error=None, mask=None, wavelength=WAVELENGTH):
    flux = np.asarray(flux, dtype=float)
    if error is not None:
        error = StdDevUncertainty(np.broadcast_to(np.asarray(error, dtype=float), flux.shape))
    return Spectrum(
        flux=flux * UNIT,
        spectral_axis=wavelength * u.AA,
        uncertainty=error,
        mask=mask,
        redshift=redshift,
    )
