"""Surveys of the package: numbers against the literature, and formats of their catalogues."""

import math
from dataclasses import replace
from typing import ClassVar

import astropy.units as u
import numpy as np
import pytest

from astrogenspec.surveys import (
    Survey,
    get_filter,
    get_survey,
    register_survey,
    registry,
    survey_names,
)
from astrogenspec.surveys.survey_files import read_yaml

NAMES = (
    *("2mass", "des", "euclid", "galex", "hsc", "kids", "legacy-dr10", "legacy-dr9-north"),
    *("lsst", "panstarrs", "roman", "sdss", "wise"),
)
WITH_CURVES = tuple(name for name in NAMES if name != "kids")

#: Pivot wavelengths (Angstrom) of Doi et al. (2010); Abbott et al. (2018); Tonry et al. (2012);
#: Kawanomoto et al. (2018); the Rubin throughputs; Schirmer et al. (2022); Cohen et al. (2003);
#: Wright et al. (2010); Morrissey et al. (2007), or computed from their curves by the service of
#: filter profiles of the Spanish Virtual Observatory.
PIVOT = {
    "sdss": {"u": 3588, "g": 4702, "r": 6175, "i": 7490, "z": 8900},
    "des": {"g": 4810, "r": 6417, "i": 7814, "z": 9168, "Y": 9896},
    "panstarrs": {"g": 4849, "r": 6201, "i": 7535, "z": 8674, "y": 9628},
    "hsc": {"g": 4798, "r": 6218, "i": 7727, "z": 8908, "y": 9775},
    "lsst": {"u": 3690, "g": 4800, "r": 6220, "i": 7560, "z": 8690, "y": 9740},
    "euclid": {"Y": 10809, "J": 13673, "H": 17714},
    "2mass": {"J": 12358, "H": 16458, "Ks": 21603},
    "wise": {"W1": 33680, "W2": 46180, "W3": 120820, "W4": 221940},
    "galex": {"FUV": 1535, "NUV": 2301},
    "legacy-dr9-north": {"g": 4770, "r": 6400, "z": 9200},
    "roman": {
        **{"F062": 6291, "F087": 8696, "F106": 10567, "F129": 12901, "F158": 15749},
        **{"F184": 18394, "F213": 21230},
    },
}


def test_all_surveys_are_known():
    assert set(NAMES) <= set(survey_names())
    assert {path.stem for path in registry._FOLDER.glob("*.yaml")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_name_is_that_of_the_file(name):
    survey = get_survey(name)
    assert survey.name == name and survey.title and survey.references
    assert survey.reference_band in survey.bands
    low, high = survey.magnitude_range
    assert 5 < low < high < 28
    assert survey.redshift_range[0] == 0 < survey.redshift_range[1] <= 3


@pytest.mark.parametrize("name", NAMES)
def test_numbers_are_plausible(name):
    survey = get_survey(name)
    assert 0.05 < survey.pixel_scale.to_value(u.arcsec) < 2
    pivots = [value.to_value(u.AA) for value in survey.pivot_wavelength.values()]
    assert pivots == sorted(pivots)
    coefficients = list(survey.extinction_coefficient.values())
    if name != "galex":
        assert coefficients == sorted(coefficients, reverse=True)
    for band in survey.bands:
        assert 0.05 < survey.psf_fwhm[band].to_value(u.arcsec) < 13
        assert 0.005 <= survey.calibration_error[band] < 0.1
        if name != "roman":
            assert 14 < survey.depth[band] < 28 and survey.pixel_sigma[band] > 0


@pytest.mark.parametrize("name", WITH_CURVES)
def test_numbers_are_those_of_the_curves(name):
    survey = get_survey(name)
    assert tuple(survey.filters) == survey.bands
    # SDSS has the coefficients of the literature, and rounded pivot wavelengths.
    pivot_tolerance, tolerance = (1e-3, 0.01) if name == "sdss" else (1e-5, 5e-4)
    for band, curve in survey.filters.items():
        assert curve.band == band and curve.name == survey.filter_names[band]
        assert survey.pivot_wavelength[band].value == pytest.approx(
            curve.pivot.value, rel=pivot_tolerance
        )
        given = survey.extinction_coefficient[band]
        assert given == pytest.approx(curve.extinction_coefficient, rel=tolerance)


@pytest.mark.parametrize(
    ("name", "band", "pivot"),
    [(name, band, value) for name, bands in PIVOT.items() for band, value in bands.items()],
)
def test_pivot_wavelengths_are_those_of_the_literature(name, band, pivot):
    assert get_survey(name).filters[band].pivot.value == pytest.approx(pivot, rel=0.01)


def test_the_curve_of_vis_is_that_before_launch():
    """The passband in flight is about 1.5% bluer, as the survey file says."""
    assert get_survey("euclid").filters["VIS"].pivot.value == pytest.approx(7150, rel=0.02)


class TestKids:
    #: Pivot wavelengths of VIRCAM by the Spanish Virtual Observatory.
    VIRCAM: ClassVar = {"Z": 8786, "Y": 10211, "J": 12541, "H": 16464, "Ks": 21488}

    def test_missing_curves_are_explained(self):
        survey = get_survey("kids")
        assert survey.bands_without_curves == ("u", "g", "r", "i")
        sentence = "the survey kids has no curves of its bands u, g, r, i: take them"
        with pytest.raises(ValueError, match=sentence):
            _ = survey.filters
        with pytest.raises(ValueError, match=sentence):
            survey.filter_of("g")

    @pytest.mark.parametrize("band", VIRCAM)
    def test_curves_of_viking(self, band):
        survey = get_survey("kids")
        curve = survey.filter_of(band)
        assert curve is get_filter(f"kids-{band}")
        assert curve.pivot.value == pytest.approx(self.VIRCAM[band], rel=0.002)
        assert survey.pivot_wavelength[band].value == pytest.approx(curve.pivot.value, rel=1e-5)
        given = survey.extinction_coefficient[band]
        assert given == pytest.approx(curve.extinction_coefficient, rel=5e-4)

    def test_completed(self, tmp_path):
        kids = get_survey("kids")
        part = kids.with_curves({"u": get_filter("sdss2010-u")})
        assert part.bands_without_curves == ("g", "r", "i")
        whole = kids.with_curves({band: f"sdss2010-{band}" for band in "ugri"})
        assert whole.bands_without_curves == () and whole.curves_note is None
        for band in "ugri":
            curve = whole.filters[band]
            assert curve.name == f"sdss2010-{band}"
            assert whole.pivot_wavelength[band] == curve.pivot
            assert whole.extinction_coefficient[band] == curve.extinction_coefficient
        assert whole.extinction_coefficient["J"] == kids.extinction_coefficient["J"]
        whole.write(tmp_path / "whole.yaml")
        again = Survey.read(tmp_path / "whole.yaml")
        np.testing.assert_allclose(again.filters["g"].response, curve_of("sdss2010-g"))
        assert again.catalogue == kids.catalogue

    def test_completed_survey_can_be_registered(self, monkeypatch):
        monkeypatch.setattr(registry, "_REGISTERED", {})
        kids = get_survey("kids")
        whole = kids.with_curves({band: f"sdss2010-{band}" for band in "ugri"})
        register_survey(whole)
        assert get_survey("kids") is whole
        with pytest.raises(ValueError, match="the survey kids is part of the package"):
            register_survey(replace(kids, title="other"))

    def test_unknown_band(self):
        with pytest.raises(ValueError, match="the survey kids has no band 'y'; its bands are u, g"):
            get_survey("kids").with_curves({"y": "lsst2023-y"})


def curve_of(name):
    return get_filter(name).response


@pytest.mark.parametrize("name", ["des", "panstarrs", "hsc", "lsst"])
def test_noise_of_the_depth_is_that_of_the_sky(name):
    """The noise of the depth and that of the sky are independent numbers of the file."""
    survey = get_survey(name)
    area = survey.pixel_scale.to_value(u.arcsec) ** 2
    for band in survey.bands:
        sky = area * 10 ** (0.4 * (22.5 - survey.sky_brightness[band].value))
        sigma = math.sqrt(sky / survey.electrons_per_nmgy[band])
        # Stacks lose pixels to gaps and masks, and their point sources are not weighted optimally.
        assert 0.8 < survey.pixel_sigma[band] / sigma < 2.5


@pytest.mark.parametrize("name", NAMES)
def test_round_trip(name, tmp_path):
    survey = get_survey(name)
    survey.write(tmp_path / "again.yaml")
    again = Survey.read(tmp_path / "again.yaml")
    assert again.catalogue == survey.catalogue and again.filter_names == survey.filter_names
    assert again.curves_note == survey.curves_note
    np.testing.assert_equal(again.depth, survey.depth)


@pytest.mark.parametrize("name", NAMES)
def test_numbers_have_sources(name):
    """Every number of a band is explained in a comment of the file."""
    path = registry._FOLDER / f"{name}.yaml"
    text = path.read_text()
    keys = {key for band in read_yaml(path)["bands"].values() for key in band} - {"filter"}
    if name not in ("sdss", "kids"):
        keys -= {"extinction_coefficient", "pivot_wavelength"}  # of the curves
    explained = " ".join(line for line in text.splitlines() if line.startswith("# "))
    if name == "sdss":
        keys -= {"pixel_sigma", "pivot_wavelength"}  # of the other numbers and the curves
    assert [key for key in sorted(keys) if key not in explained] == []


#: Columns of one band of each format, as the documentation of the surveys spells them.
COLUMNS = {
    ("sdss", "photoobj"): ("modelMag_g", "modelMagErr_g"),
    ("sdss", "photoobj-flux"): ("modelFlux_g", "modelFluxIvar_g"),
    ("legacy-dr10", "tractor"): ("flux_g", "flux_ivar_g"),
    ("legacy-dr9-north", "tractor"): ("FLUX_G", "FLUX_IVAR_G"),
    ("des", "auto"): ("MAG_AUTO_G", "MAGERR_AUTO_G"),
    ("des", "auto-flux"): ("FLUX_AUTO_G", "FLUXERR_AUTO_G"),
    ("des", "auto-dered"): ("MAG_AUTO_G_DERED", "MAGERR_AUTO_G"),
    ("des", "bdf"): ("BDF_MAG_G", "BDF_MAG_ERR_G"),
    ("des", "bdf-corrected"): ("BDF_MAG_G_CORRECTED", "BDF_MAG_ERR_G"),
    ("des", "sof"): ("SOF_CM_MAG_G", "SOF_CM_MAG_ERR_G"),
    ("des", "sof-corrected"): ("SOF_CM_MAG_CORRECTED_G", "SOF_CM_MAG_ERR_G"),
    ("panstarrs", "stack-kron"): ("gKronMag", "gKronMagErr"),
    ("panstarrs", "mean-kron"): ("gMeanKronMag", "gMeanKronMagErr"),
    ("panstarrs", "forced-kron"): ("gFKronFlux", "gFKronFluxErr"),
    ("panstarrs", "forced-kron-mag"): ("gFKronMag", "gFKronMagErr"),
    ("panstarrs", "stack-psf"): ("gPSFMag", "gPSFMagErr"),
    ("panstarrs", "vizier-kron"): ("gKmag", "e_gKmag"),
    ("panstarrs", "vizier-psf"): ("gmag", "e_gmag"),
    ("hsc", "pdr3-cmodel-flux"): ("g_cmodel_flux", "g_cmodel_fluxerr"),
    ("hsc", "pdr2-cmodel-flux"): ("g_cmodel_flux", "g_cmodel_fluxsigma"),
    ("hsc", "pdr3-cmodel"): ("g_cmodel_mag", "g_cmodel_magerr"),
    ("hsc", "pdr2-cmodel"): ("g_cmodel_mag", "g_cmodel_magsigma"),
    ("hsc", "pdr1-cmodel"): ("gcmodel_mag", "gcmodel_mag_err"),
    ("lsst", "object-cmodel"): ("g_cModelFlux", "g_cModelFluxErr"),
    ("lsst", "object-gaap"): ("g_gaap1p0Flux", "g_gaap1p0FluxErr"),
    ("lsst", "object-cmodel-mag"): ("g_cModelMag", "g_cModelMagErr"),
    ("lsst", "rail"): ("mag_g_lsst", "mag_err_g_lsst"),
    ("lsst", "rail-2"): ("mag_g_lsst", "mag_g_lsst_err"),
    ("euclid", "mer-sersic"): ("FLUX_VIS_SERSIC", "FLUXERR_VIS_SERSIC"),
    ("euclid", "mer-2fwhm"): ("FLUX_VIS_2FWHM_APER", "FLUXERR_VIS_2FWHM_APER"),
    ("euclid", "mer-template"): ("flux_y_templfit", "fluxerr_y_templfit"),
    ("kids", "gaap"): ("MAG_GAAP_u", "MAGERR_GAAP_u"),
    ("roman", "kron-flux"): ("kron_f158_flux", "kron_f158_flux_err"),
    ("roman", "kron"): ("kron_f158_abmag", "kron_f158_abmag_err"),
    ("roman", "segment-flux"): ("segment_f158_flux", "segment_f158_flux_err"),
    ("2mass", "extended-total"): ("k_m_ext", "k_msig_ext"),
    ("2mass", "extended-isophotal"): ("j_m_k20fe", "j_msig_k20fe"),
    ("2mass", "point"): ("j_m", "j_msigcom"),
    ("2mass", "vizier-point"): ("Kmag", "e_Kmag"),
    ("galex", "mcat"): ("nuv_mag", "nuv_magerr"),
    ("wise", "allwise"): ("w1mpro", "w1sigmpro"),
    ("wise", "vizier"): ("W1mag", "e_W1mag"),
}


def test_every_format_has_columns():
    formats = {(name, item.name) for name in NAMES for item in get_survey(name).catalogue}
    assert formats == set(COLUMNS)


@pytest.mark.parametrize(("name", "style"), COLUMNS)
def test_formats_find_their_columns(name, style):
    survey = get_survey(name)
    (item,) = (item for item in survey.catalogue if item.name == style)
    pair = COLUMNS[name, style]
    found = item.columns(["ra", *pair, "dec"], survey.bands)
    assert list(found.values()) == [pair]
    assert set(item.vega_to_ab) == (set(survey.bands) if item.system == "Vega" else set())
    assert set(item.band_names) <= set(survey.bands)


@pytest.mark.parametrize(("name", "style"), COLUMNS)
def test_no_two_surveys_claim_a_column(name, style):
    claims = {
        other
        for other in NAMES
        for item in get_survey(other).catalogue
        if item.identifies(COLUMNS[name, style])
    }
    assert claims <= {name}


@pytest.mark.parametrize(
    "columns",
    [
        ("flux_g", "flux_ivar_g", "flux_r", "flux_z"),
        ("u", "g", "r", "i", "z", "err_g"),
        ("mag_g", "mag_err_g", "ebv"),
        ("objID", "ra", "dec", "redshift"),
    ],
)
def test_common_names_decide_nothing(columns):
    items = [item for name in NAMES for item in get_survey(name).catalogue]
    assert not any(item.identifies(columns) or item.shares(columns) for item in items)


def test_columns_of_tractor_ask_for_the_survey():
    sharing = {
        name
        for name in NAMES
        for item in get_survey(name).catalogue
        if item.shares(["flux_g", "flux_ivar_g", "maskbits"])
    }
    assert sharing == {"legacy-dr10", "legacy-dr9-north"}


def test_meaning_of_fill_values():
    (kids,) = get_survey("kids").catalogue
    assert kids.dereddened and kids.fill_values == {99.0: "non-detection", -99.0: "missing"}
    (rail, _) = (item for item in get_survey("lsst").catalogue if item.name.startswith("rail"))
    assert rail.fill_values == {99.0: "non-detection", -99.0: "missing"}
    assert all(
        item.fill_values == {-999.0: "missing"} for item in get_survey("panstarrs").catalogue
    )


def test_vega_magnitudes():
    """The conversions agree with the zero points of Cohen et al. (2003), in jansky."""
    offsets = get_survey("2mass").catalogue[0].vega_to_ab
    for band, jansky in (("J", 1594.0), ("H", 1024.0), ("Ks", 666.7)):
        assert offsets[band] == pytest.approx(2.5 * math.log10(3631 / jansky), abs=0.025)
