"""Artificial posteriors with known truth, for the tests of posteriors, figures and calibration."""

import astropy.units as u
import numpy as np

from astrogenspec.quantities import QUANTITIES
from astrogenspec.results.posterior import Posterior

#: Mean and scatter of the population in dex (redshift: plain).
POPULATION = {
    "redshift": (0.15, 0.02),
    "stellar_mass": (10.5, 0.5),
    "sfr": (0.0, 0.7),
    "gas_metallicity": (8.7, 0.2),
    "black_hole_mass": (7.0, 0.6),
    "halpha_flux": (1.5, 0.6),
    "hbeta_flux": (1.0, 0.6),
    "nii6584_flux": (1.0, 0.6),
    "oiii5007_flux": (1.0, 0.6),
}


def quantity(values, unit):
    return u.Quantity(values, unit, subok=True)


def gaussian_posterior(
    n_galaxies, n_draws, *, seed=0, width=1.0, shift=0.0, quantities=tuple(QUANTITIES), **kwargs
):
    """Draw posteriors and truths around the same centres, with 0.3 times the population sigma.

    ``width`` scales the scatter of the draws, and ``shift`` moves them by a number of sigma: the
    posterior is calibrated for 1 and 0.
    """
    rng = np.random.default_rng(seed)
    draws, truth = {}, {}
    for name in quantities:
        mean, scatter = POPULATION[name]
        sigma = 0.3 * scatter
        centre = rng.normal(mean, scatter, n_galaxies)
        values = centre[:, None] + sigma * (
            shift + width * rng.standard_normal((n_galaxies, n_draws))
        )
        true = centre + sigma * rng.standard_normal(n_galaxies)
        if QUANTITIES[name].logarithmic:
            values, true = 10**values, 10**true
        draws[name] = quantity(values, QUANTITIES[name].unit)
        truth[name] = quantity(true, QUANTITIES[name].unit)
    return Posterior(draws, **kwargs), truth


def flagged_posterior(n_galaxies=4, n_draws=50, *, bad=2, **kwargs):
    """Return a posterior in which one galaxy has no draws."""
    posterior, truth = gaussian_posterior(n_galaxies, n_draws, **kwargs)
    draws = {name: values.copy() for name, values in posterior.draws.items()}
    for values in draws.values():
        values.value[bad] = np.nan
    flags = ["" if number != bad else "no flux in any band" for number in range(n_galaxies)]
    measurable = np.linspace(0, 1, n_galaxies)
    measurable[bad] = np.nan
    names = [f"galaxy {number}" for number in range(n_galaxies)]
    return Posterior(draws, names=names, flags=flags, measurable=measurable), truth
