"""Filters: curves, the numbers that follow from them, and invalid curves."""

import pickle

import astropy.units as u
import numpy as np
import pytest
from astropy.table import QTable
from speclite import filters as speclite_filters

from astrogenspec.surveys import Filter, galactic_extinction, get_filter, register_filter

#: Schlafly & Finkbeiner (2011), table 6, R_V = 3.1.
EXTINCTION = {
    "sdss2010": {"u": 4.239, "g": 3.303, "r": 2.285, "i": 1.698, "z": 1.263},
    "decam2014": {"g": 3.237, "r": 2.176, "i": 1.595, "z": 1.217, "Y": 1.058},
    "decamDR1": {"g": 3.237, "r": 2.176, "i": 1.595, "z": 1.217, "Y": 1.058},
    "panstarrs": {"g": 3.172, "r": 2.271, "i": 1.682, "z": 1.322, "y": 1.087},
    "lsst2016": {"u": 4.145, "g": 3.237, "r": 2.273, "i": 1.684, "z": 1.323, "y": 1.088},
    "lsst2023": {"u": 4.145, "g": 3.237, "r": 2.273, "i": 1.684, "z": 1.323, "y": 1.088},
    "twomass": {"J": 0.723, "H": 0.460, "Ks": 0.310},
}


def top_hat(name="mine-x", low=5000.0, high=6000.0, factor=1.0):
    edges = np.array([low - 1, low, high, high + 1]) * factor
    return Filter(name, name.rpartition("-")[2], edges, np.array([0.0, 1, 1, 0]))


@pytest.mark.parametrize(
    ("name", "coefficient"),
    [(f"{group}-{band}", c) for group, bands in EXTINCTION.items() for band, c in bands.items()],
)
def test_extinction_coefficients_are_those_of_the_literature(name, coefficient):
    assert get_filter(name).extinction_coefficient == pytest.approx(coefficient, rel=0.02)


def test_extinction_law():
    wave = np.array([1e4, 4400.0, 5500.0, 2175.0])
    law = galactic_extinction(wave)
    assert law[0] == pytest.approx(0.78 * 1.32)
    # E(B-V) of the law is 0.88 of that of Schlegel et al. (1998), and the bump is a maximum.
    assert law[1] - law[2] == pytest.approx(0.88, abs=0.06)
    assert law[3] > galactic_extinction(np.array([2000.0, 2500.0])).max()
    # The law is continuous where the ultraviolet formula begins.
    assert np.ptp(galactic_extinction(np.array([2699.9, 2700.1]))) < 1e-3


def test_pivot_and_width_of_a_top_hat():
    band = top_hat()
    assert band.width.to_value(u.AA) == pytest.approx(1001, rel=1e-6)
    dense = np.linspace(4999, 6001, 100_000)
    response = np.interp(dense, band.wavelength, band.response)
    pivot = np.sqrt(np.trapezoid(response * dense, dense) / np.trapezoid(response / dense, dense))
    assert band.pivot.to_value(u.AA) == pytest.approx(pivot, rel=1e-5)
    law = galactic_extinction(np.array([5000.0, 6000.0]))
    assert law[1] < band.extinction_coefficient < law[0]


def test_filters_are_cached_and_converted():
    band = get_filter("decamDR1-g")
    assert get_filter("decamDR1-g") is band is get_filter(band)
    assert get_filter(speclite_filters.load_filter("decamDR1-g")) == band
    assert (band.name, band.band) == ("decamDR1-g", "g")
    assert not band.wavelength.flags.writeable and not band.response.flags.writeable


def test_equality_and_pickling():
    band = top_hat()
    other = pickle.loads(pickle.dumps(band))
    assert other == band and hash(other) == hash(band) and other is not band
    assert band != top_hat("mine-y") and band != top_hat(high=6100.0) and band != "mine-x"


def test_registered_filters_are_found():
    band = top_hat("registered-x")
    register_filter(band)
    assert get_filter("registered-x") is band
    with pytest.raises(TypeError, match="new is of type str, but it must be a Filter"):
        register_filter("registered-x")


def test_round_trip(tmp_path):
    band = top_hat("mine-x")
    band.write(tmp_path / "x.ecsv")
    assert Filter.read(tmp_path / "x.ecsv") == band
    assert Filter.read(tmp_path / "x.ecsv", name="other-z", band="z").name == "other-z"
    # speclite reads the same file.
    assert speclite_filters.load_filter(str(tmp_path / "x.ecsv")).name == "mine-x"
    with pytest.raises(FileExistsError, match="already exists"):
        band.write(tmp_path / "x.ecsv")


@pytest.mark.parametrize(("unit", "factor"), [(u.AA, 1.0), (u.nm, 0.1), (u.um, 1e-4), (u.m, 1e-10)])
def test_units_of_wavelength(unit, factor):
    wave = np.array([4999, 5000, 6000, 6001]) * factor * unit
    found = Filter("mine-x", "x", wave, [0, 1, 1, 0])
    assert found.wavelength == pytest.approx([4999, 5000, 6000, 6001])


@pytest.mark.parametrize(
    ("wavelength", "response", "words"),
    [
        ([4999, 5000, 6000, 6001], [0, 1, -0.1, 0], "negative response -0.1"),
        ([4999, 5000, 6000, 6001], [0, 1, np.nan, 0], "not finite"),
        ([4999, 6000, 5000, 6001], [0, 1, 1, 0], "do not increase"),
        ([4999, 5000, 5000, 6001], [0, 1, 1, 0], "do not increase"),
        ([4999, 5000, 6000, 6001], [0, 0, 0, 0], "zero everywhere"),
        ([4999, 5000, 6000], [0, 1, 1, 0], r"shapes \(3,\) and \(4,\)"),
        ([5000, 6000], [1, 1], "at least 3"),
        ([4999, 5000, 6000, 6001], [0, 1, 1, 0.3], "its last point, at 6001 Angstrom, has 0.3"),
        ([4999, 5000, 6000, 6001], [0.2, 1, 1, 0], "its first point, at 4999 Angstrom, has 0.2"),
        ([0.4999, 0.5, 0.6, 0.6001], [0, 1, 1, 0], "pivot wavelength 0.549.*with their unit"),
        ([499.9, 500, 600, 600.1], [0, 1, 1, 0], "pivot wavelength 54.*with their unit"),
        (["a", "b", "c"], [0, 1, 0], "does not consist of numbers"),
    ],
)
def test_invalid_curves(wavelength, response, words):
    with pytest.raises(ValueError, match=words):
        Filter("mine-x", "x", wavelength, response)


def test_invalid_units_and_names():
    with pytest.raises(u.UnitConversionError):
        Filter("mine-x", "x", [1, 2, 3] * u.s, [0, 1, 0])
    with pytest.raises(TypeError, match="band is 3, but it must be a str"):
        Filter("mine-x", 3, [1, 2, 3], [0, 1, 0])
    with pytest.raises(ValueError, match="name of letters"):
        Filter("mine x", "x", [1, 2, 3], [0, 1, 0])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("decam-g", "'decam-g' is unknown; known filters are, for example, .*decamDR1-g"),
        ("decamDR1-q", "decamDR1-Y, decamDR1-g, decamDR1-i"),
        ("nonsense", "known filters are"),
        ("", "known filters are"),
    ],
)
def test_unknown_filters(name, words):
    with pytest.raises(ValueError, match=words):
        get_filter(name)


def test_other_types_are_refused():
    with pytest.raises(TypeError, match="a filter is of type int, but it must be a name such as"):
        get_filter(3)


def write(path, **columns):
    QTable(columns).write(path, format="ascii.ecsv")


def test_invalid_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        Filter.read(tmp_path / "no.ecsv")
    (tmp_path / "text.ecsv").write_text("nothing")
    with pytest.raises(ValueError, match="is not an ECSV file"):
        Filter.read(tmp_path / "text.ecsv")
    wave = np.array([4999.0, 5000, 6000, 6001])
    write(tmp_path / "a.ecsv", wave=wave)
    with pytest.raises(ValueError, match="has no column wavelength"):
        Filter.read(tmp_path / "a.ecsv")
    write(tmp_path / "b.ecsv", wavelength=wave, response=[0.0, 1, 1, 0])
    with pytest.raises(ValueError, match="has the unit None, but it must have a unit of length"):
        Filter.read(tmp_path / "b.ecsv")
    write(tmp_path / "c.ecsv", wavelength=wave * u.um, response=[0.0, 1, 1, 0])
    with pytest.raises(ValueError, match="between 912 Angstrom and 1 mm"):
        Filter.read(tmp_path / "c.ecsv")
