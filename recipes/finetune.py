"""Fine-tune a properties network on real galaxies.

    python recipes/finetune.py heads FOLDER --model WEIGHTS --data SHARDS --out runs/finetuned
    python recipes/finetune.py heads FOLDER --fold 0 --heads 2 --model WEIGHTS --data SHARDS \\
        --out runs/folds
    python recipes/finetune.py image-heads FOLDER --model WEIGHTS --data IMAGES --out OUT
    python recipes/finetune.py images FOLDER --model OUT/properties.safetensors --data IMAGES \\
        --out runs/finetuned-images
    python recipes/finetune.py calibrate FOLDER --model WEIGHTS --folds runs/folds --out OUT
    python recipes/finetune.py table FOLDER --out runs/finetuning.ecsv

``heads`` trains heads for galaxies without images on the table of `real_tables.finetuning_table`,
one after the other, and joins them in ``properties.safetensors``.  Every head is kept in a file of
its own: a second call continues with those that are missing, and with ``--only`` several calls
train different heads at the same time.  With ``--fold``, the galaxies of one fold are left out, and
the result is ``fold-K.safetensors``, for ``benchmarks/real.py``.  ``--fraction`` keeps a random
part of the labelled galaxies, for a learning curve.

``image-heads`` trains heads for galaxies with images on the same table: images are those of
simulated galaxies with the same redshift and fluxes (`astrogenspec.inference.finetuning.matching`).
``images`` then trains the weights that read images, and no others, on the galaxies with images:
``sdss_images.npz``, ``sdss_images.fits`` and ``sdss_photometry.fits``.  Run both first, and
``heads`` with the result as WEIGHTS.
``calibrate`` computes the guaranteed intervals from the galaxies that the weights of the folds left
out.  ``table`` writes the table of labelled galaxies.  SHARDS are simulated
galaxies for the teacher samples that limit catastrophic forgetting; IMAGES have images.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import QTable
from real_images import RealImages, fine_tune
from real_tables import finetuning_table, inputs_of, magnitudes_of, stars_and_quasars

from astrogenspec import Posterior, PropertyEstimator
from astrogenspec.calibration import CoverageGuarantee
from astrogenspec.inference.network import PropertyNetwork
from astrogenspec.inference.outliers.stars import StarTest
from astrogenspec.quantities import QUANTITIES

SEED = 5
#: Options of `PropertyEstimator.fit`.
SETTINGS = {
    "epochs": 40,
    "batch_size": 256,
    "learning_rate": 2e-3,
    "validation_fraction": 0.03,
    "patience": None,
    "heads": 1,
    "on_error": "flag",
    "progress": False,
}

#: Epochs of the heads for galaxies with images.
IMAGE_EPOCHS = 20


def train_head(
    base: PropertyEstimator, table: QTable, shards: list[Path], number: int, **settings: Any
) -> PropertyEstimator:
    """Train one head on all labels of a table, with `SETTINGS` and others in their place."""
    return base.fit(
        photometry=inputs_of(table),
        labels={name: table[name] for name in QUANTITIES},
        known={"redshift": table["known_redshift"]},
        sample_weight=table["sample_weight"],
        simulations=shards,
        seed=SEED + 100 * number,
        **(SETTINGS | settings),
    )


def train_heads(options: argparse.Namespace) -> None:
    """Train the heads that are missing, and join them when all exist."""
    table = finetuning_table(options.folder)
    prefix, joined = "head", "properties.safetensors"
    if options.fold is not None:
        table = table[table["fold"] != options.fold]
        prefix, joined = f"fold-{options.fold}-head", f"fold-{options.fold}.safetensors"
    table = table[np.random.default_rng(SEED).random(len(table)) < options.fraction]
    options.out.mkdir(parents=True, exist_ok=True)
    base = PropertyEstimator.from_pretrained(options.model)
    paths = [options.out / f"{prefix}-{k}.safetensors" for k in range(options.heads)]
    for k, path in enumerate(paths):
        if path.exists() or options.only not in (None, k):
            continue
        head = train_head(base, table, options.data, k)
        head.save(path)
        print(path, head.fit_report(), sep="\n", flush=True)
    if all(path.exists() for path in paths):
        join_heads(base, paths).save(options.out / joined, overwrite=True)


def train_image_heads(options: argparse.Namespace) -> None:
    """Train heads for galaxies with images, with matched images, and join them when all exist."""
    table = finetuning_table(options.folder)
    options.out.mkdir(parents=True, exist_ok=True)
    base = PropertyEstimator.from_pretrained(options.model)
    n_members = base.network.config["members"]
    paths = [options.out / f"image-head-{k}.safetensors" for k in range(options.heads)]
    for k, path in enumerate(paths):
        if path.exists() or options.only not in (None, k):
            continue
        # A network without heads for photometry matches images to galaxies without one.
        alone = PropertyEstimator(base.network.extract_head(k % n_members), card=base.card)
        head = train_head(alone, table, options.data, k, epochs=IMAGE_EPOCHS)
        head.save(path)
        print(path, head.fit_report(), sep="\n", flush=True)
    if all(path.exists() for path in paths):
        found = [PropertyEstimator.load(path) for path in paths]
        own = [base.network.extract_head(k) for k in base.network.photometry_heads]
        network = base.network.with_heads([one.network for one in found], own)
        fits = [one.card["fits"][-1] for one in found]
        joined = PropertyEstimator(network, card=dict(base.card or {}) | {"fits": fits})
        joined.save(options.out / "properties.safetensors", overwrite=True)


def join_heads(base: PropertyEstimator, paths: list[Path]) -> PropertyEstimator:
    """Join heads for galaxies without images with the heads that read images of the base.

    The former take part in the inference from image and photometry of all quantities but the
    redshift, because real galaxies trained them.
    """
    found = [PropertyEstimator.load(path) for path in paths]
    joined = base.network.with_heads(
        [base.network.extract_head(k) for k in range(base.network.config["members"])],
        [one.network.extract_head(one.network.photometry_heads[0]) for one in found],
    )
    network = PropertyNetwork.from_config(joined.config | {"image_quantities": 1})
    network.load_state_dict(joined.state_dict())
    card = dict(base.card or {})
    fits = [*card.get("fits", []), *(one.card["fits"][-1] for one in found)]
    dropped = ("sha256", "filename", "recalibration", "guarantee")
    card = {key: value for key, value in card.items() if key not in dropped}
    return PropertyEstimator(network, card=card | {"fits": fits})


def calibrate(options: argparse.Namespace) -> None:
    """Compute the guaranteed intervals from held-out galaxies of the folds, and the test of stars.

    There is no recalibration: fitted to these galaxies, it gains 0.001 nats per galaxy.
    """
    table = finetuning_table(options.folder)
    table = table[np.isfinite(table["redshift"].value)]
    posteriors, rows = [], []
    for k in range(table["fold"].max() + 1):
        estimator = PropertyEstimator.load(options.folds / f"fold-{k}.safetensors")
        chosen = np.flatnonzero(table["fold"] == k)
        posteriors.append(
            estimator.predict(
                photometry=inputs_of(table[chosen], morphology=False),
                n_draws=500,
                seed=0,
                on_error="flag",
                progress=False,
                calibrated=False,
            )
        )
        rows.append(chosen)
    posterior, order = Posterior.concatenate(posteriors), np.concatenate(rows)
    guarantee = CoverageGuarantee.fit(
        posterior, {name: table[name][order] for name in ("redshift", "stellar_mass", "sfr")}
    )
    print(guarantee)
    estimator = PropertyEstimator.from_pretrained(options.model)
    weight = table["sample_weight"]
    stars = StarTest.fit(magnitudes_of(table), stars_and_quasars(options.folder), weight)
    card = dict(estimator.card or {})
    card |= {"guarantee": guarantee.to_dict(), "stars": stars.to_dict()}
    options.out.mkdir(parents=True, exist_ok=True)
    PropertyEstimator(estimator.network, card=card).save(
        options.out / "properties.safetensors", overwrite=True
    )


def write_table(options: argparse.Namespace) -> None:
    """Write the table of labelled galaxies."""
    labelled = finetuning_table(options.folder)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    labelled.write(options.out, overwrite=True)
    print(len(labelled), "rows in", options.out)


def train_images(options: argparse.Namespace) -> None:
    """Fine-tune on galaxies with images."""
    before = PropertyEstimator.from_pretrained(options.model)
    after = fine_tune(before, RealImages.read(options.folder), options.data)
    options.out.mkdir(parents=True, exist_ok=True)
    after.save(options.out / "properties.safetensors", overwrite=True)
    print(after.fit_report())


def main() -> None:
    """Run one of the tasks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    tasks = parser.add_subparsers(dest="task", required=True)
    heads = tasks.add_parser("heads", help="fine-tune heads on photometry")
    image_heads = tasks.add_parser("image-heads", help="fine-tune heads on matched images")
    images = tasks.add_parser("images", help="fine-tune on galaxies with images")
    calibration = tasks.add_parser("calibrate", help="guaranteed intervals")
    table = tasks.add_parser("table", help="write the table of labelled galaxies")
    for task, run in (
        (heads, train_heads),
        (image_heads, train_image_heads),
        (images, train_images),
        (calibration, calibrate),
        (table, write_table),
    ):
        task.add_argument("folder", type=Path, help="folder of the real data")
        task.set_defaults(run=run)
    for task in (heads, image_heads, images, calibration):
        task.add_argument("--model", required=True, help="weights to start from")
    for task in (heads, image_heads, images):
        task.add_argument("--data", nargs="+", type=Path, default=[], help="simulated shards")
    for task in (heads, image_heads):
        task.add_argument("--heads", type=int, default=3, help="number of heads")
        task.add_argument("--only", type=int, metavar="K", help="train this head alone")
    heads.add_argument("--fold", type=int, help="fold to leave out")
    heads.add_argument("--fraction", type=float, default=1.0, help="part of the labels to use")
    heads.add_argument("--out", type=Path, default=Path("runs/finetuned"))
    image_heads.add_argument("--out", type=Path, default=Path("runs/image-heads"))
    images.add_argument("--out", type=Path, default=Path("runs/finetuned-images"))
    calibration.add_argument("--folds", type=Path, default=Path("runs/folds"))
    calibration.add_argument("--out", type=Path, default=Path("runs/calibrated"))
    table.add_argument("--out", type=Path, default=Path("runs/finetuning.ecsv"))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    arguments.run(arguments)


if __name__ == "__main__":
    main()
