"""Files with one image each: which of them are the bands of one galaxy.

The band of a file is that of its header (`astrogenspec.inputs.image_files.inspect_band_file`) or,
if the header names none, the only word of the file name that is a band: ``ngc7_r.fits``,
``r.fits``.  Files whose names differ in the band only belong together.  Files with other names
belong together if their bands differ and each of them contains the centre of the first on the sky.
In all other cases every file is a galaxy of its own.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..surveys import BANDS
from ..warnings import AstroGenSpecWarning
from .astrometry import to_pixel
from .image_files import inspect_band_file

__all__ = ["BandFiles", "group_band_files"]


@dataclass(frozen=True)
class BandFiles:
    """Files of one galaxy.

    Attributes
    ----------
    name : str
        Part of the file names that they have in common; empty if there is none.
    paths : dict of str to path
        Files by band.
    """

    name: str
    paths: dict[str, Path]


@dataclass(frozen=True)
class _BandFile:
    path: Path
    band: str
    rest: str
    name: str
    wcs: object
    shape: tuple[int, ...]


def group_band_files(
    paths: Sequence[Path], n_galaxies: int | None = None
) -> list[Path | BandFiles]:
    """Group files with one image each by galaxy.

    Parameters
    ----------
    paths : sequence of path
        Files of cutouts.
    n_galaxies : int, optional
        Number of galaxies, if known; files are not grouped into another number.

    Returns
    -------
    list of path or BandFiles
        The paths themselves if they are not files of the bands of the same galaxies.

    Warns
    -----
    AstroGenSpecWarning
        If files are grouped.
    """
    separate: list[Path | BandFiles] = list(paths)
    if len(paths) < 2:
        return separate
    files = []
    for path in paths:
        file = _inspect(path)
        if file is None:
            return separate
        files.append(file)
    groups: dict[tuple[Path, str], list[_BandFile]] = {}
    for file in files:
        groups.setdefault((file.path.parent, file.rest), []).append(file)
    if all(len(group) == 1 for group in groups.values()) and _same_field(files):
        groups = {(Path(), ""): files}
    found = list(groups.values())
    if n_galaxies not in (None, len(found)):
        return separate
    if len(found) == len(files) or not all(map(_distinct, found)):
        return separate
    first = found[0]
    names = ", ".join(str(file.path) for file in first)
    more = f" (and likewise {len(found) - 1} other galaxies)" if len(found) > 1 else ""
    warnings.warn(
        f"the files {names} are read as the bands {', '.join(file.band for file in first)} of one "
        f"galaxy{more}.",
        AstroGenSpecWarning,
        stacklevel=2,
    )
    return [
        BandFiles(
            group[0].rest if len({file.rest for file in group}) == 1 else "",
            {file.band: file.path for file in group},
        )
        for group in found
    ]


def _inspect(path: Path) -> _BandFile | None:
    image = inspect_band_file(path)
    if image is None:
        return None
    stem = re.sub(r"(?:\.(?:fits?|fts|gz|bz2|xz|zip|fz))+$", "", path.name, flags=re.IGNORECASE)
    words = [word for word in re.split(r"[\W_]+", stem) if word]
    bands = [word for word in words if word in BANDS]
    band = image.band or (bands[0] if len(bands) == 1 else "")
    if not band:
        return None
    rest = "_".join(word for word in words if word != band)
    return _BandFile(path, band, rest, image.name, image.wcs, image.shape)


def _distinct(files: Sequence[_BandFile]) -> bool:
    """Return whether files have different bands, and no different names of galaxies."""
    names = {file.name for file in files if file.name}
    return len({file.band for file in files}) == len(files) and len(names) < 2


def _same_field(files: Sequence[_BandFile]) -> bool:
    """Return whether all files contain the centre of the first on the sky."""
    first = files[0]
    if not _distinct(files) or any(file.wcs is None for file in files):
        return False
    ny, nx = first.shape
    for file in files[1:]:
        try:
            x, y = to_pixel(first.wcs, (nx - 1) / 2, (ny - 1) / 2, file.wcs)
        except ValueError:
            return False
        if not (np.abs(x) <= file.shape[1] and np.abs(y) <= file.shape[0] and min(x, y) >= 0):
            return False
    return True
