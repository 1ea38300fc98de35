"""Training of `astrogenspec.generation.galaxy_spectroscopy` on data sets with images and spectra.

The observed spectra are learnt as they are, with their noise; bad pixels are interpolated from
their neighbours.  Simulated galaxies have noise-free spectra of the fibre.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..generation.conditioning import APERTURES
from ..generation.estimator import SpectrumEstimator
from ..generation.galaxy_spectroscopy import (
    WAVELENGTH,
    GalaxySpectroscopyNetwork,
    normalised_log,
)
from ..generation.pipeline import observed_flux
from ..generation.training import LABELS, SpectrumRecipe, select_aperture
from ..nn.precision import single_precision
from ..nn.records import TensorRecord
from ..quantities import quantity_index
from ..training.augmentation import AugmentationConfig
from ..training.loop import History, TrainingConfig
from ..training.recipe import ShardSource, TrainingTask, train
from ..training.shards import Shards, are_real, have_images, training_folders
from ..wavelengths import REST, WIDE
from .spectrum_samples import check_number
from .spectrum_training import REFERENCE, in_sdss

__all__ = ["ImageSpectra", "ImageSpectrumBatch", "ImageSpectrumTask", "train_image_spectra"]

_REAL_LABELS = ("theta", "spectrum", "spectrum_ivar")
#: Fraction of the pixels between 4000 and 8500 Angstrom that must be good.
_MIN_COVERED = 0.9
#: Galaxies that are read at once, and galaxies from which scales are computed.
_BLOCK, _SCALE_SAMPLE = 500, 3000
_REDSHIFT = quantity_index("redshift")


@dataclass(frozen=True)
class ImageSpectrumBatch(TensorRecord):
    """Images with logarithms of spectra.

    Attributes
    ----------
    image : Tensor, shape (n, 5, 64, 64)
        Scaled images.
    logs : Tensor, shape (n, 4501)
        See `~astrogenspec.generation.galaxy_spectroscopy.normalised_log`.
    """

    image: Tensor
    logs: Tensor


class ImageSpectra:
    """Galaxies with images and spectra.

    Parameters
    ----------
    shards : Shards
        Real galaxies with spectra, or simulated ones.
    rows : Tensor of int, optional
        Galaxies that are used; by default those whose spectrum covers the range.
    """

    def __init__(self, shards: Shards, rows: Tensor | None = None) -> None:
        self.shards = shards
        self.rows = self._usable() if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    def split(self, fraction: float) -> tuple[ImageSpectra, ImageSpectra]:
        """Split off the last ``fraction`` of the galaxies."""
        cut = round(len(self) * (1 - fraction))
        return ImageSpectra(self.shards, self.rows[:cut]), ImageSpectra(
            self.shards, self.rows[cut:]
        )

    def logs(self, indices: Tensor) -> Tensor:
        """Return logarithms of the spectra of some galaxies, shape (n, 4501).

        Parameters
        ----------
        indices : Tensor of int, shape (n,)
        """
        labels = self.shards.labels(self.rows[indices])
        if self.shards.are_real:
            flux = _observed(labels)[0]
        else:
            fibre = torch.full((len(indices),), APERTURES.index("fibre"))
            wide = observed_flux(select_aperture(labels, fibre)).double().numpy()
            flux = np.stack([np.interp(WAVELENGTH, WIDE.wavelength, row) for row in wide])
        return torch.from_numpy(normalised_log(flux)).float()

    def images(
        self, indices: Tensor, config: AugmentationConfig, generator: torch.Generator
    ) -> Tensor:
        """Return scaled images of some galaxies, shape (n, 5, 64, 64).

        Parameters
        ----------
        indices : Tensor of int, shape (n,)
        config : AugmentationConfig
        generator : `torch.Generator`
        """
        image = self.shards.inputs(self.rows[indices], config, generator).image
        if image is None:
            raise ValueError("the galaxies have no images.")
        return image

    def bands(self) -> Tensor:
        """Return which bands the images of nearly all galaxies have, bool, shape (5,)."""
        if not self.shards.are_real:
            return torch.ones(5, dtype=torch.bool)
        first = self.rows[:_BLOCK]
        return (self.shards.columns["ivar"][first] > 0).flatten(2).any(-1).float().mean(0) > 0.5

    def _usable(self) -> Tensor:
        n = len(self.shards)
        if not self.shards.are_real:
            return torch.arange(n)
        found = []
        for rows in torch.arange(n).split(_BLOCK):
            flux, covered = _observed(self.shards.labels(rows))
            seen = (self.shards.columns["ivar"][rows] > 0).flatten(1).any(1).numpy()
            good = np.isfinite(normalised_log(flux)).all(1) & (covered > _MIN_COVERED) & seen
            found.append(rows[torch.from_numpy(good)])
        return torch.cat(found)


def _observed(labels: dict[str, Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Return spectra at `WAVELENGTH`, and the fraction of good pixels; NaN without any."""
    redshift = labels["theta"][:, _REDSHIFT].double().numpy()
    flux = np.full((len(redshift), len(WAVELENGTH)), np.nan)
    covered = np.zeros(len(redshift))
    good = (labels["spectrum_ivar"] > 0).numpy()
    for k, z in enumerate(redshift):
        if not np.isfinite(z):
            continue
        wavelength = REST.wavelength * (1 + z)
        inside = (wavelength >= WAVELENGTH[0]) & (wavelength <= WAVELENGTH[-1])
        covered[k] = good[k][inside].mean()
        if good[k].any():
            seen = labels["spectrum"][k].numpy()[good[k]]
            flux[k] = np.interp(WAVELENGTH, wavelength[good[k]], seen)
    return flux, covered


class ImageSpectrumTask(TrainingTask):
    """Batches and loss of `GalaxySpectroscopyNetwork`.

    Parameters
    ----------
    recipe : SpectrumRecipe
        Settings.
    """

    n_validation_batches = 4
    recipe: SpectrumRecipe

    def make_batch(
        self,
        shards: Any,
        indices: Tensor,
        augmentation: AugmentationConfig,
        generator: torch.Generator,
    ) -> ImageSpectrumBatch:
        """Make a batch of the galaxies ``indices`` of `ImageSpectra`."""
        image = shards.images(indices, augmentation, generator)
        return ImageSpectrumBatch(image, shards.logs(indices))

    def batch_loss(
        self,
        network: GalaxySpectroscopyNetwork,
        batch: ImageSpectrumBatch,
        source: int,
        progress: float,
    ) -> dict[str, Tensor]:
        """Evaluate the loss of a batch; in validation with fixed random numbers."""
        return network.loss(
            batch.image,
            batch.logs,
            n_detail=min(self.recipe.detail, len(batch)),
            generator=None if network.training else torch.Generator().manual_seed(source),
        )


@single_precision()
def train_image_spectra(
    data: Sequence[Path | str],
    out: Path | str,
    *,
    recipe: SpectrumRecipe,
    training: TrainingConfig,
) -> tuple[GalaxySpectroscopyNetwork, History]:
    """Train the networks of "Galaxy spectroscopy without spectra", or resume.

    Parameters
    ----------
    data : sequence of path
        Data sets of real galaxies, or folders of simulated shards, with images and spectra.
    out : path
        Folder of the checkpoint and of the history.
    recipe : SpectrumRecipe
        Of the batches, only those of images are used.
    training : TrainingConfig

    Returns
    -------
    network : GalaxySpectroscopyNetwork
        With the averaged weights of the best validation.
    history : History

    Raises
    ------
    ValueError
        If a folder has no images, or too few spectra.
    """
    torch.manual_seed(recipe.seed)
    galaxies = [_read(Path(folder), recipe) for folder in data]
    sources = [_source(*parts, recipe, k) for k, parts in enumerate(galaxies)]
    network = GalaxySpectroscopyNetwork.from_config(recipe.network)
    first = galaxies[0][0]
    network.fit_scales(first.logs(torch.arange(min(_SCALE_SAMPLE, len(first)))))
    network.bands.copy_(torch.stack([training.bands() for training, _ in galaxies]).all(0))
    reference = SpectrumEstimator.from_pretrained(REFERENCE).network
    network.zero_points.copy_(reference.zero_points)
    network.to(training.device)
    history = train(ImageSpectrumTask(recipe), network, sources, out, training)
    return network, history


def _source(training: Any, validation: Any, recipe: SpectrumRecipe, number: int) -> ShardSource:
    size = min(recipe.image_batch, len(training))
    return ShardSource(training, validation, recipe.image_augmentation, size, 20 + number)


def _read(folder: Path, recipe: SpectrumRecipe) -> tuple[ImageSpectra, ImageSpectra]:
    """Read the galaxies to train on and to validate with."""
    if not have_images(folder):
        raise ValueError(
            f"the configuration galaxy-spectroscopy needs images, but {folder} has none."
        )
    labels = _REAL_LABELS if are_real(folder) else LABELS
    first, second = training_folders(folder)
    training = ImageSpectra(in_sdss(Shards.read(first, labels)))
    if second is None:
        training, validation = training.split(recipe.held_out)
    else:
        validation = ImageSpectra(in_sdss(Shards.read(second, labels)))
    for part in (training, validation):
        check_number(len(part), folder, minimum=1 if part is validation else None)
    return training, validation
