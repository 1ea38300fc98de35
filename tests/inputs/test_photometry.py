"""Photometry: forms of input, extinction, missing values, errors, measurement on cutouts."""

import astropy.units as u
import numpy as np
import pytest
from astropy.table import Column, MaskedColumn, QTable, Table
from astropy.utils.masked import Masked

from astrogenspec.inputs.aperture_photometry import Ellipse, find_galaxy, measure_cutout
from astrogenspec.inputs.cutouts import CutoutBatch
from astrogenspec.inputs.photometry import (
    SENTINELS,
    PhotometryBatch,
    coerce_photometry,
    measure_photometry,
)
from astrogenspec.surveys import BANDS, SDSS
from astrogenspec.warnings import AstroGenSpecWarning

COEFFICIENTS = np.array([SDSS.extinction_coefficient[band] for band in BANDS])
FLUX = np.array([[12.0, 30.0, 64.0], [3.0, 5.0, 9.0]])
ERROR = np.array([[0.5, 0.4, 0.9], [0.1, 0.2, 0.3]])
GRI = "gri"
EBV = {"ebv": [0.02, 0.1]}
JY = (1 * u.nmgy).to(u.Jy, u.zero_point_flux(1 * u.AB)).value
MAG = 22.5 - 2.5 * np.log10(FLUX)
MAG_ERROR = ERROR / FLUX * 2.5 / np.log(10)


def columns(value, error, values=FLUX, errors=ERROR):
    named = {value.format(band): values[:, k] for k, band in enumerate(GRI)}
    return named | {error.format(band): errors[:, k] for k, band in enumerate(GRI)}


def with_unit(values, unit, error_unit=None):
    errors = ("_err", "_ivar", "flux_err", "flux_ivar", "mag_err")
    return {
        key: u.Quantity(
            value,
            error_unit if error_unit and any(mark in key for mark in errors) else unit,
            subok=True,
        )
        for key, value in values.items()
    } | {"ebv": EBV["ebv"] * u.mag}


FORMS = {
    "dict of nmgy": with_unit(columns("{}", "{}_err"), u.nmgy),
    "dict of Jy": with_unit(columns("{}", "{}_err", FLUX * JY, ERROR * JY), u.Jy),
    "long names": with_unit(columns("flux_{}", "flux_err_{}"), u.nmgy),
    "ivar": with_unit(columns("{}", "{}_ivar", errors=ERROR**-2), u.nmgy, u.nmgy**-2),
    "ivar, long names": with_unit(
        columns("flux_{}", "flux_ivar_{}", errors=ERROR**-2), u.nmgy, u.nmgy**-2
    ),
    "AB magnitudes": with_unit(columns("{}", "{}_err", MAG, MAG_ERROR), u.ABmag, u.mag),
    "mag_g in mag": with_unit(columns("mag_{}", "mag_err_{}", MAG, MAG_ERROR), u.mag),
    "mag_g in AB mag": with_unit(columns("mag_{}", "mag_err_{}", MAG, MAG_ERROR), u.ABmag),
    "mag_g without unit": columns("mag_{}", "mag_err_{}", MAG, MAG_ERROR) | EBV,
    "gmag in mag": with_unit(columns("{}mag", "e_{}mag", MAG, MAG_ERROR), u.mag),
    "gmag without unit": columns("{}mag", "e_{}mag", MAG, MAG_ERROR) | EBV,
    "QTable": QTable(with_unit(columns("{}", "{}_err"), u.nmgy)),
    "QTable of magnitudes": QTable(
        with_unit(columns("{}", "{}_err", MAG, MAG_ERROR), u.ABmag, u.mag)
    ),
    "QTable with other columns": QTable(
        with_unit(columns("flux_{}", "flux_err_{}"), u.nmgy)
        | {"ra": [1.0, 2.0], "z": [0.1, 0.2], "z_err": [1, 2]}
    ),
    "Table": Table(
        {key: Column(value, unit="nanomaggies") for key, value in columns("{}", "{}_err").items()}
        | EBV
    ),
    "rows": list(QTable(with_unit(columns("{}", "{}_err"), u.nmgy))),
    "list of dicts": [
        {
            "ebv": EBV["ebv"][k],
            **{band: FLUX[k, j] * u.nmgy for j, band in enumerate(GRI)},
            **{f"{band}_err": ERROR[k, j] * u.nmgy for j, band in enumerate(GRI)},
        }
        for k in range(2)
    ],
    "extinctions": columns("mag_{}", "mag_err_{}", MAG, MAG_ERROR)
    | {
        f"extinction_{band}": np.array(EBV["ebv"]) * SDSS.extinction_coefficient[band]
        for band in GRI
    },
}


@pytest.mark.parametrize("kind", FORMS)
def test_all_forms_of_input_give_the_same_batch(kind):
    batch = coerce_photometry(FORMS[kind])
    np.testing.assert_allclose(batch.flux[:, 1:4], FLUX, rtol=1e-9)
    np.testing.assert_allclose(batch.error[:, 1:4], ERROR, rtol=1e-9)
    assert np.isnan(batch.flux[:, [0, 4]]).all()
    assert np.isnan(batch.error[:, [0, 4]]).all()
    np.testing.assert_allclose(batch.ebv, EBV["ebv"])
    flux, error = batch.dereddened()
    factor = 10 ** (0.4 * np.outer(EBV["ebv"], COEFFICIENTS[1:4]))
    np.testing.assert_allclose(flux[:, 1:4], FLUX * factor)
    np.testing.assert_allclose(error[:, 1:4], ERROR * factor)
    assert batch.problems == ("", "")
    assert not batch.measured.any()
    np.testing.assert_array_equal(batch.bands_present, [[False, True, True, True, False]] * 2)


def test_single_galaxy():
    batch = coerce_photometry(
        {"r": 17.5 * u.ABmag, "r_err": 0.1 * u.mag, "ebv": 0.0, "name": "M 31"}
    )
    assert len(batch) == batch.n_galaxies == 1
    assert batch.flux[0, 2] == pytest.approx(100)
    assert batch.error[0, 2] == pytest.approx(9.21, rel=1e-3)
    assert batch.names == ("M 31",)


def test_flux_per_wavelength_is_converted_at_the_pivot():
    unit = u.erg / u.s / u.cm**2 / u.AA
    fnu = 100 * 3631e-9 * 1e-23
    flam = fnu * 2.99792458e18 / 6177.2**2
    batch = coerce_photometry({"r": flam * unit, "r_err": 0.1 * flam * unit, "ebv": 0})
    assert batch.flux[0, 2] == pytest.approx(100, rel=1e-4)
    assert batch.error[0, 2] == pytest.approx(10, rel=1e-4)


def test_negative_fluxes_are_measurements():
    batch = coerce_photometry({"u": -0.3 * u.nmgy, "u_err": 0.5 * u.nmgy, "ebv": 0})
    assert batch.flux[0, 0] == -0.3


class TestExtinction:
    PHOTOMETRY = {"g": [1, 2] * u.nmgy, "g_err": 1 * u.nmgy}

    @pytest.mark.parametrize("ebv", [0.1, [0.1, 0.2], [0.1, 0.2] * u.mag, np.float32(0.1)])
    def test_argument(self, ebv):
        batch = coerce_photometry(self.PHOTOMETRY, ebv=ebv)
        expected = np.broadcast_to(u.Quantity(ebv).value, 2)
        np.testing.assert_allclose(batch.ebv, expected)
        np.testing.assert_allclose(batch.extinction, np.outer(expected, COEFFICIENTS))

    def test_missing_extinction_is_zero_with_a_warning(self):
        with pytest.warns(AstroGenSpecWarning, match="ebv = 0 is assumed") as record:
            batch = coerce_photometry(self.PHOTOMETRY)
        assert len(record) == 1
        assert record[0].filename == __file__
        assert not batch.extinction.any()

    def test_extinction_takes_precedence_over_ebv(self):
        batch = coerce_photometry(self.PHOTOMETRY | {"ebv": [0.1, 0.1], "extinction_g": [0.5, 1.0]})
        np.testing.assert_allclose(batch.extinction[:, 1], [0.5, 1.0])
        np.testing.assert_allclose(batch.ebv, 0.1)
        np.testing.assert_allclose(batch[1].dereddened()[0][0, 1], 2 * 10**0.4)


class TestMissing:
    def test_masks_nan_and_infinity(self):
        table = Table(
            {
                "flux_g": MaskedColumn(
                    [1.0, 2, np.nan, np.inf], mask=[True, False, False, False], unit="nmgy"
                ),
                "flux_err_g": Column([1.0] * 4, unit="nmgy"),
                "flux_r": Column([1.0] * 4, unit="nmgy"),
                "flux_err_r": Column([1.0, np.nan, np.inf, 1.0], unit="nmgy"),
            }
        )
        batch = coerce_photometry(table, ebv=0, on_error="flag")
        np.testing.assert_array_equal(
            batch.bands_present[:, 1:3],
            [[False, True], [True, False], [False, False], [False, True]],
        )
        assert [bool(problem) for problem in batch.problems] == [False, False, True, False]
        np.testing.assert_array_equal(np.isnan(batch.flux), np.isnan(batch.error))

    def test_masked_quantity(self):
        table = QTable(
            {"g": Masked([1.0, 2.0] * u.nmgy, mask=[False, True]), "g_err": [1, 1] * u.nmgy}
        )
        batch = coerce_photometry(table, ebv=0, on_error="flag")
        np.testing.assert_array_equal(batch.bands_present[:, 1], [True, False])

    @pytest.mark.parametrize("code", SENTINELS)
    def test_sentinels(self, code):
        magnitudes = {"mag_g": [code, 20, 20], "mag_err_g": [0.1, code, 0.1], "ebv": 0}
        batch = coerce_photometry(magnitudes, on_error="flag")
        np.testing.assert_array_equal(batch.bands_present[:, 1], [False, False, True])
        fluxes = {"g": [code, 2e4, 20] * u.nmgy, "g_err": [0.1, code, 0.1] * u.nmgy, "ebv": 0}
        batch = coerce_photometry(fluxes, on_error="flag")
        np.testing.assert_array_equal(batch.bands_present[:, 1], [code > 0, code > 0, True])

    def test_zero_inverse_variance_is_missing(self):
        photometry = {"g": [1, 2] * u.nmgy, "g_ivar": [0, 1] * u.nmgy**-2, "ebv": 0}
        batch = coerce_photometry(photometry, on_error="flag")
        np.testing.assert_array_equal(batch.bands_present[:, 1], [False, True])


G = {"g": [1, 2] * u.nmgy, "g_err": [1, 1] * u.nmgy}
CALL_ERRORS = {
    "array": (np.ones((3, 5)), TypeError, "of type ndarray, but it must be a table or a mapping"),
    "text": ("table.fits", TypeError, "of type str"),
    "none": (None, TypeError, "of type NoneType"),
    "list of numbers": ([1.0], TypeError, "photometry is of type float"),
    "empty list": ([], ValueError, "photometry is empty"),
    "empty table": (QTable(G)[:0], ValueError, "photometry is empty"),
    "no bands": ({}, ValueError, "no band among its columns"),
    "no bands in a table": (Table({"ra": [1.0]}), ValueError, "no band among its columns ra"),
    "unknown key": ({"G": 1 * u.nmgy}, ValueError, "the unknown key 'G'"),
    "no error": ({"g": 1 * u.nmgy}, ValueError, "no error for g; give g_err or g_ivar"),
    "two errors": (G | {"g_ivar": 1 / u.nmgy**2}, ValueError, "two errors for g"),
    "two ways": (G | {"flux_r": 1 * u.nmgy}, ValueError, "bands given in two ways, g and flux_r"),
    "no unit": ({"g": 1.0, "g_err": 1 * u.nmgy}, u.UnitsError, "g has no unit; give it one"),
    "no unit of the error": ({"g": 1 * u.nmgy, "g_err": 1.0}, u.UnitsError, "g_err has no unit"),
    "redshift": (
        {"z": 0.1, "z_err": 0.01},
        u.UnitsError,
        "z has no unit .if it is a redshift, rename it",
    ),
    "which magnitudes": (
        {"g": 20 * u.mag, "g_err": 1 * u.mag},
        u.UnitsError,
        "without a magnitude system",
    ),
    "counts": ({"g": 1 * u.adu, "g_err": 1 * u.adu}, u.UnitConversionError, "g is in counts"),
    "surface brightness": (
        {"g": 1 * u.Jy / u.sr, "g_err": 1 * u.Jy},
        u.UnitConversionError,
        "g is a surface brightness",
    ),
    "unknown unit": (
        Table({"g": Column([1.0], unit=u.Unit("blip", parse_strict="silent")), "g_err": [1.0]}),
        u.UnitsError,
        "'blip' is unknown to astropy",
    ),
    "flux named mag": (
        {"mag_g": 1 * u.nmgy, "mag_err_g": 1 * u.mag},
        u.UnitConversionError,
        "by its name",
    ),
    "error of a magnitude": (
        {"mag_g": 20.0, "mag_err_g": 1 * u.nmgy},
        u.UnitsError,
        "mag_g is a magnitude",
    ),
    "ivar of a magnitude": (
        {"g": 20 * u.ABmag, "g_ivar": 1 / u.nmgy**2},
        u.UnitsError,
        "its error as g_err",
    ),
    "unit of ivar": (
        {"g": 1 * u.nmgy, "g_ivar": 1 / u.nmgy},
        u.UnitConversionError,
        "g_ivar to the power -1/2",
    ),
    "dex": (
        {"g": 1 * u.dex(u.Jy), "g_err": 1 * u.mag},
        u.UnitsError,
        "use u.ABmag or a flux density",
    ),
    "text as numbers": (
        {"g": ["faint"], "g_err": 1 * u.nmgy},
        TypeError,
        "g holds .*faint.* must hold numbers",
    ),
    "two dimensions": (
        {"g": np.ones((2, 2)) * u.nmgy, "g_err": 1 * u.nmgy},
        ValueError,
        r"g has shape \(2, 2\)",
    ),
    "lengths": (
        {"g": [1, 2] * u.nmgy, "g_err": [1, 1, 1] * u.nmgy},
        ValueError,
        "g has 2 values but g_err has 3",
    ),
    "names": (G | {"name": ["a"]}, ValueError, "name has 1 values for 2 galaxies"),
    "unit of ebv": (
        G | {"ebv": 1 * u.m},
        u.UnitConversionError,
        "ebv is in m, but it must be in u.mag",
    ),
    "extinction of one band": (
        G | {"r": 1 * u.nmgy, "r_err": 1 * u.nmgy, "extinction_r": 0.1},
        ValueError,
        "has extinction_r but not extinction_g",
    ),
    "many in a list": ([G], ValueError, "2 values where one is expected"),
    "ebv for some": (
        [{"g": 1 * u.nmgy, "g_err": 1 * u.nmgy}, {"g": 1 * u.nmgy, "g_err": 1 * u.nmgy, "ebv": 0}],
        ValueError,
        "galaxy 0: photometry has no ebv, but that of galaxy 1 has",
    ),
}


@pytest.mark.parametrize("case", CALL_ERRORS)
@pytest.mark.parametrize("on_error", ["raise", "flag"])
@pytest.mark.filterwarnings("ignore:no Galactic extinction")
def test_errors_of_the_call_are_always_raised(case, on_error):
    photometry, kind, message = CALL_ERRORS[case]
    with pytest.raises(kind, match=message):
        coerce_photometry(photometry, on_error=on_error)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"ebv": [0.1, 0.2, 0.3]}, ValueError, "ebv has 3 values for 2 galaxies"),
        ({"ebv": 1 * u.arcsec}, u.UnitConversionError, "ebv is in arcsec"),
        ({"ebv": 0, "on_error": "skip"}, ValueError, "on_error is 'skip'"),
    ],
)
def test_errors_of_the_arguments(options, kind, message):
    with pytest.raises(kind, match=message):
        coerce_photometry(G, **options)


def test_ebv_given_twice():
    with pytest.raises(ValueError, match="both as an argument and in the photometry"):
        coerce_photometry(G | {"ebv": 0.1}, ebv=0.1)
    with pytest.raises(ValueError, match="which has its own"):
        coerce_photometry(coerce_photometry(G, ebv=0.1), ebv=0.1)


GALAXY_ERRORS = {
    "zero error": ({"g_err": [1, 0, 1] * u.nmgy}, "g_err is 0, but it must be positive"),
    "negative error": ({"g_err": [1, -2, 1] * u.nmgy}, "g_err is -2, but it must be positive"),
    "negative ivar": ({"g_ivar": [1, -2, 1] * u.nmgy**-2}, "g_ivar is -2, but it must be positive"),
    "nothing": ({"g": [1, np.nan, 1] * u.nmgy}, "no band has both a flux and an error"),
    "negative ebv": (
        {"ebv": [0, -0.1, 0]},
        "ebv is -0.1, but it must be 0 mag or more, and finite",
    ),
    "no ebv": ({"ebv": [0, np.nan, 0]}, "ebv is nan"),
    "negative extinction": ({"extinction_g": [0, -1, 0]}, "extinction_g is -1"),
}


@pytest.mark.parametrize("case", GALAXY_ERRORS)
def test_bad_galaxy_does_not_affect_other_galaxies(case):
    change, message = GALAXY_ERRORS[case]
    photometry = {"g": [1, 2, 3] * u.nmgy, "g_err": [1, 1, 1] * u.nmgy, "ebv": 0.0} | change
    if "g_ivar" in photometry:
        del photometry["g_err"]
    with pytest.raises(ValueError, match=f"galaxy 1: {message}"):
        coerce_photometry(photometry)
    batch = coerce_photometry(photometry, on_error="flag")
    assert batch.problems[0] == batch.problems[2] == ""
    assert message in batch.problems[1]
    np.testing.assert_array_equal(np.isfinite(batch.flux[:, 1]), [True, False, True])
    assert np.isfinite(batch.dereddened()[0][[0, 2], 1]).all()


class TestBatch:
    @pytest.fixture
    def batch(self):
        return coerce_photometry(G | {"name": ["a", "b"]}, ebv=[0.1, 0.2])

    @pytest.mark.parametrize("item", [1, -1, [1], slice(1, 2), np.array([False, True])])
    def test_selection(self, batch, item):
        part = batch[item]
        assert part.names == ("b",)
        assert part.flux[0, 1] == 2
        assert part.ebv[0] == 0.2
        np.testing.assert_allclose(part.extinction[0], 0.2 * COEFFICIENTS)
        assert len(part) == 1

    def test_batch_is_returned_unchanged(self, batch):
        assert coerce_photometry(batch) is batch
        assert repr(batch) == "<PhotometryBatch of 2 galaxies, 0 with problems>"

    def test_inconsistent_shapes(self, batch):
        with pytest.raises(ValueError, match=r"error has shape \(1, 5\), but it must be \(2, 5\)"):
            PhotometryBatch(batch.flux, batch.error[:1], batch.ebv, batch.measured)
        with pytest.raises(ValueError, match="names has 1 entries for 2 galaxies"):
            PhotometryBatch(batch.flux, batch.error, batch.ebv, batch.measured, ("a",))


SIGMA = np.array([SDSS.pixel_sigma[band] for band in BANDS])
COLOURS = np.array([0.2, 0.5, 1.0, 1.4, 1.7])


def disk(total, scale=3.0, ratio=0.6, angle=0.5, x=31.5, y=31.5):
    """An exponential disk, blurred; `scale` in pixels."""
    from scipy.ndimage import gaussian_filter

    rows, columns = np.indices((64, 64))
    dx, dy = columns - x, rows - y
    along = dx * np.cos(angle) + dy * np.sin(angle)
    across = (dy * np.cos(angle) - dx * np.sin(angle)) / ratio
    image = gaussian_filter(np.exp(-np.sqrt(along**2 + across**2 + 0.2) / scale), 1.4)
    return total * image / image.sum()


def noisy(rng, image):
    flux = COLOURS[:, None, None] * image + rng.normal(size=(5, 64, 64)) * SIGMA[:, None, None]
    ivar = np.broadcast_to(SIGMA[:, None, None] ** -2.0, flux.shape)
    return flux.astype(np.float32), ivar.astype(np.float32)


class TestMeasure:
    def test_fluxes_colours_and_errors(self):
        rng = np.random.default_rng(11)
        cutouts = [noisy(rng, disk(150, angle=angle)) for angle in rng.uniform(0, 3, 60)]
        flux, ivar = (np.stack(arrays) for arrays in zip(*cutouts, strict=True))
        batch = measure_photometry(CutoutBatch(flux, ivar), ebv=0.1)
        assert batch.measured.all()
        np.testing.assert_allclose(batch.ebv, 0.1)
        recovered = np.median(batch.flux / (150 * COLOURS), axis=0)
        np.testing.assert_allclose(recovered, 0.965, atol=0.025)
        # Same aperture in all bands: colours are unbiased, whatever light is lost.
        np.testing.assert_allclose(recovered / recovered[2], 1, atol=0.012)
        pull = (batch.flux[:, 3] - 1.4 * batch.flux[:, 2]) / np.hypot(
            batch.error[:, 3], 1.4 * batch.error[:, 2]
        )
        assert abs(pull.mean()) < 0.5
        assert pull.std() == pytest.approx(1, rel=0.3)

    @pytest.mark.parametrize("where", [(12, 40), (45, 30), (24, 26)])
    def test_neighbours_are_excluded(self, where):
        rng = np.random.default_rng(2)
        star = disk(40, scale=0.3, ratio=1, x=where[0], y=where[1])
        alone = measure_cutout(*noisy(rng, disk(150)))[0]
        beside = measure_cutout(*noisy(rng, disk(150) + star))[0]
        assert beside[2] / alone[2] == pytest.approx(1, abs=0.1)

    def test_bad_pixels_are_filled(self):
        rng = np.random.default_rng(4)
        flux, ivar = noisy(rng, disk(200))
        whole, error, _ = measure_cutout(flux, ivar)
        ivar = ivar.copy()
        bad = rng.uniform(size=ivar.shape) < 0.15
        flux[bad], ivar[bad] = 0, 0
        filled, larger, problem = measure_cutout(flux, ivar)
        np.testing.assert_allclose(filled, whole, rtol=0.06)
        assert (larger > error).all()
        assert problem == ""

    def test_missing_bands_stay_missing(self):
        flux, ivar = noisy(np.random.default_rng(5), disk(200))
        ivar = ivar.copy()
        ivar[[0, 2]] = 0
        flux[[0, 2]] = 0
        measured, error, problem = measure_cutout(flux, ivar)
        np.testing.assert_array_equal(np.isfinite(measured), [False, True, False, True, True])
        np.testing.assert_array_equal(np.isfinite(error), np.isfinite(measured))
        assert problem == ""
        assert measured[3] == pytest.approx(1.4 * 200 * 0.96, rel=0.05)

    def test_band_with_bad_centre_is_missing(self):
        flux, ivar = noisy(np.random.default_rng(6), disk(200))
        ivar = ivar.copy()
        ivar[3, 15:50, 15:50] = 0
        measured = measure_cutout(flux, ivar)[0]
        np.testing.assert_array_equal(np.isfinite(measured), [True, True, True, False, True])

    @pytest.mark.parametrize(
        ("image", "good", "message"),
        [
            (np.zeros((64, 64)), True, "no source is detected at the centre of the r-band cutout"),
            (disk(200), False, "the cutout has no usable pixels around its centre"),
            (disk(200, x=5, y=58, scale=1.0), True, "no source is detected at the centre"),
        ],
    )
    def test_unmeasurable_galaxy_is_flagged(self, image, good, message):
        flux, ivar = noisy(np.random.default_rng(8), image)
        batch = CutoutBatch(flux[None], ivar[None] * good)
        measured = measure_photometry(batch, ebv=0)
        assert np.isnan(measured.flux).all()
        assert np.isnan(measured.error).all()
        assert message in measured.problems[0]

    @pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
    @pytest.mark.parametrize("seed", range(6))
    def test_noise_patterns_and_extremes_never_raise(self, seed, scale):
        rng = np.random.default_rng(seed)
        flux = rng.normal(size=(5, 64, 64)) ** (1 + 2 * (seed % 2)) * scale
        ivar = rng.uniform(size=(5, 64, 64)) * (rng.uniform(size=(5, 64, 64)) > 0.2 * seed)
        measured, error, problem = measure_cutout(flux.astype("f4"), ivar.astype("f4"))
        assert np.isnan(measured).all() == bool(problem)
        assert (error[np.isfinite(error)] > 0).all()

    def test_flag_of_the_cutout_is_kept(self):
        blank = np.zeros((1, 5, 64, 64), np.float32)
        batch = measure_photometry(CutoutBatch(blank, blank, ("a",), ("all masked.",)), ebv=0)
        assert batch.problems == ("all masked.",)
        assert batch.names == ("a",)

    def test_extinction(self):
        flux, ivar = noisy(np.random.default_rng(9), disk(200))
        batch = CutoutBatch(flux[None], ivar[None])
        with pytest.warns(AstroGenSpecWarning, match="ebv = 0 is assumed"):
            assert measure_photometry(batch).ebv == [0]
        with pytest.raises(ValueError, match="ebv has 2 values for 1 galaxies"):
            measure_photometry(batch, ebv=[0.1, 0.2])
        with pytest.raises(ValueError, match="ebv is -1, but it must be 0 mag or more"):
            measure_photometry(batch, ebv=-1.0)


class TestFindGalaxy:
    def test_ellipse(self):
        flux, ivar = noisy(
            np.random.default_rng(3), disk(400, scale=4, ratio=0.4, angle=1.0, x=33.2, y=30.1)
        )
        ellipse, others = find_galaxy(flux[2], ivar[2])
        assert (ellipse.x, ellipse.y) == pytest.approx((33.2, 30.1), abs=0.2)
        assert ellipse.angle % np.pi == pytest.approx(1.0, abs=0.05)
        assert ellipse.minor / ellipse.major == pytest.approx(0.45, abs=0.08)
        assert others.mean() < 0.02

    def test_blends_are_separated(self):
        image = disk(300, scale=3) + disk(150, scale=1.0, ratio=1, x=44, y=40)
        flux, ivar = noisy(np.random.default_rng(3), image)
        _, others = find_galaxy(flux[2], ivar[2])
        assert others[40, 44]
        assert not others[31:33, 31:33].any()

    def test_radius_equals_semi_major_axis_on_the_ellipse(self):
        ellipse = Ellipse(30.0, 20.0, 8.0, 4.0, np.pi / 2)
        assert ellipse.radius()[28, 30] == pytest.approx(8)
        assert ellipse.radius()[20, 34] == pytest.approx(8)
        assert ellipse.scaled(4.0).minor == 2
