"""``astrogenspec dataset``."""

import sys

import numpy as np
import pytest
from dataset_cases import make_table

from astrogenspec.cli.commands import main
from astrogenspec.datasets import sdss
from astrogenspec.datasets.folders import read_manifest
from astrogenspec.downloads import DownloadError


@pytest.fixture
def catalogue(tmp_path):
    path = tmp_path / "mine.ecsv"
    make_table(12).write(path)
    return path


def test_table_alone_makes_a_data_set(catalogue, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["dataset", "from-files", str(catalogue), "--out", str(out), "--preview", "8"]) == 0
    printed = capsys.readouterr().out
    assert "8 galaxies: 0 requests, 0 GB to download" in printed
    assert sum(read_manifest(out)["galaxies"].values()) == 8
    assert not read_manifest(out)["settings"]["images"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--n", "3", "--preview", "2"], "--n and --preview cannot be combined"),
        (["--n", "0"], "must be positive"),
        (["--images", "nowhere"], "there is no folder, HDF5 file or zarr group nowhere"),
        (["--survey", "nosurvey"], "nosurvey"),
    ],
)
def test_invalid_options_report_one_line(catalogue, tmp_path, capsys, options, text):
    command = ["dataset", "from-files", str(catalogue), "--out", str(tmp_path / "out")]
    assert main([*command, *options]) == 2
    captured = capsys.readouterr().err
    assert text in captured and captured.count("\n") == 1
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.fixture
def offline_catalogue(monkeypatch):
    """A server that knows the numbers of galaxies only."""
    queries = []

    def query(self, sql, columns, cache=None):
        queries.append(sql)
        if columns == ("run", "n"):
            return {"run": np.array([756, 1000]), "n": np.array([400, 500])}
        raise DownloadError("no network")

    monkeypatch.setattr(sdss.SkyServer, "query", query)
    return queries


def test_downloads_start_after_a_question(offline_catalogue, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda _: "n")
    command = ["dataset", "sdss", "--selection", "images-to-physics", "--n", "330"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    # A tenth of the sample from each of two runs: 66 galaxies in 20 fields of five frames.
    assert "66 galaxies: 102 requests, 0.29 GB to download" in printed
    assert "Nothing was done." in printed
    assert not (tmp_path / "out").exists() and len(offline_catalogue) == 1


def test_without_terminal_yes_is_required(offline_catalogue, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    command = ["dataset", "sdss", "--selection", "images-to-physics", "--out", str(tmp_path / "o")]
    assert main(command) == 2
    assert "give --yes" in capsys.readouterr().err


def test_no_network(offline_catalogue, tmp_path, capsys):
    command = [
        "dataset",
        "sdss",
        "--selection",
        "galaxy-spectroscopy",
        "--out",
        str(tmp_path / "o"),
    ]
    assert main([*command, "--yes"]) == 2
    assert "no network" in capsys.readouterr().err
