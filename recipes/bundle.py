"""Put trained networks into the package, with their cards.

    python recipes/bundle.py simulated runs/properties --commit COMMIT [--results RESULTS]
    python recipes/bundle.py simulated --photometry runs/heads --commit COMMIT [--results RESULTS]
    python recipes/bundle.py simulated --images runs/image-network --commit COMMIT
    python recipes/bundle.py simulated --any-filters runs/any-both --commit COMMIT
    python recipes/bundle.py deep runs/deep --commit COMMIT
    python recipes/bundle.py properties runs/finetuned-images --commit COMMIT [--results RESULTS]
    python recipes/bundle.py spectra-simulated runs/spectra --commit COMMIT [--results RESULTS]
    python recipes/bundle.py spectra runs/spectra-folds/fold-0 --commit COMMIT [--results RESULTS]
    python recipes/bundle.py KIND --results RESULTS

Run it after training; run it again, without a training run, to add the results of the benchmarks to
the card.  With --photometry, only the heads for galaxies without images are replaced; with
--images, only the encoder and the heads that read images. Recalibrations are read from
``anchoring_recalibration.json``, ``anchoring_folds.json``, ``ranges.json`` and ``folds.json`` in
the folder of results. The cards are written by `cards.py`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from cards import (
    ANY_FILTER_LIMITATIONS,
    ANY_FILTER_PREPROCESSING,
    MODELS,
    SOURCES,
    architecture_of,
    calibration_limitation,
    deep_card,
    error_floor_limitation,
    properties_card,
    recalibration_of,
    simulated_card,
    simulated_spectra_card,
    spectra_card,
    survey_scores,
    with_stage,
)
from commands import (
    JOIN_HEADS,
    SIMULATE_IMAGES,
    SIMULATE_IMAGES_WITH_SEDS,
    SIMULATE_MORE_IMAGES,
    SIMULATE_MORE_PHOTOMETRY,
    SIMULATE_SEDS,
    TRAIN_ANY_FILTERS,
    TRAIN_ANY_IMAGE_HEADS,
    TRAIN_HEADS,
    TRAIN_IMAGE_HEADS,
    TRAIN_IMAGES,
    WITH_ENCODER,
)
from training_set import sed_statistics

from astrogenspec import PropertyEstimator
from astrogenspec.generation.estimator import SpectrumEstimator
from astrogenspec.generation.training import LABELS, fit_scales
from astrogenspec.inference.network import PropertyNetwork
from astrogenspec.training.filter_sets import TRAINING_SETS
from astrogenspec.training.shards import Shards
from astrogenspec.weights import register_weights, save_weights

DATA = Path(__file__).parents[1] / "astrogenspec" / "data"
#: Later stages of the training: title, commands, and number of simulated galaxies in the training
#: set.
_HEADS = (
    "Heads for galaxies without images",
    (SIMULATE_MORE_PHOTOMETRY, TRAIN_HEADS),
    {"photometry_only": 1_152_000},
)
_IMAGE_NETWORK = (
    "Image encoder and heads that read images",
    (SIMULATE_IMAGES, TRAIN_IMAGE_HEADS, JOIN_HEADS, SIMULATE_MORE_IMAGES, TRAIN_IMAGES),
    {"with_images": 172_800},
)
#: Stages of the network for any filters, by the folder of the run.
_ANY_FILTERS = {
    "any": (
        "Heads for photometry in any filters",
        (SIMULATE_SEDS, TRAIN_ANY_FILTERS),
        {"photometry_only": 384_000},
    ),
    "any-images": (
        "Head that reads images and photometry in any filters",
        (SIMULATE_IMAGES_WITH_SEDS, WITH_ENCODER, TRAIN_ANY_IMAGE_HEADS),
        {"with_images_and_any_filters": 48_000},
    ),
}
#: Galaxies and seed of the statistics of the photometry in any filters.
_N_SEDS, _SEED = 40_000, 902
#: Use of real galaxies in the stage with images.
_LENGTH_BY_REAL_IMAGES = (
    "; the number of steps of the encoder was chosen by the redshifts of 201 SDSS galaxies "
    "with g r i images"
)


def with_photometry_heads(
    run: Path, commit: str, results: Path | None
) -> tuple[PropertyNetwork, dict]:
    """Replace the heads for galaxies without images in the bundled network by those of a run."""
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
    """Replace encoder and image heads of the bundled network by those of a run."""
    network, card = of_package("simulated", results)
    source = PropertyEstimator.load(run / "properties.safetensors").network
    network = source.with_heads(
        [source.extract_head(k) for k in range(source.config["members"])],
        [network.extract_head(k) for k in network.photometry_heads],
    )
    card = with_stage(card, run, commit, *_IMAGE_NETWORK)
    card["training_set"]["real_galaxies"] += _LENGTH_BY_REAL_IMAGES
    return network, card


def with_any_filters(run: Path, commit: str, results: Path | None) -> tuple[PropertyNetwork, dict]:
    """Replace the heads of the bundled network by those of a run for photometry in any filters."""
    _, card = of_package("simulated", results)
    network = PropertyEstimator.load(run / "properties.safetensors").network
    for name in ("metrics", "recalibration"):
        card.pop(name, None)
    for part, stage in _ANY_FILTERS.items():
        card = with_stage(card, run.parent / part, commit, *stage)
    card["novelty"] |= sed_statistics(network.sed, _N_SEDS, _SEED)
    card["filters"] = [list(item.filters + item.second) for item in TRAINING_SETS]
    card["preprocessing"] = ANY_FILTER_PREPROCESSING
    limits = [text for text in card["limitations"] if text != error_floor_limitation()]
    card["limitations"] = [*limits, *ANY_FILTER_LIMITATIONS, calibration_limitation()]
    return network, card | recalibration_of(results, SOURCES["simulated"])


def of_run(kind: str, arguments: argparse.Namespace) -> tuple[torch.nn.Module, dict]:
    """Load the network of a training run and make its card."""
    run, commit, results = arguments.run, arguments.commit, arguments.results
    if kind == "spectra":
        network = SpectrumEstimator.load(run / "spectra.safetensors").network
        return network, spectra_card(run, commit) | recalibration_of(results, SOURCES[kind])
    if kind == "spectra-simulated":
        network = SpectrumEstimator.load(run / "spectra.safetensors").network
        if not network.zero_points.any():
            scales = type(network).from_config(network.config)
            fit_scales(scales, Shards.read(arguments.data, LABELS))
            network.zero_points.copy_(scales.zero_points)
        card = simulated_spectra_card(run, commit)
        return network, card | recalibration_of(results, SOURCES[kind])
    if kind == "deep":
        network = PropertyEstimator.load(run / "properties.safetensors").network
        card = deep_card(run, commit, results)
        card["novelty"] |= sed_statistics(network.sed, _N_SEDS, _SEED, population="deep")
        card["filters"] = [list(item.filters + item.second) for item in TRAINING_SETS]
        return network, card
    network = PropertyEstimator.load(run / "properties.safetensors").network
    if kind == "simulated":
        return network, simulated_card(run, commit, results)
    card = properties_card(run, commit)
    card["novelty"] |= sed_statistics(network.sed, _N_SEDS, _SEED)
    return network, card


def of_package(kind: str, results: Path | None) -> tuple[torch.nn.Module, dict]:
    """Load the bundled network and card, with the recalibration in the folder of results."""
    estimator_class = SpectrumEstimator if kind.startswith("spectra") else PropertyEstimator
    estimator = estimator_class.from_pretrained(MODELS[kind][0])
    card = {k: v for k, v in (estimator.card or {}).items() if k not in ("sha256", "filename")}
    return estimator.network, card | recalibration_of(results, SOURCES[kind])


def rounded(value: Any) -> Any:
    """Round all numbers of a result to five decimals."""
    if isinstance(value, float):
        return round(value, 5)
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return value


def main() -> None:
    """Write weights, card and registry entry of one model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("kind", choices=tuple(MODELS))
    parser.add_argument(
        "run",
        nargs="?",
        type=Path,
        help="folder of a training run; by default, the bundled network",
    )
    parser.add_argument(
        "--photometry", type=Path, metavar="RUN", help="run with heads for galaxies without images"
    )
    parser.add_argument(
        "--images",
        type=Path,
        metavar="RUN",
        help="run with the encoder and the heads that read images",
    )
    parser.add_argument(
        "--any-filters", type=Path, metavar="RUN", help="joined heads of `any_filters.py`"
    )
    parser.add_argument("--commit", help="commit of the code that trained the network")
    parser.add_argument("--results", type=Path, help="folder with results of the benchmarks")
    parser.add_argument(
        "--data", type=Path, default=Path("runs/images"), help="shards with spectra"
    )
    arguments = parser.parse_args()
    kind, results = arguments.kind, arguments.results
    parts = arguments.photometry, arguments.images, arguments.any_filters
    if any((arguments.run, *parts)) and arguments.commit is None:
        parser.error("--commit is required with a training run.")
    if any(parts) and (kind != "simulated" or arguments.run or sum(map(bool, parts)) > 1):
        parser.error(
            "--photometry, --images and --any-filters replace parts of the weights 'simulated': "
            "give one of them, without a run."
        )
    if arguments.run is not None:
        network, card = of_run(kind, arguments)
    elif arguments.photometry is not None:
        network, card = with_photometry_heads(arguments.photometry, arguments.commit, results)
    elif arguments.images is not None:
        network, card = with_image_network(arguments.images, arguments.commit, results)
    elif arguments.any_filters is not None:
        network, card = with_any_filters(arguments.any_filters, arguments.commit, results)
    elif results is not None:
        network, card = of_package(kind, results)
    else:
        parser.error("give the folder of a training run, or --results.")
    if results is not None:
        measured = {
            path.stem: rounded(json.loads(path.read_text())) for path in results.glob("*.json")
        }
        if "surveys" in measured:
            measured["surveys"] = survey_scores(measured["surveys"])
        card["metrics"] = card.get("metrics", {}) | dict(sorted(measured.items()))
        for scores in card["metrics"].values():
            for key in ("recalibration", "against"):
                scores.pop(key, None)
    if not kind.startswith("spectra"):
        card["architecture"] = architecture_of(network.config)
    name, filename, description = MODELS[kind]
    path = DATA / filename
    bounds = ("chain.lower", "chain.upper") if kind == "deep" else ()
    save_weights(
        path, network.state_dict(), network.config, card, half=True, keep=bounds, overwrite=True
    )
    register_weights(
        path,
        name,
        lane="spectra" if kind.startswith("spectra") else "properties",
        description=description,
    )
    print(path, f"{path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
