"""Measure what fine-tuning a properties network on labelled real galaxies changes.

    python benchmarks/finetuning.py folds FOLDER [--folds 5] [--model NAME] --data SHARDS --out OUT
    python benchmarks/finetuning.py zero FOLDER [--model NAME] --out OUT
    python benchmarks/finetuning.py recalibration FOLDER [--model NAME] --out OUT
    python benchmarks/finetuning.py few FOLDER [--model NAME] --data SHARDS --out OUT

``folds``: cross-validation, in which each galaxy is scored by an estimator whose training did not
include it; the methods of `peers.py` use the same folds.  ``zero``: weights trained on simulations
alone, at known redshift.  ``recalibration``: redshifts with and without cross-fitted recalibration.
``few``: fine-tuning on 200, 500 or 1000 galaxies.

FOLDER holds ``sdss_photometry.fits``, ``sdss_lines.fits``, ``sdss_masses.fits`` and
``sdss_images.fits``.  The 24 galaxies of the demonstration and those of the image table are
excluded throughout.  SHARDS are simulated galaxies for the teacher samples. Fine-tuned networks are
kept in ``folds`` beside the results and reused: delete them to train again.  The fine-tuning on
images (`image_finetuning.py`) leaves the heads for photometry unchanged, so these scores hold for
the bundled weights.  "With structure" means Petrosian fluxes (redshifts) or radii and axis ratio
(other labels) in addition to the magnitudes.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import _path  # noqa: F401
import numpy as np
from astropy.table import QTable
from peers import flow_medians, label_medians, redshift_medians
from real_tables import finetuning_table, inputs_of, mass_offset, photometry_rows
from scores import label_rmse, label_scores, paired_difference, redshift_scores

from astrogenspec import Posterior, PropertyEstimator
from astrogenspec.calibration.recalibration import Recalibration, cross_fitted
from astrogenspec.metrics import redshift_metrics
from astrogenspec.quantities import QUANTITIES

SEED = 5
SUBSETS = ("ugriz", "griz", "gri", "ugr", "gr", "r")
#: Parts of the table in which redshifts are given, not inferred: labels of nearby galaxies.
SOURCES = ("lines", "masses")
#: Runs at known redshift, keys of the results: networks after ("anchored") and before fine-tuning,
#: without and with morphology.
KNOWN_REDSHIFT = (
    "anchored",
    "zero-shot",
    "anchored, with structure",
    "zero-shot, with structure",
)
FIT = {
    "epochs": 72,
    "batch_size": 256,
    "learning_rate": 2e-3,
    "validation_fraction": 0.1,
    "patience": None,
    "progress": False,
}
FEW = {"epochs": 40, "batch_size": 32, "learning_rate": 3e-4, "patience": 8}


def fine_tune(
    estimator: PropertyEstimator, table: QTable, seed: int = SEED, **settings
) -> PropertyEstimator:
    """Fine-tune on all labels of a table."""
    labels = {name: table[name] for name in QUANTITIES}
    return estimator.fit(
        photometry=inputs_of(table),
        labels=labels,
        known={"redshift": table["known_redshift"]},
        seed=seed,
        on_error="flag",
        **FIT | settings,
    )


def predict(
    estimator: PropertyEstimator,
    table: QTable,
    subset: str = "ugriz",
    *,
    known: bool,
    morphology: bool = False,
):
    """Draw 500 samples per galaxy; with ``known`` at the tabulated redshift."""
    options = {"known": {"redshift": table["known_redshift"]}} if known else {}
    return estimator.predict(
        photometry=inputs_of(table, subset, morphology=morphology),
        n_draws=500,
        seed=0,
        on_error="flag",
        progress=False,
        calibrated=False,
        **options,
    )


def fold_numbers(n: int, n_folds: int) -> np.ndarray:
    """Return the fold in which each row of the table is held out."""
    return np.random.default_rng(SEED).permutation(n) % n_folds


def finetuned_fold(
    out: Path,
    k: int,
    before: PropertyEstimator,
    training: QTable,
    shards: list[Path],
    members: int,
) -> PropertyEstimator:
    """Fine-tune without one fold, or load the network saved by an earlier run."""
    path = out / f"fold-{k}.safetensors"
    if not path.exists():
        out.mkdir(parents=True, exist_ok=True)
        fine_tune(before, training, seed=SEED + k, simulations=shards, heads=members).save(path)
    return PropertyEstimator.load(path)


@dataclass
class CrossValidation:
    """Predictions for the held-out galaxies of each fold.

    Attributes
    ----------
    table : QTable
        Labelled galaxies.
    fold : ndarray, shape (n,)
        Fold in which each galaxy is held out.
    redshifts : dict of str to ndarray, shape (n, 500)
        Posterior draws of the redshift, by run; NaN where the label is missing.
    held_out : list of Posterior
        Posteriors of the galaxies with a redshift label, fold by fold.
    known_redshift : dict of str to list of (rows, Posterior)
        Posteriors at given redshift, by run.
    peers, boosted : dict of str to ndarray, shape (n,)
        Redshifts and other labels predicted by the other methods.
    """

    table: QTable
    fold: np.ndarray
    redshifts: dict[str, np.ndarray] = field(default_factory=dict)
    held_out: list[Posterior] = field(default_factory=list)
    known_redshift: dict[str, list] = field(default_factory=dict)
    peers: dict[str, np.ndarray] = field(default_factory=dict)
    boosted: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def has_redshift(self) -> np.ndarray:
        """Galaxies with a redshift label."""
        return np.isfinite(self.table["redshift"].value)

    def _set(self, found: dict[str, np.ndarray], name: str, rows: np.ndarray, values) -> None:
        empty = np.full((len(self.table), *np.shape(values)[1:]), np.nan, np.float32)
        found.setdefault(name, empty)[rows] = values

    def predict_fold(self, k: int, before: PropertyEstimator, after: PropertyEstimator) -> None:
        """Predict a fold with the network fine-tuned on the rest, and with the initial one."""
        held_out = np.flatnonzero(self.fold == k)
        inferred = self.has_redshift[held_out]
        rows, others = held_out[inferred], held_out[~inferred]
        runs = [(subset, after, subset) for subset in SUBSETS]
        runs += [(f"zero-shot{sizes}", before, "ugriz") for sizes in ("", " with structure")]
        runs.append(("ugriz with structure", after, "ugriz"))
        for name, estimator, subset in runs:
            found = predict(
                estimator, self.table[rows], subset, known=False, morphology="structure" in name
            )
            self._set(self.redshifts, name, rows, found["redshift"].draws.value)
            if name == "ugriz":
                self.held_out.append(found)
        for name in KNOWN_REDSHIFT:
            estimator = after if "anchored" in name else before
            found = predict(
                estimator, self.table[others], known=True, morphology="structure" in name
            )
            self.known_redshift.setdefault(name, []).append((others, found))

    def predict_peers(self, k: int) -> None:
        """Train the other methods on the same galaxies and predict the fold."""
        training, held_out = self.table[self.fold != k], np.flatnonzero(self.fold == k)
        rows = held_out[self.has_redshift[held_out]]
        labelled = training[np.isfinite(training["redshift"].value)]
        for name in ("ugriz", "ugriz with structure", "gri"):
            found = redshift_medians(labelled, self.table[rows], name)
            if "structure" in name:
                found["flows"] = flow_medians(labelled, self.table[rows])
            for peer, values in found.items():
                self._set(self.peers, f"{peer}, {name}", rows, values)
        for source in SOURCES:
            asked = held_out[self.table["source"][held_out] == source]
            found = label_medians(training[training["source"] == source], self.table[asked])
            for name, values in found.items():
                self._set(self.boosted, name, asked, values)

    def redshift_results(self) -> dict:
        """Score redshifts, recalibrate those from all bands, and compare with the other methods."""
        rows = self.has_redshift
        true = self.table["redshift"].value[rows]
        scores = {name: redshift_scores(d[rows], true) for name, d in self.redshifts.items()}
        folds = range(len(self.held_out))
        order = np.concatenate([np.flatnonzero((self.fold == k) & rows) for k in folds])
        held_out = Posterior.concatenate(self.held_out)
        known = {"redshift": self.table["redshift"][order]}
        corrected = cross_fitted(held_out, known, seed=SEED)["redshift"].draws.value
        scores["ugriz, recalibrated (cross-fitted)"] = redshift_scores(
            corrected, known["redshift"].value
        )
        peers = {name: values[rows] for name, values in self.peers.items()}
        return {
            "redshift": scores,
            "recalibration": Recalibration.fit(held_out, known, seed=SEED).to_dict(),
            "peers": {
                name: {k: float(v) for k, v in redshift_metrics(values, true).items()}
                for name, values in peers.items()
            },
            "against_peers": {
                name: paired_difference(
                    np.median(self.redshifts[name.split(", ")[1]][rows], axis=1), values, true
                )
                for name, values in peers.items()
            },
        }

    def label_results(self) -> dict:
        """Score the other labels at known redshift."""
        result = {}
        for name, parts in self.known_redshift.items():
            order = np.concatenate([rows for rows, _ in parts])
            posterior = Posterior.concatenate([found for _, found in parts])
            for source in SOURCES:
                chosen = self.table["source"][order] == source
                result[f"{source}, {name}"] = label_scores(
                    posterior[chosen], self.table[order][chosen]
                )
        for source in SOURCES:
            result[f"{source}, gradient boosting"] = label_rmse(
                self.boosted, self.table, self.table["source"] == source
            )
        return result


def run_folds(
    folder: Path, model: str, n_folds: int, shards: list[Path], out: Path, members: int
) -> dict:
    """Cross-validate on all tables."""
    table = finetuning_table(folder)
    found = CrossValidation(table, fold_numbers(len(table), n_folds))
    before = PropertyEstimator.from_pretrained(model)
    start = time.perf_counter()
    for k in range(n_folds):
        training = table[found.fold != k]
        after = finetuned_fold(out / "folds", k, before, training, shards, members)
        found.predict_fold(k, before, after)
        found.predict_peers(k)
        print(f"fold {k}: {time.perf_counter() - start:.0f} s", after.fit_report()[:3], flush=True)
    return {
        "kind": "real, cross-validated",
        "folds": n_folds,
        "rows": len(table),
        "mass_offset": mass_offset(folder),
        **found.redshift_results(),
        **found.label_results(),
    }


def run_zero(folder: Path, model: str) -> dict:
    """Score weights trained on simulations alone, at known redshift."""
    table = finetuning_table(folder)
    table = table[~np.isfinite(table["redshift"].value)]
    before = PropertyEstimator.from_pretrained(model)
    result: dict = {"kind": "real; no real galaxy was used to train the network"}
    for name in ("zero-shot", "zero-shot, with structure"):
        posterior = predict(before, table, known=True, morphology="structure" in name)
        for source in SOURCES:
            chosen = table["source"] == source
            result[f"{source}, {name}"] = label_scores(posterior[chosen], table[chosen])
    return result


def run_recalibration(folder: Path, model: str) -> dict:
    """Score redshifts without and with cross-fitted recalibration; fit it to all galaxies."""
    table = photometry_rows(folder)
    known = {"redshift": table["redshift"]}
    posterior = predict(PropertyEstimator.from_pretrained(model), table, known=False)
    corrected = cross_fitted(posterior, known, seed=SEED)
    result: dict = {"kind": "real; recalibrated by other galaxies", "rows": len(table)}
    for name, found in (("as trained", posterior), ("recalibrated (cross-fitted)", corrected)):
        result[name] = redshift_scores(found["redshift"].draws.value, known["redshift"].value)
    result["recalibration"] = Recalibration.fit(posterior, known, seed=SEED).to_dict()
    return result


def run_few(folder: Path, model: str, shards: list[Path], members: int) -> dict:
    """Score redshifts of 2,000 galaxies after fine-tuning on 200, 500 or 1000 others."""
    table = photometry_rows(folder)
    order = np.random.default_rng(SEED).permutation(len(table))
    held_out, rest = table[order[:2000]], order[2000:]
    before = PropertyEstimator.from_pretrained(model)
    result: dict = {
        "kind": "real held-out",
        "judged": len(held_out),
        "zero-shot": _few_scores(before, held_out),
    }
    for n in (200, 500, 1000):
        for repeat in range(3):
            rows = rest[repeat * 1000 : repeat * 1000 + n]
            after = fine_tune(
                before, table[rows], seed=repeat, simulations=shards, heads=members, **FEW
            )
            result.setdefault(str(n), []).append(_few_scores(after, held_out))
    return result


def _few_scores(estimator: PropertyEstimator, table: QTable) -> dict:
    draws = predict(estimator, table, known=False)["redshift"].draws.value
    return redshift_scores(draws, table["redshift"].value)


def main() -> None:
    """Run one of the tasks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=("folds", "zero", "recalibration", "few"))
    parser.add_argument("folder", type=Path, help="folder of the real tables")
    parser.add_argument("--model", default="astrogenspec-properties-simulated")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--members", type=int, default=5, help="heads of the ensemble")
    parser.add_argument("--data", nargs="+", type=Path, default=[], help="simulated shards")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    if arguments.what == "folds":
        result = run_folds(
            arguments.folder,
            arguments.model,
            arguments.folds,
            arguments.data,
            arguments.out,
            arguments.members,
        )
    elif arguments.what == "zero":
        result = run_zero(arguments.folder, arguments.model)
    elif arguments.what == "recalibration":
        result = run_recalibration(arguments.folder, arguments.model)
    else:
        result = run_few(arguments.folder, arguments.model, arguments.data, arguments.members)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / f"anchoring_{arguments.what}.json").write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
