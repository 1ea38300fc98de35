"""Positions of quantities, and conversion of labels between conventions."""

import astropy.units as u
import numpy as np
import pytest
from astropy.table import QTable

from astrogenspec.inference.finetuning.dataset import stack_labels
from astrogenspec.quantities import (
    QUANTITIES,
    chabrier_mass,
    chabrier_sfr,
    o3n2_metallicity,
    plain_values,
    quantity_index,
)

MASS = [10.0, 11.0] * u.dex(u.Msun)
RATE = [0.0, 1.0] * u.dex(u.Msun / u.yr)


def test_quantity_index():
    assert [quantity_index(name) for name in QUANTITIES] == list(range(9))
    assert quantity_index("halpha_flux") == 5
    with pytest.raises(ValueError, match="unknown quantity 'mass'; choose from redshift"):
        quantity_index("mass")


def test_salpeter_values_are_larger_than_chabrier_values():
    np.testing.assert_allclose((chabrier_mass(MASS, "Salpeter") - MASS).value, -0.2147, atol=1e-4)
    np.testing.assert_allclose((chabrier_sfr(RATE, "salpeter") - RATE).value, -0.2007, atol=1e-4)
    np.testing.assert_allclose((chabrier_mass(MASS, "Kroupa") - MASS).value, -0.0342, atol=1e-4)
    np.testing.assert_allclose(chabrier_mass(MASS, "Chabrier").value, MASS.value)


def test_linear_units_are_kept():
    mass = chabrier_mass(2e10 * u.Msun, "Salpeter")
    assert mass.unit == u.Msun
    assert mass.value == pytest.approx(1.22e10)


def test_metallicities_of_other_scales_are_converted():
    # Kewley & Ellison (2008), figure 2: T04 is 0.2 to 0.3 dex above O3N2 at high abundance; they
    # agree near 8.1.
    assert o3n2_metallicity(9.0, "T04").value == pytest.approx(8.72, abs=0.01)
    assert o3n2_metallicity(8.1, "T04").value == pytest.approx(8.15, abs=0.05)
    assert np.isnan(o3n2_metallicity([7.9, 9.3], "T04")).all()
    ratio = np.array([-0.5, 0.5, 1.5])
    np.testing.assert_allclose(
        o3n2_metallicity(8.533 - 0.214 * ratio, "O3N2 M13").value, 8.73 - 0.32 * ratio
    )
    np.testing.assert_array_equal(o3n2_metallicity([8.5], "O3N2 PP04").value, [8.5])


def test_labels_are_converted_by_the_metadata_of_columns(tmp_path):
    table = QTable({"stellar_mass": MASS, "sfr": RATE, "gas_metallicity": [8.6, 9.0] * u.dex})
    plain = stack_labels(table)
    table["stellar_mass"].info.meta = {"imf": "Salpeter"}
    table["sfr"].info.meta = {"imf": "Kroupa"}
    table["gas_metallicity"].info.meta = {"scale": "T04"}
    table.write(tmp_path / "labels.ecsv")
    for labels in (table, QTable.read(tmp_path / "labels.ecsv")):
        moved = stack_labels(labels) - plain
        np.testing.assert_allclose(moved[:, 1], -0.2147, atol=1e-4)
        np.testing.assert_allclose(moved[:, 2], -0.0267, atol=1e-4)
        np.testing.assert_allclose(moved[:, 3], [-0.19, -0.28], atol=0.01)


@pytest.mark.parametrize(
    ("name", "meta", "message"),
    [
        ("stellar_mass", {"imf": "diet Salpeter"}, "column 'stellar_mass', imf is 'diet Salpeter'"),
        ("gas_metallicity", {"scale": "KK04"}, "column 'gas_metallicity', scale is 'KK04'"),
    ],
)
def test_unknown_conventions_raise(name, meta, message):
    unit = u.dex(u.Msun) if name == "stellar_mass" else u.dex
    table = QTable({name: [8.5, 8.6] * unit})
    table[name].info.meta = meta
    with pytest.raises(ValueError, match=message):
        stack_labels(table)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("unit", [u.dex(u.Msun), u.dex(u.one), u.ABmag, u.STmag, u.mag(u.one)])
@pytest.mark.parametrize("value", [-1e300, -999.0, 1e300])
def test_logarithms_beyond_the_range_of_numbers_are_infinite(unit, value):
    given = u.Magnitude(value, unit) if "mag" in str(unit) else u.Dex(value, unit)
    physical = unit.physical_unit
    number = plain_values(given, physical)
    assert np.isinf(number) or number == 0
    with pytest.raises(u.UnitConversionError, match="x has the unit"):
        plain_values(given, u.s, name="x")
