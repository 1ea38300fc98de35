"""Settings of the documentation, on top of those that astropy's packages share."""

import os
import sys
import tomllib
from pathlib import Path

from sphinx_astropy.conf.v3 import *  # noqa: F403

_here = Path(__file__).parent
sys.path.insert(0, str(_here))
_project = tomllib.loads((_here.parent / "pyproject.toml").read_text())["project"]

project = _project["name"]
author = _project["authors"][0]["name"]
copyright = f"2026, {author}"
release = _project["version"]
version = release.rsplit(".dev", 1)[0]

html_title = f"{project} {release}"
html_theme_options = {"logo": {"text": project}}
html_static_path = ["_static"]
html_css_files = ["astrogenspec.css"]
htmlhelp_basename = project
exclude_patterns = [*exclude_patterns, "api/.*", "tutorials"]  # noqa: F405

automodapi_toctreedirnm = "api"
automodsumm_inherited_members = False
numpydoc_show_class_members = False
autodoc_typehints = "none"
# Attributes are explained by their docstrings; what a field of a dataclass is set to says nothing.
autodoc_default_options = {"no-value": True}

# Tutorials run in the build; one that fails, fails the build.
extensions = [*extensions, "sphinx_gallery.gen_gallery", "html_extras", "class_attributes"]  # noqa: F405
html_math_renderer = "mathml"
sphinx_gallery_conf = {
    "examples_dirs": "tutorials",
    "gallery_dirs": "gallery",
    "filename_pattern": r"/\d\d_",
    "within_subsection_order": "FileNameSortKey",
    "image_scrapers": ("matplotlib",),
    # Tables and posteriors show themselves; what matplotlib returns is of no interest.
    "capture_repr": ("_repr_html_",),
    "doc_module": ("astrogenspec",),
    "show_signature": False,
    "remove_config_comments": True,
    "write_computation_times": False,
}
# Progress bars are for a terminal.
os.environ.setdefault("TQDM_DISABLE", "1")


def _draw_and_write(app):
    """Make the pictures and the pages of the models before sources are read."""
    from model_cards import write_model_pages
    from pictures import draw_architecture, draw_overview

    pictures = Path(app.srcdir) / "pictures"
    pictures.mkdir(exist_ok=True)
    draw_overview(pictures)
    draw_architecture(pictures / "architecture.png")
    write_model_pages(Path(app.srcdir) / "models")


def setup(app):
    """Register what is made in the build."""
    app.connect("builder-inited", _draw_and_write, priority=100)
