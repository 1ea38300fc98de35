"""Names and units of columns as catalogues spell them."""

import warnings

import astropy.units as u
import numpy as np
import pytest
from astropy.table import MaskedColumn, QTable, Table
from astropy.utils.exceptions import AstropyWarning

from astrogenspec import BANDS, AstroGenSpecWarning, coerce_photometry
from astrogenspec.cli.tables import prepare_catalogue, read_table
from astrogenspec.inputs.column_names import list_columns
from astrogenspec.inputs.fluxes import read_unit

MAGNITUDES = np.array([[19.1, 17.8, 17.1, 16.8, 16.6], [20.0, 18.9, 18.3, 18.0, 17.8]])


def server_table(value="{}", error="err_{}", **columns):
    table = Table(columns)
    for k, band in enumerate(BANDS):
        table[value.format(band)] = MAGNITUDES[:, k]
        if error:
            table[error.format(band)] = [0.02, 0.03]
    return table


def read(table, **kwargs):
    """Return photometry and the warnings."""
    with pytest.warns(AstroGenSpecWarning) as record:
        batch = coerce_photometry(table, **kwargs)
    return batch, [str(warning.message) for warning in record]


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("{}", "err_{}"),
        ("{}", "Err_{}"),
        ("modelMag_{}", "err_{}"),
        ("modelMag_{}", "modelMagErr_{}"),
    ],
)
@pytest.mark.parametrize("case", [str, str.upper])
def test_names_of_sdss_in_any_case(value, error, case):
    table = server_table(value, error, extinction_r=[0.1, 0.1])
    for band in BANDS:
        table[f"extinction_{band}"] = [0.1, 0.1]
    expected = coerce_photometry(server_table("modelMag_{}", "modelMagErr_{}"), ebv=0.0)
    for name in table.colnames:
        table.rename_column(name, case(name))
    if value == "{}":
        batch, messages = read(table)
        assert len(messages) == 1
        assert "without unit are read as asinh magnitudes of SDSS" in messages[0]
    else:
        batch = coerce_photometry(table)
    assert np.array_equal(batch.flux, expected.flux)
    assert np.array_equal(batch.error, expected.error)
    assert (batch.extinction == 0.1).all()


def test_magnitudes_without_errors():
    batch, messages = read(server_table(error=""), ebv=0.0)
    assert len(messages) == 2
    assert "no errors were given" in messages[1]
    assert "0.05 in u, 0.02 in g, 0.02 in r, 0.02 in i, 0.03 in z" in messages[1]
    size = batch.error / batch.flux * 2.5 / np.log(10)
    assert np.allclose(size[:, 1:4], 0.02, rtol=0.02)
    assert size[1, 0] > size[0, 0] >= 0.049


def test_z_is_a_redshift_if_its_values_are():
    table = server_table()
    table["z"] = [0.08, 0.1]
    batch, _ = read(table, ebv=0.0)
    assert batch.bands_present[0].tolist() == [True] * 4 + [False]


def test_dereddened_magnitudes():
    plain = coerce_photometry(server_table("modelMag_{}"), ebv=0.0)
    batch, messages = read(server_table("dered_{}"))
    assert np.array_equal(batch.flux, plain.flux)
    assert not batch.extinction.any()
    assert len(messages) == 1
    with pytest.raises(ValueError, match="ebv was given both"):
        coerce_photometry(server_table("dered_{}"), ebv=0.1)
    columns = {f"extinction_{band}": [0.1, 0.2] for band in BANDS}
    batch, _ = read(server_table("dered_{}", **columns))
    assert np.allclose(batch.dereddened()[0], plain.flux, rtol=2e-3, atol=0.01)
    assert (batch.extinction[1] == 0.2).all()


def test_observed_magnitudes_are_preferred_if_the_extinction_is_given():
    table = server_table("modelMag_{}", **{f"dered_{band}": [15.0, 15.0] for band in BANDS})
    table["EBV"] = [0.02, 0.03]
    batch = coerce_photometry(table)
    assert np.array_equal(batch.flux, coerce_photometry(server_table("modelMag_{}"), ebv=0.0).flux)
    assert batch.ebv.tolist() == [0.02, 0.03]


def test_numbers_that_are_no_magnitudes_need_a_unit():
    table = Table({"g": [120.0, 80.0], "r": [210.0, 130.0]})
    with pytest.raises(ValueError, match="no error for g"):
        coerce_photometry(table, ebv=0.0)


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("nmgy", u.nmgy),
        ("nMgy", u.nmgy),
        ("NMGY", u.nmgy),
        ("Nanomaggies", u.nmgy),
        ("nanomaggy", u.nmgy),
        ("nmaggies", u.nmgy),
        ("1/nanomaggy^2", u.nmgy**-2),
        ("nanomaggies-2", u.nmgy**-2),
        ("nmgy / pix", u.nmgy / u.pix),
        ("maggy", u.mgy),
        ("mag(AB)", u.ABmag),
        ("ABmag", u.ABmag),
        ("AB mag", u.ABmag),
        ("mag", u.mag),
        ("uJy", u.uJy),
        ("ujy", u.uJy),
        ("nJy", u.nJy),
        ("MJy", u.MJy),
        ("mJy", u.mJy),
        ("", None),
    ],
)
def test_spellings_of_units(name, unit):
    assert read_unit(name) == unit


@pytest.mark.parametrize("ending", ["xml", "ecsv"])
def test_units_of_files(tmp_path, ending):
    kind = {"xml": "votable"}.get(ending)
    fluxes = QTable({"flux_r": [100.0] * u.nmgy, "flux_err_r": [1.0] * u.nmgy, "ebv": [0.0]})
    magnitudes = QTable({"r": [17.5] * u.ABmag, "r_err": [0.01] * u.mag, "ebv": [0.0]})
    for k, table in enumerate((fluxes, magnitudes)):
        path = tmp_path / f"{k}.{ending}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyWarning)
            table.write(path, format=kind)
            found = read_table(path)
        assert np.allclose(coerce_photometry(found).flux[0, 2], 100)


def test_identifiers_in_parquet_keep_all_digits(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    identifiers = [1237648720693755918, None, 1237648720693755920]
    columns = {
        "objID": pa.array(identifiers, pa.int64()),
        "name": pa.array(["a", None, "c"]),
        "mag_r": pa.array([17.0, None, 17.0]),
        "mag_err_r": [0.02] * 3,
        "ebv": [0.0] * 3,
    }
    parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
    table = read_table(tmp_path / "a.parquet")
    assert coerce_photometry(table, on_error="flag").names == ("a", "1", "c")
    table.remove_column("name")
    batch = coerce_photometry(table, on_error="flag")
    assert batch.names == ("1237648720693755918", "1", "1237648720693755920")
    assert batch.bands_present[:, 2].tolist() == [True, False, True]
    assert prepare_catalogue(table, None, None)["name"][0] == identifiers[0]


def test_names_of_any_type():
    base = {"mag_r": [17.0] * 2, "mag_err_r": [0.02] * 2, "ebv": [0.0] * 2}
    for names, expected in (
        (np.array([b"a", b"\xe9"]), ("a", "é")),
        (MaskedColumn([7, 8], mask=[False, True]), ("7", "1")),
        (["a", None], ("a", "1")),
        (np.array([5.0, np.nan]), ("5.0", "1")),
    ):
        assert coerce_photometry(Table({"name": names, **base})).names == expected
    with pytest.raises(ValueError, match="too few digits"):
        coerce_photometry(Table({"name": [1.2376487e18, 1.2376488e18], **base}))


def test_messages_shorten_lists_of_columns():
    table = Table({f"column_{k}": [1.0] for k in range(300)})
    with pytest.raises(ValueError, match="column_7 and 292 more") as caught:
        coerce_photometry(table)
    assert len(str(caught.value)) < 500
    assert list_columns(["x" * 50, "\x1b"]) == f"{'x' * 30}..., \\x1b"


def test_command_line_selects_bands_of_any_scheme():
    table = QTable(server_table("dered_{}", "Err_{}", objid=[1, 2]))
    chosen = prepare_catalogue(table, ["g", "r"], None)
    assert chosen.colnames == ["objid", "dered_g", "Err_g", "dered_r", "Err_r", "name"]
    plain = QTable({"FLUX_R": [100.0], "flux_err_r": MaskedColumn([1.0], mask=[True])})
    prepared = prepare_catalogue(plain, None, "nMgy")
    assert prepared["FLUX_R"].unit == u.nmgy
    assert np.isnan(prepared["flux_err_r"][0])


def test_flux_without_error_is_not_assumed_to_have_one():
    with pytest.raises(ValueError, match="no error for modelFlux_g; give modelFluxIvar_g"):
        coerce_photometry({"modelMag_r": 17.0, "modelFlux_g": 40.0, "ebv": 0.0})
