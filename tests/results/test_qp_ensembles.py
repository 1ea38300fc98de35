"""Ensembles of the package qp: all parametrisations describe the draws."""

import astropy.units as u
import numpy as np
import pytest

from astrogenspec.results.posterior import Posterior
from astrogenspec.results.qp_ensembles import KINDS, grid_densities

qp = pytest.importorskip("qp")
GRID = np.linspace(0, 3, 301)


def make_posterior(n_draws=4000):
    """Return redshifts of one peak, two distant peaks, and one peak narrower than a step."""
    rng = np.random.default_rng(1)
    one = rng.normal(0.5, 0.05, n_draws)
    two = np.where(rng.uniform(size=n_draws) < 0.7, one, rng.normal(2.0, 0.08, n_draws))
    narrow = rng.normal(1.2345, 0.001, n_draws)
    return Posterior({"redshift": np.stack([one, two, narrow]) * u.one}, names=["a", "b", "c"])


@pytest.mark.parametrize("kind", KINDS)
def test_distributions_are_those_of_the_draws(kind):
    posterior = make_posterior()
    draws = posterior["redshift"].draws.value
    grid = None if kind == "quantiles" else GRID
    ensemble = posterior.to_qp("redshift", kind, grid=grid)
    assert ensemble.npdf == 3 and ensemble.ancil["name"].tolist() == ["a", "b", "c"]
    np.testing.assert_allclose(ensemble.ancil["mean"], draws.mean(axis=1), rtol=1e-6)
    # Half a step of the grid.
    np.testing.assert_allclose(ensemble.median()[:, 0], np.median(draws, axis=1), atol=0.005)
    for z in (0.4, 0.5, 0.6, 1.0, 1.9, 2.0, 2.2):
        wanted = (draws < z).mean(axis=1)
        # Between distant quantiles, qp interpolates with a spline.
        tolerance = 0.03 if kind == "quantiles" else 0.02
        np.testing.assert_allclose(ensemble.cdf(z).ravel()[:2], wanted[:2], atol=tolerance)
    if kind != "quantiles":
        # Between its peaks, the second galaxy has no probability.
        assert ensemble.cdf(1.6)[1] - ensemble.cdf(0.9)[1] < 1e-3


def test_a_kernel_estimate_has_the_density_of_a_gaussian():
    draws = np.random.default_rng(2).normal(1.0, 0.1, (1, 20_000))
    density, outside = grid_densities(draws, GRID)
    wanted = np.exp(-0.5 * ((GRID - 1.0) / 0.1) ** 2) / (0.1 * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(density[0], wanted, atol=0.15)
    assert outside == [0] and np.trapezoid(density[0], GRID) == pytest.approx(1)


def test_histograms_count_the_draws():
    posterior = Posterior({"redshift": [[0.1, 0.1, 0.25, 0.9]] * u.one})
    ensemble = posterior.to_qp("redshift", "histogram", grid=[0.0, 0.2, 0.4, 0.8])
    np.testing.assert_allclose(np.ravel(ensemble.objdata["pdfs"]), [2 / 0.6, 1 / 0.6, 0])
    assert ensemble.ancil["outside"] == [0.25]


def test_a_distribution_narrower_than_a_step_keeps_its_mean():
    ensemble = make_posterior().to_qp("redshift", "interp", grid=GRID)
    grid, density = ensemble.metadata["xvals"].ravel(), ensemble.objdata["yvals"][2]
    assert np.trapezoid(grid * density, grid) == pytest.approx(1.2345, abs=2e-4)


def test_the_default_grid_covers_all_draws():
    for kind in ("interp", "histogram"):
        assert make_posterior(200).to_qp("redshift", kind).ancil["outside"].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("kind", "grid", "message"),
    [
        ("spline", None, "kind is 'spline'; it must be one of quantiles, interp, histogram"),
        ("quantiles", GRID, "quantiles have none"),
        ("interp", GRID**2, "unequal distances"),
        ("histogram", GRID[::-1], "at least 3 increasing numbers"),
        ("interp", GRID + 1.5, "galaxy 'a' has no distribution of redshift on the grid from 1.5"),
    ],
)
def test_invalid_arguments(kind, grid, message):
    with pytest.raises(ValueError, match=message):
        make_posterior(50).to_qp("redshift", kind, grid=grid)


def test_galaxies_without_draws_have_no_density():
    values = np.full((2, 30), np.nan)
    values[1] = 0.5
    density, outside = grid_densities(values, GRID)
    assert density[0].tolist() == [0] * 301 and np.isnan(outside[0])
    assert density[1].argmax() == 50 and outside[1] == 0
