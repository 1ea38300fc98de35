"""Tests of warning classes and of the deprecation of names."""

import threading
import time
import warnings

import pytest

from astrogenspec import AstroGenSpecDeprecationWarning, AstroGenSpecWarning
from astrogenspec.warnings import filtered_warnings, renamed_argument, warn_deprecated


@pytest.fixture(autouse=True)
def nothing_reported(monkeypatch):
    monkeypatch.setattr("astrogenspec.warnings._REPORTED", set())


def test_deprecation_is_a_warning_of_the_package_and_of_python():
    assert issubclass(AstroGenSpecDeprecationWarning, AstroGenSpecWarning)
    assert issubclass(AstroGenSpecDeprecationWarning, DeprecationWarning)


def test_each_name_warns_once_at_the_line_of_the_caller():
    def deprecated(name):
        warn_deprecated(name, "new")

    with pytest.warns(AstroGenSpecDeprecationWarning) as caught:
        [deprecated(name) for name in ("one", "two", "one")]
    messages = [str(warning.message) for warning in caught]
    assert messages[0] == "one is deprecated and will be removed in version 0.2: use new."
    assert [message[:3] for message in messages] == ["one", "two"]
    assert {warning.filename for warning in caught} == {__file__}


def test_renamed_argument():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert renamed_argument("fit", "heads", 3, "members", None) == 3
        assert renamed_argument("fit", "heads", None, "members", None) is None
    with pytest.warns(AstroGenSpecDeprecationWarning, match="argument members of fit .* use heads"):
        assert renamed_argument("fit", "heads", None, "members", 2) == 2
    with pytest.raises(ValueError, match="fit got both heads and its old name members"):
        renamed_argument("fit", "heads", 3, "members", 2)


def test_filters_of_threads_do_not_overlap():
    before = list(warnings.filters)
    inside, outcomes = threading.Barrier(2), []

    def run(action, pause):
        inside.wait()
        with filtered_warnings(action, AstroGenSpecWarning):
            for _ in range(20):
                time.sleep(pause)
                try:
                    warnings.warn("text", AstroGenSpecWarning, stacklevel=1)
                    outcomes.append((action, "ignored"))
                except AstroGenSpecWarning:
                    outcomes.append((action, "raised"))

    threads = [
        threading.Thread(target=run, args=args) for args in (("ignore", 0.001), ("error", 0.002))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(set(outcomes)) == [("error", "raised"), ("ignore", "ignored")]
    assert len(outcomes) == 40
    assert warnings.filters == before


def test_filter_by_message():
    with filtered_warnings("ignore", AstroGenSpecWarning, "text of"):
        warnings.warn("text of one", AstroGenSpecWarning, stacklevel=1)
        with pytest.raises(AstroGenSpecWarning, match="another"):
            warnings.warn("another", AstroGenSpecWarning, stacklevel=1)
