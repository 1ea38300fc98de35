"""Tests of the spectrum network, the pipeline and the training on small artificial galaxies."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from generation_cases import (
    NETWORK,
    make_columns,
    make_galaxies,
    make_network,
    make_theta,
    photometry_of,
)

from astrogenspec.calibration import SpectrumCorrection, SpectrumRecalibration
from astrogenspec.generation.components import PER_BIN, to_bins
from astrogenspec.generation.conditioning import APERTURES, reference_log_flux
from astrogenspec.generation.network import SamplerSettings, spectrum_with_lines
from astrogenspec.generation.pipeline import (
    DrawnSpectra,
    ab_flux,
    assemble,
    impose_properties,
    recalibrate_continua,
    synthetic_nmgy,
    to_observed,
)
from astrogenspec.generation.training import (
    DEFAULT_TRAINING,
    LABELS,
    SpectrumRecipe,
    draw_given,
    fit_scales,
    make_batch,
    select_aperture,
    train_spectra,
)
from astrogenspec.inputs.features import ModelInputs, photometry_features
from astrogenspec.nn.noise import ObjectStreams, standard_normal
from astrogenspec.training.shards import Shards
from astrogenspec.wavelengths import LINE_NAMES, LINES, REST, WIDE

RECIPE = SpectrumRecipe(
    image_batch=6, photometry_batch=10, detail=4, held_out=0.25, validation_size=8, network=NETWORK
)


def inputs_of(n, seed=0):
    rng = np.random.default_rng(seed)
    flux = torch.as_tensor(10 ** rng.uniform(1, 2, (n, 5)), dtype=torch.float32)
    zero = torch.zeros(n, 5)
    return ModelInputs(None, None, zero, zero, photometry_features(flux, 0.02 * flux))


def integrated(spectrum, grid, centre, half_width=60):
    near = np.abs(grid.wavelength - centre) < half_width
    return float((spectrum * grid.width)[near].sum())


def test_refined_spectra_keep_the_flux_of_their_bins():
    network = make_network()
    vectors = network.components.encode(make_galaxies(6))
    noise = torch.randn(6, REST.size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        fine = network.refine(vectors, noise, SamplerSettings(high_steps=3))
    low = network.components.decode(vectors).continuum
    assert torch.allclose(to_bins(fine.continuum, PER_BIN, REST.step), low, rtol=1e-4)


def test_the_detail_of_true_spectra_is_standardised():
    network = make_network()
    galaxies = make_galaxies(80, seed=5)
    detail = network._raw_detail(galaxies)
    scaled = (detail - network.detail_mean) / network.detail_scale
    assert scaled.mean().abs() < 1e-3
    varied = detail.std(0) > 1e-3
    assert varied.sum() > 50
    assert torch.allclose(scaled.std(0)[varied], torch.ones(int(varied.sum())), atol=1e-3)


def test_samples_depend_on_conditions_and_noise_only():
    network = make_network()
    torch.nn.init.normal_(network.low.out.weight, std=0.1)
    for block in network.low.transformer.blocks:
        torch.nn.init.normal_(block.cross_out.weight, std=0.2)
    inputs, n = inputs_of(4), 4
    galaxies = make_galaxies(n)
    theta, given = make_theta(galaxies), torch.ones(n, 9, dtype=torch.bool)
    noise = torch.randn(n, network.components.size, generator=torch.Generator().manual_seed(1))
    log_flux = reference_log_flux(inputs.photometry)

    def sample(rows, given=given, theta=theta, aperture=0):
        observed = network.observe(inputs[rows], torch.full((len(rows),), aperture))
        with torch.no_grad():
            return network.sample(
                observed,
                theta[rows],
                given[rows],
                log_flux[rows],
                noise[rows],
                SamplerSettings(low_steps=4),
            )

    whole = sample(torch.arange(4))
    assert torch.allclose(sample(torch.tensor([2])), whole[2:3], atol=1e-4)
    assert not torch.allclose(sample(torch.arange(4), aperture=1), whole, atol=1e-4)
    assert not torch.allclose(sample(torch.arange(4), given=~given), whole, atol=1e-4)
    other = theta.clone()
    other[:, 3] += 5
    assert torch.equal(
        sample(torch.arange(4), theta=other), whole
    )  # the metallicity follows from lines
    other[:, 0] += 0.1
    assert not torch.allclose(sample(torch.arange(4), theta=other), whole, atol=1e-4)


def test_invalid_sampler_settings_are_errors():
    with pytest.raises(ValueError, match="method is 'euler': it must be one of adams, heun, ddim"):
        SamplerSettings(method="euler")
    with pytest.raises(ValueError, match="low_steps is 0"):
        SamplerSettings(low_steps=0)


def test_the_loss_trains_every_network():
    network = make_network().train()
    galaxies = make_galaxies(12)
    terms = network.loss(
        inputs_of(12),
        torch.arange(12) % 2,
        galaxies,
        make_theta(galaxies),
        torch.ones(12, 9, dtype=torch.bool),
        n_detail=4,
        generator=torch.Generator().manual_seed(1),
    )
    terms["total"].backward()
    for name in ("low", "high", "low_matcher", "high_matcher", "conditions.observation"):
        gradients = [p.grad for p in network.get_submodule(name).parameters() if p.grad is not None]
        assert any(g.abs().max() > 0 for g in gradients), name


def test_redshifting_moves_features():
    galaxies = make_galaxies(5)
    sharp = torch.ones(5, REST.size)
    pixel = 3000
    sharp[:, pixel - 3 : pixel + 4] += torch.tensor([0.1, 0.4, 0.8, 1.0, 0.8, 0.4, 0.1])
    observed = to_observed(sharp, galaxies.redshift).numpy() - 1
    centre = (observed * WIDE.log_wavelength).sum(1) / observed.sum(1)
    expected = REST.log_wavelength[pixel] + np.log10(1 + galaxies.redshift.numpy())
    assert np.allclose(centre, expected, atol=0.02 * WIDE.step)
    assert np.allclose(observed.sum(1), 3.6, rtol=1e-3)


def test_assembled_spectra_have_given_photometry_lines_and_redshift():
    galaxies = make_galaxies(6)
    theta = make_theta(galaxies)
    theta[:, 0] += 0.01
    theta[:, 5:] += 0.2
    given = torch.ones(6, 9, dtype=torch.bool)
    moved, line_flux = impose_properties(galaxies, theta, given)
    assert torch.equal(moved.redshift, theta[:, 0])
    flux = 50 * ab_flux(moved)
    result = assemble(moved, line_flux, photometry_of(flux), fibre=False)
    assert (
        result.residual.abs().max() < 0.12
    )  # lines were made brighter than those of the photometry
    for name, column in (("Halpha", 5), ("OIII5008", 8)):
        continuum = assemble(
            moved,
            torch.where(torch.isfinite(line_flux), 0.0, line_flux),
            photometry_of(flux),
            False,
        )
        for row in range(1, 5):
            alone = (
                result.flux[row] / result.scale[row] - continuum.flux[row] / continuum.scale[row]
            )
            centre = LINES[name] * (1 + float(moved.redshift[row]))
            found = integrated(alone.numpy(), WIDE, centre, 8) * float(result.scale[row])
            neighbours = [n for n in LINE_NAMES if 0 < abs(LINES[n] - LINES[name]) < 25]
            if not neighbours and galaxies.dispersion[row] < 150:
                assert found == pytest.approx(10 ** float(theta[row, column]), rel=0.02)


@pytest.mark.parametrize("known", [False, True])
def test_fluxes_of_lines_are_those_in_the_spectra(known):
    galaxies = make_galaxies(6)
    moved, line_flux = impose_properties(
        replace(galaxies, broad=torch.zeros(6), dispersion=torch.full((6,), 60.0)),
        make_theta(galaxies),
        torch.full((6, 9), known),
    )
    # Photometry of another slope than that of the spectra.
    photometry = photometry_of(50 * ab_flux(moved) * torch.tensor([0.8, 0.9, 1.0, 1.1, 1.2]))
    result = assemble(moved, line_flux, photometry, fibre=False)
    for row in range(6):
        for name in ("Hbeta", "Hgamma", "OIII5008", "HeI5877", "OI6302"):
            centre = LINES[name] * (1 + float(moved.redshift[row]))
            found = integrated(result.lines[row].numpy(), WIDE, centre, 12)
            wanted = float(result.line_flux[row, LINE_NAMES.index(name)])
            assert found == pytest.approx(wanted, rel=0.02), name
    if known:
        assert torch.equal(result.line_flux, line_flux)


@pytest.mark.parametrize("known", [False, True])
def test_recalibration_scales_continua_and_keeps_lines(known):
    galaxies = make_galaxies(4)
    given = torch.full((4, 9), known)
    moved, line_flux = impose_properties(galaxies, make_theta(galaxies), given)
    result = assemble(moved, line_flux, photometry_of(50 * ab_flux(galaxies)), fibre=False)
    continuum = result.flux - result.lines
    smooth = to_observed(moved.continuum, moved.redshift)
    assert (continuum / smooth).log().diff(dim=1).abs().max() < 1e-4  # no steps at lines
    assert (result.lines.max(1).values > 0).all()
    lines = torch.stack([result.lines, 2 * result.lines], 1).numpy()
    flux = torch.stack([continuum, 1.2 * continuum], 1).numpy() + lines
    redshift = moved.redshift[:, None].expand(-1, 2).numpy()
    drawn = DrawnSpectra(flux, lines, redshift, np.zeros((4, 2, 5)), redshift, redshift)
    factors = SpectrumRecalibration({("photometry", "total"): SpectrumCorrection([0.5] * 7)})
    narrower = recalibrate_continua(drawn, factors, np.array(["photometry"] * 4), "total", [])
    np.testing.assert_array_equal(narrower.lines, lines)
    low, high = np.moveaxis(narrower.flux - lines, 1, 0)
    np.testing.assert_allclose(high / low, 1.2**0.5, rtol=1e-3)


def test_scales_of_objects_are_not_the_noise_of_the_diffusions():
    n, k = 2, 6
    rng = np.random.default_rng(0)
    spread = np.sort(rng.normal(size=(n, k, 1)), axis=1) * np.ones(WIDE.size)
    nothing = np.zeros(spread.shape, np.float32)
    redshift = np.full((n, k), 0.1)
    drawn = DrawnSpectra(
        np.exp(0.01 * spread).astype(np.float32), nothing, redshift, np.zeros((n, k, 5)),
        redshift, redshift,
    )  # fmt: skip
    key = ("photometry", "total")
    factors = SpectrumRecalibration({key: SpectrumCorrection(scale_scatter=0.5)})
    streams = ObjectStreams(4, np.arange(4).reshape(2, 2), lane=1)
    modes = np.array(["photometry"] * n)
    results = [recalibrate_continua(drawn, factors, modes, "total", streams[:]) for _ in range(2)]
    np.testing.assert_array_equal(results[0].flux, results[1].flux)
    logs = [np.log(d.flux[..., 0]) for d in (drawn, results[0])]
    middle = np.median(logs[0], axis=1, keepdims=True)
    scales = np.log((logs[1] - middle) / (logs[0] - middle)) / 0.5
    of_diffusion = standard_normal((n, k), streams[:]).numpy()
    assert np.isfinite(scales).all() and 0.3 < scales.std() < 2
    assert np.abs(scales - of_diffusion).max() > 0.5


def test_fibre_fraction_scales_the_spectrum():
    galaxies = make_galaxies(4)
    free = torch.full((4, 17), torch.nan)
    flux = 50 * ab_flux(galaxies)
    photometry = photometry_of(flux)
    whole, part = (assemble(galaxies, free, photometry, fibre) for fibre in (False, True))
    assert torch.allclose(whole.scale, torch.full((4,), 50.0), rtol=1e-3)
    assert torch.allclose(part.flux, whole.flux * galaxies.fibre_fraction[:, None], rtol=1e-4)
    assert part.residual.abs().max() < 1e-3
    assert torch.allclose(synthetic_nmgy(whole.flux), flux, rtol=1e-3)


def test_missing_bands_are_ignored_in_the_scale():
    galaxies = make_galaxies(3)
    free = torch.full((3, 17), torch.nan)
    flux = 50 * ab_flux(galaxies)
    flux[:, [0, 3, 4]] = torch.nan
    flux[2] = torch.nan
    result = assemble(galaxies, free, photometry_of(flux), fibre=False)
    assert torch.allclose(result.scale[:2], torch.full((2,), 50.0), rtol=1e-3)
    assert torch.isnan(result.residual[:, 0]).all() and torch.isfinite(result.residual[:2, 1]).all()
    assert torch.isnan(result.scale[2])


def test_lines_and_broad_lines_are_in_the_rest_frame_spectrum():
    galaxies = make_galaxies(6)
    spectra = spectrum_with_lines(galaxies) - galaxies.continuum
    stretch = 1 + galaxies.redshift.numpy()
    flux = (spectra.numpy() * REST.width).sum(1) * stretch
    expected = galaxies.narrow.sum(1) + galaxies.broad * (1 + 1 / 3.1)
    assert np.allclose(flux, expected.numpy(), rtol=2e-3)
    assert spectra[:, 100].abs().max() < 1e-6


def test_columns_of_shards_become_galaxies_of_an_aperture():
    shards = Shards({k: torch.as_tensor(v) for k, v in make_columns(10).items()})
    labels = shards.labels(torch.arange(10))
    both = [select_aperture(labels, torch.full((10,), k)) for k in range(len(APERTURES))]
    assert torch.allclose(both[0].narrow, both[1].narrow, rtol=1e-4)
    assert torch.allclose(both[0].fibre_fraction, make_galaxies(10).fibre_fraction, rtol=1e-4)


def test_zero_points_are_those_between_spectra_and_photometry():
    columns = make_columns(40)
    shards = Shards({k: torch.as_tensor(v) for k, v in columns.items()})
    total = select_aperture(shards.labels(torch.arange(40)), torch.ones(40, dtype=torch.long))
    flux = ab_flux(total) * shards.labels(torch.arange(40))["aperture_flux"][:, 1:]
    offsets = torch.tensor([0.09, 0.0, 0.0, -0.02, -0.04])
    shards.columns["true_flux"] = flux * 10 ** (-0.4 * offsets)
    network = make_network()
    fit_scales(network, shards)
    assert torch.allclose(network.zero_points, offsets, atol=1e-3)


def test_conditions_are_dropped_with_given_probabilities():
    given = draw_given(20000, SpectrumRecipe(), torch.Generator().manual_seed(1))
    n = given.sum(1)
    assert (n == 0).float().mean() == pytest.approx(0.15, abs=0.015)
    assert ((n == 1) & given[:, 0]).float().mean() == pytest.approx(0.15, abs=0.015)
    assert (n == 9).float().mean() == pytest.approx(0.5, abs=0.03)


def test_batch_hides_all_inputs_of_some_galaxies():
    shards = Shards({k: torch.as_tensor(v) for k, v in make_columns(40).items()})
    recipe = replace(RECIPE, nothing=0.5)
    batch = make_batch(
        shards,
        torch.arange(40),
        recipe.image_augmentation,
        recipe,
        torch.Generator().manual_seed(2),
    )
    hidden = ~batch.inputs.has_image & ~batch.inputs.has_photometry
    assert 8 < hidden.sum() < 32
    assert not batch.given[hidden].any()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "shards").mkdir()
    for k in range(2):
        with h5py.File(tmp_path / "shards" / f"shard-{k:05d}.h5", "w") as file:
            for name, values in make_columns(24, seed=k).items():
                file[name] = values
    return tmp_path / "shards"


def test_training_resumes(folder, tmp_path):
    training = replace(
        DEFAULT_TRAINING, max_seconds=None, max_steps=2, validate_every=1, quiet=True
    )
    network, history = train_spectra(folder, tmp_path / "run", recipe=RECIPE, training=training)
    assert history.stopped == "steps"
    assert (tmp_path / "run" / "history.ecsv").exists()
    assert {"valid_low_0", "valid_high_1", "valid_top1_low_0"} <= set(history.rows[-1])
    assert network.zero_points.abs().max() > 0
    _, resumed = train_spectra(
        folder, tmp_path / "run", recipe=RECIPE, training=replace(training, max_steps=3)
    )
    assert resumed.rows[-1]["step"] == 3
    assert resumed.rows[:2] == history.rows


def test_shards_without_spectra_are_an_error(tmp_path):
    with h5py.File(tmp_path / "shard-00000.h5", "w") as file:
        for name in ("theta", "true_flux", "error"):
            file[name] = make_columns(4)[name]
    with pytest.raises(ValueError, match="have no column continuum.*simulate them again"):
        Shards.read(tmp_path, LABELS)
