"""Learn by how much the ranges of generated spectra are too wide or too narrow, from simulated galaxies.

    python benchmarks/spectra.py ranges [--n 192] --out results/spectra

The galaxies are others than those of all other benchmarks.  What was learnt is judged on halves: a
factor learnt from one half is applied to the other.  No script of its own.
"""

from __future__ import annotations

import astropy.units as u
import numpy as np
from spectra_sample import UNIT, Sample, line_free, pixel_coverage, predict

from astrogenspec.calibration import SpectrumRecalibration
from astrogenspec.generation.conditioning import APERTURES

#: Batch of held-out galaxies that no other benchmark looks at.
_BATCH = 2
#: No range of fewer draws holds 95%.
_DRAWS = 40


def run_ranges(properties, estimator, n: int) -> dict:
    """Learn factors for every kind of input and aperture; coverage of pixels before and after, on halves."""
    sample = Sample(n, batch=_BATCH)
    even = np.arange(n) % 2 == 0
    result: dict = {"kind": "simulated held-out", "n": n, "draws": _DRAWS, "coverage": {}}
    total = SpectrumRecalibration({})
    for mode in ("both", "photometry", "image"):
        posterior = None
        for aperture in APERTURES:
            posterior, drawn = predict(
                properties,
                estimator,
                sample.inputs(mode),
                posterior=posterior,
                n_draws=_DRAWS,
                aperture=aperture,
                calibrated=False,
            )
            true = sample.fibre if aperture == "fibre" else sample.total
            parts = [judged(drawn, true, mode, chosen) for chosen in (even, ~even)]
            result["coverage"][f"{mode}, {aperture}"] = {
                key: {
                    level: float(np.mean([p[key][level] for p in parts])) for level in parts[0][key]
                }
                for key in ("before", "after")
            }
            total = total | SpectrumRecalibration.fit(drawn, true * UNIT, mode=mode)
            print(mode, aperture, result["coverage"][f"{mode}, {aperture}"], total, flush=True)
    return result | {"recalibration": total.to_dict()}


def judged(drawn, true: np.ndarray, mode: str, chosen: np.ndarray) -> dict:
    """Coverage of line-free pixels of some galaxies, before and after a recalibration learnt from the others."""
    learnt = SpectrumRecalibration.fit(drawn[~chosen], true[~chosen] * UNIT, mode=mode)
    flux, redshift = drawn.flux.value[chosen], np.median(drawn.redshift[chosen], axis=1)
    factors = learnt.factors(
        [mode] * len(flux), drawn.meta["aperture"], redshift, drawn.wavelength.to_value(u.AA)
    )
    middle = np.median(np.log(flux), axis=1, keepdims=True)
    after = np.exp(middle + factors[:, None] * (np.log(flux) - middle))
    used = line_free(redshift) & drawn.trusted[chosen] & drawn.usable[chosen, None]
    inside = np.where(used, true[chosen], np.nan)
    return {
        key: pixel_coverage(values, inside) for key, values in (("before", flux), ("after", after))
    }
