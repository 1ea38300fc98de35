"""Surveys: completeness and consistency of their data."""

import pickle

import astropy.units as u
import numpy as np
import pytest
from speclite import filters

from astrogenspec.surveys import BANDS, CUTOUT_SIZE, SDSS, get_survey

MAPPINGS = (
    "psf_fwhm",
    "sky_brightness",
    "gain",
    "dark_variance",
    "nmgy_per_dn",
    "extinction_coefficient",
    "pivot_wavelength",
    "filter_names",
    "pixel_sigma",
)


@pytest.mark.parametrize("name", MAPPINGS)
def test_every_band_has_an_entry(name):
    assert tuple(getattr(SDSS, name)) == BANDS == SDSS.bands


def test_literature_values():
    assert list(SDSS.extinction_coefficient.values()) == [4.239, 3.303, 2.285, 1.698, 1.263]
    assert SDSS.pixel_scale == 0.396 * u.arcsec
    assert SDSS.fibre_diameter == 3 * u.arcsec
    assert CUTOUT_SIZE == 64


@pytest.mark.parametrize("band", BANDS)
def test_pixel_noise_follows_from_sky_gain_and_calibration(band):
    area = SDSS.pixel_scale.to_value(u.arcsec) ** 2
    magnitude = SDSS.sky_brightness[band].value - 2.5 * np.log10(area)
    counts = 10 ** (0.4 * (22.5 - magnitude)) / SDSS.nmgy_per_dn[band]
    sigma = np.sqrt(counts / SDSS.gain[band] + SDSS.dark_variance[band]) * SDSS.nmgy_per_dn[band]
    assert sigma == pytest.approx(SDSS.pixel_sigma[band], rel=0.15)


@pytest.mark.parametrize("band", BANDS)
def test_pivot_wavelengths_are_those_of_the_filters(band):
    curve = filters.load_filter(SDSS.filter_names[band])
    wave, response = curve.wavelength, curve.response
    pivot = np.sqrt(np.trapezoid(response * wave, wave) / np.trapezoid(response / wave, wave))
    assert SDSS.pivot_wavelength[band].to_value(u.AA) == pytest.approx(pivot, rel=1e-3)


def test_numbers_of_sdss_do_not_change():
    """The bundled weights were trained with these numbers."""
    numbers = {
        "psf_fwhm": (1.53, 1.44, 1.32, 1.26, 1.29),
        "sky_brightness": (22.0, 21.85, 20.86, 20.2, 18.95),
        "gain": (1.59, 3.845, 4.72, 4.86, 4.885),
        "dark_variance": (8.7025, 1.3225, 1.3225, 4.6225, 1.0),
        "nmgy_per_dn": (0.0093, 0.0038, 0.0052, 0.0067, 0.034),
        "extinction_coefficient": (4.239, 3.303, 2.285, 1.698, 1.263),
        "pivot_wavelength": (3589.3, 4701.4, 6177.2, 7496.5, 8904.2),
        "pixel_sigma": (0.047, 0.017, 0.029, 0.045, 0.18),
        "asinh_softening": (0.14, 0.09, 0.12, 0.18, 0.74),
    }
    units = {"psf_fwhm": u.arcsec, "pivot_wavelength": u.AA}
    units["sky_brightness"] = u.mag(u.AB / u.arcsec**2)
    for key, values in numbers.items():
        found = getattr(SDSS, key)
        assert [getattr(value, "value", value) for value in found.values()] == list(values)
        for value in found.values():
            assert getattr(value, "unit", None) == units.get(key)
    assert SDSS.filter_names == {band: f"sdss2010-{band}" for band in "ugriz"}


def test_get_survey():
    assert get_survey("SDSS") is SDSS is get_survey(SDSS)
    assert "0.396 arcsec" in repr(SDSS)
    with pytest.raises(ValueError, match="name is 'nope', but the known surveys are: .*sdss"):
        get_survey("nope")


def test_pickling():
    assert pickle.loads(pickle.dumps(SDSS)).gain == SDSS.gain
