"""Tests of readers and files for other tools."""

import io
import subprocess
import sys

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io.votable import parse
from astropy.nddata import CCDData
from astropy.table import QTable, Table
from posterior_cases import flagged_posterior
from spectrum_cases import some_spectra
from specutils import Spectrum, SpectrumList

from astrogenspec import register_readers
from astrogenspec.demo import load_cutouts
from astrogenspec.results.exchange import line_list

register_readers()


def test_spectrum_list_has_all_galaxies(tmp_path):
    spectra = some_spectra()
    spectra.write(tmp_path / "spectra.fits")
    found = SpectrumList.read(tmp_path / "spectra.fits", format="astrogenspec")
    assert len(found) == 4
    for one, expected in zip(found, spectra.best, strict=True):
        np.testing.assert_array_equal(one.flux.value, expected.flux.value)
        np.testing.assert_array_equal(one.mask, expected.mask)
        assert one.meta["name"] == expected.meta["name"]
        assert one.meta["flag"] == expected.meta["flag"]
    redshifts = [float(one.redshift.value) for one in found]
    best = [float(one.redshift.value) for one in spectra.best]
    np.testing.assert_array_equal(redshifts, best)


def test_permanent_readers_need_no_call(tmp_path, monkeypatch):
    """Another program that imports specutils alone reads the file with its redshift."""
    monkeypatch.setenv("HOME", str(tmp_path))
    register_readers(permanent=True)
    assert [path.name for path in (tmp_path / ".specutils").iterdir()] == [
        "astrogenspec_readers.py"
    ]
    spectra = some_spectra()
    spectra.write(tmp_path / "spectra.fits")
    code = (
        "import sys; from specutils import Spectrum, SpectrumList; path = sys.argv[1]; "
        "print(Spectrum.read(path).redshift.value, 'torch' in sys.modules); "
        "print(len(SpectrumList.read(path, format='astrogenspec')))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "spectra.fits")],
        capture_output=True,
        text=True,
        check=True,
    )
    redshift, torch, n = run.stdout.split()
    assert float(redshift) == float(spectra[0].best.redshift.value)
    assert torch == "False" and int(n) == 4


@pytest.mark.parametrize("options", [{"format": "astrogenspec"}, {}])
def test_first_spectrum_of_a_file_has_its_redshift(tmp_path, options):
    spectra = some_spectra()
    spectra.write(tmp_path / "spectra.fits")
    found = Spectrum.read(tmp_path / "spectra.fits", **options)
    expected = spectra[0].best
    assert float(found.redshift.value) == float(expected.redshift.value)
    np.testing.assert_array_equal(found.mask, expected.mask)
    np.testing.assert_allclose(found.flux.value, expected.flux.value, rtol=1e-6)


def test_written_spectrum_is_read_with_its_redshift(tmp_path):
    best = some_spectra()[1].best
    best.write(tmp_path / "best.fits", format="tabular-fits")
    found = SpectrumList.read(tmp_path / "best.fits", format="astrogenspec")
    assert len(found) == 1
    assert float(found[0].redshift.value) == float(best.redshift.value)
    assert found[0].meta["name"] == "galaxy 1"


def test_band_of_a_cutout_file():
    from importlib.resources import files

    path = files("astrogenspec") / "data" / "demo_cutout_spiral.fits"
    image = CCDData.read(str(path), format="astrogenspec", band="r")
    expected = load_cutouts()[0][0]["r"]
    assert image.unit == u.nmgy
    np.testing.assert_array_equal(image.data, expected.data)
    with pytest.raises(ValueError, match="has the bands u, g, r, i, z"):
        CCDData.read(str(path), format="astrogenspec", band="y")


class Viewer:
    """Stand-in for an application of jdaviz that records what it is given."""

    def __init__(self):
        self.loaded = {}

    def load(self, spectrum, *, format, data_label):
        self.loaded[data_label] = spectrum

    def load_line_list(self, lines):
        self.lines = lines

    def set_redshift(self, redshift):
        self.redshift = redshift


def test_specviz_gets_spectra_lines_and_redshift():
    spectra = some_spectra()
    viewer = Viewer()
    spectra.to_specviz("galaxy 1").load(viewer)
    labels = ["best draw", "median", "percentile 16", "percentile 84"]
    assert list(viewer.loaded) == [f"galaxy 1: {label}" for label in labels]
    best = spectra[1].best
    assert viewer.redshift == float(best.redshift.value)
    np.testing.assert_array_equal(viewer.loaded["galaxy 1: best draw"].flux, best.flux)
    lines = dict(zip(viewer.lines["linename"], viewer.lines["rest"].value, strict=True))
    assert lines["Hα"] == 6564.61
    assert lines["[O III] 5008"] == 5008.24
    assert lines["He I 5877"] == 5877.3
    assert viewer.lines.meta["medium"] == "Vacuum"
    with pytest.raises(ValueError, match="is not one galaxy with draws"):
        spectra.to_specviz(2)


def test_line_list_has_unique_names():
    assert len(set(line_list()["linename"])) == 17


POSITION = SkyCoord([10, 20, 30, 350] * u.deg, [-5, 0, 5, 80] * u.deg)


def test_votable_has_positions_and_standard_units(tmp_path):
    posterior, _ = flagged_posterior()
    posterior.to_votable(tmp_path / "galaxies.vot", POSITION)
    document = parse(io.BytesIO((tmp_path / "galaxies.vot").read_bytes()), verify="exception")
    fields = {field.name: field for field in document.get_first_table().fields}
    assert fields["ra"].ucd == "pos.eq.ra;meta.main"
    assert fields["dec"].unit == u.deg
    assert fields["stellar_mass_median"].unit is None
    assert fields["stellar_mass_median"].description.endswith("[log10 of solMass]")
    found = Table.read(tmp_path / "galaxies.vot")
    np.testing.assert_allclose(found["ra"], POSITION.ra.deg)
    expected = posterior.to_table()["stellar_mass_median"]
    np.testing.assert_allclose(found["stellar_mass_median"][[0, 1, 3]], expected.value[[0, 1, 3]])
    assert found["stellar_mass_median"].mask.tolist() == [False, False, True, False]
    assert found["flag"][2] == "no flux in any band"


def test_regions_mark_flagged_galaxies(tmp_path):
    posterior, _ = flagged_posterior()
    posterior = posterior._replaced(_names=np.array(["a", "b{}\n", "c", "d"], dtype=object))
    table = QTable({"ra": POSITION.ra, "dec": POSITION.dec})
    posterior.to_regions(tmp_path / "galaxies.reg", table, radius=0.05 * u.arcmin)
    lines = (tmp_path / "galaxies.reg").read_text().splitlines()
    assert lines[1] == "icrs"
    assert lines[2] == 'circle(10.0000000,-5.0000000,3") # color=cyan text={a}'
    assert lines[3].endswith("text={b???}")
    assert lines[4] == 'circle(30.0000000,5.0000000,3") # color=orange dash=1 text={c}'
    assert len(lines) == 6


@pytest.mark.parametrize(
    ("position", "error", "message"),
    [
        (POSITION[:2], ValueError, "position has 2 positions, but there are 4 galaxies"),
        ({"ra": [1.0] * 4}, ValueError, "position has no column 'dec'"),
        ([1.0], TypeError, "position is of type list"),
    ],
)
def test_positions_are_checked(tmp_path, position, error, message):
    posterior, _ = flagged_posterior()
    with pytest.raises(error, match=message):
        posterior.to_regions(tmp_path / "galaxies.reg", position)
    assert not list(tmp_path.iterdir())
