"""Tests of the scripts of ``recipes/`` and ``benchmarks/``, and of the recipe commands."""

import runpy
import shlex
import sys
from pathlib import Path

import pytest

from astrogenspec import list_models, load_card
from astrogenspec.cli.commands import make_parser

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("recipes", "benchmarks")
    for path in (ROOT / folder).glob("*.py")
    if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
)


@pytest.fixture
def run_script(monkeypatch):
    """Run a script in this process, as ``python path arguments`` does."""
    before = set(sys.modules)

    def run(path, *arguments):
        monkeypatch.setattr(sys, "argv", [path, *arguments])
        monkeypatch.setattr(sys, "path", [str((ROOT / path).parent), *sys.path])
        runpy.run_path(str(ROOT / path), run_name="__main__")

    yield run
    local = {
        path.stem for folder in ("recipes", "benchmarks") for path in (ROOT / folder).glob("*.py")
    }
    for name in (set(sys.modules) - before) & local:
        del sys.modules[name]


@pytest.mark.parametrize("path", SCRIPTS)
def test_scripts_print_their_help(path, run_script, capsys):
    with pytest.raises(SystemExit) as stopped:
        run_script(path, "--help")
    assert stopped.value.code == 0
    assert "usage" in capsys.readouterr().out


@pytest.mark.parametrize(
    "kind", ["simulated", "deep", "properties", "spectra-simulated", "spectra"]
)
def test_commands_of_the_weights_are_valid(kind, run_script, capsys):
    run_script("recipes/train_weights.py", kind)
    for line in capsys.readouterr().out.splitlines():
        program, *arguments = shlex.split(line.split(": ", 1)[1])
        if program == "astrogenspec":
            make_parser().parse_args(arguments)
        else:
            assert program == "python" and (ROOT / arguments[0]).is_file()


@pytest.mark.parametrize("name", list_models()["name"])
def test_bundled_cards_state_what_becomes_of_errors(name, monkeypatch):
    """Weights for SDSS have an error floor, those for any filters calibration errors."""
    monkeypatch.setattr(sys, "path", [str(ROOT / "recipes"), *sys.path])
    cards = runpy.run_path(str(ROOT / "recipes/cards.py"))
    any_filters = name.startswith("astrogenspec-properties")
    kind = "calibration_limitation" if any_filters else "error_floor_limitation"
    assert cards[kind]() in load_card(name)["limitations"]


def test_running_needs_the_folder_of_real_galaxies(run_script, capsys):
    with pytest.raises(SystemExit):
        run_script("recipes/train_weights.py", "properties", "--run")
    assert "--real" in capsys.readouterr().err


def test_readme_describes_every_script():
    text = (ROOT / "recipes" / "README.rst").read_text(encoding="utf-8")
    recipes = [Path(path).name for path in SCRIPTS if path.startswith("recipes")]
    assert [name for name in recipes if f"``{name}``" not in text] == []
