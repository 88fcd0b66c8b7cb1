"""What crosses from hop to hop: read strictly, written so that it can be read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.policy.hops import (
    format_attempt,
    format_deadline,
    may_retry,
    parse_attempt,
    parse_deadline,
    parse_grpc_timeout,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (b"0", 0.0),
        (b"1500", 1.5),
        (b"9999999999", 9999999.999),
        (b"", None),
        (b"-5", None),
        (b"+5", None),
        (b"1.5", None),
        (b" 5", None),
        (b"1_0", None),
        (b"12345678901", None),
        ("٣".encode(), None),
        (b"5s", None),
    ],
)
def test_a_deadline_is_milliseconds_left(text, seconds):
    assert parse_deadline(text) == seconds


@given(st.floats(0, 1e6))
def test_a_deadline_is_rounded_down_by_less_than_a_millisecond(left_s):
    back = parse_deadline(format_deadline(left_s))
    assert back is not None
    assert back <= left_s < back + 0.001 + 1e-9


@pytest.mark.parametrize(
    ("left_s", "text"), [(-3.0, b"0"), (0.0009, b"0"), (2.0, b"2000"), (1e12, b"9999999999")]
)
def test_what_is_over_has_no_time_left_and_the_longest_can_be_read(left_s, text):
    assert format_deadline(left_s) == text
    assert parse_deadline(text) is not None


@pytest.mark.parametrize(
    ("text", "attempt"),
    [
        (b"1/1", (1, 1)),
        (b"2/3", (2, 3)),
        (b"3/3", (3, 3)),
        (b"4/3", None),
        (b"0/3", None),
        (b"2/0", None),
        (b"2", None),
        (b"2/3/4", None),
        (b"2/3 ", None),
        (b"1234/9999", None),
        (b"", None),
    ],
)
def test_an_attempt_is_this_try_of_all_tries(text, attempt):
    assert parse_attempt(text) == attempt
    if attempt:
        assert format_attempt(*attempt) == text


@pytest.mark.parametrize(
    ("text", "may"),
    [(None, True), (b"1/1", True), (b"1/3", False), (b"3/3", False), (b"rubbish", True)],
)
def test_below_a_layer_that_retries_nobody_retries(text, may):
    assert may_retry(text) is may


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (b"1H", 3600.0),
        (b"2M", 120.0),
        (b"3S", 3.0),
        (b"250m", 0.25),
        (b"5u", 5e-6),
        (b"7n", 7e-9),
        (b"99999999S", 99999999.0),
        (b"123456789S", None),
        (b"1s", None),
        (b"S", None),
        (b"1", None),
        (b"", None),
        (b"-1S", None),
    ],
)
def test_a_grpc_timeout_is_up_to_eight_digits_and_a_unit(text, seconds):
    assert parse_grpc_timeout(text) == (None if seconds is None else pytest.approx(seconds))
