"""Tests of the latent methods: encode, decode, reconstruct, sample, traverse, embed."""

import astropy.units as u
import numpy as np
import pytest
from estimator_cases import (
    N,
    make_cutouts,
    make_estimator,
    make_network,
    make_photometry,
    make_stack,
)

from astrogenspec import Flag, PropertyEstimator
from astrogenspec.base import NotFittedError

IMAGES = (N, 5, 64, 64)


@pytest.fixture
def estimator():
    return make_estimator()


def test_encode_gives_mean_and_sigma(estimator):
    mean, sigma = estimator.encode(make_stack())
    assert mean.shape == sigma.shape == (N, 6)
    assert (sigma > 0).all()
    assert not np.allclose(mean[0], mean[1])
    few, _ = estimator.encode(make_cutouts()[2:4])
    np.testing.assert_allclose(few, mean[2:4], atol=1e-5)


def test_reconstruct_decodes_the_mean(estimator):
    images = estimator.reconstruct(make_stack())
    assert images.shape == IMAGES and images.unit == u.nmgy
    decoded = estimator.decode(estimator.encode(make_stack())[0])
    np.testing.assert_allclose(images.value, decoded.value, rtol=1e-4, atol=1e-6)


def test_reconstruct_has_the_extinction_of_the_input(estimator):
    images = estimator.reconstruct(make_stack(), ebv=0.3)
    decoded = estimator.decode(estimator.encode(make_stack(), ebv=0.3)[0])
    dimming = 10 ** (-0.4 * 0.3 * np.array([4.239, 3.303, 2.285, 1.698, 1.263]))
    expected = decoded.value * dimming[:, None, None]
    np.testing.assert_allclose(images.value, expected, rtol=1e-4, atol=1e-6)


def test_flagged_images_are_nan(estimator):
    options = {"cutouts": make_cutouts(bad=[1]), "on_error": "flag"}
    mean, sigma = estimator.encode(**options)
    images = estimator.reconstruct(**options)
    table = estimator.embed(**options)
    for values in (mean, sigma, images.value, table["latent"]):
        bad = np.isnan(np.asarray(values)).reshape(N, -1)
        assert list(bad.all(axis=1)) == list(bad.any(axis=1)) == [False, True, False, False, False]
    assert "no band has a usable pixel" in table["flag"][1]
    assert list(table["flags"] & Flag.IMAGE_NOT_USED != 0) == [False, True, False, False, False]
    with pytest.raises(ValueError, match="galaxy 1: no band has a usable pixel"):
        estimator.encode(make_cutouts(bad=[1]))


@pytest.mark.parametrize(
    ("latent", "message"),
    [
        (np.zeros(6), r"latent has shape \(6,\): it must be \(n, 6\)"),
        (np.zeros((2, 5)), r"latent has shape \(2, 5\)"),
        (np.full((2, 6), np.nan), "not finite"),
    ],
)
def test_decode_rejects_invalid_latents(estimator, latent, message):
    with pytest.raises(ValueError, match=message):
        estimator.decode(latent)


def test_decode_without_rows_is_empty(estimator):
    assert estimator.decode(np.zeros((0, 6))).shape == (0, 5, 64, 64)


def test_sample_depends_only_on_the_seed(estimator):
    one, two = estimator.sample(3, seed=1), estimator.sample(3, seed=1)
    assert one.shape == (3, 5, 64, 64) and one.unit == u.nmgy
    assert np.array_equal(one, two)
    assert not np.allclose(one[0].value, one[1].value)
    assert not np.allclose(estimator.sample(3, seed=2).value, one.value)
    with pytest.raises(ValueError, match="n is 0"):
        estimator.sample(0)


def test_traverse_moves_one_quantity(estimator):
    galaxy = make_cutouts()[0]
    images = estimator.traverse(galaxy, "redshift", [0.05, 0.1, 0.3], photometry=make_photometry(1))
    assert images.shape == (3, 5, 64, 64) and images.unit == u.nmgy
    assert not np.allclose(images[0].value, images[2].value)
    mass = estimator.traverse(galaxy, "stellar_mass", [9, 11] * u.dex(u.Msun), ebv=0.1)
    assert mass.shape == (2, 5, 64, 64)
    linear = estimator.traverse(galaxy, "stellar_mass", [1e9, 1e11] * u.Msun, ebv=0.1)
    np.testing.assert_allclose(linear.value, mass.value, rtol=1e-4, atol=1e-6)


def test_traverse_to_the_median_gives_the_reconstruction(estimator):
    galaxy, table = make_cutouts()[0], make_photometry(1)
    posterior = estimator.predict(galaxy, table, n_draws=500, seed=0)
    # torch takes the lower of the two middle draws for the median
    median = np.sort(posterior["sfr"].draws[0])[249:250]
    moved = estimator.traverse(galaxy, "sfr", median, photometry=table)
    still = estimator.reconstruct([galaxy], ebv=0.02)[0].value
    still = (
        still * 10 ** (0.4 * 0.02 * np.array([4.239, 3.303, 2.285, 1.698, 1.263]))[:, None, None]
    )
    np.testing.assert_allclose(moved[0].value, still, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ((make_stack(), "redshift", [0.1]), ValueError, "cutout holds 5 galaxies"),
        (
            (make_cutouts()[0], "halpha_flux", [1.0]),
            ValueError,
            "does not affect the decoded image",
        ),
        ((make_cutouts()[0], "colour", [1.0]), ValueError, "unknown quantity 'colour'"),
        ((make_cutouts()[0], "redshift", [0.1, 0.6]), ValueError, "a redshift of 0.6: it must lie"),
        ((make_cutouts()[0], "redshift", 0.1), ValueError, r"values has shape \(\)"),
        ((make_cutouts()[0], "sfr", [1] * u.m), u.UnitConversionError, "sfr has the unit 'm'"),
    ],
)
def test_traverse_rejects_invalid_arguments(estimator, arguments, kind, message):
    with pytest.raises(kind, match=message):
        estimator.traverse(*arguments)


def test_embed_tabulates_latents(estimator):
    names = [f"g{k}" for k in range(N)]
    table = estimator.embed(make_cutouts(names=names))
    assert table.colnames == ["name", "latent", "latent_sigma", "flags", "flag"]
    assert list(table["name"]) == names and set(table["flag"]) == {""} and not table["flags"].any()
    np.testing.assert_allclose(table["latent"], estimator.encode(make_stack())[0], atol=1e-5)
    wider = estimator.embed(make_cutouts(names=names), make_photometry())
    assert wider["context"].shape == (N, 16)
    other = estimator.embed(make_cutouts(names=names), make_photometry(seed=9))
    assert not np.allclose(wider["context"], other["context"])


def test_embed_requires_images(estimator):
    with pytest.raises(ValueError, match="cutouts is None"):
        estimator.embed(None, make_photometry())


def test_untrained_networks_raise():
    estimator = PropertyEstimator(make_network())
    calls = (
        lambda: estimator.encode(make_stack()),
        lambda: estimator.decode(np.zeros((1, 6))),
        lambda: estimator.sample(1),
        lambda: estimator.traverse(make_cutouts()[0], "redshift", [0.1]),
    )
    for call in calls:
        with pytest.raises(NotFittedError):
            call()
