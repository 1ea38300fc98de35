import astropy.constants as const
import astropy.units as u
import numpy as np
import pytest
from astropy.utils.masked import Masked
from numpy.testing import assert_allclose, assert_array_equal
from speclite import filters

from astrogenspec.simulate.photometry import observed_filters
from astrogenspec.surveys import SDSS, Filter, Survey, get_survey
from astrogenspec.synthetic import band_coverage, pixel_edges, sampling_gaps, synthetic_flux
from astrogenspec.wavelengths import REST

FLUX_UNIT = u.Unit(1e-17 * u.erg / u.s / u.cm**2 / u.AA)
WIDE = 10 ** np.arange(3.4, 4.06, 1e-4) * u.AA
GENERATED = 10 ** (3.5798 + 1e-4 * np.arange(3841)) * u.AA


def flat(wavelength, magnitude=20.0):
    """Return the spectrum of a source with the same AB magnitude at all frequencies."""
    density = 10 ** (-0.4 * magnitude) * 3631 * u.Jy
    return (density * const.c / wavelength**2).to(FLUX_UNIT)


def test_flat_source_has_its_magnitude_in_every_band():
    flux = synthetic_flux(WIDE, flat(WIDE))
    assert flux.unit == u.nmgy
    assert_allclose(flux.to_value(u.ABmag, u.zero_point_flux(u.ABflux)), 20, atol=1e-4)
    assert_allclose(synthetic_flux(WIDE, flat(WIDE).to(u.Jy, u.spectral_density(WIDE))), flux)


def test_fluxes_agree_with_speclite():
    x = WIDE.value / 6000
    values = (20 * x**-1.3 + 3 * np.sin(40 * x)) * FLUX_UNIT
    ours = synthetic_flux(WIDE, values)
    for band, flux in zip(SDSS.bands, ours, strict=True):
        maggies = filters.load_filter(f"sdss2010-{band}").get_ab_maggies(
            values.to(u.erg / u.s / u.cm**2 / u.AA), WIDE
        )
        # speclite integrates over the 20 A steps of its curves
        assert_allclose(flux.value, 1e9 * float(maggies), rtol=1e-3)


def test_fluxes_agree_with_the_simulator():
    x = REST.wavelength / 6000
    values = 20 * x**-1.3 + 3 * np.sin(40 * x)
    theirs = values @ observed_filters(REST).double().numpy()
    ours = synthetic_flux(REST.wavelength * u.AA, values * FLUX_UNIT, bands=["g", "r", "i"])
    assert_allclose(ours.value, theirs[1:4], rtol=2e-4)


def test_coarse_and_fine_grids_agree():
    coarse = np.geomspace(2800, 11400, 400) * u.AA
    fine = synthetic_flux(WIDE, 20 * (WIDE / (6000 * u.AA)) ** -1.3 * FLUX_UNIT)
    assert_allclose(
        synthetic_flux(coarse, 20 * (coarse / (6000 * u.AA)) ** -1.3 * FLUX_UNIT), fine, rtol=1e-3
    )


def test_uncovered_bands_are_nan():
    flux = synthetic_flux(GENERATED, np.ones((2, 3, len(GENERATED)), np.float32) * FLUX_UNIT)
    assert flux.shape == (2, 3, 5)
    assert_array_equal(np.isnan(flux[0, 0]), [True, False, False, False, True])
    coverage = band_coverage(GENERATED)
    assert_allclose(coverage, [0.126, 0.999, 1, 1, 0.769], atol=0.001)
    assert_allclose(synthetic_flux(GENERATED, flat(GENERATED)).value[1:4], 10, rtol=1e-4)


def test_missing_pixels_count_as_not_covered():
    values = np.full((3, len(WIDE)), 20.0)
    values[1, np.abs(WIDE.value - 4700) < 100] = np.nan
    values[2] = np.nan
    flux = synthetic_flux(WIDE, values * FLUX_UNIT)
    assert_array_equal(np.isnan(flux).sum(axis=1), [0, 1, 5])
    assert np.isnan(flux[1, 1])
    assert_allclose(flux[1, [0, 2, 3, 4]].value, flux[0, [0, 2, 3, 4]].value, rtol=2e-4)
    # one missing pixel does not change the flux of a flat source
    values[0, np.argmin(np.abs(WIDE.value - 6200))] = np.nan
    part = synthetic_flux(WIDE, flat(WIDE) * np.where(np.isnan(values[0]), np.nan, 1))
    assert_allclose(part.value, 10, rtol=1e-4)


@pytest.mark.parametrize("zeros", [slice(0, 2500), slice(-1500, None), slice(3000, 3200)])
def test_zeros_for_missing_data_are_not_covered(zeros):
    values = np.tile(flat(WIDE), (3, 1))
    values[1, zeros] = 0
    values[2, 3000] = 0
    missing = np.tile(flat(WIDE), (3, 1))
    missing[1, zeros] = np.nan
    expected = synthetic_flux(WIDE, missing)
    assert np.isnan(expected[1]).any() and np.isfinite(expected[[0, 2]]).all()
    found = synthetic_flux(WIDE, values)
    assert_array_equal(found[:2].value, expected[:2].value)
    assert_allclose(found[2], expected[2], rtol=2e-3)
    assert (values[1, zeros] == 0).all()
    assert (synthetic_flux(WIDE, 0 * values) == 0).all()
    # A model that is really zero has a small number there.
    values[1, zeros] = 1e-30 * FLUX_UNIT
    assert np.isfinite(synthetic_flux(WIDE, values)).all()


def test_pixels_cut_out_are_not_covered():
    gap = (GENERATED.value > 5600) & (GENERATED.value < 6700)
    flux = flat(GENERATED)
    missing = np.where(gap, np.nan, 1)
    cut = synthetic_flux(GENERATED[~gap], flux[~gap], bands=["g", "r", "i"])
    assert_allclose(
        cut, synthetic_flux(GENERATED, flux * missing, bands=["g", "r", "i"]), rtol=1e-6
    )
    assert np.isnan(cut[1]) and np.isfinite(cut[0])
    coverage = band_coverage(GENERATED[~gap], bands=["r"])
    assert 0.05 < coverage[0] < 0.1
    # The telluric A band covers 2% of i.
    gap = np.abs(GENERATED.value - 7620) < 20
    assert band_coverage(GENERATED[~gap], bands=["i"])[0] == pytest.approx(0.98, abs=0.01)
    assert np.isnan(synthetic_flux(GENERATED[~gap], flux[~gap], bands=["i"])[0])


@pytest.mark.parametrize(
    "grid",
    [
        np.geomspace(3000, 11000, 300),
        np.linspace(3000, 11000, 300),
        1e8 / np.linspace(1e8 / 3000, 1e8 / 11000, 300),
        np.concatenate([np.arange(3000, 5600, 1.0), np.arange(5601.5, 11000, 2.5)]),
    ],
)
def test_smooth_sampling_has_no_gaps(grid):
    assert len(sampling_gaps(np.sort(grid))[0]) == 0
    assert_allclose(band_coverage(np.sort(grid) * u.AA)[1:4], 1, atol=1e-6)


def test_gaps_and_steps_beside_them():
    grid = np.delete(np.arange(4000.0, 5000.0, 2.0), [100, *range(200, 230)])
    index, before, after = sampling_gaps(grid)
    assert index.tolist() == [99, 198]
    assert before.tolist() == after.tolist() == [2.0, 2.0]


def test_masked_pixels_are_missing():
    values = flat(GENERATED).to(u.Jy, u.spectral_density(GENERATED))
    mask = np.abs(GENERATED.value - 6200) < 100
    for unit in (u.Jy, FLUX_UNIT):
        flux = values.to(unit, u.spectral_density(GENERATED))
        found = synthetic_flux(GENERATED, Masked(flux, mask=mask), bands=["g", "r"])
        assert found[0].value == pytest.approx(10, rel=1e-4) and np.isnan(found[1])


def test_some_bands_of_a_survey():
    source = flat(GENERATED)
    assert_allclose(
        synthetic_flux(GENERATED, source, "sdss", ["i", "g"]),
        synthetic_flux(GENERATED, source, SDSS)[[3, 1]],
    )


def test_blocks_do_not_change_the_fluxes(monkeypatch):
    values = np.random.default_rng(1).normal(20, 1, (7, len(GENERATED))) * FLUX_UNIT
    whole = synthetic_flux(GENERATED, values)
    monkeypatch.setattr("astrogenspec.synthetic._BLOCK", 2 * len(GENERATED))
    assert_allclose(synthetic_flux(GENERATED, values), whole)
    assert synthetic_flux(GENERATED, values[:0]).shape == (0, 5)


def test_edges_are_between_the_pixels():
    grid = GENERATED.value
    edges = pixel_edges(grid)
    assert len(edges) == len(grid) + 1
    assert (edges[:-1] < grid).all() and (edges[1:] > grid).all()
    assert_allclose(np.diff(np.log10(edges)), 1e-4)


@pytest.mark.parametrize(
    ("wavelength", "flux", "kwargs", "error", "message"),
    [
        (GENERATED.value, flat(GENERATED), {}, TypeError, "wavelength is a ndarray"),
        (GENERATED, flat(GENERATED).value, {}, TypeError, "flux is a ndarray"),
        (GENERATED, flat(GENERATED)[:-1], {}, ValueError, r"shape \(3840,\).*3841 pixels"),
        (GENERATED[::-1], flat(GENERATED), {}, ValueError, "strictly increasing"),
        (GENERATED[:1], flat(GENERATED)[:1], {}, ValueError, "at least two pixels"),
        (GENERATED.value * u.s, flat(GENERATED), {}, u.UnitConversionError, "wavelength has the"),
        (GENERATED, flat(GENERATED).value * u.K, {}, u.UnitConversionError, "flux has the unit"),
        (
            GENERATED,
            flat(GENERATED),
            {"bands": ["y"]},
            ValueError,
            "unknown band 'y'; choose from u, g, r, i, z",
        ),
        (GENERATED, flat(GENERATED), {"bands": []}, ValueError, "bands is empty"),
        (GENERATED, flat(GENERATED), {"survey": "x"}, ValueError, "known surveys are"),
    ],
)
def test_invalid_input_raises(wavelength, flux, kwargs, error, message):
    with pytest.raises(error, match=message):
        synthetic_flux(wavelength, flux, **kwargs)


@pytest.mark.parametrize("name", ["des", "panstarrs", "lsst", "2mass"])
def test_flat_spectra_have_the_same_flux_in_all_surveys(name):
    wavelength = np.geomspace(3000, 26000, 20_000) * u.AA
    flux = np.full(20_000, 3.631e-6) * u.Jy
    fluxes = synthetic_flux(wavelength, flux, name).to_value(u.nmgy)
    assert fluxes == pytest.approx(np.ones(len(get_survey(name).bands)), rel=1e-5)


def test_filters_of_a_survey_from_curves():
    """A top hat gives the mean of the photon-weighted flux."""
    curve = Filter("box-x", "x", [4999.9, 5000, 6000, 6000.1], [0, 1, 1, 0])
    box = Survey("box", ("x",), {"x": "box-x"}, curves={"x": curve})
    wavelength = np.arange(4000, 7000, 0.5) * u.AA
    flux = (wavelength.value / 5500) ** 2 * u.Unit("1e-17 erg s-1 cm-2 AA-1")
    # Ratio of the integrals of wavelength^3 and of 1 / wavelength, each over the band.
    ratio = (6000**4 - 5000**4) / 4 / 5500**2 / np.log(6000 / 5000)
    light = 2.99792458e18
    wanted = ratio * 1e-17 / (3.631e-20 * light) * 1e9
    found = synthetic_flux(wavelength, flux, box).to_value(u.nmgy)
    assert found == pytest.approx([wanted], rel=1e-4)
