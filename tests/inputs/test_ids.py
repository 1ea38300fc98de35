"""Identifiers of objects."""

import numpy as np
import pandas as pd
import pytest
from astropy.table import Column, MaskedColumn

from astrogenspec import AstroGenSpecWarning
from astrogenspec.inputs.ids import coerce_ids, missing_ids

BIG = 2**63 + 12345


@pytest.mark.parametrize(
    "ids",
    [
        [3, BIG],
        (np.uint64(3), np.uint64(BIG)),
        np.array([3, BIG], np.uint64),
        np.array([3, BIG], object),
        pd.Series([3, BIG], dtype="UInt64"),
        Column([3, BIG], dtype=np.uint64),
    ],
)
def test_integers_are_their_own_keys(ids):
    assert coerce_ids(ids).tolist() == [[3, 0], [BIG, 0]]


def test_negative_integers_have_keys_of_their_own():
    keys = coerce_ids([-1, 5])
    assert keys.tolist() == [[2**64 - 1, 1], [5, 0]]
    assert coerce_ids(np.array([2**64 - 1, 5], np.uint64)).tolist() == [[2**64 - 1, 0], [5, 0]]


@pytest.mark.parametrize(
    "ids",
    [
        ["a", "ngc 4993 β"],
        np.array(["a", "ngc 4993 β"]),
        [b"a", "ngc 4993 β".encode()],
        np.char.encode(np.array(["a", "ngc 4993 β"]), "utf-8"),
        pd.Series(["a", "ngc 4993 β"]),
        MaskedColumn(["a", "ngc 4993 β"]),
    ],
)
def test_strings_are_hashed(ids):
    """The first key is BLAKE2b of "a" with 16 bytes and the highest bit set."""
    keys = coerce_ids(ids)
    assert [hex(k) for k in keys[0]] == ["0x7f8773936e5ec327", "0xfe49464e4662e529"]
    assert len(set(map(tuple, keys))) == 2
    assert (keys[:, 1] >= 2**63).all()


def test_numbers_and_their_texts_have_different_keys():
    assert not np.array_equal(coerce_ids([12]), coerce_ids(["12"]))


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        ([1.0, 2.0], TypeError, "ids has the value 1.0; give one integer or one string"),
        (np.array([1.0, 2.0]), TypeError, "ids has the type float64"),
        ([1, "a"], TypeError, "ids has the value 'a'"),
        ([True, False], TypeError, "ids has the value True"),
        ([1, None], ValueError, r"no value for galaxy 1 \(missing for 1 of 2\)"),
        (["a", ""], ValueError, "no value for galaxy 1"),
        (MaskedColumn([1, 2], mask=[True, False]), ValueError, "no value for galaxy 0"),
        (pd.Series([1, None], dtype="Int64"), ValueError, "no value for galaxy 1"),
        ([1, 2**64], ValueError, "at most 64 bits"),
        ([-1, 2**63], ValueError, "at most 64 bits"),
        (np.array([[1, 2]]), ValueError, r"ids has shape \(1, 2\)"),
    ],
)
def test_invalid_ids_are_errors(ids, error, message):
    with pytest.raises(error, match=message):
        coerce_ids(ids)


def test_missing_ids_are_found():
    assert missing_ids(["a", "", None]).tolist() == [False, True, True]
    assert missing_ids(np.array([1.0, np.nan])).tolist() == [False, True]
    assert missing_ids(pd.Series([1, pd.NA], dtype="Int64")).tolist() == [False, True]
    assert missing_ids(np.array([1, pd.NA], dtype=object)).tolist() == [False, True]
    assert missing_ids([]).tolist() == []


def test_repeated_ids_are_a_warning():
    with pytest.warns(AstroGenSpecWarning, match="1 ids are repeated, such as 4: galaxies with"):
        keys = coerce_ids([4, 5, 4])
    assert np.array_equal(keys[0], keys[2])


def test_no_ids_are_allowed():
    assert coerce_ids([]).shape == (0, 2)
