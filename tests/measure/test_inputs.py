"""Spectra taken to plain arrays, and to the logarithmic grid."""

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import (
    InverseVariance,
    StdDevUncertainty,
    UnknownUncertainty,
    VarianceUncertainty,
)
from astropy.table import MaskedColumn
from astropy.utils.masked import Masked
from astropy.wcs import WCS
from measure_cases import UNIT, WAVELENGTH, emission, gaussian, spectrum
from specutils import Spectrum

from astrogenspec import Flag
from astrogenspec.measure import measure_indices, measure_lines
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
        (
            lambda: spectrum_arrays(spectrum(np.ones(3841)), redshift=[0.1, 0.2]),
            ValueError,
            "one for each of the 1 spectra",
        ),
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


# Every form of one spectrum, with the same flux and uncertainty.
SMOOTH = 20 * (WAVELENGTH / 6000) ** -0.5
WAVENUMBER = u.cm**-1
SQUARE = WAVELENGTH**2


@pytest.mark.parametrize(
    ("unit", "per_flambda", "kept"),
    [
        ("mJy", SQUARE, u.one),
        ("MJy / sr", SQUARE, u.sr),
        ("mJy / arcsec2", SQUARE, u.arcsec**2),
        ("Jy / beam", SQUARE, u.beam),
        ("nmgy", SQUARE, u.one),
        ("erg / (s cm2)", WAVELENGTH, u.one),
        ("ph / (s cm2 Angstrom)", WAVELENGTH, u.one),
        ("ph / (s cm2 Hz)", WAVELENGTH**3, u.one),
        ("W / (m2 um sr)", np.ones(3841), u.sr),
    ],
)
def test_flux_densities_of_any_form_are_converted(unit, per_flambda, kept):
    flux = SMOOTH * per_flambda / per_flambda[0]
    uncertainty = StdDevUncertainty(0.02 * flux)
    given = Spectrum(
        flux=flux * u.Unit(unit), spectral_axis=WAVELENGTH * u.AA, uncertainty=uncertainty
    )
    arrays = spectrum_arrays(given)
    assert arrays.unit.is_equivalent(UNIT / kept)
    assert np.allclose(arrays.flux[0] / arrays.flux[0, 0], SMOOTH / SMOOTH[0])
    assert np.allclose(np.sqrt(arrays.variance[0]), 0.02 * arrays.flux[0])
    names = ["D4000", "Dn4000"]
    table = measure_indices(given, names, redshift=0.1)
    expected = measure_indices(spectrum(SMOOTH, 0.1, 0.02 * SMOOTH), names)
    for name in table.colnames[:4]:
        assert table[name][0].value == pytest.approx(expected[name][0].value)


def test_converted_fluxes_have_the_right_scale():
    axis = WAVELENGTH * u.AA
    for unit in (u.Jy, u.photon / (u.s * u.cm**2 * u.AA), u.W / u.m**2):
        flux = (SMOOTH * UNIT).to(unit, u.spectral_density(axis))
        assert np.allclose(spectrum_arrays(Spectrum(flux=flux, spectral_axis=axis)).flux[0], SMOOTH)
    flux = (SMOOTH * UNIT).to_value(u.Jy, u.spectral_density(axis)) / 3631e-9 * u.nmgy
    assert np.allclose(spectrum_arrays(Spectrum(flux=flux, spectral_axis=axis)).flux[0], SMOOTH)
    axis = axis.to(WAVENUMBER, u.spectral())
    flux = (SMOOTH * UNIT * (WAVELENGTH * u.AA) ** 2).to(u.W / u.m**2 / WAVENUMBER)
    found = spectrum_arrays(Spectrum(flux=flux, spectral_axis=axis))
    assert np.allclose(found.flux[0], SMOOTH) and found.unit == UNIT


@pytest.mark.parametrize(
    "uncertainty",
    [
        StdDevUncertainty(np.full(3841, 20.0), unit=u.uJy),
        VarianceUncertainty(np.full(3841, 400.0), unit=u.uJy**2),
        InverseVariance(np.full(3841, 1 / 400.0), unit=u.uJy**-2),
        InverseVariance(np.full(3841, 2500.0)),
    ],
)
def test_uncertainty_in_another_unit_is_converted(uncertainty):
    given = Spectrum(
        flux=np.full(3841, 2.0) * u.mJy,
        spectral_axis=WAVELENGTH * u.AA,
        uncertainty=uncertainty,
    )
    arrays = spectrum_arrays(given)
    assert np.allclose(np.sqrt(arrays.variance), 0.01 * arrays.flux)


@pytest.mark.parametrize("unit", ["adu", "ct / s", "m", "K", "W / m"])
def test_units_that_are_no_flux_density_are_refused(unit):
    given = Spectrum(flux=SMOOTH * u.Unit(unit), spectral_axis=WAVELENGTH * u.AA)
    with pytest.raises(u.UnitConversionError, match="is not a flux density; give one per"):
        spectrum_arrays(given)


def test_dimensionless_spectra_are_unchanged():
    given = Spectrum(flux=SMOOTH * u.one, spectral_axis=WAVELENGTH * u.AA)
    arrays = spectrum_arrays(given)
    assert arrays.unit == u.one and np.array_equal(arrays.flux[0], SMOOTH)


def cut(values, keep, wavelength=WAVELENGTH, error=0.5):
    return spectrum(values[keep], 0.05, error, wavelength=wavelength[keep])


@pytest.mark.parametrize(
    "wavelength",
    [WAVELENGTH, np.arange(3800.0, 9200, 1.3), 1e8 / np.linspace(1e8 / 3800, 1e8 / 9200, 4000)],
    ids=["log", "linear", "frequency"],
)
def test_pixels_cut_out_are_masked_pixels(wavelength):
    rng = np.random.default_rng(3)
    flux = rng.normal(20, 0.5, len(wavelength))
    flux += emission({"halpha": 300.0}, 0.05, 150.0, wavelength=wavelength)
    for low, high, names in ((5350, 5475, ["Mgb"]), (3990, 4260, ["D4000", "Dn4000"])):
        gap = (wavelength > low) & (wavelength < high)
        table = measure_indices(cut(flux, ~gap, wavelength), [*names, "Fe5406"])
        masked = spectrum(flux, 0.05, 0.5, mask=gap, wavelength=wavelength)
        expected = measure_indices(masked, [*names, "Fe5406"])
        for name in names:
            assert np.isnan(table[name][0]) and np.isnan(table[f"{name}_err"][0])
        assert table["flags"][0] == expected["flags"][0] == Flag.BAD_PIXELS
        assert table["Fe5406"][0].value == pytest.approx(expected["Fe5406"][0].value)
    gap = np.abs(wavelength - 6893) < 100
    row = measure_lines(cut(flux, ~gap, wavelength), "halpha", stellar_absorption=False)[0]
    assert np.isnan(row["flux"]) and row["flags"] == Flag.BAD_PIXELS


def test_single_pixel_cut_out_is_marked():
    keep = np.arange(3841) != 1500
    arrays = spectrum_arrays(cut(SMOOTH, keep))
    assert np.allclose(arrays.wavelength, WAVELENGTH)
    assert np.flatnonzero(~arrays.good[0]).tolist() == [1500]
    assert np.isinf(arrays.variance[0, 1500])


@pytest.mark.parametrize(
    "wavelength",
    [
        np.geomspace(3000, 11000, 40),
        np.linspace(3000, 11000, 40),
        3000 + 5 * np.arange(600) + 0.004 * np.arange(600) ** 2,
        np.concatenate([np.arange(3700, 5600, 1.0), np.arange(5601.5, 9200, 2.0)]),
        np.array([4000.0, 5000, 7000, 10000]),
        np.arange(4000, 9000, 1.0) + 0.3 * np.sin(7.0 * np.arange(5000)),
    ],
    ids=["coarse log", "coarse linear", "polynomial", "two arms", "four pixels", "irregular"],
)
def test_smooth_and_irregular_sampling_has_no_gap(wavelength):
    arrays = spectrum_arrays(spectrum(np.ones(len(wavelength)), wavelength=wavelength))
    assert np.array_equal(arrays.wavelength, wavelength) and arrays.good.all()


def test_spectral_axis_may_be_the_first_axis():
    flux = np.stack([SMOOTH, 2 * SMOOTH + WAVELENGTH / 500])
    error = np.stack([0.1 * SMOOTH, 0.2 * SMOOTH])
    mask = np.zeros(flux.shape, dtype=bool)
    mask[1, 500] = True
    given = Spectrum(
        flux=flux.T * UNIT,
        spectral_axis=WAVELENGTH * u.AA,
        uncertainty=StdDevUncertainty(error.T),
        mask=mask.T,
        spectral_axis_index=0,
    )
    names = ["Mgb", "Dn4000"]
    table = measure_indices(given, names, redshift=[0.05, 0.02])
    expected = measure_indices(spectrum(flux, error=error, mask=mask), names, redshift=[0.05, 0.02])
    for name in (*names, "Mgb_err", "Dn4000_err"):
        assert np.allclose(table[name].value, expected[name].value, equal_nan=True)
    square = np.random.default_rng(1).normal(20, 1, (300, 300))
    axis = np.linspace(5000, 5600, 300) * u.AA
    first, last = (
        Spectrum(flux=f * UNIT, spectral_axis=axis, spectral_axis_index=k)
        for k, f in ((0, square.T), (1, square))
    )
    assert np.array_equal(spectrum_arrays(first).flux, spectrum_arrays(last).flux)


@pytest.mark.parametrize("ctype", ["AWAV", "AWAV-LOG", "WAVE", "WAVE-LOG"])
def test_medium_of_the_world_coordinates_is_used(ctype, tmp_path):
    header = fits.Header({"CTYPE1": ctype, "CUNIT1": "Angstrom", "CRPIX1": 1.0})
    header.update({"CRVAL1": 4000.0, "CDELT1": 1.0, "BUNIT": "Jy"})
    path = tmp_path / "spectrum.fits"
    fits.PrimaryHDU(np.ones(2000, dtype="f4"), header=header).writeto(path)
    read = Spectrum.read(path)
    for given in (Spectrum(flux=np.ones(2000) * u.Jy, wcs=WCS(header)), read, read[:1500]):
        axis = given.spectral_axis.to_value(u.AA)
        expected = air_to_vacuum(axis) if ctype.startswith("AWAV") else axis
        assert np.allclose(spectrum_arrays(given).wavelength, expected, rtol=1e-10)
        assert np.allclose(spectrum_arrays(given, medium="vacuum").wavelength, axis, rtol=1e-10)


@pytest.mark.parametrize(
    ("meta", "air"),
    [
        ({"AIRORVAC": "air"}, True),
        ({"AIRORVAC": "vac"}, False),
        ({"header": fits.Header({"AIRORVAC": "AIR"})}, True),
        ({"header": {"VACUUM": False}}, True),
        ({"header": {"VACUUM": True}}, False),
        ({"header": fits.Header({"CTYPE1": "AWAV"})}, True),
        ({"airorvac": "air"}, True),
    ],
)
def test_medium_of_the_header_is_used(meta, air):
    given = Spectrum(flux=SMOOTH * UNIT, spectral_axis=WAVELENGTH * u.AA, meta=meta)
    expected = air_to_vacuum(WAVELENGTH) if air else WAVELENGTH
    assert np.allclose(spectrum_arrays(given).wavelength, expected, rtol=1e-12)


@pytest.mark.parametrize(
    "redshift",
    [
        np.array([0.05, np.nan]),
        np.ma.array([0.05, 0.02], mask=[False, True]),
        MaskedColumn([0.05, 0.02], mask=[False, True]),
        Masked(np.array([0.05, 0.02]), mask=[False, True]),
        Masked([0.05, 0.02] * u.one, mask=[False, True]),
    ],
    ids=["nan", "masked array", "masked column", "Masked", "masked quantity"],
)
def test_missing_redshifts_are_flagged(redshift):
    given = spectrum(np.stack([SMOOTH, SMOOTH]), error=0.5)
    table = measure_indices(given, ["Mgb", "Dn4000"], redshift=redshift)
    assert table["flags"].tolist() == [0, Flag.NO_REDSHIFT]
    assert table["flag"].tolist() == ["", "no redshift"]
    assert np.isfinite(table["Mgb"][0]) and np.isnan(table["Mgb"][1])
    lines = measure_lines(given, "halpha", redshift=redshift, stellar_absorption=False)
    assert np.isfinite(lines["flux_err"][0]) and np.isnan(lines["flux"][1])
    assert lines["flags"][1] == Flag.NO_REDSHIFT and lines["flag"][1] == "no redshift"


def test_spectrum_with_missing_redshift_is_flagged():
    table = measure_indices(spectrum(SMOOTH, np.nan, 0.5), "Mgb")
    assert np.isnan(table["Mgb"][0]) and table["flags"][0] == Flag.NO_REDSHIFT


@pytest.mark.parametrize("padding", [0.0, -1.0])
def test_pixels_without_wavelength_are_ignored(padding):
    wavelength = WAVELENGTH.copy()
    wavelength[:50] = np.minimum(padding - np.arange(50)[::-1] * abs(padding), 0)
    found = spectrum_arrays(spectrum(SMOOTH, wavelength=wavelength))
    assert np.array_equal(found.wavelength, WAVELENGTH[50:])
    assert np.array_equal(found.flux[0], SMOOTH[50:])


def test_zeros_without_data_are_unusable():
    flux = SMOOTH.copy()
    flux[:300] = flux[-1:] = flux[2000:2100] = flux[3000] = 0
    good = spectrum_arrays(spectrum(flux)).good[0]
    assert not good[:300].any() and not good[2000:2100].any()
    assert good[300:2000].all() and good[2100:].all()
    # Far from a line, a spectrum without continuum is zero.
    lines = emission({"halpha": 300.0}, 0.05, 60.0)
    assert spectrum_arrays(spectrum(lines)).good.all()


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e200, 1e290])
def test_extreme_fluxes_are_measured(scale):
    flux = 10 + emission({"halpha": 300.0}, 0.05, 110.0)
    given = spectrum(flux * scale, 0.05, 0.1 * scale)
    lines = measure_lines(given, "halpha", stellar_absorption=False)
    assert lines["flux"][0].value == pytest.approx(300 * scale, rel=0.01)
    assert lines["flux"].unit == UNIT * u.AA and lines["flags"][0] == 0
    expected = measure_indices(spectrum(flux, 0.05, 0.1), "Mgb")
    table = measure_indices(given, "Mgb")
    assert table["Mgb_err"][0].value == pytest.approx(expected["Mgb_err"][0].value)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_spectra_of_few_pixels_are_not_covered(n):
    table = measure_indices(spectrum(np.ones(n), wavelength=np.linspace(5000, 5100, n)), "Mgb")
    assert np.isnan(table["Mgb"][0]) and table["flags"][0] == Flag.NOT_COVERED
