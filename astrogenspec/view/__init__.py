"""Interactive views of results: one self-contained page, made for people who look first.

`results_page` writes the page; `astrogenspec.Posterior.to_html` and the command ``astrogenspec
report`` call it. `survey_page` writes that of the result of a survey run. They need the packages of
the extra ``view``, which are imported only then.
"""

from __future__ import annotations

from .page import MAX_GALAXIES, NotebookPage, checked_page, page_text, results_page
from .survey_page import survey_page

__all__ = [
    "MAX_GALAXIES",
    "NotebookPage",
    "checked_page",
    "page_text",
    "results_page",
    "survey_page",
]
