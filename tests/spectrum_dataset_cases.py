"""Data sets whose observed spectra are made from known ones."""

import numpy as np
from generation_cases import make_galaxies
from training_cases import make_observed, write_real

from astrogenspec.wavelengths import REST

#: Flux in r in the fibre (nmgy).
FLUX = 20.0


def write_observed(path, n, seed):
    """Galaxies whose spectra are those of simulated ones without lines, with noise and gaps."""
    galaxies = make_galaxies(n, seed)
    columns = make_observed(n, seed)
    columns["theta"][:, 0] = galaxies.redshift.numpy()
    columns["velocity_dispersion"] = galaxies.dispersion.numpy().copy()
    columns["velocity_dispersion"][::5] = np.nan
    rng = np.random.default_rng(seed)
    flux = FLUX * galaxies.continuum.numpy()
    sigma = 0.02 * flux
    seen = REST.wavelength * (1 + galaxies.redshift.numpy()[:, None])
    ivar = np.where((seen > 3800) & (seen < 9200), sigma**-2, 0)
    ivar[:, 3000:3040] = 0
    noisy = flux + sigma * rng.standard_normal(flux.shape)
    columns["spectrum"] = np.where(ivar > 0, noisy, 0).astype("f4")
    columns["spectrum_ivar"] = ivar.astype("f4")
    columns["ebv"] = np.zeros(n, "f4")
    write_real(path, columns)
    return galaxies, columns
