"""The published method of spectra through the commands: training, spectra, evaluation."""

import astropy.units as u
import h5py
import numpy as np
import pytest
import torch
from astropy.table import QTable
from dataset_cases import make_table, write_cutout, write_spectrum
from generation_cases import make_columns

from astrogenspec import Flag, SpectrumEstimator, SpectrumOptions
from astrogenspec.cli.commands import main
from astrogenspec.datasets.configurations import spectrum_recipe
from astrogenspec.datasets.evaluation import read_test_set
from astrogenspec.datasets.image_spectra import ImageSpectra
from astrogenspec.generation.galaxy_spectroscopy import (
    LOW,
    WAVELENGTH,
    GalaxySpectroscopyNetwork,
    normalised_log,
)
from astrogenspec.generation.network import SamplerSettings
from astrogenspec.generation.training import LABELS, SpectrumRecipe
from astrogenspec.nn.layers import n_parameters
from astrogenspec.training.shards import Shards
from astrogenspec.warnings import AstroGenSpecWarning

N = 60
RED = slice(*np.searchsorted(WAVELENGTH, [6900.0, 6950.5]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A survey with images in five bands, and spectra."""
    path = tmp_path_factory.mktemp("published")
    table = make_table(N, seed=4)
    for name in ("images", "spectra"):
        (path / name).mkdir()
    for k, row in enumerate(table):
        write_cutout(path / "images" / f"{row['name']}.fits", row, "ugriz", seed=k)
        write_spectrum(path / "spectra" / f"{row['name']}.fits", float(row["redshift"]), seed=k)
    table.write(path / "mine.ecsv")
    command = ["dataset", "from-files", str(path / "mine.ecsv"), "--images", str(path / "images")]
    command += ["--spectra", str(path / "spectra"), "--out", str(path / "set"), "-q"]
    assert main(command) == 0
    return path


def train(data, out, *more):
    command = ["train", "spectra", "--data", str(data), "--out", str(out), "--size", "small"]
    return main([*command, "--configuration", "galaxy-spectroscopy", "-q", "--steps", "4", *more])


@pytest.fixture(scope="module")
def weights(folder):
    assert train(folder / "set", folder / "run") == 0
    return folder / "run" / "spectra.safetensors"


@pytest.fixture(scope="module")
def estimator(weights):
    return SpectrumEstimator.from_pretrained(str(weights))


@pytest.fixture(scope="module")
def test_set(folder):
    return read_test_set(folder / "set")


def test_published_numbers():
    network = GalaxySpectroscopyNetwork()
    assert n_parameters(network.low.unet) == pytest.approx(24.7e6, rel=0.03)
    assert network.diffusion.n_steps == 250
    assert network.default_options == {"select": "best", "n_candidates": 25}
    assert (WAVELENGTH[0], WAVELENGTH[-1], len(WAVELENGTH)) == (4000, 8500, 4501)
    assert np.diff(WAVELENGTH[LOW])[0] == 8
    assert network.low_contrast.of_spectrum.out_features == 128
    assert network.high_contrast.of_spectrum.out_features == 256


def test_logarithm_over_the_mean_flux():
    flux = np.linspace(1, 3, len(WAVELENGTH))[None].repeat(2, 0)
    flux[1] = -1
    logs = normalised_log(flux)
    assert np.exp(logs[0, RED]).mean() == pytest.approx(1)
    assert np.isnan(logs[1]).all()
    flux[0, 100] = -5
    assert normalised_log(flux)[0, 100] == pytest.approx(np.log(0.02))


def test_points_of_low_resolution_are_interpolated():
    line = torch.from_numpy(WAVELENGTH).float()[None] / 1000
    found = GalaxySpectroscopyNetwork._interpolated(line[:, LOW])
    torch.testing.assert_close(found[:, :4497], line[:, :4497])
    assert (found[:, 4497:] == line[:, 4496]).all()


def test_observed_spectra_are_learnt_as_they_are(folder):
    shards = Shards.read(folder / "set" / "train", ("theta", "spectrum", "spectrum_ivar"))
    spectra = ImageSpectra(shards)
    assert len(spectra) == len(shards)
    logs = spectra.logs(torch.arange(3))
    z = shards.columns["theta"][:3, 0].numpy()
    for k in range(3):
        # A flat spectrum with H alpha, noise of 5%, and a correction for extinction.
        peak = int(round(6564.61 * (1 + z[k]) - 4000))
        assert logs[k, peak - 2 : peak + 3].exp().mean() == pytest.approx(3.9, rel=0.1)
        quiet = logs[k, 500:1200].exp()
        assert quiet.mean() == pytest.approx(1.06, rel=0.02) and 0.02 < quiet.std() < 0.06
    assert spectra.bands().tolist() == [True] * 5


def test_galaxies_without_a_usable_spectrum_are_left_out(folder):
    shards = Shards.read(folder / "set" / "train", ("theta", "spectrum", "spectrum_ivar"))
    columns = {name: values.clone() for name, values in shards.columns.items()}
    columns["spectrum_ivar"][0] = 0
    columns["theta"][1, 0] = torch.nan
    columns["spectrum"][2] *= -1
    columns["ivar"][3] = 0
    found = ImageSpectra(Shards(columns, shards.filters))
    assert found.rows.tolist() == list(range(4, len(shards)))
    first, last = found.split(0.25)
    assert len(first) + len(last) == len(found) and last.rows[-1] == len(shards) - 1


def test_simulated_spectra_are_those_of_the_fibre(tmp_path):
    with h5py.File(tmp_path / "shard-00000.h5", "w") as file:
        for name, values in make_columns(12).items():
            file[name] = values
    spectra = ImageSpectra(Shards.read(tmp_path, LABELS))
    logs = spectra.logs(torch.arange(12))
    assert logs.shape == (12, 4501) and logs.isfinite().all()
    torch.testing.assert_close(logs[:, RED].exp().mean(1), torch.ones(12), rtol=1e-4, atol=0)


def test_recipe():
    recipe = spectrum_recipe(SpectrumRecipe(), "base", "galaxy-spectroscopy")
    assert recipe.network == {"architecture": "galaxy-spectroscopy"}
    assert recipe.image_augmentation.mode_weights == (0.0, 0.0, 1.0, 0.0)
    assert recipe.photometry_batch == 0


def test_card_and_settings(estimator, folder):
    assert isinstance(estimator.network, GalaxySpectroscopyNetwork)
    training = estimator.card["training"]
    assert (training["learning_rate"], training["ema_decay"]) == (1e-4, 0.9999)
    history = QTable.read(folder / "run" / "history.ecsv")
    for name in ("low", "high", "match_low", "match_high"):
        assert np.isfinite(history[f"train_{name}_0"]).all()
    assert estimator.network.scale.min() > 0 and estimator.network.zero_points.any()


def test_spectra_in_physical_units(estimator, test_set):
    few = test_set.cutouts[:2], test_set.photometry[:2]
    spectra = estimator.predict(*few, n_draws=3, seed=1, progress=False)
    assert spectra.usable.all() and spectra.flux.shape[:2] == (2, 3)
    wavelength = spectra.wavelength.to_value(u.AA)
    inside = (wavelength >= 4000) & (wavelength <= 8500)
    np.testing.assert_array_equal(np.broadcast_to(inside, spectra.trusted.shape), spectra.trusted)
    # Scaled to the light in r; other bands are not fitted, and u and z are not covered.
    residual = spectra.photometric_residual.value
    assert np.abs(residual[..., 2]).max() < 0.3
    assert np.isnan(residual[..., [0, 4]]).all() and np.isfinite(residual[..., 1:4]).all()
    assert ((spectra.redshift >= 0) & (spectra.redshift <= 0.5)).all()
    np.testing.assert_allclose(spectra.weights.sum(1), 1, rtol=1e-5)


def test_candidates_are_ranked(estimator, test_set):
    few = test_set.cutouts[:1], test_set.photometry[:1]
    same = {"n_draws": 2, "seed": 1, "progress": False}
    default = estimator.predict(*few, **same)
    named = estimator.predict(*few, options=SpectrumOptions(select="best", n_candidates=25), **same)
    np.testing.assert_array_equal(default.flux.value, named.flux.value)
    fewer = estimator.predict(*few, options=SpectrumOptions(select="best", n_candidates=3), **same)
    assert not np.array_equal(default.flux.value, fewer.flux.value)


def test_draws_depend_on_galaxy_and_seed_only(estimator, test_set):
    batch = test_set.cutouts[:3], test_set.photometry[:3]
    options = SpectrumOptions(n_candidates=2, sampler=SamplerSettings("ddim", 2, 2))
    same = {"n_draws": 2, "seed": 5, "progress": False, "options": options}
    whole = estimator.predict(*batch, **same)
    parts = estimator.predict(*batch, batch_size=1, **same)
    np.testing.assert_allclose(whole.flux.value, parts.flux.value, rtol=1e-4, atol=1e-4)
    by_id = estimator.predict(*batch, ids=[7, 8, 9], **same)
    last = estimator.predict(batch[0][2:], batch[1][2:], ids=[9], **same)
    np.testing.assert_allclose(by_id.flux[2:].value, last.flux.value, rtol=1e-4, atol=1e-4)


def test_galaxies_without_image_are_flagged(estimator, test_set):
    photometry = test_set.photometry[:2]
    spectra = estimator.predict(None, photometry, n_draws=1, seed=1, progress=False)
    assert not spectra.usable.any() and np.isnan(spectra.flux.value).all()
    assert "these weights need an image in u, g, r, i, z" in spectra.flags[0]
    assert (spectra.flag_codes & Flag.NO_SPECTRUM).all()


def test_a_posterior_is_not_used(estimator, test_set):
    from estimator_cases import make_estimator

    few = test_set.cutouts[:1], test_set.photometry[:1]
    posterior = make_estimator().predict(*few, ebv=None, n_draws=4, seed=0)
    options = SpectrumOptions(n_candidates=1, sampler=SamplerSettings("ddim", 1, 1))
    with pytest.warns(AstroGenSpecWarning, match="the posterior is not used"):
        spectra = estimator.predict(*few, posterior, n_draws=1, seed=1, options=options)
    assert (spectra.posterior_draw == -1).all()


def test_evaluation(folder, weights, tmp_path, capsys):
    page = tmp_path / "page.html"
    command = ["evaluate", "--data", str(folder / "set"), "--spectra", str(weights), "--n", "4"]
    command += ["--n-draws", "10", "--n-fits", "1", "-q", "--report", str(page)]
    assert main(command) == 0
    captured = capsys.readouterr()
    assert "chi2/N of the best spectrum" in captured.out
    assert "posterior is not used" not in captured.err
    assert page.read_text().count("<img") == 5


def test_training_resumes(folder, weights, tmp_path):
    import shutil

    shutil.copytree(folder / "run", tmp_path / "run")
    assert train(folder / "set", tmp_path / "run") == 0
    one, two = (
        SpectrumEstimator.load(path / "spectra.safetensors").network.state_dict()
        for path in (folder / "run", tmp_path / "run")
    )
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_data_set_without_images(folder, tmp_path, capsys):
    command = ["dataset", "from-files", str(folder / "mine.ecsv"), "--out", str(tmp_path / "set")]
    assert main([*command, "--spectra", str(folder / "spectra"), "-q"]) == 0
    assert train(tmp_path / "set", tmp_path / "run") == 2
    assert "galaxy-spectroscopy needs images" in capsys.readouterr().err
