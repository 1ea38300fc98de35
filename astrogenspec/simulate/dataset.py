"""Simulated galaxies as files (HDF5 shards) and as an endless torch dataset.

A shard holds a fixed number of galaxies and depends only on the seed, its index and the settings:
an interrupted run can be continued, and any shard can be made again.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

import astropy.units as u
import h5py
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset
from tqdm.auto import tqdm

from ..atomic import atomic_write
from ..inputs.cutouts import CutoutBatch
from ..inputs.photometry import measure_photometry
from ..inputs.sed_features import filter_curve
from ..quantities import QUANTITIES
from ..surveys import BANDS, SDSS
from ..wavelengths import SED_GRID
from .apertures import measure_petrosian
from .images import add_noise
from .photometry import zero_point_curve
from .simulator import Sample, SimulatedGalaxies, Simulator, default_sample
from .spectrum import OBSERVED

__all__ = [
    "DEEP_SAMPLES",
    "SHARD_SIZES",
    "TRAINING_SAMPLES",
    "Contents",
    "GalaxyStream",
    "rest_frame_columns",
    "sed_columns",
    "write_shards",
]

#: Galaxies per shard, with and without images or spectra.
SHARD_SIZES = (2000, 20000)
#: Samples of the training set of the bundled networks: 40% each with and without a 2MASS limit, 20%
#: deeper.
TRAINING_SAMPLES = (
    Sample(near_infrared=True),
    Sample(),
    Sample(near_infrared=True),
    Sample(),
    Sample(magnitude_limit=18.4),
)
#: Samples of a training set of the deep population: 40% to its limit, the others brighter, so that
#: bright galaxies are not too rare.
DEEP_SAMPLES = (
    Sample(magnitude_limit=23.5),
    Sample(magnitude_limit=21.5),
    Sample(magnitude_limit=23.5),
    Sample(magnitude_limit=22.5),
    Sample(magnitude_limit=19.5),
)
#: Properties of the population that are written to shards.
_PROPERTIES = (
    "log_mass", "redshift", "log_sfr", "quiescent", "bulge_fraction", "cos_inclination",
    "gas_abundance", "stellar_metallicity", "velocity_dispersion", "attenuation_stars", "active",
    "broad_line",
)  # fmt: skip


@dataclass(frozen=True)
class Contents:
    """Data of each galaxy in addition to labels and photometry.

    Attributes
    ----------
    images : {"observed", "noiseless", "none"}
        ``observed``: ``image`` with noise and ``ivar``; ``noiseless``: ``image`` only. Both in half
        precision, with photometry measured on a noisy version.
    spectra : {"observed", "rest", "none"}
        ``observed``: the fibre spectrum as ``spectrum``.  ``rest``: training data of the networks
        that generate spectra, through the fibre and of the whole galaxy (second axis):
        ``continuum`` per nmgy in r at rest-frame wavelengths, ``aperture_flux`` (nmgy in r), and
        line fluxes ``narrow_flux`` and ``broad_flux``.  All are noise-free, spectra in half
        precision.
    seds : bool
        The noise-free spectral energy distribution of the whole galaxy (see `sed_columns`), for
        fluxes in any filter.
    """

    images: str = "observed"
    spectra: str = "observed"
    seds: bool = False

    def __post_init__(self):
        if self.images not in ("observed", "noiseless", "none"):
            raise ValueError(
                f"images is {self.images!r}; 'observed', 'noiseless' or 'none' is expected."
            )
        if self.spectra not in ("observed", "rest", "none"):
            raise ValueError(
                f"spectra is {self.spectra!r}; 'observed', 'rest' or 'none' is expected."
            )


def _columns(galaxies: SimulatedGalaxies, seeing: float) -> dict[str, Tensor]:
    """Labels, photometry, morphology and properties."""
    observation = galaxies.observation
    petrosian = measure_petrosian(galaxies.structure, galaxies.component_flux, seeing)
    return {
        "theta": galaxies.theta,
        "measurable": galaxies.measurable,
        "flux": observation.flux,
        "error": observation.error,
        "true_flux": observation.expected_flux,
        "halpha_width": galaxies.halpha_width,
        "line_flux": galaxies.line_flux,
        "petro_flux": petrosian.flux,
        "r50": petrosian.r50,
        "r90": petrosian.r90,
        "axis_ratio": petrosian.axis_ratio,
        **{name: galaxies.properties[name] for name in _PROPERTIES},
    }


def _measure(noisy: Tensor, ivar: Tensor) -> dict[str, Tensor]:
    """Photometry measured on the noisy cutouts; NaN where no source is detected."""
    measured = measure_photometry(CutoutBatch(noisy.cpu().numpy(), ivar.cpu().numpy()), ebv=0.0)
    return {
        "measured_flux": torch.tensor(measured.flux, dtype=torch.float32),
        "measured_error": torch.tensor(measured.error, dtype=torch.float32),
    }


def rest_frame_columns(simulator: Simulator, galaxies: SimulatedGalaxies) -> dict[str, Tensor]:
    """Compute the columns of ``Contents(spectra="rest")``.

    Parameters
    ----------
    simulator : Simulator
    galaxies : SimulatedGalaxies
        n galaxies.

    Returns
    -------
    dict of str to Tensor, shape (n, 2, ...)
        Through the fibre and of the whole galaxy; see `Contents`.
    """
    frame = simulator.rest_frame(galaxies)
    r = galaxies.component_flux[:, BANDS.index("r")]
    flux = torch.stack([(r * galaxies.fibre).sum(1), r.sum(1)], dim=1)
    return {
        "continuum": (frame.continuum / flux[..., None]).half(),
        "aperture_flux": flux,
        "narrow_flux": frame.narrow,
        "broad_flux": frame.broad,
    }


def sed_columns(simulator: Simulator, galaxies: SimulatedGalaxies) -> dict[str, Tensor]:
    """Compute the columns of ``Contents(seds=True)``.

    Parameters
    ----------
    simulator : Simulator
    galaxies : SimulatedGalaxies
        n galaxies.

    Returns
    -------
    dict of str to Tensor
        ``sed``, shape (n, 490), half precision: the spectral energy distribution in the bins of
        `~astrogenspec.wavelengths.SED_GRID` over its flux in the r band of SDSS, on the
        zero points of SDSS (see `~astrogenspec.simulate.photometry.zero_point_curve`);
        ``sed_flux``, shape (n,): that flux (nmgy).
    """
    offset = zero_point_curve(simulator.priors["observation"])
    sed = simulator.seds(galaxies)
    sed = sed * torch.as_tensor(10 ** (-0.4 * offset), dtype=torch.float32).to(sed)
    r = torch.as_tensor(filter_curve(SDSS.filters["r"]), dtype=torch.float32)
    flux = sed @ r.to(sed)
    return {"sed": (sed / flux[:, None]).half(), "sed_flux": flux}


class GalaxyStream(IterableDataset):
    """Endless torch dataset of simulated galaxies, as batches of varying length.

    Parameters
    ----------
    simulator : Simulator
        Source of the galaxies.
    seed : int
        Random seed.
    samples : sequence of Sample
        Selections, used in turn, batch by batch.
    contents : Contents, optional
        Images and spectra; both observed by default.
    start : int
        Index of the first batch.

    Examples
    --------
    >>> from astrogenspec.simulate import GalaxyStream, Simulator          # doctest: +SKIP
    >>> batch = next(iter(GalaxyStream(Simulator(), seed=1)))               # doctest: +SKIP
    >>> batch["image"].shape                                                # doctest: +SKIP
    torch.Size([1386, 5, 64, 64])
    """

    def __init__(
        self,
        simulator: Simulator,
        seed: int,
        samples: Sequence[Sample] = (Sample(),),
        contents: Contents | None = None,
        *,
        start: int = 0,
    ):
        self.simulator = simulator
        self.seed = seed
        self.samples = tuple(samples)
        self.contents = contents or Contents()
        self.start = start

    def batch(self, index: int) -> dict[str, Tensor]:
        """Return the batch with an index."""
        sample = self.samples[index % len(self.samples)]
        galaxies = self.simulator.batch(self.seed, index, sample)
        seeing = self.simulator.survey.psf_fwhm["r"].to_value(u.arcsec)
        result = _columns(galaxies, seeing)
        if self.contents.images != "none":
            generator = self.simulator.generator(self.seed * 1_000_003 + index + 500_000)
            images = self.simulator.images(galaxies, generator)
            noisy, ivar = add_noise(images.flux, self.simulator.survey, generator)
            result |= _measure(noisy, ivar) | {"psf_fwhm": images.psf_fwhm}
            if self.contents.images == "observed":
                result |= {"image": noisy.half(), "ivar": ivar.half()}
            else:
                result |= {"image": images.flux.half()}
        if self.contents.spectra == "observed":
            result["spectrum"] = self.simulator.spectra(galaxies).half()
        elif self.contents.spectra == "rest":
            result |= rest_frame_columns(self.simulator, galaxies)
        if self.contents.seds:
            result |= sed_columns(self.simulator, galaxies)
        return {name: value.cpu() for name, value in result.items()}

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        index = self.start
        while True:
            yield self.batch(index)
            index += 1


def write_shards(
    n: int,
    out: Path | str,
    *,
    seed: int = 0,
    population: str = "local",
    samples: Sequence[Sample] | None = None,
    contents: Contents | None = None,
    shard_size: int | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> list[Path]:
    """Simulate galaxies and write them to HDF5 shards; existing shards are kept.

    Parameters
    ----------
    n : int
        Number of galaxies; the last shard holds the remainder.
    out : path
        Folder; it is created if it does not exist.
    seed : int
        Random seed.
    population : {"local", "deep"}
        Population, as for `~astrogenspec.simulate.Simulator`.
    samples : sequence of Sample, optional
        Selections, used in turn, batch by batch; by default, that of the population.
    contents : Contents, optional
        Images and spectra; both observed by default.
    shard_size : int, optional
        Number of galaxies per shard; one of `SHARD_SIZES` by default.
    workers : int, optional
        Number of processes with one core each; by default, one per core. A script that uses more
        than one must be guarded by ``if __name__ == "__main__"``.
    progress : bool
        Show a progress bar.

    Returns
    -------
    list of Path
        The shards.

    Raises
    ------
    ValueError
        If ``n`` is not positive, there is no such population, or the folder holds shards with other
        settings.
    """
    if n <= 0:
        raise ValueError(f"n is {n}; a positive number of galaxies is expected.")
    samples = tuple(samples or (default_sample(population),))
    contents = contents or Contents()
    if shard_size is None:
        shard_size = SHARD_SIZES[contents.images == "none" and contents.spectra == "none"]
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    settings = json.dumps(
        {
            "seed": seed,
            "shard_size": shard_size,
            "contents": _contents_settings(contents),
            "samples": [asdict(sample) for sample in samples],
        }
        | ({} if population == "local" else {"population": population}),
        sort_keys=True,
    )
    sizes = [min(shard_size, n - start) for start in range(0, n, shard_size)]
    paths = [out / f"shard-{k:05d}.h5" for k in range(len(sizes))]
    todo = [
        _Shard(path, k, size)
        for k, (path, size) in enumerate(zip(paths, sizes, strict=True))
        if not _is_done(path, settings, size)
    ]
    job = _Job(seed, population, samples, contents, settings)
    workers = min(len(todo), workers or len(os.sched_getaffinity(0)))
    with tqdm(total=n, unit="galaxy", disable=not progress) as bar:
        bar.update(n - sum(shard.size for shard in todo))
        for size in _finished(job, todo, workers):
            bar.update(size)
    return paths


def _contents_settings(contents: Contents) -> dict:
    """Return the settings of the contents; shards without ``seds`` do not mention it."""
    return {name: value for name, value in asdict(contents).items() if name != "seds" or value}


@dataclass(frozen=True)
class _Shard:
    """File, index and number of galaxies of a shard."""

    path: Path
    index: int
    size: int


@dataclass(frozen=True)
class _Job:
    """Settings with which a worker makes any shard."""

    seed: int
    population: str
    samples: tuple[Sample, ...]
    contents: Contents
    settings: str

    def make(self, stream: GalaxyStream, shard: _Shard) -> None:
        _write(shard.path, _fill(stream, shard.index, shard.size), self.settings)

    def stream(self) -> GalaxyStream:
        simulator = Simulator(population=self.population)
        return GalaxyStream(simulator, self.seed, self.samples, self.contents)


#: Job and stream of this process, set by `_start_worker`.
_worker: list[tuple[_Job, GalaxyStream]] = []


def _start_worker(job: _Job) -> None:
    torch.set_num_threads(1)
    _worker[:] = [(job, job.stream())]


def _work(shard: _Shard) -> int:
    ((job, stream),) = _worker
    job.make(stream, shard)
    return shard.size


def _finished(job: _Job, shards: list[_Shard], workers: int) -> Iterator[int]:
    """Write shards, in this process or in several, and yield the size of each."""
    if not shards:
        return
    if workers <= 1:
        stream = job.stream()
        for shard in shards:
            job.make(stream, shard)
            yield shard.size
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _start_worker, (job,)) as pool:
        futures = [pool.submit(_work, shard) for shard in shards]
        for future in as_completed(futures):
            yield future.result()


def _is_done(path: Path, settings: str, size: int) -> bool:
    """Whether a shard exists with enough galaxies; raise if it has other settings."""
    if not path.exists():
        return False
    with h5py.File(path, "r") as file:
        if file.attrs["settings"] != settings:
            raise ValueError(
                f"{path} was simulated with other settings ({file.attrs['settings']}); choose "
                "another folder."
            )
        return len(file["theta"]) >= size


def _fill(stream: GalaxyStream, shard: int, size: int) -> dict[str, np.ndarray]:
    """Collect batches until the shard is full; each shard has its own range of batch indices."""
    batches, total = [], 0
    index = shard * 1000
    while total < size:
        batch = stream.batch(index)
        batches.append(batch)
        total += len(batch["theta"])
        index += 1
    return {
        name: torch.cat([batch[name] for batch in batches])[:size].numpy() for name in batches[0]
    }


def _write(path: Path, columns: dict[str, np.ndarray], settings: str) -> None:
    with atomic_write(path, overwrite=True) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["settings"] = settings
        file.attrs["quantities"] = list(QUANTITIES)
        file.attrs["bands"] = list(BANDS)
        file.attrs["wavelength_log10_start"] = OBSERVED.start
        file.attrs["wavelength_log10_step"] = OBSERVED.step
        file.attrs["sed_log10_start"] = SED_GRID.start
        file.attrs["sed_log10_step"] = SED_GRID.step
        for name, values in columns.items():
            file.create_dataset(name, data=values)
