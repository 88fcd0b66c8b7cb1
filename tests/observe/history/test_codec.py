"""What is packed comes back to the last bit, or says that it is spoilt."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from headgate.observe.history.codec import Spoilt, decode, encode, nine_digits

SHAPES = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9)
DECIMALS = st.decimals(-(10**9), 10**9, places=3).map(float)
VALUES = st.one_of(
    st.floats(), st.integers(-(10**15), 10**15).map(float), DECIMALS, st.just(float("nan"))
)


def _bits(matrix):
    return np.where(np.isnan(matrix), np.nan, matrix).view(np.uint64)


@settings(max_examples=150, deadline=None)
@given(arrays(np.float64, SHAPES, elements=VALUES))
def test_every_matrix_comes_back_to_the_last_bit(matrix):
    assert (_bits(decode(encode(matrix))) == _bits(matrix)).all()


def test_minus_zero_and_infinities_come_back():
    matrix = np.array([[-0.0, 0.0, np.inf], [-np.inf, 1e308, 5e-324], [0.1, 0.25, np.nan]])
    assert (_bits(decode(encode(matrix))) == _bits(matrix)).all()


def test_counters_take_about_a_byte_a_sample():
    rng = np.random.default_rng(1)
    counters = np.cumsum(rng.poisson(5, (256, 60)), axis=1).astype(float)
    assert len(encode(counters)) < 1.1 * counters.size


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200))
def test_foreign_bytes_are_spoilt_and_nothing_worse(data):
    with pytest.raises(Spoilt):
        decode(data)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_changed_byte_never_raises_anything_else(place, value):
    whole = np.arange(60.0).reshape(3, 20)
    data = bytearray(encode(whole))
    data[place % len(data)] = value
    try:
        found = decode(bytes(data))
    except Spoilt:
        return
    assert found.size <= whole.size + 7  # no more than its bytes are enough for


def test_numbers_are_kept_with_nine_digits_and_whole_ones_whole():
    values = np.array([1.23456789012, 123456789012345.0, 0.0, np.nan, 1e-7 / 3, -2.5])
    kept = nine_digits(values)
    assert kept[0] == 1.23456789
    assert kept[1] == 123456789012345.0
    assert np.isnan(kept[3])
    assert kept[4] == pytest.approx(1e-7 / 3, rel=1e-8)
    assert kept[5] == -2.5
