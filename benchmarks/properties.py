"""Measure accuracy, calibration, real redshifts and speed of the properties networks.

    python benchmarks/properties.py simulated --out OUT
    python benchmarks/properties.py real FOLDER --model MODEL --out OUT
    python benchmarks/properties.py images FOLDER --model MODEL --out OUT
    python benchmarks/properties.py speed --out OUT
    python benchmarks/properties.py ceiling SHARDS --out OUT

``ceiling`` predicts the labels from noise-free magnitudes and true properties of simulated
galaxies; the residual scatter is that of the simulator.  ``real`` reads ``sdss_photometry.fits``,
``images`` reads ``sdss_images.npz`` and ``sdss_images.fits``.  Results are written to a JSON file
whose entry "kind" tells simulated from real galaxies.  Recalibration on real galaxies is switched
off; `finetuning.py` measures it.  ``real`` and ``images`` need weights that were not trained on
these galaxies, such as ``astrogenspec-properties-simulated``; for fine-tuned weights use
`finetuning.py` and `image_finetuning.py`.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from dataclasses import replace
from pathlib import Path

import _path  # noqa: F401
import numpy as np
import torch
from astropy.table import Table
from image_finetuning import posteriors
from real_images import RealImages
from scores import redshift_scores_with_errors
from training_set import photometry_batch, take

from astrogenspec import PropertyEstimator
from astrogenspec.calibration import calibration_table, tarp
from astrogenspec.inputs.cutouts import CutoutBatch
from astrogenspec.inputs.morphology import Morphology
from astrogenspec.inputs.photometry import PhotometryBatch
from astrogenspec.metrics import redshift_metrics
from astrogenspec.quantities import QUANTITIES, theta_to_quantities
from astrogenspec.simulate import GalaxyStream, Sample, Simulator
from astrogenspec.surveys import BANDS
from astrogenspec.training.augmentation import MorphologyAugmentation

#: Seed of the held-out galaxies; training uses 1 and 2.
HELD_OUT_SEED = 1001
REDSHIFT = list(QUANTITIES).index("redshift")
#: Options of `PropertyEstimator.predict`: no recalibration on real galaxies.
OPTIONS = {"seed": 0, "on_error": "flag", "progress": False, "calibrated": False}
SUBSETS = ("ugriz", "gri", "griz", "ugr", "gr", "r")


def with_sizes(photometry: PhotometryBatch, data: dict[str, np.ndarray]) -> PhotometryBatch:
    """Add radii and axis ratios of simulated galaxies, with the errors assumed in the training."""
    config, rng, n = MorphologyAugmentation(), np.random.default_rng(0), len(photometry)
    radius = 10 ** (config.radius_scatter * rng.normal(size=n))
    concentration = 10 ** (config.concentration_scatter * rng.normal(size=n))
    axis_ratio = data["axis_ratio"] + config.axis_ratio_scatter * rng.normal(size=n)
    morphology = replace(
        Morphology.missing(n),
        r50=data["r50"] * radius,
        r90=data["r90"] * radius * concentration,
        axis_ratio=axis_ratio.clip(0.05, 1),
    )
    return replace(photometry, morphology=morphology)


def simulate_held_out(n: int) -> dict[str, np.ndarray]:
    """Simulate held-out galaxies of the main galaxy sample with observed images and photometry."""
    stream = GalaxyStream(Simulator(), HELD_OUT_SEED, (Sample(), Sample(near_infrared=True)))
    return take(stream, n)


def scores(posterior, theta: np.ndarray, measurable: np.ndarray) -> list[dict]:
    """Score all quantities; gas metallicity where it can be measured."""
    truth = theta_to_quantities(theta)
    truth["gas_metallicity"] = np.where(measurable, truth["gas_metallicity"].value, np.nan) * (
        truth["gas_metallicity"].unit
    )
    table = calibration_table(posterior, truth)
    rows = [
        {name: v.item() if hasattr(v := row[name], "item") else str(v) for name in table.colnames}
        for row in table
    ]
    for row in rows:
        if QUANTITIES[row["quantity"]].logarithmic:
            row["r2_log1p"] = log1p_r2(posterior[row["quantity"]], truth[row["quantity"]])
    return rows


def log1p_r2(summary, truth) -> float:
    """Return R2 of log(1 + flux), as first published for the method; faint lines weigh less."""
    true = np.log1p(truth.value)
    residual = np.log1p(summary.median().value) - true
    return float(1 - np.mean(residual**2) / true.var())


def run_simulated(estimator: PropertyEstimator, n: int) -> dict:
    """Score all modes and sets of bands; compute the upper limit set by label scatter."""
    data = simulate_held_out(n)
    theta, measurable = data["theta"], data["measurable"] > 0
    cutouts = CutoutBatch(data["image"], data["ivar"])
    photometry = photometry_batch(data["flux"].astype(float), data["error"].astype(float))
    options = {"n_draws": 500, **OPTIONS}
    result: dict = {
        "kind": "simulated held-out",
        "n": n,
        "seed": HELD_OUT_SEED,
        "modes": {},
        "bands": {},
    }
    posteriors = {
        "both": estimator.predict(cutouts, photometry, **options),
        "photometry": estimator.predict(photometry=photometry, **options),
        "photometry, sizes": estimator.predict(photometry=with_sizes(photometry, data), **options),
        "image": estimator.predict(cutouts, ebv=0.0, measure=False, **options),
        "image, measured": estimator.predict(cutouts, ebv=0.0, **options),
    }
    for mode, posterior in posteriors.items():
        result["modes"][mode] = scores(posterior, theta, measurable)
    for subset in SUBSETS:
        missing = np.array([band not in subset for band in BANDS])
        flux = np.where(missing, np.nan, photometry.flux)
        partial = photometry_batch(flux, np.where(missing, np.nan, photometry.error))
        posterior = estimator.predict(photometry=partial, **options)
        result["bands"][subset] = scores(posterior, theta, measurable)
    result["tarp_max_deviation"] = {
        mode: float(tarp(posterior, theta_to_quantities(theta), seed=0).max_deviation)
        for mode, posterior in posteriors.items()
    }
    result["redshift_metrics"] = {
        mode: redshift_metrics(posterior["redshift"].median(), theta[:, REDSHIFT])
        for mode, posterior in posteriors.items()
    }
    result["label_scatter_ceiling_r2"] = ceiling(theta)
    return result


def ceiling(theta: np.ndarray) -> dict[str, float]:
    """Return the R2 of perfect predictions, limited by label scatter independent of any input."""
    from astrogenspec.simulate import load_priors

    population = load_priors("population")
    scatter = {
        "stellar_mass": population.mass_systematic,
        "sfr": population.sfr_systematic,
        "black_hole_mass": population.black_hole_scatter,
    }
    variance = theta.var(axis=0)
    return {
        name: float(1 - scatter[name] ** 2 / variance[list(QUANTITIES).index(name)])
        for name in scatter
    }


def run_ceiling(folder: Path, n: int = 60_000) -> dict:
    """Return the R2 of gradient boosting on noise-free magnitudes and true properties."""
    import h5py
    from sklearn.ensemble import HistGradientBoostingRegressor

    columns: dict[str, list] = {}
    for path in sorted(folder.glob("shard-*.h5"))[:4]:
        with h5py.File(path) as file:
            for name in ("theta", "measurable", "true_flux", *_MORPHOLOGY, *_TRUE_PROPERTIES):
                columns.setdefault(name, []).append(file[name][:])
    data = {name: np.concatenate(values)[:n].astype(float) for name, values in columns.items()}
    theta = data["theta"]
    magnitudes = -2.5 * np.log10(np.clip(data["true_flux"], 1e-3, None))
    observed = np.column_stack([magnitudes, theta[:, REDSHIFT]])
    shaped = np.column_stack([observed, *(data[name] for name in _MORPHOLOGY)])
    inputs = {
        "noise-free magnitudes and redshift": observed,
        "noise-free magnitudes, redshift, radii and axis ratio": shaped,
        "all of it": np.column_stack([shaped, *(data[name] for name in _TRUE_PROPERTIES)]),
    }
    result: dict = {"kind": "simulated", "n": n} | {key: {} for key in inputs}
    for k, name in enumerate(QUANTITIES):
        rows = np.isfinite(theta[:, k])
        if name == "gas_metallicity":
            rows &= data["measurable"] > 0
        chosen = np.flatnonzero(rows)
        cut = len(chosen) * 3 // 4
        train, test = chosen[:cut], chosen[cut:]
        for key, features in inputs.items():
            model = HistGradientBoostingRegressor(max_iter=300, learning_rate=0.1, random_state=0)
            found = model.fit(features[train], theta[train, k]).predict(features[test])
            true = theta[test, k]
            result[key][name] = float(1 - np.mean((found - true) ** 2) / true.var())
    return result


#: Features of the ceiling: morphology, and true properties that cannot be observed without error.
_MORPHOLOGY = ("r50", "r90", "axis_ratio")
_TRUE_PROPERTIES = (
    "log_mass",
    "log_sfr",
    "bulge_fraction",
    "cos_inclination",
    "velocity_dispersion",
    "attenuation_stars",
    "active",
)


def run_real(estimator: PropertyEstimator, folder: Path) -> dict:
    """Score photometric redshifts of all real galaxies, and of those of the main sample."""
    table = Table.read(folder / "sdss_photometry.fits")

    def column(kind: str) -> np.ndarray:
        return np.stack([np.asarray(table[f"{kind}{band}"], float) for band in BANDS], axis=1)

    flux, ivar, extinction = column("modelflux_"), column("modelflux_ivar_"), column("ext_")
    petrosian = (
        22.5 - 2.5 * np.log10(np.asarray(table["petroflux_r"])) - extinction[:, BANDS.index("r")]
    )
    truth = np.asarray(table["z"], float)
    result = {
        "kind": "real held-out (no real galaxy was used to train the network)",
        "rows": len(table),
    }
    for subset in ("ugriz", "gri"):
        missing = np.array([band not in subset for band in BANDS])
        batch = photometry_batch(
            np.where(missing, np.nan, flux), np.where(missing, np.nan, ivar**-0.5), extinction
        )
        posterior = estimator.predict(photometry=batch, n_draws=1000, **OPTIONS)
        for name, chosen in {
            "all": np.ones(len(table), bool),
            "r_petro < 17.77": petrosian < 17.77,
        }.items():
            result[f"{subset}, {name}"] = redshift_scores_with_errors(
                posterior["redshift"].draws.value, truth, chosen
            )
    return result


def run_images(estimator: PropertyEstimator, folder: Path) -> dict:
    """Score redshifts of the real gri cutouts, with and without Galactic extinction."""
    images = RealImages.read(folder)
    result: dict = {"kind": "real held-out (approximate cutouts)", "n": len(images)}
    for galaxies, name in (
        (images, "extinction of the nearest galaxies"),
        (images.without_extinction(), "no extinction"),
    ):
        for mode, posterior in posteriors(estimator, galaxies).items():
            draws = posterior["redshift"].draws.value
            usable = np.isfinite(draws).all(axis=1)
            result[f"{mode}, {name}"] = redshift_scores_with_errors(draws, images.redshift, usable)
    return result


def run_speed(estimator: PropertyEstimator) -> dict:
    """Measure galaxies per second with 1000 draws of nine quantities, including preprocessing."""
    rng = np.random.default_rng(0)
    n = 2048
    flux = 10 ** rng.normal(1.8, 0.4, (n, 1)) * np.array([0.2, 0.6, 1.0, 1.3, 1.6])
    photometry = photometry_batch(flux, 0.02 * flux)
    image = rng.normal(0, 0.03, (n, 5, 64, 64)).astype(np.float32)
    cutouts = CutoutBatch(image, np.full_like(image, 1e3))
    result = {"threads": torch.get_num_threads(), "n_draws": 1000, "n": n}
    for name, inputs in {"photometry": (None, photometry), "both": (cutouts, photometry)}.items():
        estimator.predict(*(x and x[:64] for x in inputs), seed=0, progress=False)
        start, cpu = time.perf_counter(), time.process_time()
        for _ in estimator.predict_iter(*inputs, seed=0):
            pass
        result[f"{name}_galaxies_per_second"] = n / (time.perf_counter() - start)
        result[f"{name}_cpu_seconds_per_galaxy"] = (time.process_time() - cpu) / n
    return result


def main() -> None:
    """Run one benchmark and write its results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=("simulated", "real", "images", "speed", "ceiling"))
    parser.add_argument("folder", nargs="?", type=Path, help="real tables, or shards for ceiling")
    parser.add_argument(
        "--model",
        default="astrogenspec-properties",
        help="name of weights, or a file; for real: weights trained on simulations alone",
    )
    parser.add_argument("--n", type=int, default=5000)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    estimator = PropertyEstimator.from_pretrained(arguments.model)
    if arguments.what == "ceiling":
        result = run_ceiling(arguments.folder)
    elif arguments.what == "simulated":
        result = run_simulated(estimator, arguments.n)
    elif arguments.what == "real":
        result = run_real(estimator, arguments.folder)
    elif arguments.what == "images":
        result = run_images(estimator, arguments.folder)
    else:
        result = run_speed(estimator)
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"{arguments.what}.json"
    path.write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1))
    print("written to", path)


if __name__ == "__main__":
    main()
