"""Shards and the endless dataset."""

import h5py
import numpy as np
import pytest
import torch

from astrogenspec.inputs.sed_features import filter_curve
from astrogenspec.simulate import dataset
from astrogenspec.simulate.dataset import Contents, GalaxyStream, write_shards
from astrogenspec.simulate.simulator import Simulator
from astrogenspec.simulate.spectrum import OBSERVED
from astrogenspec.surveys import SDSS
from astrogenspec.training.shards import Shards
from astrogenspec.wavelengths import SED_GRID


@pytest.fixture(scope="module", autouse=True)
def small_batches():
    patch = pytest.MonkeyPatch()
    original = Simulator.batch
    patch.setattr(
        Simulator,
        "batch",
        lambda self, seed, batch, sample: original(self, seed, batch, sample, candidates=60),
    )
    yield
    patch.undo()


def test_stream_gives_labels_images_and_spectra():
    batch = next(iter(GalaxyStream(Simulator(), seed=1)))
    n = len(batch["theta"])
    assert batch["image"].shape == batch["ivar"].shape == (n, 5, 64, 64)
    assert batch["spectrum"].shape == (n, OBSERVED.size)
    assert batch["image"].dtype == torch.float16
    assert torch.isfinite(batch["image"]).all() and (batch["ivar"] > 0).all()
    ratio = batch["measured_flux"][:, 2] / batch["true_flux"][:, 2]
    assert 0.6 < ratio.nanmedian() < 1.1
    lost = 1 - batch["petro_flux"][:, 2] / batch["true_flux"][:, 2]
    assert batch["petro_flux"].shape == (n, 5) and 0.0 < lost.median() < 0.15
    concentration = batch["r90"] / batch["r50"]
    assert concentration.min() > 1.5 and concentration.max() < 5
    assert batch["axis_ratio"].min() > 0.05 and batch["axis_ratio"].max() <= 1


def test_shards_are_reproducible_and_resumable(tmp_path):
    contents = Contents(images="none", spectra="none")
    settings = {"seed": 3, "contents": contents, "shard_size": 20, "workers": 1, "progress": False}
    paths = write_shards(40, tmp_path / "a", **settings)
    assert [path.name for path in paths] == ["shard-00000.h5", "shard-00001.h5"]
    with h5py.File(paths[1]) as file:
        second = file["theta"][:]
    paths[1].unlink()
    before = paths[0].stat().st_mtime_ns
    write_shards(40, tmp_path / "a", **settings)
    assert paths[0].stat().st_mtime_ns == before
    with h5py.File(paths[1]) as file:
        assert np.array_equal(file["theta"][:], second)
        assert "image" not in file
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [p.name for p in paths]


def test_shards_hold_spectral_energy_distributions(tmp_path):
    options = {"shard_size": 20, "workers": 1, "progress": False, "seed": 3}
    plain = Contents("none", "none")
    (path,) = write_shards(20, tmp_path / "plain", contents=plain, **options)
    with h5py.File(path) as file:
        assert "seds" not in file.attrs["settings"] and "sed" not in file
        theta = file["theta"][:]
    write_shards(20, tmp_path / "seds", contents=Contents("none", "none", seds=True), **options)
    shards = Shards.read(tmp_path / "seds")
    assert np.array_equal(shards.columns["theta"].numpy(), theta, equal_nan=True)
    sed, flux = shards.columns["sed"], shards.columns["sed_flux"]
    assert sed.shape == (20, SED_GRID.size) and sed.dtype == torch.float16
    curves = np.stack([filter_curve(SDSS.filters[band]) for band in SDSS.bands])
    fluxes = shards.seds(torch.arange(20)) @ torch.tensor(curves, dtype=torch.float32).T
    assert fluxes[:, 2].numpy() == pytest.approx(flux.numpy(), rel=1e-3)
    # The fluxes are on the zero points of SDSS.
    ratio = (fluxes / shards.columns["true_flux"]).median(0).values
    assert ratio.numpy() == pytest.approx(1, abs=4e-3)


def test_an_interrupted_shard_leaves_no_file(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(dataset.h5py.Group, "create_dataset", fail)
    with pytest.raises(KeyboardInterrupt):
        write_shards(
            20,
            tmp_path,
            contents=Contents("none", "none"),
            shard_size=20,
            workers=1,
            progress=False,
        )
    assert not list(tmp_path.glob("shard-*.h5"))


def test_other_settings_in_the_same_folder_are_refused(tmp_path):
    contents = Contents(images="none", spectra="none")
    options = {"contents": contents, "shard_size": 20, "workers": 1, "progress": False}
    write_shards(20, tmp_path, seed=1, **options)
    with pytest.raises(ValueError, match="other settings"):
        write_shards(20, tmp_path, seed=2, **options)


def test_invalid_arguments_are_refused(tmp_path):
    with pytest.raises(ValueError, match="n is 0"):
        write_shards(0, tmp_path)
    with pytest.raises(ValueError, match="images is 'all'"):
        Contents(images="all")


def test_number_of_galaxies_is_exact(tmp_path):
    contents = Contents(images="none", spectra="none")
    options = {"contents": contents, "shard_size": 20, "workers": 1, "progress": False, "seed": 4}
    small = write_shards(7, tmp_path, **options)
    with h5py.File(small[0]) as file:
        first = file["theta"][:]
    assert len(first) == 7
    paths = write_shards(25, tmp_path, **options)
    sizes, content = [], []
    for path in paths:
        with h5py.File(path) as file:
            content.append(file["theta"][:])
            sizes.append(len(content[-1]))
    assert sizes == [20, 5]
    assert np.array_equal(content[0][:7], first)
