"""Invalid input: raise an exception that names the galaxy, or flag the galaxy and continue."""

from __future__ import annotations

import operator
from collections.abc import Collection, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

import astropy.units as u
import numpy as np

from ..flags import Flag, FlagLog

__all__ = [
    "INPUT_ERRORS",
    "ON_ERROR_ADVICE",
    "InputLog",
    "check_bool",
    "check_count",
    "check_on_error",
    "galaxy_of",
    "reason_of",
    "resolve_flag_codes",
    "resolve_named",
    "rewrite_error",
    "select_galaxies",
    "with_advice",
]

#: Exceptions raised for invalid input; any other exception is an internal error.
INPUT_ERRORS = (ValueError, TypeError, u.UnitsError)
#: Types that can be raised with a message alone, from the most special to the most general.
_PLAIN_ERRORS = (
    u.UnitConversionError,
    u.UnitTypeError,
    u.UnitsError,
    TypeError,
    ValueError,
    FileNotFoundError,
    OSError,
)

Record = TypeVar("Record", bound=Any)


class InputLog(FlagLog):
    """Collect the flags of galaxies that cannot be used, or raise at the first of them.

    Parameters
    ----------
    n : int
        Number of galaxies.
    on_error : {"raise", "flag"}
        Whether to raise an exception or to flag the galaxy.
    first : int
        Index of the first of these galaxies in the whole input.

    Attributes
    ----------
    first : int
        As given.

    Raises
    ------
    ValueError
        If ``on_error`` has another value.
    """

    def __init__(self, n: int, on_error: str, *, first: int = 0) -> None:
        check_on_error(on_error)
        super().__init__(n)
        self._raise = on_error == "raise"
        self.first = first

    def reject(self, index: int, flag: Flag, error: Exception | str) -> None:
        """Flag a galaxy, or raise an exception that names it.

        Parameters
        ----------
        index : int
            Index of the galaxy among those of this log.
        flag : Flag
            Bits to set.
        error : Exception or str
            Reason; a string is raised as a `ValueError`.
        """
        if self._raise:
            raise self.error(index, error, advice=True) from (
                None if isinstance(error, str) else error
            )
        self.add(index, flag, str(error).rstrip("."))

    def error(self, index: int, error: Exception | str, *, advice: bool = False) -> Exception:
        """Return an exception about one galaxy.

        Parameters
        ----------
        index : int
            Index of the galaxy among those of this log.
        error : Exception or str
            Reason; a string becomes a `ValueError`.
        advice : bool
            Whether to mention ``on_error="flag"``, if there are other galaxies.

        Returns
        -------
        Exception
            Its message names the galaxy unless it is the only one; its attribute ``galaxy`` is the
            index of the galaxy in the whole input.
        """
        galaxy, text = self.first + index, str(error)
        several = self.first > 0 or len(self) > 1
        if several:
            text = f"galaxy {galaxy}: {text}"
        new = rewrite_error(ValueError() if isinstance(error, str) else error, text, galaxy)
        return with_advice(new, ON_ERROR_ADVICE) if several and advice else new


def rewrite_error(error: Exception, text: str, galaxy: int | None = None) -> Exception:
    """Return an exception of the same type with another message.

    Parameters
    ----------
    error : one of `INPUT_ERRORS`, or OSError
        Its type is kept if it takes a message alone; otherwise the nearest parent type is used.
    text : str
        New message.
    galaxy : int, optional
        Index of the galaxy that the exception is about; by default that of ``error``.

    Returns
    -------
    Exception
    """
    new = next(kind for kind in _PLAIN_ERRORS if isinstance(error, kind))(text)
    vars(new)["galaxy"] = galaxy_of(error) if galaxy is None else galaxy
    return new


#: What Python users can do about a galaxy that cannot be used.
ON_ERROR_ADVICE = "use on_error='flag' to flag such galaxies and continue"


def with_advice(error: Exception, advice: str) -> Exception:
    """Return an exception whose message ends with advice, in place of any other advice.

    Parameters
    ----------
    error : one of `INPUT_ERRORS`
        Exception about one galaxy.
    advice : str
        Half a sentence.

    Returns
    -------
    Exception
        Its attribute ``reason`` is the message without the advice.
    """
    reason = reason_of(error)
    new = rewrite_error(error, f"{reason.rstrip('.')}; {advice}.")
    vars(new)["reason"] = reason
    return new


def reason_of(error: Exception) -> str:
    """Return the message of an exception without advice, see `with_advice`."""
    return getattr(error, "reason", str(error))


def galaxy_of(error: BaseException) -> int | None:
    """Return the index of the galaxy that an exception is about.

    Parameters
    ----------
    error : Exception
        Exception raised while input was read.

    Returns
    -------
    int or None
        None if the exception concerns the whole call.
    """
    return getattr(error, "galaxy", None)


def check_on_error(on_error: str) -> None:
    """Raise unless an argument ``on_error`` is valid.

    Parameters
    ----------
    on_error : {"raise", "flag"}
        Value to check.

    Raises
    ------
    ValueError
        For another value.
    """
    if on_error not in ("raise", "flag"):
        raise ValueError(f'on_error is {on_error!r}, but it must be "raise" or "flag".')


def check_count(value: Any, argument: str) -> int:
    """Return a positive integer, or raise.

    Parameters
    ----------
    value : int
        Value to check.
    argument : str
        Name of the argument, for the error message.

    Returns
    -------
    int

    Raises
    ------
    TypeError
        If the value is not an integer.
    ValueError
        If the value is less than 1.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        raise TypeError(f"{argument} is {value!r}: it must be an int.")
    if number < 1:
        raise ValueError(f"{argument} is {number}: it must be at least 1.")
    return number


def check_bool(value: Any, argument: str) -> bool:
    """Return True or False, or raise.

    Parameters
    ----------
    value : bool
        Value to check.
    argument : str
        Name of the argument, for the error message.

    Returns
    -------
    bool

    Raises
    ------
    TypeError
        If the value is not a bool.
    """
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{argument} is {value!r}: it must be True or False.")
    return bool(value)


def resolve_flag_codes(
    codes: Sequence[int] | np.ndarray | None, texts: Sequence[str], flag: Flag
) -> np.ndarray:
    """Return the flag codes of a record, or derive them from its texts.

    Parameters
    ----------
    codes : sequence of int, shape (n,), or None
        Flag codes.
    texts : sequence of str, shape (n,)
        Reasons; empty strings where nothing is wrong.
    flag : Flag
        Bit to set where there is a text, if ``codes`` is None.

    Returns
    -------
    ndarray of int64, shape (n,)

    Raises
    ------
    ValueError
        If the lengths differ.
    """
    if codes is None:
        return np.array([int(flag) if text else 0 for text in texts], dtype=np.int64)
    codes = np.asarray(codes, dtype=np.int64)
    if codes.shape != (len(texts),):
        raise ValueError(f"flag_codes has shape {codes.shape}, but it must be ({len(texts)},).")
    return codes


def resolve_named(named: Sequence[bool] | np.ndarray | None, given: bool, n: int) -> np.ndarray:
    """Return whether each galaxy of a record has a name, rather than only a number.

    Parameters
    ----------
    named : sequence of bool, shape (n,), or None
        Whether a name was given.
    given : bool
        Whether the names of the record were given; used if ``named`` is None.
    n : int
        Number of galaxies.

    Returns
    -------
    ndarray of bool, shape (n,)

    Raises
    ------
    ValueError
        If the shape is wrong.
    """
    resolved = np.full(n, given) if named is None else np.array(named, dtype=bool)
    if resolved.shape != (n,):
        raise ValueError(f"named has shape {resolved.shape}, but it must be ({n},).")
    return resolved


def select_galaxies(
    record: Record,
    item: int | slice | np.ndarray | Sequence[int],
    shared: Collection[str] = (),
) -> Record:
    """Select galaxies of a dataclass whose fields have one entry for each galaxy.

    Parameters
    ----------
    record : dataclass instance
        Its fields are arrays, records, tuples or None.
    item : int, slice, array of int or array of bool
        Galaxies to select; an integer selects one galaxy.
    shared : collection of str
        Names of fields that concern all galaxies, which are kept.

    Returns
    -------
    dataclass instance
        Record of the same type.
    """
    if isinstance(item, int | np.integer):
        item = [item]
    rows = np.arange(len(record))[item]
    selected: dict[str, Any] = {}
    for field in fields(record):
        if field.name in shared:
            continue
        values = getattr(record, field.name)
        if isinstance(values, tuple):
            selected[field.name] = tuple(values[k] for k in rows)
        else:
            selected[field.name] = None if values is None else values[item]
    return replace(record, **selected)
