"""The command line ``astrogenspec``: one module for each command."""

from __future__ import annotations

from .commands import main

__all__ = ["main"]
