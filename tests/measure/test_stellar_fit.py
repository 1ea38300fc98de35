"""Template fits: kinematics, populations and lines of simulated spectra with known parameters."""

import pickle

import astropy.units as u
import numpy as np
import pytest
from measure_cases import WAVELENGTH, emission, spectrum

from astrogenspec import Flag
from astrogenspec.measure import (
    measure_kinematics,
    measure_lines,
    measure_populations,
    measure_redshift,
    population,
    templates,
    velocity_dispersion,
)
from astrogenspec.measure.inputs import LIGHT_SPEED, instrument_dispersion
from astrogenspec.measure.populations import calzetti
from astrogenspec.measure.stellar_fit import non_negative
from astrogenspec.measure.templates import library_dispersion, stellar_templates

Z = 0.05


def test_non_negative_recovers_the_weights():
    rng = np.random.default_rng(1)
    design, truth = rng.uniform(size=(5, 60)), np.array([1.0, 0.0, 2.0, 0.0, 0.5])
    weights, factor = non_negative(design @ design.T, design @ (truth @ design))
    assert weights == pytest.approx(truth, abs=1e-6)
    assert np.allclose(factor.T @ factor, design @ design.T)
    with pytest.raises(ValueError, match="finite"):
        non_negative(np.full((2, 2), np.nan), np.ones(2))


def test_attenuation_curve_of_calzetti():
    assert calzetti(np.array(5500.0)) == pytest.approx(4.05, abs=0.02)
    assert calzetti(np.array([6299.9, 6300.1])) == pytest.approx([3.49, 3.49], abs=0.03)
    assert calzetti(np.array(4400.0)) - calzetti(np.array(5500.0)) == pytest.approx(1.0, abs=0.1)


def test_missing_templates_raise(monkeypatch):
    monkeypatch.setattr(templates, "templates_available", lambda: False)
    templates.stellar_templates.cache_clear()
    for measure in (measure_kinematics, measure_populations):
        with pytest.raises(ImportError, match=r"astrogenspec\[simulate\]"):
            measure(spectrum(np.ones(3841), Z))


@pytest.mark.parametrize("flux", [np.zeros(3841), np.full(3841, -10.0)])
def test_failed_fits_are_flagged(flux):
    given = spectrum(np.stack([flux, 20 + flux]), Z, 0.5)
    for measure, name in ((measure_kinematics, "dispersion"), (measure_populations, "log_age")):
        table = measure(given)
        assert np.isfinite(table[name].value).tolist() == [False, True]
        assert table["flags"][0] == Flag.FIT_FAILED
        assert table["flag"][0] == "the template fit failed"
    missing = measure_kinematics(given, redshift=[np.nan, Z])
    assert missing["flags"][0] == Flag.NO_REDSHIFT and np.isnan(missing["velocity"][0])
    assert measure_populations(given, redshift=np.nan)["flag"].tolist() == ["no redshift"] * 2


def stars(sigma=160.0, ebv=0.0, fractions=None, velocity=0.0, redshift=Z):
    """Mixture of the nearest templates; light fractions by (log age, metallicity)."""
    grid = stellar_templates()
    fractions = fractions or {(9.9, 0.0): 0.8, (8.8, -0.4): 0.2}
    weights = np.zeros(len(grid))
    truth = np.zeros(2)
    for (age, metal), fraction in fractions.items():
        k = np.nanargmin(np.abs(grid.log_age - age) + np.abs(grid.metallicity - metal))
        weights[k] += fraction
        truth += fraction * np.array([grid.log_age[k], grid.metallicity[k]])
    rest = WAVELENGTH / (1 + redshift)
    gap = (
        instrument_dispersion(1850) ** 2
        - library_dispersion(rest[(rest > 3750) & (rest < 7300)]) ** 2
    )
    shifted = (1 + redshift) * (1 + velocity / LIGHT_SPEED) - 1
    width = np.sqrt(sigma**2 + gap.mean())
    flux = grid.observed(np.log10(WAVELENGTH[0]), len(WAVELENGTH), shifted, width, weights)
    return 10 * flux * 10 ** (-0.4 * ebv * calzetti(rest)), truth


@pytest.mark.parametrize("sigma", [90.0, 240.0])
def test_velocity_and_dispersion_are_recovered(sigma):
    flux, _ = stars(sigma, ebv=0.2, velocity=60.0)
    error = 0.05 * flux
    flux = flux * (1 + 0.1 * np.sin(WAVELENGTH / 900)) + emission(
        {"halpha": 100.0, "hbeta": 30.0}, Z, 120
    )
    rng = np.random.default_rng(2)
    row = measure_kinematics(spectrum(flux + error * rng.normal(size=flux.shape), Z, error))[0]
    assert row["velocity"].value == pytest.approx(60, abs=4 * row["velocity_err"].value)
    assert row["dispersion"].value == pytest.approx(sigma, abs=4 * row["dispersion_err"].value)
    assert 2 < row["dispersion_err"].value < 15 and row["flag"] == ""
    assert row["reduced_chi2"] == pytest.approx(1, abs=0.1)


def test_age_metallicity_and_reddening_are_recovered():
    flux, truth = stars(ebv=0.25)
    error = 0.04 * flux
    rng = np.random.default_rng(3)
    row = measure_populations(spectrum(flux + error * rng.normal(size=flux.shape), Z, error))[0]
    assert row["log_age"].value == pytest.approx(truth[0], abs=0.15)
    assert row["metallicity"].value == pytest.approx(truth[1], abs=0.15)
    assert row["ebv"].value == pytest.approx(0.25, abs=0.04)
    assert 0.001 < row["log_age_err"].value < 0.2 and row["log_age"].unit == u.dex(u.yr)
    young, _ = stars(fractions={(8.0, 0.0): 1.0})
    assert measure_populations(spectrum(young, Z))["log_age"][0].value < 8.3


def test_lines_over_absorption_are_recovered():
    flux, _ = stars(fractions={(9.0, 0.0): 1.0})
    lines = {
        "hdelta": 8.0,
        "hgamma": 16.0,
        "hbeta": 35.0,
        "halpha": 100.0,
        "nii6584": 40.0,
        "nii6548": 40 / 3.05,
    }
    table = measure_lines(
        spectrum(flux + emission(lines, Z, 120.0), Z), list(lines), stellar_absorption="templates"
    )
    for row in table:
        assert row["flux"].value == pytest.approx(lines[str(row["line"])], abs=1.5), row["line"]


def test_redshift_of_stars():
    flux, _ = stars(redshift=0.113)
    noisy = flux + 0.05 * flux * np.random.default_rng(4).normal(size=flux.shape)
    row = measure_redshift(spectrum(noisy, error=0.05 * flux))[0]
    assert row["redshift"] == pytest.approx(0.113, abs=1.5e-4) and row["flag"] == ""
    assert row["template"] in ("old", "intermediate")


def test_spectrum_out_of_range_is_flagged_in_a_stack():
    flux = np.stack([stars()[0], stars()[0]])
    given = spectrum(flux)
    kinematics = measure_kinematics(given, redshift=[Z, 3.0])
    populations = measure_populations(given, redshift=[Z, 3.0])
    assert np.isfinite(kinematics["dispersion"][0]) and np.isnan(kinematics["dispersion"][1])
    assert np.isfinite(populations["ebv"][0]) and np.isnan(populations["ebv"][1])
    assert kinematics["flag"][1] == populations["flag"][1] != ""
    assert kinematics["flags"].tolist() == [0, Flag.NOT_COVERED]
    assert populations["flags"].tolist() == [0, Flag.NOT_COVERED]
    assert kinematics.colnames[-2:] == populations.colnames[-2:] == ["flags", "flag"]


def test_functions_for_draws():
    given = spectrum(stars(150.0)[0], Z)
    assert velocity_dispersion(given).to_value(u.km / u.s) == pytest.approx(150, abs=5)
    found = pickle.loads(pickle.dumps(population()))(given)
    assert set(found) == {"log_age", "metallicity", "ebv"}
    with pytest.raises(ValueError, match="unknown quantity 'age'"):
        population("age")
