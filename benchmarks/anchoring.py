"""Anchor lane A on real galaxies, and measure by cross-validation what that brings.

    python benchmarks/anchoring.py table FOLDER runs/anchor.ecsv
    python benchmarks/anchoring.py folds FOLDER [--folds 5] [--model NAME] --data SHARDS --out results/benchmarks
    python benchmarks/anchoring.py zero FOLDER [--model NAME] --out results/simulated
    python benchmarks/anchoring.py recalibration FOLDER [--model NAME] --out results/simulated
    python benchmarks/anchoring.py few FOLDER [--model NAME] --data SHARDS --out results/simulated

``table`` makes the table for ``astrogenspec train properties --anchor``.  FOLDER holds ``sdss_photometry.fits``,
``sdss_lines.fits``, ``sdss_masses.fits`` and ``sdss_images.fits``.  The 24 galaxies of the demonstration and those of the image
table are left out everywhere.  In ``folds`` every galaxy is judged by an estimator that never saw it; peers see the same rows.
The fit to images that the bundled weights had afterwards (`real_images.py`) changes nothing of what photometry says.
SHARDS are simulated galaxies to rehearse.  The fitted networks are kept in ``folds`` beside the results: remove them to begin
anew.  Peers are in `peers.py`. "With structure" means Petrosian fluxes (redshifts) or radii and axis ratio (lines) beside the
magnitudes.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from anchoring_tables import anchor_table, inputs_of, mass_offset, photometry_rows
from astropy.table import QTable
from peers import flow_medians, label_medians, redshift_medians
from real_images import opened
from scores import label_rmse, label_scores, paired_difference, redshift_scores

from astrogenspec import Posterior, PropertyEstimator
from astrogenspec.calibration.recalibration import Recalibration, cross_fitted
from astrogenspec.metrics import redshift_metrics
from astrogenspec.quantities import QUANTITIES

SEED = 5
SUBSETS = ("ugriz", "griz", "gri", "ugr", "gr", "r")
#: Parts of the anchor table without redshifts to be found: labels of nearby galaxies.
SOURCES = ("lines", "masses")
#: What is judged at known redshift: networks that were fitted, and the one before, without and with sizes.
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


def fit(
    estimator: PropertyEstimator, table: QTable, seed: int = SEED, **settings
) -> PropertyEstimator:
    """Fit to all labels of a table."""
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
    structure: bool = False,
):
    """Draw 500 times; with ``known`` given the redshift."""
    options = {"known": {"redshift": table["known_redshift"]}} if known else {}
    return estimator.predict(
        photometry=inputs_of(table, subset, structure=structure),
        n_draws=500,
        seed=0,
        on_error="flag",
        progress=False,
        calibrated=False,
        **options,
    )


def fold_numbers(n: int, n_folds: int) -> np.ndarray:
    """Say in which fold each row of the anchor table is judged."""
    return np.random.default_rng(SEED).permutation(n) % n_folds


def fitted_fold(
    out: Path,
    k: int,
    before: PropertyEstimator,
    training: QTable,
    shards: list[Path],
    members: int,
) -> PropertyEstimator:
    """Fit without one fold, or open what an interrupted run has fitted."""
    path = out / f"fold-{k}.safetensors"
    if not path.exists():
        out.mkdir(parents=True, exist_ok=True)
        fit(before, training, seed=SEED + k, rehearsal=shards, members=members).save(path)
    return PropertyEstimator.load(path)


@dataclass
class CrossValidation:
    """What is said of the galaxies of every fold by networks, and by peers, that never saw them.

    Attributes
    ----------
    table : QTable
        The anchor table.
    fold : array, shape (n,)
        In which each galaxy is judged.
    redshifts : dict of str to array, shape (n, 500)
        Draws of redshift by what was asked; NaN where it is not known, here and in what peers say.
    unseen : list of Posterior
        Of those with redshift, fold by fold.
    known_redshift : dict of str to list of (rows, draws)
        Of those whose redshift was told.
    peers, boosted : dict of str to array, shape (n,)
        Redshifts and other labels that peers found.
    """

    table: QTable
    fold: np.ndarray
    redshifts: dict[str, np.ndarray] = field(default_factory=dict)
    unseen: list[Posterior] = field(default_factory=list)
    known_redshift: dict[str, list] = field(default_factory=dict)
    peers: dict[str, np.ndarray] = field(default_factory=dict)
    boosted: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def of_redshift(self) -> np.ndarray:
        """Which galaxies have a redshift to be found."""
        return np.isfinite(self.table["redshift"].value)

    def _set(self, found: dict[str, np.ndarray], name: str, rows: np.ndarray, values) -> None:
        empty = np.full((len(self.table), *np.shape(values)[1:]), np.nan, np.float32)
        found.setdefault(name, empty)[rows] = values

    def judge(self, k: int, before: PropertyEstimator, after: PropertyEstimator) -> None:
        """Ask a network that was fitted to the other folds, and the one that was fitted to none."""
        judged = np.flatnonzero(self.fold == k)
        to_be_found = self.of_redshift[judged]
        rows, others = judged[to_be_found], judged[~to_be_found]
        runs = [(subset, after, subset) for subset in SUBSETS]
        runs += [(f"zero-shot{sizes}", before, "ugriz") for sizes in ("", " with structure")]
        runs.append(("ugriz with structure", after, "ugriz"))
        for name, estimator, subset in runs:
            found = predict(
                estimator, self.table[rows], subset, known=False, structure="structure" in name
            )
            self._set(self.redshifts, name, rows, found["redshift"].draws.value)
            if name == "ugriz":
                self.unseen.append(found)
        for name in KNOWN_REDSHIFT:
            estimator = after if "anchored" in name else before
            found = predict(
                estimator, self.table[others], known=True, structure="structure" in name
            )
            self.known_redshift.setdefault(name, []).append((others, found))

    def ask_peers(self, k: int) -> None:
        """Let peers learn and answer the same."""
        training, judged = self.table[self.fold != k], np.flatnonzero(self.fold == k)
        rows = judged[self.of_redshift[judged]]
        labelled = training[np.isfinite(training["redshift"].value)]
        for name in ("ugriz", "ugriz with structure", "gri"):
            found = redshift_medians(labelled, self.table[rows], name)
            if "structure" in name:
                found["flows"] = flow_medians(labelled, self.table[rows])
            for peer, values in found.items():
                self._set(self.peers, f"{peer}, {name}", rows, values)
        for source in SOURCES:
            asked = judged[self.table["source"][judged] == source]
            found = label_medians(training[training["source"] == source], self.table[asked])
            for name, values in found.items():
                self._set(self.boosted, name, asked, values)

    def redshift_results(self) -> dict:
        """Score redshifts, recalibrate those from all bands, and compare with peers."""
        rows = self.of_redshift
        true = self.table["redshift"].value[rows]
        scores = {name: redshift_scores(d[rows], true) for name, d in self.redshifts.items()}
        folds = range(len(self.unseen))
        order = np.concatenate([np.flatnonzero((self.fold == k) & rows) for k in folds])
        unseen = Posterior.concatenate(self.unseen)
        known = {"redshift": self.table["redshift"][order]}
        corrected = cross_fitted(unseen, known, seed=SEED)["redshift"].draws.value
        scores["ugriz, recalibrated (cross-fitted)"] = redshift_scores(
            corrected, known["redshift"].value
        )
        peers = {name: values[rows] for name, values in self.peers.items()}
        return {
            "redshift": scores,
            "recalibration": Recalibration.fit(unseen, known, seed=SEED).to_dict(),
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
        """Score the other labels, at known redshift."""
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
    """Cross-validate on every table."""
    table = anchor_table(folder)
    found = CrossValidation(table, fold_numbers(len(table), n_folds))
    before = opened(model)
    start = time.perf_counter()
    for k in range(n_folds):
        training = table[found.fold != k]
        after = fitted_fold(out / "folds", k, before, training, shards, members)
        found.judge(k, before, after)
        found.ask_peers(k)
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
    """Score what weights that saw no real galaxy say of the labels, at known redshift."""
    table = anchor_table(folder)
    table = table[~np.isfinite(table["redshift"].value)]
    before = opened(model)
    result: dict = {"kind": "real; no real galaxy was used to train the network"}
    for name in ("zero-shot", "zero-shot, with structure"):
        posterior = predict(before, table, known=True, structure="structure" in name)
        for source in SOURCES:
            chosen = table["source"] == source
            result[f"{source}, {name}"] = label_scores(posterior[chosen], table[chosen])
    return result


def run_recalibration(folder: Path, model: str) -> dict:
    """Redshifts from photometry without recalibration and with one that is cross-fitted; and that of all galaxies."""
    table = photometry_rows(folder)
    known = {"redshift": table["redshift"]}
    posterior = predict(opened(model), table, known=False)
    corrected = cross_fitted(posterior, known, seed=SEED)
    result: dict = {"kind": "real; recalibrated by other galaxies", "rows": len(table)}
    for name, found in (("as trained", posterior), ("recalibrated (cross-fitted)", corrected)):
        result[name] = redshift_scores(found["redshift"].draws.value, known["redshift"].value)
    result["recalibration"] = Recalibration.fit(posterior, known, seed=SEED).to_dict()
    return result


def run_few(folder: Path, model: str, shards: list[Path], members: int) -> dict:
    """Redshifts after a fit to 200, 500 or 1000 real galaxies; judged on 2,000 others."""
    table = photometry_rows(folder)
    order = np.random.default_rng(SEED).permutation(len(table))
    judged, rest = table[order[:2000]], order[2000:]
    before = opened(model)
    result: dict = {
        "kind": "real held-out",
        "judged": len(judged),
        "zero-shot": _few_scores(before, judged),
    }
    for n in (200, 500, 1000):
        for repeat in range(3):
            rows = rest[repeat * 1000 : repeat * 1000 + n]
            after = fit(before, table[rows], seed=repeat, rehearsal=shards, members=members, **FEW)
            result.setdefault(str(n), []).append(_few_scores(after, judged))
    return result


def _few_scores(estimator: PropertyEstimator, table: QTable) -> dict:
    draws = predict(estimator, table, known=False)["redshift"].draws.value
    return redshift_scores(draws, table["redshift"].value)


def main() -> None:
    """Run one of the tasks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=("table", "folds", "zero", "recalibration", "few"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("target", nargs="?", type=Path, help="table to write")
    parser.add_argument("--model", default="astrogenspec-properties-simulated")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--members", type=int, default=5, help="of an ensemble")
    parser.add_argument(
        "--data", nargs="+", type=Path, default=[], help="simulated shards to rehearse"
    )
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    if arguments.what == "table":
        table = anchor_table(arguments.folder)
        table.write(arguments.target, overwrite=True)
        print(len(table), "rows in", arguments.target)
        return
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
