"""The command line: ``astrogenspec infer | spectrum | weights | simulate | train | evaluate | completion``.

Exit status
-----------
0 success; 1 a fault of the program; 2 a wrong command line, or a file that cannot be read or written; 3 finished, but
some galaxies are flagged (see the column ``flag`` of the table, or ``flags`` of the spectra); 4 weights that are missing
or damaged; 130 interrupted.
"""

from __future__ import annotations

import argparse
import logging
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .. import __version__
from .completion import add_completion
from .options import add_infer, add_spectrum
from .train import add_simulate, add_train

__all__ = ["main"]

SUCCESS, FAULT, WRONG_INPUT, FLAGGED, NO_WEIGHTS, INTERRUPTED = 0, 1, 2, 3, 4, 130
_STATUS = __doc__.partition("-----------\n")[2].replace("``", "").strip()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        Those of the process by default.

    Returns
    -------
    int
        Exit status; see the module.
    """
    parser = make_parser()
    options = parser.parse_args(arguments)
    if not hasattr(options, "run"):
        options.parser.print_help()
        return WRONG_INPUT
    with _warnings_in_one_line(), _log_on_stderr(options.verbose):
        try:
            return options.run(options)
        except KeyboardInterrupt:
            _say("interrupted")
            return INTERRUPTED
        except BrokenPipeError:
            sys.stderr.close()
            return SUCCESS
        except Exception as error:
            if options.debug:
                traceback.print_exc()
            return _explain(error)


def make_parser() -> argparse.ArgumentParser:
    """Build the parser.

    Returns
    -------
    `argparse.ArgumentParser`
        The namespace that it makes has ``run``, a function of the namespace that returns the exit status.
    """
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="say which weights are read, how a training goes",
    )
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    common.add_argument(
        "-q", "--quiet", action="store_true", help="show neither progress nor summary"
    )
    parser = argparse.ArgumentParser(
        prog="astrogenspec",
        description="Galaxy physics from broad-band images: posteriors of properties and line fluxes, and spectra.",
        epilog=f"exit status:\n{_STATUS}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"astrogenspec {__version__}")
    parser.set_defaults(parser=parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for add in (
        add_infer,
        add_spectrum,
        _add_weights,
        add_simulate,
        add_train,
        _add_evaluate,
    ):
        add(commands, common)
    add_completion(commands, common, parser)
    return parser


def _add_weights(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser("weights", help="list, show and fetch network weights")
    parser.set_defaults(parser=parser)
    actions = parser.add_subparsers(title="actions", metavar="ACTION")
    actions.add_parser("list", parents=[common], help="list the registered models").set_defaults(
        run=_list_weights
    )
    for name, run, what in (
        ("show", _show_weights, "show the card of a model"),
        ("fetch", _fetch_weights, "download a model if need be, check it, and say where it lies"),
    ):
        action = actions.add_parser(
            name, parents=[common], help=what, description=what.capitalize() + "."
        )
        action.add_argument(
            "name",
            nargs="?",
            help="registered model or .safetensors file; the bundled one by default",
        )
        action.set_defaults(run=run)


def _list_weights(options: argparse.Namespace) -> int:
    from ..weights import list_models

    print("\n".join(list_models()["name", "lane", "where", "description"].pformat(-1, -1)))
    return SUCCESS


def _show_weights(options: argparse.Namespace) -> int:
    import json

    from ..weights import DEFAULT_MODEL, load_card

    print(json.dumps(load_card(options.name or DEFAULT_MODEL), indent=2))
    return SUCCESS


def _fetch_weights(options: argparse.Namespace) -> int:
    from ..weights import DEFAULT_MODEL, fetch_weights

    print(fetch_weights(options.name or DEFAULT_MODEL).path)
    return SUCCESS


def _add_evaluate(commands: Any, common: argparse.ArgumentParser) -> None:
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
        help="table with columns named as the quantities, and name",
    )
    add("-o", "--output", type=Path, metavar="TABLE", help="write the scores to this ECSV file too")
    add(
        "--report",
        type=Path,
        metavar="PAGE",
        help="write a page (.html) that says how far to trust each quantity, and its table (.ecsv)",
    )
    add(
        "--mode",
        choices=("image", "photometry", "both"),
        default="photometry",
        help="what the posterior was inferred from, for the recalibration that the page tries",
    )
    add("--overwrite", action="store_true", help="replace files that exist")
    parser.set_defaults(run=_evaluate, parser=parser)


def _evaluate(options: argparse.Namespace) -> int:
    from ..calibration import calibration_table
    from ..results.posterior import Posterior
    from .tables import read_table, rows_by_name

    posterior = Posterior.read(options.posterior)
    truth = read_table(options.truth)
    if "name" in truth.colnames:
        truth = truth[rows_by_name(posterior.names, truth["name"], options.truth)]
    elif len(truth) != len(posterior):
        raise ValueError(
            f"{options.truth} has {len(truth)} rows and no column name, but {options.posterior} has "
            f"{len(posterior)} galaxies."
        )
    scores = calibration_table(posterior, truth)
    for name in scores.colnames:
        if scores[name].dtype.kind == "f":
            scores[name].info.format = ".4g"
    print("\n".join(scores.pformat(-1, -1)))
    if options.output is not None:
        scores.write(options.output, format="ascii.ecsv", overwrite=options.overwrite)
    if options.report is not None:
        from ..calibration import calibration_report

        report = calibration_report(posterior, truth, mode=options.mode)
        report.write(options.report, overwrite=options.overwrite)
        print(f"\n{report}\n\n{options.report}")
    return SUCCESS


def _explain(error: Exception) -> int:
    """Print an error as one sentence and choose the exit status."""
    from ..inputs.errors import INPUT_ERRORS
    from ..weights import WeightsError

    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    sentence = " ".join(text.split()) or type(error).__name__
    if isinstance(error, WeightsError):
        _say(f"error: {sentence}")
        return NO_WEIGHTS
    if isinstance(error, ModuleNotFoundError):
        _say(
            f"error: the package {error.name} is missing: install it, for example with astrogenspec[all]."
        )
        return WRONG_INPUT
    if isinstance(error, (*INPUT_ERRORS, OSError, KeyError, MemoryError, ImportError)):
        _say(f"error: {sentence}")
        return WRONG_INPUT
    _say(f"error: {type(error).__name__}: {sentence} (a fault of the program; --debug shows where)")
    return FAULT


@contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """Show each warning of the package once, without the line of code."""
    from ..warnings import AstroGenSpecWarning

    shown: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
        if not issubclass(category, AstroGenSpecWarning):
            usual(message, category, *rest, **more)
        elif str(message) not in shown:
            shown.add(str(message))
            _say(f"warning: {message}")

    with warnings.catch_warnings():
        usual, warnings.showwarning = warnings.showwarning, show
        warnings.simplefilter("always", AstroGenSpecWarning)
        yield


@contextmanager
def _log_on_stderr(wanted: bool) -> Iterator[None]:
    """Show what the package tells its logger."""
    log, handler = logging.getLogger(__name__.partition(".")[0]), logging.StreamHandler()
    level = log.level
    if wanted:
        handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


def _say(sentence: str) -> None:
    print(f"astrogenspec: {sentence}", file=sys.stderr)
