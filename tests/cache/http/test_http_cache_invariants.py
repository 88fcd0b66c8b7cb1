"""What holds for every request and response, whatever they say."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.cache.http.answering import answer
from headgate.cache.http.asked import Asked, read_request
from headgate.cache.http.cache_control import SECONDS_MAX, members, targeted
from headgate.cache.http.dates import format_date, parse_date
from headgate.cache.http.invalidating import invalidated_by
from headgate.cache.http.judging import NotStored, judge_response
from headgate.cache.http.ranges import PARTS_MAX, parse_range, slices_of
from headgate.cache.http.reuse import (
    SETBACK_MAX_S,
    judge_reuse,
    keep_until,
    may_serve_on_error,
    may_serve_when_degraded,
)
from headgate.cache.http.rules import CacheRules, KeyRules
from headgate.cache.http.status_field import appended, member
from headgate.cache.http.stored import Stored
from headgate.cache.http.validating import applies_to, fill_headers, merged, validators_for
from headgate.cache.http.vary import newest, normal
from headgate.wire.message import Header
from tests.cache.http.rig import RULES, WALL, ask, at, fields, kept

SECONDS = st.sampled_from(["0", "1", "30", "60", "600", "x", "-1", '"60"', "1.5", "9" * 30])
RESPONSE_DIRECTIVES = st.lists(
    st.sampled_from(
        ["public", "private", "no-store", "no-cache", "must-revalidate", "proxy-revalidate", "must-understand", "immutable", "no-transform", 'private="x-a"', 'no-cache="x-a"', "s-maxage=60", "max-age=60", "unknown=1"]
    )
    | st.builds("{}={}".format, st.sampled_from(["max-age", "s-maxage", "stale-while-revalidate", "stale-if-error"]), SECONDS),
    max_size=5,
)  # fmt: skip
REQUEST_DIRECTIVES = st.lists(
    st.sampled_from(["no-cache", "no-store", "only-if-cached", "no-transform", "max-stale"])
    | st.builds("{}={}".format, st.sampled_from(["max-age", "min-fresh", "max-stale", "stale-if-error"]), SECONDS),
    max_size=3,
)  # fmt: skip
VALIDATORS = st.lists(
    st.sampled_from(['ETag: "a"', 'ETag: W/"a"', "ETag: a", "Last-Modified: @-1000"]), max_size=2
)
TIMES = st.lists(
    st.sampled_from(
        ["Date: @0", "Date: @-50", "Date: @50", "Age: 30", "Age: x", "Expires: @60", "Expires: 0"]
    ),
    max_size=3,
)
RULES_OF_ROUTES = st.builds(
    CacheRules,
    ttl_s=st.sampled_from([None, 0.0, 30.0]),
    ttl_by_status=st.sampled_from([{}, {200: 5.0}, {404: 5.0}]),
    overrides=st.booleans(),
    stale_while_revalidate_s=st.sampled_from([0.0, 30.0]),
    stale_if_error_s=st.sampled_from([0.0, 30.0]),
    client_directives=st.booleans(),
)
AFTER = st.floats(-1e9, 1e9, allow_nan=False) | st.floats(-20, 200, allow_nan=False)


@st.composite
def responses(draw: st.DrawFn) -> list[str]:
    lines = [*draw(VALIDATORS), *draw(TIMES), "X-A: 1"]
    directives = draw(RESPONSE_DIRECTIVES)
    if directives:
        lines.append(f"Cache-Control: {', '.join(directives)}")
    return lines


@st.composite
def requests(draw: st.DrawFn) -> list[str]:
    directives = draw(REQUEST_DIRECTIVES)
    return [f"Cache-Control: {', '.join(directives)}"] if directives else []


def judged(
    lines: list[str], asked: Asked, rules: CacheRules, status: int = 200
) -> Stored | NotStored:
    return judge_response(
        asked,
        status,
        b"",
        fields(*lines),
        request_at=WALL,
        received_at=WALL,
        rules=rules,
        params={},
    )


def words(lines: list[str]) -> set[str]:
    said = ", ".join(line.partition(":")[2] for line in lines if line.startswith("Cache-Control"))
    return {word.strip() for word in said.split(",")}


@given(responses(), requests(), RULES_OF_ROUTES, st.booleans(), st.sampled_from([200, 404, 500]))
def test_what_may_not_be_shared_is_never_kept(
    lines: list[str], first: list[str], rules: CacheRules, is_identified: bool, status: int
) -> None:
    asked = ask(*first, rules=rules, identified=is_identified)
    found = judged(lines, asked, rules, status)
    if isinstance(found, NotStored):
        return
    said = words(lines)
    assert "private" not in said
    assert "no-store" not in said or "must-understand" in said
    assert not asked.no_store
    if is_identified:
        assert said & {"public", "must-revalidate"} or any(
            word.startswith("s-maxage=") for word in said
        )
    if 'private="x-a"' in said or 'no-cache="x-a"' in said:
        assert b"x-a" not in {name for name, _ in found.headers}


@given(responses(), requests(), RULES_OF_ROUTES, AFTER, st.booleans())
def test_what_is_served_without_asking_was_allowed(
    lines: list[str], then: list[str], rules: CacheRules, after_s: float, struck: bool
) -> None:
    found = judged(lines, ask(rules=rules), rules)
    if isinstance(found, NotStored):
        return
    asked = ask(*then, rules=rules)
    wall = WALL + after_s
    reuse = judge_reuse(found, asked, wall, is_struck_stale=struck)
    assert reuse.age_s >= 0.0
    if reuse.kind == "refuse":
        assert asked.no_store
    if reuse.kind not in ("fresh", "revalidate_behind"):
        return
    said = words(lines)
    assert after_s >= -SETBACK_MAX_S
    assert not asked.no_cache
    assert "no-cache" not in said or rules.overrides
    is_stale = found.age_s(wall) >= found.fresh_s
    if is_stale:
        assert not said & {"must-revalidate", "proxy-revalidate", "no-cache"}
        assert reuse.ttl_s <= 0.0
    if reuse.kind == "fresh" and is_stale:
        assert asked.max_stale_s is not None
        assert found.may_be_stale
    if struck:
        assert reuse.kind == "revalidate_behind"


RANKS = {"fresh": 0, "revalidate_behind": 1, "validate": 2, "refuse": 3}


@given(
    responses(),
    requests(),
    RULES_OF_ROUTES,
    st.lists(st.floats(0, 5000), min_size=2, max_size=6),
    st.booleans(),
)
def test_reuse_only_gets_worse_with_time(
    lines: list[str], then: list[str], rules: CacheRules, offsets: list[float], struck: bool
) -> None:
    found = judged(lines, ask(rules=rules), rules)
    if isinstance(found, NotStored):
        return
    asked = ask(*then, rules=rules)
    seen = [
        judge_reuse(found, asked, WALL + after, is_struck_stale=struck) for after in sorted(offsets)
    ]
    if asked.max_stale_s is None:
        ranks = [RANKS[reuse.kind] for reuse in seen]
        assert ranks == sorted(ranks)
    ages = [reuse.age_s for reuse in seen]
    assert ages == sorted(ages)
    allowed = [may_serve_on_error(found, asked, WALL + after, rules) for after in sorted(offsets)]
    assert allowed == sorted(allowed, reverse=True)


@given(responses(), RULES_OF_ROUTES)
def test_what_is_kept_is_of_use_until_it_is_let_go(lines: list[str], rules: CacheRules) -> None:
    found = judged(lines, ask(rules=rules), rules)
    if isinstance(found, NotStored):
        return
    until = keep_until(found, rules)
    assert until > WALL or rules.keep_s == 0.0
    assert 0.0 <= found.fresh_s <= SECONDS_MAX
    assert found.initial_age_s >= 0.0
    if until > WALL:
        late = until + 1.0
        assert judge_reuse(found, ask(), late).kind == "validate"
        assert (
            not may_serve_on_error(found, ask(), late, rules)
            or found.stale_if_error_s > late - WALL
        )


NOT_MODIFIED = st.lists(
    st.sampled_from(
        ["X-A: 2", "X-B: 1", "Cache-Control: max-age=5", "Cache-Control: no-store", "Cache-Control: private", "Date: @100", "Age: 3", "Content-Type: c/d", "Content-Encoding: br", "Vary: Accept", "Set-Cookie: a=b", 'ETag: "a"', "Expires: 0", "Cache-Tag: t", "Proxy-Authenticate: x"]
    ),
    max_size=6,
)  # fmt: skip


@given(responses(), NOT_MODIFIED, RULES_OF_ROUTES)
def test_merging_keeps_the_body_what_it_is_and_takes_the_rest(
    lines: list[str], new: list[str], rules: CacheRules
) -> None:
    body = ["Content-Type: a/b", "Content-Encoding: gzip", "X-Z: stays"]
    found = judged([*lines, *body], ask(rules=rules), rules)
    if isinstance(found, NotStored):
        return
    wall = WALL + 100
    fresh = merged(
        found, fields(*new), request_at=wall, received_at=wall, rules=rules, asked=ask(rules=rules)
    )
    assert set(fields(*body)) <= set(fresh.headers)
    assert not {b"age", b"proxy-authenticate", b"cache-tag"} & {name for name, _ in fresh.headers}
    dates = [value for name, value in fresh.headers if name == b"date"]
    assert dates == [at(100).encode()]
    assert fresh.received_at == wall
    assert set(found.tags) <= set(fresh.tags)
    if any(
        line in new
        for line in ("Cache-Control: no-store", "Cache-Control: private", "Set-Cookie: a=b")
    ):
        assert not fresh.is_storable
    # The same once more changes nothing.
    again = merged(
        fresh, fields(*new), request_at=wall, received_at=wall, rules=rules, asked=ask(rules=rules)
    )
    assert sorted(again.headers) == sorted(fresh.headers)
    assert (again.fresh_s, again.initial_age_s, again.tags) == (
        fresh.fresh_s,
        fresh.initial_age_s,
        fresh.tags,
    )


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


@given(st.integers(-11_000_000_000, 250_000_000_000))
def test_a_date_that_is_written_is_read(wall: int) -> None:
    assert parse_date(format_date(wall), WALL) == wall


@dataclass
class Made:
    user: str
    number: int
    said: set[str]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["", "ann", "bob"]),  # who asks
        st.sampled_from(["en", "de"]),  # in which language
        responses(),  # what the origin would say
        requests(),  # what the client wishes
        st.sampled_from([0.0, 1.0, 40.0, 200.0]),  # how long after the last
    ),
    min_size=2,
    max_size=8,
)


@settings(max_examples=200)
@given(STEPS, RULES_OF_ROUTES)
def test_a_running_cache_never_gives_one_user_what_is_anothers(
    steps: list[tuple[str, str, list[str], list[str], float]], rules: CacheRules
) -> None:
    """An origin that makes every answer for who asks; a cache that does what the rules say."""
    shelf: list[tuple[Stored, Made]] = []
    wall = WALL
    for number, (user, language, lines, wishes, pause_s) in enumerate(steps):
        wall += pause_s
        request = fields(
            *wishes, f"Accept-Language: {language}", *([f"Authorization: {user}"] if user else [])
        )
        asked = read_request("GET", request, rules, is_identified=bool(user))
        found = newest([stored for stored, _ in shelf], request)
        if found is not None:
            made = next(made for stored, made in shelf if stored is found)
            kind = judge_reuse(found, asked, wall).kind
            if kind in ("fresh", "revalidate_behind"):
                assert "private" not in made.said
                assert "no-store" not in made.said or "must-understand" in made.said
                assert (
                    not made.user
                    or made.said & {"public", "must-revalidate"}
                    or any(word.startswith("s-maxage=") for word in made.said)
                )
                assert found.vary == ((b"accept-language", language.encode()),)
                continue
        stamped = [line for line in lines if not line.startswith(("Date", "Expires"))]
        stored = judge_response(
            asked, 200, b"", fields(*stamped, "Vary: Accept-Language"),
            request_at=wall, received_at=wall, rules=rules, params={},
        )  # fmt: skip
        if isinstance(stored, Stored):
            shelf.append((stored, Made(user, number, words(lines))))


def test_a_key_that_tells_users_apart_still_keeps_no_private_answer() -> None:
    rules = CacheRules(key=KeyRules(user=True), ttl_s=60.0, overrides=True)
    assert isinstance(judged(["Cache-Control: private"], ask(identified=True), rules), NotStored)


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
