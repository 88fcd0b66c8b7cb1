"""What holds for every text that comes over the wire, well formed or not."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.cache.http.answering import answer
from headgate.cache.http.asked import read_request
from headgate.cache.http.cache_control import members, targeted
from headgate.cache.http.invalidating import invalidated_by
from headgate.cache.http.judging import NotStored, judge_response
from headgate.cache.http.ranges import PARTS_MAX, parse_range, slices_of
from headgate.cache.http.reuse import (
    judge_reuse,
    may_serve_on_error,
    may_serve_when_degraded,
)
from headgate.cache.http.rules import CacheRules
from headgate.cache.http.status_field import appended, member
from headgate.cache.http.validating import applies_to, fill_headers, merged, validators_for
from headgate.cache.http.vary import newest, normal
from headgate.wire.message import Header
from tests.cache.http.rig import RULES, WALL, kept
from tests.cache.http.said import AFTER, RULES_OF_ROUTES

VALUE_BYTES = st.binary(max_size=60).map(
    lambda value: bytes(byte for byte in value if byte not in b"\r\n\x00")
)
TEXTURE = st.text(alphabet=' \t,;="\\*-/a1', max_size=60).map(str.encode)
VALUES = VALUE_BYTES | TEXTURE
NAMES = st.sampled_from(
    [
        "accept",
        "accept-encoding",
        "accept-language",
        "age",
        "authorization",
        "cache-control",
        "cache-status",
        "cache-tag",
        "cdn-cache-control",
        "content-location",
        "content-range",
        "content-type",
        "cookie",
        "date",
        "etag",
        "expires",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "last-modified",
        "location",
        "pragma",
        "range",
        "set-cookie",
        "surrogate-key",
        "vary",
        "x-a",
    ]
).map(str.encode)
HEADERS = st.lists(st.tuples(NAMES, VALUES), max_size=12).map(tuple)


@settings(max_examples=300)
@given(
    HEADERS,
    HEADERS,
    HEADERS,
    RULES_OF_ROUTES,
    st.sampled_from(["GET", "HEAD", "POST", ""]),
    st.integers(0, 999),
    AFTER,
)
def test_nothing_that_comes_over_the_wire_raises(
    request: tuple[Header, ...],
    response: tuple[Header, ...],
    third: tuple[Header, ...],
    rules: CacheRules,
    method: str,
    status: int,
    after_s: float,
) -> None:
    asked = read_request(method, request, rules, is_identified=False)
    fill_headers(request)
    invalidated_by("POST", 200, "http", "a.example", "/x", response)
    appended(response, member("headgate", hit=True, key="x"))
    for code in (200, status):
        first = read_request("GET", third, rules, is_identified=False)
        found = judge_response(
            first, code, b"", response, request_at=WALL, received_at=WALL, rules=rules, params={}
        )
        if isinstance(found, NotStored):
            continue
        wall = WALL + after_s
        judge_reuse(found, asked, wall)
        may_serve_on_error(found, asked, wall, rules)
        may_serve_when_degraded(found, asked, wall)
        validators_for(found, request)
        applies_to(found, third)
        newest([found], request)
        merged(found, third, request_at=wall, received_at=wall, rules=rules, asked=asked)
        reply = answer(found, asked, 1000)
        assert len(reply.content(b"x" * 1000)) == (0 if method == "HEAD" else reply.length)


@given(
    st.lists(
        st.tuples(st.none() | st.integers(0, 3000), st.none() | st.integers(0, 3000)),
        min_size=1,
        max_size=40,
    ),
    st.integers(0, 2000),
)
def test_slices_lie_in_the_body_and_hold_every_byte_asked_for(
    specs: list[tuple[int | None, int | None]], length: int
) -> None:
    text = ",".join(
        f"{'' if first is None else first}-{'' if last is None else last}" for first, last in specs
    )
    parsed = parse_range(f"bytes={text}".encode())
    if parsed is None:
        return
    found = slices_of(parsed, length)
    if found is None:
        return
    assert len(found) <= PARTS_MAX
    assert all(0 <= start < end <= length for start, end in found)
    assert sum(end - start for start, end in found) <= length
    got = {index for start, end in found for index in range(start, end)}
    for first, last in parsed:
        if first is None:
            wanted = range(max(length - (last or 0), 0), length)
        else:
            wanted = range(first, length if last is None else min(last + 1, length))
        assert got.issuperset(wanted)


@given(st.lists(st.tuples(st.sampled_from(["gzip", "br", "zstd", "*", "identity", "x-a"]), st.sampled_from(["", ";q=0", ";q=0.5", ";q=1.0"])), unique_by=lambda pair: pair[0], max_size=5), st.randoms(use_true_random=False))  # fmt: skip
def test_the_order_and_form_of_accept_encoding_do_not_count(
    codings: list[tuple[str, str]], rng: object
) -> None:
    plain = ",".join(name + weight for name, weight in codings)
    mixed = list(codings)
    rng.shuffle(mixed)  # type: ignore[attr-defined]  # a Random, as Hypothesis makes it
    shaped = " , ".join(name.upper() + weight.replace(";q", " ; Q") for name, weight in mixed)
    names = (b"accept-encoding",)
    assert normal(names, ((names[0], plain.encode()),)) == normal(
        names, ((names[0], shaped.encode()),)
    )


@given(NAMES, VALUES)
def test_normalising_twice_is_normalising_once(name: bytes, value: bytes) -> None:
    once = normal((name,), ((name, value),))
    assert normal((name,), once) == once


@given(st.lists(st.tuples(st.from_regex(r"[a-z][a-z-]{0,8}", fullmatch=True), st.none() | st.text(alphabet='a ,"\\=', max_size=8)), max_size=6))  # fmt: skip
def test_directives_are_read_as_they_were_written(said: list[tuple[str, str | None]]) -> None:
    def written(argument: str | None) -> str:
        if argument is None:
            return ""
        return '="' + argument.replace("\\", "\\\\").replace('"', '\\"') + '"'

    line = ", ".join(name + written(argument) for name, argument in said)
    found = [
        (name.decode(), None if value is None else value.decode())
        for name, value in members(line.encode())
    ]
    assert found == said


LONG = 256 * 1024


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b" " * LONG + b"x", id="blanks"),
        pytest.param(b"," + b" " * LONG + b"x", id="comma-blanks"),
        pytest.param(b", " * (LONG // 2) + b"=", id="commas"),
        pytest.param(b'"' * LONG, id="quotes"),
        pytest.param(b'="' + b'\\"' * (LONG // 2), id="escapes"),
        pytest.param(b'a="\\",' * (LONG // 6), id="escaped-ends"),
        pytest.param(b'a="b,' * (LONG // 5) + b'"', id="not-closed"),
        pytest.param(b'"a",' * (LONG // 4), id="tags"),
        pytest.param(b"a;q=1;" * (LONG // 6), id="parameters"),
        pytest.param(b"a" + b" " * LONG + b";q=1", id="blanks-before-semicolon"),
        pytest.param(b"max-age=" + b"9" * LONG, id="digits"),
        pytest.param(b"a " * (LONG // 2), id="words"),
        pytest.param(b"a=1," * (LONG // 4), id="members"),
        pytest.param(b"bytes=" + b"0-0," * (LONG // 4), id="ranges"),
        pytest.param(b"a" * LONG, id="letters"),
    ],
)
def test_long_fields_take_linear_time(value: bytes) -> None:
    """Seconds, not the hours of a quadratic reader: a bound to catch it, no measurement."""
    begun = time.monotonic()
    names = (
        b"accept",
        b"accept-encoding",
        b"x-a",
        b"vary",
        b"etag",
        b"cache-control",
        b"cdn-cache-control",
    )
    more = (
        b"cache-tag",
        b"date",
        b"age",
        b"expires",
        b"if-none-match",
        b"range",
        b"if-range",
        b"location",
    )
    headers = tuple((name, value) for name in (*names, *more))
    asked = read_request("GET", headers, RULES, is_identified=False)
    for response in (
        headers,
        (
            *headers[:3],
            (b"vary", b"accept, accept-encoding, x-a"),
            (b"cache-control", b"max-age=9"),
        ),
    ):
        judge_response(
            asked, 200, b"", response, request_at=WALL, received_at=WALL, rules=RULES, params={}
        )
    answer(kept("Cache-Control: max-age=60", 'ETag: "x"'), asked, 1000)
    invalidated_by("POST", 200, "http", "a.example", "/", headers)
    targeted([value])
    assert time.monotonic() - begun < 10.0
