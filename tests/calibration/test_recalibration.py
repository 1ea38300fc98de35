"""Local recalibration: known defects are corrected, ranks and bounds preserved."""

import json

import astropy.units as u
import numpy as np
import pytest
from astropy.table import QTable
from estimator_cases import make_cutouts, make_estimator, make_photometry
from posterior_cases import gaussian_posterior
from scipy.special import ndtri

from astrogenspec import PropertyEstimator
from astrogenspec.calibration import (
    Recalibration,
    central_coverage,
    cross_fitted,
    pit,
    uniformity_test,
)
from astrogenspec.calibration.features import band_sets, correction_features, magnitudes_of
from astrogenspec.calibration.quantile_maps import map_draws, probit_pit, rank_deviates
from astrogenspec.calibration.recalibration import Correction
from astrogenspec.calibration.regression import ProbitRegression, SplineBasis, fit_probit_regression
from astrogenspec.demo import load_galaxies
from astrogenspec.metrics import crps
from astrogenspec.quantities import QUANTITIES
from astrogenspec.results.posterior import Posterior
from astrogenspec.surveys import BANDS
from astrogenspec.warnings import AstroGenSpecWarning


def photometry_table(magnitudes):
    table = QTable()
    for k, band in enumerate(BANDS):
        table[f"flux_{band}"] = 10 ** (0.4 * (22.5 - magnitudes[:, k])) * u.nmgy
        table[f"extinction_{band}"] = np.zeros(len(magnitudes)) * u.mag
    return table


def local_defect(n=1500, n_draws=200, *, seed=0, width=None, shift=None):
    """Make redshift posteriors with bias and width that are wrong, depending on r magnitude."""
    rng = np.random.default_rng(seed)
    red = rng.uniform(14, 18, n)
    magnitudes = red[:, None] + np.array([1.5, 0.6, 0, -0.3, -0.5]) + rng.normal(0, 0.1, (n, 5))
    x = (magnitudes[:, 2] - 16) / 2
    scale = np.exp(0.5 * x) if width is None else np.full(n, width)
    offset = 0.8 * x if shift is None else np.full(n, shift)
    centre = rng.uniform(0.1, 0.3, n)
    draws = centre[:, None] + 0.01 * rng.standard_normal((n, n_draws))
    truth = centre + 0.01 * (offset + scale * rng.standard_normal(n))
    posterior = Posterior({"redshift": draws * u.one}, photometry=photometry_table(magnitudes))
    return posterior, {"redshift": truth}, x


def ks(posterior, truth, rows=slice(None)):
    return uniformity_test(pit(posterior["redshift"], truth["redshift"], seed=0)[rows])[0]


def test_a_defect_that_depends_on_magnitude_is_corrected_locally():
    posterior, truth, x = local_defect()
    new = cross_fitted(posterior, truth)
    for rows in (x < -0.5, x > 0.5):
        # 95% of calibrated samples of this size are below 0.07
        assert ks(new, truth, rows) < 0.09 and ks(posterior, truth, rows) > 0.15
    assert ks(new, truth) < 0.04
    before, after = (np.mean(crps(p["redshift"], truth["redshift"])) for p in (posterior, new))
    assert after < 0.95 * before
    # Globally the errors nearly cancel, so a uniform correction would not suffice.
    assert ks(posterior, truth) < 0.15


def test_corrected_quantiles_equal_the_true_ones():
    posterior, truth, _ = local_defect(3000, 400, width=1.5, shift=0.5)
    draws = Recalibration.fit(posterior, truth).apply(posterior)["redshift"]
    centre = posterior["redshift"].median().value
    deviation = (draws.percentiles([2.5, 50, 97.5]).value - centre) / 0.01
    expected = 0.5 + 1.5 * ndtri([0.025, 0.5, 0.975])
    assert np.allclose(np.median(deviation, axis=1), expected, atol=0.15)


def test_heavy_tails_are_corrected_by_the_residual_map():
    rng = np.random.default_rng(3)
    n = 4000
    centre = np.full(n, 0.25)
    posterior = Posterior(
        {"redshift": (centre[:, None] + 0.01 * rng.standard_normal((n, 300))) * u.one}
    )
    truth = {"redshift": centre + 0.007 * rng.standard_t(2.5, n)}
    recalibration = Recalibration.fit(posterior, truth)
    (correction,) = recalibration._corrections.values()
    assert correction.regression.residual_map is not None and correction.bands == ("",)
    wanted = np.array([0.5, 0.68, 0.9, 0.95, 0.98])
    found = central_coverage(cross_fitted(posterior, truth)["redshift"], truth["redshift"], wanted)
    assert np.allclose(found, wanted, atol=0.015)


def test_a_calibrated_posterior_is_not_changed():
    posterior, truth = gaussian_posterior(800, 200, seed=4, quantities=("redshift", "stellar_mass"))
    recalibration = Recalibration.fit(posterior, truth)
    assert recalibration.corrected == ()
    assert all("no gain" in note for note in recalibration.notes.values())
    same = recalibration.apply(posterior)
    assert np.array_equal(same["redshift"].draws, posterior["redshift"].draws)


def test_ranks_and_bounds_are_preserved():
    names = ("redshift", "sfr", "halpha_flux")
    posterior, truth = gaussian_posterior(300, 100, seed=5, width=0.2, shift=4, quantities=names)
    new = Recalibration.fit(posterior, truth).apply(posterior)
    for name in names:
        old, moved = (np.asarray(p[name].draws.value) for p in (posterior, new))
        assert np.array_equal(np.argsort(old, axis=1), np.argsort(moved, axis=1))
        info = QUANTITIES[name]
        inner = np.log10(moved) if info.logarithmic else moved
        assert np.all((inner > info.lower) & (inner < info.upper)) and not np.array_equal(
            old, moved
        )
    assert new.meta["calibrated"] and new.names == posterior.names
    with pytest.raises(ValueError, match="has been recalibrated already"):
        Recalibration.fit(posterior, truth).apply(new)


def test_recalibration_round_trips_through_the_card():
    posterior, truth, _ = local_defect()
    recalibration = Recalibration.fit(posterior, truth)
    again = Recalibration.from_dict(json.loads(json.dumps(recalibration.to_dict())))
    one, two = (r.apply(posterior)["redshift"].draws.value for r in (recalibration, again))
    assert np.allclose(one, two, atol=1e-7)
    assert again.notes == recalibration.notes and repr(again) == repr(recalibration)
    with pytest.raises(ValueError, match="layout 9"):
        Recalibration.from_dict({"layout": 9})
    with pytest.raises(ValueError, match="the entry recalibration.corrections is missing"):
        Recalibration.from_dict({"layout": 2})
    with pytest.raises(
        ValueError, match="the entry recalibration.corrections is None, but a list is expected"
    ):
        Recalibration.from_dict({"layout": 2, "corrections": None})


def test_too_few_galaxies_are_refused():
    posterior, truth = gaussian_posterior(150, 50, width=0.3, quantities=("redshift", "sfr"))
    truth["sfr"][99:] = np.nan
    with pytest.warns(
        AstroGenSpecWarning, match="sfr from photometry: 99 galaxies .* 100 are needed"
    ):
        recalibration = Recalibration.fit(posterior, truth)
    assert recalibration.corrected == (("photometry", "redshift"),)
    assert "It is not corrected." in recalibration.notes["photometry", "sfr"]
    truth["sfr"][1:] = np.nan
    with pytest.raises(ValueError, match="sfr from photometry: 1 galaxy has"):
        Recalibration.fit(posterior, {"sfr": truth["sfr"]})
    with pytest.raises(ValueError, match="mode is 'picture'"):
        Recalibration.fit(posterior, truth, mode="picture")
    with pytest.raises(ValueError, match="it has no quantity of the posterior"):
        Recalibration.fit(posterior, {"colour": truth["sfr"]})


def test_each_input_mode_has_its_own_correction():
    narrow, truth_a = gaussian_posterior(300, 100, seed=1, width=0.4, quantities=("redshift",))
    wide, truth_b = gaussian_posterior(300, 100, seed=2, width=2.5, quantities=("redshift",))
    posterior = Posterior.concatenate([narrow, wide])
    truth = {"redshift": np.concatenate([truth_a["redshift"], truth_b["redshift"]])}
    modes = np.repeat(["image", "both"], 300)
    fitted = Recalibration.fit(posterior, truth, mode=modes)
    new = fitted.apply(posterior, mode=modes)
    for rows in (slice(300), slice(300, None)):
        assert ks(new, truth, rows) < 0.09 < 0.15 < ks(posterior, truth, rows)
    joined = Recalibration.fit(narrow, truth_a, mode="image") | Recalibration.fit(
        wide, truth_b, mode="both"
    )
    assert (
        set(joined.corrected)
        == set(fitted.corrected)
        == {("image", "redshift"), ("both", "redshift")}
    )
    untouched = fitted.apply(posterior, mode="photometry")
    assert np.array_equal(untouched["redshift"].draws, posterior["redshift"].draws)


def test_galaxies_without_draws_or_photometry_are_not_changed():
    posterior, truth, _ = local_defect(400, 60)
    draws = posterior["redshift"].draws.copy()
    draws[3] = np.nan
    draws[5] = 0.2
    truth["redshift"][7] = np.nan
    blank = Posterior({"redshift": draws}, photometry=posterior.photometry)
    recalibration = Recalibration.fit(blank, truth)
    new = recalibration.apply(blank)["redshift"].draws.value
    assert (
        np.isnan(new[3]).all() and np.all(new[5] == 0.2) and np.isfinite(np.delete(new, 3, 0)).all()
    )
    bare = Posterior({"redshift": draws})
    assert np.isnan(magnitudes_of(bare)).all()
    same = recalibration.apply(bare)["redshift"].draws
    assert np.array_equal(same, bare["redshift"].draws, equal_nan=True)


def without(posterior, bands, rows):
    """Return the posterior with bands missing for some galaxies."""
    table = posterior.photometry.copy()
    for band in bands:
        table[f"flux_{band}"][rows] = np.nan * u.nmgy
    return Posterior(posterior.draws, photometry=table)


def test_corrections_from_five_bands_are_not_applied_to_three():
    posterior, truth, _ = local_defect(600, 60)
    recalibration = Recalibration.fit(posterior, truth)
    some = without(posterior, "uz", slice(200))
    for again in (recalibration, Recalibration.from_dict(recalibration.to_dict())):
        new = again.apply(some)["redshift"].draws
        assert np.array_equal(new[:200], posterior["redshift"].draws[:200])
        all_bands = again.apply(posterior)["redshift"].draws
        assert np.allclose(new[200:], all_bands[200:], rtol=0, atol=1e-7)
        assert not np.allclose(new[:200], all_bands[:200], rtol=0, atol=1e-4)


def test_common_sets_of_bands_are_corrected_and_rare_ones_are_not():
    posterior, truth, _ = local_defect(900, 60)
    mixed = without(without(posterior, "uz", slice(300)), "r", slice(300, 329))
    new = Recalibration.fit(mixed, truth).apply(mixed)["redshift"].draws
    changed = np.any(new != mixed["redshift"].draws, axis=1)
    assert changed[:300].all() and not changed[300:329].any() and changed[329:].all()
    rare = without(posterior, "uz", slice(801))
    rare = without(rare, "g", slice(801, 880))[801:]
    with pytest.raises(
        ValueError, match="99 galaxies have .*, 79 of them a set of bands that at least 30 share"
    ):
        Recalibration.fit(rare, {"redshift": truth["redshift"][801:]})


def test_band_sets():
    magnitudes = np.full((4, 5), 17.0)
    magnitudes[1, [0, 4]] = magnitudes[2] = np.nan
    magnitudes[3, 2] = np.nan
    assert band_sets(magnitudes).tolist() == ["ugriz", "gri", "", "ugiz"]
    assert band_sets(np.empty((0, 5))).shape == (0,)


def test_identity_map_and_gaussian_tails():
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, (4, 1000))
    own = np.broadcast_to(rank_deviates(1000), values.shape)
    assert np.allclose(map_draws(values, own, -100, 100), values, atol=1e-12)
    moved = map_draws(values, own + 4, -100, 100)
    assert np.allclose(np.median(moved, axis=1), 4, atol=0.5)
    assert moved.max() < 12
    assert map_draws(values, own + 40, -100, 100).max() < 100


@pytest.mark.parametrize("n_draws", [1, 2, 5])
def test_few_draws_can_be_moved(n_draws):
    values = np.linspace(0.1, 0.2, 3 * n_draws).reshape(3, n_draws)
    moved = map_draws(
        values, 0.3 + 1.5 * np.broadcast_to(rank_deviates(n_draws), values.shape), 0, 0.5
    )
    assert np.isfinite(moved).all() and np.all((moved > 0) & (moved < 0.5))


def test_probit_pit_extends_beyond_the_draws():
    values = np.random.default_rng(0).normal(0, 1, (300, 500))
    for wanted in (-4.0, -2.0, -0.5, 0.0, 1.0, 3.8):
        found = probit_pit(values, np.full(300, wanted), -100, 100)
        assert np.median(found) == pytest.approx(wanted, abs=0.05 + 0.05 * abs(wanted))
        # map_draws is the inverse of probit_pit.
        back = map_draws(values, np.broadcast_to(found[:, None], values.shape), -100, 100)
        assert np.median(np.abs(back[:, 0] - wanted)) < 1e-6
    assert np.abs(probit_pit(values, np.full(300, 99.0), -100, 100)).max() == 5


def test_the_basis_is_orthonormal_and_does_not_extrapolate():
    rng = np.random.default_rng(1)
    features = np.column_stack([rng.gamma(2, 1, 500), np.full(500, 3.0), rng.integers(0, 2, 500)])
    features[::50, 0] = np.nan
    basis = SplineBasis.fit(features)
    design = basis.design(features)
    assert design.shape[1] == 1 + 4 + 0 + 1
    spline = design[:, :5]
    assert np.allclose(spline.T @ spline / 500, np.eye(5), atol=1e-9)
    assert np.square(design[:, 5]).mean() == pytest.approx(1)
    far = basis.design(np.array([[1e6, 3, 1], [1e9, 99, 1]]))
    assert np.allclose(far[0], far[1]) and np.isfinite(far).all()
    nothing = SplineBasis.fit(np.full((10, 2), np.nan))
    assert nothing.design(np.ones((2, 2))).shape == (2, 1)


def test_the_regression_recovers_shift_and_scale():
    rng = np.random.default_rng(2)
    x = rng.uniform(-1, 1, 5000)
    features = np.column_stack([x, rng.normal(size=5000)])
    deviates = 0.5 * x**2 + np.exp(0.3 * x) * rng.standard_normal(5000)
    fitted, gain = fit_probit_regression(features, deviates)
    shift, scale = fitted.moments(features)
    assert np.abs(shift - 0.5 * x**2).max() < 0.15 and np.abs(scale - np.exp(0.3 * x)).max() < 0.15
    assert gain > 0.01
    again = ProbitRegression.from_dict(json.loads(json.dumps(fitted.to_dict())))
    assert np.allclose(again.moments(features), fitted.moments(features), atol=1e-6)


def test_correction_features():
    values = np.random.default_rng(0).normal(2, 0.5, (1, 4000))
    features = correction_features(values, np.array([[18, 17, 16.5, np.nan, 16.1]]))
    expected = [[2, np.log10(0.5), 16.5, 1, 0.5, np.nan, np.nan, 4]]
    assert np.allclose(features, expected, atol=0.05, equal_nan=True)


# ---- in the estimator


def doubled(estimator, mode="photometry"):
    """Return the estimator with a recalibration that doubles all redshift intervals."""
    basis = SplineBasis.fit(np.full((2, 8), np.nan))
    regression = ProbitRegression(basis, np.zeros(1), np.array([np.log(2.0)]))
    recalibration = Recalibration({(mode, "redshift"): Correction(regression, ("ugriz",))})
    card = dict(estimator.card) | {"recalibration": recalibration.to_dict()}
    return type(estimator)(estimator.network, card=card)


def test_predict_applies_the_recalibration_of_the_card():
    estimator = doubled(make_estimator())
    photometry = make_photometry()
    raw, new = (
        estimator.predict(photometry=photometry, n_draws=400, seed=1, calibrated=c)
        for c in (False, True)
    )
    assert np.array_equal(
        raw["redshift"].draws,
        make_estimator().predict(photometry=photometry, n_draws=400, seed=1)["redshift"].draws,
    )
    low, high = raw["redshift"].interval(0.5)
    wide_low, wide_high = new["redshift"].interval(0.5)
    assert np.all((wide_high - wide_low) / (high - low) > 1.5)
    assert np.array_equal(raw["sfr"].draws, new["sfr"].draws)
    assert (raw.meta["calibrated"], new.meta["calibrated"]) == (False, True)
    parts = estimator.predict_iter(
        photometry=photometry, n_draws=400, seed=1, batch_size=2, calibrated=True
    )
    joined = Posterior.concatenate(parts)["redshift"].draws
    assert np.allclose(joined, new["redshift"].draws, atol=1e-6)


def test_only_the_input_mode_of_the_fit_is_corrected():
    estimator = doubled(make_estimator(), "both")
    for cutouts, photometry, changed in (
        (None, make_photometry(), False),
        (make_cutouts(), make_photometry(), True),
        (make_cutouts(), None, False),
    ):
        options = {"n_draws": 50, "seed": 1} | ({} if photometry is not None else {"ebv": 0.0})
        raw = estimator.predict(cutouts, photometry, calibrated=False, **options)
        new = estimator.predict(cutouts, photometry, **options)
        assert np.array_equal(raw["redshift"].draws, new["redshift"].draws) != changed


def test_known_quantities_are_not_recalibrated():
    estimator = doubled(make_estimator())
    known = {"redshift": np.array([0.1, np.nan, 0.1, 0.1, 0.1])}
    options = {"n_draws": 50, "seed": 1, "known": known}
    new = estimator.predict(photometry=make_photometry(), **options)["redshift"].draws.value
    raw = estimator.predict(photometry=make_photometry(), calibrated=False, **options)[
        "redshift"
    ].draws.value
    assert np.allclose(new[0], 0.1) and not np.allclose(new[1], raw[1])


def test_fine_tuning_drops_the_recalibration():
    estimator = doubled(make_estimator())
    labels = {"redshift": np.linspace(0.05, 0.2, 20)}
    options = {"labels": labels, "epochs": 1, "seed": 0, "progress": False}
    fitted = estimator.fit(photometry=make_photometry(20), **options)
    assert "recalibration" not in fitted.card and "recalibration" in estimator.card


def test_recalibrated_estimator_is_more_accurate():
    estimator = make_estimator()
    photometry = make_photometry(150)
    draws = estimator.predict(photometry=photometry, n_draws=500, seed=3)["redshift"].draws.value
    truth = {"redshift": draws[:, 0] * 0 + np.quantile(draws, 0.9, axis=1)}
    new = estimator.recalibrated(photometry=photometry, truth=truth, n_draws=100)
    assert Recalibration.from_dict(new.card["recalibration"]).corrected == (
        ("photometry", "redshift"),
    )
    after = new.predict(photometry=photometry, n_draws=500, seed=3)["redshift"].median()
    error = np.abs(after.value - truth["redshift"])
    assert np.median(error) < 0.3 * np.median(np.abs(np.median(draws, axis=1) - truth["redshift"]))
    again = new.recalibrated(photometry=photometry, truth=truth, n_draws=100)
    assert again.card["recalibration"] == new.card["recalibration"]


def test_the_bundled_recalibration_applies_to_five_bands_only():
    estimator = PropertyEstimator.from_pretrained("astrogenspec-properties-simulated")
    photometry = load_galaxies()[:6]
    for band in "uz":
        photometry[f"flux_{band}"][:3] = np.nan * u.nmgy
    raw, new = (
        estimator.predict(photometry=photometry, n_draws=50, seed=1, calibrated=c)
        for c in (False, True)
    )
    changed = np.any(raw["redshift"].draws != new["redshift"].draws, axis=1)
    assert changed.tolist() == [False] * 3 + [True] * 3
