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


def test_get_survey():
    assert get_survey("SDSS") is SDSS is get_survey(SDSS)
    assert "0.396 arcsec" in repr(SDSS)
    with pytest.raises(ValueError, match="name is 'lsst', but the known surveys are: sdss"):
        get_survey("lsst")


def test_pickling():
    assert pickle.loads(pickle.dumps(SDSS)).gain == SDSS.gain
