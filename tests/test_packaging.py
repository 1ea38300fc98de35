"""Packaging: environments, workflows, minimum versions, citation and distributed files."""

import configparser
import fnmatch
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import astrogenspec

ROOT = Path(__file__).parents[1]
PACKAGE = Path(astrogenspec.__file__).parent
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = SETTINGS["project"]
EXTRAS = PROJECT["optional-dependencies"]
TOX = configparser.ConfigParser(interpolation=None)
TOX.read(ROOT / "setup.cfg")

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml"))
YAML = [
    *WORKFLOWS,
    *FORMS,
    ROOT / ".github" / "ISSUE_TEMPLATE" / "config.yml",
    ROOT / ".github" / "dependabot.yml",
    ROOT / ".pre-commit-config.yaml",
    ROOT / ".readthedocs.yaml",
    ROOT / "CITATION.cff",
]


def read(path):
    return yaml.safe_load(path.read_text())


def name_of(requirement):
    return re.match(r"[\w.-]+", requirement)[0].lower()


def minimum(requirement):
    """Return name and lower limit of a requirement."""
    return name_of(requirement), re.search(r">=([\d.]+)", requirement)[1]


def expand(name):
    """Expand {a,b} in a name of the tox envlist."""
    found = re.search(r"\{([^}]*)\}", name)
    if found is None:
        return [name]
    return [
        each
        for factor in found[1].split(",")
        for each in expand(name[: found.start()] + factor + name[found.end() :])
    ]


def environments():
    lines = TOX["tox:tox"]["envlist"].split()
    return {name for line in lines for name in expand(line)}


def factor_lines(key, factor):
    lines = (line.partition(": ") for line in TOX["testenv"][key].splitlines() if line)
    return [value for head, _, value in lines if head == factor]


def steps(workflow):
    return [step for job in read(workflow)["jobs"].values() for step in job["steps"]]


def test_environments_exist():
    wanted = {f"py{version}-test" for version in (311, 312, 313)}
    wanted |= {f"py311-test-{factor}" for factor in ("oldestdeps", "devdeps", "cov")}
    wanted |= {"build_docs", "codestyle", "linkcheck", "repo-review", "typing", "wheel"}
    assert environments() == wanted


def test_python_versions_agree():
    prefix = "Programming Language :: Python :: 3."
    minors = [int(c.removeprefix(prefix)) for c in PROJECT["classifiers"] if c.startswith(prefix)]
    assert PROJECT["requires-python"] == f">=3.{min(minors)}"
    assert {f"py3{minor}-test" for minor in minors} <= environments()
    matrix = read(ROOT / ".github/workflows/ci.yml")["jobs"]["tests"]["strategy"]["matrix"]
    assert {f"3.{minor}" for minor in minors} == {row["python"] for row in matrix["include"]}


def test_minimum_versions_are_tested_by_oldestdeps():
    extras = TOX["testenv"]["extras"].split()
    assert {"test", "plot", "simulate"} <= set(extras)
    stated = [*PROJECT["dependencies"], *(r for extra in extras for r in EXTRAS[extra])]
    lines = factor_lines("deps", "oldestdeps")
    pins = dict(line.split("==") for line in lines if "==" in line)
    installed = {name.lower(): pin.removesuffix(".*") for name, pin in pins.items()}
    assert installed == dict(minimum(requirement) for requirement in stated)


@pytest.mark.parametrize("extra", sorted(EXTRAS))
def test_every_requirement_has_a_lower_limit(extra):
    own = [r for r in EXTRAS[extra] if not r.startswith("astrogenspec[")]
    assert [r for r in own if ">=" not in r] == []
    joined = re.findall(r"astrogenspec\[([\w,]+)\]", " ".join(EXTRAS[extra]))
    assert {name for names in joined for name in names.split(",")} <= set(EXTRAS)


@pytest.mark.parametrize("path", YAML, ids=lambda path: path.name)
def test_yaml_is_valid(path):
    assert isinstance(read(path), dict)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow_jobs_have_time_limits(path):
    workflow = read(path)
    # YAML 1.1 reads the key "on" as a truth value.
    assert workflow["name"]
    assert workflow[True]
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 60
        assert job["runs-on"]
    assert all(("uses" in step) != ("run" in step) for step in steps(path))
    for step in steps(path):
        if "uses" in step:
            assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step["uses"]), step["uses"]


def test_workflows_run_existing_environments():
    matrix = read(ROOT / ".github/workflows/ci.yml")["jobs"]["tests"]["strategy"]["matrix"]
    run = {row["env"] for row in matrix["include"]}
    for path in WORKFLOWS:
        for step in steps(path):
            run.update(re.findall(r"tox run -e (\w[\w-]*)", step.get("run", "")))
    assert run <= environments()
    # Every environment is run by a workflow.
    covered = {"py311-test-cov": "py311-test"}
    assert environments() - run - {covered[name] for name in run & covered.keys()} == set()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_scripts_called_by_workflows_exist(path):
    text = "\n".join(step.get("run", "") for step in steps(path))
    for script in re.findall(r"\S+\.(?:py|sh)\b", text):
        assert (ROOT / script).is_file(), f"{path.name} calls {script}, which is not there"


def test_only_the_publishing_job_has_an_identity_token():
    jobs = read(ROOT / ".github/workflows/release.yml")["jobs"]
    assert {name for name, job in jobs.items() if "permissions" in job} == {"publish"}
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert jobs["publish"]["needs"] == "build"
    assert read(ROOT / ".github/workflows/release.yml")[True]["push"] == {"tags": ["v*"]}


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_issue_forms_are_complete(path):
    form = read(path)
    assert {"name", "description", "body"} <= set(form)
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert any(field["validations"]["required"] for field in fields)
    ids = [field["id"] for field in fields]
    assert len(set(ids)) == len(ids)
    assert all(field["attributes"]["label"] for field in fields)


@pytest.mark.parametrize("tool", ["ruff", "mypy", "codespell", "zizmor"])
def test_tool_versions_are_the_same_everywhere(tool):
    hooks = {repo["repo"]: repo["rev"] for repo in read(ROOT / ".pre-commit-config.yaml")["repos"]}
    (rev,) = (rev for repo, rev in hooks.items() if tool in repo)
    assert f"{tool}=={rev.removeprefix('v')}" in (ROOT / "constraints.txt").read_text().split()


def test_hashed_requirements_have_the_tested_versions():
    lines = (ROOT / ".ci" / "requirements-wheel.txt").read_text().splitlines()
    pins = [line.split()[0] for line in lines if line[0] not in " #"]
    tested = (ROOT / "constraints.txt").read_text().lower().replace("_", "-").split()
    # colorama is a dependency on Windows only, where the versions are not recorded.
    assert [pin for pin in pins if pin not in tested and not pin.startswith("colorama")] == []
    named = {pin.partition("==")[0] for pin in pins} | {"torch"}
    assert {name_of(requirement) for requirement in PROJECT["dependencies"]} <= named
    starts = [k for k, line in enumerate(lines) if line[0] not in " #"]
    assert all("--hash=sha256:" in lines[k + 1] for k in starts)


def test_documentation_is_built_strictly():
    built = read(ROOT / ".readthedocs.yaml")
    assert built["sphinx"]["fail_on_warning"] is True
    assert (ROOT / built["sphinx"]["configuration"]).is_file()
    assert set(built["python"]["install"][0]["extra_requirements"]) <= set(EXTRAS)
    assert "-W" in TOX["testenv:build_docs"]["commands"].split()


def test_warnings_are_errors_and_markers_are_strict(pytestconfig):
    pytest_settings = TOX["tool:pytest"]
    assert pytest_settings["filterwarnings"].split("\n")[1] == "error"
    markers = "\n".join(pytestconfig.getini("markers"))
    assert "slow:" in markers
    assert "remote_data" in markers
    assert float(TOX["coverage:report"]["fail_under"]) >= 90


def test_citation_file_is_complete():
    cff = read(ROOT / "CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= set(cff)
    assert cff["cff-version"] == "1.2.0"
    assert cff["type"] == "software"
    assert cff["license"] == PROJECT["license"]
    assert str(cff["version"]) == PROJECT["version"]
    assert [a["name"] for a in cff["authors"]] == [a["name"] for a in PROJECT["authors"]]
    assert cff["title"] in astrogenspec.__citation__


def test_every_file_of_the_package_is_shipped():
    patterns = {
        PACKAGE.joinpath(*package.split(".")[1:]): globs
        for package, globs in SETTINGS["tool"]["setuptools"]["package-data"].items()
    }
    files = [p for p in PACKAGE.rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")]
    assert PACKAGE / "py.typed" in files
    for path in files:
        assert any(
            path.is_relative_to(folder)
            and any(fnmatch.fnmatch(path.relative_to(folder).as_posix(), glob) for glob in globs)
            for folder, globs in patterns.items()
        ), f"{path.relative_to(PACKAGE)} matches no pattern of package-data"


def test_every_folder_of_code_is_a_package():
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").is_file()] == []


@pytest.mark.slow
def test_contents_of_the_distributions(tmp_path):
    script = ROOT / ".ci" / "check_distribution.py"
    run = subprocess.run(
        [sys.executable, script, "--build-only", "--out", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    assert len(list(tmp_path.iterdir())) == 2
