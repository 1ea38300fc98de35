"""Build the distributions and test the wheel in an empty environment outside the source tree.

``python .ci/check_distribution.py`` requires the package ``build``; ``--out dist`` keeps the
distributions.  Checks:

1. the source distribution contains tests, documentation, licence and constraints, and no build
   products;
2. the wheel contains every file of the package, including weights and cards, and no other file;
3. the wheels built from the source distribution and from the source tree are identical;
4. in a new environment with only the wheel, in another folder: the version, both estimators with
   the bundled weights, the command line, and the quickstart of the documentation.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[1]

WANTED_IN_SDIST = (
    "CHANGES.rst",
    "CITATION.cff",
    "CODE_OF_CONDUCT.rst",
    "LICENSE.rst",
    "Makefile",
    "README.rst",
    "benchmarks/properties.py",
    "conftest.py",
    "constraints.txt",
    "docs/conf.py",
    "docs/quickstart.rst",
    "pyproject.toml",
    "recipes/README.rst",
    "recipes/train_weights.py",
    "setup.cfg",
    "tests/test_package.py",
)
#: Names of generated files and folders, at any depth.
GENERATED = ("__pycache__", "*.py[co]", "*.egg-info", ".*_cache", ".git", ".venv", ".tox", ".tmp")
#: Generated folders, relative to the root of the repository.
GENERATED_FOLDERS = (
    *("build", "dist", "results", "runs"),
    *("docs/_build", "docs/api", "docs/gallery", "docs/models", "docs/pictures"),
)

SMOKE_TEST = """
import astrogenspec
from pathlib import Path, PurePosixPath
assert Path(astrogenspec.__file__).is_relative_to({prefix!r}), astrogenspec.__file__
from astrogenspec import PropertyEstimator, SpectrumEstimator
from astrogenspec.demo import load_cutouts, load_galaxies
cutouts = load_cutouts()[0]
properties, spectra = PropertyEstimator.from_pretrained(), SpectrumEstimator.from_pretrained()
posterior = properties.predict(photometry=load_galaxies()[:2], n_draws=8, seed=1)
drawn = spectra.predict(photometry=load_galaxies()[:2], posterior=posterior, n_draws=2, seed=1)
print(posterior["redshift"].median(), drawn.best[0].flux.unit, len(cutouts))
"""


def main() -> int:
    """Run all checks and report problems.

    Returns
    -------
    int
        Exit status.
    """
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="folder in which the distributions are kept")
    parser.add_argument(
        "--no-isolation", action="store_true", help="build with the installed setuptools"
    )
    parser.add_argument(
        "--build-only", action="store_true", help="do not test the wheel in a new environment"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="astrogenspec-dist-") as name:
        folder = Path(name)
        out = (options.out or folder / "dist").resolve()
        wheel, problems = check_files(out, folder, isolated=not options.no_isolation)
        print(f"built {wheel.name}, {wheel.stat().st_size / 1e6:.1f} MB")
        if not problems and not options.build_only:
            use_wheel(wheel, folder)
    print(*problems, sep="\n")
    return 1 if problems else 0


def check_files(out: Path, folder: Path, *, isolated: bool) -> tuple[Path, list[str]]:
    """Build the distributions and compare their files with the source tree.

    Parameters
    ----------
    out, folder : `pathlib.Path`
        Folder of the distributions, and folder for temporary files.
    isolated : bool
        Whether to build in an isolated environment.

    Returns
    -------
    wheel : `pathlib.Path`
    problems : list of str
    """
    how = [] if isolated else ["--no-isolation"]
    # A copy excludes leftovers of earlier builds.
    source = folder / "source"
    shutil.copytree(ROOT, source, ignore=_generated_entries)
    before = set(out.glob("*"))
    # Without --sdist or --wheel, the wheel is built from the source distribution.
    _run(sys.executable, "-m", "build", *how, "--outdir", out, source)
    _run(sys.executable, "-m", "build", *how, "--wheel", "--outdir", folder / "tree", source)
    made = sorted(set(out.glob("*")) - before) or sorted(out.glob("*"))
    (sdist,) = (path for path in made if path.suffix == ".gz")
    (wheel,) = (path for path in made if path.suffix == ".whl")
    (other,) = (folder / "tree").glob("*.whl")
    shipped, contents = sdist_files(sdist), wheel_files(wheel)
    problems = [
        f"the sdist does not contain {name}" for name in WANTED_IN_SDIST if name not in shipped
    ]
    problems += [
        f"the sdist contains {name}"
        for name in sorted(shipped)
        if _is_generated(name) and not name.startswith("astrogenspec.egg-info/")
    ]
    package = {
        path.relative_to(ROOT).as_posix()
        for folder in ("astrogenspec", "rail")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and not _is_generated(path.relative_to(ROOT).as_posix())
    }
    inside = {name for name in contents if ".dist-info/" not in name}
    problems += [f"the wheel does not contain {name}" for name in sorted(package - inside)]
    problems += [f"the wheel contains {name}" for name in sorted(inside - package)]
    if not any(name.endswith("LICENSE.rst") for name in contents):
        problems.append("the wheel does not contain LICENSE.rst")
    again = wheel_files(other)
    problems += [
        f"{name} differs between the wheels of the sdist and of the source tree"
        for name in sorted(contents.keys() | again.keys())
        if contents.get(name) != again.get(name) and not name.endswith(".dist-info/RECORD")
    ]
    return wheel, problems


def sdist_files(path: Path) -> set[str]:
    """List the files of a source distribution, relative to its top folder.

    Parameters
    ----------
    path : `pathlib.Path`
        The ``.tar.gz``.

    Returns
    -------
    set of str
    """
    with tarfile.open(path) as archive:
        files = [member.name for member in archive.getmembers() if member.isfile()]
    return {name.partition("/")[2] for name in files}


def wheel_files(path: Path) -> dict[str, str]:
    """Compute hashes of the files of a wheel.

    Parameters
    ----------
    path : `pathlib.Path`
        The ``.whl``.

    Returns
    -------
    dict
        SHA-256 by name.
    """
    with zipfile.ZipFile(path) as archive:
        return {name: hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist()}


def use_wheel(wheel: Path, folder: Path) -> None:
    """Install the wheel in an empty environment and test it in another folder.

    Parameters
    ----------
    wheel : `pathlib.Path`
        Wheel to install.
    folder : `pathlib.Path`
        Empty folder for the environment.

    Raises
    ------
    subprocess.CalledProcessError
        If a step fails.
    """
    prefix, elsewhere = folder / "environment", folder / "elsewhere"
    elsewhere.mkdir()
    venv.create(prefix, with_pip=True)
    python = prefix / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    install = (python, "-m", "pip", "install", "--quiet")
    # torch is installed first, so that packages which depend on it use this build.
    _run(*install, "-c", ROOT / "constraints.txt", "torch")
    # A file that differs from the one with this hash is refused.
    _run(*install, "--require-hashes", "-r", ROOT / ".ci" / "requirements-wheel.txt")
    _run(*install, "--no-deps", wheel)
    _run(python, "-m", "pip", "check")
    for arguments in (("--version",), ("weights", "list"), ("weights", "show", "--quiet")):
        _run(python, "-W", "error", "-m", "astrogenspec", *arguments, cwd=elsewhere)
    _run(python, "-c", SMOKE_TEST.format(prefix=os.fspath(prefix.resolve())), cwd=elsewhere)
    quickstart = elsewhere / "quickstart.rst"
    quickstart.write_bytes((ROOT / "docs" / "quickstart.rst").read_bytes())
    flags = "doctest_optionflags=NORMALIZE_WHITESPACE ELLIPSIS FLOAT_CMP"
    doctest = ("--doctest-plus", "--doctest-rst", "-o", flags, "-c", os.devnull, "-rs")
    _run(python, "-m", "pytest", "-p", "no:cacheprovider", *doctest, quickstart, cwd=elsewhere)


def _is_generated(name: str) -> bool:
    """Whether a path relative to the root is generated, or lies in a generated folder."""
    path = PurePosixPath(name)
    inside = [path, *path.parents]
    return any(str(folder) in GENERATED_FOLDERS for folder in inside) or any(
        fnmatch.fnmatch(part, pattern) for part in path.parts for pattern in GENERATED
    )


def _generated_entries(folder: str, names: list[str]) -> list[str]:
    """List the entries of a folder that `shutil.copytree` must skip."""
    relative = Path(folder).relative_to(ROOT)
    return [name for name in names if _is_generated((relative / name).as_posix())]


def _run(*command: str | Path, cwd: Path | None = None) -> None:
    line = [os.fspath(part) for part in command]
    print("$", *(part if len(part) < 200 else "..." for part in line[:9]), flush=True)
    # Packages on the path of the caller must not be visible to the wheel.
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(line, check=True, cwd=cwd, env=variables)


if __name__ == "__main__":
    sys.exit(main())
