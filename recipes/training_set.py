"""Compute the statistics of the training set that a card holds, from newly simulated galaxies.

    python recipes/training_set.py statistics.json --n 6000

Writes ``{"novelty": ..., "population": ..., "predictive": ...}`` (the keys of the card): statistics
for outlier detection, the distribution of the labels, and the emulator of the predictive p-value.
They are computed from N galaxies with images and ten times as many without.  The functions that
simulate galaxies are used by the benchmarks too.

    python recipes/training_set.py seds --seds --n 1000000 --seed 1

Writes N galaxies without images to shards in the folder ``seds``, with the spectral energy
distributions from which photometry in any filters is made for training.  With ``--images``, they
have noise-free images too.  With ``--population deep``, galaxies are those of the deep population,
to r = 23.5 and z = 1.3, and with ``faint`` those to r = 20 among them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from astrogenspec.inference.outliers.detector import (
    magnitudes_and_errors,
    outlier_statistics,
    sed_limit,
)
from astrogenspec.inference.outliers.predictive import PhotometryEmulator
from astrogenspec.inputs.cutouts import CutoutBatch
from astrogenspec.inputs.photometry import PhotometryBatch
from astrogenspec.inputs.sed_features import SEDComponents
from astrogenspec.results.information import population_of
from astrogenspec.simulate import GalaxyStream, Simulator
from astrogenspec.simulate.dataset import DEEP_SAMPLES, TRAINING_SAMPLES, Contents, write_shards
from astrogenspec.simulate.simulator import Sample
from astrogenspec.training.filter_sets import FilterBank, FilterObserver

#: Samples of the training set of each population.
SAMPLES = {
    "local": TRAINING_SAMPLES,
    "deep": DEEP_SAMPLES,
    "faint": (Sample(magnitude_limit=20.0), Sample(magnitude_limit=19.0)),
}
#: Population of the simulator of those that are parts of another one.
_PARTS = {"faint": "deep"}


def photometry_batch(
    flux: np.ndarray, error: np.ndarray, extinction: np.ndarray | None = None
) -> PhotometryBatch:
    """Return catalogue photometry from arrays (n, 5): fluxes in nmgy, extinction in mag."""
    n = len(flux)
    flux, error = np.asarray(flux, float), np.asarray(error, float)
    if extinction is None:
        extinction = np.zeros_like(flux)
    return PhotometryBatch(flux, error, np.zeros(n), np.zeros(n, bool), extinction=extinction)


def take(
    stream: GalaxyStream, n: int, columns: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """Return the first n galaxies of a stream: the given columns, or all except the spectra."""
    parts, total = [], 0
    for batch in stream:
        parts.append({k: batch[k] for k in columns or batch if k != "spectrum"})
        total += len(batch["theta"])
        if total >= n:
            break
    return {k: torch.cat([p[k] for p in parts])[:n].float().numpy() for k in parts[0]}


def simulate(
    n: int, seed: int, *, images: bool, population: str = "local"
) -> dict[str, np.ndarray]:
    """Simulate galaxies like those of the training set, with or without observed images."""
    contents = Contents("observed" if images else "none", "none")
    columns = ["theta", "measurable", "flux", "error"] + ["image", "ivar"] * images
    simulator = Simulator(population=_PARTS.get(population, population))
    return take(GalaxyStream(simulator, seed, SAMPLES[population], contents), n, columns)


def training_statistics(
    n: int, seed: int, population: str = "local", *, images: bool = True, n_faint: int = 0
) -> dict:
    """Compute the statistics of the training set.

    Parameters
    ----------
    n : int
        Number of galaxies with images; ten times as many are drawn without.
    seed : int
        Seed of the galaxies with images; those without have the next seed.
    population : {"local", "deep"}
        Population of the simulator.
    images : bool
        Whether the statistics of images are computed.
    n_faint : int
        Number of additional galaxies to r = 20, without images.
    """
    cutouts = None
    if images:
        imaged = simulate(n, seed, images=True, population=population)
        cutouts = CutoutBatch(imaged["image"], imaged["ivar"])
    many = simulate(10 * n, seed + 1, images=False, population=population)
    if n_faint:
        faint = simulate(n_faint, seed + 2, images=False, population="faint")
        many = {name: np.concatenate([values, faint[name]]) for name, values in many.items()}
    theta = many["theta"].astype(float)
    theta[many["measurable"] < 0.5, 3] = np.nan
    photometry = photometry_batch(many["flux"], many["error"])
    return {
        "novelty": outlier_statistics(photometry, cutouts),
        "population": population_of(theta),
        "predictive": PhotometryEmulator.fit(
            many["theta"], *magnitudes_and_errors(photometry)
        ).to_dict(),
    }


def sed_statistics(components: SEDComponents, n: int, seed: int, population: str = "local") -> dict:
    """Compute the statistics of the photometry in any filters.

    Parameters
    ----------
    components : SEDComponents
        Components of the network.
    n : int
        Number of galaxies.
    seed : int
        Seed of the galaxies.
    population : {"local", "deep"}
        Population of the simulator.

    Returns
    -------
    dict
        Items of the entry ``novelty`` of the card.
    """
    simulator = Simulator(population=population)
    contents = Contents("none", "none", seds=True)
    stream = GalaxyStream(simulator, seed, SAMPLES[population], contents)
    drawn = take(stream, n, ["sed", "sed_flux", "error"])
    sed, flux, error = (torch.as_tensor(drawn[name]) for name in ("sed", "sed_flux", "error"))
    observer = FilterObserver(FilterBank(), components)
    generator = torch.Generator().manual_seed(seed)
    return {"least_sed_log_tail": sed_limit(observer.infer(sed * flux[:, None], error, generator))}


def write_seds(folder: Path, options: argparse.Namespace) -> list[Path]:
    """Write galaxies with spectral energy distributions to shards."""
    images = "noiseless" if options.images else "none"
    return write_shards(
        options.n,
        folder,
        seed=options.seed,
        population=_PARTS.get(options.population, options.population),
        samples=SAMPLES[options.population],
        contents=Contents(images, "none", seds=True),
        workers=options.workers,
    )


def main() -> None:
    """Write the statistics to a file, or shards to a folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("out", type=Path, help="JSON file, or with --seds folder, to write")
    parser.add_argument("--n", type=int, default=6000, help="simulated galaxies")
    parser.add_argument("--seds", action="store_true", help="write shards for photometry training")
    parser.add_argument("--images", action="store_true", help="with images, with --seds")
    parser.add_argument("--workers", type=int, help="processes for --seds; one per core by default")
    parser.add_argument("--seed", type=int, default=5010)
    parser.add_argument("--population", choices=tuple(SAMPLES), default="local")
    arguments = parser.parse_args()
    if arguments.seds:
        write_seds(arguments.out, arguments)
        return
    statistics = training_statistics(arguments.n, arguments.seed, arguments.population)
    arguments.out.write_text(json.dumps(statistics))


if __name__ == "__main__":
    main()
