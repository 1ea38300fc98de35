"""Emission lines of known flux, with continuum, absorption, noise, masks and broad wings.

No stellar grid is needed.
"""

import pickle

import astropy.units as u
import numpy as np
import pytest
from measure_cases import REST, UNIT, WAVELENGTH, emission, gaussian, spectrum
from specutils import SpectralRegion, Spectrum
from specutils.fitting import fit_lines as specutils_fit

from astrogenspec import Flag
from astrogenspec.measure import DEFAULT_LINES, equivalent_width, line_flux, measure_lines
from astrogenspec.measure import lines as lines_module

Z, INSTRUMENT = 0.06, 299792.458 / 2.35482 / 1850
FLUXES = {
    "oii3726": 60.0, "oii3729": 80.0, "hgamma": 45.0, "hbeta": 100.0,
    "oiii4959": 70 / 2.98, "oiii5007": 70.0,
    "nii6548": 90 / 3.05, "halpha": 310.0, "nii6584": 90.0, "sii6717": 50.0, "sii6731": 40.0,
}  # fmt: skip
CONTINUUM = 8 + 2 * (WAVELENGTH / 6000 - 1)


def galaxy(velocity=25.0, sigma=90.0):
    return CONTINUUM + emission(FLUXES, Z, np.hypot(sigma, INSTRUMENT), velocity)


def by_line(table):
    return {str(row["line"]): row for row in table}


def test_fluxes_widths_and_kinematics_of_clean_lines_are_recovered():
    table = by_line(measure_lines(spectrum(galaxy(), Z), stellar_absorption=False))
    assert set(table) == set(DEFAULT_LINES)
    for name, flux in FLUXES.items():
        assert table[name]["flux"].to_value(UNIT * u.AA) == pytest.approx(
            flux, rel=0.01, abs=0.5
        ), name
        assert table[name]["velocity"].value == pytest.approx(25, abs=1)
        assert table[name]["dispersion"].value == pytest.approx(90, abs=2)
    level = np.interp(REST["halpha"] * (1 + Z), WAVELENGTH, CONTINUUM)
    width = 310 / level / (1 + Z)
    assert table["halpha"]["equivalent_width"].to_value(u.AA) == pytest.approx(width, rel=0.01)
    assert table["neiii3869"]["flag"] == "not detected"


def test_doublets_keep_their_ratios():
    table = by_line(measure_lines(spectrum(galaxy(), Z), stellar_absorption="local"))
    ratio = table["oiii5007"]["flux"] / table["oiii4959"]["flux"]
    assert float(ratio) == pytest.approx(2.98)
    assert float(table["nii6584"]["flux"] / table["nii6548"]["flux"]) == pytest.approx(3.05)


def test_balmer_absorption_is_made_good():
    absorbed = sum(
        gaussian(REST[name] * (1 + Z), 35.0 * depth, 5 / REST[name] * 299792.458)
        for name, depth in {"hdelta": 1, "hgamma": 1, "hbeta": 1, "halpha": 0.7}.items()
    )
    given = spectrum(galaxy() - absorbed, Z)
    naive = by_line(measure_lines(given, stellar_absorption=False))
    local = by_line(measure_lines(given, stellar_absorption="local"))
    assert naive["hbeta"]["flux"].value < 90
    assert local["hbeta"]["flux"].value == pytest.approx(100, rel=0.05)
    assert local["halpha"]["flux"].value == pytest.approx(310, rel=0.03)


def test_errors_cover_the_truth():
    rng = np.random.default_rng(4)
    error = 0.6
    pulls = []
    for _ in range(12):
        noisy = spectrum(galaxy() + error * rng.normal(size=3841), Z, error)
        table = by_line(measure_lines(noisy, stellar_absorption=False))
        pulls.append([
            (table[name]["flux"].value - flux) / table[name]["flux_err"].value
            for name, flux in FLUXES.items()
        ])  # fmt: skip
    assert 0.7 < np.std(pulls) < 1.3
    assert abs(np.mean(pulls)) < 0.4


def test_agrees_with_the_line_fit_of_specutils():
    from astropy.modeling.models import Gaussian1D

    table = by_line(measure_lines(spectrum(galaxy(), Z), stellar_absorption=False))
    residual = Spectrum(flux=(galaxy() - CONTINUUM) * UNIT, spectral_axis=WAVELENGTH * u.AA)
    centre = REST["oiii5007"] * (1 + Z)
    start = Gaussian1D(amplitude=10 * UNIT, mean=centre * u.AA, stddev=2 * u.AA)
    window = SpectralRegion((centre - 15) * u.AA, (centre + 15) * u.AA)
    fitted = specutils_fit(residual, start, window=window)
    flux = fitted.amplitude * fitted.stddev * np.sqrt(2 * np.pi)
    assert table["oiii5007"]["flux"].value == pytest.approx(flux.to_value(UNIT * u.AA), rel=0.01)


def test_uncovered_or_masked_lines_are_nan_and_flagged():
    mask = np.abs(WAVELENGTH / (REST["hbeta"] * 1.5) - 1) < 1e-3
    table = by_line(
        measure_lines(
            spectrum(galaxy(), 0.5, 0.1, mask),
            ["halpha", "hbeta", "oii3729"],
            stellar_absorption=False,
        )
    )
    assert table["halpha"]["flag"] == "outside the wavelength range"
    assert table["hbeta"]["flag"] == "masked"
    assert table["halpha"]["flags"] == Flag.NOT_COVERED
    assert table["hbeta"]["flags"] == Flag.BAD_PIXELS
    assert table["oii3729"].colnames[-2:] == ["flags", "flag"]
    assert np.isnan(table["halpha"]["flux"]) and np.isnan(table["hbeta"]["equivalent_width"])
    assert np.isfinite(table["oii3729"]["flux"])


def test_spectrum_without_covered_lines_is_flagged():
    table = measure_lines(spectrum(np.ones(3841), 3.0), "halpha", stellar_absorption=False)
    assert np.isnan(table["flux"][0]) and table["flag"][0] and table["flags"][0]
    assert table["flags"].dtype == np.int64


def test_without_lines_fluxes_scatter_about_zero():
    rng = np.random.default_rng(5)
    flux = CONTINUUM + 0.3 * rng.normal(size=(4, 3841))
    table = measure_lines(spectrum(flux, Z, 0.3), stellar_absorption=False)
    assert (np.abs(table["flux"]) < 5 * table["flux_err"]).all()
    assert (table["flag"] == "no line detected, kinematics assumed").all()
    assert (table["flags"] == int(Flag.WEAK_LINE | Flag.ASSUMPTION)).all()


def test_broad_component_is_separated_from_the_narrow_line():
    broad = gaussian(REST["halpha"] * (1 + Z), 1500.0, 1500.0)
    broad += gaussian(REST["hbeta"] * (1 + Z), 450.0, 1500.0)
    names = [*DEFAULT_LINES, "broad_halpha"]
    table = by_line(measure_lines(spectrum(galaxy() + broad, Z), names, stellar_absorption=False))
    assert table["broad_halpha"]["flux"].value == pytest.approx(1500, rel=0.05)
    assert table["halpha"]["flux"].value == pytest.approx(310, rel=0.05)
    assert table["halpha"]["flag"] == "beside a broad line"
    assert table["halpha"]["flags"] == Flag.BROAD_LINE
    assert table["broad_halpha"]["flags"] == 0
    clean = by_line(measure_lines(spectrum(galaxy(), Z), names, stellar_absorption=False))
    assert clean["broad_halpha"]["flag"] == "no broad line found"
    assert clean["broad_halpha"]["flags"] == Flag.WEAK_LINE
    assert clean["halpha"]["flags"] == 0


def test_stack_has_rows_for_every_spectrum():
    flux = np.stack([galaxy(), 2 * galaxy()])
    table = measure_lines(spectrum(flux, Z), ["halpha", "hbeta"], stellar_absorption=False)
    assert table["spectrum"].tolist() == [0, 0, 1, 1]
    assert float(table["flux"][2] / table["flux"][0]) == pytest.approx(2, rel=1e-4)


def test_functions_for_draws_return_quantities_and_pickle():
    given = spectrum(galaxy(), Z)
    flux = line_flux("halpha", stellar_absorption="local")(given)
    assert flux.unit == UNIT * u.AA and flux.value == pytest.approx(310, rel=0.01)
    both = pickle.loads(
        pickle.dumps(equivalent_width("halpha", "hbeta", stellar_absorption="local"))
    )
    assert set(both(given)) == {"halpha", "hbeta"}


def test_linear_grid_and_air_wavelengths():
    wavelength = np.arange(3800.0, 9200.0, 0.8)
    flux = 8 + emission(FLUXES, Z, 120.0, 0.0, wavelength)
    table = by_line(
        measure_lines(spectrum(flux, Z, wavelength=wavelength), stellar_absorption=False)
    )
    assert table["halpha"]["flux"].value == pytest.approx(310, rel=0.01)
    shifted = by_line(
        measure_lines(
            spectrum(flux, Z, wavelength=wavelength), stellar_absorption=False, medium="air"
        )
    )
    assert shifted["halpha"]["velocity"].value - table["halpha"]["velocity"].value == pytest.approx(
        82, abs=3
    )


def test_missing_templates_raise(monkeypatch):
    from astrogenspec.measure import templates

    monkeypatch.setattr(templates, "templates_available", lambda: False)
    monkeypatch.setattr(lines_module, "templates_available", lambda: False)
    templates.stellar_templates.cache_clear()
    with pytest.raises(ImportError, match=r"astrogenspec\[simulate\]"):
        measure_lines(spectrum(galaxy(), Z), stellar_absorption="templates")
    assert measure_lines(spectrum(galaxy(), Z), "halpha")["flux"][0].value == pytest.approx(
        310, rel=0.01
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lines": "h_alpha"}, "did you mean 'halpha'"),
        ({"stellar_absorption": "none"}, "'templates' or 'local'"),
        ({"resolution": -1.0, "stellar_absorption": False}, "resolving power"),
    ],
)
def test_invalid_arguments_raise(options, words):
    with pytest.raises(ValueError, match=words):
        measure_lines(spectrum(galaxy(), Z), **options)


@pytest.mark.parametrize("level", [0.0, -10.0, 10.0])
def test_spectra_without_continuum_have_no_equivalent_width(level):
    flux = np.stack([np.full(len(WAVELENGTH), level), np.full(len(WAVELENGTH), 10.0)])
    table = measure_lines(spectrum(flux, 0.05, 0.5), "halpha", stellar_absorption="local")
    assert np.allclose(table["flux"].value, 0, atol=1e-6) and (table["flux_err"] > 0).all()
    assert np.isfinite(table["equivalent_width"]).tolist() == [level > 0, True]
    assert (table["flags"] & Flag.WEAK_LINE != 0).all()
