"""``astrogenspec infer``: files in, a table out."""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.table import QTable

from .inputs.fluxes import check_bands, read_unit
from .inputs.problems import INPUT_ERRORS
from .surveys import BANDS

if TYPE_CHECKING:
    from astropy.nddata import CCDData

    from .inference.estimator import PropertyEstimator
    from .posterior import Posterior

__all__ = ["infer", "read_table", "rows_by_name"]

_TABLES = {
    ".ecsv": "ascii.ecsv",
    ".csv": "ascii.csv",
    ".txt": "ascii",
    ".vot": "votable",
    ".xml": "votable",
}
_PARQUET = (".parquet", ".pq")
_GALAXY_NUMBER = re.compile(r"^galaxy (\d+)(?=[: ])")
_FLAGGED = 3


def infer(options: argparse.Namespace) -> int:
    """Infer the properties of the galaxies in some files.

    Parameters
    ----------
    options : `argparse.Namespace`
        As `astrogenspec.cli.make_parser` makes it.

    Returns
    -------
    int
        0, or 3 if a galaxy is flagged.

    Raises
    ------
    ValueError, TypeError, OSError, astropy.units.UnitsError
        If something cannot be read or written.
    """
    bands = None if options.bands is None else check_bands(options.bands, "--bands")
    _check_output(options.output, options.overwrite)
    files, table = _inputs(options)
    photometry = None if table is None else _catalogue(table, bands, options.flux_unit)

    from .inference.estimator import PropertyEstimator

    estimator = PropertyEstimator.from_pretrained(options.model, device=options.device)
    images = _Images(
        files, bands, options.on_error, photometry is None or "name" not in photometry.colnames
    )
    n = len(files) or len(photometry)
    _check_memory(estimator, n, options.draws)
    try:
        posterior = estimator.predict(
            images if files else None,
            photometry,
            ebv=options.ebv,
            n_draws=options.draws,
            seed=options.seed,
            on_error=options.on_error,
            progress=not options.quiet and n > 1 and sys.stderr.isatty(),
        )
    except INPUT_ERRORS as error:
        raise _naming_the_file(error, files) from error
    posterior = images.with_reasons(posterior)
    posterior.write(options.output, draws=options.save_draws, overwrite=options.overwrite)
    if options.plot is not None:
        _plot(posterior, options.plot)
    n_flagged = sum(map(bool, posterior.flags))
    if not options.quiet:
        _summarise(posterior, options.output, n_flagged)
    return _FLAGGED if n_flagged else 0


def read_table(path: Path) -> QTable:
    """Read a table of any format that astropy knows by its ending, or parquet.

    Parameters
    ----------
    path : path

    Returns
    -------
    `~astropy.table.QTable`

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    OSError
        If it holds no table that can be read.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}.")
    ending = path.suffix.lower()
    try:
        if ending in _PARQUET:
            return _read_parquet(path)
        return QTable.read(path, format=_TABLES.get(ending))
    except ModuleNotFoundError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise OSError(
            f"{path} cannot be read as a table ({type(error).__name__}: {reason})."
        ) from error


def rows_by_name(wanted: Sequence[str], names: Sequence[str], path: Path) -> np.ndarray:
    """Find the rows of a table with some names.

    Parameters
    ----------
    wanted : sequence of str
        Names to find.
    names : sequence of str
        Names in the table.
    path : path
        The table, for the sentence of an error.

    Returns
    -------
    ndarray of int

    Raises
    ------
    ValueError
        If a name is missing.
    """
    rows = {str(name): k for k, name in enumerate(names)}
    missing = [name for name in wanted if name not in rows]
    if missing:
        raise ValueError(
            f"{path} has no row for {len(missing)} of {len(wanted)} galaxies, such as {missing[0]!r}."
        )
    return np.array([rows[name] for name in wanted])


class _Images:
    """Cutouts read from files one by one, as they are needed; reasons why some could not be."""

    def __init__(
        self, files: Sequence[Path], bands: Sequence[str] | None, on_error: str, name_by_file: bool
    ) -> None:
        self.files = files
        self.bands = bands
        self.on_error = on_error
        self.name_by_file = name_by_file
        self.reasons: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[dict[str, CCDData] | None]:
        from .cutout_files import read_cutout_fits

        for k, path in enumerate(self.files):
            try:
                yield self._prepared(read_cutout_fits(path), path)
            except (OSError, *INPUT_ERRORS) as error:
                if self.on_error == "raise":
                    raise
                self.reasons[k] = " ".join(str(error).split()).rstrip(".")
                yield None

    def _prepared(self, images: dict[str, CCDData], path: Path) -> dict[str, CCDData]:
        if self.bands is not None:
            images = {band: image for band, image in images.items() if band in self.bands}
            if not images:
                raise ValueError(f"{path} has none of the bands {', '.join(self.bands)}.")
        first = next(iter(images.values()))
        if self.name_by_file and not any("NAME" in image.meta for image in images.values()):
            first.meta["NAME"] = (
                path.name.removesuffix(".gz").removesuffix(path.suffix).removesuffix(".fits")
            )
        return images

    def with_reasons(self, posterior: Posterior) -> Posterior:
        """Put the reasons why files could not be read into the flags."""
        if not self.reasons:
            return posterior
        flags, names = list(posterior.flags), list(posterior.names)
        for k, reason in self.reasons.items():
            rest = "" if flags[k].startswith("there is neither") else flags[k]
            flags[k] = "; ".join(filter(None, (reason, rest)))
            if names[k] == str(k):
                names[k] = self.files[k].stem
        return type(posterior)(
            posterior.draws,
            names=names,
            flags=flags,
            measurable=posterior.measurable,
            photometry=posterior.photometry,
            meta=posterior.meta,
        )


def _inputs(options: argparse.Namespace) -> tuple[list[Path], QTable | None]:
    """Tell cutouts from a catalogue."""
    for path in options.input:
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}.")
    tables = [path for path in options.input if _is_table(path)]
    if not tables:
        return options.input, None if options.photometry is None else read_table(options.photometry)
    if len(options.input) > 1 or options.photometry is not None:
        raise ValueError(
            f"{tables[0]} is a table: give one catalogue alone, or FITS cutouts and the table as --photometry."
        )
    return [], read_table(tables[0])


def _is_table(path: Path) -> bool:
    ending = path.suffix.lower()
    if ending in _TABLES or ending in _PARQUET or ending in (".hdf5", ".h5"):
        return True
    try:
        with fits.open(path) as hdus:
            has_image = any(hdu.is_image and hdu.header["NAXIS"] > 0 for hdu in hdus)
            return not has_image and any(
                isinstance(hdu, fits.BinTableHDU | fits.TableHDU) for hdu in hdus
            )
    except OSError:
        return False


def _catalogue(table: QTable, bands: Sequence[str] | None, flux_unit: str | None) -> QTable:
    """Choose bands, and give flux columns without a unit the one named."""
    if flux_unit is not None:
        unit = read_unit(flux_unit)
        for band in BANDS:
            for name, power in (
                (f"flux_{band}", 1),
                (f"flux_err_{band}", 1),
                (f"flux_ivar_{band}", -2),
            ):
                if name in table.colnames and getattr(table[name], "unit", None) is None:
                    table[name] = u.Quantity(
                        np.ma.filled(table[name].astype(float), np.nan), unit**power
                    )
    for band in () if bands is None else BANDS:
        if band not in bands:
            keys = (
                "{}",
                "{}_err",
                "{}_ivar",
                "flux_{}",
                "flux_err_{}",
                "flux_ivar_{}",
                "mag_{}",
                "mag_err_{}",
            )
            table.remove_columns(
                [k for k in (key.format(band) for key in keys) if k in table.colnames]
            )
    if not len(table):
        raise ValueError("the catalogue has no rows.")
    return table


def _read_parquet(path: Path) -> QTable:
    """Read a parquet file without pandas; units come from the header that astropy writes."""
    from astropy.table.meta import get_header_from_yaml
    from pyarrow import parquet

    content = parquet.read_table(path)
    text = (content.schema.metadata or {}).get(b"table_meta_yaml", b"").decode()
    header = get_header_from_yaml(text.split("\n")).get("datatype", []) if text else []
    units = {column["name"]: column.get("unit") for column in header}
    table = QTable()
    for name in content.column_names:
        values = content[name].to_numpy()
        values = values.astype(str) if values.dtype == object else values
        table[name] = (
            values if units.get(name) is None else u.Quantity(values, units[name], subok=True)
        )
    return table


def _check_output(path: Path, overwrite: bool) -> None:
    """Find out before the work, not after it, that the result cannot be written."""
    from .posterior import Posterior

    folder = path.expanduser().parent
    if folder.is_dir() and not os.access(folder, os.W_OK):
        raise PermissionError(f"the folder {folder} cannot be written to.")
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder} to write to: make it first.")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists: choose another name, or --overwrite.")
    trial = Posterior({"redshift": np.zeros((1, 1)) * u.one})
    with tempfile.TemporaryDirectory() as scratch:
        trial.write(Path(scratch) / path.name)


def _check_memory(estimator: PropertyEstimator, n: int, n_draws: int) -> None:
    needed = estimator.memory_needed(n, n_draws)
    if needed > estimator.memory_limit:
        most = int(n_draws * estimator.memory_limit / needed)
        raise ValueError(
            f"{n} galaxies with {n_draws} draws need {needed / 1e9:.1f} GB of memory: give --draws {most}, or "
            "infer the galaxies in several parts."
        )


def _naming_the_file(error: Exception, files: Sequence[Path]) -> Exception:
    from .blocks import reworded

    found = _GALAXY_NUMBER.match(str(error))
    k = 0 if len(files) == 1 else int(found[1]) if found else len(files)
    # The reader names the file itself.
    if k >= len(files) or str(files[k]) in str(error):
        return error
    return reworded(error, f"{files[k]}: {error}")


def _plot(posterior: Posterior, folder: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    for k in np.flatnonzero(posterior.usable):
        stem = re.sub(r"[^\w.+-]+", "_", posterior.names[k]) or "galaxy"
        figure = posterior.plot_corner(int(k))
        figure.savefig(
            folder / f"{k:05d}_{stem}.png" if len(posterior) > 1 else folder / f"{stem}.png"
        )
        plt.close(figure)


def _summarise(posterior: Posterior, path: Path, n_flagged: int) -> None:
    n = len(posterior)
    if n <= 20:
        columns: dict[str, Any] = {"name": posterior.names}
        for name in ("redshift", "stellar_mass", "sfr"):
            low, middle, high = posterior[name].percentiles([16, 50, 84]).value
            columns[name] = [
                f"{m:.3f} -{m - a:.3f} +{b - m:.3f}"
                for a, m, b in zip(low, middle, high, strict=True)
            ]
        print("\n".join(QTable(columns).pformat(-1, -1)))
    flagged = f", {n_flagged} flagged (column flag)" if n_flagged else ""
    print(f"{n} {'galaxy' if n == 1 else 'galaxies'}{flagged}: {path}")
