"""Rates, memory and disk of survey runs, and kills at random moments.

``python benchmarks/survey.py run --galaxies 20000`` infers a catalogue made of the galaxies of the
demonstration with scattered fluxes, and compares it with `PropertyEstimator.predict_iter` on the
same rows. Rates are per second of processor time, so that other processes on the machine change
them little.

``python benchmarks/survey.py large --galaxies 1000000 --engine dask --workers 2 --folder F`` runs a
catalogue in the folder F, or continues it, and records the memory of each worker every ten seconds.
``--minutes 60`` ends it after that time, and the figures are those of the partitions done.

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
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import torch
from pyarrow import parquet

from astrogenspec import PropertyEstimator
from astrogenspec.demo import load_galaxies
from astrogenspec.distributed import run_survey
from astrogenspec.distributed.checks import check_survey
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


def of_loop(path: Path, draws: int) -> float:
    """Return galaxies per second of processor time of the loop alone, with percentiles."""
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
    return {
        "galaxies": options.galaxies,
        "draws": options.draws,
        "workers": options.workers,
        "galaxies_per_wall_second": options.galaxies / wall,
        "galaxies_per_cpu_second_with_start": options.galaxies / used,
        "galaxies_per_cpu_second": rate,
        "galaxies_per_cpu_second_of_predict_iter": loop,
        "overhead": loop / rate - 1,
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
            landed += child.poll() is None
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


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("run", "large", "kills"))
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
    found = {"run": measure, "large": run_large, "kills": kill}[options.what](options)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
