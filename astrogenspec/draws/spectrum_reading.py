"""Read draws of spectra from the FITS files of `astrogenspec.draws.spectrum_io`."""

from __future__ import annotations

import json
import os
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning

from .checks import checked_index
from .io import _strings
from .spectrum_checks import FLUX_UNIT
from .spectrum_io import LAYOUT

if TYPE_CHECKING:
    from ..spectra import SpectrumDraws

__all__ = ["read_spectra"]

_CHUNK = 32


def read_spectra(
    made: type[SpectrumDraws], path: str | os.PathLike[str], galaxies: Any
) -> SpectrumDraws:
    """Read a file; see `astrogenspec.SpectrumDraws.read`.

    Parameters
    ----------
    made : type
        Class to make.
    path : path-like
    galaxies : int, slice, array_like or None
        Which galaxies.

    Returns
    -------
    SpectrumDraws

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    OSError
        If the file is damaged.
    ValueError
        If the file was made by something else.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r} to read spectra from.")
    with path.open("rb") as stream:
        with _damage(path):
            units = fits.open(stream)
        with units:
            with _damage(path):
                document = _read_document(units)
            _check_document(path, document)
            rows: slice | np.ndarray = slice(None)
            if galaxies is not None:
                rows = checked_index(galaxies, document["shape"][0])
            with _damage(path):
                for name in ("BEST", "GALAXIES"):
                    _check_table(units[name], stream, document["checksums"][name])
                parts = _read_parts(units, document, rows)
    return made(**parts)


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Say in words that a file cannot be read."""
    try:
        with warnings.catch_warnings():
            # astropy only warns of a file that is cut off
            warnings.simplefilter("error", AstropyWarning)
            yield
    except MemoryError:
        raise
    except Exception as error:
        raise OSError(
            f"cannot read {str(path)!r}: it is damaged or no FITS file ({type(error).__name__}: {error})."
        ) from error


def _read_document(units: fits.HDUList) -> dict[str, Any] | None:
    """Read what describes the file; None if the file is of another kind."""
    names = [unit.name for unit in units]
    if "DOCUMENT" not in names and "DRAWS" not in names:
        return None
    return json.loads(np.asarray(units["DOCUMENT"].data).tobytes())


def _check_document(path: Path, document: dict[str, Any] | None) -> None:
    if document is None or "layout" not in document:
        raise ValueError(f"{str(path)!r} was not made by SpectrumDraws.write.")
    if document["layout"] > LAYOUT:
        raise ValueError(
            f"{str(path)!r} was made by a newer version of astrogenspec (layout {document['layout']}, this "
            f"version knows {LAYOUT}); update the package to read it."
        )


def _check_table(unit: fits.BinTableHDU, stream: BinaryIO, checksum: int) -> None:
    """See that the data of a table are what was written."""
    place = unit.fileinfo()
    stream.seek(place["datLoc"])
    if zlib.crc32(stream.read(place["datSpan"])) != checksum:
        raise ValueError(f"the table {unit.name} is not the one that was written")


def _read_parts(units: fits.HDUList, document: dict[str, Any], rows: Any) -> dict[str, Any]:
    """Read the arguments of `SpectrumDraws`."""
    table = units["GALAXIES"].data
    n_galaxies, n_draws, _ = document["shape"]
    chosen = np.arange(n_galaxies)[rows]
    of_draws = (len(chosen), n_draws)
    posterior_draw = None
    if "posterior_draw" in table.names:
        numbers = np.array(table["posterior_draw"], dtype=int)
        posterior_draw = numbers[chosen].reshape(of_draws)
    residual = None
    if document["residual"]:
        residual = u.Quantity(np.array(table["residual"], dtype=np.float32)[chosen], u.mag)
    return {
        "flux": u.Quantity(_read_draws(units, document, chosen), FLUX_UNIT, copy=False),
        "wavelength": u.Quantity(np.array(units["BEST"].data["wavelength"], dtype=float), u.AA),
        "redshift": np.array(table["redshift"], dtype=float)[chosen].reshape(of_draws),
        "weights": np.array(table["weight"], dtype=float)[chosen].reshape(of_draws),
        "names": _strings(np.asarray(table["name"]).view(np.ndarray)[chosen]),
        "flags": _strings(np.asarray(table["flag"]).view(np.ndarray)[chosen]),
        "photometric_residual": residual,
        "trusted": np.array(table["trusted"], dtype=bool)[chosen],
        "posterior_draw": posterior_draw,
        "meta": document["meta"],
    }


def _read_draws(units: fits.HDUList, document: dict[str, Any], chosen: np.ndarray) -> np.ndarray:
    """Read the draws of some galaxies; of all, see that they are what was written."""
    shape = tuple(document["shape"])
    flux = np.empty((len(chosen), *shape[1:]), dtype=np.float32)
    if not shape[0]:
        return flux
    stored = units["DRAWS"].data
    if stored.shape != shape:
        raise ValueError(f"the draws have shape {stored.shape}, not {shape}")
    checksum = 0
    whole = len(chosen) == shape[0] and np.all(np.diff(chosen) == 1)
    for start in range(0, len(chosen), _CHUNK):
        block = slice(start, start + _CHUNK)
        values = stored[block] if whole else stored[chosen[block]]
        checksum = zlib.crc32(np.ascontiguousarray(values).data, checksum) if whole else checksum
        flux[block] = values
    if whole and checksum != document["checksums"]["DRAWS"]:
        raise ValueError("the draws are not those that were written")
    return flux
