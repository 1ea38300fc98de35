"""Spectral indices against analytic values and Monte Carlo errors."""

import pickle

import astropy.units as u
import numpy as np
import pytest
from measure_cases import WAVELENGTH, spectrum

from astrogenspec import Flag
from astrogenspec.measure import INDEX_NAMES, index, index_definitions, measure_indices
from astrogenspec.measure.indices import lick_fwhm
from astrogenspec.measure.inputs import air_to_vacuum

FINE = np.arange(3500.0, 6600.0, 0.25)
BANDS = {str(row["name"]): row for row in index_definitions()}
ATOMIC = [name for name, row in BANDS.items() if row["kind"] == "Angstrom"]


def band(name, side=""):
    row = BANDS[name]
    limits = [row[f"{side}{end}"].to_value(u.AA) for end in ("low", "high")]
    return air_to_vacuum(np.array(limits))


@pytest.mark.parametrize("name", ATOMIC)
def test_equivalent_width_of_a_box(name):
    low, high = band(name)
    centre, half = 0.5 * (low + high), 0.25 * (high - low)
    flux = np.where(np.abs(FINE - centre) < half, 0.6, 1.0) * (2 + FINE / 5000)
    value = measure_indices(spectrum(flux, wavelength=FINE), name)[name][0]
    assert value.to_value(u.AA) == pytest.approx(0.4 * 2 * half, abs=0.15)


def test_molecular_index_of_a_step():
    low, high = band("Mg2")
    flux = np.where(np.abs(FINE - 0.5 * (low + high)) < 0.5 * (high - low), 0.8, 1.0)
    value = measure_indices(spectrum(flux, wavelength=FINE), "Mg2")["Mg2"][0]
    assert value.to_value(u.mag) == pytest.approx(-2.5 * np.log10(0.8), abs=2e-3)


def test_breaks_are_ratios_of_flux_per_frequency():
    flux = np.where(FINE < 4001.0, 1.0, 1.7) / FINE**2
    table = measure_indices(spectrum(flux, wavelength=FINE), ["Dn4000", "D4000"])
    assert float(table["Dn4000"][0]) == pytest.approx(1.7, rel=1e-3)
    assert float(table["D4000"][0]) == pytest.approx(1.7, rel=1e-3)


def test_linear_continuum_has_zero_indices_at_any_redshift():
    for z in (0.0, 0.08):
        table = measure_indices(spectrum(1 + 1e-4 * WAVELENGTH, z))
        assert all(
            abs(table[name][0].value) < 1e-3
            for name in INDEX_NAMES[:21]
            if np.isfinite(table[name][0])
        )
    flux = 2 + np.sin(FINE / 7.0)
    rest = measure_indices(spectrum(flux, wavelength=FINE))
    seen = measure_indices(spectrum(flux, 0.2, wavelength=FINE * 1.2))
    for name in INDEX_NAMES:
        assert seen[name][0].value == pytest.approx(rest[name][0].value, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("smooth", [False, True])
def test_errors_agree_with_monte_carlo(smooth):
    rng = np.random.default_rng(2)
    flux = 10 + np.sin(WAVELENGTH / 11.0)
    error = 0.4 + 0.2 * np.cos(WAVELENGTH / 300)
    names = ["CN2", "Hbeta", "Mg1", "Mgb", "HdA", "Dn4000"]
    noisy = flux + error * rng.normal(size=(800, len(flux)))
    options = {"names": names, "redshift": 0.03, "lick_resolution": smooth}
    drawn = measure_indices(spectrum(noisy), **options)
    given = measure_indices(spectrum(flux, error=error), **options)
    for name in names:
        scatter = np.std(drawn[name].value)
        assert given[f"{name}_err"][0].value == pytest.approx(scatter, rel=0.1), name


def test_stack_equals_single_spectra():
    rng = np.random.default_rng(3)
    flux = 10 + rng.normal(size=(3, len(WAVELENGTH)))
    redshift = np.array([0.02, 0.05, 0.02])
    stack = measure_indices(spectrum(flux, error=1.0), redshift=redshift)
    for k in range(3):
        single = measure_indices(spectrum(flux[k], redshift[k], 1.0))
        for name in INDEX_NAMES:
            assert stack[name][k].value == pytest.approx(single[name][0].value, nan_ok=True)
            assert stack[f"{name}_err"][k].value == pytest.approx(
                single[f"{name}_err"][0].value, nan_ok=True
            )


def test_uncovered_masked_and_dark_spectra_are_flagged():
    flux = np.ones((3, len(WAVELENGTH)))
    flux[2] = -1
    mask = np.zeros(flux.shape, dtype=bool)
    low, high = band("Hbeta")
    mask[1, np.abs(WAVELENGTH - 0.5 * (low + high)) < 10] = True
    mask[0, np.searchsorted(WAVELENGTH, low) + 3] = True
    table = measure_indices(spectrum(flux, error=0.1, mask=mask), ["Hbeta", "D4000"])
    assert np.isnan(table["D4000"]).all() and np.isfinite(table["Hbeta"][0])
    assert np.isnan(table["Hbeta"][1:]).all() and np.isnan(table["Hbeta_err"][1:]).all()
    assert table["flag"].tolist() == [
        "Hbeta: partly masked; D4000: outside the wavelength range",
        "Hbeta: masked; D4000: outside the wavelength range",
        "Hbeta: continuum not positive; D4000: outside the wavelength range",
    ]
    assert table["flags"].tolist() == [
        Flag.BAD_PIXELS | Flag.NOT_COVERED,
        Flag.BAD_PIXELS | Flag.NOT_COVERED,
        Flag.NO_CONTINUUM | Flag.NOT_COVERED,
    ]
    assert table.colnames[-2:] == ["flags", "flag"]


@pytest.mark.parametrize("level", [1e-299, 1e-200, 1e-100, 1e-70])
def test_flux_that_is_zero_within_its_error_has_no_continuum(level):
    table = measure_indices(spectrum(np.full(3841, level), error=1.0), ["Mgb", "TiO2"])
    assert np.isnan(table["Mgb"][0]) and np.isnan(table["Mgb_err"][0])
    assert table["flag"][0] == "Mgb: continuum not positive; TiO2: continuum not positive"


def test_clean_spectrum_has_no_flags():
    table = measure_indices(spectrum(np.ones(3841), error=0.1), "Mgb")
    assert table["flags"].dtype == np.int64 and table["flags"][0] == 0 and table["flag"][0] == ""


def test_errors_are_nan_without_uncertainty():
    assert np.isnan(measure_indices(spectrum(np.ones(3841)), "Mgb")["Mgb_err"][0])


def test_lick_resolution_weakens_lines_but_not_breaks():
    low, high = band("Ca4227")
    flux = np.where(np.abs(FINE - 0.5 * (low + high)) < 3, 0.3, 1.0)
    sharp = measure_indices(spectrum(flux, wavelength=FINE), ["Ca4227", "Dn4000"])
    smooth = measure_indices(
        spectrum(flux, wavelength=FINE), ["Ca4227", "Dn4000"], lick_resolution=True
    )
    wide = measure_indices(
        spectrum(flux, wavelength=FINE), "Ca4227", lick_resolution=True, dispersion=400
    )
    assert 0.5 * sharp["Ca4227"][0] < smooth["Ca4227"][0] < 0.95 * sharp["Ca4227"][0]
    assert wide["Ca4227"][0] > smooth["Ca4227"][0]
    assert smooth["Dn4000"][0] == sharp["Dn4000"][0]
    assert lick_fwhm(np.array([4000.0, 4650.0, 9000.0])) == pytest.approx([11.5, 8.8, 9.8])


def test_functions_for_draws_return_numbers_and_pickle():
    given = spectrum(10 + np.sin(WAVELENGTH / 11.0), 0.05)
    one, two = index("Dn4000"), index("Mgb", "Fe5270")
    assert one(given) == measure_indices(given, "Dn4000")["Dn4000"][0]
    assert set(pickle.loads(pickle.dumps(two))(given)) == {"Mgb", "Fe5270"}


@pytest.mark.parametrize(
    ("names", "error", "words"),
    [
        ("Mgbb", ValueError, "did you mean 'Mgb'"),
        ([], ValueError, "at least one"),
        ([3], TypeError, "strings"),
    ],
)
def test_invalid_names_raise(names, error, words):
    with pytest.raises(error, match=words):
        measure_indices(spectrum(np.ones(3841)), names)
