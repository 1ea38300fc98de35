"""What to do with an input that cannot be used: stop, or note why and go on with the others."""

from __future__ import annotations

from typing import Any

import astropy.units as u

__all__ = ["INPUT_ERRORS", "ProblemLog", "check_count"]

#: What a bad input raises; anything else is a fault of the program. Some errors of units are neither of the first two.
INPUT_ERRORS = (ValueError, TypeError, u.UnitsError)
_RAISABLE = (u.UnitConversionError, u.UnitTypeError, u.UnitsError, TypeError, ValueError)


class ProblemLog:
    """Collect one sentence for each galaxy that cannot be used.

    Parameters
    ----------
    n : int
        Number of galaxies.
    on_error : {"raise", "flag"}
        Raise at the first bad galaxy, naming its index, or keep its sentence and go on.

    Raises
    ------
    ValueError
        If ``on_error`` is neither.
    """

    def __init__(self, n: int, on_error: str):
        if on_error not in ("raise", "flag"):
            raise ValueError(f'on_error is {on_error!r}, but it must be "raise" or "flag".')
        self._sentences = [""] * n
        self._on_error = on_error

    def add(self, index: int, error: Exception | str) -> None:
        """Raise the error with the index of its galaxy, or keep its sentence.

        Parameters
        ----------
        index : int
            Index of the galaxy.
        error : Exception or str
            What is wrong; a string is raised as a `ValueError`.
        """
        if self._on_error == "flag":
            self._sentences[index] = str(error)
        else:
            self.fail(index, error)

    def fail(self, index: int, error: Exception | str) -> None:
        """Raise the error in any case: it concerns the call, not one galaxy.

        Parameters
        ----------
        index : int
            Index of the galaxy where it was found; not told if there is only one.
        error : Exception or str
            What is wrong; a string is raised as a `ValueError`.
        """
        sentence = f"galaxy {index}: {error}" if len(self._sentences) > 1 else str(error)
        if isinstance(error, str):
            raise ValueError(sentence)
        raise next(kind for kind in _RAISABLE if isinstance(error, kind))(sentence) from error

    @property
    def sentences(self) -> tuple[str, ...]:
        """One sentence for each galaxy, empty if it is fine."""
        return tuple(self._sentences)


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
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{argument} is {value!r}: it must be an int.")
    if value.__index__() < 1:
        raise ValueError(f"{argument} is {value}: it must be at least 1.")
    return value.__index__()
