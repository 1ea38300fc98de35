"""``astrogenspec simulate`` and ``astrogenspec train``: from nothing to weights."""

from __future__ import annotations

import argparse
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__

if TYPE_CHECKING:
    from ..base import Estimator
    from ..training.loop import History, TrainingConfig

__all__ = ["add_simulate", "add_train"]

#: Labelled galaxies beyond which a fit takes larger steps.
_MANY = 2000
_LARGE_STEPS: dict[str, Any] = {
    "batch_size": 256,
    "learning_rate": 2e-3,
    "validation_fraction": 0.1,
    "patience": None,
}
_SMALL_STEPS: dict[str, Any] = {"batch_size": 32, "learning_rate": 3e-4}
_ANCHOR = """\
tables for --anchor:
  photometry as for `astrogenspec infer`; labels in columns named as the quantities (redshift, stellar_mass, sfr,
  gas_metallicity, black_hole_mass, halpha_flux, hbeta_flux, nii6584_flux, oiii5007_flux), with units, empty where
  unknown; in columns known_redshift and so on what is known of a galaxy but is not to be learnt
example:
  astrogenspec train properties --anchor mine.ecsv --out anchored
"""


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
        from ..reports.simulator import write_report

        print(write_report(options.report, options.out, seed=options.seed))
        return 0
    from ..simulate.dataset import TRAINING_SAMPLES, Contents, write_shards
    from ..simulate.simulator import Sample

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
    properties = lanes.add_parser(
        "properties",
        parents=[common],
        help="the network behind PropertyEstimator",
        description="Train on simulated shards; called again with the same --out, an interrupted training goes on. Or, "
        "with --anchor, continue from trained weights on labelled galaxies.",
        epilog=_ANCHOR,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = properties.add_argument
    add(
        "--data",
        type=Path,
        nargs="+",
        default=[],
        metavar="DIR",
        help="folders of shards (astrogenspec simulate); with --anchor they are mixed in, so that nothing is forgotten",
    )
    _add_training(properties)
    add("--anchor", type=Path, nargs="+", metavar="TABLE", help="catalogues of labelled galaxies")
    add(
        "--images",
        type=Path,
        nargs="+",
        metavar="CUTOUT",
        help="FITS cutouts, one for each row of the tables and in their order (with --anchor)",
    )
    add("--model", metavar="NAME", help="trained weights to go on from")
    part = properties.add_mutually_exclusive_group()
    part.add_argument(
        "--heads-alone",
        action="store_true",
        help="leave the image encoder of --model as it is, which is much faster (with --data alone)",
    )
    part.add_argument(
        "--photometry-alone",
        action="store_true",
        help="train a head for galaxies without images beside those of --model, which stay as they are (with --data alone)",
    )
    add("--epochs", type=int, default=50, help="most passes over the tables (with --anchor)")
    add(
        "--members",
        type=int,
        help="heads to train, of each kind, whose posteriors are mixed (with --anchor)",
    )
    properties.set_defaults(run=_train_properties)
    spectra = lanes.add_parser(
        "spectra",
        parents=[common],
        help="the network behind SpectrumEstimator",
        description="Train on simulated shards with images and rest-frame spectra (astrogenspec simulate N "
        "--training). Called again with the same --out, an interrupted training goes on.",
    )
    spectra.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of shards")
    _add_training(spectra)
    spectra.add_argument("--model", metavar="NAME", help="trained weights to go on from")
    spectra.set_defaults(run=_train_spectra)


def _add_training(parser: argparse.ArgumentParser) -> None:
    """Add the options that every training has."""
    add = parser.add_argument
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
    add(
        "--learning-rate",
        type=float,
        metavar="RATE",
        help="of AdamW, at its peak (default 1.2e-3 for properties, 8e-4 for spectra); half of it or less to go on gently "
        "from --model (with --data)",
    )
    add(
        "--final-rate",
        type=float,
        metavar="RATE",
        help="learning rate at the end (default a hundredth of the peak, with --data)",
    )
    add("--seed", type=int, default=0, help="seed (default 0)")
    add("--device", default="cpu", help="cpu (default) or cuda")


def _train_properties(options: argparse.Namespace) -> int:
    parts = ["--heads-alone"] * options.heads_alone
    parts += ["--photometry-alone"] * options.photometry_alone
    if options.anchor:
        for name in parts:
            raise ValueError(f"--anchor trains all heads, and heads alone: leave {name} out.")
        for name, rate in {"learning": options.learning_rate, "final": options.final_rate}.items():
            if rate is not None:
                raise ValueError(
                    f"--anchor has a learning rate of its own: leave --{name}-rate out."
                )
        return _anchor(options)
    if options.images is not None:
        raise ValueError("--images are those of the galaxies of --anchor: give the table too.")
    if not options.data:
        raise ValueError(
            "give --data, folders of simulated shards, or --anchor, labelled galaxies."
        )
    from ..inference.estimator import PropertyEstimator
    from ..inference.training import DEFAULT_TRAINING, RecipeConfig, train_properties

    training = _training(DEFAULT_TRAINING, options)
    recipe = RecipeConfig(
        seed=options.seed,
        heads_alone=options.heads_alone,
        photometry_alone=options.photometry_alone,
    )
    before = None
    if options.model is not None:
        before = PropertyEstimator.from_pretrained(options.model, device=options.device).network
    elif parts:
        raise ValueError(f"{parts[0]} goes on with trained weights: say with --model of which.")
    network, history = train_properties(
        options.data, options.out, recipe=recipe, training=training, network=before
    )
    card = _card(recipe, training, history, options)
    return _save(PropertyEstimator(network, card=card), "properties", options)


def _anchor(options: argparse.Namespace) -> int:
    from importlib.util import find_spec

    from astropy.table import vstack

    from ..inference.estimator import PropertyEstimator
    from ..quantities import QUANTITIES
    from ..warnings import AstroGenSpecWarning
    from .inputs import Images
    from .tables import read_table

    table = vstack([read_table(path) for path in options.anchor], metadata_conflicts="silent")
    labels = {name: table[name] for name in QUANTITIES if name in table.colnames}
    known = {
        name: table[f"known_{name}"] for name in QUANTITIES if f"known_{name}" in table.colnames
    }
    if not labels:
        raise ValueError(f"{options.anchor[0]} has none of the columns {', '.join(QUANTITIES)}.")
    images = None
    if options.images is not None:
        if len(options.images) != len(table):
            raise ValueError(
                f"--images are {len(options.images)} files for {len(table)} rows of --anchor: give one for each."
            )
        images = Images(options.images, None, "flag", "name" not in table.colnames)
    options.out.mkdir(parents=True, exist_ok=True)
    page = options.out / "report.html" if find_spec("matplotlib") else None
    estimator = PropertyEstimator.from_pretrained(options.model, device=options.device).fit(
        images,
        photometry=table[[name for name in table.colnames if name not in QUANTITIES]],
        labels=labels,
        known=known or None,
        rehearsal=options.data,
        epochs=options.epochs,
        members=options.members,
        **(_LARGE_STEPS if len(table) > _MANY else _SMALL_STEPS),
        seed=options.seed,
        on_error="flag",
        progress=not options.quiet,
        report=page,
        overwrite=True,
    )
    if images is not None and images.reasons:
        unread = "; ".join(images.reasons[k] for k in sorted(images.reasons))
        warnings.warn(
            f"{len(images.reasons)} of the --images could not be read, and their galaxies were fitted without: {unread}.",
            AstroGenSpecWarning,
            stacklevel=2,
        )
    if not options.quiet:
        changes = estimator.fit_report()
        changes.round(4)
        print("\n".join(changes.pformat(-1, -1)))
        where = "not written, for want of the extra plot" if page is None else f"in {page}"
        print(f"The page that says how far to trust the new weights is {where}.")
    return _save(estimator, "properties", options)


def _train_spectra(options: argparse.Namespace) -> int:
    from ..generation.estimator import SpectrumEstimator
    from ..generation.training import DEFAULT_TRAINING, SpectrumRecipe, train_spectra

    training = _training(DEFAULT_TRAINING, options)
    recipe = SpectrumRecipe(seed=options.seed)
    before = None
    if options.model is not None:
        before = SpectrumEstimator.from_pretrained(options.model, device=options.device).network
    network, history = train_spectra(
        options.data, options.out, recipe=recipe, training=training, network=before
    )
    card = _card(recipe, training, history, options)
    return _save(SpectrumEstimator(network, card=card), "spectra", options)


def _training(default: TrainingConfig, options: argparse.Namespace) -> TrainingConfig:
    hours = 2.0 if options.steps is None and options.hours is None else options.hours
    peak, final = options.learning_rate, options.final_rate
    peak = default.learning_rate if peak is None else peak
    if final is not None and not 0 < final <= peak:
        raise ValueError(
            f"--final-rate is {final:g}: give more than 0 and no more than the peak, {peak:g}."
        )
    return replace(
        default,
        learning_rate=peak,
        final_factor=default.final_factor if final is None else final / peak,
        max_steps=options.steps,
        max_seconds=None if hours is None else 3600 * hours,
        device=options.device,
        quiet=options.quiet,
    )


def _card(
    recipe: Any, training: TrainingConfig, history: History, options: argparse.Namespace
) -> dict[str, Any]:
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
    return card if options.model is None else card | {"continued_from": options.model}


def _save(estimator: Estimator, lane: str, options: argparse.Namespace) -> int:
    path = options.out / f"{lane}.safetensors"
    estimator.save(path, overwrite=True)
    if not options.quiet:
        print(f"The weights are in {path}; use them with {type(estimator).__name__}.load.")
    return 0
