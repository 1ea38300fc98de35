"""Measure redshifts and masses of real galaxies of several surveys, with weights for any filters.

    python benchmarks/surveys.py FOLDER [--rows NAME ...] [--model NAME] [--fit] --out OUT

Each row is a table of FOLDER with the photometry of some filters (`survey_tables.py`).  Redshifts
are inferred as they are, and with ``--fit`` by an estimator that was fine-tuned on a random half of
the galaxies and scored on the other half, beside a nearest-neighbour regression and a mixture
density network that were trained on the same half.  With ``--zero-points``, offsets of the bands
are estimated on the first half, and the other half is scored with the correction.  Galaxies beyond
``--max-redshift`` are left out.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import _path  # noqa: F401
import astropy.units as u
import numpy as np
from peers import colours_of, density_network_draws, neighbour_draws
from scores import known_label_scores, paired_draws_difference, redshift_scores_with_errors
from survey_tables import SAMPLES, Sample

from astrogenspec import PropertyEstimator
from astrogenspec.inputs.virtual_photometry import virtual_photometry

#: Rows of the same galaxies whose difference is listed: with more bands, and with fewer.
PAIRS = (
    ("ptf-ps1y", "ptf-ps1"),
    ("ptf-both", "ptf-ps1"),
    ("ptf-both", "ptf-sdss"),
    ("ptf-galex", "ptf-both"),
    ("ptf-2mass", "ptf-both"),
    ("ptf-all", "ptf-both"),
    ("zcosmos", "zcosmos-optical"),
    ("deep", "deep-ugriz"),
    ("sdss-2mass", "sdss"),
    ("sdss-galex", "sdss"),
    ("boss", "boss-griz"),
    ("boss-reddened", "boss"),
)
LABELS = ("stellar_mass", "sfr")
_COLUMNS = {
    "n": "{:.0f}",
    "sigma_nmad": "{:.4f}",
    "median_bias": "{:+.4f}",
    "outlier_fraction": "{:.3f}",
    "outliers_15": "{:.3f}",
    "coverage_68": "{:.3f}",
    "coverage_95": "{:.3f}",
    "crps_over_1+z": "{:.5f}",
}


def redshift_draws(estimator: PropertyEstimator, sample: Sample, n_draws: int) -> np.ndarray:
    """Draw redshifts of the galaxies of a sample."""
    found = estimator.predict(
        photometry=sample.photometry, n_draws=n_draws, seed=0, on_error="flag", progress=False
    )
    return found["redshift"].draws.value


def scores(draws: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Return the scores of redshifts with the fraction of catastrophic outliers."""
    usable = np.isfinite(draws).all(axis=1)
    error = (np.median(draws[usable], axis=1) - true[usable]) / (1 + true[usable])
    return {
        **redshift_scores_with_errors(draws, true, usable),
        "outliers_15": float(np.mean(np.abs(error) > 0.15)),
    }


def label_results(estimator: PropertyEstimator, sample: Sample, n_draws: int) -> dict:
    """Score masses and star-formation rates, with the redshift given and inferred."""
    results: dict[str, dict] = {}
    for name, known in (
        ("redshift known", {"redshift": sample.redshift * u.one}),
        ("redshift inferred", None),
    ):
        found = estimator.predict(
            photometry=sample.photometry,
            known=known,
            n_draws=n_draws,
            seed=0,
            on_error="flag",
            progress=False,
        )
        for label in LABELS:
            draws = np.asarray(found[label].draws.value, dtype=float)
            true = np.where(np.isfinite(draws).all(axis=1), sample.labels[label], np.nan)
            if np.isfinite(true).sum() >= 20:
                results.setdefault(label, {})[name] = known_label_scores(draws, true)
    return results


def band_offsets(estimator: PropertyEstimator, sample: Sample) -> dict[str, list[float]]:
    """Return median and robust scatter (mag) of each band minus that expected from the others."""
    photometry, result = sample.photometry, {}
    for k, each in enumerate(photometry.filters):
        others = [other for other in photometry.filters if other != each]
        rest = photometry.with_filters(others)
        expected = virtual_photometry(rest, [each], estimator.network.components)
        with np.errstate(invalid="ignore", divide="ignore"):
            offset = -2.5 * np.log10(photometry.flux[:, k] / expected.flux[:, 0])
        offset = offset[np.isfinite(offset)]
        if len(offset):
            middle = np.median(offset)
            scatter = 1.4826 * np.median(np.abs(offset - middle))
            result[each.name] = [round(float(middle), 4), round(float(scatter), 4)]
    return result


def fit_settings(n: int) -> dict[str, Any]:
    """Return the settings of `PropertyEstimator.fit` for n galaxies."""
    few = n < 600
    return {
        "epochs": 40 if few else 30,
        "batch_size": 32 if few else 64,
        "learning_rate": 1e-3,
        "validation_fraction": 0.2 if few else 0.1,
        "patience": 8,
    }


def halves(sample: Sample, seed: int) -> tuple[Sample, Sample]:
    """Divide a sample at random."""
    order = np.random.default_rng(seed).permutation(len(sample))
    return sample[order[::2]], sample[order[1::2]]


def zero_point_results(
    estimator: PropertyEstimator, sample: Sample, n_draws: int, seed: int
) -> dict:
    """Estimate zero points on a half, and score the other half with and without them."""
    train, test = halves(sample, seed)
    found = estimator.estimate_zero_points(train.photometry, train.redshift, on_error="flag")
    corrected = replace(test, photometry=test.photometry.with_zero_points(found["offset"]))
    before = redshift_draws(estimator, test, n_draws)
    after = redshift_draws(estimator, corrected, n_draws)
    usable = np.isfinite(before).all(axis=1) & np.isfinite(after).all(axis=1)
    return {
        "offsets": {
            row["filter"]: [
                round(float(row[key].to_value(u.mag)), 4) for key in ("offset", "error")
            ]
            for row in found
        },
        "scores": {
            "as given": scores(before[usable], test.redshift[usable]),
            "zero points": scores(after[usable], test.redshift[usable]),
        },
        "corrected minus given": paired_draws_difference(
            after[usable], before[usable], test.redshift[usable]
        ),
    }


def fit_results(
    estimator: PropertyEstimator, sample: Sample, n_draws: int, seed: int, heads: int
) -> dict:
    """Fine-tune on a half, and score the other half beside the other methods."""
    train, test = halves(sample, seed)
    fitted = estimator.fit(
        photometry=train.photometry,
        labels={"redshift": train.redshift * u.one},
        heads=heads,
        seed=seed,
        on_error="flag",
        progress=False,
        **fit_settings(len(train)),
    )
    features = [colours_of(part.photometry, train.photometry) for part in (train, test)]
    draws = {
        "simulations": redshift_draws(estimator, test, n_draws),
        "fit": redshift_draws(fitted, test, n_draws),
        "nearest neighbours": neighbour_draws(features[0], train.redshift, features[1]),
        "mixture density network": density_network_draws(
            features[0], train.redshift, features[1], n_draws=n_draws, seed=seed
        ),
    }
    usable = np.isfinite(draws["fit"]).all(axis=1) & np.isfinite(draws["simulations"]).all(axis=1)
    true = test.redshift[usable]
    draws = {name: values[usable] for name, values in draws.items()}
    return {
        "scores": {name: scores(values, true) for name, values in draws.items()},
        "fit minus": {
            name: paired_draws_difference(draws["fit"], values, true)
            for name, values in draws.items()
            if name != "fit"
        },
    }


def run_row(
    estimator: PropertyEstimator, sample: Sample, options: argparse.Namespace
) -> tuple[dict, np.ndarray]:
    """Measure one row; also return the draws of the redshifts."""
    draws = redshift_draws(estimator, sample, options.n_draws)
    result: dict[str, Any] = {
        "filters": [each.name for each in sample.photometry.filters],
        "note": sample.note,
        "n_used": len(sample),
        "simulations": scores(draws, sample.redshift),
        "band_offsets": band_offsets(estimator, sample),
    }
    if sample.labels:
        result["labels"] = label_results(estimator, sample, options.n_draws)
    if options.zero_points:
        result["zero_points"] = zero_point_results(estimator, sample, options.n_draws, options.seed)
    if options.fit:
        result["half"] = fit_results(
            estimator, sample, options.n_draws, options.seed, options.heads
        )
    return result, draws


def compare_pairs(found: dict[str, tuple[Sample, np.ndarray]]) -> dict[str, dict]:
    """Compare rows of the same galaxies, which have the same names."""
    result = {}
    for more, fewer in PAIRS:
        if more not in found or fewer not in found:
            continue
        (first, one), (second, two) = found[more], found[fewer]
        _, left, right = np.intersect1d(
            first.photometry.names, second.photometry.names, return_indices=True
        )
        usable = np.isfinite(one[left]).all(axis=1) & np.isfinite(two[right]).all(axis=1)
        left, right = left[usable], right[usable]
        result[f"{more} - {fewer}"] = {
            "n": len(left),
            **paired_draws_difference(one[left], two[right], first.redshift[left]),
        }
    return result


def print_table(results: dict[str, dict]) -> None:
    """Print the scores of all rows."""
    print(f"{'row':44s}" + " ".join(f"{name[:11]:>11s}" for name in _COLUMNS))
    for row, result in results.items():
        lines = {row: result["simulations"]}
        for key in ("zero_points", "half"):
            for name, values in result.get(key, {}).get("scores", {}).items():
                lines[f"  half: {name}"] = values
        for name, values in lines.items():
            shown = (form.format(values[key]) for key, form in _COLUMNS.items())
            print(f"{name:44s}" + " ".join(f"{text:>11s}" for text in shown))


def main() -> None:
    """Run the benchmark and write its results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="folder of the tables")
    parser.add_argument("--rows", nargs="+", choices=list(SAMPLES), default=list(SAMPLES))
    parser.add_argument("--model", default="astrogenspec-properties-simulated")
    parser.add_argument("--fit", action="store_true", help="fine-tune on a half as well")
    parser.add_argument("--zero-points", action="store_true", help="estimate zero points as well")
    parser.add_argument("--heads", type=int, default=1, help="heads of the fine-tuned network")
    parser.add_argument("--max-redshift", type=float, default=0.33)
    parser.add_argument("--max-galaxies", type=int, default=2000)
    parser.add_argument("--n-draws", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    path = Path(options.model)
    estimator = (
        PropertyEstimator.load(path)
        if path.suffix == ".safetensors"
        else PropertyEstimator.from_pretrained(options.model)
    )
    results: dict[str, dict] = {}
    found: dict[str, tuple[Sample, np.ndarray]] = {}
    for row in options.rows:
        start = time.perf_counter()
        sample = SAMPLES[row](options.folder)
        sample = sample[np.flatnonzero(sample.redshift < options.max_redshift)]
        rng = np.random.default_rng(options.seed)
        if len(sample) > options.max_galaxies:
            names = np.unique(sample.photometry.names)
            chosen = rng.choice(names, options.max_galaxies, replace=False)
            sample = sample[np.flatnonzero(np.isin(sample.photometry.names, chosen))]
        results[row], draws = run_row(estimator, sample, options)
        results[row]["seconds"] = round(time.perf_counter() - start, 1)
        found[row] = sample, draws
        print_table({row: results[row]})
    pairs = compare_pairs(found)
    output = {
        "kind": "real",
        "model": str(options.model),
        "max_redshift": options.max_redshift,
        "seed": options.seed,
        "rows": results,
        "pairs": pairs,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "surveys.json").write_text(json.dumps(output, indent=1))
    print_table(results)
    print(json.dumps(pairs, indent=1))


if __name__ == "__main__":
    main()
