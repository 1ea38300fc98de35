"""Cutouts: supported forms of input, geometry, bad pixels, errors and files."""

import warnings

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.nddata import (
    CCDData,
    Cutout2D,
    InverseVariance,
    NDData,
    NDDataRef,
    StdDevUncertainty,
    UnknownUncertainty,
    VarianceUncertainty,
)
from astropy.utils.masked import Masked
from astropy.wcs import WCS

from astrogenspec.inputs import cutouts
from astrogenspec.inputs import images as pixels
from astrogenspec.inputs.cutout_fits import read_cutout_fits, write_cutout_fits
from astrogenspec.inputs.cutouts import CutoutBatch, coerce_cutouts
from astrogenspec.surveys import BANDS, SDSS
from astrogenspec.warnings import AstroGenSpecWarning

SCALE = 0.396 * u.arcsec
GRI = ("g", "r", "i")
CENTRE = SkyCoord(150.1 * u.deg, 2.2 * u.deg)


def make_wcs(scale=0.396, shape=(64, 64), turn=0.0, shift=(0.0, 0.0), mirror=False, centre=CENTRE):
    """A tangent projection whose centre lies `shift` pixels (x, y) from the centre of the image."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [centre.ra.deg, centre.dec.deg]
    wcs.wcs.crpix = [(shape[1] + 1) / 2 + shift[0], (shape[0] + 1) / 2 + shift[1]]
    cos, sin = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
    sign = 1 if mirror else -1
    wcs.wcs.cd = np.array([[sign * cos, -sign * sin], [sin, cos]]) * scale / 3600
    return wcs


def make_galaxy(shape=(64, 64), scale=0.396, shift=(0.0, 0.0), total=100.0, width=1.6):
    """A round Gaussian (width in arcsec), `shift` pixels (x, y) from the centre."""
    y, x = (np.indices(shape) - (np.array(shape)[:, None, None] - 1) / 2) * scale
    r2 = (x - shift[0] * scale) ** 2 + (y - shift[1] * scale) ** 2
    return total * scale**2 / (2 * np.pi * width**2) * np.exp(-r2 / (2 * width**2))


def make_ccd(flux=None, sigma=0.03, wcs=None, unit="nmgy", **options):
    flux = make_galaxy() if flux is None else flux
    sigma = np.broadcast_to(sigma, flux.shape).copy()
    wcs = make_wcs(shape=flux.shape) if wcs is None else wcs
    return CCDData(flux, unit=unit, uncertainty=StdDevUncertainty(sigma), wcs=wcs, **options)


def centroid(image):
    y, x = np.indices(image.shape)
    return (image * x).sum() / image.sum(), (image * y).sum() / image.sum()


@pytest.fixture(scope="module")
def truth():
    """Flux, error and mask of two galaxies in g, r, i."""
    rng = np.random.default_rng(7)
    flux = np.stack([[make_galaxy(total=total) for total in (50, 100, 140)] for _ in range(2)])
    flux = (flux + rng.normal(0, 0.03, flux.shape)).astype(np.float32)
    sigma = rng.uniform(0.02, 0.04, flux.shape).astype(np.float32)
    mask = rng.uniform(size=flux.shape) < 0.02
    return flux, sigma, mask


def cube(truth, k, unit=u.nmgy, factor=1.0, kind=StdDevUncertainty, power=1, **options):
    flux, sigma, mask = (array[k] for array in truth)
    uncertainty = kind((sigma * factor) ** power)
    return NDData(flux * factor, unit=unit, uncertainty=uncertainty, mask=mask, **options)


def by_band(truth, k, **options):
    whole = cube(truth, k, **options)
    return {
        band: CCDData(
            whole.data[j],
            unit=whole.unit,
            uncertainty=type(whole.uncertainty)(whole.uncertainty.array[j]),
            mask=whole.mask[j],
            wcs=make_wcs(),
        )
        for j, band in enumerate(GRI)
    }


TO_UJY = float((1 * u.nmgy).to_value(u.uJy, u.zero_point_flux(1 * u.AB)))


def as_files(truth, tmp_path):
    batch = coerce_cutouts([by_band(truth, k) for k in range(2)])
    galaxies = []
    for k in range(2):
        write_cutout_fits(tmp_path / f"{k}.fits", batch, k, position=CENTRE)
        galaxies.append(read_cutout_fits(tmp_path / f"{k}.fits"))
    return galaxies, {}


def as_read_by_ccddata(truth, tmp_path):
    galaxies = []
    for k in range(2):
        images = {}
        for band, image in by_band(truth, k, unit=u.uJy, factor=TO_UJY).items():
            image.write(tmp_path / f"{k}{band}.fits")
            images[band] = CCDData.read(tmp_path / f"{k}{band}.fits")
        galaxies.append(images)
    return galaxies, {}


def stack(truth, unit=u.nmgy, factor=1.0):
    flux, sigma, mask = truth
    return NDData(
        flux * factor, unit=unit, uncertainty=StdDevUncertainty(sigma * factor), mask=mask
    )


ARRAY = {"bands": "gri", "pixel_scale": SCALE}
FORMS = {
    "list of cubes, bands named": lambda t, p: ([cube(t, 0), cube(t, 1)], ARRAY),
    "list of cubes, bands in meta": lambda t, p: (
        [cube(t, k, meta={"bands": GRI, "PIXSCALE": 0.396}) for k in range(2)],
        {},
    ),
    "list of cubes with a WCS": lambda t, p: (
        [cube(t, k, wcs=make_wcs()) for k in range(2)],
        {"bands": ["g", "r", "i"]},
    ),
    "list of dicts of CCDData": lambda t, p: ([by_band(t, 0), by_band(t, 1)], {}),
    "tuple of dicts, other order": lambda t, p: (
        tuple(dict(reversed(by_band(t, k).items())) for k in range(2)),
        {},
    ),
    "mixed list": lambda t, p: ([by_band(t, 0), cube(t, 1)], ARRAY),
    "four-dimensional NDData": lambda t, p: (stack(t), ARRAY),
    "four-dimensional NDData in Jy": lambda t, p: (stack(t, u.Jy, 1e-6 * TO_UJY), ARRAY),
    "variance": lambda t, p: (
        [by_band(t, k, kind=VarianceUncertainty, power=2.0) for k in range(2)],
        {},
    ),
    "uncertainty in another unit than the data": lambda t, p: (
        [
            NDData(
                t[0][k],
                unit=u.nmgy,
                mask=t[2][k],
                uncertainty=InverseVariance(t[1][k] ** -2.0 * 1e18, unit=u.mgy**-2),
                wcs=make_wcs(),
            )
            for k in range(2)
        ],
        {"bands": "gri"},
    ),
    "inverse variance in other units": lambda t, p: (
        [
            by_band(t, k, unit=u.uJy, factor=TO_UJY, kind=InverseVariance, power=-2.0)
            for k in range(2)
        ],
        {},
    ),
    "positions given": lambda t, p: (
        [by_band(t, 0), by_band(t, 1)],
        {"position": SkyCoord([CENTRE, CENTRE])},
    ),
    "files": as_files,
    "files of CCDData": as_read_by_ccddata,
}


@pytest.mark.parametrize("kind", FORMS)
def test_all_forms_of_input_give_the_same_batch(kind, truth, tmp_path):
    given, options = FORMS[kind](truth, tmp_path)
    batch = coerce_cutouts(given, **options)
    flux, sigma, mask = truth
    assert isinstance(batch, CutoutBatch)
    assert len(batch) == batch.n_galaxies == 2
    assert batch.problems == ("", "")
    assert batch.flux.dtype == batch.ivar.dtype == np.float32
    np.testing.assert_array_equal(batch.bands_present, [[False, True, True, True, False]] * 2)
    np.testing.assert_allclose(batch.flux[:, 1:4], np.where(mask, 0, flux), rtol=1e-5, atol=1e-7)
    expected = np.where(mask, 0, sigma.astype(float) ** -2)
    np.testing.assert_allclose(batch.ivar[:, 1:4], expected, rtol=1e-5)
    assert not batch.flux[:, [0, 4]].any()


@pytest.mark.parametrize("kind", ["quantity", "masked quantity", "list", "one by one"])
def test_noise_of_quantities_is_estimated(kind, truth):
    flux, _, mask = truth
    given = {
        "quantity": flux * u.nmgy,
        "masked quantity": Masked(flux * u.nmgy, mask=mask),
        "list": [flux[0] * u.nmgy, flux[1] * u.nmgy],
        "one by one": [dict(zip(GRI, galaxy * u.nmgy, strict=True)) for galaxy in flux],
    }[kind]
    bands = None if kind == "one by one" else "gri"
    with pytest.warns(AstroGenSpecWarning, match="noise is estimated") as record:
        batch = coerce_cutouts(given, bands=bands, pixel_scale=SCALE)
    assert len(record) == 1
    masked = mask if kind == "masked quantity" else np.zeros_like(mask)
    np.testing.assert_allclose(batch.flux[:, 1:4], np.where(masked, 0, flux), rtol=1e-6)
    np.testing.assert_array_equal(batch.ivar[:, 1:4] > 0, ~masked)
    corner = batch.ivar[:, 1:4, :16, :16]
    assert np.median(corner[corner > 0]) ** -0.5 == pytest.approx(0.03, rel=0.05)
    # Shot noise of the galaxy, with the nominal calibration of the survey.
    r = batch.ivar[0, 2, 32, 32]
    shot = flux[0, 1, 32, 32] * SDSS.nmgy_per_dn["r"] / SDSS.gain["r"]
    if r:
        assert 1 / r == pytest.approx(0.03**2 + shot, rel=0.1)


@pytest.mark.filterwarnings("ignore:a cutout has no uncertainty")
def test_a_cutout2d_keeps_its_wcs():
    scale = 0.3
    field = np.zeros((200, 220))
    field[60:140, 90:170] = make_galaxy((80, 80), scale)
    field += np.random.default_rng(0).normal(0, 0.001, field.shape)
    wcs = make_wcs(scale, field.shape)
    piece = Cutout2D(field * u.nmgy, (129.5, 99.5), 90, wcs=wcs)
    seen = coerce_cutouts({"r": piece})
    same = coerce_cutouts({"r": CCDData(piece.data.value, unit="nmgy", wcs=piece.wcs)})
    np.testing.assert_array_equal(seen.flux, same.flux)
    # The pixel scale is that of the WCS, so the cutout contains the whole flux.
    assert seen.flux[0, 2].sum() == pytest.approx(100, rel=0.03)
    assert np.allclose(centroid(seen.flux[0, 2]), 31.5, atol=0.6)


def test_noise_with_a_large_galaxy_or_blank_margins():
    rng = np.random.default_rng(3)
    image = make_galaxy(width=9.0, total=3000) + rng.normal(0, 0.05, (64, 64))
    image[:40] = 0
    with pytest.warns(AstroGenSpecWarning, match="noise"):
        batch = coerce_cutouts(image[None] * u.nmgy, bands="r", pixel_scale=SCALE)
    variance = 1 / batch.ivar[0, 2] - batch.flux[0, 2] * SDSS.nmgy_per_dn["r"] / SDSS.gain["r"]
    assert np.sqrt(np.median(variance)) == pytest.approx(0.05, rel=0.1)


def test_single_galaxy():
    for one in (make_ccd(), {"r": make_ccd()}):
        batch = coerce_cutouts(one, bands="r")
        assert len(batch) == 1
        assert batch.flux[0, 2].sum() == pytest.approx(100, rel=1e-4)
    assert coerce_cutouts(batch) is batch


def test_galaxy_without_image_is_blank_and_not_flagged():
    batch = coerce_cutouts([None, {"r": make_ccd()}])
    np.testing.assert_array_equal(batch.bands_present.any(axis=1), [False, True])
    assert batch.problems == ("", "")


def test_names_from_headers():
    named = make_ccd(meta={"NAME": "NGC 7"})
    assert coerce_cutouts([{"g": named}, {"r": make_ccd()}]).names == ("NGC 7", "1")


class TestBatch:
    @pytest.fixture
    def batch(self):
        flux = np.arange(3, dtype=np.float32)[:, None, None, None] * np.ones((3, 5, 64, 64), "f4")
        return CutoutBatch(flux, np.ones_like(flux), ("a", "b", "c"), ("", "bad", ""))

    @pytest.mark.parametrize(
        ("item", "names"),
        [
            (1, "b"),
            (-1, "c"),
            (slice(1, None), "bc"),
            ([2, 0], "ca"),
            (np.array([True, False, True]), "ac"),
        ],
    )
    def test_selection(self, batch, item, names):
        part = batch[item]
        assert "".join(part.names) == names
        np.testing.assert_array_equal(part.flux[:, 0, 0, 0], ["abc".index(n) for n in names])
        assert len(part.problems) == len(part) == len(names)

    def test_defaults_and_repr(self, batch):
        assert CutoutBatch(batch.flux, batch.ivar).names == ("0", "1", "2")
        assert repr(batch) == "<CutoutBatch of 3 galaxies, 1 with problems>"
        assert batch.pixel_scale == SCALE

    def test_inconsistent_shapes(self, batch):
        with pytest.raises(ValueError, match=r"must be \(n, 5, 64, 64\)"):
            CutoutBatch(batch.flux[:, :3], batch.ivar)
        with pytest.raises(ValueError, match="names has 1 entries for 3 galaxies"):
            CutoutBatch(batch.flux, batch.ivar, ("a",))


class TestGeometry:
    @pytest.mark.parametrize(
        ("n", "scale"), [(64, 0.396), (128, 0.198), (100, 0.262), (41, 0.65), (30, 1.0), (200, 0.2)]
    )
    def test_flux_is_conserved_and_the_galaxy_centred(self, n, scale):
        image = make_galaxy((n, n), scale)
        batch = coerce_cutouts({"r": make_ccd(image, wcs=make_wcs(scale, (n, n)))})
        cutout = batch.flux[0, 2].astype(float)
        assert cutout.sum() == pytest.approx(image.sum(), rel=1e-5)
        np.testing.assert_allclose(centroid(cutout), 31.5, atol=1e-3)

    @pytest.mark.parametrize("n", [40, 63, 65, 101])
    def test_images_are_cropped_or_padded_by_whole_pixels(self, n):
        rng = np.random.default_rng(n)
        image = rng.normal(size=(n, n)).astype(np.float32)
        batch = coerce_cutouts({"r": make_ccd(image)})
        pad = max((64 - n) // 2, 0)
        assert (batch.ivar[0, 2] > 0).sum() == min(n, 64) ** 2
        assert not batch.flux[0, 2][batch.ivar[0, 2] == 0].any()
        used = batch.flux[0, 2][batch.ivar[0, 2] > 0]
        assert np.isin(used, image).all()
        if n < 64:
            np.testing.assert_array_equal(batch.flux[0, 2, pad : pad + n, pad : pad + n], image)

    @pytest.mark.parametrize(("scale", "tolerance"), [(0.396, 0.501), (0.31, 5e-3), (0.8, 5e-3)])
    def test_position_is_centred(self, scale, tolerance):
        shape, shift = (110, 120), (7.3, -11.6)
        image = make_galaxy(shape, scale, shift)
        ccd = make_ccd(image, wcs=make_wcs(scale, shape, shift=shift))
        cutout = coerce_cutouts({"g": ccd}, position=CENTRE).flux[0, 1].astype(float)
        np.testing.assert_allclose(centroid(cutout), 31.5, atol=tolerance)

    def test_position_in_another_frame(self):
        ccd = make_ccd(
            make_galaxy((100, 100), shift=(10, 4)), wcs=make_wcs(shape=(100, 100), shift=(10, 4))
        )
        cutout = coerce_cutouts({"g": ccd}, position=CENTRE.galactic).flux[0, 1].astype(float)
        np.testing.assert_allclose(centroid(cutout), 31.5, atol=0.501)

    def test_bands_with_different_grids_are_aligned(self):
        images = {}
        for band, scale, shift in (
            ("g", 0.396, (3, -2)),
            ("r", 0.396, (0, 0)),
            ("i", 0.2, (5.5, 1)),
        ):
            n = 150
            image = make_galaxy((n, n), scale, shift)
            wcs = make_wcs(scale, (n, n), turn=0.2, shift=shift)
            images[band] = make_ccd(image, wcs=wcs)
        batch = coerce_cutouts(images)
        middles = [centroid(batch.flux[0, k].astype(float)) for k in (1, 2, 3)]
        # The reference is rounded to a whole pixel, and the others follow it.
        np.testing.assert_allclose(middles, [middles[1]] * 3, atol=1e-2)

    def test_sliced_and_rotated_images(self):
        whole = NDDataRef(
            make_galaxy((120, 120), shift=(20, 20)),
            unit=u.nmgy,
            wcs=make_wcs(shape=(120, 120), turn=130, shift=(20, 20)),
            uncertainty=StdDevUncertainty(np.full((120, 120), 0.1)),
        )
        cutout = coerce_cutouts({"r": whole[30:, 25:]}, position=CENTRE).flux[0, 2].astype(float)
        np.testing.assert_allclose(centroid(cutout), 31.5, atol=0.501)

    def test_cube_with_a_third_world_axis(self, truth):
        wcs = WCS(naxis=3)
        wcs.wcs.ctype = ["RA---TAN", "DEC--TAN", "BAND"]
        wcs.wcs.crval = [150, 2, 0]
        wcs.wcs.crpix = [32.5, 32.5, 1]
        wcs.wcs.cdelt = [-0.198 / 3600, 0.198 / 3600, 1]
        batch = coerce_cutouts(cube(truth, 0, wcs=wcs), bands="gri")
        assert 1000 < (batch.ivar[0, 1] > 0).sum() <= 32 * 32

    def test_assumed_pixel_scale_warns(self, truth):
        with pytest.warns(AstroGenSpecWarning, match="no WCS and no pixel scale: 0.396") as record:
            coerce_cutouts([cube(truth, 0), cube(truth, 1)], bands="gri")
        assert len(record) == 1
        assert record[0].filename == __file__

    def test_pixel_scale_of_an_array(self):
        image = make_galaxy((128, 128), 0.198)[None, None]
        data = NDData(image, unit=u.nmgy, uncertainty=StdDevUncertainty(np.ones_like(image)))
        batch = coerce_cutouts(data, bands="z", pixel_scale=0.198 * u.arcsec)
        assert batch.flux[0, 4].sum() == pytest.approx(100, rel=1e-4)


class TestBadPixels:
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_values_that_are_not_finite_are_masked(self, value):
        image = make_galaxy()
        image[5, 6] = value
        batch = coerce_cutouts({"r": make_ccd(image)})
        assert batch.ivar[0, 2, 5, 6] == batch.flux[0, 2, 5, 6] == 0
        assert (batch.ivar[0, 2] > 0).sum() == 64 * 64 - 1

    @pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
    def test_invalid_uncertainties_are_masked(self, value):
        sigma = np.full((64, 64), 0.1)
        sigma[3, 4] = value
        batch = coerce_cutouts({"r": make_ccd(sigma=sigma)})
        assert batch.ivar[0, 2, 3, 4] == batch.flux[0, 2, 3, 4] == 0
        assert (batch.ivar[0, 2] > 0).sum() == 64 * 64 - 1

    def test_band_without_good_pixels_is_absent(self):
        bad = make_ccd(np.full((64, 64), np.nan))
        batch = coerce_cutouts({"g": bad, "r": make_ccd()})
        np.testing.assert_array_equal(batch.bands_present[0], [False, False, True, False, False])

    def test_input_is_not_modified(self):
        image = make_galaxy()
        image[0, 0] = np.nan
        ccd = make_ccd(image)
        before = ccd.data.copy(), ccd.uncertainty.array.copy()
        coerce_cutouts({"r": ccd})
        np.testing.assert_array_equal(ccd.data, before[0])
        np.testing.assert_array_equal(ccd.uncertainty.array, before[1])


def nd(shape, unit="nmgy", **options):
    return NDData(
        np.ones(shape), unit=unit, uncertainty=StdDevUncertainty(np.ones(shape)), **options
    )


CALL_ERRORS = {
    "no unit": (np.ones((5, 64, 64)), {}, u.UnitsError, "without a unit; multiply it"),
    "a path": ("galaxy.fits", {}, TypeError, "of type str.*read_cutout_fits"),
    "none": (None, {}, TypeError, "of type NoneType"),
    "empty list": ([], {}, ValueError, "cutouts is empty; give at least one"),
    "empty dict": ({}, {}, ValueError, "empty mapping; give at least one band"),
    "empty array": (np.ones((0, 5, 64, 64)) * u.nmgy, {"bands": BANDS}, ValueError, "it is empty"),
    "unknown band": (
        {"y": nd((64, 64))},
        {},
        ValueError,
        "contains 'y', which is no band: the bands are u, g, r, i, z; leave images in other bands",
    ),
    "unknown band name": (
        nd((1, 64, 64)),
        {"bands": "R"},
        ValueError,
        "bands contains 'R', which is no",
    ),
    "band twice": (nd((2, 64, 64)), {"bands": "gg"}, ValueError, "'g' more than once"),
    "bands of a wrong type": (
        nd((2, 64, 64)),
        {"bands": 2},
        TypeError,
        "bands is 2, but it must be names",
    ),
    "bands not named": (nd((5, 64, 64)), {}, ValueError, "has 5 bands without names"),
    "wrong number of bands": (
        nd((5, 64, 64)),
        {"bands": "gri"},
        ValueError,
        "5 bands .* but 3 are named",
    ),
    "bands twice": ({"g": nd((64, 64))}, {"bands": "r"}, ValueError, "leave bands out"),
    "two dimensions": (
        nd((64, 64)),
        {},
        ValueError,
        r"shape \(64, 64\), but a cube must be \(band, y, x\)",
    ),
    "five dimensions": (
        np.ones((1, 1, 1, 9, 9)) * u.nmgy,
        {},
        ValueError,
        r"must be \(band, y, x\) for one",
    ),
    "cube as a band": (
        {"g": nd((3, 64, 64))},
        {},
        ValueError,
        r"band g of the cutout .* must be \(y, x\)",
    ),
    "bare array as a band": (
        {"g": np.ones((64, 64))},
        {},
        TypeError,
        "band g of the cutout is of type ndarray",
    ),
    "cut out of bare numbers": (
        {"g": Cutout2D(np.ones((64, 64)), (32, 32), 20)},
        {},
        u.UnitsError,
        "band g of the cutout is a Cutout2D without a unit",
    ),
    "list of files": (["a.fits"], {}, TypeError, "of type str, but it must be an NDData cube"),
    "bare array in a list": (
        [np.ones((3, 9, 9))],
        {"bands": "gri"},
        u.UnitsError,
        "without a unit",
    ),
    "on_error": (
        nd((1, 64, 64)),
        {"bands": "r", "on_error": "ignore"},
        ValueError,
        "on_error is 'ignore'",
    ),
    "pixel scale": (
        nd((1, 64, 64)),
        {"bands": "r", "pixel_scale": 3 * u.m},
        u.UnitsError,
        "must be an angle",
    ),
    "negative pixel scale": (
        nd((1, 64, 64)),
        {"bands": "r", "pixel_scale": -1 * u.arcsec},
        ValueError,
        "pixel_scale is -1 x -1 arcsec .* must be between 0.01 and 2.5 arcsec",
    ),
    "huge pixel scale": (
        np.ones((1, 64, 64)) * u.nmgy,
        {"bands": "r", "pixel_scale": 1 * u.deg},
        ValueError,
        "pixel_scale is 3600 x 3600 arcsec",
    ),
    "two pixel scales": (
        nd((1, 64, 64)),
        {"bands": "r", "pixel_scale": [1, 1] * u.arcsec},
        ValueError,
        "must be one angle for all",
    ),
    "position of a wrong type": (
        nd((1, 64, 64)),
        {"bands": "r", "position": (1, 2)},
        TypeError,
        "SkyCoord",
    ),
    "number of positions": (
        [{"r": make_ccd()}] * 3,
        {"position": SkyCoord([CENTRE, CENTRE])},
        ValueError,
        r"position has shape \(2,\) for 3 galaxies",
    ),
    "position for an array": (
        np.ones((1, 1, 64, 64)) * u.nmgy,
        {"bands": "r", "position": CENTRE},
        ValueError,
        "position was given with an array",
    ),
}


@pytest.mark.parametrize("case", CALL_ERRORS)
@pytest.mark.parametrize("on_error", ["raise", "flag"])
def test_errors_of_the_call_are_always_raised(case, on_error):
    given, options, kind, message = CALL_ERRORS[case]
    with pytest.raises(kind, match=message):
        coerce_cutouts(given, **{"on_error": on_error, **options})


def zero_variance():
    return make_ccd(sigma=np.zeros((64, 64)))


GALAXY_ERRORS = {
    "no unit": (
        lambda: {"r": nd((64, 64), unit=None, wcs=make_wcs())},
        u.UnitsError,
        "has no unit",
    ),
    "dimensionless": (lambda: {"r": make_ccd(unit="")}, u.UnitsError, "has no unit"),
    "counts": (
        lambda: {"r": make_ccd(unit="adu")},
        u.UnitConversionError,
        r"in counts \(adu\); apply",
    ),
    "count rate": (lambda: {"r": make_ccd(unit="electron/s")}, u.UnitConversionError, "in counts"),
    "surface brightness": (
        lambda: {"r": make_ccd(unit="MJy/sr")},
        u.UnitConversionError,
        r"surface brightness \(MJy / sr\); multiply it by the solid angle of a pixel",
    ),
    "magnitudes": (lambda: {"r": make_ccd(unit="mag")}, u.UnitConversionError, "in magnitudes"),
    "a length": (
        lambda: {"r": make_ccd(unit="m")},
        u.UnitConversionError,
        "which is not a flux density",
    ),
    "nothing finite": (
        lambda: {"r": make_ccd(np.full((64, 64), np.nan))},
        ValueError,
        "r: no pixel is finite",
    ),
    "all masked": (
        lambda: {"r": make_ccd(mask=np.ones((64, 64), bool))},
        ValueError,
        "every pixel is masked or not finite",
    ),
    "no positive variance": (
        lambda: {"r": zero_variance()},
        ValueError,
        "no good pixel has a positive, finite",
    ),
    "no noise": (
        lambda: {"r": CCDData(np.ones((64, 64)), unit="nmgy", wcs=make_wcs())},
        ValueError,
        "its noise cannot be estimated",
    ),
    "one pixel": (
        lambda: {"r": make_ccd(np.ones((1, 1)))},
        ValueError,
        "has 1 x 1 pixels .* at least 8 x 8",
    ),
    "no kind of uncertainty": (
        lambda: {
            "r": NDData(
                np.ones((64, 64)), unit="nmgy", wcs=make_wcs(), uncertainty=UnknownUncertainty(1)
            )
        },
        TypeError,
        "wrap its array in StdDevUncertainty",
    ),
    "shape of the uncertainty": (
        lambda: {
            "r": NDData(
                np.ones((64, 64)),
                unit="nmgy",
                wcs=make_wcs(),
                uncertainty=StdDevUncertainty(np.ones(9)),
            )
        },
        ValueError,
        r"uncertainty has shape \(9,\) but the cutout has shape",
    ),
    "complex numbers": (
        lambda: {"r": NDData(np.ones((64, 64), complex), unit="nmgy", wcs=make_wcs())},
        TypeError,
        "must be real numbers",
    ),
    "a WCS for one band only": (
        lambda: {"r": make_ccd(), "g": nd((64, 64))},
        ValueError,
        "band g has no WCS on the sky, but other bands have one",
    ),
    "shapes without WCS": (
        lambda: {"r": nd((64, 64)), "g": nd((60, 64))},
        ValueError,
        "different shapes .* and no WCS",
    ),
    "turned bands": (
        lambda: {"r": make_ccd(), "g": make_ccd(wcs=make_wcs(turn=3))},
        ValueError,
        "band g is turned by -?3.00 degrees with respect to band r; reproject",
    ),
    "mirrored bands": (
        lambda: {"r": make_ccd(), "g": make_ccd(wcs=make_wcs(mirror=True))},
        ValueError,
        "band g is mirrored with respect to band r",
    ),
    "bands elsewhere": (
        lambda: {"r": make_ccd(), "g": make_ccd(wcs=make_wcs(shift=(90, 0)))},
        ValueError,
        "galaxy's position in r lies outside the image in band g",
    ),
    "the other side of the sky": (
        lambda: {
            "r": make_ccd(),
            "g": make_ccd(wcs=make_wcs(centre=SkyCoord(330 * u.deg, -2 * u.deg))),
        },
        ValueError,
        "lies outside the image in band g",
    ),
    "pixel scale": (
        lambda: {"r": make_ccd(wcs=make_wcs(scale=3600))},
        ValueError,
        "pixel scale of the WCS is 3600 x 3600",
    ),
    "huge PIXSCALE": (
        lambda: {"r": nd((64, 64), meta={"PIXSCALE": 99.0})},
        ValueError,
        "PIXSCALE is 99 x 99 arcsec",
    ),
    "PIXSCALE": (
        lambda: {"r": nd((64, 64), meta={"PIXSCALE": "small"})},
        ValueError,
        "PIXSCALE is 'small', but it must be a number",
    ),
}


class TestBadGalaxies:
    @pytest.mark.parametrize("case", GALAXY_ERRORS)
    def test_single_bad_galaxy_raises(self, case):
        make, kind, message = GALAXY_ERRORS[case]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstroGenSpecWarning)
            with pytest.raises(kind, match=f"^(?!galaxy).*{message}"):
                coerce_cutouts(make())

    @pytest.mark.parametrize("case", GALAXY_ERRORS)
    def test_bad_galaxy_does_not_affect_other_galaxies(self, case):
        make, kind, message = GALAXY_ERRORS[case]
        good = {"r": make_ccd()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstroGenSpecWarning)
            with pytest.raises(kind, match=f"galaxy 1: .*{message}"):
                coerce_cutouts([good, make(), good])
            batch = coerce_cutouts([good, make(), good], on_error="flag")
        assert batch.problems[0] == batch.problems[2] == ""
        np.testing.assert_array_equal(batch.bands_present[:, 2], [True, False, True])
        assert not batch.flux[1].any()
        with pytest.raises(ValueError, match=message):
            raise ValueError(batch.problems[1])

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_bad_galaxies_in_an_array(self, bad):
        flux = np.random.default_rng(0).normal(size=(4, 2, 64, 64))
        flux[2] = bad
        flux[3, 0] = bad
        data = NDData(flux, unit=u.nmgy, uncertainty=StdDevUncertainty(np.ones_like(flux)))
        options = {"bands": "gr", "pixel_scale": SCALE}
        with pytest.raises(
            ValueError, match="galaxy 2: no band has a usable pixel: no pixel is finite"
        ):
            coerce_cutouts(data, **options)
        batch = coerce_cutouts(data, on_error="flag", **options)
        assert [bool(problem) for problem in batch.problems] == [False, False, True, False]
        np.testing.assert_array_equal(batch.bands_present[3], [False, False, True, False, False])

    def test_array_of_single_pixels_raises(self):
        with pytest.raises(ValueError, match="at least 8 x 8"):
            coerce_cutouts(nd((3, 5, 1, 1)), bands=BANDS, pixel_scale=SCALE, on_error="flag")

    @pytest.mark.parametrize(("ra", "dec"), [(np.nan, 10.0), (150.0, np.nan), (np.nan, np.nan)])
    def test_position_that_is_not_finite(self, ra, dec):
        where = SkyCoord(ra * u.deg, dec * u.deg)
        message = "position is not finite; give the position of the galaxy on the sky, or omit"
        with pytest.raises(ValueError, match=message):
            coerce_cutouts({"r": make_ccd()}, position=where)
        two = SkyCoord([CENTRE.ra.deg, ra], [CENTRE.dec.deg, dec], unit="deg")
        images = [{"r": make_ccd()}, {"r": make_ccd()}]
        batch = coerce_cutouts(images, position=two, on_error="flag")
        assert batch.problems[0] == "" and "position is not finite" in batch.problems[1]

    def test_position_outside_the_image(self):
        away = CENTRE.directional_offset_by(0 * u.deg, 1 * u.arcmin)
        with pytest.raises(ValueError, match="position lies outside the image in band r: pixel"):
            coerce_cutouts({"r": make_ccd()}, position=away)
        with pytest.raises(ValueError, match="position was given, but the cutout has no WCS"):
            coerce_cutouts({"r": nd((64, 64))}, position=CENTRE)


class TestFiles:
    @pytest.fixture
    def batch(self):
        return coerce_cutouts({"g": make_ccd(), "r": make_ccd(meta={"name": "NGC 7"})})

    @pytest.mark.parametrize("position", [None, CENTRE])
    @pytest.mark.parametrize("suffix", [".fits", ".fits.gz"])
    def test_round_trip(self, batch, tmp_path, position, suffix):
        path = tmp_path / f"galaxy{suffix}"
        write_cutout_fits(path, batch, position=position)
        images = read_cutout_fits(path)
        assert list(images) == ["g", "r"]
        assert (images["g"].wcs is None) == (position is None)
        again = coerce_cutouts(images)
        np.testing.assert_array_equal(again.flux, batch.flux)
        np.testing.assert_allclose(again.ivar, batch.ivar, rtol=1e-6)
        assert again.names == batch.names
        with pytest.raises(OSError, match="already exists; pass overwrite"):
            write_cutout_fits(path, batch)

    def test_cube_with_uncertainty_and_mask(self, tmp_path):
        from astropy.io import fits

        flux = np.stack([make_galaxy(), make_galaxy()])
        mask = np.zeros(flux.shape, np.int16)
        mask[1, 2, 3] = 4
        header = fits.Header({"BANDS": "g,i", "BUNIT": "nanomaggies", "PIXSCALE": 0.396})
        fits.HDUList(
            [
                fits.PrimaryHDU(flux, header),
                fits.ImageHDU(np.full(flux.shape, 0.5), name="UNCERT"),
                fits.ImageHDU(mask, name="MASK"),
            ]
        ).writeto(tmp_path / "cube.fits")
        batch = coerce_cutouts(read_cutout_fits(tmp_path / "cube.fits"))
        np.testing.assert_allclose(batch.flux[0, 1], flux[0], rtol=1e-6)
        assert batch.ivar[0, 3, 2, 3] == 0
        assert batch.ivar[0, 1, 0, 0] == 4

    def test_errors(self, tmp_path, batch):
        from astropy.io import fits

        with pytest.raises(FileNotFoundError, match="there is no file"):
            read_cutout_fits(tmp_path / "absent.fits")
        (tmp_path / "text.fits").write_text("not an image")
        with pytest.raises(OSError, match="cannot be read as a FITS file"):
            read_cutout_fits(tmp_path / "text.fits")
        fits.writeto(tmp_path / "plain.fits", np.ones((9, 9)))
        with pytest.raises(
            ValueError, match=r"no image extension named after a band .* no keyword BANDS"
        ):
            read_cutout_fits(tmp_path / "plain.fits")
        fits.writeto(tmp_path / "cube.fits", np.ones((3, 9, 9)), fits.Header({"BANDS": "gr"}))
        with pytest.raises(ValueError, match="BANDS names 2 bands"):
            read_cutout_fits(tmp_path / "cube.fits")
        fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.ones((9, 9)), name="g")]).writeto(
            tmp_path / "unit.fits"
        )
        with pytest.raises(u.UnitsError, match="image G, has no unit; write one into BUNIT"):
            read_cutout_fits(tmp_path / "unit.fits")
        write_cutout_fits(tmp_path / "x.fits", batch)
        with fits.open(tmp_path / "x.fits") as hdus:
            hdus["IVAR_g"].data = np.ones((3, 3))
            hdus.writeto(tmp_path / "y.fits")
        with pytest.raises(ValueError, match=r"IVAR_G of .* has shape \(3, 3\)"):
            read_cutout_fits(tmp_path / "y.fits")
        blank = CutoutBatch(batch.flux, np.zeros_like(batch.ivar))
        with pytest.raises(ValueError, match="galaxy 0 of the batch has no band to write"):
            write_cutout_fits(tmp_path / "z.fits", blank)


@pytest.mark.parametrize("n_pixels", [64, 48])
def test_arrays_are_converted_at_once(monkeypatch, n_pixels):
    calls = []

    def count(values, *arguments, **options):
        calls.append(values.shape)
        return pixels.calibrate(values, *arguments, **options)

    monkeypatch.setattr(cutouts, "calibrate", count)
    flux = np.ones((200, 5, n_pixels, n_pixels), np.float32)
    data = NDData(flux, unit=u.nmgy, uncertainty=StdDevUncertainty(flux))
    batch = coerce_cutouts(data, bands=BANDS, pixel_scale=SCALE)
    assert calls == [flux.shape]
    assert ((batch.ivar > 0).sum(axis=(1, 2, 3)) == 5 * n_pixels**2).all()
