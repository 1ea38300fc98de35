"""Change of the prior of a posterior: analytic results, flags, files, invalid arguments."""

import pickle

import astropy.units as u
import numpy as np
import pytest
from posterior_cases import gaussian_posterior, quantity
from scipy.stats import norm

from astrogenspec import AstroGenSpecWarning
from astrogenspec.calibration import Recalibration
from astrogenspec.flags import Flag, decode_flags
from astrogenspec.results.information import beyond_population, population_log_density
from astrogenspec.results.posterior import Posterior
from astrogenspec.results.reweighting import effective_draws, resampled_indices

N_QUANTILES = 201
SHARES = (np.arange(N_QUANTILES) + 0.5) / N_QUANTILES
MASS = u.dex(u.Msun)


def normal_table(mean, sigma):
    return norm(mean, sigma).ppf(SHARES).tolist()


def product(first, second):
    """Return mean and standard deviation of the product of two Gaussian densities."""
    precision = first[1] ** -2 + second[1] ** -2
    mean = (first[0] / first[1] ** 2 + second[0] / second[1] ** 2) / precision
    return mean, precision**-0.5


def redshifts(mean, sigma, *, n_galaxies=1, n_draws=40_000, **kwargs):
    draws = np.random.default_rng(2).normal(mean, sigma, (n_galaxies, n_draws))
    return Posterior({"redshift": draws * u.one}, **kwargs)


def gaussian_ratio(mean, sigma):
    return lambda draws: norm.pdf(draws["redshift"].value, mean, sigma)


# ---- right values


@pytest.mark.parametrize("prior", [(0.2, 0.02), (0.15, 0.01), (0.12, 0.1)])
def test_gaussian_prior_gives_the_product_of_gaussians(prior):
    likelihood = (0.15, 0.02)
    posterior = redshifts(*likelihood).reweighted(gaussian_ratio(*prior))
    mean, sigma = product(likelihood, prior)
    n = posterior.effective_draws[0]
    assert posterior["redshift"].mean().value[0] == pytest.approx(mean, abs=4 * sigma / n**0.5)
    assert posterior["redshift"].std().value[0] == pytest.approx(sigma, rel=4 / (2 * n) ** 0.5)
    assert posterior.flag_codes[0] == 0


def test_effective_draws_are_those_of_gaussian_weights():
    """The weights N(x; 0, t) of draws of N(0, s): sum(w)^2 / sum(w^2) is known."""
    s, t = 1.0, 0.5
    weights = norm.logpdf(np.random.default_rng(0).normal(0, s, (4, 100_000)), 0, t)
    # E[w] is the density N(0; 0, s^2 + t^2), E[w^2] is N(0; 0, s^2 + t^2 / 2) / (2 t sqrt(pi)).
    expected = norm.pdf(0, 0, np.hypot(s, t)) ** 2
    expected /= norm.pdf(0, 0, (s**2 + t**2 / 2) ** 0.5) / (2 * t * np.pi**0.5)
    assert effective_draws(weights) / 100_000 == pytest.approx(expected, rel=0.01)
    assert effective_draws(np.array([[0.0, 0.0, -np.inf, -np.inf]])) == pytest.approx(2)
    assert effective_draws(np.full((1, 4), -np.inf)) == pytest.approx(0)


def test_systematic_resampling_repeats_draws_as_their_weights_say():
    with np.errstate(divide="ignore"):
        weights = np.log(np.array([[0.0, 0.5, 0.25, 0.25, 0.0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 1]]))
    index = resampled_indices(weights, np.random.default_rng(0))
    counts = np.bincount(index[0], minlength=5)
    assert counts[0] == counts[4] == 0 and counts[1] in (2, 3) and set(counts[2:4]) <= {1, 2}
    assert index[1].tolist() == [0, 1, 2, 3, 4] and index[2].tolist() == [4] * 5
    # Averaged over seeds, the expected numbers are exact.
    rng = np.random.default_rng(1)
    sums = sum(np.bincount(resampled_indices(weights[:1], rng)[0], minlength=5) for _ in range(500))
    assert sums / 2500 == pytest.approx([0, 0.5, 0.25, 0.25, 0], abs=0.01)


def test_new_density_of_a_quantity_replaces_that_of_the_population():
    likelihood, old, new = (0.14, 0.02), (0.12, 0.05), (0.2, 0.04)
    posterior = redshifts(
        *product(likelihood, old), meta={"population": {"redshift": normal_table(*old)}}
    )
    mean, sigma = product(likelihood, new)
    grid = np.linspace(0, 0.5, 1001)
    for density in (norm(*new).pdf, (grid, norm(*new).pdf(grid)), (grid, 7 * norm(*new).pdf(grid))):
        result = posterior.reweighted({"redshift": density})
        assert result["redshift"].mean().value[0] == pytest.approx(mean, abs=0.02 * sigma)
        assert result["redshift"].std().value[0] == pytest.approx(sigma, rel=0.02)
        assert result.flag_codes[0] == 0
    same = posterior.reweighted({"redshift": norm(*old).pdf})
    assert same.effective_draws[0] > 0.995 * posterior.n_draws


def test_densities_of_two_quantities_are_multiplied():
    rng = np.random.default_rng(0)
    population = {"redshift": normal_table(0.15, 0.05), "stellar_mass": normal_table(10, 0.5)}
    draws = {
        "redshift": rng.normal(0.15, 0.05, (1, 60_000)) * u.one,
        "stellar_mass": quantity(rng.normal(10, 0.5, (1, 60_000)), MASS),
    }
    posterior = Posterior(draws, meta={"population": population})
    grid = quantity(10 ** np.linspace(7, 13, 500), u.Msun)
    density = norm.pdf(np.log10(grid.value), 10.3, 0.3)
    result = posterior.reweighted(
        {"redshift": norm(0.2, 0.04).pdf, "stellar_mass": (grid, density)}
    )
    assert result["redshift"].mean().value[0] == pytest.approx(0.2, abs=0.002)
    assert result["stellar_mass"].mean().value[0] == pytest.approx(10.3, abs=0.01)
    assert result["stellar_mass"].std().value[0] == pytest.approx(0.3, abs=0.01)
    assert result.meta["reweighted"] == [{"prior": "redshift, stellar_mass", "seed": 0}]


def test_densities_of_line_fluxes_are_per_dex():
    rng = np.random.default_rng(0)
    flux = quantity(10 ** rng.normal(1, 0.5, (1, 60_000)), "1e-17 erg s-1 cm-2")
    posterior = Posterior(
        {"halpha_flux": flux}, meta={"population": {"halpha_flux": normal_table(1, 0.5)}}
    )
    result = posterior.reweighted({"halpha_flux": norm(1.3, 0.4).pdf})
    logarithm = np.log10(result.draws["halpha_flux"].value)
    assert logarithm.mean() == pytest.approx(1.3, abs=0.01)
    assert logarithm.std() == pytest.approx(0.4, abs=0.01)


def test_draws_of_all_quantities_stay_together():
    posterior, _ = gaussian_posterior(3, 500)
    result = posterior.reweighted(lambda draws: draws["redshift"].value > 0.15)
    for row in range(3):
        pairs = set(zip(*(posterior.draws[n].value[row] for n in ("sfr", "redshift")), strict=True))
        found = zip(*(result.draws[n].value[row] for n in ("sfr", "redshift")), strict=True)
        assert set(found) <= pairs or np.isnan(result.draws["redshift"].value[row]).all()


def test_selection_of_part_of_the_draws():
    posterior = redshifts(0.1, 0.01, n_draws=1000)
    result = posterior.reweighted(lambda draws: draws["redshift"] < 0.1)
    n = np.count_nonzero(posterior.draws["redshift"] < 0.1)
    assert result.effective_draws[0] == pytest.approx(n)
    assert (result.draws["redshift"] < 0.1).all()


def test_constant_ratio_changes_nothing():
    posterior, _ = gaussian_posterior(4, 30)
    result = posterior.reweighted(lambda draws: np.full(draws["sfr"].shape, 3.0))
    for name, values in posterior.draws.items():
        assert np.array_equal(result.draws[name], values)
    # 30 draws remain 30 draws: they are few, but not because of the new prior.
    assert result.effective_draws == pytest.approx(30) and (result.flag_codes == 0).all()


def test_same_seed_gives_the_same_draws():
    posterior = redshifts(0.1, 0.02, n_draws=500)
    ratio = gaussian_ratio(0.12, 0.02)
    first, again, other = (posterior.reweighted(ratio, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.draws["redshift"], again.draws["redshift"])
    assert not np.array_equal(first.draws["redshift"], other.draws["redshift"])
    generator = posterior.reweighted(ratio, seed=np.random.default_rng(1))
    assert np.array_equal(first.draws["redshift"], generator.draws["redshift"])
    assert generator.meta["reweighted"][0]["seed"] is None


# ---- calibration


def test_posteriors_with_the_true_prior_are_calibrated():
    """Galaxies of another population than that of the weights, before and after."""
    rng = np.random.default_rng(3)
    old, new, error = (0.12, 0.04), (0.2, 0.03), 0.03
    truth = rng.normal(*new, 2000)
    observed = rng.normal(truth, error)
    mean, sigma = product((observed, error), old)
    posterior = Posterior(
        {"redshift": rng.normal(mean[:, None], sigma, (2000, 1000)) * u.one},
        meta={"population": {"redshift": normal_table(*old)}},
    )
    result = posterior.reweighted({"redshift": norm(*new).pdf})

    def coverage(galaxies):
        low, high = galaxies["redshift"].interval(0.68)
        return ((truth > low.value) & (truth < high.value)).mean()

    assert coverage(posterior) < 0.5
    assert coverage(result) == pytest.approx(0.68, abs=0.03)


def test_recalibrated_posteriors_keep_their_width():
    """Draws that a recalibration has widened are those of the likelihood that it corrected."""
    rng = np.random.default_rng(4)
    centre = rng.uniform(0.05, 0.25, 800)
    narrow = Posterior({"redshift": rng.normal(centre[:, None], 0.005, (800, 2000)) * u.one})
    truth = {"redshift": rng.normal(centre, 0.01)}
    wide = Recalibration.fit(narrow, truth).apply(narrow)
    result = wide.reweighted(gaussian_ratio(0.15, 0.02))
    inside = np.abs(centre - 0.15) < 0.03
    expected = product((centre[inside], 0.01), (0.15, 0.02))
    found = result["redshift"]
    assert np.median(found.std().value[inside]) == pytest.approx(expected[1], rel=0.1)
    assert np.median(np.abs(found.mean().value[inside] - expected[0])) < 0.003


def test_known_quantities_do_not_change():
    draws = {
        "redshift": np.full((2, 200), [[0.1], [0.2]]) * u.one,
        "sfr": quantity(np.random.default_rng(0).normal(0, 1, (2, 200)), u.dex(u.Msun / u.yr)),
    }
    population = {"redshift": normal_table(0.12, 0.04)}
    posterior = Posterior(draws, meta={"population": population, "known": ["redshift"]})
    result = posterior.reweighted({"redshift": norm(0.3, 0.05).pdf})
    assert np.array_equal(result.draws["sfr"], draws["sfr"])
    assert (result.flag_codes == 0).all() and result.effective_draws == pytest.approx(200)


# ---- flags and missing draws


def test_few_effective_draws_are_flagged():
    posterior = redshifts([[0.1], [0.2]], 0.01, n_galaxies=2, n_draws=1000)
    result = posterior.reweighted(gaussian_ratio(0.2, 0.002))
    assert decode_flags(result.flag_codes) == [["low_effective_sample"], []] or (
        result.effective_draws[0] == 0
    )
    assert result.effective_draws[0] < 50 < result.effective_draws[1]
    assert "1000 draws are worth only" in result.flags[0]


def test_excluded_galaxies_have_no_draws():
    posterior = redshifts([[0.1], [0.2]], 0.001, n_galaxies=2, n_draws=100)
    result = posterior.reweighted(lambda draws: draws["redshift"] > 0.15)
    assert decode_flags(result.flag_codes) == [["no_draws", "low_effective_sample"], []]
    assert np.isnan(result.draws["redshift"].value[0]).all()
    assert result.usable.tolist() == [False, True]
    assert result.flags[0].startswith("the new prior excludes all draws")
    assert result.effective_draws.tolist() == [0, pytest.approx(100)]


def test_missing_draws_have_no_weight():
    values = np.random.default_rng(0).normal(0.1, 0.01, (3, 400))
    values[0, ::2] = np.nan
    values[1] = np.nan
    posterior = Posterior(
        {"redshift": values * u.one},
        flags=["", "there is no photometry", ""],
        flag_codes=[0, int(Flag.NO_DATA), 0],
        meta={"population": {"redshift": normal_table(0.1, 0.05)}},
    )
    for prior in (gaussian_ratio(0.1, 0.1), {"redshift": norm(0.1, 0.1).pdf}):
        result = posterior.reweighted(prior)
        assert np.isfinite(result.draws["redshift"].value[[0, 2]]).all()
        assert result.effective_draws[0] == pytest.approx(200, abs=5)
        assert np.isnan(result.draws["redshift"].value[1]).all()
        assert result.flags == ("", "there is no photometry", "")
        assert result.flag_codes.tolist() == [0, int(Flag.NO_DATA), 0]


def test_galaxies_without_draws_of_a_quantity_are_flagged_not_kept():
    mass = quantity(np.full((1, 100), np.nan), MASS)
    posterior = Posterior(
        {"redshift": np.full((1, 100), 0.1) * u.one, "stellar_mass": mass},
        meta={"population": {"stellar_mass": normal_table(10, 1)}},
    )
    result = posterior.reweighted({"stellar_mass": norm(10, 1).pdf})
    assert result.flag_codes[0] & Flag.LOW_EFFECTIVE_SAMPLE and not result.usable[0]


def test_weight_beyond_the_population_is_flagged():
    population = {"redshift": normal_table(0.1, 0.02)}
    posterior = redshifts(0.16, 0.01, n_draws=2000, meta={"population": population})
    result = posterior.reweighted({"redshift": norm(0.2, 0.05).pdf})
    assert result.flag_codes[0] & Flag.ASSUMPTION
    assert "outside the population of the weights" in result.flags[0]


def test_priors_outside_the_population_are_announced():
    population = {"redshift": normal_table(0.1, 0.02)}
    posterior = redshifts(0.1, 0.001, n_draws=500, meta={"population": population})
    grid = np.linspace(0, 1, 400)
    # The population ends at 0.1 + 2.81 * 0.02 = 0.156.
    part = norm.sf(0.156, 0.14, 0.04) + norm.cdf(0.044, 0.14, 0.04)
    with pytest.warns(AstroGenSpecWarning, match=f"^{part:.0%} of the new prior of redshift is"):
        posterior.reweighted({"redshift": (grid, norm.pdf(grid, 0.14, 0.04))})
    inside = posterior.reweighted({"redshift": (grid, norm.pdf(grid, 0.11, 0.02))})
    assert inside.flag_codes[0] == 0


def test_repeated_reweighting_counts_the_draws_that_are_left():
    posterior = redshifts(0.1, 0.02, n_draws=4000)
    once = posterior.reweighted(gaussian_ratio(0.12, 0.02))
    twice = once.reweighted(gaussian_ratio(0.13, 0.03))
    both = posterior.reweighted(
        lambda d: gaussian_ratio(0.12, 0.02)(d) * gaussian_ratio(0.13, 0.03)(d)
    )
    assert twice.effective_draws[0] < once.effective_draws[0]
    sigma = both["redshift"].std().value[0]
    assert twice["redshift"].mean().value[0] == pytest.approx(
        both["redshift"].mean().value[0], abs=0.1 * sigma
    )
    assert len(twice.meta["reweighted"]) == 2


# ---- the posterior around it


def test_empty_posterior():
    posterior = Posterior(
        {"redshift": np.empty((0, 10)) * u.one},
        meta={"population": {"redshift": normal_table(0.1, 0.05)}},
    )
    for prior in (gaussian_ratio(0.1, 0.1), {"redshift": norm(0.1, 0.1).pdf}):
        result = posterior.reweighted(prior)
        assert len(result) == 0 and result.n_draws == 10 and result.effective_draws.shape == (0,)


def test_information_is_not_defined_with_another_prior():
    posterior = redshifts(0.1, 0.02, meta={"population": {"redshift": normal_table(0.1, 0.05)}})
    result = posterior.reweighted({"redshift": norm(0.1, 0.1).pdf})
    with pytest.raises(ValueError, match="or because the posterior was reweighted"):
        result.information("redshift")
    assert "redshift_information" not in result.to_table().colnames
    assert "population" in posterior.meta


@pytest.mark.parametrize("ending", ["fits", "ecsv", "parquet", "hdf5"])
def test_effective_draws_are_kept(tmp_path, ending):
    posterior = redshifts([[0.1], [0.2]], 0.02, n_galaxies=2, n_draws=300, names=["a", "b"])
    result = posterior.reweighted(gaussian_ratio(0.15, 0.03))
    assert posterior.effective_draws is None
    assert "effective_draws" not in posterior.to_table().colnames
    assert np.array_equal(result.to_table()["effective_draws"], result.effective_draws)
    assert np.array_equal(result[1:].effective_draws, result.effective_draws[1:])
    joined = Posterior.concatenate([result, posterior])
    assert np.array_equal(joined.effective_draws[:2], result.effective_draws)
    assert np.isnan(joined.effective_draws[2:]).all()
    for each in (result, joined):
        path = tmp_path / f"{len(each)}.{ending}"
        each.write(path, draws=True)
        again = Posterior.read(path)
        assert np.array_equal(again.effective_draws, each.effective_draws, equal_nan=True)
        assert again.meta == each.meta
    posterior.write(tmp_path / f"old.{ending}", draws=True)
    assert Posterior.read(tmp_path / f"old.{ending}").effective_draws is None
    assert np.array_equal(
        pickle.loads(pickle.dumps(result)).effective_draws, result.effective_draws
    )


# ---- the population


def test_density_of_a_gaussian_population():
    values = np.array([-3.5, -2, -1, 0, 0.5, 1.5, 3.5])
    found = population_log_density(values, norm.ppf(SHARES))
    assert found == pytest.approx(norm.logpdf(values), abs=0.17)
    assert found[1:-1] == pytest.approx(norm.logpdf(values[1:-1]), abs=0.02)
    far = population_log_density(np.array([5.0, 50.0, np.nan]), norm.ppf(SHARES))
    assert far[1] < far[0] < found[-1] and np.isfinite(far[1]) and np.isnan(far[2])
    assert population_log_density(np.array([0.5]), [0.0, 1.0]) == pytest.approx(np.log(0.5))
    assert beyond_population(np.array([-9.0, 0, 9, np.nan]), norm.ppf(SHARES)).tolist() == [
        True,
        False,
        True,
        False,
    ]


# ---- invalid arguments


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        (lambda d: -d["redshift"].value, "is -0.1 for draw 0 of galaxy 0; it must be finite and"),
        (lambda d: d["redshift"].value * np.nan, "is nan for draw 0 of galaxy 0"),
        (lambda d: d["redshift"].value / 0, "is inf for draw 0 of galaxy 0"),
        (lambda d: d["redshift"].value[0], r"has shape \(50,\); \(2, 50\) is expected"),
        (lambda d: 1.0, r"has shape \(\); \(2, 50\) is expected"),
        (lambda d: "flat", "is no array of numbers"),
        (lambda d: d["redshift"] * u.m, "has the unit m; give plain numbers"),
        ({"redshift": ([0.1, 0.2], [1])}, r"a grid of shape \(2,\) and a density of shape \(1,\)"),
        ({"redshift": ([0.2, 0.1], [1, 1])}, "must be finite and increase"),
        ({"redshift": ([0.1, 0.2], [1, -1])}, "must be finite and not negative"),
        ({"redshift": ([0.1, 0.2], [0, 0])}, "not zero everywhere"),
        ({"redshift": ([0.1, 0.2], [1, 1] / u.Mpc**3)}, "has the unit 1 / Mpc3"),
        ({"redshift": 3}, r"prior\['redshift'\] is 3, but it must be a function, or a pair"),
        ({"redshift": lambda x: x[:1]}, r"density of redshift in prior has shape \(1, 50\)"),
        ({"sfr": norm.pdf}, "prior has 'sfr', which is not among the quantities drawn"),
        ({"colour": norm.pdf}, "prior has 'colour', which is not a quantity of the networks"),
    ],
)
def test_invalid_priors(prior, message):
    draws = {"redshift": np.full((2, 50), 0.1) * u.one, "colour": np.full((2, 50), 0.1) * u.mag}
    posterior = Posterior(draws, meta={"population": {"redshift": normal_table(0.1, 0.05)}})
    with np.errstate(divide="ignore"), pytest.raises(ValueError, match=message):
        posterior.reweighted(prior)


@pytest.mark.parametrize("prior", [None, {}, 3, np.ones((2, 50)), [1.0]])
def test_priors_of_another_type(prior):
    with pytest.raises(TypeError, match="it must be a function of the draws"):
        redshifts(0.1, 0.01, n_galaxies=2, n_draws=50).reweighted(prior)


def test_densities_need_a_population():
    with pytest.raises(ValueError, match="the posterior has no population .* give a function"):
        redshifts(0.1, 0.01).reweighted({"redshift": norm(0.1, 0.1).pdf})


@pytest.mark.parametrize("seed", [-1, 1.5, "a", True])
def test_invalid_seeds(seed):
    with pytest.raises(ValueError, match="give an integer that is not negative"):
        redshifts(0.1, 0.01).reweighted(gaussian_ratio(0.1, 0.1), seed=seed)
