"""Rates, memory and disk of survey runs, and kills at random moments.

``python benchmarks/survey.py run --galaxies 20000`` infers a catalogue made of the galaxies of the
demonstration with scattered fluxes, and compares it with `PropertyEstimator.predict_iter` on the
same rows. Rates are per second of processor time, so that other processes on the machine change
them little.

``python benchmarks/survey.py large --galaxies 1000000 --engine dask --workers 2 --folder F`` runs a
catalogue in the folder F, or continues it, and records the memory of each worker every ten seconds.
``--minutes 60`` ends it after that time, and the figures are those of the partitions done.

``python benchmarks/survey.py scheduler --tasks 100000 --engine dask`` hands out simulated
partitions, which take no time, and measures what the engine and the bookkeeping take for each.
``--threads 50`` gives each worker 50 threads, so that as many tasks are in work as on a large
cluster.

``python benchmarks/survey.py split`` infers the same galaxies in 1, 7 and 49 partitions, shuffled,
and compares the numbers. ``python benchmarks/survey.py ids`` compares the processor time of
`predict_iter` with and without identifiers.

``python benchmarks/survey.py kills --kills 10`` kills the client of a run of two workers at random
moments, continues it, and compares all files with those of an uninterrupted run.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import torch
from distributed import Client, LocalCluster
from pyarrow import parquet

from astrogenspec import PropertyEstimator
from astrogenspec.demo import load_galaxies
from astrogenspec.distributed import engines, run_survey
from astrogenspec.distributed.checks import check_survey
from astrogenspec.distributed.manifest import Manifest
from astrogenspec.distributed.results import OutputFolder
from astrogenspec.distributed.summaries import summary_columns
from astrogenspec.distributed.work import Outcome, Task
from astrogenspec.inputs.arrow_tables import table_from_arrow

SETTINGS: dict[str, Any] = {
    "ids": "object_id",
    "seed": 1,
    "keep": ("ra", "dec"),
    "flux_unit": "nmgy",
}


def write_catalogue(path: Path, n: int) -> None:
    """Write n galaxies: those of the demonstration with fluxes scattered by 5%."""
    galaxies, rng = load_galaxies(), np.random.default_rng(0)
    rows = rng.integers(0, len(galaxies), n)
    columns = {
        "object_id": rng.permutation(n) + 2**60,
        "ra": rng.uniform(0, 360, n),
        "dec": np.degrees(np.arcsin(rng.uniform(-1, 1, n))),
        "ebv": np.full(n, 0.03),
    }
    for band in "ugriz":
        flux = galaxies[f"flux_{band}"].value[rows] * 10 ** rng.normal(0, 0.02, n)
        columns[f"flux_{band}"] = flux.astype(np.float32)
        columns[f"flux_err_{band}"] = galaxies[f"flux_err_{band}"].value[rows].astype(np.float32)
    parquet.write_table(pa.table(columns), path, row_group_size=20_000)


def processor_time() -> float:
    """Return the processor time of this process and of its children that have ended."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def of_loop(path: Path, draws: int, *, same_summaries: bool = False) -> float:
    """Return galaxies per second of processor time of the loop alone.

    It computes three percentiles, or the same summaries as the run.
    """
    torch.set_num_threads(1)
    table = table_from_arrow(parquet.read_table(path))
    for name in table.colnames:
        if name.startswith("flux"):
            table[name].unit = "nmgy"
    estimator = PropertyEstimator.from_pretrained()
    estimator.predict(photometry=table[:2], n_draws=draws, seed=1)
    begin = time.process_time()
    for posterior in estimator.predict_iter(
        photometry=table, n_draws=draws, seed=1, ids=table["object_id"], on_error="flag"
    ):
        if same_summaries:
            summary_columns(posterior, 20, None)
            continue
        for name in posterior.quantities:
            posterior[name].percentiles([16, 50, 84])
    return len(table) / (time.process_time() - begin)


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Run one catalogue and return the figures."""
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / "in.parquet", Path(folder) / "out"
        write_catalogue(source, options.galaxies)
        before, wall = processor_time(), time.perf_counter()
        run_survey(
            source,
            output,
            rows=options.rows,
            workers=options.workers,
            engine=options.engine,
            draws=options.draws,
            **SETTINGS,
        )
        wall, used = time.perf_counter() - wall, processor_time() - before
        metrics = json.loads((output / "metrics.json").read_text())
        memory = resource.getrusage(
            resource.RUSAGE_SELF if options.workers == 1 else resource.RUSAGE_CHILDREN
        ).ru_maxrss
        size = metrics["bytes"] / options.galaxies
        rate = options.galaxies / metrics["cpu_seconds"]
        loop = of_loop(source, options.draws)
        same = of_loop(source, options.draws, same_summaries=True)
    return {
        "galaxies": options.galaxies,
        "draws": options.draws,
        "workers": options.workers,
        "galaxies_per_wall_second": options.galaxies / wall,
        "galaxies_per_cpu_second_with_start": options.galaxies / used,
        "galaxies_per_cpu_second": rate,
        "galaxies_per_cpu_second_of_predict_iter": loop,
        "overhead": loop / rate - 1,
        "overhead_with_the_same_summaries": same / rate - 1,
        "peak_memory_of_a_worker_MB": memory / 1e3,
        "bytes_per_galaxy": size,
    }


def run_large(options: argparse.Namespace) -> dict[str, Any]:
    """Run or continue a large catalogue in a process of its own, and watch its memory."""
    folder = Path(options.folder)
    folder.mkdir(parents=True, exist_ok=True)
    source, output = folder / "in.parquet", folder / "out"
    if not source.exists():
        write_catalogue(folder / "new.parquet", options.galaxies)
        (folder / "new.parquet").rename(source)
    settings = {**SETTINGS, "rows": options.rows, "draws": options.draws}
    settings |= {"workers": options.workers, "engine": options.engine}
    code = (
        "from astrogenspec.distributed import run_survey\n"
        f"if __name__ == '__main__': run_survey({str(source)!r}, {str(output)!r}, **{settings})"
    )
    (folder / "run.py").write_text(code)
    child = subprocess.Popen([sys.executable, str(folder / "run.py")], start_new_session=True)
    memory: dict[int, list[float]] = {}
    begin = time.monotonic()
    while child.poll() is None and time.monotonic() - begin < 60 * options.minutes:
        time.sleep(10)
        for process in psutil.Process(child.pid).children(recursive=True):
            with suppress(psutil.Error):
                memory.setdefault(process.pid, []).append(process.memory_info().rss / 1e6)
        (folder / "memory.json").write_text(json.dumps(memory))
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    logs = [json.loads(path.read_text()) for path in (output / "logs").glob("*.json")]
    return {
        "galaxies": sum(log["rows"] for log in logs),
        "seconds": time.monotonic() - begin,
        "galaxies_per_cpu_second": sum(log["rows"] for log in logs)
        / sum(log["cpu_seconds"] for log in logs),
        "bytes_per_galaxy": sum(log["bytes"] for log in logs) / sum(log["rows"] for log in logs),
        "memory_of_workers_in_quarters_of_the_run_MB": [
            {
                "first": round(max(each[: len(each) // 4])),
                "last": round(max(each[-len(each) // 4 :])),
            }
            for each in memory.values()
            if len(each) > 3 and max(each) > 300
        ],
    }


def kill(options: argparse.Namespace) -> dict[str, int]:
    """Kill runs at random moments; return the number of kills and of differences."""
    rng, different, landed = random.Random(options.seed), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        source, whole, output = (Path(folder) / name for name in ("in.parquet", "whole", "out"))
        write_catalogue(source, options.galaxies)
        settings = {**SETTINGS, "rows": options.rows, "draws": options.draws}
        begin = time.perf_counter()
        run_survey(source, whole, workers=2, **settings)
        length = time.perf_counter() - begin
        code = (
            "from astrogenspec.distributed import run_survey; "
            f"run_survey({str(source)!r}, {str(output)!r}, workers=2, **{settings})"
        )
        for _ in range(options.kills):
            child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
            time.sleep(rng.uniform(0.1, 1.0) * length)
            if child.poll() is None:
                landed += 1
                # Half of the kills reach the client alone, half the whole group.
                (os.kill if rng.random() < 0.5 else os.killpg)(child.pid, signal.SIGKILL)
            child.wait()
            if (output / "metrics.json").exists():
                break
        if not (output / "metrics.json").exists():
            run_survey(source, output, workers=2, **settings)
        one, two = (
            {path.name: path.read_bytes() for path in (each / "data").iterdir()}
            for each in (whole, output)
        )
        different = sum(one.get(name) != two.get(name) for name in {*one, *two})
        problems = check_survey(source, output)
    return {"kills": landed, "files": len(one), "different": different, "problems": len(problems)}


def simulated(task: Task) -> Outcome:
    """Pretend to infer a partition."""
    return Outcome(task.partition.index, len(task.partition), "done")


def schedule(options: argparse.Namespace) -> dict[str, float]:
    """Hand out simulated partitions."""
    rows, n = options.rows, options.tasks
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_catalogue(folder / "in.parquet", 20)
        run_survey(folder / "in.parquet", folder / "out", rows=20, workers=1, draws=10, **SETTINGS)
        manifest = Manifest.read(folder / "out")
        assert manifest is not None  # noqa: S101
        begin = time.process_time()
        files = [replace(manifest.files[0], path=f"{k}.parquet", rows=rows) for k in range(n)]
        planned = replace(manifest, files=tuple(files), rows=rows)
        partitions = planned.partitions
        digest = len(planned.digest)
        plan = time.process_time() - begin
        output = OutputFolder(folder / "out", manifest.digest)
        # The files of 1000 partitions are looked at, as when a run is continued.
        begin = time.process_time()
        for _ in range(1000):
            output.is_done(manifest.partitions[0])
        looked = (time.process_time() - begin) / 1000
        tasks = [Task(folder, output, manifest.inference, each) for each in partitions]
        setattr(engines, "process_partition", simulated)  # noqa: B010  mypy knows its type
        with ExitStack() as stack:
            address = None
            if options.threads:
                cluster = LocalCluster(
                    n_workers=options.workers,
                    threads_per_worker=options.threads,
                    dashboard_address=None,
                )
                address = stack.enter_context(cluster).scheduler_address
                stack.enter_context(Client(address)).wait_for_workers(options.workers)
            before, begin, cpu = peak_memory(), time.perf_counter(), time.process_time()
            run = engines.ENGINES[options.engine](tasks, options.workers, address, print)
            done = sum(outcome.state == "done" for outcome in run)
            wall, used = time.perf_counter() - begin, time.process_time() - cpu
    return {
        "tasks": done,
        "digits_of_digest": digest,
        "wall_seconds": wall,
        "cpu_ms_per_task_of_client_and_scheduler": 1e3 * used / done,
        "cpu_ms_per_partition_to_plan": 1e3 * plan / n,
        "cpu_ms_per_partition_to_look_whether_it_is_done": 1e3 * looked,
        "memory_of_client_MB": peak_memory(),
        "memory_of_client_before_MB": before,
    }


def peak_memory() -> float:
    """Return the largest memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def split(options: argparse.Namespace) -> dict[str, Any]:
    """Infer the same galaxies in several divisions and orders."""
    results, found = {}, {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_catalogue(folder / "in.parquet", options.galaxies)
        whole = parquet.read_table(folder / "in.parquet")
        for n in (1, 7, 49):
            order = np.random.default_rng(n).permutation(len(whole))
            shuffled = whole.take(order)
            parquet.write_table(shuffled, folder / f"{n}.parquet")
            run_survey(
                folder / f"{n}.parquet",
                folder / f"{n}",
                rows=-(-options.galaxies // n),
                workers=1,
                draws=options.draws,
                **SETTINGS,
            )
            result = parquet.read_table(folder / f"{n}" / "data").sort_by("object_id")
            results[n] = result
    for n in (7, 49):
        found[n] = {
            f"{name}_{key}": float(
                np.nanmax(
                    np.abs(
                        results[n][f"{name}_{key}"].to_numpy()
                        - results[1][f"{name}_{key}"].to_numpy()
                    )
                )
            )
            for name in ("redshift", "stellar_mass", "sfr")
            for key in ("median", "p16", "p84")
        }
    same = [
        results[n]["object_id"].equals(results[1]["object_id"])
        and results[n]["flags"].equals(results[1]["flags"])
        for n in (7, 49)
    ]
    return {"same_galaxies_and_flags": all(same), "largest_difference_from_one_partition": found}


def compare_ids(options: argparse.Namespace) -> dict[str, float]:
    """Compare the processor time with and without identifiers, in turns."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "in.parquet"
        write_catalogue(path, options.galaxies)
        table = table_from_arrow(parquet.read_table(path))
    for column in table.colnames:
        if column.startswith("flux"):
            table[column].unit = "nmgy"
    estimator = PropertyEstimator.from_pretrained()
    times: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(1 + 2 * options.turns):
        keyed = bool(turn % 2)
        begin = time.process_time()
        for _ in estimator.predict_iter(
            photometry=table,
            n_draws=options.draws,
            seed=1,
            ids=table["object_id"] if keyed else None,
            on_error="flag",
        ):
            pass
        # The first turn is slower.
        if turn:
            times[keyed].append(time.process_time() - begin)
    plain, keyed_time = (min(times[key]) for key in (False, True))
    return {"without_ids_s": plain, "with_ids_s": keyed_time, "overhead": keyed_time / plain - 1}


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = {
        "run": measure,
        "large": run_large,
        "scheduler": schedule,
        "split": split,
        "ids": compare_ids,
        "kills": kill,
    }
    parser.add_argument("what", choices=tuple(commands))
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--galaxies", type=int, default=20_000)
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--rows", type=int, default=5_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--engine", default="none")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", default="results/survey")
    parser.add_argument("--minutes", type=float, default=1e6)
    options = parser.parse_args()
    found = commands[options.what](options)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
