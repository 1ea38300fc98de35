"""The deep population: published relations, its junction with the local one, and samples."""

import h5py
import numpy as np
import pytest
import torch

from astrogenspec.cosmology import default_cosmology
from astrogenspec.quantities import QUANTITIES
from astrogenspec.simulate.dataset import Contents, write_shards
from astrogenspec.simulate.population import local_main_sequence
from astrogenspec.simulate.simulator import Sample, Simulator
from astrogenspec.simulate.spectrum import OBSERVED
from astrogenspec.simulate.ssp import FINE
from astrogenspec.surveys import BANDS, SDSS, get_filter
from astrogenspec.wavelengths import SED_GRID


@pytest.fixture(scope="module")
def simulator():
    return Simulator(population="deep")


@pytest.fixture(scope="module")
def galaxies(simulator):
    return simulator.batch(3, 0, Sample(magnitude_limit=23.5))


def at(z, mass=10.5):
    return torch.tensor([mass]), torch.tensor([z])


def double_schechter(log_mass, knee, phi1, slope1, phi2, slope2):
    """Number per Mpc3 and dex."""
    x = 10 ** (log_mass - knee)
    return np.log(10) * np.exp(-x) * (phi1 * x ** (1 + slope1) + phi2 * x ** (1 + slope2))


@pytest.mark.parametrize(
    ("z", "knee", "log_phi1", "log_phi2"),
    [(0.5, 10.8205, -2.5425, -2.9907), (1.0, 10.8575, -2.7543, -3.1410)],
)
def test_mass_function_is_that_of_leja_et_al(simulator, z, knee, log_phi1, log_phi2):
    """Parameters from the quadratics of Leja et al. (2020), appendix B, at z = 0.5 and 1."""
    mass = torch.linspace(9, 12, 3001, dtype=torch.float64)
    found = simulator.evolution.mass_function(mass, torch.tensor([z], dtype=torch.float64))
    expected = double_schechter(mass.numpy(), knee, 10**log_phi1, -0.28, 10**log_phi2, -1.48)
    assert np.trapezoid(found, mass) == pytest.approx(np.trapezoid(expected, mass), rel=2e-3)
    massive = mass > 11
    assert np.trapezoid(found[massive], mass[massive]) == pytest.approx(
        np.trapezoid(expected[massive.numpy()], mass[massive]), rel=5e-3
    )


def test_mass_function_declines_as_observed(simulator):
    """Densities at 10**10.5 Msun: Tomczak et al. (2014), within the 0.2 dex between surveys."""
    for z, published in ((0.35, -2.40), (0.625, -2.44), (0.875, -2.50), (1.125, -2.65)):
        found = torch.log10(simulator.evolution.mass_function(*at(z)))
        assert float(found) == pytest.approx(published, abs=0.2)


def test_mass_function_at_low_redshift_is_the_local_one(simulator):
    local = simulator.priors["population"]
    mass = np.linspace(8, 12, 41)
    expected = double_schechter(
        mass,
        local.mass_function_knee,
        local.mass_function_phi1,
        local.mass_function_slope1,
        local.mass_function_phi2,
        local.mass_function_slope2,
    )
    for z in (0.03, 0.1):
        found = simulator.evolution.mass_function(torch.tensor(mass), torch.tensor([z]))
        assert np.allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("log_mass", [9.0, 10.0, 11.0])
@pytest.mark.parametrize("z", [0.5, 0.8, 1.2])
def test_main_sequence_is_that_of_popesso_et_al(simulator, z, log_mass):
    """Equation 15 of Popesso et al. (2023), on a Chabrier initial mass function."""
    t = default_cosmology().age(z).to_value("Gyr")
    expected = 2.71 - 0.186 * t - np.log10(1 + 10 ** (10.86 - 0.0729 * t - log_mass)) - 0.03
    found = simulator.evolution.main_sequence(*at(z, log_mass))
    assert float(found) == pytest.approx(expected, abs=2e-3)


def test_main_sequence_at_published_points(simulator):
    """Speagle et al. (2014), equation 28, at 10**10.5 Msun: 0.3 dex is the spread of surveys."""
    for z in (0.5, 0.75, 1.0):
        t = default_cosmology().age(z).to_value("Gyr")
        published = (0.84 - 0.026 * t) * 10.5 - (6.51 - 0.11 * t)
        assert float(simulator.evolution.main_sequence(*at(z))) == pytest.approx(published, abs=0.3)


def test_relations_are_continuous(simulator):
    evolution = simulator.evolution
    local = local_main_sequence(*at(0.1), simulator.priors["population"])
    assert torch.equal(evolution.main_sequence(*at(0.1)), local)
    z = torch.linspace(0.02, 1.3, 2001)
    mass = torch.full_like(z, 10.5)
    for values in (
        evolution.main_sequence(mass, z),
        torch.log10(evolution.mass_function(mass, z)),
        evolution.population(mass, z).quenched_mass,
        evolution.population(mass, z).quiescent_ssfr,
        evolution.lines(z).seyfert_fraction,
    ):
        assert values.diff().abs().max() < 0.005


@pytest.mark.parametrize(
    ("z", "log_mass", "published"),
    [(0.35, 10.5, 0.428), (0.35, 11, 0.723), (1.125, 10.5, 0.338), (1.125, 11, 0.523)],
)
def test_quenched_fraction_is_that_of_surveys(simulator, z, log_mass, published):
    """Quiescent over all galaxies, from the mass functions of Tomczak et al. (2014), table 1."""
    mass, redshift = at(z, log_mass)
    priors = simulator.evolution.population(mass, redshift)
    by_mass = 1 - torch.exp(-((10 ** (mass - priors.quenched_mass)) ** priors.quenched_power))
    base = priors.quenched_base
    found = base + (1 - base) * priors.quenched_max * by_mass
    assert float(found) == pytest.approx(published, abs=0.12)


def test_same_seed_same_galaxies(simulator, galaxies):
    again = simulator.batch(3, 0, Sample(magnitude_limit=23.5))
    assert torch.equal(again.theta, galaxies.theta)
    assert torch.equal(again.observation.flux, galaxies.observation.flux)
    assert torch.equal(simulator.draw(50, seed=3).theta, galaxies.theta[:50])


def test_samples_are_deep(galaxies):
    z = galaxies.theta[:, 0]
    assert 0.4 < z.median() < 0.6
    assert 1.1 < z.max() < 1.3
    assert galaxies.observation.petrosian_r.max() > 23.4
    assert (galaxies.observation.petrosian_r < 23.5).all()


def test_labels_are_inside_their_bounds(galaxies):
    """All except the redshift, whose bound is that of the local population."""
    assert torch.isfinite(galaxies.theta).all()
    for k, info in enumerate(QUANTITIES.values()):
        if info.name != "redshift":
            assert (galaxies.theta[:, k] > info.lower).all(), info.name
            assert (galaxies.theta[:, k] < info.upper).all(), info.name


def test_stars_are_younger_than_the_universe(simulator, galaxies):
    ages = simulator.histories.grid.age_edges[:-1].repeat(7) / 1e9
    universe = default_cosmology().age(galaxies.theta[:, 0].numpy()).to_value("Gyr")
    older = ages > torch.tensor(universe)[:, None]
    for weights in galaxies.weights:
        assert ((weights * older).sum(1) < 1e-4 * weights.sum(1)).all()


def test_histories_sum_to_the_stellar_mass(simulator, galaxies):
    surviving = simulator.histories.grid.surviving.flatten()
    mass = sum((weights * surviving).sum(1) for weights in galaxies.weights)
    assert torch.allclose(torch.log10(mass), galaxies.properties["log_mass"], atol=1e-3)


def test_few_galaxies_lie_beyond_the_reach(simulator):
    """The smallest mass drawn at each redshift loses few galaxies of r < 23.5."""
    volume = simulator.candidates(20000, simulator.generator(1), Sample(volume=(0.05, 1.2, 7.5)))
    z, mass = volume.properties["redshift"], volume.properties["log_mass"]
    own = simulator.priors["evolution"]
    smallest = own.reach_mass + own.reach_distance * torch.log10(z) + own.reach_redshift * (z - 1)
    seen = volume.observation.petrosian_r < 23.5
    assert seen.sum() > 300
    assert (seen & (mass < smallest)).sum() / seen.sum() < 0.03


def test_fluxes_follow_from_the_spectral_energy_distributions(simulator, galaxies):
    seds = simulator.seds(galaxies[:300])
    offset = simulator.priors["observation"]
    for band in ("g", "i"):
        curve = get_filter(SDSS.filters[band])
        weights = SED_GRID.average_weights(curve.wavelength, curve.response)
        flux = seds @ torch.tensor(weights, dtype=torch.float32)
        flux = flux * 10 ** (-0.4 * offset[f"zero_point_{band}"])
        expected = galaxies.observation.true_flux[:300, BANDS.index(band)]
        assert torch.allclose(flux, expected, rtol=2e-3)


def test_spectra_are_missing_where_the_stellar_grid_ends(simulator, galaxies):
    chosen = galaxies[:100]
    spectra = simulator.spectra(chosen)
    rest = OBSERVED.wavelength / (1 + chosen.theta[:, :1].numpy())
    assert torch.equal(torch.isnan(spectra), torch.tensor(rest < 10**FINE.start))
    assert chosen.theta[:, 0].max() > 0.8


def test_images_of_the_deep_population(simulator, galaxies):
    images = simulator.images(galaxies[:4], simulator.generator(1), neighbours=False)
    assert torch.isfinite(images.flux).all()
    total = images.flux.sum((2, 3)) / galaxies.component_flux[:4].sum(2)
    assert ((total > 0.5) & (total < 1.1)).all()


def test_sizes_shrink_with_redshift(simulator):
    """van der Wel et al. (2014): (1 + z)**-0.75 and (1 + z)**-1.48, from z = 0.1."""
    galaxies = simulator.candidates(3000, simulator.generator(2), Sample(volume=(0.99, 1.01, 10.5)))
    factor, quiescent = galaxies.properties["size_factor"], galaxies.properties["quiescent"]
    assert float(factor[quiescent].mean()) == pytest.approx((2 / 1.1) ** -1.48, rel=0.01)
    assert float(factor[~quiescent].mean()) == pytest.approx((2 / 1.1) ** -0.75, rel=0.01)


def test_shards_of_the_deep_population(simulator, tmp_path):
    options = {"seed": 3, "contents": Contents("none", "none", seds=True), "progress": False}
    (path,) = write_shards(30, tmp_path, population="deep", workers=1, **options)
    with h5py.File(path) as file:
        theta, sed = file["theta"][:], file["sed"][:]
    assert np.array_equal(theta, simulator.draw(30, seed=3).theta.numpy())
    assert sed.shape == (30, 490) and np.isfinite(sed).all()
    with pytest.raises(ValueError, match="other settings"):
        write_shards(30, tmp_path, workers=1, **options)


def test_unknown_population(tmp_path):
    with pytest.raises(ValueError, match="population is 'far'; one of local, deep"):
        write_shards(30, tmp_path, population="far")

    with pytest.raises(ValueError, match="population is 'far'; one of local, deep"):
        Simulator(population="far")
