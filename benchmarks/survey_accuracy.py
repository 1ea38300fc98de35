"""Accuracy in the filters of many surveys, on simulated galaxies that no network was trained on.

    python benchmarks/survey_accuracy.py [--model NAME] [--n 5000] [--out FILE.json]

The sets of filters include two that are left out of the training, Pan-STARRS and Bessell BVRI. All
galaxies are those of the depth of SDSS (r < 18.4).  Fluxes have Gaussian errors of the stated depth
and of the calibration; 3% of them have four times that error.  For each set: NMAD, bias, outliers
and coverage of the redshift, its CRPS, and R2 of the medians of all quantities.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scores import redshift_scores

from astrogenspec import PropertyEstimator
from astrogenspec.inputs.photometry import PhotometryBatch
from astrogenspec.inputs.sed_features import filter_curve
from astrogenspec.quantities import QUANTITIES
from astrogenspec.simulate import GalaxyStream, Simulator
from astrogenspec.simulate.dataset import TRAINING_SAMPLES, Contents
from astrogenspec.surveys import get_filter

#: Seed of the galaxies; those of the training have 1 and 2.
SEED = 77
_MAG = 2.5 / np.log(10)


@dataclass(frozen=True)
class Case:
    """Filters, 5 sigma depths (None: the errors of SDSS) and calibration errors."""

    filters: tuple[str, ...]
    depth: tuple[float, ...] | None = None
    calibration: float = 0.015
    aperture: tuple[str, float] | None = None


def _names(group: str, bands: str) -> tuple[str, ...]:
    return tuple(f"{group}-{band}" for band in bands)


_UGRIZ = _names("sdss2010", "ugriz")
_LSST = (_names("lsst2023", "ugrizy"), (24.0, 25.5, 25.5, 25.0, 24.3, 23.5))
_JHK = ("twomass-J", "twomass-H", "twomass-Ks")
CASES = {
    "SDSS ugriz": Case(_UGRIZ),
    "SDSS gri": Case(_UGRIZ[1:4]),
    "DECam grz": Case(_names("decamDR1", "grz"), (24.0, 23.4, 22.5)),
    "DES grizY": Case(_names("decam2014", "grizY"), (24.7, 24.4, 23.8, 23.1, 21.7)),
    "LSST ugrizy": Case(*_LSST),
    "HSC grizy": Case(_names("hsc2017", "grizy"), (26.5, 26.0, 25.9, 25.1, 24.4)),
    "LSST + Euclid": Case(
        (*_LSST[0], *(f"Euclid-{band}" for band in ("VIS", "Y", "J", "H"))),
        (*_LSST[1], 25.0, 23.5, 23.5, 23.5),
    ),
    "SDSS + 2MASS": Case(
        (*_UGRIZ, *_JHK), (0.0,) * 5 + (17.4, 17.1, 17.0), aperture=("twomass", 0.2)
    ),
    "Pan-STARRS grizy (held out)": Case(
        _names("panstarrs", "grizy"), (23.3, 23.2, 23.1, 22.3, 21.4)
    ),
    "Bessell BVRI (held out)": Case(_names("bessell", "BVRI"), (22.5,) * 4),
}


def simulate(n: int) -> dict[str, np.ndarray]:
    """Simulate n galaxies with spectral energy distributions."""
    stream = GalaxyStream(Simulator(), SEED, TRAINING_SAMPLES, Contents("none", "none", seds=True))
    parts, total = [], 0
    for batch in stream:
        parts.append({k: batch[k] for k in ("sed", "sed_flux", "error", "theta", "measurable")})
        total += len(batch["theta"])
        if total >= n:
            break
    return {k: torch.cat([part[k] for part in parts])[:n].float().numpy() for k in parts[0]}


def observe(drawn: dict[str, np.ndarray], case: Case, seed: int) -> PhotometryBatch:
    """Observe galaxies in the filters of a case."""
    rng = np.random.default_rng(seed)
    filters = tuple(get_filter(name) for name in case.filters)
    sed = drawn["sed"].astype(float) * drawn["sed_flux"][:, None]
    flux = sed @ np.stack([filter_curve(band) for band in filters]).T
    depth = np.array(case.depth or (0.0,) * len(filters))
    error = np.tile(10 ** (0.4 * (22.5 - depth)) / 5, (len(flux), 1))
    batch = PhotometryBatch(
        flux, error, np.zeros(len(flux)), np.zeros(len(flux), bool), filters=filters
    )
    calibration = batch.calibration_error.copy()
    for k, name in enumerate(case.filters):
        if name in _UGRIZ:
            error[:, k] = drawn["error"][:, _UGRIZ.index(name)]
        else:
            calibration[k] = case.calibration
    if case.aperture is not None:
        group, scatter = case.aperture
        rows = [k for k, name in enumerate(case.filters) if name.startswith(group)]
        flux[:, rows] *= 10 ** (0.4 * scatter * rng.standard_normal((len(flux), 1)))
    sigma = np.hypot(error, calibration / _MAG * flux)
    sigma = sigma * np.where(rng.random(flux.shape) < 0.03, 4.0, 1.0)
    observed = flux + sigma * rng.standard_normal(flux.shape)
    return PhotometryBatch(
        observed,
        error,
        batch.ebv,
        batch.measured,
        filters=filters,
        calibration_error=calibration,
    )


def run_case(
    estimator: PropertyEstimator, drawn: dict[str, np.ndarray], case: Case, seed: int
) -> dict[str, float]:
    """Return the scores of one set of filters."""
    posterior = estimator.predict(
        photometry=observe(drawn, case, seed), n_draws=300, seed=1, calibrated=False, progress=False
    )
    theta = drawn["theta"].astype(float)
    scores = redshift_scores(posterior["redshift"].draws.value, theta[:, 0])
    for k, name in enumerate(QUANTITIES):
        true = theta[:, k].copy()
        if name == "gas_metallicity":
            true[drawn["measurable"] < 0.5] = np.nan
        median = posterior[name].median().value
        internal = np.log10(median) if QUANTITIES[name].logarithmic else median
        known = np.isfinite(true)
        rest = np.mean((internal - true)[known] ** 2) / true[known].var()
        scores[f"r2_{name}"] = round(1 - float(rest), 4)
    return scores


def main() -> None:
    """Print the scores of all sets of filters, and write them to a file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="astrogenspec-properties-simulated")
    parser.add_argument("--n", type=int, default=5000)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    estimator = PropertyEstimator.from_pretrained(arguments.model)
    drawn = simulate(arguments.n)
    results = {}
    for seed, (name, case) in enumerate(CASES.items()):
        results[name] = run_case(estimator, drawn, case, seed)
        print(name, results[name], flush=True)
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps({"n": arguments.n, "surveys": results}, indent=1))


if __name__ == "__main__":
    main()
