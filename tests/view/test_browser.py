"""Tests of a page in a real browser."""

import csv
import re

import numpy as np
import pytest
from spectrum_cases import some_spectra
from view_cases import HOSTILE, open_browser, rotated_cutout, shown_posterior

from astrogenspec.view import results_page

N = 12
ALL = "All 12 galaxies."
SHOWN = "document.getElementById('shown').innerText"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    posterior, truth = shown_posterior(N)
    path = tmp_path_factory.mktemp("page") / "page.html"
    results_page(
        path,
        posterior,
        cutouts=[rotated_cutout()] * N,
        spectra=some_spectra(N, bad=None, names=posterior.names),
        truth=truth,
    )
    return path.as_uri()


@pytest.fixture(scope="module")
def browser():
    with open_browser() as started:
        yield started


@pytest.fixture(scope="module")
def pages(browser, address):
    """Return a function that opens the page once for each kind of window."""
    opened = {}

    def get(width=1280, scheme="light"):
        key = (width, scheme)
        if key not in opened:
            context = browser.new_context(
                viewport={"width": width, "height": 900}, color_scheme=scheme, accept_downloads=True
            )
            context.set_default_timeout(120_000)
            page, messages, addresses = context.new_page(), [], []
            page.on("console", lambda m: messages.append(m.text))
            page.on("pageerror", lambda error: messages.append(str(error)))
            page.on("request", lambda r: addresses.append(r.url))
            page.goto(address)
            page.wait_for_selector("html[data-ready]")
            opened[key] = page, messages, addresses
        return opened[key]

    return get


@pytest.fixture
def page(pages, request):
    found, messages, addresses = pages(**getattr(request, "param", {}))
    found.evaluate("document.getElementById('galaxy').close()")
    found.click("#clear")
    found.wait_for_function(f"{SHOWN} === {ALL!r}")
    yield found
    # BokehJS reports its progress.
    assert [text for text in messages if not text.startswith("[bokeh")] == []
    assert [url for url in addresses if not url.startswith(("file:", "data:", "blob:"))] == []


def drag(page, plot):
    """Draw a box around most of a plot; again if it was so slow that it counts as a long press."""
    place = page.locator("#plots > div").nth(plot)
    place.scroll_into_view_if_needed()
    box = place.bounding_box()
    for _ in range(5):
        page.mouse.move(box["x"] + 90, box["y"] + 60)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] - 30, box["y"] + box["height"] - 70, steps=6)
        page.mouse.up()
        page.wait_for_timeout(1000)
        if "selected in a plot" in page.locator("#shown").inner_text():
            return


def names(page):
    return page.locator("#table tbody .link").all_inner_texts()


@pytest.mark.parametrize("page", [{"width": 1280}, {"width": 390}], indirect=True)
def test_page_fits_its_window(page):
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.locator("#plots > div").count() == 6
    drawn = page.evaluate("[...document.querySelectorAll('#plots > div')].map(d => d.clientHeight)")
    assert min(drawn) > 200
    page.locator("#table tbody .link").first.click()
    dialog = page.locator("#galaxy")
    assert dialog.evaluate("d => d.scrollWidth <= window.innerWidth")


def test_head_warns_of_flagged_galaxies(page):
    text = page.locator("#warning").inner_text()
    assert "Distrust 1 of 12 galaxies" in text
    assert "saturated 1" in text


def test_names_are_text(page):
    assert page.title() != "owned"
    assert HOSTILE in names(page)
    assert page.locator("#table tbody b, #table tbody script, #table tbody i").count() == 0
    page.get_by_role("button", name=HOSTILE).first.click()
    assert page.locator("#galaxy-name").inner_text() == HOSTILE


def test_table_sorts_filters_and_counts(page):
    shown = page.locator("#shown")
    assert shown.inner_text() == ALL
    page.locator("#table th[data-key=redshift] button").click()
    head = page.locator("#table th[data-key=redshift]")
    assert head.get_attribute("aria-sort") == "ascending"
    column = page.evaluate(
        "[...document.querySelectorAll('#table tbody tr')]"
        ".map(row => parseFloat(row.cells[2].innerText))"
    )
    assert column == sorted(column)
    page.select_option("#flag-filter", "any")
    assert shown.inner_text() == "1 of 12 galaxies."
    assert names(page) == ["galaxy 2"]
    page.select_option("#flag-filter", "")
    page.fill("#search", "galaxy 1")
    assert sorted(names(page)) == ["galaxy 10", "galaxy 11"]
    page.fill("#search", "")
    page.fill("#range-high", str((column[3] + column[4]) / 2))
    assert len(names(page)) == 4
    page.click("#clear")
    page.wait_for_function(f"{SHOWN} === {ALL!r}")


def test_filter_selects_in_all_plots_and_brush_filters_the_table(page):
    page.fill("#search", "galaxy 10")
    selected = "Bokeh.documents[0].get_model_by_name('galaxies').selected.indices"
    assert page.evaluate(selected) == [10]
    page.fill("#search", "")
    drag(page, 1)
    assert "selected in a plot" in page.locator("#shown").inner_text()
    indices = page.evaluate(selected)
    assert 0 < len(indices) < N
    assert len(names(page)) == len(indices)


def test_download_is_the_shown_galaxies(page, tmp_path):
    page.fill("#search", "galaxy 10")
    with page.expect_download() as started:
        page.click("#download")
    path = tmp_path / "down.csv"
    started.value.save_as(path)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["galaxy 10"]
    posterior, _ = shown_posterior(N)
    median = posterior["halpha_flux"].median().value[10]
    assert float(rows[0]["halpha_flux_median"]) == pytest.approx(median, rel=2e-2)
    assert float(rows[0]["redshift_p84"]) == pytest.approx(
        posterior["redshift"].percentiles(84).value[10], rel=1e-4
    )


def test_galaxy_is_reached_with_the_keyboard(page):
    page.locator("#table th[data-key=name] button").click()
    page.get_by_role("button", name="galaxy 2").first.focus()
    page.keyboard.press("Enter")
    dialog = page.locator("#galaxy")
    assert dialog.evaluate("d => d.open")
    text = page.locator("#galaxy-body").inner_text()
    assert "Distrust this galaxy" in text
    assert "<i>off</i> centre" in text
    assert page.locator("#galaxy .small svg").count() == 9
    assert page.locator("#galaxy .picture img").evaluate("i => i.naturalWidth") == 16
    page.keyboard.press("ArrowRight")
    assert page.locator("#galaxy-name").inner_text() in ("galaxy 3", "galaxy 1", HOSTILE)
    page.keyboard.press("Escape")
    assert not dialog.evaluate("d => d.open")


def test_click_on_a_point_opens_its_galaxy(page):
    page.locator("#plots > div").nth(1).scroll_into_view_if_needed()
    place = page.evaluate(
        """() => {
          const plot = Bokeh.documents[0].roots()[1];
          const view = Bokeh.index.get_by_id(plot.id);
          const data = Bokeh.documents[0].get_model_by_name('galaxies').data;
          const frame = view.frame;
          const box = view.el.getBoundingClientRect();
          return [box.x + frame.x_scale.compute(data.redshift[5]) ,
                  box.y + frame.y_scale.compute(data.stellar_mass[5])];
        }"""
    )
    page.mouse.click(*place)
    page.wait_for_function("document.getElementById('galaxy').open")
    assert page.locator("#galaxy-name").inner_text() == "galaxy 5"


def test_plots_are_reached_with_the_keyboard(page):
    place = page.locator("#plots > div").nth(1)
    place.focus()
    page.keyboard.press("ArrowRight")
    first = page.locator("#cursor").inner_text()
    page.keyboard.press("ArrowRight")
    second = page.locator("#cursor").inner_text()
    redshifts = [float(re.search(r"redshift ([\d.]+)", text)[1]) for text in (first, second)]
    expected = np.sort(shown_posterior(N)[0]["redshift"].median().value)[:2]
    assert redshifts == pytest.approx(expected, abs=6e-4)
    # The ring is around the point.
    ring = place.locator(".ring").bounding_box()
    frame = place.bounding_box()
    assert frame["x"] < ring["x"] < frame["x"] + frame["width"]
    assert frame["y"] < ring["y"] < frame["y"] + frame["height"]
    page.keyboard.press(" ")
    assert "1 of 12 galaxies (selected in a plot)" in page.locator("#shown").inner_text()
    page.keyboard.press("Enter")
    page.wait_for_function("document.getElementById('galaxy').open")
    assert page.locator("#galaxy-name").inner_text() == second.partition(": redshift")[0]


def test_finger_draws_boxes_only_if_asked(browser, address):
    context = browser.new_context(
        viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True
    )
    context.set_default_timeout(120_000)
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector("html[data-ready]")
    active = """() => Bokeh.documents[0].roots().map(root =>
        root.toolbar.tools.some(tool => tool.type === 'BoxSelectTool' && tool.active))"""
    assert not any(page.evaluate(active))
    page.click("#finger")
    assert all(page.evaluate(active))
    page.click("#finger")
    assert not any(page.evaluate(active))
    context.close()


def test_cards_and_pictures_greet_a_newcomer(page):
    cards = page.locator("#cards .stat").all_inner_texts()
    assert cards[0].split() == ["12", "galaxies"]
    assert "8%" in cards[1] and "distrust 1" in cards[1]
    width = np.median(
        np.diff(shown_posterior(N)[0]["redshift"].percentiles([16, 84]).value, axis=0)
    )
    assert float(re.search(r"± ([\d.]+)", cards[2])[1]) == pytest.approx(width / 2, abs=3e-3)
    assert page.locator("#table .thumbnail").count() == N


def test_truth_changes_with_its_quantity(page):
    page.select_option("#truth-quantity", "sfr")
    label = page.evaluate("Bokeh.documents[0].roots().at(-1).below[0].axis_label")
    assert label == "true log SFR [M☉/yr]"
    assert page.locator("#scores tbody tr").count() == 9
    assert page.locator("#worst li").count() == 10


def test_dark_mode_follows_the_system(pages):
    colours = [
        pages(scheme=s)[0].evaluate("Bokeh.documents[0].roots()[0].background_fill_color")
        for s in ("light", "dark")
    ]
    assert colours == ["#ffffff", "#15181c"]


@pytest.mark.parametrize("page", [{"scheme": "dark"}, {"scheme": "light"}], indirect=True)
def test_text_has_enough_contrast(page):
    """The ratio of luminances is at least 4.5 (WCAG 2, level AA), in the figures too."""
    ratios = page.evaluate(
        """() => {
          const rgb = (color) => {
            const place = document.createElement('p');
            place.style.color = color;
            document.body.append(place);
            const found = getComputedStyle(place).color.match(/[0-9.]+/g).map(Number);
            place.remove();
            return found;
          };
          const lum = (c) => rgb(c).slice(0, 3).map(v => v / 255)
            .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
            .reduce((s, v, i) => s + v * [0.2126, 0.7152, 0.0722][i], 0);
          const ratio = (a, b) => { const [x, y] = [lum(a), lum(b)].sort((p, q) => q - p);
            return (x + 0.05) / (y + 0.05); };
          const style = getComputedStyle(document.documentElement);
          const get = (name) => style.getPropertyValue('--' + name).trim();
          const plot = Bokeh.documents[0].roots()[0];
          return [ratio(get('ink'), get('page')), ratio(get('soft'), get('page')),
            ratio(get('soft'), get('panel')), ratio(get('bad-text'), get('page')),
            ratio(get('focus'), get('page')),
            ratio(plot.below[0].axis_label_text_color, plot.background_fill_color)];
        }"""
    )
    assert min(ratios) >= 4.5
