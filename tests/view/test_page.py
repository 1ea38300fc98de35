"""Tests of the content of the pages, and of their files."""

import json
import re

import numpy as np
import pytest
from posterior_cases import flagged_posterior
from spectrum_cases import some_spectra
from view_cases import HOSTILE, rotated_cutout, shown_posterior

from astrogenspec.quantities import internal_values
from astrogenspec.view import page_text, results_page
from astrogenspec.view.content import galaxy_columns, page_content, truth_content
from astrogenspec.view.packing import MISSING, quantised, rounded
from astrogenspec.view.pictures import picture_of


def content_of(text):
    return json.loads(re.search(r'id="content">(.*?)</script>', text, re.S)[1])


def test_page_is_self_contained(tmp_path):
    posterior, _ = shown_posterior()
    path = results_page(tmp_path / "page.html", posterior)
    text = path.read_text()
    own = re.sub(r"<script>.*?</script>", "", text, flags=re.S)
    assert not re.search(r"(?:src|href)=[\"'](?!#|data:)", own)
    assert "{{" not in re.sub(r"<script.*?</script>", "", text, flags=re.S)
    assert text.count("<script>") == 3
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_names_cannot_become_markup():
    posterior, _ = shown_posterior()
    text = page_text(posterior, title=HOSTILE)
    assert "<script>document.title" not in text
    assert content_of(text)["galaxies"]["name"][1] == HOSTILE


def test_columns_are_those_of_the_posterior():
    posterior, _ = shown_posterior()
    columns = galaxy_columns(posterior)
    table = posterior.to_table()
    for name in ("redshift", "sfr"):
        np.testing.assert_allclose(columns[name], table[f"{name}_median"].value, rtol=1e-5)
        np.testing.assert_allclose(columns[f"{name}_low"], table[f"{name}_p16"].value, rtol=1e-5)
        bits = table[f"{name}_information"].value
        np.testing.assert_allclose(columns[f"{name}_bits"], bits, rtol=5e-3)
    log_flux = np.median(np.log10(posterior["halpha_flux"].draws.value), axis=1)
    np.testing.assert_allclose(columns["halpha_flux"], log_flux, rtol=1e-5)
    assert columns["codes"][2] == ["saturated", "off centre"]
    assert columns["codes"][0] == []


def test_colours_are_without_extinction():
    posterior, _ = shown_posterior(3)
    photometry = posterior.photometry
    photometry["extinction_g"][:] = 0.2 * photometry["extinction_g"].unit
    dusty = posterior._replaced(_photometry=photometry)
    columns = galaxy_columns(dusty)
    assert columns["colours"] == ["r − i [mag]", "g − r [mag]"]
    np.testing.assert_allclose(columns["colour_x"], 0.3, atol=1e-3)
    np.testing.assert_allclose(columns["colour_y"], 0.4, atol=1e-3)


def test_packed_draws_and_histograms():
    posterior, _ = shown_posterior(5, 40)
    content = page_content(posterior)
    described = content["quantities"][5]
    assert described["key"] == "halpha_flux"
    assert described["logarithmic"]
    arrays = unpacked(content["arrays"])
    codes = arrays["draws"][5]
    span = described["high"] - described["low"]
    values = described["low"] + codes / (MISSING - 1) * span
    expected = internal_values("halpha_flux", posterior["halpha_flux"].draws)
    np.testing.assert_allclose(values, expected, atol=span / MISSING)
    histogram = arrays["histograms"][5]
    assert histogram.max(axis=1).tolist() == [255] * 5
    edges = np.linspace(described["low"], described["high"], content["bins"] + 1)
    counts = np.histogram(expected[3], edges)[0]
    np.testing.assert_array_equal(histogram[3], np.rint(255 * counts / counts.max()))


def unpacked(pack):
    import base64
    import gzip

    data = gzip.decompress(base64.b64decode(pack["data"]))
    return {
        name: np.frombuffer(
            data, entry["type"], int(np.prod(entry["shape"])), entry["offset"]
        ).reshape(entry["shape"])
        for name, entry in pack["arrays"].items()
    }


def test_spectra_are_packed_with_their_limits():
    posterior, _ = shown_posterior(4)
    spectra = some_spectra(4, bad=2)
    content = page_content(posterior, spectra=spectra)
    packed = content["spectra"]
    codes = unpacked(content["arrays"])["spectra"]
    low, high = packed["limits"][0]
    best = low + codes[0, 0] / (MISSING - 1) * (high - low)
    expected = spectra.flux.value[0, spectra.best_draw[0]]
    np.testing.assert_allclose(best, expected, atol=(high - low) / 6e4)
    median = low + codes[0, 3] / (MISSING - 1) * (high - low)
    np.testing.assert_allclose(median, spectra[0].median.flux.value, atol=(high - low) / 6e4)
    assert (codes[2] == MISSING).all()
    assert packed["redshift"][2] is None
    assert packed["redshift"][0] == pytest.approx(spectra[0].best.redshift.value, rel=1e-5)
    bad = np.ones(300, bool)
    for first, last in packed["not_trusted"][1]:
        bad[first : last + 1] = False
    np.testing.assert_array_equal(bad, spectra.trusted[1])


def test_truth_is_matched_by_name_and_the_worst_come_first():
    posterior, truth = shown_posterior()
    truth["redshift"][4] = posterior["redshift"].median()[4] + 1.0
    found = truth_content(posterior, truth[::-1])
    medians = galaxy_columns(posterior)["redshift"]
    assert found["values"]["redshift"][4] == pytest.approx(medians[4] + 1.0, rel=1e-4)
    assert found["worst"][0]["galaxy"] == 4
    assert found["worst"][0]["quantity"] == "redshift"
    assert found["worst"][0]["sigma"] < -20
    assert len(found["worst"]) == 10
    row = next(row for row in found["scores"] if row["quantity"] == "sfr")
    assert row["n"] == 12


def test_truth_without_a_quantity_is_an_error():
    posterior, truth = shown_posterior()
    with pytest.raises(ValueError, match="truth has no values of a quantity of the posterior"):
        page_text(posterior, truth=truth[["name"]])


def test_galaxy_without_draws_is_missing():
    posterior, _ = flagged_posterior()
    columns = galaxy_columns(posterior)
    assert columns["usable"] == [True, True, False, True]
    assert columns["redshift"][2] is None
    assert content_of(page_text(posterior))["galaxies"]["flag"][2] == "no flux in any band"


def test_picture_has_the_directions_of_the_sky():
    picture = picture_of(rotated_cutout(angle=30.0))
    assert picture.size == (16, 16)
    assert picture.scale == pytest.approx(0.4, rel=1e-4)
    # North is 30 degrees to the right of up, and east 90 degrees to the left of north.
    np.testing.assert_allclose(picture.north, [0.5, -np.sqrt(0.75)], atol=1e-3)
    np.testing.assert_allclose(picture.east, [-np.sqrt(0.75), -0.5], atol=1e-3)


def test_large_picture_is_reduced():
    picture = picture_of(rotated_cutout(size=100), largest=40)
    assert max(picture.size) == 40
    assert picture.scale == pytest.approx(0.4 * 2.5, rel=1e-4)


def test_picture_is_upright():
    import base64
    import io

    from PIL import Image

    cutout = rotated_cutout(size=32)
    for image in cutout.values():
        image.data[:] = 0
        image.data[24:28, 4:8] = 50
    data = picture_of(cutout).data.split(",")[1]
    grey = np.array(Image.open(io.BytesIO(base64.b64decode(data))).convert("L"), float)
    row, column = np.unravel_index(grey.argmax(), grey.shape)
    # The last rows of the array are at the top.
    assert row < 16
    assert column < 16


def test_pictures_are_in_the_order_of_the_galaxies():
    posterior, _ = shown_posterior(3)
    text = page_text(posterior, cutouts=[None, rotated_cutout(), None])
    pictures = content_of(text)["pictures"]["image"]
    assert [picture is not None for picture in pictures] == [False, True, False]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cutouts": [None]}, "cutouts has 1 galaxies, but the posterior has 12"),
        ({"spectra": some_spectra(3)}, "spectra has 3 galaxies, but the posterior has 12"),
        ({"reconstructions": np.ones((2, 5, 8, 8))}, "reconstructions has 2 galaxies"),
    ],
)
def test_content_of_other_galaxies_is_an_error(arguments, message):
    posterior, _ = shown_posterior()
    with pytest.raises(ValueError, match=message):
        page_text(posterior, **arguments)


def test_files_are_not_replaced_without_permission(tmp_path):
    posterior, _ = shown_posterior(3)
    path = tmp_path / "page.html"
    path.write_text("old")
    with pytest.raises(FileExistsError, match="already exists"):
        posterior.to_html(path)
    assert path.read_text() == "old"
    posterior.to_html(path, overwrite=True)
    assert path.read_text().startswith("<!DOCTYPE html>")
    with pytest.raises(ValueError, match=r"must end in \.html"):
        posterior.to_html(tmp_path / "page.txt")


def test_no_galaxies_is_an_error():
    posterior, _ = shown_posterior(3)
    with pytest.raises(ValueError, match="has 0 galaxies, but a page shows 1 to"):
        page_text(posterior[:0])


def test_codes_keep_order_and_missing_values():
    codes = quantised(np.array([-1.0, 0.0, 0.5, 1.0, 2.0, np.nan]), 0.0, 1.0)
    assert codes.tolist() == [0, 0, 32767, 65534, 65534, MISSING]
    assert rounded(np.array([1.23456, np.nan]), 3) == [1.23, None]
