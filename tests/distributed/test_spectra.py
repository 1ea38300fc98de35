"""Spectra of survey runs: those of `SpectrumEstimator.predict`, on two grids."""

import numpy as np
import pytest
from survey_run_cases import SETTINGS as COMMON
from survey_run_cases import read_result, write_parquet

from astrogenspec import PropertyEstimator, SpectrumEstimator
from astrogenspec.demo import load_galaxies
from astrogenspec.distributed import ManifestError, predict_table, run_survey
from astrogenspec.distributed.checks import check_survey
from astrogenspec.distributed.spectra import GRIDS

N = 3
SETTINGS = {**COMMON, "ebv": 0.03}


def make_table():
    """Return galaxies of the demonstration, one without data."""
    table = load_galaxies()[:N]
    table["object_id"] = np.array([31, 7, 2**60])
    table["ra"], table["dec"] = np.arange(N, dtype=float), np.zeros(N)
    for name in table.colnames:
        if name.startswith("flux") or name.startswith("petro"):
            table[name][1] = np.nan
    return table


@pytest.mark.filterwarnings("ignore")
def test_spectra_are_those_of_the_estimator(tmp_path):
    table = make_table()
    write_parquet(table["object_id", "ra", "dec", *_bands(table)], tmp_path / "in.parquet")
    settings = {**SETTINGS, "spectra": 2, "rows": 2, "workers": 1}
    assert run_survey(tmp_path / "in.parquet", tmp_path / "out", **settings).finished
    found = read_result(tmp_path / "out")
    order = np.argsort(np.asarray(table["object_id"]))
    bare = table["object_id", *_bands(table)]
    options = {"seed": 3, "ids": np.asarray(table["object_id"]), "on_error": "flag", "ebv": 0.03}
    posterior = PropertyEstimator.from_pretrained().predict(
        photometry=bare, n_draws=SETTINGS["draws"], **options
    )
    spectra = SpectrumEstimator.from_pretrained().predict(
        photometry=bare, posterior=posterior, n_draws=2, **options
    )
    best = np.array([spectra.flux.value[k, max(spectra.best_draw[k], 0)] for k in order])
    full = np.stack(found["spectrum_best"].to_numpy())
    assert full.shape == (N, GRIDS["spectrum"].size) == (N, 3841)
    np.testing.assert_allclose(full, best, rtol=2e-3, atol=2e-3)
    assert np.isnan(full).all(axis=1).tolist() == (order == 1).tolist()
    assert (found["spectrum_flags"].to_numpy() != 0)[order == 1].all()
    coarse = np.stack(found["spectrum_coarse_best"].to_numpy())
    np.testing.assert_allclose(
        coarse, best[:, :3840].reshape(N, 240, 16).mean(axis=2), rtol=2e-3, atol=2e-3
    )
    low, high = (np.stack(found[f"spectrum_coarse_{key}"].to_numpy()) for key in ("p16", "p84"))
    assert (low[order != 1] <= high[order != 1]).all()
    # The first coarse pixel is the mean of the first sixteen.
    np.testing.assert_allclose(
        GRIDS["spectrum_coarse"].log_wavelength[0], GRIDS["spectrum"].log_wavelength[:16].mean()
    )
    unit = found.schema.field("spectrum_best").metadata[b"unit"]
    assert unit == b"1e-17 erg / (Angstrom s cm2)"
    assert check_survey(tmp_path / "in.parquet", tmp_path / "out") == []


@pytest.mark.filterwarnings("ignore")
def test_settings_of_spectra(tmp_path):
    table = make_table()["object_id", "ra", "dec", *_bands(make_table())]
    empty = predict_table(table[:0], **SETTINGS, spectra=2, spectrum_grid="coarse")
    assert empty["spectrum_coarse_best"].shape == (0, 240)
    assert "spectrum_best" not in empty.colnames
    with pytest.raises(ValueError, match="spectrum_grid is 'fine'; it must be \"full\" or"):
        predict_table(table, **SETTINGS, spectra=2, spectrum_grid="fine")
    write_parquet(table, tmp_path / "in.parquet")
    settings = {**SETTINGS, "rows": 1, "workers": 1, "shard": (2, 3)}
    run_survey(tmp_path / "in.parquet", tmp_path / "out", spectra=1, **settings)
    with pytest.raises(ManifestError, match="the option spectra 1, but now it is 2"):
        run_survey(tmp_path / "in.parquet", tmp_path / "out", spectra=2)


def _bands(table):
    return [f"flux_{band}" for band in "ugriz"] + [f"flux_err_{band}" for band in "ugriz"]
