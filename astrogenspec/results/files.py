"""What the files of posteriors and of spectra share: targets, temporary files, errors, meta data.

A file is written under a temporary name in the folder of its target, and then renamed: an interrupted
program leaves neither half a file nor a damaged old one.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np

__all__ = [
    "check_layout",
    "check_target",
    "decoded_texts",
    "encoded_document",
    "temporary_path",
    "write_errors",
]


def check_target(path: Path, overwrite: bool) -> None:
    """Check that a file can be made.

    Parameters
    ----------
    path : Path
        File to write.
    overwrite : bool
        Whether an existing file may be replaced.

    Raises
    ------
    OSError
        If the folder does not exist, or the path is that of a folder.
    FileExistsError
        If the file exists and ``overwrite`` is False.
    """
    folder = path.parent
    if not folder.exists():
        raise FileNotFoundError(f"the folder {str(folder)!r} does not exist; create it first.")
    if not folder.is_dir():
        raise NotADirectoryError(f"{str(folder)!r} is a file; give a path inside a folder.")
    if path.is_dir():
        raise IsADirectoryError(f"{str(path)!r} is a folder; give the path of a file.")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{str(path)!r} exists; pass overwrite=True to replace it.")


def temporary_path(path: Path, ending: str) -> Path:
    """Return a new path in the folder of a file; symbolic links are followed.

    Parameters
    ----------
    path : Path
        File to write in the end.
    ending : str
        Ending of the temporary name.

    Returns
    -------
    Path
    """
    return path.resolve().with_name(f".{uuid.uuid4().hex}{ending}")


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Name the file in the errors of the operating system.

    Parameters
    ----------
    path : Path
        File that is written.

    Yields
    ------
    None
    """
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        kind = type(error) if type(error).__module__ == "builtins" else OSError
        raise kind(
            f"cannot write {str(path)!r}: {error.strerror or error}; check that the folder is writable and the "
            f"disk has space left."
        ) from error


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
                f"meta[{key!r}] is of type {type(value).__name__}, which a file cannot hold; use numbers, "
                f"strings, lists and mappings."
            ) from None
    return json.dumps(document, default=_json_value)


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
    if not isinstance(document, dict) or "layout" not in document:
        raise ValueError(f"{str(path)!r} was not made by {writer}.")
    if document["layout"] > known:
        raise ValueError(
            f"{str(path)!r} was made by a newer version of astrogenspec (layout {document['layout']}, this "
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
    return [entry.decode() if isinstance(entry, bytes) else str(entry) for entry in values]
