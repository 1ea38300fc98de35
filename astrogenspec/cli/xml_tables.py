"""Check XML tables (VOTable) before they are read.

The data of a VOTable may be at another address (``STREAM href``), which astropy would open, and its
document type may declare entities, which may expand to any size or refer to other files.  Neither
is needed for a table in one file.
"""

from __future__ import annotations

from pathlib import Path
from xml.parsers import expat

from astropy.utils.data import get_readable_fileobj

__all__ = ["check_xml"]

#: Maximum size (bytes) of a file after decompression.
_MAX_BYTES = 1_000_000_000
_BLOCK = 1 << 20
#: Bytes that may precede the first angle bracket: marks of the byte order and white space.
_LEADING = b"\xef\xbb\xbf\xff\xfe\x00 \t\r\n"


def check_xml(path: Path) -> None:
    """Refuse an XML file that refers to data outside of it.

    Parameters
    ----------
    path : Path
        File of any format, compressed or not. Files that do not begin as XML pass.

    Raises
    ------
    OSError
        If an element STREAM has an address, or the document type declares entities, or the file is
        too large.
    """
    parser = expat.ParserCreate()
    parser.StartElementHandler = lambda name, attributes: _check_element(path, name, attributes)
    parser.EntityDeclHandler = lambda *declaration: _refuse_entity(path)
    with get_readable_fileobj(path, encoding="binary", cache=False) as stream:
        block, total = stream.read(_BLOCK), 0
        if not block.lstrip(_LEADING).startswith(b"<"):
            return
        while block:
            total += len(block)
            if total > _MAX_BYTES:
                raise OSError(
                    f"{path} holds more than {_MAX_BYTES / 1e9:.3g} GB of XML; split the table, "
                    "or save it as FITS."
                )
            try:
                parser.Parse(block)
            except expat.ExpatError:
                # The reader stops at the same place.
                return
            block = stream.read(_BLOCK)


def _check_element(path: Path, name: str, attributes: dict[str, str]) -> None:
    if name.rpartition(":")[2].upper() != "STREAM":
        return
    for key, address in attributes.items():
        if key.rpartition(":")[2].lower() == "href":
            raise OSError(
                f"{path} has its data at another address ({address[:100]!r}), which is never "
                "opened; save the table with its data in one file."
            )


def _refuse_entity(path: Path) -> None:
    raise OSError(
        f"{path} declares XML entities, which are never expanded; save the table without a "
        "document type."
    )
