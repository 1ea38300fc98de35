import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from astrogenspec.results.statistics import (
    best_draws,
    systematic_choice,
    weighted_means,
    weighted_percentiles,
    weighted_scatters,
)

WANTED = np.array([0, 2.5, 16, 50, 84, 100])


@pytest.fixture
def values():
    return np.random.default_rng(1).normal(size=(3, 7, 50)).astype(np.float32)


@pytest.fixture
def equal():
    return np.full((3, 7), 1 / 7)


def test_equal_weights_agree_with_numpy(values, equal):
    exact = values.astype(float)
    assert_allclose(weighted_means(values, equal), exact.mean(axis=1))
    assert_allclose(weighted_scatters(values, equal), exact.std(axis=1, ddof=1))
    assert_allclose(
        weighted_percentiles(values, equal, WANTED), np.percentile(exact, WANTED, axis=1)
    )


def test_nearly_equal_weights_give_nearly_the_same_percentiles(values, equal):
    """The methods for equal and for other weights must agree."""
    other = equal * (1 + 1e-5 * np.arange(7))
    assert_allclose(
        weighted_percentiles(values, other, WANTED),
        weighted_percentiles(values, equal, WANTED),
        atol=1e-3,
    )


def test_a_weight_of_two_is_close_to_two_draws():
    """With many draws, repeating a draw and doubling its weight are equivalent."""
    rng = np.random.default_rng(2)
    draws = rng.normal(size=(1, 400, 4))
    number = rng.integers(0, 4, 400)
    repeated = np.repeat(draws, number, axis=1)
    weights = (number / number.sum())[None]
    same = np.full((1, repeated.shape[1]), 1 / repeated.shape[1])
    assert_allclose(weighted_means(draws, weights), weighted_means(repeated, same))
    assert_allclose(weighted_scatters(draws, weights), weighted_scatters(repeated, same), rtol=3e-3)
    percentiles = np.array([16.0, 50.0, 84.0])
    assert_allclose(
        weighted_percentiles(draws, weights, percentiles),
        weighted_percentiles(repeated, same, percentiles),
        atol=0.03,
    )


def test_draws_without_weight_do_not_count(values, equal):
    weights = equal.copy()
    weights[:, 3] = 0
    spoilt = values.copy()
    spoilt[:, 3] = 1e6
    rest = np.delete(values, 3, axis=1)
    same = np.full((3, 6), 1 / 6)
    for function in (weighted_means, weighted_scatters):
        assert_allclose(function(spoilt, weights), function(rest, same), rtol=1e-6)
    assert_allclose(
        weighted_percentiles(spoilt, weights, WANTED),
        weighted_percentiles(rest, same, WANTED),
        rtol=1e-6,
    )


def test_missing_pixels_are_ignored(values, equal):
    values[0, 2, 10] = np.nan
    values[1, :, 20] = np.nan
    present = np.delete(values[0, :, 10].astype(float), 2)
    assert_allclose(weighted_means(values, equal)[0, 10], present.mean())
    assert_allclose(weighted_scatters(values, equal)[0, 10], present.std(ddof=1))
    percentiles = weighted_percentiles(values, equal, WANTED)
    assert_allclose(percentiles[:, 0, 10], np.percentile(present, WANTED), rtol=1e-6)
    for result in (weighted_means(values, equal), weighted_scatters(values, equal), *percentiles):
        assert_array_equal(np.argwhere(np.isnan(result)), [[1, 20]])


def test_statistics_of_a_galaxy_without_draws_are_nan(values, equal):
    values[1] = np.nan
    for result in (
        weighted_means(values, equal),
        weighted_scatters(values, equal),
        *weighted_percentiles(values, equal, WANTED),
    ):
        assert_array_equal(np.isnan(result).all(axis=1), [False, True, False])


@pytest.mark.parametrize("weights", [[[1.0]], [[0.0, 1.0, 0.0]]])
def test_one_draw_has_no_scatter(weights):
    values = np.arange(6.0).reshape(1, -1, 2)[:, : len(weights[0])]
    weights = np.array(weights)
    only = values[0, np.argmax(weights)]
    assert_array_equal(weighted_means(values, weights)[0], only)
    assert_array_equal(weighted_percentiles(values, weights, WANTED)[:, 0], np.tile(only, (6, 1)))
    assert np.isnan(weighted_scatters(values, weights)).all()


def test_no_galaxies():
    values, weights = np.empty((0, 3, 4)), np.empty((0, 3))
    assert weighted_means(values, weights).shape == (0, 4)
    assert weighted_percentiles(values, weights, WANTED).shape == (6, 0, 4)
    assert best_draws(values, weights).shape == (0,)
    assert systematic_choice(weights).shape == (0, 3)


# ---- the best draw


def test_the_best_draw_has_the_largest_weight(values):
    weights = np.random.default_rng(3).random((3, 7))
    assert_array_equal(best_draws(values, weights), weights.argmax(axis=1))


def distances(values):
    """Return the mean distance from the median in units of half the 68% range, at most 3."""
    low, middle, high = np.percentile(values, [16, 50, 84], axis=1, keepdims=True)
    return np.minimum(2 * np.abs(values - middle) / (high - low), 3).mean(axis=2)


def test_among_equals_the_best_draw_is_nearest_to_the_median(values, equal):
    nearest = distances(values).argmin(axis=1)
    assert_array_equal(best_draws(values, equal), nearest)
    weights = equal.copy()
    weights[0] = 0
    weights[0, [1, 5]] = 0.5
    values[0, 3] = values[0, [1, 5]].mean(axis=0)
    assert best_draws(values, weights)[0] in (1, 5)


def test_emission_lines_do_not_dominate_the_choice_of_the_best_draw():
    rng = np.random.default_rng(0)
    values = 10 + rng.normal(size=(1, 9, 400)) * 0.1
    offset = np.linspace(-1, 1, 9)
    for draw in range(9):
        # The draw in the middle of the continua has by far the strongest lines.
        values[0, draw] += offset[draw]
        values[0, draw, 40 * draw : 40 * draw + 8] += 500 if draw == 4 else 5
    equal = np.full((1, 9), 1 / 9)
    assert best_draws(values, equal)[0] == 4


def test_a_draw_that_differs_where_others_agree_has_the_largest_distance():
    values = np.ones((1, 7, 6))
    values[0, :, 5] = [3, 1, 4, 1.5, 5, 9, 2.6]
    values[0, 0, :4] = 2
    assert best_draws(values, np.full((1, 7), 1 / 7))[0] == 6


def test_bad_pixels_are_ignored(values, equal):
    good = np.ones((3, 50), dtype=bool)
    good[:, :40] = False
    nearest = distances(values[:, :, 40:]).argmin(axis=1)
    assert_array_equal(best_draws(values, equal, good), nearest)
    assert_array_equal(best_draws(values, equal, ~(good | True)), best_draws(values, equal))


def test_draws_that_are_missing_cannot_be_best(values, equal):
    best = best_draws(values, equal)
    values[0, best[0]] = np.nan
    values[1] = np.nan
    again = best_draws(values, equal)
    assert again[0] != best[0]
    assert again[1] == -1
    assert again[2] == best[2]


# ---- choosing


def test_equal_weights_choose_every_draw_once():
    for n_draws in (1, 3, 7, 16, 100, 997):
        weights = np.full((2, n_draws), 1 / n_draws)
        assert_array_equal(systematic_choice(weights), np.tile(np.arange(n_draws), (2, 1)))


def test_draws_are_resampled_by_weight():
    weights = np.random.default_rng(4).dirichlet(np.full(16, 0.5), size=50)
    for weight, chosen in zip(weights, systematic_choice(weights), strict=True):
        number = np.bincount(chosen, minlength=16)
        assert (np.abs(number - 16 * weight) < 1 + 1e-9).all()
    assert_array_equal(systematic_choice(np.array([[0, 0, 1.0, 0]])), [[2, 2, 2, 2]])
