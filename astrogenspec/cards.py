"""Check the entries of a card: types, shapes and finite numbers.

A card is read from JSON and may come from anywhere.  Each function returns a value if it is valid,
and otherwise raises `ValueError` with one sentence that names the entry by its path, such as
``predictive.covariance``.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

__all__ = [
    "check_array",
    "check_covariances",
    "check_layout",
    "check_mapping",
    "check_number",
    "check_range",
    "check_text",
    "entries",
    "entry",
]


def check_mapping(value: Any, where: str) -> Mapping[str, Any]:
    """Check a mapping with texts as keys.

    Parameters
    ----------
    value : object
        Value to check.
    where : str
        Path of the entry.

    Returns
    -------
    mapping
        The value.

    Raises
    ------
    ValueError
        If it is something else.
    """
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise _invalid(where, value, "a dict with str keys")
    return value


def entry(values: Any, key: str, where: str) -> Any:
    """Return an entry of a mapping.

    Parameters
    ----------
    values : mapping
        Mapping.
    key : str
        Key of the entry.
    where : str
        Path of the mapping.

    Returns
    -------
    object

    Raises
    ------
    ValueError
        If ``values`` is no mapping, or the entry is missing.
    """
    if key not in check_mapping(values, where):
        raise ValueError(f"the entry {where}.{key} is missing.")
    return values[key]


def entries(values: Any, key: str, where: str) -> Iterator[tuple[Any, str]]:
    """Iterate over an entry that is a list.

    Parameters
    ----------
    values : mapping
        Mapping with the list.
    key : str
        Key of the list.
    where : str
        Path of the mapping.

    Yields
    ------
    value : object
        Element of the list.
    path : str
        Its path.

    Raises
    ------
    ValueError
        If the entry is missing or is no list.
    """
    found = entry(values, key, where)
    if not isinstance(found, list | tuple):
        raise _invalid(f"{where}.{key}", found, "a list")
    for k, value in enumerate(found):
        yield value, f"{where}.{key}[{k}]"


def check_text(value: Any, where: str, choices: Sequence[str] = ()) -> str:
    """Check a text.

    Parameters
    ----------
    value : object
        Value to check.
    where : str
        Path of the entry.
    choices : sequence of str, optional
        Valid texts; all by default.

    Returns
    -------
    str
        The value.

    Raises
    ------
    ValueError
        If it is something else.
    """
    if not isinstance(value, str) or (choices and value not in choices):
        raise _invalid(where, value, f"one of {', '.join(choices)}" if choices else "a str")
    return value


def check_number(value: Any, where: str) -> float:
    """Check a finite number.

    Parameters
    ----------
    value : object
        Value to check.
    where : str
        Path of the entry.

    Returns
    -------
    float
        The value.

    Raises
    ------
    ValueError
        If it is something else.
    """
    return float(check_array(value, (), where))


def check_array(value: Any, shape: tuple[int | None, ...], where: str) -> np.ndarray:
    """Check an array of finite numbers.

    Parameters
    ----------
    value : object
        Nested lists of numbers, or an array.
    shape : tuple of int or None
        Expected shape; None for an axis of any length.
    where : str
        Path of the entry.

    Returns
    -------
    ndarray of float

    Raises
    ------
    ValueError
        If it is something else.
    """
    expected = (
        f"an array of shape {_shape_text(shape)} of finite numbers" if shape else "a finite number"
    )
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise _invalid(where, value, expected) from None
    fits = len(array.shape) == len(shape) and all(
        n in (None, length) for n, length in zip(shape, array.shape, strict=True)
    )
    if not fits or array.dtype.kind not in "iuf" or not np.isfinite(array).all():
        raise _invalid(where, value, expected)
    return array.astype(float)


def check_range(value: Any, where: str) -> tuple[float, float]:
    """Check a range.

    Parameters
    ----------
    value : object
        Value to check.
    where : str
        Path of the entry.

    Returns
    -------
    lowest, highest : float

    Raises
    ------
    ValueError
        If it is not a pair of finite numbers in increasing order.
    """
    low, high = check_array(value, (2,), where)
    if low > high:
        raise _invalid(where, value, "the lowest value followed by the highest one")
    return float(low), float(high)


def check_covariances(value: Any, shape: tuple[int | None, ...], where: str) -> np.ndarray:
    """Check covariance matrices.

    Parameters
    ----------
    value : object
        Nested lists of numbers.
    shape : tuple of int or None
        Expected shape; the last two axes are those of the matrices.
    where : str
        Path of the entry.

    Returns
    -------
    ndarray of float

    Raises
    ------
    ValueError
        If it is something else, or a matrix is not symmetric, or has a negative eigenvalue.
    """
    array = check_array(value, shape, where)
    tolerance = 1e-6 * np.abs(array).max(initial=1.0)
    is_symmetric = np.abs(array - np.swapaxes(array, -1, -2)).max(initial=0.0) <= tolerance
    if not is_symmetric or np.linalg.eigvalsh(array).min(initial=0.0) < -tolerance:
        raise _invalid(where, value, "a covariance matrix (symmetric, no negative eigenvalue)")
    return array


def check_layout(values: Any, newest: int, where: str) -> int:
    """Check the number of the layout of an entry.

    Parameters
    ----------
    values : mapping
        The entry.
    newest : int
        Newest layout that this version reads.
    where : str
        Path of the entry.

    Returns
    -------
    int
        The layout.

    Raises
    ------
    ValueError
        If the layout is missing or invalid, or newer.
    """
    layout = entry(values, "layout", where)
    if isinstance(layout, bool) or not isinstance(layout, int) or layout < 0:
        raise _invalid(f"{where}.layout", layout, "a number such as 1")
    if layout > newest:
        raise ValueError(
            f"the entry {where} has layout {layout}, but this version reads layouts up to "
            f"{newest}; update astrogenspec."
        )
    return layout


def _shape_text(shape: tuple[int | None, ...]) -> str:
    lengths = ", ".join("n" if n is None else str(n) for n in shape)
    return f"({lengths},)" if len(shape) == 1 else f"({lengths})"


def _invalid(where: str, value: Any, expected: str) -> ValueError:
    shown = "".join(c if c.isprintable() else "?" for c in reprlib.repr(value))
    return ValueError(f"the entry {where} is {shown[:80]}, but {expected} is expected.")
