"""Spectra taken to plain arrays, and to the logarithmic grid."""

import astropy.units as u
import numpy as np
import pytest
from astropy.nddata import (
    InverseVariance,
    StdDevUncertainty,
    UnknownUncertainty,
    VarianceUncertainty,
)
from measure_cases import UNIT, WAVELENGTH, gaussian, spectrum
from specutils import Spectrum

from astrogenspec.measure.definitions import index_definitions, line_definitions
from astrogenspec.measure.inputs import air_to_vacuum, instrument_dispersion, spectrum_arrays
from astrogenspec.measure.log_grid import STEP, log_spectrum


def test_plain_spectrum_is_unchanged():
    arrays = spectrum_arrays(spectrum(np.arange(1.0, 3842.0), 0.1, 2.0))
    assert arrays.single and arrays.noisy and arrays.unit == UNIT
    assert np.allclose(arrays.wavelength, WAVELENGTH) and np.allclose(arrays.variance, 4)
    assert arrays.redshift == pytest.approx([0.1])


def test_frequencies_and_flux_per_frequency_are_converted():
    flux = np.linspace(1, 2, 100) * u.mJy
    axis = np.linspace(4e14, 7e14, 100) * u.Hz
    error = StdDevUncertainty(0.1 * flux.value)
    arrays = spectrum_arrays(Spectrum(flux=flux, spectral_axis=axis, uncertainty=error))
    assert (np.diff(arrays.wavelength) > 0).all()
    wavelength = axis.to(u.AA, u.spectral())
    expected = flux.to_value(UNIT, u.spectral_density(wavelength))[::-1]
    assert np.allclose(arrays.flux[0], expected)
    assert np.allclose(np.sqrt(arrays.variance[0]), 0.1 * expected)


@pytest.mark.parametrize(
    "uncertainty",
    [
        StdDevUncertainty(np.full(50, 0.5)),
        VarianceUncertainty(np.full(50, 0.25)),
        InverseVariance(np.full(50, 4.0)),
        StdDevUncertainty(np.full(50, 0.5e-17), unit=u.Unit("erg/(s cm2 AA)")),
    ],
)
def test_all_uncertainty_types_give_the_variance(uncertainty):
    given = Spectrum(
        flux=np.ones(50) * UNIT,
        spectral_axis=np.linspace(4000, 4100, 50) * u.AA,
        uncertainty=uncertainty,
    )
    assert np.allclose(spectrum_arrays(given).variance, 0.25)


def test_masked_and_invalid_pixels_are_interpolated_and_marked():
    flux = np.linspace(1, 2, 3841)
    broken = flux.copy()
    broken[100], error = np.nan, np.full(3841, 0.1)
    error[200] = 0
    mask = np.zeros(3841, dtype=bool)
    mask[300:310] = True
    broken[300:310] = 1e9
    arrays = spectrum_arrays(spectrum(broken, error=error, mask=mask))
    assert np.count_nonzero(~arrays.good) == 12
    assert np.allclose(arrays.flux[0], flux)
    assert np.isinf(arrays.variance[0, [100, 200, 305]]).all()


def test_air_wavelengths_are_converted_to_vacuum():
    # H alpha: 6562.80 in air, 6564.61 in vacuum
    assert air_to_vacuum(np.array(6562.80)) == pytest.approx(6564.61, abs=0.01)
    shifted = spectrum_arrays(spectrum(np.ones(3841)), medium="air").wavelength
    assert np.allclose(shifted, air_to_vacuum(WAVELENGTH))


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: spectrum_arrays(np.ones(5)), TypeError, "specutils.Spectrum"),
        (lambda: spectrum_arrays(spectrum(np.ones(3841)), medium="glass"), ValueError, "'air'"),
        (lambda: spectrum_arrays(spectrum(np.ones(3841)), redshift=[0.1, 0.2]), ValueError, "one for each of the 1 spectra"),
        (lambda: spectrum_arrays(spectrum(np.ones(3841)), redshift=-2), ValueError, "above -1"),
        (lambda: spectrum_arrays(spectrum(np.full(3841, np.nan))), ValueError, "no usable pixel"),
        (lambda: spectrum_arrays(spectrum(np.ones((2, 2, 3841)))), ValueError, "stack"),
        (
            lambda: spectrum_arrays(
                Spectrum(flux=np.ones(5) * UNIT, spectral_axis=np.arange(5) * u.km / u.s)
            ),
            u.UnitConversionError,
            "wavelength",
        ),
        (
            lambda: spectrum_arrays(
                Spectrum(
                    flux=np.ones(5) * UNIT,
                    spectral_axis=np.arange(1, 6) * u.AA,
                    uncertainty=UnknownUncertainty(np.ones(5)),
                )
            ),
            TypeError,
            "StdDevUncertainty",
        ),
        (lambda: instrument_dispersion(0), ValueError, "resolving power"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::astropy.utils.exceptions.AstropyWarning")
def test_invalid_input_raises_one_sentence(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_spectrum_on_the_grid_is_unchanged():
    flux = np.random.default_rng(1).normal(size=3841)
    assert np.array_equal(log_spectrum(spectrum_arrays(spectrum(flux))).flux, flux)


@pytest.mark.parametrize("step", [0.4, 3.0])
def test_rebinning_conserves_flux_and_signal_to_noise(step):
    wavelength = np.arange(4000, 7000, step)
    flux = 1 + gaussian(5000.0, 50.0, 150.0, wavelength)
    given = spectrum(flux, error=0.1, wavelength=wavelength)
    binned = log_spectrum(spectrum_arrays(given))
    assert np.allclose(np.diff(binned.log_wavelength), STEP)
    width = binned.wavelength * STEP * np.log(10)
    line = np.abs(binned.wavelength - 5000) < 20
    assert ((binned.flux - 1) * width)[line].sum() == pytest.approx(50, rel=2e-3)
    inside = slice(20, -20)
    information = np.sum(1 / binned.variance[inside]), len(wavelength) / 0.1**2
    span = (binned.log_wavelength[-20] - binned.log_wavelength[20]) / np.log10(
        wavelength[-1] / wavelength[0]
    )
    assert information[0] == pytest.approx(information[1] * span, rel=0.2)


def test_every_definition_has_a_source_and_ordered_bands():
    indices, lines = index_definitions(), line_definitions()
    assert len(indices) == 27 and all(indices["source"]) and all(lines["source"])
    for row in indices:
        bands = ("blue_", "red_") if row["kind"] == "ratio" else ("", "blue_", "red_")
        assert all(row[f"{band}low"] < row[f"{band}high"] for band in bands)
    assert len(set(lines["name"])) == len(lines)
