"""``astrogenspec infer``: infer properties of galaxies in files and write a table."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np
from astropy.table import QTable

from ..atomic import save_figure
from ..inputs.errors import INPUT_ERRORS
from .inputs import (
    FLAGGED,
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

    estimator = PropertyEstimator.from_pretrained(options.model, device=options.device)
    n = len(galaxies)
    check_page(options, n)
    _check_memory(estimator, n, options.draws)
    try:
        posterior = estimator.predict(
            galaxies.images,
            galaxies.photometry,
            ebv=options.ebv,
            survey=galaxies.surveys,
            n_draws=options.draws,
            seed=options.seed,
            on_error=options.on_error,
            progress=not options.quiet and n > 1 and sys.stderr.isatty(),
        )
    except INPUT_ERRORS as error:
        raise with_file_name(error, galaxies.files) from error
    posterior = _with_reasons(posterior, galaxies.images)
    posterior.write(
        options.output,
        draws=options.save_draws,
        columns=galaxies.kept_columns(),
        overwrite=options.overwrite,
    )
    if options.plot is not None:
        _plot(posterior, options.plot)
    if options.report is not None:
        write_page(options, posterior, galaxies, reconstruct=estimator.reconstruct)
    n_flagged = int(np.count_nonzero(posterior.flag_codes))
    if not options.quiet:
        _summarise(posterior, options.output, n_flagged)
    return FLAGGED if n_flagged and not options.flagged_ok else 0


def _check_format(path: Path) -> None:
    """Raise before the inference if posteriors cannot be written in this format."""
    from ..results.posterior import Posterior

    trial = Posterior({"redshift": np.zeros((1, 1)) * u.one})
    with tempfile.TemporaryDirectory() as scratch:
        trial.write(Path(scratch) / path.name)


def _with_reasons(posterior: Posterior, images: Images | None) -> Posterior:
    """Add the reasons why files could not be read to the flags."""
    if images is None or not images.reasons:
        return posterior
    names, flags, codes, named = images.with_reasons(
        posterior.names, posterior.flags, posterior.flag_codes, posterior.named
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
            f"{estimator.memory_limit / 1e9:.1f} GB; use --draws {most}, or split the catalogue."
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


def _summarise(posterior: Posterior, path: Path, n_flagged: int) -> None:
    n = len(posterior)
    if n <= 20:
        columns: dict[str, Any] = {"name": [printable(name) for name in posterior.names]}
        for name in ("redshift", "stellar_mass", "sfr"):
            low, middle, high = posterior[name].percentiles([16, 50, 84]).value
            columns[name] = [
                f"{m:.3f} -{m - a:.3f} +{b - m:.3f}"
                for a, m, b in zip(low, middle, high, strict=True)
            ]
        print("\n".join(QTable(columns).pformat(-1, -1)))
    flagged = f", {n_flagged} flagged (columns flags and flag)" if n_flagged else ""
    print(f"{n} {'galaxy' if n == 1 else 'galaxies'}{flagged}: {path}")
