"""Inference for tables of other engines."""

import pickle

import astropy.units as u
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from astropy.table import MaskedColumn, QTable
from survey_run_cases import SETTINGS, make_catalogue, make_weights, nested, plain_columns

from astrogenspec import Flag, PropertyEstimator
from astrogenspec.distributed import predict_table
from astrogenspec.distributed.summaries import QUANTILES

N = 12


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return make_weights(tmp_path_factory.mktemp("weights"))


def as_pandas(table):
    return pd.DataFrame(plain_columns(table), index=3 * np.arange(len(table)))


def test_summaries_are_those_of_the_draws(weights):
    table = make_catalogue(N)
    found = predict_table(table, weights=weights, quantiles=5, save_draws="float32", **SETTINGS)
    estimator = PropertyEstimator.load(weights)
    posterior = estimator.predict(photometry=table, n_draws=20, seed=3, ids=table["object_id"])
    for name in posterior.quantities:
        draws = posterior.draws[name]
        assert found[f"{name}_draws"].unit == draws.unit
        assert np.array_equal(found[f"{name}_draws"].value, draws.value)
        for suffix, percentile in (("median", 50), ("p16", 16), ("p84", 84)):
            wanted = np.percentile(draws.value, percentile, axis=1).astype(np.float32)
            np.testing.assert_allclose(found[f"{name}_{suffix}"].value, wanted, rtol=1e-6)
        wanted = np.percentile(draws.value, [2.5, 16, 50, 84, 97.5], axis=1).T
        np.testing.assert_allclose(found[f"{name}_5"].value, wanted, rtol=1e-6)
    assert np.array_equal(found["measurable"], posterior.measurable.astype(np.float32))
    assert found.colnames[:3] == ["object_id", "ra", "dec"]
    assert np.array_equal(found["object_id"], table["object_id"])
    assert found.meta["quants"] == [0.025, 0.16, 0.5, 0.84, 0.975]


@pytest.mark.parametrize("k", QUANTILES)
def test_all_kinds_of_tables_give_the_same(weights, k):
    table = make_catalogue(N)
    settings = SETTINGS | {"weights": weights, "quantiles": k, "flux_unit": "nmgy", "run": "abc"}
    of_astropy = predict_table(table, **settings)
    of_arrow = predict_table(pa.table(plain_columns(table)), **settings)
    of_pandas = predict_table(as_pandas(table), **settings)
    assert isinstance(of_arrow, pa.Table) and isinstance(of_pandas, pd.DataFrame)
    assert of_pandas.index.tolist() == (3 * np.arange(N)).tolist()
    assert of_arrow.column_names == of_astropy.colnames == list(of_pandas.columns)
    for name in ("redshift_median", "sfr_p16", "flags", "object_id"):
        values = np.asarray(getattr(of_astropy[name], "value", of_astropy[name]))
        assert np.array_equal(of_arrow[name].to_numpy(), values)
        assert np.array_equal(of_pandas[name].to_numpy(), values)
    assert set(of_arrow["run"].to_pylist()) == {"abc"}
    if k:
        locs, quants = nested(of_arrow, f"halpha_flux_{k}")
        assert np.array_equal(locs, of_astropy[f"halpha_flux_{k}"].value)
        np.testing.assert_allclose(quants, np.broadcast_to(QUANTILES[k], (N, k)), rtol=1e-6)
    assert of_arrow.schema.field("stellar_mass_median").metadata == {b"unit": b"dex(solMass)"}


def test_frames_are_nested(weights):
    nested_pandas = pytest.importorskip("nested_pandas")
    frame = predict_table(
        as_pandas(make_catalogue(N)), weights=weights, flux_unit="nmgy", **SETTINGS
    )
    assert isinstance(frame, nested_pandas.NestedFrame)
    assert set(frame.nested_columns) == {c for c in frame.columns if c.endswith("_20")}
    assert len(frame["redshift_20.locs"]) == 20 * N
    # Nested columns of the input are left out.
    frame["flux_g"] = 1.0
    with pytest.raises(ValueError, match="no column 'redshift_20'"):
        predict_table(frame, weights=weights, **(SETTINGS | {"keep": ["redshift_20"]}))


def test_draws_in_half_precision_do_not_overflow(weights):
    table = make_catalogue(N)
    settings = SETTINGS | {"weights": weights, "quantiles": 0}
    half, full = (predict_table(table, save_draws=f"float{k}", **settings) for k in (16, 32))
    assert (full["halpha_flux_draws"].value > 1e5).any()
    np.testing.assert_allclose(
        half["halpha_flux_log10_draws"], np.log10(full["halpha_flux_draws"].value), rtol=1e-3
    )
    np.testing.assert_allclose(half["sfr_draws"].value, full["sfr_draws"].value, rtol=1e-3)


def test_tables_without_rows_have_all_columns(weights):
    table = make_catalogue(N)
    settings = SETTINGS | {"weights": weights, "flux_unit": "nmgy", "save_draws": "float16"}
    for convert in (lambda t: t, as_pandas, lambda t: pa.table(plain_columns(t))):
        full, empty = (predict_table(convert(t), **settings) for t in (table, table[:0]))
        assert len(empty) == 0
        if isinstance(full, pa.Table):
            assert empty.schema.equals(full.schema, check_metadata=True)
        elif isinstance(full, pd.DataFrame):
            assert empty.dtypes.equals(full.dtypes)
        else:
            assert empty.colnames == full.colnames
            for one, two in zip(empty.itercols(), full.itercols(), strict=True):
                assert one.dtype.kind == two.dtype.kind and one.shape[1:] == two.shape[1:]


def test_results_do_not_depend_on_the_division(weights):
    table = make_catalogue(N)
    whole = predict_table(table, weights=weights, **SETTINGS)
    order = np.random.default_rng(5).permutation(N)
    for parts in (np.array_split(order, 3), np.array_split(order, 7)):
        found = [predict_table(table[rows], weights=weights, **SETTINGS) for rows in parts]
        for name in ("redshift_median", "sfr_20"):
            joined = np.concatenate([part[name].value for part in found])
            np.testing.assert_allclose(joined, whole[name].value[order], rtol=1e-4, atol=1e-4)


def test_bad_rows_are_flagged_and_the_others_do_not_change(weights):
    table = make_catalogue(N)
    good = predict_table(table, weights=weights, **SETTINGS)
    for name in table.colnames:
        if name.startswith("flux"):
            table[name][4] = np.nan
    table["object_id"] = MaskedColumn(table["object_id"], mask=np.arange(N) == 7)
    found = predict_table(table, weights=weights, **SETTINGS)
    bad = np.isin(np.arange(N), (4, 7))
    assert np.isnan(found["redshift_median"][bad]).all()
    assert (found["flags"][bad] & Flag.NO_DATA != 0).all()
    assert found["object_id"].mask.tolist() == (np.arange(N) == 7).tolist()
    for name in ("redshift_median", "sfr_20"):
        np.testing.assert_allclose(
            found[name][~bad].value, good[name][~bad].value, rtol=1e-4, atol=1e-4
        )
    assert np.array_equal(found["flags"][~bad], good["flags"][~bad])


def test_a_table_of_bad_rows_only(weights):
    table = make_catalogue(2)
    table["object_id"] = MaskedColumn(table["object_id"], mask=True)
    found = predict_table(table, weights=weights, **SETTINGS)
    assert np.isnan(found["redshift_median"]).all() and found["redshift_20"].shape == (2, 20)


def test_columns_are_read_by_other_names(weights):
    table = make_catalogue(N)
    renamed = table.copy()
    renamed.rename_column("flux_g", "g_cModelFlux")
    found = predict_table(renamed, weights=weights, columns={"flux_g": "g_cModelFlux"}, **SETTINGS)
    wanted = predict_table(table, weights=weights, **SETTINGS)
    assert np.array_equal(found["redshift_20"], wanted["redshift_20"])


def test_the_function_can_be_pickled(weights):
    function = pickle.loads(pickle.dumps(predict_table))
    assert len(function(make_catalogue(2), weights=weights, **SETTINGS)) == 2


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"ids": "id"}, ValueError, "the table has no column 'id'; it has flux_u"),
        ({"keep": ["z"]}, ValueError, "the table has no column 'z'"),
        (
            {"columns": {"flux_g": "g"}},
            ValueError,
            "no column 'g', which is to be read as 'flux_g'",
        ),
        ({"quantiles": 7}, ValueError, "quantiles is 7; it must be one of 0, 5, 20, 99"),
        ({"seed": None}, TypeError, "seed is None; it must be an int"),
        ({"draws": 0}, ValueError, "draws"),
        ({"save_draws": "float64"}, ValueError, "save_draws is 'float64'"),
        ({"ids": "ra"}, TypeError, "ids has the type float64"),
        ({"survey": "nothing"}, ValueError, "nothing"),
    ],
)
def test_invalid_arguments_are_errors(weights, change, error, message):
    with pytest.raises(error, match=message):
        predict_table(make_catalogue(2), **(SETTINGS | {"weights": weights} | change))


def test_other_objects_are_errors(weights):
    with pytest.raises(TypeError, match="frame is a list; it must be a table of pandas, pyarrow"):
        predict_table([1], weights=weights, **SETTINGS)


def test_fluxes_without_a_unit_are_an_error(weights):
    with pytest.raises(u.UnitsError):
        predict_table(QTable(plain_columns(make_catalogue(2))), weights=weights, **SETTINGS)
