"""Actions of options of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

__all__ = ["JoinNames"]


class JoinNames(argparse.Action):
    """Join the names of a repeated option with commas: ``--survey lsst --survey euclid``.

    The first use replaces the default.
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Add a name."""
        marker = f"_{self.dest}_names"
        names = [*getattr(namespace, marker, ()), values]
        setattr(namespace, marker, names)
        setattr(namespace, self.dest, ",".join(map(str, names)))
