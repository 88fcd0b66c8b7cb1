"""Dates (RFC 9110 5.6.7): three forms are read, one is written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.wire.http_dates import format_date, parse_date

WALL = 1_795_000_000.0  # in November 2026
THEN = 784_111_777.0


@pytest.mark.parametrize(
    "text, expected",
    [
        pytest.param("Sun, 06 Nov 1994 08:49:37 GMT", THEN, id="5.6.7-fixed"),
        pytest.param("Sunday, 06-Nov-94 08:49:37 GMT", THEN, id="5.6.7-rfc850"),
        pytest.param("Sun Nov  6 08:49:37 1994", THEN, id="5.6.7-asctime"),
        pytest.param("Sun Nov 06 08:49:37 1994", THEN, id="5.6.7-asctime-zero"),
        pytest.param("SUN, 06 NOV 1994 08:49:37 gmt", THEN, id="9111-4.2-case"),
        pytest.param(" Sun, 06 Nov 1994 08:49:37 GMT\t", THEN, id="blanks-around"),
        pytest.param("Mon, 06 Nov 1994 08:49:37 GMT", THEN, id="other-weekday"),
        pytest.param("Thu, 01 Jan 1970 00:00:00 GMT", 0.0, id="epoch"),
        pytest.param("Thu, 29 Feb 2024 00:00:00 GMT", 1_709_164_800.0, id="leap-day"),
        pytest.param("Sat, 31 Dec 2016 23:59:60 GMT", 1_483_228_799.0, id="leap-second"),
        pytest.param("Tue, 19 Jan 2038 14:14:08 GMT", 2_147_523_248.0, id="beyond-32-bits"),
        pytest.param("Fri, 31 Dec 9999 23:59:59 GMT", 253_402_300_799.0, id="last-year"),
        pytest.param(
            "Wednesday, 31-Dec-75 00:00:00 GMT", 3_344_976_000.0, id="5.6.7-49-years-ahead"
        ),
        pytest.param(
            "Sunday, 01-Nov-76 00:00:00 GMT", 3_371_414_400.0, id="5.6.7-not-quite-50-years-ahead"
        ),
        pytest.param(
            "Friday, 31-Dec-77 00:00:00 GMT", 252_374_400.0, id="5.6.7-51-years-ahead-is-past"
        ),
        pytest.param(
            "Friday, 31-Dec-76 00:00:00 GMT",
            220_838_400.0,
            id="5.6.7-month-beyond-50-years-is-past",
        ),
        pytest.param("Friday, 31-Dec-99 00:00:00 GMT", 946_598_400.0, id="5.6.7-past-century"),
        pytest.param("Mon, 01 Jan 0001 00:00:00 GMT", -11_676_096_000.0, id="sentinel-year-one"),
        pytest.param("", None, id="empty"),
        pytest.param("0", None, id="zero"),
        pytest.param("Sun, 6 Nov 1994 08:49:37 GMT", None, id="one-digit-day"),
        pytest.param("Sun, 06 Nov 1994 8:49:37 GMT", None, id="one-digit-hour"),
        pytest.param("Sun, 06 Nov 1994 08:49 GMT", None, id="no-seconds"),
        pytest.param("Sun, 06 Nov 1994 08:49:37", None, id="no-zone"),
        pytest.param("Sun, 06 Nov 1994 08:49:37 UTC", None, id="utc"),
        pytest.param("Sun, 06 Nov 1994 08:49:37 +0000", None, id="offset"),
        pytest.param("Sun, 06 Nov 94 08:49:37 GMT", None, id="two-digit-year"),
        pytest.param("Sunday, 06-Nov-1994 08:49:37 GMT", None, id="four-digit-rfc850"),
        pytest.param("Xxx, 06 Nov 1994 08:49:37 GMT", None, id="no-weekday"),
        pytest.param("Sun, 06 Xxx 1994 08:49:37 GMT", None, id="no-month"),
        pytest.param("Wed, 30 Feb 1994 08:49:37 GMT", None, id="no-such-day"),
        pytest.param("Wed, 29 Feb 2023 08:49:37 GMT", None, id="no-leap-year"),
        pytest.param("Sun, 00 Nov 1994 08:49:37 GMT", None, id="day-zero"),
        pytest.param("Sun, 06 Nov 0000 08:49:37 GMT", None, id="year-zero"),
        pytest.param("Sun, 06 Nov 1994 24:00:00 GMT", None, id="hour-24"),
        pytest.param("Sun, 06 Nov 1994 08:60:37 GMT", None, id="minute-60"),
        pytest.param("Sun, 06 Nov 1994 08:49:61 GMT", None, id="second-61"),
        pytest.param("Sun Nov   08:49:37 1994", None, id="asctime-no-day"),
        pytest.param("1994-11-06T08:49:37Z", None, id="iso"),
        pytest.param(
            "Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT", None, id="two"
        ),
        pytest.param("x" * 100_000, None, id="long"),
    ],
)
def test_a_date_is_read(text: str, expected: float | None) -> None:
    assert parse_date(text.encode(), WALL) == expected


def test_a_date_is_written() -> None:
    assert format_date(THEN + 0.9) == b"Sun, 06 Nov 1994 08:49:37 GMT"


@given(st.integers(-11_000_000_000, 250_000_000_000))
def test_a_date_that_is_written_is_read(wall: int) -> None:
    assert parse_date(format_date(wall), WALL) == wall


@given(st.binary(max_size=40))
def test_no_bytes_from_outside_make_it_fail(value: bytes) -> None:
    found = parse_date(value, WALL)
    assert found is None or isinstance(found, float)
