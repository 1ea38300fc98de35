"""Files of surveys: reading, writing, registration, and invalid files."""

import math
import subprocess
import sys
from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest

from astrogenspec.surveys import (
    SDSS,
    CatalogueFormat,
    Filter,
    Survey,
    get_filter,
    get_survey,
    register_survey,
    registry,
    survey_names,
)
from astrogenspec.surveys.survey_files import BAND_KEYS

EXAMPLE = """
name: mine
title: A survey
pixel_scale: 0.25
reference_band: r
magnitude_range: [15, 23]
bands:
  g: {filter: decamDR1-g, psf_fwhm: 1.2, depth: 24.0, calibration_error: 0.01}
  r: {filter: decamDR1-r, psf_fwhm: 1100 marcsec, depth: 23.5}
catalogue:
  - {name: main, value: "F_{BAND}", error: "E_{band_lower}", zero_point: 30.0,
     fill_values: {99: non-detection, -99: missing}, identifying: [F_G]}
references: [A paper]
"""


def read(tmp_path, text, name="mine.yaml"):
    (tmp_path / name).write_text(text)
    return Survey.read(tmp_path / name)


@pytest.fixture(autouse=True)
def _registry(monkeypatch):
    monkeypatch.setattr(registry, "_REGISTERED", {})


def test_numbers_and_what_follows(tmp_path):
    survey = read(tmp_path, EXAMPLE)
    assert survey.bands == ("g", "r")
    assert survey.psf_fwhm["r"].to_value(u.arcsec) == pytest.approx(1.1)
    assert survey.pixel_scale == 0.25 * u.arcsec
    assert survey.magnitude_range == (15.0, 23.0) and survey.redshift_range is None
    assert survey.calibration_error["g"] == 0.01 and math.isnan(survey.calibration_error["r"])
    assert survey.filters["g"] is get_filter("decamDR1-g")
    for band in survey.bands:
        curve = get_filter(f"decamDR1-{band}")
        assert survey.extinction_coefficient[band] == curve.extinction_coefficient
        assert survey.pivot_wavelength[band] == curve.pivot
    (found,) = survey.catalogue
    assert found.fill_values == {99.0: "non-detection", -99.0: "missing"}
    assert found.columns(["f_g", "E_g", "F_R"], survey.bands) == {"g": ("f_g", "E_g")}
    assert found.identifies(["f_g"]) and not found.identifies(["f_r"])


def test_pixel_noise_follows_from_depth(tmp_path):
    """An optimally weighted point source at the depth has a signal-to-noise ratio of 5."""
    survey = read(tmp_path, EXAMPLE)
    y, x = np.mgrid[-40:41, -40:41] * survey.pixel_scale.to_value(u.arcsec)
    sigma = survey.psf_fwhm["g"].to_value(u.arcsec) / np.sqrt(8 * np.log(2))
    psf = np.exp(-(x**2 + y**2) / (2 * sigma**2))
    flux = 10 ** (0.4 * (22.5 - survey.depth["g"])) * psf / psf.sum()
    ratio = np.sqrt(np.sum((flux / survey.pixel_sigma["g"]) ** 2))
    assert ratio == pytest.approx(5, rel=1e-3)


def test_electrons_per_nmgy():
    assert SDSS.electrons_per_nmgy["r"] == pytest.approx(4.72 / 0.0052)
    time = dict.fromkeys(SDSS.bands, 100 * u.s)
    none = dict.fromkeys(SDSS.bands, math.nan)
    other = replace(SDSS, gain=none, exposure_time=time, zero_point=dict.fromkeys(SDSS.bands, 25.0))
    assert other.electrons_per_nmgy["r"] == pytest.approx(1000)


@pytest.mark.parametrize("name", ["one", "sdss"])
def test_round_trip(tmp_path, name):
    survey = read(tmp_path, EXAMPLE) if name == "one" else SDSS
    survey.write(tmp_path / "again.yaml")
    again = Survey.read(tmp_path / "again.yaml")
    for key in ("name", "title", "bands", "pixel_scale", "catalogue", "references", "filters"):
        assert getattr(again, key) == getattr(survey, key)
    for key in BAND_KEYS:
        for band in survey.bands:
            pair = [getattr(item, key)[band] for item in (survey, again)]
            one, two = (getattr(value, "value", value) for value in pair)
            assert one == two or (math.isnan(one) and math.isnan(two))
    with pytest.raises(FileExistsError, match="already exists"):
        survey.write(tmp_path / "again.yaml")
    survey.write(tmp_path / "again.yaml", overwrite=True)


CURVED = "name: box\nbands:\n  x: {filter: x.ecsv}\n  g: {filter: decamDR1-g}\n"


def test_curve_beside_the_file(tmp_path):
    curve = Filter("any-x", "x", [4999, 5000, 6000, 6001], [0, 1, 1, 0])
    curve.write(tmp_path / "x.ecsv")
    survey = read(tmp_path, CURVED)
    assert survey.filter_names == {"x": "box-x", "g": "decamDR1-g"}
    assert survey.filters["x"].pivot == curve.pivot
    register_survey(survey)
    assert get_filter("box-x") == survey.filters["x"]
    folder = tmp_path / "other"
    folder.mkdir()
    survey.write(folder / "box.yaml")
    assert Survey.read(folder / "box.yaml").filters == survey.filters
    assert sorted(path.name for path in folder.iterdir()) == ["box.yaml", "box_x.ecsv"]
    (tmp_path / "x.ecsv").unlink()
    with pytest.raises(FileNotFoundError, match="x.ecsv' does not exist"):
        read(tmp_path, CURVED)


def test_registration(tmp_path):
    survey = read(tmp_path, EXAMPLE)
    register_survey(survey)
    register_survey(survey)
    assert get_survey("MINE") is survey and "mine" in survey_names()
    assert get_survey(str(tmp_path / "mine.yaml")).name == "mine"
    other = read(tmp_path, EXAMPLE)
    with pytest.raises(ValueError, match="is registered already; pass overwrite=True"):
        register_survey(other)
    register_survey(other, overwrite=True)
    assert get_survey("mine") is other
    with pytest.raises(ValueError, match="is part of the package; give yours another name"):
        register_survey(replace(SDSS))
    with pytest.raises(TypeError, match="survey is of type str, but it must be a Survey"):
        register_survey("mine")
    with pytest.raises(ValueError, match="Did you mean 'mine'"):
        get_survey("mime")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("name: mine", "title2: x", "the file has the unknown key 'title2'"),
        ("name: mine\n", "", "mine.yaml: the key 'name' is missing"),
        ("bands:\n", "bandz:\n", "unknown key 'bandz'"),
        ("pixel_scale: 0.25", "pixel_scale: wide", "pixel_scale is 'wide', but it must be a num"),
        ("pixel_scale: 0.25", "pixel_scale: 0.25 s", "a number, in arcsec"),
        ("pixel_scale: 0.25", "pixel_scale: -1", "pixel_scale is -1, but it must be positive"),
        ("pixel_scale: 0.25", "pixel_scale: .nan", "must be a number"),
        ("depth: 24.0", "depth: true", "depth of band g is True, but it must be a number"),
        ("psf_fwhm: 1.2", "psf_fwhm: [1]", "psf_fwhm of band g is .* must be a number"),
        ("psf_fwhm: 1.2", "seeing: 1.2", "band g has the unknown key 'seeing'"),
        ("  r: {filter", "  g: {filter", "repeats the key 'g'"),
        ("filter: decamDR1-g", "filter: decam-g", "the filter 'decam-g' is unknown"),
        ("filter: decamDR1-g, ", "", "band g must be a mapping with the key filter"),
        ("reference_band: r", "reference_band: z", "reference_band .* is 'z', but its bands are"),
        ("[15, 23]", "[23, 15]", "the first must be the smaller one"),
        ("[15, 23]", "15", "must be a list of two numbers"),
        ("[A paper]", "A paper", "references must be a list"),
        ("name: main", "title: main", "an item of catalogue has the unknown key 'title'"),
        ("zero_point: 30.0", "zero_point: high", "zero_point is 'high'"),
        ("zero_point: 30.0", "kind: fluxes", "kind .* is 'fluxes', but it must be one of flux"),
        ("F_{BAND}", "FLUX", "must contain {band}"),
        ("-99: missing", "-99: lost", "means 'lost', but it must be one of missing"),
        ("bands:", "bands: [1", "is not a valid YAML file"),
        ("name: mine", "name: my survey", "a survey has a name of letters"),
        ("name: mine", "name: 3", "name is 3, but it must be a text"),
        ("name: mine", "name: mine\n? [1]\n: 2", "unhashable|unknown key"),
        ("name: mine", "name: !!python/name:os.system", "is not a valid YAML file"),
        ("filter: decamDR1-g", "filter: 3", "filter of band g is 3, but it must be a text"),
        ('error: "E_{band_lower}"', "error: 3", "error is 3, but it must be a text"),
        ("{99: non-detection, -99: missing}", "[99]", "fill_values .* must be a mapping"),
        ("[F_G]", "F_G", "identifying in catalogue must be a list"),
        (EXAMPLE, "just text", "must hold a mapping with the keys name and bands"),
        (EXAMPLE, "name: x\nbands: {1: {filter: decamDR1-g}}", "bands has the key 1"),
        (EXAMPLE, "name: x\nbands: []", "bands must be a mapping"),
    ],
)
def test_invalid_files(tmp_path, old, new, words):
    assert old in EXAMPLE
    with pytest.raises(ValueError, match=words) as caught:
        read(tmp_path, EXAMPLE.replace(old, new, 1))
    assert "\n" not in str(caught.value)


def test_other_encodings_are_refused(tmp_path):
    (tmp_path / "x.yaml").write_bytes("name: \xe9".encode("latin-1"))
    with pytest.raises(ValueError, match="is not a valid YAML file"):
        Survey.read(tmp_path / "x.yaml")


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="the survey file .* does not exist"):
        Survey.read(tmp_path / "no.yaml")


def test_surveys_without_curves_say_where_to_get_them(tmp_path):
    text = "name: x\ncurves_note: get them there.\nbands: {g: {filter: there-g, psf_fwhm: 1}}"
    survey = read(tmp_path, text)
    assert survey.psf_fwhm["g"] == 1 * u.arcsec and math.isnan(survey.extinction_coefficient["g"])
    with pytest.raises(ValueError, match="the survey x has no curves of its bands g: get them"):
        _ = survey.filters


def test_mistakes_in_constructors():
    with pytest.raises(ValueError, match="give each band once"):
        Survey("x", ("g", "g"), {"g": "decamDR1-g"})
    with pytest.raises(ValueError, match="depth of the survey x has the keys r, but its bands"):
        Survey("x", ("g",), {"g": "decamDR1-g"}, depth={"r": 24.0})
    with pytest.raises(ValueError, match="name is 'a survey', but a survey has a name of letters"):
        Survey("a survey", ("g",), {"g": "decamDR1-g"})
    with pytest.raises(ValueError, match="curves of the survey x has the keys r"):
        Survey("x", ("g",), {"g": "decamDR1-g"}, curves={"r": get_filter("decamDR1-r")})
    for given, words in (
        (
            {"psf_fwhm": {"g": 1.2}},
            r"psf_fwhm\['g'\] .* is 1.2, but it must be a Quantity in arcsec",
        ),
        ({"psf_fwhm": {"g": 1.2 * u.s}}, "must be a Quantity in arcsec"),
        ({"psf_fwhm": {"g": [1, 2] * u.arcsec}}, "must be a Quantity in arcsec"),
        ({"depth": {"g": 24 * u.ABmag}}, "must be a number"),
        ({"depth": {"g": "24"}}, "must be a number"),
        ({"pixel_scale": 0.3}, "pixel_scale of the survey x is 0.3, but it must be a Quantity"),
    ):
        with pytest.raises(TypeError, match=words):
            Survey("x", ("g",), {"g": "decamDR1-g"}, **given)
    minimal = Survey("x", ("g",), {"g": "decamDR1-g"})
    assert repr(minimal) == "<Survey x: bands g>"
    assert math.isnan(minimal.pixel_sigma["g"])


def test_catalogue_format():
    names = ["FLUX_G", "flux_ivar_g", "flux_r", "EBV", "a_g"]
    tractor = CatalogueFormat("t", "flux_{band}", "flux_ivar_{band}", ebv="ebv")
    assert tractor.columns(names, "grz") == {"g": ("FLUX_G", "flux_ivar_g")}
    assert tractor.matches(names, "g") and not tractor.matches(names, "z")
    assert tractor.find(tractor.ebv, names) == "EBV"
    assert tractor.find("a_{band}", names, "g") == "a_g"
    assert tractor.find(None, names) is None
    renamed = CatalogueFormat("r", "{band}_mag", band_names={"Ks": "k_m"})
    assert renamed.columns(["k_m_mag"], ("J", "Ks")) == {"Ks": ("k_m_mag", None)}


def test_import_reads_no_curves():
    code = "import astrogenspec.surveys, sys; print('speclite' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
