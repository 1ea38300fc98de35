"""Survey runs: results, interruption, resumption, refusals."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from astropy.table import MaskedColumn
from pyarrow import parquet
from survey_run_cases import SETTINGS, make_catalogue, make_weights, read_result, write_parquet

from astrogenspec.distributed import ManifestError, predict_table, results, run_survey, work
from astrogenspec.distributed.checks import check_survey
from astrogenspec.distributed.manifest import Manifest

N, ROWS = 23, 5


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return make_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def catalogue(tmp_path):
    path = tmp_path / "in.parquet"
    write_parquet(make_catalogue(N), path)
    return path


def run(source, output, tiny, **change):
    settings = {"rows": ROWS, "workers": 1, "weights": tiny, **SETTINGS} | change
    return run_survey(source, output, **settings)


def contents(output):
    """Return the bytes of all files of the result."""
    return {path.name: path.read_bytes() for path in sorted((output / "data").iterdir())}


def test_the_result_is_that_of_the_whole_table(catalogue, tmp_path, weights):
    report = run(catalogue, tmp_path / "out", weights)
    assert report.finished and report.rows == N and report.done == 5 and not report.quarantined
    found = read_result(tmp_path / "out")
    table = make_catalogue(N)
    wanted = predict_table(table, weights=weights, **SETTINGS)
    wanted.sort("object_id")
    assert found["object_id"].to_pylist() == wanted["object_id"].tolist()
    assert found["ra"].to_pylist() == wanted["ra"].tolist()
    for name in ("redshift_median", "sfr_p16", "halpha_flux_p84"):
        np.testing.assert_allclose(found[name], wanted[name].value, rtol=1e-4, atol=1e-4)
    assert set(found["run"].to_pylist()) == {report.run}
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["rows"] == N and metrics["bad_rows"] == 0 and metrics["run"] == report.run
    assert check_survey(catalogue, tmp_path / "out") == []
    assert list((tmp_path / "out" / ".work").iterdir()) == []


def test_processes_and_shards_give_the_same_files(catalogue, tmp_path, weights):
    run(catalogue, tmp_path / "one", weights)
    run(catalogue, tmp_path / "two", weights, workers=2)
    for k in (2, 1, 3):
        report = run(catalogue, tmp_path / "shards", weights, shard=(k, 3))
        assert report.finished == (k == 3) and report.done in (1, 2)
    one = contents(tmp_path / "one")
    assert contents(tmp_path / "two") == one
    assert contents(tmp_path / "shards") == one


def test_an_interrupted_run_is_continued(catalogue, tmp_path, weights, monkeypatch):
    run(catalogue, tmp_path / "whole", weights)
    output = tmp_path / "out"
    original, calls = results.OutputFolder.write, []

    def interrupted(self, partition, *rest):
        calls.append(partition.index)
        if len(calls) == 3:
            raise KeyboardInterrupt
        original(self, partition, *rest)

    monkeypatch.setattr(results.OutputFolder, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(catalogue, output, weights)
    assert len(contents(output)) == 2
    # Settings that are not given are those of the run.
    report = run_survey(catalogue, output, workers=1)
    assert report.finished and report.done == 3
    assert calls == [0, 1, 2, 2, 3, 4]
    assert contents(output) == contents(tmp_path / "whole")
    with pytest.raises(FileExistsError, match="is finished; check it with --check"):
        run(catalogue, output, weights)


def test_a_killed_run_is_continued(tmp_path, weights):
    source, output = tmp_path / "in.parquet", tmp_path / "out"
    write_parquet(make_catalogue(60), source)
    run(source, tmp_path / "whole", weights, draws=300)
    code = (
        "from astrogenspec.distributed import run_survey; "
        f"run_survey({str(source)!r}, {str(output)!r}, rows=5, workers=2, "
        f"weights={str(weights)!r}, **{ {**SETTINGS, 'draws': 300} })"
    )
    child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    while len(list((output / "data").glob("*.parquet"))) < 2 and child.poll() is None:
        time.sleep(0.02)
    # The client alone; its workers must end with it.
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    deadline = time.monotonic() + 60
    while _members(child.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _members(child.pid)
    report = run_survey(source, output, workers=1)
    assert 1 <= report.done <= 10 and report.finished
    assert contents(output) == contents(tmp_path / "whole")
    assert check_survey(source, output) == []
    assert [path.name for path in (output / ".work").iterdir() if path.is_dir()] == []


def _members(session):
    """Return the processes of a session."""
    listed = subprocess.run(["ps", "-e", "-o", "sid=,pid=,stat="], capture_output=True, text=True)
    rows = (line.split() for line in listed.stdout.splitlines())
    return [pid for sid, pid, state in rows if sid == str(session) and "Z" not in state]


def test_a_partition_that_another_process_claims_is_left_to_it(catalogue, tmp_path, weights):
    output = tmp_path / "out"
    run(catalogue, output, weights, shard=(1, 5))
    manifest = Manifest.read(output)
    folder = results.OutputFolder(output, manifest.digest)
    with folder.claim(manifest.partitions[2]) as mine:
        assert mine
        report = run_survey(catalogue, output, workers=1)
    assert report.claimed == 1 and report.done == 3 and not report.finished
    assert run_survey(catalogue, output, workers=1).finished


def test_a_full_disk_stops_the_run_and_leaves_no_half_file(
    catalogue, tmp_path, weights, monkeypatch
):
    output = tmp_path / "out"

    def full(path, _):
        path.write_bytes(b"PAR1")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(results, "_write_parquet", full)
        with pytest.raises(OSError, match=r"cannot write .*part-000000.parquet.*No space left"):
            run(catalogue, output, weights)
    assert contents(output) == {} and list((output / ".work").iterdir()) == []
    assert list((output / "quarantine").iterdir()) == []
    assert run_survey(catalogue, output, workers=1).finished


def test_too_little_space_is_found_before_the_run(catalogue, tmp_path, weights, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: _Usage(10))
    with pytest.raises(OSError, match="the result needs about .* GB, but only 1e-08 GB are free"):
        run(catalogue, tmp_path / "out", weights)
    assert not (tmp_path / "out").exists()


class _Usage:
    def __init__(self, free):
        self.free = free


def test_damaged_results_are_computed_again(catalogue, tmp_path, weights):
    output = tmp_path / "out"
    run(catalogue, output, weights)
    whole = contents(output)
    (output / "metrics.json").unlink()
    cut = output / "data" / "part-000001.parquet"
    cut.write_bytes(cut.read_bytes()[:-30])
    (output / "data" / "part-000003.parquet").unlink()
    half = output / "data" / "part-000004.parquet"
    parquet.write_table(parquet.read_table(half)[:2], half)
    report = run_survey(catalogue, output, workers=1)
    assert report.done == 3 and contents(output) == whole


def test_a_cut_file_goes_to_quarantine_and_the_rest_goes_on(tmp_path, weights):
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    table = make_catalogue(9)
    for k in range(3):
        write_parquet(table[3 * k : 3 * k + 3], source / f"{k}.parquet")
    cut = source / "1.parquet"
    cut.write_bytes(cut.read_bytes()[:-50])
    wrong = table[6:].copy()
    wrong.remove_columns([name for name in wrong.colnames if name.startswith("flux")])
    write_parquet(wrong, source / "2.parquet")
    report = run(source, output, weights)
    assert report.done == 1 and not report.finished
    reasons = list(report.quarantined.values())
    assert "1.parquet cannot be read (ArrowInvalid" in reasons[0]
    assert len(reasons) == 2
    assert sorted(path.name for path in (output / "quarantine").iterdir()) == [
        "part-000001.json",
        "part-000002.json",
    ]
    assert read_result(output)["object_id"].to_pylist() == sorted(table["object_id"][:3].tolist())
    problems = check_survey(source, output)
    assert len(problems) == 2 and all("not read: " in text for text in problems)


def test_bad_rows_are_listed_with_reasons(tmp_path, weights):
    table = make_catalogue(N)
    for name in table.colnames:
        if name.startswith("flux"):
            table[name][6] = np.nan
    table["object_id"][11] = table["object_id"][10]
    source, output = tmp_path / "in.parquet", tmp_path / "out"
    write_parquet(table, source)
    assert run(source, output, weights).bad_rows == 3
    found = parquet.read_table(output / "bad_rows")
    assert found["object_id"].to_pylist() == table["object_id"][[6, 10, 11]].tolist()
    assert found["row"].to_pylist() == [1, 0, 1]
    reasons = found["reason"].to_pylist()
    assert reasons[0] and "is that of several rows" in reasons[1] and reasons[1] == reasons[2]
    assert check_survey(source, output) == []


def test_empty_files_and_masked_columns(tmp_path, weights):
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    table = make_catalogue(4)
    write_parquet(table[:0], source / "0.parquet")
    write_parquet(table, source / "1.parquet")
    assert run(source, output, weights).finished
    empty, full = (parquet.read_schema(output / "data" / f"part-00000{k}.parquet") for k in (0, 1))
    assert empty.equals(full)
    assert check_survey(source, output) == []
    table["ra"] = MaskedColumn(table["ra"], mask=[True, False, False, False])
    table.write(tmp_path / "masked.ecsv")
    assert run(tmp_path / "masked.ecsv", tmp_path / "masked", weights).finished
    assert parquet.read_table(tmp_path / "masked" / "data")["ra"].null_count == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 4}, "the option seed 3, but now it is 4"),
        ({"draws": 21}, "the option draws 20, but now it is 21"),
        ({"quantiles": 5}, "the option quantiles 20, but now it is 5"),
        ({"ids": "ra"}, "the column of identifiers 'object_id', but now it is 'ra'"),
        ({"keep": ("ra",)}, r"the option keep \('ra', 'dec'\), but now it is \('ra',\)"),
        ({"keep": ()}, r"the option keep \('ra', 'dec'\), but now it is none"),
        ({"columns": {"flux_g": "flux_r"}}, "the option columns none, but now it is {'flux_g'"),
        ({"survey": "sdss"}, "the option survey none, but now it is 'sdss'"),
        ({"ebv": 0.1}, "the option ebv none, but now it is 0.1"),
        ({"flux_unit": "nmgy"}, "the option flux-unit none"),
        ({"save_draws": "float16"}, "the option save-draws none"),
        ({"batch_size": 128}, "the option batch-size 256, but now it is 128"),
        ({"device": "meta"}, "inference device 'cpu', but now it is 'meta'"),
        ({"rows": 6}, "rows per partition 5, but now it is 6"),
        ({"weights": None}, "the card with SHA-256"),
    ],
)
def test_other_settings_are_refused_by_name(catalogue, tmp_path, weights, change, message):
    run(catalogue, tmp_path / "out", weights, shard=(1, 5))
    before = contents(tmp_path / "out")
    with pytest.raises(ManifestError, match=f"the run began with .*{message}"):
        run(catalogue, tmp_path / "out", weights, **change)
    assert contents(tmp_path / "out") == before


def test_other_inputs_are_refused_by_name(tmp_path, weights):
    source, output, table = tmp_path / "in", tmp_path / "out", make_catalogue(8)
    source.mkdir()

    def write(changed=None):
        for k in range(2):
            part = table[4 * k : 4 * k + 4]
            write_parquet(part if k or changed is None else changed, source / f"{k}.parquet")

    write()
    run(source, output, weights, shard=(1, 2))
    bright = table[:4].copy()
    bright["flux_r"][2] *= 1 + 1e-12
    for change, message in (
        (bright, "the contents of 0.parquet with SHA-256"),
        (table[:3], "0.parquet of 4 rows, but now it is of 3 rows"),
        (table[[0, 1, 3, 2]], "the contents of 0.parquet"),
    ):
        write(change)
        with pytest.raises(ManifestError, match=message):
            run_survey(source, output)
    write()
    write_parquet(table, source / "2.parquet")
    with pytest.raises(ManifestError, match="the input file 2.parquet absent, but now .* present"):
        run_survey(source, output)
    (source / "2.parquet").unlink()
    (source / "0.parquet").rename(source / "00.parquet")
    with pytest.raises(ManifestError, match="the input file 0.parquet present, but now .* absent"):
        run_survey(source, output)
    (source / "00.parquet").rename(source / "0.parquet")
    assert run_survey(source, output).finished


def test_other_versions_are_refused_by_name(catalogue, tmp_path, weights, monkeypatch):
    run(catalogue, tmp_path / "out", weights, shard=(1, 5))
    monkeypatch.setattr("astrogenspec.distributed.runs.__version__", "9.9")
    with pytest.raises(ManifestError, match="version '.*', but now it is '9.9'"):
        run_survey(catalogue, tmp_path / "out")
    monkeypatch.undo()
    monkeypatch.setattr("torch.__version__", "9.8+cpu")
    with pytest.raises(ManifestError, match="versions torch '.*', but now it is '9.8'"):
        run_survey(catalogue, tmp_path / "out")


def test_edited_and_damaged_manifests_are_refused(catalogue, tmp_path, weights):
    output = tmp_path / "out"
    run(catalogue, output, weights, shard=(1, 5))
    path = output / "manifest.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"rows": 7}))
    with pytest.raises(ManifestError, match="was edited"):
        run_survey(catalogue, output)
    path.write_text(json.dumps(content | {"format": 99}))
    with pytest.raises(ManifestError, match="has the format 99"):
        run_survey(catalogue, output)
    path.write_text(json.dumps(content)[:100])
    with pytest.raises(ManifestError, match="is damaged"):
        run_survey(catalogue, output)


def test_settings_that_do_not_fit_are_found_before_the_run(catalogue, tmp_path, weights):
    for change, message in (
        ({"ids": "id"}, "no column 'id'"),
        ({"keep": ("z",)}, "no column 'z'"),
        ({"engine": "slurm"}, "engine is 'slurm'; it must be one of none"),
        ({"shard": (4, 3)}, "shard is 4/3; it must be K/N"),
        ({"workers": 0}, "workers"),
        ({"rows": 0}, "rows"),
    ):
        with pytest.raises(ValueError, match=message):
            run(catalogue, tmp_path / "out", weights, **change)
        assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="is the folder of the catalogue"):
        run(catalogue, tmp_path, weights)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").write_text("")
    with pytest.raises(FileExistsError, match="is not empty and has no manifest"):
        run(catalogue, tmp_path / "full", weights)


def test_checks_find_what_is_wrong(catalogue, tmp_path, weights):
    output = tmp_path / "out"
    with pytest.raises(ManifestError, match="no run began there"):
        check_survey(catalogue, output)
    run(catalogue, output, weights)
    path = output / "data" / "part-000002.parquet"
    found = parquet.read_table(path)
    ids = found["object_id"].to_numpy()[::-1]
    wrong = found.set_column(0, found.schema.field(0), pa.array(ids))
    parquet.write_table(wrong, path)
    (output / "data" / "part-000000.parquet").unlink()
    (output / "data" / "extra.parquet").write_bytes(b"")
    assert check_survey(catalogue, output) == [
        "in.parquet, rows 0 to 4: there is no complete result",
        "in.parquet, rows 10 to 14: the file of the result has changed",
        "data/extra.parquet belongs to no partition",
    ]
    catalogue.write_bytes(catalogue.read_bytes() + b"0")
    assert check_survey(catalogue, output)[0] == "the input file in.parquet has changed"


def test_errors_of_the_program_stop_the_run(catalogue, tmp_path, weights, monkeypatch):
    def wrong(*_):
        raise ZeroDivisionError("a wrong number")

    monkeypatch.setattr(work, "infer_table", wrong)
    with pytest.raises(ZeroDivisionError):
        run(catalogue, tmp_path / "out", weights)
    assert contents(tmp_path / "out") == {}


def test_tasks_can_be_repeated(catalogue, tmp_path, weights):
    output = tmp_path / "out"
    run(catalogue, output, weights)
    manifest = Manifest.read(output)
    folder = results.OutputFolder(output, manifest.digest)
    task = work.Task(catalogue.parent, folder, manifest.inference, manifest.partitions[0])
    assert work.process_partition(task).state == "skipped"
    other = replace(task, output=replace(folder, run="0" * 16))
    assert work.process_partition(other).state == "done"
