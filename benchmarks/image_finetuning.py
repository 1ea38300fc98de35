"""Measure by cross-validation what fine-tuning on real images changes.

    python benchmarks/image_finetuning.py FOLDER --data SHARDS --out results/properties

FOLDER holds ``sdss_images.npz``, ``sdss_images.fits`` and, for the Galactic extinction,
``sdss_photometry.fits``; SHARDS are simulated galaxies for the teacher samples.  Weights that were
fine-tuned on real photometry (``--model``) are fine-tuned on four fifths of the images, five times,
and each galaxy is scored by the estimator whose training did not include it.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path

import _path  # noqa: F401
import numpy as np
from real_images import SEED, RealImages, fine_tune
from scores import known_label_scores, redshift_scores_with_errors

from astrogenspec import Posterior, PropertyEstimator


def posteriors(estimator: PropertyEstimator, images: RealImages) -> dict[str, Posterior]:
    """Infer from image and photometry, each alone, and the image with photometry measured on it."""
    options = {
        "n_draws": 1000,
        "seed": 0,
        "on_error": "flag",
        "progress": False,
        "calibrated": False,
    }
    return {
        "both": estimator.predict(images.cutouts, images.photometry, **options),
        "photometry": estimator.predict(photometry=images.photometry, **options),
        "image": estimator.predict(images.cutouts, ebv=images.ebv, measure=False, **options),
        "image, measured": estimator.predict(images.cutouts, ebv=images.ebv, **options),
    }


def run_folds(before: PropertyEstimator, images: RealImages, shards: list[Path]) -> dict:
    """Score redshifts, masses and SFRs before and after fine-tuning, by cross-validation."""
    fold = np.random.default_rng(SEED).permutation(len(images)) % 5
    order = np.argsort(fold, kind="stable")
    parts: dict[str, list[Posterior]] = {}
    for k in range(5):
        after = fine_tune(before, images[fold != k], shards, SEED + k)
        for mode, found in posteriors(after, images[fold == k]).items():
            parts.setdefault(mode, []).append(found)
    result: dict = {
        "kind": "real (approximate cutouts), cross-validated",
        "n": len(images),
        "folds": 5,
    }
    old = posteriors(before, images[order])
    new = {mode: Posterior.concatenate(found) for mode, found in parts.items()}
    labels = images.labels[order]
    for name, of_mode in (("before", old), ("after", new)):
        for mode, posterior in of_mode.items():
            draws = posterior["redshift"].draws.value
            everyone = np.ones(len(images), bool)
            result[f"{mode}, {name}"] = redshift_scores_with_errors(
                draws, labels["redshift"].value, everyone
            )
            result[f"{mode}, {name}"] |= {
                quantity: known_label_scores(
                    posterior[quantity].draws.value, labels[quantity].value
                )
                for quantity in ("stellar_mass", "sfr")
            }
    return result


def main() -> None:
    """Run the benchmark and write its results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="folder of the real images")
    parser.add_argument("--model", default="runs/finetuned/properties.safetensors")
    parser.add_argument("--data", nargs="+", type=Path, default=[], help="simulated shards")
    parser.add_argument("--out", type=Path, default=Path("results/properties"))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    before = PropertyEstimator.from_pretrained(arguments.model)
    result = run_folds(before, RealImages.read(arguments.folder), arguments.data)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "images_folds.json").write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
