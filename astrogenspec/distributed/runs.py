"""Survey runs: plan, estimate, work, and finish; a second call continues."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from .. import __version__
from ..inputs.errors import check_count
from .engines import ENGINES, available_cores
from .hats import describe_catalogue, hats_columns, hats_properties, pixel_folder
from .images import image_source
from .manifest import Manifest, make_manifest
from .margins import PixelResults, describe_collection, margin_files, margin_table
from .results import OutputFolder
from .sources import Partition, find_files, read_rows
from .summaries import arrow_table
from .tables import Inference, infer_table
from .work import Outcome, Task, reader_of, single_threaded

__all__ = ["Estimate", "SurveyReport", "SurveyRun", "run_survey"]

#: Number of rows from which time and size are estimated.
_TRIAL_ROWS = 100
#: Memory (bytes) of a worker before it reads a partition: interpreter, libraries, network.
_WORKER_MEMORY = 600e6
#: Seconds between lines of progress where there is no terminal.
_INTERVAL = 60.0


@dataclass(frozen=True)
class Estimate:
    """What a run will take, from its first rows.

    Attributes
    ----------
    rows, partitions : int
        Number of rows and partitions to do.
    rate : float
        Galaxies per second of one worker.
    seconds : float
        Time of the run, if all workers have a core of their own.
    disk_bytes, memory_bytes : float
        Size of the result, and memory of a worker.
    """

    rows: int
    partitions: int
    rate: float
    seconds: float
    disk_bytes: float
    memory_bytes: float

    def __str__(self) -> str:
        return (
            f"{self.rows:,} galaxies in {self.partitions:,} partitions: about "
            f"{_duration(self.seconds)} ({self.rate:.0f} galaxies a second for each worker), "
            f"{self.disk_bytes / 1e9:.3g} GB on disk, {self.memory_bytes / 1e9:.2g} GB of memory "
            "for each worker"
        )


@dataclass
class SurveyReport:
    """What a call did.

    Attributes
    ----------
    run : str
        Digest of the manifest.
    done, skipped, claimed : int
        Number of partitions that were computed, were done before, or are being computed by other
        processes.
    quarantined : dict of str to str
        Reasons by partition.
    rows, bad_rows : int
        Number of rows that were computed, and of those without a result.
    seconds : float
        Time of the call.
    finished : bool
        Whether all partitions of the run are done.
    """

    run: str
    done: int = 0
    skipped: int = 0
    claimed: int = 0
    quarantined: dict[str, str] = field(default_factory=dict)
    rows: int = 0
    bad_rows: int = 0
    seconds: float = 0.0
    finished: bool = False

    def add(self, outcome: Outcome, partition: Partition) -> None:
        """Count an outcome."""
        if outcome.state == "quarantined":
            self.quarantined[partition.label] = outcome.reason
            return
        setattr(self, outcome.state, getattr(self, outcome.state) + 1)
        if outcome.state == "done":
            self.rows += outcome.rows
            self.bad_rows += outcome.bad_rows


class SurveyRun:
    """A run that was planned: a catalogue, an output folder and a manifest.

    Parameters
    ----------
    source : path
        Catalogue: a file or a folder.
    output : path
        Output folder; a run that began there is continued.
    settings : mapping
        Attributes of `~astrogenspec.distributed.tables.Inference`. When a run is continued, those
        that are not given are those of the run.
    rows : int, optional
        Largest number of rows of a partition; 20,000 by default.

    Attributes
    ----------
    manifest : Manifest
        What the result depends on.
    continued : bool
        Whether the run began before.

    Raises
    ------
    ManifestError
        If the output folder belongs to another run.
    FileNotFoundError, OSError, ValueError, TypeError
        If the catalogue cannot be read, or a setting is invalid.
    """

    def __init__(
        self,
        source: Path,
        output: Path,
        settings: Mapping[str, Any],
        *,
        rows: int | None = None,
    ) -> None:
        self.output_path = output
        before = Manifest.read(output) if output.is_dir() else None
        self.continued = before is not None
        self.source = source
        self.root, files = find_files(source)
        if "images" in settings:
            settings = {**settings, "images": image_source(settings["images"])}
        if before is None or "keep" in settings:
            # The result of a HATS catalogue needs its positions.
            keep = (*settings.get("keep", ()), *hats_columns(self.root))
            settings = {**settings, "keep": tuple(dict.fromkeys(keep))}
        if before is None:
            _check_new(output, self.root)
            inference = Inference(**settings)
            rows = check_count(20_000 if rows is None else rows, "rows")
        else:
            inference = replace(before.inference, **settings)
            rows = before.rows if rows is None else rows
        self.manifest = make_manifest(inference, rows, self.root, files, __version__)
        if before is not None:
            before.check_same(self.manifest)
        hats = self.manifest.is_hats(self.root)
        self.output = OutputFolder(output, self.manifest.digest, hats)

    def start(self) -> None:
        """Write the manifest, or check that of another process that began at the same time."""
        self.output_path.mkdir(parents=True, exist_ok=True)
        if not self.continued:
            try:
                self.manifest.write(self.output_path)
            except FileExistsError:
                before = Manifest.read(self.output_path)
                if before is None:
                    raise
                before.check_same(self.manifest)
        self.output.prepare()

    def pending(self, shard: tuple[int, int] = (1, 1)) -> list[Partition]:
        """Return the partitions of a shard that are not done.

        Parameters
        ----------
        shard : tuple of int
            K and N: every N-th partition, from the K-th on (from 1 to N).

        Returns
        -------
        list of Partition
        """
        number, n = shard
        mine = self.manifest.partitions[number - 1 :: n]
        return [partition for partition in mine if not self.output.is_done(partition)]

    def estimate(self, workers: int, partitions: Sequence[Partition] | None = None) -> Estimate:
        """Infer the first rows, and estimate what the run will take.

        Parameters
        ----------
        workers : int
            Number of workers.
        partitions : sequence of Partition, optional
            Partitions to do; all by default.

        Returns
        -------
        Estimate

        Raises
        ------
        ValueError, TypeError, OSError, astropy.units.UnitsError
            If the first rows cannot be used: a column is missing, a unit is wrong, and so on.
        """
        partitions = self.manifest.partitions if partitions is None else partitions
        first = next((p for p in partitions if len(p)), None)
        if first is None:
            reasons = [file.error for file in self.manifest.files if file.error]
            raise ValueError(
                "the catalogue has no rows that can be read"
                + (f" ({reasons[0]})." if reasons else ".")
            )
        trial = replace(first, stop=min(first.start + _TRIAL_ROWS, first.stop))
        table = read_rows(self.root, replace(trial, number=first.number))
        inference = self.manifest.inference
        reader = reader_of(Task(self.root, self.output, inference, trial))
        with single_threaded():
            # The network is loaded by the first call.
            infer_table(table[:1], inference, reader)
            begin = time.perf_counter()
            inferred = infer_table(table, inference, reader)
            seconds = time.perf_counter() - begin
        content = arrow_table(inferred.kept, inferred.columns, "", inferred.units)
        rate, n = len(trial) / seconds, sum(map(len, partitions))
        largest = max(map(len, partitions))
        each = content.nbytes / len(trial)
        return Estimate(
            n,
            len(partitions),
            rate,
            n / rate / workers,
            n * each,
            _WORKER_MEMORY + 4 * largest * each,
        )

    def finish(self) -> bool:
        """Write the summary of the run if all partitions are done.

        The result of a HATS catalogue is described if all others are in quarantine, so that it can
        be opened.

        Returns
        -------
        bool
            Whether all are done.
        """
        partitions = self.manifest.partitions
        done = [each for each in partitions if self.output.is_done(each)]
        indices = {each.index for each in done}
        left = [each for each in partitions if each.index not in indices]
        if not all(map(self.output.is_quarantined, left)):
            return False
        if self.output.hats and done:
            self._describe_hats(done)
        if left:
            return False
        logs = list(self.output.logs(partitions))
        totals = {
            name: sum(log[name] for log in logs)
            for name in ("rows", "bad_rows", "flagged", "bytes", "seconds", "cpu_seconds")
        }
        self.output.write_json(
            self.output_path / "metrics.json",
            {
                "run": self.manifest.digest,
                "partitions": len(partitions),
                **{name: round(value, 1) for name, value in totals.items()},
                "galaxies_per_cpu_second": round(totals["rows"] / max(totals["cpu_seconds"], 1e-9)),
            },
        )
        return True

    def _describe_hats(self, partitions: Sequence[Partition]) -> None:
        """Write the files that make the result of some partitions a HATS catalogue."""
        from pyarrow import parquet

        target = self.output_path / "data"
        schema = parquet.read_schema(self.output.data_file(partitions[0]))
        folders = [str(pixel_folder(partition.file.path)) for partition in partitions]
        n_rows = sum(map(len, partitions))
        files = dict(describe_catalogue(self.root, target, folders, n_rows, schema))
        files |= self._write_margin(files[target / "dataset" / "_common_metadata"])
        for path, content in files.items():
            self.output.write_bytes(path, content)

    def _write_margin(self, common: bytes) -> Mapping[Path, bytes]:
        """Write the margin of the result; return the files that describe it."""
        healpix = hats_properties(self.root).get("hats_col_healpix", "")
        margin, rows = margin_files(self.source), {}
        if healpix not in self.manifest.inference.keep:
            return {}
        result = PixelResults((self.output_path / "data" / "dataset").resolve())
        for folder, path in margin.items():
            table = margin_table(path, result, self.manifest.inference.ids, healpix)
            target = self.output_path / "margin" / "dataset" / folder / "part-000000.parquet"
            self.output.write_table(target, table)
            rows[folder] = len(table)
        return describe_collection(self.source, self.output_path, rows, common)

    @property
    def finished(self) -> bool:
        """Whether the summary of the run has been written."""
        return (self.output_path / "metrics.json").is_file()


def run_survey(
    source: str | Path,
    output: str | Path,
    *,
    rows: int | None = None,
    workers: int | None = None,
    engine: str = "none",
    scheduler: str | None = None,
    shard: tuple[int, int] = (1, 1),
    progress: bool = False,
    report: Callable[[str], None] = lambda text: None,
    **settings: Any,
) -> SurveyReport:
    """Infer the galaxies of a catalogue of any size, partition by partition.

    A second call with the same output folder continues an interrupted run. Several calls at the
    same time share the work.

    Parameters
    ----------
    source : path-like
        Catalogue of photometry: a parquet, FITS, CSV, HDF5, ECSV or VOTable file, a folder of such
        files of one format, or a HATS catalogue.
    output : path-like
        Output folder.
    rows : int, optional
        Largest number of rows of a partition; 20,000 by default.
    workers : int, optional
        Number of processes; by default one for each core.
    engine : {"none", "dask", "lsdb"}
        Processes of this machine, workers of dask, or workers of dask that read a HATS catalogue
        with LSDB.
    scheduler : str, optional
        Address of a scheduler of dask; by default a cluster on this machine is made.
    shard : tuple of int
        K and N: work on every N-th partition, from the K-th on, as in an array of jobs.
    progress : bool
        Show a progress bar.
    report : callable
        Function that is given lines of text: the estimate, and progress if there is no bar.
    **settings : object
        Arguments of `predict_table`: ``ids`` and ``seed`` are required for a new run. When a run is
        continued, those not given are those of the run.

    Returns
    -------
    SurveyReport

    Raises
    ------
    astrogenspec.distributed.ManifestError
        If the output folder belongs to a run with other weights, versions, settings or inputs.
    FileExistsError
        If the run is finished.
    OSError
        If the catalogue cannot be read, or there is not enough space on the disk.
    ValueError, TypeError, astropy.units.UnitsError
        If an argument is invalid, or the first rows cannot be used.
    RuntimeError
        If a worker was ended from outside.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine is {engine!r}; it must be one of {', '.join(ENGINES)}.")
    _check_shard(shard)
    workers = available_cores() if workers is None else check_count(workers, "workers")
    run = SurveyRun(Path(source), Path(output), settings, rows=rows)
    if run.continued and run.finished:
        raise FileExistsError(
            f"the run in {output} is finished; check it with --check, or give another output "
            "folder."
        )
    pending = run.pending(shard)
    if not run.continued:
        estimate = run.estimate(workers, pending)
        _check_space(run.output_path, estimate)
        report(str(estimate))
    elif pending:
        n = len(run.manifest.partitions)
        report(f"the run began before: {len(pending):,} of {n:,} partitions remain")
    run.start()
    outcome = SurveyReport(run.manifest.digest)
    begin = time.perf_counter()
    root, output_folder = run.root.resolve(), replace(run.output, path=run.output.path.resolve())
    tasks = [Task(root, output_folder, run.manifest.inference, each.alone()) for each in pending]
    by_index = {partition.index: partition for partition in pending}
    with _Progress(sum(map(len, pending)), progress, report) as shown:
        for each in ENGINES[engine](tasks, min(workers, max(len(tasks), 1)), scheduler, report):
            outcome.add(each, by_index[each.index])
            shown.add(each.rows)
    outcome.seconds = time.perf_counter() - begin
    outcome.finished = run.finish()
    return outcome


class _Progress:
    """A progress bar, or lines of text in intervals."""

    def __init__(self, total: int, bar: bool, report: Callable[[str], None]) -> None:
        self._bar = tqdm(total=total, unit="galaxy", disable=not bar, unit_scale=True)
        self._report = report if not bar else lambda text: None
        self._begin = self._last = time.perf_counter()
        self._total, self._n = total, 0

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def add(self, rows: int) -> None:
        self._n += rows
        self._bar.update(rows)
        now = time.perf_counter()
        if now - self._last > _INTERVAL:
            self._last, rate = now, self._n / (now - self._begin)
            left = _duration((self._total - self._n) / max(rate, 1e-9))
            self._report(
                f"{self._n:,} of {self._total:,} galaxies, {rate:.0f} a second, {left} left"
            )


def _check_new(output: Path, root: Path) -> None:
    """Raise unless a new run can begin in a folder."""
    if output.exists() and not output.is_dir():
        raise NotADirectoryError(f"the output {output} is a file; give a folder.")
    if output.is_dir() and output.samefile(root):
        raise ValueError(f"the output {output} is the folder of the catalogue; give another one.")
    if output.is_dir() and any(path.name[0] != "." for path in output.iterdir()):
        raise FileExistsError(
            f"the output folder {output} is not empty and has no manifest; give another one."
        )


def _check_shard(shard: tuple[int, int]) -> None:
    number, n = shard
    if not 1 <= number <= n:
        raise ValueError(f"shard is {number}/{n}; it must be K/N with K from 1 to N.")


def _check_space(output: Path, estimate: Estimate) -> None:
    parent = next(path for path in (output, *output.resolve().parents) if path.exists())
    free = shutil.disk_usage(parent).free
    if estimate.disk_bytes > free:
        raise OSError(
            f"the result needs about {estimate.disk_bytes / 1e9:.3g} GB, but only "
            f"{free / 1e9:.3g} GB are free for {output}: choose another folder, or fewer "
            "quantiles and draws."
        )


def _duration(seconds: float) -> str:
    if not np.isfinite(seconds):
        return "an unknown time"
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"
