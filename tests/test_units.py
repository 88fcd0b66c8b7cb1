from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.units import (
    GB,
    KB,
    MB,
    Rate,
    UnitError,
    format_duration,
    format_percent,
    format_rate,
    format_size,
    parse_duration,
    parse_percent,
    parse_rate,
    parse_size,
    rough_duration,
    rough_size,
)


@pytest.mark.parametrize(
    "text, seconds",
    [
        ("250ms", 0.25),
        ("30s", 30.0),
        ("30 s", 30.0),
        ("5min", 300.0),
        ("5m", 300.0),
        ("1h", 3600.0),
        ("7d", 604800.0),
        ("1h30min", 5400.0),
        ("1h 30min", 5400.0),
        ("1min1s500ms", 61.5),
        ("1.5s", 1.5),
        ("0s", 0.0),
        ("100us", 0.0001),
        ("5", 5.0),
        (" 5 ", 5.0),
        (5, 5.0),
        (0.25, 0.25),
        (0, 0.0),
    ],
)
def test_durations_are_read(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "value, rule",
    [
        ("", "is not a duration"),
        ("s", "is not a duration"),
        ("5 parsecs", "is not a duration"),
        ("5S", "is not a duration"),
        ("30min1h", "is not a duration"),
        ("1h1h", "is not a duration"),
        ("1h-5s", "is not a duration"),
        ("1e3s", "is not a duration"),
        ("nan", "is not a duration"),
        ("inf", "is not a duration"),
        ("٣s", "is not a duration"),
        ("1_000s", "is not a duration"),
        ("5s\n5s", "is not a duration"),
        ("1s" * 40, "is not a duration"),
        ("9" * 400, "is not a duration"),
        (float("nan"), "is not a duration"),
        (float("inf"), "is not a duration"),
        (True, "is not a duration"),
        (None, "is not a duration"),
        ([], "is not a duration"),
        ("-5s", "is negative"),
        ("-5", "is negative"),
        (-1, "is negative"),
        (-0.001, "is negative"),
        ("3651d", "is too long"),
        (10**400, "is too large"),
        (1e300, "is too long"),
    ],
)
def test_what_is_no_duration_says_which_forms_are(value, rule):
    with pytest.raises(UnitError) as caught:
        parse_duration(value)
    assert caught.value.rule.startswith(rule)


def test_a_refusal_shows_the_value_and_the_forms():
    with pytest.raises(UnitError) as caught:
        parse_duration("5 parsecs")
    assert str(caught.value) == (
        '"5 parsecs" is not a duration; '
        "write 250ms, 30s, 5min, 1h or 7d, or a bare number of seconds"
    )


@pytest.mark.parametrize(
    "text, size",
    [
        ("512B", 512),
        ("1KB", KB),
        ("1kb", KB),
        ("1KiB", KB),
        ("1 K", KB),
        ("10MB", 10 * MB),
        ("1.5GB", 3 * GB // 2),
        ("2g", 2 * GB),
        ("5", 5),
        (5, 5),
        (5.0, 5),
        (0, 0),
    ],
)
def test_sizes_are_read(text, size):
    got = parse_size(text)
    assert got == size
    assert type(got) is int


@pytest.mark.parametrize(
    "value, rule",
    [
        ("1XB", "is not a size"),
        ("", "is not a size"),
        ("KB", "is not a size"),
        ("1KBs", "is not a size"),
        (True, "is not a size"),
        (float("nan"), "is not a size"),
        ("0.3B", "is not a whole number of bytes"),
        (1.5, "is not a whole number of bytes"),
        ("-1", "is negative"),
        (-1, "is negative"),
        ("1025TB", "is too large"),
        (1 << 60, "is too large"),
    ],
)
def test_what_is_no_size_says_so(value, rule):
    with pytest.raises(UnitError) as caught:
        parse_size(value)
    assert caught.value.rule.startswith(rule)


@pytest.mark.parametrize(
    "text, rate",
    [
        ("10/s", Rate(10, 1)),
        ("1000/15min", Rate(1000, 900)),
        ("1000 / 15 min", Rate(1000, 900)),
        ("5/h", Rate(5, 3600)),
        ("0.5/s", Rate(0.5, 1)),
        ("3/250ms", Rate(3, 0.25)),
    ],
)
def test_rates_are_read(text, rate):
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    "value", ["10", "10/", "/s", "10/s/s", "-1/s", "a/s", "1/0s", 5, True, "1/x"]
)
def test_what_is_no_rate_is_refused(value):
    with pytest.raises(UnitError):
        parse_rate(value)


def test_a_rate_knows_itself_for_one_second():
    assert parse_rate("900/15min").per_second == 1.0


@pytest.mark.parametrize(
    "text, share",
    [
        ("50%", 0.5),
        ("0%", 0.0),
        ("100%", 1.0),
        ("12.5%", 0.125),
        (0.5, 0.5),
        ("0.5", 0.5),
        (1, 1.0),
    ],
)
def test_percentages_are_read(text, share):
    assert parse_percent(text) == share


@pytest.mark.parametrize("value", ["101%", 1.01, 50, "-1%", True, "half", "", float("nan"), "5%%"])
def test_what_is_no_percentage_is_refused(value):
    with pytest.raises(UnitError):
        parse_percent(value)


@given(st.integers(0, 10**12))
def test_durations_in_milliseconds_survive_a_round_trip(ms):
    seconds = min(ms / 1000, 300_000_000)
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.integers(0, 1 << 50))
def test_sizes_survive_a_round_trip(size):
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize(
    "size, text",
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KB"),
        (67_108_864, "64.0 MB"),
        (1 << 40, "1,024.0 GB"),
    ],
)
def test_people_read_sizes_in_the_units_of_the_file(size, text):
    assert rough_size(size) == text


@pytest.mark.parametrize(
    "seconds, text", [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (172_800, "2 d")]
)
def test_people_read_times_in_a_unit_of_which_there_are_two(seconds, text):
    assert rough_duration(seconds) == text


@given(st.integers(1, 10**9), st.integers(1, 10**6))
def test_rates_survive_a_round_trip(count, per_ms):
    rate = Rate(float(count), per_ms / 1000)
    assert parse_rate(format_rate(rate)) == rate


@given(st.integers(0, 10**4))
def test_percentages_survive_a_round_trip(points):
    share = points / 10**4
    assert parse_percent(format_percent(share)) == share


@given(st.one_of(st.text(), st.floats(), st.integers(), st.booleans(), st.none()))
def test_nothing_but_a_unit_error_comes_out(value):
    for parse in (parse_duration, parse_size, parse_percent, parse_rate):
        try:
            parse(value)
        except UnitError:
            pass


@pytest.mark.parametrize(
    "seconds, text",
    [
        (0.25, "250ms"),
        (30, "30s"),
        (60, "1min"),
        (75, "75s"),
        (300, "5min"),
        (86400, "1d"),
        (0, "0s"),
    ],
)
def test_durations_are_written_in_the_largest_whole_unit(seconds, text):
    assert format_duration(seconds) == text
