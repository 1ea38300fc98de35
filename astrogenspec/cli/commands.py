"""The command line ``astrogenspec COMMAND``, with one module for each command.

Exit status
-----------
0 success; 1 internal error; 2 invalid command line, or a file that cannot be read or written;
3 finished, but some galaxies are flagged (see the columns ``flags`` and ``flag`` of the output);
4 missing or damaged weights; 130 interrupted.
"""

from __future__ import annotations

import argparse
import logging
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from .. import __version__
from .completion import add_completion
from .dataset import add_dataset
from .evaluate import add_evaluate
from .options import add_infer, add_spectrum
from .report import add_report
from .serve import add_serve
from .simulate import add_simulate
from .survey import add_survey
from .train import add_train
from .weights import add_weights

__all__ = ["main"]

SUCCESS, INTERNAL_ERROR, INVALID_INPUT, FLAGGED, NO_WEIGHTS, INTERRUPTED = 0, 1, 2, 3, 4, 130
_STATUS = __doc__.partition("-----------\n")[2].replace("``", "").strip()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        Arguments; those of the process by default.

    Returns
    -------
    int
        Exit status, as listed in the module docstring.
    """
    parser = make_parser()
    options = parser.parse_args(arguments)
    if not hasattr(options, "run"):
        options.parser.print_help()
        return INVALID_INPUT
    with _one_line_warnings(), _log_to_stderr(options.verbose):
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
        The parsed namespace has an attribute ``run``: a function that takes the namespace and
        returns the exit status.
    """
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="log the weights used and training progress",
    )
    common.add_argument("--debug", action="store_true", help="print the traceback of an error")
    common.add_argument(
        "-q", "--quiet", action="store_true", help="print neither progress nor summary"
    )
    parser = argparse.ArgumentParser(
        prog="astrogenspec",
        description="Infer galaxy properties, emission-line fluxes and spectra from broad-band "
        "images and photometry.",
        epilog=f"exit status:\n{_STATUS}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"astrogenspec {__version__}")
    parser.set_defaults(parser=parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for add in (
        add_infer,
        add_spectrum,
        add_survey,
        add_weights,
        add_simulate,
        add_dataset,
        add_train,
        add_evaluate,
        add_report,
        add_serve,
    ):
        add(commands, common)
    add_completion(commands, common, parser)
    return parser


def _explain(error: Exception) -> int:
    """Print an error on one line and return the exit status."""
    from ..inputs.errors import INPUT_ERRORS
    from ..weights import WeightsError

    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    message = " ".join(text.split()) or type(error).__name__
    if isinstance(error, WeightsError):
        _say(f"error: {message}")
        return NO_WEIGHTS
    if isinstance(error, ModuleNotFoundError):
        _say(
            f"error: the package {error.name} is not installed; install it, for example with "
            "pip install 'astrogenspec[all]'."
        )
        return INVALID_INPUT
    if isinstance(error, (*INPUT_ERRORS, OSError, KeyError, MemoryError, ImportError)):
        _say(f"error: {message}")
        return INVALID_INPUT
    _say(
        f"error: {type(error).__name__}: {message} "
        "(internal error; rerun with --debug for a traceback)"
    )
    return INTERNAL_ERROR


@contextmanager
def _one_line_warnings() -> Iterator[None]:
    """Print each warning of the package once and on one line, without the source line."""
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
def _log_to_stderr(wanted: bool) -> Iterator[None]:
    """Write the log messages of the package to standard error if requested."""
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


def _say(message: str) -> None:
    from .inputs import printable

    print(f"astrogenspec: {printable(message)}", file=sys.stderr)
