"""Redshifts of spectra with known shift, with and without the stellar grid."""

import numpy as np
import pytest
from measure_cases import WAVELENGTH, emission, gaussian, spectrum

from astrogenspec import Flag
from astrogenspec.measure import cross_correlation_redshift, measure_redshift
from astrogenspec.measure import redshift as module

LINES = {
    "oii3726": 85.0, "oii3729": 120.0, "hbeta": 100.0, "oiii4959": 17.0, "oiii5007": 50.0,
    "nii6548": 40.0, "halpha": 310.0, "nii6584": 120.0, "sii6717": 50.0, "sii6731": 40.0,
}  # fmt: skip
ABSORBED = {
    3934.8: 80.0, 3969.6: 80.0, 4305.6: 50.0, 4862.7: 20.0,
    5176.6: 50.0, 5270.0: 30.0, 5895.6: 30.0,
}  # fmt: skip


@pytest.fixture
def without_grid(monkeypatch):
    monkeypatch.setattr(module, "templates_available", lambda: False)
    module._templates.cache_clear()
    yield
    module._templates.cache_clear()


def noisy(flux, error, seed):
    return spectrum(flux + error * np.random.default_rng(seed).normal(size=flux.shape), error=error)


@pytest.mark.usefixtures("without_grid")
@pytest.mark.parametrize("z", [0.0123, 0.0871, 0.31])
def test_redshift_of_emission_lines(z):
    row = measure_redshift(noisy(10 + emission(LINES, z, 110.0), 0.7, 1))[0]
    assert row["redshift"] == pytest.approx(z, abs=4 * row["redshift_err"] + 2e-5)
    assert row["redshift_err"] < 1e-4 and row["r"] > 5
    assert row["flags"] == 0 and row["flag"] == ""


@pytest.mark.usefixtures("without_grid")
def test_redshift_of_absorption_lines():
    z = 0.113
    flux = 10 - sum(gaussian(w * (1 + z), f, 250.0) for w, f in ABSORBED.items())
    row = measure_redshift(noisy(flux, 0.5, 2))[0]
    assert row["redshift"] == pytest.approx(z, abs=3e-4) and row["template"] == "absorption_lines"


@pytest.mark.usefixtures("without_grid")
def test_errors_agree_with_repeated_noise():
    pulls = []
    for seed in range(15):
        row = measure_redshift(noisy(10 + emission(LINES, 0.05, 110.0), 2.0, seed))[0]
        # The error includes 5 km/s for templates, which fit these lines exactly.
        noise = np.sqrt(row["redshift_err"] ** 2 - (1.05 * 5.0 / 299792.458) ** 2)
        pulls.append((row["redshift"] - 0.05) / noise)
    assert 0.5 < np.std(pulls) < 1.6


@pytest.mark.usefixtures("without_grid")
def test_pure_noise_is_flagged():
    row = measure_redshift(noisy(np.full(len(WAVELENGTH), 10.0), 2.0, 3))[0]
    assert row["flag"] and row["flags"] & (Flag.WEAK_CORRELATION | Flag.AMBIGUOUS_REDSHIFT)


@pytest.mark.usefixtures("without_grid")
def test_range_stack_and_function():
    flux = np.stack([10 + emission(LINES, z, 110.0) for z in (0.02, 0.07)])
    table = measure_redshift(spectrum(flux, redshift=0.5))
    assert np.allclose(table["redshift"], [0.02, 0.07], atol=1e-4)
    assert cross_correlation_redshift(spectrum(flux[0])) == pytest.approx(0.02, abs=1e-4)
    inside = measure_redshift(spectrum(flux[1]), redshift_range=(0.05, 0.1))[0]
    assert inside["redshift"] == pytest.approx(0.07, abs=1e-4)
    wrong = measure_redshift(spectrum(flux[1]), redshift_range=(0.2, 0.3))[0]
    assert 0.19 < wrong["redshift"] < 0.31 and wrong["flags"]


@pytest.mark.parametrize("given", [(0.3, 0.1), 0.2, (0, 9), (np.nan, 1)])
def test_invalid_ranges_raise(given):
    with pytest.raises(ValueError, match="the minimum and the maximum"):
        measure_redshift(spectrum(np.ones(3841)), redshift_range=given)


def bright(seed=1):
    noise = np.random.default_rng(seed).normal(0, 0.5, len(WAVELENGTH))
    return 20 * (WAVELENGTH / 6000) ** -0.5 + noise + emission(LINES, 0.05, 150.0)


HOT = np.random.default_rng(4).integers(100, 3700, 12)


@pytest.mark.usefixtures("without_grid")
@pytest.mark.parametrize("error", [None, 0.5])
@pytest.mark.parametrize(
    ("pixels", "value"),
    [
        ([1200], 220.0),
        ([1200], 1e4),
        ([1200], 1e10),
        ([1200, 1201], 300.0),
        ([900, 901, 902, 903, 2500], 300.0),
        (HOT, 200.0),
        (HOT, -300.0),
        ([1200, 1700, 2900], 0.0),
        (range(400), 0.0),
        ([*range(400), *range(3441, 3841)], 0.0),
        (range(2500, 2600), 0.0),
    ],
)
def test_bad_pixels_do_not_change_the_redshift(pixels, value, error):
    flux = bright()
    flux[list(pixels)] = value
    row = measure_redshift(spectrum(flux, error=error))[0]
    assert row["redshift"] == pytest.approx(0.05, abs=1e-4) and row["redshift_err"] < 1e-4
    assert row["flags"] in (0, Flag.BAD_PIXELS)


@pytest.mark.usefixtures("without_grid")
def test_excluded_pixels_are_flagged_if_they_matter():
    flux = bright()
    assert measure_redshift(spectrum(flux, error=0.5))["flags"][0] == 0
    flux[1200] = 1e4
    row = measure_redshift(spectrum(flux, error=0.5))[0]
    assert row["flags"] == Flag.BAD_PIXELS
    assert row["flag"] == "depends on bad pixels, which are excluded"


@pytest.mark.usefixtures("without_grid")
@pytest.mark.parametrize("profile", [[60, 200, 100, 20], [600, 2000, 1000, 200], [300] * 12])
def test_dependence_on_one_feature_is_flagged(profile):
    flux = bright()
    flux[1300 : 1300 + len(profile)] += profile
    row = measure_redshift(spectrum(flux, error=0.5))[0]
    right = abs(row["redshift"] - 0.05) < 1e-4
    assert right or row["flags"] & Flag.AMBIGUOUS_REDSHIFT


@pytest.mark.usefixtures("without_grid")
def test_spectra_wider_than_the_templates():
    wavelength = 10 ** (3.2 + 1e-4 * np.arange(13000))
    noise = np.random.default_rng(1).normal(0, 0.5, len(wavelength))
    flux = 20 + noise + emission(LINES, 0.05, 150.0, wavelength=wavelength)
    wide = spectrum(flux, error=0.5, wavelength=wavelength)
    assert measure_redshift(wide)["redshift"][0] == pytest.approx(0.05, abs=1e-4)
    row = measure_redshift(spectrum(noise + 20, error=0.5, wavelength=100 * wavelength))[0]
    assert np.isnan(row["redshift"]) and row["flags"] == Flag.NOT_COVERED


@pytest.mark.usefixtures("without_grid")
def test_masked_spectrum_is_flagged():
    mask = np.ones(3841, dtype=bool)
    mask[:50] = False
    row = measure_redshift(spectrum(np.ones(3841), mask=mask))[0]
    assert np.isnan(row["redshift"]) and row["flag"] == "too few pixels"
    assert row["flags"] == Flag.NOT_COVERED


@pytest.mark.usefixtures("without_grid")
@pytest.mark.parametrize("error", [None, 0.5])
@pytest.mark.parametrize("level", [0.0, 1.0, 1e-300])
def test_spectra_without_features_are_flagged(level, error):
    flux = np.full(len(WAVELENGTH), level)
    row = measure_redshift(spectrum(flux, error=error))[0]
    assert np.isnan(row["redshift"]) and row["flags"] in (Flag.NOT_COVERED, Flag.WEAK_CORRELATION)


@pytest.mark.parametrize("pixel", [44, 47])
def test_a_few_pixels_that_the_templates_fit_exactly(pixel):
    rng = np.random.default_rng(0)
    rng.uniform(size=50)
    flux = rng.normal(20, 1, 50)
    flux[pixel] = 0.0
    wavelength = np.linspace(9000, 3800, 50)
    row = measure_redshift(spectrum(flux, wavelength=wavelength))[0]
    assert np.isfinite(row["redshift"]) and row["redshift_err"] > 0 and row["flags"]
