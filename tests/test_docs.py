"""Tests of the documentation: code blocks run, tutorials use existing names, pages are complete."""

import ast
import importlib
import re
import sys
from pathlib import Path

import pytest

import astrogenspec

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.rst"), ROOT / "README.rst", ROOT / "CONTRIBUTING.rst"])
TUTORIALS = sorted((DOCS / "tutorials").glob("*.py"))

#: Python blocks that are not doctests, by page and start of the first line, with the reason. They
#: are compiled and their imports checked.
NOT_RUN = {
    ("README.rst", "cutout = {band: CCDData.read("): "files of the user",
    ("index.rst", "from astropy.nddata import CCDData"): "files of the user",
    ("jdaviz.rst", "import jdaviz"): "jdaviz, which is not a dependency",
    ("jdaviz.rst", "from specutils import Spectrum"): "the same",
    ("other_tools.rst", "from astropy.nddata import CCDData"):
        "files of the user; run in tests/results/test_exchange.py",
    ("other_tools.rst", "posterior.to_regions("): "the same",
    ("other_tools.rst", "from astrogenspec.reports.draw_tables import draw_table"):
        "takes long; run in tests/reports/test_draw_tables.py",
    ("pages.rst", "posterior.to_html("): "writes a file; run in tests/view/test_page.py",
    ("ppxf.rst", "import numpy as np"): "the extra simulate; writes a file",
    ("ppxf.rst", "import astropy.units as u"): "pPXF, which is not a dependency",
    ("inputs.rst", "from astropy.coordinates import SkyCoord"): "network",
    ("inputs.rst", "from astroquery.sdss import SDSS"):
        "network; its columns are read in tests/inputs/test_catalogues.py",
    ("inputs.rst", 'batch = coerce_cutouts({"g": "g.fits"'):
        "files of the user; zero points are read in tests/inputs/test_cutouts.py",
    ("install.rst", 'estimator = PropertyEstimator.from_pretrained(device="cuda")'): "a GPU",
    ("large_catalogues.rst", "import pandas as pd"): "files of the user",
    ("large_catalogues.rst", "import numpy as np"): "files of the user",
    ("large_catalogues.rst", "import lsdb"):
        "a catalogue of the user; run in tests/distributed/test_hats.py",
    ("measuring.rst", "from astrogenspec.measure import measure_kinematics"): "the extra simulate",
    ("publishing.rst", 'PropertyEstimator.from_pretrained("https://'): "network",
    ("quickstart.rst", "from astropy.nddata import CCDData"): "files of the user",
    ("rail.rst", "from rail.estimation.algos.astrogenspec"):
        "tables of the user; run in tests/distributed/test_rail.py",
    ("spectra.rst", "properties = PropertyEstimator.from_pretrained()"):
        "a catalogue of the user; run in tests/generation/test_estimator.py",
    ("spectra.rst", "from astrogenspec import SamplerSettings, SpectrumOptions"): "takes long",
    ("surveys.rst", "from astroquery.svo_fps import SvoFps"): "network",
    ("training.rst", "from astropy.table import QTable"):
        "a catalogue of the user; run in the tutorial 08_fine_tune",
    ("training.rst", "better = estimator.fit(photometry=table, labels={"): "the same",
    ("training.rst", 'better = estimator.fit(photometry=table, labels=table["redshift", "sfr"]'):
        "simulated shards",
    ("training.rst", "better = better.fit(cutouts, photometry=with_images"):
        "simulated shards; without them run in tests/inference/finetuning/test_trainer.py",
    ("training.rst", "print(better.calibration_report(photometry=apart"):
        "run in the tutorial 07_calibrated_for_my_sample",
    ("trust.rst", "better = estimator.recalibrated(photometry=table"):
        "needs 100 galaxies; run in the tutorial 07_calibrated_for_my_sample",
    ("trust.rst", "draws = estimator.predict(..., n_draws=64, calibrated=False)"):
        "true spectra of the user; run in tests/calibration/test_spectra.py",
}  # fmt: skip

_SHELL = re.compile(r"^(\$ |make |python -m |pip |export |astrogenspec |OMP_NUM_THREADS|pytest )")


def _blocks(path):
    """Yield (language or "", text) for each literal or code block of a page."""
    lines = path.read_text(encoding="utf-8").splitlines()
    k = 0
    while k < len(lines):
        line = lines[k]
        directive = re.match(r"\s*\.\. code(?:-block)?:: *(\S*)", line)
        if directive or (line.rstrip().endswith("::") and not line.strip().startswith("..")):
            indent = len(line) - len(line.lstrip())
            body, k = [], k + 1
            while k < len(lines) and (
                not lines[k].strip() or len(lines[k]) - len(lines[k].lstrip()) > indent
            ):
                body.append(lines[k])
                k += 1
            text = "\n".join(row for row in body if not row.strip().startswith(":"))
            yield (directive[1] if directive else ""), _dedented(text)
        else:
            k += 1


def _dedented(text):
    import textwrap

    return textwrap.dedent(text).strip("\n")


def _python_blocks(path):
    for language, text in _blocks(path):
        if ">>>" in text or language in ("ini", "bash", "shell", "console", "text"):
            continue
        if language.lower() != "python" and _SHELL.match(text):
            continue
        yield text


def _names_used(tree):
    """Yield (module, name or None) for each import from the package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "astrogenspec":
            for alias in node.names:
                yield node.module, alias.name
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "astrogenspec":
                    yield alias.name, None


def _check_names(tree):
    for module, name in _names_used(tree):
        home = importlib.import_module(module)
        if name is not None and not hasattr(home, name):
            importlib.import_module(f"{module}.{name}")


def _listed_as(page, text):
    """Return the key of `NOT_RUN` that matches a block of a page, or None."""
    matches = (key for key in NOT_RUN if key[0] == page.name and text.startswith(key[1]))
    return next(matches, None)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_code_blocks_compile_and_are_listed(page):
    for text in _python_blocks(page):
        tree = ast.parse(text)
        _check_names(tree)
        assert _listed_as(page, text), (
            f"{page.name} has a block that is not run: make it a doctest or list it in "
            f"NOT_RUN.\n{text}"
        )


def test_listed_code_blocks_exist():
    found = {_listed_as(page, text) for page in PAGES for text in _python_blocks(page)}
    assert set(NOT_RUN) <= found


def test_pages_are_doctests(pytestconfig):
    assert {"docs", "README.rst"} <= set(pytestconfig.getini("testpaths"))
    assert pytestconfig.getini("text_file_format") == "rst"
    assert sum(page.read_text(encoding="utf-8").count("\n>>> ") for page in PAGES) > 100


# ---- tutorials


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_tutorials_compile_and_use_names_that_exist(path):
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    _check_names(tree)
    assert ast.get_docstring(tree).strip().splitlines()[1].startswith("===")
    compile(source, str(path), "exec")


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_attributes_of_our_modules_exist_in_tutorials(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    modules = {}
    for module, name in _names_used(tree):
        if name is not None:
            value = getattr(importlib.import_module(module), name, None)
            if value is None or type(value).__name__ == "module":
                modules[name] = importlib.import_module(f"{module}.{name}")
    used = [
        (modules[node.value.id], node.attr)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in modules
    ]
    missing = [f"{module.__name__}.{name}" for module, name in used if not hasattr(module, name)]
    assert not missing


def test_tutorials_need_no_network():
    assert [path.name[:2] for path in TUTORIALS] == [f"{k:02d}" for k in range(1, 12)]
    for path in TUTORIALS:
        source = path.read_text(encoding="utf-8")
        assert not re.search(r"https?://|fetch_sdss_cutout|urlopen|requests\.", source), path.name


def test_axis_labels_of_tutorials_have_units():
    # Labels of masses, rates, fluxes and wavelengths state a unit.
    for path in TUTORIALS:
        for label in re.findall(r'[xy]label=(r?f?"[^"]*")', path.read_text(encoding="utf-8")):
            if re.search(r"M_|SFR|wavelength|F_.lambda|flux", label):
                assert re.search(r"\[|median|\{", label), f"{path.name}: {label}"


# ---- pages


def test_every_page_is_in_a_toctree():
    reached = set()
    for page in DOCS.glob("*.rst"):
        for entries in _toctrees(page):
            reached |= {entry.split("<")[-1].rstrip(">").strip() for entry in entries}
    pages = {page.stem for page in DOCS.glob("*.rst")} - {"index"}
    assert pages <= reached
    assert {"gallery/index", "models/index"} <= reached


def _toctrees(page):
    lines = page.read_text(encoding="utf-8").splitlines()
    for k, line in enumerate(lines):
        if line.strip() == ".. toctree::":
            entries = []
            for row in lines[k + 1 :]:
                if row.strip() and not row.startswith(" "):
                    break
                if row.strip() and not row.strip().startswith(":"):
                    entries.append(row.strip())
            yield entries


def test_reference_lists_every_public_name():
    documented = re.findall(
        r"^\.\. automodapi:: (\S+)", (DOCS / "reference.rst").read_text(encoding="utf-8"), re.M
    )
    text = (DOCS / "reference.rst").read_text(encoding="utf-8")
    met = set()
    for module in documented:
        met |= set(getattr(importlib.import_module(module), "__all__", ()))
    for package in ("", ".measure", ".calibration", ".plotting", ".simulate"):
        home = importlib.import_module(f"astrogenspec{package}")
        missing = [name for name in home.__all__ if name not in met and f"{name}``" not in text]
        assert not missing, f"astrogenspec{package}: {missing}"
        constants = [
            name
            for name in home.__all__
            if not callable(getattr(home, name)) and f"{name}``" not in text
        ]
        assert not constants, f"constants of astrogenspec{package}: {constants}"


def _strings_of_the_package():
    for path in (ROOT / "astrogenspec").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_troubleshooting_page_quotes_real_messages():
    everything = "\0".join(_strings_of_the_package())
    rows = re.findall(
        r"^   \* - ``(.+?)``$", (DOCS / "troubleshooting.rst").read_text(encoding="utf-8"), re.M
    )
    fragments = [
        part.strip()
        for row in rows
        for part in re.split(r"\.\.\.|``, ``", row)
        if len(part.strip()) > 11
    ]
    assert len(fragments) > 30
    unknown = [part for part in fragments if part not in everything and "Error" not in part]
    assert not unknown


# ---- what conf.py calls


@pytest.fixture(scope="module")
def model_cards():
    return _module("model_cards")


def _module(name):
    sys.path.insert(0, str(DOCS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(DOCS))


def test_model_pages_have_tables_and_figures(model_cards, tmp_path):
    pages = model_cards.write_model_pages(tmp_path)
    bundled = [str(r["name"]) for r in astrogenspec.list_models() if r["where"] == "bundled"]
    assert [page.stem for page in pages] == ["index", *bundled]
    for name in bundled:
        card = astrogenspec.load_card(name)
        text = (tmp_path / f"{name}.rst").read_text(encoding="utf-8")
        assert card["sha256"] in text
        figures = re.findall(r"^\.\. figure:: (\S+)", text, re.M)
        assert figures and all((tmp_path / figure).stat().st_size > 5000 for figure in figures)
        for key in card["metrics"]:
            assert f'metrics["{key}"]' in text
        titles = re.findall(r"^(.+)\n~+$", text, re.M)
        assert (
            len(titles) == len(card["metrics"]) == text.count("Measured with ``python benchmarks/")
        )


def test_model_page_shows_the_numbers_of_its_card(model_cards, tmp_path):
    card = {
        "name": "mine",
        "description": "A test",
        "limitations": ["None of it is true"],
        "commands": ["first"],
        "stages": [
            {
                "title": "Heads",
                "commands": ["second"],
                "commit": "abc",
                "training": {"best_step": 12345},
            },
            {"title": "Real", "commands": ["third"], "commit": "def"},
        ],
        "metrics": {"real": {"n": 12, "both": {"scatter": 0.0123456, "n": 7.0}, "rows": [1, 2]}},
    }
    text = model_cards.card_page(card, tmp_path)
    assert "- None of it is true" in text
    assert "- 0.0123\n" in text and "* - both" in text
    assert "figure::" not in text and "1, 2" not in text
    parts = [
        "**Commands**::",
        "first",
        "**Heads**::",
        "second",
        "12345",
        "abc",
        "**Real**::",
        "third",
        "def",
    ]
    positions = [text.index(part) for part in parts]
    assert positions == sorted(positions)
    assert not list(tmp_path.iterdir())


def test_unchanged_page_is_not_rewritten(model_cards, tmp_path):
    page = tmp_path / "page.rst"
    model_cards._write(page, "text")
    before = page.stat().st_mtime_ns
    model_cards._write(page, "text")
    assert page.stat().st_mtime_ns == before
    model_cards._write(page, "other")
    assert page.read_text() == "other"


def test_architecture_picture_names_existing_modules(tmp_path):
    pictures = _module("pictures")
    pictures.draw_architecture(tmp_path / "architecture.png")
    assert (tmp_path / "architecture.png").stat().st_size > 20_000
    package = ROOT / "astrogenspec"
    text = " ".join(f"{name} {what}" for _, boxes in pictures._ROWS for name, what in boxes)
    for folder in re.findall(r"(\w+)/", text):
        assert (package / folder).is_dir(), folder
    for name in re.findall(
        r"(?<![\w/])(base|weights|flags|quantities|metrics|wavelengths)\b", text
    ):
        assert (package / f"{name}.py").exists(), name


def test_paths_in_contributing_guide_exist():
    text = (DOCS / "contributing.rst").read_text(encoding="utf-8")
    rows = text[text.index("Where would I add") : text.index("Documentation\n---")]
    for place in re.findall(r"``([\w/]+(?:\.py|/|\.json))``", rows):
        found = [ROOT / place, ROOT / "astrogenspec" / place]
        assert any(path.exists() for path in found), place
