"""Readers of specutils and astropy for the files of this package.

specutils has no entry points for readers. It knows those that a program registers, and those that
the Python files in the folder ``.specutils`` of the user register when it is imported.
`register_readers` does the first, and with ``permanent=True`` the second.

The modules that read are imported when a file is read, so that an import of specutils stays fast.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from astropy.io import fits

from ..atomic import atomic_write
from .spectrum_header import register_reader

if TYPE_CHECKING:
    from astropy.nddata import CCDData
    from specutils import SpectrumList

__all__ = ["FORMAT", "register_readers"]

FORMAT = "astrogenspec"
#: File that specutils runs when it is imported; it stays silent without this package.
_PERMANENT = '''\
"""Readers of astrogenspec for specutils. Delete this file to remove them."""

from importlib import import_module

try:
    register_readers = import_module("astrogenspec").register_readers
except ImportError:
    pass
else:
    register_readers()
'''


def register_readers(*, permanent: bool = False) -> None:
    """Register the readers of specutils for the files of this package.

    Afterwards ``Spectrum.read(path, format="astrogenspec")`` reads a spectrum written by
    ``spectra.best.write`` or the best spectrum of the first galaxy of a file of ``SpectrumDraws``,
    and ``SpectrumList.read(path, format="astrogenspec")`` the best spectra of all galaxies, with
    redshift, uncertainty, mask and flags. ``Spectrum.read`` needs no format. In the same way,
    ``CCDData.read(path, format="astrogenspec", band="r")`` reads one band of a cutout file
    (`astrogenspec.read_cutout_fits` reads all).

    Parameters
    ----------
    permanent : bool
        Whether to register them in all programs of this user, too, as soon as they import
        specutils: writes the file ``~/.specutils/astrogenspec_readers.py``.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    _register()
    if permanent:
        folder = Path.home() / ".specutils"
        folder.mkdir(exist_ok=True)
        with atomic_write(folder / "astrogenspec_readers.py", overwrite=True) as temporary:
            temporary.write_text(_PERMANENT, encoding="utf-8")


@cache
def _register() -> None:
    from astropy.io import registry
    from astropy.nddata import CCDData
    from specutils import SpectrumList
    from specutils.io.registers import data_loader

    register_reader()
    loader = data_loader(
        FORMAT,
        identifier=_has_draws,
        dtype=SpectrumList,
        extensions=["fits", "fit"],
        priority=20,
        force=True,
    )
    loader(_read_list)
    registry.register_reader(FORMAT, CCDData, _read_band, force=True)


def _read_band(path: str | os.PathLike[str], *, band: str | None = None) -> CCDData:
    from ..inputs.cutout_fits import read_cutout_fits

    images = read_cutout_fits(path)
    if band is None and len(images) == 1:
        return next(iter(images.values()))
    if band is None or band not in images:
        raise ValueError(
            f"band is {band!r}, but {os.fspath(path)} has the bands {', '.join(images)}; choose "
            "one of them."
        )
    return images[band]


def _has_draws(origin: str, *args: Any, **kwargs: Any) -> bool:
    from specutils.io.parsing_utils import read_fileobj_or_hdulist

    with read_fileobj_or_hdulist(*args, **kwargs) as units:
        table = len(units) > 1 and isinstance(units[1], fits.BinTableHDU)
        return table and units[0].header.get("CREATOR") == FORMAT


def _read_list(file: Any, **kwargs: Any) -> SpectrumList:
    from specutils import Spectrum, SpectrumList

    from .spectra_io import read_spectra
    from .spectrum_arrays import SpectrumArrays
    from .specutils_views import best_spectra

    path = Path(os.fspath(file)) if isinstance(file, str | os.PathLike) else None
    if path is None:
        return SpectrumList([Spectrum.read(file, format=FORMAT)])
    with fits.open(path) as units:
        several = "DRAWS" in units
    if not several:
        return SpectrumList([Spectrum.read(path, format=FORMAT)])
    found = best_spectra(SpectrumArrays(**read_spectra(path, None)))
    return found if isinstance(found, SpectrumList) else SpectrumList([found])
