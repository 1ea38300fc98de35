"""Warning classes of the package, and deprecation of names."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from astropy.utils.exceptions import AstropyUserWarning

__all__ = [
    "AstroGenSpecDeprecationWarning",
    "AstroGenSpecWarning",
    "filtered_warnings",
    "renamed_argument",
    "warn_deprecated",
]

#: Names whose deprecation this process has reported.
_REPORTED: set[str] = set()
#: Release in which names deprecated in this release are removed.
_REMOVAL = "0.2"
#: `warnings.catch_warnings` changes the filters of all threads: one block at a time.
_FILTERS = threading.RLock()


class AstroGenSpecWarning(AstropyUserWarning):
    """A default or an approximation changes the results."""


class AstroGenSpecDeprecationWarning(AstroGenSpecWarning, DeprecationWarning):
    """A name will be removed in a later release."""


@contextmanager
def filtered_warnings(
    action: Literal["ignore", "error", "always"],
    category: type[Warning],
    message: str = "",
) -> Iterator[None]:
    """Apply a warning filter in a block, in one thread of the package at a time.

    `warnings.catch_warnings` restores the filters that it found. When the blocks of two threads
    overlap, the filters of one apply in the other, and may stay after both.

    Parameters
    ----------
    action : {"ignore", "error", "always"}
        What to do with the warnings.
    category : type
        Class of the warnings.
    message : str
        Regular expression that the start of the message matches; "" matches all.
    """
    with _FILTERS, warnings.catch_warnings():
        warnings.filterwarnings(action, message, category)
        yield


def warn_deprecated(name: str, replacement: str, *, stacklevel: int = 3) -> None:
    """Warn, once per process, that a name is deprecated.

    Parameters
    ----------
    name : str
        Deprecated name.
    replacement : str
        What to use instead.
    stacklevel : int
        As for `warnings.warn`; 2 is the caller of this function.

    Warns
    -----
    AstroGenSpecDeprecationWarning
        At the first call for this name.
    """
    if name not in _REPORTED:
        _REPORTED.add(name)
        message = (
            f"{name} is deprecated and will be removed in version {_REMOVAL}: use {replacement}."
        )
        warnings.warn(message, AstroGenSpecDeprecationWarning, stacklevel=stacklevel)


def renamed_argument(function: str, new: str, value: Any, old: str, old_value: Any) -> Any:
    """Return the value of an argument that has been renamed; warn if the old name was used.

    Parameters
    ----------
    function : str
        Name of the function.
    new : str
        Name of the argument.
    value : object
        Value given under this name; None if not given.
    old : str
        Old name of the argument.
    old_value : object
        Value given under the old name; None if not given.

    Returns
    -------
    object
        ``value``, or ``old_value`` if that was given.

    Raises
    ------
    ValueError
        If both were given.

    Warns
    -----
    AstroGenSpecDeprecationWarning
        If the old name was used.
    """
    if old_value is None:
        return value
    if value is not None:
        raise ValueError(f"{function} got both {new} and its old name {old}: give {new} only.")
    warn_deprecated(f"the argument {old} of {function}", new, stacklevel=4)
    return old_value
