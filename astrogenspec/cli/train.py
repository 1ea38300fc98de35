"""``astrogenspec train``: train networks on simulations, or fine-tune them on labelled galaxies."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from .actions import JoinNames

if TYPE_CHECKING:
    from astropy.table import Table

    from ..base import Estimator
    from ..generation.network import SpectrumNetwork
    from ..training.loop import History, TrainingConfig
    from .inputs import Images

__all__ = ["add_train"]

#: Number of labelled galaxies above which fine-tuning uses larger steps.
_LARGE_SAMPLE = 2000
_LARGE_STEPS: dict[str, Any] = {
    "batch_size": 256,
    "learning_rate": 2e-3,
    "validation_fraction": 0.1,
    "patience": None,
}
_SMALL_STEPS: dict[str, Any] = {"batch_size": 32, "learning_rate": 3e-4}
_FINE_TUNE_HELP = """\
tables for --fine-tune:
  Photometry columns are those of `astrogenspec infer`. Label columns are named as the quantities
  (redshift, stellar_mass, sfr, gas_metallicity, black_hole_mass, halpha_flux, hbeta_flux,
  nii6584_flux, oiii5007_flux), have units, and are empty where unknown. Columns known_redshift
  etc. hold values that condition the posterior but are not learnt, and sample_weight the weights of
  the galaxies.
example:
  astrogenspec train properties --fine-tune mine.ecsv --out fine-tuned
"""


def add_train(commands: Any, common: argparse.ArgumentParser) -> None:
    """Register ``astrogenspec train``.

    Parameters
    ----------
    commands : object
        Return value of ``add_subparsers``.
    common : `argparse.ArgumentParser`
        Options shared by all commands.
    """
    parser = commands.add_parser("train", help="train networks")
    parser.set_defaults(parser=parser)
    lanes = parser.add_subparsers(title="networks", metavar="NETWORK")
    _add_properties(lanes, common)
    _add_spectra(lanes, common)


def _add_properties(lanes: Any, common: argparse.ArgumentParser) -> None:
    properties = lanes.add_parser(
        "properties",
        parents=[common],
        help="the network behind PropertyEstimator",
        description="Train on shards of simulated or real galaxies. A second call with the same "
        "--out resumes an interrupted training. With --fine-tune, continue from trained "
        "weights on labelled galaxies.",
        epilog=_FINE_TUNE_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = properties.add_argument
    add(
        "--data",
        type=Path,
        nargs="+",
        default=[],
        metavar="DIR",
        help="folders of shards (astrogenspec simulate) or data sets (astrogenspec dataset); with "
        "--fine-tune they are mixed with the labelled galaxies to limit forgetting",
    )
    _add_training(properties)
    add("--model", metavar="NAME", help="trained weights to continue from")
    add(
        "--any-filters",
        action="store_true",
        help="train a network that reads photometry in any filters; the shards need spectral "
        "energy distributions (with --data, without --model)",
    )
    add(
        "--max-redshift",
        type=float,
        metavar="Z",
        help="upper bound of the redshift of the network (default 0.5; with --data, without "
        "--model)",
    )
    add(
        "--configuration",
        choices=("images-to-physics",),
        help="network and training of the published method of Siddiqa et al. (with --data)",
    )
    _add_fine_tuning(properties)
    part = properties.add_mutually_exclusive_group()
    part.add_argument(
        "--heads-only",
        "--heads-alone",
        dest="heads_alone",
        action="store_true",
        help="keep the image encoder of --model fixed, which is much faster (with --data, "
        "without --fine-tune)",
    )
    part.add_argument(
        "--photometry-only",
        "--photometry-alone",
        dest="photometry_alone",
        action="store_true",
        help="train an additional head for galaxies without images; the heads of --model stay "
        "fixed (with --data, without --fine-tune)",
    )
    properties.set_defaults(run=_joined(_train_properties))


def _add_fine_tuning(parser: argparse.ArgumentParser) -> None:
    """Add the options of fine-tuning on labelled galaxies."""
    add = parser.add_argument
    add(
        "--fine-tune",
        "--anchor",
        type=Path,
        nargs="+",
        metavar="TABLE",
        help="catalogues of labelled galaxies",
    )
    add(
        "--images",
        type=Path,
        nargs="+",
        metavar="CUTOUT",
        help="FITS cutouts, one for each row of the tables, in the same order (with --fine-tune)",
    )
    add(
        "--survey",
        action=JoinNames,
        metavar="NAME",
        help="survey of the photometry, or several, separated by commas (with --fine-tune)",
    )
    add(
        "--epochs",
        type=int,
        default=50,
        help="maximum number of epochs (with --fine-tune, default 50)",
    )
    add(
        "--heads",
        "--members",
        type=int,
        help="number of heads to train for each input mode; their posteriors are averaged (with "
        "--fine-tune)",
    )


def _add_spectra(lanes: Any, common: argparse.ArgumentParser) -> None:
    spectra = lanes.add_parser(
        "spectra",
        parents=[common],
        help="the network behind SpectrumEstimator",
        description="Train on simulated shards with images and rest-frame spectra (astrogenspec "
        "simulate N --training), on data sets of real galaxies with spectra (astrogenspec dataset) "
        "or on both. A second call with the same --out resumes an interrupted training.",
    )
    spectra.add_argument(
        "--data",
        type=Path,
        nargs="+",
        required=True,
        metavar="DIR",
        help="folders of simulated shards with images and rest-frame spectra (astrogenspec "
        "simulate), or data sets with spectra (astrogenspec dataset)",
    )
    _add_training(spectra)
    spectra.add_argument("--model", metavar="NAME", help="trained weights to continue from")
    spectra.add_argument(
        "--observed",
        type=Path,
        metavar="DIR",
        help="data set with observed spectra (astrogenspec dataset), on which --model is "
        "fine-tuned, together with the simulated galaxies of --data",
    )
    spectra.add_argument(
        "--n-observed",
        type=int,
        default=20_000,
        metavar="N",
        help="maximum number of observed galaxies (default 20000; 0.06 MB of memory each)",
    )
    spectra.add_argument(
        "--configuration",
        choices=("galaxy-spectroscopy",),
        help="network and training of the published method of Doorenbos et al.",
    )
    spectra.set_defaults(run=_joined(_train_spectra))


def _add_training(parser: argparse.ArgumentParser) -> None:
    """Add the options shared by all trainings."""
    add = parser.add_argument
    add(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for checkpoint, history and weights",
    )
    add("--steps", type=int, help="number of training steps")
    add(
        "--hours",
        type=float,
        help="maximum duration of the training (default 2 hours unless --steps is given)",
    )
    add(
        "--learning-rate",
        type=float,
        metavar="RATE",
        help="peak learning rate of AdamW (default 1.2e-3 for properties, 8e-4 for spectra); use "
        "half of it or less to continue from --model (with --data)",
    )
    add(
        "--final-rate",
        type=float,
        metavar="RATE",
        help="final learning rate (default: 1/100 of the peak; with --data)",
    )
    add("--seed", type=int, default=0, help="seed (default 0)")
    add("--device", default="cpu", help="cpu (default) or cuda")
    add(
        "--size",
        choices=("small", "base", "large"),
        default="base",
        help="size of a new network (default base; with --data, without --model)",
    )
    _add_engine(parser)


def _add_engine(parser: argparse.ArgumentParser) -> None:
    """Add the options of the training loop that do not change what is learnt."""
    add = parser.add_argument
    add(
        "--micro-batches",
        type=int,
        default=1,
        metavar="M",
        help="divide each batch in M parts, which needs less memory; with torchrun, a multiple of "
        "the number of processes (default: one part, or one for each process)",
    )
    add(
        "--precision",
        choices=("float32", "bf16"),
        default="float32",
        help="precision of matrix products (default float32; bf16 for GPUs)",
    )
    add(
        "--checkpoint-minutes",
        type=float,
        default=5.0,
        metavar="MINUTES",
        help="minutes between checkpoints, which are lost when the process is killed (default 5)",
    )
    add(
        "--compile",
        action="store_true",
        help="compile the large parts of the network, which takes minutes at first",
    )


def _joined(run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """Return a command that joins the processes of ``torchrun``, if there are any."""

    def joined(options: argparse.Namespace) -> int:
        from ..training.parallel import joined_workers

        with joined_workers(options.device) as device:
            options.device = device
            return run(options)

    return joined


def _train_properties(options: argparse.Namespace) -> int:
    parts = ["--heads-only"] * options.heads_alone
    parts += ["--photometry-only"] * options.photometry_alone
    _check_new_network(options)
    if options.fine_tune:
        for name in parts:
            raise ValueError(
                f"{name} cannot be combined with --fine-tune, which trains all heads and no "
                f"encoder; omit {name}."
            )
        for name, rate in {"learning": options.learning_rate, "final": options.final_rate}.items():
            if rate is not None:
                raise ValueError(
                    f"--{name}-rate cannot be combined with --fine-tune, which sets its own "
                    f"learning rate; omit --{name}-rate."
                )
        return _fine_tune(options)
    if options.images is not None:
        raise ValueError("--images requires --fine-tune TABLE with one row for each image.")
    if not options.data:
        raise ValueError(
            "either --data (folders of shards) or --fine-tune (labelled galaxies) is required."
        )
    from ..datasets.configurations import (
        property_recipe,
        published_training,
        train_frozen_encoder,
    )
    from ..inference.estimator import PropertyEstimator
    from ..inference.training import DEFAULT_TRAINING, RecipeConfig, train_properties
    from ..inputs.sed_features import N_COMPONENTS

    training = _training(published_training(DEFAULT_TRAINING, options.configuration), options)
    network_config: dict[str, Any] = {"sed_components": N_COMPONENTS} if options.any_filters else {}
    if options.max_redshift is not None:
        network_config["max_redshift"] = options.max_redshift
    recipe = RecipeConfig(
        network=network_config,
        seed=options.seed,
        heads_alone=options.heads_alone,
        photometry_alone=options.photometry_alone,
    )
    recipe = property_recipe(recipe, options.size, options.configuration, **_cutout_size(options))
    before, old_card = None, None
    if options.model is not None:
        old = PropertyEstimator.from_pretrained(options.model, device=options.device)
        before, old_card = old.network, old.card
    elif parts:
        raise ValueError(f"{parts[0]} requires --model, the trained weights to continue from.")
    if options.configuration:
        network, history = train_frozen_encoder(
            options.data, options.out, recipe=recipe, training=training
        )
    else:
        network, history = train_properties(
            options.data, options.out, recipe=recipe, training=training, network=before
        )
    card = _card(recipe, training, history, options) | _inputs_entry(options, old_card)
    return _save(PropertyEstimator(network, card=card), "properties", options)


def _cutout_size(options: argparse.Namespace) -> dict[str, int]:
    """Return the size of the images of a published method, with a warning if they are smaller."""
    if options.configuration is None:
        return {}
    from ..datasets.configurations import cutout_size_of
    from ..inference.images_to_physics import CUTOUT_SIZE
    from ..warnings import AstroGenSpecWarning

    size = cutout_size_of(options.data)
    if size < CUTOUT_SIZE:
        warnings.warn(
            f"the network reads images of {size} pixels, those of the data sets, instead of the "
            f"{CUTOUT_SIZE} of the published method; make them with `astrogenspec dataset "
            f"--cutout-size {CUTOUT_SIZE}`.",
            AstroGenSpecWarning,
            stacklevel=2,
        )
    return {"cutout_size": size}


def _check_new_network(options: argparse.Namespace) -> None:
    """Raise an error if options of a new network are given with trained weights."""
    given = ["--any-filters"] * getattr(options, "any_filters", False)
    given += ["--max-redshift"] * (getattr(options, "max_redshift", None) is not None)
    if given and options.configuration is not None:
        raise ValueError(
            f"{given[0]} cannot be combined with --configuration, which describes the network; "
            f"omit {given[0]}."
        )
    given += ["--size"] * (options.size != "base")
    given += ["--configuration"] * (options.configuration is not None)
    fine_tune = getattr(options, "fine_tune", None)
    if given and (options.model is not None or fine_tune):
        other = "--fine-tune" if fine_tune else "--model"
        raise ValueError(
            f"{given[0]} describes a new network and cannot be combined with {other}; omit "
            f"{given[0]}."
        )


def _inputs_entry(
    options: argparse.Namespace, before: dict[str, Any] | None
) -> dict[str, list[str]]:
    """Return the entry of the card of a network that was trained without images."""
    from ..training.shards import have_images

    alone = before is None or before.get("inputs") == ["photometry"]
    if alone and not any(have_images(folder) for folder in options.data):
        return {"inputs": ["photometry"]}
    return {}


def _fine_tune(options: argparse.Namespace) -> int:
    from importlib.util import find_spec

    from astropy.table import vstack

    from ..inference.estimator import PropertyEstimator
    from ..quantities import QUANTITIES
    from ..warnings import AstroGenSpecWarning
    from .tables import named_surveys, read_table

    table = vstack([read_table(path) for path in options.fine_tune], metadata_conflicts="silent")
    labels = {name: table[name] for name in QUANTITIES if name in table.colnames}
    known = {
        name: table[f"known_{name}"] for name in QUANTITIES if f"known_{name}" in table.colnames
    }
    if not labels:
        raise ValueError(
            f"{options.fine_tune[0]} has no label column; expected at least one of "
            f"{', '.join(QUANTITIES)}."
        )
    images = _images_of(options, table)
    options.out.mkdir(parents=True, exist_ok=True)
    page = options.out / "report.html" if find_spec("matplotlib") else None
    estimator = PropertyEstimator.from_pretrained(options.model, device=options.device).fit(
        images,
        photometry=table[[name for name in table.colnames if name not in QUANTITIES]],
        survey=named_surveys(options.survey),
        labels=labels,
        known=known or None,
        simulations=options.data,
        sample_weight=table["sample_weight"] if "sample_weight" in table.colnames else None,
        epochs=options.epochs,
        heads=options.heads,
        **(_LARGE_STEPS if len(table) > _LARGE_SAMPLE else _SMALL_STEPS),
        seed=options.seed,
        on_error="flag",
        progress=not options.quiet,
        report=page,
        overwrite=True,
    )
    if images is not None and images.reasons:
        unread = "; ".join(images.reasons[k] for k in sorted(images.reasons))
        warnings.warn(
            f"{len(images.reasons)} of the --images could not be read; their galaxies were used "
            f"without image: {unread}.",
            AstroGenSpecWarning,
            stacklevel=2,
        )
    if not options.quiet:
        changes = estimator.fit_report()
        changes.round(4)
        print("\n".join(changes.pformat(-1, -1)))
        where = "not written: it requires the extra plot" if page is None else str(page)
        print(f"Calibration report: {where}.")
    return _save(estimator, "properties", options)


def _images_of(options: argparse.Namespace, table: Table) -> Images | None:
    """Return the images of labelled galaxies, if any were given."""
    from .inputs import Images

    if options.images is None:
        return None
    if len(options.images) != len(table):
        raise ValueError(
            f"--images lists {len(options.images)} files, but the tables of --fine-tune have "
            f"{len(table)} rows; one image for each row is required."
        )
    return Images(options.images, None, "flag", "name" not in table.colnames)


def _train_spectra(options: argparse.Namespace) -> int:
    from ..datasets.configurations import published_training, spectrum_recipe
    from ..datasets.image_spectra import train_image_spectra
    from ..datasets.spectrum_training import train_spectra_on
    from ..generation.estimator import SpectrumEstimator
    from ..generation.training import DEFAULT_TRAINING, SpectrumRecipe, train_spectra
    from ..training.shards import are_real

    training = _training(published_training(DEFAULT_TRAINING, options.configuration), options)
    _check_new_network(options)
    recipe = SpectrumRecipe(seed=options.seed)
    recipe = spectrum_recipe(recipe, options.size, options.configuration)
    before = None
    if options.model is not None:
        before = SpectrumEstimator.from_pretrained(options.model, device=options.device).network
    if options.observed is not None:
        return _fine_tune_spectra(options, before, training)
    settings: dict[str, Any] = {"recipe": recipe, "training": training, "network": before}
    if options.configuration is not None:
        network, history = train_image_spectra(
            options.data, options.out, recipe=recipe, training=training
        )
    elif any(are_real(folder) for folder in options.data):
        network, history = train_spectra_on(
            options.data, options.out, n_observed=options.n_observed, **settings
        )
    else:
        network, history = train_spectra(_one_folder(options), options.out, **settings)
    card = _card(recipe, training, history, options)
    return _save(SpectrumEstimator(network, card=card), "spectra", options)


def _one_folder(options: argparse.Namespace) -> Path:
    """Return the folder of simulated galaxies, of which there must be one."""
    if len(options.data) > 1:
        raise ValueError(
            f"--data has {len(options.data)} folders of simulated galaxies; the network of spectra "
            "is trained on one of them, and on any number of data sets of real galaxies."
        )
    return options.data[0]


def _fine_tune_spectra(
    options: argparse.Namespace, network: SpectrumNetwork | None, training: TrainingConfig
) -> int:
    from ..datasets.spectrum_samples import observed_sample
    from ..generation.estimator import SpectrumEstimator
    from ..generation.finetuning import FineTuningRecipe, finetune_spectra

    if network is None:
        raise ValueError("--observed requires --model, the trained weights to fine-tune.")
    if options.configuration is not None:
        raise ValueError("--configuration cannot be combined with --observed; omit it.")
    recipe = FineTuningRecipe(seed=options.seed)
    simulated = _one_folder(options)
    sample, held_out = observed_sample(options.observed, simulated, network, n=options.n_observed)
    tuned, history = finetune_spectra(
        network,
        sample,
        simulated,
        options.out,
        training,
        recipe=recipe,
        held_out=held_out,
    )
    card = _card(recipe, training, history, options)
    card |= {"observed_galaxies": len(sample) - len(held_out)}
    return _save(SpectrumEstimator(tuned, card=card), "spectra", options)


def _training(default: TrainingConfig, options: argparse.Namespace) -> TrainingConfig:
    hours = 2.0 if options.steps is None and options.hours is None else options.hours
    peak, final = options.learning_rate, options.final_rate
    peak = default.learning_rate if peak is None else peak
    if final is not None and not 0 < final <= peak:
        raise ValueError(
            f"--final-rate is {final:g}, but it must be greater than 0 and at most the peak "
            f"rate, {peak:g}."
        )
    return replace(
        default,
        learning_rate=peak,
        final_factor=default.final_factor if final is None else final / peak,
        max_steps=options.steps,
        max_seconds=None if hours is None else 3600 * hours,
        device=options.device,
        quiet=options.quiet,
        micro_batches=options.micro_batches,
        precision=options.precision,
        checkpoint_minutes=options.checkpoint_minutes,
        compiled=options.compile,
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
    from ..training.parallel import Workers

    path = options.out / f"{lane}.safetensors"
    if not Workers.current().is_first:
        return 0
    estimator.save(path, overwrite=True)
    if not options.quiet:
        print(f"Weights: {path}; load them with {type(estimator).__name__}.load.")
    return 0
