"""Galaxies of HDF5 shards, for training.

Shards of simulated galaxies are written by ``astrogenspec simulate``
(`astrogenspec.simulate.write_shards`), those of real galaxies by ``astrogenspec dataset``
(`astrogenspec.datasets`).  Reading them needs neither the simulator nor the source.

Columns are in memory, or, if they are larger than `MAX_IN_MEMORY`, mapped: only the rows of a batch
are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..inputs.features import ModelInputs, SEDInputs
from ..surveys import CUTOUT_SIZE
from .augmentation import MORPHOLOGY_COLUMNS, AugmentationConfig, augment, augment_photometry
from .filter_sets import FilterObserver
from .observed import observed_inputs

__all__ = [
    "MAX_IN_MEMORY",
    "OBSERVED_COLUMNS",
    "MappedColumn",
    "Shards",
    "are_real",
    "have_images",
    "image_size",
    "read_mapped_columns",
    "training_folders",
]

#: Size of the columns of a folder above which they are mapped (bytes).
MAX_IN_MEMORY = 4_000_000_000

#: Columns from which network inputs are made; ``image`` and the measured fluxes exist for galaxies
#: with images only, ``sed`` and ``sed_flux`` for shards written with ``Contents(seds=True)``.
OBSERVED_COLUMNS = (
    "true_flux",
    "error",
    "measured_flux",
    "measured_error",
    "image",
    "sed",
    "sed_flux",
    *MORPHOLOGY_COLUMNS,
    "flux",
    "ivar",
)
#: Beginning of the attribute ``format`` of shards of real galaxies.
_REAL = "astrogenspec real galaxies"
_REAL_FORMATS = (f"{_REAL} 1",)


def training_folders(folder: Path | str) -> tuple[Path, Path | None]:
    """Return the folders with the shards to train on and to validate with.

    Parameters
    ----------
    folder : path
        Folder of shards, or of a data set with folders ``train`` and ``validation``.

    Returns
    -------
    training : Path
    validation : Path or None
        None if the last galaxies of the former are for validation.
    """
    folder = Path(folder)
    if list(folder.glob("shard-*.h5")) or not (folder / "train").is_dir():
        return folder, None
    validation = folder / "validation"
    has_any = validation.is_dir() and any(validation.glob("shard-*.h5"))
    return folder / "train", validation if has_any else None


def have_images(folder: Path | str) -> bool:
    """Return whether the shards of a folder have images; False if there are none."""
    return image_size(folder) is not None


def image_size(folder: Path | str) -> int | None:
    """Return the pixels on a side of the images of shards or of a data set; None without any."""
    import h5py

    paths = sorted(training_folders(folder)[0].glob("shard-*.h5"))
    if not paths:
        return None
    with h5py.File(paths[0]) as file:
        return int(file["image"].shape[-1]) if "image" in file else None


def are_real(folder: Path | str) -> bool:
    """Return whether the shards of a folder, or of a data set, hold real galaxies."""
    import h5py

    paths = sorted(training_folders(folder)[0].glob("shard-*.h5"))
    if not paths:
        return False
    with h5py.File(paths[0]) as file:
        return _is_real(file, paths[0])


class MappedColumn:
    """Column of several files, of which only selected rows are read.

    Parameters
    ----------
    parts : sequence of ndarray, each of shape (n_k, ...)
        Memory maps of the same type.
    start, stop : int, optional
        Range of the rows; all by default.
    """

    def __init__(self, parts: Sequence[np.ndarray], start: int = 0, stop: int | None = None):
        self._parts = list(parts)
        self._ends = np.cumsum([len(part) for part in parts])
        self._start = start
        self._stop = int(self._ends[-1]) if stop is None else stop

    def __len__(self) -> int:
        return self._stop - self._start

    def __getitem__(self, item: Any) -> Any:
        """Read the rows of an index tensor, or narrow the column to a slice without reading."""
        if isinstance(item, slice):
            start, stop, _ = item.indices(len(self))
            return MappedColumn(self._parts, self._start + start, self._start + stop)
        rows = self._start + np.asarray(item)
        first = self._parts[0]
        values = np.empty((len(rows), *first.shape[1:]), first.dtype)
        of_part = np.searchsorted(self._ends, rows, side="right")
        for k in np.unique(of_part):
            chosen = of_part == k
            values[chosen] = self._parts[k][rows[chosen] - (self._ends[k] - len(self._parts[k]))]
        return torch.from_numpy(values)


class Shards:
    """Columns of shards.

    Parameters
    ----------
    columns : dict of str to Tensor or MappedColumn
        Columns by name: ``true_flux`` and ``error`` of simulated galaxies, or ``flux`` and
        ``error`` of real ones; ``image`` for galaxies with images.
    filters : sequence of str, optional
        Names of the filters of the photometry of real galaxies.
    cutout_size : int
        Pixels on a side of the images that are used, from the centre of those in the column.
    """

    def __init__(
        self,
        columns: dict[str, Any],
        filters: Sequence[str] = (),
        cutout_size: int = CUTOUT_SIZE,
    ):
        self.columns = columns
        self.filters = tuple(filters)
        self.cutout_size = cutout_size

    def __len__(self) -> int:
        return len(self.columns["error"])

    @property
    def are_real(self) -> bool:
        """True for real galaxies, whose images and fluxes have noise."""
        return "true_flux" not in self.columns

    def total_flux(self, indices: Tensor) -> Tensor:
        """Return total fluxes: true ones of simulated galaxies, observed ones of real galaxies.

        Parameters
        ----------
        indices : Tensor of int, shape (n,)

        Returns
        -------
        Tensor, shape (n, m)
            nmgy, dereddened; NaN where missing.
        """
        return self.columns["flux" if self.are_real else "true_flux"][indices]

    @property
    def has_images(self) -> bool:
        """True if the galaxies have images."""
        return "image" in self.columns

    @property
    def has_seds(self) -> bool:
        """True if the spectral energy distributions of the galaxies are known."""
        return "sed" in self.columns

    def seds(self, indices: Tensor) -> Tensor:
        """Return spectral energy distributions on the grid `~astrogenspec.wavelengths.SED_GRID`.

        Parameters
        ----------
        indices : Tensor of int, shape (n,)

        Returns
        -------
        Tensor, shape (n, SED_GRID.size)
            nmgy.
        """
        return self.columns["sed"][indices].float() * self.columns["sed_flux"][indices, None]

    @property
    def has_morphology(self) -> bool:
        """True if the morphology of the galaxies is known."""
        return all(name in self.columns for name in MORPHOLOGY_COLUMNS)

    @classmethod
    def read(
        cls,
        folder: Path | str,
        labels: Sequence[str] = ("theta", "measurable"),
        *,
        cutout_size: int = CUTOUT_SIZE,
    ) -> Shards:
        """Read all shards of a folder, in order of their names.

        Parameters
        ----------
        folder : path
            Folder with files ``shard-*.h5``.
        labels : sequence of str
            Columns to read in addition to `OBSERVED_COLUMNS`.
        cutout_size : int
            Pixels on a side of the images that are used.

        Returns
        -------
        Shards

        Raises
        ------
        FileNotFoundError
            If the folder has no shard.
        ValueError
            If the shards lack one of the labels, or their images are too small.
        """
        import h5py

        paths = sorted(Path(folder).glob("shard-*.h5"))
        if not paths:
            raise FileNotFoundError(
                f"{folder} has no files shard-*.h5; make them with `astrogenspec simulate N "
                f"--out {folder}` or `astrogenspec dataset`."
            )
        with h5py.File(paths[0]) as file:
            real = _is_real(file, paths[0])
            missing = [name for name in labels if name not in file]
            if missing:
                how = (
                    "make the data set again with them, see `astrogenspec dataset`."
                    if real
                    else "simulate them again with `astrogenspec simulate N --training`."
                )
                raise ValueError(
                    f"the shards of {folder} have no column {', '.join(missing)}; {how}"
                )
            inputs = [name for name in OBSERVED_COLUMNS if real or name not in ("flux", "ivar")]
            names = [*labels, *(name for name in inputs if name in file and name not in labels)]
            filters = [str(name) for name in file.attrs["filters"]] if real else []
            stored = file["image"].shape[-1] if "image" in file else cutout_size
        if stored < cutout_size:
            raise ValueError(
                f"the images of {folder} have {stored} pixels on a side, but the network reads "
                f"{cutout_size}; make them again with --cutout-size {cutout_size}."
            )
        return cls(dict(read_mapped_columns(paths, names)), filters, cutout_size)

    def without_images(self) -> Shards:
        """Remove images and the photometry measured on them."""
        return self.drop("image", "ivar", "measured_flux", "measured_error")

    def drop(self, *names: str) -> Shards:
        """Remove columns, if they exist."""
        kept = {name: c for name, c in self.columns.items() if name not in names}
        return Shards(kept, self.filters, self.cutout_size)

    def split(self, fraction: float) -> tuple[Shards, Shards]:
        """Split off the last ``fraction`` of the galaxies."""
        cut = round(len(self) * (1 - fraction))
        first, last = (
            Shards(
                {name: column[part] for name, column in self.columns.items()},
                self.filters,
                self.cutout_size,
            )
            for part in (slice(None, cut), slice(cut, None))
        )
        return first, last

    def labels(self, indices: Tensor) -> dict[str, Tensor]:
        """Return the columns of labels for some galaxies."""
        return {
            name: column[indices]
            for name, column in self.columns.items()
            if name not in OBSERVED_COLUMNS
        }

    def inputs(
        self,
        indices: Tensor,
        config: AugmentationConfig,
        generator: torch.Generator,
        observer: FilterObserver | None = None,
    ) -> ModelInputs:
        """Make augmented network inputs of galaxies; see `astrogenspec.training.augmentation`.

        Parameters
        ----------
        indices : Tensor of int, shape (n,)
            Galaxies.
        config : AugmentationConfig
            Noise and missing inputs.
        generator : `torch.Generator`
            Source of randomness.
        observer : FilterObserver, optional
            Catalogue photometry in random sets of filters; by default it is that of SDSS.

        Returns
        -------
        ModelInputs
        """
        if self.are_real:
            components = None if observer is None else observer.components
            return observed_inputs(
                self._observed(indices), self.filters, config, generator, components
            )
        inputs = self._in_sdss(indices, config, generator)
        if observer is None:
            return inputs
        return self._in_any_filters(inputs, indices, generator, observer)

    def _observed(self, indices: Tensor) -> dict[str, Tensor]:
        """Return the columns from which inputs are made, for some galaxies."""
        chosen = {
            name: self.columns[name][indices] for name in OBSERVED_COLUMNS if name in self.columns
        }
        for name in ("image", "ivar"):
            if name in chosen:
                first = (chosen[name].shape[-1] - self.cutout_size) // 2
                inside = slice(first, first + self.cutout_size)
                chosen[name] = chosen[name][..., inside, inside]
        return chosen

    def _in_sdss(
        self, indices: Tensor, config: AugmentationConfig, generator: torch.Generator
    ) -> ModelInputs:
        """Make inputs whose photometry is that of SDSS."""
        chosen = self._observed(indices)
        morphology = None
        if self.has_morphology:
            morphology = {name: chosen[name] for name in MORPHOLOGY_COLUMNS}
        if not self.has_images:
            return augment_photometry(
                chosen["true_flux"], chosen["error"], config, generator, morphology=morphology
            )
        return augment(
            chosen["image"],
            chosen["true_flux"],
            chosen["error"],
            measured_flux=chosen["measured_flux"],
            measured_error=chosen["measured_error"],
            morphology=morphology,
            config=config,
            generator=generator,
        )

    def _in_any_filters(
        self,
        inputs: ModelInputs,
        indices: Tensor,
        generator: torch.Generator,
        observer: FilterObserver,
    ) -> SEDInputs:
        """Replace catalogue photometry of SDSS by that in random sets of filters."""
        catalogue = observer(self.seds(indices), self.columns["error"][indices], generator)
        features = catalogue * inputs.has_photometry[:, None]
        rows = inputs.measured.nonzero()[:, 0]
        if len(rows):
            flux, error = (
                self.columns[name][indices[rows]] for name in ("measured_flux", "measured_error")
            )
            flux = torch.where(inputs.photometry_bands[rows], flux, torch.nan)
            features[rows] = observer.measured_on_image(flux, error)
        columns = {item.name: getattr(inputs, item.name) for item in fields(inputs)}
        return SEDInputs(**columns | {"photometry": features})


def _is_real(file: Any, path: Path) -> bool:
    """Return whether a shard holds real galaxies; raise if its format is unknown."""
    version = str(file.attrs.get("format", ""))
    if not version:
        return False
    if version not in _REAL_FORMATS:
        raise ValueError(
            f"{path} has the format {version!r}, but this version of astrogenspec reads "
            f"{', '.join(_REAL_FORMATS)}; upgrade astrogenspec."
        )
    return True


def read_mapped_columns(paths: Sequence[Path], names: Sequence[str]) -> list[tuple[str, Any]]:
    """Read columns of all shards, or map those that are too large for memory.

    Parameters
    ----------
    paths : sequence of Path
        Files with the same columns.
    names : sequence of str
        Columns.

    Returns
    -------
    list of tuple of str and Tensor or MappedColumn

    Raises
    ------
    ValueError
        If the files have different columns.
    """
    import h5py

    with h5py.File(paths[0]) as file:
        shapes = {name: file[name].shape[1:] for name in names}
        dtypes = {name: file[name].dtype for name in names}
    lengths = []
    for path in paths:
        with h5py.File(path) as file:
            wrong = [n for n in names if n not in file or file[n].shape[1:] != shapes[n]]
            if wrong:
                raise ValueError(
                    f"{path} has another layout than {paths[0]} (column {wrong[0]}); put shards of "
                    "different kinds in different folders."
                )
            lengths.append(len(file[names[0]]))
    n = sum(lengths)
    sizes = {name: n * int(np.prod(shapes[name])) * dtypes[name].itemsize for name in names}
    if sum(sizes.values()) > MAX_IN_MEMORY:
        large = [name for name in names if sizes[name] > sum(sizes.values()) / 20]
    else:
        large = []
    columns: dict[str, Any] = {
        name: np.empty((n, *shapes[name]), dtype=dtypes[name])
        for name in names
        if name not in large
    }
    maps: dict[str, list[np.ndarray]] = {name: [] for name in large}
    start = 0
    for path, length in zip(paths, lengths, strict=True):
        with h5py.File(path) as file:
            for name, column in columns.items():
                file[name].read_direct(column, dest_sel=np.s_[start : start + length])
            for name in large:
                maps[name].append(_mapped(path, file[name]))
        start += length
    return [
        (name, MappedColumn(maps[name]) if name in large else torch.from_numpy(columns[name]))
        for name in names
    ]


def _mapped(path: Path, dataset: Any) -> np.ndarray:
    """Map a dataset that is stored in one piece."""
    offset = dataset.id.get_offset()
    if offset is None:
        raise ValueError(
            f"the column {dataset.name} of {path} is compressed or stored in chunks, and too large "
            "for memory; write it again without."
        )
    return np.memmap(path, dataset.dtype, "r", offset, dataset.shape)
