"""Training of the spectrum network on real galaxies, alone or beside simulated ones.

Real galaxies have images and photometry with their own noise, and the noise-free spectra of their
fibres are draws from the posterior given the observed ones (`astrogenspec.datasets.noise_free`).
The prior is computed from the simulated galaxies, or, without any, from spectra that the weights
``astrogenspec-spectra-simulated`` draw, and from what the observed spectra differ from it.  Real
galaxies have no total spectra: the aperture of the whole galaxy is learnt from fibres whose
photometry is that of their spectra.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..generation.components import Galaxy
from ..generation.conditioning import APERTURES
from ..generation.estimator import SpectrumEstimator
from ..generation.finetuning import ObservedSample, with_domains
from ..generation.network import SpectrumNetwork
from ..generation.training import (
    DEFAULT_TRAINING,
    LABELS,
    SpectrumBatch,
    SpectrumRecipe,
    SpectrumTask,
    fit_scales,
    photometry_only,
    select_aperture,
)
from ..inputs.filter_sets import sdss_filters
from ..nn.precision import single_precision
from ..training.augmentation import AugmentationConfig
from ..training.loop import History, TrainingConfig
from ..training.recipe import ShardSource, train
from ..training.shards import Shards, are_real, training_folders
from .noise_free import (
    DEFAULT_DISPERSION,
    NoiseFreeGalaxies,
    NoiseFreeShards,
    PhotometryOfSpectra,
    SpectrumBatchWithGaps,
    draw_population,
    fibre_fractions,
    make_noise_free,
)
from .spectrum_samples import check_number

__all__ = ["REFERENCE", "MixedSpectrumTask", "in_sdss", "train_spectra_on"]

#: Weights whose spectra define the prior, if no simulated galaxies are given.
REFERENCE = "astrogenspec-spectra-simulated"
#: Galaxies that define components and scales.
_SCALE_SAMPLE = 4000
_SIMULATED_SAMPLE = 6000


class MixedSpectrumTask(SpectrumTask):
    """Batches and loss of `SpectrumNetwork` for real and simulated galaxies.

    Parameters
    ----------
    recipe : SpectrumRecipe
        Settings.
    network : SpectrumNetwork
        Network that is trained; a copy on the CPU makes the batches.
    """

    def __init__(self, recipe: SpectrumRecipe, network: SpectrumNetwork) -> None:
        super().__init__(recipe)
        self._network = copy.deepcopy(network).cpu()

    def make_batch(
        self,
        shards: Shards | NoiseFreeGalaxies,
        indices: Tensor,
        augmentation: AugmentationConfig,
        generator: torch.Generator,
    ) -> SpectrumBatch:
        """Make a batch of real or of simulated galaxies."""
        if isinstance(shards, NoiseFreeGalaxies):
            return shards.batch(self._network, indices, augmentation, self.recipe, generator)
        return super().make_batch(shards, indices, augmentation, generator)

    def batch_loss(
        self, network: SpectrumNetwork, batch: SpectrumBatch, source: int, progress: float
    ) -> dict[str, Tensor]:
        """Evaluate the loss of a batch; unknown elements of the vectors do not count."""
        known = batch.known if isinstance(batch, SpectrumBatchWithGaps) else None
        return network.loss(
            batch.inputs,
            batch.aperture,
            batch.galaxies,
            batch.theta,
            batch.given,
            n_detail=min(self.recipe.detail, len(batch)),
            known=known,
            generator=None if network.training else torch.Generator().manual_seed(source),
        )


@dataclass(frozen=True)
class _RealFolder:
    """Real galaxies to train on and to validate with."""

    training: NoiseFreeGalaxies
    validation: NoiseFreeGalaxies
    images: bool


@single_precision()
def train_spectra_on(
    data: Sequence[Path | str],
    out: Path | str,
    *,
    recipe: SpectrumRecipe | None = None,
    training: TrainingConfig | None = None,
    network: SpectrumNetwork | None = None,
    n_observed: int | None = None,
) -> tuple[SpectrumNetwork, History]:
    """Train the spectrum network on data sets with spectra, or resume.

    Parameters
    ----------
    data : sequence of path
        Data sets of real galaxies with spectra, at least one, and folders of simulated shards with
        images and rest-frame spectra.
    out : path
        Folder of the checkpoint, the history, and the noise-free spectra (``noise-free``).
    recipe : SpectrumRecipe, optional
    training : TrainingConfig, optional
        `astrogenspec.generation.training.DEFAULT_TRAINING` by default.
    network : SpectrumNetwork, optional
        Trained network to start from; a new one by default.
    n_observed : int, optional
        Maximum number of real galaxies of each folder to train on; all by default.

    Returns
    -------
    network : SpectrumNetwork
        With the averaged weights of the best validation.
    history : History

    Raises
    ------
    ValueError
        If a data set has too few spectra with redshifts.
    """
    recipe, training = recipe or SpectrumRecipe(), training or DEFAULT_TRAINING
    simulated = [Shards.read(each, LABELS) for each in data if not are_real(each)]
    reference = network or SpectrumEstimator.from_pretrained(REFERENCE).network
    population = cache(lambda: _population(simulated, reference))
    real = []
    for k, folder in enumerate(each for each in data if are_real(each)):
        where = NoiseFreeShards(Path(out) / "noise-free" / str(k), n_observed, quiet=training.quiet)
        real.append(_read_real(Path(folder), population, reference, where, recipe))
    # The draws use random numbers, but not in all processes, and not if they are on disk.
    torch.manual_seed(recipe.seed)
    network = _start(network, recipe, real, simulated, population, reference)
    sources = _sources(real, simulated, recipe)
    return network, train(MixedSpectrumTask(recipe, network), network, sources, out, training)


def _population(simulated: Sequence[Shards], reference: SpectrumNetwork) -> Galaxy:
    """Return simulated spectra that define the prior of noise-free spectra."""
    if not simulated:
        return draw_population(reference)
    rows = torch.arange(min(_SIMULATED_SAMPLE, len(simulated[0])))
    return select_aperture(simulated[0].labels(rows), rows % len(APERTURES))


def _read_real(
    folder: Path,
    population: Callable[[], Galaxy],
    reference: SpectrumNetwork,
    where: NoiseFreeShards,
    recipe: SpectrumRecipe,
) -> _RealFolder:
    """Draw the noise-free spectra of a data set, and read its galaxies."""
    first, second = training_folders(folder)
    inputs = in_sdss(Shards.read(first))
    prior = make_noise_free(first, population, reference.zero_points, where)
    galaxies = NoiseFreeGalaxies.read(where.folder, inputs)
    if second is None:
        training, validation = galaxies.split(recipe.held_out)
    else:
        other = NoiseFreeShards(
            where.folder / "validation", recipe.validation_size, where.seed + 1, where.quiet
        )
        make_noise_free(second, prior, reference.zero_points, other)
        training = galaxies
        validation = NoiseFreeGalaxies.read(other.folder, in_sdss(Shards.read(second)))
    check_number(len(training), folder)
    return _RealFolder(training, validation, inputs.has_images)


def in_sdss(shards: Shards) -> Shards:
    """Hide photometry in other filters, which the networks do not read; images are used.

    Parameters
    ----------
    shards : Shards
        Real or simulated galaxies.

    Returns
    -------
    Shards
    """
    names = tuple(each.name for each in sdss_filters())
    if not shards.are_real or shards.filters == names:
        return shards
    nothing = torch.full((len(shards), len(names)), torch.nan)
    return Shards(shards.columns | {"flux": nothing, "error": nothing}, names)


def _start(
    network: SpectrumNetwork | None,
    recipe: SpectrumRecipe,
    real: Sequence[_RealFolder],
    simulated: Sequence[Shards],
    population: Callable[[], Galaxy],
    reference: SpectrumNetwork,
) -> SpectrumNetwork:
    """Return the network at the beginning, with its components and scales."""
    parts = [each.training for each in real]
    n = _SCALE_SAMPLE // len(parts)
    sample = ObservedSample.concatenate(
        [part.sample(torch.arange(min(n, len(part)))) for part in parts]
    )
    if network is not None:
        if network.n_domains > 1:
            return copy.deepcopy(network)
        return with_domains(network, sample, sample.weight, population())
    network = SpectrumNetwork(**recipe.network)
    if simulated:
        fit_scales(network, simulated[0])
        return with_domains(network, sample, sample.weight, population())
    network.fit_scales(_galaxies_of(sample), sample.theta_in_fibre[:, 0])
    network.zero_points.copy_(reference.zero_points)
    return network


def _galaxies_of(sample: ObservedSample) -> Galaxy:
    """Return the first draw of each galaxy."""
    return Galaxy(
        sample.continuum[:, 0].float(),
        sample.narrow[:, 0],
        sample.broad[:, 0],
        sample.redshift,
        sample.dispersion.nan_to_num(DEFAULT_DISPERSION),
        fibre_fractions(sample.flux[:, 0], sample.total),
    )


def _sources(
    real: Sequence[_RealFolder], simulated: Sequence[Shards], recipe: SpectrumRecipe
) -> list[ShardSource]:
    """Return the sources of batches: galaxies with images, and with photometry only."""
    sources: list[ShardSource] = []

    def add(training: Any, validation: Any, augmentation: AugmentationConfig, size: int) -> None:
        if size and len(training):
            seed = 20 + len(sources)
            size = min(size, len(training))
            sources.append(ShardSource(training, validation, augmentation, size, seed))

    for each in real:
        if each.images:
            add(each.training, each.validation, recipe.image_augmentation, recipe.image_batch)
        first, last = (
            PhotometryOfSpectra(part.columns, part.inputs)
            for part in (each.training, each.validation)
        )
        add(first, last, recipe.photometry_augmentation, recipe.photometry_batch)
    for shards in simulated:
        training, validation = shards.split(recipe.held_out)
        add(training, validation, recipe.image_augmentation, recipe.image_batch)
        plain, plain_validation = photometry_only(training), photometry_only(validation)
        add(plain, plain_validation, recipe.photometry_augmentation, recipe.photometry_batch)
    return sources
