"""Kill commands at random moments, and check that no file is lost or damaged.

    python benchmarks/interruption.py --kills 60

Each command runs in a separate folder, with or without earlier output files, and is killed (signal
9) at a random moment or shortly after it starts to write.  Every output must then be absent,
unchanged, or complete and readable, and a second run of the command must succeed and leave no other
file.  The script prints a table; its exit status is 1 if a check fails.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from astrogenspec import Posterior, PropertyEstimator, SpectrumDraws
from astrogenspec.training.shards import Shards
from astrogenspec.weights import (
    fetch_weights,
    read_weights,
    register_weights,
    save_weights,
)

_COMMAND = [sys.executable, "-W", "ignore", "-m", "astrogenspec"]
_SAVE = """
import sys
from astrogenspec import PropertyEstimator
estimator = PropertyEstimator.from_pretrained()
estimator.card["name"] = sys.argv[2]
estimator.save(sys.argv[1], overwrite=True)
"""
#: Download of a model that is not bundled, from a mirror, into a given cache.
_FETCH = """
import sys
from pathlib import Path
from astrogenspec import weights
from astrogenspec.cli import main
weights._data_folder = lambda: Path(sys.argv[1])
weights._cache_folder = lambda: Path(sys.argv[2])
sys.exit(main(["weights", "fetch", "large", "-q"]))
"""


@dataclass(frozen=True)
class Case:
    """A command and what it writes.

    Attributes
    ----------
    name : str
        Name in the table.
    command : callable
        Return the arguments of the command for a folder.
    check : callable
        Read the complete outputs in a folder; raise an exception if one is damaged.
    outputs : tuple of str
        Names of the outputs; ``"*"`` at the end stands for any characters.
    """

    name: str
    command: Callable[[Path], list[str]]
    check: Callable[[Path], None]
    outputs: tuple[str, ...]


def _check_tables(folder: Path, name: str, read: Callable[[Path], object]) -> None:
    if (folder / name).exists():
        read(folder / name)


def _check_weights(folder: Path) -> None:
    for path in folder.glob("*.safetensors"):
        PropertyEstimator.load(path)


def _check_shards(folder: Path) -> None:
    if list(folder.glob("*.h5")):
        Shards.read(folder)


def _check_training(folder: Path) -> None:
    import torch
    from astropy.table import QTable

    if (folder / "checkpoint.pt").exists():
        torch.load(folder / "checkpoint.pt", weights_only=False)
    if (folder / "history.ecsv").exists():
        QTable.read(folder / "history.ecsv")
    _check_weights(folder)


def _check_cache(folder: Path) -> None:
    for path in folder.glob("*.safetensors"):
        read_weights(path)


def _fetch(data: Path, folder: Path) -> list[str]:
    return [sys.executable, "-W", "ignore", "-c", _FETCH, str(data), str(folder)]


def _save(folder: Path) -> list[str]:
    name = str(random.randrange(10**6))
    return [sys.executable, "-W", "ignore", "-c", _SAVE, str(folder / "own.safetensors"), name]


def _cases(scratch: Path) -> list[Case]:
    table = scratch / "galaxies.csv"
    rows = (f"g{k},{17 + 0.05 * k:.2f},0.02,0.02" for k in range(20))
    table.write_text("name,mag_r,mag_err_r,ebv\n" + "\n".join(rows) + "\n")
    shards = scratch / "training"
    _run([*_COMMAND, "simulate", "64", "--out", str(shards), "--training", "-q"])
    common = ["--seed", "1", "--overwrite", "-q"]

    def infer(folder: Path) -> list[str]:
        output = str(folder / "properties.fits")
        return [*_COMMAND, "infer", str(table), "-o", output, "--save-draws", *common]

    def spectrum(folder: Path) -> list[str]:
        output = str(folder / "spectra.fits")
        return [*_COMMAND, "spectrum", str(table), "-o", output, "--draws", "2", *common]

    def simulate(folder: Path) -> list[str]:
        options = ["--no-images", "--no-spectra", "--workers", "1", "-q"]
        return [*_COMMAND, "simulate", "3000", "--out", str(folder), *options]

    def train(folder: Path) -> list[str]:
        options = ["--data", str(shards), "--out", str(folder), "--steps", "2", "-q"]
        return [*_COMMAND, "train", "properties", *options]

    return [
        Case(
            "infer",
            infer,
            partial(_check_tables, name="properties.fits", read=Posterior.read),
            ("properties.fits",),
        ),
        Case(
            "spectrum",
            spectrum,
            partial(_check_tables, name="spectra.fits", read=SpectrumDraws.read),
            ("spectra.fits",),
        ),
        Case("simulate", simulate, _check_shards, ("shard-*",)),
        Case(
            "train",
            train,
            _check_training,
            ("checkpoint.pt", "history.ecsv", "properties.safetensors", "properties.json"),
        ),
        Case("weights fetch", partial(_fetch, scratch / "data"), _check_cache, ("large-v1.*",)),
        Case("estimator.save", _save, _check_weights, ("own.safetensors", "own.json")),
    ]


def _run(command: list[str]) -> float:
    """Run a command to its end and return the duration [s]."""
    start = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True)
    # Status 3: some galaxies are flagged.
    if done.returncode not in (0, 3):
        raise RuntimeError(f"status {done.returncode}: {done.stderr.strip()[-300:]}")
    return time.monotonic() - start


def _kill(command: list[str], folder: Path, duration: float, chance: random.Random) -> bool:
    """Kill a command at a random moment; return whether it still ran."""
    before = set(folder.rglob("*"))
    after_write = chance.random() < 0.5
    end = time.monotonic() + duration * chance.uniform(0.2, 1.1)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        if after_write and set(folder.rglob("*")) != before:
            time.sleep(chance.choice([0, 0.001, 0.01, 0.05, 0.2]))
            break
        if not after_write and time.monotonic() > end:
            break
        time.sleep(0.0005)
    alive = process.poll() is None
    process.kill()
    process.wait()
    return alive


def _strangers(case: Case, folder: Path) -> list[str]:
    return [
        path.name
        for path in folder.iterdir()
        if not any(path.match(pattern) for pattern in case.outputs)
    ]


def _attempt(
    case: Case, folder: Path, old: Path | None, duration: float, chance: random.Random
) -> tuple[bool, str]:
    """Kill a command once; return whether it was running, and the fault, if any."""
    shutil.rmtree(folder, ignore_errors=True)
    if old is None:
        folder.mkdir()
    else:
        shutil.copytree(old, folder)
    killed = _kill(case.command(folder), folder, duration, chance)
    if old is not None:
        missing = {path.name for path in old.iterdir()} - {path.name for path in folder.iterdir()}
        if missing:
            return killed, f"lost {', '.join(sorted(missing))}"
    try:
        case.check(folder)
    except Exception as error:  # any exception is a damaged file
        return killed, f"after the kill: {error}"
    try:
        _run(case.command(folder))
        case.check(folder)
    except Exception as error:
        return killed, f"second run: {error}"
    if left := _strangers(case, folder):
        return killed, f"left over: {', '.join(left)}"
    return killed, ""


def _serve(folder: Path) -> str:
    """Serve a folder on this machine and return its address."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def _make_mirror(scratch: Path) -> None:
    """Register a model that is not bundled, and set the address of its mirror."""
    from astrogenspec import weights

    data, mirror = scratch / "data", scratch / "mirror"
    data.mkdir()
    mirror.mkdir()
    bundled = fetch_weights("astrogenspec-properties")
    state, config = read_weights(bundled.path)
    path = mirror / "large-v1.safetensors"
    save_weights(path, state, config, {"licence": "BSD-3-Clause"}, half=False)
    original, weights._data_folder = weights._data_folder, lambda: data
    register_weights(path, "large", lane="properties", description="A model.", bundled=False)
    weights._data_folder = original
    os.environ["ASTROGENSPEC_WEIGHTS_URL"] = _serve(mirror)


def main() -> int:
    """Run all cases, print the table, and return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=60, help="number of kills, of all commands")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", help="names of the commands")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    chance = random.Random(arguments.seed)
    n_faults = 0
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        _make_mirror(scratch)
        cases = [c for c in _cases(scratch) if c.name in (arguments.only or [c.name])]
        print(f"{'command':16}{'run (s)':>8}{'kills':>7}{'in time':>9}{'faults':>8}")
        for k, case in enumerate(cases):
            old = scratch / f"old-{k}"
            old.mkdir()
            duration = _run(case.command(old))
            n = arguments.kills // len(cases) + (k < arguments.kills % len(cases))
            results = [
                _attempt(case, scratch / f"new-{k}", old if j % 2 else None, duration, chance)
                for j in range(n)
            ]
            faults = [fault for _, fault in results if fault]
            in_time = sum(killed for killed, _ in results)
            print(f"{case.name:16}{duration:8.1f}{n:7}{in_time:9}{len(faults):8}", flush=True)
            for fault in faults:
                print(f"    {fault}")
            n_faults += len(faults)
    return int(n_faults > 0)


if __name__ == "__main__":
    sys.exit(main())
