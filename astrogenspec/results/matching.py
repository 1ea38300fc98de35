"""Match the galaxies of an input and a result by name, or by order without names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from .base import GalaxyDraws

__all__ = ["GalaxyMatcher"]


class GalaxyMatcher:
    """Find the galaxies of an input, read in batches, among those of a result.

    Galaxies with a name on both sides are matched by name, others by order. No galaxy is matched
    twice.

    Parameters
    ----------
    result : GalaxyDraws
        Result that was given for the same galaxies.
    argument : str
        Name of the result in error messages.

    Attributes
    ----------
    by_order : bool
        Whether a galaxy has been matched by order, which requires equal numbers of galaxies.
    """

    def __init__(self, result: GalaxyDraws, argument: str) -> None:
        self._n = len(result)
        self._named = result.named
        self._argument = argument
        self._rows: dict[str, list[int]] = {}
        for row in np.flatnonzero(result.named):
            self._rows.setdefault(result.names[row], []).append(int(row))
        self._matched: dict[int, int] = {}
        self.by_order = len(result) == 0 or not result.named.any()

    def match(
        self,
        names: Sequence[str],
        named: np.ndarray,
        start: int = 0,
        *,
        same: Callable[[int, int], bool] | None = None,
    ) -> np.ndarray:
        """Return the row of the result for each galaxy of a batch.

        Parameters
        ----------
        names : sequence of str
            Names of the galaxies.
        named : ndarray of bool
            Whether a name was given, rather than a number assigned.
        start : int
            Index of the first of these galaxies in the whole input.
        same : callable, optional
            Tells from the data whether a galaxy of the batch and a row of the result are the same.
            Several galaxies of one name are matched by order if they are.

        Returns
        -------
        ndarray of int

        Raises
        ------
        ValueError
            If a name is not found, is that of several galaxies, or a galaxy would be matched twice.
        """
        rows = np.arange(start, start + len(names))
        for k, name in enumerate(names if self._rows else ()):
            known = partial(same, k) if same is not None else _unknown
            rows[k] = self._row(name, bool(named[k]), start + k, known)
        return rows

    def _row(self, name: str, named: bool, index: int, same: Callable[[int], bool]) -> int:
        rows = self._rows.get(name, []) if named else []
        row = index
        if len(rows) == 1:
            row = rows[0]
        elif rows and not (index in rows and same(index)):
            raise ValueError(
                f"{self._argument} has several galaxies named {name!r}, which cannot be matched: "
                "give each galaxy its own name."
            )
        elif not rows and named and (index >= self._n or self._named[index]):
            raise ValueError(
                f"{self._argument} has no galaxy named {name!r} (galaxy {index} of the input): it "
                "must have all galaxies of the input."
            )
        elif not rows:
            self.by_order = True
        if row in self._matched:
            which = f"galaxies {self._matched[row]} and {index}"
            found = (
                f"several galaxies named {name!r} ({which})"
                if rows
                else f"{which} for galaxy {row}"
            )
            raise ValueError(
                f"the input has {found} of {self._argument}, which cannot be matched: give each "
                "galaxy its own name."
            )
        self._matched[row] = index
        return row


def _unknown(row: int) -> bool:
    return False
