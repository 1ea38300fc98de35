"""Catalogues of surveys: names, units, fill values, extinction, several surveys in one table."""

import warnings

import astropy.units as u
import numpy as np
import pytest
import speclite.filters
from astropy.table import QTable, Table
from astropy.uncertainty import Distribution

from astrogenspec import AstroGenSpecWarning, coerce_photometry
from astrogenspec.inputs.filter_sets import extinction_coefficients, sdss_filters
from astrogenspec.surveys import SDSS, Filter, get_filter, get_survey
from tests.survey_cases import CATALOGUES, LEGACY, NJY, TENTH, euclid, hsc, legacy, lsst, twomass

pytestmark = pytest.mark.filterwarnings("ignore::astrogenspec.AstroGenSpecWarning")


def messages(record):
    return [str(warning.message) for warning in record]


def read(table, **kwargs):
    """Return photometry and the warnings except that of the missing extinction."""
    with pytest.warns(AstroGenSpecWarning) as record:
        batch = coerce_photometry(table, **kwargs)
    return batch, [text for text in messages(record) if "ebv = 0 is assumed" not in text]


def check(batch, wanted):
    assert [each.name for each in batch.filters] == list(wanted["filters"])
    np.testing.assert_allclose(batch.flux, wanted["flux"], rtol=1e-6)
    np.testing.assert_allclose(batch.error, wanted["error"], rtol=1e-6)
    assert batch.names == wanted["names"]
    if "extinction" in wanted:
        np.testing.assert_allclose(batch.extinction, wanted["extinction"], atol=1e-9)
    else:
        np.testing.assert_allclose(batch.ebv, wanted["ebv"])
        coefficients = extinction_coefficients(batch.filters)
        expected = np.outer(wanted["ebv"], coefficients)
        np.testing.assert_allclose(batch.extinction, expected, rtol=2e-3)


@pytest.mark.parametrize("case", CATALOGUES)
def test_catalogues_of_surveys(case):
    survey, make, wanted, _ = CATALOGUES[case]
    batch = coerce_photometry(make(), survey=survey, on_error="flag")
    check(batch, wanted)
    errors = get_survey(survey).calibration_error
    np.testing.assert_allclose(batch.calibration_error, list(errors.values())[: len(batch.bands)])


@pytest.mark.parametrize("case", CATALOGUES)
def test_rows_and_case_of_letters(case):
    survey, make, wanted, _ = CATALOGUES[case]
    table = make()
    check(coerce_photometry(list(table), survey=survey, on_error="flag"), wanted)
    for name in table.colnames:
        table.rename_column(name, name.swapcase())
    check(coerce_photometry(table, survey=survey), wanted)


@pytest.mark.parametrize("case", [name for name, case in CATALOGUES.items() if case[3]])
def test_surveys_are_recognised_with_one_warning(case):
    survey, make, wanted, _ = CATALOGUES[case]
    batch, texts = read(make())
    check(batch, wanted)
    told = [text for text in texts if f"as those of {survey} are read; give survey" in text]
    assert len(told) == 1


def test_legacy_needs_a_name():
    table = legacy()
    with pytest.raises(ValueError, match=r"beside .*, which SDSS does not have.*'legacy-dr10'"):
        coerce_photometry(table)
    check(coerce_photometry(table, survey="LEGACY-DR10"), LEGACY)


@pytest.mark.parametrize(
    "mark", ["mw_transmission_g", "maskbits", "type", "flux_w1", "flux_y", "FLUX_W2"]
)
def test_shared_names_beside_others_need_a_survey(mark):
    table = legacy()
    table.keep_columns([f"FLUX_{kind}{band}" for kind in ("", "IVAR_") for band in "GRZ"])
    table[mark] = [1.0, 1.0]
    if "flux_" in mark.lower():
        table[mark.lower().replace("flux_", "flux_ivar_")] = [1.0, 1.0]
    with pytest.raises(ValueError, match=f"FLUX_G|flux_g.* beside {mark}, which SDSS does not"):
        coerce_photometry(table)
    assert coerce_photometry(table, survey="legacy-dr10").bands == ("g", "r", "z")


def test_shared_names_alone_are_those_of_sdss():
    table = QTable({"ebv": [0.0]})
    for band in "grz":
        table[f"flux_{band}"], table[f"flux_ivar_{band}"] = [9.0] * u.nmgy, [25.0] * u.nmgy**-2
    batch, texts = read(table)
    assert len(texts) == 1
    assert "flux_g, flux_r, flux_z are read as fluxes of SDSS" in texts[0]
    assert batch.filters == sdss_filters()
    named = coerce_photometry(table, survey="sdss")
    np.testing.assert_array_equal(named.flux, batch.flux)
    legacy_batch = coerce_photometry(table, survey="legacy-dr10")
    np.testing.assert_array_equal(legacy_batch.flux, [[9, 9, 9]])


SCHEMES = {
    "bare": ("{}", "{}_err", u.nmgy, u.nmgy, 10.0, 0.5),
    "bare, uJy": ("{}", "{}_err", u.uJy, u.uJy, 10 * NJY / 1e3, 0.5 * NJY / 1e3),
    "flux": ("flux_{}", "flux_err_{}", u.nJy, u.nJy, 10 * NJY, 0.5 * NJY),
    "ivar": ("flux_{}", "flux_ivar_{}", u.nmgy, u.nmgy**-2, 10.0, 4.0),
    "mag": ("mag_{}", "mag_err_{}", None, None, 20.0, 0.05 / TENTH * 0.1),
    "vizier": ("{}mag", "e_{}mag", u.mag, u.mag, 20.0, 0.05 / TENTH * 0.1),
    "AB": ("{}", "{}_err", u.ABmag, u.mag, 20.0, 0.05 / TENTH * 0.1),
}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("kind", [dict, QTable])
@pytest.mark.parametrize("stem", ["{}", "lsst-{}", "{}_lsst", "lsst2023-{}"])
def test_names_of_this_package_in_other_bands(scheme, kind, stem):
    value, error, unit, error_unit, number, sigma = SCHEMES[scheme]
    content = {"ebv": [0.1] * u.mag}
    for band in "gy":
        name = stem.format(band)
        content[value.format(name)] = [number] if unit is None else [number] * unit
        content[error.format(name)] = [sigma] if unit is None else [sigma] * error_unit
        content[f"extinction_{name}"] = [0.2] * u.mag
    batch = coerce_photometry(kind(content), survey="lsst")
    assert [each.name for each in batch.filters] == ["lsst2023-g", "lsst2023-y"]
    np.testing.assert_allclose(batch.flux, [[10, 10]], rtol=1e-6)
    np.testing.assert_allclose(batch.error, [[0.5, 0.5]], rtol=1e-6)
    np.testing.assert_allclose(batch.extinction, [[0.2, 0.2]])
    np.testing.assert_allclose(batch.ebv, [0.1])


def test_flux_per_wavelength_is_converted_at_the_pivot_of_the_filter():
    unit = u.erg / u.s / u.cm**2 / u.AA
    pivot = get_filter("decamDR1-g").pivot
    flux = (10 * NJY * u.nJy).to(unit, u.spectral_density(pivot))
    batch = coerce_photometry({"g": flux, "g_err": 0.1 * flux, "ebv": 0}, survey="legacy-dr10")
    np.testing.assert_allclose(batch.flux, [[10]], rtol=1e-6)


class TestSingleFilters:
    GALAXY = {"decamDR1-g": 20 * u.ABmag, "decamDR1-g_err": 0.1 * u.mag, "ebv": 0.1}

    def test_names_as_keys(self):
        more = {"twomass-J": [5.0] * u.uJy, "twomass-J_err": [0.5] * u.uJy}
        for kind in (dict, QTable):
            content = {key: np.atleast_1d(value) for key, value in (self.GALAXY | more).items()}
            batch = coerce_photometry(kind(content))
            assert [each.name for each in batch.filters] == ["decamDR1-g", "twomass-J"]
            np.testing.assert_allclose(batch.flux, [[10, 5e3 / NJY]], rtol=1e-6)
            np.testing.assert_allclose(batch.error, [[10 * TENTH, 5e2 / NJY]], rtol=1e-6)
            coefficients = [each.extinction_coefficient for each in batch.filters]
            np.testing.assert_allclose(batch.extinction, [0.1 * np.array(coefficients)])

    @pytest.mark.parametrize("convert", [get_filter, speclite.filters.load_filter])
    def test_filters_as_keys(self, convert):
        pair = (20 * u.ABmag, 0.1 * u.mag)
        batch = coerce_photometry({convert("decamDR1-g"): pair, "ebv": 0.1, "name": "a"})
        wanted = coerce_photometry(self.GALAXY)
        np.testing.assert_array_equal(batch.flux, wanted.flux)
        np.testing.assert_array_equal(batch.extinction, wanted.extinction)
        assert batch.names == ("a",)

    def test_extinction_and_other_schemes(self):
        content = {"mag_decamDR1-g": 20.0, "mag_err_decamDR1-g": 0.1, "extinction_decamDR1-g": 0.3}
        batch = coerce_photometry(content)
        np.testing.assert_allclose(batch.flux, [[10]])
        np.testing.assert_allclose(batch.extinction, [[0.3]])

    def test_together_with_sdss(self):
        content = {"mag_r": 17.5, "mag_err_r": 0.1, "ebv": 0.1}
        content |= {"galex-nuv": 20 * u.ABmag, "galex-nuv_err": 0.1 * u.mag}
        batch = coerce_photometry(content)
        assert [each.name for each in batch.filters] == ["sdss2010-r", "galex-nuv"]
        np.testing.assert_allclose(batch.flux, [[100, 10]])

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ({"decamDR1-g": 20 * u.ABmag}, "no error for decamDR1-g; give decamDR1-g_err or"),
            ({get_filter("decamDR1-g"): 1 * u.nmgy}, "must be a pair of a flux or magnitude and"),
            ({"decamDR9-g": 1 * u.nmgy}, "the unknown key 'decamDR9-g'"),
            (
                {"decamDR1-g": 1 * u.nmgy, "decamDR1-g_err": 1 * u.nmgy, "size": 1},
                "the unknown key 'size' beside decamDR1-g",
            ),
            (
                {get_filter("decamDR1-g"): (1 * u.nmgy, 1 * u.nmgy), "decamDR1-g": 1 * u.nmgy},
                "twice|two",
            ),
        ],
    )
    def test_errors(self, content, message):
        with pytest.raises(ValueError, match=message):
            coerce_photometry(content, ebv=0.0)


class TestSeveralSurveys:
    def test_lsst_and_euclid(self):
        table, other = lsst(), euclid()
        for name in other.colnames:
            table[name] = other[name]
        batch = coerce_photometry(table, survey=["lsst", "euclid"])
        wanted = [*(f"lsst2023-{b}" for b in "ugrizy"), "Euclid-VIS", "Euclid-Y", "Euclid-J"]
        assert [each.name for each in batch.filters] == [*wanted, "Euclid-H"]
        np.testing.assert_allclose(batch.flux[0], [10] * 10)
        assert batch.bands[5:8] == ("lsst2023-y", "VIS", "Euclid-Y")
        np.testing.assert_allclose(batch.ebv, [0.02, 0.04])
        guessed, texts = read(table)
        np.testing.assert_allclose(guessed.flux, batch.flux)
        assert "as those of lsst" in texts[0]
        assert "as those of euclid" in texts[0]

    def test_bands_whose_names_differ_in_case(self):
        content = {"mag_y": 20.0, "mag_err_y": 0.1, "mag_Y": 17.5, "mag_err_Y": 0.1, "ebv": 0.0}
        for kind in (dict, lambda c: Table({key: [value] for key, value in c.items()})):
            batch = coerce_photometry(kind(content), survey=("lsst", "euclid"))
            assert [each.name for each in batch.filters] == ["lsst2023-y", "Euclid-Y"]
            np.testing.assert_allclose(batch.flux, [[10, 100]])

    def test_sdss_and_2mass(self):
        table = twomass()
        for band in SDSS.bands:
            table[f"modelFlux_{band}"], table[f"modelFluxIvar_{band}"] = [9.0, 8.0], [25.0, 25.0]
            extinction = 0.1 * SDSS.extinction_coefficient[band]
            table[f"extinction_{band}"] = [extinction, 2 * extinction]
        batch = coerce_photometry(table, survey=["sdss", "2mass"])
        assert [each.band for each in batch.filters] == [*"ugriz", "J", "H", "Ks"]
        np.testing.assert_allclose(batch.flux[0], [9] * 5 + [100] * 3)
        # The extinction of 2MASS is that of the reddening of SDSS.
        coefficients = extinction_coefficients(batch.filters)
        np.testing.assert_allclose(batch.extinction, np.outer([0.1, 0.2], coefficients), 2e-3)
        # Names of SDSS alone still mean SDSS.
        assert coerce_photometry(table).filters == sdss_filters()

    def test_band_in_another_case(self):
        table = Table({"MAG_Y": [20.0], "MAG_ERR_Y": [0.1], "mag_g": [20.0], "mag_err_g": [0.1]})
        with pytest.raises(ValueError, match="MAG_Y of photometry could be of lsst or euclid"):
            coerce_photometry(table, survey=["lsst", "euclid"], ebv=0.0)
        assert coerce_photometry(table, survey="lsst", ebv=0.0).bands == ("g", "y")

    def test_dereddened_sdss_says_nothing_of_the_reddening(self):
        table = twomass()
        for band in SDSS.bands:
            table[f"dered_{band}"], table[f"err_{band}"] = [17.5, 18.0], [0.1, 0.1]
        batch = coerce_photometry(table, survey=["sdss", "2mass"], ebv=0.1)
        np.testing.assert_array_equal(batch.extinction[:, :5], 0)
        coefficients = extinction_coefficients(batch.filters[5:])
        np.testing.assert_allclose(batch.extinction[0, 5:], 0.1 * coefficients, 2e-3)
        with pytest.warns(AstroGenSpecWarning, match="ebv = 0 is assumed"):
            coerce_photometry(table, survey=["sdss", "2mass"])

    def test_shared_bands(self):
        content = {"mag_g": 20.0, "mag_err_g": 0.1, "ebv": 0.0}
        with pytest.raises(ValueError, match="mag_g of photometry could be of hsc or panstarrs"):
            coerce_photometry(content, survey=["hsc", "panstarrs"])
        content = {"ebv": 0.0}
        for name, value in (("hsc", 20.0), ("panstarrs", 17.5)):
            content[f"mag_{name}-g"], content[f"mag_err_{name}-g"] = value, 0.1
        batch = coerce_photometry(content, survey=["hsc", "panstarrs"])
        np.testing.assert_allclose(batch.flux, [[10, 100]])
        assert batch.bands == ("hsc2017-g", "panstarrs-g")
        content = {key.replace("hsc", "sdss"): value for key, value in content.items()}
        batch = coerce_photometry(content, survey=["sdss", "panstarrs"])
        np.testing.assert_allclose(batch.flux, [[10, 100]])
        assert batch.bands == ("sdss2010-g", "panstarrs-g")

    def test_a_column_of_two_surveys(self):
        with pytest.raises(ValueError, match="belongs to both legacy-dr10 and legacy-dr9-north"):
            coerce_photometry(legacy(), survey=["legacy-dr10", "legacy-dr9-north"])

    def test_galaxies_of_different_bands(self):
        rows = [
            {"g": 10 * u.nmgy, "g_err": 1 * u.nmgy, "ebv": 0.1},
            {"y": 20 * u.nmgy, "y_err": 1 * u.nmgy, "ebv": 0.2},
        ]
        batch = coerce_photometry(rows, survey="lsst")
        np.testing.assert_array_equal(batch.flux, [[10, np.nan], [np.nan, 20]])
        coefficients = extinction_coefficients(batch.filters)
        np.testing.assert_allclose(batch.extinction, np.outer([0.1, 0.2], coefficients), 2e-3)


def magnitudes(*names):
    """Return a table with magnitudes of 20 in bands by name."""
    table = Table({"ebv": [0.0]})
    for name in names:
        table[f"mag_{name}"], table[f"mag_err_{name}"] = [20.0], [0.1]
    return table


class TestRepeatedBands:
    @pytest.mark.parametrize(
        ("names", "survey", "message"),
        [
            (
                ("g_des", "decam2014-g"),
                "des",
                r"one filter twice, as mag_g_des \(decamDR1-g\) and mag_decam2014-g \(decam2014-g, "
                "another version of the same curve\\); keep one",
            ),
            (("g_des", "decam2014-g"), None, "one filter twice, as mag_g_des"),
            (("lsst2016-u", "lsst2023-u"), None, "one filter twice, as mag_lsst2016-u"),
            (
                ("des-g", "legacy-dr10-g"),
                ["des", "legacy-dr10"],
                "has the filter decamDR1-g twice, as mag_des-g and mag_legacy-dr10-g; keep one",
            ),
            (("sdss-g", "sdss2010-g"), "sdss", "the columns mag_sdss-g and mag_sdss2010-g of the"),
            (("g", "sdss2010-g"), "sdss", "the columns mag_g and mag_sdss2010-g of the same band"),
        ],
    )
    def test_one_sentence(self, names, survey, message):
        with pytest.raises(ValueError, match=message):
            coerce_photometry(magnitudes(*names), survey=survey)

    def test_filters_of_two_cameras(self):
        curves = [
            Filter(name, "g", [4000, 4100, 5000, 5100], [0, 1, 1, 0])
            for name in ("cam1-g", "cam2-g")
        ]
        batch = coerce_photometry(dict.fromkeys(curves, (20 * u.ABmag, 0.1 * u.mag)) | {"ebv": 0})
        np.testing.assert_allclose(batch.flux, [[10, 10]], rtol=1e-4)


@pytest.mark.parametrize("name", ["decamDR3-g", "lsst2023-v", "lsst-v"])
def test_unknown_filters_are_not_ignored(name):
    with pytest.raises(ValueError, match=f"the filter '{name}' is unknown; known filters are"):
        coerce_photometry(magnitudes("decamDR1-g", "decamDR1-r", name))


def test_other_columns_with_a_hyphen_are_ignored():
    batch = coerce_photometry(magnitudes("decamDR1-g", "H-alpha"))
    assert [each.name for each in batch.filters] == ["decamDR1-g"]


def test_surveys_in_names_of_columns_are_recognised():
    table = magnitudes("g_des", "r_des", "panstarrs-y", "roman-F158")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batch = coerce_photometry(table)
    names = [each.name for each in batch.filters]
    assert names == ["decamDR1-g", "decamDR1-r", "panstarrs-y", "roman-F158"]


class TestExtinction:
    def test_bands_of_a_survey_without_all_curves(self):
        table = Table({f"MAG_GAAP_{band}": [20.0] for band in ("J", "Ks")})
        for band in ("J", "Ks"):
            table[f"MAGERR_GAAP_{band}"] = [0.1]
        batch = coerce_photometry(table, survey="kids")
        assert [each.name for each in batch.filters] == ["kids-J", "kids-Ks"]
        np.testing.assert_allclose(batch.flux, [[10, 10]], rtol=1e-4)

    def test_dereddened_magnitudes_are_not_corrected_again(self):
        survey, make, _, _ = CATALOGUES["kids"]
        batch = coerce_photometry(make(), survey=survey)
        np.testing.assert_array_equal(batch.dereddened()[0], batch.flux)
        with pytest.raises(ValueError, match="Dereddened magnitudes need none"):
            coerce_photometry(make(), survey=survey, ebv=0.1)

    def test_dereddened_and_observed_bands(self):
        survey, make, _, _ = CATALOGUES["kids"]
        table = make()
        for name in hsc().colnames:
            table[name] = hsc()[name]
        table.remove_columns([name for name in table.colnames if name.startswith("a_")])
        batch = coerce_photometry(table, survey=[survey, "hsc"], ebv=0.1)
        coefficients = extinction_coefficients(batch.filters[9:])
        np.testing.assert_allclose(batch.extinction[:, :9], 0)
        np.testing.assert_allclose(batch.extinction[0, 9:], 0.1 * coefficients, 2e-3)

    def test_transmission_of_one_in_single_precision(self):
        table = legacy()
        table["MW_TRANSMISSION_R"] = np.array([1 + 1e-7, 1.0], "f4")
        batch = coerce_photometry(table, survey="legacy-dr10")
        np.testing.assert_array_equal(batch.extinction[:, 1], 0)

    @pytest.mark.parametrize("value", [0.0, -1.0, 1.2, np.nan])
    def test_impossible_transmission(self, value):
        table = legacy()
        table["MW_TRANSMISSION_R"][1] = value
        batch = coerce_photometry(table, survey="legacy-dr10", on_error="flag")
        assert batch.bands_present.tolist() == [[True] * 4, [True, False, False, True]]
        assert "r not used: extinction_r is" in batch.problems[1]

    def test_some_bands_without(self):
        table = legacy()
        table.remove_columns(["EBV", "MW_TRANSMISSION_Z"])
        batch = coerce_photometry(table, survey="legacy-dr10")
        coefficients = extinction_coefficients(batch.filters)
        given = LEGACY["extinction"][:, :3]
        np.testing.assert_allclose(batch.extinction[:, :3], given)
        reddening = np.median(given / coefficients[:3], axis=1)
        np.testing.assert_allclose(batch.extinction[:, 3], reddening * coefficients[3], 2e-3)


class TestNonDetections:
    def table(self, value, error):
        table = Table({"ebv": [0.0, 0.0]})
        for band, pair in zip("ri", ([20.0, value], [20.0, 20.0]), strict=True):
            table[f"mag_{band}_lsst"], table[f"mag_err_{band}_lsst"] = pair, [0.1, 0.1]
        table["mag_err_r_lsst"][1] = error
        return table

    @pytest.mark.parametrize("error", [99.0, np.nan, 1.0, 0.0])
    def test_without_a_limit_the_depth_is_assumed(self, error):
        batch, texts = read(self.table(99.0, error), survey="lsst")
        depth = get_survey("lsst").depth["r"]
        np.testing.assert_allclose(batch.flux[:, 0], [10, 0])
        np.testing.assert_allclose(batch.error[1, 0], 10 ** (0.4 * (22.5 - depth)) / 5)
        assert texts[-1].endswith(f"of the survey: mag_r_lsst ({depth:g}).")

    def test_with_a_limit(self):
        batch = coerce_photometry(self.table(99.0, 27.5), survey="lsst")
        np.testing.assert_allclose(batch.flux[1], [0, 10])
        np.testing.assert_allclose(batch.error[1, 0], 0.01)

    def test_not_observed(self):
        batch = coerce_photometry(self.table(-99.0, 0.1), survey="lsst")
        assert batch.bands_present[1].tolist() == [False, True]

    def test_values_of_this_package_are_missing(self):
        content = {"mag_r": [20.0, 99.0], "mag_err_r": [0.1, 25.0], "ebv": 0.0}
        batch = coerce_photometry(content, survey="hsc", on_error="flag")
        assert batch.bands_present.tolist() == [[True], [False]]


class TestVega:
    def test_ab_magnitudes_are_kept(self):
        table = QTable(twomass()[:1])
        for band in "jhk":
            table[f"{band}_m_ext"] = [17.5] * u.ABmag
        np.testing.assert_allclose(coerce_photometry(table, survey="2mass").flux, [[100] * 3])

    def test_magnitudes_without_system(self):
        content = {"mag_J": 15.0, "mag_err_J": 0.1, "ebv": 0.0}
        with pytest.raises(u.UnitsError, match="mag_J has no magnitude system, and catalogues of"):
            coerce_photometry(content, survey="2mass")
        content["mag_J"] = 17.5 * u.ABmag
        np.testing.assert_allclose(coerce_photometry(content, survey="2mass").flux, [[100]])


class TestUnits:
    def test_units_of_columns_come_first(self):
        table = QTable(legacy())
        for band in "GRIZ":
            table[f"FLUX_{band}"] = table[f"FLUX_{band}"].value * NJY * u.nJy
            table[f"FLUX_IVAR_{band}"] = table[f"FLUX_IVAR_{band}"].value / NJY**2 * u.nJy**-2
        batch = coerce_photometry(table, survey="legacy-dr10")
        np.testing.assert_allclose(batch.flux, LEGACY["flux"], rtol=1e-6)
        np.testing.assert_allclose(batch.error, LEGACY["error"], rtol=1e-6)

    @pytest.mark.parametrize("unit", [u.adu, u.ct])
    def test_counts_have_the_zero_point_of_the_survey(self, unit):
        table = QTable(CATALOGUES["des"][1]())
        for band in "GRIZY":
            for name in (f"FLUX_AUTO_{band}", f"FLUXERR_AUTO_{band}"):
                table[name] = np.asarray(table[name]) * unit
        check(coerce_photometry(table, survey="des"), CATALOGUES["des"][2])
        for band in "GRIZY":
            for name in (f"FLUX_AUTO_{band}", f"FLUXERR_AUTO_{band}"):
                table[name] = table[name].value / 1e3 * u.nmgy
        check(coerce_photometry(table, survey="des"), CATALOGUES["des"][2])
        table["FLUX_AUTO_G"] = table["FLUX_AUTO_G"].value * unit
        with pytest.raises(u.UnitsError, match="FLUX_AUTO_G is in .* but FLUXERR_AUTO_G in"):
            coerce_photometry(table, survey="des")

    def test_magnitudes_with_the_unit_of_a_flux(self):
        table = QTable(CATALOGUES["panstarrs"][1]())
        table["gKronMag"] = [1, 2] * u.uJy
        with pytest.raises(u.UnitsError, match="gKronMag is in uJy, but by its name"):
            coerce_photometry(table, survey="panstarrs", ebv=0.0)


class TestVizieR:
    def test_kron_magnitudes_are_preferred(self):
        table = Table()
        for band in "grizy":
            table[f"{band}Kmag"], table[f"e_{band}Kmag"] = [17.5], [0.1]
            table[f"{band}mag"], table[f"e_{band}mag"] = [18.0], [0.1]
        with pytest.raises(ValueError, match="beside ymag, which SDSS does not have"):
            coerce_photometry(table, ebv=0.0)
        batch, texts = read(table, survey="panstarrs", ebv=0.0)
        np.testing.assert_allclose(batch.flux, [[100] * 5])
        assert texts == [
            "photometry: gKmag and so on: Kron magnitudes miss about 10% of the light of galaxies."
        ]
        table = table[[name for name in table.colnames if "K" not in name]]
        batch, texts = read(table, survey="panstarrs", ebv=0.0)
        np.testing.assert_allclose(batch.flux, [[10**1.8] * 5])
        assert "PSF magnitudes are those of point sources" in texts[0]

    @pytest.mark.parametrize(
        ("survey", "bands", "offsets"),
        [
            ("2mass", ("J", "H", "K"), (0.91, 1.39, 1.85)),
            ("wise", ("W1", "W2", "W3", "W4"), (2.699, 3.339, 5.174, 6.62)),
        ],
    )
    def test_vega_magnitudes(self, survey, bands, offsets):
        content = {"ebv": 0.0}
        for band, offset in zip(bands, offsets, strict=True):
            content |= {f"{band}mag": (17.5 - offset) * u.mag, f"e_{band}mag": 0.1 * u.mag}
        batch = coerce_photometry(content, survey=survey)
        np.testing.assert_allclose(batch.flux, [[100] * len(bands)])


@pytest.mark.parametrize("name", ["bessell-V", "twomass-Ks"])
def test_magnitudes_in_filters_of_the_vega_system(name):
    plain = {f"mag_{name}": 15.0, f"mag_err_{name}": 0.02, "ebv": 0.0}
    with pytest.warns(AstroGenSpecWarning, match=f"mag_{name} are read as AB magnitudes, but"):
        batch = coerce_photometry(plain)
    np.testing.assert_allclose(batch.flux, [[1000.0]])
    # No warning with a unit, or for filters of the AB system.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        coerce_photometry(plain | {f"mag_{name}": 15.0 * u.ABmag})
        coerce_photometry({"mag_decamDR1-g": 15.0, "mag_err_decamDR1-g": 0.02, "ebv": 0.0})


def test_distributions_need_no_error():
    rng = np.random.default_rng(1)
    samples = Distribution(rng.normal(10, 0.5, (1, 5000)) * u.nmgy)
    for kind in (dict, QTable):
        batch = coerce_photometry(kind({"y": samples, "ebv": [0.0]}), survey="lsst")
        np.testing.assert_allclose(batch.flux, [[10]], rtol=0.01)
        np.testing.assert_allclose(batch.error, [[0.5]], rtol=0.05)
        batch = coerce_photometry(kind({"twomass-J": samples, "ebv": [0.0]}))
        np.testing.assert_allclose(batch.error, [[0.5]], rtol=0.05)


WRONG = {
    "unknown survey": (legacy, {"survey": "legcy-dr10"}, "survey is 'legcy-dr10', but the known"),
    "no survey": (legacy, {"survey": []}, "survey is empty"),
    "twice": (legacy, {"survey": ["des", "DES"]}, "survey contains 'des' more than once"),
    "no band": (lsst, {"survey": "hsc"}, r"no band of hsc \(g, r, i, z, y\) among its columns"),
    "no curves": (
        lambda: Table({"MAG_GAAP_r": [20.0], "MAGERR_GAAP_r": [0.1]}),
        {"survey": "kids"},
        "the survey kids has no curves of its bands u, g, r, i: take them",
    ),
    "missing error": (
        lambda: legacy()[["FLUX_G", "FLUX_R", "FLUX_IVAR_G"]],
        {"survey": "legacy-dr10"},
        "photometry has no error for FLUX_R; give flux_err_r or flux_ivar_r",
    ),
    "no errors": (
        lambda: legacy()[["FLUX_G", "FLUX_R"]],
        {"survey": "legacy-dr10"},
        "photometry has no error for FLUX_G; give flux_err_g or flux_ivar_g",
    ),
    "duplicate": (
        lambda: Table({"FLUX_G": [1.0], "flux_g": [1.0], "flux_ivar_g": [1.0]}),
        {"survey": "legacy-dr10"},
        "the columns FLUX_G, flux_g, whose names differ in case only",
    ),
    "two schemes": (
        lambda: Table({"mag_g": [20.0], "mag_err_g": [0.1]} | dict(legacy()[:1])),
        {"survey": "legacy-dr10"},
        "given in two ways, FLUX_G and mag_g",
    ),
    "two names": (
        lambda: {
            "mag_g": 20.0,
            "mag_err_g": 0.1,
            "mag_lsst-g": 20.0,
            "mag_err_lsst-g": 0.1,
            "ebv": 0.0,
        },
        {"survey": "lsst"},
        "has the g band of lsst twice, as mag_lsst-g and mag_g",
    ),
    "two errors": (
        lambda: {"y": 1 * u.nmgy, "y_err": 1 * u.nmgy, "y_ivar": 1 / u.nmgy**2},
        {"survey": "lsst"},
        "two errors for y; give y_err or y_ivar",
    ),
    "unknown key": (
        lambda: {"y": 1 * u.nmgy, "y_err": 1 * u.nmgy, "w": 1},
        {"survey": "lsst"},
        "the unknown key 'w' beside y, y_err",
    ),
    "no survey named": (
        lambda: CATALOGUES["des"][1]()[["MAG_AUTO_G", "MAGERR_AUTO_G"]],
        {},
        "no band among its columns MAG_AUTO_G.*survey='des'",
    ),
    "batch": (
        lambda: coerce_photometry({"r": 1 * u.nmgy, "r_err": 0.1 * u.nmgy, "ebv": 0}),
        {"survey": "des"},
        "survey was given with a PhotometryBatch",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_one_sentence_for_each_error(case):
    make, kwargs, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        coerce_photometry(make(), **kwargs)


@pytest.mark.parametrize("survey", [3, [3], {"des": 1}, b"des"])
def test_type_of_survey(survey):
    with pytest.raises(TypeError, match="must be the name of a survey, such as 'legacy-dr10'"):
        coerce_photometry(legacy(), survey=survey)


def test_columns_without_error_are_something_else_in_a_table():
    table = QTable(lsst())
    table["z"], table["i"], table["y"] = [0.1, 0.2], [0.3, 0.4], [100.0, 200.0] * u.pix
    np.testing.assert_allclose(coerce_photometry(table, survey="lsst").flux[0], [10] * 6)


def test_morphology_and_names():
    table = QTable(lsst())
    table["name"] = ["a", "b"]
    table["R50"], table["r90"] = [1.0, 2.0] * u.arcsec, [3.0, 4.0] * u.arcsec
    batch = coerce_photometry(table, survey="lsst")
    assert batch.names == ("a", "b")
    np.testing.assert_array_equal(batch.morphology.r50, [1, 2])
    np.testing.assert_array_equal(batch.morphology.r90, [3, 4])


def test_tables_without_a_measurement_end_in_a_reason():
    """Half-precision identifiers, a filter without error, and bands that are all missing."""
    table = Table({"objectId": np.zeros(2, np.float16), "mag_r": [17.0, 17.0], "ebv": [0.0, 0.0]})
    table["mag_err_r"] = 0.02
    assert len(coerce_photometry(table, survey=["lsst"])) == 2
    empty = Table({name: np.zeros(0) for name in ("flux_err_u", "flux_ivar_u", "decamDR1-g")})
    with pytest.raises(ValueError, match="no band among its columns that can be read"):
        coerce_photometry(empty, ebv=0.0)
    missing = Table({"mag_g": [np.nan], "mag_err_g": [0.1], "decamDR1-r": [np.nan]})
    batch = coerce_photometry(missing, ebv=0.0, on_error="flag")
    assert batch.problems == ("no band has both a flux and an error",)
