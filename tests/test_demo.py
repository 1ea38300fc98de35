"""The demonstration and its data."""

import numpy as np
import pytest
from astropy.table import QTable

from astrogenspec import BANDS, QUANTITIES, coerce_cutouts, coerce_photometry
from astrogenspec.demo import load_cutouts, load_galaxies, main


def test_galaxies_are_as_documented():
    table = load_galaxies()
    assert len(table) == len(set(table["name"])) == 24
    for band in BANDS:
        assert table[f"flux_{band}"].unit == table[f"flux_err_{band}"].unit == "nmgy"
        assert (table[f"flux_err_{band}"] > 0).all()
        assert table[f"extinction_{band}"].unit == "mag"
    assert ((table["z_spec"] > 0.01) & (table["z_spec"] < 0.33)).all()
    assert "Blanton" in table.meta["licence"]


def test_galaxies_are_valid_photometry():
    table = load_galaxies()
    batch = coerce_photometry(table)
    assert batch.names == tuple(table["name"])
    np.testing.assert_allclose(batch.flux[:, 2], table["flux_r"].value)
    np.testing.assert_allclose(batch.extinction[:, 4], table["extinction_z"].value)


def test_cutouts_are_as_documented():
    cutouts, truth = load_cutouts()
    assert len(cutouts) == len(truth) > 0
    assert set(QUANTITIES) <= set(truth.colnames)
    batch = coerce_cutouts(cutouts)
    assert not any(batch.problems)
    assert batch.bands_present[:, 1:4].all()


def test_demonstration_prints_and_writes_results(tmp_path, capsys):
    assert main(["--out", str(tmp_path / "new" / "demo")]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in load_galaxies()["name"])
    assert "0.2635 lies outside the 95% interval" in printed
    written = {path.name for path in (tmp_path / "new" / "demo").iterdir()}
    names = ["demo_spiral", "demo_edge_on", "demo_elliptical", "demo_faint"]
    assert list(QTable.read(tmp_path / "new" / "demo" / "cutouts.fits")["name"]) == names
    figures = {f"{name}_{kind}.png" for name in names for kind in ("corner", "image", "spectrum")}
    tables = {"galaxies.fits", "galaxies.ecsv", "cutouts.fits", "cutouts_spectra.fits"}
    assert written == figures | tables | {"galaxies_redshift.png"}
    assert all(name in printed for name in written)
    for name in ("galaxies.fits", "galaxies.ecsv"):
        table = QTable.read(tmp_path / "new" / "demo" / name)
        assert list(table["name"]) == list(load_galaxies()["name"])
        assert table["stellar_mass_median"].unit == QUANTITIES["stellar_mass"].unit


def test_help_describes_the_demonstration(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "24 real SDSS galaxies" in capsys.readouterr().out
