"""Corrected frames of SDSS, written here in the layout of the survey."""

import sys
from types import SimpleNamespace

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import CCDData
from astropy.table import Table
from astropy.wcs import WCS

from astrogenspec.inputs.cutouts import coerce_cutouts
from astrogenspec.inputs.sdss_frames import cut_out, fetch_sdss_cutout, frame_noise, read_sdss_frame
from astrogenspec.surveys import BANDS

SHAPE = (150, 220)
TARGET = SkyCoord(180.02 * u.deg, 0.51 * u.deg)


def make_frame(band="r", *, camcol=3, run=3900, seed=0, shift=0.0):
    """Write calibrated, sky-subtracted counts as the survey does; return file and counts."""
    rng = np.random.default_rng(seed)
    ny, nx = SHAPE
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [TARGET.ra.deg, TARGET.dec.deg]
    wcs.wcs.crpix = [120.3 + shift, 70.8]
    wcs.wcs.cd = np.array([[0.02, 1.0], [1.0, -0.02]]) * 0.396 / 3600
    header = wcs.to_header()
    header.update({"FILTER": band, "CAMCOL": camcol, "RUN": run, "FIELD": 12})
    coarse = 120 + 10 * np.add.outer(np.arange(19), 0.5 * np.arange(28))
    x_sky, y_sky = np.linspace(0, 27, nx), np.linspace(0, 18, ny)
    sky = 120 + 10 * np.add.outer(y_sky, 0.5 * x_sky)
    y, x = np.indices(SHAPE)
    source = 900 * np.exp(-((x - 119.3 - shift) ** 2 + (y - 69.8) ** 2) / (2 * 4.0**2))
    gain, dark = frame_noise(camcol, run, band)
    expected = sky + source
    counts = expected + rng.normal(size=SHAPE) * np.sqrt(expected / gain + dark)
    calibration = 0.005 * (1 + 0.1 * np.sin(np.arange(nx) / 30))
    image = ((counts - sky) * calibration).astype(np.float32)
    table = fits.BinTableHDU.from_columns(
        [
            fits.Column("ALLSKY", f"{coarse.size}E", dim="(28,19)", array=coarse[None]),
            fits.Column("XINTERP", f"{nx}E", array=x_sky[None]),
            fits.Column("YINTERP", f"{ny}E", array=y_sky[None]),
        ]
    )
    hdus = [fits.PrimaryHDU(image, header), fits.ImageHDU(calibration.astype(np.float32)), table]
    return fits.HDUList(hdus), expected, calibration


@pytest.mark.parametrize(
    ("camcol", "run", "band", "gain", "dark"),
    [
        (1, 94, "g", 3.32, 15.6025),
        (2, 1100, "u", 1.595, 12.6025),
        (2, 1101, "u", 1.825, 12.6025),
        (2, 1500, "i", 6.565, 5.76),
        (2, 1501, "i", 6.565, 6.25),
        (4, 4000, "z", 4.775, 12.6025),
        (5, 4000, "z", 3.48, 2.1025),
        (6, 4000, "r", 4.895, 0.9025),
    ],
)
def test_detector_noise(camcol, run, band, gain, dark):
    assert frame_noise(camcol, run, band) == (gain, dark)


@pytest.mark.parametrize("suffix", [".fits", ".fits.bz2"])
def test_noise_of_a_frame(tmp_path, suffix):
    hdus, expected, calibration = make_frame("i", camcol=5, run=2000)
    path = tmp_path / f"frame-i-002000-5-0012{suffix}"
    hdus.writeto(path)
    frame = read_sdss_frame(path)
    gain, dark = frame_noise(5, 2000, "i")
    sigma = np.sqrt(expected / gain + dark) * calibration
    assert frame.unit == u.nmgy
    assert frame.meta["FILTER"] == "i"
    estimate = frame.uncertainty.array**-0.5
    np.testing.assert_allclose(estimate, sigma, rtol=0.15)
    assert np.mean(estimate / sigma) == pytest.approx(1, abs=0.003)
    assert frame.data.shape == SHAPE


def test_truncated_and_damaged_frames(tmp_path):
    hdus, _, _ = make_frame()
    hdus.writeto(tmp_path / "frame.fits")
    content = (tmp_path / "frame.fits").read_bytes()
    for damaged in (
        content[:-3000],
        content[:50000],
        content.replace(b"NAXIS1  = ", b"NAXIS1  =-"),
    ):
        (tmp_path / "damaged.fits").write_bytes(damaged)
        with pytest.raises(OSError, match=r"damaged.fits cannot be read as a FITS file: "):
            read_sdss_frame(tmp_path / "damaged.fits")
    (tmp_path / "damaged.fits").write_bytes(content.replace(b"ALLSKY", b"SOMEKY"))
    with pytest.raises(
        OSError, match=r"cannot be read as a corrected frame of SDSS: it is damaged"
    ):
        read_sdss_frame(tmp_path / "damaged.fits")


def test_columns_without_calibration_have_no_weight():
    hdus, _, _ = make_frame()
    hdus[1].data[10] = 0
    hdus[1].data[20] = np.nan
    image = read_sdss_frame(hdus)
    assert (image.uncertainty.array == 0).all(axis=0).nonzero()[0].tolist() == [10, 20]


def test_noise_is_the_scatter_of_the_pixels():
    frame = read_sdss_frame(make_frame("g", seed=4)[0])
    away = frame.data[:, :60] * np.sqrt(frame.uncertainty.array[:, :60])
    assert away.std() == pytest.approx(1, rel=0.03)


def test_cutout_is_centred_and_masked_outside_the_frame():
    frame = read_sdss_frame(make_frame()[0])
    cutout = cut_out(frame, TARGET)
    assert cutout.data.shape == (64, 64)
    x, y = cutout.wcs.world_to_pixel(TARGET)
    assert abs(x - 31.5) < 1
    assert abs(y - 31.5) < 1
    peak = np.unravel_index(np.nanargmax(cutout.data), (64, 64))
    assert np.hypot(peak[0] - y, peak[1] - x) < 3
    assert not cutout.mask.any()
    corner = frame.wcs.pixel_to_world(5, 8)
    edge = cut_out(frame, corner)
    assert edge.mask.mean() > 0.3
    batch = coerce_cutouts({"r": edge})
    np.testing.assert_array_equal(batch.ivar[0, 2] == 0, edge.mask)
    masked = CCDData(frame, mask=frame.data > np.quantile(frame.data, 0.995))
    assert cut_out(masked, TARGET).mask.sum() == masked.mask.sum()


def test_position_outside_the_frame():
    frame = read_sdss_frame(make_frame()[0])
    for away in (20, 300):
        position = TARGET.directional_offset_by(90 * u.deg, away * u.arcsec * 2)
        with pytest.raises(
            ValueError, match="is not on the r image; give an image that contains it"
        ):
            cut_out(frame, position)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda hdus: hdus[0].header.remove("CAMCOL"), "no keyword CAMCOL"),
        (lambda hdus: hdus.pop(), "no calibration and sky extensions"),
        (
            lambda hdus: hdus[0].header.update(CAMCOL=7),
            "camcol is 7, but SDSS has camera columns 1 to 6",
        ),
        (lambda hdus: hdus[0].header.update(FILTER="y"), "'y', which is no band"),
        (lambda hdus: setattr(hdus[1], "data", np.ones(10)), "but 10 calibration values"),
        (
            lambda hdus: setattr(hdus[0], "data", np.ones((10, 220))),
            "sky for 150 x 220 pixels but an image of 10",
        ),
    ],
)
def test_invalid_frames(change, message):
    hdus = make_frame()[0]
    change(hdus)
    with pytest.raises(ValueError, match=message):
        read_sdss_frame(hdus)


class Archive:
    """Replacement of the archive of the survey."""

    def __init__(self, found=True, images=True):
        self.found, self.images, self.asked = found, images, []

    def query_region(self, position, *, radius, photoobj_fields, cache):
        self.asked.append(radius)
        if not self.found or radius < 10 * u.arcsec:
            return None
        return Table(
            {
                "ra": [TARGET.ra.deg, TARGET.ra.deg + 1e-5, TARGET.ra.deg + 4e-3],
                "dec": [TARGET.dec.deg] * 3,
                "run": [1, 3900, 5],
                "rerun": [301] * 3,
                "camcol": [1, 3, 1],
                "field": [1, 12, 1],
                "mode": [2, 1, 1],
            }
        )

    def get_images(self, *, matches, band, cache, show_progress):
        assert len(matches) == 1
        assert matches["run"][0] == 3900
        if not self.images:
            return None
        return [make_frame(b, seed=k, shift=k)[0] for k, b in enumerate(band)]


@pytest.fixture
def archive(monkeypatch):
    fake = Archive()
    monkeypatch.setitem(sys.modules, "astroquery", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "astroquery.sdss", SimpleNamespace(SDSS=fake))
    return fake


def test_fetch_with_a_mock_archive(archive):
    cutouts = fetch_sdss_cutout(TARGET, bands="gri")
    assert list(cutouts) == ["g", "r", "i"]
    assert archive.asked == [3 * u.arcsec, 30 * u.arcsec]
    batch = coerce_cutouts(cutouts, position=TARGET)
    assert batch.bands_present[0].sum() == 3
    y, x = np.indices((64, 64))
    for k in (1, 2, 3):
        light = np.where(batch.flux[0, k] > 0.5, batch.flux[0, k], 0)
        assert (light * x).sum() / light.sum() == pytest.approx(31.5, abs=0.7)
        assert (light * y).sum() / light.sum() == pytest.approx(31.5, abs=0.7)


def test_fetch_errors(archive, monkeypatch):
    with pytest.raises(TypeError, match="position is of type tuple, but it must be a SkyCoord"):
        fetch_sdss_cutout((180, 0))
    with pytest.raises(ValueError, match=r"position has shape \(2,\); give one position"):
        fetch_sdss_cutout(SkyCoord([TARGET, TARGET]))
    with pytest.raises(ValueError, match="no band: the bands are"):
        fetch_sdss_cutout(TARGET, bands="y")
    archive.images = False
    with pytest.raises(ValueError, match="SDSS returned no image"):
        fetch_sdss_cutout(TARGET)
    archive.found = False
    with pytest.raises(ValueError, match="no object within 30 arcsec .* outside its images"):
        fetch_sdss_cutout(TARGET)
    monkeypatch.setitem(sys.modules, "astroquery.sdss", None)
    with pytest.raises(ImportError, match=r"astroquery, which is needed.*astrogenspec\[fetch\]"):
        fetch_sdss_cutout(TARGET)


@pytest.mark.remote_data
def test_fetch_from_the_survey():
    pytest.importorskip("astroquery")
    position = SkyCoord("09h47m22.1s +00d42m18s")
    cutouts = fetch_sdss_cutout(position, size=100, cache=False)
    assert set(cutouts) <= set(BANDS)
    batch = coerce_cutouts(cutouts, position=position)
    assert batch.bands_present.any()
    for cutout in cutouts.values():
        assert cutout.unit == u.nmgy
