"""Test of stars and quasars: likelihood ratio, limit, missing bands, extended objects."""

import astropy.units as u
import numpy as np
import pytest
from estimator_cases import make_estimator

from astrogenspec.flags import Flag
from astrogenspec.inference.outliers.colours import ColourMixture
from astrogenspec.inference.outliers.detector import check_outlier_statistics
from astrogenspec.inference.outliers.stars import StarTest

GALAXY, STAR = np.array([19.5, 18.0, 17.2, 16.8, 16.6]), np.array([18.6, 17.6, 17.3, 17.2, 17.15])
ERROR = np.full((1, 5), 0.02)


def magnitudes(centre, n, seed):
    """Return magnitudes that scatter by 0.5 mag together and by 0.1 mag in each band."""
    rng = np.random.default_rng(seed)
    return centre + rng.normal(0, 0.5, (n, 1)) + rng.normal(0, 0.1, (n, 5))


@pytest.fixture(scope="module")
def fitted():
    """Return a test fitted to galaxies of which a third has no weight, and stars."""
    galaxies = np.concatenate([magnitudes(GALAXY, 2000, 1), magnitudes(STAR, 1000, 2)])
    errors = np.full_like(galaxies, 0.02)
    weight = np.repeat([1.0, 0.0], [2000, 1000])
    return StarTest.fit((galaxies, errors), magnitudes(STAR, 400, 3), weight)


def test_density_is_that_of_the_mixture():
    """Two components in one dimension after the marginalisation, against the formula."""
    means = np.array([GALAXY, STAR])
    covariances = np.array([np.eye(5) * 0.04, np.eye(5) * 0.01])
    mixture = ColourMixture(means, covariances, np.array([0.7, 0.3]))
    at = np.array([[np.nan, np.nan, 17.25, 17.0, 16.9]])
    error = np.array([[0.1, 0.1, 0.1, 0.2, np.nan]])
    assert np.isnan(mixture.log_density(at, error)).all()
    error[0, 4] = 0.3
    expected = 0.0
    for mean, variance, weight in zip(means, (0.04, 0.01), (0.7, 0.3), strict=True):
        total = variance + error[0, 2:] ** 2
        expected += weight * np.prod(
            np.exp(-0.5 * (at[0, 2:] - mean[2:]) ** 2 / total) / np.sqrt(total)
        )
    assert np.isclose(mixture.log_density(at, error)[0], np.log(expected))


def test_stars_are_found_and_one_galaxy_in_a_hundred(fitted):
    stars, galaxies = magnitudes(STAR, 500, 4), magnitudes(GALAXY, 4000, 5)
    assert fitted.found(stars, np.full_like(stars, 0.02)).mean() > 0.9
    assert 0.003 < fitted.found(galaxies, np.full_like(galaxies, 0.02)).mean() < 0.02


def test_uncertain_and_missing_bands_tell_nothing(fitted):
    """Bands of infinite error, as missing ones, leave the ratio of the others."""
    star = STAR[None] + 0.0
    missing, infinite = star.copy(), np.where(np.arange(5) < 2, 1e6, ERROR)
    missing[:, :2] = np.nan
    ratio = fitted.log_ratio(missing, ERROR)
    assert np.isclose(fitted.log_ratio(star, infinite)[0], ratio[0], atol=1e-3)
    vague = np.full((1, 5), 1e6)
    assert abs(fitted.log_ratio(star, vague)[0]) < 1e-3
    missing[:, :3] = np.nan
    assert np.isnan(fitted.log_ratio(missing, ERROR)[0])
    assert not fitted.found(missing, ERROR)[0]


def test_dictionary(fitted):
    again = StarTest.from_dict(fitted.to_dict())
    stars = magnitudes(STAR, 50, 6)
    errors = np.full_like(stars, 0.02)
    assert np.allclose(
        again.log_ratio(stars, errors), fitted.log_ratio(stars, errors), atol=0.02, rtol=1e-3
    )
    broken = fitted.to_dict() | {"least_log_ratio": "high"}
    with pytest.raises(ValueError, match=r"stars\.least_log_ratio"):
        StarTest.from_dict(broken)


def test_flag_needs_neither_image_nor_radius(fitted):
    """Photometry alone is flagged; a radius above 1.6 arcsec is that of a galaxy."""
    estimator = make_estimator()
    card = dict(estimator.card or {})
    novelty = dict(card.get("novelty") or {})
    novelty |= {"stars": fitted.to_dict(), "least_signal": -3.0, "layout": 1}
    mixture = ColourMixture(GALAXY[None], 25 * np.eye(5)[None])
    novelty["colours"] = {"mixture": mixture.to_dict(), "least_log_tail": -300.0}
    check_outlier_statistics(
        {k: novelty[k] for k in ("layout", "stars", "least_signal", "colours")}
    )
    estimator = type(estimator)(estimator.network, card=card | {"novelty": novelty})
    columns = {f"mag_{b}": [STAR[k], GALAXY[k], STAR[k]] * u.ABmag for k, b in enumerate("ugriz")}
    columns |= {f"mag_err_{b}": [0.02, 0.02, 0.02] * u.mag for b in "ugriz"}
    columns["r50"] = [0.8, np.nan, 2.0] * u.arcsec
    posterior = estimator.predict(photometry=columns, ebv=0.0, n_draws=5, seed=1, on_error="flag")
    found = (posterior.flag_codes & Flag.STAR_OR_QUASAR) != 0
    assert found.tolist() == [True, False, False]
    assert "star or a quasar" in posterior.flags[0]
