"""Faults of users, servers and disks: one sentence, nothing lost, nothing mixed."""

import errno
import shutil

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable
from dataset_cases import make_table, write_survey
from sky_server_cases import SkyCase, served

from astrogenspec.cli.commands import main
from astrogenspec.datasets import transfers
from astrogenspec.datasets.folders import DatasetFolder, read_columns, read_manifest
from astrogenspec.datasets.local_files import LocalFiles


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    folder = tmp_path_factory.mktemp("survey")
    return folder, write_survey(folder, 12)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(transfers.Client, "_pause", lambda *_: 0.0)


def sentence(capsys, command):
    """Run a command that must fail; return its only line."""
    assert main([str(word) for word in command]) == 2
    text = capsys.readouterr().err
    assert text.startswith("astrogenspec: error: ") and text.count("\n") == 1
    return text


def sdss(address, out):
    command = ["dataset", "sdss", "--selection", "images-to-physics", "--n", "60", "--yes"]
    return [*command, "--quiet", "--rate", "1000", "--mirror", address, "--out", out]


def from_files(table, out, *options):
    return ["dataset", "from-files", table, "--out", out, "--quiet", *options]


def test_no_network(tmp_path, capsys):
    text = sentence(capsys, sdss("http://127.0.0.1:9", tmp_path / "out"))
    expected = "http://127.0.0.1:9/SqlSearch could not be downloaded: "
    assert expected in text and "after 6 attempts" in text and len(text) < 150
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_server_that_says_no(tmp_path, capsys):
    case = SkyCase(n_runs=1, n_fields=1, n_galaxies=1)
    case.always = {"/SqlSearch": 403}
    with served(case) as address:
        text = sentence(capsys, sdss(address, tmp_path / "out"))
    assert "status 403" in text and len(case.requests) == 1


def test_unknown_selection(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["dataset", "sdss", "--selection", "stars", "--out", str(tmp_path / "out")])
    assert "images-to-physics" in capsys.readouterr().err


def test_table_without_labels(tmp_path, capsys):
    table = make_table(12)
    table.remove_columns(["redshift", "stellar_mass"])
    table.write(tmp_path / "mine.ecsv")
    assert "no labels" in sentence(capsys, from_files(tmp_path / "mine.ecsv", tmp_path / "out"))


def test_full_disk_while_writing(survey, tmp_path, capsys, monkeypatch):
    """The galaxies that were written are kept, and the next run adds the others."""
    folder, table = survey
    monkeypatch.setattr("astrogenspec.datasets.local_files._BLOCK", 3)
    add, calls = DatasetFolder.add, []

    def failing(self, unit):
        calls.append(unit.key)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        add(self, unit)

    monkeypatch.setattr(DatasetFolder, "add", failing)
    out = tmp_path / "out"
    command = from_files(folder / "mine.ecsv", out, "--images", folder / "images")
    assert "No space left" in sentence(capsys, command)
    assert not read_manifest(out)["complete"]
    assert len(list((out / "parts").glob("*.npz"))) == 2
    monkeypatch.setattr(DatasetFolder, "add", add)
    assert main([str(word) for word in command]) == 0
    assert sum(read_manifest(out)["galaxies"].values()) == len(table)


def test_folder_of_another_survey(survey, tmp_path, capsys):
    folder, _ = survey
    out = tmp_path / "out"
    assert main([str(word) for word in from_files(folder / "mine.ecsv", out)]) == 0
    before = {path: path.read_bytes() for path in out.rglob("*.h5")}
    other = make_table(12, seed=5)
    other.write(tmp_path / "other.ecsv")
    text = sentence(capsys, from_files(tmp_path / "other.ecsv", out))
    assert "other settings" in text
    assert {path: path.read_bytes() for path in out.rglob("*.h5")} == before


def test_images_of_another_galaxy(survey, tmp_path):
    """Images whose coordinates are elsewhere, and images in other bands, are not used."""
    folder, table = survey
    shutil.copytree(folder / "images", tmp_path / "images")
    shutil.copy(folder / "images" / "G003.fits", tmp_path / "images" / "G004.fits")
    with fits.open(tmp_path / "images" / "G005.fits", mode="update") as hdus:
        for hdu, name in zip(hdus[1:], "JJHHKK", strict=True):
            hdu.name = name
    source = LocalFiles(table, images=tmp_path / "images")
    problems, present = {}, {}
    for unit in source.units():
        records = source.records(unit)
        names = records.table.names
        problems |= zip(names, records.cutouts.problems, strict=True)
        present |= zip(names, records.cutouts.bands_present.any(axis=1), strict=True)
    assert {name for name, text in problems.items() if text} == {"G004", "G005"}
    assert {name for name, shown in present.items() if not shown} == {"G004", "G005"}


def test_nan_images(survey, tmp_path):
    folder, table = survey
    shutil.copytree(folder / "images", tmp_path / "images")
    with fits.open(tmp_path / "images" / "G002.fits", mode="update") as hdus:
        for hdu in hdus[1:]:
            hdu.data[:] = np.nan
    out = tmp_path / "out"
    command = from_files(folder / "mine.ecsv", out, "--images", tmp_path / "images")
    assert main([str(word) for word in command]) == 0
    failed = QTable.read(out / "failed.ecsv")
    assert list(failed["name"]) == ["G002"] and "no image" in failed["reason"][0]
    assert sum(read_manifest(out)["galaxies"].values()) == len(table)


def test_training_on_what_is_no_data_set(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for lane in ("properties", "spectra"):
        command = ["train", lane, "--data", tmp_path / "empty", "--steps", "2"]
        text = sentence(capsys, [*command, "--out", tmp_path / "run"])
        assert "has no files shard-*.h5" in text


def test_training_of_spectra_without_spectra(survey, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("astrogenspec.datasets.spectrum_training.draw_population", lambda _: None)
    folder, _ = survey
    out = tmp_path / "out"
    assert main([str(word) for word in from_files(folder / "mine.ecsv", out)]) == 0
    command = ["train", "spectra", "--data", out, "--steps", "2", "--out", tmp_path / "run"]
    assert "has no spectra" in sentence(capsys, command)


def test_fill_values_of_labels_are_unknown(tmp_path, capsys):
    table = make_table(12)
    table["stellar_mass"] = np.where(np.arange(12) < 6, -9999, 10.0) * u.dex(u.Msun)
    table.write(tmp_path / "mine.ecsv")
    main([str(word) for word in from_files(tmp_path / "mine.ecsv", tmp_path / "out")])
    assert "6 of stellar_mass" in capsys.readouterr().err
    columns, _ = read_columns(tmp_path / "out" / "train")
    assert np.isnan(columns["theta"][columns["theta"][:, 1] != 10.0][:, 1]).all()
    assert np.nanmax(columns["theta"][:, 1]) == 10.0
