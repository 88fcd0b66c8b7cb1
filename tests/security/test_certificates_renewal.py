"""When certificates are renewed, how failures are waited out, and whose turn it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.security.certificates.claims import LIFE_S, Claims
from headgate.security.certificates.renewal import (
    FAILURES_AN_HOUR,
    LONGEST_WAIT_S,
    SPREAD,
    Standing,
    due_at,
    failed,
    forced_at,
    is_late,
    settled,
)

DAY = 86400.0
NOW = 1_800_000_000.0
NEW = Standing(begins=NOW, ends=NOW + 90 * DAY)


def test_without_a_certificate_it_is_due_at_once():
    assert due_at(Standing(), NOW, 0.5) <= NOW


def test_a_certificate_is_renewed_when_two_thirds_of_its_life_are_over():
    assert due_at(NEW, NOW, 0.0) == NOW + 60 * DAY


@given(st.floats(0, 1, exclude_max=True), st.floats(600, 400 * DAY))
def test_renewals_are_spread_and_never_later_than_two_thirds(share, life_s):
    standing = Standing(begins=NOW, ends=NOW + life_s)
    at = due_at(standing, NOW, share)
    assert NOW + life_s * (2 / 3 - SPREAD) - 1 <= at <= NOW + life_s * 2 / 3 + 1


@pytest.mark.parametrize(
    ("before_s", "days"),
    [(30 * DAY, 60.0), (7 * DAY, 83.0), (400 * DAY, 9.0)],
    ids=["30 days", "7 days", "more than its life"],
)
def test_it_may_be_said_how_long_before_the_end(before_s, days):
    assert due_at(NEW, NOW, 0.0, before_s) == pytest.approx(NOW + days * DAY)


def test_the_authoritys_window_is_followed():
    asked = Standing(NOW, NOW + 90 * DAY, window=(NOW + 10 * DAY, NOW + 12 * DAY))
    assert due_at(asked, NOW, 0.5) == NOW + 11 * DAY


def test_waits_double_up_to_six_hours():
    waits = []
    standing, wall = Standing(begins=NOW - 61 * DAY, ends=NOW + 29 * DAY), NOW
    for _ in range(12):
        standing = failed(standing, wall, "no", None)
        due = due_at(standing, wall, 0.0)
        waits.append(due - wall)
        wall = due
    assert waits[:3] == [120.0, 240.0, 480.0]
    assert waits == sorted(waits)
    assert waits[-1] == LONGEST_WAIT_S


def test_near_the_end_it_is_tried_every_hour():
    standing = Standing(NOW - 85 * DAY, NOW + 5 * DAY, failures=20, failed_at=(NOW,))
    assert due_at(standing, NOW, 0.0) == NOW + 3600.0
    assert is_late(standing, NOW)


def test_the_authoritys_wait_is_waited_for():
    standing = failed(Standing(), NOW, "rate limited", 5 * 3600.0)
    assert due_at(standing, NOW, 0.0) == NOW + 5 * 3600.0
    assert forced_at(standing, NOW) == NOW + 5 * 3600.0


@given(st.lists(st.tuples(st.floats(0, 7200), st.booleans()), max_size=60))
def test_no_hour_has_more_than_five_failures_whoever_asks(steps):
    standing, wall = Standing(), NOW
    failures = []
    for pause_s, is_forced in steps:
        wall += pause_s
        standing = settled(standing, wall)
        at = forced_at(standing, wall) if is_forced else due_at(standing, wall, 0.0)
        if at <= wall:
            failures.append(wall)
            standing = failed(standing, wall, "no", None)
    for first, later in zip(failures, failures[FAILURES_AN_HOUR:], strict=False):
        assert later - first >= 3600.0


def test_five_failures_by_an_operators_wish_leave_an_hour_without_a_try():
    standing = Standing()
    for _ in range(FAILURES_AN_HOUR):
        standing = failed(standing, NOW, "no", None)
    assert due_at(standing, NOW, 0.0) == forced_at(standing, NOW) == NOW + 3600.0


@given(st.floats(-400 * DAY, 400 * DAY), st.integers(1, 30), st.floats(0, 7 * DAY))
def test_a_clock_that_jumps_does_not_end_renewals(jump_s, failures, retry_after_s):
    standing = Standing()
    for _ in range(failures):
        standing = failed(standing, NOW, "no", retry_after_s)
    wall = NOW + jump_s
    standing = settled(standing, wall)
    assert due_at(standing, wall, 0.0) <= wall + 7 * DAY
    # Time goes on, and so do we.
    later = wall + 7 * DAY
    assert due_at(settled(standing, later), later, 0.0) <= later


def test_settling_what_is_settled_changes_nothing():
    standing = failed(Standing(), NOW, "no", 60.0)
    assert settled(standing, NOW + 1) is standing


# -- turns ----------------------------------------------------------------------------------------


def heard(claims: dict[str, Claims], message: dict, now: float) -> None:
    for each in claims.values():
        each.hear(message, now)


def test_the_first_to_ask_orders_and_the_next_one_after_it():
    claims = {name: Claims(name) for name in ("b", "a")}
    heard(claims, claims["b"].claim(10.0), 0.0)
    heard(claims, claims["a"].claim(11.0), 0.0)
    assert [claims[name].is_ours(1.0) for name in ("b", "a")] == [True, False]
    # Asking again keeps the place.
    heard(claims, claims["b"].claim(99.0), 1.0)
    assert claims["b"].is_ours(1.0)
    heard(claims, claims["b"].end(), 2.0)
    assert [claims[name].is_ours(2.0) for name in ("b", "a")] == [False, True]


def test_of_two_that_ask_at_once_one_orders():
    claims = {name: Claims(name) for name in ("a", "b")}
    for each in claims.values():
        heard(claims, each.claim(10.0), 0.0)
    assert [each.is_ours(0.0) for each in claims.values()] == [True, False]


def test_a_claim_of_the_dead_ends():
    alive = Claims("z")
    alive.hear({"holder": "a", "since": 1.0}, 0.0)
    alive.claim(10.0)
    assert not alive.is_ours(LIFE_S - 1)
    assert alive.is_ours(LIFE_S)


@pytest.mark.parametrize(
    "message",
    [{}, {"holder": 7}, {"holder": "a"}, {"holder": "a", "since": "x"}, {"holder": "a" * 300}],
    ids=["empty", "number", "no time", "text", "long"],
)
def test_claims_that_are_none_are_not_heard(message):
    claims = Claims("z")
    claims.claim(10.0)
    claims.hear(message, 0.0)
    assert claims.is_ours(0.0)


def test_without_a_claim_it_is_nobodys_turn():
    assert not Claims("a").is_ours(0.0)


def test_claims_are_bounded():
    claims = Claims("z")
    for number in range(3000):
        claims.hear({"holder": f"h{number}", "since": 1.0}, 0.0)
    assert len(claims._others) == 1000
