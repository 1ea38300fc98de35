"""Tests of ``astrogenspec report``."""

import json
import re
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from astropy.table import QTable
from spectrum_cases import some_spectra
from view_cases import rotated_cutout, shown_posterior

from astrogenspec.cli import main
from astrogenspec.demo import load_galaxies
from astrogenspec.inputs.cutout_fits import write_cutout_fits
from astrogenspec.inputs.cutouts import coerce_cutouts


def content_of(path):
    return json.loads(re.search(r'id="content">(.*?)</script>', path.read_text(), re.S)[1])


@pytest.fixture
def result(tmp_path):
    posterior, truth = shown_posterior(4)
    path = tmp_path / "properties.fits"
    posterior.write(path, draws=True)
    truth.write(tmp_path / "truth.ecsv")
    return path


def test_report_matches_everything_by_name(tmp_path, result, capsys):
    posterior, _ = shown_posterior(4)
    for k in (3, 0):
        batch = coerce_cutouts([rotated_cutout(size=64)])
        batch = replace(batch, names=(f"galaxy {k}",), named=np.array([True]))
        write_cutout_fits(tmp_path / f"{'ab'[k == 0]}.fits", batch)
    order = [2, 0, 3, 1]
    spectra = some_spectra(4, bad=None, names=[posterior.names[k] for k in order])
    spectra.write(tmp_path / "spectra.fits")
    page = tmp_path / "page.html"
    options = ["--cutouts", str(tmp_path / "a.fits"), str(tmp_path / "b.fits")]
    options += ["--spectra", str(tmp_path / "spectra.fits"), "--title", "My <galaxies>"]
    options += ["--truth", str(tmp_path / "truth.ecsv")]
    assert main(["report", str(result), "-o", str(page), *options]) == 0
    assert f"4 galaxies: {page}" in capsys.readouterr().out
    content = content_of(page)
    shown = [picture is not None for picture in content["pictures"]["image"]]
    assert shown == [True, False, False, True]
    best = [spectra[order.index(k)].best.redshift.value for k in range(4)]
    np.testing.assert_allclose(content["spectra"]["redshift"], best, rtol=1e-5)
    assert content["about"]["title"] == "My <galaxies>"
    assert '<h1 id="title">My &lt;galaxies&gt;</h1>' in page.read_text()
    assert len(content["truth"]["scores"]) == 9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cutouts", "missing.fits"], "the file missing.fits does not exist"),
        (["--truth", "missing.ecsv"], "missing.ecsv"),
    ],
)
def test_missing_files_are_named(tmp_path, result, capsys, options, message):
    page = tmp_path / "page.html"
    assert main(["report", str(result), "-o", str(page), *options]) == 2
    assert message in capsys.readouterr().err
    assert not page.exists()


def test_table_without_draws_is_explained(tmp_path, capsys):
    posterior, _ = shown_posterior(4)
    posterior.write(tmp_path / "table.fits")
    page = tmp_path / "page.html"
    assert main(["report", str(tmp_path / "table.fits"), "-o", str(page)]) == 2
    assert "`astrogenspec infer --save-draws` makes one" in capsys.readouterr().err


def test_infer_writes_a_page(tmp_path, capsys):
    table = load_galaxies()[:3]
    table.write(tmp_path / "galaxies.ecsv")
    page = tmp_path / "page.html"
    arguments = ["infer", str(tmp_path / "galaxies.ecsv"), "-o", str(tmp_path / "out.fits")]
    arguments += ["--draws", "50", "--seed", "1", "--report", str(page), "--flagged-ok"]
    assert main(arguments) == 0
    assert f"Page: {page}" in capsys.readouterr().out
    content = content_of(page)
    assert content["galaxies"]["name"] == list(table["name"])
    medians = QTable.read(tmp_path / "out.fits")["redshift_median"]
    np.testing.assert_allclose(content["galaxies"]["redshift"], medians, rtol=1e-5)


def test_spectrum_writes_a_page_with_image_and_spectrum(tmp_path):
    page = tmp_path / "page.html"
    cutout = Path(str(files("astrogenspec") / "data" / "demo_cutout_spiral.fits"))
    arguments = ["spectrum", str(cutout), "--ebv", "0", "-o", str(tmp_path / "spectra.fits")]
    arguments += ["--draws", "2", "--seed", "1", "--report", str(page), "--flagged-ok", "-q"]
    assert main(arguments) == 0
    content = content_of(page)
    assert content["spectra"]["draws"] == 2
    assert content["pictures"]["image"][0]["size"] == [64, 64]


@pytest.mark.parametrize(
    ("report", "message"),
    [("page.txt", "must end in .html"), ("galaxies.ecsv", "galaxies.ecsv")],
)
def test_wrong_page_is_reported_before_the_inference(tmp_path, capsys, report, message):
    load_galaxies()[:3].write(tmp_path / "galaxies.ecsv")
    arguments = ["infer", str(tmp_path / "galaxies.ecsv"), "-o", str(tmp_path / "out.fits")]
    assert main([*arguments, "--report", str(tmp_path / report)]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.fits").exists()
