"""Tables of emission lines and index bands."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import cache
from importlib.resources import as_file, files

from astropy.table import QTable

__all__ = ["checked_names", "definition_table", "index_definitions", "line_definitions"]


def line_definitions() -> QTable:
    """Return the table of emission lines.

    Returns
    -------
    `~astropy.table.QTable`
        Columns ``name``, ``label``, ``wavelength`` (vacuum), ``group`` (lines that share velocity
        and width), ``tied_to`` and ``ratio`` (fixed flux ratio to another line), ``default``,
        ``source``.
    """
    return definition_table("lines").copy()


def index_definitions() -> QTable:
    """Return the table of spectral indices.

    Returns
    -------
    `~astropy.table.QTable`
        Columns ``name``, ``kind`` (``Angstrom``, ``mag`` or ``ratio``), the limits of the central,
        blue and red bands (air wavelengths) and ``source``.
    """
    return definition_table("indices").copy()


def checked_names(names: str | Sequence[str], known: Sequence[str], what: str) -> tuple[str, ...]:
    """Validate names given by the user.

    Parameters
    ----------
    names : str or sequence of str
        Names to check.
    known : sequence of str
        Valid names.
    what : str
        Noun for the error message, such as "line" or "index".

    Returns
    -------
    tuple of str

    Raises
    ------
    TypeError
        If a name is not a string.
    ValueError
        If the names are empty, or a name is unknown or repeated.
    """
    chosen = (names,) if isinstance(names, str) else tuple(names)
    if not all(isinstance(name, str) for name in chosen):
        raise TypeError(f"the names are {chosen!r}; give strings, such as {known[0]!r}.")
    if not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(f"the names are {chosen!r}; give at least one {what}, without repetition.")
    for name in chosen:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise ValueError(f"unknown {what} {name!r}{hint}; choose from {', '.join(known)}.")
    return chosen


@cache
def definition_table(name: str) -> QTable:
    """Read a bundled table.

    Parameters
    ----------
    name : {"lines", "indices", "redshift_emission", "redshift_absorption"}
        Name of the table.

    Returns
    -------
    `~astropy.table.QTable`
        Cached and shared by all callers; do not modify.
    """
    with as_file(files(__package__) / "tables" / f"{name}.ecsv") as path:
        return QTable.read(path, format="ascii.ecsv")
