"""Draw the picture of the README: a real galaxy, its generated and its observed SDSS spectrum.

    python recipes/readme_figure.py FOLDER --out docs/_static/real_galaxy.png

FOLDER holds ``sdss_images.npz``, ``sdss_images.fits`` and ``sdss_galaxy_spectra.fits.gz``.  The
galaxy is the only one in these files with both a cutout and a spectrum.  The weights were trained
on simulations only, so that neither its image nor its redshift was part of the training.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import astropy.units as u
import matplotlib as mpl
import numpy as np
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.table import Table

from astrogenspec import PropertyEstimator, SpectrumEstimator, plotting

mpl.use("Agg")

MODEL = "astrogenspec-properties-simulated"
SPECTRA = "astrogenspec-spectra-simulated"
OBJID = 588017702949552181
PLATE, MJD, FIBER = 1715, 54212, 196
PIXEL_SCALE = 0.396 * u.arcsec
#: E(B-V) (mag) interpolated from SDSS galaxies within half a degree.
EBV = 0.045
RELATIVE_ERROR = 0.03
#: Sky noise (nmgy per pixel) of SDSS frames and of these cutouts, which were made from colour
#: pictures with suppressed noise; the difference is added.
SKY_NOISE = {"g": (0.017, 0.004), "r": (0.028, 0.006), "i": (0.041, 0.008)}
#: Vacuum wavelengths of the labelled features (Angstrom).
LINES = {
    "Ca H+K": 3952.2,
    r"H$\beta$": 4862.7,
    r"[O$\,$III]": 5008.2,
    r"Mg$\,b$": 5176.6,
    r"Na$\,$D": 5894.6,
    r"H$\alpha$+[N$\,$II]": 6564.6,
    r"[S$\,$II]": 6725.5,
}
BLUE, RED, BLACK = "#2f5d8a", "#c2452d", "#222222"


def read_galaxy(folder: Path) -> tuple[dict[str, CCDData], dict[str, u.Quantity]]:
    """Read the cutout and the catalogue photometry."""
    table = Table.read(folder / "sdss_images.fits")
    row = int(np.flatnonzero(table["objid_dr7"] == OBJID)[0])
    data = np.load(folder / "sdss_images.npz")
    rng = np.random.default_rng(0)
    cutout = {}
    for k, (band, (sky, present)) in enumerate(SKY_NOISE.items()):
        noise = rng.normal(scale=np.sqrt(sky**2 - present**2), size=(64, 64))
        ivar = data["ivar"][row, k]
        error = np.where(ivar > 0, 1 / np.sqrt(np.maximum(ivar, 1e-12)), 1.0)
        cutout[band] = CCDData(
            data["flux"][row, k] + noise,
            unit=u.nmgy,
            uncertainty=StdDevUncertainty(error),
            mask=ivar <= 0,
        )
    photometry = {}
    for band, column in (("g", "mag_g"), ("r", "mag_r"), ("i", "mag_i_img")):
        flux = 10 ** (0.4 * (22.5 - float(table[column][row]))) * u.nmgy
        photometry |= {f"flux_{band}": flux, f"flux_err_{band}": RELATIVE_ERROR * flux}
    return cutout, photometry


def read_spectrum(folder: Path) -> tuple[np.ndarray, np.ndarray, float]:
    """Read the observed spectrum: wavelength, flux (1e-17 erg/s/cm2/A), redshift."""
    with fits.open(folder / "sdss_galaxy_spectra.fits.gz") as hdus:
        rows = hdus["GALAXIES"].data
        same = (rows["plate"] == PLATE) & (rows["mjd"] == MJD) & (rows["fiberid"] == FIBER)
        row = int(np.flatnonzero(same)[0])
        wavelength = 10.0 ** hdus["LOGLAM"].data.reshape(-1)
        flux = np.where(hdus["IVAR"].data[row] > 0, hdus["FLUX"].data[row], np.nan)
        return wavelength, flux, float(rows["z"][row])


def draw_image(ax: Any, cutout: dict[str, CCDData]) -> None:
    """Draw the colour image with a scale bar and the directions of north and east."""
    color = plotting.color_image(np.stack([cutout[band].data for band in "gri"]))
    ax.imshow(color, origin="lower")
    ax.set(xticks=[], yticks=[])
    ax.set_title("input: g, r, i cutout", fontsize=10)
    length = float((5 * u.arcsec / PIXEL_SCALE).decompose())
    ax.plot([4, 4 + length], [4, 4], color="white", lw=2)
    ax.text(4 + length / 2, 5.5, '5"', color="white", ha="center", va="bottom", fontsize=9)
    arrow = {"arrowstyle": "-", "color": "white", "lw": 1.2}
    for tip, name, at in (((59, 12), "N", (59, 14.5)), ((51, 4), "E", (48.5, 4))):
        ax.annotate("", tip, (59, 4), arrowprops=arrow)
        ax.text(*at, name, color="white", ha="center", va="center", fontsize=9)


def draw_redshift(ax: Any, draws: np.ndarray, true: float) -> None:
    """Draw the posterior of the redshift and the spectroscopic redshift."""
    ax.hist(draws, bins=40, density=True, color=BLUE, alpha=0.55)
    ax.axvline(true, color=BLACK, lw=1.2)
    ax.set(yticks=[], xlabel="redshift", xlim=(0, np.percentile(draws, 99.5)))
    ax.set_title("posterior; line: spectroscopic", fontsize=10)
    for side in ("left", "right", "top"):
        ax.spines[side].set_visible(False)


def draw_spectrum(
    ax: Any, spectra: Any, wavelength: np.ndarray, flux: np.ndarray, true: float
) -> None:
    """Draw the ranges and the best draw of the generated spectra, and the observed spectrum."""
    grid, draws = spectra.wavelength.value, spectra.flux[0].value
    draws = np.where(spectra.trusted[0], draws, np.nan)
    inside = np.isfinite(draws).all(axis=0)
    low, least, most, high = np.percentile(draws[:, inside], [2.5, 16, 84, 97.5], axis=0)
    ax.fill_between(grid[inside], low, high, color=BLUE, alpha=0.18, lw=0, label="95% of draws")
    ax.fill_between(grid[inside], least, most, color=BLUE, alpha=0.38, lw=0, label="68% of draws")
    ax.plot(wavelength, flux, color=BLACK, lw=0.5, label="observed, SDSS fibre spectrum")
    best = spectra.best_draw[0]
    label = f"best draw ($z = {spectra.redshift[0, best]:.3f}$)"
    ax.plot(grid, draws[best], color=RED, lw=0.8, label=label)
    ax.set(xlim=(3830, 9190), ylim=(0, 190))
    for name, rest in LINES.items():
        at = rest * (1 + true)
        ax.axvline(at, color="#888888", lw=0.6, ls=":", zorder=0)
        ax.text(
            at, 1.01, name, transform=ax.get_xaxis_transform(), rotation=90, fontsize=8, ha="center"
        )
    ax.set_xlabel("observed vacuum wavelength [Å]")
    ax.set_ylabel(r"$F_\lambda$ [$10^{-17}$ erg s$^{-1}$ cm$^{-2}$ Å$^{-1}$]")
    ax.set_title(
        f'output: spectrum in the 3" fibre (marks at the spectroscopic $z = {true:.4f}$)',
        fontsize=10,
        pad=46,
    )
    ax.legend(fontsize=8, ncols=2, loc="upper right", frameon=False)


def main(argv: list[str] | None = None) -> None:
    """Infer the galaxy and draw the picture."""
    import matplotlib.pyplot as plt

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of the data")
    parser.add_argument(
        "--out", type=Path, default=Path("docs/_static/real_galaxy.png"), help="output file"
    )
    options = parser.parse_args(argv)

    cutout, photometry = read_galaxy(options.folder)
    wavelength, flux, true = read_spectrum(options.folder)
    known = {"photometry": photometry, "ebv": EBV, "pixel_scale": PIXEL_SCALE, "seed": 1}
    posterior = PropertyEstimator.from_pretrained(MODEL).predict(cutout, **known)
    spectra = SpectrumEstimator.from_pretrained(SPECTRA).predict(
        cutout, posterior=posterior, n_draws=64, **known
    )
    median = np.median(posterior["redshift"].draws[0].value)
    print(
        f"redshift: {median:.4f} inferred, {true:.4f} spectroscopic; flags: {posterior.flags[0]!r}"
    )
    shown = np.isfinite(flux) & (wavelength > 4000) & (wavelength < 9000)
    middle = np.interp(
        wavelength[shown], spectra.wavelength.value, np.median(spectra.flux[0].value, axis=0)
    )
    print(f"median of generated over observed flux: {np.median(middle / flux[shown]):.2f}")
    for low, high in ((16, 84), (2.5, 97.5)):
        ends = np.percentile(spectra.flux[0].value, [low, high], axis=0)
        below, above = (np.interp(wavelength[shown], spectra.wavelength.value, end) for end in ends)
        inside = np.mean((flux[shown] > below) & (flux[shown] < above))
        print(f"observed pixels within percentiles {low} to {high}: {inside:.2f}")

    figure = plt.figure(figsize=(11.5, 4.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 3.3))
    top, bottom = left.subplots(2, 1, height_ratios=(2.2, 1))
    draw_image(top, cutout)
    draw_redshift(bottom, posterior["redshift"].draws[0].value, true)
    draw_spectrum(right.subplots(), spectra, wavelength, flux, true)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
