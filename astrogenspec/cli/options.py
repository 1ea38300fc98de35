"""Options of ``astrogenspec infer`` and ``astrogenspec spectrum``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .actions import JoinNames

__all__ = ["add_infer", "add_spectrum"]

_INFER_EXAMPLES = """\
examples:
  astrogenspec infer galaxies.ecsv -o properties.fits
      photometry only: columns flux_g and flux_err_g (with units), or mag_g and mag_err_g, for any
      of the bands u, g, r, i, z; ebv or extinction_g; name. The names of SDSS (modelMag_g,
      modelMagErr_g) and of VizieR (gmag, e_gmag) are also read
  astrogenspec infer sweep.fits --survey legacy-dr10 -o properties.fits
      photometry of another survey, with the columns of its catalogues (flux_g, flux_ivar_g,
      mw_transmission_g), for weights that take any filters
  astrogenspec infer ngc*.fits --ebv 0.03 -o properties.ecsv --plot figures
      images: one FITS file for each galaxy, with one extension for each band (or a cube with the
      keyword BANDS)
  astrogenspec infer ngc-g.fits ngc-r.fits ngc-i.fits --ebv 0.03 -o properties.ecsv
      one galaxy with one file for each band
  astrogenspec infer @files.txt --photometry galaxies.csv --flux-unit nmgy -o properties.fits
      images, listed in files.txt (one file name a line), and photometry in the same order
"""
_SPECTRUM_EXAMPLES = """\
examples:
  astrogenspec spectrum ngc1.fits --ebv 0.03 -o ngc1-spectra.fits --plot figures
      16 spectra of one galaxy from its image; each belongs to one draw of the properties, which
      are inferred first
  astrogenspec spectrum galaxies.ecsv -o spectra.fits --draws 64 --seed 1
      photometry only, in a catalogue as for `astrogenspec infer`
  astrogenspec infer ngc*.fits --ebv 0.03 --save-draws -o properties.fits
  astrogenspec spectrum ngc*.fits --ebv 0.03 --posterior properties.fits -o spectra.fits
      spectra for an existing posterior: spectrum k has redshift and emission lines of draw k
in Python:
  SpectrumDraws.read("spectra.fits") reads all draws (best, median, measure, plot, ...);
  specutils.Spectrum.read("spectra.fits") reads the best spectrum of the first galaxy
"""


def add_infer(commands: Any, common: argparse.ArgumentParser) -> None:
    """Register ``astrogenspec infer``.

    Parameters
    ----------
    commands : object
        Return value of ``add_subparsers``.
    common : `argparse.ArgumentParser`
        Options shared by all commands.
    """
    parser = commands.add_parser(
        "infer",
        parents=[common],
        help="infer properties from images and photometry",
        description="Infer the joint posterior of galaxy properties; write a table with one row "
        "a galaxy.",
        epilog=_INFER_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        fromfile_prefix_chars="@",
    )
    add = parser.add_argument
    _add_input(parser, "TABLE", ".fits, .ecsv, .parquet or .hdf5")
    add("--model", default=None, metavar="NAME", help="registered weights, or a .safetensors file")
    add(
        "--draws",
        type=int,
        default=1000,
        metavar="N",
        help="number of draws for each galaxy (default 1000)",
    )
    add(
        "--save-draws",
        action="store_true",
        help="also write the draws, so that Posterior.read can read them",
    )
    add(
        "--id",
        metavar="COLUMN",
        help="column of identifiers, which key the draws: a galaxy then has the same draws in any "
        "order or subset",
    )
    _add_running(parser, "TABLE", "write a corner plot of each galaxy to this folder")
    _add_page(parser)

    def run(options: argparse.Namespace) -> int:
        from .infer import infer

        return infer(options)

    parser.set_defaults(run=run, parser=parser)


def add_spectrum(commands: Any, common: argparse.ArgumentParser) -> None:
    """Register ``astrogenspec spectrum``.

    Parameters
    ----------
    commands : object
        Return value of ``add_subparsers``.
    common : `argparse.ArgumentParser`
        Options shared by all commands.
    """
    parser = commands.add_parser(
        "spectrum",
        parents=[common],
        help="draw optical spectra from images and photometry",
        description="Draw optical spectra of galaxies (3800-9200 Angstrom, vacuum wavelengths, "
        "absolute flux), one for each\n"
        "draw of their properties, and write them to one FITS file.",
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
        help="posterior with draws (infer --save-draws) of the same galaxies, matched by name, or "
        "by order if there are no names; by default it is inferred first",
    )
    add(
        "--draws",
        type=int,
        default=16,
        metavar="N",
        help="number of spectra for each galaxy (default 16)",
    )
    _add_sampling(parser)
    add("--model", default=None, metavar="NAME", help="registered weights, or a .safetensors file")
    add(
        "--properties-model",
        default=None,
        metavar="NAME",
        help="likewise for the properties, if these are inferred first",
    )
    _add_running(parser, "OUT.fits", "write a figure of the spectra of each galaxy to this folder")
    _add_page(parser)

    def run(options: argparse.Namespace) -> int:
        from .spectrum import spectrum

        return spectrum(options)

    parser.set_defaults(run=run, parser=parser)


def _add_sampling(parser: argparse.ArgumentParser) -> None:
    """Add the options that control how spectra are drawn."""
    add = parser.add_argument
    add(
        "--aperture",
        choices=("fibre", "total"),
        default="fibre",
        help="flux in a fibre of 3 arcsec (default), or total flux of the photometry",
    )
    add(
        "--psf-fwhm",
        type=float,
        metavar="ARCSEC",
        help="seeing (FWHM) of the images in r, if known; the fibre flux is then accurate to 2%% "
        "instead of 6%%",
    )
    add(
        "--select",
        choices=("all", "weighted", "best"),
        default="all",
        help="weight all draws equally (default), weight them by their contrastive score, or draw "
        "twice as many and keep the best half",
    )


def _add_input(parser: argparse.ArgumentParser, target: str, kinds: str) -> None:
    """Add the options that name input and output."""
    add = parser.add_argument
    add(
        "input",
        nargs="+",
        type=Path,
        metavar="INPUT",
        help="FITS cutouts (one file for each galaxy), or one catalogue",
    )
    add("-o", "--output", type=Path, required=True, metavar=target, help=kinds)
    add(
        "--photometry",
        type=Path,
        metavar="TABLE",
        help="photometry of the cutouts, in the same order",
    )
    add(
        "--survey",
        action=JoinNames,
        metavar="NAME",
        help="survey of the photometry, such as legacy-dr10, or several, such as lsst,euclid, or "
        "the YAML file of a survey (default: SDSS, or recognised by the names of the columns)",
    )
    add(
        "--fibre-photometry",
        action="store_true",
        help="the photometry is that in a fibre of 3 arcsec, such as fiberMag of SDSS: posteriors "
        "include the light outside, with a flag",
    )
    add(
        "--flux-unit",
        metavar="UNIT",
        help="unit of flux columns without a unit (CSV), such as nmgy or uJy",
    )
    add(
        "--zero-point",
        type=float,
        metavar="MAG",
        help="AB magnitude of one count, for images in counts without a zero point in the header",
    )
    add("--bands", help='bands to use, such as "gri" (default: all available)')
    add(
        "--ebv",
        type=float,
        metavar="MAG",
        help="Galactic E(B-V) of all galaxies, if the photometry does not contain it",
    )


def _add_page(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--report",
        type=Path,
        metavar="PAGE",
        help="also write an interactive page (.html) of the results",
    )


def _add_running(parser: argparse.ArgumentParser, target: str, figures: str) -> None:
    """Add the options that control the computation."""
    add = parser.add_argument
    add("--device", default="cpu", help="device of the network: cpu (default) or cuda")
    add(
        "--seed",
        type=int,
        default=None,
        help="random seed of the draws (default: not reproducible)",
    )
    add("--plot", type=Path, metavar="DIR", help=figures)
    add(
        "--on-error",
        choices=("raise", "flag"),
        default="raise",
        help="stop at a galaxy that cannot be used (default), or flag it and continue",
    )
    add(
        "--flagged-ok",
        action="store_true",
        help="exit with status 0 instead of 3 if galaxies are flagged",
    )
    add("--overwrite", action="store_true", help=f"replace {target} if it exists")
