"""Networks with a larger upper bound of the redshift, from the training to fits and spectra."""

import json

import astropy.units as u
import h5py
import numpy as np
import pytest
import torch
from astropy.table import QTable
from estimator_cases import make_cutouts, make_estimator, make_photometry
from network_cases import make_network
from training_cases import NETWORK, RECIPE, TRAINING, make_columns

from astrogenspec import Posterior, PropertyEstimator
from astrogenspec.calibration import Recalibration
from astrogenspec.cli import main
from astrogenspec.inference.network import Domain, PropertyNetwork
from astrogenspec.inference.training import replace, train_properties
from astrogenspec.quantities import QUANTITIES
from astrogenspec.surveys import get_filter, get_survey
from astrogenspec.wavelengths import SED_GRID

N = 60
BANDS = "griz"


def seds(redshift):
    """Power laws with a break at 4000 A, redshifted; 1 at 6200 A."""
    x = SED_GRID.log_wavelength - np.log10(4000 * (1 + redshift[:, None]))
    values = 10 ** (0.3 * x) * (0.3 + 1 / (1 + np.exp(-x / 0.01)))
    return (values / values[:, [240]]).astype(np.float32)


def write_shards(folder, n=400):
    folder.mkdir()
    columns = make_columns(n, images=False)
    redshift = np.linspace(0.05, 1.25, n).astype(np.float32)
    columns["theta"][:, 0] = redshift
    columns["sed"], columns["sed_flux"] = seds(redshift), columns["true_flux"][:, 2]
    with h5py.File(folder / "shard-00000.h5", "w") as file:
        for key, values in columns.items():
            file[key] = values
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("deep") / "seds")


@pytest.fixture(scope="module")
def estimator(folder):
    config = {**NETWORK, "sed_components": 6, "max_redshift": 1.3}
    recipe = replace(RECIPE, network=config, photometry_batch=100, held_out=0.1)
    training = replace(TRAINING, max_steps=60, validate_every=30, learning_rate=5e-3)
    network, _ = train_properties([folder], folder.parent / "run", recipe=recipe, training=training)
    return PropertyEstimator(network.eval(), card={"name": "deep", "inputs": ["photometry"]})


def table_of(redshift):
    """Fluxes of 50 nmgy near 6200 A in the bands of DES."""
    names = [get_survey("des").filter_names[band] for band in BANDS]
    curves = [
        SED_GRID.average_weights(get_filter(name).wavelength, get_filter(name).response)
        for name in names
    ]
    table = QTable({"ebv": np.zeros(len(redshift)) * u.mag})
    fluxes = 50 * seds(redshift) @ np.array(curves).T
    for band, column in zip(BANDS, fluxes.T, strict=True):
        table[f"flux_{band}"] = column * u.nmgy
        table[f"flux_err_{band}"] = 0.02 * column * u.nmgy
    return table


def test_the_bound_is_in_the_configuration_only_if_it_is_not_the_default():
    assert "max_redshift" not in PropertyNetwork().config
    network = PropertyNetwork(domain=Domain(max_redshift=1.3))
    assert network.config["max_redshift"] == 1.3 and "sed_components" not in network.config
    again = PropertyNetwork.from_config(json.loads(json.dumps(network.config)))
    assert again.quantities["redshift"].upper == pytest.approx(1.3)
    assert again.extract_head(0).quantities == network.quantities
    assert network.quantities["sfr"] == QUANTITIES["sfr"]
    assert make_network().quantities == QUANTITIES and make_network().own_bounds == {}


@pytest.mark.parametrize("value", [0.0, -1.0, 21.0, np.nan])
def test_impossible_bounds_are_refused(value):
    with pytest.raises(ValueError, match="max_redshift is .*; give a number greater than 0"):
        Domain(max_redshift=value)


def test_draws_reach_beyond_the_default_bound(estimator):
    redshift = np.linspace(0.1, 1.2, N)
    posterior = estimator.predict(photometry=table_of(redshift), survey="des", seed=1)
    draws = posterior["redshift"].draws.value
    assert draws.min() > 0 and 1.0 < draws.max() < 1.3
    assert posterior.meta["bounds"]["redshift"] == pytest.approx([0, 1.3])
    median = posterior["redshift"].median().value
    assert np.corrcoef(median, redshift)[0, 1] > 0.9
    density = estimator.log_prob(
        {"redshift": np.array([0.9, 1.4]) * u.one}, photometry=table_of(redshift)[:2], survey="des"
    )
    assert np.isfinite(density[0]) and density[1] == -np.inf


def test_known_redshifts_have_the_bounds_of_the_weights(estimator):
    known = {"redshift": np.full(3, 0.8)}
    table = table_of(np.full(3, 0.8))
    posterior = estimator.predict(photometry=table, survey="des", known=known, seed=1)
    assert (posterior["redshift"].draws.value == np.float32(0.8)).all()
    assert np.isfinite(posterior["stellar_mass"].median().value).all()
    message = "known redshift is 0.8, but it must be between 0 and 0.5 for these weights"
    with pytest.raises(ValueError, match=message):
        make_estimator().predict(photometry=make_photometry(3), known=known)
    with pytest.raises(ValueError, match=r"must be between 0 and 1\.3 for these weights"):
        estimator.predict(
            photometry=table, survey="des", known={"redshift": np.array([0.8, 1.4, np.nan])}
        )


def test_labels_beyond_the_default_bound_are_used_in_a_fit(estimator, recwarn):
    redshift = np.full(N, 0.8)
    fitted = estimator.fit(
        photometry=table_of(np.linspace(0.7, 0.9, N)),
        labels={"redshift": redshift * u.one},
        survey="des",
        epochs=2,
        batch_size=20,
        seed=1,
    )
    assert fitted.card["fits"][0]["labels"]["redshift"] == N
    assert not [w for w in recwarn if "outside the bounds" in str(w.message)]
    assert fitted.network.quantities == estimator.network.quantities
    with pytest.raises(ValueError, match=r"between 0 and 1\.3 for these weights"):
        estimator.fit(
            photometry=table_of(redshift),
            labels={"sfr": np.zeros(N) * u.dex(u.Msun / u.yr)},
            known={"redshift": redshift + 1},
            survey="des",
        )


def test_files_keep_the_bound(estimator, tmp_path):
    estimator.save(tmp_path / "deep.safetensors")
    again = PropertyEstimator.load(tmp_path / "deep.safetensors")
    assert again.network.config == estimator.network.config
    table = table_of(np.linspace(0.6, 1.2, 4))
    first, second = (
        each.predict(photometry=table, survey="des", n_draws=30, seed=3)
        for each in (estimator, again)
    )
    np.testing.assert_array_equal(first["redshift"].draws.value, second["redshift"].draws.value)


def test_weights_trained_without_images_refuse_them(estimator):
    message = "'deep' were trained on photometry without images and cannot use any"
    with pytest.raises(ValueError, match=message):
        estimator.predict(make_cutouts(2), table_of(np.full(2, 0.2)), survey="des")
    with pytest.raises(ValueError, match=message):
        estimator.encode(make_cutouts(2))
    with pytest.raises(ValueError, match=message):
        estimator.decode(np.zeros((1, 4)))
    with pytest.raises(ValueError, match=message):
        estimator.fit(make_cutouts(2), labels={"redshift": np.full(2, 0.1)})


def narrow_posterior(n=400, *, bounds=True):
    """Posteriors at z = 0.7 to 1.1 that are too narrow by a factor of two."""
    rng = np.random.default_rng(1)
    centre = rng.uniform(0.7, 1.1, (n, 1))
    meta = {"bounds": {"redshift": [0.0, 1.3]}} if bounds else {}
    draws = rng.normal(centre, 0.02, (n, 200))
    return Posterior({"redshift": draws * u.one}, meta=meta), rng.normal(centre[:, 0], 0.04)


def test_recalibration_has_the_bounds_of_the_weights():
    posterior, truth = narrow_posterior()
    recalibration = Recalibration.fit(posterior, {"redshift": truth})
    stored = json.loads(json.dumps(recalibration.to_dict()))
    assert stored["corrections"][0]["bounds"] == [0.0, 1.3]
    better = Recalibration.from_dict(stored).apply(posterior)["redshift"].draws.value
    ratio = better.std(axis=1) / posterior["redshift"].draws.value.std(axis=1)
    assert np.median(ratio) == pytest.approx(2, rel=0.15)
    shift = np.median(better, axis=1) - posterior["redshift"].median().value
    assert np.abs(shift).max() < 0.02


def test_draws_outside_the_bounds_are_not_moved_into_them():
    """A recalibration of local galaxies leaves distant ones unchanged."""
    rng = np.random.default_rng(2)
    centre = rng.uniform(0.1, 0.2, (400, 1))
    local = Posterior({"redshift": rng.normal(centre, 0.005, (400, 200)) * u.one})
    recalibration = Recalibration.fit(local, {"redshift": rng.normal(centre[:, 0], 0.01)})
    assert "bounds" not in recalibration.to_dict()["corrections"][0]
    distant, truth = narrow_posterior(150, bounds=False)
    same = recalibration.apply(distant)
    np.testing.assert_array_equal(same["redshift"].draws, distant["redshift"].draws)
    with pytest.raises(ValueError, match="0 galaxies have draws and a true value"):
        Recalibration.fit(distant, {"redshift": truth})


def test_densities_follow_a_recalibration_beyond_the_default_bound(estimator):
    table = table_of(np.linspace(0.6, 1.2, N))
    rng = np.random.default_rng(3)
    raw = estimator.predict(photometry=table, survey="des", seed=1)
    correction = Recalibration.fit(
        Posterior.concatenate([raw, raw]),
        {
            "redshift": np.tile(np.clip(raw["redshift"].median().value + 0.01, 0.1, 1.2), 2)
            + rng.normal(0, 0.002, 2 * N)
        },
    )
    card = dict(estimator.card) | {"recalibration": correction.to_dict()}
    calibrated = PropertyEstimator(estimator.network, card=card)
    grid = np.linspace(0.01, 1.29, 800)
    density = np.exp(
        calibrated.log_prob({"redshift": grid[None] * u.one}, photometry=table[:1], survey="des")
    )[0]
    draws = calibrated.predict(photometry=table[:1], survey="des", n_draws=4000, seed=2)["redshift"]
    assert np.trapezoid(density, grid) == pytest.approx(1, abs=0.03)
    mean = np.trapezoid(density * grid, grid)
    assert mean == pytest.approx(float(draws.mean().value[0]), abs=0.02)


def test_shards_beyond_the_bound_are_refused(folder, tmp_path):
    recipe = replace(RECIPE, network={**NETWORK, "sed_components": 6})
    with pytest.raises(ValueError, match=r"galaxies of .*seds are beyond redshift 0\.5.*max_redsh"):
        train_properties([folder], tmp_path, recipe=recipe, training=TRAINING)


def test_the_command_trains_a_network_with_the_bound(folder, tmp_path, capsys):
    command = ["train", "properties", "--data", str(folder), "--out", str(tmp_path / "run"), "-q"]
    options = ["--any-filters", "--max-redshift", "1.3", "--steps", "1"]
    assert main([*command, *options]) == 0
    trained = PropertyEstimator.load(tmp_path / "run" / "properties.safetensors")
    assert trained.network.config["max_redshift"] == 1.3
    assert trained.card["inputs"] == ["photometry"]
    assert trained.card["recipe"]["network"]["max_redshift"] == 1.3
    model = ["--model", str(tmp_path / "run" / "properties.safetensors")]
    capsys.readouterr()
    assert main([*command, *model, "--max-redshift", "1.3"]) == 2
    assert "--max-redshift describes a new network" in capsys.readouterr().err
    assert main([*command, "--max-redshift", "-1"]) == 2
    assert "max_redshift is -1.0; give a number greater than 0" in capsys.readouterr().err


def test_the_seed_of_a_local_network_is_not_affected():
    torch.manual_seed(0)
    first = PropertyNetwork(**NETWORK).state_dict()
    torch.manual_seed(0)
    second = PropertyNetwork(**NETWORK, domain=Domain(max_redshift=1.3)).state_dict()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert different == ["heads.0.chain.upper"]
