"""Random input ends in a result or in one clear sentence, for every public entry.

The test suite runs 200 reproducible cases for each entry.  ``make fuzz`` runs 20,000 random ones.
"""

import contextlib
import io
import json
import warnings

import astropy.units as u
import numpy as np
import pytest
from astropy.utils.exceptions import AstropyWarning
from estimator_cases import make_cutouts, make_estimator, make_photometry
from fuzz_cases import (
    JSON,
    MAX_MESSAGE,
    NUMBERS,
    OPTIONS,
    SURVEYS,
    UNITS,
    catalogues,
    columns,
    csv_files,
    cutouts,
    damages,
    fuzz,
    outcome,
    quietly,
    slow_fuzz,
    spectra,
)
from generation_cases import make_network
from hypothesis import given
from hypothesis import strategies as st
from posterior_cases import gaussian_posterior
from spectrum_cases import some_spectra
from spectrum_estimator_cases import QUICK, photometry, posterior

from astrogenspec import (
    AstroGenSpecWarning,
    Posterior,
    PropertyEstimator,
    SpectrumDraws,
    SpectrumEstimator,
    SpectrumOptions,
    coerce_cutouts,
    coerce_photometry,
    read_cutout_fits,
    write_cutout_fits,
)
from astrogenspec.calibration import calibration_table
from astrogenspec.cli import main
from astrogenspec.measure import measure_indices, measure_lines, measure_redshift

#: Warnings are errors inside `outcome` and `run` only, not while inputs are made and printed.
pytestmark = pytest.mark.filterwarnings("ignore")
QUANTITIES = st.sampled_from(["redshift", "stellar_mass", "sfr", "halpha_flux", "nonsense"])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Write a valid file of each kind."""
    folder = tmp_path_factory.mktemp("fuzz")
    write_cutout_fits(folder / "cutout.fits", coerce_cutouts(make_cutouts(1)))
    draws = gaussian_posterior(5, 20)[0]
    draws.write(folder / "posterior.fits", draws=True)
    draws.write(folder / "posterior.ecsv", draws=True)
    some_spectra().write(folder / "spectra.fits")
    make_estimator().save(folder / "tiny.safetensors")
    return folder


@fuzz
@given(catalogue=catalogues(), survey=SURVEYS, on_error=st.sampled_from(["raise", "flag"]))
def test_photometry(catalogue, survey, on_error):
    batch = outcome(coerce_photometry, catalogue, survey=survey, on_error=on_error)
    if batch is None:
        return
    assert batch.flux.shape == batch.extinction.shape == (len(batch), len(batch.filters))
    assert np.isfinite(batch.extinction[batch.bands_present]).all()
    assert np.array_equal(np.isfinite(batch.flux), np.isfinite(batch.error))
    assert (batch.error[np.isfinite(batch.error)] > 0).all()
    assert len(batch.names) == len(batch.problems) == len(batch.flag_codes)
    assert [bool(text) for text in batch.problems] == [bool(code) for code in batch.flag_codes]


@fuzz
@given(catalogue=catalogues(), survey=SURVEYS)
def test_prediction_from_photometry(catalogue, survey):
    options = {"survey": survey, "n_draws": 3, "seed": 1, "on_error": "flag"}
    drawn = outcome(make_estimator().predict, photometry=catalogue, **options)
    if drawn is None:
        return
    assert (drawn.flag_codes[~drawn.usable] != 0).all()
    for draws in drawn.draws.values():
        assert np.isfinite(draws.value[drawn.usable]).all()
    assert len(drawn.to_table()) == len(drawn)


@fuzz
@given(images=cutouts())
def test_prediction_from_cutouts(images):
    drawn = outcome(make_estimator().predict, images, n_draws=3, seed=1, ebv=0.0, on_error="flag")
    if drawn is not None:
        assert (drawn.flag_codes[~drawn.usable] != 0).all()


@fuzz
@given(data=st.data())
def test_known_quantities(data):
    n = data.draw(st.integers(min_value=1, max_value=3))
    known = {data.draw(QUANTITIES): data.draw(columns(n))}
    arguments = {"photometry": make_photometry(2), "n_draws": 3, "seed": 1}
    drawn = outcome(make_estimator().predict, known=known, **arguments)
    if drawn is not None:
        assert len(drawn) == 2


@fuzz
@given(
    images=cutouts(),
    bands=st.sampled_from([None, "gri", "ugriz", "r", "", "rr", "gy", 5, ["g", "r"]]),
    scale=st.sampled_from(
        [None, 0.396 * u.arcsec, 0.0 * u.arcsec, 1 * u.m, np.nan * u.arcsec, 0.4]
    ),
    on_error=st.sampled_from(["raise", "flag"]),
)
def test_cutouts(images, bands, scale, on_error):
    batch = outcome(coerce_cutouts, images, bands=bands, pixel_scale=scale, on_error=on_error)
    if batch is None:
        return
    assert batch.flux.shape[1:] == (5, 64, 64)
    assert np.isfinite(batch.flux).all()
    assert np.isfinite(batch.ivar).all()
    assert (batch.ivar >= 0).all()


@pytest.fixture(scope="module")
def spectrum_estimator():
    return SpectrumEstimator(make_network(), card={"name": "tiny"})


@fuzz
@given(data=st.data())
def test_prediction_of_spectra(spectrum_estimator, data):
    catalogue = data.draw(st.one_of(st.none(), catalogues()))
    if catalogue is None:
        catalogue = photometry(2)
    given_posterior = data.draw(st.sampled_from([None, posterior(2), posterior(3)[:1]]))
    aperture = data.draw(st.sampled_from(["fibre", "total", "", None]))
    drawn = outcome(
        spectrum_estimator.predict,
        photometry=catalogue,
        posterior=given_posterior,
        n_draws=data.draw(st.sampled_from([1, 2, 0, -1, 1.5])),
        aperture=aperture,
        options=SpectrumOptions(sampler=QUICK),
        on_error="flag",
        seed=1,
    )
    if drawn is not None:
        assert (drawn.flag_codes[~drawn.usable] != 0).all()
        assert np.isfinite(drawn.flux.value[drawn.usable]).all()


@fuzz
@given(spectrum=spectra(), redshift=st.sampled_from([None, 0.05, np.nan, -2.0, "x", np.inf]))
def test_measurements(spectrum, redshift):
    options = {"redshift": redshift}
    tables = (
        outcome(measure_indices, spectrum, ["Dn4000", "Mgb"], **options),
        outcome(measure_lines, spectrum, "halpha", stellar_absorption=False, **options),
    )
    for table in tables:
        if table is not None:
            assert len(table) == 1
            assert (table["flags"] == 0).tolist() == [text == "" for text in table["flag"]]


@fuzz
@given(spectrum=spectra())
def test_redshift_measurement(spectrum):
    table = outcome(measure_redshift, spectrum)
    if table is not None:
        assert table["flags"][0] or np.isfinite(table["redshift"][0])


READERS = {
    "cutout.fits": lambda path: coerce_cutouts(read_cutout_fits(path)),
    "posterior.fits": Posterior.read,
    "posterior.ecsv": Posterior.read,
    "spectra.fits": SpectrumDraws.read,
    "tiny.safetensors": PropertyEstimator.load,
    "tiny.json": lambda path: PropertyEstimator.load(path.with_suffix(".safetensors")),
}


@pytest.mark.parametrize("name", READERS)
@fuzz
@given(damage=damages())
def test_damaged_files(files, tmp_path_factory, name, damage):
    folder = tmp_path_factory.getbasetemp() / "damaged"
    folder.mkdir(exist_ok=True)
    for file in files.glob(name.partition(".")[0] + ".*"):
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / name).write_bytes(damage((files / name).read_bytes()))
    outcome(READERS[name], folder / name)


KEYS = ("recalibration", "training_range", "novelty", "predictive", "population", "name", "fits")


@fuzz
@given(card=st.one_of(JSON, st.dictionaries(st.sampled_from(KEYS), JSON, max_size=4)))
def test_cards_of_any_content(files, tmp_path_factory, card):
    folder = tmp_path_factory.getbasetemp() / "cards"
    folder.mkdir(exist_ok=True)
    path = folder / "tiny.safetensors"
    path.write_bytes((files / "tiny.safetensors").read_bytes())
    path.with_suffix(".json").write_text(json.dumps(card))
    estimator = outcome(PropertyEstimator.load, path)
    if estimator is not None:
        outcome(estimator.predict, photometry=make_photometry(2), n_draws=3, seed=1)


@fuzz
@given(data=st.data())
def test_truth_of_any_form(data):
    drawn = gaussian_posterior(5, 20)[0]
    n = data.draw(st.sampled_from([len(drawn), 0, 1]))
    names = data.draw(st.lists(QUANTITIES, max_size=3, unique=True))
    outcome(calibration_table, drawn, {name: data.draw(columns(n)) for name in names})


@slow_fuzz
@given(data=st.data())
def test_labels_of_fit(data):
    n = data.draw(st.sampled_from([12, 12, 5]))
    labels = {"redshift": np.linspace(0.05, 0.2, n)} if data.draw(st.booleans()) else {}
    names = data.draw(st.lists(QUANTITIES, max_size=2, unique=True))
    labels |= {name: data.draw(columns(n)) for name in names}
    arguments = {"photometry": make_photometry(12), "epochs": 1, "seed": 1}
    outcome(make_estimator().fit, labels=labels, **arguments)


@fuzz
@given(data=st.data())
def test_posterior_of_any_draws(data):
    n = data.draw(st.integers(min_value=0, max_value=3))
    values = np.array(data.draw(st.lists(NUMBERS, min_size=2 * n, max_size=2 * n))).reshape(n, 2)
    unit = data.draw(UNITS)
    if unit is not None:
        values = quietly(u.Quantity, values, unit, subok=True)
    drawn = outcome(Posterior, {data.draw(QUANTITIES): values})
    if drawn is not None:
        outcome(drawn.to_table)


def run(arguments):
    """Run a command; check its status and its last line."""
    error = io.StringIO()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for category in (AstroGenSpecWarning, AstropyWarning):
            warnings.simplefilter("ignore", category)
        with contextlib.redirect_stderr(error), contextlib.redirect_stdout(io.StringIO()):
            try:
                status = main([str(argument) for argument in arguments])
            except SystemExit as stop:
                status = stop.code
    text = error.getvalue()
    assert status in (0, 2, 3), text
    if status == 2 and "usage:" not in text:
        last = text.strip().splitlines()[-1]
        assert last.startswith("astrogenspec: error: "), last
        assert len(last) <= MAX_MESSAGE
        assert last.isprintable()


@fuzz
@given(text=csv_files(), options=st.lists(OPTIONS, max_size=4))
def test_infer(files, tmp_path_factory, text, options):
    folder = tmp_path_factory.getbasetemp()
    (folder / "table.csv").write_text(text)
    arguments = ["infer", folder / "table.csv", "-o", folder / "out.fits", "--overwrite"]
    arguments += ["--model", files / "tiny.safetensors", "--draws", 3, "--seed", 1, *options]
    run(arguments)


@fuzz
@given(text=csv_files())
def test_evaluate(files, tmp_path_factory, text):
    truth = tmp_path_factory.getbasetemp() / "truth.csv"
    truth.write_text(text)
    run(["evaluate", files / "posterior.fits", truth])
