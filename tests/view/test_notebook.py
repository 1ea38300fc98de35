"""Tests of pages in notebooks."""

import html

from view_cases import HOSTILE, shown_posterior


def test_explore_is_the_page_in_a_frame():
    posterior, _ = shown_posterior(3)
    shown = posterior.explore(title="three galaxies", height=500)
    markup = shown._repr_html_()
    assert markup.startswith('<iframe srcdoc="')
    assert "height:500px" in markup
    inside = markup.split('srcdoc="')[1].split('"')[0]
    assert html.unescape(inside) == shown.text
    assert "<title>three galaxies</title>" in shown.text
    assert HOSTILE not in shown.text
    assert repr(shown).startswith("<NotebookPage of 1.")
