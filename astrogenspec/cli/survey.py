"""``astrogenspec survey``: infer a catalogue of any size, partition by partition."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from .actions import JoinNames

__all__ = ["add_survey"]

_EXAMPLES = """\
examples:
  astrogenspec survey catalogue/ posteriors/ --id object_id --seed 1 --survey lsst --draws 300
      photometry in a folder of parquet files (or FITS, CSV, HDF5; one file; a HATS catalogue); the
      result is a folder of parquet files, posteriors/data
  astrogenspec survey catalogue/ posteriors/
      continue an interrupted run
  astrogenspec survey catalogue/ posteriors/ --id object_id --seed 1 --dry-run
      time, disk and memory that the run will take
  astrogenspec survey catalogue/ posteriors/ --check
      verify a finished run: numbers of rows, identifiers, checksums
  astrogenspec survey catalogue/ posteriors/ --export near.vot --cone 150.1,2.2,600
      write a region of the result for TOPCAT
  astrogenspec survey catalogue/ posteriors/ --id object_id --seed 1 --shard 7/100
      job 7 of an array of 100 jobs
  astrogenspec survey catalogue/ posteriors/ --id object_id --seed 1 --images cutouts.hdf5 \\
      --image-bands g,r,i,z --pixel-scale 0.262 --survey legacy-dr10
  astrogenspec survey catalogue.csv posteriors/ --id id --seed 1 --flux-unit nmgy \\
      --columns flux_g=g_flux,flux_err_g=g_flux_error,flux_r=r_flux,flux_err_r=r_flux_error
"""


def add_survey(commands: Any, common: argparse.ArgumentParser) -> None:
    """Register ``astrogenspec survey``.

    Parameters
    ----------
    commands : object
        Return value of ``add_subparsers``.
    common : `argparse.ArgumentParser`
        Options shared by all commands.
    """
    parser = commands.add_parser(
        "survey",
        parents=[common],
        help="infer a catalogue of any size, in parallel and resumable",
        description="Infer the galaxies of a catalogue of any size, partition by partition. A "
        "second call continues\nan interrupted run; several calls at the same time share the work.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("input", type=Path, metavar="IN", help="catalogue: a file, a folder, or a HATS catalogue")
    add("output", type=Path, metavar="OUT", help="output folder")
    _add_settings(parser)
    _add_running(parser)

    def run(options: argparse.Namespace) -> int:
        return survey(options)

    parser.set_defaults(run=run, parser=parser)


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """Add the options on which the result depends."""
    add = parser.add_argument
    add("--id", dest="ids", metavar="COLUMN", help="column of the identifiers, which key the draws")
    add("--seed", type=int, metavar="N", help="random seed of the draws")
    add("--draws", type=int, metavar="N", help="number of draws for each galaxy (default 1000)")
    add(
        "--quantiles",
        type=int,
        metavar="N",
        help="number of nested quantiles of each quantity: 0, 5, 20 (default) or 99",
    )
    add(
        "--save-draws",
        choices=("float16", "float32"),
        help="also write the draws, with this precision",
    )
    add("--keep", metavar="COLUMNS", help="columns to copy to the result, such as ra,dec")
    add(
        "--columns",
        metavar="MAP",
        help="names by which columns are read, such as mag_g=g_cmodel,mag_err_g=g_cmodel_err",
    )
    add(
        "--survey",
        action=JoinNames,
        metavar="NAME",
        help="survey of the photometry, such as legacy-dr10, or several, such as lsst,euclid",
    )
    add("--flux-unit", metavar="UNIT", help="unit of flux columns without a unit, such as nJy")
    add("--ebv", type=float, metavar="MAG", help="Galactic E(B-V) of all galaxies")
    add(
        "--images",
        metavar="IMAGES",
        help="images, joined by identifier: HDF5 or parquet files, a zarr group, a folder of FITS "
        "files named by the identifiers, column:NAME of the catalogue, or module:function",
    )
    add("--image-bands", metavar="BANDS", help="bands of images without names, such as g,r,i,z")
    add("--pixel-scale", type=float, metavar="ARCSEC", help="pixel scale of images without one")
    add("--image-unit", metavar="UNIT", help="unit of images without one (default nmgy)")
    add("--images-only", action="store_true", default=None, help="measure photometry on the images")
    add("--spectra", type=int, metavar="N", help="also generate N spectra of each galaxy")
    add("--spectrum-grid", choices=("full", "coarse"), help="grid of the spectra (default full)")
    add("--spectra-model", metavar="NAME", help="registered weights of spectra, or a file")
    add("--model", metavar="NAME", help="registered weights, or a .safetensors file")
    add("--batch-size", type=int, metavar="N", help="galaxies inferred at once (default 256)")
    add("--device", help="device of the network: cpu (default) or cuda")


def _add_running(parser: argparse.ArgumentParser) -> None:
    """Add the options that control the computation."""
    add = parser.add_argument
    add("--rows", type=int, metavar="N", help="rows of a partition (default 20000)")
    add("--workers", type=int, metavar="N", help="number of processes (default: one for each core)")
    add("--engine", default="none", help="none (this machine, default), dask, or lsdb (HATS)")
    add("--scheduler", metavar="ADDRESS", help="scheduler of dask (default: a local cluster)")
    add("--shard", metavar="K/N", help="work on every N-th partition, from the K-th (1 to N) on")
    add("--dry-run", action="store_true", help="estimate time, disk and memory, and stop")
    add("--check", action="store_true", help="verify a finished run, and stop")
    add(
        "--export",
        type=Path,
        metavar="FILE",
        help="write a region of the result to a VOTable, FITS, ECSV or CSV file, and stop",
    )
    add(
        "--cone",
        metavar="RA,DEC,RADIUS",
        help="the region: centre in degrees and radius in arcsec, such as 150.1,2.2,600",
    )
    add("--overwrite", action="store_true", help="replace an existing file of --export")


def survey(options: argparse.Namespace) -> int:
    """Infer a catalogue, or estimate or check a run.

    Parameters
    ----------
    options : `argparse.Namespace`
        Namespace parsed by `astrogenspec.cli.commands.make_parser`.

    Returns
    -------
    int
        Exit status: 0, or 3 if partitions are in quarantine or a check fails.

    Raises
    ------
    ValueError, TypeError, OSError, astropy.units.UnitsError
        If the catalogue cannot be read, the output belongs to another run, or the result cannot be
        written.
    """
    from ..distributed import run_survey
    from ..distributed.engines import WorkerError, available_cores
    from ..distributed.runs import SurveyRun
    from .inputs import FLAGGED, printable

    if options.export is not None or options.cone is not None:
        return _export(options)
    settings = _settings(options)
    if not (options.check or (options.output / "manifest.json").exists()):
        missing = next((name for name in ("ids", "seed") if name not in settings), None)
        if missing is not None:
            option = {"ids": "--id", "seed": "--seed"}[missing]
            raise ValueError(
                f"a new run needs {option}: the random numbers of a galaxy are those of its "
                "identifier and the seed."
            )
    if options.dry_run:
        run = SurveyRun(options.input, options.output, settings, rows=options.rows)
        workers = options.workers or available_cores()
        pending = run.pending(_shard(options.shard))
        if run.continued and not pending:
            print("nothing remains to be done")
        else:
            print(run.estimate(workers, pending or None))
        return 0
    if options.check:
        from ..distributed.checks import check_survey

        problems = check_survey(options.input, options.output)
        print("\n".join(printable(p) for p in problems) or "the run is complete and consistent")
        return FLAGGED if problems else 0
    try:
        report = run_survey(
            options.input,
            options.output,
            rows=options.rows,
            workers=options.workers,
            engine=options.engine,
            scheduler=options.scheduler,
            shard=_shard(options.shard),
            progress=not options.quiet and sys.stderr.isatty(),
            report=(lambda text: None) if options.quiet else _report,
            **settings,
        )
    except WorkerError as error:
        # Not an error of the program.
        raise OSError(str(error)) from error
    if not options.quiet:
        _summarise(report, options.output)
    return FLAGGED if report.quarantined else 0


def _export(options: argparse.Namespace) -> int:
    """Write a region of a result."""
    import astropy.units as u
    from astropy.coordinates import SkyCoord

    from ..distributed import export_region

    if options.export is None or options.cone is None:
        raise ValueError("--export and --cone belong together: give both.")
    try:
        ra, dec, radius = map(float, options.cone.split(","))
    except ValueError as error:
        raise ValueError(
            f"--cone is {options.cone!r}; RA,DEC,RADIUS is expected, such as 150.1,2.2,600."
        ) from error
    center = SkyCoord(ra, dec, unit="deg")
    n = export_region(
        options.output, options.export, center, radius * u.arcsec, overwrite=options.overwrite
    )
    if not options.quiet:
        print(f"{n:,} galaxies: {options.export}")
    return 0


def _report(text: str) -> None:
    from .inputs import printable

    print(printable(text), file=sys.stderr, flush=True)


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that were given, as arguments of `Inference`."""
    names = ["ids", "seed", "draws", "quantiles", "save_draws", "survey", "flux_unit", "ebv"]
    names += ["images", "image_bands", "pixel_scale", "image_unit", "images_only"]
    given: dict[str, Any] = {name: getattr(options, name) for name in names}
    given |= {"spectra": options.spectra, "spectrum_grid": options.spectrum_grid}
    given |= {"spectra_weights": options.spectra_model, "weights": options.model}
    given |= {"batch_size": options.batch_size, "device": options.device}
    if options.keep is not None:
        given["keep"] = tuple(name.strip() for name in options.keep.split(",") if name.strip())
    if options.columns is not None:
        given["columns"] = _column_map(options.columns)
    return {name: value for name, value in given.items() if value is not None}


def _column_map(text: str) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in text.split(",") if pair.strip()]
    wrong = next((new for new, sign, old in pairs if not (new.strip() and sign and old)), None)
    if wrong is not None:
        raise ValueError(
            f"--columns has {wrong!r}; pairs such as flux_g=g_flux, separated by commas, are "
            "expected."
        )
    return {new.strip(): old.strip() for new, _, old in pairs}


def _shard(text: str | None) -> tuple[int, int]:
    if text is None:
        return (1, 1)
    number, sign, n = text.partition("/")
    if not (sign and number.isdecimal() and n.isdecimal()):
        raise ValueError(f"--shard is {text!r}; K/N is expected, such as 3/100.")
    return (int(number), int(n))


def _summarise(report: Any, output: Path) -> None:
    from .inputs import printable

    rate = report.rows / max(report.seconds, 1e-9)
    lines = [f"{report.rows:,} galaxies in {report.done:,} partitions, {rate:.0f} a second"]
    if report.bad_rows:
        lines[0] += f", {report.bad_rows:,} without a result ({output / 'bad_rows'})"
    for label, reason in report.quarantined.items():
        lines.append(f"not read: {label}: {reason}")
    if report.finished:
        lines.append(f"finished: {output}")
    else:
        if report.claimed:
            lines.append(f"{report.claimed:,} partitions are in work by other processes")
        lines.append(f"not finished; the same command continues: {output}")
    print("\n".join(printable(line) for line in lines))
