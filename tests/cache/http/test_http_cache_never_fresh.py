"""What was never fresh has been given to nobody but the one who asked: when it may be stale."""

from __future__ import annotations

import pytest

from headgate.cache.http.reuse import may_serve_on_error, may_serve_when_degraded
from headgate.cache.http.stored import Stored
from tests.cache.http.rig import WALL, ask, ask_rules, judge, reused

TAG = 'ETag: "a"'
NEVER = [
    pytest.param([], id="silent"),
    pytest.param(["Cache-Control: max-age=0"], id="max-age-0"),
    pytest.param(["Expires: 0"], id="expires-0"),
    pytest.param(["Cache-Control: max-age=x"], id="unreadable"),
    pytest.param(["Last-Modified: @60"], id="changed-in-the-future"),
]
ONCE = [
    pytest.param(["Cache-Control: max-age=1"], id="max-age-1"),
    pytest.param(["Cache-Control: max-age=60", "Age: 100"], id="stale-on-arrival"),
    pytest.param(["Cache-Control: max-age=0, public"], id="public"),
    pytest.param(["Last-Modified: @-10"], id="guessed"),
]
RULES = ask_rules(stale_while_revalidate_s=600.0, stale_if_error_s=600.0)
LATER_S = 100.0


def held(lines: list[str], **rules: float) -> Stored:
    given = ask_rules(stale_while_revalidate_s=600.0, stale_if_error_s=600.0, **rules)
    stored = judge(*lines, TAG, rules=given)
    assert isinstance(stored, Stored)
    return stored


def ways(stored: Stored) -> list[bool]:
    """Behind by rule, on error by rule and by wish, for a client that would have it, in trouble."""
    return [
        reused(stored, after_s=LATER_S).kind == "revalidate_behind",
        may_serve_on_error(stored, ask(), WALL + LATER_S, RULES),
        may_serve_on_error(stored, ask("Cache-Control: stale-if-error=600"), WALL + LATER_S, RULES),
        reused(stored, "Cache-Control: max-stale", after_s=LATER_S).kind == "fresh",
        may_serve_when_degraded(stored, ask(), WALL + LATER_S),
    ]


@pytest.mark.parametrize("lines", NEVER)
def test_nobody_makes_it_be_served_stale(lines: list[str]) -> None:
    assert ways(held(lines)) == [False] * 5


@pytest.mark.parametrize("lines", ONCE)
def test_what_was_fresh_once_or_is_public_may_be(lines: list[str]) -> None:
    assert ways(held(lines)) == [True] * 5


@pytest.mark.parametrize("lines", NEVER[:1])
def test_a_ttl_of_the_route_makes_it_fresh_once(lines: list[str]) -> None:
    assert ways(held(lines, ttl_s=0.0)) == [True] * 5


def test_it_may_say_so_itself() -> None:
    stored = held(["Cache-Control: max-age=0, stale-while-revalidate=600, stale-if-error=600"])
    assert ways(stored)[:2] == [True, True]
