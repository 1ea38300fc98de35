"""Zero points of bands from galaxies of known redshift."""

import astropy.units as u
import numpy as np
import pytest
import torch
from estimator_cases import make_estimator, make_photometry
from network_cases import make_network

from astrogenspec import PropertyEstimator, coerce_photometry
from astrogenspec.demo import load_galaxies
from astrogenspec.inputs.photometry import PhotometryBatch
from astrogenspec.surveys import get_survey
from astrogenspec.wavelengths import SED_GRID


def sdss_galaxies(n=1500):
    """Photometry of galaxies with the colours of the demonstration galaxies, within 0.1 mag."""
    rng = np.random.default_rng(2)
    batch = coerce_photometry(load_galaxies(), survey="sdss")
    batch = batch[rng.integers(len(batch), size=n)]
    flux = batch.flux * 10 ** (0.04 * rng.normal(size=batch.flux.shape))
    return PhotometryBatch(flux, 0.02 * np.abs(flux), np.zeros(n), np.zeros(n, bool))


def redshifts(estimator, photometry, seed=3):
    """Redshifts of which the posteriors of the network are right by construction: one draw each."""
    found = estimator.predict(
        photometry=photometry, n_draws=2, seed=seed, on_error="flag", calibrated=False
    )
    return found["redshift"].draws.value[:, 0].astype(float)


@pytest.fixture(scope="module")
def bundled():
    return PropertyEstimator.from_pretrained()


def test_known_offsets_are_recovered(bundled):
    photometry = sdss_galaxies(4000)
    true = np.array([0.10, -0.05, 0.0, 0.03, -0.06])
    z = redshifts(bundled, photometry)
    # A wide prior does not pull the offsets towards zero.
    found = bundled.estimate_zero_points(
        photometry.with_zero_points(-true), z, prior=0.3 * u.mag, on_error="flag"
    )
    assert list(found["band"]) == list("ugriz")
    assert list(found["filter"])[0] == "sdss2010-u"
    assert (found["n"] == len(photometry)).all()
    # A common offset of all bands is hardly determined, those of colours are.
    colours = np.diff(found["offset"].to_value(u.mag))
    np.testing.assert_allclose(colours, np.diff(true), atol=0.02)
    pulls = (found["offset"].to_value(u.mag) - true) / found["error"].to_value(u.mag)
    assert np.abs(pulls).max() < 3


def test_offsets_follow_the_prior_where_nothing_is_known(bundled):
    photometry = sdss_galaxies(40)
    flux, error = photometry.flux.copy(), photometry.error.copy()
    flux[:, 4] = error[:, 4] = np.nan
    photometry = PhotometryBatch(flux, error, photometry.ebv, photometry.measured)
    z = redshifts(bundled, photometry)
    z[:5] = np.nan
    found = bundled.estimate_zero_points(photometry, z, prior=30 * u.mmag, on_error="flag")
    assert list(found["n"]) == [35, 35, 35, 35, 0]
    assert found["offset"][4] == 0 * u.mag
    np.testing.assert_allclose(found["error"][4].to_value(u.mag), 0.03)
    assert (found["error"].to_value(u.mag) <= 0.03 + 1e-9).all()
    assert found.meta == {"prior": 0.03, "n_galaxies": 35}


def test_any_filters():
    network = make_network(sed_components=8, n_bins=[4] * 9)
    rng = np.random.default_rng(0)
    x = SED_GRID.log_wavelength - np.log10(6200)
    slope, depth = rng.normal(0.8, 0.6, (2500, 1)), rng.normal(0.3, 0.1, (2500, 1))
    seds = torch.tensor(50 * 10 ** (slope * x + depth / (1 + np.exp(-x / 0.02)))).float()
    network.components.fit(seds[:500] / seds[:500, [240]])
    torch.manual_seed(5)
    torch.nn.init.normal_(network.chain.factors[0].out.weight, std=0.5)
    estimator = PropertyEstimator(network, card={"name": "any filters"})
    filters = tuple(get_survey("des").filters[band] for band in "griz")
    curves = [SED_GRID.average_weights(each.wavelength, each.response) for each in filters]
    flux = seds[500:].double().numpy() @ np.array(curves).T
    n = len(flux)
    photometry = PhotometryBatch(flux, 0.02 * flux, np.zeros(n), np.zeros(n, bool), filters=filters)
    true = np.array([0.04, 0.0, -0.03, 0.0])
    z = redshifts(estimator, photometry)
    found = estimator.estimate_zero_points(photometry.with_zero_points(-true), z)
    assert list(found["filter"]) == [each.name for each in filters]
    pulls = (found["offset"].to_value(u.mag) - true) / found["error"].to_value(u.mag)
    assert np.abs(pulls).max() < 3


@pytest.mark.parametrize(
    ("redshift", "options", "message"),
    [
        (np.full(30, 0.7), {}, "the known redshift is 0.7"),
        (np.full(29, 0.1), {}, "30"),
        (np.full(30, np.nan), {}, "only 0 galaxies have photometry and a redshift"),
        (np.full(30, 0.1), {"prior": 0}, "prior is 0, but it must be a positive number"),
        (np.full(30, 0.1), {"prior": np.nan}, "prior is nan"),
    ],
)
def test_invalid_arguments_are_reported(redshift, options, message):
    estimator = make_estimator()
    with pytest.raises(ValueError, match=message):
        estimator.estimate_zero_points(make_photometry(30), redshift, **options)


def test_zero_points_of_photometry_are_checked():
    batch = coerce_photometry(make_photometry())
    moved = batch.with_zero_points([0.1, 0, 0, 0, 0] * u.mag)
    np.testing.assert_allclose(moved.flux[:, 0], batch.flux[:, 0] * 10**0.04)
    np.testing.assert_allclose(moved.error[:, 0], batch.error[:, 0] * 10**0.04)
    np.testing.assert_array_equal(moved.flux[:, 1:], batch.flux[:, 1:])
    with pytest.raises(ValueError, match=r"offset has shape \(3,\), but it must be 5 finite"):
        batch.with_zero_points(np.zeros(3))
    with pytest.raises(u.UnitConversionError):
        batch.with_zero_points(np.zeros(5) * u.m)
