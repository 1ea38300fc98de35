"""The simulator: stellar grid, population, spectra, photometry and selection."""

from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest
import speclite.filters
import torch
from astropy.cosmology import z_at_value

from astrogenspec.cosmology import default_cosmology
from astrogenspec.quantities import QUANTITIES
from astrogenspec.simulate import nebular
from astrogenspec.simulate.dataset import sed_columns
from astrogenspec.simulate.dust import lines_curve
from astrogenspec.simulate.interpolation import interpolate, inverse_cdf
from astrogenspec.simulate.photometry import (
    observe,
    observe_in,
    observed_filters,
    selection_probability,
    zero_point_curve,
)
from astrogenspec.simulate.priors import load_priors
from astrogenspec.simulate.simulator import Sample, Simulator
from astrogenspec.simulate.spectrum import OBSERVED
from astrogenspec.simulate.ssp import COARSE, FINE, TOTAL, StellarGrid
from astrogenspec.surveys import BANDS, SDSS, get_survey
from astrogenspec.wavelengths import LINES, SED_GRID, LogGrid, line_index


@pytest.fixture(scope="module")
def simulator():
    return Simulator()


@pytest.fixture(scope="module")
def galaxies(simulator):
    return simulator.batch(3, 0, Sample())


def test_interpolation_is_exact_on_lines_and_constant_outside():
    nodes = torch.tensor([0.0, 1.0, 3.0])
    values = 2 * nodes + 1
    x = torch.tensor([-1.0, 0.5, 2.0, 9.0])
    assert torch.allclose(interpolate(x, nodes, values), torch.tensor([1.0, 2.0, 5.0, 7.0]))


def test_inverse_cdf_draws_the_density():
    nodes = torch.linspace(0, 1, 400)
    drawn = inverse_cdf(torch.linspace(0.0005, 0.9995, 1000), nodes, 2 * nodes)
    assert drawn.mean() == pytest.approx(2 / 3, abs=0.005)


def test_log_grid_edges_enclose_centres():
    grid = LogGrid(3.5, 1e-3, 10)
    assert len(grid.edges) == 11
    assert (grid.edges[:-1] < grid.wavelength).all()
    assert (grid.wavelength < grid.edges[1:]).all()


def test_old_stars_are_redder_and_fainter():
    grid = StellarGrid.load()
    solar = grid.fine.reshape(7, 61, -1)[4]
    blue = (FINE.wavelength > 3900) & (FINE.wavelength < 4000)
    red = (FINE.wavelength > 6900) & (FINE.wavelength < 7000)
    old, young = (solar[k][torch.tensor(red)].mean() for k in (58, 20))
    assert young > 10 * old
    ratio = [
        float(solar[k][torch.tensor(blue)].mean() / solar[k][torch.tensor(red)].mean())
        for k in (20, 58)
    ]
    assert ratio[0] > 3 * ratio[1]
    assert ((grid.surviving > 0.3) & (grid.surviving <= 1.001)).all()


def test_a_missing_grid_names_the_extra_to_install(monkeypatch):
    import astrogenspec.simulate.ssp as ssp

    monkeypatch.setattr(ssp.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"astrogenspec\[simulate\]"):
        StellarGrid.load()


def test_labels_are_complete_and_inside_their_bounds(galaxies):
    assert galaxies.theta.shape == (len(galaxies), len(QUANTITIES))
    for k, info in enumerate(QUANTITIES.values()):
        column = galaxies.theta[:, k]
        assert (column > info.lower).all() and (column < info.upper).all(), info.name


def test_same_seed_same_galaxies_other_seed_others(simulator, galaxies):
    again = simulator.batch(3, 0, Sample())
    assert torch.equal(again.theta, galaxies.theta)
    assert torch.equal(again.observation.flux, galaxies.observation.flux)
    assert not torch.equal(simulator.batch(4, 0, Sample()).theta[:50], galaxies.theta[:50])


def test_histories_sum_to_the_stellar_mass(simulator, galaxies):
    surviving = simulator.histories.grid.surviving.flatten()
    mass = sum((weights * surviving).sum(1) for weights in galaxies.weights)
    assert torch.allclose(torch.log10(mass), galaxies.properties["log_mass"], atol=1e-3)


def test_histories_form_stars_at_the_given_rate(simulator, galaxies):
    ages = simulator.histories.grid.age_edges[1:]
    recent = (ages <= 1.05e8).repeat(7)
    formed = sum(weights[:, recent].sum(1) for weights in galaxies.weights)
    rate = torch.log10(formed / ages[ages <= 1.05e8][-1])
    forming = galaxies.properties["log_ssfr"] > -10.5
    # one returned fraction is assumed for all histories, which costs 0.08 dex; see the limitations
    # in the guide
    assert (rate - galaxies.properties["log_sfr"])[forming].abs().median() < 0.1


def test_spectra_agree_with_photometry(simulator, galaxies):
    chosen = galaxies[:200]
    flux = simulator.spectra(chosen) @ observed_filters(OBSERVED)
    parts = simulator.synthesis.broad_band(chosen.properties, chosen.weights, chosen.lines).flux
    expected = (parts[:, : len(BANDS)] * chosen.fibre[:, None]).sum(2)
    difference = -2.5 * torch.log10(flux / expected)
    assert (difference.abs().median(0).values < 0.005).all()


def test_stellar_corrections_have_no_steps(simulator):
    grid = simulator.synthesis.grid
    correction = torch.log(simulator.synthesis._basis[FINE][0] / grid.fine)
    assert correction.abs().max() > 0.1
    assert correction.diff(dim=1).abs().max() < 0.002


def test_the_red_slope_scatters_from_galaxy_to_galaxy(simulator, galaxies):
    chosen = galaxies[galaxies.theta[:, 0] < 0.1][:200]
    priors = load_priors("stellar_correction").replace(red_slope_scatter=0.0)
    straight = Simulator(priors={"stellar_correction": priors}).synthesis
    flux, without = (
        synthesis.broad_band(chosen.properties, chosen.weights, chosen.lines).flux[..., :3].sum(2)
        for synthesis in (simulator.synthesis, straight)
    )
    change = -2.5 * torch.log10(flux / without)
    deviate = chosen.properties["normal"][38]
    assert change[:, [BANDS.index("u"), BANDS.index("g")]].abs().max() < 1e-3
    reddening = change[:, BANDS.index("i")] - change[:, BANDS.index("z")]
    assert torch.corrcoef(torch.stack([reddening, deviate]))[0, 1] > 0.98
    assert reddening.std() == pytest.approx(0.013, abs=0.004)


def test_lines_in_the_spectrum_have_the_labelled_flux(simulator, galaxies):
    bright = galaxies[galaxies.halpha_width > 60][:20]
    spectrum = simulator.spectra(bright).numpy()
    step = np.diff(OBSERVED.edges)
    for row in range(len(bright)):
        z = float(bright.theta[row, 0])
        centre = LINES["OIII5008"] * (1 + z)
        near = np.abs(OBSERVED.wavelength - centre) < 18
        side = ~near & (np.abs(OBSERVED.wavelength - centre) < 28)
        flux = ((spectrum[row] - np.median(spectrum[row, side])) * step)[near].sum()
        expected = float(bright.line_flux[row, line_index("OIII5008")])
        continuum = np.median(spectrum[row, side])
        assert flux == pytest.approx(expected, abs=0.05 * expected + 0.6 * continuum)


def test_redshift_moves_the_spectrum(simulator, galaxies):
    bright = galaxies[galaxies.halpha_width > 60][:20]
    peak = OBSERVED.wavelength[simulator.spectra(bright).numpy()[:, 3400:].argmax(1) + 3400]
    halpha = LINES["Halpha"] * (1 + bright.theta[:, 0].numpy())
    assert np.median(np.abs(peak / halpha - 1)) < 3e-4


def test_distances_follow_the_default_cosmology(simulator):
    z = torch.tensor([0.02, 0.1, 0.25])
    scale = simulator.distances.kpc_per_arcsec(z).numpy()
    expected = default_cosmology().kpc_proper_per_arcmin(z.numpy()).to_value(u.kpc / u.arcsec)
    assert np.allclose(scale, expected, rtol=1e-3)
    assert z_at_value(default_cosmology().luminosity_distance, 500 * u.Mpc) < 0.12


def test_observed_scatter_matches_the_stated_errors(simulator):
    total = torch.full((20000, 6), 100.0)
    generator = torch.Generator().manual_seed(0)
    priors = simulator.priors["observation"].replace(tail_fraction=0, blend_fraction=0)
    seen = observe(total, priors, generator)
    pull = (seen.flux - seen.expected_flux)[:, 2] / seen.error[:, 2]
    assert pull.std() == pytest.approx(1, abs=0.03)
    assert torch.equal(seen.expected_flux, seen.true_flux)


def test_draw_returns_the_requested_number(simulator, galaxies):
    drawn = simulator.draw(50, seed=3)
    assert torch.equal(drawn.theta, galaxies.theta[:50])
    with pytest.raises(ValueError, match="n is 0"):
        simulator.draw(0, seed=3)


def test_selection_cuts_at_the_limit(simulator, galaxies):
    priors = simulator.priors["observation"]
    assert (galaxies.observation.petrosian_r < priors.magnitude_limit).all()
    deep = simulator.batch(3, 0, Sample(magnitude_limit=18.4))
    assert deep.observation.petrosian_r.max() > 18
    chance = selection_probability(deep.observation, priors, near_infrared=True)
    faint = deep.observation.j_magnitude > priors.j_limit + 1
    assert chance[faint].max() < 0.01


def test_concatenation_keeps_all_columns(galaxies):
    from astrogenspec.simulate.simulator import SimulatedGalaxies

    joined = SimulatedGalaxies.concatenate([galaxies[:10], galaxies[10:30]])
    assert len(joined) == 30
    assert torch.equal(joined.properties["normal"], galaxies[:30].properties["normal"])
    assert torch.equal(joined.structure.radius_disk, galaxies[:30].structure.radius_disk)


def test_rest_frame_spectra_do_not_depend_on_the_chunks(simulator, galaxies, monkeypatch):
    whole = simulator.rest_frame(galaxies[:5])
    monkeypatch.setattr("astrogenspec.simulate.simulator._CHUNK", 3)
    parts = simulator.rest_frame(galaxies[:5])
    assert len(parts) == 5 and parts.continuum.shape[:2] == (5, 2)
    torch.testing.assert_close(parts.continuum, whole.continuum, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(parts.narrow, whole.narrow, rtol=1e-4, atol=1e-3)


def band_flux(sed, name):
    """Flux of spectral energy distributions (n, 490) in a filter of speclite, shape (n,)."""
    curve = speclite.filters.load_filter(name)
    weights = SED_GRID.average_weights(curve.wavelength, curve.response)
    return sed @ torch.tensor(weights, dtype=torch.float32)


def test_total_grid_continues_the_coarse_one():
    offset = (COARSE.start - TOTAL.start) / TOTAL.step
    assert offset == pytest.approx(round(offset), abs=1e-9)
    grid = StellarGrid.load()
    assert grid.coarse.shape == (7 * 61, COARSE.size)
    assert torch.equal(grid.coarse, grid.total[:, round(offset) :][:, : COARSE.size])
    assert TOTAL.edges[0] > 911.76 and TOTAL.edges[-1] > SED_GRID.edges[-1]
    assert SED_GRID.edges[[0, -1]] == pytest.approx([1496, 25113], rel=1e-4)


def test_seds_agree_with_the_broad_bands(simulator, galaxies, monkeypatch):
    # Lines redward of 9071 A are part of the distributions only.
    without = {name: (*line[:2], 0.0) for name, line in nebular.RED_LINES.items()}
    monkeypatch.setattr(nebular, "RED_LINES", without)
    sed = simulator.seds(galaxies)
    light = simulator.synthesis.broad_band(galaxies.properties, galaxies.weights, galaxies.lines)
    names = [f"sdss2010-{band}" for band in BANDS]
    flux = torch.stack([band_flux(sed, name) for name in names], dim=1)
    difference = -2.5 * torch.log10(flux / light.flux[:, :5].sum(2))
    # A broad line near an edge of a filter is 40 A wide in one and 17 A in the other.
    narrow = ~galaxies.properties["broad_line"].bool()
    assert (difference**2).mean().sqrt() < 0.0005
    assert difference[narrow].abs().max() < 0.01
    assert difference.abs().max() < 0.02
    j = band_flux(sed, "twomass-J")
    assert torch.allclose(j, light.flux[:, 5].sum(1), rtol=0.01)


def test_seds_do_not_depend_on_the_chunks(simulator, galaxies):
    sed = simulator.seds(galaxies[:300])
    assert torch.allclose(sed[:30], simulator.seds(galaxies[:30]), rtol=1e-5)
    assert (sed > 0).all()


def test_seds_of_a_flat_spectrum_and_of_a_line(simulator, galaxies, monkeypatch):
    """A spectrum of 3631 Jy in the rest frame is flat when it is observed; a line keeps photons."""
    synthesis, few = simulator.synthesis, galaxies[:4]
    wavelength = torch.tensor(TOTAL.wavelength, dtype=torch.float32)
    flat = (wavelength**-2).expand(len(few), 4, -1).clone()
    monkeypatch.setattr(type(synthesis), "_parts", lambda *a: (flat, torch.ones(len(few), 1)))
    dark = {f: torch.zeros_like(v) for f, v in vars(few.lines).items()}
    sed = synthesis.seds(few.properties, few.weights, type(few.lines)(**dark))
    assert torch.allclose(sed, sed[:, :1].expand_as(sed), rtol=1e-3)
    lit = type(few.lines)(**dark | {"broad_halpha": torch.full((len(few),), 1e-4)})
    with_line = synthesis.seds(few.properties, few.weights, lit)
    z = few.properties["redshift"]
    excess = (with_line / sed - 1).double()
    # Equivalent width over the wavelength: that of a line of 1e-4 on a continuum 4 lambda^-2.
    integral = excess.sum(1) * SED_GRID.step * np.log(10)
    assert integral.numpy() == pytest.approx(1e-4 / 4 * LINES["Halpha"], rel=1e-3)
    centre = (excess * torch.tensor(SED_GRID.wavelength)).sum(1) / excess.sum(1)
    assert centre.numpy() == pytest.approx(LINES["Halpha"] * (1 + z.numpy()), rel=0.003)


def test_red_lines_follow_their_ratios_and_the_dust(galaxies):
    few = galaxies[galaxies.properties["attenuation_lines"] > 0.3][:5]
    narrow = torch.ones(len(few), len(LINES), 4)
    lines = nebular.red_lines(few.properties, narrow)
    wavelength, _, ratio = nebular.RED_LINES["Pabeta"]
    row = list(nebular.RED_LINES).index("Pabeta")
    old, old_disk, star_forming, nuclear = lines[:, row].unbind(1)
    assert torch.allclose(old, torch.full_like(old, ratio)) and torch.equal(old, old_disk)
    curve = lines_curve(np.array([wavelength, LINES["Halpha"]]))
    at_halpha = few.properties["attenuation_lines"].double()
    extra = 10 ** (0.4 * at_halpha * (1 - curve[0] / curve[1]))
    assert (star_forming / old).numpy() == pytest.approx(extra.numpy(), rel=1e-4)
    assert (nuclear / old).numpy() == pytest.approx(np.sqrt(extra.numpy()), rel=1e-4)


def test_zero_points_of_the_bands_follow_from_the_curve(simulator, galaxies):
    priors = load_priors("observation")
    sed = simulator.seds(galaxies)
    shifted = sed * torch.tensor(10 ** (-0.4 * zero_point_curve(priors)), dtype=torch.float32)
    for band in BANDS:
        before, after = (band_flux(values, f"sdss2010-{band}") for values in (sed, shifted))
        offset = -2.5 * torch.log10(after / before)
        assert offset.median() == pytest.approx(priors[f"zero_point_{band}"], abs=1.5e-3)
        assert offset.std() < 0.003
    assert zero_point_curve(priors, [1600, 3589.3, 20000]) == pytest.approx(
        [priors.zero_point_curve_u, priors.zero_point_curve_u, 0]
    )


def test_young_stars_are_as_bright_in_the_ultraviolet_as_in_real_galaxies(simulator, galaxies):
    """Hosts of supernovae with g - r of 0.4 to 0.6 have NUV - r of 2.4 to 2.8."""
    near = galaxies[(galaxies.theta[:, 0] < 0.06) & (galaxies.theta[:, 0] > 0.01)]
    magnitude = {
        band: -2.5 * torch.log10(band_flux(simulator.seds(near), name))
        for band, name in {"nuv": "galex-nuv", "g": "sdss2010-g", "r": "sdss2010-r"}.items()
    }
    blue = (magnitude["g"] - magnitude["r"] - 0.5).abs() < 0.1
    assert blue.sum() > 20
    assert (magnitude["nuv"] - magnitude["r"])[blue].median() == pytest.approx(2.6, abs=0.2)


def test_component_fluxes_are_those_of_the_simulator_for_sdss(simulator, galaxies):
    few = galaxies[:200]
    fluxes = simulator.component_fluxes(few, replace(SDSS, name="another"))
    assert fluxes.shape == few.component_flux.shape
    # The zero points are interpolated over the width of the bands.
    ratio = fluxes.sum(2) / few.component_flux.sum(2)
    assert (ratio - 1).abs().max() < 0.03
    assert torch.allclose(ratio.mean(0), torch.ones(5), atol=0.012)
    seds = simulator.synthesis.part_seds(few.properties, few.weights, few.lines)
    assert torch.allclose(seds.sum(1), simulator.seds(few), rtol=1e-4)


def test_images_in_other_surveys_have_the_flux_of_the_galaxies(simulator, galaxies):
    near = galaxies[galaxies.structure.radius_disk < 2.5][:20]
    images = simulator.images(near, simulator.generator(3), neighbours=False, survey="lsst")
    assert images.flux.shape == (20, 6, 64, 64)
    inside = images.flux.sum((2, 3)) / simulator.component_fluxes(near, "lsst").sum(2)
    assert 0.9 < inside.median() <= 1.001
    bands = simulator.survey.bands
    r = near.component_flux.sum(2)[:, bands.index("r")]
    assert (images.flux.sum((2, 3))[:, 2] / r).median() == pytest.approx(0.98, abs=0.06)


def test_errors_of_any_survey_follow_from_its_depth():
    lsst, generator = get_survey("lsst"), torch.Generator().manual_seed(1)
    sed, n = torch.ones(20000, SED_GRID.size), 20000
    flux = torch.full((n,), 10 ** (0.4 * (22.5 - 26.0)))
    faint = observe_in(lsst, sed, flux, generator)
    assert torch.allclose(faint.true_flux, flux[:, None].expand(-1, 6), rtol=1e-5)
    depth = 22.5 - 2.5 * torch.log10(5 * faint.error.median(0).values)
    assert depth.numpy() == pytest.approx(list(lsst.depth.values()), abs=0.06)
    pull = (faint.flux - faint.true_flux) / faint.error
    assert pull.std(0).numpy() == pytest.approx(1, abs=0.03)
    bright = observe_in("lsst", sed, flux * 1e5, generator)
    scatter = (bright.flux / bright.true_flux).std(0)
    expected = [lsst.calibration_error[band] / 1.0857 for band in lsst.bands]
    assert scatter.numpy() == pytest.approx(expected, rel=0.05)
    resolved = observe_in("lsst", sed, flux, generator, radius=torch.full((n,), 2.0))
    ratio = (resolved.error / faint.error).median(0).values
    assert ratio[2] == pytest.approx(np.sqrt(1 + (4 / 1.02) ** 2), rel=0.05)


def test_errors_of_sdss_galaxies_are_those_of_its_catalogue(simulator, galaxies):
    columns = sed_columns(simulator, galaxies)
    radius = galaxies.structure.radius_disk
    generator = torch.Generator().manual_seed(2)
    made = observe_in("sdss", columns["sed"], columns["sed_flux"], generator, radius=radius)
    ratio = (made.error / galaxies.observation.error).median(0).values
    assert (ratio > 0.7).all() and (ratio < 1.5).all()
    relative = made.true_flux / galaxies.observation.true_flux
    assert (relative.median(0).values - 1).abs().max() < 0.015


def test_photometry_refuses_what_it_cannot_simulate():
    sed, flux, generator = torch.ones(2, SED_GRID.size), torch.ones(2), torch.Generator()
    with pytest.raises(ValueError, match=r"sed and sed_flux have shapes \(2, 490\) and \(3,\)"):
        observe_in("lsst", sed, torch.ones(3), generator)
    with pytest.raises(ValueError, match="radius has shape"):
        observe_in("lsst", sed, flux, generator, radius=torch.ones(1))
    with pytest.raises(ValueError, match="the filter galex-fuv reaches beyond the modelled"):
        observe_in("galex", sed, flux, generator)
    lsst = get_survey("lsst")
    unknown = replace(lsst, name="mine", depth=lsst.depth | {"z": np.nan}, pixel_sigma={})
    with pytest.raises(ValueError, match="depth or psf_fwhm of the band z of the survey mine is"):
        observe_in(unknown, sed, flux, generator)
