# ruff: noqa: E402
import importlib

import numpy as np
import pytest

mpl = pytest.importorskip("matplotlib")
pytest.importorskip("corner")
mpl.use("Agg")  # before pyplot, so that no window opens

import astropy.units as u
import matplotlib.pyplot as plt
from astropy.nddata import NDData
from astropy.table import QTable
from astropy.wcs import WCS
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.testing import assert_allclose, assert_array_equal
from posterior_cases import flagged_posterior, gaussian_posterior, quantity

from astrogenspec import plotting
from astrogenspec.calibration import pit, tarp
from astrogenspec.results.posterior import Posterior

FEW = ("redshift", "stellar_mass", "halpha_flux")


@pytest.fixture(autouse=True)
def restore_settings():
    settings = dict(mpl.rcParams)
    yield
    plt.close("all")
    assert dict(mpl.rcParams) == settings


@pytest.fixture(scope="module")
def case():
    return gaussian_posterior(30, 600)


def drawn(thing):
    """Render the figure: errors in labels and layout appear only then."""
    figure = thing if isinstance(thing, Figure) else thing.figure
    figure.canvas.draw()
    return figure


def text_of(figure):
    return "\n".join(text.get_text() for text in figure.findobj(mpl.text.Text))


# ---- corner


def test_corner_shows_every_pair(case):
    posterior, truth = case
    figure = drawn(posterior.plot_corner(3, quantities=FEW))
    axes = np.array(figure.axes).reshape(3, 3)
    assert len(figure.axes) == 9
    low, middle, high = posterior[3]["stellar_mass"].percentiles([16, 50, 84])[:, 0].value
    lines = [line.get_xdata()[0] for line in axes[1, 1].lines]
    assert_allclose(sorted(lines), [low, middle, high])
    assert f"{middle:.2f}" in axes[1, 1].get_title()
    assert axes[2, 1].get_xlabel() == r"$\log_{10}(M_\ast/\mathrm{M_\odot})$"


def test_corner_shows_fluxes_in_their_logarithm(case):
    posterior, truth = case
    figure = posterior.plot_corner(
        0, quantities=FEW, truth={"halpha_flux": truth["halpha_flux"][0]}
    )
    axes = np.array(figure.axes).reshape(3, 3)
    log_flux = np.log10(posterior[0]["halpha_flux"].draws.value[0])
    low, high = axes[2, 2].get_xlim()
    assert low < np.percentile(log_flux, 1) < np.percentile(log_flux, 99) < high
    assert high < 10
    label = axes[2, 2].get_xlabel()
    assert label.startswith(r"$\log_{10}")
    assert r"10^{-17}" in label
    marked = [line.get_xdata()[0] for line in axes[2, 2].lines]
    assert np.isclose(marked, np.log10(truth["halpha_flux"][0].value)).any()


def test_corner_marks_a_truth_outside_the_draws(case):
    posterior, _ = case
    figure = posterior.plot_corner(0, quantities=FEW, truth={"stellar_mass": 1e14 * u.Msun})
    low, high = np.array(figure.axes).reshape(3, 3)[1, 1].get_xlim()
    assert low < 14 < high


def test_corner_ignores_truths_of_other_quantities(case):
    posterior, truth = case
    row = QTable({name: values[:1] for name, values in truth.items()})[0]
    drawn(posterior.plot_corner(0, quantities=("redshift", "ssfr"), truth=row))
    drawn(posterior.plot_corner(0, quantities=FEW, truth={"sfr": 1 * u.m, "redshift": np.nan}))


def test_corner_of_all_quantities_fits_in_the_figure(case):
    posterior, _ = case
    figure = drawn(posterior.plot_corner("7"))
    renderer = figure.canvas.get_renderer()
    box = figure.bbox
    for ax in figure.axes:
        for label in (ax.xaxis.label, ax.yaxis.label, ax.title):
            if label.get_text() and label.get_visible() and ax.get_visible():
                extent = label.get_window_extent(renderer)
                assert extent.x0 >= box.x0
                assert extent.y0 >= box.y0
                assert extent.x1 <= box.x1
                assert extent.y1 <= box.y1


def test_corner_of_few_and_of_equal_draws():
    posterior, _ = gaussian_posterior(1, 8)
    drawn(posterior.plot_corner(quantities=("redshift", "sfr")))
    constant = Posterior({"redshift": np.full((1, 700), 0.1), "age": np.zeros((1, 700)) * u.Gyr})
    drawn(constant.plot_corner(smooth=None))


def test_corner_of_one_quantity(case):
    assert len(drawn(case[0].plot_corner(0, quantities="ssfr")).axes) == 1


def test_corner_can_be_added_to_a_figure(case):
    posterior, _ = case
    figure = posterior.plot_corner(0, quantities=FEW)
    again = plotting.corner(posterior[0], quantities=FEW, fig=figure, color="#c2452d")
    assert again is figure
    assert len(drawn(again).axes) == 9


def test_corner_of_invalid_posteriors_raises_an_error(case):
    posterior, truth = case
    with pytest.raises(ValueError, match="shows one galaxy, but the posterior has 30"):
        plotting.corner(posterior)
    with pytest.raises(
        ValueError, match=r"'galaxy 2' has 0 finite draws .flag: no flux in any band"
    ):
        flagged_posterior()[0].plot_corner(2)
    with pytest.raises(ValueError, match="more draws than quantities"):
        gaussian_posterior(1, 1)[0].plot_corner()
    with pytest.raises(u.UnitConversionError, match=r"truth\['redshift'\] has the unit 'm'"):
        posterior.plot_corner(truth={"redshift": 1 * u.m})
    with pytest.raises(ValueError, match=r"truth\['stellar_mass'\] has 30 values"):
        posterior.plot_corner(truth=truth | {"redshift": 0.1})
    with pytest.raises(KeyError, match="'nonsense'"):
        posterior.plot_corner(quantities=["nonsense"])
    with pytest.raises(IndexError, match="galaxy 99 does not exist"):
        posterior.plot_corner(99)


def test_missing_packages_raise_an_error(case, monkeypatch):
    real = importlib.import_module

    def refuse(name):
        if name == "corner":
            raise ImportError(name)
        return real(name)

    monkeypatch.setattr("astrogenspec.extras.import_module", refuse)
    with pytest.raises(
        ImportError, match=r"corner, which is needed for figures.*astrogenspec\[plot\]"
    ):
        case[0].plot_corner(0)


# ---- predictions


def test_predictions_are_medians_with_error_bars(case):
    posterior, truth = case
    ax = plotting.prediction_vs_truth(posterior["sfr"], truth["sfr"])
    points = ax.lines[0].get_xydata()
    assert_allclose(points[:, 0], truth["sfr"].value)
    assert_allclose(points[:, 1], posterior["sfr"].median().value)
    assert "$R^2$" in text_of(drawn(ax))
    assert ax.get_xlim() == ax.get_ylim()


def test_predictions_of_redshift_show_redshift_scores(case):
    posterior, truth = case
    ax = plotting.prediction_vs_truth(posterior["redshift"], truth["redshift"])
    text = text_of(drawn(ax))
    assert "outliers > 0.05: 0.0%" in text
    assert "$N$ = 30" in text
    assert ax.get_xlabel() == "true $z$"


def test_many_predictions_are_shown_as_density():
    posterior, truth = gaussian_posterior(900, 5, quantities=("halpha_flux",))
    ax = plotting.prediction_vs_truth(posterior["halpha_flux"], truth["halpha_flux"])
    assert len(ax.collections) == 1
    assert "log_{10}" in ax.get_xlabel()
    drawn(ax)


def test_predictions_without_truth_or_draws_are_omitted():
    posterior, truth = flagged_posterior(6, 20, bad=2)
    truth["sfr"][0] = np.nan * truth["sfr"].unit
    ax = plt.figure().add_subplot()
    assert plotting.prediction_vs_truth(posterior["sfr"], truth["sfr"], ax=ax) is ax
    assert "$N$ = 4" in text_of(drawn(ax))
    with pytest.raises(ValueError, match="no galaxy has both a true value and draws of 'sfr'"):
        plotting.prediction_vs_truth(posterior[2]["sfr"], truth["sfr"][2:3])
    with pytest.raises(u.UnitConversionError, match=r"truth\['sfr'\]"):
        plotting.prediction_vs_truth(posterior["sfr"], np.ones(6) * u.m)


def test_prediction_of_one_galaxy(case):
    posterior, truth = case
    drawn(plotting.prediction_vs_truth(posterior[0]["sfr"], truth["sfr"][:1]))


# ---- calibration


def test_pit_histogram():
    values = np.repeat([0.05, 0.55, 0.95, np.nan], [10, 20, 10, 5])
    ax = plotting.pit_histogram(values, n_bins=10, label="sfr")
    heights = ax.patches[-1].get_data().values
    assert_allclose(heights[[0, 5, 9]], [2.5, 5, 2.5])
    assert heights.sum() == 10
    assert "sfr" in text_of(drawn(ax))
    top = ax.get_ylim()[1]
    assert plotting.pit_histogram(np.linspace(0, 1, 100), ax=ax, label="z") is ax
    assert ax.get_ylim()[1] == top


def test_coverage_curve():
    values = np.random.default_rng(0).random(500)
    ax = plotting.coverage_curve(values, label="a")
    curves = [line for line in ax.lines if len(line.get_xdata()) > 2]
    x, y = curves[0].get_data()
    assert_allclose(y, [np.mean(np.abs(2 * values - 1) <= level + 1e-12) for level in x])
    plotting.coverage_curve(values**2, ax=ax, label="b")
    curves = [line for line in ax.lines if len(line.get_xdata()) > 2]
    assert len(curves) == 2
    assert curves[0].get_color() != curves[1].get_color()
    assert len(ax.collections) == 1
    drawn(ax)


@pytest.mark.parametrize("figure", [plotting.pit_histogram, plotting.coverage_curve])
def test_figures_without_data_raise_an_error(figure):
    with pytest.raises(ValueError, match="values contains no finite number"):
        figure([np.nan])


def test_the_tarp_curve(case):
    posterior, truth = case
    result = tarp(posterior, {"sfr": truth["sfr"]}, n_bootstrap=20)
    ax = plotting.tarp_curve(result)
    assert f"largest deviation {result.max_deviation:.3f}" in text_of(drawn(ax))
    curve = next(line for line in ax.lines if len(line.get_xdata()) > 2)
    assert_array_equal(curve.get_ydata(), result.coverage)
    plotting.tarp_curve(result, ax=ax, label="again", color="k")
    assert "again (largest deviation" in text_of(drawn(ax))


# ---- networks


def test_the_latent_map_is_coloured():
    rng = np.random.default_rng(0)
    values = quantity(np.linspace(9, 12, 200), u.dex(u.Msun))
    values[::10] = np.nan * values.unit
    ax = plotting.latent_map(rng.normal(size=(200, 2)), values, label="stellar mass")
    grey, coloured = ax.collections
    assert len(grey.get_offsets()) == 20
    assert_array_equal(coloured.get_array(), values.value[np.isfinite(values.value)])
    assert "stellar mass [" in text_of(drawn(ax))
    assert ax.get_xlabel() == "UMAP 1"


def test_the_latent_map_of_few_galaxies():
    drawn(plotting.latent_map(np.zeros((5, 2))))
    drawn(plotting.latent_map(np.zeros((0, 2)), []))
    drawn(plotting.latent_map(np.zeros((2, 2)), [np.nan, np.nan], method="PCA"))
    with pytest.raises(ValueError, match=r"embedding has shape \(5, 3\)"):
        plotting.latent_map(np.zeros((5, 3)))
    with pytest.raises(ValueError, match=r"values has shape \(3,\), but embedding has 5 rows"):
        plotting.latent_map(np.zeros((5, 2)), np.zeros(3))


def cutout(n_bands=5, size=32):
    y, x = np.mgrid[:size, :size] - size / 2
    light = np.exp(-np.hypot(x, y) / 4)
    return light * np.arange(1, n_bands + 1)[:, None, None] * 0.3


def test_the_colour_image_has_colours():
    red = plotting.color_image(cutout())
    assert red.shape == (32, 32, 3)
    assert red.dtype == np.uint8
    assert red[16, 16, 0] > red[16, 16, 2]
    assert red[16, 16].max() > 120
    assert red[0, 0].max() < 60
    blue = plotting.color_image(cutout()[::-1])
    assert blue[16, 16, 0] < blue[16, 16, 2]
    assert_array_equal(plotting.color_image(cutout()[1:4]), red)
    assert_array_equal(plotting.color_image(NDData(cutout())), red)
    assert_array_equal(plotting.color_image(cutout() * u.nmgy), red)


def test_images_without_light_are_black():
    assert plotting.color_image(np.zeros((3, 8, 8))).max() < 60
    assert plotting.color_image(np.full((5, 8, 8), np.nan)).max() < 60


@pytest.mark.parametrize("with_noise", [True, False])
def test_the_reconstruction_has_three_panels(with_noise):
    image = cutout()
    ivar = np.full(image.shape, 100.0) if with_noise else None
    if with_noise:
        ivar[2, :3] = 0
    figure = plotting.reconstruction(image, 0.9 * image, ivar=ivar)
    assert len(figure.axes) == 4
    shown = figure.axes[2].images[0].get_array()
    expected = 0.1 * image[2] * (10 if with_noise else 1)
    assert_allclose(shown[5:], expected[5:])
    if with_noise:
        assert np.ma.getmaskarray(shown)[:3].all()
    assert ("nmgy" in text_of(drawn(figure))) is not with_noise


def test_the_reconstruction_of_unusual_images():
    drawn(plotting.reconstruction(np.zeros((3, 8, 8)), np.zeros((5, 8, 8))))
    figure = plt.figure()
    assert plotting.reconstruction(NDData(cutout()), cutout(), fig=figure) is figure
    with pytest.raises(ValueError, match=r"image has shape \(4, 8, 8\)"):
        plotting.reconstruction(np.zeros((4, 8, 8)), np.zeros((5, 8, 8)))
    with pytest.raises(ValueError, match="the sizes must agree"):
        plotting.reconstruction(np.zeros((3, 8, 8)), np.zeros((3, 9, 9)))


def test_images_have_a_scale_bar():
    figure = plotting.reconstruction(cutout(), cutout(), redshift=0.1)
    assert [text.get_text() for text in figure.axes[0].texts] == ["2″ = 3.7 kpc"]
    (bar,) = figure.axes[0].lines
    assert_allclose(np.ptp(bar.get_xdata()), 2 / 0.396)
    ax = plt.subplots()[1]
    ax.imshow(np.zeros((100, 100)), origin="lower")
    limits = ax.get_xlim()
    plotting.annotate_image(ax, 1 * u.arcsec)
    assert [text.get_text() for text in ax.texts] == ["30″"]
    assert ax.get_xlim() == limits
    with pytest.raises(ValueError, match="pass pixel_scale or wcs"):
        plotting.annotate_image(ax)


@pytest.mark.parametrize("angle", [0, 40, 180])
def test_arrows_show_north_and_east(angle):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix = [150.0, 30.0], [16.5, 16.5]
    turn = np.radians(angle)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    wcs.wcs.cd = rotation @ np.diag([-0.4, 0.4]) / 3600
    ax = plt.subplots()[1]
    ax.imshow(np.zeros((32, 32)), origin="lower")
    plotting.annotate_image(ax, wcs=wcs)
    (bar,) = ax.lines
    length, north, n, east, e = ax.texts
    assert [text.get_text() for text in (length, n, e)] == ["2″", "N", "E"]
    assert_allclose(np.ptp(bar.get_xdata()), 5)
    for arrow, sky in ((north, [0, 1]), (east, [1, 0])):
        step = np.subtract(arrow.xy, arrow.get_position())
        toward = wcs.wcs.cd @ step
        assert_allclose(toward / np.hypot(*toward), sky, atol=1e-3)


@pytest.mark.parametrize("kind", [dict, QTable])
def test_the_history_marks_the_best_step(kind):
    history = kind(
        {
            "step": [10, 20, 30],
            "learning_rate": [1.0, 1.0, 1.0],
            "train_total": [3.0, 2.0, 1.0],
            "valid_total": [3.1, 2.2, np.nan],
            "train_kl": [1.0, 0.5, 0.4],
        }
    )
    ax = plotting.training_history(history, terms=("total", "kl"))
    best = [line.get_xydata()[0] for line in ax.lines if line.get_marker() == "o"]
    assert_allclose(best, [[20, 2.2]])
    assert {"training total", "validation total", "training kl"} <= set(
        text_of(drawn(ax)).split("\n")
    )
    with pytest.raises(KeyError, match="no loss term 'flow'; it has train_total"):
        plotting.training_history(history, terms=("flow",))


def test_functions_with_one_panel_return_the_axes_passed(case):
    posterior, truth = case
    values = pit(posterior["sfr"], truth["sfr"])
    for draw in (
        lambda ax: plotting.prediction_vs_truth(posterior["sfr"], truth["sfr"], ax=ax),
        lambda ax: plotting.pit_histogram(values, ax=ax),
        lambda ax: plotting.coverage_curve(values, ax=ax),
        lambda ax: plotting.tarp_curve(tarp(posterior, truth, n_bootstrap=5), ax=ax),
        lambda ax: plotting.latent_map(np.zeros((3, 2)), ax=ax),
        lambda ax: plotting.training_history({"train_total": [1.0, 0.5]}, ax=ax),
    ):
        ax = plt.figure().add_subplot()
        assert isinstance(ax, Axes)
        assert draw(ax) is ax
