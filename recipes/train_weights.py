"""Make bundled weights again: simulate, train, fine-tune, recalibrate and write the file.

    python recipes/train_weights.py simulated --real FOLDER         # list the commands
    python recipes/train_weights.py simulated --real FOLDER --run   # run them
    python recipes/train_weights.py properties --real FOLDER --run
    python recipes/train_weights.py spectra-simulated --run
    python recipes/train_weights.py spectra --real FOLDER --run
    python recipes/train_weights.py deep --run
    python recipes/train_weights.py deep --run --start 2            # begin with the second command

The commands are those of `commands.py`.  ``properties`` begins with the weights that ``simulated``
makes, ``spectra`` with those of ``spectra-simulated``.  Simulations and training resume where they
were interrupted.  FOLDER holds the tables of real galaxies (`real_tables.py`, `real_images.py`,
`real_spectra.py`).
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

from commands import RECIPES

ROOT = Path(__file__).parents[1]


def commands_of(kind: str, folder: Path | None, commit: str) -> list[list[str]]:
    """Return the commands for one of the bundled weights as lists of arguments.

    Parameters
    ----------
    kind : {"simulated", "deep", "properties", "spectra-simulated", "spectra"}
    folder : Path, optional
        Folder of the tables of real galaxies; if None, ``FOLDER`` is left in the commands.
    commit : str
        Commit of the code, for the card.
    """
    values = {"COMMIT": commit, "FOLDER": "FOLDER" if folder is None else str(folder)}
    return [[values.get(word, word) for word in shlex.split(command)] for command in RECIPES[kind]]


def run(command: list[str]) -> None:
    """Run a command in the root of the repository with this Python."""
    program, *arguments = command
    prefix = [sys.executable, *(["-m", program] if program == "astrogenspec" else [])]
    subprocess.run([*prefix, *arguments], cwd=ROOT, check=True)


def main() -> None:
    """List or run the commands."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("kind", choices=tuple(RECIPES))
    parser.add_argument("--real", type=Path, metavar="FOLDER", help="tables of real galaxies")
    parser.add_argument("--run", action="store_true", help="run the commands")
    parser.add_argument("--start", type=int, default=1, metavar="N", help="first command to run")
    arguments = parser.parse_args()
    head = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(head, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    commands = commands_of(arguments.kind, arguments.real, commit or "COMMIT")
    if arguments.run and any("FOLDER" in command for command in commands):
        parser.error(f"{arguments.kind} needs real galaxies: give their folder with --real.")
    for number, command in enumerate(commands, 1):
        if number < arguments.start:
            continue
        print(f"{number}/{len(commands)}:", shlex.join(command), flush=True)
        if arguments.run:
            run(command)


if __name__ == "__main__":
    main()
