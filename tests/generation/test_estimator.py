"""Tests of SpectrumEstimator with a small network of random weights."""

import warnings

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.table import QTable
from generation_cases import make_network
from spectrum_estimator_cases import QUICK, photometry, posterior, predict

from astrogenspec import Flag, Posterior, coerce_photometry
from astrogenspec.generation import pipeline
from astrogenspec.generation.estimator import SpectrumEstimator, SpectrumOptions
from astrogenspec.inputs.cutouts import CutoutBatch
from astrogenspec.results.spectra import SpectrumDraws
from astrogenspec.warnings import AstroGenSpecDeprecationWarning, AstroGenSpecWarning
from astrogenspec.wavelengths import GENERATED


@pytest.fixture(scope="module")
def estimator():
    return SpectrumEstimator(make_network(), card={"name": "test"})


def test_draws_have_units_redshifts_and_photometry_of_the_posterior(estimator):
    properties = posterior()
    spectra = predict(estimator, None, photometry(), properties)
    assert isinstance(spectra, SpectrumDraws)
    assert spectra.flux.shape == (3, 4, GENERATED.size)
    assert spectra.flux.unit == u.Unit(1e-17 * u.erg / u.s / u.cm**2 / u.AA)
    assert spectra.names == ("galaxy 0", "galaxy 1", "galaxy 2")
    assert spectra.flags == ("", "", "")
    assert np.allclose(spectra.redshift, properties["redshift"].draws[:, :4].value, rtol=1e-6)
    assert np.allclose(spectra.weights, 0.25)
    assert np.array_equal(spectra.posterior_draw, np.tile(np.arange(4), (3, 1)))
    assert np.isfinite(spectra.photometric_residual).all()
    assert spectra.meta["aperture"] == "fibre"
    assert spectra[0].best.spectral_axis[[0, -1]].value == pytest.approx([3800.1, 9200.1], abs=1)


def test_lines_have_the_flux_of_the_posterior_in_the_fibre(estimator):
    properties = posterior()
    draws = dict(properties.draws) | {"oiii5007_flux": 3 * properties.draws["oiii5007_flux"]}
    brighter = Posterior(draws, names=properties.names)
    one, two = (predict(estimator, None, photometry(), p) for p in (properties, brighter))
    for galaxy in range(3):
        for draw in range(4):
            centre = 5008.24 * (1 + one.redshift[galaxy, draw])
            near = np.abs(GENERATED.wavelength - centre) < 20
            change = (two.flux - one.flux).value[galaxy, draw]
            level = np.median(change[np.abs(GENERATED.wavelength - centre) < 35])
            found = ((change - level) * GENERATED.width)[near].sum()
            wanted = 2 * properties["oiii5007_flux"].draws[galaxy, draw].value
            assert found == pytest.approx(wanted, rel=0.05)
    total = [
        predict(estimator, None, photometry(), p, aperture="total") for p in (properties, brighter)
    ]
    assert np.allclose(total[0].flux.value, total[1].flux.value)


def test_spectra_do_not_depend_on_other_galaxies_or_batch_size(estimator):
    whole = predict(estimator, None, photometry(5), posterior(5), batch_size=5)
    parts = predict(estimator, None, photometry(5), posterior(5), batch_size=2)
    assert np.allclose(whole.flux.value, parts.flux.value, rtol=1e-4)
    assert not np.allclose(
        predict(estimator, None, photometry(5), posterior(5), seed=2).flux.value, whole.flux.value
    )
    blocks = list(
        estimator.predict_iter(
            None,
            photometry(5),
            posterior(5),
            n_draws=4,
            options=SpectrumOptions(sampler=QUICK),
            seed=1,
            batch_size=2,
            progress=False,
        )
    )
    assert [len(block) for block in blocks] == [2, 2, 1]
    assert np.array_equal(SpectrumDraws.concatenate(blocks).flux.value, parts.flux.value)


def test_spectra_of_galaxies_with_ids_do_not_depend_on_the_catalogue(estimator):
    names, order = np.array(["a", "b", "c", "d", "e"]), [3, 0]
    whole = predict(estimator, None, photometry(5), posterior(5), ids=names)
    some = predict(estimator, None, photometry(5)[order], posterior(5)[order], ids=names[order])
    assert np.allclose(some.flux.value, whole.flux.value[order], rtol=1e-4)
    for other in ({"ids": np.array(["f", "g", "h", "i", "j"])}, {"ids": names, "seed": 2}, {}):
        found = predict(estimator, None, photometry(5), posterior(5), **other)
        assert not np.allclose(found.flux.value, whole.flux.value, rtol=1e-3)


def test_spectra_do_not_depend_on_the_number_of_threads(estimator, monkeypatch):
    monkeypatch.setattr(pipeline, "_CHUNK", 4)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(predict(estimator, None, photometry(5), posterior(5)).flux.value)
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(*found)


def test_without_a_posterior_redshifts_are_generated(estimator):
    spectra = predict(estimator, None, photometry())
    assert np.isfinite(spectra.flux.value).all()
    assert np.unique(spectra.redshift).size == spectra.redshift.size
    assert (spectra.posterior_draw == -1).all()


def test_few_draws_of_a_posterior_are_repeated(estimator):
    spectra = predict(estimator, None, photometry(), posterior(k=2))
    assert np.array_equal(spectra.redshift[:, :2], spectra.redshift[:, 2:])
    assert not np.array_equal(spectra.flux.value[:, 0], spectra.flux.value[:, 2])
    assert np.array_equal(spectra.posterior_draw, np.tile([0, 1, 0, 1], (3, 1)))


@pytest.mark.parametrize("quantity", ["redshift", "halpha_flux"])
def test_missing_draws_of_a_posterior_are_flagged_and_not_generated(estimator, quantity):
    draws = dict(posterior().draws)
    damaged = draws[quantity].copy()
    damaged[1, 2] = np.nan
    properties = Posterior(draws | {quantity: damaged}, names=posterior().names)
    spectra = predict(estimator, None, photometry(), properties)
    assert spectra.flags == ("", "some draws of the posterior are not finite", "")
    assert spectra.flag_codes.tolist() == [0, Flag.NO_DRAWS, 0]
    assert np.isnan(spectra.redshift[1]).all() and np.isnan(spectra.flux.value[1]).all()
    intact = predict(estimator, None, photometry(), posterior())
    assert np.array_equal(spectra.flux.value[[0, 2]], intact.flux.value[[0, 2]])


def test_redshifts_are_not_generated_for_a_posterior_without_any(estimator):
    draws = dict(posterior().draws)
    draws["redshift"] = draws["redshift"] * np.array([[1], [np.nan], [1]])
    spectra = predict(estimator, None, photometry(), Posterior(draws, names=posterior().names))
    assert spectra.usable.tolist() == [True, False, True]
    assert spectra.flags[1] == "some draws of the posterior are not finite"


def test_selection_and_weights(estimator):
    weighted = predict(estimator, None, photometry(), posterior(), select="weighted")
    assert np.allclose(weighted.weights.sum(1), 1) and weighted.weights.std() > 0
    best = predict(estimator, None, photometry(), posterior(), select="best")
    known = posterior()["redshift"].draws.value
    for row in range(3):
        chosen = known[row, best.posterior_draw[row]]
        assert np.allclose(best.redshift[row], chosen, rtol=1e-6)
        assert len(set(best.posterior_draw[row])) == 4
    with pytest.raises(ValueError, match=r"n_candidates is 2, less than n_draws \(4\)"):
        predict(estimator, None, photometry(), select="best", n_candidates=2)
    with pytest.raises(ValueError, match='need select="best"'):
        predict(estimator, None, photometry(), n_candidates=8)


def test_photometry_is_measured_on_images(estimator):
    y, x = np.indices((64, 64)) - 31.5
    galaxy = 3 * np.exp(-np.hypot(x, y) / 3)
    noise = np.random.default_rng(1).normal(0, 0.02, (3, 64, 64))
    cube = np.stack([0.5 * galaxy, galaxy, 1.3 * galaxy]) + noise
    with pytest.warns(AstroGenSpecWarning):
        spectra = predict(estimator, cube * u.nmgy, bands="gri", pixel_scale=0.396 * u.arcsec)
    assert np.isfinite(spectra.flux.value).all()
    assert np.isnan(spectra.photometric_residual.value[..., [0, 4]]).all()


def test_light_in_the_fibre_is_measured_on_the_image(estimator):
    radius = np.hypot(*(np.indices((64, 64)) - 31.5))
    noise = np.random.default_rng(1).normal(0, 0.02, (64, 64))
    images = [np.exp(-0.5 * (radius / size) ** 2) / (2 * np.pi * size**2) for size in (3.0, 9.0)]
    cube = np.stack([np.stack([100 * image + noise] * 5) for image in images]).astype(np.float32)
    cutouts = CutoutBatch(cube, np.full_like(cube, 0.02**-2))
    table = {f"flux_{band}": np.full(2, 100.0) * u.nmgy for band in "ugriz"}
    table |= {f"flux_err_{band}": np.full(2, 1.0) * u.nmgy for band in "ugriz"}
    table["ebv"] = np.zeros(2) * u.mag

    def brightness(**options):
        spectra = predict(estimator, cutouts, QTable(table), **options)
        return np.median(spectra.flux.value, axis=(1, 2))

    compact, wide = brightness()
    assert compact > 2 * wide
    sharp, blurred = (brightness(psf_fwhm=f * u.arcsec) for f in (0.9, 1.8))
    assert (sharp < blurred).all()
    whole = brightness(aperture="total")
    assert whole[0] == pytest.approx(whole[1], rel=0.25)


def test_invalid_galaxy_is_flagged(estimator):
    table = photometry()
    for band in "ugriz":
        table[f"mag_{band}"][1] = np.nan * u.ABmag
    flagged = predict(estimator, None, table, posterior(), on_error="flag")
    fine = predict(estimator, None, photometry(), posterior())
    assert flagged.usable.tolist() == [True, False, True]
    assert flagged.flags[1] and not flagged.flags[0]
    assert (flagged.flag_codes & Flag.NO_DATA != 0).tolist() == [False, True, False]
    assert np.allclose(flagged.flux.value[2], fine.flux.value[2], rtol=1e-4)
    draws = {name: values.copy() for name, values in posterior().draws.items()}
    for values in draws.values():
        values[1] = np.nan * values.unit
    lacking = predict(estimator, None, photometry(), Posterior(draws))
    assert lacking.flags[1] == "the posterior has no finite draws"
    assert lacking.flag_codes.tolist() == [0, Flag.NO_DRAWS, 0]
    assert lacking.usable.tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"n_draws": 0}, ValueError, "n_draws is 0: it must be at least 1"),
        ({"n_draws": 2.5}, TypeError, "n_draws is 2.5: it must be an int"),
        ({"select": "good"}, ValueError, "select is 'good': it must be one of all, weighted, best"),
        ({"aperture": "slit"}, ValueError, "aperture is 'slit': it must be one of fibre, total"),
        ({"sampler": "heun"}, TypeError, "sampler is a str: it must be a SamplerSettings"),
        ({"posterior": posterior(2)}, ValueError, "posterior has 2 galaxies, but 3 were given"),
        (
            {"posterior": {"redshift": 0.1}},
            TypeError,
            "posterior is a dict: it must be the Posterior",
        ),
        ({"photometry": None}, ValueError, "neither cutouts nor photometry"),
        ({"seed": -1}, ValueError, "seed is -1"),
    ],
)
def test_invalid_arguments_are_errors(estimator, change, error, message):
    options = {"photometry": photometry(), "posterior": posterior()} | change
    with pytest.raises(error, match=message):
        predict(estimator, **options)


def test_deprecated_arguments_work_and_warn_once(estimator, monkeypatch):
    monkeypatch.setattr("astrogenspec.warnings._REPORTED", set())
    old = {"select": "weighted", "sampler": QUICK}

    def draw(**arguments):
        spectra = estimator.predict(
            None, photometry(), posterior(), n_draws=4, seed=1, progress=False, **arguments
        )
        return spectra.flux.value, spectra.weights

    with pytest.warns(AstroGenSpecDeprecationWarning) as caught:
        found = draw(**old)
    messages = [str(warning.message) for warning in caught]
    assert len(messages) == 2 and {warning.filename for warning in caught} == {__file__}
    assert "argument select of SpectrumEstimator.predict is deprecated" in messages[0]
    assert "removed in version 0.2: use options=SpectrumOptions(select=...)" in messages[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again, new = draw(**old), draw(options=SpectrumOptions(**old))
    for values in (again, new):
        assert all(map(np.array_equal, values, found))
    with pytest.raises(ValueError, match="options and select, sampler were both given"):
        draw(options=SpectrumOptions(), **old)
    with pytest.raises(TypeError, match="options is a dict: it must be a SpectrumOptions"):
        draw(options=old)


def test_posterior_without_redshift_is_an_error(estimator):
    draws = {"sfr": posterior().draws["sfr"]}
    with pytest.raises(ValueError, match="posterior has no redshift"):
        predict(estimator, None, photometry(), Posterior(draws))


def test_memory_limit(estimator, monkeypatch):
    monkeypatch.setattr(estimator, "memory_limit", 1000)
    with pytest.raises(MemoryError, match="use predict_iter, take fewer draws"):
        predict(estimator, None, photometry())


def test_untrained_network_and_fit_raise(estimator):
    from astrogenspec.base import NotFittedError

    with pytest.raises(NotFittedError, match="was never trained"):
        predict(SpectrumEstimator(make_network()), None, photometry())
    with pytest.raises(NotImplementedError, match="train spectra"):
        estimator.fit()


def test_save_and_load_round_trip(estimator, tmp_path):
    path = estimator.save(tmp_path / "spectra.safetensors")
    again = SpectrumEstimator.load(path)
    one, two = (predict(e, None, photometry(), posterior()) for e in (estimator, again))
    assert np.array_equal(one.flux.value, two.flux.value)
    assert torch.equal(again.network.zero_points, estimator.network.zero_points)


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_posterior_is_matched_by_name(estimator, batch_size):
    properties, table = posterior(), photometry()
    order = [2, 0, 1]
    spectra = predict(estimator, None, table[order], properties, batch_size=batch_size)
    assert spectra.names == ("galaxy 2", "galaxy 0", "galaxy 1")
    redshift = properties["redshift"].draws.value[order, :4]
    assert np.allclose(spectra.redshift, redshift, rtol=1e-6)
    some = predict(estimator, None, table[1:2], properties)
    assert np.allclose(some.redshift, properties["redshift"].draws.value[1:2, :4], rtol=1e-6)


def test_numbers_given_as_names_are_matched_by_name(estimator):
    properties, table = posterior(), photometry()
    table["name"] = ["1", "2", "0"]
    named = Posterior(properties.draws, names=["0", "1", "2"])
    spectra = predict(estimator, None, table, named)
    wanted = properties["redshift"].draws.value[:, :4]
    assert np.allclose(spectra.redshift, wanted[[1, 2, 0]], rtol=1e-6)
    unnamed = Posterior(properties.draws)
    spectra = predict(estimator, None, table, unnamed)
    assert np.allclose(spectra.redshift, wanted, rtol=1e-6)
    table.remove_column("name")
    assert np.allclose(predict(estimator, None, table, named).redshift, wanted, rtol=1e-6)


def test_posterior_of_other_or_repeated_galaxies_is_refused(estimator):
    properties, table = posterior(), photometry()
    repeated = Posterior(properties.draws, names=["galaxy 0", "galaxy 1", "galaxy 0"])
    with pytest.raises(ValueError, match="posterior has several galaxies named 'galaxy 0'"):
        predict(estimator, None, table, repeated)
    table["name"] = ["galaxy 0", "galaxy 1", "galaxy 1"]
    with pytest.raises(ValueError, match="the input has several galaxies named 'galaxy 1'"):
        predict(estimator, None, table, properties)
    table["name"] = ["galaxy 0", "galaxy 1", "x"]
    with pytest.raises(ValueError, match=r"posterior has no galaxy named 'x' \(galaxy 2"):
        predict(estimator, None, table, properties)


def test_photometry_in_a_fibre_is_that_of_the_spectrum(estimator):
    in_fibre = coerce_photometry(photometry(), aperture="fibre")
    properties = posterior()
    spectra = predict(estimator, None, in_fibre, properties)
    assert spectra.meta["aperture"] == "fibre"
    # As for total photometry, but the line fluxes and masses of the posterior have no effect.
    alone = Posterior({"redshift": properties.draws["redshift"]}, names=properties.names)
    same = predict(estimator, None, photometry(), alone, aperture="total")
    assert np.array_equal(spectra.flux.value, same.flux.value)
    with pytest.raises(ValueError, match="aperture is 'total', but the photometry is that in a"):
        predict(estimator, None, in_fibre, properties, aperture="total")
    with pytest.raises(ValueError, match="in a fibre, which requires a posterior: give that of"):
        predict(estimator, None, in_fibre)
