"""Images and spectra of the Multimodal Universe, for a table of the user.

The files of the Multimodal Universe [1]_ are HDF5 files with the dataset ``object_id``, or parquet
files (HATS catalogues) with a column of this name, and

- images: ``image_band``, ``image_array``, ``image_ivar`` and ``image_scale`` (HDF5), or a column
  ``image`` of structures with ``band``, ``array`` or ``flux``, ``ivar`` and ``scale``.  Fluxes are
  in nanomaggies per pixel; pixels with an inverse variance of zero are bad, further masks are not
  used;
- spectra of SDSS and DESI: ``spectrum_lambda`` (vacuum, Angstrom; negative where padded),
  ``spectrum_flux`` (1e-17 erg/s/cm2/A), ``spectrum_ivar`` and optionally ``spectrum_mask`` (true
  where bad), or a column ``spectrum`` of structures with ``lambda``, ``flux``, ``ivar`` and
  ``mask``; instead of ``lambda``, files of DESI have ``lambda_min`` and ``lambda_max`` of a linear
  grid.

The table has the names (``object_id``), positions, photometry and labels.  Images and spectra of a
galaxy have different ``object_id``: the name is that of the image, and the column ``spectrum`` of
the table, if it exists, that of the spectrum.

References
----------
.. [1] The Multimodal Universe Collaboration 2024, arXiv:2412.02527;
   https://github.com/MultimodalUniverse/MultimodalUniverse
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from astropy.nddata import CCDData, InverseVariance
from astropy.table import QTable

from ..surveys import BANDS, CUTOUT_SIZE
from .local_files import LocalFiles
from .spectra import ObservedSpectrum

__all__ = ["MultimodalUniverse"]

_HDF5, _PARQUET = (".h5", ".hdf5"), (".parquet", ".pq")
#: Array in HDF5 files by which images and spectra are recognised.
_ARRAYS = {"image": "array", "spectrum": "flux"}


class MultimodalUniverse(LocalFiles):
    """Galaxies of a table, with images and spectra of the Multimodal Universe.

    Parameters
    ----------
    table : QTable
        Names, positions, photometry and labels, see `astrogenspec.datasets.local_files`.
    files : sequence of path
        Files, or folders that are searched for files.
    survey : str
        Survey of photometry and images.
    ebv : float or Quantity, optional
        Galactic E(B-V), if the table does not have it.
    n : int, optional
        Use the first ``n`` galaxies only.
    cutout_size : int
        Pixels on a side of the images.

    Raises
    ------
    FileNotFoundError
        If there are no files.
    ValueError
        If they have neither images nor spectra.
    """

    name = "multimodal-universe"

    def __init__(
        self,
        table: QTable,
        files: Sequence[Path],
        *,
        survey: Any = "legacy-dr10",
        ebv: Any = None,
        n: int | None = None,
        cutout_size: int = CUTOUT_SIZE,
    ) -> None:
        paths = [path for each in files for path in _files_of(Path(each))]
        if not paths:
            raise FileNotFoundError(
                f"there are no files {', '.join('*' + e for e in (*_HDF5, *_PARQUET))} in "
                f"{', '.join(map(str, files))}."
            )
        super().__init__(table, survey=survey, ebv=ebv, n=n, cutout_size=cutout_size)
        self._places: dict[str, dict[str, tuple[Path, int]]] = {"image": {}, "spectrum": {}}
        for path in paths:
            objects, kinds = _contents_of(path)
            for kind in kinds:
                self._places[kind] |= {name: (path, k) for k, name in enumerate(objects)}
        if not any(self._places.values()):
            raise ValueError(
                f"{paths[0]} has neither images nor spectra; files of the Multimodal Universe with "
                "object_id and image or spectrum are expected."
            )

    @property
    def has_images(self) -> bool:
        """Whether the data set has images."""
        return bool(self._places["image"])

    @property
    def has_spectra(self) -> bool:
        """Whether the data set has spectra."""
        return bool(self._places["spectrum"])

    def image(self, name: str, row: int) -> dict[str, Any]:
        """Return the images of a galaxy.

        Parameters
        ----------
        name : str
            Name of the galaxy, the ``object_id`` of its image.
        row : int
            Its row in the table.

        Returns
        -------
        dict of CCDData

        Raises
        ------
        OSError, ValueError
            If no file has them, or they cannot be read.
        """
        return _images(self._entry("image", name))

    def spectrum(self, name: str, row: int) -> ObservedSpectrum:
        """Return the spectrum of a galaxy.

        Parameters
        ----------
        name : str
            Name of the galaxy.
        row : int
            Its row in the table.

        Returns
        -------
        ObservedSpectrum

        Raises
        ------
        OSError, ValueError
            If no file has it, or it cannot be read.
        """
        return _spectrum(self._entry("spectrum", self.paths.get("spectrum", {row: name})[row]))

    def _entry(self, kind: str, name: str) -> Mapping[str, Any]:
        if name not in self._places[kind]:
            raise FileNotFoundError(f"no file has the {kind} of the object {name}")
        path, index = self._places[kind][name]
        read = _from_hdf5 if path.suffix in _HDF5 else _from_parquet
        return read(path, index, kind)


def _files_of(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.suffix in (*_HDF5, *_PARQUET))
    return [path] if path.is_file() else []


def _contents_of(path: Path) -> tuple[list[str], list[str]]:
    """Return the names of the objects in a file, and which of image and spectrum it has."""
    if path.suffix in _HDF5:
        import h5py

        with h5py.File(path, "r") as file:
            columns = set(file)
            names = file["object_id"][:].tolist() if "object_id" in file else []
        kinds = [kind for kind, one in _ARRAYS.items() if f"{kind}_{one}" in columns]
    else:
        from pyarrow import parquet

        columns = set(parquet.read_schema(path).names)
        kinds = [kind for kind in _ARRAYS if kind in columns]
        names = []
        if "object_id" in columns:
            names = parquet.read_table(path, columns=["object_id"])["object_id"].to_pylist()
    if not names:
        raise ValueError(f"{path} has no object_id; files of the Multimodal Universe are expected.")
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names], kinds


def _from_hdf5(path: Path, index: int, kind: str) -> Mapping[str, Any]:
    import h5py

    with h5py.File(path, "r") as file:
        start = f"{kind}_"
        return {name[len(start) :]: file[name][index] for name in file if name.startswith(start)}


def _from_parquet(path: Path, index: int, kind: str) -> Mapping[str, Any]:
    from pyarrow import parquet

    file = parquet.ParquetFile(path)
    for k in range(file.num_row_groups):
        length = file.metadata.row_group(k).num_rows
        if index < length:
            entry = _row_group(path, k, kind)[index].as_py()
            if isinstance(entry, list):
                entry = {key: [part[key] for part in entry] for key in entry[0]}
            return entry
        index -= length
    raise ValueError(f"{path} has fewer rows than object identifiers")


@lru_cache(maxsize=2)
def _row_group(path: Path, number: int, kind: str) -> Any:
    from pyarrow import parquet

    return parquet.ParquetFile(path).read_row_group(number, columns=[kind])[kind]


def _spectrum(entry: Mapping[str, Any]) -> ObservedSpectrum:
    """Return a spectrum without its padding."""

    def values(name: str) -> np.ndarray:
        # Older files store arrays of shape (m, 1).
        return np.ravel(np.asarray(entry[name], dtype=float))

    flux, ivar = values("flux"), values("ivar")
    if "lambda" in entry:
        wavelength = values("lambda")
    elif {"lambda_min", "lambda_max"} <= entry.keys():
        low, high = float(values("lambda_min")[0]), float(values("lambda_max")[0])
        wavelength = np.linspace(low, high, len(flux))
    else:
        raise ValueError("the spectrum has neither lambda nor lambda_min and lambda_max")
    if "mask" in entry:
        ivar = np.where(np.ravel(np.asarray(entry["mask"], dtype=bool)), 0.0, ivar)
    used = np.isfinite(wavelength) & (wavelength > 0)
    return ObservedSpectrum(wavelength[used], flux[used], ivar[used])


def _images(image: Mapping[str, Any]) -> dict[str, CCDData]:
    """Return the bands of an image that the networks know."""
    images = {}
    for k, label in enumerate(image["band"]):
        text = label.decode() if isinstance(label, bytes) else str(label)
        band = text.replace("_", "-").split("-")[-1].lower()
        if band not in BANDS:
            continue
        images[band] = CCDData(
            np.asarray(image["array" if "array" in image else "flux"][k], dtype=float),
            unit=u.nmgy,
            uncertainty=InverseVariance(np.asarray(image["ivar"][k], dtype=float)),
            meta={"PIXSCALE": float(np.ravel(image["scale"])[k])},
        )
    if not images:
        raise ValueError(f"the image has no band of {', '.join(BANDS)}")
    return images
