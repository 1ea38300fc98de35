"""Fields of a dataclass have the text that the docstring of the class gives them, and have it once."""

from __future__ import annotations

import itertools
from typing import Any

from numpydoc.docscrape import NumpyDocString
from sphinx.pycode import ModuleAnalyzer

__all__ = ["setup"]


def setup(app: Any) -> dict[str, bool]:
    """Come before numpydoc, which replaces the sections of a docstring.

    Parameters
    ----------
    app : `sphinx.application.Sphinx`

    Returns
    -------
    dict of str to bool
    """
    app.connect("autodoc-process-docstring", _give_to_the_fields, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _give_to_the_fields(
    app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Document fields as if each had a comment of its own, and take their section out of the docstring."""
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
