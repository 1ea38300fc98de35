"""Training of the spectrum network on real spectra, alone and beside simulated galaxies."""

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from astropy.table import QTable
from generation_cases import NETWORK, make_columns, make_galaxies, make_network
from spectrum_dataset_cases import write_observed
from training_cases import make_observed, write_real

from astrogenspec.datasets.noise_free import (
    NoiseFreeGalaxies,
    NoiseFreeShards,
    PhotometryOfSpectra,
    draw_population,
    make_noise_free,
)
from astrogenspec.datasets.spectrum_training import train_spectra_on
from astrogenspec.generation.training import SpectrumRecipe
from astrogenspec.quantities import quantity_index
from astrogenspec.training.augmentation import AugmentationConfig
from astrogenspec.training.loop import TrainingConfig
from astrogenspec.training.shards import Shards
from astrogenspec.wavelengths import REST, line_index

RECIPE = SpectrumRecipe(
    network=NETWORK, image_batch=8, photometry_batch=16, validation_size=8, detail=4
)
STEPS = TrainingConfig(max_steps=3, validate_every=3, quiet=True)
POPULATION = make_galaxies(80, 7)
ZERO = torch.zeros(5)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    write_observed(folder / "train" / "shard-00000.h5", 14, 1)
    write_observed(folder / "train" / "shard-00001.h5", 12, 2)
    write_observed(folder / "validation" / "shard-00000.h5", 3, 3)
    return folder


@pytest.fixture(scope="module")
def noise_free(dataset, tmp_path_factory):
    out = tmp_path_factory.mktemp("draws")
    where = NoiseFreeShards(out, quiet=True)
    make_noise_free(dataset / "train", lambda: POPULATION, ZERO, where)
    return out


def test_one_file_for_each_shard(dataset, noise_free):
    inputs = Shards.read(dataset / "train")
    galaxies = NoiseFreeGalaxies.read(noise_free, inputs)
    assert sorted(path.name for path in noise_free.iterdir()) == [
        "prior.npz",
        "shard-00000.h5",
        "shard-00001.h5",
    ]
    np.testing.assert_array_equal(galaxies.columns["row"], np.arange(26))
    np.testing.assert_allclose(galaxies.columns["redshift"], inputs.columns["theta"][:, 0])
    first, last = galaxies.split(0.25)
    assert len(first) == 20 and len(last) == 6
    assert float(last.columns["row"][0]) == 20


def test_interrupted_draws_continue_and_are_the_same(dataset, noise_free, tmp_path):
    where = NoiseFreeShards(tmp_path, quiet=True)
    make_noise_free(dataset / "train", lambda: POPULATION, ZERO, where)
    kept = (tmp_path / "shard-00000.h5").stat().st_mtime_ns
    (tmp_path / "shard-00001.h5").unlink()
    make_noise_free(dataset / "train", lambda: POPULATION, ZERO, where)
    assert (tmp_path / "shard-00000.h5").stat().st_mtime_ns == kept
    for name in ("shard-00000.h5", "shard-00001.h5"):
        with h5py.File(tmp_path / name) as one, h5py.File(noise_free / name) as other:
            np.testing.assert_array_equal(one["continuum"][:], other["continuum"][:])


def test_draws_of_other_galaxies_are_replaced(dataset, tmp_path):
    where = NoiseFreeShards(tmp_path, quiet=True)
    prior = make_noise_free(dataset / "train", lambda: POPULATION, ZERO, where)
    write_observed(tmp_path / "other" / "shard-00000.h5", 5, 9)
    with h5py.File(tmp_path / "other" / "shard-00000.h5", "a") as file:
        file["name"][:] = np.array([b"other"] * 5, "S64")
    make_noise_free(tmp_path / "other", prior, ZERO, where)
    with h5py.File(tmp_path / "shard-00000.h5") as file:
        assert len(file["row"]) == 5


def test_batches_have_real_inputs_and_spectra_in_the_fibre(dataset, noise_free):
    galaxies = NoiseFreeGalaxies.read(noise_free, Shards.read(dataset / "train"))
    network = make_network()
    shown = AugmentationConfig(mode_weights=(1.0, 0.0, 0.0, 0.0), full_bands=1.0, gri_bands=0.0)
    generator = torch.Generator().manual_seed(0)
    rows = torch.arange(20)
    batch = galaxies.batch(network, rows, shown, SpectrumRecipe(nothing=0.0), generator)
    assert (batch.aperture == network.aperture_index("fibre")).all()
    assert batch.inputs.has_image.all() and batch.inputs.has_photometry.all()
    # Continua are those from which the observed spectra were made, of one nanomaggy in r.
    true = make_galaxies(14, 1).continuum
    ratio = batch.galaxies.continuum[:14] / true
    middle = ratio[:, (REST.wavelength > 4500) & (REST.wavelength < 7000)]
    scatter = (middle / middle.median(1, keepdim=True).values - 1).abs().median()
    assert scatter < 0.02
    # Line fluxes among the properties are those of the spectrum, masses those of the labels.
    part = galaxies.sample(rows)
    halpha = quantity_index("halpha_flux")
    possible = (part.narrow[:, :, line_index("Halpha")] * part.flux).log10()
    assert torch.isclose(possible, batch.theta[:, halpha, None]).any(1).all()
    mass, labels = quantity_index("stellar_mass"), galaxies.labels(rows)
    known = labels[:, mass].isfinite()
    assert known.any() and torch.equal(batch.theta[known, mass], labels[known, mass])
    dispersion = network.components.column("dispersion")
    unknown = torch.arange(20) % 14 % 5 == 0
    torch.testing.assert_close(batch.known[:, dispersion], ~unknown)
    assert batch.known[:, torch.arange(network.components.size) != dispersion].all()
    assert batch.galaxies.dispersion.isfinite().all()


def test_photometry_of_spectra_is_that_of_the_whole_galaxy(dataset, noise_free):
    galaxies = NoiseFreeGalaxies.read(noise_free, Shards.read(dataset / "train"))
    network = make_network()
    plain = PhotometryOfSpectra(galaxies.columns, galaxies.inputs)
    generator = torch.Generator().manual_seed(0)
    recipe = SpectrumRecipe(nothing=0.5)
    rows = torch.arange(26).repeat(8)
    batch = plain.batch(network, rows, AugmentationConfig(), recipe, generator)
    assert not batch.inputs.has_image.any()
    whole = batch.aperture == network.aperture_index("total")
    assert 0.6 < whole.float().mean() < 0.9
    hidden = ~batch.inputs.has_photometry & ~batch.given.any(1)
    assert 0.4 < hidden.float().mean() < 0.6


def test_population_of_a_network():
    galaxies = draw_population(make_network(), 7, seed=1)
    assert galaxies.continuum.shape == (7, REST.size)
    assert (galaxies.continuum > 0).all() and (galaxies.narrow > 0).all()
    again = draw_population(make_network(), 7, seed=1)
    assert torch.equal(galaxies.continuum, again.continuum)


def test_training_on_real_galaxies_alone(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "astrogenspec.datasets.spectrum_training.draw_population", lambda _: POPULATION
    )
    network, history = train_spectra_on([dataset], tmp_path, recipe=RECIPE, training=STEPS)
    assert history.stopped == "steps" and network.n_domains == 1
    assert np.isfinite(history.rows[-1]["valid_total"])
    # Galaxies with images, and the same with photometry only.
    assert {"train_low_0", "train_low_1"} <= history.rows[-1].keys()
    assert "train_low_2" not in history.rows[-1]
    redshift = network.components.centre[network.components.column("redshift")]
    assert 0.03 < 10**redshift < 0.25
    assert float(network.zero_points.abs().max()) > 0


def test_scales_are_those_of_all_data_sets(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "astrogenspec.datasets.spectrum_training.draw_population", lambda _: POPULATION
    )
    write_observed(tmp_path / "other" / "train" / "shard-00000.h5", 24, 8)
    with h5py.File(tmp_path / "other" / "train" / "shard-00000.h5", "a") as file:
        theta = file["theta"][:]
        theta[:, 0] = 0.45
        file["theta"][:] = theta
    folders = [tmp_path / "other", dataset]
    network, history = train_spectra_on(folders, tmp_path / "out", recipe=RECIPE, training=STEPS)
    column = network.components.column("redshift")
    # Redshifts of 0.03 to 0.25 and of 0.45: the scatter is that between the two sets, too.
    assert float(network.components.scale[column]) > 0.2
    assert history.rows[-1]["train_low_2"] < 10


def test_training_on_real_and_simulated_galaxies(dataset, tmp_path):
    (tmp_path / "simulated").mkdir()
    with h5py.File(tmp_path / "simulated" / "shard-00000.h5", "w") as file:
        for name, values in make_columns(70).items():
            file[name] = values
    data = [dataset, tmp_path / "simulated"]
    network, history = train_spectra_on(data, tmp_path / "out", recipe=RECIPE, training=STEPS)
    assert network.n_domains == 2
    assert {f"train_low_{k}" for k in range(4)} <= history.rows[-1].keys()
    again, _ = train_spectra_on(
        [dataset], tmp_path / "more", recipe=RECIPE, training=STEPS, network=network
    )
    assert again.n_domains == 2 and again is not network


def test_photometry_in_other_filters_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "astrogenspec.datasets.spectrum_training.draw_population", lambda _: POPULATION
    )
    write_observed(tmp_path / "set" / "shard-00000.h5", 26, 1)
    with h5py.File(tmp_path / "set" / "shard-00000.h5", "a") as file:
        file.attrs["filters"] = [f"decamDR1-{band}" for band in "griz"]
        for name in ("flux", "error"):
            values = file[name][:, 1:]
            del file[name]
            file[name] = values
    recipe = replace(RECIPE, held_out=0.2)
    _, history = train_spectra_on(
        [tmp_path / "set"], tmp_path / "out", recipe=recipe, training=STEPS
    )
    assert np.isfinite(history.rows[-1]["valid_total"])


def test_too_few_spectra(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "astrogenspec.datasets.spectrum_training.draw_population", lambda _: POPULATION
    )
    write_observed(tmp_path / "few" / "shard-00000.h5", 12, 1)
    with pytest.raises(ValueError, match="at least 20 are needed"):
        train_spectra_on([tmp_path / "few"], tmp_path / "out", recipe=RECIPE, training=STEPS)


def test_data_sets_without_spectra(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "astrogenspec.datasets.spectrum_training.draw_population", lambda _: POPULATION
    )
    write_real(tmp_path / "other" / "shard-00000.h5", make_observed(30))
    with pytest.raises(ValueError, match="has no spectra"):
        train_spectra_on([tmp_path / "other"], tmp_path / "out", recipe=RECIPE, training=STEPS)


_TRAIN = """
import sys
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/datasets"]
import test_spectrum_training as cases
from astrogenspec.datasets import spectrum_training
from astrogenspec.training.parallel import joined_workers
spectrum_training.draw_population = lambda _: cases.POPULATION
with joined_workers("cpu"):
    cases.train_in_parts(sys.argv[3], sys.argv[2])
"""


def train_in_parts(data, out):
    """Train with two micro-batches, in one process or in two."""
    training = TrainingConfig(max_steps=1, validate_every=1, quiet=True, micro_batches=2)
    return train_spectra_on([data], out, recipe=RECIPE, training=training)


def test_two_processes_give_the_losses_of_one(dataset, tmp_path, monkeypatch):
    """Each process draws the noise-free spectra of one shard, and trains on all."""
    root = Path(__file__).parents[2]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"PYTHONPATH": str(root), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    shared["MASTER_PORT"] = str(port)
    command = [sys.executable, "-c", _TRAIN, str(root / "tests"), str(tmp_path / "two")]
    processes = [
        subprocess.Popen(
            [*command, str(dataset)],
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=900) for process in processes] == [0, 0]
    monkeypatch.setattr(
        "astrogenspec.datasets.spectrum_training.draw_population", lambda _: POPULATION
    )
    _, history = train_in_parts(dataset, tmp_path / "one")
    two, one = QTable.read(tmp_path / "two" / "history.ecsv"), history.to_table()
    names = [name for name in one.colnames if name.startswith(("train_", "valid_"))]
    assert len(names) > 10 and set(names) <= set(two.colnames)
    for name in names:
        # The first update of Adam is the sign of the gradient, which rounding can change.
        tolerance = 1e-4 if name.startswith("train_") else 2e-2
        np.testing.assert_allclose(two[name], one[name], tolerance, 1e-4, err_msg=name)
