"""``astrogenspec simulate`` and ``astrogenspec train``: from nothing to weights."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from . import __version__

__all__ = ["add_simulate", "add_train"]


def add_simulate(commands: Any, common: argparse.ArgumentParser) -> None:
    """Register the command.

    Parameters
    ----------
    commands : object
        What ``add_subparsers`` returned.
    common : `argparse.ArgumentParser`
        Options of every command.
    """
    parser = commands.add_parser(
        "simulate",
        parents=[common],
        help="simulate galaxies, or compare the simulator with real ones",
        description="Simulate N galaxies into HDF5 shards, or with --report compare the simulator with real tables.",
    )
    add = parser.add_argument
    add(
        "n", nargs="?", type=int, metavar="N", help="number of galaxies, rounded up to whole shards"
    )
    add("--report", type=Path, metavar="FOLDER", help="folder of real tables to compare with")
    add(
        "--out", type=Path, required=True, metavar="DIR", help="folder for the shards or the report"
    )
    add("--seed", type=int, default=0, help="seed (default 0)")
    add(
        "--no-images", action="store_true", help="photometry and labels alone, which is much faster"
    )
    add("--no-spectra", action="store_true", help="leave the spectra out")
    add(
        "--training",
        action="store_true",
        help="what the bundled networks were trained on: their mixture of samples, noiseless images, rest-frame spectra",
    )
    add("--workers", type=int, help="processes; one for each core by default")
    parser.set_defaults(run=_simulate, parser=parser)


def _simulate(options: argparse.Namespace) -> int:
    if (options.n is None) == (options.report is None):
        raise ValueError("simulate takes either N, a number of galaxies, or --report FOLDER.")
    if options.report is not None:
        from .simulate.report import write_report

        print(write_report(options.report, options.out, seed=options.seed))
        return 0
    from .simulate.dataset import TRAINING_SAMPLES, Contents, write_shards
    from .simulate.simulator import Sample

    images, spectra = ("noiseless", "rest") if options.training else ("observed", "observed")
    contents = Contents(
        images="none" if options.no_images else images,
        spectra="none" if options.no_spectra else spectra,
    )
    paths = write_shards(
        options.n,
        options.out,
        seed=options.seed,
        samples=TRAINING_SAMPLES if options.training else (Sample(),),
        contents=contents,
        workers=options.workers,
        progress=not options.quiet,
    )
    if not options.quiet:
        print(f"{len(paths)} shards are in {options.out}.")
    return 0


def add_train(commands: Any, common: argparse.ArgumentParser) -> None:
    """Register the command.

    Parameters
    ----------
    commands : object
        What ``add_subparsers`` returned.
    common : `argparse.ArgumentParser`
        Options of every command.
    """
    parser = commands.add_parser("train", help="train networks")
    parser.set_defaults(parser=parser)
    lanes = parser.add_subparsers(title="networks", metavar="NETWORK")
    lane = lanes.add_parser(
        "properties",
        parents=[common],
        help="the network behind PropertyEstimator",
        description="Train on simulated shards. Called again with the same --out, an interrupted training goes on.",
    )
    add = lane.add_argument
    add(
        "--data",
        type=Path,
        nargs="+",
        required=True,
        metavar="DIR",
        help="folders of shards (astrogenspec simulate)",
    )
    add(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for checkpoint, history and weights",
    )
    add("--steps", type=int, help="length of the training in steps")
    add(
        "--hours",
        type=float,
        help="length of the training by the clock (default 2, without --steps)",
    )
    add("--seed", type=int, default=0, help="seed (default 0)")
    add("--device", default="cpu", help="cpu (default) or cuda")
    lane.set_defaults(run=_train_properties)


def _train_properties(options: argparse.Namespace) -> int:
    from dataclasses import asdict, replace

    from .inference.estimator import PropertyEstimator
    from .inference.recipe import DEFAULT_TRAINING, RecipeConfig, train_properties

    hours = 2.0 if options.steps is None and options.hours is None else options.hours
    training = replace(
        DEFAULT_TRAINING,
        max_steps=options.steps,
        max_seconds=None if hours is None else 3600 * hours,
        device=options.device,
        quiet=options.quiet,
    )
    recipe = RecipeConfig(seed=options.seed)
    network, history = train_properties(options.data, options.out, recipe=recipe, training=training)
    card = {
        "name": options.out.name,
        "version": __version__,
        "recipe": asdict(recipe),
        "training": {
            **asdict(training),
            "best_step": history.best_step,
            "stopped": history.stopped,
        },
    }
    path = options.out / "properties.safetensors"
    PropertyEstimator(network, card=card).save(path, overwrite=True)
    if not options.quiet:
        print(f"The weights are in {path}; use them with PropertyEstimator.load.")
    return 0
