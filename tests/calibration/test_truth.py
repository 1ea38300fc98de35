"""True values: missing values in every form, matching by name, units, lengths."""

import astropy.units as u
import numpy as np
import pytest
from astropy.table import MaskedColumn, QTable, Table
from astropy.utils.masked import Masked
from posterior_cases import gaussian_posterior

from astrogenspec.calibration import (
    Recalibration,
    calibration_report,
    calibration_table,
    cross_fitted,
    pit,
    tarp,
)
from astrogenspec.calibration.truth import listed_names
from astrogenspec.metrics import crps, point_metrics, redshift_metrics
from astrogenspec.quantities import converted_labels, known_numbers
from astrogenspec.warnings import AstroGenSpecWarning

DEX_MASS = u.dex(u.Msun)
FILL = "fill values or outside the physical limits"


@pytest.fixture(scope="module")
def sample():
    names = [f"galaxy {k}" for k in range(40)]
    quantities = ("redshift", "stellar_mass", "halpha_flux")
    return gaussian_posterior(40, 100, quantities=quantities, names=names)


def expected_scores(sample, name):
    """Scores of one quantity if the first galaxy has no true value."""
    posterior, truth = sample
    values = truth[name].copy()
    values.value[0] = np.nan
    return calibration_table(posterior, {name: values})


@pytest.mark.parametrize(
    ("name", "number"),
    [(name, number) for name in ("redshift", "stellar_mass") for number in (-9999, -999, -99, -1)]
    + [(name, number) for name in ("redshift", "stellar_mass") for number in (99, 99.99, 9999)]
    + [("stellar_mass", 0.0), ("redshift", 1e20), ("halpha_flux", -9999), ("halpha_flux", 99999)],
)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_fill_values_count_as_missing(sample, name, number, dtype):
    posterior, truth = sample
    values = truth[name].value.astype(dtype)
    values[0] = number
    with pytest.warns(AstroGenSpecWarning, match=rf"{FILL} \(1 of {name}\)"):
        scores = calibration_table(
            posterior, {name: u.Quantity(values, truth[name].unit, subok=True)}
        )
    for key in ("n", "rmse", "bias", "crps", "coverage_68"):
        np.testing.assert_allclose(scores[key], expected_scores(sample, name)[key], rtol=1e-4)
    assert scores["n"][0] == 39


@pytest.mark.parametrize(
    "missing", ["masked column", "masked quantity", "infinite", "masked array"]
)
def test_masked_and_infinite_values_count_as_missing(sample, missing):
    posterior, truth = sample
    values, mask = truth["redshift"].value.copy(), np.arange(40) == 0
    values[0] = np.inf if missing == "infinite" else 0.4
    forms = {
        "masked column": lambda: MaskedColumn(values, mask=mask),
        "masked quantity": lambda: Masked(values * u.one, mask=mask),
        "masked array": lambda: np.ma.array(values, mask=mask),
        "infinite": lambda: values,
    }
    scores = calibration_table(posterior, {"redshift": forms[missing]()})
    assert scores["n"][0] == 39
    assert scores["rmse"][0] == pytest.approx(expected_scores(sample, "redshift")["rmse"][0])
    ranks = pit(posterior["redshift"], forms[missing]())
    assert np.isnan(ranks[0]) and np.isfinite(ranks[1:]).all()
    assert np.isnan(crps(posterior["redshift"], forms[missing]())[0])


def test_units_are_converted(sample):
    posterior, truth = sample
    linear = 10 ** (truth["stellar_mass"].value - 9) * 1e9 * u.Msun
    expected = calibration_table(posterior, {"stellar_mass": truth["stellar_mass"]})
    found = calibration_table(posterior, {"stellar_mass": linear})
    assert found["rmse"][0] == pytest.approx(expected["rmse"][0])
    with pytest.raises(u.UnitConversionError, match=r"truth\['stellar_mass'\] has the unit 'Jy'"):
        calibration_table(posterior, {"stellar_mass": np.ones(40) * u.Jy})


def in_order(sample, order):
    posterior, truth = sample
    table = QTable({key: values[order] for key, values in truth.items()})
    table["name"] = np.array(posterior.names)[order]
    return table


def test_rows_are_matched_by_name(sample):
    posterior, truth = sample
    table = in_order(sample, np.random.default_rng(0).permutation(40))
    extra = QTable(table[:1])
    extra["name"] = ["another"]
    expected = calibration_table(posterior, truth)
    for given in (table, QTable({**{k: table[k] for k in table.colnames}}), dict(table.items())):
        found = calibration_table(posterior, given)
        assert dict(zip(found["quantity"], found["rmse"], strict=True)) == dict(
            zip(expected["quantity"], expected["rmse"], strict=True)
        )
    assert tarp(posterior, table).max_deviation == tarp(posterior, truth).max_deviation
    report = calibration_report(posterior, table)
    np.testing.assert_array_equal(report.truth["redshift"].value, truth["redshift"].value)


@pytest.mark.parametrize("column", ["objID", "OBJID", "NAME", "objid"])
def test_rows_are_matched_by_identifiers(sample, column):
    posterior, truth = sample
    table = in_order(sample, np.random.default_rng(0).permutation(40))
    table.rename_column("name", column)
    expected = calibration_table(posterior, truth)["rmse"]
    assert calibration_table(posterior, table)["rmse"].tolist() == expected.tolist()
    assert listed_names(table) == list(table[column])
    with pytest.raises(ValueError, match="no row for 1 of 40 galaxies"):
        calibration_table(posterior, table[1:])


def test_numbered_galaxies_are_matched_by_order_or_number():
    posterior, truth = gaussian_posterior(30, 50, quantities=("redshift",))
    expected = calibration_table(posterior, truth)["rmse"][0]
    labels = [f"J{k}" for k in range(30)]
    named = Table({"name": labels, "redshift": truth["redshift"]})
    assert calibration_table(posterior, named)["rmse"][0] == expected
    numbers = np.arange(30)[::-1]
    numbered = Table({"name": numbers, "redshift": truth["redshift"][::-1]})
    assert calibration_table(posterior, numbered)["rmse"][0] == expected


@pytest.mark.parametrize(
    "function", [calibration_table, calibration_report, Recalibration.fit, cross_fitted, tarp]
)
def test_repeated_and_missing_names_are_refused(sample, function):
    posterior, _ = sample
    order = np.arange(40)
    repeated = in_order(sample, order)
    repeated["name"][3] = "galaxy 2"
    with pytest.raises(ValueError, match=r"truth\['name'\]: 'galaxy 2' is repeated"):
        function(posterior, repeated)
    with pytest.raises(ValueError, match="no row for 2 of 40 galaxies, such as 'galaxy 38'"):
        function(posterior, in_order(sample, order[:38]))
    twice = posterior[[0, 0, *range(2, 40)]]
    with pytest.raises(ValueError, match="names of the galaxies: 'galaxy 0' is repeated"):
        function(twice, in_order(sample, order))


@pytest.mark.parametrize(
    "function", [calibration_table, calibration_report, Recalibration.fit, tarp]
)
def test_wrong_lengths_and_types_are_refused(sample, function):
    posterior, truth = sample
    match = r"truth\['redshift'\] has shape \(39,\), but the posterior has 40 galaxies"
    with pytest.raises(ValueError, match=match):
        function(posterior, {"redshift": truth["redshift"][:39]})
    with pytest.raises(ValueError, match=r"truth\['redshift'\] has 39 values for 40 names"):
        function(posterior, {"redshift": truth["redshift"][:39], "name": list(posterior.names)})
    with pytest.raises(TypeError, match="entries that are not numbers"):
        function(posterior, {"redshift": ["0.1"] * 40})
    if function is not tarp:
        with pytest.raises(TypeError, match="truth is of type ndarray"):
            function(posterior, np.ones(40))


def test_metrics_exclude_fill_values():
    truth = np.array([10.0, 10.5, -9999.0, np.inf, 99.99])
    estimate = np.array([10.1, 10.4, 10.0, 10.0, 10.0])
    scores = point_metrics(estimate * DEX_MASS, truth * DEX_MASS)
    assert scores["n"] == 2 and scores["rmse"] == pytest.approx(0.1)
    scores = redshift_metrics([0.1, 0.2, 0.1, 0.1], [0.1, 0.2, -1.0, 99.0])
    assert scores["n"] == 2 and scores["bias"] == 0


def test_ordinary_numbers_are_no_fill_values():
    masses = np.array([7.0, 9.9, 9.99, 9.999, 12.0])
    assert not known_numbers(masses, DEX_MASS, quantity="stellar_mass")[1].any()
    assert not known_numbers([-0.001, 0.0, 0.99, 6.9], u.one, quantity="redshift")[1].any()
    fluxes = np.array([0.0, 9.0, 9.99, 99.0, 100.0, 1000.0, 1e4, 1e5, 1e6])
    assert not known_numbers(fluxes, None, quantity="halpha_flux")[1].any()


def test_missing_labels_remain_missing_in_conversions():
    for unit, number in ((DEX_MASS, 10.0), (u.Msun, 1e10)):
        table = Table({"stellar_mass": MaskedColumn([number, -9999.0, number], mask=[0, 0, 1])})
        table["stellar_mass"].unit = unit
        table["stellar_mass"].info.meta = {"imf": "Salpeter"}
        found = converted_labels(table)["stellar_mass"]
        expected = number + np.log10(0.61) if unit is DEX_MASS else number * 0.61
        np.testing.assert_allclose(np.asarray(found), [expected, np.nan, np.nan])
