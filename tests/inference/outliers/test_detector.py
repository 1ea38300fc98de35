"""Outlier flags: image statistics, colours, limits, codes and texts, predictive check."""

import json

import astropy.units as u
import numpy as np
import pytest
from estimator_cases import make_cutouts, make_estimator, make_photometry

from astrogenspec.flags import Flag, decode_flags
from astrogenspec.inference.outliers.colours import ColourMixture, near_stellar_locus
from astrogenspec.inference.outliers.detector import (
    input_range_flags,
    outlier_flags,
    outlier_statistics,
    posterior_range_flags,
)
from astrogenspec.inference.outliers.image_statistics import image_statistics
from astrogenspec.inference.outliers.predictive import PhotometryEmulator
from astrogenspec.inputs.cutouts import CutoutBatch
from astrogenspec.inputs.observations import observe
from astrogenspec.inputs.photometry import PhotometryBatch
from astrogenspec.results.posterior import Posterior
from astrogenspec.surveys import BANDS, SDSS

Y, X = np.mgrid[:64, :64] - 31.5
SIGMA = np.array([SDSS.pixel_sigma[band] for band in BANDS])[:, None, None]
COLOURS = np.array([0.15, 0.45, 1.0, 1.4, 1.7])


def gaussian(width, x=0.0, y=0.0):
    shape = np.exp(-((X - x) ** 2 + (Y - y) ** 2) / (2 * width**2))
    return shape / shape.sum()


def galaxy(length, rng):
    """Return the image of a round exponential disk with a softened centre."""
    shape = np.exp(-np.sqrt(X**2 + Y**2 + 2.0) / length)
    return shape / shape.sum() * np.ones(5)[:, None, None]


def cutouts_of(shapes, total=150.0, seed=0):
    """Return cutouts of light profiles (n, 5, 64, 64) with the sky noise of the survey."""
    rng = np.random.default_rng(seed)
    total = np.broadcast_to(total, (len(shapes),))
    flux = np.asarray(shapes) * (COLOURS * total[:, None])[:, :, None, None]
    flux = flux + rng.normal(0, 1, flux.shape) * SIGMA
    return flux.astype(np.float32), np.broadcast_to(SIGMA**-2.0, flux.shape).astype(np.float32)


def training_cutouts(n=300, seed=1):
    rng = np.random.default_rng(seed)
    shapes = [galaxy(length, rng) for length in rng.uniform(2.0, 5.0, n)]
    return cutouts_of(shapes, 10 ** rng.uniform(1.6, 2.6, n), seed)


def catalogue(n=2500, seed=2):
    rng = np.random.default_rng(seed)
    age = rng.uniform(0, 1, n)
    colours = np.column_stack(
        [1.0 + 0.8 * age, 0.4 + 0.5 * age, 0.2 + 0.2 * age, 0.15 + 0.15 * age]
    )
    colours += rng.normal(0, 0.04, colours.shape)
    red = rng.uniform(14.5, 17.7, n)
    offsets = np.column_stack([colours[:, 0] + colours[:, 1], colours[:, 1], np.zeros(n)])
    offsets = np.column_stack([offsets, -colours[:, 2], -colours[:, 2] - colours[:, 3]])
    flux = 10 ** (0.4 * (22.5 - red[:, None] - offsets))
    return flux, 0.02 * flux, age


def batch(flux, error):
    return PhotometryBatch(flux, error, np.zeros(len(flux)), np.zeros(len(flux), bool))


@pytest.fixture(scope="module")
def statistics():
    flux, error, _ = catalogue()
    made = outlier_statistics(batch(flux, error), CutoutBatch(*training_cutouts()))
    return json.loads(json.dumps(made))


def image_flags(statistics, flux, ivar):
    cutouts = CutoutBatch(np.asarray(flux, np.float32), np.asarray(ivar, np.float32))
    return outlier_flags(statistics, observe(cutouts, None, ebv=0.0, measure=False))


# ---- image statistics


@pytest.mark.parametrize("width", [1.4, 2.0, 3.0])
def test_moments_of_a_gaussian(width):
    flux, ivar = cutouts_of([gaussian(width, 0.3, -0.4) * np.ones(5)[:, None, None]] * 3, 500)
    found = image_statistics(flux, ivar)
    assert found["size"] == pytest.approx(2 / (width**-2 + 3.0**-2), rel=0.03)
    assert np.abs(found["wings"]).max() < 0.03
    assert found["offset"] == pytest.approx(0.5, abs=0.06)
    assert found["misregistration"].max() < 0.4


def test_displaced_bands_are_measured():
    shape = gaussian(2.0) * np.ones(5)[:, None, None]
    shape[1] = gaussian(2.0, 2.0, 0)
    assert image_statistics(*cutouts_of([shape], 800))["misregistration"][0] == pytest.approx(
        2.0, abs=0.5
    )


def test_noise_background_and_bad_pixels_are_measured():
    flux, ivar = cutouts_of([galaxy(2.0, None)] * 2)
    found = image_statistics(flux - 0.5 * SIGMA, ivar / 4)
    assert found["noise"] == pytest.approx(np.log10(0.5), abs=0.06)
    assert found["background"] == pytest.approx(-0.25, abs=0.1)
    ivar = ivar.copy()
    ivar[0, 2, :, :16] = 0
    ivar[1, 2, 28:36, 28:36] = 0
    found = image_statistics(flux, ivar)
    assert found["masked"] == pytest.approx([0.25, 64 / 4096]) and found["masked_core"][0] == 0
    assert found["masked_core"][1] > 0.5


def test_extreme_images_give_no_warnings():
    flux, ivar = cutouts_of([galaxy(2.0, None)] * 5)
    flux[0], ivar[0] = 0, 0
    ivar[1, 1:] = 0
    flux[2] = 0
    flux[3] = -flux[3]
    flux[4] *= 1e8
    found = image_statistics(flux, ivar)
    assert all(values.shape == (5,) for values in found.values())
    assert found["signal"][0] == 0 and np.isnan(found["size"][0])
    assert image_statistics(flux[:0], ivar[:0])["size"].shape == (0,)


def test_sharpness_is_the_fraction_of_the_3x3_flux():
    flux, ivar = training_cutouts(6)
    flux[2, 3, 40, 10] += 500 * SIGMA[3, 0, 0]
    flux[4] = 0.1 * SIGMA
    expected = np.zeros(len(flux))
    for k, b, y, x in np.argwhere(flux[:, :, 1:-1, 1:-1] > 20 * SIGMA) + [0, 0, 1, 1]:
        around = flux[k, b, y - 1 : y + 2, x - 1 : x + 2].sum()
        expected[k] = max(expected[k], flux[k, b, y, x] / around)
    found = image_statistics(flux, ivar)["sharpness"]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert found[2] > 0.9
    assert found[4] == 0


def test_statistics_do_not_depend_on_the_batch():
    flux, ivar = training_cutouts(20)
    together = image_statistics(flux, ivar)
    alone = image_statistics(flux[7:8], ivar[7:8])
    for name, values in together.items():
        assert values[7] == pytest.approx(alone[name][0], rel=1e-4, abs=1e-5, nan_ok=True)


# ---- images


def test_usual_galaxies_are_not_flagged(statistics):
    flux, ivar = training_cutouts(150, seed=9)
    seen = observe(CutoutBatch(flux, ivar), None, ebv=0.0, measure=False)
    assert np.mean(outlier_flags(statistics, seen).codes != 0) <= 0.02


def changed(flag, flux, ivar):
    flux, ivar = flux.copy(), ivar.copy()
    if flag == Flag.BLANK_FIELD:
        flux = cutouts_of(np.zeros(flux.shape))[0]
    elif flag == Flag.POINT_SOURCE:
        flux = cutouts_of([gaussian(1.45) * np.ones(5)[:, None, None]] * len(flux), 300)[0]
    elif flag == Flag.ARTEFACT:
        flux[:, 2, 10, 40:42] += 3
    elif flag == Flag.SATURATED:
        flux = 20 * flux
        flux = np.minimum(flux, 0.25 * flux[:, :, 28:36, 28:36].max(axis=(2, 3), keepdims=True))
    elif flag == Flag.MASKED:
        ivar[:, :, 28:36, 28:36] = 0
    elif flag == Flag.MISREGISTERED:
        flux[:, 3] = np.roll(flux[:, 3], 3, axis=2)
    elif flag == Flag.NEIGHBOUR:
        flux += (
            20 * flux.max(axis=(2, 3), keepdims=True) * gaussian(1.5, 20, 5) / gaussian(1.5).max()
        )
    elif flag == Flag.OFF_CENTRE:
        flux = np.roll(flux, 5, axis=3)
    elif flag == Flag.BACKGROUND:
        flux -= 0.7 * SIGMA
    elif flag == Flag.NOISE:
        ivar *= 9
    elif flag == Flag.IMAGE_COLOURS:
        flux[:, 1] *= 0.5
    return flux, ivar


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        (Flag.BLANK_FIELD, "no source is detected"),
        (Flag.POINT_SOURCE, "a star or a quasar"),
        (Flag.ARTEFACT, "sharper than any source"),
        (Flag.SATURATED, "within 3% of the highest value"),
        (Flag.MASKED, "of its central pixels"),
        (Flag.MISREGISTERED, "displaced by"),
        (Flag.NEIGHBOUR, "times as bright as the middle"),
        (Flag.OFF_CENTRE, "5.0 pixels off centre"),
        (Flag.BACKGROUND, "check the sky subtraction"),
        (Flag.NOISE, "times its stated uncertainty"),
        (Flag.IMAGE_COLOURS, "the colours of the image"),
    ],
    ids=lambda value: value.name if isinstance(value, Flag) else "",
)
def test_each_deviation_sets_its_bit_and_text(statistics, flag, words):
    usual = cutouts_of([galaxy(3.0, None)] * 10, 200, seed=4)
    assert not image_flags(statistics, *usual).codes.any()
    found = image_flags(statistics, *changed(flag, *usual))
    assert np.all(found.codes & flag)
    assert all(words in text for text in found.texts) or flag == Flag.OFF_CENTRE
    assert words in "; ".join(found.texts)
    assert not any(text.endswith(".") for text in found.texts)


# ---- photometry


def colour_flags(statistics, flux, error):
    return outlier_flags(statistics, observe(None, batch(flux, error), on_error="flag"))


def test_usual_photometry_is_not_flagged_in_any_set_of_bands(statistics):
    flux, error, _ = catalogue(2000, seed=11)
    for bands in ("ugriz", "gri", "gr"):
        some = np.where([band in bands for band in BANDS], flux, np.nan)
        seen = observe(None, batch(some, np.where(np.isfinite(some), error, np.nan)))
        assert np.mean(outlier_flags(statistics, seen).codes != 0) < 0.005


def test_unusual_colours_are_flagged_unless_errors_are_large(statistics):
    flux, error, _ = catalogue(200, seed=12)
    flux[:, 2] *= 2
    found = colour_flags(statistics, flux, error)
    assert np.all(found.codes & Flag.COLOURS)
    assert found.texts[0].startswith("magnitudes and colours are outside the training distribution")
    assert not np.any(colour_flags(statistics, flux, flux / 3).codes & Flag.COLOURS)
    red_dwarf = 10 ** (0.4 * (22.5 - np.array([[20.5, 17.9, 16.5, 15.4, 14.8]])))
    assert "(colours of a star)" in colour_flags(statistics, red_dwarf, 0.02 * red_dwarf).texts[0]


def test_faint_and_missing_photometry(statistics):
    flux, error, _ = catalogue(5, seed=13)
    found = colour_flags(statistics, flux, flux / 2)
    assert decode_flags(found.codes)[0] == ["low_signal"]
    assert "signal-to-noise ratio of the photometry, 2.0, is below" in found.texts[0]
    flux[0], flux[1, 1:], flux[2] = np.nan, np.nan, -flux[2]
    found = colour_flags(statistics, flux, np.where(np.isfinite(flux), error, np.nan))
    assert not np.any(found.codes[:2] & Flag.COLOURS) and not found.codes[0] & Flag.LOW_SIGNAL
    assert found.codes[2] & Flag.LOW_SIGNAL


def test_tail_probabilities_are_calibrated():
    rng = np.random.default_rng(0)
    covariance = 0.05 * np.eye(5) + 0.3
    values = rng.multivariate_normal(np.full(5, 17.0), covariance, 20_000)
    one = ColourMixture(np.full((1, 5), 17.0), covariance[None])
    for bands in (slice(None), slice(1, 3)):
        some = np.full(values.shape, np.nan)
        some[:, bands] = values[:, bands]
        tails = one.log_tail(some, np.zeros(some.shape))
        # The systematic error widens the mixture, so that tails are a little rarer.
        assert 0.02 < np.mean(tails < np.log10(0.05)) <= 0.053
    fitted = ColourMixture.fit(values)
    assert np.mean(fitted.log_tail(values, np.zeros(values.shape)) < -3) < 0.003
    assert np.isnan(
        one.log_tail(np.array([[np.nan, 17, np.nan, np.nan, np.nan]]), np.zeros((1, 5)))
    ).all()
    with pytest.raises(ValueError, match="199 galaxies have all bands"):
        ColourMixture.fit(values[:199])


def test_stellar_locus():
    # g, r, i of a G dwarf (g-r 0.45, r-i 0.16) and an M dwarf (1.4, 1.0); an elliptical at z = 0.1
    # (0.95, 0.4)
    magnitudes = np.array(
        [[0, 17.45, 17, 16.84, 0], [0, 18.4, 17, 16.0, 0], [0, 17.95, 17, 16.6, 0]]
    )
    assert near_stellar_locus(magnitudes)[:2].all()
    assert not near_stellar_locus(np.array([[0, np.nan, 17, 16, 16.0]]))[0]


def test_statistics_of_a_newer_version_are_refused(statistics):
    seen = observe(None, batch(*catalogue(2)[:2]))
    with pytest.raises(ValueError, match="layout 7"):
        outlier_flags({"layout": 7}, seen)
    assert outlier_flags({}, seen).texts == ("", "")


# ---- training ranges


def test_magnitudes_and_colours_outside_the_training_range():
    flux = np.full((3, 5), 100.0)
    flux[1, 2] = 1.0
    flux[2] = np.nan
    limits = {"r_magnitude": (14.0, 18.0), "g-r": (-0.5, 1.5)}
    log = input_range_flags(limits, batch(flux, 0.1 * flux))
    assert log.codes.tolist() == [0, Flag.INPUT_RANGE, 0]
    assert log.texts[1] == (
        "r magnitude 22.50 is outside the training range, 14.00 to 18.00; "
        "colour g-r -5.00 is outside the training range, -0.50 to 1.50"
    )


def test_posterior_medians_outside_the_training_range():
    theta = np.zeros((3, 4, 9))
    theta[1, :, 0] = 0.5
    theta[2] = np.nan
    log = posterior_range_flags({"redshift": (0.0, 0.3)}, theta)
    assert log.codes.tolist() == [0, Flag.POSTERIOR_RANGE, 0]
    assert log.texts[1] == "median redshift 0.500 is outside the training range, 0.000 to 0.300"


# ---- in the estimator


def test_predict_flags_outliers(statistics):
    estimator = make_estimator(novelty=statistics)
    posterior = estimator.predict(make_cutouts(), make_photometry(), n_draws=5, seed=0)
    plain = make_estimator().predict(make_cutouts(), make_photometry(), n_draws=5, seed=0)
    assert all("magnitudes and colours are outside" in flag for flag in posterior.flags)
    assert np.all(posterior.flag_codes & Flag.COLOURS)
    assert np.array_equal(posterior["sfr"].draws, plain["sfr"].draws)


# ---- the predictive check


def emulated(n=3000, seed=3):
    flux, error, age = catalogue(n, seed)
    rng = np.random.default_rng(seed)
    theta = rng.normal(0, 1, (n, 9))
    theta[:, 0] = age
    theta[:, 1] = -2.5 * np.log10(flux[:, 2])
    return theta, 22.5 - 2.5 * np.log10(flux), np.full((n, 5), 0.02)


def test_p_values_are_uniform_for_simulated_galaxies_and_small_for_others():
    theta, magnitudes, errors = emulated()
    emulator = PhotometryEmulator.fit(theta, magnitudes, errors)
    emulator = PhotometryEmulator.from_dict(json.loads(json.dumps(emulator.to_dict())))
    theta, magnitudes, errors = emulated(800, seed=8)
    draws = np.repeat(theta[:, None], 3, axis=1)
    p_values = emulator.p_values(draws, magnitudes, errors)
    # At the true quantities they are uniform.
    assert np.abs(np.quantile(p_values, [0.1, 0.5, 0.9]) - [0.1, 0.5, 0.9]).max() < 0.05
    wrong = magnitudes + [0, 0.5, 0, 0, 0]
    assert np.mean(emulator.p_values(draws, wrong, errors) < 0.01) > 0.95
    only = np.where(np.array([b in "gri" for b in BANDS]), wrong, np.nan)
    assert np.mean(emulator.p_values(draws, only, errors) < 0.01) > 0.9
    only[0, 1:] = np.nan
    draws[1] = np.nan
    assert np.isnan(emulator.p_values(draws, only, errors)[:2]).all()
    with pytest.raises(ValueError, match="999 galaxies are complete"):
        PhotometryEmulator.fit(*(a[:999] for a in emulated()))


def test_predict_adds_a_column_of_p_values(tmp_path):
    theta, magnitudes, errors = emulated()
    card = {"predictive": PhotometryEmulator.fit(theta, magnitudes, errors).to_dict()}
    posterior = make_estimator(**card).predict(photometry=make_photometry(), n_draws=20, seed=0)
    column = posterior.to_table()["predictive_p_value"]
    assert column.shape == (5,) and np.all((column >= 0) & (column <= 1))
    posterior.write(tmp_path / "out.ecsv", draws=True)
    again = Posterior.read(tmp_path / "out.ecsv").to_table()
    assert np.allclose(again["predictive_p_value"], column)
    flux = {f"flux_{band}": np.array([np.nan, 50]) * u.nmgy for band in BANDS}
    errors = {f"flux_err_{band}": np.ones(2) * u.nmgy for band in BANDS}
    blank = make_estimator(**card).predict(
        photometry=flux | errors | {"ebv": 0.0 * u.mag}, n_draws=20, seed=0, on_error="flag"
    )
    assert np.isnan(blank.to_table()["predictive_p_value"]).tolist() == [True, False]
