"""Documents of the files of posteriors and of spectra: the JSON text that describes a file.

A document holds the version of the layout, a checksum of itself, and the meta data of the user.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np

__all__ = [
    "check_layout",
    "decoded_texts",
    "encoded_document",
    "parsed_document",
    "read_errors",
]

#: Key of the checksum of a document.
_CHECKSUM = "crc32"


def encoded_document(document: Mapping[str, Any]) -> str:
    """Encode the description of a file as JSON.

    Parameters
    ----------
    document : mapping
        Description, with the meta data of the user under the key "meta".

    Returns
    -------
    str

    Raises
    ------
    TypeError
        If an entry of the meta data has no representation in JSON.
    """
    for key, value in document["meta"].items():
        try:
            json.dumps({key: value}, default=_json_value)
        except (TypeError, ValueError):
            raise TypeError(
                f"meta[{key!r}] is of type {type(value).__name__}, which a file cannot hold; use "
                "numbers, strings, lists and mappings."
            ) from None
    # Parsed and encoded again, so that the text is that of the document as it will be read.
    plain = json.loads(json.dumps(document, default=_json_value))
    return json.dumps(plain | {_CHECKSUM: _checksum(plain)})


def parsed_document(text: Any) -> dict[str, Any] | None:
    """Parse the text made by `encoded_document`.

    Parameters
    ----------
    text : str or bytes
        JSON text. Those of older versions have no checksum.

    Returns
    -------
    dict or None
        None if the text is not that of a document.

    Raises
    ------
    ValueError
        If the checksum of the document is wrong.
    """
    try:
        document = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    checksum = document.pop(_CHECKSUM, None)
    if checksum is not None and checksum != _checksum(document):
        raise ValueError("the checksum of the description is wrong")
    return document


def _checksum(document: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(document).encode())


@contextmanager
def read_errors(path: Path, form: str) -> Iterator[None]:
    """Convert all errors to one that names the file.

    Parameters
    ----------
    path : Path
        File that is read.
    form : str
        What the file should be, such as "a FITS file".

    Yields
    ------
    None

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        words = " ".join("".join(c if c.isprintable() else " " for c in str(error)).split())
        raise OSError(
            f"cannot read {str(path)!r}: it is damaged or not {form} ({type(error).__name__}: "
            f"{words[:200]})."
        ) from error


def _json_value(value: Any) -> Any:
    """Convert numpy numbers and arrays to lists and numbers."""
    if isinstance(value, np.generic | np.ndarray) and not isinstance(value, u.Quantity):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no representation in JSON")


def check_layout(path: Path, document: Any, known: int, writer: str) -> dict[str, Any]:
    """Check that this version of the package can read a file.

    Parameters
    ----------
    path : Path
        File that is read.
    document : dict or None
        Description of the file; None if it has none.
    known : int
        Newest layout that can be read.
    writer : str
        Function that writes such files.

    Returns
    -------
    dict
        The document.

    Raises
    ------
    ValueError
        If the file was not written by ``writer``, or by a newer version of it.
    """
    layout = document.get("layout") if isinstance(document, dict) else None
    if document is None or not isinstance(layout, int):
        raise ValueError(f"{str(path)!r} was not made by {writer}.")
    if layout > known:
        raise ValueError(
            f"{str(path)!r} was made by a newer version of astrogenspec (layout {layout}, this "
            f"version knows {known}); update the package to read it."
        )
    return document


def decoded_texts(values: np.ndarray) -> list[str]:
    """Convert a column of a file to strings.

    Parameters
    ----------
    values : ndarray of bytes, str or object
        Column; masked entries are empty strings.

    Returns
    -------
    list of str
    """
    if isinstance(values, np.ma.MaskedArray):
        values = np.where(values.mask, np.zeros((), values.dtype), values.data)
    return [
        entry.decode(errors="replace") if isinstance(entry, bytes) else str(entry)
        for entry in values
    ]
