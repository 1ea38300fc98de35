"""Checks of FITS files before they are read: declared sizes, completeness and checksums.

The header of every extension is parsed without reading its data, so that a damaged or hostile file
neither hangs the program nor fills its memory.  The rules are those of the FITS standard, version
4.0 [1]_: a header declares

.. math::

    |\\mathrm{BITPIX}| / 8 \\times \\mathrm{GCOUNT} \\times
    (\\mathrm{PCOUNT} + \\prod_n \\mathrm{NAXIS}n)

bytes of data, and headers and data fill blocks of 2880 bytes.  ``DATASUM`` and ``CHECKSUM`` are
sums of 32-bit words in ones' complement arithmetic.

References
----------
.. [1] Pence, W. D., Chiappetti, L., Page, C. G., Shaw, R. A. & Stobie, E. 2010, A&A, 524, A42.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from .warnings import AstroGenSpecWarning

__all__ = ["CREATOR", "MAX_BYTES", "FitsExtension", "check_damage", "check_fits", "scan_fits"]

#: Value of the keyword CREATOR in files of this package; their keyword NEXTEND is checked.
CREATOR = "astrogenspec"
#: Maximum size of an uncompressed file that is read from a compressed one (bytes).
MAX_BYTES = 1_000_000_000
#: Files that shrink by less than this factor may be larger than `MAX_BYTES`.
_MAX_RATIO = 20
_BLOCK = 2880
_MAX_HEADER = 2000 * _BLOCK
_MAX_EXTENSIONS = 10_000
_CHUNK = 360 * _BLOCK
_BITPIX = (8, 16, 32, 64, -32, -64)


@dataclass(frozen=True)
class FitsExtension:
    """Header of an extension, or of the primary array, as far as it declares the data.

    Attributes
    ----------
    name : str
        Keyword EXTNAME; empty if absent.
    shape : tuple of int
        Lengths of the axes in the order of numpy; empty without data.
    is_image : bool
        Whether the data are an image, tile-compressed or not.
    is_table : bool
        Whether the data are a table.
    damage : str
        Reason why the data are damaged, without a full stop; empty if they are not.
    edited : str
        Warning about a sum that does not match in a way that editing explains, without a full stop:
        the data in a file of other software, or the header in a file of this package.
    """

    name: str
    shape: tuple[int, ...]
    is_image: bool
    is_table: bool
    damage: str = ""
    edited: str = ""


def check_fits(
    path: str | PathLike, *, max_bytes: int | None = None, verify: bool = True
) -> list[FitsExtension]:
    """Check that a FITS file is complete, undamaged and of reasonable size.

    Parameters
    ----------
    path : str or path
        File, compressed or not.
    max_bytes : int, optional
        Maximum size of the uncompressed data. By default `MAX_BYTES`, or 20 times the size of the
        file if that is more.
    verify : bool
        Whether to compare the data with DATASUM.

    Returns
    -------
    list of FitsExtension

    Raises
    ------
    OSError
        If the file is not a FITS file, is truncated or damaged, or declares more than
        ``max_bytes``.

    Warns
    -----
    AstroGenSpecWarning
        As `check_damage`.
    """
    found = scan_fits(path, max_bytes=max_bytes, verify=verify)
    check_damage(path, found)
    return found


def check_damage(path: str | PathLike, extensions: Sequence[FitsExtension]) -> None:
    """Raise if data are damaged, and warn if an extension was edited.

    Parameters
    ----------
    path : str or path
        File, for the error message.
    extensions : sequence of FitsExtension
        Extensions of the file.

    Raises
    ------
    OSError
        If the data of an extension of this package do not match DATASUM.

    Warns
    -----
    AstroGenSpecWarning
        If a sum does not match in a way that editing with other software explains.
    """
    for extension in extensions:
        if extension.damage:
            raise OSError(f"{path} cannot be read as a FITS file: {extension.damage}.")
    edited = [extension.edited for extension in extensions if extension.edited]
    if edited:
        more = f" (and likewise {len(edited) - 1} other extensions)" if len(edited) > 1 else ""
        warnings.warn(f"{path}: {edited[0]}{more}.", AstroGenSpecWarning, stacklevel=2)


def scan_fits(
    path: str | PathLike, *, max_bytes: int | None = None, verify: bool = True
) -> list[FitsExtension]:
    """Check a FITS file as `check_fits` does, but report damaged data instead of raising.

    Parameters
    ----------
    path, max_bytes, verify
        As for `check_fits`.

    Returns
    -------
    list of FitsExtension

    Raises
    ------
    OSError
        If the file is not a FITS file, is truncated, or declares more than ``max_bytes``.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        limit = max(MAX_BYTES, _MAX_RATIO * size) if max_bytes is None else max_bytes
        with _uncompressed(path) as (stream, length):
            return _Scan(stream, length, limit, verify).extensions()
    except _Invalid as error:
        reason = str(error)
    except EOFError:
        reason = "the compressed data are truncated"
    except OSError as error:
        reason = error.strerror or f"the compressed data are damaged ({error})"
    except (zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError, RuntimeError):
        reason = "the compressed data are damaged"
    raise OSError(f"{path} cannot be read as a FITS file: {reason}.")


class _Invalid(Exception):
    """A rule of the standard that a file breaks; without a full stop."""


@contextmanager
def _uncompressed(path: Path) -> Iterator[tuple[BinaryIO, int | None]]:
    """Open a file for reading its uncompressed bytes; their number is None if it is not known."""
    with path.open("rb") as raw:
        magic = raw.read(6)
        raw.seek(0)
        if magic.startswith(b"\x1f\x8b"):
            with gzip.open(raw) as stream:
                yield cast("BinaryIO", stream), None
        elif magic.startswith(b"BZh"):
            with bz2.open(raw) as stream:
                yield cast("BinaryIO", stream), None
        elif magic.startswith(b"\xfd7zXZ\x00"):
            with lzma.open(raw) as stream:
                yield cast("BinaryIO", stream), None
        elif magic.startswith(b"PK\x03\x04"):
            with zipfile.ZipFile(raw) as archive:
                if len(archive.namelist()) != 1:
                    raise _Invalid(
                        f"the archive holds {len(archive.namelist())} files instead of 1"
                    )
                with archive.open(archive.namelist()[0]) as stream:
                    yield cast("BinaryIO", stream), None
        elif magic.startswith(b"\x1f\x9d"):
            raise _Invalid("it is compressed with 'compress'; uncompress it first")
        else:
            yield raw, path.stat().st_size


class _Scan:
    """Walk through the extensions of a file.

    Parameters
    ----------
    stream : file
        Uncompressed bytes.
    length : int or None
        Number of bytes, if known.
    limit : int
        Maximum number of bytes.
    verify : bool
        Whether to check the sums.
    """

    def __init__(self, stream: BinaryIO, length: int | None, limit: int, verify: bool) -> None:
        self._stream = stream
        self._length = length
        self._limit = limit
        self._verify = verify
        self._done = 0
        self._ours = False

    def extensions(self) -> list[FitsExtension]:
        """Return the extensions, or raise `_Invalid`."""
        found: list[FitsExtension] = []
        expected = 0
        while (block := self._stream.read(_BLOCK)) and self._begins(block, not found):
            header, total = self._header(block, len(found))
            if not found:
                self._ours = header.get("CREATOR", "").startswith(CREATOR)
                expected = _integer(header, "NEXTEND", "the primary header", 0) if self._ours else 0
            found.append(self._extension(header, total, len(found)))
            if len(found) > _MAX_EXTENSIONS:
                raise _Invalid(f"it has more than {_MAX_EXTENSIONS} extensions")
        if not found:
            raise _Invalid("it is empty")
        if len(found) - 1 < expected:
            raise _Invalid(
                f"it is truncated: it has {len(found) - 1} extensions, but NEXTEND is {expected}"
            )
        return found

    def _begins(self, block: bytes, first: bool) -> bool:
        """Return whether a block begins a header; False for padding at the end of the file."""
        if first:
            if not block.startswith(b"SIMPLE  ="):
                raise _Invalid("it does not begin with the keyword SIMPLE")
            return True
        if block.startswith(b"XTENSION="):
            return True
        while block:
            if block.strip(b"\0 "):
                raise _Invalid("it is damaged: the end of an extension is not followed by another")
            self._count(len(block))
            block = self._stream.read(_CHUNK)
        return False

    def _count(self, n: int) -> None:
        self._done += n
        if self._done > self._limit:
            raise _Invalid(
                f"it holds more than {self._limit / 1e9:.3g} GB when uncompressed; cut the galaxy "
                "out, or split the table"
            )

    def _header(self, block: bytes, index: int) -> tuple[dict[str, str], int]:
        """Read a header; return the texts of its values, and the sum of its words."""
        header: dict[str, str] = {}
        total = length = 0
        while True:
            if len(block) < _BLOCK:
                raise _Invalid("it is truncated within a header")
            self._count(_BLOCK)
            length += _BLOCK
            total += _sum(block)
            for k in range(0, _BLOCK, 80):
                card = block[k : k + 80].decode("latin-1")
                keyword = card[:8].rstrip()
                if keyword == "END" and not card[8:].strip():
                    return header, total
                if card[8:10] == "= ":
                    header.setdefault(keyword, _value(card[10:]))
            if length >= _MAX_HEADER:
                raise _Invalid(f"the header of extension {index} has no END")
            block = self._stream.read(_BLOCK)

    def _extension(self, header: Mapping[str, str], total: int, index: int) -> FitsExtension:
        name = "".join(filter(str.isprintable, header.get("EXTNAME", "")))
        what = f"extension {name[:40] or index}" if index else "the primary header"
        if not index and header["SIMPLE"] != "T":
            raise _Invalid(f"its keyword SIMPLE is {header['SIMPLE']!r} instead of T")
        shape, size = _declared(header, what)
        kind = header.get("XTENSION", "IMAGE")
        tiled = header.get("ZIMAGE") == "T"
        if tiled:
            shape, expanded = _declared(header, what, "Z")
            if expanded > self._limit:
                self._refuse_size(what, expanded)
        if kind == "BINTABLE":
            n_fields = _integer(header, "TFIELDS", what)
            if not 0 <= n_fields <= 999:
                raise _Invalid(f"TFIELDS of {what} is {n_fields}, but it must be between 0 and 999")
        data_sum = self._data(header, size, what)
        damage, edited = self._compare_sums(header, total, data_sum, what)
        return FitsExtension(
            name,
            shape,
            bool(shape)
            and (tiled or kind in ("IMAGE", "IUEIMAGE"))
            and header.get("GROUPS") != "T",
            not tiled and kind in ("BINTABLE", "TABLE", "A3DTABLE"),
            damage,
            edited,
        )

    def _refuse_size(self, what: str, size: int) -> None:
        raise _Invalid(
            f"{what} declares {size / 1e9:.3g} GB of data, more than the limit of "
            f"{self._limit / 1e9:.3g} GB"
        )

    def _data(self, header: Mapping[str, str], size: int, what: str) -> int:
        """Skip the data, or read them for their sum."""
        padded = -(-size // _BLOCK) * _BLOCK
        truncated = f"it is truncated: {what} declares {size} bytes of data"
        if self._length is not None and self._done + size > self._length:
            raise _Invalid(f"{truncated}, but {max(self._length - self._done, 0)} follow")
        if self._done + size > self._limit:
            self._refuse_size(what, size)
        self._done += padded
        if self._length is not None and not (self._verify and "DATASUM" in header):
            self._stream.seek(padded, 1)
            return 0
        total = read = 0
        while read < padded:
            chunk = self._stream.read(min(_CHUNK, padded - read))
            if not chunk:
                break
            total += _sum(chunk)
            read += len(chunk)
        # The padding of the last block is sometimes left out.
        if read < size:
            raise _Invalid(f"{truncated}, but {read} follow")
        return total

    def _compare_sums(
        self, header: Mapping[str, str], header_sum: int, data_sum: int, what: str
    ) -> tuple[str, str]:
        """Return the damage of the data, and a warning about an extension that was edited."""
        stated = header.get("DATASUM", "").strip()
        if not self._verify or not stated:
            return "", ""
        advice = "it is damaged, or was edited without checksum=True"
        if not stated.isdecimal() or int(stated) != _fold(data_sum):
            text = f"the data of {what} do not match DATASUM: {advice}"
            # Other software often changes data without updating the sums.
            return (text, "") if self._ours else ("", text)
        has_sum = self._ours and header.get("CHECKSUM", "").strip()
        if has_sum and _fold(header_sum + data_sum) != 0xFFFFFFFF:
            return "", f"{what} does not match its CHECKSUM: {advice}"
        return "", ""


def _value(text: str) -> str:
    """Return the value of a card as text, without quotes and comment."""
    text = text.strip()
    if text.startswith("'"):
        end = text.find("'", 1)
        while end > 0 and text[end + 1 : end + 2] == "'":
            end = text.find("'", end + 2)
        return text[1 : end if end > 0 else None].replace("''", "'").rstrip()
    return text.partition("/")[0].strip()


def _integer(header: Mapping[str, str], keyword: str, what: str, default: int | None = None) -> int:
    text = header.get(keyword)
    if text is None and default is not None:
        return default
    try:
        return int(text or "")
    except ValueError:
        shown = "missing" if text is None else repr(text[:40])
        raise _Invalid(f"{keyword} of {what} is {shown}, but it must be an integer") from None


def _declared(
    header: Mapping[str, str], what: str, prefix: str = ""
) -> tuple[tuple[int, ...], int]:
    """Return the shape and the number of bytes of the data that a header declares."""
    bits = _integer(header, f"{prefix}BITPIX", what)
    if bits not in _BITPIX:
        raise _Invalid(f"{prefix}BITPIX of {what} is {bits}, which the standard does not know")
    n_axes = _integer(header, f"{prefix}NAXIS", what)
    if not 0 <= n_axes <= 999:
        raise _Invalid(f"{prefix}NAXIS of {what} is {n_axes}, but it must be between 0 and 999")
    lengths = []
    for k in range(1, n_axes + 1):
        lengths.append(_integer(header, f"{prefix}NAXIS{k}", what))
        if lengths[-1] < 0:
            raise _Invalid(
                f"{prefix}NAXIS{k} of {what} is {lengths[-1]}, but it must not be negative"
            )
    shape = tuple(reversed(lengths))
    groups = header.get("GROUPS") == "T" and lengths[:1] == [0]
    n_values = (
        int(np.prod(np.array(lengths[1:] if groups else lengths, dtype=object))) if lengths else 0
    )
    extra = 0 if prefix else _integer(header, "PCOUNT", what, 0)
    n_groups = 1 if prefix else _integer(header, "GCOUNT", what, 1)
    if extra < 0 or n_groups < 0:
        raise _Invalid(f"PCOUNT and GCOUNT of {what} are {extra} and {n_groups}: one is negative")
    return shape, abs(bits) // 8 * n_groups * (extra + n_values)


def _sum(data: bytes) -> int:
    """Add 32-bit words; the carry is added by `_fold`."""
    if len(data) % 4:
        data += bytes(-len(data) % 4)
    return int(np.frombuffer(data, ">u4").sum(dtype=np.uint64))


def _fold(total: int) -> int:
    """Add the carry of a sum in ones' complement arithmetic."""
    while total >> 32:
        total = (total & 0xFFFFFFFF) + (total >> 32)
    return total
