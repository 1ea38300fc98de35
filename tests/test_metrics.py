import astropy.units as u
import numpy as np
import pytest
from astropy.table import MaskedColumn, Table
from astropy.utils.masked import Masked
from numpy.testing import assert_allclose, assert_array_equal
from posterior_cases import gaussian_posterior, quantity
from scipy.stats import norm

from astrogenspec.metrics import (
    bootstrap_errors,
    crps,
    interval_coverage,
    point_metrics,
    redshift_metrics,
    robust_scatter,
)

MASS = u.dex(u.Msun)


def test_robust_scatter_of_a_gaussian_with_outliers():
    values = np.random.default_rng(0).normal(3, 2, 100_000)
    values[:1000] = 1e6
    assert_allclose(robust_scatter(values), 2, rtol=0.02)
    assert robust_scatter([1.0, np.nan, 1.0]) == 0
    assert np.isnan(robust_scatter([]))


def test_redshift_metrics_of_a_hand_calculation():
    truth = np.array([0.0, 1.0, 0.25, 1.0, 0.1])
    deviation = np.array([0.01, -0.01, 0.0, 0.2, np.nan])
    scores = redshift_metrics(truth + deviation * (1 + truth), truth)
    assert scores["n"] == 4
    assert_allclose(scores["bias"], 0.05)
    assert_allclose(scores["median_bias"], 0.005)
    assert_allclose(scores["outlier_fraction"], 0.25)
    # distances from the median 0.005: 0.005, 0.005, 0.015, 0.195
    assert_allclose(scores["sigma_nmad"], 1.4826 * 0.01)
    assert redshift_metrics(truth + 0.2, truth, outlier=0.3)["outlier_fraction"] == 0


def test_point_metrics_of_a_hand_calculation():
    estimate = quantity([1.0, 2.0, 4.0, 5.0], MASS)
    truth = quantity([1.0, 2.0, 3.0, np.nan], MASS)
    scores = point_metrics(estimate, truth)
    assert scores["n"] == 3
    assert_allclose(scores["bias"], 1 / 3)
    assert scores["median_bias"] == scores["scatter"] == 0
    assert_allclose(scores["rmse"], 3**-0.5)
    assert_allclose(scores["r2"], 1 - (1 / 3) / (2 / 3))


def test_truth_is_converted_to_the_unit_of_the_estimate():
    scores = point_metrics(quantity([10.0, 11.0], MASS), [1e10, 1e11] * u.Msun)
    assert scores["rmse"] < 1e-12
    assert_allclose(scores["r2"], 1)


def test_masked_truth_is_excluded():
    estimate = quantity([10.0, 11.0, 12.0], MASS)
    for truth in (
        Masked(quantity([10.0, 99.0, 12.0], MASS), mask=[False, True, False]),
        MaskedColumn([10.0, 99.0, 12.0], mask=[False, True, False]),
        np.ma.array([10.0, 99.0, 12.0], mask=[False, True, False]),
        Table({"a": MaskedColumn([1e10, 99.0, 1e12], mask=[0, 1, 0], unit=u.Msun)})["a"],
        Table({"a": MaskedColumn([10.0, 99.0, 12.0], mask=[0, 1, 0], unit=MASS)})["a"],
    ):
        scores = point_metrics(estimate, truth)
        assert scores["n"] == 2
        assert scores["rmse"] < 1e-12


@pytest.mark.parametrize("score", [redshift_metrics, point_metrics])
def test_metrics_without_galaxies_are_nan(score):
    for nothing in ([], [np.nan, np.nan]):
        scores = score(np.array(nothing, dtype=float), np.array(nothing, dtype=float))
        assert scores.pop("n") == 0
        assert np.isnan(list(scores.values())).all()


def test_r2_is_nan_for_constant_truth():
    assert np.isnan(point_metrics(np.ones(3), np.ones(3))["r2"])


def test_mismatched_shapes_and_units_raise():
    with pytest.raises(ValueError, match=r"estimate has shape \(2,\) but truth has shape \(3,\)"):
        point_metrics(np.ones(2), np.ones(3))
    with pytest.raises(u.UnitConversionError, match="truth has the unit 'm'"):
        point_metrics(quantity([1.0], MASS), [1.0] * u.m)
    with pytest.raises(u.UnitConversionError, match="estimate has the unit 'm'"):
        redshift_metrics([1.0] * u.m, [1.0])
    with pytest.raises(TypeError, match="not numbers"):
        point_metrics(np.ones(1), ["a"])


# ---- CRPS


@pytest.mark.parametrize("fair", [True, False])
def test_crps_is_the_sum_over_all_pairs(fair):
    rng = np.random.default_rng(1)
    draws, truth = rng.normal(size=(6, 17)), rng.normal(size=6)
    draws[0] = draws[0, 0]
    draws[1, 3:7] = np.nan
    for values, true, score in zip(draws, truth, crps(draws, truth, fair=fair), strict=True):
        values = values[np.isfinite(values)]
        k = len(values)
        pairs = sum(abs(a - b) for a in values for b in values)
        expected = np.mean(np.abs(values - true)) - pairs / (2 * k * (k - 1 if fair else k))
        assert_allclose(score, expected, rtol=1e-10)


def test_fair_crps_has_the_analytic_mean_of_a_gaussian():
    rng = np.random.default_rng(2)
    truth = rng.normal(size=20_000)
    analytic = truth * (2 * norm.cdf(truth) - 1) + 2 * norm.pdf(truth) - np.pi**-0.5
    for n_draws in (2, 20):
        scores = crps(rng.normal(size=(20_000, n_draws)), truth)
        error = np.std(scores - analytic) / len(truth) ** 0.5
        assert abs(np.mean(scores - analytic)) < 4 * error
    # the biased form is larger by the expected 1 / (sqrt(pi) n_draws)
    unfair = np.mean(crps(rng.normal(size=(20_000, 20)), truth, fair=False))
    assert_allclose(unfair - np.mean(analytic), np.pi**-0.5 / 20, atol=0.005)


def test_crps_is_lowest_for_the_true_width():
    scores = {}
    for width in (0.5, 1.0, 2.0):
        posterior, truth = gaussian_posterior(2000, 50, width=width, quantities=("sfr",))
        scores[width] = np.mean(crps(posterior["sfr"], truth["sfr"]).value)
    assert scores[1.0] < scores[0.5]
    assert scores[1.0] < scores[2.0]


def test_crps_has_units_and_full_precision():
    posterior, truth = gaussian_posterior(3, 10)
    assert crps(posterior["sfr"], truth["sfr"]).unit == u.dex
    assert (
        crps(posterior["halpha_flux"], truth["halpha_flux"]).unit == posterior["halpha_flux"].unit
    )
    # single precision far from zero
    draws = (1e4 + np.random.default_rng(0).normal(size=(1, 2000))).astype(np.float32)
    exact = crps(draws.astype(float), [1e4])
    assert_allclose(crps(draws, [1e4]), exact, rtol=1e-9)


def test_crps_of_unusable_galaxies_is_nan():
    draws = np.array([[1.0, 2.0], [np.nan, np.nan], [1.0, 2.0], [1.0, np.nan]])
    assert_array_equal(np.isnan(crps(draws, [1.5, 1.5, np.nan, 1.0])), [False, True, True, True])
    assert crps(np.empty((0, 3)), []).shape == (0,)


def test_crps_of_one_draw():
    with pytest.raises(ValueError, match="at least two draws"):
        crps([[1.0]], [1.0])
    assert_allclose(crps([[1.0], [4.0]], [2.0, 2.0], fair=False), [1, 2])


def test_crps_does_not_depend_on_blocks():
    rng = np.random.default_rng(3)
    draws, truth = rng.normal(size=(7, 500_000)).astype(np.float32), rng.normal(size=7)
    assert_array_equal(crps(draws, truth)[5:], crps(draws[5:], truth[5:]))


# ---- coverage and errors


def test_interval_coverage_is_the_fraction_inside():
    lower, upper = quantity([1.0, 1.0, 1.0, np.nan], MASS), quantity([2.0, 2.0, 2.0, 2.0], MASS)
    assert interval_coverage(lower, upper, quantity([1.0, 1.5, 3.0, 1.0], MASS)) == 2 / 3
    assert interval_coverage(lower, upper, [30.0, 1e3, np.nan, 1.0] * u.Msun) == 0.5
    assert np.isnan(interval_coverage(lower, upper, np.full(4, np.nan)))
    with pytest.raises(ValueError, match="upper has shape"):
        interval_coverage(lower, upper[:2], np.ones(4))


def test_interval_coverage_of_a_calibrated_posterior():
    posterior, truth = gaussian_posterior(4000, 400, quantities=("sfr",))
    for level in (0.5, 0.95):
        coverage = interval_coverage(*posterior["sfr"].interval(level), truth["sfr"])
        assert abs(coverage - level) < 4 * (level * (1 - level) / 4000) ** 0.5 + 1 / 400


def test_bootstrap_error_of_a_mean():
    values = np.random.default_rng(0).normal(0, 2, 400)
    error = bootstrap_errors(np.mean, values, n_resamples=500, seed=1)
    assert_allclose(error, 2 / 20, rtol=0.15)
    assert error == bootstrap_errors(np.mean, values, n_resamples=500, seed=1)


def test_bootstrap_errors_of_scores():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=300)
    errors = bootstrap_errors(point_metrics, truth + rng.normal(0, 0.1, 300), truth, seed=2)
    assert set(errors) == {"n", "bias", "median_bias", "scatter", "rmse", "r2"}
    assert errors["n"] == 0
    assert_allclose(errors["bias"], 0.1 / 300**0.5, rtol=0.2)
    assert_allclose(errors["rmse"], 0.1 / 600**0.5, rtol=0.2)


def test_bootstrap_of_invalid_input():
    assert np.isnan(bootstrap_errors(point_metrics, np.array([]), np.array([]))["bias"])
    with pytest.raises(ValueError, match="arrays have lengths"):
        bootstrap_errors(np.mean)
    with pytest.raises(ValueError, match=r"arrays have lengths \[1, 2\]"):
        bootstrap_errors(point_metrics, np.ones(1), np.ones(2))
    with pytest.raises(ValueError, match="n_resamples is 1"):
        bootstrap_errors(np.mean, np.ones(3), n_resamples=1)
