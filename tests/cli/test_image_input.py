"""Cutouts on the command line: one file per band, and damaged files."""

import gzip

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable
from estimator_cases import make_cutouts, make_estimator

from astrogenspec import decode_flags
from astrogenspec.cli import main
from astrogenspec.inputs.cutout_fits import write_cutout_fits
from astrogenspec.inputs.cutouts import coerce_cutouts


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("images")
    make_estimator().save(path / "tiny.safetensors")
    batch = coerce_cutouts(make_cutouts())
    write_cutout_fits(path / "whole.fits", batch)
    with fits.open(path / "whole.fits") as hdus:
        for band in "gri":
            header = fits.Header({"BUNIT": "nmgy", "PIXSCALE": 0.396})
            image = fits.PrimaryHDU(hdus[band].data, header)
            noise = fits.ImageHDU(hdus[f"IVAR_{band}"].data, name="IVAR")
            fits.HDUList([image, noise]).writeto(path / f"m7_{band}.fits")
    return path


def infer(folder, output, *arguments):
    options = [
        "--model",
        str(folder / "tiny.safetensors"),
        "--ebv",
        "0",
        "--draws",
        "5",
        "--seed",
        "1",
    ]
    return main(["infer", *map(str, arguments), "-o", str(output), *options])


def test_one_file_per_band(folder, tmp_path, capsys):
    paths = [folder / f"m7_{band}.fits" for band in "gri"]
    assert infer(folder, tmp_path / "bands.ecsv", *paths) in (0, 3)
    assert "are read as the bands g, r, i of one galaxy" in capsys.readouterr().err
    assert infer(folder, tmp_path / "whole.ecsv", folder / "whole.fits", "--bands", "gri") in (0, 3)
    bands, whole = (QTable.read(tmp_path / f"{name}.ecsv") for name in ("bands", "whole"))
    assert list(bands["name"]) == ["m7"]
    low, high = bands["redshift_median"].value, whole["redshift_median"].value
    assert low == pytest.approx(high, rel=1e-4)


def test_damaged_files_are_flagged(folder, tmp_path, capsys):
    content = (folder / "whole.fits").read_bytes()
    at = content.find(b"NAXIS1  =", 2880)
    negative = content[:at] + b"NAXIS1  =" + b"-720".rjust(21) + content[at + 30 :]
    header = fits.Header(
        {"SIMPLE": True, "BITPIX": -32, "NAXIS": 2, "NAXIS1": 80000, "NAXIS2": 22000}
    )
    damaged = {
        "negative.fits": negative,
        "cut.fits": content[: 2880 * 13],
        "end.fits": content[:2880],
        "bomb.fits.gz": gzip.compress(header.tostring().encode() + bytes(10**7)),
        "word.fits": content.replace(b"XTENSION", b"xTENSION", 2),
    }
    for name, changed in damaged.items():
        (tmp_path / name).write_bytes(changed)
    paths = [folder / "whole.fits", *(tmp_path / name for name in damaged)]
    assert infer(folder, tmp_path / "out.ecsv", *paths, "--on-error", "flag") == 3
    table = QTable.read(tmp_path / "out.ecsv")
    assert np.isfinite(table["redshift_median"][0])
    for name, codes, text in zip(damaged, table["flags"][1:], table["flag"][1:], strict=True):
        assert "file_not_read" in decode_flags(int(codes))
        assert f"{name} cannot be read as a FITS file: " in text
    capsys.readouterr()
    for path in paths[1:]:
        assert infer(folder, tmp_path / "one.ecsv", path) == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
        assert f"{path} cannot be read as a FITS file: " in line
        assert len(line) < 700
