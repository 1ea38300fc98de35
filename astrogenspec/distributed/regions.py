"""Regions of a finished run as one table for TOPCAT, Aladin and astropy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import Table

from ..atomic import atomic_write
from ..inputs.arrow_tables import arrow_units
from ..results.exchange import plain_column
from .hats import hats_properties
from .manifest import Manifest, ManifestError

__all__ = ["export_region"]

_FORMATS = {
    ".vot": "votable",
    ".xml": "votable",
    ".fits": "fits",
    ".fit": "fits",
    ".ecsv": "ascii.ecsv",
    ".csv": "ascii.csv",
}
#: Names of positions, where there is no HATS catalogue that tells them.
_POSITIONS = (("ra", "dec"), ("RA", "DEC"), ("coord_ra", "coord_dec"), ("raMean", "decMean"))


def export_region(
    output: str | Path,
    path: str | Path,
    center: SkyCoord,
    radius: u.Quantity,
    *,
    overwrite: bool = False,
) -> int:
    """Write the galaxies of a cone to one table.

    Parameters
    ----------
    output : path-like
        Output folder of a run, whose result has positions.
    path : path-like
        File to write; the ending selects VOTable (``.vot``, ``.xml``), FITS, ECSV or CSV.
    center : `~astropy.coordinates.SkyCoord`
        Centre of the cone.
    radius : Quantity ['angle']
        Radius of the cone.
    overwrite : bool
        Replace an existing file.

    Returns
    -------
    int
        Number of galaxies. Nested quantiles and draws are left out.

    Raises
    ------
    astrogenspec.distributed.ManifestError
        If the folder has no run.
    ValueError
        If the ending is unknown, or the result has no positions.
    OSError
        If a file cannot be read or written; no partial file is left.
    """
    target = Path(path).expanduser()
    form = next((f for e, f in _FORMATS.items() if target.name.lower().endswith(e)), None)
    if form is None:
        raise ValueError(f"{target.name} must end in one of {', '.join(_FORMATS)}.")
    content = _in_cone(Path(output), center.icrs, radius)
    table, units = Table(), arrow_units(content.schema)
    table.meta["description"] = "Posteriors of galaxy properties (astrogenspec)"
    for name in content.column_names:
        values = content[name].to_numpy()
        if values.dtype == object:
            values = np.array(["" if value is None else str(value) for value in values])
        column: Any = values
        if name in units:
            column = plain_column(u.Quantity(values, units[name], subok=True))
        table[name] = column
    with atomic_write(target, overwrite=overwrite) as temporary:
        table.write(temporary, format=form)
    return len(table)


def _in_cone(output: Path, center: SkyCoord, radius: u.Quantity) -> Any:
    """Read the rows within a cone; statistics of the files tell which parts are read."""
    import pyarrow as pa
    from pyarrow import dataset

    if Manifest.read(output) is None:
        raise ManifestError(f"{output} has no manifest: no run began there.")
    folder = output / "data"
    files = sorted(str(path) for path in folder.rglob("*.parquet"))
    if not files:
        raise FileNotFoundError(f"{folder} has no result yet.")
    found = dataset.dataset(files, format="parquet")
    ra, dec = _position_columns(folder, found.schema.names)
    size = radius.to_value(u.deg)
    lower, upper = center.dec.deg - size, center.dec.deg + size
    columns = [field.name for field in found.schema if not pa.types.is_nested(field.type)]
    near = (dataset.field(dec) >= lower) & (dataset.field(dec) <= upper)
    if lower > -90 and upper < 90:
        # Half the width in right ascension of a cone that does not contain a pole.
        width = np.degrees(np.arcsin(np.sin(np.radians(size)) / np.cos(center.dec.rad)))
        first, last = (center.ra.deg - width) % 360, (center.ra.deg + width) % 360
        east, west = dataset.field(ra) >= first, dataset.field(ra) <= last
        if 2 * width < 360:
            near &= (east & west) if first <= last else (east | west)
    content = found.to_table(columns=columns, filter=near)
    sky = SkyCoord(content[ra].to_numpy(), content[dec].to_numpy(), unit="deg")
    return content.filter(pa.array(sky.separation(center) <= radius))


def _position_columns(folder: Path, names: list[str]) -> tuple[str, str]:
    properties = hats_properties(folder)
    if "hats_col_ra" in properties:
        return properties["hats_col_ra"], properties["hats_col_dec"]
    for ra, dec in _POSITIONS:
        if ra in names and dec in names:
            return ra, dec
    raise ValueError("the result has no positions; begin the run with keep ra,dec.")
