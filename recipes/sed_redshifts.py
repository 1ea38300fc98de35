"""Regress the redshift on the coefficients of the spectral energy distribution.

    python recipes/sed_redshifts.py [--n 6000]

Prints the numbers of `astrogenspec.generation.completion`: constant, slopes and scatter. The
coefficients of simulated galaxies are inferred from their noise-free spectral energy distributions
in bins of ten pixels, with a relative error of 2%.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from astrogenspec.generation.completion import sed_components
from astrogenspec.simulate import GalaxyStream, Simulator
from astrogenspec.simulate.dataset import TRAINING_SAMPLES, Contents
from astrogenspec.wavelengths import SED_GRID

#: Seed of the galaxies, those of ``benchmarks/survey_accuracy.py``.
SEED = 77
_PIXELS, _FIRST_BIN, _ERROR = 10, 5, 0.02


def regress(n: int) -> tuple[np.ndarray, float]:
    """Return constant and slopes, and the scatter about them, for n galaxies or a few more."""
    components, seds, redshifts, total = sed_components(), [], [], 0
    contents = Contents("none", "none", seds=True)
    for columns in GalaxyStream(Simulator(), SEED, TRAINING_SAMPLES, contents):
        seds.append(columns["sed"].float())
        redshifts.append(columns["theta"][:, 0])
        total += len(seds[-1])
        if total >= n:
            break
    curves = torch.eye(SED_GRID.size // _PIXELS).repeat_interleave(_PIXELS, 1) / _PIXELS
    curves = curves[_FIRST_BIN:]
    flux = torch.cat(seds) @ curves.T
    error = _ERROR * flux.abs() + 1e-4
    inferred = components.infer(flux, error, components.responses(curves), torch.zeros(len(curves)))
    z = torch.cat(redshifts).double().numpy()
    design = np.column_stack([np.ones(len(z)), inferred.mean.double().numpy()])
    numbers = np.linalg.lstsq(design, z, rcond=None)[0]
    return numbers, float(np.std(z - design @ numbers))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=6000, help="number of galaxies")
    found, scatter = regress(parser.parse_args().n)
    print(", ".join(f"{number:.5f}" for number in found), f"; scatter {scatter:.4f}")
