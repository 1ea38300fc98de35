"""Spikes in measurements of lines and indices: excluded and flagged, but not narrow real lines."""

import numpy as np
import pytest
from measure_cases import REST, WAVELENGTH, emission, gaussian, spectrum
from scipy.special import ndtr

from astrogenspec import Flag
from astrogenspec.measure import measure_indices, measure_lines
from astrogenspec.measure.bad_pixels import spikes

Z, PIXEL = 0.05, 69.03
FLUXES = {"hbeta": 100.0, "oiii5007": 300.0, "halpha": 310.0, "nii6584": 90.0}
LINES = tuple(FLUXES)
INDICES = ["Mgb", "Fe5270", "Hbeta", "Dn4000"]


def galaxy(sigma=1.5 * PIXEL, noise=0.3, seed=1):
    flux = 10 + emission({**FLUXES, "oiii4959": 300 / 2.98, "nii6548": 90 / 3.05}, Z, sigma)
    return flux + noise * np.random.default_rng(seed).normal(size=len(flux))


def hot(flux, wavelength, value, width=1):
    changed = flux.copy()
    k = np.searchsorted(WAVELENGTH, wavelength)
    changed[k : k + width] = value
    return changed


def lines(flux, error=0.3):
    return measure_lines(spectrum(flux, Z, error), LINES, stellar_absorption=False)


@pytest.mark.parametrize(("value", "width"), [(100.0, 1), (1e5, 2), (-500.0, 2), (0.0, 1)])
def test_hot_pixels_beside_a_line_are_excluded_and_flagged(value, width):
    clean = lines(galaxy())
    at = (REST["halpha"] * (1 + Z)) * (1 - 700 / 299792.458)
    table = lines(hot(galaxy(), at, value, width))
    assert table["flux"].value == pytest.approx(clean["flux"].value, rel=0.03)
    assert table["flags"].tolist() == [0, 0, Flag.BAD_PIXELS, 0]
    assert table["flag"][2] == "bad pixels nearby are excluded"
    assert clean["flags"].tolist() == [0, 0, 0, 0]


def test_a_hot_pixel_in_a_line_is_flagged_and_spares_the_other_lines():
    clean = lines(galaxy())
    table = lines(hot(galaxy(), REST["hbeta"] * (1 + Z), 3000.0))
    assert table["flags"][0] & Flag.BAD_PIXELS
    others = slice(1, None)
    assert table["flux"].value[others] == pytest.approx(clean["flux"].value[others], rel=0.03)
    assert np.isnan(table["flux"][0]) or table["flux"].value[0] == pytest.approx(100, rel=0.15)


@pytest.mark.parametrize("name", INDICES)
def test_hot_pixels_in_an_index_are_excluded_and_flagged(name):
    flux = galaxy() - gaussian(5175 * (1 + Z), 30, 400)
    clean = measure_indices(spectrum(flux, Z, 0.3), INDICES)
    at = {"Mgb": 5175, "Fe5270": 5270, "Hbeta": 4835, "Dn4000": 4050}[name] * (1 + Z)
    for value in (100.0, -100.0, 1e5):
        table = measure_indices(spectrum(hot(flux, at, value), Z, 0.3), INDICES)
        assert table["flags"][0] == Flag.BAD_PIXELS
        assert table["flag"][0] == f"{name}: partly masked"
        error = clean[f"{name}_err"].value[0]
        assert abs(table[name].value[0] - clean[name].value[0]) < 3 * error
    assert clean["flags"][0] == 0


@pytest.mark.parametrize("sigma", [1.0, 1.5, 3.0])
@pytest.mark.parametrize("strength", [0.3, 1.0, 30.0, 3000.0])
@pytest.mark.parametrize("noise", [0.0, 0.02, 0.3])
def test_narrow_lines_are_not_spikes(sigma, strength, noise):
    rng = np.random.default_rng(3)
    pixels = np.arange(3000)
    flux = 10 + noise * rng.normal(size=3000)
    for centre in np.arange(100, 2900, 61.37):
        edges = (np.arange(3001) - 0.5 - centre) / sigma
        flux += 10 * strength * np.diff(ndtr(edges)) * rng.choice([0.5, 1, 2])
    good = np.ones(3000, bool)
    for variance in (np.zeros(3000), np.full(3000, noise**2)):
        assert not spikes(flux, variance, good).any()
    at = int(pixels[(np.abs((pixels - 100) % 61.37 - 30) < 1)][20])
    flux[at] += 300
    assert spikes(flux, np.zeros(3000), good)[at]


@pytest.mark.parametrize(("sigma", "noise"), [(1.0, 0.3), (1.5, 0.0), (1.5, 0.3), (2.5, 0.0)])
def test_narrow_lines_of_a_galaxy_are_not_flagged(sigma, noise):
    flux = galaxy(sigma * PIXEL, noise)
    assert not (lines(flux)["flags"] & Flag.BAD_PIXELS).any()
    assert measure_indices(spectrum(flux, Z, 0.3), INDICES)["flags"][0] == 0


def test_a_valley_between_lines_is_not_a_spike():
    for distance in np.arange(4.0, 12.0, 0.5):
        pixels = np.arange(400)
        flux = 10.0 + 1e-6 * pixels
        for centre in (200.0, 200.0 + distance, 200.0 + 2.1 * distance):
            flux += 50 * np.exp(-0.5 * ((pixels - centre) / 1.5) ** 2)
        assert not spikes(flux, np.zeros(400), np.ones(400, bool)).any()


@pytest.mark.parametrize("noisy", [False, True])
def test_the_ends_of_a_noisy_spectrum_are_not_spikes(noisy):
    flux = 10 + np.random.default_rng(4).normal(size=1500)
    variance = np.full(1500, float(noisy))
    assert not spikes(flux, variance, np.ones(1500, bool)).any()
