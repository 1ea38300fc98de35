"""HATS catalogues in and out, and LSDB."""

import subprocess
import sys
import textwrap
from dataclasses import astuple

import numpy as np
import pandas as pd
import pytest
from pyarrow import parquet
from survey_run_cases import SETTINGS, make_catalogue, make_weights, plain_columns

from astrogenspec.distributed import predict_table, run_survey
from astrogenspec.distributed.checks import check_survey
from astrogenspec.distributed.engines import process_pixel
from astrogenspec.distributed.hats import catalogue_root, hats_columns, pixel_folder
from astrogenspec.distributed.runs import SurveyRun
from astrogenspec.distributed.work import Task

lsdb = pytest.importorskip("lsdb")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Write a HATS collection of two pixels with a margin, and weights."""
    folder = tmp_path_factory.mktemp("hats")
    table = make_catalogue(14)
    table["ra"], table["dec"] = np.repeat([45.0, 135.0], 7), np.linspace(20, 30, 14)
    frame = pd.DataFrame(plain_columns(table))
    catalogue = lsdb.from_dataframe(
        frame, catalog_name="sim", lowest_order=0, highest_order=1, margin_threshold=3600
    )
    catalogue.write_catalog(folder / "in", progress_bar=False)
    return folder, table, make_weights(folder)


def test_the_result_of_a_hats_catalogue_is_one(folder, tmp_path):
    folder, table, weights = folder
    settings = {**SETTINGS, "keep": (), "weights": weights, "flux_unit": "nmgy"}
    report = run_survey(folder / "in", tmp_path / "out", rows=4, workers=1, **settings)
    assert report.finished and report.rows == 14 and report.done == 4
    assert check_survey(folder / "in", tmp_path / "out") == []
    opened = lsdb.open_catalog(str(tmp_path / "out" / "data"))
    assert len(opened.get_healpix_pixels()) == 2
    found = opened.compute().sort_values("object_id")
    assert found["object_id"].tolist() == sorted(table["object_id"])
    assert "redshift_20" in found.nested_columns and len(found["redshift_20.locs"]) == 14 * 20
    near = opened.cone_search(ra=45.0, dec=22.0, radius_arcsec=3600 * 1.0).compute()
    wanted = table["object_id"][(table["ra"] == 45) & (np.abs(table["dec"] - 22) < 1)]
    assert sorted(near["object_id"]) == sorted(wanted)
    whole = predict_table(table, **(settings | {"keep": ("ra",)}))
    whole.sort("object_id")
    np.testing.assert_allclose(
        found["redshift_median"], whole["redshift_median"].value, rtol=1e-4, atol=1e-4
    )


def test_the_margin_is_kept(folder, tmp_path):
    """The margin of the result has the galaxies of that of the catalogue, with their numbers."""
    _, _, weights = folder
    rng = np.random.default_rng(2)
    table = make_catalogue(40)
    table["ra"], table["dec"] = rng.uniform(40, 50, 40), rng.uniform(15, 25, 40)
    frame = pd.DataFrame(plain_columns(table))
    catalogue = lsdb.from_dataframe(
        frame, catalog_name="sim", lowest_order=2, highest_order=3, margin_threshold=7200
    )
    catalogue.write_catalog(tmp_path / "in", progress_bar=False)
    settings = {**SETTINGS, "keep": (), "weights": weights, "flux_unit": "nmgy"}
    assert run_survey(tmp_path / "in", tmp_path / "out", workers=1, **settings).finished
    before = lsdb.open_catalog(str(tmp_path / "in")).margin
    found = lsdb.open_catalog(str(tmp_path / "out"))
    assert found.margin.hc_structure.catalog_info.margin_threshold == 7200
    assert found.margin.get_healpix_pixels() == before.get_healpix_pixels()
    wanted, margin = before.compute(), found.margin.compute()
    assert len(wanted) > 10
    assert sorted(margin["object_id"]) == sorted(wanted["object_id"])
    one = found.compute().set_index("object_id")["redshift_median"]
    two = margin.set_index("object_id")["redshift_median"]
    assert (two == one[two.index]).all()
    for pixel in before.get_healpix_pixels():
        parts = [each.get_partition(*astuple(pixel)).compute() for each in (before, found.margin)]
        assert sorted(parts[0]["object_id"]) == sorted(parts[1]["object_id"])


@pytest.mark.slow
def test_the_engine_of_lsdb_gives_the_same_files(folder, tmp_path):
    """Run in another process: dask looks up addresses, which tests without network forbid."""
    folder, _, weights = folder
    settings = {**SETTINGS, "keep": (), "weights": weights, "flux_unit": "nmgy", "rows": 4}
    run_survey(folder / "in", tmp_path / "one", workers=1, **settings)
    script = f"""
        from astrogenspec.distributed import run_survey
        if __name__ == "__main__":
            report = run_survey(
                {str(folder / "in")!r}, {str(tmp_path / "two")!r}, engine="lsdb", workers=1,
                **{settings}
            )
            assert report.finished and report.done == 4
    """
    (tmp_path / "script.py").write_text(textwrap.dedent(script))
    run = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-3000:]
    one, two = (
        {path.relative_to(out): path.read_bytes() for path in (out / "data").rglob("part-*")}
        for out in (tmp_path / "one", tmp_path / "two")
    )
    assert one == two and len(one) == 4


def test_partitions_of_lsdb_are_inferred(folder):
    folder, table, weights = folder
    catalogue = lsdb.open_catalog(str(folder / "in"))
    settings = {**SETTINGS, "weights": weights, "flux_unit": "nmgy"}
    result = catalogue.map_partitions(predict_table, **settings).compute()
    assert sorted(result["object_id"]) == sorted(table["object_id"])
    assert len(result["sfr_20.quants"]) == 14 * 20


def test_paths_and_properties(folder):
    folder, _, _ = folder
    root = catalogue_root(folder / "in")
    assert root == folder / "in" / "sim"
    assert hats_columns(root) == ("ra", "dec", "_healpix_29")
    assert hats_columns(folder) == ()
    assert pixel_folder("dataset/Norder=1/Dir=0/Npix=28.parquet") == "Norder=1/Dir=0/Npix=28"
    assert pixel_folder("dataset/Norder=1/Dir=0/Npix=28/a.parquet") == "Norder=1/Dir=0/Npix=28"
    assert pixel_folder("a.parquet") is None


def test_the_engine_of_lsdb_reads_pixels_of_several_files_itself(folder, tmp_path):
    """The frame of LSDB has the rows of all files of a pixel."""
    folder, _, weights = folder
    source = catalogue_root(folder / "in")
    frames = []
    for path in sorted((source / "dataset").rglob("Npix=*.parquet")):
        whole = parquet.read_table(path, partitioning=None)
        target = tmp_path / "in" / path.relative_to(source).with_suffix("")
        target.mkdir(parents=True)
        parquet.write_table(whole[:3], target / "a.parquet")
        parquet.write_table(whole[3:], target / "b.parquet")
        frames.append(whole.to_pandas())
    for name in ("hats.properties", "partition_info.csv"):
        (tmp_path / "in" / name).write_bytes((source / name).read_bytes())
    settings = {**SETTINGS, "keep": (), "weights": weights, "flux_unit": "nmgy"}
    run_survey(tmp_path / "in", tmp_path / "one", workers=1, **settings)
    run = SurveyRun(tmp_path / "in", tmp_path / "two", settings)
    run.start()
    tasks = [
        Task(run.root, run.output, run.manifest.inference, each) for each in run.manifest.partitions
    ]
    assert [len(task.partition) for task in tasks] == [3, 4, 3, 4]
    for frame, of_pixel in zip(frames, (tasks[:2], tasks[2:]), strict=True):
        assert [each.state for each in process_pixel(frame, of_pixel)] == ["done", "done"]
    one, two = (
        {path.relative_to(out): path.read_bytes() for path in (out / "data").rglob("part-*")}
        for out in (tmp_path / "one", tmp_path / "two")
    )
    assert one == two and len(one) == 4


@pytest.mark.slow
def test_the_engine_of_lsdb_goes_on_after_damaged_files(tmp_path):
    table = make_catalogue(15)
    table["ra"], table["dec"] = np.repeat([45.0, 135.0, 225.0], 5), np.linspace(20, 30, 15)
    frame = pd.DataFrame(plain_columns(table))
    lsdb.from_dataframe(frame, catalog_name="sim", lowest_order=0, highest_order=1).write_catalog(
        tmp_path / "in", progress_bar=False
    )
    _, pages, cut = sorted((tmp_path / "in").rglob("Npix=*.parquet"))
    cut.write_bytes(cut.read_bytes()[:-100])
    content = bytearray(pages.read_bytes())
    content[4 : len(content) // 2] = b"\xff" * (len(content) // 2 - 4)
    pages.write_bytes(content)
    settings = {**SETTINGS, "keep": (), "weights": make_weights(tmp_path), "flux_unit": "nmgy"}
    script = f"""
        from astrogenspec.distributed import run_survey
        if __name__ == "__main__":
            report = run_survey(
                {str(tmp_path / "in")!r}, {str(tmp_path / "out")!r}, engine="lsdb", workers=1,
                **{settings}
            )
            assert report.done == 1 and len(report.quarantined) == 2, report
            assert not report.finished
    """
    (tmp_path / "script.py").write_text(textwrap.dedent(script))
    run = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-3000:]
    # The pixel that could be read is opened by LSDB.
    opened = lsdb.open_catalog(tmp_path / "out" / "data")
    found = opened.compute()
    assert sorted(found["object_id"]) == sorted(np.asarray(table["object_id"])[:5])
