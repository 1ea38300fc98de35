"""Measure the spectra networks on simulated held-out galaxies and real spectra.

    python benchmarks/spectra.py simulated [--n 200] --out results/spectra
    python benchmarks/spectra.py ranges [--n 192] --out results/spectra
    python benchmarks/spectra.py surveys [--n 128] --out results/spectra
    python benchmarks/spectra.py measured [--n 60] --out results/spectra
    python benchmarks/spectra.py ranking [--n 64] --out results/spectra
    python benchmarks/spectra.py sampling [--n 48] --out results/spectra
    python benchmarks/spectra.py real FOLDER [--n 40] [--plot DIR] --out results/spectra
    python benchmarks/spectra.py folds FOLDER --runs RUNS [--n 60] --out results/spectra
    python benchmarks/spectra.py speed --out results/spectra

``measured``, ``ranges``, ``surveys``, ``real`` and ``folds`` are implemented in
`spectra_measured.py`, `spectra_ranges.py`, `spectra_surveys.py`, `spectra_real.py` and
`spectra_folds.py`; common functions are in `spectra_sample.py`.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import torch
from spectra_sample import (
    HELD_OUT_SEED,
    Sample,
    best_of,
    photometry_batch,
    pixel_coverage,
    predict,
    residuals,
)

from astrogenspec import PropertyEstimator
from astrogenspec.generation.conditioning import APERTURES
from astrogenspec.generation.contrastive import info_nce
from astrogenspec.generation.estimator import SpectrumEstimator, SpectrumOptions
from astrogenspec.generation.network import SamplerSettings, spectrum_with_lines
from astrogenspec.generation.training import select_aperture
from astrogenspec.inputs.cutouts import CutoutBatch
from astrogenspec.inputs.features import make_inputs
from astrogenspec.surveys import BANDS

#: Default number of galaxies of each command.
SIZES = {
    "simulated": 200,
    "ranges": 192,
    "measured": 60,
    "ranking": 64,
    "sampling": 48,
    "surveys": 128,
    "real": 40,
    "folds": 60,
}
#: Draws for the coverage of pixels; a range of k draws covers at most (k - 1) / (k + 1).
_DRAWS = 48
_RETRIEVAL = 256
_SAMPLERS = (
    ("adams", 8, 3),
    ("adams", 14, 5),
    ("heun", 4, 2),
    ("heun", 8, 3),
    ("heun", 10, 4),
    ("heun", 18, 8),
    ("ddim", 8, 4),
    ("ddim", 20, 8),
)


def run_simulated(properties, estimator, n: int) -> dict:
    """Score residuals, photometry and coverage by mode and aperture; fibre also at known seeing."""
    sample = Sample(n)
    result: dict = {"kind": "simulated held-out", "n": n, "seed": HELD_OUT_SEED, "n_draws": _DRAWS}
    for mode in ("both", "photometry", "image"):
        posterior = None
        cases: list[tuple[str, Any]] = [(aperture, None) for aperture in APERTURES]
        if mode == "both":
            cases.append(("fibre", sample.seeing * u.arcsec))
        for aperture, seeing in cases:
            posterior, drawn = predict(
                properties,
                estimator,
                sample.inputs(mode),
                posterior=posterior,
                n_draws=_DRAWS,
                aperture=aperture,
                options=SpectrumOptions(psf_fwhm=seeing),
            )
            true = sample.fibre if aperture == "fibre" else sample.total
            entry = scores(drawn, true, sample.redshift)
            name = f"{mode}, {aperture}" + ("" if seeing is None else ", seeing known")
            result[name] = entry
            print(name, json.dumps(entry), flush=True)
    return result


def scores(drawn, true: np.ndarray, z_true: np.ndarray) -> dict:
    """Score residuals of best draw and median, coverage, and agreement with the photometry."""
    usable = drawn.usable
    flux, redshift = best_of(drawn)
    middle = np.median(drawn.flux.value, axis=1), np.median(drawn.redshift, axis=1)
    entry: dict = {"n": int(usable.sum())}
    for name, (values, z) in (("best", (flux, redshift)), ("median", middle)):
        entry[name] = residuals(values[usable], z[usable], true[usable], z_true[usable])
    entry["pixels"] = pixel_coverage(drawn.flux.value[usable], true[usable])
    residual = np.abs(drawn.photometric_residual.value[usable])
    entry["photometric_residual"] = {
        band: float(np.nanmedian(residual[..., k]))
        for k, band in enumerate(BANDS)
        if np.isfinite(residual[..., k]).any()
    }
    return entry


def run_ranking(properties, estimator, n: int) -> dict:
    """Score retrieval, and the best of 1, 4, 16 and 25 candidates."""
    sample = Sample(n)
    result: dict = {"kind": "simulated held-out, image and photometry, fibre", "n": n}
    result["retrieval"] = retrieval(estimator)
    inputs = sample.inputs("both")
    posterior = properties.predict(*inputs, n_draws=64, seed=0, progress=False)
    options = {"seed": 1, "progress": False}
    for candidates in (1, 4, 16, 25):
        chosen = estimator.predict(
            *inputs,
            posterior,
            n_draws=1,
            options=SpectrumOptions(select="best", n_candidates=candidates),
            **options,
        )
        result[f"best of {candidates}"] = residuals(
            chosen.flux.value[:, 0], chosen.redshift[:, 0], sample.fibre, sample.redshift
        )
    for select in ("all", "weighted", "best"):
        drawn = estimator.predict(
            *inputs, posterior, n_draws=16, options=SpectrumOptions(select=select), **options
        )
        entry = residuals(*best_of(drawn), sample.fibre, sample.redshift)
        result[f"select={select}"] = entry | pixel_coverage(drawn.flux.value, sample.fibre)
    return result


@torch.inference_mode()
def retrieval(estimator) -> dict:
    """Return the fraction of galaxies whose own spectrum scores highest among 256."""
    from astrogenspec.simulate import GalaxyStream, Simulator
    from astrogenspec.simulate.dataset import Contents
    from astrogenspec.simulate.simulator import Sample as Selection

    network = estimator.network
    stream = GalaxyStream(Simulator(), HELD_OUT_SEED, (Selection(),), Contents("observed", "rest"))
    batch = {name: values[:_RETRIEVAL] for name, values in stream.batch(0).items()}
    labels = {name: values.float() for name, values in batch.items()}
    aperture = torch.full((_RETRIEVAL,), APERTURES.index("fibre"))
    galaxies = select_aperture(labels, aperture)
    cutouts = CutoutBatch(labels["image"].numpy(), labels["ivar"].numpy())
    photometry = photometry_batch(labels["flux"].numpy(), labels["error"].numpy())
    spectra = {
        "low": network.low_matcher.spectrum(network.components.encode(galaxies)),
        "full": network.high_matcher.spectrum(spectrum_with_lines(galaxies), galaxies.redshift),
    }
    matchers = {"low": network.low_matcher, "full": network.high_matcher}
    result: dict = {"n": _RETRIEVAL}
    for mode, inputs in (
        ("both", (cutouts, photometry)),
        ("photometry", (None, photometry)),
        ("image", (cutouts, None)),
    ):
        tokens = network.observe(make_inputs(*inputs), aperture)
        for name, matcher in matchers.items():
            _, top = info_nce(matcher.observation(tokens), spectra[name], matcher.scale)
            result[f"{mode}, {name} resolution"] = float(top)
    return result


def run_sampling(properties, estimator, n: int) -> dict:
    """Compare samplers and numbers of steps: quality and time."""
    sample = Sample(n)
    inputs = sample.inputs("both")
    posterior = properties.predict(*inputs, n_draws=16, seed=0, progress=False)
    result: dict = {
        "kind": "simulated held-out, image and photometry, total aperture",
        "n": n,
        "threads": torch.get_num_threads(),
    }
    for method, low, high in _SAMPLERS:
        sampler = SamplerSettings(method, low, high)
        start = time.perf_counter()
        drawn = estimator.predict(
            *inputs,
            posterior,
            aperture="total",
            options=SpectrumOptions(sampler=sampler),
            seed=1,
            progress=False,
        )
        seconds = time.perf_counter() - start
        entry = scores(drawn, sample.total, sample.redshift) | {"galaxies_per_second": n / seconds}
        result[f"{method} {low}+{high}"] = entry
        print(method, low, high, json.dumps(entry), flush=True)
    return result


def run_speed(estimator) -> dict:
    """Measure galaxies per second (16 draws, full resolution) from photometry and from images."""
    from astrogenspec.quantities import theta_to_quantities
    from astrogenspec.results.posterior import Posterior

    n = 48
    rng = np.random.default_rng(0)
    flux = 10 ** rng.normal(1.8, 0.3, (n, 1)) * np.array([0.2, 0.6, 1.0, 1.3, 1.6])
    theta = np.tile([0.1, 10.5, 0, 8.7, 8, 1.5, 1, 1.2, 0.8], (n, 16, 1))
    theta = theta + 0.01 * rng.normal(size=theta.shape)
    posterior = Posterior(theta_to_quantities(theta.astype(np.float32)))
    photometry = photometry_batch(flux, 0.02 * flux)
    image = rng.normal(0, 0.03, (n, 5, 64, 64)).astype(np.float32)
    cutouts = CutoutBatch(image, np.full_like(image, 1e3))
    result = {"threads": torch.get_num_threads(), "n_draws": 16, "n": n}
    for name, inputs in {"photometry": (None, photometry), "both": (cutouts, photometry)}.items():
        estimator.predict(*(x and x[:2] for x in inputs), posterior[:2], seed=0, progress=False)
        start = time.perf_counter()
        estimator.predict(*inputs, posterior, seed=0, progress=False)
        result[f"{name}_galaxies_per_second"] = n / (time.perf_counter() - start)
    return result


def run(arguments: argparse.Namespace) -> dict:
    """Run the selected benchmark."""
    estimator = SpectrumEstimator.from_pretrained(arguments.model)
    if arguments.what == "speed":
        return run_speed(estimator)
    properties = PropertyEstimator.from_pretrained(arguments.properties_model)
    n = arguments.n or SIZES[arguments.what]
    if arguments.what == "real":
        from spectra_real import run_real

        return run_real(properties, estimator, arguments.folder, arguments.plot, n)
    if arguments.what == "folds":
        from spectra_folds import run_folds

        return run_folds(properties, arguments.runs, arguments.folder, n)
    if arguments.what == "measured":
        from spectra_measured import run_measured

        return run_measured(properties, estimator, n)
    if arguments.what == "ranges":
        from spectra_ranges import run_ranges

        return run_ranges(properties, estimator, n)
    if arguments.what == "surveys":
        from spectra_surveys import run_surveys

        return run_surveys(properties, estimator, n)
    commands = {"simulated": run_simulated, "ranking": run_ranking, "sampling": run_sampling}
    return commands[arguments.what](properties, estimator, n)


def main() -> None:
    """Run one benchmark and write its results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=(*SIZES, "speed"))
    parser.add_argument("folder", nargs="?", type=Path, help="real spectra")
    parser.add_argument(
        "--model", default="astrogenspec-spectra", help="name of weights, or a file"
    )
    parser.add_argument("--properties-model", default="astrogenspec-properties")
    parser.add_argument("--runs", type=Path, help="networks of five folds")
    parser.add_argument("--n", type=int, help="number of galaxies, of folds in each fold")
    parser.add_argument("--plot", type=Path, help="folder for figures of real spectra")
    parser.add_argument("--out", type=Path, default=Path("results/spectra"))
    arguments = parser.parse_args()
    if arguments.what in ("real", "folds") and arguments.folder is None:
        parser.error(f"{arguments.what} needs the folder of the spectra.")
    if arguments.what == "folds" and arguments.runs is None:
        parser.error("folds needs --runs, the folder of the networks.")
    warnings.simplefilter("ignore")
    result = run(arguments)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / f"{arguments.what}.json").write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
