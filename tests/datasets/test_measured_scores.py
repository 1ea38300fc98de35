"""Measurements on generated against those on observed spectra."""

import numpy as np
import pytest

from astrogenspec.datasets.measured_scores import MAX_ERRORS, PUBLISHED, measured_scores
from astrogenspec.measure.templates import stellar_templates, templates_available
from astrogenspec.wavelengths import GENERATED, LINES

pytestmark = pytest.mark.skipif(not templates_available(), reason="needs the extra simulate")
REDSHIFT = np.array([0.05, 0.08, 0.1])


def spectra(lines=(30.0, 10.0, 12.0, 15.0)):
    """An old and a young population with emission lines, at three redshifts."""
    templates = stellar_templates()
    weights = np.where(templates.stellar, 1.0, 0.0)
    rows = []
    for z in REDSHIFT:
        stars = templates.observed(GENERATED.start, GENERATED.size, z, 180.0, weights)
        flux = 10 * stars / np.nanmedian(stars)
        for name, strength in zip(("Halpha", "Hbeta", "NII6585", "OIII5008"), lines, strict=True):
            width = GENERATED.wavelength * 100 / 299792.458
            centre = LINES[name] * (1 + z)
            profile = np.exp(-0.5 * ((GENERATED.wavelength - centre) / width) ** 2)
            flux = flux + strength * profile
        rows.append(flux)
    return np.array(rows)


def test_equal_spectra_have_equal_measurements():
    flux = spectra()
    rng = np.random.default_rng(0)
    noisy = flux + 0.05 * rng.standard_normal(flux.shape)
    ivar = np.full(flux.shape, 0.05**-2)
    table = measured_scores(noisy, noisy, ivar, REDSHIFT, REDSHIFT, 3)
    rows = {row["what"]: row for row in table}
    for what in MAX_ERRORS:
        assert rows[what]["n"] >= 2
        assert rows[what]["rmse"] == pytest.approx(0, abs=0.02 * abs(rows[what]["median"]) + 0.02)
    assert rows["Dn4000"]["n"] == 3 and rows["Mgb"]["rmse"] == pytest.approx(0, abs=1e-6)
    accuracy = rows["accuracy of the BPT class"]
    assert accuracy["n"] == 3 and accuracy["accuracy"] == 1.0 and accuracy["published"] == 0.82
    assert (
        rows["velocity dispersion (km/s)"]["published"] == PUBLISHED["velocity dispersion (km/s)"]
    )


def test_wrong_classes_count():
    observed, other = spectra(), spectra((30.0, 10.0, 40.0, 80.0))
    ivar = np.full(observed.shape, 0.05**-2)
    table = measured_scores(other, observed, ivar, REDSHIFT, REDSHIFT, 3)
    row = next(row for row in table if row["what"] == "accuracy of the BPT class")
    assert row["n"] == 3 and row["accuracy"] == 0.0


def test_without_fits():
    flux = spectra()
    table = measured_scores(flux, flux, np.full(flux.shape, 4.0), REDSHIFT, REDSHIFT, 0)
    assert not set(table["what"]) & set(MAX_ERRORS)
