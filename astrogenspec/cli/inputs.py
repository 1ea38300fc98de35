"""What the commands that read galaxies share: cutouts and catalogues in, and checks before the work begins."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..flags import Flag
from ..inputs.errors import INPUT_ERRORS, galaxy_of, rewrite_error
from ..inputs.fluxes import check_bands
from .tables import is_table, prepare_catalogue, read_table

if TYPE_CHECKING:
    from astropy.nddata import CCDData
    from astropy.table import QTable

__all__ = [
    "FLAGGED",
    "Galaxies",
    "Images",
    "check_output",
    "figure_path",
    "naming_the_file",
    "read_inputs",
]

#: Exit status if a galaxy is flagged.
FLAGGED = 3
_INPUT_FLAGS = (
    Flag.IMAGE_NOT_USED | Flag.PHOTOMETRY_NOT_USED | Flag.MORPHOLOGY_NOT_USED | Flag.NO_DATA
)


@dataclass(frozen=True)
class Galaxies:
    """What a command was given to work on.

    Attributes
    ----------
    images : Images or None
        Cutouts, one file a galaxy.
    photometry : `~astropy.table.QTable` or None
        A row for each galaxy.
    """

    images: Images | None
    photometry: QTable | None

    def __len__(self) -> int:
        if self.images is not None:
            return len(self.images)
        return 0 if self.photometry is None else len(self.photometry)

    @property
    def files(self) -> Sequence[Path]:
        """The files of the cutouts; empty if there are none."""
        return () if self.images is None else self.images.files

    def names(self) -> tuple[str, ...]:
        """Give the names of the galaxies.

        Returns
        -------
        tuple of str
            Of the column ``name`` of the photometry, or of the cutouts, which are read for that; the numbers of the
            galaxies if they have no names.

        Raises
        ------
        OSError, ValueError, TypeError, astropy.units.UnitsError
            If a cutout cannot be read, unless it is to be flagged.
        """
        if self.photometry is not None and "name" in self.photometry.colnames:
            return tuple(map(str, self.photometry["name"].tolist()))
        if self.images is not None:
            return self.images.names()
        return tuple(map(str, range(len(self))))


class Images:
    """Cutouts that are read from their files one by one, each time they are asked for.

    Parameters
    ----------
    files : sequence of path
        One galaxy each.
    bands : sequence of str, optional
        Bands to use; all by default.
    on_error : {"raise", "flag"}
        Raise the error of a file that cannot be read, or note the reason and give None in its place.
    name_by_file : bool
        Name a galaxy without name by its file.

    Attributes
    ----------
    files : sequence of path
    reasons : dict of int to str
        Why files could not be read, by the number of the galaxy, as far as they were asked for.
    """

    def __init__(
        self,
        files: Sequence[Path],
        bands: Sequence[str] | None,
        on_error: str,
        name_by_file: bool,
    ) -> None:
        self.files = files
        self.reasons: dict[int, str] = {}
        self._bands = bands
        self._on_error = on_error
        self._name_by_file = name_by_file

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[dict[str, CCDData] | None]:
        from ..inputs.cutout_fits import read_cutout_fits

        for k, path in enumerate(self.files):
            try:
                yield self._prepared(read_cutout_fits(path), path)
            except (OSError, *INPUT_ERRORS) as error:
                if self._on_error == "raise":
                    raise
                self.reasons[k] = " ".join(str(error).split()).rstrip(".")
                yield None

    def _prepared(self, images: dict[str, CCDData], path: Path) -> dict[str, CCDData]:
        if self._bands is not None:
            images = {band: image for band, image in images.items() if band in self._bands}
            if not images:
                raise ValueError(f"{path} has none of the bands {', '.join(self._bands)}.")
        first = next(iter(images.values()))
        if self._name_by_file and not any("NAME" in image.meta for image in images.values()):
            first.meta["NAME"] = (
                path.name.removesuffix(".gz").removesuffix(path.suffix).removesuffix(".fits")
            )
        return images

    def names(self) -> tuple[str, ...]:
        """Read the cutouts for their names.

        Returns
        -------
        tuple of str
            That of the file for one that cannot be read, and the number of a galaxy without name.

        Raises
        ------
        OSError, ValueError, TypeError, astropy.units.UnitsError
            If a file cannot be read, unless it is to be flagged.
        """
        names = []
        for k, galaxy in enumerate(self):
            if galaxy is None:
                names.append(self.files[k].stem)
                continue
            stored = (str(image.meta.get("NAME", "")) for image in galaxy.values())
            names.append(next(filter(None, stored), str(k)))
        return tuple(names)

    def with_reasons(
        self,
        names: Sequence[str],
        flags: Sequence[str],
        codes: np.ndarray,
        start: int = 0,
    ) -> tuple[list[str], list[str], np.ndarray]:
        """Add the reasons why files could not be read to the flags.

        Parameters
        ----------
        names, flags : sequence of str
            Names and flags of some galaxies, from an estimator.
        codes : ndarray of int64
            Flag codes of these galaxies.
        start : int
            Index of the first of them.

        Returns
        -------
        names, flags : list of str
        codes : ndarray of int64
        """
        names, flags, codes = list(names), list(flags), np.array(codes)
        for k, reason in self.reasons.items():
            row = k - start
            if not 0 <= row < len(names):
                continue
            # Without another reason, the flag only says that there are no data, which the file explains.
            explained = codes[row] & _INPUT_FLAGS == Flag.NO_DATA
            flags[row] = "; ".join(filter(None, (reason, "" if explained else flags[row])))
            codes[row] |= Flag.FILE_NOT_READ
            if names[row] == str(k):
                names[row] = self.files[k].stem
        return names, flags, codes


def read_inputs(options: argparse.Namespace) -> Galaxies:
    """Tell cutouts from a catalogue, and make both ready for an estimator.

    Parameters
    ----------
    options : `argparse.Namespace`
        With ``input``, ``photometry``, ``bands``, ``flux_unit`` and ``on_error``.

    Returns
    -------
    Galaxies

    Raises
    ------
    FileNotFoundError, OSError
        If a file is missing or holds no table.
    ValueError
        If the files are of different kinds, or bands or units are not known.
    """
    bands = None if options.bands is None else check_bands(options.bands, "--bands")
    files, table = _sorted_out(options)
    photometry = None if table is None else prepare_catalogue(table, bands, options.flux_unit)
    if not files:
        return Galaxies(None, photometry)
    unnamed = photometry is None or "name" not in photometry.colnames
    return Galaxies(Images(files, bands, options.on_error, unnamed), photometry)


def _sorted_out(options: argparse.Namespace) -> tuple[list[Path], QTable | None]:
    for path in options.input:
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}.")
    tables = [path for path in options.input if is_table(path)]
    if not tables:
        return options.input, None if options.photometry is None else read_table(options.photometry)
    if len(options.input) > 1 or options.photometry is not None:
        raise ValueError(
            f"{tables[0]} is a table: give one catalogue alone, or FITS cutouts and the table as --photometry."
        )
    return [], read_table(tables[0])


def check_output(path: Path, overwrite: bool) -> None:
    """Find out before the work, not after it, that a file cannot be written.

    Parameters
    ----------
    path : path
    overwrite : bool
        Whether it may exist.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    PermissionError
        If the folder cannot be written to.
    FileExistsError
        If the file exists and may not.
    """
    folder = path.expanduser().parent
    if folder.is_dir() and not os.access(folder, os.W_OK):
        raise PermissionError(f"the folder {folder} cannot be written to.")
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder} to write to: make it first.")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists: choose another name, or --overwrite.")


def naming_the_file(error: Exception, files: Sequence[Path]) -> Exception:
    """Put the file of the galaxy that an error is about in front of its sentence.

    Parameters
    ----------
    error : Exception
        One of `astrogenspec.inputs.errors.INPUT_ERRORS`, as an estimator raised it.
    files : sequence of path
        The cutouts.

    Returns
    -------
    Exception
        The same one if it is about no file, or names it.
    """
    k = 0 if len(files) == 1 else galaxy_of(error)
    # The reader names the file itself.
    if k is None or k >= len(files) or str(files[k]) in str(error):
        return error
    return rewrite_error(error, f"{files[k]}: {error}")


def figure_path(folder: Path, names: Sequence[str], k: int) -> Path:
    """Give the path of the figure of a galaxy.

    Parameters
    ----------
    folder : path
    names : sequence of str
        Of all galaxies.
    k : int
        Number of the galaxy.

    Returns
    -------
    path
        A PNG named after the galaxy, and its number if there are several.
    """
    stem = re.sub(r"[^\w.+-]+", "_", names[k]) or "galaxy"
    return folder / (f"{k:05d}_{stem}.png" if len(names) > 1 else f"{stem}.png")
