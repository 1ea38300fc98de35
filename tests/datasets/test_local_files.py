"""Data sets from files, and the folder that holds them."""

import json
import os
import shutil

import astropy.units as u
import h5py
import numpy as np
import pytest
from astropy.table import QTable
from dataset_cases import SIGMA, make_table, write_cutout, write_survey

from astrogenspec.datasets import folders
from astrogenspec.datasets.folders import DatasetFolder, FinishedUnit, read_manifest
from astrogenspec.datasets.local_files import LocalFiles, read_galaxy_table
from astrogenspec.datasets.sky_cells import SPLITS, split_of
from astrogenspec.datasets.sources import build_dataset, find_duplicates
from astrogenspec.surveys import SDSS


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    folder = tmp_path_factory.mktemp("survey")
    return folder, write_survey(folder, 30)


@pytest.fixture(scope="module")
def dataset(survey, tmp_path_factory):
    folder, table = survey
    out = tmp_path_factory.mktemp("sets") / "mine"
    source = LocalFiles(table, images=folder / "images", spectra=folder / "spectra")
    return out, build_dataset(source, out, progress=False)


def read(out):
    """Columns of all shards, with the split of each galaxy."""
    parts, splits = [], []
    for split in SPLITS:
        for path in sorted((out / split).glob("shard-*.h5")):
            with h5py.File(path) as file:
                arrays = [k for k in file if file[k].shape]
                parts.append({name: file[name][:] for name in arrays})
                splits += [split] * len(file["name"])
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return columns | {"split": np.array(splits)}


def test_every_galaxy_is_on_its_side(survey, dataset):
    _, table = survey
    out, manifest = dataset
    columns = read(out)
    names = [name.decode() for name in columns["name"]]
    assert sorted(names) == sorted(table["name"])
    np.testing.assert_array_equal(columns["split"], split_of(columns["ra"], columns["dec"]))
    assert manifest["galaxies"] == {s: int((columns["split"] == s).sum()) for s in SPLITS}
    assert manifest["complete"] and manifest["failed"] == 0
    assert len(QTable.read(out / "failed.ecsv")) == 0


def test_values_of_shards(survey, dataset):
    _, table = survey
    columns = read(dataset[0])
    rows = np.argsort(columns["name"])
    assert columns["theta"].shape == (30, 9)
    np.testing.assert_allclose(columns["theta"][rows, 0], table["redshift"].value, rtol=1e-6)
    mass = table["stellar_mass"].value
    np.testing.assert_allclose(columns["theta"][rows, 1], mass, rtol=1e-6)
    assert np.isnan(columns["theta"][:, 2:]).all()
    assert np.isnan(columns["measurable"]).all()
    factor = 10 ** (0.4 * 0.05 * SDSS.extinction_coefficient["r"])
    r = table["flux_r"].value * factor
    np.testing.assert_allclose(columns["flux"][rows, 2], r, rtol=1e-4)
    np.testing.assert_allclose(columns["measured_flux"][rows, 2], r, rtol=0.1)
    assert np.isnan(columns["measured_flux"][:, [0, 4]]).all()
    ivar = columns["ivar"][rows]
    np.testing.assert_allclose(ivar[:, 2], (SIGMA["r"] * factor) ** -2, rtol=1e-3)
    assert (ivar[:, [0, 4]] == 0).all()
    total = columns["image"][rows, 2].sum((1, 2), dtype=float)
    # Four standard deviations of the noise of 64 x 64 pixels.
    np.testing.assert_allclose(total, r, atol=4 * 64 * SIGMA["r"] * factor)
    good = columns["spectrum_ivar"] > 0
    assert good.sum(1).min() > 3700
    assert np.median(columns["spectrum"][good]) == pytest.approx(11.2, abs=0.3)


def test_a_second_run_changes_nothing(survey, dataset):
    folder, table = survey
    out, manifest = dataset
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*.h5")}
    source = LocalFiles(table, images=folder / "images", spectra=folder / "spectra")
    again = build_dataset(source, out, progress=False)
    assert again["galaxies"] == manifest["galaxies"]
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*.h5")} == before


def test_missing_and_damaged_files_are_listed(survey, tmp_path):
    folder, table = survey
    shutil.copytree(folder / "images", tmp_path / "images")
    shutil.copytree(folder / "spectra", tmp_path / "spectra")
    (tmp_path / "images" / "G001.fits").unlink()
    path = tmp_path / "spectra" / "G002.fits"
    path.write_bytes(path.read_bytes()[:40000])
    write_cutout(tmp_path / "far.fits", make_table(1, seed=9)[0])
    os.replace(tmp_path / "far.fits", tmp_path / "images" / "G003.fits")
    source = LocalFiles(table, images=tmp_path / "images", spectra=tmp_path / "spectra")
    manifest = build_dataset(source, tmp_path / "out", progress=False)
    failed = QTable.read(tmp_path / "out" / "failed.ecsv")
    reasons = dict(zip(failed["name"], failed["reason"], strict=True))
    assert manifest["failed"] == 3 and sorted(reasons) == ["G001", "G002", "G003"]
    assert "no image" in reasons["G001"] and "has no file G001.fits" in reasons["G001"]
    assert "no spectrum" in reasons["G002"] and "truncated" in reasons["G002"]
    assert "no image" in reasons["G003"]
    columns = read(tmp_path / "out")
    rows = {name.decode(): k for k, name in enumerate(columns["name"])}
    assert len(rows) == 30
    assert not columns["ivar"][rows["G001"]].any() and not columns["image"][rows["G003"]].any()
    assert not columns["spectrum_ivar"][rows["G002"]].any()


def test_wrong_order_of_bands(tmp_path):
    table = make_table(12, spread=0.2)
    (tmp_path / "images").mkdir()
    for k, row in enumerate(table):
        name = tmp_path / "images" / f"{row['name']}.fits"
        write_cutout(name, row, "gri", seed=k, named="irg")
    source = LocalFiles(table, images=tmp_path / "images")
    with pytest.raises(ValueError, match="gri fit the catalogue as irg"):
        build_dataset(source, tmp_path / "out", progress=False)


def test_repeated_positions_are_used_once(survey, tmp_path):
    folder, table = survey
    table = table.copy()
    table["ra"][5], table["dec"][5] = table["ra"][4] + 1e-4, table["dec"][4]
    source = LocalFiles(table, images=folder / "images")
    build_dataset(source, tmp_path / "out", progress=False)
    failed = QTable.read(tmp_path / "out" / "failed.ecsv")
    assert list(failed["name"]) == ["G005"]
    assert failed["reason"][0] == "at the position of G004, within 1 arcsec"
    assert "G005" not in [name.decode() for name in read(tmp_path / "out")["name"]]


def test_positions_across_the_origin_of_right_ascension():
    table = QTable({"ra": [0.0, 359.99999, 10.0], "dec": [0.0, 0.0, 0.0]})
    assert find_duplicates(table) == {1: 0}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda t: t.remove_column("ra"), "no column ra"),
        (lambda t: t.remove_column("name"), "no column name"),
        (lambda t: t.remove_columns(["redshift", "stellar_mass"]), "no labels"),
        (lambda t: t.replace_column("name", ["G000"] * len(t)), "more than once"),
    ],
)
def test_unusable_tables(change, text):
    table = make_table(12)
    change(table)
    with pytest.raises(ValueError, match=text):
        LocalFiles(table)


def test_units_of_positions_and_dispersions():
    table = make_table(12)
    plain, _ = read_galaxy_table(table)
    table["ra"] = (table["ra"] * u.deg).to(u.hourangle)
    table["dec"] = (table["dec"] * u.deg).to(u.rad)
    table["velocity_dispersion"] = np.full(len(table), 0.15) * u.Unit("1000 km / s")
    galaxies, _ = read_galaxy_table(table)
    np.testing.assert_allclose(galaxies.ra, plain.ra, rtol=1e-9)
    np.testing.assert_allclose(galaxies.dec, plain.dec, atol=1e-9)
    np.testing.assert_allclose(galaxies.velocity_dispersion, 150.0)


def test_labels_that_are_all_missing():
    table = make_table(12)
    table.remove_column("stellar_mass")
    table["redshift"] = np.nan * u.one
    with pytest.raises(ValueError, match="no usable value"):
        LocalFiles(table)


def test_nan_everywhere(tmp_path):
    table = make_table(12)
    for name in table.colnames:
        if name.startswith("flux_"):
            table[name] = np.nan * u.nmgy
    with pytest.raises(ValueError, match="no galaxy can be used"):
        build_dataset(LocalFiles(table), tmp_path / "out", progress=False)


def test_another_data_set_in_the_folder(survey, dataset, tmp_path):
    table = survey[1]
    with pytest.raises(ValueError, match="holds a data set with other settings"):
        build_dataset(LocalFiles(table[:20]), dataset[0], progress=False)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty and holds no data set"):
        build_dataset(LocalFiles(table), tmp_path, progress=False)


def test_two_processes_in_one_folder(survey, tmp_path):
    source = LocalFiles(survey[1])
    folder = DatasetFolder(tmp_path / "out", source.settings, ())
    with folder.opened(), pytest.raises(BlockingIOError, match="another process is writing"):
        build_dataset(source, tmp_path / "out", progress=False)


def test_full_disk(survey, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(OSError, match="GB left"):
        build_dataset(LocalFiles(survey[1], images=survey[0] / "images"), tmp_path / "out")


def unit(key, n, split="train", **failed):
    names = np.array([f"{key}.{k}".encode() for k in range(n)], "S64")
    return FinishedUnit(key, split, {"name": names, "x": np.arange(n)} if n else {}, failed)


def test_interruption_between_shard_and_parts(tmp_path, monkeypatch):
    """A part that is already in a shard is not counted twice."""
    monkeypatch.setattr(folders, "SHARD_SIZE", 5)
    folder = DatasetFolder(tmp_path / "out", {}, ())
    with folder.opened():
        folder.add(unit("a", 3, lost="no image"))
        kept = tmp_path / "out" / "parts" / "train--a.npz"
        content = kept.read_bytes()
        folder.add(unit("b", 2))
        assert not list((tmp_path / "out" / "parts").glob("*.npz"))
    kept.write_bytes(content)
    again = DatasetFolder(tmp_path / "out", {}, ())
    with again.opened():
        assert again.n_galaxies == 5 and again.done == {"a", "b"}
        assert again.failed == {"lost": "no image"}
        assert not kept.exists()
        again.add(unit("c", 1, "test"))
        again.add(unit("d", 0, lost2="no spectrum"))
        manifest = again.finish({})
    assert manifest["galaxies"] == {"train": 5, "validation": 0, "test": 1}
    assert manifest["failed"] == 2
    with h5py.File(tmp_path / "out" / "train" / "shard-00000.h5") as file:
        assert list(file["x"]) == [0, 1, 2, 0, 1]
        assert json.loads(file["units"][()]) == ["a", "b"]
    # The unit without galaxies is still known.
    last = DatasetFolder(tmp_path / "out", {}, ())
    with last.opened():
        assert last.done == {"a", "b", "c", "d"} and len(last.failed) == 2


def test_manifest_of_a_folder_without_a_data_set(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no data set"):
        read_manifest(tmp_path)
