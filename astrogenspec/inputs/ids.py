"""Identifiers of objects, which key their random numbers."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..warnings import AstroGenSpecWarning

__all__ = ["ObjectIds", "coerce_ids", "missing_ids"]

#: Identifiers of objects: integers (exact to 64 bits) or strings.
ObjectIds = Sequence[int] | Sequence[str] | np.ndarray

_WANTED = "give one integer or one string for each galaxy"
#: Bit that tells the keys of strings from those of integers.
_OF_TEXT = np.uint64(1 << 63)


def missing_ids(ids: Any) -> np.ndarray:
    """Return which identifiers are missing: masked, None, NaN, or an empty string.

    Parameters
    ----------
    ids : array_like, shape (n,)
        Identifiers; a column of astropy, pandas or pyarrow.

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    values = _as_array(ids)
    missing = np.array(np.ma.getmaskarray(values))
    plain = np.ma.getdata(values)
    if plain.dtype.kind == "O":
        missing |= np.array([_is_missing(value) for value in plain], dtype=bool)
    elif plain.dtype.kind == "f":
        missing |= np.isnan(plain)
    elif plain.dtype.kind in "US":
        missing |= np.char.str_len(plain) == 0
    return missing


def coerce_ids(ids: ObjectIds) -> np.ndarray:
    """Return the keys of random numbers that belong to identifiers.

    Integers are their own keys. Strings are hashed to 127 bits (BLAKE2b).

    Parameters
    ----------
    ids : sequence of int or of str, shape (n,)
        Identifiers.

    Returns
    -------
    ndarray of uint64, shape (n, 2)
        Keys, which are equal for equal identifiers only.

    Raises
    ------
    TypeError
        If an identifier is neither an integer nor a string.
    ValueError
        If the shape is wrong, an identifier is missing or has more than 64 bits, or two strings
        have the same key.

    Warns
    -----
    AstroGenSpecWarning
        If identifiers are repeated.
    """
    values = _as_array(ids)
    if values.ndim != 1:
        raise ValueError(f"ids has shape {values.shape}; {_WANTED}.")
    missing = missing_ids(values)
    if missing.any():
        raise ValueError(
            f"ids has no value for galaxy {int(np.argmax(missing))} (missing for "
            f"{np.count_nonzero(missing)} of {len(values)}); {_WANTED}."
        )
    plain = np.ma.getdata(values)
    if plain.dtype.kind == "O":
        plain = _of_objects(plain)
    if plain.dtype.kind in "US":
        keys = _keys_of_strings(plain)
    elif plain.dtype.kind in "iu":
        keys = _keys_of_integers(plain)
    else:
        raise TypeError(
            f"ids has the type {plain.dtype}; {_WANTED}, not numbers with a fraction, which cannot "
            "hold long integers."
        )
    _check_distinct(plain, keys)
    return keys


def _as_array(ids: Any) -> np.ndarray:
    """Return a plain or masked array; integers of columns with nulls are not rounded."""
    if isinstance(ids, np.ndarray):
        return ids
    return np.asarray(ids if hasattr(ids, "__array__") else list(ids), dtype=_type_of(ids))


def _type_of(ids: Any) -> type | None:
    """Return the type object for lists, since numpy would round or join mixed types."""
    return None if hasattr(ids, "__array__") else object


def _is_missing(value: Any) -> bool:
    if isinstance(value, str | bytes):
        return not value
    if value is None or value is np.ma.masked:
        return True
    try:
        # NaN differs from itself.
        return bool(value != value)
    except TypeError:
        # The missing value of pandas has no truth value.
        return True


def _of_objects(values: np.ndarray) -> np.ndarray:
    """Return objects as an array of strings or of integers."""
    if all(isinstance(value, str | bytes) for value in values):
        texts = [v.decode("utf-8") if isinstance(v, bytes) else v for v in values]
        return np.array(texts, dtype=str)
    integers = (int, np.integer)
    wrong = next(
        (v for v in values if not isinstance(v, integers) or isinstance(v, bool | np.bool_)), None
    )
    if wrong is not None:
        raise TypeError(f"ids has the value {wrong!r}; {_WANTED}.")
    smallest, largest = min(map(int, values), default=0), max(map(int, values), default=0)
    if smallest < -(2**63) or largest >= 2**64 or (smallest < 0 and largest >= 2**63):
        raise ValueError(f"ids reach from {smallest} to {largest}; at most 64 bits are possible.")
    return np.array([int(v) for v in values], dtype=np.int64 if smallest < 0 else np.uint64)


def _keys_of_integers(values: np.ndarray) -> np.ndarray:
    keys = np.zeros((len(values), 2), np.uint64)
    keys[:, 0] = values.astype(np.int64).view(np.uint64) if values.dtype.kind == "i" else values
    keys[:, 1] = values < 0
    return keys


def _keys_of_strings(values: np.ndarray) -> np.ndarray:
    texts = np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values
    digests = (hashlib.blake2b(str(t).encode("utf-8"), digest_size=16).digest() for t in texts)
    keys = np.frombuffer(b"".join(digests), dtype="<u8").reshape(-1, 2).astype(np.uint64)
    keys[:, 1] |= _OF_TEXT
    return keys


def _check_distinct(values: np.ndarray, keys: np.ndarray) -> None:
    """Warn of repeated identifiers; raise if different ones have the same key."""
    found, first, counts = np.unique(values, return_index=True, return_counts=True)
    if len(np.unique(keys, axis=0)) < len(found):
        raise ValueError("two different ids have the same key; rename one of them.")
    repeated = counts > 1
    if repeated.any():
        warnings.warn(
            f"{np.count_nonzero(repeated)} ids are repeated, such as "
            f"{values[first[np.argmax(repeated)]]}: galaxies with the same id have the same random "
            "numbers",
            AstroGenSpecWarning,
            stacklevel=4,
        )
