"""Noise-free spectra of the galaxies of a data set, on disk, and the batches made of them.

Each shard of a folder of real galaxies gets one file with draws of the noise-free spectra of its
galaxies (`astrogenspec.datasets.spectrum_samples`), so that memory does not grow with the data set.
A file is written atomically and is used again by an interrupted training; a file that belongs to
other galaxies or to another prior is replaced.  With several processes, each makes a part of the
files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..atomic import atomic_write
from ..generation.components import Galaxy
from ..generation.finetuning import (
    LINES_OF_PROPERTIES,
    FineTuningRecipe,
    ObservedSample,
    observed_batch,
)
from ..generation.network import SamplerSettings, SpectrumNetwork
from ..generation.observed_spectra import (
    SpectrumPrior,
    fit_prior,
    fit_spectra,
)
from ..generation.training import SpectrumBatch, SpectrumRecipe, draw_given, hide_inputs
from ..inputs.features import PHOTOMETRY_FEATURES, ModelInputs
from ..quantities import QUANTITIES, quantity_index
from ..surveys import BANDS
from ..training.augmentation import AugmentationConfig
from ..training.parallel import Workers
from ..training.shards import Shards, read_mapped_columns
from ..wavelengths import REST, line_index
from .folders import read_shard
from .spectrum_samples import COLUMNS, draw_sample, observed_spectra, usable_galaxies

__all__ = [
    "DEFAULT_DISPERSION",
    "NoiseFreeGalaxies",
    "NoiseFreeShards",
    "PhotometryOfSpectra",
    "SpectrumBatchWithGaps",
    "draw_population",
    "fibre_fractions",
    "make_noise_free",
]

#: Galaxies from which the components that simulations lack are computed, at most.
_N_FIT = 1500
#: Simulated spectra that a network draws for the prior, and number in a batch.
_N_POPULATION, _CHUNK = 1000, 250
#: Dispersion (km/s) where it is unknown; the elements of the vector that hold it do not count.
DEFAULT_DISPERSION = 120.0
#: Fraction of the light in the fibre where the total flux of a galaxy is unknown.
_TYPICAL_FRACTION = 0.3
_R = BANDS.index("r")
_REDSHIFT = quantity_index("redshift")
_NAMES = tuple(field.name for field in fields(ObservedSample))


@torch.no_grad()
def draw_population(network: SpectrumNetwork, n: int = _N_POPULATION, *, seed: int = 0) -> Galaxy:
    """Draw spectra of the population on which a network was trained.

    Parameters
    ----------
    network : SpectrumNetwork
    n : int
        Number of galaxies.
    seed : int
        Seed.

    Returns
    -------
    Galaxy
        At full resolution, in the fibre and in total apertures alternately.
    """
    generator = torch.Generator().manual_seed(seed)
    settings = SamplerSettings()
    parts = []
    for start in range(0, n, _CHUNK):
        m = min(_CHUNK, n - start)
        zero = torch.zeros(m, len(BANDS))
        nothing = ModelInputs(None, None, zero, zero, torch.zeros(m, len(PHOTOMETRY_FEATURES)))
        aperture = torch.arange(m) % 2
        size = network.components.size
        vectors = network.sample(
            network.observe(nothing, aperture),
            torch.zeros(m, len(QUANTITIES)),
            torch.zeros(m, len(QUANTITIES), dtype=torch.bool),
            torch.zeros(m),
            torch.randn(m, size, generator=generator),
            settings,
        )
        noise = torch.randn(m, REST.size, generator=generator)
        parts.append(network.refine(vectors, noise, settings))
    return Galaxy.concatenate(parts)


@dataclass(frozen=True)
class NoiseFreeShards:
    """Where and how noise-free spectra are drawn.

    Attributes
    ----------
    folder : Path
        Folder of the files.
    n_galaxies : int or None
        Maximum number of galaxies; all by default.
    seed : int
        Seed of the draws.
    quiet : bool
        If True, show no progress bar.
    """

    folder: Path
    n_galaxies: int | None = None
    seed: int = 3
    quiet: bool = False


def make_noise_free(
    data: Path,
    prior: SpectrumPrior | Callable[[], Galaxy],
    zero_points: Tensor,
    where: NoiseFreeShards,
) -> SpectrumPrior:
    """Draw noise-free spectra of the galaxies of a folder of shards, or continue.

    Parameters
    ----------
    data : Path
        Folder of shards of real galaxies with spectra.
    prior : SpectrumPrior or callable
        Prior, or a function that returns simulated galaxies, from which it is computed together
        with the first galaxies of the folder.
    zero_points : Tensor, shape (5,)
        Those of `~astrogenspec.generation.network.SpectrumNetwork`.
    where : NoiseFreeShards

    Returns
    -------
    SpectrumPrior

    Raises
    ------
    ValueError
        If the folder has no spectra.
    """
    workers = Workers.current()
    paths = _shard_sizes(data, where.n_galaxies)
    where.folder.mkdir(parents=True, exist_ok=True)
    if not isinstance(prior, SpectrumPrior):
        prior = _prior_of(data, prior, where.folder / "prior.npz")
    start = 0
    for number, (path, n) in enumerate(paths):
        if number % workers.size == workers.rank:
            _make_file(path, n, start, prior, zero_points, where)
        start += n
    workers.shared(None)
    return prior


def _shard_sizes(data: Path, n: int | None) -> list[tuple[Path, int]]:
    """Return the shards of a folder with the number of galaxies to read of each."""
    import h5py

    sizes = []
    left = n
    for path in sorted(data.glob("shard-*.h5")):
        with h5py.File(path, "r") as file:
            if "spectrum" not in file:
                raise ValueError(f"{data} has no spectra; make the data set with spectra.")
            size = len(file["name"]) if left is None else min(left, len(file["name"]))
        sizes.append((path, size))
        if left is not None:
            left -= size
            if left <= 0:
                break
    return sizes


def _prior_of(data: Path, simulated: Callable[[], Galaxy], path: Path) -> SpectrumPrior:
    """Compute the prior from simulated and the first observed galaxies, or read it."""
    if path.is_file():
        with np.load(path) as stored:
            return SpectrumPrior(*(stored[name][()] for name in stored.files))
    columns, left = [], _N_FIT
    filters: tuple[str, ...] = ()
    for shard, n in _shard_sizes(data, _N_FIT):
        part, filters = read_shard(shard, min(n, left), COLUMNS)
        columns.append(usable_galaxies(part, filters, data)[0])
        left -= n
    joined = {name: np.concatenate([part[name] for part in columns]) for name in COLUMNS}
    with torch.random.fork_rng(devices=[]):
        # The principal components are computed from random projections.
        torch.manual_seed(0)
        prior, _ = fit_prior(simulated(), observed_spectra(joined))
    with atomic_write(path, overwrite=True) as temporary:
        np.savez(temporary, **vars(prior))
    return prior


def _make_file(
    path: Path,
    n: int,
    start: int,
    prior: SpectrumPrior,
    zero_points: Tensor,
    where: NoiseFreeShards,
) -> None:
    """Write the draws of one shard, unless they are there."""
    import h5py

    out = where.folder / path.name
    columns, filters = read_shard(path, n, (*COLUMNS, "name"))
    digest = _digest(columns["name"], prior, where.seed)
    if out.is_file():
        with h5py.File(out, "r") as file:
            if file.attrs.get("digest", "") == digest:
                return
    used, rows = usable_galaxies(columns, filters, path)
    spectra = observed_spectra(used)
    fits = [
        fit_spectra(prior, spectra[k : k + 1])[0]
        for k in tqdm(
            range(len(spectra)), desc=f"spectra of {path.stem}", disable=where.quiet, unit="galaxy"
        )
    ]
    with atomic_write(out, overwrite=True) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["digest"] = digest
        if len(rows):
            sample, kept = draw_sample(used, prior, fits, zero_points, where.seed + start)
            for name in _NAMES:
                file[name] = getattr(sample, name).numpy()
            file["labels"] = used["theta"][kept]
            file["row"] = start + rows[kept]


def _digest(names: np.ndarray, prior: SpectrumPrior, seed: int) -> str:
    digest = hashlib.sha256(names.tobytes())
    for values in astuple(prior):
        digest.update(np.ascontiguousarray(values).tobytes())
    digest.update(str(seed).encode())
    return digest.hexdigest()


def fibre_fractions(flux: Tensor, total: Tensor) -> Tensor:
    """Return the fraction of the light in the fibre, shape (n,).

    Parameters
    ----------
    flux : Tensor, shape (n,)
        Flux in r in the fibre (nmgy).
    total : Tensor, shape (n, 5)
        Total fluxes (nmgy); a typical fraction is returned where that in r is unknown.
    """
    in_r = total[:, _R]
    fraction = torch.where(in_r > 0, flux / in_r, torch.full_like(flux, _TYPICAL_FRACTION))
    return fraction.clamp(1e-3, 1.0)


@dataclass(frozen=True)
class SpectrumBatchWithGaps(SpectrumBatch):
    """Batch of real galaxies.

    Attributes
    ----------
    known : Tensor of bool, shape (n, size)
        Which elements of the vectors of components are known.
    """

    known: Tensor


class NoiseFreeGalaxies:
    """Real galaxies, their images and photometry, and draws of the spectra in their fibres.

    Parameters
    ----------
    columns : dict of str to Tensor or MappedColumn
        Fields of `~astrogenspec.generation.finetuning.ObservedSample`, ``labels`` and ``row``, the
        row of each galaxy in ``inputs``.
    inputs : Shards
        Images and photometry of the same data set.
    """

    def __init__(self, columns: dict[str, Any], inputs: Shards) -> None:
        self.columns = columns
        self.inputs = inputs

    @classmethod
    def read(cls, folder: Path, inputs: Shards) -> Self:
        """Read what `make_noise_free` wrote.

        Parameters
        ----------
        folder : Path
        inputs : Shards
            Images and photometry of the same data set.

        Returns
        -------
        NoiseFreeGalaxies
        """
        paths = _files_with_galaxies(folder)
        columns = read_mapped_columns(paths, (*_NAMES, "labels", "row")) if paths else []
        return cls(dict(columns), inputs)

    def __len__(self) -> int:
        return len(self.columns["redshift"]) if self.columns else 0

    def split(self, fraction: float) -> tuple[Self, Self]:
        """Split off the last ``fraction`` of the galaxies."""
        cut = round(len(self) * (1 - fraction))
        first, last = (
            type(self)({name: values[part] for name, values in self.columns.items()}, self.inputs)
            for part in (slice(None, cut), slice(cut, None))
        )
        return first, last

    def sample(self, indices: Tensor) -> ObservedSample:
        """Return draws of some galaxies."""
        return ObservedSample(**{name: self.columns[name][indices] for name in _NAMES})

    def labels(self, indices: Tensor) -> Tensor:
        """Return the known properties of some galaxies, shape (n, 9), NaN where unknown."""
        return self.columns["labels"][indices]

    def batch(
        self,
        network: SpectrumNetwork,
        indices: Tensor,
        config: AugmentationConfig,
        recipe: SpectrumRecipe,
        generator: torch.Generator,
    ) -> SpectrumBatchWithGaps:
        """Make a batch: inputs with their own noise, and one draw of each spectrum in the fibre.

        Parameters
        ----------
        network : SpectrumNetwork
            On the CPU.
        indices : Tensor of int64, shape (n,)
            Galaxies of the batch.
        config : AugmentationConfig
            Fractions of missing inputs.
        recipe : SpectrumRecipe
            Fractions of conditions.
        generator : `torch.Generator`
            Source of randomness.

        Returns
        -------
        SpectrumBatchWithGaps
        """
        n = len(indices)
        inputs = self.inputs.inputs(self.columns["row"][indices], config, generator)
        part, each = self.sample(indices), torch.arange(n)
        draw = torch.randint(part.flux.shape[1], (n,), generator=generator)
        flux = part.flux[each, draw]
        galaxies = Galaxy(
            part.continuum[each, draw].float(),
            part.narrow[each, draw],
            part.broad[each, draw],
            part.redshift,
            part.dispersion.nan_to_num(DEFAULT_DISPERSION),
            fibre_fractions(flux, part.total),
        )
        theta = part.theta_of_total[each, draw]
        labels = self.labels(indices)
        theta = torch.where(labels.isfinite(), labels, theta)
        theta[:, _REDSHIFT] = part.redshift
        for name, line in LINES_OF_PROPERTIES.items():
            theta[:, quantity_index(name)] = (galaxies.narrow[:, line_index(line)] * flux).log10()
        known = torch.ones(n, network.components.size, dtype=torch.bool)
        known[:, network.components.column("dispersion")] = part.dispersion.isfinite()
        known[:, network.components.column("fibre_fraction")] = part.total[:, _R] > 0
        aperture = torch.full((n,), network.aperture_index("fibre"))
        given = draw_given(n, recipe, generator) & theta.isfinite()
        batch = SpectrumBatchWithGaps(
            inputs, aperture, galaxies, theta.nan_to_num(0.0), given, known
        )
        return _partly_hidden(batch, recipe, generator)


class PhotometryOfSpectra(NoiseFreeGalaxies):
    """The same galaxies without images; most are seen as their fibres see them.

    The photometry of most is that of the spectrum, which then is that of the whole galaxy
    (`astrogenspec.generation.finetuning`), also at the redshifts and magnitudes of others.
    """

    def batch(
        self,
        network: SpectrumNetwork,
        indices: Tensor,
        config: AugmentationConfig,
        recipe: SpectrumRecipe,
        generator: torch.Generator,
    ) -> SpectrumBatchWithGaps:
        """Make a batch; see `NoiseFreeGalaxies.batch`."""
        n = len(indices)
        others = self.sample(torch.randint(len(self), (n,), generator=generator))
        fraction = fibre_fractions(others.flux[:, 0], others.total)
        targets = others.redshift, others.flux[:, 0] / fraction, fraction
        settings = FineTuningRecipe(photometry=config)
        batch = observed_batch(
            network, self.sample(indices), torch.arange(n), targets, settings, generator
        )
        return _partly_hidden(SpectrumBatchWithGaps(*batch), recipe, generator)


def _partly_hidden(
    batch: SpectrumBatchWithGaps, recipe: SpectrumRecipe, generator: torch.Generator
) -> SpectrumBatchWithGaps:
    """Remove all conditions of some galaxies."""
    keep = torch.rand(len(batch), generator=generator, dtype=torch.float32) >= recipe.nothing
    return replace(batch, inputs=hide_inputs(batch.inputs, keep), given=batch.given & keep[:, None])


def _files_with_galaxies(folder: Path) -> list[Path]:
    import h5py

    paths = []
    for path in sorted(folder.glob("shard-*.h5")):
        with h5py.File(path, "r") as file:
            if "row" in file:
                paths.append(path)
    return paths
