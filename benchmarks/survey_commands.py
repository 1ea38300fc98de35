"""Measure what each command of docs/real_survey.rst costs, on a loopback server.

    python benchmarks/survey_commands.py [--fields 6] [--steps 20] [--shape 1489 2048] --out OUT

The server has the layout of SDSS: a catalogue, frames of true size, and spectra.  Each command runs
in a process of its own, which is measured: processor time of the user, and the peak of the memory.
Waiting for a server is not measured, as a loopback server answers at once.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests"))

import sky_server_cases  # noqa: E402


def measured(name: str, command: str, out: Path) -> dict[str, float]:
    """Run a command and return its processor time (s), peak memory (MB) and duration (s)."""
    script = (
        "import sys, resource\n"
        "from astrogenspec.cli.commands import main\n"
        "code = main(sys.argv[1:])\n"
        "print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)\n"
        "sys.exit(code)\n"
    )
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", script, *shlex.split(command)],
        cwd=out,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{command}: {done.stderr[-2000:]}")
    peak = next(line for line in reversed(done.stderr.splitlines()) if line.startswith("peak"))
    result = {
        "user_s": round(after.ru_utime - before.ru_utime, 1),
        "peak_mb": round(int(peak.split()[1]) / 1024),
        "wall_s": round(time.monotonic() - start, 1),
    }
    print(name, result, flush=True)
    return result


def main() -> None:
    """Run the commands and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3, help="imaging runs")
    parser.add_argument("--fields", type=int, default=4, help="fields of each run")
    parser.add_argument("--galaxies", type=int, default=3, help="galaxies of each field")
    parser.add_argument("--shape", type=int, nargs=2, default=(1489, 2048), help="size of frames")
    parser.add_argument("--steps", type=int, default=20, help="steps of each training; 0 for none")
    parser.add_argument("--size", default="base", help="size of the networks")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    sky_server_cases.SHAPE = tuple(options.shape)
    case = sky_server_cases.SkyCase(options.runs, options.fields, options.galaxies)
    train = f"--steps {options.steps} --size {options.size} --quiet"
    results = {"galaxies": len(case.rows), "fields": options.runs * options.fields}
    with sky_server_cases.served(case) as address:
        results["dataset"] = measured(
            "dataset",
            "dataset sdss --selection images-to-physics --spectra --n 1000000 --out sdss --yes "
            f"--quiet --rate 1000 --mirror {address}",
            options.out,
        )
    start = "evaluate --data sdss --n 1 --n-draws 2 --quiet"
    results["start of a command"] = measured("start of a command", start, options.out)
    if options.steps:
        measure_training(results, train, options.out)
    (options.out / "survey_commands.json").write_text(json.dumps(results, indent=1))


def measure_training(results: dict, train: str, out: Path) -> None:
    """Train and evaluate both networks."""
    results["properties"] = measured(
        "properties", f"train properties --data sdss --out properties {train}", out
    )
    results["spectra"] = measured(
        "spectra", f"train spectra --data sdss --out spectra {train}", out
    )
    results["evaluate"] = measured(
        "evaluate",
        "evaluate --data sdss --properties properties/properties.safetensors --spectra "
        "spectra/spectra.safetensors --report page.html --quiet",
        out,
    )


if __name__ == "__main__":
    main()
