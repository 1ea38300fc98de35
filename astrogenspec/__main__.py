"""``python -m astrogenspec``: the command line."""

from __future__ import annotations


def _run() -> int:
    from .cli import main

    return main()


if __name__ == "__main__":
    raise SystemExit(_run())
