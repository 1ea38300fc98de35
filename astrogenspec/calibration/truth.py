"""True values of the galaxies of a posterior: matching by name, and missing values.

A table or mapping of true values with a column ``name`` (in a table also ``NAME`` or ``objID``, in
any case) is matched to the posterior by the names of the galaxies; otherwise row k belongs to
galaxy k.  Values that are masked, not finite, fill values
or outside the physical limits of the quantity are missing
(`astrogenspec.quantities.known_numbers`).
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np
from astropy.table import Table

from ..inputs.catalogues import read_names
from ..inputs.column_names import with_names
from ..quantities import known_numbers
from ..warnings import AstroGenSpecWarning

if TYPE_CHECKING:
    from ..results.posterior import Posterior

__all__ = ["TrueValues", "listed_names", "match_names", "matched_rows", "read_truth"]

_NAME = "name"


@dataclass(frozen=True)
class TrueValues:
    """True values in the order of the galaxies of a posterior.

    Attributes
    ----------
    values : dict of str to Quantity or ndarray, each of shape (n_galaxies,)
        Values in the unit of the posterior; NaN where unknown.
    fill : dict of str to ndarray of bool, shape (n_galaxies,)
        Galaxies with a fill value, or a value outside the physical limits of the quantity.
    """

    values: dict[str, Any]
    fill: dict[str, np.ndarray]


def read_truth(
    posterior: Posterior, truth: Mapping[str, Any] | Table, *, drawn_only: bool = False
) -> TrueValues:
    """Match true values to the galaxies of a posterior, and convert their units.

    Parameters
    ----------
    posterior : Posterior
    truth : mapping of str to Quantity of shape (n_galaxies,), or table with such columns
        True values by quantity.  With a column ``name``, rows are matched by the names of the
        galaxies, and there may be further rows.  Other columns of a table are ignored.
    drawn_only : bool
        Ignore names other than those of drawn quantities, also in a mapping.

    Returns
    -------
    TrueValues

    Raises
    ------
    TypeError
        If ``truth`` is neither a mapping nor a table, or has values that are not numbers.
    KeyError
        If a mapping has a quantity that the posterior does not have.
    ValueError
        If names are repeated or missing, or a shape does not match.
    astropy.units.UnitConversionError
        If a unit cannot be converted.

    Warns
    -----
    AstroGenSpecWarning
        If there are fill values, or values outside the physical limits of their quantity.
    """
    if not isinstance(truth, Mapping | Table):
        raise TypeError(
            f"truth is of type {type(truth).__name__}; a table, or a mapping of names of "
            "quantities to Quantities, is expected."
        )
    truth = with_names(truth) if isinstance(truth, Table) else truth
    rows = _rows(posterior, truth)
    names = [name for name in truth.keys() if name != _NAME or name in posterior]  # noqa: SIM118
    if drawn_only:
        names = [name for name in names if name in posterior.draws]
    elif isinstance(truth, Table):
        names = [name for name in names if name in posterior]
    values, fill = {}, {}
    for name in names:
        unit = getattr(posterior[name].draws, "unit", None)
        label = f"truth[{name!r}]"
        numbers, outside = known_numbers(truth[name], unit, quantity=name, name=label)
        if rows is not None and numbers.ndim == 1:
            _check_length(numbers, len(truth[_NAME]), label)
            numbers, outside = numbers[rows], outside[rows]
        if numbers.shape != (len(posterior),):
            raise ValueError(
                f"{label} has shape {numbers.shape}, but the posterior has {len(posterior)} "
                "galaxies; give one true value per galaxy."
            )
        values[name] = numbers if unit is None else u.Quantity(numbers, unit, subok=True)
        fill[name] = outside
    _warn_of_fill_values(fill)
    return TrueValues(values, fill)


def match_names(wanted: Sequence[str], names: Sequence[str], argument: str = "truth") -> np.ndarray:
    """Find the row of each galaxy by its name.

    Parameters
    ----------
    wanted : sequence of str
        Names of the galaxies.
    names : sequence of str
        Names of the rows.
    argument : str
        Name of the argument with the rows, for error messages.

    Returns
    -------
    ndarray of int, shape (n_galaxies,)

    Raises
    ------
    ValueError
        If a name is repeated, or has no row.
    """
    for owner, given in ((f"{argument}['name']", names), ("the names of the galaxies", wanted)):
        repeated = [name for name, count in Counter(given).items() if count > 1 and name]
        if repeated:
            raise ValueError(
                f"{owner}: {repeated[0][:80]!r} is repeated, so rows cannot be matched by name; "
                "give each galaxy its own name, or omit the names to match by order."
            )
    rows = {name: row for row, name in enumerate(names)}
    missing = [name for name in wanted if name not in rows]
    if missing:
        raise ValueError(
            f"{argument} has no row for {len(missing)} of {len(wanted)} galaxies, such as "
            f"{missing[0][:80]!r}; add these rows with NaN, or omit the names to match by order."
        )
    return np.array([rows[name] for name in wanted], dtype=int)


def matched_rows(
    wanted: Sequence[str], names: Sequence[str], argument: str = "truth", *, named: bool = True
) -> np.ndarray | None:
    """Find the row of each galaxy by its name, unless the galaxies are only numbered.

    Parameters
    ----------
    wanted : sequence of str
        Names of the galaxies.
    names : sequence of str
        Names of the rows.
    argument : str
        Name of the argument with the rows, for error messages.
    named : bool
        Whether a galaxy has a name of its own, rather than its number.

    Returns
    -------
    ndarray of int, shape (n_galaxies,), or None
        None to match by order: the galaxies have numbers only, and none is in ``names``.
    """
    if not named and not set(wanted) & set(names):
        return None
    return match_names(wanted, names, argument)


def listed_names(labels: Mapping[str, Any] | Table) -> list[str] | None:
    """Return the names of the rows of labels as a list; None if there are none.

    They are in the column ``name``, in a table also ``NAME`` or ``objID`` (in any case).

    Parameters
    ----------
    labels : mapping or table

    Returns
    -------
    list of str or None
        Masked names are empty.

    Raises
    ------
    ValueError
        If it is not one name for each row.
    """
    labels = with_names(labels) if isinstance(labels, Table) else labels
    if _NAME not in labels.keys():  # noqa: SIM118
        return None
    column = labels[_NAME]
    if np.ndim(column) != 1:
        raise ValueError(
            f"the column name has shape {np.shape(column)}; give one name for each row."
        )
    names, named = read_names(column, len(column))
    return [name if known else "" for name, known in zip(names, named, strict=True)]


def _rows(posterior: Posterior, truth: Mapping[str, Any] | Table) -> np.ndarray | None:
    """Return the row of ``truth`` for each galaxy; None if row k belongs to galaxy k."""
    if _NAME in posterior:
        return None
    names = listed_names(truth)
    if names is None:
        return None
    return matched_rows(posterior.names, names, named=bool(posterior.named.any()))


def _check_length(numbers: np.ndarray, n_rows: int, label: str) -> None:
    if len(numbers) != n_rows:
        raise ValueError(
            f"{label} has {len(numbers)} values for {n_rows} names; give one value per name."
        )


def _warn_of_fill_values(fill: Mapping[str, np.ndarray]) -> None:
    counts = {name: np.count_nonzero(outside) for name, outside in fill.items()}
    listed = ", ".join(f"{count} of {name}" for name, count in counts.items() if count)
    if listed:
        warnings.warn(
            f"truth has values that are fill values or outside the physical limits ({listed}); "
            "they count as missing.",
            AstroGenSpecWarning,
            stacklevel=4,
        )
