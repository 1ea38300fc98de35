"""Write draws of spectra to FITS files, block by block if need be.

A file holds, after an empty primary unit,

* ``BEST``: a table of the best spectrum of the first galaxy (wavelength, flux, uncertainty, mask),
  which `specutils.Spectrum.read` finds;
* ``DRAWS``: an image of all draws, shape (n_galaxies, n_draws, n_wavelength), single precision;
* ``GALAXIES``: a table with a row for each galaxy: ``name``, ``flag``, ``redshift``, ``weight`` and
  ``posterior_draw`` of each draw, ``residual`` of the photometry, ``trusted`` pixels;
* ``DOCUMENT``: a JSON text: version of the layout, shape, checksums, meta data.

The draws are written as they come, and their number is entered in the header at the end, so that
no more than one block of galaxies is in memory.  All goes to a temporary file next to the target,
which takes its place in one step: nobody ever sees half a file, and a file that is replaced stays
intact until the new one is complete.
"""

from __future__ import annotations

import io
import json
import os
import uuid
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning

from ..quantities import FLUX_UNIT
from ..surveys import BANDS
from .posterior_io import _check_target, _json, _strings
from .spectra import DrawArrays, check_alike, common_meta
from .spectral_grid import log_step
from .validation import checked_index

if TYPE_CHECKING:
    from .spectra import SpectrumDraws

__all__ = ["LAYOUT", "SpectrumWriter", "read_spectra"]

#: Version of the layout of the files.
LAYOUT = 1
_ENDINGS = (".fits", ".fit")
_CHUNK = 32
#: Numbers of each draw, with their format in the file.
_NUMBERS = {"redshift": "D", "weight": "D", "posterior_draw": "K"}


class SpectrumWriter:
    """Write draws of spectra to a FITS file block by block.

    The file appears when the ``with`` statement ends without an error; until then, and after an
    error, the target is as it was.

    Parameters
    ----------
    path : path-like
        Ending in ``.fits`` or ``.fit``.
    overwrite : bool
        Replace a file that exists.

    Raises
    ------
    FileExistsError
        If the file exists and ``overwrite`` is False.
    OSError
        If the file cannot be written.
    ValueError
        If the path has another ending.

    Examples
    --------
    Spectra of any number of galaxies, never more than a block of them in memory::

        with SpectrumWriter("spectra.fits") as writer:
            for block in blocks:
                writer.append(estimator.predict(block))
    """

    def __init__(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        self._path = Path(path).expanduser()
        if not self._path.name.lower().endswith(_ENDINGS):
            raise ValueError(
                f"{self._path.name!r} ends in none of {', '.join(_ENDINGS)}; spectra are written as FITS."
            )
        self._overwrite = overwrite
        _check_target(self._path, overwrite)
        self._file: BinaryIO | None = None
        self._first: DrawArrays | None = None
        self._rows: list[dict[str, Any]] = []
        self._meta: dict[str, Any] = {}
        self._checksums = {"BEST": 0, "DRAWS": 0, "GALAXIES": 0}
        self._header_at = 0
        self.n_galaxies = 0

    def __enter__(self) -> Self:
        # through a link: replace the file it points to, not the link
        target = self._path.resolve()
        self._temporary = target.with_name(f".{uuid.uuid4().hex}.fits")
        with _sentences(self._path):
            self._file = self._temporary.open("wb")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._file.close()
            self._file = None
            self._temporary.unlink(missing_ok=True)

    def append(self, spectra: SpectrumDraws) -> None:
        """Write the draws of further galaxies.

        Parameters
        ----------
        spectra : SpectrumDraws
            With the wavelengths and number of draws of those before.

        Raises
        ------
        RuntimeError
            If the writer is not open.
        TypeError
            If it is something else, or its meta data hold something a file cannot.
        ValueError
            If the wavelengths or numbers of draws differ.
        OSError
            If the file cannot be written.
        """
        if self._file is None:
            raise RuntimeError(
                "the writer is not open; append inside a with statement: with SpectrumWriter(path) as writer."
            )
        first = spectra if self._first is None else self._first
        check_alike(spectra, first, "spectra")
        _json({"meta": dict(spectra.meta)})
        with _sentences(self._path):
            if self._first is None:
                self._start(spectra)
            for start in range(0, len(spectra), _CHUNK):
                values = spectra.flux.value[start : start + _CHUNK].astype(">f4")
                self._checksums["DRAWS"] = zlib.crc32(values, self._checksums["DRAWS"])
                self._file.write(values)
        self._rows.append(_columns(spectra))
        self._meta = common_meta([self._meta, spectra.meta])
        self.n_galaxies += len(spectra)

    def _start(self, spectra: SpectrumDraws) -> None:
        """Write what comes before the draws."""
        self._file.write(_fits_bytes(fits.PrimaryHDU()))
        self._write_table(_best_table(spectra))
        self._header_at = self._file.tell()
        # a copy without draws: the block itself must not stay in memory
        self._first = DrawArrays(spectra.flux[:0], spectra.wavelength, spectra.redshift[:0])
        self._meta = dict(spectra.meta)
        self._file.write(self._draws_header(0))

    def _draws_header(self, n_galaxies: int) -> bytes:
        header = fits.Header()
        first = self._first
        header["XTENSION"] = "IMAGE"
        header["BITPIX"] = -32
        header["NAXIS"] = 3
        header["NAXIS1"] = (len(first.wavelength), "pixels")
        header["NAXIS2"] = (first.n_draws, "draws")
        header["NAXIS3"] = (n_galaxies, "galaxies")
        header["PCOUNT"] = 0
        header["GCOUNT"] = 1
        header["EXTNAME"] = "DRAWS"
        header["BUNIT"] = FLUX_UNIT.to_string("fits")
        header.update(_spectral_wcs(first.wavelength.value))
        return header.tostring().encode("ascii")

    def _finish(self) -> None:
        """Enter the number of galaxies, write what comes after the draws, and show the file."""
        if self._first is None:
            raise ValueError("no spectra were appended; append at least once before the end.")
        first = self._first
        n_bytes = 4 * self.n_galaxies * first.n_draws * len(first.wavelength)
        with _sentences(self._path):
            self._file.write(b"\0" * (-n_bytes % 2880))
            self._file.seek(self._header_at)
            self._file.write(self._draws_header(self.n_galaxies))
            self._file.seek(0, os.SEEK_END)
            self._write_table(_galaxies_table(self._rows, first))
            document = {
                "layout": LAYOUT,
                "shape": [self.n_galaxies, first.n_draws, len(first.wavelength)],
                "checksums": self._checksums,
                "residual": any(row["residual"] is not None for row in self._rows),
                "meta": self._meta,
            }
            text = np.frombuffer(_json(document).encode(), dtype=np.uint8)
            self._file.write(_extension_bytes(fits.ImageHDU(text, name="DOCUMENT")))
            self._file.close()
            if not self._overwrite:
                # somebody may have made one in the meantime
                _check_target(self._path, False)
            os.replace(self._temporary, self._path.resolve())

    def _write_table(self, table: fits.BinTableHDU) -> None:
        content = _extension_bytes(table)
        data_at = len(table.header.tostring())
        self._checksums[table.name] = zlib.crc32(content[data_at:])
        self._file.write(content)


def _best_table(spectra: SpectrumDraws) -> fits.BinTableHDU:
    """Best spectrum of the first galaxy, on which wavelengths of the whole file depend."""
    wavelength = spectra.wavelength.value
    flux = scatter = np.full(len(wavelength), np.nan)
    mask = np.ones(len(wavelength), dtype=bool)
    if len(spectra):
        best = spectra[0].best
        flux, mask = best.flux.value, best.mask
        if best.uncertainty is not None:
            scatter = best.uncertainty.array
    unit = FLUX_UNIT.to_string("fits")
    columns = [
        fits.Column("wavelength", "D", unit="Angstrom", array=wavelength),
        fits.Column("flux", "E", unit=unit, array=flux),
        fits.Column("uncertainty", "E", unit=unit, array=scatter),
        fits.Column("mask", "L", array=mask),
    ]
    table = fits.BinTableHDU.from_columns(columns, name="BEST")
    table.header["OBJECT"] = (
        (spectra.names[0] if len(spectra) else "").encode("ascii", "replace").decode()[:60]
    )
    return table


def _columns(spectra: SpectrumDraws) -> dict[str, Any]:
    residual = spectra.photometric_residual
    return {
        "name": [name.encode() for name in spectra.names],
        "flag": [flag.encode() for flag in spectra.flags],
        "redshift": spectra.redshift,
        "weight": spectra.weights,
        "posterior_draw": spectra.posterior_draw,
        "residual": None if residual is None else residual.value,
        "trusted": np.packbits(spectra.trusted, axis=1),
    }


def _galaxies_table(blocks: list[dict[str, Any]], first: DrawArrays) -> fits.BinTableHDU:
    k, n_bands, m = first.n_draws, len(BANDS), len(first.wavelength)
    residuals = [
        np.full((len(block["name"]), k, n_bands), np.nan, dtype=np.float32)
        if block["residual"] is None
        else block["residual"]
        for block in blocks
    ]
    numbers = {name: np.concatenate([block[name] for block in blocks]) for name in _NUMBERS}
    trusted = np.concatenate([block["trusted"] for block in blocks])
    columns = [
        _text_column(name, [text for b in blocks for text in b[name]]) for name in ("name", "flag")
    ]
    columns += [
        fits.Column(name, f"{k}{_NUMBERS[name]}", array=values) for name, values in numbers.items()
    ]
    columns += [
        fits.Column(
            "residual",
            f"{k * n_bands}E",
            unit="mag",
            dim=f"({n_bands},{k})",
            array=np.concatenate(residuals),
        ),
        fits.Column("trusted", f"{m}X", array=np.unpackbits(trusted, axis=1, count=m).astype(bool)),
    ]
    return fits.BinTableHDU.from_columns(columns, name="GALAXIES")


def _text_column(name: str, entries: list[bytes]) -> fits.Column:
    width = max([1, *map(len, entries)])
    return fits.Column(name, f"{width}A", array=np.array(entries, dtype=f"S{width}"))


def _spectral_wcs(wavelength: np.ndarray) -> dict[str, Any]:
    """Logarithmic wavelength axis (Greisen et al. 2006, A&A 446, 747, table 2), if it is one."""
    try:
        step = log_step(wavelength, "")
    except ValueError:
        return {}
    return {
        "CTYPE1": "WAVE-LOG",
        "CUNIT1": "Angstrom",
        "CRPIX1": 1.0,
        "CRVAL1": float(wavelength[0]),
        "CDELT1": float(wavelength[0] * step),
    }


def _fits_bytes(*units: Any) -> bytes:
    buffer = io.BytesIO()
    fits.HDUList(list(units)).writeto(buffer)
    return buffer.getvalue()


def _extension_bytes(unit: Any) -> bytes:
    return _fits_bytes(fits.PrimaryHDU(), unit)[len(_fits_bytes(fits.PrimaryHDU())) :]


@contextmanager
def _sentences(path: Path) -> Iterator[None]:
    """Say in words what kept a file from being written."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        kind = type(error) if type(error).__module__ == "builtins" else OSError
        raise kind(
            f"cannot write {str(path)!r}: {error.strerror or error}; see that the folder may be written to "
            f"and has space left."
        ) from error


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
