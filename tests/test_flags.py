"""Flag codes: collecting, decoding, and values that never change."""

import numpy as np
import pytest

from astrogenspec import Flag, decode_flags
from astrogenspec.flags import FlagLog, combine_texts


def test_bits_are_distinct_single_bits():
    values = [int(member) for member in Flag]
    assert all(value & (value - 1) == 0 for value in values)
    assert len(set(values)) == len(values)
    assert max(values) < 2**63


def test_bits_in_files_keep_their_values():
    """The numbers are stored in files, so changing them would break the format."""
    assert int(Flag.TEXT_ONLY) == 1
    assert int(Flag.IMAGE_NOT_USED) == 2
    assert int(Flag.NO_DATA) == 16
    assert int(Flag.SATURATED) == 4096
    assert int(Flag.POSTERIOR_RANGE) == 2**25
    assert int(Flag.ASSUMPTION) == 2**36
    assert int(Flag.LINE_NOT_MEASURED) == 2**40
    assert int(Flag.NO_REDSHIFT) == 2**41
    assert int(Flag.LOW_EFFECTIVE_SAMPLE) == 2**42
    assert int(Flag.STAR_OR_QUASAR) == 2**43


def test_log_collects_codes_and_texts():
    log = FlagLog(3)
    log.add(np.array([True, False, True]), Flag.NOISE, "noisy")
    log.add(2, Flag.SIZE, lambda row: f"row {row} is large")
    log.add(2, Flag.SIZE, "row 2 is large")
    assert log.codes.tolist() == [int(Flag.NOISE), 0, int(Flag.NOISE | Flag.SIZE)]
    assert log.texts == ("noisy", "", "noisy; row 2 is large")
    other = FlagLog(3)
    other.extend(log.codes, log.texts)
    assert other.texts == log.texts
    assert (other.codes == log.codes).all()


def test_decoder_names_every_bit():
    every = sum(int(member) for member in Flag)
    assert decode_flags(every) == [member.name.lower() for member in Flag]
    assert decode_flags(0) == []
    assert decode_flags(np.array([0, 4096])) == [[], ["saturated"]]
    assert decode_flags(np.ma.array([4096, 1], mask=[False, True])) == [["saturated"], []]
    assert decode_flags([]) == []


def test_decoder_rejects_invalid_codes():
    with pytest.raises(ValueError, match="unknown"):
        decode_flags(1 << 60)
    with pytest.raises(ValueError, match="unknown"):
        decode_flags(-1)
    with pytest.raises(TypeError, match="integers"):
        decode_flags(["saturated"])
    with pytest.raises(TypeError, match="integers"):
        decode_flags(1.5)


def test_texts_are_joined():
    assert combine_texts(["a", ""], ["", ""], ["b", "c"]) == ("a; b", "c")
