"""Cards of the bundled weights: training data, commands, architecture, and limitations.

The statistics of the training set (population, outlier and predictive statistics) are computed from
a new simulation.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from astropy.table import Table
from commands import (
    CALIBRATE,
    CALIBRATE_SPECTRA,
    FINETUNE,
    FINETUNE_FOLD,
    FINETUNE_IMAGE_HEADS,
    FINETUNE_ON_IMAGES,
    FINETUNE_SPECTRA,
    FINETUNE_SPECTRA_FOLDS,
    N_FOLDS,
    N_HEADS,
    REAL_SPECTRA,
    SIMULATE_DEEP,
    SIMULATE_FAINT,
    SIMULATE_FOR_SPECTRA,
    SIMULATE_IMAGES,
    SIMULATE_PHOTOMETRY,
    SIMULATE_SEDS,
    TRAIN,
    TRAIN_DEEP,
    TRAIN_FAINT,
    spectra_commands,
)
from training_set import training_statistics

from astrogenspec.inputs.screening import error_floor
from astrogenspec.quantities import QUANTITIES
from astrogenspec.simulate import load_priors
from astrogenspec.simulate.priors import prior_groups
from astrogenspec.surveys import BANDS
from astrogenspec.weights import load_card

#: Name, file and description of each bundled model.
MODELS = {
    "properties": (
        "astrogenspec-properties",
        "properties-v9.safetensors",
        "Properties and line fluxes from photometry in any filters and SDSS-like ugriz images, "
        "trained on simulations and fine-tuned on the photometry and images of real galaxies",
    ),
    "simulated": (
        "astrogenspec-properties-simulated",
        "properties-simulated-v7.safetensors",
        "Properties and line fluxes from photometry in any filters and SDSS-like ugriz images, "
        "trained on simulations alone",
    ),
    "deep": (
        "astrogenspec-properties-deep",
        "properties-deep-v1.safetensors",
        "Properties and line fluxes from photometry in any filters of galaxies to r = 23.5 and "
        "z = 1.3, without images, trained on simulations alone",
    ),
    "spectra-simulated": (
        "astrogenspec-spectra-simulated",
        "spectra-simulated-v4.safetensors",
        "Optical spectra from SDSS-like ugriz images and photometry and draws of properties, "
        "trained on simulations alone",
    ),
    "spectra": (
        "astrogenspec-spectra",
        "spectra-v8.safetensors",
        "Optical spectra from SDSS-like ugriz images and photometry and draws of properties, "
        "trained on simulations and fine-tuned on spectra of real galaxies",
    ),
}
#: File with the recalibration of each model in the folder of results.
SOURCES = {
    "properties": "anchoring_folds.json",
    "simulated": "anchoring_recalibration.json",
    "deep": "deep_recalibration.json",
    "spectra-simulated": "ranges.json",
    "spectra": "folds.json",
}
#: Number of galaxies with images and seed for the statistics of the training set.
_STATISTICS = (4000, 900)
#: Additional faint galaxies for the statistics of the fine-tuned weights.
_N_FAINT = 12_000
_REAL_GALAXIES = (
    "redshifts of 29,480 SDSS galaxies: 7,408 of the kcorrect test sample (2MASS-selected; without "
    "those of the demonstration and of the image table), 5,760 random ones of the main sample, and "
    "16,312 of other compilations, of which 8,000 are fainter than r = 17.77 (to r = 20; model "
    "magnitudes whose errors were modelled) and the brighter ones were drawn with the density of "
    "the main sample in redshift, magnitude and colours. At known redshift, 3,039 galaxies of ECO "
    "and RESOLVE (mass, star-formation rate, O/H, lines) and 447 more of RESOLVE, most of them "
    "passive, 1,964 of ALFALFA-SDSS (mass, star-formation rate), 7,249 masses and 3,098 star-"
    "formation rates of GSWLC, MaNGA, GAMA and others in the compilations (masses brought to the "
    "scale of GSWLC), and 874 single-epoch black-hole masses with weight 4. Photometry, Petrosian "
    "fluxes, radii and axis ratios were used; 24,000 simulated galaxies in the filters of other "
    "surveys served as teacher samples"
)
_REAL_IMAGES = (
    ". Then the redshifts of 201 other SDSS galaxies with g r i images, which were made from the "
    "colour pictures of Galaxy Zoo, "
    "and magnitudes, and the masses and star-formation rates that GSWLC has of 33 of them"
)
_FEW_IMAGES = (
    "The relation of photometry, sizes and properties was learnt from real galaxies; the "
    "information in images was learnt from simulations and from 201 real images (redshift; mass "
    "and star-formation rate of 33), which were made from colour pictures: survey frames were not "
    "tested."
)


_FINETUNED_LIMITATIONS = [
    "Redshifts are those of galaxies with r < 20 and z < 0.4 of SDSS; between r = 17.8 and 20 the "
    "real galaxies are those with spectra, many of them luminous red or star-forming galaxies.",
    "Five magnitudes do not always tell stars from galaxies: of held-out stars and quasars with "
    "r < 20, 83% and 65% have the flag STAR_OR_QUASAR, and so have 1% of the galaxies, 18% of "
    "those at z < 0.01 and 10% at z < 0.02. Give galaxies only.",
    "In other filters than ugriz, the correction that real galaxies brought is transferred through "
    "the coefficients of the spectral energy distribution.",
    "Black-hole masses mix the relation of inactive galaxies with that of single-epoch masses of "
    "broad-line galaxies, which is 0.4 dex lower.",
    "Line fluxes and star-formation rates from image and photometry are in equal parts those of "
    "heads that read the image, which real lines have not trained, and of heads that do not.",
]
#: Hours of the training to r = 20.
_FAINT_HOURS = 0.28


ANY_FILTER_PREPROCESSING = (
    "asinh images in units of nominal SDSS sky noise, 64 x 64 pixels of 0.396 arcsec; photometry "
    "in any filters as mean and covariance of 16 coefficients of the spectral energy distribution, "
    "1500 A to 2.5 micron; corrected for Galactic extinction (Schlafly & Finkbeiner 2011)"
)
DEEP_PREPROCESSING = ANY_FILTER_PREPROCESSING.split("; ", 1)[1]
ANY_FILTER_LIMITATIONS = [
    "Photometry in any filters was trained on galaxies of the depth of SDSS (r < 18.4, z < 0.36): "
    "fainter galaxies of deeper surveys are outside the training set.",
    "The zero points of SDSS relative to the spectra of the simulator were fitted to SDSS colours "
    "and are interpolated in wavelength for other surveys.",
    "Images are read as SDSS would have taken them; for surveys other than SDSS this was tested on "
    "simulated images only.",
]
_DEEP_LIMITATIONS = [
    "Trained on simulations alone: redshifts were tested on real galaxies of zCOSMOS, DEEP2, VVDS "
    "and BOSS at z < 0.5 (and 0.8); masses, star-formation rates and lines rest on the simulator.",
    "Beyond z = 0.3 the population is extrapolated from local galaxies with published relations of "
    "mass, star formation, metallicity and size; its colours were compared with published ones to "
    "z = 1 only.",
    "Ultraviolet spectra of galaxies beyond z = 0.3 rest on an empirical correction below 3500 A "
    "that no survey of SDSS constrains.",
    "The photometry is that of total fluxes in the filters of many surveys, 5 sigma depths 20 to "
    "26; the sets of SDSS have the errors of SDSS, which detect few of the faint galaxies.",
    "Images cannot be used.",
    "Galaxies fainter than r = 23.5, beyond z = 1.3, stars and quasars are outside the training "
    "set; for galaxies of the depth of SDSS, the local weights are more accurate.",
    "Line fluxes are those in a fibre of 3 arcsec; black-hole masses follow from the bulge-mass "
    "relation of Kormendy & Ho (2013) at all redshifts.",
    "Flags of outliers compare with simulated photometry in the bands of SDSS with errors of "
    "SDSS, and with simulated spectra.",
]


_REAL_SPECTRA_LIMITATIONS = [
    "Real spectra are those of the centres of galaxies at z < 0.05: at other redshifts the network "
    "has learnt from the same spectra, moved to redshifts and magnitudes of simulated galaxies.",
    "What images add was learnt from simulated galaxies alone.",
    "The ranges of spectra in a fibre from photometry at known redshift were calibrated on real "
    "spectra, others are not recalibrated: at inferred redshifts, 73 and 96% of the pixels are in "
    "the 68 and 95% ranges; whole galaxies and images were not tested on real spectra.",
    "Equivalent widths of lines that are drawn with the spectrum, as from magnitudes in a fibre: "
    "62 to 66% of those observed are in the 68% ranges, 91 to 93% in those of 95%; boosted trees "
    "predict them slightly better.",
    "Magnitudes in a fibre, taken as those of whole galaxies, give redshifts that are too high for "
    "nearby galaxies: declare them as such, give the redshift, or give total magnitudes.",
]


def load_run(folder: Path) -> dict:
    """Return the settings of a fine-tuning run."""
    card = json.loads((folder / "spectra.json").read_text())
    return {key: value for key, value in card.items() if key not in ("sha256", "filename")}


def numbers_of_priors() -> dict[str, int]:
    """Count the priors of the simulator, by group."""
    return {group: len(load_priors(group)) for group in prior_groups()}


def log_of(run: Path) -> dict:
    """Return the main columns of the history of a training run."""
    history = Table.read(run / "history.ecsv", format="ascii.ecsv")
    return {
        name: [None if not np.isfinite(v) else round(float(v), 4) for v in history[name]]
        for name in ("step", "seconds", "train_total", "valid_total")
    }


def base_card(kind: str, trained: dict, commit: str) -> dict:
    """Return the entries that all cards have."""
    name, _, description = MODELS[kind]
    return {
        "name": name,
        "version": trained["version"],
        "licence": "BSD-3-Clause",
        "commit": commit,
        "description": description,
        "preprocessing": "asinh images in units of nominal SDSS sky noise, 64 x 64 pixels of "
        "0.396 arcsec; asinh magnitudes, "
        "colours, signal-to-noise; corrected for Galactic extinction (Schlafly & Finkbeiner 2011)",
    }


def architecture_of(config: dict) -> str:
    """Describe the architecture of a properties network."""
    heads = f"{config['members']} for galaxies with images"
    if config["photometry_members"]:
        heads += f" and {config['photometry_members']} for those without"
    return (
        f"variational autoencoder ({config['latent_size']}-d latent) and chains of conditional "
        f"neural-spline flows over {', '.join(QUANTITIES)}; ensembles of heads: {heads}"
    )


def simulated_card(run: Path, commit: str, results: Path | None) -> dict:
    """Make the card of the properties network trained on simulations alone."""
    trained = json.loads((run / "properties.json").read_text())
    hours = trained["training"]["max_seconds"] / 3600
    card = base_card("simulated", trained, commit) | {
        "labels": {name: info.description for name, info in QUANTITIES.items()},
        "training_set": {
            "kind": "simulated",
            "with_images": 86400,
            "photometry_only": 576000,
            "held_out_for_early_stopping": 27600,
            "priors": numbers_of_priors(),
            "real_galaxies": "none were used to train the network; redshifts of 7,408 SDSS "
            "galaxies recalibrate those from photometry alone (calibrated=False switches that "
            "off); colour, magnitude and redshift distributions of 70% of the real SDSS photometry "
            "table fitted the simulator's population, and sizes and line ratios of published "
            "tables set its structure and line parameters",
        },
        "training_range": {"r_magnitude": [12.0, 18.5], "redshift": [0.003, 0.36]},
        "commands": [SIMULATE_IMAGES, SIMULATE_PHOTOMETRY, TRAIN.format(hours=hours)],
        "stages": [],
        "recipe": trained["recipe"],
        "training": trained["training"],
        "log": log_of(run),
        **training_statistics(*_STATISTICS),
        "limitations": [
            "Trained on simulations alone: intervals of mass and star-formation rate rest on the "
            "simulator's scales.",
            "Black-hole masses follow from the bulge-mass relation of Kormendy & Ho (2013); they "
            "are not measurements.",
            "Galaxies fainter than r = 18.5, beyond z = 0.36, stars and quasars are outside the "
            "training set.",
            error_floor_limitation(),
        ],
    }
    return card | recalibration_of(results, SOURCES["simulated"])


def deep_card(run: Path, commit: str, results: Path | None) -> dict:
    """Make the card of the properties network of the deep population, without images."""
    trained = json.loads((run / "properties.json").read_text())
    hours = (trained["training"]["max_seconds"] or 0) / 3600
    card = base_card("deep", trained, commit) | {
        "preprocessing": DEEP_PREPROCESSING,
        "inputs": ["photometry"],
        "labels": {name: info.description for name, info in QUANTITIES.items()},
        "training_set": {
            "kind": "simulated",
            "photometry_only": 230_400,
            "held_out_for_early_stopping": 9_600,
            "priors": numbers_of_priors(),
            "population": "deep: Leja et al. (2020) mass functions, Popesso et al. (2023) main "
            "sequence, Muzzin et al. (2013) and Tomczak et al. (2014) quiescent fractions; all "
            "sources are in priors/evolution.ecsv",
            "real_galaxies": "none were used to train or to recalibrate the network",
        },
        "training_range": {"r_magnitude": [12.0, 23.6], "redshift": [0.003, 1.3]},
        "commands": [SIMULATE_DEEP, TRAIN_DEEP.format(hours=hours)],
        "stages": [],
        "recipe": trained["recipe"],
        "training": trained["training"],
        "log": log_of(run),
        **training_statistics(*_STATISTICS, population="deep", images=False),
        "limitations": [*_DEEP_LIMITATIONS, calibration_limitation()],
    }
    # Few of the galaxies, the bright ones, are detected in all bands with the errors of SDSS.
    del card["predictive"]
    return card | recalibration_of(results, SOURCES["deep"])


def with_stage(
    card: dict, run: Path, commit: str, title: str, commands: tuple[str, ...], galaxies: dict
) -> dict:
    """Add a training stage to a card, with training-set statistics of the present simulator."""
    trained = json.loads((run / "properties.json").read_text())
    length = trained["training"]
    hours, steps = (length["max_seconds"] or 0) / 3600, length["max_steps"]
    stage = {
        "title": title,
        "commands": [command.format(hours=hours, steps=steps) for command in commands],
        "commit": commit,
        **{key: trained[key] for key in ("recipe", "training")},
        "log": log_of(run),
    }
    return card | {
        "version": trained["version"],
        "description": MODELS["simulated"][2],
        "stages": [*card["stages"], stage],
        "training_set": card["training_set"] | galaxies | {"priors": numbers_of_priors()},
        **training_statistics(*_STATISTICS),
    }


def error_floor_limitation() -> str:
    """Describe the error floor of the photometry (`astrogenspec.inputs.screening`)."""
    flux = np.full((1, len(BANDS)), 10 ** (0.4 * (22.5 - 17)))
    floors = 2.5 / np.log(10) * error_floor(flux)[0] / flux[0]
    listed = ", ".join(f"{floor:.3f} in {band}" for band, floor in zip(BANDS, floors, strict=True))
    return (
        "Errors of photometry are raised to a floor, the smallest error of SDSS galaxies of the "
        f"same magnitude (in mag, at magnitude 17: {listed}); larger errors of the zero points "
        "are not included and must be part of the given errors."
    )


def survey_scores(measured: dict) -> dict:
    """Return the main scores of ``benchmarks/surveys.py`` by row, before and after a fit."""
    scores = {}
    for name, row in measured["rows"].items():
        scores[name] = row["simulations"]
        for method, values in row.get("half", {}).get("scores", {}).items():
            if method not in ("simulations", "as given"):
                scores[f"{name}, half: {method}"] = values
    kept = ("n", "sigma_nmad", "median_bias", "outlier_fraction", "coverage_68", "coverage_95")
    rows = {name: {key: values[key] for key in kept} for name, values in scores.items()}
    return {"kind": measured["kind"], "max_redshift": measured["max_redshift"], **rows}


def calibration_limitation() -> str:
    """Describe the errors of photometry in any filters."""
    return (
        "Errors of photometry are taken as given; calibration errors, 0.005 to 0.05 mag by survey, "
        "are added (PhotometryBatch.calibration_error)."
    )


def recalibration_of(results: Path | None, name: str) -> dict:
    """Return the recalibration entry of the card, or nothing if the benchmark was not run."""
    path = None if results is None else results / name
    if path is None or not path.is_file():
        return {}
    return {"recalibration": json.loads(path.read_text())["recalibration"]}


def properties_card(run: Path, commit: str) -> dict:
    """Make the card of a properties network that was fine-tuned on real galaxies."""
    trained = json.loads((run / "properties.json").read_text())
    before = MODELS["simulated"][0]
    card = load_card(before)
    for key in ("sha256", "filename", "metrics", "recalibration"):
        card.pop(key, None)
    card |= base_card("properties", trained, commit) | {"preprocessing": ANY_FILTER_PREPROCESSING}
    card |= training_statistics(*_STATISTICS, n_faint=_N_FAINT)
    card["training_range"] = {"r_magnitude": [12.0, 20.0], "redshift": [0.003, 0.42]}
    for key in ("recalibration", "guarantee"):
        if trained.get(key) is not None:
            card[key] = trained[key]
    card["novelty"]["stars"] = trained["stars"]
    card["fits"] = trained["fits"]
    faint = [SIMULATE_SEDS, SIMULATE_FAINT, TRAIN_FAINT.format(hours=_FAINT_HOURS)]
    folds = [FINETUNE_FOLD.format(fold=k) for k in range(N_FOLDS)]
    images = [FINETUNE_IMAGE_HEADS, FINETUNE_ON_IMAGES]
    real = [*images, FINETUNE.format(heads=N_HEADS), *folds, CALIBRATE]
    card["stages"] = [
        *card["stages"],
        {
            "title": "Head for galaxies without images, to r = 20",
            "commands": faint,
            "commit": commit,
        },
        {"title": "Real galaxies", "commands": real, "commit": commit},
    ]
    card["training_set"] |= {
        "kind": "simulated, then real",
        "faint": 100_000,
        "real_galaxies": _REAL_GALAXIES + _REAL_IMAGES,
    }
    card["limitations"] = [
        *_FINETUNED_LIMITATIONS,
        _FEW_IMAGES,
        "Masses, star-formation rates and metallicities of real galaxies are those of "
        "catalogues, with their conventions.",
        *(
            text
            for text in card["limitations"]
            if not any(words in text for words in ("alone: intervals", "r < 18.4", "r = 18.5"))
        ),
    ]
    return card


def simulated_spectra_card(run: Path, commit: str) -> dict:
    """Make the card of the spectra network trained on simulations alone."""
    trained = json.loads((run / "spectra.json").read_text())
    hours = trained["training"]["max_seconds"] / 3600
    return base_card("spectra-simulated", trained, commit) | {
        "architecture": "EDM diffusion of 45 whitened components (24 of the binned rest-frame "
        "continuum, 17 line fluxes, broad Halpha, redshift, velocity dispersion, fibre fraction) "
        "by a transformer that attends to image, photometry and property tokens; EDM diffusion of "
        "the detail at 1e-4 dex on crops of 1280 pixels; two contrastive networks",
        "training_set": {
            "kind": "simulated",
            "galaxies": 3 * 86400,
            "held_out_for_early_stopping": 3 * 3600,
            "real_galaxies": "none were used to train the network",
        },
        "commands": list(spectra_commands(hours, trained["recipe"]["seed"])),
        "recipe": trained["recipe"],
        "training": trained["training"]
        | {"before": "2,782, 3,235 and 2,726 steps, to a validation loss of 0.863"},
        "log": log_of(run),
        "limitations": [
            "Spectra are those of the simulator: stars of Bruzual & Charlot (2003) with MILES, "
            "no alpha enhancement.",
            "Beyond 8750 A (rest frame) the stellar library has no narrow features.",
            "The draws contain no noise of a spectrograph.",
            error_floor_limitation(),
        ],
    }


def spectra_card(run: Path, commit: str) -> dict:
    """Make the card of the spectra network that was fine-tuned on real spectra."""
    card = load_card(MODELS["spectra-simulated"][0])
    for key in ("sha256", "filename", "metrics", "recalibration"):
        card.pop(key, None)
    card |= base_card("spectra", card, commit)
    stage = {
        "title": "Real spectra",
        "commands": [
            SIMULATE_FOR_SPECTRA,
            REAL_SPECTRA,
            FINETUNE_SPECTRA,
            *FINETUNE_SPECTRA_FOLDS,
            CALIBRATE_SPECTRA,
        ],
        "commit": commit,
        "runs": [{key: value for key, value in load_run(run).items() if key != "name"}],
        "logs": [log_of(run)],
    }
    card["stages"] = [stage]
    card["training_set"] |= {
        "kind": "simulated, then real",
        "real_galaxies": "1,072 SDSS galaxies with spectra and inverse variances, all but a few at "
        "z < 0.05 (four fifths of 1,341; the accuracy was measured and the ranges were calibrated "
        "with networks trained without each fifth), 390 of them with total ugriz magnitudes; mixed "
        "with 30,000 simulated galaxies",
    }
    card["architecture"] += (
        "; 15 further components, principal components of what the 24 leave of real continua; "
        "separate tokens of the aperture for real and simulated galaxies"
    )
    card["limitations"] = [*_REAL_SPECTRA_LIMITATIONS, *card["limitations"][1:]]
    return card
