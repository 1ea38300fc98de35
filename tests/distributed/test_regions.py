"""Cones of a finished run as tables for other tools."""

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import Table
from survey_run_cases import SETTINGS, make_catalogue, make_weights, write_parquet

from astrogenspec.distributed import ManifestError, export_region, run_survey


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Infer galaxies around a meridian and a pole."""
    folder = tmp_path_factory.mktemp("regions")
    rng = np.random.default_rng(4)
    table = make_catalogue(30)
    table["ra"] = np.concatenate([rng.uniform(-2, 2, 20) % 360, rng.uniform(0, 360, 10)])
    table["dec"] = np.concatenate([rng.uniform(-2, 2, 20), rng.uniform(87, 90, 10)])
    write_parquet(table, folder / "in.parquet")
    run_survey(
        folder / "in.parquet",
        folder / "out",
        workers=1,
        rows=11,
        weights=make_weights(folder),
        **SETTINGS,
    )
    return folder, table


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("ra", "dec", "radius"), [(0.1, 0.0, 1.0), (359.5, 0.5, 1.2), (10, 89, 2)])
@pytest.mark.parametrize("ending", ["vot", "fits", "ecsv"])
def test_galaxies_of_a_cone(finished, tmp_path, ra, dec, radius, ending):
    folder, table = finished
    center, path = SkyCoord(ra, dec, unit="deg"), tmp_path / f"cone.{ending}"
    n = export_region(folder / "out", path, center, radius * u.deg)
    inside = SkyCoord(table["ra"], table["dec"], unit="deg").separation(center) <= radius * u.deg
    found = Table.read(path)
    assert n == len(found) == inside.sum() > 0
    assert sorted(found["object_id"]) == sorted(table["object_id"][inside])
    assert "redshift_median" in found.colnames and "redshift_20" not in found.colnames
    with pytest.raises(FileExistsError):
        export_region(folder / "out", path, center, radius * u.deg)


def test_regions_that_cannot_be_written(finished, tmp_path):
    folder, table = finished
    center = SkyCoord(0, 0, unit="deg")
    with pytest.raises(ValueError, match="must end in one of .vot"):
        export_region(folder / "out", tmp_path / "a.txt", center, 1 * u.deg)
    with pytest.raises(ManifestError, match="no run began there"):
        export_region(folder, tmp_path / "a.vot", center, 1 * u.deg)
    write_parquet(table[:3], tmp_path / "in.parquet")
    settings = {**SETTINGS, "keep": (), "weights": make_weights(tmp_path), "workers": 1}
    run_survey(tmp_path / "in.parquet", tmp_path / "out", **settings)
    with pytest.raises(ValueError, match="no positions; begin the run with keep ra,dec"):
        export_region(tmp_path / "out", tmp_path / "a.vot", center, 1 * u.deg)
