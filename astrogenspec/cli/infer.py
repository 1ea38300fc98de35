"""``astrogenspec infer``: infer properties of galaxies in files and write a table."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np
from astropy.table import QTable

from .. import __version__
from ..atomic import save_figure, write_bytes
from ..inputs.errors import INPUT_ERRORS
from ..weights import file_sha256
from .inputs import (
    FLAGGED,
    Galaxies,
    Images,
    check_output,
    figure_path,
    printable,
    read_inputs,
    with_file_name,
)
from .report import check_page, write_page

if TYPE_CHECKING:
    from ..inference.estimator import PropertyEstimator
    from ..results.posterior import Posterior
    from ..results.summary_writer import SummaryWriter

__all__ = ["infer"]


def infer(options: argparse.Namespace) -> int:
    """Infer the properties of galaxies in files and write them to a table.

    Parameters
    ----------
    options : `argparse.Namespace`
        Namespace parsed by `astrogenspec.cli.commands.make_parser`.

    Returns
    -------
    int
        Exit status: 0, or 3 if a galaxy is flagged.

    Raises
    ------
    ValueError, TypeError, OSError, astropy.units.UnitsError
        If an input cannot be read or the output cannot be written.
    """
    check_output(options.output, options.overwrite, (*options.input, options.photometry))
    options.output = options.output.expanduser()
    _check_format(options.output)
    galaxies = read_inputs(options)
    galaxies.check_photometry(options.ebv, options.on_error)

    from ..inference.estimator import PropertyEstimator
    from ..results.summary_writer import SummaryWriter

    estimator = PropertyEstimator.from_pretrained(options.model, device=options.device)
    n = len(galaxies)
    check_page(options, n)
    whole = options.save_draws or options.plot or options.report or n <= _MAX_WHOLE
    if whole:
        _check_memory(estimator, n, options.draws)
    partial = None if whole else _PartialResult(options, estimator)
    try:
        blocks = estimator.predict_iter(
            galaxies.images,
            **galaxies.photometry_arguments(options.ebv, options.on_error),
            n_draws=options.draws,
            seed=options.seed if partial is None else partial.seed,
            ids=_ids(galaxies, options.id),
            on_error=options.on_error,
            progress=not options.quiet and n > 1 and sys.stderr.isatty(),
            first=0 if partial is None else partial.writer.start,
        )
        result = _collected(blocks, galaxies.images, None if partial is None else partial.writer)
    except INPUT_ERRORS as error:
        raise with_file_name(error, galaxies.files) from error
    kept = galaxies.kept_columns()
    if isinstance(result, SummaryWriter):
        result.write(options.output, columns=kept, overwrite=options.overwrite)
        if partial is not None:
            partial.remove()
    else:
        result.write(
            options.output, draws=options.save_draws, columns=kept, overwrite=options.overwrite
        )
        if options.plot is not None:
            _plot(result, options.plot)
        if options.report is not None:
            write_page(options, result, galaxies, reconstruct=estimator.reconstruct)
        if not options.quiet:
            _summarise(result)
    n_flagged = int(np.count_nonzero(result.flag_codes))
    if not options.quiet:
        _report(n, options.output, n_flagged)
    return FLAGGED if n_flagged and not options.flagged_ok else 0


#: Maximum number of galaxies whose draws are kept until the end, unless they are written.
_MAX_WHOLE = 2000


def _ids(galaxies: Galaxies, column: str | None) -> Any:
    """Return the column of identifiers that key the random numbers."""
    if column is None:
        return None
    table = galaxies.photometry
    if table is None or column not in table.colnames:
        where = "there is no photometry" if table is None else f"it has {list(table.colnames)[:20]}"
        raise ValueError(f"--id is {column!r}, which is not a column of the photometry: {where}.")
    return table[column]


class _PartialResult:
    """Summaries of the galaxies that were inferred, beside the output, until it is written.

    The same command continues after an interruption; one with other options or inputs begins again.
    """

    def __init__(self, options: argparse.Namespace, estimator: PropertyEstimator) -> None:
        from ..results.summary_writer import SummaryWriter

        output = options.output
        self._folder = output.with_name(f".{output.name}.partial")
        settings = self._folder / "settings.json"
        wanted = {"digest": _digest(options, estimator)}
        found: dict[str, Any] = {}
        if settings.is_file():
            with suppress(ValueError):
                found = json.loads(settings.read_text())
        if {key: found.get(key) for key in wanted} != wanted:
            shutil.rmtree(self._folder, ignore_errors=True)
            seed = int.from_bytes(os.urandom(8)) if options.seed is None else options.seed
            found = {**wanted, "seed": seed}
            self._folder.mkdir(parents=True)
            write_bytes(settings, json.dumps(found).encode())
        self.seed: int = found["seed"]
        self.writer = SummaryWriter(self._folder)
        if self.writer.start and not options.quiet:
            print(f"continuing after {self.writer.start:,} galaxies", file=sys.stderr)

    def remove(self) -> None:
        """Remove the summaries, once the output is written."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _digest(options: argparse.Namespace, estimator: PropertyEstimator) -> str:
    """Return the SHA-256 of everything on which the summaries depend."""
    names = ("draws", "seed", "id", "survey", "bands", "flux_unit", "ebv", "on_error", "zero_point")
    content: dict[str, Any] = {name: str(getattr(options, name, None)) for name in names}
    content |= {"card": estimator.card, "version": __version__}
    files = [path for path in (*options.input, options.photometry) if path is not None]
    content["files"] = [
        (str(each), file_sha256(each))
        for path in files
        for each in (sorted(path.rglob("*")) if path.is_dir() else [path])
        if each.is_file()
    ]
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _collected(
    blocks: Iterator[Posterior], images: Images | None, summaries: SummaryWriter | None
) -> Posterior | SummaryWriter:
    """Return the whole posterior, or only the summaries of its blocks."""
    from ..results.posterior import Posterior

    if summaries is None:
        return _with_reasons(Posterior.concatenate(blocks), images)
    start = summaries.start
    for block in blocks:
        summaries.append(_with_reasons(block, images, start))
        start += len(block)
    return summaries


def _check_format(path: Path) -> None:
    """Raise before the inference if posteriors cannot be written in this format."""
    from ..results.posterior import Posterior

    trial = Posterior({"redshift": np.zeros((1, 1)) * u.one})
    with tempfile.TemporaryDirectory() as scratch:
        trial.write(Path(scratch) / path.name)


def _with_reasons(posterior: Posterior, images: Images | None, start: int = 0) -> Posterior:
    """Add the reasons why files could not be read to the flags."""
    if images is None or not images.reasons:
        return posterior
    names, flags, codes, named = images.with_reasons(
        posterior.names, posterior.flags, posterior.flag_codes, posterior.named, start
    )
    return type(posterior)(
        posterior.draws,
        names=names,
        flags=flags,
        flag_codes=codes,
        measurable=posterior.measurable,
        photometry=posterior.photometry,
        meta=posterior.meta,
        named=named,
    )


def _check_memory(estimator: PropertyEstimator, n: int, n_draws: int) -> None:
    needed = estimator.memory_needed(n, n_draws)
    if needed > estimator.memory_limit:
        most = int(n_draws * estimator.memory_limit / needed)
        raise ValueError(
            f"{n} galaxies with {n_draws} draws require {needed / 1e9:.1f} GB of memory, more "
            "than the limit of "
            f"{estimator.memory_limit / 1e9:.1f} GB; use --draws {most}, omit --save-draws and "
            "--plot, or use `astrogenspec survey`, which needs constant memory."
        )


def _plot(posterior: Posterior, folder: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    for k in np.flatnonzero(posterior.usable):
        figure = posterior.plot_corner(int(k))
        save_figure(figure, figure_path(folder, posterior.names, int(k)))
        plt.close(figure)


def _summarise(posterior: Posterior) -> None:
    if len(posterior) > 20:
        return
    columns: dict[str, Any] = {"name": [printable(name) for name in posterior.names]}
    for name in ("redshift", "stellar_mass", "sfr"):
        low, middle, high = posterior[name].percentiles([16, 50, 84]).value
        columns[name] = [
            f"{m:.3f} -{m - a:.3f} +{b - m:.3f}" for a, m, b in zip(low, middle, high, strict=True)
        ]
    print("\n".join(QTable(columns).pformat(-1, -1)))


def _report(n: int, path: Path, n_flagged: int) -> None:
    flagged = f", {n_flagged} flagged (columns flags and flag)" if n_flagged else ""
    print(f"{n} {'galaxy' if n == 1 else 'galaxies'}{flagged}: {path}")
