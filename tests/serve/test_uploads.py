"""Tests of what a visitor may give: typed magnitudes and files."""

import io

import astropy.units as u
import numpy as np
import pytest
from astropy.table import Table

from astrogenspec.demo import load_cutouts, load_galaxies
from astrogenspec.inputs.cutout_fits import write_cutout_fits
from astrogenspec.inputs.cutouts import coerce_cutouts
from astrogenspec.serve.uploads import read_upload, typed_photometry


@pytest.fixture(scope="module")
def csv():
    table = load_galaxies()[:3]
    plain = Table({"name": table["name"]})
    for band in "ugriz":
        for key in ("flux", "flux_err"):
            plain[f"{key}_{band}"] = u.Quantity(table[f"{key}_{band}"]).to_value(u.nmgy)
    stream = io.StringIO()
    for band in "ugriz":
        plain[f"mag_{band}"] = 22.5 - 2.5 * np.log10(plain[f"flux_{band}"])
        plain[f"mag_err_{band}"] = 1.0857 * plain[f"flux_err_{band}"] / plain[f"flux_{band}"]
        plain.remove_columns([f"flux_{band}", f"flux_err_{band}"])
    plain.write(stream, format="ascii.csv")
    return stream.getvalue().encode()


def test_table_is_read(csv):
    found = read_upload([("my galaxies.csv", csv)])
    assert found.images is None
    assert list(found.photometry["name"]) == list(load_galaxies()["name"][:3])


def test_image_is_read_into_memory(tmp_path):
    cutouts, _ = load_cutouts()
    write_cutout_fits(tmp_path / "a.fits", coerce_cutouts(cutouts[:1]))
    found = read_upload([("a.fits", (tmp_path / "a.fits").read_bytes())])
    assert len(found) == 1 and found.photometry is None
    image = found.images[0]["r"]
    np.testing.assert_allclose(image.data, cutouts[0]["r"].data, rtol=1e-6)


def test_files_of_bands_belong_together(tmp_path):
    cutouts, _ = load_cutouts()
    files = []
    for band in "gri":
        path = tmp_path / f"ngc7_{band}.fits"
        cutouts[0][band].write(path)
        files.append((f"C:\\images\\{path.name}", path.read_bytes()))
    with pytest.warns(UserWarning, match="bands g, r, i of one galaxy"):
        found = read_upload(files)
    assert len(found) == 1
    assert set(found.images[0]) == set("gri")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.h5", b"\x89HDF\r\n", "does not end in"),
        ("../../etc/passwd", b"root:x:0:0", "passwd does not end in"),
        ("a.fits", b"\x1f\x8b\x08\x08", "compressed"),
        ("a.csv", b"\x1f\x8b\x08\x00", "compressed"),
        ("a.fits", b"not a file", "not an uncompressed FITS file"),
        ("a.csv", b"", "no rows"),
    ],
)
def test_other_files_are_refused(name, content, message):
    with pytest.raises((ValueError, OSError), match=message) as caught:
        read_upload([(name, content)])
    assert "/tmp" not in str(caught.value)


def test_table_cannot_name_files_of_the_machine(tmp_path):
    secret = tmp_path / "secret.bin"
    secret.write_bytes(b"\0" * 64)
    text = (
        '<VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE><TABLE>'
        '<FIELD name="mag_g" datatype="double"/><DATA><BINARY>'
        f'<STREAM href="file://{secret}"/></BINARY></DATA></TABLE></RESOURCE></VOTABLE>'
    )
    with pytest.raises(OSError, match="another address|refers"):
        read_upload([("a.vot", text.encode())])
    with pytest.raises(ValueError, match="survey is"):
        read_upload([("a.csv", b"g\n1\n")], survey=str(secret))


def test_numbers_of_galaxies_and_files_are_limited(csv):
    with pytest.raises(ValueError, match="3 galaxies, more than the 2"):
        read_upload([("a.csv", csv)], max_galaxies=2)
    with pytest.raises(ValueError, match="at most 60"):
        read_upload([("a.csv", csv)] * 61)
    with pytest.raises(ValueError, match="2 tables"):
        read_upload([("a.csv", csv)] * 2)
    with pytest.raises(ValueError, match="same name"):
        read_upload([("a/x.fits", b"SIMPLE  = T"), ("b/x.fits", b"SIMPLE  = T")])
    with pytest.raises(ValueError, match="no file"):
        read_upload([])


def test_typed_magnitudes_become_photometry():
    found = typed_photometry("lsst", {"g": [20.0, 0.1], "r": [19.5, 0.05]}, 0.02, "mine")
    assert found.surveys[0].name == "lsst"
    assert found.photometry["mag_g"][0] == 20.0 * u.ABmag
    assert found.photometry["mag_err_r"][0] == 0.05 * u.mag
    assert found.photometry["ebv"][0] == 0.02 * u.mag
    assert found.photometry["name"][0] == "mine"


@pytest.mark.parametrize(
    ("magnitudes", "error", "message"),
    [
        ({"q": [1, 1]}, ValueError, "no band 'q'"),
        ({"g": [20.0, None]}, TypeError, "magnitude in g is None"),
        ({"g": [float("nan"), 0.1]}, TypeError, "magnitude in g is nan"),
        ({}, ValueError, "no magnitude"),
    ],
)
def test_typed_magnitudes_are_checked(magnitudes, error, message):
    with pytest.raises(error, match=message):
        typed_photometry("sdss", magnitudes, 0.0)
