"""RFC 9111 sections 4.3 and 3.2: asking the origin, and what its answer makes of a kept response."""

from __future__ import annotations

import pytest

from headgate.cache.http.reuse import judge_reuse
from headgate.cache.http.rules import CacheRules
from headgate.cache.http.stored import Stored
from headgate.cache.http.validating import (
    applies_to,
    fill_headers,
    merged,
    validators_for,
)
from tests.cache.http.rig import RULES, WALL, ask, ask_rules, at, fields, kept

FRESH = "Cache-Control: max-age=60"
ETAG = 'ETag: "a"'
MODIFIED = "Last-Modified: @-1000"


def again(
    stored: Stored,
    *lines: str,
    after_s: float = 100.0,
    then: tuple[str, ...] = (),
    rules: CacheRules = RULES,
) -> Stored:
    wall = WALL + after_s
    return merged(
        stored,
        fields(*lines),
        request_at=wall,
        received_at=wall,
        rules=rules,
        asked=ask(*then, rules=rules),
    )


@pytest.mark.parametrize(
    "lines, expected",
    [
        pytest.param([ETAG], [(b"if-none-match", b'"a"')], id="4.3.1-strong"),
        pytest.param(['ETag: W/"a"'], [(b"if-none-match", b'W/"a"')], id="4.3.1-weak"),
        pytest.param(["ETag: a"], [(b"if-none-match", b"a")], id="4.3.1-without-quotes-as-it-came"),
        pytest.param([MODIFIED], [(b"if-modified-since", at(-1000).encode())], id="4.3.1-date"),
        pytest.param(
            [ETAG, MODIFIED],
            [(b"if-none-match", b'"a"'), (b"if-modified-since", at(-1000).encode())],
            id="4.3.1-both",
        ),
        pytest.param(
            [ETAG, "Last-Modified: bad"], [(b"if-none-match", b'"a"')], id="4.3.1-bad-date"
        ),
        pytest.param([], None, id="4.3.1-none"),
    ],
)
def test_validators_are_sent(lines: list[str], expected: list[tuple[bytes, bytes]] | None) -> None:
    found = validators_for(kept(FRESH, *lines), fields("Accept: a"))
    assert found == (None if expected is None else (*fields("Accept: a"), *expected))


CLIENTS = (
    'If-None-Match: "x"',
    "If-Modified-Since: @0",
    "Range: bytes=0-1",
    'If-Range: "x"',
    'If-Match: "x"',
    "If-Unmodified-Since: @0",
)


def test_4_3_1_our_conditions_take_the_place_of_the_clients() -> None:
    found = validators_for(kept(FRESH, ETAG), fields("Accept: a", *CLIENTS, "X-B: 1"))
    assert found == fields("Accept: a", "X-B: 1", 'If-None-Match: "a"')


def test_a_fill_asks_for_the_whole_unconditionally() -> None:
    assert fill_headers(fields("Accept: a", *CLIENTS, "X-B: 1")) == fields("Accept: a", "X-B: 1")
    plain = fields("Accept: a")
    assert fill_headers(plain) is plain


@pytest.mark.parametrize(
    "lines, not_modified, expected",
    [
        pytest.param([ETAG], [], True, id="4.3.4-names-none"),
        pytest.param([ETAG], [ETAG], True, id="4.3.4-same-strong"),
        pytest.param([ETAG], ['ETag: "b"'], False, id="4.3.4-other-strong"),
        pytest.param(['ETag: W/"a"'], [ETAG], False, id="4.3.4-strong-is-not-weak"),
        pytest.param([ETAG], ['ETag: W/"a"'], True, id="4.3.4-weak-matches"),
        pytest.param(['ETag: W/"a"'], ['ETag: W/"a"'], True, id="4.3.4-same-weak"),
        pytest.param(['ETag: W/"a"'], ['ETag: W/"b"'], False, id="4.3.4-other-weak"),
        pytest.param([MODIFIED], [ETAG], False, id="4.3.4-strong-that-we-have-not"),
        pytest.param([MODIFIED], [MODIFIED], True, id="4.3.4-same-date"),
        pytest.param([MODIFIED], ["Last-Modified: @-900"], False, id="4.3.4-other-date"),
        pytest.param([ETAG, MODIFIED], ["Last-Modified: @-900"], True, id="4.3.4-tag-was-asked"),
        pytest.param(["ETag: a"], ["ETag: a"], True, id="4.3.4-without-quotes"),
    ],
)
def test_a_304_is_about_the_kept_response(
    lines: list[str], not_modified: list[str], expected: bool
) -> None:
    assert applies_to(kept(FRESH, *lines), fields(*not_modified)) is expected


@pytest.mark.parametrize(
    "name",
    [
        "X-A",
        "Content-Foo",
        "X-Content-Foo",
        "Content-Location",
        "Content-Security-Policy",
        "X-Frame-Options",
        "Link",
    ],
)
def test_3_2_fields_of_a_304_replace_those_kept(name: str) -> None:
    stored = again(
        kept(FRESH, ETAG, f"{name}: old", f"{name}: older", "X-Z: stays"), f"{name}: new"
    )
    assert [value for key, value in stored.headers if key == name.lower().encode()] == [b"new"]
    assert (b"x-z", b"stays") in stored.headers


@pytest.mark.parametrize(
    "name",
    [
        "Content-Encoding",
        "Content-Type",
        "Content-Range",
        "Content-MD5",
        "Content-Length",
        "Repr-Digest",
    ],
)
def test_3_2_what_describes_the_body_stays(name: str) -> None:
    stored = again(kept(FRESH, ETAG, f"{name}: old"), f"{name}: new")
    assert (name.lower().encode(), b"old") in stored.headers
    assert (name.lower().encode(), b"new") not in stored.headers


def test_3_2_a_304_that_omits_a_field_leaves_it() -> None:
    stored = kept(FRESH, ETAG, "X-A: 1")
    assert (b"x-a", b"1") in again(stored).headers


def test_4_3_4_freshness_begins_anew() -> None:
    stored = kept(FRESH, ETAG, "Age: 30")
    fresh = again(stored)
    assert judge_reuse(stored, ask(), WALL + 101.0).kind == "validate"
    found = judge_reuse(fresh, ask(), WALL + 101.0)
    assert (found.kind, found.age_s) == ("fresh", 1.0)
    assert fresh.is_storable


@pytest.mark.parametrize(
    "lines, expected_s",
    [
        pytest.param(["Cache-Control: max-age=5"], 5, id="shorter"),
        pytest.param(["Cache-Control: max-age=500"], 500, id="longer"),
        pytest.param(["Expires: @900"], 60, id="max-age-stays"),
        pytest.param([], 60, id="silent"),
    ],
)
def test_3_2_a_304_gives_a_new_lifetime(lines: list[str], expected_s: float) -> None:
    assert again(kept(FRESH, ETAG), *lines).fresh_s == expected_s


def test_3_2_age_and_date_of_a_304_count() -> None:
    stored = again(kept(FRESH, ETAG, "Date: @0"), "Date: @100", "Age: 7")
    assert stored.initial_age_s == 7.0
    assert [value for name, value in stored.headers if name == b"date"] == [at(100).encode()]


def test_a_304_without_a_date_gets_one() -> None:
    stored = again(kept(FRESH, ETAG, "Date: @0"))
    assert [value for name, value in stored.headers if name == b"date"] == [at(100).encode()]
    assert stored.initial_age_s == 0.0


@pytest.mark.parametrize(
    "line",
    [
        "Cache-Control: no-store",
        "Cache-Control: private",
        "Vary: *",
        "Set-Cookie: a=b",
        "CDN-Cache-Control: no-store",
    ],
)
def test_a_304_that_forbids_to_keep_ends_the_keeping(line: str) -> None:
    stored = kept(FRESH, ETAG)
    assert stored.is_storable
    assert not again(stored, line).is_storable


def test_3_5_a_304_to_somebody_known_that_does_not_allow_to_share_ends_the_keeping() -> None:
    stored = kept("Cache-Control: public, max-age=60", ETAG, asked=ask("Authorization: x"))
    assert again(stored, then=("Authorization: x",)).is_storable
    assert not again(stored, FRESH, then=("Authorization: x",)).is_storable


def test_3_1_a_304_brings_no_field_that_may_not_be_kept() -> None:
    stored = again(
        kept('Cache-Control: max-age=60, private="x-a"', ETAG),
        "X-A: 1",
        "Proxy-Authenticate: x",
        "Cache-Tag: new",
    )
    assert not {name for name, _ in stored.headers} & {
        b"x-a",
        b"proxy-authenticate",
        b"cache-tag",
        b"age",
    }


def test_tags_of_a_304_are_added() -> None:
    rules = ask_rules(tags=("route",))
    stored = again(kept(FRESH, ETAG, "Cache-Tag: a", rules=rules), "Cache-Tag: b", rules=rules)
    assert stored.tags == ("a", "route", "b")


def test_304s_cannot_add_tags_without_end() -> None:
    stored = kept(FRESH, ETAG)
    for turn in range(600):
        stored = again(stored, f"Cache-Tag: t{turn}")
        if not stored.is_storable:
            break
    assert len(stored.tags) == 501


def test_4_1_a_new_vary_is_read_from_the_request_that_validated() -> None:
    stored = again(kept(FRESH, ETAG), "Vary: Accept", then=("Accept: A/B",))
    assert stored.vary == ((b"accept", b"a/b"),)


def test_merging_changes_nothing_of_the_kept_one() -> None:
    stored = kept(FRESH, ETAG, "X-A: 1")
    before = (stored.headers, stored.received_at, stored.fresh_s)
    again(stored, "X-A: 2", "Cache-Control: no-store")
    assert (stored.headers, stored.received_at, stored.fresh_s) == before
