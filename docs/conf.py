"""Settings of the documentation, on top of those that astropy's packages share."""

import tomllib
from pathlib import Path

from sphinx_astropy.conf.v3 import *  # noqa: F403

_project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]

project = _project["name"]
author = _project["authors"][0]["name"]
copyright = f"2026, {author}"
release = _project["version"]
version = release.rsplit(".dev", 1)[0]

html_title = f"{project} {release}"
html_theme_options = {"logo": {"text": project}}
htmlhelp_basename = project
exclude_patterns = [*exclude_patterns, "api/.*"]  # noqa: F405

automodapi_toctreedirnm = "api"
automodsumm_inherited_members = False
numpydoc_show_class_members = False
autodoc_typehints = "none"
