"""HATS catalogues: their files, and the description of a result that is one.

HATS (Hierarchical Adaptive Tiling Scheme) divides a catalogue by position: each file of parquet has
the galaxies of one pixel of HEALPix. The result of a HATS catalogue is one as well, with the same
pixels, and a folder for each pixel (``hats_npix_suffix=/``), which LSDB opens.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

__all__ = [
    "catalogue_root",
    "describe_catalogue",
    "hats_columns",
    "hats_properties",
    "margin_of",
    "pixel_folder",
    "pixel_of",
    "properties_text",
    "result_properties",
]

_PIXEL = re.compile(r"Norder=(\d+)/Dir=\d+/Npix=(\d+)(?=[./])")
_NAMES = ("hats.properties", "properties")
#: Columns of positions and of HEALPix, by the properties that name them.
_COLUMNS = ("hats_col_ra", "hats_col_dec", "hats_col_healpix")
#: Properties of a catalogue that are true of its result as well.
_KEPT = (*_COLUMNS, "hats_col_healpix_order", "hats_order", "hats_skymap_order", "moc_sky_fraction")


def hats_properties(folder: Path) -> dict[str, str]:
    """Read the properties of a HATS catalogue.

    Parameters
    ----------
    folder : path
        Folder of the catalogue.

    Returns
    -------
    dict of str to str
        Empty if it is no HATS catalogue.
    """
    for name in _NAMES:
        found = _read(folder / name)
        if "dataproduct_type" in found:
            return found
    return {}


def _read(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    pairs = (line.partition("=") for line in lines if "=" in line and line[0] not in "#!")
    return {key.strip(): value.strip() for key, _, value in pairs}


def catalogue_root(source: Path) -> Path:
    """Return the folder of the catalogue of a collection, or the folder itself.

    Parameters
    ----------
    source : path
        Folder of a catalogue, or of a collection of a catalogue and its margins.

    Returns
    -------
    path
    """
    primary = _read(source / "collection.properties").get("hats_primary_table_url")
    return source / primary if primary else source


def margin_of(source: Path) -> Path | None:
    """Return the folder of the margin of a collection.

    Parameters
    ----------
    source : path
        Folder of a collection, or of a catalogue.

    Returns
    -------
    path or None
        None if there is no margin.
    """
    found = _read(source / "collection.properties")
    name = found.get("default_margin") or found.get("all_margins", "").split(" ")[0]
    return source / name if name and (source / name).is_dir() else None


def hats_columns(folder: Path) -> tuple[str, ...]:
    """Return the columns of positions and HEALPix pixels, which the result needs."""
    properties = hats_properties(folder)
    return tuple(properties[name] for name in _COLUMNS if properties.get(name))


def pixel_folder(path: str) -> str | None:
    """Return the folder of the pixel of a file, such as ``Norder=1/Dir=0/Npix=28``.

    Parameters
    ----------
    path : str
        Path of a file of a catalogue.

    Returns
    -------
    str or None
        None if the path has no pixel.
    """
    found = _PIXEL.search(path)
    return None if found is None else found.group()


def pixel_of(folder: str) -> tuple[int, int]:
    """Return order and number of the pixel of a folder such as ``Norder=1/Dir=0/Npix=28``."""
    found = _PIXEL.search(folder + "/")
    if found is None:
        raise ValueError(f"{folder} is no folder of a pixel.")
    return int(found[1]), int(found[2])


def result_properties(
    source: Path, special: Mapping[str, str], kept: tuple[str, ...] = ()
) -> dict[str, str]:
    """Return the properties of a result.

    Parameters
    ----------
    source : path
        Folder of the catalogue whose pixels these are.
    special : mapping of str to str
        Properties of the result.
    kept : tuple of str
        Further properties that are those of the catalogue.

    Returns
    -------
    dict of str to str
    """
    old = hats_properties(source)
    return {
        "obs_collection": f"{old.get('obs_collection', source.name)}_posteriors",
        **special,
        **{name: old[name] for name in (*_KEPT, *kept) if name in old},
        "hats_npix_suffix": "/",
        "hats_builder": "astrogenspec",
        "hats_creation_date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%MUTC"),
        "hats_version": old.get("hats_version", "v1.0"),
    }


def properties_text(properties: Mapping[str, str], title: str = "#HATS catalog") -> bytes:
    """Return a file of properties."""
    lines = [title, *(f"{key}={value}" for key, value in properties.items())]
    return ("\n".join(lines) + "\n").encode()


def describe_catalogue(
    source: Path, target: Path, folders: Iterable[str], n_rows: int, schema: Any
) -> Mapping[Path, bytes]:
    """Return the files that make a folder of pixels a HATS catalogue.

    Parameters
    ----------
    source : path
        Folder of the catalogue whose pixels these are.
    target : path
        Folder of the new catalogue.
    folders : iterable of str
        Folders of its pixels.
    n_rows : int
        Number of its rows.
    schema : `pyarrow.Schema`
        Its columns.

    Returns
    -------
    dict of path to bytes
    """
    import pyarrow as pa
    from pyarrow import parquet

    special = {"dataproduct_type": "object", "hats_nrows": str(n_rows)}
    text = properties_text(result_properties(source, special))
    pixels = sorted({(int(order), int(k)) for f in folders for order, k in _PIXEL.findall(f + "/")})
    table = "\n".join(["Norder,Npix", *(f"{order},{k}" for order, k in pixels)]) + "\n"
    buffer = pa.BufferOutputStream()
    parquet.write_metadata(schema.remove_metadata(), buffer)
    return {
        target / "dataset" / "_common_metadata": buffer.getvalue().to_pybytes(),
        target / "partition_info.csv": table.encode(),
        **{target / name: text for name in reversed(_NAMES)},
    }
