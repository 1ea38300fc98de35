"""The options of ``astrogenspec infer`` and ``astrogenspec spectrum``, which read the same files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

__all__ = ["add_infer", "add_spectrum"]

_INFER_EXAMPLES = """\
examples:
  astrogenspec infer galaxies.ecsv -o properties.fits
      photometry alone: columns flux_g and flux_err_g (with a unit), or mag_g and mag_err_g, for any of the bands
      u, g, r, i, z; ebv or extinction_g; name; or as SDSS and VizieR name them, modelMag_g and modelMagErr_g, gmag and
      e_gmag
  astrogenspec infer ngc*.fits --ebv 0.03 -o properties.ecsv --plot figures
      images: one FITS file a galaxy, an extension for each band (or a cube with the keyword BANDS)
  astrogenspec infer @files.txt --photometry galaxies.csv --flux-unit nmgy --on-error flag -o properties.fits
      images, listed one a line in files.txt, and photometry in the same order
"""
_SPECTRUM_EXAMPLES = """\
examples:
  astrogenspec spectrum ngc1.fits --ebv 0.03 -o ngc1-spectra.fits --plot figures
      16 spectra of one galaxy from its image; each belongs to one draw of the properties, which are inferred first
  astrogenspec spectrum galaxies.ecsv -o spectra.fits --draws 64 --seed 1
      photometry alone, in a catalogue as `astrogenspec infer` takes it
  astrogenspec infer ngc*.fits --ebv 0.03 --save-draws -o properties.fits
  astrogenspec spectrum ngc*.fits --ebv 0.03 --posterior properties.fits -o spectra.fits
      spectra of properties that are known already: spectrum k has the redshift and the lines of draw k
in Python:
  SpectrumDraws.read("spectra.fits") gives all draws back (best, median, measure, plot, ...);
  specutils.Spectrum.read("spectra.fits") the best spectrum of the first galaxy
"""


def add_infer(commands: Any, common: argparse.ArgumentParser) -> None:
    """Register ``astrogenspec infer``.

    Parameters
    ----------
    commands : object
        What ``add_subparsers`` returned.
    common : `argparse.ArgumentParser`
        Options of every command.
    """
    parser = commands.add_parser(
        "infer",
        parents=[common],
        help="infer properties from images and photometry",
        description="Infer the joint posterior of galaxy properties; write a table with one row a galaxy.",
        epilog=_INFER_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        fromfile_prefix_chars="@",
    )
    add = parser.add_argument
    _add_input(parser, "TABLE", ".fits, .ecsv, .parquet or .hdf5")
    add("--model", default=None, metavar="NAME", help="registered weights, or a .safetensors file")
    add("--draws", type=int, default=1000, metavar="N", help="draws a galaxy (default 1000)")
    add("--save-draws", action="store_true", help="write the draws too, for Posterior.read")
    _add_running(parser, "TABLE", "draw a corner plot of each galaxy into this folder")

    def run(options: argparse.Namespace) -> int:
        from .infer import infer

        return infer(options)

    parser.set_defaults(run=run, parser=parser)


def add_spectrum(commands: Any, common: argparse.ArgumentParser) -> None:
    """Register ``astrogenspec spectrum``.

    Parameters
    ----------
    commands : object
        What ``add_subparsers`` returned.
    common : `argparse.ArgumentParser`
        Options of every command.
    """
    parser = commands.add_parser(
        "spectrum",
        parents=[common],
        help="draw optical spectra from images and photometry",
        description="Draw optical spectra of galaxies (3800-9200 Angstrom, vacuum, absolute flux), each of one draw of\n"
        "their properties; write all of them to one FITS file.",
        epilog=_SPECTRUM_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        fromfile_prefix_chars="@",
    )
    add = parser.add_argument
    _add_input(parser, "OUT.fits", "FITS file for the spectra")
    add(
        "--posterior",
        type=Path,
        metavar="TABLE",
        help="posterior with draws (infer --save-draws) of the same galaxies, found by name, or by order without "
        "names; inferred first by default",
    )
    add("--draws", type=int, default=16, metavar="N", help="spectra a galaxy (default 16)")
    add(
        "--aperture",
        choices=("fibre", "total"),
        default="fibre",
        help="light in a fibre of 3 arcsec (default), or that of the photometry",
    )
    add(
        "--psf-fwhm",
        type=float,
        metavar="ARCSEC",
        help="seeing of the images in r, if known: the light in the fibre is then known to 2%% instead of 6%%",
    )
    add(
        "--select",
        choices=("all", "weighted", "best"),
        default="all",
        help="let all draws count alike (default), weight them by how well they fit the input, or keep the best "
        "half of twice as many",
    )
    add("--model", default=None, metavar="NAME", help="registered weights, or a .safetensors file")
    add(
        "--properties-model",
        default=None,
        metavar="NAME",
        help="likewise for the properties that are inferred first",
    )
    _add_running(parser, "OUT.fits", "draw the spectra of each galaxy into this folder")

    def run(options: argparse.Namespace) -> int:
        from .spectrum import spectrum

        return spectrum(options)

    parser.set_defaults(run=run, parser=parser)


def _add_input(parser: argparse.ArgumentParser, target: str, kinds: str) -> None:
    """Add what says which galaxies, and where the result goes."""
    add = parser.add_argument
    add(
        "input",
        nargs="+",
        type=Path,
        metavar="INPUT",
        help="FITS cutouts (one galaxy a file), or one catalogue table",
    )
    add("-o", "--output", type=Path, required=True, metavar=target, help=kinds)
    add(
        "--photometry",
        type=Path,
        metavar="TABLE",
        help="photometry of the cutouts, in the same order",
    )
    add(
        "--flux-unit",
        metavar="UNIT",
        help="unit of flux columns that have none (CSV), such as nmgy or uJy",
    )
    add("--bands", help='bands to use, such as "gri"; all those present by default')
    add(
        "--ebv",
        type=float,
        metavar="MAG",
        help="Galactic E(B-V) of all galaxies, if the photometry has none",
    )


def _add_running(parser: argparse.ArgumentParser, target: str, figures: str) -> None:
    """Add what says how the work is done."""
    add = parser.add_argument
    add("--device", default="cpu", help="where the network runs: cpu (default) or cuda")
    add("--seed", type=int, default=None, help="seed of the draws; fresh randomness by default")
    add("--plot", type=Path, metavar="DIR", help=figures)
    add(
        "--on-error",
        choices=("raise", "flag"),
        default="raise",
        help="stop at a bad galaxy (default) or flag it",
    )
    add("--overwrite", action="store_true", help=f"replace {target} if it exists")
