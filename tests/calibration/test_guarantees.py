"""Tests of intervals with guaranteed coverage."""

import json

import astropy.units as u
import numpy as np
import pytest
from astropy.table import QTable

from astrogenspec import Posterior
from astrogenspec.calibration import CoverageGuarantee
from astrogenspec.calibration.guarantees import MIN_PER_CELL, IntervalCells, guarantee_of
from astrogenspec.results.quantity import GUARANTEED_LEVELS
from astrogenspec.surveys import BANDS


def _photometry(flux):
    table = QTable()
    for k, band in enumerate(BANDS):
        table[f"flux_{band}"] = flux[:, k] * u.nmgy
        table[f"extinction_{band}"] = np.zeros(len(flux)) * u.mag
    return table


def _sample(n, seed=0, width=0.01):
    """Return posteriors whose error is width / 2 of blue and 2 * width of red galaxies."""
    rng = np.random.default_rng(seed)
    red = rng.random(n) < 0.5
    flux = 10.0 ** rng.uniform(1, 2, (n, 5))
    flux[:, 1] = flux[:, 2] * np.where(red, 0.4, 0.8)
    centre = rng.uniform(0.1, 0.3, n)
    draws = rng.normal(centre[:, None], width, (n, 200))
    true = rng.normal(centre, np.where(red, 2 * width, 0.5 * width))
    posterior = Posterior({"redshift": draws * u.one}, photometry=_photometry(flux))
    return posterior, {"redshift": true * u.one}, red


def _coverage(posterior, truth, level):
    low, high = posterior["redshift"].interval(level, guaranteed=True)
    return (low <= truth["redshift"]) & (truth["redshift"] <= high)


@pytest.mark.parametrize("level", [0.5, 0.68, 0.9, 0.95])
def test_coverage_holds_in_each_class_of_galaxies(level):
    posterior, truth, _ = _sample(8000)
    guarantee = CoverageGuarantee.fit(posterior, truth)
    others, values, red = _sample(8000, seed=1)
    inside = _coverage(guarantee.apply(others), values, level)
    # Four standard deviations of the coverage: calibration and test sample.
    assert abs(inside.mean() - level) < 4 * np.sqrt(2 * level * (1 - level) / 8000)
    for rows in (red, ~red):
        assert abs(inside[rows].mean() - level) < 4 * np.sqrt(2 * level * (1 - level) / 4000)


def test_stretch_is_the_conformal_quantile():
    rng = np.random.default_rng(0)
    needed = rng.uniform(0, 2, (99, len(GUARANTEED_LEVELS)))
    cells = IntervalCells.fit(np.zeros((99, 8)), needed, np.ones(99))
    k = GUARANTEED_LEVELS.index(0.9)
    # The smallest of 99 values with at least 0.9 * 100 of them below or equal: the 90th.
    assert cells.stretch[0, k] == np.sort(needed[:, k])[89]
    assert cells.n_galaxies.tolist() == [99]


def test_too_few_galaxies_for_a_level_give_an_unbounded_interval():
    needed = np.ones((30, len(GUARANTEED_LEVELS)))
    cells = IntervalCells.fit(np.zeros((30, 8)), needed, np.ones(30))
    assert np.isinf(cells.stretch[0, GUARANTEED_LEVELS.index(0.99)])
    assert cells.stretch[0, GUARANTEED_LEVELS.index(0.95)] == 1


def test_weights_make_the_coverage_that_of_the_weighted_population():
    posterior, truth, red = _sample(4000)
    colourless = Posterior(dict(posterior.draws))
    weight = np.where(red, 1.0, 0.01)
    guarantee = CoverageGuarantee.fit(colourless, truth, sample_weight=weight)
    others, values, red = _sample(4000, seed=1)
    inside = _coverage(guarantee.apply(Posterior(dict(others.draws))), values, 0.9)
    assert abs(inside[red].mean() - 0.9) < 0.03
    assert inside[~red].mean() > 0.99


def test_galaxies_with_other_bands_or_filters_have_no_guarantee():
    posterior, truth, _ = _sample(1000)
    guarantee = CoverageGuarantee.fit(posterior, truth)
    table = posterior.photometry
    table["flux_u"][:10] = np.nan
    partial = Posterior(dict(posterior.draws), photometry=table)
    low, high = guarantee.apply(partial)["redshift"].interval(0.9, guaranteed=True)
    assert np.isnan(low[:10]).all() and np.isnan(high[:10]).all()
    assert np.isfinite(low[10:]).all()
    other = Posterior(dict(posterior.draws), photometry=table, meta={"filters": ["decamDR1-g"]})
    with pytest.raises(ValueError, match="no labelled sample that guarantees"):
        guarantee.apply(other)["redshift"].interval(0.9, guaranteed=True)


def test_line_fluxes_are_stretched_in_their_logarithm():
    rng = np.random.default_rng(0)
    centre = rng.uniform(1, 2, 600)
    flux = 10 ** rng.normal(centre[:, None], 0.1, (600, 200))
    posterior = Posterior({"halpha_flux": flux * u.Unit("1e-17 erg / (s cm2)")})
    true = 10 ** rng.normal(centre, 0.3) * u.Unit("1e-17 erg / (s cm2)")
    found = CoverageGuarantee.fit(posterior, {"halpha_flux": true}).apply(posterior)
    low, high = found["halpha_flux"].interval(0.68, guaranteed=True)
    assert np.all(low > 0)
    width = np.log10(high / low).value
    assert np.median(width) == pytest.approx(0.6, rel=0.12)


def test_guarantee_survives_selection_files_and_the_card(tmp_path):
    posterior, truth, _ = _sample(2000)
    fitted = CoverageGuarantee.fit(posterior, truth)
    guarantee = CoverageGuarantee.from_dict(json.loads(json.dumps(fitted.to_dict())))
    found = guarantee.apply(posterior)
    low = found["redshift"].interval(0.9, guaranteed=True)[0]
    np.testing.assert_allclose(low[5:9], found[5:9]["redshift"].interval(0.9, guaranteed=True)[0])
    found.write(tmp_path / "posterior.fits", draws=True)
    read = Posterior.read(tmp_path / "posterior.fits")
    np.testing.assert_allclose(low, read["redshift"].interval(0.9, guaranteed=True)[0])
    assert guarantee.guaranteed == (("photometry", "redshift"),)
    assert repr(guarantee) == "<CoverageGuarantee of redshift (photometry)>"


def test_reweighted_draws_have_no_guarantee():
    posterior, truth, _ = _sample(1000)
    found = CoverageGuarantee.fit(posterior, truth).apply(posterior)
    other = found.reweighted(lambda draws: np.ones(draws["redshift"].shape))
    with pytest.raises(ValueError, match="guarantees intervals of redshift"):
        other["redshift"].interval(0.9, guaranteed=True)


def test_bad_requests_report_one_sentence():
    posterior, truth, _ = _sample(1000)
    with pytest.raises(ValueError, match="no labelled sample that guarantees"):
        posterior["redshift"].interval(0.9, guaranteed=True)
    found = CoverageGuarantee.fit(posterior, truth).apply(posterior)
    with pytest.raises(ValueError, match="level is 0.42; guaranteed intervals have one of"):
        found["redshift"].interval(0.42, guaranteed=True)
    with pytest.raises(ValueError, match="sample_weight has shape"):
        CoverageGuarantee.fit(posterior, truth, sample_weight=np.ones(3))
    broken = CoverageGuarantee.fit(posterior, truth).to_dict()
    broken["cells"][0]["threshold"] = [1.0, 2.0]
    with pytest.raises(ValueError, match="power of two"):
        CoverageGuarantee.from_dict(broken)


def test_small_samples_have_no_guarantee():
    posterior, truth, _ = _sample(MIN_PER_CELL - 1)
    modes = np.full(len(posterior), "photometry")
    assert guarantee_of(posterior, truth, modes) is None
    assert not CoverageGuarantee.fit(posterior, truth).guaranteed


def test_recalibration_and_guarantee_of_the_same_sample():
    posterior, truth, _ = _sample(3000)
    guarantee = guarantee_of(posterior, truth, np.full(len(posterior), "photometry"))
    assert guarantee.guaranteed == (("photometry", "redshift"),)
