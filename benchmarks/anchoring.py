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
from pathlib import Path

import astropy.units as u
import numpy as np
from anchoring_tables import anchor_table, inputs_of, mass_offset, photometry_rows
from astropy.table import QTable
from peers import flow_medians, label_medians, redshift_medians
from real_images import opened

from astrogenspec import Posterior, PropertyEstimator
from astrogenspec.calibration import central_coverage, pit, uniformity_test
from astrogenspec.calibration.recalibration import Recalibration, cross_fitted
from astrogenspec.metrics import crps, redshift_metrics
from astrogenspec.quantities import QUANTITIES

SEED = 5
SUBSETS = ("ugriz", "griz", "gri", "ugr", "gr", "r")
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


def redshift_scores(draws: np.ndarray, true: np.ndarray) -> dict:
    """Point scores of the median, CRPS, coverage, PIT overall and by fifths of the median."""
    median = np.median(draws, axis=1)
    ranks = pit(draws * u.one, true * u.one, seed=0)
    edges = np.quantile(median, [0.2, 0.4, 0.6, 0.8])
    fifth = np.digitize(median, edges)
    coverage = central_coverage(draws * u.one, true * u.one, levels=(0.68, 0.95))
    return {
        **{k: float(v) for k, v in redshift_metrics(median, true).items()},
        "crps_over_1+z": float(np.mean(np.asarray(crps(draws, true)) / (1 + true))),
        "coverage_68": float(coverage[0]),
        "coverage_95": float(coverage[1]),
        "pit_ks": float(uniformity_test(ranks)[0]),
        "pit_ks_fifths": [float(uniformity_test(ranks[fifth == k])[0]) for k in range(5)],
    }


def label_scores(posterior, table: QTable) -> dict:
    """RMSE, bias and coverage of every labelled quantity but the redshift, in dex."""
    scores = {}
    for name in list(QUANTITIES)[1:]:
        true, draws = table[name].value, posterior[name].draws.value
        if QUANTITIES[name].logarithmic:
            true, draws = np.log10(true), np.log10(draws)
        rows = np.isfinite(true) & np.isfinite(draws).all(axis=1)
        if rows.sum() < 50:
            continue
        true, draws = true[rows], draws[rows]
        error = np.median(draws, axis=1) - true
        low, high = np.percentile(draws, [16, 84], axis=1)
        lower, upper = np.percentile(draws, [2.5, 97.5], axis=1)
        scores[name] = {
            "n": int(rows.sum()),
            "rmse": float(np.sqrt(np.mean(error**2))),
            "rmse_without_bias": float(error.std()),
            "bias": float(error.mean()),
            "coverage_68": float(np.mean((true > low) & (true < high))),
            "coverage_95": float(np.mean((true > lower) & (true < upper))),
        }
    return scores


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


def run_folds(
    folder: Path, model: str, n_folds: int, shards: list[Path], out: Path, members: int
) -> dict:
    """Cross-validate on every table."""
    table = anchor_table(folder)
    fold = fold_numbers(len(table), n_folds)
    before = opened(model)
    redshifts = {
        name: np.full((len(table), 500), np.nan, np.float32)
        for name in (*SUBSETS, "ugriz with structure", "zero-shot", "zero-shot with structure")
    }
    peers: dict[str, np.ndarray] = {}
    unseen: list[Posterior] = []
    known_redshift: dict[str, list] = {name: [] for name in KNOWN_REDSHIFT}
    boosted = {name: np.full(len(table), np.nan) for name in list(QUANTITIES)[1:]}
    of_redshift = np.isfinite(table["redshift"].value)
    start = time.perf_counter()
    for k in range(n_folds):
        training, judged = table[fold != k], np.flatnonzero(fold == k)
        after = fitted_fold(out / "folds", k, before, training, shards, members)
        rows, others = judged[of_redshift[judged]], judged[~of_redshift[judged]]
        runs = [(subset, after, subset) for subset in SUBSETS]
        runs += [(f"zero-shot{sizes}", before, "ugriz") for sizes in ("", " with structure")]
        runs.append(("ugriz with structure", after, "ugriz"))
        for name, estimator, subset in runs:
            found = predict(
                estimator, table[rows], subset, known=False, structure="structure" in name
            )
            redshifts[name][rows] = found["redshift"].draws.value
            if name == "ugriz":
                unseen.append(found)
        for name, scores in known_redshift.items():
            estimator = after if "anchored" in name else before
            found = predict(estimator, table[others], known=True, structure="structure" in name)
            scores.append((others, {n: found[n].draws for n in QUANTITIES}))
        labelled = training[np.isfinite(training["redshift"].value)]
        for name in ("ugriz", "ugriz with structure", "gri"):
            found = redshift_medians(labelled, table[rows], name)
            if "structure" in name:
                found["flows"] = flow_medians(labelled, table[rows])
            for peer, values in found.items():
                peers.setdefault(f"{peer}, {name}", np.full(len(table), np.nan))[rows] = values
        for source in ("lines", "masses"):
            of_source = table["source"] == source
            found = label_medians(table[(fold != k) & of_source], table[(fold == k) & of_source])
            for name, values in found.items():
                boosted[name][(fold == k) & of_source] = values
        print(f"fold {k}: {time.perf_counter() - start:.0f} s", after.fit_report()[:3], flush=True)
    true = table["redshift"].value[of_redshift]
    result: dict = {
        "kind": "real, cross-validated",
        "folds": n_folds,
        "rows": len(table),
        "mass_offset": mass_offset(folder),
    }
    result["redshift"] = {
        name: redshift_scores(d[of_redshift], true) for name, d in redshifts.items()
    }
    order = np.concatenate([np.flatnonzero((fold == k) & of_redshift) for k in range(n_folds)])
    all_unseen = Posterior.concatenate(unseen)
    known = {"redshift": table["redshift"][order]}
    corrected = cross_fitted(all_unseen, known, seed=SEED)["redshift"].draws.value
    result["redshift"]["ugriz, recalibrated (cross-fitted)"] = redshift_scores(
        corrected, known["redshift"].value
    )
    result["recalibration"] = Recalibration.fit(all_unseen, known, seed=SEED).to_dict()
    result["peers"] = {
        name: {k: float(v) for k, v in redshift_metrics(values[of_redshift], true).items()}
        for name, values in peers.items()
    }
    result["against_peers"] = {
        name: _paired(
            np.median(redshifts[name.split(", ")[1]][of_redshift], axis=1),
            values[of_redshift],
            true,
        )
        for name, values in peers.items()
    }
    for key, scores in known_redshift.items():
        order = np.concatenate([rows for rows, _ in scores])
        draws = {
            n: np.concatenate([d[n].value for _, d in scores]) * d[n].unit
            for n in QUANTITIES
            for _, d in scores[:1]
        }
        for source in ("lines", "masses"):
            chosen = table["source"][order] == source
            posterior = _Draws({n: values[chosen] for n, values in draws.items()})
            result[f"{source}, {key}"] = label_scores(posterior, table[order][chosen])
    for source in ("lines", "masses"):
        result[f"{source}, gradient boosting"] = _rmse(boosted, table, table["source"] == source)
    return result


def _rmse(medians: dict[str, np.ndarray], table: QTable, chosen: np.ndarray) -> dict:
    """Root mean square error of a peer, in dex."""
    scores = {}
    for name, values in medians.items():
        true = table[name].value
        error = (values - (np.log10(true) if QUANTITIES[name].logarithmic else true))[chosen]
        error = error[np.isfinite(error)]
        if len(error) >= 50:
            scores[name] = {"n": len(error), "rmse": float(np.sqrt(np.mean(error**2)))}
    return scores


class _Draws(dict):
    """Draws by name, as a posterior hands them out."""

    def __getitem__(self, name: str):
        values = super().__getitem__(name)
        return type("Summary", (), {"draws": values})


def _paired(ours: np.ndarray, theirs: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Difference of sigma_NMAD, ours minus theirs, by paired bootstrap."""
    rng = np.random.default_rng(0)
    errors = [(z - true) / (1 + true) for z in (ours, theirs)]

    def nmad(e: np.ndarray) -> float:
        return 1.4826 * np.median(np.abs(e - np.median(e)))

    differences = []
    for _ in range(500):
        rows = rng.integers(len(true), size=len(true))
        differences.append(nmad(errors[0][rows]) - nmad(errors[1][rows]))
    low, high = np.percentile(differences, [2.5, 97.5])
    return {"difference": nmad(errors[0]) - nmad(errors[1]), "low": float(low), "high": float(high)}


def run_zero(folder: Path, model: str) -> dict:
    """Score what weights that saw no real galaxy say of the labels, at known redshift."""
    table = anchor_table(folder)
    table = table[~np.isfinite(table["redshift"].value)]
    before = opened(model)
    result: dict = {"kind": "real; no real galaxy was used to train the network"}
    for name in ("zero-shot", "zero-shot, with structure"):
        posterior = predict(before, table, known=True, structure="structure" in name)
        for source in ("lines", "masses"):
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
