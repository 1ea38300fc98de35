"""Measure the galaxies per second of each stage of the simulator, on otherwise idle cores.

    python benchmarks/simulator_speed.py --out results/simulator

*Galaxies*: properties, coarse spectrum and magnitudes of candidates before the selection.  *Fibre
spectra*: spectra of selected galaxies on the grid of the survey.  *Images*: noise-free images of 64
x 64 pixels in five bands, with neighbours.  *Seds*: spectral energy distributions of selected
galaxies.  *LSST images*: 64 x 64 pixels in six bands, of galaxies to r = 18.4, with fluxes,
neighbours and noise.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sized
from pathlib import Path

import torch

from astrogenspec.simulate import Sample, Simulator
from astrogenspec.simulate.images import add_noise

_CANDIDATES, _SELECTED, _REPEATS = 4096, 512, 5


def rate(make: Callable[[int], Sized]) -> float:
    """Return the median rate of several runs, after a first one that is not counted."""
    rates = []
    for k in range(_REPEATS + 1):
        start = time.perf_counter()
        made = make(k)
        rates.append(len(made) / (time.perf_counter() - start))
    return sorted(rates[1:])[_REPEATS // 2]


def main() -> None:
    """Run the benchmark and write its results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("results/simulator"))
    arguments = parser.parse_args()
    simulator, sample = Simulator(), Sample()
    galaxies = simulator.draw(_SELECTED, 0, sample)
    deeper = simulator.draw(_SELECTED, 0, Sample(magnitude_limit=18.4))
    generator = simulator.generator(1)
    result = {
        "threads": torch.get_num_threads(),
        "galaxies_per_second": rate(
            lambda k: simulator.candidates(_CANDIDATES, simulator.generator(k), sample)
        ),
        "fibre_spectra_per_second": rate(lambda k: simulator.spectra(galaxies)),
        "images_per_second": rate(lambda k: simulator.images(galaxies, generator).flux),
        "seds_per_second": rate(lambda k: simulator.seds(galaxies)),
        "lsst_images_per_second": rate(
            lambda k: add_noise(
                simulator.images(deeper, generator, survey="lsst").flux, "lsst", generator
            )[0]
        ),
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "speed.json").write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
