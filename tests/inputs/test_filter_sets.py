"""Photometry in any filters: columns, labels, extinction, calibration errors, selection."""

import astropy.units as u
import numpy as np
import pytest

from astrogenspec.flags import Flag
from astrogenspec.inputs.cutouts import CutoutBatch
from astrogenspec.inputs.filter_sets import (
    DEFAULT_CALIBRATION_ERROR,
    band_labels,
    calibration_errors,
    check_filters,
    extinction_coefficients,
    is_sdss,
    sdss_filters,
    union,
)
from astrogenspec.inputs.morphology import Morphology
from astrogenspec.inputs.observations import observe
from astrogenspec.inputs.photometry import PhotometryBatch, coerce_photometry
from astrogenspec.inputs.screening import screen
from astrogenspec.surveys import BANDS, SDSS, get_filter
from astrogenspec.training.augmentation import AugmentationConfig

DECAM = tuple(get_filter(f"decamDR1-{band}") for band in "grz")
FLUX = np.array([[10.0, 20.0, 30.0], [1.0, -0.1, 3.0]])


def decam(**kwargs):
    fields = {"flux": FLUX, "error": np.full((2, 3), 0.1), "ebv": np.array([0.0, 0.1])}
    return PhotometryBatch(**fields | {"measured": np.zeros(2, bool), "filters": DECAM} | kwargs)


def sdss(n=1):
    return PhotometryBatch(np.ones((n, 5)), np.ones((n, 5)), np.zeros(n), np.zeros(n, bool))


class TestFilterSets:
    def test_errors_of_sdss_are_those_of_the_training(self):
        """At least 5 mmag, and else the scatter that reproduces the colours of SDSS galaxies."""
        wanted = np.maximum(AugmentationConfig().photometry_scatter, 0.005)
        np.testing.assert_array_equal(calibration_errors(sdss_filters()), wanted)

    def test_default_is_sdss(self):
        batch = sdss()
        assert is_sdss(batch.filters)
        assert batch.filters == sdss_filters()
        assert batch.bands == BANDS
        np.testing.assert_array_equal(batch.calibration_error, [0.024, 0.015, 0.005, 0.012, 0.005])
        assert batch.in_sdss() is batch

    def test_labels(self):
        names = ("lsst2023-g", "lsst2023-y", "Euclid-Y", "Euclid-VIS")
        assert band_labels([get_filter(name) for name in names]) == (
            "g",
            "lsst2023-y",
            "Euclid-Y",
            "VIS",
        )

    def test_coefficients_of_sdss_are_those_of_the_survey(self):
        filters = (get_filter("sdss2010-r"), DECAM[0])
        wanted = [SDSS.extinction_coefficient["r"], DECAM[0].extinction_coefficient]
        np.testing.assert_array_equal(extinction_coefficients(filters), wanted)

    def test_union_keeps_the_order(self):
        names = [each.name for each in union([DECAM[1:], sdss_filters()[:1], DECAM])]
        assert names == ["decamDR1-r", "decamDR1-z", "sdss2010-u", "decamDR1-g"]

    @pytest.mark.parametrize(
        ("filters", "kind", "message"),
        [
            ("decamDR1-g", TypeError, "filters is 'decamDR1-g', but it must be a sequence"),
            (DECAM[0], TypeError, "must be a sequence of Filter objects"),
            (["g"], TypeError, "must be a sequence of Filter objects"),
            ([], ValueError, "filters is empty"),
            ([*DECAM, DECAM[0]], ValueError, "holds decamDR1-g more than once"),
        ],
    )
    def test_wrong_filters(self, filters, kind, message):
        with pytest.raises(kind, match=message):
            check_filters(filters)


class TestBatch:
    def test_extinction_and_dereddening(self):
        batch = decam()
        coefficients = np.array([each.extinction_coefficient for each in DECAM])
        np.testing.assert_allclose(batch.extinction, [0 * coefficients, 0.1 * coefficients])
        flux, error = batch.dereddened()
        factor = 10 ** (0.04 * coefficients)
        np.testing.assert_allclose(flux, [FLUX[0], FLUX[1] * factor])
        np.testing.assert_allclose(error, [[0.1] * 3, 0.1 * factor])

    def test_selection_keeps_the_filters(self):
        part = decam(calibration_error=[0.01, 0.02, 0.03])[[1]]
        assert part.filters == DECAM
        np.testing.assert_array_equal(part.calibration_error, [0.01, 0.02, 0.03])
        np.testing.assert_array_equal(part.flux, FLUX[1:])
        np.testing.assert_array_equal(part.bands_present, [[True] * 3])

    @pytest.mark.parametrize("given", [0.01, 10 * u.mmag, [0.01] * 3])
    def test_calibration_error(self, given):
        np.testing.assert_allclose(decam(calibration_error=given).calibration_error, [0.01] * 3)
        assert (decam().calibration_error == DEFAULT_CALIBRATION_ERROR).all()

    @pytest.mark.parametrize(
        ("given", "kind", "message"),
        [
            ([0.1], ValueError, r"has shape \(1,\), but it must be \(3,\)"),
            (-0.1, ValueError, "must be 0 mag or more, and finite"),
            (np.nan, ValueError, "must be 0 mag or more, and finite"),
            ("small", TypeError, "calibration_error is 'small', but it must be numbers"),
            (1 * u.m, TypeError, "calibration_error is <Quantity 1. m>, but it must be numbers"),
        ],
    )
    def test_wrong_calibration_error(self, given, kind, message):
        with pytest.raises(kind, match=message):
            decam(calibration_error=given)

    def test_representation(self):
        assert repr(decam()) == "<PhotometryBatch of 2 galaxies in g, r, z, 0 with problems>"

    def test_shapes_are_those_of_the_filters(self):
        with pytest.raises(ValueError, match=r"flux has shape \(2, 3\), but it must be \(2, 5\)"):
            decam(filters=None)

    def test_other_columns(self):
        batch = decam(calibration_error=0.01).with_filters([get_filter("decamDR1-i"), DECAM[2]])
        np.testing.assert_array_equal(batch.flux, [[np.nan, 30], [np.nan, 3]])
        np.testing.assert_array_equal(batch.error, [[np.nan, 0.1]] * 2)
        coefficients = extinction_coefficients(batch.filters)
        np.testing.assert_allclose(batch.extinction, [[0, 0], 0.1 * coefficients])
        np.testing.assert_allclose(batch.calibration_error, [DEFAULT_CALIBRATION_ERROR, 0.01])

    def test_concatenation(self):
        first = decam(names=("a", "b"), calibration_error=0.01, morphology=Morphology.missing(2))
        second = decam(calibration_error=0.03)[:1].with_filters(DECAM[:2])
        both = PhotometryBatch.concatenate([first, second, sdss()])
        assert [each.name for each in both.filters[:3]] == [each.name for each in DECAM]
        assert both.filters[3:] == sdss_filters()
        np.testing.assert_array_equal(both.bands_present.sum(axis=0), [3, 3, 2, 1, 1, 1, 1, 1])
        np.testing.assert_array_equal(both.flux[2, :3], [10, 20, np.nan])
        np.testing.assert_array_equal(both.calibration_error[:3], [0.03, 0.03, 0.01])
        assert both.names == ("a", "b", "0", "0")
        assert both.named.tolist() == [True, True, False, False]
        assert len(both.morphology) == 4
        with pytest.raises(ValueError, match="parts is empty"):
            PhotometryBatch.concatenate([])

    def test_weights_for_sdss_refuse_other_filters(self):
        with pytest.raises(ValueError, match="decamDR1-g, decamDR1-r, decamDR1-z, but these"):
            decam().in_sdss()
        gri = PhotometryBatch(
            FLUX, FLUX + 1, np.zeros(2), np.zeros(2, bool), filters=sdss_filters()[1:4]
        )
        np.testing.assert_array_equal(gri.in_sdss().flux[:, 1:4], FLUX)
        assert is_sdss(gri.in_sdss().filters)
        blank = decam(flux=np.full((2, 3), np.nan))
        assert not blank.in_sdss().bands_present.any()


class TestScreening:
    def test_other_filters_keep_faint_and_precise_measurements(self):
        batch = decam(flux=np.array([[1e-3, -0.2, 3e4]] * 2), error=np.array([[0.1, 0.1, 1.0]] * 2))
        assert screen(batch) is batch
        assert coerce_photometry(batch) is batch

    @pytest.mark.parametrize(
        ("flux", "error", "reason"),
        [
            (1e9, 1e3, "brighter than any galaxy"),
            (1e-4, 1e-5, "fainter than any galaxy"),
            (1.0, 1e8, "an error larger than the flux of any galaxy"),
            (-0.6, 0.1, "negative by more than 5 standard deviations"),
        ],
    )
    def test_impossible_values_are_removed(self, flux, error, reason):
        given = decam(flux=np.array([[flux, 1, 1]] * 2), error=np.array([[error, 1, 1]] * 2))
        batch = screen(given)
        assert np.isnan(batch.flux[:, 0]).all()
        assert np.isnan(batch.error[:, 0]).all()
        assert reason in batch.problems[0]
        assert batch.problems[0].startswith("g not used: ")
        assert (batch.flag_codes == Flag.BAND_NOT_USED).all()
        np.testing.assert_array_equal(batch.flux[:, 1:], given.flux[:, 1:])

    def test_sdss_without_the_limits_of_the_training(self):
        photometry = {"r": [100, 1] * u.nmgy, "r_err": [1e-3, 2] * u.nmgy, "ebv": 0}
        batch = coerce_photometry(photometry, screening=False)
        np.testing.assert_array_equal(batch.flux[:, 2], [100, 1])
        np.testing.assert_array_equal(batch.error[:, 2], [1e-3, 2])
        assert batch.problems == ("", "")
        screened = coerce_photometry(photometry, on_error="flag")
        assert screened.error[0, 2] > 0.01
        assert np.isnan(screened.flux[1, 2])
        with pytest.raises(TypeError, match="screening is 1: it must be True or False"):
            coerce_photometry(photometry, screening=1)


class TestObservations:
    def test_table_has_the_labels(self):
        seen = observe(None, decam())
        table = seen.photometry_table()
        assert table.colnames[:3] == ["flux_g", "flux_err_g", "extinction_g"]
        assert "flux_u" not in table.colnames
        np.testing.assert_array_equal(table["flux_z"].to_value(u.nmgy), [30, 3])
        with pytest.raises(ValueError, match="these weights read those of SDSS only"):
            seen.inputs()

    def test_photometry_of_the_image_has_columns_of_its_own(self):
        rng = np.random.default_rng(3)
        y, x = np.indices((64, 64)) - 31.5
        image = 3 * np.exp(-np.hypot(x, y) / 4) + rng.normal(0, 0.02, (2, 5, 64, 64))
        cutouts = CutoutBatch(image.astype("f4"), np.full(image.shape, 2500.0, "f4"))
        flux = FLUX.copy()
        flux[1] = np.nan
        seen = observe(cutouts, decam(flux=flux))
        assert seen.photometry.filters == DECAM + sdss_filters()
        assert seen.photometry.measured.tolist() == [False, True]
        np.testing.assert_array_equal(
            seen.photometry.bands_present, [[True] * 3 + [False] * 5, [False] * 3 + [True] * 5]
        )
        assert seen.modes.tolist() == ["both", "image"]
        # The columns do not depend on the galaxies of the batch.
        assert (
            observe(cutouts[:1], decam(flux=flux)[:1]).photometry.filters == DECAM + sdss_filters()
        )
        assert observe(cutouts, decam(), measure=False).photometry.filters == DECAM
