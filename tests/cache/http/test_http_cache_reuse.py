"""RFC 9111 sections 4 and 5.2: may a kept response answer; RFC 5861, RFC 8246; clocks that jump."""

from __future__ import annotations

import math

import pytest

from headgate.cache.http.asked import Asked
from headgate.cache.http.reuse import (
    SETBACK_MAX_S,
    judge_reuse,
    keep_until,
    may_serve_on_error,
    may_serve_when_degraded,
    may_share,
)
from tests.cache.http.rig import RULES, WALL, ask, ask_rules, kept, outcome, reused

ETAG = 'ETag: "a"'
FRESH = "Cache-Control: max-age=60"


@pytest.mark.parametrize(
    "directives, then, after_s, expected",
    [
        pytest.param("max-age=60", [], 1, "fresh", id="4-fresh"),
        pytest.param("max-age=60", [], 59.9, "fresh", id="4.2-just-fresh"),
        pytest.param("max-age=60", [], 60, "validate", id="4.2-at-its-lifetime"),
        pytest.param("max-age=60", [], 61, "validate", id="4.2-stale"),
        pytest.param("max-age=60", [], 1e12, "validate", id="4.2-ages-later"),
        pytest.param("max-age=60, no-cache", [], 1, "validate", id="5.2.2.4-no-cache"),
        pytest.param("No-Cache, max-age=60", [], 1, "validate", id="5.2.2.4-case"),
        pytest.param("max-age=60, no-cache=x", [], 1, "fresh", id="5.2.2.4-field"),
        pytest.param('max-age=60, no-cache=""', [], 1, "validate", id="5.2.2.4-empty-list"),
        pytest.param('max-age=60, no-cache="a b"', [], 1, "validate", id="5.2.2.4-bad-list"),
        pytest.param("no-cache, stale-while-revalidate=60", [], 1, "validate", id="5.2.2.4-beats-swr"),
        pytest.param("max-age=60, must-revalidate", [], 1, "fresh", id="5.2.2.2-while-fresh"),
        pytest.param("max-age=60, must-revalidate", [], 61, "validate", id="5.2.2.2-stale"),
        pytest.param("max-age=60, proxy-revalidate", [], 1, "fresh", id="5.2.2.8-while-fresh"),
        pytest.param("max-age=60, proxy-revalidate", [], 61, "validate", id="5.2.2.8-stale"),
        pytest.param("s-maxage=60", [], 61, "validate", id="5.2.2.10-stale"),
        pytest.param("max-age=60", ["Cache-Control: no-cache"], 1, "validate", id="5.2.1.4-no-cache"),
        pytest.param("max-age=60", ["Cache-Control: No-CacHE"], 1, "validate", id="5.2.1.4-case"),
        pytest.param("max-age=60", ["Cache-Control: x", "Cache-Control: no-cache"], 1, "validate", id="5.2.1.4-second-line"),
        pytest.param("max-age=60", ["Cache-Control: no-store"], 1, "refuse", id="5.2.1.5-no-store"),
        pytest.param("max-age=60", ["Cache-Control: no-transform"], 1, "fresh", id="5.2.1.6-no-transform"),
        pytest.param("max-age=60", ["Cache-Control: only-if-cached"], 1, "fresh", id="5.2.1.7-fresh"),
        pytest.param("max-age=60", ["Cache-Control: only-if-cached"], 61, "validate", id="5.2.1.7-stale"),
        pytest.param("max-age=60", ["Cache-Control: x=y, z"], 1, "fresh", id="5.2.3-unknown"),
        pytest.param("max-age=60", ["Pragma: no-cache"], 1, "validate", id="5.4-pragma"),
        pytest.param("max-age=60", ["Pragma: NO-CACHE, x"], 1, "validate", id="5.4-pragma-case"),
        pytest.param("max-age=60", ["Pragma: x"], 1, "fresh", id="5.4-other-pragma"),
        pytest.param("max-age=60", ["Pragma: no-cache", "Cache-Control: x"], 1, "fresh", id="5.4-not-beside-cache-control"),
        pytest.param("max-age=60", ["Cache-Control: max-age=0"], 1, "validate", id="5.2.1.1-zero"),
        pytest.param("max-age=60", ["Cache-Control: max-age=0"], 0, "validate", id="5.2.1.1-zero-at-once"),
        pytest.param("max-age=60", ["Cache-Control: max-age=10"], 9, "fresh", id="5.2.1.1-young-enough"),
        pytest.param("max-age=60", ["Cache-Control: max-age=10"], 11, "validate", id="5.2.1.1-too-old"),
        pytest.param("max-age=60", ["Cache-Control: max-age=90"], 61, "validate", id="5.2.1.1-does-not-lengthen"),
        pytest.param("max-age=60", ["Cache-Control: max-age=x"], 1, "validate", id="5.2.1.1-rubbish"),
        pytest.param("max-age=60", ["Cache-Control: max-age"], 1, "validate", id="5.2.1.1-no-argument"),
        pytest.param("max-age=60", ["Cache-Control: max-age=90, max-age=5"], 9, "validate", id="5.2.1.1-twice"),
        pytest.param("max-age=60", ['Cache-Control: max-age="10"'], 9, "fresh", id="5.2.1.1-quoted"),
        pytest.param("max-age=60", ["Cache-Control: min-fresh=30"], 29, "fresh", id="5.2.1.3-enough-left"),
        pytest.param("max-age=60", ["Cache-Control: min-fresh=30"], 31, "validate", id="5.2.1.3-too-little-left"),
        pytest.param("max-age=60", ["Cache-Control: min-fresh=x"], 1, "validate", id="5.2.1.3-rubbish"),
        pytest.param("max-age=60", ["Cache-Control: min-fresh"], 1, "validate", id="5.2.1.3-no-argument"),
        pytest.param("max-age=60", ["Cache-Control: min-fresh=0"], 1, "fresh", id="5.2.1.3-zero"),
        pytest.param("max-age=60", ["Cache-Control: max-stale"], 600, "fresh", id="5.2.1.2-any"),
        pytest.param("max-age=60", ["Cache-Control: max-stale=30"], 90, "fresh", id="5.2.1.2-within"),
        pytest.param("max-age=60", ["Cache-Control: max-stale=30"], 91, "validate", id="5.2.1.2-beyond"),
        pytest.param("max-age=60", ["Cache-Control: max-stale=x"], 61, "validate", id="5.2.1.2-rubbish"),
        pytest.param("max-age=60", ["Cache-Control: max-stale, max-stale=5"], 70, "validate", id="5.2.1.2-twice"),
        pytest.param("max-age=60", ["Cache-Control: max-stale, no-cache"], 61, "validate", id="5.2.1.2-beside-no-cache"),
        pytest.param("max-age=60", ["Cache-Control: max-stale, min-fresh=1"], 61, "validate", id="5.2.1.2-beside-min-fresh"),
        pytest.param("max-age=60, must-revalidate", ["Cache-Control: max-stale"], 61, "validate", id="5.2.2.2-beats-max-stale"),
        pytest.param("max-age=60, proxy-revalidate", ["Cache-Control: max-stale"], 61, "validate", id="5.2.2.8-beats-max-stale"),
        pytest.param("s-maxage=60", ["Cache-Control: max-stale"], 61, "validate", id="5.2.2.10-beats-max-stale"),
        pytest.param("no-cache, max-age=60", ["Cache-Control: max-stale"], 1, "validate", id="5.2.2.4-beats-max-stale"),
        pytest.param("max-age=60", ["Cache-Control: max-age=10, max-stale=20"], 25, "fresh", id="5.2.1.1-with-max-stale"),
        pytest.param("max-age=60", ["Cache-Control: max-age=10, max-stale=20"], 31, "validate", id="5.2.1.1-beyond-max-stale"),
        pytest.param("max-age=60", ["Cache-Control: max-age=10, max-stale=20"], 61, "validate", id="5.2.1.1-stale-beyond-both"),
        pytest.param("max-age=60, stale-while-revalidate=30", [], 1, "fresh", id="5861-3-fresh"),
        pytest.param("max-age=60, stale-while-revalidate=30", [], 61, "revalidate_behind", id="5861-3-within"),
        pytest.param("max-age=60, stale-while-revalidate=30", [], 91, "validate", id="5861-3-beyond"),
        pytest.param("max-age=60, stale-while-revalidate=x", [], 61, "validate", id="5861-3-rubbish"),
        pytest.param("max-age=60, stale-while-revalidate", [], 61, "validate", id="5861-3-no-argument"),
        pytest.param("max-age=60, stale-while-revalidate=90, stale-while-revalidate=5", [], 70, "validate", id="5861-3-twice"),
        pytest.param("max-age=60, stale-while-revalidate=30", ["Cache-Control: no-cache"], 61, "validate", id="5861-3-client-insists"),
        pytest.param("max-age=60, stale-while-revalidate=30", ["Cache-Control: max-age=900"], 61, "validate", id="5861-3-client-bounds-age"),
        pytest.param("max-age=60, stale-while-revalidate=30", ["Cache-Control: min-fresh=1"], 61, "validate", id="5861-3-client-min-fresh"),
        pytest.param("max-age=60, stale-while-revalidate=30, must-revalidate", [], 61, "validate", id="5.2.2.2-beats-swr"),
        pytest.param("max-age=60, stale-while-revalidate=30, proxy-revalidate", [], 61, "validate", id="5.2.2.8-beats-swr"),
        pytest.param("s-maxage=60, stale-while-revalidate=30", [], 61, "revalidate_behind", id="5861-3-beside-s-maxage"),
        pytest.param("max-age=0, stale-while-revalidate=30", [], 1, "revalidate_behind", id="5861-3-never-fresh"),
        pytest.param("max-age=60, immutable", ["Cache-Control: max-age=0"], 1, "fresh", id="8246-2-reload"),
        pytest.param("max-age=60, Immutable", ["Cache-Control: max-age=5"], 9, "fresh", id="8246-2-case"),
        pytest.param("max-age=60, immutable", ["Cache-Control: no-cache"], 1, "validate", id="8246-2-forced-reload"),
        pytest.param("max-age=60, immutable", ["Cache-Control: max-age=0"], 61, "validate", id="8246-2-stale"),
        pytest.param("max-age=60, immutable", [], 61, "validate", id="8246-2-is-no-freshness"),
        pytest.param("max-age=60, immutable=1", ["Cache-Control: max-age=0"], 1, "validate", id="8246-2-argument"),
        pytest.param("no-cache, immutable", [], 1, "validate", id="8246-2-no-cache"),
        pytest.param("max-age=60", ["Authorization: x"], 1, "fresh", id="3.5-anonymous-answer-to-somebody"),
        pytest.param("max-age=60", ["If-None-Match: x"], 1, "fresh", id="4.3.2-condition"),
        pytest.param("max-age=60", ["If-Match: x"], 1, "bypass", id="4.3.2-if-match"),
        pytest.param("max-age=60", ["If-Unmodified-Since: @0"], 1, "bypass", id="4.3.2-if-unmodified-since"),
    ],
)  # fmt: skip
def test_what_becomes_of_a_second_request(
    directives: str, then: list[str], after_s: float, expected: str
) -> None:
    assert outcome([f"Cache-Control: {directives}", ETAG], then=then, after_s=after_s) == expected


@pytest.mark.parametrize(
    "line",
    [
        "no-cache",
        "no-store",
        "max-age=0",
        "min-fresh=99",
        "max-stale",
        "only-if-cached",
        "stale-if-error=9",
    ],
    ids=lambda line: line.partition("=")[0],
)
@pytest.mark.parametrize(
    "after_s, expected", [(1.0, "fresh"), (61.0, "validate")], ids=["fresh", "stale"]
)
def test_clients_are_not_listened_to_where_the_route_says_so(
    line: str, after_s: float, expected: str
) -> None:
    rules = ask_rules(client_directives=False)
    then = [f"Cache-Control: {line}", "Pragma: no-cache"]
    assert outcome([FRESH, ETAG], then=then, after_s=after_s, rules=rules) == expected


@pytest.mark.parametrize(
    "lines, name, expected",
    [
        pytest.param(
            ["Cache-Control: only-if-cached"], "only_if_cached", True, id="only-if-cached"
        ),
        pytest.param(["Cache-Control: no-transform"], "no_transform", True, id="no-transform"),
        pytest.param(["Cache-Control: max-stale"], "max_stale_s", math.inf, id="max-stale"),
        pytest.param(
            ["Cache-Control: stale-if-error=9"], "stale_if_error_s", 9.0, id="stale-if-error"
        ),
        pytest.param(
            ["Cache-Control: stale-if-error=x"], "stale_if_error_s", None, id="stale-if-error-bad"
        ),
        pytest.param(["Authorization: x"], "has_authorization", True, id="authorization"),
        pytest.param(
            ["Proxy-Authorization: x"], "has_authorization", False, id="proxy-authorization"
        ),
        pytest.param(
            ["If-None-Match: a", "If-Modified-Since: b"],
            "if_modified_since",
            None,
            id="9110-13.1.3",
        ),
        pytest.param(["If-Range: a"], "if_range", None, id="9110-13.1.5-without-range"),
        pytest.param(["Range: bytes=0-1", "If-Range: a"], "if_range", b"a", id="9110-13.1.5"),
        pytest.param(["Range: bytes=0-1"], "range", ((0, 1),), id="9110-14.2"),
        pytest.param(["Range: lines=0-1"], "range", None, id="9110-14.2-unit"),
    ],
)
def test_a_request_is_read(lines: list[str], name: str, expected: object) -> None:
    assert getattr(ask(*lines), name) == expected


@pytest.mark.parametrize(
    "method, expected",
    [("GET", True), ("HEAD", True), ("POST", False), ("get", False), ("", False)],
)
def test_get_and_head_go_through_the_cache(method: str, expected: bool) -> None:
    assert ask(method=method).is_cacheable is expected


def test_a_request_with_content_goes_past_the_cache() -> None:
    from headgate.cache.http.asked import read_request

    assert not read_request("GET", (), RULES, is_identified=False, has_body=True).is_cacheable


def test_9110_14_2_a_range_means_nothing_to_head() -> None:
    assert ask("Range: bytes=0-1", method="HEAD").range is None


def test_ttl_and_age_are_told() -> None:
    found = reused(kept("Cache-Control: max-age=60", "Age: 10"), after_s=70.0)
    assert (found.age_s, found.ttl_s, found.why) == (80.0, -20.0, "stale")


@pytest.mark.parametrize(
    "directives, then, after_s, expected",
    [
        pytest.param("max-age=60", [], 1, "validate", id="fresh"),
        pytest.param(
            "max-age=60, stale-while-revalidate=30",
            [],
            1,
            "revalidate_behind",
            id="may-be-served-meanwhile",
        ),
        pytest.param("max-age=60, stale-while-revalidate=30", [], 91, "validate", id="long-stale"),
        pytest.param(
            "max-age=60, stale-while-revalidate=30, must-revalidate",
            [],
            1,
            "validate",
            id="must-revalidate",
        ),
        pytest.param(
            "max-age=60",
            ["Cache-Control: max-stale"],
            1,
            "validate",
            id="max-stale-is-not-for-purged",
        ),
        pytest.param(
            "max-age=60, immutable", ["Cache-Control: max-age=0"], 1, "validate", id="immutable"
        ),
        pytest.param("max-age=60", ["Cache-Control: no-store"], 1, "refuse", id="no-store"),
    ],
)
def test_a_soft_purge_makes_it_stale(
    directives: str, then: list[str], after_s: float, expected: str
) -> None:
    found = reused(kept(f"Cache-Control: {directives}", ETAG), *then, after_s=after_s, struck=True)
    assert found.kind == expected
    assert found.ttl_s <= 0.0 or expected == "refuse"


@pytest.mark.parametrize(
    "directives, given, after_s, expected",
    [
        pytest.param("max-age=60", {}, 61, "validate", id="no-default"),
        pytest.param(
            "max-age=60", {"stale_while_revalidate_s": 30.0}, 61, "revalidate_behind", id="default"
        ),
        pytest.param(
            "max-age=60, stale-while-revalidate=0",
            {"stale_while_revalidate_s": 30.0},
            61,
            "validate",
            id="response-first",
        ),
        pytest.param(
            "max-age=60, must-revalidate",
            {"stale_while_revalidate_s": 30.0},
            61,
            "validate",
            id="must-revalidate",
        ),
        pytest.param(
            "s-maxage=60",
            {"stale_while_revalidate_s": 30.0},
            61,
            "validate",
            id="s-maxage-says-something",
        ),
        pytest.param("no-cache", {"stale_while_revalidate_s": 30.0}, 1, "validate", id="no-cache"),
        pytest.param(
            "no-cache",
            {"stale_while_revalidate_s": 30.0, "ttl_s": 5.0, "overrides": True},
            6,
            "validate",
            id="overridden-no-cache-is-never-stale",
        ),
    ],
)
def test_what_the_route_says_of_staleness(
    directives: str, given: dict[str, object], after_s: float, expected: str
) -> None:
    assert (
        outcome([f"Cache-Control: {directives}", ETAG], after_s=after_s, rules=ask_rules(**given))
        == expected
    )


@pytest.mark.parametrize(
    "directives, then, after_s, expected",
    [
        pytest.param("max-age=60", [], 61, False, id="nothing-allows-it"),
        pytest.param("max-age=60", [], 1, True, id="fresh"),
        pytest.param("max-age=60, must-revalidate", [], 1, True, id="fresh-must-revalidate"),
        pytest.param("max-age=60, stale-if-error=30", [], 61, True, id="5861-4-within"),
        pytest.param("max-age=60, stale-if-error=30", [], 90, False, id="5861-4-beyond"),
        pytest.param("max-age=60, stale-if-error", [], 61, False, id="5861-4-no-argument"),
        pytest.param("max-age=60, stale-if-error=30, must-revalidate", [], 61, False, id="5.2.2.2-beats-it"),
        pytest.param("max-age=60, stale-if-error=30, proxy-revalidate", [], 61, False, id="5.2.2.8-beats-it"),
        pytest.param("max-age=60, stale-if-error=30, no-cache", [], 1, False, id="5.2.2.4-beats-it"),
        pytest.param("s-maxage=60, stale-if-error=30", [], 61, True, id="5861-4-beside-s-maxage"),
        pytest.param("max-age=60", ["Cache-Control: stale-if-error=30"], 61, True, id="5861-4-client"),
        pytest.param("max-age=60", ["Cache-Control: stale-if-error=30"], 91, False, id="5861-4-client-beyond"),
        pytest.param("max-age=60", ["Cache-Control: stale-if-error=x"], 61, False, id="5861-4-client-rubbish"),
        pytest.param("s-maxage=60", ["Cache-Control: stale-if-error=30"], 61, False, id="5.2.2.10-beats-the-client"),
        pytest.param("max-age=60, must-revalidate", ["Cache-Control: stale-if-error=30"], 61, False, id="5.2.2.2-beats-the-client"),
        pytest.param("max-age=60, stale-if-error=30", ["Cache-Control: max-age=0"], 61, True, id="reload"),
        pytest.param("max-age=60, stale-if-error=30", ["Cache-Control: no-cache"], 61, False, id="5.2.1.4-insists"),
        pytest.param("max-age=60, stale-if-error=30", ["Cache-Control: no-store"], 61, False, id="5.2.1.5-insists"),
    ],
)  # fmt: skip
def test_4_3_3_a_stale_response_in_place_of_an_error(
    directives: str, then: list[str], after_s: float, expected: bool
) -> None:
    stored = kept(f"Cache-Control: {directives}", ETAG)
    assert may_serve_on_error(stored, ask(*then), WALL + after_s, RULES) is expected


def test_the_route_allows_stale_on_error_where_the_response_is_silent() -> None:
    rules = ask_rules(stale_if_error_s=30.0)
    silent = kept(FRESH, rules=rules)
    assert may_serve_on_error(silent, ask(), WALL + 61.0, rules)
    speaks = kept("Cache-Control: max-age=60, stale-if-error=0", rules=rules)
    assert not may_serve_on_error(speaks, ask(), WALL + 61.0, rules)


@pytest.mark.parametrize(
    "directives, then, after_s, expected",
    [
        pytest.param("max-age=60", [], 600, True, id="stale"),
        pytest.param("max-age=60, must-revalidate", [], 1, True, id="5.2.2.2-fresh"),
        pytest.param("max-age=60, must-revalidate", [], 61, False, id="5.2.2.2-stale"),
        pytest.param("max-age=60, proxy-revalidate", [], 61, False, id="5.2.2.8-stale"),
        pytest.param("s-maxage=60", [], 61, False, id="5.2.2.10-stale"),
        pytest.param("no-cache", [], 1, False, id="5.2.2.4"),
        pytest.param("max-age=60", ["Cache-Control: no-cache"], 1, False, id="5.2.1.4"),
        pytest.param("max-age=60", ["Cache-Control: no-store"], 1, False, id="5.2.1.5"),
        pytest.param("max-age=60", ["Cache-Control: max-age=0"], 600, True, id="reload"),
    ],
)
def test_4_2_4_a_stale_response_spares_a_service_in_trouble(
    directives: str, then: list[str], after_s: float, expected: bool
) -> None:
    stored = kept(f"Cache-Control: {directives}", ETAG)
    assert may_serve_when_degraded(stored, ask(*then), WALL + after_s) is expected


@pytest.mark.parametrize(
    "directives, then, expected",
    [
        pytest.param("max-age=1", [], True, id="4-fresh"),
        pytest.param("max-age=0", [], False, id="4-stale-at-once"),
        pytest.param("no-cache, max-age=60", [], False, id="5.2.2.4-no-cache"),
        pytest.param("must-revalidate", [], False, id="4-says-nothing-of-freshness"),
        pytest.param("max-age=0, stale-while-revalidate=9", [], True, id="5861-3"),
        pytest.param(
            "max-age=0, stale-while-revalidate=9",
            ["Cache-Control: max-age=5"],
            False,
            id="5.2.1.1-not-stale",
        ),
        pytest.param("max-age=0, stale-if-error=9", [], False, id="5861-4-is-for-errors"),
        pytest.param("max-age=60", ["Cache-Control: max-age=0"], True, id="5.2.1.1-reload"),
        pytest.param("max-age=60", ["Cache-Control: no-cache"], False, id="5.2.1.4"),
        pytest.param("max-age=60", ["Cache-Control: no-store"], False, id="5.2.1.5"),
        pytest.param("max-age=60", ["Cache-Control: min-fresh=60"], True, id="5.2.1.3-enough"),
        pytest.param("max-age=60", ["Cache-Control: min-fresh=61"], False, id="5.2.1.3-too-little"),
        pytest.param(
            "max-age=0", ["Cache-Control: max-stale"], False, id="5.2.1.2-is-not-for-this"
        ),
    ],
)
def test_4_collapsed_requests_share_only_what_may_be_reused(
    directives: str, then: list[str], expected: bool
) -> None:
    stored = kept(f"Cache-Control: {directives}", ETAG)
    assert may_share(stored, ask(*then), WALL) is expected


def test_an_answer_with_a_tag_and_nothing_else_is_for_the_one_who_asked() -> None:
    """Many frameworks send a tag with each page, also with one made for a session."""
    assert not may_share(kept(ETAG), ask(), WALL)


@pytest.mark.parametrize("then", [[], ["Cache-Control: max-stale"]], ids=["plain", "max-stale"])
def test_a_clock_set_back_gives_no_eternal_freshness(then: list[str]) -> None:
    stored = kept("Cache-Control: max-age=60, stale-while-revalidate=600, stale-if-error=600")
    asked = ask(*then)
    assert judge_reuse(stored, asked, WALL - SETBACK_MAX_S).kind == "fresh"
    for years in (1e-4, 1, 10, 50):
        wall = WALL - years * 365 * 86400.0
        found = judge_reuse(stored, asked, wall)
        assert (found.kind, found.why) == ("validate", "clock")
        assert found.age_s >= 0.0
        assert found.ttl_s <= 0.0
        assert not may_serve_on_error(stored, asked, wall, RULES)
        assert not may_serve_when_degraded(stored, asked, wall)


def test_a_clock_set_ahead_makes_it_stale() -> None:
    assert reused(kept(FRESH), after_s=1e9).kind == "validate"


@pytest.mark.parametrize(
    "directives, lines, expected_s",
    [
        pytest.param("max-age=60", [ETAG], 60 + 3600, id="to-be-validated"),
        pytest.param("max-age=60", ["Age: 20", ETAG], 40 + 3600, id="came-aged"),
        pytest.param("max-age=60", [], 60 + 3600, id="may-be-stale"),
        pytest.param("max-age=60, must-revalidate", [], 60, id="of-no-use-when-stale"),
        pytest.param("max-age=60, must-revalidate", [ETAG], 60 + 3600, id="must-be-validated"),
        pytest.param("max-age=60, stale-while-revalidate=7200", [], 60 + 7200, id="long-swr"),
        pytest.param("max-age=60, stale-if-error=9000", [], 60 + 9000, id="long-sie"),
        pytest.param("s-maxage=60, stale-if-error=10", [], 60 + 10, id="s-maxage-sie"),
        pytest.param("max-age=0", [ETAG, "Age: 50"], 3600, id="never-fresh"),
        pytest.param("max-age=60", [ETAG, "Age: 7200"], 3600, id="came-older-than-it-is-held"),
    ],
)
def test_how_long_to_hold_it(directives: str, lines: list[str], expected_s: float) -> None:
    found = kept(f"Cache-Control: {directives}", *lines)
    assert keep_until(found, RULES.keep_s) == WALL + expected_s


def test_what_was_asked_is_told_by_plain_values() -> None:
    asked = ask("Accept: a")
    assert isinstance(asked, Asked)
    assert not asked.wishes
    assert not asked.is_conditional
    assert asked.headers == ((b"accept", b"a"),)
