"""Prepare and run the fine-tuning of a properties network on real galaxies.

    python recipes/finetune.py table FOLDER --out runs/finetuning.ecsv
    python recipes/finetune.py images FOLDER --model WEIGHTS --data SHARDS --out OUT

``table`` writes the table of labelled galaxies for ``astrogenspec train properties --anchor`` from
``sdss_photometry.fits``, ``sdss_lines.fits``, ``sdss_masses.fits`` and ``sdss_images.fits`` in
FOLDER, without the 24 galaxies of the demonstration and those of the image table.  ``images``
continues on the galaxies with images: ``sdss_images.npz``, ``sdss_images.fits`` and
``sdss_photometry.fits``.  SHARDS are simulated galaxies for the teacher samples that limit
catastrophic forgetting.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

from real_images import RealImages, fine_tune
from real_tables import finetuning_table

from astrogenspec import PropertyEstimator


def main() -> None:
    """Run one of the tasks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    tasks = parser.add_subparsers(dest="task", required=True)
    table = tasks.add_parser("table", help="write the table of labelled galaxies")
    images = tasks.add_parser("images", help="fine-tune on galaxies with images")
    for task in (table, images):
        task.add_argument("folder", type=Path, help="folder of the real data")
    table.add_argument("--out", type=Path, default=Path("runs/finetuning.ecsv"))
    images.add_argument("--model", required=True, help="weights fine-tuned on photometry")
    images.add_argument("--data", nargs="+", type=Path, default=[], help="simulated shards")
    images.add_argument("--out", type=Path, default=Path("runs/finetuned-images"))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    if arguments.task == "table":
        labelled = finetuning_table(arguments.folder)
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        labelled.write(arguments.out, overwrite=True)
        print(len(labelled), "rows in", arguments.out)
        return
    before = PropertyEstimator.from_pretrained(arguments.model)
    after = fine_tune(before, RealImages.read(arguments.folder), arguments.data)
    arguments.out.mkdir(parents=True, exist_ok=True)
    after.save(arguments.out / "properties.safetensors", overwrite=True)
    print(after.fit_report())


if __name__ == "__main__":
    main()
