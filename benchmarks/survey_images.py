"""Measure what images of other surveys add to their photometry, and read a real one end to end.

    python benchmarks/survey_images.py simulated --n 1000 --out results/benchmarks
    python benchmarks/survey_images.py sizes --n 600 --out results/benchmarks
    python benchmarks/survey_images.py seeing --n 600 --out results/benchmarks
    python benchmarks/survey_images.py legacy FOLDER --out results/benchmarks

``simulated`` renders the same galaxies in the images of several surveys, with their pixels, seeing
and depth, beside their catalogues: scores of photometry, of image and photometry, and the change of
the CRPS of each quantity by the image, with an error.  ``sizes`` does so for smaller cutouts, and
``seeing`` for a survey one band of which is blurred.  The encoder was trained on images of SDSS:
all other surveys are held out.  ``legacy`` reads a cutout of the Legacy Surveys in FOLDER.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import torch
from astropy.io import fits
from astropy.nddata import InverseVariance, NDData
from scores import redshift_scores

from astrogenspec import PropertyEstimator
from astrogenspec.inputs.cutouts import coerce_cutouts
from astrogenspec.inputs.photometry import PhotometryBatch, measure_photometry
from astrogenspec.metrics import crps
from astrogenspec.quantities import QUANTITIES
from astrogenspec.simulate import SimulatedGalaxies, Simulator
from astrogenspec.simulate.dataset import TRAINING_SAMPLES, sed_columns
from astrogenspec.simulate.images import add_noise
from astrogenspec.simulate.photometry import observe_in
from astrogenspec.surveys import BANDS, CUTOUT_SIZE, SDSS, Survey, get_survey

SURVEYS = ("sdss", "legacy-dr10", "panstarrs", "des", "hsc", "lsst")
#: Sides of the cutouts, arcsec; the networks read 25.3.
SIZES = (26.0, 20.0, 15.0, 12.0, 9.0)
#: Seeing of the g band of DES, arcsec.
SEEING = (1.1, 1.7, 2.0)
#: Seed of the galaxies; those of the training have 1 to 4.
SEED = 501
_CUTOUT = CUTOUT_SIZE * SDSS.pixel_scale.to_value(u.arcsec)


@dataclass(frozen=True)
class Observed:
    """Catalogue and images of the same galaxies in one survey.

    Attributes
    ----------
    survey : Survey
    photometry : PhotometryBatch
        Of all bands.
    flux, ivar : ndarray, shape (n, bands, ny, nx)
        Images in `bands`, nmgy.
    bands : tuple of str
        Bands that the encoder reads.
    """

    survey: Survey
    photometry: PhotometryBatch
    flux: np.ndarray
    ivar: np.ndarray
    bands: tuple[str, ...]

    def images(self, size: float = _CUTOUT + 1) -> NDData:
        """Return cutouts of a side (arcsec)."""
        scale = self.survey.pixel_scale.to_value(u.arcsec)
        n = self.flux.shape[-1]
        cut = max((n - round(size / scale)) // 2, 0)
        part = np.s_[..., cut : n - cut, cut : n - cut]
        ivar = InverseVariance(self.ivar[part] / u.nmgy**2)
        return NDData(self.flux[part] * u.nmgy, uncertainty=ivar)


def observe_survey(simulator: Simulator, galaxies: SimulatedGalaxies, survey: Survey) -> Observed:
    """Simulate the catalogue and the images of a survey."""
    generator = torch.Generator().manual_seed(3)
    scale = survey.pixel_scale.to_value(u.arcsec)
    if survey is SDSS:
        size = CUTOUT_SIZE
        flux, error = (
            values.double().numpy()
            for values in (galaxies.observation.flux, galaxies.observation.error)
        )
    else:
        size = 2 * int(np.ceil((_CUTOUT + 1) / scale / 2))
        columns = sed_columns(simulator, galaxies)
        radius = galaxies.structure.radius_disk
        seen = observe_in(survey, columns["sed"], columns["sed_flux"], generator, radius=radius)
        flux, error = seen.flux.double().numpy(), seen.error.double().numpy()
    n = len(galaxies)
    calibration: dict[str, Any] = {}
    if survey is not SDSS:
        errors = np.array([survey.calibration_error[band] for band in survey.bands])
        calibration["calibration_error"] = errors
    photometry = PhotometryBatch(
        flux,
        error,
        np.zeros(n),
        np.zeros(n, bool),
        filters=tuple(survey.filters[band] for band in survey.bands),
        **calibration,
    )
    rendered = simulator.images(galaxies, generator, survey=survey, size=size)
    noisy, ivar = add_noise(rendered.flux, survey, generator)
    bands = tuple(band for band in survey.bands if band in BANDS)
    rows = [survey.bands.index(band) for band in bands]
    return Observed(survey, photometry, noisy[:, rows].numpy(), ivar[:, rows].numpy(), bands)


def predictions(
    estimator: PropertyEstimator, seen: Observed, images: NDData, alone: bool = True
) -> dict[str, np.ndarray]:
    """Return draws (n, draws, quantities) from photometry, both, and the image, internal units."""
    options = {"n_draws": 300, "seed": 1, "progress": False, "calibrated": False}
    image = {
        "bands": "".join(seen.bands),
        "pixel_scale": seen.survey.pixel_scale,
        "survey": seen.survey,
        "on_error": "flag",
    }
    found = {
        "photometry": estimator.predict(photometry=seen.photometry, **options),
        "both": estimator.predict(images, photometry=seen.photometry, **options, **image),
    }
    if alone:
        found["image"] = estimator.predict(images, ebv=0.0, **options, **image)
    return {
        name: np.stack(
            [
                np.log10(posterior[q].draws.value) if info.logarithmic else posterior[q].draws.value
                for q, info in QUANTITIES.items()
            ],
            axis=-1,
        )
        for name, posterior in found.items()
    }


def truth_of(galaxies: SimulatedGalaxies) -> np.ndarray:
    """Return the true quantities; metallicities that are not measurable are NaN."""
    theta = galaxies.theta.double().numpy().copy()
    theta[~galaxies.measurable.numpy().astype(bool), list(QUANTITIES).index("gas_metallicity")] = (
        np.nan
    )
    return theta


def scores(draws: np.ndarray, theta: np.ndarray) -> dict[str, float]:
    """Return the scores of the redshift, and R2 and coverage of all quantities."""
    found = redshift_scores(draws[..., 0], theta[:, 0])
    found.pop("pit_ks_fifths")
    for k, name in enumerate(QUANTITIES):
        known = np.isfinite(theta[:, k])
        true, own = theta[known, k], draws[known, :, k]
        low, high = np.quantile(own, [0.16, 0.84], axis=1)
        error = np.median(own, axis=1) - true
        found[f"r2_{name}"] = float(1 - np.mean(error**2) / true.var())
        found[f"coverage_68_{name}"] = float(np.mean((true > low) & (true < high)))
    return found


def change_of_crps(
    first: np.ndarray, second: np.ndarray, theta: np.ndarray
) -> dict[str, list[float]]:
    """Return the relative change of the mean CRPS from the second to the first, and its error."""
    result = {}
    for k, name in enumerate(QUANTITIES):
        known = np.isfinite(theta[:, k])
        one, two = (np.asarray(crps(d[known, :, k], theta[known, k])) for d in (first, second))
        change, mean = one - two, two.mean()
        error = change.std() / np.sqrt(len(change)) / mean
        result[name] = [round(float(change.mean() / mean), 4), round(float(error), 4)]
    return result


def run(estimator: PropertyEstimator, seen: Observed, images: NDData, theta: np.ndarray) -> dict:
    """Score one set of images."""
    draws = predictions(estimator, seen, images)
    found: dict = {name: scores(values, theta) for name, values in draws.items()}
    found["CRPS, both minus photometry"] = change_of_crps(draws["both"], draws["photometry"], theta)
    return found


def legacy(estimator: PropertyEstimator, folder: Path) -> dict:
    """Read the cutout of the Legacy Surveys of a galaxy of RESOLVE."""
    name = "legacysurvey_cutout_135.2130_1.1612_grz.fits"
    catalogue, redshift, ebv = {"g": 16.55, "r": 16.18, "z": 15.75}, 0.0194, 0.0359
    with fits.open(folder / name) as hdus:
        image = NDData(hdus[0].data * u.nmgy, meta=dict(hdus[0].header))
        image.meta.pop("", None)
        pixel_scale = 0.27 * u.arcsec
    cutouts = coerce_cutouts(image, bands="grz", pixel_scale=pixel_scale)
    measured = measure_photometry(cutouts, ebv)
    result = {
        "magnitudes": {
            band: round(float(22.5 - 2.5 * np.log10(measured.flux[0, BANDS.index(band)])), 3)
            for band in "grz"
        },
        "catalogue": catalogue,
        "redshift": redshift,
    }
    photometry = (
        {f"{band}": value * u.ABmag for band, value in catalogue.items()}
        | {f"{band}_err": 0.02 * u.mag for band in catalogue}
        | {"ebv": ebv}
    )
    options = {"survey": "legacy-dr10", "n_draws": 4000, "seed": 1, "progress": False}
    image_options = {"bands": "grz", "pixel_scale": pixel_scale}
    for mode, arguments in {
        "image": {"cutouts": image, "ebv": ebv, **image_options},
        "both": {"cutouts": image, "photometry": photometry, **image_options},
        "photometry": {"photometry": photometry},
    }.items():
        posterior = estimator.predict(**arguments, **options)
        draws = posterior["redshift"].draws.value[0]
        result[mode] = {
            "percentiles": [
                round(float(v), 4) for v in np.percentile(draws, [2.5, 16, 50, 84, 97.5])
            ],
            "rank": float(np.mean(draws < redshift)),
            "flag": posterior.flag[0] if hasattr(posterior, "flag") else "",
        }
    return result


def print_rows(label: str, found: dict) -> None:
    """Print the scores of one set of images."""
    print(label)
    names = ("redshift", "stellar_mass", "sfr", "black_hole_mass", "halpha_flux")
    for mode in ("photometry", "both", "image"):
        own = found[mode]
        shown = [
            f"{name} {own[f'r2_{name}']:.3f} {own[f'coverage_68_{name}']:.3f}" for name in names
        ]
        head = f"nmad {own['sigma_nmad']:.4f} bias {own['bias']:+.4f} 95% {own['coverage_95']:.3f}"
        print(f"  {mode:10s} {head} | " + " | ".join(shown))
    change = found["CRPS, both minus photometry"]
    print("  CRPS", {name: f"{100 * a:+.1f} +- {100 * b:.1f}%" for name, (a, b) in change.items()})
    sys.stdout.flush()


def main() -> None:
    """Run one of the measurements and write its results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=("simulated", "sizes", "seeing", "legacy"))
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--surveys", nargs="+", default=list(SURVEYS))
    parser.add_argument("--model", default="astrogenspec-properties-simulated")
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    estimator = PropertyEstimator.from_pretrained(options.model)
    result: dict = {"model": options.model, "n": options.n}
    if options.what == "legacy":
        result = legacy(estimator, options.folder)
        print(json.dumps(result, indent=1))
    else:
        simulator = Simulator()
        galaxies = simulator.draw(options.n, SEED, TRAINING_SAMPLES[1])
        theta = truth_of(galaxies)
        for label, seen, images in cases(simulator, galaxies, options):
            result[label] = run(estimator, seen, images, theta)
            print_rows(label, result[label])
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"survey_images_{options.what}.json"
    path.write_text(json.dumps(result, indent=1))


def cases(simulator: Simulator, galaxies: SimulatedGalaxies, options: argparse.Namespace):
    """Yield the label, the observations and the images of each case."""
    if options.what == "simulated":
        for name in options.surveys:
            seen = observe_survey(simulator, galaxies, get_survey(name))
            yield name, seen, seen.images()
    elif options.what == "sizes":
        for name in options.surveys:
            seen = observe_survey(simulator, galaxies, get_survey(name))
            for size in SIZES:
                yield f"{name}, {size:g} arcsec", seen, seen.images(size)
    else:
        des = get_survey("des")
        for width in SEEING:
            survey = replace(des, name="blurred", psf_fwhm=des.psf_fwhm | {"g": width * u.arcsec})
            seen = observe_survey(simulator, galaxies, survey)
            yield f"g seeing {width:g} arcsec", seen, seen.images()


if __name__ == "__main__":
    main()
