"""Matching of galaxies by name, or by order where there are no names."""

import astropy.units as u
import numpy as np
import pytest

from astrogenspec import Posterior
from astrogenspec.results.matching import GalaxyMatcher


def result(names, named=None):
    n = 3 if names is None else len(names)
    return Posterior({"redshift": np.full((n, 2), 0.1) * u.one}, names=names, named=named)


def match(names, given, size=1, named=None, **options):
    matcher = GalaxyMatcher(result(names), "posterior")
    rows = []
    for k in range(0, len(given), size):
        part = given[k : k + size]
        known = np.ones(len(part), bool) if named is None else np.array(named[k : k + size])
        rows += matcher.match(part, known, k, **options).tolist()
    return rows, matcher.by_order


@pytest.mark.parametrize("size", [1, 2, 5])
def test_named_galaxies_are_matched_by_name(size):
    assert match(["2", "0", "1"], ["0", "1", "2"], size) == ([1, 2, 0], False)
    assert match(["a", "b", "c"], ["c", "a"], size) == ([2, 0], False)


def test_unnamed_galaxies_are_matched_by_order():
    assert match(None, ["c", "b", "a"]) == ([0, 1, 2], True)
    assert match(["2", "0", "1"], ["0", "1", "2"], named=[False] * 3) == ([0, 1, 2], True)
    assert match(["a", "b", "c"], ["c", "1", "a"], named=[True, False, True]) == ([2, 1, 0], True)


@pytest.mark.parametrize(
    ("names", "given", "named", "message"),
    [
        (["a", "b"], ["b", "c"], None, "has no galaxy named 'c' .galaxy 1 of the input"),
        (["a", "a", "b"], ["b", "a", "a"], None, "posterior has several galaxies named 'a'"),
        (
            ["a", "b"],
            ["b", "b"],
            None,
            "the input has several galaxies named 'b' .galaxies 0 and 1",
        ),
        (["a", "b"], ["b", "1"], [True, False], "has galaxies 0 and 1 for galaxy 1 of posterior"),
    ],
)
def test_ambiguous_names_are_errors(names, given, named, message):
    with pytest.raises(ValueError, match=message):
        match(names, given, named=named)


def test_repeated_names_are_matched_by_order_if_the_data_agree():
    assert match(["a", "b", "a"], ["a", "b", "a"], same=lambda k, row: True) == ([0, 1, 2], False)
    with pytest.raises(ValueError, match="several galaxies named 'a'"):
        match(["a", "b", "a"], ["a", "b", "a"], same=lambda k, row: False)


@pytest.mark.parametrize("ending", [".fits", ".ecsv"])
def test_files_tell_names_from_numbers(tmp_path, ending):
    for names, named in ((None, None), (["0", "1"], None), (["0", "x", "2"], [0, 1, 0])):
        posterior = result(names, named)
        path = tmp_path / f"posterior{ending}"
        posterior.write(path, draws=True, overwrite=True)
        again = Posterior.read(path)
        assert again.names == posterior.names
        assert again.named.tolist() == posterior.named.tolist()
    joined = Posterior.concatenate([result(None), result(["a"])])
    assert joined.named.tolist() == [False] * 3 + [True]
    assert joined[::-1].named.tolist() == [True] + [False] * 3
    with pytest.raises(ValueError, match="read-only"):
        joined.named[0] = True
