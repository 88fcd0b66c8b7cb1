"""What holds for every request and response, whatever they say."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.cache.http.asked import read_request
from headgate.cache.http.cache_control import SECONDS_MAX
from headgate.cache.http.judging import NotStored, judge_response
from headgate.cache.http.reuse import (
    SETBACK_MAX_S,
    judge_reuse,
    keep_until,
    may_serve_on_error,
)
from headgate.cache.http.rules import CacheRules, KeyRules
from headgate.cache.http.stored import Stored
from headgate.cache.http.validating import merged
from headgate.cache.http.vary import newest
from tests.cache.http.rig import WALL, ask, at, fields
from tests.cache.http.said import AFTER, RULES_OF_ROUTES, judged, requests, responses, words


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
    until = keep_until(found, rules.keep_s)
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
