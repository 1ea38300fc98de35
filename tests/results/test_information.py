"""Information: divergences with known values, grades, tables and files; modes, odds and qp."""

import sys
from types import SimpleNamespace

import astropy.units as u
import numpy as np
import pytest
from astropy.table import QTable
from estimator_cases import make_estimator, make_photometry
from posterior_cases import flagged_posterior, gaussian_posterior
from scipy.stats import norm

from astrogenspec.quantities import QUANTITIES
from astrogenspec.results.information import divergence, grades, population_of, population_rank
from astrogenspec.results.posterior import Posterior
from astrogenspec.results.statistics import row_modes

SHARES = (np.arange(201) + 0.5) / 201
NORMAL = norm.ppf(SHARES)


def gaussian_bits(mean, sigma):
    """Return the KL divergence of N(mean, sigma) from N(0, 1), in bits."""
    return (np.log(1 / sigma) + (sigma**2 + mean**2 - 1) / 2) / np.log(2)


@pytest.mark.parametrize(
    ("mean", "sigma"), [(0, 1), (0, 0.5), (1, 0.5), (0, 0.1), (2, 0.1), (0, 0.01), (1, 1)]
)
@pytest.mark.parametrize("n_draws", [200, 1000])
def test_divergence_of_a_gaussian_from_a_gaussian_population(mean, sigma, n_draws):
    draws = np.random.default_rng(0).normal(mean, sigma, (300, n_draws))
    bits = divergence(draws, NORMAL)
    assert bits.mean() == pytest.approx(gaussian_bits(mean, sigma), abs=0.03)
    assert bits.std() < 2.5 / n_draws**0.5


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 0.5), (0.3, 0.35), (0.9, 1)])
def test_divergence_of_uniform_posteriors_is_unbiased(low, high):
    draws = np.random.default_rng(1).uniform(low, high, (400, 100))
    assert divergence(draws, SHARES).mean() == pytest.approx(-np.log2(high - low), abs=0.03)


def test_divergence_of_a_bimodal_posterior():
    rng = np.random.default_rng(2)
    draws = np.where(rng.random((200, 1000)) < 0.5, 0.25, 0.75) + rng.uniform(
        -0.05, 0.05, (200, 1000)
    )
    assert divergence(draws, SHARES).mean() == pytest.approx(np.log2(5), abs=0.25)
    wide = rng.uniform(0.2, 0.8, (200, 1000))
    assert divergence(wide, SHARES).mean() < 0.8


def test_divergence_is_invariant_under_a_linear_transformation():
    draws = np.random.default_rng(3).normal(1, 0.3, (50, 500))
    bent = np.exp(3 * draws), np.exp(3 * NORMAL)
    assert np.allclose(divergence(draws, NORMAL), divergence(*bent), atol=0.05)


def test_divergence_outside_the_population_is_finite():
    bits = divergence(np.random.default_rng(0).normal([[5.0], [50.0]], 0.1, (2, 400)), NORMAL)
    assert np.isfinite(bits).all() and bits.min() > 10


def test_divergence_of_equal_or_missing_draws_is_nan():
    values = np.random.default_rng(0).normal(0, 1, (3, 100))
    values[1], values[2, 4] = 0.5, np.nan
    assert np.isfinite(divergence(values, NORMAL)).tolist() == [True, False, False]
    with pytest.raises(ValueError, match="3 draws, but at least 4"):
        divergence(values[:, :3], NORMAL)
    assert divergence(np.empty((0, 10)), NORMAL).shape == (0,)


def test_population_ranks_are_the_cumulative_distribution():
    values = np.random.default_rng(4).normal(0, 1, 20_000)
    assert np.abs(population_rank(values, NORMAL) - norm.cdf(values)).max() < 0.002
    far = population_rank(np.array([-6.0, -3.0, 3.0, 6.0, np.nan]), NORMAL)
    assert 0 < far[0] < far[1] < 0.002 and 0.998 < far[2] < far[3] < 1 and np.isnan(far[4])


def test_population_table_uses_the_weights():
    rng = np.random.default_rng(5)
    theta = np.full((4000, 9), np.nan)
    theta[:, 0] = rng.uniform(0, 0.4, 4000)
    theta[:, 1] = rng.normal(10, 0.5, 4000)
    theta[:5, 2] = 1.0
    table = population_of(theta)
    assert list(table) == ["redshift", "stellar_mass"]
    assert np.allclose(table["redshift"], 0.4 * SHARES, atol=0.02)
    weighted = population_of(theta, np.where(theta[:, 0] < 0.1, 3.0, 1.0))
    assert np.interp(0.1, weighted["redshift"], SHARES) == pytest.approx(0.5, abs=0.03)
    with pytest.raises(ValueError, match="expected \\(n, 9\\)"):
        population_of(theta[:, :3])


def normal_population(names):
    from posterior_cases import POPULATION

    return {
        name: (POPULATION[name][0] + POPULATION[name][1] * 1.044 * NORMAL).tolist()
        for name in names
    }


def test_information_of_a_posterior(tmp_path):
    names = ("redshift", "sfr", "halpha_flux")
    meta = {"population": normal_population(names)}
    posterior, _ = gaussian_posterior(200, 400, quantities=names, meta=meta)
    for name in names:
        bits = posterior.information(name)
        # The posteriors are 0.3 times as wide as the population: on average log2(1.044 / 0.3) bits.
        assert bits.unit == u.bit and bits.value.mean() == pytest.approx(1.8, abs=0.15)
        assert set(posterior.informed(name)) <= {"mostly prior", "partly informed", "informed"}
    table = posterior.to_table()
    assert np.array_equal(table["sfr_information"], posterior.information("sfr"))
    for ending in ("fits", "ecsv"):
        posterior.write(tmp_path / f"out.{ending}", draws=True)
        again = Posterior.read(tmp_path / f"out.{ending}")
        assert np.allclose(again.information("sfr"), posterior.information("sfr"), atol=1e-3)
        assert QTable.read(tmp_path / f"out.{ending}")["sfr_information"].unit == u.bit
    assert np.array_equal(posterior[3:5].information("sfr"), posterior.information("sfr")[3:5])
    joined = Posterior.concatenate([posterior[:100], posterior[100:]])
    assert np.array_equal(joined.information("sfr"), posterior.information("sfr"))


def test_grades_of_information():
    assert grades(np.array([-0.01, 0.3, 0.6, 2.0, np.nan])).tolist() == [
        "mostly prior",
        "mostly prior",
        "partly informed",
        "informed",
        "",
    ]


def test_information_without_a_population_raises_an_error():
    posterior, _ = gaussian_posterior(3, 20, quantities=("redshift", "sfr"))
    with pytest.raises(ValueError, match="the posterior has no population"):
        posterior.information("sfr")
    with pytest.raises(KeyError, match="'colour' is not among the quantities drawn"):
        posterior.information("colour")
    assert "sfr_information" not in posterior.to_table().colnames
    half, _ = gaussian_posterior(
        3, 20, quantities=("redshift", "sfr"), meta={"population": normal_population(["sfr"])}
    )
    with pytest.raises(ValueError, match="no 'redshift'; it has sfr"):
        half.information("redshift")
    assert "redshift_information" not in half.to_table().colnames


def test_information_of_unusable_galaxies_is_masked():
    posterior, _ = flagged_posterior()
    posterior = Posterior(posterior.draws, meta={"population": normal_population(QUANTITIES)})
    column = posterior.to_table()["sfr_information"]
    assert column.mask.tolist() == [False, False, True, False]
    assert posterior.informed("sfr")[2] == ""


def test_predict_passes_the_population_to_the_posterior():
    population = population_of(np.random.default_rng(0).uniform(0, 0.4, (500, 9)))
    posterior = make_estimator(population=population).predict(
        photometry=make_photometry(), n_draws=50, seed=1, batch_size=2
    )
    assert posterior.information("redshift").shape == (5,)


# ---- point estimates


def test_mode_is_the_value_of_highest_density():
    rng = np.random.default_rng(0)
    gaussian = rng.normal(3.0, 0.5, (200, 1000))
    assert row_modes(gaussian).mean() == pytest.approx(3.0, abs=0.02)
    assert row_modes(gaussian).std() < 0.15
    skewed = rng.gamma(3.0, 1.0, (200, 2000))
    assert row_modes(skewed).mean() == pytest.approx(2.0, abs=0.12)
    two = np.where(rng.random((100, 1000)) < 0.7, 1.0, 2.0) + 0.05 * rng.standard_normal(
        (100, 1000)
    )
    assert np.abs(row_modes(two) - 1).max() < 0.05


def test_mode_of_degenerate_draws():
    values = np.full((4, 50), np.nan)
    values[1] = 0.3
    values[2, :3] = [1, 2, 2.1]
    values[3] = np.random.default_rng(0).normal(0, 1, 50)
    modes = row_modes(values)
    assert np.isnan(modes[0]) and modes[1] == pytest.approx(0.3) and np.isfinite(modes[2:]).all()
    assert row_modes(np.empty((0, 5))).shape == (0,)


def test_odds_are_the_fraction_of_draws_near_the_mode():
    draws = np.random.default_rng(0).normal(0.2, [[0.012], [0.12]], (2, 20_000))
    redshift = Posterior({"redshift": np.abs(draws) * u.one})["redshift"]
    assert redshift.odds(0.01)[0] == pytest.approx(norm.cdf(1) - norm.cdf(-1), abs=0.01)
    assert redshift.odds()[1] < 0.3 < redshift.odds()[0]
    mass = gaussian_posterior(1, 4000, quantities=("stellar_mass",))[0]["stellar_mass"]
    assert mass.odds(0.15)[0] == pytest.approx(0.683, abs=0.02)
    assert np.isnan(flagged_posterior()[0]["redshift"].odds()[2])
    with pytest.raises(ValueError, match="width is 0"):
        redshift.odds(0)
    assert gaussian_posterior(2, 50)[0]["sfr"].mode().unit == QUANTITIES["sfr"].unit


# ---- qp


class Ensemble:
    def __init__(self, kind, data):
        self.kind, self.data = kind, data

    def set_ancil(self, columns):
        self.ancil = columns


def test_qp_quantiles_increase(monkeypatch):
    monkeypatch.setitem(sys.modules, "qp", SimpleNamespace(Ensemble=Ensemble, quant="quantiles"))
    posterior, _ = gaussian_posterior(3, 2000, quantities=("redshift",), names=["a", "b", "c"])
    ensemble = posterior.to_qp("redshift")
    shares, places = ensemble.data["quants"], ensemble.data["locs"]
    assert ensemble.kind == "quantiles" and places.shape == (3, len(shares))
    assert np.all(np.diff(shares) > 0) and np.all(np.diff(places, axis=1) > 0)
    middle = [np.interp(0.5, shares, row) for row in places]
    assert np.allclose(middle, posterior["redshift"].median(), atol=1e-4)
    assert ensemble.ancil["name"].tolist() == ["a", "b", "c"]
    flagged, _ = flagged_posterior()
    with pytest.raises(ValueError, match="galaxy 'galaxy 2' has no distribution of redshift"):
        flagged.to_qp("redshift")


def test_missing_qp_raises_an_import_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "qp", None)
    with pytest.raises(ImportError, match=r"qp, which is needed for to_qp.*astrogenspec\[rail\]"):
        gaussian_posterior(1, 10)[0].to_qp("redshift")
