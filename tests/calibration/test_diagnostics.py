"""Calibration diagnostics: PIT, ranks, coverage, TARP and the table of scores."""

import astropy.units as u
import numpy as np
import pytest
from astropy.table import MaskedColumn, QTable
from numpy.testing import assert_allclose, assert_array_equal
from posterior_cases import POPULATION, flagged_posterior, gaussian_posterior, quantity
from scipy.stats import chi2, kstest, norm

from astrogenspec.calibration import (
    calibration_table,
    central_coverage,
    coverage_of_pit,
    pit,
    sbc_ranks,
    tarp,
    uniformity_test,
)
from astrogenspec.quantities import QUANTITIES
from astrogenspec.results.posterior import Posterior

N_GALAXIES = 1500


@pytest.fixture(scope="module")
def calibrated():
    return gaussian_posterior(N_GALAXIES, 200, seed=1)


@pytest.fixture(scope="module")
def too_narrow():
    return gaussian_posterior(N_GALAXIES, 200, seed=2, width=0.6)


@pytest.fixture(scope="module")
def shifted():
    return gaussian_posterior(N_GALAXIES, 200, seed=3, shift=0.4)


# ---- probability integral transform and ranks


def test_pit_of_hand_calculated_cases():
    draws = np.array([[1.0, 2.0, 3.0, 4.0]])
    expected = {0.0: 0.5, 1.0: 1.0, 2.5: 2.5, 9.0: 4.5}
    for truth, rank in expected.items():
        assert_allclose(pit(draws, [truth]), rank / 5)


def test_pit_converges_to_the_analytic_value():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=50)
    values = pit(rng.normal(size=(50, 40_000)), truth)
    assert_allclose(values, norm.cdf(truth), atol=0.015)


@pytest.mark.parametrize("n_draws", [1, 2, 5])
def test_random_pit_is_exactly_uniform_with_few_draws(n_draws):
    rng = np.random.default_rng(1)
    draws, truth = rng.normal(size=(20_000, n_draws)), rng.normal(size=20_000)
    assert kstest(pit(draws, truth, seed=2), "uniform").pvalue > 0.001
    assert kstest(pit(draws, truth), "uniform").pvalue < 1e-10


def test_random_pit_is_uniform_with_ties():
    rng = np.random.default_rng(3)
    draws, truth = rng.integers(0, 4, (20_000, 20)), rng.integers(0, 4, 20_000)
    assert kstest(pit(draws, truth, seed=4), "uniform").pvalue > 0.001


def test_pit_of_unusable_galaxies_is_nan():
    posterior, truth = flagged_posterior(4, 20, bad=2)
    truth["sfr"][1] = np.nan * truth["sfr"].unit
    for seed in (None, 1):
        values = pit(posterior["sfr"], truth["sfr"], seed=seed)
        assert_array_equal(np.isnan(values), [False, True, True, False])
    assert_array_equal(sbc_ranks(posterior["sfr"], truth["sfr"]) == -1, [False, True, True, False])


def test_pit_is_independent_of_unit_and_logarithm():
    posterior, truth = gaussian_posterior(50, 30, quantities=("stellar_mass",))
    mass = posterior["stellar_mass"]
    linear = quantity(mass.draws.to(u.kg).value, u.kg)
    true = truth["stellar_mass"]
    assert_array_equal(pit(mass, true), pit(linear, true.to(u.Msun)))
    assert_array_equal(pit(mass, true.value), pit(mass, true))


def test_invalid_truths_are_refused(calibrated):
    posterior, truth = calibrated
    with pytest.raises(u.UnitConversionError, match="truth has the unit 'm'.*dex"):
        pit(posterior["sfr"], np.ones(N_GALAXIES) * u.m)
    with pytest.raises(ValueError, match=rf"truth has shape \(3,\).*{N_GALAXIES} galaxies"):
        pit(posterior["sfr"], truth["sfr"][:3])
    with pytest.raises(ValueError, match=r"draws has shape \(3,\)"):
        pit(np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match="at least one draw"):
        pit(np.ones((3, 0)), np.ones(3))


def test_ranks_are_uniform_if_calibrated(calibrated, too_narrow):
    for (posterior, truth), good in ((calibrated, True), (too_narrow, False)):
        ranks = sbc_ranks(posterior["sfr"], truth["sfr"])
        assert ranks.min() >= 0
        assert ranks.max() <= 200
        counts = np.bincount(ranks * 10 // 201, minlength=10)
        statistic = np.sum((counts - counts.mean()) ** 2) / counts.mean()
        assert bool(chi2.sf(statistic, 9) > 0.001) is good


def test_ties_of_ranks_are_broken_at_random():
    draws, truth = np.zeros((4000, 3)), np.zeros(4000)
    assert_array_equal(sbc_ranks(draws, truth), 0)
    counts = np.bincount(sbc_ranks(draws, truth, seed=1), minlength=4)
    assert_allclose(counts, 1000, atol=120)


def test_uniformity_test_agrees_with_scipy():
    values = np.random.default_rng(0).random(300) ** 1.1
    expected = kstest(values, "uniform")
    assert uniformity_test([*values, np.nan]) == (expected.statistic, expected.pvalue)
    assert np.isnan(uniformity_test([np.nan])).all()


# ---- coverage of intervals


@pytest.mark.parametrize("name", QUANTITIES)
def test_coverage_of_a_calibrated_posterior(calibrated, name):
    posterior, truth = calibrated
    levels = np.array([0.5, 0.68, 0.9, 0.95])
    coverage = central_coverage(posterior[name], truth[name], levels, seed=0)
    assert (np.abs(coverage - levels) < 4 * np.sqrt(levels * (1 - levels) / N_GALAXIES)).all()


def test_coverage_of_a_narrow_posterior_is_analytic(too_narrow):
    posterior, truth = too_narrow
    levels = np.array([0.5, 0.68, 0.9, 0.95])
    expected = 1 - 2 * norm.sf(0.6 * norm.isf((1 - levels) / 2))
    coverage = central_coverage(posterior["sfr"], truth["sfr"], levels)
    assert_allclose(coverage, expected, atol=4 * (0.25 / N_GALAXIES) ** 0.5)


def test_coverage_has_no_bias_with_few_draws():
    rng = np.random.default_rng(5)
    draws, truth = rng.normal(size=(40_000, 4)), rng.normal(size=40_000)
    assert_allclose(
        central_coverage(draws, truth, [0.3, 0.68, 0.95], seed=1), [0.3, 0.68, 0.95], atol=0.01
    )


def test_coverage_agrees_with_the_intervals(calibrated):
    posterior, truth = calibrated
    lower, upper = posterior["sfr"].interval(0.8)
    inside = (lower <= truth["sfr"]) & (truth["sfr"] <= upper)
    assert_allclose(
        central_coverage(posterior["sfr"], truth["sfr"], [0.8]), np.mean(inside), atol=0.01
    )


def test_coverage_at_levels_0_and_1():
    values = [0.01, 0.3, 0.5, 0.99]
    assert_array_equal(coverage_of_pit(values, [0, 0.4, 1]), [0.25, 0.5, 1])
    assert np.isnan(coverage_of_pit([np.nan], [0.5])).all()
    with pytest.raises(ValueError, match="probabilities between 0 and 1 are expected"):
        coverage_of_pit(values, [68])


# ---- TARP


def simple_tarp(draws, truth, references, levels):
    """Count truths inside the ball that contains a fraction of the draws, by definition."""
    coverage = []
    for level in levels:
        inside = 0
        for one, true, reference in zip(draws, truth, references, strict=True):
            radii = np.sort(np.linalg.norm(one - reference, axis=1))
            n_inside = round(level * len(radii))
            radius = radii[n_inside - 1] if n_inside else 0
            inside += np.linalg.norm(true - reference) <= radius
        coverage.append(inside / len(truth))
    return np.array(coverage)


def gaussian_cloud(width=1.0, shift=0.0, n_galaxies=500, n_draws=200):
    rng = np.random.default_rng(7)
    mixing = np.array([[1.0, 0.6, 0.0], [0.0, 0.8, 0.5], [0.0, 0.0, 0.7]])
    centre = rng.normal(size=(n_galaxies, 3))
    truth = centre + rng.normal(size=(n_galaxies, 3)) @ mixing
    scatter = rng.normal(size=(n_galaxies, n_draws, 3))
    return centre[:, None] + (width * scatter + shift) @ mixing, truth


@pytest.mark.parametrize("width", [1.0, 0.5])
def test_tarp_agrees_with_a_simple_implementation(width):
    draws, truth = gaussian_cloud(width)
    low, high = np.percentile(truth, [1, 99], axis=0)
    references = np.random.default_rng(8).uniform(low, high, truth.shape)
    result = tarp(draws, truth, references=references, n_levels=21)
    scaled = [(a - low) / (high - low) for a in (draws, truth, references)]
    # Beyond the outermost draw the simple implementation is undefined.
    expected = simple_tarp(*scaled, result.levels[:-2])
    assert_allclose(result.coverage[:-2], expected, atol=0.012)
    assert result.n_galaxies == 500


def test_tarp_accepts_calibrated_and_rejects_miscalibrated_draws():
    good = tarp(*gaussian_cloud())
    assert good.p_value > 0.01
    assert good.max_deviation < 0.07
    inside = (good.lower <= good.levels) & (good.levels <= good.upper)
    assert inside.mean() > 0.7
    for wrong in (gaussian_cloud(width=0.6), gaussian_cloud(width=1.6), gaussian_cloud(shift=0.7)):
        bad = tarp(*wrong)
        assert bad.p_value < 1e-3
        assert bad.max_deviation > good.max_deviation


def test_tarp_detects_a_missing_correlation():
    rng = np.random.default_rng(0)
    covariance = [[1, 0.95], [0.95, 1]]
    truth = rng.multivariate_normal([0, 0], covariance, 1000)
    draws = rng.multivariate_normal([0, 0], covariance, (1000, 100))
    shuffled = draws.copy()
    shuffled[..., 1] = rng.permuted(draws[..., 1], axis=1)
    for axis in range(2):
        assert uniformity_test(pit(shuffled[..., axis], truth[:, axis], seed=0))[1] > 0.001
    references = np.broadcast_to([-1.0, 1.0], truth.shape)
    assert tarp(draws, truth, references=references).p_value > 0.001
    assert tarp(shuffled, truth, references=references).p_value < 1e-6


def test_tarp_in_one_dimension_with_a_distant_reference_equals_the_pit():
    draws, truth = gaussian_cloud()
    references = np.full((500, 1), -1e3)
    result = tarp(draws[..., :1], truth[:, :1], references=references, n_levels=21, seed=3)
    values = pit(draws[..., 0], truth[:, 0])
    expected = [np.mean(values <= level) for level in result.levels]
    assert_allclose(result.coverage, expected, atol=0.01)


def test_tarp_of_a_posterior(calibrated, too_narrow):
    good = tarp(*calibrated, n_bootstrap=50)
    assert good.p_value > 0.001
    assert tarp(*too_narrow, n_bootstrap=50).p_value < 1e-6
    one = tarp(
        calibrated[0], {"ssfr": calibrated[1]["sfr"].value - calibrated[1]["stellar_mass"].value}
    )
    assert one.p_value > 0.001
    table = QTable(calibrated[1] | {"name": np.full(N_GALAXIES, "x")})
    assert_array_equal(tarp(calibrated[0], table, n_bootstrap=50).coverage, good.coverage)


def test_tarp_is_reproducible_with_a_seed():
    draws, truth = gaussian_cloud(n_galaxies=50)
    assert_array_equal(tarp(draws, truth, seed=1).coverage, tarp(draws, truth, seed=1).coverage)
    assert (tarp(draws, truth, seed=1).coverage != tarp(draws, truth, seed=2).coverage).any()
    assert tarp(draws, truth).coverage[0] == 0
    assert tarp(draws, truth).coverage[-1] == 1


def test_tarp_ignores_unusable_galaxies():
    posterior, truth = flagged_posterior(6, 30, bad=2)
    truth["sfr"][0] = np.nan * truth["sfr"].unit
    assert tarp(posterior, truth).n_galaxies == 4
    with pytest.raises(ValueError, match="no galaxy has a true value"):
        tarp(posterior[2], {"sfr": truth["sfr"][2:3]})


def test_tarp_refuses_mismatched_arguments():
    draws, truth = gaussian_cloud(n_galaxies=5)
    with pytest.raises(ValueError, match=r"draws has shape \(5, 200, 3\) and truth \(5, 2\)"):
        tarp(draws, truth[:, :2])
    with pytest.raises(ValueError, match="references has shape"):
        tarp(draws, truth, references=np.zeros((5, 2)))
    with pytest.raises(TypeError, match="draws is a ndarray; a Posterior is expected"):
        tarp(draws, {"sfr": truth[:, 0]})
    with pytest.raises(ValueError, match="truth has no quantity"):
        tarp(gaussian_posterior(2, 3)[0], {})


# ---- table of scores


def test_the_table_of_a_calibrated_posterior(calibrated):
    table = calibration_table(*calibrated)
    assert list(table["quantity"]) == list(QUANTITIES)
    assert_allclose(table["coverage_68"], 0.68, atol=0.05)
    assert_allclose(table["coverage_95"], 0.95, atol=0.025)
    assert (table["pit_p_value"] > 1e-3).all()
    assert (table["n"] == N_GALAXIES).all()
    sigma = np.array([0.3 * scatter for _, scatter in POPULATION.values()])
    assert_allclose(table["rmse"] / sigma, 1, atol=0.1)
    assert_allclose(table["scatter"] / sigma, 1, atol=0.15)
    assert_allclose(table["bias"] / sigma, 0, atol=0.12)
    assert_allclose(table["crps"] / sigma, np.pi**-0.5, rtol=0.08)
    assert_allclose(table["r2"], 1 - 0.09 / 1.09, atol=0.02)
    assert list(table["unit"]) == ["", *["dex"] * 8]


def test_the_table_detects_narrow_and_biased_posteriors(too_narrow, shifted):
    narrow = calibration_table(*too_narrow)
    assert (narrow["coverage_68"] < 0.55).all()
    assert (narrow["pit_p_value"] < 1e-6).all()
    biased = calibration_table(*shifted)
    assert (biased["pit_p_value"] < 1e-6).all()
    sigma = np.array([0.3 * scatter for _, scatter in POPULATION.values()])
    assert_allclose(biased["bias"] / sigma, 0.4, atol=0.12)


def test_the_table_by_group(calibrated):
    posterior, truth = calibrated
    groups = np.where(np.arange(N_GALAXIES) < 500, "bright", "faint")
    truth = {name: truth[name] for name in ("redshift", "sfr")}
    table = calibration_table(posterior, truth, groups=groups)
    assert list(table["group"]) == ["bright", "faint"] * 2
    assert list(table["n"]) == [500, 1000] * 2
    alone = calibration_table(posterior[:500], {"sfr": truth["sfr"][:500]})
    for column in ("coverage_68", "crps", "bias", "r2"):
        assert_allclose(table[column][2], alone[column][0], atol=0.005)
    with pytest.raises(ValueError, match=r"groups has shape \(2,\)"):
        calibration_table(posterior, truth, groups=["a", "b"])


def test_the_table_accepts_units_masks_and_derived_quantities(calibrated):
    posterior, truth = calibrated
    ssfr = truth["sfr"].value - truth["stellar_mass"].value
    table = QTable(
        {
            "id": np.arange(N_GALAXIES),
            "stellar_mass": truth["stellar_mass"].to(u.Msun),
            "gas_metallicity": MaskedColumn(
                truth["gas_metallicity"].value, mask=np.arange(N_GALAXIES) >= 600
            ),
            "ssfr": ssfr,
        }
    )
    scores = calibration_table(posterior, table)
    assert list(scores["quantity"]) == ["stellar_mass", "gas_metallicity", "ssfr"]
    assert list(scores["n"]) == [N_GALAXIES, 600, N_GALAXIES]
    assert (scores["r2"] > 0.8).all()


def test_the_table_of_few_draws_and_galaxies():
    posterior, truth = gaussian_posterior(3, 1)
    table = calibration_table(posterior, truth)
    assert np.isfinite(table["crps"]).all()
    empty = calibration_table(posterior[:0], {name: values[:0] for name, values in truth.items()})
    assert (empty["n"] == 0).all()
    assert np.isnan(empty["coverage_68"]).all()


def test_fluxes_that_are_not_positive_are_ignored():
    draws = {
        "halpha_flux": np.array([[1.0, 2.0], [1.0, 2.0], [0.0, 0.0]])
        * QUANTITIES["halpha_flux"].unit
    }
    table = calibration_table(Posterior(draws), {"halpha_flux": [1.5, -3.0, 1.0]})
    assert table["n"][0] == 1


def test_the_table_refuses_mismatched_arguments(calibrated):
    posterior, truth = calibrated
    with pytest.raises(KeyError, match="'mass'"):
        calibration_table(posterior, {"mass": truth["sfr"]})
    with pytest.raises(ValueError, match="truth has no quantity"):
        calibration_table(posterior, QTable({"id": np.arange(N_GALAXIES)}))
    with pytest.raises(u.UnitConversionError, match=r"truth\['sfr'\] has the unit 'm'"):
        calibration_table(posterior, {"sfr": np.ones(N_GALAXIES) * u.m})
    with pytest.raises(ValueError, match=r"truth\['sfr'\] has shape \(2,\)"):
        calibration_table(posterior, {"sfr": truth["sfr"][:2]})
