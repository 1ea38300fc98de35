"""``astrogenspec survey``, and ``infer`` of many galaxies."""

import numpy as np
import pytest
from astropy.table import QTable
from survey_run_cases import make_catalogue, make_weights, read_result, write_parquet

from astrogenspec.cli import main
from astrogenspec.distributed import runs
from astrogenspec.results.summary_writer import SummaryWriter


@pytest.fixture
def survey(tmp_path, capsys):
    """Write a catalogue and weights; return a function that runs the command."""
    write_parquet(make_catalogue(12), tmp_path / "in.parquet")
    weights = make_weights(tmp_path)

    def call(*arguments, new=True):
        given = ("--id", "object_id", "--seed", "3", "--model", weights, "--draws", "20")
        given += ("--rows", "5", "--workers", "1", *arguments)
        paths = str(tmp_path / "in.parquet"), str(tmp_path / "out")
        status = main(["survey", *paths, *(given if new else arguments)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def test_a_run_is_estimated_begun_continued_and_checked(survey, tmp_path):
    status, text, _ = survey("--dry-run", "--keep", "ra, dec")
    assert status == 0 and text.startswith("12 galaxies in 3 partitions: about ")
    assert not (tmp_path / "out").exists()
    status, text, _ = survey("--keep", "ra, dec", "--shard", "1/3")
    assert status == 0 and text.startswith("5 galaxies in 1 partitions")
    assert "not finished; the same command continues" in text
    status, text, error = survey(new=False)
    assert status == 0 and "finished: " in text
    assert "the run began before: 2 of 3 partitions remain" in error
    found = read_result(tmp_path / "out")
    assert found.column_names[:4] == ["object_id", "ra", "dec", "redshift_median"]
    assert found.num_rows == 12
    assert survey("--check", new=False)[:2] == (0, "the run is complete and consistent\n")
    assert survey("--dry-run", new=False)[:2] == (0, "nothing remains to be done\n")
    status, _, error = survey(new=False)
    assert status == 2 and "is finished; check it with --check" in error
    status, _, error = survey("--seed", "4", new=False)
    assert status == 2 and "the option seed 3, but now it is 4" in error
    (tmp_path / "out" / "data" / "part-000001.parquet").unlink()
    status, text, _ = survey("--check", new=False)
    assert status == 3 and "in.parquet, rows 5 to 9: there is no complete result" in text


def test_columns_are_renamed(survey, tmp_path):
    table = make_catalogue(12)
    table.rename_column("flux_g", "g")
    write_parquet(table, tmp_path / "in.parquet")
    assert survey("--columns", "flux_g = g")[0] == 0


def test_partitions_in_quarantine_have_an_exit_status(survey, tmp_path):
    path = tmp_path / "in.parquet"
    folder = tmp_path / "in.parquet.d"
    folder.mkdir()
    path.rename(folder / "0.parquet")
    (folder / "1.parquet").write_bytes((folder / "0.parquet").read_bytes()[:-20])
    folder.rename(path)
    status, text, _ = survey()
    assert status == 3 and "not read: 1.parquet" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--shard", "2"), "--shard is '2'; K/N is expected"),
        (("--shard", "0/2"), "shard is 0/2; it must be K/N"),
        (("--columns", "flux_g"), "--columns has 'flux_g'; pairs such as"),
        (("--quantiles", "3"), "quantiles is 3; it must be one of 0, 5, 20, 99"),
        (("--id", "nothing"), "the table has no column 'nothing'"),
    ],
)
def test_invalid_options_report_one_line(survey, arguments, message):
    status, _, error = survey(*arguments)
    assert status == 2 and message in error and error.count("\n") == 1


def test_a_new_run_needs_identifiers_and_a_seed(tmp_path, capsys):
    write_parquet(make_catalogue(2), tmp_path / "in.parquet")
    for given, missing in ((("--seed", "1"), "--id"), (("--id", "object_id"), "--seed")):
        paths = str(tmp_path / "in.parquet"), str(tmp_path / "out")
        assert main(["survey", *paths, *given]) == 2
        assert f"a new run needs {missing}" in capsys.readouterr().err


def test_progress_is_reported_in_intervals(survey, monkeypatch):
    monkeypatch.setattr(runs, "_INTERVAL", 0.0)
    error = survey()[2].splitlines()
    assert error[0].startswith("12 galaxies in 3 partitions: about")
    assert [line.split(" galaxies")[0] for line in error[1:]] == [
        "5 of 12",
        "10 of 12",
        "12 of 12",
    ]


def test_infer_writes_the_same_file_block_by_block(tmp_path, monkeypatch, capsys):
    """Without draws, only the summaries are kept in memory."""
    table = make_catalogue(12)
    table["flux_r"][3] = np.nan
    for name in [name for name in table.colnames if name.startswith("flux")]:
        table[name][5] = np.nan
    table.write(tmp_path / "in.ecsv")
    weights, found = make_weights(tmp_path), []
    for limit in (2000, 0):
        monkeypatch.setattr("astrogenspec.cli.infer._MAX_WHOLE", limit)
        monkeypatch.setattr("astrogenspec.base.Estimator._batch_size", 5)
        for ending in ("ecsv", "fits", "parquet"):
            path = tmp_path / f"{limit}.{ending}"
            given = ["--model", weights, "--draws", "20", "--seed", "1", "--id", "object_id"]
            given += ["--on-error", "flag", "--flagged-ok", "-o", str(path)]
            assert main(["infer", str(tmp_path / "in.ecsv"), *given]) == 0
            found.append(QTable.read(path))
        assert f"12 galaxies, 1 flagged (columns flags and flag): {path}" in capsys.readouterr().out
    for whole, streamed in zip(found[:3], found[3:], strict=True):
        assert whole.colnames == streamed.colnames and len(streamed) == 12
        assert whole.meta["AGSPEC"] == streamed.meta["AGSPEC"]
        for name in whole.colnames:
            one, two = whole[name], streamed[name]
            assert getattr(one, "unit", None) == getattr(two, "unit", None)
            assert one.dtype == two.dtype
            assert np.all(np.asarray(one == two) | (np.asarray(one != one)))
            assert np.array_equal(getattr(one, "mask", 0), getattr(two, "mask", 0))


@pytest.mark.parametrize("ids", [True, False])
@pytest.mark.parametrize("ending", ["ecsv", "fits"])
def test_infer_continues_after_an_interruption(tmp_path, monkeypatch, capsys, ids, ending):
    """The file is that of an uninterrupted run, and galaxies are not inferred again."""
    table = make_catalogue(23)
    table["flux_r"][3] = np.nan
    table.write(tmp_path / "in.ecsv")
    monkeypatch.setattr("astrogenspec.cli.infer._MAX_WHOLE", 0)
    monkeypatch.setattr("astrogenspec.base.Estimator._batch_size", 5)
    weights = make_weights(tmp_path)

    def infer(name, seed="1"):
        given = ["--model", weights, "--draws", "20", "--on-error", "flag", "--flagged-ok"]
        given += ["--id", "object_id"] if ids else []
        given += ["--seed", seed, "-o", str(tmp_path / f"{name}.{ending}")]
        return main(["infer", str(tmp_path / "in.ecsv"), *given])

    assert infer("whole") == 0
    whole, blocks = SummaryWriter.append, []

    def append(self, posterior):
        blocks.append(posterior.names)
        if len(blocks) == 4:
            raise OSError(28, "No space left on device")
        whole(self, posterior)

    monkeypatch.setattr(SummaryWriter, "append", append)
    assert infer("cut") == 2
    partial = tmp_path / f".cut.{ending}.partial"
    assert not (tmp_path / f"cut.{ending}").exists() and len(list(partial.glob("part-*"))) == 3
    blocks.clear()
    monkeypatch.setattr(SummaryWriter, "append", whole)
    capsys.readouterr()
    assert infer("cut") == 0
    # The last of the three blocks is inferred again.
    assert "continuing after 10 galaxies" in capsys.readouterr().err
    assert not partial.exists()
    one, two = (QTable.read(tmp_path / f"{name}.{ending}") for name in ("whole", "cut"))
    assert one.colnames == two.colnames and one.meta["AGSPEC"] == two.meta["AGSPEC"]
    for name in one.colnames:
        assert one[name].dtype == two[name].dtype
        assert np.all(np.asarray(one[name] == two[name]) | (np.asarray(one[name] != one[name])))


def test_infer_begins_again_with_other_options(tmp_path, monkeypatch, capsys):
    make_catalogue(12).write(tmp_path / "in.ecsv")
    monkeypatch.setattr("astrogenspec.cli.infer._MAX_WHOLE", 0)
    monkeypatch.setattr("astrogenspec.base.Estimator._batch_size", 3)
    weights = make_weights(tmp_path)
    given = ["infer", str(tmp_path / "in.ecsv"), "--model", weights, "-o", str(tmp_path / "a.ecsv")]

    def interrupted(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(SummaryWriter, "write", interrupted)
        assert main([*given, "--draws", "20", "--seed", "1"]) == 2
    assert len(list((tmp_path / ".a.ecsv.partial").glob("part-*"))) == 4
    assert main([*given, "--draws", "30", "--seed", "1"]) == 0
    assert "continuing" not in capsys.readouterr().err
    assert len(QTable.read(tmp_path / "a.ecsv")) == 12


def test_the_column_of_identifiers_must_exist(tmp_path, capsys):
    make_catalogue(2).write(tmp_path / "in.ecsv")
    arguments = ["infer", str(tmp_path / "in.ecsv"), "-o", str(tmp_path / "out.ecsv")]
    assert main([*arguments, "--id", "nothing"]) == 2
    assert "--id is 'nothing', which is not a column" in capsys.readouterr().err
