"""Tests of tables of all draws."""

import astropy.units as u
import numpy as np
import pytest
from spectrum_cases import HALPHA, line, log_grid

from astrogenspec import SpectrumDraws, get_survey
from astrogenspec.quantities import FLUX_UNIT
from astrogenspec.reports.draw_tables import draw_table


def spectra_with_halpha():
    """Return flat spectra with one line of known flux, of which one draw is missing."""
    wavelength = log_grid()
    redshift = np.array([[0.05, 0.06], [0.07, np.nan]])
    flux = np.full((2, 2, wavelength.size), 10.0)
    for k, draw, strength in ((0, 0, 300.0), (0, 1, 500.0), (1, 0, 200.0)):
        flux[k, draw] += line(wavelength, HALPHA * (1 + redshift[k, draw]), strength)
    flux[1, 1] = np.nan
    numbers = np.array([[3, 4], [5, -1]])
    return SpectrumDraws(
        flux * FLUX_UNIT, wavelength, redshift, names=["a", "b"], posterior_draw=numbers
    )


def test_every_draw_has_a_row():
    spectra = spectra_with_halpha()
    table = draw_table(spectra, surveys=["sdss", "des"], lines="halpha")
    assert table["name"].tolist() == ["a", "a", "b", "b"]
    assert table["draw"].tolist() == [0, 1, 0, 1]
    assert table["posterior_draw"].tolist() == [3, 4, 5, -1]
    np.testing.assert_allclose(table["halpha_flux"].value, [300, 500, 200, np.nan], rtol=0.02)
    width = np.array([300 / 10.5, 500 / 10.6, 200 / 10.7, np.nan])
    np.testing.assert_allclose(table["halpha_equivalent_width"].value, width, rtol=0.03)
    expected = spectra.photometry("sdss")[..., get_survey("sdss").bands.index("r")]
    np.testing.assert_array_equal(table["flux_sdss_r"].value, expected.value.ravel())
    assert table["flux_des_i"].unit == u.nmgy
    assert np.isfinite(table["flux_sdss_r"][0])


def test_photometry_or_lines_may_be_omitted():
    spectra = spectra_with_halpha()[:1]
    assert not [n for n in draw_table(spectra, lines=()).colnames if "halpha" in n]
    single = draw_table(spectra, lines=(), filters=["decam2014-r"])
    expected = spectra.photometry(filters=["decam2014-r"])[:, :, 0].ravel()
    assert np.array_equal(single["flux_decam2014-r"], expected, equal_nan=True)
    assert not [n for n in draw_table(spectra, surveys=(), lines="halpha").colnames if "sdss" in n]


def test_wrong_arguments_are_errors():
    spectra = spectra_with_halpha()
    with pytest.raises(ValueError, match="Halfa"):
        draw_table(spectra, lines="Halfa")
    with pytest.raises(ValueError, match="rest frame"):
        draw_table(spectra[:1].rest_frame())
