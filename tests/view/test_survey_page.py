"""Tests of the page of a survey run: sums, maps, and the page in a real browser."""

import csv
import json
import re

import numpy as np
import pytest
from view_cases import HOSTILE, open_browser

from astrogenspec import Flag
from astrogenspec.cli import main
from astrogenspec.quantities import QUANTITIES

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("cdshealpix")

from astrogenspec.view import survey_page  # noqa: E402
from astrogenspec.view import survey_sums as sums_module  # noqa: E402
from astrogenspec.view.sky_maps import sky_projection  # noqa: E402
from astrogenspec.view.survey_files import SurveyFiles  # noqa: E402
from astrogenspec.view.survey_page import survey_sums  # noqa: E402

N = 900


def survey_table(n=N, seed=2, **changes):
    """Return the columns of a result in a patch of the sky of 10 degrees."""
    rng = np.random.default_rng(seed)
    columns = {"object_id": np.arange(n) + 2**60}
    columns["ra"], columns["dec"] = rng.uniform(355, 365, n) % 360, rng.uniform(-3, 3, n)
    for k, (name, info) in enumerate(QUANTITIES.items()):
        value = 0.1 + 0.03 * rng.random(n) if name == "redshift" else k + rng.normal(size=n)
        width = 0.01 if name == "redshift" else 0.3
        low, high = value - width, value + width
        if info.logarithmic:
            low, value, high = 10**low, 10**value, 10**high
        for end, x in (("p16", low), ("median", value), ("p84", high)):
            columns[f"{name}_{end}"] = x.astype(np.float32)
    columns["flags"] = np.where(np.arange(n) % 10 == 0, int(Flag.SATURATED), 0)
    columns["flags"][5] = int(Flag.SATURATED | Flag.OFF_CENTRE)
    return columns | {"run": np.full(n, "0" * 16)} | changes


def write_run(folder, columns, parts=3, **manifest):
    """Write a result as ``astrogenspec survey`` does."""
    (folder / "data").mkdir(parents=True)
    (folder / "bad_rows").mkdir()
    n = len(columns["ra"]) if "ra" in columns else N
    for k, rows in enumerate(np.array_split(np.arange(n), parts)):
        table = pa.table({name: values[rows] for name, values in columns.items()})
        parquet.write_table(table, folder / "data" / f"part-{k:06d}.parquet", row_group_size=70)
    parquet.write_table(pa.table({"row": [1]}), folder / "bad_rows" / "part-000000.parquet")
    content = {"inference": {"ids": "object_id", "draws": 20}, "weights": {"name": "tiny"}}
    content |= {"files": [{"rows": n}]} | manifest
    (folder / "manifest.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run", survey_table())


def content_of(path):
    return json.loads(re.search(r'id="content">(.*?)</script>', path.read_text(), re.S)[1])


def test_sums_are_those_of_all_galaxies(run, monkeypatch):
    monkeypatch.setattr(sums_module, "SAMPLE", 100)
    table = survey_table()
    found = survey_sums(SurveyFiles(run))
    assert found.n == N
    assert found.n_flagged == np.count_nonzero(table["flags"]) == 91
    assert found.flag_codes == {int(Flag.SATURATED): 91, int(Flag.OFF_CENTRE): 1}
    for name in QUANTITIES:
        assert found.counts[name].sum() == N
        assert found.counts[name][1].sum() == 91
    density = found.densities["mass"]
    assert density.counts.sum() + density.outside == N
    expected, _, _ = np.histogram2d(
        table["stellar_mass_median"],
        table["redshift_median"],
        bins=density.counts.shape[:0:-1][::-1],
        range=[[density.y.low, density.y.high], [density.x.low, density.x.high]],
    )
    np.testing.assert_array_equal(density.counts.sum(axis=0), expected)
    # Every galaxy of the sample is one of the catalogue, once, with its own values.
    rows = found.sample["object_id"] - 2**60
    assert len(set(rows)) == 100
    np.testing.assert_allclose(found.sample["sfr"], table["sfr_median"][rows], rtol=1e-6)
    np.testing.assert_allclose(
        found.sample["halpha_flux"], np.log10(table["halpha_flux_median"][rows]), rtol=1e-5
    )


def test_sums_do_not_depend_on_the_files(tmp_path):
    one = survey_sums(SurveyFiles(write_run(tmp_path / "one", survey_table(), parts=1)))
    many = survey_sums(SurveyFiles(write_run(tmp_path / "many", survey_table(), parts=7)))
    np.testing.assert_array_equal(one.sky.pixels, many.sky.pixels)
    np.testing.assert_allclose(one.sky.sums, many.sky.sums, rtol=1e-12)
    for name in QUANTITIES:
        np.testing.assert_array_equal(one.counts[name], many.counts[name])


def test_maps_have_means_of_their_pixels(run, monkeypatch):
    from cdshealpix.nested import healpix_to_lonlat

    table = survey_table()
    sky = survey_sums(SurveyFiles(run)).sky
    assert sky.sums[:, 0].sum() == N and sky.sums[:, 1].sum() == 91
    assert sky.sums[:, 3].sum() == pytest.approx(table["redshift_median"].sum(), rel=1e-6)
    coarse = sky.coarser(20)
    assert coarse.order < sky.order and np.median(coarse.sums[:, 0]) >= 20
    assert coarse.sums[:, 0].sum() == N
    longitude, latitude = healpix_to_lonlat(coarse.pixels.astype(np.uint64), coarse.order)
    assert np.abs(latitude.deg).max() < 8
    monkeypatch.setattr(sums_module, "MAX_PIXELS", 40)
    limited = survey_sums(SurveyFiles(run)).sky
    assert len(limited.pixels) <= 40 and limited.sums[:, 0].sum() == N


def test_projection_is_chosen_by_the_extent():
    rng = np.random.default_rng(0)
    wcs, shape = sky_projection(rng.uniform(355, 365, 500) % 360, rng.uniform(-3, 3, 500))
    assert wcs.wcs.ctype[0] == "RA---ZEA"
    assert min(abs(wcs.wcs.crval[0]), abs(wcs.wcs.crval[0] - 360)) < 0.5
    x, y = wcs.all_world2pix([356.0, 4.0], [2.0, -2.0], 0)
    # North is up, east is on the left, and everything is on the grid.
    assert y[0] > y[1] and x[1] < x[0]
    assert (x > 0).all() and (x < shape[1]).all() and (y > 0).all() and (y < shape[0]).all()
    wcs, shape = sky_projection(rng.uniform(0, 360, 500), rng.uniform(-80, 80, 500))
    assert wcs.wcs.ctype[0] == "RA---MOL"
    x, y = wcs.all_world2pix([wcs.wcs.crval[0] - 179.999], [0.0], 0)
    assert x[0] == pytest.approx(shape[1] - 1.5, abs=1)
    _, y = wcs.all_world2pix([0.0], [90.0], 0)
    assert y[0] == pytest.approx(shape[0] - 1.0, abs=1)


def test_command_writes_the_page(run, tmp_path, capsys):
    page = tmp_path / "survey.html"
    assert main(["report", str(run), "-o", str(page), "--title", "Deep <field>"]) == 0
    assert f"{N} galaxies: {page}" in capsys.readouterr().out
    content = content_of(page)
    assert content["n"] == N and content["n_expected"] == N and content["n_quarantined"] == 0
    assert content["about"]["weights"] == "tiny" and content["about"]["draws"] == 20
    assert content["flags"] == [
        {"name": "saturated", "count": 91},
        {"name": "off centre", "count": 1},
    ]
    assert [view["key"] for view in content["views"]][:2] == ["redshift", "mass"]
    assert "<title>Deep &lt;field&gt;</title>" in page.read_text()
    redshift = content["quantities"][0]
    assert redshift["typical"] == pytest.approx(0.01, rel=0.05)
    assert main(["report", str(run), "-o", str(page)]) == 2
    assert "exists" in capsys.readouterr().err
    assert main(["report", str(run), "-o", str(tmp_path / "b.html"), "--truth", "t.csv"]) == 2
    assert "--truth belongs to" in capsys.readouterr().err


def test_incomplete_runs_are_reported(tmp_path):
    run = write_run(tmp_path / "run", survey_table(), files=[{"rows": N + 50}])
    (run / "quarantine").mkdir()
    (run / "quarantine" / "part-000007.json").write_text("{}")
    survey_page(tmp_path / "a.html", run)
    content = content_of(tmp_path / "a.html")
    assert (content["n"], content["n_expected"], content["n_quarantined"]) == (N, N + 50, 1)


def test_result_without_positions_has_no_map(tmp_path):
    columns = survey_table()
    del columns["ra"], columns["dec"], columns["object_id"]
    run = write_run(tmp_path / "run", columns)
    survey_page(tmp_path / "a.html", run)
    content = content_of(tmp_path / "a.html")
    assert content["sky"] is None and content["sample"]["identifiers"] is None


def test_one_file_and_a_catalogue_of_hats_are_read(tmp_path):
    table = pa.table(survey_table())
    parquet.write_table(table, tmp_path / "one.parquet")
    assert survey_page(tmp_path / "a.html", tmp_path / "one.parquet") == N
    folder = tmp_path / "collection" / "primary" / "dataset" / "Norder=0" / "Dir=0" / "Npix=4"
    folder.mkdir(parents=True)
    parquet.write_table(table, folder / "part-000000.parquet")
    margin = tmp_path / "collection" / "margin" / "dataset"
    margin.mkdir(parents=True)
    parquet.write_table(table, margin / "part-000000.parquet")
    parquet.write_table(table.slice(0, 0), folder.parents[2] / "_metadata.parquet")
    properties = "hats_primary_table_url=primary\ndefault_margin=margin\n"
    (tmp_path / "collection" / "collection.properties").write_text(properties)
    assert survey_page(tmp_path / "b.html", tmp_path / "collection") == N


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [("missing", FileNotFoundError, "no file"), ("empty", FileNotFoundError, "no parquet files")],
)
def test_missing_results_are_named(tmp_path, source, error, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(error, match=message):
        survey_page(tmp_path / "a.html", tmp_path / source)
    parquet.write_table(pa.table({"x": [1]}), tmp_path / "empty" / "x.parquet")
    with pytest.raises(ValueError, match="no column such as redshift_median"):
        survey_page(tmp_path / "a.html", tmp_path / "empty")
    with pytest.raises(ValueError, match="must end in .html"):
        survey_page(tmp_path / "a.txt", tmp_path / "empty")


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    folder = tmp_path_factory.mktemp("survey")
    names = np.array([f"galaxy {k}" for k in range(N)], dtype=object)
    names[:] = HOSTILE
    columns = survey_table(object_id=names)
    survey_page(folder / "page.html", write_run(folder / "run", columns))
    with open_browser() as browser:
        yield browser, (folder / "page.html").as_uri()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_page_in_the_browser(shown, width, scheme, tmp_path):
    browser, address = shown
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
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.locator("#views svg").count() == 6
    assert page.locator("#sky svg image").get_attribute("href").startswith("data:image/png")
    assert "Distrust 91 of 900 galaxies" in page.locator("#warning").inner_text()
    assert page.title() != "owned" and page.locator("#table tbody b").count() == 0
    assert page.locator("#table tbody tr td").first.inner_text() == HOSTILE
    # A box drawn with the mouse, on the upper half of the second plot.
    plot = page.locator("#views svg").nth(1)
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    page.mouse.move(box["x"] + 0.15 * box["width"], box["y"] + 0.12 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.95 * box["width"], box["y"] + 0.45 * box["height"], steps=5)
    page.mouse.up()
    selected = page.locator("#selected").inner_text()
    n = int(re.match(r"([\d,]+) galaxies are selected", selected)[1].replace(",", ""))
    assert 100 < n < 800
    # With the keyboard, on the map.
    page.locator("#sky svg").focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    fewer = page.locator("#selected").inner_text()
    assert fewer != selected
    with page.expect_download() as started:
        page.click("#download")
    started.value.save_as(tmp_path / "sample.csv")
    with (tmp_path / "sample.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == int(re.match(r"([\d,]+) galaxies", fewer)[1])
    page.keyboard.press("Escape")
    page.click("#clear")
    page.check("#good")
    assert page.locator("#shown").inner_text().startswith("809 galaxies")
    page.select_option("#layer", "1")
    assert "Fraction with flags" in page.locator("#scale").inner_text()
    context.close()
    assert messages == []
    assert [a for a in addresses if not a.startswith(("file:", "data:", "blob:"))] == []
