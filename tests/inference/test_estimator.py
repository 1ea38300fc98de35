"""Tests of PropertyEstimator: input modes, seeds, batches, invalid galaxies, densities, errors."""

import warnings

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.coordinates import SkyCoord
from astropy.table import MaskedColumn, QTable
from astropy.utils.masked import Masked
from estimator_cases import (
    N,
    draws_of,
    make_cutouts,
    make_estimator,
    make_network,
    make_photometry,
    make_stack,
)

from astrogenspec import (
    AstroGenSpecDeprecationWarning,
    AstroGenSpecWarning,
    Posterior,
    PropertyEstimator,
)
from astrogenspec.base import NotFittedError
from astrogenspec.inputs.cutouts import coerce_cutouts
from astrogenspec.quantities import QUANTITIES

CLOSE = {"rtol": 1e-4, "atol": 1e-4}
MODES = {
    "image": lambda: {"cutouts": make_stack(), "ebv": 0.02},
    "photometry": lambda: {"photometry": make_photometry()},
    "both": lambda: {"cutouts": make_stack(), "photometry": make_photometry()},
}


@pytest.fixture
def estimator():
    return make_estimator()


# ---- modes


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_gives_all_quantities(estimator, mode):
    posterior = estimator.predict(**MODES[mode](), n_draws=40, seed=0)
    assert posterior.quantities == tuple(QUANTITIES)
    assert posterior.names == tuple("01234") and posterior.flags == ("",) * N
    theta = draws_of(posterior)
    assert theta.shape == (N, 40, 9)
    for k, info in enumerate(QUANTITIES.values()):
        assert posterior.draws[info.name].unit == u.Unit(info.unit)
        assert posterior.draws[info.name].dtype == np.float32
        assert (theta[..., k] > info.lower).all() and (theta[..., k] < info.upper).all()
    assert ((posterior.measurable > 0) & (posterior.measurable < 1)).all()
    assert (posterior.photometry["measured"] == (mode == "image")).all()
    assert (posterior.photometry["flux_r"] > 10 * u.nmgy).all()
    assert u.allclose(posterior.photometry["extinction_g"], 0.02 * 3.303 * u.mag)
    assert posterior.meta["seed"] == 0 and posterior.meta["model"] == "tiny"


def test_posterior_depends_on_image_and_photometry(estimator):
    medians = [
        estimator.predict(**make(), n_draws=200, seed=0)["sfr"].median().value
        for make in MODES.values()
    ]
    for k in range(3):
        assert (np.abs(medians[k] - medians[k - 1]) > 1e-3).all()


def test_image_without_measured_photometry(estimator):
    posterior = estimator.predict(make_stack(), ebv=0.0, measure=False, n_draws=5, seed=0)
    assert np.isnan(posterior.photometry["flux_r"]).all() and posterior.usable.all()


def test_single_galaxy_equals_list_of_one(estimator):
    alone = estimator.predict(make_cutouts()[0], make_photometry(1), n_draws=10, seed=0)
    listed = estimator.predict(make_cutouts()[:1], make_photometry(1), n_draws=10, seed=0)
    assert len(alone) == 1
    assert np.array_equal(draws_of(alone), draws_of(listed))


@pytest.mark.parametrize(
    "make",
    [
        make_stack,
        lambda: coerce_cutouts(make_stack()),
        lambda: iter(make_cutouts()),
        lambda: tuple(make_cutouts()),
    ],
)
def test_input_types_agree_for_any_batch_size(estimator, make):
    expected = estimator.predict(make_cutouts(), make_photometry(), n_draws=10, seed=0)
    found = estimator.predict(make(), make_photometry(), n_draws=10, seed=0, batch_size=2)
    np.testing.assert_allclose(draws_of(found), draws_of(expected), **CLOSE)
    assert found.names == expected.names


def test_assumed_ebv_is_a_warning(estimator):
    with pytest.warns(AstroGenSpecWarning, match="ebv = 0 is assumed"):
        estimator.predict(make_stack(1), n_draws=2)


def test_ebv_per_galaxy(estimator):
    reddening = np.linspace(0, 0.4, N)
    posterior = estimator.predict(make_stack(), ebv=reddening * u.mag, n_draws=2, batch_size=2)
    assert u.allclose(posterior.photometry["extinction_r"], 2.285 * reddening * u.mag)


# ---- randomness


def test_draws_depend_on_the_seed(estimator):
    table = make_photometry()

    def draws(seed):
        return draws_of(estimator.predict(photometry=table, n_draws=10, seed=seed))

    assert np.array_equal(draws(1), draws(1))
    assert np.array_equal(draws(1), draws(torch.Generator().manual_seed(1)))
    assert np.array_equal(draws(np.int64(1)), draws(1))
    assert not np.isclose(draws(1), draws(2)).any()
    assert not np.isclose(draws(None), draws(None)).any()


@pytest.mark.parametrize("batch_size", [1, 2, 4, 64])
def test_draws_do_not_depend_on_the_batch_size(estimator, batch_size):
    for mode in ("photometry", "both"):
        inputs = MODES[mode]()
        expected = estimator.predict(**inputs, n_draws=30, seed=4)
        found = estimator.predict(**inputs, n_draws=30, seed=4, batch_size=batch_size)
        np.testing.assert_allclose(draws_of(found), draws_of(expected), **CLOSE)
        assert found.names == expected.names and found.meta == expected.meta


def test_draws_do_not_depend_on_later_galaxies(estimator):
    table = make_photometry()
    few = estimator.predict(photometry=table[:2], n_draws=30, seed=4)
    many = estimator.predict(photometry=table, n_draws=30, seed=4)
    np.testing.assert_allclose(draws_of(few), draws_of(many)[:2], **CLOSE)


def test_global_state_of_torch_is_unchanged(estimator):
    before = torch.get_rng_state()
    estimator.predict(photometry=make_photometry(), n_draws=10)
    iterator = estimator.predict_iter(photometry=make_photometry(), n_draws=10, batch_size=2)
    next(iterator)
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    assert torch.equal(before, torch.get_rng_state())


# ---- many galaxies


def test_concatenated_batches_equal_predict(estimator):
    table = make_photometry(name=[f"g{k}" for k in range(N)])
    parts = list(estimator.predict_iter(photometry=table, n_draws=20, seed=1, batch_size=2))
    assert [part.names for part in parts] == [("g0", "g1"), ("g2", "g3"), ("g4",)]
    whole = estimator.predict(photometry=table, n_draws=20, seed=1)
    np.testing.assert_allclose(draws_of(Posterior.concatenate(parts)), draws_of(whole), **CLOSE)


def test_iterator_of_images_is_read_lazily(estimator):
    read = []

    def galaxies():
        for k, cutout in enumerate(make_cutouts()):
            read.append(k)
            yield cutout

    parts = estimator.predict_iter(galaxies(), ebv=0.0, measure=False, n_draws=2, batch_size=2)
    assert read == []
    assert len(next(parts)) == 2 and read == [0, 1]
    assert [part.names for part in parts] == [("2", "3"), ("4",)]


def test_memory_limit_of_predict(estimator):
    table = make_photometry()
    estimator.memory_limit = estimator.memory_needed(N, 10)
    assert len(estimator.predict(photometry=table, n_draws=10)) == N
    with pytest.raises(MemoryError, match="5 galaxies with 11 draws need .* use predict_iter"):
        estimator.predict(photometry=table, n_draws=11)
    with pytest.raises(MemoryError, match="use predict_iter"):
        estimator.predict(iter(make_cutouts()), table, n_draws=11, batch_size=1)
    assert sum(len(p) for p in estimator.predict_iter(photometry=table, n_draws=11)) == N


def test_default_memory_limit_allows_fifty_thousand_galaxies(estimator):
    estimator._check_memory(50_000, 1000)
    with pytest.raises(MemoryError, match="7.2 GB"):
        estimator._check_memory(100_000, 1000)


def test_progress_is_shown_on_demand(estimator, capsys):
    estimator.predict(photometry=make_photometry(), n_draws=2, batch_size=2, progress=True)
    assert "5/5" in capsys.readouterr().err
    estimator.predict(photometry=make_photometry(), n_draws=2, batch_size=2)
    assert capsys.readouterr().err == ""


# ---- invalid galaxies


def test_flagged_galaxy_does_not_affect_others(estimator):
    good = estimator.predict(make_cutouts(), ebv=0.0, n_draws=10, seed=0)
    flagged = estimator.predict(
        make_cutouts(bad=[1, 3]), ebv=0.0, n_draws=10, seed=0, on_error="flag", batch_size=2
    )
    fine = np.array([0, 2, 4])
    np.testing.assert_allclose(draws_of(flagged)[fine], draws_of(good)[fine], **CLOSE)
    assert np.isnan(draws_of(flagged)[[1, 3]]).all() and np.isnan(flagged.measurable[[1, 3]]).all()
    assert list(flagged.usable) == [True, False, True, False, True]
    assert [bool(flag) for flag in flagged.flags] == [False, True, False, True, False]
    assert "image not used: no band has a usable pixel" in flagged.flags[1]


def test_invalid_image_falls_back_to_photometry(estimator):
    table = make_photometry()
    alone = estimator.predict(photometry=table, n_draws=10, seed=0)
    found = estimator.predict(make_cutouts(bad=[2]), table, n_draws=10, seed=0, on_error="flag")
    np.testing.assert_allclose(draws_of(found)[2], draws_of(alone)[2], **CLOSE)
    assert found.usable.all() and "image not used" in found.flags[2]


def test_flagged_image_of_a_batch_is_not_used(estimator):
    batch = coerce_cutouts(make_stack())
    problems = ("", "", "saturated", "", "")
    batch = type(batch)(batch.flux, batch.ivar, batch.names, problems)
    table = make_photometry()
    found = estimator.predict(batch, table, n_draws=10, seed=0, on_error="flag")
    alone = estimator.predict(photometry=table, n_draws=10, seed=0)
    np.testing.assert_allclose(draws_of(found)[2], draws_of(alone)[2], **CLOSE)
    assert found.flags[2] == "image not used: saturated"


def test_invalid_photometry_is_measured_on_the_image(estimator):
    table = make_photometry()
    for column in table.colnames[:-1]:
        table[column][3] = np.nan
    found = estimator.predict(make_stack(), table, n_draws=10, seed=0, on_error="flag")
    measured = estimator.predict(make_stack(), ebv=0.0, n_draws=10, seed=0)
    np.testing.assert_allclose(draws_of(found)[3], draws_of(measured)[3], **CLOSE)
    assert "measured on the image instead" in found.flags[3]
    assert list(found.photometry["measured"]) == [False, False, False, True, False]


def test_missing_image_is_not_flagged(estimator):
    cutouts = make_cutouts()
    cutouts[1] = None
    table = make_photometry()
    found = estimator.predict(cutouts, table, n_draws=10, seed=0)
    alone = estimator.predict(photometry=table, n_draws=10, seed=0)
    np.testing.assert_allclose(draws_of(found)[1], draws_of(alone)[1], **CLOSE)
    assert found.flags == ("",) * N


def test_non_finite_draws_are_flagged():
    estimator = make_estimator()
    estimator.network = type(estimator.network).from_config(estimator.network.config).eval()
    torch.nn.init.constant_(estimator.network.chain.factors[2].out.bias, torch.nan)
    posterior = estimator.predict(photometry=make_photometry(), n_draws=3)
    assert posterior.flags == ("the draws of the network are not finite",) * N
    assert not posterior.usable.any()


def test_galaxies_outside_the_training_range_are_flagged():
    table = make_photometry()
    limits = {"r_magnitude": [17.0, 20.0], "g-r": [-9, 9], "redshift": [0.49, 0.5]}
    magnitude = 22.5 - 2.5 * np.log10(table["flux_r"].value) - 2.285 * 0.02
    posterior = make_estimator(training_range=limits).predict(photometry=table, n_draws=10, seed=0)
    outside = magnitude < 17.0
    assert 0 < outside.sum() < N
    assert [
        f"r magnitude {m:.2f} is outside" in f
        for m, f in zip(magnitude, posterior.flags, strict=True)
    ] == list(outside)
    assert all("median redshift 0." in flag for flag in posterior.flags)
    assert not any("g-r" in flag for flag in posterior.flags)
    assert posterior.usable.all()


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_errors_name_the_index_of_the_galaxy(estimator, batch_size):
    with pytest.raises(ValueError, match="^galaxy 4: no band has a usable pixel"):
        estimator.predict(make_cutouts(bad=[4]), ebv=0.0, n_draws=1, batch_size=batch_size)


# ---- invalid arguments


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({}, ValueError, "neither cutouts nor photometry"),
        ({"cutouts": [], "ebv": 0}, ValueError, "cutouts is empty"),
        ({"cutouts": iter(()), "ebv": 0}, ValueError, "cutouts is empty"),
        ({"photometry": make_photometry(0)}, ValueError, "photometry is empty"),
        (
            {"cutouts": make_stack(), "photometry": make_photometry(3)},
            ValueError,
            "cutouts holds 5 galaxies but photometry 3",
        ),
        (
            {"cutouts": iter(make_cutouts()), "photometry": make_photometry(3), "batch_size": 2},
            ValueError,
            "cutouts holds 4 galaxies but photometry 3",
        ),
        (
            {"cutouts": iter(make_cutouts()), "photometry": make_photometry(9), "batch_size": 2},
            ValueError,
            "cutouts holds 5 galaxies but photometry 9",
        ),
        (
            {
                "cutouts": make_cutouts(names="abcde"),
                "photometry": make_photometry(name=list("abxde")),
                "batch_size": 2,
            },
            ValueError,
            "galaxy 2: the name is 'c' in cutouts but 'x' in photometry",
        ),
        ({"cutouts": make_stack(), "ebv": [0.1, 0.2]}, ValueError, r"ebv has shape \(2,\) for 5"),
        ({"cutouts": make_stack(), "ebv": -0.1}, ValueError, "ebv is -0.1"),
        ({"cutouts": make_stack(), "ebv": 1 * u.Jy}, u.UnitConversionError, "ebv is in Jy"),
        (
            {
                "cutouts": make_cutouts(),
                "ebv": 0,
                "position": SkyCoord([0] * 3, [0] * 3, unit="deg"),
            },
            ValueError,
            r"position has shape \(3,\) for 5 galaxies",
        ),
        ({"cutouts": make_stack().data, "ebv": 0}, u.UnitsError, "without a unit"),
        ({"cutouts": [None], "ebv": 0}, ValueError, "neither an image nor photometry is available"),
        ({"photometry": make_photometry(), "n_draws": 0}, ValueError, "n_draws is 0"),
        ({"photometry": make_photometry(), "n_draws": 2.0}, TypeError, "n_draws is 2.0"),
        ({"photometry": make_photometry(), "batch_size": 0}, ValueError, "batch_size is 0"),
        ({"photometry": make_photometry(), "seed": -1}, ValueError, "seed is -1"),
        ({"photometry": make_photometry(), "seed": "x"}, TypeError, "seed is 'x'"),
        ({"photometry": make_photometry(), "on_error": "skip"}, ValueError, "on_error is 'skip'"),
    ],
)
def test_invalid_arguments_are_errors(estimator, arguments, kind, message):
    with pytest.raises(kind, match=message):
        estimator.predict(**{"n_draws": 1} | arguments)


def test_predict_iter_checks_arguments_immediately(estimator):
    with pytest.raises(ValueError, match="n_draws"):
        estimator.predict_iter(photometry=make_photometry(), n_draws=0)
    with pytest.raises(ValueError, match="known has 2 rows, but 5 galaxies"):
        estimator.predict_iter(photometry=make_photometry(), known={"redshift": [0.1, 0.2]})
    with pytest.raises(TypeError, match="colour"):
        estimator.predict_iter(photometry=make_photometry(), colour="red")


def test_untrained_estimator_raises():
    estimator = PropertyEstimator(make_network())
    for method in (estimator.predict, estimator.predict_iter):
        with pytest.raises(NotFittedError, match="never trained: use from_pretrained"):
            method(photometry=make_photometry())
    with pytest.raises(NotFittedError):
        estimator.log_prob({"redshift": np.full(N, 0.1)}, photometry=make_photometry())


def test_deprecated_arguments_of_fit(estimator, monkeypatch):
    monkeypatch.setattr("astrogenspec.warnings._REPORTED", set())
    with (
        pytest.warns(AstroGenSpecDeprecationWarning) as caught,
        pytest.raises(ValueError, match="heads is 0"),
    ):
        estimator.fit(labels={}, members=0, rehearsal=["folder"])
    assert ["members" in str(w.message) for w in caught] == [True, False]
    assert "argument rehearsal of PropertyEstimator.fit is deprecated" in str(caught[1].message)
    assert {warning.filename for warning in caught} == {__file__}
    with pytest.raises(ValueError, match="got both heads and its old name members"):
        estimator.fit(labels={}, heads=2, members=2)


# ---- known quantities and densities


def test_known_quantities_condition_the_posterior(estimator):
    table = make_photometry()
    redshift = np.array([0.05, 0.1, np.nan, 0.2, 0.3])
    posterior = estimator.predict(
        photometry=table, known={"redshift": redshift}, n_draws=50, seed=0
    )
    free = estimator.predict(photometry=table, n_draws=50, seed=0)
    drawn = posterior["redshift"].draws.value
    assert np.allclose(drawn, redshift[:, None], equal_nan=True) == np.isfinite(redshift).all()
    known = np.isfinite(redshift)
    assert np.allclose(drawn[known], redshift[known, None])
    np.testing.assert_allclose(draws_of(posterior)[2], draws_of(free)[2], **CLOSE)
    assert not np.allclose(
        posterior["sfr"].median().value[known], free["sfr"].median().value[known]
    )
    assert posterior.meta["known"] == ["redshift"]
    parts = estimator.predict(
        photometry=table, known={"redshift": redshift}, n_draws=50, seed=0, batch_size=2
    )
    np.testing.assert_allclose(draws_of(parts), draws_of(posterior), **CLOSE)


@pytest.mark.parametrize(
    ("known", "kind", "message"),
    [
        (
            {"redshift": np.full(N, 0.9)},
            ValueError,
            "galaxy 0: the known redshift is 0.9, but it must be between 0 and 0.5",
        ),
        ({"sfr": np.zeros(N)}, ValueError, "known has sfr but not redshift"),
        ({"redshift": 0.1}, ValueError, "known has shape"),
        ([0.1], TypeError, "known is of type list"),
        ({"redshift": np.full(N, 1) * u.m}, u.UnitConversionError, "redshift has the unit 'm'"),
        ({"redshift": np.full(N, -9999.0)}, ValueError, "known redshift is -9999, .* masked value"),
        ({"redshift": [True] * N}, TypeError, "redshift holds booleans"),
    ],
)
def test_invalid_known_quantities_are_errors(estimator, known, kind, message):
    with pytest.raises(kind, match=message):
        estimator.predict(photometry=make_photometry(), known=known, n_draws=1)


@pytest.mark.parametrize(
    "masked",
    [
        lambda values, mask: MaskedColumn(values, mask=mask),
        lambda values, mask: np.ma.array(values, mask=mask),
        lambda values, mask: Masked(values * u.one, mask=mask),
        lambda values, mask: QTable({"z": Masked(values * u.one, mask=mask)})["z"],
        lambda values, mask: np.where(mask, np.nan, values),
    ],
)
def test_masked_quantities_are_unknown(estimator, masked):
    table, values = make_photometry(3), np.array([0.1, 0.3, 0.2])
    z = masked(values, np.array([False, True, False]))
    posterior = estimator.predict(photometry=table, known={"redshift": z}, n_draws=20, seed=0)
    spread = posterior["redshift"].std().value
    assert spread[1] > 0 and (spread[[0, 2]] < 1e-7).all()
    densities = estimator.log_prob({"redshift": z}, photometry=table)
    assert np.isnan(densities).tolist() == [False, True, False]


def test_recalibrated_weights_have_guaranteed_intervals(tmp_path):
    n = 600
    table = make_photometry(n, seed=2)
    original = make_estimator()
    draws = original.predict(photometry=table, n_draws=1, seed=9)["redshift"].draws.value[:, 0]
    rng = np.random.default_rng(1)
    true = np.clip(draws + rng.normal(0, 0.1, n), 0.001, 0.499)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstroGenSpecWarning)
        estimator = original.recalibrated(photometry=table[:400], truth={"redshift": true[:400]})
    estimator.save(tmp_path / "guaranteed.safetensors")
    estimator = PropertyEstimator.load(tmp_path / "guaranteed.safetensors")
    found = estimator.predict(photometry=table[400:], n_draws=300, seed=0)["redshift"]
    low, high = found.interval(0.9, guaranteed=True)
    inside = (low.value <= true[400:]) & (true[400:] <= high.value)
    assert abs(inside.mean() - 0.9) < 4 * np.sqrt(0.09 / 200)
    for options in ({"calibrated": False}, {"known": {"redshift": true[400:]}}):
        other = estimator.predict(photometry=table[400:], n_draws=50, seed=0, **options)
        with pytest.raises(ValueError, match="no labelled sample that guarantees"):
            other["redshift"].interval(0.9, guaranteed=True)


def test_density_of_recalibrated_draws():
    n = 300
    table = make_photometry(n, seed=2)
    original = make_estimator()
    draws = original.predict(photometry=table, n_draws=1, seed=9)
    # posteriors that are too wide and biased
    truth = {
        "redshift": 0.05 + 0.7 * draws["redshift"].draws.value[:, 0],
        "stellar_mass": 9.5 + 0.2 * (draws["stellar_mass"].draws[:, 0].value - 9) << u.dex(u.Msun),
    }
    estimator = original.recalibrated(photometry=table, truth=truth)
    galaxies = table[:3]
    names = ["redshift", "stellar_mass"]
    moved = estimator.predict(photometry=galaxies, n_draws=12000, seed=1)
    raw = original.predict(photometry=galaxies, n_draws=500, seed=1)
    grid = np.linspace(1e-4, 0.4999, 1200)
    theta = {"redshift": np.tile(grid, (3, 1))}

    def distance(density, k):
        """Kolmogorov-Smirnov distance of draws of the redshift from a density."""
        steps = 0.5 * (density[1:] + density[:-1]) * np.diff(grid)
        cumulative = np.append(0, np.cumsum(steps))
        assert cumulative[-1] == pytest.approx(1, abs=3e-3)
        ordered = np.sort(moved["redshift"].draws.value[k])
        ranks = (np.arange(len(ordered)) + 0.5) / len(ordered)
        return np.abs(np.interp(ordered, grid, cumulative) - ranks).max()

    calibrated = np.exp(estimator.log_prob(theta, photometry=galaxies))
    network = np.exp(estimator.log_prob(theta, photometry=galaxies, calibrated=False))
    np.testing.assert_array_equal(network, np.exp(original.log_prob(theta, photometry=galaxies)))
    for k in range(3):
        assert distance(calibrated[k], k) < 0.03 < 0.08 < distance(network[k], k)
    # the joint density: its mean logarithm over draws is minus the entropy
    joint = {name: moved.draws[name][:, :500] for name in names}
    before = {name: raw.draws[name] for name in names}
    entropies = [
        -e.log_prob(d, photometry=galaxies).mean(axis=1)
        for e, d in ((estimator, joint), (original, before))
    ]
    assert (entropies[0] < entropies[1]).all()


def test_density_is_normalised_and_matches_the_draws(estimator):
    table = make_photometry(2)
    grid = np.linspace(0.0001, 0.4999, 4000)
    density = np.exp(estimator.log_prob({"redshift": np.tile(grid, (2, 1))}, photometry=table))
    cumulative = np.cumsum(density, axis=1) * (grid[1] - grid[0])
    np.testing.assert_allclose(cumulative[:, -1], 1, atol=2e-3)
    draws = estimator.predict(photometry=table, n_draws=4000, seed=0)["redshift"].draws.value
    for k in range(2):
        uniform = np.sort(np.interp(draws[k], grid, cumulative[k]))
        # 1.63 / sqrt(n) is the 1% limit of Kolmogorov and Smirnov
        assert np.abs(uniform - np.arange(1, 4001) / 4000).max() < 1.63 / np.sqrt(4000)


def test_joint_density_integrates_to_the_marginal(estimator):
    table = make_photometry(1)
    mass = np.linspace(5.01, 12.99, 2000)
    joint = {"redshift": np.full((1, 2000), 0.2), "stellar_mass": mass[None] * u.dex(u.Msun)}
    integral = np.exp(estimator.log_prob(joint, photometry=table)).sum() * (mass[1] - mass[0])
    marginal = np.exp(estimator.log_prob({"redshift": [0.2]}, photometry=table))
    np.testing.assert_allclose(integral, marginal[0], rtol=5e-3)


def test_densities_of_draws(estimator):
    inputs = {"cutouts": make_stack(), "photometry": make_photometry()}
    posterior = estimator.predict(**inputs, n_draws=7, seed=0)
    whole = estimator.log_prob(dict(posterior.draws), **inputs)
    assert whole.shape == (N, 7) and np.isfinite(whole).all()
    first = {name: draws[:, 0] for name, draws in posterior.draws.items()}
    np.testing.assert_allclose(estimator.log_prob(first, **inputs), whole[:, 0], **CLOSE)


def test_density_outside_the_bounds_and_of_nan(estimator):
    table = make_photometry()
    result = estimator.log_prob({"redshift": [0.1, -0.1, np.nan, 0.7, 0.2]}, photometry=table)
    assert np.isfinite(result[[0, 4]]).all()
    assert np.isnan(result[2]) and (result[[1, 3]] == -np.inf).all()
    draws = estimator.predict(photometry=table, n_draws=1, seed=0).draws
    theta = {name: values[:, 0] for name, values in draws.items()}
    theta["hbeta_flux"] = theta["hbeta_flux"] * np.array([1, 0, -1, np.nan, 1])
    result = estimator.log_prob(theta, photometry=table)
    assert np.isfinite(result[[0, 4]]).all()
    assert (result[[1, 2]] == -np.inf).all() and np.isnan(result[3])
    flagged = estimator.log_prob(
        {"redshift": np.full(N, 0.1)}, make_cutouts(bad=[1]), ebv=0.0, on_error="flag"
    )
    assert list(np.isnan(flagged)) == [False, True, False, False, False]


@pytest.mark.parametrize(
    ("theta", "message"),
    [
        ({"sfr": np.zeros(N)}, "theta has sfr but not redshift; the first quantities"),
        ({"redshift": np.full(3, 0.1)}, "theta has 3 rows, but 5 galaxies were given"),
        ({"redshift": 0.1}, r"theta has shape \(\)"),
        ({"redshift": np.zeros(N), "stellar_mass": np.zeros((N, 2))}, "different shapes"),
        ({"z": np.zeros(N)}, "unknown quantity 'z'"),
    ],
)
def test_density_of_invalid_quantities_is_an_error(estimator, theta, message):
    with pytest.raises(ValueError, match=message):
        estimator.log_prob(theta, photometry=make_photometry())


# ---- files


def test_saved_estimator_gives_the_same_draws(estimator, tmp_path):
    path = estimator.save(tmp_path / "tiny.safetensors")
    again = PropertyEstimator.load(path)
    assert again.card["name"] == "tiny"
    inputs = MODES["both"]()
    expected = estimator.predict(**inputs, n_draws=10, seed=0)
    assert np.array_equal(draws_of(again.predict(**inputs, n_draws=10, seed=0)), draws_of(expected))


def test_the_bundled_weights_predict():
    estimator = PropertyEstimator.from_pretrained()
    posterior = estimator.predict(**MODES["both"](), n_draws=200, seed=0)
    assert posterior.usable.all()
    assert (posterior["redshift"].std().value < 0.2).all()


@pytest.mark.parametrize("ebv", [[0.1, np.nan, 0.1], [0.1, -1, 0.1], [0.1, 1e9, 0.1]])
def test_impossible_extinction_of_a_galaxy_without_photometry(estimator, ebv):
    images = make_cutouts(3)
    with pytest.raises(ValueError, match="^galaxy 1: ebv is .*; use on_error='flag' to flag such"):
        estimator.predict(images, ebv=ebv, n_draws=2)
    posterior = estimator.predict(images, ebv=ebv, n_draws=2, on_error="flag", batch_size=2)
    assert [bool(code) for code in posterior.flag_codes] == [False, True, False]
    assert "ebv is" in posterior.flags[1] and posterior.usable.all()


@pytest.mark.parametrize("method", ["encode", "reconstruct", "embed"])
def test_iterators_without_galaxies_are_errors(estimator, method):
    with pytest.raises(ValueError, match="cutouts is empty: give at least one galaxy"):
        getattr(estimator, method)(iter([]), ebv=0.0)
    with pytest.raises(ValueError, match="cutouts is empty: give at least one galaxy"):
        estimator.log_prob({"redshift": []}, iter([]), ebv=0.0)
    assert list(estimator.predict_iter(iter([]), ebv=0.0)) == []


def test_errors_of_a_generator_are_raised(estimator):
    def interrupted():
        yield make_cutouts(1)[0]
        raise OSError("the disk was removed")

    with pytest.raises(OSError, match="the disk was removed"):
        estimator.predict(interrupted(), ebv=0.0, n_draws=2)


@pytest.mark.parametrize("name", ["calibrated", "measure"])
@pytest.mark.parametrize("value", ["no", None, 1])
def test_options_that_must_be_boolean(estimator, name, value):
    with pytest.raises(TypeError, match=f"{name} is {value!r}: it must be True or False"):
        estimator.predict(photometry=make_photometry(), **{name: value})


# ---- identifiers


@pytest.mark.parametrize("ids", [np.arange(N) + 10**17, [f"galaxy {k}" for k in range(N)]])
def test_draws_of_galaxies_with_ids_do_not_depend_on_the_catalogue(estimator, ids):
    whole = draws_of(estimator.predict(**MODES["both"](), n_draws=30, seed=4, ids=ids))
    order = np.array([3, 0, 4])
    some = {
        "cutouts": [make_cutouts()[k] for k in order],
        "photometry": make_photometry()[order],
    }
    for size in (1, 2, 256):
        found = estimator.predict(
            **some, n_draws=30, seed=4, ids=[ids[k] for k in order], batch_size=size
        )
        np.testing.assert_allclose(draws_of(found), whole[order], **CLOSE)
    parts = estimator.predict_iter(**MODES["both"](), n_draws=30, seed=4, ids=ids, batch_size=2)
    np.testing.assert_allclose(np.concatenate([draws_of(part) for part in parts]), whole, **CLOSE)


def test_draws_of_equal_galaxies_with_other_ids_are_independent(estimator):
    table = make_photometry()[np.zeros(N, int)]
    draws = draws_of(estimator.predict(photometry=table, n_draws=400, seed=4, ids=range(N)))
    redshift = draws[..., 0]
    assert np.abs(np.corrcoef(redshift) - np.eye(N)).max() < 0.25
    again = draws_of(estimator.predict(photometry=table, n_draws=400, seed=4, ids=range(N)))
    assert np.array_equal(draws, again)
    other = draws_of(estimator.predict(photometry=table, n_draws=400, seed=5, ids=range(N)))
    assert abs(np.corrcoef(redshift[0], other[0, :, 0])[0, 1]) < 0.25


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"ids": range(N - 1)}, ValueError, "ids has 4 rows, but 5 galaxies were given"),
        ({"ids": [0.5] * N}, TypeError, "ids has the value 0.5"),
        ({"ids": range(N), "seed": torch.Generator()}, TypeError, "seed is a torch.Generator"),
        ({"ids": range(N), "seed": -1}, ValueError, "seed is -1"),
    ],
)
def test_invalid_ids_are_errors(estimator, change, error, message):
    with pytest.raises(error, match=message):
        estimator.predict(photometry=make_photometry(), n_draws=3, **change)
