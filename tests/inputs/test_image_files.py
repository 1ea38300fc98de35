"""FITS files of images: layouts, units of noise, zero points, one file per band, damage."""

import warnings

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData, InverseVariance, NDData, StdDevUncertainty, VarianceUncertainty
from astropy.wcs import WCS

from astrogenspec import coerce_cutouts, decode_flags, read_cutout_fits, write_cutout_fits
from astrogenspec.inputs.band_files import group_band_files
from astrogenspec.inputs.image_files import inspect_band_file, read_band_file
from astrogenspec.inputs.image_units import check_zero_point, read_image_unit
from astrogenspec.warnings import AstroGenSpecWarning

NOISE = 0.02
UJY = 3.631


def make_image():
    y, x = np.indices((64, 64)) - 31.5
    rng = np.random.default_rng(0)
    return 2 * np.exp(-np.hypot(x, y) / 4) + rng.normal(0, NOISE, (64, 64))


IMAGE = make_image()
WCS_KEYWORDS = {
    "CTYPE1": "RA---TAN",
    "CTYPE2": "DEC--TAN",
    "CRPIX1": 32.5,
    "CRPIX2": 32.5,
    "CRVAL1": 10.0,
    "CRVAL2": 10.0,
    "CDELT1": -1.1e-4,
    "CDELT2": 1.1e-4,
}


def write(path, *extensions, **primary):
    """Write (name, values, keywords) as extensions."""
    hdus = [fits.PrimaryHDU(header=fits.Header(primary))]
    for name, values, keywords in extensions:
        if np.ndim(values) == 0:
            values = np.full(IMAGE.shape, float(values))
        hdus.append(fits.ImageHDU(values, fits.Header(keywords), name=name))
    fits.HDUList(hdus).writeto(path)
    return path


def measured(batch, band="r"):
    """Total flux and noise of one band, nmgy."""
    k = "ugriz".index(band)
    return batch.flux[0, k].sum(), np.median(batch.ivar[0, k]) ** -0.5


def read(path, **options):
    return measured(coerce_cutouts(read_cutout_fits(path, **options)))


SCALE = {"PIXSCALE": 0.396}
TRUTH = (pytest.approx(IMAGE.sum(), rel=2e-4), pytest.approx(NOISE, rel=2e-4))


@pytest.mark.parametrize(
    ("unit", "factor", "name", "noise", "own"),
    [
        ("nmgy", 1, "IVAR_r", NOISE**-2, None),
        ("nmgy", 1, "r_IVAR", NOISE**-2, "nmgy-2"),
        ("nmgy", 1, "r-ivar", (NOISE * UJY) ** -2, "uJy-2"),
        ("uJy", UJY, "IVAR_r", (NOISE * UJY) ** -2, None),
        ("uJy", UJY, "INVVAR_R", (NOISE * UJY) ** -2, "uJy-2"),
        ("uJy", UJY, "IVAR_r", NOISE**-2, "nmgy-2"),
        ("mJy", UJY * 1e-3, "UNCERT_r", NOISE * UJY, "uJy"),
        ("mJy", UJY * 1e-3, "r ERR", NOISE * UJY * 1e3, "nJy"),
        ("nmgy", 1, "SIGMA.R", NOISE * 1e-9, "mgy"),
        ("nmgy", 1, "VAR_r", NOISE**2, None),
        ("Jy", UJY * 1e-6, "r_var", (NOISE * UJY) ** 2, "uJy2"),
        ("nmgy", 1, "WHT_r", NOISE**-2, "nmgy-2"),
    ],
)
def test_noise_is_converted_to_the_unit_of_its_image(tmp_path, unit, factor, name, noise, own):
    keywords = {} if own is None else {"BUNIT": own}
    path = write(
        tmp_path / "a.fits",
        ("r", IMAGE * factor, {"BUNIT": unit, **SCALE}),
        (name, noise, keywords),
    )
    assert read(path) == TRUTH


@pytest.mark.parametrize(
    ("name", "own"), [("IVAR_r", "nmgy"), ("UNCERT_r", "nmgy-2"), ("VAR_r", "s"), ("ERR_r", "mag")]
)
def test_noise_in_a_wrong_unit_is_refused(tmp_path, name, own):
    path = write(
        tmp_path / "a.fits", ("r", IMAGE, {"BUNIT": "nmgy", **SCALE}), (name, 1, {"BUNIT": own})
    )
    with pytest.raises(
        u.UnitsError, match=f"a.fits, extension {name.upper()}: the uncertainty has the unit"
    ):
        read_cutout_fits(path)


def test_relative_weights_are_a_mask(tmp_path):
    weight = np.full(IMAGE.shape, 3.0)
    weight[5, 6] = 0
    path = write(
        tmp_path / "a.fits", ("r", IMAGE, {"BUNIT": "nmgy", **SCALE}), ("r_wht", weight, {})
    )
    with pytest.warns(AstroGenSpecWarning, match="used as a mask only"):
        images = read_cutout_fits(path)
    assert images["r"].uncertainty is None
    assert images["r"].mask.sum() == 1
    assert images["r"].mask[5, 6]


@pytest.mark.parametrize(
    "uncertainty",
    [
        StdDevUncertainty(np.full(IMAGE.shape, NOISE * UJY), unit="uJy"),
        VarianceUncertainty(np.full(IMAGE.shape, (NOISE * UJY * 1e3) ** 2), unit="nJy2"),
        InverseVariance(np.full(IMAGE.shape, (NOISE * UJY) ** -2), unit=u.uJy**-2),
    ],
)
def test_uncertainty_of_ccddata_in_a_unit_of_its_own(uncertainty):
    image = CCDData(IMAGE * UJY * 1e-3, unit="mJy", uncertainty=uncertainty, meta=SCALE)
    assert measured(coerce_cutouts({"r": image})) == TRUTH


@pytest.mark.parametrize(
    "unit",
    ["nanomaggies", "nanomaggy", "nmgy", "nanomaggy / pix", "nMgy", "NMGY", "nanomaggies/pixel"],
)
def test_spellings_of_units(tmp_path, unit):
    path = write(
        tmp_path / "a.fits", ("r", IMAGE, {"BUNIT": unit, **SCALE}), ("IVAR_r", NOISE**-2, {})
    )
    assert read(path) == TRUTH


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("ADU", u.adu),
        ("DN", u.DN),
        ("ELECTRONS/S", u.electron / u.s),
        ("e-/s", u.electron / u.s),
        ("COUNTS", u.count),
        ("counts/sec", u.count / u.s),
        ("cps", u.count / u.s),
    ],
)
def test_spellings_of_counts(text, unit):
    assert read_image_unit(text) == unit
    with pytest.raises(u.UnitsError, match="is unknown"):
        read_image_unit("furlong")


@pytest.mark.parametrize(
    "uncertainty",
    [
        StdDevUncertainty(np.full(IMAGE.shape, NOISE)),
        VarianceUncertainty(np.full(IMAGE.shape, NOISE**2)),
        InverseVariance(np.full(IMAGE.shape, NOISE**-2)),
    ],
)
def test_files_written_by_ccddata(tmp_path, uncertainty):
    mask = np.zeros(IMAGE.shape, bool)
    mask[1, 2] = True
    image = CCDData(
        IMAGE, unit="nmgy", uncertainty=uncertainty, mask=mask, meta={"FILTER": "r", **SCALE}
    )
    image.write(tmp_path / "a.fits")
    batch = coerce_cutouts(read_cutout_fits(tmp_path / "a.fits"))
    assert measured(batch)[1] == pytest.approx(NOISE, rel=1e-4)
    assert batch.ivar[0, 2, 1, 2] == 0
    fits.setval(tmp_path / "a.fits", "UTYPE", value="Unknown", extname="UNCERT")
    with pytest.raises(ValueError, match="extension UNCERT: its keyword UTYPE is 'Unknown'"):
        read_cutout_fits(tmp_path / "a.fits")


class TestDuplicates:
    @pytest.mark.filterwarnings("ignore:.*images of one band")
    def test_first_of_two_versions_is_used(self, tmp_path):
        path = write(
            tmp_path / "a.fits",
            ("r", IMAGE, {"BUNIT": "nmgy", "EXTVER": 1, **SCALE}),
            ("IVAR_r", 5.0, {"EXTVER": 2}),
            ("IVAR_r", NOISE**-2, {"EXTVER": 1}),
            ("r", IMAGE * 1000, {"BUNIT": "nmgy", "EXTVER": 2, **SCALE}),
        )
        assert read(path) == TRUTH

    def test_warning(self, tmp_path):
        two = [("r", k * IMAGE, {"BUNIT": "nmgy", "EXTVER": k, **SCALE}) for k in (1, 2)]
        path = write(tmp_path / "a.fits", *two)
        with pytest.warns(
            AstroGenSpecWarning, match=r"2 images of one band: R \(EXTVER 1\), R \(EXT"
        ):
            images = read_cutout_fits(path)
        np.testing.assert_array_equal(images["r"].data, IMAGE)

    @pytest.mark.filterwarnings("ignore:.*images of one band")
    def test_noise_of_another_version_is_refused(self, tmp_path):
        two = [("r", k * IMAGE, {"BUNIT": "nmgy", "EXTVER": k, **SCALE}) for k in (1, 2)]
        path = write(tmp_path / "a.fits", *two, ("IVAR_r", 1.0, {"EXTVER": 2}))
        with pytest.raises(
            ValueError, match="none has the EXTVER 1 of the image; leave one of each"
        ):
            read_cutout_fits(path)


HUBBLE = (UJY * 1e-7 * u.Jy).to_value(u.erg / u.s / u.cm**2 / u.AA, u.spectral_density(6200 * u.AA))


class TestZeroPoints:
    """Images in counts, of which 10 are one nmgy: the zero point is 25."""

    def path(self, folder, keywords, factor=10, **primary):
        return write(
            folder / "a.fits",
            ("r", IMAGE * factor, {**keywords, **SCALE}),
            ("ERR_r", NOISE * factor, {}),
            **primary,
        )

    @pytest.mark.parametrize(
        "keywords",
        [
            {"BUNIT": "adu", "MAGZERO": 25.0},
            {"BUNIT": "DN", "MAGZPT": 25},
            {"BUNIT": "ELECTRONS/S", "ZP": "25.0"},
            {"BUNIT": "counts", "ZEROPNT": 25.0},
            {"PHOTZPT": 25.0},
            {"BUNIT": "ELECTRONS/S", "PHOTFLAM": HUBBLE, "PHOTPLAM": 6200.0, "PHOTZPT": -21.1},
        ],
    )
    def test_keywords(self, tmp_path, keywords):
        with pytest.warns(AstroGenSpecWarning, match="zero point .* taken as the AB magnitude"):
            assert read(self.path(tmp_path, keywords)) == TRUTH

    @pytest.mark.filterwarnings("ignore:images in counts")
    def test_hubble_counts_are_divided_by_the_exposure_time(self, tmp_path):
        keywords = {"BUNIT": "ELECTRONS", "PHOTFLAM": HUBBLE, "PHOTPLAM": 6200.0}
        path = self.path(tmp_path, keywords, 1000, EXPTIME=100.0)
        assert read(path) == TRUTH

    @pytest.mark.parametrize("zero_point", [25, 25 * u.ABmag, 25 * u.mag, {"r": 25.0, "g": 20.0}])
    def test_argument_overrides_the_header(self, tmp_path, zero_point):
        path = self.path(tmp_path, {"BUNIT": "adu", "MAGZERO": 30.0})
        assert read(path, zero_point=zero_point) == TRUTH

    def test_noise_in_flux_units(self, tmp_path):
        path = write(
            tmp_path / "a.fits",
            ("r", IMAGE * 10, {"BUNIT": "ADU", **SCALE}),
            ("IVAR_r", NOISE**-2, {"BUNIT": "nmgy-2"}),
        )
        assert read(path, zero_point=25) == TRUTH

    @pytest.mark.filterwarnings("ignore:images in counts")
    def test_objects_in_memory(self):
        noise = StdDevUncertainty(np.full(IMAGE.shape, NOISE * 10))
        image = CCDData(IMAGE * 10, unit="adu", uncertainty=noise, meta={"MAGZERO": 25, **SCALE})
        assert measured(coerce_cutouts({"r": image})) == TRUTH
        plain = CCDData(IMAGE * 10, unit="adu", uncertainty=noise, meta=SCALE)
        assert measured(coerce_cutouts({"r": plain}, zero_point=25)) == TRUTH
        cubes = NDData(
            np.array([[IMAGE * 10, IMAGE]]),
            unit="adu",
            uncertainty=StdDevUncertainty(np.array([[IMAGE * 0 + NOISE * 10, IMAGE * 0 + NOISE]])),
            meta=SCALE,
        )
        batch = coerce_cutouts(cubes, bands="gr", zero_point={"g": 25, "r": 22.5})
        assert measured(batch, "g") == measured(batch, "r") == TRUTH

    def test_flux_units_do_not_use_it(self, tmp_path):
        path = self.path(tmp_path, {"BUNIT": "nmgy", "MAGZERO": 25.0}, 1)
        assert read(path) == read(path, zero_point=30) == TRUTH

    @pytest.mark.parametrize(
        ("keywords", "message"),
        [
            ({"BUNIT": "adu", "MAGZERO": 25.0, "ZP": 24.0}, "MAGZERO = 25 and ZP = 24 .* differ"),
            ({"BUNIT": "adu", "MAGZERO": 25.0, "MAGSYS": "Vega"}, "Vega magnitude by .* MAGSYS"),
            ({"BUNIT": "adu", "MAGZERO": 0.0}, "MAGZERO is 0, but .* between 10 and 40"),
            ({"BUNIT": "adu", "ZP": "high"}, "the keyword ZP is 'high', but it must be a number"),
            (
                {"BUNIT": "ELECTRONS", "PHOTFLAM": HUBBLE, "PHOTPLAM": 6200.0},
                "PHOTFLAM, PHOTPLAM, EXPTIME must be positive numbers",
            ),
        ],
    )
    def test_unusable_zero_points(self, tmp_path, keywords, message):
        with pytest.raises((ValueError, TypeError), match=message):
            read_cutout_fits(self.path(tmp_path, keywords))

    def test_counts_without_zero_point(self, tmp_path):
        path = self.path(tmp_path, {"BUNIT": "adu"})
        with pytest.raises(u.UnitsError, match="in counts .* or give coerce_cutouts a zero_point"):
            coerce_cutouts(read_cutout_fits(path))
        for zero_point, message in (
            (5.0, "zero_point is 5, but"),
            ("x", "must be a number"),
            ({"R": 25}, "'R', which is no band"),
            (25 * u.Jy, "must be a number"),
        ):
            with pytest.raises((ValueError, TypeError), match=message):
                check_zero_point(zero_point)


class TestOneFilePerBand:
    @pytest.fixture
    def paths(self, tmp_path):
        paths = {}
        for band in "gri":
            hdus = [
                fits.PrimaryHDU(IMAGE, fits.Header({"BUNIT": "nmgy", **WCS_KEYWORDS})),
                fits.ImageHDU(np.full(IMAGE.shape, NOISE), name="ERR"),
            ]
            paths[band] = tmp_path / f"{band}.fits"
            fits.HDUList(hdus).writeto(paths[band])
        return paths

    def test_mapping_of_paths(self, paths):
        batch = coerce_cutouts(
            {"g": paths["g"], "r": str(paths["r"]), "i": read_band_file(paths["i"], "i")}
        )
        assert [measured(batch, band) for band in "gri"] == [TRUTH] * 3

    def test_missing_or_damaged_file_costs_one_galaxy(self, paths, tmp_path):
        absent = {"g": tmp_path / "absent.fits"}
        (tmp_path / "cut.fits").write_bytes(paths["r"].read_bytes()[:9000])
        cut = {"r": tmp_path / "cut.fits"}
        batch = coerce_cutouts([paths, absent, cut], on_error="flag")
        assert decode_flags(batch.flag_codes) == [[], ["file_not_read"], ["file_not_read"]]
        assert "there is no file" in batch.problems[1]
        assert "is truncated" in batch.problems[2]
        with pytest.raises(FileNotFoundError, match=r"galaxy 1: there is no file .*absent.fits"):
            coerce_cutouts([paths, absent])

    def test_filter_of_the_header(self, paths, tmp_path):
        for text, band in (
            ("r", "r"),
            ("g DECam SDSS c0001 4720.0 1520.0", "g"),
            ("SDSS-I", "i"),
            ("HSC-G", "g"),
            ("z.MP9901", "z"),
            ("R", None),
            ("F606W", None),
            ("clear", None),
        ):
            fits.setval(paths["r"], "FILTER", value=text)
            found = inspect_band_file(paths["r"])
            assert (found and found.band) == band
            if band:
                assert list(read_cutout_fits(paths["r"])) == [band]
        with pytest.raises(
            ValueError, match="the filter of .* is 'clear', which is none of the bands"
        ):
            read_cutout_fits(paths["r"])
        fits.setval(paths["r"], "FILTER", value="g")
        with pytest.raises(ValueError, match="given for band r, but its image is in band g"):
            read_band_file(paths["r"], "r")
        assert inspect_band_file(paths["i"]).band == ""
        assert inspect_band_file(tmp_path / "absent.fits") is None

    def test_file_with_several_images(self, tmp_path):
        path = write(tmp_path / "a.fits", ("one", IMAGE, {}), ("two", IMAGE, {}))
        with pytest.raises(ValueError, match="no image extension R and not exactly one image"):
            read_band_file(path, "r")
        assert inspect_band_file(path) is None


class TestWorldCoordinates:
    @pytest.mark.parametrize(
        "keywords",
        [
            {"CDELT1": 0.0},
            {"CTYPE2": "DEC--SIN"},
            {"CUNIT1": "parsec"},
            {"CTYPE1": 5},
            {"CRVAL1": "ten"},
            {"CDELT2": "1.1e-4"},
            {"WCSAXES": 1000000},
            {"CRVAL2": 500.0},
            {"A_ORDER": 30000, "CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP"},
        ],
    )
    def test_unusable_keywords_of_a_file(self, tmp_path, keywords):
        path = write(
            tmp_path / "a.fits", ("r", IMAGE, {"BUNIT": "nmgy", **WCS_KEYWORDS, **keywords})
        )
        with pytest.raises(
            ValueError, match=r"a.fits, image R: its WCS cannot be used \("
        ) as error:
            read_cutout_fits(path)
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 500

    @pytest.mark.parametrize(
        "matrix", [[[0, 0], [0, 0]], [[1e-4, 1e-4], [1e-4, 1e-4]], [[1e-4, 0], [0, 0]]]
    )
    @pytest.mark.parametrize("as_pc", [True, False])
    def test_singular_matrices(self, matrix, as_pc):
        wcs = WCS(naxis=2)
        wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
        if as_pc:
            wcs.wcs.pc = matrix
        else:
            wcs.wcs.cd = matrix
        noise = StdDevUncertainty(np.full(IMAGE.shape, NOISE))
        with pytest.raises(ValueError, match="WCS|pixel axes") as error:
            coerce_cutouts({"r": CCDData(IMAGE, unit="nmgy", wcs=wcs, uncertainty=noise)})
        assert "\n" not in str(error.value)


class TestNumbers:
    @pytest.mark.parametrize("value", [1e30, -1e38, 1e300, np.inf, np.nan, 3.4e38])
    def test_huge_values_are_bad_pixels_without_warnings(self, value):
        image = IMAGE.copy()
        image[40, 40] = value
        noise = StdDevUncertainty(np.full(IMAGE.shape, NOISE))
        for scale in (0.396, 0.2):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                data = CCDData(image, unit="nmgy", uncertainty=noise, meta={"PIXSCALE": scale})
                batch = coerce_cutouts({"r": data})
            assert np.abs(batch.flux).max() < 100
            assert np.isfinite(batch.ivar).all()

    @pytest.mark.parametrize("value", [1e-30, 1e-18, 1e18, 1e30, 1e300, 1e-300])
    def test_extreme_noise_is_bad(self, value):
        sigma = np.full(IMAGE.shape, NOISE)
        sigma[40, 40] = value
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            data = CCDData(
                IMAGE, unit="nmgy", uncertainty=StdDevUncertainty(sigma), meta={"PIXSCALE": 0.3}
            )
            batch = coerce_cutouts({"r": data})
        assert np.isfinite(batch.ivar).all()
        assert np.isfinite(batch.flux).all()
        assert (batch.ivar[0, 2] > 0).sum() > 2000

    @pytest.mark.parametrize("dtype", ["i2", "u1", "i8", ">f4", "u8"])
    def test_integers_do_not_overflow(self, dtype):
        image = np.clip(IMAGE * 60, 0, 200).astype(dtype)
        noise = StdDevUncertainty(np.full(IMAGE.shape, 2).astype(dtype))
        batch = coerce_cutouts({"r": CCDData(image, unit="Jy", uncertainty=noise, meta=SCALE)})
        assert batch.flux[0, 2].max() == pytest.approx(image.max() / 3631e-9, rel=1e-4)
        assert measured(batch)[1] == pytest.approx(2 / 3631e-9, rel=1e-4)

    def test_complex_numbers_are_refused(self):
        noise = StdDevUncertainty(np.full(IMAGE.shape, NOISE, complex))
        for image, error in ((IMAGE + 0j, None), (IMAGE, noise)):
            with pytest.raises(TypeError, match="type complex128, but .* real numbers"):
                coerce_cutouts({"r": CCDData(image, unit="nmgy", uncertainty=error, meta=SCALE)})


class TestDamage:
    @pytest.fixture
    def path(self, tmp_path):
        noise = StdDevUncertainty(np.full(IMAGE.shape, NOISE))
        image = CCDData(IMAGE, unit="nmgy", uncertainty=noise, meta=SCALE)
        path = tmp_path / "a.fits"
        write_cutout_fits(path, coerce_cutouts({"g": image, "r": image}))
        return path

    def test_number_of_extensions_and_checksums_are_written(self, path):
        with fits.open(path, checksum=True) as hdus:
            assert hdus[0].header["NEXTEND"] == len(hdus) - 1 == 4
            assert all("DATASUM" in hdu.header and "CHECKSUM" in hdu.header for hdu in hdus)

    def test_file_cut_at_an_extension_is_refused(self, path):
        with fits.open(path) as hdus:
            ends = [hdu.fileinfo()["datLoc"] + hdu.fileinfo()["datSpan"] for hdu in hdus]
        content = path.read_bytes()
        for end in ends[:-1]:
            path.write_bytes(content[:end])
            with pytest.raises(
                OSError, match=r"it is truncated: it has \d extensions, but NEXTEND is 4"
            ):
                read_cutout_fits(path)

    def test_changed_bit_is_refused(self, path):
        content = bytearray(path.read_bytes())
        for at in (len(content) // 2, len(content) - 8000):
            damaged = content.copy()
            damaged[at] ^= 4
            path.write_bytes(damaged)
            with pytest.raises(OSError, match="do(es)? not match (its|DATASUM)"):
                read_cutout_fits(path)

    def test_changed_header_warns(self, path):
        with fits.open(path) as hdus:
            hdus["r"].header["NAME"] = "ngc1"
            hdus.writeto(path.with_name("b.fits"))
        with pytest.warns(AstroGenSpecWarning, match="b.fits: .* does not match its CHECKSUM"):
            images = read_cutout_fits(path.with_name("b.fits"))
        assert images["r"].meta["NAME"] == "ngc1"

    def test_files_of_other_software_need_no_checksums(self, tmp_path):
        path = write(
            tmp_path / "a.fits",
            ("r", IMAGE, {"BUNIT": "nmgy", **SCALE}),
            ("IVAR_r", NOISE**-2, {}),
            NEXTEND=7,
        )
        assert read(path) == TRUTH


class TestGroups:
    """Which files are the bands of one galaxy."""

    def file(self, path, band=None, centre=10.0, name=None, **more):
        keywords = {"BUNIT": "nmgy", **WCS_KEYWORDS, "CRVAL1": centre, **more}
        keywords |= {} if band is None else {"FILTER": band}
        keywords |= {} if name is None else {"NAME": name}
        fits.writeto(path, IMAGE, fits.Header(keywords))
        return path

    def test_names_that_differ_in_the_band(self, tmp_path):
        paths = [self.file(tmp_path / f"{band}.fits") for band in "gri"]
        with pytest.warns(
            AstroGenSpecWarning, match=r"are read as the bands g, r, i of one galaxy\."
        ):
            (group,) = group_band_files(paths)
        assert group.paths == dict(zip("gri", paths, strict=True))
        assert group.name == ""

    def test_several_galaxies(self, tmp_path):
        paths = [self.file(tmp_path / f"{n}-{b}.fits.gz") for b in "gr" for n in ("ngc1", "m7")]
        with pytest.warns(AstroGenSpecWarning, match="and likewise 1 other galaxies"):
            groups = group_band_files(paths)
        assert [(group.name, "".join(group.paths)) for group in groups] == [
            ("ngc1", "gr"),
            ("m7", "gr"),
        ]

    @pytest.mark.filterwarnings("ignore:the files")
    def test_other_names_on_one_field(self, tmp_path):
        paths = [self.file(tmp_path / f"{k}.fits", band) for k, band in enumerate("gr")]
        assert len(group_band_files(paths)) == 1
        away = self.file(tmp_path / "2.fits", "i", centre=11.0)
        assert group_band_files([*paths, away]) == [*paths, away]

    def test_files_of_their_own(self, tmp_path):
        write(tmp_path / "r.fits", ("g", IMAGE, {}), ("r", IMAGE, {}))
        named = [self.file(tmp_path / f"n_{band}.fits", name=band) for band in "gr"]
        same = [self.file(tmp_path / f"{k}.fits", "r") for k in range(2)]
        for paths in (
            named,
            same,
            [tmp_path / "r.fits", *same],
            [tmp_path / "no.fits", *same],
            same[:1],
        ):
            assert group_band_files(paths) == paths
