import astropy.units as u
import numpy as np
import pytest
from astropy.cosmology import FlatLambdaCDM, LambdaCDM, Planck18
from numpy.testing import assert_allclose, assert_array_equal

from astrogenspec.cosmology import default_cosmology, luminosity_distance


def test_default_parameters():
    cosmology = default_cosmology()
    assert cosmology.H0.to_value(u.km / u.s / u.Mpc) == 70
    assert cosmology.Om0 == 0.3
    assert cosmology is default_cosmology()


@pytest.mark.parametrize("top", [0.01, 2, 10])
def test_distances_agree_with_astropy(top):
    z = np.linspace(1e-6, top, 2001)
    expected = default_cosmology().luminosity_distance(z)
    assert_allclose(luminosity_distance(z).to_value(u.Mpc), expected.to_value(u.Mpc), rtol=1e-7)


@pytest.mark.parametrize("cosmology", [Planck18, FlatLambdaCDM(H0=50, Om0=1)])
def test_other_flat_cosmologies(cosmology):
    z = np.array([[0.05], [0.3]])
    expected = cosmology.luminosity_distance(z)
    assert_allclose(
        luminosity_distance(z, cosmology=cosmology).to_value(u.Mpc),
        expected.to_value(u.Mpc),
        rtol=1e-6,
    )


def test_shapes_and_missing_values():
    assert luminosity_distance(0.1).shape == ()
    assert luminosity_distance(np.zeros((0, 3))).shape == (0, 3)
    assert luminosity_distance(np.float32([[0.1]])).dtype == float
    values = luminosity_distance([0, np.nan, -0.1]).value
    assert_array_equal(values, [0, np.nan, np.nan])


def test_blocks_do_not_change_distances(monkeypatch):
    z = np.linspace(0, 0.5, 100).reshape(10, 10)
    whole = luminosity_distance(z)
    monkeypatch.setattr("astrogenspec.cosmology._BLOCK", 7)
    assert_array_equal(luminosity_distance(z), whole)


def test_invalid_input_raises():
    with pytest.raises(ValueError, match="redshift has an infinite value"):
        luminosity_distance([0.1, np.inf])
    with pytest.raises(u.UnitConversionError):
        luminosity_distance(0.1 * u.Mpc)
    with pytest.raises(ValueError, match="is curved"):
        luminosity_distance(0.1, cosmology=LambdaCDM(H0=70, Om0=0.3, Ode0=0.5))
