"""Compare real spectra with those predicted by networks that were not trained on them.

    python benchmarks/spectra.py folds FOLDER --runs RUNS [--n 60] --out results/spectra

FOLDER holds the real tables, and RUNS the networks of `recipes/finetune_spectra.py` without each of
five folds, ``fold-0/spectra.safetensors`` to ``fold-4``. N galaxies of each fold are predicted from
their magnitudes in the fibre as by `spectra_real.py`, and others from total magnitudes, with
recalibrations that were fitted to the galaxies of the other folds; ``recalibration`` was fitted to
those of all folds.
"""

from __future__ import annotations

import json
from pathlib import Path

import _path  # noqa: F401
import numpy as np
from finetune_spectra import fold_of
from real_spectra import read_real_spectra
from sklearn.ensemble import HistGradientBoostingRegressor
from spectra_real import (
    Observed,
    active_nuclei,
    chosen,
    compared,
    dispersions,
    fitted_factors,
    held_out,
    measurements,
    observed,
    on_draws,
    on_observed,
    predicted,
    scores,
    shape_residuals,
    with_factors,
)

from astrogenspec import SpectrumEstimator
from astrogenspec.results.spectra import SpectrumDraws

_N_FOLDS = 5
#: Galaxies of each fold whose redshifts are inferred.
_N_INFERRED = 10
#: Galaxies of each fold with total magnitudes.
_N_TOTAL = 25
#: Galaxies of each fold whose lines and velocity dispersions are measured.
_N_MEASURED = 25
#: Resamplings of the galaxies for the difference from other methods.
_N_BOOTSTRAP = 2000


def run_folds(properties, runs: Path, folder: Path, n: int) -> dict:
    """Score all folds together, and each of them."""
    networks = [
        SpectrumEstimator.load(runs / f"fold-{fold}" / "spectra.safetensors").network
        for fold in range(_N_FOLDS)
    ]
    plain = [SpectrumEstimator(network, card={}) for network in networks]
    result: dict = {"kind": "real spectra, five-fold cross-validation"}
    samples = [held_out(folder, n, fold) for fold in range(_N_FOLDS)]
    calibrated, factors, drawn = _calibrated(properties, plain, samples, "redshift given")
    result["redshift given, without recalibration"] = scores(drawn, joined(samples))
    _show(result)
    given = _predicted_by(properties, calibrated, samples, "redshift given")
    for fold, (found, sample) in enumerate(zip(given, samples, strict=True)):
        result[f"redshift given, fold {fold}"] = scores(found, sample)
    found, sample = SpectrumDraws.concatenate(given), joined(samples)
    result["redshift given"] = scores(found, sample) | shape_residuals(found, sample)
    _show(result)
    few = [one[: min(n, _N_INFERRED)] for one in samples]
    inferred = _predicted_by(properties, calibrated, few, "redshift inferred")
    result["redshift inferred"] = scores(SpectrumDraws.concatenate(inferred), joined(few))
    _show(result)
    every = [held_out(folder, None, fold) for fold in range(_N_FOLDS)]
    known = [one[np.isfinite(one.total).all(axis=1)][:_N_TOTAL] for one in every]
    calibrated, of_total, drawn = _calibrated(properties, plain, known, "total")
    result["from total magnitudes, without recalibration"] = scores(drawn, joined(known))
    drawn = SpectrumDraws.concatenate(_predicted_by(properties, calibrated, known, "total"))
    result["from total magnitudes"] = scores(drawn, joined(known))
    _show(result)
    result["recalibration"] = (factors | of_total).to_dict()
    _show(result)
    result["boosted trees, redshift given"] = boosted(folder, n, found)
    _show(result)
    some = np.concatenate([np.arange(len(one)) < _N_MEASURED for one in samples])
    result["redshift given"]["agn"] = active_nuclei(found[some], sample[some])
    result["redshift given"]["dispersion"] = dispersions(found[some], sample[some])
    return result


def _calibrated(properties, plain: list, samples: list[Observed], mode: str) -> tuple:
    """Return estimators with factors fitted to the other folds, factors of all, and the draws."""
    drawn = _predicted_by(properties, plain, samples, mode)
    found = []
    for fold, estimator in enumerate(plain):
        rest = [k for k in range(_N_FOLDS) if k != fold]
        factors = fitted_factors(
            SpectrumDraws.concatenate([drawn[k] for k in rest]), joined([samples[k] for k in rest])
        )
        print(mode, fold, factors, flush=True)
        found.append(with_factors(estimator, factors))
    every = SpectrumDraws.concatenate(drawn)
    return found, fitted_factors(every, joined(samples)), every


def _show(result: dict) -> None:
    name = list(result)[-1]
    print(name, json.dumps(result[name]), flush=True)


def joined(samples: list[Observed]) -> Observed:
    """Join the galaxies of samples."""
    names = vars(samples[0])
    return Observed(*(np.concatenate([getattr(one, name) for one in samples]) for name in names))


def _predicted_by(properties, estimators, samples: list[Observed], mode: str) -> list:
    return [
        predicted(properties, estimator, sample, mode)
        for estimator, sample in zip(estimators, samples, strict=True)
    ]


def boosted(folder: Path, n: int, drawn: SpectrumDraws) -> dict:
    """Score boosted trees that predict Dn4000 and equivalent widths from the same inputs.

    The inputs are g - r, r - i, r and the redshift; the trees of each fold are trained on the other
    folds. ``drawn`` are the draws of the n galaxies of each fold; the difference of the mean
    absolute error of their medians is given with its 95% interval, by resampling galaxies.
    """
    real = read_real_spectra(folder)
    every = observed(10**real.log_wavelength, real.flux, real.ivar, real.redshift, real.total)
    g, r, i = 22.5 - 2.5 * np.log10(np.where(every.nmgy > 0, every.nmgy, np.nan)[:, 1:4]).T
    inputs = np.column_stack([g - r, r - i, r, every.redshift])
    fold = fold_of(len(real))
    rows = np.concatenate([chosen(fold, n, k) for k in range(_N_FOLDS)])
    rng, result = np.random.default_rng(0), {}
    for name, function in measurements().items():
        true = on_observed(function, every)
        found = np.full(len(true), np.nan)
        for k in range(_N_FOLDS):
            used = (fold != k) & np.isfinite(true)
            trees = HistGradientBoostingRegressor(
                loss="absolute_error", learning_rate=0.05, max_iter=150, max_leaf_nodes=12,
                min_samples_leaf=15, random_state=0,
            )  # fmt: skip
            found[fold == k] = trees.fit(inputs[used], true[used]).predict(inputs[fold == k])
        # The same value as each of two draws, which have no width.
        entry = compared(np.repeat(found[rows, None], 2, axis=1), true[rows])
        kept = ("n", "bias", "scatter", "correlation")
        ours = np.median(on_draws(function, drawn.flux.value, drawn.redshift), axis=1)
        error = np.abs(ours - true[rows]) - np.abs(found[rows] - true[rows])
        error = error[np.isfinite(error)]
        means = rng.choice(error, (_N_BOOTSTRAP, len(error))).mean(axis=1)
        result[name] = {key: entry[key] for key in kept} | {
            "mean_absolute_error": float(np.nanmean(np.abs(found[rows] - true[rows]))),
            "difference_of_ours": float(error.mean()),
            "interval_of_difference": np.quantile(means, [0.025, 0.975]).tolist(),
        }
    return result
