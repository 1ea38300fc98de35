"""Settings of the documentation, based on the shared configuration of sphinx-astropy."""

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
# The plain theme: the one that sphinx-astropy sets has the header, links and statistics of
# astropy.org.
html_theme = "pydata_sphinx_theme"
html_theme_options = {
    "logo": {"text": project},
    "navbar_align": "left",
    "navbar_end": ["version-switcher", "theme-switcher", "navbar-icon-links"],
    "show_toc_level": 2,
    # Served as /dev/, /stable/, /1.0/, ... of one host; add a line to _static/switcher.json for
    # each release.
    "switcher": {
        "json_url": "_static/switcher.json",
        "version_match": "dev" if "dev" in release else version,
    },
}
html_favicon = None
html_sidebars = {"index": [], "**": ["globaltoc.html"]}
html_static_path = ["_static"]
html_css_files = ["astrogenspec.css"]
htmlhelp_basename = project
exclude_patterns = [*exclude_patterns, "api/.*", "tutorials"]  # noqa: F405

automodapi_toctreedirnm = "api"
automodsumm_inherited_members = False
numpydoc_show_class_members = False
autodoc_typehints = "none"
# Attributes are described by their docstrings; the default value of a dataclass field is not shown.
autodoc_default_options = {"no-value": True}

# Tutorials run in the build; a failing tutorial fails the build.
extensions = [*extensions, "sphinx_gallery.gen_gallery", "html_extras", "class_attributes"]  # noqa: F405
html_math_renderer = "mathml"
sphinx_gallery_conf = {
    "examples_dirs": "tutorials",
    "gallery_dirs": "gallery",
    "filename_pattern": r"/\d\d_",
    "within_subsection_order": "FileNameSortKey",
    "image_scrapers": ("matplotlib",),
    # Show tables and posteriors, but not the return values of matplotlib.
    "capture_repr": ("_repr_html_",),
    "doc_module": ("astrogenspec",),
    "show_signature": False,
    "remove_config_comments": True,
    "write_computation_times": False,
}
# Progress bars do not belong in captured output.
os.environ.setdefault("TQDM_DISABLE", "1")


def _draw_and_write(app):
    """Draw the pictures and write the model pages before sources are read."""
    from model_cards import write_model_pages
    from pictures import draw_architecture, draw_other_filters, draw_overview

    pictures = Path(app.srcdir) / "pictures"
    pictures.mkdir(exist_ok=True)
    draw_overview(pictures)
    draw_architecture(pictures / "architecture.png")
    draw_other_filters(pictures / "other-filters.png")
    write_model_pages(Path(app.srcdir) / "models")


def setup(app):
    """Register the generation of pictures and model pages."""
    app.connect("builder-inited", _draw_and_write, priority=100)
