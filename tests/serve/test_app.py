"""Tests of the web application in a real browser."""

import base64
import json
from pathlib import Path

import pytest
from astropy.io import ascii as astropy_ascii
from view_cases import HOSTILE, open_browser

from astrogenspec.demo import load_cutouts
from astrogenspec.inputs.cutout_fits import write_cutout_fits
from astrogenspec.inputs.cutouts import coerce_cutouts

MINUTES = 120_000


@pytest.fixture(scope="module")
def browser():
    with open_browser() as started:
        yield started


@pytest.fixture
def page(browser, address, request):
    """Open the application; afterwards there is no message on the console."""
    settings = {"width": 1280, "scheme": "light"} | getattr(request, "param", {})
    context = browser.new_context(
        viewport={"width": settings["width"], "height": 900},
        color_scheme=settings["scheme"],
        accept_downloads=True,
    )
    context.set_default_timeout(MINUTES)
    opened, messages, addresses = context.new_page(), [], []
    opened.on("console", lambda m: messages.append(m.text))
    opened.on("pageerror", lambda error: messages.append(str(error)))
    opened.on("request", lambda r: addresses.append(r.url))
    opened.goto(address)
    opened.wait_for_selector("html[data-ready]")
    opened.locator("#name", has_text="demo_spiral").wait_for()
    yield opened
    context.close()
    # The browser reports each reply that is an error, such as that to a wrong file.
    refused = "Failed to load resource: the server responded with a status of 400 (Bad Request)"
    assert [text for text in messages if text != refused] == []
    assert [a for a in addresses if not a.startswith((address, "data:", "blob:"))] == []


def value_of(page, key):
    return float(page.locator(f'#sliders input[data-key="{key}"]').evaluate("e => e.value"))


@pytest.mark.parametrize(
    "page", [{"width": 1280}, {"width": 390, "scheme": "dark"}], indirect=True, ids=str
)
def test_example_is_shown_at_once_and_fits(page):
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.locator("#histograms svg").count() == 9
    assert page.locator("#top .picture img").count() == 2
    page.locator("#strip img").nth(8).wait_for()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_type_magnitudes_move_a_slider_and_download(page, tmp_path):
    page.fill('input[data-band="u"]', "")
    page.fill('input[data-band="r"]', "17.0")
    page.press('input[data-band="r"]', "Enter")
    page.locator("#name", has_text="my galaxy").wait_for()
    assert not page.locator("#traversal").is_visible()
    mass = value_of(page, "stellar_mass")
    # With the keyboard: the slider is far to the right of the inferred redshift.
    page.locator('#sliders input[data-key="redshift"]').focus()
    for _ in range(8):
        page.keyboard.press("PageUp")
    page.locator("#legend", has_text="before").wait_for()
    page.wait_for_timeout(2000)
    assert value_of(page, "stellar_mass") > mass + 0.3
    assert page.locator("#histograms path.before").count() == 9
    assert page.locator('input[data-fix="redshift"]').is_checked()
    page.uncheck('input[data-fix="redshift"]')
    page.locator("#legend", has_text="Dot and bar").wait_for()
    with page.expect_download() as started:
        page.click("#downloads a:has-text('CSV')")
    started.value.save_as(tmp_path / "galaxies.csv")
    table = astropy_ascii.read(tmp_path / "galaxies.csv", format="csv")
    assert list(table["name"]) == ["my galaxy"]
    assert table["stellar_mass_median [dex(solMass)]"][0] == pytest.approx(mass, abs=0.01)


def test_fixing_one_quantity_fixes_those_before_it(page):
    page.check('input[data-fix="sfr"]')
    fixed = [page.locator(f'input[data-fix="{k}"]').is_checked() for k in ("redshift", "sfr")]
    assert fixed == [True, True]
    assert not page.locator('input[data-fix="gas_metallicity"]').is_checked()
    page.locator("#legend", has_text="before").wait_for()
    page.uncheck('input[data-fix="redshift"]')
    assert not page.locator('input[data-fix="sfr"]').is_checked()


def dropped(page, files):
    """Drop files on the page, as from a file manager."""
    transfer = page.evaluate_handle(
        """files => {
          const transfer = new DataTransfer();
          for (const [name, content] of files) {
            const bytes = Uint8Array.from(atob(content), c => c.charCodeAt(0));
            transfer.items.add(new File([bytes], name));
          }
          return transfer;
        }""",
        files,
    )
    page.dispatch_event("#result", "drop", {"dataTransfer": transfer})


def encoded(content):
    return base64.b64encode(content).decode()


def test_dropped_table_lists_its_galaxies_as_text(page):
    text = f'name,mag_g,mag_err_g,mag_r,mag_err_r\n"{HOSTILE}",18,.05,17.3,.05\nb,19,.05,18,.05\n'
    dropped(page, [["mine.csv", encoded(text.encode())]])
    page.locator("#many button", has_text="b").nth(1).wait_for()
    assert page.locator("#name").inner_text() == HOSTILE
    assert page.title() != "owned"
    assert page.locator("#many tbody script, #many tbody b").count() == 0
    page.locator("#many button").nth(1).click()
    assert page.locator("#name").inner_text() == "b"
    assert "ebv" in page.locator("#notes").inner_text()


def test_dropped_image_is_shown_with_its_spectrum(page, tmp_path):
    cutouts, _ = load_cutouts()
    write_cutout_fits(tmp_path / "edge.fits", coerce_cutouts(cutouts[1:2]))
    dropped(page, [["edge.fits", encoded((tmp_path / "edge.fits").read_bytes())]])
    page.locator("#name", has_text="demo_edge_on").wait_for()
    assert page.locator("#top .picture img").first.evaluate("i => i.naturalWidth") == 64
    page.locator("#strip img").nth(8).wait_for()
    page.click("#spectrum-button")
    page.locator("#spectrum svg").wait_for()
    assert "Generated, not observed: 4 draws" in page.locator("#spectrum").inner_text()
    with page.expect_download() as started:
        page.click("#downloads a:has-text('spectra')")
    started.value.save_as(tmp_path / "spectra.fits")
    assert Path(tmp_path / "spectra.fits").read_bytes().startswith(b"SIMPLE")


def test_problem_is_one_sentence(page):
    dropped(page, [["a.h5", encoded(b"x")]])
    page.locator("#problem", has_text="does not end in").wait_for()
    assert page.locator("#name").inner_text() == "demo_spiral"
    dropped(page, [["a.csv", encoded(b"x" * 1_100_000)]])
    page.locator("#problem", has_text="more than this server accepts").wait_for()


def test_forms_are_reached_with_the_keyboard(page):
    page.locator("#tab-type").focus()
    page.keyboard.press("ArrowRight")
    assert (
        page.locator("#panel-files").is_visible() and not page.locator("#panel-type").is_visible()
    )
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "files"
    assert json.loads(page.evaluate("JSON.stringify(document.activeElement.accept)")).count(".") > 4
