"""RFC 9111 section 4.2: how old a response is and for how long it is fresh; RFC 9213."""

from __future__ import annotations

import pytest

from headgate.cache.http.cache_control import SECONDS_MAX, delta_seconds, members, targeted
from headgate.cache.http.stored import Stored
from tests.cache.http.rig import WALL, ask_rules, judge, kept, outcome

ETAG = 'ETag: "a"'
HUGE = float(SECONDS_MAX)


@pytest.mark.parametrize(
    "lines, expected_s",
    [
        pytest.param(["Cache-Control: max-age=60"], 60, id="4.2.1-max-age"),
        pytest.param(["Cache-Control: MaX-aGe=60"], 60, id="5.2-case"),
        pytest.param(["Cache-Control: s-maxage=9, max-age=60"], 9, id="4.2.1-s-maxage-first"),
        pytest.param(["Cache-Control: max-age=60, s-maxage=90"], 90, id="4.2.1-s-maxage-longer"),
        pytest.param(["Cache-Control: max-age=60, s-maxage=0"], 0, id="4.2.1-s-maxage-zero"),
        pytest.param(["Cache-Control: max-age=60", "Expires: @900"], 60, id="4.2.1-max-age-before-expires"),
        pytest.param(["Cache-Control: max-age=60", "Expires: 0"], 60, id="5.3-max-age-before-bad-expires"),
        pytest.param(["Cache-Control: max-age=0", "Expires: @900"], 0, id="4.2.1-max-age-zero"),
        pytest.param(["Cache-Control: s-maxage=60", "Expires: @900"], 60, id="5.3-s-maxage-before-expires"),
        pytest.param(["Expires: @60", "Date: @0"], 60, id="4.2.1-expires"),
        pytest.param(["Expires: @60"], 60, id="4.2.1-expires-without-date"),
        pytest.param(["Expires: @60", "Date: @-40"], 100, id="4.2.1-expires-less-date"),
        pytest.param(["Expires: @-60", "Date: @-100"], 40, id="4.2.1-expires-past-but-after-date"),
        pytest.param(["Expires: @0", "Date: @0"], 0, id="4.2.1-expires-at-date"),
        pytest.param(["Expires: @-60", "Date: @0"], 0, id="4.2.1-expires-before-date"),
        pytest.param(["Expires: 0"], 0, id="5.3-zero"),
        pytest.param(["Expires: -1"], 0, id="5.3-minus-one"),
        pytest.param(["Expires:"], 0, id="5.3-empty"),
        pytest.param(["Expires: never"], 0, id="5.3-no-date"),
        pytest.param(["Expires: 60"], 0, id="5.3-seconds"),
        pytest.param(["Expires: Thu, 18 Aug 2050 02:01:18 UTC"], 0, id="4.2-zone-utc"),
        pytest.param(["Expires: Thu, 18 Aug 2050 02:01:18 AEST"], 0, id="4.2-other-zone"),
        pytest.param(["Expires: Thu, 18 Aug 2050 02:01:18 +0000"], 0, id="4.2-zone-number"),
        pytest.param(["Expires: Thu, 18 Aug 50 02:01:18 GMT"], 0, id="5.3-two-digit-year"),
        pytest.param(["Expires: Thu 18 Aug 2050 02:01:18 GMT"], 0, id="5.3-no-comma"),
        pytest.param(["Expires: Thu, 18  Aug  2050 02:01:18 GMT"], 0, id="5.3-two-blanks"),
        pytest.param(["Expires: Thu, 18-Aug-2050 02:01:18 GMT"], 0, id="5.3-dashes"),
        pytest.param(["Expires: Thu, 18 Aug 2050 02.01.18 GMT"], 0, id="5.3-periods"),
        pytest.param(["Expires: Thu, 18 Aug 2050 2:01:18 GMT"], 0, id="5.3-one-digit-hour"),
        pytest.param(["Expires: @60", "Expires: @90"], 60, id="4.2.1-two-expires"),
        pytest.param(["Expires: @60", "Expires: 0"], 0, id="4.2.1-two-expires-one-bad"),
        pytest.param(["Cache-Control: max-age=60, max-age=60"], 60, id="4.2.1-twice-the-same"),
        pytest.param(["Cache-Control: max-age=60, max-age=9"], 9, id="4.2.1-twice-smaller-last"),
        pytest.param(["Cache-Control: max-age=9, max-age=60"], 9, id="4.2.1-twice-smaller-first"),
        pytest.param(["Cache-Control: max-age=60", "Cache-Control: max-age=9"], 9, id="4.2.1-twice-two-lines"),
        pytest.param(["Cache-Control: max-age=60, max-age=x"], 0, id="4.2.1-twice-one-bad"),
        pytest.param(['Cache-Control: max-age="60"'], 60, id="5.2-quoted"),
        pytest.param(['Cache-Control: max-age="6\\0"'], 60, id="5.2-quoted-pair"),
        pytest.param(["Cache-Control: max-age='60'"], 0, id="5.2-single-quotes"),
        pytest.param(["Cache-Control: max-age=060"], 60, id="1.2.2-leading-zero"),
        pytest.param(["Cache-Control: max-age=0000000000000000060"], 60, id="1.2.2-leading-zeros"),
        pytest.param(["Cache-Control: max-age=2147483647"], 2147483647, id="1.2.2-below-bound"),
        pytest.param(["Cache-Control: max-age=2147483648"], HUGE, id="1.2.2-at-bound"),
        pytest.param(["Cache-Control: max-age=2147483649"], HUGE, id="1.2.2-above-bound"),
        pytest.param(["Cache-Control: max-age=99999999999999999999"], HUGE, id="1.2.2-overflow"),
        pytest.param(["Cache-Control: max-age=" + "9" * 5000], HUGE, id="1.2.2-thousands-of-digits"),
        pytest.param(["Cache-Control: max-age"], 0, id="4.2.1-no-argument"),
        pytest.param(["Cache-Control: max-age="], 0, id="4.2.1-empty-argument"),
        pytest.param(["Cache-Control: max-age=-60"], 0, id="4.2.1-negative"),
        pytest.param(["Cache-Control: max-age=+60"], 0, id="4.2.1-plus"),
        pytest.param(["Cache-Control: max-age=60.0"], 0, id="4.2.1-decimal"),
        pytest.param(["Cache-Control: max-age=1.5"], 0, id="4.2.1-fraction"),
        pytest.param(["Cache-Control: max-age=1e3"], 0, id="4.2.1-exponent"),
        pytest.param(["Cache-Control: max-age=0x60"], 0, id="4.2.1-hexadecimal"),
        pytest.param(["Cache-Control: max-age=60s"], 0, id="4.2.1-unit"),
        pytest.param(["Cache-Control: max-age=a60"], 0, id="4.2.1-letter"),
        pytest.param(["Cache-Control: max-age=\xb2"], 0, id="4.2.1-other-digit"),
        pytest.param(["Cache-Control: max-age =60"], 0, id="5.2-blank-before-equals"),
        pytest.param(["Cache-Control: max-age= 60"], 0, id="5.2-blank-after-equals"),
        pytest.param(["Cache-Control: max-age: 60"], 0, id="5.2-colon"),
        pytest.param(["Cache-Control: max-age=60; public"], 0, id="5.2-semicolon"),
        pytest.param(['Cache-Control: max-age="60"0'], 0, id="5.2-rubbish-after-quote"),
        pytest.param(["Cache-Control: , ,max-age=60,,"], 60, id="5.6.1-empty-members"),
        pytest.param(["Cache-Control: =x, max-age=60"], 60, id="5.2-member-without-name"),
        pytest.param(['Cache-Control: "x", max-age=60'], 60, id="5.2-member-is-a-string"),
        pytest.param(['Cache-Control: x="max-age=900", max-age=60'], 60, id="5.2.3-quoted-before"),
        pytest.param(['Cache-Control: max-age=60, x="max-age=9"'], 60, id="5.2.3-quoted-after"),
        pytest.param(["Cache-Control: x-max-age=9, max-age=60"], 60, id="5.2.3-longer-name"),
        pytest.param(["Cache-Control: s-max-age=9, max-age=60"], 60, id="5.2.3-no-such-name"),
        pytest.param(["Cache-Control: x=y, z, max-age=60"], 60, id="5.2.3-unknown"),
        pytest.param(["Cache-Control: s-maxage=x, max-age=60"], 0, id="4.2.1-s-maxage-bad"),
        pytest.param(["Last-Modified: @-1000"], 100, id="4.2.2-tenth"),
        pytest.param(["Last-Modified: @-1000", "Date: @-500"], 50, id="4.2.2-up-to-date"),
        pytest.param(["Last-Modified: @-100000000"], 86400, id="4.2.2-bound"),
        pytest.param(["Last-Modified: @1000"], 0, id="4.2.2-modified-ahead"),
        pytest.param(["Last-Modified: some day"], 0, id="4.2.2-no-date"),
        pytest.param(["Last-Modified: @-1000", "Last-Modified: @-2000"], 0, id="4.2.2-two"),
        pytest.param(["Last-Modified: @-1000", "Pragma: no-cache"], 0, id="5.4-pragma"),
        pytest.param(["Last-Modified: @-1000", "Pragma: other"], 100, id="5.4-other-pragma"),
        pytest.param(["Last-Modified: @-1000", "Expires: @60"], 60, id="4.2.2-not-beside-expires"),
        pytest.param(["Last-Modified: @-1000", "Expires: 0"], 0, id="4.2.2-not-beside-bad-expires"),
        pytest.param(["Last-Modified: @-1000", "Cache-Control: max-age=x"], 0, id="4.2.2-not-beside-bad-max-age"),
        pytest.param(["Last-Modified: @-1000", "Cache-Control: immutable"], 100, id="4.2.2-beside-others"),
    ],
)  # fmt: skip
def test_freshness_lifetime(lines: list[str], expected_s: float) -> None:
    assert kept(*lines, ETAG).fresh_s == expected_s


@pytest.mark.parametrize(
    "lines, expected_s",
    [
        pytest.param(["Date: @0"], 0, id="4.2.3-now"),
        pytest.param(["Date: @-30"], 30, id="4.2.3-apparent"),
        pytest.param(["Date: @30"], 0, id="4.2.3-date-ahead"),
        pytest.param([], 0, id="4.2.3-no-date"),
        pytest.param(["Date: bad"], 0, id="4.2.3-bad-date"),
        pytest.param(["Date: @-30", "Date: @-50"], 50, id="4.2.3-two-dates"),
        pytest.param(["Date: @0", "Age: 30"], 30, id="5.1-age"),
        pytest.param(["Date: @-30", "Age: 10"], 30, id="4.2.3-older-by-date"),
        pytest.param(["Date: @-10", "Age: 30"], 30, id="4.2.3-older-by-age"),
        pytest.param(["Age: 0"], 0, id="5.1-zero"),
        pytest.param(["Age: 0030"], 30, id="5.1-leading-zeros"),
        pytest.param(["Age: abc"], 0, id="5.1-letters"),
        pytest.param(["Age:"], 0, id="5.1-empty"),
        pytest.param(["Age: -30"], 0, id="5.1-negative"),
        pytest.param(["Age: 30.0"], 0, id="5.1-decimal"),
        pytest.param(["Age: 30;a=b"], 0, id="5.1-parameter"),
        pytest.param(['Age: "30"'], 0, id="5.1-quoted"),
        pytest.param(["Age: 30, 0"], 30, id="5.1-list-first"),
        pytest.param(["Age: 0, 30"], 0, id="5.1-list-not-second"),
        pytest.param(["Age: 30", "Age: 0"], 30, id="5.1-two-lines-first"),
        pytest.param(["Age: 0", "Age: 30"], 0, id="5.1-two-lines-not-second"),
        pytest.param(["Age: x, 30"], 0, id="5.1-list-first-bad"),
        pytest.param(["Age: 2147483647"], 2147483647, id="1.2.2-below-bound"),
        pytest.param(["Age: 2147483648"], HUGE, id="1.2.2-at-bound"),
        pytest.param(["Age: 2147483649"], HUGE, id="1.2.2-above-bound"),
        pytest.param(["Age: " + "9" * 5000], HUGE, id="1.2.2-thousands-of-digits"),
    ],
)
def test_age_on_arrival(lines: list[str], expected_s: float) -> None:
    assert kept("Cache-Control: max-age=60", ETAG, *lines).initial_age_s == expected_s


def test_4_2_3_the_time_a_request_took_is_added_to_age_but_not_to_the_date() -> None:
    assert (
        kept("Cache-Control: max-age=60", "Age: 10", "Date: @0", delay_s=5.0).initial_age_s == 15.0
    )
    assert kept("Cache-Control: max-age=60", "Date: @-30", delay_s=5.0).initial_age_s == 30.0


def test_4_2_3_a_clock_set_back_during_the_request_makes_no_negative_age() -> None:
    assert (
        kept("Cache-Control: max-age=60", "Age: 10", "Date: @0", delay_s=-500.0).initial_age_s
        == 10.0
    )


def test_4_2_3_age_grows_with_residence() -> None:
    stored = kept("Cache-Control: max-age=60", "Age: 10")
    assert stored.age_s(WALL + 7.5) == 17.5
    assert stored.age_s(WALL - 7.5) == 10.0


@pytest.mark.parametrize(
    "lines, status, given, expected_s",
    [
        pytest.param([], 200, {"ttl_s": 30}, 30, id="ttl-where-nothing-is-said"),
        pytest.param(["Last-Modified: @-1000"], 200, {"ttl_s": 30}, 30, id="ttl-before-heuristic"),
        pytest.param(["Cache-Control: max-age=60"], 200, {"ttl_s": 30}, 60, id="response-before-ttl"),
        pytest.param(["Cache-Control: max-age=0"], 200, {"ttl_s": 30}, 0, id="response-says-zero"),
        pytest.param(["Expires: 0"], 200, {"ttl_s": 30}, 0, id="response-says-expired"),
        pytest.param(["Cache-Control: max-age=x"], 200, {"ttl_s": 30}, 0, id="response-says-rubbish"),
        pytest.param(["Pragma: no-cache"], 200, {"ttl_s": 30}, 0, id="response-says-pragma"),
        pytest.param(["Cache-Control: public"], 200, {"ttl_s": 30}, 30, id="other-directive"),
        pytest.param([], 404, {"ttl_s": 30}, 30, id="ttl-of-404"),
        pytest.param([], 404, {"ttl_s": 30, "ttl_by_status": {404: 5}}, 5, id="status-before-ttl"),
        pytest.param([], 500, {"ttl_by_status": {500: 1}}, 1, id="status-not-cacheable-by-default"),
        pytest.param(["Cache-Control: max-age=60"], 500, {"ttl_by_status": {500: 1}}, 60, id="response-before-status"),
        pytest.param(["Cache-Control: max-age=60"], 200, {"ttl_s": 30, "overrides": True}, 30, id="overrides-max-age"),
        pytest.param(["Expires: 0"], 200, {"ttl_s": 30, "overrides": True}, 30, id="overrides-expires"),
        pytest.param(["Cache-Control: s-maxage=0"], 200, {"ttl_s": 30, "overrides": True}, 30, id="overrides-s-maxage"),
        pytest.param(["Cache-Control: no-cache"], 200, {"ttl_s": 30, "overrides": True}, 30, id="overrides-no-cache"),
        pytest.param(["Pragma: no-cache"], 200, {"ttl_s": 30, "overrides": True}, 30, id="overrides-pragma"),
        pytest.param(["CDN-Cache-Control: max-age=9"], 200, {"ttl_s": 30, "overrides": True}, 30, id="overrides-targeted"),
        pytest.param(["Cache-Control: max-age=60"], 200, {"overrides": True}, 60, id="overrides-with-nothing"),
        pytest.param(["Cache-Control: max-age=60"], 404, {"ttl_s": 30, "overrides": True, "ttl_by_status": {404: 0}}, 0, id="overrides-by-zero"),
        pytest.param(["Last-Modified: @-1000"], 200, {"heuristic": 0.5}, 500, id="heuristic-share"),
        pytest.param(["Last-Modified: @-1000"], 200, {"heuristic": 0.0}, 0, id="heuristic-off"),
        pytest.param(["Last-Modified: @-1000"], 200, {"heuristic_max_s": 5}, 5, id="heuristic-bound"),
        pytest.param([], 200, {"ttl_s": 1e12}, HUGE, id="ttl-huge"),
        pytest.param([], 200, {"ttl_s": -5}, 0, id="ttl-negative"),
    ],
)  # fmt: skip
def test_what_the_route_says_of_freshness(
    lines: list[str], status: int, given: dict[str, object], expected_s: float
) -> None:
    stored = judge(*lines, ETAG, status=status, rules=ask_rules(**given))
    assert isinstance(stored, Stored)
    assert stored.fresh_s == expected_s


def test_a_status_that_neither_the_route_nor_the_standard_knows_is_passed() -> None:
    assert outcome([], status=500, rules=ask_rules(ttl_s=30.0)) == "pass"


def test_a_ttl_of_the_route_counts_from_the_arrival() -> None:
    """The clock of an upstream that says nothing of freshness may be wrong, and its Age is a fact."""
    stored = kept("Date: @-5000", "Age: 100", rules=ask_rules(ttl_s=30.0))
    assert stored.fresh_s - stored.initial_age_s == 30.0
    assert stored.age_s(WALL) == 5000.0


def test_one_second_of_freshness_lasts_a_second_whatever_the_fraction() -> None:
    """A Date has whole seconds: the fraction of the arrival is no age."""
    from headgate.cache.http.judging import judge_response
    from tests.cache.http.rig import RULES, ask, fields

    stored = judge_response(
        ask(), 200, b"", fields("Date: @0", "Cache-Control: max-age=1"),
        request_at=WALL + 0.9, received_at=WALL + 0.95, rules=RULES, params={},
    )  # fmt: skip
    assert isinstance(stored, Stored)
    assert stored.initial_age_s == pytest.approx(0.05)


@pytest.mark.parametrize(
    "lines, expected",
    [
        pytest.param(["CDN-Cache-Control: max-age=60"], "fresh", id="2.2-alone"),
        pytest.param(["CDN-Cache-Control: max-age=60", "Cache-Control: no-store"], "fresh", id="2.2-before-no-store"),
        pytest.param(["CDN-Cache-Control: max-age=60", "Cache-Control: private"], "fresh", id="2.2-before-private"),
        pytest.param(["CDN-Cache-Control: max-age=60", "Cache-Control: max-age=0"], "fresh", id="2.2-longer"),
        pytest.param(["CDN-Cache-Control: max-age=0", "Cache-Control: max-age=60"], "validate", id="2.2-shorter"),
        pytest.param(["CDN-Cache-Control: max-age=60", "Expires: 0"], "fresh", id="2.2-before-expires"),
        pytest.param(["CDN-Cache-Control: max-age=0", "Expires: @60"], "validate", id="2.2-before-later-expires"),
        pytest.param(["CDN-Cache-Control: foo", "Expires: @60"], "validate", id="2.2-expires-does-not-count"),
        pytest.param(["CDN-Cache-Control: no-store", "Cache-Control: max-age=60"], "pass", id="2.2-no-store"),
        pytest.param(["CDN-Cache-Control: private", "Cache-Control: max-age=60"], "pass", id="2.2-private"),
        pytest.param(["CDN-Cache-Control: no-cache", "Cache-Control: max-age=60"], "validate", id="2.2-no-cache"),
        pytest.param(["CDN-Cache-Control: max-age=60, foo"], "fresh", id="2.1-extension"),
        pytest.param(["CDN-Cache-Control: max-age=60;a=b"], "fresh", id="2.1-parameters-ignored"),
        pytest.param(["CDN-Cache-Control: max-age=60", "CDN-Cache-Control: foo"], "fresh", id="2.1-two-lines"),
        pytest.param(["CDN-Cache-Control: no-store=?0, max-age=60"], "fresh", id="2.1-false"),
        pytest.param(["CDN-Cache-Control: no-store=?1, max-age=60"], "pass", id="2.1-true"),
        pytest.param(["CDN-Cache-Control: max-age=60, max-age=0"], "validate", id="8941-3.2-last-of-two"),
        pytest.param(["CDN-Cache-Control: max-age=0, max-age=60"], "fresh", id="8941-3.2-last-of-two-longer"),
        pytest.param(['CDN-Cache-Control: max-age="60"', "Cache-Control: max-age=60"], "validate", id="2.1-wrong-type"),
        pytest.param(["CDN-Cache-Control: max-age=-1", "Cache-Control: max-age=60"], "validate", id="2.1-negative"),
        pytest.param(["CDN-Cache-Control: max-age=1.5", "Cache-Control: max-age=60"], "validate", id="2.1-decimal"),
        pytest.param(["CDN-Cache-Control: max-age=(60)", "Cache-Control: max-age=60"], "validate", id="2.1-inner-list"),
        pytest.param(["CDN-Cache-Control:", "Cache-Control: max-age=60"], "fresh", id="2.1-empty-ignored"),
        pytest.param(["CDN-Cache-Control: max-age=0, &&", "Cache-Control: max-age=60"], "fresh", id="2.1-malformed-ignored"),
        pytest.param(["CDN-Cache-Control: max-age=60, &&", "Cache-Control: no-store"], "pass", id="2.1-malformed-falls-back"),
        pytest.param(["CDN-Cache-Control: MAX-AGE=60", "Cache-Control: no-store"], "pass", id="2.1-upper-case-is-malformed"),
        pytest.param(["CDN-Cache-Control: max-age =60", "Cache-Control: no-store"], "pass", id="2.1-blank-before-equals"),
        pytest.param(["CDN-Cache-Control: max-age= 60", "Cache-Control: no-store"], "pass", id="2.1-blank-after-equals"),
        pytest.param(["CDN-Cache-Control: max-age=60,", "Cache-Control: no-store"], "pass", id="2.1-comma-at-end"),
        pytest.param(["CDN-Cache-Control: ,max-age=60", "Cache-Control: no-store"], "pass", id="2.1-comma-at-start"),
        pytest.param(['CDN-Cache-Control: a="x', "Cache-Control: no-store"], "pass", id="2.1-quote-not-closed"),
        pytest.param(["CDN-Cache-Control: max-age=60", "Pragma: no-cache"], "fresh", id="2.2-pragma"),
        pytest.param(["CDN-Cache-Control: max-age=9999999999"], "fresh", id="1.2.2-large"),
        pytest.param(["CDN-Cache-Control: max-age=60", "Age: 70"], "validate", id="4.2.3-age-counts"),
        pytest.param(["Headgate-Cache-Control: max-age=60", "CDN-Cache-Control: no-store"], "fresh", id="2.2-own-name-first"),
        pytest.param(["Headgate-Cache-Control: &", "CDN-Cache-Control: max-age=60"], "fresh", id="2.2-own-name-malformed"),
        pytest.param(["Other-Cache-Control: max-age=60", "Cache-Control: no-store"], "pass", id="2.2-of-another"),
        pytest.param(["Surrogate-Control: max-age=60", "Cache-Control: no-store"], "pass", id="surrogate-control-is-not-ours"),
    ],
)  # fmt: skip
def test_9213_a_targeted_field(lines: list[str], expected: str) -> None:
    assert outcome([*lines, ETAG]) == expected


@pytest.mark.parametrize(
    "argument, expected", [("", "fresh"), ("=?1", "fresh"), ("=?0", "pass"), ("=1", "pass")]
)
def test_9213_public_in_a_targeted_field_allows_to_share(argument: str, expected: str) -> None:
    line = f"CDN-Cache-Control: max-age=60, public{argument}"
    assert outcome([line], first=["Authorization: x"]) == expected


def test_9213_fields_listed_in_a_targeted_field_are_not_kept_and_it_stays_itself() -> None:
    stored = kept('CDN-Cache-Control: max-age=60, private="x-a, cdn-cache-control"', "X-A: 1")
    assert {name for name, _ in stored.headers} == {b"cdn-cache-control", b"date"}


@pytest.mark.parametrize(
    "line, expected",
    [
        pytest.param("", [], id="empty"),
        pytest.param(" ,\t, ", [], id="separators"),
        pytest.param("a", [("a", None)], id="name"),
        pytest.param("A=B", [("a", "B")], id="token"),
        pytest.param('a="B, c"', [("a", "B, c")], id="quoted-comma"),
        pytest.param('a="\\"b\\\\"', [("a", '"b\\')], id="quoted-pairs"),
        pytest.param('a=""', [("a", "")], id="empty-string"),
        pytest.param("a=", [("a", "")], id="empty-token"),
        pytest.param('a="b, c', [("a", '"b'), ("c", None)], id="not-closed"),
        pytest.param("a b", [("a", None), ("b", None)], id="comma-missing"),
        pytest.param("a=1 b=2", [("a", "?"), ("b", "?")], id="comma-missing-arguments"),
        pytest.param("=a, b", [("b", None)], id="no-name"),
        pytest.param("a=b=c", [("a", "b=c")], id="two-equals"),
    ],
)
def test_members_of_a_field(line: str, expected: list[tuple[str, str | None]]) -> None:
    found = [
        (name.decode(), None if value is None else value.decode())
        for name, value in members(line.encode())
    ]
    assert found == expected


@pytest.mark.parametrize("text", [b"", b"-1", b"1.0", b" 1", b"1 ", b"+1", b"\xb2", b"1_0", b"0x1"])
def test_what_is_no_whole_number_is_no_number_of_seconds(text: bytes) -> None:
    assert delta_seconds(text) is None


def test_a_string_names_fields_in_a_targeted_field() -> None:
    found = targeted([b'no-cache="x-a", max-age=5'])
    assert found is not None
    assert found.no_cache_fields == {b"x-a"}
    assert not found.no_cache
    assert found.max_age_s == 5.0
