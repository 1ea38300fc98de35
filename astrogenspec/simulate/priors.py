"""Parameters of the simulator, with their sources, from the tables ``simulate/priors/*.ecsv``.

Each row has a name, a value, a unit, a kind and a source.  The kind is ``literature`` (taken from a
publication), ``fitted`` (adjusted to the colour-redshift distribution of real SDSS galaxies; the
description gives the literature value), ``empirical`` (a correction without a physical model) or
``assumed``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files

from astropy.table import Table

__all__ = ["Priors", "load_priors", "prior_groups"]


class Priors(Mapping[str, float]):
    """An immutable group of parameters, available by name as items and attributes.

    Parameters
    ----------
    table : `~astropy.table.Table`
        Columns ``name``, ``value``, ``unit``, ``kind``, ``source``, ``description``.

    Examples
    --------
    >>> from astrogenspec.simulate.priors import load_priors
    >>> population = load_priors("population")
    >>> population.replace(mass_function_knee=10.7).mass_function_knee
    10.7
    """

    def __init__(self, table: Table):
        self._table = table
        self._values = {str(row["name"]): float(row["value"]) for row in table}

    def __getitem__(self, name: str) -> float:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __getattr__(self, name: str) -> float:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError(f"no prior is named {name!r}") from None

    @property
    def table(self) -> Table:
        """A copy of the table: values with units, kinds, sources and descriptions."""
        return self._table.copy()

    def replace(self, **changes: float) -> Priors:
        """Return a copy with some values replaced.

        Raises
        ------
        ValueError
            If a name does not exist.
        """
        table = self.table
        names = [str(name) for name in table["name"]]
        for name, value in changes.items():
            if name not in self._values:
                raise ValueError(f"no prior is named {name!r}; the names are {', '.join(names)}.")
            table["value"][names.index(name)] = value
        return Priors(table)


@cache
def load_priors(group: str) -> Priors:
    """Load one group of priors.

    Parameters
    ----------
    group : str
        One of `prior_groups`.

    Raises
    ------
    ValueError
        If there is no such group.
    """
    if group not in prior_groups():
        raise ValueError(
            f"no group of priors is named {group!r}; the groups are {', '.join(prior_groups())}."
        )
    path = files("astrogenspec.simulate") / "priors" / f"{group}.ecsv"
    return Priors(Table.read(path.read_text(), format="ascii.ecsv"))


def prior_groups() -> tuple[str, ...]:
    """Return the names of the groups of priors."""
    folder = files("astrogenspec.simulate") / "priors"
    return tuple(sorted(p.name[:-5] for p in folder.iterdir() if p.name.endswith(".ecsv")))
