"""Checks of FITS files before they are read."""

import bz2
import gzip
import lzma
import zipfile

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from astrogenspec.fits_files import check_fits
from astrogenspec.warnings import AstroGenSpecWarning


@pytest.fixture
def content(tmp_path):
    """Bytes of a file with an image, a compressed image and a table, with checksums."""
    rng = np.random.default_rng(0)
    primary = fits.PrimaryHDU()
    primary.header["CREATOR"] = "astrogenspec test"
    primary.header["NEXTEND"] = 3
    image = fits.ImageHDU(rng.normal(size=(20, 30)).astype("f4"), name="r")
    image.header["BUNIT"] = "nmgy"
    tiled = fits.CompImageHDU(rng.normal(size=(40, 50)).astype("f4"), name="g")
    table = fits.table_to_hdu(Table({"a": [1, 2, 3]}))
    path = tmp_path / "good.fits"
    fits.HDUList([primary, image, tiled, table]).writeto(path, checksum=True)
    return path.read_bytes()


def check(folder, content, name="file.fits", **options):
    path = folder / name
    path.write_bytes(content)
    return check_fits(path, **options)


def with_value(content, keyword, value):
    at = content.find(keyword.encode().ljust(8), 2880)
    return content[:at] + f"{keyword:8}= {value:>20}".encode() + content[at + 30 :]


def test_extensions_are_listed(tmp_path, content):
    found = check(tmp_path, content)
    assert [extension.name for extension in found] == ["", "R", "G", ""]
    assert [extension.shape for extension in found[:3]] == [(), (20, 30), (40, 50)]
    assert [extension.is_image for extension in found] == [False, True, True, False]
    assert [extension.is_table for extension in found] == [False, False, False, True]


def zipped(content, path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("file.fits", content)
    return path.read_bytes()


COMPRESSIONS = {
    "gz": lambda content, path: gzip.compress(content),
    "bz2": lambda content, path: bz2.compress(content),
    "xz": lambda content, path: lzma.compress(content),
    "zip": zipped,
}


@pytest.mark.parametrize("ending", COMPRESSIONS)
def test_compressed_files(tmp_path, content, ending):
    packed = COMPRESSIONS[ending](content, tmp_path / "work.zip")
    assert len(check(tmp_path, packed, f"file.fits.{ending}")) == 4
    with pytest.raises(OSError, match=r"cannot be read as a FITS file: .*(truncated|damaged)"):
        check(tmp_path, packed[: len(packed) // 2], f"file.fits.{ending}")


def test_truncation_is_found_at_every_length(tmp_path, content):
    for length in [*range(0, len(content) - 2880, 997), 2880, 2880 * 2, 2880 * 3, 2880 * 5]:
        with pytest.raises(OSError, match=r"file.fits cannot be read as a FITS file: it is \w+"):
            check(tmp_path, content[:length])


def test_padding_may_be_absent_or_repeated(tmp_path, content):
    plain = tmp_path / "plain.fits"
    fits.writeto(plain, np.ones((30, 30)))
    data = plain.read_bytes()
    assert check(tmp_path, data[: 2880 + 8 * 900])[0].shape == (30, 30)
    assert len(check(tmp_path, content + bytes(5760))) == 4


@pytest.mark.parametrize(
    ("keyword", "value", "message"),
    [
        ("NAXIS1", "-720", "NAXIS1 of extension R is -720, but it must not be negative"),
        ("NAXIS2", "-1", "NAXIS2 of extension R is -1"),
        ("NAXIS1", "999999999999", "extension R declares .* bytes of data, but"),
        ("NAXIS1", "'x'", "NAXIS1 of extension R is 'x', but it must be an integer"),
        ("NAXIS2", "1e9", "NAXIS2 of extension R is '1e9', but it must be an integer"),
        ("NAXIS", "5", "NAXIS3 of extension R is missing"),
        ("NAXIS", "-1", "NAXIS of extension R is -1"),
        ("BITPIX", "7", "BITPIX of extension R is 7, which"),
        ("PCOUNT", "-9", "one is negative"),
        ("GCOUNT", "999999999", "declares .* bytes of data, but"),
        (
            "ZNAXIS1",
            "999999999",
            "extension G declares .* GB of data, more than the limit of 1 GB",
        ),
        ("TFIELDS", "999999999", "must be between 0 and 999"),
        ("XTENSION", "", "the end of an extension is not followed by another"),
    ],
)
def test_headers_with_impossible_sizes(tmp_path, content, keyword, value, message):
    damaged = with_value(content, keyword, value)
    if keyword == "XTENSION":
        damaged = content.replace(b"XTENSION", b"xTENSION", 1)
    with pytest.raises(OSError, match=message) as error:
        check(tmp_path, damaged)
    assert len(str(error.value)) < 400


def test_large_files_in_small_compressed_ones(tmp_path):
    header = fits.Header(
        {"SIMPLE": True, "BITPIX": -32, "NAXIS": 2, "NAXIS1": 80000, "NAXIS2": 22000}
    )
    bomb = gzip.compress(header.tostring().encode() + bytes(10**7))
    with pytest.raises(OSError, match=r"declares 7.04 GB of data, more than the limit of 1 GB"):
        check(tmp_path, bomb, "file.fits.gz")
    empty = fits.Header({"SIMPLE": True, "BITPIX": 8, "NAXIS": 0})
    long = gzip.compress(empty.tostring().encode() + bytes(10**7))
    with pytest.raises(OSError, match="holds more than 0.001 GB when uncompressed"):
        check(tmp_path, long, "file.fits.gz", max_bytes=10**6)


def test_checksums(tmp_path, content):
    data = bytearray(content)
    at = content.find(b"END" + b" " * 77, 2880)
    data[-(-at // 2880) * 2880 + 100] ^= 1
    with pytest.raises(OSError, match="the data of extension R do not match DATASUM"):
        check(tmp_path, bytes(data))
    assert len(check(tmp_path, bytes(data), verify=False)) == 4
    header = content.replace(b"'nmgy", b"'mmgy")
    with pytest.warns(
        AstroGenSpecWarning, match="extension R does not match its CHECKSUM: .* edited"
    ):
        assert len(check(tmp_path, header)) == 4
    # Other software often edits files without updating the checksums.
    other = header.replace(b"'astrogenspec", b"'other prog  ")
    assert len(check(tmp_path, other)) == 4
    changed = bytes(data).replace(b"'astrogenspec", b"'other prog  ")
    with pytest.warns(AstroGenSpecWarning, match="do not match DATASUM: .* edited without"):
        assert len(check(tmp_path, changed)) == 4


@pytest.mark.parametrize("content", [b"", b"not an image", bytes(5000), b"\x1f\x8b" + bytes(50)])
def test_files_that_are_not_fits(tmp_path, content):
    with pytest.raises(OSError, match="cannot be read as a FITS file: "):
        check(tmp_path, content)
    with pytest.raises(OSError, match="cannot be read as a FITS file: Is a directory"):
        check_fits(tmp_path)
