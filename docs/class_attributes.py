"""Sphinx extension: document the fields of a dataclass with the text of the class docstring."""

from __future__ import annotations

import itertools
from typing import Any

from numpydoc.docscrape import NumpyDocString
from sphinx.pycode import ModuleAnalyzer

__all__ = ["setup"]


def setup(app: Any) -> dict[str, bool]:
    """Register the extension, to run before numpydoc replaces the sections of a docstring.

    Parameters
    ----------
    app : `sphinx.application.Sphinx`

    Returns
    -------
    dict of str to bool
    """
    app.connect("autodoc-process-docstring", _document_fields, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _document_fields(
    app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Move the descriptions of fields from the class docstring to the fields."""
    fields = set(getattr(obj, "__dataclass_fields__", ()))
    if what != "class" or not fields:
        return
    comments = ModuleAnalyzer.for_module(obj.__module__)
    comments.analyze()
    parsed = NumpyDocString("\n".join(lines))
    texts = {"Parameters": _texts(parsed["Parameters"]), "Attributes": _texts(parsed["Attributes"])}
    for field, text in (texts["Parameters"] | texts["Attributes"]).items():
        if field in fields:
            comments.attr_docs[obj.__qualname__, field] = text
    if set(texts["Attributes"]) <= fields:
        _remove(lines, "Attributes")


def _texts(section: list[Any]) -> dict[str, list[str]]:
    return {
        name.strip(): [*entry.desc, "", f":type: {entry.type.removesuffix(', optional')}"]
        for entry in section
        for name in entry.name.split(",")
    }


def _remove(lines: list[str], section: str) -> None:
    starts = [k for k, line in enumerate(lines[1:]) if line and not line.strip("-")]
    for start, end in itertools.pairwise([*starts, len(lines)]):
        if lines[start] == section:
            del lines[start:end]
            return
