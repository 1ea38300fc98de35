"""Read what a visitor gives: files, which are deleted once they are read, or typed magnitudes."""

from __future__ import annotations

import argparse
import math
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import astropy.units as u
from astropy.table import QTable

from ..inputs.errors import INPUT_ERRORS, rewrite_error
from ..surveys import survey_names
from ..surveys.registry import get_survey

if TYPE_CHECKING:
    from ..cli.inputs import Galaxies

__all__ = ["ENDINGS", "read_upload", "typed_photometry"]

#: Endings of files that are read. HDF5 is not one of them: its links can point to other files of
#: the machine. Compressed files, which can grow without limit, are not read either.
ENDINGS = (".fits", ".fit", ".csv", ".ecsv", ".vot", ".xml")
#: First bytes of files that astropy decompresses whatever their names are.
_COMPRESSED = (b"\x1f\x8b", b"PK\x03\x04", b"BZh", b"\xfd7zXZ")
_MAX_FILES = 60
_NAME = 80


def read_upload(
    files: Sequence[tuple[str, bytes]], *, survey: str | None = None, max_galaxies: int = 500
) -> Galaxies:
    """Read the files of a visitor, as ``astrogenspec infer`` reads those of its command line.

    Parameters
    ----------
    files : sequence of (str, bytes)
        Names and contents: one table, or cutouts, or both.
    survey : str, optional
        Name of the survey of the table, or several separated by commas.
    max_galaxies : int
        Maximum number of galaxies.

    Returns
    -------
    Galaxies
        Everything is in memory: the images are a list.

    Raises
    ------
    ValueError, TypeError, astropy.units.UnitsError, OSError
        If the files cannot be used.
    """
    if not files:
        raise ValueError("no file was given; choose a table, or FITS images of a galaxy.")
    if len(files) > _MAX_FILES:
        raise ValueError(f"{len(files)} files were given; give at most {_MAX_FILES} at a time.")
    check_survey(survey)
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = _read([_saved(Path(folder), k, *file) for k, file in enumerate(files)], survey)
        except (OSError, *INPUT_ERRORS) as error:
            # A visitor sees the names of the files, and no folder of the machine.
            raise rewrite_error(
                error, re.sub(rf"{re.escape(folder)}/\d+/", "", str(error))
            ) from None
    if len(found) > max_galaxies:
        raise ValueError(
            f"the files hold {len(found)} galaxies, more than the {max_galaxies} that are inferred "
            "at a time; use `astrogenspec infer` or `astrogenspec survey` for large catalogues."
        )
    return found


def _saved(folder: Path, number: int, name: str, content: bytes) -> Path:
    """Write a file under the plain part of its name."""
    plain = re.sub(r"[^\w.+-]+", "_", re.split(r"[\\/]", name)[-1])[-_NAME:].lstrip(".") or "file"
    ending = Path(plain).suffix.lower()
    if ending not in ENDINGS:
        raise ValueError(
            f"{plain} does not end in {', '.join(ENDINGS)}; other files are not read (decompress "
            "compressed files first)."
        )
    if ending in (".fits", ".fit") and not content.startswith(b"SIMPLE"):
        raise ValueError(f"{plain} is not an uncompressed FITS file.")
    if content.startswith(_COMPRESSED):
        raise ValueError(f"{plain} is compressed; decompress it first.")
    # Files of the same name, from different folders of the visitor, do not replace one another.
    place = folder / str(number)
    place.mkdir()
    path = place / plain
    path.write_bytes(content)
    return path


def _read(paths: Sequence[Path], survey: str | None) -> Galaxies:
    from ..cli.inputs import Galaxies, read_inputs
    from ..cli.tables import is_table

    tables = [path for path in paths if is_table(path)]
    images = [path for path in paths if path not in tables]
    if len(tables) > 1:
        raise ValueError(f"{len(tables)} tables were given; give one table.")
    if images:
        # Names of files that differ in the band only belong together if they share a folder.
        if len({path.name for path in images}) < len(images):
            raise ValueError("several files have the same name; give each its own.")
        images = [path.rename(paths[0].parent / path.name) for path in images]
    options = argparse.Namespace(
        input=images or tables,
        photometry=tables[0] if images and tables else None,
        survey=survey if tables else None,
        bands=None,
        flux_unit=None,
        on_error="raise",
        fibre_photometry=False,
        zero_point=None,
    )
    found = read_inputs(options)
    read = None if found.images is None else list(found.images)
    return Galaxies(read, found.photometry, found.surveys)  # type: ignore[arg-type]  # a list of cutouts instead of their files


def check_survey(survey: str | None) -> None:
    """Raise if a survey is not one of the package: a path would be read from the machine.

    Parameters
    ----------
    survey : str, optional
        Names separated by commas.

    Raises
    ------
    ValueError
        If a name is unknown.
    """
    for name in () if survey is None else survey.split(","):
        if name.strip() not in survey_names():
            raise ValueError(
                f"survey is {name.strip()!r}; it must be one of {', '.join(survey_names())}."
            )


def typed_photometry(
    survey: str, magnitudes: Mapping[str, Any], ebv: float, name: str = ""
) -> Galaxies:
    """Make the photometry of one galaxy from typed numbers.

    Parameters
    ----------
    survey : str
        Name of the survey.
    magnitudes : mapping of str to (float, float)
        AB magnitude and its error for each band.
    ebv : float
        Galactic E(B-V), mag.
    name : str
        Name of the galaxy.

    Returns
    -------
    Galaxies

    Raises
    ------
    TypeError, ValueError
        If a band is unknown, or a value is not a number.
    """
    from ..cli.inputs import Galaxies

    check_survey(survey)
    found = get_survey(survey)
    table = QTable({"name": [(name or "my galaxy")[:_NAME]]})
    for band, pair in magnitudes.items():
        if band not in found.bands:
            raise ValueError(
                f"{found.title or survey} has no band {band!r}; its bands are "
                f"{', '.join(found.bands)}."
            )
        magnitude, error = (_number(value, f"the magnitude in {band}") for value in pair)
        table[f"mag_{band}"] = [magnitude] * u.ABmag
        table[f"mag_err_{band}"] = [error] * u.mag
    if len(table.colnames) == 1:
        raise ValueError("no magnitude was given; give that of one band or more.")
    table["ebv"] = [_number(ebv, "E(B-V)")] * u.mag
    # SDSS is the default, and its bands are used for all its weights.
    return Galaxies(None, table, None if survey == "sdss" else (found,))


def _number(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"{what} is {value!r}; it must be a number, and its error too.")
    return float(value)
