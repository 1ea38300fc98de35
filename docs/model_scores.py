"""Titles, explanations and names of the scores in a card, from ``model_scores.toml``."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["named", "section"]

_TEXTS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


def named(key: str) -> str:
    """Return the name of an entry of a card as shown on a page."""
    for phrase, text in _TEXTS["phrases"].items():
        key = key.replace(phrase, text)
    return _TEXTS["names"].get(key, key.replace("_", " "))


def section(card: Mapping[str, Any], key: str) -> tuple[str, str]:
    """Return title and explanation of an entry of the scores."""
    known = _TEXTS["properties" if "labels" in card else "spectra"].get(key, {})
    title = known.get("title", named(key).capitalize())
    measured = f"Measured with ``{known['command']}``; " if known else ""
    where = f'``metrics["{key}"]`` of the card.\n'
    return title, known.get("text", "").lstrip() + f"\n\n{measured}{where}"
