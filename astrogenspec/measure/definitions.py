"""The tables of lines and index bands that come with the package."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import cache
from importlib.resources import as_file, files

from astropy.table import QTable

__all__ = ["checked_names", "definition_table", "index_definitions", "line_definitions"]


def line_definitions() -> QTable:
    """Give the table of emission lines.

    Returns
    -------
    `~astropy.table.QTable`
        Columns ``name``, ``label``, ``wavelength`` (vacuum), ``group`` (lines that share velocity and width),
        ``tied_to`` and ``ratio`` (flux as a fixed share of another line), ``default``, ``source``.
    """
    return definition_table("lines").copy()


def index_definitions() -> QTable:
    """Give the table of spectral indices.

    Returns
    -------
    `~astropy.table.QTable`
        Columns ``name``, ``kind`` (``Angstrom``, ``mag`` or ``ratio``), the limits of the central, blue and red bands
        (air) and ``source``.
    """
    return definition_table("indices").copy()


def checked_names(names: str | Sequence[str], known: Sequence[str], what: str) -> tuple[str, ...]:
    """Check names against those there are.

    Parameters
    ----------
    names : str or sequence of str
        What came.
    known : sequence of str
        What there is.
    what : str
        What they name, for the message: "line", "index".

    Returns
    -------
    tuple of str

    Raises
    ------
    TypeError
        If a name is not a string.
    ValueError
        If there are no names, or one is unknown or given twice.
    """
    chosen = (names,) if isinstance(names, str) else tuple(names)
    if not all(isinstance(name, str) for name in chosen):
        raise TypeError(f"the names are {chosen!r}; give strings, such as {known[0]!r}.")
    if not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(
            f"the names are {chosen!r}; give at least one {what}, and each of them once."
        )
    for name in chosen:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise ValueError(f"there is no {what} {name!r}{hint}; there are {', '.join(known)}.")
    return chosen


@cache
def definition_table(name: str) -> QTable:
    """Read a table of the package.

    Parameters
    ----------
    name : str
        ``lines``, ``indices``, ``redshift_emission`` or ``redshift_absorption``.

    Returns
    -------
    `~astropy.table.QTable`
        Shared by all callers: not to be changed.
    """
    with as_file(files(__package__) / "tables" / f"{name}.ecsv") as path:
        return QTable.read(path, format="ascii.ecsv")
