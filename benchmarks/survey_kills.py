"""Kill workers, clients and schedulers of survey runs at random moments.

``python benchmarks/survey_kills.py workers --kills 10`` starts a cluster of dask in processes of
its own, runs a catalogue on it, and kills single workers with signal 9 while the client goes on.
``nanny`` does so with workers that dask starts again by itself. ``memory`` lets workers need more
memory than they may, so that dask ends them. ``scheduler`` kills the scheduler, ``client`` the
client; then the cluster is started again, and the same call continues the run.

All files of the result must be bitwise equal to those of a run without interruption. The partitions
that were begun more than once are counted: a kill may cost those in work, and no others.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from survey import SETTINGS, write_catalogue

from astrogenspec.distributed import engines, run_survey
from astrogenspec.distributed.checks import check_survey
from astrogenspec.distributed.work import Outcome, Task, process_partition

#: File to which workers write what they begin and end, and folder of files that make them fail.
JOURNAL, GREEDY = "SURVEY_JOURNAL", "SURVEY_GREEDY"
#: Largest memory of a worker, bytes, and what a greedy one takes.
MEMORY = 1_500_000_000
_HERE = Path(__file__).resolve().parent


def recorded(task: Task) -> Outcome:
    """Infer a partition, and record its beginning and its end."""
    index = task.partition.index
    _record(f"{index} begun")
    greedy = Path(os.environ[GREEDY]) / str(index)
    if greedy.exists():
        greedy.unlink()
        taken = [np.ones(MEMORY // 80) for _ in range(10)]
        time.sleep(60)
        del taken
    outcome = process_partition(task)
    _record(f"{index} {outcome.state}")
    return outcome


def _record(line: str) -> None:
    descriptor = os.open(os.environ[JOURNAL], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{line}\n".encode())
    os.close(descriptor)


def client(address: str, source: str, output: str, settings: str) -> None:
    """Run or continue the catalogue on a cluster; this is the process that may be killed."""
    setattr(engines, "process_partition", recorded)  # noqa: B010  mypy knows its type
    run_survey(source, output, engine="dask", scheduler=address, **json.loads(settings))


class Cluster:
    """A scheduler and two workers, in processes of their own."""

    def __init__(self, nanny: bool, folder: Path) -> None:
        self._file, self._log = folder / "scheduler.json", (folder / "cluster.log").open("ab")
        self._options = ["--nthreads", "1", "--local-directory", str(folder), "--no-dashboard"]
        self._options += ["--memory-limit", str(MEMORY), "--nanny" if nanny else "--no-nanny"]
        self.scheduler: Any = None
        self.workers: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Cluster:
        self._file.unlink(missing_ok=True)
        self.scheduler = self._start("scheduler", "--port", "0", "--no-dashboard")
        while not self._file.exists():
            time.sleep(0.2)
        self.address = json.loads(self._file.read_text())["address"]
        for _ in range(2):
            self.add_worker()
        return self

    def _start(self, *command: str) -> subprocess.Popen[bytes]:
        path = os.pathsep.join([str(_HERE), *sys.path])
        settings = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        settings["DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED"] = "False"
        return subprocess.Popen(
            [sys.executable, "-m", "dask", *command, "--scheduler-file", str(self._file)],
            env=os.environ | settings,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )

    def add_worker(self) -> None:
        """Start a worker."""
        self.workers.append(self._start("worker", *self._options))

    def __exit__(self, *_: object) -> None:
        for each in (self.scheduler, *self.workers):
            with suppress(ProcessLookupError):
                os.killpg(each.pid, signal.SIGKILL)
            each.wait()
        self._log.close()


def victims(what: str, running: subprocess.Popen[str], cluster: Cluster) -> list[int]:
    """Return the processes of which one is killed."""
    if what == "client":
        return [running.pid]
    if what == "scheduler":
        return [cluster.scheduler.pid]
    alive = [each.pid for each in cluster.workers if each.poll() is None]
    if what == "workers":
        return alive
    return [
        child.pid
        for pid in alive
        for child in psutil.Process(pid).children(recursive=True)
        if "spawn_main" in " ".join(child.cmdline())
    ]


def interrupted(
    what: str, folder: Path, call: list[str], kills: int, chance: random.Random
) -> dict[str, Any]:
    """Run a catalogue to its end, with a number of kills; return what happened."""
    landed, starts, messages = 0, 0, set()
    output = Path(call[1])
    code = "import sys; from survey_kills import client; client(*sys.argv[1:])"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(_HERE), *sys.path])}
    while not (output / "metrics.json").exists() and starts < kills + 10:
        starts += 1
        with Cluster(what in ("nanny", "memory"), folder) as cluster:
            running = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-c", code, cluster.address, *call],
                env=environment,
                stderr=subprocess.PIPE,
                text=True,
            )
            while landed < kills and running.poll() is None and what != "memory":
                begun = _begun()
                while running.poll() is None and _begun() < begun + 1:
                    time.sleep(0.05)
                time.sleep(chance.uniform(0, 3))
                found = victims(what, running, cluster)
                if running.poll() is not None or not found:
                    continue
                os.kill(chance.choice(found), signal.SIGKILL)
                landed += 1
                if what == "workers":
                    cluster.add_worker()
                elif what != "nanny":
                    break
            error = running.communicate()[1].strip().splitlines()
            if running.returncode > 0:
                messages.add(error[-1] if error else "")
    return {"kills": landed, "calls": starts, "messages": sorted(messages)}


def _begun() -> int:
    with suppress(FileNotFoundError):
        return Path(os.environ[JOURNAL]).read_text().count("begun")
    return 0


def repeated() -> int:
    """Return how many computations were not the first one of their partition."""
    lines = [line.split() for line in Path(os.environ[JOURNAL]).read_text().splitlines()]
    begun = Counter(index for index, state in lines if state == "begun")
    # Nothing is computed for partitions that are done, or in work by another process.
    begun.subtract(index for index, state in lines if state in ("skipped", "claimed"))
    return sum(n - 1 for n in begun.values())


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("workers", "nanny", "memory", "scheduler", "client"))
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--galaxies", type=int, default=6000)
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, whole, output = (folder / each for each in ("in.parquet", "whole", "out"))
        write_catalogue(source, options.galaxies)
        settings = {**SETTINGS, "rows": options.rows, "draws": options.draws}
        run_survey(source, whole, workers=1, **settings)
        os.environ[JOURNAL] = str(folder / "journal")
        os.environ[GREEDY] = str(folder)
        n = -(-options.galaxies // options.rows)
        greedy = chance.sample(range(n), min(n, options.kills)) if options.what == "memory" else []
        for index in greedy:
            (folder / str(index)).touch()
        call = [str(source), str(output), json.dumps(settings)]
        found = interrupted(options.what, folder, call, options.kills, chance)
        one, two = (
            {path.name: path.read_bytes() for path in (each / "data").iterdir()}
            for each in (whole, output)
        )
        found |= {
            "ended_for_memory": sum(not (folder / str(index)).exists() for index in greedy),
            "partitions": len(one),
            "different": sum(one.get(name) != two.get(name) for name in {*one, *two}),
            "computed_again": repeated(),
            "problems": check_survey(source, output),
        }
    print(json.dumps({"what": options.what} | found, indent=1))


if __name__ == "__main__":
    main()
