"""Put trained networks into the package, with their cards.

    python benchmarks/bundle.py simulated runs/properties --commit COMMIT [--results results/simulated]
    python benchmarks/bundle.py properties runs/anchored-images --commit COMMIT [--results results/properties]
    python benchmarks/bundle.py simulated --photometry runs/heads --commit COMMIT [--results results/simulated]
    python benchmarks/bundle.py simulated --images runs/image-network --commit COMMIT [--results results/simulated]
    python benchmarks/bundle.py spectra runs/spectra --commit COMMIT [--results results/spectra]
    python benchmarks/bundle.py KIND --results results/KIND

Run once after training, then again, without a run, to add the results of the other benchmarks to the card.  With --photometry
the network of the package gets the heads of a run for galaxies without images, and the others stay; with --images it gets the
encoder of a run and the heads that read images, and those for galaxies without stay.  Recalibrations come from
``anchoring_recalibration.json``, ``anchoring_folds.json`` and ``ranges.json`` among the results; `cards.py` writes the cards.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from cards import (
    MODELS,
    SIMULATE,
    SOURCES,
    architecture_of,
    properties_card,
    recalibration_of,
    simulated_card,
    spectra_card,
    with_stage,
)

from astrogenspec import PropertyEstimator
from astrogenspec.generation.estimator import SpectrumEstimator
from astrogenspec.generation.training import LABELS, fit_scales
from astrogenspec.inference.network import PropertyNetwork
from astrogenspec.training.shards import Shards
from astrogenspec.weights import register_weights, save_weights

DATA = Path(__file__).parents[1] / "astrogenspec" / "data"
#: Later stages of the training: title, commands, simulated galaxies with and without images that taught something.
_HEADS = (
    "Heads for galaxies without images",
    (
        "astrogenspec simulate 1200000 --training --no-images --no-spectra --seed 2 --out runs/photometry",
        "astrogenspec train properties --model astrogenspec-properties-simulated --heads-alone --data runs/photometry "
        "--hours {hours:.2f} --out runs/heads",
    ),
    {"photometry_only": 1_152_000},
)
_IMAGE_NETWORK = (
    "Image encoder and heads that read images",
    (
        SIMULATE[0],
        "astrogenspec train properties --model astrogenspec-properties-simulated --heads-alone --data runs/images --hours 0.50 "
        "--out runs/image-heads",
        "python benchmarks/join_heads.py astrogenspec-properties-simulated runs/image-heads/properties.safetensors "
        "--out runs/joined.safetensors",
        "astrogenspec simulate 90000 --training --seed 3 --out runs/images3",
        "astrogenspec train properties --model runs/joined.safetensors --data runs/images runs/images3 runs/photometry "
        "--steps {steps} --learning-rate 5e-4 --final-rate 2e-4 --out runs/image-network",
    ),
    {"with_images": 172_800},
)
#: What real galaxies had to do with the latter.
_LENGTH_BY_REAL_IMAGES = "; how long the encoder was trained was chosen by the redshifts of 201 SDSS galaxies with g r i images"


def with_photometry_heads(
    run: Path, commit: str, results: Path | None
) -> tuple[PropertyNetwork, dict]:
    """Give what the package has with the heads of a run for galaxies without images."""
    network, card = of_package("simulated", results)
    source = PropertyEstimator.load(run / "properties.safetensors").network
    heads = source.photometry_heads or range(source.config["members"])
    network = network.with_heads(
        [network.extract_head(k) for k in range(network.config["members"])],
        [source.extract_head(k) for k in heads],
    )
    return network, with_stage(card, run, commit, *_HEADS)


def with_image_network(
    run: Path, commit: str, results: Path | None
) -> tuple[PropertyNetwork, dict]:
    """Give what the package has with the encoder of a run, and its heads for galaxies with images."""
    network, card = of_package("simulated", results)
    source = PropertyEstimator.load(run / "properties.safetensors").network
    network = source.with_heads(
        [source.extract_head(k) for k in range(source.config["members"])],
        [network.extract_head(k) for k in network.photometry_heads],
    )
    card = with_stage(card, run, commit, *_IMAGE_NETWORK)
    card["training_set"]["real_galaxies"] += _LENGTH_BY_REAL_IMAGES
    return network, card


def of_run(kind: str, arguments: argparse.Namespace) -> tuple[torch.nn.Module, dict]:
    """Open what a run has trained, and make its card."""
    run, commit, results = arguments.run, arguments.commit, arguments.results
    if kind == "spectra":
        network = SpectrumEstimator.load(run / "spectra.safetensors").network
        if not network.zero_points.any():
            scales = type(network).from_config(network.config)
            fit_scales(scales, Shards.read(arguments.data, LABELS))
            network.zero_points.copy_(scales.zero_points)
        return network, spectra_card(run, commit) | recalibration_of(results, SOURCES[kind])
    make_card = simulated_card if kind == "simulated" else properties_card
    network = PropertyEstimator.load(run / "properties.safetensors").network
    return network, make_card(run, commit, results)


def of_package(kind: str, results: Path | None) -> tuple[torch.nn.Module, dict]:
    """Open what the package has, with the recalibration that is among the results."""
    lane = SpectrumEstimator if kind == "spectra" else PropertyEstimator
    estimator = lane.from_pretrained(MODELS[kind][0])
    card = {k: v for k, v in estimator.card.items() if k not in ("sha256", "filename")}
    return estimator.network, card | recalibration_of(results, SOURCES[kind])


def main() -> None:
    """Write weights, card and registry entry of one model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("kind", choices=tuple(MODELS))
    parser.add_argument("run", nargs="?", type=Path, help="what is bundled already, if missing")
    parser.add_argument(
        "--photometry", type=Path, metavar="RUN", help="whose heads are for galaxies without images"
    )
    parser.add_argument(
        "--images",
        type=Path,
        metavar="RUN",
        help="whose encoder and heads are for galaxies with images",
    )
    parser.add_argument("--commit", help="of the code that trained the network")
    parser.add_argument("--results", type=Path)
    parser.add_argument(
        "--data", type=Path, default=Path("runs/images"), help="shards of the spectra"
    )
    arguments = parser.parse_args()
    kind, results = arguments.kind, arguments.results
    parts = arguments.photometry, arguments.images
    if any((arguments.run, *parts)) and arguments.commit is None:
        parser.error("a run needs --commit")
    if any(parts) and (kind != "simulated" or arguments.run or all(parts)):
        parser.error("--photometry and --images each change the network of the kind simulated")
    if arguments.run is not None:
        network, card = of_run(kind, arguments)
    elif arguments.photometry is not None:
        network, card = with_photometry_heads(arguments.photometry, arguments.commit, results)
    elif arguments.images is not None:
        network, card = with_image_network(arguments.images, arguments.commit, results)
    elif results is not None:
        network, card = of_package(kind, results)
    else:
        parser.error("give a run, or --results")
    if results is not None:
        card["metrics"] = card.get("metrics", {}) | {
            path.stem: json.loads(path.read_text()) for path in sorted(results.glob("*.json"))
        }
        for scores in card["metrics"].values():
            scores.pop("recalibration", None)
    if kind != "spectra":
        card["architecture"] = architecture_of(network.config)
    name, filename, description = MODELS[kind]
    path = DATA / filename
    save_weights(path, network.state_dict(), network.config, card, half=True, overwrite=True)
    register_weights(
        path, name, lane="spectra" if kind == "spectra" else "properties", description=description
    )
    print(path, f"{path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
