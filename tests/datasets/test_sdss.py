"""Galaxies of SDSS from a loopback server, with faults."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from astropy.table import QTable
from sky_server_cases import BANDS, CALIBRATION, SkyCase, served

from astrogenspec.datasets import sdss as sdss_module
from astrogenspec.datasets.folders import read_manifest
from astrogenspec.datasets.sdss import SkyServer, SloanSurvey
from astrogenspec.datasets.sdss_catalogue import (
    COLUMNS,
    LINE_ERROR_FACTORS,
    galaxies_of,
    parse_answer,
    run_range,
)
from astrogenspec.datasets.sky_cells import SPLITS, split_of
from astrogenspec.datasets.sources import build_dataset
from astrogenspec.quantities import quantity_index
from astrogenspec.surveys import SDSS

FRAME = "/sas/dr17/eboss/photoObj/frames/301/756/1/frame-{}-000756-1-0010.fits.bz2"


@pytest.fixture(scope="module")
def contents():
    return SkyCase(n_runs=2, n_fields=2, n_galaxies=2)


@pytest.fixture
def sky(contents):
    contents.faults, contents.always, contents.requests = {}, {}, []
    with served(contents) as address:
        yield contents, address


def source(address, folder, n=60, **options):
    server = SkyServer(address, per_second=1000, first_pause=0.01, contact="me@example.org")
    return SloanSurvey("galaxy-spectroscopy", n, server, folder / "queries", **options)


def build(address, folder, **options):
    return build_dataset(source(address, folder, **options), folder, progress=False)


def read(folder):
    parts = []
    for split in SPLITS:
        for path in sorted((folder / split).glob("shard-*.h5")):
            with h5py.File(path) as file:
                parts.append({name: file[name][:] for name in file if file[name].shape})
                parts[-1]["split"] = np.full(len(file["name"]), split)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def reasons(folder):
    table = QTable.read(folder / "failed.ecsv")
    return dict(zip(table["name"], table["reason"], strict=True))


def test_object_identifiers_of_a_run():
    """The first object of run 756, rerun 301 in the public catalogue is in its range."""
    first, last = run_range(756)
    assert first <= 1237648720142401611 <= last
    assert last + 1 == run_range(757)[0]


def test_frames_are_downloaded_once_and_all_galaxies_cut(sky, tmp_path):
    case, address = sky
    manifest = build(address, tmp_path / "out")
    assert sum(manifest["galaxies"].values()) == 8 and manifest["failed"] == 0
    assert manifest["units_missing"] == 0 and manifest["complete"]
    frames = [path for path, _ in case.requests if "frame-" in path]
    assert len(frames) == len(set(frames)) == 4 * 5
    assert all("(me@example.org)" in agent for _, agent in case.requests)
    columns = read(tmp_path / "out")
    rows = {str(row["objID"]): row for row in case.rows}
    order = [rows[name.decode()] for name in columns["name"]]
    true = np.array([row["modelFlux_r"] for row in order]) * 10 ** (
        0.4 * 0.03 * SDSS.extinction_coefficient["r"]
    )
    np.testing.assert_allclose(columns["flux"][:, 2], true, rtol=1e-3)
    # The Gaussian of 3 pixels lies inside the cutout: catalogue and image agree.
    np.testing.assert_allclose(columns["image"][:, 2].sum((1, 2), dtype=float), true, rtol=0.15)
    noise = columns["ivar"][:, 1][:, :5].mean((1, 2)) ** -0.5
    # Calibration, 100 counts of sky, and gain and dark variance of g in camera column 1.
    factor = 10 ** (0.4 * 0.03 * SDSS.extinction_coefficient["g"])
    expected = CALIBRATION["g"] * np.sqrt(100 / 3.32 + 15.6025) * factor
    np.testing.assert_allclose(noise, expected, rtol=0.02)
    np.testing.assert_allclose(columns["theta"][:, 0], [row["z"] for row in order], rtol=1e-5)
    assert ((columns["spectrum_ivar"] > 0).sum(1) > 3700).all()
    fields = [(row["field_ra"], row["field_dec"]) for row in order]
    np.testing.assert_array_equal(columns["split"], split_of(*np.transpose(fields)))


def test_labels_follow_the_conventions(contents):
    rows = parse_answer(contents.answer("BETWEEN 0 AND 9223372036854775807"), COLUMNS)
    rows["h_beta_flux"][0] = 2.9 * LINE_ERROR_FACTORS["h_beta"]
    rows["lgm_tot_p50"][1] = -9999
    rows["velDisp"][2] = 850
    table = galaxies_of(rows)
    theta = {name: table.theta[:, quantity_index(name)] for name in ("stellar_mass", "sfr")}
    # Kroupa to Chabrier, Madau & Dickinson (2014).
    np.testing.assert_allclose(
        theta["stellar_mass"][2:], rows["lgm_tot_p50"][2:] + np.log10(0.61 / 0.66), atol=1e-6
    )
    np.testing.assert_allclose(theta["sfr"], rows["sfr_tot_p50"] + np.log10(0.63 / 0.67), atol=1e-6)
    assert np.isnan(theta["stellar_mass"][1])
    metallicity = table.theta[:, quantity_index("gas_metallicity")]
    np.testing.assert_allclose(metallicity[1::2], 8.72, atol=0.01)
    assert np.isnan(metallicity[::2]).all()
    np.testing.assert_array_equal(table.measurable, rows["bptclass"] == 1)
    hbeta = table.theta[:, quantity_index("hbeta_flux")]
    assert np.isnan(hbeta[0]) and hbeta[1] == pytest.approx(np.log10(30))
    # [O III] with S/N 4 before the factor and 2.6 after it is not a label.
    assert np.isnan(table.theta[:, quantity_index("oiii5007_flux")]).all()
    black_hole = table.theta[:, quantity_index("black_hole_mass")]
    assert black_hole[0] == pytest.approx(8.491 + 4.38 * np.log10(0.75), abs=1e-3)
    assert np.isnan(black_hole[2])
    assert table.photometry.morphology.axis_ratio[0] == pytest.approx(0.6)


@pytest.mark.parametrize(
    "fault", [503, (429, 0), "cut", b"<html>busy</html>" * 300], ids=["503", "429", "cut", "html"]
)
def test_passing_faults_are_repaired(sky, tmp_path, fault):
    """A second attempt, or a second run, completes the data set."""
    case, address = sky
    case.faults = {FRAME.format("r"): [fault]}
    manifest = build(address, tmp_path / "out")
    if isinstance(fault, bytes):
        assert manifest["units_missing"] == 1 and sum(manifest["galaxies"].values()) == 6
        manifest = build(address, tmp_path / "out")
    assert sum(manifest["galaxies"].values()) == 8 and manifest["units_missing"] == 0
    assert reasons(tmp_path / "out") == {}


def test_retry_after_is_obeyed(sky, tmp_path):
    case, address = sky
    case.faults = {"/SqlSearch": [(429, 1)]}
    start = time.monotonic()
    assert source(address, tmp_path).cost().n_galaxies == 8
    assert time.monotonic() - start >= 1.0
    assert len(case.requests) == 2


def test_missing_frames_and_spectra_are_listed(sky, tmp_path):
    case, address = sky
    spectrum = next(path for path in case.files if "/spec-" in path)
    case.always = {FRAME.format(band): 404 for band in BANDS} | {spectrum: 404}
    manifest = build(address, tmp_path / "out")
    assert sum(manifest["galaxies"].values()) == 8 and manifest["units_missing"] == 0
    texts = reasons(tmp_path / "out")
    assert sum("no image" in text and "status 404" in text for text in texts.values()) == 2
    assert sum("no spectrum" in text for text in texts.values()) == 1


def test_one_missing_band_leaves_the_others(sky, tmp_path):
    case, address = sky
    case.always = {FRAME.format("u"): 404}
    build(address, tmp_path / "out")
    assert reasons(tmp_path / "out") == {}
    has_u = (read(tmp_path / "out")["ivar"][:, 0] > 0).any((1, 2))
    assert has_u.sum() == 6


def test_frame_of_another_band(sky, tmp_path):
    case, address = sky
    case.always = {FRAME.format("r"): case.files[FRAME.format("i")]}
    manifest = build(address, tmp_path / "out")
    assert manifest["units_missing"] == 1
    assert sum(manifest["galaxies"].values()) == 6


def test_servers_that_do_not_answer(sky, tmp_path, monkeypatch):
    case, address = sky
    monkeypatch.setattr("astrogenspec.datasets.sources._MAX_FAILURES", 2)
    case.always = dict.fromkeys(case.files, 503)
    with pytest.raises(OSError, match="run the same command again later"):
        build(address, tmp_path / "out")
    case.always = {}
    assert sum(build(address, tmp_path / "out")["galaxies"].values()) == 8


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("<html>maintenance</html>", "did not answer with the columns"),
        ("#Table1\nrun,n\n756", "incomplete"),
    ],
)
def test_answers_that_are_no_table(answer, text):
    with pytest.raises(ValueError, match=text):
        parse_answer(answer, ("run", "n"))


def test_unknown_selection(tmp_path):
    with pytest.raises(ValueError, match="no selection 'all'"):
        SloanSurvey("all", 10, SkyServer(), tmp_path)


def test_a_small_sample_is_part_of_a_larger_one(sky, tmp_path, monkeypatch):
    _, address = sky
    small = build(address, tmp_path / "out", n=2)
    before = set(read(tmp_path / "out")["name"])
    assert sum(small["galaxies"].values()) == len(before) < 8
    large = build(address, tmp_path / "out", n=60)
    assert sum(large["galaxies"].values()) == 8
    assert before < set(read(tmp_path / "out")["name"])


def test_cost_is_counted(sky, tmp_path):
    _, address = sky
    cost = source(address, tmp_path).cost()
    fields = 8 / sdss_module._PER_FIELD
    assert cost.n_galaxies == 8
    assert cost.n_requests == round(2 + 5 * fields + 8)
    assert cost.gigabytes_through == pytest.approx(5 * fields * 2.9e-3 + 8 * 0.2e-3)


_RUN = """
import sys
from pathlib import Path
from astrogenspec.datasets.sdss import SkyServer, SloanSurvey
from astrogenspec.datasets.sources import build_dataset
from astrogenspec.datasets import sdss
sdss._CONNECTIONS = 1
out = Path(sys.argv[2])
server = SkyServer(sys.argv[1], per_second=1000)
source = SloanSurvey("images-to-physics", 60, server, out / "queries")
build_dataset(source, out, progress=False)
"""


def test_killed_run_continues(sky, tmp_path):
    """After kill -9 at most the field that was being made is repeated."""
    case, address = sky
    case.always = dict.fromkeys(case.files, "slow")
    out = tmp_path / "out"
    environment = {"PYTHONPATH": str(Path(sdss_module.__file__).parents[2])}
    command = [sys.executable, "-c", _RUN, address, str(out)]
    process = subprocess.Popen(command, env=environment)
    deadline = time.monotonic() + 300
    while not list((out / "parts").glob("*.npz")) and time.monotonic() < deadline:
        time.sleep(0.02)
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not read_manifest(out)["complete"]
    done = len(list((out / "parts").glob("*.npz")))
    assert 1 <= done < 4
    case.always = {}
    assert subprocess.run(command, env=environment).returncode == 0
    frames = [path for path, _ in case.requests if "frame-" in path]
    repeated = len(frames) - len(set(frames))
    assert len(set(frames)) == 20 and repeated <= 5
    assert sum(read_manifest(out)["galaxies"].values()) == 8
    assert not list((out / "parts").iterdir())
