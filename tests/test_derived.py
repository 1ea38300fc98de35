import astropy.units as u
import numpy as np
import pytest
from astropy.table import QTable
from numpy.testing import assert_allclose, assert_array_equal
from posterior_cases import gaussian_posterior, quantity

from astrogenspec.cosmology import default_cosmology
from astrogenspec.derived import (
    BPT_CLASSES,
    DERIVED_QUANTITIES,
    bpt_class,
    bpt_fractions,
    derivable,
    derive,
    kauffmann_curve,
    kewley_curve,
)
from astrogenspec.quantities import LINE_FLUX_UNIT

FLUX = u.Unit(LINE_FLUX_UNIT)


def test_specific_star_formation_rate():
    draws = {
        "stellar_mass": quantity([[10.0, 11.0]], u.dex(u.Msun)),
        "sfr": quantity([[0.0, -1.0]], u.dex(u.Msun / u.yr)),
    }
    ssfr = derive("ssfr", draws)
    assert ssfr.unit == u.dex(1 / u.yr)
    assert_allclose(ssfr.value, [[-10, -12]])
    assert_allclose(ssfr.to_value(1 / u.Gyr), [[0.1, 0.001]])


def test_luminosity_agrees_with_astropy():
    redshift = np.array([[0.01, 0.1, 0.45]])
    flux = np.array([[1.0, 50.0, 3e3]]) * FLUX
    luminosity = derive("halpha_luminosity", {"redshift": redshift * u.one, "halpha_flux": flux})
    expected = 4 * np.pi * default_cosmology().luminosity_distance(redshift) ** 2 * flux
    assert luminosity.unit == u.dex(u.erg / u.s)
    assert_allclose(luminosity.to_value(u.W), expected.to_value(u.W), rtol=1e-6)


def test_line_ratios():
    draws = {
        "halpha_flux": [[286.0, 100.0]] * FLUX,
        "hbeta_flux": [[100.0, 10.0]] * FLUX,
        "nii6584_flux": [[28.6, 1000.0]] * FLUX,
        "oiii5007_flux": [[50.0, 20.0]] * FLUX,
    }
    assert_allclose(derive("balmer_decrement", draws).value, [[2.86, 10]])
    assert derive("balmer_decrement", draws).unit == u.dimensionless_unscaled
    assert_allclose(derive("nii_halpha", draws).value, [[-1, 1]])
    assert_allclose(derive("oiii_hbeta", draws).value, np.log10([[0.5, 2]]))
    assert derive("oiii_hbeta", draws).unit == u.dex


def test_undefined_values_are_nan():
    draws = {
        "redshift": [[0.1, 0.0, -0.1, np.nan, 0.1]] * u.one,
        "halpha_flux": [[0.0, 1.0, 1.0, 1.0, -1.0]] * FLUX,
        "hbeta_flux": [[1.0, 0.0, 1.0, np.nan, 1.0]] * FLUX,
        "nii6584_flux": [[1.0, 1.0, 0.0, 1.0, 1.0]] * FLUX,
    }
    assert np.isnan(derive("halpha_luminosity", draws).value).all()
    assert_array_equal(np.isnan(derive("balmer_decrement", draws).value[0]), [0, 1, 0, 1, 0])
    assert_array_equal(np.isnan(derive("nii_halpha", draws).value[0]), [1, 0, 1, 0, 1])


def test_every_derived_quantity_has_unit_and_description():
    posterior, _ = gaussian_posterior(2, 4)
    assert derivable(posterior.draws) == tuple(DERIVED_QUANTITIES)
    for name, info in DERIVED_QUANTITIES.items():
        values = derive(name, posterior.draws)
        assert values.unit == info.unit
        assert values.shape == (2, 4)
        assert info.label.count("$") == 2
        assert info.description.endswith(".")


def test_missing_quantities_raise():
    with pytest.raises(KeyError, match="unknown derived quantity 'mass'; choose from ssfr"):
        derive("mass", {})
    with pytest.raises(KeyError, match="add hbeta_flux to the draws .they contain halpha_flux"):
        derive("balmer_decrement", {"halpha_flux": [[1.0]] * FLUX})


# ---- classes of the [N II] diagram


@pytest.mark.parametrize(
    ("x", "y", "name"),
    [
        (-0.8, 0.0, "star_forming"),
        (-0.35, -0.4, "star_forming"),
        (-0.15, -0.2, "composite"),
        (0.04, -1.0, "composite"),
        (0.1, -1.0, "composite"),
        (0.1, 0.9, "agn"),
        (-0.5, 1.1, "agn"),
        (0.5, -3.0, "agn"),
        (-1.5, 0.89, "agn"),
    ],
)
def test_classes(x, y, name):
    assert BPT_CLASSES[bpt_class(x, y)] == name


def test_curves_have_published_values():
    assert_allclose(kauffmann_curve(-0.45), 0.08)
    assert_allclose(kewley_curve(-0.14), 0.19)
    assert kauffmann_curve(0.05) == kewley_curve(0.47) == -np.inf


def test_classes_are_ordered_along_a_vertical_line():
    y = np.linspace(-3, 2, 200)
    for x in (-1.2, -0.6, -0.2, 0.0):
        assert (np.diff(bpt_class(np.full(200, x), y)) >= 0).all()


def test_ratios_that_are_not_finite_have_no_class():
    assert_array_equal(bpt_class([np.nan, 0, np.inf], [0, np.nan, 0]), -1)


def test_fractions_are_those_of_the_draws():
    x = quantity([[-0.8, -0.8, -0.15, 0.1], [-0.8, np.nan, np.nan, np.nan]], u.dex)
    y = quantity([[0.0, 0.0, -0.2, 0.9], [0.0, 0.0, 0.0, 0.0]], u.dex)
    fractions = bpt_fractions(x, y)
    assert_allclose(fractions["star_forming"], [0.5, 1])
    assert_allclose(fractions["composite"], [0.25, 0])
    assert_allclose(fractions["agn"], [0.25, 0])


def test_fractions_without_finite_draws_are_masked():
    fractions = bpt_fractions(np.full((2, 3), [[0.0], [np.nan]]), np.zeros((2, 3)))
    assert_array_equal(QTable(fractions)["agn"].mask, [False, True])
    assert bpt_fractions(np.zeros((0, 3)), np.zeros((0, 3)))["agn"].shape == (0,)
