import astropy.units as u
import numpy as np
import pytest
from astropy.visualization import quantity_support
from spectrum_cases import HALPHA, line, log_grid, some_spectra
from specutils import Spectrum

from astrogenspec.plotting.spectra import LINE_LABELS, spectrum
from astrogenspec.results.spectra import FLUX_UNIT, SpectrumDraws

plt = pytest.importorskip("matplotlib.pyplot")


def galaxy(n_draws=12, **kwargs):
    """Return a galaxy with Halpha 30 times as high as the continuum."""
    rng = np.random.default_rng(1)
    grid = log_grid()
    z = rng.normal(0.05, 1e-4, (1, n_draws))
    flux = np.array([10 + line(grid, HALPHA * (1 + value), 3000) for value in z[0]])
    flux = flux * rng.normal(1, 0.05, (n_draws, 1))
    return SpectrumDraws(flux[None] * FLUX_UNIT, grid, z, **kwargs)


def drawn(ax):
    """Return the labels in the legend."""
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_draws_are_summarised():
    spectra = galaxy(names=["NGC 1"], flags=["very red"])
    ax = spectra.plot()
    assert drawn(ax) == ["95% of the draws", "68% of the draws", "median", "best draw"]
    by_label = {item.get_label(): item for item in ax.lines}
    median, best = by_label["median"], by_label["best draw"]
    np.testing.assert_allclose(median.get_xdata(orig=False), spectra.wavelength.value)
    np.testing.assert_allclose(median.get_ydata(orig=False), spectra.median.flux.value)
    np.testing.assert_allclose(best.get_ydata(orig=False), spectra.best.flux.value)
    assert ax.get_title("left").startswith("NGC 1    lines at $z = 0.05")
    assert ax.get_title("right") == "very red\n"
    assert "observed vacuum wavelength" in ax.get_xlabel()
    assert r"$\mathrm{10^{-17}" in ax.get_ylabel()
    assert ax.get_xlim() == tuple(spectra.wavelength.value[[0, -1]])
    ax.figure.canvas.draw()


def test_ranges_contain_their_fraction_of_the_draws():
    spectra = galaxy(200)
    paths = [band.get_paths()[0].vertices for band in spectra.plot().collections[:2]]
    at = 2000
    for vertices, wanted in zip(paths, ([2.5, 97.5], [16, 84]), strict=True):
        here = vertices[np.isclose(vertices[:, 0], spectra.wavelength.value[at])][:, 1]
        ends = np.percentile(spectra.flux.value[0, :, at], wanted)
        np.testing.assert_allclose([here.min(), here.max()], ends, rtol=1e-5)


def test_bright_lines_do_not_compress_the_continuum():
    low, high = galaxy().plot().get_ylim()
    assert low == 0
    assert 12 < high < 40


def positions(ax):
    """Return the wavelengths of the line markers by their label."""
    return {text.get_text(): text.get_position()[0] for text in ax.texts}


def test_lines_are_named_at_the_redshift():
    marked = positions(galaxy().plot())
    np.testing.assert_allclose(marked[r"H$\alpha$+[N$\,$II]"], HALPHA * 1.05, rtol=1e-3)
    assert set(marked) == {
        label for label, rest in LINE_LABELS.items() if 3830 < rest * 1.05 < 9170
    }
    assert not galaxy().plot(lines=False).texts


@pytest.mark.parametrize("best", [True, False])
def test_lines_are_marked_at_the_redshift_of_the_best_draw(best):
    """The redshift of the best draw is far from the median, as in bimodal posteriors."""
    redshift = np.array([[0.04, 0.05, 0.06, 0.2]])
    grid = log_grid()
    flux = np.array([10 + line(grid, HALPHA * (1 + z), 3000) for z in redshift[0]])
    weights = np.array([[0.2, 0.2, 0.2, 0.4]])
    spectra = SpectrumDraws(flux[None] * FLUX_UNIT, grid, redshift, weights=weights)
    ax = spectrum(spectra, best=best)
    at = positions(ax)[r"H$\alpha$+[N$\,$II]"]
    title = ax.get_title("left")
    if best:
        shown = next(item for item in ax.lines if item.get_label() == "best draw")
        top = shown.get_xdata(orig=False)[np.argmax(shown.get_ydata(orig=False))]
        np.testing.assert_allclose(at, top, rtol=2e-4)
        assert "lines at $z = 0.2000$ (best draw); median $z = 0.0575$" in title
    else:
        assert "best draw" not in title
        assert f"$z = {at / 6564.6 - 1:.4f}$" in title


def test_names_of_lines_do_not_overlap():
    ax = galaxy().plot()
    ax.figure.canvas.draw()
    boxes = sorted((text.get_window_extent() for text in ax.texts), key=lambda box: box.x0)
    assert all(one.x1 < other.x0 for one, other in zip(boxes[:-1], boxes[1:], strict=True))


def test_untrusted_pixels_are_shaded():
    trusted = np.ones(3841, dtype=bool)
    trusted[:100] = trusted[2000:2100] = trusted[-1] = False
    spectra = galaxy(trusted=trusted)
    ax = spectra.plot()
    assert drawn(ax).count("not trusted") == 1
    spans = np.array([patch.get_x() for patch in ax.patches])
    np.testing.assert_allclose(spans, spectra.wavelength.value[[0, 2000, 3840]])
    assert galaxy(trusted=np.zeros(3841, dtype=bool)).plot().patches[0].get_width() > 5000


def test_a_single_draw_is_shown_alone():
    ax = galaxy(1).plot()
    assert drawn(ax) == ["the only draw"]
    assert len(ax.collections) == 0


def test_galaxies_are_chosen_by_number_or_name():
    spectra = some_spectra(names=["a", "b", "c", "d"])
    assert spectra.plot("b").get_title("left").startswith("b ")
    assert spectra.plot(-1).get_title("left").startswith("d ")
    with pytest.raises(KeyError, match="no galaxy is named 'e'"):
        spectra.plot("e")


@pytest.mark.parametrize("chosen", [2, "galaxy 2"])
def test_a_galaxy_without_draws_raises_an_error(chosen):
    with pytest.raises(
        ValueError, match=r"galaxy 'galaxy 2' has no draws to show .*flag: no flux in any band"
    ):
        some_spectra().plot(chosen)


def test_the_rest_frame_is_shown():
    spectra = galaxy().rest_frame()
    ax = spectra.plot()
    assert "rest-frame vacuum wavelength" in ax.get_xlabel()
    assert positions(ax)[r"H$\alpha$+[N$\,$II]"] == LINE_LABELS[r"H$\alpha$+[N$\,$II]"]
    ax.figure.canvas.draw()


def test_the_truth_is_converted():
    spectra = galaxy()
    truth = Spectrum(
        flux=spectra.best.flux.to(u.uJy, u.spectral_density(spectra.wavelength)),
        spectral_axis=spectra.wavelength.to(u.nm),
    )
    ax = spectrum(spectra, truth=truth, best=False)
    assert "best draw" not in drawn(ax)
    shown = next(item for item in ax.lines if item.get_label() == "truth")
    np.testing.assert_allclose(shown.get_xdata(orig=False), spectra.wavelength.value)
    np.testing.assert_allclose(shown.get_ydata(orig=False), spectra.best.flux.value, rtol=1e-5)


def test_axes_with_units_keep_them():
    with quantity_support():
        ax = plt.subplots()[1]
        ax.plot([400, 900] * u.nm, [1e-16, 1e-16] * u.erg / u.s / u.cm**2 / u.AA)
        assert galaxy().plot(ax=ax) is ax
    assert ax.xaxis.get_units() == u.nm
    np.testing.assert_allclose(ax.get_xlim(), [380.0144, 920.026], rtol=1e-5)
    assert 1e-16 < ax.get_ylim()[1] < 4e-16
    assert "nm" in ax.get_xlabel()
    median = next(item for item in ax.lines if item.get_label() == "median")
    np.testing.assert_allclose(np.median(median.get_ydata(orig=False)), 1e-16, rtol=0.1)
    ax.figure.canvas.draw()


def test_two_galaxies_share_axes():
    ax = galaxy().plot()
    number = len(ax.texts)
    galaxy().plot(ax=ax, color="black")
    assert len(ax.texts) == number
    assert ax.get_title("left").startswith("0    best draw $z = 0.05")


def test_quantities_can_be_added():
    with quantity_support():
        ax = galaxy().plot()
        ax.plot([500, 600] * u.nm, [10, 10] * FLUX_UNIT, label="mine")
    shown = next(item for item in ax.lines if item.get_label() == "mine")
    np.testing.assert_allclose(shown.get_xdata(orig=False), [5000, 6000])


def test_weights_are_used():
    flux = np.array([[np.full(50, 1.0), np.full(50, 2.0), np.full(50, 9.0)]]) * FLUX_UNIT
    spectra = SpectrumDraws(flux, log_grid(50), np.zeros((1, 3)), weights=[[1, 1, 0]])
    ax = spectra.plot()
    median = next(item for item in ax.lines if item.get_label() == "median")
    np.testing.assert_allclose(median.get_ydata(orig=False), 1.5)
    assert ax.get_ylim()[1] < 4


def test_negative_and_zero_fluxes_are_shown():
    for values in (np.zeros((1, 3, 50)), -np.ones((1, 3, 50))):
        spectra = SpectrumDraws(values * FLUX_UNIT, log_grid(50), np.zeros((1, 3)))
        low, high = spectra.plot().get_ylim()
        assert low <= values.min() and high > low
