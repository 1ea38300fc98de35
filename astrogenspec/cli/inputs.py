"""Inputs shared by the commands: cutouts and catalogues, and checks of the output."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..flags import Flag
from ..inputs.band_files import BandFiles, group_band_files
from ..inputs.catalogues import read_names
from ..inputs.errors import INPUT_ERRORS, galaxy_of, reason_of, rewrite_error, with_advice
from ..inputs.fluxes import check_bands
from ..surveys import BANDS
from ..warnings import AstroGenSpecWarning, filtered_warnings
from .tables import is_table, named_surveys, prepare_catalogue, read_table

if TYPE_CHECKING:
    from astropy.nddata import CCDData
    from astropy.table import QTable, Table

    from ..surveys import Survey

__all__ = [
    "FLAGGED",
    "Galaxies",
    "Images",
    "check_output",
    "figure_path",
    "printable",
    "read_inputs",
    "with_file_name",
]

#: What users of the command line can do about a galaxy that cannot be used.
_ON_ERROR_ADVICE = "use --on-error flag to flag such galaxies and continue"
#: Exit status if a galaxy is flagged.
FLAGGED = 3
#: Columns of a catalogue, in lower case, that are copied to the output.
_KEPT_COLUMNS = frozenset(
    ("ra", "dec", "raj2000", "dej2000", "ra_icrs", "de_icrs", "coord_ra", "coord_dec")
    + (
        "id",
        "objid",
        "coadd_object_id",
        "designation",
        "object_id",
        "objectid",
        "source_id",
        "specobjid",
        "plate",
        "mjd",
        "fiberid",
    )
)
_INPUT_FLAGS = (
    Flag.IMAGE_NOT_USED | Flag.PHOTOMETRY_NOT_USED | Flag.MORPHOLOGY_NOT_USED | Flag.NO_DATA
)


@dataclass(frozen=True)
class Galaxies:
    """Galaxies given to a command.

    Attributes
    ----------
    images : Images or None
        Cutouts, one file for each galaxy.
    photometry : `~astropy.table.QTable` or None
        Photometry, one row for each galaxy.
    surveys : tuple of `~astrogenspec.surveys.Survey`, or None
        Surveys of the photometry, if they were named.
    in_fibre : bool
        Whether the photometry is that in a fibre.
    """

    images: Images | None
    photometry: QTable | None
    surveys: tuple[Survey, ...] | None = None
    in_fibre: bool = False

    def photometry_arguments(self, ebv: float | None, on_error: str) -> dict[str, Any]:
        """Return the arguments of an estimator that concern the photometry.

        Parameters
        ----------
        ebv : float or None
            Galactic E(B-V) of all galaxies.
        on_error : {"raise", "flag"}
            Whether a galaxy that cannot be used is an error.

        Returns
        -------
        dict
            ``photometry``, ``survey`` and ``ebv``.
        """
        if not self.in_fibre:
            return {"photometry": self.photometry, "survey": self.surveys, "ebv": ebv}
        from ..inputs.photometry import coerce_photometry

        # The limits of the weights are applied by the estimator.
        batch = coerce_photometry(
            self.photometry,
            survey=self.surveys,
            ebv=ebv,
            on_error=on_error,
            screening=False,
            aperture="fibre",
        )
        return {"photometry": batch, "survey": None, "ebv": None}

    def kept_columns(self) -> Table | None:
        """Return the positions and identifiers of the catalogue, which the output keeps.

        Returns
        -------
        `~astropy.table.Table` or None
            None without a catalogue.
        """
        if self.photometry is None:
            return None
        names = [n for n in self.photometry.colnames if n.lower() in _KEPT_COLUMNS]
        return self.photometry[names] if names else None

    def __len__(self) -> int:
        if self.images is not None:
            return len(self.images)
        return 0 if self.photometry is None else len(self.photometry)

    def check_photometry(self, ebv: float | None, on_error: str) -> None:
        """Raise before the networks are loaded if the photometry cannot be used.

        Parameters
        ----------
        ebv : float or None
            Galactic E(B-V) of all galaxies.
        on_error : {"raise", "flag"}
            Whether a galaxy that cannot be used is an error.

        Raises
        ------
        ValueError, TypeError, astropy.units.UnitsError
            If the table, or with "raise" a galaxy, cannot be used.
        """
        from ..inputs.photometry import coerce_photometry

        if self.photometry is None:
            return
        try:
            # Warnings are issued again by the estimator.
            with filtered_warnings("ignore", AstroGenSpecWarning):
                coerce_photometry(self.photometry, survey=self.surveys, ebv=ebv, on_error=on_error)
        except INPUT_ERRORS as error:
            if galaxy_of(error) is None:
                raise
            raise with_advice(error, _ON_ERROR_ADVICE) from error

    @property
    def files(self) -> Sequence[Path]:
        """Files of the cutouts; empty if there are none."""
        return () if self.images is None else self.images.files

    def names(self) -> tuple[tuple[str, ...], np.ndarray]:
        """Return the names of the galaxies.

        Returns
        -------
        names : tuple of str
            Column ``name`` of the photometry, or names of the cutouts (which are read for this
            purpose), or the numbers of the galaxies.
        named : ndarray of bool
            Whether a galaxy has a name, rather than a number.

        Raises
        ------
        OSError, ValueError, TypeError, astropy.units.UnitsError
            If a cutout cannot be read and ``on_error`` is "raise".
        """
        if self.photometry is not None and "name" in self.photometry.colnames:
            return read_names(self.photometry["name"], len(self))
        if self.images is not None:
            return self.images.names()
        return tuple(map(str, range(len(self)))), np.zeros(len(self), bool)


class Images:
    """Cutouts that are read from their files during each iteration.

    Parameters
    ----------
    files : sequence of path or BandFiles
        Files, one for each galaxy, or one for each of its bands.
    bands : sequence of str, optional
        Bands to use; all by default.
    on_error : {"raise", "flag"}
        Raise if a file cannot be read, or record the reason and yield None.
    name_by_file : bool
        Whether to name an unnamed galaxy after its file.
    zero_point : float, optional
        AB magnitude of one count, for images in counts.

    Attributes
    ----------
    files : sequence of path
        Files, the first of each galaxy.
    reasons : dict of int to str
        Reasons why files could not be read, by index of the galaxy; filled during iteration.
    """

    def __init__(
        self,
        files: Sequence[Path | BandFiles],
        bands: Sequence[str] | None,
        on_error: str,
        name_by_file: bool,
        *,
        zero_point: float | None = None,
    ) -> None:
        self.files = [
            file if isinstance(file, Path) else next(iter(file.paths.values())) for file in files
        ]
        self._sources = files
        self._zero_point = zero_point
        self.reasons: dict[int, str] = {}
        self._bands = bands
        self._on_error = on_error
        self._name_by_file = name_by_file

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[dict[str, CCDData] | None]:
        for k, source in enumerate(self._sources):
            try:
                yield self._prepared(self._read(source), source)
            except (OSError, *INPUT_ERRORS) as error:
                if self._on_error == "raise":
                    raise
                self.reasons[k] = " ".join(str(error).split()).rstrip(".")
                yield None

    def _read(self, source: Path | BandFiles) -> dict[str, CCDData]:
        from ..inputs.cutout_fits import read_cutout_fits
        from ..inputs.image_files import read_band_file

        if isinstance(source, Path):
            return read_cutout_fits(source, zero_point=self._zero_point)
        return {
            band: read_band_file(path, band, self._zero_point)
            for band, path in source.paths.items()
        }

    def _prepared(self, images: dict[str, CCDData], source: Path | BandFiles) -> dict[str, CCDData]:
        path = source if isinstance(source, Path) else next(iter(source.paths.values()))
        if self._bands is not None:
            images = {band: image for band, image in images.items() if band in self._bands}
            if not images:
                raise ValueError(
                    f"{path} has none of the requested bands {', '.join(self._bands)}; choose "
                    "other --bands."
                )
        first = next(iter(images.values()))
        if self._name_by_file and not any("NAME" in image.meta for image in images.values()):
            first.meta["NAME"] = (
                path.name.removesuffix(".gz").removesuffix(path.suffix).removesuffix(".fits")
                if isinstance(source, Path)
                else source.name or path.resolve().parent.name
            )
        return images

    def names(self) -> tuple[tuple[str, ...], np.ndarray]:
        """Read the names of the cutouts.

        Returns
        -------
        names : tuple of str
            Name of the file if it cannot be read; number of the galaxy if it has no name.
        named : ndarray of bool
            Whether a galaxy has a name, rather than a number.

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
            names.append(next(filter(None, stored), ""))
        named = np.array([name != "" for name in names], dtype=bool)
        return tuple(name or str(k) for k, name in enumerate(names)), named

    def with_reasons(
        self,
        names: Sequence[str],
        flags: Sequence[str],
        codes: np.ndarray,
        named: np.ndarray,
        start: int = 0,
    ) -> tuple[list[str], list[str], np.ndarray, np.ndarray]:
        """Add the reasons why files could not be read to the flags.

        Parameters
        ----------
        names, flags : sequence of str
            Names and flags of some galaxies, from an estimator.
        codes : ndarray of int64
            Flag codes of these galaxies.
        named : ndarray of bool
            Whether they have names; the others are named after their files.
        start : int
            Index of the first of them.

        Returns
        -------
        names, flags : list of str
        codes : ndarray of int64
        named : ndarray of bool
        """
        names, flags, codes, named = list(names), list(flags), np.array(codes), np.array(named)
        for k, reason in self.reasons.items():
            row = k - start
            if not 0 <= row < len(names):
                continue
            # Without another reason, the flag only says that there are no data, which the file
            # explains.
            explained = codes[row] & _INPUT_FLAGS == Flag.NO_DATA
            flags[row] = "; ".join(filter(None, (reason, "" if explained else flags[row])))
            codes[row] |= Flag.FILE_NOT_READ
            if not named[row]:
                names[row], named[row] = self.files[k].stem, True
        return names, flags, codes, named


def read_inputs(options: argparse.Namespace) -> Galaxies:
    """Read the catalogue and locate the cutouts given on the command line.

    Parameters
    ----------
    options : `argparse.Namespace`
        Options ``input``, ``photometry``, ``survey``, ``bands``, ``flux_unit`` and ``on_error``.

    Returns
    -------
    Galaxies

    Raises
    ------
    FileNotFoundError, OSError
        If a file does not exist or cannot be read as a table.
    ValueError
        If files of different kinds are mixed, or surveys, bands or units are unknown.
    """
    surveys = named_surveys(options.survey)
    known = BANDS if surveys is None else [band for each in surveys for band in each.bands]
    bands = None
    if options.bands is not None:
        bands = check_bands(options.bands, "--bands", tuple(dict.fromkeys(known)))
    files, table = _sorted_out(options)
    photometry = None
    if table is not None:
        photometry = prepare_catalogue(table, bands, options.flux_unit, surveys)
    elif surveys is not None:
        raise ValueError("--survey is that of photometry, but none was given; leave it out.")
    if not files:
        return Galaxies(None, photometry, surveys, options.fibre_photometry)
    if options.fibre_photometry:
        raise ValueError(
            "--fibre-photometry is for catalogues without images, on which total fluxes are "
            "measured; leave it out."
        )
    unnamed = photometry is None or "name" not in photometry.colnames
    groups = group_band_files(files, None if photometry is None else len(photometry))
    images = Images(groups, bands, options.on_error, unnamed, zero_point=options.zero_point)
    return Galaxies(images, photometry, surveys)


def _sorted_out(options: argparse.Namespace) -> tuple[list[Path], QTable | None]:
    for path in options.input:
        if not path.is_file():
            raise FileNotFoundError(f"the input file {path} does not exist.")
    tables = [path for path in options.input if is_table(path)]
    if not tables:
        return options.input, None if options.photometry is None else read_table(options.photometry)
    if len(options.input) > 1 or options.photometry is not None:
        raise ValueError(
            f"{tables[0]} is a table, which cannot be combined with other input; give one "
            "catalogue, or FITS cutouts with the table as --photometry."
        )
    return [], read_table(tables[0])


def check_output(path: Path, overwrite: bool, inputs: Sequence[Path | None] = ()) -> None:
    """Raise before the computation if the output cannot be written.

    Parameters
    ----------
    path : path
        Output file.
    overwrite : bool
        Whether an existing file is replaced.
    inputs : sequence of path or None
        Input files, which are never replaced.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist.
    PermissionError
        If the folder is not writable.
    FileExistsError
        If the file exists and ``overwrite`` is False.
    IsADirectoryError
        If the path is a folder.
    ValueError
        If the output is one of the inputs.
    """
    path = path.expanduser()
    folder = path.parent
    if folder.is_dir() and not os.access(folder, os.W_OK):
        raise PermissionError(f"the output folder {folder} is not writable; choose another one.")
    if not folder.is_dir():
        raise FileNotFoundError(f"the output folder {folder} does not exist; create it first.")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; choose another name or use --overwrite.")
    if path.is_dir():
        raise IsADirectoryError(f"the output {path} is a folder; give the name of a file.")
    for other in inputs:
        if other is not None and path.exists() and other.exists() and path.samefile(other):
            raise ValueError(f"{path} is an input file; choose another output file.")


def with_file_name(error: Exception, files: Sequence[Path]) -> Exception:
    """Prefix the message of an error about one galaxy with the name of its file.

    Parameters
    ----------
    error : Exception
        Error raised by an estimator, one of `astrogenspec.inputs.errors.INPUT_ERRORS`.
    files : sequence of path
        Files of the cutouts.

    Returns
    -------
    Exception
        The same error if it concerns no file or already names it. Advice for Python users becomes
        that for users of the command line.
    """
    if reason_of(error) != str(error):
        error = with_advice(error, _ON_ERROR_ADVICE)
    k = 0 if len(files) == 1 else galaxy_of(error)
    # The reader of the file has already named it.
    if k is None or k >= len(files) or str(files[k]) in str(error):
        return error
    return rewrite_error(error, f"{files[k]}: {error}")


def figure_path(folder: Path, names: Sequence[str], k: int) -> Path:
    """Return the path of the figure of a galaxy.

    Parameters
    ----------
    folder : path
        Folder of the figures.
    names : sequence of str
        Names of all galaxies.
    k : int
        Index of the galaxy.

    Returns
    -------
    path
        PNG file named after the galaxy, prefixed by its index if there are several.
    """
    stem = re.sub(r"[^\w.+-]+", "_", names[k]) or "galaxy"
    return folder / (f"{k:05d}_{stem}.png" if len(names) > 1 else f"{stem}.png")


def printable(text: str) -> str:
    """Escape control characters, which a terminal would interpret.

    Parameters
    ----------
    text : str
        Text from a file, such as the name of a galaxy.

    Returns
    -------
    str
        Text in which unprintable characters are replaced by escape sequences such as ``\\x1b``.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
