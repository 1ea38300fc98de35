"""Tests of the linear inference of spectral energy distributions."""

import math

import numpy as np
import pytest
import speclite.filters
import torch

from astrogenspec.inputs.feature_layout import SED_SUMMARY
from astrogenspec.inputs.sed_features import (
    LEVEL,
    FilterResponses,
    SEDComponents,
    filter_curve,
)
from astrogenspec.surveys import get_filter
from astrogenspec.wavelengths import SED_GRID

UGRIZ = [get_filter(f"sdss2010-{band}") for band in "ugriz"]
JHK = [get_filter(f"twomass-{band}") for band in ("J", "H", "Ks")]
MAG = 2.5 / math.log(10)


def population(n=2000, seed=0):
    """Power laws with a break and a line, relative to their flux at 6000 A."""
    rng = np.random.default_rng(seed)
    x = SED_GRID.log_wavelength - math.log10(6000)
    slope, step = rng.normal(0.8, 0.6, (n, 1)), rng.normal(0.3, 0.15, (n, 1))
    at = rng.uniform(-0.15, 0.0, (n, 1))
    log = slope * x + step / (1 + np.exp(-(x - at) / 0.01))
    line = rng.exponential(0.5, (n, 1)) * np.exp(-0.5 * ((x - 0.05 - at) / 0.002) ** 2)
    sed = 10**log * (1 + line)
    return torch.tensor(sed / sed[:, [240]], dtype=torch.float32)


@pytest.fixture(scope="module")
def components():
    found = SEDComponents(8)
    found.fit(population())
    return found


def observed(components, filters, error=0.03, n=200, seed=1):
    """Fluxes of galaxies of the population, with relative errors."""
    curves = torch.tensor(np.stack([filter_curve(band) for band in filters]), dtype=torch.float32)
    true = 100 * population(n, seed) @ curves.T
    generator = torch.Generator().manual_seed(seed)
    sigma = error * true
    flux = true + sigma * torch.randn(true.shape, generator=generator)
    return flux, sigma, components.responses_of(filters)


@pytest.mark.parametrize("name", ["sdss2010-u", "decamDR1-z", "Euclid-H", "twomass-Ks"])
def test_flux_through_a_filter_is_its_ab_flux(name):
    sed = population(5)
    curve = filter_curve(get_filter(name))
    ours = sed.double().numpy() @ curve
    wavelength = np.geomspace(2905, 25_000, 20_000)
    maggies = []
    for one in sed.numpy():
        f_nu = np.interp(np.log10(wavelength), SED_GRID.log_wavelength, one)
        f_lambda = f_nu * 3.631e-20 * 2.99792458e18 / wavelength**2
        loaded = speclite.filters.load_filter(name)
        maggies.append(loaded.get_ab_maggies(f_lambda, wavelength))
    np.testing.assert_allclose(ours, maggies, rtol=3e-3)


def test_filters_beyond_the_grid_are_refused():
    with pytest.raises(ValueError, match="wise2010-W1 reaches beyond the modelled spectra"):
        filter_curve(get_filter("wise2010-W1"))


def test_prior_of_fluxes_is_that_of_the_population(components):
    """The covariance of the bands relative to the mean SED follows from the components."""
    responses = components.responses_of(UGRIZ)
    curves = torch.tensor(np.stack([filter_curve(band) for band in UGRIZ])).float()
    ratio = population(4000, seed=3) @ curves.T / responses.template - 1
    sample = torch.cov(ratio.T)
    matrix = responses.matrix[:, 1:]
    expected = matrix @ matrix.T
    assert (expected - sample).abs().max() < 0.05 * sample.diagonal().max()


def test_inference_is_the_gaussian_posterior(components):
    """Compare with the formula in the space of the bands, in double precision."""
    flux, error, responses = observed(components, UGRIZ, n=4)
    calibration = torch.tensor([0.02, 0.01, 0.01, 0.01, 0.02])
    seen = components.infer(flux, error, responses, calibration)
    matrix, template = responses.matrix.double().numpy(), responses.template.double().numpy()
    for k in range(4):
        amplitude = float(seen.amplitude[k])
        ratio = flux[k].double().numpy() / template / amplitude
        sigma = error[k].double().numpy() / template / amplitude
        noise = np.diag(sigma**2 + (calibration.numpy() / MAG * ratio) ** 2)
        gain = matrix.T @ np.linalg.inv(noise + matrix @ matrix.T)
        np.testing.assert_allclose(seen.mean[k], gain @ (ratio - 1), atol=2e-4)
        covariance = np.eye(len(gain)) - gain @ matrix
        np.testing.assert_allclose(seen.covariance[k], covariance, atol=2e-4)


def test_coefficients_of_the_population_are_within_their_errors(components):
    """Pulls of fluxes predicted in a band that was not observed."""
    flux, error, responses = observed(components, UGRIZ, n=2000)
    band = UGRIZ.index(next(item for item in UGRIZ if item.name.endswith("i")))
    hidden = error.clone()
    hidden[:, band] = torch.inf
    seen = components.infer(flux, hidden, responses, torch.full((5,), 0.005))
    predicted, sigma = components.predict(seen, responses)
    pull = (flux - predicted)[:, band] / torch.hypot(sigma, error)[:, band]
    assert 0.6 < pull.std() < 1.4
    assert abs(pull.mean()) < 0.2


def test_missing_bands_have_no_effect(components):
    flux, error, _ = observed(components, UGRIZ)
    calibration = torch.full((5,), 0.01)
    few = [0, 1, 2]
    reference = components.features(
        components.infer(
            flux[:, few],
            error[:, few],
            components.responses_of([UGRIZ[k] for k in few]),
            calibration[few],
        )
    )
    every = components.responses_of(UGRIZ)
    for value, sigma in ((math.nan, 1.0), (0.0, math.inf), (1.0, math.nan), (0.0, -1.0)):
        spoilt, other = flux.clone(), error.clone()
        spoilt[:, 3:], other[:, 3:] = value, sigma
        found = components.features(components.infer(spoilt, other, every, calibration))
        torch.testing.assert_close(found, reference, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("sigma", [1e6, 1e10, 9.9e30])
def test_large_errors_tell_nothing(components, sigma):
    """A band written as flux 0 with a huge error counts as missing, but for the number of bands."""
    flux, error, responses = observed(components, UGRIZ)
    calibration = torch.full((5,), 0.01)
    missing = error.clone()
    missing[:, 1] = torch.inf
    reference = components.infer(flux, missing, responses, calibration)
    flux[:, 1], error[:, 1] = 0.0, sigma
    found = components.infer(flux, error, responses, calibration)
    for name in ("mean", "covariance", "amplitude", "misfit"):
        a, b = getattr(found, name), getattr(reference, name)
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


def test_order_of_bands_does_not_matter(components):
    flux, error, responses = observed(components, UGRIZ)
    calibration = torch.tensor([0.05, 0.01, 0.01, 0.02, 0.03])
    first = components.features(components.infer(flux, error, responses, calibration))
    order = [3, 0, 4, 2, 1]
    second = components.features(
        components.infer(flux[:, order], error[:, order], responses[order], calibration[order])
    )
    torch.testing.assert_close(first, second, atol=1e-4, rtol=1e-4)


def test_only_the_magnitude_depends_on_brightness(components):
    flux, error, responses = observed(components, UGRIZ)
    calibration = torch.full((5,), 0.01)
    first = components.features(components.infer(flux, error, responses, calibration))
    second = components.features(components.infer(10 * flux, 10 * error, responses, calibration))
    k = SED_SUMMARY.index("magnitude")
    torch.testing.assert_close(second[:, k], first[:, k] - 2.5 / 1.5, atol=1e-4, rtol=1e-4)
    others = [j for j in range(first.shape[1]) if j != k]
    torch.testing.assert_close(second[:, others], first[:, others], atol=1e-4, rtol=1e-4)


def test_undetected_galaxies_are_limits(components):
    """The amplitude of a galaxy without a detection is its error."""
    responses = components.responses_of(UGRIZ)
    error = torch.full((1, 5), 2.0)
    seen = components.infer(torch.full((1, 5), -1.0), error, responses, torch.full((5,), 0.01))
    assert seen.amplitude == seen.amplitude_error
    assert torch.isfinite(components.features(seen)).all()
    # The prior remains for colours.
    assert seen.covariance[0].diagonal()[1:].min() > 0.5


def test_other_apertures_of_a_second_survey(components):
    filters = [*UGRIZ, *JHK]
    flux, error, responses = observed(components, filters)
    aperture = torch.zeros(8, 1)
    aperture[5:] = 0.5
    calibration = torch.full((8,), 0.01)
    fainter = flux.clone()
    fainter[:, 5:] *= 0.8
    fainter_error = error.clone()
    fainter_error[:, 5:] *= 0.8

    def shift(spread):
        one = components.infer(flux, error, responses, calibration, spread)
        other = components.infer(fainter, fainter_error, responses, calibration, spread)
        # The level holds the difference in amplitude.
        return (one.mean - other.mean)[:, 1:].abs().median()

    assert shift(aperture) < 0.3 * shift(None)


def test_galaxies_without_photometry_have_no_features(components):
    flux, error, responses = observed(components, UGRIZ, n=3)
    flux[1] = torch.nan
    seen = components.infer(flux, error, responses, torch.full((5,), 0.01))
    features = components.features(seen, torch.ones(3, dtype=torch.bool))
    assert (features[1] == 0).all()
    assert features[[0, 2]].isfinite().all()
    assert features.dtype == torch.float32
    predicted, sigma = components.predict(seen, responses)
    assert predicted[1].isnan().all() and sigma[1].isnan().all()


def test_level_is_the_first_component(components):
    responses = components.responses_of(UGRIZ)
    assert isinstance(responses, FilterResponses)
    np.testing.assert_allclose(responses.matrix[:, 0], LEVEL)
