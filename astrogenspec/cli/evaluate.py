"""``astrogenspec evaluate``: score a posterior against true values."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

__all__ = ["add_evaluate"]


def add_evaluate(commands: Any, common: argparse.ArgumentParser) -> None:
    """Register ``astrogenspec evaluate``.

    Parameters
    ----------
    commands : object
        Return value of ``add_subparsers``.
    common : `argparse.ArgumentParser`
        Options shared by all commands.
    """
    parser = commands.add_parser(
        "evaluate",
        parents=[common],
        help="compare a posterior with true values",
        description="Score a posterior written with --save-draws against a table of true values.",
    )
    add = parser.add_argument
    add("posterior", type=Path, metavar="POSTERIOR", help="table with draws")
    add(
        "truth",
        type=Path,
        metavar="TRUTH",
        help="table with a column for each quantity, and a column name",
    )
    add(
        "-o", "--output", type=Path, metavar="TABLE", help="also write the scores to this ECSV file"
    )
    add(
        "--report",
        type=Path,
        metavar="PAGE",
        help="write a calibration report (.html) and its table (.ecsv)",
    )
    add(
        "--mode",
        choices=("image", "photometry", "both"),
        default="photometry",
        help="input mode of the posterior, used to test a recalibration (default photometry)",
    )
    add("--overwrite", action="store_true", help="replace existing files")
    parser.set_defaults(run=_evaluate, parser=parser)


def _evaluate(options: argparse.Namespace) -> int:
    from ..atomic import atomic_write
    from ..calibration import calibration_table
    from ..results.posterior import Posterior
    from .inputs import check_output
    from .tables import read_table, rows_by_name

    for output in (options.output, options.report):
        if output is not None:
            check_output(output, options.overwrite, (options.posterior, options.truth))
    posterior = Posterior.read(options.posterior)
    truth = read_table(options.truth)
    if "name" in truth.colnames:
        truth = truth[rows_by_name(posterior.names, truth["name"], options.truth)]
    elif len(truth) != len(posterior):
        raise ValueError(
            f"{options.truth} has {len(truth)} rows and no column name, but {options.posterior} "
            f"has {len(posterior)} galaxies; add a column name, or one row for each galaxy in the "
            "same order."
        )
    scores = calibration_table(posterior, truth)
    for name in scores.colnames:
        if scores[name].dtype.kind == "f":
            scores[name].info.format = ".4g"
    print("\n".join(scores.pformat(-1, -1)))
    if options.output is not None:
        output = options.output.expanduser()
        with atomic_write(output, overwrite=options.overwrite) as temporary:
            scores.write(temporary, format="ascii.ecsv")
    if options.report is not None:
        from ..calibration import calibration_report

        report = calibration_report(posterior, truth, mode=options.mode)
        report.write(options.report, overwrite=options.overwrite)
        print(f"\n{report}\n\n{options.report}")
    return 0
