"""Compare real spectra with those predicted by networks that were not trained on them.

    python benchmarks/spectra.py folds FOLDER --runs RUNS [--n 80] --out results/spectra

FOLDER holds the real tables, and RUNS the networks of `recipes/finetune_spectra.py` without each of
five folds, ``fold-0/spectra.safetensors`` to ``fold-4``. N galaxies of each fold are predicted from
their magnitudes in the fibre as by `spectra_real.py`, with a recalibration that was fitted to the
galaxies of the other folds. The last entry is the recalibration fitted to all of them.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from spectra_real import (
    Observed,
    active_nuclei,
    dispersions,
    fitted_factors,
    held_out,
    predicted,
    scores,
    shape_residuals,
    with_factors,
)

from astrogenspec import SpectrumEstimator
from astrogenspec.results.spectra import SpectrumDraws

_N_FOLDS = 5
#: Galaxies of each fold whose redshifts are inferred.
_N_INFERRED = 20


def run_folds(properties, runs: Path, folder: Path, n: int) -> dict:
    """Score all folds together, and each of them."""
    networks = [
        SpectrumEstimator.load(runs / f"fold-{fold}" / "spectra.safetensors").network
        for fold in range(_N_FOLDS)
    ]
    plain = [SpectrumEstimator(network, card={}) for network in networks]
    samples = [held_out(folder, n, fold) for fold in range(_N_FOLDS)]
    drawn = [
        predicted(properties, estimator, sample, "redshift given")
        for estimator, sample in zip(plain, samples, strict=True)
    ]
    every = SpectrumDraws.concatenate(drawn), joined(samples)
    result: dict = {"kind": "real spectra, five-fold cross-validation", "draws": drawn[0].n_draws}
    result["redshift given, without recalibration"] = scores(*every)
    print(json.dumps(result), flush=True)
    calibrated = []
    for fold, estimator in enumerate(plain):
        rest = [k for k in range(_N_FOLDS) if k != fold]
        factors = fitted_factors(
            SpectrumDraws.concatenate([drawn[k] for k in rest]), joined([samples[k] for k in rest])
        )
        calibrated.append(with_factors(estimator, factors))
        print(fold, factors, flush=True)
    given = _predicted_by(properties, calibrated, samples, "redshift given")
    for fold, (found, sample) in enumerate(zip(given, samples, strict=True)):
        result[f"redshift given, fold {fold}"] = scores(found, sample)
    found, sample = SpectrumDraws.concatenate(given), joined(samples)
    result["redshift given"] = scores(found, sample) | shape_residuals(found, sample)
    print(json.dumps(result["redshift given"]), flush=True)
    few = [one[: min(n, _N_INFERRED)] for one in samples]
    inferred = _predicted_by(properties, calibrated, few, "redshift inferred")
    result["redshift inferred"] = scores(SpectrumDraws.concatenate(inferred), joined(few))
    print(json.dumps(result["redshift inferred"]), flush=True)
    result["redshift given"]["agn"] = active_nuclei(found, sample)
    result["redshift given"]["dispersion"] = dispersions(found, sample)
    result["recalibration"] = fitted_factors(*every).to_dict()
    return result


def joined(samples: list[Observed]) -> Observed:
    """Join the galaxies of samples."""
    names = vars(samples[0])
    return Observed(*(np.concatenate([getattr(one, name) for one in samples]) for name in names))


def _predicted_by(properties, estimators, samples: list[Observed], mode: str) -> list:
    return [
        predicted(properties, estimator, sample, mode)
        for estimator, sample in zip(estimators, samples, strict=True)
    ]
