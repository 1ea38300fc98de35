"""``astrogenspec evaluate``: score a posterior against true values."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

__all__ = ["add_evaluate"]

#: Galaxies on which weights are scored, at most, unless the user gives another number.
_MAX_GALAXIES = 5000


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
        help="compare a posterior with true values, or weights with a data set",
        description="Score a posterior written with --save-draws against a table of true values. "
        "With --data, score weights on the test part of a data set of real galaxies, beside "
        "published scores.",
    )
    add = parser.add_argument
    add("posterior", type=Path, nargs="?", metavar="POSTERIOR", help="table with draws")
    add(
        "truth",
        type=Path,
        nargs="?",
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
    _add_data(parser)
    add("--overwrite", action="store_true", help="replace existing files")
    parser.set_defaults(run=_evaluate, parser=parser)


def _add_data(parser: argparse.ArgumentParser) -> None:
    """Add the options of weights on a data set."""
    data = parser.add_argument_group("weights on a data set")
    data.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="data set (astrogenspec dataset), or its folder test",
    )
    data.add_argument(
        "--properties", metavar="WEIGHTS", help="weights of properties (default: the bundled ones)"
    )
    data.add_argument("--spectra", metavar="WEIGHTS", help="weights of spectra (default: none)")
    data.add_argument(
        "--n",
        type=int,
        metavar="N",
        help=f"maximum number of galaxies (default {_MAX_GALAXIES}; 0.4 MB of memory each)",
    )
    data.add_argument("--n-draws", type=int, default=500, help="draws per galaxy (default 500)")
    data.add_argument(
        "--n-fits",
        type=int,
        default=100,
        metavar="N",
        help="maximum number of spectra to which stellar templates are fitted, for velocity "
        "dispersion, age, metallicity and reddening (default 100)",
    )
    data.add_argument("--seed", type=int, default=0, help="seed (default 0)")
    data.add_argument("--device", default="cpu", help="cpu (default) or cuda")


def _evaluate(options: argparse.Namespace) -> int:
    if options.data is not None:
        return _evaluate_weights(options)
    if options.posterior is None or options.truth is None:
        raise ValueError(
            "either POSTERIOR and TRUTH, or --data with a data set of real galaxies, are required."
        )
    for name in ("properties", "spectra", "n"):
        if getattr(options, name) is not None:
            raise ValueError(f"--{name} requires --data; omit it.")
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


def _evaluate_weights(options: argparse.Namespace) -> int:
    from ..atomic import atomic_write, write_bytes
    from ..datasets.evaluation import read_test_set
    from ..datasets.evaluation_page import evaluate, html_page
    from .inputs import check_output

    if options.posterior is not None:
        raise ValueError("--data cannot be combined with POSTERIOR and TRUTH; give one of them.")
    for output in (options.output, options.report):
        if output is not None:
            check_output(output, options.overwrite, ())
    evaluation = evaluate(
        read_test_set(options.data, _MAX_GALAXIES if options.n is None else options.n),
        properties=options.properties,
        spectra=options.spectra,
        n_draws=options.n_draws,
        n_fits=options.n_fits,
        seed=options.seed,
        device=options.device,
    )
    for table in evaluation.tables.values():
        for name in table.colnames:
            if table[name].dtype.kind == "f":
                table[name].info.format = ".4g"
        print("\n".join(table.pformat(-1, -1)) + "\n")
    if options.output is not None:
        with atomic_write(options.output.expanduser(), overwrite=options.overwrite) as temporary:
            evaluation.tables["properties"].write(temporary, format="ascii.ecsv")
    if options.report is not None:
        page = html_page(evaluation)
        write_bytes(options.report.expanduser(), page.encode(), overwrite=options.overwrite)
        print(options.report)
    return 0
