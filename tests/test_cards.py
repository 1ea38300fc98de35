"""Checks of the entries of cards."""

import numpy as np
import pytest

from astrogenspec.cards import (
    check_array,
    check_covariances,
    check_layout,
    check_mapping,
    check_number,
    check_range,
    check_text,
    entries,
    entry,
)


def nested(depth):
    value = 1.0
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "shape"),
    [(3, ()), (np.float32(2.5), ()), ([1, 2.5], (2,)), ([[1.0], [2.0]], (None, 1)), ([], (None,))],
)
def test_valid_arrays_are_converted_to_float(value, shape):
    array = check_array(value, shape, "a")
    assert array.dtype == float
    np.testing.assert_array_equal(array, np.asarray(value, float))


@pytest.mark.parametrize(
    "value",
    [None, True, "1", 10**400, [1, "2"], [1, None], [1], [[1, 2]], [1, [2]], {}, nested(10_000)]
    + [[1.0, np.nan], [np.inf, 1.0], [1j, 2.0], object()],
)
def test_invalid_arrays_raise_one_short_sentence(value):
    expected = r"but an array of shape \(2,\) of finite numbers is expected\.$"
    with pytest.raises(ValueError, match="^the entry a.b is .*" + expected) as caught:
        check_array(value, (2,), "a.b")
    assert len(str(caught.value)) < 200
    assert str(caught.value).isprintable()


def test_other_invalid_values_raise():
    for call, message in (
        (lambda: check_number("x", "a"), "the entry a is 'x', but a finite number is expected"),
        (lambda: check_text(3, "a"), "the entry a is 3, but a str is expected"),
        (
            lambda: check_text("x", "a", ("b", "c")),
            "the entry a is 'x', but one of b, c is expected",
        ),
        (lambda: check_mapping([], "a"), r"the entry a is \[\], but a dict with str keys"),
        (lambda: check_mapping({1: 2}, "a"), "but a dict with str keys is expected"),
        (lambda: check_range([2, 1], "a"), "the lowest value followed by the highest"),
        (lambda: entry({"b": 1}, "c", "a"), "the entry a.c is missing"),
        (lambda: entry(None, "c", "a"), "the entry a is None, but a dict"),
        (lambda: list(entries({"c": 3}, "c", "a")), "the entry a.c is 3, but a list is expected"),
        (lambda: check_layout({}, 2, "a"), "the entry a.layout is missing"),
        (lambda: check_layout({"layout": "1"}, 2, "a"), "the entry a.layout is '1'"),
        (lambda: check_layout({"layout": 3}, 2, "a"), "has layout 3, .* layouts up to 2; update"),
        (lambda: check_covariances([[1, 0], [0, -1]], (2, 2), "a"), "but a covariance matrix"),
        (lambda: check_covariances([[1, 2], [0, 1]], (2, 2), "a"), "but a covariance matrix"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_control_characters_are_not_shown():
    with pytest.raises(ValueError, match="expected") as caught:
        check_number("\x1b[31m\n", "a")
    assert str(caught.value).isprintable()


def test_valid_values_are_returned():
    assert check_number(2, "a") == 2.0
    assert check_range([1, 2], "a") == (1.0, 2.0)
    assert check_layout({"layout": 2}, 2, "a") == 2
    assert list(entries({"b": [5]}, "b", "a")) == [(5, "a.b[0]")]
    covariance = [[2.0, 0.5], [0.5, 1.0]]
    np.testing.assert_array_equal(check_covariances(covariance, (2, 2), "a"), covariance)
