"""Images of the Multimodal Universe, for a table of the user.

The files of the Multimodal Universe [1]_ have images without labels: HDF5 files with the datasets
``object_id``, ``image_band``, ``image_array``, ``image_ivar`` and ``image_scale``, or parquet files
(HATS catalogues) with ``object_id`` and a column ``image`` of structures with ``band``, ``array``
or ``flux``, ``ivar`` and ``scale``.  The table has the names (``object_id``), positions, photometry
and labels.  Fluxes are in nanomaggies per pixel; pixels with an inverse variance of zero are bad,
further masks are not used.

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

from ..surveys import BANDS
from .local_files import LocalFiles

__all__ = ["MultimodalUniverse"]

_HDF5, _PARQUET = (".h5", ".hdf5"), (".parquet", ".pq")


class MultimodalUniverse(LocalFiles):
    """Galaxies of a table, with images of the Multimodal Universe.

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

    Raises
    ------
    FileNotFoundError
        If there are no files.
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
    ) -> None:
        paths = [path for each in files for path in _files_of(Path(each))]
        if not paths:
            raise FileNotFoundError(
                f"there are no files {', '.join('*' + e for e in (*_HDF5, *_PARQUET))} in "
                f"{', '.join(map(str, files))}."
            )
        super().__init__(table, survey=survey, ebv=ebv, n=n)
        self._places = {name: place for path in paths for name, place in _objects_of(path).items()}

    @property
    def has_images(self) -> bool:
        """Whether the data set has images."""
        return True

    def image(self, name: str, row: int) -> dict[str, Any]:
        """Return the images of a galaxy.

        Parameters
        ----------
        name : str
            Name of the galaxy, its ``object_id``.
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
        if name not in self._places:
            raise FileNotFoundError(f"no file has the object {name}")
        path, index = self._places[name]
        read = _from_hdf5 if path.suffix in _HDF5 else _from_parquet
        return _images(read(path, index))


def _files_of(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.suffix in (*_HDF5, *_PARQUET))
    return [path] if path.is_file() else []


def _objects_of(path: Path) -> dict[str, tuple[Path, int]]:
    """Return the place of each object in a file."""
    if path.suffix in _HDF5:
        import h5py

        with h5py.File(path, "r") as file:
            names = file["object_id"][:].tolist()
    else:
        from pyarrow import parquet

        names = parquet.read_table(path, columns=["object_id"])["object_id"].to_pylist()
    texts = (name.decode() if isinstance(name, bytes) else str(name) for name in names)
    return {name: (path, k) for k, name in enumerate(texts)}


def _from_hdf5(path: Path, index: int) -> Mapping[str, Any]:
    import h5py

    with h5py.File(path, "r") as file:
        names = {"band": "image_band", "array": "image_array", "ivar": "image_ivar"}
        names["scale"] = "image_scale"
        return {key: file[name][index] for key, name in names.items()}


def _from_parquet(path: Path, index: int) -> Mapping[str, Any]:
    from pyarrow import parquet

    file = parquet.ParquetFile(path)
    for k in range(file.num_row_groups):
        length = file.metadata.row_group(k).num_rows
        if index < length:
            image = _row_group(path, k)[index].as_py()
            if isinstance(image, list):
                image = {key: [part[key] for part in image] for key in image[0]}
            array = image["array"] if "array" in image else image["flux"]
            return image | {"array": array}
        index -= length
    raise ValueError(f"{path} has fewer rows than object identifiers")


@lru_cache(maxsize=2)
def _row_group(path: Path, number: int) -> Any:
    from pyarrow import parquet

    return parquet.ParquetFile(path).read_row_group(number, columns=["image"])["image"]


def _images(image: Mapping[str, Any]) -> dict[str, CCDData]:
    """Return the bands of an image that the networks know."""
    images = {}
    for k, label in enumerate(image["band"]):
        text = label.decode() if isinstance(label, bytes) else str(label)
        band = text.replace("_", "-").split("-")[-1].lower()
        if band not in BANDS:
            continue
        images[band] = CCDData(
            np.asarray(image["array"][k], dtype=float),
            unit=u.nmgy,
            uncertainty=InverseVariance(np.asarray(image["ivar"][k], dtype=float)),
            meta={"PIXSCALE": float(np.ravel(image["scale"])[k])},
        )
    if not images:
        raise ValueError(f"the image has no band of {', '.join(BANDS)}")
    return images
