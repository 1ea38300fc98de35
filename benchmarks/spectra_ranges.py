"""Fit the recalibration of the pixel ranges of generated spectra on simulated galaxies.

    python benchmarks/spectra.py ranges [--n 192] --out results/spectra

The galaxies are not used by any other benchmark.  Coverage is measured on halves: factors fitted to
one half are applied to the other.  Called by `spectra.py`.
"""

from __future__ import annotations

import astropy.units as u
import numpy as np
from spectra_sample import UNIT, Sample, line_free, pixel_coverage, predict

from astrogenspec.calibration import SpectrumRecalibration
from astrogenspec.generation.conditioning import APERTURES

#: Batch of held-out galaxies that no other benchmark uses.
_BATCH = 2
#: A range of fewer draws covers less than 95%.
_DRAWS = 40


def run_ranges(properties, estimator, n: int) -> dict:
    """Fit factors for each mode and aperture; measure pixel coverage before and after."""
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
            parts = [cross_validated(drawn, true, mode, chosen) for chosen in (even, ~even)]
            result["coverage"][f"{mode}, {aperture}"] = {
                key: {
                    level: float(np.mean([p[key][level] for p in parts])) for level in parts[0][key]
                }
                for key in ("before", "after")
            }
            total = total | SpectrumRecalibration.fit(drawn, true * UNIT, mode=mode)
            print(mode, aperture, result["coverage"][f"{mode}, {aperture}"], total, flush=True)
    return result | {"recalibration": total.to_dict()}


def cross_validated(drawn, true: np.ndarray, mode: str, chosen: np.ndarray) -> dict:
    """Return the coverage before and after recalibration, for galaxies not used in the fit."""
    fitted = SpectrumRecalibration.fit(drawn[~chosen], true[~chosen] * UNIT, mode=mode)
    flux, redshift = drawn.flux.value[chosen], np.median(drawn.redshift[chosen], axis=1)
    factors = fitted.factors(
        [mode] * len(flux), drawn.meta["aperture"], redshift, drawn.wavelength.to_value(u.AA)
    )
    middle = np.median(np.log(flux), axis=1, keepdims=True)
    after = np.exp(middle + factors[:, None] * (np.log(flux) - middle))
    used = line_free(redshift) & drawn.trusted[chosen] & drawn.usable[chosen, None]
    inside = np.where(used, true[chosen], np.nan)
    return {
        key: pixel_coverage(values, inside) for key, values in (("before", flux), ("after", after))
    }
