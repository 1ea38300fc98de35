"""Galaxies of the Sloan Digital Sky Survey: catalogue, cutouts of frames, spectra.

The catalogue comes from the SkyServer, run by run (`astrogenspec.datasets.sdss_catalogue`).  Runs,
and the fields of a run, are taken in an order fixed by a hash, so that a small sample is part of a
larger one; of one run at most a tenth of the sample, so that a small one is spread over the sky.

The unit of work is a field: its frames are downloaded once, all its galaxies are cut out with
their noise (`astrogenspec.inputs.sdss_frames`), and the frames are deleted.  The side of the split
is that of the centre of the field: no field is on two sides.  Pixels beyond the edge of a frame are
bad.
"""

from __future__ import annotations

import bz2
import hashlib
import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from astropy.coordinates import SkyCoord

from ..atomic import write_bytes
from ..downloads import DownloadError
from ..inputs.cutouts import CutoutBatch, coerce_cutouts
from ..inputs.errors import INPUT_ERRORS
from ..inputs.filter_sets import sdss_filters
from ..inputs.sdss_frames import cut_out, read_sdss_frame
from ..surveys import BANDS, CUTOUT_SIZE
from .galaxies import GalaxyRecords, GalaxyTable
from .sdss_catalogue import (
    COLUMNS,
    SELECTIONS,
    count_query,
    galaxies_of,
    parse_answer,
    run_query,
)
from .sky_cells import split_of
from .sources import (
    KEPT_SPECTRUM,
    Cost,
    Source,
    Unit,
    checked_cutout_size,
    cutout_settings,
    kept_image,
)
from .spectra import ObservedSpectrum, read_spectrum
from .transfers import Client, NotFoundError

__all__ = ["RELEASE", "SkyServer", "SloanSurvey"]

_LOG = logging.getLogger(__name__)
#: Data release.
RELEASE = 17
_SAS = "https://data.sdss.org/sas"
_SQL = f"https://skyserver.sdss.org/dr{RELEASE}/SkyServerWS/SearchTools/SqlSearch"
#: Limits of the sizes of files (bytes).
_MAX_FRAME, _MAX_SPECTRUM, _MAX_ANSWER = 40_000_000, 20_000_000, 2_000_000_000
#: Typical sizes (GB) of a compressed frame and a spectrum, and galaxies of the main sample in a
#: field.
_FRAME, _SPECTRUM, _PER_FIELD = 2.9e-3, 0.2e-3, 3.3
#: Largest part of a sample from one run.
_RUN_SHARE = 0.1
#: Fields at the same time.
_CONNECTIONS = 4
#: Range of the wavelengths of the selection of spectra (Angstrom).
_POSITIVE_RANGE = (3891.0, 8910.0)


class SkyServer:
    """Addresses of the archive and of the catalogue server.

    Parameters
    ----------
    mirror : str, optional
        Address of a mirror, with the archive in ``sas`` and the catalogue server at ``SqlSearch``;
        the servers of SDSS by default.
    contact : str
        Address of the user, for the user agent.
    per_second : float
        Maximum number of requests to the archive per second.
    first_pause : float
        Pause after a failed request (s), see `Client`.
    """

    def __init__(
        self,
        mirror: str | None = None,
        *,
        contact: str = "",
        per_second: float = 4.0,
        first_pause: float = 2.0,
    ) -> None:
        root = None if mirror is None else mirror.rstrip("/")
        self.sas = _SAS if root is None else f"{root}/sas"
        self.sql = _SQL if root is None else f"{root}/SqlSearch"
        self.archive = Client(per_second=per_second, contact=contact, first_pause=first_pause)
        # The catalogue server allows 60 queries per minute.
        per_second = 0.8 if root is None else per_second
        self.catalogue = Client(per_second=per_second, contact=contact, first_pause=first_pause)

    def query(self, sql: str, columns: tuple[str, ...], cache: Path | None = None) -> Any:
        """Send a query, or read its answer from a file if it exists.

        Parameters
        ----------
        sql : str
            Query.
        columns : tuple of str
            Columns of the answer.
        cache : Path, optional
            File to keep the answer.

        Returns
        -------
        dict of str to ndarray

        Raises
        ------
        DownloadError
            If the server does not answer.
        ValueError
            If the answer has not these columns.
        """
        from urllib.parse import urlencode

        if cache is not None and cache.exists():
            return parse_answer(cache.read_text(encoding="utf-8"), columns)
        url = f"{self.sql}?{urlencode({'cmd': ' '.join(sql.split()), 'format': 'csv'})}"
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "answer.csv"
            self.catalogue.fetch(url, path, max_bytes=_MAX_ANSWER)
            text = path.read_text(encoding="utf-8")
        rows = parse_answer(text, columns)
        if cache is not None:
            cache.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(cache, text.encode())
        return rows

    def frame(self, run: int, camcol: int, field: int, band: str) -> str:
        """Return the address of a corrected frame."""
        folder = f"{self.sas}/dr{RELEASE}/eboss/photoObj/frames/301/{run}/{camcol}"
        return f"{folder}/frame-{band}-{run:06d}-{camcol}-{field:04d}.fits.bz2"

    def spectrum(self, run2d: str, plate: int, mjd: int, fiber: int) -> str:
        """Return the address of a spectrum."""
        survey = "eboss" if run2d.startswith("v") else "sdss"
        folder = f"{self.sas}/dr{RELEASE}/{survey}/spectro/redux/{run2d}/spectra/lite/{plate:04d}"
        return f"{folder}/spec-{plate:04d}-{mjd}-{fiber:04d}.fits"


class SloanSurvey(Source):
    """Galaxies of a selection of SDSS.

    Parameters
    ----------
    selection : str
        One of `astrogenspec.datasets.sdss_catalogue.SELECTIONS`.
    n : int
        Number of galaxies, approximately: whole fields are taken.
    server : SkyServer
        Servers.
    cache : path
        Folder for the answers to queries.
    spectra : bool, optional
        Whether to download spectra; the default depends on the selection.
    cutout_size : int
        Pixels on a side of the images.

    Raises
    ------
    ValueError
        If there is no such selection.
    """

    filters = sdss_filters()

    def __init__(
        self,
        selection: str,
        n: int,
        server: SkyServer,
        cache: Path,
        *,
        spectra: bool | None = None,
        cutout_size: int = CUTOUT_SIZE,
    ) -> None:
        if selection not in SELECTIONS:
            raise ValueError(
                f"there is no selection {selection!r}; choose from {', '.join(SELECTIONS)}."
            )
        self.selection = SELECTIONS[selection]
        self.n, self.server, self.cache = n, server, Path(cache)
        self.cutout_size = checked_cutout_size(cutout_size)
        self.spectra = self.selection.spectra if spectra is None else spectra
        self._runs: dict[int, int] | None = None
        self._units: list[Unit] | None = None
        self._rows: dict[str, np.ndarray] = {}
        self._table: GalaxyTable | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Settings that decide what a data set contains."""
        return {
            "source": "sdss",
            "release": RELEASE,
            "selection": self.selection.name,
            "where": self.selection.where,
            "images": True,
            "spectra": self.spectra,
            **cutout_settings(self.cutout_size),
        }

    @property
    def details(self) -> dict[str, Any]:
        """Queries and traffic."""
        return {
            "servers": [self.server.sas, self.server.sql],
            "queries": [count_query(self.selection), run_query(self.selection, 0)],
            "requests": self.server.archive.n_requests + self.server.catalogue.n_requests,
            "bytes": self.server.archive.n_bytes + self.server.catalogue.n_bytes,
        }

    @property
    def workers(self) -> int:
        """Number of fields at the same time."""
        return _CONNECTIONS

    def runs(self) -> dict[int, int]:
        """Return the number of galaxies to take from each run, in the order of the runs."""
        if self._runs is None:
            counts = self.server.query(count_query(self.selection), ("run", "n"))
            limit = max(int(np.ceil(_RUN_SHARE * self.n)), 1)
            found: dict[int, int] = {}
            total = 0
            for run, count in sorted(
                zip(counts["run"].tolist(), counts["n"].tolist(), strict=True),
                key=lambda item: _order(f"run {item[0]}"),
            ):
                if total >= self.n:
                    break
                found[run] = min(count, limit, self.n - total)
                total += found[run]
            if not found:
                raise ValueError(
                    f"the server has no galaxy of the selection {self.selection.name}."
                )
            self._runs = found
        return self._runs

    def cost(self) -> Cost:
        """Estimate the cost from the numbers of galaxies in the runs; sends one query."""
        runs = self.runs()
        n = sum(runs.values())
        n_fields = n / _PER_FIELD if self._units is None else len(self._units)
        n_requests = round(len(runs) + n_fields * len(BANDS) + n * self.spectra)
        through = n_fields * len(BANDS) * _FRAME + n * self.spectra * _SPECTRUM
        kept = n * (kept_image(self.cutout_size) + KEPT_SPECTRUM * self.spectra)
        rate = self.server.archive.per_second
        basis = (
            f"{_PER_FIELD} galaxies in a field, {1e3 * _FRAME:.1f} MB for a frame, at most "
            f"{rate:g} requests per second"
        )
        return Cost(n, n_requests, through, kept, n_requests / rate / 3600, basis)

    def units(self) -> list[Unit]:
        """Return the fields; sends one query for each run."""
        if self._units is not None:
            return self._units
        parts: list[dict[str, np.ndarray]] = []
        units: list[Unit] = []
        start = 0
        for run, wanted in self.runs().items():
            cache = self.cache / f"run-{run:06d}.csv"
            rows = self.server.query(run_query(self.selection, run), COLUMNS, cache)
            units += _fields(rows, wanted, start)
            parts.append(rows)
            start += len(rows["objID"])
        self._rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        self._table = galaxies_of(self._rows)
        self._units = units
        return units

    def records(self, unit: Unit) -> GalaxyRecords:
        """Download the frames and spectra of a field."""
        if self._table is None:
            raise ValueError("the units of the source are not known yet; call units first.")
        chosen = np.array(unit.rows)
        rows = {name: values[chosen] for name, values in self._rows.items()}
        table = self._table[chosen]
        cutouts = self._cutouts(table, rows)
        spectra = None
        if self.spectra:
            spectra = [self._spectrum(rows, k) for k in range(len(table))]
        return GalaxyRecords(table, cutouts, spectra)

    def _cutouts(self, table: GalaxyTable, rows: dict[str, np.ndarray]) -> CutoutBatch:
        position = SkyCoord(table.ra, table.dec, unit="deg")
        images: list[dict[str, Any]] = [{} for _ in range(len(table))]
        problems: list[list[str]] = [[] for _ in range(len(table))]
        run, camcol, field = (int(rows[name][0]) for name in ("run", "camcol", "field"))
        with tempfile.TemporaryDirectory() as folder:
            for band in BANDS:
                url = self.server.frame(run, camcol, field, band)
                path = Path(folder) / url.rsplit("/", 1)[-1]
                try:
                    self.server.archive.fetch(url, path, max_bytes=_MAX_FRAME)
                    plain = _decompressed(path)
                    frame = read_sdss_frame(plain)
                    if frame.meta["FILTER"] != band or int(frame.meta["RUN"]) != run:
                        raise ValueError(
                            f"{path.name} is a frame of run {frame.meta['RUN']} in "
                            f"{frame.meta['FILTER']}"
                        )
                except NotFoundError as error:
                    for texts in problems:
                        texts.append(f"{band}: {error}")
                    continue
                except DownloadError:
                    raise
                except (OSError, *INPUT_ERRORS) as error:
                    # A damaged file may be intact the next time.
                    raise DownloadError(f"{url}: {error}") from error
                plain.unlink()
                for k in range(len(table)):
                    try:
                        images[k][band] = cut_out(frame, position[k], self.cutout_size)
                    except ValueError as error:
                        problems[k].append(str(error))
        return _batch(table, images, position, problems, self.cutout_size)

    def _spectrum(self, rows: dict[str, np.ndarray], k: int) -> ObservedSpectrum | str:
        url = self.server.spectrum(
            str(rows["run2d"][k]), *(int(rows[name][k]) for name in ("plate", "mjd", "fiberID"))
        )
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / url.rsplit("/", 1)[-1]
            try:
                self.server.archive.fetch(url, path, max_bytes=_MAX_SPECTRUM)
            except NotFoundError as error:
                return str(error)
            try:
                spectrum = read_spectrum(path)
            except OSError as error:
                raise DownloadError(f"{url}: {error}") from error
            except ValueError as error:
                return str(error)
        low, high = _POSITIVE_RANGE
        inside = (spectrum.wavelength > low) & (spectrum.wavelength < high) & (spectrum.ivar > 0)
        if self.selection.spectra and not (inside.any() and spectrum.flux[inside].mean() > 0):
            return f"its mean flux between {low:.0f} and {high:.0f} Angstrom is not positive"
        return spectrum


def _decompressed(path: Path) -> Path:
    """Decompress a frame to a file; read as it is, it would be decompressed several times."""
    try:
        with bz2.open(path) as file:
            content = file.read(_MAX_FRAME + 1)
    except EOFError:
        raise OSError("the file is truncated") from None
    if len(content) > _MAX_FRAME:
        raise OSError(f"the file has more than {_MAX_FRAME} bytes")
    path.unlink()
    plain = path.with_suffix("")
    plain.write_bytes(content)
    return plain


def _fields(rows: dict[str, np.ndarray], wanted: int, start: int) -> list[Unit]:
    """Return fields of a run with as many galaxies as wanted, in the order of their hash."""
    keys = [
        f"{run:06d}-{camcol}-{field:04d}"
        for run, camcol, field in zip(rows["run"], rows["camcol"], rows["field"], strict=True)
    ]
    of_field: dict[str, list[int]] = {}
    for k, key in enumerate(keys):
        of_field.setdefault(key, []).append(k)
    units = []
    total = 0
    for key in sorted(of_field, key=_order):
        if total >= wanted:
            break
        chosen = of_field[key]
        (split,) = split_of(rows["field_ra"][chosen[:1]], rows["field_dec"][chosen[:1]])
        units.append(Unit(f"field-{key}", str(split), tuple(start + k for k in chosen)))
        total += len(chosen)
    return units


def _order(text: str) -> str:
    return hashlib.sha256(f"astrogenspec {text}".encode()).hexdigest()


def _batch(
    table: GalaxyTable,
    images: list[dict[str, Any]],
    position: SkyCoord,
    problems: list[list[str]],
    size: int,
) -> CutoutBatch:
    """Join the cutouts of the galaxies of a field."""
    shape = (len(table), len(BANDS), size, size)
    flux, ivar = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    texts = []
    for k, bands in enumerate(images):
        if bands:
            try:
                batch = coerce_cutouts([bands], position=position[k : k + 1], size=size)
                flux[k], ivar[k] = batch.flux[0], batch.ivar[0]
            except INPUT_ERRORS as error:
                problems[k].append(str(error))
        missing = not (ivar[k] > 0).any()
        texts.append("; ".join(problems[k]) if missing else "")
    return CutoutBatch(flux, ivar, table.names, tuple(texts))
