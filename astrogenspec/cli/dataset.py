"""``astrogenspec dataset``: make training sets of real galaxies."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .actions import JoinNames

if TYPE_CHECKING:
    from ..datasets.sources import Source

__all__ = ["add_dataset"]

_TABLE_EPILOG = """\
table:
  name (or objID), ra, dec (degrees); photometry as for `astrogenspec infer`; labels named as the
  quantities (redshift, stellar_mass, sfr, gas_metallicity, black_hole_mass, halpha_flux,
  hbeta_flux, nii6584_flux, oiii5007_flux), with units, empty where unknown
"""
_FILES_EPILOG = f"""\
{_TABLE_EPILOG}files of a galaxy:
  NAME.fits or NAME-g.fits, NAME-r.fits, ... in --images and NAME.fits in --spectra, or the paths in
  the columns image and spectrum
example:
  astrogenspec dataset from-files mine.ecsv --images cutouts --spectra spectra --out mine
"""
_SDSS_EPILOG = """\
examples:
  astrogenspec dataset sdss --selection images-to-physics --preview 200 --out preview
      a small sample in minutes
  astrogenspec dataset sdss --selection images-to-physics --n 250000 --out sdss
  astrogenspec dataset sdss --selection galaxy-spectroscopy --n 100000 --out sdss-spectra
"""


def add_dataset(commands: Any, common: argparse.ArgumentParser) -> None:
    """Register ``astrogenspec dataset``.

    Parameters
    ----------
    commands : object
        Return value of ``add_subparsers``.
    common : `argparse.ArgumentParser`
        Options shared by all commands.
    """
    parser = commands.add_parser("dataset", help="make training sets of real galaxies")
    parser.set_defaults(parser=parser)
    sources = parser.add_subparsers(title="sources", metavar="SOURCE")
    _add_sdss(sources, common)
    _add_legacy(sources, common)
    _add_multimodal(sources, common)
    _add_from_files(sources, common)


def _add_sdss(sources: Any, common: argparse.ArgumentParser) -> None:
    parser = sources.add_parser(
        "sdss",
        parents=[common],
        help="galaxies of SDSS: catalogue, cutouts of frames, spectra",
        description="Download galaxies of SDSS and make shards. The command says first what it "
        "costs, and asks. A second call with the same --out continues an interrupted one.",
        epilog=_SDSS_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--selection",
        required=True,
        choices=("images-to-physics", "galaxy-spectroscopy"),
        help="galaxies of the two methods",
    )
    _add_output(parser)
    add(
        "--spectra",
        action=argparse.BooleanOptionalAction,
        help="download spectra (default: for galaxy-spectroscopy only)",
    )
    add("--contact", default="", help="your e-mail address, sent to the servers with each request")
    add("--mirror", metavar="URL", help="address of a mirror of the archive and the catalogue")
    add(
        "--rate",
        type=float,
        default=4.0,
        help="maximum number of requests to the archive per second (default 4)",
    )
    parser.set_defaults(run=_sdss, parser=parser)


def _add_legacy(sources: Any, common: argparse.ArgumentParser) -> None:
    parser = sources.add_parser(
        "legacy",
        parents=[common],
        help="a table of yours with cutouts of the Legacy Surveys",
        description="Download cutouts in g, r, i and z of the Legacy Surveys DR10 for the galaxies "
        "of a table, and make shards. The command says first what it costs, and asks.",
        epilog=_TABLE_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_table(parser)
    parser.add_argument("--contact", default="", help="your e-mail address, sent to the server")
    parser.add_argument("--mirror", metavar="URL", help="address of another viewer")
    _add_output(parser)
    parser.set_defaults(run=_legacy, parser=parser)


def _add_multimodal(sources: Any, common: argparse.ArgumentParser) -> None:
    parser = sources.add_parser(
        "multimodal-universe",
        parents=[common],
        help="a table of yours with images of the Multimodal Universe",
        description="Make shards from a table and files of the Multimodal Universe (HDF5 or "
        "parquet); names are the object_id.",
        epilog=_TABLE_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_table(parser)
    parser.add_argument(
        "--files", type=Path, nargs="+", required=True, metavar="PATH", help="files or folders"
    )
    _add_output(parser)
    parser.set_defaults(run=_multimodal, parser=parser)


def _add_table(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("table", type=Path, metavar="TABLE", help="table with one row a galaxy")
    add(
        "--survey",
        action=JoinNames,
        metavar="NAME",
        default="legacy-dr10",
        help="survey of the photometry (default legacy-dr10)",
    )
    add("--ebv", type=float, metavar="MAG", help="Galactic E(B-V), if the table does not have it")


def _add_from_files(sources: Any, common: argparse.ArgumentParser) -> None:
    parser = sources.add_parser(
        "from-files",
        parents=[common],
        help="a table, cutouts and spectra of yours",
        description="Make shards from a table, FITS cutouts and spectra. A second call with the "
        "same --out continues an interrupted one.",
        epilog=_FILES_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("table", type=Path, metavar="TABLE", help="table with one row a galaxy")
    add(
        "--images",
        type=Path,
        metavar="PATH",
        help="folder of FITS cutouts, or HDF5 file or zarr group with images",
    )
    add(
        "--spectra",
        type=Path,
        metavar="PATH",
        help="folder of FITS spectra, or HDF5 file or zarr group with spectra",
    )
    add(
        "--survey",
        action=JoinNames,
        metavar="NAME",
        help="survey of photometry and images (default SDSS)",
    )
    add("--ebv", type=float, metavar="MAG", help="Galactic E(B-V), if the table does not have it")
    _add_output(parser)
    parser.set_defaults(run=_from_files, parser=parser)


def _add_output(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="folder of the data set")
    add("--n", type=int, metavar="N", help="number of galaxies (default: all)")
    add("--preview", type=int, metavar="N", help="the same as --n, for a small sample at first")
    add(
        "--cutout-size",
        type=int,
        default=64,
        metavar="PIXELS",
        help="pixels of 0.396 arcsec on a side of the images (default 64; 160 for "
        "`train properties --configuration images-to-physics`)",
    )
    add("-y", "--yes", action="store_true", help="do not ask before starting")


def _number(options: argparse.Namespace) -> int | None:
    if options.n is not None and options.preview is not None:
        raise ValueError("--n and --preview cannot be combined; give one of them.")
    n = options.n if options.preview is None else options.preview
    if n is not None and n < 1:
        raise ValueError(f"the number of galaxies is {n}; it must be positive.")
    return n


def _sdss(options: argparse.Namespace) -> int:
    from ..datasets.sdss import SkyServer, SloanSurvey
    from ..datasets.sdss_catalogue import SELECTIONS

    if not options.rate > 0:
        raise ValueError(f"--rate is {options.rate}; it must be positive.")
    n = _number(options)
    if n is None:
        n = SELECTIONS[options.selection].n_galaxies
    server = SkyServer(options.mirror, contact=options.contact, per_second=options.rate)
    source = SloanSurvey(
        options.selection,
        n,
        server,
        options.out / "queries",
        spectra=options.spectra,
        cutout_size=options.cutout_size,
    )
    return _make(source, options)


def _legacy(options: argparse.Namespace) -> int:
    from ..datasets.legacy import LegacySurvey
    from ..datasets.transfers import Client
    from .tables import named_surveys, read_table

    viewer = {} if options.mirror is None else {"viewer": options.mirror}
    source = LegacySurvey(
        read_table(options.table),
        Client(per_second=1.0, contact=options.contact),
        survey=named_surveys(options.survey),
        ebv=options.ebv,
        n=_number(options),
        cutout_size=options.cutout_size,
        **viewer,
    )
    return _make(source, options)


def _multimodal(options: argparse.Namespace) -> int:
    from ..datasets.multimodal import MultimodalUniverse
    from .tables import named_surveys, read_table

    source = MultimodalUniverse(
        read_table(options.table),
        options.files,
        survey=named_surveys(options.survey),
        ebv=options.ebv,
        n=_number(options),
        cutout_size=options.cutout_size,
    )
    return _make(source, options)


def _from_files(options: argparse.Namespace) -> int:
    from ..datasets.local_files import LocalFiles
    from .tables import named_surveys, read_table

    source = LocalFiles(
        read_table(options.table),
        images=options.images,
        spectra=options.spectra,
        survey=named_surveys(options.survey),
        ebv=options.ebv,
        n=_number(options),
        cutout_size=options.cutout_size,
    )
    return _make(source, options)


def _make(source: Source, options: argparse.Namespace) -> int:
    from ..datasets.sources import build_dataset, describe

    cost = source.cost()
    if not options.quiet:
        print(cost)
    if not options.yes and cost.n_requests and not _confirmed():
        print("Nothing was done.")
        return 0
    manifest = build_dataset(source, options.out, progress=not options.quiet)
    if not options.quiet:
        print(f"{options.out}: {describe(manifest)}.")
    if manifest["units_missing"]:
        print(
            f"{manifest['units_missing']} of {manifest['units']} units could not be downloaded; "
            "run the same command again to try them once more.",
            file=sys.stderr,
        )
        return 3
    return 0


def _confirmed() -> bool:
    if not sys.stdin.isatty():
        raise ValueError("the command asks before it downloads; give --yes to start without it.")
    return input("Start? [y/N] ").strip().lower() in ("y", "yes")
