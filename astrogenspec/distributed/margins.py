"""Margins of a HATS catalogue: the galaxies near each pixel, from the result of its neighbours.

The margin of a pixel has the galaxies of other pixels within a distance of its border, for
cross-matches. Since the result for a galaxy does not depend on its partition, nothing is inferred
again: the rows are copied from the result of the pixels to which the galaxies belong.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from .hats import margin_of, pixel_folder, pixel_of, properties_text, result_properties

__all__ = ["PixelResults", "describe_collection", "margin_files", "margin_table"]

#: Order of the pixels by which HATS sorts galaxies.
_ORDER = 29
#: Number of results of pixels that are kept in memory.
_KEPT = 9


def margin_files(source: Path) -> dict[str, Path]:
    """List the files of the margin of a collection.

    Parameters
    ----------
    source : path
        Folder of a collection.

    Returns
    -------
    dict of str to path
        Files by the folder of their pixel, such as ``Norder=1/Dir=0/Npix=28``; empty if there is no
        margin.
    """
    margin = margin_of(source)
    if margin is None:
        return {}
    files = sorted((margin / "dataset").rglob("*.parquet"))
    return {str(pixel_folder(path.as_posix())): path for path in files if pixel_folder(str(path))}


class PixelResults:
    """Results by pixel, the last ones of which are kept in memory.

    Parameters
    ----------
    folder : path
        Folder ``dataset`` of the result.

    Attributes
    ----------
    owners : dict of tuple to str
        Folders of the pixels, by order and number.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        paths = sorted(folder.rglob("*.parquet"))
        folders = (str(pixel_folder(path.as_posix())) for path in paths)
        self.owners = {pixel_of(folder): folder for folder in folders}
        self.read = lru_cache(maxsize=_KEPT)(self._read)

    def _read(self, pixel: str) -> Any:
        """Read the result of the folder of a pixel."""
        import pyarrow as pa
        from pyarrow import parquet

        paths = sorted((self._folder / pixel).glob("*.parquet"))
        parts = [parquet.ParquetFile(path).read() for path in paths]
        return pa.concat_tables(each.replace_schema_metadata(None) for each in parts)


def margin_table(path: Path, result: PixelResults, ids: str, healpix: str) -> Any:
    """Return the result for the galaxies of a file of the margin.

    Parameters
    ----------
    path : path
        File of the margin of the catalogue.
    result : PixelResults
        The result.
    ids, healpix : str
        Columns of the identifiers and of HEALPix pixels of order 29.

    Returns
    -------
    `pyarrow.Table`
        Rows in order of their HEALPix pixels; galaxies that are not in the result are left out.
    """
    import pyarrow as pa
    from pyarrow import compute, parquet

    wanted = parquet.ParquetFile(path).read(columns=[ids, healpix])
    places = wanted[healpix].to_numpy()
    parts = []
    owners = result.owners
    for order in sorted({order for order, _ in owners}):
        pixels = places >> 2 * (_ORDER - order)
        for pixel in np.unique(pixels):
            folder = owners.get((order, int(pixel)))
            if folder is None:
                continue
            inside = pixels == pixel
            content = result.read(folder)
            chosen = compute.is_in(content[ids], value_set=wanted[ids].filter(pa.array(inside)))
            parts.append(content.filter(chosen))
    if not parts:
        return result.read(next(iter(owners.values())))[:0]
    return pa.concat_tables(parts).sort_by(healpix)


def describe_collection(
    source: Path, target: Path, rows: Mapping[str, int], common: bytes
) -> dict[Path, bytes]:
    """Return the files that make a result and its margin a collection.

    Parameters
    ----------
    source : path
        Folder of the collection of the catalogue.
    target : path
        Folder of the new collection.
    rows : mapping of str to int
        Number of rows of each pixel of the margin.
    common : bytes
        File ``_common_metadata`` of the result.

    Returns
    -------
    dict of path to bytes
    """
    margin = margin_of(source)
    if margin is None:
        return {}
    special = {
        "dataproduct_type": "margin",
        "hats_nrows": str(sum(rows.values())),
        "hats_primary_table_url": "data",
    }
    text = properties_text(result_properties(margin, special, ("hats_margin_threshold",)))
    pixels = [pixel_of(folder) for folder in sorted(rows)]
    table = "\n".join(["Norder,Npix", *(f"{order},{k}" for order, k in sorted(pixels))]) + "\n"
    links = {
        "obs_collection": f"{source.name}_posteriors",
        "hats_primary_table_url": "data",
        "all_margins": "margin",
        "default_margin": "margin",
        "hats_builder": "astrogenspec",
    }
    folder = target / "margin"
    return {
        folder / "dataset" / "_common_metadata": common,
        folder / "partition_info.csv": table.encode(),
        folder / "properties": text,
        folder / "hats.properties": text,
        target / "collection.properties": properties_text(links, "#HATS Collection"),
    }
