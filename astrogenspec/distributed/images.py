"""Images of the galaxies of a catalogue, joined by identifier and read a few at a time.

A source of images is one of these, named by a text:

* HDF5 files, or a zarr group: data sets of identifiers, images of shape (n, band, y, x), and their
  inverse variances, in the first axis the galaxies;
* parquet files (also a HATS catalogue) with a column of structures, as in the Multimodal Universe:
  ``band``, ``flux`` or ``array``, ``ivar``, ``scale``;
* a folder of FITS files, each of one galaxy and named by its identifier;
* ``column:NAME``: such a column of the parquet files of the catalogue itself;
* ``module:function``: a function that takes identifiers and returns the images of each.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from astropy.nddata import InverseVariance, NDData

from ..extras import optional_package
from ..inputs.errors import INPUT_ERRORS
from ..inputs.image_files import read_image_file
from ..surveys import BANDS
from ..weights import file_sha256

__all__ = [
    "COLUMN",
    "ImageFormat",
    "ImageReader",
    "Unreadable",
    "column_reader",
    "image_digest",
    "image_reader",
    "image_source",
]

#: Beginning of the name of a column of the catalogue.
COLUMN = "column:"
#: Number of images that are read at once.
_BLOCK = 64
_HDF5, _PARQUET, _FITS = (".h5", ".hdf5"), (".parquet", ".pq"), (".fits", ".fit", ".fits.gz")
#: Names of data sets, by what they are; the first that is there is read.
_NAMES = {
    "ids": ("object_id", "id", "ids", "objectId", "objID"),
    "flux": ("flux", "image_array", "image_flux", "images", "image"),
    "ivar": ("ivar", "image_ivar"),
    "bands": ("bands", "image_band", "band"),
    "scale": ("pixel_scale", "image_scale", "scale"),
    "unit": ("unit", "units"),
}


@dataclass(frozen=True)
class ImageFormat:
    """What images do not say of themselves.

    Attributes
    ----------
    bands : tuple of str or None
        Names of the bands, in the order of the images.
    pixel_scale : float or None
        Arcsec per pixel.
    unit : str or None
        Unit of the flux per pixel; nanomaggies if neither this nor the file names one.
    """

    bands: tuple[str, ...] | None = None
    pixel_scale: float | None = None
    unit: str | None = None

    def cutout(
        self,
        flux: np.ndarray,
        ivar: np.ndarray | None,
        bands: Sequence[Any] | None,
        scale: Any,
        unit: str | None,
    ) -> NDData:
        """Return the images of one galaxy.

        Parameters
        ----------
        flux, ivar : ndarray, shape (n_bands, y, x)
            Fluxes and inverse variances, if known.
        bands : sequence of str or bytes, or None
            Bands that the file names.
        scale : float or array_like or None
            Arcsec per pixel that the file has, one or one for each band.
        unit : str or None
            Unit that the file has.

        Returns
        -------
        `~astropy.nddata.NDData`

        Raises
        ------
        ValueError
            If bands or pixel scale are not known.
        """
        names = self.bands or (None if bands is None else tuple(map(_band_name, bands)))
        step = self.pixel_scale if self.pixel_scale is not None else _common_scale(scale)
        if names is None or step is None:
            what = "bands" if names is None else "pixel scale"
            raise ValueError(f"the images do not name their {what}; give image_{what.split()[0]}.")
        known = [k for k, name in enumerate(names) if name in BANDS]
        if not known or len(names) != len(flux):
            raise ValueError(
                f"there are {len(flux)} images of the bands {', '.join(names)}; one for each is "
                f"expected, at least one of {', '.join(BANDS)}."
            )
        each = u.Unit(self.unit or unit or "nmgy")
        noise = None if ivar is None else InverseVariance(np.asarray(ivar, float)[known] / each**2)
        meta = {"bands": [names[k] for k in known], "PIXSCALE": step}
        return NDData(np.asarray(flux, float)[known], unit=each, uncertainty=noise, meta=meta)


def _band_name(label: Any) -> str:
    """Return the band of a label such as ``b"des-g"`` or ``"hsc_r"``."""
    text = label.decode() if isinstance(label, bytes) else str(label)
    return text.replace("_", "-").split("-")[-1]


def _common_scale(scale: Any) -> float | None:
    if scale is None:
        return None
    found = np.unique(np.ravel(scale).astype(float))
    if len(found) != 1:
        raise ValueError(f"the bands have different pixel scales ({found}); resample the images.")
    return float(found[0])


@dataclass(frozen=True)
class Unreadable:
    """Image that cannot be read.

    Attributes
    ----------
    reason : str
        Why.
    """

    reason: str


class ImageReader(ABC):
    """Images by identifier."""

    def read(self, ids: np.ndarray, rows: np.ndarray) -> Iterator[Any]:
        """Yield the images of galaxies, a few at a time.

        Parameters
        ----------
        ids : ndarray, shape (n,)
            Identifiers.
        rows : ndarray of int, shape (n,)
            Rows of the galaxies in the partition.

        Yields
        ------
        Cutout, Unreadable or None
            None for a galaxy without an image.
        """
        for start in range(0, len(ids), _BLOCK):
            block = slice(start, start + _BLOCK)
            yield from self._block(ids[block], rows[block])

    @abstractmethod
    def _block(self, ids: np.ndarray, rows: np.ndarray) -> Sequence[Any]:
        """Return the images of a few galaxies."""


class _Places:
    """Where images are: the number of the file and the row in it, by identifier."""

    def __init__(self, ids_of_files: Sequence[np.ndarray]) -> None:
        lengths = [len(ids) for ids in ids_of_files]
        ids = np.concatenate([_plain(each) for each in ids_of_files])
        self._order = np.argsort(ids, kind="stable")
        self._ids = ids[self._order]
        self._ends = np.cumsum(lengths)

    def find(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the number of the file (-1: none) and the row for each identifier."""
        wanted = _plain(ids)
        if wanted.dtype.kind != self._ids.dtype.kind:
            raise ValueError(
                f"the identifiers of the images are of type {self._ids.dtype}, but those of the "
                f"catalogue of type {wanted.dtype}."
            )
        place = np.searchsorted(self._ids, wanted)
        found = place < len(self._ids)
        found[found] = self._ids[place[found]] == wanted[found]
        index = self._order[np.where(found, place, 0)] if len(self._ids) else place
        file = np.searchsorted(self._ends, index, side="right")
        row = index - np.concatenate([[0], self._ends])[file] if len(self._ids) else index
        return np.where(found, file, -1), row


def _plain(ids: Any) -> np.ndarray:
    values = np.asarray(np.ma.getdata(ids))
    if values.dtype.kind in "OSU":
        return values.astype(str)
    # Signed and unsigned numbers would be compared as floats, which do not hold all of them.
    return values.astype(np.int64) if values.dtype.kind == "u" else values


class _ArrayImages(ImageReader):
    """Images in data sets of HDF5 files or of a zarr group."""

    def __init__(self, groups: Sequence[Any], form: ImageFormat) -> None:
        self._groups = [_data_sets(group) for group in groups]
        self._form = form
        self._places = _Places([np.asarray(each["ids"][:]) for each in self._groups])

    def _block(self, ids: np.ndarray, rows: np.ndarray) -> Sequence[Any]:
        files, places = self._places.find(ids)
        found: list[Any] = [None] * len(ids)
        for number in np.unique(files[files >= 0]):
            here = np.flatnonzero(files == number)
            wanted, inverse = np.unique(places[here], return_inverse=True)
            group = self._groups[number]
            arrays = {key: _take(group[key], wanted) for key in ("flux", "ivar") if key in group}
            for k, j in zip(here, inverse, strict=True):
                ivar = arrays["ivar"][j] if "ivar" in arrays else None
                bands, scale = (_entry(group.get(key), wanted[j]) for key in ("bands", "scale"))
                unit = group.get("unit")
                found[k] = self._form.cutout(arrays["flux"][j], ivar, bands, scale, unit)
        return found


def _data_sets(group: Any) -> dict[str, Any]:
    """Return the data sets and attributes of a group by what they are."""
    found: dict[str, Any] = {}
    for key, names in _NAMES.items():
        for name in names:
            if name in group:
                found[key] = group[name]
                break
            if name in group.attrs:
                found[key] = group.attrs[name]
                break
    missing = [key for key in ("ids", "flux") if key not in found]
    if missing:
        wanted = " or ".join(_NAMES[missing[0]])
        raise ValueError(f"the images have no data set {wanted}; there are {sorted(group)}.")
    return found


def _take(data: Any, rows: np.ndarray) -> np.ndarray:
    """Read increasing rows of a data set; neighbouring ones as one range."""
    if rows[-1] - rows[0] + 1 <= 4 * len(rows):
        return data[int(rows[0]) : int(rows[-1]) + 1][rows - rows[0]]
    return np.stack([data[int(row)] for row in rows])


def _entry(value: Any, row: int) -> Any:
    """Return the entry of a galaxy: of a data set with one for each, or an attribute of all."""
    if hasattr(value, "shape") and not isinstance(value, np.ndarray | np.generic):
        return value[int(row)]
    return list(value) if isinstance(value, str) else value


class _StructureImages(ImageReader):
    """Images in a column of structures of parquet files."""

    def __init__(
        self, paths: Sequence[Path], form: ImageFormat, column: str, start: int | None = None
    ) -> None:
        from pyarrow import parquet

        self._files = [parquet.ParquetFile(path) for path in paths]
        self._form, self._column, self._start = form, column, start
        self._ends = [
            np.cumsum([each.metadata.row_group(k).num_rows for k in range(each.num_row_groups)])
            for each in self._files
        ]
        self._last: tuple[tuple[int, int], Any] = ((-1, -1), None)
        if start is None:
            self._places = _Places([self._ids(each) for each in self._files])

    @staticmethod
    def _ids(file: Any) -> np.ndarray:
        name = next((n for n in _NAMES["ids"] if n in file.schema_arrow.names), None)
        if name is None:
            raise ValueError(f"the images have no column {' or '.join(_NAMES['ids'])}.")
        return file.read(columns=[name])[name].to_numpy()

    def _block(self, ids: np.ndarray, rows: np.ndarray) -> Sequence[Any]:
        if self._start is not None:
            files, places = np.zeros(len(rows), int), rows + self._start
        else:
            files, places = self._places.find(ids)
        return [
            None if file < 0 else self._image(int(file), int(place))
            for file, place in zip(files, places, strict=True)
        ]

    def _image(self, file: int, row: int) -> Any:
        ends = self._ends[file]
        group = int(np.searchsorted(ends, row, side="right"))
        if self._last[0] != (file, group):
            column = self._files[file].read_row_group(group, columns=[self._column])
            self._last = (file, group), column[self._column].combine_chunks()
        value = self._last[1][row - (int(ends[group - 1]) if group else 0)]
        if not value.is_valid:
            return None
        return self._form.cutout(*_structure(value))


def _structure(value: Any) -> tuple[Any, Any, Any, Any, str | None]:
    """Return flux, inverse variance, bands, pixel scale and unit of a structure of Arrow."""
    fields = {}
    if hasattr(value, "keys"):
        fields = {key: value[key] for key in value}
    else:
        # A list of structures, one for each band.
        parts = [dict(part.items()) for part in value]
        fields = {key: [part[key] for part in parts] for key in parts[0]}

    def images(*names: str) -> np.ndarray | None:
        for name in names:
            if name in fields and _is_valid(fields[name]):
                return np.stack([_image_array(band) for band in fields[name]])
        return None

    flux = images("flux", "array")
    if flux is None:
        raise ValueError("the structure of the image has neither flux nor array.")
    plain = {
        key: [x.as_py() for x in fields[key]] if _is_valid(fields.get(key)) else None
        for key in ("band", "scale")
    }
    return flux, images("ivar"), plain["band"], plain["scale"], None


def _is_valid(value: Any) -> bool:
    return value is not None and getattr(value, "is_valid", True)


def _image_array(value: Any) -> np.ndarray:
    """Return a list of lists of Arrow as an array, without lists of Python."""
    rows = value.values
    flat = rows.flatten() if hasattr(rows, "flatten") else rows
    return flat.to_numpy(zero_copy_only=False).reshape(len(rows), -1)


class _FitsImages(ImageReader):
    """Images in FITS files named by the identifiers."""

    def __init__(self, folder: Path) -> None:
        self._paths = {_stem(path): path for path in _files_in(folder, _FITS)}

    def _block(self, ids: np.ndarray, rows: np.ndarray) -> Sequence[Any]:
        return [self._image(str(each)) for each in ids]

    def _image(self, name: str) -> Any:
        try:
            return read_image_file(self._paths[name]) if name in self._paths else None
        except (OSError, *INPUT_ERRORS) as error:
            return Unreadable(" ".join(str(error).split()).rstrip("."))


def _stem(path: Path) -> str:
    ending = next(each for each in _FITS if path.name.lower().endswith(each))
    return path.name[: -len(ending)]


class _FunctionImages(ImageReader):
    """Images of a function of identifiers."""

    def __init__(self, function: Callable[[np.ndarray], Sequence[Any]]) -> None:
        self._function = function

    def _block(self, ids: np.ndarray, rows: np.ndarray) -> Sequence[Any]:
        found = list(self._function(ids))
        if len(found) != len(ids):
            raise ValueError(
                f"the function of images returned {len(found)} for {len(ids)} identifiers; one "
                "for each is expected, None where there is none."
            )
        return found


def _files_in(path: Path, endings: Sequence[str]) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted(
        each
        for each in path.rglob("*")
        if each.is_file() and each.name.lower().endswith(tuple(endings)) and each.name[0] != "_"
    )


def _is_zarr(path: Path) -> bool:
    return path.is_dir() and any((path / n).exists() for n in ("zarr.json", ".zgroup"))


@lru_cache(maxsize=2)
def image_reader(source: str, form: ImageFormat) -> ImageReader:
    """Open a source of images.

    Parameters
    ----------
    source : str
        Path, or ``module:function``.
    form : ImageFormat
        What images do not say of themselves.

    Returns
    -------
    ImageReader

    Raises
    ------
    FileNotFoundError
        If there are no images.
    OSError, ValueError
        If they cannot be read.
    """
    path = Path(source)
    if not path.exists():
        return _FunctionImages(_function(source))
    if _is_zarr(path):
        zarr = optional_package("zarr", "survey", "zarr groups")
        return _ArrayImages([zarr.open_group(path, mode="r")], form)
    files = _files_in(path, (*_HDF5, *_PARQUET, *_FITS))
    kinds = {kind for kind in (_HDF5, _PARQUET, _FITS) for f in files if _ends(f, kind)}
    if len(kinds) != 1:
        what = "images of several formats" if kinds else "no HDF5, zarr, parquet or FITS files"
        raise FileNotFoundError(f"{source} has {what}.")
    if _HDF5 in kinds:
        h5py = optional_package("h5py", "simulate", "HDF5 files")
        return _ArrayImages([_first_group(h5py.File(each)) for each in files], form)
    if _PARQUET in kinds:
        files = [each for each in files if each.name not in ("_metadata", "_common_metadata")]
        return _StructureImages(files, form, "image")
    return _FitsImages(path)


def column_reader(source: str, form: ImageFormat, path: Path, start: int) -> ImageReader:
    """Return the reader of a column of images of the catalogue itself.

    Parameters
    ----------
    source : str
        ``column:NAME``.
    form : ImageFormat
        What images do not say of themselves.
    path : path
        File of the catalogue.
    start : int
        First row of the partition.

    Returns
    -------
    ImageReader
    """
    return _StructureImages([path], form, source.removeprefix(COLUMN), start)


def _ends(path: Path, endings: Sequence[str]) -> bool:
    return path.name.lower().endswith(tuple(endings))


def _first_group(file: Any) -> Any:
    """Return the group with data sets: the file, or its only group."""
    groups = [file[name] for name in file]
    if len(groups) == 1 and isinstance(groups[0], Mapping):
        return groups[0]
    return file


def _function(source: str) -> Callable[[np.ndarray], Sequence[Any]]:
    module, sign, name = source.partition(":")
    if not (sign and module and name.isidentifier()):
        raise FileNotFoundError(
            f"the images {source!r} do not exist; a path, {COLUMN}NAME or module:function is "
            "expected."
        )
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise FileNotFoundError(f"the function of images {source} is not there: {error}") from error


def image_source(images: Any) -> str | None:
    """Return the text that names a source of images.

    Parameters
    ----------
    images : path-like, callable or None
        Source; a function must be one of a module, so that other processes find it.

    Returns
    -------
    str or None

    Raises
    ------
    TypeError
        If a function is not one of a module.
    """
    if images is None or isinstance(images, str):
        return images
    if callable(images):
        name = f"{images.__module__}:{images.__qualname__}"
        if images.__module__ == "__main__" or not images.__qualname__.isidentifier():
            raise TypeError(
                f"images is the function {name}, which other processes cannot import; put it into "
                "a module."
            )
        return name
    return os.fspath(images)


def image_digest(source: str) -> str:
    """Return the SHA-256 of all files of a source of images, or of the code of a function.

    Parameters
    ----------
    source : str
        Path, ``module:function``, or ``column:NAME``, whose images are part of the catalogue.

    Returns
    -------
    str
        Empty for a column.
    """
    if source.startswith(COLUMN):
        return ""
    path = Path(source)
    if not path.exists():
        code = inspect.getsource(_function(source))
        return hashlib.sha256(code.encode()).hexdigest()
    if path.is_file():
        return file_sha256(path)
    files = sorted(each for each in path.rglob("*") if each.is_file())
    with ThreadPoolExecutor(4) as pool:
        digests = pool.map(file_sha256, files)
        lines = [
            f"{each.relative_to(path).as_posix()} {digest}"
            for each, digest in zip(files, digests, strict=True)
        ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
