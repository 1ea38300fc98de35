"""Tests of wavelength grids."""

import numpy as np
import pytest

from astrogenspec.wavelengths import SED_GRID


def test_weights_of_a_box_and_of_a_filter_outside():
    inside = SED_GRID.average_weights(np.array([5000.0, 6000.0]), np.array([3.0, 3.0]))
    covered = (SED_GRID.wavelength > 5040) & (SED_GRID.wavelength < 5960)
    assert inside[covered] == pytest.approx(SED_GRID.step * np.log(10) / np.log(1.2), rel=1e-4)
    assert inside.sum() == pytest.approx(1, abs=1e-6)
    half = SED_GRID.average_weights(np.array([24000.0, 26223.0]), np.array([1.0, 1.0]))
    assert half.sum() == pytest.approx(np.log(25113 / 24000) / np.log(26223 / 24000), abs=1e-3)
