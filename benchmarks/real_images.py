"""Continue lane A on real images, and measure by cross-validation what that brings.

    python benchmarks/real_images.py fit FOLDER --data SHARDS --out runs/anchored-images
    python benchmarks/real_images.py folds FOLDER --data SHARDS --out results/properties

FOLDER holds ``sdss_images.npz``, ``sdss_images.fits`` and, for the Galactic extinction, ``sdss_photometry.fits``.  ``fit`` takes
weights that were fitted to real photometry (``--model``) on to all images; ``folds`` does the same without a fifth of the
galaxies, five times, and judges each galaxy by an estimator that never saw it.  SHARDS are simulated galaxies to rehearse.
"""

from __future__ import annotations

import argparse
import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import QTable, Table

from astrogenspec import Posterior, PropertyEstimator
from astrogenspec.calibration import central_coverage
from astrogenspec.inputs.cutouts import CutoutBatch
from astrogenspec.inputs.photometry import PhotometryBatch
from astrogenspec.metrics import bootstrap_errors, crps, redshift_metrics
from astrogenspec.quantities import QUANTITIES
from astrogenspec.surveys import BANDS, SDSS

SEED = 5
#: What photometry alone says stays as many more galaxies taught it; no early stopping by the few that are held out.
FIT = {
    "epochs": 100,
    "learning_rate": 1e-3,
    "validation_fraction": 0.1,
    "patience": None,
    "images_alone": True,
    "progress": False,
}
#: Sky noise of the survey and of the cutouts in g, r, i (nmgy per pixel): what lies between is added.
_SKY_NOISE, _NOISE = (0.017, 0.028, 0.041), (0.004, 0.006, 0.008)
_RELATIVE_ERROR = 0.03


@dataclass
class RealImages:
    """The gri cutouts of real galaxies, their magnitudes, and what is known of them.

    Attributes
    ----------
    cutouts : CutoutBatch
    photometry : PhotometryBatch
        In u, g, r, i, where known.
    labels : QTable
        Redshift of all, mass and star-formation rate of those that GSWLC has; of other catalogues' values there are few.
    """

    cutouts: CutoutBatch
    photometry: PhotometryBatch
    labels: QTable

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: np.ndarray) -> RealImages:
        """Select galaxies."""
        return RealImages(self.cutouts[rows], self.photometry[rows], self.labels[rows])

    @property
    def redshift(self) -> np.ndarray:
        """Spectroscopic redshifts."""
        return self.labels["redshift"].value

    @property
    def ebv(self) -> np.ndarray:
        """Galactic E(B-V) (mag)."""
        return self.photometry.extinction[:, 2] / SDSS.extinction_coefficient["r"]

    def without_extinction(self) -> RealImages:
        """Give the same galaxies as if there were no dust in front of them."""
        batch = self.photometry
        bare = _photometry(batch.flux, batch.error, np.zeros_like(batch.flux))
        return RealImages(self.cutouts, bare, self.labels)

    @classmethod
    def read(cls, folder: Path) -> RealImages:
        """Read the tables; the missing sky noise is added to the images."""
        data, table = np.load(folder / "sdss_images.npz"), Table.read(folder / "sdss_images.fits")
        n = len(table)
        column = lambda name: np.ma.filled(np.ma.asarray(table[name], dtype=float), np.nan)  # noqa: E731
        flux, ivar = np.zeros((2, n, len(BANDS), 64, 64), np.float32)
        missing = np.sqrt(np.square(_SKY_NOISE) - np.square(_NOISE))
        noise = np.random.default_rng(0).normal(size=data["flux"].shape) * missing[:, None, None]
        flux[:, 1:4] = data["flux"] + noise
        ivar[:, 1:4] = data["ivar"]
        names = ("mag_u", "mag_g", "mag_r", "mag_i", "mag_i")
        magnitude = np.stack([column(name) for name in names], axis=1)
        magnitude[:, 3] = np.where(
            np.isfinite(magnitude[:, 3]), magnitude[:, 3], column("mag_i_img")
        )
        magnitude[:, 4] = np.nan
        total = 10 ** (0.4 * (22.5 - magnitude))
        photometry = _photometry(
            total, _RELATIVE_ERROR * total, neighbours_extinction(table, folder)
        )
        labels = QTable({"redshift": column("z") * u.one})
        for name, source in (("stellar_mass", "logMstar"), ("sfr", "logSFR")):
            of_gswlc = np.asarray(table[f"{source}_source"]).astype(str) == "GSWLC"
            labels[name] = np.where(of_gswlc, column(source), np.nan) * QUANTITIES[name].unit
        return cls(CutoutBatch(flux, ivar), photometry, labels)


def _photometry(flux: np.ndarray, error: np.ndarray, extinction: np.ndarray) -> PhotometryBatch:
    n = len(flux)
    return PhotometryBatch(flux, error, np.zeros(n), np.zeros(n, bool), extinction=extinction)


def neighbours_extinction(table: Table, folder: Path, n_neighbours: int = 7) -> np.ndarray:
    """Galactic extinction at the places of galaxies, from that of the nearest ones of ``sdss_photometry.fits`` (mag).

    Where both are known they agree to a few per cent: the dust is smooth on the scale of half a degree between them.
    """
    source = Table.read(folder / "sdss_photometry.fits")
    known = np.stack([np.asarray(source[f"ext_{band}"], float) for band in BANDS], axis=1)
    places = [SkyCoord(t["ra"], t["dec"], unit="deg") for t in (table, source)]
    total, weights = np.zeros((len(table), len(BANDS))), np.zeros((len(table), 1))
    for k in range(1, n_neighbours + 1):
        nearest, distance, _ = places[0].match_to_catalog_sky(places[1], nthneighbor=k)
        weight = 1 / (distance.deg[:, None] + 0.1) ** 2
        total, weights = total + weight * known[nearest], weights + weight
    return total / weights


def opened(model: str) -> PropertyEstimator:
    """Open bundled weights by name, or a file."""
    if model.endswith(".safetensors"):
        return PropertyEstimator.load(model)
    return PropertyEstimator.from_pretrained(model)


def fit(
    estimator: PropertyEstimator, images: RealImages, shards: list[Path], seed: int = SEED
) -> PropertyEstimator:
    """Fit to real galaxies with images."""
    return estimator.fit(
        images.cutouts,
        images.photometry,
        labels=images.labels,
        rehearsal=shards,
        seed=seed,
        **FIT,
    )


def posteriors(estimator: PropertyEstimator, images: RealImages) -> dict[str, Posterior]:
    """Infer from images and photometry, from either, and from the image with what is measured on it."""
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


def redshift_scores(draws: np.ndarray, truth: np.ndarray, chosen: np.ndarray) -> dict:
    """Point scores of the median with bootstrap errors, coverage and CRPS."""
    draws, true = draws[chosen], truth[chosen]
    median = np.median(draws, axis=1)
    values = redshift_metrics(median, true)
    errors: Any = bootstrap_errors(redshift_metrics, median, true, seed=0)
    coverage = central_coverage(draws * u.one, true * u.one, levels=(0.68, 0.95))
    sharpness = np.mean(crps(draws, true) / (1 + true))
    return {
        "n": int(chosen.sum()),
        **{k: float(v) for k, v in values.items()},
        **{f"{k}_error": float(v) for k, v in errors.items()},
        "coverage_68": float(coverage[0]),
        "coverage_95": float(coverage[1]),
        "crps_over_1+z": float(sharpness),
    }


def run_folds(before: PropertyEstimator, images: RealImages, shards: list[Path]) -> dict:
    """Redshifts, masses and star-formation rates before and after; each galaxy judged by an estimator that never saw it."""
    fold = np.random.default_rng(SEED).permutation(len(images)) % 5
    order = np.argsort(fold, kind="stable")
    parts: dict[str, list[Posterior]] = {}
    for k in range(5):
        after = fit(before, images[fold != k], shards, SEED + k)
        for mode, found in posteriors(after, images[fold == k]).items():
            parts.setdefault(mode, []).append(found)
    result: dict = {
        "kind": "real (approximate cutouts), cross-validated",
        "n": len(images),
        "folds": 5,
    }
    old = posteriors(before, images[order])
    new = {mode: Posterior.concatenate(found) for mode, found in parts.items()}
    judged = images.labels[order]
    for name, of_mode in (("before", old), ("after", new)):
        for mode, posterior in of_mode.items():
            draws = posterior["redshift"].draws.value
            everyone = np.ones(len(images), bool)
            result[f"{mode}, {name}"] = redshift_scores(draws, judged["redshift"].value, everyone)
            result[f"{mode}, {name}"] |= {
                quantity: label_scores(posterior[quantity].draws.value, judged[quantity].value)
                for quantity in ("stellar_mass", "sfr")
            }
    return result


def label_scores(draws: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Median offset, scatter and coverage where a value is known, in dex."""
    known = np.isfinite(true)
    draws, true = draws[known], true[known]
    error = np.median(draws, axis=1) - true
    low, high = np.percentile(draws, [16, 84], axis=1)
    return {
        "n": int(known.sum()),
        "bias": float(np.median(error)),
        "rmse": float(np.sqrt(np.mean(error**2))),
        "coverage_68": float(np.mean((true > low) & (true < high))),
    }


def main() -> None:
    """Fit, or measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=("fit", "folds"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="runs/anchored/properties.safetensors")
    parser.add_argument("--data", nargs="+", type=Path, default=[], help="shards to rehearse")
    parser.add_argument("--out", type=Path, default=Path("runs/anchored-images"))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    before, images = opened(arguments.model), RealImages.read(arguments.folder)
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.what == "fit":
        after = fit(before, images, arguments.data)
        after.save(arguments.out / "properties.safetensors", overwrite=True)
        print(after.fit_report())
        return
    result = run_folds(before, images, arguments.data)
    (arguments.out / "images_folds.json").write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
