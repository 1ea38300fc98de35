"""Spectra of galaxies that were observed in the filters of other surveys."""

import sys
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.nddata import NDData, StdDevUncertainty
from astropy.table import QTable
from estimator_cases import make_stack
from generation_cases import make_network
from spectrum_estimator_cases import posterior, predict

from astrogenspec.generation.completion import (
    _REDSHIFT,
    _REDSHIFT_SCATTER,
    _log_normal,
    complete_photometry,
    draw_completion,
    sed_components,
)
from astrogenspec.generation.estimator import SpectrumEstimator
from astrogenspec.generation.flux_calibration import TargetPhotometry
from astrogenspec.inputs.filter_sets import sdss_filters
from astrogenspec.inputs.photometry import coerce_photometry
from astrogenspec.inputs.sed_features import infer_photometry
from astrogenspec.inputs.virtual_photometry import virtual_photometry
from astrogenspec.surveys import get_survey
from astrogenspec.wavelengths import GENERATED

sys.path.append(str(Path(__file__).parents[2] / "recipes"))
from sed_redshifts import regress  # noqa: E402

N = 3


@pytest.fixture(scope="module")
def estimator():
    return SpectrumEstimator(make_network(), card={"name": "test"})


def table_of(survey, bands, n=N, error=0.02, ebv=0.0):
    """Galaxies of the colours of the mean SED, tilted, of r = 16 to 17."""
    components = sed_components()
    filters = [get_survey(survey).filters[band] for band in bands]
    responses = components.responses_of([*filters, sdss_filters()[2]])
    tilt = np.linspace(-1, 1, n)[:, None]
    means = [np.average(each.wavelength, weights=each.response) for each in filters]
    pivot = np.array([*means, 6200.0])
    flux = responses.template.numpy() * (pivot / 6200.0) ** (0.4 * tilt)
    flux = flux / flux[:, -1:] * 10 ** (0.4 * (22.5 - np.linspace(16, 17, n)))[:, None]
    table = QTable({"name": [f"galaxy {k}" for k in range(n)], "ebv": np.full(n, ebv) * u.mag})
    for k, band in enumerate(bands):
        table[f"flux_{band}"] = flux[:, k] * u.nmgy
        table[f"flux_err_{band}"] = error * flux[:, k] * u.nmgy
    return table


def draws(table, survey, k=4000, redshift=None):
    components = sed_components()
    batch = coerce_photometry(table, survey=survey)
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn((len(batch), k, components.n_components + 1), generator=generator)
    z = None if redshift is None else torch.full((len(batch), k), redshift)
    return batch, complete_photometry(batch, components, noise, z)[0]


def test_draws_have_the_mean_and_covariance_of_the_inferred_sed():
    batch, flux = draws(table_of("des", "griz", ebv=0.1), "des")
    components = sed_components()
    expected = virtual_photometry(batch, sdss_filters(), components)
    mean, error = expected.dereddened()
    # u is not observed: its error is large, and draws have a minimum.
    np.testing.assert_allclose(flux.mean(1)[:, 1:], mean[:, 1:], rtol=2e-3)
    np.testing.assert_allclose(flux.std(1)[:, 1:], error[:, 1:], rtol=0.05)
    inferred = infer_photometry(components, batch)
    matrix = components.responses_of(sdss_filters()).matrix
    covariance = (matrix @ inferred.covariance[0] @ matrix.T).numpy()
    scale = np.sqrt(np.diag(covariance))
    found = np.corrcoef(flux[0].T)
    expected = covariance / np.outer(scale, scale)
    np.testing.assert_allclose(found[1:, 1:], expected[1:, 1:], atol=0.06)


def test_draws_are_log_normal():
    generator = torch.Generator().manual_seed(1)
    mean, scatter = torch.tensor([2.0, 3.0]).double(), torch.tensor([0.02, 2.4]).double()
    deviation = scatter * torch.randn((400_000, 2), generator=generator).double()
    drawn, relative = _log_normal(mean, deviation, scatter, torch.zeros(2))
    np.testing.assert_allclose(drawn.mean(0), mean, rtol=5e-3)
    np.testing.assert_allclose(drawn.std(0), scatter, rtol=0.02)
    np.testing.assert_allclose(relative, scatter / mean)
    assert (drawn > 0).all()
    # A small scatter is nearly normal, and many normal draws of the other one are negative.
    np.testing.assert_allclose(drawn[:, 0], (mean + deviation)[:, 0], atol=4e-3)
    assert ((mean + deviation)[:, 1] < 0).double().mean() > 0.1
    assert _log_normal(-mean, deviation, scatter, torch.ones(2))[0].min() > 0


def test_bands_that_are_not_constrained_do_not_scale_the_spectra():
    """Their errors in the fit are those of their distribution, not of a measurement."""
    table = table_of("legacy-dr10", "grz", error=0.005)
    batch, components = coerce_photometry(table, survey="legacy-dr10"), sed_components()
    virtual = virtual_photometry(batch, sdss_filters(), components)
    target = TargetPhotometry.from_survey(*virtual.dereddened(), torch.zeros(5))
    generators = [torch.Generator().manual_seed(k) for k in range(N)]
    redshift = torch.full((N, 300), torch.nan)
    found = draw_completion(batch, target, components, generators, redshift, torch.zeros(5))
    relative = (found.target.error / found.target.flux).numpy()
    expected = virtual.error / virtual.flux
    for column in range(5):
        wanted = np.hypot(0.01, expected[:, column])
        np.testing.assert_allclose(relative[:, 0, column], wanted, rtol=0.02)
    assert (relative[..., 0] > 8 * relative[..., 2]).all()
    flux = found.target.flux.numpy()
    assert (flux > 0.1 * np.median(flux, axis=1)[:, None]).all()


def test_fluxes_in_the_filters_of_sdss_are_reproduced():
    table = table_of("sdss", "ugriz", error=0.01)
    batch, flux = draws(table, "sdss", k=500)
    # The calibration errors of the bands are those of SDSS, 0.005 to 0.024 mag.
    np.testing.assert_allclose(flux.mean(1), batch.flux, rtol=0.02)
    assert (flux.std(1) < 0.03 * batch.flux).all()


def test_fewer_bands_leave_more_open():
    _, many = draws(table_of("lsst", "ugrizy"), "lsst", k=500)
    _, few = draws(table_of("lsst", "gr"), "lsst", k=500)
    width = [np.std(np.log(values[..., 3] / values[..., 2]), axis=1) for values in (many, few)]
    assert (width[1] > 1.5 * width[0]).all()
    assert (few > 0).all()


def test_the_redshift_is_a_linear_function_of_the_sed():
    numbers, scatter = regress(1500)
    np.testing.assert_allclose(numbers, _REDSHIFT, atol=0.006)
    assert scatter == pytest.approx(_REDSHIFT_SCATTER, abs=0.001)


def test_fluxes_agree_with_the_redshift_of_the_draw():
    """The update is that of a Gaussian by a linear measurement."""
    table, components = table_of("panstarrs", "gr", error=0.05), sed_components()
    batch, flux = draws(table, "panstarrs", redshift=0.1)
    inferred = infer_photometry(components, batch)
    responses = components.responses_of(sdss_filters())
    matrix, slope = responses.matrix.double().numpy(), np.array(_REDSHIFT[1:])
    for row in range(N):
        centre, cov = (a[row].double().numpy() for a in (inferred.mean, inferred.covariance))
        gain = cov @ slope / (slope @ cov @ slope + _REDSHIFT_SCATTER**2)
        centre = centre + gain * (0.1 - _REDSHIFT[0] - slope @ centre)
        cov = cov - np.outer(gain, slope @ cov)
        scale = float(inferred.amplitude[row]) * responses.template.double().numpy()
        np.testing.assert_allclose(
            flux[row].mean(0)[1:], (scale * (1 + matrix @ centre))[1:], rtol=5e-3
        )
        error = scale * np.sqrt(np.diag(matrix @ cov @ matrix.T))
        np.testing.assert_allclose(flux[row].std(0)[1:], error[1:], rtol=0.05)
    # Without a redshift the fluxes are more uncertain, and so they are with an unknown one.
    _, free = draws(table, "panstarrs")
    _, unknown = draws(table, "panstarrs", redshift=np.nan)
    np.testing.assert_array_equal(free, unknown)
    assert (free[..., 3].std(1) > flux[..., 3].std(1)).all()


@pytest.mark.parametrize(
    ("survey", "bands"), [("legacy-dr10", "grz"), ("panstarrs", "grizy"), ("lsst", "ugrizy")]
)
def test_a_table_of_any_survey_gives_spectra(estimator, survey, bands):
    table, properties = table_of(survey, bands), posterior()
    spectra = predict(estimator, None, table, properties, survey=survey, aperture="total")
    assert spectra.flux.shape == (N, 4, GENERATED.size)
    assert spectra.names == ("galaxy 0", "galaxy 1", "galaxy 2")
    assert spectra.flags == ("", "", "")
    assert np.allclose(spectra.redshift, properties["redshift"].draws[:, :4].value, rtol=1e-6)
    # The spectra have the flux of those of the same galaxies in SDSS, except that bands which are
    # not observed have less weight: the shape of spectra of a network without training is wrong.
    seen = table_of("sdss", "ugriz")
    other = predict(estimator, None, seen, properties, aperture="total")
    ratio = (
        spectra.photometry(bands=["g", "r", "i"]) / other.photometry(bands=["g", "r", "i"])
    ).value
    np.testing.assert_allclose(np.median(ratio, axis=1), 1, atol=0.5)
    # The photometry of each draw is a draw: the draws of one redshift differ in colour.
    colour = spectra.photometry("sdss", ["g", "r"]).value
    assert (np.std(colour[..., 0] / colour[..., 1], axis=1) > 0).all()


def test_spectra_do_not_depend_on_batches_and_other_galaxies(estimator):
    table, names = table_of("des", "griz"), ["a", "b", "c"]
    whole = predict(estimator, None, table, posterior(), survey="des")
    parts = predict(estimator, None, table, posterior(), survey="des", batch_size=2)
    assert np.allclose(whole.flux.value, parts.flux.value, rtol=1e-4)
    keyed = predict(estimator, None, table, posterior(), survey="des", ids=names)
    last = predict(estimator, None, table[2:], posterior()[2:], survey="des", ids=names[2:])
    assert np.allclose(last.flux.value, keyed.flux.value[2:], rtol=1e-4)
    assert not np.allclose(whole.flux.value, keyed.flux.value, rtol=1e-3)


def test_candidates_are_selected_with_their_photometry(estimator):
    """The flux of a selected candidate is that of its own draw of the photometry."""
    table = table_of("des", "g", error=0.3)
    options = {"survey": "des", "aperture": "total", "n_candidates": 8}
    best = predict(estimator, None, table, posterior(), select="best", **options)
    every = predict(estimator, None, table, posterior(), survey="des", aperture="total", n_draws=8)
    assert (best.posterior_draw >= 0).all()
    of_best, of_all = (drawn.photometry("des", ["g"])[..., 0] for drawn in (best, every))
    for galaxy in range(N):
        ratio = of_best[galaxy] / of_all[galaxy, best.posterior_draw[galaxy]]
        # The flux noise of a draw is another one; that of the completed photometry is 0.3.
        assert np.abs(np.log(ratio.value)).max() < 0.1


def test_filters_are_given_by_name_and_missing_galaxies_are_flagged(estimator):
    table = table_of("panstarrs", "gri")
    named = QTable({"name": table["name"], "ebv": table["ebv"]})
    for band in "gri":
        named[f"flux_panstarrs-{band}"] = table[f"flux_{band}"]
        named[f"flux_err_panstarrs-{band}"] = table[f"flux_err_{band}"]
        named[f"flux_panstarrs-{band}"][1] = np.nan
    spectra = predict(estimator, None, named, posterior(), on_error="flag")
    assert spectra.usable.tolist() == [True, False, True]
    assert "neither" in spectra.flags[1] or "photometry" in spectra.flags[1]
    # Filters of no survey have the default calibration error.
    again = predict(estimator, None, table, posterior(), survey="panstarrs")
    np.testing.assert_allclose(spectra.flux.value[[0, 2]], again.flux.value[[0, 2]], rtol=0.1)


def test_images_of_another_survey(estimator):
    stack = make_stack()
    n = len(stack.data)
    images = NDData(
        stack.data[:, 1:], uncertainty=StdDevUncertainty(np.full_like(stack.data[:, 1:], 0.05)),
        unit=u.nmgy,
    )  # fmt: skip
    spectra = predict(
        estimator, images, None, posterior(n), survey="des", bands="griz", ebv=0.0,
        pixel_scale=0.396 * u.arcsec,
    )  # fmt: skip
    assert len(spectra) == n
    assert spectra.usable.any()
    assert np.isfinite(spectra.flux.value[spectra.usable]).all()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"survey": "nowhere"}, "survey is 'nowhere', but the known surveys are"),
        ({"survey": "kids"}, "the survey kids has no curves of its bands u, g, r, i"),
    ],
)
def test_unknown_surveys_are_one_sentence(estimator, keys, message):
    with pytest.raises(ValueError, match=message):
        predict(estimator, None, table_of("des", "griz"), posterior(), **keys)


def test_a_filter_outside_of_the_spectra_is_one_sentence(estimator):
    table = QTable({"flux_r": [10.0] * u.nmgy, "flux_err_r": [0.1] * u.nmgy, "ebv": [0.0] * u.mag})
    table["flux_wise2010-W1"] = [10.0] * u.nmgy
    table["flux_err_wise2010-W1"] = [0.1] * u.nmgy
    with pytest.raises(ValueError, match="wise2010-W1 reaches beyond the modelled spectra"):
        predict(estimator, None, table)


def test_synthetic_photometry_in_filters_of_several_surveys(estimator):
    spectra = predict(estimator, None, table_of("des", "griz"), posterior(), survey="des")
    found = spectra.photometry(filters=["panstarrs-r", get_survey("des").filters["g"]])
    np.testing.assert_allclose(found[..., 0], spectra.photometry("panstarrs", ["r"])[..., 0])
    np.testing.assert_allclose(found[..., 1], spectra.photometry("des", ["g"])[..., 0])
    with pytest.raises(ValueError, match="bands and filters were both given"):
        spectra.photometry(bands=["r"], filters=["panstarrs-r"])
    with pytest.raises(ValueError, match="filters is 'panstarrs-r'; give a list"):
        spectra.photometry(filters="panstarrs-r")
