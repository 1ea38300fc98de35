"""``astrogenspec report``: show a posterior as one page that opens in any browser."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from astropy.nddata import CCDData

    from ..results.posterior import Posterior
    from ..results.spectra import SpectrumDraws
    from .inputs import Galaxies, Images

__all__ = ["add_report", "check_page", "write_page"]

_EXAMPLES = """\
examples:
  astrogenspec infer galaxies.ecsv --save-draws -o properties.fits
  astrogenspec report properties.fits -o galaxies.html
  astrogenspec report properties.fits --cutouts ngc*.fits --spectra spectra.fits -o galaxies.html
      with images and spectra of the galaxies, matched by name, or by order without names
  astrogenspec report properties.fits --truth spectroscopic.ecsv -o galaxies.html
      compared with true values, in columns named like the quantities (redshift, stellar_mass, ...)
  astrogenspec report posteriors/ -o survey.html
      the result of `astrogenspec survey`, of any size: sky map (with positions, --keep ra,dec) and
      densities of all galaxies
"""


def add_report(commands: Any, common: argparse.ArgumentParser) -> None:
    """Register ``astrogenspec report``.

    Parameters
    ----------
    commands : object
        Return value of ``add_subparsers``.
    common : `argparse.ArgumentParser`
        Options shared by all commands.
    """
    parser = commands.add_parser(
        "report",
        parents=[common],
        help="show results as one interactive page",
        description="Show a posterior written with --save-draws, or the result of a survey run, as "
        "one self-contained page,\nwhich opens in any browser without a network.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        fromfile_prefix_chars="@",
    )
    add = parser.add_argument
    add(
        "result",
        type=Path,
        metavar="RESULT",
        help="table with draws (infer --save-draws), or output folder of `astrogenspec survey`",
    )
    add("-o", "--output", type=Path, required=True, metavar="PAGE", help=".html")
    add("--cutouts", nargs="+", type=Path, metavar="FITS", help="images of the galaxies")
    add("--spectra", type=Path, metavar="FITS", help="spectra written by `astrogenspec spectrum`")
    add("--truth", type=Path, metavar="TABLE", help="true values to compare with")
    add("--title", help="heading of the page")
    add("--overwrite", action="store_true", help="replace PAGE if it exists")
    parser.set_defaults(run=_report, parser=parser)


def check_page(options: argparse.Namespace, n_galaxies: int) -> None:
    """Raise before the inference if the page of the option ``--report`` cannot be written.

    Parameters
    ----------
    options : `argparse.Namespace`
        Options ``report`` (None for no page), ``output``, ``overwrite`` and the inputs.
    n_galaxies : int
        Number of galaxies.

    Raises
    ------
    ValueError, OSError, ImportError
        If the name is not that of a page, the file cannot be written, there are too many galaxies,
        or Bokeh is not installed.
    """
    if options.report is None:
        return
    from ..view import checked_page
    from .inputs import check_output

    read = (*options.input, options.photometry, getattr(options, "posterior", None))
    check_output(options.report, options.overwrite, read)
    checked_page(options.report, n_galaxies, overwrite=options.overwrite)


def write_page(
    options: argparse.Namespace,
    posterior: Posterior,
    galaxies: Galaxies,
    *,
    spectra: SpectrumDraws | None = None,
    reconstruct: Callable[..., Any] | None = None,
) -> None:
    """Write the page of the option ``--report``.

    Parameters
    ----------
    options : `argparse.Namespace`
        Options ``report``, ``overwrite`` and ``quiet``.
    posterior : Posterior
        Posterior of the galaxies.
    galaxies : Galaxies
        Input of the command.
    spectra : SpectrumDraws, optional
        Spectra of the galaxies.
    reconstruct : callable, optional
        ``reconstruct`` of the estimator.
    """
    from ..warnings import AstroGenSpecWarning, filtered_warnings

    images = galaxies.images
    rebuilt = None
    if images is not None and reconstruct is not None:
        with filtered_warnings("ignore", AstroGenSpecWarning):
            rebuilt = reconstruct(images, ebv=options.ebv or 0.0, on_error="flag")
    posterior.to_html(
        options.report,
        cutouts=images,
        reconstructions=rebuilt,
        spectra=spectra,
        overwrite=options.overwrite,
    )
    if not options.quiet:
        print(f"Page: {options.report}")


def _report(options: argparse.Namespace) -> int:
    from ..results.posterior import Posterior
    from ..view.survey_files import is_catalogue
    from .inputs import check_output
    from .tables import read_table

    read = (options.result, options.spectra, options.truth, *(options.cutouts or ()))
    check_output(options.output, options.overwrite, read)
    if is_catalogue(options.result):
        return _survey_report(options)
    try:
        posterior = Posterior.read(options.result)
    except ValueError as error:
        sentence = str(error).rstrip(".")
        raise ValueError(f"{sentence} (`astrogenspec infer --save-draws` makes one).") from error
    posterior.to_html(
        options.output,
        cutouts=None if options.cutouts is None else _cutouts(options, posterior),
        spectra=None if options.spectra is None else _spectra(options, posterior),
        truth=None if options.truth is None else read_table(options.truth),
        title=options.title,
        overwrite=options.overwrite,
    )
    if not options.quiet:
        size = options.output.expanduser().stat().st_size / 1e6
        print(f"{len(posterior)} galaxies: {options.output} ({size:.1f} MB)")
    return 0


def _survey_report(options: argparse.Namespace) -> int:
    from ..view.survey_page import survey_page

    for name in ("cutouts", "spectra", "truth"):
        if getattr(options, name) is not None:
            raise ValueError(
                f"--{name} belongs to the page of single galaxies, but {options.result} is the "
                "result of a survey run; leave it out."
            )
    n = survey_page(
        options.output, options.result, title=options.title, overwrite=options.overwrite
    )
    if not options.quiet:
        size = options.output.expanduser().stat().st_size / 1e6
        print(f"{n} galaxies: {options.output} ({size:.1f} MB)")
    return 0


def _cutouts(
    options: argparse.Namespace, posterior: Posterior
) -> Iterator[dict[str, CCDData] | None]:
    """Read the cutouts in the order of the galaxies; galaxies without a file give None."""
    from ..inputs.band_files import group_band_files
    from .inputs import Images

    for path in options.cutouts:
        if not path.is_file():
            raise FileNotFoundError(f"the file {path} does not exist.")
    groups = group_band_files(options.cutouts, None)
    names, named = Images(groups, None, "raise", True).names()
    rows = _rows(options, names, named, posterior, "--cutouts")
    ordered: list[Images | None] = [None] * len(posterior)
    for row, group in zip(rows, groups, strict=True):
        ordered[row] = Images([group], None, "raise", True)
    for images in ordered:
        yield None if images is None else next(iter(images))


def _spectra(options: argparse.Namespace, posterior: Posterior) -> SpectrumDraws:
    from ..results.spectra import SpectrumDraws

    spectra = SpectrumDraws.read(options.spectra)
    if len(spectra) != len(posterior):
        raise ValueError(
            f"{options.spectra} has spectra of {len(spectra)} galaxies, but {options.result} has "
            f"{len(posterior)} galaxies; give the spectra of the same galaxies."
        )
    rows = _rows(options, spectra.names, spectra.named, posterior, "--spectra")
    return spectra[rows.argsort()]


def _rows(
    options: argparse.Namespace,
    names: tuple[str, ...],
    named: np.ndarray,
    posterior: Posterior,
    option: str,
) -> np.ndarray:
    """Return the galaxy of each file or spectrum, by name, or by order without names."""
    from ..results.matching import GalaxyMatcher

    matcher = GalaxyMatcher(posterior, str(options.result))
    rows = matcher.match(names, named)
    if matcher.by_order and len(names) != len(posterior):
        raise ValueError(
            f"{option} has {len(names)} galaxies, but {options.result} has {len(posterior)}, and "
            "there are no names to match them; give the same galaxies in the same order."
        )
    return rows
