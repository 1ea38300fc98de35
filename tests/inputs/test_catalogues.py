"""Tables with the names of columns of the SDSS catalogue server."""

import astropy.units as u
import numpy as np
import pytest
from astropy.table import MaskedColumn, QTable, Table

from astrogenspec import AstroGenSpecWarning, coerce_photometry
from astrogenspec.cli import main
from astrogenspec.inputs.column_names import translated
from astrogenspec.surveys import BANDS, SDSS


def luptitude(flux, band):
    """Asinh magnitude of a flux in nmgy (Lupton, Gunn & Szalay 1999, equation 3)."""
    b = 1e-9 * SDSS.asinh_softening[band]
    return -2.5 / np.log(10) * (np.arcsinh(1e-9 * flux / (2 * b)) + np.log(b))


FLUX = np.array([[9.0, 40, 90, 130, 170], [-0.1, 0.2, 0.9, 1.5, 2.0]])
ERROR = np.array([[0.5, 0.4, 0.6, 0.9, 4], [0.3, 0.1, 0.2, 0.3, 1.2]])


def magnitude_table():
    table = Table({"objid": [1237650000000000001, 1237650000000000002], "z": [0.08, 0.11]})
    for k, band in enumerate(BANDS):
        table[f"modelMag_{band}"] = luptitude(FLUX[:, k], band)
        step = luptitude(FLUX[:, k] - 1e-4, band) - luptitude(FLUX[:, k] + 1e-4, band)
        table[f"modelMagErr_{band}"] = ERROR[:, k] * step / 2e-4
        table[f"extinction_{band}"] = [0.1, 0.2]
    return table


def flux_table():
    table = Table()
    for k, band in enumerate(BANDS):
        table[f"modelFlux_{band}"] = FLUX[:, k]
        table[f"modelFluxIvar_{band}"] = ERROR[:, k] ** -2.0
        table[f"extinction_{band}"] = [0.1, 0.2]
    return table


@pytest.mark.parametrize("make", [magnitude_table, flux_table])
def test_sdss_magnitudes_and_fluxes(make):
    seen = coerce_photometry(make())
    assert np.allclose(seen.flux, FLUX, rtol=1e-6, atol=1e-6)
    assert np.allclose(seen.error, ERROR, rtol=1e-4)
    assert np.allclose(seen.extinction, [[0.1] * 5, [0.2] * 5])


def test_object_identifier_is_the_name():
    assert coerce_photometry(magnitude_table()).names[1] == "1237650000000000002"
    named = magnitude_table()
    named["name"] = ["a", "b"]
    assert coerce_photometry(named).names == ("a", "b")
    assert coerce_photometry(magnitude_table()[0]).names == ("1237650000000000001",)


def test_fluxes_are_preferred_to_magnitudes():
    table = magnitude_table()
    whole = flux_table()
    for name in ("modelMag_", "modelMagErr_"):
        for band in BANDS:
            whole[name + band] = table[name + band] - 1.0
    for band in BANDS:
        whole[band] = table[f"modelMag_{band}"]
        whole[f"petroFlux_{band}"] = [5.0, 6.0]
        whole[f"petroFluxIvar_{band}"] = [4.0, 4.0]
        whole[f"petroMag_{band}"] = [17.0, -9999.0]
    whole["petroR50_r"], whole["petroR90_r"] = [2.5, -9999.0], [7.0, 6.0]
    seen = coerce_photometry(whole)
    assert np.allclose(seen.flux, FLUX) and np.allclose(
        seen.morphology.petro_flux, [[5] * 5, [6] * 5]
    )
    assert np.allclose(seen.morphology.petro_error, 0.5)
    assert np.allclose(seen.morphology.r50, [2.5, np.nan], equal_nan=True)
    assert np.allclose(seen.morphology.r90, [7, 6])


def test_petrosian_magnitudes_without_error():
    table = flux_table()
    table["petroMag_r"] = luptitude(np.array([80.0, 0.7]), "r")
    seen = coerce_photometry(table).morphology
    assert np.allclose(seen.petro_flux[:, 2], [80, 0.7]) and np.isnan(seen.petro_error).all()


def test_missing_values():
    table = magnitude_table()
    table["modelMag_u"], table["modelMagErr_u"] = [-9999.0, 20.0], [0.1, 0.1]
    table["modelMag_g"] = MaskedColumn(table["modelMag_g"], mask=[False, True])
    whole = flux_table()
    whole["modelFluxIvar_z"] = [0.0, 1.0]
    assert coerce_photometry(table).bands_present[:, :2].tolist() == [[False, True], [True, False]]
    assert coerce_photometry(whole).bands_present[:, 4].tolist() == [False, True]


def test_mapping():
    galaxy = {"modelMag_r": 17.0, "modelMagErr_r": 0.02, "ebv": 0.02}
    seen = coerce_photometry(galaxy)
    assert np.allclose(seen.flux[0, 2], 158.489, rtol=1e-4)
    assert np.allclose(seen.error[0, 2] / seen.flux[0, 2], 0.02 * 0.4 * np.log(10), rtol=1e-4)
    with pytest.raises(ValueError, match="the unknown key 'modelMagg_r'"):
        coerce_photometry(galaxy | {"modelMagg_r": 17.0})


def test_errors_name_the_given_columns():
    table = magnitude_table()
    with pytest.raises(ValueError, match="no error for modelMag_u; give modelMagErr_u"):
        coerce_photometry(table[["modelMag_u", "modelMag_g", "modelMagErr_g"]])
    with pytest.raises(ValueError, match="has flux_r twice, under this name and its SDSS name"):
        coerce_photometry(_with(table, "flux_r", [1, 2] * u.nmgy))
    with pytest.raises(
        u.UnitConversionError, match="modelMag_i is in Jy, but SDSS gives it in mag"
    ):
        coerce_photometry(_with(table, "modelMag_i", [1, 2] * u.Jy))
    with pytest.raises(TypeError, match="modelMag_i holds"):
        coerce_photometry(_with(table, "modelMag_i", ["a", "b"]))


def _with(table, name, values):
    table = QTable(table, copy=True)
    table[name] = values
    return table


def test_other_tables_are_returned_unchanged():
    table = Table({"flux_r": [1.0] * u.nmgy, "expAB_r": [0.5]})
    found = translated(table)
    assert list(found.columns) == table.colnames
    assert not found.notices
    assert not found.dereddened


def test_command_line_with_selected_bands(tmp_path):
    table = magnitude_table()
    table["modelMag_u"][1], table["modelMagErr_u"][1] = 19.0, 0.05
    for band in "griz":
        table[f"modelMag_{band}"][1] = table[f"modelMag_{band}"][0] + 0.3
        table[f"modelMagErr_{band}"][1] = 0.02
    table.write(tmp_path / "answer.csv")
    result = tmp_path / "result.ecsv"
    arguments = ["infer", str(tmp_path / "answer.csv"), "-o", str(result), "--bands", "gri", "-q"]
    assert main([*arguments, "--draws", "50", "--seed", "1"]) == 0
    found = QTable.read(result)
    assert found["name"].tolist() == ["1237650000000000001", "1237650000000000002"]
    seen = [np.isfinite(found[f"photometry_flux_{band}"]).all() for band in BANDS]
    assert seen == [False, True, True, True, False]


OLD = np.array([5.155, 3.793, 2.751, 2.086, 1.479])
NEW = np.array([SDSS.extinction_coefficient[band] for band in BANDS])


def with_extinction(values):
    table = flux_table()
    for k, band in enumerate(BANDS):
        table[f"extinction_{band}"] = values[:, k]
    return table


@pytest.mark.parametrize("digits", [3, 6])
def test_extinction_of_old_releases_is_converted(digits):
    reddening = np.array([0.05, 0.2])
    table = with_extinction(np.round(np.outer(reddening, OLD), digits))
    with pytest.warns(AstroGenSpecWarning, match="Schlegel, Finkbeiner & Davis") as record:
        batch = coerce_photometry(table)
    assert len(record) == 1
    assert np.allclose(batch.extinction, np.outer(reddening, NEW), rtol=0.01)
    assert np.allclose(batch.ebv, reddening, rtol=0.01)
    with pytest.warns(AstroGenSpecWarning) as record:
        rows = coerce_photometry(list(table))
    assert len(record) == 1
    assert np.array_equal(rows.extinction, batch.extinction)


@pytest.mark.parametrize(
    "values",
    [np.outer([0.05, 0.2], NEW), np.outer([0.05, 0.2], NEW).round(3), np.full((2, 5), 0.1)],
)
def test_other_extinction_is_used_as_given(values):
    assert np.array_equal(coerce_photometry(with_extinction(values)).extinction, values)


def test_scales_of_extinction_are_told_apart_for_each_galaxy():
    values = np.outer([0.1, 0.1], OLD)
    values[1] = 0.1 * NEW
    with pytest.warns(AstroGenSpecWarning):
        batch = coerce_photometry(with_extinction(values))
    assert np.allclose(batch.extinction, 0.1 * NEW)
    values[0, 1] = np.nan
    with pytest.warns(AstroGenSpecWarning):
        batch = coerce_photometry(with_extinction(values), on_error="flag")
    assert np.allclose(batch.extinction, 0.1 * NEW)
    assert batch.bands_present[0].tolist() == [True, False, True, True, True]
