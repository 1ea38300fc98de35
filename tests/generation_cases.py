"""Artificial galaxies with spectra, shared by tests of the spectrum network."""

import numpy as np
import torch

from astrogenspec.generation.components import Galaxy
from astrogenspec.generation.flux_calibration import TargetPhotometry
from astrogenspec.generation.network import SpectrumNetwork
from astrogenspec.wavelengths import LINE_NAMES, REST

NETWORK = {"width": 16, "depth": 1, "heads": 2, "detail_width": 16, "detail_depth": 1}


def make_galaxies(n, seed=0):
    """Return power laws with a break and absorption lines."""
    rng = np.random.default_rng(seed)
    wavelength = REST.wavelength
    slope, strength = rng.normal(0, 0.7, n), rng.uniform(0.05, 0.4, n)
    shape = (wavelength / 6165.0) ** slope[:, None]
    shape = shape * np.where(wavelength < 4000, 1 - strength[:, None], 1)
    for centre in (3934.8, 4102.9, 4341.7, 4862.7, 5176.0, 5895.6):
        dip = np.exp(-0.5 * ((wavelength - centre) / 6) ** 2)
        shape = shape * (1 - strength[:, None] * dip)
    lines = 10 ** rng.normal(0, 0.4, (n, 1)) * 10 ** rng.normal(-0.5, 0.1, (n, len(LINE_NAMES)))
    tensors = (0.25 * shape, lines, np.where(np.arange(n) % 5 == 0, 20.0, 0.0))
    scalars = (rng.uniform(0.03, 0.25, n), rng.uniform(60, 300, n), rng.uniform(0.1, 0.7, n))
    return Galaxy(
        *(torch.as_tensor(values, dtype=torch.float32) for values in (*tensors, *scalars))
    )


def make_theta(galaxies, seed=0):
    """Return properties of the galaxies; line fluxes are those of the spectra for 10 nmgy."""
    rng = np.random.default_rng(seed)
    theta = torch.as_tensor(rng.normal(size=(len(galaxies), 9)), dtype=torch.float32)
    theta[:, 0] = galaxies.redshift
    names = ("Halpha", "Hbeta", "NII6585", "OIII5008")
    columns = [LINE_NAMES.index(name) for name in names]
    theta[:, 5:] = torch.log10(10 * galaxies.narrow[:, columns])
    return theta


def photometry_of(flux, relative_error=0.02, **options):
    """Return AB photometry of fluxes (n, 5)."""
    values = flux.numpy().astype(float)
    return TargetPhotometry.from_survey(values, relative_error * values, torch.zeros(5), **options)


def make_network(seed=0):
    """Return a small untrained network with fitted scales."""
    torch.manual_seed(seed)
    network = SpectrumNetwork(**NETWORK)
    galaxies = make_galaxies(80, seed=5)
    network.fit_scales(galaxies, make_theta(galaxies))
    return network.eval()


def make_columns(n, seed=0):
    """Return columns of shards as written by ``astrogenspec simulate --training``."""
    rng = np.random.default_rng(seed)
    galaxies = make_galaxies(n, seed)
    total = 10 ** rng.uniform(1, 2, n)
    flux = np.stack([total * galaxies.fibre_fraction.numpy(), total], 1).astype(np.float32)
    twice = np.stack([np.ones(n), np.ones(n)], 1)[:, :, None].astype(np.float32)
    observed = (total[:, None] * [0.2, 0.6, 1.0, 1.3, 1.6]).astype(np.float32)
    broad = np.stack([galaxies.broad.numpy() / 3.1, galaxies.broad.numpy()], 1)
    return {
        "theta": make_theta(galaxies, seed).numpy(),
        "measurable": rng.random(n) < 0.5,
        "true_flux": observed,
        "error": 0.02 * observed,
        "measured_flux": observed,
        "measured_error": 0.02 * observed,
        "image": rng.random((n, 5, 64, 64)).astype(np.float16),
        "continuum": (galaxies.continuum.numpy()[:, None] * twice).astype(np.float16),
        "aperture_flux": flux,
        "narrow_flux": galaxies.narrow.numpy()[:, None] * flux[:, :, None],
        "broad_flux": broad[:, None] * flux[:, :, None],
        "velocity_dispersion": galaxies.dispersion.numpy(),
    }
