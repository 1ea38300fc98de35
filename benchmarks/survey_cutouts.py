"""Rates and memory of survey runs with images.

``python benchmarks/survey_cutouts.py hdf5 --galaxies 200000 --workers 2 --folder F`` writes cutouts
in the bands g, r and i of 64 x 64 pixels and their inverse variances (98 kB a galaxy) to the folder
F, infers them with their photometry, and records the memory of each worker every five seconds. The
other formats are ``zarr``, ``parquet``, ``column`` (images in the catalogue itself), ``fits`` (a
file for each galaxy), and ``function``.

2,000 galaxies are simulated; all others are these again, under other identifiers and with fluxes
scattered by 5%. ``--keep`` keeps the images; without it they are deleted.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import psutil
import pyarrow as pa
import torch
from astropy.io import fits
from pyarrow import parquet

FORMATS = ("hdf5", "zarr", "parquet", "column", "fits", "function")
BANDS, PIXEL_SCALE = ("g", "r", "i"), 0.396
#: Number of galaxies of a file, and of different galaxies.
_FILE, _DIFFERENT = 20_000, 2_000
#: File of the function.
_IMAGES = "SURVEY_IMAGES"


def simulate(folder: Path) -> dict[str, np.ndarray]:
    """Return photometry and images of different galaxies; they are simulated once."""
    path = folder / "galaxies.npz"
    if not path.exists():
        from survey_images import observe_survey

        from astrogenspec.simulate import Simulator
        from astrogenspec.simulate.dataset import TRAINING_SAMPLES
        from astrogenspec.surveys import SDSS

        torch.set_num_threads(1)
        simulator = Simulator()
        seen = observe_survey(simulator, simulator.draw(_DIFFERENT, 7, TRAINING_SAMPLES[1]), SDSS)
        rows = [seen.bands.index(band) for band in BANDS]
        arrays: dict[str, Any] = {
            "flux": seen.photometry.flux.astype(np.float32),
            "error": seen.photometry.error.astype(np.float32),
            "image": seen.flux[:, rows].astype(np.float32),
            "ivar": seen.ivar[:, rows].astype(np.float32),
        }
        np.savez(path, **arrays)
    with np.load(path) as found:
        return {name: found[name] for name in found}


def blocks(galaxies: dict[str, np.ndarray], n: int) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield identifiers, images and inverse variances of 500 galaxies at a time."""
    ids = identifiers(n)
    for start in range(0, n, 500):
        rows = np.arange(start, min(start + 500, n))
        each = rows % len(galaxies["image"])
        yield ids[rows], galaxies["image"][each], galaxies["ivar"][each]


def identifiers(n: int) -> np.ndarray:
    """Return the identifiers of n galaxies."""
    return np.random.default_rng(0).permutation(n) + 2**60


def catalogue(galaxies: dict[str, np.ndarray], n: int) -> dict[str, np.ndarray]:
    """Return the photometry of n galaxies."""
    rng, each = np.random.default_rng(1), np.arange(n) % len(galaxies["flux"])
    columns = {"object_id": identifiers(n), "ebv": np.zeros(n)}
    for k, band in enumerate("ugriz"):
        scatter = 10 ** rng.normal(0, 0.02, n)
        columns[f"flux_{band}"] = (galaxies["flux"][each, k] * scatter).astype(np.float32)
        columns[f"flux_err_{band}"] = galaxies["error"][each, k]
    return columns


def structures(flux: np.ndarray, ivar: np.ndarray) -> Any:
    """Return images as structures of Arrow with lists of lists of lists."""
    n, bands, ny, nx = flux.shape

    def nested(values: np.ndarray) -> Any:
        array = pa.array(np.ascontiguousarray(values).ravel())
        for length, count in ((nx, n * bands * ny), (ny, n * bands), (bands, n)):
            offsets = pa.array(np.arange(count + 1, dtype=np.int32) * length)
            array = pa.ListArray.from_arrays(offsets, array)
        return array

    names = pa.array([[f"sdss-{band}" for band in BANDS]] * n)
    scale = pa.array([[PIXEL_SCALE] * bands] * n)
    return pa.StructArray.from_arrays(
        [names, nested(flux), nested(ivar), scale], ["band", "flux", "ivar", "scale"]
    )


def write_hdf5(folder: Path, galaxies: dict[str, np.ndarray], n: int) -> Path:
    """Write files of 20,000 galaxies."""
    folder.mkdir()
    start = 0
    file: Any = None
    for ids, flux, ivar in blocks(galaxies, n):
        if start % _FILE == 0:
            if file is not None:
                file.close()
            file = h5py.File(folder / f"{start // _FILE:04d}.hdf5", "w")
            size, shape = min(_FILE, n - start), flux.shape[1:]
            file.create_dataset("object_id", (size,), "i8")
            for name in ("flux", "ivar"):
                file.create_dataset(name, (size, *shape), "f4")
            file.attrs.update({"bands": "".join(BANDS), "pixel_scale": PIXEL_SCALE})
        rows = slice(start % _FILE, start % _FILE + len(ids))
        for name, values in (("object_id", ids), ("flux", flux), ("ivar", ivar)):
            file[name][rows] = values
        start += len(ids)
    file.close()
    return folder


def write_zarr(folder: Path, galaxies: dict[str, np.ndarray], n: int) -> Path:
    """Write a group with chunks of 64 galaxies."""
    import zarr

    group: Any = zarr.open_group(folder, mode="w")
    shape = galaxies["image"].shape[1:]
    group.create_array("object_id", data=identifiers(n))
    for name in ("flux", "ivar"):
        group.create_array(name, shape=(n, *shape), chunks=(64, *shape), dtype="f4")
    group.attrs.update({"bands": "".join(BANDS), "pixel_scale": PIXEL_SCALE})
    start = 0
    for ids, flux, ivar in blocks(galaxies, n):
        rows = slice(start, start + len(ids))
        group["flux"][rows], group["ivar"][rows] = flux, ivar
        start = rows.stop
    return folder


def write_parquet(folder: Path, galaxies: dict[str, np.ndarray], n: int) -> Path:
    """Write a file with a column of structures."""
    folder.mkdir()
    _write_structures(folder / "images.parquet", galaxies, n, {"object_id": identifiers(n)})
    return folder


def _write_structures(
    path: Path, galaxies: dict[str, np.ndarray], n: int, columns: dict[str, np.ndarray]
) -> None:
    start = 0
    writer: Any = None
    for ids, flux, ivar in blocks(galaxies, n):
        part = {name: values[start : start + len(ids)] for name, values in columns.items()}
        content = pa.table(part | {"image": structures(flux, ivar)})
        writer = writer or parquet.ParquetWriter(path, content.schema)
        writer.write_table(content)
        start += len(ids)
    writer.close()


def write_fits(folder: Path, galaxies: dict[str, np.ndarray], n: int) -> Path:
    """Write a file with an extension for each band and its inverse variance, for each galaxy."""
    folder.mkdir()
    units = {"flux": "nmgy", "ivar": "nmgy-2"}
    for ids, flux, ivar in blocks(galaxies, n):
        for row, each in enumerate(ids):
            hdus = [fits.PrimaryHDU()]
            for k, band in enumerate(BANDS):
                for values, name in ((flux, band), (ivar, f"IVAR_{band}")):
                    header = fits.Header({"PIXSCALE": PIXEL_SCALE})
                    header["BUNIT"] = units["flux" if name == band else "ivar"]
                    hdus.append(fits.ImageHDU(values[row, k], header, name=name))
            fits.HDUList(hdus).writeto(folder / f"{each}.fits")
    return folder


@cache
def _places(path: str) -> tuple[Any, dict[int, int]]:
    file = h5py.File(path)
    return file, {int(each): k for k, each in enumerate(file["object_id"][:])}


def cutouts_of(ids: np.ndarray) -> list[Any]:
    """Return the images of some galaxies; the function of the format ``function``."""
    from astropy import units as u
    from astropy.nddata import InverseVariance, NDData

    file, places = _places(os.environ[_IMAGES])
    meta = {"bands": list(BANDS), "PIXSCALE": PIXEL_SCALE}
    rows = [places[int(each)] for each in ids]
    return [
        NDData(
            file["flux"][k],
            unit=u.nmgy,
            uncertainty=InverseVariance(file["ivar"][k] / u.nmgy**2),
            meta=meta,
        )
        for k in rows
    ]


def prepare(folder: Path, form: str, n: int) -> str:
    """Write the catalogue and the images; return how they are named."""
    galaxies = simulate(folder)
    columns = catalogue(galaxies, n)
    if form == "column":
        _write_structures(folder / "in.parquet", galaxies, n, columns)
        return "column:image"
    parquet.write_table(pa.table(columns), folder / "in.parquet")
    images = folder / f"images-{form}"
    if form == "function":
        os.environ[_IMAGES] = str(write_hdf5(images, galaxies, n) / "0000.hdf5")
        return "survey_cutouts:cutouts_of"
    writers = {"hdf5": write_hdf5, "zarr": write_zarr, "parquet": write_parquet, "fits": write_fits}
    return str(writers[form](images, galaxies, n))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run one format in a process of its own, and watch its memory."""
    folder = Path(options.folder)
    folder.mkdir(parents=True, exist_ok=True)
    output = folder / "out"
    begin = time.monotonic()
    images = prepare(folder, options.format, options.galaxies)
    written = time.monotonic() - begin
    size = sum(
        path.stat().st_size
        for each in (*folder.glob("images-*"), *folder.glob("in.parquet"))
        for path in (each.rglob("*") if each.is_dir() else [each])
        if path.is_file()
    )
    settings = {"ids": "object_id", "seed": 1, "flux_unit": "nmgy", "draws": options.draws}
    settings |= {"images": images, "rows": options.rows, "workers": options.workers}
    code = (
        "from astrogenspec.distributed import run_survey\n"
        "if __name__ == '__main__':\n"
        f"    run_survey({str(folder / 'in.parquet')!r}, {str(output)!r}, **{settings})\n"
    )
    (folder / "run.py").write_text(code)
    here = str(Path(__file__).resolve().parent)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([here, *sys.path])}
    begin = time.monotonic()
    child = subprocess.Popen([sys.executable, str(folder / "run.py")], env=environment)
    memory: dict[int, list[float]] = {}
    while child.poll() is None:
        time.sleep(5)
        with suppress(psutil.Error):
            main = psutil.Process(child.pid)
            for process in main.children(recursive=True) if options.workers > 1 else [main]:
                if rss := process.memory_info().rss:
                    memory.setdefault(process.pid, []).append(rss / 1e6)
    wall = time.monotonic() - begin
    metrics = json.loads((output / "metrics.json").read_text())
    found = parquet.read_table(output / "data", columns=["has_image"])["has_image"]
    if not options.keep:
        shutil.rmtree(folder)
    return {
        "format": options.format,
        "galaxies": options.galaxies,
        "with_image": int(np.count_nonzero(found.to_numpy())),
        "workers": options.workers,
        "draws": options.draws,
        "seconds_to_write_images": written,
        "kB_of_images_per_galaxy": size / options.galaxies / 1e3,
        "seconds": wall,
        "galaxies_per_second": options.galaxies / wall,
        "galaxies_per_cpu_second": options.galaxies / metrics["cpu_seconds"],
        "memory_of_workers_in_quarters_of_the_run_MB": [
            [round(max(part)) for part in np.array_split(each, 4)]
            for each in memory.values()
            if len(each) > 3 and max(each) > 300
        ],
    }


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("format", choices=FORMATS)
    parser.add_argument("--galaxies", type=int, default=20_000)
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--rows", type=int, default=5_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--keep", action="store_true")
    print(json.dumps(measure(parser.parse_args()), indent=1))


if __name__ == "__main__":
    main()
