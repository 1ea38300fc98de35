"""Base class of the results: names, flags, selection and concatenation of galaxies."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Self

import numpy as np

from .validation import (
    checked_flag_codes,
    checked_flags,
    checked_index,
    checked_named,
    checked_names,
    index_of_name,
)

__all__ = [
    "GalaxyDraws",
    "GalaxyIndex",
    "check_same_number_of_draws",
    "common_meta",
    "counted",
    "html_intervals",
]

#: What selects galaxies: a number, a slice, a boolean mask, or a list of numbers.
GalaxyIndex = int | slice | np.ndarray | Sequence[int]

_HTML_ROWS = 10


class GalaxyDraws:
    """Draws of a number of galaxies, which have names and flags.

    `~astrogenspec.Posterior` and `~astrogenspec.SpectrumDraws` are the public subclasses.  Objects
    are immutable: their arrays are read-only, and every selection returns a new object.

    Parameters
    ----------
    n_galaxies : int
        Number of galaxies.
    names : sequence of str, optional
        Names of the galaxies; "0", "1", ... by default.
    flags : sequence of str, optional
        Reason to distrust each galaxy; an empty string where nothing was found.
    flag_codes : array_like of int, shape (n_galaxies,), optional
        Codes of `~astrogenspec.flags.Flag`. By default ``Flag.TEXT_ONLY`` where ``flags`` has a
        text.
    meta : mapping, optional
        Provenance of the draws.
    named : array_like of bool, shape (n_galaxies,), optional
        Whether a galaxy has a name of its own, rather than only a number. By default True if
        ``names`` are given.

    Notes
    -----
    A subclass lists in ``_PER_GALAXY`` its attributes with one entry per galaxy: arrays, tables,
    dictionaries of arrays, or None.
    """

    _PER_GALAXY: ClassVar[tuple[str, ...]] = ("_names", "_flags", "_flag_codes", "_named")

    def __init__(
        self,
        n_galaxies: int,
        *,
        names: Sequence[str] | None = None,
        flags: Sequence[str] | None = None,
        flag_codes: Sequence[int] | np.ndarray | None = None,
        meta: Mapping[str, Any] | None = None,
        named: Sequence[bool] | np.ndarray | None = None,
    ) -> None:
        self._named = checked_named(named, names, n_galaxies)
        self._names = checked_names(names, n_galaxies)
        self._flags = checked_flags(flags, n_galaxies)
        self._flag_codes = checked_flag_codes(flag_codes, self._flags)
        self._meta = dict(meta or {})

    @property
    def n_galaxies(self) -> int:
        """Number of galaxies."""
        return len(self._names)

    @property
    def n_draws(self) -> int:
        """Number of draws per galaxy."""
        raise NotImplementedError

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the galaxies."""
        return tuple(self._names.tolist())

    @property
    def named(self) -> np.ndarray:
        """Whether a galaxy has a name, rather than only a number; bool, shape (n_galaxies,)."""
        return self._named

    @property
    def flags(self) -> tuple[str, ...]:
        """Reason to distrust each galaxy; an empty string where nothing was found."""
        return tuple(self._flags.tolist())

    @property
    def flag_codes(self) -> np.ndarray:
        """Flag code of each galaxy, int64, shape (n_galaxies,); 0 where nothing was found.

        Use `~astrogenspec.decode_flags` to list the names of the flags in a code.
        """
        return self._flag_codes

    @property
    def meta(self) -> Mapping[str, Any]:
        """Provenance of the draws (model, seed, ...), read-only."""
        return MappingProxyType(self._meta)

    def __len__(self) -> int:
        return self.n_galaxies

    def __iter__(self) -> Iterator[Self]:
        return (self._select(slice(row, row + 1)) for row in range(self.n_galaxies))

    def __repr__(self) -> str:
        n_flagged = np.count_nonzero(self._flag_codes)
        return (
            f"<{type(self).__name__}: {counted(self.n_galaxies, 'galaxy', 'galaxies')}, "
            f"{counted(self.n_draws, 'draw', 'draws')} of {self._contents()}"
            + (f"; {n_flagged} flagged>" if n_flagged else ">")
        )

    def _repr_html_(self) -> str:
        shown = self._select(slice(0, _HTML_ROWS))
        columns = shown._html_columns()
        heads = "".join(f"<th>{title}</th>" for title in ("name", *columns, "flag"))
        rows = []
        for row, (name, flag) in enumerate(zip(shown.names, shown.flags, strict=True)):
            cells = "".join(f"<td>{cells[row]}</td>" for cells in columns.values())
            rows.append(
                f"<tr><th>{html.escape(_shortened(name))}</th>{cells}"
                f"<td>{html.escape(_shortened(flag, 60))}</td></tr>"
            )
        hidden = len(self) - len(shown)
        more = f"<p>{counted(hidden, 'more galaxy', 'more galaxies')}</p>" if hidden else ""
        return (
            f"<p>{html.escape(repr(self))}</p><table><thead><tr>{heads}</tr></thead>"
            f"<tbody>{''.join(rows)}</tbody></table>{more}"
        )

    def _contents(self) -> str:
        """Describe what each draw holds, for ``repr``."""
        raise NotImplementedError

    def _html_columns(self) -> dict[str, list[str]]:
        """Return the cells of the HTML table by the title of their column, both as HTML."""
        raise NotImplementedError

    def __getitem__(self, key: GalaxyIndex) -> Self:
        """Select galaxies by number, slice, boolean mask or list of numbers.

        The result has an axis of galaxies also if one is selected.
        Raises IndexError if a galaxy does not exist, and TypeError for other keys.
        """
        return self._select(checked_index(key, self.n_galaxies))

    def galaxy(self, name: str) -> Self:
        """Select one galaxy by its name.

        Parameters
        ----------
        name : str
            One of `names`.

        Returns
        -------
        Object of the same class, with one galaxy

        Raises
        ------
        KeyError
            If no galaxy has the name.
        ValueError
            If several galaxies have it.
        """
        return self[index_of_name(name, self._names)]

    def _select(self, rows: slice | np.ndarray) -> Self:
        return self._replaced(
            **{name: _rows_of(getattr(self, name), rows) for name in self._PER_GALAXY}
        )

    @classmethod
    def _joined(cls, parts: Sequence[Self], **attributes: Any) -> Self:
        """Join names, flags and meta data of compatible parts; other attributes are given."""
        joined = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in GalaxyDraws._PER_GALAXY
        }
        meta = common_meta([part._meta for part in parts])
        return parts[0]._replaced(**joined, _meta=meta, **attributes)

    def _replaced(self, **attributes: Any) -> Self:
        """Return a copy with some attributes replaced; the replacements are not validated."""
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__)
        new._meta = dict(self._meta)
        new.__dict__.update(attributes)
        new._freeze()
        return new

    def _freeze(self) -> None:
        """Make all arrays read-only."""
        for name, value in self.__dict__.items():
            if name == "_meta":
                continue
            for array in value.values() if isinstance(value, dict) else [value]:
                if isinstance(array, np.ndarray):
                    array.setflags(write=False)

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Pickling and deep copies make arrays writeable. Pickles of older versions have fewer
        # attributes.
        self.__dict__.update(state)
        if "_flag_codes" not in state:
            self._flag_codes = checked_flag_codes(None, self._flags)
        if "_named" not in state:
            self._named = np.ones(len(self._names), bool)
        self._freeze()


def _rows_of(value: Any, rows: slice | np.ndarray) -> Any:
    if isinstance(value, dict):
        return {name: array[rows] for name, array in value.items()}
    return None if value is None else value[rows]


def check_same_number_of_draws(part: GalaxyDraws, first: GalaxyDraws, argument: str) -> None:
    """Check that draws can be joined to others.

    Parameters
    ----------
    part : GalaxyDraws
        Draws to check.
    first : GalaxyDraws
        First of the draws to join.
    argument : str
        Name of ``part`` in error messages.

    Raises
    ------
    ValueError
        If the numbers of draws differ.
    """
    if part.n_draws != first.n_draws:
        raise ValueError(
            f"{argument} has {counted(part.n_draws, 'draw', 'draws')} per galaxy, but the first "
            f"part has {first.n_draws}; all parts need the same number of draws."
        )


def common_meta(metas: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the entries on which all meta data agree.

    Parameters
    ----------
    metas : sequence of mapping
        Meta data of several parts.

    Returns
    -------
    dict
    """
    return {
        key: value
        for key, value in metas[0].items()
        if all(key in meta and repr(meta[key]) == repr(value) for meta in metas[1:])
    }


def counted(number: int, singular: str, plural: str) -> str:
    """Return a number with the noun it counts.

    Parameters
    ----------
    number : int
    singular, plural : str
        Forms of the noun.

    Returns
    -------
    str
    """
    return f"{number} {singular if number == 1 else plural}"


def html_intervals(low: np.ndarray, middle: np.ndarray, high: np.ndarray, spec: str) -> list[str]:
    """Format medians and the limits of intervals as HTML.

    Parameters
    ----------
    low, middle, high : ndarray, each of shape (n_galaxies,)
        Lower limit, median and upper limit.
    spec : str
        Format specification of the numbers.

    Returns
    -------
    list of str
        A dash where the median is NaN.
    """
    return [
        "&mdash;"
        if np.isnan(mid)
        else f"{mid:{spec}}<sup>+{up - mid:{spec}}</sup><sub>&minus;{mid - down:{spec}}</sub>"
        for down, mid, up in zip(low, middle, high, strict=True)
    ]


def _shortened(text: str, width: int = 40) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
