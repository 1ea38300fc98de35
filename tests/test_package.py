"""Tests of the whole package: import cost, public names, import rules, layout, bundled files."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
from numpydoc.validate import validate

import astrogenspec
from astrogenspec import _moved
from astrogenspec.weights import DEFAULT_MODEL, fetch_weights, list_models

ROOT = Path(__file__).parents[1]
PACKAGE = Path(astrogenspec.__file__).parent
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = SETTINGS["project"]

HEAVY = ("torch", "zuko", "specutils", "photutils", "scipy", "matplotlib", "h5py", "pooch")
#: Parts that may import packages of the extras at module level.
WITH_EXTRAS = ("simulate", "plotting", "distributed/rail.py")


def name_of(path):
    """Dotted name of a module, without the name of the package."""
    return path.removesuffix(".py").removesuffix("__init__").rstrip("/").replace("/", ".")


def scan(source, path):
    """List the imports of a module as (name, at module level); a dot marks the package itself."""
    package = (
        name_of(path).split(".") if path.endswith("/__init__.py") else name_of(path).split(".")[:-1]
    )
    found = []

    def visit(node, top):
        if isinstance(node, ast.Import):
            found.extend((alias.name, top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            stem = package[: len(package) - node.level + 1] if node.level else []
            stem = [*stem, node.module] if node.module else stem
            names = (".".join([*stem, alias.name]) for alias in node.names)
            found.extend(("." + name if node.level else name, top) for name in names)
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        inner = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, top and not inner and not typing_only)

    visit(ast.parse(source), True)
    ours = re.compile(r"^astrogenspec(?=\.|$)")
    return [(ours.sub("", name) or ".", top) for name, top in found]


@cache
def imports(path):
    return scan((PACKAGE / path).read_text(), path)


def imports_part(name, part):
    return name == f".{part}" or name.startswith(f".{part}.")


def broken_rules(path, found):
    """Return the layout rules that the imports of a module break."""
    part = name_of(path).split(".")[0]
    for name, top in found:
        for one, other in (("inference", "generation"), ("generation", "inference")):
            if part == one and imports_part(name, other):
                yield f"{one} imports {name}"
        if part in ("inference", "generation") and imports_part(name, "simulate"):
            yield f"{part} imports {name}"
        if part == "nn" and name.startswith(".") and not imports_part(name, "nn"):
            yield f"nn imports {name}"
        sees = ("measure", "results", "flags", "derived", "quantities", "synthetic")
        # Template fitting reads the stellar grid of the simulator when it is called.
        grid = not top and imports_part(name, "simulate.ssp")
        if (
            part == "measure"
            and name.startswith(".")
            and not grid
            and not any(imports_part(name, p) for p in sees)
        ):
            yield f"measure imports {name}"
        for outer in ("cli", "distributed", "plotting"):
            if top and part != outer and imports_part(name, outer):
                yield f"{name} is imported at module level"
        if name.split(".")[0] in ("bagpipes", "torchvision"):
            yield f"{name} is imported"


def test_import_is_cheap():
    code = f"import astrogenspec, sys; dir(astrogenspec); print(*(set({HEAVY}) & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


@pytest.mark.parametrize("name", astrogenspec.__all__)
def test_public_names_are_importable(name):
    assert getattr(astrogenspec, name) is not None
    assert name in dir(astrogenspec)


def test_unknown_name_raises_attribute_error():
    with pytest.raises(AttributeError, match="'astrogenspec' has no attribute 'Spectra'"):
        _ = astrogenspec.Spectra


@pytest.mark.parametrize("path", MODULES)
def test_import_rules(path):
    assert list(broken_rules(path, imports(path))) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("inference/a.py", "from ..generation import x"),
        ("inference/a.py", "from .. import simulate"),
        ("inference/a.py", "def f():\n    from ..simulate.priors import load_priors"),
        ("generation/a.py", "import astrogenspec.inference.flows"),
        ("nn/a.py", "from ..surveys import BANDS"),
        ("nn/__init__.py", "from ..surveys import BANDS"),
        ("measure/lines.py", "from ..weights import fetch_weights"),
        ("results/posterior.py", "from .. import plotting"),
        ("results/posterior.py", "class A:\n    from ..plotting import corner"),
        ("training/loop.py", "from astrogenspec.cli import main"),
        ("simulate/ssp.py", "def f():\n    import bagpipes"),
    ],
)
def test_scan_finds_forbidden_imports(path, source):
    assert list(broken_rules(path, scan(source, path)))


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("inference/a.py", "from .flows import x\nfrom ..nn import y"),
        ("nn/a.py", "from .layers import x\nimport torch"),
        ("nn/__init__.py", "from .layers import x"),
        ("measure/lines.py", "from ..results.spectra import SpectrumDraws"),
        ("results/posterior.py", "def f():\n    from ..plotting import corner"),
        ("results/posterior.py", "if TYPE_CHECKING:\n    from ..plotting import corner"),
    ],
)
def test_scan_accepts_allowed_imports(path, source):
    assert not list(broken_rules(path, scan(source, path)))


def modules_of(name):
    """Return the paths of the modules of the package loaded by an import of a dotted name."""
    parts = name.strip(".").split(".")
    for k in range(len(parts) + 1):
        stem = "/".join(parts[:k])
        yield from {f"{stem}.py", f"{stem}/__init__.py".lstrip("/")}.intersection(MODULES)


def all_imports(path):
    """Return the modules of the package imported by a module, also in functions and for types."""
    return {
        other
        for name, _ in imports(path)
        if name.startswith(".")
        for other in modules_of(name)
        # A package is loaded before its modules, and is no dependency of theirs.
        if other != path and not other.endswith("__init__.py")
    }


def is_plot_hook(path, other):
    """Return whether an import is that of a figure or page of results, which is allowed."""
    return path.startswith("results/") and other.startswith(("plotting/", "view/"))


def reached(path, graph):
    seen, waiting = set(), [path]
    while waiting:
        for other in graph[waiting.pop()] - seen:
            seen.add(other)
            waiting.append(other)
    return seen


def test_there_is_no_circle_of_imports():
    graph = {
        path: {other for other in all_imports(path) if not is_plot_hook(path, other)}
        for path in MODULES
    }
    assert [path for path in MODULES if path in reached(path, graph)] == []


#: Parts of the layout; a part imports only parts of its own row and of the rows above it.
LAYERS = (
    (
        "atomic",
        "cards",
        "downloads",
        "extras",
        "nn",
        "flags",
        "fits_files",
        "warnings",
        "surveys",
        "cosmology",
        "wavelengths",
        "quantities",
        "_moved",
    ),
    ("derived", "synthetic", "weights"),
    ("inputs", "base"),
    ("results",),
    ("metrics", "measure", "calibration"),
    ("simulate", "training"),
    ("plotting",),
    ("reports",),
    ("inference", "generation"),
    ("datasets",),
    ("demo", "view"),
    ("distributed",),
    ("cli", "serve", "__main__"),
)
#: Imports of a higher layer that are allowed, each with its reason.
BACK_IMPORTS = {
    (
        "measure/templates.py",
        "simulate/ssp.py",
    ): "template fits read the stellar grid of the simulator",
}


def test_imports_go_down_the_layers():
    height = {part: level for level, parts in enumerate(LAYERS) for part in parts}
    back = set()
    for path in MODULES:
        part = name_of(path).split(".")[0]
        if not part:
            continue
        for other in all_imports(path):
            above = name_of(other).split(".")[0]
            if height[above] > height[part] and not is_plot_hook(path, other):
                back.add((path, other))
    assert back == set(BACK_IMPORTS)
    assert len(back) <= 2


def test_every_part_has_a_layer():
    parts = {name_of(path).split(".")[0] for path in MODULES} - {""}
    assert parts == {part for layer in LAYERS for part in layer}


def test_inference_needs_no_extras():
    """Property inference imports neither the simulator nor an optional package."""
    waiting = [path for path in MODULES if path.startswith(("inference/", "results/"))]
    seen, outside = set(), set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        for name, top in imports(path):
            if not top:
                continue
            if not name.startswith("."):
                outside.add(name.split(".")[0])
                continue
            waiting.extend(modules_of(name))
    assert "inference/estimator.py" in seen
    assert not [path for path in seen if path.startswith("simulate/")]
    core = {re.split(r"[<>=]", requirement)[0] for requirement in PROJECT["dependencies"]}
    assert outside - set(sys.stdlib_module_names) <= core


@pytest.mark.parametrize("path", [p for p in MODULES if not p.startswith(WITH_EXTRAS)])
def test_packages_of_the_extras_are_imported_late(path):
    core = {re.split(r"[<>=]", requirement)[0] for requirement in PROJECT["dependencies"]}
    top = {name.split(".")[0] for name, at_top in imports(path) if at_top and name[0] != "."}
    assert top - set(sys.stdlib_module_names) <= core


def documented(path):
    """Names of the public objects that a module defines, and of their public methods."""
    name = f"astrogenspec.{name_of(path)}".rstrip(".")
    if path == "distributed/rail.py":
        # RAIL, which may not be installed, writes the docstrings of its stages.
        return
    module = importlib.import_module(name)
    for public in getattr(module, "__all__", ()):
        found = getattr(module, public)
        if getattr(found, "__module__", None) != name or not callable(found):
            continue
        yield f"{name}.{public}"
        if inspect.isclass(found):
            own = (
                (key, inspect.unwrap(getattr(found, key))) for key in vars(found) if key[0] != "_"
            )
            yield from (f"{name}.{public}.{key}" for key, value in own if inspect.isroutine(value))


@pytest.mark.parametrize("path", MODULES)
def test_docstrings_name_the_parameters(path):
    codes = SETTINGS["tool"]["numpydoc_validation"]["checks"]
    errors = {name: validate(name)["errors"] for name in documented(path)}
    wrong = [f"{name}: {text}" for name, es in errors.items() for code, text in es if code in codes]
    assert wrong == []


@cache
def tree(path):
    return ast.parse((PACKAGE / path).read_text())


def functions(path):
    """Return the functions of a module as (name, lines without docstring, number of arguments)."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            lines = node.end_lineno - body[0].lineno + 1 if body else 0
            arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
            yield node.name, lines, len(arguments)


def lines_of(path):
    return (PACKAGE / path).read_text().splitlines()


def code_lines(path):
    """Number of lines that are neither blank, nor comment, nor docstring."""
    documented = set()
    for node in ast.walk(tree(path)):
        kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        if isinstance(node, kinds) and ast.get_docstring(node) is not None:
            documented |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return sum(
        bool(line.strip()) and not line.lstrip().startswith("#") and k not in documented
        for k, line in enumerate(lines_of(path), 1)
    )


def test_modules_are_short():
    assert {path: code_lines(path) for path in MODULES if code_lines(path) > 600} == {}


def test_no_method_annotates_self():
    """Methods that need the attributes of a class belong to it: no ``self: _Protocol``."""
    assert [
        f"{path}: {node.name}"
        for path in MODULES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef)
        and node.args.args
        and node.args.args[0].arg == "self"
        and node.args.args[0].annotation is not None
    ] == []


def test_functions_are_short():
    assert [
        f"{path}: {name} has {lines} lines"
        for path in MODULES
        for name, lines, _ in functions(path)
        if lines > 60
    ] == []


def test_constructors_take_few_arguments():
    """Count the arguments except ``self``; records are exempt from the limit."""
    assert [
        f"{path}: a constructor takes {n - 1} arguments"
        for path in MODULES
        for name, _, n in functions(path)
        if name == "__init__" and n > 9 and path != "results/spectrum_arrays.py"
    ] == []


def test_module_names_are_specific():
    vague = {"utils", "util", "helpers", "misc", "common", "tools", "core"}
    assert [path for path in MODULES if vague & set(name_of(path).split("."))] == []


def is_public(node):
    return isinstance(node, ast.Assign) and "__all__" in map(ast.unparse, node.targets)


def test_modules_are_uniform():
    wrong = []
    for path in MODULES:
        source, body = "\n".join(lines_of(path)), tree(path).body
        if not ast.get_docstring(tree(path)):
            wrong.append(f"{path} has no docstring")
        if re.search(r"^ *(?:from|import) astrogenspec\b", source, re.M):
            wrong.append(f"{path} imports the package by its name")
        if len(body) == 1 or path == "__main__.py":
            continue
        if "from __future__ import annotations" not in source:
            wrong.append(f"{path} evaluates its annotations")
        if not any(is_public(node) for node in body):
            wrong.append(f"{path} does not define __all__")
    assert wrong == []


LEFTOVER = re.compile(r"\b(?:TO" r"DO|FIX" r"ME|X" r"XX|breakpoint\(\)|pdb)\b")


def test_no_leftover_marks():
    assert [
        f"{path}:{k}: {line}"
        for path in MODULES
        for k, line in enumerate(lines_of(path), 1)
        if LEFTOVER.search(line)
    ] == []


def test_layout_is_that_of_the_design():
    modules = {
        "atomic",
        "base",
        "cards",
        "cosmology",
        "demo",
        "derived",
        "downloads",
        "extras",
        "fits_files",
        "flags",
        "metrics",
        "quantities",
        "synthetic",
    }
    modules |= {"warnings", "wavelengths", "weights", "__init__", "__main__", "_moved"}
    folders = {
        "calibration",
        "cli",
        "data",
        "datasets",
        "distributed",
        "generation",
        "inference",
        "inputs",
        "measure",
        "nn",
    }
    folders |= {"plotting", "reports", "results", "serve", "simulate", "surveys", "training"}
    folders |= {"view"}
    wanted = {f"{name}.py" for name in modules} | folders | {"py.typed"}
    there = {path.name for path in PACKAGE.iterdir()} - {"__pycache__"}
    assert there == wanted, "describe a new part in the layout and in the contributing guide"


def test_tests_mirror_the_package():
    folders = {path.parent for path in (ROOT / "tests").rglob("test_*.py")}
    for folder in folders:
        part = folder.relative_to(ROOT / "tests")
        assert (PACKAGE / part).is_dir(), f"tests/{part} tests no part of the package"


@pytest.mark.parametrize("old", sorted(_moved.MOVED))
def test_moved_modules_are_found_under_their_old_names(old):
    new = _moved.MOVED[old]
    module = importlib.import_module(f"astrogenspec.{old}")
    assert module is importlib.import_module(f"astrogenspec.{new}")
    assert module.__name__ == f"astrogenspec.{new}"


def test_version_is_the_same_everywhere():
    assert PROJECT["version"] == astrogenspec.__version__
    assert f"version: {astrogenspec.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"{{{astrogenspec.__version__}}}" in astrogenspec.__citation__


def test_tested_versions_are_pinned():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.split("==")[0].lower() for line in lines if "==" in line}
    extras = [
        r for extra, rs in PROJECT["optional-dependencies"].items() if extra != "all" for r in rs
    ]
    wanted = {re.split(r"[<>=\[]", r)[0].lower() for r in PROJECT["dependencies"] + extras}
    assert wanted <= pinned
    assert "torchvision" not in pinned


def test_default_model_is_bundled():
    models = list_models()
    assert DEFAULT_MODEL in list(models["name"][models["where"] == "bundled"])


def test_bundled_models_are_complete_and_small():
    models = list_models()
    for name in models["name"][models["where"] == "bundled"]:
        path, card = fetch_weights(str(name)).path, fetch_weights(str(name)).card
        assert path.stat().st_size <= 16e6
        assert card["licence"]
