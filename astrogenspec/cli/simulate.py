"""``astrogenspec simulate``: simulate galaxies, or compare the simulator with real galaxies."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

__all__ = ["add_simulate"]


def add_simulate(commands: Any, common: argparse.ArgumentParser) -> None:
    """Register ``astrogenspec simulate``.

    Parameters
    ----------
    commands : object
        Return value of ``add_subparsers``.
    common : `argparse.ArgumentParser`
        Options shared by all commands.
    """
    parser = commands.add_parser(
        "simulate",
        parents=[common],
        help="simulate galaxies, or compare the simulator with real galaxies",
        description="Simulate N galaxies into HDF5 shards. With --report, compare the simulator "
        "with real tables.",
    )
    add = parser.add_argument
    add("n", nargs="?", type=int, metavar="N", help="number of galaxies")
    add("--report", type=Path, metavar="FOLDER", help="compare with the real tables in this folder")
    add(
        "--out", type=Path, required=True, metavar="DIR", help="folder for the shards or the report"
    )
    add(
        "--population",
        choices=("local", "deep"),
        default="local",
        help="galaxies of the main sample of SDSS (default), or to r = 23.5 and z = 1.3",
    )
    add("--seed", type=int, default=0, help="seed (default 0)")
    add("--no-images", action="store_true", help="write photometry and labels only (much faster)")
    add("--no-spectra", action="store_true", help="do not write spectra")
    add(
        "--training",
        action="store_true",
        help="simulate the training set of the bundled networks: their mixture of samples, "
        "noiseless images, rest-frame spectra",
    )
    add("--workers", type=int, help="number of processes (default: number of cores)")
    parser.set_defaults(run=_simulate, parser=parser)


def _simulate(options: argparse.Namespace) -> int:
    if (options.n is None) == (options.report is None):
        raise ValueError("either N, a number of galaxies, or --report FOLDER is required.")
    if options.report is not None:
        from ..reports.simulator import write_report

        print(write_report(options.report, options.out, seed=options.seed))
        return 0
    from ..simulate.dataset import DEEP_SAMPLES, TRAINING_SAMPLES, Contents, write_shards

    images, spectra = ("noiseless", "rest") if options.training else ("observed", "observed")
    contents = Contents(
        images="none" if options.no_images else images,
        spectra="none" if options.no_spectra else spectra,
    )
    training = TRAINING_SAMPLES if options.population == "local" else DEEP_SAMPLES
    paths = write_shards(
        options.n,
        options.out,
        seed=options.seed,
        population=options.population,
        samples=training if options.training else None,
        contents=contents,
        workers=options.workers,
        progress=not options.quiet,
    )
    if not options.quiet:
        print(f"Wrote {options.n} galaxies in {len(paths)} shards to {options.out}.")
    return 0
