"""Measure lane B: spectra drawn for simulated held-out galaxies against their true ones, real spectra, ranking, speed.

    python benchmarks/spectra.py simulated [--n 200] --out results/spectra
    python benchmarks/spectra.py measured [--n 60] --out results/spectra
    python benchmarks/spectra.py ranking [--n 64] --out results/spectra
    python benchmarks/spectra.py sampling [--n 48] --out results/spectra
    python benchmarks/spectra.py real FOLDER [--plot DIR] --out results/spectra
    python benchmarks/spectra.py speed --out results/spectra

``real`` reads ``sdss_spectra.fits`` from FOLDER, makes the magnitudes of each spectrum, predicts the spectrum from these alone,
and compares.  No real spectrum was used in training.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path

import astropy.units as u
import numpy as np
import torch
from astropy.io import fits
from astropy.table import Table
from specutils import Spectrum

from astrogenspec import PropertyEstimator
from astrogenspec.cutouts import CutoutBatch
from astrogenspec.emission import LINES
from astrogenspec.generation.cascade import SamplerSettings
from astrogenspec.generation.estimator import SpectrumEstimator
from astrogenspec.photometry import PhotometryBatch
from astrogenspec.surveys import BANDS
from astrogenspec.synthetic import synthetic_flux
from astrogenspec.wavelengths import GENERATED

#: Seed of the held-out galaxies; training uses 1 and 2.
HELD_OUT_SEED = 1002
UNIT = u.Unit("1e-17 erg / (s cm2 Angstrom)")
WAVELENGTH = GENERATED.wavelength
_LEAST_WIDTH = 3.0  # Angstrom, equivalent width of Halpha of galaxies whose lines are compared


class Sample:
    """Simulated galaxies with their observations and true spectra.

    Parameters
    ----------
    n : int
    """

    def __init__(self, n: int):
        from astrogenspec.simulate import GalaxyStream, Simulator
        from astrogenspec.simulate.dataset import Contents
        from astrogenspec.simulate.simulator import Sample as Selection
        from astrogenspec.simulate.spectrum import OBSERVED

        simulator = Simulator()
        stream = GalaxyStream(simulator, HELD_OUT_SEED, (Selection(),), Contents("observed", "none"))
        batch = stream.batch(0)
        galaxies = simulator.batch(HELD_OUT_SEED, 0, Selection())[slice(0, n)]
        self.theta = batch["theta"][:n].numpy()
        self.line_flux = batch["line_flux"][:n].numpy()
        self.halpha_width = batch["halpha_width"][:n].numpy()
        self.active = batch["active"][:n].numpy().astype(bool)
        self.photometry = photometry_batch(batch["flux"][:n].numpy(), batch["error"][:n].numpy())
        self.cutouts = CutoutBatch(batch["image"][:n].float().numpy(), batch["ivar"][:n].float().numpy())
        first = round((GENERATED.start - OBSERVED.start) / OBSERVED.step)
        pixels = slice(first, first + GENERATED.size)
        self.fibre = simulator.spectra(galaxies)[:, pixels].numpy()
        whole = galaxies.fibre.new_ones(galaxies.fibre.shape)
        self.total = simulator.synthesis.spectra(
            galaxies.properties, galaxies.weights, galaxies.lines, whole
        )[:, pixels].numpy()

    def __len__(self) -> int:
        return len(self.theta)

    def inputs(self, mode: str) -> tuple:
        """Give what an estimator sees in a mode."""
        return {
            "both": (self.cutouts, self.photometry),
            "photometry": (None, self.photometry),
            "image": (self.cutouts, None),
        }[mode]


def photometry_batch(flux: np.ndarray, error: np.ndarray) -> PhotometryBatch:
    """Make a batch of fluxes (nmgy) without Galactic extinction."""
    n = len(flux)
    return PhotometryBatch(flux.astype(float), error.astype(float), np.zeros(n), np.zeros(n, bool))


def predict(properties, spectra, inputs, *, posterior=None, n_draws=16, **options):
    """Infer properties, then draw spectra of them."""
    quiet = {"seed": 0, "progress": False, "on_error": "flag", "ebv": 0.0 if inputs[1] is None else None}
    if posterior is None:
        posterior = properties.predict(*inputs, n_draws=max(64, n_draws), **quiet)
    return posterior, spectra.predict(*inputs, posterior, n_draws=n_draws, **quiet | options)


def line_free(redshift: np.ndarray) -> np.ndarray:
    """Pixels further than 15 A (rest frame) from every line, shape (n, m)."""
    rest = WAVELENGTH / (1 + redshift[:, None])
    return np.all([np.abs(rest - line) > 15 for line in LINES.values()], axis=0)


def to_rest(flux: np.ndarray, redshift: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Spectra (n, m) at rest-frame wavelengths; flux densities are multiplied by 1 + z."""
    return np.stack(
        [
            np.interp(grid, WAVELENGTH / (1 + z), row * (1 + z), left=np.nan, right=np.nan)
            for row, z in zip(flux, redshift, strict=True)
        ]
    )


def residuals(found: np.ndarray, z_found: np.ndarray, true: np.ndarray, z_true: np.ndarray) -> dict:
    """Median relative residual per galaxy over line-free pixels, in the observed and in the rest frame."""
    free = line_free(z_true)
    observed = [np.median(np.abs(f / t - 1)[w]) for f, t, w in zip(found, true, free, strict=True)]
    scaled = [
        np.median(np.abs(f / t / np.median((f / t)[w]) - 1)[w])
        for f, t, w in zip(found, true, free, strict=True)
    ]
    grid = np.geomspace(3800, 7000, 2500)
    ratio = to_rest(found, z_found, grid) / to_rest(true, z_true, grid)
    keep = np.all([np.abs(grid - line) > 15 for line in LINES.values()], axis=0)
    ratio = ratio[:, keep]
    rest = np.nanmedian(np.abs(ratio - 1), axis=1)
    shape = np.nanmedian(np.abs(ratio / np.nanmedian(ratio, axis=1, keepdims=True) - 1), axis=1)
    names = ("observed frame", "observed frame, scaled", "rest frame", "rest frame, scaled")
    return {
        name: {"median": float(np.median(v)), "p84": float(np.quantile(v, 0.84))}
        for name, v in zip(names, (observed, scaled, rest, shape), strict=True)
    }


def best_of(spectra) -> tuple[np.ndarray, np.ndarray]:
    """Flux and redshift of the best draw of each galaxy."""
    rows = np.arange(len(spectra))
    return spectra.flux.value[rows, spectra.best_draw], spectra.redshift[rows, spectra.best_draw]


def pixel_coverage(flux: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Share of pixels inside the central ranges of the draws, by quantiles that are unbiased for few draws.

    With k draws no range covers more than (k - 1) / (k + 1).
    """
    result = {}
    for level in (0.68, 0.95):
        tails = [0.5 - level / 2, 0.5 + level / 2]
        low, high = np.quantile(flux, tails, axis=1, method="weibull")
        result[f"coverage_{level * 100:.0f}"] = float(np.mean((true > low) & (true < high)))
    return result


def run_simulated(properties, estimator, n: int) -> dict:
    """Residuals, photometry and coverage by input, aperture and selection."""
    sample = Sample(n)
    z_true = sample.theta[:, 0].astype(float)
    result: dict = {"kind": "simulated held-out", "n": n, "seed": HELD_OUT_SEED}
    for mode in ("both", "photometry", "image"):
        posterior = None
        for aperture in ("fibre", "total"):
            true = sample.fibre if aperture == "fibre" else sample.total
            posterior, drawn = predict(
                properties, estimator, sample.inputs(mode), posterior=posterior, n_draws=24, aperture=aperture
            )
            usable = drawn.usable
            entry = {"n": int(usable.sum())}
            flux, redshift = best_of(drawn)
            entry["best"] = residuals(flux[usable], redshift[usable], true[usable], z_true[usable])
            middle = np.median(drawn.flux.value, axis=1)
            entry["median"] = residuals(
                middle[usable], np.median(drawn.redshift, axis=1)[usable], true[usable], z_true[usable]
            )
            entry["pixels"] = pixel_coverage(drawn.flux.value[usable], true[usable])
            residual = np.abs(drawn.photometric_residual.value[usable])
            entry["photometric_residual"] = {
                band: float(np.nanmedian(residual[..., k])) for k, band in enumerate(BANDS)
                if np.isfinite(residual[..., k]).any()
            }
            result[f"{mode}, {aperture}"] = entry
            print(mode, aperture, json.dumps(entry), flush=True)
    return result


def spectrum_of(flux: np.ndarray, redshift: float) -> Spectrum:
    """One spectrum for the toolbox."""
    return Spectrum(flux=flux * UNIT, spectral_axis=WAVELENGTH * u.AA, redshift=float(redshift))


def stack_of(flux: np.ndarray) -> Spectrum:
    """Several spectra for the toolbox, which is told their redshifts."""
    return Spectrum(flux=flux * UNIT, spectral_axis=WAVELENGTH * u.AA)


def _plain(column) -> np.ndarray:
    return np.asarray(getattr(column, "value", column), dtype=float)


def compared(found: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Bias, robust scatter and correlation."""
    good = np.isfinite(found) & np.isfinite(true)
    difference = (found - true)[good]
    return {
        "n": int(good.sum()),
        "bias": float(np.median(difference)),
        "scatter": float(1.4826 * np.median(np.abs(difference - np.median(difference)))),
        "rms": float(np.sqrt(np.mean(difference**2))),
        "correlation": float(np.corrcoef(found[good], true[good])[0, 1]),
    }


def run_measured(properties, estimator, n: int) -> dict:
    """Measurements on generated spectra against the same measurements on the true ones, and against the table."""
    from astrogenspec.measure import (
        BPT_CLASSES,
        INDEX_NAMES,
        bpt_class,
        measure_indices,
        measure_kinematics,
        measure_lines,
        measure_populations,
        measure_redshift,
    )

    sample = Sample(n)
    z_true = sample.theta[:, 0].astype(float)
    posterior, drawn = predict(properties, estimator, sample.inputs("both"))
    flux, redshift = best_of(drawn)
    result: dict = {"kind": "simulated held-out, image and photometry, fibre", "n": n}
    pairs = [
        (spectrum_of(f, z), spectrum_of(t, s))
        for f, z, t, s in zip(flux, redshift, sample.fibre, z_true, strict=True)
    ]
    tables = [
        measure_indices(stack_of(values), redshift=z)
        for values, z in ((flux, redshift), (sample.fibre, z_true))
    ]
    draws = [
        measure_indices(stack_of(drawn.flux.value[k]), redshift=drawn.redshift[k]) for k in range(n)
    ]
    indices = {}
    for name in INDEX_NAMES:
        found, true = (_plain(table[name]) for table in tables)
        of_draws = np.array([_plain(table[name]) for table in draws])
        indices[name] = compared(found, true) | pixel_coverage(of_draws[:, :, None], true[:, None])
    result["indices"] = indices
    for key, function, column in (
        ("velocity_dispersion", measure_kinematics, "dispersion"),
        ("age", measure_populations, "log_age"),
        ("stellar_metallicity", measure_populations, "metallicity"),
        ("ebv", measure_populations, "ebv"),
    ):
        values = [[_first(function(s), column) for s in pair] for pair in pairs]
        result[key] = compared(*np.array(values, dtype=float).T)
    some = np.flatnonzero(sample.halpha_width > _LEAST_WIDTH)[:40]
    lines = {}
    for name in ("halpha", "hbeta", "oiii5007", "nii6584"):
        lines[name] = []
    redshifts = []
    for k in some:
        for draw in range(2):
            spectrum = spectrum_of(drawn.flux.value[k, draw], drawn.redshift[k, draw])
            table = measure_lines(spectrum)
            redshifts.append(float(measure_redshift(spectrum)["redshift"][0]) - drawn.redshift[k, draw])
            for name in lines:
                row = list(table["line"]).index(name)
                wanted = posterior[f"{name}_flux"].draws[k, draw].value
                if table["equivalent_width"][row].value > _LEAST_WIDTH:
                    lines[name].append(np.log10(table["flux"][row].value / wanted))
    result["lines_against_table"] = {
        name: {"n": len(v), "bias": float(np.median(v)), "scatter": float(1.4826 * np.median(np.abs(v - np.median(v))))}
        for name, v in lines.items() if v
    }
    redshifts = np.abs(np.array(redshifts))
    result["redshift_against_draw"] = {"n": len(redshifts), "within_0.0005": float(np.mean(redshifts < 0.0005))}
    detected = np.flatnonzero(sample.halpha_width > 1)
    found, true = (_ratios([measure_lines(pairs[k][which]) for k in detected]) for which in (0, 1))
    said, kind = (bpt_class(*ratios) for ratios in (found, true))
    forming, agn = (kind == BPT_CLASSES.index(name) for name in ("star_forming", "agn"))
    hits = np.mean(said[agn] != 0), np.mean(said[forming] == 0)
    result["agn"] = {
        "balanced_accuracy": float(np.mean(hits)),
        "n_agn": int(agn.sum()),
        "n_star_forming": int(forming.sum()),
    }
    return result


def _first(table, column: str) -> float:
    value = table[column][0]
    return float(getattr(value, "value", value))


def _ratios(tables: list) -> tuple[np.ndarray, np.ndarray]:
    """Log [NII]/Halpha and log [OIII]/Hbeta of tables of lines."""
    flux = {
        name: np.array([t["flux"][list(t["line"]).index(name)].value for t in tables])
        for name in ("halpha", "hbeta", "nii6584", "oiii5007")
    }
    flux = {name: np.clip(values, 1e-3, None) for name, values in flux.items()}
    return np.log10(flux["nii6584"] / flux["halpha"]), np.log10(flux["oiii5007"] / flux["hbeta"])


def run_ranking(properties, estimator, n: int) -> dict:
    """Measure the gain of ranking over chance for 1, 4, 16 and 25 candidates."""
    sample = Sample(n)
    z_true = sample.theta[:, 0].astype(float)
    result: dict = {"kind": "simulated held-out, image and photometry", "n": n}
    inputs = sample.inputs("both")
    posterior = properties.predict(*inputs, n_draws=64, seed=0, progress=False)
    for candidates in (1, 4, 16, 25):
        chosen = estimator.predict(
            *inputs, posterior, n_draws=1, n_candidates=candidates, select="best", seed=1, progress=False
        )
        scores = residuals(chosen.flux.value[:, 0], chosen.redshift[:, 0], sample.fibre, z_true)
        result[f"best of {candidates}"] = scores
    for select in ("all", "weighted", "best"):
        drawn = estimator.predict(*inputs, posterior, n_draws=16, select=select, seed=1, progress=False)
        flux, redshift = best_of(drawn)
        entry = residuals(flux, redshift, sample.fibre, z_true)
        result[f"select={select}"] = entry | pixel_coverage(drawn.flux.value, sample.fibre)
    return result


def run_sampling(properties, estimator, n: int) -> dict:
    """Compare steps of the samplers: quality and time."""
    sample = Sample(n)
    z_true = sample.theta[:, 0].astype(float)
    posterior = properties.predict(*sample.inputs("both"), n_draws=16, seed=0, progress=False)
    result: dict = {"kind": "simulated held-out, total aperture", "n": n}
    for method, low, high in (("heun", 4, 2), ("heun", 8, 3), ("heun", 10, 4), ("heun", 18, 8), ("ddim", 8, 4), ("ddim", 20, 8)):
        sampler = SamplerSettings(method, low, high)
        start = time.perf_counter()
        drawn = estimator.predict(
            *sample.inputs("both"), posterior, aperture="total", sampler=sampler, seed=1, progress=False
        )
        seconds = time.perf_counter() - start
        flux, redshift = best_of(drawn)
        entry = residuals(flux, redshift, sample.total, z_true)
        residual = np.abs(drawn.photometric_residual.value)
        entry["photometric_residual_gri"] = float(np.nanmedian(residual[..., 1:4]))
        entry |= pixel_coverage(drawn.flux.value, sample.total) | {"galaxies_per_second": n / seconds}
        result[f"{method} {low}+{high}"] = entry
    return result


def run_real(properties, estimator, folder: Path, plot: Path | None) -> dict:
    """Predict real spectra from their own synthetic magnitudes."""
    with fits.open(folder / "sdss_spectra.fits") as hdus:
        table = Table.read(hdus[1])
        wavelength = 10 ** hdus["LOGLAM"].data.astype(float)
        flux, ivar = (np.array(hdus[name].data, dtype=float) for name in ("FLUX", "IVAR"))
    flux = np.where(ivar > 0, flux, np.nan)
    nmgy = synthetic_flux(wavelength * u.AA, _patched(flux) * UNIT).value
    covered = np.isfinite(nmgy)
    photometry = photometry_batch(nmgy, np.where(covered, 0.03 * nmgy, np.nan))
    on_survey = photometry_batch(
        nmgy * 10 ** (-0.4 * estimator.network.zero_points.numpy()), np.where(covered, 0.03 * nmgy, np.nan)
    )
    options = {"seed": 0, "progress": False, "on_error": "flag"}
    result: dict = {"kind": "real SDSS spectra, held out", "n": len(table), "rows": []}
    posterior = properties.predict(photometry=on_survey, n_draws=64, **options)
    known = properties.predict(
        photometry=on_survey, n_draws=64, known={"redshift": np.asarray(table["z"], float)}, **options
    )
    for name, given in (("redshift inferred", posterior), ("redshift given", known)):
        drawn = estimator.predict(None, on_survey, given, n_draws=32, aperture="total", **options)
        rows = []
        for k in range(len(table)):
            one, two = _smoothed(wavelength, flux[k], drawn, k)
            free = line_free(np.array([float(table["z"][k])]))[0] & np.isfinite(two) & (two > 0)
            rows.append(float(np.median(np.abs(one / two - 1)[free])))
        result[name] = {"median": float(np.nanmedian(rows)), "each": rows}
        if plot is not None:
            _plot(plot / f"real {name}.png", wavelength, flux, drawn, table)
    result["z"] = [float(z) for z in table["z"]]
    result["z_inferred"] = [float(z) for z in posterior["redshift"].median().value]
    result["bands"] = ["".join(b for b, c in zip(BANDS, row, strict=True) if c) for row in covered]
    del photometry
    return result


def _patched(flux: np.ndarray) -> np.ndarray:
    """Fill gaps inside the covered range, so that a bad pixel does not cost a band."""
    filled = flux.copy()
    for row in filled:
        good = np.flatnonzero(np.isfinite(row))
        inner = slice(good[0], good[-1] + 1)
        row[inner] = np.interp(np.arange(len(row))[inner], good, row[good])
    return filled


def _smoothed(wavelength: np.ndarray, flux: np.ndarray, drawn, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Median draw and real spectrum on the same pixels, both smoothed over 25 pixels against the noise of the real one."""
    real = np.interp(WAVELENGTH, wavelength, flux, left=np.nan, right=np.nan)
    kernel = np.ones(25) / 25
    smooth = lambda x: np.convolve(x, kernel, mode="same")  # noqa: E731
    return smooth(np.median(drawn.flux.value[k], axis=0)), smooth(real)


def _plot(path: Path, wavelength: np.ndarray, flux: np.ndarray, drawn, table: Table) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(len(table), 1, figsize=(11, 2.4 * len(table)), constrained_layout=True)
    for k, ax in enumerate(axes):
        ax.plot(wavelength, flux[k], color="0.6", lw=0.5, label="SDSS spectrum")
        low, middle, high = np.quantile(drawn.flux.value[k], [0.16, 0.5, 0.84], axis=0)
        ax.fill_between(WAVELENGTH, low, high, color="C1", alpha=0.4, lw=0)
        ax.plot(WAVELENGTH, middle, color="C3", lw=0.8, label="predicted from its magnitudes")
        ax.set(xlim=(3800, 9200), ylim=(0, 1.6 * np.nanpercentile(flux[k], 97)), title=f"z = {table['z'][k]:.4f}")
    axes[0].legend(loc="upper right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=70)
    plt.close(figure)


def run_speed(estimator) -> dict:
    """Galaxies per second with 16 draws at full resolution, of photometry and of images."""
    from astrogenspec.posterior import Posterior
    from astrogenspec.quantities import theta_to_quantities

    n = 48
    rng = np.random.default_rng(0)
    flux = 10 ** rng.normal(1.8, 0.3, (n, 1)) * np.array([0.2, 0.6, 1.0, 1.3, 1.6])
    theta = np.tile([0.1, 10.5, 0, 8.7, 8, 1.5, 1, 1.2, 0.8], (n, 16, 1)) + 0.01 * rng.normal(size=(n, 16, 9))
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


def main() -> None:
    """Run one benchmark and write its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=("simulated", "measured", "ranking", "sampling", "real", "speed"))
    parser.add_argument("folder", nargs="?", type=Path, help="real spectra")
    parser.add_argument("--model", default="astrogenspec-spectra")
    parser.add_argument("--properties-model", default="astrogenspec-properties")
    parser.add_argument("--n", type=int)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--out", type=Path, default=Path("results/spectra"))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    estimator = SpectrumEstimator.from_pretrained(arguments.model)
    properties = PropertyEstimator.from_pretrained(arguments.properties_model)
    what, sizes = arguments.what, {"simulated": 200, "measured": 100, "ranking": 64, "sampling": 48}
    n = arguments.n or sizes.get(what, 0)
    if what == "real":
        result = run_real(properties, estimator, arguments.folder, arguments.plot)
    elif what == "speed":
        result = run_speed(estimator)
    else:
        run = {"simulated": run_simulated, "measured": run_measured, "ranking": run_ranking, "sampling": run_sampling}
        result = run[what](properties, estimator, n)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / f"{what}.json").write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
