"""Arrays in a page: small integers, compressed, in one base64 text."""

from __future__ import annotations

import base64
import gzip
from typing import Any

import numpy as np

__all__ = ["MISSING", "ArrayPack", "quantised", "rounded"]

#: Code of a missing value among the 16-bit codes.
MISSING = 65535


class ArrayPack:
    """Collect integer arrays and write them as one compressed text.

    Examples
    --------
    >>> import numpy as np
    >>> from astrogenspec.view.packing import ArrayPack
    >>> pack = ArrayPack()
    >>> pack.add("counts", np.arange(6, dtype=np.uint16).reshape(2, 3))
    >>> pack.as_dict()["arrays"]
    {'counts': {'type': 'uint16', 'offset': 0, 'shape': [2, 3]}}
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._arrays: dict[str, dict[str, Any]] = {}
        self._size = 0

    def add(self, name: str, array: np.ndarray) -> None:
        """Add an array.

        Parameters
        ----------
        name : str
            Name of the array.
        array : ndarray of uint8 or uint16
            Values; written in little-endian order.

        Raises
        ------
        TypeError
            If the array has another type.
        """
        if array.dtype not in (np.uint8, np.uint16):
            raise TypeError(f"array {name!r} has dtype {array.dtype}; give uint8 or uint16.")
        content = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
        # Every array begins at an even number of bytes, which 16-bit views require.
        content += b"\0" * (len(content) % 2)
        self._arrays[name] = {
            "type": str(array.dtype),
            "offset": self._size,
            "shape": list(array.shape),
        }
        self._parts.append(content)
        self._size += len(content)

    def as_dict(self) -> dict[str, Any]:
        """Return the description of the arrays and their compressed values.

        Returns
        -------
        dict
            ``arrays`` (type, offset and shape by name) and ``data`` (base64 of gzip).
        """
        packed = gzip.compress(b"".join(self._parts), 6, mtime=0)
        return {"arrays": self._arrays, "data": base64.b64encode(packed).decode()}


def quantised(values: np.ndarray, low: np.ndarray | float, high: np.ndarray | float) -> np.ndarray:
    """Convert values to 16-bit codes between limits.

    Parameters
    ----------
    values : ndarray
        Values; those outside the limits are set to the limits.
    low, high : float or ndarray
        Limits, broadcast against ``values``.

    Returns
    -------
    ndarray of uint16
        0 at ``low``, 65534 at ``high``, and `MISSING` where not finite.
    """
    span = np.where(np.asarray(high) > np.asarray(low), np.asarray(high) - np.asarray(low), 1.0)
    with np.errstate(invalid="ignore"):
        codes = np.clip(np.rint((values - low) / span * (MISSING - 1)), 0, MISSING - 1)
    return np.where(np.isfinite(values), codes, MISSING).astype(np.uint16)


def rounded(values: np.ndarray, digits: int = 4) -> list[float | None]:
    """Return numbers for JSON, which has no NaN.

    Parameters
    ----------
    values : ndarray
        Numbers; masked values are missing.
    digits : int
        Number of significant digits.

    Returns
    -------
    list of float or None
        None where not finite.
    """
    numbers = np.ma.filled(np.ma.asarray(values, float), np.nan)
    return [float(f"{x:.{digits}g}") if np.isfinite(x) else None for x in numbers]
