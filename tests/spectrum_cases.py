"""Artificial spectra with known lines and slopes, for the tests of spectrum draws."""

import astropy.units as u
import numpy as np

from astrogenspec.quantities import LINE_FLUX_UNIT
from astrogenspec.results.spectra import FLUX_UNIT, SpectrumDraws

HALPHA = 6564.61


def log_grid(n_pixels=3841, start=3.5798):
    return 10 ** (start + 1e-4 * np.arange(n_pixels)) * u.AA


def line(wavelength, centre, flux, sigma_pixels=1.5):
    """Return a Gaussian line in logarithmic wavelength with a given flux."""
    log = np.log(wavelength.value / centre) / (1e-4 * np.log(10))
    profile = np.exp(-0.5 * (log / sigma_pixels) ** 2) / (np.sqrt(2 * np.pi) * sigma_pixels)
    return flux * profile / (wavelength.value * 1e-4 * np.log(10))


def flux_of(wavelength, values):
    """Integrate the flux density over the grid of 1e-4 dex."""
    return (np.asarray(values) * wavelength.value).sum(axis=-1) * 1e-4 * np.log(10)


def some_spectra(n_galaxies=4, n_draws=6, *, n_pixels=300, bad=2, seed=0, **kwargs):
    """Return spectra with all optional data, in which one galaxy is unusable."""
    rng = np.random.default_rng(seed)
    flux = rng.normal(20, 2, (n_galaxies, n_draws, n_pixels)).astype(np.float32)
    redshift = rng.normal(0.1, 0.001, (n_galaxies, n_draws))
    residual = rng.normal(0, 0.02, (n_galaxies, n_draws, 5)).astype(np.float32)
    residual[:, :, 0] = np.nan
    trusted = rng.random((n_galaxies, n_pixels)) > 0.1
    posterior_draw = rng.integers(0, 50, (n_galaxies, n_draws))
    flags = [""] * n_galaxies
    if bad is not None and bad < n_galaxies:
        flux[bad], redshift[bad], residual[bad], trusted[bad] = np.nan, np.nan, np.nan, False
        flags[bad] = "no flux in any band"
    options = {
        "weights": rng.random((n_galaxies, n_draws)),
        "names": [f"galaxy {number}" for number in range(n_galaxies)],
        "flags": flags,
        "photometric_residual": residual * u.mag,
        "trusted": trusted,
        "posterior_draw": posterior_draw,
        "line_flux": {
            name: rng.gamma(2, 10, (n_galaxies, n_draws)) * LINE_FLUX_UNIT
            for name in ("halpha", "oiii5007")
        },
        "meta": {"seed": seed},
    }
    return SpectrumDraws(flux * FLUX_UNIT, log_grid(n_pixels), redshift, **(options | kwargs))


def assert_same(one, other):
    np.testing.assert_array_equal(one.flux.value, other.flux.value)
    np.testing.assert_array_equal(one.wavelength.value, other.wavelength.value)
    for name in ("redshift", "weights", "trusted", "posterior_draw"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert (one.line_flux is None) == (other.line_flux is None)
    for name, flux in (one.line_flux or {}).items():
        assert flux.unit == other.line_flux[name].unit == LINE_FLUX_UNIT
        np.testing.assert_array_equal(flux.value, other.line_flux[name].value)
    assert (one.names, one.flags) == (other.names, other.flags)
    assert dict(one.meta) == dict(other.meta)
    assert (one.photometric_residual is None) == (other.photometric_residual is None)
    if one.photometric_residual is not None:
        assert one.photometric_residual.unit == other.photometric_residual.unit == u.mag
        np.testing.assert_array_equal(
            one.photometric_residual.value, other.photometric_residual.value
        )
