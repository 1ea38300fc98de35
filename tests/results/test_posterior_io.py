import os
import stat

import astropy.units as u
import numpy as np
import pytest
from astropy.table import QTable, Table
from astropy.utils.masked import Masked
from numpy.testing import assert_allclose, assert_array_equal
from posterior_cases import flagged_posterior, gaussian_posterior

from astrogenspec.flags import Flag
from astrogenspec.results.posterior import Posterior
from astrogenspec.results.posterior_io import summary_table

ENDINGS = [".fits", ".ecsv", ".parquet", ".hdf5"]


@pytest.fixture(params=ENDINGS)
def ending(request):
    return request.param


def rich_posterior(dtype=float):
    plain, _ = flagged_posterior(
        4, 7, quantities=("redshift", "stellar_mass", "sfr", "halpha_flux")
    )
    photometry = QTable(
        {
            "flux": np.arange(20.0).reshape(4, 5) * u.nmgy,
            "flux_r": Masked([1.0, 2.0, 3.0, 4.0] * u.nmgy, mask=[False, True, False, False]),
            "camera": np.array(["α", "", "b", "b"]),
            "run": [1, 2, 3, 4],
            "measured": [True, False, True, False],
        }
    )
    return Posterior(
        {name: u.Quantity(q, subok=True, dtype=dtype) for name, q in plain.draws.items()},
        names=["NGC 1", "ÅΩ 星", "<b>", "x" * 300],
        flags=plain.flags,
        measurable=plain.measurable,
        photometry=photometry,
        meta={"seed": 3, "model": 'a "quoted" & ünusual\nname', "levels": [0.5, None], "x": np.pi},
    )


def assert_same(one, other):
    assert one.quantities == other.quantities
    for name in one.quantities:
        assert one.draws[name].unit == other.draws[name].unit
        assert one.draws[name].dtype == other.draws[name].dtype
        assert_array_equal(one.draws[name].value, other.draws[name].value)
    assert one.names == other.names
    assert one.flags == other.flags
    assert dict(one.meta) == dict(other.meta)
    assert_array_equal(one.measurable, other.measurable)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_round_trip_of_draws_and_photometry(tmp_path, ending, dtype):
    posterior = rich_posterior(dtype)
    path = tmp_path / f"posterior{ending}"
    posterior.write(path, draws=True)
    again = Posterior.read(path)
    assert_same(again, posterior)
    photometry = again.photometry
    assert photometry.colnames == posterior.photometry.colnames
    assert photometry["flux"].unit == photometry["flux_r"].unit == u.nmgy
    assert_array_equal(photometry["flux"], posterior.photometry["flux"])
    assert_array_equal(photometry["flux_r"].value, [1, np.nan, 3, 4])
    assert list(photometry["camera"]) == ["α", "", "b", "b"]
    assert photometry["run"].dtype.kind == "i"
    assert_array_equal(photometry["measured"], [True, False, True, False])


def test_files_are_read_by_qtable(tmp_path, ending):
    posterior = rich_posterior()
    path = tmp_path / f"summary{ending}"
    posterior.write(path)
    table, wanted = QTable.read(path), posterior.to_table()
    assert [str(name) for name in table["name"]] == list(posterior.names)
    assert "sfr_draws" not in table.colnames
    for name in wanted.colnames[1:-3]:
        assert table[name].unit == wanted[name].unit
        assert_array_equal(table[name].mask, wanted[name].mask)
        good = ~wanted[name].mask
        assert_array_equal(table[name].unmasked[good], wanted[name].unmasked[good])


def test_summaries_cannot_be_read_as_draws(tmp_path, ending):
    path = tmp_path / f"summary{ending}"
    rich_posterior().write(path)
    with pytest.raises(
        ValueError, match="contains summaries but no draws; read the table with QTable"
    ):
        Posterior.read(path)


def test_round_trip_without_galaxies(tmp_path, ending):
    posterior = rich_posterior()[:0]
    path = tmp_path / f"empty{ending}"
    posterior.write(path, draws=True)
    again = Posterior.read(path)
    assert len(again) == 0
    assert again.n_draws == posterior.n_draws
    assert again.draws["sfr"].unit == posterior.draws["sfr"].unit


def test_round_trip_without_optional_data(tmp_path, ending):
    posterior, _ = gaussian_posterior(3, 1, quantities=("redshift",))
    path = tmp_path / f"plain{ending}"
    posterior.write(path, draws=True)
    again = Posterior.read(path)
    assert_same(again, posterior)
    assert again.measurable is None
    assert again.photometry is None


@pytest.mark.parametrize("name", ["a.fits.gz", "a.FIT", "a.PQ", "a.H5", "a.b.ecsv"])
def test_alternative_endings(tmp_path, name):
    posterior, _ = gaussian_posterior(2, 3, quantities=("redshift",))
    posterior.write(tmp_path / name, draws=True)
    assert_same(Posterior.read(tmp_path / name), posterior)
    if name.endswith(".gz"):
        assert (tmp_path / name).read_bytes()[:2] == b"\x1f\x8b"


def test_derived_quantities_are_the_same_after_reading(tmp_path):
    posterior = rich_posterior()
    posterior.write(tmp_path / "a.fits", draws=True)
    again = Posterior.read(str(tmp_path / "a.fits"))
    assert_allclose(again["ssfr"].median().value, posterior["ssfr"].median().value)


# ---- the file system


def test_existing_files_are_replaced_only_with_overwrite(tmp_path, ending):
    posterior = rich_posterior()
    path = tmp_path / f"a{ending}"
    posterior.write(path, draws=True)
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="exists; pass overwrite=True to replace it"):
        posterior[:2].write(path, draws=True)
    assert path.read_bytes() == before
    posterior[:2].write(path, draws=True, overwrite=True)
    assert len(Posterior.read(path)) == 2
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_preserves_an_existing_file(tmp_path, monkeypatch, error):
    posterior = rich_posterior()
    path = tmp_path / "a.ecsv"
    posterior.write(path)
    before = path.read_bytes()

    def fail(self, temporary, **kwargs):
        temporary.write_bytes(b"half a fi")
        raise error

    monkeypatch.setattr(QTable, "write", fail)
    kind, message = type(error), ".*a.ecsv': No space left on device; check that the folder"
    with pytest.raises(kind, match=message if kind is OSError else None):
        posterior.write(path, overwrite=True)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_new_files_have_default_permissions(tmp_path):
    mask = os.umask(0o027)
    try:
        rich_posterior().write(tmp_path / "a.fits")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "a.fits").stat().st_mode) == 0o640


def test_symbolic_links_are_followed(tmp_path):
    posterior = rich_posterior()
    (tmp_path / "real").mkdir()
    target = tmp_path / "real" / "a.ecsv"
    target.write_text("old")
    (tmp_path / "link.ecsv").symlink_to(target)
    posterior.write(tmp_path / "link.ecsv", overwrite=True)
    assert (tmp_path / "link.ecsv").is_symlink()
    assert len(QTable.read(target)) == 4


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        (
            "nowhere/a.fits",
            FileNotFoundError,
            "the folder .*nowhere.* does not exist; create it first",
        ),
        ("file/a.fits", NotADirectoryError, "file' is a file; give a path inside a folder"),
        ("folder.fits", IsADirectoryError, "is a folder; give the path of a file"),
        ("a.txt", ValueError, r"'a.txt' ends in none of .fits, .*the ending selects the format"),
        ("fits", ValueError, "ends in none of"),
    ],
)
def test_invalid_paths_raise_an_error(tmp_path, name, kind, message):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.fits").mkdir()
    with pytest.raises(kind, match=message):
        rich_posterior().write(tmp_path / name, overwrite=True)


def test_a_folder_without_permission_is_reported(tmp_path, monkeypatch):
    def refuse(self, temporary, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(QTable, "write", refuse)
    with pytest.raises(
        PermissionError, match="cannot write .*a.fits': Permission denied; check that"
    ):
        rich_posterior().write(tmp_path / "a.fits")


def test_missing_packages_raise_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r".parquet files need the package pyarrow; install it"):
        rich_posterior().write(tmp_path / "a.parquet")


def test_meta_data_that_cannot_be_written_raise_an_error(tmp_path):
    posterior, _ = gaussian_posterior(1, 2, meta={"seed": 1, "estimator": object()})
    with pytest.raises(
        TypeError, match=r"meta\['estimator'\] is of type object, which a file cannot hold"
    ):
        posterior.write(tmp_path / "a.fits")
    assert not list(tmp_path.iterdir())


def test_photometry_that_cannot_be_written_raises_an_error(tmp_path):
    table = QTable({"what": np.array([{}], dtype=object)})
    posterior, _ = gaussian_posterior(1, 2, photometry=table)
    with pytest.raises(TypeError, match="photometry column 'what' is of type Column"):
        posterior.write(tmp_path / "a.fits")


# ---- invalid files


def test_a_missing_file_raises_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="the file .*a.fits' does not exist"):
        Posterior.read(tmp_path / "a.fits")


def test_damaged_files_raise_an_error(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    rich_posterior().write(path, draws=True)
    whole = path.read_bytes()
    for part in (b"", whole[: len(whole) // 3], b"\x00\xff" * 400):
        path.write_bytes(part)
        with pytest.raises(
            (OSError, ValueError), match="cannot read .*it is damaged|was not made by"
        ):
            Posterior.read(path)


@pytest.mark.parametrize("ending", ENDINGS[1:])
def test_changed_draws_raise_an_error(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    options = {"path": "posterior"} if ending == ".hdf5" else {}
    rich_posterior().write(path, draws=True)
    table = QTable.read(path, **options) if ending != ".parquet" else Table.read(path)
    table["halpha_flux_draws"][0, 3] *= 1.001
    if ending == ".hdf5":
        options["serialize_meta"] = True
    table.write(path, overwrite=True, **options)
    with pytest.raises(OSError, match="the checksum of the draws is wrong"):
        Posterior.read(path)


def test_files_without_checksum_of_the_draws_are_read(tmp_path, ending, monkeypatch):
    with monkeypatch.context() as older:
        older.setattr("astrogenspec.results.posterior_io._draws_checksum", lambda draws: None)
        rich_posterior().write(tmp_path / f"a{ending}", draws=True)
    assert_same(Posterior.read(tmp_path / f"a{ending}"), rich_posterior())


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_missing_draws_do_not_change_the_checksum(tmp_path, ending, dtype):
    draws = np.random.default_rng(0).normal(0.1, 0.01, (300, 5)).astype(dtype)
    draws[3], draws[4, 2] = np.nan, -0.0
    posterior = Posterior({"redshift": draws * u.one})
    posterior.write(tmp_path / f"a{ending}", draws=True)
    assert_array_equal(Posterior.read(tmp_path / f"a{ending}").draws["redshift"].value, draws)


def test_tables_of_other_programs_raise_an_error(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    options = {"path": "posterior"} if ending == ".hdf5" else {}
    QTable({"a": [1, 2]}).write(path, **options)
    with pytest.raises(ValueError, match="was not made by Posterior.write"):
        Posterior.read(path)


def test_files_of_newer_versions_raise_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("astrogenspec.results.posterior_io._LAYOUT", 9)
    rich_posterior().write(tmp_path / "a.ecsv", draws=True)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="newer version of astrogenspec .layout 9"):
        Posterior.read(tmp_path / "a.ecsv")


# ---- flags


@pytest.fixture
def flagged():
    return Posterior(
        {"redshift": np.arange(8.0).reshape(4, 2)},
        flags=["", "the image may be saturated", "", "no data"],
        flag_codes=[0, Flag.SATURATED, 0, Flag.NO_DATA],
    )


def test_round_trip_of_flag_codes(tmp_path, ending, flagged):
    flagged.write(tmp_path / f"a{ending}", draws=True)
    again = Posterior.read(tmp_path / f"a{ending}")
    assert_array_equal(again.flag_codes, flagged.flag_codes)
    assert again.flags == flagged.flags


def test_unflagged_galaxies_are_selected_in_a_table_from_a_file(tmp_path, ending, flagged):
    flagged.write(tmp_path / f"a{ending}")
    table = QTable.read(tmp_path / f"a{ending}")
    assert [str(name) for name in table[table["flags"] == 0]["name"]] == ["0", "2"]


def test_files_without_flag_codes_are_read(tmp_path, ending, flagged, monkeypatch):
    def without_codes(*args, **kwargs):
        table = summary_table(*args, **kwargs)
        table.remove_column("flags")
        return table

    monkeypatch.setattr("astrogenspec.results.posterior_io.summary_table", without_codes)
    flagged.write(tmp_path / f"a{ending}", draws=True)
    again = Posterior.read(tmp_path / f"a{ending}")
    assert_array_equal(again.flag_codes, [0, Flag.TEXT_ONLY, 0, Flag.TEXT_ONLY])
    assert again.flags == flagged.flags
