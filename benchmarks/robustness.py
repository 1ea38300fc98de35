"""Measure the effect of faults in the data reduction on redshifts and star-formation rates.

    python benchmarks/robustness.py [--model NAME] [--n 1500] --out results/properties

Simulated held-out images get a residual background, a broader point-spread function, a wrong pixel
scale, a calibration error in one band, or an underestimated noise.  The photometry is left
unchanged.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path

import _path  # noqa: F401
import numpy as np
from properties import OPTIONS, REDSHIFT, scores, simulate_held_out
from scipy.ndimage import affine_transform, gaussian_filter
from scores import redshift_scores_with_errors
from training_set import photometry_batch

from astrogenspec import PropertyEstimator
from astrogenspec.inputs.cutouts import CutoutBatch
from astrogenspec.surveys import BANDS


def scaled(image: np.ndarray, factor: float) -> np.ndarray:
    """Magnify an image about its centre, conserving the flux."""
    centre = (np.array(image.shape) - 1) / 2
    offset = centre * (1 - 1 / factor)
    larger = affine_transform(image, np.eye(2) / factor, offset, order=1, mode="nearest")
    return larger / factor**2


def degraded(cutouts: CutoutBatch) -> dict[str, CutoutBatch]:
    """Return the images with each kind of fault."""
    flux, ivar = cutouts.flux, cutouts.ivar

    def each(change) -> np.ndarray:
        return np.stack([[change(band) for band in galaxy] for galaxy in flux])

    sigma = np.where(ivar > 0, ivar, np.inf) ** -0.5
    sky = np.median(sigma, axis=(2, 3), keepdims=True)
    bright = np.ones(len(BANDS))
    bright[BANDS.index("i")] = 1.03
    images = {
        "as simulated": flux,
        "sky 0.1 sigma too high": flux + 0.1 * sky,
        "sky 0.3 sigma too high": flux + 0.3 * sky,
        "seeing broadened by 0.28 arcsec": each(lambda band: gaussian_filter(band, 0.7)),
        "pixel scale wrong by 6%": each(lambda band: scaled(band, 1.06)),
        "i 3% too bright": flux * bright[:, None, None],
    }
    batches = {name: CutoutBatch(image.astype(np.float32), ivar) for name, image in images.items()}
    return batches | {"noise stated 1.5 times too small": CutoutBatch(flux, 2.25 * ivar)}


def run(estimator: PropertyEstimator, n: int) -> dict:
    """Score image and photometry, and the image alone, for each kind of fault."""
    data = simulate_held_out(n)
    photometry = photometry_batch(data["flux"].astype(float), data["error"].astype(float))
    options = {"n_draws": 300, **OPTIONS}
    result: dict = {"kind": "simulated held-out, spoilt", "n": n}
    for name, cutouts in degraded(CutoutBatch(data["image"], data["ivar"])).items():
        found = {
            "both": estimator.predict(cutouts, photometry, **options),
            "image": estimator.predict(cutouts, ebv=0.0, measure=False, **options),
        }
        for mode, posterior in found.items():
            draws = posterior["redshift"].draws.value
            redshift = redshift_scores_with_errors(
                draws, data["theta"][:, REDSHIFT], np.isfinite(draws).all(axis=1)
            )
            rates = scores(posterior, data["theta"], data["measurable"] > 0)
            sfr = next(row for row in rates if row["quantity"] == "sfr")
            result[f"{mode}, {name}"] = {
                **{
                    key: redshift[key]
                    for key in (
                        "sigma_nmad",
                        "bias",
                        "coverage_68",
                        "coverage_95",
                        "crps_over_1+z",
                    )
                },
                "sfr_bias": sfr["bias"],
                "sfr_coverage_68": sfr["coverage_68"],
            }
    return result


def main() -> None:
    """Run the benchmark and write its results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="astrogenspec-properties")
    parser.add_argument("--n", type=int, default=1500)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    result = run(PropertyEstimator.from_pretrained(arguments.model), arguments.n)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "robustness.json").write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
