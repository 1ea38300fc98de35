"""Sphinx extension: formulas as MathML, and links to objects by their short names."""

from __future__ import annotations

import re
from functools import reduce
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

import astrogenspec

__all__ = ["setup"]

#: Size commands, which MathML does not need: its brackets grow automatically.
_SIZES = re.compile(r"\\[bB]igg?[lr]?(?![a-zA-Z])")


def setup(app: Any) -> dict[str, bool]:
    """Register the renderer of formulas and the resolver of links.

    Parameters
    ----------
    app : `sphinx.application.Sphinx`

    Returns
    -------
    dict of str to bool
    """
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    app.connect("missing-reference", _by_short_name)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _inline(writer: Any, node: nodes.math) -> None:
    # Browsers draw MathML without scripts, so that formulas work offline.
    writer.body.append(_mathml(node))
    raise nodes.SkipNode


def _block(writer: Any, node: nodes.math_block) -> None:
    formula = _mathml(node, as_block=True)
    writer.body.append(writer.starttag(node, "div", CLASS="math") + formula + "</div>\n")
    raise nodes.SkipNode


def _mathml(node: nodes.Element, *, as_block: bool = False) -> str:
    tex = _SIZES.sub("", node.astext()).replace(r"\dots", r"\ldots")
    return tex2mathml(tex, as_block=as_block)


def _by_short_name(app: Any, env: Any, node: nodes.Element, content: nodes.Node) -> Any:
    """Resolve ``astrogenspec.Posterior`` to the module that defines and documents it."""
    package, _, rest = node.get("reftarget", "").partition(".")
    if package != astrogenspec.__name__ or node.get("refdomain") != "py":
        return None
    try:
        found = reduce(getattr, rest.split("."), astrogenspec)
        name = f"{found.__module__}.{found.__qualname__}"
    except AttributeError:
        return None
    domain = env.get_domain("py")
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", name, node, content)
