"""Tests of noise-free spectra of observed galaxies, and of fine-tuning on them."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from generation_cases import make_columns, make_galaxies, make_network, make_theta

from astrogenspec.generation import observed_spectra
from astrogenspec.generation.components import Components
from astrogenspec.generation.conditioning import APERTURES
from astrogenspec.generation.diffusion import NoiseLevels, denoising_loss
from astrogenspec.generation.finetuning import (
    FineTuningRecipe,
    ObservedSample,
    finetune_spectra,
    observed_batch,
    with_domains,
)
from astrogenspec.generation.network import SamplerSettings, SpectrumNetwork
from astrogenspec.generation.observed_spectra import (
    ObservedSpectra,
    SpectrumPrior,
    draw_noise_free,
    expected_ivar,
    factor_modes,
    fit_prior,
    fit_spectra,
    fit_spectrum,
    has_emission,
    to_rest_grid,
)
from astrogenspec.training.loop import TrainingConfig
from astrogenspec.wavelengths import LINE_NAMES, LINES, REST, add_lines

R_BAND = np.where((REST.wavelength > 5500) & (REST.wavelength < 7000), 1e-3, 0.0)


@pytest.fixture(scope="module")
def galaxies():
    return make_galaxies(300, seed=1)


@pytest.fixture(scope="module")
def prior(galaxies):
    return SpectrumPrior.fit(galaxies, 12)


def observed(galaxy, signal_to_noise=30.0, scale=40.0, gap=slice(2000, 2200), seed=0):
    """Return a noisy spectrum of one galaxy with narrow lines, its truth and line fluxes."""
    rest = torch.zeros(1)
    stretch = (1 + galaxy.redshift)[:, None]
    velocity = torch.tensor([90.0])
    true = scale * add_lines(
        galaxy.continuum, REST, LINE_NAMES, galaxy.narrow / stretch, velocity, rest
    )
    noise = scale * galaxy.continuum / signal_to_noise
    flux = true + noise * torch.randn(true.shape, generator=torch.Generator().manual_seed(seed))
    ivar = noise**-2
    ivar[:, :1700] = ivar[:, 5600:] = ivar[:, gap] = 0.0
    return ObservedSpectra(
        torch.where(ivar > 0, flux, 0.0), ivar, galaxy.redshift, velocity, torch.tensor([False])
    )


def test_fits_recover_continuum_and_lines_of_noisy_spectra_with_gaps(galaxies, prior):
    galaxy = make_galaxies(300, seed=1)[7:8]
    fitted = fit_spectrum(prior, observed(galaxy))
    continuum = np.exp(prior.mean + fitted.coefficients[0] + fitted.coefficients[1:] @ prior.basis)
    ratio = continuum / (40 * galaxy.continuum[0].numpy())
    inside = slice(1750, 5550)
    assert np.abs(ratio[inside] - 1).max() < 0.03
    assert 0.85 < fitted.chi2 < 1.15
    error = np.sqrt(np.diag(fitted.line_covariance))
    pull = (fitted.lines - 40 * galaxy.narrow[0].numpy()) / error
    seen = error < 1e3
    assert seen.sum() >= 13 and np.abs(pull[seen]).max() < 4 and 0.4 < pull[seen].std() < 1.6


def test_expected_inverse_variances_do_not_follow_the_noise_of_their_pixel():
    rng = np.random.default_rng(0)
    sky, signal, gain = 40.0, 60.0, 1.0
    flux = signal + np.sqrt(sky + signal) * rng.normal(size=6400)
    ivar = gain / np.maximum(sky + flux, 1.0)
    ivar[3000:3006] /= 30.0  # a sky line
    ivar[5000:5100] = 0.0
    expected = expected_ivar(ivar)
    np.testing.assert_array_equal(expected == 0, ivar == 0)
    np.testing.assert_array_equal(expected[3000:3006], ivar[3000:3006])
    seen = ivar > 0
    means = [np.average(flux[seen], weights=values[seen]) for values in (ivar, expected)]
    assert means[0] < signal - 0.7 and abs(means[1] - signal) < 0.3
    np.testing.assert_array_equal(expected_ivar(np.zeros(100)), 0.0)


def test_draws_differ_by_the_errors_and_follow_the_prior_where_nothing_was_observed(prior):
    galaxy = make_galaxies(300, seed=1)[7:8]
    fitted = fit_spectrum(prior, observed(galaxy, signal_to_noise=5.0))
    drawn, flux = draw_noise_free(prior, fitted, 150.0, 0.1, R_BAND, 60, np.random.default_rng(0))
    logs = drawn.continuum.log()
    assert logs[:, 5900:].std(0).mean() > logs[:, 2500:5000].std(0).mean() > 1e-3
    assert np.allclose(drawn.continuum @ torch.as_tensor(R_BAND, dtype=torch.float32), 1, rtol=0.2)
    assert flux.std() / flux.mean() < 0.02
    lines = drawn.narrow[:, LINE_NAMES.index("Halpha")] * torch.as_tensor(flux)
    true = 40 * float(galaxy.narrow[0, LINE_NAMES.index("Halpha")])
    assert abs(lines.mean() / true - 1) < 5 * lines.std() / true
    assert torch.isnan(drawn.fibre_fraction).all() and (drawn.dispersion == 150).all()


def test_modes_of_noisy_residuals_with_gaps_are_recovered():
    rng = np.random.default_rng(2)
    true = np.stack([np.sin(np.linspace(0, 6, 50)), np.linspace(-1, 1, 50) ** 2])
    residual = rng.normal(size=(400, 2)) * [0.1, 0.05] @ true + 0.02 * rng.normal(size=(400, 50))
    weight = np.where(rng.random((400, 50)) < 0.7, 0.02**-2, 0.0)
    weight[:, :3] = 0.0
    modes = factor_modes(residual, weight, 2)
    assert np.abs(modes[:, :3]).max() < 1e-12
    true = np.array([0.1, 0.05])[:, None] * true[:, 3:]
    assert np.allclose(modes[:, 3:].T @ modes[:, 3:], true.T @ true, atol=2e-3)


@pytest.mark.parametrize("case", ["one", "three", "identical", "one without pixels"])
def test_few_or_identical_spectra_define_fewer_components(galaxies, case):
    one = observed(galaxies[5:6])
    spectra = ObservedSpectra.concatenate([one] * (1 if case == "one" else 3))
    if case == "three":
        parts = [observed(galaxies[k : k + 1], seed=k) for k in range(3)]
        spectra = ObservedSpectra.concatenate(parts)
    if case == "one without pixels":
        spectra.ivar[1] = 0
    torch.manual_seed(0)
    prior, fits = fit_prior(galaxies, spectra, 12)
    n = len(prior.scale)
    # The artificial galaxies differ in three ways.
    assert prior.n_simulated == 3 <= n <= 3 + len(spectra)
    assert prior.basis.shape == (n, REST.size)
    assert np.isfinite(prior.basis).all() and (prior.scale > 0).all()
    assert len(prior.line_slope) == n
    truth = (40 * galaxies[5:6].continuum[0]).log().numpy()
    first = spectra[:1].ivar[0].numpy() > 0
    fitted = fits[0]
    found = prior.mean + fitted.coefficients[0] + fitted.coefficients[1:] @ prior.basis
    if case != "three":
        assert np.std((found - truth)[first]) < 0.02
    kept = [fit for k, fit in enumerate(fits) if case != "one without pixels" or k != 1]
    assert all(np.isfinite(fit.coefficients).all() for fit in kept)
    assert len(kept) == len(fits) or fits[1] is None


def test_absorption_below_lines_is_that_of_galaxies_without_emission(galaxies):
    n_quiet, line = 12, LINE_NAMES.index("Hbeta")
    some = galaxies[:24]
    narrow = some.narrow.clamp_min(2.0)
    narrow[:n_quiet] = 0.0
    deficit = 0.06 * np.exp(-0.5 * ((REST.wavelength - LINES["Hbeta"]) / 8) ** 2)
    deep = replace(
        some,
        narrow=narrow,
        continuum=some.continuum * torch.as_tensor(1 - deficit, dtype=torch.float32),
    )
    spectra = ObservedSpectra.concatenate(
        [observed(deep[k : k + 1], signal_to_noise=60.0, seed=k) for k in range(24)]
    )
    torch.manual_seed(0)
    plain = SpectrumPrior.fit(galaxies, 12)
    emission = [has_emission(plain, fit) for fit in fit_spectra(plain, spectra)]
    assert emission == [False] * n_quiet + [True] * (24 - n_quiet)
    torch.manual_seed(0)
    prior, fits = fit_prior(galaxies, spectra, 12)
    pixel = np.searchsorted(REST.wavelength, LINES["Hbeta"])
    assert -0.07 < (prior.mean - plain.mean)[pixel] < -0.02
    true = 40 * narrow[:, line].numpy()
    bias = [
        np.median([fit.lines[line] for fit in found] - true)
        for found in (fit_spectra(plain, spectra), fits)
    ]
    assert bias[0] < 0 and abs(bias[1]) < 0.3 * abs(bias[0])


def test_lines_of_draws_follow_their_continuum(galaxies, prior):
    fitted = fit_spectrum(prior, observed(galaxies[7:8]))
    expected = fitted.line_scatter + fitted.line_slope @ fitted.covariance @ fitted.line_slope.T
    seen = np.diag(fitted.line_covariance) < 1e3
    both = np.ix_(seen, seen)
    np.testing.assert_allclose(expected[both], fitted.line_covariance[both], rtol=1e-3, atol=1e-6)
    assert (np.diag(fitted.line_scatter) <= np.diag(fitted.line_covariance)).all()


def test_a_spectrum_without_solution_does_not_spoil_the_others(galaxies, prior, monkeypatch):
    spectra = ObservedSpectra.concatenate([observed(galaxies[k : k + 1]) for k in range(2)])
    fit = observed_spectra.fit_spectrum

    def fails(prior, one, **options):
        if one.redshift[0] == spectra.redshift[1]:
            raise np.linalg.LinAlgError("singular")
        return fit(prior, one, **options)

    monkeypatch.setattr(observed_spectra, "fit_spectrum", fails)
    fits = fit_spectra(prior, spectra)
    assert np.isfinite(fits[0].coefficients).all() and fits[1] is None
    weight = observed_spectra.binned_residuals(prior, spectra, fits)[1]
    assert weight[0].any() and not weight[1].any()


def test_simulated_spectra_that_define_no_prior(galaxies):
    few = observed(galaxies[:1])
    with pytest.raises(ValueError, match="there are 3 simulated spectra for the prior"):
        fit_prior(galaxies[:3], few)
    same = type(galaxies).concatenate([galaxies[:1]] * 30)
    with pytest.raises(ValueError, match="all simulated spectra are alike"):
        fit_prior(same, few)
    # Thirty galaxies have at most thirty components.
    torch.manual_seed(0)
    prior, _ = fit_prior(galaxies[:30], few, 50)
    assert prior.n_simulated < 30


def test_spectra_are_shifted_to_the_rest_frame():
    grid = 3.58 + 1e-4 * np.arange(3800)
    shape = lambda rest: 2 + np.sin(rest / 40)  # noqa: E731
    redshift = np.array([0.0213, 0.1])
    flux = shape(10**grid / (1 + redshift[:, None]))
    ivar = np.ones_like(flux)
    ivar[0, 1000] = 0
    moved, weight = to_rest_grid(grid, flux, ivar, redshift)
    good = weight > 0
    assert np.abs(moved - shape(REST.wavelength))[good].max() < 1e-5
    assert good[0].sum() == 3800 - 3 - 4 and good[1].sum() == 3800 - 3
    with pytest.raises(ValueError, match="steps of"):
        to_rest_grid(grid[::2], flux[:, ::2], ivar[:, ::2], redshift)


def test_components_of_observed_galaxies_complete_those_of_simulations(galaxies):
    components = Components(4, 6)
    components.fit(galaxies)
    bump = 1 + 0.1 * torch.exp(-0.5 * ((torch.tensor(REST.wavelength) - 5000) / 200) ** 2)
    others = make_galaxies(300, seed=9)
    others = type(others)(
        (others.continuum * bump).float(), *(getattr(others, n) for n in list(vars(others))[1:])
    )
    components.fit_residual(others, torch.ones(300, 800))
    plain = Components(4)
    plain.fit(galaxies)

    def worst(c):
        smooth = c.smooth_continuum(c.encode(others))
        near = slice(2800, 3300)
        return (smooth / others.continuum).log()[:, near].abs().mean()

    assert worst(components) < 0.3 * worst(plain)
    assert torch.equal(components.encode(others)[:, : plain.size], plain.encode(others))


def test_unknown_elements_do_not_count_in_the_loss():
    data = torch.randn(5, 4)
    known = torch.ones(5, 4, dtype=torch.bool)
    known[:, 2:] = False
    network = lambda x, s: 0 * x  # noqa: E731

    def loss(values, which):
        generator = torch.Generator().manual_seed(0)
        return denoising_loss(network, values, NoiseLevels(), generator, which)

    changed = data.clone()
    changed[:, 2:] += 10
    assert torch.allclose(loss(data, known), loss(changed, known))
    assert not torch.allclose(loss(data, None), loss(changed, None))


def sample_of(n, seed=0):
    """Return observed galaxies with two draws each."""
    galaxies = make_galaxies(n, seed)
    twice = lambda values: torch.stack([values, values], 1)  # noqa: E731
    theta = twice(make_theta(galaxies))
    flux = twice(torch.full((n,), 20.0))
    total = 60.0 * torch.tensor([0.2, 0.6, 1.0, 1.3, 1.6]).expand(n, -1).clone()
    total[::2] = torch.nan
    dispersion = galaxies.dispersion.clone()
    dispersion[1::4] = torch.nan
    return ObservedSample(
        twice(galaxies.continuum).half(), twice(galaxies.narrow), twice(galaxies.broad),
        galaxies.redshift, dispersion, flux, total, theta, theta, torch.ones(n, 800),
    )  # fmt: skip


def test_a_network_with_domains_generates_as_before_until_it_is_trained():
    network = make_network()
    sample = sample_of(40)
    tuned = with_domains(network, sample, sample.weight, make_galaxies(40, 3)).eval()
    assert tuned.config["n_domains"] == 2
    assert network.aperture_index("total") == tuned.aperture_index("total", simulated=True) == 1
    assert tuned.aperture_index("fibre") == len(APERTURES)
    again = SpectrumNetwork.from_config(tuned.config)
    again.load_state_dict(tuned.state_dict())
    token = tuned.conditions.observation.aperture.weight
    assert torch.equal(token[:2], token[2:])
    vectors = torch.randn(3, tuned.components.size)
    assert torch.allclose(tuned._restore(tuned._standardise(vectors)), vectors, atol=1e-5)
    spectra = tuned.refine(vectors, torch.randn(3, 6400), SamplerSettings(high_steps=1))
    assert spectra.continuum.shape == (3, 6400) and spectra.continuum.isfinite().all()


def test_batches_of_observed_galaxies_are_consistent():
    network = make_network()
    sample = sample_of(60)
    tuned = with_domains(network, sample, sample.weight, make_galaxies(40, 3))
    generator = torch.Generator().manual_seed(4)
    targets = torch.full((60,), 0.2), torch.full((60,), 7.0), torch.full((60,), 0.25)
    recipe = FineTuningRecipe()
    inputs, aperture, galaxies, theta, given, known = observed_batch(
        tuned, sample, torch.arange(60), targets, recipe, generator
    )
    fibre = aperture == tuned.aperture_index("fibre")
    moved = galaxies.redshift == targets[0]
    assert fibre[::2].sum() == 0 < fibre.sum() and moved.sum() > 10 and not (fibre & moved).any()
    assert torch.allclose(galaxies.fibre_fraction[fibre], torch.tensor(1 / 3))
    assert not given[moved][:, 1:5].any()
    column = tuned.components.column("dispersion")
    assert torch.equal(known[:, column], sample.dispersion.isfinite())
    halpha = LINE_NAMES.index("Halpha")
    # Equivalent widths in the rest frame do not change when a galaxy is moved.
    width = galaxies.narrow[:, halpha] / galaxies.continuum[:, 4190] / (1 + galaxies.redshift)
    before = sample.narrow[:, 0, halpha] / sample.continuum[:, 0, 4190] / (1 + sample.redshift)
    assert torch.allclose(width, before, rtol=2e-3)
    flux = torch.where(moved, 7.0 * 0.25, torch.where(fibre, 20.0, 20.0 * 0.25))
    assert torch.allclose(10 ** theta[:, 5], galaxies.narrow[:, halpha] * flux, rtol=1e-4)


def test_fine_tuning_changes_only_what_it_should_and_resumes(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    with h5py.File(data / "shard-00000.h5", "w") as file:
        for name, values in make_columns(40).items():
            file[name] = values
    network, sample = make_network(), sample_of(40)
    recipe = FineTuningRecipe(observed_batch=8, photometry_batch=6, image_batch=4)
    training = TrainingConfig(max_steps=3, validate_every=3, quiet=True, ema_decay=0.5)
    tuned, history = finetune_spectra(
        network, sample, data, tmp_path / "run", training, recipe=recipe, held_out=range(8)
    )
    assert len(history) == 1 and (tmp_path / "run" / "history.ecsv").exists()
    before, after = network.state_dict(), tuned.state_dict()
    fixed = ("high_matcher", "conditions.observation.trunk")
    kept = [name for name in before if name.startswith(fixed)]
    assert kept and all(torch.equal(before[name], after[name]) for name in kept)
    for name in ("low.out.weight", "high.out.weight"):
        assert not torch.equal(before[name], after[name])
    assert {"train_high_0", "train_high_1", "valid_high_0"} <= set(history.rows[0])
    again, history = finetune_spectra(
        network, sample, data, tmp_path / "run", training, recipe=recipe, held_out=range(8)
    )
    assert history.stopped == "steps"
    assert torch.equal(again.state_dict()["low.out.weight"], after["low.out.weight"])
    without, _ = finetune_spectra(
        network, sample, data, tmp_path / "low", training, recipe=replace(recipe, detail=0)
    )
    assert torch.equal(without.state_dict()["high.out.weight"], before["high.out.weight"])
