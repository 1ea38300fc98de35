"""Measure accuracy and calibration when bands, images or photometry are missing.

    python benchmarks/missing_inputs.py FOLDER [--model NAME] [--folds DIR] [--rows 2000]
                                        [--n 2000] --out results/benchmarks

Real galaxies: redshifts of random rows of ``sdss_photometry.fits`` in FOLDER, from every set of
bands, without recalibration, because the recalibration in the card was fitted to such rows.  For
weights that were fine-tuned on real galaxies, the networks of ``finetuning.py folds`` (``--folds``)
are used, each for the galaxies that it was not trained on.

Simulated held-out galaxies: all quantities from an image, from photometry, and from both, in
several sets of bands.
"""

from __future__ import annotations

import argparse
import json
import warnings
from itertools import combinations
from pathlib import Path

import _path  # noqa: F401
import numpy as np
from astropy.table import QTable
from finetuning import fold_numbers, predict
from properties import scores, simulate_held_out
from real_tables import finetuning_table
from scores import redshift_scores_with_errors
from training_set import photometry_batch

from astrogenspec import Posterior, PropertyEstimator
from astrogenspec.inputs.cutouts import CutoutBatch
from astrogenspec.quantities import QUANTITIES
from astrogenspec.surveys import BANDS

#: All sets of bands; single bands, which hardly constrain the redshift, test the calibration.
SUBSETS = tuple("".join(chosen) for size in range(5, 0, -1) for chosen in combinations(BANDS, size))
SIMULATED_SUBSETS = ("ugriz", "griz", "gri")
MODES = ("image", "photometry", "both")
_OPTIONS = {"n_draws": 500, "seed": 0, "on_error": "flag", "progress": False, "calibrated": False}
_SEED = 11
REDSHIFT = list(QUANTITIES).index("redshift")


def run_real(
    table: QTable, fold: np.ndarray, estimators: list[PropertyEstimator], n_rows: int
) -> dict:
    """Score redshifts of real galaxies from each set of bands, with the estimator of each fold."""
    chosen = np.random.default_rng(_SEED).permutation(len(table))[:n_rows]
    table, fold = table[chosen], fold[chosen]
    order = np.concatenate([np.flatnonzero(fold == k) for k in range(len(estimators))])
    truth = table["redshift"].value[order]
    result: dict = {
        "kind": "real, photometry only, not recalibrated",
        "rows": len(table),
        "folds": len(estimators),
        "redshift": {},
    }
    for subset in SUBSETS:
        parts = [
            predict(estimator, table[fold == k], subset, known=False)
            for k, estimator in enumerate(estimators)
        ]
        posterior = Posterior.concatenate(parts)
        usable = np.isfinite(posterior["redshift"].draws.value).all(axis=1)
        result["redshift"][subset] = redshift_scores_with_errors(
            posterior["redshift"].draws.value, truth, usable
        ) | _width(posterior, usable)
    return result


def held_out_galaxies(
    estimator: PropertyEstimator, folder: Path, folds: Path | None
) -> tuple[QTable, np.ndarray, list[PropertyEstimator]]:
    """Return real galaxies, their folds, and for each fold an estimator not trained on it."""
    table = finetuning_table(folder)
    with_redshift = np.isfinite(table["redshift"].value)
    if folds is None:
        if (estimator.card or {}).get("fits"):
            raise SystemExit("these weights were fine-tuned on real galaxies: give --folds.")
        return table[with_redshift], np.zeros(with_redshift.sum(), int), [estimator]
    paths = sorted(folds.glob("fold-*.safetensors"))
    fold = fold_numbers(len(table), len(paths))
    return (
        table[with_redshift],
        fold[with_redshift],
        [PropertyEstimator.from_pretrained(path) for path in paths],
    )


def run_simulated(estimator: PropertyEstimator, n: int) -> dict:
    """Score all quantities of simulated galaxies for each mode and set of bands."""
    data = simulate_held_out(n)
    theta, measurable = data["theta"], data["measurable"] > 0
    result: dict = {"kind": "simulated held-out, not recalibrated", "n": n}
    result |= {"redshift": {}, "every_quantity": {}}
    for subset in SIMULATED_SUBSETS:
        missing = np.array([band not in subset for band in BANDS])
        ivar = np.where(missing[:, None, None], 0, data["ivar"]).astype(np.float32)
        cutouts = CutoutBatch(data["image"], ivar)
        flux, error = (
            np.where(missing, np.nan, data[name].astype(float)) for name in ("flux", "error")
        )
        photometry = photometry_batch(flux, error)
        inputs = {
            "image": ((cutouts, None), {"ebv": 0.0}),
            "photometry": ((None, photometry), {}),
            "both": ((cutouts, photometry), {}),
        }
        for mode in MODES:
            arguments, options = inputs[mode]
            posterior = estimator.predict(*arguments, **_OPTIONS, **options)
            usable = np.isfinite(posterior["redshift"].draws.value).all(axis=1)
            chosen = posterior[usable]
            name = f"{mode}, {subset}"
            result["redshift"][name] = redshift_scores_with_errors(
                posterior["redshift"].draws.value, theta[:, REDSHIFT], usable
            ) | _width(posterior, usable)
            result["every_quantity"][name] = scores(chosen, theta[usable], measurable[usable])
    return result


def _width(posterior, chosen: np.ndarray) -> dict[str, float]:
    """Return the median half width of the 68% interval, over 1 + z."""
    low, middle, high = np.percentile(
        posterior["redshift"].draws.value[chosen], [16, 50, 84], axis=1
    )
    return {"half_width_over_1+z": float(np.median((high - low) / 2 / (1 + middle)))}


def main() -> None:
    """Run the benchmark and write its results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="real tables")
    parser.add_argument(
        "--model", default="astrogenspec-properties", help="name of weights, or a file"
    )
    parser.add_argument("--folds", type=Path, help="networks of finetuning.py folds")
    parser.add_argument("--rows", type=int, default=2000, help="real galaxies")
    parser.add_argument("--n", type=int, default=2000, help="simulated galaxies")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    estimator = PropertyEstimator.from_pretrained(arguments.model)
    result = {
        "model": arguments.model,
        "real": run_real(
            *held_out_galaxies(estimator, arguments.folder, arguments.folds), arguments.rows
        ),
        "simulated": run_simulated(estimator, arguments.n),
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "missing_inputs.json"
    path.write_text(json.dumps(result, indent=1))
    for subset, row in result["real"]["redshift"].items():
        print(subset, {k: round(v, 4) for k, v in row.items() if not k.endswith("_error")})
    print("written to", path)


if __name__ == "__main__":
    main()
