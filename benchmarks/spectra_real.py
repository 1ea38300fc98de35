"""Compare real spectra with spectra predicted from their magnitudes.

    python benchmarks/spectra.py real FOLDER [--model MODEL] [--n N] [--plot DIR] --out RESULTS

FOLDER holds the real tables. Called by `spectra.py`; the galaxies on which the ranges were
calibrated are scored by `spectra_folds.py`. Samples:

``held out``
    N of the 1,341 SDSS spectra of nearby galaxies that the default weights were not trained on
    (fold 0 of `recipes/finetune_spectra.py`): with the best draws by their contrastive scores, and
    in the fibre of those with total magnitudes.
``others``
    13 SDSS spectra, of which none was used.
``FORS2``
    VLT/FORS2 spectra of galaxies at z = 0.1-0.35 on a relative flux scale: the spectra are scaled
    to an absolute magnitude of -22.3 in r, and the shape is compared after division by a polynomial
    of degree 4.

The magnitudes of a spectrum are integrals over g, r and i; the spectrum is predicted from these
alone, declared as those in a fibre, with the known redshift, or from total magnitudes. Pixel ranges
include the noise of the observed spectrum; ranges of indices and equivalent widths are given with
and without it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import _path  # noqa: F401
import astropy.units as u
import numpy as np
from astropy.cosmology import Planck18
from astropy.io import fits
from astropy.nddata import StdDevUncertainty
from astropy.table import Table
from finetune_spectra import fold_of
from real_spectra import dereddened, nearest_reddening, read_real_spectra
from scipy.special import ndtr
from spectra_measured import active_fraction, balanced, median_measured, robust_scatter
from spectra_sample import UNIT, WAVELENGTH, line_free, photometry_batch
from specutils import Spectrum

from astrogenspec import SpectrumEstimator, coerce_photometry
from astrogenspec.calibration import SpectrumRecalibration
from astrogenspec.generation.estimator import SpectrumOptions
from astrogenspec.measure import BPT_CLASSES, bpt_class, measure_kinematics, measure_lines
from astrogenspec.results.spectra import SpectrumDraws
from astrogenspec.surveys import BANDS
from astrogenspec.synthetic import synthetic_flux

#: Relative error of the synthetic magnitudes.
_ERROR = 0.03
#: Limits of the noise of pixels over that of their inverse variances, and pixels of the blocks in
#: which it is measured.
_NOISE_RATIOS, _NOISE_BLOCK = (0.4, 1.3), 400
_SMOOTHING = 25
#: Windows of lines: half-width and outer edge of the sidebands (Angstrom, rest frame).
_WINDOW, _SIDEBAND = 14.0, 40.0
_LINES = {"halpha_nii": (6548.0, 6590.0), "oiii": (5001.0, 5014.0), "hbeta": (4853.0, 4872.0)}
_N_DRAWS = 40
#: Galaxies with total magnitudes.
_N_FIBRE = 100
#: Candidates of which the draws are chosen by their contrastive scores.
_N_CANDIDATES = 120
_BPT_DRAWS, _KINEMATICS_DRAWS = 12, 3
#: Degree of the polynomial, absolute magnitude, and number of the FORS2 spectra.
_DEGREE, _FORS2_MAGNITUDE, _N_FORS2 = 4, -22.3, 24


@dataclass
class Observed:
    """Observed spectra on the grid of generated ones, and their photometry.

    Attributes
    ----------
    flux, noise : ndarray, shape (n, 3841)
        1e-17 erg/s/cm2/A; NaN where missing.
    redshift : ndarray, shape (n,)
    nmgy : ndarray, shape (n, 5)
        Synthetic fluxes in the covered bands, NaN in the others.
    total : ndarray, shape (n, 5)
        Total fluxes, NaN where unknown.
    dispersion : ndarray, shape (n,)
        Velocity dispersion of the stars by the pipeline of SDSS (km/s), NaN where unknown.
    """

    flux: np.ndarray
    noise: np.ndarray
    redshift: np.ndarray
    nmgy: np.ndarray
    total: np.ndarray
    dispersion: np.ndarray

    def __getitem__(self, rows) -> Observed:
        return Observed(*(getattr(self, name)[rows] for name in vars(self)))

    def __len__(self) -> int:
        return len(self.redshift)


def observed(wavelength, flux, ivar, redshift, total=None, dispersion=None) -> Observed:
    """Interpolate spectra and compute their magnitudes in g, r and i."""
    good = ivar > 0
    flux = np.where(good, flux, np.nan)
    nmgy = synthetic_flux(wavelength * u.AA, _patched(flux) * UNIT).value
    nmgy[:, [BANDS.index(band) for band in "uz"]] = np.nan
    on_grid, noise = np.full((2, len(flux), len(WAVELENGTH)), np.nan)
    ratio = noise_ratio(flux, ivar)
    for row, (values, weight) in enumerate(zip(flux, ivar, strict=True)):
        nearest = np.clip(np.searchsorted(wavelength, WAVELENGTH), 0, len(wavelength) - 1)
        here = (weight[nearest] > 0) & (wavelength[-1] > WAVELENGTH) & (wavelength[0] < WAVELENGTH)
        on_grid[row, here] = np.where(weight > 0, values, 0.0)[nearest[here]]
        noise[row, here] = (ratio[row] / np.sqrt(np.where(weight > 0, weight, 1)))[nearest[here]]
    total = np.full((len(flux), len(BANDS)), np.nan) if total is None else total
    dispersion = np.full(len(flux), np.nan) if dispersion is None else dispersion
    return Observed(on_grid, noise, np.asarray(redshift, float), nmgy, total, dispersion)


def noise_ratio(flux: np.ndarray, ivar: np.ndarray) -> np.ndarray:
    """Return the noise of spectra over that of their inverse variances, shape (n, m).

    It is estimated in blocks, from pixels at a distance of two, as neighbours are correlated
    (DER_SNR; Stoehr et al. 2008, ASPC 394, 505), and interpolated. Of SDSS spectra with a
    signal-to-noise ratio of 10 it is 1.1, of those with 45 it is 0.7.
    """
    error = 1 / np.sqrt(np.where(ivar > 0, ivar, np.nan))
    second = 2 * flux[:, 2:-2] - flux[:, :-4] - flux[:, 4:]
    relative = 1.4826 * np.abs(second) / error[:, 2:-2] / np.sqrt(6)
    m = flux.shape[1]
    edges = np.linspace(0, m - 4, m // _NOISE_BLOCK + 1).astype(int)
    blocks = [relative[:, low:high] for low, high in pairwise(edges)]
    centres = (edges[:-1] + edges[1:]) / 2
    ratio = np.clip([np.nanmedian(block, axis=1) for block in blocks], *_NOISE_RATIOS).T
    result = np.empty(flux.shape)
    for row, values in enumerate(ratio):
        known = np.isfinite(values)
        result[row] = np.interp(np.arange(m), centres[known], values[known])
    return result


def held_out(folder: Path, n: int | None, fold: int = 0) -> Observed:
    """Return n spectra of nearby galaxies of a fold; all for None."""
    real = read_real_spectra(folder)
    rows = chosen(fold_of(len(real)), n, fold)
    return observed(
        10**real.log_wavelength,
        real.flux[rows],
        real.ivar[rows],
        real.redshift[rows],
        real.total[rows],
        real.dispersion()[rows],
    )


def chosen(fold_of_galaxies: np.ndarray, n: int | None, fold: int) -> np.ndarray:
    """Return the indices of n galaxies of a fold, in a fixed random order; all for None."""
    return np.random.default_rng(1).permutation(np.flatnonzero(fold_of_galaxies == fold))[:n]


def others(folder: Path) -> Observed:
    """Return the 13 spectra of `sdss_spectra.fits`, corrected for Galactic extinction."""
    with fits.open(folder / "sdss_spectra.fits") as hdus:
        table = Table.read(hdus[1])
        log_wavelength = np.array(hdus["LOGLAM"].data, float)
        flux, ivar = (np.array(hdus[name].data, dtype=float) for name in ("FLUX", "IVAR"))
    ebv = nearest_reddening(table, folder)
    flux, ivar = dereddened(log_wavelength, flux, np.maximum(ivar, 0.0), ebv)
    return observed(10**log_wavelength, flux, ivar, table["z"])


def fors2(folder: Path, n: int) -> Observed:
    """Return n spectra of FORS2 galaxies, scaled to an absolute magnitude in r."""
    with fits.open(folder / "fors2_cluster_field_spectra.fits.gz") as hdus:
        table = Table.read(hdus[1])
        wave, flux, bad = (np.array(hdus[name].data, float) for name in ("WAVE", "FLUX", "BAD"))
    redshift = np.ma.filled(np.ma.asarray(table["z"], float), np.nan)
    rows = np.flatnonzero((redshift > 0.1) & (redshift < 0.35))
    rows = np.random.default_rng(2).permutation(rows)
    found = []
    for row in rows:
        good = (wave[row] > 0) & (bad[row] == 0) & (flux[row] > 0)
        if good.sum() < 800:
            continue
        seen = wave[row] > 0
        order = np.flatnonzero(seen)[np.argsort(wave[row, seen])]
        values = np.where(good, flux[row], 0.0)[order]
        grid = np.interp(WAVELENGTH, wave[row, order], values, left=0, right=0)
        gap = np.interp(WAVELENGTH, wave[row, order], ~good[order], left=1, right=1) > 0
        ivar = np.where(gap | (grid <= 0), 0.0, 1.0)
        if not ivar.any():
            continue
        one = observed(WAVELENGTH, grid[None], ivar[None], redshift[row : row + 1])
        if not np.isfinite(one.nmgy[0, 2:4]).all():
            continue
        distance = Planck18.distmod(redshift[row]).value
        scale = 10 ** (0.4 * (22.5 - _FORS2_MAGNITUDE - distance)) / one.nmgy[0, 2]
        one.flux *= scale
        one.noise[:] = np.where(np.isfinite(one.flux), 0.05 * np.abs(one.flux), np.nan)
        one.nmgy *= scale
        found.append(one)
        if len(found) == n:
            break
    return Observed(*(np.concatenate([getattr(one, k) for one in found]) for k in vars(found[0])))


def shape_residuals(drawn, sample: Observed) -> dict:
    """Score the line-free continua after division by a polynomial."""
    middle, each = np.median(drawn.flux.value, axis=1), []
    for model, flux, z in zip(middle, sample.flux, sample.redshift, strict=True):
        good = np.isfinite(flux) & (flux > 0) & np.isfinite(model)
        one, two = (_smooth(v[None], good[None])[0] for v in (model, np.where(good, flux, 0.0)))
        used = good & line_free(np.array([z]))[0] & (two > 0)
        x = np.linspace(-1, 1, len(model))
        ratio = np.log(one[used] / two[used])
        ratio = ratio - np.polyval(np.polyfit(x[used], ratio, _DEGREE), x[used])
        each.append(np.median(np.abs(ratio)))
    return {
        "n": len(each),
        "shape_residual": float(np.nanmedian(each)),
        "shape_residual_p84": float(np.nanquantile(each, 0.84)),
    }


def run_real(properties, estimator, folder: Path, plot: Path | None, n: int) -> dict:
    """Predict real spectra from their magnitudes and score the predictions."""
    result: dict = {"kind": "real spectra, not used in training", "draws": _N_DRAWS}

    def record(name: str, drawn, one: Observed, values: dict) -> None:
        result[name] = values
        print(name, json.dumps(values), flush=True)
        if plot is not None:
            _plot(plot / f"{name}.png", drawn, one)

    sample = held_out(folder, n)
    drawn = predicted(properties, estimator, sample, "redshift given")
    record("held out, redshift given", drawn, sample, scores(drawn, sample))
    ranked = SpectrumOptions(n_candidates=_N_CANDIDATES, select="best")
    drawn = predicted(properties, estimator, sample, "redshift given", ranked)
    record("held out, redshift given, ranked", drawn, sample, scores(drawn, sample))
    known = held_out(folder, None)
    known = known[np.isfinite(known.total).all(axis=1)][:_N_FIBRE]
    drawn = predicted(properties, estimator, known, "total")
    record("held out, in the fibre of total magnitudes", drawn, known, scores(drawn, known))
    rest = others(folder)
    drawn = predicted(properties, estimator, rest, "redshift given")
    record("others, redshift given", drawn, rest, scores(drawn, rest))
    distant = fors2(folder, _N_FORS2)
    drawn = predicted(properties, estimator, distant, "whole")
    record("FORS2, redshift given", drawn, distant, shape_residuals(drawn, distant))
    return result


def measurements() -> dict:
    """Return the functions of a spectrum and its redshift that are compared."""
    functions: dict = {"Dn4000": dn4000}
    for name, window in _LINES.items():
        functions[f"asinh EW {name}"] = lambda flux, z, w=window: np.arcsinh(
            equivalent_width(flux, z, w)
        )
    return functions


def predicted(properties, estimator, sample: Observed, mode: str, selection=None):
    """Predict spectra from magnitudes, with the factors of the estimator.

    Magnitudes of the spectra are declared as those in a fibre, but for ``whole``, in which they are
    taken as total ones; those of ``total`` are total ones, and the spectra in the fibre.
    ``selection`` are the `SpectrumOptions`.
    """
    flux = sample.total
    if mode != "total":
        flux = sample.nmgy * 10 ** (-0.4 * estimator.network.zero_points.numpy())
    batch = photometry_batch(flux, np.where(np.isfinite(flux), _ERROR * flux, np.nan))
    if mode.startswith("redshift"):
        batch = coerce_photometry(batch, aperture="fibre")
    options = {"seed": 0, "progress": False, "on_error": "flag"}
    known = {} if mode == "redshift inferred" else {"known": {"redshift": sample.redshift}}
    posterior = properties.predict(photometry=batch, n_draws=64, **known, **options)
    return estimator.predict(
        None,
        batch,
        posterior,
        n_draws=_N_DRAWS,
        aperture="total" if mode == "whole" else "fibre",
        options=selection,
        **options,
    )


def with_factors(estimator: SpectrumEstimator, factors: SpectrumRecalibration) -> SpectrumEstimator:
    """Return an estimator with other factors of the ranges."""
    return SpectrumEstimator(estimator.network, card={"recalibration": factors.to_dict()})


def fitted_factors(drawn: SpectrumDraws, sample: Observed) -> SpectrumRecalibration:
    """Fit factors of the ranges and of the lines."""
    return SpectrumRecalibration.fit(drawn, sample.flux * UNIT, noise=sample.noise * UNIT)


def coverage(flux: np.ndarray, sample: Observed, redshift: np.ndarray) -> dict:
    """Return the fraction of observed pixels in the ranges of draws plus noise.

    ``tenths`` are those of the rest wavelength, from the blue.
    """
    good = np.isfinite(sample.flux) & np.isfinite(flux).all(axis=1)
    below = ndtr((sample.flux[:, None] - flux) / sample.noise[:, None]).mean(axis=1)
    rest = WAVELENGTH / (1 + sample.redshift[:, None])
    edges = np.quantile(rest[good], np.linspace(0, 1, 11))
    result: dict = {}
    for level in (0.68, 0.95):
        inside = np.abs(below - 0.5) < level / 2
        name = f"coverage_{level * 100:.0f}"
        result[name] = float(inside[good].mean())
        result[f"{name}, tenths"] = [
            float(inside[good & (rest >= low) & (rest <= high)].mean())
            for low, high in zip(edges[:-1], edges[1:], strict=True)
        ]
    return result


def scores(drawn, sample: Observed) -> dict:
    """Score continuum, ranges, Dn4000, equivalent widths and redshifts."""
    flux = drawn.flux.value
    middle, z = np.median(flux, axis=1), sample.redshift
    good = np.isfinite(sample.flux)
    free = line_free(z) & good
    ratio = _smooth(middle, good) / _smooth(np.where(good, sample.flux, 0.0), good)
    each = np.array(
        [
            np.median(np.abs(r[f] - 1)) if f.any() else np.nan
            for r, f in zip(ratio, free, strict=True)
        ]
    )
    rest = WAVELENGTH / (1 + z[:, None])
    blue = free & (rest < 4200)
    entry: dict = {
        "n": len(z),
        "continuum_residual": float(np.nanmedian(each)),
        "continuum_residual_p84": float(np.nanquantile(each, 0.84)),
        "bias_below_4200": float(np.nanmedian(ratio[blue]) - 1),
        "redshift_bias": float(np.median(np.median(drawn.redshift, axis=1) - z)),
    } | coverage(flux, sample, np.median(drawn.redshift, axis=1))
    noise = np.random.default_rng(0).normal(size=flux.shape).astype(np.float32)
    noisy = flux + noise * sample.noise[:, None].astype(np.float32)
    for name, function in measurements().items():
        true = on_observed(function, sample)
        entry[name] = compared(on_draws(function, flux, drawn.redshift), true)
        with_noise = compared(on_draws(function, noisy, drawn.redshift), true)
        for level in ("coverage_68", "coverage_95"):
            entry[name][f"{level}, with noise"] = with_noise[level]
    return entry


def on_draws(function, flux: np.ndarray, redshift: np.ndarray) -> np.ndarray:
    """Apply a measurement to every draw, shape (n, k)."""
    return np.array(
        [
            [function(f, at) for f, at in zip(*row, strict=True)]
            for row in zip(flux, redshift, strict=True)
        ]
    )


def on_observed(function, sample: Observed) -> np.ndarray:
    """Apply a measurement to the observed spectra, shape (n,)."""
    return np.array([function(f, at) for f, at in zip(sample.flux, sample.redshift, strict=True)])


def dn4000(flux: np.ndarray, z: float) -> float:
    """Measure Dn4000 (Balogh et al. 1999)."""
    rest, per_frequency = WAVELENGTH / (1 + z), flux * WAVELENGTH**2
    sides = [
        per_frequency[(rest > low) & (rest < high)] for low, high in ((3850, 3950), (4000, 4100))
    ]
    if rest[0] > 3852 or any(np.isfinite(side).mean() < 0.9 for side in sides):
        return np.nan
    return float(np.nanmean(sides[1]) / np.nanmean(sides[0]))


def equivalent_width(flux: np.ndarray, z: float, window: tuple[float, float]) -> float:
    """Measure the equivalent width (Angstrom, rest frame) in a window, positive in emission."""
    rest = WAVELENGTH / (1 + z)
    low, high = window
    inside = (rest > low) & (rest < high)
    outside = ((rest > low - _SIDEBAND) & (rest < low - _WINDOW)) | (
        (rest > high + _WINDOW) & (rest < high + _SIDEBAND)
    )
    if np.isfinite(flux[inside]).mean() < 0.9 or np.isfinite(flux[outside]).mean() < 0.5:
        return np.nan
    continuum = np.nanmedian(flux[outside])
    return float(np.nanmean(flux[inside] / continuum - 1) * (high - low))


def compared(draws: np.ndarray, true: np.ndarray) -> dict:
    """Return bias, robust scatter, correlation and coverage of the median of draws."""
    middle = np.median(draws, axis=1)
    good = np.isfinite(true) & np.isfinite(middle)
    error = (middle - true)[good]
    result = {
        "n": int(good.sum()),
        "bias": float(np.median(error)),
        "scatter": float(1.4826 * np.median(np.abs(error - np.median(error)))),
        "correlation": float(np.corrcoef(middle[good], true[good])[0, 1]),
    }
    for level in (0.68, 0.95):
        # Ranges of k draws that contain further draws with this probability.
        tails = [0.5 - level / 2, 0.5 + level / 2]
        low, high = np.quantile(draws[good], tails, axis=1, method="weibull")
        inside = (true[good] > low) & (true[good] < high)
        result[f"coverage_{level * 100:.0f}"] = float(inside.mean())
    return result


def active_nuclei(drawn, sample: Observed) -> dict:
    """Score classes in the [N II] diagram: those of the real lines and those of most draws.

    Galaxies whose four lines are measured with a signal-to-noise ratio above 3 are used; the limit
    is the curve of Kauffmann et al. (2003), as for star formation, and those between it and that of
    Kewley et al. (2001) are left out.
    """
    names = ("halpha", "hbeta", "oiii5007", "nii6584")
    active, fractions = [], []
    for row in range(len(sample)):
        good = np.isfinite(sample.flux[row])
        inner = slice(*(np.flatnonzero(good)[[0, -1]] + [0, 1]))
        spectrum = Spectrum(
            flux=np.nan_to_num(sample.flux[row, inner]) * UNIT,
            spectral_axis=WAVELENGTH[inner] * u.AA,
            uncertainty=StdDevUncertainty(np.nan_to_num(sample.noise[row, inner], nan=1e3)),
            mask=~good[inner],
            redshift=float(sample.redshift[row]),
        )
        table = measure_lines(spectrum, names)
        flux, error = table["flux"].value, table["flux_err"].value
        if not (flux > 3 * error).all():
            continue
        kind = BPT_CLASSES[int(bpt_class(np.log10(flux[3] / flux[0]), np.log10(flux[2] / flux[1])))]
        if kind == "composite":
            continue
        active.append(kind == "agn")
        fractions.append(
            active_fraction(drawn.flux.value[row, :_BPT_DRAWS], drawn.redshift[row, :_BPT_DRAWS])
        )
    is_active = np.array(active, bool)
    counts = {"n_agn": int(is_active.sum()), "n_star_forming": int((~is_active).sum())}
    if is_active.all() or not is_active.any():
        return counts
    return counts | balanced(np.array(fractions), is_active)


def dispersions(drawn, sample: Observed) -> dict:
    """Compare velocity dispersions measured on draws with those of the pipeline of SDSS (km/s)."""
    rows = np.flatnonzero(np.isfinite(sample.dispersion))
    found = np.array(
        [
            median_measured(
                measure_kinematics,
                "dispersion",
                drawn.flux.value[row, :_KINEMATICS_DRAWS],
                drawn.redshift[row, :_KINEMATICS_DRAWS],
            )
            for row in rows
        ]
    )
    error = found - sample.dispersion[rows]
    return {
        "n": len(rows),
        "bias": float(np.nanmedian(error)),
        "scatter": robust_scatter(error),
        "scatter_of_sample": robust_scatter(sample.dispersion[rows]),
    }


def _patched(flux: np.ndarray) -> np.ndarray:
    """Interpolate bad pixels inside the covered range, so that no band is lost."""
    filled = flux.copy()
    for row in filled:
        good = np.flatnonzero(np.isfinite(row))
        inner = slice(good[0], good[-1] + 1)
        row[inner] = np.interp(np.arange(len(row))[inner], good, row[good])
    return filled


def _smooth(values: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Average over 25 good pixels."""
    kernel = np.ones(_SMOOTHING)
    sums = [
        [np.convolve(row, kernel, mode="same") for row in (np.where(g, v, 0.0), g.astype(float))]
        for v, g in zip(values, good, strict=True)
    ]
    return np.array([total / np.where(count > 0, count, np.nan) for total, count in sums])


def _plot(path: Path, drawn, sample: Observed, n: int = 8) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    n = min(n, len(sample))
    figure, axes = plt.subplots(n, 1, figsize=(11, 2.2 * n), constrained_layout=True)
    for k, ax in enumerate(np.atleast_1d(axes)):
        ax.plot(WAVELENGTH, sample.flux[k], color="0.6", lw=0.5, label="SDSS spectrum")
        low, middle, high = np.quantile(drawn.flux.value[k], [0.16, 0.5, 0.84], axis=0)
        ax.fill_between(WAVELENGTH, low, high, color="C1", alpha=0.4, lw=0)
        ax.plot(WAVELENGTH, middle, color="C3", lw=0.8, label="predicted from its magnitudes")
        top = 1.6 * np.nanpercentile(sample.flux[k], 97)
        ax.set(xlim=(3800, 9200), ylim=(0, top), title=f"z = {sample.redshift[k]:.4f}")
    axes[0].legend(loc="upper right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=70)
    plt.close(figure)
