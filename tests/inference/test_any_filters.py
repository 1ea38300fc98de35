"""Networks that read photometry in any filters, from a table to a posterior."""

from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.nddata import NDData, StdDevUncertainty
from astropy.table import QTable
from estimator_cases import make_estimator, make_stack
from network_cases import make_network

from astrogenspec import PropertyEstimator, load_card
from astrogenspec.flags import Flag
from astrogenspec.inference.outliers.detector import sed_limit
from astrogenspec.inference.outliers.seds import sed_log_tail
from astrogenspec.inputs.cutouts import CutoutBatch, coerce_cutouts
from astrogenspec.inputs.photometry import PhotometryBatch, coerce_photometry
from astrogenspec.inputs.sed_features import infer_photometry
from astrogenspec.inputs.survey_images import as_sdss_images, colour_terms
from astrogenspec.inputs.virtual_photometry import in_sdss_bands, virtual_photometry
from astrogenspec.simulate import Simulator
from astrogenspec.simulate.dataset import TRAINING_SAMPLES, sed_columns
from astrogenspec.simulate.photometry import observe_in
from astrogenspec.surveys import SDSS, get_filter, get_survey
from astrogenspec.warnings import AstroGenSpecWarning
from astrogenspec.wavelengths import SED_GRID

N = 6


def seds(n, seed=0):
    """Spectra of 50 nmgy at 6200 A: power laws with a break."""
    rng = np.random.default_rng(seed)
    x = SED_GRID.log_wavelength - np.log10(6200)
    log = rng.normal(0.8, 0.6, (n, 1)) * x + rng.normal(0.3, 0.1, (n, 1)) / (1 + np.exp(-x / 0.02))
    return torch.tensor(50 * 10**log, dtype=torch.float32)


@pytest.fixture(scope="module")
def estimator():
    network = make_network(sed_components=8, n_bins=[4] * 9)
    population = seds(500)
    network.components.fit(population / population[:, [240]])
    torch.manual_seed(5)
    for factor in network.chain.factors:
        torch.nn.init.normal_(factor.out.weight, std=0.5)
    return PropertyEstimator(network, card={"name": "any filters"})


def fluxes(names, n=N, seed=1):
    """Fluxes (nmgy) of n galaxies through filters."""
    curves = [
        SED_GRID.average_weights(get_filter(name).wavelength, get_filter(name).response)
        for name in names
    ]
    return seds(n, seed).double().numpy() @ np.array(curves).T


def table_of(survey, bands, n=N, error=0.02):
    """A table of a survey in the columns of this package."""
    names = [get_survey(survey).filter_names[band] for band in bands]
    table = QTable({"ebv": np.full(n, 0.0) * u.mag})
    for band, column in zip(bands, fluxes(names, n).T, strict=True):
        table[f"flux_{band}"] = column * u.nmgy
        table[f"flux_err_{band}"] = error * column * u.nmgy
    return table


@pytest.mark.parametrize(
    ("survey", "bands"),
    [("des", "griz"), ("lsst", "ugrizy"), ("panstarrs", "grizy"), ("sdss", "gri")],
)
def test_a_table_of_any_survey_gives_a_posterior(estimator, survey, bands):
    posterior = estimator.predict(photometry=table_of(survey, bands), survey=survey, seed=1)
    assert len(posterior) == N
    assert np.isfinite(posterior["redshift"].median().value).all()
    assert posterior["redshift"].median().value.std() > 0
    assert not (posterior.flag_codes & Flag.NO_DRAWS).any()
    if survey == "sdss":
        assert "filters" not in posterior.meta
    else:
        wanted = [get_survey(survey).filter_names[band] for band in bands]
        assert set(wanted) <= set(posterior.meta["filters"])


def test_order_of_bands_and_missing_columns_do_not_matter(estimator):
    table = table_of("lsst", "ugrizy")
    first = estimator.predict(photometry=table, survey="lsst", n_draws=50, seed=1)
    again = table[table.colnames[::-1]]
    second = estimator.predict(photometry=again, survey="lsst", n_draws=50, seed=1)
    np.testing.assert_allclose(
        first["redshift"].draws.value, second["redshift"].draws.value, rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("error", [1e10, 9.9e30])
def test_a_band_without_information_does_not_change_the_posterior(estimator, error):
    """Flux 0 with a huge error: as missing, whichever band it is, without a flag."""
    table = table_of("sdss", "ugriz")
    for band in "ugriz":
        missing, empty = table.copy(), table.copy()
        missing[f"flux_{band}"] = np.nan * u.nmgy
        empty[f"flux_{band}"] = 0 * u.nmgy
        empty[f"flux_err_{band}"] = error * u.nmgy
        first, second = (
            estimator.predict(photometry=one, survey="sdss", n_draws=200, seed=1)
            for one in (missing, empty)
        )
        shift = (first["redshift"].median().value - second["redshift"].median().value) / first[
            "redshift"
        ].std().value
        assert np.abs(shift).max() < 0.2


def test_densities_and_draws_agree(estimator):
    table = table_of("des", "griz", n=2)
    posterior = estimator.predict(photometry=table, survey="des", n_draws=4000, seed=2)
    grid = np.linspace(0.001, 0.45, 300)
    for k in range(2):
        density = np.exp(
            estimator.log_prob(
                {"redshift": grid[None] * u.one}, photometry=table[k : k + 1], survey="des"
            )
        )[0]
        cumulative = np.cumsum(density) / density.sum()
        median = np.interp(0.5, cumulative, grid)
        sigma = float(posterior["redshift"].std().value[k])
        assert abs(median - float(posterior["redshift"].median().value[k])) < 0.15 * sigma


def test_filters_beyond_the_spectra_are_refused_before_the_work(estimator):
    with pytest.raises(ValueError, match="wise2010-W1 reaches beyond the modelled spectra"):
        estimator.predict(
            photometry={"wise2010-W1": 17 * u.ABmag, "wise2010-W1_err": 0.1 * u.mag, "ebv": 0}
        )


def test_networks_of_sdss_refuse_other_filters():
    with pytest.raises(ValueError, match="read those of SDSS only; use weights for any filters"):
        make_estimator().predict(photometry=table_of("des", "griz"), survey="des")


def test_images_are_read_with_photometry_of_another_survey(estimator):
    table = table_of("des", "griz", n=5)
    posterior = estimator.predict(make_stack(), photometry=table, survey="des", seed=1)
    assert np.isfinite(posterior["redshift"].median().value).all()


def test_virtual_photometry_is_that_of_the_spectrum(estimator):
    components = estimator.network.components
    batch = coerce_photometry(table_of("lsst", "ugrizy", error=0.005), survey="lsst")
    filters = [SDSS.filters[band] for band in "ugriz"]
    virtual = virtual_photometry(batch, filters, components)
    true = fluxes([band.name for band in filters])
    pull = (virtual.flux - true) / np.hypot(virtual.error, 0.01 * true)
    assert np.abs(pull).max() < 3.5
    assert (np.abs(virtual.flux[:, 1:4] / true[:, 1:4] - 1) < 0.05).all()


def test_virtual_photometry_has_the_extinction_of_its_filters(estimator):
    table = table_of("des", "griz")
    table["ebv"] = 0.3 * u.mag
    batch = coerce_photometry(table, survey="des")
    sdss = in_sdss_bands(batch, estimator.network.components)
    np.testing.assert_allclose(
        sdss.extinction, 0.3 * np.array([[SDSS.extinction_coefficient[b] for b in "ugriz"]] * N)
    )
    plain = in_sdss_bands(batch, estimator.network.components).dereddened()[0]
    factor = 10 ** (0.4 * batch.extinction)
    blue = batch.flux[:, 0] * factor[:, 0]
    assert (np.abs(plain[:, 1] / blue - 1) < 0.2).all()


def test_bands_of_sdss_are_kept_beside_those_of_another_survey(estimator):
    """Measured ugriz stay as they are; virtual fluxes fill in what is missing."""
    table = QTable({"ebv": np.full(N, 0.02) * u.mag})
    names = ["sdss2010-g", "sdss2010-r", "twomass-J"]
    for name, column in zip(names, fluxes(names).T, strict=True):
        table[name] = column * u.nmgy
        table[f"{name}_err"] = 0.02 * column * u.nmgy
    batch = coerce_photometry(table)
    sdss = in_sdss_bands(batch, estimator.network.components)
    np.testing.assert_array_equal(sdss.flux[:, 1:3], batch.flux[:, :2])
    assert np.isfinite(sdss.flux).all()


def test_fine_tuning_on_another_survey(estimator):
    n = 60
    table = table_of("des", "griz", n=n)
    labels = QTable({"redshift": np.linspace(0.05, 0.25, n) * u.one})
    fitted = estimator.fit(
        photometry=table, labels=labels, survey="des", epochs=2, batch_size=20, seed=1
    )
    posterior = fitted.predict(photometry=table, survey="des", n_draws=20, seed=1)
    assert np.isfinite(posterior["redshift"].median().value).all()
    assert len(fitted.card["fits"]) == 1


def test_weights_keep_the_components(estimator, tmp_path):
    estimator.save(tmp_path / "any.safetensors")
    again = PropertyEstimator.from_pretrained(tmp_path / "any.safetensors")
    table = table_of("des", "griz")
    first, second = (
        each.predict(photometry=table, survey="des", n_draws=30, seed=3)
        for each in (estimator, again)
    )
    np.testing.assert_array_equal(first["redshift"].draws.value, second["redshift"].draws.value)


def test_unusual_spectra_are_flagged(estimator):
    """Galaxies of the population are not flagged; those with one odd band are."""
    components = estimator.network.components
    table = table_of("lsst", "ugrizy", n=400)
    batch = coerce_photometry(table, survey="lsst")
    limit = sed_limit(infer_photometry(components, batch))
    tails = sed_log_tail(components, batch)
    assert np.mean(tails < limit) <= 0.01
    table["flux_r"] *= 3
    odd = sed_log_tail(components, coerce_photometry(table, survey="lsst"))
    assert np.mean(odd < limit) > 0.95
    alone = coerce_photometry(table["flux_r", "flux_err_r", "ebv"], survey="lsst")
    assert np.isnan(sed_log_tail(components, alone)).all()


def test_photometry_of_another_survey_is_predicted(estimator):
    table = table_of("des", "griz", error=0.005)
    found = estimator.predict_photometry(table, "lsst", survey="des")
    names = [get_survey("lsst").filter_names[band] for band in "ugrizy"]
    assert [band.name for band in found.filters] == names
    ratio = found.flux / fluxes(names)
    assert (np.abs(ratio[:, 1:5] - 1) < 0.06).all()
    # The u band is not covered by DES.
    relative = found.error / found.flux
    assert (relative[:, 0] > 3 * relative[:, 2]).all()
    with pytest.raises(ValueError, match="these weights read photometry of SDSS only; use"):
        make_estimator().predict_photometry(table, survey="des")
    with pytest.raises(ValueError, match="survey is 'nowhere', but the known surveys are"):
        estimator.predict_photometry(table, "nowhere", survey="des")


def test_images_of_another_survey_are_those_that_sdss_would_have_taken(estimator):
    cutouts = coerce_cutouts(make_stack())
    des = as_sdss_images(cutouts, get_survey("des"))
    assert [band.name for band in des.filters[1:]] == [
        get_survey("des").filter_names[band] for band in "griz"
    ]
    # DES has no u band, and its images are sharper.
    assert not des.bands_present[:, 0].any() and des.bands_present[:, 1:].all()
    np.testing.assert_allclose(
        des.flux[:, 1:].sum((2, 3)), cutouts.flux[:, 1:].sum((2, 3)), rtol=0.1
    )
    assert as_sdss_images(cutouts, SDSS) is cutouts
    again = as_sdss_images(cutouts, get_survey("des"))
    np.testing.assert_array_equal(again.flux, des.flux)


def test_blurred_images_have_the_seeing_of_sdss():
    """A point source of the seeing of LSST in r, and deep noise."""
    y, x = np.indices((64, 64)) - 31.5
    pixel = 0.396
    own = get_survey("lsst").psf_fwhm["r"].to_value(u.arcsec) / 2.3548 / pixel
    wanted = SDSS.psf_fwhm["r"].to_value(u.arcsec) / 2.3548 / pixel
    flux = np.zeros((1, 5, 64, 64), np.float32)
    flux[0, 2] = 1e4 * np.exp(-0.5 * (x**2 + y**2) / own**2) / (2 * np.pi * own**2)
    deep = CutoutBatch(flux, np.full_like(flux, 1e8))
    found = as_sdss_images(deep, get_survey("lsst"))
    image = found.flux[0, 2].astype(float)
    near = np.hypot(x, y) < 8
    width = np.sqrt((image * x**2)[near].sum() / image[near].sum())
    assert width == pytest.approx(wanted, rel=0.05)
    noise = image[np.hypot(x, y) > 20]
    assert noise.std() == pytest.approx(SDSS.pixel_sigma["r"], rel=0.1)
    assert 1 / np.sqrt(found.ivar[0, 2, 0, 0]) == pytest.approx(SDSS.pixel_sigma["r"], rel=1e-3)


def test_all_bands_are_blurred_to_the_worst_seeing():
    """With a seeing of 2 arcsec in g, which SDSS has at 1.44, r is blurred by the same ratio."""
    y, x = np.indices((64, 64)) - 31.5
    pixel, fwhm = 0.396, 2.3548
    lsst = get_survey("lsst")
    survey = replace(lsst, name="blurred", psf_fwhm=lsst.psf_fwhm | {"g": 2.0 * u.arcsec})
    width = {band: survey.psf_fwhm[band].to_value(u.arcsec) / fwhm / pixel for band in "gr"}
    flux = np.zeros((2, 5, 64, 64), np.float32)
    for k, band in ((1, "g"), (2, "r")):
        flux[:, k] = 1e4 * np.exp(-0.5 * (x**2 + y**2) / width[band] ** 2)
    ivar = np.full_like(flux, 1e6)
    ivar[1, 1] = 0  # no image in g

    def widths(image):
        near = np.hypot(x, y) < 12
        return np.sqrt((image * x**2)[near].sum() / image[near].sum()) * pixel * fwhm

    with pytest.warns(AstroGenSpecWarning, match="seeing of 2 arcsec in g"):
        found = as_sdss_images(CutoutBatch(flux, ivar), survey)
    sdss = {band: SDSS.psf_fwhm[band].to_value(u.arcsec) for band in "gr"}
    assert widths(found.flux[0, 1]) == pytest.approx(2.0, rel=0.03)
    assert widths(found.flux[0, 2]) == pytest.approx(2.0 / sdss["g"] * sdss["r"], rel=0.03)
    # Without the image in g, r has the seeing of SDSS; galaxies do not depend on each other.
    assert widths(found.flux[1, 2]) == pytest.approx(sdss["r"], rel=0.03)


@pytest.mark.parametrize(
    ("width", "words"),
    [
        (np.nan, "has no psf_fwhm of g: images are taken to have the seeing of SDSS"),
        (2.0, "seeing of 2 arcsec in g of the survey mine is worse than that of the training"),
    ],
)
def test_unknown_and_bad_seeing(width, words):
    des = get_survey("des")
    survey = replace(des, name="mine", psf_fwhm=des.psf_fwhm | {"g": width * u.arcsec})
    cutouts = coerce_cutouts(make_stack())
    with pytest.warns(AstroGenSpecWarning, match=words):
        found = as_sdss_images(cutouts, survey)
    assert found.bands_present[:, 1].all()


def test_the_pixel_scale_of_the_survey_is_assumed_with_a_warning(estimator):
    """Images without a WCS: those of DES have pixels of 0.263 arcsec, not of 0.396."""
    rng = np.random.default_rng(0)
    y, x = np.indices((80, 80)) - 39.5
    flux = 5 * np.exp(-np.hypot(x, y) / 4) + rng.normal(0, 0.01, (1, 4, 80, 80))
    image = NDData(flux * u.nmgy, uncertainty=StdDevUncertainty(np.full(flux.shape, 0.01)))
    options = {"bands": "griz", "survey": "des", "ebv": 0.0, "seed": 1, "n_draws": 20}
    with pytest.warns(AstroGenSpecWarning, match="0.263 arcsec per pixel are assumed"):
        found = estimator.predict(image, **options)
    given = estimator.predict(image, pixel_scale=0.263 * u.arcsec, **options)
    np.testing.assert_array_equal(found["redshift"].draws, given["redshift"].draws)


def test_colour_terms_are_the_ratio_of_the_filters(estimator):
    components = estimator.network.components
    batch = coerce_photometry(table_of("des", "griz", error=0.002, n=5), survey="des")
    cutouts = as_sdss_images(coerce_cutouts(make_stack()), get_survey("des"))
    terms = colour_terms(cutouts, batch, components)
    names = [band.name for band in cutouts.filters]
    own, sdss = (fluxes(each, 5) for each in (names, [f"sdss2010-{band}" for band in "ugriz"]))
    np.testing.assert_allclose(terms[:, 1:4], -2.5 * np.log10(own / sdss)[:, 1:4], atol=0.02)
    assert (colour_terms(coerce_cutouts(make_stack()), batch, components) == 0).all()


def test_images_of_another_survey_need_weights_for_any_filters(estimator):
    table = table_of("des", "griz", n=5)
    assert len(estimator.predict(make_stack(), survey="des", ebv=0.0, seed=1)) == 5
    assert len(estimator.predict(make_stack(), photometry=table, survey="des", seed=1)) == 5
    with pytest.raises(ValueError, match="'des', but these weights read images of SDSS only"):
        make_estimator().predict(make_stack(), survey="des", ebv=0.0)


def test_colours_are_judged_by_the_limit_of_their_filters(estimator):
    """The limit for ugriz, with the errors of SDSS, does not apply to other filters."""
    novelty = dict(load_card("astrogenspec-properties-deep")["novelty"])
    novelty["colours"] = novelty["colours"] | {"least_log_tail": 1.0}
    novelty["least_sed_log_tail"] = -301.0
    strict = PropertyEstimator(estimator.network, card={"name": "strict", "novelty": novelty})
    for survey, bands, flagged in (("sdss", "ugriz", True), ("des", "griz", False)):
        table = table_of(survey, bands)
        codes = strict.predict(photometry=table, survey=survey, n_draws=5, seed=1).flag_codes
        assert ((codes & Flag.COLOURS) != 0).all() == flagged
        assert ((codes & Flag.COLOURS) != 0).any() == flagged


def test_predicted_images_in_the_filters_of_another_survey(estimator):
    stack = make_stack()
    found = estimator.predict_images(stack, "lsst", ebv=0.1)
    assert found.shape == (5, 6, 64, 64) and found.unit == u.nmgy
    assert np.isfinite(found.value).all()
    # A_g of LSST at E(B-V) = 0.1.
    clear = estimator.predict_images(stack, "lsst", ebv=0.0).value
    coefficient = get_survey("lsst").extinction_coefficient["g"]
    ratio = np.median(found.value[:, 1] / clear[:, 1])
    assert ratio == pytest.approx(10 ** (-0.04 * coefficient), rel=0.02)
    # With photometry, the spectrum of the galaxies is another.
    table = table_of("des", "griz", n=5)
    given = estimator.predict_images(stack, "lsst", photometry=table, bands="ugriz").value
    assert not np.allclose(given, clear, rtol=1e-3)
    with pytest.raises(ValueError, match="these weights know the filters of SDSS only; use"):
        make_estimator().predict_images(stack, "lsst")
    with pytest.raises(ValueError, match="survey is 'nowhere', but the known surveys are"):
        estimator.predict_images(stack, "nowhere")


def test_the_same_galaxies_in_three_surveys():
    """Posteriors of simulated galaxies from SDSS, Pan-STARRS and Legacy filters agree."""
    estimator = PropertyEstimator.from_pretrained("astrogenspec-properties-simulated")
    simulator = Simulator()
    galaxies = simulator.draw(150, 77, TRAINING_SAMPLES[1])
    columns = sed_columns(simulator, galaxies)
    generator = torch.Generator().manual_seed(4)
    seen = {}
    for name, bands in (("sdss", "ugriz"), ("panstarrs", "grizy"), ("legacy-dr10", "grz")):
        survey = get_survey(name)
        if name == "sdss":
            found = galaxies.observation
        else:
            found = observe_in(survey, columns["sed"], columns["sed_flux"], generator)
        rows = [survey.bands.index(band) for band in bands]
        n = len(galaxies)
        seen[name] = PhotometryBatch(
            *(a.double().numpy()[:, rows] for a in (found.flux, found.error)),
            np.zeros(n),
            np.zeros(n, bool),
            filters=tuple(survey.filters[band] for band in bands),
        )
    filters = [each for batch in seen.values() for each in batch.filters]
    flux, error = (
        np.concatenate([getattr(batch, key) for batch in seen.values()], axis=1)
        for key in ("flux", "error")
    )
    seen["all"] = PhotometryBatch(
        flux, error, np.zeros(n), np.zeros(n, bool), filters=tuple(filters)
    )
    options = {"n_draws": 300, "seed": 1, "calibrated": False, "progress": False}
    redshift = {
        name: estimator.predict(photometry=batch, **options)["redshift"].draws.value
        for name, batch in seen.items()
    }
    median = {name: np.median(z, axis=1) for name, z in redshift.items()}
    width = {
        name: np.diff(np.percentile(z, [16, 84], axis=1), axis=0)[0] / 2
        for name, z in redshift.items()
    }
    for one, two in (("sdss", "panstarrs"), ("sdss", "legacy-dr10"), ("panstarrs", "legacy-dr10")):
        pull = (median[one] - median[two]) / np.hypot(width[one], width[two])
        # Less than one: both have the population as the prior, and the galaxy in common.
        assert 0.2 < np.std(pull) < 1.1
        assert abs(np.mean(pull)) < 0.2
        assert np.mean(np.abs(pull) < 3) > 0.98
    for name in ("sdss", "panstarrs", "legacy-dr10"):
        assert np.median(width["all"] / width[name]) < 0.97
    true = galaxies.theta[:, 0].numpy()
    inside = np.abs(true - median["all"]) < width["all"]
    assert 0.55 < inside.mean() < 0.8
