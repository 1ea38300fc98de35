"""BPT and WHAN classes and their probabilities."""

import astropy.units as u
import numpy as np
import pytest
from astropy.table import QTable
from measure_cases import UNIT, WAVELENGTH, emission, spectrum

from astrogenspec import Flag, derived
from astrogenspec.measure import (
    BPT_CLASSES,
    WHAN_CLASSES,
    bpt_class,
    classify_bpt,
    classify_whan,
    is_seyfert,
    line_ratios,
    measure_lines,
    whan_class,
)


def lines(halpha, hbeta, nii, oiii, error=0.1, level=10.0):
    flux = np.array([halpha, hbeta, nii, oiii], dtype=float)
    table = QTable({"line": ["halpha", "hbeta", "nii6584", "oiii5007"]})
    table["flux"], table["flux_err"] = flux * UNIT * u.AA, np.full(4, error) * UNIT * u.AA
    table["equivalent_width"] = flux / level * u.AA
    table["equivalent_width_err"] = np.full(4, error / level) * u.AA
    return table


def test_classes_are_those_of_the_posterior():
    assert BPT_CLASSES is derived.BPT_CLASSES and bpt_class is derived.bpt_class
    assert bpt_class(-0.8 * u.dex, 0.0 * u.dex) == BPT_CLASSES.index("star_forming")


@pytest.mark.parametrize(
    ("fluxes", "expected"),
    [
        ((300, 100, 60, 60), "star_forming"),
        ((300, 100, 160, 100), "composite"),
        ((300, 100, 300, 800), "agn"),
    ],
)
def test_bright_lines_are_classified_with_certainty(fluxes, expected):
    row = classify_bpt(lines(*fluxes))[0]
    assert row["class"] == expected and row[f"p_{expected}"] > 0.999 and row["flag"] == ""
    assert row["flags"] == 0


def test_probabilities_of_seyferts_and_liners_sum_to_that_of_agn():
    seyfert, liner = (
        classify_bpt(lines(300, 100, 300, 900))[0],
        classify_bpt(lines(300, 100, 400, 200))[0],
    )
    assert seyfert["p_seyfert"] > 0.99 and liner["p_liner"] > 0.99
    assert is_seyfert(0.0, 0.5) and not is_seyfert(0.1, 0.5)
    row = classify_bpt(lines(30, 10, 20, 20, error=5.0))[0]
    assert row["p_star_forming"] + row["p_composite"] + row["p_agn"] == pytest.approx(1)
    assert row["p_seyfert"] + row["p_liner"] == pytest.approx(row["p_agn"])
    assert 0.05 < row[f"p_{row['class']}"] < 0.95


def test_undetected_line_contributes_its_upper_limit():
    row = classify_bpt(lines(300, 100, 40, -2.0, error=3.0))[0]
    assert row["p_star_forming"] > 0.99 and row["flag"] == "below 3 sigma: oiii5007"
    assert np.isnan(row["oiii_hbeta"]) and row["flags"] == Flag.WEAK_LINE


def test_class_is_empty_without_a_line():
    row = classify_bpt(lines(300, np.nan, 40, 10))[0]
    assert row["class"] == "" and np.isnan(row["p_agn"]) and row["flag"] == "not measured: hbeta"
    assert row["flags"] == Flag.LINE_NOT_MEASURED


def test_whan_regions():
    x = np.array([-0.6, -0.2, -0.2, -0.2, -0.2, np.nan])
    width = np.array([10.0, 10.0, 4.0, 2.0, 0.2, 5.0]) * u.AA
    names = [WHAN_CLASSES[k] for k in whan_class(x, width)[:5]]
    assert names == ["star_forming", "strong_agn", "weak_agn", "retired", "passive"]
    assert whan_class(x, width)[5] == -1
    row = classify_whan(lines(300, 100, 60, 60, error=1.0))[0]
    assert row["class"] == "star_forming" and sum(
        row[f"p_{n}"] for n in WHAN_CLASSES
    ) == pytest.approx(1)
    assert classify_whan(lines(0.5, 0.1, 0.6, 0.1, error=0.3))[0]["class"] == "passive"


def test_equal_seeds_give_equal_probabilities():
    table = lines(30, 10, 20, 20, error=5.0)
    first, again, other = (classify_bpt(table, seed=s, n_samples=300)[0] for s in (1, 1, 2))
    assert first["p_agn"] == again["p_agn"] and first["p_agn"] != other["p_agn"]


def test_measured_stacks_are_classified():
    shape = {
        "halpha": 300.0,
        "hbeta": 100.0,
        "nii6584": 60.0,
        "nii6548": 20.0,
        "oiii5007": 60.0,
        "oiii4959": 20.0,
    }
    flux = np.stack([10 + emission(shape, 0.05, 110.0)] * 2 + [np.full(len(WAVELENGTH), 10.0)])
    table = classify_bpt(measure_lines(spectrum(flux, 0.05, 0.5), stellar_absorption=False))
    assert len(table) == 3 and table["class"][:2].tolist() == ["star_forming"] * 2
    assert "below 3 sigma" in table["flag"][2]


def test_ratios_of_one_spectrum(monkeypatch):
    from astrogenspec.measure import lines as module

    monkeypatch.setattr(module, "templates_available", lambda: False)
    shape = {
        "halpha": 300.0,
        "hbeta": 100.0,
        "nii6584": 60.0,
        "nii6548": 20.0,
        "oiii5007": 60.0,
        "oiii4959": 20.0,
    }
    found = line_ratios(spectrum(10 + emission(shape, 0.05, 110.0), 0.05))
    assert found["nii_halpha"].value == pytest.approx(np.log10(0.2), abs=0.01)
    assert found["oiii_hbeta"].value == pytest.approx(np.log10(0.6), abs=0.01)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda: classify_bpt(lines(1, 1, 1, 1)[:2]),
            ValueError,
            "has no lines nii6584, oiii5007",
        ),
        (lambda: classify_bpt({"halpha": 3}), TypeError, "measure_lines"),
        (lambda: classify_bpt(lines(1, 1, 1, 1), n_samples=0), ValueError, "positive number"),
    ],
)
def test_invalid_tables_raise(call, error, words):
    with pytest.raises(error, match=words):
        call()
