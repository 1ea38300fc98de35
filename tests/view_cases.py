"""Posteriors, images and a browser for the tests of pages."""

import shutil
from contextlib import contextmanager

import astropy.units as u
import numpy as np
import pytest
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.table import QTable
from astropy.wcs import WCS
from posterior_cases import gaussian_posterior

from astrogenspec import Flag
from astrogenspec.quantities import quantities_to_theta
from astrogenspec.results.information import population_of

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
#: A name that would run a script if it were inserted as markup.
HOSTILE = "</script><script>document.title='owned'</script><b>&amp;"


def shown_posterior(n_galaxies=12, n_draws=60, seed=4):
    """Return a posterior with flags, names, photometry and a population, and its truth."""
    posterior, truth = gaussian_posterior(n_galaxies, n_draws, seed=seed)
    names = [f"galaxy {k}" for k in range(n_galaxies)]
    names[1] = HOSTILE
    codes = np.zeros(n_galaxies, np.int64)
    flags = [""] * n_galaxies
    codes[2], flags[2] = (
        int(Flag.SATURATED | Flag.OFF_CENTRE),
        "may be saturated; <i>off</i> centre",
    )
    population = population_of(
        quantities_to_theta({k: v.ravel() for k, v in posterior.draws.items()})
    )
    photometry = QTable()
    for band, magnitude in zip("gri", (18.0, 17.4, 17.1), strict=True):
        value = 10 ** (0.4 * (22.5 - magnitude - 0.1 * np.arange(n_galaxies)))
        photometry[f"flux_{band}"] = value * u.nmgy
        photometry[f"flux_err_{band}"] = 0.01 * value * u.nmgy
        photometry[f"extinction_{band}"] = 0.0 * np.ones(n_galaxies) * u.mag
    made = type(posterior)(
        posterior.draws,
        names=names,
        flags=flags,
        flag_codes=codes,
        photometry=photometry,
        meta={"population": population, "model": "m", "version": "1", "calibrated": True},
    )
    return made, QTable({"name": names} | truth)


def rotated_cutout(size=16, angle=30.0):
    """Return images whose WCS is rotated by an angle (degrees, from north towards east)."""
    turn = np.radians(angle)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix = [150.0, 40.0], [size / 2, size / 2]
    scale = 0.4 / 3600
    wcs.wcs.cd = scale * np.array([[-np.cos(turn), np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    y, x = np.mgrid[:size, :size] - size / 2
    shape = np.exp(-np.hypot(x, y) / 3)
    noise = StdDevUncertainty(np.full((size, size), 0.01))
    return {band: CCDData(shape, unit=u.nmgy, wcs=wcs, uncertainty=noise) for band in "gri"}


@contextmanager
def open_browser():
    """Start the browser of the system; skip the test if there is none."""
    sync_api = pytest.importorskip("playwright.sync_api")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("neither Chromium nor Chrome is installed")
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()
