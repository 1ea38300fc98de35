"""Engines: the cluster of dask gives the files of one process."""

import subprocess
import sys
import textwrap

import pytest
from survey_run_cases import SETTINGS, make_catalogue, make_weights, write_parquet

from astrogenspec.distributed import run_survey


def test_only_dask_has_a_scheduler(tmp_path):
    write_parquet(make_catalogue(4), tmp_path / "in.parquet")
    settings = {"weights": make_weights(tmp_path), "workers": 1, **SETTINGS}
    with pytest.raises(ValueError, match="only the engine dask has one"):
        run_survey(tmp_path / "in.parquet", tmp_path / "out", scheduler="tcp://a:1", **settings)


def test_an_existing_cluster_gives_the_same_files(tmp_path):
    """Run in another process: dask looks up addresses, which tests without network forbid."""
    pytest.importorskip("distributed")
    write_parquet(make_catalogue(23), tmp_path / "in.parquet")
    settings = {"rows": 6, "weights": make_weights(tmp_path), **SETTINGS}
    run_survey(tmp_path / "in.parquet", tmp_path / "one", workers=1, **settings)
    script = f"""
        from distributed import LocalCluster
        from astrogenspec.distributed import engines, run_survey
        # All partitions in two calls.
        engines._CALLS = 1
        with LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
        ) as cluster:
            report = run_survey(
                {str(tmp_path / "in.parquet")!r}, {str(tmp_path / "two")!r}, engine="dask",
                scheduler=cluster.scheduler_address, report=print, workers=2, **{settings}
            )
        assert report.finished and report.done == 4
    """
    code = textwrap.dedent(script)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "dashboard of dask: " in run.stdout
    one, two = (
        {path.name: path.read_bytes() for path in (tmp_path / name / "data").iterdir()}
        for name in ("one", "two")
    )
    assert one == two and len(one) == 4
