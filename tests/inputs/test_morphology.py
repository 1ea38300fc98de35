"""Morphology from catalogues: forms of input, impossible values, features."""

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.table import MaskedColumn, QTable, Table

from astrogenspec.inputs.cutouts import CutoutBatch
from astrogenspec.inputs.features import (
    MORPHOLOGY_FEATURES,
    N_MORPHOLOGY_FEATURES,
    PIXEL_SIGMA,
    ModelInputs,
    make_inputs,
    morphology_features,
)
from astrogenspec.inputs.morphology import Morphology
from astrogenspec.inputs.observations import InputOptions, ObservationBatches, observe
from astrogenspec.inputs.photometry import PhotometryBatch, coerce_photometry

G = {"flux_g": [30.0, 50.0, 80.0] * u.nmgy, "flux_err_g": [1, 1, 1] * u.nmgy, "ebv": 0.1}
PETRO = np.array([27.0, 51.0, 70.0])
MAG = 22.5 - 2.5 * np.log10(PETRO)
SHAPES = {
    "r50": [2.0, 3.0, 4.0] * u.arcsec,
    "r90": [5.0, 9.0, 8.0] * u.arcsec,
    "axis_ratio": [0.3, 0.6, 1.0],
}
NAN = np.nan


def morphology_of(extra, **options):
    return coerce_photometry(G | extra, **options).morphology


class TestReading:
    FORMS = {
        "nmgy": {"petro_flux_g": PETRO * u.nmgy},
        "with errors": {"petro_flux_g": PETRO * u.nmgy, "petro_flux_err_g": [1, 2, 3] * u.nmgy},
        "ivar": {"petro_flux_g": PETRO * u.nmgy, "petro_flux_ivar_g": [1, 4, 9] / u.nmgy**2},
        "Jy": {"petro_flux_g": PETRO * 3.6307805 * u.uJy},
        "AB magnitudes": {"petro_mag_g": MAG},
        "mag": {"petro_mag_g": MAG * u.mag, "petro_mag_err_g": [0.1, 0.1, 0.1] * u.mag},
        "flux in ABmag": {"petro_flux_g": MAG * u.ABmag},
    }

    @pytest.mark.parametrize("kind", FORMS)
    def test_petrosian_fluxes_in_every_form(self, kind):
        found = morphology_of(self.FORMS[kind])
        np.testing.assert_allclose(found.petro_flux[:, 1], PETRO, rtol=1e-6)
        assert np.isnan(found.petro_flux[:, [0, 2, 3, 4]]).all()
        assert np.isnan(found.r50).all()
        assert np.isnan(found.r90).all()
        assert np.isnan(found.axis_ratio).all()
        assert found.problems == ("", "", "")

    def test_errors(self):
        found = morphology_of(self.FORMS["ivar"])
        np.testing.assert_allclose(found.petro_error[:, 1], [1, 1 / 2, 1 / 3])
        assert np.isnan(morphology_of(self.FORMS["nmgy"]).petro_error).all()

    def test_sizes_in_any_angle(self):
        found = morphology_of(SHAPES | {"r90": np.array([5, 9, 8]) / 60 * u.arcmin})
        np.testing.assert_allclose(found.r50, [2, 3, 4])
        np.testing.assert_allclose(found.r90, [5, 9, 8])
        np.testing.assert_allclose(found.axis_ratio, [0.3, 0.6, 1.0])

    def test_axis_ratio_in_percent(self):
        np.testing.assert_allclose(
            morphology_of({"axis_ratio": [30, 60, 100] * u.percent}).axis_ratio, [0.3, 0.6, 1]
        )

    def test_missing_values(self):
        found = morphology_of(
            {
                "r50": [-9999, 3, 4] * u.arcsec,
                "r90": [5, NAN, np.inf] * u.arcsec,
                "axis_ratio": np.ma.array([0.3, 7.0, 1.0], mask=[False, True, False]),
                "petro_mag_r": [17.0, -9999.0, 99.0],
            }
        )
        np.testing.assert_array_equal(np.isnan(found.r50), [True, False, False])
        np.testing.assert_array_equal(np.isnan(found.r90), [False, True, True])
        np.testing.assert_array_equal(np.isnan(found.axis_ratio), [False, True, False])
        np.testing.assert_array_equal(np.isnan(found.petro_flux[:, 2]), [False, True, True])
        assert found.problems == ("", "", "")

    def test_table_with_masked_columns(self):
        table = Table({"mag_r": [17.0, 18.0], "mag_err_r": [0.1, 0.1], "ebv": [0.0, 0.0]})
        table["r50"] = MaskedColumn([2.0, -1.0], mask=[False, True], unit="arcsec")
        found = coerce_photometry(table).morphology
        assert found.r50[0] == 2
        assert np.isnan(found.r50[1])

    def test_no_morphology(self):
        assert morphology_of({}) is None
        assert make_inputs(photometry=coerce_photometry(G)).morphology is None

    def test_rows_with_and_without_morphology(self):
        rows = [
            {"g": 1 * u.nmgy, "g_err": 0.1 * u.nmgy, "ebv": 0.0},
            {"g": 1 * u.nmgy, "g_err": 0.1 * u.nmgy, "ebv": 0.0, "r50": 2 * u.arcsec},
        ]
        found = coerce_photometry(rows).morphology
        np.testing.assert_array_equal(found.r50, [NAN, 2])
        assert coerce_photometry(rows[:1]).morphology is None


CALL_ERRORS = {
    "no unit": ({"r50": [2.0, 3, 4]}, u.UnitsError, "r50 has no unit; give it one, such as u.arcs"),
    "kpc": (
        {"r90": [2.0, 3, 4] * u.kpc},
        u.UnitConversionError,
        "r90 is in kpc, but a radius must",
    ),
    "angle as ratio": (
        {"axis_ratio": [2.0, 3, 4] * u.deg},
        u.UnitConversionError,
        "axis_ratio is in deg, but it must be a number without unit",
    ),
    "no unit of a flux": ({"petro_flux_g": PETRO}, u.UnitsError, "petro_flux_g has no unit"),
    "counts": ({"petro_flux_g": PETRO * u.adu}, u.UnitConversionError, "petro_flux_g is in counts"),
    "which magnitudes": (
        {"petro_flux_g": PETRO * u.mag},
        u.UnitsError,
        "petro_flux_g is in mag, .* or name it petro_mag_g",
    ),
    "flux as magnitude": (
        {"petro_mag_g": PETRO * u.nmgy},
        u.UnitConversionError,
        "petro_mag_g is in nmgy, .* name it petro_flux_g",
    ),
    "two errors": (
        {
            "petro_flux_g": PETRO * u.nmgy,
            "petro_flux_err_g": 1 * u.nmgy,
            "petro_flux_ivar_g": 1 / u.nmgy**2,
        },
        ValueError,
        "two errors for petro_flux_g; give petro_flux_err_g or petro_flux_ivar_g",
    ),
    "ivar of a magnitude": (
        {"petro_flux_g": MAG * u.ABmag, "petro_flux_ivar_g": 1 / u.nmgy**2},
        u.UnitsError,
        "so give its error as petro_flux_err_g",
    ),
    "two ways": (
        {"petro_flux_g": PETRO * u.nmgy, "petro_mag_r": MAG},
        ValueError,
        "Petrosian fluxes given in two ways, petro_flux_g and petro_mag_r",
    ),
    "length": ({"r50": [2.0, 3] * u.arcsec}, ValueError, "values but r50 has 2"),
    "text": ({"r50": ["large", "small", "small"]}, TypeError, "r50 holds"),
    "shape": ({"r50": np.ones((3, 5)) * u.arcsec}, ValueError, r"r50 has shape \(3, 5\)"),
    "unknown key": (
        {"r20": [1, 2, 3] * u.arcsec},
        ValueError,
        "the unknown key 'r20'; .*'r50'",
    ),
}


@pytest.mark.parametrize("case", CALL_ERRORS)
@pytest.mark.parametrize("on_error", ["raise", "flag"])
def test_errors_of_the_call_are_always_raised(case, on_error):
    extra, kind, message = CALL_ERRORS[case]
    with pytest.raises(kind, match=message):
        coerce_photometry(G | extra, on_error=on_error)


GALAXY_ERRORS = {
    "negative": (
        {"r50": [2, -3, 4] * u.arcsec},
        "r50",
        "r50 is -3 arcsec, but it must be positive",
    ),
    "zero": ({"r90": [2, 0, 4] * u.arcsec}, "r90", "r90 is 0 arcsec, but it must be positive"),
    "order": (
        SHAPES | {"r90": [5, 2, 8] * u.arcsec},
        "r90",
        "r90 is 2 arcsec but r50 is 3 arcsec; r90 cannot be the smaller one",
    ),
    "zero ratio": ({"axis_ratio": [0.5, 0, 0.5]}, "axis_ratio", "axis_ratio is 0, but it must be"),
    "large ratio": (
        {"axis_ratio": [0.5, 1.4, 0.5]},
        "axis_ratio",
        "axis_ratio is 1.4, but it must",
    ),
    "error": (
        {"petro_flux_g": PETRO * u.nmgy, "petro_flux_err_g": [1, 0, 1] * u.nmgy},
        "petro_flux",
        "petro_flux_err_g is 0, but it must be positive",
    ),
    "ivar": (
        {"petro_flux_g": PETRO * u.nmgy, "petro_flux_ivar_g": [1, -2, 1] / u.nmgy**2},
        "petro_flux",
        "petro_flux_ivar_g is -2, but it must be positive",
    ),
}


@pytest.mark.parametrize("case", GALAXY_ERRORS)
def test_impossible_value_is_missing_and_flagged(case):
    extra, name, message = GALAXY_ERRORS[case]
    with pytest.raises(ValueError, match=f"galaxy 1: {message}"):
        coerce_photometry(G | extra)
    batch = coerce_photometry(G | extra, on_error="flag")
    values = getattr(batch.morphology, name)
    values = values[:, 1] if values.ndim == 2 else values
    np.testing.assert_array_equal(np.isnan(values), [False, True, False])
    assert batch.problems == ("", "", "")
    seen = observe(None, batch, on_error="flag")
    assert seen.usable.all()
    assert seen.flags[1].startswith(f"morphology not used: {message}")
    assert seen.flags[0] == seen.flags[2] == ""
    assert np.isfinite(batch.flux[:, 1]).all()


def test_rejected_galaxy_has_no_morphology():
    photometry = G | SHAPES | {"flux_err_g": [1, 0, 1] * u.nmgy}
    batch = coerce_photometry(photometry, on_error="flag")
    np.testing.assert_array_equal(np.isnan(batch.morphology.r50), [False, True, False])
    spoilt = PhotometryBatch(
        batch.flux,
        batch.error,
        batch.ebv,
        batch.measured,
        problems=("", "", "bad"),
        morphology=morphology_of(SHAPES),
    )
    seen = observe(None, spoilt, on_error="flag")
    np.testing.assert_array_equal(np.isnan(seen.photometry.morphology.r50), [False, False, True])


class TestBatch:
    @pytest.fixture
    def batch(self):
        return coerce_photometry(G | SHAPES | {"petro_flux_g": PETRO * u.nmgy})

    @pytest.mark.parametrize("item", [1, [1], slice(1, 2), np.array([False, True, False])])
    def test_selection(self, batch, item):
        part = batch[item].morphology
        assert len(part) == 1
        assert part.r50[0] == 3
        assert part.petro_flux[0, 1] == 51

    def test_concatenation(self, batch):
        part = batch.morphology
        both = Morphology.concatenate([part[1:], Morphology.missing(2), part[:1]])
        np.testing.assert_array_equal(both.r50, [3, 4, NAN, NAN, 2])
        np.testing.assert_array_equal(both.petro_flux[:, 1], [51, 70, NAN, NAN, 27])

    def test_shapes_are_checked(self, batch):
        part = batch.morphology
        arrays = [part.petro_flux, part.petro_error, part.r50, part.r90, part.axis_ratio]
        with pytest.raises(ValueError, match=r"r90 has shape \(2,\), but it must be \(3,\)"):
            Morphology(*arrays[:3], part.r90[:2], part.axis_ratio)
        with pytest.raises(ValueError, match="problems has 1 entries for 3"):
            Morphology(*arrays, problems=("bad",))
        with pytest.raises(ValueError, match="morphology has 2 entries for 3"):
            PhotometryBatch(
                batch.flux, batch.error, batch.ebv, batch.measured, morphology=batch.morphology[:2]
            )


class TestFeatures:
    def test_values(self):
        batch = coerce_photometry(G | SHAPES | {"petro_flux_g": PETRO * u.nmgy})
        features = make_inputs(photometry=batch).morphology
        assert features.shape == (3, N_MORPHOLOGY_FEATURES)
        assert features.dtype == torch.float32
        # The Galactic extinction of 0.1 mag in E(B-V) cancels.
        np.testing.assert_allclose(
            features[:, MORPHOLOGY_FEATURES.index("petrosian_g")],
            -2.5 * np.log10(PETRO / [30, 50, 80]) / 0.15,
            rtol=1e-5,
        )
        np.testing.assert_allclose(
            features[:, MORPHOLOGY_FEATURES.index("log_r50")],
            (np.log10([2, 3, 4]) - 0.5) / 0.3,
            rtol=1e-5,
        )
        np.testing.assert_allclose(
            features[:, MORPHOLOGY_FEATURES.index("concentration")], [0, 1, -1], atol=1e-6
        )
        np.testing.assert_allclose(
            features[:, MORPHOLOGY_FEATURES.index("axis_ratio")], [-1.5, 0, 2], atol=1e-6
        )
        np.testing.assert_array_equal(features[0, 8:], [0, 1, 0, 0, 0, 1, 1, 1])
        assert not features[:, [0, 2, 3, 4]].any()

    def test_single_columns(self):
        for key, columns in (("r50", [5]), ("axis_ratio", [7])):
            features = make_inputs(photometry=coerce_photometry(G | {key: SHAPES[key]})).morphology
            present = torch.zeros(8)
            present[columns] = 1
            np.testing.assert_array_equal(features[:, 8:], present.expand(3, 8))
            rest = [k for k in range(8) if k not in columns]
            assert not features[:, rest].any()
        alone = make_inputs(photometry=coerce_photometry(G | {"r90": SHAPES["r90"]})).morphology
        assert not alone.any()

    def test_extremes_are_clipped(self):
        flux = torch.tensor([[1.0, 1.0, 1.0, -1.0, torch.nan]])
        petro = torch.tensor([[1e6, 1e-6, -1.0, 1.0, 1.0]])
        one = torch.ones(1)
        features = morphology_features(flux, petro, 1e-6 * one, 1e6 * one, one)
        np.testing.assert_allclose(features[0, :5], [-1 / 0.15, 2 / 0.15, 0, 0, 0], rtol=1e-6)
        assert features[0, 8:13].tolist() == [1, 1, 0, 0, 0]
        np.testing.assert_allclose(features[0, 5:8], [-5, 7, 2], rtol=1e-6)

    def test_fluxes_measured_on_cutouts_are_not_compared(self):
        batch = coerce_photometry(G | SHAPES | {"petro_flux_g": PETRO * u.nmgy})
        batch = PhotometryBatch(
            batch.flux,
            batch.error,
            batch.ebv,
            np.array([True, False, False]),
            morphology=batch.morphology,
        )
        features = make_inputs(photometry=batch).morphology
        assert features[:, MORPHOLOGY_FEATURES.index("petrosian_present_g")].tolist() == [0, 1, 1]
        assert features[:, MORPHOLOGY_FEATURES.index("log_r50_present")].tolist() == [1, 1, 1]


class TestModelInputs:
    def test_batches_have_morphology(self):
        blocks = ObservationBatches(None, G | SHAPES, InputOptions(), batch_size=2)
        parts = [seen.inputs() for seen in blocks]
        assert [len(part.morphology) for part in parts] == [2, 1]
        joined = ModelInputs.concatenate(parts)
        whole = make_inputs(photometry=coerce_photometry(G | SHAPES))
        torch.testing.assert_close(joined.morphology, whole.morphology)
        torch.testing.assert_close(joined.photometry, whole.photometry)
        assert joined.image is None

    def test_images_with_photometry_and_morphology(self):
        rng = np.random.default_rng(1)
        sigma = np.array(PIXEL_SIGMA)[:, None, None]
        flux = (sigma * rng.normal(size=(3, 5, 64, 64)) + sigma).astype(np.float32)
        ivar = np.broadcast_to(sigma**-2, flux.shape).astype(np.float32)
        seen = observe(CutoutBatch(flux, ivar), coerce_photometry(G | SHAPES))
        inputs = seen.inputs()
        assert inputs.has_image.all()
        np.testing.assert_allclose(
            inputs.morphology[:, MORPHOLOGY_FEATURES.index("log_r50")],
            (np.log10([2, 3, 4]) - 0.5) / 0.3,
            rtol=1e-5,
        )

    def test_selection_and_devices(self):
        inputs = make_inputs(photometry=coerce_photometry(G | SHAPES))
        assert inputs[torch.tensor([2])].morphology.shape == (1, N_MORPHOLOGY_FEATURES)
        assert inputs[:2].to("cpu").morphology.shape == (2, N_MORPHOLOGY_FEATURES)

    def test_concatenation_with_missing_morphology(self):
        have = make_inputs(photometry=coerce_photometry(G | SHAPES))
        lack = make_inputs(photometry=coerce_photometry(G))
        joined = ModelInputs.concatenate([lack, have])
        assert not joined.morphology[:3].any()
        torch.testing.assert_close(joined.morphology[3:], have.morphology)
        assert ModelInputs.concatenate([lack, lack]).morphology is None

    def test_photometry_table_has_morphology(self):
        batch = coerce_photometry(G | SHAPES | {"petro_flux_g": PETRO * u.nmgy})
        table = observe(None, batch).photometry_table()
        assert isinstance(table, QTable)
        np.testing.assert_allclose(table["r50"].to_value(u.arcsec), [2, 3, 4])
        np.testing.assert_allclose(table["petro_flux_g"].to_value(u.nmgy), PETRO)
        table["ebv"] = 0.0
        again = coerce_photometry(
            table["flux_g", "flux_err_g", "ebv", "petro_flux_g", "r50", "axis_ratio"]
        )
        np.testing.assert_allclose(again.morphology.axis_ratio, SHAPES["axis_ratio"])
        assert "r50" not in observe(None, coerce_photometry(G)).photometry_table().colnames
