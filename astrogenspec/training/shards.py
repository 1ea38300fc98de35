"""Simulated galaxies of HDF5 shards in memory, for training.

Shards are written by ``astrogenspec simulate`` (`astrogenspec.simulate.write_shards`).  Reading
them does not need the simulator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..inputs.features import ModelInputs, SEDInputs
from .augmentation import MORPHOLOGY_COLUMNS, AugmentationConfig, augment, augment_photometry
from .filter_sets import FilterObserver

__all__ = ["OBSERVED_COLUMNS", "Shards", "have_images"]

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
)


def have_images(folder: Path | str) -> bool:
    """Return whether the shards of a folder have images; False if there are none."""
    import h5py

    paths = sorted(Path(folder).glob("shard-*.h5"))
    if not paths:
        return False
    with h5py.File(paths[0]) as file:
        return "image" in file


class Shards:
    """Columns of simulated shards in memory.

    Parameters
    ----------
    columns : dict of str to Tensor
        Columns by name: at least ``true_flux`` and ``error``; ``image`` for galaxies with images.
    """

    def __init__(self, columns: dict[str, Tensor]):
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns["true_flux"])

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
    def read(cls, folder: Path | str, labels: Sequence[str] = ("theta", "measurable")) -> Shards:
        """Read all shards of a folder, in order of their names.

        Parameters
        ----------
        folder : path
            Folder with files ``shard-*.h5``.
        labels : sequence of str
            Columns to read in addition to `OBSERVED_COLUMNS`.

        Returns
        -------
        Shards

        Raises
        ------
        FileNotFoundError
            If the folder has no shard.
        ValueError
            If the shards lack one of the labels.
        """
        import h5py

        paths = sorted(Path(folder).glob("shard-*.h5"))
        if not paths:
            raise FileNotFoundError(
                f"{folder} has no files shard-*.h5; make them with `astrogenspec simulate N "
                f"--out {folder}`."
            )
        with h5py.File(paths[0]) as file:
            missing = [name for name in labels if name not in file]
            if missing:
                raise ValueError(
                    f"the shards of {folder} have no column {', '.join(missing)}; simulate them "
                    "again with `astrogenspec simulate N --training`."
                )
            names = [*labels, *(name for name in OBSERVED_COLUMNS if name in file)]
            shapes = {name: file[name].shape for name in names}
            dtypes = {name: file[name].dtype for name in names}
        n = shapes["true_flux"][0]
        columns = {
            name: np.empty((n * len(paths), *shapes[name][1:]), dtype=dtypes[name])
            for name in names
        }
        for k, path in enumerate(paths):
            with h5py.File(path) as file:
                for name in names:
                    file[name].read_direct(columns[name], dest_sel=np.s_[k * n : (k + 1) * n])
        return cls({name: torch.from_numpy(column) for name, column in columns.items()})

    def without_images(self) -> Shards:
        """Remove images and the photometry measured on them."""
        return self.drop("image", "measured_flux", "measured_error")

    def drop(self, *names: str) -> Shards:
        """Remove columns, if they exist."""
        return Shards({name: c for name, c in self.columns.items() if name not in names})

    def split(self, fraction: float) -> tuple[Shards, Shards]:
        """Split off the last ``fraction`` of the galaxies."""
        cut = round(len(self) * (1 - fraction))
        first, last = (
            Shards({name: column[part] for name, column in self.columns.items()})
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
        inputs = self._in_sdss(indices, config, generator)
        if observer is None:
            return inputs
        return self._in_any_filters(inputs, indices, generator, observer)

    def _in_sdss(
        self, indices: Tensor, config: AugmentationConfig, generator: torch.Generator
    ) -> ModelInputs:
        """Make inputs whose photometry is that of SDSS."""
        chosen = {
            name: self.columns[name][indices] for name in OBSERVED_COLUMNS if name in self.columns
        }
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
