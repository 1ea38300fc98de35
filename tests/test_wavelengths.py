"""Tests of wavelength grids."""

import astropy.units as u
import numpy as np
import pytest
from specutils import Spectrum

from astrogenspec.measure import measure_lines
from astrogenspec.quantities import FLUX_UNIT
from astrogenspec.wavelengths import LINES, MEASURED_LINES, SED_GRID


def test_weights_of_a_box_and_of_a_filter_outside():
    inside = SED_GRID.average_weights(np.array([5000.0, 6000.0]), np.array([3.0, 3.0]))
    covered = (SED_GRID.wavelength > 5040) & (SED_GRID.wavelength < 5960)
    assert inside[covered] == pytest.approx(SED_GRID.step * np.log(10) / np.log(1.2), rel=1e-4)
    assert inside.sum() == pytest.approx(1, abs=1e-6)
    half = SED_GRID.average_weights(np.array([24000.0, 26223.0]), np.array([1.0, 1.0]))
    assert half.sum() == pytest.approx(np.log(25113 / 24000) / np.log(26223 / 24000), abs=1e-3)


def test_lines_have_the_names_and_wavelengths_of_measured_lines():
    flat = Spectrum(
        flux=np.ones(4000) * FLUX_UNIT,
        spectral_axis=np.geomspace(3600, 9400, 4000) * u.AA,
        redshift=0.0,
    )
    table = measure_lines(flat, MEASURED_LINES)
    measured = dict(zip(table["line"], table["wavelength"].value, strict=True))
    assert len(MEASURED_LINES) == len(LINES)
    for name, wavelength in zip(MEASURED_LINES, LINES.values(), strict=True):
        assert abs(measured[name] - wavelength) < 0.5
