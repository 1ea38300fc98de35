"""Files of spectra: FITS, written block by block.

After a primary unit with the keywords of the best spectrum of the first galaxy, a file has the
extensions

* ``BEST``: table of the best spectrum of the first galaxy (wavelength, flux, uncertainty, mask),
  which `specutils.Spectrum.read` finds;
* ``DRAWS``: image of all draws, shape (n_galaxies, n_draws, n_wavelength), single precision;
* ``GALAXIES``: table with a row for each galaxy: ``name``, ``flags`` (code) and ``flag`` (text),
  ``redshift``, ``weight`` and ``posterior_draw`` of each draw, ``residual`` of the photometry,
  ``trusted`` pixels, and ``flux_NAME`` of the emission lines of each draw;
* ``DOCUMENT``: JSON text with the version of the layout, the shape, checksums and meta data.

Draws are written as they are appended, and their number is entered in the header at the end, so
that only one block of galaxies is in memory.  The file is written atomically
(`astrogenspec.atomic`).
"""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning

from ..atomic import check_target, move_into_place, temporary_folder, write_errors
from ..fits_files import check_fits
from ..quantities import FLUX_UNIT, LINE_FLUX_UNIT
from ..surveys import BANDS
from ..warnings import filtered_warnings
from .base import GalaxyIndex, common_meta
from .files import check_layout, decoded_texts, encoded_document, parsed_document, read_errors
from .spectral_grid import log_step
from .spectrum_arrays import SpectrumArrays, check_same_grid
from .specutils_views import best_spectra
from .validation import checked_index

__all__ = ["LAYOUT", "SpectrumWriter", "read_spectra"]

#: Version of the layout of the files.
LAYOUT = 1
_ENDINGS = (".fits", ".fit")
#: Number of galaxies whose draws are converted at once.
_CHUNK = 32
#: Columns with one number per draw, with their FITS format.
_NUMBERS = {"redshift": "D", "weight": "D", "posterior_draw": "K"}
#: Beginning of the names of columns with fluxes of lines.
_LINE = "flux_"


class SpectrumWriter:
    """Write spectra to a FITS file block by block.

    The file appears when the ``with`` statement ends without an error; until then, and after an
    error, an existing file stays unchanged.

    Parameters
    ----------
    path : path-like
        File to write, ending in ``.fits`` or ``.fit``.
    overwrite : bool
        Whether an existing file may be replaced.

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
    Write the spectra of any number of galaxies with one block in memory at a time::

        with SpectrumWriter("spectra.fits") as writer:
            for block in blocks:
                writer.append(estimator.predict(block))
    """

    def __init__(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        self._path = Path(path).expanduser()
        if not self._path.name.lower().endswith(_ENDINGS):
            raise ValueError(
                f"{self._path.name!r} ends in none of {', '.join(_ENDINGS)}; spectra are written "
                "as FITS."
            )
        self._overwrite = overwrite
        check_target(self._path, overwrite)
        self._stream: BinaryIO | None = None
        #: The first spectra without their galaxies: wavelengths and number of draws of the file.
        self._template: SpectrumArrays | None = None
        self._blocks: list[dict[str, Any]] = []
        self._meta: dict[str, Any] = {}
        self._checksums = {"BEST": 0, "DRAWS": 0, "GALAXIES": 0}
        self._header_at = 0
        self.n_galaxies = 0

    def __enter__(self) -> Self:
        with write_errors(self._path), ExitStack() as stack:
            folder = stack.enter_context(temporary_folder(self._path.resolve().parent))
            self._temporary = folder / self._path.name
            self._stream = self._temporary.open("wb")
            self._folder = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        stream, self._stream = self._stream, None
        if stream is None:
            return
        with self._folder:
            with stream:
                if kind is None:
                    self._finish(stream)
            if kind is None:
                with write_errors(self._path):
                    move_into_place(self._temporary, self._path, overwrite=self._overwrite)

    def append(self, spectra: SpectrumArrays) -> None:
        """Write the spectra of further galaxies.

        Parameters
        ----------
        spectra : SpectrumDraws
            Spectra with the same wavelengths and number of draws as those before.

        Raises
        ------
        RuntimeError
            If the writer is not open.
        TypeError
            If ``spectra`` is not a SpectrumDraws, or its meta data contain objects that a file
            cannot hold.
        ValueError
            If the wavelengths or the numbers of draws differ.
        OSError
            If the file cannot be written.
        """
        stream = self._stream
        if stream is None:
            raise RuntimeError(
                "the writer is not open; use it in a with statement: with SpectrumWriter(path) "
                "as writer."
            )
        check_same_grid(spectra, spectra if self._template is None else self._template, "spectra")
        encoded_document({"meta": dict(spectra.meta)})
        with write_errors(self._path):
            if self._template is None:
                self._start(stream, spectra)
            for start in range(0, len(spectra), _CHUNK):
                values = spectra.flux.value[start : start + _CHUNK].astype(">f4")
                self._checksums["DRAWS"] = zlib.crc32(values, self._checksums["DRAWS"])
                stream.write(values)
        self._blocks.append(_galaxy_columns(spectra))
        self._meta = common_meta([self._meta, spectra.meta])
        self.n_galaxies += len(spectra)

    def _start(self, stream: BinaryIO, spectra: SpectrumArrays) -> None:
        """Write what precedes the draws."""
        header = best_spectra(spectra[0]).meta["header"] if len(spectra) else None
        stream.write(_fits_bytes(fits.PrimaryHDU(header=header)))
        self._write_table(stream, _best_table(spectra))
        self._header_at = stream.tell()
        # A new object without draws, so that the block itself does not stay in memory.
        self._template = SpectrumArrays(spectra.flux[:0], spectra.wavelength, spectra.redshift[:0])
        self._meta = dict(spectra.meta)
        stream.write(_draws_header(self._template, 0))

    def _finish(self, stream: BinaryIO) -> None:
        """Enter the number of galaxies, and write what follows the draws."""
        template = self._template
        if template is None:
            raise ValueError("no spectra were appended; append at least one block of spectra.")
        shape = (self.n_galaxies, template.n_draws, len(template.wavelength))
        with write_errors(self._path):
            stream.write(b"\0" * (-4 * int(np.prod(shape)) % 2880))
            stream.seek(self._header_at)
            stream.write(_draws_header(template, self.n_galaxies))
            stream.seek(0, os.SEEK_END)
            self._write_table(stream, _galaxies_table(self._blocks, template))
            document = {
                "layout": LAYOUT,
                "shape": shape,
                "checksums": self._checksums,
                "residual": any(block["residual"] is not None for block in self._blocks),
                "meta": self._meta,
            }
            text = np.frombuffer(encoded_document(document).encode(), dtype=np.uint8)
            stream.write(_extension_bytes(fits.ImageHDU(text, name="DOCUMENT")))

    def _write_table(self, stream: BinaryIO, table: fits.BinTableHDU) -> None:
        content = _extension_bytes(table)
        data_at = len(table.header.tostring())
        self._checksums[table.name] = zlib.crc32(content[data_at:])
        stream.write(content)


def _draws_header(template: SpectrumArrays, n_galaxies: int) -> bytes:
    header = fits.Header()
    header["XTENSION"] = "IMAGE"
    header["BITPIX"] = -32
    header["NAXIS"] = 3
    header["NAXIS1"] = (len(template.wavelength), "pixels")
    header["NAXIS2"] = (template.n_draws, "draws")
    header["NAXIS3"] = (n_galaxies, "galaxies")
    header["PCOUNT"] = 0
    header["GCOUNT"] = 1
    header["EXTNAME"] = "DRAWS"
    header["BUNIT"] = FLUX_UNIT.to_string("fits")
    header.update(_spectral_wcs(template.wavelength.value))
    return header.tostring().encode("ascii")


def _best_table(spectra: SpectrumArrays) -> fits.BinTableHDU:
    """Make the table of the best spectrum of the first galaxy, with the wavelengths of the file."""
    wavelength = spectra.wavelength.value
    flux = scatter = np.full(len(wavelength), np.nan)
    mask = np.ones(len(wavelength), dtype=bool)
    if len(spectra):
        best = best_spectra(spectra[0])
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


def _galaxy_columns(spectra: SpectrumArrays) -> dict[str, Any]:
    residual = spectra.photometric_residual
    return {
        "name": [name.encode() for name in spectra.names],
        "flags": spectra.flag_codes,
        "flag": [flag.encode() for flag in spectra.flags],
        "redshift": spectra.redshift,
        "weight": spectra.weights,
        "posterior_draw": spectra.posterior_draw,
        "residual": None if residual is None else residual.value,
        "lines": {name: flux.value for name, flux in (spectra.line_flux or {}).items()},
        "trusted": np.packbits(spectra.trusted, axis=1),
    }


def _galaxies_table(blocks: list[dict[str, Any]], template: SpectrumArrays) -> fits.BinTableHDU:
    n_draws, n_bands = template.n_draws, len(BANDS)
    n_wavelength = len(template.wavelength)
    residuals = [
        np.full((len(block["name"]), n_draws, n_bands), np.nan, dtype=np.float32)
        if block["residual"] is None
        else block["residual"]
        for block in blocks
    ]
    numbers = {name: np.concatenate([block[name] for block in blocks]) for name in _NUMBERS}
    trusted = np.concatenate([block["trusted"] for block in blocks])
    texts = {name: [text for block in blocks for text in block[name]] for name in ("name", "flag")}
    columns = [
        _text_column("name", texts["name"]),
        fits.Column("flags", "K", array=np.concatenate([block["flags"] for block in blocks])),
        _text_column("flag", texts["flag"]),
    ]
    columns += [
        fits.Column(name, f"{n_draws}{_NUMBERS[name]}", array=values)
        for name, values in numbers.items()
    ]
    columns += [
        fits.Column(
            _LINE + name,
            f"{n_draws}E",
            unit=LINE_FLUX_UNIT.to_string("fits"),
            array=np.concatenate([block["lines"][name] for block in blocks]),
        )
        for name in blocks[0]["lines"]
        if all(name in block["lines"] for block in blocks)
    ]
    columns += [
        fits.Column(
            "residual",
            f"{n_draws * n_bands}E",
            unit="mag",
            dim=f"({n_bands},{n_draws})",
            array=np.concatenate(residuals),
        ),
        fits.Column(
            "trusted",
            f"{n_wavelength}X",
            array=np.unpackbits(trusted, axis=1, count=n_wavelength).astype(bool),
        ),
    ]
    return fits.BinTableHDU.from_columns(columns, name="GALAXIES")


def _text_column(name: str, entries: list[bytes]) -> fits.Column:
    width = max([1, *map(len, entries)])
    return fits.Column(name, f"{width}A", array=np.array(entries, dtype=f"S{width}"))


def _spectral_wcs(wavelength: np.ndarray) -> dict[str, Any]:
    """Return the keywords of a logarithmic wavelength axis, empty for another axis.

    They follow Greisen et al. 2006, A&A 446, 747, table 2.
    """
    try:
        step = log_step(wavelength, "a logarithmic axis")
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


def read_spectra(path: str | os.PathLike[str], galaxies: GalaxyIndex | None) -> dict[str, Any]:
    """Read a file; see `astrogenspec.SpectrumDraws.read`.

    Parameters
    ----------
    path : path-like
        File made by `SpectrumWriter`.
    galaxies : int, slice, array_like or None
        Galaxies to read; None for all.

    Returns
    -------
    dict
        Arguments of `astrogenspec.SpectrumDraws`.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    OSError
        If the file is damaged.
    ValueError
        If the file was not made by `SpectrumWriter`.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"cannot read spectra: the file {str(path)!r} does not exist.")
    with _read_errors(path):
        check_fits(path, verify=False)
    with path.open("rb") as stream:
        with _read_errors(path):
            units = fits.open(stream)
        with units:
            with _read_errors(path):
                found = _read_document(units)
            document = check_layout(path, found, LAYOUT, "SpectrumDraws.write")
            with _read_errors(path):
                _check_document(document, units)
            rows: slice | np.ndarray = slice(None)
            if galaxies is not None:
                rows = checked_index(galaxies, document["shape"][0])
            with _read_errors(path):
                for name in ("BEST", "GALAXIES"):
                    _check_table(units[name], stream, document["checksums"][name])
                return _read_arguments(units, document, rows)


@contextmanager
def _read_errors(path: Path) -> Iterator[None]:
    """Convert all errors and warnings to one error that names the file."""
    # astropy only warns of a file that is cut off
    with read_errors(path, "a FITS file"), filtered_warnings("error", AstropyWarning):
        yield


def _read_document(units: fits.HDUList) -> dict[str, Any] | None:
    """Read the description of the file; None if it has none."""
    names = [unit.name for unit in units]
    if "DOCUMENT" not in names and "DRAWS" not in names:
        return None
    return parsed_document(np.asarray(units["DOCUMENT"].data).tobytes())


def _check_document(document: dict[str, Any], units: fits.HDUList) -> None:
    """Check the types in the document, and that the shape is that of the draws."""
    for key, kind in (("shape", list), ("checksums", dict), ("meta", dict)):
        if not isinstance(document.get(key), kind):
            raise ValueError(f"the entry {key!r} of its description is missing or invalid")
    if set(document["checksums"]) != {"BEST", "DRAWS", "GALAXIES"}:
        raise ValueError("the entry 'checksums' of its description is invalid")
    header = units["DRAWS"].header
    shape = [header[f"NAXIS{axis}"] for axis in range(header["NAXIS"], 0, -1)]
    if shape != document["shape"] or len(shape) != 3:
        raise ValueError(f"the draws have shape {shape} instead of {document['shape']}")


def _check_table(unit: fits.BinTableHDU, stream: BinaryIO, checksum: int) -> None:
    """Check that the data of a table are unchanged."""
    position = unit.fileinfo()
    stream.seek(position["datLoc"])
    if zlib.crc32(stream.read(position["datSpan"])) != checksum:
        raise ValueError(f"the checksum of the table {unit.name} is wrong")


def _read_arguments(
    units: fits.HDUList, document: dict[str, Any], rows: slice | np.ndarray
) -> dict[str, Any]:
    """Read the arguments of `SpectrumDraws`."""
    table = units["GALAXIES"].data
    n_galaxies, n_draws, _ = document["shape"]
    chosen = np.arange(n_galaxies)[rows]
    shape = (len(chosen), n_draws)
    # Files of older versions have neither numbers of posterior draws nor flag codes.
    posterior_draw = flag_codes = None
    if "posterior_draw" in table.names:
        posterior_draw = np.array(table["posterior_draw"], dtype=int)[chosen].reshape(shape)
    if "flags" in table.names:
        flag_codes = np.array(table["flags"], dtype=np.int64)[chosen]
    residual = None
    if document.get("residual"):
        residual = u.Quantity(np.array(table["residual"], dtype=np.float32)[chosen], u.mag)
    return {
        "flux": u.Quantity(_read_draws(units, document, chosen), FLUX_UNIT, copy=False),
        "wavelength": u.Quantity(np.array(units["BEST"].data["wavelength"], dtype=float), u.AA),
        "redshift": np.array(table["redshift"], dtype=float)[chosen].reshape(shape),
        "weights": np.array(table["weight"], dtype=float)[chosen].reshape(shape),
        "names": decoded_texts(np.asarray(table["name"]).view(np.ndarray)[chosen]),
        "flag_codes": flag_codes,
        "flags": decoded_texts(np.asarray(table["flag"]).view(np.ndarray)[chosen]),
        "photometric_residual": residual,
        "trusted": np.array(table["trusted"], dtype=bool)[chosen],
        "posterior_draw": posterior_draw,
        "line_flux": _read_lines(table, chosen, shape),
        "meta": document["meta"],
    }


def _read_lines(
    table: fits.FITS_rec, chosen: np.ndarray, shape: tuple[int, int]
) -> dict[str, u.Quantity] | None:
    """Read the fluxes of lines; None if the file has none."""
    fluxes = {
        name.removeprefix(_LINE): np.array(table[name], dtype=np.float32)[chosen].reshape(shape)
        for name in table.names
        if name.startswith(_LINE)
    }
    return {name: flux * LINE_FLUX_UNIT for name, flux in fluxes.items()} or None


def _read_draws(units: fits.HDUList, document: dict[str, Any], chosen: np.ndarray) -> np.ndarray:
    """Read the draws of some galaxies, or of all and check that they are unchanged."""
    shape = tuple(document["shape"])
    flux = np.empty((len(chosen), *shape[1:]), dtype=np.float32)
    if not shape[0]:
        return flux
    stored = units["DRAWS"].data
    if stored.shape != shape:
        raise ValueError(f"the draws have shape {stored.shape} instead of {shape}")
    checksum = 0
    whole = len(chosen) == shape[0] and np.all(np.diff(chosen) == 1)
    for start in range(0, len(chosen), _CHUNK):
        block = slice(start, start + _CHUNK)
        values = stored[block] if whole else stored[chosen[block]]
        checksum = zlib.crc32(np.ascontiguousarray(values).data, checksum) if whole else checksum
        flux[block] = values
    if whole and checksum != document["checksums"]["DRAWS"]:
        raise ValueError("the checksum of the draws is wrong")
    return flux
