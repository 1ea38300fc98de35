"""Fine-tuning of the spectrum network on observed spectra.

Every step uses one batch of observed galaxies and one batch each of simulated galaxies with and
without images, so that what the observed ones lack is not forgotten. Observed and simulated
galaxies differ in the token of the aperture (`SpectrumNetwork.aperture_index`), from which the
network learns how observed spectra differ from simulated ones at the same magnitudes and
properties.

The spectra of observed galaxies are draws of their noise-free spectra
(`~astrogenspec.generation.observed_spectra`). They are used in three ways:

* the photometry is that of the spectrum, and the spectrum that of the whole galaxy;
* the same, moved to the redshift and magnitude of a simulated galaxy, so that the differences are
  learned at all redshifts;
* the photometry is that of the whole galaxy, where it is known, and the spectrum that in the fibre.

The full-resolution diffusion is trained on simulated galaxies and on the observed ones whose
velocity dispersion is known.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..inputs.features import ModelInputs
from ..nn.precision import single_precision
from ..nn.records import TensorRecord
from ..quantities import quantity_index
from ..surveys import BANDS
from ..training.augmentation import AugmentationConfig, augment_photometry
from ..training.loop import History, TrainingConfig, fit
from ..training.shards import Shards
from ..training.streams import BatchStream, ZippedStreams
from ..wavelengths import line_index
from .components import Galaxy
from .conditioning import APERTURES
from .network import SpectrumNetwork
from .pipeline import ab_flux
from .training import LABELS, SpectrumRecipe, draw_given, make_batch, select_aperture

__all__ = [
    "LINES_OF_PROPERTIES",
    "FineTuningRecipe",
    "ObservedSample",
    "finetune_spectra",
    "observed_batch",
    "with_domains",
]

#: Line of each property that is a line flux.
LINES_OF_PROPERTIES = {
    "halpha_flux": "Halpha",
    "hbeta_flux": "Hbeta",
    "nii6584_flux": "NII6585",
    "oiii5007_flux": "OIII5008",
}
_REDSHIFT = quantity_index("redshift")
_R = BANDS.index("r")
#: Range of the relative errors of photometry.
_ERRORS = (0.005, 0.04)
_DEFAULT_DISPERSION = 120.0
#: Number of components of the continuum that simulated galaxies lack.
_N_RESIDUAL = 15
#: Number of simulated galaxies that define the scales of the components.
_SCALE_SAMPLE = 4000
#: Number of validation batches, each of all held-out galaxies.
_N_VALIDATION = 6


@dataclass(frozen=True)
class ObservedSample(TensorRecord):
    """Observed galaxies with draws of their noise-free spectra.

    Attributes
    ----------
    continuum : Tensor, shape (n, m, 6400)
        m draws of the continuum in the fibre per nmgy in r.
    narrow : Tensor, shape (n, m, 17)
        Draws of narrow-line fluxes per nmgy in r.
    broad : Tensor, shape (n, m)
        Draws of the flux of broad Halpha per nmgy in r.
    redshift : Tensor, shape (n,)
        Redshifts.
    dispersion : Tensor, shape (n,)
        Velocity dispersion of the stars (km/s); NaN where unknown.
    flux : Tensor, shape (n, m)
        Flux in r in the fibre (nmgy), corrected for Galactic extinction.
    total : Tensor, shape (n, 5)
        Total flux in ugriz (nmgy), corrected for Galactic extinction; NaN where unknown. It is
        used if all bands are known.
    theta_in_fibre, theta_of_total : Tensor, shape (n, m, 9)
        Draws of the properties given the redshift and the photometry in the fibre, taken as that
        of the whole galaxy, and given the total photometry; NaN where unknown. Line fluxes are not
        used.
    weight : Tensor, shape (n, 800)
        1 for the bins of `~astrogenspec.wavelengths.REST` that were observed, else 0.
    """

    continuum: Tensor
    narrow: Tensor
    broad: Tensor
    redshift: Tensor
    dispersion: Tensor
    flux: Tensor
    total: Tensor
    theta_in_fibre: Tensor
    theta_of_total: Tensor
    weight: Tensor


@dataclass(frozen=True, kw_only=True)
class FineTuningRecipe:
    """Settings of `finetune_spectra`.

    Attributes
    ----------
    observed_batch, photometry_batch, image_batch : int
        Batch sizes of observed galaxies and of simulated ones without and with images.
    detail : int
        Maximum number of galaxies of each batch that train the full-resolution diffusion; with 0
        it is not changed.
    moved : float
        Fraction of observed galaxies at the redshift and magnitude of a simulated galaxy.
    in_fibre : float
        Fraction of observed galaxies with total photometry and the spectrum in the fibre.
    conditions : SpectrumRecipe
        Fractions of observed galaxies that are conditioned on no property, on the redshift only,
        and on all. Spectra predicted from magnitudes in a fibre have the redshift alone.
    photometry : AugmentationConfig
        Noise and missing bands of photometry.
    seed : int
        Seed of batches and augmentation.
    """

    observed_batch: int = 128
    photometry_batch: int = 96
    image_batch: int = 16
    detail: int = 12
    moved: float = 0.4
    in_fibre: float = 0.25
    conditions: SpectrumRecipe = field(
        default_factory=lambda: SpectrumRecipe(only_redshift=0.4, all_properties=0.3)
    )
    photometry: AugmentationConfig = field(
        default_factory=lambda: AugmentationConfig(full_bands=0.6, gri_bands=0.25)
    )
    seed: int = 5


def with_domains(
    network: SpectrumNetwork, sample: ObservedSample, weight: Tensor, simulated: Galaxy
) -> SpectrumNetwork:
    """Return a copy of a network of simulated spectra that can learn observed ones.

    Parameters
    ----------
    network : SpectrumNetwork
    sample : ObservedSample
        Observed galaxies that define components and scales.
    weight : Tensor, shape (n, 800)
        Weights of the bins of their spectra; 0 where nothing was observed.
    simulated : Galaxy
        Simulated galaxies that define scales.

    Returns
    -------
    SpectrumNetwork
        With the same weights; the tokens of observed galaxies are those of simulated ones.
    """
    config = network.config | {"n_domains": 2, "n_residual": _N_RESIDUAL}
    result = SpectrumNetwork(**config)
    state = result.state_dict()
    for name, value in network.state_dict().items():
        n = len(value) if value.ndim else 0
        if value.shape == state[name].shape:
            state[name] = value.clone()
        elif name.endswith("aperture.weight"):
            state[name] = value.repeat(2, 1)
        else:
            state[name][:n] = value
    result.load_state_dict(state)
    first = Galaxy(
        sample.continuum[:, 0].float(),
        sample.narrow[:, 0],
        sample.broad[:, 0],
        sample.redshift,
        sample.dispersion.nan_to_num(_DEFAULT_DISPERSION),
        torch.full_like(sample.redshift, 0.3),
    )
    result.components.fit_residual(first, weight)
    vectors = [result.components.encode(galaxies) for galaxies in (first, simulated)]
    means = torch.stack([values.mean(0) for values in vectors])
    squares = torch.stack([values.square().mean(0) for values in vectors])
    result.low_centre.copy_(means.mean(0))
    result.low_scale.copy_((squares.mean(0) - means.mean(0).square()).clamp_min(0.05).sqrt())
    for name in ("dispersion", "fibre_fraction"):
        column = result.components.column(name)
        result.low_centre[column], result.low_scale[column] = 0.0, 1.0
    return result


def freeze(network: SpectrumNetwork, *, detail: bool) -> None:
    """Restrict training to the diffusions, properties and tokens of apertures.

    The encoder of observations and the full-resolution matcher keep what they learned from
    simulations with images; without ``detail`` also the full-resolution diffusion.
    """
    network.requires_grad_(False)
    for module in (
        network.low,
        network.low_matcher,
        network.conditions.properties,
        network.conditions.observation.aperture,
    ):
        module.requires_grad_(True)
    network.high.requires_grad_(detail)


def observed_batch(
    network: SpectrumNetwork,
    sample: ObservedSample,
    rows: Tensor,
    targets: tuple[Tensor, Tensor, Tensor],
    recipe: FineTuningRecipe,
    generator: torch.Generator,
) -> tuple[Any, ...]:
    """Make a batch of observed galaxies: the arguments of `SpectrumNetwork.loss`.

    Parameters
    ----------
    network : SpectrumNetwork
    sample : ObservedSample
    rows : Tensor of int64, shape (n,)
        Galaxies of the batch.
    targets : tuple of Tensor, shape (n,)
        Redshift, flux in r (nmgy) and fraction of light in the fibre of simulated galaxies, for
        those that are moved. Line fluxes among the properties are those in a fibre.
    recipe : FineTuningRecipe
    generator : `torch.Generator`

    Returns
    -------
    inputs, aperture, galaxies, theta, given, known
    """
    n = len(rows)
    part = sample[rows]
    draw = torch.randint(part.flux.shape[1], (n,), generator=generator)
    each = torch.arange(n)
    flux, redshift = part.flux[each, draw], part.redshift
    choice = torch.rand(n, generator=generator)
    fibre = (choice < recipe.in_fibre) & part.total.isfinite().all(1)
    moved = (choice > 1 - recipe.moved) & ~fibre
    new_redshift = torch.where(moved, targets[0], redshift)
    stretch = (1 + new_redshift) / (1 + redshift)
    galaxies = Galaxy(
        part.continuum[each, draw].float(),
        part.narrow[each, draw] * stretch[:, None],
        part.broad[each, draw] * stretch,
        new_redshift,
        part.dispersion.nan_to_num(_DEFAULT_DISPERSION),
        torch.where(fibre, flux / part.total[:, _R], 1.0).clamp(max=1.0),
    )
    colours = ab_flux(galaxies) * 10 ** (-0.4 * network.zero_points)
    in_r = colours[:, _R]
    galaxies = replace(
        galaxies,
        continuum=galaxies.continuum / in_r[:, None],
        narrow=galaxies.narrow / in_r[:, None],
        broad=galaxies.broad / in_r,
    )
    nmgy = torch.where(moved, targets[1], flux)
    photometry = torch.where(fibre[:, None], part.total, nmgy[:, None] * colours / in_r[:, None])
    theta = torch.where(
        fibre[:, None], part.theta_of_total[each, draw], part.theta_in_fibre[each, draw]
    )
    theta[moved] = torch.nan
    theta[:, _REDSHIFT] = galaxies.redshift
    in_fibre = torch.where(fibre, nmgy, targets[2] * nmgy)
    for name, line in LINES_OF_PROPERTIES.items():
        theta[:, quantity_index(name)] = (galaxies.narrow[:, line_index(line)] * in_fibre).log10()
    inputs = _inputs(photometry, recipe, generator)
    given = draw_given(n, recipe.conditions, generator) & theta.isfinite()
    known = torch.ones(n, network.components.size, dtype=torch.bool)
    known[:, network.components.column("dispersion")] = part.dispersion.isfinite()
    known[:, network.components.column("fibre_fraction")] = fibre
    aperture = torch.where(fibre, network.aperture_index("fibre"), network.aperture_index("total"))
    return inputs, aperture, galaxies, theta.nan_to_num(0.0), given, known


def _inputs(
    photometry: Tensor, recipe: FineTuningRecipe, generator: torch.Generator
) -> ModelInputs:
    low, high = _ERRORS
    n = len(photometry)
    relative = low * (high / low) ** torch.rand(n, 1, generator=generator)
    return augment_photometry(photometry, relative * photometry, recipe.photometry, generator)


@single_precision()
def finetune_spectra(
    network: SpectrumNetwork,
    sample: ObservedSample,
    data: Path | str,
    out: Path | str,
    training: TrainingConfig,
    *,
    recipe: FineTuningRecipe | None = None,
    held_out: Sequence[int] = (),
) -> tuple[SpectrumNetwork, History]:
    """Fine-tune a network on observed and simulated galaxies, or resume.

    Parameters
    ----------
    network : SpectrumNetwork
        Network of simulated spectra, or one that was fine-tuned before.
    sample : ObservedSample
        Observed galaxies.
    data : path
        Folder of simulated shards with images and rest-frame spectra.
    out : path
        Folder of the checkpoint and history.
    training : TrainingConfig
        Settings of the loop.
    recipe : FineTuningRecipe, optional
    held_out : sequence of int
        Observed galaxies on which to validate, not used for training.

    Returns
    -------
    network : SpectrumNetwork
        A new network, with the averaged weights of the best validation.
    history : History
    """
    recipe = recipe or FineTuningRecipe()
    torch.manual_seed(recipe.seed)
    shards = Shards.read(data, LABELS)
    rows = torch.ones(len(sample), dtype=torch.bool)
    rows[list(held_out)] = False
    if network.n_domains > 1:
        tuned = copy.deepcopy(network)
    else:
        some = torch.arange(min(_SCALE_SAMPLE, len(shards)))
        simulated = select_aperture(shards.labels(some), some % len(APERTURES))
        tuned = with_domains(network, sample[rows], sample.weight[rows], simulated)
    freeze(tuned, detail=recipe.detail > 0)
    # Batches are made on the CPU, wherever the network is trained.
    source = _ObservedBatches(copy.deepcopy(tuned).cpu(), sample, shards, recipe)
    streams = [source.stream(rows.nonzero()[:, 0]), *_simulated_streams(shards, recipe)]
    batches = None
    if len(held_out):
        generator = torch.Generator().manual_seed(recipe.seed + 3)
        held = (~rows).nonzero()[:, 0]
        batches = [[source.make(held, generator)] for _ in range(_N_VALIDATION)]
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    config = replace(training, checkpoint=out / "checkpoint.pt")
    loss = partial(_loss, detail=recipe.detail)
    history = fit(tuned, ZippedStreams(streams), batches, config, loss)
    history.write(out / "history.ecsv")
    return tuned, history


class _ObservedBatches:
    """Batches of observed galaxies, at the redshifts of random simulated ones where moved."""

    def __init__(
        self,
        network: SpectrumNetwork,
        sample: ObservedSample,
        shards: Shards,
        recipe: FineTuningRecipe,
    ) -> None:
        self.network = network
        self.sample = sample
        self.columns = shards.columns
        self.n_simulated = len(shards)
        self.recipe = recipe

    def make(self, rows: Tensor, generator: torch.Generator) -> tuple[Any, ...]:
        chosen = torch.randint(self.n_simulated, (len(rows),), generator=generator)
        light = self.columns["aperture_flux"][chosen]
        targets = (
            self.columns["theta"][chosen, _REDSHIFT],
            self.columns["true_flux"][chosen, _R],
            light[:, 0] / light[:, 1],
        )
        return observed_batch(self.network, self.sample, rows, targets, self.recipe, generator)

    def stream(self, rows: Tensor) -> BatchStream:
        size = min(self.recipe.observed_batch, len(rows))
        return BatchStream(
            lambda indices, generator: self.make(rows[indices], generator),
            len(rows),
            size,
            seed=self.recipe.seed,
        )


def _simulated_streams(shards: Shards, recipe: FineTuningRecipe) -> list[BatchStream]:
    """Return streams of simulated galaxies without and with images."""
    settings = SpectrumRecipe()

    def stream(
        source: Shards, augmentation: AugmentationConfig, size: int, seed: int
    ) -> BatchStream:
        def make(indices: Tensor, generator: torch.Generator) -> tuple[Any, ...]:
            batch = make_batch(source, indices, augmentation, settings, generator)
            return batch.inputs, batch.aperture, batch.galaxies, batch.theta, batch.given, None

        return BatchStream(make, len(source), size, seed=seed)

    plain = shards.without_images()
    return [
        stream(plain, settings.photometry_augmentation, recipe.photometry_batch, recipe.seed + 1),
        stream(shards, settings.image_augmentation, recipe.image_batch, recipe.seed + 2),
    ]


def _loss(
    model: SpectrumNetwork, parts: list[Any], progress: float, *, detail: int
) -> dict[str, Tensor]:
    """Return the loss terms of one batch of each stream, and the mean of their totals."""
    terms: dict[str, Tensor] = {}
    for k, (*arguments, known) in enumerate(parts):
        generator = None if model.training else torch.Generator().manual_seed(k)
        one = model.loss(*arguments, n_detail=0, known=known, generator=generator)
        galaxies = _with_dispersion(model, arguments[2], known, detail)
        if len(galaxies):
            high = model.detail_loss(galaxies, model.components.encode(galaxies), generator)
            one |= {"high": high, "total": one["total"] + high}
        terms |= {f"{name}_{k}": value for name, value in one.items()}
    terms["total"] = torch.stack([terms[f"total_{k}"] for k in range(len(parts))]).mean()
    return terms


def _with_dispersion(
    model: SpectrumNetwork, galaxies: Galaxy, known: Tensor | None, n: int
) -> Galaxy:
    """Return the first n galaxies whose velocity dispersion is known."""
    rows = torch.arange(len(galaxies))
    if known is not None:
        rows = known[:, model.components.column("dispersion")].nonzero()[:, 0]
    return galaxies[rows[:n]]
