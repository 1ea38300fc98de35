"""Fluxes and errors outside the range of the training galaxies, and fill values."""

import astropy.units as u
import numpy as np
import pytest
from astropy.table import Table
from astropy.uncertainty import normal
from estimator_cases import make_estimator

from astrogenspec import BANDS, Flag, coerce_photometry
from astrogenspec.demo import load_galaxies
from astrogenspec.inputs.photometry import PhotometryBatch
from astrogenspec.inputs.screening import error_floor, typical_error

GALAXY = {
    "u": (4.5, 0.6),
    "g": (37.2, 0.33),
    "r": (92.5, 0.6),
    "i": (139.6, 0.9),
    "z": (197.7, 2.5),
}


def galaxy(**bands):
    values = GALAXY | bands
    columns = {"ebv": [0.0]}
    for band, (flux, error) in values.items():
        columns[f"flux_{band}"], columns[f"flux_err_{band}"] = [flux] * u.nmgy, [error] * u.nmgy
    return columns


@pytest.mark.parametrize("band", BANDS)
@pytest.mark.parametrize(
    "value",
    [
        (0.0, 1e10),
        (0.0, 9.9e99),
        (0, 1e-30),
        (-300, 400),
        (5, 400),
        (-99.9, 1),
        (1e20, 1e20),
        (1e9, 1),
    ],
)
def test_band_without_information_is_not_used(band, value):
    batch = coerce_photometry(galaxy(**{band: value}))
    assert batch.bands_present[0].tolist() == [other != band for other in BANDS]
    assert batch.flag_codes[0] == Flag.BAND_NOT_USED
    assert batch.problems[0].startswith(f"{band} not used: {value[0]:.3g} +- {value[1]:.3g} nmgy")


@pytest.mark.parametrize("value", [(0.0, 1e10), (10.0, 400.0), (-20.0, 30.0)])
def test_results_are_those_without_the_band(value):
    estimator = make_estimator()
    found = [
        estimator.predict(photometry=galaxy(z=z), n_draws=50, seed=1)
        for z in (value, (np.nan, np.nan))
    ]
    assert np.array_equal(found[0].draws["redshift"], found[1].draws["redshift"])
    assert found[0].flag_codes[0] & Flag.BAND_NOT_USED
    assert found[0].flags[0].startswith("z not used")
    assert not found[1].flag_codes[0]


def test_undetected_galaxies_in_u_are_used():
    for value in ((-0.3, 0.5), (0.4, 1.2)):
        batch = coerce_photometry(galaxy(u=value))
        assert batch.flux[0, 0] == value[0]
        assert batch.problems == ("",)


def test_errors_of_surveys_are_unchanged_and_smaller_errors_are_raised():
    table = load_galaxies()
    batch = coerce_photometry(table)
    assert not batch.flag_codes.any()
    assert np.array_equal(batch.error[:, 2], table["flux_err_r"].value)
    floor = error_floor(batch.flux)
    for band in BANDS:
        table[f"flux_err_{band}"] /= 10
    raised = coerce_photometry(table)
    assert (raised.flag_codes == Flag.HIGH_SIGNAL).all()
    assert np.array_equal(raised.error, np.maximum(batch.error / 10, floor))
    assert np.median(raised.error / batch.error) > 0.4
    assert raised.problems[0] == (
        "the signal-to-noise ratio in u, g, r, i, z is above the training range"
    )
    assert coerce_photometry(raised) is raised


def test_typical_errors():
    assert 0.05 < typical_error(19.3, "u") < 0.07
    assert 0.005 < typical_error(17.0, "r") < 0.007
    assert typical_error(25.0, "z") == typical_error(30.0, "z")


def test_a_batch_is_screened_but_measured_fluxes_are_not():
    flux, error = np.array([[5.0, 40, 90, 100, 0]] * 2), np.array([[0.5, 0.5, 0.6, 1, 1e10]] * 2)
    batch = PhotometryBatch(flux, error, np.zeros(2), np.array([False, True]))
    screened = coerce_photometry(batch)
    assert screened.bands_present[:, 4].tolist() == [False, True]
    assert screened.problems[1] == ""


def test_galaxy_without_any_usable_band():
    row = {"flux_g": [0.0, 40] * u.nmgy, "flux_err_g": [1e10, 1] * u.nmgy, "ebv": 0.0}
    with pytest.raises(
        ValueError, match="galaxy 0: g not used: 0 .- 1e.10 nmgy, an error larger.*no band is left"
    ):
        coerce_photometry(row)
    batch = coerce_photometry(row, on_error="flag")
    assert batch.flag_codes.tolist() == [Flag.BAND_NOT_USED | Flag.PHOTOMETRY_NOT_USED, 0]


@pytest.mark.parametrize(
    "code",
    [99.99, 99.9, 99.999, 98, 90, 50, 999, -9.99, -99.9, 99.0, 1e20, np.inf, -np.inf, np.nan],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fill_values_of_magnitudes_are_missing(code, dtype):
    for value, error in ((code, 0.1), (18.0, code)):
        table = Table({"mag_r": [17.0], "mag_err_r": [0.02], "ebv": [0.0]})
        table["mag_g"], table["mag_err_g"] = np.array([value], dtype), np.array([error], dtype)
        batch = coerce_photometry(table)
        assert batch.bands_present[0].tolist() == [False, False, True, False, False]
        if value == code or code < 0 or code > 35:
            assert batch.problems == ("",)


@pytest.mark.parametrize(
    ("value", "error"), [(20.0, 0.0), (20.0, -1.0), (20.0, -9999), (np.inf, 0.1)]
)
@pytest.mark.parametrize("names", [("mag_{}", "mag_err_{}"), ("modelMag_{}", "modelMagErr_{}")])
def test_invalid_value_costs_the_band_only(names, value, error):
    table = Table({"ebv": [0.0]})
    for band, pair in (("r", (17.0, 0.02)), ("g", (value, error))):
        for name, number in zip(names, pair, strict=True):
            table[name.format(band)] = [number]
    batch = coerce_photometry(table)
    assert batch.bands_present[0].tolist() == [False, False, True, False, False]
    assert not batch.flag_codes[0]


def test_invalid_extinction_costs_the_band_only():
    table = galaxy() | {f"extinction_{band}": [0.1] for band in BANDS}
    del table["ebv"]
    table["extinction_g"] = [np.nan]
    batch = coerce_photometry(table)
    assert batch.bands_present[0].tolist() == [True, False, True, True, True]
    assert batch.flag_codes[0] == Flag.BAND_NOT_USED
    assert "g not used: extinction_g is nan" in batch.problems[0]
    assert batch.extinction[0, 1] > 0.1
    table["flux_g"] = [np.nan] * u.nmgy
    assert coerce_photometry(table).problems == ("",)


def test_distribution_has_a_mean_and_a_standard_deviation():
    flux = normal([100.0, 50.0] * u.nmgy, std=[5.0, 2.0] * u.nmgy, n_samples=20_000)
    batch = coerce_photometry({"flux_r": flux, "ebv": 0.0})
    assert np.allclose(batch.flux[:, 2], [100, 50], rtol=2e-3)
    assert np.allclose(batch.error[:, 2], [5, 2], rtol=0.03)
    given = coerce_photometry({"flux_r": flux, "flux_err_r": [7, 7] * u.nmgy, "ebv": 0.0})
    assert np.array_equal(given.flux, batch.flux, equal_nan=True)
    assert np.array_equal(given.error[:, 2], [7, 7])
    magnitude = normal(np.array([17.5]), std=np.array([0.1]), n_samples=20_000)
    batch = coerce_photometry({"mag_r": magnitude, "ebv": 0.0})
    assert np.allclose(batch.error[:, 2] / batch.flux[:, 2], 0.0921, rtol=0.03)


@pytest.mark.parametrize("values", [np.array([17 + 1j]), np.array([True]), ["17", "null"]])
def test_columns_that_are_not_real_numbers_are_refused(values):
    with pytest.raises(TypeError, match="mag_r .*must hold"):
        coerce_photometry({"mag_r": values, "mag_err_r": 0.1, "ebv": 0.0})


def test_word_in_a_column_is_named_with_its_row():
    table = Table({"mag_r": ["17.1", "null"], "mag_err_r": [0.1, 0.1], "ebv": [0.0, 0.0]})
    with pytest.raises(TypeError, match="mag_r holds 'null' in row 1"):
        coerce_photometry(table)
