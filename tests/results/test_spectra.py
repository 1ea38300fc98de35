import copy
import pickle

import astropy.units as u
import numpy as np
import pytest
from astropy.nddata import StdDevUncertainty
from astropy.table import QTable
from astropy.uncertainty import Distribution
from numpy.testing import assert_allclose, assert_array_equal
from spectrum_cases import HALPHA, assert_same, flux_of, line, log_grid, some_spectra
from specutils import SpectralRegion, Spectrum, SpectrumCollection, SpectrumList
from specutils.analysis import line_flux
from specutils.manipulation import extract_region

from astrogenspec.flags import Flag
from astrogenspec.measure import measure_indices
from astrogenspec.measure.inputs import spectrum_arrays
from astrogenspec.results.spectra import FLUX_UNIT, RESOLVING_POWER, SpectrumDraws, SpectrumWriter
from astrogenspec.warnings import AstroGenSpecWarning


@pytest.fixture
def spectra():
    return some_spectra()


@pytest.fixture
def one():
    return some_spectra(1, bad=None)


def with_lines(redshift, *, flux=50.0, sigma=1.5, n_pixels=3841, **kwargs):
    """Return a galaxy whose draws are a rising continuum and Halpha at their redshifts."""
    grid = log_grid(n_pixels)
    draws = [
        grid.value / 1000 + line(grid, HALPHA * (1 + z), flux, sigma) for z in np.ravel(redshift)
    ]
    return SpectrumDraws(np.array([draws]) * FLUX_UNIT, grid, np.atleast_2d(redshift), **kwargs)


def moments(wavelength, values):
    """Return flux, centroid and width (pixels of 1e-4 dex) of a line without continuum."""
    pixel = np.log10(wavelength.value) / 1e-4
    weight = values * wavelength.value
    centre = (weight * pixel).sum() / weight.sum()
    width = np.sqrt((weight * (pixel - centre) ** 2).sum() / weight.sum())
    return flux_of(wavelength, values), centre, width


# ---- construction


def test_attributes_equal_the_arguments(spectra):
    assert (len(spectra), spectra.n_galaxies, spectra.n_draws) == (4, 4, 6)
    assert spectra.flux.shape == (4, 6, 300)
    assert spectra.flux.unit == FLUX_UNIT
    assert spectra.flux.dtype == np.float32
    assert spectra.wavelength.unit == u.AA
    assert_allclose(spectra.weights.sum(axis=1), 1)
    assert_array_equal(spectra.usable, [True, True, False, True])
    assert spectra.names == ("galaxy 0", "galaxy 1", "galaxy 2", "galaxy 3")
    assert spectra.flags == ("", "", "no flux in any band", "")
    assert spectra.meta["seed"] == 0


def test_optional_arguments_have_defaults():
    plain = SpectrumDraws(np.ones((2, 3, 4)) * FLUX_UNIT, log_grid(4), np.zeros((2, 3)))
    assert_allclose(plain.weights, 1 / 3)
    assert plain.trusted.all()
    assert (plain.posterior_draw == -1).all()
    assert plain.photometric_residual is None
    assert plain.names == ("0", "1")
    assert plain.resolving_power == RESOLVING_POWER


def test_units_are_converted():
    density = 1e-17 * u.erg / u.s / u.cm**2 / u.AA
    given = np.full((1, 1, 4), 3.0) * density
    wavelength = log_grid(4)
    wanted = SpectrumDraws(given, wavelength, [[0.1]])
    for flux in (
        given.to(u.W / u.m**2 / u.nm),
        given.to(u.uJy, u.spectral_density(wavelength)),
    ):
        other = SpectrumDraws(flux, wavelength.to(u.um), [[0.1]])
        assert_allclose(other.flux.value, wanted.flux.value, rtol=1e-6)
        assert_allclose(other.wavelength.value, wavelength.value, rtol=1e-12)


def test_weights_are_normalised_and_zero_for_missing_draws():
    flux = np.ones((2, 3, 4))
    flux[0, 1] = np.nan
    redshift = np.full((2, 3), 0.1)
    made = SpectrumDraws(
        flux * FLUX_UNIT, log_grid(4), redshift, weights=[[2, np.nan, 6], [1, 1, 2]]
    )
    assert_allclose(made.weights, [[0.25, 0, 0.75], [0.25, 0.25, 0.5]])
    assert_array_equal(np.isnan(made.redshift), [[False, True, False], [False] * 3])
    equal = SpectrumDraws(flux * FLUX_UNIT, log_grid(4), redshift)
    assert_allclose(equal.weights[0], [0.5, 0, 0.5])


def test_numbers_of_posterior_draws():
    flux = np.ones((2, 3, 400))
    flux[0, 1] = np.nan
    made = SpectrumDraws(
        flux * FLUX_UNIT,
        log_grid(400),
        np.full((2, 3), 0.001),
        weights=[[1, 1, 3], [3, 1, 1]],
        posterior_draw=np.array([[7, 5, 2], [0, -1, 9]], dtype=np.int16),
    )
    assert_array_equal(made.posterior_draw, [[7, -1, 2], [0, -1, 9]])
    for other in (made.rest_frame(), made.degrade(900), SpectrumDraws.concatenate(made)):
        assert_array_equal(other.posterior_draw, made.posterior_draw)
    assert [best.meta["posterior_draw"] for best in made.best] == [2, 0]
    assert [s.meta["posterior_draw"] for s in made[1].to_collection()] == [0, None, 9]
    assert_array_equal(made[0].draws.meta["posterior_draw"], [7, -1, 2])
    seen = made[0].measure(lambda spectrum: float(spectrum.meta["posterior_draw"]))
    assert set(seen.distribution.ravel()) == {7, 2}
    with pytest.raises(ValueError, match="read-only"):
        made.posterior_draw[0, 0] = 1


def test_masked_pixels_become_nan():
    from astropy.utils.masked import Masked

    flux = Masked(np.ones((1, 2, 3)) * FLUX_UNIT, mask=[[[False, True, False], [False] * 3]])
    made = SpectrumDraws(flux, log_grid(3), [[0.1, 0.1]])
    assert_array_equal(np.isnan(made.flux.value[0]), [[False, True, False], [False] * 3])


ONES = np.ones((2, 3, 4)) * FLUX_UNIT
GOOD = {"flux": ONES, "wavelength": log_grid(4), "redshift": np.full((2, 3), 0.1)}
INFINITE = np.where(np.arange(4) == 3, np.inf, ONES.value) * FLUX_UNIT


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (
            {"flux": ONES.value},
            TypeError,
            "flux is of type ndarray, without a unit; .*flux density",
        ),
        ({"flux": ONES.value * u.m}, u.UnitConversionError, "flux has the unit 'm'"),
        ({"flux": ONES.value * u.erg}, u.UnitConversionError, "flux has the unit 'erg'"),
        ({"flux": ONES[0]}, ValueError, r"flux has shape \(3, 4\); expected \(n_galaxies"),
        ({"flux": ONES[:, :0]}, ValueError, "at least one draw"),
        ({"flux": ONES[:, :, :3]}, ValueError, "flux has 3 pixels per spectrum.*4 wavelengths"),
        ({"flux": INFINITE}, ValueError, "infinite values, the first in galaxy 0"),
        (
            {"wavelength": log_grid(4).value},
            TypeError,
            "wavelength is of type ndarray, without a unit",
        ),
        ({"wavelength": [1, 2, 3, 4] * u.s}, u.UnitConversionError, "wavelength has the unit 's'"),
        ({"wavelength": [[1, 2, 3, 4]] * u.AA}, ValueError, r"wavelength has shape \(1, 4\)"),
        ({"wavelength": [1] * u.AA}, ValueError, "at least two pixels"),
        (
            {"wavelength": [4, 3, 2, 1] * u.AA},
            ValueError,
            "does not increase from pixel 0 .4 AA. to 1",
        ),
        ({"wavelength": [1, 2, 2, 3] * u.AA}, ValueError, "does not increase from pixel 1"),
        ({"wavelength": [1, 2, np.nan, 3] * u.AA}, ValueError, "not positive numbers"),
        ({"wavelength": [-1, 2, 3, 4] * u.AA}, ValueError, "not positive numbers"),
        (
            {"redshift": [0.1, 0.2]},
            ValueError,
            r"redshift has shape \(2,\), but \(2, 3\) is expected",
        ),
        ({"redshift": np.full((2, 3), np.nan)}, ValueError, "galaxy 0, draw 0, is nan"),
        ({"redshift": np.full((2, 3), -1.0)}, ValueError, "above -1"),
        ({"redshift": np.ones((2, 3)) * u.km}, u.UnitConversionError, "redshift has the unit"),
        ({"weights": np.ones(3)}, ValueError, r"weights has shape \(3,\)"),
        ({"weights": -np.ones((2, 3))}, ValueError, "draw 0, is -1; .*not negative"),
        ({"weights": np.full((2, 3), np.nan)}, ValueError, "is nan"),
        ({"weights": [[1, 1, 1], [0, 0, 0]]}, ValueError, "weights of galaxy 1 are all zero"),
        ({"names": ["a"]}, ValueError, "names has 1 entries.*2 galaxies"),
        ({"flags": "ab"}, TypeError, "flags is a single string"),
        ({"photometric_residual": np.ones((2, 3))}, ValueError, r"\(2, 3, 5\) is expected"),
        ({"photometric_residual": np.ones((2, 3, 5)) * u.m}, u.UnitConversionError, "'m'"),
        ({"trusted": np.ones((2, 4))}, TypeError, "trusted has dtype float64"),
        ({"trusted": np.ones((2, 3), bool)}, ValueError, r"trusted has shape \(2, 3\)"),
        ({"posterior_draw": np.ones((2, 3))}, TypeError, "posterior_draw has dtype float"),
        ({"posterior_draw": np.arange(3)}, ValueError, r"posterior_draw has shape \(3,\)"),
        ({"posterior_draw": np.full((2, 3), -2)}, ValueError, "posterior_draw contains -2"),
        ({"line_flux": np.ones((2, 3))}, TypeError, "line_flux is of type ndarray; a mapping"),
        ({"line_flux": {"oi6300": [1.0, 2.0]}}, ValueError, r"line_flux\['oi6300'\] has shape"),
        ({"line_flux": {"oi6300": np.ones((2, 3)) * u.m}}, u.UnitConversionError, "oi6300"),
        ({"line_flux": {"[O I]": np.ones((2, 3))}}, ValueError, r"the name '\[O I\]'"),
    ],
)
def test_invalid_arguments_raise_an_error(change, kind, message):
    with pytest.raises(kind, match=message):
        SpectrumDraws(**(GOOD | change))


# ---- nothing changes


def test_attributes_are_read_only(spectra):
    for name in ("flux", "wavelength", "redshift", "weights", "trusted", "best_draw"):
        values = getattr(spectra[0], name)
        with pytest.raises(ValueError, match="read-only"):
            values[(0,) * values.ndim] = values[(0,) * values.ndim]
    with pytest.raises(ValueError, match="read-only"):
        spectra.photometric_residual[0, 0, 0] = 1 * u.mag
    with pytest.raises(TypeError):
        spectra.meta["a"] = 1
    with pytest.raises(AttributeError):
        spectra.names = ["x"]


def test_arguments_and_returned_spectra_are_copies():
    flux, redshift, meta = np.ones((1, 2, 3)) * FLUX_UNIT, np.zeros((1, 2)), {"seed": 1}
    made = SpectrumDraws(flux, log_grid(3), redshift, meta=meta)
    flux[:], redshift[:], meta["seed"] = 9 * FLUX_UNIT, 1, 2
    best = made.best
    best.flux[:] = 7 * FLUX_UNIT
    best.meta["seed"] = 3
    assert_array_equal(made.flux.value, np.ones((1, 2, 3)))
    assert_array_equal(made.redshift, [[0, 0]])
    assert made.meta["seed"] == 1


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, copy.copy, lambda s: pickle.loads(pickle.dumps(s))]
)
def test_copies_are_equal_and_read_only(spectra, duplicate):
    other = duplicate(spectra)
    assert_same(other, spectra)
    with pytest.raises(ValueError, match="read-only"):
        other.flux[0, 0, 0] = 3 * FLUX_UNIT


# ---- galaxies


@pytest.mark.parametrize(
    ("key", "rows"),
    [
        (0, [0]),
        (-1, [3]),
        (slice(1, 3), [1, 2]),
        ([3, 0], [3, 0]),
        ([True, False, True, False], [0, 2]),
        ([], []),
    ],
)
def test_galaxies_are_selected(spectra, key, rows):
    spectra.best_draw  # noqa: B018  the cached values must be selected too
    chosen = spectra[key]
    assert isinstance(chosen, SpectrumDraws)
    assert chosen.names == tuple(spectra.names[row] for row in rows)
    arrays = ("flux", "redshift", "weights", "trusted", "photometric_residual", "best_draw")
    for name in (*arrays, "posterior_draw"):
        assert_array_equal(getattr(chosen, name), getattr(spectra, name)[rows])
    for name, values in chosen.line_flux.items():
        assert_array_equal(values, spectra.line_flux[name][rows])
    assert_array_equal(chosen.wavelength, spectra.wavelength)


@pytest.mark.parametrize(
    ("key", "kind", "message"),
    [
        (4, IndexError, "galaxy 4 does not exist: there are 4"),
        ([True], IndexError, "the mask has 1 entries"),
        ("galaxy 1", TypeError, r"cannot be selected by 'galaxy 1'.*galaxy\(\)"),
        (1.5, TypeError, "cannot be selected by"),
        ((0, 1), TypeError, "cannot be selected by"),
    ],
)
def test_invalid_selections_raise_an_error(spectra, key, kind, message):
    with pytest.raises(kind, match=message):
        _ = spectra[key]


def test_galaxies_are_selected_by_name(spectra):
    assert_same(spectra.galaxy("galaxy 3"), spectra[3])
    with pytest.raises(KeyError, match="no galaxy is named 'galaxy'"):
        spectra.galaxy("galaxy")
    assert [part.names[0] for part in spectra] == list(spectra.names)


def test_concatenated_parts_equal_the_whole(spectra):
    assert_same(SpectrumDraws.concatenate(spectra), spectra)
    assert_same(SpectrumDraws.concatenate([spectra[:2], spectra[2:2], spectra[2:]]), spectra)


def test_lines_that_all_parts_have_are_concatenated(spectra, tmp_path):
    kept = {"halpha": spectra.line_flux["halpha"]}
    other = some_spectra(line_flux=kept)
    joined = SpectrumDraws.concatenate([spectra, other])
    assert list(joined.line_flux) == ["halpha"]
    assert_array_equal(joined.line_flux["halpha"], np.concatenate([kept["halpha"]] * 2))
    nothing = some_spectra(line_flux=None)
    assert SpectrumDraws.concatenate([spectra, nothing]).line_flux is None
    with SpectrumWriter(tmp_path / "lines.fits") as writer:
        writer.append(spectra)
        writer.append(other)
    assert_same(SpectrumDraws.read(tmp_path / "lines.fits"), joined)
    with pytest.raises(ValueError, match="read-only"):
        joined.line_flux["halpha"][0, 0] = 1 * joined.line_flux["halpha"].unit


def test_parts_with_different_residuals_and_meta_are_concatenated(spectra):
    other = some_spectra(2, seed=5, photometric_residual=None, bad=None)
    joined = SpectrumDraws.concatenate([other, spectra])
    assert np.isnan(joined.photometric_residual[:2]).all()
    assert_array_equal(joined.photometric_residual[2:], spectra.photometric_residual)
    assert dict(joined.meta) == {}
    assert SpectrumDraws.concatenate([other, other]).photometric_residual is None


@pytest.mark.parametrize(
    ("parts", "kind", "message"),
    [
        ([], ValueError, "spectra is empty"),
        (
            [some_spectra(), 3],
            TypeError,
            r"spectra\[1\] is of type int; a SpectrumDraws is expected",
        ),
        ([some_spectra(), some_spectra(n_draws=2)], ValueError, r"spectra\[1\] has 2 draws"),
        ([some_spectra(), some_spectra(n_pixels=9)], ValueError, "another wavelength grid"),
    ],
)
def test_incompatible_parts_raise_an_error(parts, kind, message):
    with pytest.raises(kind, match=message):
        SpectrumDraws.concatenate(parts)


def test_representations(spectra, one):
    assert repr(spectra) == (
        "<SpectrumDraws: 4 galaxies, 6 draws of 300 pixels, 3800-4071 Angstrom; 1 flagged>"
    )
    assert repr(one[0]) == "<SpectrumDraws: 1 galaxy, 6 draws of 300 pixels, 3800-4071 Angstrom>"
    page = some_spectra(12, names=["<b>", *map(str, range(11))])._repr_html_()
    assert "&lt;b&gt;" in page and "<b>" not in page
    assert "no flux in any band" in page and "&mdash;" in page
    assert "<p>2 more galaxies</p>" in page
    assert "more" not in spectra[:0]._repr_html_()


# ---- specutils objects


def test_the_best_spectrum(one):
    best, draw = one.best, int(one.weights[0].argmax())
    assert isinstance(best, Spectrum)
    assert_array_equal(best.flux.value, one.flux.value[0, draw].astype(float))
    assert best.flux.unit == FLUX_UNIT
    assert_array_equal(best.spectral_axis.value, one.wavelength.value)
    assert_allclose(best.redshift, one.redshift[0, draw])
    assert isinstance(best.uncertainty, StdDevUncertainty)
    mean = np.average(one.flux.value[0].astype(float), axis=0, weights=one.weights[0])
    variance = one.weights[0] @ (one.flux.value[0] - mean) ** 2 / (1 - (one.weights[0] ** 2).sum())
    assert_allclose(best.uncertainty.array, np.sqrt(variance), rtol=1e-5)
    assert_array_equal(best.mask, ~one.trusted[0])
    assert best.meta["draw"] == draw == one.best_draw[0]
    assert (best.meta["name"], best.meta["flag"], best.meta["seed"]) == ("galaxy 0", "", 0)
    assert_array_equal(best.meta["photometric_residual"], one.photometric_residual[0, draw])


@pytest.mark.filterwarnings("ignore:Keyword name")
@pytest.mark.parametrize("options", [{}, {"update_header": True}])
def test_written_summaries_keep_redshift_draw_and_medium(one, tmp_path, options):
    for kind, summary in (("best", one.best), ("mean", one.mean)):
        path = tmp_path / f"{kind}.fits"
        summary.write(path, **options)
        found = Spectrum.read(path)
        assert float(found.redshift) == float(summary.redshift)
        assert_array_equal(found.flux.value, summary.flux.value)
        assert_array_equal(found.uncertainty.array, summary.uncertainty.array)
        assert_array_equal(found.mask, summary.mask)
        assert found.flux.unit == FLUX_UNIT and found.meta["name"] == "galaxy 0"
        assert found.meta["kind"] == kind and found.meta["frame"] == "observed"
        assert found.meta["header"]["AIRORVAC"] == "vac"
        for name, keyword in (("draw", "DRAW"), ("posterior_draw", "POSTDRAW")):
            assert found.meta.get(name) == summary.meta.get(name)
            assert found.meta["header"].get(keyword) == summary.meta.get(name)
        names = ["Dn4000", "Mgb"]
        given = [measure_indices(s, names)["flags"][0] for s in (summary, found)]
        assert given[0] == given[1]
        # The header is enough where another reader does not restore the redshift.
        plain = Spectrum.read(path, format="tabular-fits")
        assert spectrum_arrays(plain).redshift == pytest.approx([float(summary.redshift)])


def test_names_are_written_in_ascii_and_missing_redshifts_omitted(tmp_path):
    spectra = some_spectra(names=["ÅΩ\n", "b", "c", "d"])
    spectra[0].best.write(tmp_path / "first.fits")
    assert Spectrum.read(tmp_path / "first.fits").meta["name"] == "???"
    bad = spectra[int(np.flatnonzero(~np.isfinite(spectra.redshift[:, 0]))[0])].best
    bad.write(tmp_path / "bad.fits")
    found = Spectrum.read(tmp_path / "bad.fits")
    assert np.isnan(found.redshift) and "REDSHIFT" not in found.meta["header"]


def test_file_of_draws_has_the_redshift_of_its_best_spectrum(one, tmp_path):
    one.write(tmp_path / "draws.fits")
    found = Spectrum.read(tmp_path / "draws.fits")
    assert float(found.redshift) == float(one.best.redshift)
    assert found.meta["draw"] == one.best_draw[0]


def test_with_equal_weights_the_best_draw_is_nearest_to_the_median():
    values = np.zeros((1, 5, 5))
    values[0, :, 2] = [0, 10, 4, -3, 5]
    made = SpectrumDraws(values * FLUX_UNIT, log_grid(5), np.zeros((1, 5)))
    assert_array_equal(made.best_draw, [2])
    trusted = np.arange(5) != 2
    assert (
        SpectrumDraws(values * FLUX_UNIT, log_grid(5), np.zeros((1, 5)), trusted=trusted).best_draw
        == 0
    )


def test_the_best_draw_does_not_depend_on_the_redshifts():
    """Without alignment, a smooth draw would be nearest to the median, not one with lines."""
    wavelength = log_grid(600).value
    redshift = np.linspace(0.09, 0.11, 9)[None]
    rest = wavelength / (1 + redshift[0][:, None])
    depth = np.array([1, 0.9, 1.1, 0.95, 1, 1.05, 1.02, 0.98, 0.02])[:, None]
    feature = np.exp(-0.5 * ((rest - 3600) / 4) ** 2)
    level = np.array([4, -4, 3, -3, 0.01, 2, -2, 1, 0])[:, None] / 100
    values = (10 + level - 5 * depth * feature)[None].astype(np.float32)
    made = SpectrumDraws(values * FLUX_UNIT, log_grid(600), redshift)
    assert made.best_draw[0] == 4
    smeared = SpectrumDraws(values * FLUX_UNIT, log_grid(600), np.full((1, 9), 0.1))
    assert smeared.best_draw[0] == 8


def test_mean_median_and_percentiles(one):
    exact, weights = one.flux.value[0].astype(float), one.weights[0]
    redshift = weights @ one.redshift[0]
    assert_allclose(one.mean.flux.value, weights @ exact)
    assert_array_equal(one.median.flux, one.percentile(50).flux)
    for spectrum in (one.mean, one.median):
        assert_allclose(spectrum.redshift, redshift)
        assert_array_equal(spectrum.uncertainty.array, one.best.uncertainty.array)
        assert_array_equal(spectrum.mask, ~one.trusted[0])
        residual = np.nansum(weights[:, None] * one.photometric_residual[0].value, axis=0)[1:]
        assert_allclose(spectrum.meta["photometric_residual"].value[1:], residual, rtol=1e-5)
    ends = one.percentile([0, 100])
    assert_array_equal(ends.flux.value, [exact.min(axis=0), exact.max(axis=0)])
    assert ends.uncertainty is None
    assert ends.meta["percentile"] == [0, 100]


@pytest.mark.parametrize("q", [-1, 101, [50, np.nan], [[50]], []])
def test_invalid_percentiles_raise_an_error(one, q):
    with pytest.raises(ValueError, match="between 0 and 100"):
        one.percentile(q)


def test_draws_as_one_spectrum(one):
    draws = one.draws
    assert draws.shape == (6, 300)
    assert draws.uncertainty is None
    assert_array_equal(draws.mask, np.tile(~one.trusted[0], (6, 1)))
    assert_array_equal(draws.meta["redshift"], one.redshift[0])
    assert_array_equal(draws.meta["weights"], one.weights[0])


def test_several_galaxies_return_a_list(spectra):
    for made in (spectra.best, spectra.mean, spectra.median, spectra.draws, spectra.percentile(16)):
        assert isinstance(made, SpectrumList)
        assert [spectrum.meta["name"] for spectrum in made] == list(spectra.names)
        assert_array_equal(made[3].flux, made[3].flux)
    assert_array_equal(spectra.best[3].flux, spectra[3].best.flux)
    assert len(spectra[:0].best) == 0


def test_an_unusable_galaxy_is_nan_and_masked(spectra):
    bad = spectra[2]
    assert bad.best_draw == -1
    for spectrum in (bad.best, bad.mean, bad.median, bad.percentile([5, 95]), bad.draws):
        assert np.isnan(spectrum.flux).all()
        assert spectrum.mask.all()
        assert np.isnan(spectrum.redshift)
        assert spectrum.meta["flag"] == "no flux in any band"
        assert spectrum.uncertainty is None
    assert bad.best.meta["draw"] is None
    assert np.isnan(bad.best.meta["photometric_residual"]).all()
    assert np.isnan(bad.photometry()).all()
    assert not bad.rest_frame().usable.any()
    assert np.isnan(bad.degrade(500).flux).all()
    assert bad.to_collection().mask.all()


def test_one_draw_has_no_uncertainty():
    made = some_spectra(1, 1, bad=None)
    for spectrum in (made.best, made.mean, made.median):
        assert_array_equal(spectrum.flux.value, made.flux.value[0, 0])
        assert spectrum.uncertainty is None
        assert_array_equal(spectrum.mask, ~made.trusted[0])
    assert_array_equal(made.percentile(5).flux, made.best.flux)


def test_all_pixels_masked():
    made = some_spectra(1, bad=None, trusted=np.zeros(300, dtype=bool))
    assert made.best.mask.all()
    assert np.isfinite(made.best.flux).all()
    assert np.isfinite(made.measure(lambda s: s.flux.mean())).all()
    assert np.isnan(made.photometry()).all()


def test_a_collection_of_draws(one, spectra):
    collection = one.to_collection()
    assert isinstance(collection, SpectrumCollection)
    assert collection.shape == (6,)
    assert_array_equal(collection[4].flux.value, one.flux.value[0, 4])
    assert_array_equal(collection[4].spectral_axis.value, one.wavelength.value)
    assert collection.meta[4]["redshift"] == one.redshift[0, 4]
    with pytest.raises(ValueError, match=r"but there are 4 galaxies; .*spectra\[0\]"):
        spectra.to_collection()


def test_specutils_measures_the_spectra():
    made = with_lines([[0.05, 0.05]], flux=50)
    best = made.best
    region = SpectralRegion(6850 * u.AA, 6935 * u.AA)
    inside = extract_region(best, region)
    continuum = inside.spectral_axis.value / 1000 * FLUX_UNIT
    assert_allclose(line_flux(inside - continuum).to_value(FLUX_UNIT * u.AA), 50, rtol=1e-3)


# ---- rest frame


@pytest.mark.parametrize("sigma", [1.0, 1.5, 4.0])
def test_rest_frame_preserves_position_and_flux_of_lines(sigma):
    redshift = np.array([[0.0500, 0.05003, 0.0731, 0.2]])
    lines = [line(log_grid(), HALPHA * (1 + z), 50.0, sigma) for z in redshift[0]]
    made = SpectrumDraws(np.array([lines]) * FLUX_UNIT, log_grid(), redshift, meta={"seed": 1})
    rest = made.rest_frame()
    assert_array_equal(rest.redshift, np.zeros((1, 4)))
    assert_allclose(np.diff(np.log10(rest.wavelength.value)), 1e-4, rtol=1e-9)
    assert rest.meta == {"seed": 1, "frame": "rest"}
    for values in rest.flux.value[0].astype(float):
        inside = np.where(np.abs(rest.wavelength.value - HALPHA) < 40, values, 0)
        flux, centre, width = moments(rest.wavelength, inside)
        assert_allclose(flux, 50, rtol=1e-6)
        assert_allclose(centre, np.log10(HALPHA) / 1e-4, atol=1e-5)
        assert_allclose(width, sigma, rtol=1e-5)


def test_rest_frame_of_a_smooth_spectrum_is_exact():
    made = with_lines([[0.0, 0.1234]], flux=0.0)
    rest = made.rest_frame()
    assert_allclose(rest.wavelength.value[[0, -1]], [3800.14 / 1.1234, 9200.26], rtol=2e-4)
    first, second = rest.flux.value[0]
    reached = np.isfinite(second)
    # f = wavelength / 1000 becomes (1 + z)^2 wavelength / 1000
    wanted = rest.wavelength.value[reached] / 1000 * 1.1234**2
    assert_allclose(second[reached][8:-8], wanted[8:-8], rtol=1e-6)
    assert_allclose(second[reached], wanted, rtol=1e-3)
    assert_array_equal(first[np.isfinite(first)], made.flux.value[0, 0])
    ends = rest.wavelength.value[reached][[0, -1]] * 1.1234
    assert (ends >= made.wavelength.value[0] * 0.99999).all()
    assert (ends <= made.wavelength.value[-1] * 1.00001).all()


def test_rest_frame_pixels_without_draws_are_masked():
    made = with_lines([[0.01, 0.3]])
    trusted = np.ones(3841, dtype=bool)
    trusted[100:200] = False
    made = SpectrumDraws(made.flux, made.wavelength, made.redshift, trusted=trusted)
    rest = made.rest_frame()
    mean = rest.mean
    assert_array_equal(np.isnan(mean.flux), np.isnan(rest.flux).all(axis=1)[0])
    # the scatter of a single draw is unknown
    assert_array_equal(np.isnan(mean.uncertainty.array), np.isnan(rest.flux).any(axis=1)[0])
    assert mean.mask[np.isnan(mean.uncertainty.array)].all()
    gap = made.wavelength.value[[100, 199]]
    for redshift in (0.01, 0.3):
        inside = (rest.wavelength.value > gap[0] / (1 + redshift) * 1.0001) & (
            rest.wavelength.value < gap[1] / (1 + redshift) * 0.9999
        )
        assert not rest.trusted[0, inside].any()
    assert 180 < np.count_nonzero(~rest.trusted) < 220


def test_rest_frame_grid_is_common_to_all_galaxies(spectra):
    rest = spectra.rest_frame()
    assert_array_equal(rest.usable, spectra.usable)
    assert rest.names == spectra.names
    alone = spectra[0].rest_frame()
    at = np.searchsorted(rest.wavelength.value, alone.wavelength.value[0] * 0.99999)
    part = rest.flux.value[0, :, at : at + len(alone.wavelength)]
    assert_allclose(part, alone.flux.value[0], rtol=1e-5)


def test_rest_frame_is_idempotent():
    rest = with_lines([[0.01, 0.3]]).rest_frame()
    again = rest.rest_frame()
    assert_allclose(again.flux.value, rest.flux.value, rtol=1e-6)
    assert_array_equal(again.wavelength, rest.wavelength)


def test_linear_grids_raise_an_error():
    wavelength = np.linspace(4000, 9000, 50) * u.AA
    made = SpectrumDraws(np.ones((1, 1, 50)) * FLUX_UNIT, wavelength, [[0.1]])
    with pytest.raises(
        ValueError,
        match="rest_frame needs a wavelength grid that is equally spaced in its logarithm",
    ):
        made.rest_frame()
    with pytest.raises(
        ValueError, match="degrade needs a wavelength grid that is equally spaced in its logarithm"
    ):
        made.degrade(100)


# ---- resolution


@pytest.mark.parametrize("resolution", [1840, 1500, 1000, 300, 100])
def test_degraded_lines_have_the_width_of_the_resolution(resolution):
    sigma = 1 / (RESOLVING_POWER * 2.35482 * 1e-4 * np.log(10))
    grid = log_grid()
    values = line(grid, 6000, 50.0, sigma)[None, None]
    made = SpectrumDraws(values * FLUX_UNIT, grid, [[0.1]], meta={"seed": 1})
    lower = made.degrade(resolution)
    flux, centre, width = moments(grid, lower.flux.value[0, 0].astype(float))
    before = moments(grid, values[0, 0])
    assert_allclose(flux, before[0], rtol=1e-4)
    assert_allclose(centre, before[1], atol=2e-3)
    assert_allclose(width, sigma * RESOLVING_POWER / resolution, rtol=3e-3)
    assert lower.resolving_power == resolution
    assert made.resolving_power == RESOLVING_POWER


def test_degrading_in_steps_equals_degrading_once():
    made = with_lines([[0.05]])
    assert_allclose(
        made.degrade(1200).degrade(700).flux.value, made.degrade(700).flux.value, rtol=1e-4
    )
    assert_array_equal(made.degrade(RESOLVING_POWER).flux, made.flux)


def test_degrading_preserves_a_smooth_spectrum_up_to_the_ends():
    made = with_lines([[0.05]], flux=0)
    lower = made.degrade(100)
    assert_allclose(lower.flux.value[..., 150:-150], made.flux.value[..., 150:-150], rtol=2e-4)
    assert_allclose(lower.flux.value, made.flux.value, rtol=0.02)


def test_missing_pixels_do_not_spread():
    made = with_lines([[0.0, 0.3]]).rest_frame()
    lower = made.degrade(500)
    assert_array_equal(np.isnan(lower.flux), np.isnan(made.flux))


@pytest.mark.parametrize("resolution", [1851, 0, -5, np.nan, np.inf])
def test_increasing_the_resolution_raises_an_error(one, resolution):
    with pytest.raises(ValueError, match="at most 1850, the resolving power of the spectra"):
        one.degrade(resolution)


def test_degrading_starts_from_the_resolving_power_in_meta():
    made = some_spectra(1, bad=None, meta={"resolving_power": 800})
    assert made.resolving_power == 800
    with pytest.raises(ValueError, match="at most 800"):
        made.degrade(1000)


# ---- photometry


def test_photometry_of_draws():
    made = with_lines([[0.05, 0.1]], flux=0)
    flux = made.photometry()
    assert flux.unit == u.nmgy
    assert flux.shape == (1, 2, 5)
    assert_array_equal(np.isnan(flux[0, 0]), [True, False, False, False, True])
    trusted = made.wavelength.value > 4500
    part = SpectrumDraws(made.flux, made.wavelength, made.redshift, trusted=trusted)
    assert_array_equal(np.isnan(part.photometry(bands=["g", "r"])[0, 0]), [True, False])
    assert_allclose(part.photometry("sdss", ["r"]), flux[..., 2:3])


# ---- measuring


def test_a_measurement_is_a_distribution(spectra):
    found = spectra[:2].measure(lambda spectrum: spectrum.flux.mean())
    assert isinstance(found, Distribution)
    assert found.shape == (2,)
    assert found.n_samples == 6
    assert found.unit == FLUX_UNIT


def test_with_equal_weights_sample_k_is_draw_k(spectra):
    equal = some_spectra(weights=None)
    found = equal.measure(lambda spectrum: spectrum.redshift.value)
    assert_allclose(found.distribution, equal.redshift)
    assert np.isnan(found.distribution[2]).all()


def test_measured_draws_are_resampled_by_weight():
    made = some_spectra(1, 4, bad=None, weights=[[1, 0, 2, 1]])
    calls = []

    def function(spectrum):
        calls.append(spectrum.meta["draw"])
        return float(spectrum.redshift)

    samples = made.measure(function).distribution[0]
    assert_allclose(samples, made.redshift[0][[0, 2, 2, 3]])
    assert calls == [0, 2, 3]
    assert_allclose(samples.mean(), made.mean.redshift)


def test_measure_passes_single_draws(one):
    def function(spectrum):
        draw = spectrum.meta["draw"]
        assert spectrum.shape == (300,)
        assert_array_equal(spectrum.flux.value, one.flux.value[0, draw])
        assert_allclose(spectrum.redshift, one.redshift[0, draw])
        assert_array_equal(spectrum.mask, ~one.trusted[0])
        assert spectrum.uncertainty is None
        assert spectrum.meta["name"] == "galaxy 0"
        return 1

    assert_array_equal(one.measure(function).distribution, np.ones((1, 6)))


def test_measure_removes_missing_pixels_at_the_ends():
    rest = with_lines([[0.0, 0.3]]).rest_frame()
    found = rest.measure(lambda s: [np.isfinite(s.flux).all(), len(s.flux), s.wavelength[0].value])
    assert_allclose(found.distribution[0, 0], [1, 1])
    assert np.ptp(found.distribution[0, 1]) <= 1
    assert_allclose(found.distribution[0, 2], [3800.1, 3800.1 / 1.3], rtol=2e-4)


def row_of(spectrum):
    table = QTable(
        {
            "name": ["a"],
            "flux": [spectrum.flux[3].value] * FLUX_UNIT,
            "redshift": [spectrum.redshift],
        }
    )
    return table[0]


@pytest.mark.parametrize(
    "function",
    [
        lambda s: {"flux": s.flux[3], "redshift": float(s.redshift), "name": "a"},
        row_of,
        lambda s: row_of(s).table,
    ],
)
def test_named_results_return_a_dict(one, function):
    equal = some_spectra(1, bad=None, weights=None)
    found = equal.measure(function)
    assert set(found) == {"flux", "redshift"}
    assert found["flux"].unit == FLUX_UNIT
    assert_allclose(found["flux"].distribution.value, equal.flux.value[:, :, 3])
    assert_allclose(found["redshift"].distribution, equal.redshift)


def test_arrays_and_tables_are_measured(spectra):
    def function(spectrum):
        return QTable({"line": ["a", "b"], "flux": spectrum.flux[:2]})

    found = spectra.measure(function)["flux"]
    assert found.shape == (4, 2)
    assert found.n_samples == 6
    assert np.isnan(found.distribution[2]).all() and np.isfinite(found.distribution[3]).all()


def test_units_of_results_are_converted(one):
    units = iter([u.AA, u.nm, u.um, u.AA, u.nm, u.um])
    found = one.measure(lambda spectrum: (5000 * u.AA).to(next(units)))
    assert found.unit == u.AA
    assert_allclose(found.distribution.value, 5000)
    dex = one.measure(lambda spectrum: 9 * u.dex(u.Msun))
    assert dex.unit == u.dex(u.Msun)


def test_masked_results_are_nan(one):
    found = one.measure(lambda spectrum: np.ma.masked_array(3.0, mask=spectrum.meta["draw"] == 2))
    chosen = np.isnan(found.distribution[0])
    assert 0 < chosen.sum() < 6


def test_failures_are_reported_in_one_warning():
    equal = some_spectra(weights=None)

    def function(spectrum):
        if spectrum.meta["draw"] in (1, 4):
            raise ValueError("no line here")
        return 3 * u.AA

    with pytest.warns(
        AstroGenSpecWarning, match="failed for 6 of 18 draws.*no line here"
    ) as caught:
        found = equal.measure(function)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert_array_equal(np.isnan(found.distribution[0]), [False, True, False, False, True, False])


def test_a_function_that_always_fails_raises_an_error(one):
    def function(spectrum):
        raise ValueError("no line here")

    with pytest.raises(ValueError, match="failed for all . draws.*no line here"):
        one.measure(function)


def test_other_errors_are_propagated(one):
    with pytest.raises(ZeroDivisionError):
        one.measure(lambda spectrum: 1 / 0)


@pytest.mark.parametrize(
    ("function", "kind", "message"),
    [
        ("halpha", TypeError, "function is of type str; a function"),
        (lambda s: "a", TypeError, "the result of function"),
        (lambda s: None, TypeError, "the result of function"),
        (lambda s: {"a": "b"}, TypeError, "returned no numbers"),
        (
            lambda s: {"ab"[s.meta["draw"] % 2]: 1},
            ValueError,
            "different names for different spectra .'a', 'b'.",
        ),
        (lambda s: np.ones(s.meta["draw"]), ValueError, "has shape"),
        (lambda s: 1 * [u.m, u.s][s.meta["draw"] % 2], u.UnitConversionError, "the result of func"),
    ],
)
def test_inconsistent_results_raise_an_error(function, kind, message):
    with pytest.raises(kind, match=message):
        some_spectra(1, bad=None, weights=None).measure(function)


def test_measuring_without_draws_raises_an_error(spectra):
    for empty in (spectra[2], spectra[:0]):
        with pytest.raises(ValueError, match="no galaxy has draws to measure"):
            empty.measure(lambda spectrum: 1)


def test_progress_is_shown(one, capsys):
    one.measure(lambda spectrum: 1, progress=True)
    assert "measuring" in capsys.readouterr().err


# ---- flags


def test_flag_codes_follow_the_galaxies():
    spectra = some_spectra(flag_codes=[0, Flag.SATURATED, Flag.NO_DATA, 0])
    assert spectra[spectra.flag_codes == 0].names == ("galaxy 0", "galaxy 3")
    assert_array_equal(spectra.rest_frame().flag_codes, spectra.flag_codes)
    both = SpectrumDraws.concatenate([spectra[2:], spectra[:2]])
    assert_array_equal(both.flag_codes, [Flag.NO_DATA, 0, 0, Flag.SATURATED])
    assert spectra[1].best.meta["flags"] == Flag.SATURATED
    assert_array_equal(some_spectra().flag_codes, [0, 0, Flag.TEXT_ONLY, 0])
