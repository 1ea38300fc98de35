"""Compare real spectra with spectra predicted from their synthetic magnitudes.

    python benchmarks/spectra.py real FOLDER [--plot DIR] --out results/spectra

FOLDER holds ``sdss_spectra.fits``.  The magnitudes of each spectrum are integrals over the bands;
the spectrum is predicted from these alone, with and without the known redshift.  No real spectrum
was used in training.  Called by `spectra.py`.
"""

from __future__ import annotations

from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.table import Table
from spectra_sample import UNIT, WAVELENGTH, line_free, photometry_batch

from astrogenspec.surveys import BANDS
from astrogenspec.synthetic import synthetic_flux


def run_real(properties, estimator, folder: Path, plot: Path | None) -> dict:
    """Predict real spectra from their synthetic magnitudes and score the residuals."""
    with fits.open(folder / "sdss_spectra.fits") as hdus:
        table = Table.read(hdus[1])
        wavelength = 10 ** hdus["LOGLAM"].data.astype(float)
        flux, ivar = (np.array(hdus[name].data, dtype=float) for name in ("FLUX", "IVAR"))
    flux = np.where(ivar > 0, flux, np.nan)
    nmgy = synthetic_flux(wavelength * u.AA, _patched(flux) * UNIT).value
    covered = np.isfinite(nmgy)
    on_survey = photometry_batch(
        nmgy * 10 ** (-0.4 * estimator.network.zero_points.numpy()),
        np.where(covered, 0.03 * nmgy, np.nan),
    )
    options = {"seed": 0, "progress": False, "on_error": "flag"}
    result: dict = {"kind": "real SDSS spectra, held out", "n": len(table)}
    posterior = properties.predict(photometry=on_survey, n_draws=64, **options)
    known = properties.predict(
        photometry=on_survey,
        n_draws=64,
        known={"redshift": np.asarray(table["z"], float)},
        **options,
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
    return result


def _patched(flux: np.ndarray) -> np.ndarray:
    """Interpolate bad pixels inside the covered range, so that no band is lost."""
    filled = flux.copy()
    for row in filled:
        good = np.flatnonzero(np.isfinite(row))
        inner = slice(good[0], good[-1] + 1)
        row[inner] = np.interp(np.arange(len(row))[inner], good, row[good])
    return filled


def _smoothed(
    wavelength: np.ndarray, flux: np.ndarray, drawn, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Median draw and real spectrum on the same pixels, both smoothed over 25 pixels."""
    real = np.interp(WAVELENGTH, wavelength, flux, left=np.nan, right=np.nan)
    kernel = np.ones(25) / 25
    smooth = lambda x: np.convolve(x, kernel, mode="same")  # noqa: E731
    return smooth(np.median(drawn.flux.value[k], axis=0)), smooth(real)


def _plot(path: Path, wavelength: np.ndarray, flux: np.ndarray, drawn, table: Table) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        len(table), 1, figsize=(11, 2.4 * len(table)), constrained_layout=True
    )
    for k, ax in enumerate(axes):
        ax.plot(wavelength, flux[k], color="0.6", lw=0.5, label="SDSS spectrum")
        low, middle, high = np.quantile(drawn.flux.value[k], [0.16, 0.5, 0.84], axis=0)
        ax.fill_between(WAVELENGTH, low, high, color="C1", alpha=0.4, lw=0)
        ax.plot(WAVELENGTH, middle, color="C3", lw=0.8, label="predicted from its magnitudes")
        ax.set(
            xlim=(3800, 9200),
            ylim=(0, 1.6 * np.nanpercentile(flux[k], 97)),
            title=f"z = {table['z'][k]:.4f}",
        )
    axes[0].legend(loc="upper right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=70)
    plt.close(figure)
