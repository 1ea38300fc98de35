"""Put a trained network of lane A into the package, with its card.

    python benchmarks/bundle_properties.py runs/properties --commit COMMIT [--results results/benchmarks]

Run once after training, then again with the results of ``benchmarks/properties.py`` to add them to the card.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from astropy.table import Table

from astrogenspec import PropertyEstimator
from astrogenspec.quantities import QUANTITIES
from astrogenspec.simulate import load_priors
from astrogenspec.simulate.priors import prior_groups
from astrogenspec.weights import register_weights, save_weights

NAME = "astrogenspec-properties"
PATH = Path(__file__).parents[1] / "astrogenspec" / "data" / "properties-v1.safetensors"
DESCRIPTION = "Properties and line fluxes from SDSS-like ugriz images and photometry, trained on simulations alone"
COMMANDS = (
    "astrogenspec simulate 90000 --training --seed 1 --out runs/images",
    "astrogenspec simulate 600000 --training --no-images --seed 2 --out runs/photometry",
    "astrogenspec train properties --data runs/images runs/photometry --hours {hours:.2f} --out runs/properties",
)


def make_card(run: Path, commit: str, results: Path | None) -> dict:
    """Collect what a user has to know of the network."""
    trained = json.loads((run / "properties.json").read_text())
    history = Table.read(run / "history.ecsv", format="ascii.ecsv")
    hours = trained["training"]["max_seconds"] / 3600
    card = {
        "name": NAME,
        "version": trained["version"],
        "licence": "BSD-3-Clause",
        "commit": commit,
        "description": DESCRIPTION,
        "architecture": "variational autoencoder (32-d latent) and a chain of conditional neural-spline flows over "
        + ", ".join(QUANTITIES),
        "labels": {name: info.description for name, info in QUANTITIES.items()},
        "preprocessing": "asinh images in units of nominal SDSS sky noise, 64 x 64 pixels of 0.396 arcsec; asinh magnitudes, "
        "colours, signal-to-noise; corrected for Galactic extinction (Schlafly & Finkbeiner 2011)",
        "training_set": {
            "kind": "simulated",
            "with_images": 86400,
            "photometry_only": 576000,
            "held_out_for_early_stopping": 27600,
            "priors": {group: len(load_priors(group)) for group in prior_groups()},
            "real_galaxies": "none were used to train the network; colour, magnitude and redshift distributions of 70% of "
            "the real SDSS photometry table fitted the simulator's population, and sizes and line ratios of published tables "
            "set its structure and line parameters",
        },
        "training_range": {"r_magnitude": [12.0, 18.5], "redshift": [0.003, 0.36]},
        "commands": [command.format(hours=hours) for command in COMMANDS],
        "recipe": trained["recipe"],
        "training": trained["training"],
        "log": {
            name: [None if not np.isfinite(v) else round(float(v), 4) for v in history[name]]
            for name in ("step", "seconds", "train_total", "valid_total")
        },
        "limitations": [
            "Trained on simulations alone: intervals of mass and star-formation rate rest on the simulator's scales.",
            "Black-hole masses follow from the bulge-mass relation of Kormendy & Ho (2013); they are no measurements.",
            "Galaxies fainter than r = 18.5, beyond z = 0.36, stars and quasars are outside of the training set.",
        ],
    }
    if results is not None:
        card["metrics"] = {
            path.stem: json.loads(path.read_text()) for path in sorted(results.glob("*.json"))
        }
    return card


def main() -> None:
    """Write the bundled weights, their card and the registry entry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--commit", required=True, help="of the code that trained the network")
    parser.add_argument("--results", type=Path)
    arguments = parser.parse_args()
    network = PropertyEstimator.load(arguments.run / "properties.safetensors").network
    save_weights(
        PATH,
        network.state_dict(),
        network.config,
        make_card(arguments.run, arguments.commit, arguments.results),
        half=False,
        overwrite=True,
    )
    register_weights(PATH, NAME, lane="properties", description=DESCRIPTION)
    print(PATH, f"{PATH.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
