"""Measure the time of encoding photometry in any filters.

    python benchmarks/encoding_speed.py --out results/benchmarks

Fluxes of simulated spectra become the features of the network, in one batch and in batches of the
size of ``predict``.  The time is the least of several repetitions, in microseconds of CPU time per
galaxy.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import astropy.units as u
import numpy as np
import torch
from survey_accuracy import CASES

from astrogenspec import PropertyEstimator
from astrogenspec.inputs.features import make_inputs
from astrogenspec.inputs.photometry import PhotometryBatch
from astrogenspec.surveys import get_filter

REPETITIONS = 7
SIZES = {"256": 256, "8192": 8192}


def photometry(filters: tuple[str, ...], n: int) -> PhotometryBatch:
    """Return photometry of n galaxies with red colours."""
    rng = np.random.default_rng(0)
    bands = tuple(get_filter(name) for name in filters)
    pivot = np.array([u.Quantity(band.pivot, u.AA).value for band in bands])
    flux = 10 ** rng.normal(1.8, 0.4, (n, 1)) * (pivot / 6000) ** rng.normal(1.5, 0.5, (n, 1))
    return PhotometryBatch(flux, 0.02 * flux, np.full(n, 0.03), np.zeros(n, bool), filters=bands)


def main() -> None:
    """Print and write the times."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="astrogenspec-properties-simulated")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    components = PropertyEstimator.from_pretrained(options.model).network.components
    result: dict[str, dict[str, float]] = {}
    for name in ("SDSS ugriz", "DECam grz", "LSST ugrizy", "LSST + Euclid"):
        for label, n in SIZES.items():
            batch = photometry(CASES[name].filters, n)
            times = []
            for _ in range(REPETITIONS):
                start = time.process_time()
                make_inputs(None, batch, components=components)
                times.append(time.process_time() - start)
            result.setdefault(name, {})[label] = round(1e6 * min(times) / n, 2)
        print(name, result[name], flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "encoding_speed.json"
    path.write_text(json.dumps({"microseconds_per_galaxy": result}, indent=1))


if __name__ == "__main__":
    main()
