import copy
import pickle
import re

import astropy.units as u
import numpy as np
import pytest
from astropy.table import QTable
from astropy.uncertainty import Distribution
from astropy.utils.masked import Masked
from numpy.testing import assert_allclose, assert_array_equal
from posterior_cases import flagged_posterior, gaussian_posterior, quantity

from astrogenspec.flags import Flag, decode_flags
from astrogenspec.quantities import QUANTITIES
from astrogenspec.results.posterior import Posterior

MASS = u.dex(u.Msun)
RATE = u.dex(u.Msun / u.yr)


@pytest.fixture
def posterior():
    return flagged_posterior()[0]


def simple(values, name="stellar_mass", unit=MASS, **kwargs):
    return Posterior({name: quantity(np.array(values, dtype=float), unit)}, **kwargs)


# ---- summaries


def test_summaries_agree_with_numpy():
    posterior, _ = gaussian_posterior(5, 101)
    mass = posterior["stellar_mass"]
    values = posterior.draws["stellar_mass"].value
    assert_allclose(mass.mean().value, values.mean(axis=1))
    assert_allclose(mass.median().value, np.median(values, axis=1))
    assert_allclose(mass.std().value, values.std(axis=1))
    wanted = [0, 2.5, 16, 50, 84, 100]
    assert_allclose(mass.percentiles(wanted).value, np.percentile(values, wanted, axis=1))
    lower, upper = mass.interval(0.9)
    assert_allclose([lower.value, upper.value], np.percentile(values, [5, 95], axis=1))


def test_summaries_are_the_same_in_blocks_of_galaxies(monkeypatch):
    posterior, _ = gaussian_posterior(23, 40)
    whole = posterior.to_table()
    monkeypatch.setattr("astrogenspec.results.statistics._BLOCK", 160)
    for name, column in posterior.to_table().columns.items():
        assert_array_equal(column, whole[name])


def test_summaries_have_the_unit_of_the_quantity(posterior):
    mass, redshift, flux = (posterior[k] for k in ("stellar_mass", "redshift", "halpha_flux"))
    for summary in (mass.mean(), mass.median(), *mass.interval(), mass.percentiles([16, 84])):
        assert summary.unit == MASS
    assert mass.std().unit == u.dex
    assert redshift.std().unit == u.dimensionless_unscaled
    assert flux.std().unit == flux.median().unit == u.Unit(1e-17 * u.erg / u.s / u.cm**2)
    # the sum of a dex(Msun) and its scatter must be possible
    assert (mass.median() + mass.std()).unit == MASS


def test_linear_units_of_dex_summaries_are_right():
    assert_allclose(simple([[10, 10, 10]])["stellar_mass"].median().to_value(u.Msun), 1e10)


def test_summaries_of_a_galaxy_without_draws_are_nan(posterior):
    for name in (*posterior.quantities, *posterior.derived_quantities):
        median = posterior[name].median()
        assert_array_equal(np.isnan(median.value), [False, False, True, False])
    assert_array_equal(posterior.usable, [True, True, False, True])


def test_missing_draws_are_ignored():
    mass = simple([[1.0, np.nan, 3.0, 2.0, np.nan]])["stellar_mass"]
    assert mass.mean()[0].value == mass.median()[0].value == 2.0
    assert_allclose(mass.std()[0].value, np.std([1, 2, 3]))
    assert_allclose(mass.percentiles(25)[0].value, 1.5)


def test_summaries_of_one_draw():
    mass = simple([[10.0], [11.0]])["stellar_mass"]
    assert_array_equal(mass.median().value, [10, 11])
    assert_array_equal(mass.std().value, [0, 0])
    lower, upper = mass.interval(0.95)
    assert_array_equal(lower, upper)


def test_single_precision_draws_are_summed_in_double_precision():
    values = np.full((1, 100_000), 10.123456, dtype=np.float32)
    posterior = Posterior({"stellar_mass": quantity(values, MASS)})
    assert posterior.draws["stellar_mass"].dtype == np.float32
    assert_allclose(posterior["stellar_mass"].mean().value, np.float64(values[0, 0]), rtol=1e-12)
    assert_allclose(posterior["stellar_mass"].std().value, 0, atol=1e-7)


@pytest.mark.parametrize("percentiles", [-1, 101, [50, np.nan], [[50]]])
def test_impossible_percentiles_are_refused(posterior, percentiles):
    with pytest.raises(ValueError, match="between 0 and 100"):
        posterior["sfr"].percentiles(percentiles)


@pytest.mark.parametrize("level", [0, 1, 68, -0.5])
def test_impossible_levels_are_refused(posterior, level):
    with pytest.raises(ValueError, match=f"level is {level}"):
        posterior["sfr"].interval(level)


def test_distribution_is_an_astropy_distribution(posterior):
    for name in ("sfr", "redshift", "oiii_hbeta"):
        distribution = posterior.distribution(name)
        assert isinstance(distribution, Distribution)
        assert distribution.n_samples == posterior.n_draws
        median = posterior[name].median()
        assert distribution.unit == median.unit
        assert_allclose(distribution.pdf_median().value, median.value)


def test_derived_quantities_are_computed_draw_by_draw(posterior):
    expected = posterior.draws["sfr"].value - posterior.draws["stellar_mass"].value
    assert_allclose(posterior["ssfr"].draws.value, expected)
    assert posterior["ssfr"].unit == u.dex(1 / u.yr)
    assert "ssfr" in posterior
    assert "ssfr" in posterior.derived_quantities


# ---- unknown quantities


def test_unknown_quantities_raise_an_error_with_a_suggestion(posterior):
    with pytest.raises(KeyError, match=r"stelar_mass.*did you mean 'stellar_mass'"):
        _ = posterior["stelar_mass"]
    assert "stelar_mass" not in posterior


def test_derived_quantity_with_missing_inputs_raises_an_error():
    posterior = simple([[10.0, 11.0]])
    assert posterior.derived_quantities == ()
    assert "ssfr" not in posterior
    with pytest.raises(
        KeyError, match="'ssfr' is computed from stellar_mass and sfr; add sfr to the draws"
    ):
        _ = posterior["ssfr"]


# ---- construction


def test_draws_are_converted_and_ordered():
    posterior = Posterior(
        {"sfr": [[1.0, 10.0]] * u.Msun / u.yr, "stellar_mass": [[1e10, 1e11]] * u.Msun}
    )
    assert posterior.quantities == ("stellar_mass", "sfr")
    assert_allclose(posterior.draws["stellar_mass"].value, [[10, 11]])
    assert_allclose(posterior.draws["sfr"].value, [[0, 1]])
    assert posterior.draws["sfr"].unit == RATE


def test_plain_redshifts_and_other_quantities_are_accepted():
    posterior = Posterior({"age": [[3.0, 4.0]] * u.Gyr, "redshift": [[0.1, 0.2]]})
    assert posterior.quantities == ("redshift", "age")
    assert posterior["age"].median().unit == u.Gyr
    assert posterior["age"].label == "age"


def test_masked_draws_become_nan():
    values = Masked(quantity(np.array([[10.0, 11.0, 12.0]]), MASS), mask=[[False, True, False]])
    assert_array_equal(
        Posterior({"stellar_mass": values}).draws["stellar_mass"].value, [[10, np.nan, 12]]
    )


def test_byte_order_is_converted_to_native():
    values = np.array([[10.0, 11.0]], dtype=">f4")
    draws = Posterior({"stellar_mass": quantity(values, MASS)}).draws["stellar_mass"]
    assert draws.dtype == np.dtype("=f4")


@pytest.mark.parametrize(
    ("draws", "kind", "message"),
    [
        ([1, 2], TypeError, "draws is of type list"),
        ({}, ValueError, "draws is empty"),
        ({3: [[1.0]]}, TypeError, "key 3"),
        ({"sfr": np.ones((2, 3))}, TypeError, r"draws\['sfr'\] has no unit; .*dex\(solMass / yr\)"),
        ({"sfr": [[1.0]] * u.m}, u.UnitConversionError, r"draws\['sfr'\] has the unit 'm'"),
        ({"redshift": [[1.0]] * u.m}, u.UnitConversionError, r"draws\['redshift'\]"),
        ({"redshift": np.ones(3)}, ValueError, r"shape \(3,\); expected \(n_galaxies, n_draws\)"),
        ({"redshift": np.ones((3, 0))}, ValueError, "at least one draw"),
        ({"redshift": [["a"]]}, TypeError, "not numbers"),
        ({"redshift": [[0.1], [np.inf]]}, ValueError, "infinite values, the first in galaxy 1"),
        ({"redshift": [[0.1]], "age": np.ones((2, 1))}, ValueError, "different shapes: redshift"),
        ({"ssfr": [[0.1]]}, ValueError, "'ssfr' is derived"),
    ],
)
def test_invalid_draws_raise_an_error(draws, kind, message):
    with pytest.raises(kind, match=message):
        Posterior(draws)


@pytest.mark.parametrize(
    ("kwargs", "kind", "message"),
    [
        ({"names": ["a"]}, ValueError, "names has 1 entries.*2 galaxies"),
        ({"names": "ab"}, TypeError, "names is a single string"),
        ({"names": ["a", 1]}, TypeError, r"names\[1\] is 1, of type int"),
        ({"flags": ["", "", ""]}, ValueError, "flags has 3 entries"),
        ({"flags": ["", None]}, TypeError, r"flags\[1\] is None"),
        ({"measurable": [0.5]}, ValueError, r"measurable has shape \(1,\)"),
        ({"measurable": [0.5, 1.5]}, ValueError, "measurable contains 1.5"),
        ({"photometry": np.ones(2)}, TypeError, "photometry is of type ndarray"),
        ({"photometry": QTable({"a": [1, 2, 3]})}, ValueError, "photometry has 3 rows"),
    ],
)
def test_invalid_arguments_raise_an_error(kwargs, kind, message):
    with pytest.raises(kind, match=message):
        simple([[10.0], [11.0]], **kwargs)


def test_names_and_flags_have_defaults():
    posterior = simple([[10.0], [11.0]])
    assert posterior.names == ("0", "1")
    assert posterior.flags == ("", "")
    assert posterior.measurable is None
    assert posterior.photometry is None
    assert dict(posterior.meta) == {}


# ---- immutability


def test_attributes_are_read_only(posterior):
    for values in (posterior.draws["sfr"], posterior["sfr"].draws, posterior["ssfr"].draws):
        with pytest.raises(ValueError, match="read-only"):
            values[0, 0] = 3 * values.unit
    with pytest.raises(ValueError, match="read-only"):
        posterior.measurable[0] = 0
    with pytest.raises(TypeError):
        posterior.draws["sfr"] = 1
    with pytest.raises(TypeError):
        posterior.meta["a"] = 1
    with pytest.raises(AttributeError):
        posterior.names = ["x"]


def test_arguments_are_copied():
    values, names, meta = np.ones((1, 2)), ["a"], {"seed": 1}
    photometry = QTable({"flux": [1.0]})
    posterior = Posterior({"redshift": values}, names=names, meta=meta, photometry=photometry)
    values[:], names[0], meta["seed"] = 9, "b", 2
    photometry["flux"] = 2.0
    posterior.photometry["flux"][:] = 3.0
    assert_array_equal(posterior.draws["redshift"].value, [[1, 1]])
    assert posterior.names == ("a",)
    assert posterior.meta["seed"] == 1
    assert posterior.photometry["flux"][0] == 1.0


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, copy.copy, lambda p: pickle.loads(pickle.dumps(p))]
)
def test_copies_are_equal_and_read_only(posterior, duplicate):
    other = duplicate(posterior)
    assert_same(other, posterior)
    with pytest.raises(ValueError, match="read-only"):
        other.draws["sfr"][0, 0] = 3 * RATE


def assert_same(one, other):
    assert one.quantities == other.quantities
    for name in one.quantities:
        assert one.draws[name].unit == other.draws[name].unit
        assert_array_equal(one.draws[name].value, other.draws[name].value)
    assert (one.names, one.flags) == (other.names, other.flags)
    assert_array_equal(one.measurable, other.measurable)


# ---- selection of galaxies


@pytest.mark.parametrize(
    ("key", "rows"),
    [
        (0, [0]),
        (-1, [3]),
        (np.int64(1), [1]),
        (slice(1, 3), [1, 2]),
        (slice(None, None, -1), [3, 2, 1, 0]),
        ([3, 0], [3, 0]),
        (np.array([-1]), [3]),
        ([True, False, True, False], [0, 2]),
        ([], []),
        (slice(9, 12), []),
    ],
)
def test_galaxies_are_selected(posterior, key, rows):
    chosen = posterior[key]
    assert isinstance(chosen, Posterior)
    assert chosen.names == tuple(posterior.names[row] for row in rows)
    assert chosen.flags == tuple(posterior.flags[row] for row in rows)
    assert_array_equal(chosen.measurable, posterior.measurable[rows])
    assert_array_equal(chosen.draws["sfr"], posterior.draws["sfr"][rows])
    assert chosen["ssfr"].median().shape == (len(rows),)
    with pytest.raises(ValueError, match="read-only"):
        chosen.draws["sfr"][...] = 0 * RATE


@pytest.mark.parametrize(
    ("key", "kind", "message"),
    [
        (4, IndexError, "galaxy 4 does not exist: there are 4"),
        (-5, IndexError, "galaxy -5 does not exist"),
        ([0, 7], IndexError, "galaxy 7 does not exist"),
        ([True], IndexError, "the mask has 1 entries, but there are 4"),
        (1.0, TypeError, "cannot be selected by 1.0"),
        (None, TypeError, "cannot be selected by None"),
        ((0, 1), TypeError, "cannot be selected by"),
        (True, TypeError, "cannot be selected by True"),
        ([[0]], TypeError, "cannot be selected by"),
    ],
)
def test_invalid_selections_raise_an_error(posterior, key, kind, message):
    with pytest.raises(kind, match=message):
        _ = posterior[key]


def test_iteration_gives_galaxies(posterior):
    assert len(posterior) == posterior.n_galaxies == 4
    assert [one.names[0] for one in posterior] == list(posterior.names)
    assert all(len(one) == 1 for one in posterior)


def test_galaxies_are_selected_by_name():
    posterior = simple(np.zeros((4, 2)), names=["M 31", "M 33", "twin", "twin"])
    assert posterior.galaxy("M 33").names == ("M 33",)
    with pytest.raises(KeyError, match="did you mean 'M 31'"):
        posterior.galaxy("M31")
    with pytest.raises(ValueError, match="2 galaxies are named 'twin' .numbers 2, 3"):
        posterior.galaxy("twin")


def test_concatenated_parts_equal_the_whole(posterior):
    assert_same(Posterior.concatenate([posterior[:1], posterior[1:1], posterior[1:]]), posterior)
    assert_same(Posterior.concatenate(iter(posterior)), posterior)


def test_parts_with_different_optional_data_are_concatenated():
    table = QTable({"flux": [1.0] * u.nmgy})
    one = simple([[1.0]], measurable=[0.5], photometry=table, meta={"seed": 1, "model": "a"})
    two = simple([[2.0]], photometry=table, meta={"seed": 2, "model": "a"})
    both = Posterior.concatenate([one, two])
    assert_array_equal(both.measurable, [0.5, np.nan])
    assert len(both.photometry) == 2
    assert dict(both.meta) == {"model": "a"}
    assert Posterior.concatenate([one, simple([[2.0]])]).photometry is None


@pytest.mark.parametrize(
    ("other", "kind", "message"),
    [
        (simple([[1.0]], "sfr", RATE), ValueError, "differ in sfr, stellar_mass"),
        (
            simple([[1.0, 2.0]]),
            ValueError,
            r"posteriors\[1\] has 2 draws per galaxy, but the first part has 1",
        ),
        (3, TypeError, r"posteriors\[1\] is of type int; a Posterior is expected"),
    ],
)
def test_incompatible_parts_raise_an_error(other, kind, message):
    with pytest.raises(kind, match=message):
        Posterior.concatenate([simple([[1.0]]), other])


def test_concatenating_an_empty_list_raises_an_error():
    with pytest.raises(ValueError, match="posteriors is empty"):
        Posterior.concatenate([])


def test_posterior_without_galaxies():
    posterior, _ = gaussian_posterior(0, 10, measurable=[])
    table = posterior.to_table()
    assert len(table) == len(posterior) == len(list(posterior)) == 0
    assert table["stellar_mass_median"].unit == MASS
    assert len(posterior.bpt_probabilities()) == 0
    assert posterior["ssfr"].median().shape == (0,)
    assert "0 galaxies" in repr(posterior)
    assert "0 galaxies" in posterior._repr_html_()


# ---- tables


def test_table_has_one_row_per_galaxy(posterior):
    table = posterior.to_table()
    assert list(table["name"]) == list(posterior.names)
    assert list(table["flag"]) == list(posterior.flags)
    assert_array_equal(table["measurable"].mask, [False, False, True, False])
    for name in QUANTITIES:
        low, high = table[f"{name}_p16"], table[f"{name}_p84"]
        middle, scatter = table[f"{name}_median"], table[f"{name}_std"]
        assert_array_equal(middle.mask, [False, False, True, False])
        good = ~middle.mask
        assert_allclose(middle[good].unmasked.value, posterior[name].median()[good].value)
        assert (low[good].unmasked.value < middle[good].unmasked.value).all()
        assert (middle[good].unmasked.value < high[good].unmasked.value).all()
        assert middle.unit == posterior[name].unit
        assert scatter.unit == posterior[name].std().unit
        assert QUANTITIES[name].description in middle.info.description


def test_table_has_the_selected_quantities(posterior):
    table = posterior[[0, 1]].to_table(["ssfr", "redshift"])
    assert table.colnames[1:5] == ["ssfr_median", "ssfr_p16", "ssfr_p84", "ssfr_std"]
    assert table.colnames[9:] == ["measurable", "flags", "flag"]
    assert not isinstance(table["ssfr_median"], Masked)
    assert posterior.to_table("sfr").colnames[1] == "sfr_median"
    with pytest.raises(KeyError, match="'nonsense'"):
        posterior.to_table(["nonsense"])


def test_bpt_probabilities_sum_to_one(posterior):
    table = posterior.bpt_probabilities()
    total = table["star_forming"] + table["composite"] + table["agn"]
    assert_allclose(total[~total.mask], 1)
    assert_array_equal(total.mask, [False, False, True, False])
    with pytest.raises(KeyError, match="nii_halpha"):
        simple([[10.0]]).bpt_probabilities()


# ---- representations


def test_repr_lists_the_contents(posterior):
    assert repr(posterior).startswith("<Posterior: 4 galaxies, 50 draws of redshift, stellar_mass")
    assert repr(posterior).endswith("; 1 flagged>")
    assert repr(simple([[10.0]])) == "<Posterior: 1 galaxy, 1 draw of stellar_mass>"
    assert repr(posterior[0]["sfr"]) == (
        "<QuantityPosterior 'sfr' [dex(solMass / yr)]: 1 galaxy, 50 draws each>"
    )


def test_html_escapes_names_and_flags():
    posterior = simple(
        [[10.0, 10.2], [np.nan, np.nan]],
        names=["<script>α</script>", "x" * 1000],
        flags=["", "a & b"],
    )
    html = posterior._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;α" in html
    assert "a &amp; b" in html
    assert "10.100<sup>+0.068</sup>" in html
    assert "&mdash;" in html
    assert "x" * 100 not in html


def test_html_has_a_small_histogram_for_each_value():
    draws = np.array([[0.0, 0.0, 0.5, 1.0], [1.0, 1.0, 1.0, 1.0], [np.nan] * 4]) * u.one
    text = Posterior({"redshift": draws})._repr_html_()
    paths = re.findall(r"<path d='M0 14(.*?)Z'", text)
    assert len(paths) == 2
    # The first bin has two of four draws, the last one draw: full and half height of 14 pixels.
    assert paths[0].startswith("V0h3V14h3")
    assert paths[0].endswith("V7h3V14")
    assert paths[1] == "V14h3" * 23 + "V0h3V14"


def test_html_shows_ten_galaxies():
    posterior, _ = gaussian_posterior(40, 3)
    html = posterior._repr_html_()
    assert html.count("<tr>") == 11
    assert "30 more galaxies" in html


def test_unusual_names_are_preserved():
    names = ["", "ż" * 5000, "a\nb\t\x00c", "星系", "NGC 1; DROP TABLE"]
    posterior = simple(np.zeros((5, 2)), names=names)
    assert posterior.names == tuple(names)
    assert posterior.galaxy("星系").names == ("星系",)
    assert len(posterior.to_table()) == 5


# ---- flags


def test_flags_without_codes_have_the_bit_text_only():
    posterior = simple([[1.0], [2.0]], flags=["", "the image may be saturated"])
    assert_array_equal(posterior.flag_codes, [0, Flag.TEXT_ONLY])
    assert posterior.flag_codes.dtype == np.int64
    with pytest.raises(ValueError, match="read-only"):
        posterior.flag_codes[0] = 1
    assert_array_equal(simple([[1.0]]).flag_codes, [0])


def test_flag_codes_are_kept_and_missing_ones_completed():
    posterior = simple(
        [[1.0], [2.0], [3.0]], flags=["", "saturated", "other"], flag_codes=[0, Flag.SATURATED, 0]
    )
    assert_array_equal(posterior.flag_codes, [0, Flag.SATURATED, Flag.TEXT_ONLY])
    assert decode_flags(posterior.flag_codes) == [[], ["saturated"], ["text_only"]]
    assert repr(posterior).endswith("; 2 flagged>")


def test_galaxies_without_flags_are_selected_by_their_codes():
    posterior = simple([[1.0], [2.0], [3.0]], flag_codes=[0, Flag.SATURATED | Flag.NOISE, 0])
    assert posterior[posterior.flag_codes == 0].names == ("0", "2")
    assert posterior[(posterior.flag_codes & Flag.NOISE) != 0].names == ("1",)
    assert_array_equal(posterior[::-1].flag_codes, posterior.flag_codes[::-1])
    both = Posterior.concatenate([posterior[:2], posterior[2:]])
    assert_array_equal(both.flag_codes, posterior.flag_codes)


def test_table_has_flag_codes_before_their_text():
    posterior = simple([[1.0], [2.0]], flags=["", "bright"], flag_codes=[0, 4096])
    table = posterior.to_table()
    assert table.colnames[-2:] == ["flags", "flag"]
    assert table["flags"].dtype == np.int64
    assert list(table[table["flags"] == 0]["name"]) == ["0"]


@pytest.mark.parametrize(
    ("codes", "kind", "message"),
    [
        ([1], ValueError, r"flag_codes has shape \(1,\), but there are 2 galaxies"),
        ([0.0, 1.0], TypeError, "flag_codes has dtype float64; integers"),
        ([0, -1], ValueError, "flag_codes contains -1"),
    ],
)
def test_invalid_flag_codes_are_refused(codes, kind, message):
    with pytest.raises(kind, match=message):
        simple([[1.0], [2.0]], flag_codes=codes)


def test_pickles_without_flag_codes_are_read():
    posterior = simple([[1.0], [2.0]], flags=["", "bright"])
    state = {key: value for key, value in vars(posterior).items() if key != "_flag_codes"}
    old = object.__new__(Posterior)
    old.__setstate__(state)
    assert_array_equal(old.flag_codes, [0, Flag.TEXT_ONLY])
