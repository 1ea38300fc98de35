"""From nothing to judged weights of both networks, by the commands of the documentation.

The servers are replaced by a small loopback server, hours by steps, and the networks are small.
The download and both trainings are killed and started again.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from astropy.table import QTable
from sky_server_cases import SkyCase, served

from astrogenspec import PropertyEstimator, SpectrumEstimator
from astrogenspec.cli.commands import main
from astrogenspec.datasets.folders import read_manifest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "real_survey.rst"
#: Options that make the commands small.
SMALL = "--size small --steps 6 --checkpoint-minutes 1e-6"
#: The prior of noise-free spectra from fewer galaxies.
SETUP = """
from astrogenspec.datasets import noise_free, spectrum_training
draw = noise_free.draw_population
spectrum_training.draw_population = lambda network: draw(network, 80)
from astrogenspec.cli.commands import main
import sys
sys.exit(main(sys.argv[1:]))
"""


def commands():
    """Commands of the first literal block of the page, without ``astrogenspec``."""
    text = PAGE.read_text(encoding="utf-8")
    block = text.split("::\n\n", 1)[1].split("\n\n", 1)[0]
    lines = [line.strip() for line in block.splitlines()]
    assert all(line.startswith("astrogenspec ") for line in lines)
    return [shlex.split(line)[1:] for line in lines]


def smaller(command, address):
    """A command for the loopback server, with steps instead of hours, on the CPU."""
    words = " ".join(command)
    words = words.replace("--hours 12 --device cuda", SMALL)
    if command[0] == "dataset":
        words += f" --mirror {address} --rate 1000 --yes"
    if command[0] == "evaluate":
        words += " --n-draws 20 --n-fits 0"
    return [*words.split(), "--quiet"]


def kill_when(command, folder, exists):
    """Start a command, kill it when a file appears, and return whether it was killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", SETUP, *command],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    deadline = time.monotonic() + 600
    while process.poll() is None and not exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def steps_of(folder):
    return QTable.read(folder / "history.ecsv")["step"][-1]


@pytest.mark.slow
def test_commands_of_the_page(tmp_path, monkeypatch):
    case = SkyCase(n_runs=3, n_fields=4, n_galaxies=3)
    monkeypatch.chdir(tmp_path)
    with served(case) as address:
        download, properties, spectra, evaluate = (smaller(c, address) for c in commands())
        case.always = dict.fromkeys(case.files, "slow")
        parts = tmp_path / "sdss" / "parts"
        assert kill_when(download, tmp_path, lambda: any(parts.glob("*.npz")))
        assert not read_manifest("sdss")["complete"]
        case.always = {}
        assert main(download) == 0
    manifest = read_manifest("sdss")
    assert manifest["complete"] and manifest["failed"] == 0
    assert manifest["galaxies"] == {"train": 24, "validation": 9, "test": 3}

    for command, lane in ((properties, "properties"), (spectra, "spectra")):
        folder = tmp_path / "runs" / lane
        checkpoint = folder / "checkpoint.pt"
        assert kill_when(command, tmp_path, checkpoint.exists)
        assert not (folder / f"{lane}.safetensors").exists()
        result = subprocess.run(
            [sys.executable, "-c", SETUP, *command],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        assert result.returncode == 0 and steps_of(folder) == 6

    weights = PropertyEstimator.load("runs/properties/properties.safetensors")
    assert weights.card["training"]["max_steps"] == 6
    assert SpectrumEstimator.load("runs/spectra/spectra.safetensors").network.n_domains == 1
    assert main(evaluate) == 0
    page = Path("page.html").read_text()
    assert "Evaluation on 3 real galaxies" in page and page.count("<img") == 5
    assert {path.name for path in tmp_path.iterdir()} == {"sdss", "runs", "page.html"}
