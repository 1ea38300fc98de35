"""Verification of finished runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..weights import file_sha256
from .manifest import Manifest, ManifestError
from .results import OutputFolder
from .sources import CatalogueFile, Partition, find_files, read_rows
from .summaries import arrow_array

__all__ = ["check_survey"]


def check_survey(source: str | Path, output: str | Path) -> list[str]:
    """Verify a run: number of rows, identifiers, digests and values of each partition.

    Parameters
    ----------
    source : path-like
        Catalogue.
    output : path-like
        Output folder.

    Returns
    -------
    list of str
        What is wrong; empty if the run is complete and consistent.

    Raises
    ------
    ManifestError
        If there is no manifest, or it cannot be read.
    FileNotFoundError
        If the catalogue does not exist.
    """
    source, output = Path(source), Path(output)
    manifest = Manifest.read(output)
    if manifest is None:
        raise ManifestError(f"{output} has no manifest: no run began there.")
    root, _ = find_files(source)
    problems = [text for file in manifest.files if (text := _check_file(root, file))]
    folder = OutputFolder(output, manifest.digest, manifest.is_hats(root))
    for partition in manifest.partitions:
        found = next(_check_partition(root, folder, partition, manifest.inference.ids), None)
        if found is not None:
            problems.append(f"{partition.label}: {found}")
    wanted = {folder.data_file(partition) for partition in manifest.partitions}
    there = set((output / "data").rglob("*.parquet"))
    problems += [
        f"{path.relative_to(output).as_posix()} belongs to no partition"
        for path in sorted(there - wanted)
    ]
    return problems


def _check_file(root: Path, file: CatalogueFile) -> str:
    path = root / file.path
    if not path.is_file():
        return f"the input file {file.path} is missing"
    return "" if file_sha256(path) == file.sha256 else f"the input file {file.path} has changed"


def _check_partition(
    root: Path, folder: OutputFolder, partition: Partition, ids: str
) -> Iterator[str]:
    """Yield what is wrong with a partition; later checks rely on earlier ones."""
    from pyarrow import ArrowException, parquet

    if folder.is_quarantined(partition):
        reason = json.loads(folder.quarantine_file(partition.index).read_text())["reason"]
        yield f"not read: {reason}"
    if not folder.is_done(partition):
        yield "there is no complete result"
    path = folder.data_file(partition)
    log = next(folder.logs([partition]), None)
    if log is None or log.get("sha256") != file_sha256(path):
        yield "the file of the result has changed"
    try:
        # Names of folders would become columns of a data set.
        found = parquet.ParquetFile(path).read()
        wanted = arrow_array(read_rows(root, partition)[ids])
    except (ArrowException, OSError, KeyError) as error:
        yield f"cannot be read: {' '.join(str(error).split())}"
        return
    if not found[ids].combine_chunks().equals(wanted):
        yield "the identifiers are not those of the catalogue"
    if len(partition) and found["run"].unique().to_pylist() != [folder.run]:
        yield "there are rows of another run"
    yield from _check_values(found)


def _check_values(found: Any) -> Iterator[str]:
    """Yield what is wrong with the numbers."""
    flags = found["flags"].to_numpy()
    for name in found.column_names:
        quantity, _, kind = name.rpartition("_")
        if kind != "median":
            continue
        low, middle, high = (found[f"{quantity}_{k}"].to_numpy() for k in ("p16", "median", "p84"))
        missing = np.isnan(middle)
        if (missing & (flags == 0)).any():
            yield f"{quantity} is missing for galaxies without a flag"
        if not ((low <= middle) & (middle <= high))[~missing].all():
            yield f"the percentiles of {quantity} are not in order"
