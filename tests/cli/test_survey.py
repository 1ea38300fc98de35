"""The option ``--survey``: catalogues of other surveys on the command line."""

import astropy.units as u
import numpy as np
import pytest
from astropy.table import QTable, Table

from astrogenspec import coerce_photometry
from astrogenspec.cli import main
from astrogenspec.cli.tables import named_surveys, prepare_catalogue
from astrogenspec.inputs.fluxes import check_bands
from astrogenspec.surveys import get_survey
from tests.survey_cases import LEGACY, euclid, legacy, lsst


@pytest.fixture
def run(tmp_path, capsys):
    """Write a table, infer from it, and return exit status and messages."""

    def call(table, *arguments):
        path = tmp_path / "input.ecsv"
        table.write(path, overwrite=True)
        output = ["-o", str(tmp_path / "result.ecsv"), "--overwrite", "-q"]
        status = main(["infer", str(path), *output, "--draws", "20", "--seed", "1", *arguments])
        return status, capsys.readouterr().err

    return call


def sdss_table():
    table = QTable({"ebv": [0.0]})
    for band, flux in zip("ugriz", (9.0, 40, 90, 130, 170), strict=True):
        table[f"flux_{band}"], table[f"flux_err_{band}"] = [flux] * u.nmgy, [flux / 50] * u.nmgy
    return table


def test_sdss_is_the_default(run, tmp_path):
    assert run(sdss_table())[0] == 0
    default = QTable.read(tmp_path / "result.ecsv")
    assert run(sdss_table(), "--survey", "sdss")[0] == 0
    named = QTable.read(tmp_path / "result.ecsv")
    assert (default["redshift_median"] == named["redshift_median"]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--survey", "legcy"], "error: survey is 'legcy', but the known surveys are: 2mass, des"),
        (["--survey", ","], "error: survey is empty; name at least one survey"),
        (["--survey", "lsst"], "error: FLUX_G has no unit"),
        (["--survey", "lsst", "--bands", "gx"], "'x', which is no band: the bands are u, g, r, i"),
        ([], "which SDSS does not have; name the survey, such as survey='legacy-dr"),
    ],
)
def test_errors_are_one_line(run, arguments, message):
    status, text = run(legacy(), *arguments)
    assert status == 2
    lines = [line for line in text.splitlines() if "error: " in line]
    assert len(lines) == 1
    assert message in lines[0]


def test_survey_of_images_is_refused(tmp_path, capsys):
    path = tmp_path / "cutout.fits"
    path.write_bytes(b"")
    assert main(["infer", str(path), "-o", str(tmp_path / "a.ecsv"), "--survey", "des"]) == 2
    assert "--survey is that of photometry, but none was given" in capsys.readouterr().err


def test_several_surveys():
    assert [each.name for each in named_surveys("lsst, Euclid")] == ["lsst", "euclid"]
    assert named_surveys(None) is None


def test_bands_of_other_surveys():
    table = QTable(lsst())
    other = euclid()
    for name in other.colnames:
        table[name] = other[name]
    surveys = named_surveys("lsst,euclid")
    known = [band for survey in surveys for band in survey.bands]
    bands = check_bands("g,y,VIS", "--bands", known)
    prepared = prepare_catalogue(table, bands, None, surveys)
    batch = coerce_photometry(prepared, survey=surveys)
    assert [each.name for each in batch.filters] == ["lsst2023-g", "lsst2023-y", "Euclid-VIS"]
    assert batch.names == ("5", "6")
    assert check_bands("VIS", "--bands", known) == ("VIS",)


def test_unit_of_fluxes():
    table = Table({"flux_y": [36.30780547701013], "flux_err_y": [1.0], "ebv": [0.0]})
    surveys = (get_survey("lsst"),)
    prepared = prepare_catalogue(QTable(table), None, "uJy", surveys)
    batch = coerce_photometry(prepared, survey=surveys)
    np.testing.assert_allclose(batch.flux, [[10]], rtol=1e-6)


def test_names_are_the_identifiers_of_the_survey():
    prepared = prepare_catalogue(QTable(legacy()), None, None, named_surveys("legacy-dr10"))
    batch = coerce_photometry(prepared, survey="legacy-dr10")
    assert batch.names == LEGACY["names"]
