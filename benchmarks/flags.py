"""Measure the flags of out-of-distribution inputs: detections of outliers and false alarms.

    python benchmarks/flags.py FOLDER --out results/benchmarks
    python benchmarks/flags.py FOLDER --statistics statistics.json --out results/benchmarks

FOLDER holds ``sdss_photometry.fits``, ``sdss_images.npz`` and ``sdss_images.fits``.  The statistics
of the training set are those in the card of the model, or those written by
``recipes/training_set.py``.  Outliers are made from simulated galaxies that are not part of the
statistics.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _path  # noqa: F401
import numpy as np
import torch
from astropy.table import Table
from real_images import RealImages
from training_set import photometry_batch, simulate

from astrogenspec import PropertyEstimator
from astrogenspec.flags import Flag
from astrogenspec.inference.outliers.detector import outlier_flags
from astrogenspec.inputs.cutouts import CutoutBatch
from astrogenspec.inputs.observations import observe
from astrogenspec.inputs.photometry import PhotometryBatch
from astrogenspec.simulate import load_priors
from astrogenspec.simulate.images import add_noise
from astrogenspec.simulate.psf import draw_point_spread
from astrogenspec.surveys import BANDS, SDSS
from astrogenspec.weights import load_card

#: Seed of the simulated galaxies from which outliers are made.
SEED = 5002
#: Entry of the card with the statistics for outlier detection.
STATISTICS = "novelty"
PIXELS = np.arange(64) - 31.5


# ---- image outliers: functions of flux, inverse variance and random generator; the arrays are
# copies


def blank(flux, ivar, rng):
    """Return empty sky."""
    sky = np.array([SDSS.pixel_sigma[b] for b in BANDS], np.float32)[:, None, None]
    return rng.normal(0, sky, flux.shape), np.broadcast_to(sky**-2.0, flux.shape)


def star(flux, ivar, rng):
    """Return point sources, r = 14.5 to 18.3, with main-sequence colours and survey seeing."""
    n = len(flux)
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    spread = draw_point_spread(n, SDSS, load_priors("structure"), generator, "cpu")
    red, i = rng.uniform(14.5, 18.3, n), rng.uniform(0.05, 1.4, n)
    green = 1.39 * (1 - np.exp(-4.9 * i**3 - 2.45 * i**2 - 1.68 * i - 0.05))
    magnitude = np.stack([red + green * 2.7, red + green, red, red - i, red - 1.6 * i], axis=1)
    x, y = rng.uniform(-0.5, 0.5, (2, n, 1, 1))
    square = ((PIXELS - x) ** 2 + (PIXELS[:, None] - y) ** 2)[:, None] * 0.396**2
    light = np.zeros(flux.shape)
    for sigma, weight in zip(
        spread.sigma.numpy().transpose(2, 0, 1), spread.weight.numpy(), strict=True
    ):
        variance = sigma[:, :, None, None] ** 2
        light += weight * np.exp(-square / 2 / variance) / (2 * np.pi * variance) * 0.396**2
    light *= 10 ** (0.4 * (22.5 - magnitude))[:, :, None, None]
    noisy, inverse = add_noise(torch.tensor(light, dtype=torch.float32), SDSS, generator)
    return noisy.numpy(), inverse.numpy()


def cosmic_ray(flux, ivar, rng):
    """Add a track of four pixels in r, 50 to 500 times the noise, anywhere."""
    for k in range(len(flux)):
        y, x = rng.integers(4, 58, 2)
        charge = 0.029 * 10 ** rng.uniform(1.7, 2.7)
        flux[k, 2, y + np.arange(4) * rng.integers(0, 2), x + np.arange(4)] += charge
    return flux, ivar


def trail(flux, ivar, rng):
    """Add a satellite's trail in i across the cutout, as bright as the centre of the galaxy."""
    for k in range(len(flux)):
        angle, away = rng.uniform(0, np.pi), rng.uniform(-20, 20)
        distance = PIXELS * np.sin(angle) - PIXELS[:, None] * np.cos(angle) - away
        for band in (2, 3):
            flux[k, band] += flux[k, band].max() * np.exp(-0.5 * (distance / 1.6) ** 2)
    return flux, ivar


def saturated(flux, ivar, rng):
    """Clip galaxies as bright as r = 15 at a third of their peak in all bands."""
    flux = 8 * flux
    top = flux[:, :, 26:38, 26:38].max(axis=(2, 3), keepdims=True)
    return np.minimum(flux, 0.33 * top), ivar


def masked_core(flux, ivar, rng):
    """Mask the pixels within 4 pixels of the centre."""
    hole = np.hypot(PIXELS, PIXELS[:, None]) < 4
    return np.where(hole, 0, flux), np.where(hole, 0, ivar)


def masked_half(flux, ivar, rng):
    """Mask half of the cutout, as at the edge of an image."""
    outside = rng.uniform(-4, 4, (len(flux), 1, 1, 1)) < PIXELS
    outside = np.broadcast_to(outside, flux.shape)
    return np.where(outside, 0, flux), np.where(outside, 0, ivar)


def misregistered(flux, ivar, rng):
    """Displace one of g, r, i by 2 to 4 pixels."""
    for k in range(len(flux)):
        angle, band = rng.uniform(0, 2 * np.pi), rng.integers(1, 4)
        reach = rng.uniform(2, 4)
        step = np.rint([reach * np.sin(angle), reach * np.cos(angle)]).astype(int)
        flux[k, band] = np.roll(flux[k, band], step, axis=(0, 1))
    return flux, ivar


def bright_neighbour(flux, ivar, rng):
    """Add a star 15 to 25 pixels away, 2 to 4 magnitudes brighter than the galaxy."""
    for k in range(len(flux)):
        angle, away = rng.uniform(0, 2 * np.pi), rng.uniform(15, 25)
        square = (PIXELS - away * np.cos(angle)) ** 2 + (
            PIXELS[:, None] - away * np.sin(angle)
        ) ** 2
        shape = np.exp(-square / (2 * 1.5**2)) / (2 * np.pi * 1.5**2)
        total = flux[k].clip(0).sum(axis=(1, 2)) * 10 ** (0.4 * rng.uniform(2, 4))
        flux[k] += total[:, None, None] * shape
    return flux, ivar


def off_centre(flux, ivar, rng):
    """Move the galaxy 14 to 20 pixels off centre."""
    for k in range(len(flux)):
        angle, away = rng.uniform(0, 2 * np.pi), rng.uniform(14, 20)
        step = np.rint([away * np.sin(angle), away * np.cos(angle)]).astype(int)
        flux[k] = np.roll(flux[k], step, axis=(1, 2))
    return flux, ivar


def low_sky(flux, ivar, rng):
    """Over-subtract the sky by half the noise of a pixel."""
    return flux - 0.5 * np.sqrt(np.median(1 / ivar, axis=(2, 3), keepdims=True)), ivar


def wrong_noise(flux, ivar, rng):
    """Underestimate the uncertainties by a factor of 2 to 5."""
    return flux, ivar * rng.uniform(2, 5, (len(flux), 1, 1, 1)) ** 2


def wrong_unit(flux, ivar, rng):
    """Shift the zero point of one band by 0.6 mag."""
    flux[:, 1] *= 1.74
    return flux, ivar / np.array([1, 1.74**2, 1, 1, 1], np.float32)[:, None, None]


IMAGES = {
    "blank field": (blank, Flag.BLANK_FIELD),
    "star": (star, Flag.POINT_SOURCE),
    "cosmic ray": (cosmic_ray, Flag.ARTEFACT),
    "satellite trail": (trail, Flag.ARTEFACT),
    "saturated core": (saturated, Flag.SATURATED),
    "masked core": (masked_core, Flag.MASKED),
    "half outside": (masked_half, Flag.MASKED),
    "misregistered by 2-4 pixels": (misregistered, Flag.MISREGISTERED),
    "star 2-4 mag brighter beside": (bright_neighbour, Flag.NEIGHBOUR),
    "14-20 pixels off centre": (off_centre, Flag.OFF_CENTRE),
    "sky too low by 0.5 sigma": (low_sky, Flag.BACKGROUND),
    "uncertainty too small by 2-5": (wrong_noise, Flag.NOISE),
    "g off by 0.6 mag": (wrong_unit, Flag.IMAGE_COLOURS),
}


# ---- photometric outliers: functions of flux, error and random generator


def locus(low: float, high: float) -> Callable:
    """Return a function that makes main-sequence stars between two r - i colours."""

    def make(flux, error, rng):
        n = len(flux)
        red, i = rng.uniform(14.5, 17.7, n), rng.uniform(low, high, n)
        green = 1.39 * (1 - np.exp(-4.9 * i**3 - 2.45 * i**2 - 1.68 * i - 0.05))
        ultra = np.where(green < 1.2, 0.6 + 1.4 * green, 2.5)
        magnitude = np.stack(
            [red + green + ultra, red + green, red, red - i, red - 1.55 * i], axis=1
        )
        magnitude += rng.normal(0, 0.03, magnitude.shape)
        new = 10 ** (0.4 * (22.5 - magnitude))
        return new, 0.02 * new

    return make


def quasar(flux, error, rng):
    """Return low-redshift quasars: blue, mostly with u - g below 0.5."""
    n = len(flux)
    colours = rng.normal([0.15, 0.2, 0.15, 0.1], 0.12, (n, 4))
    magnitude = rng.uniform(16, 18, (n, 1)) + np.column_stack(
        [colours[:, ::-1].cumsum(axis=1)[:, ::-1], np.zeros(n)]
    )
    new = 10 ** (0.4 * (22.5 - magnitude))
    return new, 0.02 * new


def one_band_wrong(flux, error, rng):
    """Shift one of g, r, i, z by half a magnitude, up or down."""
    band = rng.integers(1, 5, len(flux))
    factor = 10 ** (0.2 * rng.choice([-1, 1], len(flux)))
    flux[np.arange(len(flux)), band] *= factor
    return flux, error


def swapped(flux, error, rng):
    """Reverse the order of the bands."""
    return flux[:, ::-1].copy(), error[:, ::-1].copy()


def reddened(flux, error, rng):
    """Add uncorrected Galactic extinction of E(B-V) = 0.4."""
    factor = 10 ** (-0.16 * np.array([SDSS.extinction_coefficient[b] for b in BANDS]))
    return flux * factor, error


def faint(flux, error, rng):
    """Set the signal-to-noise ratio to 1 to 3."""
    return flux, flux / rng.uniform(1, 3, (len(flux), 1))


PHOTOMETRY = {
    "M stars, r-i 0.6-1.6": (locus(0.6, 1.6), Flag.COLOURS),
    "F to K stars, r-i 0.05-0.5": (locus(0.05, 0.5), Flag.COLOURS),
    "quasars": (quasar, Flag.COLOURS),
    "one band off by 0.5 mag": (one_band_wrong, Flag.COLOURS),
    "bands in reverse order": (swapped, Flag.COLOURS),
    "E(B-V) = 0.4 not corrected": (reddened, Flag.COLOURS),
    "signal-to-noise ratio 1-3": (faint, Flag.LOW_SIGNAL),
}


def rates(statistics: dict, observations, flag: Flag | None = None) -> dict[str, Any]:
    """Return the fraction of flagged galaxies, and that with one flag or counts of each flag."""
    codes = outlier_flags(statistics, observations).codes
    result: dict[str, Any] = {"n": len(codes), "flagged": round(float(np.mean(codes != 0)), 4)}
    if flag is not None:
        result["with_this_reason"] = round(float(np.mean((codes & flag) != 0)), 4)
    else:
        counts = {member: int(np.count_nonzero(codes & member)) for member in Flag}
        result["reasons"] = {str(member.name).lower(): n for member, n in counts.items() if n}
    return result


def unexplained(estimator: PropertyEstimator, photometry: PhotometryBatch) -> dict[str, float]:
    """Return the fractions of galaxies with a small posterior predictive p-value."""
    if "predictive" not in estimator.card:
        return {}
    posterior = estimator.predict(
        photometry=photometry, n_draws=50, seed=0, on_error="flag", progress=False
    )
    p_value = np.asarray(posterior.to_table()["predictive_p_value"], float)
    return {
        f"p_value_below_{limit}": round(float(np.mean(p_value < limit)), 4)
        for limit in (0.01, 0.001)
    }


def detections(statistics: dict, estimator: PropertyEstimator, n: int) -> dict:
    """Measure the detection rate of each kind of outlier."""
    data, rng = simulate(n, SEED, images=True), np.random.default_rng(0)
    usual = observe(
        CutoutBatch(data["image"], data["ivar"]), photometry_batch(data["flux"], data["error"])
    )
    result: dict[str, Any] = {"usual": rates(statistics, usual), "images": {}, "photometry": {}}
    result["usual"] |= unexplained(estimator, usual.photometry)
    for name, (make, flag) in IMAGES.items():
        flux, ivar = make(data["image"].copy(), data["ivar"].copy(), rng)
        cutouts = CutoutBatch(np.asarray(flux, np.float32), np.asarray(ivar, np.float32))
        observations = observe(cutouts, None, ebv=0.0, measure=False)
        result["images"][name] = rates(statistics, observations, flag)
    for name, (make, flag) in PHOTOMETRY.items():
        flux, error = make(data["flux"].astype(float), data["error"].astype(float), rng)
        photometry = photometry_batch(flux, error)
        result["photometry"][name] = rates(statistics, observe(None, photometry), flag)
        result["photometry"][name] |= unexplained(estimator, photometry)
    return result


def real_rates(statistics: dict, estimator: PropertyEstimator, folder: Path) -> dict:
    """Measure false alarms on real galaxies: photometry in several sets of bands, and cutouts."""
    table = Table.read(folder / "sdss_photometry.fits")
    columns = {
        kind: np.stack([np.asarray(table[f"{kind}{b}"], float) for b in BANDS], axis=1)
        for kind in ("modelflux_", "modelflux_ivar_", "ext_")
    }
    result = {}
    for bands in ("ugriz", "griz", "gri", "gr"):
        missing = np.array([band not in bands for band in BANDS])
        flux = np.where(missing, np.nan, columns["modelflux_"])
        error = np.where(missing, np.nan, columns["modelflux_ivar_"] ** -0.5)
        photometry = photometry_batch(flux, error, columns["ext_"])
        result[f"photometry, {bands}"] = rates(statistics, observe(None, photometry))
        result[f"photometry, {bands}"] |= unexplained(estimator, photometry)
    images = RealImages.read(folder).cutouts
    result["cutouts, gri"] = rates(statistics, observe(images, None, ebv=0.0, measure=False))
    return result


def main() -> None:
    """Run the benchmark and write its results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="astrogenspec-properties")
    parser.add_argument("--n-test", type=int, default=1000, help="galaxies of each kind of outlier")
    parser.add_argument("--statistics", type=Path, metavar="JSON", help="file instead of the card")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    arguments = parser.parse_args()
    card = load_card(arguments.model)
    if arguments.statistics is not None:
        card = json.loads(arguments.statistics.read_text())
    result: dict[str, Any] = {"kind": "flags of unusual inputs"}
    if STATISTICS not in card:
        parser.error(f"{arguments.model} has no statistics of its training set: give --statistics.")
    estimator = PropertyEstimator.from_pretrained(arguments.model)
    result["real, false alarms"] = real_rates(card[STATISTICS], estimator, arguments.folder)
    found = detections(card[STATISTICS], estimator, arguments.n_test)
    result |= {f"simulated, {kind}": values for kind, values in found.items()}
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "flags.json").write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
