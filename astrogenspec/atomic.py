"""Write files atomically: a target is complete, or unchanged.

A file is written in a new temporary folder beside its target and moved to its place when it is
complete, so that an interrupted program leaves neither half a file nor a damaged old one.  Without
permission to overwrite, the move fails if the target exists, even if another process made it a
moment before.

While its process lives, a temporary folder is locked (``flock``; the operating system releases the
lock of a killed process).  The next run that writes into the same folder removes those that are not
locked.  Where there are no such locks (Windows), it removes those older than a day.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

if sys.platform != "win32":
    import fcntl

__all__ = [
    "atomic_write",
    "check_target",
    "move_into_place",
    "save_figure",
    "sole_writer",
    "temporary_folder",
    "write_bytes",
    "write_errors",
]

#: Temporary folders begin and end with these.
_PREFIX, _SUFFIX = ".astrogenspec-", ".partial"
#: Age (s) of a folder that is removed where it cannot be locked.
_MAX_AGE = 86400.0


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
        raise FileExistsError(_exists(path))


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
            f"cannot write {str(path)!r}: {error.strerror or error}; check that the folder is "
            "writable and the disk has space left."
        ) from error


@contextmanager
def atomic_write(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a temporary path for a file, and move the file to its place if no error occurs.

    Parameters
    ----------
    path : Path
        File to write; symbolic links are followed.
    overwrite : bool
        Whether an existing file may be replaced.

    Yields
    ------
    Path
        Path to write to, with the name of the file.

    Raises
    ------
    FileExistsError
        If the file exists and ``overwrite`` is False.
    OSError
        If the file cannot be written.
    """
    check_target(path, overwrite)
    with write_errors(path), temporary_folder(path.resolve().parent) as folder:
        temporary = folder / path.name
        yield temporary
        move_into_place(temporary, path, overwrite=overwrite)


def write_bytes(path: Path, content: bytes, *, overwrite: bool = True) -> None:
    """Write a file atomically.

    Parameters
    ----------
    path : Path
        File to write.
    content : bytes
        Content of the file.
    overwrite : bool
        Whether an existing file may be replaced.

    Raises
    ------
    FileExistsError
        If the file exists and ``overwrite`` is False.
    OSError
        If the file cannot be written.
    """
    with atomic_write(path, overwrite=overwrite) as temporary:
        temporary.write_bytes(content)


def save_figure(figure: Any, path: Path, **options: Any) -> None:
    """Write a figure atomically; an existing file is replaced.

    Parameters
    ----------
    figure : `~matplotlib.figure.Figure`
        Figure to write.
    path : Path
        File to write; its ending selects the format.
    **options : object
        Keyword arguments of ``figure.savefig``.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    with atomic_write(path, overwrite=True) as temporary:
        figure.savefig(temporary, **options)


@contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """Make a locked temporary folder and remove it at the end.

    Folders left by killed processes are removed first.

    Parameters
    ----------
    parent : Path
        Folder in which to make it.

    Yields
    ------
    Path
        The new, empty folder.
    """
    _remove_leftovers(parent)
    folder, lock = _locked_folder(parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def move_into_place(temporary: Path, path: Path, *, overwrite: bool) -> None:
    """Move a complete file to its target in one step.

    Parameters
    ----------
    temporary : Path
        The complete file, in the file system of the target.
    path : Path
        Target; symbolic links are followed.
    overwrite : bool
        Whether an existing file may be replaced.

    Raises
    ------
    FileExistsError
        If the target exists and ``overwrite`` is False.
    """
    target = path.resolve()
    if overwrite:
        os.replace(temporary, target)
        return
    try:
        # Unlike a rename, a new link fails if the target exists.
        os.link(temporary, target)
    except FileExistsError:
        raise FileExistsError(_exists(path)) from None
    except OSError:
        # The file system has no hard links: claim the name with an empty file.
        try:
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            raise FileExistsError(_exists(path)) from None
        try:
            os.replace(temporary, target)
        except BaseException:
            target.unlink(missing_ok=True)
            raise


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Lock a folder, so that two processes do not write the same files.

    The operating system releases the lock of a killed process. Where folders cannot be locked
    (Windows, some network file systems), nothing is done.

    Parameters
    ----------
    folder : Path
        Folder that exists.

    Raises
    ------
    BlockingIOError
        If another process holds the lock.
    """
    try:
        lock = _lock(folder, wait=False)
    except BlockingIOError:
        raise BlockingIOError(
            f"another process is writing to {folder}; wait for it, or choose another folder."
        ) from None
    except OSError:
        lock = None
    try:
        yield
    finally:
        if lock is not None:
            os.close(lock)


def _exists(path: Path) -> str:
    return f"{str(path)!r} already exists; pass overwrite=True to replace it."


def _locked_folder(parent: Path) -> tuple[Path, int | None]:
    """Return a new folder and the descriptor that locks it; None where there are no locks."""
    while True:
        folder = parent / f"{_PREFIX}{uuid.uuid4().hex}{_SUFFIX}"
        folder.mkdir()
        lock = None
        try:
            lock = _lock(folder, wait=True)
        except FileNotFoundError:
            pass
        except OSError:
            return folder, None
        # Another process may have removed the folder before it was locked.
        if folder.exists():
            return folder, lock
        if lock is not None:
            os.close(lock)


def _lock(folder: Path, *, wait: bool) -> int | None:
    """Lock a folder and return the descriptor; None where there are no locks."""
    if sys.platform == "win32":
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _remove_leftovers(parent: Path) -> None:
    """Remove the temporary folders of processes that were killed."""
    try:
        found = list(parent.glob(f"{_PREFIX}*{_SUFFIX}"))
    except OSError:
        return
    for folder in found:
        lock = None
        try:
            lock = _lock(folder, wait=False)
        except BlockingIOError:
            # Its process lives.
            continue
        except OSError:
            pass
        if lock is not None or _is_old(folder):
            shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _is_old(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > _MAX_AGE
    except OSError:
        return False
