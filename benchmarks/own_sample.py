"""Measure fine-tuning on one table of nearby galaxies with redshifts, by cross-validation.

    python benchmarks/own_sample.py FOLDER [--folds 5] [--members 3] [--model NAME] --out OUT

This is the case of a user with a sample of their own: the network learns its redshift distribution
too, and the redshifts of the held-out galaxies are not given.  FOLDER holds the tables of
`finetuning.py`.  Gradient boosting on the same photometry and sizes is measured for comparison.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import _path  # noqa: F401
import numpy as np
from astropy.table import QTable
from finetuning import SEED, predict
from peers import label_medians
from real_tables import finetuning_table, inputs_of
from scores import label_rmse, label_scores

from astrogenspec import Posterior, PropertyEstimator
from astrogenspec.quantities import QUANTITIES

FIT = {"epochs": 72, "batch_size": 64, "learning_rate": 1e-3, "patience": 15}


def run_own(before: PropertyEstimator, table: QTable, n_folds: int, members: int) -> dict:
    """Cross-validate on one table, without and with morphology."""
    fold = np.random.default_rng(SEED).permutation(len(table)) % n_folds
    drawn: dict[str, list[Posterior]] = {"fitted": [], "fitted, with structure": []}
    boosted = {name: np.full(len(table), np.nan) for name in list(QUANTITIES)[1:]}
    for k in range(n_folds):
        training, held_out = table[fold != k], table[fold == k]
        after = before.fit(
            photometry=inputs_of(training),
            labels={name: training[name] for name in QUANTITIES},
            heads=members,
            seed=SEED + k,
            on_error="flag",
            progress=False,
            **FIT,
        )
        for inputs, parts in drawn.items():
            morphology = "structure" in inputs
            parts.append(predict(after, held_out, known=False, morphology=morphology))
        for name, values in label_medians(training, held_out, redshift=False).items():
            boosted[name][fold == k] = values
    back = np.argsort(np.concatenate([np.flatnonzero(fold == k) for k in range(n_folds)]))
    result = {
        inputs: label_scores(Posterior.concatenate(parts)[back], table)
        for inputs, parts in drawn.items()
    }
    result["gradient boosting"] = label_rmse(boosted, table)
    return result


def main() -> None:
    """Run the benchmark and write its results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="folder of the real tables")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--model", default="astrogenspec-properties-simulated")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    before, table = (
        PropertyEstimator.from_pretrained(options.model),
        finetuning_table(options.folder),
    )
    table["redshift"] = np.where(
        np.isfinite(table["redshift"]), table["redshift"], table["known_redshift"]
    )
    result: dict = {"kind": "real, cross-validated", "folds": options.folds}
    for source in ("lines", "masses"):
        rows = table[table["source"] == source]
        for name, scores in run_own(before, rows, options.folds, options.members).items():
            result[f"{source}, {name}"] = scores
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "anchoring_own.json").write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
