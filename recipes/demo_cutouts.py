"""Make the simulated cutouts of the demonstration, with true properties, in the package.

python recipes/demo_cutouts.py
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from astropy.table import QTable

from astrogenspec.inputs.cutout_fits import write_cutout_fits
from astrogenspec.inputs.cutouts import CutoutBatch
from astrogenspec.quantities import theta_to_quantities
from astrogenspec.simulate import Sample, Simulator
from astrogenspec.simulate.images import add_noise
from astrogenspec.surveys import BANDS, SDSS

SEED = 2001
DATA = Path(__file__).parents[1] / "astrogenspec" / "data"


def choose(galaxies) -> dict[str, tuple[int, str]]:
    """Choose the first suitable galaxy of each kind; return its index and bands."""
    p, s = galaxies.properties, galaxies.structure
    r = galaxies.observation.petrosian_r
    bright = (r > 15.8) & (r < 16.9)
    spiral = (
        ~p["quiescent"] & ~p["green_valley"] & bright & (s.radius_disk > 4) & (s.radius_disk < 7)
    )
    kinds = {
        "spiral": (spiral & (p["cos_inclination"] > 0.7) & galaxies.measurable, "ugriz"),
        "edge_on": (spiral & (p["cos_inclination"] < 0.15), "gri"),
        "elliptical": (bright & (p["bulge_fraction"] > 0.9) & ~p["active"], "ugriz"),
        "faint": ((r > 17.3) & ~p["quiescent"] & galaxies.measurable, "gri"),
    }
    return {kind: (int(torch.nonzero(mask)[0, 0]), bands) for kind, (mask, bands) in kinds.items()}


def main() -> None:
    """Write the FITS files and the table of true values."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    ).parse_args()
    simulator = Simulator()
    galaxies = simulator.batch(SEED, 0, Sample())
    chosen = choose(galaxies)
    rows = torch.tensor([index for index, _ in chosen.values()])
    generator = simulator.generator(SEED)
    images = simulator.images(galaxies[rows], generator)
    flux, ivar = add_noise(images.flux, SDSS, generator)
    truth = QTable({"file": [f"demo_cutout_{kind}.fits" for kind in chosen]})
    for name, values in theta_to_quantities(galaxies.theta[rows].numpy()).items():
        truth[name] = values
    truth["gas_metallicity"][~galaxies.measurable[rows].numpy()] = np.nan
    for k, (kind, (_, bands)) in enumerate(chosen.items()):
        missing = torch.tensor([band not in bands for band in BANDS])
        ivar[k, missing] = 0
        flux[k, missing] = 0
        batch = CutoutBatch(flux.numpy(), ivar.numpy(), tuple(chosen))
        batch = replace(batch, names=tuple(f"demo_{name}" for name in chosen))
        write_cutout_fits(DATA / f"demo_cutout_{kind}.fits", batch, k, overwrite=True)
    truth.meta["comments"] = "true properties of the simulated galaxies; NaN where not measurable"
    truth.write(DATA / "demo_cutouts_truth.ecsv", overwrite=True)
    print(truth)


if __name__ == "__main__":
    main()
