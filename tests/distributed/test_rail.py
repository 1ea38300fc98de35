"""Stages for RAIL, run and evaluated by RAIL itself."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import h5py
import numpy as np
import pytest
from estimator_cases import make_estimator, make_photometry

from astrogenspec.surveys import BANDS

pytest.importorskip("rail.core")
qp = pytest.importorskip("qp")

from rail.evaluation.dist_to_point_evaluator import DistToPointEvaluator  # noqa: E402
from rail.evaluation.metrics.pointestimates import PointBias, PointSigmaMAD  # noqa: E402

from astrogenspec.distributed.rail import (  # noqa: E402
    AstroGenSpecEstimator,
    AstroGenSpecInformer,
    AstroGenSpecModel,
)

pytestmark = pytest.mark.filterwarnings("ignore")

N = 30
#: Names of the columns and filters of the small network.
COLUMNS = {
    "bands": [f"m_{band}" for band in BANDS],
    "err_bands": [f"e_{band}" for band in BANDS],
    "survey": "sdss",
    "filters": list(BANDS),
    "mag_limits": {f"m_{band}": 22.0 for band in BANDS},
    "ebv_col": "ebv",
    "hdf5_groupname": "photometry",
}
SETTINGS = {**COLUMNS, "n_draws": 200, "zmax": 0.6, "nzbins": 61, "id_col": "id"}


def make_table():
    """Return magnitudes with a band that was not detected, and a galaxy that was not observed."""
    flux = make_photometry(N)
    table = {"id": np.arange(N) * 7 + 2**60, "ebv": flux["ebv"].value}
    for band in BANDS:
        value, error = (flux[f"{kind}_{band}"].value for kind in ("flux", "flux_err"))
        table[f"m_{band}"] = 22.5 - 2.5 * np.log10(value)
        table[f"e_{band}"] = 2.5 / np.log(10) * error / value
        table[f"m_{band}"][4] = -99
    table["m_u"][3] = 99
    table["redshift"] = np.random.default_rng(0).uniform(0.02, 0.3, N)
    table["redshift"][0] = 7.0
    return table


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Write a table, weights, and the model that the informer makes of them."""
    folder = tmp_path_factory.mktemp("rail")
    make_estimator().save(folder / "tiny.safetensors")
    with h5py.File(folder / "in.hdf5", "w") as file:
        for name, values in make_table().items():
            file[f"photometry/{name}"] = values
    informer = AstroGenSpecInformer.make_stage(
        name="informer",
        **COLUMNS,
        weights=str(folder / "tiny.safetensors"),
        epochs=0,
        input=str(folder / "in.hdf5"),
        model=str(folder / "model.pkl"),
    )
    informer.validate()
    informer.run()
    informer.finalize()
    return folder


def estimate(folder, name="estimate", **settings):
    """Estimate from file to file, as in a pipeline."""
    output = folder / f"{name}.hdf5"
    stage = AstroGenSpecEstimator.make_stage(
        name=name,
        **(SETTINGS | {"model": str(folder / "model.pkl")} | settings),
        input=str(folder / "in.hdf5"),
        output=str(output),
    )
    stage.validate()
    stage.run()
    stage.finalize()
    return qp.read(str(output))


def expected(n_draws=200):
    """Return the posterior of the same galaxies, without the one that has no data."""
    table, rows = make_photometry(N), np.delete(np.arange(N), 4)
    table["flux_u"][3] = 0
    table["flux_err_u"][3] = 10 ** (0.4 * 0.5) * table["flux_u"].unit
    posterior = make_estimator().predict(
        photometry=table[rows],
        survey="sdss",
        n_draws=n_draws,
        seed=1,
        ids=make_table()["id"][rows],
        on_error="flag",
    )
    return rows, posterior


def test_estimates_are_those_of_the_estimator(files):
    ensemble = estimate(files)
    rows, posterior = expected()
    assert ensemble.npdf == N
    assert ensemble.ancil["usable"].tolist() == [k != 4 for k in range(N)]
    for name in ("mean", "median", "mode"):
        wanted = getattr(posterior["redshift"], name)()
        np.testing.assert_allclose(ensemble.ancil[f"z{name}"][rows], wanted, rtol=1e-3)
        found = ensemble.ancil[f"astrogenspec_z_{name}"]
        np.testing.assert_array_equal(found, ensemble.ancil[f"z{name}"])
    np.testing.assert_allclose(
        ensemble.ancil["z_std"][rows], posterior["redshift"].std(), rtol=1e-3
    )
    np.testing.assert_array_equal(ensemble.ancil["id"], make_table()["id"])
    assert not ensemble.ancil["fine_tuned"].any()
    np.testing.assert_array_equal(ensemble.ancil["flags"][rows], posterior.flag_codes)
    # The galaxy without data: a uniform distribution, and no numbers.
    assert np.isnan(ensemble.ancil["zmedian"][4]) and ensemble.ancil["flags"][4] != 0
    np.testing.assert_allclose(ensemble.pdf(np.array([0.1, 0.5]))[4], 1 / 0.6)
    # Draws of this network reach beyond the grid.
    draws = posterior["redshift"].draws.value
    np.testing.assert_allclose(ensemble.ancil["outside"][rows], (draws > 0.6).mean(axis=1))


@pytest.mark.parametrize("kind", ["interp", "quantiles", "histogram"])
def test_parametrisations_have_the_median_of_the_draws(files, kind):
    ensemble = estimate(files, parametrisation=kind, zmax=3.0, nzbins=601)
    rows, posterior = expected()
    found = ensemble.median()[rows, 0]
    np.testing.assert_allclose(found, posterior["redshift"].median(), atol=0.03)


def test_results_do_not_depend_on_chunks(files):
    whole = estimate(files, "whole", quantities=["stellar_mass"])
    parts = estimate(files, "parts", quantities=["stellar_mass"], chunk_size=7)
    for name in ("zmedian", "stellar_mass_median", "stellar_mass_p84"):
        np.testing.assert_allclose(whole.ancil[name], parts.ancil[name], rtol=1e-4)
    np.testing.assert_allclose(whole.objdata["yvals"], parts.objdata["yvals"], atol=0.02)


def test_rail_evaluates_the_estimates(files, tmp_path, monkeypatch):
    # RAIL writes some of its files to the present folder.
    monkeypatch.chdir(tmp_path)
    truth = {"redshift": make_table()["redshift"]}
    keep = np.flatnonzero(np.arange(N) != 4)[1:]
    ensemble = estimate(files, zmax=3.0)
    truth, ensemble = {"redshift": truth["redshift"][keep]}, ensemble[keep]
    stage = DistToPointEvaluator.make_stage(
        name="evaluate",
        metrics=["cdeloss", "pit", "brier"],
        metric_config={
            "brier": {"limits": (0, 3.0)},
            "pit": {"tdigest_compression": 1000},
            "cdeloss": {},
        },
        force_exact=True,
        hdf5_groupname="",
        output=str(files / "metrics.hdf5"),
    )
    found = stage.evaluate(ensemble, truth)
    assert np.all(np.isfinite(found["summary"]().get("cdeloss")))
    medians = ensemble.ancil["zmedian"]
    bias = PointBias(medians, truth["redshift"]).evaluate()
    error = (medians - truth["redshift"]) / (1 + truth["redshift"])
    assert bias == pytest.approx(np.median(error))
    assert PointSigmaMAD(medians, truth["redshift"]).evaluate() > 0
    pit = np.array(
        [np.ravel(each.cdf(z))[0] for each, z in zip(ensemble, truth["redshift"], strict=True)]
    )
    draws = expected()[1]["redshift"].draws.value[1:]
    wanted = (draws < truth["redshift"][:, None]).mean(axis=1)
    np.testing.assert_allclose(pit, wanted, atol=0.06)


def test_the_informer_fine_tunes(files, tmp_path):
    informer = AstroGenSpecInformer.make_stage(
        name="tuned",
        **COLUMNS,
        weights=str(files / "tiny.safetensors"),
        epochs=1,
        input=str(files / "in.hdf5"),
        model=str(tmp_path / "tuned.pkl"),
    )
    informer.validate()
    informer.run()
    informer.finalize()
    model = informer.model
    assert isinstance(model, AstroGenSpecModel)
    # One galaxy has a redshift beyond the bounds, one has no data.
    fitted = model.estimator().card["fits"][-1]
    assert fitted["labels"]["redshift"] == N - 2
    assert model.weights != AstroGenSpecModel.of(make_estimator()).weights
    ensemble = estimate(files, "of_tuned", model=str(tmp_path / "tuned.pkl"))
    assert ensemble.ancil["fine_tuned"].all()


def test_missing_columns_and_wrong_settings(files):
    with pytest.raises(KeyError, match="m_y"):
        estimate(files, "a", bands=[f"m_{band}" for band in "ugriy"])
    with pytest.raises(ValueError, match="5 bands, 5 err_bands and 1 filters"):
        estimate(files, "b", filters=["u"])
    with pytest.raises(ValueError, match="parametrisation is 'spline'; it must be one of interp"):
        estimate(files, "c", parametrisation="spline")


@pytest.mark.slow
def test_rail_finds_the_stages_and_runs_them_in_a_pipeline(files, tmp_path):
    """Run another process, as RAIL does, from the folder of the results."""
    script = f"""
        import rail.stages
        from ceci import Pipeline
        from rail.core.stage import RailPipeline, RailStage
        rail.stages.import_and_attach_all(silent=True)
        from rail.stages import AstroGenSpecEstimator, AstroGenSpecInformer
        pipeline = RailPipeline()
        settings = {COLUMNS!r}
        pipeline.inform = AstroGenSpecInformer.build(
            aliases=dict(input="input_train"), epochs=0,
            weights={str(files / "tiny.safetensors")!r}, **settings,
        )
        pipeline.estimate = AstroGenSpecEstimator.build(
            aliases=dict(input="input_test"), n_draws=50,
            connections=dict(model=pipeline.inform.io.model), **settings,
        )
        path = {str(files / "in.hdf5")!r}
        pipeline.initialize(
            dict(input_train=path, input_test=path),
            dict(output_dir=".", log_dir=".", resume=False), None,
        )
        pipeline.save("pipeline.yml")
        assert Pipeline.read("pipeline.yml").run() == 0
    """
    code = textwrap.dedent(script)
    # The stages are processes of "python3".
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    logs = "".join(path.read_text()[-1000:] for path in tmp_path.glob("*.out"))
    assert run.returncode == 0, run.stderr[-2000:] + logs
    ensemble = qp.read(str(tmp_path / "output_estimate.hdf5"))
    assert ensemble.npdf == N and ensemble.ancil["usable"].sum() == N - 1
